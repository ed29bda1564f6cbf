/* SPDX-License-Identifier: MIT */
/*
 * The tables of a page that are of the machine alone.
 */
#ifndef SSDTF_BENCH_BASELINE_H
#define SSDTF_BENCH_BASELINE_H

#include <stdio.h>

struct input;

/* What other ways to make a delivery readable for its receiver cost, beside ours. */
void baseline_write(FILE *to, const struct input *in);
/* All ceilings. */
void baseline_write_speeds(FILE *to, const struct input *in);

#endif
