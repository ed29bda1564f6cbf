// SPDX-License-Identifier: MIT
#include "userspace/mqtt/frame.h"
#include "userspace/mqtt/topic.h"

#define FLAG_RETAIN 0x01u
#define QOS_SHIFT   1
#define QOS_MASK    0x03u
#define FLAG_DUP    0x08u

static uint8_t qos_of(uint8_t first)
{
	return first >> QOS_SHIFT & QOS_MASK;
}

bool mqtt_publish_flags_ok(uint8_t first)
{
	uint8_t qos = qos_of(first);

	return qos <= MQTT_QOS_MAX && !(qos == 0 && (first & FLAG_DUP));
}

enum mqtt_reason mqtt_decode_publish(const struct mqtt_frame *f, struct mqtt_publish *ret_p)
{
	struct bytes_reader r = bytes_reader_of(f->body);
	struct mqtt_publish p = {
		.dup = f->first & FLAG_DUP,
		.retain = f->first & FLAG_RETAIN,
		.qos = qos_of(f->first),
	};
	enum mqtt_reason reason;

	if (!mqtt_publish_flags_ok(f->first))
		return MQTT_MALFORMED;
	p.topic = bytes_read_u16_view(&r);
	if (p.qos) /* [MQTT-2.3.1-5]: none at QoS 0 */
		p.packet_id = bytes_read_u16(&r);
	p.payload = bytes_read_rest(&r); /* may be empty (3.3.3) */
	if (!bytes_read_done(&r))
		return MQTT_MALFORMED;
	if (p.qos && p.packet_id == 0) /* [MQTT-2.3.1-1] */
		return MQTT_MALFORMED;
	reason = mqtt_topic_name_check(p.topic); /* [MQTT-3.3.2-1], [MQTT-3.3.2-2] */
	if (reason != MQTT_OK)
		return reason;
	*ret_p = p;
	return MQTT_OK;
}

/* What stands in front of the payload in the body. */
static size_t variable_header_bytes(size_t topic_n, uint8_t qos)
{
	return sizeof(uint16_t) + topic_n + (qos ? sizeof(uint16_t) : 0);
}

size_t mqtt_publish_bytes(size_t topic_n, size_t payload_n, uint8_t qos)
{
	/* Each bounded before they are added, so that the sum cannot wrap. */
	if (topic_n > UINT16_MAX || payload_n > MQTT_PACKET_BYTES_MAX)
		return 0;
	return mqtt_frame_bytes(variable_header_bytes(topic_n, qos) + payload_n);
}

void mqtt_encode_publish_head(const struct mqtt_publish *p, size_t payload_n,
			      struct bytes_writer *w)
{
	uint8_t first = mqtt_publish_first(p->qos, p->retain, p->dup);

	w->bad |= p->qos > MQTT_QOS_MAX || !mqtt_publish_flags_ok(first);
	w->bad |= p->qos > 0 && p->packet_id == 0;
	w->bad |= p->properties.n > 0; /* 3.1.1 has no place for them */
	w->bad |= mqtt_publish_bytes(p->topic.n, payload_n, p->qos) == 0;
	if (w->bad)
		return;
	mqtt_frame_begin(first, variable_header_bytes(p->topic.n, p->qos) + payload_n, w);
	bytes_write_u16_view(w, p->topic);
	if (p->qos)
		bytes_write_u16(w, p->packet_id);
}

void mqtt_encode_publish(const struct mqtt_publish *p, struct bytes_writer *w)
{
	mqtt_encode_publish_head(p, p->payload.n, w);
	bytes_write(w, p->payload);
}
