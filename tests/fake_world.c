// SPDX-License-Identifier: MIT
#include "tests/fake_world.h"

#include <stdlib.h>

#include "tests/harness.h"
#include "userspace/crypto/hash.h"

/* --- the cast --------------------------------------------------------------------------------- */

struct world_scope *world_add_scope(struct world *w, const char *name, uint32_t key_id,
				    const char *filter)
{
	struct world_scope *s = &w->scopes[w->n_scopes++];

	ASSERT_LE(w->n_scopes, WORLD_SCOPES_MAX);
	*s = (struct world_scope){
		.name = name,
		.key_id = key_id,
		.suite = key_id % 2 ? HPKE_SUITE_AES_128_GCM : HPKE_SUITE_CHACHA20_POLY1305,
		.filters = { filter },
	};
	ASSERT_EQ(p256_scalar_random(&s->a), 0);
	ASSERT_EQ(p256_mul_base(&s->a, &s->point), 0);
	return s;
}

void world_new_key(struct world_party *p)
{
	struct secret32 scalar SECRET = { 0 };

	p256_private_free(p->key);
	p256_public_free(p->key_public);
	ASSERT_EQ(p256_scalar_random(&scalar), 0);
	ASSERT_EQ(p256_private_new(&scalar, &p->key), 0);
	p256_private_point(p->key, &p->signing);
	ASSERT_EQ(p256_public_new(&p->signing, &p->key_public), 0);
}

void world_rotate_key(struct world_party *p, uint64_t until_ms)
{
	p256_private_free(p->previous_key);
	p->previous_key = p->key;
	p->previous = p->signing;
	p->previous_until_ms = until_ms;
	p->key = NULL;
	world_new_key(p);
}

struct world_party *world_add_party(struct world *w, const char *id, uint8_t roles,
				    const char *scope)
{
	struct world_party *p = &w->parties[w->n_parties++];

	ASSERT_LE(w->n_parties, WORLD_PARTIES_MAX);
	*p = (struct world_party){ .id = id, .roles = roles, .scopes = { scope } };
	hash_random(p->k_adm, sizeof(p->k_adm));
	world_new_key(p);
	ASSERT_EQ(p256_scalar_random(&p->b), 0);
	ASSERT_EQ(p256_mul_base(&p->b, &p->encryption), 0);
	return p;
}

/* d of a grant, or a hop's secret. */
static void draw_secret(struct world_grant *g)
{
	struct grant_terms terms = { .key_id = g->scope->key_id, .b = g->to->encryption };
	struct secret32 x SECRET = { 0 };

	if (g->flags & RECORD_GRANT_HOP) {
		ASSERT_EQ(p256_scalar_random(&g->d), 0);
		return;
	}
	ASSERT_EQ(p256_scalar_random(&x), 0);
	ASSERT_EQ(p256_mul_base(&x, &g->x), 0);
	terms.x = g->x;
	memcpy(terms.grant_id, g->id, sizeof(g->id));
	ASSERT_EQ(grant_secret_manager(&terms, &x, &g->d), 0);
}

/* PROTOCOL 3, the manager's part. */
struct world_grant *world_add_grant_from(struct world *w, struct world_party *to,
					 struct world_scope *scope, uint8_t flags,
					 struct world_grant *from, struct world_party *upstream)
{
	struct world_grant *g = &w->grants[w->n_grants++];

	ASSERT_LE(w->n_grants, WORLD_GRANTS_MAX);
	*g = (struct world_grant){
		.to = to, .scope = scope, .from = from, .upstream = upstream, .flags = flags
	};
	hash_random(g->id, sizeof(g->id));
	draw_secret(g);
	ASSERT_EQ(grant_conversion_key(from ? &from->d : &scope->a, &g->d, &g->rk), 0);
	memcpy(g->blob, g->id, GRANT_ID_BYTES);
	memcpy(g->blob + GRANT_ID_BYTES, g->rk.b, sizeof(g->rk.b));
	return g;
}

struct world_grant *world_add_grant(struct world *w, struct world_party *to,
				    struct world_scope *scope, uint8_t flags)
{
	return world_add_grant_from(w, to, scope, flags, NULL, NULL);
}

struct world_party *world_party_of(struct world *w, struct bytes id)
{
	for (unsigned i = 0; i < w->n_parties; i++)
		if (bytes_equal(bytes_str(w->parties[i].id), id))
			return &w->parties[i];
	return NULL;
}

struct world_grant *world_grant_of(struct world *w, struct bytes grant_id)
{
	for (unsigned i = 0; i < w->n_grants; i++)
		if (bytes_equal(bytes_of(w->grants[i].id, GRANT_ID_BYTES), grant_id))
			return &w->grants[i];
	return NULL;
}

void world_revoke(struct world *w, struct world_grant *g)
{
	struct bundle_gateway_revoked *v = &w->revoked[w->n_revoked++];

	ASSERT_LE(w->n_revoked, WORLD_REVOKED_MAX);
	g->gone = true;
	*v = (struct bundle_gateway_revoked){ g->scope->key_id, w->fake->wall_ms };
}

/* --- the bundle ------------------------------------------------------------------------------- */

static unsigned take_list(const char *const *list, struct bytes *to)
{
	unsigned n = 0;

	for (; n < WORLD_LIST_MAX && list[n]; n++)
		to[n] = bytes_str(list[n]);
	return n;
}

static struct record_scope scope_record(const struct world_scope *s)
{
	struct record_scope r = {
		.key_id = s->key_id,
		.epoch = 1,
		.name = bytes_str(s->name),
		.suite = (uint8_t)s->suite,
		.not_before_ms = s->not_before_ms,
		.not_after_ms = s->not_after_ms,
		.a = s->point,
		.rekey_messages = 1000,
		.rekey_seconds = 3600,
	};

	r.n_filters = take_list(s->filters, r.filters);
	r.n_public_filters = take_list(s->public_filters, r.public_filters);
	return r;
}

static struct record_party party_record(const struct world_party *p)
{
	struct record_party r = {
		.id = bytes_str(p->id),
		.roles = p->roles,
		.flags = p->flags,
		.signing = p->signing,
		.has_previous = p->previous_key,
		.previous = p->previous,
		.previous_until_ms = p->previous_until_ms,
		.has_encryption = true,
		.encryption = p->encryption,
	};

	r.n_scopes = take_list(p->scopes, r.scopes);
	return r;
}

static const char *const *filters_of(const struct world_grant *g)
{
	if (g->filters[0])
		return g->filters;
	return g->from ? g->scope->public_filters : g->scope->filters;
}

static struct record_grant grant_record(const struct world_grant *g)
{
	struct record_grant r = {
		.key_id = g->scope->key_id,
		.flags = g->flags,
		.receiver = bytes_str(g->to->id),
		.b = g->to->encryption,
		.a = g->scope->point,
		.x = g->x,
		.not_before_ms = g->not_before_ms,
		.not_after_ms = g->not_after_ms,
		.scope = bytes_str(g->scope->name),
	};

	memcpy(r.grant_id, g->id, GRANT_ID_BYTES);
	if (g->from)
		memcpy(r.from, g->from->id, GRANT_ID_BYTES);
	if (g->upstream)
		r.upstream = bytes_str(g->upstream->id);
	r.n_filters = take_list(filters_of(g), r.filters);
	return r;
}

static void write_scopes(struct world *w, struct bytes_writer *out)
{
	bytes_write_u32(out, w->n_scopes);
	for (unsigned i = 0; i < w->n_scopes; i++) {
		struct record_scope r = scope_record(&w->scopes[i]);

		bundle_gateway_write_scope(&r, out);
	}
}

static void write_parties(struct world *w, struct bytes_writer *out)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < w->n_parties; i++)
		n += !w->parties[i].gone;
	bytes_write_u32(out, n);
	for (unsigned i = 0; i < w->n_parties; i++) {
		struct world_party *p = &w->parties[i];
		struct bundle_gateway_party r = {
			.party = party_record(p),
			.admission_flags = p->admission_flags,
		};

		if (p->gone)
			continue;
		memcpy(r.k_adm, p->k_adm, sizeof(r.k_adm));
		memcpy(r.previous_k_adm, p->previous_k_adm, sizeof(r.previous_k_adm));
		r.previous_until_ms = p->previous_k_adm_until_ms;
		bundle_gateway_write_party(&r, out);
	}
}

static void write_grants(struct world *w, struct bytes_writer *out)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < w->n_grants; i++)
		n += !w->grants[i].gone;
	bytes_write_u32(out, n);
	for (unsigned i = 0; i < w->n_grants; i++) {
		struct world_grant *g = &w->grants[i];
		struct bundle_gateway_grant r = {
			.grant = grant_record(g),
			.wrapped_rk = bytes_of(g->blob, g->upstream ? 0 : sizeof(g->blob)),
		};

		if (!g->gone)
			bundle_gateway_write_grant(&r, out);
	}
}

static struct record_broker broker_record(const struct world *w)
{
	return (struct record_broker){ .gateway_id = bytes_str("gw1"),
				       .signing = w->fake->key_point,
				       .has_next = w->has_next,
				       .next = w->fake->next_point,
				       .next_from_ms = w->next_from_ms };
}

struct bytes world_bundle(struct world *w)
{
	struct bytes_writer out = bytes_writer_of(w->bundle, sizeof(w->bundle));
	struct bundle_gateway head = { .broker = broker_record(w) };

	bundle_gateway_write_head(&head, &out);
	write_scopes(w, &out);
	write_parties(w, &out);
	write_grants(w, &out);
	bytes_write_u32(&out, w->n_revoked);
	for (unsigned i = 0; i < w->n_revoked; i++)
		bundle_gateway_write_revoked(&w->revoked[i], &out);
	bytes_write_u32(&out, w->n_updates);
	bytes_write(&out, bytes_of(w->updates, w->updates_n));
	ASSERT_FALSE(out.bad);
	return bytes_of(w->bundle, out.used);
}

uint64_t world_state(struct world *w, enum statement_kind kind, struct bytes body)
{
	struct statement st = { .kind = kind, .serial = ++w->update_serial, .body = body };
	struct bytes_writer out =
		bytes_writer_of(w->updates + w->updates_n, sizeof(w->updates) - w->updates_n);

	bytes_write_u32(&out, (uint32_t)STATEMENT_BYTES(body.n));
	statement_write_unsigned(&st, &out);
	/* The manager's signature is between it and the party. */
	hash_random(bytes_write_space(&out, P256_SIG_BYTES), P256_SIG_BYTES);
	ASSERT_FALSE(out.bad);
	w->updates_n += out.used;
	w->n_updates++;
	return st.serial;
}

#define RECORD_BYTES_MAX 4096

#define STATE(kind, record, encode)                                         \
	uint8_t body[RECORD_BYTES_MAX];                                     \
	struct bytes_writer body_out = bytes_writer_of(body, sizeof(body)); \
	__auto_type r = (record);                                           \
                                                                            \
	encode(&r, &body_out);                                              \
	ASSERT_FALSE(body_out.bad);                                         \
	return world_state(w, (kind), bytes_of(body, body_out.used))

uint64_t world_state_scope(struct world *w, const struct world_scope *s)
{
	STATE(STATEMENT_SCOPE, scope_record(s), record_scope_encode);
}

uint64_t world_state_grant(struct world *w, const struct world_grant *g)
{
	STATE(STATEMENT_GRANT, grant_record(g), record_grant_encode);
}

uint64_t world_state_party(struct world *w, const struct world_party *p)
{
	STATE(STATEMENT_PARTY, party_record(p), record_party_encode);
}

uint64_t world_state_broker(struct world *w)
{
	STATE(STATEMENT_BROKER, broker_record(w), record_broker_encode);
}

static void apply(struct world *w)
{
	const char *why = "";
	int err = broker_apply_bundle(w->fake->engine, w->serial, world_bundle(w), &why);

	if (err)
		harness_note("bundle refused: %s", why);
	ASSERT_EQ(err, 0);
}

void world_apply(struct world *w)
{
	broker_time(w->fake->engine, w->fake->mono_ms, w->fake->wall_ms);
	w->serial++;
	apply(w);
}

void world_restart(struct world *w)
{
	fake_restart(w->fake);
	apply(w);
	fake_restore(w->fake);
}

/* --- life ------------------------------------------------------------------------------------- */

struct world *world_new(const struct broker_config *config)
{
	struct world *w = calloc(1, sizeof(*w));

	if (!w)
		abort();
	w->fake = config ? fake_new_with(config) : fake_new(false);
	w->serial = 100;
	w->update_serial = 1000;
	w->temp = world_add_scope(w, "temp", WORLD_KEY_TEMP, "site/+/temp");
	w->temp->filters[1] = "site/+/hum";
	w->cam = world_add_scope(w, "cam", WORLD_KEY_CAM, "cam/#");
	w->dev1 = world_add_party(w, "dev1", RECORD_ROLE_DEVICE, "temp");
	w->dev2 = world_add_party(w, "dev2", RECORD_ROLE_DEVICE, "temp");
	w->dev2->scopes[1] = "cam";
	w->cam1 = world_add_party(w, "cam1", RECORD_ROLE_DEVICE, "cam");
	w->rx1 = world_add_party(w, "rx1", RECORD_ROLE_RECEIVER, NULL);
	w->rx2 = world_add_party(w, "rx2", RECORD_ROLE_RECEIVER, NULL);
	w->rx3 = world_add_party(w, "rx3", RECORD_ROLE_RECEIVER, NULL);
	w->mgr = world_add_party(w, "mgr", RECORD_ROLE_MANAGER, NULL);
	w->rx1_temp = world_add_grant(w, w->rx1, w->temp, 0);
	w->rx2_temp = world_add_grant(w, w->rx2, w->temp, RECORD_GRANT_PROOF);
	w->rx2_cam = world_add_grant(w, w->rx2, w->cam, 0);
	world_apply(w);
	return w;
}

void world_free(struct world *w)
{
	fake_free(w->fake);
	for (unsigned i = 0; i < w->n_parties; i++) {
		p256_private_free(w->parties[i].key);
		p256_private_free(w->parties[i].previous_key);
		p256_public_free(w->parties[i].key_public);
	}
	free(w);
}
