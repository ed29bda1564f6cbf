// SPDX-License-Identifier: MIT
/*
 * SUBSCRIBE, SUBACK and UNSUBSCRIBE (UNSUBACK is an id alone: ack.c).
 *
 *	SUBSCRIBE body     u16 packet id | (2+filter | QoS) once or more
 *	SUBACK body        u16 packet id | return code once or more, in the order of the filters
 *	UNSUBSCRIBE body   u16 packet id | (2+filter) once or more
 */
#include "userspace/mqtt/frame.h"
#include "userspace/mqtt/topic.h"

#define SUBACK_FAILURE 0x80

enum mqtt_reason mqtt_decode_subscribe(struct bytes body, struct mqtt_subscribe *ret_s)
{
	struct bytes_reader r = bytes_reader_of(body);
	struct mqtt_subscribe s = { .packet_id = bytes_read_u16(&r) };
	enum mqtt_reason reason;

	if (s.packet_id == 0) /* [MQTT-2.3.1-1], or no id at all */
		return MQTT_MALFORMED;
	while (r.left) {
		struct mqtt_subscription one;

		one.filter = bytes_read_u16_view(&r);
		one.qos = bytes_read_u8(&r);
		if (r.bad || one.qos > MQTT_QOS_MAX) /* [MQTT-3-8.3-4], reserved bits too */
			return MQTT_MALFORMED;
		if (s.n == MQTT_FILTERS_MAX)
			return MQTT_TOO_LARGE;
		reason = mqtt_topic_filter_check(one.filter); /* [MQTT-3.8.3-1] */
		if (reason != MQTT_OK)
			return reason;
		s.list[s.n++] = one;
	}
	if (s.n == 0) /* [MQTT-3.8.3-3] */
		return MQTT_PROTOCOL_ERROR;
	*ret_s = s;
	return MQTT_OK;
}

enum mqtt_reason mqtt_decode_unsubscribe(struct bytes body, struct mqtt_unsubscribe *ret_u)
{
	struct bytes_reader r = bytes_reader_of(body);
	struct mqtt_unsubscribe u = { .packet_id = bytes_read_u16(&r) };
	enum mqtt_reason reason;

	if (u.packet_id == 0) /* [MQTT-2.3.1-1], or no id at all */
		return MQTT_MALFORMED;
	while (r.left) {
		struct bytes filter = bytes_read_u16_view(&r);

		if (r.bad)
			return MQTT_MALFORMED;
		if (u.n == MQTT_FILTERS_MAX)
			return MQTT_TOO_LARGE;
		reason = mqtt_topic_filter_check(filter); /* [MQTT-3.10.3-1] */
		if (reason != MQTT_OK)
			return reason;
		u.filters[u.n++] = filter;
	}
	if (u.n == 0) /* [MQTT-3.10.3-2] */
		return MQTT_PROTOCOL_ERROR;
	*ret_u = u;
	return MQTT_OK;
}

/* [MQTT-3.9.3-2] */
static bool suback_codes_ok(struct bytes codes)
{
	for (size_t i = 0; i < codes.n; i++)
		if (codes.p[i] > MQTT_QOS_MAX && codes.p[i] != SUBACK_FAILURE)
			return false;
	return codes.n > 0;
}

enum mqtt_reason mqtt_decode_suback(struct bytes body, uint16_t *ret_packet_id,
				    struct bytes *ret_codes)
{
	struct bytes_reader r = bytes_reader_of(body);
	uint16_t id = bytes_read_u16(&r);
	struct bytes codes = bytes_read_rest(&r);

	if (!bytes_read_done(&r) || id == 0 || !suback_codes_ok(codes))
		return MQTT_MALFORMED;
	*ret_packet_id = id;
	*ret_codes = codes;
	return MQTT_OK;
}

void mqtt_encode_subscribe(const struct mqtt_subscribe *s, struct bytes_writer *w)
{
	size_t body_n = sizeof(s->packet_id);

	w->bad |= s->packet_id == 0 || s->n == 0 || s->n > MQTT_FILTERS_MAX;
	for (unsigned i = 0; !w->bad && i < s->n; i++) {
		body_n += sizeof(uint16_t) + s->list[i].filter.n + sizeof(s->list[i].qos);
		w->bad |= s->list[i].qos > MQTT_QOS_MAX;
	}
	mqtt_frame_begin(mqtt_frame_first(MQTT_SUBSCRIBE), body_n, w);
	bytes_write_u16(w, s->packet_id);
	for (unsigned i = 0; !w->bad && i < s->n; i++) {
		bytes_write_u16_view(w, s->list[i].filter);
		bytes_write_u8(w, s->list[i].qos);
	}
}

void mqtt_encode_unsubscribe(const struct mqtt_unsubscribe *u, struct bytes_writer *w)
{
	size_t body_n = sizeof(u->packet_id);

	w->bad |= u->packet_id == 0 || u->n == 0 || u->n > MQTT_FILTERS_MAX;
	for (unsigned i = 0; !w->bad && i < u->n; i++)
		body_n += sizeof(uint16_t) + u->filters[i].n;
	mqtt_frame_begin(mqtt_frame_first(MQTT_UNSUBSCRIBE), body_n, w);
	bytes_write_u16(w, u->packet_id);
	for (unsigned i = 0; !w->bad && i < u->n; i++)
		bytes_write_u16_view(w, u->filters[i]);
}

void mqtt_encode_suback(uint16_t packet_id, const uint8_t *codes, size_t n, struct bytes_writer *w)
{
	w->bad |= packet_id == 0 || !suback_codes_ok(bytes_of(codes, n));
	w->bad |= n > MQTT_PACKET_BYTES_MAX - sizeof(packet_id);
	mqtt_frame_begin(mqtt_frame_first(MQTT_SUBACK), sizeof(packet_id) + n, w);
	bytes_write_u16(w, packet_id);
	bytes_write(w, bytes_of(codes, n));
}
