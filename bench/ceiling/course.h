/* SPDX-License-Identifier: MIT */
/*
 * All works, round by round: a slice of each, with each number of processes, then the next round.
 * What is compared is so measured within seconds of each other, and again in the next round.
 */
#ifndef SSDTF_BENCH_COURSE_H
#define SSDTF_BENCH_COURSE_H

#include <stdio.h>

#include "bench/ceiling/crew.h"
#include "bench/ceiling/work.h"
#include "bench/lab/figure.h"

#define COURSE_ROUNDS_MAX 64
#define COURSE_COUNTS_MAX 16

struct json_t;

struct course_plan {
	const char *title;
	double seconds;	 /* of a slice */
	unsigned rounds; /* at most COURSE_ROUNDS_MAX */
	unsigned n_counts;
	unsigned counts[COURSE_COUNTS_MAX]; /* of processes, ascending */
};

/* Of one work with one number of processes. */
struct course_series {
	double per_second[COURSE_ROUNDS_MAX], cpu_us[COURSE_ROUNDS_MAX];
	uint64_t operations; /* of the rounds after the first, which warms up */
	int64_t rss_kib;
};

struct course {
	const struct course_plan *plan;
	const struct works *works;
	struct course_series series[WORKS_MAX][COURSE_COUNTS_MAX];
};

/* CPU time of one operation of a work by that of another. */
struct course_ratio {
	const char *name;
	const char *of, *to;
	unsigned of_bytes, to_bytes, of_batch, to_batch, of_context, to_context;
};

/* The caller's to free. One line of progress a round, on stderr. */
struct course *course_run(const struct course_plan *p, const struct works *w, struct crew *c);

/* Tables. A ratio of works of which one is not there is left out. */
void course_print(const struct course *c, FILE *to);
void course_print_ratios(const struct course *c, const struct course_ratio *r, unsigned n,
			 FILE *to);
/* ceiling.h's entries. */
struct json_t *course_entries(const struct course *c, const struct course_ratio *r, unsigned n);

#endif
