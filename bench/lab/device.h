/* SPDX-License-Identifier: MIT */
/*
 * A device that the manager enrolled, on libssdtf: what it takes to connect, over and over. It
 * seals nothing by itself, so it may be forked. One connection at a time; one thread.
 */
#ifndef SSDTF_BENCH_DEVICE_H
#define SSDTF_BENCH_DEVICE_H

#include "bench/lab/site.h"
#include "userspace/client/lib/ssdtf.h"

struct exchange;

struct device {
	struct ssdtf_client client;
	struct ssdtf_origin *origins; /* a receiver's, of senders */
	uint8_t *bundle;
	uint64_t counter_mark;	   /* it seals behind this one */
	struct exchange *exchange; /* the one that goes on, NULL: none */
	uint64_t used_ns;	   /* when it last began one */
};

/* n of the site's, from device first. Ends the program where one cannot be read. */
struct device *devices_load(const struct site *s, unsigned first, unsigned n);
/* The same of receivers, which read; each remembers so many senders. */
struct device *receivers_load(const struct site *s, unsigned first, unsigned n, unsigned origins);
/* One device that seals: a context serves so many messages, counters begin behind mark. Only in the
 * process that seals. */
struct device *sealer_load(const struct site *s, unsigned number, uint32_t rekey_messages,
			   uint64_t mark);
void devices_free(struct device *d, unsigned n);

/* The time that libssdtf and its tokens want. */
struct ssdtf_time device_time(void);

#endif
