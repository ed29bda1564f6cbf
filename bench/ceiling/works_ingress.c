// SPDX-License-Identifier: MIT
/*
 * broker_verify_run() over messages of one device, round and round: more batches and more fresh
 * contexts than the device's verifier remembers, so that what comes again is new to it.
 */
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "bench/ceiling/cast.h"
#include "bench/ceiling/works_crypto.h"
#include "userspace/base/log.h"
#include "userspace/broker/verifier.h"
#include "userspace/broker/verify.h"

#define BATCHES (2 * VERIFIER_ROOTS)
#define FRESH	(16 * VERIFIER_POINTS)

static const unsigned batches[] = { 8, 64, 256 };

struct bed {
	struct verifier *verifier;
	const struct cast_message *messages;
	unsigned n, at;
};

static enum broker_verify_result verify(struct bed *b, const struct cast_message *m)
{
	struct broker_verify j = {
		.first = cast_first(),
		.topic = bytes_str(CAST_TOPIC),
		.payload = bytes_of(m->p, m->n),
		.client_id = bytes_str(CAST_DEVICE),
		.verifier = b->verifier,
		.sealed = true,
	};

	broker_verify_run(&j);
	return j.result;
}

static void ingress(const struct work *w, unsigned runs)
{
	struct bed *b = w->bed;

	while (runs--) {
		work_prove(verify(b, &b->messages[b->at]) == BROKER_VERIFY_OK, "a PUBLISH");
		b->at = b->at + 1 < b->n ? b->at + 1 : 0;
	}
}

/* Once through: all hold, with one verification a signature, and one square root a context. */
static void prove_round(struct bed *b, unsigned signatures, unsigned contexts)
{
	struct verifier_stats before, after;

	verifier_stats(b->verifier, &before);
	for (unsigned i = 0; i < b->n; i++)
		work_prove(verify(b, &b->messages[i]) == BROKER_VERIFY_OK, "a PUBLISH");
	verifier_stats(b->verifier, &after);
	work_prove(after.verifications - before.verifications == signatures,
		   "a verification for each signature");
	work_prove(after.decompressions - before.decompressions == contexts,
		   "a square root for each context");
}

static void prove_refusal(struct bed *b)
{
	const struct cast_message *m = &b->messages[0];

	m->p[ENVELOPE_COUNTER_AT] ^= 1;
	work_prove(verify(b, m) == BROKER_VERIFY_BAD_SIGNATURE, "an altered PUBLISH is refused");
	m->p[ENVELOPE_COUNTER_AT] ^= 1;
}

static struct bed *bed_new(unsigned n, unsigned context, unsigned batch)
{
	struct bed *b = calloc(1, sizeof(*b));
	unsigned signatures = batch ? n / batch : n;

	if (!b)
		exit_with(EX_OSERR, "no memory");
	b->verifier = verifier_new(&cast_get()->device_public);
	if (!b->verifier)
		exit_with(EX_OSERR, "no memory");
	b->messages = cast_messages(n, CAST_PAYLOAD_BYTES, context, batch);
	b->n = n;
	prove_round(b, signatures, (n + context - 1) / context);
	/* The second time what is remembered is the few last contexts, and no batch. */
	prove_round(b, signatures, context == 1 ? n : 0);
	prove_refusal(b);
	return b;
}

void works_ingress(struct works *w)
{
	w->part = "ingress, a PUBLISH";
	works_add(w, "ingress trailer 1", ingress, bed_new(FRESH, 1, 0))->context = 1;
	works_add(w, "ingress trailer 1", ingress, bed_new(CAST_CONTEXT, CAST_CONTEXT, 0))
		->context = CAST_CONTEXT;
	for (unsigned i = 0; i < ARRAY_SIZE(batches); i++) {
		unsigned n = BATCHES * batches[i];
		struct work *work = works_add(w, "ingress trailer 2", ingress,
					      bed_new(n, CAST_CONTEXT, batches[i]));

		work->batch = batches[i];
		work->context = CAST_CONTEXT;
	}
}
