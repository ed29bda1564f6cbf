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

struct message *message_new(struct pool *pool, const struct mqtt_publish *p, struct bytes origin,
			    bool sealed)
{
	size_t head = sizeof(struct message) + (sealed ? sizeof(struct message_sealed) : 0);
	struct message *m = pool_alloc(pool, head + p->topic.n + p->payload.n + origin.n);
	uint8_t *at;

	if (!m)
		return NULL;
	memset(m, 0, head);
	at = (uint8_t *)m + head;
	m->refs = 1;
	m->qos = p->qos;
	m->retain = p->retain;
	m->topic = append(&at, p->topic);
	m->payload = append(&at, p->payload);
	m->body = m->payload;
	if (sealed) {
		m->sealed = (struct message_sealed *)(m + 1);
		m->sealed->first = mqtt_publish_first(p->qos, p->retain, false);
		m->sealed->origin = append(&at, origin);
	}
	return m;
}

struct message *message_get(struct message *m)
{
	m->refs++;
	return m;
}

void message_put(struct pool *pool, struct message *m)
{
	if (m && --m->refs == 0)
		pool_free(pool, m);
}

size_t message_bytes(const struct message *m)
{
	return sizeof(*m) + m->topic.n + m->payload.n +
	       (m->sealed ? sizeof(*m->sealed) + m->sealed->origin.n : 0);
}
