// SPDX-License-Identifier: MIT
/*
 * The verification of what comes in, and what it spares: one signature a batch, one decompressed
 * point a context (PROTOCOL 4 and 2), and never another answer than without a memory.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "tests/fake_client.h"
#include "tests/harness.h"
#include "userspace/broker/verifier.h"

HARNESS_MAIN

#define TOPIC	    "site/1/temp"
#define FIRST	    0x32 /* PUBLISH, QoS 1 */
#define BATCH	    64
#define PAYLOAD_MAX 1024

struct device {
	const char *id;
	struct p256_private *key;
	struct p256_public *public; /* for those who remember nothing */
	struct p256_point point;
	struct verifier *verifier;
	struct p256_point scope;
	struct envelope_sender context;
	uint64_t counter;
};

/* Messages under one signature, as they come in. */
struct batch {
	unsigned n;
	uint8_t sig[P256_SIG_BYTES];
	size_t body_n[BATCH + 1], payload_n[BATCH + 1];
	uint8_t payload[BATCH + 1][PAYLOAD_MAX];
};

static void new_context(struct device *d)
{
	envelope_sender_deinit(&d->context);
	ASSERT_EQ(envelope_sender_init(&d->context, HPKE_SUITE_AES_128_GCM, 1, &d->scope), 0);
}

static void device_init(struct device *d, const char *id)
{
	struct secret32 k, a;

	*d = (struct device){ .id = id };
	ASSERT_EQ(p256_scalar_random(&k), 0);
	ASSERT_EQ(p256_private_new(&k, &d->key), 0);
	p256_private_point(d->key, &d->point);
	ASSERT_EQ(p256_public_new(&d->point, &d->public), 0);
	d->verifier = verifier_new(&d->point);
	ASSERT_TRUE(d->verifier != NULL);
	ASSERT_EQ(p256_scalar_random(&a), 0);
	ASSERT_EQ(p256_mul_base(&a, &d->scope), 0);
	new_context(d);
}

static void device_deinit(struct device *d)
{
	p256_private_free(d->key);
	p256_public_free(d->public);
	verifier_free(d->verifier);
	envelope_sender_deinit(&d->context);
}

static struct publish publish_of(const struct device *d, struct bytes body)
{
	return (struct publish){
		.first = FIRST,
		.topic = bytes_str(TOPIC),
		.body = { body },
		.body_parts = 1,
		.client_id = bytes_str(d->id),
	};
}

static struct bytes payload_of(const struct batch *b, unsigned i)
{
	return bytes_of(b->payload[i], b->payload_n[i]);
}

static void seal(struct device *d, struct batch *b, unsigned i)
{
	ASSERT_EQ(envelope_seal(&d->context, ++d->counter, 0, bytes_str(d->id), bytes_str(TOPIC),
				bytes_str("21.5"), b->payload[i]),
		  0);
	b->body_n[i] = ENVELOPE_SEALED_BYTES(4);
}

/* Puts the bodies that are there under one signature. */
static void sign_batch(struct device *d, struct batch *b)
{
	static uint8_t nodes[4 * BATCH][HASH_BYTES];
	uint8_t digest[HASH_BYTES];
	struct merkle m;

	ASSERT_LE(merkle_nodes((uint16_t)b->n), ARRAY_SIZE(nodes));
	for (unsigned i = 0; i < b->n; i++) {
		struct publish p = publish_of(d, bytes_of(b->payload[i], b->body_n[i]));

		publish_leaf(&p, nodes[i]);
	}
	merkle_build(&m, nodes, (uint16_t)b->n);
	publish_root_digest(merkle_root(&m), digest);
	ASSERT_EQ(p256_sign_digest(d->key, digest, b->sig), 0);
	for (unsigned i = 0; i < b->n; i++) {
		struct bytes_writer w =
			bytes_writer_of(b->payload[i] + b->body_n[i], PAYLOAD_MAX - b->body_n[i]);

		publish_write_trailer_2(b->sig, &m, (uint16_t)i, &w);
		ASSERT_FALSE(w.bad);
		b->payload_n[i] = b->body_n[i] + w.used;
	}
}

static void make_batch(struct device *d, struct batch *b, unsigned n)
{
	b->n = n;
	for (unsigned i = 0; i < n; i++)
		seal(d, b, i);
	sign_batch(d, b);
}

/* A message of its own, with trailer 1, at b's first place. */
static void make_single(struct device *d, struct batch *b)
{
	struct publish p;

	b->n = 1;
	seal(d, b, 0);
	p = publish_of(d, bytes_of(b->payload[0], b->body_n[0]));
	ASSERT_EQ(publish_sign(&p, d->key, b->payload[0] + b->body_n[0]), 0);
	b->payload_n[0] = b->body_n[0] + PUBLISH_TRAILER_1_BYTES;
}

static struct broker_verify job_of(const struct device *d, struct bytes payload)
{
	return (struct broker_verify){
		.first = FIRST,
		.topic = bytes_str(TOPIC),
		.payload = payload,
		.client_id = bytes_str(d->id),
		.verifier = d->verifier,
		.sealed = true,
	};
}

static enum broker_verify_result run(const struct device *d, struct bytes payload)
{
	struct broker_verify job = job_of(d, payload);

	broker_verify_run(&job);
	return job.result;
}

static struct verifier_stats stats_of(const struct device *d)
{
	struct verifier_stats s;

	verifier_stats(d->verifier, &s);
	return s;
}

FIXTURE(verify)
{
	struct device dev, other;
	struct batch batch;
};

FIXTURE_SETUP(verify)
{
	device_init(&self->dev, "dev1");
	device_init(&self->other, "dev2");
}

FIXTURE_TEARDOWN(verify)
{
	device_deinit(&self->dev);
	device_deinit(&self->other);
}

/* --- what it spares --------------------------------------------------------------------------- */

TEST_F(verify, batch_costs_one_verification)
{
	struct verifier_stats s;
	struct p256_point e;

	make_batch(&self->dev, &self->batch, BATCH);
	for (unsigned i = 0; i < BATCH; i++) {
		struct broker_verify job = job_of(&self->dev, payload_of(&self->batch, i));

		broker_verify_run(&job);
		ASSERT_EQ(job.result, BROKER_VERIFY_OK);
		ASSERT_EQ(job.counter, i + 1);
		ASSERT_EQ(job.envelope.counter, i + 1);
		ASSERT_EQ(job.trailer.body.n, self->batch.body_n[i]);
		ASSERT_EQ(p256_point_decompress(job.envelope.enc, &e), 0);
		ASSERT_BYTES(job.e.b, e.b, sizeof(e.b));
	}
	s = stats_of(&self->dev);
	ASSERT_EQ(s.verifications, 1);
	ASSERT_EQ(s.root_hits, BATCH - 1);
	ASSERT_EQ(s.decompressions, 1);
	ASSERT_EQ(s.point_hits, BATCH - 1);
}

/* In any order, and trees that are not full. */
TEST_F(verify, batches_of_any_size)
{
	static const unsigned sizes[] = { 1, 2, 3, 5, 7, 33, BATCH + 1 };

	for (unsigned k = 0; k < ARRAY_SIZE(sizes); k++) {
		make_batch(&self->dev, &self->batch, sizes[k]);
		for (unsigned i = sizes[k]; i-- > 0;)
			ASSERT_EQ(run(&self->dev, payload_of(&self->batch, i)), BROKER_VERIFY_OK);
		ASSERT_EQ(stats_of(&self->dev).verifications, k + 1);
	}
}

/* Trailer 1 is of one message: each is verified, the same again too. */
TEST_F(verify, single_signatures_are_verified_each)
{
	for (unsigned i = 0; i < 6; i++) {
		if (i % 2 == 0)
			make_single(&self->dev, &self->batch);
		ASSERT_EQ(run(&self->dev, payload_of(&self->batch, 0)), BROKER_VERIFY_OK);
	}
	ASSERT_EQ(stats_of(&self->dev).verifications, 6);
	ASSERT_EQ(stats_of(&self->dev).root_hits, 0);
	ASSERT_EQ(stats_of(&self->dev).decompressions, 1);
}

TEST_F(verify, contexts_in_turn)
{
	static struct batch contexts[VERIFIER_POINTS + 1];

	for (unsigned i = 0; i <= VERIFIER_POINTS; i++) {
		new_context(&self->dev);
		make_single(&self->dev, &contexts[i]);
	}
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < VERIFIER_POINTS; i++)
			ASSERT_EQ(run(&self->dev, payload_of(&contexts[i], 0)), BROKER_VERIFY_OK);
	ASSERT_EQ(stats_of(&self->dev).decompressions, VERIFIER_POINTS);
	/* One more pushes out the one that was not used for longest: the second. */
	ASSERT_EQ(run(&self->dev, payload_of(&contexts[0], 0)), BROKER_VERIFY_OK);
	ASSERT_EQ(run(&self->dev, payload_of(&contexts[VERIFIER_POINTS], 0)), BROKER_VERIFY_OK);
	ASSERT_EQ(run(&self->dev, payload_of(&contexts[0], 0)), BROKER_VERIFY_OK);
	ASSERT_EQ(stats_of(&self->dev).decompressions, VERIFIER_POINTS + 1);
	ASSERT_EQ(run(&self->dev, payload_of(&contexts[1], 0)), BROKER_VERIFY_OK);
	ASSERT_EQ(stats_of(&self->dev).decompressions, VERIFIER_POINTS + 2);
}

TEST_F(verify, batches_in_turn)
{
	static struct batch batches[VERIFIER_ROOTS + 1];

	for (unsigned k = 0; k <= VERIFIER_ROOTS; k++)
		make_batch(&self->dev, &batches[k], 8);
	for (unsigned i = 0; i < 8; i++)
		for (unsigned k = 0; k < VERIFIER_ROOTS; k++)
			ASSERT_EQ(run(&self->dev, payload_of(&batches[k], i)), BROKER_VERIFY_OK);
	ASSERT_EQ(stats_of(&self->dev).verifications, VERIFIER_ROOTS);
	ASSERT_EQ(run(&self->dev, payload_of(&batches[VERIFIER_ROOTS], 0)), BROKER_VERIFY_OK);
	ASSERT_EQ(run(&self->dev, payload_of(&batches[1], 0)), BROKER_VERIFY_OK);
	ASSERT_EQ(stats_of(&self->dev).verifications, VERIFIER_ROOTS + 1);
	ASSERT_EQ(run(&self->dev, payload_of(&batches[0], 0)), BROKER_VERIFY_OK);
	ASSERT_EQ(stats_of(&self->dev).verifications, VERIFIER_ROOTS + 2);
}

/* --- and what it does not let through --------------------------------------------------------- */

/* publish_verify() and the envelope's checks, from scratch. */
static enum broker_verify_result from_scratch(const struct device *d, const struct broker_verify *j)
{
	struct publish p = publish_of(d, bytes_of(NULL, 0));
	struct publish_trailer t;
	struct p256_point point;
	struct envelope e;

	if (publish_split(j->payload, &t))
		return BROKER_VERIFY_NO_TRAILER;
	p.first = j->first;
	p.topic = j->topic;
	p.client_id = j->client_id;
	p.body[0] = t.body;
	if (publish_verify(&p, &t, d->public))
		return BROKER_VERIFY_BAD_SIGNATURE;
	if (envelope_parse(t.body, &e) || e.level ||
	    !envelope_bind_fits(&e, j->client_id, j->topic) || p256_point_decompress(e.enc, &point))
		return BROKER_VERIFY_MALFORMED;
	return BROKER_VERIFY_OK;
}

#define ODD 50 /* messages: more sizes than this one give a path the same shape */

/* Runs it with one byte of it another, and compares with what a verifier without memory says. */
static enum broker_verify_result run_altered(const struct device *d, struct bytes payload,
					     size_t at, uint8_t mask)
{
	struct broker_verify job;
	uint8_t altered[PAYLOAD_MAX];

	memcpy(altered, payload.p, payload.n);
	altered[at] ^= mask;
	job = job_of(d, bytes_of(altered, payload.n));
	broker_verify_run(&job);
	ASSERT_EQ(job.result, from_scratch(d, &job));
	return job.result;
}

/* Any bit of a message may be another: that its root is known does not change the answer. */
TEST_F(verify, altered_messages_of_a_known_batch)
{
	unsigned rounds = harness_rounds(400);
	struct bytes payload;

	make_batch(&self->dev, &self->batch, ODD);
	payload = payload_of(&self->batch, 3);
	ASSERT_EQ(run(&self->dev, payload), BROKER_VERIFY_OK);
	for (unsigned k = 0; k < rounds; k++) {
		struct bytes any = payload_of(&self->batch, (unsigned)(harness_random() % ODD));
		/* Now and then index, size and kind. */
		size_t tail = k % 4 ? any.n : 5;
		size_t at = any.n - 1 - harness_random() % tail;

		if (run_altered(&self->dev, any, at, (uint8_t)(1u << harness_random() % 8)) ==
		    BROKER_VERIFY_OK)
			ASSERT_GE(at + 5, any.n);
	}
	/* A size that leads the same way is as good (PROTOCOL 1), one that does not is bad. */
	EXPECT_EQ(run_altered(&self->dev, payload, payload.n - 2, ODD ^ (ODD + 1)),
		  BROKER_VERIFY_OK);
	EXPECT_EQ(run_altered(&self->dev, payload, payload.n - 2, ODD ^ 200),
		  BROKER_VERIFY_BAD_SIGNATURE);
	EXPECT_EQ(run_altered(&self->dev, payload, payload.n - 4, 1), BROKER_VERIFY_BAD_SIGNATURE);
	EXPECT_EQ(run(&self->dev, payload), BROKER_VERIFY_OK);
}

/* What the signature covers besides the body. */
TEST_F(verify, another_packet_around_it)
{
	struct bytes payload;
	struct broker_verify job;

	make_batch(&self->dev, &self->batch, 4);
	payload = payload_of(&self->batch, 2);
	ASSERT_EQ(run(&self->dev, payload), BROKER_VERIFY_OK);
	job = job_of(&self->dev, payload);
	job.first ^= 0x01; /* RETAIN */
	broker_verify_run(&job);
	EXPECT_EQ(job.result, BROKER_VERIFY_BAD_SIGNATURE);
	job = job_of(&self->dev, payload);
	job.topic = bytes_str("site/2/temp");
	broker_verify_run(&job);
	EXPECT_EQ(job.result, BROKER_VERIFY_BAD_SIGNATURE);
	job = job_of(&self->dev, payload);
	job.client_id = bytes_str("dev3");
	broker_verify_run(&job);
	EXPECT_EQ(job.result, BROKER_VERIFY_BAD_SIGNATURE);
	job = job_of(&self->dev, payload);
	job.properties = bytes_str("\x02\x03");
	broker_verify_run(&job);
	EXPECT_EQ(job.result, BROKER_VERIFY_BAD_SIGNATURE);
}

/* The other signature of a pair (r, -s) holds too, and is verified for itself. */
TEST_F(verify, another_signature_of_a_known_root)
{
	uint8_t *sig;

	make_batch(&self->dev, &self->batch, 4);
	for (unsigned i = 0; i < 4; i++)
		ASSERT_EQ(run(&self->dev, payload_of(&self->batch, i)), BROKER_VERIFY_OK);
	sig = self->batch.payload[1] + self->batch.body_n[1];
	sig[P256_SIG_BYTES - 1] ^= 1;
	EXPECT_EQ(run(&self->dev, payload_of(&self->batch, 1)), BROKER_VERIFY_BAD_SIGNATURE);
	EXPECT_EQ(run(&self->dev, payload_of(&self->batch, 1)), BROKER_VERIFY_BAD_SIGNATURE);
	EXPECT_EQ(stats_of(&self->dev).verifications, 3);
	/* A new one by the same key over the same root. */
	sign_batch(&self->dev, &self->batch);
	EXPECT_EQ(run(&self->dev, payload_of(&self->batch, 1)), BROKER_VERIFY_OK);
	EXPECT_EQ(stats_of(&self->dev).verifications, 4);
}

TEST_F(verify, what_one_device_signed_is_nothing_of_anothers)
{
	struct broker_verify job;

	make_batch(&self->dev, &self->batch, 4);
	ASSERT_EQ(run(&self->dev, payload_of(&self->batch, 0)), BROKER_VERIFY_OK);
	/* Under the other's key, whoever it says it is. */
	EXPECT_EQ(run(&self->other, payload_of(&self->batch, 0)), BROKER_VERIFY_BAD_SIGNATURE);
	job = job_of(&self->dev, payload_of(&self->batch, 1));
	job.verifier = self->other.verifier;
	broker_verify_run(&job);
	EXPECT_EQ(job.result, BROKER_VERIFY_BAD_SIGNATURE);
	EXPECT_EQ(stats_of(&self->other).root_hits, 0);
}

/* A batch that nobody signed costs a verification a message, and pushes nothing out. */
TEST_F(verify, junk_pushes_nothing_out)
{
	static struct batch junk;

	make_batch(&self->dev, &self->batch, 8);
	ASSERT_EQ(run(&self->dev, payload_of(&self->batch, 0)), BROKER_VERIFY_OK);
	for (unsigned k = 0; k < 4 * VERIFIER_ROOTS; k++) {
		make_batch(&self->dev, &junk, 2);
		junk.payload[0][junk.body_n[0]] ^= 0x40;
		ASSERT_EQ(run(&self->dev, payload_of(&junk, 0)), BROKER_VERIFY_BAD_SIGNATURE);
	}
	ASSERT_EQ(stats_of(&self->dev).verifications, 1 + 4 * VERIFIER_ROOTS);
	ASSERT_EQ(run(&self->dev, payload_of(&self->batch, 1)), BROKER_VERIFY_OK);
	ASSERT_EQ(stats_of(&self->dev).root_hits, 1);
	/* Nor do another's, good or bad. */
	for (unsigned k = 0; k < 2 * VERIFIER_ROOTS; k++) {
		make_batch(&self->other, &junk, 1);
		ASSERT_EQ(run(&self->other, payload_of(&junk, 0)), BROKER_VERIFY_OK);
	}
	ASSERT_EQ(run(&self->dev, payload_of(&self->batch, 2)), BROKER_VERIFY_OK);
	ASSERT_EQ(stats_of(&self->dev).root_hits, 2);
}

/* PROTOCOL 4: not on a body that does not parse, though its root is known and signed. */
TEST_F(verify, batch_over_bodies_that_are_no_envelopes)
{
	struct broker_verify job;

	make_batch(&self->dev, &self->batch, 2);
	self->batch.payload[1][2] = 9; /* the version */
	sign_batch(&self->dev, &self->batch);
	EXPECT_EQ(run(&self->dev, payload_of(&self->batch, 0)), BROKER_VERIFY_OK);
	EXPECT_EQ(run(&self->dev, payload_of(&self->batch, 1)), BROKER_VERIFY_BAD_SIGNATURE);
	/* Nor on what need not be one. */
	job = job_of(&self->dev, payload_of(&self->batch, 1));
	job.sealed = false;
	broker_verify_run(&job);
	EXPECT_EQ(job.result, BROKER_VERIFY_BAD_SIGNATURE);
	EXPECT_EQ(stats_of(&self->dev).verifications, 1);
}

/* An x that no point has stays malformed, each time; a bind that does not fit too. */
TEST_F(verify, bad_points_are_not_remembered)
{
	struct p256_point point;

	make_batch(&self->dev, &self->batch, 8);
	for (unsigned i = 0; i < 8; i++) {
		uint8_t *enc = self->batch.payload[i] + ENVELOPE_AAD_BYTES;

		do { /* half of all x have none */
			enc[16] = (uint8_t)harness_random();
		} while (!p256_point_decompress(bytes_of(enc, P256_COMPRESSED_BYTES), &point));
	}
	sign_batch(&self->dev, &self->batch);
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < 8; i++)
			ASSERT_EQ(run(&self->dev, payload_of(&self->batch, i)),
				  BROKER_VERIFY_MALFORMED);
	ASSERT_EQ(stats_of(&self->dev).verifications, 1);
	ASSERT_EQ(stats_of(&self->dev).decompressions, 16);
	ASSERT_EQ(stats_of(&self->dev).point_hits, 0);

	make_batch(&self->dev, &self->batch, 2);
	self->batch.payload[1][30] ^= 1; /* bind */
	sign_batch(&self->dev, &self->batch);
	EXPECT_EQ(run(&self->dev, payload_of(&self->batch, 0)), BROKER_VERIFY_OK);
	EXPECT_EQ(run(&self->dev, payload_of(&self->batch, 1)), BROKER_VERIFY_MALFORMED);
}

/* --- who goes with whom ----------------------------------------------------------------------- */

TEST_F(verify, same_batch)
{
	static struct batch next, single;
	struct broker_verify a, b, c, d, cut;

	make_batch(&self->dev, &self->batch, 3);
	make_batch(&self->dev, &next, 3);
	make_single(&self->dev, &single);
	a = job_of(&self->dev, payload_of(&self->batch, 0));
	b = job_of(&self->dev, payload_of(&self->batch, 2));
	c = job_of(&self->dev, payload_of(&next, 0));
	d = job_of(&self->dev, payload_of(&single, 0));
	cut = job_of(&self->dev, bytes_of(self->batch.payload[0], 1));
	EXPECT_TRUE(broker_verify_same_batch(&a, &b) && broker_verify_same_batch(&b, &a));
	EXPECT_TRUE(!broker_verify_same_batch(&a, &c) && !broker_verify_same_batch(&a, &d));
	EXPECT_TRUE(!broker_verify_same_batch(&d, &d) && !broker_verify_same_batch(&a, &cut));
	EXPECT_TRUE(!broker_verify_same_batch(&cut, &a));
	b.verifier = self->other.verifier;
	EXPECT_TRUE(!broker_verify_same_batch(&a, &b));
}

/* --- threads ---------------------------------------------------------------------------------- */

#define THREADS	     4
#define KNOWN	     (VERIFIER_ROOTS + 2) /* more than are remembered */
#define KNOWN_LEAVES 4

struct crowd {
	struct fixture_verify *fixture;
	struct batch batches[KNOWN];
	unsigned rounds;
	atomic_uint next, wrong;
};

static void *crowd_member(void *arg)
{
	struct crowd *c = arg;
	unsigned k;

	while ((k = atomic_fetch_add(&c->next, 1)) < c->rounds) {
		const struct device *d = &c->fixture->dev;
		struct bytes payload = payload_of(&c->batches[k / 16 % KNOWN], k % KNOWN_LEAVES);
		uint8_t altered[PAYLOAD_MAX];
		bool good = k % 8 != 7;

		memcpy(altered, payload.p, payload.n);
		altered[10] ^= !good; /* one in the seq */
		if (k % 8 == 3)	      /* the other's verifier, not its signature */
			d = &c->fixture->other, good = false;
		if ((run(d, bytes_of(altered, payload.n)) == BROKER_VERIFY_OK) != good)
			atomic_fetch_add(&c->wrong, 1);
	}
	return NULL;
}

/* Threads that note, find and push out the same at once. */
TEST_F(verify, many_threads)
{
	static struct crowd crowd;
	pthread_t threads[THREADS];
	struct verifier_stats s;

	crowd.fixture = self;
	crowd.rounds = harness_rounds(2000) / 64 * 64; /* shares of it are counted */
	for (unsigned k = 0; k < KNOWN; k++) {
		new_context(&self->dev);
		make_batch(&self->dev, &crowd.batches[k], KNOWN_LEAVES);
	}
	for (unsigned i = 0; i < THREADS; i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, crowd_member, &crowd), 0);
	for (unsigned i = 0; i < THREADS; i++)
		ASSERT_EQ(pthread_join(threads[i], NULL), 0);
	ASSERT_EQ(atomic_load(&crowd.wrong), 0);
	s = stats_of(&self->dev);
	ASSERT_EQ(s.verifications + s.root_hits, crowd.rounds - crowd.rounds / 8);
	ASSERT_GE(s.verifications, crowd.rounds / 8);
	ASSERT_EQ(stats_of(&self->other).verifications, crowd.rounds / 8);
}

/* --- in the engine ---------------------------------------------------------------------------- */

#define SENT 8

FIXTURE(engine)
{
	struct world *world;
	struct fake_broker *fake;
	struct fake_client dev1, rx1;
	struct fake_sealed sealed[SENT];
};

FIXTURE_SETUP(engine)
{
	self->world = world_new(NULL);
	self->fake = self->world->fake;
	client_init_party(&self->dev1, self->world, self->world->dev1);
	client_init_party(&self->rx1, self->world, self->world->rx1);
	ASSERT_TRUE(client_up(&self->dev1) && client_up(&self->rx1));
	ASSERT_EQ(client_subscribe(&self->rx1, "#", 0), 0);
}

FIXTURE_TEARDOWN(engine)
{
	client_deinit(&self->dev1);
	client_deinit(&self->rx1);
	world_free(self->world);
}

/* Eight messages of dev1, signed once; the text of each is its number. */
static void seal_batch(struct fixture_engine *self)
{
	static uint8_t nodes[4 * SENT][HASH_BYTES];
	uint8_t digest[HASH_BYTES], sig[P256_SIG_BYTES];
	size_t body_n[SENT];
	struct merkle m;

	for (unsigned i = 0; i < SENT; i++) {
		struct fake_sealed *s = &self->sealed[i];
		char text[8];
		struct publish p;

		snprintf(text, sizeof(text), "%u", i);
		client_seal(&self->dev1, self->world->temp, TOPIC, text, 1, false, s);
		body_n[i] = s->n - PUBLISH_TRAILER_1_BYTES;
		p = (struct publish){ .first = FIRST,
				      .topic = s->publish.topic,
				      .body = { bytes_of(s->payload, body_n[i]) },
				      .body_parts = 1,
				      .client_id = bytes_str(self->dev1.id) };
		publish_leaf(&p, nodes[i]);
	}
	merkle_build(&m, nodes, SENT);
	publish_root_digest(merkle_root(&m), digest);
	ASSERT_EQ(p256_sign_digest(self->world->dev1->key, digest, sig), 0);
	for (unsigned i = 0; i < SENT; i++) {
		struct fake_sealed *s = &self->sealed[i];
		struct bytes_writer w =
			bytes_writer_of(s->payload + body_n[i], sizeof(s->payload) - body_n[i]);

		publish_write_trailer_2(sig, &m, (uint16_t)i, &w);
		ASSERT_FALSE(w.bad);
		s->n = body_n[i] + w.used;
		s->publish.payload = bytes_of(s->payload, s->n);
	}
}

static struct verifier_stats stats_of_job(const struct broker_verify *job)
{
	struct verifier_stats s;

	verifier_stats(job->verifier, &s);
	return s;
}

/* The loop only reads and routes: whatever is calculated is so while a job is done, and each
 * message is a job, in the order in which they came. */
TEST_F(engine, every_message_leaves_as_a_job)
{
	struct verifier_stats before, after;

	self->fake->hold_verify = true;
	seal_batch(self);
	for (unsigned i = 0; i < SENT; i++)
		client_send_publish(&self->dev1, &self->sealed[i].publish);
	ASSERT_EQ(self->fake->n_verify, SENT);
	before = stats_of_job(self->fake->verify[0]);
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->n_verify, SENT);
	for (unsigned i = 0; i < SENT; i++) {
		const struct broker_verify *job = self->fake->verify[i];

		ASSERT_TRUE(bytes_equal(job->payload, self->sealed[i].publish.payload));
		ASSERT_TRUE(job->verifier == self->fake->verify[0]->verifier);
	}
	after = stats_of_job(self->fake->verify[0]);
	ASSERT_EQ(after.verifications, before.verifications);
	ASSERT_EQ(after.decompressions, before.decompressions);
	ASSERT_TRUE(client_got_nothing(&self->dev1));

	self->fake->hold_verify = false;
	fake_settle(self->fake);
	for (unsigned i = 0; i < SENT; i++) {
		char text[8];

		snprintf(text, sizeof(text), "%u", i);
		ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK,
					   self->sealed[i].publish.packet_id));
		ASSERT_TRUE(client_got_sealed(&self->rx1, text, NULL));
	}
	/* Of the same verifier: dev1 says one thing more. */
	self->fake->hold_verify = true;
	client_publish(&self->dev1, self->world->temp, TOPIC, "end", 1);
	after = stats_of_job(self->fake->verify[0]);
	ASSERT_EQ(after.verifications, before.verifications + 1);
	ASSERT_EQ(after.decompressions, before.decompressions + 1);
}

/* The rest of a batch, once the bundle names another key: what was proved ended with the old one.
 */
TEST_F(engine, key_changed_within_a_batch)
{
	seal_batch(self);
	client_send_publish(&self->dev1, &self->sealed[0].publish);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, self->sealed[0].publish.packet_id));
	ASSERT_TRUE(client_got_sealed(&self->rx1, "0", NULL));

	world_new_key(self->world->dev1);
	world_apply(self->world);
	ASSERT_TRUE(client_closed(&self->dev1));
	ASSERT_TRUE(client_up(&self->dev1));
	client_send_publish(&self->dev1, &self->sealed[1].publish);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_BAD_SIGNATURE, self->sealed[1].counter));
	ASSERT_TRUE(client_got_nothing(&self->dev1) && client_got_nothing(&self->rx1));
}
