// SPDX-License-Identifier: MIT
/*
 * What distributors bring (PROTOCOL 12): messages above level 0 on their way in, whose counters
 *they are, and how they go on: converted once more, or to one receiver as they came.
 *
 *	dev1 --0--> broker --1 by hop--> dist --2 by outlet, a hop--> broker --3--> rx1
 *	                                      --2 by direct-------> broker --2--> rx2
 */
#include <errno.h>
#include <stdio.h>

#include "tests/fake_client.h"
#include "tests/harness.h"
#include "userspace/base/text.h"

HARNESS_MAIN

#define TOPIC	"site/1/temp"
#define PUBLIC	"public/site/1/temp"
#define ORIGIN	"00112233445566778899aabbccddeeff"
#define ANOTHER "ffeeddccbbaa99887766554433221100"
#define DAY_MS	(24 * 3600 * 1000ull)

FIXTURE(up)
{
	struct world *world;
	struct fake_broker *fake;
	struct world_party *dist_party, *other_party;
	struct world_grant *hop, *outlet, *direct, *rx1_outlet;
	struct fake_client dev1, dist, other, rx1, rx2;
	struct fake_opened taken; /* at level 1, by dist; its envelope is in body */
	uint8_t body[CLIENT_SEALED_MAX];
};

static void start(struct fixture_up *self, const struct broker_config *config)
{
	struct world *w = self->world = world_new(config);

	self->fake = w->fake;
	w->temp->public_filters[0] = "public/#";
	w->temp->public_filters[1] = TOPIC;
	self->dist_party = world_add_party(w, "dist", RECORD_ROLE_DISTRIBUTOR, NULL);
	self->other_party = world_add_party(w, "other", RECORD_ROLE_DISTRIBUTOR, NULL);
	self->hop =
		world_add_grant_from(w, self->dist_party, w->temp, RECORD_GRANT_HOP, NULL, NULL);
	self->outlet = world_add_grant_from(w, self->dist_party, w->temp,
					    RECORD_GRANT_HOP | RECORD_GRANT_IDS_REPLACED, self->hop,
					    self->dist_party);
	self->direct = world_add_grant_from(w, w->rx2, w->temp, RECORD_GRANT_IDS_REPLACED,
					    self->hop, self->dist_party);
	self->rx1_outlet = world_add_grant_from(w, w->rx1, w->temp, RECORD_GRANT_IDS_REPLACED,
						self->outlet, NULL);
	world_apply(w);
	client_init_party(&self->dev1, w, w->dev1);
	client_init_party(&self->dist, w, self->dist_party);
	client_init_party(&self->other, w, self->other_party);
	client_init_party(&self->rx1, w, w->rx1);
	client_init_party(&self->rx2, w, w->rx2);
}

/* All are here. dist gets what comes in, the receivers what comes out. */
static void connect_all(struct fixture_up *self)
{
	ASSERT_TRUE(client_up(&self->dev1) && client_up(&self->dist) && client_up(&self->other) &&
		    client_up_persistent(&self->rx1) && client_up_persistent(&self->rx2));
	ASSERT_EQ(client_subscribe(&self->dist, "site/#", 1), 1);
	ASSERT_EQ(client_subscribe(&self->rx1, "public/#", 1), 1);
	ASSERT_EQ(client_subscribe(&self->rx2, "public/#", 1), 1);
}

/* After a restart: what rx1 has not acknowledged comes again, converted by the same grant. */
static void come_back(struct fixture_up *self, const char *text)
{
	ASSERT_TRUE(client_up(&self->dev1) && client_up(&self->dist) && client_up(&self->other));
	ASSERT_EQ(client_subscribe(&self->dist, "site/#", 1), 1);
	ASSERT_TRUE(client_resumes(&self->rx1, true) && client_resumes(&self->rx2, true));
	ASSERT_TRUE(client_got_sealed(&self->rx1, text, NULL));
}

static void finish(struct fixture_up *self)
{
	client_deinit(&self->dev1);
	client_deinit(&self->dist);
	client_deinit(&self->other);
	client_deinit(&self->rx1);
	client_deinit(&self->rx2);
	world_free(self->world);
}

static void default_config(struct broker_config *config)
{
	fake_config(false, config);
	config->limits.errors_per_second = 1000000;
}

FIXTURE_SETUP(up)
{
	struct broker_config config;

	default_config(&config);
	start(self, &config);
	connect_all(self);
}

FIXTURE_TEARDOWN(up)
{
	finish(self);
}

/* Says it, and dist has it at level 1. */
static void say_by(struct fixture_up *self, struct fake_client *c, const char *text)
{
	struct fake_opened *o = &self->taken;

	client_publish(c, self->world->temp, TOPIC, text, 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_taken(&self->dist, o));
	ASSERT_TRUE(o->grant == self->hop && o->envelope.level == 1);
	ASSERT_TRUE(bytes_equal(o->envelope.origin, bytes_str(c->id)));
	memcpy(self->body, o->envelope.whole.p, o->envelope.whole.n);
	ASSERT_EQ(envelope_parse(bytes_of(self->body, o->envelope.whole.n), &o->envelope), 0);
}

static void say(struct fixture_up *self, const char *text)
{
	say_by(self, &self->dev1, text);
}

static void distribute(struct fixture_up *self, const struct world_grant *g, const char *origin,
		       struct fake_sealed *s)
{
	client_distribute(&self->dist, &self->taken, g, PUBLIC, origin, 1, false, s);
}

static void say_and_distribute(struct fixture_up *self, const char *text,
			       const struct world_grant *g, const char *origin,
			       struct fake_sealed *s)
{
	say(self, text);
	distribute(self, g, origin, s);
}

static void send(struct fixture_up *self, struct fake_client *c, const struct fake_sealed *s)
{
	client_send_publish(c, &s->publish);
	fake_settle(self->fake);
}

static bool acknowledged(struct fake_client *c, const struct fake_sealed *s)
{
	return client_got_ack(c, s->publish.qos == 2 ? MQTT_PUBREC : MQTT_PUBACK,
			      s->publish.packet_id) &&
	       client_got_nothing(c);
}

static bool taken(struct fixture_up *self, const struct fake_sealed *s)
{
	uint64_t accepted = fake_stats(self->fake).accepted;

	send(self, &self->dist, s);
	return acknowledged(&self->dist, s) && fake_stats(self->fake).accepted == accepted + 1;
}

static bool seen(struct fixture_up *self, const struct fake_sealed *s)
{
	uint64_t replayed = fake_stats(self->fake).replayed;

	send(self, &self->dist, s);
	return acknowledged(&self->dist, s) && fake_stats(self->fake).replayed == replayed + 1;
}

static bool refused_of(struct fixture_up *self, struct fake_client *c, const struct fake_sealed *s,
		       enum control_reason reason)
{
	send(self, c, s);
	return client_got_error(c, reason, s->counter) &&
	       (reason == CONTROL_UNAVAILABLE || reason == CONTROL_BAD_SIGNATURE
			? client_got_nothing(c)
			: acknowledged(c, s)) &&
	       client_got_nothing(&self->rx1) && client_got_nothing(&self->rx2);
}

static bool refused(struct fixture_up *self, const struct fake_sealed *s,
		    enum control_reason reason)
{
	return refused_of(self, &self->dist, s, reason);
}

/* The next is this text, of this origin; acknowledged. */
static bool got(struct fixture_up *self, struct fake_client *c, const char *text,
		const struct world_grant *g, const char *origin)
{
	struct fake_opened o = { 0 };

	if (!client_got_sealed(c, text, &o) || o.grant != g ||
	    !bytes_equal(o.envelope.origin, bytes_str(origin)) || o.envelope.proof.n)
		return false;
	if (o.publish.qos)
		client_send_ack(c, MQTT_PUBACK, o.publish.packet_id);
	fake_settle(self->fake);
	return client_got_nothing(c);
}

/* --- on their way ----------------------------------------------------------------------------- */

TEST_F(up, converted_once_more)
{
	struct fake_sealed s;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(got(self, &self->rx1, "21.5", self->rx1_outlet, ORIGIN));
	ASSERT_TRUE(client_got_nothing(&self->rx2)); /* it holds no grant from this outlet */
	ASSERT_TRUE(seen(self, &s));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
}

TEST_F(up, converted_once_per_context)
{
	unsigned before = self->fake->conversions;
	struct fake_sealed s;

	for (unsigned i = 0; i < 5; i++) {
		say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
		ASSERT_TRUE(taken(self, &s));
		ASSERT_TRUE(got(self, &self->rx1, "21.5", self->rx1_outlet, ORIGIN));
	}
	ASSERT_EQ(self->fake->conversions - before, 2); /* for dist, and for rx1 */
}

TEST_F(up, passed_on_to_one)
{
	struct fake_opened o = { 0 };
	struct fake_sealed s;
	unsigned before;

	ASSERT_EQ(client_subscribe(&self->other, "public/#", 0), 0);
	say_and_distribute(self, "21.5", self->direct, ORIGIN, &s);
	before = self->fake->conversions;
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(client_got_sealed(&self->rx2, "21.5", &o));
	/* Not a byte of it is another. */
	ASSERT_EQ(o.envelope.level, 2);
	ASSERT_EQ(o.trailer.body.n, s.n - PUBLISH_TRAILER_1_BYTES);
	ASSERT_BYTES(o.trailer.body.p, s.payload, o.trailer.body.n);
	ASSERT_TRUE(client_got_nothing(&self->rx1) && client_got_nothing(&self->other));
	ASSERT_EQ(self->fake->conversions, before);
}

/* Large ones are not copied; signed with others they have a longer trailer. */
TEST_F(up, passed_on_and_converted_together)
{
	static char text[CLIENT_TEXT_MAX - 1000];
	struct fake_sealed s;

	memset(text, 'x', sizeof(text) - 1);
	for (unsigned i = 0; i < 3; i++) {
		say_and_distribute(self, text, self->direct, ORIGIN, &s);
		client_send_publish(&self->dist, &s.publish);
		distribute(self, self->outlet, ANOTHER, &s);
		send(self, &self->dist, &s);
		ASSERT_TRUE(client_got_ack(&self->dist, MQTT_PUBACK, s.publish.packet_id - 1));
		ASSERT_TRUE(acknowledged(&self->dist, &s));
		ASSERT_TRUE(got(self, &self->rx1, text, self->rx1_outlet, ANOTHER));
		ASSERT_TRUE(got(self, &self->rx2, text, self->direct, ORIGIN));
	}
}

TEST_F(up, at_each_qos)
{
	struct fake_sealed s;

	for (uint8_t qos = 0; qos < 3; qos++) {
		say(self, "21.5");
		client_distribute(&self->dist, &self->taken, self->direct, PUBLIC, ORIGIN, qos,
				  false, &s);
		send(self, &self->dist, &s);
		ASSERT_TRUE(!qos || acknowledged(&self->dist, &s));
		ASSERT_TRUE(client_got_sealed(&self->rx2, "21.5", NULL));
	}
}

/* A sender that is named by its own id: bind holds for the topic it named. */
TEST_F(up, with_its_own_id)
{
	struct fake_sealed s;

	ASSERT_EQ(client_subscribe(&self->rx1, TOPIC, 1), 1);
	say(self, "21.5");
	ASSERT_TRUE(got(self, &self->rx1, "21.5", self->world->rx1_temp, "dev1"));
	client_distribute(&self->dist, &self->taken, self->outlet, TOPIC, NULL, 1, false, &s);
	send(self, &self->dist, &s);
	ASSERT_TRUE(got(self, &self->rx1, "21.5", self->rx1_outlet, "dev1"));
}

TEST_F(up, retained)
{
	struct fake_sealed s;

	say(self, "kept");
	client_distribute(&self->dist, &self->taken, self->outlet, PUBLIC, ORIGIN, 1, true, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(got(self, &self->rx1, "kept", self->rx1_outlet, ORIGIN));
	say(self, "kept for one");
	client_distribute(&self->dist, &self->taken, self->direct, "public/2", ORIGIN, 1, true, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(got(self, &self->rx2, "kept for one", self->direct, ORIGIN));
	ASSERT_EQ(client_subscribe(&self->rx1, "public/#", 1), 1);
	ASSERT_TRUE(got(self, &self->rx1, "kept", self->rx1_outlet, ORIGIN));
	ASSERT_EQ(client_subscribe(&self->rx2, "public/#", 1), 1);
	ASSERT_TRUE(got(self, &self->rx2, "kept for one", self->direct, ORIGIN));
	/* Nothing in it clears the topic. */
	say(self, "");
	client_distribute(&self->dist, &self->taken, self->outlet, PUBLIC, ORIGIN, 1, true, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_EQ(fake_stats(self->fake).retained, 1);
}

TEST_F(up, queued_for_who_is_away)
{
	struct fake_sealed s;

	fake_hang_up(self->rx1.conn);
	fake_hang_up(self->rx2.conn);
	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	ASSERT_TRUE(taken(self, &s));
	distribute(self, self->direct, ANOTHER, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(client_resumes(&self->rx1, true) && client_resumes(&self->rx2, true));
	ASSERT_TRUE(got(self, &self->rx1, "21.5", self->rx1_outlet, ORIGIN));
	ASSERT_TRUE(got(self, &self->rx2, "21.5", self->direct, ANOTHER));
}

/* A hop with proof: the distributor checks the sender's own signature. */
TEST_F(up, the_hop_has_the_proof)
{
	struct fake_sealed s;

	self->hop->flags |= RECORD_GRANT_PROOF;
	world_apply(self->world);
	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	ASSERT_GT(self->taken.envelope.proof.n, 0);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(got(self, &self->rx1, "21.5", self->rx1_outlet, ORIGIN));
}

/* A second distributor behind the first: its hop begins where the first one's outlet ends. */
TEST_F(up, two_distributors)
{
	struct world *w = self->world;
	struct world_grant *second, *last, *rx1_last;
	struct fake_opened o = { 0 };
	struct fake_sealed s;

	second = world_add_grant_from(w, self->other_party, w->temp,
				      RECORD_GRANT_HOP | RECORD_GRANT_IDS_REPLACED, self->outlet,
				      NULL);
	last = world_add_grant_from(w, self->other_party, w->temp,
				    RECORD_GRANT_HOP | RECORD_GRANT_IDS_REPLACED, second,
				    self->other_party);
	rx1_last = world_add_grant_from(w, w->rx1, w->temp, RECORD_GRANT_IDS_REPLACED, last, NULL);
	world_apply(w);
	ASSERT_EQ(client_subscribe(&self->other, "public/site/#", 0), 0);
	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(got(self, &self->rx1, "21.5", self->rx1_outlet, ORIGIN));
	ASSERT_TRUE(client_got_taken(&self->other, &o));
	ASSERT_TRUE(o.grant == second && o.envelope.level == 3);
	client_distribute(&self->other, &o, last, "public/2", ANOTHER, 1, false, &s);
	send(self, &self->other, &s);
	ASSERT_TRUE(acknowledged(&self->other, &s));
	ASSERT_TRUE(got(self, &self->rx1, "21.5", rx1_last, ANOTHER));
}

/* What was converted of one point is not handed out for another, be the context the same. */
TEST_F(up, points_are_told_apart)
{
	struct fake_sealed s;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	/* x of a point that has nothing to do with it, which dist signs all the same. */
	memcpy(s.payload + ENVELOPE_FIXED_BYTES + GRANT_ID_BYTES, self->fake->key_point.b + 1,
	       P256_X_BYTES);
	client_sign(&self->dist, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_FALSE(client_got_sealed(&self->rx1, "21.5", NULL));
	say_and_distribute(self, "21.6", self->outlet, ORIGIN, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(got(self, &self->rx1, "21.6", self->rx1_outlet, ORIGIN));
}

/* --- refused ---------------------------------------------------------------------------------- */

TEST_F(up, only_from_distributors)
{
	struct fake_sealed s;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	client_sign(&self->dev1, &s);
	ASSERT_TRUE(refused_of(self, &self->dev1, &s, CONTROL_MALFORMED));
	client_sign(&self->other, &s); /* one, but not this outlet's */
	ASSERT_TRUE(refused_of(self, &self->other, &s, CONTROL_NOT_PERMITTED));
	client_sign(&self->dist, &s);
	ASSERT_TRUE(taken(self, &s));
	self->dist_party->roles = RECORD_ROLE_DEVICE | RECORD_ROLE_RECEIVER;
	world_apply(self->world);
	ASSERT_TRUE(got(self, &self->rx1, "21.5", self->rx1_outlet, ORIGIN));
	ASSERT_TRUE(refused(self, &s, CONTROL_MALFORMED));
}

/* The role went while the message was being verified. */
TEST_F(up, no_distributor_any_more)
{
	struct fake_sealed s;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	self->fake->hold_verify = true;
	client_send_publish(&self->dist, &s.publish);
	self->dist_party->roles = RECORD_ROLE_DEVICE;
	world_apply(self->world);
	self->fake->hold_verify = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->dist, CONTROL_NOT_PERMITTED, s.counter));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
}

TEST_F(up, only_on_public_topics)
{
	struct fake_sealed s;

	say(self, "21.5");
	client_distribute(&self->dist, &self->taken, self->outlet, "site/2/temp", ORIGIN, 1, false,
			  &s);
	ASSERT_TRUE(refused(self, &s, CONTROL_NOT_PERMITTED));
	/* The outlet's own filters are narrower. */
	self->outlet->filters[0] = "public/site/+/hum";
	world_apply(self->world);
	distribute(self, self->outlet, ORIGIN, &s);
	ASSERT_TRUE(refused(self, &s, CONTROL_NOT_PERMITTED));
	client_distribute(&self->dist, &self->taken, self->outlet, "$SYS/broker/x", ORIGIN, 1,
			  false, &s);
	ASSERT_TRUE(refused(self, &s, CONTROL_NOT_PERMITTED));
	/* And a device's are not for it. */
	client_seal(&self->dev1, self->world->temp, PUBLIC, "21.5", 1, false, &s);
	ASSERT_TRUE(refused_of(self, &self->dev1, &s, CONTROL_NOT_PERMITTED));
}

TEST_F(up, only_what_the_grant_is_for)
{
	struct world *w = self->world;
	struct fake_sealed s, good;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &good);
	s = good;
	s.payload[ENVELOPE_FIXED_BYTES] ^= 1; /* a grant that nobody knows */
	client_sign(&self->dist, &s);
	ASSERT_TRUE(refused(self, &s, CONTROL_NOT_PERMITTED));
	distribute(self, self->hop, ORIGIN, &s); /* not its own to convert by */
	ASSERT_TRUE(refused(self, &s, CONTROL_NOT_PERMITTED));
	s = good;
	w->cam->public_filters[0] = "public/#";
	world_apply(w);
	bytes_store_u32(s.payload + 4, WORLD_KEY_CAM);
	client_sign(&self->dist, &s);
	ASSERT_TRUE(refused(self, &s, CONTROL_NOT_PERMITTED));
	bytes_store_u32(s.payload + 4, 99);
	client_sign(&self->dist, &s);
	ASSERT_TRUE(refused(self, &s, CONTROL_NO_KEY_ID));
}

TEST_F(up, only_while_it_is_valid)
{
	struct fake_sealed s;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	self->outlet->not_before_ms = self->fake->wall_ms + 1000;
	world_apply(self->world);
	ASSERT_TRUE(refused(self, &s, CONTROL_NO_KEY_ID));
	self->outlet->not_before_ms = 0;
	self->outlet->not_after_ms = self->fake->wall_ms;
	world_apply(self->world);
	ASSERT_TRUE(refused(self, &s, CONTROL_NO_KEY_ID));
	self->outlet->not_after_ms = 0;
	world_apply(self->world);
	ASSERT_TRUE(taken(self, &s));
}

/* The sender has been told that it is taken, and will not seal it to the new key. */
TEST_F(up, of_a_key_id_that_has_run_out)
{
	struct fake_sealed s;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	self->world->temp->not_after_ms = self->fake->wall_ms;
	world_apply(self->world);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(got(self, &self->rx1, "21.5", self->rx1_outlet, ORIGIN));
}

static bool malformed(struct fixture_up *self, const struct fake_sealed *good, size_t at,
		      const uint8_t *bytes, size_t n)
{
	struct fake_sealed s = *good;

	memcpy(s.payload + at, bytes, n);
	client_sign(&self->dist, &s);
	return refused(self, &s, CONTROL_MALFORMED);
}

TEST_F(up, malformed)
{
	static const uint8_t nine = 9, bytes[ENVELOPE_SALT_BYTES] = { 1 };
	/* x = 5 is on the curve; 1 and its like are not (found by trying). */
	static const uint8_t no_x[P256_X_BYTES] = { [31] = 1 };
	static const uint8_t no_enc[P256_COMPRESSED_BYTES] = { 2, [32] = 1 };
	struct p256_point p;
	struct fake_sealed s;

	ASSERT_NE(p256_point_lift(no_x, &p), 0);
	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	ASSERT_TRUE(malformed(self, &s, ENVELOPE_FIXED_BYTES - 1, &nine, 1));
	ASSERT_TRUE(malformed(self, &s, ENVELOPE_FIXED_BYTES + GRANT_ID_BYTES, no_x, sizeof(no_x)));
	ASSERT_TRUE(malformed(self, &s, 44, no_enc, sizeof(no_enc)));
	/* A salt that is not zero asks for a bind that fits. */
	ASSERT_TRUE(malformed(self, &s, 109, bytes, sizeof(bytes)));
	/* An origin that is no id. */
	ASSERT_TRUE(malformed(self, &s, ENVELOPE_FIXED_BYTES + GRANT_ID_BYTES + P256_X_BYTES + 1,
			      (const uint8_t *)"/", 1));
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(got(self, &self->rx1, "21.5", self->rx1_outlet, ORIGIN));
	/* With its own id, on another topic than it was bound to. */
	distribute(self, self->outlet, NULL, &s);
	ASSERT_TRUE(refused(self, &s, CONTROL_MALFORMED));
	/* Level 0 without a salt. */
	client_seal(&self->dev1, self->world->temp, TOPIC, "x", 1, false, &s);
	memset(s.payload + 109, 0, ENVELOPE_SALT_BYTES);
	client_sign(&self->dev1, &s);
	ASSERT_TRUE(refused_of(self, &self->dev1, &s, CONTROL_MALFORMED));
}

/* At the last level it is passed on, and converted no more. */
TEST_F(up, the_last_level)
{
	static const uint8_t last = ENVELOPE_LEVEL_MAX;
	struct mqtt_publish p;
	struct fake_sealed s;
	uint64_t none = fake_stats(self->fake).no_grant;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	s.payload[ENVELOPE_FIXED_BYTES - 1] = last;
	client_sign(&self->dist, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(client_got_nothing(&self->rx1) && client_got_nothing(&self->rx2));
	ASSERT_EQ(fake_stats(self->fake).no_grant, none + 2);
	distribute(self, self->direct, ANOTHER, &s);
	s.payload[ENVELOPE_FIXED_BYTES - 1] = last;
	client_sign(&self->dist, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(client_got_publish(&self->rx2, &p));
	ASSERT_EQ(p.payload.p[ENVELOPE_FIXED_BYTES - 1], last);
}

/* What was taken before its context was retired gets through: its sender will not seal it anew. Nor
 * is the context good again for that. */
TEST_F(up, of_a_context_that_is_retired)
{
	struct fake_sealed s, late;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	client_seal(&self->dev1, self->world->temp, TOPIC, "21.6", 1, false, &late);
	world_revoke(self->world, self->world->rx2_temp);
	world_apply(self->world);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(got(self, &self->rx1, "21.5", self->rx1_outlet, ORIGIN));
	ASSERT_TRUE(refused_of(self, &self->dev1, &late, CONTROL_RETIRED));
	client_new_context(&self->dev1, self->world->temp);
	say_and_distribute(self, "21.6", self->outlet, ORIGIN, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(got(self, &self->rx1, "21.6", self->rx1_outlet, ORIGIN));
}

/* --- counters --------------------------------------------------------------------------------- */

TEST_F(up, counters_of_each_origin)
{
	struct fake_sealed s, again;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	ASSERT_TRUE(taken(self, &s));
	distribute(self, self->outlet, ANOTHER, &again); /* the same number, another's */
	ASSERT_TRUE(taken(self, &again));
	distribute(self, self->outlet, "dev1", &again); /* and a party's of the name */
	ASSERT_TRUE(taken(self, &again));
	ASSERT_TRUE(seen(self, &s));
	self->dev1.counter += 200;
	say_and_distribute(self, "21.6", self->outlet, ORIGIN, &again);
	ASSERT_TRUE(taken(self, &again));
	for (unsigned i = 0; i < 4; i++)
		ASSERT_TRUE(client_got_sealed(&self->rx1, i < 3 ? "21.5" : "21.6", NULL));
	ASSERT_TRUE(refused(self, &s, CONTROL_REPLAYED));
}

static const struct replay_window *stored_window(const struct fixture_up *self,
						 const struct world_grant *g)
{
	char hex[TEXT_HEX_SIZE(GRANT_ID_BYTES)], name[BROKER_SENDER_BYTES_MAX];

	text_hex(bytes_of(g->id, sizeof(g->id)), hex);
	(void)snprintf(name, sizeof(name), "dist/%s/" ORIGIN, hex);
	return fake_stored_window(self->fake, name);
}

/* One message by two outlets that give its sender the same name. */
TEST_F(up, counters_are_an_outlets_own)
{
	struct fake_sealed s, direct;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	distribute(self, self->direct, ORIGIN, &direct);
	ASSERT_EQ(direct.counter, s.counter);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(taken(self, &direct));
	ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", NULL));
	ASSERT_TRUE(client_got_sealed(&self->rx2, "21.5", NULL));
	ASSERT_TRUE(seen(self, &s));
	ASSERT_TRUE(seen(self, &direct));
	ASSERT_TRUE(stored_window(self, self->outlet) && stored_window(self, self->direct));
}

TEST_F(up, counters_outlive_the_broker)
{
	struct fake_sealed s, old;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &old);
	self->dev1.counter += 200;
	say_and_distribute(self, "21.6", self->outlet, ORIGIN, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(stored_window(self, self->outlet) != NULL);
	world_restart(self->world);
	come_back(self, "21.6");
	ASSERT_TRUE(seen(self, &s));
	ASSERT_TRUE(refused(self, &old, CONTROL_REPLAYED));
}

/* ORIGIN is another device's name by now, which begins to count. */
static void begins_anew(struct fixture_up *self)
{
	struct fake_client dev2;
	struct fake_sealed s;

	client_init_party(&dev2, self->world, self->world->dev2);
	ASSERT_TRUE(client_up(&dev2));
	say_by(self, &dev2, "begins");
	distribute(self, self->outlet, ORIGIN, &s);
	ASSERT_EQ(s.counter, 1);
	ASSERT_TRUE(taken(self, &s));
	client_deinit(&dev2);
}

/* A message that is as old as what is forgotten does not begin anything anew. */
TEST_F(up, counters_are_forgotten)
{
	struct fake_sealed s, unsent;

	self->dev1.counter = 1000;
	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	ASSERT_TRUE(taken(self, &s));
	say_and_distribute(self, "21.6", self->outlet, ORIGIN, &unsent);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", NULL));
	self->fake->wall_ms += 30 * DAY_MS - 1;
	ASSERT_TRUE(seen(self, &s)); /* which is no use of it */
	self->fake->wall_ms++;
	ASSERT_TRUE(refused(self, &s, CONTROL_REPLAYED));
	ASSERT_TRUE(refused(self, &unsent, CONTROL_REPLAYED));
	begins_anew(self);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "begins", NULL));
}

TEST_F(up, counters_are_forgotten_across_a_restart)
{
	struct fake_sealed s;

	self->dev1.counter = 1000;
	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	ASSERT_TRUE(taken(self, &s));
	self->fake->wall_ms += 30 * DAY_MS;
	world_restart(self->world);
	come_back(self, "21.5");
	begins_anew(self);
}

/* Without a clock a message cannot be said to be old. */
TEST_F(up, a_sender_without_a_clock)
{
	struct fake_sealed s;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	memset(s.payload + 20, 0, 8);
	client_sign(&self->dist, &s);
	self->fake->wall_ms += 100 * DAY_MS;
	ASSERT_TRUE(taken(self, &s));
}

static void restart_with(struct fixture_up *self, const struct broker_config *config)
{
	finish(self);
	start(self, config);
	connect_all(self);
}

TEST_F(up, as_many_origins_as_there_is_room_for)
{
	struct broker_config config;
	struct fake_sealed s;
	char name[] = "origin0";

	default_config(&config);
	config.limits.origins_max = 3;
	restart_with(self, &config);
	say(self, "21.5");
	for (unsigned i = 0; i < 5; i++) {
		name[6] = (char)('0' + i);
		distribute(self, self->outlet, name, &s);
		if (i < 3) {
			ASSERT_TRUE(taken(self, &s));
			ASSERT_TRUE(got(self, &self->rx1, "21.5", self->rx1_outlet, name));
			self->fake->wall_ms += DAY_MS;
		} else {
			ASSERT_TRUE(refused(self, &s, CONTROL_UNAVAILABLE));
		}
	}
	ASSERT_TRUE(refused(self, &s, CONTROL_UNAVAILABLE)); /* its counter was not used up */
	/* The oldest's thirty days are over. */
	self->fake->wall_ms += 27 * DAY_MS;
	say(self, "21.6");
	distribute(self, self->outlet, name, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(got(self, &self->rx1, "21.6", self->rx1_outlet, name));
	distribute(self, self->outlet, "origin0", &s);
	ASSERT_TRUE(refused(self, &s, CONTROL_UNAVAILABLE));
}

/* Those of an earlier run, too: else there is no room for others some day. */
TEST_F(up, restored_origins_make_room)
{
	struct broker_config config;
	struct fake_sealed s;

	default_config(&config);
	config.limits.origins_max = 2;
	restart_with(self, &config);
	say(self, "21.5");
	distribute(self, self->outlet, "origin0", &s);
	ASSERT_TRUE(taken(self, &s));
	self->fake->wall_ms += DAY_MS;
	distribute(self, self->outlet, "origin1", &s);
	ASSERT_TRUE(taken(self, &s));
	world_restart(self->world);
	come_back(self, "21.5");
	self->fake->wall_ms += 29 * DAY_MS;
	say(self, "21.6");
	distribute(self, self->outlet, "origin2", &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", NULL));
	ASSERT_TRUE(got(self, &self->rx1, "21.6", self->rx1_outlet, "origin2"));
	distribute(self, self->outlet, "origin3", &s);
	ASSERT_TRUE(refused(self, &s, CONTROL_UNAVAILABLE));
}

/* --- grants ----------------------------------------------------------------------------------- */

/* While a key changes there are two: the one that is valid, and of those the later one. */
TEST_F(up, of_two_grants_the_later_one)
{
	struct world *w = self->world;
	struct world_grant *later = world_add_grant_from(
		w, w->rx1, w->temp, RECORD_GRANT_IDS_REPLACED, self->outlet, NULL);
	struct fake_sealed s;

	later->not_before_ms = self->fake->wall_ms + 1000;
	world_apply(w);
	say_and_distribute(self, "1", self->outlet, ORIGIN, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(got(self, &self->rx1, "1", self->rx1_outlet, ORIGIN));
	fake_pass(self->fake, 1000);
	say_and_distribute(self, "2", self->outlet, ORIGIN, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(got(self, &self->rx1, "2", later, ORIGIN));
	later->not_after_ms = self->fake->wall_ms + 500;
	world_apply(w);
	fake_pass(self->fake, 500);
	say_and_distribute(self, "3", self->outlet, ORIGIN, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(got(self, &self->rx1, "3", self->rx1_outlet, ORIGIN));
	ASSERT_FALSE(fake_forgot(self->fake, self->rx1_outlet->id));
	later->gone = true;
	world_apply(w);
	ASSERT_TRUE(fake_forgot(self->fake, later->id));
	ASSERT_FALSE(fake_forgot(self->fake, self->rx1_outlet->id));
}

/* Of two with one beginning, always the same one: the one with the higher id. */
TEST_F(up, of_two_equal_grants_always_the_same)
{
	struct world *w = self->world;
	struct world_grant *second = world_add_grant(w, w->rx1, w->temp, 0);
	struct world_grant *higher = w->rx1_temp;
	struct fake_sealed s;

	if (memcmp(second->id, higher->id, GRANT_ID_BYTES) > 0)
		higher = second;
	world_apply(w);
	ASSERT_EQ(client_subscribe(&self->rx1, TOPIC, 1), 1);
	for (unsigned i = 0; i < 3; i++) {
		client_seal(&self->dev1, w->temp, TOPIC, "x", 0, false, &s);
		send(self, &self->dev1, &s);
		ASSERT_TRUE(got(self, &self->rx1, "x", higher, "dev1"));
		world_apply(w);
	}
}

/* Gone with the outlet: what is queued and what is retained. */
TEST_F(up, an_outlet_is_revoked)
{
	struct fake_sealed s;

	fake_hang_up(self->rx1.conn);
	fake_hang_up(self->rx2.conn);
	say(self, "21.5");
	client_distribute(&self->dist, &self->taken, self->outlet, PUBLIC, ORIGIN, 1, true, &s);
	ASSERT_TRUE(taken(self, &s));
	distribute(self, self->direct, ANOTHER, &s);
	ASSERT_TRUE(taken(self, &s));
	world_revoke(self->world, self->outlet);
	world_revoke(self->world, self->direct);
	world_apply(self->world);
	ASSERT_TRUE(client_resumes(&self->rx1, true) && client_resumes(&self->rx2, true));
	ASSERT_EQ(client_subscribe(&self->rx1, "public/#", 1), 1);
	ASSERT_TRUE(client_got_nothing(&self->rx1) && client_got_nothing(&self->rx2));
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

/* With the receiver's own grant gone, or another's in its place, it is as at level 0. */
TEST_F(up, a_grant_from_an_outlet_is_revoked)
{
	struct fake_sealed s;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	self->fake->hold_convert = true;
	ASSERT_TRUE(taken(self, &s));
	world_revoke(self->world, self->rx1_outlet);
	world_apply(self->world);
	self->fake->hold_convert = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_TRUE(fake_forgot(self->fake, self->rx1_outlet->id));
}

/* --- what goes wrong -------------------------------------------------------------------------- */

TEST_F(up, a_nack_is_converted_anew)
{
	struct fake_opened o = { 0 };
	struct fake_sealed s;

	say_and_distribute(self, "21.5", self->outlet, ORIGIN, &s);
	self->fake->wrong_converts = 1;
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(client_got_taken(&self->rx1, &o));
	client_send_nack(&self->rx1, CONTROL_CANNOT_OPEN, s.counter, ORIGIN);
	fake_settle(self->fake);
	ASSERT_TRUE(got(self, &self->rx1, "21.5", self->rx1_outlet, ORIGIN));
}

/* There is nothing to convert anew: the manager has to know. */
TEST_F(up, a_nack_of_what_was_passed_on)
{
	struct fake_client mgr;
	struct fake_opened o = { 0 };
	struct fake_sealed s;
	struct bytes report;

	client_init_party(&mgr, self->world, self->world->mgr);
	ASSERT_TRUE(client_up(&mgr));
	say_and_distribute(self, "21.5", self->direct, ORIGIN, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(client_got_taken(&self->rx2, &o));
	client_send_nack(&self->rx2, CONTROL_CANNOT_OPEN, s.counter, ORIGIN);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx2));
	ASSERT_TRUE(client_got_control(&mgr, "$SSDTF/report", &report));
	ASSERT_BYTES(report.p, "\3rx2", 4);
	/* One whose signature did not arrive whole is signed again. */
	say_and_distribute(self, "21.6", self->direct, ORIGIN, &s);
	ASSERT_TRUE(taken(self, &s));
	ASSERT_TRUE(client_got_taken(&self->rx2, &o));
	client_send_nack(&self->rx2, CONTROL_BAD_SIGNATURE, s.counter, ORIGIN);
	fake_settle(self->fake);
	ASSERT_TRUE(got(self, &self->rx2, "21.6", self->direct, ORIGIN));
	ASSERT_TRUE(client_got_nothing(&mgr));
	client_deinit(&mgr);
}

/* Who published it here is told, not a party that has the origin's name. */
TEST_F(up, conversion_is_unavailable)
{
	struct fake_sealed s;

	say(self, "21.5");
	client_distribute(&self->dist, &self->taken, self->outlet, PUBLIC, "dev1", 0, false, &s);
	self->fake->convert_status = BROKER_TOKEN_UNAVAILABLE;
	send(self, &self->dist, &s);
	ASSERT_TRUE(client_got_error(&self->dist, CONTROL_UNAVAILABLE, s.counter));
	ASSERT_TRUE(client_got_nothing(&self->dev1) && client_got_nothing(&self->rx1));
}

/* --- parties ---------------------------------------------------------------------------------- */

TEST_F(up, without_a_role_nobody_gets_in)
{
	self->other_party->roles = 0;
	world_apply(self->world);
	ASSERT_TRUE(client_closed(&self->other));
	client_dial(&self->other);
	client_send_connect(&self->other);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_connack(&self->other, false, 5) && client_closed(&self->other));
	self->other_party->roles = RECORD_ROLE_DISTRIBUTOR;
	world_apply(self->world);
	ASSERT_TRUE(client_up(&self->other));
}
