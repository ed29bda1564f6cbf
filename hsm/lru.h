/* SPDX-License-Identifier: MIT */
/*
 * A fixed number of slots named by grant ids, in the order of their last use. The user keeps what
 * belongs to a slot in an array of its own, of capacity + 1 entries: slots are 1..capacity, and 0
 * says "none". One thread; memory is taken at init only.
 */
#ifndef SSDTF_HSM_LRU_H
#define SSDTF_HSM_LRU_H

#include <stdint.h>

#include "userspace/base/compiler.h"
#include "userspace/crypto/grant.h"

#define LRU_CAPACITY_MAX (1u << 24)

struct lru_slot;

struct lru {
	struct lru_slot *slots; /* [0] is the head of the order */
	uint32_t *buckets;
	uint32_t bucket_mask;
	uint32_t capacity;
	uint32_t n;	 /* slots in use */
	uint32_t fresh;	 /* slots above this were never used */
	uint32_t unused; /* list of those given back */
};

/* capacity is 1..LRU_CAPACITY_MAX; -ENOMEM. */
int lru_init(struct lru *l, uint32_t capacity) must_check;
void lru_deinit(struct lru *l);

uint32_t lru_find(const struct lru *l, const uint8_t id[GRANT_ID_BYTES]);
/* A new slot, the most recently used, for an id that has none. 0: all are in use. */
uint32_t lru_insert(struct lru *l, const uint8_t id[GRANT_ID_BYTES]) must_check;
void lru_touch(struct lru *l, uint32_t slot);
void lru_remove(struct lru *l, uint32_t slot);
const uint8_t *lru_id(const struct lru *l, uint32_t slot);

/* for (s = lru_oldest(l); s; s = lru_newer(l, s)): from the least recently used on. */
uint32_t lru_oldest(const struct lru *l);
uint32_t lru_newer(const struct lru *l, uint32_t slot);

#endif
