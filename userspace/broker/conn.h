/* SPDX-License-Identifier: MIT */
/*
 * A connection as the engine sees it: framing, the state it is in, and what must wait for a job.
 * Closed ones stay allocated until their last job is back (refs), so a job never finds it gone.
 */
#ifndef SSDTF_BROKER_CONN_H
#define SSDTF_BROKER_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include "bpf/admission.h"
#include "userspace/base/timer.h"
#include "userspace/broker/message.h"
#include "userspace/broker/updates.h"
#include "userspace/mqtt/packet.h"

struct broker;
struct session;

/*
 *   NEW ──CONNECT──► CHALLENGED ──response──► CHECKING ──signature, Will hold──► OPENING ──► OPEN
 *    └───────────────────────── plain mode ─────────────────────────────────────────────────┘
 */
enum conn_state {
	CONN_NEW,	 /* nothing but CONNECT is taken */
	CONN_CHALLENGED, /* the challenge is being signed or was sent */
	CONN_CHECKING,	 /* a response is being verified, then the Will */
	CONN_OPENING,	 /* the result is being signed */
	CONN_OPEN,
	CONN_CLOSED,
};

enum conn_pause {
	CONN_PAUSE_VERIFY = 1,	 /* much of it is with the crypto workers */
	CONN_PAUSE_RECEIVER = 2, /* a receiver of its messages is slow */
	CONN_PAUSE_ACKS = 4,	 /* it is owed many acknowledgements */
	CONN_PAUSE_ERRORS = 8,	 /* it had more errors than a second has room for */
	CONN_PAUSE_REPLIES = 16, /* it is owed many answers (reply.h) */
};

#define CONN_NONCE_BYTES 32

/* What a connection needs that authenticates, signs and is answered with signatures. */
struct conn_secure {
	struct broker_conn *conn;
	uint8_t r_c[CONN_NONCE_BYTES], r_b[CONN_NONCE_BYTES];
	uint8_t broker_hash[32]; /* of the key that signs its challenge: signer.c's */
	struct p256_point key;	 /* by which it authenticated, once it has */
	bool authenticated;
	bool previous;		 /* its last signature was by its previous key */
	struct list commit_wait; /* its Will's counter is being stored */

	/* With the crypto workers, and then owed an acknowledgement, in order. */
	unsigned verify_pending, n_acks;
	size_t verify_bytes; /* of those pending */
	struct list acks;

	/* $SSDTF/ messages. */
	uint32_t error_n, sys_n;	 /* the last sent */
	uint64_t nack_next, report_next; /* the least number that is taken */
	uint32_t budget;		 /* notices, less what the seconds since have let off */
	uint64_t budget_second;
	struct timer errors; /* lets it go on after too many */
	struct updates_conn updates;

	/* $SSDTF/bundle and claim. */
	uint32_t bundle_n, claim_n;	  /* the last sent */
	uint64_t bundle_next, claim_next; /* the least number that is taken */
	uint8_t claimed[32]; /* SHA-256 of the key that it claims; zeros: it does not */
};

struct broker_conn {
	struct list link; /* in broker.conns or broker.dead */
	struct broker *broker;
	void *io;
	enum conn_state state;
	unsigned refs; /* jobs and waiting acknowledgements that point here */
	uint8_t pauses;
	unsigned n_replies;
	struct list replies;	 /* what waits to be said to it (reply.h) */
	struct session *session; /* OPEN */
	struct timer timer;	 /* CONNECT, response or keep-alive */
	uint64_t last_rx_ms;
	uint32_t keepalive_ms; /* one and a half times the client's; 0: none */

	/* A packet that came in pieces. */
	uint8_t *partial;
	uint32_t partial_n, partial_need, partial_room;

	/* From CONNECT. */
	char id[65];
	uint8_t id_n;
	uint8_t level, flags;
	bool clean;
	struct message *will;

	/* Admission. */
	struct admission_source source;
	enum admission_verdict verdict; /* of its CONNECT */

	struct conn_secure *secure; /* in the same block; NULL: plain */

	/* Waiting for a receiver's queue. */
	struct list blocked; /* in session.blocked */
};

static inline struct bytes conn_id(const struct broker_conn *c)
{
	return bytes_of(c->id, c->id_n);
}

static inline void conn_get(struct broker_conn *c)
{
	c->refs++;
}

/* May free it, where it is closed. */
void conn_put(struct broker_conn *c);

/* The message of the PUBLISH in hand. A large one that came in pieces, as it will have, is not
 * copied again: it takes over their memory. NULL: no memory. */
struct message *conn_message(struct broker_conn *c, const struct mqtt_publish *p,
			     bool sealed) must_check;
/* Ends it for what the peer did (or we cannot do); its Will is published. */
void conn_fail(struct broker_conn *c, const char *why);
/* Ends it in good order: no Will. */
void conn_end(struct broker_conn *c, const char *why);
void conn_pause(struct broker_conn *c, enum conn_pause why);
void conn_resume(struct broker_conn *c, enum conn_pause why);

/* Room in the output for a packet of n bytes, or NULL after ending the connection. */
uint8_t *conn_out(struct broker_conn *c, size_t n) must_check;
void conn_send_connack(struct broker_conn *c, bool session_present, uint8_t code);
/* Would it find a session kept for its client? Is there one, or room for one? */
bool conn_session_present(const struct broker_conn *c);
bool conn_session_fits(const struct broker_conn *c);
void conn_send_ack(struct broker_conn *c, enum mqtt_type type, uint16_t packet_id);
/* The session opens: takes over another connection's, or makes one. False: refused and ended. */
bool conn_attach(struct broker_conn *c);
/* Takes one notice (error, nack, report) from this second's; false where none is left. */
bool conn_budget(struct broker_conn *c);
/* The same for one that must be sent: where none is left the connection is not read from until
 * there is. */
void conn_budget_owe(struct broker_conn *c);

#endif
