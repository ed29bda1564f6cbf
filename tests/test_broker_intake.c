// SPDX-License-Identifier: MIT
/*
 * $SSDTF/bundle in the engine (PROTOCOL 14): from whom messages are taken, that they are handed on
 * as they were said, and that answers are signed and go to whom they are for.
 */
#include <errno.h>

#include "tests/fake_client.h"
#include "tests/harness.h"

HARNESS_MAIN

#define TOPIC "$SSDTF/bundle"

FIXTURE(intake)
{
	struct world *world;
	struct fake_broker *fake;
	struct fake_client mgr, dev1;
	uint32_t n; /* the last of the manager's */
};

FIXTURE_SETUP(intake)
{
	self->world = world_new(NULL);
	self->fake = self->world->fake;
	client_init_party(&self->mgr, self->world, self->world->mgr);
	client_init_party(&self->dev1, self->world, self->world->dev1);
	ASSERT_TRUE(client_up(&self->mgr));
	ASSERT_TRUE(client_up(&self->dev1));
}

FIXTURE_TEARDOWN(intake)
{
	client_deinit(&self->mgr);
	client_deinit(&self->dev1);
	world_free(self->world);
}

static void send_numbered(struct fake_client *c, const char *text, uint32_t n, uint8_t qos)
{
	uint8_t body[128];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	bytes_write(&w, bytes_str(text));
	bytes_write(&w, bytes_of(c->r_b, sizeof(c->r_b)));
	bytes_write_u32(&w, n);
	ASSERT_FALSE(w.bad);
	client_send_signed(c, TOPIC, bytes_of(body, w.used), qos);
	fake_settle(c->fake);
}

static bool took(struct fake_broker *f, const char *text)
{
	bool same = f->n_bundles == 1 &&
		    bytes_equal(bytes_of(f->bundle_message, f->bundle_n), bytes_str(text));

	f->n_bundles = 0;
	return same;
}

TEST_F(intake, a_managers_message_is_handed_on)
{
	send_numbered(&self->mgr, "an offer", 1, 0);
	ASSERT_TRUE(took(self->fake, "an offer"));
	ASSERT_STREQ(self->fake->bundle_from, "mgr");
	send_numbered(&self->mgr, "a piece", 7, 1);
	ASSERT_TRUE(took(self->fake, "a piece"));
	ASSERT_TRUE(client_got_ack(&self->mgr, MQTT_PUBACK, self->mgr.packet_id));
	ASSERT_TRUE(client_got_nothing(&self->mgr));
}

TEST_F(intake, a_copy_and_another_sessions_are_refused)
{
	uint64_t counter;
	enum control_reason reason;

	send_numbered(&self->mgr, "first", 3, 0);
	ASSERT_TRUE(took(self->fake, "first"));
	send_numbered(&self->mgr, "first", 3, 0);
	ASSERT_TRUE(client_got_any_error(&self->mgr, &reason, &counter));
	ASSERT_EQ(reason, CONTROL_MALFORMED);
	self->mgr.r_b[0] ^= 1;
	send_numbered(&self->mgr, "second", 4, 0);
	self->mgr.r_b[0] ^= 1;
	ASSERT_TRUE(client_got_any_error(&self->mgr, &reason, &counter));
	ASSERT_EQ(reason, CONTROL_MALFORMED);
	client_send_signed(&self->mgr, TOPIC, bytes_str("short"), 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_any_error(&self->mgr, &reason, &counter));
	ASSERT_EQ(reason, CONTROL_MALFORMED);
	ASSERT_EQ(self->fake->n_bundles, 0);
}

TEST_F(intake, what_the_owner_calls_malformed_is_told)
{
	uint64_t counter;
	enum control_reason reason;

	self->fake->bundle_malformed = true;
	send_numbered(&self->mgr, "nonsense", 1, 1);
	ASSERT_TRUE(client_got_any_error(&self->mgr, &reason, &counter));
	ASSERT_EQ(reason, CONTROL_MALFORMED);
	ASSERT_TRUE(client_got_ack(&self->mgr, MQTT_PUBACK, self->mgr.packet_id));
}

TEST_F(intake, a_forged_one_is_refused)
{
	uint8_t body[64 + 36 + PUBLISH_TRAILER_1_BYTES] = { 0 };
	uint64_t counter;
	enum control_reason reason;
	const struct mqtt_publish p = { .topic = bytes_str(TOPIC),
					.payload = bytes_of(body, sizeof(body)) };

	memcpy(body + 64, self->mgr.r_b, sizeof(self->mgr.r_b));
	body[sizeof(body) - 1] = 1;
	client_send_publish(&self->mgr, &p);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_any_error(&self->mgr, &reason, &counter));
	ASSERT_EQ(reason, CONTROL_BAD_SIGNATURE);
	ASSERT_EQ(self->fake->n_bundles, 0);
}

/* PROTOCOL 5: a $SSDTF topic that is not for it ends a client's connection. */
TEST_F(intake, others_may_not)
{
	send_numbered(&self->dev1, "an offer", 1, 0);
	ASSERT_TRUE(client_closed(&self->dev1));
	ASSERT_EQ(self->fake->n_bundles, 0);
}

/* The role went while its message was with the crypto workers. */
TEST_F(intake, a_role_that_ends_meanwhile)
{
	self->fake->hold_verify = true;
	send_numbered(&self->mgr, "an offer", 1, 0);
	self->world->mgr->roles = RECORD_ROLE_RECEIVER;
	world_apply(self->world);
	self->fake->hold_verify = false;
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->n_bundles, 0);
}

static bool answered(struct fake_client *c, const char *text, uint32_t n)
{
	struct bytes body, said;
	struct bytes_reader r;

	if (!client_got_control(c, TOPIC, &body) || body.n < 36)
		return false;
	r = bytes_reader_of(body);
	said = bytes_read_view(&r, body.n - 36);
	return bytes_equal(said, bytes_str(text)) &&
	       bytes_equal(bytes_read_view(&r, 32), bytes_of(c->r_b, sizeof(c->r_b))) &&
	       bytes_read_u32(&r) == n;
}

TEST_F(intake, answers_are_signed_and_numbered)
{
	struct broker *b = self->fake->engine;

	ASSERT_TRUE(broker_bundle_answer(b, "mgr", bytes_str("want")));
	ASSERT_TRUE(broker_bundle_answer(b, "mgr", bytes_str("applied")));
	fake_settle(self->fake);
	ASSERT_TRUE(answered(&self->mgr, "want", 1));
	ASSERT_TRUE(answered(&self->mgr, "applied", 2));
	ASSERT_TRUE(client_got_nothing(&self->mgr));
}

TEST_F(intake, nobody_else_is_answered)
{
	struct broker *b = self->fake->engine;

	ASSERT_FALSE(broker_bundle_answer(b, "dev1", bytes_str("want")));
	ASSERT_FALSE(broker_bundle_answer(b, "nobody", bytes_str("want")));
	fake_hang_up(self->mgr.conn);
	fake_settle(self->fake);
	ASSERT_FALSE(broker_bundle_answer(b, "mgr", bytes_str("want")));
}

/* Checked and prepared, put aside, applied: in two steps as in one. */
TEST_F(intake, a_prepared_bundle_is_applied_or_dropped)
{
	struct broker *b = self->fake->engine;
	struct directory *prepared;
	const char *why;
	struct bytes body;

	self->world->dev1->gone = true;
	body = world_bundle(self->world);
	ASSERT_EQ(broker_prepare_bundle(b, self->world->serial + 1, body, &prepared, &why), 0);
	broker_drop_prepared(prepared);
	fake_settle(self->fake);
	ASSERT_FALSE(client_closed(&self->dev1));
	ASSERT_EQ(broker_prepare_bundle(b, self->world->serial + 1, body, &prepared, &why), 0);
	broker_apply_prepared(b, prepared);
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(&self->dev1));
	ASSERT_EQ(self->fake->store.bundle_serial, self->world->serial + 1);
	ASSERT_EQ(broker_prepare_bundle(b, self->world->serial, body, &prepared, &why), -ESTALE);
}
