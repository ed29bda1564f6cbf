// SPDX-License-Identifier: MIT
/*
 * The broker's loop without the broker: the ring and what it says when it cannot be had, streams
 * under every kind of peer, listeners, and the small files around them. Real sockets, the real
 * kernel; an owner that keeps what it was told.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/harness.h"
#include "userspace/broker/broker.h"
#include "userspace/core/address.h"
#include "userspace/core/bufring.h"
#include "userspace/base/file.h"
#include "userspace/core/journal.h"
#include "userspace/core/listener.h"
#include "userspace/core/notify.h"
#include "userspace/core/ring.h"
#include "userspace/core/sandbox.h"
#include "userspace/core/stream.h"

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* --- the ring's errors ------------------------------------------------------------------------ */

static int filter_setup(int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { ARRAY_SIZE(code), code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) ? -errno : 0;
}

FIXTURE(forbidden)
{
	int unused;
};
FIXTURE_VARIANT(forbidden)
{
	int error;
	const char *words;
};
FIXTURE_VARIANT_ADD(forbidden, enosys){ ENOSYS, "no io_uring: Linux 6.1" };
FIXTURE_VARIANT_ADD(forbidden, eperm){ EPERM, "kernel.io_uring_disabled" };
FIXTURE_VARIANT_ADD(forbidden, einval){ EINVAL, "lacks what is needed: Linux 6.1" };
FIXTURE_VARIANT_ADD(forbidden, enomem){ ENOMEM, "limit of locked memory" };
FIXTURE_VARIANT_ADD(forbidden, emfile){ EMFILE, "limit of open files" };

FIXTURE_SETUP(forbidden)
{
	if (filter_setup(variant->error))
		SKIP("no seccomp filter here");
}

FIXTURE_TEARDOWN(forbidden)
{
}

TEST_F(forbidden, ring_says_what_to_do)
{
	struct ring r;
	int err = ring_init(&r, RING_SQ_ENTRIES, RING_CQ_ENTRIES);

	ASSERT_EQ(err, -variant->error);
	harness_note("%s", ring_explain(err));
	ASSERT_TRUE(strstr(ring_explain(err), variant->words));
}

#define NOBODY 65534

TEST(ring_without_lockable_memory_is_smaller_or_says_so)
{
	struct rlimit l = { 64 * 1024, 64 * 1024 };
	struct bufring b;
	struct ring r;
	int err;

	ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &l), 0);
	if (geteuid() == 0)
		ASSERT_EQ(setresuid(NOBODY, NOBODY, NOBODY), 0);
	err = ring_init(&r, RING_SQ_ENTRIES, RING_CQ_ENTRIES);
	if (err) {
		ASSERT_EQ(err, -ENOMEM);
		return;
	}
	harness_note("%u entries in 64 KiB", r.uring.sq.ring_entries);
	if (r.uring.sq.ring_entries == RING_SQ_ENTRIES)
		SKIP("this kernel does not charge rings to RLIMIT_MEMLOCK");
	ASSERT_GE(r.uring.sq.ring_entries, RING_SQ_ENTRIES_MIN);
	err = bufring_init(&b, &r, BUFRING_ENTRIES);
	ASSERT_TRUE(err == 0 || err == -ENOMEM);
	if (!err)
		bufring_deinit(&b);
	ring_deinit(&r);
}

TEST(ring_without_any_lockable_memory_says_enomem)
{
	struct rlimit l = { 0, 0 };
	struct ring r;
	int err;

	ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &l), 0);
	if (geteuid() == 0)
		ASSERT_EQ(setresuid(NOBODY, NOBODY, NOBODY), 0);
	err = ring_init(&r, RING_SQ_ENTRIES, RING_CQ_ENTRIES);
	if (!err)
		SKIP("this kernel does not charge rings to RLIMIT_MEMLOCK");
	ASSERT_EQ(err, -ENOMEM);
	ASSERT_TRUE(strstr(ring_explain(err), "ulimit -l"));
}

TEST(ring_tags_keep_op_generation_and_index_apart)
{
	uint64_t tag = ring_tag_of(RING_SEND, 0x1abcdef, 0x12345678);

	ASSERT_EQ(tag >> 56, RING_SEND);
	ASSERT_EQ(tag >> 32 & 0xffffff, 0xabcdef);
	ASSERT_EQ(tag & 0xffffffff, 0x12345678);
}

/* More entries than the queue has: they are submitted on the way, and nothing is lost. */
static void count_done(void *ctx, const struct ring_done *d)
{
	unsigned char *seen = ctx;

	seen[d->index]++;
}

TEST(ring_takes_more_entries_than_it_has)
{
	unsigned char seen[5000] = { 0 };
	unsigned n = 0;
	struct ring r;

	ASSERT_EQ(ring_init(&r, 64, 128), 0);
	ring_on(&r, RING_POLL, count_done, seen);
	for (unsigned i = 0; i < ARRAY_SIZE(seen); i++) {
		struct io_uring_sqe *sqe = ring_sqe(&r);

		ASSERT_TRUE(sqe);
		io_uring_prep_nop(sqe);
		ring_tag(sqe, RING_POLL, 0, i);
	}
	while (n < ARRAY_SIZE(seen)) {
		ASSERT_EQ(ring_wait(&r, 1000), 0);
		ASSERT_LE(ring_drain(&r, 10), 10);
		n = 0;
		for (unsigned i = 0; i < ARRAY_SIZE(seen); i++) {
			ASSERT_LE(seen[i], 1);
			n += seen[i];
		}
	}
	ASSERT_FALSE(ring_ready(&r));
	ring_deinit(&r);
}

TEST(ring_wait_keeps_its_time)
{
	uint64_t begin;
	struct ring r;

	ASSERT_EQ(ring_init(&r, 64, 128), 0);
	begin = now_ms();
	ASSERT_EQ(ring_wait(&r, 0), 0);
	ASSERT_LT(now_ms() - begin, 50);
	ASSERT_EQ(ring_wait(&r, 120), 0);
	ASSERT_GE(now_ms() - begin, 119);
	r.starved = true;
	begin = now_ms();
	ASSERT_EQ(ring_wait(&r, UINT64_MAX), 0); /* somebody wants to try again soon */
	ASSERT_LT(now_ms() - begin, 1000);
	ring_deinit(&r);
}

/* --- output ----------------------------------------------------------------------------------- */

static void fill(uint8_t *p, size_t n, uint64_t at)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)((at + i) * 131 + ((at + i) >> 8));
}

/* What a kernel that takes n bytes of a send would have: the pattern from at on. */
static void expect_pattern(const struct output_send *s, size_t n, uint64_t at)
{
	static uint8_t want[1 << 20];
	size_t vectors = s->message ? s->message->msg_iovlen : 1;

	for (size_t v = 0; v < vectors && n; v++) {
		const void *p = s->message ? s->message->msg_iov[v].iov_base : s->p;
		size_t here = s->message ? s->message->msg_iov[v].iov_len : s->n;

		if (here > n)
			here = n;
		fill(want, here, at);
		ASSERT_BYTES(p, want, here);
		at += here;
		n -= here;
	}
	ASSERT_EQ(n, 0);
}

static size_t bytes_of_send(const struct output_send *s)
{
	size_t n = 0;

	if (!s->message)
		return s->n;
	for (size_t v = 0; v < s->message->msg_iovlen; v++)
		n += s->message->msg_iov[v].iov_len;
	return n;
}

#define SHARED_MAX 4096

/* What was shared, and is not yet given back. */
struct sharing {
	uint8_t *memory[SHARED_MAX];
	unsigned n, n_out;
};

static void on_unshare(void *ctx, void *handle)
{
	struct sharing *s = ctx;
	uint8_t **memory = handle;

	ASSERT_TRUE(memory >= s->memory && memory < s->memory + s->n && *memory);
	free(*memory);
	*memory = NULL;
	s->n_out--;
}

/* A piece and a shared one behind it. */
static size_t put_shared(struct output *o, struct output_budget *b, uint64_t at)
{
	struct sharing *s = b->ctx;
	size_t head = 1 + harness_random() % 100, n = 1 + harness_random() % 90000;
	uint8_t *p;

	ASSERT_LT(s->n, SHARED_MAX);
	s->memory[s->n] = malloc(n);
	ASSERT_TRUE(s->memory[s->n]);
	fill(s->memory[s->n], n, at + head);
	p = output_reserve_shared(o, b, head, bytes_of(s->memory[s->n], n), &s->memory[s->n]);
	ASSERT_TRUE(p);
	s->n++;
	s->n_out++;
	fill(p, head, at);
	return head + n;
}

TEST(output_is_sent_once_and_in_order_however_short_the_sends)
{
	static struct sharing sharing;
	struct output_budget budget = { .bytes_max = 1 << 30 };
	uint64_t put = 0, sent = 0;
	struct output_send s;
	struct pool pool;
	struct output o;

	pool_init(&pool);
	budget.pool = &pool;
	budget.unshare = on_unshare;
	budget.ctx = &sharing;
	output_init(&o);
	while (sent < 20 << 20) {
		size_t taken;

		/* More comes while one is out, as a rule; sometimes far more than it can hold. */
		for (uint64_t n = harness_random() % 40; n && put < 20 << 20; n--) {
			size_t piece = 1 + harness_random() % (harness_random() % 8 ? 300 : 90000);
			uint8_t *p;

			if (harness_random() % 16 == 0)
				put += put_shared(&o, &budget, put);
			p = output_reserve(&o, &budget, piece);
			ASSERT_TRUE(p);
			fill(p, piece, put);
			put += piece;
		}
		ASSERT_EQ(o.bytes, put - sent);
		ASSERT_EQ(budget.bytes, o.bytes);
		if (!output_next(&o, &budget, &s)) {
			ASSERT_EQ(o.bytes, 0);
			continue;
		}
		taken = harness_random() % (bytes_of_send(&s) + 1);
		if (harness_random() % 2)
			taken = bytes_of_send(&s);
		expect_pattern(&s, taken, sent);
		output_sent(&o, &budget, taken);
		sent += taken;
	}
	if (sharing.n < SHARED_MAX)
		put_shared(&o, &budget, put);
	output_deinit(&o, &budget); /* what it still held is given back, too */
	ASSERT_GT(sharing.n, 0);
	ASSERT_EQ(sharing.n_out, 0);
	ASSERT_EQ(budget.bytes, 0);
	ASSERT_EQ(pool.bytes_out, 0);
	pool_deinit(&pool);
}

/* Room follows what comes: a connection that is sent much in a turn gets it in one piece, and one
 * that is sent little holds little. */
TEST(output_chunks_follow_the_load)
{
	struct output_budget budget = { .bytes_max = 1 << 30 };
	struct output_send s;
	struct pool pool;
	struct output o;

	pool_init(&pool);
	budget.pool = &pool;
	output_init(&o);
	ASSERT_TRUE(output_reserve(&o, &budget, 10));
	ASSERT_LE(pool.bytes_out, OUTPUT_CHUNK_BYTES_MIN);
	for (unsigned turn = 0; turn < 40; turn++) {
		for (unsigned i = 0; i < 100; i++)
			ASSERT_TRUE(output_reserve(&o, &budget, 80));
		ASSERT_TRUE(output_next(&o, &budget, &s));
		if (turn >= 20)
			ASSERT_FALSE(s.message);
		output_sent(&o, &budget, bytes_of_send(&s));
	}
	for (unsigned turn = 0; turn < 60; turn++) {
		ASSERT_TRUE(output_reserve(&o, &budget, 80));
		ASSERT_TRUE(output_next(&o, &budget, &s));
		if (turn == 59)
			ASSERT_LE(pool.bytes_out, OUTPUT_CHUNK_BYTES_MIN);
		output_sent(&o, &budget, s.n);
	}
	output_deinit(&o, &budget);
	pool_deinit(&pool);
}

TEST(output_refuses_above_twice_its_budget)
{
	struct output_budget budget = { .bytes_max = 10000 };
	struct output a, b;
	struct pool pool;

	pool_init(&pool);
	budget.pool = &pool;
	output_init(&a);
	output_init(&b);
	ASSERT_FALSE(output_reserve(&a, &budget, 20001));
	ASSERT_TRUE(output_reserve(&a, &budget, 15000));
	ASSERT_FALSE(output_reserve(&b, &budget, 5001)); /* it is everybody's */
	ASSERT_TRUE(output_reserve(&b, &budget, 5000));
	ASSERT_FALSE(output_reserve(&b, &budget, SIZE_MAX));
	output_deinit(&a, &budget);
	ASSERT_EQ(budget.bytes, 5000);
	ASSERT_TRUE(output_reserve(&b, &budget, 5001));
	output_deinit(&b, &budget);
	pool_deinit(&pool);
}

/* --- streams ---------------------------------------------------------------------------------- */

#define PEERS_MAX 1024

/* What the owner of a stream was told of it. */
struct seen {
	struct stream *stream; /* NULL once closed */
	uint64_t bytes;
	uint64_t sum; /* of each byte times its place: order counts */
	unsigned inputs, drained, closed;
	const char *why;
	bool echo;
};

FIXTURE(streams)
{
	struct ring ring;
	struct bufring buffers;
	struct pool pool;
	struct stream_table table;
	struct seen seen[PEERS_MAX];
	int peers[PEERS_MAX];
	unsigned n;
	uint64_t skew_ms; /* added to the clock */
};

static uint64_t sum_of(const uint8_t *p, size_t n, uint64_t at)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += p[i] * (at + i + 1);
	return sum;
}

static void on_input(void *ctx, struct stream *stream, struct bytes in)
{
	struct seen *s = stream_user(stream);

	ASSERT_EQ(s->closed, 0);
	s->sum += sum_of(in.p, in.n, s->bytes);
	s->bytes += in.n;
	s->inputs++;
	if (s->echo) {
		uint8_t *out = stream_out(stream, in.n);

		ASSERT_TRUE(out);
		memcpy(out, in.p, in.n);
	}
}

static void on_drained(void *ctx, struct stream *stream)
{
	struct seen *s = stream_user(stream);

	ASSERT_EQ(s->closed, 0);
	s->drained++;
}

static void on_closed(void *ctx, struct stream *stream, const char *why)
{
	struct seen *s = stream_user(stream);

	s->closed++;
	s->why = why;
	s->stream = NULL;
}

static const struct stream_events events = { on_input, on_drained, on_closed };

static void set_up(struct fixture_streams *self, const struct stream_limits *limits,
		   unsigned buffers)
{
	ASSERT_EQ(ring_init(&self->ring, RING_SQ_ENTRIES, RING_CQ_ENTRIES), 0);
	ASSERT_EQ(bufring_init(&self->buffers, &self->ring, buffers), 0);
	pool_init(&self->pool);
	ASSERT_EQ(stream_table_init(&self->table, &self->ring, &self->buffers, &self->pool, limits,
				    &events, self),
		  0);
}

static const struct stream_limits usual = {
	.slots_max = PEERS_MAX,
	.output_soft = 64 << 10,
	.output_hard = 4 << 20,
	.output_total = 64 << 20,
	.stall_ms = 10000,
	.linger_ms = 300,
};

FIXTURE_SETUP(streams)
{
	signal(SIGPIPE, SIG_IGN);
	set_up(self, &usual, 64);
}

static void tear_down(struct fixture_streams *self)
{
	bufring_deinit(&self->buffers);
	ring_deinit(&self->ring);
	stream_table_deinit(&self->table);
	pool_deinit(&self->pool);
	for (unsigned i = 0; i < self->n; i++)
		if (self->peers[i] >= 0)
			close(self->peers[i]);
}

FIXTURE_TEARDOWN(streams)
{
	tear_down(self);
}

/* Another table with limits of a test's own. */
static void set_up_again(struct fixture_streams *self, const struct stream_limits *limits,
			 unsigned buffers)
{
	tear_down(self);
	self->n = 0;
	set_up(self, limits, buffers);
}

static void turn(struct fixture_streams *self, uint64_t wait_ms)
{
	uint64_t own = stream_table_wait_ms(&self->table);

	ASSERT_EQ(ring_wait(&self->ring, own < wait_ms ? own : wait_ms), 0);
	stream_table_time(&self->table, now_ms() + self->skew_ms);
	ring_drain(&self->ring, 256);
	stream_table_check(&self->table);
	stream_table_flush(&self->table);
}

/* Turns until the condition holds; the test's own time-out is the limit. */
#define TURN_UNTIL(self, condition)     \
	do {                            \
		while (!(condition))    \
			turn(self, 20); \
	} while (0)

static void turns_for(struct fixture_streams *self, uint64_t ms)
{
	uint64_t end = now_ms() + ms;

	while (now_ms() < end)
		turn(self, 5);
}

static struct seen *adopt(struct fixture_streams *self, int ours, int theirs)
{
	struct seen *s = &self->seen[self->n];

	ASSERT_LT(self->n, PEERS_MAX);
	*s = (struct seen){ .stream = stream_open(&self->table, ours) };
	ASSERT_TRUE(s->stream);
	stream_set_user(s->stream, s);
	self->peers[self->n++] = theirs;
	return s;
}

static struct seen *unix_pair(struct fixture_streams *self)
{
	int fds[2];

	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	return adopt(self, fds[0], fds[1]);
}

static int tcp_listener(struct address *ret_address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ASSERT_EQ(address_parse("127.0.0.1:0", ret_address), 0);
	ASSERT_EQ(bind(fd, (struct sockaddr *)&ret_address->sa, ret_address->len), 0);
	ASSERT_EQ(listen(fd, 1024), 0);
	ASSERT_EQ(getsockname(fd, (struct sockaddr *)&ret_address->sa, &ret_address->len), 0);
	return fd;
}

static int tcp_connect(const struct address *a)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(connect(fd, (const struct sockaddr *)&a->sa, a->len), 0);
	return fd;
}

static struct seen *tcp_pair(struct fixture_streams *self)
{
	struct address a;
	int listening = tcp_listener(&a);
	int theirs = tcp_connect(&a);
	int ours = accept4(listening, NULL, NULL, SOCK_CLOEXEC);

	ASSERT_GE(ours, 0);
	close(listening);
	return adopt(self, ours, theirs);
}

static int peer_of(struct fixture_streams *self, const struct seen *s)
{
	return self->peers[s - self->seen];
}

static void drop_peer(struct fixture_streams *self, const struct seen *s)
{
	close(peer_of(self, s));
	self->peers[s - self->seen] = -1;
}

/* Writes bytes at..n of the pattern into the stream's output in pieces of up to piece_max. */
static void put_more(struct stream *stream, size_t at, size_t n, size_t piece_max)
{
	while (at < n) {
		size_t piece = 1 + harness_random() % piece_max;
		uint8_t *p;

		if (piece > n - at)
			piece = n - at;
		p = stream_out(stream, piece);
		ASSERT_TRUE(p);
		fill(p, piece, at);
		at += piece;
	}
}

static void put_out(struct stream *stream, size_t n, size_t piece_max)
{
	put_more(stream, 0, n, piece_max);
}

/* Reads n bytes at the peer, turning the loop meanwhile, and compares them to the pattern. */
static void take_in(struct fixture_streams *self, int fd, size_t n, size_t piece_max)
{
	static uint8_t got[65536], want[65536];

	for (size_t at = 0; at < n;) {
		size_t piece = 1 + harness_random() % piece_max;
		ssize_t r = recv(fd, got, piece > n - at ? n - at : piece, MSG_DONTWAIT);

		if (r < 0 && errno == EAGAIN) {
			turn(self, 5);
			continue;
		}
		ASSERT_GT(r, 0);
		fill(want, (size_t)r, at);
		ASSERT_BYTES(got, want, (size_t)r);
		at += (size_t)r;
	}
}

TEST_F(streams, one_byte_at_a_time_both_ways)
{
	struct seen *s = tcp_pair(self);
	int fd = peer_of(self, s);
	uint8_t out[300], in;

	s->echo = true;
	fill(out, sizeof(out), 0);
	for (unsigned i = 0; i < sizeof(out); i++) {
		ASSERT_EQ(send(fd, &out[i], 1, 0), 1);
		TURN_UNTIL(self, recv(fd, &in, 1, MSG_DONTWAIT) == 1);
		ASSERT_EQ(in, out[i]);
	}
	ASSERT_EQ(s->bytes, sizeof(out));
	ASSERT_EQ(s->sum, sum_of(out, sizeof(out), 0));
}

TEST_F(streams, output_keeps_its_order_over_chunks_and_vectors)
{
	struct seen *s = tcp_pair(self);

	/* Small and large pieces; far more chunks than one send takes; more while one is out. */
	for (size_t n = 0; n < 3 << 20; n += 1 << 18) {
		put_more(s->stream, n, n + (1 << 18), n % (1 << 19) ? 700 : 50000);
		turn(self, 0);
	}
	ASSERT_GT(stream_backlog(s->stream), 0);
	take_in(self, peer_of(self, s), 3 << 20, 30000);
	TURN_UNTIL(self, stream_backlog(s->stream) == 0);
	ASSERT_GT(s->drained, 0);
	ASSERT_EQ(self->pool.bytes_out, 0);
	ASSERT_EQ(self->table.budget.bytes, 0);
}

TEST_F(streams, one_turn_is_one_send)
{
	struct seen *s = tcp_pair(self);

	turn(self, 0);
	for (unsigned i = 0; i < 1000; i++) {
		uint8_t *p = stream_out(s->stream, 30);

		ASSERT_TRUE(p);
		fill(p, 30, i * 30);
	}
	take_in(self, peer_of(self, s), 30000, 65536);
	ASSERT_EQ(self->table.stats.sends, 1);
}

TEST_F(streams, hard_limit_refuses_and_keeps_what_there_is)
{
	struct seen *s = unix_pair(self);
	size_t n = 0;

	while (stream_out(s->stream, 100000)) {
		n += 100000;
		turn(self, 0);
		ASSERT_LE(stream_backlog(s->stream), usual.output_hard);
	}
	ASSERT_GE(n, usual.output_hard - 100000);
	ASSERT_FALSE(stream_out(s->stream, usual.output_hard + 1));
	ASSERT_EQ(self->table.stats.refused_hard, 2);
	ASSERT_EQ(s->closed, 0); /* that is the owner's to decide */
}

TEST_F(streams, drained_is_told_when_the_peer_reads)
{
	struct seen *s = tcp_pair(self);

	put_out(s->stream, 4 << 20, 30000);
	turns_for(self, 100);
	ASSERT_GT(stream_backlog(s->stream), usual.output_soft);
	ASSERT_EQ(s->drained, 0);
	take_in(self, peer_of(self, s), 4 << 20, 65536);
	TURN_UNTIL(self, s->drained > 0);
}

TEST_F(streams, who_takes_nothing_is_cut_off_and_others_are_not)
{
	struct stream_limits l = usual;
	struct seen *dead, *slow, *idle;
	int small = 32768;
	uint64_t begin;

	l.stall_ms = 600;
	l.output_hard = 16 << 20;
	set_up_again(self, &l, 64);
	dead = tcp_pair(self);
	slow = tcp_pair(self);
	idle = tcp_pair(self);
	ASSERT_EQ(setsockopt(peer_of(self, slow), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	put_out(dead->stream, 16 << 20, 60000);
	put_out(slow->stream, 16 << 20, 60000);
	begin = now_ms();
	/* A whole send of its takes far longer than the limit; but it moves. */
	while (now_ms() - begin < 2000) {
		uint8_t buf[4096];

		(void)recv(peer_of(self, slow), buf, sizeof(buf), MSG_DONTWAIT);
		turn(self, 5);
		ASSERT_TRUE(!dead->closed || now_ms() - begin >= 550);
	}
	ASSERT_EQ(dead->closed, 1);
	ASSERT_STREQ(dead->why, "the peer takes nothing");
	ASSERT_EQ(slow->closed, 0);
	ASSERT_GT(stream_backlog(slow->stream), 0);
	ASSERT_EQ(idle->closed, 0);
	ASSERT_EQ(self->table.stats.cut_stalled, 1);
	TURN_UNTIL(self, self->table.used == 2);
}

TEST_F(streams, above_the_budget_the_largest_backlog_goes)
{
	struct stream_limits l = usual;
	struct seen *small, *large, *medium;

	l.output_total = 5 << 20;
	set_up_again(self, &l, 64);
	small = unix_pair(self); /* Unix: the kernel takes little of it */
	large = unix_pair(self);
	medium = unix_pair(self);
	put_out(small->stream, 100000, 60000);
	put_out(large->stream, 4 << 20, 60000);
	put_out(medium->stream, 2 << 20, 60000);
	TURN_UNTIL(self, large->closed);
	TURN_UNTIL(self, self->table.used == 2);
	ASSERT_STREQ(large->why, "the largest backlog when output memory ran out");
	turns_for(self, 50);
	ASSERT_EQ(small->closed, 0);
	ASSERT_EQ(medium->closed, 0);
	ASSERT_EQ(self->table.stats.cut_budget, 1);
	take_in(self, peer_of(self, medium), 2 << 20, 65536);
}

TEST_F(streams, a_paused_stream_reads_nothing_and_then_everything)
{
	struct seen *s = tcp_pair(self);
	int fd = peer_of(self, s);
	uint8_t out[1000];
	uint64_t before;

	turn(self, 0);
	stream_pause(s->stream, true);
	turns_for(self, 30); /* the cancel settles */
	fill(out, sizeof(out), 0);
	ASSERT_EQ(send(fd, out, 500, 0), 500);
	turns_for(self, 50);
	ASSERT_EQ(s->bytes, 0);
	stream_pause(s->stream, false);
	ASSERT_EQ(send(fd, out + 500, 500, 0), 500);
	TURN_UNTIL(self, s->bytes == 1000);
	ASSERT_EQ(s->sum, sum_of(out, sizeof(out), 0));
	/* And the last wish counts, however often it changes in a turn. */
	for (unsigned i = 0; i < 7; i++)
		stream_pause(s->stream, i % 2 == 0);
	turns_for(self, 30);
	before = s->bytes;
	ASSERT_EQ(send(fd, out, 10, 0), 10);
	turns_for(self, 30);
	ASSERT_EQ(s->bytes, before);
}

TEST_F(streams, pausing_under_load_loses_nothing)
{
	static uint8_t out[1 << 20];
	struct seen *s = tcp_pair(self);
	int fd = peer_of(self, s);
	size_t sent = 0;
	bool paused = false;

	fill(out, sizeof(out), 0);
	while (s->bytes < sizeof(out)) {
		if (sent < sizeof(out)) {
			size_t n = 1 + harness_random() % 9000;
			ssize_t r;

			if (n > sizeof(out) - sent)
				n = sizeof(out) - sent;
			r = send(fd, out + sent, n, MSG_DONTWAIT);
			sent += r > 0 ? (size_t)r : 0;
		}
		paused = harness_random() % 2;
		stream_pause(s->stream, paused);
		turn(self, paused ? 1 : 5);
	}
	ASSERT_EQ(s->sum, sum_of(out, sizeof(out), 0));
}

TEST_F(streams, buffers_that_run_out_cost_no_byte_and_no_spinning)
{
	enum { SENDERS = 100, EACH = 200000 };
	static uint8_t out[EACH];
	size_t sent[SENDERS] = { 0 };
	unsigned done = 0;

	set_up_again(self, &usual, 16);
	fill(out, sizeof(out), 0);
	for (unsigned i = 0; i < SENDERS; i++)
		tcp_pair(self);
	while (done < SENDERS) {
		done = 0;
		for (unsigned i = 0; i < SENDERS; i++) {
			ssize_t r =
				send(self->peers[i], out + sent[i], EACH - sent[i], MSG_DONTWAIT);

			sent[i] += r > 0 ? (size_t)r : 0;
			done += self->seen[i].bytes == EACH;
		}
		turn(self, 1);
	}
	for (unsigned i = 0; i < SENDERS; i++)
		ASSERT_EQ(self->seen[i].sum, sum_of(out, EACH, 0));
	harness_note("ran out of buffers %llu times for %u receives",
		     (unsigned long long)self->table.stats.no_buffers, SENDERS * EACH / 8192);
	ASSERT_GT(self->table.stats.no_buffers, 0);
	/* Arming without a look at what came back runs out three times a receive. */
	ASSERT_LT(self->table.stats.no_buffers, 2 * SENDERS * EACH / 8192);
}

/* --- how streams end -------------------------------------------------------------------------- */

TEST_F(streams, closing_sends_what_there_is_and_resets_nobody)
{
	struct seen *s = tcp_pair(self);
	uint8_t junk[5000] = { 0 }, byte;
	int fd = peer_of(self, s);
	uint64_t begin;

	turn(self, 0);
	put_out(s->stream, 1 << 20, 5000);
	stream_close(s->stream, false);
	/* What the peer still says is read, or its kernel would drop our bytes with a reset. */
	ASSERT_EQ(send(fd, junk, sizeof(junk), 0), sizeof(junk));
	take_in(self, fd, 1 << 20, 65536);
	TURN_UNTIL(self, recv(fd, &byte, 1, MSG_DONTWAIT) == 0); /* FIN, not ECONNRESET */
	ASSERT_EQ(send(fd, junk, sizeof(junk), 0), sizeof(junk));
	turns_for(self, 20);
	ASSERT_EQ(self->table.used, 1); /* it waits for the peer's FIN */
	drop_peer(self, s);
	begin = now_ms();
	TURN_UNTIL(self, self->table.used == 0);
	ASSERT_LT(now_ms() - begin, usual.linger_ms - 100); /* and for no longer */
	ASSERT_EQ(s->closed, 0);			    /* the owner knew */
	ASSERT_EQ(s->bytes, 0);				    /* and has forgotten it */
	ASSERT_TRUE(stream_table_take_released(&self->table));
	ASSERT_FALSE(stream_table_take_released(&self->table));
}

TEST_F(streams, a_peer_that_ends_is_let_go_first)
{
	struct seen *s = tcp_pair(self), *slow = tcp_pair(self);
	uint64_t begin = now_ms();
	uint8_t byte;

	turn(self, 0);
	put_out(s->stream, 1000, 1000);
	stream_close(s->stream, true);
	stream_close(slow->stream, true);
	take_in(self, peer_of(self, s), 1000, 65536);
	turns_for(self, 20);
	ASSERT_EQ(recv(peer_of(self, s), &byte, 1, MSG_DONTWAIT), -1); /* no FIN yet */
	ASSERT_EQ(errno, EAGAIN);
	ASSERT_EQ(shutdown(peer_of(self, s), SHUT_WR), 0);
	TURN_UNTIL(self, recv(peer_of(self, s), &byte, 1, MSG_DONTWAIT) == 0);
	TURN_UNTIL(self, self->table.used == 1);
	TURN_UNTIL(self, self->table.used == 0); /* nor for ever */
	ASSERT_GE(now_ms() - begin, usual.linger_ms - 20);
}

TEST_F(streams, a_peer_that_does_not_close_is_not_waited_for_long)
{
	struct seen *s = tcp_pair(self);
	uint64_t begin = now_ms();

	turn(self, 0);
	stream_close(s->stream, false);
	TURN_UNTIL(self, self->table.used == 0);
	ASSERT_GE(now_ms() - begin, usual.linger_ms - 20);
	ASSERT_LT(now_ms() - begin, usual.linger_ms + 3000);
}

TEST_F(streams, a_closing_stream_whose_peer_stalls_is_cut_off)
{
	struct seen *s = tcp_pair(self);

	put_out(s->stream, 4 << 20, 60000);
	turn(self, 0);
	stream_close(s->stream, false);
	turns_for(self, 50);
	ASSERT_EQ(self->table.used, 1);
	self->skew_ms = usual.stall_ms / 2 + 1;
	turns_for(self, 20);
	self->skew_ms = usual.stall_ms + 20;
	TURN_UNTIL(self, self->table.used == 0);
	ASSERT_EQ(s->closed, 0);
	ASSERT_EQ(self->pool.bytes_out, 0);
}

TEST_F(streams, end_and_reset_are_told_once)
{
	struct seen *ended = tcp_pair(self), *reset = tcp_pair(self), *paused = tcp_pair(self);
	struct linger rst = { 1, 0 };

	turn(self, 0);
	stream_pause(paused->stream, true);
	turns_for(self, 20);
	drop_peer(self, ended);
	ASSERT_EQ(setsockopt(peer_of(self, reset), SOL_SOCKET, SO_LINGER, &rst, sizeof(rst)), 0);
	drop_peer(self, reset);
	drop_peer(self, paused);
	TURN_UNTIL(self, ended->closed && reset->closed);
	turns_for(self, 30);
	ASSERT_EQ(ended->closed, 1);
	ASSERT_STREQ(ended->why, "end of stream");
	ASSERT_EQ(reset->closed, 1);
	ASSERT_STREQ(reset->why, "Connection reset by peer");
	ASSERT_EQ(paused->closed, 0); /* seen when it reads again */
	stream_pause(paused->stream, false);
	TURN_UNTIL(self, paused->closed);
	TURN_UNTIL(self, self->table.used == 0);
}

TEST_F(streams, abort_drops_the_output)
{
	struct seen *s = tcp_pair(self);
	struct pollfd p = { .fd = peer_of(self, s), .events = POLLIN };
	uint8_t byte;

	turn(self, 0);
	put_out(s->stream, 1000, 1000);
	stream_abort(s->stream);
	TURN_UNTIL(self, self->table.used == 0);
	ASSERT_EQ(poll(&p, 1, 5000), 1);
	ASSERT_LE(recv(p.fd, &byte, 1, 0), 0);
	ASSERT_EQ(s->closed, 0);
}

TEST_F(streams, completion_of_an_earlier_generation_is_nobodys)
{
	struct seen *first = unix_pair(self), *second;
	struct io_uring_sqe *sqe;

	turn(self, 0);
	drop_peer(self, first);
	TURN_UNTIL(self, self->table.used == 0);
	/* Every slot of the first slab once, until the first one's is used again. */
	do {
		second = unix_pair(self);
	} while (second->stream != self->table.slabs[0]);
	sqe = ring_sqe(&self->ring);
	io_uring_prep_nop(sqe); /* completes with 0: an end of stream, if it were believed */
	ring_tag(sqe, RING_RECV, 0, 0);
	sqe = ring_sqe(&self->ring);
	io_uring_prep_nop(sqe);
	ring_tag(sqe, RING_SEND, 0, 0);
	turns_for(self, 20);
	ASSERT_EQ(self->table.stats.stale, 2);
	ASSERT_EQ(second->closed, 0);
	ASSERT_EQ(send(peer_of(self, second), "x", 1, 0), 1);
	TURN_UNTIL(self, second->bytes == 1);
}

TEST_F(streams, a_thousand_that_come_talk_and_go)
{
	enum { PEERS = 1000, ROUNDS = 3 };
	struct rlimit files;
	uint8_t out[200], in[200];

	ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
	files.rlim_cur = files.rlim_max;
	ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
	if (files.rlim_cur < 2 * PEERS + 100)
		SKIP("no more than %lu descriptors", (unsigned long)files.rlim_cur);
	fill(out, sizeof(out), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t left = PEERS;

		self->n = 0;
		for (unsigned i = 0; i < PEERS; i++)
			tcp_pair(self)->echo = true;
		for (unsigned i = 0; i < PEERS; i++)
			ASSERT_EQ(send(self->peers[i], out, sizeof(out), 0), sizeof(out));
		for (unsigned i = 0; i < PEERS; i++) {
			TURN_UNTIL(self, recv(self->peers[i], in, sizeof(in),
					      MSG_DONTWAIT | MSG_PEEK) == sizeof(in));
			ASSERT_EQ(recv(self->peers[i], in, sizeof(in), 0), sizeof(in));
			ASSERT_BYTES(in, out, sizeof(in));
		}
		ASSERT_EQ(self->table.used, PEERS);
		for (unsigned i = 0; i < PEERS; i++)
			drop_peer(self, &self->seen[i]);
		while (left) {
			turn(self, 20);
			left = self->table.used;
		}
		for (unsigned i = 0; i < PEERS; i++)
			ASSERT_EQ(self->seen[i].closed, 1);
	}
	ASSERT_EQ(self->table.n_slabs, (PEERS + 63) / 64);
	ASSERT_EQ(self->table.stats.stale, 0);
	ASSERT_EQ(self->pool.bytes_out, 0);
}

TEST_F(streams, a_full_table_takes_no_more)
{
	struct stream_limits l = usual;
	int fds[2];

	l.slots_max = 3;
	set_up_again(self, &l, 64);
	for (unsigned i = 0; i < 3; i++)
		unix_pair(self);
	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	ASSERT_FALSE(stream_open(&self->table, fds[0]));
	ASSERT_EQ(fcntl(fds[0], F_GETFD), -1);
	close(fds[1]);
}

TEST_F(streams, abort_of_the_table_frees_every_slot)
{
	for (unsigned i = 0; i < 50; i++) {
		struct seen *s = tcp_pair(self);

		turn(self, 0);
		if (i % 3)
			put_out(s->stream, 1 << 20, 60000);
		if (i % 2)
			stream_close(s->stream, false);
	}
	turns_for(self, 20);
	stream_table_abort(&self->table);
	TURN_UNTIL(self, self->table.used == 0);
	ASSERT_EQ(self->pool.bytes_out, 0);
	for (unsigned i = 0; i < 50; i++)
		ASSERT_EQ(self->seen[i].closed, 0);
}

/* --- listeners -------------------------------------------------------------------------------- */

#define TAKEN_MAX 64

struct taken {
	int fds[TAKEN_MAX];
	unsigned n;
};

static void on_accept(void *ctx, int fd)
{
	struct taken *t = ctx;

	ASSERT_LT(t->n, TAKEN_MAX);
	t->fds[t->n++] = fd;
}

static void listen_turn(struct ring *r, struct listener_set *s, bool released)
{
	listener_turn(s, now_ms(), released);
	ASSERT_EQ(ring_wait(r, 10), 0);
	ring_drain(r, 100);
}

static int option_of(int fd, int level, int option)
{
	socklen_t n = sizeof(int);
	int value = -1;

	ASSERT_EQ(getsockopt(fd, level, option, &value, &n), 0);
	return value;
}

TEST(listener_accepts_and_hands_its_options_on)
{
	struct address a, bound[2];
	struct listener_set set;
	struct taken taken = { .n = 0 };
	struct ring r;
	int clients[2], probe;

	ASSERT_EQ(ring_init(&r, 64, 256), 0);
	listener_set_init(&set, &r, on_accept, &taken);
	ASSERT_EQ(address_parse("127.0.0.1:0", &a), 0);
	ASSERT_EQ(listener_add(&set, &a, &bound[0]), 0);
	ASSERT_EQ(listener_add(&set, &a, &bound[1]), 0);
	ASSERT_EQ(listener_start(&set), 0);
	ASSERT_EQ(listener_add(&set, &bound[0], &a), -EADDRINUSE);
	clients[0] = tcp_connect(&bound[0]);
	clients[1] = tcp_connect(&bound[1]);
	while (taken.n < 2)
		listen_turn(&r, &set, false);
	for (unsigned i = 0; i < 2; i++) {
		ASSERT_EQ(option_of(taken.fds[i], IPPROTO_TCP, TCP_NODELAY), 1);
		ASSERT_EQ(option_of(taken.fds[i], IPPROTO_TCP, TCP_NOTSENT_LOWAT),
			  LISTENER_LOWAT_BYTES);
		ASSERT_EQ(option_of(taken.fds[i], SOL_SOCKET, SO_KEEPALIVE), 1);
		ASSERT_TRUE(fcntl(taken.fds[i], F_GETFD) & FD_CLOEXEC);
		close(taken.fds[i]);
		close(clients[i]);
	}
	listener_stop(&set);
	listen_turn(&r, &set, false);
	probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ASSERT_EQ(connect(probe, (struct sockaddr *)&bound[0].sa, bound[0].len), -1);
	ASSERT_EQ(errno, ECONNREFUSED);
	close(probe);
	ring_deinit(&r);
	listener_set_deinit(&set);
}

TEST(listener_without_descriptors_waits_and_does_not_spin)
{
	struct listener_set set;
	struct taken taken = { .n = 0 };
	struct address a;
	struct rlimit files;
	int clients[3], spare;
	struct ring r;

	ASSERT_EQ(ring_init(&r, 64, 256), 0);
	listener_set_init(&set, &r, on_accept, &taken);
	ASSERT_EQ(address_parse("127.0.0.1:0", &a), 0);
	ASSERT_EQ(listener_add(&set, &a, &a), 0);
	ASSERT_EQ(listener_start(&set), 0);
	for (unsigned i = 0; i < 3; i++)
		clients[i] = tcp_connect(&a);
	spare = dup(clients[0]);
	ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
	files.rlim_cur = (rlim_t)spare + 1;
	ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
	for (unsigned i = 0; i < 30; i++)
		listen_turn(&r, &set, false);
	ASSERT_EQ(taken.n, 0);
	ASSERT_EQ(set.out_of_fds, 1);
	ASSERT_GT(listener_wait_ms(&set), 0);
	ASSERT_LE(listener_wait_ms(&set), LISTENER_RETRY_MS);
	/* One is closed: one may come, at once. */
	close(spare);
	listen_turn(&r, &set, true);
	listen_turn(&r, &set, false);
	ASSERT_EQ(taken.n, 1);
	ASSERT_EQ(set.out_of_fds, 2);
	/* The limit is raised: the others come by themselves after a while. */
	files.rlim_cur = files.rlim_max;
	ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
	while (taken.n < 3)
		listen_turn(&r, &set, false);
	ring_deinit(&r);
	listener_set_deinit(&set);
	for (unsigned i = 0; i < 3; i++) {
		close(taken.fds[i]);
		close(clients[i]);
	}
}

/* By this, admission knows that it is time to enforce. */
TEST(listener_knows_how_full_its_queue_is)
{
	struct taken taken = { .n = 0 };
	struct listener_set set;
	struct address a, bound[2];
	int clients[3];
	struct ring r;

	ASSERT_EQ(ring_init(&r, 64, 256), 0);
	listener_set_init(&set, &r, on_accept, &taken);
	ASSERT_EQ(address_parse("127.0.0.1:0", &a), 0);
	ASSERT_EQ(listener_add(&set, &a, &bound[0]), 0);
	ASSERT_EQ(listener_add(&set, &a, &bound[1]), 0);
	ASSERT_EQ(listener_queue_percent(&set), 0);
	ASSERT_EQ(listener_start(&set), 0);
	ASSERT_EQ(option_of(set.all[0].fd, IPPROTO_TCP, TCP_FASTOPEN), 0);
	ASSERT_EQ(listen(set.all[1].fd, 4), 0);
	for (unsigned i = 0; i < 3; i++) {
		ASSERT_EQ(listener_queue_percent(&set), 25 * i);
		clients[i] = tcp_connect(&bound[1]);
	}
	ASSERT_EQ(listener_queue_percent(&set), 75);
	while (taken.n < 3)
		listen_turn(&r, &set, false);
	ASSERT_EQ(listener_queue_percent(&set), 0);
	ring_deinit(&r);
	listener_set_deinit(&set);
	for (unsigned i = 0; i < 3; i++) {
		close(taken.fds[i]);
		close(clients[i]);
	}
}

/* --- around them ------------------------------------------------------------------------------ */

TEST(address_reads_what_it_writes)
{
	static const char *const good[] = { "127.0.0.1:1883", "0.0.0.0:0", "255.255.255.255:65535",
					    "[::1]:1883", "[2001:db8::7]:1" };
	static const char *const bad[] = { "",
					   ":",
					   "1883",
					   "127.0.0.1",
					   "127.0.0.1:",
					   "127.0.0.1:65536",
					   "127.1:1883",
					   "::1:1883",
					   "[::1]",
					   "[]:1",
					   "[127.0.0.1]:1",
					   "example.org:1883",
					   "1.2.3.4:-1",
					   "1.2.3.4: 1",
					   "1.2.3.4:1x",
					   "[::1%lo]:1",
					   "1.2.3.4:000001" };
	char text[ADDRESS_TEXT_BYTES_MAX], *copy;
	struct address a;

	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		ASSERT_EQ(address_parse(good[i], &a), 0);
		ASSERT_STREQ(address_text(&a, text), good[i]);
	}
	ASSERT_EQ(address_parse("localhost:7", &a), 0);
	ASSERT_STREQ(address_text(&a, text), "127.0.0.1:7");
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		if (address_parse(bad[i], &a) != -EINVAL)
			harness_fail(__FILE__, __LINE__, false, "taken: %s", bad[i]);
	copy = malloc(100000);
	memset(copy, '1', 99999);
	copy[99999] = '\0';
	ASSERT_EQ(address_parse(copy, &a), -EINVAL);
	memcpy(copy + 99990, ":1883", 6);
	ASSERT_EQ(address_parse(copy, &a), -EINVAL);
	free(copy);
}

TEST(file_is_read_whole_or_not_at_all)
{
	char dir[] = "/tmp/ssdtf-file-XXXXXX", path[64];
	uint8_t *bytes;
	mode_t mode;
	size_t n;
	int fd;

	ASSERT_TRUE(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/f", dir);
	ASSERT_EQ(file_read(AT_FDCWD, path, 10, &bytes, &n, NULL), -ENOENT);
	ASSERT_EQ(file_read(AT_FDCWD, dir, 10, &bytes, &n, NULL), -EISDIR);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
	ASSERT_EQ(file_read(AT_FDCWD, path, 10, &bytes, &n, &mode), 0);
	ASSERT_EQ(n, 0);
	ASSERT_EQ(mode & 0777, 0640);
	free(bytes);
	ASSERT_EQ(write(fd, "0123456789", 10), 10);
	ASSERT_EQ(file_read(AT_FDCWD, path, 10, &bytes, &n, NULL), 0);
	ASSERT_EQ(n, 10);
	ASSERT_BYTES(bytes, "0123456789", 10);
	free(bytes);
	ASSERT_EQ(file_read(AT_FDCWD, path, 9, &bytes, &n, NULL), -EFBIG);
	close(fd);
	ASSERT_EQ(unlink(path), 0);
	ASSERT_EQ(mkfifo(path, 0600), 0);
	ASSERT_EQ(file_read(AT_FDCWD, path, 10, &bytes, &n, NULL), -EINVAL); /* and does not wait */
	ASSERT_EQ(unlink(path), 0);
	ASSERT_EQ(rmdir(dir), 0);
}

/* Runs what is said on stderr into buf. */
static size_t captured(void (*say)(void), char *buf, size_t room)
{
	int fds[2], saved = dup(STDERR_FILENO);
	ssize_t n;

	ASSERT_EQ(pipe(fds), 0);
	ASSERT_GE(dup2(fds[1], STDERR_FILENO), 0);
	say();
	ASSERT_GE(dup2(saved, STDERR_FILENO), 0);
	close(fds[1]);
	n = read(fds[0], buf, room - 1);
	ASSERT_GE(n, 0);
	buf[n] = '\0';
	close(fds[0]);
	close(saved);
	return (size_t)n;
}

static void say_notes(void)
{
	static struct journal j;

	journal_note(&j, 1000, "refused", "id\n\"x\\\xff", "first");
	for (unsigned i = 0; i < 100; i++)
		journal_note(&j, 1500, "refused", "other", "again");
	journal_note(&j, 1500, "queue full", NULL, NULL);
	journal_note(&j, 2000, "refused", "id", "later");
}

TEST(journal_limits_each_event_and_forges_no_line)
{
	char text[2048];

	log_init("test", LOG_LEVEL_WARN);
	captured(say_notes, text, sizeof(text));
	ASSERT_STREQ(text,
		     "test: warning: event=refused client=\"id??x??\" what=\"first\" left_out=0\n"
		     "test: warning: event=queue-full client=\"\" what=\"\" left_out=0\n"
		     "test: warning: event=refused client=\"id\" what=\"later\" left_out=100\n");
}

static void say_stats(void)
{
	struct broker_stats b;
	struct stream_stats s;

	memset(&b, 0xff, sizeof(b));
	memset(&s, 0xff, sizeof(s));
	journal_stats(&b, &s, NULL);
}

TEST(journal_has_room_for_the_largest_counters)
{
	char text[8192];
	size_t n = captured(say_stats, text, sizeof(text));

	ASSERT_EQ(text[n - 1], '\n');
	ASSERT_TRUE(strchr(text, '\n') == text + n - 1);
	ASSERT_TRUE(strstr(text, " refused_8=18446744073709551615 delivered=18446744073709551615"));
	ASSERT_TRUE(strstr(text, " refused_hard=18446744073709551615\n"));
}

TEST(notify_tells_the_socket_that_it_is_given)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char name[64], got[64];
	socklen_t n;

	ASSERT_EQ(unsetenv("NOTIFY_SOCKET"), 0);
	notify_state("READY=1"); /* nobody asked */
	n = (socklen_t)snprintf(name, sizeof(name), "@ssdtf-notify-%d", (int)getpid());
	memcpy(sa.sun_path, name, n);
	sa.sun_path[0] = '\0';
	n += (socklen_t)offsetof(struct sockaddr_un, sun_path);
	ASSERT_EQ(bind(fd, (struct sockaddr *)&sa, n), 0);
	ASSERT_EQ(setenv("NOTIFY_SOCKET", name, 1), 0);
	notify_state("READY=1");
	ASSERT_EQ(recv(fd, got, sizeof(got), MSG_DONTWAIT), 7);
	ASSERT_BYTES(got, "READY=1", 7);
	ASSERT_EQ(setenv("NOTIFY_SOCKET", "/nonexistent/socket", 1), 0);
	notify_state("READY=1"); /* nobody there: no error */
	close(fd);
}

TEST(sandbox_takes_what_it_says)
{
	struct rlimit l;

	ASSERT_EQ(sandbox_enter(), 0);
	ASSERT_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	ASSERT_EQ(getrlimit(RLIMIT_CORE, &l), 0);
	ASSERT_EQ(l.rlim_max, 0);
	ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &l), 0);
	ASSERT_EQ(l.rlim_cur, l.rlim_max);
	ASSERT_EQ(raise(SIGPIPE), 0);
}

HARNESS_MAIN
