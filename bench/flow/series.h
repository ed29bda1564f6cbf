/* SPDX-License-Identifier: MIT */
/*
 * The series of ssdtf-bench grow: one thing that grows, everything else as it was.
 */
#ifndef SSDTF_BENCH_SERIES_H
#define SSDTF_BENCH_SERIES_H

#include "bench/flow/scenario.h"

enum series_id {
	SERIES_CONNECTIONS,   /* connections besides, which say nothing */
	SERIES_RECEIVERS,     /* of each message */
	SERIES_SUBSCRIPTIONS, /* besides, which match nothing */
	SERIES_PAYLOAD,	      /* bytes */
	SERIES_LOAD,	      /* messages a second, open loop */
	SERIES_CONTEXT,	      /* messages of one HPKE context */
	SERIES_HSMD,	      /* processes that hold the token */
	SERIES_BATCH,	      /* PUBLISHes under one signature of their sender */
	SERIES,
};

struct series {
	const char *name, *x; /* "receivers", "receivers of each message" */
	const char *same;     /* what all of its points have in common */
	double (*of)(const struct scenario *s);
};

struct campaign;

const struct series *series_get(enum series_id id);
/* Adds the points of a series, a group for each value, or fewer where the campaign is quick. */
void series_add(struct campaign *c, enum series_id id);

#endif
