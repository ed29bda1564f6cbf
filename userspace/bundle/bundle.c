// SPDX-License-Identifier: MIT
#include "userspace/bundle/bundle.h"

#include <errno.h>

#define ADMISSION_FLAGS_PARTY	BUNDLE_ADMISSION_NO_CLOCK
#define ADMISSION_FLAGS_GATEWAY (BUNDLE_ADMISSION_NO_CLOCK | BUNDLE_ADMISSION_PREVIOUS)

/* --- what both bundles are made of --------------------------------------------------------- */

static uint8_t read_admission_flags(struct bytes_reader *r, uint8_t known)
{
	uint8_t flags = bytes_read_u8(r);

	r->bad |= (flags & ~known) != 0;
	return flags;
}

static void write_point(struct bytes_writer *w, const struct p256_point *p)
{
	bytes_write(w, bytes_of(p->b, sizeof(p->b)));
}

/* One entry of each kind of section, passed over: its frame alone is looked at. */
static void skip_record(struct bytes_reader *r)
{
	(void)bytes_read_u32_view(r); /* cut short is the reader's own sticky error */
}

static void skip_party(struct bytes_reader *r)
{
	uint8_t flags;

	skip_record(r);
	flags = bytes_read_u8(r);
	(void)bytes_read_view(r, ADMISSION_KEY_BYTES);
	if (flags & BUNDLE_ADMISSION_PREVIOUS)
		(void)bytes_read_view(r, ADMISSION_KEY_BYTES + 8);
}

static void skip_grant(struct bytes_reader *r)
{
	skip_record(r);
	(void)bytes_read_u16_view(r);
}

static void skip_outlet(struct bytes_reader *r)
{
	skip_grant(r);
	(void)bytes_read_u8_view(r);
	(void)bytes_read_u16_view(r);
	(void)bytes_read_u8_view(r);
	(void)bytes_read_u32(r);
}

static void skip_revoked(struct bytes_reader *r)
{
	(void)bytes_read_view(r, 4 + 8);
}

/* Passes over n entries; returns a reader of just them. A false count ends at the first that is
 * not there, so it costs no more than the bytes at hand. */
static struct bytes_reader take_section(struct bytes_reader *r, uint32_t n,
					void (*skip)(struct bytes_reader *r))
{
	struct bytes_reader section = *r;

	for (uint32_t i = 0; i < n && !r->bad; i++)
		skip(r);
	section.left -= r->left;
	return section;
}

/* A record behind its length: room for the length, then what encode writes, then the length. */
static uint8_t *open_record(struct bytes_writer *w)
{
	return bytes_write_space(w, sizeof(uint32_t));
}

static void close_record(struct bytes_writer *w, uint8_t *length_at)
{
	if (w->bad)
		return;
	w->bad |= (size_t)(w->p - length_at) > UINT32_MAX;
	bytes_store_u32(length_at, (uint32_t)(w->p - length_at - sizeof(uint32_t)));
}

/* --- the gateway's bundle ------------------------------------------------------------------ */

int bundle_gateway_decode(struct bytes body, struct bundle_gateway *ret_b)
{
	struct bytes_reader r = bytes_reader_of(body);
	struct bundle_gateway b = { 0 };

	record_broker_read(&r, &b.broker);
	bytes_read_copy(&r, b.unwrap_key_hash, sizeof(b.unwrap_key_hash));
	b.n_scopes = bytes_read_u32(&r);
	b.scopes = take_section(&r, b.n_scopes, skip_record);
	b.n_parties = bytes_read_u32(&r);
	b.parties = take_section(&r, b.n_parties, skip_party);
	b.n_grants = bytes_read_u32(&r);
	b.grants = take_section(&r, b.n_grants, skip_grant);
	b.n_revoked = bytes_read_u32(&r);
	b.revoked = take_section(&r, b.n_revoked, skip_revoked);
	b.n_updates = bytes_read_u32(&r);
	b.updates = take_section(&r, b.n_updates, skip_record);
	if (!bytes_read_done(&r))
		return -EBADMSG;
	*ret_b = b;
	return 0;
}

int bundle_gateway_next_scope(struct bytes_reader *r, struct record_scope *ret_s)
{
	struct bytes record = bytes_read_u32_view(r);

	return r->bad ? -EBADMSG : record_scope_decode(record, ret_s);
}

int bundle_gateway_next_party(struct bytes_reader *r, struct bundle_gateway_party *ret_p)
{
	struct bytes record = bytes_read_u32_view(r);
	struct bundle_gateway_party p = { 0 };
	int err;

	p.admission_flags = read_admission_flags(r, ADMISSION_FLAGS_GATEWAY);
	bytes_read_copy(r, p.k_adm, sizeof(p.k_adm));
	if (p.admission_flags & BUNDLE_ADMISSION_PREVIOUS) {
		bytes_read_copy(r, p.previous_k_adm, sizeof(p.previous_k_adm));
		p.previous_until_ms = bytes_read_u64(r);
	}
	if (r->bad)
		return -EBADMSG;
	err = record_party_decode_signed(record, &p.party);
	if (err)
		return err;
	*ret_p = p;
	return 0;
}

int bundle_gateway_next_grant(struct bytes_reader *r, struct bundle_gateway_grant *ret_g)
{
	struct bytes record = bytes_read_u32_view(r);
	struct bundle_gateway_grant g;
	int err;

	g.wrapped_rk = bytes_read_u16_view(r);
	if (r->bad || g.wrapped_rk.n > BUNDLE_WRAPPED_BYTES_MAX)
		return -EBADMSG;
	err = record_grant_decode_signed(record, &g.grant);
	if (err)
		return err;
	if (!g.wrapped_rk.n != (g.grant.upstream.n > 0))
		return -EBADMSG; /* whoever converts has the key, and nobody else */
	*ret_g = g;
	return 0;
}

int bundle_gateway_next_revoked(struct bytes_reader *r, struct bundle_gateway_revoked *ret_v)
{
	struct bundle_gateway_revoked v;

	v.key_id = bytes_read_u32(r);
	v.revoked_at_ms = bytes_read_u64(r);
	if (r->bad)
		return -EBADMSG;
	*ret_v = v;
	return 0;
}

int bundle_gateway_next_update(struct bytes_reader *r, struct bytes *ret_whole,
			       struct statement *ret_s)
{
	struct bytes whole = bytes_read_u32_view(r);
	int err = r->bad ? -EBADMSG : statement_read(whole, ret_s);

	if (!err)
		*ret_whole = whole;
	return err;
}

void bundle_gateway_write_head(const struct bundle_gateway *b, struct bytes_writer *w)
{
	record_broker_encode(&b->broker, w);
	bytes_write(w, bytes_of(b->unwrap_key_hash, sizeof(b->unwrap_key_hash)));
}

void bundle_gateway_write_scope(const struct record_scope *s, struct bytes_writer *w)
{
	uint8_t *length_at = open_record(w);

	record_scope_encode(s, w);
	close_record(w, length_at);
}

void bundle_gateway_write_party(const struct bundle_gateway_party *p, struct bytes_writer *w)
{
	uint8_t *length_at = open_record(w);

	record_party_encode(&p->party, w);
	close_record(w, length_at);
	bytes_write_u8(w, p->admission_flags);
	bytes_write(w, bytes_of(p->k_adm, sizeof(p->k_adm)));
	if (p->admission_flags & BUNDLE_ADMISSION_PREVIOUS) {
		bytes_write(w, bytes_of(p->previous_k_adm, sizeof(p->previous_k_adm)));
		bytes_write_u64(w, p->previous_until_ms);
	}
}

void bundle_gateway_write_grant(const struct bundle_gateway_grant *g, struct bytes_writer *w)
{
	uint8_t *length_at = open_record(w);

	record_grant_encode(&g->grant, w);
	close_record(w, length_at);
	bytes_write_u16_view(w, g->wrapped_rk);
}

void bundle_gateway_write_revoked(const struct bundle_gateway_revoked *v, struct bytes_writer *w)
{
	bytes_write_u32(w, v->key_id);
	bytes_write_u64(w, v->revoked_at_ms);
}

void bundle_gateway_write_update(struct bytes statement, struct bytes_writer *w)
{
	bytes_write_u32_view(w, statement);
}

/* --- a party's bundle ---------------------------------------------------------------------- */

int bundle_party_decode(struct bytes body, struct bundle_party *ret_b)
{
	struct bytes_reader r = bytes_reader_of(body);
	struct bundle_party b = { 0 };

	b.party_id = record_read_id(&r);
	record_read_point(&r, &b.signing);
	record_broker_read(&r, &b.broker);
	b.admission_flags = read_admission_flags(&r, ADMISSION_FLAGS_PARTY);
	bytes_read_copy(&r, b.k_adm, sizeof(b.k_adm));
	b.n_scopes = bytes_read_u16(&r);
	b.scopes = take_section(&r, b.n_scopes, skip_record);
	b.n_grants = bytes_read_u16(&r);
	b.grants = take_section(&r, b.n_grants, skip_record);
	b.n_origins = bytes_read_u16(&r);
	b.origins = take_section(&r, b.n_origins, skip_record);
	if (!bytes_read_done(&r))
		return -EBADMSG;
	*ret_b = b;
	return 0;
}

int bundle_party_next_scope(struct bytes_reader *r, struct record_scope *ret_s)
{
	return bundle_gateway_next_scope(r, ret_s);
}

int bundle_party_next_grant(struct bytes_reader *r, struct record_grant *ret_g)
{
	struct bytes record = bytes_read_u32_view(r);

	return r->bad ? -EBADMSG : record_grant_decode(record, ret_g);
}

int bundle_party_next_origin(struct bytes_reader *r, struct record_party *ret_p)
{
	struct bytes record = bytes_read_u32_view(r);

	return r->bad ? -EBADMSG : record_party_decode(record, ret_p);
}

void bundle_party_write_head(const struct bundle_party *b, struct bytes_writer *w)
{
	bytes_write_u8_view(w, b->party_id);
	write_point(w, &b->signing);
	record_broker_encode(&b->broker, w);
	bytes_write_u8(w, b->admission_flags);
	bytes_write(w, bytes_of(b->k_adm, sizeof(b->k_adm)));
}

void bundle_party_write_record(struct bytes record, struct bytes_writer *w)
{
	bytes_write_u32_view(w, record);
}

/* --- a distributor's ------------------------------------------------------------------------ */

int bundle_distributor_decode(struct bytes body, struct bundle_distributor *ret_d)
{
	struct bytes_reader r = bytes_reader_of(body);
	struct bundle_distributor d = { 0 };

	d.id = record_read_id(&r);
	record_read_point(&r, &d.signing);
	bytes_read_copy(&r, d.unwrap_key_hash, sizeof(d.unwrap_key_hash));
	record_read_point(&r, &d.trace);
	d.admission_flags = read_admission_flags(&r, ADMISSION_FLAGS_PARTY);
	bytes_read_copy(&r, d.k_adm, sizeof(d.k_adm));
	record_broker_read(&r, &d.from);
	record_broker_read(&r, &d.to);
	d.n_hops = bytes_read_u16(&r);
	d.hops = take_section(&r, d.n_hops, skip_record);
	d.n_outlets = bytes_read_u16(&r);
	d.outlets = take_section(&r, d.n_outlets, skip_outlet);
	d.n_origins = bytes_read_u32(&r);
	d.origins = take_section(&r, d.n_origins, skip_record);
	if (!bytes_read_done(&r))
		return -EBADMSG;
	*ret_d = d;
	return 0;
}

int bundle_distributor_next_hop(struct bytes_reader *r, struct record_grant *ret_g)
{
	struct record_grant g;
	int err = bundle_party_next_grant(r, &g);

	if (err)
		return err;
	if (!(g.flags & RECORD_GRANT_HOP))
		return -EBADMSG;
	*ret_g = g;
	return 0;
}

int bundle_distributor_next_outlet(struct bytes_reader *r, struct bundle_outlet *ret_o)
{
	struct bytes record = bytes_read_u32_view(r);
	struct bundle_outlet o;
	int err;

	o.wrapped_rk = bytes_read_u16_view(r);
	o.name = record_read_id(r);
	o.prefix = bytes_read_u16_view(r);
	o.domain = record_read_id(r);
	o.rotate_seconds = bytes_read_u32(r);
	if (r->bad || !o.wrapped_rk.n || o.wrapped_rk.n > BUNDLE_WRAPPED_BYTES_MAX ||
	    !record_topic_is_valid(o.prefix))
		return -EBADMSG;
	err = record_grant_decode(record, &o.grant);
	if (err)
		return err;
	if (!o.grant.upstream.n)
		return -EBADMSG;
	*ret_o = o;
	return 0;
}

int bundle_distributor_next_origin(struct bytes_reader *r, struct record_party *ret_p)
{
	return bundle_party_next_origin(r, ret_p);
}

void bundle_distributor_write_head(const struct bundle_distributor *d, struct bytes_writer *w)
{
	bytes_write_u8_view(w, d->id);
	write_point(w, &d->signing);
	bytes_write(w, bytes_of(d->unwrap_key_hash, sizeof(d->unwrap_key_hash)));
	write_point(w, &d->trace);
	bytes_write_u8(w, d->admission_flags);
	bytes_write(w, bytes_of(d->k_adm, sizeof(d->k_adm)));
	record_broker_encode(&d->from, w);
	record_broker_encode(&d->to, w);
}

void bundle_distributor_write_hop(const struct record_grant *g, struct bytes_writer *w)
{
	uint8_t *length_at = open_record(w);

	record_grant_encode(g, w);
	close_record(w, length_at);
}

void bundle_distributor_write_outlet(const struct bundle_outlet *o, struct bytes_writer *w)
{
	bundle_distributor_write_hop(&o->grant, w);
	bytes_write_u16_view(w, o->wrapped_rk);
	bytes_write_u8_view(w, o->name);
	bytes_write_u16_view(w, o->prefix);
	bytes_write_u8_view(w, o->domain);
	bytes_write_u32(w, o->rotate_seconds);
}

void bundle_distributor_write_origin(const struct record_party *p, struct bytes_writer *w)
{
	uint8_t *length_at = open_record(w);

	record_party_encode(p, w);
	close_record(w, length_at);
}
