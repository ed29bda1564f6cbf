/* SPDX-License-Identifier: MIT */
/*
 * Memory in size classes (powers of two, 64 B to 256 KiB; larger goes to malloc), kept on free
 * lists so that a busy broker stops calling malloc once it is warm. One thread. Blocks know their
 * class, so that pool_free needs no size. Under the address sanitizer the lists are off and every
 * block is malloc's own, so that a stale pointer is found.
 */
#ifndef SSDTF_BASE_POOL_H
#define SSDTF_BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "userspace/base/compiler.h"

#define POOL_CLASSES 13

struct pool {
	void *free_list[POOL_CLASSES];
	uint64_t mallocs; /* since init: what the data path is measured by */
	size_t bytes_out; /* handed out, by class size */
};

void pool_init(struct pool *p);
/* Gives the free lists back; blocks still out stay valid for free() by nobody: a bug. */
void pool_deinit(struct pool *p);
/* Not cleared. NULL: no memory. */
void *pool_alloc(struct pool *p, size_t n) must_check;
void *pool_zalloc(struct pool *p, size_t n) must_check;
void pool_free(struct pool *p, void *block);

#endif
