/* SPDX-License-Identifier: MIT */
/*
 * The plots of a page: the series of ssdtf-bench grow, each with the ceilings that hold for it.
 */
#ifndef SSDTF_BENCH_GROWTH_H
#define SSDTF_BENCH_GROWTH_H

#include <stdio.h>

struct input;

/* Throughput and latency against load. */
void growth_write_load(FILE *to, const struct input *in);
/* What a delivery costs: connections, receivers, subscriptions, payload. */
void growth_write_cost(FILE *to, const struct input *in);
/* What the token and signatures allow: contexts, key processes, batches. */
void growth_write_token(FILE *to, const struct input *in);

#endif
