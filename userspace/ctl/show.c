// SPDX-License-Identifier: MIT
#include "userspace/ctl/show.h"

#include <inttypes.h>
#include <string.h>

#include "userspace/core/source.h"

#define US_PER_SECOND 1000000.0

/* What each reason means, in the order of the counters. */
static const char *const meanings[] = {
	[ADMISSION_SYN] = "a connection begins",
	[ADMISSION_RST] = "a connection is reset",
	[ADMISSION_STRAY] = "of no known connection: it gets its RST",
	[ADMISSION_OK] = "CONNECT with a valid token",
	[ADMISSION_OK_AGAIN] = "the same segment, sent again",
	[ADMISSION_BARE] = "ACK or FIN without data, before CONNECT",
	[ADMISSION_BANNED] = "its source is banned",
	[ADMISSION_SYN_RATE] = "its source begins too many connections",
	[ADMISSION_NOT_CONNECT] = "the first bytes are no CONNECT",
	[ADMISSION_SPLIT] = "CONNECT is longer than its segment",
	[ADMISSION_MALFORMED] = "CONNECT that cannot be read",
	[ADMISSION_NO_TOKEN] = "CONNECT without a token",
	[ADMISSION_SLOT] = "token of another time: is its clock right?",
	[ADMISSION_UNKNOWN] = "client id that is not enrolled here",
	[ADMISSION_BAD_TAG] = "token that was made with another key",
	[ADMISSION_REPLAYED] = "token that was used before",
	[ADMISSION_RATE] = "the device connects too often",
	[ADMISSION_TOLD] = "rejected, and the client is told so",
	[ADMISSION_DROPPED] = "dropped in silence",
};
_Static_assert(ARRAY_SIZE(meanings) == ADMISSION_COUNTERS, "each counter has a meaning");

static const char *mode_meaning(const char *mode)
{
	static const struct {
		const char *mode, *meaning;
	} all[] = {
		{ "off", "tokens are not looked at" },
		{ "monitor", "all is counted, nothing is refused" },
		{ "enforce", "without a valid token nobody gets in" },
		{ "auto", "the broker refuses; the kernel drops while there is pressure" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
		if (!strcmp(all[i].mode, mode))
			return all[i].meaning;
	return "?";
}

/* A second between two samples is never exactly one. Counters begin anew with a broker. */
static double rate(uint64_t now, uint64_t before, double seconds)
{
	return now > before && seconds > 0 ? (double)(now - before) / seconds : 0;
}

static double seconds_between(const struct show_sample *now, const struct show_sample *before)
{
	return (double)(now->at_us - before->at_us) / US_PER_SECOND;
}

/* --- for people ------------------------------------------------------------------------------- */

static void head(const struct answer_status *s, FILE *to)
{
	fprintf(to, "mode      %s: %s\n", s->mode, mode_meaning(s->mode));
	if (s->kernel)
		fprintf(to, "kernel    on: the filter %s\ndevices   %" PRIu64 " in the filter\n",
			s->enforcing ? "drops what is rejected" : "counts, and drops nothing now",
			s->devices);
	else
		fprintf(to, "kernel    off%s%s\n", s->why[0] ? ": " : "", s->why);
	fprintf(to, "bans      %" PRIu64 "\npressure  %" PRIu64 " rejects in the last second\n\n",
		s->bans, s->pressure_per_second);
}

/* Of one of the two: its total and its rate, or dashes. */
static void columns(bool there, const uint64_t *now, const uint64_t *before, double seconds,
		    FILE *to)
{
	if (there)
		fprintf(to, " %12" PRIu64, *now);
	else
		fprintf(to, " %12s", "-");
	if (there && before)
		fprintf(to, " %8.1f", rate(*now, *before, seconds));
	else if (before)
		fprintf(to, " %8s", "-");
}

static void table(const struct show_sample *now, const struct show_sample *before, FILE *to)
{
	const struct answer_status *n = &now->status, *b = before ? &before->status : NULL;
	double seconds = before ? seconds_between(now, before) : 0;

	head(n, to);
	if (before)
		fprintf(to, "%-11s %12s %8s %12s %8s\n", "", "filter", "/s", "broker", "/s");
	else
		fprintf(to, "%-11s %12s %12s\n", "", "filter", "broker");
	for (unsigned i = 0; i < ADMISSION_COUNTERS; i++) {
		if (i == ADMISSION_TOLD)
			fprintf(to, "\n");
		fprintf(to, "%-11s", answer_verdict_name(i));
		columns(n->kernel, &n->filter[i], b ? &b->filter[i] : NULL, seconds, to);
		columns(true, &n->broker[i], b ? &b->broker[i] : NULL, seconds, to);
		fprintf(to, "  %s\n", meanings[i]);
	}
}

static void more(const struct answer_list *l, FILE *to)
{
	if (l->more)
		fprintf(to, "and %" PRIu64 " more\n", l->more);
}

static void table_of_bans(const struct answer_list *l, FILE *to)
{
	char text[SOURCE_TEXT_BYTES_MAX];

	fprintf(to, "%-24s %10s\n", "source", "seconds");
	for (unsigned i = 0; i < l->n; i++)
		fprintf(to, "%-24s %10" PRIu64 "\n", source_text(&l->rows[i].source, text),
			l->rows[i].n);
	more(l, to);
}

static void table_of_sources(const struct answer_list *l, FILE *to)
{
	char text[SOURCE_TEXT_BYTES_MAX];

	fprintf(to, "%-24s %12s  %s\n", "source", "rejected", "the last time");
	for (unsigned i = 0; i < l->n; i++) {
		const struct answer_row *row = &l->rows[i];

		fprintf(to, "%-24s %12" PRIu64 "  %s: %s\n", source_text(&row->source, text),
			row->n, answer_verdict_name(row->last),
			row->last < ADMISSION_COUNTERS ? meanings[row->last] : "of a newer broker");
	}
	more(l, to);
}

/* --- for programs ----------------------------------------------------------------------------- */

static void json_string(const char *s, FILE *to)
{
	putc('"', to);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			putc('\\', to);
		putc(*s, to); /* an answer's text is printable ASCII */
	}
	putc('"', to);
}

static const char *json_bool(bool v)
{
	return v ? "true" : "false";
}

static void json_counters(const char *name, bool there, const uint64_t n[ADMISSION_COUNTERS],
			  FILE *to)
{
	fprintf(to, ",\"%s\":%s", name, there ? "{" : "null");
	for (unsigned i = 0; there && i < ADMISSION_COUNTERS; i++)
		fprintf(to, "%s\"%s\":%" PRIu64, i ? "," : "", answer_verdict_name(i), n[i]);
	fprintf(to, there ? "}" : "");
}

static void json_rates(const char *name, bool there, const uint64_t now[ADMISSION_COUNTERS],
		       const uint64_t before[ADMISSION_COUNTERS], double seconds, FILE *to)
{
	fprintf(to, ",\"%s\":%s", name, there ? "{" : "null");
	for (unsigned i = 0; there && i < ADMISSION_COUNTERS; i++)
		fprintf(to, "%s\"%s\":%.1f", i ? "," : "", answer_verdict_name(i),
			rate(now[i], before[i], seconds));
	fprintf(to, there ? "}" : "");
}

static void json_admission(const struct show_sample *now, const struct show_sample *before,
			   FILE *to)
{
	const struct answer_status *s = &now->status;

	fprintf(to, "{\"mode\":");
	json_string(s->mode, to);
	fprintf(to, ",\"kernel\":%s,\"why\":", json_bool(s->kernel));
	json_string(s->why, to);
	fprintf(to,
		",\"enforcing\":%s,\"devices\":%" PRIu64 ",\"bans\":%" PRIu64
		",\"pressure\":%" PRIu64,
		json_bool(s->enforcing), s->devices, s->bans, s->pressure_per_second);
	json_counters("filter", s->kernel, s->filter, to);
	json_counters("broker", true, s->broker, to);
	if (before) {
		const struct answer_status *b = &before->status;
		double seconds = seconds_between(now, before);

		fprintf(to, ",\"seconds\":%.3f", seconds);
		json_rates("filter_per_second", s->kernel, s->filter, b->filter, seconds, to);
		json_rates("broker_per_second", true, s->broker, b->broker, seconds, to);
	}
	fprintf(to, "}\n");
}

static void json_bans(const struct answer_list *l, FILE *to)
{
	char text[SOURCE_TEXT_BYTES_MAX];

	fprintf(to, "{\"bans\":[");
	for (unsigned i = 0; i < l->n; i++)
		fprintf(to, "%s{\"source\":\"%s\",\"seconds\":%" PRIu64 "}", i ? "," : "",
			source_text(&l->rows[i].source, text), l->rows[i].n);
	fprintf(to, "],\"more\":%" PRIu64 "}\n", l->more);
}

static void json_sources(const struct answer_list *l, FILE *to)
{
	char text[SOURCE_TEXT_BYTES_MAX];

	fprintf(to, "{\"sources\":[");
	for (unsigned i = 0; i < l->n; i++)
		fprintf(to, "%s{\"source\":\"%s\",\"rejected\":%" PRIu64 ",\"last\":\"%s\"}",
			i ? "," : "", source_text(&l->rows[i].source, text), l->rows[i].n,
			answer_verdict_name(l->rows[i].last));
	fprintf(to, "],\"more\":%" PRIu64 "}\n", l->more);
}

/* --- both ------------------------------------------------------------------------------------- */

void show_admission(const struct show_sample *now, const struct show_sample *before, bool json,
		    FILE *to)
{
	if (json)
		json_admission(now, before, to);
	else
		table(now, before, to);
}

void show_bans(const struct answer_list *l, bool json, FILE *to)
{
	if (json)
		json_bans(l, to);
	else
		table_of_bans(l, to);
}

void show_sources(const struct answer_list *l, bool json, FILE *to)
{
	if (json)
		json_sources(l, to);
	else
		table_of_sources(l, to);
}
