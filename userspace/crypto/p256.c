// SPDX-License-Identifier: MIT
#include "userspace/crypto/p256.h"

#include <errno.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/obj_mac.h>
#include <pthread.h>
#include <string.h>

#include "userspace/crypto/context.h"
#include "userspace/crypto/hash.h"

#define FORM_UNCOMPRESSED 0x04
#define WIDE_BYTES	  48

/* n, the group's order (SP 800-186 3.2.1.3) */
static const uint8_t order[P256_SCALAR_BYTES] = {
	0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff,
	0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17,
	0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
};

/* The curve, made once and only read from then on. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static EC_GROUP *group;
static BIGNUM *order_minus_2;
/* The field p, y^2 = x^3 + ax + b, and (p + 1) / 4, the power that is a square root: p is 3 mod 4.
 */
static BIGNUM *field, *coefficient_a, *coefficient_b, *root_power;
static BN_MONT_CTX *field_mont;

static bool field_init(void)
{
	field = BN_new();
	coefficient_a = BN_new();
	coefficient_b = BN_new();
	root_power = BN_new();
	field_mont = BN_MONT_CTX_new();
	return field && coefficient_a && coefficient_b && root_power && field_mont &&
	       EC_GROUP_get_curve(group, field, coefficient_a, coefficient_b, NULL) == 1 &&
	       BN_copy(root_power, field) && BN_add_word(root_power, 1) == 1 &&
	       BN_rshift(root_power, root_power, 2) == 1;
}

static void curve_init(void)
{
	BN_CTX *ctx = BN_CTX_new();

	group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
	order_minus_2 = BN_bin2bn(order, sizeof(order), NULL);
	/* Nothing of the program can run without the curve, and the first caller is its start. */
	BUG_ON(!ctx || !group || !order_minus_2 || BN_sub_word(order_minus_2, 2) != 1);
	BUG_ON(!field_init() || BN_MONT_CTX_set(field_mont, field, ctx) != 1);
	BN_CTX_free(ctx);
}

/* --- points and scalars ---------------------------------------------------------------------- */

/* The big numbers and points of one calculation; all of it is wiped when the scope ends. */
struct work {
	BN_CTX *ctx;
	BIGNUM *a, *b;
	EC_POINT *p, *q;
};

static void work_deinit(struct work *w)
{
	EC_POINT_clear_free(w->q);
	EC_POINT_clear_free(w->p);
	BN_clear_free(w->b);
	BN_clear_free(w->a);
	BN_CTX_free(w->ctx);
}
#define WORK cleanup(work_deinit)

static int work_init(struct work *w)
{
	(void)pthread_once(&once, curve_init); /* fails only for a wrong argument */
	w->ctx = BN_CTX_new();
	w->a = BN_new();
	w->b = BN_new();
	w->p = EC_POINT_new(group);
	w->q = EC_POINT_new(group);
	if (!w->ctx || !w->a || !w->b || !w->p || !w->q)
		return context_error(-ENOMEM);
	return 0;
}

/* 1..n-1, in time that does not depend on the value. */
static bool scalar_in_range(const uint8_t k[P256_SCALAR_BYTES])
{
	unsigned any = 0, below = 0;

	for (size_t i = P256_SCALAR_BYTES; i-- > 0;) {
		any |= k[i];
		below = (unsigned)(k[i] - order[i] - below) >> 8 & 1;
	}
	return (any + 0xff) >> 8 & below;
}

static int scalar_load(BIGNUM *to, const struct secret32 *k)
{
	if (!scalar_in_range(k->b))
		return -EINVAL;
	if (!BN_bin2bn(k->b, sizeof(k->b), to))
		return context_error(-EIO);
	BN_set_flags(to, BN_FLG_CONSTTIME);
	return 0;
}

static int scalar_store(const BIGNUM *from, struct secret32 *ret_k)
{
	struct secret32 k SECRET = { 0 };

	if (BN_bn2binpad(from, k.b, sizeof(k.b)) != (int)sizeof(k.b))
		return context_error(-EIO);
	*ret_k = k;
	return 0;
}

/* Checks length, form, range of the coordinates, and that the point is on the curve. */
static int point_load(struct work *w, EC_POINT *to, struct bytes v)
{
	if (v.n != P256_POINT_BYTES || v.p[0] != FORM_UNCOMPRESSED)
		return -EINVAL;
	if (EC_POINT_oct2point(group, to, v.p, v.n, w->ctx) != 1)
		return context_error(-EINVAL);
	return 0;
}

static int point_store(struct work *w, const EC_POINT *from, struct p256_point *ret_point)
{
	struct p256_point p;
	size_t n = EC_POINT_point2oct(group, from, POINT_CONVERSION_UNCOMPRESSED, p.b, sizeof(p.b),
				      w->ctx);

	if (n == sizeof(p.b))
		*ret_point = p;
	secret_wipe(&p, sizeof(p)); /* it may be a shared secret */
	return n == sizeof(p.b) ? 0 : context_error(-EIO);
}

int p256_point_check(struct bytes uncompressed)
{
	struct work w WORK = { 0 };
	int err = work_init(&w);

	return err ? err : point_load(&w, w.p, uncompressed);
}

/*
 * One y of an x below p: a power is a square root where there is any, which squaring it tells. Half
 * of what OpenSSL takes, which does not know beforehand that p is a prime of this form, and whose
 * points would have to be brought back to x and y. -EINVAL: no point has this x.
 */
static int lift_x(const BIGNUM *x, BIGNUM *y, BN_CTX *ctx)
{
	BIGNUM *square = BN_CTX_get(ctx), *check = BN_CTX_get(ctx);

	/* (x^2 + a) x + b */
	if (!check || BN_mod_sqr(square, x, field, ctx) != 1 ||
	    BN_mod_add_quick(square, square, coefficient_a, field) != 1 ||
	    BN_mod_mul(square, square, x, field, ctx) != 1 ||
	    BN_mod_add_quick(square, square, coefficient_b, field) != 1)
		return context_error(-EIO);
	if (BN_mod_exp_mont(y, square, root_power, field, ctx, field_mont) != 1 ||
	    BN_mod_sqr(check, y, field, ctx) != 1)
		return context_error(-EIO);
	return BN_cmp(check, square) == 0 ? 0 : -EINVAL;
}

/* ctx is started: what is taken from it goes back at its end. */
static int decompress(const uint8_t compressed[P256_COMPRESSED_BYTES], BN_CTX *ctx,
		      struct p256_point *ret_point)
{
	BIGNUM *x = BN_CTX_get(ctx), *y = BN_CTX_get(ctx);
	struct p256_point p = { .b = { FORM_UNCOMPRESSED } };
	int err;

	if (!y || !BN_bin2bn(compressed + 1, P256_X_BYTES, x))
		return context_error(-EIO);
	if (BN_cmp(x, field) >= 0)
		return -EINVAL;
	err = lift_x(x, y, ctx);
	if (err)
		return err;
	/* y is never 0: no point has order 2, the order being a prime. */
	if (BN_is_odd(y) != (compressed[0] & 1) && BN_sub(y, field, y) != 1)
		return context_error(-EIO);
	memcpy(p.b + 1, compressed + 1, P256_X_BYTES);
	if (BN_bn2binpad(y, p.b + 1 + P256_X_BYTES, P256_X_BYTES) != P256_X_BYTES)
		return context_error(-EIO);
	*ret_point = p;
	return 0;
}

int p256_point_decompress(struct bytes compressed, struct p256_point *ret_point)
{
	BN_CTX *ctx;
	int err;

	if (compressed.n != P256_COMPRESSED_BYTES || (compressed.p[0] & ~1) != 0x02)
		return -EINVAL;
	(void)pthread_once(&once, curve_init); /* fails only for a wrong argument */
	ctx = BN_CTX_new();
	if (!ctx)
		return context_error(-ENOMEM);
	BN_CTX_start(ctx);
	err = decompress(compressed.p, ctx, ret_point);
	BN_CTX_end(ctx);
	BN_CTX_free(ctx);
	return err;
}

void p256_point_compress(const struct p256_point *p, uint8_t out[P256_COMPRESSED_BYTES])
{
	out[0] = 0x02 | (p->b[P256_POINT_BYTES - 1] & 1);
	memmove(out + 1, p->b + 1, P256_X_BYTES);
}

int p256_point_lift(const uint8_t x[P256_X_BYTES], struct p256_point *ret_point)
{
	uint8_t compressed[P256_COMPRESSED_BYTES] = { 0x02 };

	memcpy(compressed + 1, x, P256_X_BYTES);
	return p256_point_decompress(bytes_of(compressed, sizeof(compressed)), ret_point);
}

int p256_scalar_random(struct secret32 *ret_scalar)
{
	struct secret32 k SECRET = { 0 };

	do {
		hash_random(k.b, sizeof(k.b)); /* once more in one of 2^32 cases */
	} while (!scalar_in_range(k.b));
	*ret_scalar = k;
	return 0;
}

int p256_scalar_check(const struct secret32 *k)
{
	return scalar_in_range(k->b) ? 0 : -EINVAL;
}

int p256_scalar_mul(const struct secret32 *a, const struct secret32 *b,
		    struct secret32 *ret_product)
{
	struct work w WORK = { 0 };
	BN_MONT_CTX *mont;
	int err = work_init(&w);

	if (err)
		return err;
	err = scalar_load(w.a, a);
	if (!err)
		err = scalar_load(w.b, b);
	if (err)
		return err;
	/* a * R, then a * R * b / R: Montgomery's products take the same time for all values. */
	mont = EC_GROUP_get_mont_data(group);
	if (BN_to_montgomery(w.a, w.a, mont, w.ctx) != 1 ||
	    BN_mod_mul_montgomery(w.a, w.a, w.b, mont, w.ctx) != 1)
		return context_error(-EIO);
	return scalar_store(w.a, ret_product);
}

int p256_scalar_sub(const struct secret32 *a, const struct secret32 *b,
		    struct secret32 *ret_difference)
{
	struct secret32 d SECRET = { 0 };
	unsigned borrow = 0, carry = 0, any = 0;

	if (!scalar_in_range(a->b) || !scalar_in_range(b->b))
		return -EINVAL;
	for (size_t i = P256_SCALAR_BYTES; i-- > 0;) {
		unsigned v = (unsigned)a->b[i] - b->b[i] - borrow;

		d.b[i] = (uint8_t)v;
		borrow = v >> 8 & 1;
	}
	/* n on top where it went below 0, by a mask and no branch. */
	for (size_t i = P256_SCALAR_BYTES; i-- > 0;) {
		unsigned v = d.b[i] + (order[i] & (0u - borrow)) + carry;

		d.b[i] = (uint8_t)v;
		carry = v >> 8;
		any |= d.b[i];
	}
	if (!any)
		return -EINVAL;
	*ret_difference = d;
	return 0;
}

int p256_scalar_invert(const struct secret32 *a, struct secret32 *ret_inverse)
{
	struct work w WORK = { 0 };
	int err = work_init(&w);

	if (err)
		return err;
	err = scalar_load(w.a, a);
	if (err)
		return err;
	/* Fermat: a^(n-2). */
	if (BN_mod_exp_mont_consttime(w.b, w.a, order_minus_2, EC_GROUP_get0_order(group), w.ctx,
				      EC_GROUP_get_mont_data(group)) != 1)
		return context_error(-EIO);
	return scalar_store(w.b, ret_inverse);
}

#define LIMBS 8 /* of 32 bits, the lowest first */

/* r = 2r + bit mod m, for r < m, without a branch on r or bit. */
static void double_and_add(uint32_t r[LIMBS], uint32_t bit, const uint32_t m[LIMBS])
{
	uint32_t less[LIMBS], carry = bit, borrow = 0, mask;

	for (int i = 0; i < LIMBS; i++) {
		uint32_t doubled = r[i] << 1 | carry;
		uint64_t difference = (uint64_t)doubled - m[i] - borrow;

		carry = r[i] >> 31;
		borrow = (uint32_t)(difference >> 63);
		r[i] = doubled;
		less[i] = (uint32_t)difference;
	}
	/* The difference is the result where it is not negative, the 257th bit counted. */
	mask = 0 - (carry | (borrow ^ 1));
	for (int i = 0; i < LIMBS; i++)
		r[i] = (less[i] & mask) | (r[i] & ~mask);
}

/* Bit by bit and not by BN_mod, whose divisions take time that depends on what they divide. */
int p256_scalar_from_wide(struct bytes wide, struct secret32 *ret_scalar)
{
	uint32_t r[LIMBS] = { 0 }, m[LIMBS];

	if (wide.n != WIDE_BYTES)
		return -EINVAL;
	for (int i = 0; i < LIMBS; i++)
		m[i] = bytes_load_u32(order + P256_SCALAR_BYTES - 4 * (i + 1));
	m[0]--; /* n - 1; n is odd */
	for (size_t i = 0; i < 8 * WIDE_BYTES; i++)
		double_and_add(r, wide.p[i / 8] >> (7 - i % 8) & 1, m);

	/* r is at most n - 2: adding 1 ends below n. */
	for (uint64_t i = 0, carry = 1; i < LIMBS; i++) {
		carry += r[i];
		bytes_store_u32(ret_scalar->b + P256_SCALAR_BYTES - 4 * (i + 1), (uint32_t)carry);
		carry >>= 32;
	}
	secret_wipe(r, sizeof(r));
	return 0;
}

/* k * P, or k * G where p is NULL. */
static int multiply(const struct secret32 *k, const struct p256_point *p,
		    struct p256_point *ret_point)
{
	struct work w WORK = { 0 };
	int err = work_init(&w);

	if (err)
		return err;
	err = scalar_load(w.a, k);
	if (!err && p)
		err = point_load(&w, w.p, bytes_of(p->b, sizeof(p->b)));
	if (err)
		return err;
	if (EC_POINT_mul(group, w.q, p ? NULL : w.a, p ? w.p : NULL, p ? w.a : NULL, w.ctx) != 1)
		return context_error(-EIO);
	/* Never infinity: the order is prime, and k is in 1..n-1. */
	return point_store(&w, w.q, ret_point);
}

int p256_mul_base(const struct secret32 *k, struct p256_point *ret_point)
{
	return multiply(k, NULL, ret_point);
}

int p256_mul(const struct secret32 *k, const struct p256_point *p, struct p256_point *ret_point)
{
	return multiply(k, p, ret_point);
}

int p256_mul_sum(const struct secret32 *a, const struct secret32 *b, const struct p256_point *p,
		 struct p256_point *ret_point)
{
	struct work w WORK = { 0 };
	int err = work_init(&w);

	if (err)
		return err;
	err = scalar_load(w.a, a);
	if (!err)
		err = scalar_load(w.b, b);
	if (!err)
		err = point_load(&w, w.p, bytes_of(p->b, sizeof(p->b)));
	if (err)
		return err;
	if (EC_POINT_mul(group, w.q, w.a, w.p, w.b, w.ctx) != 1)
		return context_error(-EIO);
	if (EC_POINT_is_at_infinity(group, w.q))
		return -EINVAL;
	return point_store(&w, w.q, ret_point);
}

int p256_dh(const struct secret32 *k, const struct p256_point *p, struct secret32 *ret_x)
{
	struct p256_point shared;
	int err = multiply(k, p, &shared);

	if (!err)
		memcpy(ret_x->b, shared.b + 1, P256_X_BYTES);
	secret_wipe(&shared, sizeof(shared));
	return err;
}

/* --- PKCS#8 ---------------------------------------------------------------------------------- */

/*
 * PrivateKeyInfo { 0, { id-ecPublicKey, prime256v1 }, ECPrivateKey { 1, key } }: with all lengths
 * fixed, what is before the key is a constant.
 */
void p256_pkcs8(const struct secret32 *scalar, uint8_t out[P256_PKCS8_BYTES])
{
	static const uint8_t head[P256_PKCS8_BYTES - P256_SCALAR_BYTES] = {
		0x30, 0x41,						    /* SEQUENCE */
		0x02, 0x01, 0x00,					    /* version 0 */
		0x30, 0x13,						    /* SEQUENCE */
		0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,	    /* id-ecPublicKey */
		0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, /* prime256v1 */
		0x04, 0x27,						    /* OCTET STRING */
		0x30, 0x25,						    /* SEQUENCE */
		0x02, 0x01, 0x01,					    /* version 1 */
		0x04, 0x20,						    /* OCTET STRING */
	};

	memcpy(out, head, sizeof(head));
	memcpy(out + sizeof(head), scalar->b, sizeof(scalar->b));
}
