/* SPDX-License-Identifier: MIT */
/*
 * Well-behaved clients: they connect, prove themselves (or, plain, wait for CONNACK), say
 * DISCONNECT and go. In a process of its own; what it found lies in memory shared with the lab.
 *
 *   closed loop   n at a time, the next as soon as one is done: how many a second there can be
 *   open loop     one is due every 1/rate seconds, whatever became of those before. Its latency
 *                 counts from when it was due, so a server that stands still is seen in full
 */
#ifndef SSDTF_BENCH_LOAD_H
#define SSDTF_BENCH_LOAD_H

#include <stdint.h>

#include "bench/lab/exchange.h"

#define LOAD_CLIENTS_MAX  1024	 /* at a time */
#define LOAD_PLANNED_MAX  200000 /* of an open loop */
#define LOAD_CONNECTS_MAX 2000000
#define LOAD_TIMEOUT_MS	  3000 /* then an attempt has failed */
#define LOAD_DEVICE_GAP_MS \
	220 /* between two connects of a device: the broker's limit is 5 a second */

struct load_options {
	struct device *devices; /* NULL: plain MQTT */
	unsigned n_devices;
	uint16_t port;
	unsigned clients; /* closed loop: how many at a time; 0: open loop */
	unsigned rate;	  /* open loop: a second */
	double seconds;	  /* in which they begin; an open loop then waits for those under way */
};

/* Why an attempt failed. */
enum load_failure {
	LOAD_TIMED_OUT,
	LOAD_REFUSED, /* RST or CONNACK other than 0 */
	LOAD_CLOSED,  /* by the server, before the end */
	LOAD_WRONG,   /* not what the protocol says */
	LOAD_ABSENT,  /* never begun: no client was free in time */
	LOAD_FAILURES,
};

/* Shared. us has room for LOAD_PLANNED_MAX; a failed attempt stands there with the time-out. */
struct load_result {
	uint64_t done, failed[LOAD_FAILURES];
	double seconds;			     /* closed loop: in which done were done */
	uint64_t device_waits;		     /* turns in which no device was rested enough */
	uint8_t connect[EXCHANGE_BYTES_MAX]; /* a CONNECT that was taken: what an eavesdropper has
					      */
	size_t connect_n;
	uint32_t n_us;
	uint32_t us[LOAD_PLANNED_MAX];
};

uint64_t load_failures(const struct load_result *r);
/* Runs until all is done; called in a child. Returns its exit code. */
int load_run(const struct load_options *o, struct load_result *r);

#endif
