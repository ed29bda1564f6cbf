// SPDX-License-Identifier: MIT
#include "userspace/distributor/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/secret.h"

static void signer_deinit(struct plan_signer *s)
{
	p256_public_free(s->key);
	p256_public_free(s->previous);
	s->key = s->previous = NULL;
}

static int signer_init(struct plan_signer *s, const struct p256_point *key, bool has_other,
		       const struct p256_point *other, uint64_t change_ms)
{
	int err = p256_public_new(key, &s->key);

	if (!err && has_other)
		err = p256_public_new(other, &s->previous);
	s->change_ms = change_ms;
	if (err)
		signer_deinit(s);
	return err;
}

static int broker_init(struct plan_signer *s, const struct record_broker *b)
{
	return signer_init(s, &b->signing, b->has_next, &b->next, b->next_from_ms);
}

/* --- the sections ----------------------------------------------------------------------------- */

static int take_hops(struct plan *p)
{
	struct bytes_reader r = p->bundle.hops;
	int err = 0;

	p->hops = calloc(p->bundle.n_hops + 1u, sizeof(*p->hops));
	if (!p->hops)
		return -ENOMEM;
	for (unsigned i = 0; i < p->bundle.n_hops && !err; i++) {
		err = bundle_distributor_next_hop(&r, &p->hops[i].grant);
		if (!err && !bytes_equal(p->hops[i].grant.receiver, p->bundle.id))
			err = -EBADMSG;
	}
	p->n_hops = p->bundle.n_hops;
	return err;
}

static int compare_from(const void *a, const void *b)
{
	const struct plan_outlet *x = a, *y = b;

	return memcmp(x->outlet.grant.from, y->outlet.grant.from, GRANT_ID_BYTES);
}

/* Sorted by the hop that they begin at. One that begins at none of ours converts nothing. */
static int take_outlets(struct plan *p)
{
	struct bytes_reader r = p->bundle.outlets;
	int err = 0;

	p->outlets = calloc(p->bundle.n_outlets + 1u, sizeof(*p->outlets));
	if (!p->outlets)
		return -ENOMEM;
	for (unsigned i = 0; i < p->bundle.n_outlets && !err; i++) {
		err = bundle_distributor_next_outlet(&r, &p->outlets[i].outlet);
		if (!err && !bytes_equal(p->outlets[i].outlet.grant.upstream, p->bundle.id))
			err = -EBADMSG;
	}
	if (err)
		return err;
	p->n_outlets = p->bundle.n_outlets;
	qsort(p->outlets, p->n_outlets, sizeof(*p->outlets), compare_from);
	for (unsigned i = 0; i < p->n_outlets; i++) {
		const struct record_grant *g = &p->outlets[i].outlet.grant;

		for (unsigned k = 0; k < p->n_hops; k++) {
			struct plan_hop *h = &p->hops[k];

			if (memcmp(h->grant.grant_id, g->from, GRANT_ID_BYTES) != 0)
				continue;
			/* A message has one key id, from its sender to its last receiver. */
			if (h->grant.key_id != g->key_id)
				return -EBADMSG;
			if (!h->n_outlets++)
				h->first_outlet = i;
		}
	}
	return 0;
}

static int compare_origins(const void *a, const void *b)
{
	return bytes_compare(((const struct plan_origin *)a)->id,
			     ((const struct plan_origin *)b)->id);
}

/* Ids alone: decoding a record checks points on the curve, and there may be many. */
static int take_origins(struct plan *p)
{
	struct bytes_reader r = p->bundle.origins;

	p->origins = calloc(p->bundle.n_origins + 1ul, sizeof(*p->origins));
	if (!p->origins)
		return -ENOMEM;
	for (unsigned i = 0; i < p->bundle.n_origins; i++) {
		struct plan_origin *o = &p->origins[i];
		struct bytes_reader head;

		o->record = bytes_read_u32_view(&r);
		head = bytes_reader_of(o->record);
		o->id = record_read_id(&head);
		if (r.bad || head.bad)
			return -EBADMSG;
	}
	p->n_origins = p->bundle.n_origins;
	qsort(p->origins, p->n_origins, sizeof(*p->origins), compare_origins);
	return 0;
}

int plan_new(uint8_t *bytes, size_t n, const struct statement *s, struct plan **ret_p)
{
	struct plan *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->refs = 1;
	p->serial = s->serial;
	err = bundle_distributor_decode(s->body, &p->bundle);
	if (!err)
		err = broker_init(&p->from, &p->bundle.from);
	if (!err)
		err = broker_init(&p->to, &p->bundle.to);
	if (!err)
		err = take_hops(p);
	if (!err)
		err = take_outlets(p);
	if (!err)
		err = take_origins(p);
	if (err) {
		plan_put(p);
		return err;
	}
	p->one_broker = bytes_equal(p->bundle.from.gateway_id, p->bundle.to.gateway_id);
	p->bytes = bytes;
	p->n_bytes = n;
	*ret_p = p;
	return 0;
}

struct plan *plan_get(struct plan *p)
{
	p->refs++;
	return p;
}

void plan_put(struct plan *p)
{
	if (!p || --p->refs)
		return;
	signer_deinit(&p->from);
	signer_deinit(&p->to);
	for (unsigned i = 0; i < p->n_origins; i++)
		signer_deinit(&p->origins[i].signer);
	free(p->hops);
	free(p->outlets);
	free(p->origins);
	if (p->bytes)
		secret_wipe(p->bytes, p->n_bytes);
	free(p->bytes);
	secret_wipe(p, sizeof(*p)); /* the decoded bundle has K_adm too */
	free(p);
}

/* --- questions -------------------------------------------------------------------------------- */

const struct plan_hop *plan_hop(const struct plan *p, struct bytes grant_id)
{
	for (unsigned i = 0; i < p->n_hops; i++)
		if (bytes_equal(bytes_of(p->hops[i].grant.grant_id, GRANT_ID_BYTES), grant_id))
			return &p->hops[i];
	return NULL;
}

struct plan_outlet *plan_outlet(const struct plan *p, const uint8_t grant_id[GRANT_ID_BYTES])
{
	for (unsigned i = 0; i < p->n_outlets; i++)
		if (!memcmp(p->outlets[i].outlet.grant.grant_id, grant_id, GRANT_ID_BYTES))
			return &p->outlets[i];
	return NULL;
}

bool plan_has(const struct plan *p, const struct plan_outlet *o)
{
	const struct plan_outlet *same = plan_outlet(p, o->outlet.grant.grant_id);

	return same && bytes_equal(same->outlet.wrapped_rk, o->outlet.wrapped_rk) &&
	       bytes_equal(same->outlet.prefix, o->outlet.prefix) &&
	       bytes_equal(same->outlet.domain, o->outlet.domain);
}

int plan_origin(struct plan *p, struct bytes id, const struct plan_signer **ret_s)
{
	struct plan_origin key = { .id = id };
	struct plan_origin *o = p->n_origins ? bsearch(&key, p->origins, p->n_origins,
						       sizeof(*p->origins), compare_origins)
					     : NULL;
	struct record_party party;
	int err;

	if (!o)
		return -ENOENT;
	if (!o->ready) {
		err = record_party_decode(o->record, &party);
		if (!err)
			err = signer_init(&o->signer, &party.signing, party.has_previous,
					  &party.previous, party.previous_until_ms);
		if (err)
			return err;
		o->ready = true;
	}
	*ret_s = &o->signer;
	return 0;
}
