// SPDX-License-Identifier: MIT
#include "userspace/base/secret.h"
#include "userspace/broker/directory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/broker/verifier.h"
#include "userspace/crypto/hash.h"

static int by_party_id(const void *a, const void *b)
{
	const struct directory_party *x = a, *y = b;

	return bytes_compare(x->id, y->id);
}

static int by_key_id(const void *a, const void *b)
{
	const struct directory_scope *x = a, *y = b;

	return x->key_id < y->key_id ? -1 : x->key_id > y->key_id;
}

static int by_receiver(const void *a, const void *b)
{
	const struct directory_grant *x = a, *y = b;
	int order = bytes_compare(x->receiver, y->receiver);

	if (order)
		return order;
	return x->key_id < y->key_id ? -1 : x->key_id > y->key_id;
}

static int bad(const char **why, const char *text)
{
	*why = text;
	return -EBADMSG;
}

/* calloc that gives a valid pointer for nothing, so that NULL is out of memory. */
static void *array(size_t n, size_t size)
{
	return calloc(n ? n : 1, size);
}

static int build_scopes(struct directory *d, const struct bundle_gateway *b, const char **why)
{
	struct bytes_reader r = b->scopes;
	struct record_scope s;
	size_t n_filters = 0, used = 0;

	for (unsigned i = 0; i < b->n_scopes; i++) {
		if (bundle_gateway_next_scope(&r, &s))
			return bad(why, "a scope record does not decode");
		n_filters += s.n_filters;
	}
	d->scopes = array(b->n_scopes, sizeof(*d->scopes));
	d->filters = array(n_filters, sizeof(*d->filters));
	if (!d->scopes || !d->filters)
		return -ENOMEM;
	r = b->scopes;
	for (; d->n_scopes < b->n_scopes; d->n_scopes++) {
		if (bundle_gateway_next_scope(&r, &s))
			return -EBADMSG;
		d->scopes[d->n_scopes] = (struct directory_scope){
			.key_id = s.key_id,
			.not_before_ms = s.not_before_ms,
			.not_after_ms = s.not_after_ms,
			.name = s.name,
			.n_filters = s.n_filters,
			.filters = d->filters + used,
		};
		memcpy(d->filters + used, s.filters, s.n_filters * sizeof(struct bytes));
		used += s.n_filters;
	}
	qsort(d->scopes, d->n_scopes, sizeof(*d->scopes), by_key_id);
	for (unsigned i = 1; i < d->n_scopes; i++)
		if (d->scopes[i].key_id == d->scopes[i - 1].key_id)
			return bad(why, "two scopes have one key id");
	return 0;
}

static int build_grants(struct directory *d, const struct bundle_gateway *b, const char **why)
{
	struct bytes_reader r = b->grants;
	struct bundle_gateway_grant g;

	d->grants = array(b->n_grants, sizeof(*d->grants));
	if (!d->grants)
		return -ENOMEM;
	for (; d->n_grants < b->n_grants; d->n_grants++) {
		struct directory_grant *to = &d->grants[d->n_grants];

		if (bundle_gateway_next_grant(&r, &g))
			return bad(why, "a grant record does not decode");
		*to = (struct directory_grant){
			.key_id = g.grant.key_id,
			.flags = g.grant.flags,
			.not_before_ms = g.grant.not_before_ms,
			.not_after_ms = g.grant.not_after_ms,
			.receiver = g.grant.receiver,
			.wrapped_rk = g.wrapped_rk,
		};
		memcpy(to->grant_id, g.grant.grant_id, GRANT_ID_BYTES);
	}
	qsort(d->grants, d->n_grants, sizeof(*d->grants), by_receiver);
	for (unsigned i = 1; i < d->n_grants; i++)
		if (by_receiver(&d->grants[i - 1], &d->grants[i]) == 0)
			return bad(why, "a receiver has two grants of one key id");
	return 0;
}

/* Every scope with one of the party's names: a name has a key id for each epoch. */
static unsigned match_scopes(const struct directory *d, const struct record_party *p, uint32_t *to)
{
	unsigned n = 0;

	for (unsigned i = 0; i < p->n_scopes; i++)
		for (uint32_t s = 0; s < d->n_scopes; s++)
			if (bytes_equal(d->scopes[s].name, p->scopes[i])) {
				if (to)
					to[n] = s;
				n++;
			}
	return n;
}

/* The slice of the sorted grants that is this party's. */
static void find_grants(const struct directory *d, struct directory_party *p)
{
	unsigned lo = 0, hi = d->n_grants;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (bytes_compare(d->grants[mid].receiver, p->id) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	p->grants = d->grants + lo;
	while (lo + p->n_grants < d->n_grants &&
	       bytes_equal(d->grants[lo + p->n_grants].receiver, p->id))
		p->n_grants++;
}

static int build_parties(struct directory *d, const struct bundle_gateway *b, const char **why)
{
	struct bytes_reader r = b->parties;
	struct bundle_gateway_party g;
	size_t total = 0, used = 0;

	for (unsigned i = 0; i < b->n_parties; i++) {
		if (bundle_gateway_next_party(&r, &g))
			return bad(why, "a party record does not decode");
		total += match_scopes(d, &g.party, NULL);
	}
	d->parties = array(b->n_parties, sizeof(*d->parties));
	d->publishes = array(total, sizeof(*d->publishes));
	if (!d->parties || !d->publishes)
		return -ENOMEM;
	r = b->parties;
	for (; d->n_parties < b->n_parties; d->n_parties++) {
		struct directory_party *to = &d->parties[d->n_parties];

		if (bundle_gateway_next_party(&r, &g))
			return -EBADMSG;
		to->id = g.party.id;
		to->roles = g.party.roles;
		to->signing = g.party.signing;
		memcpy(to->device.key, g.k_adm, sizeof(to->device.key));
		if (g.admission_flags & BUNDLE_ADMISSION_NO_CLOCK)
			to->device.flags = ADMISSION_DEVICE_NO_CLOCK;
		to->publishes = d->publishes + used;
		to->n_publishes = match_scopes(d, &g.party, to->publishes);
		used += to->n_publishes;
		find_grants(d, to);
	}
	qsort(d->parties, d->n_parties, sizeof(*d->parties), by_party_id);
	for (unsigned i = 1; i < d->n_parties; i++)
		if (bytes_equal(d->parties[i].id, d->parties[i - 1].id))
			return bad(why, "two parties have one id");
	return 0;
}

static int build_revoked(struct directory *d, const struct bundle_gateway *b, const char **why)
{
	struct bytes_reader r = b->revoked;

	d->revoked = array(b->n_revoked, sizeof(*d->revoked));
	if (!d->revoked)
		return -ENOMEM;
	for (; d->n_revoked < b->n_revoked; d->n_revoked++)
		if (bundle_gateway_next_revoked(&r, &d->revoked[d->n_revoked]))
			return bad(why, "a revocation does not decode");
	return 0;
}

static int build(struct directory *d, struct bytes body, const char **why)
{
	struct bundle_gateway b;
	int err;

	d->body = malloc(body.n ? body.n : 1);
	if (!d->body)
		return -ENOMEM;
	memcpy(d->body, body.p, body.n);
	d->body_n = body.n;
	if (bundle_gateway_decode(bytes_of(d->body, body.n), &b))
		return bad(why, "it is no gateway bundle");
	d->gateway_id = b.broker.gateway_id;
	d->broker = b.broker.signing;
	hash_one(bytes_of(d->broker.b, P256_POINT_BYTES), d->broker_hash);
	err = build_scopes(d, &b, why);
	if (!err)
		err = build_grants(d, &b, why);
	if (!err)
		err = build_parties(d, &b, why);
	if (!err)
		err = build_revoked(d, &b, why);
	return err;
}

int directory_new(uint64_t serial, struct bytes body, struct directory **ret_dir,
		  const char **ret_why)
{
	struct directory *d = calloc(1, sizeof(*d));
	int err;

	*ret_why = "no memory";
	if (!d)
		return -ENOMEM;
	d->refs = 1;
	d->serial = serial;
	err = build(d, body, ret_why);
	if (err) {
		directory_put(d);
		return err;
	}
	*ret_dir = d;
	return 0;
}

struct directory *directory_get(struct directory *d)
{
	d->refs++;
	return d;
}

void directory_put(struct directory *d)
{
	if (!d || --d->refs)
		return;
	for (unsigned i = 0; i < d->n_parties; i++)
		verifier_free(d->parties[i].verifier);
	/* Admission keys are in both. */
	if (d->parties)
		secret_wipe(d->parties, d->n_parties * sizeof(*d->parties));
	if (d->body)
		secret_wipe(d->body, d->body_n);
	free(d->parties);
	free(d->scopes);
	free(d->grants);
	free(d->revoked);
	free(d->filters);
	free(d->publishes);
	free(d->body);
	free(d);
}

bool directory_in_force(const struct directory *d, uint64_t wall_ms)
{
	return record_valid_at(0, d->not_after_ms, wall_ms);
}

struct directory_party *directory_party(const struct directory *d, struct bytes id)
{
	struct directory_party key = { .id = id };

	if (d->n_parties == 0)
		return NULL;
	return bsearch(&key, d->parties, d->n_parties, sizeof(key), by_party_id);
}

bool directory_same_key(const struct directory *old, const struct directory *now, struct bytes id)
{
	const struct directory_party *was = directory_party(old, id);
	const struct directory_party *is = directory_party(now, id);

	return was && is && memcmp(was->signing.b, is->signing.b, P256_POINT_BYTES) == 0;
}

const struct directory_scope *directory_scope(const struct directory *d, uint32_t key_id)
{
	struct directory_scope key = { .key_id = key_id };

	if (d->n_scopes == 0)
		return NULL;
	return bsearch(&key, d->scopes, d->n_scopes, sizeof(key), by_key_id);
}

const struct directory_grant *directory_grant(const struct directory_party *p, uint32_t key_id,
					      uint64_t wall_ms)
{
	unsigned lo = 0, hi = p->n_grants;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (p->grants[mid].key_id < key_id)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == p->n_grants || p->grants[lo].key_id != key_id ||
	    !record_valid_at(p->grants[lo].not_before_ms, p->grants[lo].not_after_ms, wall_ms))
		return NULL;
	return &p->grants[lo];
}

struct verifier *directory_verifier(struct directory_party *p)
{
	if (!p->verifier)
		p->verifier = verifier_new(&p->signing);
	return p->verifier;
}

static bool scope_covers(const struct directory_scope *s, struct bytes topic)
{
	for (unsigned i = 0; i < s->n_filters; i++)
		if (record_filter_matches(s->filters[i], topic))
			return true;
	return false;
}

enum directory_verdict directory_permits(const struct directory *d, const struct directory_party *p,
					 uint32_t key_id, struct bytes topic, uint64_t wall_ms)
{
	const struct directory_scope *s = directory_scope(d, key_id);

	if (!s || !directory_in_force(d, wall_ms) ||
	    !record_valid_at(s->not_before_ms, s->not_after_ms, wall_ms))
		return DIRECTORY_NO_KEY_ID;
	for (unsigned i = 0; i < p->n_publishes; i++)
		if (&d->scopes[p->publishes[i]] == s)
			return scope_covers(s, topic) ? DIRECTORY_PERMITTED
						      : DIRECTORY_NOT_PERMITTED;
	return DIRECTORY_NOT_PERMITTED;
}
