// SPDX-License-Identifier: MIT
/*
 * The links to key processes, against key processes that this program plays: ones that answer, that
 * hold other keys, are silent, talk nonsense, or are killed amid their work. Every job is answered
 * once, and rightly.
 *
 *   test (ring, links)  <-- Unix sockets -->  fakes, forked and killed by  <-- pipe --  the keeper
 *
 * The keeper is forked before the ring is made: a child keeps a ring and its sockets alive.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hsm/wire.h"
#include "tests/harness.h"
#include "userspace/base/log.h"
#include "userspace/broker/broker.h"
#include "userspace/core/hsmlink.h"

#define FAKES_MAX    4
#define PATH_BYTES   64
#define SOCKET_BYTES (PATH_BYTES + 24)
#define JOBS	     20000

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* --- fakes ------------------------------------------------------------------------------------ */

enum manner {
	ANSWERS,
	OTHER_SIGNING_KEY,
	OTHER_UNWRAP_KEY,
	BEFORE_PROMOTION, /* what the bundle calls its keys are the token's next ones */
	WITH_NEXT,	  /* it has next keys, which no bundle names yet */
	SILENT,
	NONSENSE,
	TOKEN_GONE
};

/* What the test and the fakes share. */
struct shared {
	atomic_uint converts, signs, signs_next, loads, forgets, statuses, kills;
	atomic_int manner[FAKES_MAX];
};

/* The first byte of an input may ask for a refusal. */
static const struct {
	uint8_t input;
	enum hsm_status status;
	enum broker_token_status expected;
} refusals[] = {
	{ 0xe1, HSM_BAD_REQUEST, BROKER_TOKEN_REFUSED },
	{ 0xe2, HSM_BAD_KEY, BROKER_TOKEN_REFUSED },
	{ 0xe3, HSM_UNAVAILABLE, BROKER_TOKEN_UNAVAILABLE },
	{ 0xe4, HSM_FULL, BROKER_TOKEN_UNAVAILABLE },
};

/* A conversion or signature that is easily told from any other. */
static void transform(const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out)
{
	for (size_t i = 0; i < n_out; i++)
		out[i] = (uint8_t)(in[i % n_in] ^ (0x40 + i));
}

static void fake_status(struct shared *sh, enum manner manner, struct hsm_reply_wire *r,
			uint8_t *result, size_t room)
{
	struct hsm_status_wire s = { 0 };
	struct bytes_writer w = bytes_writer_of(result, room);

	atomic_fetch_add(&sh->statuses, 1);
	memset(s.broker_key, manner == OTHER_SIGNING_KEY ? 9 : 1, sizeof(s.broker_key));
	memset(s.unwrap_key_hash, manner == OTHER_UNWRAP_KEY ? 9 : 2, sizeof(s.unwrap_key_hash));
	if (manner == BEFORE_PROMOTION) {
		memset(s.broker_key, 5, sizeof(s.broker_key));
		memset(s.unwrap_key_hash, 6, sizeof(s.unwrap_key_hash));
		memset(s.next_broker_key, 1, sizeof(s.next_broker_key));
		memset(s.next_unwrap_key_hash, 2, sizeof(s.next_unwrap_key_hash));
	}
	if (manner == WITH_NEXT) {
		memset(s.next_broker_key, 5, sizeof(s.next_broker_key));
		memset(s.next_unwrap_key_hash, 6, sizeof(s.next_unwrap_key_hash));
	}
	hsm_status_encode(&s, &w);
	if (manner == TOKEN_GONE)
		r->status = HSM_UNAVAILABLE;
	else
		r->result = bytes_of(result, w.used);
}

static void fake_job(struct shared *sh, enum manner manner, const struct hsm_job_wire *j,
		     struct hsm_reply_wire *r, uint8_t *result, size_t room)
{
	struct bytes in = j->op == HSM_CONVERT || j->op == HSM_OPEN ? j->point : j->digest;
	size_t n = j->op == HSM_SIGN || j->op == HSM_SIGN_NEXT ? 64 : 32;

	*r = (struct hsm_reply_wire){ .tag = j->tag, .op = j->op, .status = HSM_OK };
	switch (j->op) {
	case HSM_CONVERT:
	case HSM_SIGN:
	case HSM_OPEN:
	case HSM_MAC:
	case HSM_SIGN_NEXT:
		if (j->op == HSM_SIGN_NEXT)
			atomic_fetch_add(&sh->signs_next, 1);
		atomic_fetch_add(n == 32 ? &sh->converts : &sh->signs, 1);
		for (unsigned i = 0; i < ARRAY_SIZE(refusals); i++)
			if (in.p[0] == refusals[i].input)
				r->status = refusals[i].status;
		if (r->status != HSM_OK)
			return;
		transform(in.p, in.n, result, n);
		r->result = bytes_of(result, n);
		return;
	case HSM_LOAD:
		atomic_fetch_add(&sh->loads, 1);
		return;
	case HSM_FORGET:
		atomic_fetch_add(&sh->forgets, 1);
		return;
	case HSM_STATUS:
		fake_status(sh, manner, r, result, room);
		return;
	}
}

/* One packet in, one out. Returns false where the link is to end. */
static bool fake_packet(struct shared *sh, enum manner manner, int fd)
{
	static uint8_t in[HSM_PACKET_BYTES_MAX], out[HSM_PACKET_BYTES_MAX];
	uint8_t results[HSM_BATCH_JOBS_MAX][HSM_STATUS_BYTES];
	ssize_t got = recv(fd, in, sizeof(in), 0);
	struct bytes_reader r;
	struct hsm_batch b;
	unsigned n;

	if (got <= 0 || hsm_batch_open(bytes_of(in, (size_t)got), 'H', &r, &n))
		return false;
	hsm_batch_begin(&b, 'R', out, sizeof(out));
	for (unsigned i = 0; i < n; i++) {
		struct hsm_reply_wire reply;
		struct hsm_job_wire j;

		if (hsm_batch_next_job(&r, &j))
			return false;
		if (j.op != HSM_STATUS && manner == SILENT)
			return true;
		if (j.op != HSM_STATUS && manner == NONSENSE)
			return send(fd, "nonsense", 8, MSG_NOSIGNAL) == 8;
		fake_job(sh, manner, &j, &reply, results[i], sizeof(results[i]));
		hsm_batch_add_reply(&b, &reply);
	}
	return send(fd, out, hsm_batch_finish(&b), MSG_NOSIGNAL) > 0;
}

static void fake_run(struct shared *sh, unsigned n, const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	(void)unlink(path);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	if (bind(listening, (struct sockaddr *)&sa, sizeof(sa)) || listen(listening, 4))
		_exit(1);
	for (;;) {
		int fd = accept(listening, NULL, NULL);

		while (fake_packet(sh, (enum manner)atomic_load(&sh->manner[n]), fd))
			;
		close(fd);
	}
}

/* --- their keeper ----------------------------------------------------------------------------- */

struct keeper {
	struct shared *shared;
	char dir[PATH_BYTES];
	unsigned n;
	pid_t pids[FAKES_MAX];
};

static void path_of(const struct keeper *k, unsigned n, char out[SOCKET_BYTES])
{
	snprintf(out, SOCKET_BYTES, "%s/hsmd.%u.sock", k->dir, n);
}

static void keeper_fork(struct keeper *k, unsigned n)
{
	char path[SOCKET_BYTES];

	path_of(k, n, path);
	k->pids[n] = fork();
	if (k->pids[n] == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fake_run(k->shared, n, path);
	}
}

static void keeper_kill(struct keeper *k, unsigned n)
{
	if (k->pids[n] <= 0)
		return;
	(void)kill(k->pids[n], SIGKILL);
	(void)waitpid(k->pids[n], NULL, 0);
	k->pids[n] = 0;
	atomic_fetch_add(&k->shared->kills, 1);
}

/* Commands: '0'..'3' forks that fake, 'a'..'d' kills it, 'S' kills and forks one every 20 ms from
 * then on. The end of the pipe ends all. */
static void keeper_run(struct keeper *k, int commands)
{
	struct pollfd p = { .fd = commands, .events = POLLIN };
	bool storm = false;
	unsigned turn = 0;
	char c;

	for (;;) {
		if (poll(&p, 1, storm ? 20 : -1) == 0) {
			keeper_kill(k, turn % k->n);
			keeper_fork(k, turn++ % k->n);
			continue;
		}
		if (read(commands, &c, 1) != 1)
			break;
		if (c == 'S')
			storm = true;
		else if (c >= 'a')
			keeper_kill(k, (unsigned)(c - 'a') % FAKES_MAX);
		else
			keeper_fork(k, (unsigned)(c - '0') % FAKES_MAX);
	}
	for (unsigned i = 0; i < k->n; i++)
		keeper_kill(k, i);
	_exit(0);
}

/* --- the test's side -------------------------------------------------------------------------- */

FIXTURE(links)
{
	struct keeper keeper;
	struct shared *shared;
	pid_t keeper_pid;
	int commands;
	struct ring ring;
	struct pool pool;
	struct hsmlink_keys keys;
	struct hsmlink *h;
	struct broker_token_job *jobs;
	unsigned char *answers; /* how often each job was answered */
	unsigned out, back;
	uint64_t skew_ms;
};

static void token_done(void *ctx, struct broker_token_job *job)
{
	struct fixture_links *self = ctx;

	self->answers[job - self->jobs]++;
	self->back++;
}

static void command(struct fixture_links *self, char c)
{
	ASSERT_EQ(write(self->commands, &c, 1), 1);
}

FIXTURE_SETUP(links)
{
	int fds[2];

	log_init("test", LOG_LEVEL_ERROR); /* links go up and down here all the time */
	self->shared = mmap(NULL, sizeof(*self->shared), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_TRUE(self->shared != MAP_FAILED);
	self->keeper.shared = self->shared;
	self->keeper.n = 2;
	snprintf(self->keeper.dir, sizeof(self->keeper.dir), "/tmp/ssdtf-hsmlink-XXXXXX");
	ASSERT_TRUE(mkdtemp(self->keeper.dir));
	ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
	self->keeper_pid = fork();
	if (self->keeper_pid == 0) {
		close(fds[1]);
		keeper_run(&self->keeper, fds[0]);
	}
	close(fds[0]);
	self->commands = fds[1];
	ASSERT_EQ(ring_init(&self->ring, 256, 1024), 0);
	pool_init(&self->pool);
	memset(self->keys.broker.b, 1, sizeof(self->keys.broker.b));
	memset(self->keys.unwrap_key_hash, 2, sizeof(self->keys.unwrap_key_hash));
	self->jobs = calloc(JOBS, sizeof(*self->jobs));
	self->answers = calloc(JOBS, 1);
	ASSERT_TRUE(self->jobs && self->answers);
}

FIXTURE_TEARDOWN(links)
{
	char path[SOCKET_BYTES];

	if (self->h)
		hsmlink_stop(self->h);
	ring_deinit(&self->ring);
	hsmlink_free(self->h);
	for (unsigned i = 0; i < self->out; i++)
		EXPECT_EQ(self->answers[i], 1);
	pool_deinit(&self->pool);
	free(self->jobs);
	free(self->answers);
	close(self->commands);
	ASSERT_EQ(waitpid(self->keeper_pid, NULL, 0), self->keeper_pid);
	for (unsigned i = 0; i < FAKES_MAX; i++) {
		path_of(&self->keeper, i, path);
		(void)unlink(path); /* not each was there */
	}
	ASSERT_EQ(rmdir(self->keeper.dir), 0);
}

static void wait_for_socket(struct fixture_links *self, unsigned n)
{
	const struct timespec step = { .tv_nsec = 2000000 };
	char path[SOCKET_BYTES];
	struct stat st;

	path_of(&self->keeper, n, path);
	while (stat(path, &st))
		nanosleep(&step, NULL);
}

static void open_links(struct fixture_links *self)
{
	ASSERT_EQ(hsmlink_new(self->keeper.dir, &self->ring, &self->pool, &self->keys, token_done,
			      self, &self->h),
		  0);
}

/* Both fakes, with manners, and the links to them. */
static void start(struct fixture_links *self, enum manner first, enum manner second)
{
	atomic_store(&self->shared->manner[0], first);
	atomic_store(&self->shared->manner[1], second);
	command(self, '0');
	command(self, '1');
	wait_for_socket(self, 0);
	wait_for_socket(self, 1);
	open_links(self);
}

static void turn(struct fixture_links *self)
{
	uint64_t own = hsmlink_wait_ms(self->h);

	ASSERT_EQ(ring_wait(&self->ring, own < 20 ? own : 20), 0);
	ring_drain(&self->ring, 100);
	hsmlink_tick(self->h, now_ms() + self->skew_ms);
	hsmlink_flush(self->h);
}

#define TURN_UNTIL(self, condition)  \
	do {                         \
		while (!(condition)) \
			turn(self);  \
	} while (0)

static const uint8_t blob[300] = { 1, 2, 3 };

static struct broker_token_job *submit_by(struct fixture_links *self, enum broker_token_op op,
					  uint8_t first, bool next)
{
	struct broker_token_job *job = &self->jobs[self->out];

	ASSERT_LT(self->out, JOBS);
	*job = (struct broker_token_job){ .op = op,
					  .next = next,
					  .blob = bytes_of(blob, sizeof(blob)) };
	bytes_store_u32(job->grant_id + 4, self->out % 50);
	for (unsigned i = 0; i < sizeof(job->input); i++)
		job->input[i] = (uint8_t)(self->out * 7 + i);
	bytes_store_u32(job->input + 1, self->out);
	job->input[0] = first;
	self->out++;
	hsmlink_submit(self->h, job);
	return job;
}

static struct broker_token_job *submit(struct fixture_links *self, enum broker_token_op op,
				       uint8_t first)
{
	return submit_by(self, op, first, false);
}

static void submit_next(struct fixture_links *self)
{
	submit_by(self, BROKER_TOKEN_SIGN, 4, true);
}

static void expect_right(const struct broker_token_job *job)
{
	bool convert = job->op != BROKER_TOKEN_SIGN;
	uint8_t want[64];

	ASSERT_EQ(job->status, BROKER_TOKEN_OK);
	transform(job->input, convert ? P256_POINT_BYTES : P256_DIGEST_BYTES, want,
		  convert ? 32 : 64);
	ASSERT_BYTES(job->output, want, convert ? 32 : 64);
}

TEST_F(links, sockets_are_found_by_their_names)
{
	static const char *const names[] = { "hsmd.0.sock",  "hsmd.7.sock",	"hsmd.12.sock",
					     "hsmd.x.sock",  "hsmd.01.sock",	"hsmd..sock",
					     "hsmd.3.sock2", "hsmd.12345.sock", "xhsmd.3.sock" };
	char path[PATH_BYTES + 32];

	ASSERT_EQ(hsmlink_new(self->keeper.dir, &self->ring, &self->pool, &self->keys, token_done,
			      self, &self->h),
		  -ENOENT);
	ASSERT_EQ(hsmlink_new("/nonexistent", &self->ring, &self->pool, &self->keys, token_done,
			      self, &self->h),
		  -ENOENT);
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", self->keeper.dir, names[i]);
		close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	}
	open_links(self);
	ASSERT_EQ(hsmlink_count(self->h), 3);
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", self->keeper.dir, names[i]);
		ASSERT_EQ(unlink(path), 0);
	}
}

TEST_F(links, jobs_are_answered_rightly)
{
	start(self, ANSWERS, ANSWERS);
	for (unsigned i = 0; i < 2000; i++)
		submit(self, i % 3 ? BROKER_TOKEN_CONVERT : BROKER_TOKEN_SIGN, 4);
	TURN_UNTIL(self, self->back == self->out);
	for (unsigned i = 0; i < self->out; i++)
		expect_right(&self->jobs[i]);
	TURN_UNTIL(self, hsmlink_up(self->h) == 2);	    /* one may have done all by itself */
	ASSERT_EQ(atomic_load(&self->shared->statuses), 2); /* each was asked once who it is */
	ASSERT_EQ(self->pool.bytes_out, 0);
}

TEST_F(links, signs_by_the_key_that_the_bundle_means)
{
	memset(self->keys.next.b, 5, sizeof(self->keys.next.b)); /* the token's current one, here */
	self->keys.has_next = true;
	start(self, BEFORE_PROMOTION, BEFORE_PROMOTION);
	for (unsigned i = 0; i < 10; i++)
		submit(self, BROKER_TOKEN_SIGN, 4); /* before it is known what the token has */
	TURN_UNTIL(self, self->back == self->out);
	ASSERT_EQ(atomic_load(&self->shared->signs_next), 10);
	submit_next(self);
	submit(self, BROKER_TOKEN_OPEN, 4);
	TURN_UNTIL(self, self->back == self->out);
	ASSERT_EQ(atomic_load(&self->shared->signs), 11);
	ASSERT_EQ(atomic_load(&self->shared->signs_next), 10);
	for (unsigned i = 0; i < self->out; i++)
		expect_right(&self->jobs[i]);
}

TEST_F(links, a_next_key_that_is_not_there_is_unavailable)
{
	start(self, ANSWERS, ANSWERS);
	submit_next(self);
	TURN_UNTIL(self, self->back == 1);
	ASSERT_EQ(self->jobs[0].status, BROKER_TOKEN_UNAVAILABLE);
	ASSERT_EQ(atomic_load(&self->shared->signs), 0);
}

/* A bundle names keys that were made while we are linked: the workers are asked again, amid the
 * jobs, and then it may come into force. */
TEST_F(links, keys_made_meanwhile_are_found)
{
	struct hsmlink_keys keys = self->keys;

	start(self, ANSWERS, ANSWERS);
	TURN_UNTIL(self, hsmlink_up(self->h) == 2);
	keys.has_next = true;
	memset(keys.next.b, 5, sizeof(keys.next.b));
	memset(keys.unwrap_key_hash, 6, sizeof(keys.unwrap_key_hash));
	ASSERT_TRUE(strstr(hsmlink_lacks(self->h, &keys), "next signing key"));
	for (unsigned i = 0; i < FAKES_MAX; i++)
		atomic_store(&self->shared->manner[i], WITH_NEXT);
	for (unsigned i = 0; i < 400; i++) {
		submit(self, i % 3 ? BROKER_TOKEN_CONVERT : BROKER_TOKEN_SIGN, 4);
		if (i % 50 == 25)
			hsmlink_ask(self->h);
		if (i % 10 == 0)
			turn(self);
	}
	TURN_UNTIL(self, self->back == self->out && !hsmlink_asking(self->h));
	ASSERT_EQ(hsmlink_up(self->h), 2);
	ASSERT_GT(atomic_load(&self->shared->statuses), 3);
	ASSERT_TRUE(hsmlink_lacks(self->h, &keys) == NULL);
	hsmlink_rekey(self->h, &keys);
	submit_next(self);
	TURN_UNTIL(self, self->back == self->out);
	ASSERT_EQ(atomic_load(&self->shared->signs_next), 1);
	for (unsigned i = 0; i < self->out; i++)
		expect_right(&self->jobs[i]);
	keys.unwrap_key_hash[0] ^= 1;
	ASSERT_TRUE(strstr(hsmlink_lacks(self->h, &keys), "unwrapping key"));
}

TEST_F(links, refusals_keep_their_meaning)
{
	start(self, ANSWERS, ANSWERS);
	for (unsigned i = 0; i < ARRAY_SIZE(refusals); i++) {
		submit(self, BROKER_TOKEN_CONVERT, refusals[i].input);
		submit(self, BROKER_TOKEN_SIGN, refusals[i].input);
	}
	TURN_UNTIL(self, self->back == self->out);
	for (unsigned i = 0; i < self->out; i++)
		ASSERT_EQ(self->jobs[i].status, refusals[i / 2].expected);
}

TEST_F(links, a_job_that_waits_too_long_is_unavailable)
{
	struct broker_token_job *job;

	start(self, SILENT, SILENT);
	TURN_UNTIL(self, hsmlink_up(self->h) == 2);
	submit(self, BROKER_TOKEN_SIGN, 4); /* without a deadline: it waits on */
	job = &self->jobs[self->out++];
	*job = (struct broker_token_job){ .op = BROKER_TOKEN_SIGN, .deadline_ms = now_ms() + 150 };
	hsmlink_submit(self->h, job);
	TURN_UNTIL(self, self->back == 1);
	ASSERT_EQ(job->status, BROKER_TOKEN_UNAVAILABLE);
	ASSERT_GE(now_ms(), job->deadline_ms);
	ASSERT_LT(now_ms(), job->deadline_ms + 2000);
}

TEST_F(links, a_silent_one_is_cut_and_another_does_its_work)
{
	start(self, SILENT, SILENT);
	TURN_UNTIL(self, hsmlink_up(self->h) == 2);
	for (unsigned i = 0; i < 100; i++)
		submit(self, BROKER_TOKEN_CONVERT, 4);
	for (unsigned i = 0; i < 10; i++)
		turn(self);
	ASSERT_EQ(self->back, 0);
	atomic_store(&self->shared->manner[0], ANSWERS);
	atomic_store(&self->shared->manner[1], ANSWERS);
	self->skew_ms = HSMLINK_SILENCE_MS + 1;
	TURN_UNTIL(self, self->back == self->out);
	for (unsigned i = 0; i < self->out; i++)
		expect_right(&self->jobs[i]);
}

TEST_F(links, nonsense_ends_the_link_and_no_job)
{
	start(self, NONSENSE, ANSWERS);
	for (unsigned i = 0; i < 500; i++)
		submit(self, BROKER_TOKEN_CONVERT, 4);
	TURN_UNTIL(self, self->back == self->out);
	for (unsigned i = 0; i < self->out; i++)
		expect_right(&self->jobs[i]);
}

TEST_F(links, another_tokens_keys_are_refused)
{
	start(self, OTHER_SIGNING_KEY, OTHER_UNWRAP_KEY);
	submit(self, BROKER_TOKEN_SIGN, 4);
	TURN_UNTIL(self, atomic_load(&self->shared->statuses) >= 4); /* asked again, too */
	ASSERT_TRUE(hsmlink_mismatch(self->h));
	ASSERT_TRUE(strstr(hsmlink_trouble(self->h), "is not the one that the bundle names"));
	ASSERT_EQ(hsmlink_up(self->h), 0);
	ASSERT_EQ(atomic_load(&self->shared->signs), 0);
	/* The right token comes back. */
	atomic_store(&self->shared->manner[1], ANSWERS);
	TURN_UNTIL(self, self->back == 1);
	expect_right(&self->jobs[0]);
}

TEST_F(links, a_token_that_is_away_is_asked_again)
{
	start(self, TOKEN_GONE, TOKEN_GONE);
	submit(self, BROKER_TOKEN_SIGN, 4);
	TURN_UNTIL(self, atomic_load(&self->shared->statuses) >= 3);
	ASSERT_FALSE(hsmlink_mismatch(self->h));
	ASSERT_TRUE(strstr(hsmlink_trouble(self->h), "token does not answer"));
	atomic_store(&self->shared->manner[0], ANSWERS);
	TURN_UNTIL(self, self->back == 1);
	expect_right(&self->jobs[0]);
}

TEST_F(links, one_that_is_not_there_yet_is_tried_again)
{
	start(self, ANSWERS, ANSWERS);
	TURN_UNTIL(self, hsmlink_up(self->h) == 2);
	command(self, 'a');
	command(self, 'b');
	TURN_UNTIL(self, hsmlink_up(self->h) == 0);
	submit(self, BROKER_TOKEN_SIGN, 4);
	for (unsigned i = 0; i < 20; i++)
		turn(self);
	ASSERT_TRUE(strstr(hsmlink_trouble(self->h), "Connection refused"));
	ASSERT_EQ(self->back, 0);
	command(self, '1');
	TURN_UNTIL(self, self->back == 1);
	expect_right(&self->jobs[0]);
	ASSERT_EQ(hsmlink_up(self->h), 1);
}

TEST_F(links, a_revoked_grant_is_forgotten_where_it_was_used)
{
	uint8_t grant[GRANT_ID_BYTES] = { 0 };

	start(self, ANSWERS, ANSWERS);
	submit(self, BROKER_TOKEN_CONVERT, 4); /* under grant 0 */
	TURN_UNTIL(self, self->back == 1);
	hsmlink_forget(self->h, grant);
	TURN_UNTIL(self, atomic_load(&self->shared->forgets) == 1);
	submit(self, BROKER_TOKEN_SIGN, 4);
	TURN_UNTIL(self, self->back == 2);
	ASSERT_EQ(atomic_load(&self->shared->forgets), 1);
}

TEST_F_TIMEOUT(links, killed_under_load_no_job_is_lost_or_answered_twice, 60)
{
	struct hsm_client_stats s;

	start(self, ANSWERS, ANSWERS);
	TURN_UNTIL(self, hsmlink_up(self->h) == 2);
	command(self, 'S');
	while (self->back < JOBS) {
		while (self->out < JOBS && self->out - self->back < 300)
			submit(self, self->out % 5 ? BROKER_TOKEN_CONVERT : BROKER_TOKEN_SIGN, 4);
		turn(self);
		/* A few at a time, so that there are kills enough. */
		if (self->out < JOBS && self->out > 500 * (atomic_load(&self->shared->kills) + 1))
			TURN_UNTIL(self,
				   self->out <= 500 * (atomic_load(&self->shared->kills) + 1));
	}
	for (unsigned i = 0; i < JOBS; i++) {
		ASSERT_EQ(self->answers[i], 1);
		expect_right(&self->jobs[i]);
	}
	hsmlink_stats(self->h, &s);
	harness_note("%u kills, %llu jobs sent again", atomic_load(&self->shared->kills),
		     (unsigned long long)s.requeued);

	ASSERT_EQ(self->pool.bytes_out, 0);
}

TEST_F(links, stopping_gives_every_job_back)
{
	start(self, SILENT, SILENT);
	TURN_UNTIL(self, hsmlink_up(self->h) == 2);
	for (unsigned i = 0; i < 400; i++)
		submit(self, i % 2 ? BROKER_TOKEN_CONVERT : BROKER_TOKEN_SIGN, 4);
	turn(self);
	hsmlink_stop(self->h);
	ASSERT_EQ(self->back, 400);
	for (unsigned i = 0; i < 400; i++)
		ASSERT_EQ(self->jobs[i].status, BROKER_TOKEN_UNAVAILABLE);
	ASSERT_EQ(self->pool.bytes_out, 0);
	ASSERT_TRUE(hsmlink_wait_ms(self->h) == UINT64_MAX);
	turn(self); /* harmless */
}

HARNESS_MAIN
