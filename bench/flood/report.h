/* SPDX-License-Identifier: MIT */
/*
 * What a flood run found: a table for people, and JSON with every single value.
 */
#ifndef SSDTF_BENCH_REPORT_H
#define SSDTF_BENCH_REPORT_H

#include <stdio.h>

#include "bench/flood/flood.h"

void report_print(const struct flood *f, FILE *to);
/* Returns the program's exit code; says what went wrong. */
int report_write(const struct flood *f, const char *path) must_check;

#endif
