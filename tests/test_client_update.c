// SPDX-License-Identifier: MIT
/*
 * What the manager states after a bundle was made, at libssdtf (PROTOCOL 13): what is taken, kept,
 * superseded and refused; and what comes of it for messages: a new epoch, two encryption keys,
 * another signing key of an origin or of the broker, levels above 1, padding.
 */
#include <errno.h>

#include "tests/ends.h"

#define FILTER "plant/+/temp"

FIXTURE_VARIANT(client)
{
	enum hpke_suite suite;
};
FIXTURE_VARIANT_ADD(client, aes){ .suite = HPKE_SUITE_AES_128_GCM };

FIXTURE_SETUP(client)
{
	ends_setup(self, variant->suite);
	self->dev.statements_room = self->rec.statements_room = ROOM;
	ends_restart(self, &self->device_terms, &self->dev);
	ends_restart(self, &self->receiver_terms, &self->rec);
}

FIXTURE_TEARDOWN(client)
{
	ends_teardown(self);
}

/* --- what the manager makes ------------------------------------------------------------------- */

/* A new epoch of the fixture's scope, and a grant of its key for a receiver's. */
struct epoch {
	struct keys scope, x;
	struct record_scope record;
	struct record_grant grant;
	struct secret32 rk;
};

static void epoch_new(struct fixture_client *f, struct epoch *e, uint32_t number,
		      const struct keys *reader)
{
	struct grant_terms terms = { .key_id = KEY_ID + number, .b = reader->point };
	struct secret32 d;

	ends_keys_new(&e->scope);
	ends_keys_new(&e->x);
	e->record = f->device_terms.scope;
	e->record.epoch = 1 + number;
	e->record.key_id = terms.key_id;
	e->record.a = e->scope.point;
	e->grant = f->receiver_terms.grant;
	e->grant.grant_id[7] = (uint8_t)(100 + number);
	e->grant.key_id = terms.key_id;
	e->grant.a = e->scope.point;
	e->grant.b = reader->point;
	e->grant.x = terms.x = e->x.point;
	memcpy(terms.grant_id, e->grant.grant_id, GRANT_ID_BYTES);
	ASSERT_EQ(grant_secret_manager(&terms, &e->x.scalar, &d), 0);
	ASSERT_EQ(grant_conversion_key(&e->scope.scalar, &d, &e->rk), 0);
}

static void epoch_free(struct epoch *e)
{
	p256_private_free(e->scope.sign);
	p256_private_free(e->x.sign);
}

static uint32_t key_id_of(const struct delivery *d)
{
	struct publish_trailer t;
	struct envelope e;

	ASSERT_EQ(publish_split(bytes_of(d->sealed, d->sealed_n), &t), 0);
	ASSERT_EQ(envelope_parse(t.body, &e), 0);
	return e.key_id;
}

/* Converted by that epoch's grant, and handed to the receiver. */
static struct ssdtf_event deliver(struct fixture_client *f, struct delivery *d,
				  const struct epoch *e)
{
	struct publish_trailer t;
	struct envelope env = ends_take_apart(f, d, TOPIC, &t);
	struct p256_point point;

	ASSERT_EQ(p256_point_decompress(env.enc, &point), 0);
	ASSERT_EQ(grant_convert(&e->rk, &point, d->x), 0);
	d->grant = e->grant.grant_id;
	return ends_deliver(f, d);
}

static struct ssdtf_event update_one(struct fixture_client *f, struct end *e,
				     enum statement_kind kind, uint64_t serial, const void *record)
{
	static uint32_t number;
	uint8_t bytes[ROOM];
	struct bytes list[] = { ends_statement(&f->manager, kind, serial, record, bytes) };

	return ends_update(f, e, list, 1, ++number);
}

static void expect_taken(const struct ssdtf_event *e, unsigned n)
{
	if (e->why)
		harness_note("not taken: %s", e->why);
	ASSERT_EQ(e->kind, SSDTF_UPDATED);
	EXPECT_EQ(e->updates, n);
}

/* None was, and something is said about it. */
static void expect_untaken(const struct ssdtf_event *e)
{
	ASSERT_EQ(e->kind, SSDTF_UPDATED);
	EXPECT_EQ(e->updates, 0);
	EXPECT_TRUE(e->why != NULL);
}

static bool same_text(struct bytes v, const char *text)
{
	return bytes_equal(v, bytes_str(text));
}

/* --- asking ----------------------------------------------------------------------------------- */

TEST_F(client, ask)
{
	struct end *e = &self->dev;
	struct bytes_reader r;

	EXPECT_EQ(ssdtf_ask_updates(&e->client), -ENOTCONN);
	ends_session_open(self, e, 0);
	ASSERT_EQ(ssdtf_ask_updates(&e->client), 0);
	ASSERT_EQ(e->n_sent, 1);
	EXPECT_EQ(strcmp(e->sent[0].topic, "$SSDTF/update"), 0);
	EXPECT_EQ(e->sent[0].qos, 0);
	EXPECT_FALSE(e->sent[0].retain);
	r = bytes_reader_of(bytes_of(e->sent[0].payload, e->sent[0].n));
	EXPECT_EQ(bytes_read_u64(&r), 7);
	EXPECT_TRUE(bytes_equal(bytes_read_view(&r, 32), bytes_of(e->r_b, 32)));
	EXPECT_EQ(bytes_read_u32(&r), 1);
	EXPECT_EQ(r.left, PUBLISH_TRAILER_1_BYTES);
	/* Behind an update the serial is that one's. */
	(void)update_one(self, e, STATEMENT_SCOPE, 12, &self->device_terms.scope);
	ASSERT_EQ(ssdtf_ask_updates(&e->client), 0);
	r = bytes_reader_of(bytes_of(e->sent[1].payload, e->sent[1].n));
	EXPECT_EQ(bytes_read_u64(&r), 12);
	(void)bytes_read_view(&r, 32);
	EXPECT_EQ(bytes_read_u32(&r), 2);
}

TEST_F(client, without_memory_there_are_none)
{
	struct ssdtf_event e;

	self->dev.statements_room = 0;
	ends_restart(self, &self->device_terms, &self->dev);
	ends_session_open(self, &self->dev, 0);
	EXPECT_EQ(ssdtf_ask_updates(&self->dev.client), -ENOTSUP);
	e = update_one(self, &self->dev, STATEMENT_SCOPE, 8, &self->device_terms.scope);
	EXPECT_EQ(e.kind, SSDTF_IGNORED);
}

/* --- a new epoch ------------------------------------------------------------------------------ */

TEST_F(client, epoch_switches_both_ends)
{
	struct delivery before, after;
	struct ssdtf_event e;
	struct epoch next;

	epoch_new(self, &next, 1, &self->reader);
	ends_session_open(self, &self->dev, 0);
	ends_session_open(self, &self->rec, 0);
	ends_seal(self, &before, TOPIC, "before", 1, false);
	e = update_one(self, &self->dev, STATEMENT_SCOPE, 9, &next.record);
	expect_taken(&e, 1);
	EXPECT_EQ(e.update.kind, STATEMENT_SCOPE);
	EXPECT_EQ(e.update.serial, 9);
	EXPECT_EQ(e.update.key_id, KEY_ID + 1);
	EXPECT_TRUE(same_text(e.update.name, "plant"));
	EXPECT_EQ(self->dev.n_stored, 1);
	EXPECT_EQ(ssdtf_updated_to(&self->dev.client), 9);
	EXPECT_EQ(ssdtf_serial(&self->dev.client), 7);
	ends_seal(self, &after, TOPIC, "after", 1, false);
	EXPECT_EQ(key_id_of(&before), KEY_ID);
	EXPECT_EQ(key_id_of(&after), KEY_ID + 1);

	/* The receiver has both grants: the block's grant id says which. */
	e = deliver(self, &after, &next);
	ends_expect_refused(&e, SSDTF_REASON_KEY_ID);
	e = update_one(self, &self->rec, STATEMENT_GRANT, 10, &next.grant);
	expect_taken(&e, 1);
	EXPECT_EQ(e.update.kind, STATEMENT_GRANT);
	EXPECT_EQ(e.update.key_id, KEY_ID + 1);
	e = deliver(self, &after, &next);
	ends_expect_opened(&e, "after");
	e = ends_deliver(self, &before);
	ends_expect_opened(&e, "before");
	epoch_free(&next);
}

/* Two grants of one key id: the one that the block names is used, whichever came last. */
TEST_F(client, two_grants_of_one_key_id)
{
	struct delivery d;
	struct ssdtf_event e;
	struct epoch again;
	struct secret32 secret;
	struct grant_terms terms;

	epoch_new(self, &again, 0, &self->reader);
	again.grant.a = self->scope.point;
	terms = (struct grant_terms){ .key_id = KEY_ID,
				      .x = again.x.point,
				      .b = self->reader.point };
	memcpy(terms.grant_id, again.grant.grant_id, GRANT_ID_BYTES);
	ASSERT_EQ(grant_secret_manager(&terms, &again.x.scalar, &secret), 0);
	ASSERT_EQ(grant_conversion_key(&self->scope.scalar, &secret, &again.rk), 0);
	ends_session_open(self, &self->rec, 0);
	e = update_one(self, &self->rec, STATEMENT_GRANT, 10, &again.grant);
	expect_taken(&e, 1);
	ends_seal(self, &d, TOPIC, "old grant", 1, false);
	e = ends_deliver(self, &d);
	ends_expect_opened(&e, "old grant");
	ends_seal(self, &d, TOPIC, "new grant", 1, false);
	e = deliver(self, &d, &again);
	ends_expect_opened(&e, "new grant");
	epoch_free(&again);
}

/* An epoch that begins later is kept beside the one in use, and taken when it begins. */
TEST_F(client, epoch_that_is_to_come)
{
	struct delivery d;
	struct ssdtf_event e;
	struct epoch next;

	epoch_new(self, &next, 1, &self->reader);
	next.record.not_before_ms = NOW_MS + 1000;
	ends_session_open(self, &self->dev, 0);
	e = update_one(self, &self->dev, STATEMENT_SCOPE, 9, &next.record);
	expect_taken(&e, 1);
	ends_seal(self, &d, TOPIC, "x", 1, false);
	EXPECT_EQ(key_id_of(&d), KEY_ID);
	self->now.unix_ms += 1000;
	ends_seal(self, &d, TOPIC, "x", 1, false);
	EXPECT_EQ(key_id_of(&d), KEY_ID + 1);
	epoch_free(&next);
}

TEST_F(client, epochs_do_not_go_back)
{
	struct epoch epochs[3];
	struct delivery d;
	struct ssdtf_event e;

	for (unsigned i = 0; i < 3; i++)
		epoch_new(self, &epochs[i], i + 1, &self->reader);
	ends_session_open(self, &self->dev, 0);
	e = update_one(self, &self->dev, STATEMENT_SCOPE, 20, &epochs[1].record);
	expect_taken(&e, 1);
	/* Stated later, but of an epoch before. */
	e = update_one(self, &self->dev, STATEMENT_SCOPE, 21, &epochs[0].record);
	expect_untaken(&e);
	/* An older statement, whatever it says. */
	e = update_one(self, &self->dev, STATEMENT_SCOPE, 20, &epochs[2].record);
	EXPECT_EQ(e.updates, 0);
	e = update_one(self, &self->dev, STATEMENT_SCOPE, 8, &epochs[2].record);
	EXPECT_EQ(e.updates, 0);
	ends_seal(self, &d, TOPIC, "x", 1, false);
	EXPECT_EQ(key_id_of(&d), KEY_ID + 2);
	EXPECT_EQ(self->dev.n_stored, 1);
	for (unsigned i = 0; i < 3; i++)
		epoch_free(&epochs[i]);
}

/* --- what is refused -------------------------------------------------------------------------- */

TEST_F(client, only_the_managers_statements)
{
	struct record_grant foreign = self->receiver_terms.grant;
	struct record_broker broker = { .gateway_id = bytes_str("gw-2"),
					.signing = self->device.point };
	struct epoch next;
	uint8_t bytes[ROOM];
	struct ssdtf_event e;
	struct bytes s;

	epoch_new(self, &next, 1, &self->device); /* a key that is not the receiver's */
	ends_session_open(self, &self->dev, 0);
	ends_session_open(self, &self->rec, 0);
	s = ends_statement(&self->broker, STATEMENT_SCOPE, 9, &next.record, bytes);
	e = ends_update(self, &self->dev, &s, 1, 1);
	expect_untaken(&e);
	s = ends_statement(&self->manager, STATEMENT_SCOPE, 9, &next.record, bytes);
	bytes[40] ^= 1;
	e = ends_update(self, &self->dev, &s, 1, 2);
	expect_untaken(&e);
	bytes[40] ^= 1;
	bytes[3] = STATEMENT_BUNDLE; /* the kind is under the signature's label */
	e = ends_update(self, &self->dev, &s, 1, 3);
	expect_untaken(&e);
	bytes[3] = STATEMENT_SCOPE;
	s.n--;
	e = ends_update(self, &self->dev, &s, 1, 4);
	expect_untaken(&e);
	s.n++;
	e = ends_update(self, &self->dev, &s, 1, 5);
	expect_taken(&e, 1);

	foreign.receiver = bytes_str("desk:2");
	e = update_one(self, &self->rec, STATEMENT_GRANT, 9, &foreign);
	expect_untaken(&e);
	e = update_one(self, &self->rec, STATEMENT_GRANT, 9, &next.grant);
	expect_untaken(&e);
	e = update_one(self, &self->rec, STATEMENT_BROKER, 9, &broker);
	expect_untaken(&e);
	EXPECT_EQ(self->rec.n_stored, 0);
	epoch_free(&next);
}

/* R_b and n as of every notice; and the broker's signature over all of it. */
TEST_F(client, only_this_sessions_updates)
{
	struct epoch next;
	uint8_t bytes[ROOM], body[ROOM], payload[ROOM];
	struct ssdtf_event e;
	struct bytes s;
	size_t n;

	epoch_new(self, &next, 1, &self->reader);
	s = ends_statement(&self->manager, STATEMENT_SCOPE, 9, &next.record, bytes);
	ends_session_open(self, &self->dev, 0);
	self->dev.r_b[0] ^= 1;
	e = ends_update(self, &self->dev, &s, 1, 1);
	EXPECT_EQ(e.kind, SSDTF_IGNORED);
	self->dev.r_b[0] ^= 1;
	e = ends_update(self, &self->dev, NULL, 0, 5);
	expect_taken(&e, 0);
	e = ends_update(self, &self->dev, &s, 1, 5);
	EXPECT_EQ(e.kind, SSDTF_IGNORED);
	memcpy(body, "\0\1\0\0\0\1", 6);
	e = ends_hand_signed(self, &self->dev, SSDTF_TOPIC_UPDATE, bytes_of(body, 6));
	EXPECT_EQ(e.kind, SSDTF_IGNORED);
	n = ends_broker_sign(self, SSDTF_TOPIC_UPDATE, 0x30, bytes_of(body, 6), RECEIVER, payload);
	e = ends_hand(self, &self->dev, SSDTF_TOPIC_UPDATE, bytes_of(payload, n), 0x30);
	EXPECT_EQ(e.kind, SSDTF_IGNORED);
	e = ends_update(self, &self->dev, &s, 1, 6);
	expect_taken(&e, 1);
	epoch_free(&next);
}

/* What cannot be stored is not taken, nor what is behind it; asked for again, it comes. */
TEST_F(client, storage_fails)
{
	struct epoch one, two;
	uint8_t first[ROOM], second[ROOM], body[ROOM], payload[ROOM], plain[16];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));
	struct ssdtf_packet p = { .topic = bytes_str(SSDTF_TOPIC_UPDATE) };
	struct bytes list[2];
	struct ssdtf_event e;
	struct delivery d;

	epoch_new(self, &one, 1, &self->reader);
	epoch_new(self, &two, 2, &self->reader);
	list[0] = ends_statement(&self->manager, STATEMENT_SCOPE, 9, &one.record, first);
	list[1] = ends_statement(&self->manager, STATEMENT_SCOPE, 10, &two.record, second);
	ends_session_open(self, &self->dev, 0);
	self->dev.store_fails = -EIO;
	bytes_write_u16(&w, 1);
	bytes_write_u32_view(&w, list[0]);
	bytes_write(&w, bytes_of(self->dev.r_b, 32));
	bytes_write_u32(&w, 1);
	p.payload = bytes_of(payload, ends_broker_sign(self, SSDTF_TOPIC_UPDATE, 0x30,
						       bytes_of(body, w.used), DEVICE, payload));
	EXPECT_EQ(ssdtf_on_message(&self->dev.client, &p, self->now, plain, sizeof(plain), &e),
		  -EIO);
	EXPECT_EQ(ssdtf_updated_to(&self->dev.client), 7);
	EXPECT_EQ(ssdtf_statements(&self->dev.client).n, 0);
	ends_seal(self, &d, TOPIC, "x", 1, false);
	EXPECT_EQ(key_id_of(&d), KEY_ID);
	self->dev.store_fails = 0;
	e = ends_update(self, &self->dev, list, 2, 2);
	expect_taken(&e, 2);
	EXPECT_EQ(e.update.serial, 10);
	EXPECT_EQ(self->dev.n_stored, 2);
	epoch_free(&one);
	epoch_free(&two);
}

/* --- what is kept ----------------------------------------------------------------------------- */

/* A restart with what was stored, as storage gives it. */
static int restart_with(struct fixture_client *f, const struct terms *t, struct end *e,
			struct bytes kept)
{
	struct bytes copy = bytes_of(e->stored, kept.n);

	memmove(e->stored, kept.p, kept.n);
	ssdtf_deinit(&e->client);
	memcpy(e->statements, copy.p, copy.n);
	e->statements_n = copy.n;
	ends_bundle(f, t, e);
	return ends_init(f, t, e, 0);
}

TEST_F(client, a_restart_does_not_go_back)
{
	struct end *e = &self->dev;
	struct delivery d;
	struct epoch one, two;

	epoch_new(self, &one, 1, &self->reader);
	epoch_new(self, &two, 2, &self->reader);
	ends_session_open(self, e, 0);
	(void)update_one(self, e, STATEMENT_SCOPE, 9, &one.record);
	(void)update_one(self, e, STATEMENT_SCOPE, 11, &two.record);
	ASSERT_EQ(e->n_stored, 2);
	ASSERT_EQ(restart_with(self, &self->device_terms, e, bytes_of(e->stored, e->stored_n)), 0);
	EXPECT_EQ(ssdtf_updated_to(&e->client), 11);
	ends_seal(self, &d, TOPIC, "x", 1, false);
	EXPECT_EQ(key_id_of(&d), KEY_ID + 2);
	/* What is superseded is gone from the memory; what is left is the same again. */
	ASSERT_LT(ssdtf_statements(&e->client).n, e->stored_n * 2 / 3);
	ASSERT_EQ(restart_with(self, &self->device_terms, e, ssdtf_statements(&e->client)), 0);
	EXPECT_EQ(ssdtf_updated_to(&e->client), 11);
	ends_seal(self, &d, TOPIC, "x", 1, false);
	EXPECT_EQ(key_id_of(&d), KEY_ID + 2);
	epoch_free(&one);
	epoch_free(&two);
}

TEST_F(client, a_newer_bundle_supersedes)
{
	struct terms t = self->device_terms;
	struct end *e = &self->dev;
	struct end next = { .bundle_n = 0 };
	struct delivery d;
	struct epoch one, two;

	epoch_new(self, &one, 1, &self->reader);
	epoch_new(self, &two, 2, &self->reader);
	ends_session_open(self, e, 0);
	(void)update_one(self, e, STATEMENT_SCOPE, 9, &one.record);
	(void)update_one(self, e, STATEMENT_SCOPE, 11, &two.record);
	/* Of serial 10: it has what was stated up to then; 11 holds on. */
	t.serial = 10;
	t.scope = one.record;
	ends_bundle(self, &t, &next);
	ASSERT_EQ(ssdtf_load_bundle(&e->client, bytes_of(next.bundle, next.bundle_n), self->now),
		  0);
	EXPECT_EQ(ssdtf_serial(&e->client), 10);
	EXPECT_EQ(ssdtf_updated_to(&e->client), 11);
	ends_seal(self, &d, TOPIC, "x", 1, false);
	EXPECT_EQ(key_id_of(&d), KEY_ID + 2);
	/* The one that is in use, and one of before. */
	EXPECT_EQ(ssdtf_load_bundle(&e->client, bytes_of(next.bundle, next.bundle_n), self->now),
		  0);
	EXPECT_EQ(ssdtf_load_bundle(&e->client, bytes_of(e->bundle, e->bundle_n), self->now),
		  -ESTALE);
	/* Of serial 12: nothing behind it is left, whatever its scopes are. */
	t.serial = 12;
	ends_bundle(self, &t, &next);
	ASSERT_EQ(ssdtf_load_bundle(&e->client, bytes_of(next.bundle, next.bundle_n), self->now),
		  0);
	EXPECT_EQ(ssdtf_updated_to(&e->client), 12);
	EXPECT_EQ(ssdtf_statements(&e->client).n, 0);
	ends_seal(self, &d, TOPIC, "x", 1, false);
	EXPECT_EQ(key_id_of(&d), KEY_ID + 1);
	ends_restart(self, &self->device_terms, &self->dev); /* views are into next */
	epoch_free(&one);
	epoch_free(&two);
}

TEST_F(client, kept_statements_that_are_damaged)
{
	struct end *e = &self->dev;
	struct epoch one;

	epoch_new(self, &one, 1, &self->reader);
	ends_session_open(self, e, 0);
	(void)update_one(self, e, STATEMENT_SCOPE, 9, &one.record);
	ASSERT_EQ(e->n_stored, 1);
	for (unsigned i = 0; i < harness_rounds(40); i++) {
		size_t at = harness_random() % e->stored_n;

		e->stored[at] ^= 0x10;
		ASSERT_EQ(restart_with(self, &self->device_terms, e,
				       bytes_of(e->stored, e->stored_n)),
			  -EILSEQ);
		e->stored[at] ^= 0x10;
	}
	ASSERT_EQ(restart_with(self, &self->device_terms, e, bytes_of(e->stored, e->stored_n - 1)),
		  -EILSEQ);
	ASSERT_EQ(restart_with(self, &self->device_terms, e, bytes_of(e->stored, e->stored_n)), 0);
	epoch_free(&one);
}

/* Memory for two statements serves for any number of epochs, one after the other. */
TEST_F(client, memory_is_used_again)
{
	struct end *e = &self->dev;
	struct ssdtf_event event;
	struct delivery d;
	uint8_t bytes[ROOM];
	struct epoch epoch;

	epoch_new(self, &epoch, 1, &self->reader);
	e->statements_room =
		2 * ends_statement(&self->manager, STATEMENT_SCOPE, 9, &epoch.record, bytes).n;
	ends_restart(self, &self->device_terms, e);
	ends_session_open(self, e, 0);
	for (uint32_t i = 1; i <= 6; i++) {
		epoch_free(&epoch);
		epoch_new(self, &epoch, i, &self->reader);
		event = update_one(self, e, STATEMENT_SCOPE, 8 + i, &epoch.record);
		expect_taken(&event, 1);
		e->stored_n = 0;
		ends_seal(self, &d, TOPIC, "x", 1, false);
		ASSERT_EQ(key_id_of(&d), KEY_ID + i);
		ASSERT_LE(ssdtf_statements(&e->client).n, e->statements_room);
	}
	/* What is in use is not pushed out: another scope finds no room beside the newest two. */
	epoch.record.name = bytes_str("other");
	event = update_one(self, e, STATEMENT_SCOPE, 20, &epoch.record);
	expect_taken(&event, 1);
	epoch.record.name = bytes_str("third");
	event = update_one(self, e, STATEMENT_SCOPE, 21, &epoch.record);
	expect_untaken(&event);
	EXPECT_EQ(ssdtf_updated_to(&e->client), 20);
	epoch_free(&epoch);
}

/* Statements move in memory; scopes, grants and origins go on naming what they named. */
TEST_F(client, statements_that_move)
{
	struct record_party origin = self->receiver_terms.origin;
	struct end *e = &self->rec;
	struct ssdtf_event event;
	struct delivery d;
	struct epoch epoch;
	uint32_t serial = 10;

	epoch_new(self, &epoch, 1, &self->reader);
	ends_session_open(self, e, 0);
	ends_session_open(self, &self->dev, 0);
	event = update_one(self, &self->dev, STATEMENT_SCOPE, 9, &epoch.record);
	expect_taken(&event, 1);
	/* Records of the origin, the last of which counts, in front of the grant and behind it. */
	origin.signing = self->broker.point;
	(void)update_one(self, e, STATEMENT_PARTY, serial++, &origin);
	event = update_one(self, e, STATEMENT_GRANT, serial++, &epoch.grant);
	expect_taken(&event, 1);
	for (unsigned i = 0; i < harness_rounds(40); i++) {
		origin.signing = i % 2 ? self->broker.point : self->device.point;
		event = update_one(self, e, STATEMENT_PARTY, serial++, &origin);
		expect_taken(&event, 1);
		e->stored_n = 0;
		ends_seal(self, &d, TOPIC, "moved", 1, false);
		event = deliver(self, &d, &epoch);
		if (i % 2)
			ends_expect_refused(&event, SSDTF_REASON_BAD_SIGNATURE);
		else
			ends_expect_opened(&event, "moved");
	}
	ASSERT_LE(ssdtf_statements(&e->client).n, ROOM);
	epoch_free(&epoch);
}

/* --- room for grants -------------------------------------------------------------------------- */

TEST_F(client, grants_that_have_run_out_make_room)
{
	struct record_grant g = self->receiver_terms.grant;
	struct end *e = &self->rec;
	struct ssdtf_event event;
	struct delivery d;
	uint32_t serial = 10;

	ends_session_open(self, e, 0);
	while (e->client.n_grants < SSDTF_GRANTS_MAX) {
		/* Views need no statement behind them for this. */
		e->client.grants[e->client.n_grants] = e->client.grants[0];
		e->client.grants[e->client.n_grants].not_after_ms = NOW_MS + 1000;
		e->client.grants[e->client.n_grants].grant_id[6] = (uint8_t)(e->client.n_grants);
		e->client.n_grants++;
	}
	g.grant_id[6] = 0xff;
	g.not_after_ms = 0;
	event = update_one(self, e, STATEMENT_GRANT, serial, &g);
	expect_untaken(&event);
	EXPECT_EQ(ssdtf_updated_to(&e->client), 7);
	self->now.unix_ms += 1000;
	event = update_one(self, e, STATEMENT_GRANT, serial, &g);
	expect_taken(&event, 1);
	EXPECT_EQ(e->client.n_grants, SSDTF_GRANTS_MAX);
	ends_seal(self, &d, TOPIC, "the first is there", 1, false);
	event = ends_deliver(self, &d);
	ends_expect_opened(&event, "the first is there");
}

/* Old epochs' grants have no end that their receiver is told: where the table or the memory is full
 * the oldest go, and the last one opens. */
static void older_grants_make_room(struct fixture_client *self, unsigned n)
{
	struct record_grant g = self->receiver_terms.grant;
	struct end *e = &self->rec;
	struct ssdtf_event event;

	ends_session_open(self, e, 0);
	for (unsigned i = 1; i < 2 * SSDTF_GRANTS_MAX; i++) {
		g.grant_id[6] = (uint8_t)i;
		g.not_before_ms++;
		event = update_one(self, e, STATEMENT_GRANT, 10 + i, &g);
		expect_taken(&event, 1);
		e->stored_n = 0;
	}
	EXPECT_EQ(e->client.n_grants, n);
	for (unsigned i = 0; i < e->client.n_grants; i++)
		EXPECT_TRUE(e->client.grants[i].grant_id[6] >= 2 * SSDTF_GRANTS_MAX - n);
}

TEST_F(client, older_grants_make_room)
{
	static uint8_t memory[SSDTF_GRANTS_MAX * 600];

	self->rec.client.statements.p = memory;
	self->rec.client.statements.room = sizeof(memory);
	older_grants_make_room(self, SSDTF_GRANTS_MAX);
}

TEST_F(client, older_grants_make_room_in_little_memory)
{
	older_grants_make_room(self, self->rec.client.statements.room / 364);
}

/* --- keys ------------------------------------------------------------------------------------- */

/* A receiver whose encryption key was changed: each grant is for one of the two. */
TEST_F(client, two_encryption_keys)
{
	struct end *e = &self->rec;
	struct ssdtf_event event;
	struct delivery old, fresh;
	struct keys reader;
	struct epoch next;

	ends_keys_new(&reader);
	epoch_new(self, &next, 1, &reader);
	e->encryption = &reader.scalar;
	ends_bundle(self, &self->receiver_terms, e);
	ssdtf_deinit(&e->client);
	EXPECT_EQ(ends_init(self, &self->receiver_terms, e, 0),
		  -EPERM); /* nothing opens its grant */
	e->encryption_old = &self->reader.scalar;
	ends_start(self, &self->receiver_terms, e);
	ends_session_open(self, e, 0);
	ends_session_open(self, &self->dev, 0);
	ends_seal(self, &old, TOPIC, "for the old key", 1, false);
	event = update_one(self, &self->dev, STATEMENT_SCOPE, 9, &next.record);
	expect_taken(&event, 1);
	event = update_one(self, e, STATEMENT_GRANT, 9, &next.grant);
	expect_taken(&event, 1);
	ends_seal(self, &fresh, TOPIC, "for the new key", 1, false);
	event = ends_deliver(self, &old);
	ends_expect_opened(&event, "for the old key");
	event = deliver(self, &fresh, &next);
	ends_expect_opened(&event, "for the new key");
	/* In one key alone there is no old one. */
	e->encryption = NULL;
	e->encryption_old = NULL;
	ends_restart(self, &self->receiver_terms, e);
	p256_private_free(reader.sign);
	epoch_free(&next);
}

/* An origin's new key, the previous one until then; without it; and no origin any more. */
TEST_F(client, origin_with_another_key)
{
	struct record_party origin = self->receiver_terms.origin;
	struct end *e = &self->rec;
	struct ssdtf_event event;
	struct delivery d;
	struct keys fresh;

	ends_keys_new(&fresh);
	ends_session_open(self, e, 0);
	origin.signing = fresh.point;
	origin.has_previous = true;
	origin.previous = self->device.point;
	origin.previous_until_ms = NOW_MS + 1000;
	event = update_one(self, e, STATEMENT_PARTY, 9, &origin);
	expect_taken(&event, 1);
	EXPECT_TRUE(same_text(event.update.name, DEVICE));
	EXPECT_FALSE(event.update.removed);
	ends_seal(self, &d, TOPIC, "by the previous key", 1, false);
	event = ends_deliver(self, &d);
	ends_expect_opened(&event, "by the previous key");
	EXPECT_EQ(event.proof, SSDTF_PROOF_VERIFIED);
	self->now.unix_ms += 1000;
	ends_seal(self, &d, TOPIC, "too late", 1, false);
	event = ends_deliver(self, &d);
	ends_expect_refused(&event, SSDTF_REASON_BAD_SIGNATURE);
	/* 0 is no end. */
	origin.previous_until_ms = 0;
	(void)update_one(self, e, STATEMENT_PARTY, 10, &origin);
	ends_seal(self, &d, TOPIC, "for good", 1, false);
	event = ends_deliver(self, &d);
	ends_expect_opened(&event, "for good");
	origin.has_previous = false;
	(void)update_one(self, e, STATEMENT_PARTY, 11, &origin);
	ends_seal(self, &d, TOPIC, "over", 1, false);
	event = ends_deliver(self, &d);
	ends_expect_refused(&event, SSDTF_REASON_BAD_SIGNATURE);
	origin.signing = self->device.point;
	(void)update_one(self, e, STATEMENT_PARTY, 12, &origin);
	event = ends_deliver(self, &d);
	ends_expect_opened(&event, "over");
	origin.roles = 0;
	event = update_one(self, e, STATEMENT_PARTY, 13, &origin);
	EXPECT_TRUE(event.update.removed);
	ends_seal(self, &d, TOPIC, "revoked", 1, false);
	event = ends_deliver(self, &d);
	ends_expect_refused(&event, SSDTF_REASON_BAD_SIGNATURE);
	/* Kept, so that the bundle's record does not come back with a restart. */
	ASSERT_EQ(restart_with(self, &self->receiver_terms, e, ssdtf_statements(&e->client)), 0);
	ends_session_open(self, e, 0);
	event = ends_deliver(self, &d);
	ends_expect_refused(&event, SSDTF_REASON_BAD_SIGNATURE);
	p256_private_free(fresh.sign);
}

static void swap_broker(struct fixture_client *f, struct keys *other)
{
	struct keys k = f->broker;

	f->broker = *other;
	*other = k;
}

/* The broker's next key is taken as its own, in the handshake and after it; the response names the
 * key that signed the challenge. Then it is the only one. */
TEST_F(client, broker_with_another_key)
{
	struct record_broker record = { .gateway_id = bytes_str("gw-1"),
					.signing = self->broker.point,
					.has_next = true };
	struct end *e = &self->rec;
	struct ends_challenge ch;
	struct ssdtf_event event;
	struct delivery d;
	uint8_t hash[HASH_BYTES];
	struct keys next;

	ends_keys_new(&next);
	record.next = next.point;
	ends_session_open(self, e, 0);
	event = update_one(self, e, STATEMENT_BROKER, 9, &record);
	expect_taken(&event, 1);
	ends_seal(self, &d, TOPIC, "current", 1, false);
	event = ends_deliver(self, &d);
	ends_expect_opened(&event, "current");
	swap_broker(self, &next);
	ends_seal(self, &d, TOPIC, "next", 1, false);
	event = ends_deliver(self, &d);
	ends_expect_opened(&event, "next");

	ends_connect_begin(self, e);
	ch = ends_challenge_right(e);
	event = ends_hand_challenge(self, e, &ch);
	ASSERT_EQ(event.kind, SSDTF_NOTHING);
	hash_one(bytes_of(self->broker.point.b, P256_POINT_BYTES), hash);
	ASSERT_BYTES(e->sent[0].payload + 64, hash, sizeof(hash));
	ASSERT_BYTES(ssdtf_broker_hash(&e->client), hash, sizeof(hash));
	event = ends_hand_result(self, e, 0);
	ASSERT_EQ(event.kind, SSDTF_AUTHENTICATED);

	record.signing = self->broker.point;
	record.has_next = false;
	event = update_one(self, e, STATEMENT_BROKER, 10, &record);
	expect_taken(&event, 1);
	swap_broker(self, &next);
	ends_connect_begin(self, e);
	ch = ends_challenge_right(e);
	event = ends_hand_challenge(self, e, &ch);
	EXPECT_EQ(event.kind, SSDTF_AUTH_FAILED);
	EXPECT_EQ(e->disconnects, 1);
	/* The last word stays the last over a restart. */
	ASSERT_EQ(restart_with(self, &self->receiver_terms, e, ssdtf_statements(&e->client)), 0);
	ends_connect_begin(self, e);
	ch = ends_challenge_right(e);
	event = ends_hand_challenge(self, e, &ch);
	EXPECT_EQ(event.kind, SSDTF_AUTH_FAILED);
	swap_broker(self, &next);
	ends_session_open(self, e, 0);
	p256_private_free(next.sign);
}

HARNESS_MAIN
