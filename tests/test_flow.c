// SPDX-License-Identifier: MIT
/*
 * What the benchmark's clients count with: latencies in a histogram against the sorted list,
 * numbers that came against a naive list, a sender's packets written in any cut, and small packets
 * that mix with them at the bounds of packets alone.
 */
#include "tests/harness.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/flow/histogram.h"
#include "bench/flow/link.h"
#include "bench/flow/scenario.h"
#include "bench/flow/tape.h"
#include "bench/flow/topics.h"
#include "bench/flow/track.h"

static size_t below(size_t n)
{
	return harness_random() % n;
}

/* --- histogram -------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

TEST(histogram_knows_each_value_to_a_hundredth)
{
	static const double parts[] = { 0, 0.001, 0.5, 0.9, 0.99, 0.999, 1 };
	size_t n = harness_rounds(4000);
	uint64_t *v = calloc(n, sizeof(*v));
	struct histogram *h = calloc(1, sizeof(*h));

	ASSERT_TRUE(v && h);
	for (size_t i = 0; i < n; i++) {
		v[i] = harness_random() >> (24 + below(40)); /* of all magnitudes */
		histogram_add(h, v[i]);
	}
	qsort(v, n, sizeof(*v), by_value);
	ASSERT_EQ(h->n, n);
	ASSERT_EQ(h->min, v[0]);
	ASSERT_EQ(h->max, v[n - 1]);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		size_t rank = (size_t)ceil(parts[i] * (double)n);
		double want = (double)v[rank ? rank - 1 : 0],
		       got = (double)histogram_at(h, parts[i]);

		EXPECT_TRUE(fabs(got - want) <= want * 0.01);
	}
	free(v);
	free(h);
}

TEST(histogram_is_exact_below_256_and_bounded_above)
{
	struct histogram *h = calloc(1, sizeof(*h));

	ASSERT_TRUE(h);
	ASSERT_EQ(histogram_at(h, 0.5), 0);
	for (uint64_t i = 0; i < 256; i++) {
		*h = (struct histogram){ 0 };
		histogram_add(h, i);
		histogram_add(h, 1000000);
		ASSERT_EQ(histogram_at(h, 0.5), i);
	}
	*h = (struct histogram){ 0 };
	histogram_add(h, UINT64_MAX);
	histogram_add(h, UINT64_MAX);
	EXPECT_EQ(h->max, UINT64_MAX);
	EXPECT_TRUE(histogram_at(h, 0.5) >= 1ull << (HISTOGRAM_BITS - 1));
	free(h);
}

/* --- track ------------------------------------------------------------------------------------ */

TEST(track_tells_new_late_and_again)
{
	struct track t = { 0 };
	uint64_t skipped;

	EXPECT_EQ(track_take(&t, 0, &skipped), TRACK_NEW);
	EXPECT_EQ(skipped, 0);
	EXPECT_EQ(track_take(&t, 0, &skipped), TRACK_AGAIN);
	EXPECT_EQ(track_take(&t, 4, &skipped), TRACK_NEW);
	EXPECT_EQ(skipped, 3);
	EXPECT_EQ(track_take(&t, 2, &skipped), TRACK_LATE);
	EXPECT_EQ(track_take(&t, 2, &skipped), TRACK_AGAIN);
	EXPECT_EQ(track_take(&t, 4, &skipped), TRACK_AGAIN);
	EXPECT_EQ(track_take(&t, 4 + TRACK_BACK, &skipped), TRACK_NEW);
	EXPECT_EQ(skipped, TRACK_BACK - 1);
	EXPECT_EQ(track_take(&t, 1000, &skipped), TRACK_NEW);
	EXPECT_EQ(track_take(&t, 999, &skipped), TRACK_LATE);
	EXPECT_EQ(track_take(&t, 5, &skipped), TRACK_LATE); /* so far back nobody knows */
}

TEST(track_agrees_with_a_list)
{
	enum { N = 4096 };
	bool came[N] = { false };
	struct track t = { 0 };
	uint64_t next = 0, skipped;

	for (unsigned i = 0; i < harness_rounds(20000); i++) {
		uint64_t back = below(TRACK_BACK), at = next + below(3);

		if (below(2) && next > back)
			at = next - 1 - back;
		if (at >= N)
			break;
		if (at >= next) {
			ASSERT_EQ(track_take(&t, at, &skipped), TRACK_NEW);
			ASSERT_EQ(skipped, at - next);
			next = at + 1;
		} else {
			ASSERT_EQ(track_take(&t, at, &skipped),
				  came[at] ? TRACK_AGAIN : TRACK_LATE);
		}
		came[at] = true;
	}
}

/* --- tape ------------------------------------------------------------------------------------- */

#define SENDER	 7u
#define STREAM_N 65536

/* Takes whole packets off a stream and checks that they are the tape's, in their order. */
struct stream {
	uint8_t bytes[STREAM_N];
	size_t n;
	uint64_t next; /* the number that is to come */
	unsigned acks;
	uint8_t qos;
	size_t payload;
};

static void stream_take(struct stream *s)
{
	size_t at = 0, used, need;
	struct mqtt_frame f;

	for (;; at += used) {
		struct mqtt_publish p;
		uint64_t number;
		uint32_t sender;

		ASSERT_EQ(mqtt_frame_next(bytes_of(s->bytes + at, s->n - at), STREAM_N, &f, &used,
					  &need),
			  MQTT_OK);
		if (!used)
			break;
		if (mqtt_frame_type(&f) == MQTT_PUBACK) {
			s->acks++;
			continue;
		}
		ASSERT_EQ(mqtt_decode_publish(&f, &p), MQTT_OK);
		ASSERT_TRUE(tape_read_mark(p.payload, &sender, &number));
		ASSERT_EQ(sender, SENDER);
		ASSERT_EQ(number, s->next);
		ASSERT_EQ(p.payload.n, s->payload);
		ASSERT_EQ(p.qos, s->qos);
		ASSERT_EQ(p.packet_id, s->qos ? tape_packet_id(number) : 0);
		s->next++;
	}
	memmove(s->bytes, s->bytes + at, s->n - at);
	s->n -= at;
}

/* Up to n bytes of what the tape would write. */
static void write_some(struct tape *t, struct stream *s, size_t n)
{
	struct iovec v[TAPE_IOV];
	unsigned pieces = tape_pending(t, v);

	for (unsigned i = 0; i < pieces && n; i++) {
		size_t part = v[i].iov_len < n ? v[i].iov_len : n;

		ASSERT_TRUE(part <= STREAM_N - s->n);
		memcpy(s->bytes + s->n, v[i].iov_base, part);
		s->n += part;
		n -= part;
		tape_wrote(t, part);
	}
	stream_take(s);
}

static void ring_walk(uint8_t qos, size_t payload, uint64_t slots)
{
	static struct stream s;
	char text[TOPICS_BYTES];
	struct tape t;

	s = (struct stream){ .qos = qos, .payload = payload };
	ASSERT_EQ(tape_ring_new(&t, topics_write(SENDER, text), qos, payload, SENDER, slots), 0);
	for (unsigned i = 0; i < harness_rounds(2000); i++) {
		uint64_t room = tape_room(&t);

		ASSERT_EQ(room, slots - (t.put - t.written));
		tape_put(&t, below(room + 1));
		write_some(&t, &s, below(3 * payload));
	}
	while (t.written < t.put)
		write_some(&t, &s, STREAM_N / 2);
	EXPECT_EQ(s.next, t.put);
	EXPECT_EQ(tape_room(&t), slots);
	tape_ring_free(&t);
}

TEST(tape_ring_survives_any_cut)
{
	ring_walk(0, TAPE_MARK_BYTES, 1);
	ring_walk(1, 64, 5);
	ring_walk(2, 300, 64);
}

TEST(tape_of_packets_sealed_ahead_ends)
{
	static uint8_t bytes[16384];
	static struct stream s = { .qos = 1, .payload = 0 };
	uint64_t ends[20];
	struct bytes_writer w = bytes_writer_of(bytes, sizeof(bytes));
	char text[TOPICS_BYTES];
	struct mqtt_publish p = { .qos = 1, .topic = topics_write(SENDER, text) };
	struct tape t;

	s.payload = 40;
	for (uint64_t i = 0; i < ARRAY_SIZE(ends); i++) {
		p.packet_id = tape_packet_id(i);
		tape_write(&w, &p, 40, SENDER, i);
		ends[i] = w.used;
	}
	ASSERT_FALSE(w.bad);
	tape_all(&t, bytes, ends, ARRAY_SIZE(ends));
	while (t.written < ARRAY_SIZE(ends)) {
		tape_put(&t, below(tape_room(&t) + 1));
		write_some(&t, &s, below(100));
	}
	EXPECT_EQ(s.next, ARRAY_SIZE(ends));
	EXPECT_EQ(tape_room(&t), 0);
}

/* --- link ------------------------------------------------------------------------------------- */

static void pull(int fd, struct stream *s)
{
	ssize_t n = recv(fd, s->bytes + s->n, 1 + below(STREAM_N - s->n), MSG_DONTWAIT);

	if (n > 0)
		s->n += (size_t)n;
	stream_take(s);
}

/* A socket that takes little at a time cuts packets everywhere. */
TEST(link_mixes_at_the_bounds_of_packets)
{
	static struct stream s = { .qos = 1, .payload = 700 };
	const int little = 1;
	unsigned acks = 0;
	char text[TOPICS_BYTES];
	struct link l;
	struct tape t;
	int fd[2];

	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	ASSERT_EQ(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &little, sizeof(little)), 0);
	ASSERT_EQ(tape_ring_new(&t, topics_write(SENDER, text), 1, 700, SENDER, 16), 0);
	link_init(&l, 0, 0);
	l.fd = fd[0];
	l.state = LINK_OPEN;
	l.tape = &t;
	for (unsigned i = 0; i < harness_rounds(2000); i++) {
		int ret;

		tape_put(&t, below(tape_room(&t) + 1));
		for (size_t k = below(3); k; k--, acks++)
			link_write_ack(&l, MQTT_PUBACK, 1);
		ret = link_flush(&l);
		ASSERT_TRUE(!ret || ret == -EAGAIN);
		if (below(2))
			pull(fd[1], &s);
	}
	while (t.written < t.put || l.out_n) {
		ASSERT_TRUE(!link_flush(&l) || errno == EAGAIN);
		pull(fd[1], &s);
	}
	for (unsigned i = 0; s.next < t.put && i < 10000; i++)
		pull(fd[1], &s);
	EXPECT_EQ(s.next, t.put);
	EXPECT_EQ(s.acks, acks);
	link_deinit(&l);
	tape_ring_free(&t);
	(void)close(fd[1]);
}

static void count_frame(void *ctx, struct link *l, const struct mqtt_frame *f)
{
	unsigned *n = ctx;

	*n += mqtt_frame_type(f) == MQTT_PUBACK;
}

TEST(link_receives_packets_in_any_cut)
{
	const uint8_t puback[] = { 0x40, 2, 0, 1 };
	uint8_t rx[64];
	unsigned sent = 0, got = 0;
	struct link l;
	int fd[2];

	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	link_init(&l, 0, 0);
	l.fd = fd[0];
	l.state = LINK_OPEN;
	ASSERT_EQ(link_receive(&l, rx, sizeof(rx), count_frame, &got), -EAGAIN);
	for (; sent < 4 * 200; sent++) {
		ASSERT_EQ(send(fd[1], puback + sent % 4, 1, 0), 1);
		if (below(3))
			continue;
		ASSERT_EQ(link_receive(&l, rx, sizeof(rx), count_frame, &got), 0);
		ASSERT_EQ(got, (sent + 1) / 4);
	}
	while (got < sent / 4)
		ASSERT_EQ(link_receive(&l, rx, sizeof(rx), count_frame, &got), 0);
	ASSERT_EQ(send(fd[1], "\0", 1, 0), 1);
	EXPECT_EQ(link_receive(&l, rx, sizeof(rx), count_frame, &got), -EPROTO);
	(void)close(fd[1]);
	EXPECT_EQ(link_receive(&l, rx, sizeof(rx), count_frame, &got), -ECONNRESET);
	link_deinit(&l);
}

/* --- words ------------------------------------------------------------------------------------ */

TEST(topics_are_read_as_they_are_written)
{
	char text[TOPICS_BYTES];
	uint32_t n;

	for (unsigned i = 0; i < 1000000; i += 1 + (unsigned)below(100000)) {
		ASSERT_TRUE(topics_read(topics_write(i, text), &n));
		ASSERT_EQ(n, i);
	}
	EXPECT_FALSE(topics_read(bytes_str("bench/t/12345"), &n));
	EXPECT_FALSE(topics_read(bytes_str("bench/t/1234567"), &n));
	EXPECT_FALSE(topics_read(bytes_str("bench/t/12345x"), &n));
	EXPECT_FALSE(topics_read(bytes_str("bench/o/123456"), &n));
}

TEST(scenario_is_told_in_words)
{
	struct scenario s;
	char text[160], little[10];

	scenario_default(&s);
	s.kind = SCENARIO_FAN_OUT;
	s.server = SCENARIO_SEALED;
	s.clients = 100;
	s.qos = 1;
	s.batch = 16;
	scenario_words(&s, text, sizeof(text));
	ASSERT_STREQ(text, "fan-out 1->100, sealed, QoS 1, 64 B, 100 in flight, context 1000, "
			   "batch 16, hsmd 1");
	s = (struct scenario){ .kind = SCENARIO_PAIRS, .clients = 2, .payload = 16, .rate = 50 };
	scenario_words(&s, text, sizeof(text));
	ASSERT_STREQ(text, "2 pairs, plain, QoS 0, 16 B, 50 a second");
	scenario_words(&s, little, sizeof(little));
	ASSERT_STREQ(little, "2 pairs, ");
}

TEST(outcome_values_are_per_delivery)
{
	struct scenario s;
	struct outcome o = {
		.seconds = 2,
		.delivered = 1000,
		.server_s = 0.5,
		.core_s = 1,
		.conversions = 300,
		.signatures = 200,
		.n_processes = 3,
		.processes = { { "broker", 0.1 }, { "broker crypto", 0.2 }, { "hsmd 0", 0.2 } }
	};

	scenario_default(&s);
	EXPECT_EQ(lround(outcome_value(&s, &o, OUTCOME_PER_SECOND)), 500);
	EXPECT_EQ(lround(outcome_value(&s, &o, OUTCOME_SERVER_US)), 500);
	EXPECT_EQ(lround(outcome_value(&s, &o, OUTCOME_BROKER_US)), 300);
	EXPECT_EQ(lround(outcome_value(&s, &o, OUTCOME_CORE_US)), 1000);
	EXPECT_TRUE(isnan(outcome_value(&s, &o, OUTCOME_TOKEN_OPS)));
	EXPECT_TRUE(isnan(outcome_value(&s, &o, OUTCOME_P99_US)));
	EXPECT_TRUE(isnan(outcome_value(&s, &o, OUTCOME_MALLOCS)));
	s.server = SCENARIO_SEALED;
	EXPECT_EQ(lround(outcome_value(&s, &o, OUTCOME_TOKEN_OPS) * 10), 5);
	o.delivered = 0;
	EXPECT_TRUE(isnan(outcome_value(&s, &o, OUTCOME_PER_SECOND)));
}

HARNESS_MAIN
