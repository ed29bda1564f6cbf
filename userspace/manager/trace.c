// SPDX-License-Identifier: MIT
#include "userspace/manager/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "userspace/base/secret.h"
#include "userspace/base/text.h"
#include "userspace/bundle/idtable.h"
#include "userspace/bundle/record.h"
#include "userspace/manager/audit.h"
#include "userspace/manager/party.h"
#include "userspace/manager/say.h"

#define BUSY_WAIT_MS 5000

struct answer {
	uint8_t external[IDTABLE_EXTERNAL_BYTES];
	uint64_t at_ms; /* 0: not asked */
	uint8_t trace[IDTABLE_TRACE_BYTES_MAX];
	size_t trace_bytes;
	uint8_t room[IDTABLE_ENTRY_BYTES_MAX];
	struct idtable_entry entry; /* views into room */
	bool enrolled;
	struct party party;
};

/* --- the question -------------------------------------------------------------------------- */

static int check_question(struct manager *m, const struct trace_question *t, struct answer *a)
{
	if (text_unhex(bytes_str(t->external), a->external, sizeof(a->external)))
		return manager_fail(m, -EINVAL,
				    "an external id is 32 hexadecimal digits, and this is none");
	if (!t->reason[strspn(t->reason, " \t\r\n")])
		return manager_fail(m, -EINVAL, "--reason: say why; it is kept in the audit log");
	if (strlen(t->reason) > AUDIT_REASON_BYTES_MAX)
		return manager_fail(m, -EINVAL, "--reason: at most %d bytes",
				    AUDIT_REASON_BYTES_MAX);
	if (t->at && say_parse_time(t->at, &a->at_ms))
		return manager_fail(m, -EINVAL,
				    "--at: a time is 2026-01-31T23:59:59Z or 2026-01-31, in UTC");
	return 0;
}

/* --- the distributor's table --------------------------------------------------------------- */

static int fail_table(struct manager *m, const struct trace_question *t, struct registry *table)
{
	m->exit_code = EX_NOINPUT;
	return manager_fail(m, -EIO, "%s: cannot be read as a table of external ids: %s", t->table,
			    table->db ? sqlite3_errmsg(table->db) : "out of memory");
}

static int read_number(struct registry *table, const char *sql, int64_t *ret_v)
{
	struct registry_query q = registry_query(table, sql);

	if (registry_step(&q))
		*ret_v = registry_int(&q, 0);
	return registry_end(&q);
}

static int check_table(struct manager *m, const struct trace_question *t, struct registry *table)
{
	int64_t application = 0, version = 0;
	int err = read_number(table, "PRAGMA application_id", &application);

	if (!err)
		err = read_number(table, "PRAGMA user_version", &version);
	if (err)
		return fail_table(m, t, table);
	if (application != IDTABLE_APPLICATION_ID)
		return manager_fail(m, -EINVAL, "%s: is no distributor's table", t->table);
	if (version != IDTABLE_SCHEMA_VERSION)
		return manager_fail(m, -EINVAL,
				    "%s: is of version %" PRId64 ", this program knows %d",
				    t->table, version, IDTABLE_SCHEMA_VERSION);
	return 0;
}

static int find_row(struct manager *m, const struct trace_question *t, struct registry *table,
		    struct answer *a)
{
	struct registry_query q = registry_query(table, IDTABLE_BY_EXTERNAL_SQL);
	struct bytes trace;
	bool found, fits = false;

	registry_bind_blob(&q, bytes_of(a->external, sizeof(a->external)));
	found = registry_step(&q);
	if (found) {
		trace = registry_blob(&q, 0);
		fits = trace.n && trace.n <= sizeof(a->trace);
		if (fits)
			memcpy(a->trace, trace.p, trace.n);
		a->trace_bytes = trace.n;
	}
	if (registry_end(&q))
		return fail_table(m, t, table);
	if (!found)
		return manager_fail(m, -ESRCH, "%s: knows no such external id", t->table);
	return fits ? 0
		    : manager_fail(m, -EBADMSG, "%s: the entry of this id is damaged", t->table);
}

/* Somebody else's file: nothing that is written in it may make SQLite do more than read. */
static int open_table(struct manager *m, const struct trace_question *t, struct registry *table)
{
	struct stat st;

	if (stat(t->table, &st))
		return manager_fail_file(m, -errno, "read", t->table);
	if (sqlite3_open_v2(t->table, &table->db,
			    SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
			    NULL) != SQLITE_OK)
		return fail_table(m, t, table);
	(void)sqlite3_busy_timeout(table->db, BUSY_WAIT_MS); /* cannot fail on an open database */
	if (sqlite3_exec(table->db, "PRAGMA trusted_schema = OFF", NULL, NULL, NULL) != SQLITE_OK)
		return fail_table(m, t, table);
	return 0;
}

static int look_up(struct manager *m, const struct trace_question *t, struct answer *a)
{
	struct registry table = { 0 };
	int err = open_table(m, t, &table);

	if (!err)
		err = check_table(m, t, &table);
	if (!err)
		err = find_row(m, t, &table, a);
	(void)sqlite3_close(table.db); /* every query is ended by then */
	return err;
}

/* --- opening it ---------------------------------------------------------------------------- */

static int open_entry(struct manager *m, const struct trace_question *t, struct answer *a)
{
	const struct bytes trace = bytes_of(a->trace, a->trace_bytes);
	struct secret32 dh SECRET = { 0 };
	struct p256_point enc, key;
	int err = token_signing_public(m->token, MANAGER_TRACE_LABEL, &key);

	if (err == -ENOKEY)
		return manager_fail(m, err, "token \"%s\": has no tracing key: run init again",
				    m->token_label);
	if (err)
		return manager_fail_token(m, err);
	err = idtable_trace_enc(trace, &enc);
	if (!err) {
		err = token_open_point(m->token, MANAGER_TRACE_LABEL, enc.b, dh.b);
		if (err)
			return manager_fail_token(m, err);
		err = idtable_trace_open(trace, &dh, &key, a->external, a->room, &a->entry);
	}
	if (err == -EBADMSG)
		return manager_fail(m, err,
				    "%s: the entry of this id is not sealed to this manager, or "
				    "it is damaged",
				    t->table);
	return err ? manager_fail(m, err, "cannot open the entry: %s", strerror(-err)) : 0;
}

/* Is he one of ours, and still? */
static int find_party(struct manager *m, struct answer *a)
{
	char id[MANAGER_ID_ROOM];
	int err;

	(void)snprintf(id, sizeof(id), "%.*s", (int)a->entry.internal.n,
		       (const char *)a->entry.internal.p); /* an id, so it fits */
	err = party_find(m, id, &a->party, &a->enrolled);
	secret_wipe(a->party.k_adm, sizeof(a->party.k_adm));
	return err;
}

static bool is_outside(const struct answer *a)
{
	return a->at_ms && !record_valid_at(a->entry.from_ms, a->entry.until_ms, a->at_ms);
}

static void put_answer(struct manager *m, const struct answer *a)
{
	char hex[TEXT_HEX_SIZE(IDTABLE_EXTERNAL_BYTES)], roles[PARTY_ROLES_ROOM];
	char from[SAY_TIME_ROOM], until[SAY_TIME_ROOM], at[SAY_TIME_ROOM];
	const struct idtable_entry *e = &a->entry;

	(void)fprintf(m->out, "external=%s internal=%.*s domain=%.*s from=%s until=%s",
		      text_hex(bytes_of(a->external, sizeof(a->external)), hex), (int)e->internal.n,
		      (const char *)e->internal.p, (int)e->domain.n, (const char *)e->domain.p,
		      say_time((int64_t)e->from_ms, from), say_time((int64_t)e->until_ms, until));
	if (a->enrolled)
		(void)fprintf(m->out, " enrolled=yes roles=%s\n",
			      party_roles_text(a->party.roles, roles));
	else
		(void)fprintf(m->out, " enrolled=no\n");
	if (is_outside(a))
		(void)fprintf(m->out, "at=%s outside: this id was given out from %s until %s\n",
			      say_time((int64_t)a->at_ms, at), from, until);
}

/* --- the whole ----------------------------------------------------------------------------- */

static int find_answer(struct manager *m, const struct trace_question *t, struct answer *a)
{
	int err = check_question(m, t, a);

	if (!err)
		err = look_up(m, t, a);
	if (!err)
		err = open_entry(m, t, a);
	return err ? err : find_party(m, a);
}

/* Logs what failed, and keeps its words. Where it cannot be signed, it is not. */
static int log_failure(struct manager *m, struct audit_deed *d, int err, bool sign)
{
	char words[sizeof(m->error)];
	int log_err;

	memcpy(words, m->error, sizeof(words));
	d->result = AUDIT_FAILED;
	d->outcome = words;
	log_err = audit_append(m, d, sign);
	if (log_err && sign)
		log_err = audit_append(m, d, false);
	if (log_err)
		return log_err; /* in its own words */
	memcpy(m->error, words, sizeof(words));
	return err;
}

int trace(struct manager *m, const struct trace_question *t)
{
	struct audit_deed d = {
		.action = "trace", .subject = t->external, .reason = t->reason, .source = t->table
	};
	struct answer a = { 0 };
	int err = audit_open(m);

	if (err)
		return err;
	/* Where it is no time, that is what failed. */
	if (t->at && !say_parse_time(t->at, &a.at_ms))
		d.asked_ms = a.at_ms;
	err = manager_token(m);
	if (!err)
		err = audit_check_end(m);
	if (err)
		return log_failure(m, &d, err, false);
	err = find_answer(m, t, &a);
	if (err)
		return log_failure(m, &d, err, true);
	d.result = AUDIT_DONE;
	d.outcome = is_outside(&a) ? "opened; the time asked about is not of its period" : "opened";
	err = audit_append(m, &d, true);
	if (err)
		return log_failure(m, &d, err, false);
	put_answer(m, &a);
	return 0;
}
