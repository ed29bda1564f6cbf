// SPDX-License-Identifier: MIT
#include "userspace/core/store.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/broker/broker.h"
#include "userspace/core/store_impl.h"
#include "userspace/core/wake.h"

#define PATH_BYTES_MAX 4096
#define WAL_BYTES_MAX  "16777216"
#define LOCK_FILE      "lock"

/* Numbers above 2^63 are kept as SQLite's negative ones: bit patterns, not values. */
static const char *const statement_sql[STMTS] = {
	[STMT_BEGIN] = "BEGIN IMMEDIATE",
	[STMT_COMMIT] = "COMMIT",
	[STMT_ROLLBACK] = "ROLLBACK",
	[STMT_REPLAY] = "REPLACE INTO replay (id, highest, below0, below1, seen_ms) "
			"VALUES (?, ?, ?, ?, ?)",
	[STMT_CONTEXT] = "REPLACE INTO context (key_id, enc_hash, seen_ms) VALUES (?, ?, ?)",
	[STMT_REVOKED] = "REPLACE INTO revoked (key_id, revoked_at_ms, retire_before_ms) "
			 "VALUES (?, ?, ?)",
	[STMT_SERIAL] = "UPDATE gateway SET bundle_serial = ?",
	[STMT_FORGET] = "DELETE FROM context WHERE seen_ms < ?",
	[STMT_FORGET_ORIGINS] = "DELETE FROM replay WHERE seen_ms > 0 AND seen_ms < ?",
};

static char open_error[STORE_ERROR_BYTES + PATH_BYTES_MAX];

const char *store_open_error(void)
{
	return open_error;
}

/* What SQLite's code means to those who only know errno. */
int store_error_of(int code)
{
	switch (code & 0xff) {
	case SQLITE_OK:
	case SQLITE_DONE:
	case SQLITE_ROW:
		return 0;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_AUTH:
	case SQLITE_CANTOPEN:
		return -EACCES;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	default:
		return -EIO;
	}
}

/* --- opening ---------------------------------------------------------------------------------- */

int store_failed(int err, const char *dir, const char *what)
{
	snprintf(open_error, sizeof(open_error), "%s: %s", dir, what);
	return err;
}

static int failed_errno(const char *dir, const char *what)
{
	int err = errno;

	snprintf(open_error, sizeof(open_error), "%s: %s: %s", dir, what, strerror(err));
	return -err;
}

int store_failed_sqlite(const struct store *s, const char *dir)
{
	int code = s->db ? sqlite3_errcode(s->db) : SQLITE_NOMEM;

	snprintf(open_error, sizeof(open_error), "%s/" STORE_DATABASE_FILE ": %s", dir,
		 s->db ? sqlite3_errmsg(s->db) : "no memory");
	return store_error_of(code) ? store_error_of(code) : -EIO;
}

/* The directory, ours alone, and the lock in it. */
static int lock_dir(struct store *s, const char *dir)
{
	char path[PATH_BYTES_MAX];
	struct stat st;

	if (mkdir(dir, 0700) && errno != EEXIST)
		return failed_errno(dir, "cannot be made");
	if (stat(dir, &st))
		return failed_errno(dir, "cannot be looked at");
	if (!S_ISDIR(st.st_mode))
		return store_failed(-ENOTDIR, dir, "is not a directory");
	if (st.st_uid != geteuid() || (st.st_mode & 077))
		return store_failed(
			-EPERM, dir,
			"must belong to the broker's user and have mode 0700 (chmod 700)");
	if ((size_t)snprintf(path, sizeof(path), "%s/" LOCK_FILE, dir) >= sizeof(path))
		return store_failed(-ENAMETOOLONG, dir, "is too long a name");
	s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0)
		return failed_errno(path, "cannot be opened");
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB)) {
		if (errno == EWOULDBLOCK)
			return store_failed(
				-EBUSY, dir,
				"is in use by another broker (one state directory each)");
		return failed_errno(path, "cannot be locked");
	}
	return 0;
}

int store_one_number(struct store *s, const char *sql, int64_t *ret_n)
{
	sqlite3_stmt *stmt;
	int code = sqlite3_prepare_v2(s->db, sql, -1, &stmt, NULL);

	if (code != SQLITE_OK)
		return store_error_of(code);
	code = sqlite3_step(stmt);
	if (code == SQLITE_ROW)
		*ret_n = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	if (code == SQLITE_DONE)
		return -ENOENT;
	return store_error_of(code);
}

static int open_database(struct store *s, const char *dir)
{
	/* Exclusive: no shared-memory file, and a second opener waits for nothing. */
	static const char pragmas[] = "PRAGMA locking_mode = EXCLUSIVE;"
				      "PRAGMA journal_mode = WAL;"
				      "PRAGMA synchronous = FULL;"
				      "PRAGMA journal_size_limit = " WAL_BYTES_MAX ";"
				      "PRAGMA trusted_schema = OFF;";
	const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
			  SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE;
	char path[PATH_BYTES_MAX];
	char *real = realpath(dir, NULL);
	int code, fd, err;

	/* SQLite's NOFOLLOW is about every part of the path; only the file itself is ours to judge.
	 */
	if (!real)
		return failed_errno(dir, "cannot be resolved");
	code = snprintf(path, sizeof(path), "%s/" STORE_DATABASE_FILE, real);
	free(real);
	if ((size_t)code >= sizeof(path))
		return store_failed(-ENAMETOOLONG, dir, "is too long a name");
	/* SQLite would make it 0644; its -wal then has this mode too. */
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return failed_errno(path, "cannot be opened");
	close(fd);
	if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK)
		return store_failed_sqlite(s, dir);
	if (sqlite3_exec(s->db, pragmas, NULL, NULL, NULL) != SQLITE_OK)
		return store_failed_sqlite(s, dir);
	err = store_check_schema(s, dir);
	if (err)
		return err;
	for (unsigned i = 0; i < STMTS; i++) {
		const char *sql = statement_sql[i] ? statement_sql[i] : store_sessions_sql(i);

		if (sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s->statements[i],
				       NULL) != SQLITE_OK)
			return store_failed_sqlite(s, dir);
	}
	return 0;
}

static int load_serial(struct store *s, const char *dir)
{
	int64_t serial;

	if (store_one_number(s, "SELECT bundle_serial FROM gateway", &serial))
		return store_failed(-EUCLEAN, dir, "has a database without its gateway row");
	s->bundle_serial = (uint64_t)serial;
	return 0;
}

int store_open(const char *dir, struct store **ret_s)
{
	struct store *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return store_failed(-ENOMEM, dir, "no memory");
	s->lock_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	err = lock_dir(s, dir);
	if (!err)
		err = open_database(s, dir);
	if (!err)
		err = load_serial(s, dir);
	if (err) {
		store_close(s);
		return err;
	}
	*ret_s = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	if (s->started) {
		pthread_mutex_lock(&s->lock);
		s->stopping = true;
		pthread_cond_signal(&s->changed);
		pthread_mutex_unlock(&s->lock);
		pthread_join(s->thread, NULL);
	}
	for (unsigned i = 0; i < STMTS; i++)
		sqlite3_finalize(s->statements[i]);
	(void)sqlite3_close(s->db); /* nothing is open in it any more */
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* --- loading ---------------------------------------------------------------------------------- */

uint64_t store_bundle_serial(const struct store *s)
{
	return s->bundle_serial;
}

static int load_replay(const struct store_sink *sink, sqlite3_stmt *row)
{
	const char *id = (const char *)sqlite3_column_text(row, 0);
	struct broker_commit_replay r = {
		.window = { store_column(row, 1), { store_column(row, 2), store_column(row, 3) } },
		.seen_ms = store_column(row, 4),
	};

	if (!id)
		return -ENOMEM;
	if (snprintf(r.id, sizeof(r.id), "%s", id) >= (int)sizeof(r.id))
		return -EUCLEAN;
	return sink->replay(sink->ctx, &r);
}

static int load_context(const struct store_sink *sink, sqlite3_stmt *row)
{
	struct broker_commit_context c = { (uint32_t)store_column(row, 0), store_column(row, 1),
					   store_column(row, 2) };

	return sink->context(sink->ctx, &c);
}

static int load_revoked(const struct store_sink *sink, sqlite3_stmt *row)
{
	struct broker_commit_revoked r = { (uint32_t)store_column(row, 0), store_column(row, 1),
					   store_column(row, 2) };

	return sink->revoked(sink->ctx, &r);
}

int store_each(struct store *s, const char *sql,
	       int (*load)(const struct store_sink *sink, sqlite3_stmt *row),
	       const struct store_sink *sink)
{
	sqlite3_stmt *stmt;
	int code = sqlite3_prepare_v2(s->db, sql, -1, &stmt, NULL);
	int err = store_error_of(code);

	while (!err && (code = sqlite3_step(stmt)) == SQLITE_ROW)
		err = load(sink, stmt);
	if (!err)
		err = store_error_of(code);
	sqlite3_finalize(stmt);
	return err;
}

int store_load(struct store *s, const struct store_sink *sink)
{
	int err;

	BUG_ON(s->started);
	err = store_each(s, "SELECT key_id, revoked_at_ms, retire_before_ms FROM revoked",
			 load_revoked, sink);
	if (!err)
		err = store_each(s, "SELECT key_id, enc_hash, seen_ms FROM context", load_context,
				 sink);
	if (!err)
		err = store_each(s,
				 "SELECT id, highest, below0, below1, seen_ms FROM replay "
				 "ORDER BY seen_ms",
				 load_replay, sink);
	return err;
}

/* --- the thread ------------------------------------------------------------------------------- */

int store_run(struct store *s, enum statement which, int first, const uint64_t *numbers, int n)
{
	sqlite3_stmt *stmt = s->statements[which];
	int code = SQLITE_OK;

	for (int i = 0; i < n && code == SQLITE_OK; i++)
		code = sqlite3_bind_int64(stmt, first + i, (int64_t)numbers[i]);
	if (code == SQLITE_OK)
		code = sqlite3_step(stmt);
	/* Before reset, which says the same code again but may lose the words. */
	if (store_error_of(code))
		snprintf(s->words, sizeof(s->words), "%s", sqlite3_errmsg(s->db));
	(void)sqlite3_reset(stmt);
	return store_error_of(code);
}

static int write_replay(struct store *s, const struct broker_commit_replay *r)
{
	uint64_t numbers[] = { r->window.highest, r->window.below[0], r->window.below[1],
			       r->seen_ms };
	int code = sqlite3_bind_text(s->statements[STMT_REPLAY], 1, r->id, -1, SQLITE_STATIC);

	return code == SQLITE_OK ? store_run(s, STMT_REPLAY, 2, numbers, 4) : store_error_of(code);
}

static int write_replays(struct store *s, const struct broker_commit *c)
{
	uint64_t newest = 0;
	int err = 0;

	for (unsigned i = 0; i < c->n_replay && !err; i++) {
		if (c->replay[i].seen_ms > newest)
			newest = c->replay[i].seen_ms;
		err = write_replay(s, &c->replay[i]);
	}
	if (!err && newest > STORE_ORIGIN_MS) {
		uint64_t before = newest - STORE_ORIGIN_MS;

		err = store_run(s, STMT_FORGET_ORIGINS, 1, &before, 1);
	}
	return err;
}

static int write_contexts(struct store *s, const struct broker_commit *c)
{
	uint64_t newest = 0;
	int err = 0;

	for (unsigned i = 0; i < c->n_contexts && !err; i++) {
		const struct broker_commit_context *x = &c->contexts[i];
		uint64_t numbers[] = { x->key_id, x->enc_hash, x->seen_ms };

		if (x->seen_ms > newest)
			newest = x->seen_ms;
		err = store_run(s, STMT_CONTEXT, 1, numbers, 3);
	}
	/* By the times in the data, so that the database has one clock: the broker's. */
	if (!err && newest > STORE_CONTEXT_MS) {
		uint64_t before = newest - STORE_CONTEXT_MS;

		err = store_run(s, STMT_FORGET, 1, &before, 1);
	}
	return err;
}

static int write_all(struct store *s, const struct broker_commit *c)
{
	int err = write_replays(s, c);

	if (!err)
		err = write_contexts(s, c);
	for (unsigned i = 0; i < c->n_revoked && !err; i++) {
		const struct broker_commit_revoked *r = &c->revoked[i];
		uint64_t numbers[] = { r->key_id, r->revoked_at_ms, r->retire_before_ms };

		err = store_run(s, STMT_REVOKED, 1, numbers, 3);
	}
	if (!err)
		err = store_write_sessions(s, c);
	if (!err && c->bundle_serial)
		err = store_run(s, STMT_SERIAL, 1, &c->bundle_serial, 1);
	return err;
}

static int write_commit(struct store *s, const struct broker_commit *c)
{
	int err = store_run(s, STMT_BEGIN, 1, NULL, 0);

	if (err)
		return err;
	err = write_all(s, c);
	if (!err)
		err = store_run(s, STMT_COMMIT, 1, NULL, 0);
	/* Some errors (a full disk) have rolled back already; then there is nothing to undo. */
	if (err && !sqlite3_get_autocommit(s->db)) {
		char words[STORE_ERROR_BYTES];

		memcpy(words, s->words, sizeof(words));
		(void)store_run(s, STMT_ROLLBACK, 1, NULL,
				0); /* the first error is the one to tell */
		memcpy(s->words, words, sizeof(words));
	}
	return err;
}

static void *work(void *arg)
{
	struct store *s = arg;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		const struct broker_commit *c;

		while (!s->commit && !s->stopping)
			pthread_cond_wait(&s->changed, &s->lock);
		c = s->commit;
		if (!c)
			break;
		s->commit = NULL;
		pthread_mutex_unlock(&s->lock);
		s->error = write_commit(s, c);
		atomic_store(&s->done, true);
		wake_signal(s->wake);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* --- the loop's side -------------------------------------------------------------------------- */

int store_start(struct store *s, struct wake *wake)
{
	sigset_t all, before;
	int err;

	s->wake = wake;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = -pthread_create(&s->thread, NULL, work, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	s->started = !err;
	return err;
}

void store_submit(struct store *s, const struct broker_commit *c)
{
	BUG_ON(s->out || !s->started);
	s->out = true;
	pthread_mutex_lock(&s->lock);
	s->commit = c;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

bool store_busy(const struct store *s)
{
	return s->out;
}

bool store_ready(struct store *s)
{
	return atomic_load(&s->done);
}

bool store_poll(struct store *s, int *ret_error, const char **ret_words)
{
	if (!atomic_exchange(&s->done, false))
		return false;
	s->out = false;
	*ret_error = s->error;
	*ret_words = s->words;
	return true;
}
