// SPDX-License-Identifier: MIT
/*
 * Conversions, where the token is the limit, and ingress, where the verifying threads are. What is
 * the limit has CPUs of its own; on the very same ones runs, before each window and after it, the
 * loop that does nothing else. Broker, clients and whatever else is there are on the others.
 */
#include <math.h>
#include <string.h>

#include "bench/reach/reach_impl.h"
#include "userspace/base/compiler.h"

#define CONVERSIONS_WINDOW 32
#define INGRESS_SENDERS	   8
#define INGRESS_WINDOW	   512
#define CONTEXT		   1000
#define BATCH		   64
#define KEYS_MAX	   16
#define US_PER_S	   1e6

struct step {
	struct reach_entry *entry;
	enum stage_part part;
	unsigned cpus;
	const char *alone; /* a work */
	struct scenario scenario;
};

static struct step steps[REACH_ENTRIES_MAX];
static unsigned n_steps;

static void add(struct reach *r, const char *name, const char *of, double wanted, struct step step)
{
	struct reach_entry *e = reach_add(r, name, of, "x");

	if (!e)
		return;
	e->wanted = isnan(wanted) ? REACH_ANY : REACH_AT_LEAST;
	e->wanted_value = wanted;
	step.scenario.seconds = r->options->seconds;
	step.entry = e;
	scenario_words(&step.scenario, e->words, sizeof(e->words));
	steps[n_steps++] = step;
}

static void add_conversions(struct reach *r, unsigned cpus)
{
	struct step s = { .part = STAGE_KEYS, .cpus = cpus, .alone = "bare convert" };

	scenario_default(&s.scenario);
	s.scenario.kind = SCENARIO_FAN_OUT;
	s.scenario.server = SCENARIO_SEALED;
	s.scenario.clients = r->options->receivers;
	s.scenario.window = CONVERSIONS_WINDOW * cpus;
	s.scenario.context = 1;
	s.scenario.hsmd = cpus;
	add(r, "conversions, E fresh",
	    "the bare PKCS#11 loop, in as many processes as there are of ssdtf-hsmd", 0.9, s);
}

static void add_ingress(struct reach *r, const char *name, double wanted, unsigned cpus,
			unsigned context, unsigned batch)
{
	struct step s = { .part = STAGE_VERIFIERS, .cpus = cpus, .alone = "evp verify" };

	scenario_default(&s.scenario);
	s.scenario.kind = SCENARIO_INGRESS;
	s.scenario.server = SCENARIO_SEALED;
	s.scenario.clients = INGRESS_SENDERS;
	s.scenario.qos = 1;
	s.scenario.window = INGRESS_WINDOW;
	s.scenario.context = context;
	s.scenario.batch = batch;
	s.scenario.workers = cpus;
	add(r, name, "ECDSA P-256 verifications by OpenSSL, as `openssl speed ecdsap256`", wanted,
	    s);
}

/* 1, 2, 4 ... and as many as there are. */
static unsigned next(unsigned cpus, unsigned most)
{
	return 2 * cpus > most && cpus < most ? most : 2 * cpus;
}

void reach_ratios_plan(struct reach *r, unsigned spare_cpus, struct stage_options *o)
{
	unsigned keys = spare_cpus < KEYS_MAX ? spare_cpus : KEYS_MAX;

	for (unsigned n = 1; n <= keys; n = next(n, keys))
		add_conversions(r, n);
	add_ingress(r, "ingress, a signature each", 0.9, 1, CONTEXT, 1);
	if (spare_cpus > 1)
		add_ingress(r, "ingress, a signature each", 0.9, spare_cpus, CONTEXT, 1);
	add_ingress(r, "ingress, a signature each, E fresh", NAN, 1, 1, 1);
	add_ingress(r, "ingress, a signature for 64", 10, 1, CONTEXT, BATCH);
	for (unsigned i = 0; i < n_steps; i++)
		reach_parties(&steps[i].scenario, o);
}

static struct crew_slice alone(struct bench *b, const struct step *s)
{
	struct crew_slice slice;

	crew_slice(b->crew, reach_work(&b->works, s->alone, 0), s->cpus, s->scenario.seconds / 2,
		   &slice);
	return slice;
}

/* One round, with what was measured alone before it and after it. */
static void take(const struct step *s, const struct outcome *o, const struct crew_slice *before,
		 const struct crew_slice *after)
{
	struct reach_entry *e = s->entry;
	double reached = outcome_value(&s->scenario, o, OUTCOME_PER_SECOND);
	double per_second = (before->per_second + after->per_second) / 2;
	double cpu_us = (before->cpu_us + after->cpu_us) / 2;
	double given_s = reach_cpu(o, s->part == STAGE_KEYS ? "hsmd" : "broker crypto");
	double clients_s = reach_cpu(o, "clients");

	reach_values_add(&e->reached, reached);
	reach_values_add(&e->alone, per_second);
	reach_values_add(&e->value, reached / per_second);
	reach_values_add(&e->cpu, cpu_us * (double)o->delivered / (given_s * US_PER_S));
	reach_values_add(&e->given, given_s / o->seconds / e->cpus);
	reach_values_add(&e->loop, o->core_s / o->seconds);
	reach_values_add(&e->own, (o->server_s - given_s + clients_s) / o->seconds);
	reach_values_add(&e->clients, clients_s / o->seconds);
}

void reach_ratios_round(struct bench *b)
{
	for (unsigned i = 0; i < n_steps; i++) {
		const struct step *s = &steps[i];
		struct crew_slice before, after;
		struct outcome o;

		s->entry->cpus = stage_give(b->stage, s->part, s->cpus);
		before = alone(b, s);
		reach_run(b, s->entry, &s->scenario, &o);
		after = alone(b, s);
		take(s, &o, &before, &after);
	}
}
