// SPDX-License-Identifier: MIT
#include "userspace/broker/route.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"

int route_init(struct broker *b)
{
	struct route *r = &b->route;

	memset(r, 0, sizeof(*r));
	list_init(&r->kept);
	r->subscriptions = trie_new(b->config.hash_key);
	r->retained = topicmap_new(b->config.hash_key);
	return r->subscriptions && r->retained ? 0 : -ENOMEM;
}

static void retained_free(struct broker *b, struct route_retained *kept)
{
	topicmap_remove(b->route.retained, &kept->entry);
	list_del(&kept->link);
	message_put(&b->pool, kept->message);
	pool_free(&b->pool, kept);
	b->route.n_retained--;
}

void route_deinit(struct broker *b)
{
	struct route *r = &b->route;

	while (!list_empty(&r->kept))
		retained_free(b, list_first(&r->kept, struct route_retained, link));
	topicmap_free(r->retained);
	trie_free(r->subscriptions);
	free(r->found);
}

/* A retained message of no content clears the topic [MQTT-3.3.1-10]. Sealed, "no content" is a
 * ciphertext that is nothing but its tag. */
static bool is_empty(const struct message *m)
{
	return m->sealed ? m->sealed->envelope.ct.n == HPKE_TAG_BYTES : m->payload.n == 0;
}

static void retain(struct broker *b, struct message *m)
{
	struct topicmap_entry *old = topicmap_get(b->route.retained, m->topic);
	struct route_retained *kept = old ? container_of(old, struct route_retained, entry) : NULL;

	if (kept && !is_empty(m)) {
		message_put(&b->pool, kept->message);
		kept->message = message_get(m);
		return;
	}
	if (is_empty(m)) {
		if (kept)
			retained_free(b, kept);
		return;
	}
	kept = b->route.n_retained < b->config.limits.retained_max
		       ? pool_zalloc(&b->pool, sizeof(*kept))
		       : NULL;
	if (!kept || topicmap_put(b->route.retained, m->topic, &kept->entry, &old)) {
		pool_free(&b->pool, kept);
		broker_note(b, "not retained", bytes_of(NULL, 0), "too many retained messages");
		return;
	}
	kept->message = message_get(m);
	list_add_tail(&b->route.kept, &kept->link);
	b->route.n_retained++;
}

/* A session with several matching subscriptions is found once, with the highest QoS
 * [MQTT-3.3.5-1]. */
static void found(void *ctx, struct trie_sub *sub)
{
	struct broker *b = ctx;
	struct route *r = &b->route;
	struct session *s = sub->owner;

	if (s->route_seq == r->seq) {
		if (sub->qos > s->route_qos)
			s->route_qos = sub->qos;
		return;
	}
	if (r->n_found == r->room_found) {
		unsigned room = r->room_found ? 2 * r->room_found : 256;
		struct session **bigger = realloc(r->found, room * sizeof(*bigger));

		if (!bigger) {
			b->stats.dropped_full++;
			return;
		}
		r->found = bigger;
		r->room_found = room;
	}
	s->route_seq = r->seq;
	s->route_qos = sub->qos;
	r->found[r->n_found++] = s;
}

void route_message(struct broker *b, struct message *m, struct broker_conn *from)
{
	struct route *r = &b->route;

	/* A client's message under the broker's own name goes nowhere. In plain mode, which has no
	 * other answer, it is acknowledged all the same [MQTT-3.3.5-2]. */
	if (sys_is_topic(m->topic)) {
		b->stats.refused[CONTROL_NOT_PERMITTED]++;
		return;
	}
	if (m->retain)
		retain(b, m);
	r->seq++;
	r->n_found = 0;
	trie_match(r->subscriptions, m->topic, found, b);
	for (unsigned i = 0; i < r->n_found; i++) {
		struct session *s = r->found[i];

		session_enqueue(b, s, m, s->route_qos < m->qos ? s->route_qos : m->qos, false);
		/* One that others wait for is not paused: its acknowledgements would not be read,
		 * and two could wait for each other. */
		if (from && from->state == CONN_OPEN && list_empty(&from->blocked) &&
		    list_empty(&from->session->blocked) && from != s->conn &&
		    session_congested(b, s))
			session_block(b, s, from);
	}
}

struct retained_to {
	struct broker *broker;
	struct session *session;
	uint8_t qos;
};

static void send_one(void *ctx, struct topicmap_entry *entry)
{
	struct retained_to *to = ctx;
	struct message *m = container_of(entry, struct route_retained, entry)->message;

	session_enqueue(to->broker, to->session, m, to->qos < m->qos ? to->qos : m->qos, true);
}

void route_send_retained(struct broker *b, struct session *s, struct bytes filter, uint8_t qos)
{
	struct retained_to to = { b, s, qos };

	topicmap_match(b->route.retained, filter, send_one, &to);
}

void broker_each_retained(const struct broker *b,
			  void (*each)(void *ctx, struct bytes topic, struct bytes body), void *ctx)
{
	struct list *pos;

	list_for_each(pos, &b->route.kept) {
		const struct message *m = list_entry(pos, struct route_retained, link)->message;

		each(ctx, m->topic, m->body);
	}
}
