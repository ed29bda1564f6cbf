/* SPDX-License-Identifier: MIT */
/*
 * A session: a client's subscriptions and the messages on their way to it. It outlives its
 * connection unless the client asked for a clean one.
 */
#ifndef SSDTF_BROKER_SESSION_H
#define SSDTF_BROKER_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/list.h"
#include "userspace/base/timer.h"
#include "userspace/broker/delivery.h"
#include "userspace/broker/incoming.h"
#include "userspace/broker/outgoing.h"
#include "userspace/broker/table.h"
#include "userspace/broker/updates.h"
#include "userspace/crypto/grant.h"
#include "userspace/mqtt/packet.h"
#include "userspace/mqtt/trie.h"

struct broker;
struct broker_commit_subscription;
struct broker_conn;
struct directory_party;
struct durable_session;

struct subscription {
	struct trie_sub sub; /* sub.by_owner is in session.subscriptions */
	bool sys;	     /* to $SYS (sys.h), */
	bool sys_fresh;	     /* and not yet told what there is */
};			     /* in a durable session its record stands before it (durable.h) */

struct session {
	UT_hash_handle hh;
	bool clean;
	struct broker_conn *conn;	 /* NULL: absent */
	struct directory_party *party;	 /* NULL in plain mode */
	struct durable_session *durable; /* NULL: it ends with the process */
	struct list subscriptions;
	unsigned n_subscriptions;
	struct list waiting, converting, signing, sent, recent;
	uint64_t seq_last;
	unsigned n_queued; /* in all lists */
	unsigned inflight; /* QoS > 0 among those that are not waiting, and releases */
	size_t bytes;	   /* of all deliveries */
	size_t pipeline_bytes;
	unsigned n_pipeline; /* converting or signing */
	struct updates_session updates;
	struct outgoing outgoing;
	struct incoming *incoming;
	struct list dirty;   /* in sessions.dirty: has something to start */
	struct list blocked; /* connections paused until this queue is short again */
	struct timer stall;  /* runs while some are */
	bool stalled;	     /* it took nothing for so long that nobody waits for it */
	uint64_t route_seq;  /* the last routing pass that found it, */
	uint8_t route_qos;   /* and with which QoS */
	struct list sys;     /* in sys.fresh or sys.watchers, where it subscribed to $SYS */
	uint64_t sys_due_ms; /* when it is told of changes next, */
	uint64_t sys_seen;   /* and the last that it was told of */
	struct list walks;   /* of retained messages, not yet at their end (retained.h) */
	struct list walking; /* in retained.ready: has a walk, and room for what it finds */
	uint8_t id_n;
	char id[]; /* terminated */
};

struct sessions {
	struct session *table; /* by id */
	struct list dirty;
	struct list recent; /* delivery_sealed.wait, of all sessions, oldest first */
	unsigned n_recent;
	size_t recent_bytes;
	unsigned n;
};

void sessions_init(struct sessions *s);
struct session *session_find(struct broker *b, struct bytes id);
/* NULL: too many or no memory. */
struct session *session_new(struct broker *b, struct bytes id, bool clean) must_check;
/* With its subscriptions and deliveries. Its connection must be gone. */
void session_free(struct broker *b, struct session *s);

static inline struct bytes session_id(const struct session *s)
{
	return bytes_of(s->id, s->id_n);
}

/* The connection went: unacknowledged deliveries wait again, QoS 0 ones are dropped. */
void session_detach(struct broker *b, struct session *s);

/* 0, 1, 2 or 0x80: the SUBACK code. */
uint8_t session_subscribe(struct broker *b, struct session *s, struct bytes filter, uint8_t qos);
void session_unsubscribe(struct broker *b, struct session *s, struct bytes filter);
/* One of an earlier run, with its number. -EBADMSG: no filter, or it stands twice; -ENOMEM. What
 * is not allowed any more goes. */
int session_restore_subscription(struct broker *b, struct session *s,
				 const struct broker_commit_subscription *r) must_check;

/* The party's roles may have changed: subscriptions that they no longer allow end. */
void session_recheck_roles(struct broker *b, struct session *s);
/* True where senders to it should pause; session_block() pauses one until the queue is short. */
bool session_congested(const struct broker *b, const struct session *s);
void session_block(struct broker *b, struct session *s, struct broker_conn *from);
/* The queue became shorter: may they go on? */
void session_unblock(struct broker *b, struct session *s);

/* Something may start, if anything waits. */
void session_mark_dirty(struct broker *b, struct session *s);
#endif
