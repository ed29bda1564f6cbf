/* SPDX-License-Identifier: MIT */
/*
 * Merkle tree hash and inclusion proofs of RFC 9162 section 2.1 (SHA-256, leaf 00, node 01), for
 * the batch signatures of PROTOCOL 4. Caller's memory, no allocation.
 */
#ifndef SSDTF_CRYPTO_MERKLE_H
#define SSDTF_CRYPTO_MERKLE_H

#include "userspace/crypto/hash.h"

#define MERKLE_LEAVES_MAX 65535 /* u16 size on the wire */
#define MERKLE_PATH_MAX	  16

/* Bounds that a compiler can size memory by: steps of the longest path in a tree of size leaves,
 * 1 to MERKLE_LEAVES_MAX, and nodes of it. */
#define MERKLE_STEPS_MAX(size)                                                              \
	(((size) > 1) + ((size) > 2) + ((size) > 4) + ((size) > 8) + ((size) > 16) +        \
	 ((size) > 32) + ((size) > 64) + ((size) > 128) + ((size) > 256) + ((size) > 512) + \
	 ((size) > 1024) + ((size) > 2048) + ((size) > 4096) + ((size) > 8192) +            \
	 ((size) > 16384) + ((size) > 32768))
#define MERKLE_NODES_MAX(size) (2 * (size) + MERKLE_STEPS_MAX(size))

#define MERKLE_LEAF_PARTS_MAX 15
/* leaf = SHA-256(00 || input), the input given in at most MERKLE_LEAF_PARTS_MAX parts. */
void merkle_leaf(const struct bytes *parts, size_t n, uint8_t out[HASH_BYTES]);

/*
 * A tree over n leaves, built level by level into the caller's nodes[merkle_nodes(n)][32], leaves
 * first. Any leaf's path and the root are then reads.
 */
struct merkle {
	uint8_t (*nodes)[HASH_BYTES];
	uint16_t size;
};

size_t merkle_nodes(uint16_t size);
/* The first size entries of nodes are the leaves; fills the rest. size >= 1. */
void merkle_build(struct merkle *m, uint8_t (*nodes)[HASH_BYTES], uint16_t size);
const uint8_t *merkle_root(const struct merkle *m);
/* Path length of index in a tree of size: 0 for one leaf. size >= 1 and index < size. */
size_t merkle_path_len(uint16_t index, uint16_t size);
/* Leaf upwards; path holds merkle_path_len() hashes. */
void merkle_path(const struct merkle *m, uint16_t index, uint8_t (*path)[HASH_BYTES]);
/* The root that leaf, index, size and path imply: what the signature must then cover. */
void merkle_root_from_path(const uint8_t leaf[HASH_BYTES], uint16_t index, uint16_t size,
			   struct bytes path, uint8_t ret_root[HASH_BYTES]);

#endif
