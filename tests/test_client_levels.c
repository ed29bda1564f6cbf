// SPDX-License-Identifier: MIT
/*
 * libssdtf at the end of several conversions (PROTOCOL 12), with padded plaintexts (PROTOCOL 2),
 * and with a broker that lies about who sent what (PROTOCOL 4, origin proof).
 */
#include <errno.h>
#include <jansson.h>

#include "tests/ends.h"
#include "userspace/base/text.h"

#define EXTERNAL "00112233445566778899aabbccddeeff"
#define VECTORS	 "tests/vectors/core.json"

FIXTURE_VARIANT(client)
{
	enum hpke_suite suite;
};
FIXTURE_VARIANT_ADD(client, aes){ .suite = HPKE_SUITE_AES_128_GCM };
FIXTURE_VARIANT_ADD(client, chacha){ .suite = HPKE_SUITE_CHACHA20_POLY1305 };

FIXTURE_SETUP(client)
{
	ends_setup(self, variant->suite);
}

FIXTURE_TEARDOWN(client)
{
	ends_teardown(self);
}

/* A body as the broker signs and delivers it. */
static struct ssdtf_event deliver_body(struct fixture_client *f, const char *topic,
				       struct bytes body)
{
	static uint8_t payload[ROOM];
	size_t n = ends_broker_sign(f, topic, 0x30, body, RECEIVER, payload);

	return ends_hand(f, &f->rec, topic, bytes_of(payload, n), 0x30);
}

static void receiver_with(struct fixture_client *f, uint8_t grant_flags)
{
	struct terms t = f->receiver_terms;

	t.grant.flags = grant_flags;
	ends_restart(f, &t, &f->rec);
	ends_session_open(f, &f->rec, 0);
}

/* --- levels ----------------------------------------------------------------------------------- */

/* What the scope's secret is at a hop, and rk between two of them. */
static void hop_key(const struct secret32 *from, const struct secret32 *to, struct secret32 *ret_rk)
{
	ASSERT_EQ(grant_conversion_key(from, to, ret_rk), 0);
}

/* The receiver's d under the fixture's grant: rk = a / d. */
static void receiver_secret(struct fixture_client *f, struct secret32 *ret_d)
{
	ASSERT_EQ(grant_conversion_key(&f->scope.scalar, &f->rk, ret_d), 0);
}

/* From level 0 through `levels` converters, the second of which replaces the id. */
static struct bytes through(struct fixture_client *f, const struct delivery *d, unsigned levels,
			    uint8_t *out)
{
	static const uint8_t hop_grant[GRANT_ID_BYTES] = { 9, 9 };
	struct secret32 from = f->scope.scalar, to, rk;
	struct publish_trailer t;
	uint8_t body[ROOM];
	struct bytes now;

	ASSERT_EQ(publish_split(bytes_of(d->sealed, d->sealed_n), &t), 0);
	now = t.body;
	for (unsigned level = 1; level <= levels; level++) {
		bool last = level == levels, renamed = level > 1;
		size_t n;

		if (last)
			receiver_secret(f, &to);
		else
			ASSERT_EQ(p256_scalar_random(&to), 0);
		hop_key(&from, &to, &rk);
		n = ends_raise(now, &rk, last ? ends_grant_id : hop_grant,
			       renamed ? EXTERNAL : DEVICE, bytes_of(NULL, 0), renamed, body);
		memcpy(out, body, n);
		now = bytes_of(out, n);
		from = to;
	}
	return now;
}

/* A receiver behind a distributor (level 2: passed on; level 3: converted by a broker again), and
 * behind as many as there can be. */
TEST_F(client, levels)
{
	struct ssdtf_event e;
	struct delivery d;
	uint8_t body[ROOM];

	receiver_with(self, RECORD_GRANT_IDS_REPLACED);
	for (unsigned level = 1; level <= ENVELOPE_LEVEL_MAX; level++) {
		struct bytes v;

		ends_seal(self, &d, TOPIC, "from afar", 1, false);
		v = through(self, &d, level, body);
		e = deliver_body(self, TOPIC, v);
		ends_expect_opened(&e, "from afar");
		EXPECT_EQ(e.envelope.level, level);
		EXPECT_EQ(e.id_replaced, level > 1);
		EXPECT_EQ(e.proof, SSDTF_PROOF_ABSENT);
		EXPECT_TRUE(bytes_equal(e.origin, bytes_str(level > 1 ? EXTERNAL : DEVICE)));
		e = deliver_body(self, TOPIC, v);
		EXPECT_EQ(e.kind, SSDTF_REPLAYED);
	}
	/* One more than there may be. */
	body[ENVELOPE_FIXED_BYTES - 1]++;
	e = deliver_body(self, TOPIC, bytes_of(body, d.sealed_n));
	ends_expect_refused(&e, SSDTF_REASON_MALFORMED);
}

/* Under its external id a sender's messages are told apart from the same counters of another's. */
TEST_F(client, replay_by_external_id)
{
	struct ssdtf_event e;
	struct delivery d;
	uint8_t body[ROOM], other[ROOM];
	struct bytes v;
	char *at;

	receiver_with(self, RECORD_GRANT_IDS_REPLACED);
	ends_seal(self, &d, TOPIC, "x", 1, false);
	v = through(self, &d, 2, body);
	memcpy(other, v.p, v.n);
	at = memmem(other, v.n, EXTERNAL, strlen(EXTERNAL));
	ASSERT_TRUE(at != NULL);
	at[0] = 'f';
	e = deliver_body(self, TOPIC, v);
	ends_expect_opened(&e, "x");
	e = deliver_body(self, TOPIC, bytes_of(other, v.n));
	ends_expect_opened(&e, "x");
	e = deliver_body(self, TOPIC, v);
	EXPECT_EQ(e.kind, SSDTF_REPLAYED);
}

TEST_F(client, replaced_ids_refused)
{
	struct ssdtf_event e;
	struct delivery d;
	uint8_t body[ROOM], with_proof[ROOM];
	struct bytes v;
	struct secret32 rk;
	struct publish_trailer t;

	/* Where the grant does not say so. */
	receiver_with(self, 0);
	ends_seal(self, &d, TOPIC, "x", 1, false);
	v = through(self, &d, 2, body);
	e = deliver_body(self, TOPIC, v);
	ends_expect_refused(&e, SSDTF_REASON_MALFORMED);
	/* Where it requires a proof besides: there can be none. */
	receiver_with(self, RECORD_GRANT_IDS_REPLACED | RECORD_GRANT_PROOF);
	e = deliver_body(self, TOPIC, v);
	ends_expect_refused(&e, SSDTF_REASON_BAD_SIGNATURE);
	/* A proof with a replaced id would name the sender. */
	receiver_with(self, RECORD_GRANT_IDS_REPLACED);
	ASSERT_EQ(publish_split(bytes_of(d.sealed, d.sealed_n), &t), 0);
	rk = self->rk;
	v = bytes_of(with_proof,
		     ends_raise(t.body, &rk, ends_grant_id, EXTERNAL, t.trailer, true, with_proof));
	e = deliver_body(self, TOPIC, v);
	ends_expect_refused(&e, SSDTF_REASON_MALFORMED);
	/* Another key's conversion opens nothing. */
	ends_seal(self, &d, TOPIC, "x", 1, false);
	ASSERT_EQ(publish_split(bytes_of(d.sealed, d.sealed_n), &t), 0);
	ASSERT_EQ(p256_scalar_random(&rk), 0);
	v = bytes_of(body, ends_raise(t.body, &rk, ends_grant_id, EXTERNAL, bytes_of(NULL, 0), true,
				      body));
	e = deliver_body(self, TOPIC, v);
	ends_expect_refused(&e, SSDTF_REASON_CANNOT_OPEN);
	EXPECT_TRUE(e.ask_again);
}

/* --- the vectors' receiver 2 ------------------------------------------------------------------ */

static const char *text_of(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	if (!s)
		harness_fail(__FILE__, __LINE__, true, "no text %s in " VECTORS, name);
	return s;
}

/* Returns how many bytes. */
static size_t hex_of(const json_t *o, const char *name, uint8_t *out, size_t room)
{
	struct bytes hex = bytes_str(text_of(o, name));

	ASSERT_LE(hex.n / 2, room);
	ASSERT_EQ(text_unhex(hex, out, hex.n / 2), 0);
	return hex.n / 2;
}

/* The grant that ends at receiver 2: the only one that has an s1 and a d. */
static const json_t *second_grant(const json_t *vectors)
{
	const json_t *grants = json_object_get(vectors, "grants"), *g;

	for (size_t i = 0; (g = json_array_get(grants, i)); i++)
		if (json_object_get(g, "s1") && json_object_get(g, "d"))
			return g;
	harness_fail(__FILE__, __LINE__, true, "no second hop in " VECTORS);
	return NULL;
}

TEST_F(client, vectors_of_level_2)
{
	json_error_t error;
	json_t *vectors = json_load_file(VECTORS, 0, &error), *list, *v;
	struct terms t = self->receiver_terms;
	struct secret32 b;
	const json_t *g;
	uint8_t body[ROOM], plain[ROOM];
	struct ssdtf_event e;
	size_t n;

	if (!vectors) /* the tests run at the root of the sources */
		harness_fail(__FILE__, __LINE__, true, VECTORS ": %s", error.text);
	g = second_grant(vectors);
	hex_of(g, "b", b.b, sizeof(b.b));
	hex_of(g, "B", t.grant.b.b, P256_POINT_BYTES);
	hex_of(g, "X", t.grant.x.b, P256_POINT_BYTES);
	hex_of(g, "A", t.grant.a.b, P256_POINT_BYTES);
	hex_of(g, "grant", t.grant.grant_id, GRANT_ID_BYTES);
	t.grant.key_id = (uint32_t)json_integer_value(json_object_get(g, "key_id"));
	t.grant.flags = RECORD_GRANT_IDS_REPLACED;
	t.grant.n_filters = 1;
	t.grant.filters[0] = bytes_str("#");
	self->rec.encryption = &b;
	ends_restart(self, &t, &self->rec);
	ends_session_open(self, &self->rec, 0);
	list = json_object_get(vectors, "sealed");
	ASSERT_GT(json_array_size(list), 0);
	for (size_t i = 0; (v = json_array_get(list, i)); i++) {
		/* Their counters are not those of one sender's life. */
		memset(self->rec.origins, 0, sizeof(self->rec.origins));
		n = hex_of(v, "level2_receiver2", body, sizeof(body));
		e = deliver_body(self, text_of(v, "topic"), bytes_of(body, n));
		ASSERT_EQ(e.kind, SSDTF_MESSAGE);
		EXPECT_TRUE(e.id_replaced);
		n = hex_of(v, "plaintext", plain, sizeof(plain));
		ASSERT_EQ(e.plain.n, n);
		ASSERT_BYTES(e.plain.p, plain, n);
	}
	json_decref(vectors);
	self->rec.encryption = NULL;
	ends_restart(self, &self->receiver_terms, &self->rec); /* b goes out of scope */
}

/* --- padding ---------------------------------------------------------------------------------- */

TEST(padded_sizes)
{
	static const size_t cases[][2] = {
		{ 0, 0 },	    { 1, 32 },	       { 31, 32 },	   { 32, 64 },
		{ 63, 64 },	    { 64, 128 },       { 1000, 1024 },	   { 1024, 2048 },
		{ 65535, 65536 },   { 65536, 131072 }, { 131071, 131072 }, { 131072, 196608 },
		{ 200000, 262144 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		EXPECT_EQ(ssdtf_padded_bytes(cases[i][0]), cases[i][1]);
		ASSERT_LE(cases[i][1], SSDTF_PADDED_BYTES_MAX(cases[i][0]));
	}
	EXPECT_EQ(ssdtf_padded_bytes(SIZE_MAX), SIZE_MAX);
	EXPECT_EQ(ssdtf_padded_bytes(SIZE_MAX - 65535), SIZE_MAX);
}

TEST(pad_and_unpad)
{
	uint8_t plain[600], out[1024];
	struct bytes v;

	for (size_t n = 0; n <= sizeof(plain); n += 1 + n / 7) {
		/* Ends in what padding is made of, too. */
		memset(plain, n % 2 ? 0x80 : 0, sizeof(plain));
		ASSERT_EQ(ssdtf_pad(bytes_of(plain, n), out, sizeof(out)), 0);
		v = bytes_of(out, ssdtf_padded_bytes(n));
		ASSERT_EQ(ssdtf_unpad(&v), 0);
		ASSERT_EQ(v.n, n);
		ASSERT_BYTES(v.p, plain, n);
		if (n)
			ASSERT_EQ(ssdtf_pad(bytes_of(plain, n), out, ssdtf_padded_bytes(n) - 1),
				  -ENOBUFS);
	}
	/* In place. */
	memcpy(out, "abc", 3);
	ASSERT_EQ(ssdtf_pad(bytes_of(out, 3), out, 32), 0);
	ASSERT_BYTES(out, "abc\x80\0\0", 6);
	memset(out, 0, sizeof(out));
	v = bytes_of(out, 32);
	EXPECT_EQ(ssdtf_unpad(&v), -EBADMSG);
	out[7] = 0x81;
	EXPECT_EQ(ssdtf_unpad(&v), -EBADMSG);
	EXPECT_EQ(v.n, 32);
	out[31] = 0x80;
	EXPECT_EQ(ssdtf_unpad(&v), 0);
	EXPECT_EQ(v.n, 31);
}

static void device_padded(struct fixture_client *f)
{
	f->device_terms.scope.flags = RECORD_SCOPE_PADDED;
	ends_restart(f, &f->device_terms, &f->dev);
}

/* What travels has one size for all of a class, and the receiver gets what was sent. */
TEST_F(client, padded_messages)
{
	static const char *const texts[] = { "", "a", "0123456789012345678901234567890",
					     "01234567890123456789012345678901" };
	static const size_t sizes[] = { 0, 32, 32, 64 };
	struct ssdtf_event e;
	struct delivery d;

	device_padded(self);
	receiver_with(self, RECORD_GRANT_PROOF | RECORD_GRANT_PADDED);
	for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
		ends_seal(self, &d, TOPIC, texts[i], 1, false);
		EXPECT_EQ(d.sealed_n, SSDTF_SEALED_BYTES(sizes[i]));
		e = ends_deliver(self, &d);
		ends_expect_opened(&e, texts[i]);
		EXPECT_EQ(e.proof, SSDTF_PROOF_VERIFIED);
	}
	/* A grant without the flag hands over what was sealed; one with it takes nothing else. */
	receiver_with(self, RECORD_GRANT_PROOF);
	ends_seal(self, &d, TOPIC, "a", 1, false);
	e = ends_deliver(self, &d);
	ASSERT_EQ(e.kind, SSDTF_MESSAGE);
	EXPECT_EQ(e.plain.n, 32);
	self->device_terms.scope.flags = 0;
	ends_restart(self, &self->device_terms, &self->dev);
	receiver_with(self, RECORD_GRANT_PROOF | RECORD_GRANT_PADDED);
	ends_seal(self, &d, TOPIC, "not padded", 1, false);
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_MALFORMED);
	EXPECT_FALSE(e.ask_again);
	ends_seal(self, &d, TOPIC, "", 1, false);
	e = ends_deliver(self, &d);
	ends_expect_opened(&e, "");
}

TEST_F(client, padded_room)
{
	struct ssdtf_client *c = &self->dev.client;
	uint8_t out[SSDTF_SEALED_BYTES(SSDTF_PADDED_BYTES_MAX(40))];
	struct bytes plain = bytes_str("0123456789012345678901234567890123456789");
	struct ssdtf_rekey r;
	struct ssdtf_sealed s;
	uint64_t before;

	device_padded(self);
	ASSERT_EQ(ssdtf_rekey(c, bytes_str(TOPIC), self->now, &r), 0);
	EXPECT_TRUE(r.padded);
	EXPECT_EQ(r.key_id, KEY_ID);
	ASSERT_EQ(ssdtf_seal(c, bytes_str(TOPIC), plain, 0, false, self->now, out,
			     SSDTF_SEALED_BYTES(64), &s),
		  0);
	before = s.counter;
	EXPECT_EQ(ssdtf_seal(c, bytes_str(TOPIC), plain, 0, false, self->now, out,
			     SSDTF_SEALED_BYTES(64) - 1, &s),
		  -ENOBUFS);
	EXPECT_EQ(ssdtf_seal(c, bytes_str(TOPIC), bytes_of(plain.p, SIZE_MAX - 70000), 0, false,
			     self->now, out, sizeof(out), &s),
		  -ENOBUFS);
	ASSERT_EQ(ssdtf_seal(c, bytes_str(TOPIC), plain, 0, false, self->now, out, sizeof(out), &s),
		  0);
	EXPECT_EQ(s.counter, before + 1); /* what had no room used up none */
}

/* A Will that is padded beyond what CONNECT can carry is refused, and a batch is padded, too. */
TEST_F(client, padded_wills_and_batches)
{
	static uint8_t large[40000], out[SSDTF_SEALED_BYTES(SSDTF_PADDED_BYTES_MAX(40000))];
	uint8_t sealed[3][SSDTF_SEALED_BATCH_BYTES(64, 3)], nodes[SSDTF_BATCH_NODES(3)][HASH_BYTES];
	struct ssdtf_outgoing list[3];
	struct ssdtf_sealed s;
	struct ssdtf_event e;
	struct delivery d;

	device_padded(self);
	EXPECT_EQ(ssdtf_seal_will(&self->dev.client, bytes_str(TOPIC), bytes_of(large, 40000), 1,
				  false, self->now, out, sizeof(out), &s),
		  -EINVAL);
	EXPECT_EQ(ssdtf_seal_will(&self->dev.client, bytes_str(TOPIC), bytes_of(large, 32000), 1,
				  false, self->now, out, sizeof(out), &s),
		  0);
	receiver_with(self, RECORD_GRANT_PROOF | RECORD_GRANT_PADDED);
	for (unsigned i = 0; i < 3; i++)
		list[i] = (struct ssdtf_outgoing){ .topic = bytes_str(TOPIC),
						   .plain = bytes_of("0123456789", 8 + i),
						   .qos = 1,
						   .out = sealed[i],
						   .room = sizeof(sealed[i]) };
	ASSERT_EQ(ssdtf_seal_batch(&self->dev.client, list, 3, self->now, nodes, ARRAY_SIZE(nodes)),
		  0);
	for (unsigned i = 0; i < 3; i++) {
		ends_take(&d, list[i].sealed.payload, TOPIC, 1, false);
		e = ends_deliver(self, &d);
		ASSERT_EQ(e.kind, SSDTF_MESSAGE);
		ASSERT_EQ(e.plain.n, 8 + i);
		ASSERT_BYTES(e.plain.p, "0123456789", 8 + i);
	}
	list[1].room = SSDTF_SEALED_BATCH_BYTES(31, 3);
	EXPECT_EQ(ssdtf_seal_batch(&self->dev.client, list, 3, self->now, nodes, ARRAY_SIZE(nodes)),
		  -ENOBUFS);
	EXPECT_EQ(list[1].error, -ENOBUFS);
	EXPECT_EQ(list[0].error, 0);
}

/* --- a broker that lies ----------------------------------------------------------------------- */

/* What a broker makes up in the device's name: it knows the scope's key, and has a conversion key.
 */
static struct envelope forge(struct fixture_client *f, uint64_t counter, uint8_t *out)
{
	struct envelope_sender s;
	struct envelope e;

	ASSERT_EQ(envelope_sender_init(&s, (enum hpke_suite)f->device_terms.scope.suite, KEY_ID,
				       &f->scope.point),
		  0);
	ASSERT_EQ(envelope_seal(&s, counter, NOW_MS, bytes_str(DEVICE), bytes_str(TOPIC),
				bytes_str("open the gate"), out),
		  0);
	envelope_sender_deinit(&s);
	ASSERT_EQ(envelope_parse(bytes_of(out, ENVELOPE_SEALED_BYTES(13)), &e), 0);
	return e;
}

static struct ssdtf_event deliver_forged(struct fixture_client *f, const struct envelope *e,
					 struct bytes proof)
{
	uint8_t body[ROOM];
	size_t n = ends_raise(e->whole, &f->rk, ends_grant_id, DEVICE, proof, false, body);

	return deliver_body(f, TOPIC, bytes_of(body, n));
}

/* The proof for it that has this key's signature. */
static struct bytes proof_by(const struct envelope *e, const struct keys *k, bool batch,
			     uint8_t *out)
{
	struct publish p = { .first = 0x32,
			     .topic = bytes_str(TOPIC),
			     .body = { e->whole },
			     .body_parts = 1,
			     .client_id = bytes_str(DEVICE) };
	uint8_t trailer[PUBLISH_TRAILER_BYTES_MAX], digest[HASH_BYTES], sig[P256_SIG_BYTES];
	uint8_t nodes[MERKLE_NODES_MAX(2)][HASH_BYTES];
	struct bytes_writer w = bytes_writer_of(trailer, sizeof(trailer));
	struct bytes_writer pw = bytes_writer_of(out, ROOM);
	struct merkle tree;

	if (batch) {
		publish_leaf(&p, nodes[0]);
		hash_random(nodes[1], HASH_BYTES);
		merkle_build(&tree, nodes, 2);
		publish_root_digest(merkle_root(&tree), digest);
		ASSERT_EQ(p256_sign_digest(k->sign, digest, sig), 0);
		publish_write_trailer_2(sig, &tree, 0, &w);
	} else {
		publish_digest(&p, digest);
		ASSERT_EQ(p256_sign_digest(k->sign, digest, sig), 0);
		publish_write_trailer_1(sig, &w);
	}
	publish_write_proof(p.first, bytes_of(NULL, 0), bytes_of(trailer, w.used), &pw);
	ASSERT_FALSE(pw.bad);
	return bytes_of(out, pw.used);
}

/*
 * The broker signs the delivery, and the sender's part, too, with any key that it can have. Where
 * the grant requires the proof none of it is taken; where it does not, the same is a message: only
 * the proof tells them apart.
 */
TEST_F(client, forged_by_the_broker)
{
	struct keys *const keys[] = { &self->broker, &self->receiver, &self->manager };
	uint8_t made[ROOM], proof[ROOM], theirs[ROOM];
	struct delivery d;
	struct envelope e;
	struct ssdtf_event event;
	uint64_t counter = 1000;

	receiver_with(self, RECORD_GRANT_PROOF);
	ends_seal(self, &d, TOPIC, "a true one", 1, false);
	event = ends_deliver(self, &d); /* leaves its proof in proof_bytes */
	ends_expect_opened(&event, "a true one");
	for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
		for (unsigned batch = 0; batch < 2; batch++) {
			e = forge(self, counter++, made);
			event = deliver_forged(self, &e, proof_by(&e, keys[i], batch, proof));
			ends_expect_refused(&event, SSDTF_REASON_BAD_SIGNATURE);
		}
	}
	e = forge(self, counter++, made);
	event = deliver_forged(self, &e, bytes_of(NULL, 0));
	ends_expect_refused(&event, SSDTF_REASON_BAD_SIGNATURE);
	/* The device's own signature, of another message. */
	memcpy(theirs, d.proof_bytes, 3 + PUBLISH_TRAILER_1_BYTES);
	event = deliver_forged(self, &e, bytes_of(theirs, 3 + PUBLISH_TRAILER_1_BYTES));
	ends_expect_refused(&event, SSDTF_REASON_BAD_SIGNATURE);
	/* With the device's key it would hold: this is what the others lack. */
	for (unsigned batch = 0; batch < 2; batch++) {
		e = forge(self, counter++, made);
		event = deliver_forged(self, &e, proof_by(&e, &self->device, batch, proof));
		ends_expect_opened(&event, "open the gate");
		EXPECT_EQ(event.proof, SSDTF_PROOF_VERIFIED);
	}
	receiver_with(self, 0);
	e = forge(self, counter++, made);
	event = deliver_forged(self, &e, bytes_of(NULL, 0));
	ends_expect_opened(&event, "open the gate");
	EXPECT_EQ(event.proof, SSDTF_PROOF_ABSENT);
}

/* The same with an origin's previous key: until its end it proves, alone and in a batch; then it
 * does not, not even what was verified in time. */
TEST_F(client, forged_with_a_previous_key)
{
	struct terms t = self->receiver_terms;
	uint8_t made[ROOM], proof[ROOM];
	struct ssdtf_event event;
	struct envelope e;
	struct bytes p;
	struct keys fresh;
	uint64_t counter = 1000;

	ends_keys_new(&fresh);
	t.origin.signing = fresh.point;
	t.origin.has_previous = true;
	t.origin.previous = self->device.point;
	t.origin.previous_until_ms = NOW_MS + 1000;
	ends_restart(self, &t, &self->rec);
	ends_session_open(self, &self->rec, 0);
	for (unsigned batch = 0; batch < 2; batch++) {
		e = forge(self, counter++, made);
		event = deliver_forged(self, &e, proof_by(&e, &self->device, batch, proof));
		ends_expect_opened(&event, "open the gate");
		e = forge(self, counter++, made);
		event = deliver_forged(self, &e, proof_by(&e, &fresh, batch, proof));
		ends_expect_opened(&event, "open the gate");
		e = forge(self, counter++, made);
		event = deliver_forged(self, &e, proof_by(&e, &self->broker, batch, proof));
		ends_expect_refused(&event, SSDTF_REASON_BAD_SIGNATURE);
	}
	/* A root that was verified by the previous key is known as long as the key holds. */
	e = forge(self, counter++, made);
	p = proof_by(&e, &self->device, true, proof);
	event = deliver_forged(self, &e, p);
	ends_expect_opened(&event, "open the gate");
	memset(self->rec.origins, 0, sizeof(self->rec.origins)); /* to take it once more */
	self->now.unix_ms += 999;
	event = deliver_forged(self, &e, p);
	ends_expect_opened(&event, "open the gate");
	memset(self->rec.origins, 0, sizeof(self->rec.origins));
	self->now.unix_ms++;
	event = deliver_forged(self, &e, p);
	ends_expect_refused(&event, SSDTF_REASON_BAD_SIGNATURE);
	p256_private_free(fresh.sign);
}

HARNESS_MAIN
