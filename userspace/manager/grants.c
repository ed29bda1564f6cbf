// SPDX-License-Identifier: MIT
#include "userspace/manager/grants.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/secret.h"
#include "userspace/crypto/hash.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/party.h"

/* --- rows ---------------------------------------------------------------------------------- */

void grants_read(struct registry_query *q, struct grant *ret_g)
{
	struct grant *g = ret_g;

	*g = (struct grant){ 0 };
	registry_copy(q, 0, g->id, sizeof(g->id));
	g->has_from = !registry_is_null(q, 1);
	if (g->has_from)
		registry_copy(q, 1, g->from, sizeof(g->from));
	g->key_id = (uint32_t)registry_int(q, 2);
	g->flags = (uint8_t)registry_int(q, 3);
	registry_text(q, 4, g->gateway, sizeof(g->gateway));
	registry_text(q, 5, g->receiver, sizeof(g->receiver));
	registry_text(q, 6, g->upstream, sizeof(g->upstream));
	registry_text(q, 7, g->outlet, sizeof(g->outlet));
	g->valid_days = (uint32_t)registry_int(q, 8);
	g->not_before_ms = (uint64_t)registry_int(q, 9);
	g->not_after_ms = (uint64_t)registry_int(q, 10);
	if (grants_is_hop(g)) {
		registry_copy(q, 13, g->secret, sizeof(g->secret));
	} else {
		registry_copy(q, 11, g->b.b, sizeof(g->b.b));
		registry_copy(q, 12, g->x.b, sizeof(g->x.b));
	}
	g->wrapped_bytes = registry_blob(q, 14).n;
	if (g->wrapped_bytes > sizeof(g->wrapped))
		g->wrapped_bytes = sizeof(g->wrapped);
	registry_copy(q, 14, g->wrapped, g->wrapped_bytes);
	g->replaced = !registry_is_null(q, 15);
	registry_text(q, 16, g->prefix, sizeof(g->prefix));
}

/* The only row of q, which has its parameters. */
static int find(struct manager *m, struct registry_query *q, struct grant *ret_g, bool *ret_found)
{
	bool found = registry_step(q);
	int err;

	if (found)
		grants_read(q, ret_g);
	err = registry_end(q);
	if (err)
		return manager_fail_registry(m, err);
	*ret_found = found;
	return 0;
}

int grants_find(struct manager *m, const char *gateway, const char *receiver, uint32_t key_id,
		const char *outlet, struct grant *ret_g, bool *ret_found)
{
	struct registry_query q =
		registry_query(&m->registry, GRANTS_SQL " WHERE g.next IS NULL AND g.gateway = ?"
							" AND g.receiver = ? AND g.key_id = ?"
							" AND coalesce(g.outlet, '') = ?");

	registry_bind_text(&q, gateway);
	registry_bind_text(&q, receiver);
	registry_bind_int(&q, key_id);
	registry_bind_text(&q, outlet);
	return find(m, &q, ret_g, ret_found);
}

int grants_load(struct manager *m, const uint8_t id[GRANT_ID_BYTES], struct grant *ret_g)
{
	struct registry_query q = registry_query(&m->registry, GRANTS_SQL " WHERE g.id = ?");
	char hex[GRANTS_HEX_ROOM];
	bool found = false;
	int err;

	registry_bind_blob(&q, bytes_of(id, GRANT_ID_BYTES));
	err = find(m, &q, ret_g, &found);
	if (!err && !found)
		return manager_fail(m, -ESRCH, "there is no grant %s",
				    text_hex(bytes_of(id, GRANT_ID_BYTES), hex));
	return err;
}

int grants_delete(struct manager *m, const uint8_t id[GRANT_ID_BYTES])
{
	struct registry_query q = registry_query(
		&m->registry, "WITH RECURSIVE gone(id) AS (SELECT ?1 UNION"
			      " SELECT grants.id FROM grants JOIN gone ON grants.from_id = gone.id)"
			      " DELETE FROM grants WHERE id IN (SELECT id FROM gone)");

	registry_bind_blob(&q, bytes_of(id, GRANT_ID_BYTES));
	return manager_fail_registry(m, registry_run(&q));
}

static void bind_text_or_null(struct registry_query *q, const char *v)
{
	if (v[0])
		registry_bind_text(q, v);
	else
		registry_bind_blob(q, bytes_of(NULL, 0));
}

static void bind_unless(struct registry_query *q, bool not, const void *p, size_t n)
{
	registry_bind_blob(q, not ? bytes_of(NULL, 0) : bytes_of(p, n));
}

static int insert(struct manager *m, const struct grant *g)
{
	struct registry_query q = registry_query(
		&m->registry,
		"INSERT INTO grants (id, from_id, key_id, flags, gateway, receiver, upstream,"
		" outlet, valid_days, not_before_ms, not_after_ms, b, x, secret, wrapped)"
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
	bool hop = grants_is_hop(g);

	registry_bind_blob(&q, bytes_of(g->id, sizeof(g->id)));
	bind_unless(&q, !g->has_from, g->from, sizeof(g->from));
	registry_bind_int(&q, g->key_id);
	registry_bind_int(&q, g->flags);
	registry_bind_text(&q, g->gateway);
	registry_bind_text(&q, g->receiver);
	bind_text_or_null(&q, g->upstream);
	bind_text_or_null(&q, g->outlet);
	registry_bind_int(&q, g->valid_days);
	registry_bind_int(&q, (int64_t)g->not_before_ms);
	registry_bind_int(&q, (int64_t)g->not_after_ms);
	bind_unless(&q, hop, g->b.b, sizeof(g->b.b));
	bind_unless(&q, hop, g->x.b, sizeof(g->x.b));
	bind_unless(&q, !hop, g->secret, sizeof(g->secret));
	registry_bind_blob(&q, bytes_of(g->wrapped, g->wrapped_bytes));
	return manager_fail_registry(m, registry_run(&q));
}

void grants_record(const struct grant *g, const struct scope *s, char filter[GRANTS_FILTER_ROOM],
		   struct record_grant *ret_r)
{
	struct record_grant *r = ret_r;

	*r = (struct record_grant){
		.key_id = g->key_id,
		.flags = g->flags,
		.upstream = bytes_str(g->upstream),
		.receiver = bytes_str(g->receiver),
		.a = s->record.a,
		.b = g->b,
		.x = g->x,
		.not_before_ms = g->not_before_ms,
		.not_after_ms = g->not_after_ms,
		.scope = bytes_str(s->name),
	};
	memcpy(r->grant_id, g->id, sizeof(r->grant_id));
	memcpy(r->from, g->from, sizeof(r->from)); /* zeros where it has none */
	if (g->outlet[0]) {
		(void)snprintf(filter, GRANTS_FILTER_ROOM, "%s/#", g->prefix);
		r->filters[r->n_filters++] = bytes_str(filter);
		return;
	}
	r->n_filters = s->record.n_filters;
	memcpy(r->filters, s->record.filters, sizeof(r->filters));
}

/* --- secrets ------------------------------------------------------------------------------- */

/* In locked memory. */
struct secrets {
	struct secret32 from; /* of the scope or hop that was asked for last */
	struct secret32 x, to, rk;
	uint8_t pkcs8[P256_PKCS8_BYTES];
};

struct grants_maker {
	struct manager *m;
	struct secrets *s;
	bool has_source;     /* s->from is that of this: */
	struct grant source; /* its from and key id */
	struct scope scope;
	struct grant up; /* the grant that source.from names */
	struct gateway gateway;
	struct party party;
};

int grants_maker_new(struct manager *m, struct grants_maker **ret_k)
{
	struct grants_maker *k = calloc(1, sizeof(*k));

	if (!k)
		return manager_fail(m, -ENOMEM, "out of memory");
	k->m = m;
	k->s = scope_secret_alloc(m, sizeof(*k->s));
	if (!k->s) {
		free(k);
		return -ENOMEM;
	}
	*ret_k = k;
	return 0;
}

void grants_maker_free(struct grants_maker *k)
{
	if (!k)
		return;
	secret_free(k->s, sizeof(*k->s));
	secret_wipe(k->party.k_adm, sizeof(k->party.k_adm));
	secret_wipe(k->party.previous_k_adm, sizeof(k->party.previous_k_adm));
	free(k);
}

#define AAD_BYTES_MAX 64

/* What a hop's secret is sealed with: moved to another grant it does not open. */
static struct bytes seal_aad(const struct grant *g, uint8_t buf[AAD_BYTES_MAX])
{
	struct bytes_writer w = bytes_writer_of(buf, AAD_BYTES_MAX);

	bytes_write(&w, bytes_str("ssdtf-hop-secret-1"));
	bytes_write(&w, bytes_of(g->id, sizeof(g->id)));
	bytes_write_u32(&w, g->key_id);
	BUG_ON(w.bad);
	return bytes_of(buf, w.used);
}

static int open_secret(struct manager *m, const struct grant *g, struct secret32 *to)
{
	uint8_t aad[AAD_BYTES_MAX];
	char hex[GRANTS_HEX_ROOM];
	int err = manager_token(m);

	if (err)
		return err;
	err = token_store_open(m->token, MANAGER_STORE_LABEL, seal_aad(g, aad),
			       bytes_of(g->secret, sizeof(g->secret)), to->b);
	if (err && err != -EBADMSG)
		return manager_fail_token(m, err);
	if (err || p256_scalar_check(to))
		return manager_fail(m, -EIO,
				    "grant %s: its secret is not what this token sealed: damaged",
				    text_hex(bytes_of(g->id, sizeof(g->id)), hex));
	return 0;
}

int grants_check_secret(struct grants_maker *k, const struct grant *g)
{
	return open_secret(k->m, g, &k->s->rk);
}

static int load_source(struct grants_maker *k, const struct grant *g)
{
	int err = 0;

	if (k->has_source && k->source.key_id == g->key_id && k->source.has_from == g->has_from &&
	    !memcmp(k->source.from, g->from, sizeof(g->from)))
		return 0;
	k->has_source = false;
	if (g->has_from) {
		err = grants_load(k->m, g->from, &k->up);
		if (!err && (!grants_is_hop(&k->up) || k->up.key_id != g->key_id))
			err = manager_fail(k->m, -EIO, "%s: registry: damaged", k->m->config.dir);
		if (!err)
			err = open_secret(k->m, &k->up, &k->s->from);
	} else {
		err = scope_load_key(k->m, g->key_id, &k->scope);
		if (!err)
			err = scope_open_scalar(k->m, &k->scope, &k->s->from);
	}
	if (err)
		return err;
	k->source.key_id = g->key_id;
	k->source.has_from = g->has_from;
	memcpy(k->source.from, g->from, sizeof(g->from));
	k->has_source = true;
	return 0;
}

static int fail_key(struct grants_maker *k, int err)
{
	return err ? manager_fail(k->m, err, "cannot make the conversion key: %s", strerror(-err))
		   : 0;
}

/* A hop ends in a secret of its own. */
static int end_in_secret(struct grants_maker *k, struct grant *g)
{
	uint8_t aad[AAD_BYTES_MAX];
	int err = fail_key(k, p256_scalar_random(&k->s->to));

	if (!err)
		err = manager_token(k->m);
	if (err)
		return err;
	return manager_fail_token(
		k->m, token_store_seal(k->m->token, MANAGER_STORE_LABEL, seal_aad(g, aad),
				       bytes_of(k->s->to.b, sizeof(k->s->to.b)), g->secret));
}

/* Others end in the receiver's d, by a fresh x (PROTOCOL 3). */
static int end_in_receiver(struct grants_maker *k, struct grant *g)
{
	struct grant_terms t = { .key_id = g->key_id };
	int err = party_load(k->m, g->receiver, RECORD_ROLE_RECEIVER, &k->party);

	if (err)
		return err;
	g->b = t.b = k->party.encryption;
	memcpy(t.grant_id, g->id, sizeof(t.grant_id));
	err = p256_scalar_random(&k->s->x);
	if (!err)
		err = p256_mul_base(&k->s->x, &t.x);
	if (!err)
		err = grant_secret_manager(&t, &k->s->x, &k->s->to);
	g->x = t.x;
	return fail_key(k, err);
}

/* The unwrapping key of the token that will convert. */
static int converter_key(struct grants_maker *k, const struct grant *g, struct bytes *ret_spki)
{
	int err;

	if (!g->upstream[0]) {
		err = gateway_load(k->m, g->gateway, &k->gateway);
		*ret_spki = bytes_of(k->gateway.spki, k->gateway.spki_bytes);
		return err;
	}
	err = party_load(k->m, g->upstream, RECORD_ROLE_DISTRIBUTOR, &k->party);
	if (!err && !k->party.unwrap_bytes)
		return manager_fail(
			k->m, -EINVAL,
			"distributor \"%s\": is enrolled without its token's unwrapping "
			"key; enrol it again with what `ssdtf-hsmd keygen` prints",
			g->upstream);
	*ret_spki = bytes_of(k->party.unwrap, k->party.unwrap_bytes);
	return err;
}

static int wrap(struct grants_maker *k, struct grant *g)
{
	struct secrets *s = k->s;
	struct bytes spki = { 0 };
	int err = converter_key(k, g, &spki);

	if (err)
		return err;
	err = grant_conversion_key(&s->from, &s->to, &s->rk);
	if (err)
		return fail_key(k, err);
	p256_pkcs8(&s->rk, s->pkcs8);
	err = rsa_wrap(spki, bytes_of(s->pkcs8, sizeof(s->pkcs8)), g->wrapped, sizeof(g->wrapped));
	if (err < 0)
		return fail_key(k, err);
	g->wrapped_bytes = (size_t)err;
	return 0;
}

static int make(struct grants_maker *k, struct grant *g)
{
	struct secrets *s = k->s;
	int err = load_source(k, g);

	if (!err)
		err = grants_is_hop(g) ? end_in_secret(k, g) : end_in_receiver(k, g);
	if (!err)
		err = wrap(k, g);
	secret_wipe(&s->x, sizeof(s->x));
	secret_wipe(&s->to, sizeof(s->to));
	secret_wipe(&s->rk, sizeof(s->rk));
	secret_wipe(s->pkcs8, sizeof(s->pkcs8));
	return err ? err : insert(k->m, g);
}

int grants_make(struct grants_maker *k, struct grant *g)
{
	hash_random(g->id, sizeof(g->id));
	return make(k, g);
}

int grants_replace(struct grants_maker *k, const struct grant *old, uint64_t until_ms,
		   struct grant *g)
{
	struct registry_query q =
		registry_query(&k->m->registry,
			       "UPDATE grants SET next = ?1, not_after_ms ="
			       " iif(not_after_ms = 0, ?2, min(not_after_ms, ?2)) WHERE id = ?3");
	int err;

	hash_random(g->id, sizeof(g->id));
	registry_bind_blob(&q, bytes_of(g->id, sizeof(g->id)));
	registry_bind_int(&q, (int64_t)until_ms);
	registry_bind_blob(&q, bytes_of(old->id, sizeof(old->id)));
	err = manager_fail_registry(k->m, registry_run(&q));
	return err ? err : make(k, g);
}
