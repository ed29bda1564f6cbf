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

/* adopt: topic and payload stay where they are. */
static struct message *sealed_new(struct pool *pool, const struct mqtt_publish *p,
				  struct bytes origin, bool adopt)
{
	const size_t head = sizeof(struct message) + sizeof(struct message_sealed);
	size_t copied = adopt ? 0 : p->topic.n + p->payload.n;
	struct message *m = pool_alloc(pool, head + copied + origin.n);
	uint8_t *at;

	if (!m)
		return NULL;
	memset(m, 0, head);
	at = (uint8_t *)m + head;
	m->topic = adopt ? p->topic : append(&at, p->topic);
	m->payload = adopt ? p->payload : append(&at, p->payload);
	m->sealed = (struct message_sealed *)(m + 1);
	m->sealed->first = mqtt_publish_first(p->qos, p->retain, false);
	m->sealed->sender = m->sealed->origin = append(&at, origin);
	return m;
}

/* A form of n bytes, in memory of as many. */
static struct message_form form_at(struct bytes topic, size_t payload_n, uint8_t qos,
				   uint8_t *memory, size_t n)
{
	const struct mqtt_publish p = {
		.qos = qos,
		.topic = topic,
		.packet_id = qos ? 1 : 0, /* each receiver's own goes there */
	};
	struct bytes_writer w = bytes_writer_of(memory, n);

	mqtt_encode_publish_head(&p, payload_n, &w);
	BUG_ON(w.bad || w.left);
	return (struct message_form){
		.head = bytes_of(memory, n),
		.id_at = qos ? (uint32_t)(n - sizeof(uint16_t)) : 0,
		.qos = qos,
	};
}

static struct message *plain_new(struct pool *pool, const struct mqtt_publish *p)
{
	size_t n = mqtt_publish_bytes(p->topic.n, p->payload.n, p->qos);
	struct message *m = n ? pool_alloc(pool, sizeof(*m) + n) : NULL;
	const struct bytes *head;
	uint8_t *at;

	if (!m)
		return NULL;
	memset(m, 0, sizeof(*m));
	at = (uint8_t *)(m + 1);
	m->form = form_at(p->topic, p->payload.n, p->qos, at, n - p->payload.n);
	head = &m->form.head;
	m->topic = bytes_of(head->p + head->n - (p->qos ? sizeof(uint16_t) : 0) - p->topic.n,
			    p->topic.n);
	at += head->n;
	m->payload = append(&at, p->payload);
	return m;
}

static struct message *plain_adopt(struct pool *pool, const struct mqtt_publish *p,
				   struct bytes head)
{
	struct message *m = pool_zalloc(pool, sizeof(*m));

	if (!m)
		return NULL;
	m->topic = p->topic;
	m->payload = p->payload;
	m->form = (struct message_form){
		.head = head,
		.id_at = p->qos ? (uint32_t)(head.n - sizeof(uint16_t)) : 0,
		.qos = p->qos,
	};
	return m;
}

static struct message *begin(struct message *m, const struct mqtt_publish *p)
{
	if (!m)
		return NULL;
	m->refs = 1;
	m->qos = p->qos;
	m->retain = p->retain;
	m->body = m->payload;
	return m;
}

struct message *message_new(struct pool *pool, const struct mqtt_publish *p, struct bytes origin,
			    bool sealed)
{
	return begin(sealed ? sealed_new(pool, p, origin, false) : plain_new(pool, p), p);
}

struct message *message_adopt(struct pool *pool, const struct mqtt_publish *p, uint8_t *packet,
			      size_t packet_n, struct bytes origin, bool sealed)
{
	struct message *m =
		sealed ? sealed_new(pool, p, origin, true)
		       : plain_adopt(pool, p, bytes_of(packet, packet_n - p->payload.n));

	if (m)
		m->adopted = packet;
	return begin(m, p);
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
	n = mqtt_publish_bytes(m->topic.n, m->payload.n, qos) - m->payload.n; /* fits as it did */
	form = pool_alloc(pool, sizeof(*form) + n);
	if (!form)
		return NULL;
	*form = form_at(m->topic, m->payload.n, qos, (uint8_t *)(form + 1), n);
	form->next = m->form.next;
	m->form.next = form;
	return form;
}

void message_form_write(const struct message *m, const struct message_form *form, bool dup,
			bool retain, uint16_t packet_id, uint8_t *out)
{
	memcpy(out, form->head.p, form->head.n);
	out[0] = mqtt_publish_first(form->qos, retain, dup);
	if (form->id_at) {
		out[form->id_at] = (uint8_t)(packet_id >> 8);
		out[form->id_at + 1] = (uint8_t)packet_id;
	}
	if (m->payload.n && !message_shared(m).n)
		memcpy(out + form->head.n, m->payload.p, m->payload.n);
}

void message_opened(struct message *m, const struct publish_trailer *t, const struct envelope *e,
		    const struct p256_point *point)
{
	m->body = t->body;
	m->sealed->envelope = *e;
	m->sealed->trailer = t->trailer;
	m->sealed->e = *point;
	if (e->level > 0)
		m->sealed->origin = e->origin;
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
	pool_free(pool, m->durable);
	pool_free(pool, m->adopted);
	pool_free(pool, m);
}

size_t message_bytes(const struct message *m)
{
	return sizeof(*m) + m->topic.n + m->payload.n +
	       (m->sealed ? sizeof(*m->sealed) + m->sealed->sender.n : 0);
}
