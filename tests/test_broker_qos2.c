// SPDX-License-Identifier: MIT
/*
 * QoS 2 through the engine (MQTT 3.1.1 4.3.3, 4.4, 4.6): each way, plain and sealed, with the
 * connection lost behind each packet, and a random walk whose model counts to one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/fake_check.h"
#include "tests/fake_client.h"
#include "tests/harness.h"
#include "userspace/broker/delivery.h"
#include "userspace/broker/incoming.h"
#include "userspace/broker/outgoing.h"

HARNESS_MAIN

#define TOPIC "site/1/temp"

static unsigned pick(unsigned n)
{
	return (unsigned)(harness_random() % n);
}

/* --- a client's part -------------------------------------------------------------------------- */

/* The broker has our message: PUBREC came, and this is the rest. */
static bool releases(struct fake_client *c, uint16_t id)
{
	fake_settle(c->fake);
	if (!client_got_ack(c, MQTT_PUBREC, id))
		return false;
	client_send_ack(c, MQTT_PUBREL, id);
	fake_settle(c->fake);
	return client_got_ack(c, MQTT_PUBCOMP, id);
}

/* We have the broker's message: what is left to be said of it. */
static bool completes(struct fake_client *c, uint16_t id)
{
	client_send_ack(c, MQTT_PUBREC, id);
	fake_settle(c->fake);
	if (!client_got_ack(c, MQTT_PUBREL, id))
		return false;
	client_send_ack(c, MQTT_PUBCOMP, id);
	fake_settle(c->fake);
	return true;
}

/* A plain message of QoS 2 under an id of the test's own. */
static void publish_as(struct fake_client *c, uint16_t id, const char *text, bool dup)
{
	struct mqtt_publish p = {
		.qos = 2,
		.dup = dup,
		.packet_id = id,
		.topic = bytes_str("t"),
		.payload = bytes_str(text),
	};

	client_send_publish(c, &p);
	fake_settle(c->fake);
}

static void publish_numbers(struct fake_client *c, unsigned from, unsigned n, uint8_t qos)
{
	char text[16];

	for (unsigned i = from; i < from + n; i++) {
		snprintf(text, sizeof(text), "%u", i);
		client_publish_text(c, "t", text, qos, false);
	}
	fake_settle(c->fake);
}

/* The next packet is this message at QoS 2, with DUP or not. */
static bool got(struct fake_client *c, const char *text, bool dup, uint16_t *ret_id)
{
	struct mqtt_publish p;

	if (!client_got_publish(c, &p))
		return false;
	if (!bytes_equal(p.payload, bytes_str(text)) || p.dup != dup || p.qos != 2) {
		harness_note("%s: got %.*s (QoS %d, DUP %d), not %s", c->id, (int)p.payload.n,
			     p.payload.p, p.qos, p.dup, text);
		return false;
	}
	*ret_id = p.packet_id;
	return true;
}

static bool got_number(struct fake_client *c, unsigned i, bool dup, uint16_t *ret_id)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", i);
	return got(c, text, dup, ret_id);
}

static bool takes_numbers(struct fake_client *c, unsigned from, unsigned n)
{
	uint16_t id;

	for (unsigned i = from; i < from + n; i++)
		if (!got_number(c, i, false, &id) || !completes(c, id))
			return false;
	return true;
}

static bool reconnects(struct fake_client *c)
{
	bool back;

	if (c->conn->engine)
		fake_hang_up(c->conn);
	back = client_resumes(c, true);
	fake_settle(c->fake);
	return back;
}

/* --- plain ------------------------------------------------------------------------------------ */

/* a publishes to "t", b is subscribed to it at QoS 2 in a session that is kept. */
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
	ASSERT_TRUE(client_up_persistent(&self->a) && client_up_persistent(&self->b));
	ASSERT_EQ(client_subscribe(&self->b, "t", 2), 2);
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

/* The lower of the two it is; and each is acknowledged in its own way. */
TEST_F(plain, qos_of_publish_and_subscription)
{
	for (uint8_t published = 0; published <= 2; published++) {
		for (uint8_t subscribed = 0; subscribed <= 2; subscribed++) {
			uint8_t qos = published < subscribed ? published : subscribed;
			uint16_t id;

			ASSERT_EQ(client_subscribe(&self->b, "t", subscribed), subscribed);
			id = client_publish_text(&self->a, "t", "x", published, false);
			fake_settle(self->fake);
			if (published == 1)
				ASSERT_TRUE(client_got_ack(&self->a, MQTT_PUBACK, id));
			if (published == 2)
				ASSERT_TRUE(releases(&self->a, id));
			ASSERT_TRUE(client_got_text(&self->b, "t", "x", qos, &id));
			ASSERT_EQ(id != 0, qos != 0);
			if (qos == 1)
				client_send_ack(&self->b, MQTT_PUBACK, id);
			if (qos == 2)
				ASSERT_TRUE(completes(&self->b, id));
		}
	}
	ASSERT_TRUE(client_got_nothing(&self->a) && client_got_nothing(&self->b));
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

/* [MQTT-4.3.3-2]: until PUBREL the same id is the same message, DUP or not; then it is another. */
TEST_F(plain, an_id_means_one_message_until_pubrel)
{
	uint16_t id;

	publish_as(&self->a, 7, "one", false);
	ASSERT_TRUE(client_got_ack(&self->a, MQTT_PUBREC, 7));
	publish_as(&self->a, 7, "one", true);
	ASSERT_TRUE(client_got_ack(&self->a, MQTT_PUBREC, 7));
	publish_as(&self->a, 7, "one", false);
	ASSERT_TRUE(got(&self->b, "one", false, &id) && completes(&self->b, id));
	ASSERT_TRUE(client_got_nothing(&self->b));
	ASSERT_EQ(fake_stats(self->fake).replayed, 2);
	ASSERT_TRUE(releases(&self->a, 7));
	publish_as(&self->a, 7, "two", true); /* DUP says nothing about what we have seen */
	ASSERT_TRUE(got(&self->b, "two", false, &id) && completes(&self->b, id));
	/* At QoS 1 it never meant that. */
	client_send_hex(&self->a, "320600017400077a");
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_text(&self->b, "t", "z", 1, &id));
}

/* The sender's connection is lost at each point, and it sends again what 4.4 tells it to. */
TEST_F(plain, sender_lost_at_each_point)
{
	enum { PUBLISH_SENT, PUBREC_READ, PUBREL_SENT, PUBCOMP_READ, POINTS };
	char text[16];
	uint16_t id;

	for (unsigned point = PUBLISH_SENT; point < POINTS; point++) {
		snprintf(text, sizeof(text), "%u", point);
		publish_as(&self->a, 7, text, false);
		if (point >= PUBREC_READ)
			ASSERT_TRUE(client_got_ack(&self->a, MQTT_PUBREC, 7));
		if (point >= PUBREL_SENT)
			client_send_ack(&self->a, MQTT_PUBREL, 7);
		if (point >= PUBCOMP_READ)
			ASSERT_TRUE(client_got_ack(&self->a, MQTT_PUBCOMP, 7));
		ASSERT_TRUE(reconnects(&self->a));
		if (point == PUBLISH_SENT) {
			publish_as(&self->a, 7, text, true);
			ASSERT_TRUE(client_got_ack(&self->a, MQTT_PUBREC, 7));
		}
		if (point != PUBCOMP_READ) {
			client_send_ack(&self->a, MQTT_PUBREL, 7);
			ASSERT_TRUE(client_got_ack(&self->a, MQTT_PUBCOMP, 7));
		}
		ASSERT_TRUE(got(&self->b, text, false, &id) && completes(&self->b, id));
		ASSERT_TRUE(client_got_nothing(&self->a) && client_got_nothing(&self->b));
	}
}

/* A PUBLISH of which a part came is none. */
TEST_F(plain, sender_lost_within_its_packet)
{
	static const char packet[] = "340600017400076f";
	uint16_t id;

	for (size_t n = 2; n < sizeof(packet) - 1; n += 2) {
		char cut[sizeof(packet)];

		memcpy(cut, packet, n);
		cut[n] = '\0';
		client_send_hex(&self->a, cut);
		ASSERT_TRUE(reconnects(&self->a));
		ASSERT_TRUE(client_got_nothing(&self->b));
	}
	client_send_hex(&self->a, packet);
	fake_settle(self->fake);
	ASSERT_TRUE(got(&self->b, "o", false, &id));
}

/* What is remembered of a client's ids outlives takeovers, and ends with its session. */
TEST_F(plain, ids_end_with_the_session)
{
	uint16_t id;

	publish_as(&self->a, 7, "one", false);
	ASSERT_TRUE(got(&self->b, "one", false, &id) && completes(&self->b, id));
	client_dial(&self->a);
	client_send_connect(&self->a);
	ASSERT_TRUE(client_got_connack(&self->a, true, 0));
	publish_as(&self->a, 7, "one", true);
	ASSERT_TRUE(client_got_ack(&self->a, MQTT_PUBREC, 7));
	ASSERT_TRUE(client_got_nothing(&self->b));
	fake_hang_up(self->a.conn);
	ASSERT_TRUE(client_up_clean(&self->a));
	publish_as(&self->a, 7, "two", false);
	ASSERT_TRUE(got(&self->b, "two", false, &id) && completes(&self->b, id));
	fake_hang_up(self->a.conn);
	ASSERT_TRUE(client_up_clean(&self->a));
	publish_as(&self->a, 7, "three", false);
	ASSERT_TRUE(got(&self->b, "three", false, &id) && completes(&self->b, id));
}

/* All ids that there are, and none of them released until the end. */
TEST_F(plain, every_id_unreleased)
{
	unsigned step = 65535 / harness_rounds(65535) | 1;

	ASSERT_EQ(client_subscribe(&self->b, "t", 0), 0);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 1; i <= 65535; i += step) {
			struct mqtt_publish p = { .qos = 2,
						  .packet_id = (uint16_t)i,
						  .topic = bytes_str("t") };

			client_send_publish(&self->a, &p);
			ASSERT_TRUE(client_got_ack(&self->a, MQTT_PUBREC, (uint16_t)i));
		}
		ASSERT_TRUE(reconnects(&self->a));
	}
	ASSERT_EQ(fake_stats(self->fake).accepted, fake_stats(self->fake).replayed);
	for (unsigned i = 1; i <= 65535; i += step) {
		client_send_ack(&self->a, MQTT_PUBREL, (uint16_t)i);
		ASSERT_TRUE(client_got_ack(&self->a, MQTT_PUBCOMP, (uint16_t)i));
	}
	publish_as(&self->a, 1, "", true);
	ASSERT_EQ(fake_stats(self->fake).accepted, fake_stats(self->fake).replayed + 1);
}

/* [MQTT-4.4.0-1]. The receiver's connection is lost at each point. */
TEST_F(plain, receiver_lost_at_each_point)
{
	enum { PUBLISH_READ, PUBREC_SENT, PUBREL_READ, PUBCOMP_SENT, POINTS };
	uint16_t id, again;

	for (unsigned point = PUBLISH_READ; point < POINTS; point++) {
		publish_numbers(&self->a, point, 1, 2);
		ASSERT_TRUE(got_number(&self->b, point, false, &id));
		if (point >= PUBREC_SENT)
			client_send_ack(&self->b, MQTT_PUBREC, id);
		if (point >= PUBREL_READ)
			ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, id));
		if (point >= PUBCOMP_SENT)
			client_send_ack(&self->b, MQTT_PUBCOMP, id);
		for (unsigned i = 0; i < 3; i++) { /* and over and over */
			ASSERT_TRUE(reconnects(&self->b));
			if (point == PUBLISH_READ) {
				ASSERT_TRUE(got_number(&self->b, point, true, &again));
				ASSERT_EQ(again, id);
			} else if (point < PUBCOMP_SENT) {
				ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, id));
			}
			ASSERT_TRUE(client_got_nothing(&self->b));
		}
		if (point == PUBLISH_READ) {
			ASSERT_TRUE(completes(&self->b, id));
		} else if (point < PUBCOMP_SENT) {
			client_send_ack(&self->b, MQTT_PUBCOMP, id);
		}
	}
	ASSERT_TRUE(reconnects(&self->b));
	ASSERT_TRUE(client_got_nothing(&self->b));
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

/* A client that says it has a message before it was sent again does not get it again. */
TEST_F(plain, pubrec_before_the_message_is_sent_again)
{
	uint16_t ids[2], id;

	self->config.limits.inflight_max = 1;
	restart(self);
	publish_numbers(&self->a, 0, 2, 2);
	ASSERT_TRUE(got_number(&self->b, 0, false, &ids[0]));
	fake_hang_up(self->b.conn);
	client_dial(&self->b);
	client_send_connect(&self->b);
	client_send_ack(&self->b, MQTT_PUBREC, ids[0]); /* no turn yet: nothing was sent */
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_connack(&self->b, true, 0));
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, ids[0]));
	ASSERT_TRUE(client_got_nothing(&self->b)); /* the window is still taken */
	client_send_ack(&self->b, MQTT_PUBCOMP, ids[0]);
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->b, 1, false, &id) && completes(&self->b, id));
	ASSERT_TRUE(client_got_nothing(&self->b));
}

TEST_F(plain, answers_to_ids_that_are_not_in_use)
{
	uint16_t id;

	client_send_ack(&self->b, MQTT_PUBREC, 9); /* a client may be stuck with one */
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, 9));
	client_send_ack(&self->b, MQTT_PUBCOMP, 9);
	client_send_ack(&self->b, MQTT_PUBREL, 9);
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBCOMP, 9));
	client_send_ack(&self->b, MQTT_PUBACK, 9);
	/* PUBREC twice, and what else does not fit the state that an id is in. */
	publish_numbers(&self->a, 0, 1, 2);
	ASSERT_TRUE(got_number(&self->b, 0, false, &id));
	client_send_ack(&self->b, MQTT_PUBCOMP, id);
	client_send_ack(&self->b, MQTT_PUBREL, id);
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBCOMP, id));
	ASSERT_EQ(fake_stats(self->fake).queued, 1);
	ASSERT_TRUE(completes(&self->b, id));
	publish_numbers(&self->a, 1, 1, 2);
	ASSERT_TRUE(got_number(&self->b, 1, false, &id));
	client_send_ack(&self->b, MQTT_PUBREC, id);
	client_send_ack(&self->b, MQTT_PUBREC, id);
	client_send_ack(&self->b, MQTT_PUBACK, id);
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, id));
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, id));
	client_send_ack(&self->b, MQTT_PUBCOMP, id);
	client_send_ack(&self->b, MQTT_PUBCOMP, id);
	ASSERT_FALSE(client_closed(&self->b));
	ASSERT_TRUE(client_got_nothing(&self->b));
	ASSERT_EQ(fake_stats(self->fake).acknowledged, 2);
}

TEST_F(plain, acknowledged_as_another_qos)
{
	uint16_t id;

	publish_numbers(&self->a, 0, 1, 2);
	ASSERT_TRUE(got_number(&self->b, 0, false, &id));
	client_send_ack(&self->b, MQTT_PUBACK, id);
	ASSERT_TRUE(client_closed(&self->b));
	ASSERT_TRUE(reconnects(&self->b));
	ASSERT_TRUE(got_number(&self->b, 0, true, &id) && completes(&self->b, id));
	publish_numbers(&self->a, 1, 1, 1);
	ASSERT_TRUE(client_got_text(&self->b, "t", "1", 1, &id));
	client_send_ack(&self->b, MQTT_PUBREC, id);
	ASSERT_TRUE(client_closed(&self->b));
	ASSERT_TRUE(client_got_nothing(&self->b));
}

/* What is to be completed takes room in the window like what is to be acknowledged. */
TEST_F(plain, in_flight_window)
{
	uint16_t ids[4], id;

	self->config.limits.inflight_max = 4;
	restart(self);
	publish_numbers(&self->a, 0, 10, 2);
	for (unsigned i = 0; i < 4; i++)
		ASSERT_TRUE(got_number(&self->b, i, false, &ids[i]));
	ASSERT_TRUE(client_got_nothing(&self->b));
	for (unsigned i = 0; i < 4; i++) {
		client_send_ack(&self->b, MQTT_PUBREC, ids[i]);
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, ids[i]));
	}
	ASSERT_TRUE(client_got_nothing(&self->b));
	ASSERT_EQ(fake_stats(self->fake).queued, 6); /* of what was received nothing is kept */
	client_send_ack(&self->b, MQTT_PUBCOMP, ids[2]);
	fake_settle(self->fake);
	ASSERT_TRUE(got_number(&self->b, 4, false, &id));
	ASSERT_TRUE(client_got_nothing(&self->b));
	/* It holds over a reconnect. */
	ASSERT_TRUE(reconnects(&self->b));
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, ids[0]));
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, ids[1]));
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, ids[3]));
	ASSERT_TRUE(got_number(&self->b, 4, true, &id) && completes(&self->b, id));
	ASSERT_TRUE(takes_numbers(&self->b, 5, 5));
}

/* [MQTT-4.6.0-4]: PUBRELs go in the order of PUBRECs; again, too. [MQTT-4.6.0-1]: PUBLISHes in the
 * order in which they went first. */
TEST_F(plain, order_after_a_reconnect)
{
	static const unsigned received[] = { 4, 1, 5, 2 };
	uint16_t ids[7], id;

	publish_numbers(&self->a, 0, 7, 2);
	for (unsigned i = 0; i < 7; i++)
		ASSERT_TRUE(got_number(&self->b, i, false, &ids[i]));
	for (unsigned i = 0; i < ARRAY_SIZE(received); i++)
		client_send_ack(&self->b, MQTT_PUBREC, ids[received[i]]);
	client_send_ack(&self->b, MQTT_PUBCOMP, ids[1]);
	fake_hang_up(self->b.conn);
	publish_numbers(&self->a, 7, 1, 2);
	ASSERT_TRUE(client_resumes(&self->b, true));
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, ids[4]));
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, ids[5]));
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, ids[2]));
	for (unsigned i = 0; i < 7; i++) {
		if (i == 1 || i == 2 || i == 4 || i == 5)
			continue;
		ASSERT_TRUE(got_number(&self->b, i, true, &id));
		ASSERT_EQ(id, ids[i]);
	}
	ASSERT_TRUE(got_number(&self->b, 7, false, &id));
	ASSERT_TRUE(client_got_nothing(&self->b));
}

TEST_F(plain, order_over_mixed_qos)
{
	uint16_t ids[9];

	for (unsigned i = 0; i < 9; i++)
		publish_numbers(&self->a, i, 1, (uint8_t)(i % 3));
	for (unsigned i = 0; i < 9; i++) {
		char text[16];

		snprintf(text, sizeof(text), "%u", i);
		ASSERT_TRUE(client_got_text(&self->b, "t", text, (uint8_t)(i % 3), &ids[i]));
	}
	for (unsigned i = 2; i < 9; i += 3)
		ASSERT_TRUE(completes(&self->b, ids[i]));
	for (unsigned i = 1; i < 9; i += 3)
		client_send_ack(&self->b, MQTT_PUBACK, ids[i]);
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

/* With thousands in flight, in whatever order they are answered. */
TEST_F(plain, answers_in_any_order)
{
	enum { N = 3000 };
	static uint16_t ids[N];

	self->config.limits.inflight_max = 65535;
	self->config.limits.queue_high_water = 65535;
	restart(self);
	publish_numbers(&self->a, 0, N, 2);
	for (unsigned i = 0; i < N; i++)
		ASSERT_TRUE(got_number(&self->b, i, false, &ids[i]));
	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = N - 1; i; i--) {
			unsigned j = pick(i + 1);
			uint16_t id = ids[i];

			ids[i] = ids[j];
			ids[j] = id;
		}
		for (unsigned i = 0; i < N; i++)
			client_send_ack(&self->b, pass ? MQTT_PUBCOMP : MQTT_PUBREC, ids[i]);
		for (unsigned i = 0; i < N && !pass; i++)
			ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, ids[i]));
	}
	ASSERT_TRUE(reconnects(&self->b));
	ASSERT_TRUE(client_got_nothing(&self->b));
	ASSERT_EQ(fake_stats(self->fake).acknowledged, N);
}

/* Ids go round, past one that waits for PUBCOMP all the time. */
TEST_F(plain, an_id_to_be_completed_is_not_given_again)
{
	uint16_t stuck, id;

	publish_numbers(&self->a, 0, 1, 2);
	ASSERT_TRUE(got_number(&self->b, 0, false, &stuck));
	client_send_ack(&self->b, MQTT_PUBREC, stuck);
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, stuck));
	for (unsigned i = 0; i < 66000; i++) {
		client_publish_text(&self->a, "t", "x", 1, false);
		fake_turn(self->fake);
		ASSERT_TRUE(client_got_text(&self->b, "t", "x", 1, &id));
		ASSERT_NE(id, stuck);
		ASSERT_NE(id, 0);
		client_send_ack(&self->b, MQTT_PUBACK, id);
	}
	ASSERT_TRUE(reconnects(&self->b));
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, stuck));
}

/* [MQTT-3.1.2-6] */
TEST_F(plain, clean_session_forgets_what_was_to_be_completed)
{
	uint16_t id;

	publish_numbers(&self->a, 0, 2, 2);
	ASSERT_TRUE(got_number(&self->b, 0, false, &id));
	client_send_ack(&self->b, MQTT_PUBREC, id);
	fake_hang_up(self->b.conn);
	self->b.clean = true;
	ASSERT_TRUE(client_resumes(&self->b, false));
	ASSERT_EQ(client_subscribe(&self->b, "t", 2), 2);
	ASSERT_TRUE(client_got_nothing(&self->b));
	publish_numbers(&self->a, 2, 1, 2);
	ASSERT_TRUE(takes_numbers(&self->b, 2, 1));
}

/* [MQTT-3.3.5-1]: one copy, with the highest QoS. */
TEST_F(plain, overlapping_subscriptions)
{
	uint16_t id;

	ASSERT_TRUE(client_up(&self->c));
	ASSERT_EQ(client_subscribe(&self->c, "+", 1), 1);
	ASSERT_EQ(client_subscribe(&self->c, "t", 2), 2);
	ASSERT_EQ(client_subscribe(&self->c, "#", 0), 0);
	publish_numbers(&self->a, 0, 1, 2);
	ASSERT_TRUE(takes_numbers(&self->b, 0, 1) && takes_numbers(&self->c, 0, 1));
	ASSERT_TRUE(client_got_nothing(&self->c));
	ASSERT_TRUE(client_unsubscribe(&self->c, "t"));
	publish_numbers(&self->a, 1, 1, 2);
	ASSERT_TRUE(client_got_text(&self->c, "t", "1", 1, &id));
	ASSERT_TRUE(client_got_nothing(&self->c));
}

TEST_F(plain, retained)
{
	struct mqtt_publish p;
	uint16_t id;

	id = client_publish_text(&self->a, "r", "kept", 2, true);
	ASSERT_TRUE(releases(&self->a, id));
	for (uint8_t qos = 0; qos <= 2; qos++) {
		ASSERT_EQ(client_subscribe(&self->b, "r", qos), qos);
		ASSERT_TRUE(client_got_publish(&self->b, &p));
		ASSERT_TRUE(p.retain && p.qos == qos && bytes_equal(p.payload, bytes_str("kept")));
	}
	ASSERT_TRUE(completes(&self->b, p.packet_id));
	/* Set once: the resent one would bring back what was replaced. */
	client_publish_text(&self->a, "r", "new", 2, true);
	client_publish_text(&self->a, "r", "newer", 1, true);
	p = (struct mqtt_publish){ .qos = 2,
				   .dup = true,
				   .retain = true,
				   .packet_id = (uint16_t)(self->a.packet_id - 1),
				   .topic = bytes_str("r"),
				   .payload = bytes_str("new") };
	client_send_publish(&self->a, &p);
	fake_settle(self->fake);
	ASSERT_TRUE(client_up(&self->c));
	ASSERT_EQ(client_subscribe(&self->c, "r", 2), 2);
	ASSERT_TRUE(client_got_text(&self->c, "r", "newer", 1, NULL));
}

TEST_F(plain, will)
{
	uint16_t id;

	self->c.has_will = true;
	self->c.will = (struct mqtt_will){ .topic = bytes_str("t"),
					   .payload = bytes_str("gone"),
					   .qos = 2 };
	ASSERT_TRUE(client_up(&self->c));
	fake_hang_up(self->c.conn);
	fake_settle(self->fake);
	ASSERT_TRUE(got(&self->b, "gone", false, &id) && completes(&self->b, id));
	ASSERT_TRUE(client_got_nothing(&self->b));
}

TEST_F(plain, queue_of_the_absent)
{
	uint16_t id;

	self->config.limits.queue_messages_max = 5;
	restart(self);
	publish_numbers(&self->a, 0, 1, 2);
	ASSERT_TRUE(got_number(&self->b, 0, false, &id));
	client_send_ack(&self->b, MQTT_PUBREC, id);
	fake_hang_up(self->b.conn);
	publish_numbers(&self->a, 1, 7, 2);
	ASSERT_EQ(fake_stats(self->fake).dropped_full, 2);
	ASSERT_TRUE(client_resumes(&self->b, true));
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, id));
	for (unsigned i = 1; i <= 5; i++) /* the oldest are kept */
		ASSERT_TRUE(got_number(&self->b, i, false, &id));
	ASSERT_TRUE(client_got_nothing(&self->b));
}

/* No room for all the PUBRELs: the connection ends, and nothing is forgotten. */
TEST_F(plain, output_full_of_pubrels)
{
	uint16_t ids[20];
	struct fake_conn *c;

	publish_numbers(&self->a, 0, 20, 2);
	for (unsigned i = 0; i < 20; i++)
		ASSERT_TRUE(got_number(&self->b, i, false, &ids[i]));
	for (unsigned i = 0; i < 20; i++)
		client_send_ack(&self->b, MQTT_PUBREC, ids[i]);
	fake_hang_up(self->b.conn);
	client_dial(&self->b);
	c = self->b.conn;
	c->stalled = true;
	c->out_max = 50;
	client_send_connect(&self->b);
	ASSERT_TRUE(client_closed(&self->b));
	ASSERT_TRUE(reconnects(&self->b));
	for (unsigned i = 0; i < 20; i++) {
		ASSERT_TRUE(client_got_ack(&self->b, MQTT_PUBREL, ids[i]));
		client_send_ack(&self->b, MQTT_PUBCOMP, ids[i]);
	}
	publish_numbers(&self->a, 20, 1, 2);
	ASSERT_TRUE(takes_numbers(&self->b, 20, 1));
}

#if !defined(__SANITIZE_ADDRESS__) /* under which every block is malloc's own: pool.h */
TEST_F(plain, warm_broker_does_not_allocate)
{
	uint64_t before = 0;
	uint16_t ids[10];

	for (unsigned i = 0; i < 200; i++) {
		if (i == 100)
			before = broker_mallocs(self->fake->engine);
		publish_numbers(&self->a, 0, 10, 2);
		for (unsigned j = 0; j < 10; j++)
			ASSERT_TRUE(got_number(&self->b, j, false, &ids[j]));
		for (unsigned j = 0; j < 10; j++)
			ASSERT_TRUE(completes(&self->b, ids[j]));
		for (unsigned j = 0; j < 10; j++)
			ASSERT_TRUE(
				client_got_ack(&self->a, MQTT_PUBREC, (uint16_t)(10 * i + j + 1)));
		for (unsigned j = 0; j < 10; j++) {
			client_send_ack(&self->a, MQTT_PUBREL, (uint16_t)(10 * i + j + 1));
			ASSERT_TRUE(
				client_got_ack(&self->a, MQTT_PUBCOMP, (uint16_t)(10 * i + j + 1)));
		}
	}
	ASSERT_EQ(broker_mallocs(self->fake->engine), before);
}
#endif

/* --- packet ids, against the plainest thing that could do it ---------------------------------- */

TEST(incoming_is_a_set)
{
	static bool in_it[65536];
	struct incoming *in = NULL;
	struct pool pool;
	unsigned n = 0;

	pool_init(&pool);
	for (unsigned i = 0; i < harness_rounds(200000); i++) {
		/* now all over, now close together; now more and more, now fewer */
		uint16_t id = (uint16_t)(1 + pick(i & 1024 ? 65535 : 300));

		ASSERT_EQ(incoming_has(in, id), in_it[id]);
		if (!in_it[id] && pick(i & 65536 ? 4 : 2) == 0) {
			ASSERT_TRUE(incoming_add(&pool, &in, id));
			in_it[id] = true;
			n++;
		} else if (pick(2)) {
			incoming_remove(&pool, &in, id);
			n -= in_it[id];
			in_it[id] = false;
		}
		ASSERT_EQ(in != NULL, n != 0);
		ASSERT_LE(pool.bytes_out, 10 << 10);
	}
	for (unsigned id = 1; id < 65536; id++) {
		ASSERT_EQ(incoming_has(in, (uint16_t)id), in_it[id]);
		incoming_remove(&pool, &in, (uint16_t)id);
	}
	ASSERT_TRUE(in == NULL);
	ASSERT_EQ(pool.bytes_out, 0);
	pool_deinit(&pool);
}

struct outgoing_model {
	struct outgoing o;
	struct delivery *delivery[65536];
	uint16_t releases[65536]; /* in order */
	unsigned n, n_releases;
};

static bool is_release(const struct outgoing_model *m, uint16_t id)
{
	for (unsigned i = 0; i < m->n_releases; i++)
		if (m->releases[i] == id)
			return true;
	return false;
}

static void model_drop(struct outgoing_model *m, uint16_t id)
{
	unsigned i = 0;

	outgoing_drop(&m->o, id);
	m->n--;
	if (m->delivery[id]) {
		m->delivery[id] = NULL;
		return;
	}
	while (m->releases[i] != id)
		i++;
	memmove(&m->releases[i], &m->releases[i + 1],
		(--m->n_releases - i) * sizeof(m->releases[0]));
}

static void model_step(struct outgoing_model *m, struct pool *pool, unsigned max)
{
	/* Nobody looks behind it here: any pointer is as good. */
	struct delivery *some = (struct delivery *)(void *)m;
	uint16_t id = (uint16_t)(m->o.id_last - pick(2 * max));

	if (m->n < max && pick(3)) {
		ASSERT_TRUE(outgoing_reserve(pool, &m->o, 1, m->n + pick(9)));
		id = outgoing_take(&m->o, some);
		ASSERT_TRUE(id && !m->delivery[id] && !is_release(m, id));
		m->delivery[id] = some;
		m->n++;
		return;
	}
	ASSERT_TRUE(outgoing_delivery(&m->o, id) == m->delivery[id]);
	ASSERT_EQ(outgoing_is_release(&m->o, id), is_release(m, id));
	if (m->delivery[id] && pick(2)) {
		outgoing_release(&m->o, id, NULL);
		m->delivery[id] = NULL;
		m->releases[m->n_releases++] = id;
	} else if (m->delivery[id] || is_release(m, id)) {
		model_drop(m, id);
	}
	outgoing_trim(pool, &m->o);
}

TEST(outgoing_gives_ids_and_finds_them)
{
	static struct outgoing_model m;
	struct pool pool;
	uint16_t id = 0;

	pool_init(&pool);
	for (unsigned i = 0; i < harness_rounds(300000); i++)
		model_step(&m, &pool, i & 16384 ? 200 : 5);
	ASSERT_EQ(m.o.n_releases, m.n_releases);
	for (unsigned i = 0; i < m.n_releases; i++) {
		id = outgoing_next_release(&m.o, id);
		ASSERT_EQ(id, m.releases[i]);
	}
	ASSERT_EQ(outgoing_next_release(&m.o, id), 0);
	for (unsigned i = 1; i < 65536; i++)
		if (outgoing_delivery(&m.o, (uint16_t)i) || outgoing_is_release(&m.o, (uint16_t)i))
			model_drop(&m, (uint16_t)i);
	ASSERT_EQ(m.n, 0);
	outgoing_deinit(&pool, &m.o);
	pool_deinit(&pool);
}

TEST(outgoing_can_use_every_id)
{
	static struct outgoing o;
	struct pool pool;

	pool_init(&pool);
	for (unsigned i = 0; i < 65535; i++) {
		ASSERT_TRUE(outgoing_reserve(&pool, &o, 1, 0));
		ASSERT_NE(outgoing_take(&o, (struct delivery *)(void *)&o), 0);
	}
	ASSERT_FALSE(outgoing_reserve(&pool, &o, 1, 0));
	outgoing_release(&o, 4711, NULL);
	ASSERT_FALSE(outgoing_reserve(&pool, &o, 1, 0));
	outgoing_drop(&o, 4711);
	ASSERT_TRUE(outgoing_reserve(&pool, &o, 1, 0));
	ASSERT_EQ(outgoing_take(&o, (struct delivery *)(void *)&o), 4711);
	outgoing_deinit(&pool, &o);
	pool_deinit(&pool);
}

/* The same through the engine: a client may owe the acknowledgements of as many messages as there
 * are ids, and get all of them again. */
/* Those of an earlier run meet in a slot until there is room for each; who has one keeps it. */
TEST(outgoing_takes_ids_of_an_earlier_run)
{
	static const uint16_t ids[] = { 1, 9, 17, 65535, 32767, 4096, 2 };
	struct delivery d[ARRAY_SIZE(ids)];
	struct outgoing o = { 0 };
	struct pool pool;

	pool_init(&pool);
	for (unsigned i = 0; i < ARRAY_SIZE(ids); i++)
		ASSERT_EQ(outgoing_restore(&pool, &o, ids[i], &d[i]), 0);
	ASSERT_EQ(outgoing_restore(&pool, &o, 17, &d[0]), -EEXIST);
	for (unsigned i = 0; i < ARRAY_SIZE(ids); i++)
		ASSERT_TRUE(outgoing_delivery(&o, ids[i]) == &d[i]);
	o.id_last = 65534;
	ASSERT_TRUE(outgoing_reserve(&pool, &o, 2, 2));
	ASSERT_EQ(outgoing_take(&o, &d[0]), 3);
	outgoing_release(&o, 9, NULL);
	ASSERT_TRUE(outgoing_is_release(&o, 9) && outgoing_next_release(&o, 0) == 9);
	outgoing_deinit(&pool, &o);
	pool_deinit(&pool);
}

TEST(every_id_is_out_and_sent_again)
{
	enum { IDS = 65535 };
	struct broker_config config;
	struct fake_broker *f;
	struct fake_client tx, rx;
	struct mqtt_publish p;
	uint16_t id = 0;

	fake_config(true, &config);
	config.limits.inflight_max = IDS;
	config.limits.queue_messages_max = 2 * IDS;
	f = fake_new_with(&config);
	client_init(&tx, f, "tx");
	client_init(&rx, f, "rx");
	ASSERT_TRUE(client_up(&tx) && client_up_persistent(&rx));
	ASSERT_EQ(client_subscribe(&rx, "t", 1), 1);
	for (unsigned i = 0; i < IDS + 1; i++)
		client_publish_text(&tx, "t", "x", 1, false);
	fake_settle(f);
	for (unsigned i = 0; i < IDS; i++)
		ASSERT_TRUE(client_got_publish(&rx, &p));
	ASSERT_TRUE(client_got_nothing(&rx));
	ASSERT_TRUE(client_up_persistent(&rx));
	fake_settle(f);
	for (unsigned i = 0; i < IDS; i++) {
		ASSERT_TRUE(client_got_publish(&rx, &p));
		ASSERT_TRUE(p.dup);
		id = p.packet_id;
	}
	ASSERT_TRUE(client_got_nothing(&rx));
	ASSERT_EQ(broker_wait_ms(f->engine) > 1000, true); /* it waits for the client alone */
	client_send_ack(&rx, MQTT_PUBACK, id);
	fake_settle(f);
	ASSERT_TRUE(client_got_publish(&rx, &p));
	ASSERT_TRUE(!p.dup && p.packet_id == id);
	client_deinit(&tx);
	client_deinit(&rx);
	fake_free(f);
}

/* --- sealed ----------------------------------------------------------------------------------- */

/* dev1 publishes; rx1 and rx2 (who gets proofs) are subscribed at QoS 2 in sessions that are kept.
 */
FIXTURE(sealed)
{
	struct world *world;
	struct fake_broker *fake;
	struct fake_client dev1, rx1, rx2;
};

FIXTURE_SETUP(sealed)
{
	self->world = world_new(NULL);
	self->fake = self->world->fake;
	client_init_party(&self->dev1, self->world, self->world->dev1);
	client_init_party(&self->rx1, self->world, self->world->rx1);
	client_init_party(&self->rx2, self->world, self->world->rx2);
	ASSERT_TRUE(client_up(&self->dev1));
	ASSERT_TRUE(client_up_persistent(&self->rx1) && client_up_persistent(&self->rx2));
	ASSERT_EQ(client_subscribe(&self->rx1, "#", 2), 2);
	ASSERT_EQ(client_subscribe(&self->rx2, "#", 2), 2);
}

FIXTURE_TEARDOWN(sealed)
{
	client_deinit(&self->dev1);
	client_deinit(&self->rx1);
	client_deinit(&self->rx2);
	world_free(self->world);
}

static uint16_t publish(struct fixture_sealed *self, const char *text)
{
	uint16_t id = client_publish(&self->dev1, self->world->temp, TOPIC, text, 2);

	fake_settle(self->fake);
	return id;
}

/* The next packet opens to text, and is of QoS 2. */
static bool got_sealed(struct fake_client *c, const char *text, bool dup, uint16_t *ret_id)
{
	struct fake_opened o;

	if (!client_got_sealed(c, text, &o))
		return false;
	*ret_id = o.publish.packet_id;
	return o.publish.qos == 2 && o.publish.dup == dup;
}

TEST_F(sealed, from_end_to_end)
{
	uint16_t id = publish(self, "21.5");

	ASSERT_TRUE(releases(&self->dev1, id));
	ASSERT_TRUE(got_sealed(&self->rx1, "21.5", false, &id) && completes(&self->rx1, id));
	ASSERT_TRUE(got_sealed(&self->rx2, "21.5", false, &id) && completes(&self->rx2, id));
	ASSERT_TRUE(client_got_nothing(&self->dev1) && client_got_nothing(&self->rx1));
	ASSERT_EQ(fake_stats(self->fake).queued, 0);
}

/* PROTOCOL 4: no PUBREC before its counter is stored; and in the order of the PUBLISHes, whatever
 * their QoS [MQTT-4.6.0-3]. Nor is it sent on at QoS 2 before its packet id is. */
TEST_F(sealed, pubrec_waits_for_the_commit)
{
	struct fake_opened o;
	uint16_t ids[3], id;

	ASSERT_EQ(client_subscribe(&self->rx2, "#", 1), 1);
	self->fake->hold_commit = true;
	for (unsigned i = 0; i < 3; i++)
		ids[i] = client_publish(&self->dev1, self->world->temp, TOPIC, "x", i == 1 ? 1 : 2);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_TRUE(client_got_sealed(&self->rx2, "x", &o)); /* routed first */
	self->fake->hold_commit = false;
	fake_settle(self->fake);
	ASSERT_TRUE(got_sealed(&self->rx1, "x", false, &id));
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBREC, ids[0]));
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, ids[1]));
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBREC, ids[2]));
}

/* Lost before it is verified, before it is committed, before PUBREC or PUBCOMP is read, or with the
 * whole broker: sent again, it is acknowledged, and reaches nobody twice. */
TEST_F(sealed, sender_lost_at_each_point)
{
	enum { UNVERIFIED, UNCOMMITTED, UNREAD, RELEASED, CRASHED, POINTS };
	struct fake_sealed s;
	uint16_t id;

	for (unsigned point = UNVERIFIED; point < POINTS; point++) {
		self->fake->hold_verify = point == UNVERIFIED;
		self->fake->hold_commit = point == UNCOMMITTED;
		client_seal(&self->dev1, self->world->temp, TOPIC, "x", 2, false, &s);
		client_send_publish(&self->dev1, &s.publish);
		fake_settle(self->fake);
		if (point == RELEASED)
			client_send_ack(&self->dev1, MQTT_PUBREL, s.publish.packet_id);
		if (point >= UNREAD)
			ASSERT_TRUE(got_sealed(&self->rx1, "x", false, &id) &&
				    completes(&self->rx1, id));
		fake_hang_up(self->dev1.conn);
		self->fake->hold_verify = self->fake->hold_commit = false;
		if (point == CRASHED) {
			world_restart(self->world);
			ASSERT_TRUE(client_resumes(&self->rx1, true));
			/* That it was completed was not yet stored. */
			ASSERT_TRUE(client_got_ack(&self->rx1, MQTT_PUBREL, id));
			client_send_ack(&self->rx1, MQTT_PUBCOMP, id);
		}
		fake_settle(self->fake);
		ASSERT_TRUE(client_up(&self->dev1));
		s.publish.dup = true;
		client_send_publish(&self->dev1, &s.publish);
		ASSERT_TRUE(releases(&self->dev1, s.publish.packet_id));
		if (point < UNREAD)
			ASSERT_TRUE(got_sealed(&self->rx1, "x", false, &id) &&
				    completes(&self->rx1, id));
		ASSERT_TRUE(client_got_nothing(&self->rx1));
	}
}

/* PROTOCOL 7: what is refused for good is acknowledged behind its error, as QoS 2 asks. */
TEST_F(sealed, refused_messages)
{
	struct fake_sealed s;

	client_seal(&self->dev1, self->world->cam, "cam/1", "x", 2, false, &s); /* not its scope */
	client_send_publish(&self->dev1, &s.publish);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_NOT_PERMITTED, s.counter));
	ASSERT_TRUE(releases(&self->dev1, s.publish.packet_id));
	client_seal(&self->dev1, self->world->temp, TOPIC, "x", 2, false, &s);
	s.publish.topic = bytes_str("site/2/temp"); /* bound to another topic */
	client_sign(&self->dev1, &s);
	client_send_publish(&self->dev1, &s.publish);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_MALFORMED, s.counter));
	ASSERT_TRUE(releases(&self->dev1, s.publish.packet_id));
	/* Signed as of QoS 1: the signature does not hold, so it is not acknowledged. */
	client_seal(&self->dev1, self->world->temp, TOPIC, "x", 1, false, &s);
	s.publish.qos = 2;
	client_send_publish(&self->dev1, &s.publish);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_BAD_SIGNATURE, s.counter));
	ASSERT_TRUE(client_got_nothing(&self->dev1) && client_got_nothing(&self->rx1));
}

/* What is the broker's own may come at QoS 2, too. */
TEST_F(sealed, response_and_nack)
{
	struct fake_client *c = &self->rx1;
	uint16_t id;

	client_dial(c);
	client_send_connect(c);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_connack(c, true, 0) && client_got_challenge(c));
	self->fake->hold_sign = true;
	client_send_response(c, 2);
	ASSERT_TRUE(releases(c, c->packet_id)); /* before the session is open */
	self->fake->hold_sign = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_result(c));
	client_send_signed(c, "$SSDTF/nack", bytes_str("short"), 2);
	id = c->packet_id;
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(c, CONTROL_MALFORMED, 0) && releases(c, id));
}

TEST_F(sealed, will)
{
	struct fake_client *c = &self->dev1;
	struct fake_sealed s;
	uint16_t id;

	fake_hang_up(c->conn);
	client_seal(c, self->world->temp, TOPIC, "gone", 2, false, &s);
	c->has_will = true;
	c->will = (struct mqtt_will){ .topic = s.publish.topic,
				      .payload = s.publish.payload,
				      .qos = 2 };
	ASSERT_TRUE(client_up(c));
	fake_hang_up(c->conn);
	fake_settle(self->fake);
	ASSERT_TRUE(got_sealed(&self->rx1, "gone", false, &id) && completes(&self->rx1, id));
	ASSERT_TRUE(got_sealed(&self->rx2, "gone", false, &id)); /* its proof is of QoS 2 */
}

/* The receiver's connection is lost at each stage of a delivery. */
TEST_F(sealed, receiver_lost_at_each_point)
{
	enum { CONVERTING, SIGNING, SENT, RECEIVED, COMPLETED, POINTS };
	struct fake_client *c = &self->rx1;
	uint16_t id = 0, again;

	fake_hang_up(self->rx2.conn);
	for (unsigned point = CONVERTING; point < POINTS; point++) {
		self->fake->hold_convert = point == CONVERTING;
		self->fake->hold_sign = point == SIGNING;
		client_new_context(&self->dev1, self->world->temp);
		publish(self, "x");
		if (point >= SENT)
			ASSERT_TRUE(got_sealed(c, "x", false, &id));
		if (point >= RECEIVED)
			client_send_ack(c, MQTT_PUBREC, id);
		if (point >= COMPLETED)
			client_send_ack(c, MQTT_PUBCOMP, id);
		fake_hang_up(c->conn);
		self->fake->hold_convert = self->fake->hold_sign = false;
		fake_settle(self->fake);
		ASSERT_TRUE(reconnects(c));
		if (point <= SENT) {
			ASSERT_TRUE(got_sealed(c, "x", point == SENT, &again));
			ASSERT_TRUE(point < SENT || again == id);
			ASSERT_TRUE(completes(c, again));
		}
		if (point == RECEIVED) {
			ASSERT_TRUE(client_got_ack(c, MQTT_PUBREL, id));
			client_send_ack(c, MQTT_PUBCOMP, id);
		}
		ASSERT_TRUE(client_got_nothing(c));
	}
	ASSERT_EQ(fake_stats(self->fake).queued, POINTS); /* rx2's */
}

/* The grant goes while a message waits for PUBCOMP: it is completed all the same. */
TEST_F(sealed, revoked_while_it_is_completed)
{
	struct fake_client *c = &self->rx1;
	uint16_t ids[2];

	publish(self, "0");
	publish(self, "1");
	ASSERT_TRUE(got_sealed(c, "0", false, &ids[0]) && got_sealed(c, "1", false, &ids[1]));
	client_send_ack(c, MQTT_PUBREC, ids[0]);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(c, MQTT_PUBREL, ids[0]));
	world_revoke(self->world, self->world->rx1_temp);
	world_apply(self->world);
	fake_settle(self->fake);
	ASSERT_TRUE(reconnects(c));
	ASSERT_TRUE(client_got_ack(c, MQTT_PUBREL, ids[0]));
	ASSERT_TRUE(client_got_nothing(c)); /* "1" is not sent again */
	client_send_ack(c, MQTT_PUBCOMP, ids[0]);
	ASSERT_TRUE(reconnects(c));
	ASSERT_TRUE(client_got_nothing(c));
}

/* A nack of what was received: sent again, as a message of its own. Before PUBREC it waits for
 * that, since under its first id the client would take it for the one that it could not open. */
TEST_F(sealed, nacks)
{
	struct fake_client *c = &self->rx1;
	struct mqtt_publish p;
	struct fake_opened o;
	uint16_t id, again;

	fake_hang_up(self->rx2.conn);
	for (unsigned received_first = 0; received_first < 2; received_first++) {
		self->fake->wrong_converts = 1;
		client_new_context(&self->dev1, self->world->temp);
		publish(self, "x");
		ASSERT_TRUE(client_got_publish(c, &p));
		ASSERT_FALSE(client_open(c, &p, &o));
		id = p.packet_id;
		if (received_first)
			ASSERT_TRUE(completes(c, id));
		client_send_nack(c, CONTROL_CANNOT_OPEN, self->dev1.counter, "dev1");
		fake_settle(self->fake);
		if (!received_first) {
			ASSERT_TRUE(client_got_nothing(c));
			client_send_nack(c, CONTROL_CANNOT_OPEN, self->dev1.counter, "dev1");
			fake_settle(self->fake); /* which changes nothing */
			client_send_ack(c, MQTT_PUBREC, id);
			fake_settle(self->fake);
			ASSERT_TRUE(client_got_ack(c, MQTT_PUBREL, id));
		}
		ASSERT_TRUE(got_sealed(c, "x", false, &again));
		ASSERT_NE(again, id);
		if (!received_first)
			client_send_ack(c, MQTT_PUBCOMP, id);
		ASSERT_TRUE(completes(c, again) && client_got_nothing(c));
	}
}

/* Converted again, it is the same: the sender's fault. Nothing is left of it, nor of the id that it
 * was to be sent under. */
TEST_F(sealed, nack_of_what_was_received_stands)
{
	struct fake_client *c = &self->rx1;
	uint16_t id;

	fake_hang_up(self->rx2.conn);
	publish(self, "x");
	ASSERT_TRUE(got_sealed(c, "x", false, &id) && completes(c, id));
	client_send_nack(c, CONTROL_CANNOT_OPEN, self->dev1.counter, "dev1");
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(c));
	ASSERT_EQ(fake_stats(self->fake).reports, 1);
	ASSERT_EQ(fake_stats(self->fake).queued, 1); /* rx2's */
	fake_pass(self->fake, 1000);
	ASSERT_EQ(fake_durable_queued(&self->fake->store.durable, "rx1"), 0);
}

/* The connection goes while a nack waits for its PUBREC: it is sent again under its id, converted
 * anew, as what is unacknowledged is. */
TEST_F(sealed, nack_and_reconnect)
{
	struct fake_client *c = &self->rx1;
	struct fake_opened o;
	uint16_t id, again;

	publish(self, "x");
	ASSERT_TRUE(got_sealed(c, "x", false, &id));
	client_send_nack(c, CONTROL_BAD_SIGNATURE, self->dev1.counter, "dev1");
	fake_settle(self->fake);
	ASSERT_TRUE(reconnects(c));
	ASSERT_TRUE(client_got_sealed(c, "x", &o) && o.publish.dup);
	again = o.publish.packet_id;
	ASSERT_EQ(again, id);
	ASSERT_TRUE(completes(c, id) && client_got_nothing(c));
	/* Nothing is left of the nack, which was another session's. */
	client_send_nack(c, CONTROL_BAD_SIGNATURE, self->dev1.counter, "dev1");
	fake_settle(self->fake);
	ASSERT_TRUE(got_sealed(c, "x", false, &again) && completes(c, again));
	ASSERT_EQ(fake_stats(self->fake).nacks, 2);
}

/* PUBREC of an earlier session's message may come before that is sent again: it then is not, and
 * what was converted behind it goes out. */
TEST_F(sealed, received_while_it_is_converted_again)
{
	struct fake_client *c = &self->rx1;
	uint16_t ids[2], again;

	fake_hang_up(self->rx2.conn);
	for (unsigned i = 0; i < 2; i++) {
		client_new_context(&self->dev1, self->world->temp);
		publish(self, i ? "1" : "0");
		ASSERT_TRUE(got_sealed(c, i ? "1" : "0", false, &ids[i]));
	}
	fake_hang_up(c->conn);
	/* Another grant of the same key: both are converted anew. */
	self->world->rx1_temp->gone = true;
	self->world->rx1_temp =
		world_add_grant(self->world, self->world->rx1, self->world->temp, 0);
	world_apply(self->world);
	self->fake->hold_convert = true;
	ASSERT_TRUE(client_up_persistent(c));
	fake_settle(self->fake);
	ASSERT_EQ(self->fake->n_token, 2);
	/* The second conversion is ready first. */
	self->fake->hold_convert = false;
	self->fake->in_order = true;
	struct broker_token_job *first = self->fake->token[0];
	self->fake->token[0] = self->fake->token[1];
	self->fake->token[1] = first;
	ASSERT_TRUE(fake_run_token(self->fake));
	self->fake->hold_convert = true;
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(c));
	client_send_ack(c, MQTT_PUBREC, ids[0]);
	fake_settle(self->fake);
	ASSERT_TRUE(got_sealed(c, "1", true, &again));
	ASSERT_EQ(again, ids[1]);
	ASSERT_TRUE(client_got_ack(c, MQTT_PUBREL, ids[0])); /* it waited for its commit */
	self->fake->hold_convert = false;
	ASSERT_TRUE(completes(c, again));
	client_send_ack(c, MQTT_PUBCOMP, ids[0]);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(c));
	ASSERT_EQ(fake_stats(self->fake).queued, 2); /* rx2's */
}

/* --- a random walk ---------------------------------------------------------------------------- */

/*
 * Plain senders and receivers whose sessions are kept hang up at any moment, with whatever was on
 * its way lost, and send again what 4.4 says. Each receiver then has each message once, and those
 * of a sender in their order, without a gap. So it is where the broker keeps sessions in storage
 * and crashes at any moment, with commits under way, done and not told, or failed.
 */
#define PARTIES	    2 /* of each kind */
#define UNDONE_MAX  8
#define WALK_STEPS  40000
#define ANSWERS_MAX 64

struct walk_sender {
	struct fake_client client;
	unsigned n; /* messages begun */
	/* Not completed, in order: those with PUBREC have only their id left. */
	struct {
		uint16_t id;
		unsigned number;
		bool received;
	} undone[UNDONE_MAX];
	unsigned n_undone;
};

struct walk_receiver {
	struct fake_client client;
	unsigned next[PARTIES]; /* of each sender */
	bool stored[65536];	/* ids between PUBLISH and PUBREL */
	/* Owed to the broker, in order, and lost with the connection. */
	struct {
		enum mqtt_type type;
		uint16_t id;
	} answers[ANSWERS_MAX];
	unsigned n_answers;
};

struct walk {
	struct fake_broker *fake;
	struct walk_sender senders[PARTIES];
	struct walk_receiver receivers[PARTIES];
	unsigned again, hang_ups, crashes;
};

static bool is_up(const struct fake_client *c)
{
	return c->conn && c->conn->engine;
}

static void send_number(struct walk *w, unsigned at, unsigned number, uint16_t id, bool dup)
{
	char text[32];
	struct mqtt_publish p = { .qos = 2,
				  .dup = dup,
				  .retain = number % 5 == 0,
				  .packet_id = id,
				  .topic = bytes_str("t") };

	snprintf(text, sizeof(text), "%u %u", at, number);
	p.payload = bytes_str(text);
	client_send_publish(&w->senders[at].client, &p);
}

static void sender_connects(struct walk *w, unsigned at)
{
	struct walk_sender *s = &w->senders[at];
	bool present = s->client.conn;

	client_dial(&s->client);
	client_send_connect(&s->client);
	ASSERT_TRUE(client_got_connack(&s->client, present, 0));
	for (unsigned i = 0; i < s->n_undone; i++) {
		w->again++;
		if (s->undone[i].received)
			client_send_ack(&s->client, MQTT_PUBREL, s->undone[i].id);
		else
			send_number(w, at, s->undone[i].number, s->undone[i].id, true);
	}
}

/* Ids of its own choice, among those that it does not use: few, so that they come again soon. */
static uint16_t free_id(const struct walk_sender *s)
{
	uint16_t id;
	unsigned i;

	do {
		id = (uint16_t)(1 + 5000 * pick(2 * UNDONE_MAX - 4));
		for (i = 0; i < s->n_undone && s->undone[i].id != id; i++)
			;
	} while (i < s->n_undone);
	return id;
}

static void sender_publishes(struct walk *w, unsigned at)
{
	struct walk_sender *s = &w->senders[at];

	if (s->n_undone == UNDONE_MAX)
		return;
	s->undone[s->n_undone].id = free_id(s);
	s->undone[s->n_undone].number = s->n++;
	s->undone[s->n_undone].received = false;
	s->n_undone++;
	send_number(w, at, s->n - 1, s->undone[s->n_undone - 1].id, false);
}

static bool sender_reads(struct walk_sender *s)
{
	struct mqtt_frame f;
	unsigned i = 0;
	uint16_t id;

	if (!fake_next_packet(s->client.conn, &f))
		return false;
	ASSERT_EQ(mqtt_decode_ack(f.body, &id), MQTT_OK);
	while (i < s->n_undone && s->undone[i].id != id)
		i++;
	if (mqtt_frame_type(&f) == MQTT_PUBREC) {
		ASSERT_LT(i, s->n_undone);
		s->undone[i].received = true;
		client_send_ack(&s->client, MQTT_PUBREL, id);
		return true;
	}
	ASSERT_EQ(mqtt_frame_type(&f), MQTT_PUBCOMP);
	ASSERT_TRUE(i < s->n_undone && s->undone[i].received);
	memmove(&s->undone[i], &s->undone[i + 1], (--s->n_undone - i) * sizeof(s->undone[0]));
	return true;
}

static void owe(struct walk_receiver *r, enum mqtt_type type, uint16_t id)
{
	ASSERT_LT(r->n_answers, ANSWERS_MAX);
	r->answers[r->n_answers].type = type;
	r->answers[r->n_answers++].id = id;
}

static void receiver_got_message(struct walk_receiver *r, const struct mqtt_publish *p)
{
	unsigned from, number;
	char text[32] = "";

	owe(r, MQTT_PUBREC, p->packet_id);
	if (r->stored[p->packet_id]) {
		ASSERT_TRUE(p->dup);
		return;
	}
	r->stored[p->packet_id] = true;
	memcpy(text, p->payload.p, p->payload.n);
	ASSERT_EQ(sscanf(text, "%u %u", &from, &number), 2);
	ASSERT_EQ(number, r->next[from]);
	r->next[from]++;
}

static bool receiver_reads(struct walk_receiver *r)
{
	struct mqtt_publish p;
	struct mqtt_frame f;
	uint16_t id;

	if (r->n_answers == ANSWERS_MAX || !fake_next_packet(r->client.conn, &f))
		return false;
	if (mqtt_frame_type(&f) == MQTT_PUBLISH) {
		ASSERT_EQ(mqtt_decode_publish(&f, &p), MQTT_OK);
		ASSERT_TRUE(p.qos == 2 && !p.retain);
		receiver_got_message(r, &p);
		return true;
	}
	ASSERT_EQ(mqtt_frame_type(&f), MQTT_PUBREL);
	ASSERT_EQ(mqtt_decode_ack(f.body, &id), MQTT_OK);
	r->stored[id] = false;
	owe(r, MQTT_PUBCOMP, id);
	return true;
}

/* In the order in which it owes them [MQTT-4.6.0-3]. */
static bool receiver_answers(struct walk_receiver *r)
{
	if (r->n_answers == 0)
		return false;
	client_send_ack(&r->client, r->answers[0].type, r->answers[0].id);
	memmove(&r->answers[0], &r->answers[1], --r->n_answers * sizeof(r->answers[0]));
	return true;
}

static void receiver_connects(struct walk_receiver *r)
{
	r->n_answers = 0;
	client_dial(&r->client);
	client_send_connect(&r->client);
	ASSERT_TRUE(client_got_connack(&r->client, true, 0));
}

static void sender_acts(struct walk *w, unsigned at)
{
	struct walk_sender *s = &w->senders[at];

	if (!is_up(&s->client) || pick(80) == 0) { /* the latter is a takeover */
		sender_connects(w, at);
	} else if (pick(40) == 0) {
		fake_hang_up(s->client.conn);
		w->hang_ups++;
	} else if (pick(2)) {
		sender_publishes(w, at);
	} else {
		sender_reads(s);
	}
}

static void receiver_acts(struct walk *w, struct walk_receiver *r)
{
	if (!is_up(&r->client) || pick(160) == 0) {
		receiver_connects(r);
	} else if (pick(40) == 0) {
		fake_hang_up(r->client.conn);
		w->hang_ups++;
	} else if (pick(8) == 0) {
		r->client.conn->stalled = !r->client.conn->stalled;
		if (!r->client.conn->stalled)
			fake_unstall(r->client.conn);
	} else if (pick(2)) {
		receiver_reads(r);
	} else {
		receiver_answers(r);
	}
}

/* What was sent before it may still arrive. */
static void crash(struct walk *w)
{
	w->crashes++;
	w->fake->late_crash = pick(2);
	fake_restart(w->fake);
	for (unsigned i = 0; i < PARTIES; i++) {
		while (pick(3) && sender_reads(&w->senders[i]))
			;
		while (pick(3) && receiver_reads(&w->receivers[i]))
			;
	}
}

static void storage_acts(struct walk *w)
{
	w->fake->mono_ms += pick(50);
	w->fake->commit_error = pick(8) ? 0 : -EIO;
	(void)fake_run_commit(w->fake); /* perhaps there is none */
	if (pick(60) == 0)
		crash(w);
}

static void walk_init(struct walk *w, bool durable)
{
	static const char *const ids[2][PARTIES] = { { "s0", "s1" }, { "r0", "r1" } };
	struct broker_config config;

	fake_config(true, &config);
	config.limits.inflight_max = 6;
	config.limits.output_bytes_soft = 60;
	config.limits.queue_messages_max = 1000000;
	config.durable = durable;
	w->fake = fake_new_with(&config);
	for (unsigned i = 0; i < PARTIES; i++) {
		client_init(&w->senders[i].client, w->fake, ids[0][i]);
		ASSERT_TRUE(client_up_persistent(&w->senders[i].client));
		client_init(&w->receivers[i].client, w->fake, ids[1][i]);
		ASSERT_TRUE(client_up_persistent(&w->receivers[i].client));
		ASSERT_EQ(client_subscribe(&w->receivers[i].client, "t", 2), 2);
	}
	fake_pass(w->fake, 1000);
}

/* Everybody is there, until nothing more is owed to anybody. */
static void come_to_rest(struct walk *w)
{
	bool some = true;

	w->fake->commit_error = 0;
	fake_pass(w->fake, 2000); /* the storage's retry */
	for (unsigned i = 0; i < PARTIES; i++) {
		if (!is_up(&w->senders[i].client))
			sender_connects(w, i);
		if (!is_up(&w->receivers[i].client))
			receiver_connects(&w->receivers[i]);
		fake_unstall(w->receivers[i].client.conn);
	}
	while (some) {
		some = false;
		fake_settle(w->fake);
		for (unsigned i = 0; i < PARTIES; i++) {
			struct walk_receiver *r = &w->receivers[i];

			while (sender_reads(&w->senders[i]) || receiver_reads(r) ||
			       receiver_answers(r))
				some = true;
		}
	}
}

static void random_walk(bool durable)
{
	struct walk *w = calloc(1, sizeof(*w));
	unsigned total = 0;

	if (!w)
		abort();
	walk_init(w, durable);
	for (unsigned i = 0; i < harness_rounds(WALK_STEPS); i++) {
		if (pick(2))
			sender_acts(w, pick(PARTIES));
		else
			receiver_acts(w, &w->receivers[pick(PARTIES)]);
		if (pick(3) == 0)
			fake_turn(w->fake);
		if (durable && pick(3) == 0)
			storage_acts(w);
		if (pick(10) == 0)
			fake_check(w->fake);
	}
	come_to_rest(w);
	for (unsigned i = 0; i < PARTIES; i++) {
		ASSERT_EQ(w->senders[i].n_undone, 0);
		total += w->senders[i].n;
		for (unsigned j = 0; j < PARTIES; j++)
			ASSERT_EQ(w->receivers[j].next[i], w->senders[i].n);
	}
	ASSERT_EQ(fake_stats(w->fake).queued, 0);
	if (!durable)
		ASSERT_EQ(fake_stats(w->fake).accepted, total);
	harness_note(
		"%u messages, %u sent again, %u known already; %u hang-ups, %u crashes; %u rows",
		total, w->again, (unsigned)fake_stats(w->fake).replayed, w->hang_ups, w->crashes,
		w->fake->store.durable.written);
	ASSERT_TRUE(durable || fake_stats(w->fake).replayed > 0);
	fake_pass(w->fake, 1000); /* what could wait */
	ASSERT_EQ(w->fake->store.durable.rows.n_deliveries +
			  w->fake->store.durable.rows.n_releases +
			  w->fake->store.durable.rows.n_incoming,
		  0);
	ASSERT_LE(w->fake->store.durable.rows.n_messages, 1); /* the one that is retained */
	fake_free(w->fake);
	free(w);
}

TEST_TIMEOUT(random_walk, 120)
{
	random_walk(false);
}

TEST_TIMEOUT(random_walk_with_crashes, 120)
{
	random_walk(true);
}
