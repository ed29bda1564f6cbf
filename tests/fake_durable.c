// SPDX-License-Identifier: MIT
#include "tests/fake_durable.h"

#include <stdlib.h>

#include "tests/harness.h"

static struct bytes copy_of(struct bytes v)
{
	uint8_t *copy = malloc(v.n ? v.n : 1);

	if (!copy)
		abort();
	if (v.n)
		memcpy(copy, v.p, v.n);
	return bytes_of(copy, v.n);
}

static void drop(struct bytes *v)
{
	free((void *)(uintptr_t)v->p);
	*v = bytes_of(NULL, 0);
}

static void drop_subscription(struct broker_commit_subscription *r)
{
	drop(&r->filter);
}

static void drop_message(struct broker_commit_message *r)
{
	drop(&r->topic);
	drop(&r->payload);
	drop(&r->sender);
}

static void copy_subscription(struct broker_commit_subscription *r)
{
	r->filter = copy_of(r->filter);
}

static void copy_message(struct broker_commit_message *r)
{
	r->topic = copy_of(r->topic);
	r->payload = copy_of(r->payload);
	r->sender = copy_of(r->sender);
}

/* The functions for one kind of row: where it stands, and what becomes of it; `at` of all that
 * satisfy `same` is the first. */
#define TABLE(kind, plural, same, copy, dropped)                                               \
	static unsigned find_##kind(const struct fake_durable *d,                              \
				    const struct broker_commit_##kind *r)                      \
	{                                                                                      \
		unsigned i = 0;                                                                \
		for (; i < d->rows.n_##plural; i++) {                                          \
			const struct broker_commit_##kind *have = &d->rows.plural[i];          \
			if (same)                                                              \
				break;                                                         \
		}                                                                              \
		return i;                                                                      \
	}                                                                                      \
	static void remove_##kind(struct fake_durable *d, unsigned at)                         \
	{                                                                                      \
		struct broker_commit_##kind *all = d->rows.plural;                             \
		dropped(&all[at]);                                                             \
		memmove(&all[at], &all[at + 1], (--d->rows.n_##plural - at) * sizeof(*all));   \
	}                                                                                      \
	static void apply_##kind(struct fake_durable *d, const struct broker_commit_##kind *r) \
	{                                                                                      \
		unsigned at = find_##kind(d, r);                                               \
		d->written++;                                                                  \
		if (r->gone) {                                                                 \
			ASSERT_LT(at, d->rows.n_##plural);                                     \
			remove_##kind(d, at);                                                  \
			return;                                                                \
		}                                                                              \
		if (at < d->rows.n_##plural) {                                                 \
			dropped(&d->rows.plural[at]);                                          \
		} else if (d->rows.n_##plural++ == d->room_##plural) {                         \
			d->room_##plural = d->room_##plural ? 2 * d->room_##plural : 64;       \
			d->rows.plural = realloc(d->rows.plural,                               \
						 d->room_##plural * sizeof(*d->rows.plural));  \
			if (!d->rows.plural)                                                   \
				abort();                                                       \
		}                                                                              \
		d->rows.plural[at] = *r;                                                       \
		copy(&d->rows.plural[at]);                                                     \
	}

#define NOTHING(r) ((void)(r))

TABLE(session, sessions, have->number == r->number, NOTHING, NOTHING)
TABLE(subscription, subscriptions, have->session == r->session && have->number == r->number,
      copy_subscription, drop_subscription)
TABLE(message, messages, have->number == r->number, copy_message, drop_message)
TABLE(delivery, deliveries, have->session == r->session && have->seq == r->seq, NOTHING, NOTHING)
TABLE(release, releases, have->session == r->session && have->place == r->place, NOTHING, NOTHING)
TABLE(incoming, incoming, have->session == r->session && have->packet_id == r->packet_id, NOTHING,
      NOTHING)
TABLE(retained, retained, have->message == r->message, NOTHING, NOTHING)

/* All rows of a session that went. */
static void purge(struct fake_durable *d, uint64_t session)
{
	for (unsigned i = d->rows.n_subscriptions; i-- > 0;)
		if (d->rows.subscriptions[i].session == session)
			remove_subscription(d, i);
	for (unsigned i = d->rows.n_deliveries; i-- > 0;)
		if (d->rows.deliveries[i].session == session)
			remove_delivery(d, i);
	for (unsigned i = d->rows.n_releases; i-- > 0;)
		if (d->rows.releases[i].session == session)
			remove_release(d, i);
	for (unsigned i = d->rows.n_incoming; i-- > 0;)
		if (d->rows.incoming[i].session == session)
			remove_incoming(d, i);
}

static void expect_session(const struct fake_durable *d, uint64_t number)
{
	struct broker_commit_session r = { .number = number };

	ASSERT_LT(find_session(d, &r), d->rows.n_sessions);
}

static void count_name(const struct fake_durable *d, unsigned *names, uint64_t message)
{
	struct broker_commit_message r = { .number = message };
	unsigned at = find_message(d, &r);

	ASSERT_LT(at, d->rows.n_messages);
	names[at]++;
}

static void check(const struct fake_durable *d)
{
	unsigned *names = calloc(d->rows.n_messages + 1, sizeof(*names));

	if (!names)
		abort();
	for (unsigned i = 0; i < d->rows.n_subscriptions; i++)
		expect_session(d, d->rows.subscriptions[i].session);
	for (unsigned i = 0; i < d->rows.n_releases; i++)
		expect_session(d, d->rows.releases[i].session);
	for (unsigned i = 0; i < d->rows.n_incoming; i++)
		expect_session(d, d->rows.incoming[i].session);
	for (unsigned i = 0; i < d->rows.n_deliveries; i++) {
		expect_session(d, d->rows.deliveries[i].session);
		count_name(d, names, d->rows.deliveries[i].message);
	}
	for (unsigned i = 0; i < d->rows.n_retained; i++)
		count_name(d, names, d->rows.retained[i].message);
	for (unsigned i = 0; i < d->rows.n_messages; i++)
		ASSERT_GT(names[i], 0);
	free(names);
}

void fake_durable_apply(struct fake_durable *d, const struct broker_commit *c)
{
	for (unsigned i = 0; i < c->n_sessions; i++) {
		apply_session(d, &c->sessions[i]);
		if (c->sessions[i].gone)
			purge(d, c->sessions[i].number);
	}
	for (unsigned i = 0; i < c->n_subscriptions; i++)
		apply_subscription(d, &c->subscriptions[i]);
	for (unsigned i = 0; i < c->n_messages; i++) {
		ASSERT_EQ(find_message(d, &c->messages[i]) < d->rows.n_messages,
			  c->messages[i].gone);
		apply_message(d, &c->messages[i]);
		d->written_messages += !c->messages[i].gone;
	}
	for (unsigned i = 0; i < c->n_deliveries; i++)
		apply_delivery(d, &c->deliveries[i]);
	for (unsigned i = 0; i < c->n_releases; i++)
		apply_release(d, &c->releases[i]);
	for (unsigned i = 0; i < c->n_incoming; i++)
		apply_incoming(d, &c->incoming[i]);
	for (unsigned i = 0; i < c->n_retained; i++)
		apply_retained(d, &c->retained[i]);
	if (d->rows.n_messages + d->rows.n_deliveries < 500)
		check(d);
}

static int by_session_and_seq(const void *a, const void *b)
{
	const struct broker_commit_delivery *x = a, *y = b;

	if (x->session != y->session)
		return x->session < y->session ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int by_session_and_place(const void *a, const void *b)
{
	const struct broker_commit_release *x = a, *y = b;

	if (x->session != y->session)
		return x->session < y->session ? -1 : 1;
	return x->place < y->place ? -1 : x->place > y->place;
}

#define EACH(what, kind)                                \
	for (unsigned i = 0; i < d->rows.n_##what; i++) \
	ASSERT_EQ(broker_restore_##kind(engine, &d->rows.what[i]), 0)

void fake_durable_restore(struct fake_durable *d, struct broker *engine)
{
	if (d->rows.n_deliveries)
		qsort(d->rows.deliveries, d->rows.n_deliveries, sizeof(*d->rows.deliveries),
		      by_session_and_seq);
	if (d->rows.n_releases)
		qsort(d->rows.releases, d->rows.n_releases, sizeof(*d->rows.releases),
		      by_session_and_place);
	EACH(sessions, session);
	EACH(subscriptions, subscription);
	EACH(messages, message);
	EACH(deliveries, delivery);
	EACH(releases, release);
	EACH(incoming, incoming);
	EACH(retained, retained);
	broker_restore_end(engine);
}

void fake_durable_free(struct fake_durable *d)
{
	while (d->rows.n_subscriptions)
		remove_subscription(d, d->rows.n_subscriptions - 1);
	while (d->rows.n_messages)
		remove_message(d, d->rows.n_messages - 1);
	free(d->rows.sessions);
	free(d->rows.subscriptions);
	free(d->rows.messages);
	free(d->rows.deliveries);
	free(d->rows.releases);
	free(d->rows.incoming);
	free(d->rows.retained);
	*d = (struct fake_durable){ 0 };
}

static const struct broker_commit_session *session_of(const struct fake_durable *d, const char *id)
{
	for (unsigned i = 0; i < d->rows.n_sessions; i++)
		if (!strcmp(d->rows.sessions[i].id, id))
			return &d->rows.sessions[i];
	return NULL;
}

bool fake_durable_has_session(const struct fake_durable *d, const char *id)
{
	return session_of(d, id);
}

unsigned fake_durable_queued(const struct fake_durable *d, const char *id)
{
	const struct broker_commit_session *s = session_of(d, id);
	unsigned n = 0;

	for (unsigned i = 0; s && i < d->rows.n_deliveries; i++)
		n += d->rows.deliveries[i].session == s->number;
	return n;
}
