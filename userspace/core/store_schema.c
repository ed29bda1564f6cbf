// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdio.h>

#include "userspace/base/compiler.h"
#include "userspace/core/store_impl.h"

#define APPLICATION_ID 0x53534454 /* "SSDT" */

#define TEXT_OF_NUMBER(n) #n
#define TEXT_OF(n)	  TEXT_OF_NUMBER(n)

/* What each version has besides the one before it. */
static const char *const version_sql[STORE_SCHEMA_VERSION] = {
	/* 1 */
	"CREATE TABLE replay (id TEXT PRIMARY KEY, highest INTEGER NOT NULL,"
	" below0 INTEGER NOT NULL, below1 INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE context (key_id INTEGER NOT NULL, enc_hash INTEGER NOT NULL,"
	" seen_ms INTEGER NOT NULL, PRIMARY KEY (key_id, enc_hash)) STRICT, WITHOUT ROWID;"
	"CREATE INDEX context_seen ON context (seen_ms);"
	"CREATE TABLE revoked (key_id INTEGER PRIMARY KEY, revoked_at_ms INTEGER NOT NULL,"
	" retire_before_ms INTEGER NOT NULL) STRICT;"
	"CREATE TABLE gateway (one INTEGER PRIMARY KEY CHECK (one = 1),"
	" bundle_serial INTEGER NOT NULL) STRICT;"
	"INSERT INTO gateway VALUES (1, 0);",
	/* 2: windows that may be forgotten, by the time of their last use; sessions, their queues,
	   and what is retained. No table of these has an index besides its key:
	   the broker knows when the last row that names a message goes. */
	"ALTER TABLE replay ADD COLUMN seen_ms INTEGER NOT NULL DEFAULT 0;"
	"CREATE INDEX replay_seen ON replay (seen_ms) WHERE seen_ms > 0;"
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

/* From this version to ours; everything in one transaction. */
static int upgrade(struct store *s, int64_t version)
{
	static const char ours_sql[] = "PRAGMA application_id = " TEXT_OF(
		APPLICATION_ID) ";PRAGMA user_version = " TEXT_OF(STORE_SCHEMA_VERSION) ";COMMIT";

	if (sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
		return -EIO; /* the caller asks SQLite */
	for (; version < STORE_SCHEMA_VERSION; version++)
		if (sqlite3_exec(s->db, version_sql[version], NULL, NULL, NULL) != SQLITE_OK)
			return -EIO;
	return sqlite3_exec(s->db, ours_sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : -EIO;
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
		return upgrade(s, 0) ? store_failed_sqlite(s, dir) : 0;
	if (application != APPLICATION_ID)
		return store_failed(-EPROTO, dir, "has a broker.db that is not this program's");
	if (version == STORE_SCHEMA_VERSION)
		return 0;
	if (version >= 1 && version < STORE_SCHEMA_VERSION)
		return upgrade(s, version) ? store_failed_sqlite(s, dir) : 0;
	snprintf(what, sizeof(what),
		 "has a database of schema version %lld; this program reads up to version %d",
		 (long long)version, STORE_SCHEMA_VERSION);
	return store_failed(-EPROTO, dir, what);
}
