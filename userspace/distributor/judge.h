/* SPDX-License-Identifier: MIT */
/*
 * May a delivery be passed on? The broker's signature, structure, hop, bind, origin proof
 * (PROTOCOL 2, 4, 12). There is no replay window here: what comes again has to be published again,
 * for it may be that it never arrived; who takes it there knows what he has seen.
 *
 * Batch signatures that held are remembered, so that the others of a batch owe their path alone.
 * One thread.
 */
#ifndef SSDTF_DISTRIBUTOR_JUDGE_H
#define SSDTF_DISTRIBUTOR_JUDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/crypto/envelope.h"
#include "userspace/crypto/hash.h"
#include "userspace/distributor/plan.h"
#include "userspace/mqtt/packet.h"

#define JUDGE_ROOTS_MAX 64

enum judge_verdict {
	JUDGE_OK,
	JUDGE_NOT_BROKERS, /* not signed by the broker: it may be anybody's */
	JUDGE_TROUBLE,	   /* of our own: no memory */
	JUDGE_MALFORMED,
	JUDGE_NO_HOP,
	JUDGE_NOT_NOW,
	JUDGE_NOT_COVERED,
	JUDGE_BOUND_ELSEWHERE,
	JUDGE_NAMES_SENDER,
	JUDGE_NO_PROOF,
	JUDGE_NO_KEY,
	JUDGE_BAD_PROOF,
	JUDGE_RETAINED,
	JUDGE_TOO_FAR,
	JUDGE_VERDICTS,
};

/* For people; a constant. */
const char *judge_words(enum judge_verdict v);
/* PROTOCOL 7's reason, for a report. */
uint8_t judge_reason(enum judge_verdict v);

struct judge_stats {
	uint64_t verifications; /* ECDSA */
	uint64_t roots_reused;
	uint64_t by_verdict[JUDGE_VERDICTS];
};

struct judge {
	struct judge_stats stats;
	unsigned next;				    /* whose place the next root takes */
	uint8_t roots[JUDGE_ROOTS_MAX][HASH_BYTES]; /* of root, signature and signer */
};

/* What was found out; e's views are into the payload. */
struct judged {
	struct envelope e; /* where the structure held; else its whole is empty */
	const struct plan_hop *hop;
	bool retain; /* as the sender wished */
};

void judge_init(struct judge *j);
/* Another plan may have other keys. */
void judge_forget(struct judge *j);
/* unix_ms 0: no clock. */
enum judge_verdict judge_delivery(struct judge *j, struct plan *plan, const struct mqtt_publish *p,
				  uint64_t unix_ms, struct judged *ret_judged);
/* A message on a $SSDTF topic: the broker's signature, trailer 1. which is the plan's from or to;
 * *ret_by_next: it was by the other of its keys. 0, -EBADMSG, or p256.h's. */
int judge_control(struct judge *j, const struct plan_signer *which, struct bytes client_id,
		  const struct mqtt_publish *p, struct bytes *ret_body,
		  bool *ret_by_next) must_check;

#endif
