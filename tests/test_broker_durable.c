// SPDX-License-Identifier: MIT
/*
 * Sessions and what is retained over the broker's death (durable.h): what comes back, what a client
 * is not told before it is stored, and what is never written. The walks of test_broker_walk and
 * test_broker_qos2 crash at any moment; here each rule stands alone.
 */
#include <errno.h>
#include <stdio.h>

#include "tests/fake_client.h"
#include "tests/harness.h"

HARNESS_MAIN

#define LAZY_MS 1000 /* longer than anything that can wait does */

/* --- plain ------------------------------------------------------------------------------------ */

FIXTURE(plain)
{
	struct fake_broker *fake;
	struct fake_client tx, rx, other;
};

FIXTURE_SETUP(plain)
{
	struct broker_config config;

	fake_config(true, &config);
	config.durable = true;
	self->fake = fake_new_with(&config);
	client_init(&self->tx, self->fake, "tx");
	client_init(&self->rx, self->fake, "rx");
	client_init(&self->other, self->fake, "other");
	ASSERT_TRUE(client_up(&self->tx) && client_up_persistent(&self->rx));
	ASSERT_EQ(client_subscribe(&self->rx, "t/#", 2), 2);
}

FIXTURE_TEARDOWN(plain)
{
	client_deinit(&self->tx);
	client_deinit(&self->rx);
	client_deinit(&self->other);
	fake_free(self->fake);
}

/* Publishes, and is acknowledged. */
static bool publish(struct fixture_plain *self, const char *topic, const char *text, uint8_t qos,
		    bool retain)
{
	uint16_t id = client_publish_text(&self->tx, topic, text, qos, retain);

	fake_settle(self->fake);
	if (qos && !client_got_ack(&self->tx, qos == 2 ? MQTT_PUBREC : MQTT_PUBACK, id))
		return false;
	if (qos < 2)
		return true;
	client_send_ack(&self->tx, MQTT_PUBREL, id);
	fake_settle(self->fake);
	return client_got_ack(&self->tx, MQTT_PUBCOMP, id);
}

static void crash(struct fixture_plain *self)
{
	fake_restart(self->fake);
	ASSERT_TRUE(client_up(&self->tx));
}

/* The next packet is this message, with or without DUP; *ret_id is its id. */
static bool got(struct fake_client *c, const char *text, uint8_t qos, bool dup, uint16_t *ret_id)
{
	struct mqtt_publish p;

	if (!client_got_publish(c, &p))
		return false;
	if (ret_id)
		*ret_id = p.packet_id;
	return p.qos == qos && p.dup == dup && bytes_equal(p.payload, bytes_str(text));
}

TEST_F(plain, queue_of_the_absent_comes_back_in_order)
{
	uint16_t id;

	fake_hang_up(self->rx.conn);
	ASSERT_TRUE(publish(self, "t/1", "a", 1, false));
	ASSERT_TRUE(publish(self, "t/2", "b", 2, false));
	ASSERT_TRUE(publish(self, "t/1", "c", 1, false));
	ASSERT_TRUE(publish(self, "t/1", "not kept", 0, false));
	for (unsigned i = 0; i < 2; i++) {
		crash(self);
		ASSERT_EQ(fake_stats(self->fake).queued, 3);
	}
	ASSERT_TRUE(client_resumes(&self->rx, true));
	fake_settle(self->fake);
	ASSERT_TRUE(got(&self->rx, "a", 1, true, &id));
	client_send_ack(&self->rx, MQTT_PUBACK, id);
	ASSERT_TRUE(got(&self->rx, "b", 2, true, NULL) && got(&self->rx, "c", 1, true, NULL));
	ASSERT_TRUE(client_got_nothing(&self->rx));
	/* And the subscription is there. */
	ASSERT_TRUE(publish(self, "t/3", "d", 1, false));
	ASSERT_TRUE(got(&self->rx, "d", 1, false, NULL));
	fake_pass(self->fake, LAZY_MS);
	ASSERT_EQ(fake_durable_queued(&self->fake->store.durable, "rx"), 3); /* "a" is gone */
}

TEST_F(plain, packet_ids_are_kept)
{
	uint16_t ids[3], id;

	ASSERT_TRUE(publish(self, "t", "0", 2, false) && publish(self, "t", "1", 2, false) &&
		    publish(self, "t", "2", 1, false));
	for (unsigned i = 0; i < 3; i++)
		ASSERT_TRUE(got(&self->rx, i ? i == 1 ? "1" : "2" : "0", i < 2 ? 2 : 1, false,
				&ids[i]));
	client_send_ack(&self->rx, MQTT_PUBREC, ids[0]);
	fake_pass(self->fake, LAZY_MS);
	ASSERT_TRUE(client_got_ack(&self->rx, MQTT_PUBREL, ids[0]));
	crash(self);
	ASSERT_TRUE(client_resumes(&self->rx, true));
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(&self->rx, MQTT_PUBREL, ids[0]));
	ASSERT_TRUE(got(&self->rx, "1", 2, true, &id) && id == ids[1]);
	ASSERT_TRUE(got(&self->rx, "2", 1, true, &id) && id == ids[2]);
	client_send_ack(&self->rx, MQTT_PUBCOMP, ids[0]);
	client_send_ack(&self->rx, MQTT_PUBREC, ids[1]);
	client_send_ack(&self->rx, MQTT_PUBACK, ids[2]);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(&self->rx, MQTT_PUBREL, ids[1]));
	client_send_ack(&self->rx, MQTT_PUBCOMP, ids[1]);
	fake_pass(self->fake, LAZY_MS);
	/* Nothing is left, and still no id is given again at once: the client may have it. */
	crash(self);
	ASSERT_TRUE(client_resumes(&self->rx, true));
	ASSERT_TRUE(publish(self, "t", "3", 2, false));
	ASSERT_TRUE(got(&self->rx, "3", 2, false, &id));
	for (unsigned i = 0; i < 2; i++)
		ASSERT_NE(id, ids[i]);
}

TEST_F(plain, nothing_is_said_before_it_is_stored)
{
	uint16_t id;

	ASSERT_TRUE(client_up_persistent(&self->other));
	self->fake->hold_commit = true;
	/* Of those that are to be kept: the acknowledgement to the sender, and QoS 2 to anybody. */
	id = client_publish_text(&self->tx, "t", "x", 2, false);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->tx) && client_got_nothing(&self->rx));
	self->fake->hold_commit = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(&self->tx, MQTT_PUBREC, id));
	ASSERT_TRUE(got(&self->rx, "x", 2, false, &id));
	/* PUBREL. */
	self->fake->hold_commit = true;
	client_send_ack(&self->rx, MQTT_PUBREC, id);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->rx));
	self->fake->hold_commit = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(&self->rx, MQTT_PUBREL, id));
	/* SUBACK (of which the helper says that it came), and its subscription in one commit. */
	self->fake->hold_commit = true;
	client_send_hex(&self->other, "820800070003742f2301");
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->other));
	self->fake->hold_commit = false;
	fake_settle(self->fake);
	ASSERT_FALSE(fake_silent(self->other.conn));
	ASSERT_EQ(self->fake->store.durable.rows.n_subscriptions, 2);
}

/* It has its packet id, which is being stored. Whoever guesses it has not received anything. */
TEST_F(plain, pubrec_before_it_is_sent)
{
	uint16_t id;

	self->fake->hold_commit = true;
	(void)client_publish_text(&self->tx, "t", "x", 2, false);
	fake_settle(self->fake);
	for (id = 1; id < 5; id++)
		client_send_ack(&self->rx, MQTT_PUBREC, id);
	self->fake->hold_commit = false;
	fake_settle(self->fake);
	ASSERT_TRUE(got(&self->rx, "x", 2, false, &id) && id < 5);
	for (id = 1; id < 5; id++)
		ASSERT_TRUE(client_got_ack(&self->rx, MQTT_PUBREL, id));
	ASSERT_EQ(fake_stats(self->fake).queued, 1);
}

TEST_F(plain, who_keeps_nothing_waits_for_nothing)
{
	unsigned commits;
	uint16_t id;

	ASSERT_TRUE(client_up(&self->other));
	fake_pass(self->fake, LAZY_MS);
	commits = self->fake->store.commits;
	self->fake->hold_commit = true;
	ASSERT_EQ(client_subscribe(&self->other, "clean", 2), 2);
	ASSERT_TRUE(publish(self, "clean", "x", 2, false));
	ASSERT_TRUE(got(&self->other, "x", 2, false, &id));
	client_send_ack(&self->other, MQTT_PUBREC, id);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(&self->other, MQTT_PUBREL, id));
	/* Nor is QoS 0 written for one who is kept. */
	ASSERT_TRUE(publish(self, "t", "y", 0, false) && got(&self->rx, "y", 0, false, NULL));
	fake_pass(self->fake, LAZY_MS);
	self->fake->hold_commit = false;
	fake_pass(self->fake, LAZY_MS);
	ASSERT_EQ(self->fake->store.commits, commits);
}

TEST_F(plain, what_is_acknowledged_meanwhile_is_never_written)
{
	unsigned written = self->fake->store.durable.written_messages;
	uint16_t id;

	self->fake->hold_commit = true;
	client_publish_text(&self->tx, "t", "first", 1, false); /* its commit is under way */
	fake_settle(self->fake);
	ASSERT_TRUE(got(&self->rx, "first", 1, false, &id));
	client_send_ack(&self->rx, MQTT_PUBACK, id);
	for (unsigned i = 0; i < 100; i++) {
		client_publish_text(&self->tx, "t", "more", 1, false);
		fake_settle(self->fake);
		ASSERT_TRUE(got(&self->rx, "more", 1, false, &id));
		client_send_ack(&self->rx, MQTT_PUBACK, id);
	}
	self->fake->hold_commit = false;
	fake_pass(self->fake, LAZY_MS);
	ASSERT_EQ(self->fake->store.durable.written_messages, written + 1);
	ASSERT_EQ(self->fake->store.durable.rows.n_messages, 0);
	for (unsigned i = 0; i < 101; i++) {
		struct mqtt_frame f;

		ASSERT_TRUE(fake_next_packet(self->tx.conn, &f));
		ASSERT_EQ(mqtt_frame_type(&f), MQTT_PUBACK);
	}
}

TEST_F(plain, a_message_is_written_once_for_all)
{
	char ids[8][8];
	struct fake_client c[8];
	unsigned written;

	for (unsigned i = 0; i < 8; i++) {
		snprintf(ids[i], sizeof(ids[i]), "c%u", i);
		client_init(&c[i], self->fake, ids[i]);
		ASSERT_TRUE(client_up_persistent(&c[i]));
		ASSERT_EQ(client_subscribe(&c[i], "all", 1), 1);
		fake_hang_up(c[i].conn);
	}
	written = self->fake->store.durable.written_messages;
	ASSERT_TRUE(publish(self, "all", "x", 1, true));
	ASSERT_EQ(self->fake->store.durable.written_messages, written + 1);
	ASSERT_EQ(self->fake->store.durable.rows.n_deliveries, 8);
	crash(self);
	for (unsigned i = 0; i < 8; i++) {
		uint16_t id;

		ASSERT_TRUE(client_resumes(&c[i], true));
		fake_settle(self->fake);
		ASSERT_TRUE(got(&c[i], "x", 1, true, &id));
		client_send_ack(&c[i], MQTT_PUBACK, id);
		client_deinit(&c[i]);
	}
	fake_pass(self->fake, LAZY_MS);
	ASSERT_EQ(self->fake->store.durable.rows.n_messages, 1); /* it is retained */
	ASSERT_TRUE(publish(self, "all", "", 1, true));
	fake_pass(self->fake, LAZY_MS);
	ASSERT_EQ(self->fake->store.durable.rows.n_messages, 1); /* which c0 to c7 are to get */
}

TEST_F(plain, what_is_retained_comes_back)
{
	ASSERT_TRUE(publish(self, "r/set", "1", 1, true));
	ASSERT_TRUE(publish(self, "r/replaced", "1", 0, true));
	ASSERT_TRUE(publish(self, "r/replaced", "2", 0, true));
	ASSERT_TRUE(publish(self, "r/cleared", "1", 1, true));
	ASSERT_TRUE(publish(self, "r/cleared", "", 1, true));
	crash(self);
	ASSERT_TRUE(publish(self, "r/set", "3", 1, true));
	ASSERT_TRUE(publish(self, "r/new", "4", 2, true));
	crash(self);
	ASSERT_EQ(fake_stats(self->fake).retained, 3);
	ASSERT_EQ(self->fake->store.durable.rows.n_messages, 3);
	ASSERT_TRUE(client_up(&self->other));
	ASSERT_EQ(client_subscribe(&self->other, "r/replaced", 1), 1);
	ASSERT_TRUE(client_got_text(&self->other, "r/replaced", "2", 0, NULL));
	ASSERT_EQ(client_subscribe(&self->other, "r/set", 1), 1);
	ASSERT_TRUE(client_got_text(&self->other, "r/set", "3", 1, NULL));
	ASSERT_EQ(client_subscribe(&self->other, "r/new", 2), 2);
	ASSERT_TRUE(client_got_text(&self->other, "r/new", "4", 2, NULL));
	ASSERT_EQ(client_subscribe(&self->other, "r/cleared", 1), 1);
	ASSERT_TRUE(client_got_nothing(&self->other));
}

TEST_F(plain, a_clean_session_leaves_nothing)
{
	ASSERT_TRUE(publish(self, "t", "x", 1, false));
	fake_hang_up(self->rx.conn);
	ASSERT_TRUE(client_up_clean(&self->rx));
	ASSERT_EQ(client_subscribe(&self->rx, "t", 1), 1);
	ASSERT_TRUE(publish(self, "t", "y", 1, false));
	ASSERT_FALSE(fake_durable_has_session(&self->fake->store.durable, "rx"));
	ASSERT_EQ(self->fake->store.durable.rows.n_messages, 0);
	crash(self);
	ASSERT_TRUE(client_resumes(&self->rx, false));
}

TEST_F(plain, subscriptions_change)
{
	ASSERT_EQ(client_subscribe(&self->rx, "a", 1), 1);
	ASSERT_EQ(client_subscribe(&self->rx, "b", 1), 1);
	ASSERT_EQ(client_subscribe(&self->rx, "b", 0), 0);
	ASSERT_TRUE(client_unsubscribe(&self->rx, "a"));
	ASSERT_TRUE(client_unsubscribe(&self->rx, "t/#"));
	ASSERT_EQ(client_subscribe(&self->rx, "t/#", 1), 1);
	crash(self);
	ASSERT_EQ(self->fake->store.durable.rows.n_subscriptions, 2);
	ASSERT_TRUE(client_resumes(&self->rx, true));
	ASSERT_TRUE(publish(self, "a", "x", 1, false) && client_got_nothing(&self->rx));
	ASSERT_TRUE(publish(self, "b", "x", 1, false) && got(&self->rx, "x", 0, false, NULL));
	ASSERT_TRUE(publish(self, "t/1", "x", 2, false) && got(&self->rx, "x", 1, false, NULL));
	ASSERT_TRUE(client_unsubscribe(&self->rx, "b"));
	crash(self);
	ASSERT_EQ(self->fake->store.durable.rows.n_subscriptions, 1);
}

/* PUBACK waits as long as it takes, and nothing is lost. */
TEST_F(plain, full_disk)
{
	uint16_t ids[3], id;

	fake_hang_up(self->rx.conn);
	self->fake->commit_error = -ENOSPC;
	for (unsigned i = 0; i < 3; i++) {
		ids[i] = client_publish_text(&self->tx, "t", "x", 1, false);
		fake_pass(self->fake, 1500);
		ASSERT_TRUE(client_got_nothing(&self->tx));
	}
	self->fake->commit_error = 0;
	fake_pass(self->fake, 1500);
	for (unsigned i = 0; i < 3; i++)
		ASSERT_TRUE(client_got_ack(&self->tx, MQTT_PUBACK, ids[i]));
	crash(self);
	ASSERT_TRUE(client_resumes(&self->rx, true));
	fake_settle(self->fake);
	for (unsigned i = 0; i < 3; i++)
		ASSERT_TRUE(got(&self->rx, "x", 1, true, &id));
}

/* One that is owed too many answers is not read from, and goes on when they are given. */
static void sender_pauses(struct fixture_plain *self, unsigned n)
{
	self->fake->hold_commit = true;
	fake_hang_up(self->rx.conn);
	for (unsigned i = 0; i < n; i++)
		(void)client_publish_text(&self->tx, "t", "x", 1, false);
	fake_settle(self->fake);
}

TEST_F(plain, answers_that_are_owed_are_bounded)
{
	sender_pauses(self, self->fake->config.limits.verify_pending_max - 1);
	ASSERT_FALSE(self->tx.conn->paused);
	sender_pauses(self, 1);
	ASSERT_TRUE(self->tx.conn->paused);
	self->fake->hold_commit = false;
	fake_settle(self->fake);
	ASSERT_FALSE(self->tx.conn->paused);
}

TEST_F(plain, limits_hold_for_what_is_restored)
{
	ASSERT_EQ(client_subscribe(&self->rx, "s/1", 1), 1);
	ASSERT_EQ(client_subscribe(&self->rx, "s/2", 1), 1);
	fake_hang_up(self->rx.conn);
	for (unsigned i = 0; i < 5; i++)
		ASSERT_TRUE(publish(self, "t", i % 2 ? "odd" : "even", 1, false));
	ASSERT_TRUE(publish(self, "r/1", "x", 1, true) && publish(self, "r/2", "x", 1, true));
	ASSERT_TRUE(client_up_persistent(&self->other));
	fake_pass(self->fake, LAZY_MS);
	self->fake->config.limits.queue_messages_max = 3;
	self->fake->config.limits.queue_high_water = 2;
	self->fake->config.limits.retained_max = 1;
	self->fake->config.limits.subscriptions_max = 1;
	self->fake->config.limits.sessions_max = 1;
	fake_restart(self->fake);
	ASSERT_EQ(fake_stats(self->fake).queued, 3);
	ASSERT_EQ(fake_stats(self->fake).dropped_full, 2);
	ASSERT_EQ(fake_stats(self->fake).retained, 1);
	ASSERT_EQ(fake_stats(self->fake).sessions, 1);
	fake_pass(self->fake, LAZY_MS);
	ASSERT_EQ(self->fake->store.durable.rows.n_messages, 4);
	ASSERT_EQ(self->fake->store.durable.rows.n_retained, 1);
	ASSERT_EQ(self->fake->store.durable.rows.n_sessions, 1);
	ASSERT_EQ(self->fake->store.durable.rows.n_subscriptions, 1);
	ASSERT_TRUE(client_resumes(&self->rx, true));
	fake_settle(self->fake);
	for (unsigned i = 0; i < 3; i++)
		ASSERT_TRUE(got(&self->rx, i % 2 ? "odd" : "even", 1, true, NULL));
	/* What was let go does not come back beside what takes its place. */
	ASSERT_TRUE(client_unsubscribe(&self->rx, "t/#"));
	ASSERT_EQ(client_subscribe(&self->rx, "s/2", 1), 1);
	fake_restart(self->fake);
	ASSERT_EQ(self->fake->store.durable.rows.n_subscriptions, 1);
	ASSERT_TRUE(client_resumes(&self->rx, true));
}

TEST_F(plain, rows_that_contradict_each_other_are_refused)
{
	struct broker_commit_session session = { .number = 77, .id = "new" };
	struct broker_commit_message message = {
		.number = 78,
		.qos = 1,
		.topic = bytes_of("a", 1),
		.payload = bytes_of("x", 1),
	};
	struct broker_commit_delivery delivery = {
		.session = 77, .seq = 5, .message = 78, .qos = 1
	};
	struct broker_commit_release release = { .session = 77, .place = 1, .packet_id = 9 };
	struct broker_commit_incoming incoming = { .session = 77, .packet_id = 9 };
	struct broker_commit_subscription filter = { 77, 1, false, 1, bytes_of("a/#/b", 5) };
	struct broker_commit_retained retained = { .message = 79 };
	struct broker *b = self->fake->engine;

	ASSERT_EQ(broker_restore_delivery(b, &delivery), -EBADMSG);
	ASSERT_EQ(broker_restore_session(b, &session), 0);
	ASSERT_EQ(broker_restore_session(b, &session), -EBADMSG);
	ASSERT_EQ(broker_restore_delivery(b, &delivery), -EBADMSG); /* no message */
	message.sealed = true;
	ASSERT_EQ(broker_restore_message(b, &message), -EPROTO);
	message.sealed = false;
	message.topic = bytes_of("a/#", 3);
	ASSERT_EQ(broker_restore_message(b, &message), -EBADMSG);
	message.topic = bytes_of("a", 1);
	ASSERT_EQ(broker_restore_message(b, &message), 0);
	ASSERT_EQ(broker_restore_message(b, &message), -EBADMSG);
	ASSERT_EQ(broker_restore_delivery(b, &delivery), 0);
	ASSERT_EQ(broker_restore_delivery(b, &delivery), -EBADMSG); /* the same place */
	ASSERT_EQ(broker_restore_subscription(b, &filter), -EBADMSG);
	ASSERT_EQ(broker_restore_release(b, &release), 0);
	ASSERT_EQ(broker_restore_release(b, &release), -EBADMSG);
	delivery.seq++;
	delivery.packet_id = 9;
	ASSERT_EQ(broker_restore_delivery(b, &delivery), -EBADMSG); /* the release's id */
	ASSERT_EQ(broker_restore_incoming(b, &incoming), 0);
	ASSERT_EQ(broker_restore_incoming(b, &incoming), -EBADMSG);
	ASSERT_EQ(broker_restore_retained(b, &retained), -EBADMSG);
	broker_restore_end(b);
	self->fake->hold_commit = true; /* these rows are not the fake storage's */
}

/* --- sealed ----------------------------------------------------------------------------------- */

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
	ASSERT_EQ(client_subscribe(&self->rx1, "#", 1), 1);
	ASSERT_EQ(client_subscribe(&self->rx2, "#", 2), 2);
}

FIXTURE_TEARDOWN(sealed)
{
	client_deinit(&self->dev1);
	client_deinit(&self->rx1);
	client_deinit(&self->rx2);
	world_free(self->world);
}

static void publish_and_crash(struct fixture_sealed *self)
{
	fake_hang_up(self->rx1.conn);
	fake_hang_up(self->rx2.conn);
	(void)client_publish(&self->dev1, self->world->temp, "site/1/temp", "21.5", 2);
	fake_settle(self->fake);
	world_restart(self->world);
}

/* It is opened, and its origin proven, after the broker's death as before. */
TEST_F(sealed, a_message_is_converted_after_the_restart)
{
	struct fake_opened o;

	publish_and_crash(self);
	ASSERT_TRUE(client_resumes(&self->rx1, true) && client_resumes(&self->rx2, true));
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", &o) && o.publish.qos == 1);
	ASSERT_TRUE(client_got_sealed(&self->rx2, "21.5", &o) && o.publish.qos == 2);
	ASSERT_TRUE(bytes_equal(o.envelope.origin, bytes_str("dev1")));
}

TEST_F(sealed, who_is_not_enrolled_any_more_is_dropped)
{
	struct fake_opened o;

	self->world->rx1->gone = true;
	publish_and_crash(self);
	fake_pass(self->fake, LAZY_MS);
	/* world_restart() applied the bundle without rx1 under the old serial. */
	ASSERT_FALSE(fake_durable_has_session(&self->fake->store.durable, "rx1"));
	ASSERT_EQ(self->fake->store.durable.rows.n_subscriptions, 1);
	ASSERT_EQ(self->fake->store.durable.rows.n_deliveries, 1);
	ASSERT_TRUE(client_resumes(&self->rx2, true));
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_sealed(&self->rx2, "21.5", &o));
}

TEST_F(sealed, who_was_revoked_meanwhile_is_dropped)
{
	self->world->rx1->roles = 0;
	publish_and_crash(self);
	fake_pass(self->fake, LAZY_MS);
	ASSERT_FALSE(fake_durable_has_session(&self->fake->store.durable, "rx1"));
	ASSERT_TRUE(fake_durable_has_session(&self->fake->store.durable, "rx2"));
}

TEST_F(sealed, what_was_revoked_meanwhile_is_not_converted)
{
	self->world->rx1_temp->gone = true;
	publish_and_crash(self);
	ASSERT_TRUE(client_resumes(&self->rx1, true));
	fake_pass(self->fake, LAZY_MS);
	ASSERT_TRUE(client_got_nothing(&self->rx1));
	ASSERT_EQ(fake_durable_queued(&self->fake->store.durable, "rx1"), 0);
}

/* Counter and queue are of one commit: either both are there or neither. */
TEST_F(sealed, a_counter_is_stored_with_its_message)
{
	struct fake_sealed s;
	struct fake_opened o;

	for (unsigned late = 0; late < 2; late++) {
		fake_hang_up(self->rx1.conn);
		fake_hang_up(self->rx2.conn);
		fake_settle(self->fake);
		client_seal(&self->dev1, self->world->temp, "site/1/temp", "x", 1, false, &s);
		self->fake->hold_commit = true;
		client_send_publish(&self->dev1, &s.publish);
		fake_settle(self->fake);
		self->fake->late_crash = late;
		world_restart(self->world);
		ASSERT_EQ(fake_durable_queued(&self->fake->store.durable, "rx1"), late);
		ASSERT_TRUE(client_up(&self->dev1));
		s.publish.dup = true;
		client_send_publish(&self->dev1, &s.publish);
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, s.publish.packet_id));
		ASSERT_EQ(fake_stats(self->fake).replayed, late);
		ASSERT_TRUE(client_resumes(&self->rx1, true));
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_sealed(&self->rx1, "x", &o));
		client_send_ack(&self->rx1, MQTT_PUBACK, o.publish.packet_id);
		ASSERT_TRUE(client_got_nothing(&self->rx1));
	}
}

TEST_F(sealed, an_unknown_body_is_refused)
{
	struct broker_commit_message m = {
		.number = 99,
		.sealed = true,
		.qos = 1,
		.topic = bytes_of("site/1/temp", 11),
		.payload = bytes_of("no envelope", 11),
		.sender = bytes_of("dev1", 4),
	};

	ASSERT_EQ(broker_restore_message(self->fake->engine, &m), -EBADMSG);
	m.number++;
	m.sealed = false;
	ASSERT_EQ(broker_restore_message(self->fake->engine, &m), -EPROTO);
	broker_restore_end(self->fake->engine);
	self->fake->hold_commit = true;
}
