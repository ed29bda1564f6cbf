/* SPDX-License-Identifier: MIT */
/*
 * An intrusive hash table: elements embed a struct chain and are told apart by their owner.
 *
 *	buckets   [0] -> element -> element      n elements, size buckets (a power of two)
 *	          [1]
 *	          [2] -> element
 *
 * It grows when n > size and shrinks when n < size / 4. A table of one bucket keeps it in place, so
 * that a table of at most one element, and one that is empty again, owns no memory. Growing may
 *fail for want of memory: then the chains get longer and nothing else happens, so adding never
 *fails. The caller brings the hash: keyed, where peers choose the keys.
 */
#ifndef SSDTF_MQTT_CHAIN_H
#define SSDTF_MQTT_CHAIN_H

#include <stdint.h>

struct chain {
	struct chain *next;
	uint64_t hash;
};

struct chain_table {
	union {
		struct chain *one;   /* size 1 */
		struct chain **many; /* size > 1 */
	};
	uint32_t size, n;
};

void chain_table_init(struct chain_table *t);

/* The chain where elements of this hash stand, among others: compare hash, then what it stands for.
 */
struct chain *chain_table_first(const struct chain_table *t, uint64_t hash);
void chain_table_add(struct chain_table *t, struct chain *c, uint64_t hash);
/* c stands in t. */
void chain_table_del(struct chain_table *t, struct chain *c);

#endif
