/* SPDX-License-Identifier: MIT */
/*
 * The work that crypto workers do for the engine: signature, structure, bind and curve checks of
 * one PUBLISH (or Will, or authentication response). Pure: reads the job's inputs, writes its
 * results. Any number of threads may run different jobs at once.
 */
#ifndef SSDTF_BROKER_VERIFY_H
#define SSDTF_BROKER_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/crypto/envelope.h"
#include "userspace/crypto/p256.h"
#include "userspace/crypto/publish.h"

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
	const struct p256_public *key;
	bool sealed; /* the body must be an envelope: parse, bind, decompress */

	/* Out. */
	enum broker_verify_result result;
	struct publish_trailer trailer; /* views into payload, where there is a trailer */
	struct envelope envelope;	/* sealed and OK (or a bind that does not fit) */
	uint64_t counter;		/* of the envelope where it can be read, else 0 */
	struct p256_point e;		/* sealed and OK: enc, uncompressed */

	/* The engine's own, behind the job. */
	void *next; /* free for the owner while the job is out */
};

void broker_verify_run(struct broker_verify *job);

#endif
