// SPDX-License-Identifier: MIT
/*
 * $SSDTF/claim in the engine (PROTOCOL 15): a device's claim reaches the managers that are here, a
 * manager's decision the device, and the connection lives through the bundle that certifies it.
 */
#include <errno.h>

#include "tests/fake_client.h"
#include "tests/harness.h"
#include "userspace/bundle/relay.h"

HARNESS_MAIN

#define TOPIC "$SSDTF/claim"

FIXTURE(claims)
{
	struct world *world;
	struct fake_broker *fake;
	struct fake_client mgr, dev1, dev2;
	struct secret32 new_scalar;
	struct p256_private *new_key;
	uint32_t n; /* the last of the device's, and of the manager's */
	bool has_not_the_key;
	uint8_t request[RELAY_REQUEST_BYTES + 36];
};

FIXTURE_SETUP(claims)
{
	self->world = world_new(NULL);
	self->fake = self->world->fake;
	self->world->dev1->flags = RECORD_PARTY_CLAIM;
	world_apply(self->world);
	client_init_party(&self->mgr, self->world, self->world->mgr);
	client_init_party(&self->dev1, self->world, self->world->dev1);
	client_init_party(&self->dev2, self->world, self->world->dev2);
	self->new_scalar.b[31] = 77;
	ASSERT_EQ(p256_private_new(&self->new_scalar, &self->new_key), 0);
	ASSERT_TRUE(client_up(&self->mgr));
	ASSERT_TRUE(client_up(&self->dev1));
}

FIXTURE_TEARDOWN(claims)
{
	client_deinit(&self->mgr);
	client_deinit(&self->dev1);
	client_deinit(&self->dev2);
	p256_private_free(self->new_key);
	world_free(self->world);
}

/* The device's claim of the new key, numbered n. */
static void send_claim(struct fixture_claims *self, struct fake_client *c, uint32_t n)
{
	struct bytes_writer w = bytes_writer_of(self->request, sizeof(self->request));
	struct claim_request q = { 0 };
	uint8_t digest[P256_DIGEST_BYTES];

	p256_private_point(self->new_key, &q.signing);
	q.answer = q.signing;
	claim_request_digest(&q, bytes_str(c->id), c->r_b, digest);
	ASSERT_EQ(p256_sign_digest(self->new_key, digest, q.sig), 0);
	q.sig[7] ^= self->has_not_the_key;
	claim_request_write(&q, &w);
	bytes_write(&w, bytes_of(c->r_b, sizeof(c->r_b)));
	bytes_write_u32(&w, n);
	ASSERT_FALSE(w.bad);
	client_send_signed(c, TOPIC, bytes_of(self->request, w.used), 1);
	fake_settle(self->fake);
}

/* body without the session's end. */
static bool got(struct fake_client *c, uint32_t n, struct bytes *ret_said)
{
	struct bytes body;
	struct bytes_reader r;

	if (!client_got_control(c, TOPIC, &body) || body.n < 36)
		return false;
	r = bytes_reader_of(body);
	*ret_said = bytes_read_view(&r, body.n - 36);
	return bytes_equal(bytes_read_view(&r, 32), bytes_of(c->r_b, sizeof(c->r_b))) &&
	       bytes_read_u32(&r) == n;
}

/* What the device said, whole and signed by it. */
static bool forwarded(struct fixture_claims *self, struct fake_client *mgr, uint32_t n)
{
	struct relay_forward f;
	struct publish_trailer t;
	struct bytes said;
	struct publish p = { .topic = bytes_str(TOPIC), .body_parts = 1 };

	if (!got(mgr, n, &said) || relay_read_forward(said, &f) || publish_split(f.payload, &t))
		return false;
	p.first = f.first;
	p.client_id = f.id;
	p.body[0] = t.body;
	return f.first == 0x32 && bytes_equal(f.id, bytes_str("dev1")) &&
	       bytes_equal(t.body, bytes_of(self->request, sizeof(self->request))) &&
	       !publish_verify(&p, &t, self->world->dev1->key_public);
}

static void send_decision(struct fixture_claims *self, const char *id, const char *text)
{
	const struct claim_answer a = { .result = CLAIM_REFUSED, .text = bytes_str(text) };
	uint8_t body[512];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	relay_write_decision(bytes_str(id), &a, &w);
	bytes_write(&w, bytes_of(self->mgr.r_b, sizeof(self->mgr.r_b)));
	bytes_write_u32(&w, ++self->n);
	ASSERT_FALSE(w.bad);
	client_send_signed(&self->mgr, TOPIC, bytes_of(body, w.used), 0);
	fake_settle(self->fake);
}

static bool answered(struct fake_client *c, uint32_t n, enum claim_result result, const char *text)
{
	struct claim_answer a;
	struct bytes_reader r;
	struct bytes said;

	if (!got(c, n, &said))
		return false;
	r = bytes_reader_of(said);
	claim_answer_read(&r, &a);
	return bytes_read_done(&r) && a.result == result && bytes_equal(a.text, bytes_str(text));
}

static bool refused(struct fake_client *c, enum control_reason reason)
{
	enum control_reason got_reason;
	uint64_t counter;

	return client_got_any_error(c, &got_reason, &counter) && got_reason == reason;
}

TEST_F(claims, a_claim_and_its_answer)
{
	send_claim(self, &self->dev1, 1);
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, self->dev1.packet_id));
	ASSERT_TRUE(forwarded(self, &self->mgr, 1));
	send_decision(self, "dev1", "no");
	ASSERT_TRUE(answered(&self->dev1, 1, CLAIM_REFUSED, "no"));
	send_claim(self, &self->dev1, 2);
	ASSERT_TRUE(forwarded(self, &self->mgr, 2));
	send_decision(self, "dev1", "still no");
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, self->dev1.packet_id));
	ASSERT_TRUE(answered(&self->dev1, 2, CLAIM_REFUSED, "still no"));
}

TEST_F(claims, nobody_is_here_to_decide)
{
	fake_hang_up(self->mgr.conn);
	fake_settle(self->fake);
	send_claim(self, &self->dev1, 1);
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, self->dev1.packet_id));
	ASSERT_TRUE(answered(&self->dev1, 1, CLAIM_TRY_AGAIN, "no manager is here"));
}

TEST_F(claims, malformed_ones)
{
	uint8_t body[RELAY_REQUEST_BYTES + 36] = { CLAIM_REQUEST };

	send_claim(self, &self->dev1, 5);
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, self->dev1.packet_id));
	ASSERT_TRUE(forwarded(self, &self->mgr, 1));
	send_claim(self, &self->dev1, 5); /* a copy */
	ASSERT_TRUE(refused(&self->dev1, CONTROL_MALFORMED));
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, self->dev1.packet_id));
	self->dev1.r_b[3] ^= 1; /* another session's */
	send_claim(self, &self->dev1, 6);
	self->dev1.r_b[3] ^= 1;
	ASSERT_TRUE(refused(&self->dev1, CONTROL_MALFORMED));
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, self->dev1.packet_id));
	client_send_signed(&self->dev1, TOPIC, bytes_of(body, sizeof(body)), 0); /* no points */
	fake_settle(self->fake);
	ASSERT_TRUE(refused(&self->dev1, CONTROL_MALFORMED));
	client_send_signed(&self->dev1, TOPIC, bytes_str("x"), 0);
	fake_settle(self->fake);
	ASSERT_TRUE(refused(&self->dev1, CONTROL_MALFORMED));
	ASSERT_TRUE(client_got_nothing(&self->mgr));
}

/* A device does not decide, whatever it says it is. */
TEST_F(claims, decisions_of_others)
{
	const struct claim_answer a = { .result = CLAIM_CERTIFIED };
	uint8_t body[512];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	ASSERT_TRUE(client_up(&self->dev2));
	relay_write_decision(bytes_str("dev1"), &a, &w);
	bytes_write(&w, bytes_of(self->dev2.r_b, sizeof(self->dev2.r_b)));
	bytes_write_u32(&w, 1);
	client_send_signed(&self->dev2, TOPIC, bytes_of(body, w.used), 0);
	fake_settle(self->fake);
	ASSERT_TRUE(refused(&self->dev2, CONTROL_MALFORMED));
	ASSERT_TRUE(client_got_nothing(&self->dev1));
}

TEST_F(claims, decisions_for_nobody)
{
	send_decision(self, "dev2", "not here");
	send_decision(self, "who", "not enrolled");
	ASSERT_TRUE(client_got_nothing(&self->mgr));
	ASSERT_TRUE(client_got_nothing(&self->dev1));
}

/* As the manager does it: the code's key goes, the claimed one comes. */
static void certify(struct fixture_claims *self, bool the_claimed)
{
	struct world_party *p = self->world->dev1;

	world_new_key(p);
	if (the_claimed) {
		p256_private_free(p->key);
		p256_public_free(p->key_public);
		ASSERT_EQ(p256_private_new(&self->new_scalar, &p->key), 0);
		p256_private_point(p->key, &p->signing);
		ASSERT_EQ(p256_public_new(&p->signing, &p->key_public), 0);
	}
	p->flags = 0;
	world_apply(self->world);
	fake_settle(self->fake);
}

TEST_F(claims, the_connection_lives_through_the_bundle)
{
	struct fake_sealed s;

	send_claim(self, &self->dev1, 1);
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, self->dev1.packet_id));
	certify(self, true);
	ASSERT_FALSE(client_closed(&self->dev1));
	send_decision(self, "dev1", "");
	ASSERT_TRUE(answered(&self->dev1, 1, CLAIM_REFUSED, ""));
	/* From now on it is a device like others, in the same session. */
	client_seal(&self->dev1, self->world->temp, "site/1/temp", "21.5", 1, false, &s);
	client_send_publish(&self->dev1, &s.publish);
	fake_settle(self->fake);
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, s.publish.packet_id));
	/* Other bundles do not end it. */
	world_apply(self->world);
	fake_settle(self->fake);
	ASSERT_FALSE(client_closed(&self->dev1));
}

TEST_F(claims, another_key_than_the_claimed_ends_it)
{
	send_claim(self, &self->dev1, 1);
	certify(self, false);
	ASSERT_TRUE(client_closed(&self->dev1));
}

/* Public keys are no secret: who holds the code but not the key does not stay here by it. */
TEST_F(claims, a_claim_of_a_key_that_it_has_not)
{
	self->has_not_the_key = true;
	send_claim(self, &self->dev1, 1);
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, self->dev1.packet_id));
	ASSERT_TRUE(forwarded(self, &self->mgr, 1)); /* who will refuse it */
	certify(self, true);
	ASSERT_TRUE(client_closed(&self->dev1));
}

TEST_F(claims, without_a_claim_it_ends)
{
	certify(self, true);
	ASSERT_TRUE(client_closed(&self->dev1));
}

/* errors_per_second of them are passed on, the rest is acknowledged and dropped. */
TEST_F(claims, claims_beyond_the_rate)
{
	const unsigned most = self->fake->config.limits.errors_per_second;
	struct bytes said;

	for (uint32_t n = 1; n <= most + 5; n++) {
		send_claim(self, &self->dev1, n);
		ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, self->dev1.packet_id));
	}
	for (uint32_t n = 1; n <= most; n++)
		ASSERT_TRUE(got(&self->mgr, n, &said));
	ASSERT_TRUE(client_got_nothing(&self->mgr));
}

/* A party that holds a code is no manager, whatever its roles say. */
TEST_F(claims, a_manager_with_a_code_hears_nothing)
{
	self->world->mgr->flags = RECORD_PARTY_CLAIM;
	world_apply(self->world);
	fake_settle(self->fake);
	send_claim(self, &self->dev1, 1);
	ASSERT_TRUE(client_got_ack(&self->dev1, MQTT_PUBACK, self->dev1.packet_id));
	ASSERT_TRUE(answered(&self->dev1, 1, CLAIM_TRY_AGAIN, "no manager is here"));
	ASSERT_TRUE(client_got_nothing(&self->mgr));
}
