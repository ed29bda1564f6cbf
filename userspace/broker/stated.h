/* SPDX-License-Identifier: MIT */
/*
 * The statements that a gateway's bundle passes on (PROTOCOL 13), and whom each concerns: found by
 * what it is about, so that a party's are as quickly found among thousands as among ten. Part of a
 * directory, whose bytes it looks into.
 *
 *	broker  everybody                  scope  who may publish under it, by its name
 *	grant   its receiver, by id        party  who reads a scope of its with proofs, by that
 *name; one of no scope (revoked): all who read with proofs
 */
#ifndef SSDTF_BROKER_STATED_H
#define SSDTF_BROKER_STATED_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/bundle/bundle.h"

struct stated_update {
	uint64_t serial;
	struct bytes whole;
};

struct stated_concern {
	enum statement_kind kind;
	struct bytes whom;
	uint32_t update;
};

struct stated {
	unsigned n, n_concerns;
	struct stated_update *updates;	 /* by ascending serial */
	struct stated_concern *concerns; /* by kind, whom, update */
	uint64_t *marks;		 /* a bit for each update; all clear between uses */
};

/* -EBADMSG, -ENOMEM; *ret_why says more. What there is so far is in s either way. */
int stated_init(struct stated *s, const struct bundle_gateway *b, const char **ret_why) must_check;
void stated_deinit(struct stated *s);

/* The highest serial; 0: there is none. */
uint64_t stated_last(const struct stated *s);
/* Marks those of this kind and for `whom` (empty: all) with a serial above `after`. */
void stated_mark(struct stated *s, enum statement_kind kind, struct bytes whom, uint64_t after);
/* Is there one of this kind for `whom` with a serial above `after`? */
bool stated_any(const struct stated *s, enum statement_kind kind, struct bytes whom,
		uint64_t after);
/* The first that is marked, from update *at on, and moves *at behind it. NULL: none any more. */
const struct stated_update *stated_next(const struct stated *s, unsigned *at);
void stated_clear(struct stated *s);

#endif
