// SPDX-License-Identifier: MIT
/*
 * The audit log: what is appended holds, and whatever is done to the file afterwards is found, with
 * the first bad entry named. The one who changes the file here can do everything but sign: he even
 * makes the hashes anew.
 */
#include <sqlite3.h>

#include "tests/manager_env.h"
#include "userspace/manager/audit.h"
#include "userspace/manager/audit_impl.h"

#define T0 MANAGER_ENV_T0

FIXTURE(audit)
{
	struct manager_env e;
};
FIXTURE_SETUP(audit)
{
	manager_env_make(&self->e);
}
FIXTURE_TEARDOWN(audit)
{
	manager_env_remove(&self->e);
}

static struct audit_deed deed(const char *subject)
{
	return (struct audit_deed){ .action = "trace",
				    .subject = subject,
				    .asked_ms = T0 - 1,
				    .reason = "a broken meter",
				    .source = "ids.db",
				    .outcome = "opened" };
}

enum append { SIGNED, UNSIGNED, WITHOUT_HEAD };

static int append(struct manager *m, const char *subject, enum append how)
{
	const struct audit_deed d = deed(subject);
	int err = audit_open(m);

	if (!err && how != UNSIGNED)
		err = manager_token(m);
	if (!err && how == SIGNED)
		err = audit_check_end(m);
	if (err)
		return err;
	return how == WITHOUT_HEAD ? audit_write(m, &d, true) : audit_append(m, &d, how == SIGNED);
}

static void add(struct manager_env *e, const char *subject, enum append how)
{
	if (ENV_COMMAND(e, 1000, append(&e->m, subject, how)))
		harness_fail(__FILE__, __LINE__, true, "%s", e->said);
}

static int verify(struct manager_env *e)
{
	return ENV_COMMAND(e, 9000, audit_verify(&e->m));
}

static void sql(struct manager_env *e, const char *text)
{
	sqlite3 *db;
	char *words = NULL;

	ASSERT_EQ(sqlite3_open(env_path(e, "state/audit.db"), &db), SQLITE_OK);
	if (sqlite3_exec(db, text, NULL, NULL, &words))
		harness_fail(__FILE__, __LINE__, true, "%s: %s", text, words);
	ASSERT_EQ(sqlite3_close(db), SQLITE_OK);
}

static void keep(struct manager_env *e, const char *name)
{
	copy_file(env_path(e, "state/audit.db"), env_path(e, name));
}

static void restore(struct manager_env *e, const char *name)
{
	ASSERT_EQ(unlink(env_path(e, "state/audit.db")), 0);
	copy_file(env_path(e, name), env_path(e, "state/audit.db"));
}

/* 1, 2 signed; 3 not; 4, 5, 6 signed. */
static void six_entries(struct manager_env *e)
{
	add(e, "one", SIGNED);
	add(e, "two", SIGNED);
	add(e, "three", UNSIGNED);
	add(e, "four", SIGNED);
	add(e, "five", SIGNED);
	add(e, "six", SIGNED);
}

TEST_F(audit, whole)
{
	struct manager_env *e = &self->e;

	EXPECT_EQ(verify(e), 0);
	EXPECT_SAID(e, "whole entries=0 signed=0 uncovered=0 head=0");
	six_entries(e);
	EXPECT_EQ(verify(e), 0);
	EXPECT_SAID(e, "whole entries=6 signed=5 uncovered=0 head=6");
}

TEST_F(audit, listed)
{
	struct manager_env *e = &self->e;
	struct audit_deed d = deed("say \"so\" \\ now");

	d.reason = "\xe8\xa8\xb4\xe8\xa8\x9f \x1b[2J \xe2\x80\xae left \xff\xc0\xaf\n";
	EXPECT_EQ(ENV_COMMAND(e, 0, audit_list(&e->m, true)), 0);
	ASSERT_STREQ(e->said, "[]\n");
	ASSERT_EQ(ENV_COMMAND(e, 0, ({
				      int err_in = audit_open(&e->m);
				      err_in ? err_in : audit_append(&e->m, &d, false);
			      })),
		  0);
	ASSERT_EQ(ENV_COMMAND(e, 0, audit_list(&e->m, false)), 0);
	EXPECT_SAID(e, "1 2027-01-15T08:00:00Z uid=");
	EXPECT_SAID(e, " action=\"trace\" subject=\"say \\\"so\\\" \\\\ now\""
		       " asked=2027-01-15T07:59:59Z reason=\"\xe8\xa8\xb4\xe8\xa8\x9f \\u{1b}[2J"
		       " \\u{202e} left \\xff\\xc0\\xaf\\u{a}\" source=\"ids.db\" result=done"
		       " outcome=\"opened\" signed=no\n");
	ASSERT_EQ(ENV_COMMAND(e, 0, audit_list(&e->m, true)), 0);
	EXPECT_SAID(e, "[\n{\"number\": 1, \"time_ms\": 1800000000000, \"uid\": ");
	EXPECT_SAID(e,
		    "\"subject\": \"say \\\"so\\\" \\\\ now\", \"reason\": \"\xe8\xa8\xb4\xe8\xa8"
		    "\x9f \\u001b[2J \\u202e left \\ufffd\\ufffd\\ufffd\\u000a\"");
	EXPECT_SAID(e, "\"previous\": \"00000000");
	EXPECT_SAID(e, "}\n]\n");
}

/* --- an editor without a key --------------------------------------------------------------- */

/* Hashes of the rows from..to, made to fit what they say now: previous and hash of each. */
static void make_fit(struct manager_env *e, int64_t from, int64_t to)
{
	struct registry r = { 0 };
	struct registry_query q, u;
	struct audit_entry entry;
	uint8_t previous[HASH_BYTES] = { 0 }, hash[HASH_BYTES];

	ASSERT_EQ(sqlite3_open(env_path(e, "state/audit.db"), &r.db), SQLITE_OK);
	q = registry_query(&r, "SELECT " AUDIT_COLUMNS " FROM entry ORDER BY number");
	while (registry_step(&q)) {
		audit_read_row(&q, &entry);
		if (entry.number < from || entry.number > to) {
			memcpy(previous, entry.hash.p, sizeof(previous));
			continue;
		}
		entry.previous = bytes_of(previous, sizeof(previous));
		audit_hash(&entry, hash);
		u = registry_query(&r, "UPDATE entry SET previous = ?, hash = ? WHERE number = ?");
		registry_bind_blob(&u, entry.previous);
		registry_bind_blob(&u, bytes_of(hash, sizeof(hash)));
		registry_bind_int(&u, entry.number);
		ASSERT_EQ(registry_run(&u), 0);
		memcpy(previous, hash, sizeof(previous));
	}
	ASSERT_EQ(registry_end(&q), 0);
	ASSERT_EQ(sqlite3_close(r.db), SQLITE_OK);
}

static void make_hashes_fit(struct manager_env *e, int64_t from)
{
	make_fit(e, from, INT64_MAX);
}

static const struct tampering {
	const char *sql;
	int64_t fit_from; /* and hashes are made to fit from there; 0: not */
	const char *found;
} tamperings[] = {
	/* every field */
	{ "UPDATE entry SET at_ms = at_ms + 1 WHERE number = 2", 0, "entry 2 was changed" },
	{ "UPDATE entry SET uid = uid + 1 WHERE number = 2", 0, "entry 2 was changed" },
	{ "UPDATE entry SET uid = uid + 4294967296 WHERE number = 2", 0, "entry 2 was changed" },
	{ "UPDATE entry SET login = x'6d' WHERE number = 4", 0, "entry 4 was changed" },
	{ "UPDATE entry SET action = x'7365' WHERE number = 4", 0, "entry 4 was changed" },
	{ "UPDATE entry SET subject = x'6162' WHERE number = 1", 0, "entry 1 was changed" },
	{ "UPDATE entry SET asked_ms = 0 WHERE number = 1", 0, "entry 1 was changed" },
	{ "UPDATE entry SET reason = x'' WHERE number = 6", 0, "entry 6 was changed" },
	{ "UPDATE entry SET reason = zeroblob(70000) WHERE number = 6", 0, "entry 6 was changed" },
	{ "UPDATE entry SET source = x'2f' WHERE number = 5", 0, "entry 5 was changed" },
	{ "UPDATE entry SET result = 1 WHERE number = 3", 0, "entry 3 was changed" },
	{ "UPDATE entry SET result = result + 256 WHERE number = 3", 0, "entry 3 was changed" },
	{ "UPDATE entry SET outcome = x'6e6f' WHERE number = 3", 0, "entry 3 was changed" },
	/* a byte from one field into the next */
	{ "UPDATE entry SET login = CAST(login || x'74' AS BLOB),"
	  " action = CAST(substr(action, 2) AS BLOB) WHERE number = 2",
	  0, "entry 2 was changed" },
	{ "UPDATE entry SET hash = zeroblob(32) WHERE number = 5", 0, "entry 5 was changed" },
	{ "UPDATE entry SET hash = x'00' WHERE number = 5", 0, "entry 5 was changed" },
	{ "UPDATE entry SET previous = zeroblob(32) WHERE number = 5", 0, "entry 5 was changed" },
	{ "UPDATE entry SET previous = x'' WHERE number = 5", 0, "entry 5 was changed" },
	/* checkpoints: taken away, of another entry, of nobody */
	{ "UPDATE entry SET checkpoint = NULL WHERE number = 2", 0, "entry 2 was changed" },
	{ "UPDATE entry SET checkpoint = NULL WHERE number = 6", 0, "entry 6 was changed" },
	{ "UPDATE entry SET checkpoint = NULL", 1, "entry 6 is not the one whose hash the token" },
	{ "UPDATE entry SET checkpoint = (SELECT checkpoint FROM entry WHERE number = 4)"
	  " WHERE number = 5",
	  0, "entry 5 has a checkpoint that this manager did not sign" },
	{ "UPDATE entry SET checkpoint = randomblob(64) WHERE number = 3", 3,
	  "entry 3 has a checkpoint" },
	{ "UPDATE entry SET checkpoint = x'00' WHERE number = 4", 0, "entry 4 was changed" },
	/* an edit with hashes that fit */
	{ "UPDATE entry SET reason = x'6f6b' WHERE number = 2", 2, "entry 2 has a checkpoint" },
	{ "UPDATE entry SET reason = x'6f6b' WHERE number = 3", 3, "entry 4 has a checkpoint" },
	/* an entry in the place of another one */
	{ "UPDATE entry SET previous = (SELECT previous FROM entry WHERE number = 2),"
	  " hash = (SELECT hash FROM entry WHERE number = 2) WHERE number = 4",
	  0, "entry 4 was changed" },
	/* cut: at the front, in the middle, at the end */
	{ "DELETE FROM entry WHERE number = 1", 0, "entry 1 is missing" },
	{ "DELETE FROM entry WHERE number <= 3", 0, "entry 1 is missing" },
	{ "DELETE FROM entry WHERE number = 3", 0, "entry 3 is missing" },
	{ "DELETE FROM entry WHERE number IN (4, 5)", 0, "entry 4 is missing" },
	{ "DELETE FROM entry WHERE number = 6", 0, "entry 6 is missing: the log was cut" },
	{ "DELETE FROM entry WHERE number >= 2", 0, "entry 2 is missing: the log was cut" },
	{ "DELETE FROM entry", 0, "entry 1 is missing: the log was cut" },
	{ "DROP TABLE entry; PRAGMA user_version = 0", 0, "entry 1 is missing: the log was cut" },
	/* cut, and the rest counted anew */
	{ "DELETE FROM entry WHERE number = 1; UPDATE entry SET number = -number;"
	  "UPDATE entry SET number = -number - 1",
	  0, "entry 1 was changed" },
	{ "DELETE FROM entry WHERE number = 1; UPDATE entry SET number = -number;"
	  "UPDATE entry SET number = -number - 1",
	  1, "entry 1 has a checkpoint" },
	{ "DELETE FROM entry WHERE number = 3; UPDATE entry SET number = -number WHERE number > 3;"
	  "UPDATE entry SET number = -number - 1 WHERE number < 0",
	  3, "entry 3 has a checkpoint" },
	/* another order */
	{ "UPDATE entry SET number = 99 WHERE number = 4; UPDATE entry SET number = 4 WHERE number"
	  " = 5; UPDATE entry SET number = 5 WHERE number = 99",
	  0, "entry 4 was changed" },
	{ "UPDATE entry SET number = 99 WHERE number = 4; UPDATE entry SET number = 4 WHERE number"
	  " = 5; UPDATE entry SET number = 5 WHERE number = 99",
	  4, "entry 4 has a checkpoint" },
	/* entries too many */
	{ "INSERT INTO entry SELECT 0, at_ms, uid, login, action, subject, asked_ms, reason,"
	  " source, result, outcome, previous, hash, checkpoint FROM entry WHERE number = 1",
	  0, "entry 0 has no place" },
	{ "INSERT INTO entry SELECT 7, at_ms, uid, login, action, subject, asked_ms, reason,"
	  " source, result, outcome, previous, hash, checkpoint FROM entry WHERE number = 6",
	  7, "entry 7 has a checkpoint" },
};

TEST_F(audit, tampering_is_found)
{
	struct manager_env *e = &self->e;

	six_entries(e);
	keep(e, "good");
	for (size_t i = 0; i < ARRAY_SIZE(tamperings); i++) {
		const struct tampering *t = &tamperings[i];

		sql(e, t->sql);
		if (t->fit_from)
			make_hashes_fit(e, t->fit_from);
		if (verify(e) != -EBADMSG)
			harness_fail(__FILE__, __LINE__, false, "not found: %s: %s", t->sql,
				     e->said);
		EXPECT_SAID(e, t->found);
		restore(e, "good");
		ASSERT_EQ(verify(e), 0);
	}
}

/* Whatever bit of the file: it is found, or it is in no entry. */
TEST_F(audit, any_bit_of_the_file)
{
	struct manager_env *e = &self->e;
	unsigned found = 0, rounds = harness_rounds(40);
	char *good;
	struct stat st;

	six_entries(e);
	ASSERT_EQ(ENV_COMMAND(e, 0, audit_list(&e->m, true)), 0);
	good = strdup(e->said);
	keep(e, "good");
	ASSERT_EQ(stat(env_path(e, "good"), &st), 0);
	for (unsigned i = 0; i < rounds; i++) {
		/* Rows fill the last page from its end. */
		off_t at = st.st_size - 1 - (off_t)(harness_random() % 2000);
		uint8_t byte;
		int fd = open(env_path(e, "state/audit.db"), O_RDWR | O_CLOEXEC);

		ASSERT_EQ(pread(fd, &byte, 1, at), 1);
		byte ^= (uint8_t)(1u << harness_random() % 8);
		ASSERT_EQ(pwrite(fd, &byte, 1, at), 1);
		ASSERT_EQ(close(fd), 0);
		if (verify(e)) {
			found++;
		} else {
			ASSERT_EQ(ENV_COMMAND(e, 0, audit_list(&e->m, true)), 0);
			ASSERT_STREQ(e->said, good);
		}
		restore(e, "good");
	}
	free(good);
	EXPECT_TRUE(found > 0);
}

/* --- the end of the log -------------------------------------------------------------------- */

TEST_F(audit, crash_before_the_head_was_moved)
{
	struct manager_env *e = &self->e;

	add(e, "one", WITHOUT_HEAD);
	EXPECT_EQ(verify(e), 0);
	EXPECT_SAID(e, "whole entries=1 signed=1 uncovered=0 head=0");
	add(e, "two", SIGNED);
	EXPECT_EQ(verify(e), 0);
	EXPECT_SAID(e, "head=2");
	add(e, "three", WITHOUT_HEAD);
	add(e, "four", UNSIGNED);
	EXPECT_EQ(verify(e), 0);
	EXPECT_SAID(e, "whole entries=4 signed=3 uncovered=1 head=2");
	add(e, "five", SIGNED);
	EXPECT_EQ(verify(e), 0);
	EXPECT_SAID(e, "whole entries=5 signed=4 uncovered=0 head=5");

	/* One ahead may be; two are not what any crash leaves. */
	add(e, "six", WITHOUT_HEAD);
	add(e, "seven", WITHOUT_HEAD);
	EXPECT_EQ(verify(e), -EBADMSG);
	EXPECT_SAID(e, "entry 7 is signed, but");
	EXPECT_EQ(ENV_COMMAND(e, 0, append(&e->m, "eight", SIGNED)), -EBADMSG);
}

TEST_F(audit, unsigned_until_covered)
{
	struct manager_env *e = &self->e;

	add(e, "one", UNSIGNED);
	add(e, "two", UNSIGNED);
	EXPECT_EQ(verify(e), 0);
	EXPECT_SAID(e, "whole entries=2 signed=0 uncovered=2 head=0");
	keep(e, "good");
	sql(e, "UPDATE entry SET reason = x'6f6b' WHERE number = 1");
	make_fit(e, 1, 1);
	EXPECT_EQ(verify(e), -EBADMSG);
	EXPECT_SAID(e, "entry 2 does not follow the entry before it");
	restore(e, "good");
	add(e, "three", SIGNED);
	EXPECT_EQ(verify(e), 0);
	EXPECT_SAID(e, "whole entries=3 signed=1 uncovered=0 head=3");
	sql(e, "UPDATE entry SET reason = x'6f6b' WHERE number = 1");
	make_hashes_fit(e, 1);
	EXPECT_EQ(verify(e), -EBADMSG);
	EXPECT_SAID(e, "entry 3 has a checkpoint");
}

/* An old copy in the log's place: the next entry does not hide that. */
TEST_F(audit, an_old_copy)
{
	struct manager_env *e = &self->e;

	add(e, "one", SIGNED);
	keep(e, "old");
	add(e, "two", SIGNED);
	add(e, "three", SIGNED);
	restore(e, "old");
	EXPECT_EQ(verify(e), -EBADMSG);
	EXPECT_SAID(e, "entry 2 is missing: the log was cut at its end");
	EXPECT_EQ(ENV_COMMAND(e, 0, append(&e->m, "other two", SIGNED)), -EBADMSG);
	EXPECT_SAID(e, "entry 3 is missing");
	add(e, "other two", UNSIGNED); /* as a trace does that is refused for it */
	EXPECT_EQ(ENV_COMMAND(e, 0, append(&e->m, "other three", SIGNED)), -EBADMSG);
	add(e, "other three", UNSIGNED);
	EXPECT_EQ(ENV_COMMAND(e, 0, append(&e->m, "other four", SIGNED)), -EBADMSG);
	EXPECT_EQ(verify(e), -EBADMSG);
	EXPECT_SAID(e, "entry 3 is not the one whose hash the token keeps");
}

TEST_F(audit, the_whole_file_gone)
{
	struct manager_env *e = &self->e;

	add(e, "one", SIGNED);
	ASSERT_EQ(unlink(env_path(e, "state/audit.db")), 0);
	EXPECT_EQ(verify(e), -EBADMSG);
	EXPECT_SAID(e, "entry 1 is missing");
}

TEST_F(audit, without_the_token)
{
	struct manager_env *e = &self->e;

	six_entries(e);
	write_file(env_path(e, "pin"), "wrong\n", 0600);
	EXPECT_EQ(verify(e), -EACCES);
	EXPECT_SAID(e, "6 entries hold, but whether some were cut from the end only the token can");
	sql(e, "UPDATE entry SET reason = x'6f6b' WHERE number = 2");
	EXPECT_EQ(verify(e), -EBADMSG); /* what can be said is said */
	EXPECT_SAID(e, "entry 2 was changed");
}

/* --- the head in the token ----------------------------------------------------------------- */

/* An object such as a killed writer leaves beside the good one, by who holds the PIN. */
static void put_raw(const char *label, const uint8_t *value, size_t n)
{
	ck_object_class_t class = CKO_DATA;
	unsigned char yes = 1;
	struct ck_attribute template[] = { { CKA_CLASS, &class, sizeof(class) },
					   { CKA_TOKEN, &yes, 1 },
					   { CKA_PRIVATE, &yes, 1 },
					   { CKA_LABEL, raw_bytes(label), strlen(label) },
					   { CKA_VALUE, raw_bytes(value), n } };
	ck_object_handle_t made;
	struct raw raw;

	raw_open(&raw);
	ASSERT_EQ(raw.f->C_CreateObject(raw.session, template, ARRAY_SIZE(template), &made),
		  CKR_OK);
	raw_close(&raw);
}

TEST_F(audit, two_heads)
{
	struct manager_env *e = &self->e;
	uint8_t old[8 + HASH_BYTES] = { 0 };

	add(e, "one", SIGNED);
	add(e, "two", SIGNED);
	put_raw(AUDIT_HEAD_LABEL, old, sizeof(old)); /* older: the newer one counts */
	put_raw(AUDIT_HEAD_LABEL, old, 3);	     /* cut short: none */
	EXPECT_EQ(verify(e), 0);
	EXPECT_SAID(e, "head=2");
	add(e, "three", SIGNED); /* which leaves one */
	EXPECT_EQ(verify(e), 0);
	EXPECT_SAID(e, "head=3");
}

static bool is_newer(const uint8_t *a, const uint8_t *b)
{
	return a[0] > b[0];
}

TEST_F(audit, bytes_in_the_token)
{
	struct manager_env *e = &self->e;
	uint8_t value[TOKEN_DATA_BYTES_MAX] = { 0 };
	struct token *t;

	env_open(e, T0);
	ASSERT_EQ(manager_token(&e->m), 0);
	t = e->m.token;
	EXPECT_EQ(token_data_get(t, "x", 2, is_newer, value), -ENOKEY);
	EXPECT_EQ(token_data_put(t, "x", bytes_of(value, 0)), -EINVAL);
	for (uint8_t i = 1; i < 4; i++) {
		ASSERT_EQ(token_data_put(t, "x", bytes_of((uint8_t[]){ i, 7 }, 2)), 0);
		ASSERT_EQ(token_data_get(t, "x", 2, is_newer, value), 0);
		EXPECT_EQ(value[0], i);
		EXPECT_EQ(value[1], 7);
		EXPECT_EQ(token_data_get(t, "x", 3, is_newer, value), -ENOKEY);
	}
	EXPECT_EQ(token_data_get(t, "y", 2, is_newer, value), -ENOKEY);
	/* Longest, over the others. */
	memset(value, 9, sizeof(value));
	ASSERT_EQ(token_data_put(t, "x", bytes_of(value, sizeof(value))), 0);
	memset(value, 0, sizeof(value));
	ASSERT_EQ(token_data_get(t, "x", sizeof(value), is_newer, value), 0);
	EXPECT_EQ(value[sizeof(value) - 1], 9);
	EXPECT_EQ(token_data_get(t, "x", 2, is_newer, value), -ENOKEY);
}

HARNESS_MAIN
