/* SPDX-License-Identifier: MIT */
/*
 * Connections: a table of slots, each with one multishot receive into the shared buffers and at
 * most one send in flight. The loop's thread only.
 *
 *   OPEN ----stream_close()----> FLUSHING --all sent--> LINGERING --end of stream or time-->
 * CLOSING
 *     \-- end of stream, error, a limit: closed() is told ----------------------------------^
 *
 * FLUSHING sends what there is; LINGERING has said FIN, or waits for the peer's, and reads on for a
 * moment, because closing a socket with unread bytes in it resets the connection and takes the last
 * packet from the peer.
 * CLOSING has shut both ways down and waits for the kernel's last completions: a descriptor closed
 * before them sends no FIN. Then the slot is free and its generation moves on.
 *
 * Limits: output above output_hard ends the connection (stream_out() says NULL); a peer that takes
 * nothing for stall_ms is cut off; above output_total the largest backlog is cut off first.
 */
#ifndef SSDTF_CORE_STREAM_H
#define SSDTF_CORE_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/list.h"
#include "userspace/base/pool.h"
#include "userspace/core/bufring.h"
#include "userspace/core/output.h"
#include "userspace/core/ring.h"

struct stream;

/* Told from within ring_drain() and stream_table_check(), never from within a stream_*() of the
 * owner; but unshare() at any time. */
struct stream_events {
	void (*input)(void *ctx, struct stream *s, struct bytes in);
	/* The kernel took bytes, and the backlog is at or below output_soft. */
	void (*drained)(void *ctx, struct stream *s);
	/* It is gone, not by stream_close(); no call for it may follow. why is for people. */
	void (*closed)(void *ctx, struct stream *s, const char *why);
	/* Bytes given by stream_out_shared() were sent, or dropped. */
	void (*unshare)(void *ctx, void *handle);
};

struct stream_limits {
	uint32_t slots_max;
	uint32_t output_soft; /* of one connection: below it, drained() is told */
	uint32_t output_hard; /* of one connection */
	size_t output_total;  /* of all */
	uint32_t stall_ms;
	uint32_t linger_ms;
};

struct stream_stats {
	uint64_t opened, cut_stalled, cut_budget, refused_hard, sends, no_buffers, stale;
	uint64_t bytes_in, bytes_out;
};

struct stream_table {
	struct ring *ring;
	struct bufring *buffers;
	const struct stream_events *events;
	void *ctx;
	struct stream_limits limits;
	struct output_budget budget;
	struct stream **slabs;
	uint32_t n_slabs;
	uint32_t used;	       /* slots that are not free */
	size_t closing_bytes;  /* of the budget: held by CLOSING slots, about to come back */
	struct list free;      /* slots */
	struct list dirty;     /* have output and no send in flight */
	struct list adjust;    /* reading is not as it should be */
	struct list sending;   /* oldest send first */
	struct list lingering; /* oldest first */
	uint64_t now_ms;
	bool released; /* a descriptor was closed since stream_table_take_released() */
	struct stream_stats stats;
};

/* events, limits are copied or outlive the table; the pool outlives it. */
int stream_table_init(struct stream_table *t, struct ring *r, struct bufring *b, struct pool *pool,
		      const struct stream_limits *limits, const struct stream_events *events,
		      void *ctx) must_check;
/* All slots must be free, or the ring gone already (then descriptors are closed here). */
void stream_table_deinit(struct stream_table *t);
/* The time, before the events of a turn. */
void stream_table_time(struct stream_table *t, uint64_t now_ms);
/* Time limits and the budget: tells closed() where one is passed. */
void stream_table_check(struct stream_table *t);
/* The end of a turn: one send of each connection with new output, then reading is started and
 * stopped as wanted. */
void stream_table_flush(struct stream_table *t);
/* Until one of the two has something to do. */
uint64_t stream_table_wait_ms(const struct stream_table *t);
/* True once after a descriptor was closed: accept may work again. */
bool stream_table_take_released(struct stream_table *t);
/* Cuts off whatever is left, telling nobody: the end of an orderly stop whose time is over. */
void stream_table_abort(struct stream_table *t);

/* Takes fd. NULL, and fd closed: table full or no memory. */
struct stream *stream_open(struct stream_table *t, int fd) must_check;
void stream_set_user(struct stream *s, void *user);
void *stream_user(const struct stream *s);
/* n bytes at the end of its output. NULL: over a limit, or no memory. */
uint8_t *stream_out(struct stream *s, size_t n) must_check;
/* The same, and shared behind them, which stays where it is until unshare(handle). */
uint8_t *stream_out_shared(struct stream *s, size_t n, struct bytes shared,
			   void *handle) must_check;
size_t stream_backlog(const struct stream *s);
void stream_pause(struct stream *s, bool paused);
/* Sends what there is, then closes; peer_ends: once the peer has, who then keeps the memory of the
 * connection (TIME-WAIT). The owner has forgotten it. */
void stream_close(struct stream *s, bool peer_ends);
/* Ends it at once; what it had to send is dropped. */
void stream_abort(struct stream *s);

#endif
