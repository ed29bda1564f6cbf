// SPDX-License-Identifier: MIT
#include "userspace/distributor/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <uthash.h>

#include "userspace/base/file.h"
#include "userspace/distributor/alloc.h"

#define WAL_BYTES_MAX "16777216"
#define LOCK_FILE     "lock"
#define BUSY_WAIT_MS  2000 /* for a reader that checkpoints */
#define SEEN_BYTES    16
#define CACHE_MAX     65536 /* senders of views known to be on disk */
#define UNWRITTEN_MAX 4096  /* messages that are counted in memory alone */

enum sql {
	STMT_BEGIN,
	STMT_COMMIT,
	STMT_ROLLBACK,
	STMT_ID_FIND,
	STMT_ID_PUT,
	STMT_IDS_FORGET,
	STMT_SERIAL,
	STMT_FILTERS,
	STMT_FILTERS_CLEAR,
	STMT_FILTER_PUT,
	STMT_VIEW_PUT,
	STMT_VIEW_FIND,
	STMT_SEEN_PUT,
	STMT_COUNT,
	STMT_SEEN_FORGET,
	STMT_VIEW_FORGET,
	STMT_VIEW_COUNT,
	STMT_NEWEST,
	STMT_VIEWS,
	STMTS,
};

static const char *const statement_sql[STMTS] = {
	[STMT_BEGIN] = "BEGIN IMMEDIATE",
	[STMT_COMMIT] = "COMMIT",
	[STMT_ROLLBACK] = "ROLLBACK",
	[STMT_ID_FIND] = "SELECT external FROM external WHERE lookup = ?",
	[STMT_ID_PUT] = "INSERT INTO external (lookup, external, trace, from_ms, until_ms) "
			"VALUES (?, ?, ?, ?, ?)",
	[STMT_IDS_FORGET] = "DELETE FROM external WHERE lookup IN (SELECT lookup FROM external "
			    "WHERE until_ms BETWEEN 1 AND ? LIMIT ?)",
	[STMT_SERIAL] = "UPDATE distributor SET bundle_serial = ?",
	[STMT_FILTERS] = "SELECT filter FROM subscription",
	[STMT_FILTERS_CLEAR] = "DELETE FROM subscription",
	[STMT_FILTER_PUT] = "INSERT OR IGNORE INTO subscription (filter) VALUES (?)",
	[STMT_VIEW_PUT] = "INSERT OR IGNORE INTO view (period, outlet, topic, size_max, messages) "
			  "VALUES (?, ?, ?, ?, 0)",
	[STMT_VIEW_FIND] = "SELECT id FROM view WHERE period = ? AND outlet = ? AND topic = ? "
			   "AND size_max = ?",
	[STMT_SEEN_PUT] = "INSERT OR IGNORE INTO seen (view, sender) VALUES (?, ?)",
	[STMT_COUNT] = "UPDATE view SET messages = messages + ? WHERE id = ?",
	[STMT_SEEN_FORGET] =
		"DELETE FROM seen WHERE view IN (SELECT id FROM view WHERE period < ?)",
	[STMT_VIEW_FORGET] = "DELETE FROM view WHERE period < ?",
	[STMT_VIEW_COUNT] = "SELECT count(*) FROM view WHERE period = ?",
	[STMT_NEWEST] = "SELECT max(period) FROM view",
	[STMT_VIEWS] = "SELECT outlet, topic, size_max, messages, count(sender) AS senders "
		       "FROM view LEFT JOIN seen ON seen.view = view.id WHERE period = ? "
		       "GROUP BY view.id ORDER BY outlet, senders, topic, size_max",
};

static const char schema_sql[] = IDTABLE_SCHEMA_SQL
	"CREATE TABLE view (id INTEGER PRIMARY KEY, period INTEGER NOT NULL,"
	" outlet TEXT NOT NULL, topic TEXT NOT NULL, size_max INTEGER NOT NULL,"
	" messages INTEGER NOT NULL, UNIQUE (period, outlet, topic, size_max)) STRICT;"
	"CREATE TABLE seen (view INTEGER NOT NULL, sender BLOB NOT NULL,"
	" PRIMARY KEY (view, sender)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE subscription (filter TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;"
	"CREATE TABLE distributor (one INTEGER PRIMARY KEY CHECK (one = 1),"
	" bundle_serial INTEGER NOT NULL) STRICT;";

/* A sender of a view that is on disk, and how many of its messages are not counted there yet. */
struct sighting {
	UT_hash_handle hh; /* its key is a SHA-256: nobody chooses it */
	uint8_t key[SEEN_BYTES];
	struct list lru;
	int64_t view;
	uint64_t messages;
};

struct store {
	int lock_fd;
	sqlite3 *db;
	sqlite3_stmt *statements[STMTS];
	uint64_t serial;
	char words[256];
	struct sighting *sightings;
	struct list lru; /* oldest first */
	unsigned n_sightings;
	uint64_t unwritten;
	uint64_t period;  /* the last one that was begun */
	uint64_t n_views; /* of it */
};

/* What SQLite's code means to those who only know errno. */
static int error_of(int code)
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

const char *store_words(const struct store *s)
{
	return s->words;
}

/* --- statements ------------------------------------------------------------------------------- */

static void bind_number(struct store *s, enum sql which, int at, uint64_t n)
{
	(void)sqlite3_bind_int64(s->statements[which], at, (int64_t)n);
}

static void bind_blob(struct store *s, enum sql which, int at, const void *p, size_t n)
{
	(void)sqlite3_bind_blob(s->statements[which], at, p, (int)n, SQLITE_STATIC);
}

static void bind_text(struct store *s, enum sql which, int at, struct bytes v)
{
	(void)sqlite3_bind_text(s->statements[which], at, (const char *)v.p, (int)v.n,
				SQLITE_STATIC);
}

/* Whether there is a row; a statement that has one must be reset by its reader. A binding that
 * found no memory shows here: the column is then NULL, which no table takes. */
static int step(struct store *s, enum sql which, bool *ret_row)
{
	int code = sqlite3_step(s->statements[which]);

	*ret_row = code == SQLITE_ROW;
	if (error_of(code))
		snprintf(s->words, sizeof(s->words), "%s", sqlite3_errmsg(s->db));
	if (!*ret_row)
		(void)sqlite3_reset(s->statements[which]);
	return error_of(code);
}

static int run(struct store *s, enum sql which)
{
	bool row;
	int err = step(s, which, &row);

	(void)sqlite3_reset(s->statements[which]);
	return err;
}

static int end_transaction(struct store *s, int err)
{
	if (!err)
		err = run(s, STMT_COMMIT);
	/* Some errors (a full disk) have rolled back already; then there is nothing to undo. */
	if (err && !sqlite3_get_autocommit(s->db)) {
		char words[sizeof(s->words)];

		memcpy(words, s->words, sizeof(words));
		(void)run(s, STMT_ROLLBACK); /* the first error is the one to tell */
		memcpy(s->words, words, sizeof(words));
	}
	return err;
}

/* --- opening ---------------------------------------------------------------------------------- */

static int failed(char *why, int err, const char *dir, const char *what)
{
	snprintf(why, STORE_ERROR_BYTES, "%s: %s", dir, what);
	return err;
}

static int failed_errno(char *why, const char *dir, const char *what)
{
	int err = errno;

	snprintf(why, STORE_ERROR_BYTES, "%s: %s: %s", dir, what, strerror(err));
	return -err;
}

static int failed_sqlite(char *why, const struct store *s, const char *dir)
{
	int code = s->db ? sqlite3_errcode(s->db) : SQLITE_NOMEM;

	snprintf(why, STORE_ERROR_BYTES, "%s/" IDTABLE_FILE ": %s", dir,
		 s->db ? sqlite3_errmsg(s->db) : "no memory");
	return error_of(code) ? error_of(code) : -EIO;
}

/* The directory, ours alone, and the lock in it. */
static int lock_dir(struct store *s, const char *dir, char *why)
{
	char path[FILE_PATH_BYTES_MAX];
	struct stat st;

	if (mkdir(dir, 0700) && errno != EEXIST)
		return failed_errno(why, dir, "cannot be made");
	if (stat(dir, &st))
		return failed_errno(why, dir, "cannot be looked at");
	if (!S_ISDIR(st.st_mode))
		return failed(why, -ENOTDIR, dir, "is not a directory");
	if (st.st_uid != geteuid() || (st.st_mode & 077))
		return failed(why, -EPERM, dir,
			      "must belong to the distributor's user and have mode 0700");
	if (file_join(dir, LOCK_FILE, path))
		return failed(why, -ENAMETOOLONG, dir, "is too long a name");
	s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0)
		return failed_errno(why, path, "cannot be opened");
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB)) {
		if (errno == EWOULDBLOCK)
			return failed(why, -EBUSY, dir,
				      "is in use by another distributor (one directory each)");
		return failed_errno(why, path, "cannot be locked");
	}
	return 0;
}

static int one_number(struct store *s, const char *sql, int64_t *ret_n)
{
	sqlite3_stmt *stmt;
	int code = sqlite3_prepare_v2(s->db, sql, -1, &stmt, NULL);

	if (code != SQLITE_OK)
		return error_of(code);
	code = sqlite3_step(stmt);
	if (code == SQLITE_ROW)
		*ret_n = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	return code == SQLITE_DONE ? -ENOENT : error_of(code);
}

/* An empty database becomes ours; everything in one transaction. */
static int create(struct store *s)
{
	char ours[160];

	snprintf(ours, sizeof(ours),
		 "INSERT INTO distributor VALUES (1, 0);"
		 "PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
		 IDTABLE_APPLICATION_ID, IDTABLE_SCHEMA_VERSION);
	if (sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_exec(s->db, schema_sql, NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_exec(s->db, ours, NULL, NULL, NULL) != SQLITE_OK)
		return -EIO; /* the caller asks SQLite */
	return 0;
}

static int check_schema(struct store *s, const char *dir, bool reader, char *why)
{
	int64_t version, application, tables;

	if (one_number(s, "PRAGMA user_version", &version) ||
	    one_number(s, "PRAGMA application_id", &application) ||
	    one_number(s, "SELECT count(*) FROM sqlite_schema", &tables))
		return failed_sqlite(why, s, dir);
	if (!version && !application && !tables && !reader)
		return create(s) ? failed_sqlite(why, s, dir) : 0;
	if (application != IDTABLE_APPLICATION_ID)
		return failed(why, -EPROTO, dir,
			      "has a " IDTABLE_FILE " that is not this program's");
	if (version != IDTABLE_SCHEMA_VERSION) {
		snprintf(why, STORE_ERROR_BYTES,
			 "%s: has a database of version %lld; this program reads version %d", dir,
			 (long long)version, IDTABLE_SCHEMA_VERSION);
		return -EPROTO;
	}
	return 0;
}

/* SQLite's NOFOLLOW is about every part of the path; only the file itself is ours to judge. */
static int path_of(const char *dir, char path[FILE_PATH_BYTES_MAX], char *why)
{
	char *real = realpath(dir, NULL);
	int err;

	if (!real)
		return failed_errno(why, dir, "cannot be resolved");
	err = file_join(real, IDTABLE_FILE, path);
	free(real);
	return err ? failed(why, err, dir, "is too long a name") : 0;
}

static int open_database(struct store *s, const char *dir, bool reader, char *why)
{
	static const char pragmas[] = "PRAGMA journal_mode = WAL;"
				      "PRAGMA synchronous = FULL;"
				      "PRAGMA journal_size_limit = " WAL_BYTES_MAX ";"
				      "PRAGMA trusted_schema = OFF;";
	int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE;
	char path[FILE_PATH_BYTES_MAX];
	int err = path_of(dir, path, why), fd;

	if (err)
		return err;
	/* SQLite would make it 0644; its -wal then has this mode too. */
	fd = open(path,
		  reader ? O_RDONLY | O_CLOEXEC | O_NOFOLLOW
			 : O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
		  0600);
	if (fd < 0)
		return failed_errno(why, path, "cannot be opened");
	close(fd);
	flags |= reader ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
	if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK ||
	    sqlite3_busy_timeout(s->db, BUSY_WAIT_MS) != SQLITE_OK)
		return failed_sqlite(why, s, dir);
	if (!reader && sqlite3_exec(s->db, pragmas, NULL, NULL, NULL) != SQLITE_OK)
		return failed_sqlite(why, s, dir);
	return 0;
}

static int prepare(struct store *s, const char *dir, char *why)
{
	int64_t serial;

	for (unsigned i = 0; i < STMTS; i++)
		if (sqlite3_prepare_v3(s->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
				       &s->statements[i], NULL) != SQLITE_OK)
			return failed_sqlite(why, s, dir);
	if (one_number(s, "SELECT bundle_serial FROM distributor", &serial))
		return failed(why, -EUCLEAN, dir, "has a database without its one row");
	s->serial = (uint64_t)serial;
	return 0;
}

static struct store *store_new(void)
{
	struct store *s = alloc_zeroed(sizeof(*s));

	s->lock_fd = -1;
	list_init(&s->lru);
	return s;
}

static int open_either(const char *dir, bool reader, struct store **ret_s, char *why)
{
	struct store *s = store_new();
	int err = reader ? 0 : lock_dir(s, dir, why);

	if (!err)
		err = open_database(s, dir, reader, why);
	if (!err)
		err = check_schema(s, dir, reader, why);
	if (!err)
		err = prepare(s, dir, why);
	if (err) {
		store_close(s);
		return err;
	}
	*ret_s = s;
	return 0;
}

int store_open(const char *dir, struct store **ret_s, char why[STORE_ERROR_BYTES])
{
	return open_either(dir, false, ret_s, why);
}

int store_open_reader(const char *dir, struct store **ret_s, char why[STORE_ERROR_BYTES])
{
	return open_either(dir, true, ret_s, why);
}

static void sighting_free(struct store *s, struct sighting *v)
{
	HASH_DELETE(hh, s->sightings, v);
	list_del(&v->lru);
	s->n_sightings--;
	free(v);
}

void store_close(struct store *s)
{
	if (!s)
		return;
	if (store_flush(s))
		s->unwritten = 0; /* numbers of messages: what is lost of them harms nobody */
	while (!list_empty(&s->lru))
		sighting_free(s, list_first(&s->lru, struct sighting, lru));
	for (unsigned i = 0; i < STMTS; i++)
		sqlite3_finalize(s->statements[i]);
	(void)sqlite3_close(s->db); /* nothing is open in it any more */
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	free(s);
}

/* --- serial, filters -------------------------------------------------------------------------- */

uint64_t store_serial(const struct store *s)
{
	return s->serial;
}

int store_set_serial(struct store *s, uint64_t serial)
{
	int err;

	bind_number(s, STMT_SERIAL, 1, serial);
	err = run(s, STMT_SERIAL);
	if (!err)
		s->serial = serial;
	return err;
}

static struct bytes column_text(sqlite3_stmt *stmt, int at)
{
	const void *p = sqlite3_column_text(stmt, at);

	return bytes_of(p, p ? (size_t)sqlite3_column_bytes(stmt, at) : 0);
}

int store_filters(struct store *s, int (*fn)(void *ctx, struct bytes filter), void *ctx)
{
	bool row = true;
	int err = 0;

	while (!err && row) {
		err = step(s, STMT_FILTERS, &row);
		if (!err && row)
			err = fn(ctx, column_text(s->statements[STMT_FILTERS], 0));
	}
	(void)sqlite3_reset(s->statements[STMT_FILTERS]);
	return err;
}

int store_set_filters(struct store *s, const struct bytes *filters, unsigned n)
{
	int err = run(s, STMT_BEGIN);

	if (err)
		return err;
	err = run(s, STMT_FILTERS_CLEAR);
	for (unsigned i = 0; i < n && !err; i++) {
		bind_text(s, STMT_FILTER_PUT, 1, filters[i]);
		err = run(s, STMT_FILTER_PUT);
	}
	return end_transaction(s, err);
}

/* --- external ids ----------------------------------------------------------------------------- */

int store_id_find(struct store *s, const uint8_t lookup[IDTABLE_LOOKUP_BYTES],
		  uint8_t ret_external[IDTABLE_EXTERNAL_BYTES])
{
	sqlite3_stmt *stmt = s->statements[STMT_ID_FIND];
	const void *external;
	bool row;
	int err;

	bind_blob(s, STMT_ID_FIND, 1, lookup, IDTABLE_LOOKUP_BYTES);
	err = step(s, STMT_ID_FIND, &row);
	if (err)
		return err;
	if (!row)
		return -ENOENT;
	external = sqlite3_column_blob(stmt, 0);
	if (external && sqlite3_column_bytes(stmt, 0) == IDTABLE_EXTERNAL_BYTES)
		memcpy(ret_external, external, IDTABLE_EXTERNAL_BYTES);
	else
		err = -EUCLEAN;
	(void)sqlite3_reset(stmt);
	return err;
}

int store_ids_put(struct store *s, const struct relay_row *rows, unsigned n)
{
	int err = run(s, STMT_BEGIN);

	if (err)
		return err;
	for (unsigned i = 0; i < n && !err; i++) {
		bind_blob(s, STMT_ID_PUT, 1, rows[i].lookup, sizeof(rows[i].lookup));
		bind_blob(s, STMT_ID_PUT, 2, rows[i].external, sizeof(rows[i].external));
		bind_blob(s, STMT_ID_PUT, 3, rows[i].trace, rows[i].trace_n);
		bind_number(s, STMT_ID_PUT, 4, rows[i].from_ms);
		bind_number(s, STMT_ID_PUT, 5, rows[i].until_ms);
		err = run(s, STMT_ID_PUT);
	}
	return end_transaction(s, err);
}

int store_ids_forget(struct store *s, uint64_t before_ms, bool *ret_more)
{
	int err;

	if (!before_ms)
		return -EINVAL;
	bind_number(s, STMT_IDS_FORGET, 1, before_ms - 1);
	bind_number(s, STMT_IDS_FORGET, 2, STORE_FORGET_MAX);
	err = run(s, STMT_IDS_FORGET);
	if (!err)
		*ret_more = sqlite3_changes(s->db) == STORE_FORGET_MAX;
	return err;
}

/* --- anonymity -------------------------------------------------------------------------------- */

static uint64_t size_class(size_t plain_n)
{
	uint64_t size = STORE_SIZE_MIN;

	while (size < plain_n)
		size *= 2;
	return size;
}

/* Of the view and the mark: rows of two outlets or periods do not show who is the same. */
static void key_of(const struct relay_sight *v, uint64_t period, uint64_t size,
		   uint8_t ret_key[SEEN_BYTES])
{
	uint8_t numbers[2 * 8], hash[HASH_BYTES];
	uint8_t lengths[2 * 4];
	struct bytes parts[] = { bytes_of(v->mark, sizeof(v->mark)),
				 bytes_of(numbers, sizeof(numbers)),
				 bytes_of(lengths, sizeof(lengths)), v->outlet, v->topic };

	bytes_store_u64(numbers, period);
	bytes_store_u64(numbers + 8, size);
	bytes_store_u32(lengths, (uint32_t)v->outlet.n);
	bytes_store_u32(lengths + 4, (uint32_t)v->topic.n);
	hash_parts(parts, ARRAY_SIZE(parts), hash);
	memcpy(ret_key, hash, SEEN_BYTES);
}

static int view_find(struct store *s, enum sql which, const struct relay_sight *v, uint64_t period,
		     bool *ret_row)
{
	bind_number(s, which, 1, period);
	bind_text(s, which, 2, v->outlet);
	bind_text(s, which, 3, v->topic);
	bind_number(s, which, 4, size_class(v->plain_n));
	return step(s, which, ret_row);
}

/* The view's row, made where there is none. */
static int view_id(struct store *s, const struct relay_sight *v, uint64_t period, int64_t *ret_id)
{
	bool row;
	int err = view_find(s, STMT_VIEW_FIND, v, period, &row);

	if (!err && !row) {
		if (s->n_views >= STORE_VIEWS_MAX)
			return -E2BIG;
		err = view_find(s, STMT_VIEW_PUT, v, period, &row);
		s->n_views += !err;
		if (!err)
			err = view_find(s, STMT_VIEW_FIND, v, period, &row);
	}
	if (err)
		return err;
	if (!row)
		return -EUCLEAN;
	*ret_id = sqlite3_column_int64(s->statements[STMT_VIEW_FIND], 0);
	(void)sqlite3_reset(s->statements[STMT_VIEW_FIND]);
	return 0;
}

/* The first sender of a period, or the first since the start: what is too old goes. */
static int begin_period(struct store *s, uint64_t period)
{
	sqlite3_stmt *count = s->statements[STMT_VIEW_COUNT];
	int err = 0;
	bool row;

	if (period == s->period)
		return 0;
	if (period > STORE_PERIODS_KEPT) {
		bind_number(s, STMT_SEEN_FORGET, 1, period - STORE_PERIODS_KEPT);
		bind_number(s, STMT_VIEW_FORGET, 1, period - STORE_PERIODS_KEPT);
		err = run(s, STMT_SEEN_FORGET);
		if (!err)
			err = run(s, STMT_VIEW_FORGET);
	}
	bind_number(s, STMT_VIEW_COUNT, 1, period);
	if (!err)
		err = step(s, STMT_VIEW_COUNT, &row);
	if (err)
		return err;
	s->n_views = (uint64_t)sqlite3_column_int64(count, 0);
	s->period = period;
	(void)sqlite3_reset(count);
	return 0;
}

static int count_messages(struct store *s)
{
	struct list *pos;
	int err = 0;

	list_for_each(pos, &s->lru) {
		struct sighting *v = list_entry(pos, struct sighting, lru);

		if (err || !v->messages)
			continue;
		bind_number(s, STMT_COUNT, 1, v->messages);
		bind_number(s, STMT_COUNT, 2, (uint64_t)v->view);
		err = run(s, STMT_COUNT);
	}
	return err;
}

/* What was counted in memory is on disk now. */
static void counted(struct store *s)
{
	struct list *pos;

	list_for_each(pos, &s->lru)
		list_entry(pos, struct sighting, lru)->messages = 0;
	s->unwritten = 0;
}

int store_flush(struct store *s)
{
	int err;

	if (!s->unwritten)
		return 0;
	err = run(s, STMT_BEGIN);
	if (err)
		return err;
	err = end_transaction(s, count_messages(s));
	if (!err)
		counted(s);
	return err;
}

/* A new sender of a view. */
static int first_sight(struct store *s, const struct relay_sight *v, uint64_t period,
		       struct sighting *to)
{
	int err = run(s, STMT_BEGIN);

	if (err)
		return err;
	err = begin_period(s, period);
	if (!err)
		err = view_id(s, v, period, &to->view);
	if (!err) {
		bind_number(s, STMT_SEEN_PUT, 1, (uint64_t)to->view);
		bind_blob(s, STMT_SEEN_PUT, 2, to->key, sizeof(to->key));
		err = run(s, STMT_SEEN_PUT);
	}
	err = end_transaction(s, err);
	if (err)
		s->period = 0; /* what was counted of it may have been undone */
	return err;
}

int store_sight(struct store *s, const struct relay_sight *v, uint64_t period)
{
	uint8_t key[SEEN_BYTES];
	struct sighting *known;
	int err;

	key_of(v, period, size_class(v->plain_n), key);
	HASH_FIND(hh, s->sightings, key, sizeof(key), known);
	if (!known) {
		if (s->n_sightings >= CACHE_MAX) {
			err = store_flush(s);
			if (err)
				return err;
			sighting_free(s, list_first(&s->lru, struct sighting, lru));
		}
		known = alloc_zeroed(sizeof(*known));
		memcpy(known->key, key, sizeof(key));
		err = first_sight(s, v, period, known);
		if (err) {
			free(known);
			return err;
		}
		list_init(&known->lru);
		HASH_ADD(hh, s->sightings, key, sizeof(known->key), known);
		s->n_sightings++;
	}
	list_del(&known->lru);
	list_add_tail(&s->lru, &known->lru);
	known->messages++;
	return ++s->unwritten >= UNWRITTEN_MAX ? store_flush(s) : 0;
}

int store_newest_period(struct store *s, uint64_t *ret_period)
{
	sqlite3_stmt *stmt = s->statements[STMT_NEWEST];
	bool row, some;
	int err = step(s, STMT_NEWEST, &row);

	if (err)
		return err;
	some = row && sqlite3_column_type(stmt, 0) != SQLITE_NULL;
	if (some)
		*ret_period = (uint64_t)sqlite3_column_int64(stmt, 0);
	(void)sqlite3_reset(stmt);
	return some ? 0 : -ENOENT;
}

int store_views(struct store *s, uint64_t period, int (*fn)(void *ctx, const struct store_view *v),
		void *ctx)
{
	sqlite3_stmt *stmt = s->statements[STMT_VIEWS];
	bool row = true;
	int err = 0;

	bind_number(s, STMT_VIEWS, 1, period);
	while (!err && row) {
		struct store_view v = { .period = period };

		err = step(s, STMT_VIEWS, &row);
		if (err || !row)
			break;
		v.outlet = column_text(stmt, 0);
		v.topic = column_text(stmt, 1);
		v.size_max = (uint64_t)sqlite3_column_int64(stmt, 2);
		v.messages = (uint64_t)sqlite3_column_int64(stmt, 3);
		v.senders = (uint64_t)sqlite3_column_int64(stmt, 4);
		err = fn(ctx, &v);
	}
	(void)sqlite3_reset(stmt);
	return err;
}
