// SPDX-License-Identifier: MIT
#include "userspace/distributor/capsule.h"

#include <string.h>

#include "userspace/distributor/alloc.h"
#include "userspace/distributor/relay.h"

/* A token that refuses a key is asked again so often, lest a passing fault cost a message. */
#define REFUSALS_MAX 5

void capsules_init(struct capsules *c, unsigned n_max)
{
	*c = (struct capsules){ .n_max = n_max };
	list_init(&c->lru);
	list_init(&c->unlisted);
}

static void capsule_free(struct capsule *c)
{
	list_del(&c->lru);
	plan_put(c->plan);
	free(c);
}

/* Out of the table; it goes now, or when the token has answered. */
static void discard(struct capsules *all, struct capsule *c)
{
	BUG_ON(!list_empty(&c->waiters));
	if (!c->unlisted) {
		HASH_DELETE(hh, all->table, c);
		all->n--;
		list_del(&c->lru);
		c->unlisted = true;
		list_add_tail(&all->unlisted, &c->lru);
	}
	if (ask_cancel(&c->ask))
		capsule_free(c);
}

void capsules_deinit(struct capsules *all)
{
	struct capsule *c, *tmp;

	HASH_ITER(hh, all->table, c, tmp)
		discard(all, c);
	BUG_ON(!list_empty(&all->unlisted));
}

/* Nobody gets it: what waits is given up. */
static void give_up(struct capsule *c)
{
	while (!list_empty(&c->waiters)) {
		struct outgoing *o = list_first(&c->waiters, struct outgoing, capsule_wait);

		list_del(&o->capsule_wait);
		outgoing_void(o);
	}
}

static void answer(struct capsule *c)
{
	while (!list_empty(&c->waiters)) {
		struct outgoing *o = list_first(&c->waiters, struct outgoing, capsule_wait);

		list_del(&o->capsule_wait);
		memcpy(o->x, c->x, sizeof(o->x));
		outgoing_waited(o);
	}
}

static void refused(struct capsule *c)
{
	struct relay *r = c->relay;

	r->ops->note(r->io, RELAY_NOTE_KEY_REFUSED, c->outlet->outlet.name);
	if (++c->refusals < REFUSALS_MAX) {
		ask_later(&c->ask);
		return;
	}
	c->outlet->broken = true;
	give_up(c);
	discard(&r->capsules, c);
}

static void converted(struct ask *a)
{
	struct capsule *c = container_of(a, struct capsule, ask);
	struct relay *r = c->relay;

	if (c->unlisted) {
		capsule_free(c);
		return;
	}
	switch (a->job.status) {
	case HSM_OK:
		c->ready = true;
		memcpy(c->x, a->job.output, sizeof(c->x));
		plan_put(c->plan);
		c->plan = NULL;
		list_add_tail(&r->capsules.lru, &c->lru);
		answer(c);
		return;
	case HSM_NO_KEY: /* forgotten, and taken back by a newer bundle meanwhile */
		ask_later(a);
		return;
	case HSM_BAD_REQUEST:
	case HSM_BAD_KEY:
	case HSM_FULL:
	case HSM_UNAVAILABLE:
		break;
	}
	refused(c);
}

static void make_room(struct capsules *all)
{
	struct capsule *oldest;

	while (all->n >= all->n_max && (oldest = list_first(&all->lru, struct capsule, lru)))
		discard(all, oldest);
}

static struct capsule *capsule_new(struct relay *r, const struct capsule_key *key,
				   const struct p256_point *point, struct outgoing *o)
{
	struct capsule *c = alloc_zeroed(sizeof(*c));

	make_room(&r->capsules);
	c->key = *key;
	c->relay = r;
	c->outlet = o->outlet;
	c->plan = plan_get(o->delivery->plan);
	list_init(&c->lru);
	list_init(&c->waiters);
	ask_init(&c->ask, &r->asks);
	c->ask.job.op = HSM_CONVERT;
	c->ask.job.blob = o->outlet->outlet.wrapped_rk;
	c->ask.answered = converted;
	memcpy(c->ask.job.grant_id, key->grant_id, GRANT_ID_BYTES);
	memcpy(c->ask.job.input, point->b, sizeof(point->b));
	HASH_ADD(hh, r->capsules.table, key, sizeof(c->key), c);
	r->capsules.n++;
	r->capsules.asked++;
	return c;
}

bool capsule_convert(struct relay *r, struct outgoing *o, struct bytes x)
{
	struct p256_point point;
	struct capsule_key key;
	struct capsule *c;

	memcpy(key.grant_id, o->outlet->outlet.grant.grant_id, sizeof(key.grant_id));
	memcpy(key.x, x.p, sizeof(key.x));
	HASH_FIND(hh, r->capsules.table, &key, sizeof(key), c);
	if (c && c->ready) {
		r->capsules.hits++;
		list_del(&c->lru);
		list_add_tail(&r->capsules.lru, &c->lru);
		memcpy(o->x, c->x, sizeof(o->x));
		return true;
	}
	if (!c) {
		/* Above level 0 it is a point of either sign with this x (PROTOCOL 3). */
		if (o->outlet->broken || p256_point_lift(x.p, &point)) {
			o->state = OUTGOING_VOID;
			return false;
		}
		c = capsule_new(r, &key, &point, o);
		ask_submit(&c->ask);
	}
	list_add_tail(&c->waiters, &o->capsule_wait);
	return false;
}

void capsules_plan(struct relay *r)
{
	struct capsule *c, *tmp;

	HASH_ITER(hh, r->capsules.table, c, tmp) {
		if (!c->ready && plan_has(r->plan, c->outlet))
			continue; /* its answer is the same */
		give_up(c);
		discard(&r->capsules, c);
	}
}
