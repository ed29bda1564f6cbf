// SPDX-License-Identifier: MIT
/*
 * What a party may publish under and what it may read: scopes and grants in fixed tables, from the
 * bundle and from the statements behind it.
 *
 *   scopes   one entry for each name, and for a time one for an epoch that has not begun yet
 *   grants   one entry for each grant id; those that have run out make room, and where there are
 *            none those of an epoch, or for a key, that came before
 */
#include "userspace/client/lib/ssdtf.h"

#include <string.h>

#include "userspace/client/lib/ssdtf_private.h"

bool ssdtf_filters_match(struct bytes filters, struct bytes topic)
{
	struct bytes_reader r = bytes_reader_of(filters);

	while (r.left && !r.bad)
		if (record_filter_matches(bytes_read_u16_view(&r), topic))
			return true;
	return false;
}

/* The filters as they stand in the record, length fields and all. */
static struct bytes filters_view(const struct bytes *filters, unsigned n)
{
	const uint8_t *begin, *end;

	if (!n)
		return bytes_of(NULL, 0);
	begin = filters[0].p - 2;
	end = filters[n - 1].p + filters[n - 1].n;
	return bytes_of(begin, (size_t)(end - begin));
}

/* 0 wishes nothing. */
static uint32_t within(uint32_t wish, uint32_t most)
{
	return wish && wish < most ? wish : most;
}

/* --- scopes ----------------------------------------------------------------------------------- */

/* An epoch that is to come leaves the one that is in use. */
static bool scope_gives_way(const struct ssdtf_scope *old, const struct record_scope *s,
			    uint64_t now_ms)
{
	if (!bytes_equal(old->name, s->name) || old->epoch > s->epoch)
		return false;
	return old->epoch == s->epoch ||
	       record_valid_at(s->not_before_ms, s->not_after_ms, now_ms) ||
	       !record_valid_at(old->not_before_ms, old->not_after_ms, now_ms);
}

bool ssdtf_scope_is_over(const struct ssdtf_client *c, const struct record_scope *s)
{
	for (unsigned i = 0; i < c->n_scopes; i++)
		if (bytes_equal(c->scopes[i].name, s->name) && c->scopes[i].epoch > s->epoch)
			return true;
	return false;
}

bool ssdtf_scope_fits(const struct ssdtf_client *c, const struct record_scope *s, uint64_t now_ms)
{
	unsigned n = c->n_scopes;

	for (unsigned i = 0; i < c->n_scopes; i++)
		n -= scope_gives_way(&c->scopes[i], s, now_ms);
	return n < SSDTF_SCOPES_MAX;
}

void ssdtf_scope_add(struct ssdtf_client *c, const struct record_scope *s, const uint8_t *source)
{
	struct ssdtf_scope *to = &c->scopes[c->n_scopes++];

	memset(to, 0, sizeof(*to));
	to->source = source;
	to->key_id = s->key_id;
	to->epoch = s->epoch;
	to->name = s->name;
	to->filters = filters_view(s->filters, s->n_filters);
	to->padded = s->flags & RECORD_SCOPE_PADDED;
	to->not_before_ms = s->not_before_ms;
	to->not_after_ms = s->not_after_ms;
	to->a = s->a;
	to->suite = (enum hpke_suite)s->suite;
	to->messages_max =
		within(c->rekey_messages, within(s->rekey_messages, SSDTF_CONTEXT_MESSAGES_MAX));
	to->seconds_max =
		within(c->rekey_seconds, within(s->rekey_seconds, SSDTF_CONTEXT_SECONDS_MAX));
}

/* The last takes its place; an open context moves with it. */
static void scope_remove(struct ssdtf_client *c, unsigned i)
{
	struct ssdtf_scope *last = &c->scopes[--c->n_scopes];

	ssdtf_scope_close(&c->scopes[i]);
	if (last != &c->scopes[i])
		c->scopes[i] = *last;
	secret_wipe(last, sizeof(*last));
}

void ssdtf_scope_take(struct ssdtf_client *c, const struct record_scope *s, const uint8_t *source,
		      uint64_t now_ms)
{
	for (unsigned i = c->n_scopes; i-- > 0;)
		if (scope_gives_way(&c->scopes[i], s, now_ms))
			scope_remove(c, i);
	ssdtf_scope_add(c, s, source);
}

/* --- grants ----------------------------------------------------------------------------------- */

int ssdtf_grant_key(const struct ssdtf_client *c, const struct record_grant *g)
{
	for (unsigned i = 0; i < c->n_encryption; i++)
		if (!memcmp(g->b.b, c->encryption[i].point.b, P256_POINT_BYTES))
			return (int)i;
	return -ENOENT;
}

static bool ran_out(uint64_t not_after_ms, uint64_t now_ms)
{
	return now_ms && not_after_ms && not_after_ms <= now_ms;
}

/* For the same topics, and made later: what is sealed from then on is read by that one. Nobody says
 * when the older one ends, which the gateway alone knows. */
static bool is_later(struct bytes filters, uint64_t not_before_ms, const struct ssdtf_grant *than)
{
	return not_before_ms > than->not_before_ms && bytes_equal(filters, than->filters);
}

/* The oldest of those that one with these filters, or one that is there, came after; of those in
 * statements alone, or of all. SSDTF_GRANTS_MAX: there is none. */
static unsigned superseded_grant(const struct ssdtf_client *c, struct bytes filters,
				 uint64_t not_before_ms, bool stated)
{
	unsigned oldest = SSDTF_GRANTS_MAX;

	for (unsigned i = 0; i < c->n_grants; i++) {
		const struct ssdtf_grant *old = &c->grants[i];
		bool later = is_later(filters, not_before_ms, old);

		if (stated && !old->source)
			continue;
		for (unsigned k = 0; k < c->n_grants && !later; k++)
			later = is_later(c->grants[k].filters, c->grants[k].not_before_ms, old);
		if (later && (oldest == SSDTF_GRANTS_MAX ||
			      old->not_before_ms < c->grants[oldest].not_before_ms))
			oldest = i;
	}
	return oldest;
}

/* Where it goes: the entry of its id, a new one, one that has run out, or one that others came
 * after. SSDTF_GRANTS_MAX: nowhere.
 */
static unsigned grant_place(const struct ssdtf_client *c, const struct record_grant *g,
			    uint64_t now_ms)
{
	for (unsigned i = 0; i < c->n_grants; i++)
		if (!memcmp(c->grants[i].grant_id, g->grant_id, GRANT_ID_BYTES))
			return i;
	if (c->n_grants < SSDTF_GRANTS_MAX)
		return c->n_grants;
	for (unsigned i = 0; i < c->n_grants; i++)
		if (ran_out(c->grants[i].not_after_ms, now_ms))
			return i;
	return superseded_grant(c, filters_view(g->filters, g->n_filters), g->not_before_ms, false);
}

bool ssdtf_grant_fits(const struct ssdtf_client *c, const struct record_grant *g, uint64_t now_ms)
{
	return grant_place(c, g, now_ms) < SSDTF_GRANTS_MAX;
}

static void grant_put(struct ssdtf_client *c, unsigned i, const struct record_grant *g,
		      const uint8_t *source)
{
	struct ssdtf_grant *to = &c->grants[i];

	secret_wipe(to, sizeof(*to));
	to->source = source;
	memcpy(to->grant_id, g->grant_id, GRANT_ID_BYTES);
	to->key_id = g->key_id;
	to->flags = g->flags;
	to->key = (uint8_t)ssdtf_grant_key(c, g);
	to->filters = filters_view(g->filters, g->n_filters);
	to->not_before_ms = g->not_before_ms;
	to->not_after_ms = g->not_after_ms;
	to->a = g->a;
	to->u.x = g->x;
}

void ssdtf_grant_add(struct ssdtf_client *c, const struct record_grant *g, const uint8_t *source)
{
	grant_put(c, c->n_grants++, g, source);
}

void ssdtf_grant_take(struct ssdtf_client *c, const struct record_grant *g, const uint8_t *source,
		      uint64_t now_ms)
{
	unsigned i = grant_place(c, g, now_ms);

	/* What was computed under the grant before goes with it. */
	if (i == c->n_grants)
		c->n_grants++;
	else
		ssdtf_contexts_wipe_grant(c, i);
	grant_put(c, i, g, source);
}

bool ssdtf_grant_drop(struct ssdtf_client *c)
{
	unsigned i = superseded_grant(c, bytes_of(NULL, 0), 0, true), last;

	if (i == SSDTF_GRANTS_MAX)
		return false;
	last = --c->n_grants;
	ssdtf_contexts_wipe_grant(c, i);
	ssdtf_contexts_wipe_grant(c, last); /* which takes its place */
	c->grants[i] = c->grants[last];
	secret_wipe(&c->grants[last], sizeof(c->grants[last]));
	return true;
}

/* --- statements that move --------------------------------------------------------------------- */

bool ssdtf_tables_use(const struct ssdtf_client *c, const uint8_t *source)
{
	for (unsigned i = 0; i < c->n_scopes; i++)
		if (c->scopes[i].source == source)
			return true;
	for (unsigned i = 0; i < c->n_grants; i++)
		if (c->grants[i].source == source)
			return true;
	return false;
}

static void view_move(struct bytes *v, const uint8_t *source, const uint8_t *to)
{
	if (v->n)
		v->p = to + (v->p - source);
}

void ssdtf_tables_move(struct ssdtf_client *c, const uint8_t *source, const uint8_t *to)
{
	for (unsigned i = 0; i < c->n_scopes; i++) {
		struct ssdtf_scope *s = &c->scopes[i];

		if (s->source != source)
			continue;
		view_move(&s->name, source, to);
		view_move(&s->filters, source, to);
		s->source = to;
	}
	for (unsigned i = 0; i < c->n_grants; i++) {
		struct ssdtf_grant *g = &c->grants[i];

		if (g->source != source)
			continue;
		view_move(&g->filters, source, to);
		g->source = to;
	}
}
