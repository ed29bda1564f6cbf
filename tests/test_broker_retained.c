// SPDX-License-Identifier: MIT
/*
 * Retained messages on their way to a new subscription: many of them to a receiver that is slow,
 * with a short queue; what changes meanwhile; what ends it. On fake sockets and a fake clock.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/fake_client.h"
#include "tests/harness.h"

HARNESS_MAIN

#define TOPICS_MAX 30000
#define QUEUE	   50 /* messages */

/* Topics r/0/0, r/1/1, ... r/0/100, ... and what "b" was sent of each. */
struct topic {
	unsigned version;  /* of what is retained; 0: nothing */
	unsigned first;	   /* what was retained when "b" subscribed */
	unsigned retained; /* how often it was sent with RETAIN = 1, */
	unsigned seen;	   /* and which version, then, */
	unsigned live;	   /* and how often with RETAIN = 0 */
};

FIXTURE(many)
{
	struct broker_config config;
	struct fake_broker *fake;
	struct fake_client a, b, c;
	unsigned n, version;
	struct topic topics[TOPICS_MAX];
};

static void start(struct fixture_many *self)
{
	self->fake = fake_new_with(&self->config);
	client_init(&self->a, self->fake, "a");
	client_init(&self->b, self->fake, "b");
	client_init(&self->c, self->fake, "c");
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
}

FIXTURE_SETUP(many)
{
	fake_config(true, &self->config);
	self->config.limits.queue_messages_max = QUEUE;
	start(self);
}

/* Were a walk still to hold a node, fake_free() would end the test. */
FIXTURE_TEARDOWN(many)
{
	fake_free(self->fake);
}

/* A new version of topic i, or nothing there any more. */
static void put(struct fixture_many *self, unsigned i, bool clear, uint8_t qos)
{
	char topic[32], text[16] = "";

	snprintf(topic, sizeof(topic), "r/%u/%u", i % 100, i);
	self->topics[i].version = clear ? 0 : ++self->version;
	if (!clear)
		snprintf(text, sizeof(text), "%u", self->version);
	client_publish_text(&self->a, topic, text, qos, true);
	if (qos) {
		fake_turn(self->fake);
		ASSERT_TRUE(fake_next_packet(self->a.conn, &(struct mqtt_frame){ 0 }));
	}
}

/* n topics, of which "b" is to be told from now on. */
static void fill(struct fixture_many *self, unsigned n, uint8_t qos)
{
	for (unsigned i = 0; i < n; i++)
		put(self, i, false, qos);
	fake_settle(self->fake);
	ASSERT_EQ(fake_stats(self->fake).retained, n);
	self->n = n;
	for (unsigned i = 0; i < n; i++)
		self->topics[i].first = self->topics[i].version;
}

static unsigned number(struct bytes text)
{
	char out[16] = "";

	ASSERT_LT(text.n, sizeof(out));
	if (text.n)
		memcpy(out, text.p, text.n);
	return (unsigned)strtoul(out, NULL, 10);
}

static void note(struct fixture_many *self, const struct mqtt_publish *p)
{
	const uint8_t *slash = memchr(p->topic.p + 2, '/', p->topic.n - 2);
	unsigned i = number(bytes_of(slash + 1, (size_t)(p->topic.p + p->topic.n - slash) - 1));

	ASSERT_LT(i, TOPICS_MAX);
	if (!p->retain) {
		self->topics[i].live++;
		return;
	}
	self->topics[i].retained++;
	self->topics[i].seen = number(p->payload);
}

/* Reads up to n messages of c, and acknowledges them; returns how many there were. */
static unsigned take(struct fixture_many *self, struct fake_client *c, unsigned n)
{
	struct mqtt_publish p;
	unsigned i;

	for (i = 0; i < n && !fake_silent(c->conn); i++) {
		ASSERT_TRUE(client_got_publish(c, &p));
		note(self, &p);
		if (p.qos)
			client_send_ack(c, MQTT_PUBACK, p.packet_id);
	}
	return i;
}

/* All that comes, a little at a time. */
static unsigned take_all(struct fixture_many *self, struct fake_client *c)
{
	unsigned n = 0, some;

	while ((some = take(self, c, 1 + (unsigned)(harness_random() % QUEUE)))) {
		ASSERT_LE(fake_stats(self->fake).queued, QUEUE);
		fake_settle(self->fake);
		n += some;
	}
	return n;
}

/* Each that was there all the while was sent once, and nothing was dropped. */
static void check_sent(struct fixture_many *self, unsigned times)
{
	struct broker_stats stats = fake_stats(self->fake);

	EXPECT_EQ(stats.dropped_full, 0);
	EXPECT_EQ(stats.dropped_qos0, 0);
	EXPECT_EQ(stats.queued, 0);
	for (unsigned i = 0; i < self->n; i++) {
		const struct topic *t = &self->topics[i];
		bool same = t->version == t->first;

		if (same ? t->retained != times : t->retained > times)
			harness_fail(__FILE__, __LINE__, true, "topic %u: %u times", i,
				     t->retained);
		if (t->retained && t->seen != t->first)
			harness_fail(__FILE__, __LINE__, true, "topic %u: %u, not %u", i, t->seen,
				     t->first);
	}
}

/* --- all of it -------------------------------------------------------------------------------- */

TEST_F(many, at_qos_1)
{
	fill(self, harness_rounds(TOPICS_MAX), 1);
	ASSERT_EQ(client_subscribe(&self->b, "#", 1), 1); /* SUBACK first, it says */
	EXPECT_EQ(take_all(self, &self->b), self->n);
	check_sent(self, 1);
}

TEST_F(many, at_qos_0_to_a_slow_one)
{
	unsigned n = 0;

	self->config.limits.output_bytes_soft = 500;
	fake_free(self->fake);
	start(self);
	fill(self, harness_rounds(TOPICS_MAX / 4), 1);
	ASSERT_EQ(client_subscribe(&self->b, "none", 0), 0);
	self->b.conn->stalled = true;
	/* A packet at a time: id 2, "r/+/#". */
	client_send_hex(&self->b, "820a0002"
				  "0005722f2b2f2300");
	fake_settle(self->fake);
	ASSERT_LE(fake_stats(self->fake).queued, QUEUE);
	fake_drain(self->b.conn, 5); /* the SUBACK */
	ASSERT_TRUE(fake_next_packet(self->b.conn, &(struct mqtt_frame){ 0 }));
	for (; n < self->n; fake_settle(self->fake)) {
		struct mqtt_frame f;
		struct mqtt_publish p;

		while (!fake_peek_packet(self->b.conn, &f))
			fake_drain(self->b.conn, 1);
		ASSERT_TRUE(client_got_publish(&self->b, &p) && p.qos == 0);
		note(self, &p);
		n++;
		ASSERT_LE(fake_stats(self->fake).queued, QUEUE);
	}
	ASSERT_TRUE(client_got_nothing(&self->b));
	check_sent(self, 1);
}

TEST_F(many, lower_qos_of_the_two)
{
	struct mqtt_publish p;

	put(self, 1, false, 0);
	put(self, 2, false, 1);
	ASSERT_EQ(client_subscribe(&self->b, "r/1/1", 1), 1);
	ASSERT_TRUE(client_got_publish(&self->b, &p) && p.qos == 0 && p.retain);
	ASSERT_EQ(client_subscribe(&self->b, "r/2/+", 1), 1);
	ASSERT_TRUE(client_got_publish(&self->b, &p) && p.qos == 1 && p.retain);
	ASSERT_EQ(client_subscribe(&self->b, "r/2/#", 0), 0);
	ASSERT_TRUE(client_got_publish(&self->b, &p) && p.qos == 0 && p.retain);
	ASSERT_TRUE(client_got_nothing(&self->b));
}

/* A message as large as the queue goes when it is empty. */
TEST_F(many, large_ones)
{
	enum { LARGE = 4000, N = 20 };
	static char text[LARGE + 1];
	struct mqtt_publish p;
	char topic[16];
	unsigned n = 0;

	self->config.limits.queue_bytes_max = LARGE + 500;
	fake_free(self->fake);
	start(self);
	memset(text, 'x', LARGE);
	for (unsigned i = 0; i < N; i++) {
		snprintf(topic, sizeof(topic), "l/%u", i);
		client_publish_text(&self->a, topic, text, 1, true);
	}
	fake_settle(self->fake);
	ASSERT_EQ(client_subscribe(&self->b, "l/#", 1), 1);
	while (!fake_silent(self->b.conn)) {
		ASSERT_TRUE(client_got_publish(&self->b, &p));
		ASSERT_TRUE(client_got_nothing(&self->b));
		client_send_ack(&self->b, MQTT_PUBACK, p.packet_id);
		fake_settle(self->fake);
		n++;
	}
	EXPECT_EQ(n, N);
	EXPECT_EQ(fake_stats(self->fake).dropped_full, 0);
}

/* --- meanwhile -------------------------------------------------------------------------------- */

TEST_F(many, changes)
{
	unsigned n = harness_rounds(4000), news = n;

	fill(self, n, 1);
	ASSERT_EQ(client_subscribe(&self->b, "r/#", 1), 1);
	for (unsigned round = 0; round < n / QUEUE; round++) {
		for (unsigned i = 0; i < 5; i++)
			put(self, (unsigned)(harness_random() % n), harness_random() % 3 == 0, 0);
		put(self, news++, false, 0);
		fake_settle(self->fake);
		ASSERT_EQ(take(self, &self->b, QUEUE / 2), QUEUE / 2);
		fake_settle(self->fake);
	}
	take_all(self, &self->b);
	check_sent(self, 1);
	/* What came meanwhile was sent as it came, and not as retained a second time. */
	for (unsigned i = n; i < news; i++)
		ASSERT_TRUE(self->topics[i].retained == 0 && self->topics[i].live == 1);
}

/* Where the walk stands, something goes and comes: the node, its subtree, all. */
TEST_F(many, all_cleared)
{
	fill(self, 1000, 1);
	ASSERT_EQ(client_subscribe(&self->b, "r/#", 1), 1);
	ASSERT_EQ(take(self, &self->b, QUEUE), QUEUE / 4 * 3);
	for (unsigned i = 0; i < self->n; i++)
		put(self, i, true, 0);
	ASSERT_EQ(fake_stats(self->fake).retained, 0);
	for (unsigned i = 0; i < self->n; i += 2)
		put(self, i, false, 0);
	fake_settle(self->fake);
	take_all(self, &self->b);
	for (unsigned i = 0; i < self->n; i++)
		ASSERT_LE(self->topics[i].retained, 1);
	/* And again, from the beginning. */
	for (unsigned i = 0; i < self->n; i++)
		self->topics[i] = (struct topic){ .first = self->topics[i].version,
						  .version = self->topics[i].version };
	ASSERT_TRUE(client_up(&self->c));
	ASSERT_EQ(client_subscribe(&self->c, "#", 1), 1);
	EXPECT_EQ(take_all(self, &self->c), self->n / 2);
}

TEST_F(many, two_subscriptions)
{
	unsigned sevens = 0;

	fill(self, 2000, 1);
	ASSERT_EQ(client_subscribe(&self->b, "r/#", 1), 1);
	(void)take(self, &self->b, 10);
	/* Behind the messages that wait already: not settled one packet at a time. */
	client_send_hex(&self->b, "820a0009"
				  "0005722f372f2301"); /* r/7/# */
	while (!fake_silent(self->b.conn)) {
		struct mqtt_frame f;

		ASSERT_TRUE(fake_peek_packet(self->b.conn, &f));
		if (mqtt_frame_type(&f) == MQTT_SUBACK)
			ASSERT_TRUE(fake_next_packet(self->b.conn, &f));
		(void)take(self, &self->b, 1);
		fake_settle(self->fake);
	}
	for (unsigned i = 0; i < self->n; i++) {
		ASSERT_EQ(self->topics[i].retained, i % 100 == 7 ? 2 : 1);
		sevens += i % 100 == 7;
	}
	EXPECT_EQ(sevens, 20);
	EXPECT_EQ(fake_stats(self->fake).dropped_full, 0);
}

/* The same SUBSCRIBE again: from the beginning, and only one of the two [MQTT-3.8.4-3]. */
TEST_F(many, subscribed_again)
{
	struct mqtt_frame f;
	unsigned before, twice = 0;

	fill(self, 500, 1);
	ASSERT_EQ(client_subscribe(&self->b, "r/#", 1), 1);
	before = take(self, &self->b, 20);
	client_send_hex(&self->b, "82080009"
				  "0003722f2301");
	fake_settle(self->fake);
	while (fake_peek_packet(self->b.conn, &f) && mqtt_frame_type(&f) != MQTT_SUBACK)
		before += take(self, &self->b, 1);
	ASSERT_TRUE(fake_next_packet(self->b.conn, &f));
	ASSERT_LE(before, QUEUE + 20);
	(void)take_all(self, &self->b);
	for (unsigned i = 0; i < self->n; i++) {
		ASSERT_TRUE(self->topics[i].retained == 1 || self->topics[i].retained == 2);
		twice += self->topics[i].retained == 2;
	}
	EXPECT_TRUE(twice >= before && twice <= QUEUE + 20);
}

/* A turn is short, and everyone gets some of it. */
TEST_F(many, many_at_once)
{
	enum { CLIENTS = 40 };
	static struct fake_client clients[CLIENTS];
	static char names[CLIENTS][8];
	unsigned first = 0, all = 0;

	self->config.limits.queue_messages_max = 10000;
	fake_free(self->fake);
	start(self);
	fill(self, 5000, 1);
	for (unsigned i = 0; i < CLIENTS; i++) {
		snprintf(names[i], sizeof(names[i]), "c%u", i);
		client_init(&clients[i], self->fake, names[i]);
		ASSERT_TRUE(client_up(&clients[i]));
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		client_send_hex(&clients[i], "82060001"
					     "00012300");
	fake_turn(self->fake);
	for (unsigned i = 0; i < CLIENTS; i++) {
		ASSERT_TRUE(fake_next_packet(clients[i].conn, &(struct mqtt_frame){ 0 }));
		first += take(self, &clients[i], UINT32_MAX);
	}
	EXPECT_TRUE(first > 1000 && first < 5000); /* of 200,000 */
	for (unsigned turn = 1; turn < 4; turn++)
		fake_turn(self->fake);
	for (unsigned i = 0; i < CLIENTS; i++) {
		unsigned n = take(self, &clients[i], UINT32_MAX);

		ASSERT_GT(n, 0);
		all += n;
	}
	ASSERT_LT(all, 3 * 5000);
	fake_settle(self->fake);
	for (unsigned i = 0; i < CLIENTS; i++)
		all += take(self, &clients[i], UINT32_MAX);
	EXPECT_EQ(first + all, CLIENTS * self->n);
}

/* --- ends ------------------------------------------------------------------------------------- */

TEST_F(many, unsubscribed)
{
	unsigned n;

	fill(self, 1000, 1);
	ASSERT_EQ(client_subscribe(&self->b, "r/#", 1), 1);
	n = take(self, &self->b, 20);
	client_send_hex(&self->b, "a2070009"
				  "0003722f23");
	for (;; n += take(self, &self->b, 1)) {
		struct mqtt_frame f;

		ASSERT_TRUE(fake_peek_packet(self->b.conn, &f));
		if (mqtt_frame_type(&f) == MQTT_UNSUBACK)
			break;
	}
	ASSERT_TRUE(fake_next_packet(self->b.conn, &(struct mqtt_frame){ 0 }));
	fake_settle(self->fake);
	n += take_all(self, &self->b);
	ASSERT_LE(n, QUEUE + 20);
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

/* What was queued is kept for it [MQTT-3.1.2-5]; the walk is not. */
TEST_F(many, disconnected)
{
	unsigned n;

	fill(self, 1000, 1);
	client_send_empty(&self->b, MQTT_DISCONNECT);
	ASSERT_TRUE(client_up_persistent(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "r/#", 1), 1);
	n = take(self, &self->b, 20);
	fake_hang_up(self->b.conn);
	fake_settle(self->fake);
	ASSERT_LE(fake_stats(self->fake).queued, QUEUE);
	ASSERT_TRUE(client_up_persistent(&self->b));
	n += take_all(self, &self->b);
	ASSERT_LE(n, QUEUE + 20);
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

/* A clean session goes with it; another connection takes it over; the broker itself ends. */
TEST_F(many, ended)
{
	struct fake_client again;

	fill(self, 1000, 1);
	ASSERT_TRUE(client_up(&self->c));
	ASSERT_EQ(client_subscribe(&self->b, "r/#", 1), 1);
	ASSERT_EQ(client_subscribe(&self->c, "r/#", 0), 0);
	client_init(&again, self->fake, "b");
	ASSERT_TRUE(client_up_persistent(&again));
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
	ASSERT_EQ(client_subscribe(&again, "r/+", 1), 1);
	ASSERT_EQ(client_subscribe(&again, "r/#", 1), 1);
	ASSERT_GT(fake_stats(self->fake).queued, 0); /* and a walk is under way at the end */
}

/* --- sealed ----------------------------------------------------------------------------------- */

#define SEALED 120

FIXTURE(sealed)
{
	struct world *world;
	struct fake_broker *fake;
	struct fake_client dev1, rx1, mgr;
};

FIXTURE_SETUP(sealed)
{
	struct broker_config config;
	char topic[32], text[16];

	fake_config(false, &config);
	config.limits.queue_messages_max = 20;
	self->world = world_new(&config);
	self->fake = self->world->fake;
	client_init_party(&self->dev1, self->world, self->world->dev1);
	client_init_party(&self->rx1, self->world, self->world->rx1);
	client_init_party(&self->mgr, self->world, self->world->mgr);
	ASSERT_TRUE(client_up(&self->dev1) && client_up(&self->rx1));
	for (unsigned i = 0; i < SEALED; i++) {
		snprintf(topic, sizeof(topic), "site/%u/temp", i);
		snprintf(text, sizeof(text), "%u", i);
		client_publish_retained(&self->dev1, self->world->temp, topic, text, 1);
		fake_settle(self->fake);
	}
	ASSERT_EQ(fake_stats(self->fake).retained, SEALED);
}

FIXTURE_TEARDOWN(sealed)
{
	client_deinit(&self->dev1);
	client_deinit(&self->rx1);
	client_deinit(&self->mgr);
	world_free(self->world);
}

/* Opens and acknowledges up to n deliveries; which they are is in seen. */
static unsigned open_some(struct fixture_sealed *self, unsigned n, bool *seen)
{
	struct fake_opened o;
	struct mqtt_publish p;
	unsigned i;

	for (i = 0; i < n && !fake_silent(self->rx1.conn); i++) {
		unsigned which;

		ASSERT_TRUE(client_got_publish(&self->rx1, &p) && p.retain);
		ASSERT_TRUE(client_open(&self->rx1, &p, &o));
		which = (unsigned)strtoul(o.text, NULL, 10);
		ASSERT_TRUE(which < SEALED && !seen[which]);
		seen[which] = true;
		client_send_ack(&self->rx1, MQTT_PUBACK, p.packet_id);
	}
	fake_settle(self->fake);
	return i;
}

TEST_F(sealed, all)
{
	bool seen[SEALED] = { false };
	unsigned n = 0, some;

	ASSERT_EQ(client_subscribe(&self->rx1, "site/#", 1), 1);
	while ((some = open_some(self, 7, seen)))
		n += some;
	EXPECT_EQ(n, SEALED);
	EXPECT_EQ(fake_stats(self->fake).no_grant, 0);
}

/* From then on nothing is converted, neither what was queued nor what the walk still finds. */
TEST_F(sealed, revoked_midway)
{
	bool seen[SEALED] = { false };
	unsigned conversions;

	ASSERT_EQ(client_subscribe(&self->rx1, "site/#", 1), 1);
	ASSERT_EQ(open_some(self, 10, seen), 10);
	while (!fake_silent(self->rx1.conn)) /* sent before: not acknowledged, so no room */
		ASSERT_TRUE(client_got_publish(&self->rx1, &(struct mqtt_publish){ 0 }));
	conversions = self->fake->conversions;
	world_revoke(self->world, self->world->rx1_temp);
	world_apply(self->world);
	for (uint16_t id = 1; id <= SEALED; id++)
		client_send_ack(&self->rx1, MQTT_PUBACK, id);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	EXPECT_EQ(self->fake->conversions, conversions);
	EXPECT_EQ(fake_stats(self->fake).queued, 0);
	ASSERT_GE(fake_stats(self->fake).no_grant, SEALED - 10 - 20);
	/* A grant of its own again: nothing comes by itself, all of it with a new SUBSCRIBE. */
	world_add_grant(self->world, self->world->rx1, self->world->temp, 0);
	world_apply(self->world);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	memset(seen, 0, sizeof(seen));
	ASSERT_EQ(client_subscribe(&self->rx1, "site/#", 1), 1);
	for (unsigned n = 0; n < SEALED;) {
		unsigned some = open_some(self, SEALED, seen);

		ASSERT_GT(some, 0);
		n += some;
	}
}

/* The bundle runs out midway: it waits, and goes on under the next. */
TEST_F(sealed, bundle_runs_out)
{
	bool seen[SEALED] = { false };
	unsigned n, some;

	ASSERT_EQ(client_subscribe(&self->rx1, "site/#", 1), 1);
	n = open_some(self, 10, seen);
	broker_bundle_until(self->fake->engine, self->fake->wall_ms - 1);
	while ((some = open_some(self, 10, seen)))
		n += some;
	ASSERT_LT(n, SEALED);
	world_apply(self->world);
	fake_settle(self->fake);
	while ((some = open_some(self, 10, seen)))
		n += some;
	EXPECT_EQ(n, SEALED);
}
