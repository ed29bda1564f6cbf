// SPDX-License-Identifier: MIT
#include "userspace/mqtt/chain.h"

#include <stdlib.h>

#include "userspace/base/compiler.h"

#define BUCKETS_MAX  (1u << 30)
#define SHRINK_BELOW 4 /* fewer than one element in so many buckets */

static struct chain **bucket_of(struct chain_table *t, uint64_t hash)
{
	return t->size == 1 ? &t->one : &t->many[hash & (t->size - 1)];
}

static void push(struct chain_table *t, struct chain *c)
{
	struct chain **bucket = bucket_of(t, c->hash);

	c->next = *bucket;
	*bucket = c;
}

static void resize(struct chain_table *t, uint32_t size)
{
	struct chain_table to = { .size = size, .n = t->n };

	if (size > 1) {
		to.many = calloc(size, sizeof(*to.many));
		if (!to.many)
			return;
	}
	for (uint32_t i = 0; i < t->size; i++) {
		struct chain **bucket = bucket_of(t, i);

		while (*bucket) {
			struct chain *c = *bucket;

			*bucket = c->next;
			push(&to, c);
		}
	}
	if (t->size > 1)
		free(t->many);
	*t = to;
}

void chain_table_init(struct chain_table *t)
{
	*t = (struct chain_table){ .size = 1 };
}

struct chain *chain_table_first(const struct chain_table *t, uint64_t hash)
{
	return t->size == 1 ? t->one : t->many[hash & (t->size - 1)];
}

void chain_table_add(struct chain_table *t, struct chain *c, uint64_t hash)
{
	c->hash = hash;
	push(t, c);
	t->n++;
	if (t->n > t->size && t->size < BUCKETS_MAX)
		resize(t, t->size * 2);
}

void chain_table_del(struct chain_table *t, struct chain *c)
{
	struct chain **at = bucket_of(t, c->hash);

	while (*at != c) {
		BUG_ON(!*at);
		at = &(*at)->next;
	}
	*at = c->next;
	c->next = NULL;
	t->n--;
	if (t->n == 0 && t->size > 1)
		resize(t, 1);
	else if (t->n < t->size / SHRINK_BELOW)
		resize(t, t->size / 2);
}
