/* SPDX-License-Identifier: MIT */
/*
 * What a connection has still to send: chunks from the loop's pool, in two vectors. One fills while
 * the other is in flight, so that the kernel never sees memory that is being written.
 *
 *   filling   [chunk]-[shared]-[chun.]   <- output_reserve(), output_reserve_shared()
 *   sending   [chunk]-[chu..]            -> output_next(), until output_sent() has emptied it
 *
 * A chunk has room for about what the last ones held, so that what a busy connection gets in a turn
 * is one piece, and an idle one takes little; a piece larger than a chunk gets one of its own size.
 * What many outputs send alike, and is not small, is not copied: a shared chunk only points at it.
 * All outputs share a budget.
 */
#ifndef SSDTF_CORE_OUTPUT_H
#define SSDTF_CORE_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "userspace/base/bytes.h"
#include "userspace/base/list.h"
#include "userspace/base/pool.h"

#define OUTPUT_CHUNK_BYTES_MIN 512 /* both with their head */
#define OUTPUT_CHUNK_BYTES_MAX 16384
#define OUTPUT_VECTORS_MAX     64 /* chunks of one send */

struct output_budget {
	struct pool *pool;
	size_t bytes;	  /* reserved in all outputs and not sent yet */
	size_t bytes_max; /* output_reserve() refuses above twice this; the owner acts above once */
	/* The bytes that handle stands for were sent, or dropped. */
	void (*unshare)(void *ctx, void *handle);
	void *ctx;
};

struct output {
	struct list filling, sending;
	size_t bytes;			/* reserved and not sent yet */
	struct output_message *message; /* while a send of several chunks is out */
	uint32_t chunk_hint;		/* what the last chunks held at most */
};

/* What to give to the kernel: message where it is not NULL, else n bytes at p. */
struct output_send {
	const void *p;
	size_t n;
	const struct msghdr *message;
};

void output_init(struct output *o);
/* Drops what there is. No send may be in flight. */
void output_deinit(struct output *o, struct output_budget *b);
/* n >= 1 bytes at the end, written by the caller before the output is sent. NULL: no memory. */
uint8_t *output_reserve(struct output *o, struct output_budget *b, size_t n) must_check;
/* The same, and shared behind them: those bytes stay where they are until unshare(handle). On NULL
 * nothing was taken. shared is not empty. */
uint8_t *output_reserve_shared(struct output *o, struct output_budget *b, size_t n,
			       struct bytes shared, void *handle) must_check;
/* The next send; false where there is nothing to send, or no memory to say it in (then o->bytes is
 * not 0). Stays valid until output_sent(), which must come once before the next call. */
bool output_next(struct output *o, struct output_budget *b, struct output_send *ret_send);
/* The kernel took n bytes of the send that was out (0: it took none). */
void output_sent(struct output *o, struct output_budget *b, size_t n);

#endif
