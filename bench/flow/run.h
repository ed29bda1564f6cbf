/* SPDX-License-Identifier: MIT */
/*
 * ssdtf-bench run: one scenario, from options.
 */
#ifndef SSDTF_BENCH_RUN_H
#define SSDTF_BENCH_RUN_H

#include <stdio.h>

#include "bench/flow/scenario.h"

#define RUN_ROUNDS_MAX 32

struct run_options {
	struct scenario scenario;
	struct stage_options stage;
	unsigned rounds;
	const char *json; /* NULL: none */
};

/* Reads a command line, whose first word is the command; an error ends the program. */
void run_parse(int argc, char **argv, struct run_options *ret_o);
/* What was measured, for people. */
void run_print(const struct scenario *s, const struct outcome *rounds, unsigned n, FILE *to);

/* argv[0] is the command. Returns the exit code. */
int run_main(int argc, char **argv);

#endif
