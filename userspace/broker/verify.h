/* SPDX-License-Identifier: MIT */
/*
 * The work that crypto workers do for the engine: signature, structure, bind and curve checks of
 * one PUBLISH (or Will, or authentication response). Reads the job's inputs, writes its results;
 * what it may spare it knows from the sender's verifier, and the results are the same without. Any
 * number of threads may run different jobs at once.
 */
#ifndef SSDTF_BROKER_VERIFY_H
#define SSDTF_BROKER_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/crypto/envelope.h"
#include "userspace/crypto/p256.h"
#include "userspace/crypto/publish.h"

struct verifier;

enum broker_verify_result {
	BROKER_VERIFY_OK,
	BROKER_VERIFY_NO_TRAILER,    /* the payload does not end in one: reason 2, and no PUBACK */
	BROKER_VERIFY_BAD_SIGNATURE, /* PROTOCOL 7 reason 1 */
	BROKER_VERIFY_MALFORMED,     /* the signature holds, the body does not: reason 2 */
};

struct broker_verify {
	/* In; all views stay valid until the job is given back. */
	uint8_t first;
	struct bytes topic, properties, payload, client_id;
	struct verifier *verifier; /* the sender's, see verifier.h */
	struct verifier *other;	   /* of another key of its that holds, tried next; or NULL */
	bool zk;	   /* an authentication response that ends in trailer 3 (PROTOCOL 16) */
	bool sealed;	   /* the body must be an envelope: parse, bind, decompress, */
	uint8_t level_max; /* at no higher level than that */

	/* Out. */
	enum broker_verify_result result;
	struct verifier *by;		/* OK or MALFORMED: whose signature it is */
	struct publish_trailer trailer; /* views into payload, where there is a trailer */
	struct envelope envelope;	/* sealed and OK; otherwise not to be looked at */
	uint64_t counter;		/* of the envelope where it can be read, else 0 */
	/* Sealed and OK: what is converted next. At level 0 enc, uncompressed; above it one of the
	 * two points with the block's x. */
	struct p256_point e;

	/* The engine's own, behind the job. */
	void *next; /* free for the owner while the job is out */
};

void broker_verify_run(struct broker_verify *job);

/* Do both end in the same signature of the same sender over a batch? Then whoever does one had best
 * do the other. Looks at what goes in alone, and for a moment. */
bool broker_verify_same_batch(const struct broker_verify *a, const struct broker_verify *b);

#endif
