/* SPDX-License-Identifier: MIT */
/*
 * Memory, or the end of the process. A distributor that has none may stop at any point: nothing is
 * acknowledged that was not passed on, so the brokers repeat it when it is back.
 */
#ifndef SSDTF_DISTRIBUTOR_ALLOC_H
#define SSDTF_DISTRIBUTOR_ALLOC_H

#include <stddef.h>
#include <stdlib.h>
#include <sysexits.h>

#include "userspace/base/log.h"

/* Zeroed; free() takes it back. */
static inline void *alloc_zeroed(size_t n)
{
	void *p = calloc(1, n ? n : 1);

	if (!p)
		exit_with(EX_OSERR, "out of memory: ending; what is not acknowledged comes again");
	return p;
}

static inline void *alloc_larger(void *p, size_t n)
{
	void *larger = realloc(p, n);

	if (!larger)
		exit_with(EX_OSERR, "out of memory: ending; what is not acknowledged comes again");
	return larger;
}

#endif
