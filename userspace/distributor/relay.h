/* SPDX-License-Identifier: MIT */
/*
 * The distributor's engine: deliveries in, jobs and PUBLISHes out, acknowledgements when all that
 * was made of a delivery is acknowledged. No I/O, no clock.
 *
 *   relay_deliver ─► judge ─┬─ may not pass: counted, reported, acknowledged in its turn
 *                           └─ a delivery in `work`, an outgoing for each outlet of its hop
 *       outgoing   WAITING   for its sender's external id and its conversion (the token, the table)
 *                  SIGNING   all that is ready goes under one Merkle root, in order
 *                  UNSENT    for a session downstream, and room in its window
 *                  SENT      until PUBACK; sent again with DUP by the next session
 *
 * At least once without a store of messages of its own: PUBACK upstream is held back until every
 * PUBACK downstream is there, so whatever ends the process, the broker upstream repeats it. That is
 * why it speaks MQTT itself: stock libraries acknowledge what they hand over.
 *
 * Order. Deliveries leave `work` in the order in which they came, batches of signatures are
 * finished in order, and what is sent again is sent in the old order, before anything new. So each
 * sender's messages keep theirs. PUBACKs leave in the order of the deliveries [MQTT-4.6.0-2].
 *
 * A session upstream that ends leaves its deliveries under way ("orphans"): they go on, and are not
 * acknowledged. The broker repeats them; a repetition of one that is still under way takes its
 * place and makes nothing new.
 */
#ifndef SSDTF_DISTRIBUTOR_RELAY_H
#define SSDTF_DISTRIBUTOR_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/bundle/idtable.h"
#include "userspace/crypto/publish.h"
#include "userspace/distributor/alias.h"
#include "userspace/distributor/ask.h"
#include "userspace/distributor/capsule.h"
#include "userspace/distributor/judge.h"
#include "userspace/distributor/plan.h"
#include "userspace/mqtt/packet.h"

#define RELAY_ROWS_MAX	  64  /* of one call of ids_put() */
#define RELAY_BATCH_MAX	  256 /* PUBLISHes under one signature */
#define RELAY_BATCHES_OUT 2
/* Packet ids 1 to this are the relay's; the session has those above. */
#define RELAY_PACKET_ID_MAX 60000
/* The receiving broker knows 128 counters of each sender: with no more than that under way, what is
 * sent again is known again. */
#define RELAY_WINDOW_MAX      128
#define RELAY_COMMIT_RETRY_MS 1000

enum relay_note {
	RELAY_NOTE_REFUSED,	/* what: why a message is not passed on */
	RELAY_NOTE_KEY_REFUSED, /* what: the outlet whose key the token does not take */
	RELAY_NOTE_NO_ID_KEY,	/* the token has no key for ids */
	RELAY_NOTE_DROPPED,	/* a QoS 0 message, for too many are under way */
};

/* One new external id, for the table. */
struct relay_row {
	uint8_t lookup[IDTABLE_LOOKUP_BYTES];
	uint8_t external[IDTABLE_EXTERNAL_BYTES];
	uint8_t trace[IDTABLE_TRACE_BYTES_MAX];
	size_t trace_n;
	uint64_t from_ms, until_ms;
};

/* A message that went out, as an observer of an outlet sees it. */
struct relay_sight {
	struct bytes outlet;
	struct bytes topic; /* with + for the sender */
	size_t plain_n;
	uint8_t mark[HASH_BYTES];
};

struct relay_ops {
	void (*token)(void *io, struct hsm_job *job);
	/* The token forgets a conversion key; jobs under it are answered HSM_NO_KEY. */
	void (*forget)(void *io, const uint8_t grant_id[GRANT_ID_BYTES]);
	/* 0; -ENOENT: not in the table; else it could not be read. */
	int (*id_find)(void *io, const uint8_t lookup[IDTABLE_LOOKUP_BYTES],
		       uint8_t ret_external[IDTABLE_EXTERNAL_BYTES]);
	/* All of them are on disk when it returns 0, or none is in the table. */
	int (*ids_put)(void *io, const struct relay_row *rows, unsigned n);
	void (*sight)(void *io, const struct relay_sight *s);
	/* Downstream; called only while relay_downstream() says that there is a session. */
	void (*publish)(void *io, const struct mqtt_publish *p);
	/* Upstream; called only for deliveries of the session that is there. */
	void (*puback)(void *io, uint16_t packet_id);
	/* PROTOCOL 7, to the manager. May be left out where there are too many. */
	void (*report)(void *io, uint8_t reason, uint64_t counter, struct bytes id,
		       struct bytes text);
	void (*note)(void *io, enum relay_note note, struct bytes what);
};

struct relay_limits {
	unsigned messages_max; /* under way; above it QoS 0 is dropped. QoS 1 the broker bounds */
	unsigned window;       /* QoS 1 downstream, unacknowledged */
	unsigned capsules_max, names_max;
};

struct relay_stats {
	uint64_t received, repeated, adopted;
	uint64_t refused;   /* by the judge */
	uint64_t no_outlet; /* nothing is made of it */
	uint64_t withdrawn; /* its outlet went while it was under way, or has no key */
	uint64_t dropped_qos0;
	uint64_t published, published_again, acknowledged_downstream, acknowledged_upstream;
	uint64_t signatures, errors;
};

enum outgoing_state {
	OUTGOING_WAITING,
	OUTGOING_VOID, /* will not go out */
	OUTGOING_SIGNING,
	OUTGOING_UNSENT,
	OUTGOING_SENT,
};

struct batch;

/* One PUBLISH that a delivery becomes. */
struct outgoing {
	struct list link;	  /* by state: ready, batch, unsent, sent */
	struct list capsule_wait; /* in a capsule's waiters */
	struct alias_wait name_wait;
	struct delivery *delivery;
	struct plan_outlet *outlet;
	enum outgoing_state state;
	uint8_t external[IDTABLE_EXTERNAL_BYTES];
	uint8_t x[P256_X_BYTES];
	uint16_t packet_id; /* QoS 1: while SENT, and afterwards until it is */
	bool again;	    /* it was sent before: DUP */
	uint8_t *bytes;	    /* topic, body, and behind it the trailer */
	size_t topic_n, body_n, payload_n;
};

struct delivery {
	struct list link; /* in work, until its outgoings are built */
	struct list ack;  /* in acks or orphans; QoS 0: in none */
	struct relay *relay;
	struct plan *plan;
	const struct plan_hop *hop;
	uint8_t qos;
	bool retain;
	bool orphan;
	uint16_t packet_id;
	unsigned n_waits; /* answers without which nothing of it is built */
	unsigned n_open;  /* outgoings that are not over */
	unsigned n;
	uint8_t *payload; /* its own copy; topic behind it */
	struct bytes topic;
	struct envelope e;
	uint8_t mark[HASH_BYTES];
	struct alias_wait mark_wait;
	struct outgoing outgoings[];
};

/* PUBLISHes signed together. */
struct batch {
	struct list link; /* in order */
	struct relay *relay;
	struct ask ask;
	bool done;
	unsigned n;
	struct outgoing *outgoings[RELAY_BATCH_MAX];
	uint8_t nodes[MERKLE_NODES_MAX(RELAY_BATCH_MAX)][HASH_BYTES];
};

struct relay {
	const struct relay_ops *ops;
	void *io;
	struct relay_limits limits;
	uint64_t mono_ms, unix_ms;
	struct plan *plan;
	struct asks asks;
	struct judge judge;
	struct aliases aliases;
	struct capsules capsules;
	struct list work, acks, orphans;
	struct list ready, batches, unsent, sent;
	unsigned n_deliveries, n_batches, n_sent;
	uint64_t commit_at_ms;
	bool upstream, downstream; /* there is a session */
	uint16_t packet_id_next;
	struct relay_stats stats;
};

/* plan is got. */
struct relay *relay_new(const struct relay_ops *ops, void *io, const struct relay_limits *l,
			struct plan *plan, uint64_t mono_ms, uint64_t unix_ms);
/* The token has given every job back. */
void relay_free(struct relay *r);

/* Another bundle. What is under way goes on, but for what went with the old one. */
void relay_plan(struct relay *r, struct plan *plan);

/* A session is there, or is not any more. */
void relay_upstream(struct relay *r, bool open);
void relay_downstream(struct relay *r, bool open);
/* PUBLISH from upstream. False: the broker's signature does not hold, and at QoS 1 the session had
 * better end, since what this packet id stands for is not known. */
bool relay_deliver(struct relay *r, const struct mqtt_publish *p) must_check;
/* PUBACK from downstream. */
void relay_acknowledged(struct relay *r, uint16_t packet_id);
/* $SSDTF/error from downstream. True: it refused a message for good, whose PUBACK follows. False:
 * for now, and no PUBACK follows; what was sent has to be sent again, by another session. */
bool relay_error(struct relay *r, uint8_t reason) must_check;

/* Begin of a turn: what is due. */
void relay_tick(struct relay *r, uint64_t mono_ms, uint64_t unix_ms);
/* End of a turn: rows, signatures, PUBLISHes. */
void relay_turn(struct relay *r);
/* When relay_tick() has something to do; UINT64_MAX: not by itself. */
uint64_t relay_due_ms(const struct relay *r);
/* Nothing is under way. */
bool relay_idle(const struct relay *r);

/* --- for alias.c and capsule.c ---------------------------------------------------------------- */

/* One answer that it waited for is there. */
void delivery_waited(struct delivery *d);
void outgoing_waited(struct outgoing *o);
/* It will not be converted: the other answer that it waits for may still come. */
void outgoing_void(struct outgoing *o);

#endif
