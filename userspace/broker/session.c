// SPDX-License-Identifier: MIT
#include "userspace/broker/session.h"

#include <string.h>

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"

/* Conversions and signatures of one session that may be under way: enough to fill a batch of each.
 */
#define PIPELINE_MAX 256

/* Acknowledged deliveries remembered for a nack, of all sessions, and for how long. */
#define RECENT_MAX 1024
#define RECENT_MS  10000

static void stall_fired(struct timer *t);

void sessions_init(struct sessions *s)
{
	s->table = NULL;
	s->n = 0;
	list_init(&s->dirty);
	list_init(&s->recent);
	s->n_recent = 0;
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
	s = pool_zalloc(&b->pool, sizeof(*s));
	if (!s)
		return NULL;
	BUG_ON(id.n >= sizeof(s->id));
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
	timer_init(&s->stall, stall_fired);
	table_oom = false;
	HASH_ADD(hh, b->sessions.table, id, s->id_n, s);
	if (table_oom) {
		pool_free(&b->pool, s);
		return NULL;
	}
	b->sessions.n++;
	return s;
}

static void free_list(struct broker *b, struct list *l)
{
	while (!list_empty(l))
		delivery_free(b, list_first(l, struct delivery, link));
}

static void subscription_free(struct broker *b, struct session *s, struct subscription *sub)
{
	trie_remove(b->route.subscriptions, &sub->sub);
	list_del(&sub->sub.by_owner);
	pool_free(&b->pool, sub);
	s->n_subscriptions--;
}

void session_free(struct broker *b, struct session *s)
{
	BUG_ON(s->conn);
	while (!list_empty(&s->subscriptions))
		subscription_free(b, s,
				  list_first(&s->subscriptions, struct subscription, sub.by_owner));
	free_list(b, &s->waiting);
	free_list(b, &s->converting);
	free_list(b, &s->signing);
	free_list(b, &s->sent);
	free_list(b, &s->recent);
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
	struct trie_sub *sub = trie_find(b->route.subscriptions, filter, s);

	return sub ? container_of(sub, struct subscription, sub) : NULL;
}

/* PROTOCOL 5: messages are for receivers, what the broker says about itself for managers. */
static bool may_subscribe(const struct broker *b, const struct session *s, struct bytes filter)
{
	if (b->config.plain)
		return true;
	if (sys_is_topic(filter))
		return s->party->roles & RECORD_ROLE_MANAGER;
	return !control_is_filter(filter) &&
	       s->party->roles & (RECORD_ROLE_RECEIVER | RECORD_ROLE_DISTRIBUTOR);
}

/* NULL: no room or no memory. */
static struct subscription *subscription_new(struct broker *b, struct session *s,
					     struct bytes filter)
{
	struct subscription *sub;

	if (s->n_subscriptions >= b->config.limits.subscriptions_max)
		return NULL;
	sub = pool_zalloc(&b->pool, sizeof(*sub));
	if (!sub)
		return NULL;
	sub->sub.owner = s;
	if (trie_add(b->route.subscriptions, filter, &sub->sub)) {
		pool_free(&b->pool, sub);
		return NULL;
	}
	list_add_tail(&s->subscriptions, &sub->sub.by_owner);
	s->n_subscriptions++;
	return sub;
}

uint8_t session_subscribe(struct broker *b, struct session *s, struct bytes filter, uint8_t qos)
{
	struct subscription *sub;

	if (!may_subscribe(b, s, filter))
		return 0x80;
	if (qos > 1)
		qos = 1;
	sub = find_subscription(b, s, filter);
	if (!sub)
		sub = subscription_new(b, s, filter);
	if (!sub)
		return 0x80;
	sub->sub.qos = qos; /* [MQTT-3.8.4-3] */
	if (sys_is_topic(filter))
		sys_subscribed(b, s, sub);
	return qos;
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
	if (list_empty(&s->dirty))
		list_add_tail(&b->sessions.dirty, &s->dirty);
}

static void count(struct broker *b, struct delivery *d);

static void unblock_all(struct session *s)
{
	while (!list_empty(&s->blocked)) {
		struct broker_conn *c = list_first(&s->blocked, struct broker_conn, blocked);

		list_del(&c->blocked);
		conn_resume(c, CONN_PAUSE_RECEIVER);
	}
}

/* Senders that waited for this queue go on once it is half as long as what paused them. */
static void unblock(struct broker *b, struct session *s)
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

/* It took something. Only a short queue ends a stall, or a trickle would hold its senders for good.
 */
static void progress(const struct broker *b, struct session *s)
{
	if (s->n_queued <= b->config.limits.queue_high_water / 2)
		s->stalled = false;
}

static const struct directory_grant *grant_of(struct broker *b, const struct session *s,
					      const struct message *m)
{
	return directory_grant(s->party, m->sealed->envelope.key_id, b->wall_ms);
}

/* True where it may not be queued; counted. */
static bool refuse_full(struct broker *b, struct session *s, const struct message *m, uint8_t qos)
{
	if (s->n_queued < b->config.limits.queue_messages_max &&
	    s->bytes + message_bytes(m) <= b->config.limits.queue_bytes_max)
		return false;
	if (qos == 0) {
		b->stats.dropped_qos0++;
	} else {
		b->stats.dropped_full++;
		broker_note(b, "queue full", session_id(s), "a QoS 1 message was dropped");
	}
	return true;
}

void session_enqueue(struct broker *b, struct session *s, struct message *m, uint8_t qos,
		     bool retain)
{
	struct delivery *d;

	if (!s->conn && qos == 0)
		return;
	if (m->sealed && !grant_of(b, s, m)) {
		b->stats.no_grant++;
		return;
	}
	if (refuse_full(b, s, m, qos))
		return;
	d = pool_zalloc(&b->pool, sizeof(*d));
	if (!d) {
		b->stats.dropped_full++;
		return;
	}
	d->session = s;
	d->message = message_get(m);
	d->seq = ++s->seq_last;
	d->qos = qos;
	d->retain = retain;
	list_init(&d->wait);
	list_add_tail(&s->waiting, &d->link);
	count(b, d);
	if (s->conn)
		session_mark_dirty(b, s);
}

/* Converting or signing: what will be on the connection soon, and is not in its backlog yet. */
static void enter_pipeline(struct delivery *d)
{
	d->session->n_pipeline++;
	d->session->pipeline_bytes += message_bytes(d->message);
}

static void leave_pipeline(struct delivery *d)
{
	d->session->n_pipeline--;
	d->session->pipeline_bytes -= message_bytes(d->message);
}

/* Takes d out of whatever it waits for and out of the counts of its state, but not of its list. */
static void leave_state(struct delivery *d)
{
	struct session *s = d->session;

	switch (d->state) {
	case DELIVERY_WAITING:
	case DELIVERY_RECENT:
		return;
	case DELIVERY_CONVERTING:
		capsule_leave(d);
		leave_pipeline(d);
		break;
	case DELIVERY_CONVERTED:
		leave_pipeline(d);
		break;
	case DELIVERY_SIGNING:
		signer_leave(d);
		leave_pipeline(d);
		break;
	case DELIVERY_SENT:
		break;
	}
	s->inflight -= d->qos; /* 0 or 1 */
	d->state = DELIVERY_WAITING;
}

static void count(struct broker *b, struct delivery *d)
{
	d->session->n_queued++;
	d->session->bytes += message_bytes(d->message);
	b->stats.queued++;
}

static void uncount(struct broker *b, struct delivery *d)
{
	struct session *s = d->session;

	s->n_queued--;
	s->bytes -= message_bytes(d->message);
	b->stats.queued--;
	if (!list_empty(&s->blocked))
		unblock(b, s);
	if (s->conn)
		session_mark_dirty(b, s);
}

/* No longer remembered for a nack. */
static void leave_recent(struct broker *b, struct delivery *d)
{
	list_del(&d->wait);
	b->sessions.n_recent--;
}

void delivery_free(struct broker *b, struct delivery *d)
{
	leave_state(d);
	list_del(&d->link);
	if (d->state == DELIVERY_RECENT)
		leave_recent(b, d);
	else
		uncount(b, d);
	message_put(&b->pool, d->message);
	message_put(&b->pool, d->nack);
	pool_free(&b->pool, d);
}

/* Done, but for a nack that may still come. */
static void acknowledged(struct broker *b, struct delivery *d)
{
	struct sessions *all = &b->sessions;
	struct delivery *oldest;

	if (!d->message->sealed || d->nacked) {
		delivery_free(b, d);
		return;
	}
	leave_state(d);
	list_del(&d->link);
	uncount(b, d);
	d->state = DELIVERY_RECENT;
	d->recent_until_ms = b->mono_ms + RECENT_MS;
	list_add_tail(&d->session->recent, &d->link);
	list_add_tail(&all->recent, &d->wait);
	all->n_recent++;
	while ((oldest = list_first(&all->recent, struct delivery, wait)) &&
	       (all->n_recent > RECENT_MAX || oldest->recent_until_ms <= b->mono_ms))
		delivery_free(b, oldest);
}

/* It is to be sent again after all, as a message of its own. */
static void recall(struct broker *b, struct delivery *d)
{
	leave_recent(b, d);
	d->state = DELIVERY_WAITING;
	d->packet_id = 0;
	count(b, d);
}

/* Behind those that came before it: few, if any, came after and stand there already. */
static void insert_in_order(struct list *to, struct delivery *d)
{
	struct list *at = to->prev;

	while (at != to && list_entry(at, struct delivery, link)->seq > d->seq)
		at = at->prev;
	list_add_head(at, &d->link);
}

/* Everything of one list back to `to`, as if never started; QoS 0 is dropped [MQTT-4.3.1]. In the
 * order of their first sending [MQTT-4.6.0-1], which a nack may have disturbed. */
static void rewind_list(struct broker *b, struct list *from, struct list *to)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, from) {
		struct delivery *d = list_entry(pos, struct delivery, link);

		if (d->qos == 0) {
			delivery_free(b, d);
			continue;
		}
		if (d->state == DELIVERY_SENT || d->packet_id)
			d->dup = true; /* [MQTT-4.4.0-1] */
		leave_state(d);
		message_put(&b->pool, d->nack);
		d->nack = NULL;
		list_del(&d->link);
		insert_in_order(to, d);
	}
}

void session_detach(struct broker *b, struct session *s)
{
	struct list all;

	list_init(&all);
	free_list(b, &s->recent);
	rewind_list(b, &s->sent, &all);
	rewind_list(b, &s->signing, &all);
	rewind_list(b, &s->converting, &all);
	rewind_list(b, &s->waiting, &all);
	list_splice_tail(&s->waiting, &all);
	BUG_ON(s->inflight || s->n_pipeline || s->pipeline_bytes);
	list_del(&s->dirty);
	s->stalled = false;
	s->sys_seen = 0; /* what was on its way may not have arrived */
	unblock(b, s);
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

void session_recheck_grants(struct broker *b, struct session *s)
{
	struct list all;

	list_init(&all);
	list_splice_tail(&all, &s->signing);
	list_splice_tail(&all, &s->converting);
	while (!list_empty(&all)) {
		struct delivery *d = list_entry(all.prev, struct delivery, link);

		leave_state(d);
		list_del(&d->link);
		list_add_head(&s->waiting, &d->link);
	}
	if (s->conn)
		session_mark_dirty(b, s);
}

bool session_acknowledge(struct broker *b, struct session *s, uint16_t packet_id)
{
	struct list *pos;

	list_for_each(pos, &s->sent) {
		struct delivery *d = list_entry(pos, struct delivery, link);

		if (d->packet_id == packet_id) {
			b->stats.acknowledged++;
			progress(b, s);
			acknowledged(b, d);
			return true;
		}
	}
	return false;
}

/* --- starting, converting, sending ------------------------------------------------------------ */

static bool id_in_list(struct list *l, uint16_t id)
{
	struct list *pos;

	list_for_each(pos, l) {
		const struct delivery *d = list_entry(pos, struct delivery, link);

		if (d->packet_id == id)
			return true;
		/* Of those that wait, the ones that were sent before stand in front. */
		if (d->packet_id == 0 && d->state == DELIVERY_WAITING)
			return false;
	}
	return false;
}

/*
 * Ids are given in ascending order, so the oldest unacknowledged delivery is the first that a new
 * id can meet: while the order holds, one look is enough.
 */
static bool id_in_use(struct session *s, uint16_t id)
{
	struct delivery *oldest = list_first(&s->sent, struct delivery, link);

	if (!s->ids_mixed) {
		if (!oldest || oldest->packet_id != id)
			return false;
		s->ids_mixed = true;
	}
	return id_in_list(&s->sent, id) || id_in_list(&s->signing, id) ||
	       id_in_list(&s->converting, id) || id_in_list(&s->waiting, id);
}

uint16_t delivery_packet_id(struct session *s, struct delivery *d)
{
	if (d->qos == 0)
		return 0;
	if (d->packet_id)
		return d->packet_id;
	if (s->n_queued == 1)
		s->ids_mixed = false; /* it is alone */
	do {
		s->packet_id_last++;
	} while (s->packet_id_last == 0 || id_in_use(s, s->packet_id_last));
	d->packet_id = s->packet_id_last;
	return d->packet_id;
}

void delivery_sent(struct broker *b, struct delivery *d)
{
	struct session *s = d->session;

	b->stats.delivered++;
	progress(b, s);
	if (d->qos == 0) {
		delivery_free(b, d);
		return;
	}
	if (d->state == DELIVERY_SIGNING) {
		signer_leave(d);
		leave_pipeline(d);
	} else {
		s->inflight++; /* a plain one, straight from waiting */
	}
	d->state = DELIVERY_SENT;
	list_del(&d->link);
	list_add_tail(&s->sent, &d->link);
	session_mark_dirty(b, s);
}

void delivery_restart(struct broker *b, struct delivery *d, struct message *nack)
{
	struct session *s = d->session;
	struct list *at = s->waiting.next;

	BUG_ON(d->state != DELIVERY_SENT && d->state != DELIVERY_RECENT);
	d->nacked = true;
	d->nack = message_get(nack);
	d->dup = d->state == DELIVERY_SENT;
	if (d->state == DELIVERY_RECENT)
		recall(b, d);
	memcpy(d->x_before, d->x, sizeof(d->x));
	s->ids_mixed = true;
	leave_state(d);
	list_del(&d->link);
	while (at != &s->waiting && list_entry(at, struct delivery, link)->seq < d->seq)
		at = at->next;
	list_add_tail(at, &d->link);
	session_mark_dirty(b, s);
}

/* A plain delivery: straight onto the connection. False: the connection ended. */
static bool send_plain(struct broker *b, struct session *s, struct delivery *d)
{
	struct mqtt_publish p = {
		.dup = d->dup,
		.retain = d->retain,
		.qos = d->qos,
		.topic = d->message->topic,
		.payload = d->message->payload,
	};
	size_t n = mqtt_publish_bytes(p.topic.n, p.payload.n, p.qos);
	uint8_t *out = conn_out(s->conn, n);
	struct bytes_writer w;

	if (!out)
		return false;
	p.packet_id = delivery_packet_id(s, d);
	w = bytes_writer_of(out, n);
	mqtt_encode_publish(&p, &w);
	BUG_ON(w.bad || w.left);
	delivery_sent(b, d);
	return true;
}

/* A sealed one sets out on its conversion. False: not now. */
static bool start_sealed(struct broker *b, struct session *s, struct delivery *d)
{
	const struct directory_grant *g = grant_of(b, s, d->message);

	if (!g) {
		b->stats.no_grant++;
		delivery_free(b, d);
		return true;
	}
	list_del(&d->link);
	list_add_tail(&s->converting, &d->link);
	d->state = DELIVERY_CONVERTED;
	enter_pipeline(d);
	s->inflight += d->qos;
	memcpy(d->grant_id, g->grant_id, GRANT_ID_BYTES);
	d->grant_flags = g->flags;
	if (capsule_convert(b, d, g)) {
		leave_state(d);
		list_del(&d->link);
		list_add_head(&s->waiting, &d->link);
		session_mark_dirty(b, s);
		b->starved = true;
		return false;
	}
	session_advance(b, s);
	return true;
}

static void pump(struct broker *b, struct session *s)
{
	struct delivery *d;

	/* Nothing is converted under a bundle that ran out; with the next one it goes on. */
	if (!b->config.plain && !directory_in_force(b->directory, b->wall_ms))
		return;
	while (s->conn && (d = list_first(&s->waiting, struct delivery, link))) {
		if (s->n_pipeline >= PIPELINE_MAX)
			return;
		if (d->qos && s->inflight >= b->config.limits.inflight_max)
			return;
		if (b->ops.backlog(b->io, s->conn->io) + s->pipeline_bytes >=
		    b->config.limits.output_bytes_soft)
			return;
		if (d->message->sealed ? !start_sealed(b, s, d) : !send_plain(b, s, d))
			return;
	}
}

void sessions_pump(struct broker *b)
{
	struct list now;

	list_init(&now);
	list_splice_tail(&now, &b->sessions.dirty);
	while (!list_empty(&now)) {
		struct session *s = list_first(&now, struct session, dirty);

		list_del(&s->dirty);
		pump(b, s);
	}
}

/* After a nack: the same conversion again is the sender's doing, not ours (PROTOCOL 7). */
static bool nack_stands(struct broker *b, struct delivery *d)
{
	struct message *nack = d->nack;
	bool same = memcmp(d->x, d->x_before, sizeof(d->x)) == 0;
	bool stands = same && nack->payload.p[0] == CONTROL_CANNOT_OPEN;

	d->nack = NULL;
	if (stands)
		control_report_sender(b, d, nack);
	message_put(&b->pool, nack);
	return stands;
}

/* It is not sent again: it still waits for its acknowledgement, unless it had that before. */
static void stand_still(struct broker *b, struct delivery *d)
{
	struct session *s = d->session;

	if (d->packet_id == 0) {
		delivery_free(b, d);
		return;
	}
	leave_pipeline(d);
	d->state = DELIVERY_SENT;
	list_add_tail(&s->sent, &d->link);
	session_mark_dirty(b, s); /* there is room in the pipeline */
}

void session_advance(struct broker *b, struct session *s)
{
	struct delivery *d;

	while ((d = list_first(&s->converting, struct delivery, link)) &&
	       d->state == DELIVERY_CONVERTED) {
		list_del(&d->link);
		if (d->nack && nack_stands(b, d)) {
			stand_still(b, d);
			continue;
		}
		d->state = DELIVERY_SIGNING;
		list_add_tail(&s->signing, &d->link);
		signer_add(b, d);
	}
}
