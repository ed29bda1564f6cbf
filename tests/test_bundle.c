// SPDX-License-Identifier: MIT
/*
 * Records, statements and bundles: what is written is read back, and what is cut, bent, signed by
 * another manager or passed off as another kind is refused.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/harness.h"
#include "userspace/bundle/bundle.h"
#include "userspace/bundle/record.h"
#include "userspace/bundle/statement.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/hpke.h"

#define BODY_BYTES_MAX 16384

/* --- samples ------------------------------------------------------------------------------- */

static struct p256_point point_of(uint8_t scalar)
{
	struct secret32 k = { 0 };
	struct p256_point p;

	k.b[31] = scalar;
	if (p256_mul_base(&k, &p))
		abort();
	return p;
}

static struct p256_private *private_of(uint8_t scalar)
{
	struct secret32 k = { 0 };
	struct p256_private *key;

	k.b[31] = scalar;
	if (p256_private_new(&k, &key))
		abort();
	return key;
}

static struct p256_public *public_of(uint8_t scalar)
{
	struct p256_point p = point_of(scalar);
	struct p256_public *key;

	if (p256_public_new(&p, &key))
		abort();
	return key;
}

static struct record_scope sample_scope(void)
{
	return (struct record_scope){
		.key_id = 0x01020304,
		.epoch = 7,
		.name = bytes_str("hall.temperature"),
		.suite = HPKE_SUITE_CHACHA20_POLY1305,
		.not_before_ms = 1700000000000,
		.not_after_ms = 1800000000000,
		.a = point_of(2),
		.rekey_messages = 1000,
		.rekey_seconds = 600,
		.n_filters = 3,
		.filters = { bytes_str("hall/+/temperature"), bytes_str("plant/#"),
			     bytes_str("\xe6\xb8\xa9\xe5\xba\xa6") },
		.flags = RECORD_SCOPE_PADDED,
		.n_public_filters = 1,
		.public_filters = { bytes_str("open/#") },
	};
}

static struct record_grant sample_grant(void)
{
	return (struct record_grant){
		.grant_id = { 1, 2, 3, 4, 5, 6, 7, 8 },
		.key_id = 0x01020304,
		.flags = RECORD_GRANT_PROOF,
		.receiver = bytes_str("receiver-1"),
		.b = point_of(3),
		.a = point_of(2),
		.x = point_of(5),
		.not_before_ms = 1,
		.not_after_ms = 0,
		.scope = bytes_str("hall.temperature"),
		.n_filters = 1,
		.filters = { bytes_str("#") },
	};
}

static struct record_party sample_party(void)
{
	return (struct record_party){
		.id = bytes_str("dev:1"),
		.roles = RECORD_ROLE_DEVICE | RECORD_ROLE_RECEIVER,
		.signing = point_of(9),
		.has_previous = true,
		.previous = point_of(8),
		.previous_until_ms = 1750000000000,
		.has_encryption = true,
		.encryption = point_of(3),
		.n_scopes = 2,
		.scopes = { bytes_str("hall.temperature"), bytes_str("s2") },
	};
}

static struct record_broker sample_broker(void)
{
	return (struct record_broker){ .gateway_id = bytes_str("gw-1"),
				       .signing = point_of(4),
				       .has_next = true,
				       .next = point_of(7),
				       .next_from_ms = 1760000000000 };
}

/* A statement inside a bundle: its own signature is not looked at there. */
static struct bytes sample_update(enum statement_kind kind)
{
	static uint8_t whole[256];
	struct bytes_writer w = bytes_writer_of(whole, sizeof(whole));
	const struct statement s = { .kind = kind, .serial = 41, .body = bytes_str("record") };
	static const uint8_t signature[P256_SIG_BYTES];

	statement_write_unsigned(&s, &w);
	bytes_write(&w, bytes_of(signature, sizeof(signature)));
	ASSERT_FALSE(w.bad);
	return bytes_of(whole, w.used);
}

/* A gateway's bundle with two of everything; returns its length. */
static size_t sample_gateway(uint8_t *out, size_t room)
{
	struct bytes_writer w = bytes_writer_of(out, room);
	struct bundle_gateway b = { .broker = sample_broker() };
	struct record_scope scope = sample_scope();
	struct bundle_gateway_party party = { .party = sample_party(),
					      .admission_flags = BUNDLE_ADMISSION_NO_CLOCK,
					      .k_adm = { 0xaa, 0xbb } };
	uint8_t wrapped[384] = { 0x77 };
	struct bundle_gateway_grant grant = { .grant = sample_grant(),
					      .wrapped_rk = bytes_of(wrapped, sizeof(wrapped)) };
	struct bundle_gateway_revoked revoked = { .key_id = 5, .revoked_at_ms = 6 };

	memset(b.unwrap_key_hash, 0x11, sizeof(b.unwrap_key_hash));
	bundle_gateway_write_head(&b, &w);
	bytes_write_u32(&w, 2);
	bundle_gateway_write_scope(&scope, &w);
	scope.key_id++;
	bundle_gateway_write_scope(&scope, &w);
	bytes_write_u32(&w, 2);
	bundle_gateway_write_party(&party, &w);
	party.party.id = bytes_str("dev:2");
	party.admission_flags = 0;
	bundle_gateway_write_party(&party, &w);
	bytes_write_u32(&w, 2);
	bundle_gateway_write_grant(&grant, &w);
	grant.grant.grant_id[0]++;
	bundle_gateway_write_grant(&grant, &w);
	bytes_write_u32(&w, 2);
	bundle_gateway_write_revoked(&revoked, &w);
	revoked.key_id++;
	bundle_gateway_write_revoked(&revoked, &w);
	bytes_write_u32(&w, 2);
	bundle_gateway_write_update(sample_update(STATEMENT_SCOPE), &w);
	bundle_gateway_write_update(sample_update(STATEMENT_GRANT), &w);
	ASSERT_FALSE(w.bad);
	return w.used;
}

static size_t sample_bundle(uint8_t *out, size_t room)
{
	struct bytes_writer w = bytes_writer_of(out, room);
	struct bundle_party b = { .party_id = bytes_str("dev:1"),
				  .signing = point_of(9),
				  .broker = sample_broker(),
				  .admission_flags = 0,
				  .k_adm = { 0xaa, 0xbb } };
	struct record_scope scope = sample_scope();
	struct record_grant grant = sample_grant();
	struct record_party party = sample_party();
	uint8_t record[2048];
	struct bytes_writer rw = bytes_writer_of(record, sizeof(record));

	bundle_party_write_head(&b, &w);
	bytes_write_u16(&w, 1);
	record_scope_encode(&scope, &rw);
	bundle_party_write_record(bytes_of(record, rw.used), &w);
	bytes_write_u16(&w, 1);
	rw = bytes_writer_of(record, sizeof(record));
	record_grant_encode(&grant, &rw);
	bundle_party_write_record(bytes_of(record, rw.used), &w);
	bytes_write_u16(&w, 2);
	rw = bytes_writer_of(record, sizeof(record));
	record_party_encode(&party, &rw);
	bundle_party_write_record(bytes_of(record, rw.used), &w);
	bundle_party_write_record(bytes_of(record, rw.used), &w);
	ASSERT_FALSE(w.bad);
	return w.used;
}

/* A statement of the manager whose private key is `scalar`. */
static size_t sign_statement(enum statement_kind kind, struct bytes body, uint8_t scalar,
			     uint8_t *out, size_t room)
{
	struct bytes_writer w = bytes_writer_of(out, room);
	struct statement s = {
		.kind = kind, .serial = 42, .not_before_ms = 10, .not_after_ms = 20, .body = body
	};
	struct p256_private *key = private_of(scalar);
	uint8_t digest[P256_DIGEST_BYTES], sig[P256_SIG_BYTES];

	statement_write_unsigned(&s, &w);
	statement_digest(kind, bytes_of(out, w.used), digest);
	ASSERT_EQ(p256_sign_digest(key, digest, sig), 0);
	bytes_write(&w, bytes_of(sig, sizeof(sig)));
	p256_private_free(key);
	ASSERT_FALSE(w.bad);
	ASSERT_EQ(w.used, STATEMENT_BYTES(body.n));
	return w.used;
}

/* --- records ------------------------------------------------------------------------------- */

TEST(scope_round_trip)
{
	struct record_scope s = sample_scope(), got;
	uint8_t buf[2048], again[2048];
	struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));
	struct bytes_writer w2 = bytes_writer_of(again, sizeof(again));

	record_scope_encode(&s, &w);
	ASSERT_FALSE(w.bad);
	ASSERT_EQ(record_scope_decode(bytes_of(buf, w.used), &got), 0);
	EXPECT_EQ(got.key_id, s.key_id);
	EXPECT_EQ(got.epoch, 7);
	EXPECT_TRUE(bytes_equal(got.name, s.name));
	EXPECT_EQ(got.suite, HPKE_SUITE_CHACHA20_POLY1305);
	EXPECT_EQ(got.not_before_ms, s.not_before_ms);
	EXPECT_EQ(got.not_after_ms, s.not_after_ms);
	EXPECT_EQ(got.rekey_messages, 1000);
	EXPECT_EQ(got.rekey_seconds, 600);
	ASSERT_EQ(got.n_filters, 3);
	EXPECT_TRUE(bytes_equal(got.filters[1], bytes_str("plant/#")));
	ASSERT_BYTES(got.a.b, s.a.b, P256_POINT_BYTES);
	record_scope_encode(&got, &w2);
	ASSERT_EQ(w2.used, w.used);
	ASSERT_BYTES(again, buf, w.used);
}

TEST(grant_round_trip)
{
	struct record_grant g = sample_grant(), got;
	uint8_t buf[2048], again[2048];
	struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));
	struct bytes_writer w2 = bytes_writer_of(again, sizeof(again));

	record_grant_encode(&g, &w);
	ASSERT_EQ(record_grant_decode(bytes_of(buf, w.used), &got), 0);
	EXPECT_EQ(got.key_id, g.key_id);
	EXPECT_EQ(got.flags, RECORD_GRANT_PROOF);
	EXPECT_TRUE(bytes_equal(got.receiver, g.receiver));
	EXPECT_TRUE(bytes_equal(got.scope, g.scope));
	ASSERT_BYTES(got.grant_id, g.grant_id, GRANT_ID_BYTES);
	ASSERT_BYTES(got.b.b, g.b.b, P256_POINT_BYTES);
	ASSERT_BYTES(got.a.b, g.a.b, P256_POINT_BYTES);
	ASSERT_BYTES(got.x.b, g.x.b, P256_POINT_BYTES);
	record_grant_encode(&got, &w2);
	ASSERT_EQ(w2.used, w.used);
	ASSERT_BYTES(again, buf, w.used);
}

TEST(party_round_trip)
{
	struct record_party p = sample_party(), got;
	uint8_t buf[2048], again[2048];

	for (int encryption = 0; encryption < 2; encryption++) {
		struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));
		struct bytes_writer w2 = bytes_writer_of(again, sizeof(again));

		p.has_encryption = encryption;
		record_party_encode(&p, &w);
		ASSERT_EQ(record_party_decode(bytes_of(buf, w.used), &got), 0);
		EXPECT_TRUE(bytes_equal(got.id, p.id));
		EXPECT_EQ(got.roles, p.roles);
		EXPECT_EQ(got.has_encryption, encryption);
		ASSERT_EQ(got.n_scopes, 2);
		EXPECT_TRUE(bytes_equal(got.scopes[1], bytes_str("s2")));
		ASSERT_BYTES(got.signing.b, p.signing.b, P256_POINT_BYTES);
		record_party_encode(&got, &w2);
		ASSERT_EQ(w2.used, w.used);
		ASSERT_BYTES(again, buf, w.used);
	}
}

/* Every record cut anywhere, or with a byte too many, is refused and leaves the target alone. */
TEST(records_cut)
{
	struct record_scope s = sample_scope(), got_s = { .epoch = 99 };
	struct record_grant g = sample_grant(), got_g = { .key_id = 99 };
	struct record_party p = sample_party(), got_p = { .roles = 99 };
	uint8_t scope[1024] = { 0 }, grant[1024] = { 0 }, party[1024] = { 0 };
	struct bytes_writer ws = bytes_writer_of(scope, sizeof(scope));
	struct bytes_writer wg = bytes_writer_of(grant, sizeof(grant));
	struct bytes_writer wp = bytes_writer_of(party, sizeof(party));

	record_scope_encode(&s, &ws);
	record_grant_encode(&g, &wg);
	record_party_encode(&p, &wp);
	for (size_t n = 0; n < ws.used; n++)
		ASSERT_EQ(record_scope_decode(bytes_of(scope, n), &got_s), -EBADMSG);
	ASSERT_EQ(record_scope_decode(bytes_of(scope, ws.used + 1), &got_s), -EBADMSG);
	for (size_t n = 0; n < wg.used; n++)
		ASSERT_EQ(record_grant_decode(bytes_of(grant, n), &got_g), -EBADMSG);
	ASSERT_EQ(record_grant_decode(bytes_of(grant, wg.used + 1), &got_g), -EBADMSG);
	for (size_t n = 0; n < wp.used; n++)
		ASSERT_EQ(record_party_decode(bytes_of(party, n), &got_p), -EBADMSG);
	ASSERT_EQ(record_party_decode(bytes_of(party, wp.used + 1), &got_p), -EBADMSG);
	EXPECT_EQ(got_s.epoch, 99);
	EXPECT_EQ(got_g.key_id, 99);
	EXPECT_EQ(got_p.roles, 99);
}

static int scope_after_encode(const struct record_scope *s)
{
	static uint8_t buf[1 << 18];
	struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));
	struct record_scope got;

	record_scope_encode(s, &w);
	if (w.bad)
		return -EOVERFLOW;
	return record_scope_decode(bytes_of(buf, w.used), &got);
}

TEST(scope_fields_refused)
{
	struct record_scope s = sample_scope();

	s.name = bytes_str("with space");
	EXPECT_EQ(scope_after_encode(&s), -EBADMSG);
	s.name = bytes_str("");
	EXPECT_EQ(scope_after_encode(&s), -EBADMSG);
	s.name = bytes_str("12345678901234567890123456789012345678901234567890123456789012345");
	EXPECT_EQ(scope_after_encode(&s), -EBADMSG);
	s.name.n = 64;
	EXPECT_EQ(scope_after_encode(&s), 0);
	s.suite = 0;
	EXPECT_EQ(scope_after_encode(&s), -EBADMSG);
	s.suite = 3;
	EXPECT_EQ(scope_after_encode(&s), -EBADMSG);
	s.suite = 1;
	EXPECT_EQ(scope_after_encode(&s), 0);
	s.a.b[64] ^= 1; /* off the curve */
	EXPECT_EQ(scope_after_encode(&s), -EBADMSG);
	memset(s.a.b, 0, sizeof(s.a.b)); /* infinity, padded */
	EXPECT_EQ(scope_after_encode(&s), -EBADMSG);
	s = sample_scope();
	s.a.b[0] = 2;
	EXPECT_EQ(scope_after_encode(&s), -EBADMSG);
	s = sample_scope();
	s.filters[1] = bytes_str("");
	EXPECT_EQ(scope_after_encode(&s), -EBADMSG);
	s.filters[1] = bytes_of("a\0b", 3);
	EXPECT_EQ(scope_after_encode(&s), -EBADMSG);
	s.filters[1] = bytes_str("#/a");
	EXPECT_EQ(scope_after_encode(&s), -EBADMSG);
}

TEST(scope_filter_limit)
{
	struct record_scope s = sample_scope();
	static uint8_t buf[4096];
	struct bytes_writer w;

	for (unsigned i = 0; i < RECORD_FILTERS_MAX; i++)
		s.filters[i] = bytes_str("t/a");
	s.n_filters = RECORD_FILTERS_MAX;
	EXPECT_EQ(scope_after_encode(&s), 0);
	s.n_filters = RECORD_FILTERS_MAX + 1;
	EXPECT_EQ(scope_after_encode(&s), -EOVERFLOW);

	/* The same count written by somebody else. */
	s.n_filters = RECORD_FILTERS_MAX;
	w = bytes_writer_of(buf, sizeof(buf));
	record_scope_encode(&s, &w);
	bytes_store_u16(buf + w.used - 2 - 8 - RECORD_FILTERS_MAX * 5 - 2, RECORD_FILTERS_MAX + 1);
	bytes_write_u16_view(&w, bytes_str("t/a"));
	ASSERT_FALSE(w.bad);
	EXPECT_EQ(record_scope_decode(bytes_of(buf, w.used), &s), -EBADMSG);
}

TEST(grant_fields_refused)
{
	uint8_t buf[1024];
	struct record_grant got;

	for (int field = 0; field < 6; field++) {
		struct record_grant g = sample_grant();
		struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));

		switch (field) {
		case 0:
			g.flags = 16;
			break;
		case 1:
			g.b.b[1] ^= 0x80;
			break;
		case 2:
			g.a.b[40] ^= 1;
			break;
		case 3:
			g.x.b[0] = 3;
			break;
		case 4:
			g.receiver = bytes_str("a/b");
			break;
		case 5:
			g.scope = bytes_str("");
			break;
		}
		record_grant_encode(&g, &w);
		EXPECT_EQ(record_grant_decode(bytes_of(buf, w.used), &got), -EBADMSG);
	}
}

TEST(party_fields_refused)
{
	uint8_t buf[8192];
	struct record_party p = sample_party(), got;
	struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));
	size_t has_previous_at = 1 + p.id.n + 2 + P256_POINT_BYTES;
	size_t has_encryption_at = has_previous_at + 1 + P256_POINT_BYTES + 8;

	record_party_encode(&p, &w);
	ASSERT_EQ(buf[has_encryption_at], 1);
	buf[has_encryption_at] = 2;
	EXPECT_EQ(record_party_decode(bytes_of(buf, w.used), &got), -EBADMSG);
	buf[has_encryption_at] = 1;
	ASSERT_EQ(record_party_decode(bytes_of(buf, w.used), &got), 0);
	buf[has_previous_at] = 2;
	EXPECT_EQ(record_party_decode(bytes_of(buf, w.used), &got), -EBADMSG);
	buf[has_previous_at] = 1;
	buf[1 + p.id.n] = 0x10; /* a role of tomorrow */
	EXPECT_EQ(record_party_decode(bytes_of(buf, w.used), &got), -EBADMSG);
	buf[1 + p.id.n] = 3;
	buf[2 + p.id.n] = 4; /* a flag of tomorrow */
	EXPECT_EQ(record_party_decode(bytes_of(buf, w.used), &got), -EBADMSG);

	for (unsigned i = 0; i < RECORD_SCOPES_MAX; i++)
		p.scopes[i] = bytes_str("scope");
	p.n_scopes = RECORD_SCOPES_MAX;
	w = bytes_writer_of(buf, sizeof(buf));
	record_party_encode(&p, &w);
	ASSERT_EQ(record_party_decode(bytes_of(buf, w.used), &got), 0);
	bytes_store_u16(buf + has_encryption_at + 1 + P256_POINT_BYTES, RECORD_SCOPES_MAX + 1);
	bytes_write_u8_view(&w, bytes_str("scope"));
	EXPECT_EQ(record_party_decode(bytes_of(buf, w.used), &got), -EBADMSG);
	p.n_scopes++;
	w = bytes_writer_of(buf, sizeof(buf));
	record_party_encode(&p, &w);
	EXPECT_TRUE(w.bad);
}

TEST(valid_at)
{
	EXPECT_TRUE(record_valid_at(100, 200, 100));
	EXPECT_TRUE(record_valid_at(100, 200, 199));
	EXPECT_FALSE(record_valid_at(100, 200, 99));
	EXPECT_FALSE(record_valid_at(100, 200, 200));
	EXPECT_TRUE(record_valid_at(100, 0, UINT64_MAX));
	EXPECT_TRUE(record_valid_at(100, 200, 0)); /* no clock */
	EXPECT_TRUE(record_valid_at(0, 0, 1));
}

/* --- filters (MQTT 4.7) -------------------------------------------------------------------- */

TEST(filter_matches)
{
	static const struct {
		const char *filter, *topic;
		bool match;
	} table[] = {
		/* 4.7.1.2, the standard's own examples */
		{ "sport/tennis/player1/#", "sport/tennis/player1", true },
		{ "sport/tennis/player1/#", "sport/tennis/player1/ranking", true },
		{ "sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true },
		{ "sport/#", "sport", true },
		{ "#", "sport", true },
		{ "#", "/", true },
		{ "sport/tennis/#", "sport", false },
		{ "sport/#", "sportive", false },
		{ "sport/#", "sport/", true },
		/* 4.7.1.3 */
		{ "sport/tennis/+", "sport/tennis/player1", true },
		{ "sport/tennis/+", "sport/tennis/player1/ranking", false },
		{ "sport/+", "sport", false },
		{ "sport/+", "sport/", true },
		{ "+/+", "/finance", true },
		{ "/+", "/finance", true },
		{ "+", "/finance", false },
		{ "+", "finance", true },
		{ "+/tennis/#", "sport/tennis", true },
		{ "+/tennis/#", "sport/tennis/a/b", true },
		{ "+/tennis/#", "tennis", false },
		{ "sport/+/player1", "sport/tennis/player1", true },
		{ "sport/+/player1", "sport//player1", true },
		{ "sport/+/player1", "sport/a/b/player1", false },
		{ "+/#", "a", true },
		{ "+/+/#", "a", false },
		{ "a/+/#", "a/b", true },
		/* 4.7.2: topics beginning with $ */
		{ "#", "$SYS/broker", false },
		{ "+/monitor/Clients", "$SYS/monitor/Clients", false },
		{ "+", "$SYS", false },
		{ "$SYS/#", "$SYS/monitor", true },
		{ "$SYS/#", "$SYS", true },
		{ "$SYS/monitor/+", "$SYS/monitor/Clients", true },
		{ "a/#", "a/$SYS", true },
		{ "a/+", "a/$b", true },
		/* 4.7.3: levels may be empty, case counts, nothing is normalised */
		{ "ACCOUNTS", "Accounts", false },
		{ "/finance", "finance", false },
		{ "a//b", "a//b", true },
		{ "a/b", "a//b", false },
		{ "a/b/", "a/b", false },
		{ "a/b", "a/b/", false },
		{ "a", "ab", false },
		{ "ab", "a", false },
		{ "/", "/", true },
		{ "/", "a", false },
		{ "a b/\xe6\xb8\xa9", "a b/\xe6\xb8\xa9", true },
		{ "a", "", false },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		bool got = record_filter_matches(bytes_str(table[i].filter),
						 bytes_str(table[i].topic));

		if (got != table[i].match)
			harness_fail(__FILE__, __LINE__, false, "%s on %s: %d", table[i].filter,
				     table[i].topic, got);
	}
}

TEST(filter_valid)
{
	static const struct {
		const char *filter;
		bool valid;
	} table[] = {
		{ "#", true },
		{ "+", true },
		{ "a/#", true },
		{ "/", true },
		{ "//", true },
		{ "+/+/#", true },
		{ "/+", true },
		{ "a b", true },
		{ "\xc2\x80", true },
		{ "\xed\x9f\xbf", true },
		{ "\xf0\x90\x80\x80", true },
		{ "\xf4\x8f\xbf\xbf", true },
		{ "", false },
		{ "a#", false },
		{ "#a", false },
		{ "#/", false },
		{ "a/#/b", false },
		{ "##", false },
		{ "a+", false },
		{ "+a/b", false },
		{ "a/++", false },
		{ "a/+b/c", false },
		{ "\x80", false },
		{ "\xc1\xbf", false },	       /* overlong */
		{ "\xe0\x9f\xbf", false },     /* overlong */
		{ "\xf0\x8f\xbf\xbf", false }, /* overlong */
		{ "\xed\xa0\x80", false },     /* surrogate */
		{ "\xf4\x90\x80\x80", false }, /* above U+10FFFF */
		{ "\xf5\x80\x80\x80", false },
		{ "\xe6\xb8", false }, /* cut */
		{ "\xe6\xb8\x29", false },
		{ "\xff", false },
	};
	static uint8_t longest[UINT16_MAX + 1];

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (record_filter_is_valid(bytes_str(table[i].filter)) != table[i].valid)
			harness_fail(__FILE__, __LINE__, false, "row %zu", i);
	}
	EXPECT_FALSE(record_filter_is_valid(bytes_of("a\0", 2)));
	memset(longest, 'x', sizeof(longest));
	EXPECT_TRUE(record_filter_is_valid(bytes_of(longest, UINT16_MAX)));
	EXPECT_FALSE(record_filter_is_valid(bytes_of(longest, sizeof(longest))));
}

/* The matcher against the plainest one there is, on many small words. */
static bool matches_plainly(const char *f, const char *t)
{
	if (!strcmp(f, "#") || (!strcmp(f, "/#") && !*t))
		return true;
	if (*f == '+') {
		while (*t && *t != '/')
			t++;
		return matches_plainly(f + 1, t);
	}
	if (!*f || !*t)
		return !*f && !*t;
	return *f == *t && matches_plainly(f + 1, t + 1);
}

TEST(filter_matches_like_the_plain_one)
{
	static const char filter_letters[] = "ab/+#", topic_letters[] = "ab/";
	char filter[8], topic[8];
	unsigned matched = 0;

	for (unsigned i = 0; i < 300000; i++) {
		size_t nf = 1 + harness_random() % 6, nt = 1 + harness_random() % 6;

		for (size_t k = 0; k < nf; k++)
			filter[k] = filter_letters[harness_random() % 5];
		for (size_t k = 0; k < nt; k++)
			topic[k] = topic_letters[harness_random() % 3];
		filter[nf] = topic[nt] = '\0';
		if (!record_filter_is_valid(bytes_str(filter)))
			continue;
		bool want = matches_plainly(filter, topic);

		matched += want;
		if (record_filter_matches(bytes_str(filter), bytes_str(topic)) != want)
			harness_fail(__FILE__, __LINE__, true, "%s on %s", filter, topic);
	}
	ASSERT_GT(matched, 1000);
}

/* --- bundles ------------------------------------------------------------------------------- */

TEST(gateway_round_trip)
{
	uint8_t body[BODY_BYTES_MAX];
	size_t n = sample_gateway(body, sizeof(body));
	struct p256_point broker = point_of(4);
	struct bundle_gateway b;
	struct record_scope s;
	struct bundle_gateway_party p;
	struct bundle_gateway_grant g;
	struct bundle_gateway_revoked v;

	ASSERT_EQ(bundle_gateway_decode(bytes_of(body, n), &b), 0);
	EXPECT_TRUE(bytes_equal(b.broker.gateway_id, bytes_str("gw-1")));
	ASSERT_BYTES(b.broker.signing.b, broker.b, P256_POINT_BYTES);
	EXPECT_EQ(b.unwrap_key_hash[31], 0x11);
	ASSERT_EQ(b.n_scopes, 2);
	ASSERT_EQ(b.n_parties, 2);
	ASSERT_EQ(b.n_grants, 2);
	ASSERT_EQ(b.n_revoked, 2);

	ASSERT_EQ(bundle_gateway_next_scope(&b.scopes, &s), 0);
	EXPECT_EQ(s.key_id, 0x01020304);
	ASSERT_EQ(bundle_gateway_next_scope(&b.scopes, &s), 0);
	EXPECT_EQ(s.key_id, 0x01020305);
	EXPECT_EQ(bundle_gateway_next_scope(&b.scopes, &s), -EBADMSG);

	ASSERT_EQ(bundle_gateway_next_party(&b.parties, &p), 0);
	EXPECT_EQ(p.admission_flags, BUNDLE_ADMISSION_NO_CLOCK);
	EXPECT_EQ(p.k_adm[1], 0xbb);
	ASSERT_EQ(bundle_gateway_next_party(&b.parties, &p), 0);
	EXPECT_TRUE(bytes_equal(p.party.id, bytes_str("dev:2")));
	EXPECT_EQ(p.admission_flags, 0);
	EXPECT_EQ(bundle_gateway_next_party(&b.parties, &p), -EBADMSG);

	ASSERT_EQ(bundle_gateway_next_grant(&b.grants, &g), 0);
	EXPECT_EQ(g.wrapped_rk.n, 384);
	EXPECT_EQ(g.wrapped_rk.p[0], 0x77);
	ASSERT_EQ(bundle_gateway_next_grant(&b.grants, &g), 0);
	EXPECT_EQ(g.grant.grant_id[0], 2);
	EXPECT_EQ(bundle_gateway_next_grant(&b.grants, &g), -EBADMSG);

	ASSERT_EQ(bundle_gateway_next_revoked(&b.revoked, &v), 0);
	ASSERT_EQ(bundle_gateway_next_revoked(&b.revoked, &v), 0);
	EXPECT_EQ(v.key_id, 6);
	EXPECT_EQ(v.revoked_at_ms, 6);
	EXPECT_EQ(bundle_gateway_next_revoked(&b.revoked, &v), -EBADMSG);
}

TEST(party_bundle_round_trip)
{
	uint8_t body[BODY_BYTES_MAX];
	size_t n = sample_bundle(body, sizeof(body));
	struct bundle_party b;
	struct record_scope s;
	struct record_grant g;
	struct record_party p;

	ASSERT_EQ(bundle_party_decode(bytes_of(body, n), &b), 0);
	EXPECT_TRUE(bytes_equal(b.party_id, bytes_str("dev:1")));
	EXPECT_TRUE(bytes_equal(b.broker.gateway_id, bytes_str("gw-1")));
	EXPECT_EQ(b.k_adm[0], 0xaa);
	ASSERT_EQ(b.n_scopes, 1);
	ASSERT_EQ(b.n_grants, 1);
	ASSERT_EQ(b.n_origins, 2);
	ASSERT_EQ(bundle_party_next_scope(&b.scopes, &s), 0);
	EXPECT_EQ(bundle_party_next_scope(&b.scopes, &s), -EBADMSG);
	ASSERT_EQ(bundle_party_next_grant(&b.grants, &g), 0);
	EXPECT_TRUE(bytes_equal(g.receiver, bytes_str("receiver-1")));
	EXPECT_EQ(bundle_party_next_grant(&b.grants, &g), -EBADMSG);
	ASSERT_EQ(bundle_party_next_origin(&b.origins, &p), 0);
	ASSERT_EQ(bundle_party_next_origin(&b.origins, &p), 0);
	EXPECT_TRUE(bytes_equal(p.id, bytes_str("dev:1")));
	EXPECT_EQ(bundle_party_next_origin(&b.origins, &p), -EBADMSG);
}

TEST(bundles_cut)
{
	uint8_t body[BODY_BYTES_MAX] = { 0 };
	struct bundle_gateway g = { .n_scopes = 99 };
	struct bundle_party p = { .n_scopes = 99 };
	size_t n = sample_gateway(body, sizeof(body));

	for (size_t cut = 0; cut < n; cut++)
		ASSERT_EQ(bundle_gateway_decode(bytes_of(body, cut), &g), -EBADMSG);
	ASSERT_EQ(bundle_gateway_decode(bytes_of(body, n + 1), &g), -EBADMSG);
	EXPECT_EQ(g.n_scopes, 99);
	memset(body, 0, sizeof(body));
	n = sample_bundle(body, sizeof(body));
	for (size_t cut = 0; cut < n; cut++)
		ASSERT_EQ(bundle_party_decode(bytes_of(body, cut), &p), -EBADMSG);
	ASSERT_EQ(bundle_party_decode(bytes_of(body, n + 1), &p), -EBADMSG);
	EXPECT_EQ(p.n_scopes, 99);
}

/* A count of 2^32 - 1 over a handful of bytes ends at once (the test's time-out is the proof). */
TEST(false_counts)
{
	uint8_t body[BODY_BYTES_MAX];
	struct bundle_gateway b;
	size_t n = sample_gateway(body, sizeof(body));
	size_t scopes_at = 1 + 4 + P256_POINT_BYTES + 1 + P256_POINT_BYTES + 8 + 32;

	ASSERT_EQ(bytes_load_u32(body + scopes_at), 2);
	bytes_store_u32(body + scopes_at, UINT32_MAX);
	for (unsigned i = 0; i < 1000; i++)
		ASSERT_EQ(bundle_gateway_decode(bytes_of(body, n), &b), -EBADMSG);
}

TEST(bundle_entries_refused)
{
	uint8_t buf[4096];
	struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));
	struct bundle_gateway_party p = { .party = sample_party(), .admission_flags = 4 };
	struct bundle_gateway_grant g = { .grant = sample_grant() };
	static const uint8_t wrapped[BUNDLE_WRAPPED_BYTES_MAX + 1];
	struct bytes_reader r;

	bundle_gateway_write_party(&p, &w);
	r = bytes_reader_of(bytes_of(buf, w.used));
	EXPECT_EQ(bundle_gateway_next_party(&r, &p), -EBADMSG);

	w = bytes_writer_of(buf, sizeof(buf));
	bundle_gateway_write_grant(&g, &w); /* no wrapped key at all */
	r = bytes_reader_of(bytes_of(buf, w.used));
	EXPECT_EQ(bundle_gateway_next_grant(&r, &g), -EBADMSG);

	w = bytes_writer_of(buf, sizeof(buf));
	g.wrapped_rk = bytes_of(wrapped, sizeof(wrapped));
	bundle_gateway_write_grant(&g, &w);
	r = bytes_reader_of(bytes_of(buf, w.used));
	EXPECT_EQ(bundle_gateway_next_grant(&r, &g), -EBADMSG);

	w = bytes_writer_of(buf, sizeof(buf));
	g.wrapped_rk.n = BUNDLE_WRAPPED_BYTES_MAX;
	bundle_gateway_write_grant(&g, &w);
	r = bytes_reader_of(bytes_of(buf, w.used));
	EXPECT_EQ(bundle_gateway_next_grant(&r, &g), 0);
	EXPECT_EQ(r.left, 0);
}

TEST(writer_out_of_room)
{
	uint8_t body[BODY_BYTES_MAX];
	struct bundle_gateway_party p = { .party = sample_party() };

	for (size_t room = 0; room < 64; room++) {
		struct bytes_writer w = bytes_writer_of(body, room);

		bundle_gateway_write_party(&p, &w);
		ASSERT_TRUE(w.bad);
		ASSERT_LE(w.used, room);
	}
}

/* --- statements ---------------------------------------------------------------------------- */

static const enum statement_kind kinds[] = { STATEMENT_SCOPE,	    STATEMENT_GRANT,
					     STATEMENT_PARTY,	    STATEMENT_GATEWAY,
					     STATEMENT_BUNDLE,	    STATEMENT_BROKER,
					     STATEMENT_DISTRIBUTOR, STATEMENT_MANIFEST };
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

TEST(statement_round_trip)
{
	uint8_t whole[256];
	struct p256_public *manager = public_of(6);
	struct statement s;
	size_t n;

	for (size_t i = 0; i < N_KINDS; i++) {
		n = sign_statement(kinds[i], bytes_str("body"), 6, whole, sizeof(whole));
		ASSERT_EQ(statement_open(bytes_of(whole, n), kinds[i], manager, &s), 0);
		EXPECT_EQ(s.kind, kinds[i]);
		EXPECT_EQ(s.serial, 42);
		EXPECT_EQ(s.not_before_ms, 10);
		EXPECT_EQ(s.not_after_ms, 20);
		EXPECT_TRUE(bytes_equal(s.body, bytes_str("body")));
	}
	p256_public_free(manager);
}

TEST(statement_bytes_are_as_documented)
{
	static const uint8_t head[] = { 0x5d, 0x7e, 1,	4, 0, 0, 0, 0, 0, 0, 0,	 42, 0, 0, 0, 0,  0,
					0,    0,    10, 0, 0, 0, 0, 0, 0, 0, 20, 0,  0, 0, 1, 'z' };
	uint8_t whole[128];

	(void)sign_statement(STATEMENT_GATEWAY, bytes_str("z"), 6, whole, sizeof(whole));
	ASSERT_BYTES(whole, head, sizeof(head));
	ASSERT_EQ(sizeof(head), STATEMENT_HEAD_BYTES + 1);
}

/* What is signed, written out by hand for each kind. */
TEST(statement_labels)
{
	static const char *const labels[] = { "ssdtf-stmt-scope-1",	  "ssdtf-stmt-grant-1",
					      "ssdtf-stmt-party-1",	  "ssdtf-stmt-gateway-1",
					      "ssdtf-stmt-bundle-1",	  "ssdtf-stmt-broker-1",
					      "ssdtf-stmt-distributor-1", "ssdtf-stmt-manifest-1" };
	uint8_t digest[P256_DIGEST_BYTES], want[HASH_BYTES], text[64];

	for (size_t i = 0; i < N_KINDS; i++) {
		struct bytes_writer w = bytes_writer_of(text, sizeof(text));

		bytes_write(&w, bytes_str(labels[i]));
		bytes_write(&w, bytes_str("unsigned bytes"));
		hash_one(bytes_of(text, w.used), want);
		statement_digest(kinds[i], bytes_str("unsigned bytes"), digest);
		ASSERT_BYTES(digest, want, sizeof(want));
	}
}

/* Signed by the manager itself, but not of this version or not of this format. */
TEST(statement_of_another_version)
{
	uint8_t whole[256], digest[P256_DIGEST_BYTES];
	struct p256_public *manager = public_of(6);
	struct p256_private *key = private_of(6);
	struct statement s;
	size_t n;

	for (size_t at = 0; at < 3; at++) {
		n = sign_statement(STATEMENT_GATEWAY, bytes_str("body"), 6, whole, sizeof(whole));
		whole[at]++;
		statement_digest(STATEMENT_GATEWAY, bytes_of(whole, n - P256_SIG_BYTES), digest);
		ASSERT_EQ(p256_sign_digest(key, digest, whole + n - P256_SIG_BYTES), 0);
		EXPECT_EQ(statement_open(bytes_of(whole, n), STATEMENT_GATEWAY, manager, &s),
			  -EBADMSG);
	}
	p256_private_free(key);
	p256_public_free(manager);
}

TEST(statement_of_another_manager)
{
	uint8_t whole[256];
	struct p256_public *other = public_of(7);
	struct statement s = { .serial = 99 };
	size_t n = sign_statement(STATEMENT_GATEWAY, bytes_str("body"), 6, whole, sizeof(whole));

	EXPECT_EQ(statement_open(bytes_of(whole, n), STATEMENT_GATEWAY, other, &s), -EBADMSG);
	EXPECT_EQ(s.serial, 99);
	p256_public_free(other);
}

TEST(statement_kind_confusion)
{
	uint8_t whole[256];
	struct p256_public *manager = public_of(6);
	struct statement s;
	size_t n;

	for (size_t i = 0; i < N_KINDS; i++) {
		for (size_t k = 0; k < N_KINDS; k++) {
			if (i == k)
				continue;
			n = sign_statement(kinds[i], bytes_str("body"), 6, whole, sizeof(whole));
			EXPECT_EQ(statement_open(bytes_of(whole, n), kinds[k], manager, &s),
				  -EBADMSG);
			whole[3] = (uint8_t)kinds[k]; /* and with the kind's byte bent too */
			EXPECT_EQ(statement_open(bytes_of(whole, n), kinds[k], manager, &s),
				  -EBADMSG);
		}
	}
	p256_public_free(manager);
}

TEST(statement_cut)
{
	uint8_t body[BODY_BYTES_MAX], whole[BODY_BYTES_MAX] = { 0 };
	struct p256_public *manager = public_of(6);
	struct statement s;
	size_t n = sample_bundle(body, sizeof(body));

	n = sign_statement(STATEMENT_BUNDLE, bytes_of(body, n), 6, whole, sizeof(whole));
	for (size_t cut = 0; cut < n; cut++)
		ASSERT_EQ(statement_open(bytes_of(whole, cut), STATEMENT_BUNDLE, manager, &s),
			  -EBADMSG);
	ASSERT_EQ(statement_open(bytes_of(whole, n + 1), STATEMENT_BUNDLE, manager, &s), -EBADMSG);
	ASSERT_EQ(statement_open(bytes_of(whole, n), STATEMENT_BUNDLE, manager, &s), 0);
	p256_public_free(manager);
}

TEST_TIMEOUT(every_bit_flip_of_a_signed_bundle, 120)
{
	uint8_t body[BODY_BYTES_MAX], whole[BODY_BYTES_MAX];
	struct p256_public *manager = public_of(6);
	struct statement s;
	size_t n = sample_gateway(body, sizeof(body));

	n = sign_statement(STATEMENT_GATEWAY, bytes_of(body, n), 6, whole, sizeof(whole));
	for (size_t bit = 0; bit < 8 * n; bit++) {
		whole[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (statement_open(bytes_of(whole, n), STATEMENT_GATEWAY, manager, &s) != -EBADMSG)
			harness_fail(__FILE__, __LINE__, true, "bit %zu flipped and taken", bit);
		whole[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	ASSERT_EQ(statement_open(bytes_of(whole, n), STATEMENT_GATEWAY, manager, &s), 0);
	harness_note("%zu flips of %zu bytes", 8 * n, n);
	p256_public_free(manager);
}

/* An unsigned body bent anywhere decodes or is refused, but is never read past its end: what a
 * sanitizer watches. */
TEST(every_bit_flip_of_a_body)
{
	uint8_t body[BODY_BYTES_MAX];
	size_t n = sample_gateway(body, sizeof(body));
	uint8_t *exact = malloc(n);
	unsigned refused = 0;

	ASSERT_TRUE(exact != NULL);
	memcpy(exact, body, n);
	for (size_t bit = 0; bit < 8 * n; bit++) {
		struct bundle_gateway b;
		struct bundle_gateway_party p;
		struct bundle_gateway_grant g;
		int err;

		exact[bit / 8] ^= (uint8_t)(1 << bit % 8);
		err = bundle_gateway_decode(bytes_of(exact, n), &b);
		for (uint32_t i = 0; !err && i < b.n_parties; i++)
			err = bundle_gateway_next_party(&b.parties, &p);
		for (uint32_t i = 0; !err && i < b.n_grants; i++)
			err = bundle_gateway_next_grant(&b.grants, &g);
		refused += err != 0;
		exact[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	ASSERT_GT(refused, n / 2); /* points of parties and grants are not looked at */
	free(exact);
}

TEST(statement_body_limit)
{
	uint8_t head[STATEMENT_HEAD_BYTES];
	struct bytes_writer w = bytes_writer_of(head, sizeof(head));
	static const uint8_t nothing;
	struct statement s = { .kind = STATEMENT_SCOPE,
			       .body = bytes_of(&nothing, (size_t)STATEMENT_BODY_BYTES_MAX + 1) };

	statement_write_unsigned(&s, &w); /* refused for its length, before a byte is looked at */
	EXPECT_TRUE(w.bad);
}

HARNESS_MAIN
