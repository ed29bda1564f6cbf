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
	r->subscriptions = trie_new(b->config.hash_key);
	return r->subscriptions ? 0 : -ENOMEM;
}

void route_deinit(struct broker *b)
{
	struct route *r = &b->route;

	trie_free(r->subscriptions);
	free(r->found);
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
		retained_put(b, m);
	r->seq++;
	r->n_found = 0;
	trie_match(r->subscriptions, m->topic, found, b);
	for (unsigned i = 0; i < r->n_found; i++) {
		struct session *s = r->found[i];

		delivery_enqueue(b, s, m, s->route_qos < m->qos ? s->route_qos : m->qos, false);
		/* One that others wait for is not paused: its acknowledgements would not be read,
		 * and two could wait for each other. */
		if (from && from->state == CONN_OPEN && list_empty(&from->blocked) &&
		    list_empty(&from->session->blocked) && from != s->conn &&
		    session_congested(b, s))
			session_block(b, s, from);
	}
}
