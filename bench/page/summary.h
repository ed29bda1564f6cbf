/* SPDX-License-Identifier: MIT */
/*
 * The tables of a page.
 */
#ifndef SSDTF_BENCH_SUMMARY_H
#define SSDTF_BENCH_SUMMARY_H

#include <stdio.h>

struct input;

/* A few figures in large letters: ratio to mosquitto, to the token, sealed to plain. */
void summary_write_tiles(FILE *to, const struct input *in);
/* Ratio to mosquitto, ratio to each ceiling, sealed against plain. */
void summary_write(FILE *to, const struct input *in);
/* What was to be reached against mosquitto, and whether it was. */
void summary_write_targets(FILE *to, const struct input *in);
/* Every scenario of ssdtf-bench compare. */
void summary_write_compare(FILE *to, const struct input *in);

#endif
