// SPDX-License-Identifier: MIT
/*
 * ssdtf-hsmd as a program, on a real SoftHSM token: what it answers, what it does when the token,
 * a worker or its peer misbehaves, and that a broker's jobs (hsm/client.h over real sockets) are
 * each answered once, and rightly, while workers are killed.
 */
#include <errno.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <time.h>

#include "hsm/client.h"
#include "hsm/wire.h"
#include "tests/token_env.h"
#include "userspace/crypto/hash.h"

#define ARGS_MAX    32
#define WORKERS_MAX 3
#define ANSWER_S    20 /* patience, with sanitizers on a busy machine */

FIXTURE(hsmd)
{
	struct token_env env;
	char sockets[PATH_ROOM], log[PATH_ROOM];
	pid_t pid; /* the supervisor's; 0: not running */
};

static void sleep_ms(unsigned ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

FIXTURE_SETUP(hsmd)
{
	struct token *t;

	token_env_make(&self->env);
	ASSERT_EQ(token_open(&self->env.config, &t), 0);
	token_env_learn(&self->env, t);
	token_close(t);
	path_in(self->env.dir, "sockets", self->sockets);
	path_in(self->env.dir, "log", self->log);
	ASSERT_EQ(mkdir(self->sockets, 0755), 0);
}

/* --- the program --- */

static void hsmd_path(char out[PATH_ROOM])
{
	char self[PATH_ROOM];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	ASSERT_GT(n, 0);
	self[n] = '\0';
	for (unsigned i = 0; i < 2; i++)
		*strrchr(self, '/') = '\0';
	path_in(self, "ssdtf-hsmd", out);
	if (access(out, X_OK))
		harness_fail(__FILE__, __LINE__, true, "%s is not built", out);
}

/* Starts it with these arguments, its words going to the log. */
static pid_t spawn_program(struct fixture_hsmd *self, const char *path, char *const argv[])
{
	pid_t pid = fork();

	if (!pid) {
		int fd = open(self->log, O_WRONLY | O_CREAT | O_APPEND, 0600);

		dup2(fd, STDERR_FILENO);
		dup2(fd, STDOUT_FILENO);
		execv(path, argv);
		_exit(127);
	}
	ASSERT_GT(pid, 0);
	return pid;
}

static pid_t spawn(struct fixture_hsmd *self, char *const argv[])
{
	char path[PATH_ROOM];

	hsmd_path(path);
	return spawn_program(self, path, argv);
}

#define COMMON(self, command)                                                                  \
	raw_bytes("ssdtf-hsmd"), raw_bytes(command), raw_bytes("--module"),                    \
		raw_bytes(TOKEN_ENV_MODULE), raw_bytes("--token"), raw_bytes(TOKEN_ENV_LABEL), \
		raw_bytes("--pin-file"), (self)->env.pin
#define COMMON_N 8

/* With these further options; the last is NULL. */
static void start_with(struct fixture_hsmd *self, const char *const options[])
{
	char *argv[ARGS_MAX] = { COMMON(self, "run"), raw_bytes("--socket-dir"), self->sockets };
	size_t n = COMMON_N + 2;

	for (size_t i = 0; options[i]; i++) {
		ASSERT_LT(n, ARGS_MAX - 1);
		argv[n++] = raw_bytes(options[i]);
	}
	ASSERT_EQ(self->pid, 0);
	self->pid = spawn(self, argv);
}

#define START(self, ...) start_with(self, (const char *const[]){ __VA_ARGS__, NULL })

/* Where the emulator looks for the primes of an RSA key, that takes a while. */
static int wait_for(pid_t pid)
{
	int status;

	for (uint64_t end = now_ms() + harness_patience_ms(ANSWER_S * 1000); now_ms() < end;
	     sleep_ms(10)) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
	harness_fail(__FILE__, __LINE__, true, "process %d does not end", (int)pid);
	return -1;
}

static int stop(struct fixture_hsmd *self)
{
	pid_t pid = self->pid;

	self->pid = 0;
	ASSERT_EQ(kill(pid, SIGTERM), 0);
	return wait_for(pid);
}

static int run_to_end(struct fixture_hsmd *self)
{
	pid_t pid = self->pid;

	self->pid = 0;
	return wait_for(pid);
}

static unsigned logged(struct fixture_hsmd *self, const char *what)
{
	static char text[1 << 20];
	int fd = open(self->log, O_RDONLY | O_CLOEXEC);
	unsigned times = 0;
	ssize_t n;

	ASSERT_GE(fd, 0);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	ASSERT_GE(n, 0);
	text[n] = '\0';
	for (const char *at = text; (at = strstr(at, what)); at++)
		times++;
	return times;
}

/* What it said is worth reading when a test fails. */
static void show_log(struct fixture_hsmd *self)
{
	char line[1024];
	FILE *f = fopen(self->log, "re");

	while (f && fgets(line, sizeof(line), f))
		harness_note("hsmd: %s", line);
	if (f)
		fclose(f);
}

FIXTURE_TEARDOWN(hsmd)
{
	if (self->pid)
		EXPECT_EQ(stop(self), 0);
	/* A sanitizer's verdict on a worker would be lost in its exit status. */
	if (!access(self->log, F_OK) &&
	    (logged(self, "Sanitizer") || logged(self, "runtime error")))
		harness_fail(__FILE__, __LINE__, false, "a sanitizer found something");
	if (getenv("SSDTF_TEST_VERBOSE"))
		show_log(self);
	token_env_remove(&self->env);
}

static pid_t worker_pid(struct fixture_hsmd *self, unsigned i)
{
	char name[32], path[PATH_ROOM];
	int pid = 0;
	FILE *f;

	snprintf(name, sizeof(name), "hsmd.%u.pid", i);
	path_in(self->sockets, name, path);
	f = fopen(path, "re");
	ASSERT_TRUE(f);
	ASSERT_EQ(fscanf(f, "%d", &pid), 1);
	fclose(f);
	ASSERT_GT(pid, 1);
	return pid;
}

/* --- a link to a worker --- */

static int try_connect(struct fixture_hsmd *self, unsigned i)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct timeval wait = { .tv_sec = ANSWER_S };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	char name[32], path[PATH_ROOM];

	ASSERT_GE(fd, 0);
	snprintf(name, sizeof(name), "hsmd.%u.sock", i);
	path_in(self->sockets, name, path);
	ASSERT_LT(strlen(path), sizeof(sa.sun_path));
	memcpy(sa.sun_path, path, strlen(path));
	ASSERT_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)), 0);
	ASSERT_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)), 0);
	if (!connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
		return fd;
	close(fd);
	return -1;
}

static int connect_to(struct fixture_hsmd *self, unsigned i)
{
	int fd;

	for (uint64_t end = now_ms() + ANSWER_S * 1000; now_ms() < end; sleep_ms(5)) {
		fd = try_connect(self, i);
		if (fd >= 0)
			return fd;
	}
	harness_fail(__FILE__, __LINE__, true, "worker %u cannot be reached", i);
	return -1;
}

static uint8_t packet[HSM_PACKET_BYTES_MAX];

/* One packet there, one back; the replies' results are views into packet. */
static void ask(int fd, const struct hsm_job_wire *jobs, unsigned n, struct hsm_reply_wire *replies)
{
	struct hsm_batch b;
	struct bytes_reader r;
	unsigned got_n;
	ssize_t got;
	size_t bytes;

	hsm_batch_begin(&b, 'H', packet, sizeof(packet));
	for (unsigned i = 0; i < n; i++)
		ASSERT_TRUE(hsm_batch_add_job(&b, &jobs[i]));
	bytes = hsm_batch_finish(&b);
	ASSERT_EQ(send(fd, packet, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
	got = recv(fd, packet, sizeof(packet), 0);
	ASSERT_GT(got, 0);
	ASSERT_EQ(hsm_batch_open(bytes_of(packet, (size_t)got), 'R', &r, &got_n), 0);
	ASSERT_EQ(got_n, n);
	for (unsigned i = 0; i < n; i++) {
		ASSERT_EQ(hsm_batch_next_reply(&r, &replies[i]), 0);
		ASSERT_EQ(replies[i].tag, jobs[i].tag);
		ASSERT_EQ(replies[i].op, jobs[i].op);
	}
	ASSERT_TRUE(bytes_read_done(&r));
}

static enum hsm_status ask_one(int fd, const struct hsm_job_wire *job, struct hsm_reply_wire *reply)
{
	ask(fd, job, 1, reply);
	return reply->status;
}

static enum hsm_status ask_status(struct fixture_hsmd *self, unsigned worker,
				  struct hsm_status_wire *ret_s)
{
	const struct hsm_job_wire job = { .tag = 77, .op = HSM_STATUS };
	struct hsm_reply_wire reply;
	int fd = connect_to(self, worker);
	enum hsm_status status = ask_one(fd, &job, &reply);

	if (status == HSM_OK)
		ASSERT_EQ(hsm_status_decode(reply.result, ret_s), 0);
	close(fd);
	return status;
}

static void wait_until(struct fixture_hsmd *self, unsigned worker, enum hsm_status wanted)
{
	struct hsm_status_wire s;

	for (uint64_t end = now_ms() + ANSWER_S * 1000; now_ms() < end; sleep_ms(10))
		if (ask_status(self, worker, &s) == wanted)
			return;
	harness_fail(__FILE__, __LINE__, true, "worker %u: status never %d", worker, wanted);
}

/* --- grants and what is right --- */

#define POINTS 8

struct grant {
	uint8_t id[GRANT_ID_BYTES];
	struct secret32 rk;
	uint8_t blob[RSA_WRAPPED_BYTES_MAX];
	size_t blob_n;
	uint8_t x[POINTS][P256_X_BYTES];
};

static struct p256_point points[POINTS];

static void make_grants(struct fixture_hsmd *self, struct grant *grants, unsigned n)
{
	for (unsigned k = 0; k < POINTS; k++)
		random_point(&points[k]);
	for (unsigned i = 0; i < n; i++) {
		struct grant *g = &grants[i];

		hash_random(g->id, sizeof(g->id));
		random_scalar(&g->rk);
		g->blob_n = blob_of(&self->env, &g->rk, g->blob);
		for (unsigned k = 0; k < POINTS; k++)
			ASSERT_EQ(grant_convert(&g->rk, &points[k], g->x[k]), 0);
	}
}

static struct hsm_job_wire job_for(struct grant *g, enum hsm_op op)
{
	struct hsm_job_wire j = { .tag = (uint32_t)harness_random(), .op = op };

	j.grant_id = bytes_of(g->id, sizeof(g->id));
	if (op == HSM_CONVERT)
		j.point = bytes_of(points[0].b, sizeof(points[0].b));
	if (op == HSM_LOAD)
		j.blob = bytes_of(g->blob, g->blob_n);
	return j;
}

static struct p256_public *broker_key(struct fixture_hsmd *self)
{
	struct hsm_status_wire s;
	struct p256_point point;
	struct p256_public *key;

	ASSERT_EQ(ask_status(self, 0, &s), HSM_OK);
	memcpy(point.b, s.broker_key, sizeof(point.b));
	ASSERT_EQ(p256_public_new(&point, &key), 0);
	return key;
}

/* --- what it answers --- */

TEST_F_TIMEOUT(hsmd, answers_a_batch_in_order, 60)
{
	uint8_t digest[P256_DIGEST_BYTES], want[HASH_BYTES];
	struct hsm_reply_wire replies[8];
	struct hsm_job_wire jobs[8];
	struct hsm_status_wire s;
	struct p256_public *key;
	struct grant g;
	int fd;

	make_grants(self, &g, 1);
	START(self, "--workers=1");
	wait_until(self, 0, HSM_OK);
	key = broker_key(self);
	fd = connect_to(self, 0);
	hash_random(digest, sizeof(digest));
	jobs[0] = job_for(&g, HSM_CONVERT); /* not loaded yet */
	jobs[1] = job_for(&g, HSM_LOAD);
	jobs[2] = job_for(&g, HSM_CONVERT);
	jobs[3] = (struct hsm_job_wire){ .tag = 5, .op = HSM_SIGN };
	jobs[3].digest = bytes_of(digest, sizeof(digest));
	jobs[4] = job_for(&g, HSM_CONVERT);
	jobs[5] = (struct hsm_job_wire){ .tag = 6, .op = HSM_STATUS };
	jobs[6] = job_for(&g, HSM_FORGET);
	jobs[7] = job_for(&g, HSM_CONVERT);
	ask(fd, jobs, 8, replies);
	ASSERT_EQ(replies[0].status, HSM_NO_KEY);
	ASSERT_EQ(replies[1].status, HSM_OK);
	ASSERT_EQ(replies[2].status, HSM_OK);
	ASSERT_BYTES(replies[2].result.p, g.x[0], P256_X_BYTES);
	ASSERT_EQ(replies[3].status, HSM_OK);
	ASSERT_EQ(p256_verify_digest(key, digest, replies[3].result.p), 0);
	ASSERT_EQ(replies[4].status, HSM_OK);
	ASSERT_BYTES(replies[4].result.p, g.x[0], P256_X_BYTES);
	ASSERT_EQ(hsm_status_decode(replies[5].result, &s), 0);
	ASSERT_EQ(s.converts, 2);
	ASSERT_EQ(s.signs, 1);
	ASSERT_EQ(s.blobs, 1);
	ASSERT_EQ(s.session_keys, 1);
	ASSERT_GT(s.rss_kib, 1000);
	hash_one(bytes_of(self->env.spki, self->env.spki_n), want);
	ASSERT_BYTES(s.unwrap_key_hash, want, sizeof(want));
	ASSERT_EQ(replies[6].status, HSM_OK);
	ASSERT_EQ(replies[7].status, HSM_NO_KEY);
	p256_public_free(key);
	close(fd);
}

/* PROTOCOL 3: a point is checked in process before the token sees it. */
TEST_F_TIMEOUT(hsmd, refuses_wrong_points, 60)
{
	struct hsm_reply_wire reply;
	struct hsm_job_wire job, load;
	struct hsm_status_wire s;
	struct p256_point p;
	struct grant g;
	int fd;

	make_grants(self, &g, 1);
	START(self, "--workers=1");
	wait_until(self, 0, HSM_OK);
	fd = connect_to(self, 0);
	load = job_for(&g, HSM_LOAD);
	ASSERT_EQ(ask_one(fd, &load, &reply), HSM_OK);
	job = job_for(&g, HSM_CONVERT);
	job.point = bytes_of(p.b, sizeof(p.b));
	for (unsigned i = 0; i < 5; i++) {
		p = points[0];
		if (i == 0)
			p.b[64] ^= 1; /* off the curve */
		else if (i == 1)
			memset(p.b, 0, sizeof(p.b)); /* infinity's only byte, and zeros */
		else if (i == 2)
			memset(p.b + 1, 0, 64);
		else if (i == 3)
			memset(p.b + 1, 0xff, 64); /* not below p */
		else
			p.b[0] = 0x06; /* the hybrid form */
		ASSERT_EQ(ask_one(fd, &job, &reply), HSM_BAD_REQUEST);
	}
	p = points[0];
	ASSERT_EQ(ask_one(fd, &job, &reply), HSM_OK);
	/* None of them shook the token. */
	ASSERT_EQ(ask_status(self, 0, &s), HSM_OK);
	ASSERT_EQ(s.recoveries, 0);
	close(fd);
}

TEST_F_TIMEOUT(hsmd, says_which_blob_is_bad, 60)
{
	struct hsm_job_wire jobs[4];
	struct hsm_reply_wire replies[4];
	struct hsm_status_wire s;
	struct grant g[2];
	int fd;

	make_grants(self, g, 2);
	g[0].blob[17] ^= 1;
	START(self, "--workers=1");
	wait_until(self, 0, HSM_OK);
	fd = connect_to(self, 0);
	jobs[0] = job_for(&g[0], HSM_LOAD);
	jobs[1] = job_for(&g[0], HSM_CONVERT);
	jobs[2] = job_for(&g[1], HSM_LOAD);
	jobs[3] = job_for(&g[1], HSM_CONVERT);
	for (unsigned round = 0; round < 3; round++) {
		ask(fd, jobs, 4, replies);
		ASSERT_EQ(replies[0].status, HSM_OK);
		ASSERT_EQ(replies[1].status, HSM_BAD_KEY);
		ASSERT_EQ(replies[3].status, HSM_OK);
		ASSERT_BYTES(replies[3].result.p, g[1].x[0], P256_X_BYTES);
	}
	g[0].blob[17] ^= 1;
	ask(fd, jobs, 4, replies);
	ASSERT_EQ(replies[1].status, HSM_OK);
	ASSERT_EQ(ask_status(self, 0, &s), HSM_OK);
	ASSERT_EQ(s.recoveries, 0);
	close(fd);
}

/* --- hostile peers --- */

/* Sends; then the answer is an empty packet and the end, and nothing else. */
static void expect_thrown_out(struct fixture_hsmd *self, const void *p, size_t n)
{
	static uint8_t got[HSM_PACKET_BYTES_MAX];
	struct bytes_reader r;
	int fd = connect_to(self, 0);
	unsigned count = 1;
	ssize_t bytes;

	ASSERT_EQ(send(fd, p, n, MSG_NOSIGNAL), (ssize_t)n);
	bytes = recv(fd, got, sizeof(got), 0);
	ASSERT_GT(bytes, 0);
	ASSERT_EQ(hsm_batch_open(bytes_of(got, (size_t)bytes), 'R', &r, &count), 0);
	ASSERT_EQ(count, 0);
	ASSERT_EQ(recv(fd, got, sizeof(got), 0), 0);
	close(fd);
}

TEST_F_TIMEOUT(hsmd, throws_out_what_is_malformed, 120)
{
	static uint8_t bytes[HSM_PACKET_BYTES_MAX + 100];
	struct hsm_job_wire jobs[2];
	struct hsm_batch b;
	struct grant g;
	pid_t pid;
	size_t n;

	make_grants(self, &g, 1);
	START(self, "--workers=1");
	wait_until(self, 0, HSM_OK);
	pid = worker_pid(self, 0);
	for (unsigned i = 0; i < 200; i++) {
		n = 1 + harness_random() % 700;
		hash_random(bytes, n);
		expect_thrown_out(self, bytes, n);
	}
	hsm_batch_begin(&b, 'H', bytes, sizeof(bytes));
	n = hsm_batch_finish(&b);
	expect_thrown_out(self, bytes, n); /* a batch of no jobs */
	jobs[0] = job_for(&g, HSM_LOAD);
	jobs[1] = job_for(&g, HSM_CONVERT);
	hsm_batch_begin(&b, 'H', bytes, sizeof(bytes));
	ASSERT_TRUE(hsm_batch_add_job(&b, &jobs[0]) && hsm_batch_add_job(&b, &jobs[1]));
	n = hsm_batch_finish(&b);
	for (size_t cut = 1; cut < n; cut += 23)
		expect_thrown_out(self, bytes, cut);
	expect_thrown_out(self, bytes, n + 1);
	for (unsigned count = 0; count < 65536; count += 4369) {
		if (count == 2)
			continue;
		bytes_store_u16(bytes + 4, (uint16_t)count);
		expect_thrown_out(self, bytes, n);
	}
	bytes_store_u16(bytes + 4, 2);
	expect_thrown_out(self, bytes, HSM_PACKET_BYTES_MAX);
	expect_thrown_out(self, bytes, HSM_PACKET_BYTES_MAX + 1);
	expect_thrown_out(self, bytes, sizeof(bytes));
	wait_until(self, 0, HSM_OK);
	ASSERT_EQ(worker_pid(self, 0), pid);
}

/* One that sends and never reads, and more links than there is room for: others are still served.
 */
TEST_F_TIMEOUT(hsmd, outlives_greedy_peers, 120)
{
	int greedy, fds[12];
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];
	struct hsm_batch b;
	size_t n;
	pid_t pid;

	START(self, "--workers=1");
	wait_until(self, 0, HSM_OK);
	pid = worker_pid(self, 0);
	for (unsigned i = 0; i < HSM_BATCH_JOBS_MAX; i++)
		jobs[i] = (struct hsm_job_wire){ .tag = i, .op = HSM_STATUS };
	hsm_batch_begin(&b, 'H', packet, sizeof(packet));
	for (unsigned i = 0; i < HSM_BATCH_JOBS_MAX; i++)
		ASSERT_TRUE(hsm_batch_add_job(&b, &jobs[i]));
	n = hsm_batch_finish(&b);
	greedy = connect_to(self, 0);
	for (unsigned i = 0; i < 5000; i++)
		if (send(greedy, packet, n, MSG_NOSIGNAL) < 0)
			break;
	ASSERT_TRUE(errno == EPIPE || errno == ECONNRESET);
	close(greedy);
	wait_until(self, 0, HSM_OK);

	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = connect_to(self, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		struct hsm_reply_wire reply;

		if (i < 8) {
			ASSERT_EQ(ask_one(fds[i], &jobs[0], &reply), HSM_OK);
		} else {
			uint8_t byte;

			ASSERT_LE(recv(fds[i], &byte, 1, 0), 0);
		}
	}
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	wait_until(self, 0, HSM_OK);
	ASSERT_EQ(worker_pid(self, 0), pid);
}

/* As user nobody: -1 where it cannot connect, else how many bytes of an answer it gets. */
static int ask_as_nobody(struct fixture_hsmd *self)
{
	int result[2], answer = -2;
	pid_t pid;

	ASSERT_EQ(pipe(result), 0);
	pid = fork();
	if (!pid) {
		const struct passwd *nobody = getpwnam("nobody");
		const struct hsm_job_wire job = { .op = HSM_STATUS };
		struct hsm_batch b;
		int fd;

		ASSERT_TRUE(nobody && !setgid(nobody->pw_gid) && !setuid(nobody->pw_uid));
		fd = try_connect(self, 0);
		answer = -1;
		if (fd >= 0) {
			hsm_batch_begin(&b, 'H', packet, sizeof(packet));
			ASSERT_TRUE(hsm_batch_add_job(&b, &job));
			(void)send(fd, packet, hsm_batch_finish(&b), MSG_NOSIGNAL);
			answer = (int)recv(fd, packet, sizeof(packet), 0);
			if (answer < 0)
				answer = 0; /* closed on what was sent */
		}
		ASSERT_EQ(write(result[1], &answer, sizeof(answer)), sizeof(answer));
		_exit(0);
	}
	ASSERT_EQ(wait_for(pid), 0);
	ASSERT_EQ(read(result[0], &answer, sizeof(answer)), sizeof(answer));
	close(result[0]);
	close(result[1]);
	return answer;
}

TEST_F_TIMEOUT(hsmd, serves_its_own_user, 60)
{
	char path[PATH_ROOM];

	if (geteuid())
		SKIP("needs root, to be somebody else");
	ASSERT_EQ(chmod(self->env.dir, 0711), 0);
	path_in(self->sockets, "hsmd.0.sock", path);
	START(self, "--workers=1");
	wait_until(self, 0, HSM_OK);
	ASSERT_EQ(ask_as_nobody(self), -1); /* the socket's mode */
	ASSERT_EQ(chmod(path, 0666), 0);
	ASSERT_EQ(ask_as_nobody(self), 0); /* its credentials */
	ASSERT_EQ(logged(self, "refused a link of another user"), 1);
	ASSERT_EQ(stop(self), 0);
	START(self, "--workers=1", "--uid=nobody");
	wait_until(self, 0, HSM_OK);
	ASSERT_EQ(chmod(path, 0666), 0); /* else its group's */
	ASSERT_GT(ask_as_nobody(self), HSM_STATUS_BYTES);
}

/* --- a broker: hsm/client.h over real sockets --- */

#define LOAD_JOBS_MAX 6000
#define LOAD_OUT_MAX  300

struct load_job {
	struct hsm_job job;
	unsigned n_done;
	struct grant *grant; /* NULL: a signature */
	unsigned point;
};

struct load {
	struct fixture_hsmd *hsmd;
	struct hsm_client *client;
	unsigned n_workers, n_jobs, submitted, done, ok;
	int fds[WORKERS_MAX];
	struct grant *grants;
	unsigned n_grants;
	struct p256_public *broker_key;
	struct load_job jobs[LOAD_JOBS_MAX];
};

static struct load load;

static void load_done(void *ctx, struct hsm_job *job)
{
	struct load *l = ctx;
	struct load_job *j = container_of(job, struct load_job, job);

	l->done++;
	ASSERT_EQ(++j->n_done, 1);
	if (job->status == HSM_UNAVAILABLE)
		return;
	ASSERT_EQ(job->status, HSM_OK);
	l->ok++;
	if (j->grant)
		ASSERT_BYTES(job->output, j->grant->x[j->point], P256_X_BYTES);
	else
		ASSERT_EQ(p256_verify_digest(l->broker_key, job->input, job->output), 0);
}

static void load_submit(struct load *l)
{
	struct load_job *j = &l->jobs[l->submitted++];

	memset(j, 0, sizeof(*j));
	j->job.done = load_done;
	if (harness_random() % 4) {
		j->grant = &l->grants[harness_random() % l->n_grants];
		j->point = (unsigned)(harness_random() % POINTS);
		j->job.op = HSM_CONVERT;
		memcpy(j->job.grant_id, j->grant->id, GRANT_ID_BYTES);
		memcpy(j->job.input, points[j->point].b, P256_POINT_BYTES);
		j->job.blob = bytes_of(j->grant->blob, j->grant->blob_n);
	} else {
		j->job.op = HSM_SIGN;
		hash_random(j->job.input, P256_DIGEST_BYTES);
	}
	hsm_client_submit(l->client, &j->job);
}

static void load_lose(struct load *l, unsigned i)
{
	close(l->fds[i]);
	l->fds[i] = -1;
	hsm_client_down(l->client, i);
}

static void load_receive(struct load *l, unsigned i)
{
	ssize_t n = recv(l->fds[i], packet, sizeof(packet), MSG_DONTWAIT);

	if (n <= 0 || hsm_client_reply(l->client, i, bytes_of(packet, (size_t)n)))
		load_lose(l, i);
}

static void load_send(struct load *l, unsigned i)
{
	size_t n;

	while (l->fds[i] >= 0 && (n = hsm_client_fill(l->client, i, packet)))
		if (send(l->fds[i], packet, n, MSG_NOSIGNAL) != (ssize_t)n)
			load_lose(l, i);
}

static void load_turn(struct load *l)
{
	struct pollfd polls[WORKERS_MAX];

	while (l->submitted < l->n_jobs && l->submitted - l->done < LOAD_OUT_MAX)
		load_submit(l);
	for (unsigned i = 0; i < l->n_workers; i++) {
		if (l->fds[i] < 0) {
			l->fds[i] = try_connect(l->hsmd, i);
			if (l->fds[i] >= 0)
				hsm_client_up(l->client, i);
		}
		load_send(l, i);
		polls[i] = (struct pollfd){ .fd = l->fds[i], .events = POLLIN };
	}
	if (poll(polls, l->n_workers, 20) > 0)
		for (unsigned i = 0; i < l->n_workers; i++)
			if (l->fds[i] >= 0 && polls[i].revents)
				load_receive(l, i);
	hsm_client_tick(l->client, now_ms());
}

static void load_run(struct load *l)
{
	while (l->done < l->n_jobs)
		load_turn(l);
}

static void load_begin(struct fixture_hsmd *self, unsigned n_workers, struct grant *grants,
		       unsigned n_grants, unsigned n_jobs)
{
	load = (struct load){ .hsmd = self,
			      .n_workers = n_workers,
			      .n_jobs = n_jobs,
			      .grants = grants,
			      .n_grants = n_grants,
			      .fds = { -1, -1, -1 } };
	ASSERT_LE(n_jobs, LOAD_JOBS_MAX);
	load.client = hsm_client_new(n_workers, &load);
	load.broker_key = broker_key(self);
}

static void load_end(void)
{
	struct hsm_client_stats s;

	ASSERT_EQ(load.done, load.n_jobs);
	for (unsigned i = 0; i < load.n_jobs; i++)
		ASSERT_EQ(load.jobs[i].n_done, 1);
	hsm_client_stats(load.client, &s);
	harness_note("%u jobs, %u ok, %llu requeued, %llu packets, %llu loads", load.done, load.ok,
		     (unsigned long long)s.requeued, (unsigned long long)s.packets,
		     (unsigned long long)s.loads);
	hsm_client_free(load.client);
	p256_public_free(load.broker_key);
	for (unsigned i = 0; i < load.n_workers; i++)
		if (load.fds[i] >= 0)
			close(load.fds[i]);
}

TEST_F_TIMEOUT(hsmd, loses_nothing_when_workers_are_killed, 120)
{
	static struct grant grants[6];
	uint64_t next_kill;
	unsigned kills = 0;

	make_grants(self, grants, ARRAY_SIZE(grants));
	START(self, "--workers=2");
	wait_until(self, 0, HSM_OK);
	load_begin(self, 2, grants, ARRAY_SIZE(grants), harness_rounds(LOAD_JOBS_MAX));
	next_kill = now_ms() + 150;
	while (load.done < load.n_jobs) {
		load_turn(&load);
		if (now_ms() < next_kill || kills == 6)
			continue;
		/* One that is gone already counts as well. */
		(void)kill(worker_pid(self, kills++ % 2), SIGKILL);
		next_kill = now_ms() + 300;
	}
	ASSERT_GE(kills, 2);
	ASSERT_EQ(load.ok, load.n_jobs);
	load_end();
	harness_note("%u workers killed", kills);
	ASSERT_GE(logged(self, "killed by signal 9"), kills / 2);
}

TEST_F_TIMEOUT(hsmd, keeps_more_grants_than_fit, 120)
{
	static struct grant grants[40];
	struct hsm_status_wire s;

	make_grants(self, grants, ARRAY_SIZE(grants));
	START(self, "--workers=2", "--keys-max=16", "--session-keys-max=4");
	wait_until(self, 0, HSM_OK);
	load_begin(self, 2, grants, ARRAY_SIZE(grants), harness_rounds(800));
	load_run(&load);
	ASSERT_EQ(load.ok, load.n_jobs);
	load_end();
	for (unsigned i = 0; i < 2; i++) {
		ASSERT_EQ(ask_status(self, i, &s), HSM_OK);
		ASSERT_LE(s.blobs, 16);
		ASSERT_LE(s.session_keys, 4);
	}
}

/* After so many conversions the module is started afresh, between packets; nobody notices. */
TEST_F_TIMEOUT(hsmd, recycles, 60)
{
	struct hsm_job_wire jobs[12];
	struct hsm_reply_wire replies[12];
	struct hsm_status_wire s;
	struct grant g;
	int fd;

	make_grants(self, &g, 1);
	START(self, "--workers=1", "--recycle-after=10");
	wait_until(self, 0, HSM_OK);
	fd = connect_to(self, 0);
	jobs[0] = job_for(&g, HSM_LOAD);
	for (unsigned i = 1; i < 12; i++)
		jobs[i] = job_for(&g, HSM_CONVERT);
	for (unsigned round = 0; round < 5; round++) {
		ask(fd, jobs, 6, replies);
		ASSERT_EQ(replies[5].status, HSM_OK);
		ASSERT_EQ(ask_status(self, 0, &s), HSM_OK);
		ASSERT_EQ(s.session_keys, 1);
		ask(fd, jobs, 12, replies);
		ASSERT_EQ(replies[11].status, HSM_OK);
		ASSERT_BYTES(replies[11].result.p, g.x[0], P256_X_BYTES);
		ASSERT_EQ(ask_status(self, 0, &s), HSM_OK);
		ASSERT_EQ(s.session_keys, 0);
		ASSERT_EQ(s.blobs, 1);
		ASSERT_EQ(s.recoveries, 0);
	}
	close(fd);
}

TEST_F_TIMEOUT(hsmd, recycles_under_load, 120)
{
	static struct grant grants[3];
	pid_t pid;

	make_grants(self, grants, ARRAY_SIZE(grants));
	START(self, "--workers=1", "--recycle-after=100");
	wait_until(self, 0, HSM_OK);
	pid = worker_pid(self, 0);
	load_begin(self, 1, grants, ARRAY_SIZE(grants), 1500);
	load_run(&load);
	ASSERT_EQ(load.ok, load.n_jobs);
	load_end();
	ASSERT_EQ(worker_pid(self, 0), pid);
	ASSERT_EQ(logged(self, "unavailable"), 0);
}

/* --- the token, the PIN --- */

/* Gone for longer than a job waits: answered as unavailable, at once, and found again by itself. */
TEST_F_TIMEOUT(hsmd, token_moved_away_and_back, 120)
{
	static struct grant grants[3];
	unsigned ok;
	struct hsm_status_wire s;
	uint64_t before;
	pid_t pid;

	make_grants(self, grants, ARRAY_SIZE(grants));
	START(self, "--workers=1");
	wait_until(self, 0, HSM_OK);
	pid = worker_pid(self, 0);
	load_begin(self, 1, grants, ARRAY_SIZE(grants), 200);
	load_run(&load);
	ASSERT_EQ(load.ok, 200);
	ASSERT_EQ(rename(self->env.tokens, self->env.aside), 0);
	before = now_ms();
	load.n_jobs = 700;
	load_run(&load);
	/* Session keys work until the first signature finds the token gone. */
	ok = load.ok;
	ASSERT_LT(ok, 200 + 2 * HSM_BATCH_JOBS_MAX);
	ASSERT_LT(now_ms() - before, 5000);
	ASSERT_EQ(rename(self->env.aside, self->env.tokens), 0);
	wait_until(self, 0, HSM_OK);
	/* No handle of the module's former life is kept: it could be another key's in this one. */
	ASSERT_EQ(ask_status(self, 0, &s), HSM_OK);
	ASSERT_EQ(s.session_keys, 0);
	load.n_jobs = 1000;
	load_run(&load);
	ASSERT_EQ(load.ok, ok + 300);
	load_end();
	ASSERT_EQ(worker_pid(self, 0), pid);
	ASSERT_EQ(logged(self, "token unavailable"), 1);
	ASSERT_EQ(logged(self, "token is back"), 1);
}

/* Gone for less than a job waits: nobody notices. */
TEST_F_TIMEOUT(hsmd, token_away_for_a_moment, 120)
{
	static struct grant grants[3];

	make_grants(self, grants, ARRAY_SIZE(grants));
	START(self, "--workers=1");
	wait_until(self, 0, HSM_OK);
	load_begin(self, 1, grants, ARRAY_SIZE(grants), 2000);
	for (unsigned i = 1; i <= 5; i++) {
		while (load.done < i * 300)
			load_turn(&load);
		ASSERT_EQ(rename(self->env.tokens, self->env.aside), 0);
		sleep_ms(30);
		ASSERT_EQ(rename(self->env.aside, self->env.tokens), 0);
	}
	load_run(&load);
	ASSERT_EQ(load.ok, load.n_jobs);
	load_end();
	ASSERT_EQ(logged(self, "unavailable"), 0);
}

TEST_F_TIMEOUT(hsmd, token_absent_at_start, 120)
{
	struct hsm_status_wire s;

	ASSERT_EQ(rename(self->env.tokens, self->env.aside), 0);
	ASSERT_EQ(mkdir(self->env.tokens, 0700), 0);
	START(self, "--workers=2");
	for (unsigned i = 0; i < 2; i++)
		ASSERT_EQ(ask_status(self, i, &s), HSM_UNAVAILABLE);
	ASSERT_EQ(rmdir(self->env.tokens), 0);
	ASSERT_EQ(rename(self->env.aside, self->env.tokens), 0);
	for (unsigned i = 0; i < 2; i++)
		wait_until(self, i, HSM_OK);
	ASSERT_EQ(logged(self, "token unavailable"), 2);
	ASSERT_EQ(logged(self, "token is back"), 2);
}

/* A wrong PIN is tried by one worker, once; then all is over, and stays over. */
TEST_F_TIMEOUT(hsmd, tries_a_wrong_pin_once, 60)
{
	write_file(self->env.pin, "not the PIN\n", 0600);
	START(self, "--workers=3");
	ASSERT_EQ(run_to_end(self), EX_NOPERM);
	ASSERT_EQ(logged(self, "C_Login: CKR_PIN_INCORRECT"), 1);
	ASSERT_EQ(logged(self, "the token refused the PIN"), 1);
	ASSERT_EQ(logged(self, "again in"), 0);
	/* A service manager that starts it again does not use up the token's patience. */
	for (unsigned i = 0; i < 3; i++) {
		START(self, "--workers=3");
		ASSERT_EQ(run_to_end(self), EX_NOPERM);
	}
	ASSERT_EQ(logged(self, "C_Login: CKR_PIN_INCORRECT"), 1);
	write_file(self->env.pin, TOKEN_ENV_PIN "\n", 0600);
	START(self, "--workers=3");
	for (unsigned i = 0; i < 3; i++)
		wait_until(self, i, HSM_OK);
}

TEST_F_TIMEOUT(hsmd, wants_a_private_pin_file, 60)
{
	ASSERT_EQ(chmod(self->env.pin, 0640), 0);
	START(self, "--workers=2");
	ASSERT_EQ(run_to_end(self), EX_NOPERM);
	ASSERT_EQ(logged(self, "\n"), 1);
	ASSERT_EQ(logged(self, "chmod 600"), 1);
	ASSERT_EQ(unlink(self->env.pin), 0);
	START(self, "--workers=2");
	ASSERT_EQ(run_to_end(self), EX_CONFIG);
	ASSERT_EQ(logged(self, "\n"), 2);
}

/* --- the supervisor --- */

TEST_F_TIMEOUT(hsmd, ends_whole_and_leaves_nothing, 60)
{
	char path[PATH_ROOM], name[32];
	pid_t pids[2];

	START(self, "--workers=2");
	for (unsigned i = 0; i < 2; i++) {
		wait_until(self, i, HSM_OK);
		pids[i] = worker_pid(self, i);
	}
	ASSERT_EQ(kill(self->pid, SIGHUP), 0);
	wait_until(self, 0, HSM_OK);
	/* A second one in the same place is told so. */
	{
		char *argv[] = { COMMON(self, "run"), raw_bytes("--socket-dir"), self->sockets,
				 NULL };

		ASSERT_EQ(wait_for(spawn(self, argv)), EX_TEMPFAIL);
	}
	wait_until(self, 0, HSM_OK);
	ASSERT_EQ(stop(self), 0);
	for (unsigned i = 0; i < 2; i++) {
		ASSERT_EQ(kill(pids[i], 0), -1);
		snprintf(name, sizeof(name), "hsmd.%u.sock", i);
		path_in(self->sockets, name, path);
		ASSERT_EQ(access(path, F_OK), -1);
		snprintf(name, sizeof(name), "hsmd.%u.pid", i);
		path_in(self->sockets, name, path);
		ASSERT_EQ(access(path, F_OK), -1);
	}
}

TEST_F_TIMEOUT(hsmd, workers_do_not_outlive_it, 60)
{
	pid_t pids[2], pid;

	START(self, "--workers=2");
	for (unsigned i = 0; i < 2; i++) {
		wait_until(self, i, HSM_OK);
		pids[i] = worker_pid(self, i);
	}
	pid = self->pid;
	self->pid = 0;
	ASSERT_EQ(kill(pid, SIGKILL), 0);
	ASSERT_EQ(wait_for(pid), 128 + SIGKILL);
	for (unsigned i = 0; i < 2; i++) {
		char path[64], state = 'R';
		uint64_t end = now_ms() + ANSWER_S * 1000;

		snprintf(path, sizeof(path), "/proc/%d/stat", (int)pids[i]);
		/* Gone, or a zombie of whoever inherited it. */
		while (state != 'Z' && now_ms() < end) {
			FILE *f = fopen(path, "re");

			if (!f)
				break;
			if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
				state = 'Z';
			fclose(f);
			sleep_ms(10);
		}
		ASSERT_LT(now_ms(), end);
	}
	/* What it left behind does not stand in the next one's way. */
	START(self, "--workers=2");
	wait_until(self, 0, HSM_OK);
}

/* Dying at once, over and over, it is started ever less often; living, it is started at once. */
TEST_F_TIMEOUT(hsmd, backs_off_from_what_dies_quickly, 60)
{
	unsigned kills = 0, at_once;
	uint64_t end;
	pid_t last = 0;

	START(self, "--workers=1");
	wait_until(self, 0, HSM_OK);
	end = now_ms() + 2000;
	while (now_ms() < end) {
		pid_t pid = worker_pid(self, 0);

		if (pid != last && !kill(pid, SIGKILL))
			kills++;
		last = pid;
		sleep_ms(2);
	}
	harness_note("%u workers died at once within 2 s", kills);
	ASSERT_GE(kills, 4);
	ASSERT_LE(kills, 12);
	at_once = logged(self, "again in 0 ms");
	ASSERT_LE(at_once, 1); /* the first one, where it took long to be ready */
	wait_until(self, 0, HSM_OK);
	sleep_ms(300);
	ASSERT_EQ(kill(worker_pid(self, 0), SIGKILL), 0);
	wait_until(self, 0, HSM_OK);
	ASSERT_EQ(logged(self, "again in 0 ms"), at_once + 1);
}

/* --- keygen and status --- */

static int keygen(struct fixture_hsmd *self, char *file)
{
	char *argv[] = { COMMON(self, "keygen"), raw_bytes("--public"), file, NULL };

	return wait_for(spawn(self, argv));
}

static size_t read_file(const char *path, char *out, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	ASSERT_GE(fd, 0);
	n = read(fd, out, room - 1);
	ASSERT_GT(n, 0);
	close(fd);
	out[n] = '\0';
	return (size_t)n;
}

TEST_F_TIMEOUT(hsmd, keygen_can_be_repeated, 120)
{
	char file[PATH_ROOM], first[4096], again[4096], *rsa, *bundle;
	uint8_t spki[RSA_SPKI_BYTES_MAX];
	struct p256_point point, opening, got;
	struct token *t;
	int n;

	remove_tree(self->env.tokens);
	ASSERT_EQ(mkdir(self->env.tokens, 0700), 0);
	raw_make_token(TOKEN_ENV_LABEL);
	path_in(self->env.dir, "public.pem", file);
	ASSERT_EQ(keygen(self, file), 0);
	ASSERT_EQ(logged(self, "made ssdtf-"), 4);
	read_file(file, first, sizeof(first));
	ASSERT_EQ(keygen(self, file), 0);
	ASSERT_EQ(logged(self, "made ssdtf-"), 4);
	read_file(file, again, sizeof(again));
	ASSERT_STREQ(again, first);

	/* Three blocks: the signing key, the unwrapping key, the bundle key. */
	rsa = strstr(first, "-----END PUBLIC KEY-----\n");
	ASSERT_TRUE(rsa);
	rsa += strlen("-----END PUBLIC KEY-----\n");
	ASSERT_EQ(p256_public_from_pem(bytes_of(first, (size_t)(rsa - first)), &point), 0);
	bundle = strstr(rsa, "-----END PUBLIC KEY-----\n");
	ASSERT_TRUE(bundle);
	bundle += strlen("-----END PUBLIC KEY-----\n");
	ASSERT_EQ(p256_public_from_pem(bytes_str(bundle), &opening), 0);
	n = rsa_public_from_pem(bytes_of(rsa, (size_t)(bundle - rsa)), spki, sizeof(spki));
	ASSERT_GT(n, 0);
	ASSERT_EQ(token_open(&self->env.config, &t), 0);
	token_env_learn(&self->env, t);
	ASSERT_EQ(n, self->env.spki_n);
	ASSERT_BYTES(spki, self->env.spki, self->env.spki_n);
	ASSERT_EQ(token_check_unwrapping(t, TOKEN_LABEL_UNWRAP), 0);
	ASSERT_EQ(token_signing_public(t, TOKEN_LABEL_BUNDLE, &got), 0);
	ASSERT_BYTES(got.b, opening.b, sizeof(got.b));
	token_close(t);
}

/* On a token from before there was one, keygen adds the bundle key and the id key, and a running
 * hsmd sees them. */
TEST_F_TIMEOUT(hsmd, keygen_adds_what_is_missing, 120)
{
	static const uint8_t no_point[P256_POINT_BYTES];
	uint8_t v[32], mac[2][HSM_MAC_BYTES], want[P256_X_BYTES];
	struct hsm_status_wire before, after;
	struct hsm_reply_wire reply;
	struct p256_point e;
	struct secret32 k;
	struct hsm_job_wire job = { .tag = 1 };
	char file[PATH_ROOM];
	int fd;

	START(self, "--workers=1");
	wait_until(self, 0, HSM_OK);
	ASSERT_EQ(ask_status(self, 0, &before), HSM_OK);
	ASSERT_BYTES(before.bundle_key, no_point, sizeof(no_point));
	fd = connect_to(self, 0);
	hash_random(v, sizeof(v));
	random_scalar(&k);
	ASSERT_EQ(p256_mul_base(&k, &e), 0);
	job.point = bytes_of(e.b, sizeof(e.b));
	job.digest = bytes_of(v, sizeof(v));
	for (job.op = HSM_OPEN; job.op <= HSM_SIGN_NEXT; job.op++)
		ASSERT_EQ(ask_one(fd, &job, &reply), HSM_NO_KEY);

	path_in(self->env.dir, "public.pem", file);
	ASSERT_EQ(keygen(self, file), 0);
	ASSERT_EQ(logged(self, "made ssdtf-"), 2);
	ASSERT_EQ(ask_status(self, 0, &after), HSM_OK);
	ASSERT_BYTES(after.broker_key, before.broker_key, sizeof(after.broker_key));
	ASSERT_BYTES(after.unwrap_key_hash, before.unwrap_key_hash, sizeof(after.unwrap_key_hash));
	/* x(bundle key * kG) = x(k * bundle key's public half). */
	ASSERT_EQ(grant_convert(&k, (const struct p256_point *)after.bundle_key, want), 0);
	job.op = HSM_OPEN;
	ASSERT_EQ(ask_one(fd, &job, &reply), HSM_OK);
	ASSERT_BYTES(reply.result.p, want, sizeof(want));
	job.op = HSM_MAC;
	for (unsigned i = 0; i < 2; i++) {
		ASSERT_EQ(ask_one(fd, &job, &reply), HSM_OK);
		memcpy(mac[i], reply.result.p, sizeof(mac[i]));
	}
	ASSERT_BYTES(mac[0], mac[1], sizeof(mac[0]));
	v[0] ^= 1;
	ASSERT_EQ(ask_one(fd, &job, &reply), HSM_OK);
	ASSERT_TRUE(memcmp(mac[0], reply.result.p, sizeof(mac[0])));
	job.op = HSM_OPEN;
	e.b[7] ^= 1;
	ASSERT_EQ(ask_one(fd, &job, &reply), HSM_BAD_REQUEST);
	close(fd);
}

/* Runs keygen with these further options; the last is NULL. */
static pid_t start_keygen(struct fixture_hsmd *self, const char *const options[])
{
	char *argv[ARGS_MAX] = { COMMON(self, "keygen") };
	size_t n = COMMON_N;

	for (size_t i = 0; options[i]; i++)
		argv[n++] = raw_bytes(options[i]);
	return spawn(self, argv);
}

#define KEYGEN(self, ...) wait_for(start_keygen(self, (const char *const[]){ __VA_ARGS__, NULL }))

/* The broker's signing key in a file of keygen's: its first block. */
static struct p256_point signing_in(const char *file)
{
	char text[4096], *end;
	struct p256_point point;

	read_file(file, text, sizeof(text));
	end = strstr(text, "-----END PUBLIC KEY-----\n");
	ASSERT_TRUE(end);
	end += strlen("-----END PUBLIC KEY-----\n");
	ASSERT_EQ(p256_public_from_pem(bytes_of(text, (size_t)(end - text)), &point), 0);
	return point;
}

static enum hsm_status sign_by(struct fixture_hsmd *self, enum hsm_op op,
			       const struct p256_point *key)
{
	uint8_t digest[P256_DIGEST_BYTES];
	struct hsm_job_wire job = { .tag = 3, .op = op };
	struct hsm_reply_wire reply;
	struct p256_public *public;
	enum hsm_status status;
	int fd = connect_to(self, 0);

	hash_random(digest, sizeof(digest));
	job.digest = bytes_of(digest, sizeof(digest));
	status = ask_one(fd, &job, &reply);
	if (status == HSM_OK) {
		ASSERT_EQ(p256_public_new(key, &public), 0);
		ASSERT_EQ(p256_verify_digest(public, digest, reply.result.p), 0);
		p256_public_free(public);
	}
	close(fd);
	return status;
}

static enum hsm_status convert_with(struct fixture_hsmd *self, struct grant *g)
{
	struct hsm_job_wire jobs[2] = { job_for(g, HSM_LOAD), job_for(g, HSM_CONVERT) };
	struct hsm_reply_wire replies[2];
	int fd = connect_to(self, 0);

	ask(fd, jobs, 2, replies);
	close(fd);
	if (replies[1].status == HSM_OK)
		ASSERT_BYTES(replies[1].result.p, g->x[0], P256_X_BYTES);
	return replies[1].status;
}

static int protect_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	return strcmp(path + at->base, "token.object") ? 0 : chmod(path, 0400);
}

/* As tools/make-token leaves it: else a login that is killed takes the token along. */
static void protect_token(struct fixture_hsmd *self)
{
	ASSERT_EQ(nftw(self->env.tokens, protect_one, 16, FTW_PHYS), 0);
}

static void wait_logged(struct fixture_hsmd *self, const char *what, unsigned times)
{
	for (uint64_t end = now_ms() + ANSWER_S * 1000; now_ms() < end; sleep_ms(10))
		if (logged(self, what) >= times)
			return;
	harness_fail(__FILE__, __LINE__, true, "never said: %s", what);
}

/* Both keys replaced while a worker runs, from the next key's making to the old one's end. */
TEST_F_TIMEOUT(hsmd, replaces_keys, 120)
{
	char file[PATH_ROOM], next_file[PATH_ROOM];
	struct p256_point old, next;
	struct hsm_status_wire s;
	struct grant old_grant, new_grant;
	struct token *t;

	path_in(self->env.dir, "public.pem", file);
	path_in(self->env.dir, "next.pem", next_file);
	protect_token(self);
	START(self, "--workers=1");
	wait_until(self, 0, HSM_OK);
	ASSERT_EQ(KEYGEN(self, "--public", file), 0);
	old = signing_in(file);
	make_grants(self, &old_grant, 1);
	ASSERT_EQ(sign_by(self, HSM_SIGN_NEXT, &old), HSM_NO_KEY);

	ASSERT_EQ(KEYGEN(self, "--next=signing", "--next=unwrap", "--public", next_file), 0);
	ASSERT_EQ(logged(self, "made ssdtf-sign-2"), 1);
	ASSERT_EQ(kill(self->pid, SIGHUP), 0);
	wait_logged(self, "looked at the token anew", 1);
	next = signing_in(next_file);
	ASSERT_TRUE(memcmp(&next, &old, sizeof(old)));
	/* Repeated: the same. */
	ASSERT_EQ(KEYGEN(self, "--next=signing", "--public", next_file), 0);
	ASSERT_EQ(logged(self, "made ssdtf-sign-2"), 1);
	next = signing_in(next_file);

	/* What the manager wraps for the next key, and has signed by it, works already. */
	ASSERT_EQ(token_open(&self->env.config, &t), 0);
	self->env.spki_n = (size_t)token_unwrapping_public(t, "ssdtf-unwrap-2", self->env.spki,
							   sizeof(self->env.spki));
	token_close(t);
	make_grants(self, &new_grant, 1);
	ASSERT_EQ(convert_with(self, &new_grant), HSM_OK);
	ASSERT_EQ(sign_by(self, HSM_SIGN, &old), HSM_OK);
	ASSERT_EQ(sign_by(self, HSM_SIGN_NEXT, &next), HSM_OK);
	ASSERT_EQ(ask_status(self, 0, &s), HSM_OK);
	ASSERT_BYTES(s.broker_key, old.b, sizeof(old.b));
	ASSERT_BYTES(s.next_broker_key, next.b, sizeof(next.b));
	ASSERT_TRUE(s.next_unwrap_key_hash[0] | s.next_unwrap_key_hash[1]);

	/* Not while it runs; then for good. */
	ASSERT_EQ(KEYGEN(self, "--promote=signing", "--socket-dir", self->sockets), EX_TEMPFAIL);
	ASSERT_EQ(logged(self, "another ssdtf-hsmd runs there"), 1);
	ASSERT_EQ(logged(self, "ended with"), 0); /* it is the worker of the beginning */
	ASSERT_EQ(stop(self), 0);
	ASSERT_EQ(KEYGEN(self, "--promote=signing", "--dry-run", "--socket-dir", self->sockets), 0);
	ASSERT_EQ(logged(self, "would have destroyed ssdtf-sign,"), 1);
	ASSERT_EQ(KEYGEN(self, "--promote=signing", "--promote=unwrap", "--socket-dir",
			 self->sockets, "--public", file),
		  0);
	ASSERT_BYTES(signing_in(file).b, next.b, sizeof(next.b));
	ASSERT_EQ(KEYGEN(self, "--promote=signing", "--socket-dir", self->sockets), EX_DATAERR);
	START(self, "--workers=1");
	wait_until(self, 0, HSM_OK);
	ASSERT_EQ(sign_by(self, HSM_SIGN, &next), HSM_OK);
	ASSERT_EQ(sign_by(self, HSM_SIGN_NEXT, &next), HSM_NO_KEY);
	ASSERT_EQ(convert_with(self, &new_grant), HSM_OK);
	ASSERT_EQ(convert_with(self, &old_grant), HSM_BAD_KEY);
}

/* One of a pair, as a keygen leaves it that was killed amid it. */
static void destroy_half(const char *label, ck_object_class_t class)
{
	struct raw r;

	raw_open(&r);
	ASSERT_EQ(r.f->C_DestroyObject(r.session, raw_find(&r, label, class)), CKR_OK);
	raw_close(&r);
}

/* Half a next key is none, and half an old one is gone: the token works, and what was begun can be
 * done. Of a token.object that cannot be written (tools/make-token) as well. */
TEST_F_TIMEOUT(hsmd, keygen_mends_what_a_killed_one_left, 120)
{
	static const ck_object_class_t halves[] = { CKO_PUBLIC_KEY, CKO_PRIVATE_KEY };
	char file[PATH_ROOM], next_file[PATH_ROOM];
	struct p256_point current, next;

	path_in(self->env.dir, "public.pem", file);
	path_in(self->env.dir, "next.pem", next_file);
	protect_token(self);
	ASSERT_EQ(KEYGEN(self, "--public", file), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(halves); i++) {
		char label[32];

		current = signing_in(file);
		ASSERT_EQ(KEYGEN(self, "--next=signing", "--public", next_file), 0);
		snprintf(label, sizeof(label), "ssdtf-sign-%u", i + 2);
		destroy_half(label, halves[i]);
		ASSERT_EQ(KEYGEN(self, "--public", file), 0);
		ASSERT_BYTES(signing_in(file).b, current.b, sizeof(current.b));
		ASSERT_EQ(KEYGEN(self, "--next=signing", "--public", next_file), 0);
		ASSERT_EQ(logged(self, "removed what was left of a key pair"), 2 * i + 1);
		next = signing_in(next_file);

		snprintf(label, sizeof(label), i ? "ssdtf-sign-%u" : "ssdtf-sign", i + 1);
		destroy_half(label, halves[i]);
		START(self, "--workers=1");
		wait_until(self, 0, HSM_OK);
		ASSERT_EQ(sign_by(self, HSM_SIGN, &next), HSM_OK);
		ASSERT_EQ(stop(self), 0);
		ASSERT_EQ(KEYGEN(self, "--promote=signing", "--socket-dir", self->sockets), 0);
		ASSERT_EQ(logged(self, "removed what was left of a key pair"), 2 * i + 2);
		ASSERT_EQ(KEYGEN(self, "--public", file), 0);
		ASSERT_BYTES(signing_in(file).b, next.b, sizeof(next.b));
	}
}

/* kill -9 at any moment of either step: the old key or the new one, and the step can be repeated.
 */
TEST_F_TIMEOUT(hsmd, keygen_killed_leaves_one_key_or_the_other, 120)
{
	char file[PATH_ROOM], next_file[PATH_ROOM];
	const char *const make[] = { "--next=signing", "--public", next_file, NULL };
	const char *const promote[] = { "--promote=signing", "--socket-dir", self->sockets, NULL };
	unsigned killed = 0;

	path_in(self->env.dir, "public.pem", file);
	path_in(self->env.dir, "next.pem", next_file);
	protect_token(self);
	ASSERT_EQ(KEYGEN(self, "--public", file), 0);
	for (unsigned i = 0; i < harness_rounds(6); i++) {
		const char *const *step = i % 2 ? promote : make;
		struct p256_point before = signing_in(file), next;
		pid_t pid;
		int rc;

		if (step == promote)
			next = signing_in(next_file);
		pid = start_keygen(self, step);
		sleep_ms(20 + (unsigned)(harness_random() % 60));
		(void)kill(pid, SIGKILL); /* over already: as well */
		rc = wait_for(pid);
		ASSERT_TRUE(!rc || rc == 128 + SIGKILL);
		killed += rc != 0;
		ASSERT_EQ(KEYGEN(self, "--public", file), 0);
		rc = wait_for(start_keygen(self, step));
		ASSERT_TRUE(!rc || (step == promote && rc == EX_DATAERR));
		ASSERT_EQ(logged(self, "made ssdtf-sign,"), 0);
		if (step == make) {
			ASSERT_BYTES(signing_in(file).b, before.b, sizeof(before.b));
			continue;
		}
		ASSERT_EQ(KEYGEN(self, "--public", file), 0);
		ASSERT_BYTES(signing_in(file).b, next.b, sizeof(next.b));
	}
	harness_note("%u killed", killed);
}

TEST_F_TIMEOUT(hsmd, keygen_fails_whole, 60)
{
	char file[PATH_ROOM];

	path_in(self->env.dir, "no/such/dir.pem", file);
	ASSERT_EQ(keygen(self, file), EX_CANTCREAT);
	path_in(self->env.dir, "public.pem", file);
	write_file(self->env.pin, "not the PIN\n", 0600);
	ASSERT_EQ(keygen(self, file), EX_NOPERM);
	ASSERT_EQ(access(file, F_OK), -1);
	write_file(self->env.pin, TOKEN_ENV_PIN "\n", 0600);
	ASSERT_EQ(rename(self->env.tokens, self->env.aside), 0);
	ASSERT_EQ(keygen(self, file), EX_UNAVAILABLE);
	ASSERT_EQ(access(file, F_OK), -1);
	ASSERT_EQ(rename(self->env.aside, self->env.tokens), 0);
}

/* In place of the unwrapping key one of the same name that promises nothing. */
static void weaken_token(void)
{
	unsigned char yes = 1, no = 0, exponent[] = { 1, 0, 1 };
	unsigned long bits = 3072;
	const char *label = TOKEN_LABEL_UNWRAP;
	struct ck_attribute public[] = { { CKA_TOKEN, &yes, 1 },
					 { CKA_PRIVATE, &no, 1 },
					 { CKA_LABEL, raw_bytes(label), strlen(label) },
					 { CKA_MODULUS_BITS, &bits, sizeof(bits) },
					 { CKA_PUBLIC_EXPONENT, exponent, 3 } };
	struct ck_attribute private[] = { { CKA_TOKEN, &yes, 1 },
					  { CKA_PRIVATE, &yes, 1 },
					  { CKA_SENSITIVE, &yes, 1 },
					  { CKA_EXTRACTABLE, &no, 1 },
					  { CKA_UNWRAP, &yes, 1 },
					  { CKA_DECRYPT, &no, 1 },
					  { CKA_LABEL, raw_bytes(label), strlen(label) },
					  { CKA_MODIFIABLE, &no, 1 } };
	struct ck_mechanism gen = { CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0 };
	ck_object_handle_t a, b;
	struct raw r;

	raw_open(&r);
	a = raw_find(&r, label, CKO_PRIVATE_KEY);
	b = raw_find(&r, label, CKO_PUBLIC_KEY);
	ASSERT_EQ(r.f->C_DestroyObject(r.session, a), CKR_OK);
	ASSERT_EQ(r.f->C_DestroyObject(r.session, b), CKR_OK);
	ASSERT_EQ(r.f->C_GenerateKeyPair(r.session, &gen, public, ARRAY_SIZE(public), private,
					 ARRAY_SIZE(private), &a, &b),
		  CKR_OK);
	raw_close(&r);
}

/* keygen says so, and hands out nothing. */
TEST_F_TIMEOUT(hsmd, keygen_refuses_a_weak_key, 60)
{
	char file[PATH_ROOM];

	weaken_token();
	path_in(self->env.dir, "public.pem", file);
	ASSERT_EQ(keygen(self, file), EX_PROTOCOL);
	ASSERT_EQ(logged(self, "CKA_UNWRAP_TEMPLATE is not enforced"), 1);
	ASSERT_EQ(access(file, F_OK), -1);
}

static int pin_holder(struct fixture_hsmd *self)
{
	char path[] = "tools/pin-holder", file[PATH_ROOM];
	char *argv[] = { path,
			 raw_bytes("--module"),
			 raw_bytes(TOKEN_ENV_MODULE),
			 raw_bytes("--token"),
			 raw_bytes(TOKEN_ENV_LABEL),
			 raw_bytes("--pin-file"),
			 self->env.pin,
			 raw_bytes("--blob"),
			 file,
			 NULL };
	struct grant g;
	int fd;

	path_in(self->env.dir, "blob", file);
	make_grants(self, &g, 1);
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ASSERT_EQ(write(fd, g.blob, g.blob_n), (ssize_t)g.blob_n);
	close(fd);
	return wait_for(spawn_program(self, path, argv));
}

/* The demonstration shows what it says: against our key, and against one where attacks succeed. */
TEST_F_TIMEOUT(hsmd, pin_holder_gets_nothing, 60)
{
	struct token *t;

	if (access("tools/pin-holder", X_OK))
		SKIP("tools/pin-holder is not here: run from the top of the repository");
	ASSERT_EQ(pin_holder(self), 0);
	ASSERT_EQ(logged(self, "refused\n"), 19);
	ASSERT_EQ(logged(self, "as it should be\n"), 1);
	weaken_token();
	ASSERT_EQ(token_open(&self->env.config, &t), 0);
	token_env_learn(&self->env, t);
	token_close(t);
	ASSERT_EQ(pin_holder(self), 1);
	ASSERT_GE(logged(self, "WENT THROUGH"), 3);
	write_file(self->env.pin, "not the PIN\n", 0600);
	ASSERT_EQ(pin_holder(self), 2);
}

TEST_F_TIMEOUT(hsmd, status_asks_each_worker, 60)
{
	char *argv[] = { raw_bytes("ssdtf-hsmd"), raw_bytes("status"), raw_bytes("--socket-dir"),
			 self->sockets, NULL };

	ASSERT_EQ(wait_for(spawn(self, argv)), EX_UNAVAILABLE);
	START(self, "--workers=3");
	for (unsigned i = 0; i < 3; i++)
		wait_until(self, i, HSM_OK);
	ASSERT_EQ(wait_for(spawn(self, argv)), 0);
	ASSERT_EQ(logged(self, "state=ok"), 3);
}

TEST_F_TIMEOUT(hsmd, explains_wrong_options, 60)
{
	static const char *const bad[] = { "--workers=0",	 "--workers=65",
					   "--workers=x",	 "--keys-max=0",
					   "--recycle-after=-1", "--no-such-option",
					   "--uid=no-such-user", "stray" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		START(self, bad[i]);
		ASSERT_EQ(run_to_end(self), EX_USAGE);
	}
	{
		char *argv[] = { raw_bytes("ssdtf-hsmd"), raw_bytes("juggle"), NULL };

		ASSERT_EQ(wait_for(spawn(self, argv)), EX_USAGE);
	}
}

int main(int argc, char **argv)
{
	return token_env_main(argc, argv);
}
