/* SPDX-License-Identifier: MIT */
/*
 * Conversion keys (PROTOCOL 3): what the manager computes for a grant, what the receiver finds from
 * it, and conversion in software for tests and for measuring (a gateway converts in its token).
 */
#ifndef SSDTF_CRYPTO_GRANT_H
#define SSDTF_CRYPTO_GRANT_H

#include "userspace/crypto/p256.h"

#define GRANT_ID_BYTES 8

/* What both ends bind the grant to. */
struct grant_terms {
	uint8_t grant_id[GRANT_ID_BYTES];
	uint32_t key_id;
	struct p256_point x; /* X = xG, fresh for every grant */
	struct p256_point b; /* the receiver's encryption key B */
};

/* d from the shared point's x-coordinate: x(xB) at the manager, x(bX) at the receiver. */
int grant_secret(const struct grant_terms *t, const struct secret32 *dh,
		 struct secret32 *ret_d) must_check;
/* The receiver's way: d from b. */
int grant_secret_receiver(const struct grant_terms *t, const struct secret32 *b,
			  struct secret32 *ret_d) must_check;
/* The manager's way: d from x. */
int grant_secret_manager(const struct grant_terms *t, const struct secret32 *x,
			 struct secret32 *ret_d) must_check;
/* rk = from * to^-1 mod n: a and d, a and s_1, s_1 and d. */
int grant_conversion_key(const struct secret32 *from, const struct secret32 *to,
			 struct secret32 *ret_rk) must_check;
/* x(rk * E) in software. */
int grant_convert(const struct secret32 *rk, const struct p256_point *e,
		  uint8_t ret_x[P256_X_BYTES]) must_check;
/* The receiver's Diffie-Hellman value from the converted capsule: x(d * lift(x)). */
int grant_dh(const struct secret32 *d, const uint8_t x[P256_X_BYTES],
	     struct secret32 *ret_dh) must_check;

#endif
