/* SPDX-License-Identifier: MIT */
/*
 * Umbral, as far as a broker would be its proxy: D. Nunez, "Umbral: A Threshold Proxy Re-Encryption
 * Scheme", NuCypher, 2018, over P-256 and with one proxy (threshold 1 of 1). For measuring what it
 * would take of a broker; no part of SSDTF uses it.
 *
 *   sender     r, u random: E = rG, V = uG, s = u + r H(E, V); the key comes from (r + u) A
 *   owner      x random: X = xG, d = H(X, B, xB), rk = a / d, U1 = rk U
 *   proxy      check:      s G == V + H(E, V) E          2 multiplications
 *              re-encrypt: E1 = rk E, V1 = rk V          2
 *              proof:      t random: E2 = tE, V2 = tV, U2 = tU,
 *                          h = H(all nine points), z = t + h rk           3
 *   receiver   d (E1 + V1) = (r + u) A
 *
 * So a delivery takes 2 (capsule checked before, nothing proved) to 7; 5 are those of a proxy that
 * checked the capsule once and proves each re-encryption, as the authors' library (pyUmbral) does.
 *
 * To its advantage here: one OpenSSL call for both multiplications of the check, points travel
 * uncompressed (they are longer, and no square root is taken), and no memory is taken for a run.
 * One thread. Functions end the program where OpenSSL does not do its part.
 */
#ifndef SSDTF_BENCH_UMBRAL_H
#define SSDTF_BENCH_UMBRAL_H

#include <stdbool.h>

#include "userspace/crypto/p256.h"

struct umbral_capsule {
	struct p256_point e, v;
	struct secret32 s;
};

/* What the owner gives the proxy, and (X) the receiver. */
struct umbral_fragment {
	struct secret32 rk;
	struct p256_point x, u1;
};

struct umbral_reencrypted {
	struct p256_point e1, v1;
	/* The proof, where one was asked for. */
	struct p256_point e2, v2, u2;
	struct secret32 z;
};

struct umbral;

struct umbral *umbral_new(void);
void umbral_free(struct umbral *u);

/* Sender, owner, receiver; secrets are x-coordinates of the shared point. */
void umbral_encapsulate(struct umbral *u, const struct p256_point *a, struct umbral_capsule *ret_c,
			struct secret32 *ret_secret);
void umbral_grant(struct umbral *u, const struct secret32 *a, const struct p256_point *b,
		  struct umbral_fragment *ret_f);
void umbral_open(struct umbral *u, const struct secret32 *b, const struct umbral_fragment *f,
		 const struct umbral_reencrypted *r, struct secret32 *ret_secret);

/* Proxy. */
bool umbral_check(struct umbral *u, const struct umbral_capsule *c);
void umbral_reencrypt(struct umbral *u, const struct umbral_fragment *f,
		      const struct umbral_capsule *c, bool prove, struct umbral_reencrypted *ret_r);
/* Does the proof hold? For whoever gets it: rk itself is not needed. */
bool umbral_proof_holds(struct umbral *u, const struct umbral_fragment *f,
			const struct umbral_capsule *c, const struct umbral_reencrypted *r);

#endif
