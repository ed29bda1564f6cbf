/* SPDX-License-Identifier: MIT */
/*
 * Processes that do works for a moment at a time, the first n of them at once:
 *
 *   the program ──"work 7, from then on, for 0.2 s"──► process 0 (on the first CPU), 1, 2 ...
 *               ◄──"12,345 operations, 0.199 s of CPU"──
 *
 * Processes and not threads, because that is what ssdtf-hsmd has, and because nothing of one can
 * then hold up another. All begin a slice at the same instant. Who cannot do its work says so and
 * ends, and the program ends with it.
 */
#ifndef SSDTF_BENCH_CREW_H
#define SSDTF_BENCH_CREW_H

#include <stdint.h>

#include "bench/ceiling/work.h"

#define CREW_MAX 64

struct crew;

struct crew_slice {
	uint64_t operations;
	double per_second; /* of all together */
	double cpu_us;	   /* of one operation, user and system time of the process */
	int64_t rss_kib;   /* by which the processes' resident memory grew */
};

/* n processes. Each calls ready(ctx, which) once, one after another. The works stay the caller's.
 * Ends the program where one does not come about. */
struct crew *crew_start(const struct works *w, unsigned n, void (*ready)(void *ctx, unsigned which),
			void *ctx);
void crew_slice(struct crew *c, unsigned work, unsigned processes, double seconds,
		struct crew_slice *ret_s);
void crew_stop(struct crew *c);

/* How many CPUs this process may use. */
unsigned crew_cpus(void);

#endif
