// SPDX-License-Identifier: MIT
/*
 * What the manager states anew, and who is told (PROTOCOL 13).
 *
 *	scope temp: dev1, dev2 publish, rx1 reads, rx2 reads with proof
 *	scope cam:  dev2, cam1 publish, rx2 reads without
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/fake_check.h"
#include "tests/fake_client.h"
#include "tests/harness.h"
#include "userspace/broker/engine.h"

HARNESS_MAIN

#define TOPIC	    "site/1/temp"
#define SERIALS_MAX 1024

FIXTURE(up)
{
	struct world *world;
	struct fake_broker *fake;
	struct fake_client dev1, cam1, rx1, rx2, mgr;
};

static void start(struct fixture_up *self, const struct broker_config *config)
{
	struct world *w = self->world = world_new(config);

	self->fake = w->fake;
	client_init_party(&self->dev1, w, w->dev1);
	client_init_party(&self->cam1, w, w->cam1);
	client_init_party(&self->rx1, w, w->rx1);
	client_init_party(&self->rx2, w, w->rx2);
	client_init_party(&self->mgr, w, w->mgr);
	ASSERT_TRUE(client_up(&self->dev1) && client_up(&self->cam1) && client_up(&self->rx1) &&
		    client_up(&self->rx2) && client_up(&self->mgr));
}

static void finish(struct fixture_up *self)
{
	client_deinit(&self->dev1);
	client_deinit(&self->cam1);
	client_deinit(&self->rx1);
	client_deinit(&self->rx2);
	client_deinit(&self->mgr);
	world_free(self->world);
}

FIXTURE_SETUP(up)
{
	start(self, NULL);
}

FIXTURE_TEARDOWN(up)
{
	finish(self);
}

static void ask(struct fixture_up *self, struct fake_client *c, uint64_t had)
{
	client_ask_updates(c, had, 0);
	fake_settle(self->fake);
}

/* The next message has these, and there is no other. 0 ends them. */
static bool got(struct fake_client *c, const uint64_t *want)
{
	uint64_t serials[SERIALS_MAX];
	unsigned n = SERIALS_MAX, i = 0;

	if (!client_got_updates(c, serials, &n))
		return false;
	for (; i < n && serials[i] == want[i]; i++)
		;
	if (i < n || want[i])
		harness_note("%s: %u updates, the one at %u is another", c->id, n, i);
	return i == n && !want[i] && client_got_nothing(c);
}

/* The next message has this one, whatever comes then. */
static bool next_is(struct fake_client *c, uint64_t serial)
{
	uint64_t serials[SERIALS_MAX];
	unsigned n = SERIALS_MAX;

	return client_got_updates(c, serials, &n) && n == 1 && serials[0] == serial;
}

static bool got_both(struct fake_client *c, uint64_t first, uint64_t second)
{
	uint64_t serials[SERIALS_MAX];
	unsigned n = SERIALS_MAX;

	return client_got_updates(c, serials, &n) && n == 2 && serials[0] == first &&
	       serials[1] == second;
}

#define GOT(c, ...) got((c), (const uint64_t[]){ __VA_ARGS__, 0 })

/* --- whom they concern ------------------------------------------------------------------------ */

TEST_F(up, each_is_told_what_concerns_it)
{
	struct world *w = self->world;
	uint64_t temp = world_state_scope(w, w->temp), cam = world_state_scope(w, w->cam);
	uint64_t g1 = world_state_grant(w, w->rx1_temp), g2 = world_state_grant(w, w->rx2_cam);
	uint64_t dev2 = world_state_party(w, w->dev2), cam1 = world_state_party(w, w->cam1);
	uint64_t broker = world_state_broker(w);

	world_apply(w);
	ask(self, &self->dev1, 0);
	ASSERT_TRUE(GOT(&self->dev1, temp, broker));
	ask(self, &self->cam1, 0);
	ASSERT_TRUE(GOT(&self->cam1, cam, broker));
	ask(self, &self->rx1, 0);
	ASSERT_TRUE(GOT(&self->rx1, g1, broker));
	ask(self, &self->rx2, 0);
	ASSERT_TRUE(GOT(&self->rx2, g2, dev2, broker)); /* of cam1 it asks for no proof */
	ask(self, &self->mgr, 0);
	ASSERT_TRUE(GOT(&self->mgr, broker));
	ASSERT_NE(cam1, dev2);
}

TEST_F(up, only_what_is_newer)
{
	struct world *w = self->world;
	uint64_t s[4];

	for (unsigned i = 0; i < 4; i++)
		s[i] = world_state_scope(w, w->temp);
	world_apply(w);
	ask(self, &self->dev1, s[1]);
	ASSERT_TRUE(GOT(&self->dev1, s[2], s[3]));
	ask(self, &self->dev1, s[3]);
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	ask(self, &self->dev1, UINT64_MAX);
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	ask(self, &self->dev1, s[0] - 1); /* again, all of it */
	ASSERT_TRUE(GOT(&self->dev1, s[0], s[1], s[2], s[3]));
}

/* Those that asked are told of each bundle; the others never. */
TEST_F(up, later_bundles)
{
	struct world *w = self->world;
	uint64_t a, b;

	ask(self, &self->dev1, 0);
	ask(self, &self->cam1, 0);
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	a = world_state_scope(w, w->temp);
	world_apply(w);
	fake_settle(self->fake);
	ASSERT_TRUE(GOT(&self->dev1, a));
	ASSERT_TRUE(client_got_nothing(&self->cam1) && client_got_nothing(&self->rx1));
	b = world_state_broker(w);
	world_apply(w);
	world_apply(w);
	fake_settle(self->fake);
	ASSERT_TRUE(GOT(&self->dev1, b) && GOT(&self->cam1, b));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	/* Another session asks anew. */
	ASSERT_TRUE(client_up(&self->dev1));
	a = world_state_scope(w, w->temp);
	world_apply(w);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	ask(self, &self->dev1, b);
	ASSERT_TRUE(GOT(&self->dev1, a));
}

TEST_F(up, one_who_was_revoked)
{
	struct world *w = self->world;
	uint64_t named, nameless;

	ask(self, &self->rx1, 0);
	ask(self, &self->rx2, 0);
	w->dev1->roles = 0;
	named = world_state_party(w, w->dev1);
	w->dev1->scopes[0] = NULL;
	nameless = world_state_party(w, w->dev1);
	w->dev1->gone = true;
	world_apply(w);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1)); /* reads without proofs */
	ASSERT_TRUE(GOT(&self->rx2, named, nameless));
	ASSERT_TRUE(client_closed(&self->dev1));
}

/* --- before what they are for ----------------------------------------------------------------- */

static void send(struct fixture_up *self, const char *text)
{
	client_publish(&self->dev1, self->world->temp, TOPIC, text, 1);
	fake_turn(self->fake);
	while (fake_run_verify(self->fake))
		;
	fake_turn(self->fake);
}

static struct world_grant *new_grant(struct fixture_up *self)
{
	struct world *w = self->world;
	struct world_grant *g = world_add_grant(w, w->rx1, w->temp, 0);

	g->not_before_ms = 1; /* later than the other's */
	return g;
}

/* What comes next is a delivery by g. */
static bool got_by(struct fake_client *c, const char *text, const struct world_grant *g)
{
	struct fake_opened o = { 0 };

	return client_got_sealed(c, text, &o) && o.grant == g;
}

/* Whatever a delivery was doing as the bundle came: with the token, with the signer, or waiting. */
TEST_F(up, before_deliveries_by_a_new_grant)
{
	for (unsigned i = 0; i < 4; i++) {
		struct world_grant *g = new_grant(self);
		uint64_t serial;

		ASSERT_TRUE(client_up(&self->rx1));
		ASSERT_EQ(client_subscribe(&self->rx1, TOPIC, 0), 0);
		ask(self, &self->rx1, self->world->update_serial);
		client_new_context(&self->dev1, self->world->temp);
		self->fake->hold_convert = i == 0;
		self->fake->hold_sign = i == 1;
		if (i < 3)
			send(self, "21.5");
		while (i == 1 && fake_run_token(self->fake))
			fake_turn(self->fake);
		g->not_before_ms = 1 + i;
		serial = world_state_grant(self->world, g);
		world_apply(self->world);
		if (i == 3)
			send(self, "21.5");
		self->fake->hold_convert = self->fake->hold_sign = false;
		fake_settle(self->fake);
		ASSERT_TRUE(next_is(&self->rx1, serial));
		ASSERT_TRUE(got_by(&self->rx1, "21.5", g));
		ASSERT_TRUE(client_got_nothing(&self->rx1));
	}
}

/* As it asks, too: what has not left yet is converted anew, behind the answer. */
TEST_F(up, before_deliveries_when_it_asks)
{
	struct world_grant *g = new_grant(self);
	uint64_t serial = world_state_grant(self->world, g);

	world_apply(self->world);
	ASSERT_EQ(client_subscribe(&self->rx1, TOPIC, 1), 1);
	self->fake->hold_convert = true;
	send(self, "21.5");
	ask(self, &self->rx1, 0);
	self->fake->hold_convert = false;
	fake_settle(self->fake);
	ASSERT_TRUE(next_is(&self->rx1, serial));
	ASSERT_TRUE(got_by(&self->rx1, "21.5", g));
}

/* What was queued while it was away waits until it asks, as it did before, also across a crash. */
TEST_F(up, before_what_was_queued)
{
	ASSERT_TRUE(client_up_persistent(&self->rx1));
	ASSERT_EQ(client_subscribe(&self->rx1, TOPIC, 1), 1);
	for (unsigned i = 0; i < 3; i++) {
		struct world_grant *g = new_grant(self);
		uint64_t serial, had = self->world->update_serial;
		struct fake_opened o = { 0 };

		ask(self, &self->rx1, had);
		client_send_empty(&self->rx1, MQTT_DISCONNECT);
		g->not_before_ms = 1 + i;
		serial = world_state_grant(self->world, g);
		world_apply(self->world);
		client_new_context(&self->dev1, self->world->temp);
		send(self, "21.5");
		fake_settle(self->fake);
		if (i == 1) {
			world_restart(self->world);
			ASSERT_TRUE(client_up(&self->dev1));
		}
		ASSERT_TRUE(client_resumes(&self->rx1, true));
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_nothing(&self->rx1));
		if (i < 2) {
			ask(self, &self->rx1, had);
			ASSERT_TRUE(next_is(&self->rx1, serial));
		} else {
			fake_pass(self->fake, UPDATES_AWAITED_MS + 100); /* it does without */
		}
		ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", &o) && o.grant == g);
		client_send_ack(&self->rx1, MQTT_PUBACK, o.publish.packet_id);
		fake_settle(self->fake);
	}
}

/* Deliveries wait only as long as there is something to be told. */
TEST_F(up, deliveries_go_on)
{
	uint64_t serial;

	ASSERT_EQ(client_subscribe(&self->rx1, TOPIC, 0), 0);
	ask(self, &self->rx1, 0);
	(void)world_state_scope(self->world, self->world->temp); /* is nothing to rx1 */
	world_apply(self->world);
	send(self, "1");
	fake_settle(self->fake);
	ASSERT_TRUE(got_by(&self->rx1, "1", self->world->rx1_temp));
	serial = world_state_broker(self->world);
	self->fake->sign_status = BROKER_TOKEN_UNAVAILABLE;
	world_apply(self->world);
	send(self, "2");
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	self->fake->sign_status = BROKER_TOKEN_OK;
	fake_pass(self->fake, 1000);
	ASSERT_TRUE(next_is(&self->rx1, serial));
	ASSERT_TRUE(got_by(&self->rx1, "2", self->world->rx1_temp));
}

/* So many wait for the token that no update may join them: deliveries need not wait for that, but
 * for a grant. */
TEST_F(up, while_the_token_is_crowded)
{
	struct broker_config config;
	struct world_grant *g;
	struct fake_sealed s;
	uint64_t serial;

	fake_config(false, &config);
	config.limits.errors_per_second = 1000000;
	finish(self);
	start(self, &config);
	for (unsigned i = 0; i < 2; i++) {
		struct fake_client *rx = i ? &self->rx1 : &self->rx2;

		ASSERT_EQ(client_subscribe(rx, TOPIC, 0), 0);
		ask(self, rx, self->world->update_serial);
	}
	self->fake->hold_sign = true;
	for (unsigned i = 0; i < 600; i++) {
		client_seal(&self->cam1, self->world->cam, TOPIC, "x", 0, false, &s);
		client_send_publish(&self->cam1, &s.publish);
		fake_settle(self->fake);
	}
	g = new_grant(self);
	(void)world_state_grant(self->world, g);
	serial = world_state_broker(self->world);
	world_apply(self->world);
	send(self, "21.5");
	fake_settle(self->fake);
	self->fake->hold_sign = false;
	fake_settle(self->fake);
	ASSERT_TRUE(got_by(&self->rx2, "21.5", self->world->rx2_temp));
	ASSERT_TRUE(next_is(&self->rx2, serial));
	ASSERT_TRUE(got_both(&self->rx1, serial - 1, serial));
	ASSERT_TRUE(got_by(&self->rx1, "21.5", g));
}

/* --- many ------------------------------------------------------------------------------------- */

/* In as many messages as are needed, and the deliveries behind the last. */
TEST_F(up, more_than_fit_into_a_message)
{
	struct world *w = self->world;
	uint64_t serials[SERIALS_MAX], first = w->update_serial + 1, next = first;
	unsigned messages = 0;

	ASSERT_EQ(client_subscribe(&self->rx1, TOPIC, 0), 0);
	while (w->n_updates < 600)
		(void)world_state_grant(w, w->rx1_temp);
	world_apply(w);
	self->fake->hold_sign = true;
	ask(self, &self->rx1, first);
	next++;
	send(self, "21.5");
	self->fake->hold_sign = false;
	fake_settle(self->fake);
	while (next <= w->update_serial) {
		unsigned n = SERIALS_MAX;

		ASSERT_TRUE(client_got_updates(&self->rx1, serials, &n));
		ASSERT_GT(n, 0);
		for (unsigned i = 0; i < n; i++)
			ASSERT_EQ(serials[i], next++);
		messages++;
	}
	ASSERT_GE(messages, 3);
	ASSERT_TRUE(got_by(&self->rx1, "21.5", w->rx1_temp));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
}

/* One who takes nothing is sent no more than its connection may hold, and the rest later. */
TEST_F(up, slow_receiver)
{
	struct world *w = self->world;
	struct broker_config config;
	uint64_t serials[SERIALS_MAX];
	unsigned total = 0;

	fake_config(false, &config);
	config.limits.output_bytes_soft = 4096;
	finish(self);
	start(self, &config);
	w = self->world;
	while (w->n_updates < 600)
		(void)world_state_grant(w, w->rx1_temp);
	world_apply(w);
	self->rx1.conn->stalled = true;
	ask(self, &self->rx1, 0);
	fake_pass(self->fake, 1000);
	ASSERT_LT(self->rx1.conn->out_n - self->rx1.conn->sent, 2 * 60000);
	fake_unstall(self->rx1.conn);
	fake_settle(self->fake);
	for (unsigned n; total < 600; total += n) {
		n = SERIALS_MAX;
		ASSERT_TRUE(client_got_updates(&self->rx1, serials, &n));
	}
	ASSERT_EQ(total, 600);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
}

/* More than a message may have is not passed on, and holds up nothing. */
TEST_F(up, too_large_a_statement)
{
	struct world *w = self->world;
	static char filter[60001];
	static uint8_t body[61000];
	struct bytes_writer out = bytes_writer_of(body, sizeof(body));
	struct record_scope r = {
		.key_id = 77,
		.name = bytes_str("temp"),
		.suite = HPKE_SUITE_AES_128_GCM,
		.a = w->temp->point,
		.n_filters = 1,
	};
	uint64_t before, behind;

	memset(filter, 'x', sizeof(filter) - 1);
	r.filters[0] = bytes_str(filter);
	record_scope_encode(&r, &out);
	before = world_state_scope(w, w->temp);
	(void)world_state(w, STATEMENT_SCOPE, bytes_of(body, out.used));
	behind = world_state_scope(w, w->temp);
	world_apply(w);
	ask(self, &self->dev1, 0);
	/* What is before it may go in a message of its own. */
	ASSERT_TRUE(next_is(&self->dev1, before));
	ASSERT_TRUE(GOT(&self->dev1, behind));
	ASSERT_TRUE(!strcmp(self->fake->last_event, "not passed on"));
}

/* --- what is refused -------------------------------------------------------------------------- */

static int apply(struct fixture_up *self)
{
	const char *why = "";

	return broker_apply_bundle(self->fake->engine, ++self->world->serial,
				   world_bundle(self->world), &why);
}

TEST_F(up, bundles_with_other_statements)
{
	struct world *w = self->world;
	uint8_t body[4] = { 0 };

	(void)world_state(w, STATEMENT_GATEWAY, bytes_of(body, sizeof(body)));
	ASSERT_EQ(apply(self), -EBADMSG);
	w->n_updates = 0;
	w->updates_n = 0;
	(void)world_state(w, STATEMENT_GRANT, bytes_of(body, sizeof(body)));
	ASSERT_EQ(apply(self), -EBADMSG);
	w->n_updates = 0;
	w->updates_n = 0;
	(void)world_state_broker(w);
	w->update_serial--;
	(void)world_state_broker(w); /* the same serial twice */
	ASSERT_EQ(apply(self), -EBADMSG);
	w->n_updates = 0;
	w->updates_n = 0;
	ASSERT_EQ(apply(self), 0);
}

TEST_F(up, malformed)
{
	uint8_t body[64] = { 0 };

	client_send_signed(&self->dev1, "$SSDTF/update", bytes_of(body, 8), 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_MALFORMED, 0));
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, self->dev1.packet_id));
	self->dev1.ask_n = 7;
	ask(self, &self->dev1, 0);
	self->dev1.ask_n = 7; /* the same number again */
	client_ask_updates(&self->dev1, 0, 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_MALFORMED, 0));
}

/* So often as of nacks, in a second; the rest are acknowledged. */
TEST_F(up, asked_too_often)
{
	uint64_t serial = world_state_broker(self->world);
	unsigned told = 0;

	world_apply(self->world);
	for (unsigned i = 0; i < 100; i++) {
		client_ask_updates(&self->dev1, 0, 1);
		fake_settle(self->fake);
		while (!fake_silent(self->dev1.conn)) {
			struct mqtt_frame f;

			ASSERT_TRUE(fake_next_packet(self->dev1.conn, &f));
			told += mqtt_frame_type(&f) == MQTT_PUBLISH;
		}
	}
	ASSERT_EQ(told, self->fake->config.limits.errors_per_second);
	ASSERT_FALSE(client_closed(&self->dev1));
	ASSERT_GT(serial, 0);
}
