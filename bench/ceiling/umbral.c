// SPDX-License-Identifier: MIT
#include "bench/ceiling/umbral.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/obj_mac.h>
#include <string.h>
#include <sysexits.h>

#include "userspace/base/log.h"
#include "userspace/crypto/hash.h"

#define U_SEED "ssdtf-bench umbral U" /* a generator that nobody knows the logarithm of */

struct umbral {
	EC_GROUP *group;
	const BIGNUM *order;
	BN_CTX *ctx;
	BIGNUM *k, *h, *t;
	EC_POINT *e, *v, *u, *out;
};

static void must(bool good)
{
	if (!good)
		exit_with(EX_SOFTWARE, "OpenSSL does not do its part of Umbral");
}

/* --- points and numbers ----------------------------------------------------------------------- */

static void point_load(struct umbral *u, EC_POINT *to, const struct p256_point *p)
{
	must(EC_POINT_oct2point(u->group, to, p->b, sizeof(p->b), u->ctx) == 1);
}

static void point_store(struct umbral *u, const EC_POINT *from, struct p256_point *ret_p)
{
	must(EC_POINT_point2oct(u->group, from, POINT_CONVERSION_UNCOMPRESSED, ret_p->b,
				sizeof(ret_p->b), u->ctx) == sizeof(ret_p->b));
}

static void scalar_load(BIGNUM *to, const struct secret32 *k)
{
	must(BN_bin2bn(k->b, sizeof(k->b), to));
}

static void scalar_store(const BIGNUM *from, struct secret32 *ret_k)
{
	must(BN_bn2binpad(from, ret_k->b, sizeof(ret_k->b)) == (int)sizeof(ret_k->b));
}

static void scalar_random(struct umbral *u, BIGNUM *k)
{
	must(BN_priv_rand_range_ex(k, u->order, 0, u->ctx) == 1); /* 0 does not come up */
}

/* k * p */
static void multiply(struct umbral *u, const BIGNUM *k, const EC_POINT *p, struct p256_point *ret_p)
{
	must(EC_POINT_mul(u->group, u->out, NULL, p, k, u->ctx) == 1);
	point_store(u, u->out, ret_p);
}

static void multiply_base(struct umbral *u, const BIGNUM *k, struct p256_point *ret_p)
{
	must(EC_POINT_mul(u->group, u->out, k, NULL, NULL, u->ctx) == 1);
	point_store(u, u->out, ret_p);
}

/* To a number below n, of n points. Nothing secret goes in. */
static void hash_points(struct umbral *u, const struct p256_point *const *points, size_t n,
			BIGNUM *ret_h)
{
	struct bytes parts[9];
	uint8_t hash[HASH_BYTES];

	BUG_ON(n > ARRAY_SIZE(parts));
	for (size_t i = 0; i < n; i++)
		parts[i] = bytes_of(points[i]->b, sizeof(points[i]->b));
	hash_parts(parts, n, hash);
	must(BN_bin2bn(hash, sizeof(hash), ret_h) && BN_nnmod(ret_h, ret_h, u->order, u->ctx) == 1);
}

struct umbral *umbral_new(void)
{
	struct umbral *u = calloc(1, sizeof(*u));
	struct p256_point point;
	uint8_t x[HASH_BYTES];

	must(u);
	u->group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
	u->ctx = BN_CTX_new();
	u->k = BN_new();
	u->h = BN_new();
	u->t = BN_new();
	must(u->group && u->ctx && u->k && u->h && u->t);
	u->order = EC_GROUP_get0_order(u->group);
	u->e = EC_POINT_new(u->group);
	u->v = EC_POINT_new(u->group);
	u->u = EC_POINT_new(u->group);
	u->out = EC_POINT_new(u->group);
	must(u->e && u->v && u->u && u->out);
	hash_one(bytes_str(U_SEED), x);
	while (p256_point_lift(x, &point)) /* every second x is a point's */
		hash_one(bytes_of(x, sizeof(x)), x);
	point_load(u, u->u, &point);
	return u;
}

void umbral_free(struct umbral *u)
{
	EC_POINT_free(u->out);
	EC_POINT_free(u->u);
	EC_POINT_free(u->v);
	EC_POINT_free(u->e);
	BN_clear_free(u->t);
	BN_free(u->h);
	BN_clear_free(u->k);
	BN_CTX_free(u->ctx);
	EC_GROUP_free(u->group);
	free(u);
}

/* --- sender, owner, receiver ------------------------------------------------------------------ */

void umbral_encapsulate(struct umbral *u, const struct p256_point *a, struct umbral_capsule *ret_c,
			struct secret32 *ret_secret)
{
	const struct p256_point *const ev[] = { &ret_c->e, &ret_c->v };
	struct p256_point shared;

	scalar_random(u, u->k); /* r */
	scalar_random(u, u->t); /* u */
	multiply_base(u, u->k, &ret_c->e);
	multiply_base(u, u->t, &ret_c->v);
	hash_points(u, ev, ARRAY_SIZE(ev), u->h);
	must(BN_mod_mul(u->h, u->h, u->k, u->order, u->ctx) == 1 &&
	     BN_mod_add(u->h, u->h, u->t, u->order, u->ctx) == 1);
	scalar_store(u->h, &ret_c->s);
	must(BN_mod_add(u->k, u->k, u->t, u->order, u->ctx) == 1);
	point_load(u, u->e, a);
	multiply(u, u->k, u->e, &shared);
	memcpy(ret_secret->b, shared.b + 1, sizeof(ret_secret->b));
}

/* d = H(X, B, shared), with shared = xB = bX. */
static void receiver_secret(struct umbral *u, const struct p256_point *x,
			    const struct p256_point *b, const struct p256_point *shared,
			    BIGNUM *ret_d)
{
	const struct p256_point *const points[] = { x, b, shared };

	hash_points(u, points, ARRAY_SIZE(points), ret_d);
}

void umbral_grant(struct umbral *u, const struct secret32 *a, const struct p256_point *b,
		  struct umbral_fragment *ret_f)
{
	struct p256_point shared;

	scalar_random(u, u->k); /* x */
	multiply_base(u, u->k, &ret_f->x);
	point_load(u, u->e, b);
	multiply(u, u->k, u->e, &shared);
	receiver_secret(u, &ret_f->x, b, &shared, u->h);
	scalar_load(u->k, a);
	must(BN_mod_inverse(u->h, u->h, u->order, u->ctx) &&
	     BN_mod_mul(u->k, u->k, u->h, u->order, u->ctx) == 1);
	scalar_store(u->k, &ret_f->rk);
	multiply(u, u->k, u->u, &ret_f->u1);
}

void umbral_open(struct umbral *u, const struct secret32 *b, const struct umbral_fragment *f,
		 const struct umbral_reencrypted *r, struct secret32 *ret_secret)
{
	struct p256_point public, shared;

	scalar_load(u->k, b);
	multiply_base(u, u->k, &public);
	point_load(u, u->e, &f->x);
	multiply(u, u->k, u->e, &shared);
	receiver_secret(u, &f->x, &public, &shared, u->h);
	point_load(u, u->e, &r->e1);
	point_load(u, u->v, &r->v1);
	must(EC_POINT_add(u->group, u->e, u->e, u->v, u->ctx) == 1);
	multiply(u, u->h, u->e, &shared);
	memcpy(ret_secret->b, shared.b + 1, sizeof(ret_secret->b));
}

/* --- proxy ------------------------------------------------------------------------------------ */

/* s G - h E == V, in one call. */
bool umbral_check(struct umbral *u, const struct umbral_capsule *c)
{
	const struct p256_point *const ev[] = { &c->e, &c->v };

	point_load(u, u->e, &c->e);
	point_load(u, u->v, &c->v);
	hash_points(u, ev, ARRAY_SIZE(ev), u->h);
	scalar_load(u->k, &c->s);
	must(BN_sub(u->h, u->order, u->h) == 1 &&
	     EC_POINT_mul(u->group, u->out, u->k, u->e, u->h, u->ctx) == 1);
	return !EC_POINT_cmp(u->group, u->out, u->v, u->ctx);
}

static void hash_proof(struct umbral *u, const struct umbral_fragment *f,
		       const struct umbral_capsule *c, const struct umbral_reencrypted *r,
		       BIGNUM *ret_h)
{
	struct p256_point generator;
	const struct p256_point *const points[] = { &c->e,  &r->e1,	&r->e2, &c->v, &r->v1,
						    &r->v2, &generator, &f->u1, &r->u2 };

	point_store(u, u->u, &generator);
	hash_points(u, points, ARRAY_SIZE(points), ret_h);
}

void umbral_reencrypt(struct umbral *u, const struct umbral_fragment *f,
		      const struct umbral_capsule *c, bool prove, struct umbral_reencrypted *ret_r)
{
	point_load(u, u->e, &c->e);
	point_load(u, u->v, &c->v);
	scalar_load(u->k, &f->rk);
	multiply(u, u->k, u->e, &ret_r->e1);
	multiply(u, u->k, u->v, &ret_r->v1);
	if (!prove)
		return;
	scalar_random(u, u->t);
	multiply(u, u->t, u->e, &ret_r->e2);
	multiply(u, u->t, u->v, &ret_r->v2);
	multiply(u, u->t, u->u, &ret_r->u2);
	hash_proof(u, f, c, ret_r, u->h);
	must(BN_mod_mul(u->h, u->h, u->k, u->order, u->ctx) == 1 &&
	     BN_mod_add(u->t, u->t, u->h, u->order, u->ctx) == 1);
	scalar_store(u->t, &ret_r->z);
}

/* z P == P2 + h P1 */
static bool holds(struct umbral *u, const struct secret32 *z, const BIGNUM *h, const EC_POINT *p,
		  const struct p256_point *p1, const struct p256_point *p2)
{
	struct p256_point left, right;

	scalar_load(u->k, z);
	multiply(u, u->k, p, &left);
	point_load(u, u->e, p1);
	must(EC_POINT_mul(u->group, u->out, NULL, u->e, h, u->ctx) == 1);
	point_load(u, u->e, p2);
	must(EC_POINT_add(u->group, u->out, u->out, u->e, u->ctx) == 1);
	point_store(u, u->out, &right);
	return !memcmp(&left, &right, sizeof(left));
}

bool umbral_proof_holds(struct umbral *u, const struct umbral_fragment *f,
			const struct umbral_capsule *c, const struct umbral_reencrypted *r)
{
	hash_proof(u, f, c, r, u->h);
	point_load(u, u->v, &c->e);
	if (!holds(u, &r->z, u->h, u->v, &r->e1, &r->e2))
		return false;
	point_load(u, u->v, &c->v);
	return holds(u, &r->z, u->h, u->v, &r->v1, &r->v2) &&
	       holds(u, &r->z, u->h, u->u, &f->u1, &r->u2);
}
