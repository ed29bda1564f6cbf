/* SPDX-License-Identifier: MIT */
/*
 * For tests and fuzzers of the MQTT codec: any frame through its decoder, and what came out through
 * the encoder. MQTT 3.1.1 leaves an encoder no choice, so the bytes must be the same again (but for
 * a Remaining Length in more bytes than it needs).
 */
#ifndef SSDTF_TESTS_MQTT_RECODE_H
#define SSDTF_TESTS_MQTT_RECODE_H

#include "userspace/mqtt/packet.h"

static inline enum mqtt_reason mqtt_recode_lists(const struct mqtt_frame *f, struct bytes_writer *w)
{
	enum mqtt_reason reason = MQTT_PROTOCOL_ERROR;
	struct mqtt_subscribe sub;
	struct mqtt_unsubscribe unsub;
	struct bytes codes;
	uint16_t id;

	if (mqtt_frame_type(f) == MQTT_SUBSCRIBE) {
		reason = mqtt_decode_subscribe(f->body, &sub);
		if (reason == MQTT_OK)
			mqtt_encode_subscribe(&sub, w);
	} else if (mqtt_frame_type(f) == MQTT_UNSUBSCRIBE) {
		reason = mqtt_decode_unsubscribe(f->body, &unsub);
		if (reason == MQTT_OK)
			mqtt_encode_unsubscribe(&unsub, w);
	} else if (mqtt_frame_type(f) == MQTT_SUBACK) {
		reason = mqtt_decode_suback(f->body, &id, &codes);
		if (reason == MQTT_OK)
			mqtt_encode_suback(id, codes.p, codes.n, w);
	}
	return reason;
}

static inline enum mqtt_reason mqtt_recode_connects(const struct mqtt_frame *f,
						    struct bytes_writer *w)
{
	enum mqtt_reason reason;
	struct mqtt_connect connect;
	bool present;
	uint8_t code;

	if (mqtt_frame_type(f) == MQTT_CONNECT) {
		reason = mqtt_decode_connect(f->body, &connect);
		if (reason == MQTT_OK)
			mqtt_encode_connect(&connect, w);
	} else {
		reason = mqtt_decode_connack(f->body, &present, &code);
		if (reason == MQTT_OK)
			mqtt_encode_connack(present, code, w);
	}
	return reason;
}

/* Decodes f and, where that is MQTT_OK, encodes it to w. */
static inline enum mqtt_reason mqtt_recode(const struct mqtt_frame *f, struct bytes_writer *w)
{
	enum mqtt_reason reason = MQTT_PROTOCOL_ERROR;
	struct mqtt_publish publish;
	uint16_t id;

	switch (mqtt_frame_type(f)) {
	case MQTT_CONNECT:
	case MQTT_CONNACK:
		return mqtt_recode_connects(f, w);
	case MQTT_SUBSCRIBE:
	case MQTT_UNSUBSCRIBE:
	case MQTT_SUBACK:
		return mqtt_recode_lists(f, w);
	case MQTT_PUBLISH:
		reason = mqtt_decode_publish(f, &publish);
		if (reason == MQTT_OK)
			mqtt_encode_publish(&publish, w);
		return reason;
	case MQTT_PUBACK:
	case MQTT_PUBREC:
	case MQTT_PUBREL:
	case MQTT_PUBCOMP:
	case MQTT_UNSUBACK:
		reason = mqtt_decode_ack(f->body, &id);
		if (reason == MQTT_OK)
			mqtt_encode_ack(mqtt_frame_type(f), id, w);
		return reason;
	case MQTT_PINGREQ:
	case MQTT_PINGRESP:
	case MQTT_DISCONNECT:
		reason = mqtt_decode_empty(f->body);
		if (reason == MQTT_OK)
			mqtt_encode_empty(mqtt_frame_type(f), w);
		return reason;
	case MQTT_AUTH:
		return reason;
	}
	return reason;
}

#endif
