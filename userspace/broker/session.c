// SPDX-License-Identifier: MIT
#include "userspace/broker/session.h"

#include <errno.h>
#include <string.h>

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"

static void stall_fired(struct timer *t);

void sessions_init(struct sessions *s)
{
	s->table = NULL;
	s->n = 0;
	list_init(&s->dirty);
	list_init(&s->recent);
	s->n_recent = 0;
	s->recent_bytes = 0;
}

struct session *session_find(struct broker *b, struct bytes id)
{
	struct session *s;

	HASH_FIND(hh, b->sessions.table, id.p, id.n, s);
	return s;
}

struct session *session_new(struct broker *b, struct bytes id, bool clean)
{
	struct session *s;

	if (b->sessions.n >= b->config.limits.sessions_max)
		return NULL;
	BUG_ON(id.n > UINT8_MAX);
	s = pool_zalloc(&b->pool, sizeof(*s) + id.n + 1);
	if (!s)
		return NULL;
	memcpy(s->id, id.p, id.n);
	s->id_n = (uint8_t)id.n;
	s->clean = clean;
	list_init(&s->subscriptions);
	list_init(&s->waiting);
	list_init(&s->converting);
	list_init(&s->signing);
	list_init(&s->sent);
	list_init(&s->recent);
	list_init(&s->dirty);
	list_init(&s->blocked);
	list_init(&s->sys);
	list_init(&s->walks);
	list_init(&s->walking);
	timer_init(&s->stall, stall_fired);
	table_oom = false;
	HASH_ADD(hh, b->sessions.table, id, s->id_n, s);
	if (table_oom) {
		pool_free(&b->pool, s);
		return NULL;
	}
	b->sessions.n++;
	if (!durable_session_new(b, s)) {
		session_free(b, s);
		return NULL;
	}
	return s;
}

static void subscription_free(struct broker *b, struct session *s, struct subscription *sub)
{
	retained_walk_end(b, s, sub);
	trie_remove(b->route.subscriptions, &sub->sub);
	list_del(&sub->sub.by_owner);
	durable_unsubscribed(b, s, sub);
	s->n_subscriptions--;
}

void session_free(struct broker *b, struct session *s)
{
	BUG_ON(s->conn);
	while (!list_empty(&s->subscriptions))
		subscription_free(b, s,
				  list_first(&s->subscriptions, struct subscription, sub.by_owner));
	deliveries_free(b, s);
	durable_session_free(b, s);
	outgoing_deinit(&b->pool, &s->outgoing);
	incoming_free(&b->pool, &s->incoming);
	list_del(&s->dirty);
	list_del(&s->sys);
	timer_cancel(&b->wheel, &s->stall);
	HASH_DELETE(hh, b->sessions.table, s);
	b->sessions.n--;
	pool_free(&b->pool, s);
}

/* --- subscriptions ---------------------------------------------------------------------------- */

static struct subscription *find_subscription(struct broker *b, struct session *s,
					      struct bytes filter)
{
	struct trie_sub *sub = trie_find(b->route.subscriptions, filter, s, &s->subscriptions);

	return sub ? container_of(sub, struct subscription, sub) : NULL;
}

/* PROTOCOL 5: messages are for receivers, what the broker says about itself for managers. */
static bool may_subscribe(const struct broker *b, const struct session *s, struct bytes filter)
{
	if (b->config.plain)
		return true;
	if (directory_may_only_claim(s->party))
		return false;
	if (sys_is_topic(filter))
		return s->party->roles & RECORD_ROLE_MANAGER;
	return !control_is_filter(filter) &&
	       s->party->roles & (RECORD_ROLE_RECEIVER | RECORD_ROLE_DISTRIBUTOR);
}

static bool has_room(const struct broker *b, const struct session *s)
{
	return s->n_subscriptions < b->config.limits.subscriptions_max;
}

/* NULL: no memory. */
static struct subscription *subscription_new(struct broker *b, struct session *s,
					     struct bytes filter)
{
	const size_t head = s->durable ? sizeof(struct durable_subscription) : 0;
	struct subscription *sub = durable_alloc(b, head, sizeof(*sub));

	if (!sub)
		return NULL;
	sub->sub.owner = s;
	if (trie_add(b->route.subscriptions, filter, &sub->sub)) {
		durable_unsubscribed(b, s, sub);
		return NULL;
	}
	list_add_tail(&s->subscriptions, &sub->sub.by_owner);
	s->n_subscriptions++;
	return sub;
}

uint8_t session_subscribe(struct broker *b, struct session *s, struct bytes filter, uint8_t qos)
{
	struct subscription *sub;
	bool sys = sys_is_topic(filter), had, same;

	if (!may_subscribe(b, s, filter))
		return 0x80;
	sub = find_subscription(b, s, filter);
	had = sub;
	if (!sub && has_room(b, s))
		sub = subscription_new(b, s, filter);
	if (!sub)
		return 0x80;
	if (!sys && retained_walk_begin(b, s, sub, filter)) {
		if (!had)
			subscription_free(b, s, sub);
		return 0x80;
	}
	same = had && sub->sub.qos == qos;
	sub->sub.qos = qos; /* [MQTT-3.8.4-3] */
	if (!same)
		durable_subscribed(b, s, sub);
	if (sys)
		sys_subscribed(b, s, sub);
	return qos;
}

int session_restore_subscription(struct broker *b, struct session *s,
				 const struct broker_commit_subscription *r)
{
	bool full = !has_room(b, s);
	struct subscription *sub;

	if (!mqtt_topic_filter_ok(r->filter) || r->qos > 2 || find_subscription(b, s, r->filter))
		return -EBADMSG;
	if (full)
		broker_note(b, "not restored", session_id(s), "it has too many subscriptions");
	sub = subscription_new(b, s, r->filter);
	if (!sub)
		return -ENOMEM;
	durable_restore_subscription(s, sub, r->number);
	sub->sub.qos = r->qos;
	if (full || !may_subscribe(b, s, r->filter))
		subscription_free(b, s, sub); /* and its row goes */
	else if (sys_is_topic(r->filter))
		sys_subscribed(b, s, sub);
	return 0;
}

void session_unsubscribe(struct broker *b, struct session *s, struct bytes filter)
{
	struct subscription *sub = find_subscription(b, s, filter);

	if (sub)
		subscription_free(b, s, sub);
}

/* --- the queue -------------------------------------------------------------------------------- */

bool session_congested(const struct broker *b, const struct session *s)
{
	return s->conn && !s->stalled && s->n_queued >= b->config.limits.queue_high_water;
}

void session_block(struct broker *b, struct session *s, struct broker_conn *from)
{
	if (list_empty(&s->blocked))
		timer_arm(&b->wheel, &s->stall, b->mono_ms + b->config.limits.receiver_stall_ms);
	list_add_tail(&s->blocked, &from->blocked);
	conn_pause(from, CONN_PAUSE_RECEIVER);
}

void session_mark_dirty(struct broker *b, struct session *s)
{
	if (s->conn && list_empty(&s->dirty) && !list_empty(&s->waiting))
		list_add_tail(&b->sessions.dirty, &s->dirty);
}

static void unblock_all(struct session *s)
{
	while (!list_empty(&s->blocked)) {
		struct broker_conn *c = list_first(&s->blocked, struct broker_conn, blocked);

		list_del(&c->blocked);
		conn_resume(c, CONN_PAUSE_RECEIVER);
	}
}

/* Senders that waited for this queue go on once it is half as long as what paused them. */
void session_unblock(struct broker *b, struct session *s)
{
	if (!s->conn || s->n_queued <= b->config.limits.queue_high_water / 2)
		unblock_all(s);
	if (list_empty(&s->blocked))
		timer_cancel(&b->wheel, &s->stall);
}

/* A receiver that takes nothing may not hold its senders for ever: they go on, its queue fills up,
 * and what does not fit is dropped for it alone. */
static void stall_fired(struct timer *t)
{
	struct session *s = container_of(t, struct session, stall);

	s->stalled = true;
	unblock_all(s);
}

void session_detach(struct broker *b, struct session *s)
{
	retained_walks_end(b, s);
	deliveries_rewind(b, s);
	list_del(&s->dirty);
	s->stalled = false;
	s->sys_seen = 0; /* what was on its way may not have arrived */
	session_unblock(b, s);
}

void session_recheck_roles(struct broker *b, struct session *s)
{
	struct list *pos, *tmp;

	if (s->party->roles & RECORD_ROLE_MANAGER)
		return;
	list_for_each_safe(pos, tmp, &s->subscriptions) {
		struct subscription *sub = list_entry(pos, struct subscription, sub.by_owner);

		if (sub->sys)
			subscription_free(b, s, sub);
	}
}
