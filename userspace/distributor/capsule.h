/* SPDX-License-Identifier: MIT */
/*
 * Conversions, as the broker remembers them: (outlet's grant, x(E')) to the next x. All messages of
 * a sender's context have the same, so one question is asked for many, and never twice at once.
 * Bounded, the least recently used goes first; gone with its grant, and with any new bundle.
 */
#ifndef SSDTF_DISTRIBUTOR_CAPSULE_H
#define SSDTF_DISTRIBUTOR_CAPSULE_H

#include <uthash.h>

#include "userspace/distributor/ask.h"
#include "userspace/distributor/plan.h"

struct relay;
struct outgoing;

struct capsule_key {
	uint8_t grant_id[GRANT_ID_BYTES];
	uint8_t x[P256_X_BYTES];
};

struct capsule {
	UT_hash_handle hh; /* keys are conversions' results: nobody chooses them */
	struct capsule_key key;
	bool ready;
	bool unlisted;	   /* out of the table: goes when the token has answered */
	unsigned refusals; /* of the key by the token, in a row */
	uint8_t x[P256_X_BYTES];
	struct list lru;     /* ready and listed */
	struct list waiters; /* outgoing.capsule_wait */
	struct relay *relay;
	struct plan *plan; /* holds the wrapped key while asked */
	struct plan_outlet *outlet;
	struct ask ask;
};

struct capsules {
	struct capsule *table;
	struct list lru; /* oldest first */
	struct list unlisted;
	unsigned n, n_max;
	uint64_t hits, asked;
};

void capsules_init(struct capsules *c, unsigned n_max);
/* Nothing waits any more, and the token has given everything back. */
void capsules_deinit(struct capsules *c);
/* True: o->x is set. False: o waits, or (o->state is then OUTGOING_VOID) there is none to be had.
 */
bool capsule_convert(struct relay *r, struct outgoing *o, struct bytes x);
/* What another plan still converts stays out of here: waiters of outlets that are gone are given
 * up, and everything that was remembered is forgotten. */
void capsules_plan(struct relay *r);

#endif
