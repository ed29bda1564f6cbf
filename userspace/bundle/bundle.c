// SPDX-License-Identifier: MIT
#include "userspace/bundle/bundle.h"

#include <errno.h>

#define ADMISSION_FLAGS_ALL BUNDLE_ADMISSION_NO_CLOCK

/* --- what both bundles are made of --------------------------------------------------------- */

static uint8_t read_admission_flags(struct bytes_reader *r)
{
	uint8_t flags = bytes_read_u8(r);

	r->bad |= (flags & ~ADMISSION_FLAGS_ALL) != 0;
	return flags;
}

/* One entry of each kind of section, passed over: its frame alone is looked at. */
static void skip_record(struct bytes_reader *r)
{
	(void)bytes_read_u32_view(r); /* cut short is the reader's own sticky error */
}

static void skip_party(struct bytes_reader *r)
{
	skip_record(r);
	(void)bytes_read_view(r, 1 + ADMISSION_KEY_BYTES);
}

static void skip_grant(struct bytes_reader *r)
{
	skip_record(r);
	(void)bytes_read_u16_view(r);
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

	b.gateway_id = record_read_id(&r);
	record_read_point(&r, &b.broker);
	bytes_read_copy(&r, b.unwrap_key_hash, sizeof(b.unwrap_key_hash));
	b.n_scopes = bytes_read_u32(&r);
	b.scopes = take_section(&r, b.n_scopes, skip_record);
	b.n_parties = bytes_read_u32(&r);
	b.parties = take_section(&r, b.n_parties, skip_party);
	b.n_grants = bytes_read_u32(&r);
	b.grants = take_section(&r, b.n_grants, skip_grant);
	b.n_revoked = bytes_read_u32(&r);
	b.revoked = take_section(&r, b.n_revoked, skip_revoked);
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
	struct bundle_gateway_party p;
	int err;

	p.admission_flags = read_admission_flags(r);
	bytes_read_copy(r, p.k_adm, sizeof(p.k_adm));
	if (r->bad)
		return -EBADMSG;
	err = record_party_decode(record, &p.party);
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
	if (r->bad || !g.wrapped_rk.n || g.wrapped_rk.n > BUNDLE_WRAPPED_BYTES_MAX)
		return -EBADMSG;
	err = record_grant_decode(record, &g.grant);
	if (err)
		return err;
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

void bundle_gateway_write_head(const struct bundle_gateway *b, struct bytes_writer *w)
{
	bytes_write_u8_view(w, b->gateway_id);
	bytes_write(w, bytes_of(b->broker.b, sizeof(b->broker.b)));
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

/* --- a party's bundle ---------------------------------------------------------------------- */

int bundle_party_decode(struct bytes body, struct bundle_party *ret_b)
{
	struct bytes_reader r = bytes_reader_of(body);
	struct bundle_party b = { 0 };

	b.party_id = record_read_id(&r);
	record_read_point(&r, &b.signing);
	b.gateway_id = record_read_id(&r);
	record_read_point(&r, &b.broker);
	b.admission_flags = read_admission_flags(&r);
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
	bytes_write(w, bytes_of(b->signing.b, sizeof(b->signing.b)));
	bytes_write_u8_view(w, b->gateway_id);
	bytes_write(w, bytes_of(b->broker.b, sizeof(b->broker.b)));
	bytes_write_u8(w, b->admission_flags);
	bytes_write(w, bytes_of(b->k_adm, sizeof(b->k_adm)));
}

void bundle_party_write_record(struct bytes record, struct bytes_writer *w)
{
	bytes_write_u32_view(w, record);
}
