// SPDX-License-Identifier: MIT
#include "hsm/lru.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/bytes.h"

/* Fibonacci hashing: grant ids are the manager's random choice, so one multiplication will do. */
#define HASH_FACTOR 0x9e3779b97f4a7c15u

struct lru_slot {
	uint8_t id[GRANT_ID_BYTES];
	uint32_t chain; /* next in the bucket, or next unused */
	uint32_t older, newer;
};

int lru_init(struct lru *l, uint32_t capacity)
{
	uint32_t buckets = 1;
	struct lru made = { .capacity = capacity };

	BUG_ON(capacity < 1 || capacity > LRU_CAPACITY_MAX);
	while (buckets < capacity)
		buckets <<= 1;
	made.bucket_mask = buckets - 1;
	/* Zero pages that nobody touched cost nothing: a large capacity is paid for as it fills. */
	made.slots = calloc((size_t)capacity + 1, sizeof(*made.slots));
	made.buckets = calloc(buckets, sizeof(*made.buckets));
	if (!made.slots || !made.buckets) {
		lru_deinit(&made);
		return -ENOMEM;
	}
	*l = made;
	return 0;
}

void lru_deinit(struct lru *l)
{
	free(l->slots);
	free(l->buckets);
	*l = (struct lru){ 0 };
}

static uint32_t *bucket_of(const struct lru *l, const uint8_t id[GRANT_ID_BYTES])
{
	uint64_t v = (uint64_t)bytes_load_u32(id) << 32 | bytes_load_u32(id + 4);

	return &l->buckets[(v * HASH_FACTOR >> 32) & l->bucket_mask];
}

uint32_t lru_find(const struct lru *l, const uint8_t id[GRANT_ID_BYTES])
{
	uint32_t s = *bucket_of(l, id);

	while (s && memcmp(l->slots[s].id, id, GRANT_ID_BYTES) != 0)
		s = l->slots[s].chain;
	return s;
}

static void unlink_order(struct lru *l, uint32_t s)
{
	struct lru_slot *slot = &l->slots[s];

	l->slots[slot->older].newer = slot->newer;
	l->slots[slot->newer].older = slot->older;
}

/* The head's older is the newest: the order is a circle through slot 0. */
static void link_newest(struct lru *l, uint32_t s)
{
	struct lru_slot *slot = &l->slots[s];

	slot->newer = 0;
	slot->older = l->slots[0].older;
	l->slots[slot->older].newer = s;
	l->slots[0].older = s;
}

uint32_t lru_insert(struct lru *l, const uint8_t id[GRANT_ID_BYTES])
{
	uint32_t *bucket = bucket_of(l, id);
	uint32_t s = l->unused;

	if (s)
		l->unused = l->slots[s].chain;
	else if (l->fresh < l->capacity)
		s = ++l->fresh;
	else
		return 0;
	memcpy(l->slots[s].id, id, GRANT_ID_BYTES);
	l->slots[s].chain = *bucket;
	*bucket = s;
	link_newest(l, s);
	l->n++;
	return s;
}

void lru_touch(struct lru *l, uint32_t s)
{
	unlink_order(l, s);
	link_newest(l, s);
}

void lru_remove(struct lru *l, uint32_t s)
{
	uint32_t *at = bucket_of(l, l->slots[s].id);

	while (*at != s)
		at = &l->slots[*at].chain;
	*at = l->slots[s].chain;
	unlink_order(l, s);
	l->slots[s].chain = l->unused;
	l->unused = s;
	l->n--;
}

const uint8_t *lru_id(const struct lru *l, uint32_t s)
{
	return l->slots[s].id;
}

uint32_t lru_oldest(const struct lru *l)
{
	return l->slots[0].newer;
}

uint32_t lru_newer(const struct lru *l, uint32_t s)
{
	return l->slots[s].newer;
}
