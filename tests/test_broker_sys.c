// SPDX-License-Identifier: MIT
/*
 * $SYS/broker/...: who is told what, when, and in which form; and that nobody else can say it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "tests/fake_client.h"
#include "tests/harness.h"
#include "userspace/broker/signer.h"
#include "userspace/broker/sys.h"

HARNESS_MAIN

#define OK   "$SYS/broker/admission/ok"
#define RATE "$SYS/broker/admission/rate"
#define UP   "$SYS/broker/uptime"

#define SOON_MS (SYS_STEP_MS + 50) /* a new subscription is served within */

static void set(struct fake_broker *f, const char *name, uint64_t value)
{
	ASSERT_EQ(broker_sys_set(f->engine, name, value), 0);
}

/* n values "n/0", "n/1", ...: each its own number. */
static void set_many(struct fake_broker *f, unsigned n)
{
	char name[16];

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "n/%u", i);
		set(f, name, i);
	}
}

/* --- values ----------------------------------------------------------------------------------- */

FIXTURE(plain)
{
	struct broker_config config;
	struct fake_broker *fake;
	struct fake_client a, b;
};

static void start(struct fixture_plain *self)
{
	self->fake = fake_new_with(&self->config);
	client_init(&self->a, self->fake, "a");
	client_init(&self->b, self->fake, "b");
}

FIXTURE_SETUP(plain)
{
	fake_config(true, &self->config);
	start(self);
}

FIXTURE_TEARDOWN(plain)
{
	fake_free(self->fake);
}

static void restart(struct fixture_plain *self)
{
	fake_free(self->fake);
	start(self);
}

TEST_F(plain, names_and_their_number_are_bounded)
{
	struct broker *b = self->fake->engine;
	char longest[SYS_NAME_BYTES_MAX + 2];

	memset(longest, 'n', sizeof(longest));
	longest[SYS_NAME_BYTES_MAX + 1] = '\0';
	ASSERT_EQ(broker_sys_set(b, longest, 1), -EINVAL);
	longest[SYS_NAME_BYTES_MAX] = '\0';
	ASSERT_EQ(broker_sys_set(b, longest, 1), 0);
	ASSERT_EQ(broker_sys_set(b, "", 1), -EINVAL);
	ASSERT_EQ(broker_sys_set(b, "a/+", 1), -EINVAL);
	ASSERT_EQ(broker_sys_set(b, "#", 1), -EINVAL);
	ASSERT_EQ(broker_sys_set(b, "\xff", 1), -EINVAL);
	set_many(self->fake, SYS_VALUES_MAX - 1);
	ASSERT_EQ(broker_sys_set(b, "one/more", 1), -ENOSPC);
	ASSERT_EQ(broker_sys_set(b, "n/0", 7), 0); /* one that is there already */
	ASSERT_TRUE(client_up(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, "$SYS/#", 0), 0);
	fake_pass(self->fake, SOON_MS);
	for (unsigned i = 0; i < SYS_VALUES_MAX; i++)
		ASSERT_TRUE(client_got_publish(&self->a, &(struct mqtt_publish){ 0 }));
	ASSERT_TRUE(client_got_nothing(&self->a));
}

/* The next packet is this value, with RETAIN or not. */
static bool got(struct fake_client *c, const char *topic, uint64_t value, bool retain)
{
	struct mqtt_publish p;
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	if (!client_got_publish(c, &p))
		return false;
	if (bytes_equal(p.topic, bytes_str(topic)) && bytes_equal(p.payload, bytes_str(text)) &&
	    p.retain == retain && p.qos == 0)
		return true;
	harness_note("%s: got %.*s %.*s, RETAIN %d, QoS %d, not %s %s", c->id, (int)p.topic.n,
		     p.topic.p, (int)p.payload.n, p.payload.p, p.retain, p.qos, topic, text);
	return false;
}

static void set_three(struct fake_broker *f)
{
	set(f, "admission/ok", 3);
	set(f, "admission/rate", 0);
	set(f, "uptime", UINT64_MAX);
}

/* --- plain mode: what there is ---------------------------------------------------------------- */

TEST_F(plain, present_values_follow_a_subscription)
{
	set_three(self->fake);
	ASSERT_TRUE(client_up(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, "$SYS/broker/admission/+", 1), 1);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(got(&self->a, OK, 3, true) && got(&self->a, RATE, 0, true));
	ASSERT_TRUE(client_got_nothing(&self->a));
	/* Only what is new is told; and again, where it is subscribed to again [MQTT-3.8.4-3]. */
	ASSERT_EQ(client_subscribe(&self->a, UP, 0), 0);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(got(&self->a, UP, UINT64_MAX, true) && client_got_nothing(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, UP, 0), 0);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(got(&self->a, UP, UINT64_MAX, true) && client_got_nothing(&self->a));
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

TEST_F(plain, filters)
{
	static const struct {
		const char *filter;
		unsigned values;
	} rows[] = {
		{ "$SYS/#", 3 },
		{ "$SYS/+/uptime", 1 },
		{ "$SYS/+/+/ok", 1 },
		{ "$SYS/broker/admission/#", 2 },
		{ "$SYS/broker/admission/ok/#", 1 }, /* longer than the topic */
		{ "$SYS/broker/+/+", 2 },
		{ OK, 1 },
		{ "$SYS", 0 },
		{ "$SYS/+", 0 },
		{ "$SYS/broker", 0 },
		{ "$SYS/broker/Uptime", 0 },
		{ "$SYSTEM/#", 0 },
		/* [MQTT-4.7.2-1] */
		{ "#", 0 },
		{ "+/#", 0 },
		{ "+/broker/uptime", 0 },
		/* not in MQTT 3.1.1: a filter as any other */
		{ "$share/g/$SYS/#", 0 },
	};
	struct mqtt_publish p;
	unsigned n;

	set_three(self->fake);
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		ASSERT_TRUE(client_up_clean(&self->a));
		ASSERT_EQ(client_subscribe(&self->a, rows[i].filter, 0), 0);
		fake_pass(self->fake, SOON_MS);
		for (n = 0; !fake_silent(self->a.conn); n++)
			ASSERT_TRUE(client_got_publish(&self->a, &p));
		if (n != rows[i].values)
			harness_fail(__FILE__, __LINE__, false, "%s: %u values, not %u",
				     rows[i].filter, n, rows[i].values);
	}
}

/* As long as SUBSCRIBE takes it: looked at no further than a topic can match. */
TEST_F(plain, filter_of_great_length)
{
	char filter[4000] = "$SYS/broker/";

	set_three(self->fake);
	memset(filter + strlen(filter), 'x', sizeof(filter) - 1 - strlen(filter));
	filter[sizeof(filter) - 1] = '\0';
	ASSERT_TRUE(client_up(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, filter, 0), 0);
	ASSERT_EQ(client_subscribe(&self->a, UP, 0), 0);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(got(&self->a, UP, UINT64_MAX, true) && client_got_nothing(&self->a));
}

/* [MQTT-3.3.5-1]: here one copy. */
TEST_F(plain, overlapping_filters_give_one_copy)
{
	set_three(self->fake);
	ASSERT_TRUE(client_up(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, "$SYS/#", 1), 1);
	ASSERT_EQ(client_subscribe(&self->a, "$SYS/broker/admission/+", 1), 1);
	ASSERT_EQ(client_subscribe(&self->a, "#", 1), 1);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(got(&self->a, OK, 3, true) && got(&self->a, RATE, 0, true));
	ASSERT_TRUE(got(&self->a, UP, UINT64_MAX, true) && client_got_nothing(&self->a));
	set(self->fake, "admission/ok", 4);
	fake_pass(self->fake, SYS_PERIOD_MS + SOON_MS);
	ASSERT_TRUE(got(&self->a, OK, 4, false) && client_got_nothing(&self->a));
}

TEST_F(plain, unsubscribed)
{
	set_three(self->fake);
	ASSERT_TRUE(client_up(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, OK, 0), 0);
	ASSERT_EQ(client_subscribe(&self->a, UP, 0), 0);
	ASSERT_TRUE(client_unsubscribe(&self->a, UP)); /* before it was told */
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(got(&self->a, OK, 3, true) && client_got_nothing(&self->a));
	ASSERT_TRUE(client_unsubscribe(&self->a, OK));
	set(self->fake, "admission/ok", 4);
	fake_pass(self->fake, 2 * SYS_PERIOD_MS);
	ASSERT_TRUE(client_got_nothing(&self->a));
	ASSERT_EQ(broker_wait_ms(self->fake->engine), UINT64_MAX); /* nobody is waited for */
	ASSERT_EQ(client_subscribe(&self->a, OK, 0), 0);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(got(&self->a, OK, 4, true) && client_got_nothing(&self->a));
}

/* --- plain mode: what changes ----------------------------------------------------------------- */

TEST_F(plain, changes_come_once_in_a_period)
{
	set_three(self->fake);
	ASSERT_TRUE(client_up(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, "$SYS/#", 0), 0);
	fake_pass(self->fake, SOON_MS);
	for (unsigned i = 0; i < 3; i++)
		ASSERT_TRUE(client_got_publish(&self->a, &(struct mqtt_publish){ 0 }));
	for (unsigned i = 0; i < 9; i++) {
		set(self->fake, "admission/ok", 10 + i);
		set(self->fake, "admission/rate", 0); /* the same */
		fake_pass(self->fake, 1000);
		ASSERT_TRUE(client_got_nothing(&self->a));
	}
	set(self->fake, "admission/new", 1);
	fake_pass(self->fake, SYS_PERIOD_MS - 9000);
	ASSERT_TRUE(got(&self->a, OK, 18, false)); /* the last of them */
	ASSERT_TRUE(got(&self->a, "$SYS/broker/admission/new", 1, false));
	ASSERT_TRUE(client_got_nothing(&self->a));
	fake_pass(self->fake, 3 * SYS_PERIOD_MS);
	ASSERT_TRUE(client_got_nothing(&self->a)); /* nothing has changed since */
	set(self->fake, "uptime", 0);
	fake_pass(self->fake, SYS_PERIOD_MS);
	ASSERT_TRUE(got(&self->a, UP, 0, false) && client_got_nothing(&self->a));
}

TEST_F(plain, nobody_asked_nothing_happens)
{
	ASSERT_TRUE(client_up(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, "#", 1), 1);
	set_three(self->fake);
	fake_settle(self->fake);
	ASSERT_EQ(broker_wait_ms(self->fake->engine), UINT64_MAX);
	fake_pass(self->fake, 2 * SYS_PERIOD_MS);
	ASSERT_TRUE(client_got_nothing(&self->a));
}

/* However many subscribe at once, a step takes few of them, first come, first served. */
TEST_F(plain, many_are_served_in_steps)
{
	enum { CLIENTS = 40, VALUES = 50 };
	struct fake_client c[CLIENTS];
	char id[CLIENTS][8];
	unsigned told = 0, before;

	set_many(self->fake, VALUES);
	for (unsigned i = 0; i < CLIENTS; i++) {
		snprintf(id[i], sizeof(id[i]), "c%u", i);
		client_init(&c[i], self->fake, id[i]);
		ASSERT_TRUE(client_up(&c[i]));
		ASSERT_EQ(client_subscribe(&c[i], "$SYS/#", 0), 0);
	}
	for (unsigned step = 0; told < CLIENTS; step++) {
		ASSERT_LT(step, 2 * CLIENTS);
		fake_pass(self->fake, SYS_STEP_MS);
		before = told;
		while (told < CLIENTS && !fake_silent(c[told].conn)) {
			for (unsigned i = 0; i < VALUES; i++)
				ASSERT_TRUE(
					client_got_publish(&c[told], &(struct mqtt_publish){ 0 }));
			told++;
		}
		if (told > before)
			ASSERT_LE((told - before - 1) * VALUES, SYS_STEP_MAX);
		for (unsigned i = told; i < CLIENTS; i++)
			ASSERT_TRUE(client_got_nothing(&c[i]));
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		ASSERT_TRUE(client_got_nothing(&c[i]));
}

/* Who subscribes over and over does not keep the others from their turn. */
TEST_F(plain, one_that_asks_all_the_time_starves_nobody)
{
	set_many(self->fake, SYS_VALUES_MAX);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->a, "$SYS/broker/n/7", 0), 0);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(got(&self->a, "$SYS/broker/n/7", 7, true));
	set(self->fake, "n/7", 70);
	for (unsigned ms = 0; ms < SYS_PERIOD_MS + 3 * SYS_STEP_MS; ms += 10) {
		client_send_hex(&self->b, "820b" /* SUBSCRIBE $SYS/# */
					  "0001"
					  "0006245359532f23"
					  "00");
		fake_pass(self->fake, 10);
	}
	ASSERT_TRUE(got(&self->a, "$SYS/broker/n/7", 70, false));
}

/* --- plain mode: who is absent, or slow ------------------------------------------------------- */

TEST_F(plain, absent_session_is_told_when_it_is_back)
{
	set_three(self->fake);
	ASSERT_TRUE(client_up_persistent(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, "$SYS/broker/admission/+", 1), 1);
	fake_hang_up(self->a.conn); /* before it was told anything */
	for (unsigned i = 0; i < 5; i++) {
		set(self->fake, "admission/ok", 100 + i);
		fake_pass(self->fake, SYS_PERIOD_MS);
	}
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
	ASSERT_TRUE(client_resumes(&self->a, true));
	fake_pass(self->fake, SYS_PERIOD_MS + SOON_MS);
	ASSERT_TRUE(got(&self->a, OK, 104, true) && got(&self->a, RATE, 0, true));
	ASSERT_TRUE(client_got_nothing(&self->a));
	/* What it had may not have arrived: it is told all of it again, changed or not. */
	fake_hang_up(self->a.conn);
	ASSERT_TRUE(client_resumes(&self->a, true));
	fake_pass(self->fake, SYS_PERIOD_MS + SOON_MS);
	ASSERT_TRUE(got(&self->a, OK, 104, false) && got(&self->a, RATE, 0, false));
	ASSERT_TRUE(client_got_nothing(&self->a));
}

TEST_F(plain, clean_session_ends_it)
{
	set_three(self->fake);
	ASSERT_TRUE(client_up_persistent(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, "$SYS/#", 1), 1);
	fake_pass(self->fake, SOON_MS);
	fake_hang_up(self->a.conn);
	ASSERT_TRUE(client_up_clean(&self->a));
	set(self->fake, "admission/ok", 4);
	fake_pass(self->fake, 2 * SYS_PERIOD_MS);
	ASSERT_TRUE(client_got_nothing(&self->a));
}

TEST_F(plain, slow_receiver_is_told_later)
{
	self->config.limits.output_bytes_soft = 100;
	restart(self);
	set_many(self->fake, 20);
	ASSERT_TRUE(client_up(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, "$SYS/#", 0), 0);
	fake_pass(self->fake, SOON_MS);
	for (unsigned i = 0; i < 20; i++)
		ASSERT_TRUE(client_got_publish(&self->a, &(struct mqtt_publish){ 0 }));
	self->a.conn->stalled = true;
	set_many(self->fake, 25);
	fake_pass(self->fake, SYS_PERIOD_MS); /* n/20 to n/24: more than 100 bytes */
	ASSERT_GE(self->a.conn->out_n - self->a.conn->sent, 100);
	for (unsigned i = 0; i < 10; i++) {
		size_t unsent = self->a.conn->out_n - self->a.conn->sent;

		set(self->fake, "n/3", 1000 + i);
		fake_pass(self->fake, SYS_PERIOD_MS);
		ASSERT_EQ(self->a.conn->out_n - self->a.conn->sent, unsent);
	}
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
	fake_unstall(self->a.conn);
	for (unsigned i = 20; i < 25; i++)
		ASSERT_TRUE(client_got_publish(&self->a, &(struct mqtt_publish){ 0 }));
	ASSERT_TRUE(client_got_nothing(&self->a));
	fake_pass(self->fake, SYS_PERIOD_MS);
	ASSERT_TRUE(got(&self->a, "$SYS/broker/n/3", 1009, false) && client_got_nothing(&self->a));
}

/* out() says no in the middle of it: the connection ends, and a clean session with it. */
TEST_F(plain, output_that_is_full_ends_the_connection)
{
	set_many(self->fake, 20);
	for (unsigned clean = 0; clean < 2; clean++) {
		self->a.clean = clean;
		ASSERT_TRUE(client_up(&self->a));
		ASSERT_EQ(client_subscribe(&self->a, "$SYS/broker/n/1", 0), 0);
		ASSERT_EQ(client_subscribe(&self->a, "$SYS/#", 0), 0);
		ASSERT_EQ(client_subscribe(&self->a, "$SYS/broker/#", 0), 0);
		self->a.conn->stalled = true;
		self->a.conn->out_max = 100;
		fake_pass(self->fake, SOON_MS);
		ASSERT_TRUE(client_closed(&self->a));
		ASSERT_EQ(fake_stats(self->fake).sessions, clean ? 0 : 1);
	}
}

/* --- plain mode: nobody else says it ---------------------------------------------------------- */

TEST_F(plain, clients_do_not_publish_there)
{
	static const char *const topics[] = { OK, UP, "$SYS", "$SYS/", "$SYS/other" };
	uint16_t id;

	set(self->fake, "admission/ok", 3);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->a, "$SYS/#", 1), 1);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(got(&self->a, OK, 3, true));
	for (unsigned i = 0; i < ARRAY_SIZE(topics); i++) {
		id = client_publish_text(&self->b, topics[i], "0", 1, true);
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBACK, id)); /* [MQTT-3.3.5-2] */
	}
	client_publish_text(&self->b, OK, "0", 0, false);
	fake_pass(self->fake, 2 * SYS_PERIOD_MS);
	ASSERT_TRUE(client_got_nothing(&self->a) && !client_closed(&self->b));
	ASSERT_EQ(fake_stats(self->fake).retained, 0);
	ASSERT_EQ(fake_stats(self->fake).refused[CONTROL_NOT_PERMITTED], ARRAY_SIZE(topics) + 1);
	/* Another name is not the broker's. */
	ASSERT_EQ(client_subscribe(&self->a, "$SYSTEM/x", 1), 1);
	client_publish_text(&self->b, "$SYSTEM/x", "mine", 0, false);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_text(&self->a, "$SYSTEM/x", "mine", 0, NULL));
}

TEST_F(plain, will_is_not_published_there)
{
	ASSERT_TRUE(client_up(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, "$SYS/#", 1), 1);
	self->b.has_will = true;
	self->b.will = (struct mqtt_will){
		.topic = bytes_str(OK),
		.payload = bytes_str("0"),
		.retain = true,
	};
	ASSERT_TRUE(client_up(&self->b));
	fake_hang_up(self->b.conn);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(client_got_nothing(&self->a));
	ASSERT_EQ(fake_stats(self->fake).retained, 0);
}

/* --- SSDTF mode ------------------------------------------------------------------------------- */

FIXTURE(ssdtf)
{
	struct world *world;
	struct fake_broker *fake;
	struct fake_client mgr, rx1, dev1;
	uint32_t n; /* the number of the last that mgr was told */
};

FIXTURE_SETUP(ssdtf)
{
	self->world = world_new(NULL);
	self->fake = self->world->fake;
	client_init_party(&self->mgr, self->world, self->world->mgr);
	client_init_party(&self->rx1, self->world, self->world->rx1);
	client_init_party(&self->dev1, self->world, self->world->dev1);
}

FIXTURE_TEARDOWN(ssdtf)
{
	client_deinit(&self->mgr);
	client_deinit(&self->rx1);
	client_deinit(&self->dev1);
	world_free(self->world);
}

/* PROTOCOL 7: digits || R_b || u32 n, in trailer 1. */
static bool c_got_signed(struct fake_client *c, const char *topic, uint64_t value, uint32_t n)
{
	uint8_t want[24 + CLIENT_NONCE_BYTES + 4];
	struct bytes_writer w = bytes_writer_of(want, sizeof(want));
	struct bytes body;
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	bytes_write(&w, bytes_str(text));
	bytes_write(&w, bytes_of(c->r_b, sizeof(c->r_b)));
	bytes_write_u32(&w, n);
	return client_got_control(c, topic, &body) && bytes_equal(body, bytes_of(want, w.used));
}

static bool got_signed(struct fixture_ssdtf *self, const char *topic, uint64_t value)
{
	return c_got_signed(&self->mgr, topic, value, ++self->n);
}

TEST_F(ssdtf, manager_is_told_signed)
{
	set_three(self->fake);
	ASSERT_TRUE(client_up(&self->mgr));
	ASSERT_EQ(client_subscribe(&self->mgr, "$SYS/broker/admission/+", 1), 1);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(got_signed(self, OK, 3) && got_signed(self, RATE, 0));
	ASSERT_TRUE(client_got_nothing(&self->mgr));
	set(self->fake, "admission/rate", UINT64_MAX);
	fake_pass(self->fake, SYS_PERIOD_MS);
	ASSERT_TRUE(got_signed(self, RATE, UINT64_MAX) && client_got_nothing(&self->mgr));
	/* Another session, another nonce, and numbers from 1. */
	fake_hang_up(self->mgr.conn);
	ASSERT_TRUE(client_up(&self->mgr));
	ASSERT_EQ(client_subscribe(&self->mgr, OK, 0), 0);
	fake_pass(self->fake, SOON_MS);
	self->n = 0;
	ASSERT_TRUE(got_signed(self, OK, 3) && client_got_nothing(&self->mgr));
}

TEST_F(ssdtf, only_a_manager_may_subscribe)
{
	static const char *const filters[] = { "$SYS/#",	  "$SYS",	  OK, "$SYS/+/x",
					       "$share/g/$SYS/#", "$share/g/$SYS" };
	struct world_party *both = world_add_party(
		self->world, "both", RECORD_ROLE_MANAGER | RECORD_ROLE_RECEIVER, NULL);
	struct world_party *relay =
		world_add_party(self->world, "relay", RECORD_ROLE_DISTRIBUTOR, NULL);
	struct fake_client c;

	world_apply(self->world);
	set_three(self->fake);
	ASSERT_TRUE(client_up(&self->mgr) && client_up(&self->rx1) && client_up(&self->dev1));
	client_init_party(&c, self->world, relay);
	ASSERT_TRUE(client_up(&c));
	for (unsigned i = 0; i < ARRAY_SIZE(filters); i++) {
		ASSERT_EQ(client_subscribe(&self->rx1, filters[i], 0), 0x80);
		ASSERT_EQ(client_subscribe(&self->dev1, filters[i], 0), 0x80);
		ASSERT_EQ(client_subscribe(&c, filters[i], 0), 0x80);
	}
	/* [MQTT-4.7.2-1] */
	ASSERT_EQ(client_subscribe(&self->rx1, "#", 0), 0);
	ASSERT_EQ(client_subscribe(&self->rx1, "+/broker/#", 0), 0);
	client_deinit(&c);
	/* It is a manager's, and nothing else is. */
	ASSERT_EQ(client_subscribe(&self->mgr, "$SYS/#", 1), 1);
	ASSERT_EQ(client_subscribe(&self->mgr, "$share/g/$SYS/#", 1), 0x80);
	ASSERT_EQ(client_subscribe(&self->mgr, "$SSDTF/#", 1), 0x80);
	ASSERT_EQ(client_subscribe(&self->mgr, "#", 1), 0x80);
	client_init_party(&c, self->world, both);
	ASSERT_TRUE(client_up(&c));
	ASSERT_EQ(client_subscribe(&c, "#", 1), 1);
	ASSERT_EQ(client_subscribe(&c, UP, 1), 1);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(c_got_signed(&c, UP, UINT64_MAX, 1) && client_got_nothing(&c));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	client_deinit(&c);
}

/* Before the session is open nothing is subscribed to (PROTOCOL 5). */
TEST_F(ssdtf, not_before_authentication)
{
	set_three(self->fake);
	client_dial(&self->mgr);
	client_send_connect(&self->mgr);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_connack(&self->mgr, false, 0) && client_got_challenge(&self->mgr));
	ASSERT_EQ(client_subscribe(&self->mgr, "$SYS/#", 0), 0x80);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(client_got_nothing(&self->mgr));
}

/* The token signs what has changed, once in a period, however often it did. */
TEST_F(ssdtf, signatures_are_few)
{
	unsigned before;

	set_many(self->fake, 50);
	ASSERT_TRUE(client_up(&self->mgr));
	ASSERT_EQ(client_subscribe(&self->mgr, "$SYS/#", 0), 0);
	before = self->fake->signatures;
	fake_pass(self->fake, SOON_MS);
	ASSERT_EQ(self->fake->signatures - before, 50);
	before = self->fake->signatures;
	for (unsigned i = 0; i < 98; i++) {
		set(self->fake, "n/1", 1000 + i);
		set(self->fake, "n/2", 2000 + i);
		fake_pass(self->fake, 100);
	}
	ASSERT_EQ(self->fake->signatures, before);
	fake_pass(self->fake, 300);
	ASSERT_EQ(self->fake->signatures - before, 2);
}

/* Where the token is slow it is not $SYS that fills its queue. */
TEST_F(ssdtf, token_that_is_behind_is_not_given_more)
{
	enum { MANAGERS = 5, VALUES = 200 };
	struct fake_client c[MANAGERS];
	char id[MANAGERS][8];

	set_many(self->fake, VALUES);
	for (unsigned i = 0; i < MANAGERS; i++) {
		snprintf(id[i], sizeof(id[i]), "mgr%u", i);
		client_init_party(&c[i], self->world,
				  world_add_party(self->world, id[i], RECORD_ROLE_MANAGER, NULL));
	}
	world_apply(self->world);
	for (unsigned i = 0; i < MANAGERS; i++)
		ASSERT_TRUE(client_up(&c[i]));
	self->fake->hold_sign = true;
	for (unsigned i = 0; i < MANAGERS; i++)
		ASSERT_EQ(client_subscribe(&c[i], "$SYS/#", 0), 0);
	fake_pass(self->fake, 3 * SYS_PERIOD_MS);
	ASSERT_EQ(self->fake->n_token, 2 * VALUES);
	ASSERT_LE(self->fake->n_token, SIGNER_CONTROLS_OUT_MAX / 2);
	for (unsigned i = 0; i < MANAGERS; i++)
		ASSERT_TRUE(client_got_nothing(&c[i]));
	self->fake->hold_sign = false;
	fake_pass(self->fake, MANAGERS * SYS_STEP_MS + SOON_MS);
	for (unsigned i = 0; i < MANAGERS; i++) {
		for (unsigned j = 0; j < VALUES; j++) {
			char topic[32];

			snprintf(topic, sizeof(topic), "$SYS/broker/n/%u", j);
			ASSERT_TRUE(c_got_signed(&c[i], topic, j, j + 1));
		}
		ASSERT_TRUE(client_got_nothing(&c[i]));
		client_deinit(&c[i]);
	}
}

/* The token is gone for a while: told when it is back, what there was to tell. */
TEST_F(ssdtf, token_that_is_gone)
{
	set_three(self->fake);
	ASSERT_TRUE(client_up(&self->mgr));
	self->fake->sign_status = BROKER_TOKEN_UNAVAILABLE;
	ASSERT_EQ(client_subscribe(&self->mgr, "$SYS/broker/admission/+", 0), 0);
	fake_pass(self->fake, 2000);
	ASSERT_TRUE(client_got_nothing(&self->mgr));
	self->fake->sign_status = BROKER_TOKEN_OK;
	fake_pass(self->fake, 1000);
	ASSERT_TRUE(got_signed(self, OK, 3) && got_signed(self, RATE, 0));
	ASSERT_TRUE(client_got_nothing(&self->mgr));
}

/* It leaves while its numbers are with the token. */
TEST_F(ssdtf, manager_that_leaves)
{
	set_three(self->fake);
	ASSERT_TRUE(client_up(&self->mgr));
	self->fake->hold_sign = true;
	ASSERT_EQ(client_subscribe(&self->mgr, "$SYS/#", 0), 0);
	fake_pass(self->fake, SOON_MS);
	ASSERT_EQ(self->fake->n_token, 3);
	fake_hang_up(self->mgr.conn);
	self->fake->hold_sign = false;
	fake_pass(self->fake, SOON_MS);
	ASSERT_EQ(self->fake->n_token, 0);
	ASSERT_TRUE(client_got_nothing(&self->mgr));
}

TEST_F(ssdtf, kept_session_is_told_when_it_is_back)
{
	set_three(self->fake);
	ASSERT_TRUE(client_up_persistent(&self->mgr));
	ASSERT_EQ(client_subscribe(&self->mgr, OK, 1), 1);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(got_signed(self, OK, 3));
	fake_hang_up(self->mgr.conn);
	set(self->fake, "admission/ok", 5);
	fake_pass(self->fake, 3 * SYS_PERIOD_MS);
	ASSERT_EQ(self->fake->n_token, 0);
	ASSERT_TRUE(client_resumes(&self->mgr, true));
	self->n = 0;
	fake_pass(self->fake, SYS_PERIOD_MS + SOON_MS);
	ASSERT_TRUE(got_signed(self, OK, 5) && client_got_nothing(&self->mgr));
}

/* A bundle that takes the role away ends the subscription, whether the manager is here or not, and
 * it does not come back with the role. */
TEST_F(ssdtf, loss_of_the_role_ends_it)
{
	for (unsigned here = 0; here < 2; here++) {
		self->world->mgr->roles = RECORD_ROLE_MANAGER | RECORD_ROLE_RECEIVER;
		world_apply(self->world);
		set(self->fake, "admission/ok", 10 * here);
		self->mgr.clean = true;
		ASSERT_TRUE(client_up(&self->mgr));
		fake_hang_up(self->mgr.conn);
		ASSERT_TRUE(client_up_persistent(&self->mgr));
		ASSERT_EQ(client_subscribe(&self->mgr, "$SYS/#", 1), 1);
		ASSERT_EQ(client_subscribe(&self->mgr, "site/#", 1), 1);
		fake_pass(self->fake, SOON_MS);
		self->n = 0;
		ASSERT_TRUE(got_signed(self, OK, 10 * here));
		if (!here)
			fake_hang_up(self->mgr.conn);
		self->world->mgr->roles = RECORD_ROLE_RECEIVER;
		world_apply(self->world);
		if (!here)
			ASSERT_TRUE(client_resumes(&self->mgr, true));
		ASSERT_FALSE(client_closed(&self->mgr));
		set(self->fake, "admission/ok", 10 * here + 1);
		fake_pass(self->fake, 2 * SYS_PERIOD_MS);
		ASSERT_TRUE(client_got_nothing(&self->mgr));
		ASSERT_EQ(client_subscribe(&self->mgr, "$SYS/#", 1), 0x80);
		self->world->mgr->roles = RECORD_ROLE_MANAGER;
		world_apply(self->world);
		fake_pass(self->fake, 2 * SYS_PERIOD_MS);
		ASSERT_TRUE(client_got_nothing(&self->mgr));
		fake_hang_up(self->mgr.conn);
	}
}

/* Another bundle that leaves the role alone changes nothing. */
TEST_F(ssdtf, new_bundle)
{
	set_three(self->fake);
	ASSERT_TRUE(client_up(&self->mgr));
	ASSERT_EQ(client_subscribe(&self->mgr, OK, 1), 1);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(got_signed(self, OK, 3));
	world_apply(self->world);
	set(self->fake, "admission/ok", 4);
	fake_pass(self->fake, SYS_PERIOD_MS);
	ASSERT_TRUE(got_signed(self, OK, 4) && client_got_nothing(&self->mgr));
}

TEST_F(ssdtf, revocation_ends_it)
{
	set_three(self->fake);
	ASSERT_TRUE(client_up_persistent(&self->mgr));
	ASSERT_EQ(client_subscribe(&self->mgr, OK, 1), 1);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(got_signed(self, OK, 3));
	self->world->mgr->gone = true;
	world_apply(self->world);
	ASSERT_TRUE(client_closed(&self->mgr));
	set(self->fake, "admission/ok", 4);
	fake_pass(self->fake, 2 * SYS_PERIOD_MS);
	ASSERT_EQ(fake_stats(self->fake).sessions, 0);
	self->world->mgr->gone = false;
	world_apply(self->world);
	ASSERT_TRUE(client_resumes(&self->mgr, false));
	fake_pass(self->fake, 2 * SYS_PERIOD_MS);
	ASSERT_TRUE(client_got_nothing(&self->mgr));
}

/* Not even under a scope that says so: reason 5, as where no scope does. */
TEST_F(ssdtf, clients_do_not_publish_there)
{
	struct world_scope *scope = world_add_scope(self->world, "sys", 9, "$SYS/#");
	struct fake_sealed s;
	uint16_t id;

	self->world->dev1->scopes[1] = "sys";
	world_apply(self->world);
	set(self->fake, "admission/ok", 3);
	ASSERT_TRUE(client_up(&self->mgr) && client_up(&self->dev1));
	ASSERT_EQ(client_subscribe(&self->mgr, "$SYS/#", 1), 1);
	fake_pass(self->fake, SOON_MS);
	ASSERT_TRUE(got_signed(self, OK, 3));
	id = client_publish(&self->dev1, scope, OK, "0", 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_NOT_PERMITTED, self->dev1.counter));
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, id));
	id = client_publish_retained(&self->dev1, scope, "$SYS", "0", 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_NOT_PERMITTED, self->dev1.counter));
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, id));
	ASSERT_TRUE(client_got_nothing(&self->mgr) && client_got_nothing(&self->dev1));
	ASSERT_EQ(fake_stats(self->fake).retained, 0);
	ASSERT_EQ(fake_stats(self->fake).accepted, 0);
	/* A Will to it opens no session (PROTOCOL 4). */
	fake_hang_up(self->dev1.conn);
	client_seal_will(&self->dev1, scope, OK, "0", &s);
	client_dial(&self->dev1);
	client_send_connect(&self->dev1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_connack(&self->dev1, false, 0) && client_got_challenge(&self->dev1));
	client_send_response(&self->dev1, 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(&self->dev1) && client_got_nothing(&self->dev1));
}
