// SPDX-License-Identifier: MIT
/*
 * Sessions, queues and retained messages in the broker's database: what was committed is loaded
 * again, row by row, whatever ends the process; a database of the schema before becomes one of
 * this.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/fake_durable.h"
#include "tests/harness.h"
#include "userspace/base/replay.h"
#include "userspace/core/store.h"
#include "userspace/core/wake.h"

#define PATH_BYTES 512
#define ROWS	   40 /* messages that a commit brings, */
#define KEPT	   3  /* and so many commits later they go */

/* --- commits ---------------------------------------------------------------------------------- */

/* The rows of commit k, none of which is there by chance. */
static struct {
	struct broker_commit_session sessions[2];
	struct broker_commit_subscription subscription;
	struct broker_commit_message messages[2 * ROWS];
	struct broker_commit_delivery deliveries[2 * ROWS];
	struct broker_commit_release release;
	struct broker_commit_incoming incoming;
	struct broker_commit_retained retained[2];
	uint8_t payload[3000];
} rows;

static void add(struct broker_commit *c, uint64_t number, bool gone)
{
	rows.messages[c->n_messages++] = (struct broker_commit_message){
		.number = number,
		.gone = gone,
		.sealed = number % 2,
		.retain = number % 3 == 0,
		.qos = 1 + number % 2,
		.topic = bytes_of("a/b", 3),
		.payload = bytes_of(rows.payload, number % sizeof(rows.payload)),
		.sender = bytes_of("dev", number % 2 ? 3 : 0),
	};
	rows.deliveries[c->n_deliveries++] = (struct broker_commit_delivery){
		.session = 1,
		.seq = number,
		.message = number,
		.gone = gone,
		.retain = number % 5 == 0,
		.qos = 1 + number % 2,
		.packet_id = (uint16_t)number,
	};
}

/* Session 1 has the messages. Another comes with each commit, with something of each kind, and goes
 * with the next. */
static struct broker_commit commit_of(uint64_t k)
{
	struct broker_commit c = {
		.bundle_serial = k,
		.n_sessions = 2,
		.sessions = rows.sessions,
		.n_subscriptions = 1,
		.subscriptions = &rows.subscription,
		.messages = rows.messages,
		.deliveries = rows.deliveries,
		.n_releases = 1,
		.releases = &rows.release,
		.n_incoming = 1,
		.incoming = &rows.incoming,
		.n_retained = 1,
		.retained = rows.retained,
	};

	for (size_t i = 0; i < sizeof(rows.payload); i++)
		rows.payload[i] = (uint8_t)(i * 7);
	rows.sessions[0] = (struct broker_commit_session){ 1, false, (uint16_t)k, "receiver" };
	rows.sessions[1] = (struct broker_commit_session){ k + 1, false, 0xffff, "other" };
	if (k > 1) {
		rows.sessions[0] = (struct broker_commit_session){ .number = k, .gone = true };
		c.n_sessions = 2;
	}
	rows.subscription =
		(struct broker_commit_subscription){ k + 1, k, false, k % 3, bytes_of("+/#", 3) };
	rows.release = (struct broker_commit_release){ k + 1, k, false, 0xffff };
	rows.incoming = (struct broker_commit_incoming){ k + 1, false, 0x8000 };
	rows.retained[0] = (struct broker_commit_retained){ k * ROWS, false };
	for (uint64_t i = k * ROWS; i < (k + 1) * ROWS; i++) {
		add(&c, i, false);
		if (k > KEPT)
			add(&c, i - KEPT * ROWS, true);
	}
	if (k > KEPT)
		rows.retained[c.n_retained++] =
			(struct broker_commit_retained){ (k - KEPT) * ROWS, true };
	return c;
}

/* --- what is there, as text ------------------------------------------------------------------- */

static unsigned sum(struct bytes v)
{
	unsigned n = 0;

	for (size_t i = 0; i < v.n; i++)
		n = n * 31 + v.p[i];
	return n;
}

#define ULL(n) ((unsigned long long)(n))

static int say_session(void *to, const struct broker_commit_session *r)
{
	fprintf(to, "session %llu %u %s\n", ULL(r->number), r->packet_id, r->id);
	return 0;
}

static int say_subscription(void *to, const struct broker_commit_subscription *r)
{
	fprintf(to, "subscription %llu %llu %u %.*s\n", ULL(r->session), ULL(r->number), r->qos,
		(int)r->filter.n, (const char *)r->filter.p);
	return 0;
}

static int say_message(void *to, const struct broker_commit_message *r)
{
	fprintf(to, "message %llu %d %d %u %u %zu %u %u\n", ULL(r->number), r->sealed, r->retain,
		r->qos, sum(r->topic), r->payload.n, sum(r->payload), sum(r->sender));
	return 0;
}

static int say_delivery(void *to, const struct broker_commit_delivery *r)
{
	fprintf(to, "delivery %llu %llu %llu %d %u %u\n", ULL(r->session), ULL(r->seq),
		ULL(r->message), r->retain, r->qos, r->packet_id);
	return 0;
}

static int say_release(void *to, const struct broker_commit_release *r)
{
	fprintf(to, "release %llu %llu %u\n", ULL(r->session), ULL(r->place), r->packet_id);
	return 0;
}

static int say_incoming(void *to, const struct broker_commit_incoming *r)
{
	fprintf(to, "incoming %llu %u\n", ULL(r->session), r->packet_id);
	return 0;
}

static int say_retained(void *to, const struct broker_commit_retained *r)
{
	fprintf(to, "retained %llu\n", ULL(r->message));
	return 0;
}

/* As the store loads it: each table by its key. */
static char *text_of(const struct fake_durable *d)
{
	char *text;
	size_t n;
	FILE *to = open_memstream(&text, &n);

	ASSERT_TRUE(to);
#define SAY(plural, kind)                                 \
	for (unsigned i = 0; i < d->rows.n_##plural; i++) \
	(void)say_##kind(to, &d->rows.plural[i])
	SAY(sessions, session);
	SAY(subscriptions, subscription);
	SAY(messages, message);
	SAY(deliveries, delivery);
	SAY(releases, release);
	SAY(incoming, incoming);
	SAY(retained, retained);
	fclose(to);
	return text;
}

static char *text_loaded(struct store *s)
{
	struct store_sink sink = {
		.session = say_session,
		.subscription = say_subscription,
		.message = say_message,
		.delivery = say_delivery,
		.release = say_release,
		.incoming = say_incoming,
		.retained = say_retained,
	};
	char *text;
	size_t n;

	sink.ctx = open_memstream(&text, &n);
	ASSERT_TRUE(sink.ctx);
	ASSERT_EQ(store_load_sessions(s, &sink), 0);
	fclose(sink.ctx);
	return text;
}

/* --- the store -------------------------------------------------------------------------------- */

FIXTURE(store)
{
	char base[PATH_BYTES];
	char dir[PATH_BYTES + 8];
	char file[PATH_BYTES + 32];
	struct wake wake;
	struct store *s;
	struct fake_durable model; /* commits 1 to done */
	uint64_t done;
};

FIXTURE_SETUP(store)
{
	snprintf(self->base, sizeof(self->base), "%s/ssdtf-sessions-XXXXXX",
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
	static const char *const names[] = { "lock", "broker.db", "broker.db-wal",
					     "broker.db-journal" };

	store_close(self->s);
	wake_deinit(&self->wake);
	fake_durable_free(&self->model);
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

static int commit(struct store *s, struct wake *wake, const struct broker_commit *c)
{
	struct pollfd p = { .fd = wake->fd, .events = POLLIN };
	const char *words;
	int error;

	store_submit(s, c);
	while (!store_ready(s)) {
		wake_sleep(wake);
		if (!store_ready(s))
			ASSERT_EQ(poll(&p, 1, 20000), 1);
		wake_awake(wake);
		wake_clear(wake);
	}
	ASSERT_TRUE(store_poll(s, &error, &words));
	return error;
}

static void model_to(struct fixture_store *self, uint64_t k)
{
	while (self->done < k) {
		struct broker_commit c = commit_of(++self->done);

		fake_durable_apply(&self->model, &c);
	}
}

/* What is loaded is what commits 1 to its serial brought. */
static void check(struct fixture_store *self)
{
	char *want, *got;

	reopen(self);
	model_to(self, store_bundle_serial(self->s));
	want = text_of(&self->model);
	got = text_loaded(self->s);
	ASSERT_STREQ(got, want);
	free(got);
	free(want);
}

TEST_F(store, gives_back_what_was_committed)
{
	for (uint64_t k = 1; k <= 2 * KEPT + 1; k++) {
		struct broker_commit c = commit_of(k);

		reopen(self);
		ASSERT_EQ(store_start(self->s, &self->wake), 0);
		ASSERT_EQ(commit(self->s, &self->wake, &c), 0);
		check(self);
		ASSERT_EQ(self->done, k);
	}
	ASSERT_EQ(self->model.rows.n_messages, KEPT * ROWS);
}

/* In the child: commits until it is killed, and says each that it was told is done. */
static void commit_forever(const char *dir, int fd, uint64_t k)
{
	struct wake wake;
	struct store *s;

	ASSERT_EQ(wake_init(&wake), 0);
	ASSERT_EQ(store_open(dir, &s), 0);
	ASSERT_EQ(store_start(s, &wake), 0);
	for (;; k++) {
		struct broker_commit c = commit_of(k);

		ASSERT_EQ(commit(s, &wake, &c), 0);
		ASSERT_EQ(write(fd, &k, sizeof(k)), sizeof(k));
	}
}

TEST_F_TIMEOUT(store, killed_amid_commits_it_is_never_torn, 60)
{
	uint64_t said = 0;

	for (unsigned round = 0; round < harness_rounds(12); round++) {
		struct timespec nap = { .tv_nsec = (long)(harness_random() % 20000000) };
		int fds[2];
		pid_t pid;

		ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
		pid = fork();
		if (pid == 0) {
			close(fds[0]);
			commit_forever(self->dir, fds[1], self->done + 1);
		}
		close(fds[1]);
		/* The first answer, so that the kill falls amid commits and not before them. */
		ASSERT_EQ(read(fds[0], &said, sizeof(said)), sizeof(said));
		nanosleep(&nap, NULL);
		ASSERT_EQ(kill(pid, SIGKILL), 0);
		ASSERT_EQ(waitpid(pid, NULL, 0), pid);
		while (read(fds[0], &said, sizeof(said)) == sizeof(said))
			;
		close(fds[0]);
		check(self);
		/* Done is done; the one that was on its way may be there too. */
		ASSERT_GE(self->done, said);
		ASSERT_LE(self->done, said + 1);
		store_close(self->s);
		self->s = NULL;
	}
	harness_note("%llu commits", ULL(self->done));
}

TEST_F(store, full_disk_and_then_the_same_commit_again)
{
	struct rlimit full, before;
	struct broker_commit c;

	ASSERT_TRUE(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
	reopen(self);
	ASSERT_EQ(store_start(self->s, &self->wake), 0);
	ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
	for (uint64_t k = 1; k <= 3; k++) {
		c = commit_of(k);
		full = before;
		full.rlim_cur = 4096;
		ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
		ASSERT_LT(commit(self->s, &self->wake, &c), 0);
		ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
		ASSERT_EQ(commit(self->s, &self->wake, &c), 0);
	}
	check(self);
	ASSERT_EQ(self->done, 3);
}

static void tamper(struct fixture_store *self, const char *sql)
{
	char *words = NULL;
	sqlite3 *db;

	store_close(self->s);
	self->s = NULL;
	ASSERT_EQ(sqlite3_open(self->file, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, &words) != SQLITE_OK)
		harness_fail(__FILE__, __LINE__, true, "%s", words);
	sqlite3_close(db);
}

static int on_replay(void *ctx, const struct broker_commit_replay *r)
{
	unsigned *n = ctx;

	*n += !strcmp(r->id, "dev") && r->window.highest == 7;
	return 0;
}

static int on_context(void *ctx, const struct broker_commit_context *c)
{
	return -EINVAL; /* there are none */
}

static int on_revoked(void *ctx, const struct broker_commit_revoked *r)
{
	return -EINVAL;
}

TEST_F(store, schema_before_is_upgraded)
{
	static const char before_sql[] =
		"DROP TABLE session; DROP TABLE subscription; DROP TABLE message;"
		"DROP TABLE delivery; DROP TABLE release; DROP TABLE incoming; DROP TABLE retained;"
		"INSERT INTO replay VALUES ('dev', 7, 1, 2, 0);"
		"UPDATE gateway SET bundle_serial = 12;"
		"PRAGMA user_version = 2";
	unsigned n = 0;
	const struct store_sink sink = {
		.replay = on_replay,
		.context = on_context,
		.revoked = on_revoked,
		.ctx = &n,
	};
	char *text;

	reopen(self);
	tamper(self, before_sql);
	reopen(self);
	ASSERT_EQ(store_bundle_serial(self->s), 12);
	ASSERT_EQ(store_load(self->s, &sink), 0);
	ASSERT_EQ(n, 1);
	text = text_loaded(self->s);
	ASSERT_STREQ(text, "");
	free(text);
	/* Not half: where a table is in the way, nothing is made. */
	tamper(self, "DROP TABLE session; DROP TABLE subscription; PRAGMA user_version = 2");
	ASSERT_TRUE(store_open(self->dir, &self->s) < 0);
	ASSERT_TRUE(strstr(store_open_error(), "already exists"));
	tamper(self, "CREATE TABLE session (x); CREATE TABLE subscription (x)");
}

HARNESS_MAIN
