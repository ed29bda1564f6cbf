// SPDX-License-Identifier: MIT
/*
 * The table of external ids as the distributor and the manager share it (PROTOCOL 12): what a
 * trace entry says to who has the tracing key, and that nobody else opens it.
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/harness.h"
#include "userspace/base/text.h"
#include "userspace/bundle/idtable.h"

struct manager {
	struct secret32 t;
	struct p256_point key;
};

static struct manager manager_of(uint8_t scalar)
{
	struct manager m = { 0 };

	m.t.b[31] = scalar;
	if (p256_mul_base(&m.t, &m.key))
		abort();
	return m;
}

static const uint8_t external[IDTABLE_EXTERNAL_BYTES] = { 1, 2, 3, 4 };

static struct idtable_entry sample(void)
{
	return (struct idtable_entry){ .internal = bytes_str("sensor-17"),
				       .domain = bytes_str("weather"),
				       .from_ms = 1700000000000,
				       .until_ms = 1700003600000 };
}

static struct bytes seal(const struct manager *m, uint8_t out[IDTABLE_TRACE_BYTES_MAX])
{
	struct bytes_writer w = bytes_writer_of(out, IDTABLE_TRACE_BYTES_MAX);
	struct idtable_entry e = sample();

	if (idtable_trace_seal(&m->key, external, &e, &w) || w.bad)
		abort();
	return bytes_of(out, w.used);
}

static int open_by(const struct manager *m, struct bytes trace, const uint8_t *of,
		   uint8_t room[IDTABLE_ENTRY_BYTES_MAX], struct idtable_entry *ret_e)
{
	struct p256_point enc;
	struct secret32 dh;
	int err = idtable_trace_enc(trace, &enc);

	if (!err)
		err = p256_dh(&m->t, &enc, &dh);
	return err ? err : idtable_trace_open(trace, &dh, &m->key, of, room, ret_e);
}

TEST(trace_round_trip)
{
	struct manager m = manager_of(7);
	uint8_t sealed[IDTABLE_TRACE_BYTES_MAX], room[IDTABLE_ENTRY_BYTES_MAX];
	struct idtable_entry e;

	ASSERT_EQ(open_by(&m, seal(&m, sealed), external, room, &e), 0);
	EXPECT_TRUE(bytes_equal(e.internal, bytes_str("sensor-17")));
	EXPECT_TRUE(bytes_equal(e.domain, bytes_str("weather")));
	EXPECT_EQ(e.from_ms, 1700000000000);
	EXPECT_EQ(e.until_ms, 1700003600000);
}

TEST(trace_longest)
{
	static const char id[] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
	struct manager m = manager_of(7);
	uint8_t sealed[IDTABLE_TRACE_BYTES_MAX], room[IDTABLE_ENTRY_BYTES_MAX];
	struct bytes_writer w = bytes_writer_of(sealed, sizeof(sealed));
	struct idtable_entry e = { bytes_str(id), bytes_str(id), 1, UINT64_MAX };

	ASSERT_EQ(idtable_trace_seal(&m.key, external, &e, &w), 0);
	ASSERT_FALSE(w.bad);
	ASSERT_EQ(w.left, 0);
	ASSERT_EQ(open_by(&m, bytes_of(sealed, w.used), external, room, &e), 0);
	EXPECT_TRUE(bytes_equal(e.domain, bytes_str(id)));
}

TEST(trace_of_others)
{
	static const uint8_t another[IDTABLE_EXTERNAL_BYTES] = { 1, 2, 3, 5 };
	struct manager m = manager_of(7), n = manager_of(8);
	uint8_t sealed[IDTABLE_TRACE_BYTES_MAX], room[IDTABLE_ENTRY_BYTES_MAX];
	struct bytes trace = seal(&m, sealed);
	struct idtable_entry e;

	EXPECT_EQ(open_by(&n, trace, external, room, &e), -EBADMSG);
	EXPECT_EQ(open_by(&m, trace, another, room, &e), -EBADMSG);
	sealed[trace.n - 1] ^= 1;
	EXPECT_EQ(open_by(&m, trace, external, room, &e), -EBADMSG);
	sealed[trace.n - 1] ^= 1;
	for (size_t n_cut = 0; n_cut < trace.n; n_cut++)
		ASSERT_EQ(open_by(&m, bytes_of(sealed, n_cut), external, room, &e), -EBADMSG);
	EXPECT_EQ(open_by(&m, trace, external, room, &e), 0);
}

/* No two of domain, period and id give one another's key, wherever a boundary between them is. */
TEST(lookup_input)
{
	uint8_t a[HASH_BYTES], b[HASH_BYTES];
	char hex[TEXT_HEX_SIZE(HASH_BYTES)];

	idtable_lookup_input(bytes_str("ab"), 0, bytes_str("c"), a);
	idtable_lookup_input(bytes_str("a"), 0, bytes_str("bc"), b);
	EXPECT_TRUE(memcmp(a, b, sizeof(a)) != 0);
	idtable_lookup_input(bytes_str("ab"), 1, bytes_str("c"), b);
	EXPECT_TRUE(memcmp(a, b, sizeof(a)) != 0);
	/* printf 'ssdtf-ids-1\x02ab\0\0\0\0\0\0\0\0\x01c' | sha256sum */
	ASSERT_STREQ(text_hex(bytes_of(a, sizeof(a)), hex),
		     "88994b8ce563d0be5b66914726c0abdd9592c5a8fd07e3ff2ec8b20fac70d879");
}

TEST(periods)
{
	uint64_t from, until;

	EXPECT_EQ(idtable_period(1700000000000, 0, &from, &until), 0);
	EXPECT_EQ(from, 0);
	EXPECT_EQ(until, 0);
	EXPECT_EQ(idtable_period(1700000000000, 86400, &from, &until), 19675);
	EXPECT_EQ(from, 19675ull * 86400000);
	EXPECT_EQ(until, 19676ull * 86400000);
	EXPECT_EQ(idtable_period(until, 86400, &from, &until), 19676);
	EXPECT_EQ(idtable_period(UINT64_MAX, UINT32_MAX, &from, &until),
		  UINT64_MAX / (UINT32_MAX * 1000ull));
}

HARNESS_MAIN
