/* SPDX-License-Identifier: MIT */
/*
 * SHA-256 over parts, HKDF-SHA256, and random bytes. Thread-safe: each thread works in a context of
 * its own (context.h). Nothing here can fail; what would be a failure of the machine ends the
 * process.
 */
#ifndef SSDTF_CRYPTO_HASH_H
#define SSDTF_CRYPTO_HASH_H

#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/secret.h"

#define HASH_BYTES 32

/* One shot over n parts, as if concatenated. */
void hash_parts(const struct bytes *parts, size_t n, uint8_t out[HASH_BYTES]);
static inline void hash_one(struct bytes v, uint8_t out[HASH_BYTES])
{
	hash_parts(&v, 1, out);
}

/* RFC 5869. Extract takes the input keying material in parts; expand takes info in parts. */
void hash_hkdf_extract(struct bytes salt, const struct bytes *ikm, size_t n,
		       struct secret32 *ret_prk);
#define HASH_EXPAND_PARTS_MAX 8
#define HASH_EXPAND_BYTES_MAX (255 * HASH_BYTES)
/* n and len are bounded by the above. */
void hash_hkdf_expand(const struct secret32 *prk, const struct bytes *info, size_t n, uint8_t *out,
		      size_t len);

/* Fills out from the system's generator; ends the process where that is impossible. */
void hash_random(void *out, size_t n);

#endif
