/* SPDX-License-Identifier: MIT */
/*
 * The command lines of `ssdtf-bench hsm` and `ssdtf-bench crypto`.
 */
#ifndef SSDTF_BENCH_OPTIONS_H
#define SSDTF_BENCH_OPTIONS_H

#include "bench/ceiling/course.h"

struct ceiling_options {
	struct course_plan plan;
	const char *json; /* NULL: none */
	/* hsm alone: all three or none (a throw-away token). */
	const char *module, *label, *pin_file;
};

void options_hsm(int argc, char **argv, struct ceiling_options *ret_o);
void options_crypto(int argc, char **argv, struct ceiling_options *ret_o);

#endif
