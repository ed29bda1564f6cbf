/* SPDX-License-Identifier: MIT */
/*
 * A device that the manager enrolled, on libssdtf: what it takes to connect, over and over. It
 * seals nothing, so it may be forked. One connection at a time; one thread.
 */
#ifndef SSDTF_BENCH_DEVICE_H
#define SSDTF_BENCH_DEVICE_H

#include "bench/lab/site.h"
#include "userspace/client/lib/ssdtf.h"

struct exchange;

struct device {
	struct ssdtf_client client;
	uint8_t *bundle;
	struct exchange *exchange; /* the one that goes on, NULL: none */
	uint64_t used_ns;	   /* when it last began one */
};

/* n of the site's, from device first. Ends the program where one cannot be read. */
struct device *devices_load(const struct site *s, unsigned first, unsigned n);
void devices_free(struct device *d, unsigned n);

/* The time that libssdtf and its tokens want. */
struct ssdtf_time device_time(void);

#endif
