// SPDX-License-Identifier: MIT
#include "userspace/manager/bundle_make_impl.h"

#include <string.h>

#include "userspace/base/secret.h"
#include "userspace/bundle/statement.h"
#include "userspace/crypto/hash.h"
#include "userspace/manager/update.h"

#define COUNT_BYTES sizeof(uint32_t)

/* Epochs under which something may still be converted. */
static int put_scopes(struct bundle_work *k)
{
	struct registry_query q =
		registry_query(&k->m->registry, "SELECT key_id FROM epoch WHERE kept_until_ms = 0"
						" OR kept_until_ms > ? ORDER BY scope, epoch");
	uint8_t *count = bundle_make_section(k, COUNT_BYTES);
	uint32_t n = 0;
	int err = 0, end;

	registry_bind_int(&q, (int64_t)k->m->now_ms);
	while (!err && registry_step(&q)) {
		err = scope_load_key(k->m, (uint32_t)registry_int(&q, 0), &k->scope);
		if (!err)
			bundle_gateway_write_scope(&k->scope.record, &k->w);
		n++;
	}
	end = registry_end(&q);
	bundle_make_count(k, count, COUNT_BYTES, n);
	return err ? err : manager_fail_registry(k->m, end);
}

static void put_party(struct bundle_work *k, struct bundle_gateway_party *p)
{
	const struct party *from = &k->party;

	party_record(k->m, from, &p->party);
	p->admission_flags = from->admission_flags;
	memcpy(p->k_adm, from->k_adm, sizeof(p->k_adm));
	if (from->has_previous_k_adm && record_valid_at(0, from->k_adm_until_ms, k->m->now_ms)) {
		p->admission_flags |= BUNDLE_ADMISSION_PREVIOUS;
		memcpy(p->previous_k_adm, from->previous_k_adm, sizeof(p->previous_k_adm));
		p->previous_until_ms = from->k_adm_until_ms;
	}
	bundle_gateway_write_party(p, &k->w);
}

static int put_parties(struct bundle_work *k)
{
	struct party_rows rows = { .q = registry_query(&k->m->registry, PARTY_ALL_SQL) };
	uint8_t *count = bundle_make_section(k, COUNT_BYTES);
	struct bundle_gateway_party p = { 0 };
	uint32_t n = 0;

	while (party_rows_next(&rows, &k->party)) {
		put_party(k, &p);
		n++;
	}
	secret_wipe(&p, sizeof(p));
	bundle_make_count(k, count, COUNT_BYTES, n);
	return manager_fail_registry(k->m, registry_end(&rows.q));
}

/* Where a distributor converts, its conversion key is not for the gateway. */
static int put_grants(struct bundle_work *k)
{
	struct registry_query q =
		registry_query(&k->m->registry,
			       GRANTS_SQL " WHERE g.gateway = ? AND" GRANTS_IN_FORCE
					  " ORDER BY g.key_id, g.receiver, g.next IS NULL, g.id");
	uint8_t *count = bundle_make_section(k, COUNT_BYTES);
	struct bundle_gateway_grant g = { 0 };
	uint32_t n = 0;
	int err = 0, end;

	registry_bind_text(&q, k->gateway.id);
	registry_bind_int(&q, (int64_t)k->m->now_ms);
	while (!err && registry_step(&q)) {
		err = bundle_make_read_grant(k, &q, &g.grant);
		g.wrapped_rk = bytes_of(k->grant.wrapped,
					k->grant.upstream[0] ? 0 : k->grant.wrapped_bytes);
		if (!err)
			bundle_gateway_write_grant(&g, &k->w);
		n++;
	}
	end = registry_end(&q);
	bundle_make_count(k, count, COUNT_BYTES, n);
	return err ? err : manager_fail_registry(k->m, end);
}

static int put_revoked(struct bundle_work *k)
{
	struct registry_query q =
		registry_query(&k->m->registry,
			       "SELECT key_id, at_ms FROM revoked JOIN epoch USING (key_id)"
			       " WHERE gateway = ? AND (kept_until_ms = 0 OR kept_until_ms > ?)"
			       " ORDER BY key_id");
	uint8_t *count = bundle_make_section(k, COUNT_BYTES);
	uint32_t n = 0;

	registry_bind_text(&q, k->gateway.id);
	registry_bind_int(&q, (int64_t)k->m->now_ms);
	while (registry_step(&q)) {
		const struct bundle_gateway_revoked v = {
			.key_id = (uint32_t)registry_int(&q, 0),
			.revoked_at_ms = (uint64_t)registry_int(&q, 1),
		};

		bundle_gateway_write_revoked(&v, &k->w);
		n++;
	}
	bundle_make_count(k, count, COUNT_BYTES, n);
	return manager_fail_registry(k->m, registry_end(&q));
}

static int put_sections(struct bundle_work *k)
{
	int err = put_scopes(k);

	if (!err)
		err = put_parties(k);
	if (!err)
		err = put_grants(k);
	if (!err)
		err = put_revoked(k);
	return err ? err : update_write(k->m, k->gateway.id, &k->w);
}

/* For a gateway that was revoked: it is to forget everybody. */
static void put_nothing(struct bundle_work *k)
{
	for (int i = 0; i < 5; i++)
		bytes_write_u32(&k->w, 0);
}

static int check_point(bool there, const struct p256_point *p)
{
	return there ? p256_point_check(bytes_of(p->b, sizeof(p->b))) : 0;
}

/* The gateway looks at a point when it uses it (record.h). */
static int next_party(struct bytes_reader *r, struct bundle_gateway_party *p)
{
	int err = bundle_gateway_next_party(r, p);

	if (!err)
		err = check_point(true, &p->party.signing);
	if (!err)
		err = check_point(p->party.has_previous, &p->party.previous);
	return err ? err : check_point(p->party.has_encryption, &p->party.encryption);
}

static int next_grant(struct bytes_reader *r, struct bundle_gateway_grant *g)
{
	int err = bundle_gateway_next_grant(r, g);
	bool opens = !err && !(g->grant.flags & RECORD_GRANT_HOP);

	if (!err)
		err = check_point(true, &g->grant.a);
	if (!err)
		err = check_point(opens, &g->grant.b);
	return err ? err : check_point(opens, &g->grant.x);
}

/* What is signed is read back first: a damaged row stops here and not at the gateway. */
static int read_back(const struct bundle_work *k)
{
	struct bundle_gateway b;
	struct record_scope s;
	struct bundle_gateway_party p;
	struct bundle_gateway_grant g;
	struct statement update;
	struct bytes whole;
	int err = bundle_gateway_decode(bytes_of(k->body, k->w.used), &b);

	for (uint32_t i = 0; !err && i < b.n_scopes; i++)
		err = bundle_gateway_next_scope(&b.scopes, &s);
	for (uint32_t i = 0; !err && i < b.n_parties; i++)
		err = next_party(&b.parties, &p);
	for (uint32_t i = 0; !err && i < b.n_grants; i++)
		err = next_grant(&b.grants, &g);
	for (uint32_t i = 0; !err && i < b.n_updates; i++)
		err = bundle_gateway_next_update(&b.updates, &whole, &update);
	secret_wipe(&p, sizeof(p));
	return err;
}

int bundle_make_gateway_body(struct bundle_work *k)
{
	struct bundle_gateway head = { 0 };
	int err = 0;

	gateway_record(&k->gateway, &head.broker);
	hash_one(bytes_of(k->gateway.spki, k->gateway.spki_bytes), head.unwrap_key_hash);
	bundle_make_begin(k);
	bundle_gateway_write_head(&head, &k->w);
	if (k->gateway.revoked_ms)
		put_nothing(k);
	else
		err = put_sections(k);
	if (!err)
		err = bundle_make_end(k, k->gateway.id);
	return !err && read_back(k) ? bundle_make_damaged(k) : err;
}
