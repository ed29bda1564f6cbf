// SPDX-License-Identifier: MIT
#include "userspace/core/stream.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLAB_STREAMS 64
#define RETRY_MS     10

enum stream_state { STREAM_FREE, STREAM_OPEN, STREAM_FLUSHING, STREAM_LINGERING, STREAM_CLOSING };

struct stream {
	struct stream_table *table;
	void *user;
	int fd;
	uint32_t index;
	uint32_t gen;
	enum stream_state state;
	bool paused;	 /* the owner's wish */
	bool receiving;	 /* a receive is armed */
	bool cancelling; /* and is being cancelled */
	bool send_out;	 /* a send is in flight */
	bool reset;	 /* at close: RST, and the kernel forgets what it holds */
	bool peer_ends;	 /* the peer says FIN first */
	struct output output;
	struct list dirty; /* also the free list */
	struct list adjust;
	struct list timed; /* on sending or lingering */
	uint64_t timed_at_ms;
	bool sampled;	/* acked is of the send in flight */
	uint64_t acked; /* bytes that the peer's kernel had acknowledged at timed_at_ms */
};

static ring_complete_fn complete_recv, complete_send;

/* --- slots ------------------------------------------------------------------------------------ */

int stream_table_init(struct stream_table *t, struct ring *r, struct bufring *b, struct pool *pool,
		      const struct stream_limits *limits, const struct stream_events *events,
		      void *ctx)
{
	uint32_t slabs_max = limits->slots_max / SLAB_STREAMS + 1;

	memset(t, 0, sizeof(*t));
	t->slabs = calloc(slabs_max, sizeof(*t->slabs));
	if (!t->slabs)
		return -ENOMEM;
	t->ring = r;
	t->buffers = b;
	t->events = events;
	t->ctx = ctx;
	t->limits = *limits;
	t->budget.pool = pool;
	t->budget.bytes_max = limits->output_total;
	t->budget.unshare = events->unshare;
	t->budget.ctx = ctx;
	list_init(&t->free);
	list_init(&t->dirty);
	list_init(&t->adjust);
	list_init(&t->sending);
	list_init(&t->lingering);
	ring_on(r, RING_RECV, complete_recv, t);
	ring_on(r, RING_SEND, complete_send, t);
	return 0;
}

static struct stream *slot(const struct stream_table *t, uint32_t index)
{
	BUG_ON(index / SLAB_STREAMS >= t->n_slabs);
	return &t->slabs[index / SLAB_STREAMS][index % SLAB_STREAMS];
}

void stream_table_deinit(struct stream_table *t)
{
	for (uint32_t i = 0; i < t->n_slabs * SLAB_STREAMS; i++) {
		struct stream *s = slot(t, i);

		if (s->state != STREAM_FREE) {
			close(s->fd);
			output_deinit(&s->output, &t->budget);
		}
	}
	for (uint32_t i = 0; i < t->n_slabs; i++)
		free(t->slabs[i]);
	free(t->slabs);
}

static int grow(struct stream_table *t)
{
	struct stream *slab = calloc(SLAB_STREAMS, sizeof(*slab));

	if (!slab)
		return -ENOMEM;
	for (uint32_t i = 0; i < SLAB_STREAMS; i++) {
		struct stream *s = &slab[i];

		s->table = t;
		s->index = t->n_slabs * SLAB_STREAMS + i;
		output_init(&s->output);
		list_init(&s->dirty);
		list_init(&s->adjust);
		list_init(&s->timed);
		list_add_tail(&t->free, &s->dirty);
	}
	t->slabs[t->n_slabs++] = slab;
	return 0;
}

static void want(struct list *list, struct list *link)
{
	if (list_empty(link))
		list_add_tail(list, link);
}

struct stream *stream_open(struct stream_table *t, int fd)
{
	struct stream *s;

	if (t->used >= t->limits.slots_max || (list_empty(&t->free) && grow(t))) {
		close(fd);
		t->released = true;
		return NULL;
	}
	s = list_first(&t->free, struct stream, dirty);
	list_del(&s->dirty);
	t->used++;
	t->stats.opened++;
	s->user = NULL;
	s->fd = fd;
	s->state = STREAM_OPEN;
	s->paused = false;
	s->reset = false;
	s->peer_ends = false;
	want(&t->adjust, &s->adjust);
	return s;
}

/* Frees the slot once the kernel holds nothing of it any more. */
static void release_if_idle(struct stream *s)
{
	struct stream_table *t = s->table;
	struct linger rst = { .l_onoff = 1, .l_linger = 0 };

	if (s->state != STREAM_CLOSING || s->receiving || s->send_out)
		return;
	if (s->reset)
		(void)setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst)); /* else FIN */
	close(s->fd);
	t->closing_bytes -= s->output.bytes;
	output_deinit(&s->output, &t->budget);
	s->state = STREAM_FREE;
	s->gen = (s->gen + 1) & RING_GEN_MASK;
	list_add_tail(&t->free, &s->dirty);
	t->used--;
	t->released = true;
}

/* --- closing ---------------------------------------------------------------------------------- */

/* Nothing more is sent or read: the shutdown ends what is in flight. */
static void shut(struct stream *s)
{
	s->state = STREAM_CLOSING;
	s->table->closing_bytes += s->output.bytes;
	list_del(&s->dirty);
	list_del(&s->adjust);
	list_del(&s->timed);
	if (s->receiving || s->send_out)
		(void)shutdown(s->fd, SHUT_RDWR); /* ENOTCONN: the peer was faster */
	release_if_idle(s);
}

static void shut_and_tell(struct stream *s, const char *why)
{
	struct stream_table *t = s->table;
	bool tell = s->state == STREAM_OPEN;

	/* Told first: the owner may look at the connection a last time. */
	if (tell)
		t->events->closed(t->ctx, s, why);
	shut(s);
}

static void linger(struct stream *s)
{
	struct stream_table *t = s->table;

	if (!s->peer_ends && shutdown(s->fd, SHUT_WR)) {
		shut(s);
		return;
	}
	s->state = STREAM_LINGERING;
	s->timed_at_ms = t->now_ms;
	list_del(&s->timed);
	list_add_tail(&t->lingering, &s->timed);
	want(&t->adjust, &s->adjust);
}

void stream_close(struct stream *s, bool peer_ends)
{
	BUG_ON(s->state != STREAM_OPEN);
	s->peer_ends = peer_ends;
	s->state = STREAM_FLUSHING;
	if (s->output.bytes == 0)
		linger(s);
	else
		want(&s->table->adjust, &s->adjust);
}

void stream_abort(struct stream *s)
{
	BUG_ON(s->state != STREAM_OPEN);
	s->reset = true;
	shut(s);
}

void stream_table_abort(struct stream_table *t)
{
	for (uint32_t i = 0; i < t->n_slabs * SLAB_STREAMS; i++) {
		struct stream *s = slot(t, i);

		if (s->state != STREAM_FREE && s->state != STREAM_CLOSING)
			shut(s);
	}
}

/* --- reading ---------------------------------------------------------------------------------- */

static bool wants_to_read(const struct stream *s)
{
	switch (s->state) {
	case STREAM_OPEN:
		return !s->paused;
	case STREAM_FLUSHING:
	case STREAM_LINGERING:
		return true;
	case STREAM_FREE:
	case STREAM_CLOSING:
		return false;
	}
	return false;
}

static bool arm(struct stream *s)
{
	struct io_uring_sqe *sqe = ring_sqe(s->table->ring);

	if (!sqe)
		return false;
	io_uring_prep_recv_multishot(sqe, s->fd, NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = BUFRING_GROUP;
	ring_tag(sqe, RING_RECV, s->gen, s->index);
	s->receiving = true;
	return true;
}

/* By tag: the kernel finds it in a hash. By descriptor it would walk over every armed receive. */
static bool cancel(struct stream *s)
{
	struct io_uring_sqe *sqe = ring_sqe(s->table->ring);

	if (!sqe)
		return false;
	io_uring_prep_cancel64(sqe, ring_tag_of(RING_RECV, s->gen, s->index), 0);
	ring_tag(sqe, RING_IGNORED, 0, 0);
	s->cancelling = true;
	return true;
}

/*
 * Brings reading to what each connection wants. A receive that found no buffer ends, even one that
 * had no data yet; arming it again before buffers have come back would only end it again. So no
 * more are armed in a turn than buffers were put back, unless no completion holds any.
 */
static void adjust_all(struct stream_table *t, unsigned put_back)
{
	unsigned arms = ring_ready(t->ring) ? put_back : t->buffers->entries;
	struct list later;

	list_init(&later);
	while (!list_empty(&t->adjust)) {
		struct stream *s = list_first(&t->adjust, struct stream, adjust);
		bool wants = wants_to_read(s), done = true;

		list_del(&s->adjust);
		if (wants && !s->receiving) {
			done = arms > 0 && arm(s);
			if (done)
				arms--;
		} else if (!wants && s->receiving && !s->cancelling) {
			done = cancel(s);
		}
		if (!done)
			list_add_tail(&later, &s->adjust);
	}
	list_splice_tail(&t->adjust, &later);
}

static void received(struct stream *s, struct bytes in)
{
	struct stream_table *t = s->table;

	if (s->state != STREAM_OPEN)
		return; /* read only to have it read */
	t->stats.bytes_in += in.n;
	t->events->input(t->ctx, s, in);
}

static void receive_ended(struct stream *s, int res)
{
	s->receiving = false;
	s->cancelling = false;
	if (res == -ENOBUFS)
		s->table->stats.no_buffers++;
	if (s->state == STREAM_CLOSING)
		release_if_idle(s);
	else if (res > 0 || res == -ENOBUFS || res == -ECANCELED || res == -EINTR)
		want(&s->table->adjust, &s->adjust);
	else
		shut_and_tell(s, res == 0 ? "end of stream" : strerror(-res));
}

/* A slot waits for its completions before it is free, so one of another generation is a surprise;
 * what it says is not for whoever has the slot now. */
static bool is_of(const struct stream *s, const struct ring_done *d)
{
	if (s->state != STREAM_FREE && s->gen == d->gen)
		return true;
	s->table->stats.stale++;
	return false;
}

static void complete_recv(void *ctx, const struct ring_done *d)
{
	struct stream_table *t = ctx;
	struct stream *s = slot(t, d->index);
	bool ours = is_of(s, d);

	if (d->flags & IORING_CQE_F_BUFFER) {
		uint16_t id = bufring_id(d);

		if (ours && d->res > 0)
			received(s, bytes_of(bufring_at(t->buffers, id), (size_t)d->res));
		bufring_put(t->buffers, id);
	}
	if (ours && !(d->flags & IORING_CQE_F_MORE))
		receive_ended(s, d->res);
}

void stream_pause(struct stream *s, bool paused)
{
	if (s->paused == paused)
		return;
	s->paused = paused;
	if (s->state == STREAM_OPEN)
		want(&s->table->adjust, &s->adjust);
}

/* --- sending ---------------------------------------------------------------------------------- */

static bool below_hard(const struct stream *s, size_t n)
{
	size_t hard = s->table->limits.output_hard;

	return n <= hard && s->output.bytes <= hard - n;
}

/* What is at the end is to be sent, where there was room for it. */
static uint8_t *reserved(struct stream *s, uint8_t *at)
{
	struct stream_table *t = s->table;

	if (!at)
		t->stats.refused_hard++;
	else if (!s->send_out)
		want(&t->dirty, &s->dirty);
	return at;
}

uint8_t *stream_out(struct stream *s, size_t n)
{
	BUG_ON(s->state != STREAM_OPEN);
	return reserved(s,
			below_hard(s, n) ? output_reserve(&s->output, &s->table->budget, n) : NULL);
}

uint8_t *stream_out_shared(struct stream *s, size_t n, struct bytes shared, void *handle)
{
	uint8_t *at = NULL;

	BUG_ON(s->state != STREAM_OPEN);
	if (shared.n <= s->table->limits.output_hard && below_hard(s, n + shared.n))
		at = output_reserve_shared(&s->output, &s->table->budget, n, shared, handle);
	return reserved(s, at);
}

size_t stream_backlog(const struct stream *s)
{
	return s->output.bytes;
}

/* What the peer's kernel has acknowledged: a whole send completes as one, however slowly it goes.
 */
static uint64_t acknowledged(const struct stream *s)
{
	struct tcp_info info = { 0 };
	socklen_t n = sizeof(info);

	if (getsockopt(s->fd, IPPROTO_TCP, TCP_INFO, &info, &n))
		return 0; /* not TCP: only a completed send counts */
	return info.tcpi_bytes_acked;
}

static void start_clock(struct stream *s)
{
	s->timed_at_ms = s->table->now_ms;
	list_del(&s->timed);
	list_add_tail(&s->table->sending, &s->timed);
}

static bool send_next(struct stream *s)
{
	struct stream_table *t = s->table;
	const unsigned flags = MSG_NOSIGNAL | MSG_WAITALL;
	struct io_uring_sqe *sqe;
	struct output_send out;

	if (!output_next(&s->output, &t->budget, &out))
		return s->output.bytes == 0;
	sqe = ring_sqe(t->ring);
	if (!sqe) {
		output_sent(&s->output, &t->budget, 0);
		return false;
	}
	if (out.message)
		io_uring_prep_sendmsg(sqe, s->fd, out.message, flags);
	else
		io_uring_prep_send(sqe, s->fd, out.p, out.n, (int)flags);
	ring_tag(sqe, RING_SEND, s->gen, s->index);
	s->send_out = true;
	s->sampled = false;
	start_clock(s);
	t->stats.sends++;
	return true;
}

static void send_all(struct stream_table *t)
{
	struct list later;

	list_init(&later);
	while (!list_empty(&t->dirty)) {
		struct stream *s = list_first(&t->dirty, struct stream, dirty);

		list_del(&s->dirty);
		if (!send_next(s))
			list_add_tail(&later, &s->dirty);
	}
	list_splice_tail(&t->dirty, &later);
}

static void complete_send(void *ctx, const struct ring_done *d)
{
	struct stream_table *t = ctx;
	struct stream *s = slot(t, d->index);

	if (!is_of(s, d))
		return;
	BUG_ON(!s->send_out);
	s->send_out = false;
	if (s->state == STREAM_CLOSING) {
		release_if_idle(s);
		return;
	}
	list_del(&s->timed);
	output_sent(&s->output, &t->budget, d->res > 0 ? (size_t)d->res : 0);
	if (d->res > 0)
		t->stats.bytes_out += (uint64_t)d->res;
	if (d->res < 0 && d->res != -EINTR) {
		shut_and_tell(s, strerror(-d->res));
		return;
	}
	/* A short send has met an error or a signal; the next one says which. */
	if (s->output.bytes)
		want(&t->dirty, &s->dirty);
	else if (s->state == STREAM_FLUSHING)
		linger(s);
	if (s->state == STREAM_OPEN && s->output.bytes <= t->limits.output_soft)
		t->events->drained(t->ctx, s);
}

/* --- limits over time ------------------------------------------------------------------------- */

static void cut(struct stream *s, const char *why)
{
	s->reset = true;
	shut_and_tell(s, why);
}

/* Looks twice in stall_ms: who has acknowledged nothing in the second half is cut off. */
static void check_stalls(struct stream_table *t)
{
	while (!list_empty(&t->sending)) {
		struct stream *s = list_first(&t->sending, struct stream, timed);
		uint64_t acked;

		if (t->now_ms - s->timed_at_ms < t->limits.stall_ms / 2)
			break;
		acked = acknowledged(s);
		if (s->sampled && acked <= s->acked) {
			t->stats.cut_stalled++;
			cut(s, "the peer takes nothing");
			continue;
		}
		s->sampled = true;
		s->acked = acked;
		start_clock(s);
	}
}

static void check_lingering(struct stream_table *t)
{
	while (!list_empty(&t->lingering)) {
		struct stream *s = list_first(&t->lingering, struct stream, timed);

		if (t->now_ms - s->timed_at_ms < t->limits.linger_ms)
			break;
		shut(s);
	}
}

/* Whoever has a backlog worth the name has a send in flight: nobody else need be looked at. */
static void check_budget(struct stream_table *t)
{
	while (t->budget.bytes - t->closing_bytes > t->budget.bytes_max) {
		struct stream *largest = NULL;
		struct list *pos;

		list_for_each(pos, &t->sending) {
			struct stream *s = list_entry(pos, struct stream, timed);

			if (!largest || s->output.bytes > largest->output.bytes)
				largest = s;
		}
		if (!largest)
			break;
		t->stats.cut_budget++;
		cut(largest, "the largest backlog when output memory ran out");
	}
}

void stream_table_time(struct stream_table *t, uint64_t now_ms)
{
	t->now_ms = now_ms;
}

void stream_table_check(struct stream_table *t)
{
	check_stalls(t);
	check_lingering(t);
	check_budget(t);
}

void stream_table_flush(struct stream_table *t)
{
	send_all(t);
	adjust_all(t, bufring_publish(t->buffers));
}

static uint64_t until(const struct stream_table *t, const struct list *timed, uint32_t limit_ms)
{
	const struct stream *s = list_first(timed, struct stream, timed);
	uint64_t at_ms = s ? s->timed_at_ms + limit_ms : UINT64_MAX;

	if (!s)
		return UINT64_MAX;
	return at_ms > t->now_ms ? at_ms - t->now_ms : 0;
}

uint64_t stream_table_wait_ms(const struct stream_table *t)
{
	uint64_t stall = until(t, &t->sending, t->limits.stall_ms / 2);
	uint64_t linger_end = until(t, &t->lingering, t->limits.linger_ms);

	if (!list_empty(&t->adjust))
		return 0;
	if (!list_empty(&t->dirty))
		return RETRY_MS; /* there was no memory for a send */
	return stall < linger_end ? stall : linger_end;
}

bool stream_table_take_released(struct stream_table *t)
{
	bool released = t->released;

	t->released = false;
	return released;
}

void stream_set_user(struct stream *s, void *user)
{
	s->user = user;
}

void *stream_user(const struct stream *s)
{
	return s->user;
}
