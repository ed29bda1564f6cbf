// SPDX-License-Identifier: MIT
#include "tests/relay_fake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "userspace/bundle/statement.h"
#include "userspace/crypto/grant.h"

#define BUNDLE_BYTES_MAX 16384

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	harness_fail(__FILE__, __LINE__, false, "%s", what);
	harness_end();
}

#define NEED(cond) need(cond, #cond)

/* --- keys ------------------------------------------------------------------------------------- */

struct fake_key fake_key_of(const struct secret32 *scalar)
{
	struct fake_key k = { .scalar = *scalar };

	NEED(!p256_mul_base(scalar, &k.point));
	NEED(!p256_private_new(scalar, &k.sign));
	NEED(!p256_public_new(&k.point, &k.verify));
	return k;
}

struct fake_key fake_key_new(void)
{
	struct secret32 scalar;

	NEED(!p256_scalar_random(&scalar));
	return fake_key_of(&scalar);
}

void fake_key_free(struct fake_key *k)
{
	p256_private_free(k->sign);
	p256_public_free(k->verify);
}

/* --- the token -------------------------------------------------------------------------------- */

static struct fake_relay *of(void *io)
{
	return io;
}

static void io_token(void *io, struct hsm_job *job)
{
	struct fake_relay *f = of(io);

	NEED(f->n_jobs < FAKE_JOBS_MAX);
	f->jobs[f->n_jobs++] = job;
}

static void io_forget(void *io, const uint8_t grant_id[GRANT_ID_BYTES])
{
	struct fake_relay *f = of(io);

	f->forgotten++;
	for (unsigned i = 0; i < f->n_outlets; i++)
		f->outlets[i].forgotten |=
			f->outlets[i].absent &&
			!memcmp(f->outlets[i].grant_id, grant_id, GRANT_ID_BYTES);
}

static enum hsm_status convert(struct fake_relay *f, struct hsm_job *job)
{
	for (unsigned i = 0; i < f->n_outlets; i++) {
		struct fake_outlet *o = &f->outlets[i];
		struct p256_point point;

		if (memcmp(o->grant_id, job->grant_id, sizeof(o->grant_id)) != 0)
			continue;
		if (o == f->refused_key)
			return HSM_BAD_KEY;
		if (o->forgotten)
			return HSM_NO_KEY;
		memcpy(point.b, job->input, sizeof(point.b));
		NEED(job->blob.n && !p256_point_check(bytes_of(point.b, sizeof(point.b))));
		NEED(!grant_convert(&o->rk, &point, job->output));
		return HSM_OK;
	}
	return HSM_NO_KEY;
}

static enum hsm_status answer(struct fake_relay *f, struct hsm_job *job)
{
	struct bytes parts[] = { bytes_str("id key"), bytes_of(job->input, HSM_MAC_BYTES) };

	if (f->token_away)
		return HSM_UNAVAILABLE;
	switch (job->op) {
	case HSM_CONVERT:
		f->converts++;
		return convert(f, job);
	case HSM_SIGN:
		f->signs_made++;
		NEED(!p256_sign_digest(f->own.sign, job->input, job->output));
		return HSM_OK;
	case HSM_MAC:
		f->macs++;
		hash_parts(parts, 2, job->output);
		return f->no_id_key ? HSM_NO_KEY : HSM_OK;
	case HSM_LOAD:
	case HSM_FORGET:
	case HSM_STATUS:
	case HSM_OPEN:
	case HSM_SIGN_NEXT:
		break;
	}
	need(false, "an operation that a distributor does not ask for");
	return HSM_BAD_REQUEST;
}

void fake_token(struct fake_relay *f, bool shuffled)
{
	while (f->n_jobs) {
		unsigned i = shuffled ? (unsigned)(harness_random() % f->n_jobs) : 0;
		struct hsm_job *job = f->jobs[i];

		memmove(&f->jobs[i], &f->jobs[i + 1], (f->n_jobs - i - 1) * sizeof(f->jobs[0]));
		f->n_jobs--;
		job->status = answer(f, job);
		job->done(NULL, job);
	}
}

/* --- the table and the brokers ---------------------------------------------------------------- */

static int io_id_find(void *io, const uint8_t lookup[IDTABLE_LOOKUP_BYTES],
		      uint8_t ret_external[IDTABLE_EXTERNAL_BYTES])
{
	struct fake_relay *f = of(io);

	for (unsigned i = 0; i < f->n_rows; i++) {
		if (memcmp(f->rows[i].lookup, lookup, IDTABLE_LOOKUP_BYTES) != 0)
			continue;
		memcpy(ret_external, f->rows[i].external, IDTABLE_EXTERNAL_BYTES);
		return 0;
	}
	return -ENOENT;
}

static int io_ids_put(void *io, const struct relay_row *rows, unsigned n)
{
	struct fake_relay *f = of(io);

	if (f->table_error)
		return f->table_error;
	NEED(f->n_rows + n <= FAKE_ROWS_MAX);
	memcpy(&f->rows[f->n_rows], rows, n * sizeof(rows[0]));
	f->n_rows += n;
	return 0;
}

static void io_sight(void *io, const struct relay_sight *s)
{
	struct fake_relay *f = of(io);

	f->sights++;
	memcpy(f->mark, s->mark, sizeof(f->mark));
	snprintf(f->sight_topic, sizeof(f->sight_topic), "%.*s", (int)s->topic.n,
		 (const char *)s->topic.p);
}

static uint8_t *copy_of(struct bytes v)
{
	uint8_t *p = malloc(v.n ? v.n : 1);

	NEED(p);
	memcpy(p, v.p, v.n);
	return p;
}

static void io_publish(void *io, const struct mqtt_publish *p)
{
	struct fake_relay *f = of(io);
	struct fake_published *to = &f->out[f->n_out];

	NEED(f->relay->downstream && f->n_out < FAKE_OUT_MAX);
	*to = (struct fake_published){ .dup = p->dup,
				       .retain = p->retain,
				       .qos = p->qos,
				       .packet_id = p->packet_id,
				       .topic = copy_of(p->topic),
				       .topic_n = p->topic.n,
				       .payload = copy_of(p->payload),
				       .payload_n = p->payload.n };
	f->n_out++;
}

static void io_puback(void *io, uint16_t packet_id)
{
	struct fake_relay *f = of(io);

	NEED(f->relay->upstream && f->n_pubacks < FAKE_OUT_MAX);
	f->pubacks[f->n_pubacks++] = packet_id;
}

static void io_report(void *io, uint8_t reason, uint64_t counter, struct bytes id,
		      struct bytes text)
{
	struct fake_relay *f = of(io);

	f->reports++;
	f->report_reason = reason;
	snprintf(f->report_text, sizeof(f->report_text), "%.*s", (int)text.n, (const char *)text.p);
}

static void io_note(void *io, enum relay_note note, struct bytes what)
{
	of(io)->notes[note]++;
}

static const struct relay_ops ops = {
	.token = io_token,
	.forget = io_forget,
	.id_find = io_id_find,
	.ids_put = io_ids_put,
	.sight = io_sight,
	.publish = io_publish,
	.puback = io_puback,
	.report = io_report,
	.note = io_note,
};

/* --- the manager ------------------------------------------------------------------------------ */

static void write_outlets(struct fake_relay *f, struct bytes_writer *w)
{
	unsigned n = 0;

	for (unsigned i = 0; i < f->n_outlets; i++)
		n += !f->outlets[i].absent;
	bytes_write_u16(w, (uint16_t)n);
	for (unsigned i = 0; i < f->n_outlets; i++) {
		const struct fake_outlet *o = &f->outlets[i];
		struct bundle_outlet b = {
			.grant = { .key_id = FAKE_KEY_ID,
				   .flags = o->group ? RECORD_GRANT_HOP : RECORD_GRANT_IDS_REPLACED,
				   .upstream = bytes_str(FAKE_ID),
				   .receiver = bytes_str(o->group ? FAKE_ID : "rx"),
				   .a = f->scope,
				   .b = f->manager.point,
				   .x = f->manager.point,
				   .scope = bytes_str(FAKE_SCOPE),
				   .n_filters = 1,
				   .filters = { bytes_str(o->filter) } },
			.wrapped_rk = bytes_str(o->wrapped),
			.name = bytes_str(o->name),
			.prefix = bytes_str(o->prefix),
			.domain = bytes_str(o->domain),
			.rotate_seconds = o->rotate_seconds,
		};

		if (o->absent)
			continue;
		memcpy(b.grant.grant_id, o->grant_id, sizeof(o->grant_id));
		memcpy(b.grant.from, f->hop_id, sizeof(f->hop_id));
		bundle_distributor_write_outlet(&b, w);
	}
}

static void write_body(struct fake_relay *f, struct bytes_writer *w)
{
	struct bundle_distributor d = {
		.id = bytes_str(FAKE_ID),
		.signing = f->own.point,
		.unwrap_key_hash = { 1, 2, 3 },
		.trace = f->tracer.point,
		.k_adm = { 4, 5, 6 },
		.from = { .gateway_id = bytes_str("gw-1"),
			  .signing = f->broker.point,
			  .has_next = true,
			  .next = f->next_broker.point,
			  .next_from_ms = FAKE_NOW_MS + 1000000 },
	};
	struct record_grant hop = { .key_id = FAKE_KEY_ID,
				    .flags = f->hop_flags,
				    .receiver = bytes_str(FAKE_ID),
				    .a = f->scope,
				    .not_after_ms = f->hop_not_after_ms,
				    .scope = bytes_str(FAKE_SCOPE),
				    .n_filters = 1,
				    .filters = { bytes_str("#") } };

	d.to = d.from;
	bundle_distributor_write_head(&d, w);
	bytes_write_u16(w, 1);
	memcpy(hop.grant_id, f->hop_id, sizeof(f->hop_id));
	bundle_distributor_write_hop(&hop, w);
	write_outlets(f, w);
	bytes_write_u32(w, f->n_senders);
	for (unsigned i = 0; i < f->n_senders; i++) {
		struct record_party p = { .id = bytes_str(f->senders[i].id),
					  .roles = RECORD_ROLE_DEVICE,
					  .signing = f->senders[i].key.point };

		if (!i && f->previous) {
			p.has_previous = true;
			p.previous = f->previous->point;
			p.previous_until_ms = f->previous_until_ms;
		}
		bundle_distributor_write_origin(&p, w);
	}
}

uint8_t *fake_bundle(struct fake_relay *f, size_t *ret_n)
{
	uint8_t body[BUNDLE_BYTES_MAX], digest[HASH_BYTES];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));
	struct statement s = { .kind = STATEMENT_DISTRIBUTOR, .serial = ++f->serial };
	uint8_t *whole = calloc(1, BUNDLE_BYTES_MAX);

	NEED(whole);
	write_body(f, &w);
	NEED(!w.bad);
	s.body = bytes_of(body, w.used);
	w = bytes_writer_of(whole, BUNDLE_BYTES_MAX);
	statement_write_unsigned(&s, &w);
	statement_digest(s.kind, bytes_of(whole, w.used), digest);
	NEED(w.left >= P256_SIG_BYTES && !p256_sign_digest(f->manager.sign, digest, w.p));
	*ret_n = w.used + P256_SIG_BYTES;
	return whole;
}

struct plan *fake_plan(struct fake_relay *f)
{
	struct statement s;
	struct plan *p;
	size_t n;
	uint8_t *whole = fake_bundle(f, &n);

	NEED(!statement_open(bytes_of(whole, n), STATEMENT_DISTRIBUTOR, f->manager.verify, &s));
	NEED(!plan_new(whole, n, &s, &p));
	return p;
}

static struct fake_outlet outlet_of(struct fake_relay *f, const char *name, uint8_t id,
				    const char *prefix, bool group)
{
	struct fake_outlet o = {
		.name = name,
		.prefix = prefix,
		.domain = name,
		.filter = "#",
		.group = group,
		.wrapped = "wrapped",
		.grant_id = { 0xbb, id },
	};

	NEED(!p256_scalar_random(&o.d));
	return o;
}

struct fake_relay *fake_relay_make(unsigned n_senders)
{
	struct fake_relay *f = calloc(1, sizeof(*f));

	NEED(f && n_senders <= FAKE_SENDERS);
	f->manager = fake_key_new();
	f->tracer = fake_key_new();
	f->broker = fake_key_new();
	f->next_broker = fake_key_new();
	f->own = fake_key_new();
	NEED(!p256_scalar_random(&f->a) && !p256_scalar_random(&f->s1));
	f->hop_id[0] = 0xaa;
	f->hop_flags = RECORD_GRANT_HOP | RECORD_GRANT_PROOF;
	f->outlets[0] = outlet_of(f, "all", 1, "open", true);
	f->outlets[1] = outlet_of(f, "one", 2, "for/one", false);
	f->n_outlets = 2;
	f->n_senders = n_senders;
	for (unsigned i = 0; i < n_senders; i++) {
		snprintf(f->senders[i].id, sizeof(f->senders[i].id), "sensor-%u", 17 + i);
		f->senders[i].key = fake_key_new();
	}
	f->mono_ms = 1000;
	f->unix_ms = FAKE_NOW_MS;
	return f;
}

void fake_relay_start(struct fake_relay *f)
{
	static const struct relay_limits limits = {
		.messages_max = 1000, .window = 64, .capsules_max = 100, .names_max = 100
	};
	struct plan *p;

	NEED(!p256_mul_base(&f->a, &f->scope));
	NEED(!grant_conversion_key(&f->a, &f->s1, &f->hop_rk));
	for (unsigned i = 0; i < f->n_outlets; i++)
		NEED(!grant_conversion_key(&f->s1, &f->outlets[i].d, &f->outlets[i].rk));
	for (unsigned i = 0; i < f->n_senders; i++)
		NEED(!envelope_sender_init(&f->senders[i].context, HPKE_SUITE_AES_128_GCM,
					   FAKE_KEY_ID, &f->scope));
	f->signs = &f->broker;
	p = fake_plan(f);
	f->relay = relay_new(&ops, f, &limits, p, f->mono_ms, f->unix_ms);
	plan_put(p);
	relay_upstream(f->relay, true);
	relay_downstream(f->relay, true);
}

struct fake_relay *fake_relay_new(unsigned n_senders)
{
	struct fake_relay *f = fake_relay_make(n_senders);

	fake_relay_start(f);
	return f;
}

void fake_relay_replan(struct fake_relay *f)
{
	struct plan *p = fake_plan(f);

	relay_plan(f->relay, p);
	plan_put(p);
}

void fake_forget_out(struct fake_relay *f)
{
	for (unsigned i = 0; i < f->n_out; i++) {
		free(f->out[i].topic);
		free(f->out[i].payload);
	}
	f->n_out = f->n_pubacks = 0;
}

void fake_relay_free(struct fake_relay *f)
{
	struct fake_key *keys[] = { &f->manager, &f->tracer, &f->broker, &f->next_broker, &f->own };

	f->token_away = true;
	fake_token(f, false);
	relay_free(f->relay);
	fake_forget_out(f);
	for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
		fake_key_free(keys[i]);
	for (unsigned i = 0; i < f->n_senders; i++)
		fake_key_free(&f->senders[i].key);
	free(f);
}

/* --- senders and the broker upstream ---------------------------------------------------------- */

struct fake_message fake_message(struct fake_relay *f, unsigned i, const char *topic,
				 const char *plain, uint8_t qos, bool retain)
{
	struct fake_sender *s = &f->senders[i];
	struct fake_message m = { .first = mqtt_publish_first(qos, retain, false) };
	uint8_t sealed[1024], trailer[PUBLISH_TRAILER_1_BYTES], proof[256], x[P256_X_BYTES];
	struct bytes text = bytes_str(plain);
	struct publish p = { .first = m.first,
			     .topic = bytes_str(topic),
			     .body = { bytes_of(sealed, ENVELOPE_SEALED_BYTES(text.n)) },
			     .body_parts = 1,
			     .client_id = bytes_str(s->id) };
	struct envelope_block block = { .grant = bytes_of(f->hop_id, sizeof(f->hop_id)),
					.x = bytes_of(x, sizeof(x)),
					.origin = bytes_str(s->id) };
	struct bytes_writer w = bytes_writer_of(proof, sizeof(proof));
	struct envelope e;

	NEED(ENVELOPE_SEALED_BYTES(text.n) <= sizeof(sealed));
	NEED(!envelope_seal(&s->context, ++s->counter, f->unix_ms, block.origin, p.topic, text,
			    sealed));
	NEED(!publish_sign(&p, s->key.sign, trailer));
	publish_write_proof(m.first, bytes_of(NULL, 0), bytes_of(trailer, sizeof(trailer)), &w);
	NEED(!w.bad);
	block.proof = bytes_of(proof, w.used);
	NEED(!envelope_parse(p.body[0], &e));
	NEED(!grant_convert(&f->hop_rk, &s->context.enc, x));
	w = bytes_writer_of(m.body, sizeof(m.body));
	envelope_raise_head(&e, &block, &w);
	bytes_write(&w, e.ct);
	NEED(!w.bad);
	m.n = w.used;
	snprintf(m.topic, sizeof(m.topic), "%s", topic);
	return m;
}

bool fake_deliver(struct fake_relay *f, const struct fake_message *m, uint8_t qos,
		  uint16_t packet_id, bool dup, bool retain)
{
	uint8_t payload[4096];
	struct mqtt_publish p = { .dup = dup,
				  .retain = retain,
				  .qos = qos,
				  .packet_id = packet_id,
				  .topic = bytes_str(m->topic),
				  .payload = bytes_of(payload, m->n + PUBLISH_TRAILER_1_BYTES) };
	struct publish signed_as = { .first = mqtt_publish_first(qos, retain, false),
				     .topic = p.topic,
				     .body = { bytes_of(m->body, m->n) },
				     .body_parts = 1,
				     .client_id = bytes_str(FAKE_ID) };

	memcpy(payload, m->body, m->n);
	NEED(!publish_sign(&signed_as, f->signs->sign, payload + m->n));
	return relay_deliver(f->relay, &p);
}

/* --- time and the broker downstream ----------------------------------------------------------- */

void fake_settle(struct fake_relay *f)
{
	do {
		fake_token(f, false);
		relay_turn(f->relay);
	} while (f->n_jobs);
}

void fake_pass(struct fake_relay *f, uint64_t ms)
{
	f->mono_ms += ms;
	f->unix_ms += ms;
	relay_tick(f->relay, f->mono_ms, f->unix_ms);
	relay_turn(f->relay);
}

void fake_acknowledge(struct fake_relay *f, unsigned i)
{
	NEED(i < f->n_out && f->out[i].packet_id);
	relay_acknowledged(f->relay, f->out[i].packet_id);
}

void fake_acknowledge_all(struct fake_relay *f, unsigned from)
{
	for (unsigned i = from; i < f->n_out; i++)
		if (f->out[i].qos)
			fake_acknowledge(f, i);
}

struct bytes fake_topic(const struct fake_published *p)
{
	return bytes_of(p->topic, p->topic_n);
}

struct envelope fake_body(struct fake_relay *f, const struct fake_published *p)
{
	struct publish signed_as = { .first = mqtt_publish_first(p->qos, p->retain, false),
				     .topic = fake_topic(p),
				     .body_parts = 1,
				     .client_id = bytes_str(FAKE_ID) };
	struct publish_trailer t;
	struct envelope e;

	NEED(!publish_split(bytes_of(p->payload, p->payload_n), &t));
	signed_as.body[0] = t.body;
	NEED(!publish_verify(&signed_as, &t, f->own.verify));
	NEED(!envelope_parse(t.body, &e));
	return e;
}

unsigned fake_outlet_of(struct fake_relay *f, const struct fake_published *p)
{
	for (unsigned i = 0; i < f->n_outlets; i++) {
		size_t n = strlen(f->outlets[i].prefix);

		if (p->topic_n > n && p->topic[n] == '/' &&
		    !memcmp(p->topic, f->outlets[i].prefix, n))
			return i;
	}
	need(false, "a topic of no outlet");
	return 0;
}

int fake_open(struct fake_relay *f, const struct fake_published *p, uint8_t *plain, size_t *ret_n)
{
	const struct fake_outlet *o = &f->outlets[fake_outlet_of(f, p)];
	struct envelope e = fake_body(f, p);
	struct secret32 dh;

	NEED(!grant_dh(&o->d, e.x.p, &dh));
	*ret_n = e.ct.n - HPKE_TAG_BYTES;
	return envelope_open(&e, &dh, &f->scope, plain);
}
