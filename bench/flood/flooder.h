/* SPDX-License-Identifier: MIT */
/*
 * Ill-behaved clients: so many connections a second, each of which sends its bogus first bytes as
 * soon as it can and ends with a RST after a while. In a process of its own, on one CPU; it goes on
 * until it is told to stop. Open loop: it keeps the rate whatever the server does, as far as its
 * CPU takes it, and says what it reached.
 */
#ifndef SSDTF_BENCH_FLOODER_H
#define SSDTF_BENCH_FLOODER_H

#include <stdatomic.h>
#include <stdint.h>

#include "bench/flood/bogus.h"

#define FLOODER_RATE_MAX 200000
#define FLOODER_OPEN_MAX 32768 /* at a time */

struct flooder_options {
	struct bogus *bogus;
	unsigned rate;	  /* a second */
	unsigned hold_ms; /* from connect() to RST */
	uint16_t port;
};

/* Shared with the lab. */
struct flooder_state {
	atomic_bool stop;
	/* Once it has ended: */
	uint64_t begun;	    /* connections; SYNs */
	uint64_t connected; /* of them: handshakes that were completed, as the client sees it */
	uint64_t sent;	    /* of those: first bytes that went out */
	uint64_t left_out;  /* that the rate asked for, and no time was left for */
	double seconds;
};

/* Runs until stop; called in a child. Returns its exit code. */
int flooder_run(const struct flooder_options *o, struct flooder_state *s);
/* The same for BOGUS_SYN, which takes a raw socket. */
int flooder_run_syn(const struct flooder_options *o, struct flooder_state *s);

/* Shared by both: how many are due at a steady rate. */
struct flooder_pace {
	unsigned rate;
	uint64_t start_ns, begun, left_out;
};

uint64_t flooder_now_ns(void);
void flooder_pace_init(struct flooder_pace *p, unsigned rate);
/* How many to begin now. What is late by more than a tenth of a second is left out, not made up
 * for in a burst. */
uint64_t flooder_pace_due(struct flooder_pace *p, uint64_t now_ns);
void flooder_pace_report(const struct flooder_pace *p, struct flooder_state *s);

#endif
