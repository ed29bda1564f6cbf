// SPDX-License-Identifier: MIT
/*
 * The link between broker and hsmd without a token: wire codec, LRU map, and the broker's side of
 * it (hsm/client.h) against workers that are played here and die at random.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hsm/client.h"
#include "hsm/lru.h"
#include "hsm/wire.h"
#include "tests/harness.h"
#include "userspace/crypto/hash.h"

static void random_bytes(void *p, size_t n)
{
	for (uint8_t *to = p; n--; to++)
		*to = (uint8_t)harness_random();
}

static unsigned random_below(unsigned n)
{
	return (unsigned)(harness_random() % n);
}

/* --- wire --- */

static uint8_t packet[HSM_PACKET_BYTES_MAX];

struct job_bytes {
	uint8_t id[GRANT_ID_BYTES], point[P256_POINT_BYTES], digest[P256_DIGEST_BYTES];
	uint8_t blob[HSM_BLOB_BYTES_MAX];
};

static struct hsm_job_wire random_job(struct job_bytes *b, enum hsm_op op)
{
	struct hsm_job_wire j = { .tag = (uint32_t)harness_random(), .op = op };

	random_bytes(b, sizeof(*b));
	if (op == HSM_CONVERT || op == HSM_LOAD || op == HSM_FORGET)
		j.grant_id = bytes_of(b->id, sizeof(b->id));
	if (op == HSM_CONVERT || op == HSM_OPEN)
		j.point = bytes_of(b->point, sizeof(b->point));
	if (op == HSM_SIGN || op == HSM_SIGN_NEXT || op == HSM_MAC)
		j.digest = bytes_of(b->digest, sizeof(b->digest));
	if (op == HSM_LOAD)
		j.blob = bytes_of(b->blob, 1 + random_below(HSM_BLOB_BYTES_MAX));
	return j;
}

static enum hsm_op random_op(void)
{
	return (enum hsm_op)(HSM_CONVERT + random_below(HSM_SIGN_NEXT));
}

static size_t write_jobs(struct hsm_job_wire *jobs, unsigned n)
{
	struct hsm_batch b;

	hsm_batch_begin(&b, 'H', packet, sizeof(packet));
	for (unsigned i = 0; i < n; i++)
		ASSERT_TRUE(hsm_batch_add_job(&b, &jobs[i]));
	return hsm_batch_finish(&b);
}

/* As hsmd reads a packet: 0 only where all of it is of the protocol. */
static int read_jobs(struct bytes p, struct hsm_job_wire *jobs, unsigned *n)
{
	struct bytes_reader r;
	int rc = hsm_batch_open(p, 'H', &r, n);

	for (unsigned i = 0; !rc && i < *n; i++)
		rc = hsm_batch_next_job(&r, &jobs[i]);
	return !rc && !bytes_read_done(&r) ? -EBADMSG : rc;
}

static int read_replies(struct bytes p, struct hsm_reply_wire *replies, unsigned *n)
{
	struct bytes_reader r;
	int rc = hsm_batch_open(p, 'R', &r, n);

	for (unsigned i = 0; !rc && i < *n; i++)
		rc = hsm_batch_next_reply(&r, &replies[i]);
	return !rc && !bytes_read_done(&r) ? -EBADMSG : rc;
}

TEST(wire_jobs_round_trip)
{
	static struct job_bytes b[HSM_BATCH_JOBS_MAX];
	struct hsm_job_wire in[HSM_BATCH_JOBS_MAX], out[HSM_BATCH_JOBS_MAX];

	for (unsigned round = 0; round < 200; round++) {
		unsigned n = random_below(HSM_BATCH_JOBS_MAX + 1), got;
		size_t bytes;

		for (unsigned i = 0; i < n; i++)
			in[i] = random_job(&b[i], random_op());
		bytes = write_jobs(in, n);
		ASSERT_EQ(read_jobs(bytes_of(packet, bytes), out, &got), 0);
		ASSERT_EQ(got, n);
		for (unsigned i = 0; i < n; i++) {
			ASSERT_EQ(out[i].tag, in[i].tag);
			ASSERT_EQ(out[i].op, in[i].op);
			ASSERT_TRUE(bytes_equal(out[i].grant_id, in[i].grant_id));
			ASSERT_TRUE(bytes_equal(out[i].point, in[i].point));
			ASSERT_TRUE(bytes_equal(out[i].digest, in[i].digest));
			ASSERT_TRUE(bytes_equal(out[i].blob, in[i].blob));
		}
	}
}

static struct hsm_reply_wire random_reply(uint8_t result[HSM_STATUS_BYTES])
{
	static const size_t lengths[] = {
		[HSM_CONVERT] = P256_X_BYTES,	 [HSM_SIGN] = P256_SIG_BYTES,
		[HSM_STATUS] = HSM_STATUS_BYTES, [HSM_OPEN] = P256_X_BYTES,
		[HSM_MAC] = HSM_MAC_BYTES,	 [HSM_SIGN_NEXT] = P256_SIG_BYTES
	};
	struct hsm_reply_wire r = { .tag = (uint32_t)harness_random(), .op = random_op() };

	r.status = (enum hsm_status)random_below(HSM_UNAVAILABLE + 1);
	random_bytes(result, HSM_STATUS_BYTES);
	r.result = bytes_of(result, r.status == HSM_OK ? lengths[r.op] : 0);
	return r;
}

TEST(wire_replies_round_trip)
{
	static uint8_t results[HSM_BATCH_JOBS_MAX][HSM_STATUS_BYTES];
	struct hsm_reply_wire in[HSM_BATCH_JOBS_MAX], out[HSM_BATCH_JOBS_MAX];

	for (unsigned round = 0; round < 200; round++) {
		unsigned n = random_below(HSM_BATCH_JOBS_MAX + 1), got;
		struct hsm_batch b;
		size_t bytes;

		hsm_batch_begin(&b, 'R', packet, sizeof(packet));
		for (unsigned i = 0; i < n; i++) {
			in[i] = random_reply(results[i]);
			ASSERT_TRUE(hsm_batch_add_reply(&b, &in[i]));
		}
		bytes = hsm_batch_finish(&b);
		ASSERT_EQ(read_replies(bytes_of(packet, bytes), out, &got), 0);
		ASSERT_EQ(got, n);
		for (unsigned i = 0; i < n; i++) {
			ASSERT_EQ(out[i].tag, in[i].tag);
			ASSERT_EQ(out[i].op, in[i].op);
			ASSERT_EQ(out[i].status, in[i].status);
			ASSERT_TRUE(bytes_equal(out[i].result, in[i].result));
		}
	}
}

TEST(wire_status_round_trip)
{
	struct hsm_status_wire in, out;
	uint8_t bytes[HSM_STATUS_BYTES];
	struct bytes_writer w = bytes_writer_of(bytes, sizeof(bytes));

	memset(&in, 0, sizeof(in));
	in.converts = harness_random();
	in.signs = harness_random();
	in.recoveries = harness_random();
	in.blobs = (uint32_t)harness_random();
	in.session_keys = (uint32_t)harness_random();
	in.rss_kib = (uint32_t)harness_random();
	random_bytes(in.broker_key, sizeof(in.broker_key));
	random_bytes(in.unwrap_key_hash, sizeof(in.unwrap_key_hash));
	random_bytes(in.next_broker_key, sizeof(in.next_broker_key));
	random_bytes(in.next_unwrap_key_hash, sizeof(in.next_unwrap_key_hash));
	random_bytes(in.bundle_key, sizeof(in.bundle_key));
	hsm_status_encode(&in, &w);
	ASSERT_TRUE(!w.bad && w.used == sizeof(bytes));
	memset(&out, 0, sizeof(out));
	ASSERT_EQ(hsm_status_decode(bytes_of(bytes, sizeof(bytes)), &out), 0);
	ASSERT_BYTES(&out, &in, sizeof(in));
	for (size_t n = 0; n < sizeof(bytes); n++)
		ASSERT_EQ(hsm_status_decode(bytes_of(bytes, n), &out), -EBADMSG);
}

/* Sixty-four of the longest jobs fit; a sixty-fifth does not, and leaves the batch as it was. */
TEST(wire_batch_is_bounded)
{
	static struct job_bytes b;
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX + 1], out[HSM_BATCH_JOBS_MAX];
	struct hsm_batch batch;
	unsigned n;

	for (unsigned i = 0; i <= HSM_BATCH_JOBS_MAX; i++) {
		jobs[i] = random_job(&b, HSM_LOAD);
		jobs[i].blob = bytes_of(b.blob, HSM_BLOB_BYTES_MAX);
	}
	hsm_batch_begin(&batch, 'H', packet, sizeof(packet));
	for (unsigned i = 0; i < HSM_BATCH_JOBS_MAX; i++)
		ASSERT_TRUE(hsm_batch_add_job(&batch, &jobs[i]));
	ASSERT_FALSE(hsm_batch_add_job(&batch, &jobs[HSM_BATCH_JOBS_MAX]));
	ASSERT_EQ(read_jobs(bytes_of(packet, hsm_batch_finish(&batch)), out, &n), 0);
	ASSERT_EQ(n, HSM_BATCH_JOBS_MAX);

	/* No room for a second job: the first stays whole. */
	hsm_batch_begin(&batch, 'H', packet, 600);
	ASSERT_TRUE(hsm_batch_add_job(&batch, &jobs[0]));
	ASSERT_FALSE(hsm_batch_add_job(&batch, &jobs[1]));
	ASSERT_EQ(read_jobs(bytes_of(packet, hsm_batch_finish(&batch)), out, &n), 0);
	ASSERT_EQ(n, 1);
}

TEST(wire_refuses_what_is_malformed)
{
	static struct job_bytes b[HSM_SIGN_NEXT];
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX], out[HSM_BATCH_JOBS_MAX];
	unsigned n;
	size_t bytes;

	for (unsigned i = 0; i < HSM_SIGN_NEXT; i++)
		jobs[i] = random_job(&b[i], (enum hsm_op)(HSM_CONVERT + i));
	bytes = write_jobs(jobs, HSM_SIGN_NEXT);
	for (size_t cut = 0; cut < bytes; cut++)
		ASSERT_EQ(read_jobs(bytes_of(packet, cut), out, &n), -EBADMSG);
	packet[bytes] = 0;
	ASSERT_EQ(read_jobs(bytes_of(packet, bytes + 1), out, &n), -EBADMSG);
	/* Letters, version, reserved byte, count: no bit of the head may differ. */
	for (unsigned bit = 0; bit < 6 * 8; bit++) {
		packet[bit / 8] ^= (uint8_t)(1 << bit % 8);
		ASSERT_EQ(read_jobs(bytes_of(packet, bytes), out, &n), -EBADMSG);
		packet[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	ASSERT_EQ(read_jobs(bytes_of(packet, bytes), out, &n), 0);
	/* Operations 0 and 9 are none; a reply is no request. */
	packet[10] = 0;
	ASSERT_EQ(read_jobs(bytes_of(packet, bytes), out, &n), -EBADMSG);
	packet[10] = HSM_SIGN_NEXT + 1;
	ASSERT_EQ(read_jobs(bytes_of(packet, bytes), out, &n), -EBADMSG);
	packet[10] = HSM_CONVERT;
	packet[1] = 'R';
	ASSERT_EQ(read_jobs(bytes_of(packet, bytes), out, &n), -EBADMSG);
}

TEST(wire_refuses_blobs_out_of_bounds)
{
	static struct job_bytes b;
	struct hsm_job_wire job = random_job(&b, HSM_LOAD), out[HSM_BATCH_JOBS_MAX];
	size_t length_at = 6 + 4 + 1 + GRANT_ID_BYTES;
	unsigned n;

	job.blob = bytes_of(b.blob, HSM_BLOB_BYTES_MAX);
	write_jobs(&job, 1);
	packet[length_at] = (HSM_BLOB_BYTES_MAX + 1) >> 8;
	packet[length_at + 1] = (uint8_t)(HSM_BLOB_BYTES_MAX + 1);
	ASSERT_EQ(read_jobs(bytes_of(packet, length_at + 2 + HSM_BLOB_BYTES_MAX + 1), out, &n),
		  -EBADMSG);
	packet[length_at] = 0;
	packet[length_at + 1] = 0;
	ASSERT_EQ(read_jobs(bytes_of(packet, length_at + 2), out, &n), -EBADMSG);
}

TEST(wire_refuses_unknown_status)
{
	struct hsm_reply_wire reply = { .op = HSM_LOAD, .status = HSM_UNAVAILABLE }, out;
	struct hsm_batch b;
	unsigned n;
	size_t bytes;

	hsm_batch_begin(&b, 'R', packet, sizeof(packet));
	ASSERT_TRUE(hsm_batch_add_reply(&b, &reply));
	bytes = hsm_batch_finish(&b);
	ASSERT_EQ(read_replies(bytes_of(packet, bytes), &out, &n), 0);
	packet[bytes - 1] = HSM_UNAVAILABLE + 1;
	ASSERT_EQ(read_replies(bytes_of(packet, bytes), &out, &n), -EBADMSG);
}

/* Random bytes, and good packets with random bytes changed: read to the end or refused, no more. */
TEST(wire_survives_noise)
{
	static struct job_bytes b[8];
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];
	struct hsm_reply_wire replies[HSM_BATCH_JOBS_MAX];
	unsigned n, taken = 0;

	for (unsigned round = 0; round < 20000; round++) {
		size_t bytes = random_below(600);

		if (round & 1) {
			for (unsigned i = 0; i < 8; i++)
				jobs[i] = random_job(&b[i], random_op());
			bytes = write_jobs(jobs, 8);
			for (unsigned i = random_below(4); i > 0; i--)
				packet[random_below((unsigned)bytes)] = (uint8_t)harness_random();
		} else {
			random_bytes(packet, bytes);
		}
		taken += !read_jobs(bytes_of(packet, bytes), jobs, &n);
		taken += !read_replies(bytes_of(packet, bytes), replies, &n);
	}
	ASSERT_GT(taken, 1000);
	ASSERT_LT(taken, 10000);
}

/* --- lru --- */

static void id_of(uint32_t n, uint8_t id[GRANT_ID_BYTES])
{
	bytes_store_u32(id, 0x5eed0000);
	bytes_store_u32(id + 4, n);
}

TEST(lru_keeps_the_order_of_use)
{
	uint8_t id[GRANT_ID_BYTES];
	uint32_t slot[4];
	struct lru l;

	ASSERT_EQ(lru_init(&l, 3), 0);
	ASSERT_EQ(lru_oldest(&l), 0);
	for (uint32_t i = 0; i < 3; i++) {
		id_of(i, id);
		ASSERT_EQ(lru_find(&l, id), 0);
		slot[i] = lru_insert(&l, id);
		ASSERT_NE(slot[i], 0);
		ASSERT_EQ(lru_find(&l, id), slot[i]);
	}
	id_of(3, id);
	ASSERT_EQ(lru_insert(&l, id), 0);
	lru_touch(&l, slot[0]);
	ASSERT_EQ(lru_oldest(&l), slot[1]);
	ASSERT_EQ(lru_newer(&l, slot[1]), slot[2]);
	ASSERT_EQ(lru_newer(&l, slot[2]), slot[0]);
	ASSERT_EQ(lru_newer(&l, slot[0]), 0);
	lru_remove(&l, slot[1]);
	slot[3] = lru_insert(&l, id);
	ASSERT_NE(slot[3], 0);
	ASSERT_EQ(lru_oldest(&l), slot[2]);
	ASSERT_BYTES(lru_id(&l, slot[3]), id, sizeof(id));
	ASSERT_EQ(l.n, 3);
	lru_deinit(&l);
}

/* Against a model: an array of ids in the order of use. */
TEST(lru_is_what_a_list_would_be)
{
	enum { CAPACITY = 37, IDS = 60 };
	uint32_t model[CAPACITY], n = 0;
	struct lru l;

	ASSERT_EQ(lru_init(&l, CAPACITY), 0);
	for (unsigned round = 0; round < 50000; round++) {
		uint32_t want = random_below(IDS), at = 0, slot;
		uint8_t id[GRANT_ID_BYTES];
		bool insert = random_below(3);

		id_of(want, id);
		while (at < n && model[at] != want)
			at++;
		slot = lru_find(&l, id);
		ASSERT_EQ(!slot, at == n);
		if (slot) {
			if (insert)
				lru_touch(&l, slot);
			else
				lru_remove(&l, slot);
			memmove(&model[at], &model[at + 1], (n - at - 1) * sizeof(model[0]));
			n--;
		} else if (insert && n == CAPACITY) {
			ASSERT_EQ(lru_insert(&l, id), 0);
			continue;
		} else if (insert) {
			ASSERT_NE(lru_insert(&l, id), 0);
		}
		if (insert)
			model[n++] = want;
		ASSERT_EQ(l.n, n);
		at = 0;
		for (slot = lru_oldest(&l); slot; slot = lru_newer(&l, slot)) {
			id_of(model[at++], id);
			ASSERT_BYTES(lru_id(&l, slot), id, sizeof(id));
		}
		ASSERT_EQ(at, n);
	}
	lru_deinit(&l);
}

/* --- a worker, played --- */

#define FAKE_BLOBS_MAX 8

struct fake {
	bool up;
	unsigned n_packets; /* received and not answered */
	size_t bytes[HSM_PACKETS_IN_FLIGHT];
	uint8_t packets[HSM_PACKETS_IN_FLIGHT][HSM_PACKET_BYTES_MAX];
	unsigned n_blobs;
	struct {
		uint8_t id[GRANT_ID_BYTES];
		uint8_t digest[HASH_BYTES];
	} blobs[FAKE_BLOBS_MAX];
};

/* What conversion is here: a hash of the key's blob and the point, so that a wrong key shows. */
static void fake_convert(const uint8_t blob_digest[HASH_BYTES], struct bytes point,
			 uint8_t x[P256_X_BYTES])
{
	const struct bytes parts[] = { bytes_of(blob_digest, HASH_BYTES), point };

	hash_parts(parts, 2, x);
}

static void fake_sign(struct bytes digest, uint8_t sig[P256_SIG_BYTES])
{
	hash_one(digest, sig);
	hash_one(bytes_of(sig, 32), sig + 32);
}

/* Of the keys that are no grant's, each does something of its own. */
static void fake_mix(enum hsm_op op, struct bytes in, uint8_t out[P256_SIG_BYTES])
{
	const uint8_t name = (uint8_t)op;
	const struct bytes parts[] = { bytes_of(&name, 1), in };

	hash_parts(parts, 2, out);
	hash_one(bytes_of(out, 32), out + 32);
}

static int fake_find(const struct fake *f, struct bytes id)
{
	for (unsigned i = 0; i < f->n_blobs; i++)
		if (!memcmp(f->blobs[i].id, id.p, GRANT_ID_BYTES))
			return (int)i;
	return -1;
}

static void fake_forget(struct fake *f, struct bytes id)
{
	int at = fake_find(f, id);

	if (at >= 0)
		f->blobs[at] = f->blobs[--f->n_blobs];
}

static void fake_load(struct fake *f, struct bytes id, struct bytes blob)
{
	unsigned at;

	fake_forget(f, id);
	at = f->n_blobs < FAKE_BLOBS_MAX ? f->n_blobs++ : random_below(FAKE_BLOBS_MAX);
	memcpy(f->blobs[at].id, id.p, GRANT_ID_BYTES);
	hash_one(blob, f->blobs[at].digest);
}

static enum hsm_status fake_run(struct fake *f, const struct hsm_job_wire *j,
				uint8_t result[P256_SIG_BYTES], size_t *ret_n)
{
	int at;

	*ret_n = 0;
	switch (j->op) {
	case HSM_CONVERT:
		at = fake_find(f, j->grant_id);
		if (at < 0)
			return HSM_NO_KEY;
		fake_convert(f->blobs[at].digest, j->point, result);
		*ret_n = P256_X_BYTES;
		return HSM_OK;
	case HSM_SIGN:
		fake_sign(j->digest, result);
		*ret_n = P256_SIG_BYTES;
		return HSM_OK;
	case HSM_SIGN_NEXT:
		fake_mix(j->op, j->digest, result);
		*ret_n = P256_SIG_BYTES;
		return HSM_OK;
	case HSM_OPEN:
	case HSM_MAC:
		fake_mix(j->op, j->op == HSM_OPEN ? j->point : j->digest, result);
		*ret_n = 32;
		return HSM_OK;
	case HSM_LOAD:
		fake_load(f, j->grant_id, j->blob);
		return HSM_OK;
	case HSM_FORGET:
		fake_forget(f, j->grant_id);
		return HSM_OK;
	case HSM_STATUS:
		break;
	}
	return HSM_BAD_REQUEST;
}

/* Asks the client for a packet and keeps it. Its length, 0 where there was none. */
static size_t fake_take(struct fake *f, struct hsm_client *c, unsigned worker)
{
	uint8_t *to = f->packets[f->n_packets % HSM_PACKETS_IN_FLIGHT];
	static uint8_t none[HSM_PACKET_BYTES_MAX];
	size_t n = hsm_client_fill(c, worker, f->n_packets < HSM_PACKETS_IN_FLIGHT ? to : none);

	if (n) {
		ASSERT_LT(f->n_packets, HSM_PACKETS_IN_FLIGHT);
		f->bytes[f->n_packets++] = n;
	}
	return n;
}

static unsigned fake_jobs(struct fake *f, unsigned which, struct hsm_job_wire *jobs)
{
	unsigned n = 0;

	ASSERT_LT(which, f->n_packets);
	ASSERT_EQ(read_jobs(bytes_of(f->packets[which], f->bytes[which]), jobs, &n), 0);
	return n;
}

/* Works through the oldest packet; with status not HSM_OK, that is the answer to each job. */
static size_t fake_answer(struct fake *f, enum hsm_status status, uint8_t *out)
{
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];
	unsigned n = fake_jobs(f, 0, jobs);
	struct hsm_batch b;

	hsm_batch_begin(&b, 'R', out, HSM_PACKET_BYTES_MAX);
	for (unsigned i = 0; i < n; i++) {
		uint8_t result[P256_SIG_BYTES];
		size_t result_n = 0;
		struct hsm_reply_wire r = { .tag = jobs[i].tag, .op = jobs[i].op };

		r.status = status ? status : fake_run(f, &jobs[i], result, &result_n);
		r.result = bytes_of(result, result_n);
		ASSERT_TRUE(hsm_batch_add_reply(&b, &r));
	}
	f->n_packets--;
	memmove(f->packets[0], f->packets[1], f->bytes[1]);
	f->bytes[0] = f->bytes[1];
	return hsm_batch_finish(&b);
}

static uint8_t reply_packet[HSM_PACKET_BYTES_MAX];

static void fake_reply(struct fake *f, struct hsm_client *c, unsigned worker,
		       enum hsm_status status)
{
	size_t n = fake_answer(f, status, reply_packet);

	ASSERT_EQ(hsm_client_reply(c, worker, bytes_of(reply_packet, n)), 0);
}

static void fake_up(struct fake *f, struct hsm_client *c, unsigned worker)
{
	f->up = true;
	f->n_packets = 0;
	f->n_blobs = 0;
	hsm_client_up(c, worker);
}

static void fake_die(struct fake *f, struct hsm_client *c, unsigned worker)
{
	f->up = false;
	f->n_packets = 0;
	f->n_blobs = 0;
	hsm_client_down(c, worker);
}

/* --- client --- */

#define WORKERS 2
#define JOBS	256

struct test_job {
	struct hsm_job job;
	unsigned n_done;
	unsigned done_at; /* the how manyeth to be done */
};

FIXTURE(client)
{
	struct hsm_client *c;
	unsigned n_done;
	uint8_t blob[HSM_BLOB_BYTES_MAX];
	struct fake fakes[WORKERS];
	struct test_job jobs[JOBS];
};

static void on_done(void *ctx, struct hsm_job *job)
{
	struct fixture_client *self = ctx;
	struct test_job *t = container_of(job, struct test_job, job);

	t->n_done++;
	t->done_at = self->n_done++;
}

FIXTURE_SETUP(client)
{
	self->c = hsm_client_new(WORKERS, self);
	ASSERT_TRUE(self->c);
	random_bytes(self->blob, sizeof(self->blob));
}

FIXTURE_TEARDOWN(client)
{
	hsm_client_free(self->c);
}

/* An even grant is at home with worker 0, an odd one with worker 1. */
static struct test_job *submit(struct fixture_client *self, unsigned i, enum hsm_op op,
			       uint32_t grant)
{
	struct test_job *t = &self->jobs[i];

	memset(t, 0, sizeof(*t));
	t->job.op = op;
	t->job.done = on_done;
	random_bytes(t->job.input, sizeof(t->job.input));
	if (op == HSM_CONVERT) {
		id_of(grant, t->job.grant_id);
		t->job.blob = bytes_of(self->blob, 100 + grant % 100);
	}
	hsm_client_submit(self->c, &t->job);
	return t;
}

static void expect_right(const struct hsm_job *job)
{
	uint8_t want[P256_SIG_BYTES], digest[HASH_BYTES];

	ASSERT_EQ(job->status, HSM_OK);
	if (job->op == HSM_SIGN) {
		fake_sign(bytes_of(job->input, P256_DIGEST_BYTES), want);
		ASSERT_BYTES(job->output, want, P256_SIG_BYTES);
		return;
	}
	if (job->op != HSM_CONVERT) {
		fake_mix(job->op, bytes_of(job->input, job->op == HSM_OPEN ? P256_POINT_BYTES : 32),
			 want);
		ASSERT_BYTES(job->output, want, job->op == HSM_SIGN_NEXT ? P256_SIG_BYTES : 32);
		return;
	}
	hash_one(job->blob, digest);
	fake_convert(digest, bytes_of(job->input, P256_POINT_BYTES), want);
	ASSERT_BYTES(job->output, want, P256_X_BYTES);
}

static void expect_done(const struct test_job *t, enum hsm_status status)
{
	ASSERT_EQ(t->n_done, 1);
	ASSERT_EQ(t->job.status, status);
	if (status == HSM_OK)
		expect_right(&t->job);
}

/* The first n jobs are done, those of a kind in the order in which they were submitted. */
static void expect_order(struct fixture_client *self, unsigned n)
{
	unsigned next[2] = { 0 };

	for (unsigned i = 0; i < n; i++) {
		struct test_job *t = &self->jobs[i];
		unsigned *at = &next[t->job.op == HSM_SIGN];

		expect_done(t, HSM_OK);
		ASSERT_GE(t->done_at, *at);
		*at = t->done_at + 1;
	}
}

TEST_F(client, answers_in_order)
{
	fake_up(&self->fakes[0], self->c, 0);
	for (unsigned i = 0; i < 30; i++)
		submit(self, i, i % 3 ? HSM_CONVERT : HSM_SIGN, 2 * (i % 5));
	while (fake_take(&self->fakes[0], self->c, 0))
		fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	expect_order(self, 30);
	ASSERT_FALSE(hsm_client_has_work(self->c));
}

/* Operations with a key of the token's own need no blob, go to any worker and come back right. */
TEST_F(client, serves_the_token_s_own_keys)
{
	static const enum hsm_op ops[] = { HSM_OPEN, HSM_MAC, HSM_SIGN_NEXT, HSM_SIGN };

	fake_up(&self->fakes[1], self->c, 1);
	for (unsigned i = 0; i < 40; i++)
		submit(self, i, ops[i % 4], 0);
	while (fake_take(&self->fakes[1], self->c, 1))
		fake_reply(&self->fakes[1], self->c, 1, HSM_OK);
	for (unsigned i = 0; i < 40; i++) {
		expect_done(&self->jobs[i], HSM_OK);
		ASSERT_EQ(self->jobs[i].done_at, i);
	}
	submit(self, 0, HSM_MAC, 0);
	ASSERT_GT(fake_take(&self->fakes[1], self->c, 1), 0);
	fake_reply(&self->fakes[1], self->c, 1, HSM_NO_KEY); /* not tried again: LOAD cannot help */
	expect_done(&self->jobs[0], HSM_NO_KEY);
}

/* What waits, too, goes out by the key that is meant; what there is no key for ends. */
TEST_F(client, signs_by_the_key_that_is_meant)
{
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];

	submit(self, 0, HSM_SIGN, 0);
	submit(self, 1, HSM_SIGN_NEXT, 0);
	submit(self, 2, HSM_SIGN, 0);
	hsm_client_map_signs(self->c, HSM_SIGN_NEXT, 0);
	fake_up(&self->fakes[0], self->c, 0);
	ASSERT_GT(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_EQ(fake_jobs(&self->fakes[0], 0, jobs), 2);
	ASSERT_EQ(jobs[0].op, HSM_SIGN_NEXT);
	ASSERT_EQ(jobs[1].op, HSM_SIGN_NEXT);
	hsm_client_tick(self->c, 1);
	expect_done(&self->jobs[1], HSM_NO_KEY);
	/* The worker is lost, and comes back with a token where the next key is the current one. */
	fake_die(&self->fakes[0], self->c, 0);
	hsm_client_map_signs(self->c, HSM_SIGN, 0);
	fake_up(&self->fakes[0], self->c, 0);
	ASSERT_GT(fake_take(&self->fakes[0], self->c, 0), 0);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	expect_done(&self->jobs[0], HSM_OK);
	expect_done(&self->jobs[2], HSM_OK);
}

/* A signature passes conversions that wait, but a flood of them does not keep conversions out. */
TEST_F(client, signatures_go_first)
{
	unsigned n = 0;

	fake_up(&self->fakes[0], self->c, 0);
	for (; n < 100; n++)
		submit(self, n, HSM_CONVERT, 2);
	for (; n < 150; n++)
		submit(self, n, HSM_SIGN, 0);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	for (unsigned i = 0; i < HSM_SIGNS_FIRST; i++)
		ASSERT_EQ(self->jobs[100 + i].done_at, i);
	ASSERT_EQ(self->jobs[100 + HSM_SIGNS_FIRST].n_done, 0);
	ASSERT_EQ(self->jobs[0].done_at, HSM_SIGNS_FIRST);
	ASSERT_EQ(self->jobs[HSM_CONVERTS_MAX - 1].n_done, 1);
	ASSERT_EQ(self->jobs[HSM_CONVERTS_MAX].n_done, 0);
	while (fake_take(&self->fakes[0], self->c, 0))
		fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	expect_order(self, n);
}

TEST_F(client, loads_before_first_convert)
{
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];

	fake_up(&self->fakes[0], self->c, 0);
	submit(self, 0, HSM_CONVERT, 2);
	submit(self, 1, HSM_CONVERT, 2);
	submit(self, 2, HSM_CONVERT, 4);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_EQ(fake_jobs(&self->fakes[0], 0, jobs), 5);
	ASSERT_EQ(jobs[0].op, HSM_LOAD);
	ASSERT_TRUE(bytes_equal(jobs[0].blob, self->jobs[0].job.blob));
	ASSERT_EQ(jobs[1].op, HSM_CONVERT);
	ASSERT_EQ(jobs[2].op, HSM_CONVERT);
	ASSERT_EQ(jobs[3].op, HSM_LOAD);
	ASSERT_EQ(jobs[4].op, HSM_CONVERT);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);

	/* Known by now, at this worker and while it is connected. */
	submit(self, 3, HSM_CONVERT, 2);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_EQ(fake_jobs(&self->fakes[0], 0, jobs), 1);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	fake_die(&self->fakes[0], self->c, 0);
	fake_up(&self->fakes[0], self->c, 0);
	submit(self, 4, HSM_CONVERT, 2);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_EQ(fake_jobs(&self->fakes[0], 0, jobs), 2);
	ASSERT_EQ(jobs[0].op, HSM_LOAD);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);

	/* Another worker has not seen it. */
	fake_die(&self->fakes[0], self->c, 0);
	fake_up(&self->fakes[1], self->c, 1);
	submit(self, 5, HSM_CONVERT, 2);
	ASSERT_NE(fake_take(&self->fakes[1], self->c, 1), 0);
	ASSERT_EQ(fake_jobs(&self->fakes[1], 0, jobs), 2);
	fake_reply(&self->fakes[1], self->c, 1, HSM_OK);
	for (unsigned i = 0; i < 6; i++)
		expect_done(&self->jobs[i], HSM_OK);
}

TEST_F(client, has_two_packets_out_at_most)
{
	struct hsm_client_stats stats;

	fake_up(&self->fakes[0], self->c, 0);
	for (unsigned i = 0; i < 250; i++)
		submit(self, i, HSM_SIGN, 0);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_EQ(fake_take(&self->fakes[0], self->c, 0), 0);
	hsm_client_stats(self->c, &stats);
	ASSERT_EQ(stats.in_flight, 2 * HSM_BATCH_JOBS_MAX);
	ASSERT_EQ(stats.queued, 250 - 2 * HSM_BATCH_JOBS_MAX);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_EQ(fake_take(&self->fakes[0], self->c, 0), 0);
	/* A worker that is not there gets nothing. */
	ASSERT_EQ(hsm_client_fill(self->c, 1, packet), 0);
}

TEST_F(client, shares_between_idle_workers)
{
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];

	fake_up(&self->fakes[0], self->c, 0);
	fake_up(&self->fakes[1], self->c, 1);
	for (unsigned i = 0; i < 40; i++)
		submit(self, i, HSM_SIGN, 0);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_NE(fake_take(&self->fakes[1], self->c, 1), 0);
	ASSERT_EQ(fake_jobs(&self->fakes[0], 0, jobs), 20);
	ASSERT_EQ(fake_jobs(&self->fakes[1], 0, jobs), 10);
}

TEST_F(client, keeps_a_grant_at_home)
{
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];

	fake_up(&self->fakes[0], self->c, 0);
	fake_up(&self->fakes[1], self->c, 1);
	for (unsigned i = 0; i < HSM_STEAL_MIN; i++)
		submit(self, i, HSM_CONVERT, 2);
	/* Worker 0 is there and idle: worker 1 would only have to unwrap the key as well. */
	ASSERT_EQ(fake_take(&self->fakes[1], self->c, 1), 0);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	/* Worker 0 is at work, and what waits is worth it. */
	for (unsigned i = HSM_STEAL_MIN; i < 3 * HSM_STEAL_MIN; i++)
		submit(self, i, HSM_CONVERT, 2);
	ASSERT_NE(fake_take(&self->fakes[1], self->c, 1), 0);
	/* But it does not pile up what is another's. */
	ASSERT_EQ(fake_take(&self->fakes[1], self->c, 1), 0);
	fake_reply(&self->fakes[1], self->c, 1, HSM_OK);
	while (self->fakes[0].n_packets || fake_take(&self->fakes[0], self->c, 0))
		fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	for (unsigned i = 0; i < 3 * HSM_STEAL_MIN; i++)
		expect_done(&self->jobs[i], HSM_OK);

	/* Both know it now. What one forgets by dying, the other still knows. */
	fake_die(&self->fakes[0], self->c, 0);
	submit(self, 100, HSM_CONVERT, 2);
	ASSERT_NE(fake_take(&self->fakes[1], self->c, 1), 0);
	ASSERT_EQ(fake_jobs(&self->fakes[1], 0, jobs), 1);
	fake_up(&self->fakes[0], self->c, 0);
	submit(self, 101, HSM_CONVERT, 2);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_EQ(fake_jobs(&self->fakes[0], 0, jobs), 2);
	ASSERT_EQ(jobs[0].op, HSM_LOAD);
}

TEST_F(client, requeues_in_order_when_a_worker_is_lost)
{
	struct hsm_client_stats stats;

	fake_up(&self->fakes[0], self->c, 0);
	for (unsigned i = 0; i < 200; i++)
		submit(self, i, i % 2 ? HSM_CONVERT : HSM_SIGN, i % 14);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	hsm_client_stats(self->c, &stats);
	ASSERT_GT(stats.in_flight, HSM_BATCH_JOBS_MAX / 2);
	fake_die(&self->fakes[0], self->c, 0);
	hsm_client_stats(self->c, &stats);
	ASSERT_EQ(stats.in_flight, 0);
	ASSERT_EQ(stats.queued, 200);
	ASSERT_EQ(self->n_done, 0);
	fake_up(&self->fakes[1], self->c, 1);
	while (fake_take(&self->fakes[1], self->c, 1))
		fake_reply(&self->fakes[1], self->c, 1, HSM_OK);
	expect_order(self, 200);
}

TEST_F(client, forgets_before_any_later_job)
{
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];
	uint8_t id[GRANT_ID_BYTES];

	id_of(2, id);
	fake_up(&self->fakes[0], self->c, 0);
	submit(self, 0, HSM_CONVERT, 2);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	expect_done(&self->jobs[0], HSM_OK);

	submit(self, 1, HSM_CONVERT, 2); /* out */
	submit(self, 2, HSM_CONVERT, 4);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	submit(self, 3, HSM_CONVERT, 2); /* queued */
	submit(self, 4, HSM_CONVERT, 4);
	hsm_client_forget(self->c, id);
	ASSERT_EQ(self->n_done, 1); /* never from within forget() */
	hsm_client_tick(self->c, 0);
	expect_done(&self->jobs[1], HSM_NO_KEY);
	expect_done(&self->jobs[3], HSM_NO_KEY);

	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_EQ(fake_jobs(&self->fakes[0], 1, jobs), 2);
	ASSERT_EQ(jobs[0].op, HSM_FORGET);
	ASSERT_BYTES(jobs[0].grant_id.p, id, sizeof(id));
	ASSERT_EQ(jobs[1].op, HSM_CONVERT);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	expect_done(&self->jobs[2], HSM_OK);
	expect_done(&self->jobs[4], HSM_OK);
	ASSERT_EQ(fake_find(&self->fakes[0], bytes_of(id, sizeof(id))), -1);
	ASSERT_FALSE(hsm_client_has_work(self->c));

	/* Said once; granted again, it is loaded again. */
	hsm_client_forget(self->c, id);
	ASSERT_EQ(fake_take(&self->fakes[0], self->c, 0), 0);
	submit(self, 5, HSM_CONVERT, 2);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_EQ(fake_jobs(&self->fakes[0], 0, jobs), 2);
	ASSERT_EQ(jobs[0].op, HSM_LOAD);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	expect_done(&self->jobs[5], HSM_OK);
}

TEST_F(client, forgets_many_before_the_next_job)
{
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];
	uint8_t id[GRANT_ID_BYTES];
	unsigned forgotten = 0, n;

	fake_up(&self->fakes[0], self->c, 0);
	for (unsigned i = 0; i < 100; i++)
		submit(self, i, HSM_CONVERT, 2 * i);
	while (fake_take(&self->fakes[0], self->c, 0))
		fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	for (unsigned i = 0; i < 100; i++) {
		id_of(2 * i, id);
		hsm_client_forget(self->c, id);
	}
	submit(self, 100, HSM_SIGN, 0);
	for (bool signed_yet = false; fake_take(&self->fakes[0], self->c, 0);) {
		n = fake_jobs(&self->fakes[0], 0, jobs);
		for (unsigned i = 0; i < n; i++) {
			ASSERT_FALSE(signed_yet);
			forgotten += jobs[i].op == HSM_FORGET;
			signed_yet = jobs[i].op == HSM_SIGN;
		}
		fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	}
	ASSERT_EQ(forgotten, 100);
	expect_done(&self->jobs[100], HSM_OK);
	ASSERT_EQ(self->fakes[0].n_blobs, 0);
}

TEST_F(client, deadlines)
{
	fake_up(&self->fakes[0], self->c, 0);
	for (unsigned i = 0; i < 4; i++) {
		struct test_job *t = &self->jobs[i];

		memset(t, 0, sizeof(*t));
		t->job.op = HSM_SIGN;
		t->job.done = on_done;
		t->job.deadline_ms = i < 3 ? 1000 + i : 0;
		hsm_client_submit(self->c, &t->job);
		if (i == 0)
			ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	}
	hsm_client_tick(self->c, 999);
	ASSERT_EQ(self->n_done, 0);
	hsm_client_tick(self->c, 1001);
	expect_done(&self->jobs[0], HSM_UNAVAILABLE); /* out */
	expect_done(&self->jobs[1], HSM_UNAVAILABLE); /* queued */
	ASSERT_EQ(self->n_done, 2);
	/* The late answer is nobody's, and disturbs nothing. */
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	ASSERT_EQ(self->n_done, 2);
	hsm_client_tick(self->c, 1002);
	expect_done(&self->jobs[2], HSM_UNAVAILABLE);
	hsm_client_tick(self->c, UINT64_MAX);
	ASSERT_EQ(self->n_done, 3);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	expect_done(&self->jobs[3], HSM_OK);
}

TEST_F(client, reloads_what_a_worker_dropped)
{
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];

	fake_up(&self->fakes[0], self->c, 0);
	submit(self, 0, HSM_CONVERT, 2);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	self->fakes[0].n_blobs = 0;
	submit(self, 1, HSM_CONVERT, 2);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	ASSERT_EQ(self->jobs[1].n_done, 0);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_EQ(fake_jobs(&self->fakes[0], 0, jobs), 2);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	expect_done(&self->jobs[1], HSM_OK);
}

TEST_F(client, hands_failures_on)
{
	static const enum hsm_status all[] = { HSM_BAD_REQUEST, HSM_BAD_KEY, HSM_FULL,
					       HSM_UNAVAILABLE };

	fake_up(&self->fakes[0], self->c, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
		submit(self, i, HSM_CONVERT, 2);
		ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
		fake_reply(&self->fakes[0], self->c, 0, all[i]);
		expect_done(&self->jobs[i], all[i]);
	}
	/* A blob that no packet can hold is not sent at all. */
	for (unsigned i = 10; i < 12; i++) {
		struct hsm_job *job = &self->jobs[i].job;

		job->op = HSM_CONVERT;
		job->done = on_done;
		job->blob = bytes_of(self->blob, i == 10 ? 0 : HSM_BLOB_BYTES_MAX + 1);
		hsm_client_submit(self->c, job);
		ASSERT_EQ(self->jobs[i].n_done, 0);
		hsm_client_tick(self->c, 0);
		expect_done(&self->jobs[i], HSM_BAD_KEY);
	}
}

/* LOAD fails, so CONVERT finds no key: what is said is why LOAD failed. */
TEST_F(client, failed_load_is_the_convert_s_answer)
{
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];
	struct hsm_batch b;

	fake_up(&self->fakes[0], self->c, 0);
	submit(self, 0, HSM_CONVERT, 2);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_EQ(fake_jobs(&self->fakes[0], 0, jobs), 2);
	hsm_batch_begin(&b, 'R', reply_packet, sizeof(reply_packet));
	for (unsigned i = 0; i < 2; i++) {
		struct hsm_reply_wire r = { .tag = jobs[i].tag, .op = jobs[i].op };

		r.status = i ? HSM_NO_KEY : HSM_FULL;
		ASSERT_TRUE(hsm_batch_add_reply(&b, &r));
	}
	ASSERT_EQ(hsm_client_reply(self->c, 0, bytes_of(reply_packet, hsm_batch_finish(&b))), 0);
	expect_done(&self->jobs[0], HSM_FULL);
}

TEST_F(client, believes_nothing_of_a_malformed_reply)
{
	size_t n;

	fake_up(&self->fakes[0], self->c, 0);
	submit(self, 0, HSM_CONVERT, 2);
	submit(self, 1, HSM_SIGN, 0);
	ASSERT_EQ(hsm_client_reply(self->c, 0, bytes_of(packet, 6)), -EBADMSG); /* none is out */
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	n = fake_answer(&self->fakes[0], HSM_OK, reply_packet);
	for (size_t cut = 0; cut < n; cut++)
		ASSERT_EQ(hsm_client_reply(self->c, 0, bytes_of(reply_packet, cut)), -EBADMSG);
	ASSERT_EQ(hsm_client_reply(self->c, 0, bytes_of(reply_packet, n + 1)), -EBADMSG);
	for (size_t bit = 0; bit < 11 * 8; bit++) { /* head, tag and operation */
		reply_packet[bit / 8] ^= (uint8_t)(1 << bit % 8);
		ASSERT_EQ(hsm_client_reply(self->c, 0, bytes_of(reply_packet, n)), -EBADMSG);
		reply_packet[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	ASSERT_EQ(hsm_client_reply(self->c, 1, bytes_of(reply_packet, n)), -EBADMSG);
	ASSERT_EQ(self->n_done, 0);
	ASSERT_EQ(hsm_client_reply(self->c, 0, bytes_of(reply_packet, n)), 0);
	expect_done(&self->jobs[0], HSM_OK);
	expect_done(&self->jobs[1], HSM_OK);
	ASSERT_EQ(hsm_client_reply(self->c, 0, bytes_of(reply_packet, n)), -EBADMSG);
}

/* What kills each worker that gets it goes alone in the end, and the others get through. */
TEST_F(client, isolates_what_kills_workers)
{
	enum { POISON = 5, N = 20 };
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];
	unsigned deaths = 0;

	for (unsigned i = 0; i < N; i++)
		submit(self, i, HSM_SIGN, 0);
	while (self->n_done < N) {
		bool poisoned = false;
		unsigned n;

		ASSERT_LT(deaths, 10 * HSM_LOSSES_MAX);
		if (!self->fakes[0].up)
			fake_up(&self->fakes[0], self->c, 0);
		while (fake_take(&self->fakes[0], self->c, 0))
			;
		n = fake_jobs(&self->fakes[0], 0, jobs);
		for (unsigned i = 0; i < n; i++)
			poisoned |= !memcmp(jobs[i].digest.p, self->jobs[POISON].job.input,
					    P256_DIGEST_BYTES);
		if (poisoned) {
			fake_die(&self->fakes[0], self->c, 0);
			hsm_client_tick(self->c, 0);
			deaths++;
		} else {
			fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
		}
	}
	ASSERT_EQ(deaths, HSM_LOSSES_MAX);
	for (unsigned i = 0; i < N; i++)
		expect_done(&self->jobs[i], i == POISON ? HSM_UNAVAILABLE : HSM_OK);
}

TEST_F(client, sends_a_suspect_alone)
{
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];

	for (unsigned i = 0; i < 3; i++)
		submit(self, i, HSM_SIGN, 0);
	for (unsigned i = 0; i < HSM_SUSPECT_LOSSES; i++) {
		fake_up(&self->fakes[0], self->c, 0);
		ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
		ASSERT_EQ(fake_jobs(&self->fakes[0], 0, jobs), 3);
		fake_die(&self->fakes[0], self->c, 0);
	}
	fake_up(&self->fakes[0], self->c, 0);
	submit(self, 3, HSM_SIGN, 0);
	submit(self, 4, HSM_SIGN, 0);
	for (unsigned i = 0; i < 3; i++) {
		ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
		ASSERT_EQ(fake_jobs(&self->fakes[0], 0, jobs), 1);
		ASSERT_EQ(fake_take(&self->fakes[0], self->c, 0), 0);
		fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
		expect_done(&self->jobs[i], HSM_OK);
	}
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_EQ(fake_jobs(&self->fakes[0], 0, jobs), 2);
	/* Nor does a suspect join others, or follow what is out already. */
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	submit(self, 5, HSM_SIGN, 0);
	submit(self, 6, HSM_SIGN, 0)->job.losses = HSM_SUSPECT_LOSSES;
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	ASSERT_EQ(fake_jobs(&self->fakes[0], 0, jobs), 1);
	ASSERT_EQ(fake_take(&self->fakes[0], self->c, 0), 0);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	expect_done(&self->jobs[5], HSM_OK);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	expect_done(&self->jobs[6], HSM_OK);
}

static void sign_when_converted(void *ctx, struct hsm_job *job)
{
	struct fixture_client *self = ctx;

	on_done(ctx, job);
	ASSERT_EQ(job->status, HSM_OK);
	submit(self, 100 + (unsigned)(container_of(job, struct test_job, job) - self->jobs),
	       HSM_SIGN, 0);
}

TEST_F(client, done_may_submit)
{
	fake_up(&self->fakes[0], self->c, 0);
	for (unsigned i = 0; i < 10; i++)
		submit(self, i, HSM_CONVERT, 2)->job.done = sign_when_converted;
	while (fake_take(&self->fakes[0], self->c, 0))
		fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	for (unsigned i = 0; i < 10; i++)
		expect_done(&self->jobs[100 + i], HSM_OK);
}

TEST_F(client, free_completes_what_it_holds)
{
	fake_up(&self->fakes[0], self->c, 0);
	for (unsigned i = 0; i < 100; i++)
		submit(self, i, i % 2 ? HSM_CONVERT : HSM_SIGN, i);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	hsm_client_free(self->c);
	self->c = NULL;
	for (unsigned i = 0; i < 100; i++)
		expect_done(&self->jobs[i], HSM_UNAVAILABLE);
}

/* More grants than are remembered: the rest leaves nothing at the worker. */
TEST_F(client, forgets_what_it_cannot_remember)
{
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];
	unsigned n;

	fake_up(&self->fakes[0], self->c, 0);
	for (uint32_t grant = 0; grant < HSM_GRANTS_MAX; grant++) {
		submit(self, grant % JOBS, HSM_CONVERT, grant);
		if (grant % 8 == 7) {
			ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
			fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
		}
	}
	submit(self, 0, HSM_CONVERT, HSM_GRANTS_MAX);
	ASSERT_NE(fake_take(&self->fakes[0], self->c, 0), 0);
	n = fake_jobs(&self->fakes[0], 0, jobs);
	ASSERT_EQ(n, 3);
	ASSERT_EQ(jobs[0].op, HSM_LOAD);
	ASSERT_EQ(jobs[1].op, HSM_CONVERT);
	ASSERT_EQ(jobs[2].op, HSM_FORGET);
	fake_reply(&self->fakes[0], self->c, 0, HSM_OK);
	expect_done(&self->jobs[0], HSM_OK);
}

/* --- everything at random, from one seed --- */

#define CHAOS_WORKERS_MAX 5
#define CHAOS_GRANTS	  24
#define CHAOS_JOBS	  4000

struct chaos {
	struct hsm_client *c;
	unsigned n_workers, submitted, done, forgotten;
	uint64_t now_ms;
	struct fake fakes[CHAOS_WORKERS_MAX];
	uint8_t blobs[CHAOS_GRANTS][HSM_BLOB_BYTES_MAX];
	struct chaos_job {
		struct hsm_job job;
		unsigned n_done;
		bool may_have_no_key; /* its grant was forgotten while it was held */
	} jobs[CHAOS_JOBS];
};

static void chaos_done(void *ctx, struct hsm_job *job)
{
	struct chaos *x = ctx;
	struct chaos_job *j = container_of(job, struct chaos_job, job);

	j->n_done++;
	x->done++;
	ASSERT_EQ(j->n_done, 1);
	if (job->status == HSM_NO_KEY)
		ASSERT_TRUE(j->may_have_no_key);
	else if (job->status == HSM_UNAVAILABLE)
		ASSERT_TRUE(job->deadline_ms && job->deadline_ms <= x->now_ms);
	else
		expect_right(job);
}

static void chaos_submit(struct chaos *x)
{
	struct chaos_job *j;
	unsigned grant = random_below(CHAOS_GRANTS);

	if (x->submitted == CHAOS_JOBS)
		return;
	j = &x->jobs[x->submitted++];
	j->job.op = random_below(4) ? HSM_CONVERT : HSM_SIGN;
	j->job.done = chaos_done;
	random_bytes(j->job.input, sizeof(j->job.input));
	id_of(grant, j->job.grant_id);
	j->job.blob = bytes_of(x->blobs[grant], 60 + grant);
	if (!random_below(20))
		j->job.deadline_ms = x->now_ms + 1 + random_below(200);
	hsm_client_submit(x->c, &j->job);
}

static void chaos_forget(struct chaos *x)
{
	uint8_t id[GRANT_ID_BYTES];

	id_of(random_below(CHAOS_GRANTS), id);
	for (unsigned i = 0; i < x->submitted; i++) {
		struct chaos_job *j = &x->jobs[i];

		if (!j->n_done && j->job.op == HSM_CONVERT && !memcmp(j->job.grant_id, id, 8))
			j->may_have_no_key = true;
	}
	hsm_client_forget(x->c, id);
	x->forgotten++;
}

static void chaos_step(struct chaos *x)
{
	unsigned w = random_below(x->n_workers), what = random_below(100);
	struct fake *f = &x->fakes[w];

	if (what < 40) {
		for (unsigned n = random_below(12); n > 0; n--)
			chaos_submit(x);
	} else if (what < 65) {
		if (f->up)
			fake_take(f, x->c, w);
	} else if (what < 90) {
		if (f->n_packets)
			fake_reply(f, x->c, w, HSM_OK);
	} else if (what < 94) {
		if (f->up)
			fake_die(f, x->c, w);
		else
			fake_up(f, x->c, w);
	} else if (what < 95) {
		chaos_forget(x);
	} else {
		x->now_ms += random_below(20);
		hsm_client_tick(x->c, x->now_ms);
	}
}

/* Whatever the workers went through, a forgotten grant's key is nowhere. */
static void chaos_forget_all(struct chaos *x)
{
	uint8_t id[GRANT_ID_BYTES];

	for (uint32_t grant = 0; grant < CHAOS_GRANTS; grant++) {
		id_of(grant, id);
		hsm_client_forget(x->c, id);
	}
	for (unsigned w = 0; w < x->n_workers; w++) {
		while (x->fakes[w].n_packets || fake_take(&x->fakes[w], x->c, w))
			fake_reply(&x->fakes[w], x->c, w, HSM_OK);
		ASSERT_EQ(x->fakes[w].n_blobs, 0);
	}
	ASSERT_FALSE(hsm_client_has_work(x->c));
}

static void chaos_finish(struct chaos *x)
{
	struct hsm_client_stats stats;

	for (unsigned w = 0; w < x->n_workers; w++)
		if (!x->fakes[w].up)
			fake_up(&x->fakes[w], x->c, w);
	for (unsigned turns = 0; x->done < x->submitted; turns++) {
		ASSERT_LT(turns, 100000);
		for (unsigned w = 0; w < x->n_workers; w++) {
			fake_take(&x->fakes[w], x->c, w);
			if (x->fakes[w].n_packets)
				fake_reply(&x->fakes[w], x->c, w, HSM_OK);
		}
		hsm_client_tick(x->c, x->now_ms);
	}
	hsm_client_stats(x->c, &stats);
	ASSERT_EQ(stats.queued, 0);
	ASSERT_EQ(stats.in_flight, 0);
	chaos_forget_all(x);
	harness_note("%u jobs, %u forgets, %llu requeued, %llu loads, %llu packets", x->submitted,
		     x->forgotten, (unsigned long long)stats.requeued,
		     (unsigned long long)stats.loads, (unsigned long long)stats.packets);
}

TEST_TIMEOUT(client_under_chaos, 120)
{
	for (unsigned round = 0; round < 10; round++) {
		struct chaos *x = calloc(1, sizeof(*x));

		ASSERT_TRUE(x);
		random_bytes(x->blobs, sizeof(x->blobs));
		x->n_workers = 1 + random_below(CHAOS_WORKERS_MAX);
		x->now_ms = 1;
		x->c = hsm_client_new(x->n_workers, x);
		ASSERT_TRUE(x->c);
		while (x->submitted < CHAOS_JOBS)
			chaos_step(x);
		chaos_finish(x);
		hsm_client_free(x->c);
		for (unsigned i = 0; i < x->submitted; i++)
			ASSERT_EQ(x->jobs[i].n_done, 1);
		free(x);
	}
}

HARNESS_MAIN
