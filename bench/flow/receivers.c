// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <string.h>

#include "bench/flow/clients_impl.h"
#include "userspace/crypto/envelope.h"

#define SUBSCRIBE_BYTES 64
#define REFUSED		0x80
#define SAMPLES_ALL	2000 /* of all receivers: each takes a quarter of a millisecond */
#define SAMPLES_MAX	200
#define SAMPLES_MIN	2

static unsigned samples_each(const struct clients *c)
{
	unsigned n = SAMPLES_ALL / c->n_receivers;

	return n < SAMPLES_MIN ? SAMPLES_MIN : n > SAMPLES_MAX ? SAMPLES_MAX : n;
}

static unsigned tracks_each(const struct clients *c)
{
	return c->s->kind == SCENARIO_FAN_IN ? c->n_senders : 1;
}

void receivers_make(struct clients *c)
{
	c->receivers = calloc(c->n_receivers ? c->n_receivers : 1, sizeof(c->receivers[0]));
	if (!c->receivers)
		clients_fail(c, "no memory for %u receivers", c->n_receivers);
	for (unsigned i = 0; i < c->n_receivers; i++) {
		struct receiver *r = &c->receivers[i];

		r->link = &c->links[c->n_idle + c->n_others + i];
		r->tracks = calloc(tracks_each(c), sizeof(r->tracks[0]));
		if (!r->tracks || (c->o->receivers && sample_init(&r->sample, samples_each(c))))
			clients_fail(c, "no memory for %u receivers", c->n_receivers);
	}
}

void receivers_free(struct clients *c)
{
	for (unsigned i = 0; i < c->n_receivers; i++) {
		free(c->receivers[i].tracks);
		free(c->receivers[i].got);
		sample_deinit(&c->receivers[i].sample);
	}
	free(c->receivers);
}

void receiver_subscribe(struct clients *c, struct receiver *r)
{
	struct mqtt_subscribe s = { .packet_id = 1, .n = 1, .list[0].qos = (uint8_t)c->s->qos };
	char filter[TOPICS_BYTES];
	uint8_t bytes[SUBSCRIBE_BYTES];
	struct bytes_writer w = bytes_writer_of(bytes, sizeof(bytes));

	s.list[0].filter = topics_filter(c->s, (unsigned)(r - c->receivers), filter);
	mqtt_encode_subscribe(&s, &w);
	BUG_ON(w.bad);
	memcpy(link_space(r->link, w.used), bytes, w.used);
	clients_list(c, r->link);
}

/* --- deliveries ------------------------------------------------------------------------------- */

uint64_t receiver_counter(struct bytes payload)
{
	struct bytes_reader r = bytes_reader_of(payload);

	(void)bytes_read_view(&r, ENVELOPE_COUNTER_AT);
	return bytes_read_u64(&r);
}

/* Whose it is, and its number; false: it is none of the scenario's messages. */
static bool identify(const struct clients *c, const struct mqtt_publish *p, struct sender **ret_s,
		     uint64_t *ret_number)
{
	uint32_t i, marked;

	if (!topics_read(p->topic, &i) || i >= c->n_senders)
		return false;
	*ret_s = &c->senders[i];
	if (c->o->receivers) { /* sealed: counters begin with 1 */
		*ret_number = receiver_counter(p->payload) - 1;
		return *ret_number < (*ret_s)->tape.put;
	}
	return p->payload.n == c->s->payload && tape_read_mark(p->payload, &marked, ret_number) &&
	       marked == i && *ret_number < (*ret_s)->tape.put;
}

static void count(struct clients *c, struct receiver *r, const struct mqtt_publish *p)
{
	struct sender *s;
	struct track *t;
	uint64_t number, skipped;

	if (!identify(c, p, &s, &number)) {
		c->wrong++;
		return;
	}
	t = &r->tracks[c->s->kind == SCENARIO_FAN_IN ? s - c->senders : 0];
	switch (track_take(t, number, &skipped)) {
	case TRACK_AGAIN:
		c->duplicated++;
		return;
	case TRACK_LATE:
		c->disordered++;
		c->delivered++;
		break;
	case TRACK_NEW:
		c->delivered++;
		sender_reached(c, s, number - skipped, number + 1);
		break;
	}
	if (!c->s->window)
		clients_time(c, sender_due_ns(c, s, number));
	if (r->sample.room && sample_wants(&r->sample))
		sample_keep(&r->sample, p);
}

static void take_suback(struct clients *c, struct receiver *r, struct bytes body)
{
	struct bytes codes;
	uint16_t id;

	if (mqtt_decode_suback(body, &id, &codes) || codes.n != 1)
		clients_fail(c, "receiver %u: the SUBACK makes no sense", r->link->index);
	if (codes.p[0] == REFUSED)
		clients_fail(c, "receiver %u may not subscribe", r->link->index);
	if (codes.p[0] != c->s->qos)
		clients_fail(c, "the broker gives receivers QoS %u where %u is asked for",
			     codes.p[0], c->s->qos);
	r->subscribed = true;
}

void receiver_take(struct clients *c, struct link *l, const struct mqtt_frame *f)
{
	struct receiver *r = &c->receivers[l->index];
	struct mqtt_publish p;
	uint16_t id;

	switch (mqtt_frame_type(f)) {
	case MQTT_PUBLISH:
		if (!clients_read_publish(f, &p)) {
			c->wrong++;
			return;
		}
		if (clients_control(c, l, &p))
			return;
		if (p.qos)
			link_write_ack(l, p.qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, p.packet_id);
		if (c->s->kind == SCENARIO_RETAINED)
			retained_take(c, r, &p);
		else
			count(c, r, &p);
		return;
	case MQTT_PUBREL:
		if (!mqtt_decode_ack(f->body, &id))
			link_write_ack(l, MQTT_PUBCOMP, id);
		return;
	case MQTT_SUBACK:
		take_suback(c, r, f->body);
		return;
	default:
		return;
	}
}

static void give_up(struct clients *c, const struct track *t, const struct sender *s)
{
	for (uint64_t i = t->next; i < s->tape.put; i++)
		clients_time(c, sender_due_ns(c, s, i));
}

void receivers_give_up(struct clients *c)
{
	if (c->s->window)
		return;
	for (unsigned i = 0; i < c->n_receivers; i++) {
		const struct receiver *r = &c->receivers[i];

		if (c->s->kind == SCENARIO_FAN_IN) {
			for (unsigned k = 0; k < c->n_senders; k++)
				give_up(c, &r->tracks[k], &c->senders[k]);
		} else {
			give_up(c, r->tracks, &c->senders[i % c->n_senders]);
		}
	}
}

void receivers_open(struct clients *c)
{
	for (unsigned i = 0; c->o->receivers && i < c->n_receivers; i++)
		sample_open(&c->receivers[i].sample, &c->o->receivers[i], c->s->payload,
			    &c->shared->opened, &c->wrong);
}
