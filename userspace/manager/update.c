// SPDX-License-Identifier: MIT
#include "userspace/manager/update.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/secret.h"
#include "userspace/bundle/bundle.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/sign.h"

#define DAY_MS	    (24ull * 60 * 60 * 1000)
#define EVERYWHERE  "" /* the gateway column of what is for all of them */
#define RECORD_ROOM SCOPE_RECORD_BYTES_MAX

/* --- noting -------------------------------------------------------------------------------- */

/* body: where it is to be said in these words; else of what the registry says when it is signed. */
static int note(struct manager *m, enum statement_kind kind, const char *subject,
		const char *gateway, struct bytes body)
{
	struct registry_query q =
		registry_query(&m->registry,
			       "INSERT INTO statement (kind, subject, gateway, at_ms, body)"
			       " VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, subject) DO UPDATE"
			       " SET gateway = excluded.gateway, at_ms = excluded.at_ms,"
			       " body = excluded.body, serial = NULL, whole = NULL");

	registry_bind_int(&q, (int64_t)kind);
	registry_bind_text(&q, subject);
	registry_bind_text(&q, gateway);
	registry_bind_int(&q, (int64_t)m->now_ms);
	registry_bind_blob(&q, body);
	return manager_fail_registry(m, registry_run(&q));
}

/* A question about v with the answer yes or no. */
static int ask(struct manager *m, const char *sql, const char *v, int64_t flag, bool *ret_yes)
{
	struct registry_query q = registry_query(&m->registry, sql);

	registry_bind_text(&q, v);
	if (flag)
		registry_bind_int(&q, flag);
	*ret_yes = registry_step(&q);
	return manager_fail_registry(m, registry_end(&q));
}

int update_scope(struct manager *m, const char *name)
{
	return note(m, STATEMENT_SCOPE, name, EVERYWHERE, bytes_of(NULL, 0));
}

int update_grant(struct manager *m, const struct grant *g)
{
	char hex[GRANTS_HEX_ROOM];
	bool has_bundle = false;
	int err = 0;

	if (!grants_is_hop(g))
		err = ask(m, "SELECT 1 FROM party WHERE id = ? AND bundle_serial > 0", g->receiver,
			  0, &has_bundle);
	if (err || !has_bundle)
		return err;
	return note(m, STATEMENT_GRANT, text_hex(bytes_of(g->id, sizeof(g->id)), hex), g->gateway,
		    bytes_of(NULL, 0));
}

/* Does anybody who has had a bundle check proofs of this party? */
static int is_origin(struct manager *m, const char *id, bool *ret_yes)
{
	return ask(m,
		   "SELECT 1 FROM permission JOIN epoch USING (scope) JOIN grants USING (key_id)"
		   " JOIN party ON party.id = receiver WHERE permission.party = ?"
		   " AND (grants.flags & ?) AND bundle_serial > 0 LIMIT 1",
		   id, RECORD_GRANT_PROOF, ret_yes);
}

int update_party(struct manager *m, const char *id)
{
	bool yes = false, waits = false;
	int err = ask(m, "SELECT 1 FROM party WHERE id = ? AND (flags & ?)", id, RECORD_PARTY_CLAIM,
		      &waits);

	if (err || waits)
		return err; /* what a code's key signs proves no origin: it is told with its claim
			     */
	err = is_origin(m, id, &yes);
	return err || !yes ? err : note(m, STATEMENT_PARTY, id, EVERYWHERE, bytes_of(NULL, 0));
}

int update_broker(struct manager *m, const char *gateway)
{
	return note(m, STATEMENT_BROKER, gateway, gateway, bytes_of(NULL, 0));
}

/* --- what a statement says ----------------------------------------------------------------- */

struct work {
	struct scope scope;
	struct party party;
	struct grant grant;
	struct gateway gateway;
	char filter[GRANTS_FILTER_ROOM];
	uint8_t record[RECORD_ROOM], whole[STATEMENT_BYTES(RECORD_ROOM)];
};

/* The party with the scopes it publishes under, as those see it who check its proofs. */
static int put_party(struct manager *m, struct work *k, const char *id, bool *ret_found,
		     struct bytes_writer *w)
{
	struct party_rows rows = {
		.q = registry_query(&m->registry,
				    "SELECT party.id, roles & ?1, 0, signing, previous,"
				    " previous_until_ms, NULL, 0, zeroblob(16), NULL, 0, NULL, 0,"
				    " permission.scope FROM party LEFT JOIN permission"
				    " ON permission.party = party.id WHERE party.id = ?2"
				    " ORDER BY permission.scope"),
	};
	struct record_party r;

	registry_bind_int(&rows.q, RECORD_ROLE_DEVICE);
	registry_bind_text(&rows.q, id);
	*ret_found = party_rows_next(&rows, &k->party);
	if (*ret_found) {
		party_record(m, &k->party, &r);
		record_party_encode(&r, w);
	}
	return manager_fail_registry(m, registry_end(&rows.q));
}

int update_party_revoked(struct manager *m, const struct party *p)
{
	struct work *k;
	struct bytes_writer w;
	bool yes = false, found = false;
	int err = is_origin(m, p->id, &yes);

	if (err || !yes)
		return err;
	k = calloc(1, sizeof(*k));
	if (!k)
		return manager_fail(m, -ENOMEM, "out of memory");
	w = bytes_writer_of(k->record, sizeof(k->record));
	err = put_party(m, k, p->id, &found, &w);
	if (!err && found) {
		struct record_party r;

		party_record(m, &k->party, &r);
		r.roles = 0;
		r.has_previous = false;
		w = bytes_writer_of(k->record, sizeof(k->record));
		record_party_encode(&r, &w);
		err = note(m, STATEMENT_PARTY, p->id, EVERYWHERE, bytes_of(k->record, w.used));
	}
	free(k);
	return err;
}

static int put_scope(struct manager *m, struct work *k, const char *name, struct bytes_writer *w)
{
	int err = scope_load(m, name, &k->scope);

	if (!err)
		record_scope_encode(&k->scope.record, w);
	return err;
}

static int put_grant(struct manager *m, struct work *k, const char *hex, struct bytes_writer *w)
{
	uint8_t id[GRANT_ID_BYTES];
	struct record_grant r;
	int err;

	if (text_unhex(bytes_str(hex), id, sizeof(id)))
		return manager_fail(m, -EIO, "%s: registry: damaged", m->config.dir);
	err = grants_load(m, id, &k->grant);
	if (!err)
		err = scope_load_key(m, k->grant.key_id, &k->scope);
	if (err)
		return err;
	grants_record(&k->grant, &k->scope, k->filter, &r);
	record_grant_encode(&r, w);
	return 0;
}

static int put_broker(struct manager *m, struct work *k, const char *id, struct bytes_writer *w)
{
	struct record_broker r;
	int err = gateway_load(m, id, &k->gateway);

	if (err)
		return err;
	gateway_record(&k->gateway, &r);
	record_broker_encode(&r, w);
	return 0;
}

/* The subject is there: forget_void() saw to it. */
static int put_body(struct manager *m, struct work *k, int64_t kind, const char *subject,
		    struct bytes_writer *w)
{
	bool found;

	switch (kind) {
	case STATEMENT_SCOPE:
		return put_scope(m, k, subject, w);
	case STATEMENT_GRANT:
		return put_grant(m, k, subject, w);
	case STATEMENT_PARTY:
		return put_party(m, k, subject, &found, w);
	default:
		return put_broker(m, k, subject, w);
	}
}

/* --- signing ------------------------------------------------------------------------------- */

static int kept_ms(struct manager *m, uint64_t *ret_ms)
{
	char text[16] = "";
	int err = registry_setting(&m->registry, UPDATE_DAYS_SETTING, text, sizeof(text));

	*ret_ms = (err ? UPDATE_DAYS_STANDARD : strtoull(text, NULL, 10)) * DAY_MS;
	return err == -ENOENT ? 0 : manager_fail_registry(m, err);
}

/* What was signed too long ago, and what is said of grants, parties or gateways that are not there
 * any more. What waits for a bundle waits however long that takes. */
static int forget_void(struct manager *m)
{
	struct registry_query q;
	uint64_t ms = 0;
	int err = kept_ms(m, &ms);

	if (err)
		return err;
	q = registry_query(
		&m->registry,
		"DELETE FROM statement WHERE (whole IS NOT NULL AND at_ms < ?1)"
		" OR (kind = ?2 AND subject NOT IN (SELECT lower(hex(id)) FROM grants"
		"  WHERE not_after_ms = 0 OR not_after_ms > ?5))"
		" OR (kind = ?3 AND body IS NULL AND subject NOT IN (SELECT id FROM party))"
		" OR (kind = ?4 AND subject NOT IN (SELECT id FROM gateway WHERE revoked_ms = 0))");
	registry_bind_int(&q, m->now_ms > ms ? (int64_t)(m->now_ms - ms) : 0);
	registry_bind_int(&q, STATEMENT_GRANT);
	registry_bind_int(&q, STATEMENT_PARTY);
	registry_bind_int(&q, STATEMENT_BROKER);
	registry_bind_int(&q, (int64_t)m->now_ms);
	return manager_fail_registry(m, registry_run(&q));
}

static int store(struct manager *m, int64_t kind, const char *subject, uint64_t serial,
		 struct bytes whole)
{
	struct registry_query q =
		registry_query(&m->registry, "UPDATE statement SET serial = ?, whole = ?, at_ms = ?"
					     " WHERE kind = ? AND subject = ?");

	registry_bind_int(&q, (int64_t)serial);
	registry_bind_blob(&q, whole);
	registry_bind_int(&q, (int64_t)m->now_ms);
	registry_bind_int(&q, kind);
	registry_bind_text(&q, subject);
	return manager_fail_registry(m, registry_run(&q));
}

/* The noted one that comes next, signed; *ret_more false where there was none. */
static int sign_next(struct manager *m, struct work *k, const char *gateway, bool *ret_more)
{
	struct registry_query q =
		registry_query(&m->registry,
			       "SELECT kind, subject, body FROM statement WHERE whole IS NULL"
			       " AND gateway IN ('', ?) ORDER BY kind, subject LIMIT 1");
	struct bytes_writer w = bytes_writer_of(k->record, sizeof(k->record));
	struct statement s = { 0 };
	char subject[MANAGER_ID_ROOM] = "";
	size_t n = 0;
	int err;

	registry_bind_text(&q, gateway);
	*ret_more = registry_step(&q);
	s.kind = (enum statement_kind)registry_int(&q, 0);
	registry_text(&q, 1, subject, sizeof(subject));
	bytes_write(&w, registry_blob(&q, 2));
	err = manager_fail_registry(m, registry_end(&q));
	if (err || !*ret_more)
		return err;
	if (!w.used)
		err = put_body(m, k, (int64_t)s.kind, subject, &w);
	if (!err)
		err = manager_serials(m, 1, &s.serial);
	BUG_ON(w.bad);
	s.body = bytes_of(k->record, w.used);
	if (!err)
		err = sign_statement(m, &s, k->whole, sizeof(k->whole), &n);
	return err ? err : store(m, (int64_t)s.kind, subject, s.serial, bytes_of(k->whole, n));
}

int update_sign(struct manager *m, const char *gateway)
{
	struct work *k = calloc(1, sizeof(*k));
	bool more = true;
	int err;

	if (!k)
		return manager_fail(m, -ENOMEM, "out of memory");
	err = forget_void(m);
	while (!err && more)
		err = sign_next(m, k, gateway, &more);
	secret_wipe(&k->party, sizeof(k->party));
	free(k);
	return err;
}

int update_write(struct manager *m, const char *gateway, struct bytes_writer *w)
{
	struct registry_query q =
		registry_query(&m->registry, "SELECT whole FROM statement WHERE whole IS NOT NULL"
					     " AND gateway IN ('', ?) ORDER BY serial");
	uint8_t *count = bytes_write_space(w, sizeof(uint32_t));
	uint32_t n = 0;

	registry_bind_text(&q, gateway);
	for (; registry_step(&q); n++)
		bundle_gateway_write_update(registry_blob(&q, 0), w);
	if (count)
		bytes_store_u32(count, n);
	return manager_fail_registry(m, registry_end(&q));
}
