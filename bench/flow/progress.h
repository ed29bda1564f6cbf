/* SPDX-License-Identifier: MIT */
/*
 * A line a second, while it runs: how far it is.
 */
#ifndef SSDTF_BENCH_PROGRESS_H
#define SSDTF_BENCH_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool quiet;
	uint64_t begun_ns, next_ns, last_ns, last;
};

void progress_init(struct progress *p, bool quiet);
/* As often as one likes; delivered is the count so far. */
void progress_tick(struct progress *p, uint64_t now_ns, uint64_t delivered);

#endif
