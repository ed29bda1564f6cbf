// SPDX-License-Identifier: MIT
#include "bench/lab/exchange.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "userspace/mqtt/packet.h"

#define KEEPALIVE_S   1200 /* nobody pings: longer than any measurement */
#define PLAIN_ID_MAX  32
#define CODE_ACCEPTED 0

static struct bytes_writer out_writer(struct exchange *x)
{
	return bytes_writer_of(x->out + x->out_n, sizeof(x->out) - x->out_n);
}

static int write_connect(struct exchange *x, const struct mqtt_connect *c)
{
	struct bytes_writer w = out_writer(x);

	mqtt_encode_connect(c, &w);
	if (w.bad)
		return -ENOBUFS;
	x->out_n += w.used;
	return 0;
}

int exchange_begin(struct exchange *x, struct device *d, uint64_t number)
{
	struct ssdtf_connect params = { .clean_session = true };
	struct mqtt_connect c = { .level = SSDTF_MQTT_LEVEL,
				  .clean_session = true,
				  .keepalive_s = KEEPALIVE_S };
	char id[PLAIN_ID_MAX];
	int ret;

	x->device = d;
	x->state = EXCHANGE_GOING;
	x->out_n = x->in_n = 0;
	if (!d) {
		snprintf(id, sizeof(id), "bench-%" PRIu64, number);
		c.client_id = bytes_str(id);
		return write_connect(x, &c);
	}
	BUG_ON(d->exchange);
	ret = ssdtf_connect_params(&d->client, &params, device_time());
	if (ret)
		return ret;
	d->exchange = x;
	c.client_id = ssdtf_id(&d->client);
	c.has_user_name = c.has_password = true;
	c.user_name = bytes_str(params.user_name);
	c.password = bytes_of(params.password, sizeof(params.password));
	return write_connect(x, &c);
}

int exchange_publish(struct exchange *x, struct bytes topic, struct bytes payload, uint8_t qos,
		     bool retain)
{
	const struct mqtt_publish p = {
		.retain = retain, .qos = qos, .topic = topic, .payload = payload
	};
	struct bytes_writer w = out_writer(x);

	mqtt_encode_publish(&p, &w);
	if (w.bad)
		return -ENOBUFS;
	x->out_n += w.used;
	return 0;
}

static enum exchange_state take_connack(struct exchange *x, struct bytes body)
{
	bool present;
	uint8_t code;

	if (mqtt_decode_connack(body, &present, &code))
		return EXCHANGE_FAILED;
	if (code != CODE_ACCEPTED)
		return EXCHANGE_REFUSED;
	if (!x->device)
		return EXCHANGE_DONE;
	ssdtf_on_connect(&x->device->client);
	return EXCHANGE_GOING;
}

static enum exchange_state take_publish(struct exchange *x, const struct mqtt_frame *f)
{
	uint8_t plain[EXCHANGE_BYTES_MAX];
	struct ssdtf_packet packet;
	struct mqtt_publish p;
	struct ssdtf_event event;

	if (!x->device || mqtt_decode_publish(f, &p))
		return EXCHANGE_FAILED;
	packet = (struct ssdtf_packet){
		.topic = p.topic, .payload = p.payload, .qos = p.qos, .retain = p.retain
	};
	if (ssdtf_on_message(&x->device->client, &packet, device_time(), plain, sizeof(plain),
			     &event))
		return EXCHANGE_FAILED;
	switch (event.kind) {
	case SSDTF_NOTHING:
		return EXCHANGE_GOING;
	case SSDTF_AUTHENTICATED:
		return EXCHANGE_DONE;
	case SSDTF_AUTH_FAILED:
	case SSDTF_MESSAGE:
	case SSDTF_REPLAYED:
	case SSDTF_UNOPENED:
	case SSDTF_ERROR:
	case SSDTF_REPORTED:
	case SSDTF_UPDATED:
	case SSDTF_CLAIMED:
	case SSDTF_IGNORED:
		return EXCHANGE_FAILED;
	}
	return EXCHANGE_FAILED;
}

static enum exchange_state take_frame(struct exchange *x, const struct mqtt_frame *f)
{
	if (mqtt_frame_type(f) == MQTT_CONNACK)
		return take_connack(x, f->body);
	if (mqtt_frame_type(f) == MQTT_PUBLISH)
		return take_publish(x, f);
	return EXCHANGE_FAILED;
}

struct bytes_writer exchange_room(struct exchange *x)
{
	return bytes_writer_of(x->in + x->in_n, sizeof(x->in) - x->in_n);
}

void exchange_take(struct exchange *x, size_t n)
{
	size_t at = 0;

	BUG_ON(n > sizeof(x->in) - x->in_n);
	x->in_n += n;
	while (x->state == EXCHANGE_GOING) {
		struct mqtt_frame f;
		size_t used, need;

		if (mqtt_frame_next(bytes_of(x->in + at, x->in_n - at), sizeof(x->in), &f, &used,
				    &need)) {
			x->state = EXCHANGE_FAILED;
			break;
		}
		if (!used)
			break;
		x->state = take_frame(x, &f);
		at += used;
	}
	memmove(x->in, x->in + at, x->in_n - at);
	x->in_n -= at;
}

void exchange_end(struct exchange *x)
{
	if (!x->device)
		return;
	ssdtf_on_disconnect(&x->device->client);
	x->device->exchange = NULL;
	x->device = NULL;
}
