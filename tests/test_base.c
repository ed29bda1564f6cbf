// SPDX-License-Identifier: MIT
/*
 * The lowest layer: the cursor's bounds in both directions, exhaustively; text, secrets, lists,
 * log, and the small engines (pool, replay window, timers, SipHash) against straightforward models.
 *
 * Buffers for the cursor are allocated to the byte, so that the address sanitizer sees a step
 * beyond.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/harness.h"
#include "userspace/base/bytes.h"
#include "userspace/base/list.h"
#include "userspace/base/log.h"
#include "userspace/base/pool.h"
#include "userspace/base/replay.h"
#include "userspace/base/secret.h"
#include "userspace/base/siphash.h"
#include "userspace/base/text.h"
#include "userspace/base/timer.h"

static uint8_t *exactly(size_t n)
{
	uint8_t *p = malloc(n ? n : 1);

	ASSERT_TRUE(p);
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(i + 1);
	return p;
}

/* --- bytes: views ---------------------------------------------------------------------------- */

TEST(bytes_views_compare)
{
	uint8_t a[] = { 1, 2, 3 }, b[] = { 1, 2, 4 };

	EXPECT_TRUE(bytes_equal(bytes_of(a, 3), bytes_of(a, 3)));
	EXPECT_TRUE(bytes_equal(bytes_of(a, 2), bytes_of(b, 2)));
	EXPECT_FALSE(bytes_equal(bytes_of(a, 3), bytes_of(b, 3)));
	EXPECT_FALSE(bytes_equal(bytes_of(a, 2), bytes_of(a, 3)));
	EXPECT_TRUE(bytes_equal(bytes_of(NULL, 0), bytes_of(a, 0)));
	EXPECT_TRUE(bytes_equal_ct(bytes_of(a, 2), bytes_of(b, 2)));
	EXPECT_FALSE(bytes_equal_ct(bytes_of(a, 3), bytes_of(b, 3)));
	EXPECT_FALSE(bytes_equal_ct(bytes_of(a, 2), bytes_of(a, 3)));
	EXPECT_TRUE(bytes_equal_ct(bytes_of(NULL, 0), bytes_of(NULL, 0)));
	EXPECT_EQ(bytes_compare(bytes_of(a, 3), bytes_of(a, 3)), 0);
	EXPECT_TRUE(bytes_compare(bytes_of(a, 3), bytes_of(b, 3)) < 0);
	EXPECT_TRUE(bytes_compare(bytes_of(b, 3), bytes_of(a, 3)) > 0);
	EXPECT_TRUE(bytes_compare(bytes_of(a, 2), bytes_of(a, 3)) < 0);
	EXPECT_TRUE(bytes_compare(bytes_of(a, 3), bytes_of(b, 2)) > 0);
	EXPECT_TRUE(bytes_compare(bytes_of(NULL, 0), bytes_of(a, 1)) < 0);
	EXPECT_TRUE(bytes_is_zero(bytes_of(NULL, 0)));
	EXPECT_TRUE(bytes_is_zero(bytes_of("\0\0", 2)));
	EXPECT_FALSE(bytes_is_zero(bytes_of("\0\1", 2)));
	EXPECT_EQ(bytes_str("abc").n, 3);
}

TEST(bytes_equal_ct_sees_every_bit)
{
	uint8_t a[16] = { 0 }, b[16] = { 0 };

	for (size_t bit = 0; bit < 8 * sizeof(a); bit++) {
		b[bit / 8] = (uint8_t)(1 << bit % 8);
		EXPECT_FALSE(bytes_equal_ct(bytes_of(a, sizeof(a)), bytes_of(b, sizeof(b))));
		b[bit / 8] = 0;
	}
}

TEST(bytes_loads_and_stores)
{
	uint8_t b[8];

	bytes_store_u16(b, 0x0102);
	EXPECT_EQ(b[0], 1);
	EXPECT_EQ(bytes_load_u16(b), 0x0102);
	bytes_store_u32(b, 0xfffefdfc);
	EXPECT_EQ(b[0], 0xff);
	EXPECT_EQ(b[3], 0xfc);
	EXPECT_TRUE(bytes_load_u32(b) == 0xfffefdfc);
	bytes_store_u64(b, 0x0102030405060708);
	for (uint8_t i = 0; i < 8; i++)
		EXPECT_EQ(b[i], i + 1);
}

/* --- bytes: reading -------------------------------------------------------------------------- */

/* Each way to read n bytes, as a number where it is one. */
enum read_op { READ_U8, READ_U16, READ_U32, READ_U64, READ_VIEW, READ_COPY, READ_OPS };

static const size_t read_bytes[READ_OPS] = { 1, 2, 4, 8, 5, 5 };

static uint64_t read_one(struct bytes_reader *r, enum read_op op)
{
	uint8_t copy[5];
	struct bytes v;

	switch (op) {
	case READ_U8:
		return bytes_read_u8(r);
	case READ_U16:
		return bytes_read_u16(r);
	case READ_U32:
		return bytes_read_u32(r);
	case READ_U64:
		return bytes_read_u64(r);
	case READ_VIEW:
		v = bytes_read_view(r, sizeof(copy));
		return v.n ? v.p[0] : 0;
	case READ_COPY:
		memset(copy, 0xaa, sizeof(copy));
		bytes_read_copy(r, copy, sizeof(copy));
		return copy[0];
	case READ_OPS:
		break;
	}
	return 0;
}

static uint64_t expected_one(enum read_op op, size_t at)
{
	uint64_t v = 0;

	if (op == READ_VIEW || op == READ_COPY)
		return at + 1;
	for (size_t i = 0; i < read_bytes[op]; i++)
		v = v << 8 | (uint8_t)(at + i + 1);
	return v;
}

static void expect_stuck(struct bytes_reader *r)
{
	uint8_t copy[2] = { 1, 1 };

	EXPECT_TRUE(r->bad);
	for (unsigned op = 0; op < READ_OPS; op++)
		EXPECT_EQ(read_one(r, (enum read_op)op), 0);
	EXPECT_EQ(bytes_read_view(r, 0).n, 0);
	EXPECT_EQ(bytes_read_u8_view(r).n, 0);
	EXPECT_EQ(bytes_read_u16_view(r).n, 0);
	EXPECT_EQ(bytes_read_u32_view(r).n, 0);
	EXPECT_EQ(bytes_read_rest(r).n, 0);
	bytes_read_copy(r, copy, sizeof(copy));
	EXPECT_EQ(copy[0] | copy[1], 0);
	EXPECT_FALSE(bytes_read_done(r));
}

/* Every read at every place of every buffer up to 20 bytes. */
TEST(bytes_reads_at_all_bounds)
{
	for (size_t n = 0; n <= 20; n++) {
		uint8_t *buf = exactly(n);

		for (unsigned op = 0; op < READ_OPS; op++) {
			for (size_t at = 0; at <= n; at++) {
				struct bytes_reader r = bytes_reader_of(bytes_of(buf, n));
				bool fits = read_bytes[op] <= n - at;
				uint64_t v;

				EXPECT_EQ(bytes_read_view(&r, at).n, at);
				v = read_one(&r, (enum read_op)op);
				EXPECT_EQ(r.bad, !fits);
				EXPECT_EQ(v, fits ? expected_one((enum read_op)op, at) : 0);
				if (!fits) {
					expect_stuck(&r);
					continue;
				}
				EXPECT_EQ(r.left, n - at - read_bytes[op]);
				EXPECT_EQ(bytes_read_done(&r), r.left == 0);
			}
		}
		free(buf);
	}
}

static struct bytes read_prefixed(struct bytes_reader *r, size_t prefix)
{
	if (prefix == 1)
		return bytes_read_u8_view(r);
	return prefix == 2 ? bytes_read_u16_view(r) : bytes_read_u32_view(r);
}

/* A length of 3 in a buffer cut at each place; and the largest length, which must not wrap. */
TEST(bytes_reads_length_prefixed)
{
	for (size_t prefix = 1; prefix <= 4; prefix *= 2) {
		for (size_t n = 0; n <= prefix + 4; n++) {
			uint8_t *buf = exactly(n);
			struct bytes_reader r = bytes_reader_of(bytes_of(buf, n));
			struct bytes v;

			for (size_t i = 0; i < n && i < prefix; i++)
				buf[i] = i == prefix - 1 ? 3 : 0;
			v = read_prefixed(&r, prefix);
			if (n < prefix + 3) {
				EXPECT_EQ(v.n, 0);
				expect_stuck(&r);
			} else {
				EXPECT_EQ(v.n, 3);
				EXPECT_TRUE(v.p == buf + prefix);
				EXPECT_EQ(r.left, n - prefix - 3);
			}
			memset(buf, 0xff, n);
			r = bytes_reader_of(bytes_of(buf, n));
			EXPECT_EQ(read_prefixed(&r, prefix).n, 0);
			EXPECT_TRUE(r.bad);
			free(buf);
		}
	}
}

TEST(bytes_reads_that_would_wrap)
{
	uint8_t *buf = exactly(4);
	struct bytes_reader r = bytes_reader_of(bytes_of(buf, 4));

	EXPECT_EQ(bytes_read_u8(&r), 1);
	EXPECT_EQ(bytes_read_view(&r, SIZE_MAX).n, 0);
	expect_stuck(&r);
	r = bytes_reader_of(bytes_of(buf, 4));
	EXPECT_EQ(bytes_read_view(&r, SIZE_MAX - 1).n, 0);
	expect_stuck(&r);
	free(buf);
}

TEST(bytes_reads_the_rest)
{
	struct bytes_reader r = bytes_reader_of(bytes_of(NULL, 0));

	EXPECT_TRUE(bytes_read_done(&r));
	EXPECT_EQ(bytes_read_rest(&r).n, 0);
	EXPECT_EQ(bytes_read_view(&r, 0).n, 0);
	EXPECT_TRUE(bytes_read_done(&r));
	r = bytes_reader_of(bytes_str("abc"));
	EXPECT_EQ(bytes_read_u8(&r), 'a');
	EXPECT_TRUE(bytes_equal(bytes_read_rest(&r), bytes_str("bc")));
	EXPECT_TRUE(bytes_read_done(&r));
	EXPECT_EQ(bytes_read_u8(&r), 0);
	expect_stuck(&r);
}

/* --- bytes: writing -------------------------------------------------------------------------- */

enum write_op {
	WRITE_U8,
	WRITE_U16,
	WRITE_U32,
	WRITE_U64,
	WRITE_BYTES,
	WRITE_SPACE,
	WRITE_U8_VIEW,
	WRITE_U16_VIEW,
	WRITE_U32_VIEW,
	WRITE_OPS
};

static const size_t write_bytes[WRITE_OPS] = { 1, 2, 4, 8, 5, 5, 1 + 5, 2 + 5, 4 + 5 };

static void write_one(struct bytes_writer *w, enum write_op op)
{
	struct bytes five = bytes_str("\x01\x02\x03\x04\x05");
	uint8_t *p;

	switch (op) {
	case WRITE_U8:
		bytes_write_u8(w, 0x01);
		break;
	case WRITE_U16:
		bytes_write_u16(w, 0x0102);
		break;
	case WRITE_U32:
		bytes_write_u32(w, 0x01020304);
		break;
	case WRITE_U64:
		bytes_write_u64(w, 0x0102030405060708);
		break;
	case WRITE_BYTES:
		bytes_write(w, five);
		break;
	case WRITE_SPACE:
		p = bytes_write_space(w, five.n);
		EXPECT_EQ(p == NULL, w->bad);
		if (p)
			memcpy(p, five.p, five.n);
		break;
	case WRITE_U8_VIEW:
		bytes_write_u8_view(w, five);
		break;
	case WRITE_U16_VIEW:
		bytes_write_u16_view(w, five);
		break;
	case WRITE_U32_VIEW:
		bytes_write_u32_view(w, five);
		break;
	case WRITE_OPS:
		break;
	}
}

/* The byte that stands at i of what an op wrote. */
static uint8_t written_byte(enum write_op op, size_t i)
{
	size_t prefix = op >= WRITE_U8_VIEW && op < WRITE_OPS ? write_bytes[op] - 5 : 0;

	if (i < prefix)
		return i == prefix - 1 ? 5 : 0;
	return (uint8_t)(i - prefix + 1);
}

/* What came before the step that did not fit stays; nothing is added to it. */
static void expect_stuck_writer(struct bytes_writer *w)
{
	struct bytes_writer before = *w;
	uint8_t copy[32];

	ASSERT_LE(w->left, sizeof(copy));
	memcpy(copy, w->p, w->left);
	for (unsigned op = 0; op < WRITE_OPS; op++)
		write_one(w, (enum write_op)op);
	EXPECT_TRUE(bytes_write_space(w, 0) == NULL);
	EXPECT_TRUE(w->bad);
	EXPECT_EQ(w->used, before.used);
	EXPECT_EQ(w->left, before.left);
	EXPECT_EQ(memcmp(copy, before.p, before.left), 0);
}

/* Every write at every place of every room up to 20 bytes. */
TEST(bytes_writes_at_all_bounds)
{
	for (size_t n = 0; n <= 20; n++) {
		uint8_t *buf = exactly(n);

		for (unsigned op = 0; op < WRITE_OPS; op++) {
			for (size_t at = 0; at <= n; at++) {
				struct bytes_writer w = bytes_writer_of(buf, n);
				bool fits = write_bytes[op] <= n - at;

				memset(buf, 0xaa, n);
				(void)bytes_write_space(&w, at); /* room to skip */
				write_one(&w, (enum write_op)op);
				EXPECT_EQ(w.bad, !fits);
				if (!fits) {
					expect_stuck_writer(&w);
					continue;
				}
				EXPECT_EQ(w.used, at + write_bytes[op]);
				EXPECT_EQ(w.left, n - w.used);
				for (size_t i = 0; i < n; i++)
					EXPECT_EQ(buf[i], i < at || i >= w.used
								  ? 0xaa
								  : written_byte((enum write_op)op,
										 i - at));
			}
		}
		free(buf);
	}
}

TEST(bytes_writes_too_long_for_the_length)
{
	static uint8_t source[UINT16_MAX + 1], out[UINT16_MAX + 16];
	struct bytes_writer w = bytes_writer_of(out, sizeof(out));

	bytes_write_u8_view(&w, bytes_of(source, UINT8_MAX));
	EXPECT_FALSE(w.bad);
	bytes_write_u8_view(&w, bytes_of(source, UINT8_MAX + 1));
	EXPECT_TRUE(w.bad);
	w = bytes_writer_of(out, sizeof(out));
	bytes_write_u16_view(&w, bytes_of(source, UINT16_MAX));
	EXPECT_FALSE(w.bad);
	w = bytes_writer_of(out, sizeof(out));
	bytes_write_u16_view(&w, bytes_of(source, UINT16_MAX + 1));
	EXPECT_TRUE(w.bad);
	w = bytes_writer_of(out, sizeof(out));
	bytes_write_u32_view(&w, bytes_of(source, (size_t)UINT32_MAX + 1));
	EXPECT_TRUE(w.bad);
	w = bytes_writer_of(out, sizeof(out));
	bytes_write_u8(&w, 1);
	EXPECT_TRUE(bytes_write_space(&w, SIZE_MAX) == NULL);
	EXPECT_TRUE(w.bad);
	EXPECT_EQ(w.used, 1);
}

TEST(bytes_there_and_back)
{
	uint8_t buf[256];

	for (int round = 0; round < 2000; round++) {
		uint64_t a = harness_random(), b = harness_random();
		size_t n = a % 100;
		struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));
		struct bytes_reader r;
		uint8_t view[100];

		memset(view, (int)b, sizeof(view));
		bytes_write_u64(&w, a);
		bytes_write_u16_view(&w, bytes_of(view, n));
		bytes_write_u32(&w, (uint32_t)b);
		bytes_write_u16(&w, (uint16_t)b);
		bytes_write_u8_view(&w, bytes_of(view, n));
		bytes_write_u8(&w, (uint8_t)a);
		ASSERT_FALSE(w.bad);
		r = bytes_reader_of(bytes_of(buf, w.used));
		ASSERT_TRUE(bytes_read_u64(&r) == a);
		ASSERT_TRUE(bytes_equal(bytes_read_u16_view(&r), bytes_of(view, n)));
		ASSERT_TRUE(bytes_read_u32(&r) == (uint32_t)b);
		ASSERT_EQ(bytes_read_u16(&r), (uint16_t)b);
		ASSERT_TRUE(bytes_equal(bytes_read_u8_view(&r), bytes_of(view, n)));
		ASSERT_EQ(bytes_read_u8(&r), (uint8_t)a);
		ASSERT_TRUE(bytes_read_done(&r));
	}
}

/* --- text ------------------------------------------------------------------------------------ */

TEST(text_hex_there_and_back)
{
	uint8_t all[256], back[256];
	char hex[TEXT_HEX_SIZE(256)];

	for (unsigned i = 0; i < sizeof(all); i++)
		all[i] = (uint8_t)i;
	ASSERT_TRUE(text_hex(bytes_of(all, sizeof(all)), hex) == hex);
	ASSERT_EQ(strlen(hex), 512);
	ASSERT_EQ(strncmp(hex, "000102", 6), 0);
	ASSERT_STREQ(hex + 508, "feff");
	ASSERT_EQ(text_unhex(bytes_str(hex), back, sizeof(back)), 0);
	ASSERT_BYTES(back, all, sizeof(all));
	ASSERT_EQ(text_unhex(bytes_str("aBCdEF"), back, 3), 0);
	ASSERT_BYTES(back, "\xab\xcd\xef", 3);
	ASSERT_EQ(text_unhex(bytes_of(NULL, 0), back, 0), 0);
	ASSERT_STREQ(text_hex(bytes_of(NULL, 0), hex), "");
}

TEST(text_unhex_refuses)
{
	uint8_t out[4];
	char text[8];

	EXPECT_EQ(text_unhex(bytes_str("abc"), out, 1), -EINVAL);
	EXPECT_EQ(text_unhex(bytes_str("abcd"), out, 1), -EINVAL);
	EXPECT_EQ(text_unhex(bytes_str("abcd"), out, 3), -EINVAL);
	for (size_t at = 0; at < sizeof(text); at++) {
		for (unsigned c = 0; c < 256; c++) {
			bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') ||
				     (c >= 'A' && c <= 'F');

			memset(text, '0', sizeof(text));
			text[at] = (char)c;
			EXPECT_EQ(text_unhex(bytes_of(text, sizeof(text)), out, 4),
				  digit ? 0 : -EINVAL);
		}
	}
}

/* RFC 4648 section 10, without the padding; and what is special to base64url. */
TEST(text_b64u_known_answers)
{
	static const char *const cases[][2] = {
		{ "", "" },
		{ "f", "Zg" },
		{ "fo", "Zm8" },
		{ "foo", "Zm9v" },
		{ "foob", "Zm9vYg" },
		{ "fooba", "Zm9vYmE" },
		{ "foobar", "Zm9vYmFy" },
		{ "\xff\xff\xfe", "___-" },
	};
	char out[16];
	uint8_t back[8];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes v = bytes_str(cases[i][0]);

		ASSERT_STREQ(text_b64u(v, out), cases[i][1]);
		ASSERT_EQ(strlen(out) + 1, TEXT_B64U_SIZE(v.n));
		ASSERT_EQ(text_unb64u(bytes_str(cases[i][1]), back, v.n), 0);
		ASSERT_BYTES(back, v.p, v.n);
	}
}

TEST(text_b64u_there_and_back)
{
	uint8_t v[70], back[70];
	char out[TEXT_B64U_SIZE(70)];

	for (size_t n = 0; n <= sizeof(v); n++) {
		for (size_t i = 0; i < n; i++)
			v[i] = (uint8_t)harness_random();
		text_b64u(bytes_of(v, n), out);
		ASSERT_EQ(strlen(out) + 1, TEXT_B64U_SIZE(n));
		ASSERT_EQ(text_unb64u(bytes_str(out), back, n), 0);
		ASSERT_BYTES(back, v, n);
		/* one more or less is another length */
		EXPECT_EQ(text_unb64u(bytes_str(out), back, n + 1), -EINVAL);
		if (n)
			EXPECT_EQ(text_unb64u(bytes_str(out), back, n - 1), -EINVAL);
	}
}

TEST(text_unb64u_refuses)
{
	uint8_t out[4];
	char text[4];

	for (size_t at = 0; at < sizeof(text); at++) {
		for (unsigned c = 0; c < 256; c++) {
			bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
				     (c >= 'A' && c <= 'Z') || c == '-' || c == '_';

			memset(text, 'A', sizeof(text));
			text[at] = (char)c;
			EXPECT_EQ(text_unb64u(bytes_of(text, sizeof(text)), out, 3),
				  digit ? 0 : -EINVAL);
		}
	}
	/* Bits that no byte holds: one value, one text. */
	EXPECT_EQ(text_unb64u(bytes_str("Zg"), out, 1), 0);
	EXPECT_EQ(text_unb64u(bytes_str("Zh"), out, 1), -EINVAL);
	EXPECT_EQ(text_unb64u(bytes_str("Zm8"), out, 2), 0);
	EXPECT_EQ(text_unb64u(bytes_str("Zm9"), out, 2), -EINVAL);
	EXPECT_EQ(text_unb64u(bytes_str("Zg=="), out, 1), -EINVAL);
	EXPECT_EQ(text_unb64u(bytes_str("Z"), out, 0), -EINVAL);
}

TEST(text_ids)
{
	char id[65];

	for (unsigned c = 0; c < 256; c++) {
		bool legal = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
			     (c >= 'A' && c <= 'Z') || (c && strchr("._:-", (int)c));

		for (size_t at = 0; at < 3; at++) {
			memset(id, 'x', sizeof(id));
			id[at] = (char)c;
			EXPECT_EQ(text_is_id(bytes_of(id, 3)), legal);
		}
	}
	memset(id, 'x', sizeof(id));
	for (size_t n = 0; n <= sizeof(id); n++)
		EXPECT_EQ(text_is_id(bytes_of(id, n)), n >= 1 && n <= 64);
}

TEST(text_short_cuts)
{
	char out[TEXT_HEX_SIZE(2) + 2];

	EXPECT_EQ(strcmp(text_short(bytes_str("abc"), 2, out), "6162.."), 0);
	EXPECT_EQ(strcmp(text_short(bytes_str("ab"), 2, out), "6162"), 0);
	EXPECT_EQ(strcmp(text_short(bytes_of(NULL, 0), 2, out), ""), 0);
}

/* --- secret ---------------------------------------------------------------------------------- */

TEST(secret_wipes)
{
	struct secret32 k;
	uint8_t b[5] = { 1, 2, 3, 4, 5 };

	memset(&k, 0xaa, sizeof(k));
	secret32_wipe(&k);
	EXPECT_TRUE(bytes_is_zero(bytes_of(k.b, sizeof(k.b))));
	secret_wipe(b + 1, 3);
	EXPECT_EQ(b[0], 1);
	EXPECT_TRUE(bytes_is_zero(bytes_of(b + 1, 3)));
	EXPECT_EQ(b[4], 5);
	secret_wipe(NULL, 0);
}

/* The flags of the mapping at p, as the kernel lists them ("rd wr mr mw me lo ac dd"). */
static bool mapping_has(const void *p, const char *flag)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512];
	bool mine = false, found = false;
	unsigned long from, to;

	ASSERT_TRUE(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			mine = (unsigned long)p >= from && (unsigned long)p < to;
		else if (mine && strncmp(line, "VmFlags:", 8) == 0)
			found = strstr(line, flag) != NULL;
	}
	(void)fclose(f); /* read only */
	return found;
}

/* The sanitizers turn mlock() into nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool mlock_works = false;
#else
static const bool mlock_works = true;
#endif

TEST(secret_area_is_locked_and_not_dumped)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *p = secret_alloc(page + 1);

	ASSERT_TRUE(p);
	EXPECT_EQ((uintptr_t)p % page, 0);
	EXPECT_TRUE(bytes_is_zero(bytes_of(p, page + 1)));
	memset(p, 0xaa, page + 1);
	EXPECT_TRUE(mapping_has(p, " lo") || !mlock_works);
	EXPECT_TRUE(mapping_has(p, " dd"));
	secret_free(p, page + 1);
	secret_free(NULL, 1);
}

/* Refused by the limit, which root is above: as somebody else then. */
TEST(secret_area_that_cannot_be_locked)
{
	struct rlimit none = { 0 };

	if (!mlock_works)
		SKIP("mlock() does nothing under this sanitizer");
	ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &none), 0);
	if (geteuid() == 0)
		ASSERT_EQ(seteuid(65534), 0);
	errno = 0;
	EXPECT_TRUE(secret_alloc(4096) == NULL);
	EXPECT_NE(errno, 0);
}

/* --- list ------------------------------------------------------------------------------------ */

struct item {
	int v;
	struct list link;
};

/* The list's values as decimal digits, forwards; walking back must give the same. */
static int digits_of(struct list *head)
{
	struct list *pos;
	int v = 0, back = 0, power = 1;

	list_for_each(pos, head)
		v = v * 10 + list_entry(pos, struct item, link)->v;
	for (pos = head->prev; pos != head; pos = pos->prev, power *= 10)
		back += list_entry(pos, struct item, link)->v * power;
	ASSERT_EQ(v, back);
	return v;
}

TEST(list_orders)
{
	struct item items[4];
	struct list head, *pos, *tmp;

	list_init(&head);
	ASSERT_TRUE(list_empty(&head));
	ASSERT_TRUE(list_first(&head, struct item, link) == NULL);
	for (int i = 0; i < 4; i++)
		items[i].v = i + 1;
	list_add_tail(&head, &items[1].link);
	list_add_tail(&head, &items[2].link);
	list_add_head(&head, &items[0].link);
	ASSERT_EQ(digits_of(&head), 123);
	ASSERT_TRUE(list_first(&head, struct item, link) == &items[0]);
	list_del(&items[1].link);
	ASSERT_EQ(digits_of(&head), 13);
	list_del(&items[1].link); /* again: nothing happens */
	ASSERT_TRUE(list_empty(&items[1].link));
	ASSERT_EQ(digits_of(&head), 13);
	list_add_tail(&head, &items[3].link);
	list_for_each_safe(pos, tmp, &head)
		if (list_entry(pos, struct item, link)->v != 3)
			list_del(pos);
	ASSERT_EQ(digits_of(&head), 3);
	list_del(&items[2].link);
	ASSERT_TRUE(list_empty(&head));
}

TEST(list_splices)
{
	struct item items[4];
	struct list a, b;

	list_init(&a);
	list_init(&b);
	for (int i = 0; i < 4; i++) {
		items[i].v = i + 1;
		list_add_tail(i < 2 ? &a : &b, &items[i].link);
	}
	list_splice_tail(&a, &b);
	ASSERT_EQ(digits_of(&a), 1234);
	ASSERT_TRUE(list_empty(&b));
	list_splice_tail(&a, &b); /* nothing */
	ASSERT_EQ(digits_of(&a), 1234);
	list_splice_tail(&b, &a); /* into an empty one */
	ASSERT_EQ(digits_of(&b), 1234);
	ASSERT_TRUE(list_empty(&a));
}

/* --- log ------------------------------------------------------------------------------------- */

TEST(log_limit_lets_one_a_second_pass)
{
	struct log_limit l = { 0 };
	uint64_t left_out = 99;

	ASSERT_TRUE(log_limit_pass(&l, 5000, &left_out));
	ASSERT_EQ(left_out, 0);
	left_out = 99;
	for (uint64_t now = 5000; now < 6000; now += 100)
		ASSERT_FALSE(log_limit_pass(&l, now, &left_out));
	ASSERT_FALSE(log_limit_pass(&l, 5999, &left_out));
	ASSERT_EQ(left_out, 99); /* untouched */
	ASSERT_TRUE(log_limit_pass(&l, 6000, &left_out));
	ASSERT_EQ(left_out, 11);
	ASSERT_FALSE(log_limit_pass(&l, 6001, &left_out));
	ASSERT_TRUE(log_limit_pass(&l, 100000, &left_out));
	ASSERT_EQ(left_out, 1);
}

/* What say() writes to stderr, read back; the exit code of the child that says it. */
static int heard(void (*say)(void), char *out, size_t room)
{
	int fds[2], status;
	size_t n = 0;
	ssize_t got;
	pid_t pid;

	ASSERT_EQ(pipe(fds), 0);
	pid = fork();
	ASSERT_GE(pid, 0);
	if (pid == 0) {
		if (dup2(fds[1], STDERR_FILENO) < 0)
			_exit(99);
		say();
		_exit(0);
	}
	close(fds[1]);
	while ((got = read(fds[0], out + n, room - 1 - n)) > 0)
		n += (size_t)got;
	out[n] = '\0';
	close(fds[0]);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void say_all_levels(void)
{
	log_init("/usr/bin/prog", LOG_LEVEL_INFO);
	log_error("a=%d", 1);
	log_warn("b");
	log_info("c");
	log_debug("d");
}

static void say_long(void)
{
	char text[3000];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	log_init("prog", LOG_LEVEL_DEBUG);
	log_debug("%s", text);
	log_debug("next");
}

static void say_and_exit(void)
{
	log_init("prog", LOG_LEVEL_INFO);
	exit_with(78, "%s:%d: no such option", "file.conf", 7);
}

TEST(log_lines)
{
	char out[4096], *end;

	ASSERT_EQ(heard(say_all_levels, out, sizeof(out)), 0);
	ASSERT_STREQ(out, "prog: error: a=1\nprog: warning: b\nprog: c\n");
	ASSERT_EQ(heard(say_long, out, sizeof(out)), 0);
	end = strchr(out, '\n');
	ASSERT_TRUE(end);
	ASSERT_LE(end - out, 1024);
	ASSERT_STREQ(end, "\nprog: debug: next\n");
	ASSERT_EQ(heard(say_and_exit, out, sizeof(out)), 78);
	ASSERT_STREQ(out, "prog: file.conf:7: no such option\n");
}

/* --- pool ------------------------------------------------------------------------------------ */

#define POOL_BLOCKS 64

TEST(pool_blocks_do_not_overlap)
{
	struct pool p;
	uint8_t *blocks[POOL_BLOCKS] = { 0 };
	size_t sizes[POOL_BLOCKS];

	pool_init(&p);
	for (int round = 0; round < 5000; round++) {
		size_t i = harness_random() % POOL_BLOCKS;

		if (blocks[i]) {
			for (size_t k = 0; k < sizes[i]; k++)
				ASSERT_EQ(blocks[i][k], i);
			pool_free(&p, blocks[i]);
			blocks[i] = NULL;
			continue;
		}
		sizes[i] = harness_random() % (round % 50 ? 300 : 300000);
		blocks[i] = pool_alloc(&p, sizes[i]);
		ASSERT_TRUE(blocks[i]);
		ASSERT_EQ((uintptr_t)blocks[i] % 16, 0);
		memset(blocks[i], (int)i, sizes[i]);
	}
	for (size_t i = 0; i < POOL_BLOCKS; i++)
		pool_free(&p, blocks[i]); /* NULL among them */
	ASSERT_EQ(p.bytes_out, 0);
	pool_deinit(&p);
}

/* A block of each class and around it: aligned, its own, and of at most a quarter more bytes. */
TEST(pool_classes_fit)
{
	struct pool p;

	pool_init(&p);
	for (size_t n = 1; n < 600u << 10; n += 1 + n / 16) {
		uint8_t *b = pool_alloc(&p, n);

		ASSERT_TRUE(b);
		ASSERT_EQ((uintptr_t)b % 16, 0);
		memset(b, 0xa5, n);
		ASSERT_GE(p.bytes_out, n);
		ASSERT_LE(p.bytes_out, n <= 64 ? 64 : n + n / 4 + 16);
		pool_free(&p, b);
		ASSERT_EQ(p.bytes_out, 0);
	}
	pool_deinit(&p);
}

#if defined(__SANITIZE_ADDRESS__)
#define POOL_KEEPS false /* pool.h: then every block is malloc's own */
#else
#define POOL_KEEPS true
#endif

/* What came back serves the next, and what is too much of it goes back to the system. */
TEST(pool_keeps_what_it_may)
{
	enum { BLOCKS = 40000, BYTES = 1000 };
	void **blocks = calloc(BLOCKS, sizeof(*blocks));
	uint64_t mallocs = 0;
	struct pool p;

	if (!POOL_KEEPS) {
		free(blocks);
		SKIP("the pool keeps nothing under the address sanitizer");
	}
	ASSERT_TRUE(blocks);
	pool_init(&p);
	for (unsigned round = 0; round < 3; round++) {
		unsigned n = round == 0 ? BLOCKS : BLOCKS / 10; /* 40 MB, then 4 MB */

		for (unsigned i = 0; i < n; i++)
			ASSERT_TRUE(blocks[i] = pool_alloc(&p, BYTES));
		for (unsigned i = 0; i < n; i++)
			pool_free(&p, blocks[i]);
		ASSERT_LE(p.kept, POOL_KEPT_BYTES_MAX);
		ASSERT_GE(p.kept, BLOCKS / 10 * BYTES);
		if (round == 0)
			mallocs = p.mallocs;
		ASSERT_EQ(p.mallocs, mallocs);
	}
	pool_deinit(&p);
	free(blocks);
}

TEST(pool_zalloc_clears_what_was_used)
{
	struct pool p;
	uint8_t *b;

	pool_init(&p);
	b = pool_alloc(&p, 100);
	ASSERT_TRUE(b);
	memset(b, 0xaa, 100);
	pool_free(&p, b);
	b = pool_zalloc(&p, 100);
	ASSERT_TRUE(b && bytes_is_zero(bytes_of(b, 100)));
	pool_free(&p, b);
	pool_deinit(&p);
}

/* --- replay window --------------------------------------------------------------------------- */

#define MODEL_COUNTERS 1000

/* Against a table of all counters ever accepted. */
TEST(replay_window_against_a_table)
{
	for (int round = 0; round < 50; round++) {
		bool accepted[MODEL_COUNTERS] = { false };
		struct replay_window w = { 0 };
		uint64_t highest = 0;

		for (int step = 0; step < 500; step++) {
			uint64_t reach = highest + 1 + harness_random() % 160;
			uint64_t c = reach - harness_random() % (reach < 300 ? reach : 300);
			enum replay_verdict wanted = REPLAY_NEW;

			c %= MODEL_COUNTERS;
			if (c == 0 || c + REPLAY_WINDOW_BITS < highest)
				wanted = REPLAY_BELOW;
			else if (accepted[c])
				wanted = REPLAY_SEEN;
			ASSERT_EQ(replay_check(&w, c), wanted);
			if (wanted != REPLAY_NEW)
				continue;
			replay_accept(&w, c);
			accepted[c] = true;
			highest = c > highest ? c : highest;
			ASSERT_EQ(w.highest, highest);
		}
	}
}

TEST(replay_window_edges)
{
	struct replay_window w = { 0 };

	ASSERT_EQ(replay_check(&w, 0), REPLAY_BELOW);
	replay_accept(&w, UINT64_MAX - 128);
	replay_accept(&w, UINT64_MAX);
	EXPECT_EQ(replay_check(&w, UINT64_MAX), REPLAY_SEEN);
	EXPECT_EQ(replay_check(&w, UINT64_MAX - 128), REPLAY_SEEN);
	EXPECT_EQ(replay_check(&w, UINT64_MAX - 127), REPLAY_NEW);
	EXPECT_EQ(replay_check(&w, UINT64_MAX - 129), REPLAY_BELOW);
	EXPECT_EQ(replay_check(&w, 1), REPLAY_BELOW);
}

/* --- timers ---------------------------------------------------------------------------------- */

#define TIMERS 32

struct alarm {
	struct timer timer;
	uint64_t wanted_ms; /* 0: not armed */
};

static uint64_t clock_ms;
static unsigned fired;

static void alarm_fire(struct timer *t)
{
	struct alarm *a = container_of(t, struct alarm, timer);

	EXPECT_NE(a->wanted_ms, 0);
	EXPECT_TRUE(a->wanted_ms <= clock_ms);
	a->wanted_ms = 0;
	fired++;
}

/* Armed, moved and cancelled at random: each fires once, at its time or a tick later. */
TEST(timers_fire_when_due)
{
	static struct timer_wheel w;
	struct alarm alarms[TIMERS] = { 0 };

	clock_ms = 123456789;
	timer_wheel_init(&w, clock_ms);
	for (size_t i = 0; i < TIMERS; i++)
		timer_init(&alarms[i].timer, alarm_fire);
	for (int step = 0; step < 20000; step++) {
		struct alarm *a = &alarms[harness_random() % TIMERS];
		uint64_t wait;

		if (harness_random() % 4) {
			a->wanted_ms = clock_ms + 1 + harness_random() % 40000;
			timer_arm(&w, &a->timer, a->wanted_ms);
		} else {
			timer_cancel(&w, &a->timer);
			a->wanted_ms = 0;
		}
		wait = timer_wheel_wait_ms(&w, clock_ms);
		for (size_t i = 0; i < TIMERS; i++) /* never told to wait past one */
			if (alarms[i].wanted_ms)
				ASSERT_LE(clock_ms + wait, alarms[i].wanted_ms + 2 * TIMER_TICK_MS);
		clock_ms += harness_random() % (step % 100 ? 50 : 60000);
		timer_wheel_advance(&w, clock_ms);
		for (size_t i = 0; i < TIMERS; i++) {
			ASSERT_EQ(timer_armed(&alarms[i].timer), alarms[i].wanted_ms != 0);
			if (alarms[i].wanted_ms)
				ASSERT_LT(clock_ms, alarms[i].wanted_ms + 2 * TIMER_TICK_MS);
		}
	}
	ASSERT_GT(fired, 1000);
}

/* --- siphash --------------------------------------------------------------------------------- */

/* The reference code's vectors: key 00..0f, message 00, 01, ...; outputs little-endian. */
TEST(siphash_official_vectors)
{
	static const uint64_t wanted[] = {
		0x726fdb47dd0e0e31, 0x74f839c593dc67fd, 0x0d6c8009d9a94f5a, 0x85676696d7fb7e2d,
		0xcf2794e0277187b7, 0x18765564cd99a68d, 0xcbc9466e58fee3ce, 0xab0200f58b01d137,
		0x93f5f5799a932462, 0x9e0082df0ba9e4b0, 0x7a5dbbc594ddb9f3, 0xf4b32f46226bada7,
		0x751e8fbc860ee5fb, 0x14ea5627c0843d90, 0xf723ca908e7af2ee, 0xa129ca6149be45e5,
		0x3f2acc7f57c29bdb,
	};
	uint8_t key[SIPHASH_KEY_BYTES], m[ARRAY_SIZE(wanted)];

	for (uint8_t i = 0; i < sizeof(m); i++)
		m[i] = i;
	memcpy(key, m, sizeof(key));
	for (size_t n = 0; n < ARRAY_SIZE(wanted); n++)
		EXPECT_TRUE(siphash(key, bytes_of(m, n)) == wanted[n]);
}

HARNESS_MAIN
