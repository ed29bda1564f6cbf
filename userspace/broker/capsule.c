// SPDX-License-Identifier: MIT
#include "userspace/broker/capsule.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/broker/engine.h"

#define RETRY_MS 500
/* A token that refuses a key is asked again so often, lest a passing fault cost what was
 * acknowledged. */
#define REFUSALS_MAX 5

static void retry_fired(struct timer *t);

void capsules_init(struct capsules *c)
{
	c->table = NULL;
	c->n = 0;
	list_init(&c->lru);
}

/* Out of the table: no delivery finds it any more. */
static void unlist(struct broker *b, struct capsule *c)
{
	if (c->unlisted)
		return;
	HASH_DELETE(hh, b->capsules.table, c);
	b->capsules.n--;
	list_del(&c->lru);
	c->unlisted = true;
}

/* Frees it, unless the token still has its job: then capsule_done() does. */
static void discard(struct broker *b, struct capsule *c)
{
	unlist(b, c);
	timer_cancel(&b->wheel, &c->retry);
	if (c->state == CAPSULE_ASKED)
		return;
	BUG_ON(!list_empty(&c->waiters));
	directory_put(c->directory);
	pool_free(&b->pool, c);
}

void capsules_deinit(struct broker *b)
{
	struct capsule *c, *tmp;

	HASH_ITER(hh, b->capsules.table, c, tmp) {
		BUG_ON(c->state == CAPSULE_ASKED); /* jobs must have been given back */
		discard(b, c);
	}
}

static void ask(struct broker *b, struct capsule *c)
{
	c->state = CAPSULE_ASKED;
	c->job.deadline_ms = b->mono_ms + b->config.limits.convert_deadline_ms;
	b->stats.conversions++;
	b->ops.token(b->io, &c->job);
}

static void make_room(struct broker *b)
{
	while (b->capsules.n >= b->config.limits.capsules_max) {
		struct capsule *oldest = list_first(&b->capsules.lru, struct capsule, lru);

		if (!oldest)
			return; /* all are being asked: there are as many as deliveries under way */
		discard(b, oldest);
	}
}

static int capsule_new(struct broker *b, const struct capsule_key *key, const struct message *m,
		       const struct directory_grant *g, struct capsule **ret_c)
{
	struct capsule *c;

	make_room(b);
	c = pool_zalloc(&b->pool, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->key = *key;
	c->broker = b;
	list_init(&c->lru);
	list_init(&c->waiters);
	timer_init(&c->retry, retry_fired);
	table_oom = false;
	HASH_ADD(hh, b->capsules.table, key, sizeof(c->key), c);
	if (table_oom) {
		pool_free(&b->pool, c);
		return -ENOMEM;
	}
	b->capsules.n++;
	c->directory = directory_get(b->directory);
	c->job.op = BROKER_TOKEN_CONVERT;
	memcpy(c->job.grant_id, key->grant_id, GRANT_ID_BYTES);
	memcpy(c->job.input, m->sealed->e.b, P256_POINT_BYTES);
	c->job.blob = g->wrapped_rk;
	*ret_c = c;
	return 0;
}

static struct capsule *find(struct broker *b, const struct capsule_key *key)
{
	struct capsule *c;

	HASH_FIND(hh, b->capsules.table, key, sizeof(*key), c);
	return c;
}

int capsule_convert(struct broker *b, struct delivery *d, const struct directory_grant *g)
{
	const struct message *m = d->message;
	struct capsule_key key;
	struct capsule *c;
	int err;

	memcpy(key.grant_id, g->grant_id, GRANT_ID_BYTES);
	p256_point_compress(&m->sealed->e, key.point);
	c = find(b, &key);
	if (c && c->state == CAPSULE_READY && d->sealed->nack) {
		discard(b, c);
		c = NULL;
	}
	if (c && c->state == CAPSULE_READY) {
		b->stats.capsule_hits++;
		list_del(&c->lru);
		list_add_tail(&b->capsules.lru, &c->lru);
		memcpy(d->sealed->x, c->x, sizeof(d->sealed->x));
		d->state = DELIVERY_CONVERTED;
		return 0;
	}
	if (!c) {
		err = capsule_new(b, &key, m, g, &c);
		if (err)
			return err;
		ask(b, c);
	}
	d->state = DELIVERY_CONVERTING;
	d->sealed->capsule = c;
	list_add_tail(&c->waiters, &d->sealed->wait);
	return 0;
}

void capsule_leave(struct delivery *d)
{
	list_del(&d->sealed->wait);
	d->sealed->capsule = NULL;
}

static void answer(struct broker *b, struct capsule *c)
{
	while (!list_empty(&c->waiters)) {
		struct delivery *d = delivery_first_waiting(&c->waiters);

		capsule_leave(d);
		memcpy(d->sealed->x, c->x, sizeof(d->sealed->x));
		d->state = DELIVERY_CONVERTED;
		deliveries_advance(b, d->session);
	}
}

/* Gives up those waiting deliveries that `only_qos0` says, and lets what is behind them go on. One
 * at a time from the front: what goes on may end connections, and with them other waiters. */
static void drop_waiters(struct broker *b, struct capsule *c, bool only_qos0)
{
	struct list all;

	list_init(&all);
	list_splice_tail(&all, &c->waiters);
	while (!list_empty(&all)) {
		struct delivery *d = delivery_first_waiting(&all);
		struct session *s = d->session;

		list_del(&d->sealed->wait);
		if (only_qos0 && d->qos) {
			list_add_tail(&c->waiters, &d->sealed->wait);
			continue;
		}
		b->stats.dropped_qos0 += d->qos == 0;
		control_error_to(b, d->message->sealed->sender, CONTROL_UNAVAILABLE,
				 d->message->sealed->envelope.counter);
		delivery_free(b, d);
		deliveries_advance(b, s);
	}
}

/* Not now: QoS 0 does not wait, QoS 1 does. */
static void pause_capsule(struct broker *b, struct capsule *c)
{
	b->stats.conversion_retries++;
	drop_waiters(b, c, true);
	timer_arm(&b->wheel, &c->retry, b->mono_ms + RETRY_MS);
}

void capsule_done(struct broker *b, struct broker_token_job *job)
{
	struct capsule *c = container_of(job, struct capsule, job);

	c->state = CAPSULE_PAUSED; /* whatever it was asked, the token has it no more */
	if (c->unlisted) {
		discard(b, c);
		return;
	}
	switch (job->status) {
	case BROKER_TOKEN_OK:
		c->state = CAPSULE_READY;
		memcpy(c->x, job->output, sizeof(c->x));
		directory_put(c->directory);
		c->directory = NULL;
		list_add_tail(&b->capsules.lru, &c->lru);
		answer(b, c);
		return;
	case BROKER_TOKEN_REFUSED:
		broker_note(b, "conversion refused", bytes_of(NULL, 0),
			    "the token does not take this grant's key");
		if (++c->refusals < REFUSALS_MAX)
			return pause_capsule(b, c);
		drop_waiters(b, c, false);
		discard(b, c);
		return;
	case BROKER_TOKEN_UNAVAILABLE:
		return pause_capsule(b, c);
	}
}

static void retry_fired(struct timer *t)
{
	struct capsule *c = container_of(t, struct capsule, retry);
	struct broker *b = c->broker;

	if (list_empty(&c->waiters))
		discard(b, c);
	else
		ask(b, c);
}

/* --- revocation ------------------------------------------------------------------------------- */

static int by_grant_id(const void *a, const void *b)
{
	return memcmp(a, b, GRANT_ID_BYTES);
}

void capsules_revoke(struct broker *b, const struct directory *old, const struct directory *now)
{
	uint8_t(*gone)[GRANT_ID_BYTES] = calloc(old->n_grants + 1u, GRANT_ID_BYTES);
	struct capsule *c, *tmp;
	unsigned n = 0;

	for (unsigned i = 0; gone && i < old->n_grants; i++) {
		if (directory_has_grant(now, &old->grants[i]))
			continue;
		memcpy(gone[n++], old->grants[i].grant_id, GRANT_ID_BYTES);
		b->ops.forget(b->io, old->grants[i].grant_id);
	}
	if (gone)
		qsort(gone, n, GRANT_ID_BYTES, by_grant_id);
	HASH_ITER(hh, b->capsules.table, c, tmp) {
		/* Without memory for the list all are dropped: that costs time, never a secret. */
		if (gone && !bsearch(c->key.grant_id, gone, n, GRANT_ID_BYTES, by_grant_id))
			continue;
		discard(b, c);
	}
	free(gone);
}
