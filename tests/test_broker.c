// SPDX-License-Identifier: MIT
/*
 * The broker engine as an ordinary MQTT 3.1.1 broker (plain mode), on fake sockets and a fake
 * clock. Clauses of the standard are cited where a test is about one.
 */
#include <stdio.h>

#include "tests/fake_client.h"
#include "tests/harness.h"
#include "userspace/base/text.h"

HARNESS_MAIN

/* What three clients, "a", "b" and "c", need; limits are a test's own where it restarts with them.
 */
FIXTURE(plain)
{
	struct broker_config config;
	struct fake_broker *fake;
	struct fake_client a, b, c;
};

static void start(struct fixture_plain *self)
{
	self->fake = fake_new_with(&self->config);
	client_init(&self->a, self->fake, "a");
	client_init(&self->b, self->fake, "b");
	client_init(&self->c, self->fake, "c");
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

/* The same with the limits that config has by now. */
static void restart(struct fixture_plain *self)
{
	fake_free(self->fake);
	start(self);
}

/* n numbered QoS 1 messages to "t", from number from. */
static void publish_numbers(struct fake_client *c, unsigned from, unsigned n, uint8_t qos)
{
	char text[16];

	for (unsigned i = from; i < from + n; i++) {
		snprintf(text, sizeof(text), "%u", i);
		client_publish_text(c, "t", text, qos, false);
	}
	fake_settle(c->fake);
}

/* The next packet is number i, with DUP or not. */
static bool got_number(struct fake_client *c, unsigned i, bool dup, uint16_t *ret_id)
{
	struct mqtt_publish p;
	char text[16];

	snprintf(text, sizeof(text), "%u", i);
	if (!client_got_publish(c, &p))
		return false;
	if (!bytes_equal(p.payload, bytes_str(text)) || p.dup != dup) {
		harness_note("%s: got %.*s (DUP %d), not %u", c->id, (int)p.payload.n, p.payload.p,
			     p.dup, i);
		return false;
	}
	if (ret_id)
		*ret_id = p.packet_id;
	return true;
}

/* The next n packets are these numbers; each is acknowledged. */
static bool takes_numbers(struct fake_client *c, unsigned from, unsigned n, bool dup)
{
	uint16_t id;

	for (unsigned i = from; i < from + n; i++) {
		if (!got_number(c, i, dup, &id))
			return false;
		if (id)
			client_send_ack(c, MQTT_PUBACK, id);
		fake_settle(c->fake);
	}
	return true;
}

/* --- delivery --------------------------------------------------------------------------------- */

TEST_F(plain, qos_0_and_1)
{
	static const struct {
		uint8_t published, subscribed, delivered;
	} rows[] = { { 0, 0, 0 }, { 0, 1, 0 }, { 1, 0, 0 }, { 1, 1, 1 }, { 1, 2, 1 } };
	uint16_t id, delivered_id;

	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		ASSERT_EQ(client_subscribe(&self->b, "t", rows[i].subscribed), rows[i].subscribed);
		id = client_publish_text(&self->a, "t", "hello", rows[i].published, false);
		fake_settle(self->fake);
		if (rows[i].published)
			ASSERT_TRUE(client_got_ack(&self->a, MQTT_PUBACK, id));
		ASSERT_TRUE(
			client_got_text(&self->b, "t", "hello", rows[i].delivered, &delivered_id));
		ASSERT_EQ(delivered_id != 0, rows[i].delivered);
		if (delivered_id)
			client_send_ack(&self->b, MQTT_PUBACK, delivered_id);
	}
	ASSERT_TRUE(client_got_nothing(&self->a) && client_got_nothing(&self->b));
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
	ASSERT_EQ(fake_stats(self->fake).delivered, ARRAY_SIZE(rows));
}

/* From some size on payloads are pointed at; nobody can tell, in whatever form he takes them. */
TEST_F(plain, payloads_of_any_size)
{
	static const size_t sizes[] = { 0, 1, 4095, 4096, 4097, 200000 };
	static uint8_t payload[200000];
	struct mqtt_publish p, got;

	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)harness_random();
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->a, "t", 2), 2);
	ASSERT_EQ(client_subscribe(&self->b, "t", 0), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		p = (struct mqtt_publish){ .qos = 1,
					   .packet_id = (uint16_t)(1 + i),
					   .topic = bytes_str("t"),
					   .payload = bytes_of(payload, sizes[i]) };
		client_send_publish(&self->a, &p);
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_publish(&self->b, &got));
		ASSERT_TRUE(bytes_equal(got.payload, p.payload) && got.qos == 0);
		ASSERT_TRUE(client_got_publish(&self->a, &got));
		ASSERT_TRUE(bytes_equal(got.payload, p.payload) && got.qos == 1);
		ASSERT_TRUE(bytes_equal(got.topic, p.topic) && !got.dup && !got.retain);
		client_send_ack(&self->a, MQTT_PUBACK, got.packet_id);
		ASSERT_TRUE(client_got_ack(&self->a, MQTT_PUBACK, p.packet_id));
	}
	ASSERT_EQ(self->fake->n_shared, 2 * 3);
}

/* A length in more bytes than it needs is taken (3.1.1 does not forbid it), but nobody else has to:
 * also of a message that came in pieces, whose memory may become the message's. */
TEST_F(plain, long_lengths_are_not_passed_on)
{
	enum { PAYLOAD = 5000, HEAD = 1 + 2 };
	static uint8_t payload[PAYLOAD], packet[PAYLOAD + 16], longer[PAYLOAD + 16];
	const struct mqtt_publish p = { .topic = bytes_str("t"),
					.payload = bytes_of(payload, PAYLOAD) };
	struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));
	struct mqtt_frame f;

	mqtt_encode_publish(&p, &w);
	ASSERT_FALSE(w.bad);
	memcpy(longer, packet, HEAD);
	longer[HEAD - 1] |= 0x80;
	longer[HEAD] = 0;
	memcpy(longer + HEAD + 1, packet + HEAD, w.used - HEAD);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 0), 0);
	for (size_t cut = 1; cut <= w.used + 1; cut += w.used / 2) {
		client_send(&self->a, bytes_of(longer, cut));
		client_send(&self->a, bytes_of(longer + cut, w.used + 1 - cut));
		fake_settle(self->fake);
		ASSERT_TRUE(fake_next_packet(self->b.conn, &f));
		ASSERT_TRUE(bytes_equal(f.packet, bytes_of(packet, w.used)));
	}
}

TEST_F(plain, own_messages_come_back)
{
	ASSERT_TRUE(client_up(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, "t", 1), 1);
	client_publish_text(&self->a, "t", "echo", 0, false);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_text(&self->a, "t", "echo", 0, NULL));
}

static bool matches(struct fixture_plain *self, const char *filter, const char *topic)
{
	struct mqtt_publish p;
	bool got;

	ASSERT_EQ(client_subscribe(&self->b, filter, 0), 0);
	client_publish_text(&self->a, topic, "x", 0, false);
	fake_settle(self->fake);
	got = !fake_silent(self->b.conn);
	if (got)
		ASSERT_TRUE(client_got_publish(&self->b, &p));
	ASSERT_TRUE(client_got_nothing(&self->b));
	ASSERT_TRUE(client_unsubscribe(&self->b, filter));
	return got;
}

TEST_F(plain, wildcards)
{
	static const struct {
		const char *filter, *topic;
		bool match;
	} rows[] = {
		{ "a/b", "a/b", true },	      { "a/b", "a/c", false },	{ "a/+", "a/b", true },
		{ "a/+", "a/b/c", false },    { "a/+", "a", false },	{ "a/+", "a/", true },
		{ "a/#", "a", true },	      { "a/#", "a/b/c", true }, { "+/+", "/x", true },
		{ "#", "a/b", true },	      { "#", "$own/x", false }, { "+/x", "$own/x", false },
		{ "$own/#", "$own/x", true }, { "A/b", "a/b", false },
	};

	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		EXPECT_EQ(matches(self, rows[i].filter, rows[i].topic), rows[i].match);
}

/* [MQTT-3.3.5-1]: overlapping subscriptions; here one copy, with the highest QoS. */
TEST_F(plain, overlapping_subscriptions_give_one_copy)
{
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t/#", 0), 0);
	ASSERT_EQ(client_subscribe(&self->b, "t/+", 1), 1);
	ASSERT_EQ(client_subscribe(&self->b, "t/x", 0), 0);
	client_publish_text(&self->a, "t/x", "once", 1, false);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_text(&self->b, "t/x", "once", 1, NULL));
	ASSERT_TRUE(client_got_nothing(&self->b));
}

TEST_F(plain, unsubscribe)
{
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	ASSERT_TRUE(client_unsubscribe(&self->b, "t"));
	ASSERT_TRUE(client_unsubscribe(&self->b, "never")); /* [MQTT-3.10.4-5] */
	client_publish_text(&self->a, "t", "x", 1, false);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->b));
}

TEST_F(plain, order_over_mixed_qos)
{
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	for (unsigned i = 0; i < 200; i += 2) {
		publish_numbers(&self->a, i, 1, 1);
		publish_numbers(&self->a, i + 1, 1, 0);
	}
	ASSERT_TRUE(takes_numbers(&self->b, 0, 200, false));
	ASSERT_TRUE(client_got_nothing(&self->b));
}

/* --- retained --------------------------------------------------------------------------------- */

static bool got_retained(struct fake_client *c, const char *text, uint8_t qos)
{
	struct mqtt_publish p;

	return client_got_publish(c, &p) && p.retain && p.qos == qos &&
	       bytes_equal(p.payload, bytes_str(text));
}

TEST_F(plain, retained_set_replace_clear)
{
	struct mqtt_publish p;

	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b) && client_up(&self->c));
	ASSERT_EQ(client_subscribe(&self->c, "t", 1), 1);
	client_publish_text(&self->a, "t", "one", 1, true);
	client_publish_text(&self->a, "t", "two", 1, true);
	fake_settle(self->fake);
	ASSERT_EQ(fake_stats(self->fake).retained, 1);
	/* To an existing subscription RETAIN is 0 [MQTT-3.3.1-9], to a new one 1 [MQTT-3.3.1-8]. */
	ASSERT_TRUE(client_got_publish(&self->c, &p) && !p.retain);
	ASSERT_TRUE(client_got_publish(&self->c, &p) && !p.retain);
	ASSERT_EQ(client_subscribe(&self->b, "t", 0), 0);
	ASSERT_TRUE(got_retained(&self->b, "two", 0));
	/* The same subscription again: the message again [MQTT-3.8.4-3]. */
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	ASSERT_TRUE(got_retained(&self->b, "two", 1));
	/* Not retained: what is kept stays [MQTT-3.3.1-12]. */
	client_publish_text(&self->a, "t", "three", 0, false);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_text(&self->b, "t", "three", 0, NULL));
	ASSERT_EQ(fake_stats(self->fake).retained, 1);
	/* No content: cleared [MQTT-3.3.1-10], and delivered as any message. */
	client_publish_text(&self->a, "t", "", 0, true);
	fake_settle(self->fake);
	ASSERT_EQ(fake_stats(self->fake).retained, 0);
	ASSERT_TRUE(client_got_text(&self->b, "t", "", 0, NULL));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	ASSERT_TRUE(client_got_nothing(&self->b));
}

TEST_F(plain, retained_by_wildcard)
{
	struct mqtt_publish p;
	unsigned n = 0;

	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	client_publish_text(&self->a, "r/1", "x", 0, true);
	client_publish_text(&self->a, "r/2", "x", 1, true);
	client_publish_text(&self->a, "r/2/3", "x", 0, true);
	client_publish_text(&self->a, "$r", "x", 0, true);
	fake_settle(self->fake);
	ASSERT_EQ(client_subscribe(&self->b, "#", 1), 1);
	for (; !fake_silent(self->b.conn); n++)
		ASSERT_TRUE(client_got_publish(&self->b, &p) && p.retain && p.topic.p[0] == 'r');
	ASSERT_EQ(n, 3);
}

TEST_F(plain, retained_limit)
{
	self->config.limits.retained_max = 2;
	restart(self);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	client_publish_text(&self->a, "r/1", "one", 0, true);
	client_publish_text(&self->a, "r/2", "two", 0, true);
	client_publish_text(&self->a, "r/3", "three", 0, true); /* not kept */
	client_publish_text(&self->a, "r/1", "again", 0, true); /* in place of its own topic's */
	fake_settle(self->fake);
	ASSERT_EQ(fake_stats(self->fake).retained, 2);
	ASSERT_EQ(client_subscribe(&self->b, "r/3", 0), 0);
	ASSERT_TRUE(client_got_nothing(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "r/1", 0), 0);
	ASSERT_TRUE(got_retained(&self->b, "again", 0));
}

/* Once for a filter that stands in one SUBSCRIBE many times: no amplifier. */
TEST_F(plain, retained_once_for_a_repeated_filter)
{
	/* id 1, then "#" three times */
	static const char subscribe[] = "820e"
					"0001"
					"00012301"
					"00012301"
					"00012301";

	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	client_publish_text(&self->a, "t", "kept", 1, true);
	client_send_hex(&self->b, subscribe);
	fake_settle(self->fake);
	ASSERT_TRUE(fake_next_packet(self->b.conn, &(struct mqtt_frame){ 0 }));
	ASSERT_TRUE(got_retained(&self->b, "kept", 1));
	ASSERT_TRUE(client_got_nothing(&self->b));
}

/* --- Wills ------------------------------------------------------------------------------------ */

static void set_will(struct fake_client *c, uint8_t qos, bool retain)
{
	c->has_will = true;
	c->will = (struct mqtt_will){
		.topic = bytes_str("will"),
		.payload = bytes_str("gone"),
		.qos = qos,
		.retain = retain,
	};
}

TEST_F(plain, will_is_published_when_the_network_fails)
{
	set_will(&self->a, 1, true);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "will", 1), 1);
	fake_hang_up(self->a.conn);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_text(&self->b, "will", "gone", 1, NULL));
	ASSERT_EQ(fake_stats(self->fake).retained, 1);
}

TEST_F(plain, will_is_published_on_a_protocol_error)
{
	set_will(&self->a, 0, false);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "will", 1), 1);
	client_send_hex(&self->a, "8200"); /* a SUBSCRIBE of nothing */
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(&self->a));
	ASSERT_TRUE(client_got_text(&self->b, "will", "gone", 0, NULL));
}

TEST_F(plain, will_is_published_on_takeover)
{
	struct fake_client again;

	set_will(&self->a, 0, false);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "will", 1), 1);
	client_init(&again, self->fake, "a");
	ASSERT_TRUE(client_up(&again));
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(&self->a));
	ASSERT_TRUE(client_got_text(&self->b, "will", "gone", 0, NULL));
}

/* [MQTT-3.14.4-3] */
/* A client that says DISCONNECT closes first; any other is closed at once. */
TEST_F(plain, disconnect_lets_the_client_close)
{
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	client_send_empty(&self->a, MQTT_DISCONNECT);
	ASSERT_TRUE(client_closed(&self->a) && self->a.conn->peer_ends);
	client_send_hex(&self->b, "0000");
	ASSERT_TRUE(client_closed(&self->b) && !self->b.conn->peer_ends);
}

TEST_F(plain, will_is_not_published_after_disconnect)
{
	set_will(&self->a, 1, true);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "will", 1), 1);
	client_send_empty(&self->a, MQTT_DISCONNECT);
	ASSERT_TRUE(client_closed(&self->a));
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->b));
	ASSERT_EQ(fake_stats(self->fake).retained, 0);
}

TEST_F(plain, will_is_not_published_when_the_broker_stops)
{
	set_will(&self->a, 1, true);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "will", 1), 1);
	broker_stop(self->fake->engine);
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(&self->a) && client_closed(&self->b));
	ASSERT_TRUE(client_got_nothing(&self->b));
	ASSERT_EQ(fake_stats(self->fake).connections, 0);
}

/* --- sessions --------------------------------------------------------------------------------- */

/* [MQTT-4.4.0-1]: what is unacknowledged comes again, in order, with DUP and its packet id. */
TEST_F(plain, persistent_session_redelivers)
{
	uint16_t ids[5], id;

	ASSERT_TRUE(client_up(&self->a) && client_up_persistent(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	publish_numbers(&self->a, 0, 5, 1);
	for (unsigned i = 0; i < 5; i++)
		ASSERT_TRUE(got_number(&self->b, i, false, &ids[i]));
	client_send_ack(&self->b, MQTT_PUBACK, ids[1]);
	fake_settle(self->fake);
	fake_hang_up(self->b.conn);
	publish_numbers(&self->a, 5, 2, 1);
	publish_numbers(&self->a, 99, 1, 0); /* QoS 0 is not kept for the absent */
	ASSERT_TRUE(client_resumes(&self->b, true));
	fake_settle(self->fake);
	for (unsigned i = 0; i < 5; i++) {
		if (i == 1)
			continue;
		ASSERT_TRUE(got_number(&self->b, i, true, &id));
		ASSERT_EQ(id, ids[i]);
		client_send_ack(&self->b, MQTT_PUBACK, id);
	}
	ASSERT_TRUE(takes_numbers(&self->b, 5, 2, false));
	ASSERT_TRUE(client_got_nothing(&self->b));
	publish_numbers(&self->a, 7, 1, 1); /* the subscription is still there */
	ASSERT_TRUE(takes_numbers(&self->b, 7, 1, false));
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

TEST_F(plain, redelivery_survives_many_reconnects)
{
	uint16_t first, id;

	ASSERT_TRUE(client_up(&self->a) && client_up_persistent(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	publish_numbers(&self->a, 0, 1, 1);
	ASSERT_TRUE(got_number(&self->b, 0, false, &first));
	for (unsigned i = 0; i < 5; i++) {
		fake_hang_up(self->b.conn);
		ASSERT_TRUE(client_resumes(&self->b, true));
		fake_settle(self->fake);
		ASSERT_TRUE(got_number(&self->b, 0, true, &id));
		ASSERT_EQ(id, first);
	}
}

/* [MQTT-3.1.2-6] */
TEST_F(plain, clean_session_forgets)
{
	ASSERT_TRUE(client_up(&self->a) && client_up_persistent(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	fake_hang_up(self->b.conn);
	publish_numbers(&self->a, 0, 3, 1);
	self->b.clean = true;
	ASSERT_TRUE(client_resumes(&self->b, false));
	publish_numbers(&self->a, 3, 1, 1);
	ASSERT_TRUE(client_got_nothing(&self->b));
	fake_hang_up(self->b.conn);
	self->b.clean = false;
	ASSERT_TRUE(client_resumes(&self->b, false));
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

/* [MQTT-3.1.4-2] */
TEST_F(plain, takeover)
{
	struct fake_client again;

	ASSERT_TRUE(client_up(&self->a) && client_up_persistent(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	publish_numbers(&self->a, 0, 2, 1);
	client_init(&again, self->fake, "b");
	again.clean = false;
	ASSERT_TRUE(client_resumes(&again, true));
	ASSERT_TRUE(client_closed(&self->b));
	ASSERT_TRUE(takes_numbers(&again, 0, 2, true));
	ASSERT_EQ(fake_stats(self->fake).connections, 2);
	ASSERT_EQ(fake_stats(self->fake).sessions, 2);
}

/* [MQTT-3.2.2-3]: a clean session that is taken over is gone, so none is present. */
TEST_F(plain, takeover_of_a_clean_session_finds_none)
{
	struct fake_client again;

	ASSERT_TRUE(client_up_clean(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	client_init(&again, self->fake, "b");
	again.clean = false;
	ASSERT_TRUE(client_resumes(&again, false));
	ASSERT_TRUE(client_closed(&self->b));
	ASSERT_TRUE(client_up(&self->a));
	publish_numbers(&self->a, 0, 1, 1);
	ASSERT_TRUE(client_got_nothing(&again));
}

TEST_F(plain, client_ids)
{
	static const char id64[] =
		"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	static const char id65[] =
		"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdefX";
	struct fake_client other;

	self->a.id = "";
	self->b.id = "";
	ASSERT_TRUE(client_up_clean(&self->a) && client_up_clean(&self->b)); /* [MQTT-3.1.3-6] */
	ASSERT_FALSE(client_closed(&self->a)); /* each has an id of its own */
	client_init(&other, self->fake, "");
	other.clean = false;
	client_dial(&other);
	client_send_connect(&other);
	ASSERT_TRUE(client_got_connack(&other, false, 2)); /* [MQTT-3.1.3-8] */
	ASSERT_TRUE(client_closed(&other));
	self->c.id = id64;
	ASSERT_TRUE(client_up(&self->c));
	other.id = id65;
	client_dial(&other);
	client_send_connect(&other);
	ASSERT_TRUE(client_got_connack(&other, false, 2));
	ASSERT_TRUE(client_closed(&other));
}

/* --- time ------------------------------------------------------------------------------------- */

/* [MQTT-3.1.2-24] */
TEST_F(plain, keep_alive)
{
	self->a.keepalive_s = 10;
	set_will(&self->a, 0, false);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "will", 0), 0);
	fake_pass(self->fake, 14900);
	client_send_empty(&self->a, MQTT_PINGREQ);
	ASSERT_TRUE(client_got_pingresp(&self->a));
	fake_pass(self->fake, 14900);
	ASSERT_FALSE(client_closed(&self->a));
	client_publish_text(&self->a, "t", "x", 0, false); /* any packet will do */
	fake_pass(self->fake, 14900);
	ASSERT_FALSE(client_closed(&self->a));
	fake_pass(self->fake, 200);
	ASSERT_TRUE(client_closed(&self->a));
	ASSERT_TRUE(client_got_text(&self->b, "will", "gone", 0, NULL));
	fake_pass(self->fake, 100000);
	ASSERT_FALSE(client_closed(&self->b)); /* keep alive 0: never */
}

TEST_F(plain, connect_must_come_in_time)
{
	client_dial(&self->a);
	client_send_hex(&self->a, "100c00044d5154");
	fake_pass(self->fake, self->config.limits.connect_timeout_ms - 100);
	ASSERT_FALSE(client_closed(&self->a));
	fake_pass(self->fake, 200);
	ASSERT_TRUE(client_closed(&self->a));
	ASSERT_TRUE(client_got_nothing(&self->a));
}

/* --- windows, queues, limits ------------------------------------------------------------------ */

TEST_F(plain, in_flight_window)
{
	uint16_t ids[4];

	self->config.limits.inflight_max = 4;
	restart(self);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	publish_numbers(&self->a, 0, 10, 1);
	for (unsigned i = 0; i < 4; i++)
		ASSERT_TRUE(got_number(&self->b, i, false, &ids[i]));
	ASSERT_TRUE(client_got_nothing(&self->b));
	client_send_ack(&self->b, MQTT_PUBACK, 12345); /* nobody's */
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->b));
	client_send_ack(&self->b, MQTT_PUBACK, ids[2]); /* out of order is fine */
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->b, 4, false, &ids[2]));
	ASSERT_TRUE(client_got_nothing(&self->b));
	for (unsigned i = 0; i < 4; i++)
		client_send_ack(&self->b, MQTT_PUBACK, ids[i]);
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->b, 5, 5, false));
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

/* Ids go round, past one that stays unacknowledged all the time. */
TEST_F(plain, packet_ids_in_use_are_not_given_again)
{
	uint16_t stuck, id;

	ASSERT_TRUE(client_up(&self->a) && client_up_persistent(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	publish_numbers(&self->a, 0, 1, 1);
	ASSERT_TRUE(got_number(&self->b, 0, false, &stuck));
	for (unsigned i = 1; i < 140000; i++) {
		client_publish_text(&self->a, "t", "x", 1, false);
		fake_turn(self->fake);
		ASSERT_TRUE(client_got_text(&self->b, "t", "x", 1, &id));
		ASSERT_NE(id, stuck);
		ASSERT_NE(id, 0);
		client_send_ack(&self->b, MQTT_PUBACK, id);
	}
	fake_hang_up(self->b.conn);
	ASSERT_TRUE(client_resumes(&self->b, true));
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->b, 0, true, &id));
	ASSERT_EQ(id, stuck);
}

TEST_F(plain, queue_of_the_absent_is_bounded)
{
	self->config.limits.queue_messages_max = 5;
	restart(self);
	ASSERT_TRUE(client_up(&self->a) && client_up_persistent(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	fake_hang_up(self->b.conn);
	publish_numbers(&self->a, 0, 8, 1);
	ASSERT_EQ(fake_stats(self->fake).dropped_full, 3);
	ASSERT_TRUE(client_resumes(&self->b, true));
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->b, 0, 5, false)); /* the oldest are kept */
	ASSERT_TRUE(client_got_nothing(&self->b));
}

TEST_F(plain, queue_bytes_are_bounded)
{
	char big[1001];

	self->config.limits.queue_bytes_max = 4000;
	restart(self);
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	ASSERT_TRUE(client_up(&self->a) && client_up_persistent(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	fake_hang_up(self->b.conn);
	for (unsigned i = 0; i < 10; i++)
		client_publish_text(&self->a, "t", big, 1, false);
	fake_settle(self->fake);
	ASSERT_EQ(fake_stats(self->fake).dropped_full, 7);
	ASSERT_EQ(fake_stats(self->fake).queued, 3);
}

TEST_F(plain, subscriptions_are_bounded)
{
	self->config.limits.subscriptions_max = 2;
	restart(self);
	ASSERT_TRUE(client_up(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, "1", 1), 1);
	ASSERT_EQ(client_subscribe(&self->a, "2", 1), 1);
	ASSERT_EQ(client_subscribe(&self->a, "3", 1), 0x80);
	ASSERT_EQ(client_subscribe(&self->a, "2", 0), 0); /* one that is there already */
	ASSERT_TRUE(client_unsubscribe(&self->a, "1"));
	ASSERT_EQ(client_subscribe(&self->a, "3", 1), 1);
}

TEST_F(plain, filter_of_too_many_levels_fails_alone)
{
	char deep[2 * 200 + 1] = "";

	for (unsigned i = 0; i < 200; i++)
		memcpy(deep + 2 * i, "a/", 3);
	ASSERT_TRUE(client_up(&self->a));
	ASSERT_EQ(client_subscribe(&self->a, deep, 1), 0x80);
	ASSERT_EQ(client_subscribe(&self->a, "t", 1), 1);
}

TEST_F(plain, connections_are_bounded)
{
	self->config.limits.connections_max = 2;
	restart(self);
	ASSERT_TRUE(client_up(&self->a));
	client_dial(&self->b);
	ASSERT_TRUE(fake_try_open(self->fake) == NULL);
	fake_hang_up(self->b.conn);
	ASSERT_TRUE(client_up(&self->c));
	ASSERT_EQ(fake_stats(self->fake).connections, 2);
}

TEST_F(plain, sessions_are_bounded)
{
	self->config.limits.sessions_max = 2;
	restart(self);
	ASSERT_TRUE(client_up_persistent(&self->a) && client_up_clean(&self->b));
	fake_hang_up(self->a.conn); /* its session stays */
	client_dial(&self->c);
	client_send_connect(&self->c);
	ASSERT_TRUE(client_got_connack(&self->c, false, 3));
	ASSERT_TRUE(client_closed(&self->c));
	fake_hang_up(self->b.conn);
	ASSERT_TRUE(client_up(&self->c));
	ASSERT_EQ(fake_stats(self->fake).sessions, 2);
}

/* --- backpressure ----------------------------------------------------------------------------- */

TEST_F(plain, sender_is_paused_while_its_receiver_lags)
{
	self->config.limits.queue_high_water = 10;
	self->config.limits.inflight_max = 4;
	restart(self);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	publish_numbers(&self->a, 0, 9, 1);
	ASSERT_FALSE(self->a.conn->paused);
	publish_numbers(&self->a, 9, 1, 1);
	ASSERT_TRUE(self->a.conn->paused);
	publish_numbers(&self->a, 10, 3, 1); /* read before the pause: still taken */
	ASSERT_TRUE(takes_numbers(&self->b, 0, 4, false));
	ASSERT_TRUE(self->a.conn->paused);
	ASSERT_TRUE(takes_numbers(&self->b, 4, 4, false));
	ASSERT_FALSE(self->a.conn->paused); /* half of the high water */
	ASSERT_TRUE(takes_numbers(&self->b, 8, 4, false) && takes_numbers(&self->b, 12, 1, false));
	ASSERT_FALSE(client_closed(&self->a));
}

TEST_F(plain, sender_goes_on_when_its_receiver_leaves)
{
	self->config.limits.queue_high_water = 10;
	restart(self);
	ASSERT_TRUE(client_up(&self->a) && client_up_persistent(&self->b) && client_up(&self->c));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	publish_numbers(&self->a, 0, 10, 1);
	publish_numbers(&self->c, 0, 1, 1);
	ASSERT_TRUE(self->a.conn->paused && self->c.conn->paused);
	fake_hang_up(self->c.conn); /* one that is paused may leave, too */
	fake_hang_up(self->b.conn);
	ASSERT_FALSE(self->a.conn->paused);
	publish_numbers(&self->a, 10, 10, 1); /* nobody is paused for an absent receiver */
	ASSERT_FALSE(self->a.conn->paused);
	ASSERT_EQ(fake_stats(self->fake).queued, 21);
}

/* A paused client's own acknowledgements are not read, so two may never wait for each other. */
TEST_F(plain, two_that_lag_for_each_other_are_not_both_paused)
{
	self->config.limits.queue_high_water = 4;
	restart(self);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->a, "to/a", 1), 1);
	ASSERT_EQ(client_subscribe(&self->b, "to/b", 1), 1);
	for (unsigned i = 0; i < 10; i++) {
		client_publish_text(&self->a, "to/b", "x", 1, false);
		client_publish_text(&self->b, "to/a", "x", 1, false);
	}
	fake_settle(self->fake);
	ASSERT_TRUE(self->a.conn->paused != self->b.conn->paused);
}

/* Who takes nothing at all holds nobody for long. */
TEST_F(plain, stalled_receiver_lets_its_senders_go)
{
	uint16_t id;

	self->config.limits.queue_high_water = 4;
	self->config.limits.queue_messages_max = 10;
	restart(self);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	publish_numbers(&self->a, 0, 6, 1);
	ASSERT_TRUE(self->a.conn->paused);
	fake_pass(self->fake, self->config.limits.receiver_stall_ms - 100);
	ASSERT_TRUE(self->a.conn->paused);
	fake_pass(self->fake, 200);
	ASSERT_FALSE(self->a.conn->paused);
	publish_numbers(&self->a, 6, 6, 1);
	ASSERT_FALSE(self->a.conn->paused);
	ASSERT_EQ(fake_stats(self->fake).dropped_full, 2); /* its own queue is what fills up */
	/* A trickle does not win it more time: only a short queue does. */
	ASSERT_TRUE(got_number(&self->b, 0, false, &id));
	client_send_ack(&self->b, MQTT_PUBACK, id);
	publish_numbers(&self->a, 12, 1, 1);
	ASSERT_FALSE(self->a.conn->paused);
	ASSERT_TRUE(takes_numbers(&self->b, 1, 9, false));
	publish_numbers(&self->a, 13, 4, 1);
	ASSERT_TRUE(self->a.conn->paused);
}

/* That it was silent was our doing. */
TEST_F(plain, keep_alive_does_not_run_while_paused)
{
	self->config.limits.queue_high_water = 4;
	self->config.limits.receiver_stall_ms = 120000;
	restart(self);
	self->a.keepalive_s = 10;
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	publish_numbers(&self->a, 0, 4, 1);
	ASSERT_TRUE(self->a.conn->paused);
	fake_pass(self->fake, 60000);
	ASSERT_FALSE(client_closed(&self->a));
	ASSERT_TRUE(takes_numbers(&self->b, 0, 4, false));
	ASSERT_FALSE(self->a.conn->paused);
	fake_pass(self->fake, 60000);
	ASSERT_TRUE(client_closed(&self->a));
}

TEST_F(plain, output_above_its_soft_limit_waits)
{
	self->config.limits.output_bytes_soft = 100;
	restart(self);
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 0), 0);
	self->b.conn->stalled = true;
	publish_numbers(&self->a, 0, 50, 0);
	ASSERT_GE(self->b.conn->out_n - self->b.conn->sent, 100);
	ASSERT_LE(self->b.conn->out_n - self->b.conn->sent, 110);
	ASSERT_GT(fake_stats(self->fake).queued, 30);
	fake_drain(self->b.conn, 60);
	fake_settle(self->fake);
	ASSERT_GE(self->b.conn->out_n - self->b.conn->sent, 100);
	fake_unstall(self->b.conn);
	fake_settle(self->fake);
	ASSERT_TRUE(takes_numbers(&self->b, 0, 50, false));
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

/* out() says no in the middle of a delivery. */
TEST_F(plain, output_that_is_full_ends_the_connection)
{
	for (unsigned clean = 0; clean < 2; clean++) {
		set_will(&self->b, 0, false);
		self->b.clean = clean;
		ASSERT_TRUE(client_up(&self->a) && client_up(&self->b) && client_up(&self->c));
		ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
		ASSERT_EQ(client_subscribe(&self->c, "will", 1), 1);
		self->b.conn->stalled = true;
		self->b.conn->out_max = 40;
		publish_numbers(&self->a, 0, 20, 1);
		ASSERT_TRUE(client_closed(&self->b));
		ASSERT_FALSE(client_closed(&self->a));
		/* The Will of it needs no other event to go out. */
		ASSERT_TRUE(client_got_text(&self->c, "will", "gone", 0, NULL));
		ASSERT_EQ(fake_stats(self->fake).queued, clean ? 0 : 20);
		if (clean)
			continue;
		ASSERT_TRUE(client_resumes(&self->b, true));
		fake_settle(self->fake);
		for (unsigned i = 0; i < 20; i++) {
			struct mqtt_publish p;

			ASSERT_TRUE(client_got_publish(&self->b, &p));
			client_send_ack(&self->b, MQTT_PUBACK, p.packet_id);
			/* DUP says that it was written before: 5 bytes of head and 1 of text. */
			ASSERT_EQ(p.dup, i < 40 / 8);
		}
		fake_settle(self->fake);
		ASSERT_EQ(fake_stats(self->fake).queued, 0);
	}
}

/* --- the codec behind the engine -------------------------------------------------------------- */

/* Ways of being malformed, in hex, with spaces between. */
static const char *const malformed[] = {
	/* CONNECT: nothing; one byte too many; another name; a reserved flag; a password without a
	 * user name; a QoS of no Will; flags in its first byte */
	"1000 100c00044d51545404020000000161 100d00044d51545504020000000161",
	"100d00044d51545404030000000161 100d00044d51545404420000000161",
	"100d00044d515454041a0000000161 110d00044d51545404020000000161",
	/* types 0 and 15, and what a server sends */
	"0000 f000 20020000 9003000100 b0020001 d000",
	/* PUBLISH: no topic or half of one; wildcards; QoS 1 without an id, or with 0; QoS 3; DUP
	 * at QoS 0; no UTF-8 */
	"3000 30020001 3003000123 300300012b 3002ffff 3203000174 32050001740000 3603000174",
	"3803000174 300400010074 30050002c08078",
	/* PUBACK, and the packets of QoS 2 */
	"4000 400100 40020000 4003000100 41020001",
	"5000 500100 50020000 5003000100 52020001 6200 620100 62020000 6203000100 60020001",
	"7000 700100 70020000 7003000100 72020001 34050001740000 3403000174",
	/* SUBSCRIBE: nothing; an id alone; flags of no SUBSCRIBE; no QoS; id 0; QoS 3 and 4; a
	 * filter cut short, empty, or with wildcards where they may not be; bytes left over */
	"8200 82020001 8006000100017400 82050001000174 8206000000017400 8206000100017403",
	"8206000100017404 820600010001ff00 82050001000000 820700010002236200 820700010002612300",
	"8207000100026b2b00 820700010001740000",
	/* UNSUBSCRIBE */
	"a200 a2020001 a2050000000174 a0050001000174 a20400010000 a2050001000274",
	/* PINGREQ and DISCONNECT with flags or a body */
	"c10100 c00100 c100 e00100 e100",
	/* Remaining Length of five bytes; a packet above the limit */
	"30ffffffff01 30ffffff7f",
};

static void check_malformed(struct fixture_plain *self, const char *hex)
{
	client_init(&self->a, self->fake, "a");
	if (hex[0] == '1')
		client_dial(&self->a);
	else
		ASSERT_TRUE(client_up(&self->a));
	client_send_hex(&self->a, hex);
	fake_settle(self->fake);
	if (!client_closed(&self->a))
		harness_fail(__FILE__, __LINE__, false, "not closed by %s", hex);
	EXPECT_TRUE(client_got_nothing(&self->a));
	fake_hang_up(self->a.conn);
}

/* On an open connection, unless it begins with CONNECT. */
TEST_F(plain, malformed_packets_end_the_connection)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(malformed); i++) {
		char list[256], *save = NULL;

		snprintf(list, sizeof(list), "%s", malformed[i]);
		for (char *hex = strtok_r(list, " ", &save); hex;
		     hex = strtok_r(NULL, " ", &save)) {
			check_malformed(self, hex);
			n++;
		}
	}
	ASSERT_GT(n, 70);
	ASSERT_EQ(fake_stats(self->fake).connections, 0);
}

/* Each cut short at each byte: nothing happens, and the connection still works or ends at hang-up.
 */
TEST_F(plain, packets_cut_short_wait)
{
	static const char packet[] = "3209000174"
				     "0001"
				     "68656c6c";

	ASSERT_TRUE(client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	for (size_t n = 2; n < sizeof(packet) - 1; n += 2) {
		char cut[sizeof(packet)];

		memcpy(cut, packet, n);
		cut[n] = '\0';
		client_init(&self->a, self->fake, "a");
		ASSERT_TRUE(client_up(&self->a));
		client_send_hex(&self->a, cut);
		fake_settle(self->fake);
		ASSERT_FALSE(client_closed(&self->a));
		fake_hang_up(self->a.conn);
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_nothing(&self->a) && client_got_nothing(&self->b));
	}
}

TEST_F(plain, other_protocol_levels_are_refused)
{
	static const char *const packets[] = {
		"100f00064d514973647003020000000161", /* MQTT 3.1 */
		"100e00044d5154540502000000"
		"000161", /* MQTT 5 */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(packets); i++) {
		client_dial(&self->a);
		client_send_hex(&self->a, packets[i]);
		ASSERT_TRUE(client_got_connack(&self->a, false, 1)); /* [MQTT-3.1.2-2] */
		ASSERT_TRUE(client_closed(&self->a));
	}
}

/* What a well-formed packet of each type does to a connection that waits for CONNECT, and to an
 * open one. */
TEST_F(plain, every_packet_type_in_every_state)
{
	static const struct {
		const char *packet;
		bool before, after; /* is the connection still there afterwards? */
	} rows[] = {
		{ "100d00044d51545404020000000161", true, false }, /* [MQTT-3.1.0-2] */
		{ "20020000", false, false },			   /* CONNACK */
		{ "300400017478", false, true },		   /* PUBLISH */
		{ "3206000174000178", false, true },
		{ "3406000174000178", false, true },
		{ "40020001", false, true }, /* PUBACK of nothing, PUBREC, PUBREL, PUBCOMP */
		{ "50020001", false, true },
		{ "62020001", false, true },
		{ "70020001", false, true },
		{ "8206000100017401", false, true }, /* SUBSCRIBE */
		{ "9003000100", false, false },
		{ "a2050001000174", false, true }, /* UNSUBSCRIBE */
		{ "b0020001", false, false },
		{ "c000", false, true }, /* PINGREQ */
		{ "d000", false, false },
		{ "e000", false, false }, /* DISCONNECT */
		{ "f000", false, false },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		client_dial(&self->b);
		client_send_hex(&self->b, rows[i].packet);
		fake_settle(self->fake);
		EXPECT_EQ(!client_closed(&self->b), rows[i].before); /* [MQTT-3.1.0-1] */
		fake_hang_up(self->b.conn);
		client_init(&self->a, self->fake, "a");
		ASSERT_TRUE(client_up(&self->a));
		client_send_hex(&self->a, rows[i].packet);
		fake_settle(self->fake);
		EXPECT_EQ(!client_closed(&self->a), rows[i].after);
		fake_hang_up(self->a.conn);
	}
}

static const char script[] = "1010"
			     "00044d515454"
			     "04"
			     "02"
			     "0000"
			     "0004"
			     "63757473" /* CONNECT */
			     "820e"
			     "0001"
			     "0001"
			     "74"
			     "01"
			     "0005"
			     "752f2b2f23"
			     "00" /* SUBSCRIBE */
			     "3206"
			     "0001"
			     "74"
			     "0007"
			     "78" /* PUBLISH t at QoS 1 */
			     "3009"
			     "0005"
			     "752f612f62"
			     "7879"	/* PUBLISH u/a/b at QoS 0 */
			     "c000"	/* PINGREQ */
			     "40020005" /* PUBACK of nothing */
			     "a209"
			     "0002"
			     "0005"
			     "752f2b2f23" /* UNSUBSCRIBE u/+/# */
			     "3009"
			     "0005"
			     "752f612f62"
			     "7879" /* nobody's any more */
			     "3206"
			     "0001"
			     "74"
			     "0008"
			     "79";

/* What the broker says to the script when it comes in pieces of this size behind a first cut. */
static void run_script(struct fixture_plain *self, size_t cut, size_t piece,
		       struct bytes_writer *out)
{
	uint8_t bytes[(sizeof(script) - 1) / 2];
	struct fake_conn *c = fake_open(self->fake);

	ASSERT_EQ(text_unhex(bytes_str(script), bytes, sizeof(bytes)), 0);
	if (cut)
		fake_input(c, bytes_of(bytes, cut));
	for (size_t at = cut, n; at < sizeof(bytes); at += n) {
		n = piece < sizeof(bytes) - at ? piece : sizeof(bytes) - at;
		fake_input(c, bytes_of(bytes + at, n));
	}
	fake_settle(self->fake);
	ASSERT_FALSE(c->closed);
	bytes_write(out, bytes_of(c->out, c->out_n));
	ASSERT_FALSE(out->bad);
	fake_hang_up(c);
}

TEST_F(plain, input_may_be_cut_anywhere)
{
	size_t n = (sizeof(script) - 1) / 2;
	uint8_t whole_out[256], cut_out[256];
	struct bytes_writer whole = bytes_writer_of(whole_out, sizeof(whole_out)), w;

	run_script(self, 0, n, &whole);
	/* CONNACK, SUBACK, PUBACK, PINGRESP, UNSUBACK, PUBACK, and three deliveries */
	ASSERT_EQ(whole.used, 4 + 6 + 4 + 2 + 4 + 4 + 8 + 11 + 8);
	for (size_t cut = 0; cut < n; cut++) {
		for (size_t piece = 1; piece < n; piece++) {
			w = bytes_writer_of(cut_out, sizeof(cut_out));
			run_script(self, cut, piece, &w);
			ASSERT_EQ(w.used, whole.used);
			ASSERT_BYTES(cut_out, whole_out, whole.used);
		}
	}
}

TEST_F(plain, packet_size_limit)
{
	/* topic "t" and QoS 0: 3 bytes of head; 2 of fixed header up to 127, 3 from 128 on */
	char text[201];

	self->config.limits.packet_bytes_max = 200;
	restart(self);
	memset(text, 'x', sizeof(text));
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 0), 0);
	text[194] = '\0'; /* 3 + 3 + 194 */
	client_publish_text(&self->a, "t", text, 0, false);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_text(&self->b, "t", text, 0, NULL));
	client_send_hex(&self->a, "30c601"); /* 198 to come, 201 in all: its head is enough */
	ASSERT_TRUE(client_closed(&self->a));
}

/* A header promises much: memory follows what arrives, not what is promised. */
TEST_F(plain, promised_bytes_cost_nothing)
{
	self->config.limits.packet_bytes_max = MQTT_PACKET_BYTES_MAX;
	restart(self);
	for (unsigned i = 0; i < 1000; i++) {
		client_dial(&self->a);
		client_send_hex(&self->a, "10b8f90900044d5154540402"); /* 163,000 bytes */
		ASSERT_FALSE(client_closed(&self->a));
	}
	ASSERT_LT(broker_mallocs(self->fake->engine), 5000);
}

TEST_F(plain, subscribe_of_many_filters)
{
	uint8_t packet[1024];
	struct bytes_writer w;
	struct mqtt_subscribe s = { .packet_id = 7, .n = MQTT_FILTERS_MAX };
	struct mqtt_frame f;
	struct bytes codes;
	uint16_t id;

	for (unsigned i = 0; i < s.n; i++)
		s.list[i] = (struct mqtt_subscription){ bytes_str("abc"), (uint8_t)(i % 3) };
	w = bytes_writer_of(packet, sizeof(packet));
	mqtt_encode_subscribe(&s, &w);
	ASSERT_TRUE(client_up(&self->a));
	client_send(&self->a, bytes_of(packet, w.used));
	fake_settle(self->fake);
	ASSERT_TRUE(fake_next_packet(self->a.conn, &f));
	ASSERT_EQ(mqtt_decode_suback(f.body, &id, &codes), MQTT_OK);
	ASSERT_EQ(id, 7);
	ASSERT_EQ(codes.n, s.n);
	for (unsigned i = 0; i < s.n; i++)
		ASSERT_EQ(codes.p[i], i % 3);
}

/* --- upkeep ----------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__)
#define POOL_KEEPS false /* pool.h: then every block is malloc's own */
#else
#define POOL_KEEPS true
#endif

TEST_F(plain, warm_broker_does_not_allocate)
{
	uint64_t mallocs;

	if (!POOL_KEEPS)
		SKIP("the pool keeps nothing under the address sanitizer");
	ASSERT_TRUE(client_up(&self->a) && client_up(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 1), 1);
	publish_numbers(&self->a, 0, 100, 1);
	ASSERT_TRUE(takes_numbers(&self->b, 0, 100, false));
	mallocs = broker_mallocs(self->fake->engine);
	for (unsigned i = 0; i < 100; i++) {
		publish_numbers(&self->a, 0, 100, i % 2);
		ASSERT_TRUE(takes_numbers(&self->b, 0, 100, false));
	}
	ASSERT_EQ(broker_mallocs(self->fake->engine), mallocs);
}

/* An owner that only looks at broker_wait_ms() misses nothing. */
TEST_F(plain, wait_is_never_too_long)
{
	uint64_t waited = 0, wait;

	self->a.keepalive_s = 2;
	ASSERT_EQ(broker_wait_ms(self->fake->engine), UINT64_MAX);
	ASSERT_TRUE(client_up(&self->a));
	fake_settle(self->fake);
	while (!client_closed(&self->a)) {
		wait = broker_wait_ms(self->fake->engine);
		ASSERT_LE(wait, 3100);
		waited += wait;
		self->fake->mono_ms += wait;
		fake_turn(self->fake);
		ASSERT_LE(waited, 3100);
	}
	ASSERT_GE(waited, 3000);
	ASSERT_EQ(broker_wait_ms(self->fake->engine), UINT64_MAX);
}
