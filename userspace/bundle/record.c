// SPDX-License-Identifier: MIT
#include "userspace/bundle/record.h"

#include <errno.h>
#include <string.h>

#include "userspace/base/text.h"
#include "userspace/crypto/hpke.h"

#define ROLES_ALL \
	(RECORD_ROLE_DEVICE | RECORD_ROLE_RECEIVER | RECORD_ROLE_DISTRIBUTOR | RECORD_ROLE_MANAGER)
#define SCOPE_FLAGS_ALL RECORD_SCOPE_PADDED
#define GRANT_FLAGS_ALL \
	(RECORD_GRANT_PROOF | RECORD_GRANT_IDS_REPLACED | RECORD_GRANT_HOP | RECORD_GRANT_PADDED)
#define PARTY_FLAGS_ALL (RECORD_PARTY_ZK | RECORD_PARTY_CLAIM)

/*
 * Bytes that one character of UTF-8 takes at the front of v, 0 where there is none: no overlong
 * form, no surrogate, nothing above U+10FFFF (RFC 3629), and no NUL [MQTT-1.5.3-1, MQTT-1.5.3-2].
 */
static size_t utf8_character(struct bytes v)
{
	uint8_t lead = v.p[0];
	size_t n = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
	uint8_t low = 0x80, high = 0xbf; /* what the second byte may be */

	if (n == 1)
		return lead != 0;
	if (lead < 0xc2 || lead > 0xf4 || n > v.n)
		return 0;
	if (lead == 0xe0)
		low = 0xa0;
	else if (lead == 0xed)
		high = 0x9f;
	else if (lead == 0xf0)
		low = 0x90;
	else if (lead == 0xf4)
		high = 0x8f;
	if (v.p[1] < low || v.p[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++) {
		if ((v.p[i] & 0xc0) != 0x80)
			return 0;
	}
	return n;
}

static bool is_utf8(struct bytes v)
{
	while (v.n) {
		size_t n = utf8_character(v);

		if (!n)
			return false;
		v = bytes_of(v.p + n, v.n - n);
	}
	return true;
}

/* The level in front of the next slash; *rest is what follows it, *more whether there was one. */
static struct bytes take_level(struct bytes *rest, bool *more)
{
	const uint8_t *slash = rest->n ? memchr(rest->p, '/', rest->n) : NULL;
	struct bytes level = *rest;

	*more = slash != NULL;
	if (slash) {
		level.n = (size_t)(slash - rest->p);
		*rest = bytes_of(slash + 1, rest->n - level.n - 1);
	} else {
		*rest = bytes_of(NULL, 0);
	}
	return level;
}

static bool level_is(struct bytes level, char wildcard)
{
	return level.n == 1 && level.p[0] == (uint8_t)wildcard;
}

static bool level_has(struct bytes level, char c)
{
	return level.n && memchr(level.p, c, level.n);
}

bool record_filter_is_valid(struct bytes filter)
{
	bool more = true;

	if (!filter.n || filter.n > UINT16_MAX || !is_utf8(filter))
		return false;
	while (more) {
		struct bytes level = take_level(&filter, &more);

		/* [MQTT-4.7.1-2] alone in its level and last, [MQTT-4.7.1-3] alone in its level */
		if (level_has(level, '#') && (!level_is(level, '#') || more))
			return false;
		if (level_has(level, '+') && !level_is(level, '+'))
			return false;
	}
	return true;
}

bool record_topic_is_valid(struct bytes topic)
{
	return record_filter_is_valid(topic) && topic.p[0] != '$' && !level_has(topic, '#') &&
	       !level_has(topic, '+');
}

bool record_filter_matches(struct bytes filter, struct bytes topic)
{
	bool more_filter = true, more_topic = true;

	if (!filter.n || !topic.n)
		return false;
	/* [MQTT-4.7.2-1] */
	if (topic.p[0] == '$' && (filter.p[0] == '+' || filter.p[0] == '#'))
		return false;
	while (more_filter && more_topic) {
		struct bytes want = take_level(&filter, &more_filter);
		struct bytes have = take_level(&topic, &more_topic);

		if (level_is(want, '#'))
			return !more_filter;
		if (!level_is(want, '+') && !bytes_equal(want, have))
			return false;
	}
	/* "sport/#" stands for its parent level too (MQTT 4.7.1.2). */
	return !more_topic && (!more_filter || level_is(filter, '#'));
}

bool record_valid_at(uint64_t not_before_ms, uint64_t not_after_ms, uint64_t now_ms)
{
	if (!now_ms)
		return true;
	return now_ms >= not_before_ms && (!not_after_ms || now_ms < not_after_ms);
}

/* --- fields that several records have ------------------------------------------------------ */

struct bytes record_read_id(struct bytes_reader *r)
{
	struct bytes id = bytes_read_u8_view(r);

	r->bad |= !text_is_id(id);
	return id;
}

enum points { POINTS_CHECKED, POINTS_AS_THEY_ARE };

static void read_point(struct bytes_reader *r, struct p256_point *p, enum points points)
{
	bytes_read_copy(r, p->b, sizeof(p->b));
	if (!r->bad && points == POINTS_CHECKED && p256_point_check(bytes_of(p->b, sizeof(p->b))))
		r->bad = true;
}

void record_read_point(struct bytes_reader *r, struct p256_point *p)
{
	read_point(r, p, POINTS_CHECKED);
}

static void write_point(struct bytes_writer *w, const struct p256_point *p)
{
	bytes_write(w, bytes_of(p->b, sizeof(p->b)));
}

/* Is there what the format has as "u8 0 or 1"? */
static bool read_presence(struct bytes_reader *r)
{
	uint8_t v = bytes_read_u8(r);

	r->bad |= v > 1;
	return v == 1;
}

/* A second key and the time at which one of the two ends or begins. */
static bool read_other_key(struct bytes_reader *r, struct p256_point *key, uint64_t *at_ms,
			   enum points points)
{
	if (!read_presence(r))
		return false;
	read_point(r, key, points);
	*at_ms = bytes_read_u64(r);
	return true;
}

static void write_other_key(struct bytes_writer *w, bool has, const struct p256_point *key,
			    uint64_t at_ms)
{
	bytes_write_u8(w, has);
	if (!has)
		return;
	write_point(w, key);
	bytes_write_u64(w, at_ms);
}

static unsigned read_filters(struct bytes_reader *r, struct bytes filters[RECORD_FILTERS_MAX])
{
	unsigned n = bytes_read_u16(r);

	r->bad |= n > RECORD_FILTERS_MAX;
	for (unsigned i = 0; i < n && !r->bad; i++) {
		filters[i] = bytes_read_u16_view(r);
		r->bad |= !record_filter_is_valid(filters[i]);
	}
	return n;
}

static void write_filters(struct bytes_writer *w, const struct bytes *filters, unsigned n)
{
	w->bad |= n > RECORD_FILTERS_MAX;
	bytes_write_u16(w, (uint16_t)n);
	for (unsigned i = 0; i < n && !w->bad; i++)
		bytes_write_u16_view(w, filters[i]);
}

/* --- the records --------------------------------------------------------------------------- */

int record_scope_decode(struct bytes body, struct record_scope *ret_s)
{
	struct bytes_reader r = bytes_reader_of(body);
	struct record_scope s = { 0 };

	s.key_id = bytes_read_u32(&r);
	s.epoch = bytes_read_u32(&r);
	s.name = record_read_id(&r);
	s.suite = bytes_read_u8(&r);
	s.flags = bytes_read_u8(&r);
	s.not_before_ms = bytes_read_u64(&r);
	s.not_after_ms = bytes_read_u64(&r);
	record_read_point(&r, &s.a);
	s.rekey_messages = bytes_read_u32(&r);
	s.rekey_seconds = bytes_read_u32(&r);
	s.n_filters = read_filters(&r, s.filters);
	s.n_public_filters = read_filters(&r, s.public_filters);
	if (!bytes_read_done(&r) || s.flags & ~SCOPE_FLAGS_ALL)
		return -EBADMSG;
	if (s.suite != HPKE_SUITE_AES_128_GCM && s.suite != HPKE_SUITE_CHACHA20_POLY1305)
		return -EBADMSG;
	*ret_s = s;
	return 0;
}

void record_scope_encode(const struct record_scope *s, struct bytes_writer *w)
{
	bytes_write_u32(w, s->key_id);
	bytes_write_u32(w, s->epoch);
	bytes_write_u8_view(w, s->name);
	bytes_write_u8(w, s->suite);
	bytes_write_u8(w, s->flags);
	bytes_write_u64(w, s->not_before_ms);
	bytes_write_u64(w, s->not_after_ms);
	write_point(w, &s->a);
	bytes_write_u32(w, s->rekey_messages);
	bytes_write_u32(w, s->rekey_seconds);
	write_filters(w, s->filters, s->n_filters);
	write_filters(w, s->public_filters, s->n_public_filters);
}

static int decode_grant(struct bytes body, struct record_grant *ret_g, enum points points)
{
	struct bytes_reader r = bytes_reader_of(body);
	struct record_grant g = { 0 };

	bytes_read_copy(&r, g.grant_id, sizeof(g.grant_id));
	bytes_read_copy(&r, g.from, sizeof(g.from));
	g.key_id = bytes_read_u32(&r);
	g.flags = bytes_read_u8(&r);
	g.upstream = bytes_read_u8_view(&r);
	r.bad |= g.upstream.n && !text_is_id(g.upstream);
	g.receiver = record_read_id(&r);
	read_point(&r, &g.a, points);
	if (!(g.flags & RECORD_GRANT_HOP)) {
		read_point(&r, &g.b, points);
		read_point(&r, &g.x, points);
	}
	g.not_before_ms = bytes_read_u64(&r);
	g.not_after_ms = bytes_read_u64(&r);
	g.scope = record_read_id(&r);
	g.n_filters = read_filters(&r, g.filters);
	if (!bytes_read_done(&r) || g.flags & ~GRANT_FLAGS_ALL)
		return -EBADMSG;
	*ret_g = g;
	return 0;
}

int record_grant_decode(struct bytes body, struct record_grant *ret_g)
{
	return decode_grant(body, ret_g, POINTS_CHECKED);
}

int record_grant_decode_signed(struct bytes body, struct record_grant *ret_g)
{
	return decode_grant(body, ret_g, POINTS_AS_THEY_ARE);
}

void record_grant_encode(const struct record_grant *g, struct bytes_writer *w)
{
	bytes_write(w, bytes_of(g->grant_id, sizeof(g->grant_id)));
	bytes_write(w, bytes_of(g->from, sizeof(g->from)));
	bytes_write_u32(w, g->key_id);
	bytes_write_u8(w, g->flags);
	bytes_write_u8_view(w, g->upstream);
	bytes_write_u8_view(w, g->receiver);
	write_point(w, &g->a);
	if (!(g->flags & RECORD_GRANT_HOP)) {
		write_point(w, &g->b);
		write_point(w, &g->x);
	}
	bytes_write_u64(w, g->not_before_ms);
	bytes_write_u64(w, g->not_after_ms);
	bytes_write_u8_view(w, g->scope);
	write_filters(w, g->filters, g->n_filters);
}

static int decode_party(struct bytes body, struct record_party *ret_p, enum points points)
{
	struct bytes_reader r = bytes_reader_of(body);
	struct record_party p = { 0 };

	p.id = record_read_id(&r);
	p.roles = bytes_read_u8(&r);
	p.flags = bytes_read_u8(&r);
	read_point(&r, &p.signing, points);
	p.has_previous = read_other_key(&r, &p.previous, &p.previous_until_ms, points);
	p.has_encryption = read_presence(&r);
	if (p.has_encryption)
		read_point(&r, &p.encryption, points);
	p.n_scopes = bytes_read_u16(&r);
	r.bad |= p.n_scopes > RECORD_SCOPES_MAX;
	for (unsigned i = 0; i < p.n_scopes && !r.bad; i++)
		p.scopes[i] = record_read_id(&r);
	if (!bytes_read_done(&r) || p.roles & ~ROLES_ALL || p.flags & ~PARTY_FLAGS_ALL)
		return -EBADMSG;
	*ret_p = p;
	return 0;
}

int record_party_decode(struct bytes body, struct record_party *ret_p)
{
	return decode_party(body, ret_p, POINTS_CHECKED);
}

int record_party_decode_signed(struct bytes body, struct record_party *ret_p)
{
	return decode_party(body, ret_p, POINTS_AS_THEY_ARE);
}

void record_party_encode(const struct record_party *p, struct bytes_writer *w)
{
	bytes_write_u8_view(w, p->id);
	bytes_write_u8(w, p->roles);
	bytes_write_u8(w, p->flags);
	write_point(w, &p->signing);
	write_other_key(w, p->has_previous, &p->previous, p->previous_until_ms);
	bytes_write_u8(w, p->has_encryption);
	if (p->has_encryption)
		write_point(w, &p->encryption);
	w->bad |= p->n_scopes > RECORD_SCOPES_MAX;
	bytes_write_u16(w, (uint16_t)p->n_scopes);
	for (unsigned i = 0; i < p->n_scopes && !w->bad; i++)
		bytes_write_u8_view(w, p->scopes[i]);
}

void record_broker_read(struct bytes_reader *r, struct record_broker *b)
{
	b->gateway_id = record_read_id(r);
	record_read_point(r, &b->signing);
	b->has_next = read_other_key(r, &b->next, &b->next_from_ms, POINTS_CHECKED);
}

void record_zk_id(const struct p256_point *key, char ret_id[RECORD_ZK_ID_CHARS + 1])
{
	uint8_t compressed[P256_COMPRESSED_BYTES];

	_Static_assert(TEXT_B64U_SIZE(P256_COMPRESSED_BYTES) == RECORD_ZK_ID_CHARS + 1,
		       "44 characters");
	p256_point_compress(key, compressed);
	text_b64u(bytes_of(compressed, sizeof(compressed)), ret_id);
}

bool record_id_is_key(struct bytes id, const struct p256_point *key)
{
	char own[RECORD_ZK_ID_CHARS + 1];

	record_zk_id(key, own);
	return bytes_equal(id, bytes_of(own, RECORD_ZK_ID_CHARS));
}

int record_broker_decode(struct bytes body, struct record_broker *ret_b)
{
	struct bytes_reader r = bytes_reader_of(body);
	struct record_broker b = { 0 };

	record_broker_read(&r, &b);
	if (!bytes_read_done(&r))
		return -EBADMSG;
	*ret_b = b;
	return 0;
}

void record_broker_encode(const struct record_broker *b, struct bytes_writer *w)
{
	bytes_write_u8_view(w, b->gateway_id);
	write_point(w, &b->signing);
	write_other_key(w, b->has_next, &b->next, b->next_from_ms);
}
