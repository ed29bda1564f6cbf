/* SPDX-License-Identifier: MIT */
/* What the rotate_*.c files share. */
#ifndef SSDTF_MANAGER_ROTATE_IMPL_H
#define SSDTF_MANAGER_ROTATE_IMPL_H

#include "userspace/manager/manager.h"

#define ROTATE_HOUR_MS	 (60ull * 60 * 1000)
#define ROTATE_TIME_ROOM 32

/* The end of an overlap that begins now. */
static inline uint64_t rotate_overlap_end(const struct manager *m, uint32_t hours)
{
	return m->now_ms + hours * ROTATE_HOUR_MS;
}

/* 2026-01-31T23:59:59Z */
char *rotate_time_text(uint64_t ms, char out[ROTATE_TIME_ROOM]);

/* -EBUSY with words where until is still to come: what is rotated, and why it has to wait. */
int rotate_check_overlap(struct manager *m, const char *what, const char *name, const char *why,
			 uint64_t until_ms) must_check;

#endif
