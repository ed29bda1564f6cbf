// SPDX-License-Identifier: MIT
#include "userspace/base/secret.h"
#include "userspace/broker/directory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/broker/verifier.h"
#include "userspace/crypto/hash.h"

#define NS_PER_MS 1000000ull

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

static int by_name(const void *a, const void *b)
{
	const struct directory_name *x = a, *y = b;
	int order = bytes_compare(x->name, y->name);

	if (order)
		return order;
	return x->scope < y->scope ? -1 : x->scope > y->scope;
}

/* Key id, then from. */
static int compare_reads(const struct directory_grant *x, uint32_t key_id,
			 const uint8_t from[GRANT_ID_BYTES])
{
	if (x->key_id != key_id)
		return x->key_id < key_id ? -1 : 1;
	return memcmp(x->from, from, GRANT_ID_BYTES);
}

static int by_receiver(const void *a, const void *b)
{
	const struct directory_grant *x = a, *y = b;
	int order = bytes_compare(x->receiver, y->receiver);

	if (!order)
		order = compare_reads(x, y->key_id, y->from);
	if (order)
		return order;
	if (x->not_before_ms != y->not_before_ms)
		return x->not_before_ms < y->not_before_ms ? -1 : 1;
	return memcmp(x->grant_id, y->grant_id, GRANT_ID_BYTES);
}

static int by_grant_id(const void *a, const void *b)
{
	const struct directory_outlet *x = a, *y = b;

	return memcmp(x->grant_id, y->grant_id, GRANT_ID_BYTES);
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

/* How many filters and outlets there are, for which room is made before anything points at it. */
static int make_room(struct directory *d, const struct bundle_gateway *b, const char **why)
{
	struct bytes_reader scopes = b->scopes, grants = b->grants;
	struct bundle_gateway_grant g;
	struct record_scope s;
	size_t n_filters = 0, n_outlets = 0;

	for (unsigned i = 0; i < b->n_scopes; i++) {
		if (bundle_gateway_next_scope(&scopes, &s))
			return bad(why, "a scope record does not decode");
		n_filters += s.n_filters + s.n_public_filters;
	}
	for (unsigned i = 0; i < b->n_grants; i++) {
		if (bundle_gateway_next_grant(&grants, &g))
			return bad(why, "a grant record does not decode");
		if (!g.grant.upstream.n)
			continue;
		n_filters += g.grant.n_filters;
		n_outlets++;
	}
	d->filters = array(n_filters, sizeof(*d->filters));
	d->scopes = array(b->n_scopes, sizeof(*d->scopes));
	d->names = array(b->n_scopes, sizeof(*d->names));
	d->grants = array(b->n_grants - n_outlets, sizeof(*d->grants));
	d->outlets = array(n_outlets, sizeof(*d->outlets));
	return d->filters && d->scopes && d->names && d->grants && d->outlets ? 0 : -ENOMEM;
}

/* There is room for them. */
static struct bytes *keep_filters(struct directory *d, const struct bytes *filters, unsigned n)
{
	struct bytes *to = d->filters + d->n_filters;

	memcpy(to, filters, n * sizeof(*to));
	d->n_filters += n;
	return to;
}

static int build_scopes(struct directory *d, const struct bundle_gateway *b, const char **why)
{
	struct bytes_reader r = b->scopes;
	struct record_scope s;

	for (; d->n_scopes < b->n_scopes; d->n_scopes++) {
		if (bundle_gateway_next_scope(&r, &s))
			return -EBADMSG;
		d->scopes[d->n_scopes] = (struct directory_scope){
			.key_id = s.key_id,
			.not_before_ms = s.not_before_ms,
			.not_after_ms = s.not_after_ms,
			.name = s.name,
			.n_filters = s.n_filters,
			.filters = keep_filters(d, s.filters, s.n_filters),
			.n_public_filters = s.n_public_filters,
			.public_filters = keep_filters(d, s.public_filters, s.n_public_filters),
		};
	}
	qsort(d->scopes, d->n_scopes, sizeof(*d->scopes), by_key_id);
	for (unsigned i = 1; i < d->n_scopes; i++)
		if (d->scopes[i].key_id == d->scopes[i - 1].key_id)
			return bad(why, "two scopes have one key id");
	for (uint32_t i = 0; i < d->n_scopes; i++)
		d->names[i] = (struct directory_name){ d->scopes[i].name, i };
	qsort(d->names, d->n_scopes, sizeof(*d->names), by_name);
	return 0;
}

static void add_grant(struct directory *d, const struct bundle_gateway_grant *g)
{
	struct directory_grant *to = &d->grants[d->n_grants++];

	*to = (struct directory_grant){
		.key_id = g->grant.key_id,
		.flags = g->grant.flags,
		.not_before_ms = g->grant.not_before_ms,
		.not_after_ms = g->grant.not_after_ms,
		.receiver = g->grant.receiver,
		.wrapped_rk = g->wrapped_rk,
	};
	memcpy(to->grant_id, g->grant.grant_id, GRANT_ID_BYTES);
	memcpy(to->from, g->grant.from, GRANT_ID_BYTES);
}

static void add_outlet(struct directory *d, const struct record_grant *g)
{
	struct directory_outlet *to = &d->outlets[d->n_outlets++];

	*to = (struct directory_outlet){
		.key_id = g->key_id,
		.flags = g->flags,
		.not_before_ms = g->not_before_ms,
		.not_after_ms = g->not_after_ms,
		.upstream = g->upstream,
		.receiver = g->receiver,
		.n_filters = g->n_filters,
		.filters = keep_filters(d, g->filters, g->n_filters),
	};
	memcpy(to->grant_id, g->grant_id, GRANT_ID_BYTES);
}

static int build_grants(struct directory *d, const struct bundle_gateway *b, const char **why)
{
	struct bytes_reader r = b->grants;
	struct bundle_gateway_grant g;

	for (unsigned i = 0; i < b->n_grants; i++) {
		if (bundle_gateway_next_grant(&r, &g))
			return -EBADMSG;
		if (g.grant.upstream.n)
			add_outlet(d, &g.grant);
		else
			add_grant(d, &g);
	}
	qsort(d->grants, d->n_grants, sizeof(*d->grants), by_receiver);
	for (unsigned i = 1; i < d->n_grants; i++)
		if (by_receiver(&d->grants[i - 1], &d->grants[i]) == 0)
			return bad(why, "a grant is there twice");
	qsort(d->outlets, d->n_outlets, sizeof(*d->outlets), by_grant_id);
	for (unsigned i = 1; i < d->n_outlets; i++)
		if (by_grant_id(&d->outlets[i - 1], &d->outlets[i]) == 0)
			return bad(why, "two grants have one id");
	return 0;
}

/* Where those of this name begin. */
static unsigned first_named(const struct directory *d, struct bytes name)
{
	unsigned lo = 0, hi = d->n_scopes;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (bytes_compare(d->names[mid].name, name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Every scope with one of the party's names: a name has a key id for each epoch. */
static unsigned match_scopes(const struct directory *d, const struct record_party *p, uint32_t *to)
{
	unsigned n = 0;

	for (unsigned i = 0; i < p->n_scopes; i++) {
		for (unsigned k = first_named(d, p->scopes[i]);
		     k < d->n_scopes && bytes_equal(d->names[k].name, p->scopes[i]); k++) {
			if (to)
				to[n] = d->names[k].scope;
			n++;
		}
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

static struct admission_device admission_of(const struct bundle_gateway_party *g)
{
	const uint64_t ms_max = UINT64_MAX / NS_PER_MS;
	struct admission_device d = { 0 };

	memcpy(d.key, g->k_adm, sizeof(d.key));
	if (g->admission_flags & BUNDLE_ADMISSION_NO_CLOCK)
		d.flags = ADMISSION_DEVICE_NO_CLOCK;
	if (!(g->admission_flags & BUNDLE_ADMISSION_PREVIOUS))
		return d;
	memcpy(d.previous, g->previous_k_adm, sizeof(d.previous));
	d.previous_until_ns = UINT64_MAX; /* 0 is no end */
	if (g->previous_until_ms && g->previous_until_ms < ms_max)
		d.previous_until_ns = g->previous_until_ms * NS_PER_MS;
	return d;
}

static struct directory_previous *keep_previous(struct directory *d, const struct record_party *p)
{
	struct directory_previous *to = &d->previous[d->n_previous];

	if (!p->has_previous)
		return NULL;
	*to = (struct directory_previous){ .key = p->previous, .until_ms = p->previous_until_ms };
	d->n_previous++;
	return to;
}

static int build_parties(struct directory *d, const struct bundle_gateway *b, const char **why)
{
	struct bytes_reader r = b->parties;
	struct bundle_gateway_party g;
	size_t total = 0, used = 0, n_previous = 0;

	for (unsigned i = 0; i < b->n_parties; i++) {
		if (bundle_gateway_next_party(&r, &g))
			return bad(why, "a party record does not decode");
		total += match_scopes(d, &g.party, NULL);
		n_previous += g.party.has_previous;
	}
	d->parties = array(b->n_parties, sizeof(*d->parties));
	d->publishes = array(total, sizeof(*d->publishes));
	d->previous = array(n_previous, sizeof(*d->previous));
	if (!d->parties || !d->publishes || !d->previous)
		return -ENOMEM;
	r = b->parties;
	for (; d->n_parties < b->n_parties; d->n_parties++) {
		struct directory_party *to = &d->parties[d->n_parties];

		if (bundle_gateway_next_party(&r, &g))
			return -EBADMSG;
		to->id = g.party.id;
		to->roles = g.party.roles;
		to->flags = g.party.flags;
		to->signing = g.party.signing;
		if (to->flags & RECORD_PARTY_ZK && !record_id_is_key(to->id, &to->signing))
			return bad(why, "a party of SSDTF-ZK-1 has an id that is not its key");
		to->previous = keep_previous(d, &g.party);
		to->device = admission_of(&g);
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
	d->broker = b.broker;
	hash_one(bytes_of(d->broker.signing.b, P256_POINT_BYTES), d->broker_hash);
	hash_one(bytes_of(d->broker.next.b, P256_POINT_BYTES), d->next_hash);
	err = make_room(d, &b, why);
	if (!err)
		err = build_scopes(d, &b, why);
	if (!err)
		err = build_grants(d, &b, why);
	if (!err)
		err = build_parties(d, &b, why);
	if (!err)
		err = build_revoked(d, &b, why);
	if (!err)
		err = stated_init(&d->stated, &b, why);
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
	for (unsigned i = 0; i < d->n_previous; i++)
		verifier_free(d->previous[i].verifier);
	/* Admission keys are in both. */
	if (d->parties)
		secret_wipe(d->parties, d->n_parties * sizeof(*d->parties));
	if (d->body)
		secret_wipe(d->body, d->body_n);
	stated_deinit(&d->stated);
	free(d->parties);
	free(d->previous);
	free(d->scopes);
	free(d->names);
	free(d->grants);
	free(d->outlets);
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

static bool same_point(const struct p256_point *a, const struct p256_point *b)
{
	return memcmp(a->b, b->b, P256_POINT_BYTES) == 0;
}

bool directory_same_key(const struct directory *old, const struct directory *now, struct bytes id)
{
	const struct directory_party *was = directory_party(old, id);
	const struct directory_party *is = directory_party(now, id);

	if (!was || !is || !is->roles)
		return false;
	return same_point(&was->signing, &is->signing) ||
	       (is->previous && same_point(&was->signing, &is->previous->key));
}

/* NULL: there is none, or its time is over. */
static struct directory_previous *previous_of(const struct directory_party *p, uint64_t wall_ms)
{
	return p->previous && record_valid_at(0, p->previous->until_ms, wall_ms) ? p->previous
										 : NULL;
}

bool directory_key_holds(const struct directory *d, struct bytes id, const struct p256_point *key,
			 uint64_t wall_ms)
{
	const struct directory_party *p = directory_party(d, id);
	const struct directory_previous *previous = p ? previous_of(p, wall_ms) : NULL;

	if (!p || !p->roles)
		return false;
	return same_point(&p->signing, key) || (previous && same_point(&previous->key, key));
}

uint64_t directory_next_end_ms(const struct directory *d, uint64_t wall_ms)
{
	uint64_t next = 0;

	for (unsigned i = 0; i < d->n_previous; i++) {
		uint64_t until = d->previous[i].until_ms;

		if (until > wall_ms && (!next || until < next))
			next = until;
	}
	return next;
}

bool directory_next_in_use(const struct directory *d, uint64_t wall_ms)
{
	return d->broker.has_next && wall_ms >= d->broker.next_from_ms;
}

const uint8_t *directory_broker_hash(const struct directory *d, uint64_t wall_ms)
{
	return directory_next_in_use(d, wall_ms) ? d->next_hash : d->broker_hash;
}

const struct directory_scope *directory_scope(const struct directory *d, uint32_t key_id)
{
	struct directory_scope key = { .key_id = key_id };

	if (d->n_scopes == 0)
		return NULL;
	return bsearch(&key, d->scopes, d->n_scopes, sizeof(key), by_key_id);
}

const struct directory_grant *directory_grant(const struct directory_party *p, uint32_t key_id,
					      const uint8_t from[GRANT_ID_BYTES], uint64_t wall_ms)
{
	unsigned lo = 0, hi = p->n_grants;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (compare_reads(&p->grants[mid], key_id, from) <= 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	/* From the last of its kind back to the first that is valid: one or two steps. */
	while (lo-- > 0 && compare_reads(&p->grants[lo], key_id, from) == 0) {
		const struct directory_grant *g = &p->grants[lo];

		if (record_valid_at(g->not_before_ms, g->not_after_ms, wall_ms))
			return g;
	}
	return NULL;
}

bool directory_has_grant(const struct directory *d, const struct directory_grant *g)
{
	const struct directory_grant *same = NULL;

	if (d->n_grants)
		same = bsearch(g, d->grants, d->n_grants, sizeof(*g), by_receiver);
	return same && bytes_equal(same->wrapped_rk, g->wrapped_rk);
}

/* In force or not. */
static const struct directory_outlet *find_outlet(const struct directory *d,
						  const uint8_t grant_id[GRANT_ID_BYTES])
{
	struct directory_outlet key;

	if (d->n_outlets == 0)
		return NULL;
	memcpy(key.grant_id, grant_id, GRANT_ID_BYTES);
	return bsearch(&key, d->outlets, d->n_outlets, sizeof(key), by_grant_id);
}

static bool outlet_valid(const struct directory_outlet *o, uint64_t wall_ms)
{
	return record_valid_at(o->not_before_ms, o->not_after_ms, wall_ms);
}

const struct directory_outlet *directory_outlet(const struct directory *d,
						const uint8_t grant_id[GRANT_ID_BYTES],
						uint64_t wall_ms)
{
	const struct directory_outlet *o = find_outlet(d, grant_id);

	return o && outlet_valid(o, wall_ms) ? o : NULL;
}

/* What is stated of parties that publish where p reads with proofs. */
static void mark_origins(struct directory *d, const struct directory_party *p, uint64_t after)
{
	const struct directory_scope *last = NULL;

	for (unsigned i = 0; i < p->n_grants; i++) {
		const struct directory_scope *s = directory_scope(d, p->grants[i].key_id);

		if (!(p->grants[i].flags & RECORD_GRANT_PROOF) || !s)
			continue;
		if (!last) /* what is of no scope: of those who were revoked */
			stated_mark(&d->stated, STATEMENT_PARTY, bytes_of(NULL, 0), after);
		if (!last || !bytes_equal(last->name, s->name))
			stated_mark(&d->stated, STATEMENT_PARTY, s->name, after);
		last = s;
	}
}

void directory_mark_updates(struct directory *d, const struct directory_party *p, uint64_t after)
{
	stated_mark(&d->stated, STATEMENT_BROKER, bytes_of(NULL, 0), after);
	stated_mark(&d->stated, STATEMENT_GRANT, p->id, after);
	for (unsigned i = 0; i < p->n_publishes; i++)
		stated_mark(&d->stated, STATEMENT_SCOPE, d->scopes[p->publishes[i]].name, after);
	mark_origins(d, p, after);
}

struct verifier *directory_verifier(struct directory_party *p)
{
	if (!p->verifier)
		p->verifier = verifier_new(&p->signing);
	return p->verifier;
}

struct verifier *directory_previous_verifier(struct directory_party *p, uint64_t wall_ms)
{
	struct directory_previous *previous = previous_of(p, wall_ms);

	if (previous && !previous->verifier)
		previous->verifier = verifier_new(&previous->key);
	return previous ? previous->verifier : NULL;
}

static bool covers(const struct bytes *filters, unsigned n, struct bytes topic)
{
	for (unsigned i = 0; i < n; i++)
		if (record_filter_matches(filters[i], topic))
			return true;
	return false;
}

/* NULL: unknown, or nothing is in force. */
static const struct directory_scope *scope_known(const struct directory *d, uint32_t key_id,
						 uint64_t wall_ms)
{
	return directory_in_force(d, wall_ms) ? directory_scope(d, key_id) : NULL;
}

/* NULL: not yet or no longer valid, too. */
static const struct directory_scope *scope_in_force(const struct directory *d, uint32_t key_id,
						    uint64_t wall_ms)
{
	const struct directory_scope *s = scope_known(d, key_id, wall_ms);

	return s && record_valid_at(s->not_before_ms, s->not_after_ms, wall_ms) ? s : NULL;
}

enum directory_verdict directory_permits(const struct directory *d, const struct directory_party *p,
					 uint32_t key_id, struct bytes topic, uint64_t wall_ms)
{
	const struct directory_scope *s = scope_in_force(d, key_id, wall_ms);

	if (!s)
		return DIRECTORY_NO_KEY_ID;
	for (unsigned i = 0; i < p->n_publishes; i++)
		if (&d->scopes[p->publishes[i]] == s)
			return covers(s->filters, s->n_filters, topic) ? DIRECTORY_PERMITTED
								       : DIRECTORY_NOT_PERMITTED;
	return DIRECTORY_NOT_PERMITTED;
}

enum directory_verdict directory_permits_raised(const struct directory *d,
						const struct directory_party *p, uint32_t key_id,
						const uint8_t grant_id[GRANT_ID_BYTES],
						struct bytes topic, uint64_t wall_ms)
{
	const struct directory_scope *s = scope_known(d, key_id, wall_ms);
	const struct directory_outlet *o = find_outlet(d, grant_id);

	if (!s)
		return DIRECTORY_NO_KEY_ID;
	if (!o || !(p->roles & RECORD_ROLE_DISTRIBUTOR) || !bytes_equal(o->upstream, p->id) ||
	    o->key_id != key_id || !covers(s->public_filters, s->n_public_filters, topic) ||
	    !covers(o->filters, o->n_filters, topic))
		return DIRECTORY_NOT_PERMITTED;
	return outlet_valid(o, wall_ms) ? DIRECTORY_PERMITTED : DIRECTORY_NO_KEY_ID;
}
