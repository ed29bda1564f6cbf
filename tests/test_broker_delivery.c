// SPDX-License-Identifier: MIT
/*
 * What becomes of a sealed message on its way out: conversion at delivery, batches under one
 * signature, order, redelivery, revocation at every stage, nacks and reports (PROTOCOL 3, 4 and 7).
 */
#include <errno.h>
#include <stdio.h>

#include "tests/fake_client.h"
#include "tests/harness.h"

HARNESS_MAIN

#define TOPIC "site/1/temp"

FIXTURE(out)
{
	struct world *world;
	struct fake_broker *fake;
	const struct world_scope *temp, *cam;
	struct fake_client dev1, dev2, rx1, rx2, rx3, mgr;
};

/* dev1, rx1 and rx2 are connected; the receivers listen to everything. */
static void start(struct fixture_out *self, const struct broker_config *config)
{
	self->world = world_new(config);
	self->fake = self->world->fake;
	self->temp = self->world->temp;
	self->cam = self->world->cam;
	client_init_party(&self->dev1, self->world, self->world->dev1);
	client_init_party(&self->dev2, self->world, self->world->dev2);
	client_init_party(&self->rx1, self->world, self->world->rx1);
	client_init_party(&self->rx2, self->world, self->world->rx2);
	client_init_party(&self->rx3, self->world, self->world->rx3);
	client_init_party(&self->mgr, self->world, self->world->mgr);
	ASSERT_TRUE(client_up(&self->dev1));
	ASSERT_TRUE(client_up_persistent(&self->rx1) && client_up_persistent(&self->rx2));
	ASSERT_EQ(client_subscribe(&self->rx1, "#", 1), 1);
	ASSERT_EQ(client_subscribe(&self->rx2, "#", 1), 1);
}

static void finish(struct fixture_out *self)
{
	client_deinit(&self->dev1);
	client_deinit(&self->dev2);
	client_deinit(&self->rx1);
	client_deinit(&self->rx2);
	client_deinit(&self->rx3);
	client_deinit(&self->mgr);
	world_free(self->world);
}

FIXTURE_SETUP(out)
{
	start(self, NULL);
}

FIXTURE_TEARDOWN(out)
{
	finish(self);
}

static void restart_with(struct fixture_out *self, const struct broker_config *config)
{
	finish(self);
	start(self, config);
}

/* n messages with numbers for text, from number `from`; each under a context of its own or all
 * under the one that is open. */
static void publish_numbers(struct fixture_out *self, unsigned from, unsigned n, bool contexts)
{
	char text[16];

	for (unsigned i = from; i < from + n; i++) {
		snprintf(text, sizeof(text), "%u", i);
		if (contexts)
			client_new_context(&self->dev1, self->temp);
		client_publish(&self->dev1, self->temp, TOPIC, text, 1);
	}
}

static bool got_number(struct fake_client *c, unsigned i, struct fake_opened *ret_o)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", i);
	return client_got_sealed(c, text, ret_o);
}

/* The next n deliveries are these; each is acknowledged. */
static bool takes_numbers(struct fake_client *c, unsigned from, unsigned n)
{
	for (unsigned i = from; i < from + n; i++) {
		struct fake_opened o;

		if (!got_number(c, i, &o))
			return false;
		client_send_ack(c, MQTT_PUBACK, o.publish.packet_id);
		fake_settle(c->fake);
	}
	return true;
}

static void ack(struct fake_client *c, const struct fake_opened *o)
{
	client_send_ack(c, MQTT_PUBACK, o->publish.packet_id);
	fake_settle(c->fake);
}

/* Whatever the sender was told: acknowledgements, in between no error. */
static bool only_acks(struct fake_client *c)
{
	struct mqtt_frame f;

	while (fake_next_packet(c->conn, &f))
		if (mqtt_frame_type(&f) != MQTT_PUBACK)
			return false;
	return true;
}

/* --- conversion ------------------------------------------------------------------------------- */

/* Two receivers, two conversions, both open; and what both differ in. */
TEST_F(out, each_receiver_gets_its_own)
{
	struct fake_opened a, b;

	client_publish(&self->dev1, self->temp, TOPIC, "21.5", 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", &a));
	ASSERT_TRUE(client_got_sealed(&self->rx2, "21.5", &b));
	ASSERT_FALSE(bytes_equal(a.envelope.x, b.envelope.x));
	ASSERT_FALSE(bytes_equal(a.publish.payload, b.publish.payload));
	ASSERT_TRUE(bytes_equal(a.envelope.ct, b.envelope.ct));
	ASSERT_TRUE(bytes_equal(a.envelope.origin, bytes_str("dev1")));
	ASSERT_EQ(a.envelope.proof.n, 0);
	ASSERT_GT(b.envelope.proof.n, 0); /* its grant asks for one, and client_open() checked it */
	ASSERT_EQ(self->fake->conversions, 2);
	/* PROTOCOL 2: bytes 0..124 are the sender's. */
	ASSERT_BYTES(a.trailer.body.p, b.trailer.body.p, ENVELOPE_FIXED_BYTES - 1);
}

TEST_F(out, qos_of_the_subscription)
{
	struct fake_opened o;

	ASSERT_EQ(client_subscribe(&self->rx1, "#", 0), 0);
	client_publish(&self->dev1, self->temp, TOPIC, "21.5", 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", &o));
	ASSERT_EQ(o.publish.qos, 0);
	ASSERT_TRUE(client_got_sealed(&self->rx2, "21.5", &o)); /* with proof: of QoS 1 as sent */
	ASSERT_EQ(o.publish.qos, 1);
}

/* PROTOCOL 3: converted when delivered, not when queued. */
TEST_F(out, conversion_is_at_delivery)
{
	fake_hang_up(self->rx1.conn);
	fake_hang_up(self->rx2.conn);
	publish_numbers(self, 0, 3, true);
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->conversions, 0);
	ASSERT_EQ(fake_stats(self->fake).queued, 6);
	ASSERT_TRUE(client_resumes(&self->rx1, true));
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->conversions, 3);
	ASSERT_TRUE(takes_numbers(&self->rx1, 0, 3));
}

TEST_F(out, without_a_grant_nothing)
{
	ASSERT_TRUE(client_up_persistent(&self->rx3));
	ASSERT_EQ(client_subscribe(&self->rx3, "#", 1), 1);
	publish_numbers(self, 0, 2, false);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx3));
	ASSERT_EQ(fake_stats(self->fake).no_grant, 2);
	ASSERT_TRUE(takes_numbers(&self->rx1, 0, 2));
	/* Nor does it fill the queue of one that is absent. */
	fake_hang_up(self->rx3.conn);
	publish_numbers(self, 2, 2, false);
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->rx1, 2, 2));
	ASSERT_EQ(fake_stats(self->fake).queued, 4); /* rx2's */
	/* rx1 reads temp alone. */
	ASSERT_TRUE(client_up(&self->dev2));
	client_publish(&self->dev2, self->cam, "cam/1", "x", 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_TRUE(takes_numbers(&self->rx2, 0, 4));
	ASSERT_TRUE(client_got_sealed(&self->rx2, "x", NULL));
}

TEST_F(out, one_conversion_serves_a_context)
{
	publish_numbers(self, 0, 50, false);
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->conversions, 2);
	publish_numbers(self, 50, 50, false);
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->conversions, 2);
	ASSERT_EQ(fake_stats(self->fake).capsules, 2);
	ASSERT_GE(fake_stats(self->fake).capsule_hits, 2 * 50);
	ASSERT_TRUE(takes_numbers(&self->rx1, 0, 100) && takes_numbers(&self->rx2, 0, 100));
}

/* One question is never asked twice at once. */
TEST_F(out, conversions_under_way_are_shared)
{
	self->fake->hold_convert = true;
	publish_numbers(self, 0, 20, false);
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->n_token, 2);
	ASSERT_EQ(fake_stats(self->fake).capsule_hits, 0);
	self->fake->hold_convert = false;
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->conversions, 2);
	ASSERT_TRUE(takes_numbers(&self->rx1, 0, 20) && takes_numbers(&self->rx2, 0, 20));
}

TEST_F(out, conversions_remembered_are_bounded)
{
	struct broker_config config;

	fake_config(false, &config);
	config.limits.capsules_max = 4;
	restart_with(self, &config);
	publish_numbers(self, 0, 10, true);
	fake_settle(self->fake);
	ASSERT_LE(fake_stats(self->fake).capsules, 20); /* all were asked at once */
	ASSERT_TRUE(takes_numbers(&self->rx1, 0, 10) && takes_numbers(&self->rx2, 0, 10));
	for (unsigned i = 10; i < 20; i++) {
		publish_numbers(self, i, 1, true);
		fake_settle(self->fake);
		ASSERT_TRUE(takes_numbers(&self->rx1, i, 1) && takes_numbers(&self->rx2, i, 1));
	}
	ASSERT_LE(fake_stats(self->fake).capsules, 4);
}

/* --- signatures ------------------------------------------------------------------------------- */

TEST_F(out, one_alone_is_signed_by_itself)
{
	struct fake_opened o;

	fake_hang_up(self->rx2.conn);
	publish_numbers(self, 0, 1, false);
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, &o));
	ASSERT_EQ(o.trailer.kind, 1);
}

/* Those that gather share a root; client_open() checks every path. */
TEST_F(out, many_share_a_signature)
{
	struct broker_config config;
	struct fake_opened o;
	unsigned signatures, batches = 0;

	fake_config(false, &config);
	config.limits.inflight_max = 1000;
	restart_with(self, &config);
	publish_numbers(self, 0, 1, false);
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->rx1, 0, 1) && takes_numbers(&self->rx2, 0, 1));
	signatures = self->fake->signatures;
	self->fake->hold_sign = true;
	publish_numbers(self, 1, 1, false);
	fake_settle(self->fake); /* two batches are out from here on, of one receiver's each or of
				    both */
	publish_numbers(self, 2, 1, false);
	fake_settle(self->fake);
	publish_numbers(self, 3, 150, false);
	fake_settle(self->fake);
	self->fake->hold_sign = false;
	fake_settle(self->fake);
	/* 300 deliveries in batches of at most 256, and those before. */
	ASSERT_LE(self->fake->signatures - signatures, 3 + 2);
	for (unsigned i = 1; i < 153; i++) {
		ASSERT_TRUE(got_number(&self->rx1, i, &o));
		if (o.trailer.kind == 2) {
			ASSERT_LE(o.trailer.size, 256);
			batches++;
		}
		ack(&self->rx1, &o);
	}
	ASSERT_GE(batches, 150);
	ASSERT_TRUE(takes_numbers(&self->rx2, 1, 152));
}

/* The proof may itself be a batch trailer of the sender's. */
TEST_F(out, proof_of_a_batch)
{
	uint8_t nodes[8][HASH_BYTES], digest[HASH_BYTES], sig[P256_SIG_BYTES];
	struct fake_sealed s[2];
	struct merkle m;

	for (unsigned i = 0; i < 2; i++) {
		struct publish p;

		client_seal(&self->dev1, self->temp, TOPIC, i ? "1" : "0", 1, false, &s[i]);
		s[i].n -= PUBLISH_TRAILER_1_BYTES;
		p = (struct publish){
			.first = mqtt_publish_first(1, false, false),
			.topic = s[i].publish.topic,
			.body = { bytes_of(s[i].payload, s[i].n) },
			.body_parts = 1,
			.client_id = bytes_str("dev1"),
		};
		publish_leaf(&p, nodes[i]);
	}
	merkle_build(&m, nodes, 2);
	publish_root_digest(merkle_root(&m), digest);
	ASSERT_EQ(p256_sign_digest(self->world->dev1->key, digest, sig), 0);
	for (uint16_t i = 0; i < 2; i++) {
		struct bytes_writer w =
			bytes_writer_of(s[i].payload + s[i].n, CLIENT_SEALED_MAX - s[i].n);

		publish_write_trailer_2(sig, &m, i, &w);
		s[i].publish.payload = bytes_of(s[i].payload, s[i].n + w.used);
		client_send_publish(&self->dev1, &s[i].publish);
	}
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->rx2, 0, 2));
}

/* --- order ------------------------------------------------------------------------------------ */

/* A step of the token, of storage or of the engine, at random. */
static void random_step(struct fake_broker *f)
{
	switch (harness_random() % 4) {
	case 0:
		(void)fake_run_verify(f);
		break;
	case 1:
		(void)fake_run_commit(f);
		break;
	case 2:
		fake_turn(f);
		break;
	default:
		(void)fake_run_token(f);
		break;
	}
}

TEST_F(out, order_under_any_order_of_jobs)
{
	for (unsigned round = 0; round < 10; round++) {
		publish_numbers(self, 0, 40, true);
		for (unsigned i = 0; i < 300; i++)
			random_step(self->fake);
		fake_settle(self->fake);
		ASSERT_TRUE(takes_numbers(&self->rx1, 0, 40));
		ASSERT_TRUE(takes_numbers(&self->rx2, 0, 40));
	}
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

/* An error or a result does not overtake what was signed before it. */
TEST_F(out, control_messages_keep_their_place)
{
	self->fake->hold_sign = true;
	publish_numbers(self, 0, 1, false);
	fake_settle(self->fake);
	client_send_nack(&self->rx1, 0, 1, "dev1"); /* no reason */
	fake_settle(self->fake);
	self->fake->hold_sign = false;
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, NULL));
	ASSERT_TRUE(client_got_error(&self->rx1, CONTROL_MALFORMED, 0));
}

TEST_F(out, in_flight_window)
{
	struct broker_config config;
	struct fake_opened o;

	fake_config(false, &config);
	config.limits.inflight_max = 4;
	restart_with(self, &config);
	publish_numbers(self, 0, 10, true);
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->conversions, 8); /* no earlier than they may be sent */
	for (unsigned i = 0; i < 4; i++)
		ASSERT_TRUE(got_number(&self->rx1, i, &o));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ack(&self->rx1, &o);
	ASSERT_TRUE(got_number(&self->rx1, 4, NULL));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_TRUE(takes_numbers(&self->rx2, 0, 10));
}

/* What is being converted or signed will be in the output soon: it counts as if it were. */
TEST_F(out, output_above_its_soft_limit_waits)
{
	struct broker_config config;

	fake_config(false, &config);
	config.limits.output_bytes_soft = 5000;
	restart_with(self, &config);
	self->fake->hold_convert = true;
	publish_numbers(self, 0, 40, true);
	fake_settle(self->fake);
	ASSERT_GE(self->fake->n_token, 2 * 5);
	ASSERT_LE(self->fake->n_token, 2 * 20);
	self->fake->hold_convert = false;
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->rx1, 0, 40) && takes_numbers(&self->rx2, 0, 40));
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

/* --- redelivery ------------------------------------------------------------------------------- */

TEST_F(out, redelivery_is_converted_again)
{
	struct fake_opened first, again;
	uint16_t id;

	publish_numbers(self, 0, 2, true);
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, &first));
	id = first.publish.packet_id;
	fake_hang_up(self->rx1.conn);
	ASSERT_TRUE(client_resumes(&self->rx1, true));
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, &again));
	ASSERT_TRUE(again.publish.dup);
	ASSERT_EQ(again.publish.packet_id, id);
	ack(&self->rx1, &again);
	ASSERT_TRUE(got_number(&self->rx1, 1, &again) && again.publish.dup);
	ack(&self->rx1, &again);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_EQ(self->fake->conversions, 4); /* the token was not asked again */
}

/* The receiver goes while its messages are being converted or signed. */
TEST_F(out, reconnect_at_every_stage)
{
	for (unsigned i = 0; i < 2; i++) {
		struct fake_opened o;

		self->fake->hold_convert = i == 0;
		self->fake->hold_sign = i == 1;
		publish_numbers(self, 0, 5, true);
		fake_settle(self->fake);
		fake_hang_up(self->rx1.conn);
		fake_turn(self->fake);
		self->fake->hold_convert = self->fake->hold_sign = false;
		fake_settle(self->fake);
		ASSERT_TRUE(takes_numbers(&self->rx2, 0, 5));
		ASSERT_TRUE(client_resumes(&self->rx1, true));
		fake_settle(self->fake);
		ASSERT_TRUE(got_number(&self->rx1, 0, &o));
		ASSERT_FALSE(o.publish.dup); /* it was never sent */
		ack(&self->rx1, &o);
		ASSERT_TRUE(takes_numbers(&self->rx1, 1, 4));
	}
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

/* A clean session goes with all it had under way. */
TEST_F(out, clean_session_goes_at_every_stage)
{
	fake_hang_up(self->rx2.conn);
	for (unsigned i = 0; i < 3; i++) {
		ASSERT_TRUE(client_up_clean(&self->rx2));
		ASSERT_EQ(client_subscribe(&self->rx2, "#", 1), 1);
		self->fake->hold_convert = i == 0;
		self->fake->hold_sign = i == 1;
		publish_numbers(self, 0, 5, true);
		fake_settle(self->fake);
		fake_hang_up(self->rx2.conn);
		fake_turn(self->fake);
		self->fake->hold_convert = self->fake->hold_sign = false;
		fake_settle(self->fake);
		ASSERT_TRUE(takes_numbers(&self->rx1, 0, 5));
		ASSERT_EQ(fake_stats(self->fake).queued, 0);
	}
}

/* out() says no in the middle of a batch that others share. */
TEST_F(out, output_full_in_a_batch)
{
	struct mqtt_publish p;
	unsigned written = 0;

	self->rx1.conn->stalled = true;
	self->rx1.conn->out_max = 1000;
	self->fake->hold_sign = true;
	publish_numbers(self, 0, 20, false);
	fake_settle(self->fake);
	self->fake->hold_sign = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(&self->rx1));
	fake_unstall(self->rx1.conn);
	for (; !fake_silent(self->rx1.conn); written++)
		ASSERT_TRUE(client_got_publish(&self->rx1, &p) && !p.dup);
	ASSERT_GT(written, 0);
	ASSERT_LT(written, 20);
	ASSERT_TRUE(takes_numbers(&self->rx2, 0, 20));
	ASSERT_TRUE(client_resumes(&self->rx1, true));
	fake_settle(self->fake);
	for (unsigned i = 0; i < 20; i++) {
		struct fake_opened o;

		ASSERT_TRUE(got_number(&self->rx1, i, &o));
		ASSERT_EQ(o.publish.dup, i < written); /* only what was written before */
		ack(&self->rx1, &o);
	}
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

/* --- retained --------------------------------------------------------------------------------- */

TEST_F(out, retained)
{
	struct fake_opened o;

	client_publish_retained(&self->dev1, self->temp, TOPIC, "one", 1);
	client_publish_retained(&self->dev1, self->temp, TOPIC, "two", 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "one", &o) && !o.publish.retain);
	ack(&self->rx1, &o);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "two", &o) && !o.publish.retain);
	ack(&self->rx1, &o);
	ASSERT_EQ(fake_stats(self->fake).retained, 1);
	/* Kept at level 0: each gets its own conversion, and the proof of the RETAIN that was sent.
	 */
	ASSERT_TRUE(client_unsubscribe(&self->rx1, "#"));
	ASSERT_EQ(client_subscribe(&self->rx1, "site/#", 1), 1);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "two", &o) && o.publish.retain);
	fake_hang_up(self->rx2.conn);
	self->rx2.clean = true;
	ASSERT_TRUE(client_up(&self->rx2));
	ASSERT_EQ(client_subscribe(&self->rx2, "site/#", 0), 0);
	ASSERT_TRUE(client_got_sealed(&self->rx2, "two", &o) && o.publish.retain);
	ASSERT_TRUE(client_up(&self->rx3));
	ASSERT_EQ(client_subscribe(&self->rx3, "site/#", 1), 1);
	ASSERT_TRUE(client_got_nothing(&self->rx3));
	/* An empty plaintext clears the topic. */
	client_publish_retained(&self->dev1, self->temp, TOPIC, "", 1);
	fake_settle(self->fake);
	ASSERT_EQ(fake_stats(self->fake).retained, 0);
	ASSERT_TRUE(client_got_sealed(&self->rx2, "", NULL));
	ASSERT_EQ(client_subscribe(&self->rx2, "site/#", 0), 0);
	ASSERT_TRUE(client_got_nothing(&self->rx2));
}

static void is_level_0(void *ctx, struct bytes topic, struct bytes body)
{
	const struct fake_sealed *s = ctx;

	ASSERT_TRUE(bytes_equal(topic, s->publish.topic));
	ASSERT_TRUE(bytes_equal(body, bytes_of(s->payload, s->n - PUBLISH_TRAILER_1_BYTES)));
}

/* PROTOCOL 3: level-0 bytes are what is stored. */
TEST_F(out, retained_as_it_was_sealed)
{
	struct fake_sealed s;

	client_seal(&self->dev1, self->temp, TOPIC, "x", 1, true, &s);
	client_send_publish(&self->dev1, &s.publish);
	fake_settle(self->fake);
	ASSERT_EQ(fake_stats(self->fake).retained, 1);
	broker_each_retained(self->fake->engine, is_level_0, &s);
}

/* A new grant reads what was retained before it, as no key of the old one's could. */
TEST_F(out, retained_for_a_new_grant)
{
	struct fake_opened o;

	client_publish_retained(&self->dev1, self->temp, TOPIC, "x", 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_up(&self->rx3));
	world_add_grant(self->world, self->world->rx3, self->world->temp, RECORD_GRANT_PROOF);
	world_apply(self->world);
	ASSERT_EQ(client_subscribe(&self->rx3, "#", 1), 1);
	ASSERT_TRUE(client_got_sealed(&self->rx3, "x", &o) && o.publish.retain);
}

/* --- revocation ------------------------------------------------------------------------------- */

enum stage { QUEUED, CONVERTING, SIGNING, SENT };

/* Five messages to rx1 and rx2, which stand still at the stage. */
static void stop_at(struct fixture_out *self, enum stage stage)
{
	if (stage == QUEUED) {
		fake_hang_up(self->rx1.conn);
		fake_hang_up(self->rx2.conn);
	}
	self->fake->hold_convert = stage == CONVERTING;
	self->fake->hold_sign = stage == SIGNING;
	publish_numbers(self, 0, 5, true);
	fake_settle(self->fake);
}

static void go_on(struct fixture_out *self, enum stage stage)
{
	self->fake->hold_convert = self->fake->hold_sign = false;
	fake_settle(self->fake);
	if (stage == SENT) {
		fake_hang_up(self->rx1.conn);
		fake_hang_up(self->rx2.conn);
	}
	if (stage == QUEUED || stage == SENT) {
		ASSERT_TRUE(client_resumes(&self->rx1, true) && client_resumes(&self->rx2, true));
		fake_settle(self->fake);
	}
}

static void revoke(struct fixture_out *self, struct world_grant *g)
{
	self->fake->wall_ms += 10;
	world_revoke(self->world, g);
	world_apply(self->world);
}

static void revoke_at(struct fixture_out *self, enum stage stage)
{
	stop_at(self, stage);
	revoke(self, self->world->rx1_temp);
	ASSERT_TRUE(fake_forgot(self->fake, self->world->rx1_temp->id));
	ASSERT_FALSE(fake_forgot(self->fake, self->world->rx2_temp->id));
	if (stage == SENT)
		self->rx1.conn->read = self->rx1.conn->sent; /* before the revocation */
	go_on(self, stage);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_FALSE(client_closed(&self->rx1));
	ASSERT_TRUE(takes_numbers(&self->rx2, 0, 5));
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
	/* Nothing of what comes later either. */
	publish_numbers(self, 5, 1, true);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_TRUE(takes_numbers(&self->rx2, 5, 1));
	ASSERT_TRUE(only_acks(&self->dev1));
}

TEST_F(out, revoked_while_queued)
{
	revoke_at(self, QUEUED);
}

TEST_F(out, revoked_while_converting)
{
	revoke_at(self, CONVERTING);
}

TEST_F(out, revoked_while_signing)
{
	revoke_at(self, SIGNING);
}

TEST_F(out, revoked_while_unacknowledged)
{
	revoke_at(self, SENT);
}

TEST_F(out, revoked_while_retained)
{
	client_publish_retained(&self->dev1, self->temp, TOPIC, "0", 1);
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->rx1, 0, 1) && takes_numbers(&self->rx2, 0, 1));
	revoke(self, self->world->rx1_temp);
	ASSERT_EQ(client_subscribe(&self->rx1, TOPIC, 1), 1);
	ASSERT_EQ(client_subscribe(&self->rx2, TOPIC, 1), 1);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_TRUE(takes_numbers(&self->rx2, 0, 1)); /* the context is retired, not this */
}

/* Behind a window that is full. */
TEST_F(out, revoked_behind_the_window)
{
	struct broker_config config;

	fake_config(false, &config);
	config.limits.inflight_max = 2;
	restart_with(self, &config);
	publish_numbers(self, 0, 6, true);
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, NULL) && got_number(&self->rx1, 1, NULL));
	revoke(self, self->world->rx1_temp);
	for (uint16_t id = 1; id <= 2; id++)
		client_send_ack(&self->rx1, MQTT_PUBACK, id);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_TRUE(takes_numbers(&self->rx2, 0, 6));
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
	/* The window is whole again for what it may still get. */
	world_add_grant(self->world, self->world->rx1, self->world->temp, 0);
	world_apply(self->world);
	publish_numbers(self, 6, 4, true);
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->rx1, 6, 4));
}

/* Another grant of the same key id in one's place: nothing is lost, nothing doubled. */
static void regrant_at(struct fixture_out *self, enum stage stage)
{
	stop_at(self, stage);
	if (stage == SENT)
		for (unsigned i = 0; i < 5; i++)
			ASSERT_TRUE(got_number(&self->rx1, i, NULL));
	self->world->rx1_temp->gone = true;
	world_add_grant(self->world, self->world->rx1, self->world->temp, RECORD_GRANT_PROOF);
	world_apply(self->world);
	ASSERT_TRUE(fake_forgot(self->fake, self->world->rx1_temp->id));
	go_on(self, stage);
	for (unsigned i = 0; i < 5; i++) {
		struct fake_opened o;

		ASSERT_TRUE(got_number(&self->rx1, i, &o));
		ASSERT_TRUE(o.grant != self->world->rx1_temp);
		ack(&self->rx1, &o);
	}
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_EQ(fake_stats(self->fake).queued, 5); /* rx2's */
}

TEST_F(out, granted_anew_while_queued)
{
	regrant_at(self, QUEUED);
}

TEST_F(out, granted_anew_while_converting)
{
	regrant_at(self, CONVERTING);
}

TEST_F(out, granted_anew_while_signing)
{
	regrant_at(self, SIGNING);
}

TEST_F(out, granted_anew_while_unacknowledged)
{
	regrant_at(self, SENT);
}

/* A bundle that changes nothing for a receiver disturbs nothing. */
TEST_F(out, same_grants_at_every_stage)
{
	for (enum stage stage = QUEUED; stage <= SENT; stage++) {
		stop_at(self, stage);
		if (stage == SENT) {
			ASSERT_TRUE(takes_numbers(&self->rx1, 0, 5));
			ASSERT_TRUE(takes_numbers(&self->rx2, 0, 5));
		}
		world_apply(self->world);
		go_on(self, stage);
		if (stage != SENT) {
			ASSERT_TRUE(takes_numbers(&self->rx1, 0, 5));
			ASSERT_TRUE(takes_numbers(&self->rx2, 0, 5));
		}
		ASSERT_TRUE(client_got_nothing(&self->rx1) && client_got_nothing(&self->rx2));
		ASSERT_EQ(fake_stats(self->fake).queued, 0);
	}
	ASSERT_EQ(self->fake->n_forgotten, 0);
}

/* The same grant, wrapped anew (for another token): the old blob is not asked with again. */
TEST_F(out, grant_wrapped_anew)
{
	struct world_grant *g = self->world->rx1_temp;
	struct world_grant *other;

	publish_numbers(self, 0, 1, false);
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->rx1, 0, 1));
	other = world_add_grant(self->world, self->world->rx1, self->world->temp, 0);
	other->gone = true;
	memcpy(other->id, g->id,
	       GRANT_ID_BYTES); /* terms differ, so make it the old one's in all */
	memcpy(g->blob + GRANT_ID_BYTES, other->blob + GRANT_ID_BYTES, P256_SCALAR_BYTES);
	world_apply(self->world);
	ASSERT_TRUE(fake_forgot(self->fake, g->id));
	self->fake->conversions = 0;
	publish_numbers(self, 1, 1, false);
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->conversions, 1); /* for rx1 anew; rx2's is remembered */
}

TEST_F(out, grant_runs_out)
{
	self->world->rx1_temp->not_after_ms = self->fake->wall_ms + 5000;
	self->world->rx2_temp->not_before_ms = self->fake->wall_ms + 5000;
	world_apply(self->world);
	fake_hang_up(self->rx1.conn);
	publish_numbers(self, 0, 1, false);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx2));
	fake_pass(self->fake, 6000);
	ASSERT_TRUE(client_resumes(&self->rx1, true));
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1)); /* it was queued in time, but not delivered */
	publish_numbers(self, 1, 1, false);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_TRUE(takes_numbers(&self->rx2, 1, 1));
}

/* --- parties that are revoked ----------------------------------------------------------------- */

TEST_F(out, revoked_receiver)
{
	struct world_party *rx1 = self->world->rx1;

	publish_numbers(self, 0, 3, true);
	fake_settle(self->fake);
	rx1->gone = true;
	self->world->rx1_temp->gone = true;
	world_apply(self->world);
	ASSERT_TRUE(client_closed(&self->rx1));
	ASSERT_STREQ(self->rx1.conn->why, "revoked");
	ASSERT_EQ(fake_stats(self->fake).sessions, 2);
	ASSERT_EQ(fake_stats(self->fake).queued, 3);
	client_dial(&self->rx1);
	client_send_connect(&self->rx1);
	ASSERT_TRUE(client_got_connack(&self->rx1, false, 5));
	ASSERT_TRUE(takes_numbers(&self->rx2, 0, 3));
	/* Enrolled again, it begins from nothing. */
	rx1->gone = self->world->rx1_temp->gone = false;
	world_apply(self->world);
	ASSERT_TRUE(client_resumes(&self->rx1, false));
	publish_numbers(self, 3, 1, true);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
}

TEST_F(out, revoked_receiver_that_is_absent)
{
	fake_hang_up(self->rx1.conn);
	publish_numbers(self, 0, 3, true);
	fake_settle(self->fake);
	self->world->rx1->gone = self->world->rx1_temp->gone = true;
	world_apply(self->world);
	ASSERT_EQ(fake_stats(self->fake).sessions, 2);
	ASSERT_EQ(fake_stats(self->fake).queued, 3);
}

TEST_F(out, revoked_sender_leaves_no_will)
{
	struct fake_sealed will;

	client_seal_will(&self->dev2, self->temp, TOPIC, "gone", &will);
	ASSERT_TRUE(client_up(&self->dev2));
	self->world->dev2->gone = true;
	world_apply(self->world);
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(&self->dev2));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	/* What it had queued before is still delivered: it was good when it came. */
	ASSERT_FALSE(client_closed(&self->dev1));
}

/* At every stage of authentication. */
TEST_F(out, revoked_while_it_authenticates)
{
	for (unsigned i = 0; i < 4; i++) {
		self->fake->hold_sign = i == 0;
		client_dial(&self->rx3);
		client_send_connect(&self->rx3);
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_connack(&self->rx3, false, 0));
		if (i > 0)
			ASSERT_TRUE(client_got_challenge(&self->rx3));
		self->fake->hold_verify = i == 2;
		self->fake->hold_sign = i == 0 || i == 3;
		if (i > 1)
			client_send_response(&self->rx3, 0);
		fake_settle(self->fake);
		self->world->rx3->gone = true;
		world_apply(self->world);
		ASSERT_TRUE(client_closed(&self->rx3));
		self->fake->hold_verify = self->fake->hold_sign = false;
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_nothing(&self->rx3));
		self->world->rx3->gone = false;
		world_apply(self->world);
	}
	ASSERT_TRUE(client_up(&self->rx3));
}

TEST_F(out, key_rotation_of_a_party)
{
	fake_hang_up(self->rx2.conn);
	world_new_key(self->world->rx1);
	world_new_key(self->world->rx2);
	world_apply(self->world);
	ASSERT_TRUE(client_closed(&self->rx1));
	ASSERT_EQ(fake_stats(self->fake).sessions, 1); /* both sessions were of the old keys */
	ASSERT_TRUE(client_resumes(&self->rx1, false));
	ASSERT_EQ(client_subscribe(&self->rx1, "#", 1), 1);
	publish_numbers(self, 0, 1, false);
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->rx1, 0, 1)); /* the grant is bound to B, and still good */
}

/* --- bundles ---------------------------------------------------------------------------------- */

static int apply(struct fixture_out *self, uint64_t serial, struct bytes body)
{
	const char *why = NULL;
	int err = broker_apply_bundle(self->fake->engine, serial, body, &why);

	if (err)
		ASSERT_TRUE(why && *why);
	return err;
}

/* Everybody is still there and served. */
static void all_is_as_before(struct fixture_out *self, unsigned n)
{
	publish_numbers(self, n, 1, true);
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->rx1, n, 1) && takes_numbers(&self->rx2, n, 1));
}

TEST_F(out, older_bundles_are_refused)
{
	uint64_t serial = self->world->serial;

	ASSERT_EQ(apply(self, serial - 1, world_bundle(self->world)), -ESTALE);
	self->world->rx1_temp->gone = true;
	ASSERT_EQ(apply(self, serial - 1, world_bundle(self->world)), -ESTALE);
	self->world->rx1_temp->gone = false;
	all_is_as_before(self, 0);
	ASSERT_EQ(apply(self, serial, world_bundle(self->world)), 0);
	ASSERT_EQ(apply(self, serial + 10, world_bundle(self->world)), 0);
	ASSERT_EQ(apply(self, serial + 9, world_bundle(self->world)), -ESTALE);
	/* Over a restart, too: the serial is stored. */
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->store.bundle_serial, serial + 10);
	fake_restart(self->fake);
	ASSERT_EQ(apply(self, serial + 9, world_bundle(self->world)), -ESTALE);
	ASSERT_EQ(apply(self, serial + 10, world_bundle(self->world)), 0);
}

TEST_F(out, damaged_bundles_change_nothing)
{
	struct bytes whole = world_bundle(self->world);
	uint8_t *copy = self->world->bundle;

	for (size_t n = 0; n < whole.n; n++)
		ASSERT_EQ(apply(self, 1000, bytes_of(copy, n)), -EBADMSG);
	ASSERT_EQ(apply(self, 1000, bytes_of(copy, whole.n + 1)), -EBADMSG);
	all_is_as_before(self, 0);
	/* Nor is their serial the one to beat. */
	world_apply(self->world);
	ASSERT_EQ(self->fake->n_forgotten, 0);
}

TEST_F(out, bundles_that_contradict_themselves)
{
	struct world *w = self->world;

	w->cam->key_id = w->temp->key_id;
	ASSERT_EQ(apply(self, 1000, world_bundle(w)), -EBADMSG);
	w->cam->key_id = WORLD_KEY_CAM;
	w->dev2->id = "dev1";
	ASSERT_EQ(apply(self, 1000, world_bundle(w)), -EBADMSG);
	w->dev2->id = "dev2";
	w->grants[w->n_grants++] = *w->rx1_temp;
	ASSERT_EQ(apply(self, 1000, world_bundle(w)), -EBADMSG);
	w->n_grants--;
	w->rx1_temp->upstream = w->rx2_temp->upstream = w->mgr;
	w->rx1_temp->from = w->rx2_temp->from = w->rx2_cam;
	memcpy(w->rx2_temp->id, w->rx1_temp->id, GRANT_ID_BYTES);
	ASSERT_EQ(apply(self, 1000, world_bundle(w)), -EBADMSG);
	w->rx1_temp->upstream = w->rx2_temp->upstream = NULL;
	w->rx1_temp->from = w->rx2_temp->from = NULL;
	memcpy(w->rx2_temp->id, w->rx2_temp->blob, GRANT_ID_BYTES);
	all_is_as_before(self, 0);
	ASSERT_EQ(fake_stats(self->fake).sessions, 3);
}

/* A bundle that ran out converts nothing and takes nothing; what it had queued is not lost by it.
 */
TEST_F(out, bundle_runs_out)
{
	struct broker_config config;
	struct fake_sealed s;

	fake_config(false, &config);
	config.limits.inflight_max = 1;
	restart_with(self, &config);
	broker_bundle_until(self->fake->engine, self->fake->wall_ms + 5000);
	publish_numbers(self, 0, 3, true);
	fake_settle(self->fake);
	fake_pass(self->fake, 6000);
	ASSERT_TRUE(got_number(&self->rx1, 0, NULL) && client_got_nothing(&self->rx1));
	client_send_ack(&self->rx1, MQTT_PUBACK, 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_TRUE(only_acks(&self->dev1));
	client_seal(&self->dev1, self->temp, TOPIC, "x", 1, false, &s);
	client_send_publish(&self->dev1, &s.publish);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_NO_KEY_ID, s.counter));
	client_dial(&self->rx3);
	client_send_connect(&self->rx3);
	ASSERT_TRUE(client_got_connack(&self->rx3, false, 3));
	/* The next one comes late. */
	world_apply(self->world);
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->rx1, 1, 2) && takes_numbers(&self->rx2, 0, 3));
	ASSERT_TRUE(client_up(&self->rx3));
}

/* --- the token is gone ------------------------------------------------------------------------ */

TEST_F(out, conversion_unavailable)
{
	uint64_t first;

	self->fake->convert_status = BROKER_TOKEN_UNAVAILABLE;
	fake_hang_up(self->rx2.conn);
	fake_settle(self->fake);
	publish_numbers(self, 0, 2, true);
	client_new_context(&self->dev1, self->temp);
	client_publish(&self->dev1, self->temp, TOPIC, "qos 0", 0);
	first = self->dev1.counter;
	publish_numbers(self, 2, 1, true);
	fake_pass(self->fake, 3000);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_FALSE(client_closed(&self->rx1));
	/* QoS 0 is given up, and its sender told so; QoS 1 is kept. */
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_UNAVAILABLE, first));
	for (uint16_t id = 1; id <= 3; id++)
		ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, id));
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	ASSERT_GE(fake_stats(self->fake).conversion_retries, 3);
	self->fake->convert_status = BROKER_TOKEN_OK;
	fake_pass(self->fake, 1000);
	ASSERT_TRUE(takes_numbers(&self->rx1, 0, 3));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
}

/* Some that are refused, and gone, do not hold up what is behind them. */
TEST_F(out, conversion_refused)
{
	fake_hang_up(self->rx2.conn);
	self->fake->convert_status = BROKER_TOKEN_REFUSED;
	publish_numbers(self, 0, 1, true);
	fake_settle(self->fake);
	ASSERT_STREQ(self->fake->last_event, "conversion refused");
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, 1));
	ASSERT_TRUE(client_got_nothing(&self->dev1)); /* not at the first refusal */
	fake_pass(self->fake, 10000);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_UNAVAILABLE, self->dev1.counter));
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	self->fake->convert_status = BROKER_TOKEN_OK;
	publish_numbers(self, 1, 1, true);
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->rx1, 1, 1));
	ASSERT_EQ(fake_stats(self->fake).queued, 2); /* rx2's, who was not there */
}

TEST_F(out, signature_unavailable)
{
	publish_numbers(self, 0, 3, true);
	self->fake->sign_status = BROKER_TOKEN_UNAVAILABLE;
	fake_pass(self->fake, 3000);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_TRUE(only_acks(&self->dev1));
	self->fake->sign_status = BROKER_TOKEN_OK;
	fake_pass(self->fake, 1000);
	ASSERT_TRUE(takes_numbers(&self->rx1, 0, 3) && takes_numbers(&self->rx2, 0, 3));
}

/* Now there, now gone, answers in any order: all of it arrives, once and in order. */
TEST_F(out, token_comes_and_goes)
{
	unsigned sent = 0;

	for (unsigned i = 0; i < 2000; i++) {
		uint64_t r = harness_random();

		self->fake->convert_status = r % 3 ? BROKER_TOKEN_OK : BROKER_TOKEN_UNAVAILABLE;
		self->fake->sign_status = r % 5 ? BROKER_TOKEN_OK : BROKER_TOKEN_UNAVAILABLE;
		if (i % 20 == 0)
			publish_numbers(self, sent++, 1, r % 7 < 4);
		self->fake->mono_ms += r % 50;
		random_step(self->fake);
	}
	self->fake->convert_status = self->fake->sign_status = BROKER_TOKEN_OK;
	fake_pass(self->fake, 2000);
	ASSERT_TRUE(takes_numbers(&self->rx1, 0, sent) && takes_numbers(&self->rx2, 0, sent));
	ASSERT_TRUE(client_got_nothing(&self->rx1) && client_got_nothing(&self->rx2));
	ASSERT_TRUE(only_acks(&self->dev1));
}

/* --- nacks ------------------------------------------------------------------------------------ */

/* u8 + reporter's id, then first || u16 || properties || body || trailer as received: the body of
 * what the reporter signed, whose signature must hold for `topic`. */
static bool got_report(struct fake_client *mgr, const struct world_party *reporter,
		       const char *topic, struct bytes *ret_body)
{
	struct publish_trailer t;
	struct publish p = { .topic = bytes_str(topic), .body_parts = 1 };
	struct bytes_reader r;
	struct bytes body;

	if (!client_got_control(mgr, "$SSDTF/report", &body))
		return false;
	r = bytes_reader_of(body);
	p.client_id = bytes_read_u8_view(&r);
	p.first = bytes_read_u8(&r);
	p.properties = bytes_read_u16_view(&r);
	if (r.bad || publish_split(bytes_read_rest(&r), &t) || p.properties.n ||
	    !bytes_equal(p.client_id, bytes_str(reporter->id)))
		return false;
	p.body[0] = t.body;
	*ret_body = t.body;
	return publish_verify(&p, &t, reporter->key_public) == 0;
}

/* A message that rx1 got and could not open, by no fault of the broker's: the same conversion comes
 * out again, so nothing is sent again, and the manager hears of the sender. */
TEST_F(out, nack_of_what_the_sender_did)
{
	struct bytes evidence;
	struct fake_opened o;
	unsigned conversions;

	ASSERT_TRUE(client_up(&self->mgr));
	publish_numbers(self, 0, 2, false);
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, &o) && got_number(&self->rx1, 1, NULL));
	conversions = self->fake->conversions;
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, o.envelope.counter, "dev1");
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->conversions, conversions + 1); /* past what was remembered */
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_TRUE(got_report(&self->mgr, self->world->rx1, "$SSDTF/nack", &evidence));
	ASSERT_EQ(evidence.p[0], CONTROL_CANNOT_OPEN);
	ASSERT_TRUE(client_got_nothing(&self->mgr));
	/* One recomputation per message and receiver. */
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, o.envelope.counter, "dev1");
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->conversions, conversions + 1);
	ASSERT_TRUE(client_got_nothing(&self->rx1) && client_got_nothing(&self->mgr));
	/* Both still wait for their acknowledgement. */
	ASSERT_EQ(fake_stats(self->fake).queued, 4);
	client_send_ack(&self->rx1, MQTT_PUBACK, 1);
	client_send_ack(&self->rx1, MQTT_PUBACK, 2);
	fake_settle(self->fake);
	ASSERT_EQ(fake_stats(self->fake).queued, 2);
	ASSERT_EQ(fake_stats(self->fake).nacks, 2);
}

/* A conversion that went wrong in the token: another comes out, and is sent. */
TEST_F(out, nack_of_what_the_token_did)
{
	struct mqtt_publish p;
	struct fake_opened o;

	ASSERT_TRUE(client_up(&self->mgr));
	fake_hang_up(self->rx2.conn);
	fake_settle(self->fake);
	self->fake->wrong_converts = 1;
	publish_numbers(self, 0, 1, true);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_publish(&self->rx1, &p));
	ASSERT_FALSE(client_open(&self->rx1, &p, &o));
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, self->dev1.counter, "dev1");
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, &o));
	ASSERT_TRUE(o.publish.dup);
	ASSERT_EQ(o.publish.packet_id, p.packet_id);
	ASSERT_TRUE(client_got_nothing(&self->mgr));
	ack(&self->rx1, &o);
	/* What is remembered is the right one now. */
	publish_numbers(self, 1, 1, false);
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->rx1, 1, 1));
	ASSERT_EQ(self->fake->conversions, 2);
}

/* The signature did not hold (so says the receiver): the same conversion under another one. */
TEST_F(out, nack_of_a_signature)
{
	struct fake_opened o;
	uint8_t sig[P256_SIG_BYTES];

	ASSERT_TRUE(client_up(&self->mgr));
	publish_numbers(self, 0, 1, true);
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, &o));
	memcpy(sig, o.trailer.sig.p, sizeof(sig));
	client_send_nack(&self->rx1, CONTROL_BAD_SIGNATURE, o.envelope.counter, "dev1");
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, &o) && o.publish.dup);
	ASSERT_TRUE(memcmp(sig, o.trailer.sig.p, sizeof(sig)) != 0);
	ASSERT_TRUE(client_got_nothing(&self->mgr));
}

/* What waited for room behind it goes on, though nothing was sent. */
TEST_F(out, nack_that_stands_holds_nothing_up)
{
	struct broker_config config;
	struct fake_opened o;

	fake_config(false, &config);
	config.limits.output_bytes_soft = 100; /* less than one message */
	restart_with(self, &config);
	publish_numbers(self, 0, 1, true);
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, &o));
	self->fake->hold_convert = true;
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, o.envelope.counter, "dev1");
	fake_settle(self->fake);
	publish_numbers(self, 1, 1, true);
	fake_settle(self->fake);
	self->fake->hold_convert = false;
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 1, NULL));
}

/* A client that nacks first and acknowledges then has nothing more to say of a message that is not
 * sent again. */
TEST_F(out, acknowledged_while_its_nack_is_looked_into)
{
	struct fake_opened o;

	publish_numbers(self, 0, 1, true);
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, &o));
	ASSERT_EQ(fake_stats(self->fake).queued, 2);
	self->fake->hold_convert = true;
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, o.envelope.counter, "dev1");
	fake_settle(self->fake);
	ack(&self->rx1, &o);
	self->fake->hold_convert = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_EQ(fake_stats(self->fake).queued, 1); /* rx2's */
}

/* The receiver goes while its nack is looked into: then it is a redelivery like any other, in its
 * old place [MQTT-4.6.0-1]. */
TEST_F(out, nack_and_reconnect)
{
	struct fake_opened o;

	publish_numbers(self, 0, 2, true);
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, &o));
	for (unsigned i = 0; i < 2; i++) {
		self->fake->hold_convert = i == 0;
		self->fake->hold_sign = i == 1;
		client_send_nack(&self->rx1, CONTROL_BAD_SIGNATURE, o.envelope.counter, "dev1");
		fake_settle(self->fake);
		fake_hang_up(self->rx1.conn);
		self->fake->hold_convert = self->fake->hold_sign = false;
		fake_settle(self->fake);
		ASSERT_TRUE(client_resumes(&self->rx1, true));
		fake_settle(self->fake);
		ASSERT_TRUE(got_number(&self->rx1, 0, &o) && o.publish.dup);
		ASSERT_TRUE(got_number(&self->rx1, 1, NULL));
	}
}

/* Of all that was acknowledged lately, the last thousand. */
TEST_F(out, acknowledged_messages_remembered_are_bounded)
{
	fake_hang_up(self->rx2.conn);
	for (unsigned i = 0; i < 1100; i += 100) {
		publish_numbers(self, i, 100, false);
		fake_settle(self->fake);
		ASSERT_TRUE(takes_numbers(&self->rx1, i, 100));
	}
	ASSERT_EQ(self->fake->conversions, 1);
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, 1, "dev1");
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->conversions, 1);
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, 1100, "dev1");
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->conversions, 2);
}

TEST_F(out, nacks_of_nothing)
{
	struct fake_opened o;

	ASSERT_EQ(client_subscribe(&self->rx2, "#", 0), 0);
	publish_numbers(self, 0, 1, true);
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, &o) && got_number(&self->rx2, 0, NULL));
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, o.envelope.counter + 1, "dev1");
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, o.envelope.counter, "dev2");
	client_send_nack(&self->rx2, CONTROL_CANNOT_OPEN, o.envelope.counter, "dev1"); /* QoS 0 */
	client_send_nack(&self->dev1, CONTROL_CANNOT_OPEN, o.envelope.counter, "dev1");
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, o.envelope.counter, ""); /* nobody's */
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1) && client_got_nothing(&self->rx2));
	ASSERT_EQ(self->fake->conversions, 2);
	ASSERT_EQ(fake_stats(self->fake).nacks, 5);
}

/* Stock libraries acknowledge before they hand a message over: its nack still finds it. */
TEST_F(out, nack_of_an_acknowledged_message)
{
	struct mqtt_publish p;
	struct fake_opened o;
	uint16_t id;

	fake_hang_up(self->rx2.conn);
	fake_settle(self->fake);
	self->fake->wrong_converts = 1;
	publish_numbers(self, 0, 1, true);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_publish(&self->rx1, &p));
	id = p.packet_id;
	client_send_ack(&self->rx1, MQTT_PUBACK, id);
	fake_settle(self->fake);
	ASSERT_EQ(fake_stats(self->fake).queued, 1); /* rx2's */
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, self->dev1.counter, "dev1");
	fake_settle(self->fake);
	/* A message of its own: the id of the first may be in use again by now. */
	ASSERT_TRUE(got_number(&self->rx1, 0, &o));
	ASSERT_FALSE(o.publish.dup);
	ASSERT_NE(o.publish.packet_id, id);
	ack(&self->rx1, &o);
	ASSERT_EQ(fake_stats(self->fake).queued, 1);
}

TEST_F(out, nack_of_an_acknowledged_message_that_stands)
{
	struct broker_config config;
	struct bytes evidence;
	struct fake_opened o;

	fake_config(false, &config);
	config.limits.inflight_max = 1;
	restart_with(self, &config);
	ASSERT_TRUE(client_up(&self->mgr));
	fake_hang_up(self->rx2.conn);
	publish_numbers(self, 0, 1, true);
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, &o));
	ack(&self->rx1, &o);
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, self->dev1.counter, "dev1");
	fake_settle(self->fake);
	ASSERT_TRUE(got_report(&self->mgr, self->world->rx1, "$SSDTF/nack", &evidence));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	/* It holds no place in the queue or the window, having been acknowledged long ago. */
	ASSERT_EQ(fake_stats(self->fake).queued, 1);
	publish_numbers(self, 1, 1, true);
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->rx1, 1, 1));
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, o.envelope.counter, "dev1");
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->mgr));
}

/* ... but not for ever, and not in another session. */
TEST_F(out, acknowledged_messages_are_forgotten)
{
	struct fake_opened o;

	fake_hang_up(self->rx2.conn);
	publish_numbers(self, 0, 1, true);
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, &o));
	ack(&self->rx1, &o);
	fake_hang_up(self->rx1.conn);
	ASSERT_TRUE(client_resumes(&self->rx1, true));
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, self->dev1.counter, "dev1");
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_EQ(self->fake->conversions, 1);
}

/* Another session's nonce, a number used before, another reason, no id: reason 2. */
TEST_F(out, malformed_nacks)
{
	struct fake_opened o;
	uint8_t before[CLIENT_NONCE_BYTES];

	publish_numbers(self, 0, 1, true);
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->rx1, 0, &o));
	memcpy(before, self->rx1.r_b, sizeof(before));
	self->rx1.r_b[0] ^= 1;
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, o.envelope.counter, "dev1");
	memcpy(self->rx1.r_b, before, sizeof(before));
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->rx1, CONTROL_MALFORMED, 0));
	self->rx1.nack_n = 6;
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, 99, "dev1"); /* n = 7: fine, of nothing */
	self->rx1.nack_n = 6;
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, o.envelope.counter, "dev1"); /* again */
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->rx1, CONTROL_MALFORMED, 0));
	self->rx1.nack_n = 2;
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, o.envelope.counter, "dev1"); /* back */
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->rx1, CONTROL_MALFORMED, 0));
	self->rx1.nack_n = 10;
	client_send_nack(&self->rx1, 0, o.envelope.counter, "dev1");
	client_send_nack(&self->rx1, CONTROL_RETIRED + 1, o.envelope.counter, "dev1");
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, o.envelope.counter, "a/b");
	client_send_signed(&self->rx1, "$SSDTF/nack", bytes_str("short"), 0);
	client_send_signed(&self->rx1, "$SSDTF/nack", bytes_of(NULL, 0), 0);
	fake_settle(self->fake);
	for (unsigned i = 0; i < 5; i++)
		ASSERT_TRUE(client_got_error(&self->rx1, CONTROL_MALFORMED, 0));
	client_publish_text(&self->rx1, "$SSDTF/nack", "no trailer", 1, false);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->rx1, CONTROL_BAD_SIGNATURE, 0));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_EQ(self->fake->conversions, 2);
	ASSERT_EQ(fake_stats(self->fake).nacks, 1);
}

TEST_F(out, nacks_are_rate_limited)
{
	struct broker_config config;

	fake_config(false, &config);
	config.limits.errors_per_second = 3;
	restart_with(self, &config);
	self->fake->mono_ms = (self->fake->mono_ms / 1000 + 1) * 1000;
	publish_numbers(self, 0, 6, true);
	fake_settle(self->fake);
	for (unsigned i = 0; i < 6; i++)
		ASSERT_TRUE(got_number(&self->rx1, i, NULL));
	for (uint64_t counter = 1; counter <= 6; counter++)
		client_send_nack(&self->rx1, CONTROL_BAD_SIGNATURE, counter, "dev1");
	fake_settle(self->fake);
	for (unsigned i = 0; i < 3; i++)
		ASSERT_TRUE(got_number(&self->rx1, i, NULL));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_EQ(self->fake->conversions, 12 + 3);
}

/* --- reports ---------------------------------------------------------------------------------- */

TEST_F(out, report_goes_to_the_manager)
{
	struct bytes body;
	struct bytes_reader r;

	ASSERT_TRUE(client_up(&self->mgr));
	client_send_report(&self->rx1, CONTROL_CANNOT_OPEN, 77, "dev1", "still does not open");
	fake_settle(self->fake);
	ASSERT_TRUE(got_report(&self->mgr, self->world->rx1, "$SSDTF/report", &body));
	r = bytes_reader_of(body);
	ASSERT_EQ(bytes_read_u8(&r), CONTROL_CANNOT_OPEN);
	ASSERT_EQ(bytes_read_u64(&r), 77);
	ASSERT_TRUE(bytes_equal(bytes_read_u8_view(&r), bytes_str("dev1")));
	ASSERT_TRUE(bytes_equal(bytes_read_u16_view(&r), bytes_str("still does not open")));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	/* From any party, a sender too; and nobody else sees it. */
	client_send_report(&self->dev1, CONTROL_UNAVAILABLE, 1, "", "");
	fake_settle(self->fake);
	ASSERT_TRUE(got_report(&self->mgr, self->world->dev1, "$SSDTF/report", &body));
	ASSERT_TRUE(client_got_nothing(&self->rx1) && client_got_nothing(&self->rx2));
	ASSERT_EQ(fake_stats(self->fake).reports, 2);
}

/* Its sender may go as soon as it has said it. */
TEST_F(out, report_outlives_its_sender)
{
	struct bytes body;

	ASSERT_TRUE(client_up(&self->mgr));
	self->fake->hold_verify = true;
	client_send_report(&self->rx1, CONTROL_CANNOT_OPEN, 77, "dev1", "goodbye");
	client_send_empty(&self->rx1, MQTT_DISCONNECT);
	self->fake->hold_verify = false;
	fake_settle(self->fake);
	ASSERT_TRUE(got_report(&self->mgr, self->world->rx1, "$SSDTF/report", &body));
}

TEST_F(out, report_of_qos_1_is_acknowledged)
{
	uint8_t body[128];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	bytes_write_u8(&w, CONTROL_CANNOT_OPEN);
	bytes_write_u64(&w, 1);
	bytes_write_u8_view(&w, bytes_str("dev1"));
	bytes_write_u16_view(&w, bytes_str(""));
	bytes_write(&w, bytes_of(self->rx1.r_b, sizeof(self->rx1.r_b)));
	bytes_write_u32(&w, 1);
	client_send_signed(&self->rx1, "$SSDTF/report", bytes_of(body, w.used), 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(&self->rx1, MQTT_PUBACK, self->rx1.packet_id));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
}

TEST_F(out, reports_wait_for_the_manager)
{
	struct bytes body;
	struct broker_config config;

	fake_config(false, &config);
	config.limits.reports_queue_max = 3;
	restart_with(self, &config);
	for (uint64_t i = 1; i <= 5; i++)
		client_send_report(&self->rx1, CONTROL_CANNOT_OPEN, i, "dev1", "");
	fake_settle(self->fake);
	ASSERT_TRUE(client_up(&self->mgr));
	fake_settle(self->fake);
	for (uint64_t i = 3; i <= 5; i++) { /* the oldest are gone */
		ASSERT_TRUE(got_report(&self->mgr, self->world->rx1, "$SSDTF/report", &body));
		ASSERT_EQ(body.p[8], i);
	}
	ASSERT_TRUE(client_got_nothing(&self->mgr));
	/* Sent is sent: the next time there is nothing. */
	fake_hang_up(self->mgr.conn);
	ASSERT_TRUE(client_up(&self->mgr));
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->mgr));
}

TEST_F(out, malformed_reports)
{
	static const char *const texts[] = { "\xff", "\xc0\x80", "\xed\xa0\x80" };
	char long_text[5000];

	ASSERT_TRUE(client_up(&self->mgr));
	for (unsigned i = 0; i < ARRAY_SIZE(texts); i++)
		client_send_report(&self->rx1, CONTROL_CANNOT_OPEN, 1, "dev1", texts[i]);
	client_send_report(&self->rx1, 0, 1, "dev1", "");
	client_send_report(&self->rx1, 9, 1, "dev1", "");
	client_send_report(&self->rx1, CONTROL_CANNOT_OPEN, 1, "a/b", "");
	self->rx1.report_n--; /* used already */
	client_send_report(&self->rx1, CONTROL_CANNOT_OPEN, 1, "dev1", "");
	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	client_send_report(&self->rx1, CONTROL_CANNOT_OPEN, 1, "dev1", long_text);
	fake_settle(self->fake);
	for (unsigned i = 0; i < ARRAY_SIZE(texts) + 5; i++)
		ASSERT_TRUE(client_got_error(&self->rx1, CONTROL_MALFORMED, 0));
	ASSERT_TRUE(client_got_nothing(&self->mgr));
	ASSERT_EQ(fake_stats(self->fake).reports, 0);
}

/* --- upkeep ----------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__)
#define POOL_KEEPS false /* pool.h: then every block is malloc's own */
#else
#define POOL_KEEPS true
#endif

TEST_F(out, warm_broker_does_not_allocate)
{
	uint64_t mallocs = 0;

	if (!POOL_KEEPS)
		SKIP("the pool keeps nothing under the address sanitizer");
	for (unsigned i = 0; i < 6; i++) {
		publish_numbers(self, 0, 50, false);
		fake_pass(self->fake, 11000); /* what was acknowledged is remembered for 10 s */
		ASSERT_TRUE(takes_numbers(&self->rx1, 0, 50) && takes_numbers(&self->rx2, 0, 50));
		if (i == 2)
			mallocs = broker_mallocs(self->fake->engine);
	}
	ASSERT_EQ(broker_mallocs(self->fake->engine), mallocs);
}
