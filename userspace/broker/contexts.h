/* SPDX-License-Identifier: MIT */
/*
 * HPKE contexts seen, so that a revocation can retire them (PROTOCOL 2): one conversion opens a
 * whole context, so after a revocation under a key id every enc seen under it in the hour before is
 * refused (reason 8) until the sender opens another. At level 0: who distributes cannot seal anew.
 *
 * An enc is remembered by eight bytes of its x-coordinate. A collision costs a sender one new
 * context. Bounded twice: of each sender the last CONTEXTS_SENDER_MAX, so that one cannot push out
 * another's; and of all contexts_max, retired ones last.
 */
#ifndef SSDTF_BROKER_CONTEXTS_H
#define SSDTF_BROKER_CONTEXTS_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/list.h"
#include "userspace/broker/broker.h"
#include "userspace/broker/table.h"

#define CONTEXTS_KEEP_MS    (2 * 3600 * 1000ull) /* after the last use */
#define CONTEXTS_SENDER_MAX 1024
#define CONTEXTS_COMMIT_MS  (600 * 1000ull) /* a use is stored anew after so long */

struct context_key {
	uint64_t enc_hash;
	uint32_t key_id;
	uint32_t zero; /* padding that is hashed too */
};

struct context {
	UT_hash_handle hh;
	struct context_key key;
	uint64_t seen_ms;      /* wall clock, last use */
	uint64_t committed_ms; /* the seen_ms that is stored */
	bool retired;
	struct list lru, dirty;
	struct list of_sender;	      /* in the sender's, oldest use first */
	struct commit_sender *sender; /* NULL: restored, whose is not known */
};

/* Up to when contexts under a key id are retired. */
struct context_revoked {
	UT_hash_handle hh;
	uint32_t key_id;
	uint64_t revoked_at_ms, retire_before_ms;
};

struct commit_sender;

struct contexts {
	struct context *table;
	struct context_revoked *revoked;
	struct list lru;   /* oldest use first */
	struct list dirty; /* not yet stored as they are */
	unsigned n;
};

void contexts_init(struct contexts *c);
void contexts_deinit(struct broker *b);
/* May a message with this enc be taken? */
bool contexts_retired(struct broker *b, uint32_t key_id, struct bytes enc);
/* It was taken, from this sender. */
void contexts_used(struct broker *b, struct commit_sender *sender, uint32_t key_id,
		   struct bytes enc);
/* The sender is about to be forgotten: its contexts are nobody's from then on. */
void contexts_leave(struct commit_sender *sender);
/* The manager revoked something under key_id: retires what was seen, stores it. Repeating is
 * harmless. -ENOMEM. */
int contexts_revoke(struct broker *b, uint32_t key_id, uint64_t revoked_at_ms) must_check;

#endif
