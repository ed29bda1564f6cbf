// SPDX-License-Identifier: MIT
#include "userspace/distributor/subscriber.h"

#include <string.h>

#include "userspace/distributor/alloc.h"
#include "userspace/distributor/store.h"

#define QOS	1
#define REFUSED 0x80

/* --- sets ------------------------------------------------------------------------------------- */

static bool set_has(const struct subscriber_set *set, struct bytes filter)
{
	for (unsigned i = 0; i < set->n; i++)
		if (bytes_equal(set->list[i], filter))
			return true;
	return false;
}

static void set_add(struct subscriber_set *set, struct bytes filter)
{
	uint8_t *copy;

	if (set_has(set, filter))
		return;
	if (set->n == set->room) {
		set->room = set->room ? 2 * set->room : 16;
		set->list = alloc_larger(set->list, set->room * sizeof(set->list[0]));
	}
	copy = alloc_zeroed(filter.n);
	memcpy(copy, filter.p, filter.n);
	set->list[set->n++] = bytes_of(copy, filter.n);
}

static void filter_free(struct bytes filter)
{
	free((void *)(uintptr_t)filter.p);
}

static void set_remove(struct subscriber_set *set, struct bytes filter)
{
	for (unsigned i = 0; i < set->n; i++) {
		if (!bytes_equal(set->list[i], filter))
			continue;
		filter_free(set->list[i]);
		set->list[i] = set->list[--set->n];
		return;
	}
}

static void set_clear(struct subscriber_set *set)
{
	while (set->n)
		filter_free(set->list[--set->n]);
	free(set->list);
	*set = (struct subscriber_set){ 0 };
}

/* --- packets ---------------------------------------------------------------------------------- */

/* Those of a that are in none of the others, as many as a packet takes. */
static bool pick(struct subscriber *s, const struct subscriber_set *a,
		 const struct subscriber_set *b, const struct subscriber_set *c)
{
	set_clear(&s->out);
	for (unsigned i = 0; i < a->n && s->out.n < MQTT_FILTERS_MAX; i++)
		if (!set_has(b, a->list[i]) && !(c && set_has(c, a->list[i])))
			set_add(&s->out, a->list[i]);
	return s->out.n > 0;
}

static void next(struct subscriber *s)
{
	if (s->busy || !session_is_open(s->session))
		return;
	s->busy = true;
	if (pick(s, &s->want, &s->have, &s->refused))
		session_subscribe(s->session, s->out.list, s->out.n, QOS);
	else if (pick(s, &s->have, &s->want, NULL))
		session_unsubscribe(s->session, s->out.list, s->out.n);
	else
		s->busy = false;
}

static void keep(struct subscriber *s)
{
	if (store_set_filters(s->store, s->have.list, s->have.n))
		log_warn("subscriptions=unsaved why=\"%s\": a restart subscribes again",
			 store_words(s->store));
}

void subscriber_answered(struct subscriber *s, uint16_t packet_id, struct bytes codes)
{
	bool subscribed = packet_id == SESSION_ID_SUBSCRIBE;

	if (!s->busy || (subscribed && codes.n != s->out.n))
		return; /* not of ours, or of no use */
	for (unsigned i = 0; i < s->out.n; i++) {
		struct bytes filter = s->out.list[i];

		if (!subscribed) {
			set_remove(&s->have, filter);
		} else if (codes.p[i] == REFUSED) {
			log_error("filter=\"%.*s\" refused by the broker: nothing comes from it",
				  (int)filter.n, (const char *)filter.p);
			set_add(&s->refused, filter);
		} else {
			set_add(&s->have, filter);
		}
	}
	s->busy = false;
	keep(s);
	next(s);
}

/* --- what happens ----------------------------------------------------------------------------- */

static int load(void *ctx, struct bytes filter)
{
	set_add(ctx, filter);
	return 0;
}

int subscriber_init(struct subscriber *s, struct session *session, struct store *store)
{
	*s = (struct subscriber){ .session = session, .store = store };
	return store_filters(store, load, &s->have);
}

void subscriber_deinit(struct subscriber *s)
{
	set_clear(&s->want);
	set_clear(&s->have);
	set_clear(&s->refused);
	set_clear(&s->out);
}

void subscriber_plan(struct subscriber *s, const struct plan *p)
{
	set_clear(&s->want);
	set_clear(&s->refused);
	for (unsigned i = 0; i < p->n_hops; i++)
		for (unsigned k = 0; k < p->hops[i].grant.n_filters; k++)
			set_add(&s->want, p->hops[i].grant.filters[k]);
	next(s); /* or when the answer to what is out is here */
}

void subscriber_opened(struct subscriber *s, bool present)
{
	if (!present && s->have.n) {
		set_clear(&s->have);
		keep(s);
	}
	next(s);
}

void subscriber_closed(struct subscriber *s)
{
	s->busy = false;
	set_clear(&s->refused);
}
