// SPDX-License-Identifier: MIT
/*
 * The distributor's engine (PROTOCOL 12) between fakes: what it makes of a delivery, to the byte;
 * when it acknowledges; order, whatever ends in between; names; and what it refuses.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/relay_fake.h"
#include "userspace/base/text.h"
#include "userspace/crypto/grant.h"
#include "userspace/distributor/rename.h"

#define VECTORS "tests/vectors/core.json"

/* --- topics ----------------------------------------------------------------------------------- */

static const char *renamed(const char *prefix, const char *topic, const char *id)
{
	static uint8_t out[256];
	struct bytes_writer w = bytes_writer_of(out, sizeof(out) - 1);

	rename_write(bytes_str(prefix), bytes_str(topic), bytes_str(id), bytes_str("NAME"), &w);
	ASSERT_FALSE(w.bad);
	ASSERT_EQ(w.used, rename_bytes(bytes_str(prefix), bytes_str(topic), bytes_str(id), 4));
	out[w.used] = '\0';
	return (const char *)out;
}

TEST(rename)
{
	ASSERT_STREQ(renamed("open", "a/s1/t", "s1"), "open/a/NAME/t");
	ASSERT_STREQ(renamed("open/x", "s1", "s1"), "open/x/NAME");
	ASSERT_STREQ(renamed("o", "s1/s1", "s1"), "o/NAME/NAME");
	ASSERT_STREQ(renamed("o", "/s1/", "s1"), "o//NAME/");
	ASSERT_STREQ(renamed("o", "", "s1"), "o/");
	ASSERT_STREQ(renamed("o", "/", "s1"), "o//");
	ASSERT_STREQ(renamed("o", "s1x/xs1/S1/s", "s1"), "o/s1x/xs1/S1/s");
}

TEST(rename_betrays)
{
	struct bytes id = bytes_str("s1");

	EXPECT_FALSE(rename_betrays(bytes_str("a/s1/b"), id));
	EXPECT_FALSE(rename_betrays(bytes_str("s1"), id));
	EXPECT_FALSE(rename_betrays(bytes_str("s/1/S1"), id));
	EXPECT_FALSE(rename_betrays(bytes_str(""), id));
	EXPECT_TRUE(rename_betrays(bytes_str("s12"), id));
	EXPECT_TRUE(rename_betrays(bytes_str("a/xs1/s1"), id));
	EXPECT_TRUE(rename_betrays(bytes_str("s1/s1-log"), id));
}

/* --- the vectors ------------------------------------------------------------------------------ */

static struct bytes unhex(json_t *object, const char *name, uint8_t *out, size_t room)
{
	const char *hex = json_string_value(json_object_get(object, name));

	if (!hex || strlen(hex) / 2 > room || text_unhex(bytes_str(hex), out, strlen(hex) / 2))
		abort();
	return bytes_of(out, strlen(hex) / 2);
}

static struct secret32 scalar_of(json_t *object, const char *name)
{
	struct secret32 s;

	if (unhex(object, name, s.b, sizeof(s.b)).n != sizeof(s.b))
		abort();
	return s;
}

/* A relay whose hop and outlet are the vectors' second and third grant. */
static struct fake_relay *relay_of_vectors(json_t *all, const char *sender)
{
	json_t *hop = json_array_get(json_object_get(all, "grants"), 1);
	json_t *second = json_array_get(json_object_get(all, "grants"), 2);
	json_t *publish = json_object_get(all, "publish");
	struct fake_relay *f = fake_relay_make(1);
	struct secret32 signing = scalar_of(publish, "signing_key");

	f->a = scalar_of(hop, "a");
	f->s1 = scalar_of(hop, "s1");
	f->n_outlets = 1;
	f->outlets[0].group = false;
	f->outlets[0].d = scalar_of(second, "d");
	unhex(hop, "grant", f->hop_id, sizeof(f->hop_id));
	unhex(second, "grant", f->outlets[0].grant_id, sizeof(f->outlets[0].grant_id));
	fake_key_free(&f->senders[0].key);
	f->senders[0].key = fake_key_of(&signing);
	snprintf(f->senders[0].id, sizeof(f->senders[0].id), "%s", sender);
	fake_relay_start(f);
	return f;
}

/* level1_hop comes out as level2_receiver2, but for the external id, which is drawn. */
static void check_vector(json_t *all, json_t *v)
{
	const char *topic = json_string_value(json_object_get(v, "topic"));
	int sender_qos = (int)json_integer_value(json_object_get(v, "proof_qos"));
	struct fake_relay *f =
		relay_of_vectors(all, json_string_value(json_object_get(v, "sender")));
	struct fake_message m = { 0 };
	uint8_t wanted[2048], got[2048], plain[2048], opened[2048], drawn[TEXT_HEX_SIZE(16)];
	struct bytes want = unhex(v, "level2_receiver2", wanted, sizeof(wanted));
	struct bytes text = unhex(v, "plaintext", plain, sizeof(plain));
	struct envelope e, w;
	struct envelope_block block;
	struct bytes_writer to = bytes_writer_of(got, sizeof(got));
	size_t n;

	m.n = unhex(v, "level1_hop", m.body, sizeof(m.body)).n;
	snprintf(m.topic, sizeof(m.topic), "%s", topic);
	ASSERT_TRUE(fake_deliver(f, &m, sender_qos ? 1 : 0, 7, false, false));
	fake_settle(f);
	ASSERT_EQ(f->n_out, 1);
	EXPECT_EQ(f->out[0].qos, sender_qos ? 1 : 0);
	EXPECT_EQ(f->out[0].retain, json_is_true(json_object_get(v, "proof_retain")));
	e = fake_body(f, &f->out[0]);
	ASSERT_EQ(envelope_parse(want, &w), 0);
	text_hex(bytes_of(f->rows[0].external, IDTABLE_EXTERNAL_BYTES), (char *)drawn);
	EXPECT_TRUE(bytes_equal(e.origin, bytes_str((char *)drawn)));
	/* The vector with the id that was drawn in the place of its own. */
	w.level--;
	block = (struct envelope_block){ .grant = w.grant, .x = w.x, .origin = e.origin };
	envelope_raise_head(&w, &block, &to);
	bytes_write(&to, w.ct);
	ASSERT_FALSE(to.bad);
	ASSERT_EQ(e.whole.n, to.used);
	ASSERT_BYTES(e.whole.p, got, to.used);
	ASSERT_EQ(fake_open(f, &f->out[0], opened, &n), 0);
	ASSERT_EQ(n, text.n);
	if (n)
		ASSERT_BYTES(opened, text.p, n);
	fake_relay_free(f);
}

TEST(vectors)
{
	json_error_t error;
	json_t *all = json_load_file(VECTORS, 0, &error), *v;
	size_t i, n = 0;

	if (!all)
		SKIP(VECTORS " is not in this folder");
	json_array_foreach(json_object_get(all, "sealed"), i, v)
	{
		check_vector(all, v);
		n++;
	}
	ASSERT_GE(n, 10);
	json_decref(all);
}

/* --- one delivery ----------------------------------------------------------------------------- */

FIXTURE(relay)
{
	struct fake_relay *f;
};

FIXTURE_SETUP(relay)
{
	self->f = fake_relay_new(2);
}

FIXTURE_TEARDOWN(relay)
{
	fake_relay_free(self->f);
}

#define ASSERT_OPENS(f, i, text)                                         \
	do {                                                             \
		uint8_t plain_[1024];                                    \
		size_t n_;                                               \
		ASSERT_EQ(fake_open((f), &(f)->out[i], plain_, &n_), 0); \
		ASSERT_EQ(n_, strlen(text));                             \
		ASSERT_BYTES(plain_, (text), n_);                        \
	} while (0)

static bool names(const struct fake_published *p, const char *word)
{
	return memmem(p->topic, p->topic_n, word, strlen(word)) ||
	       memmem(p->payload, p->payload_n, word, strlen(word));
}

TEST_F(relay, two_outlets)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "plant/sensor-17/temp", "21.5", 1, false);
	struct envelope a, b;

	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
	fake_settle(f);
	ASSERT_EQ(f->n_out, 2);
	ASSERT_EQ(fake_outlet_of(f, &f->out[0]), 0);
	ASSERT_EQ(fake_outlet_of(f, &f->out[1]), 1);
	ASSERT_OPENS(f, 0, "21.5");
	ASSERT_OPENS(f, 1, "21.5");
	a = fake_body(f, &f->out[0]);
	b = fake_body(f, &f->out[1]);
	EXPECT_EQ(a.level, 2);
	EXPECT_EQ(a.origin.n, IDTABLE_EXTERNAL_DIGITS);
	EXPECT_TRUE(bytes_is_zero(a.salt));
	EXPECT_EQ(a.proof.n, 0);
	EXPECT_FALSE(bytes_equal(a.origin, b.origin));
	EXPECT_FALSE(names(&f->out[0], "sensor-17") || names(&f->out[1], "sensor-17"));
	/* The topic's level is the external id. */
	EXPECT_EQ(f->out[0].topic_n, strlen("open/plant//temp") + a.origin.n);
	EXPECT_TRUE(!memcmp(f->out[0].topic + strlen("open/plant/"), a.origin.p, a.origin.n));
	/* Two under one signature. */
	EXPECT_EQ(f->signs_made, 1);
	EXPECT_EQ(f->out[0].payload[f->out[0].payload_n - 1], 2);
}

TEST_F(relay, acknowledged_when_all_is)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "t", "1", 1, false);

	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
	fake_settle(f);
	ASSERT_EQ(f->n_out, 2);
	EXPECT_EQ(f->n_pubacks, 0);
	fake_acknowledge(f, 1);
	EXPECT_EQ(f->n_pubacks, 0);
	relay_acknowledged(f->relay, 999); /* nobody's */
	EXPECT_EQ(f->n_pubacks, 0);
	fake_acknowledge(f, 0);
	ASSERT_EQ(f->n_pubacks, 1);
	EXPECT_EQ(f->pubacks[0], 7);
	EXPECT_TRUE(relay_idle(f->relay));
	EXPECT_EQ(f->sights, 2);
}

/* PUBACKs go in the order of the deliveries [MQTT-4.6.0-2], those of what is refused too. */
TEST_F(relay, acknowledged_in_order)
{
	struct fake_relay *f = self->f;
	struct fake_message a = fake_message(f, 0, "t", "1", 1, false);
	struct fake_message bad = fake_message(f, 0, "sensor-17x", "2", 1, false);
	struct fake_message b = fake_message(f, 1, "t", "3", 1, false);

	ASSERT_TRUE(fake_deliver(f, &a, 1, 7, false, false));
	ASSERT_TRUE(fake_deliver(f, &bad, 1, 8, false, false));
	ASSERT_TRUE(fake_deliver(f, &b, 1, 9, false, false));
	fake_settle(f);
	ASSERT_EQ(f->n_out, 4);
	fake_acknowledge(f, 2);
	fake_acknowledge(f, 3);
	EXPECT_EQ(f->n_pubacks, 0);
	fake_acknowledge(f, 0);
	fake_acknowledge(f, 1);
	ASSERT_EQ(f->n_pubacks, 3);
	EXPECT_EQ(f->pubacks[0], 7);
	EXPECT_EQ(f->pubacks[1], 8);
	EXPECT_EQ(f->pubacks[2], 9);
}

TEST_F(relay, qos_0)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "t", "1", 0, false);

	ASSERT_TRUE(fake_deliver(f, &m, 0, 0, false, false));
	fake_settle(f);
	ASSERT_EQ(f->n_out, 2);
	EXPECT_EQ(f->out[0].qos, 0);
	EXPECT_EQ(f->n_pubacks, 0);
	EXPECT_TRUE(relay_idle(f->relay));
}

/* RETAIN is what the sender signed, though a delivery to a subscription does not say it. */
TEST_F(relay, retained)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "t", "1", 1, true);

	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
	ASSERT_TRUE(fake_deliver(f, &m, 1, 8, false, true));
	fake_settle(f);
	ASSERT_EQ(f->n_out, 4);
	EXPECT_TRUE(f->out[0].retain && f->out[2].retain);
	ASSERT_OPENS(f, 0, "1");
}

TEST_F(relay, no_outlet)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "t", "1", 1, false);

	f->outlets[0].absent = f->outlets[1].absent = true;
	fake_relay_replan(f);
	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
	EXPECT_EQ(f->n_pubacks, 1);
	EXPECT_EQ(f->relay->stats.no_outlet, 1);
	EXPECT_EQ(f->forgotten, 2);
}

/* An outlet takes what its grant's filters cover, of the public topics. */
TEST(outlet_filters)
{
	struct fake_relay *f = fake_relay_make(1);
	struct fake_message in, out;

	f->outlets[0].filter = "open/+/temp";
	f->n_outlets = 1;
	fake_relay_start(f);
	in = fake_message(f, 0, "hall/temp", "1", 1, false);
	out = fake_message(f, 0, "hall/humidity", "2", 1, false);
	ASSERT_TRUE(fake_deliver(f, &out, 1, 7, false, false));
	ASSERT_TRUE(fake_deliver(f, &in, 1, 8, false, false));
	fake_settle(f);
	ASSERT_EQ(f->n_out, 1);
	ASSERT_OPENS(f, 0, "1");
	EXPECT_EQ(f->n_pubacks, 1);
	EXPECT_EQ(f->relay->stats.withdrawn, 1);
	fake_relay_free(f);
}

/* --- what is refused -------------------------------------------------------------------------- */

struct refusal {
	const char *words;
	uint8_t reason;
	void (*bend)(struct fake_relay *f, struct fake_message *m);
};

static void bend_hop(struct fake_relay *f, struct fake_message *m)
{
	m->body[ENVELOPE_FIXED_BYTES] ^= 1;
}

static void bend_key_id(struct fake_relay *f, struct fake_message *m)
{
	m->body[7] ^= 1;
}

static void bend_topic(struct fake_relay *f, struct fake_message *m)
{
	snprintf(m->topic, sizeof(m->topic), "elsewhere");
}

static void bend_salt(struct fake_relay *f, struct fake_message *m)
{
	memset(m->body + 109, 0, ENVELOPE_SALT_BYTES);
}

static void bend_ciphertext(struct fake_relay *f, struct fake_message *m)
{
	m->body[m->n - 1] ^= 1;
}

static void bend_commit(struct fake_relay *f, struct fake_message *m)
{
	m->body[80] ^= 1;
}

static void bend_level(struct fake_relay *f, struct fake_message *m)
{
	m->body[125] = ENVELOPE_LEVEL_MAX;
}

/* Cuts the block away: level 0, as a device sends it. */
static void bend_to_level_0(struct fake_relay *f, struct fake_message *m)
{
	struct envelope e;
	size_t ct_n;

	ASSERT_EQ(envelope_parse(bytes_of(m->body, m->n), &e), 0);
	ct_n = e.ct.n;
	memmove(m->body + ENVELOPE_FIXED_BYTES, e.ct.p, ct_n);
	m->body[125] = 0;
	m->n = ENVELOPE_FIXED_BYTES + ct_n;
}

/* Rebuilds the head with another proof or origin. */
static void reblock(struct fake_message *m, struct bytes origin, bool proof)
{
	struct envelope e;
	uint8_t copy[2048];
	struct bytes_writer w = bytes_writer_of(m->body, sizeof(m->body));

	memcpy(copy, m->body, m->n);
	ASSERT_EQ(envelope_parse(bytes_of(copy, m->n), &e), 0);
	e.level--;
	envelope_raise_head(&e,
			    &(struct envelope_block){ .grant = e.grant,
						      .x = e.x,
						      .origin = origin.n ? origin : e.origin,
						      .proof =
							      proof ? e.proof : bytes_of(NULL, 0) },
			    &w);
	bytes_write(&w, e.ct);
	ASSERT_FALSE(w.bad);
	m->n = w.used;
}

static void bend_no_proof(struct fake_relay *f, struct fake_message *m)
{
	reblock(m, bytes_of(NULL, 0), false);
}

static void bend_origin(struct fake_relay *f, struct fake_message *m)
{
	reblock(m, bytes_str("sensor-18"), true);
}

static void bend_key(struct fake_relay *f, struct fake_message *m)
{
	struct fake_key key = f->senders[0].key;

	f->senders[0].key = f->manager;
	fake_relay_replan(f);
	f->senders[0].key = key;
}

static void bend_unknown(struct fake_relay *f, struct fake_message *m)
{
	f->senders[0].id[0] = 'x';
	fake_relay_replan(f);
}

static void bend_time(struct fake_relay *f, struct fake_message *m)
{
	f->hop_not_after_ms = f->unix_ms;
	fake_relay_replan(f);
}

static const struct refusal refusals[] = {
	{ "no hop of this distributor leads here", 4, bend_hop },
	{ "no hop of this distributor leads here", 4, bend_key_id },
	{ "its hop is not valid now", 4, bend_time },
	{ "it is bound to another id or topic", 2, bend_topic },
	{ "it is bound to another id or topic", 2, bend_salt },
	{ "it is bound to another id or topic", 2, bend_origin },
	{ "it was converted as often as may be", 2, bend_level },
	{ "its origin proof does not hold", 1, bend_ciphertext },
	{ "its origin proof does not hold", 1, bend_commit },
	{ "its origin proof does not hold", 1, bend_key },
	{ "its origin proof is missing", 1, bend_no_proof },
	{ "no key is certified for its origin", 1, bend_unknown },
};

/* Each is acknowledged, reported once, and nothing of it goes out. */
TEST(refused)
{
	for (unsigned i = 0; i < ARRAY_SIZE(refusals); i++) {
		struct fake_relay *f = fake_relay_new(2);
		struct fake_message m = fake_message(f, 0, "plant/t", "1", 1, false);

		refusals[i].bend(f, &m);
		ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
		fake_settle(f);
		ASSERT_EQ(f->n_out, 0);
		ASSERT_EQ(f->n_pubacks, 1);
		ASSERT_EQ(f->reports, 1);
		ASSERT_STREQ(f->report_text, refusals[i].words);
		ASSERT_EQ(f->report_reason, refusals[i].reason);
		ASSERT_TRUE(relay_idle(f->relay));
		fake_relay_free(f);
	}
}

TEST_F(relay, refused_as_malformed)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "t", "1", 1, false);

	bend_to_level_0(f, &m);
	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
	m.n = 3;
	ASSERT_TRUE(fake_deliver(f, &m, 1, 8, false, false));
	EXPECT_EQ(f->n_pubacks, 2);
	EXPECT_EQ(f->relay->judge.stats.by_verdict[JUDGE_MALFORMED], 2);
	EXPECT_EQ(f->notes[RELAY_NOTE_REFUSED], 2);
}

TEST_F(relay, refused_by_topic)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "plant/log-sensor-17/t", "1", 1, false);

	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
	EXPECT_EQ(f->n_pubacks, 1);
	EXPECT_EQ(f->report_reason, 5);
	ASSERT_STREQ(f->report_text, "its topic names the sender as a part of a level");
}

TEST_F(relay, refused_retained)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "t", "1", 1, false);

	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, true));
	ASSERT_STREQ(f->report_text, "retained against its sender's wish");
}

/* What the broker did not sign is not acknowledged, and nobody is told anything. */
TEST_F(relay, not_the_brokers)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "t", "1", 1, false);

	f->signs = &f->own;
	EXPECT_FALSE(fake_deliver(f, &m, 1, 7, false, false));
	f->signs = &f->next_broker;
	EXPECT_TRUE(fake_deliver(f, &m, 1, 8, false, false));
	fake_settle(f);
	EXPECT_EQ(f->n_out, 2);
	EXPECT_EQ(f->n_pubacks, 0);
	EXPECT_EQ(f->reports, 0);
}

TEST_F(relay, previous_key_of_origin)
{
	struct fake_relay *f = self->f;
	struct fake_message old = fake_message(f, 0, "t", "1", 1, false);
	struct fake_message late = fake_message(f, 0, "t", "2", 1, false);
	struct fake_key before = f->senders[0].key;

	f->senders[0].key = fake_key_new();
	f->previous = &before;
	f->previous_until_ms = f->unix_ms + 1000;
	fake_relay_replan(f);
	ASSERT_TRUE(fake_deliver(f, &old, 1, 7, false, false));
	fake_settle(f);
	EXPECT_EQ(f->n_out, 2);
	fake_pass(f, 1000);
	ASSERT_TRUE(fake_deliver(f, &late, 1, 8, false, false));
	ASSERT_STREQ(f->report_text, "its origin proof does not hold");
	fake_key_free(&before);
}

/* A hop that does without proofs: the broker's word is taken for the origin. */
TEST(hop_without_proof)
{
	struct fake_relay *f = fake_relay_make(1);
	struct fake_message m;

	f->hop_flags = RECORD_GRANT_HOP;
	fake_relay_start(f);
	m = fake_message(f, 0, "t", "1", 1, false);
	bend_no_proof(f, &m);
	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
	fake_settle(f);
	ASSERT_EQ(f->n_out, 2);
	fake_relay_free(f);
}

/* Behind another distributor: the id is replaced already, which the hop must say. */
TEST(hop_behind_another)
{
	struct fake_relay *f = fake_relay_make(1);
	struct fake_message m;
	struct envelope e;

	f->hop_flags = RECORD_GRANT_HOP | RECORD_GRANT_IDS_REPLACED;
	fake_relay_start(f);
	m = fake_message(f, 0, "open/ab12/t", "1", 1, false);
	bend_salt(f, &m);
	reblock(&m, bytes_str("ab12"), false);
	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, true));
	fake_settle(f);
	ASSERT_EQ(f->n_out, 2);
	e = fake_body(f, &f->out[0]);
	EXPECT_FALSE(bytes_equal(e.origin, bytes_str("ab12")));
	EXPECT_FALSE(names(&f->out[0], "ab12"));
	EXPECT_TRUE(f->out[0].retain);
	ASSERT_OPENS(f, 0, "1");
	/* A proof would name somebody. */
	m = fake_message(f, 0, "t", "2", 1, false);
	bend_salt(f, &m);
	ASSERT_TRUE(fake_deliver(f, &m, 1, 8, false, false));
	ASSERT_STREQ(f->report_text, "it is no converted message");
	fake_relay_free(f);
}

/* Any bit that the broker upstream bends is found, but for the conversion itself, and that opens to
 * nobody. */
TEST_F(relay, bent_by_the_broker)
{
	struct fake_relay *f = self->f;
	unsigned rounds = harness_rounds(200);

	for (unsigned i = 0; i < rounds; i++) {
		struct fake_message m = fake_message(f, 0, "t", "1", 1, false);
		size_t at = (size_t)(harness_random() % m.n);
		size_t x_at = ENVELOPE_FIXED_BYTES + ENVELOPE_GRANT_BYTES;
		uint8_t plain[64];
		size_t n;

		m.body[at] ^= (uint8_t)(1u << harness_random() % 8);
		ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
		fake_settle(f);
		if (at < x_at || at >= x_at + P256_X_BYTES) {
			ASSERT_EQ(f->n_out, 0);
			ASSERT_EQ(f->n_pubacks, 1);
		} else if (f->n_out) {
			ASSERT_EQ(fake_open(f, &f->out[0], plain, &n), -EBADMSG);
			fake_acknowledge_all(f, 0);
		}
		ASSERT_TRUE(relay_idle(f->relay));
		fake_forget_out(f);
	}
}

/* --- names ------------------------------------------------------------------------------------ */

static int trace(struct fake_relay *f, const struct relay_row *row, struct idtable_entry *ret_e)
{
	static uint8_t room[IDTABLE_ENTRY_BYTES_MAX];
	struct bytes t = bytes_of(row->trace, row->trace_n);
	struct p256_point enc;
	struct secret32 dh;

	ASSERT_EQ(idtable_trace_enc(t, &enc), 0);
	ASSERT_EQ(p256_dh(&f->tracer.scalar, &enc, &dh), 0);
	return idtable_trace_open(t, &dh, &f->tracer.point, row->external, room, ret_e);
}

TEST_F(relay, row_before_use)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "t", "1", 1, false);
	struct idtable_entry e;

	f->table_error = -ENOSPC;
	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
	fake_settle(f);
	fake_settle(f);
	EXPECT_EQ(f->n_out, 0);
	EXPECT_EQ(f->n_rows, 0);
	f->table_error = 0;
	fake_settle(f);
	EXPECT_EQ(f->n_out, 0); /* asked again after a second, not every turn */
	fake_pass(f, RELAY_COMMIT_RETRY_MS);
	fake_settle(f);
	ASSERT_EQ(f->n_out, 2);
	ASSERT_EQ(f->n_rows, 2);
	for (unsigned i = 0; i < 2; i++) {
		ASSERT_EQ(trace(f, &f->rows[i], &e), 0);
		EXPECT_TRUE(bytes_equal(e.internal, bytes_str("sensor-17")));
		EXPECT_EQ(e.until_ms, 0);
		EXPECT_FALSE(memmem(&f->rows[i], sizeof(f->rows[i]), "sensor", 6) != NULL);
	}
}

static struct bytes origin_of(struct fake_relay *f, unsigned i)
{
	return fake_body(f, &f->out[i]).origin;
}

/* The same id within a domain, for good; another in another domain and of another sender. */
TEST_F(relay, names_stay)
{
	struct fake_relay *f = self->f;

	for (unsigned i = 0; i < 2; i++) {
		for (unsigned sender = 0; sender < 2; sender++) {
			struct fake_message m = fake_message(f, sender, "t", "1", 1, false);

			ASSERT_TRUE(fake_deliver(f, &m, 1, (uint16_t)(1 + i * 2 + sender), false,
						 false));
		}
		fake_settle(f);
		fake_pass(f, 86400000);
	}
	ASSERT_EQ(f->n_out, 8);
	EXPECT_TRUE(bytes_equal(origin_of(f, 0), origin_of(f, 4)));
	EXPECT_TRUE(bytes_equal(origin_of(f, 1), origin_of(f, 5)));
	EXPECT_TRUE(bytes_equal(origin_of(f, 2), origin_of(f, 6)));
	for (unsigned i = 0; i < 4; i++)
		for (unsigned k = 0; k < i; k++)
			EXPECT_FALSE(bytes_equal(origin_of(f, i), origin_of(f, k)));
	EXPECT_EQ(f->n_rows, 4);
	EXPECT_EQ(f->converts, 4); /* a context's capsule is converted once */
}

TEST(names_rotate)
{
	struct fake_relay *f = fake_relay_make(1);
	struct idtable_entry e;

	f->outlets[0].rotate_seconds = 3600;
	fake_relay_start(f);
	for (unsigned i = 0; i < 2; i++) {
		struct fake_message m = fake_message(f, 0, "t", "1", 1, false);

		ASSERT_TRUE(fake_deliver(f, &m, 1, (uint16_t)(i + 1), false, false));
		fake_settle(f);
		fake_pass(f, 3600000);
	}
	ASSERT_EQ(f->n_out, 4);
	EXPECT_FALSE(bytes_equal(origin_of(f, 0), origin_of(f, 2)));
	EXPECT_TRUE(bytes_equal(origin_of(f, 1), origin_of(f, 3)));
	ASSERT_EQ(f->n_rows, 3);
	ASSERT_EQ(trace(f, &f->rows[0], &e), 0);
	EXPECT_EQ(e.until_ms - e.from_ms, 3600000);
	EXPECT_EQ(e.from_ms % 3600000, 0);
	fake_relay_free(f);
}

/* A restart finds in the table what it gave out before. */
TEST_F(relay, names_outlive_it)
{
	struct fake_relay *f = self->f, *again;
	struct fake_message m = fake_message(f, 0, "t", "1", 1, false);

	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
	fake_settle(f);
	again = fake_relay_new(1);
	memcpy(again->rows, f->rows, sizeof(f->rows));
	again->n_rows = f->n_rows;
	m = fake_message(again, 0, "t", "1", 1, false);
	ASSERT_TRUE(fake_deliver(again, &m, 1, 7, false, false));
	fake_settle(again);
	ASSERT_EQ(again->n_out, 2);
	EXPECT_EQ(again->n_rows, 2);
	EXPECT_TRUE(bytes_equal(origin_of(f, 0), origin_of(again, 0)));
	EXPECT_TRUE(bytes_equal(origin_of(f, 1), origin_of(again, 1)));
	fake_relay_free(again);
}

TEST_F(relay, no_id_key)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "t", "1", 1, false);

	f->no_id_key = true;
	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
	fake_settle(f);
	EXPECT_EQ(f->n_out, 0);
	EXPECT_TRUE(f->notes[RELAY_NOTE_NO_ID_KEY] > 0);
	f->no_id_key = false;
	fake_pass(f, ASK_RETRY_MS);
	fake_settle(f);
	EXPECT_EQ(f->n_out, 2);
}

/* Senders are counted by a mark that no period changes, and the view has + for them. */
TEST_F(relay, sights)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "plant/sensor-17/t", "1", 0, false);
	uint8_t first[HASH_BYTES];

	ASSERT_TRUE(fake_deliver(f, &m, 0, 0, false, false));
	fake_settle(f);
	EXPECT_EQ(f->sights, 2);
	ASSERT_STREQ(f->sight_topic, "for/one/plant/+/t");
	memcpy(first, f->mark, sizeof(first));
	fake_pass(f, 7 * 86400000ull);
	m = fake_message(f, 0, "plant/sensor-17/t", "2", 0, false);
	ASSERT_TRUE(fake_deliver(f, &m, 0, 0, false, false));
	fake_settle(f);
	ASSERT_BYTES(first, f->mark, sizeof(first));
	m = fake_message(f, 1, "plant/sensor-18/t", "3", 0, false);
	ASSERT_TRUE(fake_deliver(f, &m, 0, 0, false, false));
	fake_settle(f);
	EXPECT_TRUE(memcmp(first, f->mark, sizeof(first)) != 0);
}

/* --- the distributor opens nothing ------------------------------------------------------------ */

static int try_dh(struct fake_relay *f, const struct envelope *e, const struct secret32 *dh)
{
	uint8_t plain[1024];

	return envelope_open(e, dh, &f->scope, plain);
}

/* All that it holds or sees, each used as every kind of secret there is. */
TEST_F(relay, cannot_open)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "t", "secret", 1, false);
	struct secret32 held[8], product;
	struct p256_point points[4], p;
	struct envelope in, out;
	unsigned n = 0, n_points = 0;

	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
	fake_settle(f);
	ASSERT_EQ(f->n_out, 2);
	ASSERT_OPENS(f, 0, "secret"); /* it can be opened, by who may */
	ASSERT_EQ(envelope_parse(bytes_of(m.body, m.n), &in), 0);
	out = fake_body(f, &f->out[0]);
	held[n++] = f->outlets[0].rk; /* more than it has: in the token only */
	held[n++] = f->outlets[1].rk;
	held[n++] = f->own.scalar;
	memcpy(held[n++].b, in.x.p, P256_X_BYTES);
	memcpy(held[n++].b, out.x.p, P256_X_BYTES);
	ASSERT_EQ(p256_scalar_invert(&f->outlets[0].rk, &held[n++]), 0);
	ASSERT_EQ(p256_scalar_mul(&f->outlets[0].rk, &f->outlets[1].rk, &held[n++]), 0);
	ASSERT_EQ(p256_point_lift(in.x.p, &points[n_points++]), 0);
	ASSERT_EQ(p256_point_lift(out.x.p, &points[n_points++]), 0);
	ASSERT_EQ(p256_point_decompress(in.enc, &points[n_points++]), 0);
	points[n_points++] = f->scope;
	for (unsigned i = 0; i < n; i++) {
		EXPECT_EQ(try_dh(f, &in, &held[i]), -EBADMSG);
		for (unsigned k = 0; k < n_points; k++) {
			if (p256_mul(&held[i], &points[k], &p))
				continue;
			memcpy(product.b, p.b + 1, sizeof(product.b));
			EXPECT_EQ(try_dh(f, &in, &product), -EBADMSG);
			EXPECT_EQ(try_dh(f, &out, &product), -EBADMSG);
		}
	}
}

/* --- trouble with the token ------------------------------------------------------------------- */

TEST_F(relay, token_away)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "t", "1", 1, false);

	f->token_away = true;
	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
	for (unsigned i = 0; i < 5; i++) {
		fake_settle(f);
		fake_pass(f, ASK_RETRY_MS);
	}
	EXPECT_EQ(f->n_out, 0);
	EXPECT_EQ(f->n_pubacks, 0);
	f->token_away = false;
	for (unsigned i = 0; i < 3; i++) {
		fake_settle(f);
		fake_pass(f, ASK_RETRY_MS);
	}
	fake_settle(f);
	ASSERT_EQ(f->n_out, 2);
	ASSERT_OPENS(f, 0, "1");
}

/* An outlet whose key the token does not take gets nothing; the other goes on. */
TEST_F(relay, key_refused)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "t", "1", 1, false);

	f->refused_key = &f->outlets[0];
	ASSERT_TRUE(fake_deliver(f, &m, 1, 7, false, false));
	for (unsigned i = 0; i < 6; i++) {
		fake_settle(f);
		fake_pass(f, ASK_RETRY_MS);
	}
	ASSERT_EQ(f->n_out, 1);
	EXPECT_EQ(fake_outlet_of(f, &f->out[0]), 1);
	fake_acknowledge(f, 0);
	EXPECT_EQ(f->n_pubacks, 1);
	m = fake_message(f, 0, "t", "2", 1, false);
	ASSERT_TRUE(fake_deliver(f, &m, 1, 8, false, false));
	fake_settle(f);
	EXPECT_EQ(f->n_out, 2);
	/* Another bundle: tried again. */
	f->refused_key = NULL;
	fake_relay_replan(f);
	m = fake_message(f, 0, "t", "3", 1, false);
	ASSERT_TRUE(fake_deliver(f, &m, 1, 9, false, false));
	fake_settle(f);
	EXPECT_EQ(f->n_out, 4);
}

/* --- another bundle --------------------------------------------------------------------------- */

/* What waits for the token, what is signed and what waits for a session: none of it goes out
 * through an outlet that was taken away. */
TEST_F(relay, outlet_taken_away)
{
	struct fake_relay *f = self->f;
	struct fake_message a = fake_message(f, 0, "t", "1", 1, false);
	struct fake_message b = fake_message(f, 0, "t", "2", 1, false);

	relay_downstream(f->relay, false);
	ASSERT_TRUE(fake_deliver(f, &a, 1, 7, false, false));
	fake_settle(f); /* signed, no session */
	ASSERT_EQ(envelope_sender_init(&f->senders[0].context, HPKE_SUITE_AES_128_GCM, FAKE_KEY_ID,
				       &f->scope),
		  0);
	b = fake_message(f, 0, "t", "2", 1, false);
	ASSERT_TRUE(fake_deliver(f, &b, 1, 8, false, false)); /* with the token */
	f->outlets[1].absent = true;
	fake_relay_replan(f);
	EXPECT_EQ(f->forgotten, 1);
	relay_downstream(f->relay, true);
	fake_settle(f);
	ASSERT_EQ(f->n_out, 2);
	EXPECT_EQ(fake_outlet_of(f, &f->out[0]), 0);
	EXPECT_EQ(fake_outlet_of(f, &f->out[1]), 0);
	fake_acknowledge_all(f, 0);
	EXPECT_EQ(f->n_pubacks, 2);
	EXPECT_EQ(f->relay->stats.withdrawn, 2);
	EXPECT_TRUE(relay_idle(f->relay));
}

/* A key that was wrapped anew is another one to the token. */
TEST_F(relay, outlet_wrapped_anew)
{
	struct fake_relay *f = self->f;

	fake_relay_replan(f);
	EXPECT_EQ(f->forgotten, 0);
	f->outlets[1].wrapped = "wrapped anew";
	fake_relay_replan(f);
	EXPECT_EQ(f->forgotten, 1);
}

/* --- sessions --------------------------------------------------------------------------------- */

/* Unacknowledged PUBLISHes come again first, with DUP and their ids [MQTT-4.4.0-1]. */
TEST_F(relay, downstream_again)
{
	struct fake_relay *f = self->f;
	struct fake_message m[3];

	for (unsigned i = 0; i < 3; i++) {
		char text[] = { (char)('1' + i), 0 };

		m[i] = fake_message(f, 0, "t", text, 1, false);
	}
	ASSERT_TRUE(fake_deliver(f, &m[0], 1, 1, false, false));
	ASSERT_TRUE(fake_deliver(f, &m[1], 1, 2, false, false));
	fake_settle(f);
	ASSERT_EQ(f->n_out, 4);
	fake_acknowledge(f, 0);
	relay_downstream(f->relay, false);
	ASSERT_TRUE(fake_deliver(f, &m[2], 1, 3, false, false));
	fake_settle(f);
	ASSERT_EQ(f->n_out, 4);
	relay_downstream(f->relay, true);
	fake_settle(f);
	ASSERT_EQ(f->n_out, 9);
	for (unsigned i = 4; i < 7; i++) {
		EXPECT_TRUE(f->out[i].dup);
		EXPECT_EQ(f->out[i].packet_id, f->out[i - 3].packet_id);
		ASSERT_EQ(f->out[i].payload_n, f->out[i - 3].payload_n);
		ASSERT_BYTES(f->out[i].payload, f->out[i - 3].payload, f->out[i].payload_n);
	}
	EXPECT_FALSE(f->out[7].dup);
	EXPECT_NE(f->out[7].packet_id, f->out[6].packet_id);
	fake_acknowledge_all(f, 4);
	EXPECT_EQ(f->n_pubacks, 3);
}

/* What the broker downstream refuses for now is not acknowledged, and goes out once more. */
TEST_F(relay, refused_downstream)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "t", "1", 1, false);

	EXPECT_TRUE(relay_error(f->relay, 6)); /* nothing waits for an acknowledgement */
	ASSERT_TRUE(fake_deliver(f, &m, 1, 1, false, false));
	fake_settle(f);
	ASSERT_EQ(f->n_out, 2);
	EXPECT_TRUE(relay_error(f->relay, 4)); /* for good: a PUBACK follows */
	fake_acknowledge(f, 0);
	EXPECT_FALSE(relay_error(f->relay, 6));
	EXPECT_FALSE(relay_error(f->relay, 1));
	relay_downstream(f->relay, false);
	relay_downstream(f->relay, true);
	fake_settle(f);
	ASSERT_EQ(f->n_out, 3);
	EXPECT_TRUE(f->out[2].dup);
	fake_acknowledge(f, 2);
	EXPECT_EQ(f->n_pubacks, 1);
	EXPECT_TRUE(relay_error(f->relay, 6));
}

/* What an ended session upstream left under way is not acknowledged; its repetition is not made
 * twice. */
TEST_F(relay, upstream_again)
{
	struct fake_relay *f = self->f;
	struct fake_message a = fake_message(f, 0, "t", "1", 1, false);
	struct fake_message b = fake_message(f, 0, "t", "2", 1, false);

	ASSERT_TRUE(fake_deliver(f, &a, 1, 1, false, false));
	fake_settle(f);
	ASSERT_EQ(f->n_out, 2);
	relay_upstream(f->relay, false);
	fake_acknowledge(f, 0);
	relay_upstream(f->relay, true);
	ASSERT_TRUE(fake_deliver(f, &a, 1, 5, true, false));
	ASSERT_TRUE(fake_deliver(f, &b, 1, 6, false, false));
	fake_settle(f);
	EXPECT_EQ(f->relay->stats.adopted, 1);
	ASSERT_EQ(f->n_out, 4);
	fake_acknowledge(f, 1);
	ASSERT_EQ(f->n_pubacks, 1);
	EXPECT_EQ(f->pubacks[0], 5);
	/* One that was done before it is repeated is published again. */
	fake_acknowledge_all(f, 2);
	EXPECT_EQ(f->n_pubacks, 2);
	ASSERT_TRUE(fake_deliver(f, &b, 1, 6, true, false));
	fake_settle(f);
	EXPECT_EQ(f->n_out, 6);
}

/* One that nobody repeats is passed on, acknowledged to nobody, and gone. */
TEST_F(relay, orphan)
{
	struct fake_relay *f = self->f;
	struct fake_message m = fake_message(f, 0, "t", "1", 1, false);

	ASSERT_TRUE(fake_deliver(f, &m, 1, 1, false, false));
	relay_upstream(f->relay, false);
	fake_settle(f);
	relay_upstream(f->relay, true);
	ASSERT_EQ(f->n_out, 2);
	fake_acknowledge_all(f, 0);
	EXPECT_EQ(f->n_pubacks, 0);
	EXPECT_TRUE(relay_idle(f->relay));
}

/* No more than the window is out; packet ids of what is out are not given twice. */
TEST_F(relay, window)
{
	struct fake_relay *f = self->f;

	for (unsigned i = 0; i < 100; i++) {
		struct fake_message m = fake_message(f, i % 2, "t", "1", 1, false);

		ASSERT_TRUE(fake_deliver(f, &m, 1, (uint16_t)(i + 1), false, false));
	}
	f->relay->packet_id_next = RELAY_PACKET_ID_MAX - 3;
	fake_settle(f);
	ASSERT_EQ(f->n_out, 64);
	for (unsigned i = 0; i < 64; i++) {
		EXPECT_TRUE(f->out[i].packet_id >= 1);
		EXPECT_TRUE(f->out[i].packet_id <= RELAY_PACKET_ID_MAX);
		for (unsigned k = 0; k < i; k++)
			EXPECT_NE(f->out[i].packet_id, f->out[k].packet_id);
	}
	f->relay->packet_id_next = f->out[5].packet_id;
	fake_acknowledge(f, 0);
	fake_settle(f);
	ASSERT_EQ(f->n_out, 65);
	for (unsigned k = 1; k < 64; k++)
		EXPECT_NE(f->out[64].packet_id, f->out[k].packet_id);
	for (unsigned i = 1; i < 200; i++) {
		if (i >= f->n_out)
			fake_settle(f);
		fake_acknowledge(f, i);
	}
	EXPECT_EQ(f->n_pubacks, 100);
	for (unsigned i = 0; i < 100; i++)
		ASSERT_EQ(f->pubacks[i], i + 1);
}

TEST(qos_0_has_a_limit)
{
	struct fake_relay *f = fake_relay_new(1);

	f->relay->limits.messages_max = 3;
	f->token_away = true;
	for (unsigned i = 0; i < 5; i++) {
		struct fake_message m = fake_message(f, 0, "t", "1", 0, false);

		ASSERT_TRUE(fake_deliver(f, &m, 0, 0, false, false));
	}
	EXPECT_EQ(f->relay->stats.dropped_qos0, 2);
	fake_relay_free(f);
}

/* --- a walk ----------------------------------------------------------------------------------- */

#define WALK_SENDERS  3
#define WALK_MESSAGES 240

/* What the two brokers know. */
struct walk {
	struct fake_relay *f;
	struct fake_message messages[WALK_MESSAGES];
	bool acknowledged[WALK_MESSAGES]; /* by the relay, upstream */
	bool delivered[WALK_MESSAGES];	  /* in this session */
	unsigned n_made, looked_at, pubacks_seen;
	bool out_acked[FAKE_OUT_MAX];
	uint64_t highest[WALK_SENDERS][FAKE_OUTLETS]; /* counters that the broker downstream took */
	unsigned taken;
};

/* Which of the senders: by the row of its external id. */
static unsigned sender_of(struct walk *w, struct bytes external)
{
	for (unsigned i = 0; i < w->f->n_rows; i++) {
		char hex[IDTABLE_EXTERNAL_DIGITS + 1];
		struct idtable_entry e;

		text_hex(bytes_of(w->f->rows[i].external, IDTABLE_EXTERNAL_BYTES), hex);
		if (!bytes_equal(external, bytes_str(hex)))
			continue;
		ASSERT_EQ(trace(w->f, &w->f->rows[i], &e), 0);
		return (unsigned)(e.internal.p[e.internal.n - 1] - '7');
	}
	harness_fail(__FILE__, __LINE__, true, "an external id without a row");
	return 0;
}

/* The broker downstream takes each counter once, as PROTOCOL 12 says: those that are new must come
 * in order. */
static void look(struct walk *w)
{
	for (; w->looked_at < w->f->n_out; w->looked_at++) {
		struct fake_published *p = &w->f->out[w->looked_at];
		struct envelope e = fake_body(w->f, p);
		unsigned outlet = fake_outlet_of(w->f, p), sender = sender_of(w, e.origin);
		uint64_t *highest = &w->highest[sender][outlet];

		if (e.counter <= *highest)
			continue; /* seen */
		ASSERT_EQ(e.counter, *highest + 1);
		*highest = e.counter;
		w->taken++;
	}
	for (; w->pubacks_seen < w->f->n_pubacks; w->pubacks_seen++)
		w->acknowledged[w->f->pubacks[w->pubacks_seen] - 1] = true;
}

/* Packet ids are the message's number, so that a repetition has the same. */
static void deliver_some(struct walk *w, unsigned most)
{
	for (unsigned i = 0; i < w->n_made && most; i++) {
		if (w->delivered[i] || w->acknowledged[i])
			continue;
		w->delivered[i] = true;
		most--;
		ASSERT_TRUE(fake_deliver(w->f, &w->messages[i], 1, (uint16_t)(i + 1),
					 harness_random() % 2, false));
	}
}

static void lose_upstream(struct walk *w)
{
	look(w);
	relay_upstream(w->f->relay, false);
	memset(w->delivered, 0, sizeof(w->delivered));
	relay_upstream(w->f->relay, true);
}

static void acknowledge_some(struct walk *w)
{
	for (unsigned i = 0; i < w->f->n_out; i++) {
		if (w->out_acked[i] || harness_random() % 2)
			continue;
		w->out_acked[i] = true;
		fake_acknowledge(w->f, i);
	}
}

static void walk_step(struct walk *w)
{
	struct fake_relay *f = w->f;

	switch (harness_random() % 9) {
	case 0:
		if (w->n_made < WALK_MESSAGES)
			w->messages[w->n_made] =
				fake_message(f, w->n_made % WALK_SENDERS, "plant/t", "x", 1, false),
			w->n_made++;
		break;
	case 1:
	case 2:
		deliver_some(w, 1 + (unsigned)(harness_random() % 4));
		break;
	case 3:
		fake_token(f, true);
		break;
	case 4:
		relay_turn(f->relay);
		break;
	case 5:
		acknowledge_some(w);
		break;
	case 6:
		f->token_away = harness_random() % 4 == 0;
		fake_pass(f, harness_random() % 600);
		break;
	case 7:
		if (harness_random() % 4 == 0)
			lose_upstream(w);
		break;
	case 8:
		if (harness_random() % 4)
			break;
		look(w);
		for (unsigned i = 0; i < f->n_out; i++)
			w->out_acked[i] = true; /* of the session before */
		relay_downstream(f->relay, false);
		relay_downstream(f->relay, true);
		break;
	}
	look(w);
}

TEST_TIMEOUT(walk, 120)
{
	unsigned rounds = harness_rounds(4);

	for (unsigned round = 0; round < rounds; round++) {
		static struct walk w;
		unsigned messages = WALK_MESSAGES / 2;

		memset(&w, 0, sizeof(w));
		w.f = fake_relay_new(WALK_SENDERS);
		while (w.n_made < messages && w.f->n_out < FAKE_OUT_MAX - 600)
			walk_step(&w);
		messages = w.n_made;
		w.f->token_away = false;
		for (unsigned i = 0; i < 400 && !(relay_idle(w.f->relay) && i > 20); i++) {
			deliver_some(&w, 200);
			fake_token(w.f, true);
			fake_pass(w.f, ASK_RETRY_MS);
			for (unsigned k = 0; k < w.f->n_out; k++) {
				if (w.out_acked[k])
					continue;
				w.out_acked[k] = true;
				fake_acknowledge(w.f, k);
			}
			look(&w);
		}
		ASSERT_TRUE(relay_idle(w.f->relay));
		for (unsigned i = 0; i < messages; i++)
			ASSERT_TRUE(w.acknowledged[i]);
		ASSERT_EQ(w.taken, 2 * messages);
		fake_relay_free(w.f);
	}
}

HARNESS_MAIN
