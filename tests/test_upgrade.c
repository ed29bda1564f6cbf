// SPDX-License-Identifier: MIT
/*
 * A registry of version 1, made by the SQL of then, becomes one of version 2: whole, or not at all.
 */
#include <signal.h>
#include <time.h>

#include "tests/manager_world.h"
#include "userspace/manager/hop.h"

/* As it was, to the letter. */
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

/* What version 1 had, out of a registry of today. */
static const char copy_sql[] =
	"INSERT INTO setting SELECT name, value FROM now.setting WHERE name <> 'trace_key';"
	"INSERT INTO gateway SELECT id, broker, unwrap, enrolled_ms FROM now.gateway;"
	"INSERT INTO party SELECT id, roles, signing, encryption, admission_flags, k_adm,"
	"  enrolled_ms FROM now.party;"
	"INSERT INTO scope SELECT name, suite, valid_days, rekey_messages, rekey_seconds"
	"  FROM now.scope;"
	"INSERT INTO filter SELECT filter, scope FROM now.filter;"
	"INSERT INTO epoch SELECT key_id, scope, epoch, a, sealed, not_before_ms, not_after_ms"
	"  FROM now.epoch;"
	"INSERT INTO permission SELECT party, scope FROM now.permission;"
	"INSERT INTO grants SELECT id, gateway, receiver, key_id, flags, valid_days, x, wrapped,"
	"  not_before_ms, not_after_ms FROM now.grants;"
	"INSERT INTO revoked SELECT gateway, key_id, at_ms FROM now.revoked;"
	"INSERT INTO history SELECT n, at_ms, action, subject, detail FROM now.history;";

static void run_sql(sqlite3 *db, const char *sql)
{
	char *words = NULL;

	if (sqlite3_exec(db, sql, NULL, NULL, &words) != SQLITE_OK)
		harness_fail(__FILE__, __LINE__, true, "%s", words);
}

/* state/registry.db as version 1 would have it. */
static void make_version_1(void)
{
	const char *old = in_base("v1.db"), *now = in_base("state/registry.db");
	sqlite3 *db;
	char attach[512];

	ASSERT_EQ(sqlite3_open(old, &db), SQLITE_OK);
	run_sql(db, "PRAGMA journal_mode = WAL; BEGIN;");
	run_sql(db, schema_1_sql);
	run_sql(db, "PRAGMA application_id = 1397969997; PRAGMA user_version = 1; COMMIT;");
	snprintf(attach, sizeof(attach), "ATTACH '%s' AS now", now);
	run_sql(db, attach);
	run_sql(db, copy_sql);
	ASSERT_EQ(sqlite3_close(db), SQLITE_OK);
	(void)unlink(in_base("state/registry.db-wal"));
	(void)unlink(in_base("state/registry.db-shm"));
	ASSERT_EQ(rename(old, now), 0);
}

/* A path that stays where in_base()'s are overwritten in turn. */
static const char *kept(unsigned i, const char *name)
{
	static char paths[2][256];

	snprintf(paths[i], sizeof(paths[0]), "%s", in_base(name));
	return paths[i];
}

static int64_t ask(const char *path, const char *sql)
{
	sqlite3 *db;
	sqlite3_stmt *q;
	int64_t v;

	ASSERT_EQ(sqlite3_open(path, &db), SQLITE_OK);
	ASSERT_EQ(sqlite3_prepare_v2(db, sql, -1, &q, NULL), SQLITE_OK);
	ASSERT_EQ(sqlite3_step(q), SQLITE_ROW);
	v = sqlite3_column_int64(q, 0);
	ASSERT_EQ(sqlite3_finalize(q), SQLITE_OK);
	ASSERT_EQ(sqlite3_close(db), SQLITE_OK);
	return v;
}

TEST_F(token, everything_is_kept_and_works_on)
{
	static uint8_t before[8192], after[8192];
	const char *path = kept(0, "state/registry.db");
	struct statement s;
	size_t n;

	make_world(self);
	COMMAND(self, T0, 0, revoke_grant(&self->m, "hall", "r-2", NULL));
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &no_terms, in_base("g")));
	s = open_bundle(self, "g", STATEMENT_GATEWAY);
	n = s.body.n;
	memcpy(before, s.body.p, n);
	make_version_1();
	ASSERT_EQ(ask(path, "PRAGMA user_version"), 1);

	/* A command that only reads upgrades it, too; the same registry gives the same bundle. */
	ASSERT_EQ(manager_open(&self->m, &self->config, MANAGER_READS, T0), 0);
	ASSERT_EQ(manager_begin(&self->m), 0);
	done(self, list_check(&self->m), 0);
	ASSERT_EQ(ask(path, "PRAGMA user_version"), 2);
	EXPECT_EQ(ask(path, "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'grants_1%'"), 0);
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &no_terms, in_base("g")));
	s = open_bundle(self, "g", STATEMENT_GATEWAY);
	ASSERT_EQ(s.body.n, n);
	memcpy(after, s.body.p, n);
	ASSERT_BYTES(before, after, n);

	/* What stood is told again, what was revoked may be granted anew, and hops are made. */
	COMMAND(self, T0, 0, grant(self, "hall", "r-1", true));
	ASSERT_TRUE(!strncmp(said, "unchanged", 9));
	COMMAND(self, T0, 0, grant(self, "hall", "r-2", true));
	ASSERT_TRUE(!strncmp(said, "granted", 7));
	make_key(NULL, "d");
	append("d", "rsa");
	COMMAND(self, T0, 0, enrol_with(self, "dist", RECORD_ROLE_DISTRIBUTOR, "d", NULL));
	const struct hop_terms t = { .scope = "hall", .distributor = "dist", .proof = true };
	COMMAND(self, T0, 0, hop_add(&self->m, &t));
	COMMAND(self, T0, 0, list_check(&self->m));
	/* The tracing key is made for a token that had none, once. */
	BUNDLE(self, T0, 0,
	       bundle_make_distributor(&self->m, &no_terms, "dist", in_base("dist.bundle")));
	EXPECT_EQ(ask(path, "SELECT count(*) FROM setting WHERE name = 'trace_key'"), 1);
}

/* A distributor of version 1 had a signing key only. */
TEST_F(token, an_old_distributor_brings_its_unwrapping_key)
{
	struct party p = { .id = "dist", .roles = RECORD_ROLE_DISTRIBUTOR };
	const struct hop_terms t = { .scope = "hall", .distributor = "dist" };

	make_world(self);
	p.signing = make_key(NULL, "d");
	COMMAND(self, T0, 0, party_store(&self->m, &p));
	append("d", "rsa");
	COMMAND(self, T0, 0, hop_add(&self->m, &t)); /* what the gateway converts by */
	BUNDLE(self, T0, -EINVAL,
	       bundle_make_distributor(&self->m, &no_terms, "dist", in_base("b")));
	COMMAND(self, T0, 0, enrol_with(self, "dist", RECORD_ROLE_DISTRIBUTOR, "d", NULL));
	ASSERT_STREQ(said, "enrolled id=dist roles=distributor\n");
	COMMAND(self, T0, 0, enrol_with(self, "dist", RECORD_ROLE_DISTRIBUTOR, "d", NULL));
	ASSERT_STREQ(said, "unchanged id=dist roles=distributor\n");
	BUNDLE(self, T0, 0, bundle_make_distributor(&self->m, &no_terms, "dist", in_base("b")));
}

static uint64_t clock_ns(void)
{
	struct timespec t;

	ASSERT_EQ(clock_gettime(CLOCK_MONOTONIC, &t), 0);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The upgrade in a process that is killed after so long, or not where that is 0; returns how long
 * it had. */
static uint64_t upgrade_and_kill(const char *path, uint64_t after_ns)
{
	const struct timespec pause = { .tv_sec = (time_t)(after_ns / 1000000000),
					.tv_nsec = (long)(after_ns % 1000000000) };
	uint64_t start = clock_ns();
	struct registry r;
	pid_t pid = fork();

	if (!pid)
		_exit(registry_open(&r, path) ? 1 : 0);
	ASSERT_GT(pid, 0);
	if (after_ns) {
		(void)nanosleep(&pause, NULL);
		(void)kill(pid, SIGKILL); /* it may have ended */
	}
	ASSERT_EQ(waitpid(pid, NULL, 0), pid);
	return clock_ns() - start;
}

/* Killed at any point the file is of the one version or of the other, and the next one opens it. */
TEST_F_TIMEOUT(token, killed_in_the_midst, 60)
{
	const char *path = kept(0, "state/registry.db"), *copy = kept(1, "k.db");
	char cp[] = "cp", from[256], to[256];
	char *argv[] = { cp, from, to, NULL };
	unsigned n = harness_rounds(24), of_version[3] = { 0 };
	uint64_t usual = 0;
	struct registry r;

	make_world(self);
	make_version_1();
	snprintf(from, sizeof(from), "%s", path);
	snprintf(to, sizeof(to), "%s", copy);
	for (unsigned i = 0; i < n; i++) {
		int64_t version;

		(void)unlink(in_base("k.db-wal"));
		(void)unlink(in_base("k.db-shm"));
		run_program(argv);
		if (i == 0)
			usual = upgrade_and_kill(copy, 0);
		else
			(void)upgrade_and_kill(copy, 1 + harness_random() % (usual * 5 / 4));
		version = ask(copy, "PRAGMA user_version");
		ASSERT_TRUE(version == 1 || version == 2);
		of_version[version]++;
		EXPECT_EQ(ask(copy, "SELECT count(*) FROM pragma_table_info('grants')"
				    " WHERE name = 'next'"),
			  version == 2);
		ASSERT_EQ(ask(copy, "SELECT count(*) FROM grants"), 2);
		ASSERT_EQ(registry_open(&r, copy), 0);
		ASSERT_EQ(registry_check(&r), 0);
		registry_close(&r);
		ASSERT_EQ(ask(copy, "PRAGMA user_version"), 2);
	}
	harness_note("killed: %u before the upgrade was there, %u after", of_version[1],
		     of_version[2]);
}

int main(int argc, char **argv)
{
	return world_main(argc, argv);
}
