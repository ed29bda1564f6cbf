/* SPDX-License-Identifier: MIT */
/*
 * Conversions: (grant, E) to x(E'). A capsule is both the job on its way to the token and the
 * answer remembered, so one question is never asked twice at once. Bounded, least recently used
 * first; gone with its grant.
 */
#ifndef SSDTF_BROKER_CAPSULE_H
#define SSDTF_BROKER_CAPSULE_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/timer.h"
#include "userspace/broker/broker.h"
#include "userspace/broker/table.h"

struct broker;
struct delivery;
struct directory;
struct directory_grant;

struct capsule_key {
	uint8_t grant_id[GRANT_ID_BYTES];
	uint8_t point[P256_COMPRESSED_BYTES]; /* E; above level 0 the one with the block's x */
};

enum capsule_state {
	CAPSULE_ASKED,	/* the token has the job */
	CAPSULE_PAUSED, /* the token was not available: asked again when the timer fires */
	CAPSULE_READY,
};

struct capsule {
	UT_hash_handle hh;
	struct capsule_key key;
	enum capsule_state state;
	unsigned refusals;   /* by the token, in a row */
	bool unlisted;	     /* no longer in the table: freed when the job is back */
	struct list lru;     /* READY and listed */
	struct list waiters; /* delivery.wait */
	struct timer retry;
	struct broker *broker;
	struct directory *directory; /* holds the blob while asked */
	struct broker_token_job job;
	uint8_t x[P256_X_BYTES];
};

struct capsules {
	struct capsule *table;
	struct list lru; /* oldest first */
	unsigned n;
};

void capsules_init(struct capsules *c);
void capsules_deinit(struct broker *b);
/* Gives d its conversion: at once (d is then CONVERTED) or by making it wait. One that
 * was nacked goes past what is remembered. -ENOMEM: nothing was changed. */
int capsule_convert(struct broker *b, struct delivery *d,
		    const struct directory_grant *g) must_check;
/* d no longer waits. */
void capsule_leave(struct delivery *d);
/* The token answered. */
void capsule_done(struct broker *b, struct broker_token_job *job);
/* Drops every capsule whose grant is not in the directory any more, and tells the owner to have the
 * key forgotten. No delivery waits for any: deliveries_restart() has been everywhere. */
void capsules_revoke(struct broker *b, const struct directory *old, const struct directory *now);

#endif
