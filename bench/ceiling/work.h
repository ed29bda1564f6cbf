/* SPDX-License-Identifier: MIT */
/*
 * What is timed: a function that does one thing so many times, and what is said of it. A work's bed
 * is all that it needs, made ready before; the processes that do the work inherit it by fork().
 */
#ifndef SSDTF_BENCH_WORK_H
#define SSDTF_BENCH_WORK_H

#include <stdbool.h>

#define WORKS_MAX 96

struct work {
	const char *name;
	const char *part; /* heading that it stands under */
	/* Where they say something of it, else 0: see ceiling.h. */
	unsigned bytes, batch, context;
	unsigned each; /* operations of one run: a batch is signed as a whole */
	bool memory;   /* its growth of memory is of interest */
	void (*run)(const struct work *w, unsigned runs);
	void *bed;
};

struct works {
	const char *part; /* of those to come */
	unsigned n;
	struct work list[WORKS_MAX];
};

/* One more, of which the caller sets what is not 0 besides; each is 1. */
struct work *works_add(struct works *w, const char *name,
		       void (*run)(const struct work *w, unsigned runs), void *bed);

/* What a benchmark cannot do without went wrong: says what, and ends the program. */
void work_must(int ret, const char *what);
/* Something is not what it has to be before it is worth timing: likewise. */
void work_prove(bool holds, const char *what);

#endif
