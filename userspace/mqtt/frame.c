// SPDX-License-Identifier: MIT
#include "userspace/mqtt/frame.h"

#define DIGIT_BITS   7
#define DIGIT_MORE   0x80u
#define DIGITS_MAX   4
#define FIXED_MIN    2	   /* first byte and one digit: the smallest packet */
#define FLAGS_OF_REL 0x02u /* PUBREL, SUBSCRIBE, UNSUBSCRIBE */

uint8_t mqtt_frame_first(enum mqtt_type type)
{
	bool two = type == MQTT_PUBREL || type == MQTT_SUBSCRIBE || type == MQTT_UNSUBSCRIBE;

	return (uint8_t)(type << 4 | (two ? FLAGS_OF_REL : 0));
}

/* [MQTT-2.2.2-1]. Types 0 and 15 are forbidden in 3.1.1 (table 2.1). */
static bool first_ok(uint8_t first)
{
	enum mqtt_type type = (enum mqtt_type)(first >> 4);

	switch (type) {
	case MQTT_PUBLISH:
		return mqtt_publish_flags_ok(first);
	case MQTT_CONNECT:
	case MQTT_CONNACK:
	case MQTT_PUBACK:
	case MQTT_PUBREC:
	case MQTT_PUBREL:
	case MQTT_PUBCOMP:
	case MQTT_SUBSCRIBE:
	case MQTT_SUBACK:
	case MQTT_UNSUBSCRIBE:
	case MQTT_UNSUBACK:
	case MQTT_PINGREQ:
	case MQTT_PINGRESP:
	case MQTT_DISCONNECT:
		return first == mqtt_frame_first(type);
	case MQTT_AUTH:
		return false;
	}
	return false;
}

/*
 * Remaining Length (2.2.3). A fifth byte is malformed, and so is the fourth that announces it. An
 * encoding longer than it need be is taken: 3.1.1 does not forbid it (5.0 does, [MQTT-1.5.5-1]).
 * False: malformed. Where the bytes ran out, the reader is bad and the value means nothing.
 */
static bool read_remaining(struct bytes_reader *r, uint32_t *ret_n)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < DIGITS_MAX; i++) {
		uint8_t digit = bytes_read_u8(r);

		n |= (digit & ~DIGIT_MORE) << (i * DIGIT_BITS);
		if (!(digit & DIGIT_MORE)) {
			*ret_n = n;
			return true;
		}
	}
	return false;
}

enum mqtt_reason mqtt_frame_next(struct bytes v, uint32_t limit, struct mqtt_frame *ret_frame,
				 size_t *ret_used, size_t *ret_need)
{
	struct bytes_reader r = bytes_reader_of(v);
	uint8_t first = bytes_read_u8(&r);
	uint32_t body_n = 0;
	size_t total;

	if (!r.bad && !first_ok(first))
		return MQTT_MALFORMED;
	if (!read_remaining(&r, &body_n))
		return MQTT_MALFORMED;
	if (r.bad)
		total = v.n ? v.n + 1 : FIXED_MIN;
	else
		total = v.n - r.left + body_n;
	if (total > limit)
		return MQTT_TOO_LARGE;
	*ret_need = total;
	if (total > v.n) {
		*ret_used = 0;
		return MQTT_OK;
	}
	*ret_frame =
		(struct mqtt_frame){ first, bytes_read_view(&r, body_n), bytes_of(v.p, total) };
	*ret_used = total;
	return MQTT_OK;
}

static size_t digits_of(size_t body_n)
{
	size_t digits = 1;

	while (body_n >>= DIGIT_BITS)
		digits++;
	return digits;
}

size_t mqtt_frame_bytes(size_t body_n)
{
	if (body_n > MQTT_PACKET_BYTES_MAX)
		return 0;
	return 1 + digits_of(body_n) + body_n;
}

void mqtt_frame_begin(uint8_t first, size_t body_n, struct bytes_writer *w)
{
	w->bad |= body_n > MQTT_PACKET_BYTES_MAX;
	if (w->bad)
		return;
	bytes_write_u8(w, first);
	for (; body_n >= DIGIT_MORE; body_n >>= DIGIT_BITS)
		bytes_write_u8(w, (uint8_t)(body_n | DIGIT_MORE));
	bytes_write_u8(w, (uint8_t)body_n);
}
