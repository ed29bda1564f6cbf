/* SPDX-License-Identifier: MIT */
/*
 * Results of scenarios as a file, and back: behind the head (bench/lab/results.h)
 *
 *   "entries": [ { "series": "receivers", "scenario": { every field of struct scenario by name },
 *                  "words": "fan-out 1->100, plain, QoS 0, 64 B, 100 in flight",
 *                  "rounds": [ { every field of struct outcome by name,
 *                                "values": { every enum outcome_metric by name } } ] } ]
 *
 * A series is what belongs together: a plot, or a table. "words" and "values" follow from the rest;
 * they are for readers without this program, and not read back. What has no value is null.
 */
#ifndef SSDTF_BENCH_JSON_H
#define SSDTF_BENCH_JSON_H

#include "bench/flow/scenario.h"
#include "userspace/base/compiler.h"

#define JSON_SERIES_BYTES 24

struct json_t;

struct json_entry {
	char series[JSON_SERIES_BYTES];
	struct scenario scenario;
	unsigned n_rounds;
	struct outcome *rounds;
};

/* Puts the entries into root, in place of those that it has. */
void json_entries_set(struct json_t *root, const struct json_entry *entries, unsigned n);
/*
 * -EINVAL where it is not as above, and then *ret_why says where and why. *ret_n is 0 where root
 * has no entries, which other commands' files have not. To be freed by json_entries_free().
 */
int json_entries_get(const struct json_t *root, struct json_entry **ret_entries, unsigned *ret_n,
		     char *ret_why, size_t room) must_check;
void json_entries_free(struct json_entry *entries, unsigned n);

/* The metric's name in JSON: "server_us". */
const char *json_metric_name(enum outcome_metric m);

#endif
