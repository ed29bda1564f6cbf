// SPDX-License-Identifier: MIT
#include "userspace/broker/message.h"

#include <string.h>

/* Appends v to the block and returns the view of the copy. */
static struct bytes append(uint8_t **at, struct bytes v)
{
	struct bytes copy = bytes_of(*at, v.n);

	if (v.n)
		memcpy(*at, v.p, v.n);
	*at += v.n;
	return copy;
}

static struct message *sealed_new(struct pool *pool, const struct mqtt_publish *p,
				  struct bytes origin)
{
	const size_t head = sizeof(struct message) + sizeof(struct message_sealed);
	struct message *m = pool_alloc(pool, head + p->topic.n + p->payload.n + origin.n);
	uint8_t *at;

	if (!m)
		return NULL;
	memset(m, 0, head);
	at = (uint8_t *)m + head;
	m->topic = append(&at, p->topic);
	m->payload = append(&at, p->payload);
	m->sealed = (struct message_sealed *)(m + 1);
	m->sealed->first = mqtt_publish_first(p->qos, p->retain, false);
	m->sealed->origin = append(&at, origin);
	return m;
}

/* Encodes p at this QoS into memory of mqtt_publish_bytes(). */
static struct message_form form_at(struct bytes topic, struct bytes payload, uint8_t qos,
				   uint8_t *memory, size_t n)
{
	const struct mqtt_publish p = {
		.qos = qos,
		.topic = topic,
		.packet_id = qos ? 1 : 0, /* each receiver's own goes there */
		.payload = payload,
	};
	struct bytes_writer w = bytes_writer_of(memory, n);

	mqtt_encode_publish(&p, &w);
	BUG_ON(w.bad || w.left);
	return (struct message_form){
		.packet = bytes_of(memory, n),
		.id_at = qos ? (uint32_t)(n - payload.n - sizeof(uint16_t)) : 0,
		.qos = qos,
	};
}

static struct message *plain_new(struct pool *pool, const struct mqtt_publish *p)
{
	size_t n = mqtt_publish_bytes(p->topic.n, p->payload.n, p->qos);
	struct message *m = n ? pool_alloc(pool, sizeof(*m) + n) : NULL;
	const struct bytes *packet;
	size_t behind;

	if (!m)
		return NULL;
	memset(m, 0, sizeof(*m));
	m->form = form_at(p->topic, p->payload, p->qos, (uint8_t *)(m + 1), n);
	packet = &m->form.packet;
	behind = p->payload.n + (p->qos ? sizeof(uint16_t) : 0); /* the topic */
	m->topic = bytes_of(packet->p + packet->n - behind - p->topic.n, p->topic.n);
	m->payload = bytes_of(packet->p + packet->n - p->payload.n, p->payload.n);
	return m;
}

struct message *message_new(struct pool *pool, const struct mqtt_publish *p, struct bytes origin,
			    bool sealed)
{
	struct message *m = sealed ? sealed_new(pool, p, origin) : plain_new(pool, p);

	if (!m)
		return NULL;
	m->refs = 1;
	m->qos = p->qos;
	m->retain = p->retain;
	m->body = m->payload;
	return m;
}

const struct message_form *message_form(struct pool *pool, struct message *m, uint8_t qos)
{
	struct message_form *form = &m->form;
	size_t n;

	BUG_ON(m->sealed);
	do {
		if (form->qos == qos)
			return form;
		form = form->next;
	} while (form);
	n = mqtt_publish_bytes(m->topic.n, m->payload.n, qos);
	form = n ? pool_alloc(pool, sizeof(*form) + n) : NULL;
	if (!form)
		return NULL;
	*form = form_at(m->topic, m->payload, qos, (uint8_t *)(form + 1), n);
	form->next = m->form.next;
	m->form.next = form;
	return form;
}

struct bytes message_form_shared(const struct message *m, const struct message_form *form)
{
	size_t n = m->payload.n >= MESSAGE_SHARED_BYTES_MIN ? m->payload.n : 0;

	return bytes_of(form->packet.p + form->packet.n - n, n);
}

void message_form_write(const struct message *m, const struct message_form *form, bool dup,
			bool retain, uint16_t packet_id, uint8_t *out)
{
	memcpy(out, form->packet.p, form->packet.n - message_form_shared(m, form).n);
	out[0] = mqtt_publish_first(form->qos, retain, dup);
	if (form->id_at) {
		out[form->id_at] = (uint8_t)(packet_id >> 8);
		out[form->id_at + 1] = (uint8_t)packet_id;
	}
}

struct message *message_get(struct message *m)
{
	m->refs++;
	return m;
}

void message_put(struct pool *pool, struct message *m)
{
	if (!m || --m->refs > 0)
		return;
	while (m->form.next) {
		struct message_form *form = m->form.next;

		m->form.next = form->next;
		pool_free(pool, form);
	}
	pool_free(pool, m);
}

size_t message_bytes(const struct message *m)
{
	return sizeof(*m) + m->topic.n + m->payload.n +
	       (m->sealed ? sizeof(*m->sealed) + m->sealed->origin.n : 0);
}
