/* SPDX-License-Identifier: MIT */
/*
 * Runs each test in a process group of its own and says in TAP 13 how it went.
 *
 *   parent   fork, wait until the child ends or its time is over, kill what is left of its group,
 *            print the verdict
 *   child    setup, body, teardown, then exit(), so that a leak checker speaks before the verdict
 *
 * What the child says about itself stands in a page that both share, so that EXPECT_* counts from
 * threads and from processes that the test forked, too. Comments go straight to stdout.
 * The parent is the subreaper of its tests: what a test leaves behind is killed and reaped here.
 */
#include "tests/harness.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXIT_SKIP	   4 /* as kselftest's KSFT_SKIP */
#define NAME_BYTES_MAX	   256
#define MESSAGE_BYTES_MAX  1024
#define SHOWN_BYTES_MAX	   32
#define TIMEOUT_SCALE_MAX  1000
#define LOW_EFFORT_DIVISOR 4
#define WAIT_STEP_NS	   200000000L

/* Shared between the harness and the one test that runs. */
struct report {
	atomic_bool failed;
	atomic_bool ended; /* the body returned or ended itself: not a stray exit(0) */
	char skip[MESSAGE_BYTES_MAX];
};

static struct harness_test *tests, **tests_tail = &tests;
static struct harness_variant *variants, **variants_tail = &variants;
static struct report *report;
static uint64_t seed, random_state;
static unsigned timeout_scale = 1;
static bool low_effort;
static const char *pattern;

/* Of the child: where a fatal assertion of its first thread goes. */
static jmp_buf test_end;
static pid_t test_pid;

void harness_add_test(struct harness_test *t)
{
	*tests_tail = t;
	tests_tail = &t->next;
}

void harness_add_variant(struct harness_variant *v)
{
	*variants_tail = v;
	variants_tail = &v->next;
}

uint64_t harness_seed(void)
{
	return seed;
}

/* SplitMix64 (Steele, Lea, Flood 2014). */
uint64_t harness_random(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* A message must stay one line, or what it quotes could pass for TAP. */
static void one_line(char *s)
{
	for (; *s; s++)
		if (iscntrl((unsigned char)*s))
			*s = ' ';
}

static void comment(const char *where, const char *fmt, va_list ap)
{
	char text[MESSAGE_BYTES_MAX];

	vsnprintf(text, sizeof(text), fmt, ap);
	one_line(text);
	printf("# %s%s\n", where, text);
	fflush(stdout);
}

void harness_note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	comment("", fmt, ap);
	va_end(ap);
}

/*
 * Ends the test. Only its first thread can jump to the teardown; another thread, or a process that
 * the test forked, ends its process here and now.
 */
static void __attribute__((noreturn)) end_test(int status)
{
	if (getpid() == test_pid && gettid() == test_pid)
		longjmp(test_end, 1);
	fflush(stdout);
	_exit(status);
}

uint64_t harness_patience_ms(uint64_t ms)
{
	return ms * timeout_scale;
}

unsigned harness_rounds(unsigned full)
{
	unsigned rounds = low_effort ? full / LOW_EFFORT_DIVISOR : full;

	return rounds ? rounds : 1;
}

void harness_fail(const char *file, int line, bool fatal, const char *fmt, ...)
{
	char where[NAME_BYTES_MAX];
	va_list ap;

	snprintf(where, sizeof(where), "%s:%d: ", file, line);
	va_start(ap, fmt);
	comment(where, fmt, ap);
	va_end(ap);
	report->failed = true;
	if (fatal)
		end_test(EXIT_FAILURE);
}

void harness_skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(report->skip, sizeof(report->skip), fmt, ap);
	va_end(ap);
	one_line(report->skip);
	end_test(EXIT_SKIP);
}

void harness_end(void)
{
	end_test(EXIT_FAILURE);
}

void harness_compare(const char *file, int line, const char *what, long long a, long long b)
{
	harness_fail(file, line, false, "not true: %s (%lld, %lld)", what, a, b);
}

static void hex(const uint8_t *p, size_t n, char *out)
{
	*out = '\0';
	for (size_t i = 0; i < n; i++)
		snprintf(out + 2 * i, 3, "%02x", p[i]);
}

void harness_compare_bytes(const char *file, int line, bool fatal, const char *what, const void *a,
			   const void *b, size_t n)
{
	const uint8_t *pa = a, *pb = b;
	char ha[2 * SHOWN_BYTES_MAX + 1], hb[2 * SHOWN_BYTES_MAX + 1];
	size_t at = 0, shown;

	while (at < n && pa[at] == pb[at])
		at++;
	if (at == n)
		return;
	shown = n - at < SHOWN_BYTES_MAX ? n - at : SHOWN_BYTES_MAX;
	hex(pa + at, shown, ha);
	hex(pb + at, shown, hb);
	harness_fail(file, line, fatal, "not true: %s; from byte %zu of %zu: %s, %s", what, at, n,
		     ha, hb);
}

/* --- the child ----------------------------------------------------------------------------- */

/* One stage of a test; false if it ended itself early. */
static bool run_stage(void (*stage)(void *self, const void *variant), void *self,
		      const void *variant)
{
	if (setjmp(test_end))
		return false;
	if (stage)
		stage(self, variant);
	return true;
}

/* exit() and not _exit(): stdout is flushed and LeakSanitizer, where built in, reports. */
static void __attribute__((noreturn)) run_child(const struct harness_test *t, const void *variant)
{
	void *self = calloc(1, t->self_bytes + 1);

	test_pid = getpid();
	random_state = seed;
	if (!self)
		abort();
	if (run_stage(t->setup, self, variant)) {
		run_stage(t->run, self, variant);
		run_stage(t->teardown, self, variant);
	}
	free(self);
	report->ended = true;
	if (report->failed)
		exit(EXIT_FAILURE);
	exit(report->skip[0] ? EXIT_SKIP : EXIT_SUCCESS);
}

/* --- the parent ---------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static sigset_t watched_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	return set;
}

/*
 * Waits for the child, leaving it unreaped: its process id must stay taken while its group is being
 * killed. False when the time was over.
 */
static bool wait_child(pid_t pid, int64_t timeout_ms)
{
	const struct timespec step = { .tv_nsec = WAIT_STEP_NS };
	int64_t end = now_ms() + timeout_ms;
	sigset_t set = watched_signals();

	for (;;) {
		siginfo_t si = { 0 };
		int sig;

		if (!waitid(P_PID, pid, &si, WEXITED | WNOHANG | WNOWAIT) && si.si_pid == pid)
			return true;
		if (now_ms() >= end)
			return false;
		sig = sigtimedwait(&set, NULL, &step);
		if (sig > 0 && sig != SIGCHLD) {
			kill(-pid, SIGKILL);
			_exit(128 + sig);
		}
	}
}

static int reap_group(pid_t pid)
{
	int status = 0;

	kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	/* What the test left running is ours now, being its subreaper. */
	while (waitpid(-pid, NULL, 0) > 0 || errno == EINTR)
		;
	return status;
}

static void fork_test(const struct harness_test *t, const void *variant, pid_t *ret_pid)
{
	sigset_t set = watched_signals(), old;
	pid_t parent = getpid(), pid;

	fflush(stdout);
	sigprocmask(SIG_BLOCK, &set, &old);
	pid = fork();
	if (pid < 0) {
		perror("fork");
		exit(EXIT_FAILURE);
	}
	if (!pid) {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(EXIT_FAILURE);
		sigprocmask(SIG_SETMASK, &old, NULL);
		run_child(t, variant);
	}
	setpgid(pid, pid); /* here too, so that the group exists whoever runs first */
	*ret_pid = pid;
}

/* The part of the TAP line behind the name, and whether the test passed (or was skipped). */
static bool verdict(int status, char *why, size_t room)
{
	int code = WEXITSTATUS(status);

	*why = '\0';
	if (WIFSIGNALED(status))
		snprintf(why, room, " # killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else if (report->failed)
		;
	else if (!report->ended)
		snprintf(why, room, " # exited with status %d before its end", code);
	else if (code == EXIT_SKIP && report->skip[0]) {
		snprintf(why, room, " # SKIP %s", report->skip);
		return true;
	} else if (code)
		snprintf(why, room, " # exited with status %d at its end (a leak?)", code);
	else
		return true;
	return false;
}

static bool run_one(const struct harness_test *t, const void *variant, const char *name, unsigned n)
{
	unsigned timeout_s = t->timeout_s * timeout_scale;
	char why[MESSAGE_BYTES_MAX + 16];
	bool in_time, passed;
	int status;
	pid_t pid;

	memset(report, 0, sizeof(*report));
	fork_test(t, variant, &pid);
	in_time = wait_child(pid, (int64_t)timeout_s * 1000);
	status = reap_group(pid);
	passed = verdict(status, why, sizeof(why)) && in_time;
	if (!in_time)
		snprintf(why, sizeof(why), " # timed out after %u s", timeout_s);
	printf("%s %u - %s%s\n", passed ? "ok" : "not ok", n, name, why);
	fflush(stdout);
	return passed;
}

/* --- all of them --------------------------------------------------------------------------- */

enum visit { VISIT_COUNT, VISIT_LIST, VISIT_RUN };

struct tally {
	unsigned seen, failed;
};

static void visit_one(enum visit visit, const struct harness_test *t,
		      const struct harness_variant *v, struct tally *tally)
{
	char name[NAME_BYTES_MAX];

	snprintf(name, sizeof(name), "%s%s%s%s%s", t->fixture ? t->fixture : "",
		 t->fixture ? "." : "", v ? v->name : "", v ? "." : "", t->name);
	if (pattern && fnmatch(pattern, name, 0))
		return;
	tally->seen++;
	switch (visit) {
	case VISIT_COUNT:
		break;
	case VISIT_LIST:
		puts(name);
		break;
	case VISIT_RUN:
		if (!run_one(t, v ? v->data : NULL, name, tally->seen))
			tally->failed++;
		break;
	}
}

/* Every test that the pattern picks, once a variant. */
static struct tally visit_all(enum visit visit)
{
	struct tally tally = { 0 };

	for (struct harness_test *t = tests; t; t = t->next) {
		bool varies = false;

		for (struct harness_variant *v = variants; t->fixture && v; v = v->next) {
			if (strcmp(v->fixture, t->fixture))
				continue;
			varies = true;
			visit_one(visit, t, v, &tally);
		}
		if (!varies)
			visit_one(visit, t, NULL, &tally);
	}
	return tally;
}

static uint64_t parse_number(const char *what, const char *s, uint64_t max)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(s, &end, 0);
	if (errno || end == s || *end || *s == '-' || n > max) {
		fprintf(stderr, "%s: not a number up to %" PRIu64 ": %s\n", what, max, s);
		exit(2);
	}
	return n;
}

static void read_environment(void)
{
	const char *s = getenv("SSDTF_SEED"), *scale = getenv("HARNESS_TIMEOUT_SCALE");
	const char *effort = getenv("TESTS_EFFORT");
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	seed = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	if (s && *s)
		seed = parse_number("SSDTF_SEED", s, UINT64_MAX);
	if (scale && *scale)
		timeout_scale =
			(unsigned)parse_number("HARNESS_TIMEOUT_SCALE", scale, TIMEOUT_SCALE_MAX);
	if (!timeout_scale)
		timeout_scale = 1;
	low_effort = effort && !strcmp(effort, "low");
}

static void prepare(void)
{
	/* With stdin closed, a test's first socket would be fd 0. */
	if (fcntl(STDIN_FILENO, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0)
		perror("/dev/null");
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGCHLD, SIG_DFL); /* ignored in whoever started us, it would reap for us */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (report == MAP_FAILED) {
		perror("mmap");
		exit(EXIT_FAILURE);
	}
}

int harness_main(int argc, char **argv)
{
	struct tally tally;
	bool list = false;
	int c;

	read_environment();
	while ((c = getopt(argc, argv, "ls:t:")) != -1) {
		switch (c) {
		case 'l':
			list = true;
			break;
		case 's':
			seed = parse_number("-s", optarg, UINT64_MAX);
			break;
		case 't':
			pattern = optarg;
			break;
		default:
			fprintf(stderr, "usage: %s [-l] [-t GLOB] [-s SEED]\n", argv[0]);
			return 2;
		}
	}
	if (list) {
		visit_all(VISIT_LIST);
		return EXIT_SUCCESS;
	}
	prepare();
	tally = visit_all(VISIT_COUNT);
	printf("TAP version 13\n# seed %" PRIu64 "\n1..%u\n", seed, tally.seen);
	if (!tally.seen) {
		fprintf(stderr, "%s: no test matches\n", argv[0]);
		return EXIT_FAILURE;
	}
	tally = visit_all(VISIT_RUN);
	return tally.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
