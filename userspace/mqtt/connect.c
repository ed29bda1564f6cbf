// SPDX-License-Identifier: MIT
/*
 * CONNECT and its answer, CONNACK.
 *
 *	CONNECT body   2+name "MQTT" | level 4 | flags | u16 keep-alive | 2+client id
 *	               [will: 2+topic 2+message] [2+user name] [2+password]
 *	CONNACK body   session present | return code
 */
#include "userspace/mqtt/frame.h"
#include "userspace/mqtt/topic.h"

#define LEVEL_3_1_1	 4
#define HEADER_BYTES	 10 /* name to keep-alive */
#define CONNACK_BYTES	 2
#define CONNACK_CODE_MAX 5

#define FLAG_RESERVED	 0x01u
#define FLAG_CLEAN	 0x02u
#define FLAG_WILL	 0x04u
#define WILL_QOS_SHIFT	 3
#define WILL_QOS_MASK	 0x03u
#define FLAG_WILL_RETAIN 0x20u
#define FLAG_PASSWORD	 0x40u
#define FLAG_USER_NAME	 0x80u

/*
 * [MQTT-3.1.2-1], [MQTT-3.1.2-2]. MQIsdp is the name that MQTT 3.1 goes by: its clients understand
 * a CONNACK 1, as those of a later level do. Any other name is another protocol's.
 */
static enum mqtt_reason protocol_check(struct bytes name, uint8_t level)
{
	if (bytes_equal(name, bytes_str("MQIsdp")))
		return MQTT_UNSUPPORTED_LEVEL;
	if (!bytes_equal(name, bytes_str("MQTT")))
		return MQTT_MALFORMED;
	return level == LEVEL_3_1_1 ? MQTT_OK : MQTT_UNSUPPORTED_LEVEL;
}

static bool flags_ok(uint8_t flags)
{
	uint8_t will_qos = flags >> WILL_QOS_SHIFT & WILL_QOS_MASK;

	if (flags & FLAG_RESERVED) /* [MQTT-3.1.2-3] */
		return false;
	/* [MQTT-3.1.2-11], -13, -15: no Will, nothing about it. */
	if (!(flags & FLAG_WILL) && (will_qos || (flags & FLAG_WILL_RETAIN)))
		return false;
	if (will_qos > MQTT_QOS_MAX) /* [MQTT-3.1.2-14] */
		return false;
	/* [MQTT-3.1.2-22]: no password without a user name. */
	return (flags & FLAG_USER_NAME) || !(flags & FLAG_PASSWORD);
}

static void flags_take(struct mqtt_connect *c, uint8_t flags)
{
	c->flags = flags;
	c->clean_session = flags & FLAG_CLEAN;
	c->has_will = flags & FLAG_WILL;
	c->will.qos = flags >> WILL_QOS_SHIFT & WILL_QOS_MASK;
	c->will.retain = flags & FLAG_WILL_RETAIN;
	c->has_user_name = flags & FLAG_USER_NAME;
	c->has_password = flags & FLAG_PASSWORD;
}

/* The order is fixed [MQTT-3.1.3-1]; a field is there if and only if its flag is. */
static void read_payload(struct bytes_reader *r, struct mqtt_connect *c)
{
	c->client_id = bytes_read_u16_view(r);
	if (c->has_will) {
		c->will.topic = bytes_read_u16_view(r);
		c->will.payload = bytes_read_u16_view(r);
	}
	if (c->has_user_name)
		c->user_name = bytes_read_u16_view(r);
	if (c->has_password)
		c->password = bytes_read_u16_view(r);
}

static enum mqtt_reason payload_check(const struct mqtt_connect *c)
{
	enum mqtt_reason reason;

	/* [MQTT-3.1.3-4] client id, [MQTT-3.1.3-11] user name; the password is any bytes. */
	if (!mqtt_utf8_ok(c->client_id) || !mqtt_utf8_ok(c->user_name))
		return MQTT_MALFORMED;
	if (c->has_will) {
		reason = mqtt_topic_name_check(c->will.topic); /* [MQTT-3.1.3-10] */
		if (reason != MQTT_OK)
			return reason;
	}
	/* [MQTT-3.1.3-7], [MQTT-3.1.3-8]: a kept session needs a name. */
	if (c->client_id.n == 0 && !c->clean_session)
		return MQTT_IDENTIFIER_REJECTED;
	return MQTT_OK;
}

enum mqtt_reason mqtt_decode_connect(struct bytes body, struct mqtt_connect *ret_c)
{
	struct bytes_reader r = bytes_reader_of(body);
	struct bytes name = bytes_read_u16_view(&r);
	struct mqtt_connect c = { .level = bytes_read_u8(&r) };
	enum mqtt_reason reason;
	uint8_t flags;

	if (r.bad)
		return MQTT_MALFORMED;
	reason = protocol_check(name, c.level);
	if (reason != MQTT_OK) /* what follows has another level's layout */
		return reason;
	flags = bytes_read_u8(&r);
	if (!flags_ok(flags))
		return MQTT_MALFORMED;
	flags_take(&c, flags);
	c.keepalive_s = bytes_read_u16(&r);
	read_payload(&r, &c);
	if (!bytes_read_done(&r))
		return MQTT_MALFORMED;
	reason = payload_check(&c);
	if (reason != MQTT_OK)
		return reason;
	*ret_c = c;
	return MQTT_OK;
}

static uint8_t flags_give(const struct mqtt_connect *c)
{
	uint8_t flags = 0;

	if (c->clean_session)
		flags |= FLAG_CLEAN;
	if (c->has_will)
		flags |= (uint8_t)(FLAG_WILL | c->will.qos << WILL_QOS_SHIFT |
				   (c->will.retain ? FLAG_WILL_RETAIN : 0));
	if (c->has_user_name)
		flags |= FLAG_USER_NAME;
	if (c->has_password)
		flags |= FLAG_PASSWORD;
	return flags;
}

/* A field's length on the wire; one that is too long is found when it is written. */
static size_t field_bytes(bool there, struct bytes field)
{
	return there ? sizeof(uint16_t) + field.n : 0;
}

void mqtt_encode_connect(const struct mqtt_connect *c, struct bytes_writer *w)
{
	uint8_t flags = flags_give(c);
	size_t body_n = HEADER_BYTES + field_bytes(true, c->client_id) +
			field_bytes(c->has_will, c->will.topic) +
			field_bytes(c->has_will, c->will.payload) +
			field_bytes(c->has_user_name, c->user_name) +
			field_bytes(c->has_password, c->password);

	w->bad |= (c->has_will && c->will.qos > MQTT_QOS_MAX) || !flags_ok(flags);
	w->bad |= c->properties.n > 0 || c->will.properties.n > 0; /* not in 3.1.1 */
	if (w->bad)
		return;
	mqtt_frame_begin(mqtt_frame_first(MQTT_CONNECT), body_n, w);
	bytes_write_u16_view(w, bytes_str("MQTT"));
	bytes_write_u8(w, c->level);
	bytes_write_u8(w, flags);
	bytes_write_u16(w, c->keepalive_s);
	bytes_write_u16_view(w, c->client_id);
	if (c->has_will) {
		bytes_write_u16_view(w, c->will.topic);
		bytes_write_u16_view(w, c->will.payload);
	}
	if (c->has_user_name)
		bytes_write_u16_view(w, c->user_name);
	if (c->has_password)
		bytes_write_u16_view(w, c->password);
}

/* A refusal has no session [MQTT-3.2.2-4]; codes above 5 are reserved (table 3.1). */
static bool connack_ok(uint8_t present, uint8_t code)
{
	return present <= 1 && code <= CONNACK_CODE_MAX && !(present && code);
}

enum mqtt_reason mqtt_decode_connack(struct bytes body, bool *ret_session_present,
				     uint8_t *ret_code)
{
	struct bytes_reader r = bytes_reader_of(body);
	uint8_t present = bytes_read_u8(&r);
	uint8_t code = bytes_read_u8(&r);

	if (!bytes_read_done(&r) || !connack_ok(present, code))
		return MQTT_MALFORMED;
	*ret_session_present = present;
	*ret_code = code;
	return MQTT_OK;
}

void mqtt_encode_connack(bool session_present, uint8_t code, struct bytes_writer *w)
{
	w->bad |= !connack_ok(session_present, code);
	mqtt_frame_begin(mqtt_frame_first(MQTT_CONNACK), CONNACK_BYTES, w);
	bytes_write_u8(w, session_present);
	bytes_write_u8(w, code);
}
