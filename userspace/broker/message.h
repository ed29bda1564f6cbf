/* SPDX-License-Identifier: MIT */
/*
 * One application message, stored once however many receivers it has, in one block of the engine's
 * pool. Counted; one thread. A plain one stands there as the PUBLISH it came as, so that passing it
 * on is one copy and two patches. A sealed one's payload is the sender's body as it came (at level
 * 0 but for a distributor's) and `sealed` tells the rest; conversion never changes it.
 */
#ifndef SSDTF_BROKER_MESSAGE_H
#define SSDTF_BROKER_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/pool.h"
#include "userspace/crypto/envelope.h"
#include "userspace/crypto/publish.h"
#include "userspace/mqtt/packet.h"

/* What conversion and the origin proof need of a sealed message. Views into the message's block. */
struct message_sealed {
	struct envelope envelope;
	struct p256_point e;  /* what is converted: broker_verify.e */
	uint8_t first;	      /* as the sender signed it, DUP = 0 */
	struct bytes trailer; /* the sender's */
	struct bytes sender;  /* the id of who published it here */
	struct bytes origin;  /* whose it is: the sender's, or above level 0 the block's */
};

/* All of a plain message's PUBLISH but its payload, at one QoS; the same for all receivers, who
 * differ in DUP and RETAIN, which are 0 here, and in the packet id. */
struct message_form {
	struct message_form *next;
	struct bytes head;
	uint32_t id_at; /* of the packet id; 0: none, QoS 0 */
	uint8_t qos;
};

struct durable_message;

struct message {
	unsigned refs;
	uint8_t qos;
	bool retain;
	struct bytes topic;
	struct bytes payload;		 /* as received; behind it stands the trailer, if sealed */
	struct bytes body;		 /* what is stored and converted: payload without trailer */
	struct message_sealed *sealed;	 /* NULL: plain */
	struct message_form form;	 /* plain: at its own QoS; further ones hang on it */
	struct durable_message *durable; /* if something that is stored names it (durable.h) */
	uint8_t *adopted; /* a block that topic and payload stand in; NULL: the message's own */
};

/* Copies topic and payload; if sealed, the sender's id too (`origin`), and `sealed` is set and
 * zeroed but for sender, origin and first. One reference; NULL: no memory. */
struct message *message_new(struct pool *pool, const struct mqtt_publish *p, struct bytes origin,
			    bool sealed) must_check;
/* The same of a packet that stands alone in a block of the pool, which the message takes over. */
struct message *message_adopt(struct pool *pool, const struct mqtt_publish *p, uint8_t *packet,
			      size_t packet_n, struct bytes origin, bool sealed) must_check;
/* What was found in a sealed one becomes its own; the views are into its payload. */
void message_opened(struct message *m, const struct publish_trailer *t, const struct envelope *e,
		    const struct p256_point *point);
struct message *message_get(struct message *m);
void message_put(struct pool *pool, struct message *m); /* NULL is fine */

/* Plain: its encoding at this QoS, made when it is first asked for. NULL: no memory. */
const struct message_form *message_form(struct pool *pool, struct message *m,
					uint8_t qos) must_check;
/* From this size on, payloads are not copied into each receiver's output but pointed at: below, a
 * copy is cheaper than a second piece to send. */
#define MESSAGE_SHARED_BYTES_MIN 4096

/* What of it is not copied: its payload, or nothing. */
static inline struct bytes message_shared(const struct message *m)
{
	return bytes_of(m->payload.p, m->payload.n >= MESSAGE_SHARED_BYTES_MIN ? m->payload.n : 0);
}

/* What message_form_write() writes. */
static inline size_t message_form_bytes(const struct message *m, const struct message_form *form)
{
	return form->head.n + m->payload.n - message_shared(m).n;
}

/* The PUBLISH in this form, but for what is shared. */
void message_form_write(const struct message *m, const struct message_form *form, bool dup,
			bool retain, uint16_t packet_id, uint8_t *out);

/* What a queue counts it as. */
size_t message_bytes(const struct message *m);

#endif
