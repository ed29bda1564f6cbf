/* SPDX-License-Identifier: MIT */
/*
 * One MQTT session with a broker: PROTOCOL 5's authentication with the signing key in the token,
 * then whatever its owner says. Bytes in, bytes out; no descriptor, no clock.
 *
 *   IDLE --begin--> CONNACK --0--> CHALLENGE --signed by the token--> RESULT --> OPEN
 *     ^---------------------- end, from anywhere ----------------------------------'
 *
 * Whatever does not hold ends the session: session_input() then says why. Its owner ends the
 * connection, calls session_end() and begins anew on another.
 */
#ifndef SSDTF_DISTRIBUTOR_SESSION_H
#define SSDTF_DISTRIBUTOR_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/list.h"
#include "userspace/distributor/ask.h"
#include "userspace/distributor/judge.h"
#include "userspace/mqtt/packet.h"

#define SESSION_NONCE_BYTES 32
#define SESSION_OPEN_MS	    30000 /* from CONNECT to the result */
/* Packet ids of its own, above the relay's. */
#define SESSION_ID_SUBSCRIBE   65535
#define SESSION_ID_UNSUBSCRIBE 65534
#define SESSION_CONTROLS_MAX   64 /* control messages that wait for the token */

enum session_state {
	SESSION_IDLE,
	SESSION_CONNACK,
	SESSION_CHALLENGE,
	SESSION_SIGNING,
	SESSION_RESULT,
	SESSION_OPEN,
};

struct session_ops {
	void (*opened)(void *ctx, bool present);
	/* A message. False: it is no broker's of ours. */
	bool (*publish)(void *ctx, const struct mqtt_publish *p);
	void (*puback)(void *ctx, uint16_t packet_id);
	/* codes: one for each filter, empty for UNSUBACK. */
	void (*suback)(void *ctx, uint16_t packet_id, struct bytes codes);
	/* False: what it is about must be sent again, which takes another session. */
	bool (*error)(void *ctx, uint8_t reason, uint64_t counter, struct bytes text);
};

struct session_config {
	bool clean;
	uint16_t keepalive_s;
	uint32_t packet_bytes_max;
};

/* Bytes in a row that grow at the end and go at the front. */
struct session_buffer {
	uint8_t *p;
	size_t n, room;
};

struct session {
	const struct session_ops *ops;
	void *ctx;
	struct session_config config;
	struct asks *asks;
	struct judge *judge;
	/* Who we are and who the broker is; its owner keeps both right. */
	const struct plan *plan;
	bool downstream; /* the broker is plan->to, not plan->from */
	enum session_state state;
	uint64_t began_ms, sent_ms, heard_ms, mono_ms;
	bool pinged, present;
	uint8_t r_c[SESSION_NONCE_BYTES], r_b[SESSION_NONCE_BYTES];
	bool heard_notice; /* n_in is that of one */
	uint32_t n_in, n_report;
	struct session_buffer in, out;
	struct list controls; /* in the order in which they go out */
	struct list stale;    /* of sessions before, and with the token still */
	unsigned n_controls;
	char why[256];
};

void session_init(struct session *s, const struct session_ops *ops, void *ctx,
		  const struct session_config *config, struct asks *asks, struct judge *judge,
		  const struct plan *plan, bool downstream);
/* The token has given every job back. */
void session_deinit(struct session *s);

/* A connection is there: CONNECT is in the output. unix_ms 0: no clock. */
void session_begin(struct session *s, uint64_t mono_ms, uint64_t unix_ms);
void session_end(struct session *s);
/* What came. -EPROTO: the connection is to be ended; why says why. */
int session_input(struct session *s, struct bytes v, uint64_t mono_ms) must_check;
/* Keep-alive and patience. -ETIMEDOUT: as above. */
int session_tick(struct session *s, uint64_t mono_ms) must_check;
uint64_t session_due_ms(const struct session *s);

static inline bool session_is_open(const struct session *s)
{
	return s->state == SESSION_OPEN;
}

/* What is to be written, and that n bytes of it were. */
static inline struct bytes session_output(const struct session *s)
{
	return bytes_of(s->out.p, s->out.n);
}
void session_written(struct session *s, size_t n);

/* Into the output; the session is open. */
void session_publish(struct session *s, const struct mqtt_publish *p);
void session_puback(struct session *s, uint16_t packet_id);
void session_subscribe(struct session *s, const struct bytes *filters, unsigned n, uint8_t qos);
void session_unsubscribe(struct session *s, const struct bytes *filters, unsigned n);
void session_disconnect(struct session *s);
/* $SSDTF/report (PROTOCOL 7). False: too many wait for the token, and it is left out. */
bool session_report(struct session *s, uint8_t reason, uint64_t counter, struct bytes id,
		    struct bytes text);

#endif
