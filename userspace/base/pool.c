// SPDX-License-Identifier: MIT
#include "userspace/base/pool.h"

#include <string.h>

#define SLAB_BYTES	(64u << 10)
#define HEAD_BYTES	64u
#define CLASS_BYTES_MIN 64u
#define SMALL_BYTES_MAX (16u << 10)  /* several to a slab */
#define LARGE_BYTES_MAX (256u << 10) /* the last that has a class */
#define NO_CLASS	POOL_CLASSES

#if defined(__SANITIZE_ADDRESS__)
#define POOL_KEEPS 0
#else
#define POOL_KEEPS 1
#endif

struct slab {
	struct list link;
	void *free;	/* blocks that came back; each holds the next */
	uint32_t fresh; /* offset of the first that was never handed out */
	uint32_t used;
	uint32_t class;
	size_t bytes; /* of a block */
};

_Static_assert(sizeof(struct slab) <= HEAD_BYTES, "blocks begin behind the head");

/* 64, 80, 96, 112, 128, 160, ... : the power of two below n, and a quarter of it so many times. */
static unsigned class_of(size_t n, size_t *ret_bytes)
{
	unsigned bits, quarter;

	if (n <= CLASS_BYTES_MIN) {
		*ret_bytes = CLASS_BYTES_MIN;
		return 0;
	}
	if (n > LARGE_BYTES_MAX) {
		*ret_bytes = n;
		return NO_CLASS;
	}
	bits = 63 - (unsigned)__builtin_clzll(n - 1);
	quarter = (unsigned)((n - 1) >> (bits - 2)) & 3;
	*ret_bytes = ((size_t)4 + quarter + 1) << (bits - 2);
	return 4 * (bits - 6) + quarter + 1;
}

void pool_init(struct pool *p)
{
	memset(p, 0, sizeof(*p));
	for (unsigned i = 0; i < POOL_CLASSES; i++)
		list_init(&p->partial[i]);
	list_init(&p->full);
}

static void slabs_free(struct list *slabs)
{
	while (!list_empty(slabs)) {
		struct slab *s = list_first(slabs, struct slab, link);

		list_del(&s->link);
		free(s);
	}
}

void pool_deinit(struct pool *p)
{
	BUG_ON(p->bytes_out != 0);
	for (unsigned i = 0; i < POOL_CLASSES; i++)
		slabs_free(&p->partial[i]);
	slabs_free(&p->full);
}

/* The memory of one slab: all of a page-aligned 64 KiB, or a head and one large block. */
static struct slab *slab_new(struct pool *p, unsigned class, size_t bytes)
{
	size_t whole = bytes > SMALL_BYTES_MAX ? HEAD_BYTES + bytes : SLAB_BYTES;
	struct slab *s;

	if (whole < bytes)
		return NULL;
	if (POOL_KEEPS)
		s = aligned_alloc(SLAB_BYTES, (whole + SLAB_BYTES - 1) & ~(size_t)(SLAB_BYTES - 1));
	else
		s = malloc(HEAD_BYTES + bytes);
	if (!s)
		return NULL;
	p->mallocs++;
	list_init(&s->link);
	s->free = NULL;
	s->fresh = HEAD_BYTES;
	s->used = 0;
	s->class = class;
	s->bytes = bytes;
	return s;
}

static bool is_full(const struct slab *s)
{
	return !s->free && (s->bytes > SMALL_BYTES_MAX || s->fresh + s->bytes > SLAB_BYTES);
}

static void *take(struct pool *p, struct slab *s)
{
	void *block = s->free;

	if (block) {
		memcpy(&s->free, block, sizeof(s->free));
	} else {
		block = (uint8_t *)s + s->fresh;
		s->fresh += (uint32_t)s->bytes;
	}
	if (s->used++ == 0)
		p->kept -= SLAB_BYTES;
	p->bytes_out += s->bytes;
	return block;
}

/* One block a slab. */
static void *alloc_large(struct pool *p, unsigned class, size_t bytes)
{
	struct slab *s =
		class == NO_CLASS ? NULL : list_first(&p->partial[class], struct slab, link);

	if (s) {
		list_del(&s->link);
		p->kept -= bytes;
	} else {
		s = slab_new(p, class, bytes);
		if (!s)
			return NULL;
	}
	p->bytes_out += bytes;
	return (uint8_t *)s + HEAD_BYTES;
}

static void free_large(struct pool *p, struct slab *s)
{
	p->bytes_out -= s->bytes;
	if (!POOL_KEEPS || s->class == NO_CLASS || p->kept + s->bytes > POOL_KEPT_BYTES_MAX) {
		free(s);
		return;
	}
	p->kept += s->bytes;
	list_add_head(&p->partial[s->class], &s->link);
}

void *pool_alloc(struct pool *p, size_t n)
{
	size_t bytes;
	unsigned class = class_of(n, &bytes);
	struct slab *s;
	void *block;

	if (!POOL_KEEPS || bytes > SMALL_BYTES_MAX)
		return alloc_large(p, POOL_KEEPS ? class : NO_CLASS, POOL_KEEPS ? bytes : n);
	s = list_first(&p->partial[class], struct slab, link);
	if (!s) {
		s = slab_new(p, class, bytes);
		if (!s)
			return NULL;
		list_add_head(&p->partial[class], &s->link);
		p->kept += SLAB_BYTES;
	}
	block = take(p, s);
	if (is_full(s)) {
		list_del(&s->link);
		list_add_tail(&p->full, &s->link);
	}
	return block;
}

void *pool_zalloc(struct pool *p, size_t n)
{
	void *block = pool_alloc(p, n);

	return block ? memset(block, 0, n) : NULL;
}

static struct slab *slab_of(void *block)
{
	uintptr_t at = (uintptr_t)block;

	return (struct slab *)(POOL_KEEPS ? at & ~(uintptr_t)(SLAB_BYTES - 1) : at - HEAD_BYTES);
}

/* All of it came back. What is kept stands behind those in use, which it lets run full first. */
static void slab_empty(struct pool *p, struct slab *s)
{
	list_del(&s->link);
	if (p->kept + SLAB_BYTES > POOL_KEPT_BYTES_MAX) {
		free(s);
		return;
	}
	p->kept += SLAB_BYTES;
	list_add_tail(&p->partial[s->class], &s->link);
}

void pool_free(struct pool *p, void *block)
{
	struct slab *s;

	if (!block)
		return;
	s = slab_of(block);
	if (!POOL_KEEPS || s->bytes > SMALL_BYTES_MAX) {
		free_large(p, s);
		return;
	}
	if (is_full(s)) {
		list_del(&s->link);
		list_add_head(&p->partial[s->class], &s->link);
	}
	memcpy(block, &s->free, sizeof(s->free));
	s->free = block;
	p->bytes_out -= s->bytes;
	if (--s->used == 0)
		slab_empty(p, s);
}
