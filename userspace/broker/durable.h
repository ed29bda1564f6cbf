/* SPDX-License-Identifier: MIT */
/*
 * Sessions that outlive the process: their subscriptions, queues and packet ids, and what is
 * retained, are rows of the commits (commit.h). A clean session has none of this.
 *
 *	enqueue, send, PUBACK, ... ──► changes of the session ──► durable_take() ──► the commit
 *
 * A commit is the state of one moment, whole: after a crash the broker is where it was at its last
 * commit. So what was said since must be such that it may be unsaid, and everything else waits
 * (reply.h, commit_then_ack(), durable_may_send()) until the state behind it is stored:
 *
 *	PUBACK, PUBREC     the message in each queue, what is retained, and the sender's counter
 *	                   (plain, QoS 2: its packet id), in one commit
 *	PUBCOMP            plain: that the id is free. Else a new message under it would be taken
 *	                   for the old one, and be lost
 *	SUBACK, UNSUBACK   the subscription, or that it is gone
 *	PUBLISH, QoS 1     nothing: it may come again. Its packet id goes with the next commit, and
 *	                   all that is restored has DUP
 *	PUBLISH, QoS 2     its packet id. Else it could come again under another, and so twice; or
 *	                   another under this one, which the receiver would drop as the first. For
 *	                   that the last id given is stored, too
 *	PUBREL             that it was received. Else PUBLISH would come again behind it, as new
 *
 * What a receiver acknowledges (PUBACK, PUBCOMP) goes with the next commit, whenever that is, and
 * until then may be repeated: a message of QoS 1 comes again, a PUBREL is answered again. So QoS 2
 * is exactly once over crashes of the broker as over those of a connection, by the packet ids
 * alone; that a receiver has a window besides (PROTOCOL 4) is not leaned on.
 *
 * CONNACK waits for nothing: who connects clean and is told that there is no session may, where the
 * broker crashes within the commit that follows, find the old one by connecting otherwise. Wills
 * end with the process: MQTT has them published when a connection ends, and all did.
 *
 * What is delivered and acknowledged before its commit was formed was never written. Nothing here
 * allocates memory to note that something is gone: the record is in the block that goes, which
 * stays for that until the commit is formed.
 */
#ifndef SSDTF_BROKER_DURABLE_H
#define SSDTF_BROKER_DURABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/list.h"
#include "userspace/base/timer.h"
#include "userspace/broker/broker.h"
#include "userspace/broker/table.h"

struct delivery;
struct message;
struct retained_message;
struct session;
struct subscription;

enum durable_kind { DURABLE_DELIVERY, DURABLE_SUBSCRIPTION, DURABLE_RELEASE, DURABLE_INCOMING };
enum durable_state {
	DURABLE_NONE,	 /* has no row */
	DURABLE_NEW,	 /* is to get one; in its session's changes, like the next but one */
	DURABLE_STORED,	 /* as it is in the last commit formed */
	DURABLE_CHANGED, /* its row is to be written again */
	DURABLE_GONE,	 /* its row is to go */
};

/* One row of a session and what is to become of it. That of a delivery or a subscription stands
 * right before it, in the same block. */
struct durable_change {
	struct list link;   /* in durable_session.changes */
	uint64_t commit;    /* the one it was formed into last */
	uint16_t packet_id; /* of a delivery: as formed; of the others: theirs */
	uint8_t kind, state;
	bool freed; /* the block goes with the row */
};

struct durable_subscription {
	uint64_t number;
	struct durable_change change;
};

struct durable_release {
	struct durable_change change;
	uint64_t place;
};

/* A session's own, beside it; its tomb when it is gone. */
struct durable_session {
	struct list link;    /* in durable.dirty, or durable.gone */
	struct list wake;    /* in durable.wake: waits for a commit to send what it has */
	struct list changes; /* in order */
	struct session *session;
	uint64_t number, subscription_last, place_last;
	uint16_t packet_id; /* the last given, as formed */
	bool stored;
};

/* What a message has that is in a queue, or retained. */
struct durable_message {
	struct list link; /* in durable.messages until it is formed, in durable.dead when it goes */
	struct message *message;
	uint64_t number; /* 0: not formed yet */
	uint32_t rows;	 /* that name it, or are to */
};

/* Right before a struct retained_message. */
struct durable_retained {
	struct list link; /* in durable.retained: to be written */
	uint64_t stored;  /* the number of the message in its row; 0: no row */
	bool freed;
};

struct durable_found; /* what a number means, while sessions are restored */

/* The engine's. Off: it has no storage for this, and nothing here does anything. */
struct durable {
	bool on;
	bool urgent;	   /* something is to be stored soon; else there is only what can wait */
	uint64_t n_urgent; /* such changes ever */
	struct list dirty, gone; /* durable_session.link */
	struct list wake;
	struct list messages, dead, retained;
	uint64_t session_last, message_last; /* numbers given */
	uint64_t formed, done;		     /* commits with rows of these */
	struct timer lazy;		     /* until what can wait has waited long enough */
	bool late;			     /* it has */
	struct broker *broker;

	/* Of the commit that is out: its messages, held, and the text of its filters. */
	struct message **held;
	unsigned n_held, room_held;
	uint8_t *text;
	unsigned room_text;
	unsigned room_sessions, room_subscriptions, room_messages, room_deliveries;
	unsigned room_releases, room_incoming, room_retained;

	struct durable_found *found_sessions, *found_messages;
};

void durable_init(struct broker *b);
/* Behind all sessions and what is retained. */
void durable_deinit(struct broker *b);
/* Its block, with what stands behind it. */
void durable_change_free(struct broker *b, struct durable_change *c);

/* --- sessions --------------------------------------------------------------------------------- */

/* False: no memory. A clean session, or durable off: nothing. */
bool durable_session_new(struct broker *b, struct session *s) must_check;
/* Behind its subscriptions and deliveries. */
void durable_session_free(struct broker *b, struct session *s);

/* n bytes behind a head of so many, zeroed. NULL: no memory. */
void *durable_alloc(struct broker *b, size_t head, size_t n) must_check;
/* It is new, or its QoS another. */
void durable_subscribed(struct broker *b, struct session *s, struct subscription *sub);
/* It is gone, and its block ours. */
void durable_unsubscribed(struct broker *b, struct session *s, struct subscription *sub);

/* --- messages --------------------------------------------------------------------------------- */

/* One row more that names it: false, no memory. One less. */
bool durable_message_get(struct broker *b, struct message *m) must_check;
void durable_message_put(struct broker *b, struct message *m);

/* Is a delivery of this QoS to this session to be stored? It then has its record before it. */
bool durable_wants(const struct session *s, uint8_t qos);
/* It is to have a row. False: no memory. */
bool durable_queue(struct broker *b, struct delivery *d) must_check;
/* It is to have none any more. */
void durable_dequeue(struct broker *b, struct delivery *d);
/* It has none and is freed: its block is ours. */
void durable_delivery_free(struct broker *b, struct delivery *d);
/* It stands at the front of its session's waiting: false while its packet id must be stored first
 * (QoS 2), which is seen to; the session is pumped again then. */
bool durable_may_send(struct broker *b, struct delivery *d);
void durable_sent(struct broker *b, struct delivery *d);

/* At QoS 2, a release in its place: its record, NULL in a clean session. False: no memory. */
bool durable_release(struct broker *b, struct session *s, uint16_t packet_id,
		     struct durable_change **ret_kept) must_check;
/* NULL is fine. */
void durable_completed(struct broker *b, struct session *s, struct durable_change *kept);
/* Was this formed into a commit that is done? */
bool durable_is_stored(const struct broker *b, const struct durable_change *c);

/* An id of the sender's (plain, QoS 2) was taken, or is free. False: no memory. */
bool durable_incoming(struct broker *b, struct session *s, uint16_t packet_id,
		      bool gone) must_check;

/* What the topic has changed. durable_retained_free(): it has nothing any more, and the block is
 * ours. */
void durable_retained_put(struct broker *b, struct retained_message *kept);
void durable_retained_free(struct broker *b, struct retained_message *kept);

/* --- commits ---------------------------------------------------------------------------------- */

/* Forms what changed into the batch, where there is reason to: something urgent, or another commit
 * is formed anyway. False: no memory, and nothing of it was taken. */
bool durable_take(struct broker *b, struct broker_commit *batch, bool anyway) must_check;
/* May something of the session's own not be stored yet? */
bool durable_is_behind(const struct broker *b, const struct session *s);
/* The commit that was out is on storage. */
void durable_committed(struct broker *b);

/* What can wait is to go now: the broker stops. */
void durable_hurry(struct broker *b);

/* The record of a delivery or a subscription that has one. */
static inline struct durable_change *durable_of(void *p)
{
	return (struct durable_change *)p - 1;
}

static inline struct durable_retained *durable_of_retained(struct retained_message *kept)
{
	return (struct durable_retained *)(void *)kept - 1;
}

/* --- restoring -------------------------------------------------------------------------------- */

void durable_restore_subscription(struct session *s, struct subscription *sub, uint64_t number);
/* It has a row already. False: no memory. */
bool durable_restore_delivery(struct broker *b, struct delivery *d, uint16_t packet_id) must_check;
/* The same. */
void durable_restore_retained(struct retained_message *kept);
/* What broker_restore_*() remember from one to the next. */
void durable_found_free(struct broker *b);

#endif
