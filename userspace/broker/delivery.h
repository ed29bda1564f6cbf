/* SPDX-License-Identifier: MIT */
/*
 * One message on its way to one session. It moves through the session's lists, always from the
 * front of one to the back of the next, which is what keeps the order of every receiver:
 *
 *    waiting ──► converting ──► signing ──► sent ──► (acknowledged)
 *
 * At QoS 2 that is PUBREC. Of the message nothing is left to be sent then but PUBREL, for which its
 * packet id stays in use until PUBCOMP (outgoing.h).
 *
 * One that was acknowledged is remembered a little longer (recent): stock libraries acknowledge
 * before they hand a message over, and a nack of it is to find it still. It counts for nothing
 * else.
 *
 * A message that a distributor converted for one receiver alone passes through converting without
 * being converted. A plain message goes from waiting straight to sent, and where nothing waits
 * before it not even through waiting; at QoS 0 it then is no delivery at all. When the connection
 * goes, all that is unacknowledged returns to waiting, in order.
 */
#ifndef SSDTF_BROKER_DELIVERY_H
#define SSDTF_BROKER_DELIVERY_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/list.h"
#include "userspace/broker/message.h"
#include "userspace/crypto/grant.h"
#include "userspace/mqtt/packet.h"

struct broker;
struct broker_commit_delivery;
struct capsule;
struct delivery_sealed;
struct session;
struct signer_request;

enum delivery_state {
	DELIVERY_WAITING,
	DELIVERY_CONVERTING,
	DELIVERY_CONVERTED,
	DELIVERY_SIGNING,
	DELIVERY_SENT,
	DELIVERY_RECENT,
};

/* Small: a plain broker has very many of them. */
struct delivery {
	struct list link; /* in one of the session's lists */
	struct session *session;
	struct message *message;
	struct delivery_sealed *sealed; /* in the same block; NULL: plain */
	uint64_t seq;			/* its place among the session's */
	uint16_t packet_id; /* QoS > 0: once sent, kept over reconnects [MQTT-4.4.0-1] */
	uint8_t qos;
	bool retain, dup;
	bool sent;    /* under this packet id, once at least */
	bool durable; /* its record stands before it (durable.h) */
	enum delivery_state state;
};

/* What conversion and signature need besides. */
struct delivery_sealed {
	struct delivery *delivery;
	struct list
		wait; /* in the capsule's waiters, the signer's ready list, or sessions.recent */
	uint64_t recent_until_ms;
	uint8_t grant_id[GRANT_ID_BYTES];
	uint8_t grant_flags;
	bool passed;		      /* on as it came: there is nothing to convert */
	uint8_t x[P256_X_BYTES];      /* x(E'), once converted */
	struct capsule *capsule;      /* while it waits for one */
	struct signer_request *batch; /* once in a batch; its slot is batch_index */
	uint16_t batch_index;
	/* A nack (PROTOCOL 7): one recomputation, past what is remembered. */
	bool nacked;
	bool acknowledged;    /* (QoS 1) while the new conversion was awaited */
	struct message *nack; /* as received, until the new conversion is judged */
	uint8_t x_before[P256_X_BYTES];
};

/* The first of those that wait in such a list; NULL: it is empty. */
static inline struct delivery *delivery_first_waiting(const struct list *l)
{
	struct delivery_sealed *s = list_first(l, struct delivery_sealed, wait);

	return s ? s->delivery : NULL;
}

/* Sends or queues a message; counts and drops where the queue is full, or QoS 0 has nobody to go
 * to. Ends no connection. */
void delivery_enqueue(struct broker *b, struct session *s, struct message *m, uint8_t qos,
		      bool retain);
/* One of an earlier run, behind those that it was restored behind; what a limit has no room for is
 * dropped. -EBADMSG: its packet id is another's; -ENOMEM. */
int delivery_restore(struct broker *b, struct session *s, struct message *m,
		     const struct broker_commit_delivery *r) must_check;
/* A delivery is done with, wherever it stands. */
void delivery_free(struct broker *b, struct delivery *d);
/* PUBACK, PUBREC or PUBCOMP came; one of an unknown id means nothing. False: this is not how a
 * message of that QoS is acknowledged. */
bool delivery_acknowledge(struct broker *b, struct session *s, enum mqtt_type type,
			  uint16_t packet_id) must_check;

/* Starts what may start in every dirty session. */
void deliveries_pump(struct broker *b);
/* Moves converted deliveries at the front on to the signer. */
void deliveries_advance(struct broker *b, struct session *s);
/* The connection went: what is unacknowledged waits again, QoS 0 is dropped. */
void deliveries_rewind(struct broker *b, struct session *s);
/* The grants may have changed: what is under way begins again, with those there are now. */
void deliveries_restart(struct broker *b, struct session *s);
/* All of the session's. */
void deliveries_free(struct broker *b, struct session *s);

/* A signed (or plain) delivery goes onto the connection: it is now sent, or done at QoS 0. The
 * caller has written the packet with this id. */
void delivery_sent(struct broker *b, struct delivery *d);
/* The packet id under which it is to be sent; there is room for it since it left waiting. */
uint16_t delivery_packet_id(struct session *s, struct delivery *d);
/* A sent or recent delivery is converted and signed anew, past what is remembered (a nack). */
void delivery_restart(struct broker *b, struct delivery *d, struct message *nack);

#endif
