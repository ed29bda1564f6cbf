// SPDX-License-Identifier: MIT
#include "userspace/distributor/anonymity.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "userspace/distributor/store.h"

#define OUTLET_BYTES 65

struct report {
	bool json;
	uint64_t period_s;
	uint64_t n; /* views so far */
	char outlet[OUTLET_BYTES];
};

/* A topic may hold quotes and control characters. */
static void print_json(struct bytes v)
{
	putchar('"');
	for (size_t i = 0; i < v.n; i++) {
		if (v.p[i] == '"' || v.p[i] == '\\')
			printf("\\%c", v.p[i]);
		else if (v.p[i] < 0x20)
			printf("\\u%04x", v.p[i]);
		else
			putchar(v.p[i]);
	}
	putchar('"');
}

static void print_text(struct bytes v)
{
	for (size_t i = 0; i < v.n; i++)
		putchar(v.p[i] < 0x20 || v.p[i] == 0x7f ? '?' : v.p[i]);
}

static void begin_outlet(struct report *r, const struct store_view *v)
{
	if (r->json) {
		printf("%s\n    {\"outlet\": ", r->n ? "]}," : "");
		print_json(v->outlet);
		printf(", \"s\": %llu, \"views\": [", (unsigned long long)v->senders);
		return;
	}
	printf("%soutlet %s: s = %llu\n", r->n ? "\n" : "", r->outlet,
	       (unsigned long long)v->senders);
	printf("  %8s %10s %8s  %s\n", "s", "messages", "bytes", "topic");
}

/* Views of an outlet come with the fewest senders first: that is its s. */
static int take_view(void *ctx, const struct store_view *v)
{
	struct report *r = ctx;
	bool first = !r->n || !bytes_equal(v->outlet, bytes_str(r->outlet));

	if (first) {
		snprintf(r->outlet, sizeof(r->outlet), "%.*s", (int)v->outlet.n,
			 (const char *)v->outlet.p);
		begin_outlet(r, v);
	}
	r->n++;
	if (r->json) {
		printf("%s\n      {\"topic\": ", first ? "" : ",");
		print_json(v->topic);
		printf(", \"bytes_max\": %llu, \"s\": %llu, \"messages\": %llu}",
		       (unsigned long long)v->size_max, (unsigned long long)v->senders,
		       (unsigned long long)v->messages);
		return 0;
	}
	printf("  %8llu %10llu %8llu  ", (unsigned long long)v->senders,
	       (unsigned long long)v->messages, (unsigned long long)v->size_max);
	print_text(v->topic);
	putchar('\n');
	return 0;
}

static void begin(struct report *r, uint64_t period)
{
	time_t at = (time_t)(period * r->period_s);
	char text[32] = "?";
	struct tm tm;

	if (gmtime_r(&at, &tm))
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (r->json)
		printf("{\"from\": \"%s\", \"seconds\": %llu, \"outlets\": [", text,
		       (unsigned long long)r->period_s);
	else
		printf("since %s, for %llu s: how many senders share what an observer sees\n\n",
		       text, (unsigned long long)r->period_s);
}

static int report(struct store *s, struct report *r)
{
	uint64_t period;
	int err = store_newest_period(s, &period);

	if (err == -ENOENT) {
		puts(r->json ? "{\"outlets\": []}" : "nothing was published yet");
		return 0;
	}
	if (err)
		return err;
	begin(r, period);
	err = store_views(s, period, take_view, r);
	if (!err && r->json)
		puts(r->n ? "]}\n]}" : "]}");
	return err;
}

int anonymity_report(const struct config *c, bool json)
{
	struct report r = { .json = json, .period_s = c->limits.anonymity_period_s };
	char why[STORE_ERROR_BYTES];
	struct store *s;
	int err = store_open_reader(c->state_dir, &s, why);

	if (err)
		exit_with(err == -ENOENT   ? EX_NOINPUT
			  : err == -EACCES ? EX_NOPERM
					   : EX_DATAERR,
			  "%s", why);
	err = report(s, &r);
	if (err)
		exit_with(EX_IOERR, "%s: %s", c->state_dir, store_words(s));
	store_close(s);
	if (fflush(stdout) || ferror(stdout))
		exit_with(EX_IOERR, "cannot write to stdout");
	return EX_OK;
}
