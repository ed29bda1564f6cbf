/* SPDX-License-Identifier: MIT */
/*
 * The store's inside: store.c opens it and has its thread, store_schema.c its tables, and
 * store_sessions.c writes and loads those of sessions.
 */
#ifndef SSDTF_CORE_STORE_IMPL_H
#define SSDTF_CORE_STORE_IMPL_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "userspace/base/bytes.h"
#include "userspace/core/store.h"

#define STORE_DATABASE_FILE "broker.db"

enum statement {
	STMT_BEGIN,
	STMT_COMMIT,
	STMT_ROLLBACK,
	STMT_REPLAY,
	STMT_CONTEXT,
	STMT_REVOKED,
	STMT_SERIAL,
	STMT_FORGET,
	STMT_FORGET_ORIGINS,
	STMT_SESSION,
	STMT_SESSION_GONE,
	STMT_SESSION_GONE_LAST = STMT_SESSION_GONE + 4, /* one a table */
	STMT_SUBSCRIPTION,
	STMT_SUBSCRIPTION_GONE,
	STMT_MESSAGE,
	STMT_MESSAGE_GONE,
	STMT_DELIVERY,
	STMT_DELIVERY_GONE,
	STMT_RELEASE,
	STMT_RELEASE_GONE,
	STMT_INCOMING,
	STMT_INCOMING_GONE,
	STMT_RETAINED,
	STMT_RETAINED_GONE,
	STMTS,
};

struct store {
	int lock_fd;
	sqlite3 *db;
	sqlite3_stmt *statements[STMTS];
	uint64_t bundle_serial;

	bool started;
	pthread_t thread;
	struct wake *wake;
	bool out; /* the loop's: a commit was submitted and not polled */

	/* From the loop to the thread and back; the result is published by done. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	const struct broker_commit *commit;
	bool stopping;
	int error;
	char words[STORE_ERROR_BYTES];
	atomic_bool done;
};

/* --- store.c ---------------------------------------------------------------------------------- */

/* What SQLite's code means to those who only know errno. */
int store_error_of(int code);
/* For store_open_error(); they return the error. */
int store_failed(int err, const char *dir, const char *what);
int store_failed_sqlite(const struct store *s, const char *dir);
/* -ENOENT: no row. */
int store_one_number(struct store *s, const char *sql, int64_t *ret_n) must_check;
/* Runs one prepared statement with n numbers from parameter first on. */
int store_run(struct store *s, enum statement which, int first, const uint64_t *numbers, int n);
/* Calls load for each row. */
int store_each(struct store *s, const char *sql,
	       int (*load)(const struct store_sink *sink, sqlite3_stmt *row),
	       const struct store_sink *sink) must_check;

static inline uint64_t store_column(sqlite3_stmt *row, int i)
{
	return (uint64_t)sqlite3_column_int64(row, i);
}

/* --- store_schema.c --------------------------------------------------------------------------- */

/* An empty database becomes ours, an older one of ours is upgraded. */
int store_check_schema(struct store *s, const char *dir) must_check;

/* --- store_sessions.c ------------------------------------------------------------------------- */

/* NULL: not one of its statements. */
const char *store_sessions_sql(enum statement which);
/* Within the commit's transaction. */
int store_write_sessions(struct store *s, const struct broker_commit *c) must_check;

#endif
