/* SPDX-License-Identifier: MIT */
/*
 * MQTT clients for broker tests: plain ones, and SSDTF parties with their keys. They are written
 * against PROTOCOL and userspace/crypto alone and share no code with the engine.
 *
 * client_send_*() hand bytes to the engine and return at once. client_got_*() look at the next
 * packet that the engine sent (or did not): false where it is not what is asked for, with a TAP
 * comment that says what it is. A test asserts on them, so that a failure names the test's own
 * line.
 */
#ifndef SSDTF_TESTS_FAKE_CLIENT_H
#define SSDTF_TESTS_FAKE_CLIENT_H

#include "tests/fake_world.h"
#include "userspace/broker/control.h"
#include "userspace/crypto/publish.h"

#define CLIENT_NONCE_BYTES   32
#define CLIENT_SEALED_MAX    8192 /* a sealed payload with its trailer */
#define CLIENT_TEXT_MAX	     6144
#define CLIENT_USER_NAME_MAX 64

struct fake_client {
	struct fake_broker *fake;
	struct world *world; /* NULL: plain */
	struct world_party *party;
	const char *id;
	struct fake_conn *conn;

	/* What CONNECT will say. */
	bool clean, has_will;
	uint16_t keepalive_s;
	struct mqtt_will will;

	uint16_t packet_id; /* the last used */
	bool drip;	    /* its packets arrive one byte a turn */
	bool old_key;	    /* it signs by its party's previous key */

	/* SSDTF: this session's. */
	uint8_t connect_flags;
	uint8_t r_c[CLIENT_NONCE_BYTES], r_b[CLIENT_NONCE_BYTES];
	uint64_t highest; /* as auth/result said */
	uint32_t error_n, nack_n, report_n, ask_n, update_n;

	/* As a sender. */
	uint64_t counter; /* the last used */
	struct envelope_sender contexts[WORLD_SCOPES_MAX];
	bool context_open[WORLD_SCOPES_MAX];
};

/* A sealed, signed payload, and the PUBLISH that it is for. */
struct fake_sealed {
	uint8_t payload[CLIENT_SEALED_MAX];
	size_t n;
	struct mqtt_publish publish; /* payload is a view of the above; packet id from the client */
	uint64_t counter;
};

/* A delivery, opened. */
struct fake_opened {
	struct mqtt_publish publish;
	struct publish_trailer trailer;
	struct envelope envelope;
	struct world_grant *grant;
	char text[CLIENT_TEXT_MAX];
};

void client_init(struct fake_client *c, struct fake_broker *f, const char *id);
void client_init_party(struct fake_client *c, struct world *w, struct world_party *p);
void client_deinit(struct fake_client *c);

/* --- MQTT ------------------------------------------------------------------------------------- */

void client_dial(struct fake_client *c);
/* The client's CONNECT into w; of SSDTF, with a fresh nonce and admission token for now. */
void client_write_connect(struct fake_client *c, struct bytes_writer *w);
void client_send_connect(struct fake_client *c);
/* Dials, connects, and (SSDTF) authenticates. True once the session is open. */
bool client_up(struct fake_client *c);
/* client_up() with clean session or not. */
bool client_up_clean(struct fake_client *c);
bool client_up_persistent(struct fake_client *c);
/* The same, which must find the session kept, or not. */
bool client_resumes(struct fake_client *c, bool present);

void client_send(struct fake_client *c, struct bytes packet);
void client_send_hex(struct fake_client *c, const char *hex);
void client_send_publish(struct fake_client *c, const struct mqtt_publish *p);
/* A plain one; returns its packet id (0 at QoS 0). */
uint16_t client_publish_text(struct fake_client *c, const char *topic, const char *text,
			     uint8_t qos, bool retain);
void client_send_ack(struct fake_client *c, enum mqtt_type type, uint16_t packet_id);
void client_send_empty(struct fake_client *c, enum mqtt_type type);
/* Subscribes to one filter and settles; the SUBACK's code. What is sent besides stays unread only
 * where it comes behind the SUBACK. */
uint8_t client_subscribe(struct fake_client *c, const char *filter, uint8_t qos);
bool client_unsubscribe(struct fake_client *c, const char *filter);

bool client_got_nothing(struct fake_client *c);
bool client_got_connack(struct fake_client *c, bool present, uint8_t code);
bool client_got_ack(struct fake_client *c, enum mqtt_type type, uint16_t packet_id);
bool client_got_pingresp(struct fake_client *c);
/* Any PUBLISH. */
bool client_got_publish(struct fake_client *c, struct mqtt_publish *ret_p);
/* A plain PUBLISH with this text and QoS (and, at QoS 1, its id in *ret_id where that is not NULL).
 */
bool client_got_text(struct fake_client *c, const char *topic, const char *text, uint8_t qos,
		     uint16_t *ret_id);
/* Closed by the broker. */
bool client_closed(const struct fake_client *c);

/* --- SSDTF ------------------------------------------------------------------------------------ */

/* PUBLISH with body || trailer 1 by the client. */
void client_send_signed(struct fake_client *c, const char *topic, struct bytes body, uint8_t qos);
/* The response to the challenge that set r_b. */
void client_send_response(struct fake_client *c, uint8_t qos);
#define CLIENT_RESPONSE_BYTES (2 * CLIENT_NONCE_BYTES + 32)
void client_response_body(struct fake_client *c, struct bytes_writer *w);
/* Reads $SSDTF/auth/challenge and checks all of it; sets r_b. */
bool client_got_challenge(struct fake_client *c);
/* Reads $SSDTF/auth/result; sets highest. */
bool client_got_result(struct fake_client *c);
/* A PUBLISH of the broker's own on topic, its trailer 1 checked. */
bool client_got_control(struct fake_client *c, const char *topic, struct bytes *ret_body);
/* $SSDTF/error of this session, with the next n. */
bool client_got_error(struct fake_client *c, enum control_reason reason, uint64_t counter);
/* The same, of whatever message. */
bool client_got_any_error(struct fake_client *c, enum control_reason *ret_reason,
			  uint64_t *ret_counter);

/* Forgets the context towards a scope: the next seal opens another. */
void client_new_context(struct fake_client *c, const struct world_scope *s);
/* Seals and signs text with the next counter. */
void client_seal(struct fake_client *c, const struct world_scope *s, const char *topic,
		 const char *text, uint8_t qos, bool retain, struct fake_sealed *ret_s);
/* The trailer anew, after the body or the PUBLISH was changed. */
void client_sign(struct fake_client *c, struct fake_sealed *s);
/* Makes c->will: sealed, and signed as the QoS 1 PUBLISH it will be (PROTOCOL 4). The payload stays
 * in s. */
void client_seal_will(struct fake_client *c, const struct world_scope *scope, const char *topic,
		      const char *text, struct fake_sealed *s);
/* Seals, signs, sends; returns the packet id. */
uint16_t client_publish(struct fake_client *c, const struct world_scope *s, const char *topic,
			const char *text, uint8_t qos);
uint16_t client_publish_retained(struct fake_client *c, const struct world_scope *s,
				 const char *topic, const char *text, uint8_t qos);

/* Checks a delivery as PROTOCOL asks of a receiver (signature, level, bind, proof where the grant
 * wants it). */
bool client_take(struct fake_client *c, const struct mqtt_publish *p, struct fake_opened *ret_o);
/* The next packet is a delivery, and it may be taken. */
bool client_got_taken(struct fake_client *c, struct fake_opened *ret_o);
/* The same, and decrypts it, commitment and all. */
bool client_open(struct fake_client *c, const struct mqtt_publish *p, struct fake_opened *ret_o);
/* The next packet is a delivery that opens to text; *ret_o (not NULL) has the rest. */
bool client_got_sealed(struct fake_client *c, const char *text, struct fake_opened *ret_o);

/* What a distributor makes of it by grant g: converted, signed, for this topic. origin is the
 * external id; NULL: the sender's stays, and with it the salt. */
void client_distribute(struct fake_client *c, const struct fake_opened *o,
		       const struct world_grant *g, const char *topic, const char *origin,
		       uint8_t qos, bool retain, struct fake_sealed *ret_s);

void client_send_nack(struct fake_client *c, enum control_reason reason, uint64_t counter,
		      const char *origin);
/* $SSDTF/update: what is newer than that? And the answer: *n (its room, then what came) serials. */
void client_ask_updates(struct fake_client *c, uint64_t had, uint8_t qos);
bool client_got_updates(struct fake_client *c, uint64_t *serials, unsigned *n);
void client_send_report(struct fake_client *c, enum control_reason reason, uint64_t counter,
			const char *about, const char *text);

#endif
