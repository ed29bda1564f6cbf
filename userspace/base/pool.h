/* SPDX-License-Identifier: MIT */
/*
 * Memory in size classes, four to a doubling, cut from slabs of 64 KiB: a block costs its class and
 * nothing more, blocks of one kind lie together, and a busy broker stops calling malloc once it is
 * warm. What came back whole is given back to the system, but for POOL_KEPT_BYTES_MAX. One thread.
 *
 *   slab (aligned to its size)   head | block | block | ...    a block finds its slab by masking
 *   up to 16 KiB                 as many as fit
 *   up to 256 KiB                one a slab of its own size
 *   larger                       one, never kept
 *
 * Under the address sanitizer every block is malloc's own, so that a stale pointer is found.
 */
#ifndef SSDTF_BASE_POOL_H
#define SSDTF_BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "userspace/base/compiler.h"
#include "userspace/base/list.h"

#define POOL_CLASSES	    49
#define POOL_KEPT_BYTES_MAX (32u << 20)

struct pool {
	struct list partial[POOL_CLASSES]; /* slabs with room */
	struct list full;
	size_t kept;	  /* bytes of slabs that are empty */
	uint64_t mallocs; /* since init: what the data path is measured by */
	size_t bytes_out; /* handed out, by class size */
};

void pool_init(struct pool *p);
/* All blocks must be back. */
void pool_deinit(struct pool *p);
/* Aligned for anything; not cleared. NULL: no memory. */
void *pool_alloc(struct pool *p, size_t n) must_check;
void *pool_zalloc(struct pool *p, size_t n) must_check;
/* NULL is fine. */
void pool_free(struct pool *p, void *block);

#endif
