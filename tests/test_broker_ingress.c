// SPDX-License-Identifier: MIT
/*
 * What becomes of a sealed PUBLISH on its way in: verified, judged, replay window, committed,
 * acknowledged (PROTOCOL 2, 4 and 7).
 */
#include <errno.h>
#include <stdio.h>

#include "tests/fake_client.h"
#include "tests/harness.h"

HARNESS_MAIN

#define TOPIC "site/1/temp"

FIXTURE(in)
{
	struct world *world;
	struct fake_broker *fake;
	const struct world_scope *temp, *cam;
	struct fake_client dev1, dev2, rx1;
};

static void client_of(struct fixture_in *self, struct fake_client *c, struct world_party *p)
{
	client_init_party(c, self->world, p);
}

/* dev1, dev2 and rx1 are connected; rx1 listens to everything, and acknowledges nothing. */
static void start(struct fixture_in *self, const struct broker_config *config)
{
	self->world = world_new(config);
	self->fake = self->world->fake;
	self->temp = self->world->temp;
	self->cam = self->world->cam;
	client_of(self, &self->dev1, self->world->dev1);
	client_of(self, &self->dev2, self->world->dev2);
	client_of(self, &self->rx1, self->world->rx1);
	ASSERT_TRUE(client_up(&self->dev1) && client_up(&self->dev2) && client_up(&self->rx1));
	ASSERT_EQ(client_subscribe(&self->rx1, "#", 0), 0);
}

static void finish(struct fixture_in *self)
{
	client_deinit(&self->dev1);
	client_deinit(&self->dev2);
	client_deinit(&self->rx1);
	world_free(self->world);
}

FIXTURE_SETUP(in)
{
	struct broker_config config;

	fake_config(false, &config);
	config.limits.errors_per_second = 1000000; /* but where a test is about it */
	start(self, &config);
}

FIXTURE_TEARDOWN(in)
{
	finish(self);
}

static void restart_with(struct fixture_in *self, const struct broker_config *config)
{
	finish(self);
	start(self, config);
}

/* The broker restarts, and the three come back. */
static void crash(struct fixture_in *self)
{
	world_restart(self->world);
	ASSERT_TRUE(client_up(&self->dev1) && client_up(&self->dev2) && client_up(&self->rx1));
	ASSERT_EQ(client_subscribe(&self->rx1, "#", 0), 0);
}

static void seal(struct fixture_in *self, struct fake_client *c, struct fake_sealed *s)
{
	client_seal(c, self->temp, TOPIC, "21.5", 1, false, s);
}

static void send(struct fixture_in *self, struct fake_client *c, const struct fake_sealed *s)
{
	client_send_publish(c, &s->publish);
	fake_settle(self->fake);
}

/* It is delivered once, and acknowledged. */
static bool taken(struct fixture_in *self, struct fake_client *c, const struct fake_sealed *s)
{
	send(self, c, s);
	return (!s->publish.qos || client_got_ack(c, MQTT_PUBACK, s->publish.packet_id)) &&
	       client_got_nothing(c) && client_got_sealed(&self->rx1, "21.5", NULL) &&
	       client_got_nothing(&self->rx1);
}

/* The error; acknowledged, or not at all; not delivered. */
static bool refused(struct fixture_in *self, struct fake_client *c, const struct fake_sealed *s,
		    enum control_reason reason, bool acknowledged)
{
	uint64_t counted = fake_stats(self->fake).refused[reason];

	send(self, c, s);
	return client_got_error(c, reason, s->counter) &&
	       (!acknowledged || client_got_ack(c, MQTT_PUBACK, s->publish.packet_id)) &&
	       client_got_nothing(c) && client_got_nothing(&self->rx1) && !client_closed(c) &&
	       fake_stats(self->fake).refused[reason] == counted + 1;
}

/* --- taken ------------------------------------------------------------------------------------ */

TEST_F(in, qos_0_and_1)
{
	struct fake_sealed s;

	for (uint8_t qos = 0; qos < 2; qos++) {
		client_seal(&self->dev1, self->temp, TOPIC, "21.5", qos, false, &s);
		ASSERT_TRUE(taken(self, &self->dev1, &s));
		client_seal(&self->dev2, self->temp, "site/2/hum", "21.5", qos, false, &s);
		ASSERT_TRUE(taken(self, &self->dev2, &s));
	}
	ASSERT_EQ(fake_stats(self->fake).accepted, 4);
}

/* DUP is not signed: it changes on the way (PROTOCOL 4). */
TEST_F(in, dup_is_as_good)
{
	struct fake_sealed s;

	seal(self, &self->dev1, &s);
	s.publish.dup = true;
	ASSERT_TRUE(taken(self, &self->dev1, &s));
}

TEST_F(in, order_is_kept)
{
	static const char *const texts[] = { "a", "b", "c", "d", "e", "f", "g", "h" };

	for (unsigned i = 0; i < ARRAY_SIZE(texts); i++)
		client_publish(&self->dev1, self->temp, TOPIC, texts[i], i % 2);
	fake_settle(self->fake);
	for (unsigned i = 0; i < ARRAY_SIZE(texts); i++)
		ASSERT_TRUE(client_got_sealed(&self->rx1, texts[i], NULL));
}

TEST_F(in, input_may_be_cut_anywhere)
{
	struct fake_sealed s;
	uint8_t packet[1024];
	struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));
	size_t n;

	seal(self, &self->dev1, &s);
	mqtt_encode_publish(&s.publish, &w);
	n = w.used;
	for (size_t cut = 0; cut < n; cut++) {
		seal(self, &self->dev1, &s);
		w = bytes_writer_of(packet, sizeof(packet));
		mqtt_encode_publish(&s.publish, &w);
		ASSERT_EQ(w.used, n);
		client_send(&self->dev1, bytes_of(packet, cut));
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_nothing(&self->dev1) && client_got_nothing(&self->rx1));
		client_send(&self->dev1, bytes_of(packet + cut, n - cut));
		fake_settle(self->fake);
		ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, s.publish.packet_id));
		ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", NULL));
	}
}

/* Three messages under one signature; each with the batch trailer of PROTOCOL 4. */
static void seal_batch(struct fixture_in *self, struct fake_sealed s[3])
{
	uint8_t nodes[8][HASH_BYTES], digest[HASH_BYTES], sig[P256_SIG_BYTES];
	struct merkle m;

	for (unsigned i = 0; i < 3; i++) {
		struct publish p;

		seal(self, &self->dev1, &s[i]);
		s[i].n -= PUBLISH_TRAILER_1_BYTES;
		p = (struct publish){
			.first = mqtt_publish_first(1, false, false),
			.topic = s[i].publish.topic,
			.body = { bytes_of(s[i].payload, s[i].n) },
			.body_parts = 1,
			.client_id = bytes_str("dev1"),
		};
		publish_leaf(&p, nodes[i]);
	}
	ASSERT_LE(merkle_nodes(3), ARRAY_SIZE(nodes));
	merkle_build(&m, nodes, 3);
	publish_root_digest(merkle_root(&m), digest);
	ASSERT_EQ(p256_sign_digest(self->world->dev1->key, digest, sig), 0);
	for (unsigned i = 0; i < 3; i++) {
		struct bytes_writer w =
			bytes_writer_of(s[i].payload + s[i].n, sizeof(s[i].payload) - s[i].n);

		publish_write_trailer_2(sig, &m, (uint16_t)i, &w);
		ASSERT_FALSE(w.bad);
		s[i].n += w.used;
		s[i].publish.payload = bytes_of(s[i].payload, s[i].n);
	}
}

TEST_F(in, batch_trailer)
{
	struct fake_sealed s[3];

	seal_batch(self, s);
	for (unsigned i = 0; i < 3; i++)
		ASSERT_TRUE(taken(self, &self->dev1, &s[2 - i]));
	seal_batch(self, s);
	s[1].payload[s[1].n - 10] ^= 1; /* in the path */
	ASSERT_TRUE(refused(self, &self->dev1, &s[1], CONTROL_BAD_SIGNATURE, false));
	s[2].payload[s[2].n - 4] ^= 1; /* its index: 3 of 3, so it is no trailer */
	ASSERT_TRUE(refused(self, &self->dev1, &s[2], CONTROL_MALFORMED, false));
	s[0].payload[s[0].n - 4] ^= 1; /* the place of another */
	ASSERT_TRUE(refused(self, &self->dev1, &s[0], CONTROL_BAD_SIGNATURE, false));
	s[0].payload[s[0].n - 4] ^= 1;
	ASSERT_TRUE(taken(self, &self->dev1, &s[0]));
}

/* --- damaged ---------------------------------------------------------------------------------- */

/* The counter where the message can still be told by its first bytes (PROTOCOL 7: else 0). */
static uint64_t counter_of(struct bytes payload)
{
	struct bytes_reader r = bytes_reader_of(payload);

	if (bytes_read_u16(&r) != 0x5d7f)
		return 0;
	(void)bytes_read_view(&r, 10);
	return bytes_read_u64(&r);
}

/* Reason 1, or 2 where the payload does not even end in a trailer; no acknowledgement. */
static bool not_verified(struct fixture_in *self, const struct mqtt_publish *p)
{
	struct publish_trailer t;
	bool trailer = publish_split(p->payload, &t) == 0;

	client_send_publish(&self->dev1, p);
	fake_settle(self->fake);
	return client_got_error(&self->dev1, trailer ? CONTROL_BAD_SIGNATURE : CONTROL_MALFORMED,
				counter_of(trailer ? t.body : p->payload)) &&
	       client_got_nothing(&self->dev1) && client_got_nothing(&self->rx1);
}

TEST_F(in, every_truncation)
{
	struct fake_sealed s;
	struct mqtt_publish p;

	seal(self, &self->dev1, &s);
	p = s.publish;
	for (size_t n = 0; n < s.n; n++) {
		p.payload.n = n;
		ASSERT_TRUE(not_verified(self, &p));
	}
	ASSERT_TRUE(taken(self, &self->dev1, &s)); /* and none of it used the counter up */
}

TEST_F(in, every_bit_of_the_payload)
{
	struct fake_sealed s;

	seal(self, &self->dev1, &s);
	for (size_t bit = 0; bit < 8 * s.n; bit++) {
		s.payload[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (!not_verified(self, &s.publish))
			harness_fail(__FILE__, __LINE__, true, "bit %zu", bit);
		s.payload[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	ASSERT_TRUE(taken(self, &self->dev1, &s));
}

static bool got_puback(struct fake_client *c, uint16_t *ret_id)
{
	struct mqtt_frame f;
	size_t used, need;
	struct bytes out = bytes_of(c->conn->out + c->conn->read, c->conn->sent - c->conn->read);

	for (; out.n; out = bytes_of(out.p + used, out.n - used)) {
		ASSERT_EQ(mqtt_frame_next(out, MQTT_PACKET_BYTES_MAX, &f, &used, &need), MQTT_OK);
		if (mqtt_frame_type(&f) == MQTT_PUBACK)
			return mqtt_decode_ack(f.body, ret_id) == MQTT_OK;
	}
	return false;
}

/* Every bit in front of the payload, each on a connection of its own. What is not signed is DUP and
 * the packet id; with any other change nothing is acknowledged and nothing delivered. */
TEST_F(in, every_bit_in_front_of_the_payload)
{
	const size_t head = 3 + 2 + strlen(TOPIC) + 2, id_at = head - 2;
	uint8_t packet[1024];

	for (size_t bit = 0; bit < 8 * head; bit++) {
		struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));
		bool mutable = bit == 3 || bit / 8 >= id_at;
		struct fake_sealed s;
		uint16_t id = 0;

		ASSERT_TRUE(client_up(&self->dev1));
		seal(self, &self->dev1, &s);
		mqtt_encode_publish(&s.publish, &w);
		ASSERT_EQ(w.used, head + s.n);
		packet[bit / 8] ^= (uint8_t)(1 << bit % 8);
		client_send(&self->dev1, bytes_of(packet, w.used));
		fake_settle(self->fake);
		if (got_puback(&self->dev1, &id) != mutable)
			harness_fail(__FILE__, __LINE__, true, "bit %zu", bit);
		if (mutable) {
			ASSERT_EQ(id, bytes_load_u16(packet + id_at));
			ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", NULL));
		}
		ASSERT_TRUE(client_got_nothing(&self->rx1));
	}
}

TEST_F(in, not_signed_at_all)
{
	client_publish_text(&self->dev1, TOPIC, "21.5", 1, false);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_MALFORMED, 0));
	ASSERT_TRUE(client_got_nothing(&self->dev1) && client_got_nothing(&self->rx1));
}

/* --- signed, but as another PUBLISH ----------------------------------------------------------- */

TEST_F(in, wrong_qos_retain_topic)
{
	struct fake_sealed s;

	client_seal(&self->dev1, self->temp, TOPIC, "x", 0, false, &s);
	s.publish.qos = 1;
	s.publish.packet_id = 1;
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_BAD_SIGNATURE, false));
	seal(self, &self->dev1, &s);
	s.publish.retain = true;
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_BAD_SIGNATURE, false));
	ASSERT_EQ(fake_stats(self->fake).retained, 0);
	seal(self, &self->dev1, &s);
	s.publish.topic = bytes_str("site/2/temp");
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_BAD_SIGNATURE, false));
}

/* Another's message, as it was, on one's own connection. */
TEST_F(in, wrong_client_id)
{
	struct fake_sealed s;

	seal(self, &self->dev2, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_BAD_SIGNATURE, false));
	/* ... or signed anew: bind names whose it is (PROTOCOL 2). */
	client_sign(&self->dev1, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_MALFORMED, true));
	client_sign(&self->dev2, &s);
	ASSERT_TRUE(taken(self, &self->dev2, &s));
}

TEST_F(in, wrong_topic_for_its_bind)
{
	struct fake_sealed s;

	seal(self, &self->dev1, &s);
	s.publish.topic = bytes_str("site/2/temp");
	client_sign(&self->dev1, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_MALFORMED, true));
}

/* --- signed, but malformed: reason 2, acknowledged -------------------------------------------- */

static bool malformed(struct fixture_in *self, struct fake_sealed *s)
{
	enum control_reason reason;
	uint64_t counter;

	client_sign(&self->dev1, s);
	send(self, &self->dev1, s);
	return client_got_any_error(&self->dev1, &reason, &counter) &&
	       reason == CONTROL_MALFORMED && (counter == s->counter || counter == 0) &&
	       client_got_ack(&self->dev1, MQTT_PUBACK, s->publish.packet_id) &&
	       client_got_nothing(&self->dev1) && client_got_nothing(&self->rx1);
}

TEST_F(in, malformed_envelopes)
{
	static const struct {
		const char *what;
		size_t at;
		uint8_t bytes[4];
		size_t n;
	} rows[] = {
		{ "magic", 0, { 0x5d, 0x7e }, 2 },
		{ "version 0", 2, { 0 }, 1 },
		{ "version 2", 2, { 2 }, 1 },
		{ "suite 0", 3, { 0 }, 1 },
		{ "suite 3", 3, { 3 }, 1 },
		{ "suite 255", 3, { 255 }, 1 },
		{ "seq 65536", 8, { 0, 1, 0, 0 }, 4 },
		{ "seq 2^32-1", 8, { 255, 255, 255, 255 }, 4 },
		{ "enc of another form", 44, { 4 }, 1 },
		{ "enc of infinity's form", 44, { 0 }, 1 },
		{ "level 1, with no block", 125, { 1 }, 1 },
		{ "level 8", 125, { 8 }, 1 },
		{ "level 9", 125, { 9 }, 1 },
		{ "level 255", 125, { 255 }, 1 },
	};
	struct fake_sealed s;

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		seal(self, &self->dev1, &s);
		memcpy(s.payload + rows[i].at, rows[i].bytes, rows[i].n);
		if (!malformed(self, &s))
			harness_fail(__FILE__, __LINE__, false, "%s", rows[i].what);
	}
}

TEST_F(in, malformed_bind_and_salt)
{
	struct fake_sealed s;

	for (size_t at = 28; at < 44; at++) {
		seal(self, &self->dev1, &s);
		s.payload[at] ^= 0x80;
		ASSERT_TRUE(malformed(self, &s));
	}
	/* A zero salt with the bind that fits it. */
	seal(self, &self->dev1, &s);
	memset(s.payload + 109, 0, ENVELOPE_SALT_BYTES);
	envelope_bind(bytes_of(s.payload + 109, ENVELOPE_SALT_BYTES), bytes_str("dev1"),
		      bytes_str(TOPIC), s.payload + 28);
	ASSERT_TRUE(malformed(self, &s));
}

/* x-coordinates that no point has; the token must not see one (fake_broker.c asserts it). */
TEST_F(in, enc_off_the_curve)
{
	struct fake_sealed s;
	struct p256_point p;
	unsigned n = 0;

	for (unsigned i = 0; n < 20; i++) {
		seal(self, &self->dev1, &s);
		s.payload[44 + 32] = (uint8_t)i;
		s.payload[44 + 31] = (uint8_t)(i >> 8);
		if (p256_point_decompress(bytes_of(s.payload + 44, P256_COMPRESSED_BYTES), &p) == 0)
			continue; /* on the curve by chance */
		n++;
		ASSERT_TRUE(malformed(self, &s));
	}
	seal(self, &self->dev1, &s);
	memset(s.payload + 45, 0xff, P256_X_BYTES); /* x >= p */
	ASSERT_TRUE(malformed(self, &s));
	ASSERT_EQ(fake_stats(self->fake).conversions, 0);
}

TEST_F(in, every_body_cut_short)
{
	struct fake_sealed s;
	size_t whole;

	seal(self, &self->dev1, &s);
	whole = s.n;
	/* All but the last 4 lengths lack a tag; those still do, of a ciphertext of 4 bytes. */
	for (size_t body = 0; body < ENVELOPE_FIXED_BYTES + HPKE_TAG_BYTES; body++) {
		seal(self, &self->dev1, &s);
		ASSERT_EQ(s.n, whole);
		s.n = body + PUBLISH_TRAILER_1_BYTES;
		ASSERT_TRUE(malformed(self, &s));
	}
}

/* PROTOCOL 2: level 0 from anybody but an upstream peer. This one is well-formed at level 1. */
TEST_F(in, level_above_0_from_a_device)
{
	uint8_t raised[CLIENT_SEALED_MAX], x[P256_X_BYTES] = { 0 };
	struct bytes_writer w = bytes_writer_of(raised, sizeof(raised));
	struct envelope_block block = {
		.grant = bytes_of(self->world->rx1_temp->id, GRANT_ID_BYTES),
		.x = bytes_of(x, sizeof(x)),
		.origin = bytes_str("dev1"),
	};
	struct envelope e;
	struct fake_sealed s;

	seal(self, &self->dev1, &s);
	ASSERT_EQ(envelope_parse(bytes_of(s.payload, s.n - PUBLISH_TRAILER_1_BYTES), &e), 0);
	envelope_raise_head(&e, &block, &w);
	bytes_write(&w, e.ct);
	ASSERT_FALSE(w.bad);
	memcpy(s.payload, raised, w.used);
	s.n = w.used + PUBLISH_TRAILER_1_BYTES;
	ASSERT_TRUE(malformed(self, &s));
}

/* --- scope ------------------------------------------------------------------------------------ */

TEST_F(in, scope_and_key_id)
{
	struct fake_client cam1;
	struct world_scope *extra = world_add_scope(self->world, "extra", 7, "site/#");
	struct fake_sealed s;

	self->world->dev2->scopes[2] = "extra";
	/* A key id that the bundle does not have (yet). */
	client_seal(&self->dev2, extra, TOPIC, "21.5", 1, false, &s);
	ASSERT_TRUE(refused(self, &self->dev2, &s, CONTROL_NO_KEY_ID, true));
	/* One that is over, or has not begun. */
	extra->not_after_ms = self->fake->wall_ms;
	world_apply(self->world);
	client_seal(&self->dev2, extra, TOPIC, "21.5", 1, false, &s);
	ASSERT_TRUE(refused(self, &self->dev2, &s, CONTROL_NO_KEY_ID, true));
	extra->not_after_ms = 0;
	extra->not_before_ms = self->fake->wall_ms + 1;
	world_apply(self->world);
	client_seal(&self->dev2, extra, TOPIC, "21.5", 1, false, &s);
	ASSERT_TRUE(refused(self, &self->dev2, &s, CONTROL_NO_KEY_ID, true));
	/* A scope that the sender is not in. */
	client_seal(&self->dev1, self->cam, "cam/1", "21.5", 1, false, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_NOT_PERMITTED, true));
	client_of(self, &cam1, self->world->cam1);
	ASSERT_TRUE(client_up(&cam1));
	client_seal(&cam1, self->temp, TOPIC, "21.5", 1, false, &s);
	ASSERT_TRUE(refused(self, &cam1, &s, CONTROL_NOT_PERMITTED, true));
	client_deinit(&cam1);
	/* A topic that no scope has. */
	client_seal(&self->dev1, self->temp, "site/1/door", "21.5", 1, false, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_NOT_PERMITTED, true));
	ASSERT_EQ(fake_stats(self->fake).accepted, 0);
}

/* PROTOCOL 1: who publishes under two scopes cannot launder one's capsule through the other. */
TEST_F(in, key_id_of_another_topic)
{
	struct fake_sealed s;

	client_seal(&self->dev2, self->temp, "cam/1", "21.5", 1, false, &s);
	ASSERT_TRUE(refused(self, &self->dev2, &s, CONTROL_NOT_PERMITTED, true));
	client_seal(&self->dev2, self->cam, TOPIC, "21.5", 1, false, &s);
	ASSERT_TRUE(refused(self, &self->dev2, &s, CONTROL_NOT_PERMITTED, true));
	/* The other key id in the envelope of the right one: converted with neither. */
	client_seal(&self->dev2, self->temp, TOPIC, "21.5", 1, false, &s);
	s.payload[7] = WORLD_KEY_CAM;
	client_sign(&self->dev2, &s);
	ASSERT_TRUE(refused(self, &self->dev2, &s, CONTROL_NOT_PERMITTED, true));
	ASSERT_EQ(fake_stats(self->fake).conversions, 0);
}

/* --- replay ----------------------------------------------------------------------------------- */

static void seal_counter(struct fixture_in *self, struct fake_client *c, uint64_t counter,
			 struct fake_sealed *s)
{
	uint64_t last = c->counter;

	c->counter = counter - 1;
	seal(self, c, s);
	c->counter = last;
}

/* Acknowledged, not forwarded. */
static bool seen(struct fixture_in *self, struct fake_client *c, const struct fake_sealed *s)
{
	send(self, c, s);
	return client_got_ack(c, MQTT_PUBACK, s->publish.packet_id) && client_got_nothing(c) &&
	       client_got_nothing(&self->rx1);
}

TEST_F(in, replay_window)
{
	struct fake_sealed s, other;

	seal_counter(self, &self->dev1, 500, &s);
	ASSERT_TRUE(taken(self, &self->dev1, &s));
	ASSERT_TRUE(seen(self, &self->dev1, &s));
	s.publish.packet_id++;
	s.publish.dup = true;
	ASSERT_TRUE(seen(self, &self->dev1, &s));
	seal_counter(self, &self->dev1, 500, &other); /* another message of the same number */
	ASSERT_TRUE(seen(self, &self->dev1, &other));
	seal_counter(self, &self->dev1, 372, &s); /* the window's lowest */
	ASSERT_TRUE(taken(self, &self->dev1, &s));
	ASSERT_TRUE(seen(self, &self->dev1, &s));
	seal_counter(self, &self->dev1, 371, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_REPLAYED, true));
	seal_counter(self, &self->dev1, 0, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_REPLAYED, true));
	seal_counter(self, &self->dev1, 499, &s);
	ASSERT_TRUE(taken(self, &self->dev1, &s));
	/* Another sender has a window of its own. */
	seal_counter(self, &self->dev2, 3, &s);
	ASSERT_TRUE(taken(self, &self->dev2, &s));
	ASSERT_EQ(fake_stats(self->fake).replayed, 4);
}

TEST_F(in, replayed_qos_0_is_silent)
{
	struct fake_sealed s;

	client_seal(&self->dev1, self->temp, TOPIC, "21.5", 0, false, &s);
	ASSERT_TRUE(taken(self, &self->dev1, &s));
	send(self, &self->dev1, &s);
	ASSERT_TRUE(client_got_nothing(&self->dev1) && client_got_nothing(&self->rx1));
}

TEST_F(in, highest_counter_of_all)
{
	struct fake_sealed s;

	seal_counter(self, &self->dev1, UINT64_MAX, &s);
	ASSERT_TRUE(taken(self, &self->dev1, &s));
	ASSERT_TRUE(seen(self, &self->dev1, &s));
	seal_counter(self, &self->dev1, 1, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_REPLAYED, true));
}

TEST_F(in, window_outlives_the_process)
{
	struct fake_sealed a, b, c;

	seal_counter(self, &self->dev1, 200, &a);
	seal_counter(self, &self->dev1, 190, &b);
	seal_counter(self, &self->dev1, 10, &c);
	ASSERT_TRUE(taken(self, &self->dev1, &a) && taken(self, &self->dev1, &b));
	crash(self);
	ASSERT_TRUE(seen(self, &self->dev1, &a) && seen(self, &self->dev1, &b));
	ASSERT_TRUE(refused(self, &self->dev1, &c, CONTROL_REPLAYED, true));
	seal_counter(self, &self->dev1, 191, &c);
	ASSERT_TRUE(taken(self, &self->dev1, &c));
}

/* --- storage ---------------------------------------------------------------------------------- */

TEST_F(in, acknowledged_only_once_stored)
{
	struct fake_sealed a, b;

	self->fake->hold_commit = true;
	seal(self, &self->dev1, &a);
	seal(self, &self->dev1, &b);
	send(self, &self->dev1, &a);
	ASSERT_TRUE(self->fake->commit != NULL);
	ASSERT_EQ(self->fake->commit->n_replay, 1);
	ASSERT_EQ(self->fake->commit->n_contexts, 1);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", NULL)); /* forwarded at once */
	send(self, &self->dev1, &b);				  /* waits for the next commit */
	send(self, &self->dev1, &a);				  /* and so does this again */
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	self->fake->hold_commit = false;
	ASSERT_TRUE(fake_run_commit(self->fake));
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, a.publish.packet_id));
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	ASSERT_EQ(fake_stored_window(self->fake, "dev1")->highest, a.counter);
	fake_turn(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	ASSERT_TRUE(fake_run_commit(self->fake));
	ASSERT_EQ(fake_stored_window(self->fake, "dev1")->highest, b.counter);
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, b.publish.packet_id));
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, a.publish.packet_id));
}

TEST_F(in, many_messages_share_a_commit)
{
	unsigned before;

	fake_settle(self->fake);
	before = self->fake->store.commits;
	for (unsigned i = 0; i < 100; i++) {
		client_publish(&self->dev1, self->temp, TOPIC, "x", 1);
		client_publish(&self->dev2, self->temp, TOPIC, "x", 1);
	}
	fake_settle(self->fake);
	ASSERT_LE(self->fake->store.commits - before, 2);
	ASSERT_EQ(fake_stored_window(self->fake, "dev1")->highest, 100);
	for (uint16_t i = 1; i <= 100; i++)
		ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, i));
}

TEST_F(in, failed_commit_is_tried_again)
{
	struct fake_sealed a, b;

	self->fake->commit_error = -5;
	seal(self, &self->dev1, &a);
	seal(self, &self->dev1, &b);
	send(self, &self->dev1, &a);
	fake_pass(self->fake, 3500);
	send(self, &self->dev1, &b);
	fake_pass(self->fake, 3500);
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	ASSERT_TRUE(fake_stored_window(self->fake, "dev1") == NULL);
	self->fake->commit_error = 0;
	fake_pass(self->fake, 1500);
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, a.publish.packet_id));
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, b.publish.packet_id));
	ASSERT_EQ(fake_stored_window(self->fake, "dev1")->highest, b.counter);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", NULL));
	ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", NULL));
}

/* What was not acknowledged is sent again and, not being stored, taken again: never lost. */
TEST_F(in, crash_before_the_commit)
{
	struct fake_sealed s;

	self->fake->hold_commit = true;
	seal(self, &self->dev1, &s);
	send(self, &self->dev1, &s);
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	crash(self);
	self->fake->hold_commit = false;
	s.publish.dup = true;
	ASSERT_TRUE(taken(self, &self->dev1, &s));
}

/* The connection that an acknowledgement waits for goes: the next one asks again. */
TEST_F(in, hang_up_before_the_commit)
{
	struct fake_sealed s;

	self->fake->hold_commit = true;
	seal(self, &self->dev1, &s);
	send(self, &self->dev1, &s);
	fake_hang_up(self->dev1.conn);
	self->fake->hold_commit = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", NULL));
	ASSERT_TRUE(client_up(&self->dev1));
	ASSERT_EQ(self->dev1.highest, s.counter);
	ASSERT_TRUE(seen(self, &self->dev1, &s));
}

TEST_F(in, hang_up_while_it_is_verified)
{
	struct fake_sealed s;

	self->fake->hold_verify = true;
	seal(self, &self->dev1, &s);
	send(self, &self->dev1, &s);
	client_send_empty(&self->dev1, MQTT_DISCONNECT); /* PUBLISH came first, and counts */
	self->fake->hold_verify = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", NULL));
	ASSERT_TRUE(client_up(&self->dev1));
	ASSERT_TRUE(seen(self, &self->dev1, &s));
}

TEST_F(in, revoked_while_it_is_verified)
{
	struct fake_sealed s;

	self->fake->hold_verify = true;
	seal(self, &self->dev1, &s);
	send(self, &self->dev1, &s);
	self->world->dev1->gone = true;
	world_apply(self->world);
	ASSERT_TRUE(client_closed(&self->dev1));
	self->fake->hold_verify = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->dev1) && client_got_nothing(&self->rx1));
}

TEST_F(in, key_changed_while_it_is_verified)
{
	struct fake_sealed s;

	self->fake->hold_verify = true;
	seal(self, &self->dev1, &s);
	send(self, &self->dev1, &s);
	world_new_key(self->world->dev1);
	world_apply(self->world);
	ASSERT_TRUE(client_closed(&self->dev1));
	self->fake->hold_verify = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_nothing(&self->dev1) && client_got_nothing(&self->rx1));
	ASSERT_EQ(fake_stats(self->fake).accepted, 0);
}

/* --- retired contexts ------------------------------------------------------------------------- */

/* rx2's grant of temp goes, and with it every context seen under that key id. */
static void revoke(struct fixture_in *self)
{
	self->fake->wall_ms += 1000;
	self->fake->mono_ms += 1000;
	world_revoke(self->world, self->world->rx2_temp);
	world_apply(self->world);
	fake_settle(self->fake);
}

TEST_F(in, retired_contexts)
{
	struct fake_sealed s, unseen;

	client_seal(&self->dev2, self->cam, "cam/1", "21.5", 1, false, &s);
	send(self, &self->dev2, &s); /* rx1 has no grant for it */
	ASSERT_TRUE(client_got_ack(&self->dev2, MQTT_PUBACK, s.publish.packet_id));
	seal(self, &self->dev1, &s);
	ASSERT_TRUE(taken(self, &self->dev1, &s));
	client_seal(&self->dev2, self->temp, TOPIC, "21.5", 1, false, &unseen);
	revoke(self);
	seal(self, &self->dev1, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_RETIRED, true));
	client_new_context(&self->dev1, self->temp); /* "seal anew" */
	seal(self, &self->dev1, &s);
	ASSERT_TRUE(taken(self, &self->dev1, &s));
	/* Never seen before, so nobody has a conversion of it; another key id's are not touched. */
	ASSERT_TRUE(taken(self, &self->dev2, &unseen));
	client_seal(&self->dev2, self->cam, "cam/1", "21.5", 1, false, &s);
	send(self, &self->dev2, &s);
	ASSERT_TRUE(client_got_ack(&self->dev2, MQTT_PUBACK, s.publish.packet_id));
	/* The same bundle again retires nothing that was opened since. */
	world_apply(self->world);
	seal(self, &self->dev1, &s);
	ASSERT_TRUE(taken(self, &self->dev1, &s));
}

TEST_F(in, retirement_outlives_the_process)
{
	struct fake_sealed s;

	seal(self, &self->dev1, &s);
	ASSERT_TRUE(taken(self, &self->dev1, &s));
	revoke(self);
	fake_pass(self->fake, 1000);
	client_seal(&self->dev2, self->temp, TOPIC, "21.5", 1, false, &s); /* opened since */
	ASSERT_TRUE(taken(self, &self->dev2, &s));
	for (unsigned i = 0; i < 2; i++) {
		self->fake->revoked_first = i;
		crash(self);
		seal(self, &self->dev1, &s);
		ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_RETIRED, true));
		client_seal(&self->dev2, self->temp, TOPIC, "21.5", 1, false, &s);
		ASSERT_TRUE(taken(self, &self->dev2, &s));
	}
	client_new_context(&self->dev1, self->temp);
	seal(self, &self->dev1, &s);
	ASSERT_TRUE(taken(self, &self->dev1, &s));
}

/* The context was used last, and stored last, long before; the revocation comes while the broker is
 * down. */
TEST_F(in, revoked_while_the_broker_was_down)
{
	struct fake_sealed s;

	seal(self, &self->dev1, &s);
	ASSERT_TRUE(taken(self, &self->dev1, &s));
	fake_pass(self->fake, 5000);
	world_revoke(self->world, self->world->rx2_temp);
	self->world->serial++;
	crash(self);
	seal(self, &self->dev1, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_RETIRED, true));
}

TEST_F(in, contexts_seen_are_bounded)
{
	struct broker_config config;
	struct fake_sealed s;

	fake_config(false, &config);
	config.limits.contexts_max = 4;
	restart_with(self, &config);
	for (unsigned i = 0; i < 10; i++) {
		client_new_context(&self->dev1, self->temp);
		seal(self, &self->dev1, &s);
		ASSERT_TRUE(taken(self, &self->dev1, &s));
	}
	ASSERT_EQ(fake_stats(self->fake).contexts, 4);
	revoke(self);
	seal(self, &self->dev1, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_RETIRED, true));
	/* Long unused, they are forgotten when another comes. */
	fake_pass(self->fake, 1000);
	self->fake->wall_ms += 3 * 3600 * 1000;
	client_new_context(&self->dev1, self->temp);
	seal(self, &self->dev1, &s);
	ASSERT_TRUE(taken(self, &self->dev1, &s));
	ASSERT_EQ(fake_stats(self->fake).contexts, 1);
}

/* Retired ones are the last to be forgotten: else who opens many contexts would bring one back. */
TEST_F(in, retired_contexts_outlast_others)
{
	struct broker_config config;
	struct envelope_sender retired;
	struct fake_sealed s;

	fake_config(false, &config);
	config.limits.contexts_max = 4;
	restart_with(self, &config);
	seal(self, &self->dev1, &s);
	ASSERT_TRUE(taken(self, &self->dev1, &s));
	retired = self->dev1.contexts[0];
	revoke(self);
	for (unsigned i = 0; i < 10; i++) {
		client_new_context(&self->dev1, self->temp);
		seal(self, &self->dev1, &s);
		ASSERT_TRUE(taken(self, &self->dev1, &s));
	}
	client_new_context(&self->dev1, self->temp);
	self->dev1.contexts[0] = retired;
	self->dev1.context_open[0] = true;
	seal(self, &self->dev1, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_RETIRED, true));
}

TEST_F(in, contexts_of_one_sender_are_bounded)
{
	struct fake_sealed s;

	ASSERT_TRUE(client_unsubscribe(&self->rx1, "#"));
	client_seal(&self->dev2, self->temp, TOPIC, "x", 1, false, &s);
	send(self, &self->dev2, &s);
	for (unsigned i = 0; i < 1100; i++) {
		client_new_context(&self->dev1, self->temp);
		seal(self, &self->dev1, &s);
		send(self, &self->dev1, &s);
	}
	ASSERT_EQ(fake_stats(self->fake).contexts, 1024 + 1);
	/* Another's is none of those that went. */
	revoke(self);
	self->dev2.conn->read = self->dev2.conn->sent;
	client_seal(&self->dev2, self->temp, TOPIC, "x", 1, false, &s);
	ASSERT_TRUE(refused(self, &self->dev2, &s, CONTROL_RETIRED, true));
}

/* The clock was set back between a context's use and the revocation. */
TEST_F(in, clock_set_back)
{
	struct fake_sealed s;

	seal(self, &self->dev1, &s);
	ASSERT_TRUE(taken(self, &self->dev1, &s));
	self->fake->wall_ms -= 3600 * 1000;
	revoke(self);
	seal(self, &self->dev1, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_RETIRED, true));
	crash(self);
	seal(self, &self->dev1, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_RETIRED, true));
}

static int restore(struct fixture_in *self, const char *id)
{
	struct broker_commit_replay r = { .window = { .highest = 7 } };

	snprintf(r.id, sizeof(r.id), "%s", id);
	return broker_restore_replay(self->fake->engine, &r);
}

/* What storage gives back is bounded as what clients send. */
TEST_F(in, restored_ids)
{
	static const char id64[] =
		"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	static const char id65[] =
		"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdefX";

	ASSERT_EQ(restore(self, ""), -EINVAL);
	ASSERT_EQ(restore(self, id65), -EINVAL);
	ASSERT_EQ(restore(self, "dev1/"), -EINVAL);
	ASSERT_EQ(restore(self, "/dev1"), -EINVAL);
	ASSERT_EQ(restore(self, "dev1/a/b"), -EINVAL);
	ASSERT_EQ(restore(self, id64), 0);
	ASSERT_EQ(restore(self, "dev1"), 0);
	ASSERT_TRUE(client_up(&self->dev1));
	ASSERT_EQ(self->dev1.highest, 7);
}

/* --- limits ----------------------------------------------------------------------------------- */

TEST_F(in, paused_while_large_messages_wait_for_verification)
{
	struct broker_config config;
	struct fake_sealed s;

	fake_config(false, &config);
	config.limits.verify_bytes_max = 1000;
	restart_with(self, &config);
	seal(self, &self->dev1, &s);
	self->fake->hold_verify = true;
	for (size_t bytes = 0; bytes < 1000; bytes += s.n) {
		ASSERT_FALSE(self->dev1.conn->paused);
		client_publish(&self->dev1, self->temp, TOPIC, "21.5", 1);
	}
	ASSERT_TRUE(self->dev1.conn->paused);
	self->fake->hold_verify = false;
	fake_settle(self->fake);
	ASSERT_FALSE(self->dev1.conn->paused);
}

/* Every error is sent, but who causes many is not read from until the seconds have let them off. */
TEST_F(in, errors_are_rate_limited)
{
	struct broker_config config;
	struct fake_sealed s;

	fake_config(false, &config);
	config.limits.errors_per_second = 3;
	restart_with(self, &config);
	fake_pass(self->fake, 1000 - self->fake->mono_ms % 1000);
	for (unsigned i = 0; i < 5; i++) {
		ASSERT_EQ(self->dev1.conn->paused, i >= 3);
		client_seal(&self->dev1, self->temp, "site/1/door", "x", 1, false, &s);
		ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_NOT_PERMITTED, true));
	}
	fake_pass(self->fake, 900);
	ASSERT_TRUE(self->dev1.conn->paused);
	fake_pass(self->fake, 200);
	ASSERT_FALSE(self->dev1.conn->paused); /* 5 less 3: there is room for another */
	client_seal(&self->dev1, self->temp, "site/1/door", "x", 1, false, &s);
	ASSERT_TRUE(refused(self, &self->dev1, &s, CONTROL_NOT_PERMITTED, true));
	ASSERT_TRUE(self->dev1.conn->paused);
	ASSERT_FALSE(self->dev2.conn->paused);
	ASSERT_EQ(fake_stats(self->fake).errors_sent, 6);
}

/* [MQTT-4.6.0-2]: in the order of the PUBLISH packets, whatever each of them waits for. */
TEST_F(in, acknowledgements_are_in_order)
{
	uint8_t body[128];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));
	uint16_t first;

	self->fake->hold_commit = true;
	first = client_publish(&self->dev1, self->temp, TOPIC, "21.5", 1);
	client_publish(&self->dev1, self->temp, "site/1/door", "x", 1);
	client_send_signed(&self->dev1, "$SSDTF/report", bytes_str("malformed"), 1);
	bytes_write_u8(&w, CONTROL_CANNOT_OPEN); /* a nack, of nothing */
	bytes_write_u64(&w, 1);
	bytes_write_u8_view(&w, bytes_str("dev1"));
	bytes_write(&w, bytes_of(self->dev1.r_b, sizeof(self->dev1.r_b)));
	bytes_write_u32(&w, 1);
	client_send_signed(&self->dev1, "$SSDTF/nack", bytes_of(body, w.used), 1);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_NOT_PERMITTED, 2));
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_MALFORMED, 0));
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	self->fake->hold_commit = false;
	fake_settle(self->fake);
	for (uint16_t id = first; id <= first + 3; id++)
		ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, id));
	ASSERT_TRUE(client_got_nothing(&self->dev1));
}

/* Before an error's own signature comes, what was stored behind it waits. */
TEST_F(in, acknowledgement_behind_an_error)
{
	uint16_t bad, good;

	self->fake->hold_sign = true;
	bad = client_publish(&self->dev1, self->temp, "site/1/door", "x", 1);
	good = client_publish(&self->dev1, self->temp, TOPIC, "21.5", 1);
	fake_settle(self->fake);
	ASSERT_EQ(fake_stored_window(self->fake, "dev1")->highest, 2);
	ASSERT_TRUE(client_got_nothing(&self->dev1));
	self->fake->hold_sign = false;
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_error(&self->dev1, CONTROL_NOT_PERMITTED, 1));
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, bad));
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, good));
}

TEST_F(in, paused_while_many_acknowledgements_are_owed)
{
	struct broker_config config;

	fake_config(false, &config);
	config.limits.verify_pending_max = 8;
	restart_with(self, &config);
	self->fake->hold_commit = true;
	for (unsigned i = 0; i < 8; i++) {
		ASSERT_FALSE(self->dev1.conn->paused);
		client_publish(&self->dev1, self->temp, TOPIC, "x", 1);
		fake_settle(self->fake);
	}
	ASSERT_TRUE(self->dev1.conn->paused);
	self->fake->hold_commit = false;
	fake_settle(self->fake);
	ASSERT_FALSE(self->dev1.conn->paused);
	for (uint16_t i = 1; i <= 8; i++)
		ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, i));
}

/* The connection ends over an acknowledgement, with others ready and others not. */
TEST_F(in, output_full_over_an_acknowledgement)
{
	struct fake_sealed s;

	self->fake->hold_commit = true;
	for (unsigned i = 0; i < 4; i++) {
		seal(self, &self->dev1, &s);
		send(self, &self->dev1, &s);
	}
	self->dev1.conn->stalled = true;
	self->dev1.conn->out_max = 6; /* one is all that fits */
	self->fake->hold_commit = false;
	ASSERT_TRUE(fake_run_commit(self->fake));
	fake_settle(self->fake);
	ASSERT_TRUE(client_closed(&self->dev1));
	for (unsigned i = 0; i < 4; i++)
		ASSERT_TRUE(client_got_sealed(&self->rx1, "21.5", NULL));
	ASSERT_TRUE(client_up(&self->dev1));
	ASSERT_TRUE(seen(self, &self->dev1, &s));
}

TEST_F(in, oversize_packet)
{
	struct broker_config config;

	fake_config(false, &config);
	config.limits.packet_bytes_max = 1000;
	restart_with(self, &config);
	client_send_hex(&self->dev1, "32e607"); /* 998 to come: one too many */
	ASSERT_TRUE(client_closed(&self->dev1));
	client_send_hex(&self->dev2, "32e507");
	ASSERT_FALSE(client_closed(&self->dev2));
}

TEST_F(in, paused_while_too_much_waits_for_verification)
{
	struct broker_config config;

	fake_config(false, &config);
	config.limits.verify_pending_max = 8;
	restart_with(self, &config);
	self->fake->hold_verify = true;
	for (unsigned i = 0; i < 7; i++)
		client_publish(&self->dev1, self->temp, TOPIC, "x", 1);
	ASSERT_FALSE(self->dev1.conn->paused);
	client_publish(&self->dev1, self->temp, TOPIC, "x", 1);
	ASSERT_TRUE(self->dev1.conn->paused);
	client_publish(&self->dev1, self->temp, TOPIC, "x", 1); /* read before the pause */
	for (unsigned i = 0; i < 4; i++)
		ASSERT_TRUE(fake_run_verify(self->fake));
	ASSERT_TRUE(self->dev1.conn->paused);
	ASSERT_TRUE(fake_run_verify(self->fake));
	ASSERT_FALSE(self->dev1.conn->paused);
	self->fake->hold_verify = false;
	fake_settle(self->fake);
	for (unsigned i = 0; i < 9; i++)
		ASSERT_TRUE(client_got_sealed(&self->rx1, "x", NULL));
	for (uint16_t i = 1; i <= 9; i++)
		ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, i));
}
