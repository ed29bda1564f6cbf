// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/flow/clients_impl.h"
#include "bench/flow/material.h"

#define RING_BYTES  (1u << 20) /* of an open loop, for each sender */
#define RING_MIN    4
#define RING_MAX    1024
#define UNACKED_MAX 60000 /* packet ids are 16 bits */
#define STUCK_NS    (2 * CLIENTS_NS_PER_S)

static uint64_t power_of_two(uint64_t n)
{
	uint64_t p = 1;

	while (p < n)
		p *= 2;
	return p;
}

static uint64_t slots_of(const struct clients *c)
{
	uint64_t n = RING_BYTES / (c->s->payload + TOPICS_BYTES);

	if (c->s->window)
		return c->s->window;
	return n < RING_MIN ? RING_MIN : n > RING_MAX ? RING_MAX : n;
}

static void tape_make(struct clients *c, struct sender *s, unsigned i)
{
	char topic[TOPICS_BYTES];

	if (c->o->material) {
		material_tape(c->o->material, i, &s->tape);
		return;
	}
	if (c->s->kind == SCENARIO_RETAINED) {
		retained_tape(c, s);
		return;
	}
	if (tape_ring_new(&s->tape, topics_write(i, topic), (uint8_t)topics_publish_qos(c->s),
			  c->s->payload, i, slots_of(c)))
		clients_fail(c, "no memory for what sender %u sends", i);
}

void senders_make(struct clients *c)
{
	c->senders = calloc(c->n_senders ? c->n_senders : 1, sizeof(c->senders[0]));
	if (!c->senders)
		clients_fail(c, "no memory for %u senders", c->n_senders);
	for (unsigned i = 0; i < c->n_senders; i++) {
		struct sender *s = &c->senders[i];

		s->link = &c->links[c->n_idle + c->n_others + c->n_receivers + i];
		tape_make(c, s, i);
		s->link->tape = &s->tape;
		if (c->copies == 1 || !c->s->window)
			continue;
		s->copies_n = power_of_two(c->s->window);
		s->copies = calloc(s->copies_n, sizeof(s->copies[0]));
		if (!s->copies)
			clients_fail(c, "no memory for the window");
	}
}

void senders_free(struct clients *c)
{
	for (unsigned i = 0; i < c->n_senders; i++) {
		tape_ring_free(&c->senders[i].tape);
		free(c->senders[i].copies);
		free(c->senders[i].owned);
		free(c->senders[i].owned_ends);
	}
	free(c->senders);
}

/* --- what may go ------------------------------------------------------------------------------ */

void sender_list(struct clients *c, struct sender *s)
{
	if (s->listed || !c->publishing)
		return;
	s->listed = true;
	s->next = c->pumped;
	c->pumped = s;
}

/* Messages under way: not everywhere yet, or not acknowledged. */
static uint64_t under_way(const struct clients *c, const struct sender *s)
{
	uint64_t ended = s->done;

	if (c->s->qos && s->acked < ended)
		ended = s->acked;
	if (s->floor > ended)
		ended = s->floor;
	return s->tape.put - ended;
}

static uint64_t allowed(const struct clients *c, const struct sender *s)
{
	uint64_t unacked = topics_publish_qos(c->s) ? s->tape.put - s->acked : 0, n, going;

	if (c->s->window && c->s->kind != SCENARIO_RETAINED) {
		going = under_way(c, s);
		n = going < c->s->window ? c->s->window - going : 0;
	} else {
		n = s->due - s->tape.put;
	}
	if (unacked >= UNACKED_MAX)
		return 0;
	return n < UNACKED_MAX - unacked ? n : UNACKED_MAX - unacked;
}

/* The lab ends the window. */
static void exhausted(struct clients *c)
{
	uint64_t one = 1;

	if (!atomic_exchange(&c->shared->exhausted, true))
		(void)!write(c->o->bell, &one, sizeof(one)); /* it looks by itself, too, if later */
}

static void pump(struct clients *c, struct sender *s)
{
	uint64_t n, room;

	if (s->link->state != LINK_OPEN)
		return;
	n = allowed(c, s);
	if (!n)
		return;
	room = tape_room(&s->tape);
	s->full = n > room;
	if (s->full) {
		if (s->tape.ends && !room)
			exhausted(c);
		n = room;
	}
	if (!n)
		return;
	tape_put(&s->tape, n);
	s->moved_ns = c->now_ns;
	c->sent += n;
	c->expected += n * c->copies;
	clients_list(c, s->link);
}

void senders_pump(struct clients *c)
{
	bool sending =
		atomic_load_explicit(&c->shared->order, memory_order_relaxed) < CLIENTS_DRAIN;
	struct sender *s;

	while ((s = c->pumped)) {
		c->pumped = s->next;
		s->listed = false;
		if (sending)
			pump(c, s);
	}
}

/* --- what became of it ------------------------------------------------------------------------ */

void sender_reached(struct clients *c, struct sender *s, uint64_t from, uint64_t to)
{
	s->moved_ns = c->now_ns;
	if (!s->copies) {
		s->done = to; /* of an open loop nobody asks */
	} else {
		for (uint64_t i = from; i < to; i++) {
			uint32_t *n = &s->copies[i & (s->copies_n - 1)];

			if (++*n < c->copies)
				continue;
			*n = 0;
			s->done++;
		}
	}
	if (c->s->window)
		sender_list(c, s);
}

static void acknowledged(struct clients *c, struct sender *s)
{
	if (c->s->kind == SCENARIO_INGRESS) {
		clients_time(c, c->s->window ? 0 : sender_due_ns(c, s, s->acked));
		s->done++;
		c->delivered++;
	}
	s->acked++;
	s->moved_ns = c->now_ns;
	sender_list(c, s);
}

void sender_take(struct clients *c, struct link *l, const struct mqtt_frame *f)
{
	struct sender *s = &c->senders[l->index];
	struct mqtt_publish p;
	uint16_t id;

	switch (mqtt_frame_type(f)) {
	case MQTT_PUBREC:
		if (!mqtt_decode_ack(f->body, &id))
			link_write_ack(l, MQTT_PUBREL, id);
		return;
	case MQTT_PUBACK:
	case MQTT_PUBCOMP:
		acknowledged(c, s);
		return;
	case MQTT_PUBLISH:
		if (clients_read_publish(f, &p))
			(void)clients_control(c, l, &p); /* nothing else comes here */
		return;
	default:
		return;
	}
}

void senders_unstick(struct clients *c)
{
	for (unsigned i = 0; i < c->n_senders; i++) {
		struct sender *s = &c->senders[i];

		if (!under_way(c, s) || c->now_ns - s->moved_ns < STUCK_NS)
			continue;
		s->floor = s->tape.put;
		if (s->copies) {
			memset(s->copies, 0, s->copies_n * sizeof(s->copies[0]));
			s->done = s->tape.put;
		}
		s->moved_ns = c->now_ns;
		sender_list(c, s);
	}
}

bool senders_idle(const struct clients *c)
{
	for (unsigned i = 0; i < c->n_senders; i++) {
		const struct sender *s = &c->senders[i];

		if (s->link->state != LINK_OPEN)
			continue;
		if (s->tape.written < s->tape.put || (c->s->qos && s->acked < s->tape.put))
			return false;
	}
	return true;
}

/* --- open loop -------------------------------------------------------------------------------- */

uint64_t sender_due_ns(const struct clients *c, const struct sender *s, uint64_t number)
{
	uint64_t i = number * c->n_senders + (uint64_t)(s - c->senders);

	return c->start_ns + (uint64_t)((double)i * 1e9 / c->s->rate);
}

uint64_t senders_due(struct clients *c)
{
	uint64_t now = clients_now_ns(), first = 0, at;

	for (;; c->due++) {
		struct sender *s = &c->senders[c->due % c->n_senders];

		at = sender_due_ns(c, s, c->due / c->n_senders);
		if (at > now)
			break;
		if (!first)
			first = at;
		s->due++;
		sender_list(c, s);
	}
	if (first && atomic_load_explicit(&c->shared->from_ns, memory_order_relaxed))
		histogram_add(&c->shared->late, (now - first) / 1000);
	return at - now;
}
