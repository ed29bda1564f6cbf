// SPDX-License-Identifier: MIT
/*
 * Each receiver subscribes, is sent every retained message, and subscribes again, which sends them
 * anew [MQTT-3.8.4-3]: a storm that lasts as long as one likes.
 */
#include <stdlib.h>
#include <string.h>

#include "bench/flow/clients_impl.h"

#define STUCK_NS  (2 * CLIENTS_NS_PER_S)
#define LOOK_NS	  (CLIENTS_NS_PER_S / 2)
#define WORD_BITS 64

/* --- before ----------------------------------------------------------------------------------- */

static size_t words(const struct clients *c)
{
	return (c->s->topics + WORD_BITS - 1) / WORD_BITS;
}

/* The one sender's messages, a topic each, as a tape of what there is to be sent. */
void retained_tape(struct clients *c, struct sender *s)
{
	struct mqtt_publish p = { .retain = true, .qos = (uint8_t)topics_publish_qos(c->s) };
	size_t payload = c->s->payload, room;
	char topic[TOPICS_BYTES];
	struct bytes_writer w;
	uint64_t *ends;

	p.topic = topics_write(0, topic);
	room = mqtt_publish_bytes(p.topic.n, payload, p.qos) * c->s->topics;
	ends = calloc(c->s->topics, sizeof(*ends));
	s->owned = calloc(1, room);
	s->owned_ends = ends;
	if (!ends || !s->owned)
		clients_fail(c, "no memory for %u messages", c->s->topics);
	w = bytes_writer_of(s->owned, room);
	for (unsigned i = 0; i < c->s->topics; i++) {
		p.topic = topics_write(i, topic);
		p.packet_id = tape_packet_id(i);
		tape_write(&w, &p, payload, 0, i);
		BUG_ON(w.bad);
		ends[i] = w.used;
	}
	tape_all(&s->tape, s->owned, ends, c->s->topics);
}

static bool published(struct clients *c)
{
	return c->senders[0].acked >= c->s->topics;
}

void retained_publish(struct clients *c)
{
	c->publishing = true;
	c->senders[0].due = c->s->topics;
	sender_list(c, &c->senders[0]);
	clients_until(c, "publishing what is retained", published);
	c->publishing = false;
	c->sent = c->expected = 0; /* it is what follows that counts */
	for (unsigned i = 0; i < c->n_receivers; i++) {
		c->receivers[i].got = calloc(words(c), sizeof(uint64_t));
		if (!c->receivers[i].got)
			clients_fail(c, "no memory for %u receivers", c->n_receivers);
	}
}

/* --- the storm -------------------------------------------------------------------------------- */

static void again(struct clients *c, struct receiver *r)
{
	memset(r->got, 0, words(c) * sizeof(uint64_t));
	r->n_got = 0;
	r->moved_ns = c->now_ns;
	if (r->link->state != LINK_OPEN ||
	    atomic_load_explicit(&c->shared->order, memory_order_relaxed) >= CLIENTS_DRAIN)
		return;
	c->sent++;
	c->expected += c->s->topics;
	receiver_subscribe(c, r);
}

static bool right(const struct clients *c, const struct mqtt_publish *p, uint32_t number)
{
	uint64_t marked;
	uint32_t sender;

	if (!p->retain)
		return false;
	if (c->o->receivers)
		return receiver_counter(p->payload) == (uint64_t)number + 1;
	return p->payload.n == c->s->payload && tape_read_mark(p->payload, &sender, &marked) &&
	       sender == 0 && marked == number;
}

void retained_take(struct clients *c, struct receiver *r, const struct mqtt_publish *p)
{
	uint32_t number;
	uint64_t bit;

	if (!topics_read(p->topic, &number) || number >= c->s->topics || !right(c, p, number)) {
		c->wrong++;
		return;
	}
	bit = 1ull << number % WORD_BITS;
	if (r->got[number / WORD_BITS] & bit) {
		c->duplicated++;
		return;
	}
	r->got[number / WORD_BITS] |= bit;
	r->n_got++;
	r->moved_ns = c->now_ns;
	c->delivered++;
	if (r->sample.room && sample_wants(&r->sample))
		sample_keep(&r->sample, p);
	if (r->n_got == c->s->topics)
		again(c, r);
}

/* What does not come is lost, and the receiver asks anew. */
static void unstick(struct clients *c)
{
	for (unsigned i = 0; i < c->n_receivers; i++) {
		struct receiver *r = &c->receivers[i];

		if (c->now_ns - r->moved_ns > STUCK_NS)
			again(c, r);
	}
}

void retained_run(struct clients *c)
{
	uint64_t looked;

	c->now_ns = looked = clients_now_ns();
	for (unsigned i = 0; i < c->n_receivers; i++)
		again(c, &c->receivers[i]);
	while (atomic_load(&c->shared->order) < CLIENTS_DRAIN) {
		clients_turn(c, UINT64_MAX);
		if (c->now_ns - looked < LOOK_NS)
			continue;
		unstick(c);
		looked = c->now_ns;
	}
}
