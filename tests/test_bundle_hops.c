// SPDX-License-Identifier: MIT
/*
 * What records and bundles have for distribution, for keys that change and for statements that
 * travel (PROTOCOL 8, 9): fields that come and go with a flag or a count, and whose absence is a
 * byte. What is written is read back, and what is cut or does not belong together is refused.
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/harness.h"
#include "userspace/bundle/bundle.h"
#include "userspace/bundle/record.h"
#include "userspace/bundle/statement.h"
#include "userspace/crypto/hpke.h"

#define BODY_BYTES_MAX 8192

static struct p256_point point_of(uint8_t scalar)
{
	struct secret32 k = { .b = { [31] = scalar } };
	struct p256_point p;

	ASSERT_EQ(p256_mul_base(&k, &p), 0);
	return p;
}

static bool same_point(const struct p256_point *p, uint8_t scalar)
{
	struct p256_point other = point_of(scalar);

	return !memcmp(p->b, other.b, sizeof(other.b));
}

static bool same_text(struct bytes v, const char *text)
{
	return bytes_equal(v, bytes_str(text));
}

/* --- scopes ----------------------------------------------------------------------------------- */

static struct record_scope sample_scope(void)
{
	return (struct record_scope){ .key_id = 5,
				      .epoch = 2,
				      .name = bytes_str("plant"),
				      .suite = HPKE_SUITE_AES_128_GCM,
				      .flags = RECORD_SCOPE_PADDED,
				      .a = point_of(2),
				      .n_filters = 1,
				      .filters = { bytes_str("plant/#") },
				      .n_public_filters = 2,
				      .public_filters = { bytes_str("open/#"),
							  bytes_str("city/+/plant") } };
}

static size_t encode_scope(const struct record_scope *s, uint8_t out[BODY_BYTES_MAX])
{
	struct bytes_writer w = bytes_writer_of(out, BODY_BYTES_MAX);

	record_scope_encode(s, &w);
	ASSERT_FALSE(w.bad);
	return w.used;
}

TEST(public_filters)
{
	struct record_scope s = sample_scope(), got;
	uint8_t body[BODY_BYTES_MAX];
	size_t n = encode_scope(&s, body);

	ASSERT_EQ(record_scope_decode(bytes_of(body, n), &got), 0);
	EXPECT_EQ(got.flags, RECORD_SCOPE_PADDED);
	ASSERT_EQ(got.n_filters, 1);
	ASSERT_EQ(got.n_public_filters, 2);
	EXPECT_TRUE(same_text(got.public_filters[1], "city/+/plant"));
	for (size_t cut = 0; cut < n; cut++)
		ASSERT_EQ(record_scope_decode(bytes_of(body, cut), &got), -EBADMSG);
	s.n_public_filters = 0;
	n = encode_scope(&s, body);
	ASSERT_EQ(record_scope_decode(bytes_of(body, n), &got), 0);
	EXPECT_EQ(got.n_public_filters, 0);
	s = sample_scope();
	s.public_filters[0] = bytes_str("open/#/more");
	n = encode_scope(&s, body);
	EXPECT_EQ(record_scope_decode(bytes_of(body, n), &got), -EBADMSG);
	s = sample_scope();
	s.flags = 2; /* of tomorrow */
	n = encode_scope(&s, body);
	EXPECT_EQ(record_scope_decode(bytes_of(body, n), &got), -EBADMSG);
}

/* --- grants ----------------------------------------------------------------------------------- */

static struct record_grant sample_hop(void)
{
	return (struct record_grant){ .grant_id = { 1, 2, 3 },
				      .key_id = 5,
				      .flags = RECORD_GRANT_HOP,
				      .receiver = bytes_str("dist-1"),
				      .a = point_of(2),
				      .scope = bytes_str("plant"),
				      .n_filters = 1,
				      .filters = { bytes_str("plant/#") } };
}

static struct record_grant sample_outlet_grant(void)
{
	struct record_grant g = sample_hop();

	memcpy(g.from, g.grant_id, GRANT_ID_BYTES);
	g.grant_id[0] = 9;
	g.flags = RECORD_GRANT_IDS_REPLACED | RECORD_GRANT_PADDED;
	g.upstream = bytes_str("dist-1");
	g.receiver = bytes_str("reader");
	g.b = point_of(3);
	g.x = point_of(4);
	return g;
}

static size_t encode_grant(const struct record_grant *g, uint8_t out[BODY_BYTES_MAX])
{
	struct bytes_writer w = bytes_writer_of(out, BODY_BYTES_MAX);

	record_grant_encode(g, &w);
	ASSERT_FALSE(w.bad);
	return w.used;
}

/* A hop ends in a secret that is nobody's key: there is no B and no X, not even zeros. */
TEST(hop_grants)
{
	struct record_grant hop = sample_hop(), direct = sample_outlet_grant(), got;
	uint8_t body[BODY_BYTES_MAX], longer[BODY_BYTES_MAX];
	size_t n = encode_grant(&hop, body), more;

	ASSERT_EQ(record_grant_decode(bytes_of(body, n), &got), 0);
	EXPECT_EQ(got.flags, RECORD_GRANT_HOP);
	EXPECT_TRUE(bytes_is_zero(bytes_of(got.from, sizeof(got.from))));
	EXPECT_EQ(got.upstream.n, 0);
	EXPECT_TRUE(same_point(&got.a, 2));
	EXPECT_TRUE(bytes_is_zero(bytes_of(got.b.b, sizeof(got.b.b))));
	EXPECT_TRUE(same_text(got.scope, "plant"));
	for (size_t cut = 0; cut < n; cut++)
		ASSERT_EQ(record_grant_decode(bytes_of(body, cut), &got), -EBADMSG);
	hop.flags = 0;
	hop.b = point_of(3);
	hop.x = point_of(4);
	more = encode_grant(&hop, longer);
	EXPECT_EQ(more, n + 2 * P256_POINT_BYTES);
	longer[8 + 8 + 4] = RECORD_GRANT_HOP; /* the points stand in the way then */
	EXPECT_EQ(record_grant_decode(bytes_of(longer, more), &got), -EBADMSG);

	n = encode_grant(&direct, body);
	ASSERT_EQ(record_grant_decode(bytes_of(body, n), &got), 0);
	EXPECT_EQ(got.from[0], 1);
	EXPECT_TRUE(same_text(got.upstream, "dist-1"));
	EXPECT_TRUE(same_point(&got.b, 3));
	EXPECT_TRUE(same_point(&got.x, 4));
	direct.upstream = bytes_str("no id");
	n = encode_grant(&direct, body);
	EXPECT_EQ(record_grant_decode(bytes_of(body, n), &got), -EBADMSG);
}

/* --- keys that change ------------------------------------------------------------------------- */

TEST(previous_keys)
{
	struct record_party p = { .id = bytes_str("dev-1"),
				  .roles = RECORD_ROLE_DEVICE,
				  .flags = RECORD_PARTY_ZK,
				  .signing = point_of(2),
				  .has_previous = true,
				  .previous = point_of(3),
				  .previous_until_ms = 7 };
	struct record_party got;
	uint8_t body[BODY_BYTES_MAX];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));
	size_t at = 1 + 5 + 1 + 1 + P256_POINT_BYTES;

	record_party_encode(&p, &w);
	ASSERT_EQ(record_party_decode(bytes_of(body, w.used), &got), 0);
	EXPECT_EQ(got.flags, RECORD_PARTY_ZK);
	ASSERT_TRUE(got.has_previous);
	EXPECT_TRUE(same_point(&got.previous, 3));
	EXPECT_EQ(got.previous_until_ms, 7);
	EXPECT_FALSE(got.has_encryption);
	ASSERT_EQ(body[at], 1);
	body[at + 10] ^= 1;
	EXPECT_EQ(record_party_decode(bytes_of(body, w.used), &got), -EBADMSG);
	p.has_previous = false;
	p.roles = 0; /* which says that it was revoked */
	w = bytes_writer_of(body, sizeof(body));
	record_party_encode(&p, &w);
	EXPECT_EQ(w.used, at + 1 + 1 + 2);
	ASSERT_EQ(record_party_decode(bytes_of(body, w.used), &got), 0);
	EXPECT_FALSE(got.has_previous);
	EXPECT_EQ(got.roles, 0);
}

static struct record_broker sample_broker(const char *id, uint8_t key, uint8_t next)
{
	struct record_broker b = { .gateway_id = bytes_str(id), .signing = point_of(key) };

	if (next) {
		b.has_next = true;
		b.next = point_of(next);
		b.next_from_ms = 99;
	}
	return b;
}

TEST(broker_records)
{
	uint8_t body[BODY_BYTES_MAX];
	struct record_broker got;

	for (uint8_t next = 0; next < 8; next += 7) {
		struct record_broker b = sample_broker("gw-1", 6, next);
		struct bytes_writer w = bytes_writer_of(body, sizeof(body));

		record_broker_encode(&b, &w);
		EXPECT_EQ(w.used, 1 + 4 + P256_POINT_BYTES + 1 + (next ? P256_POINT_BYTES + 8 : 0));
		ASSERT_EQ(record_broker_decode(bytes_of(body, w.used), &got), 0);
		EXPECT_TRUE(same_text(got.gateway_id, "gw-1"));
		EXPECT_TRUE(same_point(&got.signing, 6));
		EXPECT_EQ(got.has_next, next != 0);
		if (next) {
			EXPECT_TRUE(same_point(&got.next, 7));
			EXPECT_EQ(got.next_from_ms, 99);
		}
		for (size_t cut = 0; cut < w.used; cut++)
			ASSERT_EQ(record_broker_decode(bytes_of(body, cut), &got), -EBADMSG);
		body[w.used] = 0;
		EXPECT_EQ(record_broker_decode(bytes_of(body, w.used + 1), &got), -EBADMSG);
		body[1 + 4 + P256_POINT_BYTES] = 2; /* neither none nor one */
		EXPECT_EQ(record_broker_decode(bytes_of(body, w.used), &got), -EBADMSG);
	}
}

/* --- a gateway's bundle ----------------------------------------------------------------------- */

static struct bundle_gateway_party sample_party(uint8_t admission_flags)
{
	return (struct bundle_gateway_party){ .party = { .id = bytes_str("dev-1"),
							 .roles = RECORD_ROLE_DEVICE,
							 .signing = point_of(2) },
					      .admission_flags = admission_flags,
					      .k_adm = { 1 },
					      .previous_k_adm = { 2 },
					      .previous_until_ms = 77 };
}

/* Behind a party stands its previous admission key where the flag says so, and only there. */
TEST(previous_admission_keys)
{
	uint8_t bytes[1024];
	size_t without = 0;

	for (uint8_t flags = 0; flags < 4; flags++) {
		struct bundle_gateway_party p = sample_party(flags), got;
		struct bytes_writer w = bytes_writer_of(bytes, sizeof(bytes));
		struct bytes_reader r;
		bool has = flags & BUNDLE_ADMISSION_PREVIOUS;

		bundle_gateway_write_party(&p, &w);
		ASSERT_FALSE(w.bad);
		if (!flags)
			without = w.used;
		EXPECT_EQ(w.used, without + (has ? ADMISSION_KEY_BYTES + 8 : 0));
		r = bytes_reader_of(bytes_of(bytes, w.used));
		ASSERT_EQ(bundle_gateway_next_party(&r, &got), 0);
		EXPECT_EQ(r.left, 0);
		EXPECT_EQ(got.admission_flags, flags);
		EXPECT_EQ(got.k_adm[0], 1);
		EXPECT_EQ(got.previous_k_adm[0], has ? 2 : 0);
		EXPECT_EQ(got.previous_until_ms, has ? 77 : 0);
		for (size_t cut = 0; cut < w.used; cut++) {
			r = bytes_reader_of(bytes_of(bytes, cut));
			ASSERT_EQ(bundle_gateway_next_party(&r, &got), -EBADMSG);
		}
	}
}

/* Who converts has the key: the gateway, but where the grant names somebody upstream. */
TEST(wrapped_keys_belong_to_who_converts)
{
	static const uint8_t wrapped[384] = { 1 };
	struct bundle_gateway_grant g = { .grant = sample_outlet_grant() }, got;
	uint8_t bytes[2048];

	for (unsigned i = 0; i < 4; i++) {
		bool upstream = i & 1, key = i & 2;
		struct bytes_writer w = bytes_writer_of(bytes, sizeof(bytes));
		struct bytes_reader r;

		g.grant.upstream = bytes_str(upstream ? "dist-1" : "");
		g.wrapped_rk = bytes_of(wrapped, key ? sizeof(wrapped) : 0);
		bundle_gateway_write_grant(&g, &w);
		r = bytes_reader_of(bytes_of(bytes, w.used));
		EXPECT_EQ(bundle_gateway_next_grant(&r, &got), upstream == key ? -EBADMSG : 0);
	}
}

static struct bytes sample_statement(enum statement_kind kind, uint64_t serial, uint8_t out[256])
{
	static const uint8_t signature[P256_SIG_BYTES] = { 5 };
	const struct statement s = { .kind = kind, .serial = serial, .body = bytes_str("record") };
	struct bytes_writer w = bytes_writer_of(out, 256);

	statement_write_unsigned(&s, &w);
	bytes_write(&w, bytes_of(signature, sizeof(signature)));
	ASSERT_FALSE(w.bad);
	return bytes_of(out, w.used);
}

/* An otherwise empty bundle with two statements to pass on. */
static size_t sample_gateway(uint8_t out[BODY_BYTES_MAX], size_t *ret_updates_at)
{
	struct bundle_gateway b = { .broker = sample_broker("gw-1", 6, 7) };
	struct bytes_writer w = bytes_writer_of(out, BODY_BYTES_MAX);
	uint8_t statement[256];

	bundle_gateway_write_head(&b, &w);
	for (unsigned i = 0; i < 4; i++)
		bytes_write_u32(&w, 0);
	*ret_updates_at = w.used;
	bytes_write_u32(&w, 2);
	bundle_gateway_write_update(sample_statement(STATEMENT_SCOPE, 41, statement), &w);
	bundle_gateway_write_update(sample_statement(STATEMENT_BROKER, 42, statement), &w);
	ASSERT_FALSE(w.bad);
	return w.used;
}

TEST(updates_of_a_gateway)
{
	uint8_t body[BODY_BYTES_MAX], expected[256];
	size_t at, n = sample_gateway(body, &at);
	struct bundle_gateway b;
	struct statement s;
	struct bytes whole;

	ASSERT_EQ(bundle_gateway_decode(bytes_of(body, n), &b), 0);
	EXPECT_TRUE(b.broker.has_next);
	ASSERT_EQ(b.n_updates, 2);
	ASSERT_EQ(bundle_gateway_next_update(&b.updates, &whole, &s), 0);
	EXPECT_EQ(s.kind, STATEMENT_SCOPE);
	EXPECT_EQ(s.serial, 41);
	EXPECT_TRUE(same_text(s.body, "record"));
	EXPECT_TRUE(bytes_equal(whole, sample_statement(STATEMENT_SCOPE, 41, expected)));
	ASSERT_EQ(bundle_gateway_next_update(&b.updates, &whole, &s), 0);
	EXPECT_EQ(s.kind, STATEMENT_BROKER);
	EXPECT_EQ(bundle_gateway_next_update(&b.updates, &whole, &s), -EBADMSG);
	for (size_t cut = 0; cut < n; cut++)
		ASSERT_EQ(bundle_gateway_decode(bytes_of(body, cut), &b), -EBADMSG);
	/* What is no statement inside is found by who takes it out. */
	body[at + 4 + 4] ^= 1;
	ASSERT_EQ(bundle_gateway_decode(bytes_of(body, n), &b), 0);
	EXPECT_EQ(bundle_gateway_next_update(&b.updates, &whole, &s), -EBADMSG);
	bytes_store_u32(body + at, UINT32_MAX);
	EXPECT_EQ(bundle_gateway_decode(bytes_of(body, n), &b), -EBADMSG);
}

/* --- a distributor's -------------------------------------------------------------------------- */

static const uint8_t wrapped_rk[384] = { 0x77 };

static struct bundle_outlet sample_outlet(void)
{
	return (struct bundle_outlet){ .grant = sample_outlet_grant(),
				       .wrapped_rk = bytes_of(wrapped_rk, sizeof(wrapped_rk)),
				       .name = bytes_str("city"),
				       .prefix = bytes_str("open/city"),
				       .domain = bytes_str("all"),
				       .rotate_seconds = 3600 };
}

static size_t sample_distributor(uint8_t out[BODY_BYTES_MAX])
{
	struct bundle_distributor d = { .id = bytes_str("dist-1"),
					.signing = point_of(2),
					.unwrap_key_hash = { 0x11 },
					.trace = point_of(3),
					.admission_flags = BUNDLE_ADMISSION_NO_CLOCK,
					.k_adm = { 0xaa },
					.from = sample_broker("gw-1", 6, 7),
					.to = sample_broker("gw-2", 8, 0) };
	struct record_grant hop = sample_hop();
	struct bundle_outlet outlet = sample_outlet();
	struct record_party origin = sample_party(0).party;
	struct bytes_writer w = bytes_writer_of(out, BODY_BYTES_MAX);

	bundle_distributor_write_head(&d, &w);
	bytes_write_u16(&w, 1);
	bundle_distributor_write_hop(&hop, &w);
	bytes_write_u16(&w, 2);
	bundle_distributor_write_outlet(&outlet, &w);
	outlet.name = bytes_str("state");
	outlet.rotate_seconds = 0;
	bundle_distributor_write_outlet(&outlet, &w);
	bytes_write_u32(&w, 1);
	bundle_distributor_write_origin(&origin, &w);
	ASSERT_FALSE(w.bad);
	return w.used;
}

TEST(distributor_round_trip)
{
	uint8_t body[BODY_BYTES_MAX];
	size_t n = sample_distributor(body);
	struct bundle_distributor d;
	struct bundle_outlet o;
	struct record_grant g;
	struct record_party p;

	ASSERT_EQ(bundle_distributor_decode(bytes_of(body, n), &d), 0);
	EXPECT_TRUE(same_text(d.id, "dist-1"));
	EXPECT_TRUE(same_point(&d.signing, 2));
	EXPECT_TRUE(same_point(&d.trace, 3));
	EXPECT_EQ(d.unwrap_key_hash[0], 0x11);
	EXPECT_EQ(d.admission_flags, BUNDLE_ADMISSION_NO_CLOCK);
	EXPECT_EQ(d.k_adm[0], 0xaa);
	EXPECT_TRUE(same_text(d.from.gateway_id, "gw-1"));
	EXPECT_TRUE(d.from.has_next);
	EXPECT_TRUE(same_text(d.to.gateway_id, "gw-2"));
	EXPECT_FALSE(d.to.has_next);
	ASSERT_EQ(d.n_hops, 1);
	ASSERT_EQ(d.n_outlets, 2);
	ASSERT_EQ(d.n_origins, 1);
	ASSERT_EQ(bundle_distributor_next_hop(&d.hops, &g), 0);
	EXPECT_EQ(g.grant_id[0], 1);
	EXPECT_EQ(bundle_distributor_next_hop(&d.hops, &g), -EBADMSG);
	ASSERT_EQ(bundle_distributor_next_outlet(&d.outlets, &o), 0);
	EXPECT_EQ(o.grant.grant_id[0], 9);
	EXPECT_EQ(o.wrapped_rk.n, sizeof(wrapped_rk));
	EXPECT_TRUE(same_text(o.name, "city"));
	EXPECT_TRUE(same_text(o.prefix, "open/city"));
	EXPECT_TRUE(same_text(o.domain, "all"));
	EXPECT_EQ(o.rotate_seconds, 3600);
	ASSERT_EQ(bundle_distributor_next_outlet(&d.outlets, &o), 0);
	EXPECT_TRUE(same_text(o.name, "state"));
	EXPECT_EQ(o.rotate_seconds, 0);
	EXPECT_EQ(bundle_distributor_next_outlet(&d.outlets, &o), -EBADMSG);
	ASSERT_EQ(bundle_distributor_next_origin(&d.origins, &p), 0);
	EXPECT_TRUE(same_text(p.id, "dev-1"));
	EXPECT_EQ(bundle_distributor_next_origin(&d.origins, &p), -EBADMSG);
	for (size_t cut = 0; cut < n; cut++)
		ASSERT_EQ(bundle_distributor_decode(bytes_of(body, cut), &d), -EBADMSG);
	body[n] = 0;
	EXPECT_EQ(bundle_distributor_decode(bytes_of(body, n + 1), &d), -EBADMSG);
	/* Flags of a gateway's parties are none of a distributor's. */
	body[1 + 6 + P256_POINT_BYTES + 32 + P256_POINT_BYTES] = BUNDLE_ADMISSION_PREVIOUS;
	EXPECT_EQ(bundle_distributor_decode(bytes_of(body, n), &d), -EBADMSG);
}

static int outlet_after_write(const struct bundle_outlet *o)
{
	uint8_t bytes[4096];
	struct bytes_writer w = bytes_writer_of(bytes, sizeof(bytes));
	struct bundle_outlet got;
	struct bytes_reader r;

	bundle_distributor_write_outlet(o, &w);
	ASSERT_FALSE(w.bad);
	r = bytes_reader_of(bytes_of(bytes, w.used));
	return bundle_distributor_next_outlet(&r, &got);
}

TEST(distributor_entries_refused)
{
	static const char *const no_prefixes[] = { "", "open/#", "open/+", "$SYS/x", "a\xff" };
	static const uint8_t too_long[BUNDLE_WRAPPED_BYTES_MAX + 1];
	struct bundle_outlet o = sample_outlet();
	struct record_grant hop = sample_outlet_grant(), got;
	uint8_t bytes[2048];
	struct bytes_writer w = bytes_writer_of(bytes, sizeof(bytes));
	struct bytes_reader r;

	ASSERT_EQ(outlet_after_write(&o), 0);
	o.wrapped_rk = bytes_of(NULL, 0); /* it could convert nothing */
	EXPECT_EQ(outlet_after_write(&o), -EBADMSG);
	o.wrapped_rk = bytes_of(too_long, sizeof(too_long));
	EXPECT_EQ(outlet_after_write(&o), -EBADMSG);
	o = sample_outlet();
	o.grant.upstream = bytes_of(NULL, 0); /* it would be the gateway's */
	EXPECT_EQ(outlet_after_write(&o), -EBADMSG);
	o = sample_outlet();
	o.name = bytes_str("no id");
	EXPECT_EQ(outlet_after_write(&o), -EBADMSG);
	o = sample_outlet();
	o.domain = bytes_str("");
	EXPECT_EQ(outlet_after_write(&o), -EBADMSG);
	for (unsigned i = 0; i < ARRAY_SIZE(no_prefixes); i++) {
		o = sample_outlet();
		o.prefix = bytes_str(no_prefixes[i]);
		EXPECT_EQ(outlet_after_write(&o), -EBADMSG);
	}
	/* An outlet's grant that is a hop, too, is one: the broker goes on from there. */
	o = sample_outlet();
	o.grant.flags |= RECORD_GRANT_HOP;
	EXPECT_EQ(outlet_after_write(&o), 0);
	/* But what ends at the distributor is a hop and nothing else. */
	bundle_distributor_write_hop(&hop, &w);
	r = bytes_reader_of(bytes_of(bytes, w.used));
	EXPECT_EQ(bundle_distributor_next_hop(&r, &got), -EBADMSG);
}

HARNESS_MAIN
