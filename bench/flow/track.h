/* SPDX-License-Identifier: MIT */
/*
 * What one receiver has had of one sender, whose messages are numbered from 0: what is missing,
 * came twice, or came behind a later one. Zeroed is the beginning.
 */
#ifndef SSDTF_BENCH_TRACK_H
#define SSDTF_BENCH_TRACK_H

#include <stdint.h>

#define TRACK_BACK 64 /* so far back it is known what came */

struct track {
	uint64_t next; /* the highest that came, and 1 */
	uint64_t seen; /* bit i: next - 1 - i came */
};

enum track_verdict {
	TRACK_NEW,   /* above all before; *ret_skipped were left out */
	TRACK_LATE,  /* one that was left out; also whatever is further back than is known */
	TRACK_AGAIN, /* it came before */
};

enum track_verdict track_take(struct track *t, uint64_t number, uint64_t *ret_skipped);

#endif
