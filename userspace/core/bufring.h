/* SPDX-License-Identifier: MIT */
/*
 * Receive buffers that the kernel picks from itself, shared with it through a mapped ring. A buffer
 * that a completion named is ours until bufring_put(); what was put is the kernel's again at
 * bufring_publish(), once a turn. Belongs to the ring and its thread.
 */
#ifndef SSDTF_CORE_BUFRING_H
#define SSDTF_CORE_BUFRING_H

#include <stdint.h>

#include "userspace/core/ring.h"

#define BUFRING_GROUP	    1
#define BUFRING_BYTES	    8192
#define BUFRING_ENTRIES	    512
#define BUFRING_ENTRIES_MIN 16
#define BUFRING_ENTRIES_MAX 32768

struct bufring {
	struct ring *ring;
	struct io_uring_buf_ring *shared; /* page-aligned, locked by the kernel */
	size_t shared_bytes;
	uint8_t *buffers;
	unsigned entries; /* a power of two */
	unsigned put;	  /* since the last publish */
};

/* entries: a power of two. Halved while the kernel says ENOMEM; -errno as ring_init(). */
int bufring_init(struct bufring *b, struct ring *r, unsigned entries) must_check;
void bufring_deinit(struct bufring *b);
/* The buffer that a completion's flags name. */
uint16_t bufring_id(const struct ring_done *d);
uint8_t *bufring_at(const struct bufring *b, uint16_t id);
void bufring_put(struct bufring *b, uint16_t id);
/* Returns how many buffers became the kernel's by it. */
unsigned bufring_publish(struct bufring *b);

#endif
