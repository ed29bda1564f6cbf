/* SPDX-License-Identifier: MIT */
/*
 * How long things took, in any number, in fixed memory: each power of two is cut into 128 equal
 * steps, so that a value is known to less than 1 % (below 256 exactly). Zeroed is empty.
 */
#ifndef SSDTF_BENCH_HISTOGRAM_H
#define SSDTF_BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEPS_LOG 7
#define HISTOGRAM_STEPS	    (1u << HISTOGRAM_STEPS_LOG)
#define HISTOGRAM_BITS	    40 /* larger values count as the largest */
#define HISTOGRAM_CELLS	    ((HISTOGRAM_BITS - HISTOGRAM_STEPS_LOG + 1) * HISTOGRAM_STEPS)

struct histogram {
	uint64_t n, min, max;
	uint64_t cells[HISTOGRAM_CELLS];
};

void histogram_add(struct histogram *h, uint64_t value);
/* The least value that at least this part (0 to 1) of all are no larger than; 0 where there are
 * none. */
uint64_t histogram_at(const struct histogram *h, double part);

#endif
