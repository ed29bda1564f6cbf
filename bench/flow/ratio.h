/* SPDX-License-Identifier: MIT */
/*
 * ssdtf-broker, plain, against mosquitto: what the results of ssdtf-bench compare say. A ratio is
 * made within a round, of two runs that were neighbours in time, never of two medians; above 1 it
 * is in favour of ssdtf-broker.
 */
#ifndef SSDTF_BENCH_RATIO_H
#define SSDTF_BENCH_RATIO_H

#include "bench/flow/json.h"

/* The series of ssdtf-bench compare. */
#define RATIO_MESSAGES "compare"
#define RATIO_CONNECTS "connect"
#define RATIO_IDLE     "idle"

#define RATIO_MANY	  100 /* messages in flight, of each sender */
#define RATIO_PAIRS_MAX	  128
#define RATIO_TARGETS_MAX 4
#define RATIO_WORDS_BYTES 64

/* One scenario; theirs is NULL where mosquitto was not measured, and then the ratios are NAN. */
struct ratio {
	const struct json_entry *ours, *theirs;
	struct figure our_us, their_us; /* CPU of the broker's processes, for each delivery */
	struct figure cpu;		/* theirs / ours */
	struct figure per_second;	/* deliveries (connects), ours / theirs */
};

struct ratio_target {
	const char *what, *unit;
	bool at_least;
	double wanted;
	/* Of the scenarios' medians; n is 0 where none was measured. All of them must be so. */
	struct figure figure;
	bool met;
};

/* Those of a series, in the order of the entries. */
unsigned ratio_find(const struct json_entry *entries, unsigned n, const char *series,
		    struct ratio ret[RATIO_PAIRS_MAX]);
/* KiB of the broker's memory for each idle connection, over the rounds. */
struct figure ratio_idle_kib(const struct json_entry *e);
/* Of one metric, over the rounds. */
struct figure ratio_figure(const struct json_entry *e, enum outcome_metric m);
unsigned ratio_targets(const struct json_entry *entries, unsigned n,
		       struct ratio_target ret[RATIO_TARGETS_MAX]);
/* "fan-in 100->1, QoS 0, 64 B, 100 in flight": scenario_words() without what all have in common.
 */
void ratio_words(const struct scenario *s, char words[RATIO_WORDS_BYTES]);

#endif
