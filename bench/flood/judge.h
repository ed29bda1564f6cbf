/* SPDX-License-Identifier: MIT */
/*
 * The figures of a flood run, and whether the filter keeps what is asked of it. A ratio of two
 * servers is made round by round, so that both were measured one right after the other; what is
 * judged is its median.
 */
#ifndef SSDTF_BENCH_JUDGE_H
#define SSDTF_BENCH_JUDGE_H

#include <stdbool.h>

#include "bench/lab/figure.h"
#include "bench/flood/flood.h"

/* A figure of a trial. */
struct judge_metric {
	const char *key;  /* in JSON */
	const char *name; /* in the table */
	const char *format;
	double (*of)(const struct trial *t);
};

enum judge_metric_id {
	JUDGE_REACHED,
	JUDGE_CONNECTED,
	JUDGE_SENT,
	JUDGE_SERVER,
	JUDGE_CORE,
	JUDGE_MACHINE,
	JUDGE_STOLEN,
	JUDGE_BASE,
	JUDGE_FULL,
	JUDGE_TOLD,
	JUDGE_SYN_RECV,
	JUDGE_OVERFLOWS,
	JUDGE_COOKIES,
	JUDGE_IDLE_RATE,
	JUDGE_FLOOD_RATE,
	JUDGE_RATE_RATIO,
	JUDGE_IDLE_SERVER_BUSY,
	JUDGE_FLOOD_SERVER_BUSY,
	JUDGE_IDLE_CLIENT_BUSY,
	JUDGE_FLOOD_CLIENT_BUSY,
	JUDGE_BESIDE_CLOSED,
	JUDGE_BESIDE_OPEN,
	JUDGE_IDLE_LOST,
	JUDGE_FLOOD_LOST,
	JUDGE_METRICS,
};

const struct judge_metric *judge_metric(enum judge_metric_id id);

/* Over the rounds. */
struct figure judge_figure(const struct flood *f, enum bogus_kind kind, enum server_kind server,
			   enum judge_metric_id id);

/* What is asked of the filter. */
struct judge_target {
	char what[96];
	struct figure figure;
	double wanted;
	bool at_least; /* else at most */
	bool met;
};

#define JUDGE_TARGETS_MAX (BOGUS_KINDS * 4 + 2)

/* Returns how many; none without a server with the filter. */
unsigned judge_targets(const struct flood *f, struct judge_target t[JUDGE_TARGETS_MAX]);

#endif
