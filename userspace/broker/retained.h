/* SPDX-License-Identifier: MIT */
/*
 * Retained messages, and their way to a new subscription: a walk over the topics, of which a
 *session gets some whenever its queue is short. So nothing that was retained is dropped because
 *there is much of it, and nobody else waits.
 *
 *	SUBSCRIBE ──► retained_walk_begin() ──► [ready] ──retained_turn()──► delivery_enqueue()
 *	                                           ▲              │ queue full enough
 *	                     retained_room() ──────┘◄─────────────┘
 *
 * What is retained when the walk begins and stays is sent once, with RETAIN = 1. What is put
 * meanwhile is not: it goes to the session anyway, as the live message that it is. What is cleared
 * meanwhile is sent or not. UNSUBSCRIBE ends the walk, and so does the end of the connection; the
 * same SUBSCRIBE again begins anew. Memory: a block a walk, one walk a subscription.
 */
#ifndef SSDTF_BROKER_RETAINED_H
#define SSDTF_BROKER_RETAINED_H

#include <stdint.h>

#include "userspace/base/list.h"
#include "userspace/broker/message.h"
#include "userspace/mqtt/topicmap.h"

struct broker;
struct retained_message;
struct session;
struct subscription;

struct retained {
	struct topicmap *map;
	struct list kept; /* every retained message */
	unsigned n;
	uint64_t put_last; /* counts what was ever put */
	struct list ready; /* sessions with a walk and room for what it finds */
};

int retained_init(struct broker *b) must_check;
void retained_deinit(struct broker *b);
/* What it keeps. */
struct message *retained_of(const struct retained_message *kept);
/* m, of an earlier run, is retained in storage. -EBADMSG: its topic is another's; -ENOMEM. */
int retained_restore(struct broker *b, struct message *m) must_check;
/* m becomes what its topic has; one without content clears it. */
void retained_put(struct broker *b, struct message *m);

/* Begins a walk for a session that is connected, or begins it anew. -ENOMEM. */
int retained_walk_begin(struct broker *b, struct session *s, struct subscription *sub,
			struct bytes filter) must_check;
/* No more for this subscription; for none of the session's. Fine without a walk. */
void retained_walk_end(struct broker *b, struct session *s, const struct subscription *sub);
void retained_walks_end(struct broker *b, struct session *s);
/* The session's queue became shorter. */
void retained_room(struct broker *b, struct session *s);
/* Once a turn: goes on with walks, each session in turn, so far as a turn may be long. */
void retained_turn(struct broker *b);

#endif
