// SPDX-License-Identifier: MIT
/*
 * What signing costs on the way out: the broker's part and the token's alone, and all that sealing
 * adds under load, where one CPU has ssdtf-broker and another the clients and ssdtf-hsmd.
 */
#include <math.h>
#include <string.h>

#include "bench/reach/reach_impl.h"
#include "userspace/base/compiler.h"

#define US_PER_S 1e6
#define WINDOW	 100
#define QOS	 1
/* Of the sender, so that verifying it, which is the ingress', is a small part. */
#define SENDERS_BATCH 64

static const unsigned batches[] = { 64, 256 };

static struct {
	struct reach_entry *isolated[ARRAY_SIZE(batches)];
	struct reach_entry *plain, *sealed, *added, *keys, *batch;
	struct scenario scenarios[2]; /* plain, sealed */
} egress;

static struct reach_entry *isolated_add(struct reach *r, const char *name)
{
	struct reach_entry *e =
		reach_add(r, name,
			  "head, leaf, tree, encoding and the token's signature, in one process",
			  "us");

	if (!e)
		return NULL;
	e->wanted = REACH_AT_MOST;
	e->wanted_value = 3;
	e->cpus = 1;
	return e;
}

static struct reach_entry *load_add(struct reach *r, const char *name, const char *of,
				    const char *unit, const struct scenario *s)
{
	struct reach_entry *e = reach_add(r, name, of, unit);

	if (!e)
		return NULL;
	e->cpus = 1;
	scenario_words(s, e->words, sizeof(e->words));
	return e;
}

static bool under_load(void)
{
	return egress.plain || egress.sealed || egress.added || egress.keys || egress.batch;
}

void reach_egress_plan(struct reach *r, struct stage_options *o)
{
	struct scenario *plain = &egress.scenarios[0], *sealed = &egress.scenarios[1];

	scenario_default(plain);
	plain->kind = SCENARIO_FAN_OUT;
	plain->clients = r->options->receivers;
	plain->window = WINDOW;
	plain->qos = QOS;
	plain->seconds = r->options->seconds;
	*sealed = *plain;
	sealed->server = SCENARIO_SEALED;
	sealed->batch = SENDERS_BATCH;
	egress.isolated[0] = isolated_add(r, "egress, a signature for 64");
	egress.isolated[1] = isolated_add(r, "egress, a signature for 256");
	egress.plain = load_add(r, "egress under load, plain",
				"CPU of all the broker's processes, a delivery", "us", plain);
	egress.sealed =
		load_add(r, "egress under load, sealed",
			 "the same, contexts of 1000 messages, batches of 64 from the sender", "us",
			 sealed);
	egress.added =
		load_add(r, "egress under load, added",
			 "sealed less plain: signing, the receivers' heads, ingress", "us", sealed);
	egress.keys = load_add(r, "egress under load, key processes", "ssdtf-hsmd's part of it",
			       "us", sealed);
	egress.batch =
		load_add(r, "egress under load, for a signature",
			 "deliveries under one signature of the token", "deliveries", sealed);
	if (under_load())
		reach_parties(sealed, o);
}

static void put(struct reach_entry *e, double v)
{
	if (e && isfinite(v))
		reach_values_add(&e->value, v);
}

static void isolated_round(struct bench *b)
{
	struct crew_slice slice;

	for (size_t i = 0; i < ARRAY_SIZE(batches); i++) {
		if (!egress.isolated[i])
			continue;
		crew_slice(b->crew, reach_work(&b->works, "egress token", batches[i]), 1,
			   b->reach.options->seconds, &slice);
		put(egress.isolated[i], slice.cpu_us);
	}
}

void reach_egress_round(struct bench *b)
{
	const struct scenario *plain = &egress.scenarios[0], *sealed = &egress.scenarios[1];
	struct outcome p, s;
	double plain_us, sealed_us;

	isolated_round(b);
	if (!under_load())
		return;
	(void)stage_give(b->stage, STAGE_NONE, 0);
	reach_run(b, egress.plain, plain, &p);
	reach_run(b, egress.sealed, sealed, &s);
	plain_us = outcome_value(plain, &p, OUTCOME_SERVER_US);
	sealed_us = outcome_value(sealed, &s, OUTCOME_SERVER_US);
	put(egress.plain, plain_us);
	put(egress.sealed, sealed_us);
	put(egress.added, sealed_us - plain_us);
	put(egress.keys, reach_cpu(&s, "hsmd") * US_PER_S / (double)s.delivered);
	put(egress.batch, (double)s.signed_deliveries / (double)s.signatures);
}
