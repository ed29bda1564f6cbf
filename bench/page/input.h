/* SPDX-License-Identifier: MIT */
/*
 * The files that a page is made of: results of scenarios (bench/flow/json.h), of the machine alone
 * (bench/ceiling/ceiling.h) and of both in turn (bench/reach/reach.h), in any number and order.
 * Whoever wrote them, they are read as if a stranger had: what is not as it must be ends the
 * program with 65, the file and the place.
 */
#ifndef SSDTF_BENCH_INPUT_H
#define SSDTF_BENCH_INPUT_H

#include "bench/flow/json.h"

#define INPUT_FILES_MAX	 32
#define INPUT_NAME_BYTES 64

struct json_t;

struct input_file {
	const char *path;
	struct json_t *root; /* an object */
};

/* What the machine does at most: "kind": "speed". */
struct input_speed {
	char name[INPUT_NAME_BYTES];
	unsigned processes, bytes, batch, context; /* 0: says nothing here */
	struct figure per_second, cpu_us;
};

/* Of CPU time, each value made within a round: "kind": "ratio". */
struct input_ratio {
	char name[2 * INPUT_NAME_BYTES];
	unsigned processes;
	struct figure ratio;
};

/* Of a ceiling, by the whole broker: "kind": "reach". */
struct input_reach {
	char name[INPUT_NAME_BYTES], of[2 * INPUT_NAME_BYTES], unit[16];
	unsigned cpus;
	struct figure value, reached, alone; /* the latter two where value is their ratio */
	bool wanted, at_least, met;
	double wanted_value;
};

struct input {
	unsigned n_files, n_entries, n_speeds, n_ratios, n_reaches;
	struct input_file files[INPUT_FILES_MAX];
	struct json_entry *entries; /* of all files */
	struct input_speed *speeds;
	struct input_ratio *ratios;
	struct input_reach *reaches;
};

void input_load(struct input *in, char *const *paths, unsigned n);
void input_free(struct input *in);
/* The first that is so; 0 stands for whatever it is. NULL where there is none. */
const struct input_speed *input_speed_find(const struct input *in, const char *name,
					   unsigned processes, unsigned batch, unsigned context);

#endif
