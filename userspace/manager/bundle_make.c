// SPDX-License-Identifier: MIT
#include "userspace/manager/bundle_make.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "userspace/base/secret.h"
#include "userspace/bundle/statement.h"
#include "userspace/manager/bundle_make_impl.h"
#include "userspace/manager/sign.h"
#include "userspace/manager/update.h"

#define BODY_ROOM  ((size_t)STATEMENT_BODY_BYTES_MAX)
#define WHOLE_ROOM ((size_t)STATEMENT_BYTES(STATEMENT_BODY_BYTES_MAX))

static void work_free(struct bundle_work *k)
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

static int work_new(struct manager *m, struct bundle_work **ret_k)
{
	struct bundle_work *k = calloc(1, sizeof(*k));

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

/* --- for all kinds of bodies --------------------------------------------------------------- */

void bundle_make_begin(struct bundle_work *k)
{
	secret_wipe(k->body, k->w.used);
	k->w = bytes_writer_of(k->body, BODY_ROOM);
}

int bundle_make_end(struct bundle_work *k, const char *id)
{
	if (!k->w.bad)
		return 0;
	k->w.used = BODY_ROOM; /* so that all of it is wiped */
	return manager_fail(k->m, -EMSGSIZE, "\"%s\": more than fits into one bundle (%zu MiB)", id,
			    BODY_ROOM >> 20);
}

int bundle_make_damaged(struct bundle_work *k)
{
	return manager_fail(k->m, -EIO, "%s: registry: damaged; no bundle is made of it",
			    k->m->config.dir);
}

uint8_t *bundle_make_section(struct bundle_work *k, size_t bytes)
{
	return bytes_write_space(&k->w, bytes);
}

void bundle_make_count(struct bundle_work *k, uint8_t *at, size_t bytes, uint32_t n)
{
	if (!at)
		return; /* the writer is bad already */
	if (bytes == sizeof(uint32_t)) {
		bytes_store_u32(at, n);
	} else {
		k->w.bad |= n > UINT16_MAX;
		bytes_store_u16(at, (uint16_t)n);
	}
}

int bundle_make_read_grant(struct bundle_work *k, struct registry_query *q,
			   struct record_grant *ret_r)
{
	int err = 0;

	grants_read(q, &k->grant);
	if (k->scope.record.key_id != k->grant.key_id)
		err = scope_load_key(k->m, k->grant.key_id, &k->scope);
	if (!err)
		grants_record(&k->grant, &k->scope, k->filter, ret_r);
	return err;
}

/* --- signing ------------------------------------------------------------------------------- */

static int hand_over(struct bundle_work *k, uint64_t serial, size_t n)
{
	k->made->bytes = malloc(n);
	if (!k->made->bytes)
		return manager_fail(k->m, -ENOMEM, "out of memory");
	memcpy(k->made->bytes, k->whole, n);
	k->made->n = n;
	k->made->serial = serial;
	return 0;
}

static int write_file(struct bundle_work *k, uint64_t serial, const char *id, const char *file,
		      size_t n)
{
	int err = file_write(AT_FDCWD, file, bytes_of(k->whole, n), 0600);

	if (err)
		return manager_fail_file(k->m, err, "write", file);
	(void)fprintf(k->m->out, "bundle id=%s serial=%" PRIu64 " bytes=%zu file=%s\n", id, serial,
		      n, file);
	return 0;
}

static int sign_and_write(struct bundle_work *k, enum statement_kind kind, uint64_t serial,
			  const char *id, const char *file)
{
	const struct statement s = { .kind = kind,
				     .serial = serial,
				     .not_after_ms = k->not_after_ms,
				     .body = bytes_of(k->body, k->w.used) };
	size_t n = 0;
	int err = sign_statement(k->m, &s, k->whole, WHOLE_ROOM, &n);

	if (!err)
		err = k->made ? hand_over(k, serial, n) : write_file(k, serial, id, file, n);
	secret_wipe(k->whole, STATEMENT_BYTES(k->w.used));
	return err;
}

/* What a bundle is made for. */
enum subject { FOR_GATEWAY, FOR_PARTY, FOR_DISTRIBUTOR, FOR_ALL };

static int load_gateway(struct bundle_work *k, const char *id, enum subject what)
{
	bool found = false;
	int err;

	if (what == FOR_DISTRIBUTOR)
		return 0; /* its hops say which */
	if (what != FOR_GATEWAY || !id)
		return gateway_load(k->m, id, &k->gateway);
	/* One that was revoked gets a last bundle, with nothing in it. */
	err = manager_check_id(k->m, "gateway", id);
	if (!err)
		err = gateway_find(k->m, id, &k->gateway, &found);
	return err || found ? err : gateway_load(k->m, id, &k->gateway); /* with the words */
}

/* Serials, and what else is written down before a bundle is made. In a transaction. */
static int prepare(struct bundle_work *k, enum subject what, uint64_t n, uint64_t *ret_serial)
{
	int err = 0;

	if (what == FOR_DISTRIBUTOR || what == FOR_ALL)
		err = manager_trace_key(k->m, &k->trace);
	if (!err && (what == FOR_GATEWAY || what == FOR_ALL) && !k->gateway.revoked_ms)
		err = update_sign(k->m, k->gateway.id);
	return err ? err : manager_serials(k->m, n, ret_serial);
}

/* Whoever has a bundle is told what is new since. */
static int note_bundle(struct manager *m, const char *party, uint64_t serial)
{
	struct registry_query q = registry_query(
		&m->registry, "UPDATE party SET bundle_serial = ?1 WHERE ?2 IS NULL OR id = ?2");

	registry_bind_int(&q, (int64_t)serial);
	if (party)
		registry_bind_text(&q, party);
	else
		registry_bind_blob(&q, bytes_of(NULL, 0));
	return manager_fail_registry(m, registry_run(&q));
}

/*
 * Everything up to the first body: n serials on the disk, then a view of the registry that stays
 * the same until finish(). DIR/lock keeps other writers out in between. party: whose bundle it is;
 * NULL for a gateway's, and for all.
 */
static int start(struct manager *m, const struct bundle_terms *t, enum subject what,
		 const char *party, uint64_t n, struct bundle_work **ret_k, uint64_t *ret_serial)
{
	struct bundle_work *k;
	int err = work_new(m, &k);

	if (err)
		return err;
	k->made = t->made;
	if (t->valid_days)
		k->not_after_ms = m->now_ms + t->valid_days * 24ull * 60 * 60 * 1000;
	err = load_gateway(k, t->gateway, what);
	if (!err)
		err = manager_token(m);
	if (!err)
		err = manager_begin(m);
	if (!err)
		err = prepare(k, what, n, ret_serial);
	if (!err && what != FOR_GATEWAY)
		err = note_bundle(m, party, *ret_serial);
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

/* A bundle of the gateway was made: `list gateways` shows its serial. */
static int note_made(struct manager *m, const char *gateway, uint64_t serial)
{
	struct registry_query q;
	int err = manager_begin(m);

	if (err)
		return err;
	q = registry_query(&m->registry, "INSERT INTO online (gateway, made_serial) VALUES (?, ?)"
					 " ON CONFLICT (gateway) DO UPDATE SET"
					 " made_serial = excluded.made_serial");
	registry_bind_text(&q, gateway);
	registry_bind_int(&q, (int64_t)serial);
	err = manager_fail_registry(m, registry_run(&q));
	if (!err)
		err = manager_commit(m);
	if (err)
		manager_rollback(m);
	return err;
}

static int finish(struct bundle_work *k, int err)
{
	manager_rollback(k->m); /* ends the view; there is nothing to take back */
	work_free(k);
	return err;
}

/* The same where the gateway's bundle was made. */
static int finish_gateway(struct bundle_work *k, uint64_t serial, int err)
{
	struct manager *m = k->m;
	char id[MANAGER_ID_ROOM];

	(void)snprintf(id, sizeof(id), "%s", k->gateway.id); /* an id, so it fits */
	err = finish(k, err);
	return err ? err : note_made(m, id, serial);
}

int bundle_make_gateway(struct manager *m, const struct bundle_terms *t, const char *file)
{
	uint64_t serial = 0;
	struct bundle_work *k;
	int err = start(m, t, FOR_GATEWAY, NULL, 1, &k, &serial);

	if (err)
		return err;
	err = bundle_make_gateway_body(k);
	if (!err)
		err = sign_and_write(k, STATEMENT_GATEWAY, serial, k->gateway.id, file);
	return finish_gateway(k, serial, err);
}

int bundle_make_party(struct manager *m, const struct bundle_terms *t, const char *id,
		      const char *file)
{
	uint64_t serial = 0;
	struct party party;
	struct bundle_work *k;
	int err = party_load(m, id, PARTY_ANY_ROLE, &party);

	if (!err)
		err = start(m, t, FOR_PARTY, id, 1, &k, &serial);
	if (err)
		return err;
	err = bundle_make_party_body(k, id);
	if (!err)
		err = sign_and_write(k, STATEMENT_BUNDLE, serial, id, file);
	return finish(k, err);
}

int bundle_make_distributor(struct manager *m, const struct bundle_terms *t, const char *id,
			    const char *file)
{
	uint64_t serial = 0;
	struct party party;
	struct bundle_work *k;
	int err = party_load(m, id, RECORD_ROLE_DISTRIBUTOR, &party);

	if (!err)
		err = start(m, t, FOR_DISTRIBUTOR, id, 1, &k, &serial);
	if (err)
		return err;
	err = bundle_make_distributor_body(k, id);
	if (!err)
		err = sign_and_write(k, STATEMENT_DISTRIBUTOR, serial, id, file);
	return finish(k, err);
}

/* --- all of them --------------------------------------------------------------------------- */

/* Distributors to which a hop leads from the gateway: they get a bundle of their own kind. */
#define IS_FED                                                                        \
	" EXISTS (SELECT 1 FROM grants WHERE receiver = party.id AND from_id IS NULL" \
	"  AND secret IS NOT NULL AND gateway = ?1)"

/* At most so many: the gateway's, each party's, each distributor's. */
static int count_bundles(struct manager *m, uint64_t *ret_n)
{
	struct registry_query q = registry_query(
		&m->registry, "SELECT 1 + count(*) + count(nullif(roles & ?, 0)) FROM party");
	uint64_t n = 0;
	int err;

	registry_bind_int(&q, RECORD_ROLE_DISTRIBUTOR);
	if (registry_step(&q))
		n = (uint64_t)registry_int(&q, 0);
	err = registry_end(&q);
	if (!err)
		*ret_n = n;
	return manager_fail_registry(m, err);
}

/* An id may be "..", hence the word in front of it. */
static int file_of(struct bundle_work *k, const char *folder, const char *what, const char *id,
		   char out[FILE_PATH_BYTES_MAX])
{
	int n = snprintf(out, FILE_PATH_BYTES_MAX, "%s/%s-%s.bundle", folder, what, id);

	return n > 0 && n < FILE_PATH_BYTES_MAX
		       ? 0
		       : manager_fail_file(k->m, -ENAMETOOLONG, "write", folder);
}

static int one_party(struct bundle_work *k, const char *folder, const char *id, uint64_t serial)
{
	char file[FILE_PATH_BYTES_MAX];
	int err = bundle_make_party_body(k, id);

	if (!err)
		err = file_of(k, folder, "party", id, file);
	return err ? err : sign_and_write(k, STATEMENT_BUNDLE, serial, id, file);
}

static int one_distributor(struct bundle_work *k, const char *folder, const char *id,
			   uint64_t serial)
{
	char file[FILE_PATH_BYTES_MAX];
	int err = bundle_make_distributor_body(k, id);

	if (!err)
		err = file_of(k, folder, "distributor", id, file);
	return err ? err : sign_and_write(k, STATEMENT_DISTRIBUTOR, serial, id, file);
}

/* A bundle for a party of each role but a distributor's, and one for a distributor that is fed. */
static int all_parties(struct bundle_work *k, const char *folder, uint64_t serial)
{
	struct registry_query q = registry_query(&k->m->registry, "SELECT id, roles <> ?2," IS_FED
								  " FROM party ORDER BY id");
	char id[MANAGER_ID_ROOM];
	int err = 0, end;

	registry_bind_text(&q, k->gateway.id);
	registry_bind_int(&q, RECORD_ROLE_DISTRIBUTOR);
	while (!err && registry_step(&q)) {
		registry_text(&q, 0, id, sizeof(id));
		if (registry_int(&q, 1))
			err = one_party(k, folder, id, serial++);
		if (!err && registry_int(&q, 2))
			err = one_distributor(k, folder, id, serial++);
	}
	end = registry_end(&q);
	return err ? err : manager_fail_registry(k->m, end);
}

int bundle_make_all(struct manager *m, const struct bundle_terms *t, const char *folder)
{
	char file[FILE_PATH_BYTES_MAX];
	uint64_t serial = 0, n = 0;
	struct bundle_work *k;
	int err = count_bundles(m, &n);

	if (!err && mkdir(folder, 0700) && errno != EEXIST)
		return manager_fail_file(m, -errno, "make", folder);
	if (!err)
		err = start(m, t, FOR_ALL, NULL, n, &k, &serial);
	if (err)
		return err;
	err = bundle_make_gateway_body(k);
	if (!err)
		err = file_of(k, folder, "gateway", k->gateway.id, file);
	if (!err)
		err = sign_and_write(k, STATEMENT_GATEWAY, serial, k->gateway.id, file);
	if (!err)
		err = all_parties(k, folder, serial + 1);
	return finish_gateway(k, serial, err);
}

/* --- checking ------------------------------------------------------------------------------ */

static int check_parties(struct bundle_work *k)
{
	struct registry_query q =
		registry_query(&k->m->registry, "SELECT id," IS_FED " FROM party");
	char id[MANAGER_ID_ROOM];
	int err = 0, end;

	registry_bind_text(&q, k->gateway.id);
	while (!err && registry_step(&q)) {
		registry_text(&q, 0, id, sizeof(id));
		err = bundle_make_party_body(k, id);
		if (!err && registry_int(&q, 1))
			err = bundle_make_distributor_body(k, id);
	}
	end = registry_end(&q);
	return err ? err : manager_fail_registry(k->m, end);
}

int bundle_make_check(struct manager *m)
{
	struct registry_query q =
		registry_query(&m->registry, "SELECT id FROM gateway WHERE revoked_ms = 0");
	char id[MANAGER_ID_ROOM];
	struct bundle_work *k = NULL;
	int err = work_new(m, &k), end;

	if (!err)
		k->trace = m->key; /* any point will do: it is not written out */
	while (!err && registry_step(&q)) {
		registry_text(&q, 0, id, sizeof(id));
		err = gateway_load(m, id, &k->gateway);
		if (!err)
			err = bundle_make_gateway_body(k);
		if (!err)
			err = check_parties(k);
	}
	end = registry_end(&q);
	work_free(k);
	return err ? err : manager_fail_registry(m, end);
}
