// SPDX-License-Identifier: MIT
/*
 * The crypto layer, function by function: known answers where a standard has them, the way there
 * and back, and above all what must be refused. The vectors of PROTOCOL 8 and RFC 9180 have a
 * program of their own (vectors.c).
 */
#include <errno.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/admission_check.h"
#include "tests/harness.h"
#include "userspace/base/text.h"
#include "userspace/crypto/envelope.h"
#include "userspace/crypto/grant.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/hpke.h"
#include "userspace/crypto/merkle.h"
#include "userspace/crypto/p256.h"
#include "userspace/crypto/publish.h"

/* --- samples --------------------------------------------------------------------------------- */

#define N_HEX  "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"
#define P_HEX  "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"
#define GX_HEX "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
#define GY_HEX "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
/* The square root of the curve's b: (0, this) is a point. */
#define Y0_HEX "66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4"
/* No point has this x. */
#define X_NONE_HEX "199c132cd330c99c0ee8d8166b99c83ba7476a7c3906ea015dc2752d4dff5887"

static void unhex(const char *hex, void *out, size_t n)
{
	ASSERT_EQ(text_unhex(bytes_str(hex), out, n), 0);
}

static struct secret32 scalar_of(const char *hex)
{
	struct secret32 k;

	unhex(hex, k.b, sizeof(k.b));
	return k;
}

static struct secret32 small(uint8_t n)
{
	return (struct secret32){ .b[31] = n };
}

static struct secret32 random_scalar(void)
{
	struct secret32 k;

	ASSERT_EQ(p256_scalar_random(&k), 0);
	return k;
}

static struct p256_point point_of(const struct secret32 *k)
{
	struct p256_point p;

	ASSERT_EQ(p256_mul_base(k, &p), 0);
	return p;
}

static struct p256_point point_xy(const char *x, const char *y)
{
	struct p256_point p = { .b = { 4 } };

	unhex(x, p.b + 1, 32);
	unhex(y, p.b + 33, 32);
	return p;
}

static int check(const struct p256_point *p)
{
	return p256_point_check(bytes_of(p->b, sizeof(p->b)));
}

static void fill_random(void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((uint8_t *)p)[i] = (uint8_t)harness_random();
}

/* The scalars that every function must refuse. */
static const char *const bad_scalars[] = {
	"0000000000000000000000000000000000000000000000000000000000000000",
	N_HEX,
	"ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632552",
	"ffffffff00000001ffffffffffffffffbce6faada7179e84f3b9cac2fc632500",
	"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
};

/* Points that are none, in a struct of the right size. */
static unsigned bad_points(struct p256_point *out)
{
	unsigned n = 0;

	out[n] = point_xy(GX_HEX, GY_HEX);
	out[n++].b[64] ^= 1; /* off the curve */
	out[n] = point_xy(GX_HEX, GY_HEX);
	out[n++].b[1] ^= 0x80;
	out[n] = point_xy(GX_HEX, GY_HEX);
	out[n++].b[0] = 7; /* hybrid form, y odd as it is */
	out[n] = point_xy(GX_HEX, GY_HEX);
	out[n++].b[0] = 0;
	out[n++] = point_xy(bad_scalars[0], bad_scalars[0]); /* (0, 0) */
	out[n++] = point_xy(P_HEX, Y0_HEX);		     /* x = p, which is 0 mod p */
	memset(&out[n++], 0, sizeof(*out));		     /* infinity, padded */
	return n;
}
#define BAD_POINTS_MAX 8

/* --- hash ------------------------------------------------------------------------------------ */

TEST(hash_known_answers)
{
	uint8_t got[HASH_BYTES], wanted[HASH_BYTES];
	struct bytes parts[] = { bytes_str("a"), bytes_of(NULL, 0), bytes_str("bc") };

	/* FIPS 180-4's example, and nothing at all */
	unhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", wanted, 32);
	hash_one(bytes_str("abc"), got);
	ASSERT_BYTES(got, wanted, 32);
	hash_parts(parts, ARRAY_SIZE(parts), got);
	ASSERT_BYTES(got, wanted, 32);
	unhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", wanted, 32);
	hash_parts(NULL, 0, got);
	ASSERT_BYTES(got, wanted, 32);
}

struct hkdf_case {
	const char *ikm, *salt, *info, *prk, *okm;
};

/* RFC 5869 appendix A.1 to A.3. A.2's salt is longer than a block of SHA-256. */
static const struct hkdf_case hkdf_cases[] = {
	{ "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "000102030405060708090a0b0c",
	  "f0f1f2f3f4f5f6f7f8f9",
	  "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
	  "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b88718"
	  "5865" },
	{ "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627"
	  "28292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f",
	  "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f8081828384858687"
	  "88898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
	  "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7"
	  "d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
	  "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
	  "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac78272"
	  "71cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f"
	  "1d87" },
	{ "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "", "",
	  "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
	  "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a"
	  "96c8" },
};

static struct bytes hex_view(const char *hex, uint8_t *buf)
{
	unhex(hex, buf, strlen(hex) / 2);
	return bytes_of(buf, strlen(hex) / 2);
}

TEST(hash_hkdf_known_answers)
{
	uint8_t ikm_b[80], salt_b[80], info_b[80], okm_b[82], got[82];

	for (size_t i = 0; i < ARRAY_SIZE(hkdf_cases); i++) {
		const struct hkdf_case *c = &hkdf_cases[i];
		struct bytes ikm = hex_view(c->ikm, ikm_b), info = hex_view(c->info, info_b);
		struct bytes okm = hex_view(c->okm, okm_b);
		struct secret32 prk, wanted = scalar_of(c->prk);

		hash_hkdf_extract(hex_view(c->salt, salt_b), &ikm, 1, &prk);
		ASSERT_BYTES(prk.b, wanted.b, 32);
		for (size_t n = 0; n <= okm.n; n++) {
			memset(got, 0xaa, sizeof(got));
			hash_hkdf_expand(&prk, &info, 1, got, n);
			ASSERT_BYTES(got, okm.p, n);
			ASSERT_TRUE(n == sizeof(got) || got[n] == 0xaa);
		}
	}
}

TEST(hash_hkdf_parts_are_one)
{
	struct bytes whole = bytes_str("abcdef"), parts[] = { bytes_str("ab"), bytes_str("cdef") };
	struct secret32 a, b;
	uint8_t out_a[100], out_b[100];

	hash_hkdf_extract(bytes_str("salt"), &whole, 1, &a);
	hash_hkdf_extract(bytes_str("salt"), parts, 2, &b);
	ASSERT_BYTES(a.b, b.b, 32);
	hash_hkdf_expand(&a, &whole, 1, out_a, sizeof(out_a));
	hash_hkdf_expand(&a, parts, 2, out_b, sizeof(out_b));
	ASSERT_BYTES(out_a, out_b, sizeof(out_a));
}

TEST(hash_random_fills_all)
{
	uint8_t a[300] = { 0 }, b[300] = { 0 };
	unsigned zeros = 0;

	hash_random(a, sizeof(a));
	hash_random(b, sizeof(b));
	ASSERT_NE(memcmp(a, b, sizeof(a)), 0);
	for (size_t i = 0; i < sizeof(a); i++)
		zeros += a[i] == 0;
	ASSERT_LT(zeros, 20);
	hash_random(a, 0);
}

static unsigned allocations;

static void *count_malloc(size_t n, const char *file, int line)
{
	allocations++;
	return malloc(n);
}

static void *count_realloc(void *p, size_t n, const char *file, int line)
{
	allocations++;
	return realloc(p, n);
}

static void count_free(void *p, const char *file, int line)
{
	free(p);
}

/* OpenSSL 3.0 makes its digest's state anew each time; nothing more may come to that. */
TEST(hash_allocates_no_more_than_openssl_must)
{
	struct secret32 prk = small(1);
	struct bytes info = bytes_str("info");
	uint8_t out[HASH_BYTES];

	if (!CRYPTO_set_mem_functions(count_malloc, count_realloc, count_free))
		SKIP("OpenSSL has allocated already");
	hash_one(bytes_str("first"), out);
	allocations = 0;
	for (int i = 0; i < 100; i++)
		hash_one(bytes_str("again"), out);
	ASSERT_LE(allocations, 100);
	allocations = 0;
	hash_hkdf_expand(&prk, &info, 1, out, sizeof(out));
	ASSERT_LE(allocations, 2);
}

/* --- p256: points and scalars ---------------------------------------------------------------- */

TEST(p256_points_are_checked)
{
	struct p256_point g = point_xy(GX_HEX, GY_HEX), zero_x = point_xy(bad_scalars[0], Y0_HEX);
	struct p256_point bad[BAD_POINTS_MAX], out;
	struct secret32 k = small(3), x;
	struct p256_public *key;
	uint8_t longer[66] = { 0 }, pem[200];

	ASSERT_EQ(check(&g), 0);
	ASSERT_EQ(check(&zero_x), 0);
	for (unsigned i = bad_points(bad); i-- > 0;) {
		EXPECT_EQ(check(&bad[i]), -EINVAL);
		EXPECT_EQ(p256_mul(&k, &bad[i], &out), -EINVAL);
		EXPECT_EQ(p256_dh(&k, &bad[i], &x), -EINVAL);
		EXPECT_EQ(p256_public_new(&bad[i], &key), -EINVAL);
		EXPECT_EQ(p256_public_to_pem(&bad[i], pem, sizeof(pem)), -EINVAL);
	}
	memcpy(longer, g.b, sizeof(g.b));
	for (size_t n = 0; n <= sizeof(longer); n++)
		EXPECT_EQ(p256_point_check(bytes_of(longer, n)), n == 65 ? 0 : -EINVAL);
	EXPECT_EQ(p256_point_check(bytes_of("", 1)), -EINVAL); /* infinity as SEC 1 writes it */
	ASSERT_EQ(ERR_peek_error(), 0);
}

TEST(p256_compression)
{
	for (int i = 0; i < 32; i++) {
		struct secret32 k = random_scalar();
		struct p256_point p = point_of(&k), back, lifted;
		uint8_t c[P256_COMPRESSED_BYTES];

		p256_point_compress(&p, c);
		ASSERT_EQ(c[0], 2 + (p.b[64] & 1));
		ASSERT_EQ(p256_point_decompress(bytes_of(c, sizeof(c)), &back), 0);
		ASSERT_BYTES(back.b, p.b, sizeof(p.b));
		c[0] ^= 1; /* -P */
		ASSERT_EQ(p256_point_decompress(bytes_of(c, sizeof(c)), &back), 0);
		ASSERT_BYTES(back.b, p.b, 33);
		ASSERT_NE(memcmp(back.b, p.b, sizeof(p.b)), 0);
		ASSERT_EQ(p256_point_lift(p.b + 1, &lifted), 0);
		ASSERT_EQ(check(&lifted), 0);
		ASSERT_BYTES(lifted.b, p.b, 33);
	}
}

/* Every answer is OpenSSL's, for x of all kinds: small, next to p, next to 2^256, any. */
TEST(p256_decompression_as_openssl)
{
	EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
	EC_POINT *point = EC_POINT_new(group);
	unsigned rounds = harness_rounds(200), held = 0;

	ASSERT_TRUE(group && point);
	for (unsigned i = 0; i < 4 * rounds; i++) {
		uint8_t c[P256_COMPRESSED_BYTES] = { 0 }, wanted[P256_POINT_BYTES];
		struct p256_point out;
		int valid, err;

		if (i % 4 == 1)
			unhex(P_HEX, c + 1, 32);
		else if (i % 4 > 1)
			memset(c + 1, 0xff, 32);
		for (size_t k = 1; k < sizeof(c) && i % 4 == 3; k++)
			c[k] = (uint8_t)harness_random();
		c[32] ^= (uint8_t)(i / 4);
		c[0] = 2 + (harness_random() & 1);
		valid = EC_POINT_oct2point(group, point, c, sizeof(c), NULL);
		err = p256_point_decompress(bytes_of(c, sizeof(c)), &out);
		ASSERT_EQ(err, valid == 1 ? 0 : -EINVAL);
		if (err)
			continue;
		held++;
		ASSERT_EQ(EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, wanted,
					     sizeof(wanted), NULL),
			  sizeof(wanted));
		ASSERT_BYTES(out.b, wanted, sizeof(wanted));
	}
	ASSERT_TRUE(held > rounds / 2 && held < 3 * rounds);
	ERR_clear_error(); /* OpenSSL's of the oracle */
	EC_POINT_free(point);
	EC_GROUP_free(group);
}

TEST(p256_compressed_forms_refused)
{
	const char *const bad_x[] = { X_NONE_HEX, P_HEX, bad_scalars[4] };
	struct p256_point g = point_xy(GX_HEX, GY_HEX), out;
	uint8_t c[P256_COMPRESSED_BYTES + 1] = { 0 };

	p256_point_compress(&g, c);
	for (size_t n = 0; n <= sizeof(c); n++)
		EXPECT_EQ(p256_point_decompress(bytes_of(c, n), &out), n == 33 ? 0 : -EINVAL);
	for (unsigned first = 0; first < 256; first++) {
		c[0] = (uint8_t)first;
		EXPECT_EQ(p256_point_decompress(bytes_of(c, 33), &out),
			  first == 2 || first == 3 ? 0 : -EINVAL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad_x); i++) {
		unhex(bad_x[i], c + 1, 32);
		for (c[0] = 2; c[0] <= 3; c[0]++)
			EXPECT_EQ(p256_point_decompress(bytes_of(c, 33), &out), -EINVAL);
		EXPECT_EQ(p256_point_lift(c + 1, &out), -EINVAL);
	}
	ASSERT_EQ(ERR_peek_error(), 0);
}

TEST(p256_scalars_are_checked)
{
	struct secret32 one = small(1), out, last = scalar_of(N_HEX);
	struct p256_point g = point_xy(GX_HEX, GY_HEX), p;
	struct p256_private *key;
	uint8_t pem[400];

	for (size_t i = 0; i < ARRAY_SIZE(bad_scalars); i++) {
		struct secret32 k = scalar_of(bad_scalars[i]);

		EXPECT_EQ(p256_scalar_check(&k), -EINVAL);
		EXPECT_EQ(p256_scalar_mul(&k, &one, &out), -EINVAL);
		EXPECT_EQ(p256_scalar_mul(&one, &k, &out), -EINVAL);
		EXPECT_EQ(p256_scalar_invert(&k, &out), -EINVAL);
		EXPECT_EQ(p256_mul_base(&k, &p), -EINVAL);
		EXPECT_EQ(p256_mul(&k, &g, &p), -EINVAL);
		EXPECT_EQ(p256_dh(&k, &g, &out), -EINVAL);
		EXPECT_EQ(p256_private_new(&k, &key), -EINVAL);
		EXPECT_EQ(p256_private_to_pem(&k, pem, sizeof(pem)), -EINVAL);
	}
	last.b[31]--;
	ASSERT_EQ(p256_scalar_check(&last), 0);
	ASSERT_EQ(p256_scalar_check(&one), 0);
	/* (n-1) * G = -G */
	p = point_of(&last);
	ASSERT_BYTES(p.b, g.b, 33);
	ASSERT_NE(p.b[64], g.b[64]);
}

TEST(p256_scalar_random_is)
{
	struct secret32 last = { 0 };

	for (int i = 0; i < 64; i++) {
		struct secret32 k = random_scalar();

		ASSERT_EQ(p256_scalar_check(&k), 0);
		ASSERT_NE(memcmp(k.b, last.b, 32), 0);
		last = k;
	}
}

TEST(p256_scalar_arithmetic)
{
	struct secret32 one = small(1), last = scalar_of(N_HEX), out;

	last.b[31]--;
	ASSERT_EQ(p256_scalar_invert(&one, &out), 0);
	ASSERT_BYTES(out.b, one.b, 32);
	ASSERT_EQ(p256_scalar_mul(&last, &last, &out), 0); /* (-1)^2 */
	ASSERT_BYTES(out.b, one.b, 32);
	ASSERT_EQ(p256_scalar_invert(&last, &out), 0);
	ASSERT_BYTES(out.b, last.b, 32);
	for (int i = 0; i < 32; i++) {
		struct secret32 a = random_scalar(), b = random_scalar(), ab, ba;
		struct p256_point bg = point_of(&b), left, right;

		ASSERT_EQ(p256_scalar_invert(&a, &out), 0);
		ASSERT_EQ(p256_scalar_mul(&a, &out, &out), 0);
		ASSERT_BYTES(out.b, one.b, 32);
		ASSERT_EQ(p256_scalar_mul(&a, &b, &ab), 0);
		ASSERT_EQ(p256_scalar_mul(&b, &a, &ba), 0);
		ASSERT_BYTES(ab.b, ba.b, 32);
		left = point_of(&ab);
		ASSERT_EQ(p256_mul(&a, &bg, &right), 0);
		ASSERT_BYTES(left.b, right.b, sizeof(left.b));
	}
}

/* 1 + (wide mod (n-1)) by OpenSSL's division. */
static struct secret32 wide_reference(const uint8_t wide[48])
{
	BIGNUM *v = BN_bin2bn(wide, 48, NULL), *m = NULL;
	BN_CTX *ctx = BN_CTX_new();
	struct secret32 out;

	ASSERT_TRUE(v && ctx && BN_hex2bn(&m, N_HEX) && BN_sub_word(m, 1));
	ASSERT_TRUE(BN_mod(v, v, m, ctx) && BN_add_word(v, 1));
	ASSERT_EQ(BN_bn2binpad(v, out.b, 32), 32);
	BN_free(v);
	BN_free(m);
	BN_CTX_free(ctx);
	return out;
}

static void expect_wide(const uint8_t wide[48])
{
	struct secret32 wanted = wide_reference(wide), got;

	ASSERT_EQ(p256_scalar_from_wide(bytes_of(wide, 48), &got), 0);
	ASSERT_BYTES(got.b, wanted.b, 32);
	ASSERT_EQ(p256_scalar_check(&got), 0);
}

TEST(p256_scalar_from_wide_reduces)
{
	uint8_t wide[49] = { 0 };
	struct secret32 out;

	expect_wide(wide); /* 0, to 1 */
	memset(wide, 0xff, 48);
	expect_wide(wide);
	memset(wide, 0, 48);
	unhex(N_HEX, wide + 16, 32);
	for (int i = 0; i < 4; i++, wide[47]--) /* n, n-1 (to 1), n-2 (to n-1), n-3 */
		expect_wide(wide);
	for (int i = 0; i < 500; i++) {
		fill_random(wide, 48);
		memset(wide, i % 3 == 0 ? 0xff : 0, i % 48);
		expect_wide(wide);
	}
	EXPECT_EQ(p256_scalar_from_wide(bytes_of(wide, 47), &out), -EINVAL);
	EXPECT_EQ(p256_scalar_from_wide(bytes_of(wide, 49), &out), -EINVAL);
	EXPECT_EQ(p256_scalar_from_wide(bytes_of(NULL, 0), &out), -EINVAL);
}

TEST(p256_dh_agrees)
{
	for (int i = 0; i < 16; i++) {
		struct secret32 a = random_scalar(), b = random_scalar(), left, right;
		struct p256_point ag = point_of(&a), bg = point_of(&b), product;

		ASSERT_EQ(p256_dh(&a, &bg, &left), 0);
		ASSERT_EQ(p256_dh(&b, &ag, &right), 0);
		ASSERT_BYTES(left.b, right.b, 32);
		ASSERT_EQ(p256_mul(&a, &bg, &product), 0);
		ASSERT_BYTES(left.b, product.b + 1, 32);
	}
}

/* --- p256: keys ------------------------------------------------------------------------------ */

/* RFC 6979 A.2.5: P-256, SHA-256, "sample". */
#define RFC6979_KEY "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"
#define RFC6979_R   "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
#define RFC6979_S   "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"
/* n - s: the same signature once more (PROTOCOL 1: no low-s rule) */
#define RFC6979_LOW_S "0834e36ad29a83bf2bc9385e491d6099c8fdf9d1ed67aa7ea5f51f93782857a9"

static struct p256_public *public_of(const struct secret32 *k)
{
	struct p256_point p = point_of(k);
	struct p256_public *key;

	ASSERT_EQ(p256_public_new(&p, &key), 0);
	return key;
}

static struct p256_private *private_of(const struct secret32 *k)
{
	struct p256_private *key;

	ASSERT_EQ(p256_private_new(k, &key), 0);
	return key;
}

TEST(p256_verify_known_answer)
{
	struct secret32 k = scalar_of(RFC6979_KEY);
	struct p256_public *key = public_of(&k);
	uint8_t digest[HASH_BYTES], sig[P256_SIG_BYTES];

	hash_one(bytes_str("sample"), digest);
	unhex(RFC6979_R RFC6979_S, sig, sizeof(sig));
	EXPECT_EQ(p256_verify_digest(key, digest, sig), 0);
	unhex(RFC6979_R RFC6979_LOW_S, sig, sizeof(sig));
	EXPECT_EQ(p256_verify_digest(key, digest, sig), 0);
	hash_one(bytes_str("Sample"), digest);
	EXPECT_EQ(p256_verify_digest(key, digest, sig), -EBADMSG);
	p256_public_free(key);
	p256_public_free(NULL);
	p256_private_free(NULL);
}

TEST(p256_verify_refuses_scalars_out_of_range)
{
	struct secret32 k = scalar_of(RFC6979_KEY);
	struct p256_public *key = public_of(&k);
	uint8_t digest[HASH_BYTES], sig[P256_SIG_BYTES];

	hash_one(bytes_str("sample"), digest);
	for (size_t i = 0; i < ARRAY_SIZE(bad_scalars); i++) {
		unhex(RFC6979_R RFC6979_S, sig, sizeof(sig));
		unhex(bad_scalars[i], sig, 32);
		EXPECT_EQ(p256_verify_digest(key, digest, sig), -EBADMSG);
		unhex(RFC6979_R RFC6979_S, sig, sizeof(sig));
		unhex(bad_scalars[i], sig + 32, 32);
		EXPECT_EQ(p256_verify_digest(key, digest, sig), -EBADMSG);
	}
	ASSERT_EQ(ERR_peek_error(), 0);
	p256_public_free(key);
}

TEST(p256_verify_refuses_every_bit_flip)
{
	struct secret32 k = scalar_of(RFC6979_KEY);
	struct p256_public *key = public_of(&k);
	uint8_t digest[HASH_BYTES], sig[P256_SIG_BYTES];

	hash_one(bytes_str("sample"), digest);
	unhex(RFC6979_R RFC6979_S, sig, sizeof(sig));
	for (size_t bit = 0; bit < 8 * sizeof(sig); bit++) {
		sig[bit / 8] ^= (uint8_t)(1 << bit % 8);
		EXPECT_EQ(p256_verify_digest(key, digest, sig), -EBADMSG);
		sig[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (size_t bit = 0; bit < 8 * sizeof(digest); bit++) {
		digest[bit / 8] ^= (uint8_t)(1 << bit % 8);
		EXPECT_EQ(p256_verify_digest(key, digest, sig), -EBADMSG);
		digest[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	ASSERT_EQ(p256_verify_digest(key, digest, sig), 0);
	p256_public_free(key);
}

/* Enough of them that r and s with leading zeros are among them (one in 128). */
TEST(p256_sign_and_verify)
{
	struct secret32 k = random_scalar();
	struct p256_private *signer = private_of(&k);
	struct p256_public *key = public_of(&k);
	struct p256_point wanted = point_of(&k), p;
	uint8_t digest[HASH_BYTES], sig[P256_SIG_BYTES], last[P256_SIG_BYTES] = { 0 };
	unsigned short_ones = 0;

	p256_private_point(signer, &p);
	ASSERT_BYTES(p.b, wanted.b, sizeof(p.b));
	fill_random(digest, sizeof(digest));
	for (int i = 0; i < 1000; i++) {
		ASSERT_EQ(p256_sign_digest(signer, digest, sig), 0);
		ASSERT_EQ(p256_verify_digest(key, digest, sig), 0);
		ASSERT_NE(memcmp(sig, last, sizeof(sig)), 0);
		memcpy(last, sig, sizeof(sig));
		short_ones += sig[0] == 0 || sig[32] == 0;
	}
	ASSERT_GT(short_ones, 0);
	p256_private_free(signer);
	p256_public_free(key);
}

struct at_once {
	struct p256_public *key;
	struct p256_private *signer;
	uint8_t digest[HASH_BYTES], sig[P256_SIG_BYTES];
};

static void *sign_and_verify(void *arg)
{
	struct at_once *a = arg;
	uint8_t sig[P256_SIG_BYTES], bad[P256_SIG_BYTES];

	memcpy(bad, a->sig, sizeof(bad));
	bad[63] ^= 1;
	for (int i = 0; i < 100; i++) {
		EXPECT_EQ(p256_verify_digest(a->key, a->digest, a->sig), 0);
		EXPECT_EQ(p256_verify_digest(a->key, a->digest, bad), -EBADMSG);
		EXPECT_EQ(p256_sign_digest(a->signer, a->digest, sig), 0);
		EXPECT_EQ(p256_verify_digest(a->key, a->digest, sig), 0);
	}
	return NULL;
}

/* More threads than contexts are kept idle for; each thread's own are freed when it ends. */
TEST_TIMEOUT(p256_threads_share_keys, 60)
{
	struct secret32 k = random_scalar();
	struct at_once a = { .key = public_of(&k), .signer = private_of(&k) };
	pthread_t threads[8];

	fill_random(a.digest, sizeof(a.digest));
	ASSERT_EQ(p256_sign_digest(a.signer, a.digest, a.sig), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, sign_and_verify, &a), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ASSERT_EQ(pthread_join(threads[i], NULL), 0);
	p256_public_free(a.key);
	p256_private_free(a.signer);
}

/* --- Schnorr --------------------------------------------------------------------------------- */

TEST(p256_scalar_difference_and_sum_of_points)
{
	const struct secret32 one = { .b[31] = 1 }, zero = { .b = { 0 } };
	struct secret32 top, d, e;

	unhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632550", top.b, 32);
	ASSERT_EQ(p256_scalar_sub(&one, &top, &d), 0); /* 1 - (n - 1) = 2 */
	ASSERT_EQ(d.b[31], 2);
	ASSERT_TRUE(bytes_is_zero(bytes_of(d.b, 31)));
	ASSERT_EQ(p256_scalar_sub(&top, &top, &d), -EINVAL);
	ASSERT_EQ(p256_scalar_sub(&zero, &one, &d), -EINVAL);
	ASSERT_EQ(p256_scalar_sub(&one, &zero, &d), -EINVAL);
	for (int i = 0; i < 200; i++) {
		struct secret32 a = random_scalar(), b = random_scalar(), p = random_scalar(), bp;
		struct p256_point sum, wanted, point = point_of(&p);

		/* (a - b) + b = a, and a + b * p seen from both sides */
		ASSERT_EQ(p256_scalar_sub(&a, &b, &d), 0);
		ASSERT_EQ(p256_scalar_sub(&a, &d, &e), 0);
		ASSERT_BYTES(e.b, b.b, sizeof(e.b));
		ASSERT_EQ(p256_scalar_mul(&b, &p, &bp), 0);
		ASSERT_EQ(p256_scalar_sub(&a, &bp, &d), 0);
		ASSERT_EQ(p256_mul_sum(&d, &b, &point, &sum), 0); /* (a - bp)G + bP = aG */
		wanted = point_of(&a);
		ASSERT_BYTES(sum.b, wanted.b, sizeof(sum.b));
		/* -a G + a G */
		ASSERT_EQ(p256_mul_base(&one, &point), 0);
		ASSERT_EQ(p256_scalar_mul(&top, &a, &d), 0);
		ASSERT_EQ(p256_mul_sum(&d, &a, &point, &sum), -EINVAL);
	}
	ASSERT_EQ(p256_mul_sum(&one, &one, &(struct p256_point){ .b = { 4 } },
			       &(struct p256_point){ 0 }),
		  -EINVAL);
	ASSERT_EQ(ERR_peek_error(), 0);
}

TEST(schnorr_proofs_hold_for_what_they_prove)
{
	struct secret32 x = random_scalar(), y = random_scalar();
	struct p256_point public = point_of(&x), other = point_of(&y);
	struct bytes input[] = { bytes_str("$SSDTF/auth/"), bytes_str("response"), bytes_str("") };
	struct bytes joined = bytes_str("$SSDTF/auth/response");
	uint8_t proof[SCHNORR_PROOF_BYTES], last[SCHNORR_PROOF_BYTES] = { 0 };

	for (int i = 0; i < 100; i++) {
		ASSERT_EQ(schnorr_prove(&x, &public, input, ARRAY_SIZE(input), proof), 0);
		ASSERT_EQ(schnorr_verify(&public, &joined, 1, proof), 0);
		/* One V twice would give the key away. */
		ASSERT_NE(memcmp(proof, last, P256_COMPRESSED_BYTES), 0);
		memcpy(last, proof, sizeof(last));
	}
	EXPECT_EQ(schnorr_verify(&other, &joined, 1, proof), -EBADMSG);
	EXPECT_EQ(schnorr_verify(&public, input, 1, proof), -EBADMSG);
	EXPECT_EQ(schnorr_verify(&public, NULL, 0, proof), -EBADMSG);
	/* With the wrong public key it is no proof for either. */
	ASSERT_EQ(schnorr_prove(&x, &other, input, ARRAY_SIZE(input), proof), 0);
	EXPECT_EQ(schnorr_verify(&public, &joined, 1, proof), -EBADMSG);
	EXPECT_EQ(schnorr_verify(&other, &joined, 1, proof), -EBADMSG);
	memset(x.b, 0, sizeof(x.b));
	EXPECT_EQ(schnorr_prove(&x, &public, input, ARRAY_SIZE(input), proof), -EINVAL);
	ASSERT_EQ(ERR_peek_error(), 0);
}

TEST_TIMEOUT(schnorr_refuses_every_bit_flip, 60)
{
	struct secret32 x = random_scalar();
	struct p256_point public = point_of(&x);
	uint8_t message[40], proof[SCHNORR_PROOF_BYTES];
	struct bytes input = bytes_of(message, sizeof(message));

	fill_random(message, sizeof(message));
	ASSERT_EQ(schnorr_prove(&x, &public, &input, 1, proof), 0);
	for (size_t bit = 0; bit < 8 * sizeof(proof); bit++) {
		proof[bit / 8] ^= (uint8_t)(1 << bit % 8);
		EXPECT_EQ(schnorr_verify(&public, &input, 1, proof), -EBADMSG);
		proof[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (size_t bit = 0; bit < 8 * sizeof(message); bit += 3) {
		message[bit / 8] ^= (uint8_t)(1 << bit % 8);
		EXPECT_EQ(schnorr_verify(&public, &input, 1, proof), -EBADMSG);
		message[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	ASSERT_EQ(schnorr_verify(&public, &input, 1, proof), 0);
	ASSERT_EQ(ERR_peek_error(), 0);
}

/* --- p256: files ----------------------------------------------------------------------------- */

static struct bytes bio_text(BIO *bio)
{
	char *text;
	long n = BIO_get_mem_data(bio, &text);

	return bytes_of(text, (size_t)n);
}

TEST(p256_pem_there_and_back)
{
	struct secret32 k = random_scalar(), k_back;
	struct p256_point p = point_of(&k), p_back;
	uint8_t private[400], public[400];
	int n_private = p256_private_to_pem(&k, private, sizeof(private));
	int n_public = p256_public_to_pem(&p, public, sizeof(public));

	ASSERT_GT(n_private, 0);
	ASSERT_GT(n_public, 0);
	ASSERT_EQ(memcmp(private, "-----BEGIN PRIVATE KEY-----\n", 28), 0);
	ASSERT_EQ(memcmp(public, "-----BEGIN PUBLIC KEY-----\n", 27), 0);
	ASSERT_EQ(p256_private_from_pem(bytes_of(private, (size_t)n_private), &k_back), 0);
	ASSERT_BYTES(k_back.b, k.b, 32);
	ASSERT_EQ(p256_public_from_pem(bytes_of(public, (size_t)n_public), &p_back), 0);
	ASSERT_BYTES(p_back.b, p.b, sizeof(p.b));
	/* exactly enough room, and a byte less */
	ASSERT_EQ(p256_private_to_pem(&k, private, (size_t)n_private), n_private);
	ASSERT_EQ(p256_private_to_pem(&k, private, (size_t)n_private - 1), -ENOBUFS);
	ASSERT_EQ(p256_public_to_pem(&p, public, (size_t)n_public - 1), -ENOBUFS);
	/* the wrong kind, cut, empty, rubbish */
	EXPECT_EQ(p256_public_from_pem(bytes_of(private, (size_t)n_private), &p_back), -EINVAL);
	EXPECT_EQ(p256_private_from_pem(bytes_of(public, (size_t)n_public), &k_back), -EINVAL);
	for (size_t n = 0; n + 10 < (size_t)n_private; n += 7)
		EXPECT_EQ(p256_private_from_pem(bytes_of(private, n), &k_back), -EINVAL);
	EXPECT_EQ(p256_public_from_pem(bytes_str("rubbish"), &p_back), -EINVAL);
	ASSERT_EQ(ERR_peek_error(), 0);
}

/* SEC 1's form, as `openssl ecparam -genkey` writes it. */
TEST(p256_pem_sec1)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	BIO *bio = BIO_new(BIO_s_mem()), *public = BIO_new(BIO_s_mem());
	struct secret32 k;
	struct p256_point p, wanted;

	ASSERT_TRUE(key && bio && public);
	ASSERT_EQ(PEM_write_bio_PrivateKey_traditional(bio, key, NULL, NULL, 0, NULL, NULL), 1);
	ASSERT_EQ(PEM_write_bio_PUBKEY(public, key), 1);
	ASSERT_EQ(p256_private_from_pem(bio_text(bio), &k), 0);
	ASSERT_EQ(p256_public_from_pem(bio_text(public), &wanted), 0);
	p = point_of(&k);
	ASSERT_BYTES(p.b, wanted.b, sizeof(p.b));
	BIO_free(bio);
	BIO_free(public);
	EVP_PKEY_free(key);
}

static void expect_other_key_refused(EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_mem()), *public = BIO_new(BIO_s_mem());
	struct secret32 k;
	struct p256_point p;

	ASSERT_TRUE(key && bio && public);
	ASSERT_EQ(PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), 1);
	ASSERT_EQ(PEM_write_bio_PUBKEY(public, key), 1);
	EXPECT_EQ(p256_private_from_pem(bio_text(bio), &k), -EINVAL);
	EXPECT_EQ(p256_public_from_pem(bio_text(public), &p), -EINVAL);
	ASSERT_EQ(ERR_peek_error(), 0);
	BIO_free(bio);
	BIO_free(public);
	EVP_PKEY_free(key);
}

TEST(p256_pem_of_other_keys_refused)
{
	expect_other_key_refused(EVP_EC_gen("P-384"));
	expect_other_key_refused(EVP_EC_gen("secp256k1"));
	expect_other_key_refused(EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"));
	expect_other_key_refused(EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048));
}

/* Without a pass phrase there is no key, and nobody is asked for one. */
TEST(p256_pem_encrypted_refused)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	BIO *bio = BIO_new(BIO_s_mem());
	char phrase[] = "phrase";
	struct secret32 k;

	ASSERT_TRUE(key && bio);
	ASSERT_EQ(PEM_write_bio_PKCS8PrivateKey(bio, key, EVP_aes_128_cbc(), phrase, 6, NULL, NULL),
		  1);
	EXPECT_EQ(p256_private_from_pem(bio_text(bio), &k), -EINVAL);
	BIO_free(bio);
	EVP_PKEY_free(key);
}

TEST(p256_pkcs8_is_what_openssl_reads)
{
	struct secret32 k = random_scalar();
	struct p256_point wanted = point_of(&k), p = { .b = { 4 } };
	uint8_t der[P256_PKCS8_BYTES];
	const unsigned char *at = der;
	BIGNUM *v = NULL;
	EVP_PKEY *key;
	uint8_t back[32];

	p256_pkcs8(&k, der);
	key = d2i_AutoPrivateKey(NULL, &at, sizeof(der));
	ASSERT_TRUE(key);
	ASSERT_EQ(at - der, P256_PKCS8_BYTES);
	ASSERT_EQ(EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_PRIV_KEY, &v), 1);
	ASSERT_EQ(BN_bn2binpad(v, back, 32), 32);
	ASSERT_BYTES(back, k.b, 32);
	BN_clear_free(v);
	v = NULL;
	/* OpenSSL computes the public half that is not in there. */
	ASSERT_EQ(EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_X, &v), 1);
	ASSERT_EQ(BN_bn2binpad(v, p.b + 1, 32), 32);
	ASSERT_BYTES(p.b, wanted.b, 33);
	BN_free(v);
	EVP_PKEY_free(key);
}

/* --- hpke ------------------------------------------------------------------------------------ */

FIXTURE(hpke)
{
	struct secret32 sk_r;
	struct p256_point pk_r, enc;
	struct hpke_context sender, receiver;
};

FIXTURE_VARIANT(hpke)
{
	enum hpke_suite suite;
};

FIXTURE_VARIANT_ADD(hpke, aes_128_gcm){ .suite = HPKE_SUITE_AES_128_GCM };
FIXTURE_VARIANT_ADD(hpke, chacha20_poly1305){ .suite = HPKE_SUITE_CHACHA20_POLY1305 };

FIXTURE_SETUP(hpke)
{
	self->sk_r = random_scalar();
	self->pk_r = point_of(&self->sk_r);
	ASSERT_EQ(hpke_setup_sender(variant->suite, &self->pk_r, bytes_str("info"), &self->sender,
				    &self->enc),
		  0);
	ASSERT_EQ(hpke_setup_receiver(variant->suite, &self->enc, &self->sk_r, bytes_str("info"),
				      &self->receiver),
		  0);
}

FIXTURE_TEARDOWN(hpke)
{
	hpke_context_deinit(&self->sender);
	hpke_context_deinit(&self->receiver);
}

TEST_F(hpke, both_ends_agree)
{
	struct hpke_context third;
	struct secret32 dh;
	struct p256_point enc;

	ASSERT_BYTES(&self->sender, &self->receiver, sizeof(self->sender));
	ASSERT_EQ(p256_dh(&self->sk_r, &self->enc, &dh), 0);
	ASSERT_EQ(hpke_setup_from_dh(variant->suite, &dh, &self->enc, &self->pk_r,
				     bytes_str("info"), &third),
		  0);
	ASSERT_BYTES(&self->sender, &third, sizeof(third));
	/* Other info, another context; each set-up its own ephemeral key. */
	ASSERT_EQ(hpke_setup_receiver(variant->suite, &self->enc, &self->sk_r, bytes_str("infp"),
				      &third),
		  0);
	ASSERT_NE(memcmp(third.key, self->sender.key, 16), 0);
	ASSERT_EQ(hpke_setup_sender(variant->suite, &self->pk_r, bytes_str("info"), &third, &enc),
		  0);
	ASSERT_NE(memcmp(enc.b, self->enc.b, sizeof(enc.b)), 0);
	hpke_context_deinit(&third);
	for (size_t i = 0; i < sizeof(third); i++)
		ASSERT_EQ(((const uint8_t *)&third)[i], 0);
}

TEST_F(hpke, sealed_opens)
{
	uint8_t plain[100], ct[100 + HPKE_TAG_BYTES], out[100], in_place[100 + HPKE_TAG_BYTES];

	fill_random(plain, sizeof(plain));
	for (size_t n = 0; n <= sizeof(plain); n++) {
		struct bytes aad = bytes_of(plain, n % 7); /* none at all among them */
		uint32_t seq = (uint32_t)harness_random() % (HPKE_SEQ_MAX + 1);

		ASSERT_EQ(hpke_seal(&self->sender, seq, aad, bytes_of(plain, n), ct), 0);
		ASSERT_EQ(hpke_open(&self->receiver, seq, aad, bytes_of(ct, n + HPKE_TAG_BYTES),
				    out),
			  0);
		ASSERT_BYTES(out, plain, n);
		memcpy(in_place, plain, n);
		ASSERT_EQ(hpke_seal(&self->sender, seq, aad, bytes_of(in_place, n), in_place), 0);
		ASSERT_BYTES(in_place, ct, n + HPKE_TAG_BYTES);
	}
}

#define OPEN_PLAIN_BYTES 40

static void expect_refused_and_wiped(const struct hpke_context *c, uint32_t seq, struct bytes aad,
				     struct bytes ct)
{
	uint8_t out[OPEN_PLAIN_BYTES];

	memset(out, 0xaa, sizeof(out));
	EXPECT_EQ(hpke_open(c, seq, aad, ct, out), -EBADMSG);
	for (size_t i = 0; ct.n >= HPKE_TAG_BYTES && i < ct.n - HPKE_TAG_BYTES; i++)
		EXPECT_EQ(out[i], 0);
}

TEST_F(hpke, open_refuses_what_was_not_sealed)
{
	uint8_t plain[OPEN_PLAIN_BYTES] = { 1, 2, 3 }, ct[OPEN_PLAIN_BYTES + HPKE_TAG_BYTES];
	uint8_t aad_b[] = "additional data";
	struct bytes aad = bytes_of(aad_b, sizeof(aad_b)), sealed = bytes_of(ct, sizeof(ct));

	ASSERT_EQ(hpke_seal(&self->sender, 7, aad, bytes_of(plain, sizeof(plain)), ct), 0);
	for (size_t bit = 0; bit < 8 * sizeof(ct); bit++) {
		ct[bit / 8] ^= (uint8_t)(1 << bit % 8);
		expect_refused_and_wiped(&self->receiver, 7, aad, sealed);
		ct[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (size_t bit = 0; bit < 8 * sizeof(aad_b); bit++) {
		aad_b[bit / 8] ^= (uint8_t)(1 << bit % 8);
		expect_refused_and_wiped(&self->receiver, 7, aad, sealed);
		aad_b[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (size_t n = 0; n < sizeof(ct); n++)
		expect_refused_and_wiped(&self->receiver, 7, aad, bytes_of(ct, n));
	expect_refused_and_wiped(&self->receiver, 8, aad, sealed);
	self->receiver.key[0] ^= 1;
	expect_refused_and_wiped(&self->receiver, 7, aad, sealed);
	ASSERT_EQ(ERR_peek_error(), 0);
}

TEST_F(hpke, seq_ends)
{
	uint8_t out[HPKE_TAG_BYTES + 1], plain[1];
	struct bytes none = bytes_of(NULL, 0);

	ASSERT_EQ(hpke_seal(&self->sender, HPKE_SEQ_MAX, none, bytes_str("x"), out), 0);
	ASSERT_EQ(hpke_open(&self->receiver, HPKE_SEQ_MAX, none, bytes_of(out, sizeof(out)), plain),
		  0);
	EXPECT_EQ(hpke_seal(&self->sender, HPKE_SEQ_MAX + 1, none, bytes_str("x"), out),
		  -EOVERFLOW);
	EXPECT_EQ(hpke_open(&self->receiver, HPKE_SEQ_MAX + 1, none, bytes_of(out, sizeof(out)),
			    plain),
		  -EOVERFLOW);
	EXPECT_EQ(hpke_seal(&self->sender, UINT32_MAX, none, bytes_str("x"), out), -EOVERFLOW);
}

TEST_F(hpke, export_by_length_and_context)
{
	uint8_t a[100], b[100];

	hpke_export(&self->sender, bytes_str("ctx"), a, sizeof(a));
	hpke_export(&self->receiver, bytes_str("ctx"), b, sizeof(b));
	ASSERT_BYTES(a, b, sizeof(a));
	hpke_export(&self->sender, bytes_str("cty"), b, sizeof(b));
	ASSERT_NE(memcmp(a, b, 32), 0);
	/* The length is labelled: a shorter value is no prefix of a longer. */
	hpke_export(&self->sender, bytes_str("ctx"), b, 32);
	ASSERT_NE(memcmp(a, b, 32), 0);
	hpke_export(&self->sender, bytes_str("ctx"), b, 0);
}

TEST_F(hpke, bad_points_and_scalars)
{
	struct secret32 zero = { 0 };
	struct p256_point bad[BAD_POINTS_MAX], enc;
	struct hpke_context c;
	struct bytes info = bytes_of(NULL, 0);

	for (unsigned i = bad_points(bad); i-- > 0;) {
		EXPECT_EQ(hpke_setup_sender(variant->suite, &bad[i], info, &c, &enc), -EINVAL);
		EXPECT_EQ(hpke_setup_receiver(variant->suite, &bad[i], &self->sk_r, info, &c),
			  -EINVAL);
	}
	EXPECT_EQ(hpke_setup_sender_with(variant->suite, &self->pk_r, info, &zero, &c, &enc),
		  -EINVAL);
	EXPECT_EQ(hpke_setup_receiver(variant->suite, &self->enc, &zero, info, &c), -EINVAL);
}

/* RFC 9180 A.3.1, as far as one value of each step; the vectors' program has all of it. */
TEST(hpke_known_answer)
{
	struct secret32 sk_e =
		scalar_of("4995788ef4b9d6132b249ce59a77281493eb39af373d236a1fe415cb0c2d7beb");
	struct secret32 sk_r =
		scalar_of("f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2");
	struct p256_point pk_r = point_of(&sk_r), enc;
	struct hpke_context c;
	uint8_t wanted[32];

	ASSERT_EQ(hpke_setup_sender_with(HPKE_SUITE_AES_128_GCM, &pk_r,
					 bytes_str("Ode on a Grecian Urn"), &sk_e, &c, &enc),
		  0);
	unhex("868c066ef58aae6dc589b6cfdd18f97e", wanted, 16);
	ASSERT_BYTES(c.key, wanted, 16);
	unhex("4e0bc5018beba4bf004cca59", wanted, 12);
	ASSERT_BYTES(c.base_nonce, wanted, 12);
	unhex("14ad94af484a7ad3ef40e9f3be99ecc6fa9036df9d4920548424df127ee0d99f", wanted, 32);
	ASSERT_BYTES(c.exporter_secret, wanted, 32);
}

TEST(hpke_unknown_suites)
{
	static const unsigned unknown[] = { 0, 3, 4, 255 };
	struct secret32 k = random_scalar();
	struct p256_point p = point_of(&k), enc;
	struct hpke_context c;
	struct bytes none = bytes_of(NULL, 0);
	uint8_t out[HPKE_TAG_BYTES];

	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++) {
		enum hpke_suite suite = (enum hpke_suite)unknown[i];

		EXPECT_EQ(hpke_setup_sender(suite, &p, none, &c, &enc), -EINVAL);
		EXPECT_EQ(hpke_setup_receiver(suite, &p, &k, none, &c), -EINVAL);
		EXPECT_EQ(hpke_setup_from_dh(suite, &k, &p, &p, none, &c), -EINVAL);
	}
	ASSERT_EQ(hpke_setup_sender(HPKE_SUITE_AES_128_GCM, &p, none, &c, &enc), 0);
	c.suite = (enum hpke_suite)3;
	EXPECT_EQ(hpke_seal(&c, 0, none, none, out), -EINVAL);
	EXPECT_EQ(hpke_open(&c, 0, none, bytes_of(out, sizeof(out)), out), -EINVAL);
}

/* --- grant ----------------------------------------------------------------------------------- */

FIXTURE(grant)
{
	struct secret32 a, b, x, d;
	struct p256_point scope;
	struct grant_terms terms;
};

FIXTURE_SETUP(grant)
{
	self->a = random_scalar();
	self->b = random_scalar();
	self->x = random_scalar();
	self->scope = point_of(&self->a);
	self->terms.key_id = 0x01020304;
	self->terms.b = point_of(&self->b);
	self->terms.x = point_of(&self->x);
	fill_random(self->terms.grant_id, GRANT_ID_BYTES);
	ASSERT_EQ(grant_secret_manager(&self->terms, &self->x, &self->d), 0);
}

FIXTURE_TEARDOWN(grant)
{
	secret32_wipe(&self->a);
}

TEST_F(grant, both_ends_find_d)
{
	struct secret32 d, dh;

	ASSERT_EQ(grant_secret_receiver(&self->terms, &self->b, &d), 0);
	ASSERT_BYTES(d.b, self->d.b, 32);
	ASSERT_EQ(p256_dh(&self->b, &self->terms.x, &dh), 0);
	ASSERT_EQ(grant_secret(&self->terms, &dh, &d), 0);
	ASSERT_BYTES(d.b, self->d.b, 32);
	ASSERT_EQ(p256_scalar_check(&d), 0);
}

TEST_F(grant, d_is_bound_to_all_terms)
{
	struct secret32 dh, d;
	struct grant_terms other;

	ASSERT_EQ(p256_dh(&self->x, &self->terms.b, &dh), 0);
	other = self->terms;
	other.key_id++;
	ASSERT_EQ(grant_secret(&other, &dh, &d), 0);
	EXPECT_NE(memcmp(d.b, self->d.b, 32), 0);
	other = self->terms;
	other.grant_id[7] ^= 1;
	ASSERT_EQ(grant_secret(&other, &dh, &d), 0);
	EXPECT_NE(memcmp(d.b, self->d.b, 32), 0);
	other = self->terms;
	other.x.b[64] ^= 1;
	ASSERT_EQ(grant_secret(&other, &dh, &d), 0);
	EXPECT_NE(memcmp(d.b, self->d.b, 32), 0);
	other = self->terms;
	other.b.b[64] ^= 1;
	ASSERT_EQ(grant_secret(&other, &dh, &d), 0);
	EXPECT_NE(memcmp(d.b, self->d.b, 32), 0);
}

/* rk * E at the broker, then d * lift(x) at the receiver, is a * E: directly and over a hop. */
TEST_F(grant, conversion_reaches_the_receiver)
{
	struct secret32 r = random_scalar(), s1 = random_scalar(), rk, rk1, rk2, wanted, dh;
	struct p256_point e = point_of(&r), minus_e = e, lifted;
	uint8_t x[P256_X_BYTES], x2[P256_X_BYTES], c[P256_COMPRESSED_BYTES];

	ASSERT_EQ(p256_dh(&self->a, &e, &wanted), 0);
	ASSERT_EQ(grant_conversion_key(&self->a, &self->d, &rk), 0);
	ASSERT_EQ(grant_convert(&rk, &e, x), 0);
	ASSERT_EQ(grant_dh(&self->d, x, &dh), 0);
	ASSERT_BYTES(dh.b, wanted.b, 32);
	/* The sign of E does not matter. */
	p256_point_compress(&e, c);
	c[0] ^= 1;
	ASSERT_EQ(p256_point_decompress(bytes_of(c, sizeof(c)), &minus_e), 0);
	ASSERT_EQ(grant_convert(&rk, &minus_e, x2), 0);
	ASSERT_BYTES(x2, x, sizeof(x));

	ASSERT_EQ(grant_conversion_key(&self->a, &s1, &rk1), 0);
	ASSERT_EQ(grant_conversion_key(&s1, &self->d, &rk2), 0);
	ASSERT_EQ(grant_convert(&rk1, &e, x), 0);
	ASSERT_EQ(p256_point_lift(x, &lifted), 0);
	ASSERT_EQ(grant_convert(&rk2, &lifted, x2), 0);
	ASSERT_EQ(grant_dh(&self->d, x2, &dh), 0);
	ASSERT_BYTES(dh.b, wanted.b, 32);
}

TEST_F(grant, bad_input_refused)
{
	struct secret32 zero = { 0 }, out;
	struct p256_point bad[BAD_POINTS_MAX];
	uint8_t x[P256_X_BYTES];

	EXPECT_EQ(grant_conversion_key(&zero, &self->d, &out), -EINVAL);
	EXPECT_EQ(grant_conversion_key(&self->a, &zero, &out), -EINVAL);
	EXPECT_EQ(grant_secret_receiver(&self->terms, &zero, &out), -EINVAL);
	EXPECT_EQ(grant_secret_manager(&self->terms, &zero, &out), -EINVAL);
	EXPECT_EQ(grant_convert(&zero, &self->scope, x), -EINVAL);
	for (unsigned i = bad_points(bad); i-- > 0;) {
		struct grant_terms t = self->terms;

		EXPECT_EQ(grant_convert(&self->a, &bad[i], x), -EINVAL);
		t.x = bad[i];
		EXPECT_EQ(grant_secret_receiver(&t, &self->b, &out), -EINVAL);
		t = self->terms;
		t.b = bad[i];
		EXPECT_EQ(grant_secret_manager(&t, &self->x, &out), -EINVAL);
	}
	unhex(X_NONE_HEX, x, sizeof(x));
	EXPECT_EQ(grant_dh(&self->d, x, &out), -EINVAL);
	unhex(P_HEX, x, sizeof(x));
	EXPECT_EQ(grant_dh(&self->d, x, &out), -EINVAL);
	memcpy(x, self->scope.b + 1, sizeof(x));
	EXPECT_EQ(grant_dh(&zero, x, &out), -EINVAL);
}

/* --- envelope -------------------------------------------------------------------------------- */

#define PLAIN	     "21.5 degrees"
#define PLAIN_BYTES  (sizeof(PLAIN) - 1)
#define SEALED_BYTES ENVELOPE_SEALED_BYTES(PLAIN_BYTES)
#define RAISED_MAX   1024
#define LEVEL_OFFSET (ENVELOPE_FIXED_BYTES - 1)
/* PROTOCOL 2's table */
#define BIND_OFFSET   28
#define ENC_OFFSET    44
#define COMMIT_OFFSET 77
#define SALT_OFFSET   109
#define KEY_ID	      0x0a0b0c0du
#define COUNTER	      0x1122334455667788u
#define TIME_MS	      1700000000123u

/* A device's message, sealed under scope key a, and a grant to read it. */
FIXTURE(sealed)
{
	struct secret32 a, d, rk;
	struct p256_point scope;
	struct envelope_sender sender;
	struct bytes id, topic, plain;
	uint8_t payload[SEALED_BYTES];
	struct envelope e; /* payload, parsed */
	uint8_t raised[RAISED_MAX];
	struct envelope e1; /* raised, parsed */
	size_t raised_n;
};

FIXTURE_VARIANT(sealed)
{
	enum hpke_suite suite;
};

FIXTURE_VARIANT_ADD(sealed, aes_128_gcm){ .suite = HPKE_SUITE_AES_128_GCM };
FIXTURE_VARIANT_ADD(sealed, chacha20_poly1305){ .suite = HPKE_SUITE_CHACHA20_POLY1305 };

static const uint8_t sample_grant[ENVELOPE_GRANT_BYTES] = { 1, 2, 3, 4, 5, 6, 7, 8 };

/* e one level higher, by rk, into out; returns the bytes written. */
static size_t raise_by(const struct secret32 *rk, const struct envelope *e, struct bytes origin,
		       struct bytes proof, uint8_t *out)
{
	uint8_t x[P256_X_BYTES];
	struct envelope_block b = { .grant = bytes_of(sample_grant, sizeof(sample_grant)),
				    .x = bytes_of(x, sizeof(x)),
				    .origin = origin,
				    .proof = proof };
	struct bytes_writer w = bytes_writer_of(out, RAISED_MAX);
	struct p256_point p;

	if (e->level)
		ASSERT_EQ(p256_point_lift(e->x.p, &p), 0);
	else
		ASSERT_EQ(p256_point_decompress(e->enc, &p), 0);
	ASSERT_EQ(grant_convert(rk, &p, x), 0);
	envelope_raise_head(e, &b, &w);
	ASSERT_EQ(w.used, envelope_raised_head_bytes(&b));
	bytes_write(&w, e->ct);
	ASSERT_FALSE(w.bad);
	return w.used;
}

static struct secret32 dh_of(const struct secret32 *d, const struct envelope *e)
{
	struct secret32 dh;

	ASSERT_EQ(grant_dh(d, e->x.p, &dh), 0);
	return dh;
}

FIXTURE_SETUP(sealed)
{
	self->a = random_scalar();
	self->d = random_scalar();
	ASSERT_EQ(grant_conversion_key(&self->a, &self->d, &self->rk), 0);
	self->scope = point_of(&self->a);
	self->id = bytes_str("sensor-17");
	self->topic = bytes_str("plant/7/temperature");
	self->plain = bytes_str(PLAIN);
	ASSERT_EQ(envelope_sender_init(&self->sender, variant->suite, KEY_ID, &self->scope), 0);
	ASSERT_EQ(envelope_seal(&self->sender, COUNTER, TIME_MS, self->id, self->topic, self->plain,
				self->payload),
		  0);
	ASSERT_EQ(envelope_parse(bytes_of(self->payload, SEALED_BYTES), &self->e), 0);
	self->raised_n = raise_by(&self->rk, &self->e, self->id, bytes_of(NULL, 0), self->raised);
	ASSERT_EQ(envelope_parse(bytes_of(self->raised, self->raised_n), &self->e1), 0);
}

FIXTURE_TEARDOWN(sealed)
{
	envelope_sender_deinit(&self->sender);
}

TEST_F(sealed, parses_to_what_was_sealed)
{
	const struct envelope *e = &self->e;

	ASSERT_EQ(e->suite, variant->suite);
	ASSERT_EQ(e->key_id, KEY_ID);
	ASSERT_EQ(e->seq, 0);
	ASSERT_EQ(e->counter, COUNTER);
	ASSERT_EQ(e->time_ms, TIME_MS);
	ASSERT_EQ(e->level, 0);
	ASSERT_EQ(e->whole.n, SEALED_BYTES);
	ASSERT_EQ(e->ct.n, PLAIN_BYTES + HPKE_TAG_BYTES);
	ASSERT_EQ(e->grant.n + e->x.n + e->origin.n + e->proof.n, 0);
	ASSERT_BYTES(e->salt.p, self->sender.salt, ENVELOPE_SALT_BYTES);
	ASSERT_FALSE(bytes_is_zero(e->salt));
	ASSERT_BYTES(e->commit.p, self->sender.commit, ENVELOPE_COMMIT_BYTES);
	ASSERT_BYTES(e->enc.p + 1, self->sender.enc.b + 1, 32);
	ASSERT_FALSE(memmem(self->payload, SEALED_BYTES, PLAIN, PLAIN_BYTES));
}

TEST_F(sealed, seq_ascends_until_used_up)
{
	uint8_t again[SEALED_BYTES];
	struct envelope e;

	ASSERT_EQ(envelope_seal(&self->sender, COUNTER + 1, 0, self->id, self->topic, self->plain,
				again),
		  0);
	ASSERT_EQ(envelope_parse(bytes_of(again, sizeof(again)), &e), 0);
	ASSERT_EQ(e.seq, 1);
	ASSERT_NE(memcmp(e.ct.p, self->e.ct.p, e.ct.n), 0);
	self->sender.seq_next = HPKE_SEQ_MAX;
	ASSERT_EQ(envelope_seal(&self->sender, 1, 0, self->id, self->topic, self->plain, again), 0);
	for (int i = 0; i < 2; i++)
		EXPECT_EQ(envelope_seal(&self->sender, 1, 0, self->id, self->topic, self->plain,
					again),
			  -EOVERFLOW);
	envelope_sender_deinit(&self->sender);
	EXPECT_EQ(envelope_seal(&self->sender, 1, 0, self->id, self->topic, self->plain, again),
		  -EOVERFLOW);
}

/* PROTOCOL 2: a context survives no fork. */
TEST_F(sealed, child_of_a_fork_does_not_seal)
{
	uint8_t again[SEALED_BYTES];
	int status;
	pid_t pid = fork();

	ASSERT_GE(pid, 0);
	if (pid == 0)
		_exit(envelope_seal(&self->sender, 1, 0, self->id, self->topic, self->plain,
				    again) == -EOVERFLOW
			      ? 0
			      : 1);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	ASSERT_EQ(status, 0);
	ASSERT_EQ(envelope_seal(&self->sender, 1, 0, self->id, self->topic, self->plain, again), 0);
}

TEST_F(sealed, seal_refuses_what_is_no_id_or_topic)
{
	static uint8_t long_topic[UINT16_MAX + 1];
	uint8_t again[SEALED_BYTES];
	struct envelope_sender *s = &self->sender;
	struct bytes none = bytes_of(NULL, 0);

	memset(long_topic, 't', sizeof(long_topic));
	EXPECT_EQ(envelope_seal(s, 1, 0, none, self->topic, self->plain, again), -EINVAL);
	EXPECT_EQ(envelope_seal(s, 1, 0, bytes_str("a b"), self->topic, self->plain, again),
		  -EINVAL);
	EXPECT_EQ(envelope_seal(s, 1, 0, self->id, none, self->plain, again), -EINVAL);
	EXPECT_EQ(envelope_seal(s, 1, 0, self->id, bytes_of(long_topic, sizeof(long_topic)),
				self->plain, again),
		  -EINVAL);
	EXPECT_EQ(envelope_seal(s, 1, 0, self->id, bytes_of(long_topic, UINT16_MAX), self->plain,
				again),
		  0);
	EXPECT_EQ(s->seq_next, 2);
}

TEST_F(sealed, bind)
{
	uint8_t copy[SEALED_BYTES];
	struct envelope e = self->e;

	EXPECT_TRUE(envelope_bind_fits(&e, self->id, self->topic));
	EXPECT_FALSE(envelope_bind_fits(&e, bytes_str("sensor-18"), self->topic));
	EXPECT_FALSE(envelope_bind_fits(&e, self->id, bytes_str("plant/7/temperaturex")));
	EXPECT_FALSE(envelope_bind_fits(&e, bytes_of(NULL, 0), self->topic));
	/* The border between id and topic is bound too. */
	EXPECT_FALSE(
		envelope_bind_fits(&e, bytes_str("sensor-17p"), bytes_str("lant/7/temperature")));
	for (size_t at = BIND_OFFSET; at < ENC_OFFSET; at++) {
		memcpy(copy, self->payload, sizeof(copy));
		copy[at] ^= 0x10;
		ASSERT_EQ(envelope_parse(bytes_of(copy, sizeof(copy)), &e), 0);
		EXPECT_FALSE(envelope_bind_fits(&e, self->id, self->topic));
	}
}

/* A zero salt is refused even with the bind that fits it. */
TEST_F(sealed, bind_with_zero_salt)
{
	uint8_t copy[SEALED_BYTES];
	struct envelope e;

	memcpy(copy, self->payload, sizeof(copy));
	memset(copy + SALT_OFFSET, 0, ENVELOPE_SALT_BYTES);
	envelope_bind(bytes_of(copy + SALT_OFFSET, ENVELOPE_SALT_BYTES), self->id, self->topic,
		      copy + BIND_OFFSET);
	ASSERT_EQ(envelope_parse(bytes_of(copy, sizeof(copy)), &e), 0);
	EXPECT_FALSE(envelope_bind_fits(&e, self->id, self->topic));
	copy[LEVEL_OFFSET - 1] = 1;
	envelope_bind(bytes_of(copy + SALT_OFFSET, ENVELOPE_SALT_BYTES), self->id, self->topic,
		      copy + BIND_OFFSET);
	EXPECT_TRUE(envelope_bind_fits(&e, self->id, self->topic));
}

TEST_F(sealed, receiver_opens)
{
	struct secret32 dh = dh_of(&self->d, &self->e1), other = random_scalar(), wrong;
	uint8_t out[PLAIN_BYTES];

	ASSERT_EQ(self->e1.level, 1);
	ASSERT_TRUE(bytes_equal(self->e1.origin, self->id));
	ASSERT_EQ(envelope_open(&self->e1, &dh, &self->scope, out), 0);
	ASSERT_BYTES(out, PLAIN, PLAIN_BYTES);
	wrong = dh_of(&other, &self->e1);
	EXPECT_EQ(envelope_open(&self->e1, &wrong, &self->scope, out), -EBADMSG);
	self->scope.b[64] ^= 1; /* A enters the key */
	EXPECT_EQ(envelope_open(&self->e1, &dh, &self->scope, out), -EBADMSG);
}

/* Every bit up to commit and in ct counts; salt, level and block are others' matter. */
TEST_F(sealed, receiver_refuses_every_bit_flip)
{
	struct secret32 dh = dh_of(&self->d, &self->e1);
	uint8_t out[PLAIN_BYTES];
	size_t ct_at = self->raised_n - self->e1.ct.n;

	for (size_t bit = 0; bit < 8 * self->raised_n; bit++) {
		struct envelope e;
		int err;

		if (bit / 8 >= SALT_OFFSET && bit / 8 < ct_at)
			continue;
		self->raised[bit / 8] ^= (uint8_t)(1 << bit % 8);
		memset(out, 0, sizeof(out));
		err = envelope_parse(bytes_of(self->raised, self->raised_n), &e);
		if (!err)
			err = envelope_open(&e, &dh, &self->scope, out);
		EXPECT_TRUE(err == -EBADMSG || err == -EINVAL);
		for (size_t i = 0; i < sizeof(out); i++)
			EXPECT_EQ(out[i], 0);
		self->raised[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	ASSERT_EQ(envelope_open(&self->e1, &dh, &self->scope, out), 0);
}

TEST_F(sealed, commit_mismatch_is_found_before_decryption)
{
	struct secret32 dh = dh_of(&self->d, &self->e1);
	uint8_t out[PLAIN_BYTES];

	memset(out, 0xaa, sizeof(out));
	self->raised[COMMIT_OFFSET] ^= 1;
	EXPECT_EQ(envelope_open(&self->e1, &dh, &self->scope, out), -EBADMSG);
	EXPECT_EQ(out[0], 0xaa); /* not even touched */
}

TEST_F(sealed, cut_structure_refused)
{
	struct envelope e;

	for (size_t n = 0; n < ENVELOPE_FIXED_BYTES + HPKE_TAG_BYTES; n++)
		EXPECT_EQ(envelope_parse(bytes_of(self->payload, n), &e), -EBADMSG);
	ASSERT_EQ(envelope_parse(bytes_of(self->payload, ENVELOPE_FIXED_BYTES + HPKE_TAG_BYTES),
				 &e),
		  0);
	for (size_t n = 0; n < self->raised_n - PLAIN_BYTES; n++)
		EXPECT_EQ(envelope_parse(bytes_of(self->raised, n), &e), -EBADMSG);
}

/* Each byte of the head that has few legal values, through all 256. */
TEST_F(sealed, fixed_fields)
{
	uint8_t copy[SEALED_BYTES];
	struct envelope e;

	for (unsigned v = 0; v < 256; v++) {
		static const size_t at[] = { 0, 1, 2, 3, 8, 9, ENC_OFFSET, LEVEL_OFFSET };
		const bool legal[] = { v == 0x5d, v == 0x7f, v == 1,	       v == 1 || v == 2,
				       v == 0,	  v == 0,    v == 2 || v == 3, v == 0 };

		for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
			memcpy(copy, self->payload, sizeof(copy));
			copy[at[i]] = (uint8_t)v;
			EXPECT_EQ(envelope_parse(bytes_of(copy, sizeof(copy)), &e),
				  legal[i] ? 0 : -EBADMSG);
		}
	}
}

static int parse_with_origin(const struct envelope *e, struct bytes origin, uint8_t level)
{
	uint8_t out[RAISED_MAX], x[P256_X_BYTES] = { 0 };
	struct bytes_writer w = bytes_writer_of(out, sizeof(out));
	struct envelope parsed;

	bytes_write(&w, bytes_of(e->whole.p, LEVEL_OFFSET));
	bytes_write_u8(&w, level);
	bytes_write(&w, bytes_of(sample_grant, sizeof(sample_grant)));
	bytes_write(&w, bytes_of(x, sizeof(x)));
	bytes_write_u8_view(&w, origin);
	bytes_write_u16(&w, 0);
	bytes_write(&w, e->ct);
	ASSERT_FALSE(w.bad);
	return envelope_parse(bytes_of(out, w.used), &parsed);
}

TEST_F(sealed, levels_and_origins)
{
	char long_id[65];

	memset(long_id, 'i', sizeof(long_id));
	for (unsigned level = 1; level < 256; level++)
		EXPECT_EQ(parse_with_origin(&self->e, self->id, (uint8_t)level),
			  level <= ENVELOPE_LEVEL_MAX ? 0 : -EBADMSG);
	EXPECT_EQ(parse_with_origin(&self->e, bytes_of(long_id, 64), 1), 0);
	EXPECT_EQ(parse_with_origin(&self->e, bytes_of(long_id, 65), 1), -EBADMSG);
	EXPECT_EQ(parse_with_origin(&self->e, bytes_of(NULL, 0), 1), -EBADMSG);
	EXPECT_EQ(parse_with_origin(&self->e, bytes_str("a/b"), 1), -EBADMSG);
	EXPECT_EQ(parse_with_origin(&self->e, bytes_of("a\0b", 3), 1), -EBADMSG);
}

TEST_F(sealed, raised_to_the_last_level)
{
	uint8_t from[RAISED_MAX], to[RAISED_MAX];
	struct secret32 secret = self->a, out_dh;
	struct envelope e = self->e;
	struct envelope_block b;
	struct bytes_writer w;
	uint8_t out[PLAIN_BYTES];

	for (unsigned level = 1; level <= ENVELOPE_LEVEL_MAX; level++) {
		struct secret32 next = random_scalar(), rk;
		size_t n;

		ASSERT_EQ(grant_conversion_key(&secret, &next, &rk), 0);
		n = raise_by(&rk, &e, self->id, bytes_str("proof"), to);
		memcpy(from, to, n);
		ASSERT_EQ(envelope_parse(bytes_of(from, n), &e), 0);
		ASSERT_EQ(e.level, level);
		ASSERT_TRUE(bytes_equal(e.proof, bytes_str("proof")));
		out_dh = dh_of(&next, &e);
		ASSERT_EQ(envelope_open(&e, &out_dh, &self->scope, out), 0);
		ASSERT_BYTES(out, PLAIN, PLAIN_BYTES);
		secret = next;
	}
	b = (struct envelope_block){ .grant = e.grant, .x = e.x, .origin = e.origin };
	w = bytes_writer_of(to, sizeof(to));
	envelope_raise_head(&e, &b, &w);
	EXPECT_TRUE(w.bad);
}

TEST_F(sealed, raise_refuses_what_does_not_parse)
{
	static uint8_t long_proof[UINT16_MAX + 1], out[UINT16_MAX + RAISED_MAX];
	struct envelope_block b = { .grant = self->e1.grant,
				    .x = self->e1.x,
				    .origin = bytes_str("no id") };
	struct bytes_writer w = bytes_writer_of(out, sizeof(out));

	envelope_raise_head(&self->e, &b, &w);
	EXPECT_TRUE(w.bad);
	b.origin = self->id;
	b.proof = bytes_of(long_proof, sizeof(long_proof));
	w = bytes_writer_of(out, sizeof(out));
	envelope_raise_head(&self->e, &b, &w);
	EXPECT_TRUE(w.bad);
	b.proof.n--;
	for (size_t short_by = 0; short_by < 2; short_by++) {
		w = bytes_writer_of(out, envelope_raised_head_bytes(&b) - short_by);
		envelope_raise_head(&self->e, &b, &w);
		EXPECT_EQ(w.bad, short_by != 0);
	}
}

TEST_F(sealed, enc_that_is_no_point)
{
	struct secret32 dh = dh_of(&self->d, &self->e1);
	uint8_t out[PLAIN_BYTES];

	unhex(X_NONE_HEX, self->raised + ENC_OFFSET + 1, 32);
	EXPECT_EQ(envelope_open(&self->e1, &dh, &self->scope, out), -EINVAL);
}

TEST(envelope_sender_init_refuses)
{
	struct p256_point bad[BAD_POINTS_MAX], g = point_xy(GX_HEX, GY_HEX);
	uint8_t salt[ENVELOPE_SALT_BYTES] = { 1 };
	struct secret32 zero = { 0 };
	struct envelope_sender s;

	for (unsigned i = bad_points(bad); i-- > 0;)
		EXPECT_EQ(envelope_sender_init(&s, HPKE_SUITE_AES_128_GCM, 1, &bad[i]), -EINVAL);
	EXPECT_EQ(envelope_sender_init(&s, (enum hpke_suite)3, 1, &g), -EINVAL);
	EXPECT_EQ(envelope_sender_init_with(&s, HPKE_SUITE_AES_128_GCM, 1, &g, &zero, salt),
		  -EINVAL);
}

/* --- publish --------------------------------------------------------------------------------- */

#define SIGNED_MAX	 (RAISED_MAX + PUBLISH_TRAILER_BYTES_MAX)
#define BATCH_SIZE	 5
#define PROPERTIES_HEX	 "01010300046a736f6e"
#define PROPERTIES_BYTES 9

/* A sealed message, signed by its sender on its own and as one of a batch. */
FIXTURE(signed)
{
	struct secret32 a, k;
	struct p256_private *signer;
	struct p256_public *key, *other_key;
	struct envelope_sender sender;
	uint8_t properties[PROPERTIES_BYTES];
	struct publish p; /* body: sealed */
	uint8_t sealed[SEALED_BYTES];
	uint8_t payload[SIGNED_MAX]; /* sealed, trailer */
	size_t payload_n;
	struct publish_trailer t; /* payload, split */
};

FIXTURE_VARIANT(signed)
{
	uint8_t kind;
	uint16_t index;
};

FIXTURE_VARIANT_ADD(signed, alone){ .kind = 1 };
FIXTURE_VARIANT_ADD(signed, batch_first){ .kind = 2, .index = 0 };
FIXTURE_VARIANT_ADD(signed, batch_last){ .kind = 2, .index = BATCH_SIZE - 1 };

static void sign_alone(const struct publish *p, const struct p256_private *signer,
		       struct bytes_writer *w)
{
	uint8_t trailer[PUBLISH_TRAILER_1_BYTES];

	ASSERT_EQ(publish_sign(p, signer, trailer), 0);
	bytes_write(w, bytes_of(trailer, sizeof(trailer)));
}

/* One leaf among others that are anything. */
static void sign_in_batch(const struct publish *p, const struct p256_private *signer,
			  uint16_t index, uint16_t size, struct bytes_writer *w)
{
	uint8_t(*nodes)[HASH_BYTES] = calloc(merkle_nodes(size), HASH_BYTES);
	uint8_t digest[HASH_BYTES], sig[P256_SIG_BYTES];
	struct merkle m;

	ASSERT_TRUE(nodes);
	for (uint16_t i = 0; i < size; i++)
		fill_random(nodes[i], HASH_BYTES);
	publish_leaf(p, nodes[index]);
	merkle_build(&m, nodes, size);
	publish_root_digest(merkle_root(&m), digest);
	ASSERT_EQ(p256_sign_digest(signer, digest, sig), 0);
	publish_write_trailer_2(sig, &m, index, w);
	free(nodes);
}

FIXTURE_SETUP(signed)
{
	struct secret32 other = random_scalar();
	struct p256_point scope;
	struct bytes_writer w = bytes_writer_of(self->payload, sizeof(self->payload));

	self->a = random_scalar();
	self->k = random_scalar();
	scope = point_of(&self->a);
	self->signer = private_of(&self->k);
	self->key = public_of(&self->k);
	self->other_key = public_of(&other);
	unhex(PROPERTIES_HEX, self->properties, PROPERTIES_BYTES);
	self->p = (struct publish){ .first = 0x32, /* QoS 1 */
				    .topic = bytes_str("plant/7/temperature"),
				    .properties = bytes_of(self->properties, PROPERTIES_BYTES),
				    .body = { bytes_of(self->sealed, SEALED_BYTES) },
				    .body_parts = 1,
				    .client_id = bytes_str("sensor-17") };
	ASSERT_EQ(envelope_sender_init(&self->sender, HPKE_SUITE_AES_128_GCM, KEY_ID, &scope), 0);
	ASSERT_EQ(envelope_seal(&self->sender, COUNTER, TIME_MS, self->p.client_id, self->p.topic,
				bytes_str(PLAIN), self->sealed),
		  0);
	bytes_write(&w, self->p.body[0]);
	if (variant->kind == 1)
		sign_alone(&self->p, self->signer, &w);
	else
		sign_in_batch(&self->p, self->signer, variant->index, BATCH_SIZE, &w);
	ASSERT_FALSE(w.bad);
	self->payload_n = w.used;
	ASSERT_EQ(publish_split(bytes_of(self->payload, w.used), &self->t), 0);
}

FIXTURE_TEARDOWN(signed)
{
	envelope_sender_deinit(&self->sender);
	p256_private_free(self->signer);
	p256_public_free(self->key);
	p256_public_free(self->other_key);
}

/* As the broker checks what arrived: split, verify with its own idea of all the rest. */
static int receive(const struct publish *as, struct bytes payload, const struct p256_public *key)
{
	struct publish p = *as;
	struct publish_trailer t;
	int err = publish_split(payload, &t);

	if (err)
		return err;
	p.body[0] = t.body;
	p.body_parts = 1;
	return publish_verify(&p, &t, key);
}

TEST_F(signed, splits_and_verifies)
{
	ASSERT_EQ(self->t.kind, variant->kind);
	ASSERT_TRUE(bytes_equal(self->t.body, self->p.body[0]));
	ASSERT_EQ(self->t.body.n + self->t.trailer.n, self->payload_n);
	if (variant->kind == 2) {
		ASSERT_EQ(self->t.index, variant->index);
		ASSERT_EQ(self->t.size, BATCH_SIZE);
		ASSERT_EQ(self->t.path.n, HASH_BYTES * merkle_path_len(variant->index, BATCH_SIZE));
	}
	ASSERT_EQ(publish_verify(&self->p, &self->t, self->key), 0);
	EXPECT_EQ(publish_verify(&self->p, &self->t, self->other_key), -EBADMSG);
}

TEST_F(signed, every_truncation_refused)
{
	for (size_t n = 0; n < self->payload_n; n++) {
		/* from the end, and from the start */
		EXPECT_EQ(receive(&self->p, bytes_of(self->payload, n), self->key), -EBADMSG);
		EXPECT_EQ(receive(&self->p, bytes_of(self->payload + self->payload_n - n, n),
				  self->key),
			  -EBADMSG);
	}
}

/* The sides that a path's siblings are on, leaf upwards; a 1 in front marks where they begin. */
static unsigned sides_of(unsigned index, unsigned size)
{
	unsigned sides = 1;

	for (; size > 1; size = (size + 1) / 2, index /= 2)
		if ((index ^ 1) < size)
			sides = sides << 1 | (index & 1);
	return sides;
}

/*
 * Merkle positions are malleable (PROTOCOL 1): the root says nothing of the size, so another index
 * and size whose path has the same siblings on the same sides prove the same leaf. True where the
 * trailer at the end of payload still does so.
 */
static bool same_path(struct bytes payload, const struct variant_signed *variant)
{
	struct publish_trailer t;

	return variant->kind == 2 && !publish_split(payload, &t) && t.kind == 2 &&
	       sides_of(t.index, t.size) == sides_of(variant->index, BATCH_SIZE);
}

TEST_F_TIMEOUT(signed, every_bit_flip_refused, 60)
{
	struct bytes payload = bytes_of(self->payload, self->payload_n);

	for (size_t bit = 0; bit < 8 * self->payload_n; bit++) {
		bool position = bit / 8 >= self->payload_n - 5;

		self->payload[bit / 8] ^= (uint8_t)(1 << bit % 8);
		EXPECT_EQ(receive(&self->p, payload, self->key),
			  position && same_path(payload, variant) ? 0 : -EBADMSG);
		self->payload[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	ASSERT_EQ(receive(&self->p, payload, self->key), 0);
}

TEST_F(signed, other_context_refused)
{
	struct bytes payload = bytes_of(self->payload, self->payload_n);
	struct publish p;

	for (unsigned first = 0; first < 256; first++) {
		p = self->p;
		p.first = (uint8_t)first;
		/* DUP alone is free (RETAIN is bit 0, QoS bits 1 and 2). */
		EXPECT_EQ(receive(&p, payload, self->key),
			  first == 0x32 || first == 0x3a ? 0 : -EBADMSG);
	}
	p = self->p;
	p.client_id = bytes_str("sensor-18");
	EXPECT_EQ(receive(&p, payload, self->key), -EBADMSG);
	p = self->p;
	p.topic = bytes_str("plant/8/temperature");
	EXPECT_EQ(receive(&p, payload, self->key), -EBADMSG);
	p = self->p;
	p.properties = bytes_of(NULL, 0);
	EXPECT_EQ(receive(&p, payload, self->key), -EBADMSG);
	p.properties = bytes_of(self->properties, PROPERTIES_BYTES - 1);
	EXPECT_EQ(receive(&p, payload, self->key), -EBADMSG);
}

/* The same bytes shifted over a border between fields are another input. */
TEST_F(signed, borders_are_signed)
{
	struct publish p = self->p;

	p.topic = bytes_str("plant/7/temperatur");
	p.properties = bytes_str("e");
	EXPECT_EQ(publish_verify(&p, &self->t, self->key), -EBADMSG);
}

TEST_F(signed, batch_on_a_body_that_is_no_envelope_refused)
{
	uint8_t out[SIGNED_MAX], wanted = variant->kind == 1;
	struct bytes_writer w = bytes_writer_of(out, sizeof(out));
	struct publish p = self->p;

	p.body[0] = bytes_str("21.5");
	bytes_write(&w, p.body[0]);
	if (variant->kind == 1)
		sign_alone(&p, self->signer, &w);
	else
		sign_in_batch(&p, self->signer, variant->index, BATCH_SIZE, &w);
	ASSERT_FALSE(w.bad);
	EXPECT_EQ(receive(&p, bytes_of(out, w.used), self->key), wanted ? 0 : -EBADMSG);

	/* Nor one that is in pieces: nobody verifies those. */
	p = self->p;
	p.body[1] = bytes_of(self->sealed + 10, SEALED_BYTES - 10);
	p.body[0].n = 10;
	p.body_parts = 2;
	EXPECT_EQ(publish_verify(&p, &self->t, self->key), wanted ? 0 : -EBADMSG);
}

#define LABEL_HEX "73736474662d7075626c6973682d31" /* "ssdtf-publish-1" */

static void expect_input(const struct publish *p, const char *wanted_hex)
{
	uint8_t out[64], wanted[64], got[HASH_BYTES], hash[HASH_BYTES];
	struct bytes_writer w = bytes_writer_of(out, sizeof(out));
	struct bytes input;

	unhex(wanted_hex, wanted, strlen(wanted_hex) / 2);
	publish_input(p, &w);
	ASSERT_FALSE(w.bad);
	ASSERT_EQ(w.used, strlen(wanted_hex) / 2);
	ASSERT_BYTES(out, wanted, w.used);
	input = bytes_of(out, w.used);
	publish_digest(p, got);
	hash_one(input, hash);
	ASSERT_BYTES(got, hash, sizeof(hash));
	publish_leaf(p, got);
	merkle_leaf(&input, 1, hash);
	ASSERT_BYTES(got, hash, sizeof(hash));
}

TEST(publish_input_known_answer)
{
	struct publish p = { .first = 0x39, /* RETAIN, and DUP that is left out */
			     .topic = bytes_str("a"),
			     .client_id = bytes_str("b") };

	expect_input(&p, LABEL_HEX "31"
				   "0001"
				   "61"
				   "00000000"
				   "00000000"
				   "0001"
				   "62");
	p.first = 0x34;
	p.properties = bytes_str("pq");
	p.body[0] = bytes_str("xyz");
	p.body_parts = 1;
	expect_input(&p, LABEL_HEX "34"
				   "0001"
				   "61"
				   "00000002"
				   "7071"
				   "00000003"
				   "78797a"
				   "0001"
				   "62");
}

TEST(publish_body_in_parts_is_one)
{
	struct publish whole = { .first = 0x30,
				 .topic = bytes_str("t"),
				 .properties = bytes_str("p"),
				 .body = { bytes_str("abcdef") },
				 .body_parts = 1,
				 .client_id = bytes_str("c") };
	struct publish parts = whole;
	uint8_t a[HASH_BYTES], b[HASH_BYTES];

	parts.body[0] = bytes_str("a");
	parts.body[1] = bytes_of(NULL, 0);
	parts.body[2] = bytes_str("bcd");
	parts.body[3] = bytes_str("ef");
	parts.body_parts = 4;
	publish_digest(&whole, a);
	publish_digest(&parts, b);
	ASSERT_BYTES(a, b, sizeof(a));
	publish_leaf(&whole, a);
	publish_leaf(&parts, b);
	ASSERT_BYTES(a, b, sizeof(a));
}

TEST(publish_split_structure)
{
	uint8_t payload[PUBLISH_TRAILER_BYTES_MAX + 3] = { 0 };
	struct publish_trailer t;

	EXPECT_EQ(publish_split(bytes_of(NULL, 0), &t), -EBADMSG);
	for (unsigned kind = 0; kind < 256; kind++) {
		payload[64] = (uint8_t)kind;
		EXPECT_EQ(publish_split(bytes_of(payload, 65), &t), kind == 1 ? 0 : -EBADMSG);
	}
	/* kind 2: every index and size at the edges, with exactly the path, a byte less and more */
	for (unsigned size = 0; size < 70; size++) {
		for (unsigned index = 0; index < 72; index++) {
			size_t n = index < size ? PUBLISH_TRAILER_2_BYTES(merkle_path_len(
							  (uint16_t)index, (uint16_t)size))
						: sizeof(payload);

			bytes_store_u16(payload + n - 5, (uint16_t)index);
			bytes_store_u16(payload + n - 3, (uint16_t)size);
			payload[n - 1] = 2;
			EXPECT_EQ(publish_split(bytes_of(payload, n), &t),
				  index < size ? 0 : -EBADMSG);
			EXPECT_EQ(publish_split(bytes_of(payload + 1, n - 1), &t), -EBADMSG);
			memset(payload, 0, sizeof(payload));
		}
	}
	/* The longest path there can be. */
	bytes_store_u16(payload + sizeof(payload) - 5, 0);
	bytes_store_u16(payload + sizeof(payload) - 3, MERKLE_LEAVES_MAX);
	payload[sizeof(payload) - 1] = 2;
	ASSERT_EQ(publish_split(bytes_of(payload, sizeof(payload)), &t), 0);
	ASSERT_EQ(t.body.n, 3);
	ASSERT_EQ(t.path.n, HASH_BYTES * MERKLE_PATH_MAX);
}

TEST(publish_batches_of_all_sizes)
{
	struct secret32 k = random_scalar(), a = random_scalar();
	struct p256_private *signer = private_of(&k);
	struct p256_public *key = public_of(&k);
	struct p256_point scope = point_of(&a);
	struct envelope_sender s;
	uint8_t sealed[SEALED_BYTES], out[SIGNED_MAX];
	struct publish p = { .first = 0x30,
			     .topic = bytes_str("t"),
			     .body = { bytes_of(sealed, sizeof(sealed)) },
			     .body_parts = 1,
			     .client_id = bytes_str("c") };

	ASSERT_EQ(envelope_sender_init(&s, HPKE_SUITE_CHACHA20_POLY1305, 1, &scope), 0);
	ASSERT_EQ(envelope_seal(&s, 1, 0, p.client_id, p.topic, bytes_str(PLAIN), sealed), 0);
	for (uint16_t size = 1; size <= 17; size++) {
		for (uint16_t index = 0; index < size; index++) {
			struct bytes_writer w = bytes_writer_of(out, sizeof(out));

			bytes_write(&w, p.body[0]);
			sign_in_batch(&p, signer, index, size, &w);
			ASSERT_FALSE(w.bad);
			EXPECT_EQ(receive(&p, bytes_of(out, w.used), key), 0);
			/* Another index or size is another leaf's place. */
			bytes_store_u16(out + w.used - 5, index ? 0 : 1);
			EXPECT_EQ(receive(&p, bytes_of(out, w.used), key), -EBADMSG);
		}
	}
	envelope_sender_deinit(&s);
	p256_private_free(signer);
	p256_public_free(key);
}

/* --- origin proof ---------------------------------------------------------------------------- */

/* The sender's PUBLISH of the fixture, converted: proof and all. Returns its bytes. */
static size_t raise_with_proof(const struct publish *p, const struct envelope *e,
			       const struct publish_trailer *t, uint8_t out[RAISED_MAX])
{
	uint8_t proof[RAISED_MAX];
	struct bytes_writer w = bytes_writer_of(proof, sizeof(proof));
	struct secret32 rk = random_scalar();

	publish_write_proof(p->first, p->properties, t->trailer, &w);
	ASSERT_FALSE(w.bad);
	ASSERT_EQ(w.used, publish_proof_bytes(p->properties, t->trailer));
	return raise_by(&rk, e, p->client_id, bytes_of(proof, w.used), out);
}

static int check_proof(struct bytes raised, struct bytes topic, const struct p256_public *key)
{
	struct bytes properties;
	struct envelope e;
	uint8_t first;
	int err = envelope_parse(raised, &e);

	return err ? err : publish_check_proof(&e, topic, key, &first, &properties);
}

TEST_F(signed, proof_holds_at_every_level)
{
	uint8_t from[RAISED_MAX], to[RAISED_MAX], first = 0;
	struct bytes properties = { 0 };
	struct envelope e;
	struct secret32 rk = random_scalar();
	size_t n;

	self->p.first |= 0x08; /* DUP of a redelivery is left out of the proof */
	ASSERT_EQ(envelope_parse(self->p.body[0], &e), 0);
	n = raise_with_proof(&self->p, &e, &self->t, to);
	for (unsigned level = 1; level <= 3; level++) {
		memcpy(from, to, n);
		ASSERT_EQ(envelope_parse(bytes_of(from, n), &e), 0);
		ASSERT_EQ(e.level, level);
		ASSERT_EQ(publish_check_proof(&e, self->p.topic, self->key, &first, &properties),
			  0);
		ASSERT_EQ(first, 0x32);
		ASSERT_EQ(properties.n, PROPERTIES_BYTES);
		ASSERT_BYTES(properties.p, self->properties, PROPERTIES_BYTES);
		EXPECT_EQ(publish_check_proof(&e, self->p.topic, self->other_key, &first,
					      &properties),
			  -EBADMSG);
		EXPECT_EQ(publish_check_proof(&e, bytes_str("plant/8/temperature"), self->key,
					      &first, &properties),
			  -EBADMSG);
		n = raise_by(&rk, &e, e.origin, e.proof, to);
	}
}

/* All but level, grant id and x, which conversion makes anew, is proven. */
TEST_F_TIMEOUT(signed, proof_refuses_every_bit_flip, 60)
{
	uint8_t raised[RAISED_MAX];
	struct envelope e;
	size_t n, proof_end;

	ASSERT_EQ(envelope_parse(self->p.body[0], &e), 0);
	n = raise_with_proof(&self->p, &e, &self->t, raised);
	proof_end = n - e.ct.n;
	for (size_t bit = 0; bit < 8 * n; bit++) {
		bool position = bit / 8 >= proof_end - 5 && bit / 8 < proof_end;
		int err;

		if (bit / 8 >= LEVEL_OFFSET && bit / 8 < LEVEL_OFFSET + 1 + 8 + 32)
			continue;
		raised[bit / 8] ^= (uint8_t)(1 << bit % 8);
		err = check_proof(bytes_of(raised, n), self->p.topic, self->key);
		if (position && same_path(bytes_of(raised, proof_end), variant))
			EXPECT_EQ(err, 0);
		else
			EXPECT_EQ(err, -EBADMSG);
		raised[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	ASSERT_EQ(check_proof(bytes_of(raised, n), self->p.topic, self->key), 0);
}

TEST_F(signed, proof_of_a_wrong_form_refused)
{
	uint8_t raised[RAISED_MAX], proof[RAISED_MAX], first;
	struct secret32 rk = random_scalar();
	struct bytes properties;
	struct envelope e, whole;
	size_t n, proof_n;

	ASSERT_EQ(envelope_parse(self->p.body[0], &e), 0);
	EXPECT_EQ(publish_check_proof(&e, self->p.topic, self->key, &first, &properties), -ENOENT);
	n = raise_by(&rk, &e, self->p.client_id, bytes_of(NULL, 0), raised);
	EXPECT_EQ(check_proof(bytes_of(raised, n), self->p.topic, self->key), -ENOENT);

	n = raise_with_proof(&self->p, &e, &self->t, raised);
	ASSERT_EQ(envelope_parse(bytes_of(raised, n), &whole), 0);
	proof_n = whole.proof.n;
	memcpy(proof, whole.proof.p, proof_n);
	for (size_t cut = 1; cut < proof_n; cut++) {
		n = raise_by(&rk, &e, self->p.client_id, bytes_of(proof, cut), raised);
		EXPECT_EQ(check_proof(bytes_of(raised, n), self->p.topic, self->key), -EBADMSG);
	}
	/* A byte between properties and trailer. */
	memmove(proof + 3 + PROPERTIES_BYTES + 1, proof + 3 + PROPERTIES_BYTES,
		proof_n - 3 - PROPERTIES_BYTES);
	n = raise_by(&rk, &e, self->p.client_id, bytes_of(proof, proof_n + 1), raised);
	EXPECT_EQ(check_proof(bytes_of(raised, n), self->p.topic, self->key), -EBADMSG);
}

/* Signed, but as no PUBLISH that there can be. */
TEST_F(signed, proof_of_no_publish_refused)
{
	static const uint8_t firsts[] = { 0x36, 0x37, 0x22, 0x02 };
	uint8_t raised[RAISED_MAX], trailer[PUBLISH_TRAILER_1_BYTES];
	struct publish_trailer t = { .trailer = bytes_of(trailer, sizeof(trailer)) };
	struct envelope e;

	ASSERT_EQ(envelope_parse(self->p.body[0], &e), 0);
	for (size_t i = 0; i < ARRAY_SIZE(firsts); i++) {
		size_t n;

		self->p.first = firsts[i];
		ASSERT_EQ(publish_sign(&self->p, self->signer, trailer), 0);
		n = raise_with_proof(&self->p, &e, &t, raised);
		EXPECT_EQ(check_proof(bytes_of(raised, n), self->p.topic, self->key), -EBADMSG);
	}
}

/* --- merkle ---------------------------------------------------------------------------------- */

#define TREE_MAX 130

/* RFC 9162 2.1.1 and 2.1.3.1, word for word, from the top. */
static void reference_root(uint8_t (*leaves)[HASH_BYTES], size_t n, uint8_t out[HASH_BYTES])
{
	uint8_t left[HASH_BYTES], right[HASH_BYTES];
	struct bytes parts[] = { bytes_str("\x01"), bytes_of(left, 32), bytes_of(right, 32) };
	size_t k = 1;

	if (n == 1) {
		memcpy(out, leaves[0], HASH_BYTES);
		return;
	}
	while (2 * k < n)
		k *= 2;
	reference_root(leaves, k, left);
	reference_root(leaves + k, n - k, right);
	hash_parts(parts, ARRAY_SIZE(parts), out);
}

static size_t reference_path(uint8_t (*leaves)[HASH_BYTES], size_t index, size_t n,
			     uint8_t (*path)[HASH_BYTES])
{
	size_t k = 1, len;

	if (n == 1)
		return 0;
	while (2 * k < n)
		k *= 2;
	if (index < k) {
		len = reference_path(leaves, index, k, path);
		reference_root(leaves + k, n - k, path[len]);
	} else {
		len = reference_path(leaves + k, index - k, n - k, path);
		reference_root(leaves, k, path[len]);
	}
	return len + 1;
}

static void expect_tree(uint16_t size)
{
	static uint8_t nodes[2 * TREE_MAX + 16][HASH_BYTES], leaves[TREE_MAX][HASH_BYTES];
	uint8_t root[HASH_BYTES], path[MERKLE_PATH_MAX][HASH_BYTES], wanted[16][HASH_BYTES];
	struct merkle m;

	ASSERT_LE(merkle_nodes(size), ARRAY_SIZE(nodes));
	for (size_t i = 0; i < size; i++)
		fill_random(leaves[i], HASH_BYTES);
	memcpy(nodes, leaves, sizeof(leaves[0]) * size);
	merkle_build(&m, nodes, size);
	reference_root(leaves, size, root);
	ASSERT_BYTES(merkle_root(&m), root, HASH_BYTES);
	for (uint16_t i = 0; i < size; i++) {
		size_t len = reference_path(leaves, i, size, wanted);
		struct bytes view = bytes_of(path, HASH_BYTES * len);
		uint8_t got[HASH_BYTES];

		ASSERT_EQ(merkle_path_len(i, size), len);
		merkle_path(&m, i, path);
		ASSERT_BYTES(path, wanted, view.n);
		merkle_root_from_path(leaves[i], i, size, view, got);
		ASSERT_BYTES(got, root, HASH_BYTES);
		/* Any bent step, or another leaf, gives another root. */
		for (size_t step = 0; step < len; step++) {
			path[step][i % HASH_BYTES] ^= 1;
			merkle_root_from_path(leaves[i], i, size, view, got);
			EXPECT_NE(memcmp(got, root, HASH_BYTES), 0);
			path[step][i % HASH_BYTES] ^= 1;
		}
		leaves[i][0] ^= 1;
		merkle_root_from_path(leaves[i], i, size, view, got);
		leaves[i][0] ^= 1;
		EXPECT_NE(memcmp(got, root, HASH_BYTES), 0);
	}
}

TEST_TIMEOUT(merkle_all_sizes_against_the_rfc, 60)
{
	for (uint16_t size = 1; size <= TREE_MAX; size++)
		expect_tree(size);
}

TEST(merkle_largest_tree)
{
	uint8_t(*nodes)[HASH_BYTES] = calloc(merkle_nodes(MERKLE_LEAVES_MAX), HASH_BYTES);
	uint8_t path[MERKLE_PATH_MAX][HASH_BYTES], got[HASH_BYTES];
	static const uint16_t picked[] = { 0, 1, 32767, 32768, 65533, 65534 };
	struct merkle m;

	ASSERT_TRUE(nodes);
	for (size_t i = 0; i < MERKLE_LEAVES_MAX; i++)
		bytes_store_u32(nodes[i], (uint32_t)i);
	merkle_build(&m, nodes, MERKLE_LEAVES_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(picked); i++) {
		size_t len = merkle_path_len(picked[i], MERKLE_LEAVES_MAX);

		ASSERT_LE(len, MERKLE_PATH_MAX);
		merkle_path(&m, picked[i], path);
		merkle_root_from_path(nodes[picked[i]], picked[i], MERKLE_LEAVES_MAX,
				      bytes_of(path, HASH_BYTES * len), got);
		ASSERT_BYTES(got, merkle_root(&m), HASH_BYTES);
	}
	free(nodes);
}

/* What a compiler sizes memory by is enough for every tree, and for the longest path exactly. */
TEST(merkle_bounds)
{
	for (uint32_t size = 1; size <= MERKLE_LEAVES_MAX; size++) {
		ASSERT_LE(merkle_nodes((uint16_t)size), MERKLE_NODES_MAX(size));
		/* The first leaf has a sibling on every level. */
		ASSERT_EQ(merkle_path_len(0, (uint16_t)size), MERKLE_STEPS_MAX(size));
	}
	EXPECT_EQ(MERKLE_STEPS_MAX(MERKLE_LEAVES_MAX), MERKLE_PATH_MAX);
}

TEST(merkle_leaf_in_parts)
{
	struct bytes whole = bytes_str("abcdefghijklmno"), parts[MERKLE_LEAF_PARTS_MAX];
	struct bytes zero_and_whole[] = { bytes_of("", 1), whole };
	uint8_t a[HASH_BYTES], b[HASH_BYTES];

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		parts[i] = bytes_of(whole.p + i, 1);
	merkle_leaf(&whole, 1, a);
	merkle_leaf(parts, ARRAY_SIZE(parts), b);
	ASSERT_BYTES(a, b, sizeof(a));
	hash_parts(zero_and_whole, 2, b);
	ASSERT_BYTES(a, b, sizeof(a));
}

/* --- admission ------------------------------------------------------------------------------- */

/* From the appendix of the SipHash paper's reference code: key 00..0f, message 00, 01, .... */
TEST(admission_siphash_official_vectors)
{
	static const struct {
		unsigned n;
		const char *hex;
	} cases[] = { { 0, "310e0edd47db6f72" },
		      { 8, "6224939a79f5f593" },
		      { 16, "db9bc2577fcc2a3f" } };
	__u64 m[8], wanted;

	for (uint8_t i = 0; i < sizeof(m); i++)
		((uint8_t *)m)[i] = i;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		unhex(cases[i].hex, (uint8_t *)&wanted, sizeof(wanted));
		EXPECT_EQ(admission_siphash(m, m, cases[i].n / 8), ADMISSION_LE64(wanted));
	}
}

/* OpenSSL's SipHash, for the lengths of which the paper has no vector at hand. */
TEST(admission_siphash_is_openssls)
{
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "SIPHASH", NULL);
	EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(mac);
	size_t size = 8;
	OSSL_PARAM params[] = { OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &size),
				OSSL_PARAM_construct_end() };
	__u64 key[2], m[ADMISSION_MESSAGE_BYTES / 8], wanted;

	ASSERT_TRUE(mac && ctx);
	for (unsigned n = 0; n <= sizeof(m); n += 8) {
		fill_random((uint8_t *)key, sizeof(key));
		fill_random((uint8_t *)m, sizeof(m));
		ASSERT_TRUE(EVP_MAC_init(ctx, (uint8_t *)key, sizeof(key), params) &&
			    EVP_MAC_update(ctx, (uint8_t *)m, n) &&
			    EVP_MAC_final(ctx, (uint8_t *)&wanted, &size, 8));
		EXPECT_EQ(admission_siphash(key, m, n / 8), ADMISSION_LE64(wanted));
	}
	EVP_MAC_CTX_free(ctx);
	EVP_MAC_free(mac);
}

FIXTURE(admission)
{
	uint8_t key[ADMISSION_KEY_BYTES];
	struct bytes id, user;
	uint8_t token[ADMISSION_TOKEN_BYTES];
	struct bytes view;
};

#define SLOT 1000000u

FIXTURE_SETUP(admission)
{
	fill_random(self->key, sizeof(self->key));
	self->id = bytes_str("sensor-17");
	self->user = bytes_str("Ke9rKHNZbgw6vP62-ISy3C-M86pa2U4_vYCpQPFcHMc");
	ASSERT_EQ(admission_token(self->key, self->id, self->user, SLOT, self->token), 0);
	self->view = bytes_of(self->token, sizeof(self->token));
}

FIXTURE_TEARDOWN(admission)
{
	secret_wipe(self->key, sizeof(self->key));
}

static int admit(const struct fixture_admission *f, uint32_t now)
{
	return admission_check(f->key, f->id, f->user, f->view, now, false);
}

TEST_F(admission, form)
{
	ASSERT_EQ(self->token[0], 1);
	ASSERT_EQ(bytes_load_u32(self->token + 1), SLOT);
	ASSERT_EQ(admission_slot(0), 0);
	ASSERT_EQ(admission_slot(29999), 0);
	ASSERT_EQ(admission_slot(30000), 1);
	ASSERT_EQ(admission_slot(1700000000000u), 56666666);
}

TEST_F(admission, window)
{
	EXPECT_EQ(admit(self, SLOT - 2), -ESTALE);
	EXPECT_EQ(admit(self, SLOT - 1), 0);
	EXPECT_EQ(admit(self, SLOT), 0);
	EXPECT_EQ(admit(self, SLOT + 1), 0);
	EXPECT_EQ(admit(self, SLOT + 2), -ESTALE);
	EXPECT_EQ(admit(self, 0), -ESTALE);
	EXPECT_EQ(admit(self, UINT32_MAX), -ESTALE);
	/* Where time is counted from and to, the window does not wrap. */
	ASSERT_EQ(admission_token(self->key, self->id, self->user, UINT32_MAX, self->token), 0);
	EXPECT_EQ(admit(self, UINT32_MAX), 0);
	EXPECT_EQ(admit(self, 0), -ESTALE);
	ASSERT_EQ(admission_token(self->key, self->id, self->user, 1, self->token), 0);
	EXPECT_EQ(admit(self, 0), 0);
	EXPECT_EQ(admit(self, 1), 0);
}

TEST_F(admission, slot_0_by_policy_alone)
{
	ASSERT_EQ(admission_token(self->key, self->id, self->user, 0, self->token), 0);
	for (uint32_t now = 0; now < 3; now++) {
		EXPECT_EQ(admit(self, now), -ESTALE);
		EXPECT_EQ(admission_check(self->key, self->id, self->user, self->view, now, true),
			  0);
	}
	EXPECT_EQ(admission_check(self->key, self->id, self->user, self->view, SLOT, true), 0);
	/* The policy opens slot 0 and no other. */
	ASSERT_EQ(admission_token(self->key, self->id, self->user, SLOT, self->token), 0);
	EXPECT_EQ(admission_check(self->key, self->id, self->user, self->view, SLOT + 2, true),
		  -ESTALE);
	EXPECT_EQ(admission_check(self->key, self->id, self->user, self->view, SLOT, true), 0);
}

TEST_F(admission, refuses_every_bit_flip_and_length)
{
	uint8_t longer[ADMISSION_TOKEN_BYTES + 1] = { 0 };

	for (size_t bit = 0; bit < 8 * sizeof(self->token); bit++) {
		self->token[bit / 8] ^= (uint8_t)(1 << bit % 8);
		EXPECT_EQ(admission_check(self->key, self->id, self->user, self->view, SLOT, true),
			  -EBADMSG);
		self->token[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	memcpy(longer, self->token, sizeof(self->token));
	for (size_t n = 0; n <= sizeof(longer); n++) {
		self->view = bytes_of(longer, n);
		EXPECT_EQ(admit(self, SLOT), n == ADMISSION_TOKEN_BYTES ? 0 : -EBADMSG);
	}
}

TEST_F(admission, bound_to_key_id_and_user)
{
	struct fixture_admission other = *self;
	uint8_t long_text[65];

	other.key[0] ^= 1;
	EXPECT_EQ(admit(&other, SLOT), -EBADMSG);
	other = *self;
	other.id = bytes_str("sensor-18");
	EXPECT_EQ(admit(&other, SLOT), -EBADMSG);
	other = *self;
	other.user = bytes_of(NULL, 0);
	EXPECT_EQ(admit(&other, SLOT), -EBADMSG);

	memset(long_text, 'a', sizeof(long_text));
	EXPECT_EQ(admission_token(self->key, bytes_of(long_text, 64), bytes_of(long_text, 48), 1,
				  self->token),
		  0);
	EXPECT_EQ(admission_token(self->key, bytes_of(long_text, 65), self->user, 1, self->token),
		  -EINVAL);
	EXPECT_EQ(admission_token(self->key, self->id, bytes_of(long_text, 49), 1, self->token),
		  -EINVAL);
	other = *self;
	other.id = bytes_of(long_text, 65);
	EXPECT_EQ(admit(&other, SLOT), -EBADMSG);
}

HARNESS_MAIN
