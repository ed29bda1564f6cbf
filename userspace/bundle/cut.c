// SPDX-License-Identifier: MIT
#include "userspace/bundle/cut.h"

#define BYTES_EASY 12288 /* from there on */

/* 2^-16 and 2^-12 of all positions fulfil these. */
#define MASK_HARD 0xffff000000000000ull
#define MASK_EASY 0xfff0000000000000ull

/* A 64-bit number for each byte: SplitMix64's, of which any 256 will do. */
static uint64_t gear_of(uint8_t byte)
{
	uint64_t z = (byte + 1ull) * 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

size_t cut_next(struct bytes v)
{
	uint64_t gear[256];
	size_t end = v.n < CUT_BYTES_MAX ? v.n : CUT_BYTES_MAX;
	uint64_t hash = 0;
	size_t i;

	if (end <= CUT_BYTES_MIN)
		return end;
	for (i = 0; i < 256; i++)
		gear[i] = gear_of((uint8_t)i);
	for (i = CUT_BYTES_MIN - 64; i < end; i++) {
		hash = (hash << 1) + gear[v.p[i]];
		if (i < CUT_BYTES_MIN)
			continue;
		if (!(hash & (i < BYTES_EASY ? MASK_HARD : MASK_EASY)))
			return i + 1;
	}
	return end;
}
