// SPDX-License-Identifier: MIT
#include "userspace/broker/stated.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORD_BITS 64u

static int bad(const char **why, const char *text)
{
	*why = text;
	return -EBADMSG;
}

static int by_whom(const void *a, const void *b)
{
	const struct stated_concern *x = a, *y = b;
	int order;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	order = bytes_compare(x->whom, y->whom);
	if (order)
		return order;
	return x->update < y->update ? -1 : x->update > y->update;
}

/* Whom a statement is for: at most `room` of them are written. Negative: it is none that is passed
 * on. */
static int concerns_of(const struct statement *st, struct bytes *whom, unsigned room)
{
	struct record_party party;
	struct record_scope scope;
	struct record_grant grant;
	struct record_broker broker;

	whom[0] = bytes_of(NULL, 0);
	switch (st->kind) {
	case STATEMENT_BROKER:
		return record_broker_decode(st->body, &broker) ? -EBADMSG : 1;
	case STATEMENT_SCOPE:
		if (record_scope_decode(st->body, &scope))
			return -EBADMSG;
		whom[0] = scope.name;
		return 1;
	case STATEMENT_GRANT:
		if (record_grant_decode(st->body, &grant))
			return -EBADMSG;
		whom[0] = grant.receiver;
		return 1;
	case STATEMENT_PARTY:
		if (record_party_decode(st->body, &party) || party.n_scopes > room)
			return -EBADMSG;
		memcpy(whom, party.scopes, party.n_scopes * sizeof(*whom));
		return party.n_scopes ? (int)party.n_scopes : 1;
	case STATEMENT_GATEWAY:
	case STATEMENT_BUNDLE:
	case STATEMENT_DISTRIBUTOR:
	case STATEMENT_MANIFEST:
		break;
	}
	return -EBADMSG;
}

/* Counts the concerns of all, and looks at each. */
static int count_concerns(const struct bundle_gateway *b, size_t *ret_n, const char **why)
{
	struct bytes whom[RECORD_SCOPES_MAX], whole;
	struct bytes_reader r = b->updates;
	struct statement st;
	uint64_t last = 0;
	size_t total = 0;

	for (unsigned i = 0; i < b->n_updates; i++) {
		int n;

		if (bundle_gateway_next_update(&r, &whole, &st))
			return bad(why, "an update does not decode");
		n = concerns_of(&st, whom, RECORD_SCOPES_MAX);
		if (n < 0)
			return bad(why, "an update is no statement for parties");
		if (st.serial <= last)
			return bad(why, "updates are not in the order of their serials");
		last = st.serial;
		total += (unsigned)n;
	}
	*ret_n = total;
	return 0;
}

static size_t words(unsigned n)
{
	return n / WORD_BITS + 1;
}

int stated_init(struct stated *s, const struct bundle_gateway *b, const char **ret_why)
{
	struct bytes whom[RECORD_SCOPES_MAX];
	struct bytes_reader r = b->updates;
	struct statement st;
	size_t total;
	int err = count_concerns(b, &total, ret_why);

	if (err)
		return err;
	s->updates = calloc(b->n_updates + 1u, sizeof(*s->updates));
	s->concerns = calloc(total + 1, sizeof(*s->concerns));
	s->marks = calloc(words(b->n_updates), sizeof(*s->marks));
	if (!s->updates || !s->concerns || !s->marks)
		return -ENOMEM;
	for (; s->n < b->n_updates; s->n++) {
		struct stated_update *to = &s->updates[s->n];
		int n = -EBADMSG;

		if (!bundle_gateway_next_update(&r, &to->whole, &st))
			n = concerns_of(&st, whom, RECORD_SCOPES_MAX);
		if (n < 0)
			return -EBADMSG;
		to->serial = st.serial;
		for (int i = 0; i < n; i++)
			s->concerns[s->n_concerns++] =
				(struct stated_concern){ st.kind, whom[i], s->n };
	}
	qsort(s->concerns, s->n_concerns, sizeof(*s->concerns), by_whom);
	return 0;
}

void stated_deinit(struct stated *s)
{
	free(s->updates);
	free(s->concerns);
	free(s->marks);
}

uint64_t stated_last(const struct stated *s)
{
	return s->n ? s->updates[s->n - 1].serial : 0;
}

/* The first update above this serial; n where there is none. */
static unsigned first_after(const struct stated *s, uint64_t after)
{
	unsigned lo = 0, hi = s->n;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (s->updates[mid].serial <= after)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The first concern of this kind and for `whom` with a serial above `after`, if it is one. */
static unsigned find(const struct stated *s, enum statement_kind kind, struct bytes whom,
		     uint64_t after)
{
	const struct stated_concern from = { kind, whom, first_after(s, after) };
	unsigned lo = 0, hi = s->n_concerns;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (by_whom(&s->concerns[mid], &from) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool is_for(const struct stated *s, unsigned at, enum statement_kind kind, struct bytes whom)
{
	return at < s->n_concerns && s->concerns[at].kind == kind &&
	       bytes_equal(s->concerns[at].whom, whom);
}

void stated_mark(struct stated *s, enum statement_kind kind, struct bytes whom, uint64_t after)
{
	for (unsigned i = find(s, kind, whom, after); is_for(s, i, kind, whom); i++) {
		uint32_t update = s->concerns[i].update;

		s->marks[update / WORD_BITS] |= UINT64_C(1) << update % WORD_BITS;
	}
}

bool stated_any(const struct stated *s, enum statement_kind kind, struct bytes whom, uint64_t after)
{
	return is_for(s, find(s, kind, whom, after), kind, whom);
}

const struct stated_update *stated_next(const struct stated *s, unsigned *at)
{
	for (unsigned i = *at; i < s->n; i = (i / WORD_BITS + 1) * WORD_BITS) {
		uint64_t word = s->marks[i / WORD_BITS] & ~UINT64_C(0) << i % WORD_BITS;

		if (!word)
			continue;
		i = i / WORD_BITS * WORD_BITS + (unsigned)__builtin_ctzll(word);
		*at = i + 1;
		return &s->updates[i];
	}
	*at = s->n;
	return NULL;
}

void stated_clear(struct stated *s)
{
	memset(s->marks, 0, words(s->n) * sizeof(*s->marks));
}
