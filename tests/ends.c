// SPDX-License-Identifier: MIT
#include "tests/ends.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "userspace/base/text.h"
#include "userspace/bundle/statement.h"

const uint8_t ends_grant_id[GRANT_ID_BYTES] = { 0x6e, 1, 2, 3, 4, 5, 6, 7 };

/* --- the parties ------------------------------------------------------------------------------ */

void ends_keys_new(struct keys *k)
{
	ASSERT_EQ(p256_scalar_random(&k->scalar), 0);
	ASSERT_EQ(p256_mul_base(&k->scalar, &k->point), 0);
	ASSERT_EQ(p256_private_new(&k->scalar, &k->sign), 0);
}

static int on_publish(void *ctx, const char *topic, const uint8_t *payload, size_t n, uint8_t qos,
		      bool retain)
{
	struct end *e = ctx;

	ASSERT_LT(e->n_sent, SENT_MAX);
	ASSERT_LE(n, ROOM);
	snprintf(e->sent[e->n_sent].topic, sizeof(e->sent[0].topic), "%s", topic);
	memcpy(e->sent[e->n_sent].payload, payload, n);
	e->sent[e->n_sent].n = n;
	e->sent[e->n_sent].qos = qos;
	e->sent[e->n_sent++].retain = retain;
	return 0;
}

static void on_disconnect(void *ctx)
{
	((struct end *)ctx)->disconnects++;
}

static int on_counter_load(void *ctx, uint64_t *ret_mark)
{
	*ret_mark = ((struct end *)ctx)->stored_mark;
	return 0;
}

static int on_counter_reserve(void *ctx, uint64_t mark)
{
	struct end *e = ctx;

	if (e->reserve_fails)
		return e->reserve_fails;
	ASSERT_GT(mark, e->stored_mark);
	e->stored_mark = mark;
	e->reserves++;
	return 0;
}

static int on_statement_store(void *ctx, struct bytes statement, const struct ssdtf_update *what)
{
	struct end *e = ctx;

	if (e->store_fails)
		return e->store_fails;
	ASSERT_LE(statement.n, sizeof(e->stored) - e->stored_n);
	memcpy(e->stored + e->stored_n, statement.p, statement.n);
	e->stored_n += statement.n;
	e->n_stored++;
	e->stored_what = *what;
	/* It does not count as had before it is stored. */
	ASSERT_LT(ssdtf_updated_to(&e->client), what->serial);
	return 0;
}

static const struct ssdtf_ops ops = {
	.publish = on_publish,
	.disconnect = on_disconnect,
	.counter_load = on_counter_load,
	.counter_reserve = on_counter_reserve,
	.statement_store = on_statement_store,
};

/* --- the manager ------------------------------------------------------------------------------ */

static void write_record(struct bytes_writer *w, const struct terms *t, int which)
{
	uint8_t record[1024];
	struct bytes_writer r = bytes_writer_of(record, sizeof(record));

	if (which == 0)
		record_scope_encode(&t->scope, &r);
	else if (which == 1)
		record_grant_encode(&t->grant, &r);
	else
		record_party_encode(&t->origin, &r);
	ASSERT_FALSE(r.bad);
	bundle_party_write_record(bytes_of(record, r.used), w);
}

void ends_bundle(struct fixture_client *f, const struct terms *t, struct end *to)
{
	struct bundle_party b = {
		.party_id = bytes_str(t->id),
		.signing = t->signing->point,
		.broker = { .gateway_id = bytes_str("gw-1"), .signing = f->broker.point },
		.k_adm = { 1, 2, 3 },
	};
	struct statement s = { .kind = STATEMENT_BUNDLE,
			       .serial = t->serial,
			       .not_before_ms = t->not_before_ms,
			       .not_after_ms = t->not_after_ms };
	uint8_t body[ROOM], digest[P256_DIGEST_BYTES], sig[P256_SIG_BYTES];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	bundle_party_write_head(&b, &w);
	bytes_write_u16(&w, (uint16_t)t->n_scopes);
	for (unsigned i = 0; i < t->n_scopes; i++)
		write_record(&w, t, 0);
	bytes_write_u16(&w, (uint16_t)t->n_grants);
	for (unsigned i = 0; i < t->n_grants; i++)
		write_record(&w, t, 1);
	bytes_write_u16(&w, (uint16_t)t->n_origins);
	for (unsigned i = 0; i < t->n_origins; i++)
		write_record(&w, t, 2);
	ASSERT_FALSE(w.bad);
	s.body = bytes_of(body, w.used);
	w = bytes_writer_of(to->bundle, sizeof(to->bundle));
	statement_write_unsigned(&s, &w);
	statement_digest(STATEMENT_BUNDLE, bytes_of(to->bundle, w.used), digest);
	ASSERT_EQ(p256_sign_digest(f->manager.sign, digest, sig), 0);
	bytes_write(&w, bytes_of(sig, sizeof(sig)));
	ASSERT_FALSE(w.bad);
	to->bundle_n = w.used;
}

struct bytes ends_statement(const struct keys *by, enum statement_kind kind, uint64_t serial,
			    const void *record, uint8_t out[ROOM])
{
	uint8_t body[ROOM], digest[P256_DIGEST_BYTES], sig[P256_SIG_BYTES];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));
	struct statement s = { .kind = kind, .serial = serial };

	if (kind == STATEMENT_SCOPE)
		record_scope_encode(record, &w);
	else if (kind == STATEMENT_GRANT)
		record_grant_encode(record, &w);
	else if (kind == STATEMENT_PARTY)
		record_party_encode(record, &w);
	else
		record_broker_encode(record, &w);
	s.body = bytes_of(body, w.used);
	w = bytes_writer_of(out, ROOM);
	statement_write_unsigned(&s, &w);
	statement_digest(kind, bytes_of(out, w.used), digest);
	ASSERT_EQ(p256_sign_digest(by->sign, digest, sig), 0);
	bytes_write(&w, bytes_of(sig, sizeof(sig)));
	ASSERT_FALSE(w.bad);
	return bytes_of(out, w.used);
}

int ends_init(struct fixture_client *f, const struct terms *t, struct end *e, uint64_t serial_min)
{
	struct ssdtf_config config = {
		.id = bytes_str(t->id),
		.signing = &t->signing->scalar,
		.zk = t->zk,
		.encryption = !t->encryption  ? NULL
			      : e->encryption ? e->encryption
					      : &f->reader.scalar,
		.encryption_old = t->encryption ? e->encryption_old : NULL,
		.manager = &f->manager.point,
		.bundle = bytes_of(e->bundle, e->bundle_n),
		.serial_min = serial_min,
		.statements = e->statements,
		.statements_n = e->statements_n,
		.statements_room = e->statements_room,
		.counter_step = 8,
		.rekey_messages = e->rekey_messages,
		.rekey_seconds = e->rekey_seconds,
		.contexts = e->contexts,
		.n_contexts = e->n_contexts,
		.origins = e->origins,
		.n_origins = ARRAY_SIZE(e->origins),
		.ops = &ops,
		.ctx = e,
	};

	return ssdtf_init(&e->client, &config, f->now);
}

static void terms_default(struct fixture_client *f, enum hpke_suite suite)
{
	struct record_scope scope = {
		.key_id = KEY_ID,
		.epoch = 1,
		.name = bytes_str("plant"),
		.suite = (uint8_t)suite,
		.a = f->scope.point,
		.n_filters = 1,
		.filters = { bytes_str("plant/+/temp") },
	};
	struct record_grant grant = {
		.key_id = KEY_ID,
		.flags = RECORD_GRANT_PROOF,
		.receiver = bytes_str(RECEIVER),
		.b = f->reader.point,
		.a = f->scope.point,
		.x = f->x.point,
		.scope = bytes_str("plant"),
		.n_filters = 2,
		.filters = { bytes_str("other/#"), bytes_str("plant/7/+") },
	};
	struct record_party origin = {
		.id = bytes_str(DEVICE),
		.roles = RECORD_ROLE_DEVICE,
		.signing = f->device.point,
	};

	memcpy(grant.grant_id, ends_grant_id, sizeof(ends_grant_id));
	f->device_terms = (struct terms){
		.id = DEVICE, .signing = &f->device, .serial = 7, .scope = scope, .n_scopes = 1
	};
	f->receiver_terms = (struct terms){ .id = RECEIVER,
					    .signing = &f->receiver,
					    .encryption = &f->reader.point,
					    .serial = 7,
					    .grant = grant,
					    .n_grants = 1,
					    .origin = origin,
					    .n_origins = 1 };
}

void ends_start(struct fixture_client *f, const struct terms *t, struct end *e)
{
	ends_bundle(f, t, e);
	ASSERT_EQ(ends_init(f, t, e, 0), 0);
}

void ends_restart(struct fixture_client *f, const struct terms *t, struct end *e)
{
	ssdtf_deinit(&e->client);
	ends_start(f, t, e);
}

void ends_setup(struct fixture_client *self, enum hpke_suite suite)
{
	struct grant_terms terms = { .key_id = KEY_ID };
	struct secret32 d;

	memset(self, 0, sizeof(*self));
	self->now = (struct ssdtf_time){ .unix_ms = NOW_MS, .mono_ms = 5000 };
	ends_keys_new(&self->manager);
	ends_keys_new(&self->broker);
	ends_keys_new(&self->device);
	ends_keys_new(&self->receiver);
	ends_keys_new(&self->reader);
	ends_keys_new(&self->scope);
	ends_keys_new(&self->x);
	ASSERT_EQ(p256_public_new(&self->device.point, &self->device_public), 0);
	memcpy(terms.grant_id, ends_grant_id, sizeof(ends_grant_id));
	terms.x = self->x.point;
	terms.b = self->reader.point;
	ASSERT_EQ(grant_secret_manager(&terms, &self->x.scalar, &d), 0);
	/* The manager computes x(xB) and hashes: its d is what grant_secret_manager gives. */
	ASSERT_EQ(grant_conversion_key(&self->scope.scalar, &d, &self->rk), 0);
	terms_default(self, suite);
	ends_start(self, &self->device_terms, &self->dev);
	ends_start(self, &self->receiver_terms, &self->rec);
}

void ends_teardown(struct fixture_client *self)
{
	struct keys *all[] = { &self->manager, &self->broker, &self->device, &self->receiver,
			       &self->reader,  &self->scope,  &self->x };

	ssdtf_deinit(&self->dev.client);
	ssdtf_deinit(&self->rec.client);
	p256_public_free(self->device_public);
	for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
		p256_private_free(all[i]->sign);
}

/* --- the broker ------------------------------------------------------------------------------- */

size_t ends_broker_sign(struct fixture_client *f, const char *topic, uint8_t first,
			struct bytes body, const char *to_id, uint8_t out[ROOM])
{
	struct publish p = { .first = first,
			     .topic = bytes_str(topic),
			     .body = { body },
			     .body_parts = 1,
			     .client_id = bytes_str(to_id) };

	ASSERT_LE(body.n + PUBLISH_TRAILER_1_BYTES, ROOM);
	memcpy(out, body.p, body.n);
	ASSERT_EQ(publish_sign(&p, f->broker.sign, out + body.n), 0);
	return body.n + PUBLISH_TRAILER_1_BYTES;
}

struct ssdtf_event ends_hand(struct fixture_client *f, struct end *e, const char *topic,
			     struct bytes payload, uint8_t first)
{
	static uint8_t plain[ROOM];
	struct ssdtf_packet p = { .topic = bytes_str(topic),
				  .payload = payload,
				  .qos = first >> 1 & 3,
				  .retain = first & 1 };
	struct ssdtf_event event;

	ASSERT_EQ(ssdtf_on_message(&e->client, &p, f->now, plain, sizeof(plain), &event), 0);
	return event;
}

struct ssdtf_event ends_hand_signed(struct fixture_client *f, struct end *e, const char *topic,
				    struct bytes body)
{
	uint8_t payload[ROOM];
	const char *id = e == &f->dev ? DEVICE : RECEIVER;
	size_t n = ends_broker_sign(f, topic, 0x30, body, id, payload);

	return ends_hand(f, e, topic, bytes_of(payload, n), 0x30);
}

void ends_connect_begin(struct fixture_client *f, struct end *e)
{
	e->n_sent = 0;
	e->disconnects = 0;
	ASSERT_EQ(ssdtf_connect_params(&e->client, &e->connect, f->now), 0);
	ssdtf_on_connect(&e->client);
	for (unsigned i = 0; i < sizeof(e->r_b); i++)
		e->r_b[i] = (uint8_t)harness_random();
}

struct ends_challenge ends_challenge_right(const struct end *e)
{
	struct ends_challenge ch = { .level = 4, .flags = e->connect.flags };

	ASSERT_EQ(text_unb64u(bytes_str(e->connect.user_name), ch.r_c, sizeof(ch.r_c)), 0);
	memcpy(ch.r_b, e->r_b, sizeof(ch.r_b));
	ch.binding = e->connect.binding;
	return ch;
}

struct bytes ends_challenge_body(const struct ends_challenge *ch, uint8_t out[ROOM])
{
	struct bytes_writer w = bytes_writer_of(out, ROOM);

	bytes_write(&w, bytes_of(ch->r_c, 32));
	bytes_write(&w, bytes_of(ch->r_b, 32));
	bytes_write_u8(&w, ch->level);
	bytes_write_u8(&w, ch->flags);
	bytes_write(&w, ch->binding);
	return bytes_of(out, w.used - ch->cut);
}

struct bytes ends_result_body(const struct end *e, uint8_t code, uint64_t highest, uint8_t out[41])
{
	struct bytes_writer w = bytes_writer_of(out, 41);

	bytes_write_u8(&w, code);
	bytes_write(&w, bytes_of(e->r_b, 32));
	bytes_write_u64(&w, highest);
	return bytes_of(out, w.used);
}

struct ssdtf_event ends_hand_challenge(struct fixture_client *f, struct end *e,
				       const struct ends_challenge *ch)
{
	uint8_t body[ROOM];

	return ends_hand_signed(f, e, TOPIC_CHA, ends_challenge_body(ch, body));
}

struct ssdtf_event ends_hand_result(struct fixture_client *f, struct end *e, uint64_t highest)
{
	uint8_t body[41];

	return ends_hand_signed(f, e, TOPIC_RES, ends_result_body(e, 0, highest, body));
}

struct ssdtf_event ends_session_open(struct fixture_client *f, struct end *e, uint64_t highest)
{
	struct ends_challenge ch;
	struct ssdtf_event event;

	ends_connect_begin(f, e);
	ch = ends_challenge_right(e);
	event = ends_hand_challenge(f, e, &ch);
	ASSERT_EQ(event.kind, SSDTF_NOTHING);
	event = ends_hand_result(f, e, highest);
	ASSERT_EQ(event.kind, SSDTF_AUTHENTICATED);
	ASSERT_TRUE(ssdtf_is_open(&e->client));
	ASSERT_EQ(e->disconnects, 0);
	e->n_sent = 0;
	return event;
}

struct ssdtf_event ends_update(struct fixture_client *f, struct end *e, const struct bytes *list,
			       unsigned n, uint32_t number)
{
	uint8_t body[ROOM];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	bytes_write_u16(&w, (uint16_t)n);
	for (unsigned i = 0; i < n; i++)
		bytes_write_u32_view(&w, list[i]);
	bytes_write(&w, bytes_of(e->r_b, sizeof(e->r_b)));
	bytes_write_u32(&w, number);
	ASSERT_FALSE(w.bad);
	return ends_hand_signed(f, e, SSDTF_TOPIC_UPDATE, bytes_of(body, w.used));
}

void ends_take(struct delivery *d, struct bytes payload, const char *topic, uint8_t qos,
	       bool retain)
{
	memset(d, 0, sizeof(*d));
	ASSERT_LE(payload.n, sizeof(d->sealed));
	memcpy(d->sealed, payload.p, payload.n);
	d->sealed_n = payload.n;
	d->sealed_first = (uint8_t)(0x30 | qos << 1 | retain);
	d->first = (uint8_t)(0x30 | qos << 1);
	d->origin = DEVICE;
	d->grant = ends_grant_id;
	d->topic = topic;
}

void ends_seal(struct fixture_client *f, struct delivery *d, const char *topic, const char *text,
	       uint8_t qos, bool retain)
{
	static uint8_t out[ROOM];
	struct ssdtf_sealed s;

	ASSERT_EQ(ssdtf_seal(&f->dev.client, bytes_str(topic), bytes_str(text), qos, retain, f->now,
			     out, sizeof(out), &s),
		  0);
	ends_take(d, s.payload, topic, qos, retain);
}

struct envelope ends_take_apart(struct fixture_client *f, const struct delivery *d,
				const char *topic, struct publish_trailer *t)
{
	struct publish p = { .first = d->sealed_first,
			     .topic = bytes_str(topic),
			     .body_parts = 1,
			     .client_id = bytes_str(DEVICE) };
	struct envelope e;

	ASSERT_EQ(publish_split(bytes_of(d->sealed, d->sealed_n), t), 0);
	p.body[0] = t->body;
	ASSERT_EQ(publish_verify(&p, t, f->device_public), 0);
	ASSERT_EQ(envelope_parse(t->body, &e), 0);
	ASSERT_EQ(e.level, 0);
	ASSERT_TRUE(envelope_bind_fits(&e, bytes_str(DEVICE), bytes_str(topic)));
	return e;
}

size_t ends_raise(struct bytes body, const struct secret32 *rk, const uint8_t *grant,
		  const char *origin, struct bytes proof, bool zero_salt, uint8_t *to)
{
	struct bytes_writer w = bytes_writer_of(to, ROOM);
	uint8_t x[P256_X_BYTES];
	struct envelope_block b = { .grant = bytes_of(grant, GRANT_ID_BYTES),
				    .x = bytes_of(x, sizeof(x)),
				    .origin = bytes_str(origin),
				    .proof = proof };
	struct p256_point point;
	struct envelope e;

	ASSERT_EQ(envelope_parse(body, &e), 0);
	if (e.level)
		ASSERT_EQ(p256_point_lift(e.x.p, &point), 0);
	else
		ASSERT_EQ(p256_point_decompress(e.enc, &point), 0);
	ASSERT_EQ(grant_convert(rk, &point, x), 0);
	envelope_raise_head(&e, &b, &w);
	bytes_write(&w, e.ct);
	ASSERT_FALSE(w.bad);
	if (zero_salt)
		memset(to + ENVELOPE_FIXED_BYTES - 1 - ENVELOPE_SALT_BYTES, 0, ENVELOPE_SALT_BYTES);
	return w.used;
}

size_t ends_convert(struct fixture_client *f, struct delivery *d, uint8_t *to)
{
	struct bytes_writer w = bytes_writer_of(to, ROOM);
	struct bytes_writer pw = bytes_writer_of(d->proof_bytes, ROOM);
	struct publish_trailer t;
	struct envelope e = ends_take_apart(f, d, TOPIC, &t);
	struct envelope_block b = { .grant = bytes_of(d->grant, GRANT_ID_BYTES),
				    .origin = bytes_str(d->origin),
				    .proof = d->proof };
	struct p256_point point;

	if (d->level_0) {
		memcpy(to, t.body.p, t.body.n);
		return t.body.n;
	}
	ASSERT_EQ(p256_point_decompress(e.enc, &point), 0);
	if (bytes_is_zero(bytes_of(d->x, sizeof(d->x))))
		ASSERT_EQ(grant_convert(&f->rk, &point, d->x), 0);
	b.x = bytes_of(d->x, sizeof(d->x));
	if (!d->proof.p) {
		publish_write_proof(d->sealed_first, bytes_of(NULL, 0), t.trailer, &pw);
		b.proof = bytes_of(d->proof_bytes, pw.used);
	}
	envelope_raise_head(&e, &b, &w);
	bytes_write(&w, e.ct);
	ASSERT_FALSE(w.bad);
	if (d->zero_salt)
		memset(to + ENVELOPE_FIXED_BYTES - 1 - ENVELOPE_SALT_BYTES, 0, ENVELOPE_SALT_BYTES);
	return w.used;
}

struct ssdtf_event ends_deliver(struct fixture_client *f, struct delivery *d)
{
	uint8_t body[ROOM];
	size_t n = ends_convert(f, d, body);

	d->out_n = ends_broker_sign(f, d->topic, d->first, bytes_of(body, n), RECEIVER, d->out);
	return ends_hand(f, &f->rec, d->topic, bytes_of(d->out, d->out_n), d->first);
}

void ends_expect_refused(const struct ssdtf_event *e, unsigned reason)
{
	EXPECT_EQ(e->kind, SSDTF_UNOPENED);
	EXPECT_EQ(e->reason, reason);
	EXPECT_TRUE(e->why != NULL);
	EXPECT_TRUE(e->plain.p == NULL);
}

void ends_expect_opened(const struct ssdtf_event *e, const char *text)
{
	if (e->kind == SSDTF_UNOPENED)
		harness_note("refused: %s", e->why);
	ASSERT_EQ(e->kind, SSDTF_MESSAGE);
	ASSERT_EQ(e->plain.n, strlen(text));
	ASSERT_BYTES(e->plain.p, text, strlen(text));
}
