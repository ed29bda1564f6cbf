// SPDX-License-Identifier: MIT
#include <string.h>

#include "bench/flow/clients_impl.h"

#define OWN_TOPICS "$SSDTF/"

bool clients_read_publish(const struct mqtt_frame *f, struct mqtt_publish *ret_p)
{
	struct bytes_reader r = bytes_reader_of(f->body);
	struct mqtt_publish p = { .retain = f->first & 1, .qos = f->first >> 1 & 3 };

	p.topic = bytes_read_u16_view(&r);
	if (p.qos)
		p.packet_id = bytes_read_u16(&r);
	p.payload = bytes_read_rest(&r);
	if (r.bad)
		return false;
	*ret_p = p;
	return true;
}

bool clients_control(struct clients *c, struct link *l, const struct mqtt_publish *p)
{
	const struct ssdtf_packet packet = {
		.topic = p->topic, .payload = p->payload, .qos = p->qos, .retain = p->retain
	};
	uint8_t plain[EXCHANGE_BYTES_MAX];
	struct ssdtf_event event;

	if (!l->exchange || !l->exchange->device || p->topic.n < strlen(OWN_TOPICS) ||
	    memcmp(p->topic.p, OWN_TOPICS, strlen(OWN_TOPICS)))
		return false;
	if (!ssdtf_on_message(&l->exchange->device->client, &packet, device_time(), plain,
			      sizeof(plain), &event) &&
	    event.kind == SSDTF_ERROR && !c->shared->refused)
		c->shared->refused = event.reason;
	return true;
}
