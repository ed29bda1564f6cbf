// SPDX-License-Identifier: MIT
/*
 * Tracing: a table such as a distributor writes, a token that has the tracing key, and for whatever
 * is asked, and however it fails, an entry in the audit log.
 */
#include <sqlite3.h>

#include "tests/manager_env.h"
#include "userspace/base/text.h"
#include "userspace/bundle/idtable.h"
#include "userspace/manager/audit.h"
#include "userspace/manager/enrol.h"
#include "userspace/manager/revoke.h"
#include "userspace/manager/say.h"
#include "userspace/manager/trace.h"

#define FROM_MS	 1797379200000ull /* 2026-12-16T00:00:00Z */
#define UNTIL_MS 1800057600000ull /* 2027-01-16T00:00:00Z */
#define KNOWN	 "00112233445566778899aabbccddeeff"
#define ENDLESS	 "10112233445566778899aabbccddeeff"
#define FOREIGN	 "20112233445566778899aabbccddeeff"
#define SWAPPED	 "30112233445566778899aabbccddeeff"
#define DAMAGED	 "40112233445566778899aabbccddeeff"
#define TOO_LONG "50112233445566778899aabbccddeeff"
#define UNKNOWN	 "f0112233445566778899aabbccddeeff"

FIXTURE(trace)
{
	struct manager_env e;
	struct p256_point key; /* of the manager, for tracing */
};

/* --- a distributor's table ----------------------------------------------------------------- */

static void put_row(sqlite3 *db, const char *external, struct bytes trace)
{
	uint8_t bytes[IDTABLE_EXTERNAL_BYTES];
	sqlite3_stmt *s;

	ASSERT_EQ(text_unhex(bytes_str(external), bytes, sizeof(bytes)), 0);
	ASSERT_EQ(sqlite3_prepare_v2(db, "INSERT INTO external VALUES (randomblob(32), ?, ?, 0, 0)",
				     -1, &s, NULL),
		  SQLITE_OK);
	(void)sqlite3_bind_blob(s, 1, bytes, sizeof(bytes), SQLITE_STATIC);
	(void)sqlite3_bind_blob(s, 2, trace.p, (int)trace.n, SQLITE_STATIC);
	ASSERT_EQ(sqlite3_step(s), SQLITE_DONE);
	ASSERT_EQ(sqlite3_finalize(s), SQLITE_OK);
}

static struct bytes seal(const struct p256_point *key, const char *external, const char *internal,
			 uint64_t until_ms, uint8_t room[IDTABLE_TRACE_BYTES_MAX])
{
	const struct idtable_entry entry = { .internal = bytes_str(internal),
					     .domain = bytes_str("weather"),
					     .from_ms = FROM_MS,
					     .until_ms = until_ms };
	struct bytes_writer w = bytes_writer_of(room, IDTABLE_TRACE_BYTES_MAX);
	uint8_t bytes[IDTABLE_EXTERNAL_BYTES];

	ASSERT_EQ(text_unhex(bytes_str(external), bytes, sizeof(bytes)), 0);
	ASSERT_EQ(idtable_trace_seal(key, bytes, &entry, &w), 0);
	ASSERT_FALSE(w.bad);
	return bytes_of(room, w.used);
}

static void make_table(const char *path, const struct p256_point *key)
{
	uint8_t room[IDTABLE_TRACE_BYTES_MAX], zeros[2 * IDTABLE_TRACE_BYTES_MAX] = { 0 };
	struct p256_point other;
	struct bytes trace;
	char pragma[128];
	sqlite3 *db;

	ASSERT_EQ(sqlite3_open(path, &db), SQLITE_OK);
	snprintf(pragma, sizeof(pragma),
		 "PRAGMA journal_mode = WAL; PRAGMA application_id = %d; PRAGMA user_version = %d",
		 IDTABLE_APPLICATION_ID, IDTABLE_SCHEMA_VERSION);
	ASSERT_EQ(sqlite3_exec(db, pragma, NULL, NULL, NULL), SQLITE_OK);
	ASSERT_EQ(sqlite3_exec(db, IDTABLE_SCHEMA_SQL, NULL, NULL, NULL), SQLITE_OK);
	put_row(db, KNOWN, seal(key, KNOWN, "dev-1", UNTIL_MS, room));
	put_row(db, ENDLESS, seal(key, ENDLESS, "dev-2", 0, room));
	random_point(&other);
	put_row(db, FOREIGN, seal(&other, FOREIGN, "dev-1", UNTIL_MS, room));
	put_row(db, SWAPPED, seal(key, KNOWN, "dev-1", UNTIL_MS, room));
	trace = seal(key, DAMAGED, "dev-1", UNTIL_MS, room);
	room[trace.n - 1] ^= 1;
	put_row(db, DAMAGED, trace);
	put_row(db, TOO_LONG, bytes_of(zeros, sizeof(zeros)));
	ASSERT_EQ(sqlite3_close(db), SQLITE_OK);
}

static void open_with_key(struct fixture_trace *self)
{
	struct manager_env *e = &self->e;

	env_open(e, MANAGER_ENV_T0);
	ASSERT_EQ(manager_token(&e->m), 0);
	ASSERT_EQ(token_signing_public(e->m.token, MANAGER_TRACE_LABEL, &self->key), 0);
	env_close(e, 0);
}

FIXTURE_SETUP(trace)
{
	const struct enrol_party device = { .id = "dev-1", .role = RECORD_ROLE_DEVICE };
	struct enrol_party p = device;

	manager_env_make(&self->e);
	open_with_key(self);
	p.generate = env_path(&self->e, "dev-1");
	ASSERT_EQ(ENV_IN_TRANSACTION(&self->e, 0, enrol_party(&self->e.m, &p)), 0);
	make_table(env_path(&self->e, "ids.db"), &self->key);
}
FIXTURE_TEARDOWN(trace)
{
	manager_env_remove(&self->e);
}

static int ask(struct manager_env *e, const char *external, const char *at, const char *reason,
	       const char *table)
{
	const struct trace_question t = {
		.external = external, .at = at, .reason = reason, .table = env_path(e, table)
	};

	return ENV_COMMAND(e, 5000, trace(&e->m, &t));
}

/* The last line of the log has this text in it, and the log is whole. */
static void expect_logged(struct manager_env *e, const char *text)
{
	const char *last;

	ASSERT_EQ(ENV_COMMAND(e, 6000, audit_list(&e->m, false)), 0);
	e->said[strlen(e->said) - 1] = '\0';
	last = strrchr(e->said, '\n');
	last = last ? last + 1 : e->said;
	if (!strstr(last, text))
		harness_fail(__FILE__, __LINE__, false, "\"%s\" is not in \"%s\"", text, last);
	if (ENV_COMMAND(e, 7000, audit_verify(&e->m)))
		harness_fail(__FILE__, __LINE__, false, "%s", e->said);
}

/* --- answers ------------------------------------------------------------------------------- */

TEST_F(trace, answers)
{
	struct manager_env *e = &self->e;

	ASSERT_EQ(ask(e, KNOWN, NULL, "a broken meter", "ids.db"), 0);
	ASSERT_STREQ(e->said,
		     "external=" KNOWN " internal=dev-1 domain=weather from=2026-12-16T00:00:00Z"
		     " until=2027-01-16T00:00:00Z enrolled=yes roles=device\n");
	expect_logged(e, " action=\"trace\" subject=\"" KNOWN "\" asked=none"
			 " reason=\"a broken meter\" source=\"");
	expect_logged(e, "/ids.db\" result=done outcome=\"opened\" signed=yes");
	/* Whom it stands for is not in the log. */
	ASSERT_EQ(ENV_COMMAND(e, 0, audit_list(&e->m, true)), 0);
	EXPECT_TRUE(strstr(e->said, "dev-1") == NULL);

	ASSERT_EQ(ask(e, "10112233445566778899AABBCCDDEEFF", NULL, "x", "ids.db"), 0);
	EXPECT_SAID(e, "internal=dev-2 domain=weather from=2026-12-16T00:00:00Z until=none"
		       " enrolled=no\n");
	ASSERT_EQ(ENV_IN_TRANSACTION(e, 0, revoke_party(&e->m, "dev-1", RECORD_ROLE_DEVICE)), 0);
	ASSERT_EQ(ask(e, KNOWN, NULL, "x", "ids.db"), 0);
	EXPECT_SAID(e, " enrolled=no\n");
}

TEST_F(trace, times)
{
	struct manager_env *e = &self->e;
	static const struct {
		const char *external, *at;
		bool within;
	} rows[] = {
		{ KNOWN, "2026-12-16T00:00:00Z", true },   { KNOWN, "2027-01-15T23:59:59Z", true },
		{ KNOWN, "2026-12-15T23:59:59Z", false },  { KNOWN, "2027-01-16", false },
		{ ENDLESS, "2099-01-01T00:00:00Z", true }, { ENDLESS, "2000-01-01", false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		ASSERT_EQ(ask(e, rows[i].external, rows[i].at, "x", "ids.db"), 0);
		EXPECT_SAID(e, "internal=dev-");
		if ((strstr(e->said, " outside: this id was given out from ") == NULL) !=
		    rows[i].within)
			harness_fail(__FILE__, __LINE__, false, "%s: %s", rows[i].at, e->said);
	}
	EXPECT_SAID(e, "at=2000-01-01T00:00:00Z outside: this id was given out from"
		       " 2026-12-16T00:00:00Z until none\n");
	expect_logged(e, "asked=2000-01-01T00:00:00Z");
	expect_logged(e,
		      "result=done outcome=\"opened; the time asked about is not of its period\"");
}

/* --- refusals ------------------------------------------------------------------------------ */

TEST_F(trace, refusals_are_logged)
{
	struct manager_env *e = &self->e;
	static const struct {
		const char *external, *at, *reason, *table;
		int err;
		const char *said;
	} rows[] = {
		{ UNKNOWN, NULL, "x", "ids.db", -ESRCH, "knows no such external id" },
		{ FOREIGN, NULL, "x", "ids.db", -EBADMSG, "not sealed to this manager" },
		{ SWAPPED, NULL, "x", "ids.db", -EBADMSG, "not sealed to this manager" },
		{ DAMAGED, NULL, "x", "ids.db", -EBADMSG, "or it is damaged" },
		{ TOO_LONG, NULL, "x", "ids.db", -EBADMSG, "is damaged" },
		{ KNOWN, NULL, "", "ids.db", -EINVAL, "say why" },
		{ KNOWN, NULL, " \t\n", "ids.db", -EINVAL, "say why" },
		{ "", NULL, "x", "ids.db", -EINVAL, "32 hexadecimal digits" },
		{ "0011", NULL, "x", "ids.db", -EINVAL, "32 hexadecimal digits" },
		{ KNOWN "00", NULL, "x", "ids.db", -EINVAL, "32 hexadecimal digits" },
		{ "g0112233445566778899aabbccddeeff", NULL, "x", "ids.db", -EINVAL,
		  "32 hexadecimal digits" },
		{ KNOWN, "yesterday", "x", "ids.db", -EINVAL, "--at: a time is" },
		{ KNOWN, "2027-02-30", "x", "ids.db", -EINVAL, "--at: a time is" },
		{ KNOWN, "2027-01-01T00:00:00", "x", "ids.db", -EINVAL, "--at: a time is" },
		{ KNOWN, NULL, "x", "none.db", -ENOENT, "none.db: cannot read" },
		{ KNOWN, NULL, "x", "state/registry.db", -EINVAL, "is no distributor's table" },
		{ KNOWN, NULL, "x", "pin", -EIO, "cannot be read as a table" },
		{ KNOWN, NULL, "x", "state", -EIO, "cannot be read as a table" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		int err = ask(e, rows[i].external, rows[i].at, rows[i].reason, rows[i].table);

		if (err != rows[i].err)
			harness_fail(__FILE__, __LINE__, false, "row %zu: %d: %s", i, err, e->said);
		EXPECT_SAID(e, rows[i].said);
		EXPECT_TRUE(strstr(e->said, "dev-") == NULL);
		expect_logged(e, "result=failed");
		expect_logged(e, rows[i].said);
		expect_logged(e, "signed=yes");
	}
}

TEST_F(trace, long_texts)
{
	struct manager_env *e = &self->e;
	char text[3000];

	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	EXPECT_EQ(ask(e, text, NULL, "x", "ids.db"), -EINVAL);
	expect_logged(e, "result=failed");
	EXPECT_EQ(ask(e, KNOWN, NULL, text, "ids.db"), -EINVAL);
	EXPECT_SAID(e, "--reason: at most 1024 bytes");
	expect_logged(e, "result=failed");
	text[AUDIT_REASON_BYTES_MAX] = '\0';
	EXPECT_EQ(ask(e, KNOWN, NULL, text, "ids.db"), 0);
	expect_logged(e, "result=done");
}

TEST_F(trace, without_the_token)
{
	struct manager_env *e = &self->e;

	ASSERT_EQ(ask(e, KNOWN, NULL, "x", "ids.db"), 0);
	write_file(env_path(e, "pin"), "wrong\n", 0600);
	EXPECT_EQ(ask(e, KNOWN, NULL, "a guess", "ids.db"), -EACCES);
	EXPECT_EQ(ask(e, KNOWN, NULL, "a guess", "ids.db"), -EKEYREJECTED);
	ASSERT_EQ(rename(env_path(e, "tokens"), env_path(e, "aside")), 0);
	EXPECT_NE(ask(e, KNOWN, NULL, "away", "ids.db"), 0);
	ASSERT_EQ(rename(env_path(e, "aside"), env_path(e, "tokens")), 0);
	write_file(env_path(e, "pin"), TOKEN_ENV_PIN "\n", 0600);

	ASSERT_EQ(ENV_COMMAND(e, 0, audit_verify(&e->m)), 0);
	EXPECT_SAID(e, "whole entries=4 signed=1 uncovered=3 head=1");
	expect_logged(e, "reason=\"away\"");
	expect_logged(e, "result=failed outcome=\"token \\\"gateway\\\"");
	expect_logged(e, "signed=no");
	ASSERT_EQ(ask(e, KNOWN, NULL, "x", "ids.db"), 0);
	ASSERT_EQ(ENV_COMMAND(e, 0, audit_verify(&e->m)), 0);
	EXPECT_SAID(e, "whole entries=5 signed=2 uncovered=0 head=5");
}

/* The token is there, and fails when it is to sign: no answer, and entries all the same. */
TEST_F(trace, token_that_cannot_sign)
{
	struct manager_env *e = &self->e;
	struct raw raw;

	raw_open(&raw);
	ASSERT_EQ(raw.f->C_DestroyObject(raw.session,
					 raw_find(&raw, MANAGER_KEY_LABEL, CKO_PRIVATE_KEY)),
		  CKR_OK);
	raw_close(&raw);
	EXPECT_EQ(ask(e, KNOWN, NULL, "a broken meter", "ids.db"), -ENOKEY);
	expect_logged(e, "result=failed outcome=\"token \\\"gateway\\\": no object labelled");
	EXPECT_EQ(ask(e, UNKNOWN, NULL, "another", "ids.db"), -ESRCH);
	expect_logged(e, "reason=\"another\"");
	expect_logged(e, "knows no such external id\" signed=no");
}

/* With a log that does not hold nobody gets an answer, and the attempt is in it. */
TEST_F(trace, broken_log)
{
	struct manager_env *e = &self->e;

	ASSERT_EQ(ask(e, KNOWN, NULL, "x", "ids.db"), 0);
	ASSERT_EQ(unlink(env_path(e, "state/audit.db")), 0);
	EXPECT_EQ(ask(e, KNOWN, NULL, "x", "ids.db"), -EBADMSG);
	EXPECT_SAID(e, "entry 1 is missing: the log was cut");
	ASSERT_EQ(ENV_COMMAND(e, 0, audit_list(&e->m, false)), 0);
	EXPECT_SAID(e, "result=failed outcome=\"");
	EXPECT_SAID(e, "signed=no");

	ASSERT_EQ(unlink(env_path(e, "state/audit.db")), 0);
	write_file(env_path(e, "state/audit.db"), "this is a text and no database, for sure\n",
		   0600);
	EXPECT_EQ(ask(e, KNOWN, NULL, "x", "ids.db"), -EIO);
	EXPECT_SAID(e, "audit.db: file is not a database");
}

TEST_F(trace, no_tracing_key)
{
	struct manager_env *e = &self->e;

	env_open(e, MANAGER_ENV_T0);
	ASSERT_EQ(manager_token(&e->m), 0);
	ASSERT_EQ(token_destroy(e->m.token, MANAGER_TRACE_LABEL), 0);
	env_close(e, 0);
	EXPECT_EQ(ask(e, KNOWN, NULL, "x", "ids.db"), -ENOKEY);
	EXPECT_SAID(e, "has no tracing key");
	expect_logged(e, "result=failed");
	/* Another one: what was sealed to the first is lost. */
	env_open(e, MANAGER_ENV_T0);
	ASSERT_EQ(manager_token(&e->m), 0);
	ASSERT_EQ(token_generate_opening(e->m.token, MANAGER_TRACE_LABEL, &self->key), 0);
	env_close(e, 0);
	EXPECT_EQ(ask(e, KNOWN, NULL, "x", "ids.db"), -EBADMSG);
}

/* The distributor goes on writing meanwhile, and its table is not touched. */
TEST_F(trace, a_table_in_use)
{
	struct manager_env *e = &self->e;
	char *words = NULL;
	sqlite3 *db;

	ASSERT_EQ(sqlite3_open(env_path(e, "ids.db"), &db), SQLITE_OK);
	ASSERT_EQ(sqlite3_exec(db,
			       "BEGIN IMMEDIATE; DELETE FROM external WHERE length(trace) > 300",
			       NULL, NULL, &words),
		  SQLITE_OK);
	EXPECT_EQ(ask(e, KNOWN, NULL, "x", "ids.db"), 0);
	ASSERT_EQ(sqlite3_exec(db, "COMMIT", NULL, NULL, &words), SQLITE_OK);
	EXPECT_EQ(ask(e, TOO_LONG, NULL, "x", "ids.db"), -ESRCH); /* what is in the "-wal" file */
	ASSERT_EQ(sqlite3_close(db), SQLITE_OK);
}

TEST(times_as_text)
{
	char text[SAY_TIME_ROOM];
	uint64_t ms = 7;

	ASSERT_EQ(say_parse_time("2027-01-15T08:00:00Z", &ms), 0);
	ASSERT_EQ(ms, MANAGER_ENV_T0);
	ASSERT_STREQ(say_time((int64_t)ms, text), "2027-01-15T08:00:00Z");
	ASSERT_EQ(say_parse_time("2024-02-29", &ms), 0);
	ASSERT_STREQ(say_time((int64_t)ms, text), "2024-02-29T00:00:00Z");
	ASSERT_STREQ(say_time(0, text), "none");
	for (const char *const *bad =
		     (const char *const[]){ "", "2027", "2023-02-29", "1970-01-01", "1969-12-31",
					    "2027-13-01", "2027-01-15T24:00:00Z",
					    "2027-01-15T08:00:00+01:00", " 2027-01-15",
					    "2027-01-15 ", NULL };
	     *bad; bad++)
		EXPECT_EQ(say_parse_time(*bad, &ms), -EINVAL);
}

HARNESS_MAIN
