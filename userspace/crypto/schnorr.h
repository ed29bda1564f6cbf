/* SPDX-License-Identifier: MIT */
/*
 * Schnorr's proof that one knows the logarithm of a public key, made non-interactive (PROTOCOL 16):
 *
 *   V = vG,  c = H(X, V, input),  s = v - c*x mod n         it holds where V = sG + cX
 *
 * The proof is V (33 bytes, compressed) || s (32). It holds for this input alone, and tells nothing
 * else of x, as long as no v is used twice: v hangs on fresh random bytes *and* on x and what is
 * proved, so that a generator that repeats itself does not repeat v for another input. Unlike an
 * ECDSA signature, a proof cannot be changed into another one that holds without knowing x.
 *
 * Errors: p256.h's. Thread-safe.
 */
#ifndef SSDTF_CRYPTO_SCHNORR_H
#define SSDTF_CRYPTO_SCHNORR_H

#include "userspace/base/bytes.h"
#include "userspace/crypto/p256.h"

#define SCHNORR_PROOF_BYTES	(P256_COMPRESSED_BYTES + P256_SCALAR_BYTES)
#define SCHNORR_INPUT_PARTS_MAX 16

/* public is x's own point. Takes the same time for every x. n is at most SCHNORR_INPUT_PARTS_MAX.
 */
int schnorr_prove(const struct secret32 *x, const struct p256_point *public,
		  const struct bytes *input, size_t n,
		  uint8_t ret_proof[SCHNORR_PROOF_BYTES]) must_check;
/* 0, or -EBADMSG: V is no point, s is not in 1..n-1, or it does not hold. */
int schnorr_verify(const struct p256_point *public, const struct bytes *input, size_t n,
		   const uint8_t proof[SCHNORR_PROOF_BYTES]) must_check;

#endif
