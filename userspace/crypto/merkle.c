// SPDX-License-Identifier: MIT
/*
 * RFC 9162 defines the tree from the top: split at the largest power of two below n. Built from the
 * leaves that is: pair each level left to right, and lift an odd last node as it is. One walk
 * upwards, with the width of the level at hand, thus serves the tree, the paths and the check.
 *
 *             r
 *           /   \
 *         e       f          a tree of seven leaves: the sibling of i in any level is i ^ 1,
 *        / \     / \         where that is less than the level's width; 6 has none in its own
 *       a   b   c   \        level nor in the next, and becomes f's right half
 *      /\  /\  /\    \
 *     0 1 2 3 4 5     6
 */
#include "userspace/crypto/merkle.h"

#include <string.h>

static unsigned width_above(unsigned width)
{
	return (width + 1) / 2;
}

static bool has_sibling(unsigned i, unsigned width)
{
	return (i ^ 1) < width;
}

static void node(const uint8_t left[HASH_BYTES], const uint8_t right[HASH_BYTES],
		 uint8_t out[HASH_BYTES])
{
	struct bytes parts[] = { bytes_str("\x01"), bytes_of(left, HASH_BYTES),
				 bytes_of(right, HASH_BYTES) };

	hash_parts(parts, ARRAY_SIZE(parts), out);
}

void merkle_leaf(const struct bytes *parts, size_t n, uint8_t out[HASH_BYTES])
{
	static const uint8_t zero;
	struct bytes all[MERKLE_LEAF_PARTS_MAX + 1] = { bytes_of(&zero, 1) };

	BUG_ON(n > MERKLE_LEAF_PARTS_MAX);
	for (size_t i = 0; i < n; i++)
		all[i + 1] = parts[i];
	hash_parts(all, n + 1, out);
}

size_t merkle_nodes(uint16_t size)
{
	size_t total = size;

	for (unsigned width = size; width > 1; width = width_above(width))
		total += width_above(width);
	return total;
}

void merkle_build(struct merkle *m, uint8_t (*nodes)[HASH_BYTES], uint16_t size)
{
	uint8_t(*level)[HASH_BYTES] = nodes;

	BUG_ON(size == 0);
	for (unsigned width = size; width > 1; width = width_above(width)) {
		uint8_t(*above)[HASH_BYTES] = level + width;

		for (unsigned i = 0; i < width; i += 2) {
			if (has_sibling(i, width))
				node(level[i], level[i + 1], above[i / 2]);
			else
				memcpy(above[i / 2], level[i], HASH_BYTES);
		}
		level = above;
	}
	m->nodes = nodes;
	m->size = size;
}

const uint8_t *merkle_root(const struct merkle *m)
{
	return m->nodes[merkle_nodes(m->size) - 1];
}

size_t merkle_path_len(uint16_t index, uint16_t size)
{
	size_t len = 0;
	unsigned i = index;

	BUG_ON(index >= size);
	for (unsigned width = size; width > 1; width = width_above(width), i /= 2)
		len += has_sibling(i, width);
	return len;
}

void merkle_path(const struct merkle *m, uint16_t index, uint8_t (*path)[HASH_BYTES])
{
	const uint8_t(*level)[HASH_BYTES] = (const uint8_t(*)[HASH_BYTES])m->nodes;
	unsigned i = index;

	BUG_ON(index >= m->size);
	for (unsigned width = m->size; width > 1; width = width_above(width), i /= 2) {
		if (has_sibling(i, width))
			memcpy(*path++, level[i ^ 1], HASH_BYTES);
		level += width;
	}
}

void merkle_root_from_path(const uint8_t leaf[HASH_BYTES], uint16_t index, uint16_t size,
			   struct bytes path, uint8_t ret_root[HASH_BYTES])
{
	struct bytes_reader r = bytes_reader_of(path);
	uint8_t hash[HASH_BYTES];
	unsigned i = index;

	BUG_ON(path.n != HASH_BYTES * merkle_path_len(index, size));
	memcpy(hash, leaf, HASH_BYTES);
	for (unsigned width = size; width > 1; width = width_above(width), i /= 2) {
		const uint8_t *sibling;

		if (!has_sibling(i, width))
			continue;
		sibling = bytes_read_view(&r, HASH_BYTES).p;
		if (i & 1)
			node(sibling, hash, hash);
		else
			node(hash, sibling, hash);
	}
	memcpy(ret_root, hash, HASH_BYTES);
}
