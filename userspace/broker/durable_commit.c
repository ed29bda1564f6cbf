// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "userspace/broker/durable.h"
#include "userspace/broker/engine.h"

/* --- how much there is ------------------------------------------------------------------------ */

struct amount {
	size_t sessions, subscriptions, messages, new_messages, deliveries, releases, incoming;
	size_t retained, text;
};

static size_t length(const struct list *l)
{
	const struct list *pos;
	size_t n = 0;

	list_for_each(pos, l)
		n++;
	return n;
}

static struct subscription *subscription_of(struct durable_change *c)
{
	return (struct subscription *)(void *)(c + 1);
}

static struct delivery *delivery_of(struct durable_change *c)
{
	return (struct delivery *)(void *)(c + 1);
}

static void count_change(struct durable_change *c, struct amount *a)
{
	switch ((enum durable_kind)c->kind) {
	case DURABLE_DELIVERY:
		a->deliveries++;
		return;
	case DURABLE_SUBSCRIPTION:
		a->subscriptions++;
		if (c->state != DURABLE_GONE)
			a->text += trie_filter(&subscription_of(c)->sub, NULL, 0);
		return;
	case DURABLE_RELEASE:
		a->releases++;
		return;
	case DURABLE_INCOMING:
		a->incoming++;
		return;
	}
}

static bool needs_row(const struct durable_session *s)
{
	return !s->stored || s->packet_id != s->session->outgoing.id_last;
}

static void count_all(const struct durable *d, struct amount *a)
{
	struct list *pos, *in;

	a->new_messages = length(&d->messages);
	a->messages = a->new_messages + length(&d->dead);
	a->sessions = length(&d->gone);
	a->retained = 2 * length(&d->retained); /* one goes, one comes */
	list_for_each(pos, &d->dirty) {
		struct durable_session *s = list_entry(pos, struct durable_session, link);

		a->sessions += needs_row(s);
		list_for_each(in, &s->changes)
			count_change(list_entry(in, struct durable_change, link), a);
	}
}

static bool reserve(void **array, unsigned *room, size_t n, size_t size)
{
	size_t more = *room ? *room : 64;
	void *bigger;

	if (n <= *room)
		return true;
	while (more < n)
		more *= 2;
	bigger = more <= UINT32_MAX ? realloc(*array, more * size) : NULL;
	if (!bigger)
		return false;
	*array = bigger;
	*room = (unsigned)more;
	return true;
}

#define RESERVE(d, to, what, n) \
	reserve((void **)&(to)->what, &(d)->room_##what, n, sizeof(*(to)->what))

static bool reserve_all(struct durable *d, struct broker_commit *to, const struct amount *a)
{
	return RESERVE(d, to, sessions, a->sessions) &&
	       RESERVE(d, to, subscriptions, a->subscriptions) &&
	       RESERVE(d, to, messages, a->messages) && RESERVE(d, to, deliveries, a->deliveries) &&
	       RESERVE(d, to, releases, a->releases) && RESERVE(d, to, incoming, a->incoming) &&
	       RESERVE(d, to, retained, a->retained) && RESERVE(d, d, held, a->new_messages) &&
	       RESERVE(d, d, text, a->text);
}

/* --- forming: there is room for all, and nothing can fail ------------------------------------- */

static void form_gone_sessions(struct broker *b, struct broker_commit *to)
{
	struct durable_session *s;

	while ((s = list_first(&b->durable.gone, struct durable_session, link))) {
		to->sessions[to->n_sessions++] =
			(struct broker_commit_session){ .number = s->number, .gone = true };
		list_del(&s->link);
		pool_free(&b->pool, s);
	}
}

static void form_messages(struct broker *b, struct broker_commit *to)
{
	struct durable *d = &b->durable;
	struct durable_message *m;

	while ((m = list_first(&d->dead, struct durable_message, link))) {
		to->messages[to->n_messages++] =
			(struct broker_commit_message){ .number = m->number, .gone = true };
		list_del(&m->link);
		pool_free(&b->pool, m);
	}
	while ((m = list_first(&d->messages, struct durable_message, link))) {
		struct message *held = message_get(m->message);

		list_del(&m->link);
		m->number = ++d->message_last;
		d->held[d->n_held++] = held;
		to->messages[to->n_messages++] = (struct broker_commit_message){
			.number = m->number,
			.sealed = held->sealed,
			.retain = held->retain,
			.qos = held->qos,
			.topic = held->topic,
			.payload = held->payload,
			.sender = held->sealed ? held->sealed->sender : bytes_of(NULL, 0),
		};
	}
}

static void form_retained(struct broker *b, struct broker_commit *to)
{
	struct durable_retained *d;

	while ((d = list_first(&b->durable.retained, struct durable_retained, link))) {
		list_del(&d->link);
		if (d->stored)
			to->retained[to->n_retained++] =
				(struct broker_commit_retained){ d->stored, true };
		if (d->freed) {
			pool_free(&b->pool, d);
			continue;
		}
		d->stored =
			retained_of((struct retained_message *)(void *)(d + 1))->durable->number;
		to->retained[to->n_retained++] =
			(struct broker_commit_retained){ d->stored, false };
	}
}

static void form_subscription(struct durable *d, const struct durable_session *s,
			      struct durable_change *c, struct broker_commit *to, size_t *text)
{
	bool gone = c->state == DURABLE_GONE;
	const struct trie_sub *sub = &subscription_of(c)->sub;
	struct bytes filter = bytes_of(NULL, 0);

	if (!gone) {
		filter = bytes_of(d->text + *text,
				  trie_filter(sub, d->text + *text, d->room_text - *text));
		*text += filter.n;
	}
	to->subscriptions[to->n_subscriptions++] = (struct broker_commit_subscription){
		.session = s->number,
		.number = container_of(c, struct durable_subscription, change)->number,
		.gone = gone,
		.qos = gone ? 0 : sub->qos,
		.filter = filter,
	};
}

static void form_delivery(const struct durable_session *s, struct durable_change *c,
			  struct broker_commit *to)
{
	const struct delivery *d = delivery_of(c);
	struct broker_commit_delivery *row = &to->deliveries[to->n_deliveries++];

	*row = (struct broker_commit_delivery){ .session = s->number, .seq = d->seq };
	row->gone = c->state == DURABLE_GONE;
	if (row->gone)
		return;
	row->message = d->message->durable->number;
	row->retain = d->retain;
	row->qos = d->qos;
	row->packet_id = c->packet_id = d->packet_id;
}

static void form_change(struct durable *d, const struct durable_session *s,
			struct durable_change *c, struct broker_commit *to, size_t *text)
{
	bool gone = c->state == DURABLE_GONE;

	switch ((enum durable_kind)c->kind) {
	case DURABLE_DELIVERY:
		return form_delivery(s, c, to);
	case DURABLE_SUBSCRIPTION:
		return form_subscription(d, s, c, to, text);
	case DURABLE_RELEASE:
		to->releases[to->n_releases++] = (struct broker_commit_release){
			.session = s->number,
			.place = container_of(c, struct durable_release, change)->place,
			.gone = gone,
			.packet_id = c->packet_id,
		};
		return;
	case DURABLE_INCOMING:
		to->incoming[to->n_incoming++] = (struct broker_commit_incoming){
			.session = s->number,
			.gone = gone,
			.packet_id = c->packet_id,
		};
		return;
	}
}

static void form_session(struct broker *b, struct durable_session *s, struct broker_commit *to,
			 size_t *text)
{
	struct durable_change *c;

	if (needs_row(s)) {
		struct broker_commit_session *row = &to->sessions[to->n_sessions++];
		struct bytes_writer id = bytes_writer_of((uint8_t *)row->id, sizeof(row->id));

		s->packet_id = s->session->outgoing.id_last;
		*row = (struct broker_commit_session){ .number = s->number,
						       .packet_id = s->packet_id };
		bytes_write(&id, session_id(s->session));
		BUG_ON(id.bad || !id.left); /* it ends in a zero */
		s->stored = true;
	}
	while ((c = list_first(&s->changes, struct durable_change, link))) {
		form_change(&b->durable, s, c, to, text);
		list_del(&c->link);
		c->commit = b->durable.formed;
		c->state = c->state == DURABLE_GONE ? DURABLE_NONE : DURABLE_STORED;
		if (c->freed)
			durable_change_free(b, c);
	}
}

bool durable_take(struct broker *b, struct broker_commit *batch, bool anyway)
{
	struct durable *d = &b->durable;
	struct amount a = { 0 };
	struct durable_session *s;
	size_t text = 0;

	batch->n_sessions = batch->n_subscriptions = batch->n_messages = batch->n_deliveries = 0;
	batch->n_releases = batch->n_incoming = batch->n_retained = 0;
	if (!d->urgent && !d->late && !anyway)
		return true;
	count_all(d, &a);
	if (!reserve_all(d, batch, &a)) {
		b->starved = true;
		return false;
	}
	d->urgent = d->late = false;
	timer_cancel(&b->wheel, &d->lazy);
	d->formed++;
	form_gone_sessions(b, batch);
	form_messages(b, batch);
	form_retained(b, batch);
	while ((s = list_first(&d->dirty, struct durable_session, link))) {
		list_del(&s->link);
		form_session(b, s, batch, &text);
	}
	return true;
}

void durable_committed(struct broker *b)
{
	struct durable *d = &b->durable;
	struct list wake;

	d->done = d->formed;
	while (d->n_held)
		message_put(&b->pool, d->held[--d->n_held]);
	list_init(&wake);
	list_splice_tail(&wake, &d->wake);
	while (!list_empty(&wake)) {
		struct durable_session *s = list_first(&wake, struct durable_session, wake);

		list_del(&s->wake);
		session_mark_dirty(b, s->session);
	}
}
