// SPDX-License-Identifier: MIT
/*
 * Two keys at once (PROTOCOL 8): a party's previous one until its time, the broker's next one from
 * its time on; and parties that may do nothing but claim.
 */
#include <errno.h>
#include <stdio.h>

#include "tests/fake_client.h"
#include "tests/harness.h"

HARNESS_MAIN

#define TOPIC "site/1/temp"

FIXTURE(keys)
{
	struct world *world;
	struct fake_broker *fake;
	struct fake_client dev1, rx1;
};

FIXTURE_SETUP(keys)
{
	self->world = world_new(NULL);
	self->fake = self->world->fake;
	client_init_party(&self->dev1, self->world, self->world->dev1);
	client_init_party(&self->rx1, self->world, self->world->rx1);
	ASSERT_TRUE(client_up_persistent(&self->dev1) && client_up_persistent(&self->rx1));
	ASSERT_EQ(client_subscribe(&self->rx1, "#", 1), 1);
}

FIXTURE_TEARDOWN(keys)
{
	client_deinit(&self->dev1);
	client_deinit(&self->rx1);
	world_free(self->world);
}

static void apply(struct fixture_keys *self)
{
	world_apply(self->world);
	fake_settle(self->fake);
}

/* Taken, and delivered. */
static bool publishes(struct fixture_keys *self)
{
	uint16_t id = client_publish(&self->dev1, self->world->temp, TOPIC, "21.5", 1);
	struct fake_opened o = { 0 };

	fake_settle(self->fake);
	if (!client_got_ack(&self->dev1, MQTT_PUBACK, id) ||
	    !client_got_sealed(&self->rx1, "21.5", &o))
		return false;
	client_send_ack(&self->rx1, MQTT_PUBACK, o.publish.packet_id);
	fake_settle(self->fake);
	return client_got_nothing(&self->dev1) && client_got_nothing(&self->rx1);
}

static bool is_refused(struct fixture_keys *self)
{
	struct fake_sealed s;

	client_seal(&self->dev1, self->world->temp, TOPIC, "21.5", 1, false, &s);
	client_send_publish(&self->dev1, &s.publish);
	fake_settle(self->fake);
	return client_got_error(&self->dev1, CONTROL_BAD_SIGNATURE, s.counter) &&
	       client_got_nothing(&self->dev1) && client_got_nothing(&self->rx1);
}

/* It gets as far as its response, and no further. */
static bool is_shut_out(struct fixture_keys *self, struct fake_client *c)
{
	client_dial(c);
	client_send_connect(c);
	fake_settle(self->fake);
	if (!client_got_connack(c, true, 0) || !client_got_challenge(c))
		return false;
	client_send_response(c, 0);
	fake_settle(self->fake);
	return client_closed(c) && client_got_nothing(c);
}

/* --- a party's previous key ------------------------------------------------------------------- */

/* The session goes on, and the party signs by the one and by the other. */
TEST_F(keys, both_hold)
{
	world_rotate_key(self->world->dev1, self->fake->wall_ms + 60000);
	apply(self);
	ASSERT_FALSE(client_closed(&self->dev1));
	for (unsigned i = 0; i < 6; i++) {
		self->dev1.old_key = i % 3 == 0;
		ASSERT_TRUE(publishes(self));
	}
	for (unsigned i = 0; i < 4; i++) {
		self->dev1.old_key = i % 2;
		ASSERT_TRUE(client_resumes(&self->dev1, true));
		self->dev1.old_key = i / 2;
		ASSERT_TRUE(publishes(self));
	}
}

/* Once it is known by which key a party signs, that one is tried first. */
TEST_F(keys, the_last_one_is_tried_first)
{
	world_rotate_key(self->world->dev1, 0);
	apply(self);
	for (unsigned i = 0; i < 4; i++) {
		self->dev1.old_key = i < 2;
		client_publish(&self->dev1, self->world->temp, TOPIC, "x", 0);
		fake_turn(self->fake);
		ASSERT_EQ(self->fake->n_verify, 1);
		broker_verify_run(self->fake->verify[0]);
		ASSERT_EQ(self->fake->verify[0]->result, BROKER_VERIFY_OK);
		/* At a change the second one it is. */
		ASSERT_EQ(self->fake->verify[0]->by == self->fake->verify[0]->other, i % 2 == 0);
		fake_settle(self->fake);
	}
}

/* However many are with the workers when it becomes known. */
TEST_F(keys, the_last_one_of_many_at_once)
{
	world_rotate_key(self->world->dev1, 0);
	apply(self);
	self->dev1.old_key = true;
	for (unsigned n = 2; n <= 3; n++) {
		self->fake->hold_verify = true;
		for (unsigned i = 0; i < n; i++)
			client_publish(&self->dev1, self->world->temp, TOPIC, "x", 0);
		fake_turn(self->fake);
		ASSERT_EQ(self->fake->n_verify, n);
		self->fake->hold_verify = false;
		fake_settle(self->fake);
		client_publish(&self->dev1, self->world->temp, TOPIC, "x", 0);
		fake_turn(self->fake);
		ASSERT_EQ(self->fake->n_verify, 1);
		broker_verify_run(self->fake->verify[0]);
		ASSERT_EQ(self->fake->verify[0]->result, BROKER_VERIFY_OK);
		ASSERT_TRUE(self->fake->verify[0]->by == self->fake->verify[0]->verifier);
		fake_settle(self->fake);
	}
}

TEST_F(keys, the_previous_one_ends)
{
	const uint64_t until = self->fake->wall_ms + 5000;

	world_rotate_key(self->world->dev1, until);
	world_rotate_key(self->world->rx1, until + 5000);
	apply(self);
	self->dev1.old_key = self->rx1.old_key = true;
	ASSERT_TRUE(publishes(self));
	/* One came by the new key: it may stay. */
	self->dev1.old_key = false;
	ASSERT_TRUE(client_resumes(&self->dev1, true));
	self->rx1.old_key = false;
	self->dev1.old_key = true;
	fake_pass(self->fake, 4900);
	ASSERT_TRUE(publishes(self));
	fake_pass(self->fake, 1200);
	ASSERT_FALSE(client_closed(&self->dev1));
	ASSERT_TRUE(is_refused(self));
	self->dev1.old_key = false;
	ASSERT_TRUE(publishes(self));
	/* rx1 authenticated by what was its only one then. */
	fake_pass(self->fake, 6000);
	ASSERT_TRUE(client_closed(&self->rx1));
	self->rx1.old_key = true;
	ASSERT_TRUE(is_shut_out(self, &self->rx1));
	self->rx1.old_key = false;
	ASSERT_TRUE(client_resumes(&self->rx1, true)); /* the session is its still */
	ASSERT_TRUE(publishes(self));
}

/* The manager takes it away before its time. */
TEST_F(keys, the_previous_one_is_taken_away)
{
	struct fake_sealed s;

	world_rotate_key(self->world->dev1, 0);
	apply(self);
	self->dev1.old_key = true;
	client_seal(&self->dev1, self->world->temp, TOPIC, "21.5", 1, false, &s);
	self->fake->hold_verify = true;
	client_send_publish(&self->dev1, &s.publish);
	p256_private_free(self->world->dev1->previous_key);
	self->world->dev1->previous_key = NULL;
	world_apply(self->world);
	self->fake->hold_verify = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(&self->dev1));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	self->dev1.old_key = false;
	ASSERT_TRUE(client_resumes(&self->dev1, true));
	ASSERT_TRUE(publishes(self));
}

/* A bundle that skips one: the key of the session is neither of the two. */
TEST_F(keys, two_rotations_in_one_bundle)
{
	world_rotate_key(self->world->dev1, 0);
	world_rotate_key(self->world->dev1, 0);
	apply(self);
	ASSERT_TRUE(client_closed(&self->dev1));
	ASSERT_TRUE(client_resumes(&self->dev1, false));
}

/* By the previous key it is here, and the next bundle knows that one, but not the one between. */
TEST_F(keys, the_one_between_is_skipped)
{
	struct world_party *p = self->world->dev1;

	world_rotate_key(p, 0);
	apply(self);
	self->dev1.old_key = true;
	ASSERT_TRUE(client_resumes(&self->dev1, true));
	world_new_key(p);
	apply(self);
	ASSERT_FALSE(client_closed(&self->dev1));
	ASSERT_TRUE(publishes(self));
}

/* The response is with a worker as the bundle comes. */
TEST_F(keys, rotated_while_it_authenticates)
{
	for (unsigned i = 0; i < 2; i++) {
		client_dial(&self->dev1);
		client_send_connect(&self->dev1);
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_connack(&self->dev1, true, 0));
		ASSERT_TRUE(client_got_challenge(&self->dev1));
		self->fake->hold_verify = true;
		client_send_response(&self->dev1, 0);
		if (i == 0)
			world_rotate_key(self->world->dev1, 0);
		else
			world_new_key(self->world->dev1);
		world_apply(self->world);
		self->fake->hold_verify = false;
		fake_settle(self->fake);
		ASSERT_EQ(client_closed(&self->dev1), i == 1);
		ASSERT_TRUE(i == 1 || client_got_result(&self->dev1));
	}
}

/* What the session has waiting survives. */
TEST_F(keys, a_receiver_that_is_away)
{
	fake_hang_up(self->rx1.conn);
	client_publish(&self->dev1, self->world->temp, TOPIC, "kept", 1);
	fake_settle(self->fake);
	world_rotate_key(self->world->rx1, self->fake->wall_ms + 1);
	apply(self);
	fake_pass(self->fake, 3000);
	ASSERT_TRUE(client_resumes(&self->rx1, true));
	ASSERT_TRUE(client_got_sealed(&self->rx1, "kept", NULL));
}

/* --- the broker's next key -------------------------------------------------------------------- */

TEST_F(keys, the_broker_changes)
{
	self->world->has_next = true;
	self->world->next_from_ms = self->fake->wall_ms + 5000;
	apply(self);
	ASSERT_TRUE(publishes(self));
	ASSERT_TRUE(client_resumes(&self->dev1, true));
	/* One is between its challenge and its response. */
	client_dial(&self->rx1);
	client_send_connect(&self->rx1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_connack(&self->rx1, true, 0) && client_got_challenge(&self->rx1));
	fake_pass(self->fake, 5000);
	client_send_response(&self->rx1, 0);
	fake_settle(self->fake);
	self->fake->next_expected = true;
	ASSERT_TRUE(client_got_result(&self->rx1));
	ASSERT_TRUE(publishes(self));
	ASSERT_TRUE(client_resumes(&self->dev1, true));
	/* It answers another key than the one that asked. */
	client_dial(&self->rx1);
	client_send_connect(&self->rx1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_connack(&self->rx1, true, 0) && client_got_challenge(&self->rx1));
	self->fake->next_expected = false;
	client_send_response(&self->rx1, 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(&self->rx1));
}

/* The token is away meanwhile, and comes back with nothing but the next key. */
TEST_F(keys, the_broker_changes_without_its_token)
{
	self->world->has_next = true;
	self->world->next_from_ms = self->fake->wall_ms + 1000;
	apply(self);
	self->fake->sign_status = BROKER_TOKEN_UNAVAILABLE;
	client_publish(&self->dev1, self->world->temp, TOPIC, "1", 1);
	fake_settle(self->fake);
	client_dial(&self->dev1);
	client_send_connect(&self->dev1);
	fake_settle(self->fake);
	fake_pass(self->fake, 2000);
	self->fake->sign_status = BROKER_TOKEN_OK;
	self->fake->lacks[0] = true;
	self->fake->next_expected = true;
	fake_pass(self->fake, 1000);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "1", NULL));
	ASSERT_TRUE(client_got_connack(&self->dev1, true, 0) && client_got_challenge(&self->dev1));
	client_send_response(&self->dev1, 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_result(&self->dev1));
}

/* The bundle that makes the next key the key comes while signatures are asked for by it as the next
 * one: there is no such key any more, and what is behind them waits for them. */
TEST_F(keys, the_next_key_becomes_the_key_meanwhile)
{
	self->world->has_next = true;
	self->world->next_from_ms = self->fake->wall_ms;
	apply(self);
	self->fake->next_expected = true;
	ASSERT_TRUE(publishes(self));
	self->fake->sign_status = BROKER_TOKEN_UNAVAILABLE;
	client_publish(&self->dev1, self->world->temp, TOPIC, "1", 1);
	fake_settle(self->fake);
	self->world->has_next = false;
	apply(self);
	self->fake->sign_status = BROKER_TOKEN_OK;
	self->fake->lacks[1] = true;
	fake_pass(self->fake, 1000);
	self->fake->next_expected = false; /* to the fake token it is the other one */
	ASSERT_TRUE(client_got_sealed(&self->rx1, "1", NULL));
}

/* --- a party's previous admission key --------------------------------------------------------- */

/* With the token of the other key; the client knows but one. */
static bool is_admitted(struct fixture_keys *self, const uint8_t key[ADMISSION_KEY_BYTES])
{
	struct world_party *p = self->world->dev1;
	uint8_t own[ADMISSION_KEY_BYTES];
	bool in;

	memcpy(own, p->k_adm, sizeof(own));
	memcpy(p->k_adm, key, sizeof(own));
	client_dial(&self->dev1);
	client_send_connect(&self->dev1);
	memcpy(p->k_adm, own, sizeof(own));
	fake_settle(self->fake);
	in = !client_closed(&self->dev1);
	ASSERT_TRUE(client_got_connack(&self->dev1, in, in ? 0 : 5));
	return in;
}

TEST_F(keys, the_previous_admission_key)
{
	struct world_party *p = self->world->dev1;
	const uint64_t untils[] = { self->fake->wall_ms + 5000, 0, UINT64_MAX };

	memcpy(p->previous_k_adm, p->k_adm, sizeof(p->k_adm));
	memset(p->k_adm, 7, sizeof(p->k_adm));
	apply(self);
	ASSERT_FALSE(is_admitted(self, p->previous_k_adm));
	p->admission_flags = BUNDLE_ADMISSION_PREVIOUS;
	for (unsigned i = 0; i < ARRAY_SIZE(untils); i++) {
		p->previous_k_adm_until_ms = untils[i];
		apply(self);
		ASSERT_TRUE(is_admitted(self, p->previous_k_adm));
		ASSERT_TRUE(is_admitted(self, p->k_adm));
		fake_pass(self->fake, 5000);
		ASSERT_EQ(is_admitted(self, p->previous_k_adm), i > 0);
		ASSERT_TRUE(is_admitted(self, p->k_adm));
	}
}

/* --- claims ----------------------------------------------------------------------------------- */

static bool not_permitted(struct fixture_keys *self, struct fake_client *c, uint64_t counter)
{
	fake_settle(self->fake);
	return client_got_error(c, CONTROL_NOT_PERMITTED, counter) && client_got_nothing(c);
}

/* It is let in, and may do nothing that others may. */
TEST_F(keys, who_may_only_claim)
{
	struct fake_sealed s;

	self->world->dev1->flags = RECORD_PARTY_CLAIM;
	self->world->dev1->roles |= RECORD_ROLE_RECEIVER | RECORD_ROLE_MANAGER;
	apply(self);
	ASSERT_TRUE(client_resumes(&self->dev1, true));
	ASSERT_EQ(client_subscribe(&self->dev1, "#", 0), 0x80);
	ASSERT_EQ(client_subscribe(&self->dev1, "$SYS/#", 0), 0x80);
	client_seal(&self->dev1, self->world->temp, TOPIC, "21.5", 0, false, &s);
	client_send_publish(&self->dev1, &s.publish);
	ASSERT_TRUE(not_permitted(self, &self->dev1, s.counter));
	client_send_report(&self->dev1, CONTROL_MALFORMED, 1, "dev2", "it lies");
	ASSERT_TRUE(not_permitted(self, &self->dev1, 0));
	client_send_nack(&self->dev1, CONTROL_MALFORMED, 1, "dev2");
	ASSERT_TRUE(not_permitted(self, &self->dev1, 0));
	client_ask_updates(&self->dev1, 0, 0);
	ASSERT_TRUE(not_permitted(self, &self->dev1, 0));
	/* Nor does it leave a Will. */
	client_seal_will(&self->dev1, self->world->temp, TOPIC, "gone", &s);
	client_dial(&self->dev1);
	client_send_connect(&self->dev1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_connack(&self->dev1, true, 0) && client_got_challenge(&self->dev1));
	client_send_response(&self->dev1, 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(&self->dev1));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
}
