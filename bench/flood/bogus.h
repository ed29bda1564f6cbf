/* SPDX-License-Identifier: MIT */
/*
 * What ill-behaved clients send as their first bytes. A process makes its own, with a small fast
 * generator: nobody has to be unable to guess them.
 */
#ifndef SSDTF_BENCH_BOGUS_H
#define SSDTF_BENCH_BOGUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "userspace/base/bytes.h"

#define BOGUS_BYTES_MAX 512

enum bogus_kind {
	BOGUS_GARBAGE, /* random bytes */
	BOGUS_CONNECT, /* well formed, with a token that is not the device's: every second one with
			* the id of an enrolled device, the others with unknown ids */
	BOGUS_REPLAY,  /* a CONNECT that was a device's own a moment ago */
	BOGUS_IDLE,    /* nothing */
	BOGUS_SYN,     /* not even a connection: SYNs from addresses of nobody */
	BOGUS_KINDS,
};

const char *bogus_name(enum bogus_kind kind);
/* False: there is no such kind. */
bool bogus_by_name(struct bytes name, enum bogus_kind *ret_kind) must_check;

struct bogus {
	enum bogus_kind kind;
	unsigned n_devices;    /* CONNECT: ids to use, may be 0 */
	struct bytes replayed; /* REPLAY */
	uint64_t random;
	uint64_t made;
};

void bogus_init(struct bogus *b, enum bogus_kind kind, unsigned n_devices, struct bytes replayed);
/* The next one's first bytes. Returns how many; 0 where it says nothing. */
size_t bogus_next(struct bogus *b, uint8_t out[BOGUS_BYTES_MAX]);
uint64_t bogus_random(struct bogus *b);

#endif
