/* SPDX-License-Identifier: MIT */
/*
 * A session: a client's subscriptions and the messages on their way to it. It outlives its
 * connection unless the client asked for a clean one.
 *
 * A delivery moves through the session's lists, always from the front of one to the back of the
 * next, which is what keeps the order of every receiver:
 *
 *    waiting ──► converting ──► signing ──► sent ──► (acknowledged)
 *
 * One that was acknowledged is remembered a little longer (recent): stock libraries acknowledge
 * before they hand a message over, and a nack of it is to find it still. It counts for nothing
 * else.
 *
 * A plain delivery goes from waiting straight to sent; one of QoS 0 ends where sent begins. When
 * the connection goes, all that is unacknowledged returns to waiting, in order.
 */
#ifndef SSDTF_BROKER_SESSION_H
#define SSDTF_BROKER_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/list.h"
#include "userspace/base/timer.h"
#include "userspace/broker/message.h"
#include "userspace/broker/table.h"
#include "userspace/crypto/grant.h"
#include "userspace/mqtt/trie.h"

struct broker;
struct broker_conn;
struct capsule;
struct directory_party;
struct signer_request;

enum delivery_state {
	DELIVERY_WAITING,
	DELIVERY_CONVERTING,
	DELIVERY_CONVERTED,
	DELIVERY_SIGNING,
	DELIVERY_SENT,
	DELIVERY_RECENT,
};

struct delivery {
	struct list link; /* in one of the session's lists */
	struct list wait; /* in the capsule's waiters, or in the signer's ready list */
	struct session *session;
	struct message *message;
	uint64_t seq; /* its place among the session's */
	enum delivery_state state;
	uint8_t qos;
	bool retain, dup;
	uint64_t recent_until_ms;
	uint16_t packet_id; /* QoS 1: once sent, and kept over reconnects [MQTT-4.4.0-1] */
	uint8_t grant_id[GRANT_ID_BYTES];
	uint8_t grant_flags;
	uint8_t x[P256_X_BYTES];      /* x(E'), once converted */
	struct capsule *capsule;      /* while it waits for one */
	struct signer_request *batch; /* once in a batch; its slot is batch_index */
	uint16_t batch_index;
	/* A nack (PROTOCOL 7): one recomputation, past what is remembered. */
	bool nacked;
	struct message *nack; /* as received, until the new conversion is judged */
	uint8_t x_before[P256_X_BYTES];
};

struct subscription {
	struct trie_sub sub; /* sub.by_owner is in session.subscriptions */
	bool sys;	     /* to $SYS (sys.h), */
	bool sys_fresh;	     /* and not yet told what there is */
};

struct session {
	UT_hash_handle hh;
	char id[65];
	uint8_t id_n;
	bool clean;
	struct broker_conn *conn;      /* NULL: absent */
	struct directory_party *party; /* NULL in plain mode */
	struct list subscriptions;
	unsigned n_subscriptions;
	struct list waiting, converting, signing, sent, recent;
	uint64_t seq_last;
	unsigned n_queued; /* in all lists */
	unsigned inflight; /* QoS 1 among those that are not waiting */
	size_t bytes;	   /* of all deliveries */
	size_t pipeline_bytes;
	unsigned n_pipeline; /* converting or signing */
	uint16_t packet_id_last;
	bool ids_mixed;	     /* packet ids in use are not in ascending order any more */
	struct list dirty;   /* in sessions.dirty: has something to start */
	struct list blocked; /* connections paused until this queue is short again */
	struct timer stall;  /* runs while some are */
	bool stalled;	     /* it took nothing for so long that nobody waits for it */
	uint64_t route_seq;  /* the last routing pass that found it, */
	uint8_t route_qos;   /* and with which QoS */
	struct list sys;     /* in sys.fresh or sys.watchers, where it subscribed to $SYS */
	uint64_t sys_due_ms; /* when it is told of changes next, */
	uint64_t sys_seen;   /* and the last that it was told of */
};

struct sessions {
	struct session *table; /* by id */
	struct list dirty;
	struct list recent; /* delivery.wait, of all sessions, oldest first */
	unsigned n_recent;
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

/* 0, 1 or 0x80: the SUBACK code. */
uint8_t session_subscribe(struct broker *b, struct session *s, struct bytes filter, uint8_t qos);
void session_unsubscribe(struct broker *b, struct session *s, struct bytes filter);

/* Queues a message; counts and drops where the queue is full or QoS 0 has nobody to go to. */
void session_enqueue(struct broker *b, struct session *s, struct message *m, uint8_t qos,
		     bool retain);
/* The party's roles may have changed: subscriptions that they no longer allow end. */
void session_recheck_roles(struct broker *b, struct session *s);
/* The grants may have changed: what is under way begins again, with those there are now. */
void session_recheck_grants(struct broker *b, struct session *s);
/* The client acknowledged a packet id. False: no such delivery. */
bool session_acknowledge(struct broker *b, struct session *s, uint16_t packet_id);
/* True where senders to it should pause; session_block() pauses one until the queue is short. */
bool session_congested(const struct broker *b, const struct session *s);
void session_block(struct broker *b, struct session *s, struct broker_conn *from);

void session_mark_dirty(struct broker *b, struct session *s);
/* Starts what may start in every dirty session. */
void sessions_pump(struct broker *b);
/* Moves converted deliveries at the front on to the signer. */
void session_advance(struct broker *b, struct session *s);
/* A delivery is done with, wherever it stands. */
void delivery_free(struct broker *b, struct delivery *d);
/* A signed (or plain) delivery goes onto the connection: it is now sent, or done at QoS 0. The
 * caller has written the packet with this id. */
void delivery_sent(struct broker *b, struct delivery *d);
/* The packet id under which it is to be sent. */
uint16_t delivery_packet_id(struct session *s, struct delivery *d);
/* A sent or recent delivery is converted and signed anew, past what is remembered (a nack). */
void delivery_restart(struct broker *b, struct delivery *d, struct message *nack);

#endif
