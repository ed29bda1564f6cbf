// SPDX-License-Identifier: MIT
#include "userspace/manager/registry.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define BUSY_WAIT_MS   5000
#define APPLICATION_ID "1397969997" /* "SSTM": what file(1) and we know the file by */

/* Settings of every connection. secure_delete: a revoked party's admission key leaves no copy. */
static const char connection_sql[] = "PRAGMA journal_mode = WAL;"
				     "PRAGMA synchronous = FULL;"
				     "PRAGMA foreign_keys = ON;"
				     "PRAGMA secure_delete = ON;"
				     "PRAGMA trusted_schema = OFF;";

/* Version 1: one epoch a scope, one grant a receiver, and no distributors. */
static const char schema_1_sql[] =
	"CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE gateway ("
	"  id TEXT PRIMARY KEY,"
	"  broker BLOB NOT NULL UNIQUE CHECK (length(broker) = 65),"
	"  unwrap BLOB NOT NULL," /* SubjectPublicKeyInfo of the token's RSA key */
	"  enrolled_ms INTEGER NOT NULL"
	") STRICT, WITHOUT ROWID;"
	"CREATE TABLE party ("
	"  id TEXT PRIMARY KEY,"
	"  roles INTEGER NOT NULL CHECK (roles BETWEEN 1 AND 15),"
	"  signing BLOB NOT NULL UNIQUE CHECK (length(signing) = 65),"
	"  encryption BLOB UNIQUE CHECK (length(encryption) = 65),"
	"  admission_flags INTEGER NOT NULL,"
	"  k_adm BLOB NOT NULL CHECK (length(k_adm) = 16),"
	"  enrolled_ms INTEGER NOT NULL"
	") STRICT, WITHOUT ROWID;"
	"CREATE TABLE scope ("
	"  name TEXT PRIMARY KEY,"
	"  suite INTEGER NOT NULL CHECK (suite IN (1, 2)),"
	"  valid_days INTEGER NOT NULL,"
	"  rekey_messages INTEGER NOT NULL CHECK (rekey_messages BETWEEN 1 AND 65536),"
	"  rekey_seconds INTEGER NOT NULL CHECK (rekey_seconds BETWEEN 1 AND 3600)"
	") STRICT, WITHOUT ROWID;"
	/* A filter belongs to one scope; that filters of several scopes match one topic is fine. */
	"CREATE TABLE filter ("
	"  filter TEXT PRIMARY KEY,"
	"  scope TEXT NOT NULL REFERENCES scope"
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX filter_scope ON filter (scope);"
	/* Rows are never deleted, so that no key id is ever given out twice (PROTOCOL 1). */
	"CREATE TABLE epoch ("
	"  key_id INTEGER PRIMARY KEY CHECK (key_id BETWEEN 1 AND 4294967295),"
	"  scope TEXT NOT NULL REFERENCES scope,"
	"  epoch INTEGER NOT NULL,"
	"  a BLOB NOT NULL CHECK (length(a) = 65),"
	"  sealed BLOB NOT NULL CHECK (length(sealed) = 60),"
	"  not_before_ms INTEGER NOT NULL,"
	"  not_after_ms INTEGER NOT NULL,"
	"  UNIQUE (scope, epoch)"
	") STRICT;"
	"CREATE TABLE permission ("
	"  party TEXT NOT NULL REFERENCES party,"
	"  scope TEXT NOT NULL REFERENCES scope,"
	"  PRIMARY KEY (party, scope)"
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX permission_scope ON permission (scope);"
	"CREATE TABLE grants ("
	"  id BLOB PRIMARY KEY CHECK (length(id) = 8),"
	"  gateway TEXT NOT NULL REFERENCES gateway,"
	"  receiver TEXT NOT NULL REFERENCES party,"
	"  key_id INTEGER NOT NULL REFERENCES epoch,"
	"  flags INTEGER NOT NULL,"
	"  valid_days INTEGER NOT NULL,"
	"  x BLOB NOT NULL CHECK (length(x) = 65),"
	"  wrapped BLOB NOT NULL,"
	"  not_before_ms INTEGER NOT NULL,"
	"  not_after_ms INTEGER NOT NULL,"
	"  UNIQUE (gateway, receiver, key_id)"
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX grants_receiver ON grants (receiver);"
	/* The last revocation under each key id, kept for good: a gateway that was away for a month
	 * still learns of it. No reference to gateway: its id may be enrolled again. */
	"CREATE TABLE revoked ("
	"  gateway TEXT NOT NULL,"
	"  key_id INTEGER NOT NULL REFERENCES epoch,"
	"  at_ms INTEGER NOT NULL,"
	"  PRIMARY KEY (gateway, key_id)"
	") STRICT, WITHOUT ROWID;"
	"CREATE TABLE history ("
	"  n INTEGER PRIMARY KEY,"
	"  at_ms INTEGER NOT NULL,"
	"  action TEXT NOT NULL,"
	"  subject TEXT NOT NULL,"
	"  detail TEXT NOT NULL"
	") STRICT;"
	"CREATE INDEX history_subject ON history (subject, action);";

/*
 * Version 2: distribution, rotation, and statements that travel.
 *
 *   grants.from_id   the grant whose output this one converts; NULL: level 0
 *   grants.upstream  the distributor that converts by it; NULL: the gateway does
 *   grants.b         the receiver's key it was made for: the party may have a new one since
 *   grants.secret    of a hop: what it ends in, sealed by the token
 *   grants.next      the grant that was made in its place; it runs out by itself
 *   epoch.kept_until_ms  a later epoch has taken its place, and after that nothing is converted
 *                    under it any more; 0: it is the scope's last
 */
static const char schema_2_sql[] =
	"ALTER TABLE gateway ADD COLUMN bundle_key BLOB CHECK (length(bundle_key) = 65);"
	"ALTER TABLE gateway ADD COLUMN next_broker BLOB CHECK (length(next_broker) = 65);"
	"ALTER TABLE gateway ADD COLUMN next_from_ms INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE gateway ADD COLUMN revoked_ms INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE party ADD COLUMN flags INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE party ADD COLUMN previous BLOB CHECK (length(previous) = 65);"
	"CREATE INDEX party_previous ON party (previous) WHERE previous IS NOT NULL;"
	"ALTER TABLE party ADD COLUMN previous_until_ms INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE party ADD COLUMN previous_k_adm BLOB CHECK (length(previous_k_adm) = 16);"
	"ALTER TABLE party ADD COLUMN k_adm_until_ms INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE party ADD COLUMN unwrap BLOB;" /* a distributor's token's, as a gateway's */
	/* Of the last bundle that was made for it; 0: what it is to learn is in its first one. */
	"ALTER TABLE party ADD COLUMN bundle_serial INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE scope ADD COLUMN flags INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE epoch ADD COLUMN kept_until_ms INTEGER NOT NULL DEFAULT 0;"
	"CREATE TABLE outlet ("
	"  name TEXT PRIMARY KEY,"
	"  scope TEXT NOT NULL REFERENCES scope,"
	"  distributor TEXT NOT NULL REFERENCES party,"
	"  gateway TEXT NOT NULL REFERENCES gateway," /* where it is published */
	"  prefix TEXT NOT NULL UNIQUE,"
	"  domain TEXT NOT NULL,"
	"  rotate_seconds INTEGER NOT NULL,"
	"  receiver TEXT REFERENCES party" /* the only one; NULL: who is granted it */
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX outlet_scope ON outlet (scope);"
	"ALTER TABLE grants RENAME TO grants_1;"
	"CREATE TABLE grants ("
	"  id BLOB PRIMARY KEY CHECK (length(id) = 8),"
	"  gateway TEXT NOT NULL REFERENCES gateway,"
	"  receiver TEXT NOT NULL REFERENCES party,"
	"  key_id INTEGER NOT NULL REFERENCES epoch,"
	"  from_id BLOB REFERENCES grants,"
	"  upstream TEXT REFERENCES party,"
	"  outlet TEXT REFERENCES outlet,"
	"  flags INTEGER NOT NULL,"
	"  valid_days INTEGER NOT NULL,"
	"  b BLOB CHECK (length(b) = 65),"
	"  x BLOB CHECK (length(x) = 65),"
	"  secret BLOB CHECK (length(secret) = 60),"
	"  wrapped BLOB NOT NULL,"
	"  not_before_ms INTEGER NOT NULL,"
	"  not_after_ms INTEGER NOT NULL,"
	"  next BLOB CHECK (length(next) = 8),"
	"  CHECK ((b IS NULL) = (secret IS NOT NULL) AND (x IS NULL) = (b IS NULL)),"
	"  CHECK (upstream IS NULL OR from_id IS NOT NULL)"
	") STRICT, WITHOUT ROWID;"
	"INSERT INTO grants (id, gateway, receiver, key_id, flags, valid_days, b, x, wrapped,"
	"  not_before_ms, not_after_ms)"
	"  SELECT g.id, gateway, receiver, key_id, g.flags, valid_days, encryption, x, wrapped,"
	"  not_before_ms, not_after_ms FROM grants_1 g JOIN party ON party.id = receiver;"
	"DROP TABLE grants_1;"
	"CREATE UNIQUE INDEX grants_standing"
	"  ON grants (gateway, receiver, key_id, coalesce(outlet, '')) WHERE next IS NULL;"
	"CREATE INDEX grants_receiver ON grants (receiver);"
	"CREATE INDEX grants_key_id ON grants (key_id);"
	"CREATE INDEX grants_from ON grants (from_id);"
	"CREATE INDEX grants_outlet ON grants (outlet);"
	/* What parties learn online (PROTOCOL 13): signed when a bundle is made, then kept as it
	 * is. subject is a scope's name, a grant's id in hex, a party's id, or the gateway's. */
	"CREATE TABLE statement ("
	"  kind INTEGER NOT NULL CHECK (kind IN (1, 2, 3, 6)),"
	"  subject TEXT NOT NULL,"
	"  gateway TEXT NOT NULL," /* '': it is in the bundles of all */
	"  at_ms INTEGER NOT NULL,"
	"  body BLOB," /* where it cannot be made of the other tables any more */
	"  serial INTEGER UNIQUE,"
	"  whole BLOB,"
	"  PRIMARY KEY (kind, subject),"
	"  CHECK ((serial IS NULL) = (whole IS NULL))"
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX statement_unsigned ON statement (kind, subject) WHERE whole IS NULL;"
	/* Parties that were given a claim code (PROTOCOL 15). While it waits, the party's signing
	 * key is that of the code; with its claim it gets the one that it made. gateway is where
	 * the code sends it: no reference, for that one may be revoked meanwhile. */
	"CREATE TABLE claim ("
	"  party TEXT PRIMARY KEY REFERENCES party ON DELETE CASCADE,"
	"  gateway TEXT NOT NULL,"
	"  state TEXT NOT NULL CHECK (state IN ('waiting', 'claimed')),"
	"  signing BLOB CHECK (length(signing) = 65)," /* what it claimed with */
	"  made_ms INTEGER NOT NULL,"		       /* the code */
	"  claimed_ms INTEGER NOT NULL DEFAULT 0,"
	"  CHECK ((state = 'claimed') = (signing IS NOT NULL))"
	") STRICT, WITHOUT ROWID;"
	/* What `push` and `serve` write down. */
	"CREATE TABLE online ("
	"  gateway TEXT PRIMARY KEY REFERENCES gateway ON DELETE CASCADE,"
	"  made_serial INTEGER NOT NULL DEFAULT 0,"    /* of the last bundle made for it */
	"  applied_serial INTEGER NOT NULL DEFAULT 0," /* and of that which it said it applied */
	"  applied_ms INTEGER NOT NULL DEFAULT 0"
	") STRICT, WITHOUT ROWID;"
	/* A bundle of a higher serial has the key that was claimed. */
	"ALTER TABLE claim ADD COLUMN after_serial INTEGER NOT NULL DEFAULT 0;"
	/* evidence: what the reporter signed, but for its id. No reference to a party: reports
	 * outlive it. */
	"CREATE TABLE report ("
	"  n INTEGER PRIMARY KEY AUTOINCREMENT,"
	"  at_ms INTEGER NOT NULL,"
	"  gateway TEXT NOT NULL,"
	"  reporter TEXT NOT NULL,"
	"  nack INTEGER NOT NULL CHECK (nack IN (0, 1)),"
	"  reason INTEGER NOT NULL,"
	"  about TEXT NOT NULL,"
	"  counter INTEGER NOT NULL,"
	"  text BLOB NOT NULL,"
	"  proven INTEGER NOT NULL CHECK (proven IN (0, 1)),"
	"  evidence BLOB NOT NULL,"
	"  digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32)"
	") STRICT;";

/* What leads from each version to the next, from an empty file on. */
static const struct {
	const char *sql, *version;
} steps[] = {
	{ schema_1_sql, "PRAGMA application_id = " APPLICATION_ID "; PRAGMA user_version = 1;" },
	{ schema_2_sql, "PRAGMA user_version = 2;" },
};

#define SCHEMA_VERSION ((int64_t)ARRAY_SIZE(steps))

static int error_of(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return 0;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_PERM:
	case SQLITE_AUTH:
	case SQLITE_READONLY:
	case SQLITE_CANTOPEN:
		return -EACCES;
	case SQLITE_CONSTRAINT:
		return -EEXIST;
	default:
		return -EIO;
	}
}

static int fail(struct registry *r, int rc)
{
	const char *words = r->db ? sqlite3_errmsg(r->db) : sqlite3_errstr(rc);

	if ((rc & 0xff) == SQLITE_BUSY)
		words = "another program holds it";
	(void)snprintf(r->error, sizeof(r->error), "registry: %s", words);
	return error_of(rc);
}

static int exec(struct registry *r, const char *sql)
{
	int rc = sqlite3_exec(r->db, sql, NULL, NULL, NULL);

	return rc == SQLITE_OK ? 0 : fail(r, rc);
}

static int read_version(struct registry *r, int64_t *ret_version)
{
	struct registry_query q = registry_query(r, "PRAGMA user_version");
	int64_t version = 0;
	int err;

	if (registry_step(&q))
		version = registry_int(&q, 0);
	err = registry_end(&q);
	if (!err)
		*ret_version = version;
	return err;
}

static int connect_file(struct registry *r, const char *path, int64_t *ret_version)
{
	int rc = sqlite3_open_v2(path, &r->db,
				 SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
					 SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE,
				 NULL);
	int err;

	if (rc != SQLITE_OK)
		return fail(r, rc);
	(void)sqlite3_busy_timeout(r->db, BUSY_WAIT_MS); /* cannot fail on an open database */
	err = exec(r, connection_sql);
	return err ? err : read_version(r, ret_version);
}

/* All steps in one transaction, the version with them: it is the old file or the new one. */
static int upgrade(struct registry *r)
{
	int64_t version = 0;
	int err = registry_begin(r);

	if (err)
		return err;
	err = read_version(r, &version); /* another one may have been faster */
	for (; !err && version < SCHEMA_VERSION; version++) {
		err = exec(r, steps[version].sql);
		if (!err)
			err = exec(r, steps[version].version);
	}
	if (!err)
		err = registry_commit(r);
	if (err)
		registry_rollback(r);
	return err;
}

static int open_file(struct registry *r, const char *path, bool create)
{
	int64_t version = 0;
	int err;

	*r = (struct registry){ 0 };
	err = connect_file(r, path, &version);
	if (!err && version == 0 && !create)
		err = -ENODATA;
	else if (!err && version > SCHEMA_VERSION) {
		(void)snprintf(r->error, sizeof(r->error),
			       "registry: version %lld, this program knows %lld",
			       (long long)version, (long long)SCHEMA_VERSION);
		err = -EIO;
	} else if (!err && version < SCHEMA_VERSION) {
		err = upgrade(r);
	}
	if (err)
		registry_close(r);
	return err;
}

int registry_open(struct registry *r, const char *path)
{
	struct stat st;

	*r = (struct registry){ 0 };
	if (stat(path, &st) && errno == ENOENT)
		return -ENODATA;
	return open_file(r, path, false);
}

int registry_create(struct registry *r, const char *path)
{
	return open_file(r, path, true);
}

void registry_close(struct registry *r)
{
	/* Every query is ended by then, so that nothing keeps the file open. */
	BUG_ON(sqlite3_close(r->db) != SQLITE_OK);
	r->db = NULL;
}

int registry_begin(struct registry *r)
{
	return exec(r, "BEGIN IMMEDIATE");
}

int registry_begin_read(struct registry *r)
{
	return exec(r, "BEGIN");
}

int registry_commit(struct registry *r)
{
	return exec(r, "COMMIT");
}

void registry_rollback(struct registry *r)
{
	if (r->db && !sqlite3_get_autocommit(r->db))
		(void)sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL); /* closing would do it */
}

struct registry_query registry_query(struct registry *r, const char *sql)
{
	struct registry_query q = { .r = r };

	q.rc = sqlite3_prepare_v2(r->db, sql, -1, &q.stmt, NULL);
	return q;
}

static bool is_good(const struct registry_query *q)
{
	return q->rc == SQLITE_OK || q->rc == SQLITE_ROW || q->rc == SQLITE_DONE;
}

void registry_bind_int(struct registry_query *q, int64_t v)
{
	if (is_good(q))
		q->rc = sqlite3_bind_int64(q->stmt, ++q->bound, v);
}

void registry_bind_text(struct registry_query *q, const char *v)
{
	if (is_good(q))
		q->rc = sqlite3_bind_text(q->stmt, ++q->bound, v, -1, SQLITE_TRANSIENT);
}

void registry_bind_blob(struct registry_query *q, struct bytes v)
{
	if (is_good(q))
		q->rc = sqlite3_bind_blob64(q->stmt, ++q->bound, v.p, v.n, SQLITE_TRANSIENT);
}

bool registry_step(struct registry_query *q)
{
	if (is_good(q))
		q->rc = sqlite3_step(q->stmt);
	return q->rc == SQLITE_ROW;
}

bool registry_has_row(const struct registry_query *q)
{
	return q->rc == SQLITE_ROW;
}

void registry_again(struct registry_query *q)
{
	if (!is_good(q))
		return;
	q->rc = sqlite3_reset(q->stmt);
	(void)sqlite3_clear_bindings(q->stmt); /* always SQLITE_OK */
	q->bound = 0;
}

int64_t registry_int(struct registry_query *q, int column)
{
	return q->rc == SQLITE_ROW ? sqlite3_column_int64(q->stmt, column) : 0;
}

struct bytes registry_blob(struct registry_query *q, int column)
{
	const void *p;

	if (q->rc != SQLITE_ROW)
		return bytes_of(NULL, 0);
	p = sqlite3_column_blob(q->stmt, column);
	return p ? bytes_of(p, (size_t)sqlite3_column_bytes(q->stmt, column)) : bytes_of(NULL, 0);
}

bool registry_is_null(struct registry_query *q, int column)
{
	return q->rc != SQLITE_ROW || sqlite3_column_type(q->stmt, column) == SQLITE_NULL;
}

void registry_copy(struct registry_query *q, int column, void *out, size_t n)
{
	struct bytes v = registry_blob(q, column);

	if (q->rc != SQLITE_ROW)
		return;
	if (v.n != n)
		q->rc = SQLITE_CORRUPT;
	else if (n) /* an empty view may be at NULL, which memcpy() does not take */
		memcpy(out, v.p, n);
}

void registry_text(struct registry_query *q, int column, char *out, size_t room)
{
	struct bytes v = registry_blob(q, column);

	out[0] = '\0';
	if (q->rc != SQLITE_ROW)
		return;
	if (v.n < room && !(v.n && memchr(v.p, '\0', v.n))) {
		if (v.n)
			memcpy(out, v.p, v.n);
		out[v.n] = '\0';
	} else {
		q->rc = SQLITE_CORRUPT;
	}
}

int registry_end(struct registry_query *q)
{
	int err = 0;

	if (q->rc == SQLITE_CORRUPT)
		(void)snprintf(q->r->error, sizeof(q->r->error), "registry: damaged");
	if (!is_good(q))
		err = q->rc == SQLITE_CORRUPT ? -EIO : fail(q->r, q->rc);
	(void)sqlite3_finalize(q->stmt); /* says again what step said */
	q->stmt = NULL;
	return err;
}

int registry_run(struct registry_query *q)
{
	while (registry_step(q))
		;
	return registry_end(q);
}

int64_t registry_changes(struct registry *r)
{
	return sqlite3_changes64(r->db);
}

int registry_setting(struct registry *r, const char *name, char *out, size_t room)
{
	struct registry_query q = registry_query(r, "SELECT value FROM setting WHERE name = ?");
	bool found;
	int err;

	registry_bind_text(&q, name);
	found = registry_step(&q);
	if (found)
		registry_text(&q, 0, out, room);
	err = registry_end(&q);
	return err ? err : found ? 0 : -ENOENT;
}

int registry_set(struct registry *r, const char *name, const char *value)
{
	struct registry_query q =
		registry_query(r, "INSERT INTO setting VALUES (?, ?)"
				  " ON CONFLICT (name) DO UPDATE SET value = excluded.value");

	registry_bind_text(&q, name);
	registry_bind_text(&q, value);
	return registry_run(&q);
}

int registry_check(struct registry *r)
{
	struct registry_query q = registry_query(r, "PRAGMA integrity_check(1)");
	char words[160] = "";
	bool broken;
	int err;

	if (registry_step(&q))
		registry_text(&q, 0, words, sizeof(words));
	err = registry_end(&q);
	if (err)
		return err;
	if (strcmp(words, "ok")) {
		(void)snprintf(r->error, sizeof(r->error), "registry: %s", words);
		return -EIO;
	}
	q = registry_query(r, "PRAGMA foreign_key_check");
	broken = registry_step(&q);
	if (broken)
		registry_text(&q, 0, words, sizeof(words));
	err = registry_end(&q);
	if (err || !broken)
		return err;
	(void)snprintf(r->error, sizeof(r->error), "registry: %s refers to what is not there",
		       words);
	return -EIO;
}
