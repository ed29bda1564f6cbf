// SPDX-License-Identifier: MIT
#include "bench/page/summary.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "bench/flow/ratio.h"
#include "bench/flow/series.h"
#include "bench/page/html.h"
#include "bench/page/input.h"
#include "userspace/base/compiler.h"

static const struct figure nothing = { 0, NAN, NAN, NAN };

/* --- figures ---------------------------------------------------------------------------------- */

/* Medians of all scenarios of ssdtf-bench compare with so many messages in flight. */
static struct figure against_mosquitto(const struct input *in, const char *series, unsigned window,
				       bool cpu)
{
	struct ratio r[RATIO_PAIRS_MAX];
	unsigned n = ratio_find(in->entries, in->n_entries, series, r), used = 0;
	double v[RATIO_PAIRS_MAX];

	for (unsigned i = 0; i < n; i++) {
		const struct figure *f = cpu ? &r[i].cpu : &r[i].per_second;

		if (f->n && (!window || r[i].ours->scenario.window == window))
			v[used++] = f->median;
	}
	return figure_of(v, used);
}

static struct figure idle_kib(const struct input *in, bool ours)
{
	struct ratio r[RATIO_PAIRS_MAX];

	if (!ratio_find(in->entries, in->n_entries, RATIO_IDLE, r))
		return nothing;
	return ratio_idle_kib(ours ? r[0].ours : r[0].theirs);
}

#define MANY_RECEIVERS 100

/* Calls of malloc in the broker for a million deliveries, over the scenarios that were counted. */
static struct figure mallocs(const struct input *in, enum scenario_server server)
{
	double v[FIGURE_VALUES_MAX];
	unsigned used = 0;

	for (unsigned i = 0; i < in->n_entries && used < FIGURE_VALUES_MAX; i++) {
		struct figure f = ratio_figure(&in->entries[i], OUTCOME_MALLOCS);

		if (f.n && isfinite(f.median) && in->entries[i].scenario.server == server)
			v[used++] = f.median;
	}
	return figure_of(v, used);
}

/* The last entry of a series with this value on x, of a server; NULL: not measured. */
static const struct json_entry *entry_at(const struct input *in, enum series_id id, double x,
					 enum scenario_server server)
{
	const struct series *s = series_get(id);
	const struct json_entry *found = NULL;

	for (unsigned i = 0; i < in->n_entries; i++) {
		const struct json_entry *e = &in->entries[i];

		if (!strcmp(e->series, s->name) && e->scenario.server == server && e->n_rounds &&
		    fabs(s->of(&e->scenario) - x) < 0.5)
			found = e;
	}
	return found;
}

/* The most key processes that were measured and left a CPU to the broker; 0: none. */
static unsigned key_processes(const struct input *in)
{
	const struct series *s = series_get(SERIES_HSMD);
	const json_t *machine = json_object_get(in->files[0].root, "machine");
	json_int_t cpus = json_integer_value(json_object_get(machine, "cpus"));
	unsigned most = 0;

	for (unsigned i = 0; i < in->n_entries; i++) {
		const struct json_entry *e = &in->entries[i];
		unsigned n = e->scenario.hsmd;

		if (!strcmp(e->series, s->name) && e->n_rounds && n > most && (n == 1 || n < cpus))
			most = n;
	}
	return most;
}

static struct figure divided(struct figure f, double by)
{
	if (!f.n || !isfinite(by) || by <= 0)
		return nothing;
	f.min /= by;
	f.median /= by;
	f.max /= by;
	return f;
}

static double median_of(const struct input_speed *s)
{
	return s ? s->per_second.median : NAN;
}

/* Conversions of delivered messages, E fresh for each, of what as many processes do alone. */
static struct figure token_share(const struct input *in, const char *alone)
{
	unsigned n = key_processes(in);
	double v[FIGURE_VALUES_MAX];
	const struct json_entry *e = entry_at(in, SERIES_HSMD, n, SCENARIO_SEALED);
	unsigned used = 0;

	for (unsigned i = 0; e && i < e->n_rounds; i++) {
		v[used] = (double)e->rounds[i].conversions / e->rounds[i].seconds;
		used += isfinite(v[used]);
	}
	return divided(figure_of(v, used), median_of(input_speed_find(in, alone, n, 0, 0)));
}

/* Deliveries a second at one point of a series, of a speed. */
static struct figure share(const struct input *in, enum series_id id, double x, const char *alone,
			   unsigned batch)
{
	const struct json_entry *e = entry_at(in, id, x, SCENARIO_SEALED);

	return divided(ratio_figure(e, OUTCOME_PER_SECOND),
		       median_of(input_speed_find(in, alone, 0, batch, 0)));
}

/* Sealed / plain, of the same value on x, over all values of a series from `least` on. */
static struct figure sealed_to_plain(const struct input *in, enum series_id id, double least,
				     enum outcome_metric m)
{
	const struct series *s = series_get(id);
	double v[FIGURE_VALUES_MAX];
	unsigned used = 0;

	for (unsigned i = 0; i < in->n_entries && used < FIGURE_VALUES_MAX; i++) {
		const struct json_entry *e = &in->entries[i], *plain;

		if (e->scenario.server != SCENARIO_SEALED || strcmp(e->series, s->name) ||
		    s->of(&e->scenario) < least)
			continue;
		plain = entry_at(in, id, s->of(&e->scenario), SCENARIO_PLAIN);
		v[used] = ratio_figure(e, m).median / ratio_figure(plain, m).median;
		used += isfinite(v[used]);
	}
	return figure_of(v, used);
}

/* --- in large letters ------------------------------------------------------------------------- */

static void tile(FILE *to, struct figure f, const char *unit, const char *what, bool ceiling)
{
	char number[HTML_NUMBER_BYTES];

	fputs("<div class=\"tile", to);
	if (!f.n || !isfinite(f.median)) {
		fprintf(to, " none\"><b>–</b><span>%s: not measured</span></div>\n", what);
		return;
	}
	html_number(f.median, number);
	fprintf(to, "%s\"><b>%s<i>%s</i></b><span>%s</span></div>\n", ceiling ? " token" : "",
		number, unit, what);
}

/* Of the bare token's conversions: measured in turn, where that was done. */
static struct figure conversions(const struct input *in)
{
	for (unsigned i = 0; i < in->n_reaches; i++)
		if (!strncmp(in->reaches[i].name, "conversions", strlen("conversions")))
			return in->reaches[i].value;
	return token_share(in, "bare convert");
}

void summary_write_tiles(FILE *to, const struct input *in)
{
	struct figure token = conversions(in);

	fputs("<div class=\"tiles\">\n", to);
	tile(to, against_mosquitto(in, RATIO_MESSAGES, RATIO_MANY, true), "×",
	     "as many deliveries as mosquitto with the same CPU time, 100 in flight", false);
	tile(to, idle_kib(in, true), "&thinsp;KiB", "of the broker’s memory for an idle connection",
	     false);
	tile(to, divided(token, 0.01), "&thinsp;%",
	     "of the bare token’s conversions come out as deliveries, E fresh for each", true);
	tile(to, sealed_to_plain(in, SERIES_RECEIVERS, MANY_RECEIVERS, OUTCOME_SERVER_US), "×",
	     "the CPU of plain for sealed deliveries, each message to 100 receivers", true);
	fputs("</div>\n", to);
}

/* --- the table -------------------------------------------------------------------------------- */

static void group(FILE *to, const char *title)
{
	fprintf(to, "<tr class=\"group\"><th scope=\"colgroup\" colspan=\"2\">%s</th></tr>\n",
		title);
}

/* A row's head: what, and below it in small letters of what. */
static void head(FILE *to, const char *what, const char *of)
{
	fputs("<tr><th scope=\"row\">", to);
	html_text(to, what);
	fputs("<small>", to);
	html_text(to, of);
	fputs("</small></th>", to);
}

static void row(FILE *to, const char *what, const char *of, struct figure f, const char *unit)
{
	head(to, what, of);
	html_figure_cell(to, &f, unit);
	fputs("</tr>\n", to);
}

static void rows_ceiling(FILE *to, const struct input *in)
{
	char of[128];
	unsigned n = key_processes(in);
	struct figure bare = token_share(in, "bare convert");

	group(to, "Sealed: reached, of what the machine does alone");
	snprintf(of, sizeof(of), "of the bare PKCS#11 loop, %u key process%s in both", n,
		 n == 1 ? "" : "es");
	row(to, "conversions a second, E fresh for every message",
	    n ? of : "of the bare PKCS#11 loop", bare, "×");
	row(to, "conversions a second, E fresh for every message",
	    "of the key process’s own code alone", token_share(in, "convert"), "×");
	row(to, "deliveries a second, 1,000 messages a context",
	    "of one key process’s conversions: above 1 the token is not the limit",
	    share(in, SERIES_CONTEXT, 1000, "convert", 0), "×");
	row(to, "deliveries a second, a signature for each message", "of one core’s verifications",
	    share(in, SERIES_BATCH, 1, "p256 verify", 0), "×");
	row(to, "deliveries a second, a signature for 64 messages", "of one core’s verifications",
	    share(in, SERIES_BATCH, 64, "p256 verify", 0), "×");
	row(to, "deliveries a second, a signature for 64 messages", "of ingress alone on one core",
	    share(in, SERIES_BATCH, 64, "ingress trailer 2", 64), "×");
}

void summary_write(FILE *to, const struct input *in)
{
	static const char *const columns[] = { "", "median, least – most", NULL };

	html_section(to, "summary", "Summary", NULL);
	html_table(to, columns);
	group(to, "Plain, against mosquitto");
	row(to, "CPU for each delivery, 100 in flight", "mosquitto / ssdtf-broker",
	    against_mosquitto(in, RATIO_MESSAGES, RATIO_MANY, true), "×");
	row(to, "CPU for each delivery, one in flight", "mosquitto / ssdtf-broker",
	    against_mosquitto(in, RATIO_MESSAGES, 1, true), "×");
	row(to, "deliveries a second, 100 in flight", "ssdtf-broker / mosquitto",
	    against_mosquitto(in, RATIO_MESSAGES, RATIO_MANY, false), "×");
	row(to, "connects a second", "ssdtf-broker / mosquitto",
	    against_mosquitto(in, RATIO_CONNECTS, 0, false), "×");
	row(to, "memory for an idle connection", "ssdtf-broker", idle_kib(in, true), "KiB");
	row(to, "memory for an idle connection", "mosquitto", idle_kib(in, false), "KiB");
	row(to, "calls of malloc for a million deliveries", "ssdtf-broker, plain",
	    mallocs(in, SCENARIO_PLAIN), "");
	rows_ceiling(to, in);
	group(to, "Sealed, against plain");
	row(to, "CPU for each delivery, each message to 100 receivers", "sealed / plain",
	    sealed_to_plain(in, SERIES_RECEIVERS, MANY_RECEIVERS, OUTCOME_SERVER_US), "×");
	row(to, "CPU for each delivery, each message signed for one receiver",
	    "sealed / plain, over the payloads",
	    sealed_to_plain(in, SERIES_PAYLOAD, 0, OUTCOME_SERVER_US), "×");
	row(to, "deliveries a second, each message signed for one receiver",
	    "sealed / plain, over the payloads",
	    sealed_to_plain(in, SERIES_PAYLOAD, 0, OUTCOME_PER_SECOND), "×");
	row(to, "calls of malloc for a million deliveries", "ssdtf-broker, sealed",
	    mallocs(in, SCENARIO_SEALED), "");
	html_table_end(to);
	html_section_end(to);
}

/* --- targets and scenarios -------------------------------------------------------------------- */

/* CPU of one operation of a / of b, medians. */
static struct figure cpu_ratio(const struct input_speed *a, const struct input_speed *b)
{
	double v = a && b ? a->cpu_us.median / b->cpu_us.median : NAN;

	return figure_of(&v, isfinite(v) ? 1 : 0);
}

static void target_row(FILE *to, struct ratio_target t)
{
	const char *unit = strcmp(t.unit, "x") ? t.unit : "×";
	char wanted[64];

	/* No-break spaces: a number stays with its unit. */
	snprintf(wanted, sizeof(wanted), "wanted: at %s %g\u00a0%s", t.at_least ? "least" : "most",
		 t.wanted, unit);
	head(to, t.what, wanted);
	fputs("<td>", to);
	html_figure(to, &t.figure, unit);
	if (t.figure.n)
		fputs(t.met ? "<div class=\"met\">✓ met</div>"
			    : "<div class=\"missed\">✗ not met</div>",
		      to);
	fputs("</td></tr>\n", to);
}

/* Measured in turn, which is better than minutes apart; the median of the rounds decided. */
static void targets_reached(FILE *to, const struct input *in)
{
	for (unsigned i = 0; i < in->n_reaches; i++) {
		const struct input_reach *r = &in->reaches[i];
		bool ratio = !strcmp(r->unit, "x");
		struct ratio_target t = { r->name,	   ratio ? "x" : "µs", r->at_least,
					  r->wanted_value, r->value,	       r->met };

		if (r->wanted)
			target_row(to, t);
	}
}

static void targets_sealed(FILE *to, const struct input *in)
{
	const struct input_speed *one = input_speed_find(in, "ingress trailer 1", 1, 0, 1000);
	const struct input_speed *many = input_speed_find(in, "ingress trailer 2", 1, 64, 0);
	const struct input_speed *verify = input_speed_find(in, "evp verify", 1, 0, 0);
	const struct input_speed *egress = input_speed_find(in, "egress token", 1, 64, 0);
	const struct ratio_target rows[] = {
		{ "conversions in deliveries, E fresh for every message / in the bare PKCS#11 loop",
		  "x", true, 0.9, token_share(in, "bare convert"), false },
		{ "CPU of a delivery on its way out, 64 under one signature of the token", "µs",
		  false, 3, egress ? egress->cpu_us : nothing, false },
		{ "ingress, a signature for each message / OpenSSL’s verification alone, speed",
		  "x", true, 0.9, cpu_ratio(verify, one), false },
		{ "ingress, a signature for 64 messages / for each message, speed", "x", true, 10,
		  cpu_ratio(one, many), false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct ratio_target t = rows[i];

		t.met = t.at_least ? t.figure.min >= t.wanted : t.figure.max <= t.wanted;
		target_row(to, t);
	}
}

void summary_write_targets(FILE *to, const struct input *in)
{
	static const char *const columns[] = { "", "median, least – most", NULL };
	struct ratio_target t[RATIO_TARGETS_MAX];
	unsigned n = ratio_targets(in->entries, in->n_entries, t);

	html_section(
		to, "targets", "Targets",
		"Every scenario’s median, or every round, must keep them: the worst one decides. "
		"Of what ssdtf-bench reach measured in turn the median of the rounds does.");
	html_table(to, columns);
	group(to, "Plain, against mosquitto");
	for (unsigned i = 0; i < n; i++)
		target_row(to, t[i]);
	group(to, "Sealed");
	if (in->n_reaches)
		targets_reached(to, in);
	else
		targets_sealed(to, in);
	html_table_end(to);
	html_section_end(to);
}

static void rows_compare(FILE *to, const struct input *in, const char *series)
{
	struct ratio r[RATIO_PAIRS_MAX];
	unsigned n = ratio_find(in->entries, in->n_entries, series, r);

	for (unsigned i = 0; i < n; i++) {
		char words[RATIO_WORDS_BYTES];

		ratio_words(&r[i].ours->scenario, words);
		fputs("<tr><th scope=\"row\">", to);
		html_text(to, words);
		fputs("</th>", to);
		html_figure_cell(to, &r[i].our_us, "");
		html_figure_cell(to, &r[i].their_us, "");
		html_figure_cell(to, &r[i].cpu, "×");
		html_figure_cell(to, &r[i].per_second, "×");
		fputs("</tr>\n", to);
	}
}

void summary_write_compare(FILE *to, const struct input *in)
{
	static const char *const columns[] = { "scenario",	    "ssdtf-broker, CPU µs",
					       "mosquitto, CPU µs", "ratio of CPU",
					       "ratio of rates",    NULL };
	struct ratio r[RATIO_PAIRS_MAX];

	html_section(
		to, "compare", "Against mosquitto",
		"CPU of the broker’s processes for each delivery or connect, on one core, in "
		"turn A B A B. Each ratio is made of two neighbours in time; above 1 is in favour "
		"of ssdtf-broker.");
	if (ratio_find(in->entries, in->n_entries, RATIO_MESSAGES, r) +
	    ratio_find(in->entries, in->n_entries, RATIO_CONNECTS, r)) {
		html_table(to, columns);
		rows_compare(to, in, RATIO_MESSAGES);
		rows_compare(to, in, RATIO_CONNECTS);
		html_table_end(to);
	} else {
		fputs("<p class=\"none\">Not measured. <code>ssdtf-bench compare</code> does it."
		      "</p>\n",
		      to);
	}
	html_section_end(to);
}
