// SPDX-License-Identifier: MIT
/*
 * The distributor's MQTT session against a broker that is played here: PROTOCOL 5 step by step and
 * spoiled at each, keep-alive, reports and errors (PROTOCOL 7), subscriptions that are remembered;
 * and what the program keeps on disk.
 */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/relay_fake.h"
#include "userspace/crypto/admission.h"
#include "userspace/distributor/bundlefile.h"
#include "userspace/distributor/session.h"
#include "userspace/distributor/store.h"
#include "userspace/distributor/subscriber.h"

#define KEEPALIVE_S 60

/* --- a folder of the test's own --------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	return remove(path);
}

static char *folder_new(char path[64])
{
	snprintf(path, 64, "/tmp/ssdtf-test.XXXXXX");
	ASSERT_TRUE(mkdtemp(path) != NULL);
	return path;
}

static void folder_remove(const char *path)
{
	ASSERT_EQ(nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* --- the broker ------------------------------------------------------------------------------- */

FIXTURE(session)
{
	struct fake_relay *f; /* keys and plan */
	struct asks asks;
	struct judge judge;
	struct hsm_job *job; /* the one that the token has */
	unsigned n_jobs;
	struct session s;
	struct fake_key *signs;
	uint64_t now;
	uint8_t r_c[32], r_b[32];
	bool opened, present;
	unsigned deliveries, pubacks, errors;
	bool delivery_holds;
	uint8_t error_reason;
	struct subscriber *subscriber;
};

static void io_token(void *io, struct hsm_job *job)
{
	struct fixture_session *self = io;

	self->job = job;
	self->n_jobs++;
}

static void on_opened(void *ctx, bool present)
{
	struct fixture_session *self = ctx;

	self->opened = true;
	self->present = present;
	if (self->subscriber)
		subscriber_opened(self->subscriber, present);
}

static bool on_publish(void *ctx, const struct mqtt_publish *p)
{
	struct fixture_session *self = ctx;

	self->deliveries++;
	return self->delivery_holds;
}

static void on_puback(void *ctx, uint16_t packet_id)
{
	((struct fixture_session *)ctx)->pubacks++;
}

static void on_suback(void *ctx, uint16_t packet_id, struct bytes codes)
{
	struct fixture_session *self = ctx;

	if (self->subscriber)
		subscriber_answered(self->subscriber, packet_id, codes);
}

static bool on_error(void *ctx, uint8_t reason, uint64_t counter, struct bytes text)
{
	struct fixture_session *self = ctx;

	self->errors++;
	self->error_reason = reason;
	return reason != 6;
}

static const struct session_ops session_ops = {
	.opened = on_opened,
	.publish = on_publish,
	.puback = on_puback,
	.suback = on_suback,
	.error = on_error,
};

FIXTURE_SETUP(session)
{
	struct session_config config = { .keepalive_s = KEEPALIVE_S, .packet_bytes_max = 65536 };

	self->f = fake_relay_new(1);
	self->signs = &self->f->broker;
	self->now = 5000;
	self->delivery_holds = true;
	asks_init(&self->asks, io_token, self, self->now);
	judge_init(&self->judge);
	session_init(&self->s, &session_ops, self, &config, &self->asks, &self->judge,
		     self->f->relay->plan, false);
}

FIXTURE_TEARDOWN(session)
{
	session_deinit(&self->s);
	fake_relay_free(self->f);
}

/* The next packet that the session has written; the frame's views hold until the next. */
static struct mqtt_frame out(struct fixture_session *self)
{
	static uint8_t copy[65536];
	struct bytes v = session_output(&self->s);
	struct mqtt_frame frame;
	size_t used, need;

	ASSERT_TRUE(v.n <= sizeof(copy));
	memcpy(copy, v.p, v.n);
	ASSERT_EQ(mqtt_frame_next(bytes_of(copy, v.n), 65536, &frame, &used, &need), MQTT_OK);
	ASSERT_TRUE(used > 0);
	session_written(&self->s, used);
	return frame;
}

static int in(struct fixture_session *self, struct bytes v)
{
	return session_input(&self->s, v, self->now);
}

static int in_publish(struct fixture_session *self, const struct mqtt_publish *p)
{
	uint8_t packet[4096];
	struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));

	mqtt_encode_publish(p, &w);
	ASSERT_FALSE(w.bad);
	return in(self, bytes_of(packet, w.used));
}

/* A message of the broker's on a $SSDTF topic. */
static int in_control(struct fixture_session *self, const char *topic, struct bytes body)
{
	uint8_t payload[2048];
	struct publish p = { .first = mqtt_publish_first(0, false, false),
			     .topic = bytes_str(topic),
			     .body = { body },
			     .body_parts = 1,
			     .client_id = bytes_str(FAKE_ID) };

	memcpy(payload, body.p, body.n);
	ASSERT_EQ(publish_sign(&p, self->signs->sign, payload + body.n), 0);
	return in_publish(self,
			  &(struct mqtt_publish){
				  .topic = p.topic,
				  .payload = bytes_of(payload, body.n + PUBLISH_TRAILER_1_BYTES) });
}

static int in_connack(struct fixture_session *self, bool present, uint8_t code)
{
	uint8_t packet[8];
	struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));

	mqtt_encode_connack(present, code, &w);
	return in(self, bytes_of(packet, w.used));
}

/* The token signs what it has. */
static void token_signs(struct fixture_session *self)
{
	struct hsm_job *job = self->job;

	ASSERT_TRUE(job != NULL);
	self->job = NULL;
	ASSERT_EQ(job->op, HSM_SIGN);
	ASSERT_EQ(p256_sign_digest(self->f->own.sign, job->input, job->output), 0);
	job->status = HSM_OK;
	job->done(NULL, job);
}

static void token_is_away(struct fixture_session *self)
{
	struct hsm_job *job = self->job;

	ASSERT_TRUE(job != NULL);
	self->job = NULL;
	job->status = HSM_UNAVAILABLE;
	job->done(NULL, job);
}

/* The session's own message on a $SSDTF topic: its body, once its signature holds. */
static struct bytes signed_out(struct fixture_session *self, const char *topic)
{
	static uint8_t body[1024];
	struct mqtt_frame frame = out(self);
	struct publish signed_as = { .first = mqtt_publish_first(0, false, false),
				     .topic = bytes_str(topic),
				     .body_parts = 1,
				     .client_id = bytes_str(FAKE_ID) };
	struct publish_trailer t;
	struct mqtt_publish p;

	ASSERT_EQ(mqtt_decode_publish(&frame, &p), MQTT_OK);
	ASSERT_TRUE(bytes_equal(p.topic, bytes_str(topic)));
	ASSERT_EQ(p.qos, 0);
	ASSERT_EQ(publish_split(p.payload, &t), 0);
	ASSERT_EQ(t.kind, 1);
	signed_as.body[0] = t.body;
	ASSERT_EQ(publish_verify(&signed_as, &t, self->f->own.verify), 0);
	memcpy(body, t.body.p, t.body.n);
	return bytes_of(body, t.body.n);
}

static void take_connect(struct fixture_session *self)
{
	struct mqtt_frame frame;
	struct mqtt_connect c;
	uint8_t token[ADMISSION_TOKEN_BYTES];

	session_begin(&self->s, self->now, FAKE_NOW_MS);
	frame = out(self);
	ASSERT_EQ(mqtt_decode_connect(frame.body, &c), MQTT_OK);
	ASSERT_TRUE(bytes_equal(c.client_id, bytes_str(FAKE_ID)));
	ASSERT_FALSE(c.clean_session);
	ASSERT_EQ(c.keepalive_s, KEEPALIVE_S);
	ASSERT_EQ(c.user_name.n, 43);
	ASSERT_EQ(admission_token(self->f->relay->plan->bundle.k_adm, c.client_id, c.user_name,
				  admission_slot(FAKE_NOW_MS), token),
		  0);
	ASSERT_TRUE(bytes_equal(c.password, bytes_of(token, sizeof(token))));
	memcpy(self->r_c, self->s.r_c, sizeof(self->r_c));
	hash_random(self->r_b, sizeof(self->r_b));
}

struct challenge {
	uint8_t bytes[66];
	struct bytes body;
};

static struct challenge challenge_of(struct fixture_session *self)
{
	struct challenge c;

	memcpy(c.bytes, self->r_c, 32);
	memcpy(c.bytes + 32, self->r_b, 32);
	c.bytes[64] = 4;
	c.bytes[65] = 0xc0;
	return c;
}

static int in_challenge(struct fixture_session *self, const struct challenge *c)
{
	return in_control(self, "$SSDTF/auth/challenge", bytes_of(c->bytes, sizeof(c->bytes)));
}

static int in_result(struct fixture_session *self)
{
	uint8_t body[41] = { 0 };

	memcpy(body + 1, self->r_b, 32);
	return in_control(self, "$SSDTF/auth/result", bytes_of(body, sizeof(body)));
}

/* response := R_b || R_c || SHA-256(broker's public point) */
static void check_response(struct fixture_session *self)
{
	struct bytes body = signed_out(self, "$SSDTF/auth/response");
	uint8_t hash[HASH_BYTES];

	hash_one(bytes_of(self->signs->point.b, P256_POINT_BYTES), hash);
	ASSERT_EQ(body.n, 96);
	ASSERT_BYTES(body.p, self->r_b, 32);
	ASSERT_BYTES(body.p + 32, self->r_c, 32);
	ASSERT_BYTES(body.p + 64, hash, 32);
}

static void open_session(struct fixture_session *self, bool present)
{
	struct challenge c;

	take_connect(self);
	ASSERT_EQ(in_connack(self, present, 0), 0);
	c = challenge_of(self);
	ASSERT_EQ(in_challenge(self, &c), 0);
	token_signs(self);
	check_response(self);
	ASSERT_EQ(in_result(self), 0);
	ASSERT_TRUE(self->opened && session_is_open(&self->s));
	ASSERT_EQ(self->present, present);
}

/* --- authentication --------------------------------------------------------------------------- */

TEST_F(session, opens)
{
	open_session(self, true);
}

/* The broker's next key is as good; the response names the one that it proved. */
TEST_F(session, opens_by_next_key)
{
	self->signs = &self->f->next_broker;
	open_session(self, false);
}

TEST_F(session, refused)
{
	for (uint8_t code = 1; code <= 5; code++) {
		take_connect(self);
		EXPECT_EQ(in_connack(self, false, code), -EPROTO);
		EXPECT_TRUE(strstr(self->s.why, "CONNACK") != NULL);
		session_end(&self->s);
	}
}

/* Each byte of the challenge counts; and it is the broker's. */
TEST_F(session, challenge_spoiled)
{
	static const unsigned spoiled[] = { 0, 31, 64, 65 };
	struct challenge c;

	for (unsigned i = 0; i < ARRAY_SIZE(spoiled); i++) {
		take_connect(self);
		ASSERT_EQ(in_connack(self, false, 0), 0);
		c = challenge_of(self);
		c.bytes[spoiled[i]] ^= 1;
		EXPECT_EQ(in_challenge(self, &c), -EPROTO);
		EXPECT_EQ(self->n_jobs, 0);
		session_end(&self->s);
	}
	take_connect(self);
	ASSERT_EQ(in_connack(self, false, 0), 0);
	c = challenge_of(self);
	self->signs = &self->f->own;
	EXPECT_EQ(in_challenge(self, &c), -EPROTO);
	EXPECT_TRUE(strstr(self->s.why, "it is not 'gw-1'") != NULL);
}

TEST_F(session, result_spoiled)
{
	struct challenge c;

	take_connect(self);
	ASSERT_EQ(in_connack(self, false, 0), 0);
	c = challenge_of(self);
	ASSERT_EQ(in_challenge(self, &c), 0);
	token_signs(self);
	self->r_b[0] ^= 1;
	EXPECT_EQ(in_result(self), -EPROTO);
	EXPECT_FALSE(self->opened);
}

/* Nothing may stand before, between or twice. */
TEST_F(session, out_of_order)
{
	struct challenge c;

	take_connect(self);
	c = challenge_of(self);
	EXPECT_EQ(in_challenge(self, &c), -EPROTO);
	session_end(&self->s);
	take_connect(self);
	ASSERT_EQ(in_connack(self, false, 0), 0);
	EXPECT_EQ(in_result(self), -EPROTO);
	session_end(&self->s);
	take_connect(self);
	ASSERT_EQ(in_connack(self, false, 0), 0);
	c = challenge_of(self);
	ASSERT_EQ(in_challenge(self, &c), 0);
	EXPECT_EQ(in_result(self), -EPROTO); /* before the response is signed */
	session_end(&self->s);
	EXPECT_FALSE(self->opened);
	token_signs(self); /* for the session that ended: nothing comes of it */
	EXPECT_EQ(session_output(&self->s).n, 0);
}

/* A response that waits for the token goes with its session, and the next one has its own. */
TEST_F(session, token_away)
{
	struct challenge c;

	take_connect(self);
	ASSERT_EQ(in_connack(self, false, 0), 0);
	c = challenge_of(self);
	ASSERT_EQ(in_challenge(self, &c), 0);
	token_is_away(self);
	asks_tick(&self->asks, self->now + ASK_RETRY_MS - 1);
	EXPECT_EQ(self->n_jobs, 1);
	asks_tick(&self->asks, self->now + ASK_RETRY_MS);
	EXPECT_EQ(self->n_jobs, 2);
	token_is_away(self);
	session_end(&self->s);
	asks_tick(&self->asks, self->now + 10000);
	EXPECT_EQ(self->n_jobs, 2);
	open_session(self, false);
}

TEST_F(session, patience)
{
	take_connect(self);
	EXPECT_EQ(session_due_ms(&self->s), self->now + SESSION_OPEN_MS);
	EXPECT_EQ(session_tick(&self->s, self->now + SESSION_OPEN_MS - 1), 0);
	EXPECT_EQ(session_tick(&self->s, self->now + SESSION_OPEN_MS), -ETIMEDOUT);
}

/* --- an open session -------------------------------------------------------------------------- */

TEST_F(session, keepalive)
{
	struct mqtt_frame frame;
	uint8_t pong[2] = { 0xd0, 0 };

	open_session(self, false);
	EXPECT_EQ(session_tick(&self->s, self->now + KEEPALIVE_S * 500 - 1), 0);
	EXPECT_EQ(session_output(&self->s).n, 0);
	self->now = session_due_ms(&self->s);
	EXPECT_EQ(session_tick(&self->s, self->now), 0);
	frame = out(self);
	EXPECT_EQ(mqtt_frame_type(&frame), MQTT_PINGREQ);
	self->now += 100;
	EXPECT_EQ(in(self, bytes_of(pong, 2)), 0);
	self->now = session_due_ms(&self->s);
	EXPECT_EQ(session_tick(&self->s, self->now), 0);
	(void)out(self);
	self->now = session_due_ms(&self->s);
	EXPECT_EQ(session_tick(&self->s, self->now), -ETIMEDOUT);
}

/* Packets in any pieces, several in one. */
TEST_F(session, pieces)
{
	uint8_t packets[256];
	struct bytes_writer w = bytes_writer_of(packets, sizeof(packets));
	struct mqtt_publish p = {
		.qos = 1, .packet_id = 9, .topic = bytes_str("t"), .payload = bytes_str("anything")
	};

	open_session(self, false);
	mqtt_encode_ack(MQTT_PUBACK, 3, &w);
	mqtt_encode_publish(&p, &w);
	mqtt_encode_publish(&p, &w);
	mqtt_encode_ack(MQTT_PUBACK, 4, &w);
	for (size_t at = 0; at < w.used; at++)
		ASSERT_EQ(in(self, bytes_of(packets + at, 1)), 0);
	EXPECT_EQ(self->deliveries, 2);
	EXPECT_EQ(self->pubacks, 2);
	for (size_t cut = 1; cut < w.used; cut++) {
		ASSERT_EQ(in(self, bytes_of(packets, cut)), 0);
		ASSERT_EQ(in(self, bytes_of(packets + cut, w.used - cut)), 0);
	}
	EXPECT_EQ(self->deliveries, 2 * w.used);
	EXPECT_EQ(self->pubacks, 2 * w.used);
	EXPECT_EQ(session_output(&self->s).n, 0); /* PUBACK is the relay's to send */
}

/* What the broker did not sign ends the session at QoS 1 and is passed over at QoS 0. */
TEST_F(session, forged)
{
	struct mqtt_publish p = { .topic = bytes_str("t"), .payload = bytes_str("forged") };

	open_session(self, false);
	self->delivery_holds = false;
	EXPECT_EQ(in_publish(self, &p), 0);
	p.qos = 1;
	p.packet_id = 5;
	EXPECT_EQ(in_publish(self, &p), -EPROTO);
	EXPECT_EQ(session_output(&self->s).n, 0);
}

TEST_F(session, not_of_a_server)
{
	static const uint8_t packets[][4] = {
		{ 0x10, 0 }, { 0x50, 2, 0, 1 }, { 0x82, 2, 0, 1 },
		{ 0xc0, 0 }, { 0xe0, 0 },	{ 0, 0 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(packets); i++) {
		open_session(self, false);
		EXPECT_EQ(in(self, bytes_of(packets[i], packets[i][1] ? 4 : 2)), -EPROTO);
		session_end(&self->s);
		self->opened = false;
	}
}

/* report := u8 reason || u64 counter || u8+ id || u16+ text || R_b || u32 n */
TEST_F(session, reports)
{
	struct bytes_reader r;

	EXPECT_FALSE(session_report(&self->s, 1, 2, bytes_str("x"), bytes_str("y")));
	open_session(self, false);
	for (uint32_t n = 1; n < 4; n++) {
		ASSERT_TRUE(session_report(&self->s, 5, 77, bytes_str("sensor-17"),
					   bytes_str("words")));
		token_signs(self);
		r = bytes_reader_of(signed_out(self, "$SSDTF/report"));
		EXPECT_EQ(bytes_read_u8(&r), 5);
		EXPECT_EQ(bytes_read_u64(&r), 77);
		EXPECT_TRUE(bytes_equal(bytes_read_u8_view(&r), bytes_str("sensor-17")));
		EXPECT_TRUE(bytes_equal(bytes_read_u16_view(&r), bytes_str("words")));
		EXPECT_TRUE(bytes_equal(bytes_read_view(&r, 32), bytes_of(self->r_b, 32)));
		EXPECT_EQ(bytes_read_u32(&r), n);
		EXPECT_TRUE(bytes_read_done(&r));
	}
	/* Too many that the token does not sign are left out. */
	for (unsigned i = 0; i < SESSION_CONTROLS_MAX; i++) {
		ASSERT_TRUE(session_report(&self->s, 5, 77, bytes_str("x"), bytes_str("")));
		token_is_away(self);
	}
	EXPECT_FALSE(session_report(&self->s, 5, 77, bytes_str("x"), bytes_str("")));
}

static int in_error_of(struct fixture_session *self, uint8_t reason, const uint8_t r_b[32],
		       uint32_t n)
{
	uint8_t body[64];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	bytes_write_u8(&w, reason);
	bytes_write_u64(&w, 99);
	bytes_write_u16_view(&w, bytes_str("no"));
	bytes_write(&w, bytes_of(r_b, 32));
	bytes_write_u32(&w, n);
	ASSERT_FALSE(w.bad);
	return in_control(self, "$SSDTF/error", bytes_of(body, w.used));
}

static int in_error(struct fixture_session *self, const uint8_t r_b[32], uint32_t n)
{
	return in_error_of(self, 4, r_b, n);
}

TEST_F(session, errors)
{
	uint8_t other[32] = { 1 };

	open_session(self, false);
	EXPECT_EQ(in_error(self, self->r_b, 1), 0);
	EXPECT_EQ(self->errors, 1);
	EXPECT_EQ(self->error_reason, 4);
	EXPECT_EQ(in_error(self, self->r_b, 1), 0); /* was here before */
	EXPECT_EQ(in_error(self, other, 2), 0);	    /* of another session */
	self->signs = &self->f->own;
	EXPECT_EQ(in_error(self, self->r_b, 3), 0); /* forged */
	EXPECT_EQ(self->errors, 1);
	self->signs = &self->f->broker;
	EXPECT_EQ(in_error(self, self->r_b, 2), 0);
	EXPECT_EQ(self->errors, 2);
	/* No PUBACK follows: another session sends it again. */
	EXPECT_EQ(in_error_of(self, 6, self->r_b, 3), -EPROTO);
}

/* --- subscriptions ---------------------------------------------------------------------------- */

static int in_suback(struct fixture_session *self, uint16_t id, uint8_t code)
{
	uint8_t packet[8];
	struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));

	if (id == SESSION_ID_SUBSCRIBE)
		mqtt_encode_suback(id, &code, 1, &w);
	else
		mqtt_encode_ack(MQTT_UNSUBACK, id, &w);
	return in(self, bytes_of(packet, w.used));
}

static struct bytes subscribed(struct fixture_session *self)
{
	static struct mqtt_subscribe sub;
	struct mqtt_frame frame = out(self);

	ASSERT_EQ(mqtt_frame_type(&frame), MQTT_SUBSCRIBE);
	ASSERT_EQ(mqtt_decode_subscribe(frame.body, &sub), MQTT_OK);
	ASSERT_EQ(sub.n, 1);
	ASSERT_EQ(sub.list[0].qos, 1);
	return sub.list[0].filter;
}

/* Once, as long as the broker keeps the session; anew where it lost it. */
TEST_F(session, subscribes)
{
	char path[64], why[STORE_ERROR_BYTES];
	struct subscriber sub;
	struct store *store;

	ASSERT_EQ(store_open(folder_new(path), &store, why), 0);
	ASSERT_EQ(subscriber_init(&sub, &self->s, store), 0);
	self->subscriber = &sub;
	subscriber_plan(&sub, self->f->relay->plan);
	open_session(self, false);
	EXPECT_TRUE(bytes_equal(subscribed(self), bytes_str("#")));
	EXPECT_EQ(in_suback(self, SESSION_ID_SUBSCRIBE, 1), 0);
	EXPECT_EQ(session_output(&self->s).n, 0);
	/* The process ends; its successor finds the session as it was. */
	session_end(&self->s);
	subscriber_deinit(&sub);
	ASSERT_EQ(subscriber_init(&sub, &self->s, store), 0);
	subscriber_plan(&sub, self->f->relay->plan);
	open_session(self, true);
	EXPECT_EQ(session_output(&self->s).n, 0);
	session_end(&self->s);
	subscriber_closed(&sub);
	open_session(self, false);
	EXPECT_TRUE(bytes_equal(subscribed(self), bytes_str("#")));
	EXPECT_EQ(in_suback(self, SESSION_ID_SUBSCRIBE, 0x80), 0);
	EXPECT_EQ(session_output(&self->s).n, 0); /* refused: not asked for again in this session */
	session_end(&self->s);
	self->subscriber = NULL;
	subscriber_deinit(&sub);
	store_close(store);
	folder_remove(path);
}

/* A filter whose hop is gone is given back. */
TEST_F(session, unsubscribes)
{
	static const struct bytes old[] = { { (const uint8_t *)"#", 1 },
					    { (const uint8_t *)"old/+", 5 } };
	char path[64], why[STORE_ERROR_BYTES];
	struct mqtt_unsubscribe unsub;
	struct mqtt_frame frame;
	struct subscriber sub;
	struct store *store;

	ASSERT_EQ(store_open(folder_new(path), &store, why), 0);
	ASSERT_EQ(store_set_filters(store, old, 2), 0);
	ASSERT_EQ(subscriber_init(&sub, &self->s, store), 0);
	self->subscriber = &sub;
	subscriber_plan(&sub, self->f->relay->plan);
	open_session(self, true);
	frame = out(self);
	ASSERT_EQ(mqtt_frame_type(&frame), MQTT_UNSUBSCRIBE);
	ASSERT_EQ(mqtt_decode_unsubscribe(frame.body, &unsub), MQTT_OK);
	ASSERT_EQ(unsub.n, 1);
	EXPECT_TRUE(bytes_equal(unsub.filters[0], bytes_str("old/+")));
	EXPECT_EQ(in_suback(self, SESSION_ID_UNSUBSCRIBE, 0), 0);
	EXPECT_EQ(sub.have.n, 1);
	EXPECT_EQ(session_output(&self->s).n, 0);
	self->subscriber = NULL;
	subscriber_deinit(&sub);
	store_close(store);
	folder_remove(path);
}

/* --- the store -------------------------------------------------------------------------------- */

FIXTURE(store)
{
	char path[64], why[STORE_ERROR_BYTES];
	struct store *s;
};

FIXTURE_SETUP(store)
{
	ASSERT_EQ(store_open(folder_new(self->path), &self->s, self->why), 0);
}

FIXTURE_TEARDOWN(store)
{
	store_close(self->s);
	folder_remove(self->path);
}

static void reopen(struct fixture_store *self)
{
	store_close(self->s);
	ASSERT_EQ(store_open(self->path, &self->s, self->why), 0);
}

static struct relay_row row_of(uint8_t i)
{
	struct relay_row row = { .trace_n = 100, .from_ms = 1, .until_ms = 2 };

	memset(row.lookup, i, sizeof(row.lookup));
	memset(row.external, i + 1, sizeof(row.external));
	return row;
}

TEST_F(store, ids)
{
	struct relay_row rows[] = { row_of(1), row_of(2), row_of(3) };
	uint8_t external[IDTABLE_EXTERNAL_BYTES];

	EXPECT_EQ(store_id_find(self->s, rows[0].lookup, external), -ENOENT);
	ASSERT_EQ(store_ids_put(self->s, rows, 2), 0);
	reopen(self);
	for (unsigned i = 0; i < 2; i++) {
		ASSERT_EQ(store_id_find(self->s, rows[i].lookup, external), 0);
		ASSERT_BYTES(external, rows[i].external, sizeof(external));
	}
	/* All or none: one that is there spoils the other. */
	rows[1] = rows[2];
	rows[2] = row_of(1);
	EXPECT_TRUE(store_ids_put(self->s, &rows[1], 2) < 0);
	EXPECT_EQ(store_id_find(self->s, rows[1].lookup, external), -ENOENT);
	EXPECT_EQ(store_ids_put(self->s, &rows[1], 1), 0);
}

/* Those that ended go; those without an end, and those that still hold, stay. */
TEST_F(store, ids_forgotten)
{
	struct relay_row rows[] = { row_of(1), row_of(2), row_of(3) };
	uint8_t external[IDTABLE_EXTERNAL_BYTES];
	bool more = true;

	rows[0].until_ms = 1000;
	rows[1].until_ms = 1001;
	rows[2].until_ms = 0;
	ASSERT_EQ(store_ids_put(self->s, rows, 3), 0);
	ASSERT_EQ(store_ids_forget(self->s, 1001, &more), 0);
	EXPECT_FALSE(more);
	EXPECT_EQ(store_id_find(self->s, rows[0].lookup, external), -ENOENT);
	EXPECT_EQ(store_id_find(self->s, rows[1].lookup, external), 0);
	EXPECT_EQ(store_id_find(self->s, rows[2].lookup, external), 0);
}

TEST_F(store, serial)
{
	EXPECT_EQ(store_serial(self->s), 0);
	ASSERT_EQ(store_set_serial(self->s, 77), 0);
	reopen(self);
	EXPECT_EQ(store_serial(self->s), 77);
}

TEST_F(store, one_at_a_time)
{
	struct store *other;

	EXPECT_EQ(store_open(self->path, &other, self->why), -EBUSY);
	EXPECT_TRUE(strstr(self->why, "another distributor") != NULL);
	ASSERT_EQ(store_open_reader(self->path, &other, self->why), 0);
	store_close(other);
}

TEST(store_refusals)
{
	char path[64], file[80], why[STORE_ERROR_BYTES];
	struct store *s;
	FILE *f;

	folder_new(path);
	ASSERT_EQ(chmod(path, 0750), 0);
	EXPECT_EQ(store_open(path, &s, why), -EPERM);
	EXPECT_TRUE(strstr(why, "0700") != NULL);
	ASSERT_EQ(chmod(path, 0700), 0);
	EXPECT_EQ(store_open_reader(path, &s, why), -ENOENT);
	snprintf(file, sizeof(file), "%s/" IDTABLE_FILE, path);
	f = fopen(file, "w");
	ASSERT_TRUE(f && fputs("no database of anybody's, but long enough to be looked at", f) > 0);
	fclose(f);
	EXPECT_EQ(store_open(path, &s, why), -EUCLEAN);
	folder_remove(path);
}

static struct relay_sight sight_of(const char *outlet, const char *topic, size_t n, uint8_t who)
{
	struct relay_sight s = { .outlet = bytes_str(outlet),
				 .topic = bytes_str(topic),
				 .plain_n = n };

	memset(s.mark, who, sizeof(s.mark));
	return s;
}

struct seen_views {
	unsigned n;
	uint64_t senders[8], messages[8], size[8];
};

static int take_view(void *ctx, const struct store_view *v)
{
	struct seen_views *seen = ctx;

	ASSERT_TRUE(seen->n < 8);
	seen->senders[seen->n] = v->senders;
	seen->messages[seen->n] = v->messages;
	seen->size[seen->n++] = v->size_max;
	return 0;
}

/* Senders are counted once, messages each time, sizes by powers of two; over restarts, too. */
TEST_F(store, views)
{
	struct seen_views seen = { 0 };
	uint64_t period;

	EXPECT_EQ(store_newest_period(self->s, &period), -ENOENT);
	for (unsigned i = 0; i < 10; i++) {
		struct relay_sight a = sight_of("o1", "t/+", 10, (uint8_t)(i % 3));
		struct relay_sight b = sight_of("o1", "t/+", 33, 1),
				   c = sight_of("o2", "t/+", 0, 1);

		ASSERT_EQ(store_sight(self->s, &a, 7), 0);
		ASSERT_EQ(store_sight(self->s, &b, 7), 0);
		ASSERT_EQ(store_sight(self->s, &c, 6), 0);
		if (i == 4)
			reopen(self);
	}
	ASSERT_EQ(store_flush(self->s), 0);
	ASSERT_EQ(store_newest_period(self->s, &period), 0);
	EXPECT_EQ(period, 7);
	ASSERT_EQ(store_views(self->s, 7, take_view, &seen), 0);
	ASSERT_EQ(seen.n, 2);
	EXPECT_EQ(seen.senders[0], 1); /* the fewest first */
	EXPECT_EQ(seen.size[0], 64);
	EXPECT_EQ(seen.messages[0], 10);
	EXPECT_EQ(seen.senders[1], 3);
	EXPECT_EQ(seen.size[1], 32);
	EXPECT_EQ(seen.messages[1], 10);
}

TEST_F(store, views_are_forgotten)
{
	struct relay_sight a = sight_of("o", "t", 1, 1);
	struct seen_views seen = { 0 };

	ASSERT_EQ(store_sight(self->s, &a, 100), 0);
	ASSERT_EQ(store_sight(self->s, &a, 100 + STORE_PERIODS_KEPT), 0);
	ASSERT_EQ(store_views(self->s, 100, take_view, &seen), 0);
	EXPECT_EQ(seen.n, 1);
	ASSERT_EQ(store_sight(self->s, &a, 101 + STORE_PERIODS_KEPT), 0);
	ASSERT_EQ(store_flush(self->s), 0);
	seen.n = 0;
	ASSERT_EQ(store_views(self->s, 100, take_view, &seen), 0);
	EXPECT_EQ(seen.n, 0);
}

/* --- bundles ---------------------------------------------------------------------------------- */

static void write_file(const char *path, const uint8_t *bytes, size_t n, mode_t mode)
{
	FILE *f = fopen(path, "wb");

	ASSERT_TRUE(f && fwrite(bytes, 1, n, f) == n && !fclose(f) && !chmod(path, mode));
}

TEST(bundles)
{
	struct fake_relay *f = fake_relay_new(1);
	struct bundlefile_expect e = { .manager = f->manager.verify, .wall_ms = FAKE_NOW_MS };
	char folder[64], path[80], why[BUNDLEFILE_ERROR_BYTES];
	struct fake_key own = f->own;
	struct plan *p, *q;
	size_t n;
	uint8_t *whole = fake_bundle(f, &n);

	snprintf(path, sizeof(path), "%s/bundle", folder_new(folder));
	EXPECT_EQ(bundlefile_read(path, &e, &p, why), -ENOENT);
	write_file(path, whole, n, 0640);
	EXPECT_EQ(bundlefile_read(path, &e, &p, why), -EPERM);
	write_file(path, whole, n - 1, 0600);
	EXPECT_EQ(bundlefile_read(path, &e, &p, why), -EBADMSG);
	write_file(path, whole, n, 0600);
	e.manager = f->own.verify;
	EXPECT_EQ(bundlefile_read(path, &e, &p, why), -EBADMSG);
	e.manager = f->manager.verify;
	e.serial_min = f->serial + 1;
	EXPECT_EQ(bundlefile_read(path, &e, &p, why), -ESTALE);
	e.serial_min = f->serial;
	ASSERT_EQ(bundlefile_read(path, &e, &p, why), 0);
	EXPECT_EQ(p->n_outlets, 2);
	EXPECT_EQ(plan_hop(p, bytes_of(f->hop_id, 8))->n_outlets, 2);
	EXPECT_TRUE(p->one_broker);
	/* Other keys of its own take a restart. */
	free(whole);
	f->own = f->manager;
	whole = fake_bundle(f, &n);
	f->own = own;
	write_file(path, whole, n, 0600);
	e.now = p;
	EXPECT_EQ(bundlefile_read(path, &e, &q, why), -EXDEV);
	EXPECT_TRUE(strstr(why, "restart") != NULL);
	free(whole);
	plan_put(p);
	fake_relay_free(f);
	folder_remove(folder);
}

HARNESS_MAIN
