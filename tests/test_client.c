// SPDX-License-Identifier: MIT
/* libssdtf: bundles, authentication, sealing and opening, counters, notices. Batches and what is
 * remembered from message to message are test_client_batch.c's. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/admission_check.h"
#include "tests/ends.h"
#include "userspace/base/text.h"
#include "userspace/client/lib/ssdtf.h"

#define TOPIC_OTHER "plant/8/temp"
#define EXTERNAL    "x-4711"

FIXTURE_VARIANT(client)
{
	uint8_t suite;
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

/* --- bundles ---------------------------------------------------------------------------------- */

/* Whatever is flipped or cut, it is no bundle any more. */
TEST_F(client, bundle_damaged)
{
	struct end *e = &self->dev;

	ssdtf_deinit(&e->client);
	for (size_t i = 0; i < e->bundle_n; i++) {
		e->bundle[i] ^= 1u << i % 8;
		EXPECT_NE(ends_init(self, &self->device_terms, e, 0), 0);
		e->bundle[i] ^= 1u << i % 8;
	}
	for (size_t n = e->bundle_n; n-- > 0;) {
		size_t whole = e->bundle_n;

		e->bundle_n = n;
		EXPECT_EQ(ends_init(self, &self->device_terms, e, 0), -EBADMSG);
		e->bundle_n = whole;
	}
	ASSERT_EQ(ends_init(self, &self->device_terms, e, 0), 0);
}

TEST_F(client, bundle_of_another_manager_older_expired_or_for_others)
{
	struct end *e = &self->dev;
	struct terms t = self->device_terms;
	struct keys manager = self->manager;

	ssdtf_deinit(&e->client);
	EXPECT_EQ(ends_init(self, &t, e, 8), -ESTALE);
	t.id = "sensor-8"; /* who is configured to be another than the bundle is for */
	EXPECT_EQ(ends_init(self, &t, e, 0), -EPERM);
	t = self->device_terms;
	t.signing = &self->receiver;
	EXPECT_EQ(ends_init(self, &t, e, 0), -EPERM);
	self->manager = self->broker;
	EXPECT_EQ(ends_init(self, &self->device_terms, e, 0), -EBADMSG);
	self->manager = manager;
	t = self->device_terms;
	t.not_after_ms = NOW_MS;
	ends_bundle(self, &t, e);
	EXPECT_EQ(ends_init(self, &t, e, 0), -ETIME);
	self->now.unix_ms = 0; /* no clock: cannot tell */
	EXPECT_EQ(ends_init(self, &t, e, 0), 0);
	ssdtf_deinit(&e->client);
	t.not_after_ms = 0;
	t.n_scopes = SSDTF_SCOPES_MAX + 1;
	ends_bundle(self, &t, e);
	EXPECT_EQ(ends_init(self, &t, e, 0), -E2BIG);
	t.n_scopes = SSDTF_SCOPES_MAX;
	ends_bundle(self, &t, e);
	EXPECT_EQ(ends_init(self, &t, e, 7), 0);
}

TEST_F(client, grants_for_another_reader)
{
	struct terms t = self->receiver_terms;
	struct end *e = &self->rec;

	ssdtf_deinit(&e->client);
	t.grant.b = self->device.point;
	ends_bundle(self, &t, e);
	EXPECT_EQ(ends_init(self, &t, e, 0), -EPERM);
	t = self->receiver_terms;
	t.grant.receiver = bytes_str("desk:2");
	ends_bundle(self, &t, e);
	EXPECT_EQ(ends_init(self, &t, e, 0), -EPERM);
	ends_start(self, &self->receiver_terms, e);
}

TEST_F(client, newer_bundle_while_running)
{
	struct terms t = self->receiver_terms;
	struct end next = { .bundle_n = 0 };
	struct delivery d;
	struct ssdtf_event e;

	ends_session_open(self, &self->rec, 0);
	ends_seal(self, &d, TOPIC, "one", 0, false);
	e = ends_deliver(self, &d);
	ends_expect_opened(&e, "one");
	t.serial = 6;
	ends_bundle(self, &t, &next);
	EXPECT_EQ(ssdtf_load_bundle(&self->rec.client, bytes_of(next.bundle, next.bundle_n),
				    self->now),
		  -ESTALE);
	EXPECT_EQ(ssdtf_serial(&self->rec.client), 7);
	t.serial = 8;
	t.n_grants = 0;
	ends_bundle(self, &t, &next);
	ASSERT_EQ(ssdtf_load_bundle(&self->rec.client, bytes_of(next.bundle, next.bundle_n),
				    self->now),
		  0);
	EXPECT_EQ(ssdtf_serial(&self->rec.client), 8);
	EXPECT_TRUE(ssdtf_is_open(&self->rec.client));
	ends_seal(self, &d, TOPIC, "two", 0, false);
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_KEY_ID);
	/* The views of the client are into next.bundle, which goes out of scope. */
	ends_restart(self, &self->receiver_terms, &self->rec);
}

/* --- PROTOCOL 5 ------------------------------------------------------------------------------- */

/* A client of this id is challenged; its response is then in sent[0]. */
static void answer_challenge(struct fixture_client *self, struct end *e, const char *id)
{
	uint8_t body[ROOM], payload[ROOM];
	struct ends_challenge ch;
	struct ssdtf_event event;
	size_t n;

	e->connect = (struct ssdtf_connect){ .clean_session = true };
	ends_connect_begin(self, e);
	e->n_sent = 0;
	ch = ends_challenge_right(e);
	n = ends_broker_sign(self, TOPIC_CHA, 0x30, ends_challenge_body(&ch, body), id, payload);
	event = ends_hand(self, e, TOPIC_CHA, bytes_of(payload, n), 0x30);
	ASSERT_EQ(event.kind, SSDTF_NOTHING);
	ASSERT_EQ(e->n_sent, 1);
	ASSERT_STREQ(e->sent[0].topic, "$SSDTF/auth/response");
}

TEST_F(client, handshake)
{
	uint8_t want[32 + 32 + HASH_BYTES], digest[HASH_BYTES];
	struct bytes_writer w = bytes_writer_of(want, sizeof(want));
	struct end *e = &self->dev;
	struct ends_challenge ch;
	struct publish_trailer t;
	struct publish p = { .first = 0x30, .body_parts = 1, .client_id = bytes_str(DEVICE) };
	struct ssdtf_event event;

	e->connect = (struct ssdtf_connect){ .clean_session = true };
	ends_connect_begin(self, e);
	EXPECT_EQ(strlen(e->connect.user_name), 43);
	EXPECT_EQ(e->connect.flags, 0xc2);
	EXPECT_EQ(admission_check(self->dev.client.bundle.k_adm, bytes_str(DEVICE),
				  bytes_str(e->connect.user_name),
				  bytes_of(e->connect.password, ADMISSION_TOKEN_BYTES),
				  admission_slot(NOW_MS), false),
		  0);
	ch = ends_challenge_right(e);
	event = ends_hand_challenge(self, e, &ch);
	ASSERT_EQ(event.kind, SSDTF_NOTHING);
	EXPECT_FALSE(ssdtf_is_open(&e->client));

	ASSERT_EQ(e->n_sent, 1);
	ASSERT_STREQ(e->sent[0].topic, "$SSDTF/auth/response");
	EXPECT_EQ(e->sent[0].qos, 0);
	EXPECT_FALSE(e->sent[0].retain);
	ASSERT_EQ(publish_split(bytes_of(e->sent[0].payload, e->sent[0].n), &t), 0);
	bytes_write(&w, bytes_of(e->r_b, 32));
	bytes_write(&w, bytes_of(ch.r_c, 32));
	hash_one(bytes_of(self->broker.point.b, P256_POINT_BYTES), digest);
	bytes_write(&w, bytes_of(digest, HASH_BYTES));
	EXPECT_TRUE(bytes_equal(t.body, bytes_of(want, w.used)));
	EXPECT_EQ(memcmp(ssdtf_broker_hash(&e->client), digest, HASH_BYTES), 0);
	p.topic = bytes_str(e->sent[0].topic);
	p.body[0] = t.body;
	EXPECT_EQ(publish_verify(&p, &t, self->device_public), 0);

	event = ends_hand_result(self, e, 0);
	ASSERT_EQ(event.kind, SSDTF_AUTHENTICATED);
	EXPECT_TRUE(ssdtf_is_open(&e->client));
	EXPECT_EQ(e->disconnects, 0);
	/* A new CONNECT has a new nonce, and nothing of the old session is open. */
	e->connect = (struct ssdtf_connect){ .has_will = true, .will_qos = 1, .will_retain = true };
	ends_connect_begin(self, e);
	EXPECT_EQ(e->connect.flags, 0xec);
	EXPECT_FALSE(ssdtf_is_open(&e->client));
	EXPECT_NE(memcmp(e->client.session.r_c, ch.r_c, 32), 0);
}

/* PROTOCOL 16: the id is the key, and the response ends in a proof. */
TEST_F(client, handshake_of_zk)
{
	char id[RECORD_ZK_ID_CHARS + 1];
	struct publish p = { .first = 0x30,
			     .body_parts = 1,
			     .topic = bytes_str("$SSDTF/auth/response") };
	struct terms t = self->device_terms;
	struct end *e = &self->dev;
	struct publish_trailer first, second;
	uint8_t payload[ROOM];
	size_t n;

	t.zk = true;
	ssdtf_deinit(&e->client);
	ends_bundle(self, &t, e);
	EXPECT_EQ(ends_init(self, &t, e, 0), -EPERM); /* "sensor-7" is not its key */
	record_zk_id(&self->device.point, id);
	t.id = id;
	ends_bundle(self, &t, e);
	ASSERT_EQ(ends_init(self, &t, e, 0), 0);
	p.client_id = bytes_str(id);

	answer_challenge(self, e, id);
	ASSERT_EQ(publish_split(bytes_of(e->sent[0].payload, e->sent[0].n), &first), -EBADMSG);
	ASSERT_EQ(publish_split_zk(bytes_of(e->sent[0].payload, e->sent[0].n), &first), 0);
	EXPECT_EQ(first.body.n, 96);
	p.body[0] = first.body;
	EXPECT_EQ(publish_verify_zk(&p, &first, &self->device.point), 0);
	EXPECT_EQ(publish_verify_zk(&p, &first, &self->receiver.point), -EBADMSG);

	/* Another session, another proof; the one does not stand for the other. */
	n = e->sent[0].n;
	memcpy(payload, e->sent[0].payload, n);
	answer_challenge(self, e, id);
	ASSERT_EQ(publish_split_zk(bytes_of(payload, n), &first), 0);
	ASSERT_EQ(publish_split_zk(bytes_of(e->sent[0].payload, e->sent[0].n), &second), 0);
	EXPECT_NE(memcmp(first.sig.p, second.sig.p, P256_COMPRESSED_BYTES), 0);
	p.body[0] = second.body;
	EXPECT_EQ(publish_verify_zk(&p, &second, &self->device.point), 0);
	EXPECT_EQ(publish_verify_zk(&p, &first, &self->device.point), -EBADMSG);
	ends_restart(self, &self->device_terms, e);
}

TEST_F(client, no_clock_has_slot_0)
{
	struct end *e = &self->dev;

	self->now.unix_ms = 0;
	ends_connect_begin(self, e);
	EXPECT_TRUE(bytes_is_zero(bytes_of(e->connect.password + 1, 4)));
	EXPECT_EQ(admission_check(e->client.bundle.k_adm, bytes_str(DEVICE),
				  bytes_str(e->connect.user_name),
				  bytes_of(e->connect.password, ADMISSION_TOKEN_BYTES),
				  admission_slot(NOW_MS), true),
		  0);
}

static void expect_auth_failed(struct fixture_client *f, struct end *e, struct ssdtf_event event)
{
	EXPECT_EQ(event.kind, SSDTF_AUTH_FAILED);
	EXPECT_TRUE(event.why != NULL);
	EXPECT_EQ(e->disconnects, 1);
	EXPECT_EQ(e->n_sent, 0);
	EXPECT_FALSE(ssdtf_is_open(&e->client));
	/* And it stays so: what was right a moment ago comes too late. */
	event = ends_hand_result(f, e, 0);
	EXPECT_EQ(event.kind, SSDTF_IGNORED);
	EXPECT_FALSE(ssdtf_is_open(&e->client));
}

/* A broker that signs what it should not: each field for itself. */
TEST_F(client, challenge_fields_altered)
{
	static const uint8_t binding[32] = { 9 };
	struct end *e = &self->dev;

	for (unsigned i = 0; i < 7; i++) {
		struct ends_challenge ch;

		e->connect = (struct ssdtf_connect){ .clean_session = true };
		if (i >= 5)
			e->connect.binding = bytes_of(binding, sizeof(binding));
		ends_connect_begin(self, e);
		ch = ends_challenge_right(e);
		if (i == 0)
			ch.r_c[31] ^= 1;
		else if (i == 1)
			ch.level = 5;
		else if (i == 2)
			ch.flags ^= 2;
		else if (i == 3)
			ch.binding = bytes_of(binding, sizeof(binding));
		else if (i == 4)
			ch.cut = 1;
		else if (i == 5)
			ch.binding = bytes_of(NULL, 0);
		else
			ch.binding = bytes_of(binding, sizeof(binding) - 1);
		expect_auth_failed(self, e, ends_hand_challenge(self, e, &ch));
	}
}

TEST_F(client, channel_binding)
{
	static const uint8_t binding[32] = { 9 };
	struct end *e = &self->dev;
	struct publish_trailer t;
	struct ends_challenge ch;

	e->connect.binding = bytes_of(binding, sizeof(binding));
	ends_connect_begin(self, e);
	ch = ends_challenge_right(e);
	ASSERT_EQ(ends_hand_challenge(self, e, &ch).kind, SSDTF_NOTHING);
	ASSERT_EQ(publish_split(bytes_of(e->sent[0].payload, e->sent[0].n), &t), 0);
	ASSERT_EQ(t.body.n, 32 + 32 + HASH_BYTES + sizeof(binding));
	EXPECT_EQ(memcmp(t.body.p + 96, binding, sizeof(binding)), 0);
}

/* One bit anywhere in the challenge's payload, its trailer included. */
TEST_F(client, challenge_bit_flips)
{
	struct end *e = &self->dev;
	size_t n = 32 + 32 + 2 + PUBLISH_TRAILER_1_BYTES;

	for (size_t i = 0; i < n; i++) {
		uint8_t body[ROOM], payload[ROOM];
		struct ends_challenge ch;

		ends_connect_begin(self, e);
		ch = ends_challenge_right(e);
		ASSERT_EQ(ends_broker_sign(self, TOPIC_CHA, 0x30, ends_challenge_body(&ch, body),
					   DEVICE, payload),
			  n);
		payload[i] ^= 1u << i % 8;
		expect_auth_failed(self, e,
				   ends_hand(self, e, TOPIC_CHA, bytes_of(payload, n), 0x30));
	}
}

TEST_F(client, challenge_for_others_or_by_others)
{
	uint8_t body[ROOM], payload[ROOM];
	struct end *e = &self->dev;
	struct ends_challenge ch;
	size_t n;

	ends_connect_begin(self, e);
	ch = ends_challenge_right(e);
	n = ends_broker_sign(self, TOPIC_CHA, 0x30, ends_challenge_body(&ch, body), "sensor-8",
			     payload);
	expect_auth_failed(self, e, ends_hand(self, e, TOPIC_CHA, bytes_of(payload, n), 0x30));

	/* Signed for QoS 0, received as QoS 1 or retained. */
	ends_connect_begin(self, e);
	ch = ends_challenge_right(e);
	n = ends_broker_sign(self, TOPIC_CHA, 0x30, ends_challenge_body(&ch, body), DEVICE,
			     payload);
	expect_auth_failed(self, e, ends_hand(self, e, TOPIC_CHA, bytes_of(payload, n), 0x32));
	ends_connect_begin(self, e);
	ch = ends_challenge_right(e);
	n = ends_broker_sign(self, TOPIC_CHA, 0x30, ends_challenge_body(&ch, body), DEVICE,
			     payload);
	expect_auth_failed(self, e, ends_hand(self, e, TOPIC_CHA, bytes_of(payload, n), 0x31));

	/* Another key than the one that the manager names. */
	{
		struct keys broker = self->broker;

		self->broker = self->receiver;
		ends_connect_begin(self, e);
		ch = ends_challenge_right(e);
		expect_auth_failed(self, e, ends_hand_challenge(self, e, &ch));
		self->broker = broker;
	}
	/* Its own signature reflected: a response is no challenge. */
	ends_connect_begin(self, e);
	ch = ends_challenge_right(e);
	ASSERT_EQ(ends_hand_challenge(self, e, &ch).kind, SSDTF_NOTHING);
	memcpy(payload, e->sent[0].payload, e->sent[0].n);
	n = e->sent[0].n;
	ends_connect_begin(self, e);
	expect_auth_failed(self, e, ends_hand(self, e, TOPIC_CHA, bytes_of(payload, n), 0x30));
}

TEST_F(client, challenge_of_an_earlier_session)
{
	uint8_t body[ROOM], payload[ROOM];
	struct end *e = &self->dev;
	struct ends_challenge ch;
	size_t n;

	ends_connect_begin(self, e);
	ch = ends_challenge_right(e);
	n = ends_broker_sign(self, TOPIC_CHA, 0x30, ends_challenge_body(&ch, body), DEVICE,
			     payload);
	ASSERT_EQ(ends_hand(self, e, TOPIC_CHA, bytes_of(payload, n), 0x30).kind, SSDTF_NOTHING);
	ssdtf_on_disconnect(&e->client);
	ends_connect_begin(self, e);
	expect_auth_failed(self, e, ends_hand(self, e, TOPIC_CHA, bytes_of(payload, n), 0x30));
	/* A second challenge in one session is out of order, right or not. */
	ends_connect_begin(self, e);
	ch = ends_challenge_right(e);
	ASSERT_EQ(ends_hand_challenge(self, e, &ch).kind, SSDTF_NOTHING);
	e->n_sent = 0;
	expect_auth_failed(self, e, ends_hand_challenge(self, e, &ch));
}

static void until_result(struct fixture_client *f, struct end *e)
{
	struct ends_challenge ch;

	ends_connect_begin(f, e);
	ch = ends_challenge_right(e);
	ASSERT_EQ(ends_hand_challenge(f, e, &ch).kind, SSDTF_NOTHING);
	e->n_sent = 0;
}

TEST_F(client, result_altered)
{
	size_t n = 41 + PUBLISH_TRAILER_1_BYTES;
	struct end *e = &self->dev;
	uint8_t body[41], payload[ROOM];

	for (size_t i = 0; i < n; i++) {
		until_result(self, e);
		ASSERT_EQ(ends_broker_sign(self, TOPIC_RES, 0x30, ends_result_body(e, 0, 5, body),
					   DEVICE, payload),
			  n);
		payload[i] ^= 1u << i % 8;
		expect_auth_failed(self, e,
				   ends_hand(self, e, TOPIC_RES, bytes_of(payload, n), 0x30));
	}
	until_result(self, e);
	expect_auth_failed(self, e,
			   ends_hand_signed(self, e, TOPIC_RES, ends_result_body(e, 1, 5, body)));
	until_result(self, e);
	ends_result_body(e, 0, 5, body);
	expect_auth_failed(self, e, ends_hand_signed(self, e, TOPIC_RES, bytes_of(body, 40)));
	until_result(self, e);
	ends_result_body(e, 0, 5, body);
	body[1] ^= 1; /* another R_b, signed */
	expect_auth_failed(self, e, ends_hand_signed(self, e, TOPIC_RES, bytes_of(body, 41)));
}

/* The result of an earlier session does not open this one, and a replay of this one's own, or of
 * its challenge, changes nothing. */
TEST_F(client, result_replayed)
{
	struct end *e = &self->dev;
	uint8_t body[41], payload[ROOM];
	struct ends_challenge ch;
	size_t n;

	until_result(self, e);
	n = ends_broker_sign(self, TOPIC_RES, 0x30, ends_result_body(e, 0, 5, body), DEVICE,
			     payload);
	ASSERT_EQ(ends_hand(self, e, TOPIC_RES, bytes_of(payload, n), 0x30).kind,
		  SSDTF_AUTHENTICATED);
	EXPECT_EQ(ends_hand(self, e, TOPIC_RES, bytes_of(payload, n), 0x30).kind, SSDTF_IGNORED);
	ch = ends_challenge_right(e);
	EXPECT_EQ(ends_hand_challenge(self, e, &ch).kind, SSDTF_IGNORED);
	EXPECT_TRUE(ssdtf_is_open(&e->client));
	EXPECT_EQ(e->disconnects, 0);
	EXPECT_EQ(e->n_sent, 0);

	until_result(self, e);
	expect_auth_failed(self, e, ends_hand(self, e, TOPIC_RES, bytes_of(payload, n), 0x30));
	/* The result before the challenge. */
	ends_connect_begin(self, e);
	expect_auth_failed(self, e, ends_hand_result(self, e, 0));
}

TEST_F(client, nothing_is_taken_before_authentication)
{
	struct delivery d;

	ends_seal(self, &d, TOPIC, "early", 0, false);
	until_result(self, &self->rec);
	EXPECT_EQ(ends_deliver(self, &d).kind, SSDTF_IGNORED);
	EXPECT_EQ(self->rec.disconnects, 0);
	ASSERT_EQ(ends_hand_result(self, &self->rec, 0).kind, SSDTF_AUTHENTICATED);
	EXPECT_EQ(ends_deliver(self, &d).kind, SSDTF_MESSAGE);
	ssdtf_on_disconnect(&self->rec.client);
	EXPECT_EQ(ends_deliver(self, &d).kind, SSDTF_IGNORED);
}

/* --- PROTOCOL 2 and 3: seal, convert, open ---------------------------------------------------- */

TEST_F(client, seal_convert_open)
{
	struct delivery d;
	struct ssdtf_event e;

	ends_session_open(self, &self->rec, 0);
	for (unsigned i = 0; i < 3; i++) {
		char text[64];

		snprintf(text, sizeof(text), "%u.%u degrees", 20 + i, i);
		ends_seal(self, &d, TOPIC, i == 2 ? "" : text, (uint8_t)i, i == 1);
		e = ends_deliver(self, &d);
		ends_expect_opened(&e, i == 2 ? "" : text);
		EXPECT_EQ(e.counter, i + 1);
		EXPECT_EQ(e.time_ms, NOW_MS);
		EXPECT_EQ(e.proof, SSDTF_PROOF_VERIFIED);
		EXPECT_EQ(e.proven_first, 0x30 | i << 1 | (i == 1));
		EXPECT_TRUE(bytes_equal(e.origin, bytes_str(DEVICE)));
		EXPECT_FALSE(e.id_replaced);
		EXPECT_EQ(e.envelope.level, 1);
	}
	EXPECT_EQ(self->dev.client.stats.contexts, 1);
}

/* Every bit of a delivery matters: flip one and nothing is opened. */
TEST_F_TIMEOUT(client, delivery_bit_flips, 120)
{
	struct delivery d;
	struct ssdtf_event e;

	ends_session_open(self, &self->rec, 0);
	ends_seal(self, &d, TOPIC, "flip", 1, false);
	ends_deliver(self, &d);
	for (size_t i = 0; i < d.out_n; i++) {
		d.out[i] ^= 1u << i % 8;
		e = ends_hand(self, &self->rec, TOPIC, bytes_of(d.out, d.out_n), d.first);
		ends_expect_refused(&e, SSDTF_REASON_BAD_SIGNATURE);
		d.out[i] ^= 1u << i % 8;
	}
	for (size_t n = 0; n < d.out_n; n++) {
		e = ends_hand(self, &self->rec, TOPIC, bytes_of(d.out, n), d.first);
		ends_expect_refused(&e, SSDTF_REASON_BAD_SIGNATURE);
	}
	/* What the signature covers beside the payload. */
	e = ends_hand(self, &self->rec, TOPIC_OTHER, bytes_of(d.out, d.out_n), d.first);
	ends_expect_refused(&e, SSDTF_REASON_BAD_SIGNATURE);
	e = ends_hand(self, &self->rec, TOPIC, bytes_of(d.out, d.out_n), 0x30);
	ends_expect_refused(&e, SSDTF_REASON_BAD_SIGNATURE);
	e = ends_hand(self, &self->rec, TOPIC, bytes_of(d.out, d.out_n), 0x33);
	ends_expect_refused(&e, SSDTF_REASON_BAD_SIGNATURE);
}

/* A broker that signs what it should not deliver. */
TEST_F(client, delivery_refused)
{
	static const uint8_t other_grant[GRANT_ID_BYTES] = { 1 };
	uint8_t body[ROOM], off_curve[P256_X_BYTES] = { 0 };
	struct p256_point lifted;
	struct delivery d;
	struct ssdtf_event e;
	size_t n;

	ends_session_open(self, &self->rec, 0);
	ends_seal(self, &d, TOPIC, "refused", 0, false);
	d.level_0 = true;
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_MALFORMED);
	EXPECT_FALSE(e.ask_again); /* no other conversion would mend that */
	d.level_0 = false;

	d.grant = other_grant;
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_KEY_ID);
	d.grant = ends_grant_id;

	d.origin = "sensor-8"; /* the bind names another */
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_MALFORMED);
	d.origin = DEVICE;

	d.topic = "plant/7/other"; /* within the grant, not within the bind */
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_MALFORMED);
	d.topic = TOPIC_OTHER; /* the grant reads plant/7 only */
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_NOT_PERMITTED);
	d.topic = TOPIC;

	d.zero_salt = true; /* not under this grant */
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_MALFORMED);
	d.zero_salt = false;

	/* An x of another point: the commitment does not fit. One of no point at all. */
	ASSERT_EQ(p256_point_lift(self->x.point.b + 1, &lifted), 0);
	memcpy(d.x, self->x.point.b + 1, P256_X_BYTES);
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_CANNOT_OPEN);
	EXPECT_TRUE(e.ask_again);
	while (!p256_point_lift(off_curve, &lifted))
		off_curve[31]++;
	memcpy(d.x, off_curve, P256_X_BYTES);
	if (!bytes_is_zero(bytes_of(d.x, P256_X_BYTES))) {
		e = ends_deliver(self, &d);
		ends_expect_refused(&e, SSDTF_REASON_CANNOT_OPEN);
		EXPECT_FALSE(e.ask_again); /* was asked for already */
	}
	/* Signed, but nothing that parses. */
	n = ends_broker_sign(self, TOPIC, 0x30, bytes_str("hello"), RECEIVER, body);
	e = ends_hand(self, &self->rec, TOPIC, bytes_of(body, n), 0x30);
	ends_expect_refused(&e, SSDTF_REASON_MALFORMED);
	EXPECT_EQ(e.counter, 0);

	/* And after all of this the right one still opens. */
	memset(d.x, 0, sizeof(d.x));
	e = ends_deliver(self, &d);
	ends_expect_opened(&e, "refused");
}

TEST_F(client, grant_not_valid_now)
{
	struct terms t = self->receiver_terms;
	struct delivery d;
	struct ssdtf_event e;

	t.grant.not_before_ms = NOW_MS - 10;
	t.grant.not_after_ms = NOW_MS + 10;
	ends_restart(self, &t, &self->rec);
	ends_session_open(self, &self->rec, 0);
	ends_seal(self, &d, TOPIC, "timely", 0, false);
	self->now.unix_ms = NOW_MS + 10;
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_KEY_ID);
	self->now.unix_ms = NOW_MS - 11;
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_KEY_ID);
	self->now.unix_ms = NOW_MS + 9;
	e = ends_deliver(self, &d);
	ends_expect_opened(&e, "timely");
}

TEST_F(client, replaced_id)
{
	struct terms t = self->receiver_terms;
	struct delivery d;
	struct ssdtf_event e;

	t.grant.flags = RECORD_GRANT_IDS_REPLACED;
	ends_restart(self, &t, &self->rec);
	ends_session_open(self, &self->rec, 0);
	ends_seal(self, &d, TOPIC, "whose", 0, false);
	d.origin = EXTERNAL;
	d.zero_salt = true;
	e = ends_deliver(self, &d); /* with a proof that names the device */
	ends_expect_refused(&e, SSDTF_REASON_MALFORMED);
	d.proof = bytes_of("", 0);
	e = ends_deliver(self, &d);
	ends_expect_opened(&e, "whose");
	EXPECT_TRUE(e.id_replaced);
	EXPECT_TRUE(bytes_equal(e.origin, bytes_str(EXTERNAL)));
	EXPECT_EQ(e.proof, SSDTF_PROOF_ABSENT);
	/* A salt that is still there is still checked. */
	ends_seal(self, &d, TOPIC, "whose", 0, false);
	d.origin = EXTERNAL;
	d.proof = bytes_of("", 0);
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_MALFORMED);
}

/* --- PROTOCOL 4: trailers, proofs, replay ----------------------------------------------------- */

TEST_F(client, proof_required_absent_altered)
{
	uint8_t proof[3 + PUBLISH_TRAILER_1_BYTES];
	struct delivery d;
	struct ssdtf_event e;

	ends_session_open(self, &self->rec, 0);
	ends_seal(self, &d, TOPIC, "proven", 1, false);
	d.proof = bytes_of("", 0);
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_BAD_SIGNATURE);
	d.proof = bytes_of(NULL, 0);
	e = ends_deliver(self, &d);
	ends_expect_opened(&e, "proven");

	ends_seal(self, &d, TOPIC, "altered", 1, false);
	ends_deliver(self, &d); /* which leaves the true proof in proof_bytes */
	memcpy(proof, d.proof_bytes, sizeof(proof));
	ends_restart(self, &self->receiver_terms, &self->rec);
	memset(self->rec.origins, 0, sizeof(self->rec.origins));
	ends_session_open(self, &self->rec, 0);
	for (size_t i = 0; i < sizeof(proof); i++) {
		proof[i] ^= 1u << i % 8;
		d.proof = bytes_of(proof, sizeof(proof));
		e = ends_deliver(self, &d);
		ends_expect_refused(&e, SSDTF_REASON_BAD_SIGNATURE);
		proof[i] ^= 1u << i % 8;
	}
	d.proof = bytes_of(proof, sizeof(proof));
	e = ends_deliver(self, &d);
	ends_expect_opened(&e, "altered");
}

TEST_F(client, proof_of_an_origin_without_key)
{
	struct terms t = self->receiver_terms;
	struct delivery d;
	struct ssdtf_event e;

	t.n_origins = 0;
	ends_restart(self, &t, &self->rec);
	ends_session_open(self, &self->rec, 0);
	ends_seal(self, &d, TOPIC, "who", 0, false);
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_BAD_SIGNATURE);
	t.grant.flags = 0;
	ends_restart(self, &t, &self->rec);
	ends_session_open(self, &self->rec, 0);
	e = ends_deliver(self, &d);
	ends_expect_opened(&e, "who");
	EXPECT_EQ(e.proof, SSDTF_PROOF_UNCHECKED);
	/* Not required, but of an origin whose key is known: then it must hold. */
	t.n_origins = 1;
	t.origin.signing = self->receiver.point;
	ends_restart(self, &t, &self->rec);
	ends_session_open(self, &self->rec, 0);
	ends_seal(self, &d, TOPIC, "who", 0, false);
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_BAD_SIGNATURE);
}

TEST_F(client, replay_window)
{
	static struct delivery d[REPLAY_WINDOW_BITS + 3];
	const unsigned last = ARRAY_SIZE(d) - 1;
	struct ssdtf_event e;

	ends_session_open(self, &self->rec, 0);
	for (unsigned i = 0; i <= last; i++)
		ends_seal(self, &d[i], TOPIC, "again", 0, false);
	EXPECT_EQ(ends_deliver(self, &d[1]).kind, SSDTF_MESSAGE);
	e = ends_deliver(self, &d[1]);
	EXPECT_EQ(e.kind, SSDTF_REPLAYED);
	EXPECT_EQ(e.counter, 2);
	EXPECT_TRUE(e.plain.p == NULL);
	EXPECT_EQ(ends_deliver(self, &d[0]).kind, SSDTF_MESSAGE); /* older, not seen */
	EXPECT_EQ(ends_deliver(self, &d[last]).kind, SSDTF_MESSAGE);
	EXPECT_EQ(ends_deliver(self, &d[last]).kind, SSDTF_REPLAYED);
	EXPECT_EQ(ends_deliver(self, &d[2]).kind,
		  SSDTF_MESSAGE); /* the last that the window reaches */
	EXPECT_EQ(ends_deliver(self, &d[1]).kind, SSDTF_REPLAYED);
	/* Below the window: not told from a replay. */
	EXPECT_EQ(ends_deliver(self, &d[0]).kind, SSDTF_REPLAYED);
	/* The caller's array carries it over a restart. */
	ends_restart(self, &self->receiver_terms, &self->rec);
	ends_session_open(self, &self->rec, 0);
	EXPECT_EQ(ends_deliver(self, &d[last]).kind, SSDTF_REPLAYED);
	EXPECT_EQ(ends_deliver(self, &d[3]).kind, SSDTF_MESSAGE);
	EXPECT_EQ(self->rec.client.stats.replayed, 1);
}

TEST_F(client, retained_is_exempt_if_its_sender_wished_so)
{
	struct delivery d;
	struct ssdtf_event e;

	ends_session_open(self, &self->rec, 0);
	ends_seal(self, &d, TOPIC, "kept", 0, true);
	EXPECT_EQ(ends_deliver(self, &d).kind, SSDTF_MESSAGE);
	EXPECT_EQ(ends_deliver(self, &d).kind, SSDTF_REPLAYED);
	d.first |= 1;
	EXPECT_EQ(ends_deliver(self, &d).kind, SSDTF_MESSAGE);
	EXPECT_EQ(ends_deliver(self, &d).kind, SSDTF_MESSAGE);
	ends_seal(self, &d, TOPIC, "not kept", 0, false);
	d.first |= 1;
	e = ends_deliver(self, &d);
	ends_expect_refused(&e, SSDTF_REASON_MALFORMED);
}

/* More origins than the array has: the one heard longest ago is forgotten, never another. */
TEST_F(client, origins_are_bounded)
{
	struct ssdtf_client *c = &self->rec.client;
	char id[16];

	memset(self->rec.origins, 0, sizeof(self->rec.origins));
	for (unsigned i = 0; i < 4; i++) {
		snprintf(id, sizeof(id), "other-%u", i);
		self->rec.origins[i].id_n = (uint8_t)strlen(id);
		memcpy(self->rec.origins[i].id, id, strlen(id));
		self->rec.origins[i].used = i == 2 ? 1 : 10 + i;
	}
	ends_restart(self, &self->receiver_terms, &self->rec);
	ends_session_open(self, &self->rec, 0);
	for (unsigned i = 0; i < 2; i++) {
		struct delivery d;

		ends_seal(self, &d, TOPIC, "new here", 0, false);
		EXPECT_EQ(ends_deliver(self, &d).kind, SSDTF_MESSAGE);
		EXPECT_EQ(ends_deliver(self, &d).kind, SSDTF_REPLAYED);
	}
	EXPECT_EQ(c->stats.origins_forgotten, 1);
	EXPECT_EQ(memcmp(self->rec.origins[2].id, DEVICE, strlen(DEVICE)), 0);
	EXPECT_EQ(self->rec.origins[2].window.highest, 2);
	ASSERT_GT(self->rec.origins[2].used, 13);
}

/* --- sending ---------------------------------------------------------------------------------- */

static int try_seal(struct fixture_client *f, const char *topic, uint8_t qos, size_t room,
		    struct ssdtf_sealed *s)
{
	static uint8_t out[ROOM];

	return ssdtf_seal(&f->dev.client, bytes_str(topic), bytes_str("x"), qos, false, f->now, out,
			  room, s);
}

TEST_F(client, seal_refuses)
{
	struct terms t = self->device_terms;
	struct ssdtf_sealed s;

	EXPECT_EQ(try_seal(self, "elsewhere", 0, ROOM, &s), -EACCES);
	EXPECT_EQ(try_seal(self, "", 0, ROOM, &s), -EINVAL);
	EXPECT_EQ(try_seal(self, "plant/+/temp", 0, ROOM, &s), -EINVAL);
	EXPECT_EQ(try_seal(self, "$SSDTF/error", 0, ROOM, &s), -EINVAL);
	EXPECT_EQ(try_seal(self, TOPIC, 3, ROOM, &s), -EINVAL);
	EXPECT_EQ(try_seal(self, TOPIC, 0, SSDTF_SEALED_BYTES(1) - 1, &s), -ENOBUFS);
	EXPECT_EQ(self->dev.stored_mark, 0); /* none of them took a counter */
	EXPECT_EQ(try_seal(self, TOPIC, 0, SSDTF_SEALED_BYTES(1), &s), 0);
	EXPECT_EQ(s.counter, 1);
	EXPECT_EQ(s.payload.n, SSDTF_SEALED_BYTES(1));
	t.scope.not_after_ms = NOW_MS;
	ends_restart(self, &t, &self->dev);
	EXPECT_EQ(try_seal(self, TOPIC, 0, ROOM, &s), -ETIME);
	self->now.unix_ms--;
	EXPECT_EQ(try_seal(self, TOPIC, 0, ROOM, &s), 0);
}

TEST_F(client, will)
{
	static uint8_t out[ROOM];
	static uint8_t large[UINT16_MAX];
	struct delivery d = { .sealed_first = 0x33 };
	struct publish_trailer t;
	struct ssdtf_sealed s;

	ASSERT_EQ(ssdtf_seal_will(&self->dev.client, bytes_str(TOPIC), bytes_str("gone"), 1, true,
				  self->now, out, sizeof(out), &s),
		  0);
	memcpy(d.sealed, s.payload.p, s.payload.n);
	d.sealed_n = s.payload.n;
	/* Signed as the PUBLISH that it will be: QoS 1, RETAIN. */
	EXPECT_EQ(ends_take_apart(self, &d, TOPIC, &t).counter, 1);
	EXPECT_EQ(ssdtf_seal_will(&self->dev.client, bytes_str(TOPIC),
				  bytes_of(large, sizeof(large)), 0, false, self->now, out,
				  sizeof(out), &s),
		  -EINVAL);
}

static unsigned enc_of(struct fixture_client *f, const uint8_t *sealed, uint8_t enc[33],
		       uint32_t *seq)
{
	struct publish_trailer t;
	struct envelope e;

	ASSERT_EQ(publish_split(bytes_of(sealed, SSDTF_SEALED_BYTES(1)), &t), 0);
	ASSERT_EQ(envelope_parse(t.body, &e), 0);
	memcpy(enc, e.enc.p, 33);
	*seq = e.seq;
	return 0;
}

/* Seals n messages; returns how many contexts they took, having checked that no (enc, seq) comes
 * twice: seq ascends within an enc and begins anew with another. */
static unsigned contexts_of(struct fixture_client *f, unsigned n)
{
	uint64_t before = f->dev.client.stats.contexts;
	uint8_t enc[33] = { 0 }, now[33];
	uint32_t seq, last = 0;

	for (unsigned i = 0; i < n; i++) {
		struct delivery d;

		ends_seal(f, &d, TOPIC, "x", 0, false);
		enc_of(f, d.sealed, now, &seq);
		if (memcmp(enc, now, sizeof(enc)))
			ASSERT_TRUE(i == 0 || seq == 0);
		else
			ASSERT_EQ(seq, last + 1);
		memcpy(enc, now, sizeof(enc));
		last = seq;
	}
	return (unsigned)(f->dev.client.stats.contexts - before);
}

TEST_F(client, context_after_n_messages)
{
	struct terms t = self->device_terms;

	t.scope.rekey_messages = 3;
	ends_restart(self, &t, &self->dev);
	EXPECT_EQ(contexts_of(self, 3), 1);
	EXPECT_EQ(contexts_of(self, 3), 1);
	EXPECT_EQ(contexts_of(self, 7), 3);
}

TEST_F(client, context_after_t_seconds)
{
	struct terms t = self->device_terms;

	t.scope.rekey_seconds = 60;
	ends_restart(self, &t, &self->dev);
	EXPECT_EQ(contexts_of(self, 2), 1);
	self->now.mono_ms += 59999;
	EXPECT_EQ(contexts_of(self, 2), 0);
	self->now.mono_ms += 1;
	EXPECT_EQ(contexts_of(self, 2), 1);
	self->now.mono_ms -= 1; /* a clock that goes back is not trusted */
	EXPECT_EQ(contexts_of(self, 2), 1);

	/* A scope that sets no limit, or too high a one, has the protocol's. */
	t.scope.rekey_seconds = 100000;
	ends_restart(self, &t, &self->dev);
	EXPECT_EQ(contexts_of(self, 1), 1);
	self->now.mono_ms += 3599999;
	EXPECT_EQ(contexts_of(self, 1), 0);
	self->now.mono_ms += 1;
	EXPECT_EQ(contexts_of(self, 1), 1);
}

TEST_F_TIMEOUT(client, context_serves_65536_messages, 300)
{
	struct delivery d;
	uint8_t enc[2][33];
	uint32_t seq;

	ends_seal(self, &d, TOPIC, "x", 0, false);
	enc_of(self, d.sealed, enc[0], &seq);
	/* The 65,533 in between differ from these in nothing but their number. */
	self->dev.client.scopes[0].sender.seq_next = 65534;
	self->dev.client.scopes[0].messages = 65534;
	EXPECT_EQ(contexts_of(self, 2), 0);
	ends_seal(self, &d, TOPIC, "x", 0, false);
	enc_of(self, d.sealed, enc[1], &seq);
	EXPECT_EQ(seq, 0);
	EXPECT_NE(memcmp(enc[0], enc[1], 33), 0);
}

/* Each epoch has a context of its own; the latest valid one is used. */
TEST_F(client, the_latest_epoch_is_used)
{
	struct ssdtf_client *c = &self->dev.client;
	struct terms t = self->device_terms;
	struct delivery d;
	struct publish_trailer tr;

	t.n_scopes = 2;
	ends_restart(self, &t, &self->dev);
	c->scopes[1].key_id = KEY_ID + 1;
	c->scopes[1].epoch = 2;
	c->scopes[1].not_before_ms = NOW_MS + 1000;
	ends_seal(self, &d, TOPIC, "x", 0, false);
	EXPECT_EQ(ends_take_apart(self, &d, TOPIC, &tr).key_id, KEY_ID);
	self->now.unix_ms += 1000;
	ends_seal(self, &d, TOPIC, "x", 0, false);
	EXPECT_EQ(ends_take_apart(self, &d, TOPIC, &tr).key_id, KEY_ID + 1);
	EXPECT_EQ(c->stats.contexts, 2);
}

/* --- the counter ------------------------------------------------------------------------------ */

/* Power fails at any moment: no counter is used twice, and storage is written once in eight. */
TEST_F(client, counter_over_power_cuts)
{
	struct end *e = &self->dev;
	uint64_t last = 0;
	unsigned sealed = 0;

	for (unsigned life = 0; life < 40; life++) {
		unsigned n = (unsigned)(harness_random() % 20);

		for (unsigned i = 0; i < n; i++) {
			struct ssdtf_sealed s;

			ASSERT_EQ(try_seal(self, TOPIC, 0, ROOM, &s), 0);
			ASSERT_GT(s.counter, last);
			ASSERT_LE(s.counter, e->stored_mark);
			last = s.counter;
			sealed++;
		}
		/* All that survives is the mark. */
		ssdtf_deinit(&e->client);
		ASSERT_EQ(ends_init(self, &self->device_terms, e, 0), 0);
	}
	ASSERT_LE(e->reserves, sealed / 8 + 40);
	EXPECT_EQ(e->stored_mark, e->reserves * 8);
}

TEST_F(client, counter_is_not_used_unless_reserved)
{
	struct end *e = &self->dev;
	struct ssdtf_sealed s;

	e->reserve_fails = -EIO;
	EXPECT_EQ(try_seal(self, TOPIC, 0, ROOM, &s), -EIO);
	EXPECT_EQ(try_seal(self, TOPIC, 0, ROOM, &s), -EIO);
	e->reserve_fails = 0;
	ASSERT_EQ(try_seal(self, TOPIC, 0, ROOM, &s), 0);
	EXPECT_EQ(s.counter, 1);
	ssdtf_deinit(&e->client);
	e->stored_mark = UINT64_MAX;
	EXPECT_EQ(ends_init(self, &self->device_terms, e, 0), -EOVERFLOW);
	e->stored_mark = UINT64_MAX - 2;
	ASSERT_EQ(ends_init(self, &self->device_terms, e, 0), 0);
	ASSERT_EQ(try_seal(self, TOPIC, 0, ROOM, &s), 0);
	EXPECT_EQ(s.counter, UINT64_MAX - 1);
	EXPECT_EQ(try_seal(self, TOPIC, 0, ROOM, &s), -EOVERFLOW);
}

TEST_F(client, counter_that_the_broker_knows_better)
{
	struct end *e = &self->dev;
	struct ssdtf_event event;
	struct ssdtf_sealed s;

	ASSERT_EQ(try_seal(self, TOPIC, 0, ROOM, &s), 0);
	event = ends_session_open(self, e, 1);
	EXPECT_FALSE(event.counter_lost);
	EXPECT_FALSE(event.acks_forged);
	event = ends_session_open(self, e, 1000); /* restored from an old backup */
	EXPECT_TRUE(event.counter_lost);
	EXPECT_EQ(event.counter, 1000);
	ASSERT_EQ(try_seal(self, TOPIC, 0, ROOM, &s), 0);
	EXPECT_EQ(s.counter, 1001);
	ASSERT_GE(e->stored_mark, 1001);
	event = ends_session_open(self, e, UINT64_MAX); /* a lie that would end all sending */
	EXPECT_FALSE(event.counter_lost);
	ASSERT_EQ(try_seal(self, TOPIC, 0, ROOM, &s), 0);
	EXPECT_EQ(s.counter, 1002);
	ssdtf_acknowledged(&e->client, 1002);
	event = ends_session_open(self, e, 1001);
	EXPECT_TRUE(event.acks_forged);
	event = ends_session_open(self, e, 1002);
	EXPECT_FALSE(event.acks_forged);
}

/* --- PROTOCOL 7 ------------------------------------------------------------------------------- */

static struct ssdtf_event hand_error(struct fixture_client *f, uint8_t reason, uint64_t counter,
				     const uint8_t *r_b, uint32_t n)
{
	uint8_t body[256];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	bytes_write_u8(&w, reason);
	bytes_write_u64(&w, counter);
	bytes_write_u16_view(&w, bytes_str("because"));
	bytes_write(&w, bytes_of(r_b, 32));
	bytes_write_u32(&w, n);
	return ends_hand_signed(f, &f->dev, SSDTF_TOPIC_ERROR, bytes_of(body, w.used));
}

TEST_F(client, errors)
{
	uint8_t other[32] = { 1 }, payload[ROOM];
	struct end *e = &self->dev;
	struct ssdtf_event event;
	size_t n;

	ends_session_open(self, e, 0);
	event = hand_error(self, 4, 77, e->r_b, 1);
	ASSERT_EQ(event.kind, SSDTF_ERROR);
	EXPECT_EQ(event.reason, SSDTF_REASON_KEY_ID);
	EXPECT_EQ(event.counter, 77);
	/* Of another session; the same n again; a smaller one. */
	EXPECT_EQ(hand_error(self, 4, 77, other, 2).kind, SSDTF_IGNORED);
	EXPECT_EQ(hand_error(self, 4, 77, e->r_b, 1).kind, SSDTF_IGNORED);
	EXPECT_EQ(hand_error(self, 4, 77, e->r_b, 0).kind, SSDTF_IGNORED);
	EXPECT_EQ(hand_error(self, 4, 77, e->r_b, 9).kind, SSDTF_ERROR); /* a gap is none of ours */
	EXPECT_EQ(hand_error(self, 4, 77, e->r_b, 8).kind, SSDTF_IGNORED);
	EXPECT_EQ(hand_error(self, 200, 77, e->r_b, 10).reason, 200);
	/* Unsigned, cut, and for somebody else. */
	n = ends_broker_sign(self, SSDTF_TOPIC_ERROR, 0x30, bytes_str("short"), DEVICE, payload);
	EXPECT_EQ(ends_hand(self, e, SSDTF_TOPIC_ERROR, bytes_of(payload, n), 0x30).kind,
		  SSDTF_IGNORED);
	payload[0] ^= 1;
	EXPECT_EQ(ends_hand(self, e, SSDTF_TOPIC_ERROR, bytes_of(payload, n), 0x30).kind,
		  SSDTF_IGNORED);
	EXPECT_EQ(ends_hand_signed(self, e, "$SSDTF/what", bytes_str("x")).kind, SSDTF_IGNORED);
	/* A new session counts anew. */
	ends_session_open(self, e, 0);
	EXPECT_EQ(hand_error(self, 4, 77, e->r_b, 1).kind, SSDTF_ERROR);
}

TEST_F(client, error_8_opens_a_new_context)
{
	struct end *e = &self->dev;

	ends_session_open(self, e, 0);
	EXPECT_EQ(contexts_of(self, 2), 1);
	EXPECT_EQ(hand_error(self, 3, 1, e->r_b, 1).kind, SSDTF_ERROR);
	EXPECT_EQ(contexts_of(self, 2), 0);
	EXPECT_EQ(hand_error(self, 8, 1, e->r_b, 2).kind, SSDTF_ERROR);
	EXPECT_EQ(contexts_of(self, 2), 1);
}

/* What an end published last, its signature checked; returns the body. */
static struct bytes sent_body(struct end *e, const char *id, const struct p256_public *key,
			      const char *topic)
{
	struct publish p = { .first = 0x30, .body_parts = 1, .client_id = bytes_str(id) };
	struct publish_trailer t;

	ASSERT_EQ(e->n_sent, 1);
	ASSERT_STREQ(e->sent[0].topic, topic);
	ASSERT_EQ(publish_split(bytes_of(e->sent[0].payload, e->sent[0].n), &t), 0);
	EXPECT_EQ(t.kind, 1);
	p.topic = bytes_str(topic);
	p.body[0] = t.body;
	ASSERT_EQ(publish_verify(&p, &t, key), 0);
	e->n_sent = 0;
	return t.body;
}

TEST_F(client, nack_and_report)
{
	struct p256_public *key;
	struct end *e = &self->rec;
	struct ssdtf_event event;
	struct bytes_reader r;
	struct delivery d;
	char text[400];

	ASSERT_EQ(p256_public_new(&self->receiver.point, &key), 0);
	ends_session_open(self, e, 0);
	ends_seal(self, &d, TOPIC, "bad", 0, false);
	memcpy(d.x, self->x.point.b + 1, P256_X_BYTES);
	event = ends_deliver(self, &d);
	ends_expect_refused(&event, SSDTF_REASON_CANNOT_OPEN);
	EXPECT_TRUE(event.ask_again);
	ASSERT_EQ(ssdtf_nack(&e->client, &event), 0);
	r = bytes_reader_of(sent_body(e, RECEIVER, key, SSDTF_TOPIC_NACK));
	EXPECT_EQ(bytes_read_u8(&r), 7);
	EXPECT_EQ(bytes_read_u64(&r), 1);
	EXPECT_TRUE(bytes_equal(bytes_read_u8_view(&r), bytes_str(DEVICE)));
	EXPECT_TRUE(bytes_equal(bytes_read_view(&r, 32), bytes_of(e->r_b, 32)));
	EXPECT_EQ(bytes_read_u32(&r), 1);
	EXPECT_TRUE(bytes_read_done(&r));

	event = ends_deliver(self, &d);
	EXPECT_FALSE(event.ask_again);
	EXPECT_EQ(ssdtf_nack(&e->client, &event), -EINVAL);
	memset(text, 'x', sizeof(text));
	ASSERT_EQ(ssdtf_report(&e->client, event.reason, event.counter, event.origin,
			       bytes_of(text, sizeof(text))),
		  0);
	r = bytes_reader_of(sent_body(e, RECEIVER, key, SSDTF_TOPIC_REPORT));
	EXPECT_EQ(bytes_read_u8(&r), 7);
	EXPECT_EQ(bytes_read_u64(&r), 1);
	EXPECT_TRUE(bytes_equal(bytes_read_u8_view(&r), bytes_str(DEVICE)));
	EXPECT_EQ(bytes_read_u16_view(&r).n, SSDTF_TEXT_BYTES_MAX);
	EXPECT_TRUE(bytes_equal(bytes_read_view(&r, 32), bytes_of(e->r_b, 32)));
	EXPECT_EQ(bytes_read_u32(&r), 2); /* n ascends over both topics */
	EXPECT_TRUE(bytes_read_done(&r));

	event.ask_again = true;
	ssdtf_on_disconnect(&e->client);
	EXPECT_EQ(ssdtf_nack(&e->client, &event), -ENOTCONN);
	EXPECT_EQ(ssdtf_report(&e->client, 7, 1, event.origin, bytes_str("")), -ENOTCONN);
	p256_public_free(key);
}

/* The manager's end of a report: device -> broker -> manager. */
TEST_F(client, report_as_the_manager_gets_it)
{
	uint8_t outer[ROOM];
	struct bytes_writer w = bytes_writer_of(outer, sizeof(outer));
	struct ssdtf_event e;

	ends_session_open(self, &self->dev, 0);
	ends_session_open(self, &self->rec, 0);
	ASSERT_EQ(ssdtf_report(&self->dev.client, 5, 12, bytes_str("gw-1"), bytes_str("why")), 0);
	bytes_write_u8_view(&w, bytes_str(DEVICE));
	bytes_write_u8(&w, 0x30);
	bytes_write_u16(&w, 0);
	bytes_write(&w, bytes_of(self->dev.sent[0].payload, self->dev.sent[0].n));
	e = ends_hand_signed(self, &self->rec, SSDTF_TOPIC_REPORT, bytes_of(outer, w.used));
	ASSERT_EQ(e.kind, SSDTF_REPORTED);
	EXPECT_TRUE(e.reporter_verified);
	EXPECT_TRUE(bytes_equal(e.reporter, bytes_str(DEVICE)));
	EXPECT_EQ(e.reason, 5);
	EXPECT_EQ(e.counter, 12);
	EXPECT_TRUE(bytes_equal(e.origin, bytes_str("gw-1")));
	/* A broker that changes the words of a reporter whose key we know. */
	outer[1 + strlen(DEVICE) + 3 + 1 + 8] ^= 1;
	e = ends_hand_signed(self, &self->rec, SSDTF_TOPIC_REPORT, bytes_of(outer, w.used));
	EXPECT_EQ(e.kind, SSDTF_IGNORED);
}

/* --- what the library is made of -------------------------------------------------------------- */

/* The symbols that its own objects want from outside, of these: none. */
TEST(own_objects_allocate_nothing_and_do_no_io)
{
	static const char *const banned[] = {
		"malloc", "calloc",	    "realloc", "free",	 "strdup",
		"open",	  "read",	    "write",   "send",	 "recv",
		"socket", "fopen",	    "printf",  "time",	 "clock_gettime",
		"mmap",	  "pthread_create", "abort",   "getenv", "secret_alloc",
	};
	char self[400], archive[512], line[256];
	char nm[] = "nm", u[] = "-u";
	char *argv[] = { nm, u, archive, NULL };
	posix_spawn_file_actions_t actions;
	unsigned wanted = 0;
	int out[2], status;
	FILE *from;
	pid_t pid;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	ASSERT_GT(n, 0);
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	snprintf(archive, sizeof(archive), "%s/../lib/libuserspace-client-lib.a", self);
	ASSERT_EQ(access(archive, R_OK), 0);
	ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
	if (posix_spawnp(&pid, "nm", &actions, NULL, argv, environ))
		SKIP("nm of binutils is not here");
	close(out[1]);
	from = fdopen(out[0], "r");
	ASSERT_TRUE(from != NULL);
	while (fgets(line, sizeof(line), from)) {
		char name[128];

		if (sscanf(line, " U %127s", name) != 1)
			continue;
		wanted++;
		for (unsigned i = 0; i < ARRAY_SIZE(banned); i++)
			if (!strcmp(name, banned[i]))
				harness_fail(__FILE__, __LINE__, false, "libssdtf wants %s", name);
	}
	fclose(from);
	posix_spawn_file_actions_destroy(&actions);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	ASSERT_EQ(status, 0);
	ASSERT_GT(wanted, 10); /* it was read at all */
}

TEST(reasons_have_texts)
{
	for (unsigned i = 1; i <= 8; i++)
		EXPECT_NE(strcmp(ssdtf_reason_text(i), "unknown reason"), 0);
	ASSERT_STREQ(ssdtf_reason_text(9), "unknown reason");
	ASSERT_STREQ(ssdtf_reason_text(255), "unknown reason");
}

HARNESS_MAIN
