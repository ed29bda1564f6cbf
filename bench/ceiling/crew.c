// SPDX-License-Identifier: MIT
#include "bench/ceiling/crew.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "userspace/base/log.h"

#define NS	   1000000000LL
#define HEAD_START (2 * NS / 1000) /* for every process to be asleep when the slice begins */
#define LOOK_NS	   100000	   /* between looks at the clock, which cost some 30 ns each */
#define RUNS_MAX   (1u << 20)

struct ask {
	unsigned work;
	int64_t from_ns, until_ns; /* CLOCK_MONOTONIC */
};

struct answer {
	uint64_t runs;
	int64_t wall_ns, cpu_ns, rss_kib;
};

struct member {
	pid_t pid;
	int fd;
};

struct crew {
	const struct works *works;
	unsigned n;
	struct member members[CREW_MAX];
};

static int64_t now_ns(clockid_t clock)
{
	struct timespec t;

	(void)clock_gettime(clock, &t); /* fails for no clock that there is */
	return t.tv_sec * NS + t.tv_nsec;
}

/* --- in a process of the crew ----------------------------------------------------------------- */

static int64_t rss_kib(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f && fscanf(f, "%*u %lu", &pages) != 1)
		pages = 0;
	if (f)
		(void)fclose(f);
	return (int64_t)(pages * (unsigned long)sysconf(_SC_PAGESIZE) / 1024);
}

/* Until the time is up. The runs between two looks at the clock double until they take a while. */
static void slice(const struct work *w, const struct ask *a, struct answer *ret_a)
{
	const struct timespec from = { a->from_ns / NS, a->from_ns % NS };
	int64_t rss = rss_kib(), cpu, begin, before, now;
	unsigned runs = 1;

	*ret_a = (struct answer){ 0 };
	(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &from, NULL);
	cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
	now = begin = now_ns(CLOCK_MONOTONIC);
	do {
		before = now;
		w->run(w, runs);
		ret_a->runs += runs;
		now = now_ns(CLOCK_MONOTONIC);
		if (now - before < LOOK_NS && runs < RUNS_MAX)
			runs *= 2;
	} while (now < a->until_ns);
	ret_a->wall_ns = now - begin;
	ret_a->cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	ret_a->rss_kib = rss_kib() - rss;
}

/* On the which-th CPU that we may use; it may be any where that is refused. */
static void take_cpu(unsigned which)
{
	cpu_set_t may, one;
	unsigned at = which % crew_cpus();

	if (sched_getaffinity(0, sizeof(may), &may))
		return;
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &may) || at--)
			continue;
		CPU_ZERO(&one);
		CPU_SET(i, &one);
		(void)sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

static void noreturn_fn work(const struct works *w, int fd, unsigned which, pid_t parent,
			     void (*ready)(void *ctx, unsigned which), void *ctx)
{
	struct answer answer = { 0 };
	struct ask ask;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		_exit(EX_OSERR);
	take_cpu(which);
	ready(ctx, which);
	do {
		if (send(fd, &answer, sizeof(answer), MSG_NOSIGNAL) != sizeof(answer))
			break;
		if (recv(fd, &ask, sizeof(ask), 0) != sizeof(ask))
			break;
		slice(&w->list[ask.work], &ask, &answer);
	} while (true);
	_exit(0); /* the program hung up */
}

/* --- outside ---------------------------------------------------------------------------------- */

unsigned crew_cpus(void)
{
	cpu_set_t may;
	int n;

	if (sched_getaffinity(0, sizeof(may), &may))
		return 1;
	n = CPU_COUNT(&may);
	return n < 1 ? 1 : n > CREW_MAX ? CREW_MAX : (unsigned)n;
}

static void hear(struct member *m, struct answer *ret_a)
{
	ssize_t got;
	int status = 0;

	do
		got = recv(m->fd, ret_a, sizeof(*ret_a), 0);
	while (got < 0 && errno == EINTR);
	if (got == (ssize_t)sizeof(*ret_a))
		return;
	/* It said why, unless a signal ended it. */
	if (waitpid(m->pid, &status, 0) == m->pid && WIFEXITED(status) && WEXITSTATUS(status))
		exit(WEXITSTATUS(status));
	exit_with(EX_SOFTWARE, "a measuring process ended by signal %d", WTERMSIG(status));
}

struct crew *crew_start(const struct works *w, unsigned n, void (*ready)(void *ctx, unsigned which),
			void *ctx)
{
	struct crew *c = calloc(1, sizeof(*c));
	pid_t self = getpid();

	BUG_ON(!n || n > CREW_MAX);
	if (!c)
		exit_with(EX_OSERR, "no memory");
	c->works = w;
	for (; c->n < n; c->n++) {
		struct member *m = &c->members[c->n];
		struct answer ready_now;
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
			exit_with(EX_OSERR, "a socket pair: %s", strerror(errno));
		(void)fflush(NULL);
		m->fd = pair[0];
		m->pid = fork();
		if (m->pid < 0)
			exit_with(EX_OSERR, "a process: %s", strerror(errno));
		if (!m->pid) {
			for (unsigned i = 0; i <= c->n; i++)
				(void)close(c->members[i].fd);
			work(w, pair[1], c->n, self, ready, ctx);
		}
		(void)close(pair[1]);
		hear(m, &ready_now);
	}
	return c;
}

void crew_slice(struct crew *c, unsigned work, unsigned processes, double seconds,
		struct crew_slice *ret_s)
{
	const struct work *w = &c->works->list[work];
	struct ask ask = { .work = work, .from_ns = now_ns(CLOCK_MONOTONIC) + HEAD_START };
	int64_t cpu_ns = 0;

	BUG_ON(!processes || processes > c->n || work >= c->works->n);
	ask.until_ns = ask.from_ns + (int64_t)(seconds * NS);
	*ret_s = (struct crew_slice){ 0 };
	for (unsigned i = 0; i < processes; i++)
		/* One that has ended is found out when it is to answer. */
		(void)!send(c->members[i].fd, &ask, sizeof(ask), MSG_NOSIGNAL);
	for (unsigned i = 0; i < processes; i++) {
		struct answer a;
		uint64_t operations;

		hear(&c->members[i], &a);
		operations = a.runs * w->each;
		ret_s->operations += operations;
		ret_s->per_second += (double)operations * NS / (double)a.wall_ns;
		ret_s->rss_kib += a.rss_kib;
		cpu_ns += a.cpu_ns;
	}
	ret_s->cpu_us = (double)cpu_ns / 1e3 / (double)ret_s->operations;
}

void crew_stop(struct crew *c)
{
	for (unsigned i = 0; i < c->n; i++)
		(void)close(c->members[i].fd);
	for (unsigned i = 0; i < c->n; i++)
		while (waitpid(c->members[i].pid, NULL, 0) < 0 && errno == EINTR)
			;
	free(c);
}
