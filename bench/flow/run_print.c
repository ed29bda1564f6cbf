// SPDX-License-Identifier: MIT
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "bench/flow/run.h"

#define WORDS_BYTES 160
#define FULL	    0.95 /* of a CPU */

static void line(FILE *to, const char *name, const struct scenario *s, const struct outcome *rounds,
		 unsigned n, enum outcome_metric m)
{
	double values[RUN_ROUNDS_MAX] = { 0 };
	struct figure f;

	for (unsigned i = 0; i < n; i++)
		values[i] = outcome_value(s, &rounds[i], m);
	f = figure_of(values, n);
	if (isnan(f.median))
		return;
	fprintf(to, "  %-34s %14.2f", name, f.median);
	if (n > 1)
		fprintf(to, "  (%.2f to %.2f)", f.min, f.max);
	fputc('\n', to);
}

static void print_counts(const struct scenario *s, const struct outcome *o, FILE *to)
{
	fprintf(to, "  %.2f s: %" PRIu64 " sent, %" PRIu64 " delivered", o->seconds, o->sent,
		o->delivered);
	if (s->kind == SCENARIO_CONNECT)
		fprintf(to, "; failed %" PRIu64, o->lost);
	else
		fprintf(to,
			"; lost %" PRIu64 ", duplicated %" PRIu64 ", out of order %" PRIu64
			", wrong %" PRIu64,
			o->lost, o->duplicated, o->disordered, o->wrong);
	if (s->server == SCENARIO_SEALED && s->kind != SCENARIO_CONNECT)
		fprintf(to, ", opened %" PRIu64, o->opened);
	fputc('\n', to);
}

static void print_processes(const struct outcome *o, FILE *to)
{
	double clients = 0;

	fputs("  CPU of one second:", to);
	for (unsigned i = 0; i < o->n_processes; i++) {
		const struct outcome_process *p = &o->processes[i];

		fprintf(to, "%s %s %.3f", i ? "," : "", p->name, p->cpu_s / o->seconds);
		if (!strcmp(p->name, "clients"))
			clients = p->cpu_s / o->seconds;
	}
	fprintf(to, "; the broker's core %.3f", o->core_s / o->seconds);
	if (o->stolen_s > 0)
		fprintf(to, " (stolen from the machine %.3f)", o->stolen_s / o->seconds);
	fputs(clients > FULL ? "; THE CLIENTS HAD NO MORE: they set the pace\n" : "\n", to);
}

static void print_broker(const struct scenario *s, const struct outcome *o, FILE *to)
{
	fprintf(to, "  memory of the broker, KiB: %" PRIu64 ", ", o->rss_before_kib);
	if (s->idle)
		fprintf(to, "with the idle connections %" PRIu64 ", ", o->rss_idle_kib);
	fprintf(to, "at the end %" PRIu64 "\n", o->rss_kib);
	if (s->server != SCENARIO_SEALED)
		return;
	fprintf(to,
		"  token: conversions %" PRIu64 " (remembered %" PRIu64 "), signatures %" PRIu64
		" for %" PRIu64 " deliveries, packets %" PRIu64 "; commits %" PRIu64 "\n",
		o->conversions, o->capsule_hits, o->signatures, o->signed_deliveries,
		o->token_packets, o->commits);
}

static void print_latency(const struct outcome *o, FILE *to)
{
	const struct outcome_latency *l = &o->latency;

	if (!l->n)
		return;
	fprintf(to,
		"  latency, us: min %" PRIu64 ", 50 %% %" PRIu64 ", 90 %% %" PRIu64
		", 99 %% %" PRIu64 ", 99.9 %% %" PRIu64 ", max %" PRIu64 " (of %" PRIu64 ")%s\n",
		l->min, l->p50, l->p90, l->p99, l->p999, l->max, l->n,
		o->behind ? "; THE CLIENTS WERE BEHIND: the figures are their own" : "");
}

void run_print(const struct scenario *s, const struct outcome *rounds, unsigned n, FILE *to)
{
	const char *each =
		s->kind == SCENARIO_CONNECT ? "connects a second" : "deliveries a second";
	char words[WORDS_BYTES];

	scenario_words(s, words, sizeof(words));
	fprintf(to, "%s\n", words);
	line(to, each, s, rounds, n, OUTCOME_PER_SECOND);
	line(to, "CPU us each, broker's processes", s, rounds, n, OUTCOME_SERVER_US);
	line(to, "CPU us each, the broker alone", s, rounds, n, OUTCOME_BROKER_US);
	line(to, "CPU us each, the broker's core", s, rounds, n, OUTCOME_CORE_US);
	line(to, "token operations each", s, rounds, n, OUTCOME_TOKEN_OPS);
	line(to, "mallocs of a million", s, rounds, n, OUTCOME_MALLOCS);
	for (unsigned i = 0; i < n; i++) {
		print_counts(s, &rounds[i], to);
		print_processes(&rounds[i], to);
		print_broker(s, &rounds[i], to);
		print_latency(&rounds[i], to);
	}
}
