/* SPDX-License-Identifier: MIT */
/*
 * What is said of a figure that was measured more than once, and of many latencies.
 */
#ifndef SSDTF_BENCH_FIGURE_H
#define SSDTF_BENCH_FIGURE_H

#include <stddef.h>
#include <stdint.h>

#define FIGURE_VALUES_MAX 256

/* Of n values; all NAN where n is 0. */
struct figure {
	unsigned n;
	double min, median, max;
};

struct figure figure_of(const double *values, unsigned n);

/* Of latencies in microseconds; zeros where n is 0. */
struct figure_latency {
	uint32_t min, median, p99, max;
};

/* Sorts us. */
struct figure_latency figure_latency_of(uint32_t *us, size_t n);

#endif
