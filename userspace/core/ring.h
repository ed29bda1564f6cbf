/* SPDX-License-Identifier: MIT */
/*
 * The one io_uring of the broker: set-up, tags, an op table, and a wait.
 *
 *   user_data := op 8 | generation 24 | index 32
 *
 * A completion names the slot it is for and that slot's generation, never a descriptor or a
 * pointer: it may arrive after a descriptor's number has been given to somebody else. The ring
 * belongs to the thread that made it (SINGLE_ISSUER); with DEFER_TASKRUN completions appear only
 * inside ring_wait().
 *
 * Base line: Linux 6.1. Set-up flags are tried, not derived from a version number.
 */
#ifndef SSDTF_CORE_RING_H
#define SSDTF_CORE_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <liburing.h>

#include "userspace/base/compiler.h"

enum ring_op {
	RING_IGNORED, /* completions that tell nothing: of cancel requests */
	RING_POLL,
	RING_ACCEPT,
	RING_RECV,
	RING_SEND,
	RING_LINK_RECV,
	RING_LINK_SEND,
	RING_OPERATOR,
	RING_SYNC,
	RING_OPS,
};

#define RING_GEN_MASK 0xffffffu

struct ring_done {
	uint32_t index;
	uint32_t gen;
	int res;	/* as the system call would have returned it, or -errno */
	uint32_t flags; /* IORING_CQE_F_* */
};

typedef void ring_complete_fn(void *ctx, const struct ring_done *d);

struct ring {
	struct io_uring uring;
	struct {
		ring_complete_fn *complete;
		void *ctx;
	} ops[RING_OPS];
	/* An entry was refused since the last wait: its owner tries again, so the wait is short. */
	bool starved;
};

#define RING_SQ_ENTRIES	    1024
#define RING_CQ_ENTRIES	    8192
#define RING_SQ_ENTRIES_MIN 64

/*
 * Halves both sizes while the kernel says ENOMEM (it charges rings to RLIMIT_MEMLOCK), down to
 * RING_SQ_ENTRIES_MIN. -errno of io_uring_setup(2); ring_explain() has the words for it.
 */
int ring_init(struct ring *r, unsigned sq_entries, unsigned cq_entries) must_check;
void ring_deinit(struct ring *r);
/* What an error of ring_init() or bufring_init() means and what to do about it. */
const char *ring_explain(int error);

/* Who is told about completions of op. */
void ring_on(struct ring *r, enum ring_op op, ring_complete_fn *complete, void *ctx);

/*
 * An entry to fill with an io_uring_prep_*() and then ring_tag(). NULL where the queue is full and
 * the kernel takes nothing now: the caller keeps its wish and asks again in the next turn.
 */
struct io_uring_sqe *ring_sqe(struct ring *r) must_check;
uint64_t ring_tag_of(enum ring_op op, uint32_t gen, uint32_t index);
void ring_tag(struct io_uring_sqe *sqe, enum ring_op op, uint32_t gen, uint32_t index);

/* Submits, then waits for a completion or the time (0: does not wait; UINT64_MAX: no limit).
 * -errno only where the ring itself is broken. */
int ring_wait(struct ring *r, uint64_t timeout_ms) must_check;
/* Tells the owners of at most budget completions. Returns how many it told. */
unsigned ring_drain(struct ring *r, unsigned budget);
/* Completions are waiting. */
bool ring_ready(const struct ring *r);

#endif
