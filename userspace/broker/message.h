/* SPDX-License-Identifier: MIT */
/*
 * One application message, stored once however many receivers it has: topic and payload behind the
 * struct, in one block of the engine's pool. Counted; one thread. In SSDTF mode the payload is the
 * sender's body at level 0 and `sealed` tells the rest; conversion never changes it.
 */
#ifndef SSDTF_BROKER_MESSAGE_H
#define SSDTF_BROKER_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/pool.h"
#include "userspace/crypto/envelope.h"
#include "userspace/mqtt/packet.h"

/* What conversion and the origin proof need of a sealed message. Views into the message's block. */
struct message_sealed {
	struct envelope envelope;
	struct p256_point e;  /* enc, uncompressed and on the curve */
	uint8_t first;	      /* as the sender signed it, DUP = 0 */
	struct bytes trailer; /* the sender's */
	struct bytes origin;  /* the sender's id */
};

struct message {
	unsigned refs;
	uint8_t qos;
	bool retain;
	struct bytes topic;
	struct bytes payload;	       /* as received; behind it stands the trailer, if sealed */
	struct bytes body;	       /* what is stored and converted: payload without trailer */
	struct message_sealed *sealed; /* NULL: plain */
};

/* Copies topic and payload; with origin, room for message_sealed too (then `sealed` is set and
 * zeroed but for origin and first). One reference; NULL: no memory. */
struct message *message_new(struct pool *pool, const struct mqtt_publish *p, struct bytes origin,
			    bool sealed) must_check;
struct message *message_get(struct message *m);
void message_put(struct pool *pool, struct message *m); /* NULL is fine */

/* What a queue counts it as. */
size_t message_bytes(const struct message *m);

#endif
