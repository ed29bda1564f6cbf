/* SPDX-License-Identifier: MIT */
/*
 * NIST P-256: points, scalars, ECDSA. All curve work is behind this header: p256.c has the curve,
 * p256_key.c the keys as OpenSSL's EVP takes them.
 *
 * A scalar is 32 bytes big-endian, in 1..n-1 unless said otherwise. A point is 65 bytes
 * uncompressed (04 || x || y) and never infinity. Every function that takes a point from outside
 * checks that it is on the curve. Errors: -EINVAL for bytes that are no scalar or point, -EBADMSG
 * for a signature that does not hold, -ENOMEM or -EIO for OpenSSL's own trouble.
 * Functions are thread-safe; a struct p256_public or p256_private may be used by many threads.
 */
#ifndef SSDTF_CRYPTO_P256_H
#define SSDTF_CRYPTO_P256_H

#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/secret.h"

#define P256_SCALAR_BYTES     32
#define P256_X_BYTES	      32
#define P256_POINT_BYTES      65
#define P256_COMPRESSED_BYTES 33
#define P256_SIG_BYTES	      64
#define P256_DIGEST_BYTES     32

struct p256_point {
	uint8_t b[P256_POINT_BYTES];
};

/* 65 bytes on the curve, not infinity. */
int p256_point_check(struct bytes uncompressed) must_check;
/* 02/03 || x to 04 || x || y. -EINVAL where no point has that x, or the form is another. */
int p256_point_decompress(struct bytes compressed, struct p256_point *ret_point) must_check;
void p256_point_compress(const struct p256_point *p, uint8_t out[P256_COMPRESSED_BYTES]);
/* A point with this x-coordinate, of either sign (PROTOCOL 3). */
int p256_point_lift(const uint8_t x[P256_X_BYTES], struct p256_point *ret_point) must_check;

/* 1..n-1, from the system's generator. */
int p256_scalar_random(struct secret32 *ret_scalar) must_check;
int p256_scalar_check(const struct secret32 *k) must_check;
/* a * b mod n, a^-1 mod n, in constant time with respect to the values. */
int p256_scalar_mul(const struct secret32 *a, const struct secret32 *b,
		    struct secret32 *ret_product) must_check;
/* a - b mod n, likewise. -EINVAL where they are equal: 0 is no scalar. */
int p256_scalar_sub(const struct secret32 *a, const struct secret32 *b,
		    struct secret32 *ret_difference) must_check;
int p256_scalar_invert(const struct secret32 *a, struct secret32 *ret_inverse) must_check;
/* 1 + (OS2IP(wide) mod (n-1)): PROTOCOL 3's hash to scalar. wide is 48 bytes. */
int p256_scalar_from_wide(struct bytes wide, struct secret32 *ret_scalar) must_check;

/* k * G and k * P. */
int p256_mul_base(const struct secret32 *k, struct p256_point *ret_point) must_check;
int p256_mul(const struct secret32 *k, const struct p256_point *p,
	     struct p256_point *ret_point) must_check;
/* a * G + b * P, in time that depends on a and b: nothing secret goes in. -EINVAL where the sum is
 * infinity, too. */
int p256_mul_sum(const struct secret32 *a, const struct secret32 *b, const struct p256_point *p,
		 struct p256_point *ret_point) must_check;
/* x(k * P): what Diffie-Hellman hands on. */
int p256_dh(const struct secret32 *k, const struct p256_point *p,
	    struct secret32 *ret_x) must_check;

/* A public key made ready once and used for many verifications. */
struct p256_public;
int p256_public_new(const struct p256_point *p, struct p256_public **ret_key) must_check;
void p256_public_free(struct p256_public *k);
/* ECDSA over SHA-256 digest; sig is r || s. 0, or -EBADMSG. */
int p256_verify_digest(const struct p256_public *k, const uint8_t digest[P256_DIGEST_BYTES],
		       const uint8_t sig[P256_SIG_BYTES]) must_check;

/* A private signing key. */
struct p256_private;
int p256_private_new(const struct secret32 *scalar, struct p256_private **ret_key) must_check;
void p256_private_free(struct p256_private *k);
void p256_private_point(const struct p256_private *k, struct p256_point *ret_point);
int p256_sign_digest(const struct p256_private *k, const uint8_t digest[P256_DIGEST_BYTES],
		     uint8_t ret_sig[P256_SIG_BYTES]) must_check;

/* PEM files' contents: PKCS#8 or SEC 1 private, SubjectPublicKeyInfo public. -EINVAL if not P-256.
 */
int p256_private_from_pem(struct bytes pem, struct secret32 *ret_scalar) must_check;
int p256_public_from_pem(struct bytes pem, struct p256_point *ret_point) must_check;
/* Writes PEM text (not terminated) into out; returns its length, or -ENOBUFS and the above. */
int p256_private_to_pem(const struct secret32 *scalar, uint8_t *out, size_t room) must_check;
int p256_public_to_pem(const struct p256_point *p, uint8_t *out, size_t room) must_check;

#define P256_PKCS8_BYTES 67
/* RFC 5208/5915 without the public key: the 67 bytes that a token unwraps (see hsm/token.h). */
void p256_pkcs8(const struct secret32 *scalar, uint8_t out[P256_PKCS8_BYTES]);

#endif
