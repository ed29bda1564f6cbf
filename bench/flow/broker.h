/* SPDX-License-Identifier: MIT */
/*
 * The broker that a scenario runs against: a fresh process with fresh state, on the server's CPU
 * and on 127.0.0.1, and what it says of itself while it runs.
 */
#ifndef SSDTF_BENCH_BROKER_H
#define SSDTF_BENCH_BROKER_H

#include "bench/flow/scenario.h"
#include "bench/lab/child.h"
#include "bench/lab/site.h"

#define BROKER_PORT 1883u

struct broker_process {
	enum scenario_server server;
	const struct site *site;
	struct child child;
	char log[SITE_PATH_BYTES];
	char state[SITE_PATH_BYTES]; /* empty: none */
	unsigned asked;		     /* how often it was asked for its counters */
	bool counts_mallocs;
	uint64_t mallocs; /* when it was asked */
};

/* -ENOTSUP: this server cannot be started, and *ret_why says what is missing. */
int broker_try(const struct site *s, enum scenario_server server, const char *mosquitto,
	       char *ret_why, size_t room) must_check;
/* Ready when it returns; what goes wrong ends the program. */
void broker_start(struct broker_process *b, const struct site *s, const struct scenario *sc,
		  const char *mosquitto);
void broker_stop(struct broker_process *b);

/* ssdtf-broker's own counters; zeros of mosquitto's. */
struct broker_counts {
	uint64_t delivered, conversions, capsule_hits, signatures, signed_deliveries, commits;
	uint64_t token_packets, dropped, mallocs;
};

/* Asks, so that they are of now; the answer takes as long as the broker's turn. Each question gets
 * its answer before the next. */
void broker_ask(struct broker_process *b);
void broker_answer(struct broker_process *b, struct broker_counts *ret_c);
/* Resident memory of its process, KiB. */
uint64_t broker_rss_kib(const struct broker_process *b);

#endif
