/* SPDX-License-Identifier: MIT */
/*
 * MQTT control packets to structs and back: 3.1.1 (OASIS, 2014), for a server and for tests that
 * play the client. No I/O, no allocation, no state. Strings and payloads in decoded packets are
 * views into the frame they were decoded from.
 *
 * mqtt_frame_next() finds the first whole packet in a stream; mqtt_decode_*() take a frame's body.
 * What a peer did wrong is an enum mqtt_reason, never an errno. Encoders write through a bounded
 * cursor and leave the verdict in its sticky error; mqtt_*_bytes() give the exact size beforehand.
 *
 * MQTT 5 properties and reason codes come with a later level field: every struct here that will
 * carry properties has its place for the raw, validated property bytes (empty in 3.1.1).
 */
#ifndef SSDTF_MQTT_PACKET_H
#define SSDTF_MQTT_PACKET_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"

enum mqtt_type {
	MQTT_CONNECT = 1,
	MQTT_CONNACK = 2,
	MQTT_PUBLISH = 3,
	MQTT_PUBACK = 4,
	MQTT_PUBREC = 5,
	MQTT_PUBREL = 6,
	MQTT_PUBCOMP = 7,
	MQTT_SUBSCRIBE = 8,
	MQTT_SUBACK = 9,
	MQTT_UNSUBSCRIBE = 10,
	MQTT_UNSUBACK = 11,
	MQTT_PINGREQ = 12,
	MQTT_PINGRESP = 13,
	MQTT_DISCONNECT = 14,
	MQTT_AUTH = 15, /* MQTT 5 */
};

enum mqtt_reason {
	MQTT_OK = 0,
	MQTT_MALFORMED,		  /* bytes that are no packet */
	MQTT_PROTOCOL_ERROR,	  /* a packet that may not stand here */
	MQTT_TOO_LARGE,		  /* above the limit that the caller set */
	MQTT_UNSUPPORTED_LEVEL,	  /* CONNECT of another protocol level: CONNACK 1 */
	MQTT_IDENTIFIER_REJECTED, /* CONNACK 2 */
	MQTT_BAD_TOPIC,		  /* empty; wildcards in a name, or misplaced in a filter */
	MQTT_QOS_UNSUPPORTED,	  /* a QoS that this server does not give */
};

const char *mqtt_reason_name(enum mqtt_reason r);

#define MQTT_FIXED_HEADER_MAX 5
#define MQTT_PACKET_BYTES_MAX 268435455u /* what Remaining Length can say */
#define MQTT_FILTERS_MAX      64	 /* of one SUBSCRIBE: more is MQTT_TOO_LARGE */

/* A whole packet: its first byte and what follows Remaining Length. */
struct mqtt_frame {
	uint8_t first;
	struct bytes body;
	struct bytes packet; /* with its header, as it came */
};

static inline enum mqtt_type mqtt_frame_type(const struct mqtt_frame *f)
{
	return (enum mqtt_type)(f->first >> 4);
}

/*
 * The first packet of v. *ret_used is its length on the wire, or 0 where more bytes are needed, and
 * then *ret_need is how many there must be in all before it is worth asking again (never more than
 * limit, which counts whole packets). The flags of the first byte and the type are checked here
 * [MQTT-2.2.2-2], so a wrong stream is found at its first byte. A Remaining Length in more bytes
 * than it needs is taken, as 3.1.1 lets it be.
 */
enum mqtt_reason mqtt_frame_next(struct bytes v, uint32_t limit, struct mqtt_frame *ret_frame,
				 size_t *ret_used, size_t *ret_need) must_check;

struct mqtt_will {
	struct bytes topic, payload, properties;
	uint8_t qos;
	bool retain;
};

struct mqtt_connect {
	uint8_t level; /* 4: 3.1.1 */
	uint8_t flags; /* as received */
	bool clean_session;
	uint16_t keepalive_s;
	struct bytes client_id;
	bool has_will, has_user_name, has_password;
	struct mqtt_will will;
	struct bytes user_name, password;
	struct bytes properties;
};

struct mqtt_publish {
	bool dup, retain;
	uint8_t qos;
	uint16_t packet_id; /* 0 at QoS 0 */
	struct bytes topic, payload, properties;
};

struct mqtt_subscription {
	struct bytes filter;
	uint8_t qos; /* requested */
};

struct mqtt_subscribe {
	uint16_t packet_id;
	unsigned n;
	struct mqtt_subscription list[MQTT_FILTERS_MAX];
};

struct mqtt_unsubscribe {
	uint16_t packet_id;
	unsigned n;
	struct bytes filters[MQTT_FILTERS_MAX];
};

/* Decoding for a server. Every function checks all that the standard lets a server check: UTF-8
 * (no surrogates, no NUL) [MQTT-1.5.3], packet id not 0, reserved bits, no bytes left over. Another
 * level's CONNECT is MQTT_UNSUPPORTED_LEVEL (MQTT 3.1's "MQIsdp" too), another protocol's
 * malformed. */
enum mqtt_reason mqtt_decode_connect(struct bytes body, struct mqtt_connect *ret_c) must_check;
enum mqtt_reason mqtt_decode_publish(const struct mqtt_frame *f,
				     struct mqtt_publish *ret_p) must_check;
enum mqtt_reason mqtt_decode_subscribe(struct bytes body, struct mqtt_subscribe *ret_s) must_check;
enum mqtt_reason mqtt_decode_unsubscribe(struct bytes body,
					 struct mqtt_unsubscribe *ret_u) must_check;
/* PUBACK, PUBREC, PUBREL, PUBCOMP, UNSUBACK: a packet id alone. */
enum mqtt_reason mqtt_decode_ack(struct bytes body, uint16_t *ret_packet_id) must_check;
/* PINGREQ, PINGRESP, DISCONNECT: nothing. */
enum mqtt_reason mqtt_decode_empty(struct bytes body) must_check;

/* Decoding for a client (tests, tools). return_codes is a view, one byte a filter. */
enum mqtt_reason mqtt_decode_connack(struct bytes body, bool *ret_session_present,
				     uint8_t *ret_code) must_check;
enum mqtt_reason mqtt_decode_suback(struct bytes body, uint16_t *ret_packet_id,
				    struct bytes *ret_codes) must_check;

/* Encoding. The sticky error, too, for what no packet may say: a field or body too long, packet id
 * 0 where there must be one, QoS 3, DUP at QoS 0, a password without a user name, no filter at all,
 * properties (not in 3.1.1). Text is not checked: names and filters come from a decoder or were
 * checked by their owner. Of a CONNECT, flags is made from the bools. */
void mqtt_encode_connect(const struct mqtt_connect *c, struct bytes_writer *w);
void mqtt_encode_connack(bool session_present, uint8_t code, struct bytes_writer *w);
/* Whole packet size of a PUBLISH whose payload has payload_n bytes; 0 where it would not fit MQTT.
 */
size_t mqtt_publish_bytes(size_t topic_n, size_t payload_n, uint8_t qos);
/* Up to but without the payload, of which payload_n bytes must follow. */
void mqtt_encode_publish_head(const struct mqtt_publish *p, size_t payload_n,
			      struct bytes_writer *w);
void mqtt_encode_publish(const struct mqtt_publish *p, struct bytes_writer *w);
/* type is MQTT_PUBACK, PUBREC, PUBREL, PUBCOMP or UNSUBACK. */
void mqtt_encode_ack(enum mqtt_type type, uint16_t packet_id, struct bytes_writer *w);
void mqtt_encode_subscribe(const struct mqtt_subscribe *s, struct bytes_writer *w);
void mqtt_encode_unsubscribe(const struct mqtt_unsubscribe *u, struct bytes_writer *w);
/* codes: 0, 1, 2 or 0x80 for each filter. */
void mqtt_encode_suback(uint16_t packet_id, const uint8_t *codes, size_t n, struct bytes_writer *w);
/* PINGREQ, PINGRESP, DISCONNECT. */
void mqtt_encode_empty(enum mqtt_type type, struct bytes_writer *w);

/* The first byte of a PUBLISH (type, DUP, QoS, RETAIN). */
static inline uint8_t mqtt_publish_first(uint8_t qos, bool retain, bool dup)
{
	return (uint8_t)(MQTT_PUBLISH << 4 | (dup ? 8 : 0) | qos << 1 | (retain ? 1 : 0));
}

/* MQTT 4.7: a name without wildcards or NUL, not empty; a filter with + and # where they may be. */
bool mqtt_topic_name_ok(struct bytes topic);
bool mqtt_topic_filter_ok(struct bytes filter);
/* Well-formed UTF-8 without U+0000 and surrogates [MQTT-1.5.3-1], [MQTT-1.5.3-2]. */
bool mqtt_utf8_ok(struct bytes text);

#endif
