// SPDX-License-Identifier: MIT
#include "tests/fake_check.h"

#include "tests/harness.h"
#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"

/* What the lists say. */
struct tally {
	unsigned queued, pipeline, inflight, ids;
	size_t bytes, pipeline_bytes;
};

/* Of what is to be stored, and whether it says so. */
static void check_record(struct session *s, const struct delivery *d)
{
	const struct durable_change *c = (const struct durable_change *)(const void *)d - 1;

	ASSERT_TRUE(c->state == DURABLE_NEW || c->state == DURABLE_STORED ||
		    c->state == DURABLE_CHANGED);
	ASSERT_EQ(list_empty(&c->link), c->state == DURABLE_STORED);
	ASSERT_TRUE(list_empty(&c->link) || !list_empty(&s->durable->link));
	ASSERT_FALSE(c->freed);
	ASSERT_TRUE(d->message->durable && d->message->durable->rows > 0);
	ASSERT_TRUE(c->state != DURABLE_STORED || d->message->durable->number > 0);
	if (d->qos == 2 && d->state != DELIVERY_WAITING)
		ASSERT_EQ(c->packet_id, d->packet_id);
}

static void count(struct session *s, const struct delivery *d, struct tally *t)
{
	size_t n = message_bytes(d->message);
	bool pipeline = d->state != DELIVERY_WAITING && d->state != DELIVERY_SENT;

	ASSERT_TRUE(d->session == s);
	ASSERT_EQ(d->sealed != NULL, d->message->sealed != NULL);
	t->queued++;
	t->bytes += n;
	if (pipeline) {
		t->pipeline++;
		t->pipeline_bytes += n;
	}
	if (d->qos && d->state != DELIVERY_WAITING)
		t->inflight++;
	ASSERT_EQ(d->durable, s->durable && d->qos > 0);
	if (d->durable)
		check_record(s, d);
	if (d->packet_id) {
		ASSERT_GT(d->qos, 0);
		ASSERT_TRUE(outgoing_delivery(&s->outgoing, d->packet_id) == d);
		t->ids++;
	}
}

static void count_list(struct session *s, struct list *l, enum delivery_state first,
		       enum delivery_state last, struct tally *t)
{
	struct list *pos;

	list_for_each(pos, l) {
		struct delivery *d = list_entry(pos, struct delivery, link);

		ASSERT_TRUE(d->state >= first && d->state <= last);
		ASSERT_TRUE(d->state != DELIVERY_SENT || d->packet_id);
		count(s, d, t);
	}
}

static unsigned check_recent(struct session *s)
{
	struct list *pos;
	unsigned n = 0;

	list_for_each(pos, &s->recent) {
		struct delivery *d = list_entry(pos, struct delivery, link);

		ASSERT_EQ(d->state, DELIVERY_RECENT);
		ASSERT_TRUE(d->session == s && d->sealed && d->packet_id == 0);
		n++;
	}
	return n;
}

static unsigned releases(const struct session *s)
{
	unsigned n = 0;

	for (uint16_t id = outgoing_next_release(&s->outgoing, 0); id;
	     id = outgoing_next_release(&s->outgoing, id)) {
		ASSERT_TRUE(outgoing_is_release(&s->outgoing, id));
		ASSERT_EQ(outgoing_kept(&s->outgoing, id) != NULL, s->durable != NULL);
		n++;
	}
	return n;
}

/* A session that nobody is connected to has nothing under way, and nobody waits for it. */
static void check_absent(struct session *s)
{
	struct list *pos;

	ASSERT_TRUE(list_empty(&s->converting) && list_empty(&s->signing));
	ASSERT_TRUE(list_empty(&s->sent) && list_empty(&s->recent));
	ASSERT_TRUE(list_empty(&s->walks) && list_empty(&s->walking));
	ASSERT_TRUE(list_empty(&s->dirty) && list_empty(&s->blocked));
	list_for_each(pos, &s->waiting)
		ASSERT_GT(list_entry(pos, struct delivery, link)->qos, 0);
}

static void check_session(struct broker *b, struct session *s, unsigned *recent)
{
	struct tally t = { 0 };

	count_list(s, &s->waiting, DELIVERY_WAITING, DELIVERY_WAITING, &t);
	count_list(s, &s->converting, DELIVERY_CONVERTING, DELIVERY_CONVERTED, &t);
	count_list(s, &s->signing, DELIVERY_SIGNING, DELIVERY_SIGNING, &t);
	count_list(s, &s->sent, DELIVERY_SENT, DELIVERY_SENT, &t);
	*recent += check_recent(s);
	ASSERT_EQ(s->n_queued, t.queued);
	ASSERT_EQ(s->bytes, t.bytes);
	ASSERT_EQ(s->n_pipeline, t.pipeline);
	ASSERT_EQ(s->pipeline_bytes, t.pipeline_bytes);
	ASSERT_EQ(s->outgoing.n_releases, releases(s));
	ASSERT_EQ(s->inflight, t.inflight + s->outgoing.n_releases);
	ASSERT_EQ(s->outgoing.used, t.ids + s->outgoing.n_releases);
	ASSERT_TRUE(list_empty(&s->walking) || !list_empty(&s->walks));
	ASSERT_EQ(s->durable != NULL, b->config.durable && !s->clean);
	ASSERT_TRUE(!s->durable || s->durable->session == s);
	if (!s->conn)
		return check_absent(s);
	ASSERT_TRUE(s->conn->session == s);
	ASSERT_EQ(s->conn->state, CONN_OPEN);
	ASSERT_EQ(s->party == NULL, b->config.plain);
}

static void check_updates(struct broker *b, struct broker_conn *c)
{
	const struct updates_conn *u = &c->secure->updates;

	ASSERT_TRUE(list_empty(&u->ready) || (u->pending && !u->out));
	ASSERT_TRUE(!u->pending || (u->asked && c->state == CONN_OPEN));
	/* It waits for a turn, for what is out, or for room. */
	ASSERT_TRUE(!u->pending || u->out || !list_empty(&u->ready) ||
		    b->ops.backlog(b->io, c->io) >= b->config.limits.output_bytes_soft);
}

void fake_check(struct fake_broker *f)
{
	struct broker *b = f->engine;
	struct session *s, *tmp;
	unsigned sessions = 0, queued = 0, recent = 0, conns = 0;
	struct list *pos;

	HASH_ITER(hh, b->sessions.table, s, tmp) {
		check_session(b, s, &recent);
		sessions++;
		queued += s->n_queued;
	}
	ASSERT_EQ(b->sessions.n, sessions);
	ASSERT_EQ(b->sessions.n_recent, recent);
	ASSERT_EQ(b->stats.queued, queued);
	list_for_each(pos, &b->conns) {
		struct broker_conn *c = list_entry(pos, struct broker_conn, link);

		ASSERT_NE(c->state, CONN_CLOSED);
		ASSERT_EQ(c->session != NULL, c->state == CONN_OPEN);
		ASSERT_TRUE(!c->session || c->session->conn == c);
		ASSERT_EQ((c->pauses & CONN_PAUSE_RECEIVER) != 0, !list_empty(&c->blocked));
		if (c->secure)
			check_updates(b, c);
		conns++;
	}
	ASSERT_EQ(b->stats.connections, conns);
}

/* --- who goes on ------------------------------------------------------------------------------ */

/* What waits at the front has a reason to, which will end by itself or with an event. */
static void check_waiting(struct broker *b, struct session *s)
{
	const struct broker_limits *l = &b->config.limits;
	struct delivery *d = list_first(&s->waiting, struct delivery, link);

	if (!d || !list_empty(&s->dirty))
		return;
	ASSERT_TRUE(b->ops.backlog(b->io, s->conn->io) + s->pipeline_bytes >=
			    l->output_bytes_soft ||
		    (d->qos && s->inflight >= l->inflight_max) || s->n_pipeline > 0 ||
		    (d->qos && s->outgoing.used == UINT16_MAX) ||
		    (d->durable && d->qos == 2 && !durable_is_stored(b, durable_of(d)) &&
		     (b->commit.out || b->starved)) ||
		    (!b->config.plain && (!directory_in_force(b->directory, b->wall_ms) ||
					  s->conn->secure->updates.pending ||
					  timer_armed(&s->conn->secure->updates.awaited))));
}

void fake_check_settled(struct fake_broker *f)
{
	struct broker *b = f->engine;
	struct session *s, *tmp;

	fake_check(f);
	HASH_ITER(hh, b->sessions.table, s, tmp) {
		struct delivery *first = list_first(&s->converting, struct delivery, link);

		if (!s->conn)
			continue;
		check_waiting(b, s);
		ASSERT_TRUE(!first || (first->state == DELIVERY_CONVERTING &&
				       first->sealed->capsule != NULL));
		ASSERT_TRUE(list_empty(&s->blocked) ||
			    (s->n_queued > b->config.limits.queue_high_water / 2 &&
			     timer_armed(&s->stall)));
		ASSERT_TRUE(list_empty(&s->walks) || !list_empty(&s->walking) || s->n_queued > 0);
	}
}
