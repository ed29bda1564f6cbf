/* SPDX-License-Identifier: MIT */
/*
 * The clients of a scenario: one process, one thread, epoll. They must cost less than the broker,
 * so they receive much at once, look at packets in place, and send with one write what may go.
 *
 *   the lab (scenario_run.c)          the clients
 *   starts them                  -->  idle connections, other subscriptions
 *   reads memory                 <--  CLIENTS_IDLE_THERE
 *   CLIENTS_GO_ON                -->  connect, subscribe
 *                                <--  CLIENTS_READY
 *   CLIENTS_RUN, warm-up, reads  -->  send and receive
 *   CLIENTS_DRAIN, reads         -->  send no more; wait for what is under way
 *                                <--  end, with what was lost
 *
 * What they count lies in shared memory, so that the lab's readings before and after the window are
 * of the same moment as those of CPU time.
 */
#ifndef SSDTF_BENCH_CLIENTS_H
#define SSDTF_BENCH_CLIENTS_H

#include <stdatomic.h>
#include <stdint.h>

#include "bench/flow/histogram.h"
#include "bench/flow/scenario.h"

#define CLIENTS_WHY_BYTES   256
#define CLIENTS_OTHERS_EACH 2000 /* other subscriptions that one client holds */

struct device;
struct material;

/* What the lab asks for, in this order. */
enum clients_order { CLIENTS_WAIT, CLIENTS_GO_ON, CLIENTS_RUN, CLIENTS_DRAIN };
/* How far they are. */
enum clients_stage { CLIENTS_BEGUN, CLIENTS_IDLE_THERE, CLIENTS_READY };

struct clients_shared {
	_Atomic uint32_t order, stage;
	/* Latency is of messages that were due between these (CLOCK_MONOTONIC). */
	_Atomic uint64_t from_ns, to_ns;
	_Atomic uint64_t sent, delivered;
	_Atomic bool exhausted; /* what was sealed ahead is used up */
	/* At the end. */
	uint64_t lost, duplicated, disordered, wrong, opened;
	unsigned refused;	     /* the reason of a $SSDTF/error, PROTOCOL 7; 0: none */
	unsigned closed;	     /* connections that the broker ended in the midst of it */
	char why[CLIENTS_WHY_BYTES]; /* what went wrong, where the process fails */
	struct histogram latency;    /* us */
	struct histogram late;	     /* us that the clients themselves were behind */
};

struct clients_options {
	const struct scenario *scenario;
	uint16_t port;
	/* Sealed: as many as take part, and what the senders have sealed. */
	struct device *senders, *receivers, *idle;
	struct material *material;
	struct clients_shared *shared;
	int bell; /* an eventfd: rung at each stage, and when exhausted */
};

/* The process; its exit code. ctx is a struct clients_options. */
int clients_run(void *ctx);

/* How many of each take part. */
unsigned clients_senders(const struct scenario *s);
unsigned clients_receivers(const struct scenario *s);
unsigned clients_others(const struct scenario *s);
/* Copies that one message makes. */
unsigned clients_copies(const struct scenario *s);

#endif
