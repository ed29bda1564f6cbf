// SPDX-License-Identifier: MIT
#include "userspace/broker/durable.h"

#include <stdlib.h>

#include "userspace/broker/engine.h"

#define LAZY_MS 200 /* until what nobody waits for is stored */

static void lazy_fired(struct timer *t)
{
	container_of(t, struct durable, lazy)->late = true;
}

void durable_init(struct broker *b)
{
	struct durable *d = &b->durable;

	*d = (struct durable){ .on = b->config.durable, .broker = b };
	list_init(&d->dirty);
	list_init(&d->gone);
	list_init(&d->wake);
	list_init(&d->messages);
	list_init(&d->dead);
	list_init(&d->retained);
	timer_init(&d->lazy, lazy_fired);
}

void durable_deinit(struct broker *b)
{
	struct broker_commit *batch = &b->commit.batch;
	struct durable *d = &b->durable;

	durable_found_free(b);
	for (unsigned i = 0; i < d->n_held; i++)
		message_put(&b->pool, d->held[i]);
	while (!list_empty(&d->gone)) {
		struct durable_session *s = list_first(&d->gone, struct durable_session, link);

		list_del(&s->link);
		pool_free(&b->pool, s);
	}
	while (!list_empty(&d->dead)) {
		struct durable_message *m = list_first(&d->dead, struct durable_message, link);

		list_del(&m->link);
		pool_free(&b->pool, m);
	}
	while (!list_empty(&d->retained)) {
		struct durable_retained *r =
			list_first(&d->retained, struct durable_retained, link);

		list_del(&r->link);
		pool_free(&b->pool, r);
	}
	timer_cancel(&b->wheel, &d->lazy);
	free(d->held);
	free(d->text);
	free(batch->sessions);
	free(batch->subscriptions);
	free(batch->messages);
	free(batch->deliveries);
	free(batch->releases);
	free(batch->incoming);
	free(batch->retained);
}

/* There is something to store. */
static void note(struct broker *b, bool urgent)
{
	struct durable *d = &b->durable;

	d->urgent |= urgent;
	d->n_urgent += urgent;
	if (!urgent && !timer_armed(&d->lazy))
		timer_arm(&b->wheel, &d->lazy, b->mono_ms + LAZY_MS);
}

void durable_hurry(struct broker *b)
{
	b->durable.urgent |= timer_armed(&b->durable.lazy);
}

bool durable_is_behind(const struct broker *b, const struct session *s)
{
	return s->durable && (b->durable.urgent || b->commit.out);
}

static void change(struct broker *b, struct durable_session *s, struct durable_change *c,
		   enum durable_state state, bool urgent)
{
	c->state = (uint8_t)state;
	if (list_empty(&c->link))
		list_add_tail(&s->changes, &c->link);
	if (list_empty(&s->link))
		list_add_tail(&b->durable.dirty, &s->link);
	note(b, urgent);
}

/* It need not be written after all. */
static void unchange(struct durable_change *c)
{
	list_del(&c->link);
	c->state = DURABLE_NONE;
}

bool durable_is_stored(const struct broker *b, const struct durable_change *c)
{
	return c->state == DURABLE_STORED && c->commit <= b->durable.done;
}

void *durable_alloc(struct broker *b, size_t head, size_t n)
{
	uint8_t *block = pool_zalloc(&b->pool, head + n);

	return block ? block + head : NULL;
}

static void init(struct durable_change *c, enum durable_kind kind)
{
	list_init(&c->link);
	c->kind = (uint8_t)kind;
}

/* --- sessions --------------------------------------------------------------------------------- */

bool durable_session_new(struct broker *b, struct session *s)
{
	struct durable_session *d;

	if (!b->durable.on || s->clean)
		return true;
	d = pool_zalloc(&b->pool, sizeof(*d));
	if (!d)
		return false;
	list_init(&d->link);
	list_init(&d->wake);
	list_init(&d->changes);
	d->session = s;
	d->number = ++b->durable.session_last;
	s->durable = d;
	list_add_tail(&b->durable.dirty, &d->link);
	note(b, false);
	return true;
}

void durable_change_free(struct broker *b, struct durable_change *c)
{
	list_del(&c->link);
	switch ((enum durable_kind)c->kind) {
	case DURABLE_SUBSCRIPTION:
		return pool_free(&b->pool, container_of(c, struct durable_subscription, change));
	case DURABLE_RELEASE:
		return pool_free(&b->pool, container_of(c, struct durable_release, change));
	case DURABLE_DELIVERY:
	case DURABLE_INCOMING:
		return pool_free(&b->pool, c);
	}
}

void durable_session_free(struct broker *b, struct session *s)
{
	struct durable_session *d = s->durable;
	const struct outgoing *o = &s->outgoing;

	if (!d)
		return;
	s->durable = NULL;
	for (uint16_t id = outgoing_next_release(o, 0); id; id = outgoing_next_release(o, id))
		durable_change_free(b, outgoing_kept(o, id));
	while (!list_empty(&d->changes))
		durable_change_free(b, list_first(&d->changes, struct durable_change, link));
	list_del(&d->link);
	list_del(&d->wake);
	d->session = NULL;
	if (!d->stored)
		return pool_free(&b->pool, d);
	list_add_tail(&b->durable.gone, &d->link);
	note(b, true);
}

void durable_subscribed(struct broker *b, struct session *s, struct subscription *sub)
{
	struct durable_change *c;
	struct durable_subscription *d;

	if (!s->durable)
		return;
	c = durable_of(sub);
	d = container_of(c, struct durable_subscription, change);
	if (!d->number) {
		init(c, DURABLE_SUBSCRIPTION);
		d->number = ++s->durable->subscription_last;
	}
	change(b, s->durable, c, DURABLE_CHANGED, true);
}

void durable_unsubscribed(struct broker *b, struct session *s, struct subscription *sub)
{
	struct durable_change *c;

	if (!s->durable)
		return pool_free(&b->pool, sub);
	c = durable_of(sub);
	/* One that was not yet subscribed has no number, and no list either. */
	if (!container_of(c, struct durable_subscription, change)->number)
		init(c, DURABLE_SUBSCRIPTION);
	if (!c->commit)
		return durable_change_free(b, c);
	c->freed = true;
	list_del(&c->link); /* behind what came meanwhile */
	change(b, s->durable, c, DURABLE_GONE, true);
}

/* --- messages --------------------------------------------------------------------------------- */

bool durable_message_get(struct broker *b, struct message *m)
{
	struct durable_message *d = m->durable;

	if (!d) {
		d = pool_zalloc(&b->pool, sizeof(*d));
		if (!d)
			return false;
		list_init(&d->link);
		d->message = m;
		m->durable = d;
	}
	if (d->rows++ == 0 && !d->number)
		list_add_tail(&b->durable.messages, &d->link);
	return true;
}

void durable_message_put(struct broker *b, struct message *m)
{
	struct durable_message *d = m->durable;

	BUG_ON(d->rows == 0);
	if (--d->rows)
		return;
	list_del(&d->link);
	if (!d->number)
		return; /* message_put() frees it */
	m->durable = NULL;
	list_add_tail(&b->durable.dead, &d->link);
}

bool durable_wants(const struct session *s, uint8_t qos)
{
	return s->durable && qos;
}

bool durable_queue(struct broker *b, struct delivery *d)
{
	struct durable_change *c = durable_of(d);

	if (!c->link.next)
		init(c, DURABLE_DELIVERY);
	if (!durable_message_get(b, d->message))
		return false;
	change(b, d->session->durable, c, c->state == DURABLE_GONE ? DURABLE_CHANGED : DURABLE_NEW,
	       true);
	return true;
}

void durable_dequeue(struct broker *b, struct delivery *d)
{
	struct durable_change *c = durable_of(d);

	if (c->state == DURABLE_NONE || c->state == DURABLE_GONE)
		return;
	durable_message_put(b, d->message);
	if (c->state == DURABLE_NEW)
		unchange(c);
	else
		change(b, d->session->durable, c, DURABLE_GONE, false);
}

void durable_delivery_free(struct broker *b, struct delivery *d)
{
	struct durable_change *c = durable_of(d);

	c->freed = true;
	if (list_empty(&c->link))
		durable_change_free(b, c);
}

/* Ids for those at QoS 2 that may follow each other at once, so that one commit serves them all. */
static void reserve_ids(struct broker *b, struct session *s)
{
	uint32_t n = b->config.limits.inflight_max - s->inflight;
	struct list *pos;

	list_for_each(pos, &s->waiting) {
		struct delivery *d = list_entry(pos, struct delivery, link);
		struct durable_change *c;

		if (d->qos == 0)
			continue;
		if (n-- == 0)
			return;
		if (d->qos != 2 || d->packet_id)
			continue;
		if (!outgoing_has_ids(&s->outgoing, s->n_pipeline + 1))
			return;
		if (!outgoing_reserve(&b->pool, &s->outgoing, s->n_pipeline + 1, n)) {
			session_mark_dirty(b, s);
			b->starved = true;
			return;
		}
		d->packet_id = outgoing_take(&s->outgoing, d);
		c = durable_of(d);
		if (c->state == DURABLE_STORED)
			change(b, s->durable, c, DURABLE_CHANGED, true);
	}
}

bool durable_may_send(struct broker *b, struct delivery *d)
{
	struct session *s = d->session;
	struct durable_change *c = durable_of(d);

	if (!d->packet_id)
		reserve_ids(b, s);
	if (!d->packet_id)
		return false;
	/* Or has no row: it was nacked, and there was no memory for another. */
	if (durable_is_stored(b, c) || c->state == DURABLE_NONE || c->state == DURABLE_GONE)
		return true;
	if (list_empty(&s->durable->wake))
		list_add_tail(&b->durable.wake, &s->durable->wake);
	return false;
}

void durable_sent(struct broker *b, struct delivery *d)
{
	struct durable_change *c = durable_of(d);

	if (c->state == DURABLE_STORED && c->packet_id != d->packet_id)
		change(b, d->session->durable, c, DURABLE_CHANGED, false);
}

bool durable_release(struct broker *b, struct session *s, uint16_t packet_id,
		     struct durable_change **ret_kept)
{
	struct durable_release *r;

	*ret_kept = NULL;
	if (!s->durable)
		return true;
	r = pool_zalloc(&b->pool, sizeof(*r));
	if (!r)
		return false;
	init(&r->change, DURABLE_RELEASE);
	r->change.packet_id = packet_id;
	r->place = ++s->durable->place_last;
	change(b, s->durable, &r->change, DURABLE_NEW, true);
	*ret_kept = &r->change;
	return true;
}

void durable_completed(struct broker *b, struct session *s, struct durable_change *kept)
{
	if (!kept)
		return;
	if (kept->state == DURABLE_NEW)
		return durable_change_free(b, kept);
	kept->freed = true;
	change(b, s->durable, kept, DURABLE_GONE, false);
}

bool durable_incoming(struct broker *b, struct session *s, uint16_t packet_id, bool gone)
{
	struct durable_change *c;

	if (!s->durable)
		return true;
	c = pool_zalloc(&b->pool, sizeof(*c));
	if (!c)
		return false;
	init(c, DURABLE_INCOMING);
	c->packet_id = packet_id;
	c->freed = true;
	change(b, s->durable, c, gone ? DURABLE_GONE : DURABLE_NEW, true);
	return true;
}

/* --- what is retained ------------------------------------------------------------------------- */

void durable_retained_put(struct broker *b, struct retained_message *kept)
{
	struct durable_retained *d = durable_of_retained(kept);

	if (!d->link.next)
		list_init(&d->link);
	if (list_empty(&d->link))
		list_add_tail(&b->durable.retained, &d->link);
	note(b, true);
}

void durable_retained_free(struct broker *b, struct retained_message *kept)
{
	struct durable_retained *d = durable_of_retained(kept);

	if (d->stored) {
		d->freed = true;
		return durable_retained_put(b, kept);
	}
	if (d->link.next)
		list_del(&d->link);
	pool_free(&b->pool, d);
}
