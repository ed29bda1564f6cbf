// SPDX-License-Identifier: MIT
/*
 * What a bundle that comes online is told with (PROTOCOL 14): the manifest, the messages, and where
 * the bundle is cut.
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/harness.h"
#include "userspace/bundle/cut.h"
#include "userspace/bundle/manifest.h"
#include "userspace/bundle/online.h"

HARNESS_MAIN

/* --- cutting -------------------------------------------------------------------------------- */

#define SAMPLE_BYTES (1u << 20)
#define CUTS_MAX     (SAMPLE_BYTES / CUT_BYTES_MIN + 1)

static uint8_t *sample(size_t n)
{
	uint8_t *p = malloc(n);

	if (!p)
		abort();
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)harness_random();
	return p;
}

/* Ends of the pieces. */
static unsigned cut_all(struct bytes v, size_t ends[CUTS_MAX])
{
	unsigned n = 0;
	size_t at = 0;

	while (at < v.n) {
		at += cut_next(bytes_of(v.p + at, v.n - at));
		ends[n++] = at;
	}
	return n;
}

TEST(pieces_are_of_the_sizes_promised)
{
	uint8_t *v = sample(SAMPLE_BYTES);
	size_t ends[CUTS_MAX], last = 0;
	unsigned n = cut_all(bytes_of(v, SAMPLE_BYTES), ends);

	for (unsigned i = 0; i < n; i++) {
		ASSERT_LE(ends[i] - last, CUT_BYTES_MAX);
		if (i + 1 < n)
			ASSERT_GT(ends[i] - last, CUT_BYTES_MIN);
		last = ends[i];
	}
	ASSERT_EQ(last, SAMPLE_BYTES);
	ASSERT_GT(SAMPLE_BYTES / n, CUT_BYTES_MEAN / 2);
	ASSERT_LT(SAMPLE_BYTES / n, CUT_BYTES_MEAN * 2);
	free(v);
}

TEST(what_never_changes_is_cut_at_the_maximum)
{
	static uint8_t zeros[3 * CUT_BYTES_MAX + 5];

	for (size_t at = 0; at < 3 * CUT_BYTES_MAX; at += CUT_BYTES_MAX)
		ASSERT_EQ(cut_next(bytes_of(zeros + at, sizeof(zeros) - at)), CUT_BYTES_MAX);
	ASSERT_EQ(cut_next(bytes_of(zeros, 5)), 5);
	ASSERT_EQ(cut_next(bytes_of(zeros, 1)), 1);
}

/* A cut does not hang on what is more than the maximum ahead: gateways read in portions. */
TEST(a_cut_is_the_same_from_a_portion)
{
	uint8_t *v = sample(SAMPLE_BYTES);

	for (size_t at = 0; at < SAMPLE_BYTES - CUT_BYTES_MAX; at += 40000)
		ASSERT_EQ(cut_next(bytes_of(v + at, CUT_BYTES_MAX)),
			  cut_next(bytes_of(v + at, SAMPLE_BYTES - at)));
	free(v);
}

/* What is put in moves the cuts near it and no others. */
TEST(an_insertion_changes_few_pieces)
{
	const size_t at = SAMPLE_BYTES / 2, more = 777;
	uint8_t *v = sample(SAMPLE_BYTES), *w = malloc(SAMPLE_BYTES + more);
	size_t a[CUTS_MAX], b[CUTS_MAX];
	unsigned n_a, n_b, same = 0;

	ASSERT_TRUE(w != NULL);
	memcpy(w, v, at);
	memset(w + at, 'x', more);
	memcpy(w + at + more, v + at, SAMPLE_BYTES - at);
	n_a = cut_all(bytes_of(v, SAMPLE_BYTES), a);
	n_b = cut_all(bytes_of(w, SAMPLE_BYTES + more), b);
	for (unsigned i = 0; i < n_a; i++)
		for (unsigned k = 0; k < n_b; k++)
			same += b[k] == (a[i] < at ? a[i] : a[i] + more);
	ASSERT_GE(same + 8, n_a);
	free(v);
	free(w);
}

/* For ever: a gateway may be older than its manager. */
TEST(cuts_are_those_of_the_first_day)
{
	uint8_t *v = malloc(SAMPLE_BYTES);
	uint32_t x = 1;
	size_t ends[CUTS_MAX];

	ASSERT_TRUE(v != NULL);
	for (size_t i = 0; i < SAMPLE_BYTES; i++) {
		x = x * 1664525 + 1013904223;
		v[i] = (uint8_t)(x >> 24);
	}
	ASSERT_GT(cut_all(bytes_of(v, SAMPLE_BYTES), ends), 3);
	ASSERT_EQ(ends[0], 21474);
	ASSERT_EQ(ends[1], 41291);
	ASSERT_EQ(ends[2], 65472);
	free(v);
}

/* --- manifests ------------------------------------------------------------------------------ */

#define PIECES 3

static size_t write_sample(uint8_t *out, size_t room, const uint32_t sizes[PIECES], uint64_t bytes)
{
	const struct manifest m = {
		.gateway_id = bytes_str("gw-1"), .serial = 77, .bytes = bytes, .n_pieces = PIECES
	};
	struct bytes_writer w = bytes_writer_of(out, room);
	uint8_t hash[HASH_BYTES];

	manifest_write_head(&m, &w);
	for (unsigned i = 0; i < PIECES; i++) {
		memset(hash, (int)i, sizeof(hash));
		manifest_write_piece(&(struct manifest_piece){ sizes[i], { hash, HASH_BYTES } },
				     &w);
	}
	ASSERT_FALSE(w.bad);
	return w.used;
}

TEST(manifest_round_trip)
{
	const uint32_t sizes[PIECES] = { 1, 65536, 4096 };
	uint8_t buf[256];
	size_t n = write_sample(buf, sizeof(buf), sizes, 1 + 65536 + 4096);
	struct manifest m;

	ASSERT_EQ(manifest_decode(bytes_of(buf, n), &m), 0);
	ASSERT_TRUE(bytes_equal(m.gateway_id, bytes_str("gw-1")));
	ASSERT_EQ(m.serial, 77);
	ASSERT_EQ(m.n_pieces, PIECES);
	for (unsigned i = 0; i < PIECES; i++) {
		struct manifest_piece p = manifest_next(&m.pieces);

		ASSERT_EQ(p.bytes, sizes[i]);
		ASSERT_EQ(p.hash.p[5], i);
	}
	for (size_t cut = 0; cut < n; cut++)
		ASSERT_EQ(manifest_decode(bytes_of(buf, cut), &m), -EBADMSG);
}

TEST(manifests_that_do_not_add_up)
{
	static const struct {
		uint32_t sizes[PIECES];
		uint64_t bytes;
	} bad[] = {
		{ { 1, 2, 3 }, 7 },
		{ { 1, 2, 3 }, 5 },
		{ { 0, 2, 3 }, 5 },
		{ { 1, 65537, 3 }, 65541 },
		{ { 1, 2, 3 }, MANIFEST_BYTES_MAX + 1 },
	};
	uint8_t buf[256];
	struct manifest m;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		size_t n = write_sample(buf, sizeof(buf), bad[i].sizes, bad[i].bytes);

		ASSERT_EQ(manifest_decode(bytes_of(buf, n), &m), -EBADMSG);
	}
}

TEST(a_manifest_without_pieces_or_with_too_many)
{
	struct manifest m = { .gateway_id = bytes_str("gw-1") };
	uint8_t buf[64];
	struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));

	manifest_write_head(&m, &w);
	ASSERT_EQ(manifest_decode(bytes_of(buf, w.used), &m), -EBADMSG);
	m.n_pieces = MANIFEST_PIECES_MAX + 1;
	w = bytes_writer_of(buf, sizeof(buf));
	manifest_write_head(&m, &w);
	ASSERT_EQ(manifest_decode(bytes_of(buf, w.used), &m), -EBADMSG);
}

/* --- messages ------------------------------------------------------------------------------- */

static struct p256_point base_point(void)
{
	struct secret32 one = { { 0 } };
	struct p256_point p;

	one.b[31] = 1;
	if (p256_mul_base(&one, &p))
		abort();
	return p;
}

static void check_round_trip(const struct online_message *m, struct online_message *ret_m)
{
	static uint8_t buf[4096];
	struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));

	online_write(m, &w);
	ASSERT_FALSE(w.bad);
	for (size_t cut = 0; cut < w.used; cut++)
		ASSERT_EQ(online_decode(bytes_of(buf, cut), ret_m), -EBADMSG);
	buf[w.used] = 0;
	ASSERT_EQ(online_decode(bytes_of(buf, w.used + 1), ret_m), -EBADMSG);
	ASSERT_EQ(online_decode(bytes_of(buf, w.used), ret_m), 0);
	ASSERT_EQ(ret_m->kind, m->kind);
}

TEST(offers)
{
	const struct online_message m = { .kind = ONLINE_OFFER,
					  .manifest = bytes_str("a manifest"),
					  .enc = base_point() };
	struct online_message got;

	check_round_trip(&m, &got);
	ASSERT_TRUE(bytes_equal(got.manifest, m.manifest));
	ASSERT_BYTES(got.enc.b, m.enc.b, sizeof(m.enc.b));
}

TEST(an_offer_whose_enc_is_no_point)
{
	struct online_message m = { .kind = ONLINE_OFFER, .enc = base_point() };
	uint8_t buf[128];
	struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));

	m.enc.b[64] ^= 1;
	online_write(&m, &w);
	ASSERT_EQ(online_decode(bytes_of(buf, w.used), &m), -EBADMSG);
}

TEST(wants)
{
	struct online_message m = { .kind = ONLINE_WANT, .serial = 9 }, got;
	uint8_t buf[512];
	struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));

	check_round_trip(&m, &got);
	ASSERT_EQ(got.n_wanted, 0);
	for (m.n_wanted = 0; m.n_wanted < ONLINE_WANTED_MAX; m.n_wanted++)
		m.wanted[m.n_wanted] = m.n_wanted * 3;
	check_round_trip(&m, &got);
	ASSERT_EQ(got.serial, 9);
	ASSERT_EQ(got.n_wanted, ONLINE_WANTED_MAX);
	ASSERT_EQ(got.wanted[63], 189);
	/* One more than may be asked for. */
	bytes_write_u8(&w, ONLINE_WANT);
	bytes_write_u64(&w, 9);
	bytes_write_u32(&w, ONLINE_WANTED_MAX + 1);
	for (unsigned i = 0; i <= ONLINE_WANTED_MAX; i++)
		bytes_write_u32(&w, i);
	ASSERT_EQ(online_decode(bytes_of(buf, w.used), &got), -EBADMSG);
}

TEST(pieces_and_what_came_of_them)
{
	const struct online_message piece = { .kind = ONLINE_PIECE,
					      .serial = 1ull << 40,
					      .index = 65535,
					      .sealed = bytes_str("sealed") };
	const struct online_message applied = { .kind = ONLINE_APPLIED,
						.serial = 3,
						.result = ONLINE_RESULT_REFUSED,
						.text = bytes_str("no") };
	struct online_message got;

	check_round_trip(&piece, &got);
	ASSERT_EQ(got.serial, 1ull << 40);
	ASSERT_EQ(got.index, 65535);
	ASSERT_TRUE(bytes_equal(got.sealed, piece.sealed));
	check_round_trip(&applied, &got);
	ASSERT_EQ(got.result, ONLINE_RESULT_REFUSED);
	ASSERT_TRUE(bytes_equal(got.text, applied.text));
}

TEST(other_kinds)
{
	uint8_t buf[16] = { 0 };
	struct online_message got;

	for (unsigned kind = 0; kind < 256; kind++) {
		buf[0] = (uint8_t)kind;
		ASSERT_EQ(online_decode(bytes_of(buf, 3), &got), -EBADMSG);
	}
}
