// SPDX-License-Identifier: MIT
#include "userspace/crypto/schnorr.h"

#include <errno.h>
#include <string.h>

#include "userspace/crypto/hash.h"

#define LABEL	    "ssdtf-zk-1"
#define LABEL_NONCE "ssdtf-zk-nonce-1"
#define WIDE_BYTES  48

/* c = 1 + (OS2IP(HKDF-Expand(SHA-256(label || X || V || input), label, 48)) mod (n-1)) */
static int challenge(const struct p256_point *public, const struct p256_point *v,
		     const struct bytes *input, size_t n, struct secret32 *ret_c)
{
	struct bytes parts[3 + SCHNORR_INPUT_PARTS_MAX], label = bytes_str(LABEL);
	struct secret32 prk;
	uint8_t wide[WIDE_BYTES];

	BUG_ON(n > SCHNORR_INPUT_PARTS_MAX);
	parts[0] = label;
	parts[1] = bytes_of(public->b, sizeof(public->b));
	parts[2] = bytes_of(v->b, sizeof(v->b));
	for (size_t i = 0; i < n; i++)
		parts[3 + i] = input[i];
	hash_parts(parts, 3 + n, prk.b);
	hash_hkdf_expand(&prk, &label, 1, wide, sizeof(wide));
	return p256_scalar_from_wide(bytes_of(wide, sizeof(wide)), ret_c);
}

/*
 * v, by extraction from fresh random bytes, x, and all that is hashed into c: two proofs with one v
 * and another c would give x away. The public key is in it for that reason, too, though it follows
 * from x: a caller who gives a wrong one gets a proof that does not hold, and no more.
 */
static int nonce(const struct secret32 *x, const struct p256_point *public,
		 const struct bytes *input, size_t n, struct secret32 *ret_v)
{
	struct secret32 random SECRET = { 0 }, prk SECRET = { 0 };
	struct bytes ikm[3], label = bytes_str(LABEL_NONCE);
	uint8_t digest[HASH_BYTES], wide[WIDE_BYTES];
	int err;

	hash_random(random.b, sizeof(random.b));
	hash_parts(input, n, digest);
	ikm[0] = bytes_of(x->b, sizeof(x->b));
	ikm[1] = bytes_of(public->b, sizeof(public->b));
	ikm[2] = bytes_of(digest, sizeof(digest));
	hash_hkdf_extract(bytes_of(random.b, sizeof(random.b)), ikm, ARRAY_SIZE(ikm), &prk);
	hash_hkdf_expand(&prk, &label, 1, wide, sizeof(wide));
	err = p256_scalar_from_wide(bytes_of(wide, sizeof(wide)), ret_v);
	secret_wipe(wide, sizeof(wide));
	return err;
}

int schnorr_prove(const struct secret32 *x, const struct p256_point *public,
		  const struct bytes *input, size_t n, uint8_t ret_proof[SCHNORR_PROOF_BYTES])
{
	struct secret32 v SECRET = { 0 }, cx SECRET = { 0 }, c, s;
	struct p256_point point;
	int err = nonce(x, public, input, n, &v);

	if (!err)
		err = p256_mul_base(&v, &point);
	if (!err)
		err = challenge(public, &point, input, n, &c);
	if (!err)
		err = p256_scalar_mul(&c, x, &cx);
	if (!err)
		err = p256_scalar_sub(&v, &cx, &s);
	if (err)
		return err;
	p256_point_compress(&point, ret_proof);
	memcpy(ret_proof + P256_COMPRESSED_BYTES, s.b, sizeof(s.b));
	return 0;
}

/* What is no point or no scalar does not hold either. */
static int as_bad(int err)
{
	return err == -EINVAL ? -EBADMSG : err;
}

int schnorr_verify(const struct p256_point *public, const struct bytes *input, size_t n,
		   const uint8_t proof[SCHNORR_PROOF_BYTES])
{
	struct p256_point v, sum;
	struct secret32 c, s;
	int err = p256_point_decompress(bytes_of(proof, P256_COMPRESSED_BYTES), &v);

	memcpy(s.b, proof + P256_COMPRESSED_BYTES, sizeof(s.b));
	if (!err)
		err = challenge(public, &v, input, n, &c);
	if (!err)
		err = p256_mul_sum(&s, &c, public, &sum);
	if (err)
		return as_bad(err);
	return memcmp(sum.b, v.b, sizeof(v.b)) ? -EBADMSG : 0;
}
