/* SPDX-License-Identifier: MIT */
/*
 * How much of each ceiling the whole broker reaches: what ssdtf-bench reach measured.
 */
#ifndef SSDTF_BENCH_REACHED_H
#define SSDTF_BENCH_REACHED_H

#include <stdio.h>

struct input;

void reached_write(FILE *to, const struct input *in);

#endif
