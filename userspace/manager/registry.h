/* SPDX-License-Identifier: MIT */
/*
 * The manager's registry: one SQLite file (WAL, synchronous FULL) in a directory that nobody else
 * may enter. Who is enrolled, scopes and their epochs, permissions, grants, revocations, what was
 * done.
 *
 *   gateway <── grants ──> party <── permission ──> scope <── epoch (key id, A, sealed a)
 *      ↑         │  │                                 ↑ ↑
 *      │         │  └──────────────── epoch           │ └── filter
 *      └──────── outlet ──────────────────────────────┘
 *
 * Scope scalars and hop secrets are in it only as the token sealed them. Admission keys are in it
 * as they are: they admit to a socket and authenticate nobody (PROTOCOL 6), and the bundles have
 * them in clear too.
 *
 * A query is a cursor with a sticky error, like bytes.h: bind in order, step, read, and test once,
 * in registry_end(). Errors: -EBUSY another program holds the file, -ENOSPC, -EACCES, -ENOMEM,
 * -EEXIST where a key is taken, -EIO for the rest; the words are in registry.error. One thread.
 */
#ifndef SSDTF_MANAGER_REGISTRY_H
#define SSDTF_MANAGER_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/compiler.h"

struct sqlite3;
struct sqlite3_stmt;

struct registry {
	struct sqlite3 *db;
	char error[256];
};

/*
 * Whoever opens the file of an older version upgrades it, in one transaction: it is of the one
 * version or of the other, and a newer one than this program's is left alone. -ENODATA: there is
 * none, or one whose making was cut short.
 */
int registry_open(struct registry *r, const char *path) must_check;
/* Opens it, and makes it first where there is none. */
int registry_create(struct registry *r, const char *path) must_check;
void registry_close(struct registry *r);

/* A transaction that writes, from the start on. Rolling back what was not begun is harmless. */
int registry_begin(struct registry *r) must_check;
int registry_commit(struct registry *r) must_check;
void registry_rollback(struct registry *r);
/* One that reads: all its queries see the same state. Ended by registry_commit(). */
int registry_begin_read(struct registry *r) must_check;

struct registry_query {
	struct registry *r;
	struct sqlite3_stmt *stmt;
	int rc; /* SQLite's, sticky */
	int bound;
};

struct registry_query registry_query(struct registry *r, const char *sql);
void registry_bind_int(struct registry_query *q, int64_t v);
void registry_bind_text(struct registry_query *q, const char *v);
void registry_bind_blob(struct registry_query *q, struct bytes v); /* p NULL: SQL NULL */
/* True: a row is there to be read. False: none is left, or it went wrong. */
bool registry_step(struct registry_query *q);
/* Does the query stand on a row? */
bool registry_has_row(const struct registry_query *q);
/* Back to the start with nothing bound, for the next round of the same question. */
void registry_again(struct registry_query *q);
/* Columns of the current row, from 0. A view lives until the next step, again or end. */
int64_t registry_int(struct registry_query *q, int column);
struct bytes registry_blob(struct registry_query *q, int column);
bool registry_is_null(struct registry_query *q, int column);
/* Exactly n bytes; anything else is a damaged registry, the sticky error. */
void registry_copy(struct registry_query *q, int column, void *out, size_t n);
/* Terminated, in room bytes; the sticky error where it does not fit. */
void registry_text(struct registry_query *q, int column, char *out, size_t room);
/* Frees the query. 0, or what went wrong first. */
int registry_end(struct registry_query *q) must_check;
/* For questions without an answer: step through, then end. */
int registry_run(struct registry_query *q) must_check;
/* Rows that the last INSERT, UPDATE or DELETE changed. */
int64_t registry_changes(struct registry *r);

/* Settings by name. -ENOENT: not set. */
int registry_setting(struct registry *r, const char *name, char *out, size_t room) must_check;
int registry_set(struct registry *r, const char *name, const char *value) must_check;

/* SQLite's own check of the file, and of what refers to what. -EIO with words where it fails. */
int registry_check(struct registry *r) must_check;

#endif
