/* SPDX-License-Identifier: MIT */
/*
 * ssdtf-bench flood: what a flood of bogus connections costs a gateway, and its good clients, with
 * the admission filter and without, and another broker. bench/README.md says how to read it.
 */
#ifndef SSDTF_BENCH_FLOOD_H
#define SSDTF_BENCH_FLOOD_H

#include "bench/flood/price.h"
#include "bench/flood/trial.h"

#define FLOOD_ROUNDS_MAX 16
#define FLOOD_TRIALS_MAX (FLOOD_ROUNDS_MAX * BOGUS_KINDS * SERVER_KINDS)

struct flood_options {
	struct trial_options trial;
	bool kinds[BOGUS_KINDS];
	bool servers[SERVER_KINDS];
	unsigned rounds, devices, pairs, server_percent;
	const char *programs; /* NULL: beside this one */
	const char *json;     /* NULL: none */
};

/* Reads a command line, whose first word is the command; an error ends the program. */
void flood_parse(int argc, char **argv, struct flood_options *ret_o);

/* All that was measured. */
struct flood {
	const struct flood_options *options;
	const struct lab *lab;
	bool servers[SERVER_KINDS];
	char absent[SERVER_KINDS][256]; /* why a server was left out, empty: it was not asked for */
	unsigned n;
	struct trial trials[FLOOD_TRIALS_MAX]; /* by kind, then round, then server */
	struct price price;
};

/* argv[0] is the command. Returns the exit code. */
int flood_main(int argc, char **argv);

#endif
