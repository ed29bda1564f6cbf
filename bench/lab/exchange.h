/* SPDX-License-Identifier: MIT */
/*
 * One connect as a client sees it, without I/O: bytes in, bytes out.
 *
 *   SSDTF   CONNECT --> CONNACK, challenge --> response --> result: done (PROTOCOL 5)
 *   plain   CONNECT --> CONNACK: done
 *
 * Caller's memory, one thread.
 */
#ifndef SSDTF_BENCH_EXCHANGE_H
#define SSDTF_BENCH_EXCHANGE_H

#include "bench/lab/device.h"

#define EXCHANGE_BYTES_MAX 1024 /* of a packet, in either direction */

enum exchange_state {
	EXCHANGE_GOING,
	EXCHANGE_DONE,	  /* the session is open */
	EXCHANGE_REFUSED, /* CONNACK said no */
	EXCHANGE_FAILED,  /* the peer did not keep to the protocol, or not prove itself */
};

struct exchange {
	struct device *device; /* NULL: plain */
	enum exchange_state state;
	uint8_t out[EXCHANGE_BYTES_MAX]; /* to be sent: out_n bytes, the caller sets it to 0 */
	size_t out_n;
	uint8_t in[EXCHANGE_BYTES_MAX]; /* of a packet that is not whole yet */
	size_t in_n;
};

/* CONNECT stands in out. A device goes on with no other meanwhile. number makes a plain client's
 * id. 0 or -errno of libssdtf. */
int exchange_begin(struct exchange *x, struct device *d, uint64_t number) must_check;
/* Where to receive, and what was received there. */
struct bytes_writer exchange_room(struct exchange *x);
void exchange_take(struct exchange *x, size_t n);
/* The device is free for another. */
void exchange_end(struct exchange *x);

/* For device.c: a PUBLISH of libssdtf's. -ENOBUFS. */
int exchange_publish(struct exchange *x, struct bytes topic, struct bytes payload, uint8_t qos,
		     bool retain) must_check;

#endif
