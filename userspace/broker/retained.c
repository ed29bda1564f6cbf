// SPDX-License-Identifier: MIT
#include "userspace/broker/retained.h"

#include <errno.h>
#include <string.h>

#include "userspace/broker/engine.h"

/* Topics looked at in one turn: of all sessions, and of one until the next one's turn comes. */
#define STEPS_PER_TURN 4096
#define STEPS_AT_ONCE  256

/* In a durable broker its record stands before it (durable.h). */
struct retained_message {
	struct topicmap_entry entry;
	struct list link; /* in retained.kept */
	struct message *message;
	uint64_t put; /* of retained.put_last */
};

struct retained_walk {
	struct list link; /* in the session's walks */
	struct subscription *sub;
	struct topicmap_walk walk;
	uint64_t put_last; /* what was put later is not for this walk */
	size_t filter_n;
	uint8_t filter[];
};

int retained_init(struct broker *b)
{
	struct retained *r = &b->retained;

	memset(r, 0, sizeof(*r));
	list_init(&r->kept);
	list_init(&r->ready);
	r->map = topicmap_new(b->config.hash_key);
	return r->map ? 0 : -ENOMEM;
}

static void forget(struct broker *b, struct retained_message *kept)
{
	topicmap_remove(b->retained.map, &kept->entry);
	list_del(&kept->link);
	b->retained.n--;
	if (b->durable.on)
		durable_message_put(b, kept->message);
	message_put(&b->pool, kept->message);
	if (b->durable.on)
		durable_retained_free(b, kept);
	else
		pool_free(&b->pool, kept);
}

void retained_deinit(struct broker *b)
{
	struct retained *r = &b->retained;

	while (!list_empty(&r->kept))
		forget(b, list_first(&r->kept, struct retained_message, link));
	topicmap_free(r->map);
}

/* A retained message of no content clears the topic [MQTT-3.3.1-10]. Sealed, "no content" is a
 * ciphertext that is nothing but its tag. */
static bool is_empty(const struct message *m)
{
	return m->sealed ? m->sealed->envelope.ct.n == HPKE_TAG_BYTES : m->payload.n == 0;
}

/* NULL: no room or no memory. */
static struct retained_message *keep(struct broker *b, struct message *m)
{
	struct retained *r = &b->retained;
	struct retained_message *kept;
	const size_t head = b->durable.on ? sizeof(struct durable_retained) : 0;
	struct topicmap_entry *old;

	if (r->n >= b->config.limits.retained_max)
		return NULL;
	kept = durable_alloc(b, head, sizeof(*kept));
	if (!kept)
		return NULL;
	if (topicmap_put(r->map, m->topic, &kept->entry, &old)) {
		pool_free(&b->pool, (uint8_t *)kept - head);
		return NULL;
	}
	list_add_tail(&r->kept, &kept->link);
	r->n++;
	return kept;
}

void retained_put(struct broker *b, struct message *m)
{
	struct topicmap_entry *entry = topicmap_get(b->retained.map, m->topic);
	struct retained_message *kept =
		entry ? container_of(entry, struct retained_message, entry) : NULL;

	if (is_empty(m)) {
		if (kept)
			forget(b, kept);
		return;
	}
	if (b->durable.on && !durable_message_get(b, m))
		return broker_note(b, "not retained", bytes_of(NULL, 0), "no memory");
	if (!kept)
		kept = keep(b, m);
	if (!kept) {
		if (b->durable.on)
			durable_message_put(b, m);
		broker_note(b, "not retained", bytes_of(NULL, 0), "too many retained messages");
		return;
	}
	if (b->durable.on && kept->message)
		durable_message_put(b, kept->message);
	message_put(&b->pool, kept->message);
	kept->message = message_get(m);
	kept->put = ++b->retained.put_last;
	if (b->durable.on)
		durable_retained_put(b, kept);
}

struct message *retained_of(const struct retained_message *kept)
{
	return kept->message;
}

int retained_restore(struct broker *b, struct message *m)
{
	bool full = b->retained.n >= b->config.limits.retained_max;
	struct retained_message *kept;

	if (topicmap_get(b->retained.map, m->topic) || is_empty(m))
		return -EBADMSG;
	b->retained.n -= full; /* for the moment that it needs to go from storage */
	kept = durable_message_get(b, m) ? keep(b, m) : NULL;
	b->retained.n += full;
	if (!kept)
		return -ENOMEM; /* with which it all ends */
	kept->message = message_get(m);
	kept->put = ++b->retained.put_last;
	durable_restore_retained(kept);
	if (full) {
		broker_note(b, "not restored", bytes_of(NULL, 0), "too many retained messages");
		forget(b, kept);
	}
	return 0;
}

void broker_each_retained(const struct broker *b,
			  void (*each)(void *ctx, struct bytes topic, struct bytes body), void *ctx)
{
	struct list *pos;

	list_for_each(pos, &b->retained.kept) {
		const struct message *m = list_entry(pos, struct retained_message, link)->message;

		each(ctx, m->topic, m->body);
	}
}

/* --- room ------------------------------------------------------------------------------------- */

/*
 * A walk fills a queue to three quarters of what pauses its senders and goes on once it is half of
 * that: as short as senders that were paused wait for too, so that neither keeps the other out.
 */
static uint32_t queue_length(const struct broker *b)
{
	const struct broker_limits *l = &b->config.limits;

	return l->queue_high_water < l->queue_messages_max ? l->queue_high_water
							   : l->queue_messages_max;
}

static bool is_short(const struct broker *b, const struct session *s)
{
	return s->n_queued <= queue_length(b) / 2 &&
	       s->bytes <= b->config.limits.queue_bytes_max / 4;
}

static bool has_room(const struct broker *b, const struct session *s, const struct message *m)
{
	if (s->n_queued == 0)
		return true;
	return s->n_queued < queue_length(b) / 4 * 3 &&
	       s->bytes + message_bytes(m) <= b->config.limits.queue_bytes_max / 2;
}

void retained_room(struct broker *b, struct session *s)
{
	if (!list_empty(&s->walks) && list_empty(&s->walking) && is_short(b, s))
		list_add_tail(&b->retained.ready, &s->walking);
}

/* --- walks ------------------------------------------------------------------------------------ */

static struct retained_walk *walk_of(const struct session *s, const struct subscription *sub)
{
	struct list *pos;

	list_for_each(pos, &s->walks) {
		struct retained_walk *w = list_entry(pos, struct retained_walk, link);

		if (w->sub == sub)
			return w;
	}
	return NULL;
}

static void walk_free(struct broker *b, struct session *s, struct retained_walk *w)
{
	topicmap_walk_end(b->retained.map, &w->walk);
	list_del(&w->link);
	pool_free(&b->pool, w);
	if (list_empty(&s->walks))
		list_del(&s->walking);
}

int retained_walk_begin(struct broker *b, struct session *s, struct subscription *sub,
			struct bytes filter)
{
	struct retained_walk *w = walk_of(s, sub);

	if (w) {
		topicmap_walk_end(b->retained.map, &w->walk);
	} else {
		w = pool_alloc(&b->pool, sizeof(*w) + filter.n);
		if (!w)
			return -ENOMEM;
		w->sub = sub;
		w->filter_n = filter.n;
		memcpy(w->filter, filter.p, filter.n);
		list_add_tail(&s->walks, &w->link);
	}
	topicmap_walk_begin(b->retained.map, &w->walk);
	w->put_last = b->retained.put_last;
	retained_room(b, s);
	return 0;
}

void retained_walk_end(struct broker *b, struct session *s, const struct subscription *sub)
{
	struct retained_walk *w = walk_of(s, sub);

	if (w)
		walk_free(b, s, w);
}

void retained_walks_end(struct broker *b, struct session *s)
{
	while (!list_empty(&s->walks))
		walk_free(b, s, list_first(&s->walks, struct retained_walk, link));
}

struct receiver {
	struct broker *broker;
	struct session *session;
	struct retained_walk *walk;
};

static bool give(void *ctx, struct topicmap_entry *entry)
{
	struct receiver *to = ctx;
	struct retained_message *kept = container_of(entry, struct retained_message, entry);
	struct message *m = kept->message;
	uint8_t qos = to->walk->sub->sub.qos;

	if (kept->put > to->walk->put_last)
		return true;
	if (!has_room(to->broker, to->session, m))
		return false;
	delivery_enqueue(to->broker, to->session, m, qos < m->qos ? qos : m->qos, true);
	return true;
}

/* Some of what the session's first walk finds. Returns the steps that it took. */
static unsigned serve(struct broker *b, struct session *s)
{
	struct retained_walk *w = list_first(&s->walks, struct retained_walk, link);
	struct receiver to = { b, s, w };
	unsigned steps = topicmap_walk(b->retained.map, bytes_of(w->filter, w->filter_n), &w->walk,
				       STEPS_AT_ONCE, give, &to);
	bool ended = !w->walk.at;

	list_del(&s->walking);
	if (ended)
		walk_free(b, s, w);
	/* One that stopped for want of room waits for retained_room(); others for their turn. */
	if (!list_empty(&s->walks) && (ended || steps == STEPS_AT_ONCE))
		list_add_tail(&b->retained.ready, &s->walking);
	return steps;
}

void retained_turn(struct broker *b)
{
	struct session *s;
	unsigned steps = 0;

	while (steps < STEPS_PER_TURN &&
	       (s = list_first(&b->retained.ready, struct session, walking)))
		steps += 1 + serve(b, s);
}
