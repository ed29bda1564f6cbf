// SPDX-License-Identifier: MIT
/*
 * libssdtf: many messages under one signature (PROTOCOL 4, trailer 2) and many in one context, and
 * what a receiver remembers so that neither costs it a scalar multiplication each.
 */
#include <errno.h>
#include <stdio.h>

#include "tests/ends.h"

#define SIZE_MAX_TESTED 65
#define TEXT_BYTES	8
#define MANY		64
#define ENC_AT		ENVELOPE_AAD_BYTES
#define COMMIT_AT	(ENC_AT + P256_COMPRESSED_BYTES)

FIXTURE_SETUP(client)
{
	ends_setup(self, HPKE_SUITE_CHACHA20_POLY1305);
}

FIXTURE_TEARDOWN(client)
{
	ends_teardown(self);
}

/* --- a device's batch ------------------------------------------------------------------------- */

struct burst {
	struct ssdtf_outgoing list[SIZE_MAX_TESTED];
	uint8_t out[SIZE_MAX_TESTED][SSDTF_SEALED_BATCH_BYTES(TEXT_BYTES, SIZE_MAX_TESTED) + 1];
	char text[SIZE_MAX_TESTED][TEXT_BYTES + 1];
	uint8_t nodes[SSDTF_BATCH_NODES(SIZE_MAX_TESTED)][HASH_BYTES];
};

/* n messages of all QoS, with and without RETAIN, each with the room that it is promised to need
 * and not a byte more. */
static void burst_fill(struct burst *b, unsigned n)
{
	memset(b, 0xee, sizeof(*b));
	for (unsigned i = 0; i < n; i++) {
		snprintf(b->text[i], sizeof(b->text[i]), "%.*u", (int)(i % TEXT_BYTES), i % 10);
		b->list[i] = (struct ssdtf_outgoing){
			.topic = bytes_str(i % 4 == 3 ? "plant/9/temp" : TOPIC),
			.plain = bytes_str(b->text[i]),
			.qos = (uint8_t)(i % 3),
			.retain = i % 5 == 4,
			.out = b->out[i],
			.room = SSDTF_SEALED_BATCH_BYTES(strlen(b->text[i]), n),
		};
	}
}

static int burst_seal(struct fixture_client *f, struct burst *b, unsigned n)
{
	return ssdtf_seal_batch(&f->dev.client, b->list, n, f->now, b->nodes, ARRAY_SIZE(b->nodes));
}

static struct publish published(const struct ssdtf_outgoing *m, struct publish_trailer *t)
{
	struct publish p = { .first = (uint8_t)(0x30 | m->qos << 1 | m->retain),
			     .topic = m->topic,
			     .body_parts = 1,
			     .client_id = bytes_str(DEVICE) };

	ASSERT_EQ(publish_split(m->sealed.payload, t), 0);
	p.body[0] = t->body;
	return p;
}

static void check_message(struct fixture_client *f, struct burst *b, unsigned i, unsigned n)
{
	struct ssdtf_outgoing *m = &b->list[i];
	struct publish_trailer t;
	struct publish p = published(m, &t);
	struct envelope e;

	EXPECT_EQ(m->error, 0);
	EXPECT_EQ(t.kind, n == 1 ? 1 : 2);
	EXPECT_EQ(t.size, n == 1 ? 0 : n);
	EXPECT_EQ(t.index, i);
	EXPECT_EQ(b->out[i][m->room], 0xee); /* and nothing was written behind its room */
	ASSERT_EQ(publish_verify(&p, &t, f->device_public), 0);
	ASSERT_EQ(envelope_parse(t.body, &e), 0);
	EXPECT_EQ(e.counter, m->sealed.counter);
	EXPECT_TRUE(envelope_bind_fits(&e, bytes_str(DEVICE), m->topic));
}

/* Whatever is changed in a message or in its siblings' hashes, its trailer does not hold. */
static void check_altered(struct fixture_client *f, struct ssdtf_outgoing *m)
{
	struct publish_trailer t;
	struct publish p = published(m, &t);
	size_t path_at = t.body.n + P256_SIG_BYTES;

	for (size_t at = path_at; at < path_at + t.path.n; at += HASH_BYTES / 2) {
		m->out[at] ^= 0x10;
		EXPECT_EQ(publish_verify(&p, &t, f->device_public), -EBADMSG);
		m->out[at] ^= 0x10;
	}
	m->out[t.body.n - 1] ^= 1;
	EXPECT_EQ(publish_verify(&p, &t, f->device_public), -EBADMSG);
	m->out[t.body.n - 1] ^= 1;
	m->out[t.body.n + 5] ^= 1;
	EXPECT_EQ(publish_verify(&p, &t, f->device_public), -EBADMSG);
	m->out[t.body.n + 5] ^= 1;
	p.first ^= 1;
	EXPECT_EQ(publish_verify(&p, &t, f->device_public), -EBADMSG);
	p.first ^= 1;
	p.topic = bytes_str("plant/8/temp");
	EXPECT_EQ(publish_verify(&p, &t, f->device_public), -EBADMSG);
	p.topic = m->topic;
	ASSERT_EQ(publish_verify(&p, &t, f->device_public), 0);
}

TEST_F(client, batches_of_any_size_verify)
{
	static const unsigned sizes[] = { 1, 2, 3, 64, 65 };
	struct ssdtf_stats *stats = &self->dev.client.stats;
	static struct burst b;
	uint64_t counter = 0;

	for (unsigned k = 0; k < ARRAY_SIZE(sizes); k++) {
		unsigned n = sizes[k];

		burst_fill(&b, n);
		ASSERT_EQ(burst_seal(self, &b, n), 0);
		EXPECT_EQ(stats->signatures, k + 1);
		for (unsigned i = 0; i < n; i++) {
			check_message(self, &b, i, n);
			EXPECT_EQ(b.list[i].sealed.counter, ++counter);
		}
		check_altered(self, &b.list[0]);
		check_altered(self, &b.list[n - 1]);
	}
	EXPECT_EQ(stats->sealed, counter);
	EXPECT_EQ(stats->contexts, 1);
}

/* A message's trailer is its own: that of another of the same batch does not hold for it. */
TEST_F(client, trailers_are_not_interchangeable)
{
	static struct burst b;
	struct publish_trailer t[2];
	struct publish p[2];

	burst_fill(&b, 4);
	ASSERT_EQ(burst_seal(self, &b, 4), 0);
	for (unsigned i = 0; i < 2; i++)
		p[i] = published(&b.list[i], &t[i]);
	EXPECT_EQ(publish_verify(&p[0], &t[1], self->device_public), -EBADMSG);
	EXPECT_EQ(publish_verify(&p[1], &t[0], self->device_public), -EBADMSG);
}

TEST_F(client, batch_refuses)
{
	struct ssdtf_client *c = &self->dev.client;
	static struct burst b;

	burst_fill(&b, 3);
	EXPECT_EQ(burst_seal(self, &b, 0), -EINVAL);
	EXPECT_EQ(burst_seal(self, &b, SSDTF_BATCH_MAX + 1), -EINVAL);
	EXPECT_EQ(ssdtf_seal_batch(c, b.list, 3, self->now, b.nodes, 5), -ENOBUFS);
	b.list[1].topic = bytes_str("elsewhere");
	b.list[2].topic = bytes_str("plant/+/temp");
	EXPECT_EQ(burst_seal(self, &b, 3), -EACCES);
	EXPECT_EQ(b.list[0].error, 0);
	EXPECT_EQ(b.list[1].error, -EACCES);
	EXPECT_EQ(b.list[2].error, -EINVAL);
	b.list[0].topic = bytes_str("$SSDTF/report");
	EXPECT_EQ(burst_seal(self, &b, 1), -EINVAL);
	EXPECT_EQ(b.list[0].error, -EINVAL);
	burst_fill(&b, 3);
	b.list[0].room--;
	EXPECT_EQ(burst_seal(self, &b, 3), -ENOBUFS);
	/* The last of three has a path of one step, and needs that much less. */
	burst_fill(&b, 3);
	b.list[2].room -= HASH_BYTES;
	EXPECT_EQ(self->dev.stored_mark, 0); /* none of these took a counter */
	EXPECT_EQ(c->stats.contexts, 0);
	ASSERT_EQ(burst_seal(self, &b, 3), 0);
	EXPECT_EQ(b.list[2].sealed.payload.n, b.list[2].room);
	EXPECT_EQ(b.list[0].sealed.counter, 1);
}

/* Storage fails in the midst of it: nothing of the batch is used, none of its numbers again. */
TEST_F(client, batch_that_storage_interrupts)
{
	struct ssdtf_client *c = &self->dev.client;
	static struct burst b;

	burst_fill(&b, 5);
	ASSERT_EQ(burst_seal(self, &b, 5), 0);
	self->dev.reserve_fails = -EIO; /* 8 are reserved */
	burst_fill(&b, 5);
	EXPECT_EQ(burst_seal(self, &b, 5), -EIO);
	EXPECT_EQ(c->stats.signatures, 1);
	self->dev.reserve_fails = 0;
	burst_fill(&b, 5);
	ASSERT_EQ(burst_seal(self, &b, 5), 0);
	EXPECT_EQ(b.list[0].sealed.counter, 9);
	EXPECT_EQ(c->scopes[0].sender.seq_next, 13);
}

/* --- how long a context is kept --------------------------------------------------------------- */

/* Seals n messages in batches and returns how many different enc they have. Those of one context
 * follow each other. */
static unsigned contexts_of(struct fixture_client *f, unsigned n, unsigned batch)
{
	static struct burst b;
	uint8_t last[P256_COMPRESSED_BYTES] = { 0 };
	unsigned contexts = 0;

	for (unsigned done = 0; done < n; done += batch) {
		burst_fill(&b, batch);
		ASSERT_EQ(burst_seal(f, &b, batch), 0);
		for (unsigned i = 0; i < batch; i++) {
			struct publish_trailer t;
			struct envelope e;

			(void)published(&b.list[i], &t);
			ASSERT_EQ(envelope_parse(t.body, &e), 0);
			if (bytes_equal(e.enc, bytes_of(last, sizeof(last))))
				continue;
			EXPECT_TRUE(e.seq == 0 || !contexts); /* the first may go on with one */
			memcpy(last, e.enc.p, sizeof(last));
			contexts++;
		}
	}
	return contexts;
}

/* What holds for the topic when this is configured and that is in the bundle. */
static struct ssdtf_rekey rekey(struct fixture_client *f, struct ssdtf_rekey wish,
				struct ssdtf_rekey bundle)
{
	struct terms t = f->device_terms;
	struct ssdtf_rekey got = { 0 };

	t.scope.rekey_messages = bundle.messages;
	t.scope.rekey_seconds = bundle.seconds;
	f->dev.rekey_messages = wish.messages;
	f->dev.rekey_seconds = wish.seconds;
	ends_restart(f, &t, &f->dev);
	EXPECT_EQ(ssdtf_rekey(&f->dev.client, bytes_str("elsewhere"), f->now, &got), -EACCES);
	ASSERT_EQ(ssdtf_rekey(&f->dev.client, bytes_str(TOPIC), f->now, &got), 0);
	return got;
}

TEST_F(client, rekey_takes_the_stricter)
{
	static const struct {
		struct ssdtf_rekey wish, bundle, want;
	} rows[] = {
		{ { 0, 0 }, { 0, 0 }, { 65536, 3600 } }, /* the protocol's own */
		{ { 0, 0 }, { 100, 60 }, { 100, 60 } },
		{ { 1, 7 }, { 100, 60 }, { 1, 7 } },
		{ { 101, 61 }, { 100, 60 }, { 100, 60 } },
		{ { 1, 0 }, { 100, 60 }, { 1, 60 } },
		{ { 70000, 4000 }, { 0, 0 }, { 65536, 3600 } },
		{ { 70000, 4000 }, { 80000, 5000 }, { 65536, 3600 } },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct ssdtf_rekey got = rekey(self, rows[i].wish, rows[i].bundle);

		EXPECT_EQ(got.messages, rows[i].want.messages);
		EXPECT_EQ(got.seconds, rows[i].want.seconds);
	}
	/* A newer bundle's limit holds from then on, and a context of before is not gone on with.
	 */
	rekey(self, (struct ssdtf_rekey){ 50, 0 }, (struct ssdtf_rekey){ 0, 0 });
	EXPECT_EQ(contexts_of(self, 4, 1), 1);
	{
		struct terms t = self->device_terms;
		static struct end next;

		t.serial++;
		t.scope.rekey_messages = 2;
		ends_bundle(self, &t, &next);
		ASSERT_EQ(ssdtf_load_bundle(&self->dev.client, bytes_of(next.bundle, next.bundle_n),
					    self->now),
			  0);
	}
	EXPECT_EQ(contexts_of(self, 4, 1), 2);
}

TEST_F(client, context_per_message_and_per_three)
{
	struct ssdtf_rekey none = { 0, 0 };

	rekey(self, (struct ssdtf_rekey){ 1, 0 }, none);
	EXPECT_EQ(contexts_of(self, 5, 1), 5);
	EXPECT_EQ(contexts_of(self, 5, 5), 5); /* also where one signature stands for all */
	rekey(self, (struct ssdtf_rekey){ 3, 0 }, none);
	EXPECT_EQ(contexts_of(self, 9, 1), 3);
	EXPECT_EQ(contexts_of(self, 12, 12), 4);
	EXPECT_EQ(contexts_of(self, 8, 2), 3); /* 3, 3 and 2 */
}

TEST_F(client, context_per_second)
{
	rekey(self, (struct ssdtf_rekey){ 0, 1 }, (struct ssdtf_rekey){ 0, 0 });
	EXPECT_EQ(contexts_of(self, 2, 1), 1);
	self->now.mono_ms += 999;
	contexts_of(self, 2, 2);
	EXPECT_EQ(self->dev.client.stats.contexts, 1);
	self->now.mono_ms += 1;
	contexts_of(self, 2, 2);
	EXPECT_EQ(self->dev.client.stats.contexts, 2);
}

/* --- what a receiver verifies ----------------------------------------------------------------- */

/* Deliveries that the broker signs together. */
struct batch {
	unsigned size;
	uint8_t bodies[MANY][1024];
	size_t n[MANY];
	uint8_t nodes[MERKLE_NODES_MAX(MANY)][HASH_BYTES];
	struct merkle tree;
	uint8_t sig[P256_SIG_BYTES];
};

static struct publish delivered(struct bytes body)
{
	return (struct publish){ .first = 0x30,
				 .topic = bytes_str(TOPIC),
				 .body = { body },
				 .body_parts = 1,
				 .client_id = bytes_str(RECEIVER) };
}

static void batch_sign(struct batch *b, const struct p256_private *key)
{
	uint8_t digest[HASH_BYTES];

	for (unsigned i = 0; i < b->size; i++) {
		struct publish p = delivered(bytes_of(b->bodies[i], b->n[i]));

		publish_leaf(&p, b->nodes[i]);
	}
	merkle_build(&b->tree, b->nodes, (uint16_t)b->size);
	publish_root_digest(merkle_root(&b->tree), digest);
	ASSERT_EQ(p256_sign_digest(key, digest, b->sig), 0);
}

/* Fresh messages of the device, each signed for itself, in a batch of the broker's. The receiver's
 * grant asks for no proof, and gets none. */
static void batch_make(struct fixture_client *f, struct batch *b, unsigned size)
{
	b->size = size;
	for (unsigned i = 0; i < size; i++) {
		static struct delivery d;
		uint8_t body[ROOM];

		ends_seal(f, &d, TOPIC, "batched", 0, false);
		d.proof = bytes_of("", 0);
		b->n[i] = ends_convert(f, &d, body);
		ASSERT_LE(b->n[i], sizeof(b->bodies[i]));
		memcpy(b->bodies[i], body, b->n[i]);
	}
	batch_sign(b, f->broker.sign);
}

/* Hands over message i with its trailer 2; flip is counted from the end, 0: none. */
static struct ssdtf_event batch_hand(struct fixture_client *f, struct batch *b, unsigned i,
				     unsigned flip)
{
	static uint8_t payload[ROOM];
	struct bytes_writer w = bytes_writer_of(payload, sizeof(payload));

	bytes_write(&w, bytes_of(b->bodies[i], b->n[i]));
	publish_write_trailer_2(b->sig, &b->tree, (uint16_t)i, &w);
	ASSERT_FALSE(w.bad);
	if (flip)
		payload[w.used - flip] ^= 1;
	return ends_hand(f, &f->rec, TOPIC, bytes_of(payload, w.used), 0x30);
}

/* A receiver whose grant asks for no proof, so that only the broker's signatures count. */
static struct ssdtf_stats *without_proofs(struct fixture_client *f)
{
	struct terms t = f->receiver_terms;

	t.grant.flags = 0;
	ends_restart(f, &t, &f->rec);
	ends_session_open(f, &f->rec, 0);
	return &f->rec.client.stats;
}

TEST_F(client, batch_of_64_is_verified_once)
{
	struct ssdtf_stats *stats = without_proofs(self);
	uint64_t before = stats->verifications;
	static struct batch b;
	struct ssdtf_event e;

	batch_make(self, &b, MANY);
	for (unsigned i = 0; i < MANY; i++) {
		e = batch_hand(self, &b, i, 0);
		ends_expect_opened(&e, "batched");
	}
	EXPECT_EQ(stats->verifications, before + 1);
	EXPECT_EQ(stats->roots_reused, MANY - 1);
	/* The same messages under another signature are another batch. */
	memset(self->rec.origins, 0, sizeof(self->rec.origins));
	batch_sign(&b, self->broker.sign);
	e = batch_hand(self, &b, 7, 0);
	ends_expect_opened(&e, "batched");
	EXPECT_EQ(stats->verifications, before + 2);
}

TEST_F(client, wrong_paths_under_a_known_signature)
{
	static struct batch b;
	struct ssdtf_event e;

	without_proofs(self);
	batch_make(self, &b, 5);
	e = batch_hand(self, &b, 0, 0);
	ends_expect_opened(&e, "batched");
	for (unsigned i = 1; i < 5; i++) {
		/* Another root, which is not known. */
		for (unsigned flip = 6; flip < 6 + 32; flip += 7) {
			e = batch_hand(self, &b, i, flip);
			ends_expect_refused(&e, SSDTF_REASON_BAD_SIGNATURE);
		}
		e = batch_hand(self, &b, i, 0);
		ends_expect_opened(&e, "batched");
	}
	/* What is no envelope gets no batch trailer (PROTOCOL 4). */
	memcpy(b.bodies[2], "yes", 3);
	b.n[2] = 3;
	batch_sign(&b, self->broker.sign);
	e = batch_hand(self, &b, 2, 0);
	ends_expect_refused(&e, SSDTF_REASON_BAD_SIGNATURE);
}

/* The batch's first message, new to the receiver, opens at this cost. */
static void expect_verifications(struct fixture_client *f, struct batch *b, unsigned n)
{
	uint64_t before = f->rec.client.stats.verifications;
	struct ssdtf_event e;

	memset(f->rec.origins, 0, sizeof(f->rec.origins));
	e = batch_hand(f, b, 0, 0);
	ends_expect_opened(&e, "batched");
	EXPECT_EQ(f->rec.client.stats.verifications, before + n);
}

/* As many batches at a time as there is memory for, message by message in turn; then one more. */
TEST_F(client, interleaved_batches)
{
	static struct batch b[SSDTF_ROOTS_MAX + 1];
	struct ssdtf_stats *stats = without_proofs(self);
	uint64_t before = stats->verifications;
	struct ssdtf_event e;

	for (unsigned k = 0; k < ARRAY_SIZE(b); k++)
		batch_make(self, &b[k], 3);
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned k = 0; k < SSDTF_ROOTS_MAX; k++) {
			e = batch_hand(self, &b[k], i, 0);
			ends_expect_opened(&e, "batched");
		}
	}
	EXPECT_EQ(stats->verifications, before + SSDTF_ROOTS_MAX);
	EXPECT_EQ(stats->roots_reused, 2 * SSDTF_ROOTS_MAX);
	/* Another takes the place of the one used longest ago, which is the second once the first
	 * is heard again. */
	expect_verifications(self, &b[0], 0);
	expect_verifications(self, &b[SSDTF_ROOTS_MAX], 1);
	expect_verifications(self, &b[0], 0);
	expect_verifications(self, &b[2], 0);
	expect_verifications(self, &b[1], 1);
}

/* Origin proofs of a device's batch, in a batch of the broker's: two verifications for all. */
TEST_F(client, proofs_of_a_batch_are_verified_once)
{
	struct ssdtf_stats *stats = &self->rec.client.stats;
	static struct burst b;
	static struct batch out;
	uint64_t before;
	struct ssdtf_event e;

	ends_session_open(self, &self->rec, 0);
	burst_fill(&b, MANY);
	for (unsigned i = 0; i < MANY; i++)
		b.list[i].topic = bytes_str(TOPIC);
	ASSERT_EQ(burst_seal(self, &b, MANY), 0);
	out.size = MANY;
	for (unsigned i = 0; i < MANY; i++) {
		static struct delivery d;
		static uint8_t body[ROOM];

		ends_take(&d, b.list[i].sealed.payload, TOPIC, b.list[i].qos, b.list[i].retain);
		out.n[i] = ends_convert(self, &d, body);
		ASSERT_LE(out.n[i], sizeof(out.bodies[i]));
		memcpy(out.bodies[i], body, out.n[i]);
	}
	batch_sign(&out, self->broker.sign);
	before = stats->verifications;
	for (unsigned i = 0; i < MANY; i++) {
		e = batch_hand(self, &out, i, 0);
		ends_expect_opened(&e, b.text[i]);
		EXPECT_EQ(e.proof, SSDTF_PROOF_VERIFIED);
		EXPECT_EQ(e.proven_first, 0x30 | b.list[i].qos << 1 | b.list[i].retain);
	}
	EXPECT_EQ(stats->verifications, before + 2);
	EXPECT_EQ(stats->roots_reused, 2 * (MANY - 1));
}

/* One bit of a proof from a batch, signed by the broker all the same: refused, whether the root is
 * known or not. */
TEST_F(client, proof_of_a_batch_altered)
{
	static struct burst b;
	static struct delivery d;
	uint8_t proof[3 + PUBLISH_TRAILER_2_BYTES(2)];
	struct ssdtf_event e;

	ends_session_open(self, &self->rec, 0);
	burst_fill(&b, 3);
	ASSERT_EQ(burst_seal(self, &b, 3), 0);
	ends_take(&d, b.list[1].sealed.payload, TOPIC, b.list[1].qos, b.list[1].retain);
	e = ends_deliver(self, &d); /* which leaves the true proof in proof_bytes */
	ends_expect_opened(&e, b.text[1]);
	memcpy(proof, d.proof_bytes, sizeof(proof));
	memset(self->rec.origins, 0, sizeof(self->rec.origins));
	for (size_t i = 0; i < sizeof(proof); i += 3) {
		/* Index and size do not enter the root: others of the same shape hold too. */
		if (i >= sizeof(proof) - 5 && i < sizeof(proof) - 1)
			continue;
		proof[i] ^= 1u << i % 8;
		d.proof = bytes_of(proof, sizeof(proof));
		e = ends_deliver(self, &d);
		ends_expect_refused(&e, SSDTF_REASON_BAD_SIGNATURE);
		proof[i] ^= 1u << i % 8;
	}
}

/*
 * A device that signs, beside a message of its own, a delivery as only the broker may make it, and
 * puts both under one root. The root is known once the first message is proven; it is the device's.
 */
TEST_F(client, roots_belong_to_their_signer)
{
	static struct delivery d[2];
	static uint8_t body[ROOM], payload[ROOM], proof[3 + PUBLISH_TRAILER_2_BYTES(1)];
	struct bytes_writer w = bytes_writer_of(proof, sizeof(proof));
	uint8_t nodes[3][HASH_BYTES], digest[HASH_BYTES], sig[P256_SIG_BYTES];
	struct publish_trailer t;
	struct publish p;
	struct merkle tree;
	struct ssdtf_event e;
	size_t n;

	ends_session_open(self, &self->rec, 0);
	ends_seal(self, &d[0], TOPIC, "own", 0, false);
	ends_seal(self, &d[1], TOPIC, "forged", 0, false);
	(void)ends_take_apart(self, &d[0], TOPIC, &t);
	p = delivered(t.body);
	p.client_id = bytes_str(DEVICE);
	publish_leaf(&p, nodes[0]);
	n = ends_convert(self, &d[1], body);
	p = delivered(bytes_of(body, n));
	publish_leaf(&p, nodes[1]);
	merkle_build(&tree, nodes, 2);
	publish_root_digest(merkle_root(&tree), digest);
	ASSERT_EQ(p256_sign_digest(self->device.sign, digest, sig), 0);

	bytes_write_u8(&w, 0x30);
	bytes_write_u16(&w, 0);
	publish_write_trailer_2(sig, &tree, 0, &w);
	d[0].proof = bytes_of(proof, w.used);
	e = ends_deliver(self, &d[0]);
	ends_expect_opened(&e, "own");
	EXPECT_EQ(e.proof, SSDTF_PROOF_VERIFIED);

	w = bytes_writer_of(payload, sizeof(payload));
	bytes_write(&w, bytes_of(body, n));
	publish_write_trailer_2(sig, &tree, 1, &w);
	e = ends_hand(self, &self->rec, TOPIC, bytes_of(payload, w.used), 0x30);
	ends_expect_refused(&e, SSDTF_REASON_BAD_SIGNATURE);
	EXPECT_EQ(self->rec.client.stats.roots_reused, 0);
}

/* --- what a receiver computes ----------------------------------------------------------------- */

static void deliver_text(struct fixture_client *f, const char *text)
{
	static struct delivery d;
	struct ssdtf_event e;

	ends_seal(f, &d, TOPIC, text, 0, false);
	e = ends_deliver(f, &d);
	ends_expect_opened(&e, text);
}

/* The receiver's secret of its grant, taken away: without it no context can be computed. */
static struct secret32 grant_taken(struct fixture_client *f)
{
	struct ssdtf_grant *g = &f->rec.client.grants[0];
	struct secret32 d = g->u.d;

	ASSERT_TRUE(g->ready);
	memset(&g->u.d, 0, sizeof(g->u.d));
	g->u.d.b[31] = 1;
	return d;
}

TEST_F(client, context_costs_one_exchange)
{
	struct ssdtf_stats *stats = &self->rec.client.stats;
	static struct delivery d;
	struct ssdtf_event e;
	struct secret32 secret;

	ends_session_open(self, &self->rec, 0);
	deliver_text(self, "first");
	secret = grant_taken(self);
	for (unsigned i = 0; i < 10; i++)
		deliver_text(self, "further");
	EXPECT_EQ(stats->exchanges, 1);
	EXPECT_EQ(stats->contexts_reused, 10);
	/* That the secret is needed for another context shows that it was not used for these. */
	ssdtf_deinit(&self->dev.client);
	ends_start(self, &self->device_terms, &self->dev);
	ends_seal(self, &d, TOPIC, "another", 0, false);
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_CANNOT_OPEN);
	self->rec.client.grants[0].u.d = secret;
	e = ends_deliver(self, &d);
	ends_expect_opened(&e, "another");
	EXPECT_EQ(stats->exchanges, 3);
}

/* Messages of two contexts in turn, to a receiver with so many places. */
static void in_turn(struct fixture_client *f, struct ssdtf_context *places, unsigned n)
{
	static struct delivery d[2][3];
	struct ssdtf_event e;

	for (unsigned k = 0; k < 2; k++) {
		ends_restart(f, &f->device_terms, &f->dev);
		for (unsigned i = 0; i < 3; i++)
			ends_seal(f, &d[k][i], TOPIC, "in turn", 0, false);
	}
	memset(places, 0xff, n * sizeof(*places)); /* what was there before is no context */
	f->rec.contexts = places;
	f->rec.n_contexts = n;
	memset(f->rec.origins, 0, sizeof(f->rec.origins));
	ends_restart(f, &f->receiver_terms, &f->rec);
	ends_session_open(f, &f->rec, 0);
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned k = 0; k < 2; k++) {
			e = ends_deliver(f, &d[k][i]);
			ends_expect_opened(&e, "in turn");
		}
	}
}

/* With one place both contexts are computed each time; with two once, wherever they belong. */
TEST_F(client, contexts_are_bounded)
{
	struct ssdtf_stats *stats = &self->rec.client.stats;
	static struct ssdtf_context places[2];

	in_turn(self, places, 1);
	EXPECT_EQ(stats->exchanges, 6);
	for (unsigned round = 0; round < 6; round++) {
		in_turn(self, places, 2);
		EXPECT_EQ(stats->exchanges, 2);
	}
	EXPECT_FALSE(bytes_is_zero(bytes_of((uint8_t *)places, sizeof(places))));
	ssdtf_deinit(&self->rec.client);
	EXPECT_TRUE(bytes_is_zero(bytes_of((uint8_t *)places, sizeof(places))));
	self->rec.contexts = NULL;
	ends_start(self, &self->receiver_terms, &self->rec);
}

/* The device signs what it likes: here its body with one bit changed that is not in the additional
 * data, so that the ciphertext would still open. */
static void alter(struct fixture_client *f, struct delivery *d, size_t at)
{
	struct publish p = { .first = d->sealed_first,
			     .topic = bytes_str(TOPIC),
			     .body_parts = 1,
			     .client_id = bytes_str(DEVICE) };
	size_t n = d->sealed_n - PUBLISH_TRAILER_1_BYTES;

	d->sealed[at] ^= 1;
	p.body[0] = bytes_of(d->sealed, n);
	ASSERT_EQ(publish_sign(&p, f->device.sign, d->sealed + n), 0);
}

TEST_F(client, commit_is_compared_with_each_message)
{
	struct ssdtf_stats *stats = &self->rec.client.stats;
	static struct delivery d;
	struct ssdtf_event e;

	ends_session_open(self, &self->rec, 0);
	/* Before the context is known: it is not remembered for this message, either. */
	ends_seal(self, &d, TOPIC, "wrong", 0, false);
	alter(self, &d, COMMIT_AT);
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_CANNOT_OPEN);
	deliver_text(self, "right");
	EXPECT_EQ(stats->exchanges, 2);
	/* And after. */
	ends_seal(self, &d, TOPIC, "wrong", 0, false);
	alter(self, &d, COMMIT_AT);
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_CANNOT_OPEN);
	deliver_text(self, "right");
	EXPECT_EQ(stats->exchanges, 2);
}

/* A receiver with one place, so that whatever is compared wrongly is compared with what is there.
 */
static struct ssdtf_stats *with_one_place(struct fixture_client *f)
{
	static struct ssdtf_context place;

	f->rec.contexts = &place;
	f->rec.n_contexts = 1;
	ends_restart(f, &f->receiver_terms, &f->rec);
	ends_session_open(f, &f->rec, 0);
	return &f->rec.client.stats;
}

/* A capsule that the broker converted wrongly is no message of the context, known or not. */
TEST_F(client, another_capsule_is_another_context)
{
	struct ssdtf_stats *stats = with_one_place(self);
	static struct delivery d;
	struct ssdtf_event e;

	for (unsigned i = 0; i < 2; i++) {
		ends_seal(self, &d, TOPIC, "text", 0, false);
		memcpy(d.x, self->x.point.b + 1, P256_X_BYTES);
		e = ends_deliver(self, &d);
		ends_expect_refused(&e, SSDTF_REASON_CANNOT_OPEN);
		deliver_text(self, "right");
	}
	EXPECT_EQ(stats->exchanges, 3); /* each wrong one, and the right one once */
	EXPECT_EQ(stats->contexts_reused, 1);
}

/* -E is converted to the same x as E, but enters the keys as itself. */
TEST_F(client, another_enc_is_another_context)
{
	struct ssdtf_stats *stats = with_one_place(self);
	static struct delivery d;
	struct ssdtf_event e;

	for (unsigned i = 0; i < 2; i++) {
		ends_seal(self, &d, TOPIC, "text", 0, false);
		alter(self, &d, ENC_AT);
		e = ends_deliver(self, &d);
		ends_expect_refused(&e, SSDTF_REASON_CANNOT_OPEN);
		deliver_text(self, "right");
	}
	EXPECT_EQ(stats->exchanges, 3);
	EXPECT_EQ(stats->contexts_reused, 1);
}

TEST_F(client, contexts_end_with_their_bundle)
{
	struct ssdtf_client *c = &self->rec.client;
	struct terms t = self->receiver_terms;
	static struct end next;

	ends_session_open(self, &self->rec, 0);
	deliver_text(self, "old");
	EXPECT_FALSE(bytes_is_zero(bytes_of((uint8_t *)c->own_contexts, sizeof(c->own_contexts))));
	t.serial++;
	ends_bundle(self, &t, &next);
	ASSERT_EQ(ssdtf_load_bundle(c, bytes_of(next.bundle, next.bundle_n), self->now), 0);
	EXPECT_TRUE(bytes_is_zero(bytes_of((uint8_t *)c->own_contexts, sizeof(c->own_contexts))));
	deliver_text(self, "new");
	EXPECT_EQ(c->stats.exchanges, 2);
}

HARNESS_MAIN
