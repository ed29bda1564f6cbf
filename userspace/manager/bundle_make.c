// SPDX-License-Identifier: MIT
#include "userspace/manager/bundle_make.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "userspace/base/secret.h"
#include "userspace/bundle/bundle.h"
#include "userspace/bundle/statement.h"
#include "userspace/crypto/hash.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/party.h"
#include "userspace/manager/scope.h"

#define BODY_ROOM  ((size_t)STATEMENT_BODY_BYTES_MAX)
#define WHOLE_ROOM ((size_t)STATEMENT_BYTES(STATEMENT_BODY_BYTES_MAX))

/* Room for the largest bundle, of which pages that are not written cost nothing, and what one
 * record needs while it is made. */
struct work {
	struct manager *m;
	struct gateway gateway;
	uint64_t not_after_ms;
	uint8_t *body, *whole;
	struct bytes_writer w; /* over body */
	struct scope scope;    /* the one that was loaded last */
	struct party party;
	uint8_t record[SCOPE_RECORD_BYTES_MAX];
};

static void work_free(struct work *k)
{
	if (!k)
		return;
	if (k->body)
		secret_wipe(k->body, k->w.used); /* admission keys */
	free(k->body);
	free(k->whole); /* wiped by sign_and_write */
	secret_wipe(k, sizeof(*k));
	free(k);
}

static int work_new(struct manager *m, struct work **ret_k)
{
	struct work *k = calloc(1, sizeof(*k));

	if (k) {
		k->m = m;
		k->body = malloc(BODY_ROOM);
		k->whole = malloc(WHOLE_ROOM);
	}
	if (!k || !k->body || !k->whole) {
		work_free(k);
		return manager_fail(m, -ENOMEM, "out of memory");
	}
	*ret_k = k;
	return 0;
}

/* The next body; what was there of the last is overwritten or wiped in the end. */
static void body_begin(struct work *k)
{
	secret_wipe(k->body, k->w.used);
	k->w = bytes_writer_of(k->body, BODY_ROOM);
}

static int body_end(struct work *k, const char *id)
{
	if (!k->w.bad)
		return 0;
	k->w.used = BODY_ROOM; /* so that all of it is wiped */
	return manager_fail(k->m, -EMSGSIZE, "\"%s\": more than fits into one bundle (%zu MiB)", id,
			    BODY_ROOM >> 20);
}

/* --- records ------------------------------------------------------------------------------- */

/* A count in front of a section, filled in when the section is written. */
static void put_count(uint8_t *at, size_t bytes, uint32_t n)
{
	if (!at)
		return; /* the writer is bad already */
	if (bytes == sizeof(uint32_t))
		bytes_store_u32(at, n);
	else
		bytes_store_u16(at, (uint16_t)n);
}

#define GRANT_COLUMNS                                                                      \
	"SELECT g.id, g.key_id, g.flags, g.receiver, p.encryption, g.x, g.wrapped,"        \
	" g.not_before_ms, g.not_after_ms FROM grants g JOIN party p ON p.id = g.receiver" \
	" WHERE g.gateway = ? AND (g.not_after_ms = 0 OR g.not_after_ms > ?)"

struct grant_row {
	struct bundle_gateway_grant g;
	char receiver[MANAGER_ID_ROOM];
};

/* The row that q stands on. The scope of its key id is loaded where it is not the last one's. */
static int read_grant(struct work *k, struct registry_query *q, struct grant_row *ret_row)
{
	struct record_grant *r = &ret_row->g.grant;
	const struct record_scope *s = &k->scope.record;
	int err = 0;

	*r = (struct record_grant){ 0 };
	registry_copy(q, 0, r->grant_id, sizeof(r->grant_id));
	r->key_id = (uint32_t)registry_int(q, 1);
	r->flags = (uint8_t)registry_int(q, 2);
	registry_text(q, 3, ret_row->receiver, sizeof(ret_row->receiver));
	r->receiver = bytes_str(ret_row->receiver);
	registry_copy(q, 4, r->b.b, sizeof(r->b.b));
	registry_copy(q, 5, r->x.b, sizeof(r->x.b));
	ret_row->g.wrapped_rk = registry_blob(q, 6);
	r->not_before_ms = (uint64_t)registry_int(q, 7);
	r->not_after_ms = (uint64_t)registry_int(q, 8);
	if (s->key_id != r->key_id)
		err = scope_load_key(k->m, r->key_id, &k->scope);
	if (err)
		return err;
	r->a = s->a;
	r->scope = s->name;
	r->n_filters = s->n_filters;
	memcpy(r->filters, s->filters, sizeof(r->filters));
	return 0;
}

/* --- the gateway's bundle ------------------------------------------------------------------ */

static int gateway_scopes(struct work *k)
{
	struct registry_query q =
		registry_query(&k->m->registry, "SELECT key_id FROM epoch ORDER BY scope, epoch");
	uint8_t *count = bytes_write_space(&k->w, sizeof(uint32_t));
	uint32_t n = 0;
	int err = 0, end;

	while (!err && registry_step(&q)) {
		err = scope_load_key(k->m, (uint32_t)registry_int(&q, 0), &k->scope);
		if (!err)
			bundle_gateway_write_scope(&k->scope.record, &k->w);
		n++;
	}
	end = registry_end(&q);
	put_count(count, sizeof(uint32_t), n);
	return err ? err : manager_fail_registry(k->m, end);
}

static int gateway_parties(struct work *k)
{
	struct party_rows rows = { .q = registry_query(&k->m->registry, PARTY_ALL_SQL) };
	uint8_t *count = bytes_write_space(&k->w, sizeof(uint32_t));
	struct bundle_gateway_party p = { 0 };
	uint32_t n = 0;

	while (party_rows_next(&rows, &k->party)) {
		party_record(&k->party, &p.party);
		p.admission_flags = k->party.admission_flags;
		memcpy(p.k_adm, k->party.k_adm, sizeof(p.k_adm));
		bundle_gateway_write_party(&p, &k->w);
		n++;
	}
	secret_wipe(&p, sizeof(p));
	put_count(count, sizeof(uint32_t), n);
	return manager_fail_registry(k->m, registry_end(&rows.q));
}

static int gateway_grants(struct work *k)
{
	struct registry_query q =
		registry_query(&k->m->registry, GRANT_COLUMNS " ORDER BY g.key_id, g.receiver");
	uint8_t *count = bytes_write_space(&k->w, sizeof(uint32_t));
	struct grant_row row;
	uint32_t n = 0;
	int err = 0, end;

	registry_bind_text(&q, k->gateway.id);
	registry_bind_int(&q, (int64_t)k->m->now_ms);
	while (!err && registry_step(&q)) {
		err = read_grant(k, &q, &row);
		if (!err)
			bundle_gateway_write_grant(&row.g, &k->w);
		n++;
	}
	end = registry_end(&q);
	put_count(count, sizeof(uint32_t), n);
	return err ? err : manager_fail_registry(k->m, end);
}

static int gateway_revoked(struct work *k)
{
	struct registry_query q =
		registry_query(&k->m->registry, "SELECT key_id, at_ms FROM revoked"
						" WHERE gateway = ? ORDER BY key_id");
	uint8_t *count = bytes_write_space(&k->w, sizeof(uint32_t));
	uint32_t n = 0;

	registry_bind_text(&q, k->gateway.id);
	while (registry_step(&q)) {
		const struct bundle_gateway_revoked v = {
			.key_id = (uint32_t)registry_int(&q, 0),
			.revoked_at_ms = (uint64_t)registry_int(&q, 1),
		};

		bundle_gateway_write_revoked(&v, &k->w);
		n++;
	}
	put_count(count, sizeof(uint32_t), n);
	return manager_fail_registry(k->m, registry_end(&q));
}

/* What is signed is read back first: a damaged row stops here and not at the gateway. */
static int gateway_read_back(const struct work *k)
{
	struct bundle_gateway b;
	struct record_scope s;
	struct bundle_gateway_party p;
	struct bundle_gateway_grant g;
	int err = bundle_gateway_decode(bytes_of(k->body, k->w.used), &b);

	for (uint32_t i = 0; !err && i < b.n_scopes; i++)
		err = bundle_gateway_next_scope(&b.scopes, &s);
	for (uint32_t i = 0; !err && i < b.n_parties; i++)
		err = bundle_gateway_next_party(&b.parties, &p);
	for (uint32_t i = 0; !err && i < b.n_grants; i++)
		err = bundle_gateway_next_grant(&b.grants, &g);
	return err;
}

static int gateway_body(struct work *k)
{
	struct bundle_gateway head = { .broker = { .gateway_id = bytes_str(k->gateway.id),
						   .signing = k->gateway.broker } };
	int err;

	hash_one(bytes_of(k->gateway.spki, k->gateway.spki_bytes), head.unwrap_key_hash);
	body_begin(k);
	bundle_gateway_write_head(&head, &k->w);
	err = gateway_scopes(k);
	if (!err)
		err = gateway_parties(k);
	if (!err)
		err = gateway_grants(k);
	if (!err)
		err = gateway_revoked(k);
	bytes_write_u32(&k->w, 0); /* no updates */
	if (!err)
		err = body_end(k, k->gateway.id);
	if (!err && gateway_read_back(k))
		return manager_fail(k->m, -EIO, "%s: registry: damaged; no bundle is made of it",
				    k->m->config.dir);
	return err;
}

/* --- a party's bundle ---------------------------------------------------------------------- */

static struct bytes_writer record_begin(struct work *k)
{
	return bytes_writer_of(k->record, sizeof(k->record));
}

static void record_end(struct work *k, const struct bytes_writer *record)
{
	k->w.bad |= record->bad;
	bundle_party_write_record(bytes_of(k->record, record->used), &k->w);
}

/* Counts are 16 bits wide here. */
static void party_count(struct work *k, uint8_t *at, uint32_t n)
{
	k->w.bad |= n > UINT16_MAX;
	put_count(at, sizeof(uint16_t), n);
}

static int party_scopes(struct work *k, const char *id)
{
	struct registry_query q = registry_query(
		&k->m->registry, "SELECT scope FROM permission WHERE party = ? ORDER BY scope");
	uint8_t *count = bytes_write_space(&k->w, sizeof(uint16_t));
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
	party_count(k, count, n);
	return err ? err : manager_fail_registry(k->m, end);
}

static int party_grants(struct work *k, const char *id)
{
	struct registry_query q = registry_query(&k->m->registry, GRANT_COLUMNS
						 " AND g.receiver = ? ORDER BY g.key_id");
	uint8_t *count = bytes_write_space(&k->w, sizeof(uint16_t));
	struct grant_row row;
	uint32_t n = 0;
	int err = 0, end;

	registry_bind_text(&q, k->gateway.id);
	registry_bind_int(&q, (int64_t)k->m->now_ms);
	registry_bind_text(&q, id);
	while (!err && registry_step(&q)) {
		struct bytes_writer record = record_begin(k);

		err = read_grant(k, &q, &row);
		if (err)
			break;
		record_grant_encode(&row.g.grant, &record);
		record_end(k, &record);
		n++;
	}
	end = registry_end(&q);
	party_count(k, count, n);
	return err ? err : manager_fail_registry(k->m, end);
}

/*
 * Who may publish under a scope that this receiver reads with proofs. It learns of each only what a
 * proof is checked with: id, signing key, and those scopes.
 */
static int party_origins(struct work *k, const char *id)
{
	struct party_rows rows = {
		.q = registry_query(
			&k->m->registry,
			"SELECT p.id, ?5, p.signing, NULL, 0, zeroblob(16), perm.scope"
			" FROM permission perm JOIN party p ON p.id = perm.party"
			" WHERE (p.roles & ?5) AND perm.scope IN"
			" (SELECT e.scope FROM grants g JOIN epoch e ON e.key_id = g.key_id"
			"  WHERE g.gateway = ?1 AND g.receiver = ?2 AND (g.flags & ?3)"
			"  AND (g.not_after_ms = 0 OR g.not_after_ms > ?4))"
			" ORDER BY p.id, perm.scope"),
	};
	uint8_t *count = bytes_write_space(&k->w, sizeof(uint16_t));
	struct record_party r;
	uint32_t n = 0;

	registry_bind_text(&rows.q, k->gateway.id);
	registry_bind_text(&rows.q, id);
	registry_bind_int(&rows.q, RECORD_GRANT_PROOF);
	registry_bind_int(&rows.q, (int64_t)k->m->now_ms);
	registry_bind_int(&rows.q, RECORD_ROLE_DEVICE);
	while (party_rows_next(&rows, &k->party)) {
		struct bytes_writer record = record_begin(k);

		party_record(&k->party, &r);
		record_party_encode(&r, &record);
		record_end(k, &record);
		n++;
	}
	party_count(k, count, n);
	return manager_fail_registry(k->m, registry_end(&rows.q));
}

static int party_read_back(const struct work *k)
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

static int party_head(struct work *k, const char *id)
{
	struct bundle_party head = { .broker = { .gateway_id = bytes_str(k->gateway.id),
						 .signing = k->gateway.broker } };
	int err = party_load(k->m, id, PARTY_ANY_ROLE, &k->party);

	if (err)
		return err;
	head.party_id = bytes_str(k->party.id);
	head.signing = k->party.signing;
	head.admission_flags = k->party.admission_flags;
	memcpy(head.k_adm, k->party.k_adm, sizeof(head.k_adm));
	bundle_party_write_head(&head, &k->w);
	secret_wipe(&head, sizeof(head));
	return 0;
}

static int party_body(struct work *k, const char *id)
{
	int err;

	body_begin(k);
	err = party_head(k, id);
	if (!err)
		err = party_scopes(k, id);
	if (!err)
		err = party_grants(k, id);
	if (!err)
		err = party_origins(k, id);
	if (!err)
		err = body_end(k, id);
	if (!err && party_read_back(k))
		return manager_fail(k->m, -EIO, "%s: registry: damaged; no bundle is made of it",
				    k->m->config.dir);
	return err;
}

/* --- signing ------------------------------------------------------------------------------- */

static int sign_and_write(struct work *k, enum statement_kind kind, uint64_t serial, const char *id,
			  const char *file)
{
	const struct statement s = { .kind = kind,
				     .serial = serial,
				     .not_after_ms = k->not_after_ms,
				     .body = bytes_of(k->body, k->w.used) };
	struct bytes_writer w = bytes_writer_of(k->whole, WHOLE_ROOM);
	uint8_t digest[P256_DIGEST_BYTES], sig[P256_SIG_BYTES];
	int err;

	statement_write_unsigned(&s, &w);
	BUG_ON(w.bad);
	statement_digest(kind, bytes_of(k->whole, w.used), digest);
	err = manager_fail_token(k->m, token_sign(k->m->token, MANAGER_KEY_LABEL, digest, sig));
	if (!err) {
		bytes_write(&w, bytes_of(sig, sizeof(sig)));
		err = manager_fail_file(
			k->m, file_write(AT_FDCWD, file, bytes_of(k->whole, w.used), 0600), "write",
			file);
	}
	if (!err)
		(void)fprintf(k->m->out, "bundle id=%s serial=%" PRIu64 " bytes=%zu file=%s\n", id,
			      serial, w.used, file);
	secret_wipe(k->whole, w.used);
	return err;
}

/*
 * Everything up to the first body: n serials on the disk, then a view of the registry that stays
 * the same until finish(). DIR/lock keeps other writers out in between.
 */
static int start(struct manager *m, const struct bundle_terms *t, uint64_t n, struct work **ret_k,
		 uint64_t *ret_serial)
{
	struct work *k;
	int err = work_new(m, &k);

	if (err)
		return err;
	if (t->valid_days)
		k->not_after_ms = m->now_ms + t->valid_days * 24ull * 60 * 60 * 1000;
	err = gateway_load(m, t->gateway, &k->gateway);
	if (!err)
		err = manager_token(m);
	if (!err)
		err = manager_begin(m);
	if (!err)
		err = manager_serials(m, n, ret_serial);
	if (!err)
		err = manager_commit(m);
	if (!err)
		err = manager_fail_registry(m, registry_begin_read(&m->registry));
	if (err) {
		manager_rollback(m);
		work_free(k);
		return err;
	}
	*ret_k = k;
	return 0;
}

static int finish(struct work *k, int err)
{
	manager_rollback(k->m); /* ends the view; there is nothing to take back */
	work_free(k);
	return err;
}

int bundle_make_gateway(struct manager *m, const struct bundle_terms *t, const char *file)
{
	uint64_t serial = 0;
	struct work *k;
	int err = start(m, t, 1, &k, &serial);

	if (err)
		return err;
	err = gateway_body(k);
	if (!err)
		err = sign_and_write(k, STATEMENT_GATEWAY, serial, k->gateway.id, file);
	return finish(k, err);
}

int bundle_make_party(struct manager *m, const struct bundle_terms *t, const char *id,
		      const char *file)
{
	uint64_t serial = 0;
	struct party party;
	struct work *k;
	int err = party_load(m, id, PARTY_ANY_ROLE, &party);

	if (!err)
		err = start(m, t, 1, &k, &serial);
	if (err)
		return err;
	err = party_body(k, id);
	if (!err)
		err = sign_and_write(k, STATEMENT_BUNDLE, serial, id, file);
	return finish(k, err);
}

/* --- all of them --------------------------------------------------------------------------- */

static int count_parties(struct manager *m, uint64_t *ret_n)
{
	struct registry_query q = registry_query(&m->registry, "SELECT count(*) FROM party");
	uint64_t n = 0;
	int err;

	if (registry_step(&q))
		n = (uint64_t)registry_int(&q, 0);
	err = registry_end(&q);
	if (!err)
		*ret_n = n;
	return manager_fail_registry(m, err);
}

/* An id may be "..", hence the word in front of it. */
static int file_of(struct work *k, const char *folder, const char *what, const char *id,
		   char out[FILE_PATH_BYTES_MAX])
{
	int n = snprintf(out, FILE_PATH_BYTES_MAX, "%s/%s-%s.bundle", folder, what, id);

	return n > 0 && n < FILE_PATH_BYTES_MAX
		       ? 0
		       : manager_fail_file(k->m, -ENAMETOOLONG, "write", folder);
}

static int all_parties(struct work *k, const char *folder, uint64_t serial)
{
	struct registry_query q =
		registry_query(&k->m->registry, "SELECT id FROM party ORDER BY id");
	char file[FILE_PATH_BYTES_MAX], id[MANAGER_ID_ROOM];
	int err = 0, end;

	while (!err && registry_step(&q)) {
		registry_text(&q, 0, id, sizeof(id));
		err = party_body(k, id);
		if (!err)
			err = file_of(k, folder, "party", id, file);
		if (!err)
			err = sign_and_write(k, STATEMENT_BUNDLE, serial++, id, file);
	}
	end = registry_end(&q);
	return err ? err : manager_fail_registry(k->m, end);
}

int bundle_make_all(struct manager *m, const struct bundle_terms *t, const char *folder)
{
	char file[FILE_PATH_BYTES_MAX];
	uint64_t serial = 0, n = 0;
	struct work *k;
	int err = count_parties(m, &n);

	if (!err && mkdir(folder, 0700) && errno != EEXIST)
		return manager_fail_file(m, -errno, "make", folder);
	if (!err)
		err = start(m, t, n + 1, &k, &serial);
	if (err)
		return err;
	err = gateway_body(k);
	if (!err)
		err = file_of(k, folder, "gateway", k->gateway.id, file);
	if (!err)
		err = sign_and_write(k, STATEMENT_GATEWAY, serial, k->gateway.id, file);
	if (!err)
		err = all_parties(k, folder, serial + 1);
	return finish(k, err);
}

/* --- checking ------------------------------------------------------------------------------ */

static int check_parties(struct work *k)
{
	struct registry_query q = registry_query(&k->m->registry, "SELECT id FROM party");
	char id[MANAGER_ID_ROOM];
	int err = 0, end;

	while (!err && registry_step(&q)) {
		registry_text(&q, 0, id, sizeof(id));
		err = party_body(k, id);
	}
	end = registry_end(&q);
	return err ? err : manager_fail_registry(k->m, end);
}

int bundle_make_check(struct manager *m)
{
	struct registry_query q = registry_query(&m->registry, "SELECT id FROM gateway");
	char id[MANAGER_ID_ROOM];
	struct work *k = NULL;
	int err = work_new(m, &k), end;

	while (!err && registry_step(&q)) {
		registry_text(&q, 0, id, sizeof(id));
		err = gateway_load(m, id, &k->gateway);
		if (!err)
			err = gateway_body(k);
		if (!err)
			err = check_parties(k);
	}
	end = registry_end(&q);
	work_free(k);
	return err ? err : manager_fail_registry(m, end);
}
