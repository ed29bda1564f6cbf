// SPDX-License-Identifier: MIT
#include "userspace/manager/bundle_make_impl.h"

#include <string.h>

#include "userspace/base/secret.h"

#define COUNT_BYTES sizeof(uint16_t)

static struct bytes_writer record_begin(struct bundle_work *k)
{
	return bytes_writer_of(k->record, sizeof(k->record));
}

static void record_end(struct bundle_work *k, const struct bytes_writer *record)
{
	k->w.bad |= record->bad;
	bundle_party_write_record(bytes_of(k->record, record->used), &k->w);
}

static int put_scopes(struct bundle_work *k, const char *id)
{
	struct registry_query q = registry_query(
		&k->m->registry, "SELECT scope FROM permission WHERE party = ? ORDER BY scope");
	uint8_t *count = bundle_make_section(k, COUNT_BYTES);
	char name[MANAGER_ID_ROOM];
	uint32_t n = 0;
	int err = 0, end;

	registry_bind_text(&q, id);
	while (!err && registry_step(&q)) {
		struct bytes_writer record = record_begin(k);

		registry_text(&q, 0, name, sizeof(name));
		err = scope_load(k->m, name, &k->scope);
		if (err)
			break;
		record_scope_encode(&k->scope.record, &record);
		record_end(k, &record);
		n++;
	}
	end = registry_end(&q);
	bundle_make_count(k, count, COUNT_BYTES, n);
	return err ? err : manager_fail_registry(k->m, end);
}

/* What it can open: hops are a distributor's, and in another kind of bundle. */
static int put_grants(struct bundle_work *k, const char *id)
{
	struct registry_query q =
		registry_query(&k->m->registry, GRANTS_SQL
			       " WHERE g.secret IS NULL AND g.gateway = ? AND" GRANTS_IN_FORCE
			       " AND g.receiver = ?"
			       " ORDER BY g.key_id, g.next IS NULL, g.id");
	uint8_t *count = bundle_make_section(k, COUNT_BYTES);
	struct record_grant r;
	uint32_t n = 0;
	int err = 0, end;

	registry_bind_text(&q, k->gateway.id);
	registry_bind_int(&q, (int64_t)k->m->now_ms);
	registry_bind_text(&q, id);
	while (!err && registry_step(&q)) {
		struct bytes_writer record = record_begin(k);

		err = bundle_make_read_grant(k, &q, &r);
		if (err)
			break;
		record_grant_encode(&r, &record);
		record_end(k, &record);
		n++;
	}
	end = registry_end(&q);
	bundle_make_count(k, count, COUNT_BYTES, n);
	return err ? err : manager_fail_registry(k->m, end);
}

int bundle_make_origins(struct bundle_work *k, const char *id, size_t count_bytes)
{
	struct party_rows rows = {
		.q = registry_query(
			&k->m->registry,
			"SELECT party.id, ?5, 0, signing, previous, previous_until_ms, NULL, 0,"
			" zeroblob(16), NULL, 0, NULL, 0, perm.scope"
			" FROM permission perm JOIN party ON party.id = perm.party"
			" WHERE (party.roles & ?5) AND NOT (party.flags & ?6) AND perm.scope IN"
			" (SELECT e.scope FROM grants g JOIN epoch e ON e.key_id = g.key_id"
			"  WHERE g.gateway = ?1 AND g.receiver = ?2 AND (g.flags & ?3)"
			"  AND (g.not_after_ms = 0 OR g.not_after_ms > ?4))"
			" ORDER BY party.id, perm.scope"),
	};
	uint8_t *count = bundle_make_section(k, count_bytes);
	struct record_party r;
	uint32_t n = 0;

	registry_bind_text(&rows.q, k->gateway.id);
	registry_bind_text(&rows.q, id);
	registry_bind_int(&rows.q, RECORD_GRANT_PROOF);
	registry_bind_int(&rows.q, (int64_t)k->m->now_ms);
	registry_bind_int(&rows.q, RECORD_ROLE_DEVICE);
	registry_bind_int(&rows.q, RECORD_PARTY_CLAIM); /* a code's key proves no origin */
	while (party_rows_next(&rows, &k->party)) {
		struct bytes_writer record = record_begin(k);

		party_record(k->m, &k->party, &r);
		record_party_encode(&r, &record);
		record_end(k, &record);
		n++;
	}
	bundle_make_count(k, count, count_bytes, n);
	return manager_fail_registry(k->m, registry_end(&rows.q));
}

static int read_back(const struct bundle_work *k)
{
	struct bundle_party b;
	struct record_scope s;
	struct record_grant g;
	struct record_party p;
	int err = bundle_party_decode(bytes_of(k->body, k->w.used), &b);

	for (uint16_t i = 0; !err && i < b.n_scopes; i++)
		err = bundle_party_next_scope(&b.scopes, &s);
	for (uint16_t i = 0; !err && i < b.n_grants; i++)
		err = bundle_party_next_grant(&b.grants, &g);
	for (uint16_t i = 0; !err && i < b.n_origins; i++)
		err = bundle_party_next_origin(&b.origins, &p);
	secret_wipe(&b, sizeof(b));
	return err;
}

static int put_head(struct bundle_work *k, const char *id)
{
	struct bundle_party head = { 0 };
	int err = party_load(k->m, id, PARTY_ANY_ROLE, &k->party);

	if (err)
		return err;
	gateway_record(&k->gateway, &head.broker);
	head.party_id = bytes_str(k->party.id);
	head.signing = k->party.signing;
	head.admission_flags = k->party.admission_flags;
	memcpy(head.k_adm, k->party.k_adm, sizeof(head.k_adm));
	bundle_party_write_head(&head, &k->w);
	secret_wipe(&head, sizeof(head));
	return 0;
}

int bundle_make_party_body(struct bundle_work *k, const char *id)
{
	int err;

	bundle_make_begin(k);
	err = put_head(k, id);
	if (!err)
		err = put_scopes(k, id);
	if (!err)
		err = put_grants(k, id);
	if (!err)
		err = bundle_make_origins(k, id, COUNT_BYTES);
	if (!err)
		err = bundle_make_end(k, id);
	return !err && read_back(k) ? bundle_make_damaged(k) : err;
}
