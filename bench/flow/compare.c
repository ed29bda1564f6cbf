// SPDX-License-Identifier: MIT
#include "bench/flow/compare.h"

#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "bench/flow/campaign.h"
#include "bench/flow/ratio.h"
#include "bench/lab/results.h"
#include "userspace/base/log.h"

#define FAN	      100
#define PAIRS	      10
#define CONNECTS      32
#define IDLE	      10000
#define WORDS_COLUMNS 43

#define SERIES_MALLOCS "mallocs"
#define WINDOW_SEALED  32

/* All options are those of a campaign. */
static error_t parse(int key, char *arg, struct argp_state *state)
{
	if (key != ARGP_KEY_INIT)
		return ARGP_ERR_UNKNOWN;
	state->child_inputs[0] = state->input;
	return 0;
}

/* --- what is compared ------------------------------------------------------------------------- */

static void add(struct campaign *c, const char *series, struct scenario s)
{
	char words[RATIO_WORDS_BYTES];

	ratio_words(&s, words);
	if (!campaign_wants(c, words))
		return;
	campaign_group(c);
	s.server = SCENARIO_PLAIN;
	campaign_add(c, series, &s);
	s.server = SCENARIO_MOSQUITTO;
	campaign_add(c, series, &s);
}

static void add_messages(struct campaign *c, unsigned window)
{
	static const struct {
		enum scenario_kind kind;
		unsigned clients;
	} shapes[] = {
		{ SCENARIO_FAN_IN, FAN },
		{ SCENARIO_FAN_OUT, FAN },
		{ SCENARIO_PAIRS, PAIRS },
	};
	static const unsigned payloads[] = { 64, 256 };
	struct scenario s;

	scenario_default(&s);
	s.window = window;
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		s.kind = shapes[i].kind;
		s.clients = shapes[i].clients;
		for (s.qos = 0; s.qos <= 1; s.qos++) {
			for (size_t p = 0; p < ARRAY_SIZE(payloads); p++) {
				if (c->quick && p != s.qos)
					continue; /* each value once with each shape */
				s.payload = payloads[p];
				add(c, RATIO_MESSAGES, s);
			}
		}
	}
}

/* ssdtf-broker with its allocations counted, which takes it a little time. */
static void add_mallocs(struct campaign *c, enum scenario_server server, unsigned receivers)
{
	struct scenario s;

	scenario_default(&s);
	s.kind = receivers == 1 ? SCENARIO_PAIRS : SCENARIO_FAN_OUT;
	s.server = server;
	s.clients = PAIRS;
	s.qos = 1;
	s.window = server == SCENARIO_SEALED ? WINDOW_SEALED : RATIO_MANY;
	s.count_mallocs = true;
	if (!campaign_wants(c, SERIES_MALLOCS))
		return;
	campaign_group(c);
	campaign_add(c, SERIES_MALLOCS, &s);
}

static void add_all(struct campaign *c)
{
	struct scenario s;

	add_messages(c, RATIO_MANY);
	add_messages(c, 1);
	scenario_default(&s);
	s.kind = SCENARIO_CONNECT;
	s.clients = CONNECTS;
	add(c, RATIO_CONNECTS, s);
	/* One message under way, so that there is a window at whose end the memory is read. */
	scenario_default(&s);
	s.kind = SCENARIO_PAIRS;
	s.clients = 1;
	s.window = 1;
	s.idle = IDLE;
	add(c, RATIO_IDLE, s);
	add_mallocs(c, SCENARIO_PLAIN, 1);
	add_mallocs(c, SCENARIO_SEALED, 10);
}

/* --- what came of it -------------------------------------------------------------------------- */

static void cell(const struct figure *f, FILE *to)
{
	char text[64];

	if (!f->n)
		snprintf(text, sizeof(text), "-");
	else if (f->n == 1)
		snprintf(text, sizeof(text), "%.3g", f->median);
	else
		snprintf(text, sizeof(text), "%.3g (%.3g-%.3g)", f->median, f->min, f->max);
	fprintf(to, " %20s", text);
}

static void print_table(const struct campaign *c, const char *series, const char *what, FILE *to)
{
	struct ratio r[RATIO_PAIRS_MAX];
	unsigned n = ratio_find(c->entries, c->n, series, r);

	if (!n)
		return;
	fprintf(to, "\n%-*s %20s %20s %20s %20s\n", WORDS_COLUMNS, what, "ssdtf-broker, us",
		"mosquitto, us", "ratio of CPU", "ratio of rates");
	for (unsigned i = 0; i < n; i++) {
		char words[RATIO_WORDS_BYTES];

		ratio_words(&r[i].ours->scenario, words);
		fprintf(to, "%-*s", WORDS_COLUMNS, words);
		cell(&r[i].our_us, to);
		cell(&r[i].their_us, to);
		cell(&r[i].cpu, to);
		cell(&r[i].per_second, to);
		fputc('\n', to);
	}
}

static void print_connects(const struct campaign *c, FILE *to)
{
	struct ratio r[RATIO_PAIRS_MAX];

	print_table(c, RATIO_CONNECTS, "connects", to);
	if (!ratio_find(c->entries, c->n, RATIO_CONNECTS, r))
		return;
	if (c->capped_by)
		fprintf(to, "(brokers limited to %d %% of a CPU, by %s)\n",
			CAMPAIGN_CONNECT_PERCENT, c->capped_by);
	else
		fprintf(to, "(brokers not limited, for want of a cgroup: the clients may set the "
			    "rate)\n");
}

static void print_idle(const struct campaign *c, FILE *to)
{
	struct ratio r[RATIO_PAIRS_MAX];
	unsigned n = ratio_find(c->entries, c->n, RATIO_IDLE, r);

	for (unsigned i = 0; i < n; i++) {
		struct figure ours = ratio_idle_kib(r[i].ours);
		struct figure theirs = ratio_idle_kib(r[i].theirs);
		char words[RATIO_WORDS_BYTES];

		ratio_words(&r[i].ours->scenario, words);
		fprintf(to, "\n%-*s %20s %20s\n%-*s", WORDS_COLUMNS, "memory, each",
			"ssdtf-broker, KiB", "mosquitto, KiB", WORDS_COLUMNS, words);
		cell(&ours, to);
		cell(&theirs, to);
		fputc('\n', to);
	}
}

static void print_mallocs(const struct campaign *c, FILE *to)
{
	for (unsigned i = 0; i < c->n; i++) {
		const struct json_entry *e = &c->entries[i];
		struct figure f = ratio_figure(e, OUTCOME_MALLOCS);
		char words[RATIO_WORDS_BYTES];

		if (strcmp(e->series, SERIES_MALLOCS) || !f.n)
			continue;
		ratio_words(&e->scenario, words);
		fprintf(to, "\nmallocs of a million deliveries, %s: %s: %.3g (%.3g-%.3g)",
			scenario_server_name(e->scenario.server), words, f.median, f.min, f.max);
	}
	fputc('\n', to);
}

/* What a figure of messages that did not arrive, or of late clients, is worth. */
static void print_doubts(const struct campaign *c, FILE *to)
{
	for (unsigned i = 0; i < c->n; i++) {
		const struct json_entry *e = &c->entries[i];

		for (unsigned k = 0; k < e->n_rounds; k++) {
			const struct outcome *o = &e->rounds[k];
			char words[RATIO_WORDS_BYTES];

			if (!o->lost && !o->duplicated && !o->disordered && !o->wrong)
				continue;
			ratio_words(&e->scenario, words);
			fprintf(to,
				"%s, %s, round %u: %llu lost, %llu duplicated, %llu out of order, "
				"%llu wrong\n",
				words, scenario_server_name(e->scenario.server), k + 1,
				(unsigned long long)o->lost, (unsigned long long)o->duplicated,
				(unsigned long long)o->disordered, (unsigned long long)o->wrong);
		}
	}
}

static void print_targets(const struct campaign *c, FILE *to)
{
	struct ratio_target t[RATIO_TARGETS_MAX];
	unsigned n = ratio_targets(c->entries, c->n, t);

	fprintf(to, "\n%-58s %9s %9s %9s   %s\n", "targets, over the scenarios' medians", "min",
		"median", "max", "wanted of all");
	for (unsigned i = 0; i < n; i++) {
		fprintf(to, "%-58s", t[i].what);
		if (t[i].figure.n)
			fprintf(to, " %9.3g %9.3g %9.3g", t[i].figure.min, t[i].figure.median,
				t[i].figure.max);
		else
			fprintf(to, " %9s %9s %9s", "-", "-", "-");
		fprintf(to, "   %s %g %s: %s\n", t[i].at_least ? ">=" : "<=", t[i].wanted,
			t[i].unit,
			!t[i].figure.n ? "not measured"
			: t[i].met     ? "met"
				       : "NOT MET");
	}
}

static void print(const struct campaign *c, FILE *to)
{
	results_print_head(c->root, to);
	fprintf(to,
		"%u round%s in turn, windows of %g s\n"
		"us: CPU of the broker's processes for each delivery; median (min-max) over the "
		"rounds\n"
		"ratios, each made within a round: above 1 is in favour of ssdtf-broker\n",
		c->rounds, c->rounds == 1 ? "" : "s", c->seconds);
	print_table(c, RATIO_MESSAGES, "messages", to);
	print_connects(c, to);
	print_idle(c, to);
	print_mallocs(c, to);
	print_targets(c, to);
	print_doubts(c, to);
}

int compare_main(int argc, char **argv)
{
	static const struct argp_child children[] = { { &campaign_argp, 0, NULL, 0 }, { 0 } };
	static const struct argp argp = {
		.parser = parse,
		.children = children,
		.doc = "Measures ssdtf-broker, plain, and mosquitto in turn, in the same "
		       "scenarios. Needs root.",
	};
	static struct campaign c = { .rounds = 3, .seconds = NAN };

	argp_err_exit_status = EX_USAGE;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &c))
		exit_with(EX_USAGE, "the options cannot be read");
	if (isnan(c.seconds))
		c.seconds = c.quick ? 1 : 3;
	add_all(&c);
	return campaign_run(&c, argc, argv, print);
}
