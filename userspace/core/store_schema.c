// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdio.h>

#include "userspace/core/store_impl.h"

#define APPLICATION_ID 0x53534454 /* "SSDT" */

static const char schema_sql[] =
	"CREATE TABLE replay (id TEXT PRIMARY KEY, highest INTEGER NOT NULL,"
	" below0 INTEGER NOT NULL, below1 INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE context (key_id INTEGER NOT NULL, enc_hash INTEGER NOT NULL,"
	" seen_ms INTEGER NOT NULL, PRIMARY KEY (key_id, enc_hash)) STRICT, WITHOUT ROWID;"
	"CREATE INDEX context_seen ON context (seen_ms);"
	"CREATE TABLE revoked (key_id INTEGER PRIMARY KEY, revoked_at_ms INTEGER NOT NULL,"
	" retire_before_ms INTEGER NOT NULL) STRICT;"
	"CREATE TABLE gateway (one INTEGER PRIMARY KEY CHECK (one = 1),"
	" bundle_serial INTEGER NOT NULL) STRICT;";

/* What each version added to the one before it, from version 2 on. */
static const char *const upgrade_sql[] = {
	/* 2: windows that may be forgotten, by the time of their last use */
	"ALTER TABLE replay ADD COLUMN seen_ms INTEGER NOT NULL DEFAULT 0;"
	"CREATE INDEX replay_seen ON replay (seen_ms) WHERE seen_ms > 0;",
	/* 3: sessions, their queues, and what is retained. No table has an index besides its key:
	 * the broker knows when the last row that names a message goes. */
	"CREATE TABLE session (number INTEGER PRIMARY KEY, id TEXT NOT NULL,"
	" packet_id INTEGER NOT NULL) STRICT;"
	"CREATE TABLE subscription (session INTEGER NOT NULL, number INTEGER NOT NULL,"
	" qos INTEGER NOT NULL, filter BLOB NOT NULL,"
	" PRIMARY KEY (session, number)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE message (number INTEGER PRIMARY KEY, sealed INTEGER NOT NULL,"
	" qos INTEGER NOT NULL, retain INTEGER NOT NULL, topic BLOB NOT NULL,"
	" payload BLOB NOT NULL, sender BLOB NOT NULL) STRICT;"
	"CREATE TABLE delivery (session INTEGER NOT NULL, seq INTEGER NOT NULL,"
	" message INTEGER NOT NULL, qos INTEGER NOT NULL, retain INTEGER NOT NULL,"
	" packet_id INTEGER NOT NULL, PRIMARY KEY (session, seq)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE release (session INTEGER NOT NULL, place INTEGER NOT NULL,"
	" packet_id INTEGER NOT NULL, PRIMARY KEY (session, place)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE incoming (session INTEGER NOT NULL, packet_id INTEGER NOT NULL,"
	" PRIMARY KEY (session, packet_id)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE retained (message INTEGER PRIMARY KEY) STRICT;",
};
_Static_assert(ARRAY_SIZE(upgrade_sql) == STORE_SCHEMA_VERSION - 1, "each version has its step");

#define TEXT_OF_NUMBER(n) #n
#define TEXT_OF(n)	  TEXT_OF_NUMBER(n)

/* From this version on. */
static bool upgrade_from(struct store *s, int64_t version)
{
	for (; version < STORE_SCHEMA_VERSION; version++)
		if (sqlite3_exec(s->db, upgrade_sql[version - 1], NULL, NULL, NULL) != SQLITE_OK)
			return false;
	return sqlite3_exec(s->db, "PRAGMA user_version = " TEXT_OF(STORE_SCHEMA_VERSION), NULL,
			    NULL, NULL) == SQLITE_OK;
}

/* An empty database becomes ours; everything in one transaction. */
static int create(struct store *s)
{
	static const char ours_sql[] = "INSERT INTO gateway VALUES (1, 0);"
				       "PRAGMA application_id = " TEXT_OF(APPLICATION_ID);

	if (sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_exec(s->db, schema_sql, NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_exec(s->db, ours_sql, NULL, NULL, NULL) != SQLITE_OK || !upgrade_from(s, 1) ||
	    sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
		return -EIO; /* the caller asks SQLite */
	return 0;
}

/* One of an earlier version, in one transaction too. */
static int upgrade(struct store *s, int64_t version)
{
	if (sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK ||
	    !upgrade_from(s, version) ||
	    sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
		return -EIO;
	return 0;
}

int store_check_schema(struct store *s, const char *dir)
{
	char what[STORE_ERROR_BYTES];
	int64_t version, application, tables;

	if (store_one_number(s, "PRAGMA user_version", &version) ||
	    store_one_number(s, "PRAGMA application_id", &application) ||
	    store_one_number(s, "SELECT count(*) FROM sqlite_schema", &tables))
		return store_failed_sqlite(s, dir);
	if (version == 0 && application == 0 && tables == 0)
		return create(s) ? store_failed_sqlite(s, dir) : 0;
	if (application != APPLICATION_ID)
		return store_failed(-EPROTO, dir,
				    "has a " STORE_DATABASE_FILE " that is not this program's");
	if (version > 0 && version < STORE_SCHEMA_VERSION)
		return upgrade(s, version) ? store_failed_sqlite(s, dir) : 0;
	if (version != STORE_SCHEMA_VERSION) {
		snprintf(what, sizeof(what),
			 "has a database of schema version %lld; this program reads version %d",
			 (long long)version, STORE_SCHEMA_VERSION);
		return store_failed(-EPROTO, dir, what);
	}
	return 0;
}
