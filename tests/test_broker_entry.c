// SPDX-License-Identifier: MIT
/*
 * The way in: what the gate's verdicts mean for connections (modes, answers and silence, rates),
 * how failures of a source become a ban, and that the gate's tables are bounded.
 */
#include <errno.h>
#include <string.h>

#include "tests/fake_client.h"
#include "tests/harness.h"
#include "userspace/broker/gate.h"

HARNESS_MAIN

#define FAILURES 4
#define BAN_MS	 5000

FIXTURE(entry)
{
	struct world *world;
	struct fake_broker *fake;
	struct fake_client rx1, rx2;
};

static void start_with(struct fixture_entry *self, const struct broker_config *config)
{
	self->world = world_new(config);
	self->fake = self->world->fake;
	client_init_party(&self->rx1, self->world, self->world->rx1);
	client_init_party(&self->rx2, self->world, self->world->rx2);
}

static void start(struct fixture_entry *self, enum broker_admission mode)
{
	struct broker_config config;

	fake_config(false, &config);
	config.admission = mode;
	config.limits.admission_ban_failures = FAILURES;
	config.limits.admission_ban_window_ms = 10000;
	config.limits.connect_timeout_ms = 3000;
	config.limits.admission_ban_ms = BAN_MS;
	config.limits.admission_connects_per_second = 2; /* sixteen at once */
	start_with(self, &config);
}

static void finish(struct fixture_entry *self)
{
	client_deinit(&self->rx1);
	client_deinit(&self->rx2);
	world_free(self->world);
}

FIXTURE_SETUP(entry)
{
	start(self, BROKER_ADMISSION_ENFORCE);
}

FIXTURE_TEARDOWN(entry)
{
	finish(self);
}

static void restart_as(struct fixture_entry *self, enum broker_admission mode)
{
	finish(self);
	start(self, mode);
}

static void from(struct fixture_entry *self, uint8_t host)
{
	self->fake->from[15] = host;
}

/* A CONNECT whose token's last bit is wrong. Was there an answer? The connection is over. */
static bool bad_connect_is_told(struct fixture_entry *self)
{
	uint8_t packet[1024];
	struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));
	struct fake_client *c = &self->rx1;
	bool told;

	client_write_connect(c, &w);
	ASSERT_FALSE(w.bad);
	packet[w.used - 1] ^= 1;
	client_dial(c);
	client_send(c, bytes_of(packet, w.used));
	fake_settle(self->fake);
	told = !fake_silent(c->conn) && client_got_connack(c, false, 5);
	ASSERT_TRUE(client_closed(c));
	ASSERT_TRUE(fake_silent(c->conn));
	return told;
}

static bool connects(struct fixture_entry *self, struct fake_client *c)
{
	bool up;

	client_dial(c);
	client_send_connect(c);
	fake_settle(self->fake);
	up = client_got_connack(c, false, 0);
	fake_hang_up(c->conn);
	fake_settle(self->fake);
	return up;
}

static uint64_t counted(struct fixture_entry *self, unsigned what)
{
	return broker_admission_counters(self->fake->engine)[what];
}

/* --- modes ------------------------------------------------------------------------------------ */

TEST_F(entry, monitor_counts_and_lets_in)
{
	restart_as(self, BROKER_ADMISSION_MONITOR);
	for (unsigned i = 0; i < 3 * FAILURES; i++) {
		uint8_t packet[1024];
		struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));

		client_write_connect(&self->rx1, &w);
		packet[w.used - 1] ^= 1;
		client_dial(&self->rx1);
		client_send(&self->rx1, bytes_of(packet, w.used));
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_connack(&self->rx1, false, 0));
		fake_hang_up(self->rx1.conn);
	}
	EXPECT_EQ(counted(self, ADMISSION_BAD_TAG), 3 * FAILURES);
	EXPECT_EQ(counted(self, ADMISSION_DROPPED) + counted(self, ADMISSION_TOLD), 0);
	EXPECT_EQ(self->fake->n_bans, 0);
	ASSERT_TRUE(client_up(&self->rx2));
	EXPECT_EQ(counted(self, ADMISSION_OK), 1);
}

TEST_F(entry, off_looks_at_nothing)
{
	restart_as(self, BROKER_ADMISSION_OFF);
	ASSERT_TRUE(client_up(&self->rx1));
	for (unsigned i = 0; i < ADMISSION_COUNTERS; i++)
		EXPECT_EQ(counted(self, i), 0);
}

TEST_F(entry, a_token_is_for_one_connect)
{
	uint8_t packet[1024];
	struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));

	client_write_connect(&self->rx1, &w);
	for (unsigned i = 0; i < 2; i++) {
		client_dial(&self->rx1);
		client_send(&self->rx1, bytes_of(packet, w.used));
		fake_settle(self->fake);
		EXPECT_TRUE(client_got_connack(&self->rx1, false, i ? 5 : 0));
	}
	EXPECT_EQ(counted(self, ADMISSION_REPLAYED), 1);
}

TEST_F(entry, a_device_connects_so_often)
{
	for (unsigned i = 0; i < 16; i++)
		ASSERT_TRUE(connects(self, &self->rx2));
	EXPECT_FALSE(connects(self, &self->rx2));
	EXPECT_EQ(counted(self, ADMISSION_RATE), 1);
	EXPECT_EQ(self->fake->n_bans, 0); /* it has the key: nobody is blamed */
	EXPECT_TRUE(connects(self, &self->rx1));
	fake_pass(self->fake, 600);
	EXPECT_TRUE(connects(self, &self->rx2));
	EXPECT_FALSE(connects(self, &self->rx2));
}

/* --- answers ---------------------------------------------------------------------------------- */

TEST_F(entry, after_some_answers_there_is_silence)
{
	struct broker_config config;

	finish(self);
	fake_config(false, &config);
	config.limits.admission_told_per_second = 1; /* three at once */
	config.limits.admission_told_total_per_second = 4;
	start_with(self, &config);
	for (unsigned i = 0; i < 3; i++)
		EXPECT_TRUE(bad_connect_is_told(self));
	EXPECT_FALSE(bad_connect_is_told(self));
	from(self, 2);
	EXPECT_TRUE(bad_connect_is_told(self));
	EXPECT_FALSE(bad_connect_is_told(self)); /* four of all sources */
	EXPECT_EQ(counted(self, ADMISSION_TOLD), 4);
	EXPECT_EQ(counted(self, ADMISSION_DROPPED), 2);
	fake_pass(self->fake, 1100);
	EXPECT_TRUE(bad_connect_is_told(self));
	EXPECT_EQ(fake_stats(self->fake).admission_refused, 7);
	EXPECT_TRUE(client_up(&self->rx2)); /* who is admitted is not limited by that */
}

/* --- bans ------------------------------------------------------------------------------------- */

TEST_F(entry, failures_ban_a_source_for_a_while)
{
	for (unsigned i = 0; i < FAILURES; i++) {
		EXPECT_EQ(self->fake->n_bans, 0);
		bad_connect_is_told(self);
	}
	ASSERT_EQ(self->fake->n_bans, 1);
	EXPECT_EQ(self->fake->last_ban_ms, BAN_MS);
	ASSERT_BYTES(self->fake->last_ban.address, self->fake->from, 16);
	EXPECT_TRUE(fake_try_open(self->fake) == NULL);
	EXPECT_EQ(counted(self, ADMISSION_BANNED), 1);
	from(self, 2);
	EXPECT_TRUE(client_up(&self->rx2));
	from(self, 1);
	fake_pass(self->fake, BAN_MS - 1);
	EXPECT_TRUE(fake_try_open(self->fake) == NULL);
	fake_pass(self->fake, 2);
	EXPECT_TRUE(client_up(&self->rx1));
}

TEST_F(entry, what_counts_as_a_failure)
{
	struct fake_client *c = &self->rx1;

	client_dial(c); /* the wrong protocol */
	client_send(c, bytes_str("GET / HTTP/1.1\r\n\r\n"));
	fake_settle(self->fake);
	client_dial(c); /* a first packet that is none */
	client_send_empty(c, MQTT_PINGREQ);
	fake_settle(self->fake);
	client_dial(c); /* gone before it said anything: a port scan, a health check */
	fake_hang_up(c->conn);
	client_dial(c); /* a response with another's key */
	client_send_connect(c);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_connack(c, false, 0));
	ASSERT_TRUE(client_got_challenge(c));
	c->r_b[0] ^= 1;
	client_send_response(c, 0);
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(c));
	EXPECT_EQ(self->fake->n_bans, 0);
	client_dial(c); /* silence */
	fake_pass(self->fake, self->fake->config.limits.connect_timeout_ms + 1000);
	ASSERT_TRUE(client_closed(c));
	EXPECT_EQ(self->fake->n_bans, 1);
}

TEST_F(entry, failures_far_apart_or_before_a_success_do_not_ban)
{
	for (unsigned i = 0; i < 3 * FAILURES; i++) {
		bad_connect_is_told(self);
		fake_pass(self->fake, 10002 / (FAILURES - 1));
	}
	EXPECT_EQ(self->fake->n_bans, 0);
	fake_pass(self->fake, 10001);
	for (unsigned i = 0; i < FAILURES - 1; i++)
		bad_connect_is_told(self);
	ASSERT_TRUE(client_up(&self->rx2));
	fake_hang_up(self->rx2.conn);
	for (unsigned i = 0; i < FAILURES - 1; i++)
		bad_connect_is_told(self);
	EXPECT_EQ(self->fake->n_bans, 0);
	bad_connect_is_told(self);
	EXPECT_EQ(self->fake->n_bans, 1);
}

/* A NAT has one address: a stranger behind it must not shut out the others. */
TEST_F(entry, a_source_with_a_session_is_not_banned)
{
	ASSERT_TRUE(client_up(&self->rx2));
	for (unsigned i = 0; i < 3 * FAILURES; i++)
		bad_connect_is_told(self);
	EXPECT_EQ(self->fake->n_bans, 0);
	fake_hang_up(self->rx2.conn);
	for (unsigned i = 0; i < FAILURES; i++)
		bad_connect_is_told(self);
	EXPECT_EQ(self->fake->n_bans, 1);
}

TEST_F(entry, the_machine_itself_is_not_banned)
{
	static const uint8_t v4[16] = { [10] = 0xff, [11] = 0xff, 127, 0, 0, 1 };
	static const uint8_t v6[16] = { [15] = 1 };

	memcpy(self->fake->from, v4, sizeof(v4));
	for (unsigned i = 0; i < FAILURES; i++)
		bad_connect_is_told(self);
	memcpy(self->fake->from, v6, sizeof(v6));
	for (unsigned i = 0; i < FAILURES; i++)
		bad_connect_is_told(self);
	EXPECT_EQ(self->fake->n_bans, 0);
}

TEST_F(entry, a_clock_that_is_wrong_is_nobodys_failure)
{
	uint8_t packet[1024];
	struct bytes_writer w;

	for (unsigned i = 0; i < 2 * FAILURES; i++) {
		w = bytes_writer_of(packet, sizeof(packet));
		client_write_connect(&self->rx1, &w);
		client_dial(&self->rx1);
		self->fake->wall_ms += 120000; /* ours: it was set */
		fake_settle(self->fake);
		client_send(&self->rx1, bytes_of(packet, w.used));
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_connack(&self->rx1, false, 5));
	}
	EXPECT_EQ(counted(self, ADMISSION_SLOT), 2 * FAILURES);
	EXPECT_EQ(self->fake->n_bans, 0);
}

/* An operator's ban is not cut short by one of ours. */
TEST_F(entry, a_longer_ban_stands)
{
	struct admission_source s = gate_source_of(self->fake->from);
	struct fake_conn *open[FAILURES];

	for (unsigned i = 0; i < FAILURES; i++)
		open[i] = fake_open(self->fake);
	ASSERT_EQ(broker_ban(self->fake->engine, &s, 100 * BAN_MS), 0);
	for (unsigned i = 0; i < FAILURES; i++)
		fake_input(open[i], bytes_str("garbage"));
	fake_settle(self->fake);
	EXPECT_EQ(self->fake->n_bans, 1);
	fake_pass(self->fake, 2 * BAN_MS);
	EXPECT_TRUE(fake_try_open(self->fake) == NULL);
}

/* An IPv6 network has as many addresses as it likes. */
TEST_F(entry, ipv6_counts_by_its_network)
{
	static const uint8_t address[16] = { 0x20, 0x01, 0x0d, 0xb8 };

	memcpy(self->fake->from, address, sizeof(address));
	for (unsigned i = 0; i < FAILURES; i++) {
		from(self, (uint8_t)i);
		bad_connect_is_told(self);
	}
	EXPECT_EQ(self->fake->n_bans, 1);
	from(self, 200);
	EXPECT_TRUE(fake_try_open(self->fake) == NULL);
	self->fake->from[7] = 1; /* the next network */
	EXPECT_TRUE(client_up(&self->rx1));
}

/* But all of a link are in fe80::/10, and behind a NAT64 in one network. */
TEST_F(entry, what_is_a_source)
{
	static const struct {
		uint8_t address[16];
		bool host;
	} table[] = {
		{ { 0xfe, 0x80, [14] = 7, 8 }, true },
		{ { 0xfe, 0xbf, [14] = 7, 8 }, true },
		{ { 0xfe, 0xc0, [14] = 7, 8 }, false },
		{ { 0, 0x64, 0xff, 0x9b, [12] = 192, 0, 2, 1 }, true },
		{ { [10] = 0xff, 0xff, 192, 0, 2, 1 }, true },
		{ { [15] = 1 }, true },
		{ { 0x20, 0x01, 0x0d, 0xb8, [14] = 7, 8 }, false },
		{ { 0xfd, [14] = 7, 8 }, false },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
		struct admission_source s = gate_source_of(table[i].address);

		EXPECT_EQ(s.address[15] == table[i].address[15], table[i].host);
		ASSERT_BYTES(s.address, table[i].address, 8);
	}
}

static void count_ban(void *ctx, const struct admission_source *source, uint64_t left_ms)
{
	*(uint64_t *)ctx += left_ms;
}

TEST_F(entry, an_operator_bans_and_unbans)
{
	struct admission_source s = gate_source_of(self->fake->from);
	uint64_t left_ms = 0;

	ASSERT_EQ(broker_ban(self->fake->engine, &s, 700), 0);
	EXPECT_EQ(self->fake->n_bans, 1);
	broker_each_ban(self->fake->engine, count_ban, &left_ms);
	EXPECT_EQ(left_ms, 700);
	EXPECT_TRUE(fake_try_open(self->fake) == NULL);
	EXPECT_TRUE(broker_unban(self->fake->engine, &s));
	EXPECT_EQ(self->fake->last_ban_ms, 0);
	EXPECT_FALSE(broker_unban(self->fake->engine, &s));
	EXPECT_TRUE(client_up(&self->rx1));
}

/* A session that is open does not end by its address's ban. */
TEST_F(entry, a_ban_is_for_those_to_come)
{
	struct admission_source s = gate_source_of(self->fake->from);

	ASSERT_TRUE(client_up(&self->rx1));
	ASSERT_EQ(broker_ban(self->fake->engine, &s, 700), 0);
	client_send_empty(&self->rx1, MQTT_PINGREQ);
	fake_settle(self->fake);
	EXPECT_TRUE(client_got_pingresp(&self->rx1));
}

/* --- bounds ----------------------------------------------------------------------------------- */

TEST(tables_are_bounded)
{
	struct broker_limits limits;
	struct gate_now now = { 1000, FAKE_WALL_MS };
	struct admission_source s = { { 0 } };
	struct pool pool;
	struct gate g;

	broker_limits_default(&limits);
	pool_init(&pool);
	gate_init(&g, &pool, &limits);
	for (unsigned i = 0; i < GATE_BANS_MAX; i++) {
		bytes_store_u32(s.address, i);
		ASSERT_EQ(gate_ban(&g, now, &s, now.mono_ms + 10 + i % 2), 0);
		gate_may_tell(&g, now, &s, ADMISSION_UNKNOWN);
	}
	bytes_store_u32(s.address, GATE_BANS_MAX);
	EXPECT_EQ(gate_ban(&g, now, &s, now.mono_ms + 10), -ENOSPC);
	gate_may_tell(&g, now, &s, ADMISSION_UNKNOWN);
	EXPECT_EQ(g.n_sources, GATE_SOURCES_MAX);
	bytes_store_u32(s.address, 5);
	EXPECT_EQ(gate_ban(&g, now, &s, now.mono_ms + 10), 0); /* it stands already */
	now.mono_ms += 10;				       /* half of them are over */
	bytes_store_u32(s.address, GATE_BANS_MAX);
	EXPECT_EQ(gate_ban(&g, now, &s, now.mono_ms + 10), 0);
	ASSERT_LE(g.n_bans, GATE_BANS_MAX / 2 + 1);
	EXPECT_TRUE(gate_banned(&g, now, &s));
	gate_deinit(&g);
	EXPECT_EQ(pool.bytes_out, 0);
	pool_deinit(&pool);
}
