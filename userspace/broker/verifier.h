/* SPDX-License-Identifier: MIT */
/*
 * A party's public key, made ready once (by the first thread that needs it), and what was lately
 * proved with it: the roots of batches whose signature held, and the points of contexts that were
 * on the curve. So a batch costs one verification however many messages are under it, and a context
 * one square root.
 *
 * Only what was proved gets in, and only by messages of this one party: nobody can put in anything
 * false, nor push out what another needs. The memory is found by comparing it whole, and ends with
 * the key: a party whose key changes has another verifier.
 *
 * Any number of threads may use one at once. Its lock is held to look and to note, not while a
 * signature is verified; two threads that meet the same new root thus may both verify it.
 */
#ifndef SSDTF_BROKER_VERIFIER_H
#define SSDTF_BROKER_VERIFIER_H

#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/p256.h"

#define VERIFIER_ROOTS	4 /* batches of one party that are under way at once */
#define VERIFIER_POINTS 4 /* contexts, so scopes that it sends under in turn */

struct verifier;

/* No curve work yet. NULL: no memory. */
struct verifier *verifier_new(const struct p256_point *key) must_check;
void verifier_free(struct verifier *v); /* NULL is fine */

const struct p256_point *verifier_key(const struct verifier *v);

/* Trailer 1: p256_verify_digest() with its answers, and -EINVAL where the key is no point. Nothing
 * is remembered: it signs one message. */
int verifier_digest(struct verifier *v, const uint8_t digest[HASH_BYTES],
		    const uint8_t sig[P256_SIG_BYTES]) must_check;
/* Trailer 2: does sig hold for this root (publish_root())? The same answers. */
int verifier_root(struct verifier *v, const uint8_t root[HASH_BYTES],
		  const uint8_t sig[P256_SIG_BYTES]) must_check;
/* A context's enc: p256_point_decompress() with its answers. */
int verifier_point(struct verifier *v, struct bytes enc, struct p256_point *ret_point) must_check;

struct verifier_stats {
	uint64_t verifications, root_hits; /* signatures verified; and not, the root being known */
	uint64_t decompressions, point_hits;
};
void verifier_stats(struct verifier *v, struct verifier_stats *ret_s);

#endif
