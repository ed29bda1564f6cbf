// SPDX-License-Identifier: MIT
#include "userspace/mqtt/frame.h"

enum mqtt_reason mqtt_decode_ack(struct bytes body, uint16_t *ret_packet_id)
{
	struct bytes_reader r = bytes_reader_of(body);
	uint16_t id = bytes_read_u16(&r);

	/* It repeats the id of a packet that had one, so it is not 0: [MQTT-2.3.1-1], -6, -7. */
	if (!bytes_read_done(&r) || id == 0)
		return MQTT_MALFORMED;
	*ret_packet_id = id;
	return MQTT_OK;
}

enum mqtt_reason mqtt_decode_empty(struct bytes body)
{
	return body.n ? MQTT_MALFORMED : MQTT_OK;
}

void mqtt_encode_ack(enum mqtt_type type, uint16_t packet_id, struct bytes_writer *w)
{
	BUG_ON(type != MQTT_PUBACK && type != MQTT_PUBREC && type != MQTT_PUBREL &&
	       type != MQTT_PUBCOMP && type != MQTT_UNSUBACK);
	w->bad |= packet_id == 0;
	mqtt_frame_begin(mqtt_frame_first(type), sizeof(packet_id), w);
	bytes_write_u16(w, packet_id);
}

void mqtt_encode_empty(enum mqtt_type type, struct bytes_writer *w)
{
	BUG_ON(type != MQTT_PINGREQ && type != MQTT_PINGRESP && type != MQTT_DISCONNECT);
	mqtt_frame_begin(mqtt_frame_first(type), 0, w);
}
