/* SPDX-License-Identifier: MIT */
/*
 * How other threads end the loop's wait, at most once for all they have to say. The loop announces
 * its sleep, looks once more at what the threads may have finished, and only then waits; a thread
 * publishes its result first and signals after. Both sides use sequentially consistent operations,
 * so one of them always sees the other.
 */
#ifndef SSDTF_CORE_WAKE_H
#define SSDTF_CORE_WAKE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "userspace/base/compiler.h"

struct wake {
	int fd; /* an eventfd, for the loop's poll */
	atomic_bool sleeping;
};

int wake_init(struct wake *w) must_check;
void wake_deinit(struct wake *w);

/* The loop's thread: before its last look, and after the wait. */
void wake_sleep(struct wake *w);
void wake_awake(struct wake *w);
/* After a poll said that the descriptor is readable. */
void wake_clear(struct wake *w);

/* Any thread. */
void wake_signal(struct wake *w);

#endif
