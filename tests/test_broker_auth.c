// SPDX-License-Identifier: MIT
/*
 * How a session opens in SSDTF mode: mutual authentication (PROTOCOL 5), admission (6), sealed
 * Wills (4), what is taken before the session is open, and what of $SSDTF/ after it.
 */
#include <errno.h>
#include <stdio.h>

#include "tests/fake_client.h"
#include "tests/harness.h"
#include "userspace/base/text.h"
#include "userspace/crypto/admission.h"
#include "userspace/crypto/hash.h"

HARNESS_MAIN

#define TOPIC "site/1/temp"

FIXTURE(auth)
{
	struct world *world;
	struct fake_broker *fake;
	struct fake_client dev1, dev2, rx1, rx2;
};

static void start(struct fixture_auth *self, const struct broker_config *config)
{
	self->world = world_new(config);
	self->fake = self->world->fake;
	client_init_party(&self->dev1, self->world, self->world->dev1);
	client_init_party(&self->dev2, self->world, self->world->dev2);
	client_init_party(&self->rx1, self->world, self->world->rx1);
	client_init_party(&self->rx2, self->world, self->world->rx2);
}

static void finish(struct fixture_auth *self)
{
	client_deinit(&self->dev1);
	client_deinit(&self->dev2);
	client_deinit(&self->rx1);
	client_deinit(&self->rx2);
	world_free(self->world);
}

FIXTURE_SETUP(auth)
{
	start(self, NULL);
}

FIXTURE_TEARDOWN(auth)
{
	finish(self);
}

static void restart_with(struct fixture_auth *self, const struct broker_config *config)
{
	finish(self);
	start(self, config);
}

/* Up to where the challenge has been read. */
static bool challenged(struct fake_client *c)
{
	client_dial(c);
	client_send_connect(c);
	fake_settle(c->fake);
	return client_got_connack(c, false, 0) && client_got_challenge(c);
}

/* --- the handshake ---------------------------------------------------------------------------- */

/* client_got_challenge() and client_got_result() compare every byte that is not random. */
TEST_F(auth, happy_path)
{
	ASSERT_TRUE(challenged(&self->rx1));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	client_send_response(&self->rx1, 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_result(&self->rx1));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_EQ(self->rx1.highest, 0);
	ASSERT_EQ(fake_stats(self->fake).auth_passed, 1);
	ASSERT_EQ(fake_stats(self->fake).auth_failed, 0);
	ASSERT_EQ(client_subscribe(&self->rx1, "#", 1), 1);
}

TEST_F(auth, nonces_are_fresh)
{
	uint8_t before[CLIENT_NONCE_BYTES];

	ASSERT_TRUE(challenged(&self->rx1));
	memcpy(before, self->rx1.r_b, sizeof(before));
	ASSERT_TRUE(challenged(&self->rx1));
	ASSERT_TRUE(memcmp(before, self->rx1.r_b, sizeof(before)) != 0);
}

TEST_F(auth, input_byte_by_byte)
{
	self->rx1.drip = true;
	ASSERT_TRUE(challenged(&self->rx1));
	client_send_response(&self->rx1, 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(&self->rx1, MQTT_PUBACK, self->rx1.packet_id));
	ASSERT_TRUE(client_got_result(&self->rx1));
}

/* PROTOCOL 7: acknowledged only once its signature holds. */
TEST_F(auth, response_of_qos_1)
{
	ASSERT_TRUE(challenged(&self->rx1));
	self->fake->hold_verify = true;
	client_send_response(&self->rx1, 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	self->fake->hold_verify = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(&self->rx1, MQTT_PUBACK, self->rx1.packet_id));
	ASSERT_TRUE(client_got_result(&self->rx1));
}

/* Step 1's signature comes late: the token was gone for a while. */
TEST_F(auth, challenge_waits_for_the_token)
{
	self->fake->sign_status = BROKER_TOKEN_UNAVAILABLE;
	client_dial(&self->rx1);
	client_send_connect(&self->rx1);
	fake_pass(self->fake, 2000);
	ASSERT_TRUE(client_got_connack(&self->rx1, false, 0));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	self->fake->sign_status = BROKER_TOKEN_OK;
	fake_pass(self->fake, 1000);
	ASSERT_TRUE(client_got_challenge(&self->rx1));
	client_send_response(&self->rx1, 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_result(&self->rx1));
}

/* Signatures go out in the order in which they were asked for; one that nobody waits for any more
 * holds up none of those behind it. */
TEST_F(auth, challenge_behind_one_that_failed)
{
	self->fake->hold_sign = self->fake->in_order = true;
	client_dial(&self->rx1);
	client_send_connect(&self->rx1);
	client_dial(&self->rx2);
	client_send_connect(&self->rx2);
	self->fake->hold_sign = false;
	self->fake->sign_status = BROKER_TOKEN_UNAVAILABLE;
	ASSERT_TRUE(fake_run_token(self->fake));
	self->fake->sign_status = BROKER_TOKEN_OK;
	ASSERT_TRUE(fake_run_token(self->fake));
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_connack(&self->rx2, false, 0));
	ASSERT_TRUE(client_got_nothing(&self->rx2));
	fake_hang_up(self->rx1.conn);
	fake_pass(self->fake, 1000);
	ASSERT_TRUE(client_got_challenge(&self->rx2));
}

TEST_F(auth, result_has_the_highest_counter)
{
	ASSERT_TRUE(client_up(&self->dev1));
	ASSERT_EQ(self->dev1.highest, 0);
	self->dev1.counter = 41;
	client_publish(&self->dev1, self->world->temp, TOPIC, "x", 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_up(&self->dev1));
	ASSERT_EQ(self->dev1.highest, 42);
	world_restart(self->world);
	ASSERT_TRUE(client_up(&self->dev1));
	ASSERT_EQ(self->dev1.highest, 42);
}

TEST_F(auth, persistent_session_is_present)
{
	self->rx1.clean = false;
	ASSERT_TRUE(client_resumes(&self->rx1, false));
	ASSERT_EQ(client_subscribe(&self->rx1, TOPIC, 1), 1);
	client_send_empty(&self->rx1, MQTT_DISCONNECT);
	ASSERT_TRUE(client_resumes(&self->rx1, true));
	ASSERT_TRUE(client_up(&self->dev1));
	client_publish(&self->dev1, self->world->temp, TOPIC, "x", 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "x", NULL));
}

/* --- wrong responses -------------------------------------------------------------------------- */

struct response {
	const char *topic;
	uint8_t body[CLIENT_RESPONSE_BYTES + 64];
	size_t body_n;
	uint8_t trailer[PUBLISH_TRAILER_1_BYTES];
	uint8_t payload_less; /* bytes cut from the end */
	bool retain;
	struct p256_private *key;
};

static void wrong_signature(struct response *r)
{
	r->trailer[10] ^= 1;
}

static void wrong_r_b(struct response *r)
{
	r->body[0] ^= 1;
}

static void wrong_r_c(struct response *r)
{
	r->body[CLIENT_NONCE_BYTES] ^= 1;
}

static void wrong_broker(struct response *r)
{
	r->body[2 * CLIENT_NONCE_BYTES] ^= 1;
}

static void with_channel_binding(struct response *r)
{
	r->body_n += 32; /* cb is empty on plain TCP */
}

static void short_body(struct response *r)
{
	r->body_n--;
}

static void empty_body(struct response *r)
{
	r->body_n = 0;
}

static void cut_trailer(struct response *r)
{
	r->payload_less = 1;
}

static void other_topic(struct response *r)
{
	r->topic = "$SSDTF/auth/result";
}

static void retained(struct response *r)
{
	r->retain = true;
}

static void none(struct response *r)
{
}

static void send_response(struct fake_client *c, void (*change)(struct response *r),
			  struct p256_private *key, const char *id)
{
	struct response r = { .topic = "$SSDTF/auth/response", .key = key };
	struct bytes_writer w = bytes_writer_of(r.body, sizeof(r.body));
	struct mqtt_publish p = { .qos = 1, .packet_id = 77 };
	struct publish input;
	uint8_t payload[512];

	client_response_body(c, &w);
	r.body_n = w.used;
	if (change != wrong_signature)
		change(&r);
	input = (struct publish){
		.first = mqtt_publish_first(1, r.retain, false),
		.topic = bytes_str(r.topic),
		.body = { bytes_of(r.body, r.body_n) },
		.body_parts = 1,
		.client_id = bytes_str(id),
	};
	ASSERT_EQ(publish_sign(&input, r.key, r.trailer), 0);
	if (change == wrong_signature)
		change(&r);
	w = bytes_writer_of(payload, sizeof(payload));
	bytes_write(&w, bytes_of(r.body, r.body_n));
	bytes_write(&w, bytes_of(r.trailer, sizeof(r.trailer)));
	p.topic = input.topic;
	p.retain = r.retain;
	p.payload = bytes_of(payload, w.used - r.payload_less);
	client_send_publish(c, &p);
}

/* Step 3: closed without a word, and without an acknowledgement; the n-th that failed. */
static bool refused(struct fixture_auth *self, struct fake_client *c, unsigned n)
{
	fake_settle(self->fake);
	return client_closed(c) && client_got_nothing(c) &&
	       fake_stats(self->fake).auth_failed == n && fake_stats(self->fake).auth_passed == 0;
}

TEST_F(auth, wrong_responses)
{
	static void (*const changes[])(struct response * r) = {
		wrong_signature, wrong_r_b,  wrong_r_c,	  wrong_broker, with_channel_binding,
		short_body,	 empty_body, cut_trailer, other_topic,	retained,
	};
	struct fake_client *c = &self->rx1;

	for (unsigned i = 0; i < ARRAY_SIZE(changes); i++) {
		ASSERT_TRUE(challenged(c));
		send_response(c, changes[i], c->party->key, c->id);
		EXPECT_TRUE(refused(self, c, i + 1));
	}
	/* The same, unchanged, is right. */
	ASSERT_TRUE(challenged(c));
	send_response(c, none, c->party->key, c->id);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(c, MQTT_PUBACK, 77));
	ASSERT_TRUE(client_got_result(c));
}

TEST_F(auth, response_signed_by_another_party)
{
	ASSERT_TRUE(challenged(&self->rx1));
	send_response(&self->rx1, none, self->world->rx2->key, "rx1");
	ASSERT_TRUE(refused(self, &self->rx1, 1));
}

TEST_F(auth, response_signed_for_another_client_id)
{
	ASSERT_TRUE(challenged(&self->rx1));
	send_response(&self->rx1, none, self->world->rx1->key, "rx2");
	ASSERT_TRUE(refused(self, &self->rx1, 1));
}

/* What answered one challenge does not answer the next. */
TEST_F(auth, response_of_an_earlier_session)
{
	struct fake_client before;

	ASSERT_TRUE(challenged(&self->rx1));
	before = self->rx1;
	ASSERT_TRUE(challenged(&self->rx1));
	memcpy(self->rx1.r_b, before.r_b, sizeof(before.r_b));
	memcpy(self->rx1.r_c, before.r_c, sizeof(before.r_c));
	client_send_response(&self->rx1, 0);
	ASSERT_TRUE(refused(self, &self->rx1, 1));
}

/* --- SSDTF-ZK-1 (PROTOCOL 16) ----------------------------------------------------------------- */

struct zk {
	struct secret32 x;
	char id[RECORD_ZK_ID_CHARS + 1];
	struct fake_client client;
};

/* A device that is enrolled so, and may publish under "temp". */
static void enrol_zk(struct fixture_auth *self, struct zk *z)
{
	struct world_party *p = world_add_party(self->world, "", RECORD_ROLE_DEVICE, "temp");

	ASSERT_EQ(p256_scalar_random(&z->x), 0);
	p256_private_free(p->key);
	p256_public_free(p->key_public);
	ASSERT_EQ(p256_private_new(&z->x, &p->key), 0);
	p256_private_point(p->key, &p->signing);
	ASSERT_EQ(p256_public_new(&p->signing, &p->key_public), 0);
	record_zk_id(&p->signing, z->id);
	p->id = z->id;
	p->flags = RECORD_PARTY_ZK;
	client_init_party(&z->client, self->world, p);
	world_apply(self->world);
}

/* body || trailer 3 by this key, to any topic. */
static void send_proved(struct fake_client *c, const char *topic, struct bytes body,
			const struct secret32 *x)
{
	uint8_t payload[512];
	struct publish input = { .first = mqtt_publish_first(0, false, false),
				 .topic = bytes_str(topic),
				 .body = { body },
				 .body_parts = 1,
				 .client_id = bytes_str(c->id) };
	struct mqtt_publish p = { .topic = input.topic };
	struct p256_point public;

	ASSERT_EQ(p256_mul_base(x, &public), 0);
	memcpy(payload, body.p, body.n);
	ASSERT_EQ(publish_prove_zk(&input, x, &public, payload + body.n), 0);
	p.payload = bytes_of(payload, body.n + PUBLISH_TRAILER_3_BYTES);
	client_send_publish(c, &p);
}

static void send_zk_response(struct fake_client *c, const struct secret32 *x, size_t flip)
{
	uint8_t body[CLIENT_RESPONSE_BYTES];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	client_response_body(c, &w);
	if (flip < sizeof(body))
		body[flip] ^= 1;
	send_proved(c, "$SSDTF/auth/response", bytes_of(body, w.used), x);
}

#define UNCHANGED ((size_t)-1)

TEST_F(auth, zk_opens_a_session)
{
	struct zk z;

	enrol_zk(self, &z);
	ASSERT_TRUE(challenged(&z.client));
	send_zk_response(&z.client, &z.x, UNCHANGED);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_result(&z.client));
	/* All else is signed as ever, */
	client_publish(&z.client, self->world->temp, TOPIC, "21", 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(&z.client, MQTT_PUBACK, z.client.packet_id));
	/* and a proof is no signature there. */
	send_proved(&z.client, "$SSDTF/report", bytes_str("no matter"), &z.x);
	fake_settle(self->fake);
	ASSERT_EQ(fake_stats(self->fake).auth_passed, 1);
	ASSERT_FALSE(client_got_nothing(&z.client) && !client_closed(&z.client));
	client_deinit(&z.client);
}

TEST_F(auth, zk_and_nothing_else)
{
	struct fake_client before;
	struct secret32 stranger;
	struct zk z;
	unsigned n = 0;

	enrol_zk(self, &z);
	ASSERT_EQ(p256_scalar_random(&stranger), 0);
	/* Enrolled for proofs: its signature does not do, good as it is. */
	ASSERT_TRUE(challenged(&z.client));
	client_send_response(&z.client, 0);
	ASSERT_TRUE(refused(self, &z.client, ++n));
	/* Another nonce of ours, another of its own, another broker: each is proved, and wrong. */
	for (size_t at = 0; at < CLIENT_RESPONSE_BYTES; at += 32) {
		ASSERT_TRUE(challenged(&z.client));
		send_zk_response(&z.client, &z.x, at);
		ASSERT_TRUE(refused(self, &z.client, ++n));
	}
	ASSERT_TRUE(challenged(&z.client));
	send_zk_response(&z.client, &stranger, UNCHANGED);
	ASSERT_TRUE(refused(self, &z.client, ++n));
	/* What answered one challenge does not answer the next. */
	ASSERT_TRUE(challenged(&z.client));
	before = z.client;
	ASSERT_TRUE(challenged(&z.client));
	memcpy(z.client.r_b, before.r_b, sizeof(before.r_b));
	send_zk_response(&z.client, &z.x, UNCHANGED);
	ASSERT_TRUE(refused(self, &z.client, ++n));
	client_deinit(&z.client);
}

TEST_F(auth, zk_is_for_those_enrolled_so)
{
	struct world_party *p;
	struct secret32 x;
	struct zk z;

	/* dev1 knows its key's number, but is to sign. */
	ASSERT_EQ(p256_scalar_random(&x), 0);
	p = self->world->dev1;
	p256_private_free(p->key);
	p256_public_free(p->key_public);
	ASSERT_EQ(p256_private_new(&x, &p->key), 0);
	p256_private_point(p->key, &p->signing);
	ASSERT_EQ(p256_public_new(&p->signing, &p->key_public), 0);
	world_apply(self->world);
	ASSERT_TRUE(challenged(&self->dev1));
	send_zk_response(&self->dev1, &x, UNCHANGED);
	ASSERT_TRUE(refused(self, &self->dev1, 1));

	/* A bundle with an id that is not its key is none. */
	enrol_zk(self, &z);
	world_new_key(z.client.party);
	ASSERT_EQ(broker_apply_bundle(self->fake->engine, self->world->serial + 1,
				      world_bundle(self->world), &(const char *){ NULL }),
		  -EBADMSG);
	client_deinit(&z.client);
}

/* A second response while the first is checked, and one while the result is being signed. */
TEST_F(auth, second_response)
{
	for (unsigned i = 0; i < 2; i++) {
		ASSERT_TRUE(challenged(&self->rx1));
		self->fake->hold_verify = i == 0;
		self->fake->hold_sign = i == 1;
		client_send_response(&self->rx1, 0);
		fake_settle(self->fake);
		ASSERT_FALSE(client_closed(&self->rx1));
		client_send_response(&self->rx1, 0);
		ASSERT_TRUE(client_closed(&self->rx1));
		self->fake->hold_verify = self->fake->hold_sign = false;
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_nothing(&self->rx1));
		ASSERT_EQ(fake_stats(self->fake).auth_passed, 0);
	}
}

/* --- before the session is open --------------------------------------------------------------- */

enum stage { CHALLENGING, CHALLENGED, CHECKING, OPENING };

/* A connection that stands still at the stage. */
static void stop_at(struct fixture_auth *self, struct fake_client *c, enum stage stage)
{
	client_dial(c);
	self->fake->hold_verify = stage == CHECKING;
	self->fake->hold_sign = stage == CHALLENGING;
	client_send_connect(c);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_connack(c, false, 0));
	if (stage == CHALLENGING)
		return;
	ASSERT_TRUE(client_got_challenge(c));
	if (stage == CHALLENGED)
		return;
	self->fake->hold_sign = stage == OPENING;
	client_send_response(c, 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(c));
	ASSERT_FALSE(client_closed(c));
}

/* PROTOCOL 5: nothing but acknowledgements, PINGREQ and DISCONNECT; SUBSCRIBE is answered with
 * failure. */
TEST_F(auth, every_packet_type_before_the_session_is_open)
{
	static const struct {
		const char *packet;
		bool stays;
		const char *answer;
	} rows[] = {
		{ "100d00044d51545404020000000161", false, "" },
		{ "20020000", false, "" },
		{ "300400017478", false, "" }, /* PUBLISH */
		{ "3206000174000178", false, "" },
		{ "40020001", true, "" }, /* PUBACK */
		{ "3406000174000178", false, "" },
		{ "50020001", true, "" },	  /* PUBREC */
		{ "62020001", true, "70020001" }, /* PUBREL */
		{ "70020001", true, "" },
		{ "8206000100017401", true, "9003000180" }, /* SUBSCRIBE */
		{ "820a00020001740100017500", true, "900400028080" },
		{ "9003000100", false, "" },
		{ "a2050001000174", false, "" }, /* UNSUBSCRIBE */
		{ "b0020001", false, "" },
		{ "c000", true, "d000" }, /* PINGREQ */
		{ "d000", false, "" },
		{ "e000", false, "" }, /* DISCONNECT */
		{ "f000", false, "" },
	};
	struct fake_client *c = &self->rx1;

	for (enum stage stage = CHALLENGING; stage <= OPENING; stage++) {
		for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
			uint8_t want[16];
			size_t want_n = strlen(rows[i].answer) / 2;

			stop_at(self, c, stage);
			client_send_hex(c, rows[i].packet);
			ASSERT_EQ(text_unhex(bytes_str(rows[i].answer), want, want_n), 0);
			EXPECT_EQ(!client_closed(c), rows[i].stays);
			ASSERT_EQ(c->conn->out_n - c->conn->read, want_n);
			ASSERT_BYTES(c->conn->out + c->conn->read, want, want_n);
			fake_hang_up(c->conn);
			self->fake->hold_verify = self->fake->hold_sign = false;
			fake_settle(self->fake);
		}
	}
	ASSERT_EQ(fake_stats(self->fake).auth_passed, 0);
	ASSERT_EQ(fake_stats(self->fake).sessions, 0);
}

/* Strangers get no room for large packets: their heads are enough. */
TEST_F(auth, packets_before_the_session_are_small)
{
	client_dial(&self->rx1);
	client_send_hex(&self->rx1, "10fcff09"); /* 160 KiB in all */
	ASSERT_FALSE(client_closed(&self->rx1));
	client_dial(&self->rx1);
	client_send_hex(&self->rx1, "10fdff09");
	ASSERT_TRUE(client_closed(&self->rx1));
	ASSERT_TRUE(challenged(&self->rx1));
	client_send_hex(&self->rx1, "30fd1f"); /* 4096 in all */
	ASSERT_FALSE(client_closed(&self->rx1));
	ASSERT_TRUE(challenged(&self->rx1));
	client_send_hex(&self->rx1, "30fe1f");
	ASSERT_TRUE(client_closed(&self->rx1));
	ASSERT_TRUE(client_up(&self->rx1));
	client_send_hex(&self->rx1, "30fe1f");
	ASSERT_FALSE(client_closed(&self->rx1));
}

TEST_F(auth, subscribe_before_authentication_leaves_nothing)
{
	ASSERT_TRUE(client_up(&self->dev1));
	ASSERT_TRUE(challenged(&self->rx1));
	ASSERT_EQ(client_subscribe(&self->rx1, TOPIC, 1), 0x80);
	client_send_response(&self->rx1, 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_result(&self->rx1));
	client_publish(&self->dev1, self->world->temp, TOPIC, "x", 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
}

/* A sealed PUBLISH, well signed, sent right behind CONNECT: it ends the connection all the same. */
TEST_F(auth, publish_before_authentication)
{
	ASSERT_TRUE(client_up(&self->rx1));
	ASSERT_EQ(client_subscribe(&self->rx1, TOPIC, 1), 1);
	client_dial(&self->dev1);
	client_send_connect(&self->dev1);
	client_publish(&self->dev1, self->world->temp, TOPIC, "x", 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(&self->dev1));
	ASSERT_TRUE(client_got_connack(&self->dev1, false, 0));
	ASSERT_TRUE(client_got_nothing(&self->dev1) && client_got_nothing(&self->rx1));
}

TEST_F(auth, time_out)
{
	struct broker_config *config = &self->fake->config;

	for (enum stage stage = CHALLENGING; stage <= OPENING; stage++) {
		stop_at(self, &self->rx1, stage);
		fake_pass(self->fake, config->limits.auth_timeout_ms - 100);
		client_send_empty(&self->rx1, MQTT_PINGREQ); /* does not help */
		ASSERT_FALSE(client_closed(&self->rx1));
		fake_pass(self->fake, 200);
		ASSERT_TRUE(client_closed(&self->rx1));
		self->fake->hold_verify = self->fake->hold_sign = false;
		fake_settle(self->fake);
	}
	ASSERT_EQ(fake_stats(self->fake).auth_failed, 4);
	ASSERT_EQ(fake_stats(self->fake).connections, 0);
}

/* Jobs come back for a connection that is gone. */
TEST_F(auth, hang_up_at_every_stage)
{
	for (enum stage stage = CHALLENGING; stage <= OPENING; stage++) {
		stop_at(self, &self->rx1, stage);
		fake_hang_up(self->rx1.conn);
		fake_turn(self->fake);
		self->fake->hold_verify = self->fake->hold_sign = false;
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_nothing(&self->rx1));
	}
	ASSERT_TRUE(client_up(&self->rx1));
}

/* --- takeover --------------------------------------------------------------------------------- */

/* PROTOCOL 5: at step 3, not at CONNECT. */
TEST_F(auth, takeover_only_once_authenticated)
{
	struct fake_client intruder, again;

	self->rx1.clean = false;
	ASSERT_TRUE(client_up(&self->rx1) && client_up(&self->dev1));
	ASSERT_EQ(client_subscribe(&self->rx1, TOPIC, 1), 1);
	/* Somebody who knows id and admission key, but not the signing key. */
	client_init_party(&intruder, self->world, self->world->rx1);
	client_dial(&intruder);
	client_send_connect(&intruder);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_connack(&intruder, false, 0) && client_got_challenge(&intruder));
	send_response(&intruder, none, self->world->rx2->key, "rx1");
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(&intruder));
	ASSERT_FALSE(client_closed(&self->rx1));
	client_publish(&self->dev1, self->world->temp, TOPIC, "one", 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "one", NULL));
	/* The party itself, on another connection. */
	client_init_party(&again, self->world, self->world->rx1);
	again.clean = false;
	client_dial(&again);
	client_send_connect(&again);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_connack(&again, true, 0) && client_got_challenge(&again));
	client_publish(&self->dev1, self->world->temp, TOPIC, "two", 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "two", NULL));
	ASSERT_FALSE(client_closed(&self->rx1));
	client_send_response(&again, 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(&self->rx1));
	ASSERT_TRUE(client_got_result(&again));
	/* Neither was acknowledged on the first connection. */
	ASSERT_TRUE(client_got_sealed(&again, "one", NULL));
	ASSERT_TRUE(client_got_sealed(&again, "two", NULL));
}

TEST_F(auth, two_at_once)
{
	struct fake_client other;

	client_init_party(&other, self->world, self->world->rx1);
	ASSERT_TRUE(challenged(&self->rx1) && challenged(&other));
	client_send_response(&self->rx1, 0);
	client_send_response(&other, 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_result(&self->rx1) && client_got_result(&other));
	ASSERT_TRUE(client_closed(&self->rx1) && !client_closed(&other));
	ASSERT_EQ(fake_stats(self->fake).sessions, 1);
}

/* --- refusals at CONNECT ---------------------------------------------------------------------- */

static struct mqtt_connect connect_of(struct fake_client *c, char *user_name)
{
	hash_random(c->r_c, sizeof(c->r_c));
	text_b64u(bytes_of(c->r_c, sizeof(c->r_c)), user_name);
	return (struct mqtt_connect){
		.level = 4,
		.clean_session = true,
		.client_id = bytes_str(c->id),
		.has_user_name = true,
		.has_password = true,
		.user_name = bytes_str(user_name),
	};
}

/* The CONNACK's code; a refusal also closes the connection, with nothing behind it. */
static int connack_of(struct fake_client *c, const struct mqtt_connect *p)
{
	uint8_t packet[1024];
	struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));
	struct mqtt_frame f;

	mqtt_encode_connect(p, &w);
	ASSERT_FALSE(w.bad);
	client_dial(c);
	client_send(c, bytes_of(packet, w.used));
	fake_settle(c->fake);
	ASSERT_TRUE(fake_next_packet(c->conn, &f));
	ASSERT_EQ(mqtt_frame_type(&f), MQTT_CONNACK);
	ASSERT_EQ(f.body.p[0], 0);
	ASSERT_EQ(c->conn->closed, f.body.p[1] != 0);
	ASSERT_EQ(fake_silent(c->conn), f.body.p[1] != 0);
	fake_hang_up(c->conn);
	fake_settle(c->fake);
	return f.body.p[1];
}

static int connack_with_token(struct fake_client *c, const uint8_t *k_adm, const char *token_id,
			      uint32_t slot)
{
	uint8_t token[ADMISSION_TOKEN_BYTES];
	char user_name[CLIENT_USER_NAME_MAX];
	struct mqtt_connect p = connect_of(c, user_name);

	ASSERT_EQ(admission_token(k_adm, bytes_str(token_id), p.user_name, slot, token), 0);
	p.password = bytes_of(token, sizeof(token));
	return connack_of(c, &p);
}

TEST_F(auth, admission_token)
{
	struct fake_client *c = &self->rx1;
	struct world_party *rx1 = self->world->rx1, *rx2 = self->world->rx2;
	uint32_t now = admission_slot(self->fake->wall_ms);
	char user_name[CLIENT_USER_NAME_MAX];
	struct mqtt_connect p;

	for (uint32_t slot = now - 3; slot <= now + 3; slot++)
		EXPECT_EQ(connack_with_token(c, rx1->k_adm, "rx1", slot),
			  slot + 1 >= now && slot <= now + 1 ? 0 : 5);
	EXPECT_EQ(connack_with_token(c, rx2->k_adm, "rx1", now), 5);
	EXPECT_EQ(connack_with_token(c, rx1->k_adm, "rx2", now), 5);
	EXPECT_EQ(connack_with_token(c, rx1->k_adm, "rx1", 0), 5); /* no such policy */
	p = connect_of(c, user_name);
	EXPECT_EQ(connack_of(c, &p), 5); /* an empty one */
	ASSERT_EQ(fake_stats(self->fake).admission_refused, 8);
	ASSERT_TRUE(client_up(c));
}

/* It is bound to User Name, whole, and to every bit of itself. */
TEST_F(auth, admission_token_of_another_user_name)
{
	struct fake_client *c = &self->rx1;
	uint8_t token[ADMISSION_TOKEN_BYTES];
	char user_name[CLIENT_USER_NAME_MAX], other[CLIENT_USER_NAME_MAX];
	struct mqtt_connect p = connect_of(c, user_name);

	ASSERT_EQ(admission_token(self->world->rx1->k_adm, p.client_id, p.user_name,
				  admission_slot(self->fake->wall_ms), token),
		  0);
	p = connect_of(c, other);
	p.password = bytes_of(token, sizeof(token));
	EXPECT_EQ(connack_of(c, &p), 5);
	p.user_name = bytes_str(user_name);
	for (size_t n = 0; n < sizeof(token); n++) {
		p.password = bytes_of(token, n);
		EXPECT_EQ(connack_of(c, &p), 5);
	}
	for (unsigned bit = 0; bit < 8 * sizeof(token); bit++) {
		token[bit / 8] ^= (uint8_t)(1 << bit % 8);
		p.password = bytes_of(token, sizeof(token));
		EXPECT_EQ(connack_of(c, &p), 5);
		token[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	EXPECT_EQ(connack_of(c, &p), 0);
}

/* PROTOCOL 6: slot 0 is for ids with that policy, at any time. */
TEST_F(auth, admission_without_a_clock)
{
	struct world_party *rx1 = self->world->rx1;

	rx1->admission_flags = BUNDLE_ADMISSION_NO_CLOCK;
	world_apply(self->world);
	EXPECT_EQ(connack_with_token(&self->rx1, rx1->k_adm, "rx1", 0), 0);
	EXPECT_EQ(connack_with_token(&self->rx1, rx1->k_adm, "rx1", 0), 5); /* at a low rate */
	fake_pass(self->fake, 2000);
	EXPECT_EQ(connack_with_token(&self->rx1, rx1->k_adm, "rx1", 0), 0);
	EXPECT_EQ(connack_with_token(&self->rx2, self->world->rx2->k_adm, "rx2", 0), 5);
	EXPECT_EQ(connack_with_token(&self->rx1, rx1->k_adm, "rx1",
				     admission_slot(self->fake->wall_ms) + 5),
		  5);
	EXPECT_EQ(connack_with_token(&self->rx1, rx1->k_adm, "rx1",
				     admission_slot(self->fake->wall_ms)),
		  0);
}

TEST_F(auth, without_admission_the_password_is_free)
{
	struct broker_config config;
	char user_name[CLIENT_USER_NAME_MAX];
	struct mqtt_connect p;

	fake_config(false, &config);
	config.admission = BROKER_ADMISSION_OFF;
	restart_with(self, &config);
	p = connect_of(&self->rx1, user_name);
	EXPECT_EQ(connack_of(&self->rx1, &p), 0);
	p.password = bytes_str("anything");
	EXPECT_EQ(connack_of(&self->rx1, &p), 0);
	p.has_password = false; /* both flags are asked for */
	p.password = bytes_of(NULL, 0);
	EXPECT_EQ(connack_of(&self->rx1, &p), 4);
	ASSERT_TRUE(client_up(&self->rx1));
}

TEST_F(auth, ids_and_user_names)
{
	static const char *const ids[] = { "", "rx/1", "rx 1", "r\xc3\xa4",
					   "0123456789abcdef0123456789abcdef0123456789abcdef"
					   "0123456789abcdef0" };
	char user_name[CLIENT_USER_NAME_MAX];
	struct mqtt_connect p;

	for (unsigned i = 0; i < ARRAY_SIZE(ids); i++) {
		p = connect_of(&self->rx1, user_name);
		p.client_id = bytes_str(ids[i]);
		EXPECT_EQ(connack_of(&self->rx1, &p), 2);
	}
	p = connect_of(&self->rx1, user_name);
	p.client_id = bytes_str("stranger");
	EXPECT_EQ(connack_of(&self->rx1, &p), 5);
	p = connect_of(&self->rx1, user_name);
	p.has_user_name = p.has_password = false;
	p.user_name = bytes_of(NULL, 0);
	EXPECT_EQ(connack_of(&self->rx1, &p), 4);
	for (size_t n = 0; n < 43; n++) {
		p = connect_of(&self->rx1, user_name);
		p.user_name.n = n;
		EXPECT_EQ(connack_of(&self->rx1, &p), 4);
	}
	p = connect_of(&self->rx1, user_name);
	user_name[5] = '+'; /* base64, not base64url */
	EXPECT_EQ(connack_of(&self->rx1, &p), 4);
	user_name[5] = 'a';
	user_name[42] = '_'; /* the last one has two bits to spare, which must be 0 */
	EXPECT_EQ(connack_of(&self->rx1, &p), 4);
	ASSERT_EQ(fake_stats(self->fake).auth_passed, 0);
}

TEST_F(auth, no_bundle_no_session)
{
	fake_restart(self->fake);
	client_dial(&self->rx1);
	client_send_connect(&self->rx1);
	ASSERT_TRUE(client_got_connack(&self->rx1, false, 3));
	ASSERT_TRUE(client_closed(&self->rx1));
}

TEST_F(auth, sessions_are_bounded)
{
	struct broker_config config;

	fake_config(false, &config);
	config.limits.sessions_max = 1;
	restart_with(self, &config);
	ASSERT_TRUE(client_up_persistent(&self->rx1));
	fake_hang_up(self->rx1.conn);
	client_dial(&self->rx2);
	client_send_connect(&self->rx2);
	ASSERT_TRUE(client_got_connack(&self->rx2, false, 3));
	ASSERT_TRUE(client_closed(&self->rx2));
	ASSERT_TRUE(client_resumes(&self->rx1, true)); /* there is room for the one that is kept */
}

/* Without the token, strangers do not fill its queue without end. */
TEST_F(auth, challenges_that_wait_are_bounded)
{
	unsigned n = 0;

	self->fake->hold_sign = true;
	for (; n < 5000; n++) {
		client_dial(&self->rx1);
		client_send_connect(&self->rx1);
		if (client_closed(&self->rx1))
			break;
	}
	ASSERT_EQ(n, 1024);
	ASSERT_TRUE(client_got_connack(&self->rx1, false, 3));
	self->fake->hold_sign = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_up(&self->rx1));
}

/* There was room at CONNECT, and none any more at step 3. */
TEST_F(auth, sessions_are_bounded_at_step_3_too)
{
	struct broker_config config;

	fake_config(false, &config);
	config.limits.sessions_max = 1;
	restart_with(self, &config);
	ASSERT_TRUE(challenged(&self->rx1) && challenged(&self->rx2));
	client_send_response(&self->rx1, 0);
	client_send_response(&self->rx2, 0);
	fake_settle(self->fake);
	ASSERT_FALSE(client_closed(&self->rx1));
	ASSERT_TRUE(client_closed(&self->rx2));
	ASSERT_EQ(fake_stats(self->fake).sessions, 1);
}

TEST_F(auth, connections_are_bounded)
{
	struct broker_config config;

	fake_config(false, &config);
	config.limits.connections_max = 1;
	restart_with(self, &config);
	ASSERT_TRUE(client_up(&self->rx1));
	ASSERT_TRUE(fake_try_open(self->fake) == NULL);
	fake_hang_up(self->rx1.conn);
	ASSERT_TRUE(client_up(&self->rx2));
}

/* --- Wills ------------------------------------------------------------------------------------ */

/* The session does not open (PROTOCOL 4). */
static bool will_refused(struct fixture_auth *self, struct fake_client *c)
{
	if (!challenged(c))
		return false;
	client_send_response(c, 0);
	fake_settle(self->fake);
	return client_closed(c) && client_got_nothing(c);
}

TEST_F(auth, will_is_delivered_converted)
{
	struct fake_client *c = &self->dev1;
	struct fake_sealed will;
	struct fake_opened o;

	ASSERT_TRUE(client_up(&self->rx1) && client_up(&self->rx2));
	ASSERT_EQ(client_subscribe(&self->rx1, "#", 1), 1);
	ASSERT_EQ(client_subscribe(&self->rx2, "#", 1), 1);
	client_seal_will(c, self->world->temp, TOPIC, "gone", &will);
	ASSERT_TRUE(client_up(c));
	ASSERT_EQ(c->highest, 1); /* consumed when the session opens */
	fake_hang_up(c->conn);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "gone", &o));
	ASSERT_EQ(o.publish.qos, 1);
	ASSERT_TRUE(client_got_sealed(&self->rx2, "gone", &o)); /* with the sender's proof */
	/* Its counter is spent: the same Will opens no second session. */
	ASSERT_TRUE(will_refused(self, c));
	/* Neither does the message it was. */
	c->has_will = false;
	ASSERT_TRUE(client_up(c));
	client_send_publish(c, &will.publish);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(c, MQTT_PUBACK, will.publish.packet_id));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
}

TEST_F(auth, will_is_not_published_after_disconnect)
{
	struct fake_sealed will;

	ASSERT_TRUE(client_up(&self->rx1));
	ASSERT_EQ(client_subscribe(&self->rx1, "#", 1), 1);
	client_seal_will(&self->dev1, self->world->temp, TOPIC, "gone", &will);
	ASSERT_TRUE(client_up(&self->dev1));
	client_send_empty(&self->dev1, MQTT_DISCONNECT);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
}

TEST_F(auth, wills_that_open_no_session)
{
	struct fake_client *c = &self->dev1;
	struct fake_sealed s;

	client_seal_will(c, self->world->temp, TOPIC, "x", &s);
	s.payload[s.n - 10] ^= 1;
	EXPECT_TRUE(will_refused(self, c)); /* signature */
	client_seal_will(c, self->world->temp, TOPIC, "x", &s);
	c->will.retain = true;
	EXPECT_TRUE(will_refused(self, c)); /* signed as another PUBLISH */
	client_seal_will(c, self->world->temp, TOPIC, "x", &s);
	c->will.qos = 0;
	EXPECT_TRUE(will_refused(self, c));
	client_seal_will(c, self->world->cam, "cam/1", "x", &s);
	EXPECT_TRUE(will_refused(self, c)); /* not its scope */
	client_seal_will(c, self->world->temp, "cam/1", "x", &s);
	EXPECT_TRUE(will_refused(self, c)); /* not the scope's topic */
	client_seal_will(c, self->world->temp, TOPIC, "x", &s);
	c->will.topic = bytes_str("site/2/temp");
	EXPECT_TRUE(will_refused(self, c));
	client_seal_will(c, self->world->temp, TOPIC, "x", &s);
	s.payload[28] ^= 1; /* bind */
	client_sign(c, &s);
	EXPECT_TRUE(will_refused(self, c));
	client_seal_will(c, self->world->temp, TOPIC, "x", &s);
	c->will.payload = bytes_str("not sealed");
	EXPECT_TRUE(will_refused(self, c));
	c->will.payload = bytes_of(NULL, 0);
	EXPECT_TRUE(will_refused(self, c));
	ASSERT_EQ(fake_stats(self->fake).auth_passed, 0);
	/* What was refused has consumed nothing. */
	c->has_will = false;
	ASSERT_TRUE(client_up(c));
	ASSERT_EQ(c->highest, 0);
}

/* A conversion of it may exist already: it opens no session any more (PROTOCOL 2). */
TEST_F(auth, will_of_a_retired_context)
{
	struct fake_sealed will;

	ASSERT_TRUE(client_up(&self->dev1));
	client_publish(&self->dev1, self->world->temp, TOPIC, "x", 1);
	fake_settle(self->fake);
	client_seal_will(&self->dev1, self->world->temp, TOPIC, "gone", &will);
	world_revoke(self->world, self->world->rx2_temp);
	world_apply(self->world);
	ASSERT_TRUE(will_refused(self, &self->dev1));
	client_new_context(&self->dev1, self->world->temp);
	client_seal_will(&self->dev1, self->world->temp, TOPIC, "gone", &will);
	ASSERT_TRUE(client_up(&self->dev1));
}

TEST_F(auth, will_to_a_topic_of_the_brokers_own)
{
	struct fake_sealed s;

	client_seal_will(&self->dev1, self->world->temp, TOPIC, "x", &s);
	self->dev1.will.topic = bytes_str("$SSDTF/report");
	client_dial(&self->dev1);
	client_send_connect(&self->dev1);
	ASSERT_TRUE(client_got_connack(&self->dev1, false, 5));
	ASSERT_TRUE(client_closed(&self->dev1));
}

/* It is published with its session and no other: not when it goes before that is open. */
TEST_F(auth, will_of_a_session_that_never_opened)
{
	struct fake_sealed s;

	ASSERT_TRUE(client_up(&self->rx1));
	ASSERT_EQ(client_subscribe(&self->rx1, "#", 1), 1);
	for (enum stage stage = CHALLENGING; stage <= OPENING; stage++) {
		client_seal_will(&self->dev1, self->world->temp, TOPIC, "x", &s);
		stop_at(self, &self->dev1, stage);
		fake_hang_up(self->dev1.conn);
		self->fake->hold_verify = self->fake->hold_sign = false;
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_nothing(&self->rx1));
	}
}

/* --- $SSDTF/ once the session is open --------------------------------------------------------- */

TEST_F(auth, filters_of_the_brokers_own)
{
	static const struct {
		const char *filter;
		uint8_t code;
	} rows[] = {
		{ "$SSDTF/#", 0x80 },
		{ "$SSDTF/auth/challenge", 0x80 },
		{ "$SSDTF/+", 0x80 },
		{ "$SSDTF/", 0x80 },
		{ "$SSDTF", 0x80 },
		{ "$share/x/$SSDTF/#", 0x80 },
		{ "$share/x/$SSDTF/error", 0x80 },
		{ "$SSDTFX/a", 1 },
		{ "#", 1 },
		{ "+/#", 1 },
		{ "+/auth/challenge", 1 },
	};

	ASSERT_TRUE(client_up(&self->rx1));
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		EXPECT_EQ(client_subscribe(&self->rx1, rows[i].filter, 1), rows[i].code);
	/* The wildcards that were granted show nothing of another's challenge, result or error. */
	ASSERT_TRUE(client_up(&self->rx2) && client_up(&self->dev1));
	client_publish(&self->dev1, self->world->cam, "cam/1", "x", 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_NOT_PERMITTED, 1));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
}

/* PROTOCOL 5: from a client only auth/response (before), nack and report are accepted. */
TEST_F(auth, topics_of_the_brokers_own)
{
	static const char *const topics[] = {
		"$SSDTF/auth/challenge",
		"$SSDTF/auth/response",
		"$SSDTF/auth/result",
		"$SSDTF/error",
		"$SSDTF/",
		"$SSDTF/nack/x",
	};

	for (unsigned i = 0; i < ARRAY_SIZE(topics); i++) {
		ASSERT_TRUE(client_up(&self->dev1));
		client_send_signed(&self->dev1, topics[i], bytes_str("x"), 1);
		fake_settle(self->fake);
		EXPECT_TRUE(client_closed(&self->dev1));
		EXPECT_TRUE(client_got_nothing(&self->dev1));
	}
}

TEST_F(auth, only_receivers_subscribe)
{
	struct fake_client mgr;

	ASSERT_TRUE(client_up(&self->dev1));
	ASSERT_EQ(client_subscribe(&self->dev1, TOPIC, 1), 0x80);
	client_init_party(&mgr, self->world, self->world->mgr);
	ASSERT_TRUE(client_up(&mgr));
	ASSERT_EQ(client_subscribe(&mgr, "#", 1), 0x80);
}

TEST_F(auth, keep_alive)
{
	self->rx1.keepalive_s = 10;
	ASSERT_TRUE(client_up(&self->rx1));
	fake_pass(self->fake, 14900);
	ASSERT_FALSE(client_closed(&self->rx1));
	fake_pass(self->fake, 200);
	ASSERT_TRUE(client_closed(&self->rx1));
}
