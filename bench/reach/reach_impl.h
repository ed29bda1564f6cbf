/* SPDX-License-Identifier: MIT */
/*
 * What the files of ssdtf-bench reach share. Private to them.
 */
#ifndef SSDTF_BENCH_REACH_IMPL_H
#define SSDTF_BENCH_REACH_IMPL_H

#include <stdio.h>

#include "bench/ceiling/crew.h"
#include "bench/flow/scenario.h"

#define REACH_ROUNDS_MAX  16
#define REACH_ENTRIES_MAX 48
#define REACH_WORDS_BYTES 160

struct json_t;

struct reach_options {
	unsigned rounds, receivers;
	double seconds;
	char only[128]; /* fnmatch(3) of entries' names; empty: all */
	const char *json, *programs;
};

enum reach_wanted { REACH_ANY, REACH_AT_LEAST, REACH_AT_MOST };

/* One value of each round. */
struct reach_values {
	unsigned n;
	double v[REACH_ROUNDS_MAX];
};

struct reach_entry {
	const char *name, *of, *unit;
	enum reach_wanted wanted;
	double wanted_value;
	char words[REACH_WORDS_BYTES]; /* of the scenario; empty: none */
	unsigned cpus;
	struct reach_values value, reached, alone; /* reached, alone: none but of ratios */
	struct reach_values cpu;		   /* the ratio by CPU time of the CPUs given */
	struct reach_values own;		   /* of the loop's CPU, by what is ours there */
	struct reach_values given, loop, clients;  /* busy, of 1 */
	uint64_t bad;
};

struct reach {
	const struct reach_options *options;
	unsigned n;
	struct reach_entry entries[REACH_ENTRIES_MAX];
};

/* What measures: a stage for the whole broker, and a crew for what is done alone. */
struct bench {
	struct reach reach;
	struct stage *stage;
	struct works works;
	struct crew *crew;
};

void reach_values_add(struct reach_values *to, double v);
struct figure reach_figure(const struct reach_values *v);
/* Whether the entry keeps its target; of one without, or without values, true. */
bool reach_met(const struct reach_entry *e);

/* reach_options.c */
void reach_parse(int argc, char **argv, struct reach_options *ret_o);

/* reach.c */
/* One more; NULL where --only leaves it out. */
struct reach_entry *reach_add(struct reach *r, const char *name, const char *of, const char *unit);
/* The work of that name, and under one signature so many (0: whatever it is). */
unsigned reach_work(const struct works *w, const char *name, unsigned batch);
/* One scenario; what was lost is counted in the entry. */
void reach_run(struct bench *b, struct reach_entry *e, const struct scenario *sc,
	       struct outcome *ret_o);
/* Seconds of CPU of processes whose name begins so. */
double reach_cpu(const struct outcome *o, const char *name);

/* reach_ratios.c: conversions and ingress. Adds entries; which parties they take goes into o. */
void reach_ratios_plan(struct reach *r, unsigned spare_cpus, struct stage_options *o);
void reach_ratios_round(struct bench *b);

/* reach_egress.c */
void reach_egress_plan(struct reach *r, struct stage_options *o);
void reach_egress_round(struct bench *b);

/* Takes at least what this scenario wants. */
void reach_parties(const struct scenario *sc, struct stage_options *o);

/* reach_sheet.c */
void reach_print(const struct reach *r, const struct json_t *head, FILE *to);
/* Puts them into root, whose head is there. */
void reach_to_json(const struct reach *r, struct json_t *root);

#endif
