// SPDX-License-Identifier: MIT
#include "userspace/base/pool.h"

#include <string.h>

#define CLASS_BITS_MIN 6
#define CLASS_LARGE    POOL_CLASSES
#define HEADER_BYTES   16

#if defined(__SANITIZE_ADDRESS__)
#define POOL_KEEPS 0
#else
#define POOL_KEEPS 1
#endif

/* Stands in front of each block; 16 bytes keep the block aligned for anything. */
struct header {
	uint32_t class;
	uint32_t unused;
	union {
		size_t bytes; /* while out */
		void *next;   /* while on a free list */
	};
};

_Static_assert(sizeof(struct header) == HEADER_BYTES, "blocks lose their alignment");

static unsigned class_of(size_t n)
{
	unsigned class = 0;

	while (class < POOL_CLASSES && n > (size_t)1 << (class + CLASS_BITS_MIN))
		class ++;
	return class;
}

void pool_init(struct pool *p)
{
	memset(p, 0, sizeof(*p));
}

void pool_deinit(struct pool *p)
{
	BUG_ON(p->bytes_out != 0);
	for (unsigned i = 0; i < POOL_CLASSES; i++) {
		while (p->free_list[i]) {
			struct header *h = p->free_list[i];

			p->free_list[i] = h->next;
			free(h);
		}
	}
}

void *pool_alloc(struct pool *p, size_t n)
{
	unsigned class = class_of(n);
	size_t bytes = class == CLASS_LARGE ? n : (size_t)1 << (class + CLASS_BITS_MIN);
	struct header *h = class == CLASS_LARGE ? NULL : p->free_list[class];

	if (h) {
		p->free_list[class] = h->next;
	} else {
		h = malloc(HEADER_BYTES + (POOL_KEEPS ? bytes : n));
		if (!h)
			return NULL;
		p->mallocs++;
	}
	h->class = class;
	h->bytes = bytes;
	p->bytes_out += bytes;
	return h + 1;
}

void *pool_zalloc(struct pool *p, size_t n)
{
	void *block = pool_alloc(p, n);

	return block ? memset(block, 0, n) : NULL;
}

void pool_free(struct pool *p, void *block)
{
	struct header *h = block;

	if (!block)
		return;
	h--;
	p->bytes_out -= h->bytes;
	if (h->class == CLASS_LARGE || !POOL_KEEPS) {
		free(h);
		return;
	}
	h->next = p->free_list[h->class];
	p->free_list[h->class] = h;
}
