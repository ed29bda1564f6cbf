// SPDX-License-Identifier: MIT
#include "bench/flow/grow.h"

#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "bench/flow/campaign.h"
#include "bench/flow/ratio.h"
#include "bench/flow/series.h"
#include "bench/lab/results.h"
#include "userspace/base/log.h"

struct grow {
	struct campaign campaign;
	bool chosen[SERIES];
	bool any;
};

enum option_key { OPT_SERIES = 'S' };

/* clang-format off */
static const struct argp_option options[] = {
	{ "series", OPT_SERIES, "NAME,...", 0,
	  "of connections,receivers,subscriptions,payload,load,context,hsmd,batch: what grows "
	  "(all, one after the other)", 0 },
	{ 0 },
};
/* clang-format on */

static bool choose(struct grow *g, const char *name, size_t n)
{
	for (unsigned i = 0; i < SERIES; i++) {
		const char *have = series_get((enum series_id)i)->name;

		if (strlen(have) == n && !strncmp(have, name, n))
			return g->chosen[i] = g->any = true;
	}
	return false;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct grow *g = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &g->campaign;
		return 0;
	case OPT_SERIES:
		for (const char *p = arg;; p++) {
			size_t n = strcspn(p, ",");

			if (!choose(g, p, n))
				exit_with(EX_USAGE,
					  "--series: a list of connections, receivers, "
					  "subscriptions, payload, load, context, hsmd, batch, not "
					  "\"%s\"",
					  arg);
			p += n;
			if (!*p)
				return 0;
		}
	}
	return ARGP_ERR_UNKNOWN;
}

/* --- the table -------------------------------------------------------------------------------- */

/* A metric of one entry: its median over the rounds, "-" where it has none. */
static void cell(const struct json_entry *e, enum outcome_metric m, FILE *to)
{
	struct figure f = ratio_figure(e, m);

	if (f.n)
		fprintf(to, " %11.4g", f.median);
	else
		fprintf(to, " %11s", "-");
}

static void print_entry(const struct series *s, const struct json_entry *e, FILE *to)
{
	uint64_t bad = 0;
	bool behind = false;

	fprintf(to, "  %12.10g %-10s", s->of(&e->scenario),
		scenario_server_name(e->scenario.server));
	cell(e, OUTCOME_PER_SECOND, to);
	cell(e, OUTCOME_SERVER_US, to);
	cell(e, OUTCOME_CORE_US, to);
	cell(e, OUTCOME_TOKEN_OPS, to);
	cell(e, OUTCOME_P50_US, to);
	cell(e, OUTCOME_P99_US, to);
	for (unsigned i = 0; i < e->n_rounds; i++) {
		const struct outcome *o = &e->rounds[i];

		bad += o->lost + o->duplicated + o->disordered + o->wrong;
		behind |= o->behind;
	}
	if (!e->n_rounds)
		fputs("  not measured", to);
	if (bad)
		fprintf(to, "  %llu lost or wrong", (unsigned long long)bad);
	if (behind)
		fputs("  clients late", to);
	fputc('\n', to);
}

static void print(const struct campaign *c, FILE *to)
{
	results_print_head(c->root, to);
	fprintf(to,
		"%u round%s, windows of %g s; medians over the rounds\n"
		"us: CPU for each delivery, of the broker's processes, and of all that its core "
		"did\n",
		c->rounds, c->rounds == 1 ? "" : "s", c->seconds);
	for (unsigned id = 0; id < SERIES; id++) {
		const struct series *s = series_get((enum series_id)id);
		bool headed = false;

		for (unsigned i = 0; i < c->n; i++) {
			if (strcmp(c->entries[i].series, s->name))
				continue;
			if (!headed)
				fprintf(to,
					"\n%s: %s (%s)\n  %12s %-10s %11s %11s %11s %11s %11s "
					"%11s\n",
					s->name, s->x, s->same, s->name, "server", "delivered/s",
					"server us", "core us", "token ops", "p50 us", "p99 us");
			headed = true;
			print_entry(s, &c->entries[i], to);
		}
	}
}

int grow_main(int argc, char **argv)
{
	static const struct argp_child children[] = { { &campaign_argp, 0, NULL, 0 }, { 0 } };
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.children = children,
		.doc = "Measures what a message costs as one thing grows: connections, receivers, "
		       "subscriptions, payload, load, the length of contexts, key processes, "
		       "batches. Needs root.",
	};
	static struct grow g = { .campaign = { .rounds = 3, .seconds = NAN } };

	argp_err_exit_status = EX_USAGE;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &g))
		exit_with(EX_USAGE, "the options cannot be read");
	if (isnan(g.campaign.seconds))
		g.campaign.seconds = g.campaign.quick ? 1 : 3;
	for (unsigned i = 0; i < SERIES; i++) {
		if (!g.any || g.chosen[i])
			series_add(&g.campaign, (enum series_id)i);
	}
	return campaign_run(&g.campaign, argc, argv, print);
}
