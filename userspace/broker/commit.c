// SPDX-License-Identifier: MIT
#include "userspace/broker/commit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/text.h"
#include "userspace/broker/auth.h"
#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"

#define RETRY_MS 1000

struct pending_revoked {
	struct list link;
	struct broker_commit_revoked entry;
};

static void retry_fired(struct timer *t)
{
	struct commit *c = container_of(t, struct commit, retry);

	c->broker->ops.commit(c->broker->io, &c->batch);
}

void commit_init(struct broker *b)
{
	struct commit *c = &b->commit;

	memset(c, 0, sizeof(*c));
	list_init(&c->dirty);
	list_init(&c->revoked);
	list_init(&c->acks);
	list_init(&c->acks_out);
	list_init(&c->opens);
	list_init(&c->opens_out);
	replies_init(&c->replies);
	timer_init(&c->retry, retry_fired);
	c->broker = b;
}

static void release(struct list *acks, void (*how)(struct ack *a))
{
	while (!list_empty(acks)) {
		struct ack *a = list_first(acks, struct ack, wait);

		list_del(&a->wait);
		how(a);
	}
}

static void release_opens(struct list *opens, bool stored)
{
	while (!list_empty(opens)) {
		struct broker_conn *conn = list_first(opens, struct conn_secure, commit_wait)->conn;

		list_del(&conn->secure->commit_wait);
		if (stored)
			auth_committed(conn);
		conn_put(conn);
	}
}

void commit_deinit(struct broker *b)
{
	struct commit *c = &b->commit;
	struct commit_sender *s, *tmp;

	release(&c->acks, ack_drop);
	release(&c->acks_out, ack_drop);
	release_opens(&c->opens, false);
	release_opens(&c->opens_out, false);
	while (!list_empty(&c->revoked)) {
		struct pending_revoked *r = list_first(&c->revoked, struct pending_revoked, link);

		list_del(&r->link);
		pool_free(&b->pool, r);
	}
	HASH_ITER(hh, c->senders, s, tmp)
		commit_sender_free(b, s);
	timer_cancel(&b->wheel, &c->retry);
	free(c->batch.replay);
	free(c->batch.contexts);
	free(c->batch.revoked);
}

struct commit_sender *commit_sender_find(struct broker *b, struct bytes id)
{
	struct commit_sender *s;

	HASH_FIND(hh, b->commit.senders, id.p, id.n, s);
	return s;
}

void commit_sender_free(struct broker *b, struct commit_sender *s)
{
	HASH_DELETE(hh, b->commit.senders, s);
	list_del(&s->dirty);
	pool_free(&b->pool, s);
}

struct commit_sender *commit_sender(struct broker *b, struct bytes id)
{
	struct commit_sender *s = commit_sender_find(b, id);

	if (s)
		return s;
	BUG_ON(id.n >= BROKER_SENDER_BYTES_MAX);
	s = pool_zalloc(&b->pool, sizeof(*s) + id.n + 1);
	if (!s)
		return NULL;
	memcpy(s->id, id.p, id.n);
	s->id_n = (uint8_t)id.n;
	list_init(&s->dirty);
	list_init(&s->contexts);
	list_init(&s->by_use);
	table_oom = false;
	HASH_ADD(hh, b->commit.senders, id, s->id_n, s);
	if (table_oom) {
		pool_free(&b->pool, s);
		return NULL;
	}
	return s;
}

int broker_restore_replay(struct broker *b, const struct broker_commit_replay *r)
{
	struct commit_sender *s;

	if (strchr(r->id, '/'))
		return origins_restore(b, r);
	if (!text_is_id(bytes_str(r->id)))
		return -EINVAL;
	s = commit_sender(b, bytes_str(r->id));
	if (!s)
		return -ENOMEM;
	s->window = r->window;
	return 0;
}

void commit_sender_changed(struct broker *b, struct commit_sender *s)
{
	if (list_empty(&s->dirty))
		list_add_tail(&b->commit.dirty, &s->dirty);
}

void commit_then_ack(struct broker *b, struct ack *a)
{
	if (a)
		list_add_tail(&b->commit.acks, &a->wait);
}

void commit_then_open(struct broker *b, struct broker_conn *conn)
{
	conn_get(conn);
	list_add_tail(&b->commit.opens, &conn->secure->commit_wait);
}

int commit_revoked(struct broker *b, const struct broker_commit_revoked *entry)
{
	struct pending_revoked *r = pool_alloc(&b->pool, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->entry = *entry;
	list_add_tail(&b->commit.revoked, &r->link);
	return 0;
}

/* Room for one more element of an array of n. False: no memory, it waits for the next commit. */
static bool room_for(void **array, unsigned *room, unsigned n, size_t size)
{
	unsigned more = *room ? 2 * *room : 64;
	void *bigger;

	if (n < *room)
		return true;
	bigger = realloc(*array, more * size);
	if (!bigger)
		return false;
	*array = bigger;
	*room = more;
	return true;
}

static bool take_senders(struct commit *c)
{
	struct commit_sender *s;

	while ((s = list_first(&c->dirty, struct commit_sender, dirty))) {
		struct broker_commit_replay *to;

		if (!room_for((void **)&c->batch.replay, &c->room_replay, c->batch.n_replay,
			      sizeof(*to)))
			return false;
		list_del(&s->dirty);
		to = &c->batch.replay[c->batch.n_replay++];
		memcpy(to->id, s->id, s->id_n + 1u);
		to->window = s->window;
		to->seen_ms = s->seen_ms;
	}
	return true;
}

static bool take_contexts(struct commit *c, struct contexts *contexts)
{
	struct context *x;

	while ((x = list_first(&contexts->dirty, struct context, dirty))) {
		if (!room_for((void **)&c->batch.contexts, &c->room_contexts, c->batch.n_contexts,
			      sizeof(*c->batch.contexts)))
			return false;
		list_del(&x->dirty);
		x->committed_ms = x->seen_ms;
		c->batch.contexts[c->batch.n_contexts++] = (struct broker_commit_context){
			.key_id = x->key.key_id,
			.enc_hash = x->key.enc_hash,
			.seen_ms = x->seen_ms,
		};
	}
	return true;
}

static bool take_revoked(struct broker *b, struct commit *c)
{
	struct pending_revoked *r;

	while ((r = list_first(&c->revoked, struct pending_revoked, link))) {
		if (!room_for((void **)&c->batch.revoked, &c->room_revoked, c->batch.n_revoked,
			      sizeof(*c->batch.revoked)))
			return false;
		list_del(&r->link);
		c->batch.revoked[c->batch.n_revoked++] = r->entry;
		pool_free(&b->pool, r);
	}
	return true;
}

static bool is_empty(const struct broker_commit *c)
{
	return !c->n_replay && !c->n_contexts && !c->n_revoked && !c->bundle_serial &&
	       !c->n_sessions && !c->n_subscriptions && !c->n_messages && !c->n_deliveries &&
	       !c->n_releases && !c->n_incoming && !c->n_retained;
}

/* Is there something to store besides what durable.h has? */
static bool has_reason(const struct broker *b)
{
	const struct commit *c = &b->commit;

	return c->bundle_serial || !list_empty(&c->revoked) || !list_empty(&c->dirty) ||
	       !list_empty(&b->contexts.dirty);
}

void commit_turn(struct broker *b)
{
	struct commit *c = &b->commit;
	bool whole;

	if (c->out)
		return;
	c->batch.n_replay = c->batch.n_contexts = c->batch.n_revoked = 0;
	c->batch.bundle_serial = 0;
	/* Queues first, and whole: a counter that is stored says that its message is. */
	whole = durable_take(b, &c->batch, has_reason(b));
	if (whole) {
		c->batch.bundle_serial = c->bundle_serial;
		c->bundle_serial = 0;
		whole = take_revoked(b, c) && take_senders(c) && take_contexts(c, &b->contexts);
	}
	if (is_empty(&c->batch)) {
		if (whole) { /* all they wait for is stored already */
			durable_committed(b);
			release(&c->acks, ack_ready);
			release_opens(&c->opens, true);
			replies_release(b, &c->replies.next);
		}
		return;
	}
	/* Where memory did not last for all, no acknowledgement goes with this part. */
	if (whole) {
		list_splice_tail(&c->acks_out, &c->acks);
		list_splice_tail(&c->opens_out, &c->opens);
		replies_formed(b);
	}
	c->out = true;
	b->ops.commit(b->io, &c->batch);
}

void broker_commit_done(struct broker *b, int error)
{
	struct commit *c = &b->commit;

	BUG_ON(!c->out);
	if (error) {
		timer_arm(&b->wheel, &c->retry, b->mono_ms + RETRY_MS);
		return;
	}
	c->out = false;
	b->stats.commits++;
	durable_committed(b);
	release(&c->acks_out, ack_ready);
	release_opens(&c->opens_out, true);
	replies_release(b, &c->replies.out);
}
