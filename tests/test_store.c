// SPDX-License-Identifier: MIT
/*
 * The broker's threads: crypto workers (all jobs, in order, whatever they take) and the storage
 * thread (what was said to be committed is there, whole, whatever ends the process). This is the
 * program that the thread sanitizer is for.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/harness.h"
#include "userspace/broker/broker.h"
#include "userspace/broker/verify.h"
#include "userspace/core/store.h"
#include "userspace/core/wake.h"
#include "userspace/core/workers.h"

#define PATH_BYTES 512
#define TEXT(n)	   #n
#define TEXT_OF(n) TEXT(n)
#define OURS	   "PRAGMA user_version = " TEXT_OF(STORE_SCHEMA_VERSION)

/* Sleeps as the loop does: announces it, looks once more, waits. */
static void sleep_until_ready(struct wake *wake, bool (*ready)(void *), void *arg)
{
	struct pollfd p = { .fd = wake->fd, .events = POLLIN };

	wake_sleep(wake);
	if (!ready(arg))
		ASSERT_EQ(poll(&p, 1, 20000), 1); /* a wake that is lost shows here */
	wake_awake(wake);
	wake_clear(wake);
}

/* --- workers ---------------------------------------------------------------------------------- */

#define JOBS 20000

static struct broker_verify jobs[JOBS];
static pthread_t ran_on[JOBS];
static atomic_uint runs;

static void nap_us(unsigned us)
{
	const struct timespec t = { .tv_nsec = us * 1000 };

	nanosleep(&t, NULL);
}

/* Takes long now and then, so that later jobs are done before earlier ones. */
static void run_job(struct broker_verify *job)
{
	size_t n = (size_t)(job - jobs);

	if (n % 97 == 0)
		nap_us(200);
	job->counter = n * 3 + 1;
	ran_on[n] = pthread_self();
	atomic_fetch_add(&runs, 1);
}

/* Jobs of one batch have one topic. */
static bool same_topic(const struct broker_verify *before, const struct broker_verify *job)
{
	return before->topic.n && before->topic.n == job->topic.n;
}

static const struct workers_ops ops = { run_job, same_topic };

FIXTURE(workers)
{
	struct wake wake;
	struct workers *w;
	size_t out, back;
};

FIXTURE_VARIANT(workers)
{
	unsigned threads;
};
FIXTURE_VARIANT_ADD(workers, one){ .threads = 1 };
FIXTURE_VARIANT_ADD(workers, four){ .threads = 4 };
FIXTURE_VARIANT_ADD(workers, many){ .threads = 17 };

FIXTURE_SETUP(workers)
{
	ASSERT_EQ(wake_init(&self->wake), 0);
	ASSERT_EQ(workers_new(variant->threads, &self->wake, &ops, &self->w), 0);
}

FIXTURE_TEARDOWN(workers)
{
	workers_free(self->w);
	wake_deinit(&self->wake);
}

static bool workers_have_one(void *arg)
{
	return workers_ready(arg);
}

static void retire_all(struct fixture_workers *self)
{
	struct broker_verify *job;

	while ((job = workers_retire(self->w))) {
		ASSERT_EQ(job - jobs, self->back);
		ASSERT_EQ(job->counter, self->back * 3 + 1);
		self->back++;
	}
}

static void submit(struct fixture_workers *self, size_t n)
{
	while (n-- && self->out < JOBS)
		workers_submit(self->w, &jobs[self->out++]);
	workers_publish(self->w);
}

TEST_F(workers, retires_in_order_what_comes_in_bursts)
{
	while (self->back < JOBS) {
		retire_all(self);
		submit(self, harness_random() % 300);
		if (self->back < self->out && harness_random() % 4 == 0)
			sleep_until_ready(&self->wake, workers_have_one, self->w);
	}
	ASSERT_EQ(atomic_load(&runs), JOBS);
	ASSERT_EQ(workers_pending(self->w), 0);
}

TEST_F(workers, takes_more_than_there_are_slots)
{
	submit(self, JOBS);
	ASSERT_EQ(workers_pending(self->w), JOBS);
	while (self->back < JOBS) {
		sleep_until_ready(&self->wake, workers_have_one, self->w);
		retire_all(self);
		workers_publish(self->w);
	}
	ASSERT_EQ(atomic_load(&runs), JOBS);
}

TEST_F(workers, wakes_for_each_of_single_jobs)
{
	for (unsigned i = 0; i < 500; i++) {
		submit(self, 1);
		while (self->back == i) {
			sleep_until_ready(&self->wake, workers_have_one, self->w);
			retire_all(self);
		}
	}
}

TEST_F(workers, nothing_runs_before_it_is_published)
{
	workers_submit(self->w, &jobs[0]);
	nap_us(20000);
	ASSERT_EQ(atomic_load(&runs), 0);
	self->out = 1;
	submit(self, 0);
	sleep_until_ready(&self->wake, workers_have_one, self->w);
	retire_all(self);
	ASSERT_EQ(self->back, 1);
}

/* Of batches of one to fifty, each published whole: no two threads pay for one signature. */
TEST_F(workers, one_thread_does_a_batch)
{
	size_t batch = 0;

	while (self->out < JOBS / 4) {
		size_t first = self->out, n = 0;

		while (n < 100) {
			size_t in_batch = 1 + harness_random() % 50;

			batch++;
			for (size_t i = 0; i < in_batch; i++)
				jobs[first + n++].topic.n = batch;
		}
		submit(self, n);
		while (self->back < self->out) {
			sleep_until_ready(&self->wake, workers_have_one, self->w);
			retire_all(self);
		}
	}
	for (size_t i = 1; i < self->back; i++)
		if (jobs[i].topic.n == jobs[i - 1].topic.n)
			ASSERT_TRUE(pthread_equal(ran_on[i], ran_on[i - 1]));
}

/* Each job waits until all threads have one: with one wake for all, none may be left asleep. */
static pthread_barrier_t everybody;

static void run_together(struct broker_verify *job)
{
	job->counter = (uint64_t)(job - jobs) * 3 + 1;
	(void)pthread_barrier_wait(&everybody); /* tells one of them that it is the last */
}

TEST_F(workers, one_publish_keeps_all_busy)
{
	static const struct workers_ops together = { run_together, NULL };

	workers_free(self->w);
	ASSERT_EQ(pthread_barrier_init(&everybody, NULL, variant->threads), 0);
	ASSERT_EQ(workers_new(variant->threads, &self->wake, &together, &self->w), 0);
	for (unsigned i = 0; i < harness_rounds(100); i++) {
		submit(self, variant->threads);
		while (self->back < self->out) {
			sleep_until_ready(&self->wake, workers_have_one, self->w);
			retire_all(self);
		}
	}
	pthread_barrier_destroy(&everybody);
}

/* --- store ------------------------------------------------------------------------------------ */

#define SENDERS_MAX 4096

/* What a loading brought. */
struct loaded {
	unsigned n_replay, n_contexts, n_revoked;
	uint64_t highest_least, highest_most;
	struct replay_window last_replay;
	struct broker_commit_context last_context;
	struct broker_commit_revoked last_revoked;
	char last_id[BROKER_SENDER_BYTES_MAX];
	uint64_t last_seen_ms;
};

static int on_replay(void *ctx, const struct broker_commit_replay *r)
{
	const struct replay_window *w = &r->window;
	struct loaded *l = ctx;

	if (!l->n_replay++ || w->highest < l->highest_least)
		l->highest_least = w->highest;
	if (w->highest > l->highest_most)
		l->highest_most = w->highest;
	ASSERT_TRUE(r->seen_ms >= l->last_seen_ms);
	l->last_seen_ms = r->seen_ms;
	l->last_replay = *w;
	snprintf(l->last_id, sizeof(l->last_id), "%s", r->id);
	return 0;
}

static int on_context(void *ctx, const struct broker_commit_context *c)
{
	struct loaded *l = ctx;

	l->n_contexts++;
	l->last_context = *c;
	return 0;
}

static int on_revoked(void *ctx, const struct broker_commit_revoked *r)
{
	struct loaded *l = ctx;

	l->n_revoked++;
	l->last_revoked = *r;
	return 0;
}

static struct loaded load(struct store *s)
{
	struct loaded l = { 0 };
	struct store_sink sink = {
		.replay = on_replay,
		.context = on_context,
		.revoked = on_revoked,
		.ctx = &l,
	};

	ASSERT_EQ(store_load(s, &sink), 0);
	return l;
}

FIXTURE(store)
{
	char base[PATH_BYTES];
	char dir[PATH_BYTES + 8];
	char file[PATH_BYTES + 32];
	struct wake wake;
	struct store *s;
};

FIXTURE_SETUP(store)
{
	snprintf(self->base, sizeof(self->base), "%s/ssdtf-store-XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	ASSERT_TRUE(mkdtemp(self->base));
	snprintf(self->dir, sizeof(self->dir), "%s/state", self->base);
	snprintf(self->file, sizeof(self->file), "%s/broker.db", self->dir);
	ASSERT_EQ(wake_init(&self->wake), 0);
}

static void remove_in(const char *dir, const char *name)
{
	char path[PATH_BYTES + 64];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	(void)unlink(path); /* not each of them is there */
}

FIXTURE_TEARDOWN(store)
{
	static const char *const names[] = { "lock", "broker.db", "broker.db-wal", "broker.db-shm",
					     "broker.db-journal" };

	store_close(self->s);
	wake_deinit(&self->wake);
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		remove_in(self->dir, names[i]);
	(void)rmdir(self->dir);
	ASSERT_EQ(rmdir(self->base), 0);
}

static void reopen(struct fixture_store *self)
{
	store_close(self->s);
	self->s = NULL;
	if (store_open(self->dir, &self->s))
		harness_fail(__FILE__, __LINE__, true, "%s", store_open_error());
}

static void start(struct fixture_store *self)
{
	reopen(self);
	ASSERT_EQ(store_start(self->s, &self->wake), 0);
}

static bool store_has_one(void *arg)
{
	return store_ready(arg);
}

/* Submits and waits as the loop does. The words, where wanted, are copied. */
static int commit(struct store *s, struct wake *wake, const struct broker_commit *c, char *words,
		  size_t room)
{
	const char *said;
	int error;

	ASSERT_FALSE(store_busy(s));
	store_submit(s, c);
	ASSERT_TRUE(store_busy(s));
	sleep_until_ready(wake, store_has_one, s);
	ASSERT_TRUE(store_poll(s, &error, &said));
	ASSERT_FALSE(store_poll(s, &error, &said));
	if (words)
		snprintf(words, room, "%s", said);
	return error;
}

/* n senders, all with the same highest counter, and that as the bundle's serial. */
static struct broker_commit_replay senders[SENDERS_MAX];

static struct broker_commit commit_of(unsigned n, uint64_t k)
{
	for (unsigned i = 0; i < n; i++) {
		snprintf(senders[i].id, sizeof(senders[i].id), "sender-%04u", i);
		senders[i].window = (struct replay_window){ k, { k * 3, k * 5 } };
		senders[i].seen_ms = 0;
	}
	return (struct broker_commit){ .n_replay = n, .replay = senders, .bundle_serial = k };
}

TEST_F(store, gives_back_what_was_committed)
{
	struct broker_commit_context contexts[] = {
		{ 7, UINT64_MAX, 10ull << 40 },
		{ UINT32_MAX, 1, (10ull << 40) + 5 },
	};
	struct broker_commit_revoked revoked = { 0xfffffffe, UINT64_MAX - 1, 12345 };
	struct broker_commit c = commit_of(3, UINT64_MAX);
	struct loaded l;

	c.n_contexts = 2;
	c.contexts = contexts;
	c.n_revoked = 1;
	c.revoked = &revoked;
	start(self);
	ASSERT_EQ(commit(self->s, &self->wake, &c, NULL, 0), 0);
	reopen(self);
	ASSERT_TRUE(store_bundle_serial(self->s) == UINT64_MAX);
	l = load(self->s);
	ASSERT_EQ(l.n_replay, 3);
	ASSERT_STREQ(l.last_id, "sender-0002");
	ASSERT_BYTES(&l.last_replay, &senders[2].window, sizeof(l.last_replay));
	ASSERT_EQ(l.n_contexts, 2);
	ASSERT_EQ(l.last_context.key_id, UINT32_MAX);
	ASSERT_EQ(l.last_context.seen_ms, (10ull << 40) + 5);
	ASSERT_EQ(l.n_revoked, 1);
	ASSERT_EQ(l.last_revoked.key_id, 0xfffffffe);
	ASSERT_TRUE(l.last_revoked.revoked_at_ms == UINT64_MAX - 1);
	ASSERT_EQ(l.last_revoked.retire_before_ms, 12345);
}

TEST_F(store, keeps_the_latest_and_the_serial_of_no_bundle)
{
	struct broker_commit c;
	struct loaded l;

	start(self);
	for (uint64_t k = 1; k <= 5; k++) {
		c = commit_of(10, k);
		ASSERT_EQ(commit(self->s, &self->wake, &c, NULL, 0), 0);
	}
	c = commit_of(4, 9);
	c.bundle_serial = 0; /* unchanged */
	ASSERT_EQ(commit(self->s, &self->wake, &c, NULL, 0), 0);
	reopen(self);
	l = load(self->s);
	ASSERT_EQ(l.n_replay, 10);
	ASSERT_EQ(l.highest_least, 5);
	ASSERT_EQ(l.highest_most, 9);
	ASSERT_EQ(store_bundle_serial(self->s), 5);
}

TEST_F(store, forgets_contexts_after_their_two_hours)
{
	uint64_t now = 1700000000000;
	struct broker_commit_context x = { 1, 0, 0 };
	struct broker_commit c = { .n_contexts = 1, .contexts = &x };
	struct loaded l;

	start(self);
	for (unsigned minutes = 0; minutes <= 180; minutes += 30) {
		x.enc_hash = minutes;
		x.seen_ms = now + minutes * 60000;
		ASSERT_EQ(commit(self->s, &self->wake, &c, NULL, 0), 0);
	}
	/* The same one again, seen later: one row, the later time. */
	x.seen_ms++;
	ASSERT_EQ(commit(self->s, &self->wake, &c, NULL, 0), 0);
	reopen(self);
	l = load(self->s);
	ASSERT_EQ(l.n_contexts, 4); /* at 90, 120, 150, 180 minutes; 60 is a moment too old */
	ASSERT_EQ(l.last_context.enc_hash, 180);
	ASSERT_EQ(l.last_context.seen_ms, now + 180 * 60000 + 1);
}

/* One of an origin that a distributor brings, with the longest name. */
static struct broker_commit_replay pair_of(char of, uint64_t seen_ms)
{
	struct broker_commit_replay r = { .window = { 1, { 0 } }, .seen_ms = seen_ms };

	memset(r.id, of, sizeof(r.id) - 1);
	r.id[64] = '/';
	return r;
}

TEST_F(store, forgets_origins_after_their_thirty_days)
{
	const uint64_t now = 1700000000000, day = 24 * 3600 * 1000ull;
	struct broker_commit_replay r[] = { pair_of('a', now), pair_of('b', now + day) };
	struct broker_commit c = commit_of(3, 1);
	struct loaded l;

	start(self);
	ASSERT_EQ(commit(self->s, &self->wake, &c, NULL, 0), 0);
	c = (struct broker_commit){ .n_replay = 2, .replay = r };
	ASSERT_EQ(commit(self->s, &self->wake, &c, NULL, 0), 0);
	reopen(self);
	l = load(self->s);
	ASSERT_EQ(l.n_replay, 5);
	ASSERT_STREQ(l.last_id, r[1].id);
	ASSERT_EQ(l.last_seen_ms, now + day);
	start(self);
	r[1].seen_ms = now + 30 * day + 1;
	c = (struct broker_commit){ .n_replay = 1, .replay = r + 1 };
	ASSERT_EQ(commit(self->s, &self->wake, &c, NULL, 0), 0);
	reopen(self);
	l = load(self->s);
	ASSERT_EQ(l.n_replay, 4); /* the senders of their own stay for good */
	ASSERT_EQ(l.last_seen_ms, now + 30 * day + 1);
}

/* In the child: commits with ascending k until it is killed; says each k that it was told is done.
 */
static void commit_forever(const char *dir, int fd, uint64_t k)
{
	struct wake wake;
	struct store *s;

	ASSERT_EQ(wake_init(&wake), 0);
	ASSERT_EQ(store_open(dir, &s), 0);
	ASSERT_EQ(store_start(s, &wake), 0);
	for (;; k++) {
		struct broker_commit c = commit_of(200, k);

		ASSERT_EQ(commit(s, &wake, &c, NULL, 0), 0);
		ASSERT_EQ(write(fd, &k, sizeof(k)), sizeof(k));
	}
}

TEST_F_TIMEOUT(store, killed_amid_commits_it_is_never_torn, 60)
{
	uint64_t said = 0, total = 0;

	for (unsigned round = 0; round < 20; round++) {
		struct loaded l;
		int fds[2];
		pid_t pid;

		ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
		pid = fork();
		if (pid == 0) {
			close(fds[0]);
			commit_forever(self->dir, fds[1], said + 1);
		}
		close(fds[1]);
		/* The first answer, so that the kill falls amid commits and not before them. */
		ASSERT_EQ(read(fds[0], &said, sizeof(said)), sizeof(said));
		nap_us(1000 + (unsigned)(harness_random() % 30000));
		ASSERT_EQ(kill(pid, SIGKILL), 0);
		ASSERT_EQ(waitpid(pid, NULL, 0), pid);
		while (read(fds[0], &said, sizeof(said)) == sizeof(said))
			total++;
		close(fds[0]);

		reopen(self);
		l = load(self->s);
		ASSERT_EQ(l.n_replay, 200);
		ASSERT_EQ(l.highest_least, l.highest_most);
		ASSERT_EQ(store_bundle_serial(self->s), l.highest_most);
		/* Done is done; the one that was on its way may be there too. */
		ASSERT_GE(l.highest_most, said);
		ASSERT_LE(l.highest_most, said + 1);
		said = l.highest_most;
		store_close(self->s);
		self->s = NULL;
	}
	harness_note("%llu commits before the kills", (unsigned long long)total);
}

TEST_F(store, full_disk_is_reported_and_the_same_commit_done_later)
{
	struct broker_commit c = commit_of(10, 1);
	struct rlimit full, before;
	char words[STORE_ERROR_BYTES];
	struct loaded l;
	struct stat st;

	ASSERT_TRUE(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
	start(self);
	ASSERT_EQ(commit(self->s, &self->wake, &c, NULL, 0), 0);
	ASSERT_EQ(stat(self->file, &st), 0);
	ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
	full = before;
	full.rlim_cur = 65536;
	c = commit_of(SENDERS_MAX, 2);
	for (unsigned i = 0; i < 3; i++) {
		int err;

		ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
		err = commit(self->s, &self->wake, &c, words, sizeof(words));
		ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
		ASSERT_TRUE(err == -EIO || err == -ENOSPC);
		ASSERT_TRUE(words[0]);
	}
	harness_note("said: %s", words);
	ASSERT_EQ(commit(self->s, &self->wake, &c, words, sizeof(words)), 0);
	reopen(self);
	l = load(self->s);
	ASSERT_EQ(l.n_replay, SENDERS_MAX);
	ASSERT_EQ(l.highest_least, 2);
}

TEST_F(store, two_brokers_cannot_share_a_directory)
{
	struct store *second;
	pid_t pid;
	int status;

	start(self);
	pid = fork();
	if (pid == 0)
		_exit(-store_open(self->dir, &second));
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	ASSERT_TRUE(WIFEXITED(status));
	ASSERT_EQ(WEXITSTATUS(status), EBUSY);
	/* The same process counts as another one, too. */
	ASSERT_EQ(store_open(self->dir, &second), -EBUSY);
	ASSERT_TRUE(strstr(store_open_error(), "in use by another broker"));
}

TEST_F(store, closing_waits_for_the_commit_that_is_out)
{
	struct broker_commit c = commit_of(SENDERS_MAX, 77);

	start(self);
	store_submit(self->s, &c);
	reopen(self);
	ASSERT_EQ(load(self->s).n_replay, SENDERS_MAX);
}

static void tamper(const char *file, const char *sql)
{
	sqlite3 *db;

	ASSERT_EQ(sqlite3_open(file, &db), SQLITE_OK);
	ASSERT_EQ(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void expect_refusal(struct fixture_store *self, int err, const char *words)
{
	store_close(self->s);
	self->s = NULL;
	ASSERT_EQ(store_open(self->dir, &self->s), err);
	ASSERT_TRUE(!strncmp(store_open_error(), self->dir, strlen(self->dir)));
	if (!strstr(store_open_error(), words))
		harness_fail(__FILE__, __LINE__, true, "%s", store_open_error());
}

TEST_F(store, refuses_another_schema_and_another_program)
{
	reopen(self);
	store_close(self->s);
	self->s = NULL;
	tamper(self->file, "PRAGMA user_version = 99");
	expect_refusal(self, -EPROTO, "schema version 99; this program reads version ");
	tamper(self->file, "PRAGMA user_version = 1; PRAGMA application_id = 1");
	expect_refusal(self, -EPROTO, "not this program's");
	tamper(self->file, "PRAGMA application_id = 1397965908; DELETE FROM gateway;" OURS);
	expect_refusal(self, -EUCLEAN, "without its gateway row");
	tamper(self->file, "INSERT INTO gateway VALUES (1, 4)");
	reopen(self);
	ASSERT_EQ(store_bundle_serial(self->s), 4);
}

/* What version 1 made, with what it knew. */
static const char version_1_sql[] =
	"CREATE TABLE replay (id TEXT PRIMARY KEY, highest INTEGER NOT NULL,"
	" below0 INTEGER NOT NULL, below1 INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE context (key_id INTEGER NOT NULL, enc_hash INTEGER NOT NULL,"
	" seen_ms INTEGER NOT NULL, PRIMARY KEY (key_id, enc_hash)) STRICT, WITHOUT ROWID;"
	"CREATE INDEX context_seen ON context (seen_ms);"
	"CREATE TABLE revoked (key_id INTEGER PRIMARY KEY, revoked_at_ms INTEGER NOT NULL,"
	" retire_before_ms INTEGER NOT NULL) STRICT;"
	"CREATE TABLE gateway (one INTEGER PRIMARY KEY CHECK (one = 1),"
	" bundle_serial INTEGER NOT NULL) STRICT;"
	"INSERT INTO gateway VALUES (1, 44);"
	"INSERT INTO replay VALUES ('dev1', 7, 1, 2);"
	"PRAGMA application_id = 1397965908;"
	"PRAGMA user_version = 1;";

TEST_F(store, brings_an_earlier_version_up_to_date)
{
	struct broker_commit c = commit_of(1, 9);
	struct loaded l;

	ASSERT_EQ(mkdir(self->dir, 0700), 0);
	tamper(self->file, version_1_sql);
	reopen(self);
	ASSERT_EQ(store_bundle_serial(self->s), 44);
	l = load(self->s);
	ASSERT_STREQ(l.last_id, "dev1");
	ASSERT_EQ(l.last_replay.highest, 7);
	ASSERT_EQ(l.last_seen_ms, 0);
	start(self);
	ASSERT_EQ(commit(self->s, &self->wake, &c, NULL, 0), 0);
	reopen(self);
	ASSERT_EQ(load(self->s).n_replay, 2);
}

TEST_F(store, refuses_what_is_no_database)
{
	int fd;

	ASSERT_EQ(mkdir(self->dir, 0700), 0);
	fd = open(self->file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_EQ(write(fd, "this is a text file, and a long enough one at that", 50), 50);
	close(fd);
	expect_refusal(self, -EUCLEAN, "not a database");
}

TEST_F(store, refuses_a_directory_that_is_open_to_others)
{
	struct stat st;

	reopen(self); /* makes it, as it should be */
	ASSERT_EQ(stat(self->dir, &st), 0);
	ASSERT_EQ(st.st_mode & 0777, 0700);
	ASSERT_EQ(stat(self->file, &st), 0);
	ASSERT_EQ(st.st_mode & 0077, 0);
	ASSERT_EQ(chmod(self->dir, 0750), 0);
	expect_refusal(self, -EPERM, "chmod 700");
	ASSERT_EQ(chmod(self->dir, 0700), 0);
	reopen(self);
}

TEST_F(store, says_what_is_wrong_with_the_path)
{
	int fd = open(self->dir, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	ASSERT_GE(fd, 0);
	close(fd);
	expect_refusal(self, -ENOTDIR, "is not a directory");
	ASSERT_EQ(unlink(self->dir), 0);
	snprintf(self->dir, sizeof(self->dir), "%s/a/b", self->base);
	expect_refusal(self, -ENOENT, "cannot be made: No such file or directory");
}

HARNESS_MAIN
