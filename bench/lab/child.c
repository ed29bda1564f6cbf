// SPDX-License-Identifier: MIT
#include "bench/lab/child.h"

#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "bench/lab/group.h"
#include "userspace/base/log.h"

#define STOP_MS	   5000
#define POLL_MS	   10
#define LINE_BYTES 1024

static void pause_ms(unsigned ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000L };

	(void)nanosleep(&t, NULL); /* a shorter pause does no harm */
}

/* --- in the new process ----------------------------------------------------------------------- */

/* Says what failed where the child's words go, and ends it. */
static void noreturn_fn fail(const char *name, const char *what)
{
	log_error("%s: %s: %s", name, what, strerror(errno));
	_exit(EX_OSERR);
}

static void redirect(const char *name, const char *log)
{
	int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
		fail(name, log);
}

static void become_nobody(const char *name)
{
	/* Capabilities go with the last root id; no_new_privs keeps them gone. */
	if (setgroups(0, NULL) || setresgid(CHILD_NOBODY, CHILD_NOBODY, CHILD_NOBODY) ||
	    setresuid(CHILD_NOBODY, CHILD_NOBODY, CHILD_NOBODY) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		fail(name, "becoming nobody");
}

static void take_place(const struct child_place *w, const char *name)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	cpu_set_t set;

	if (setsid() < 0 || null < 0 || dup2(null, STDIN_FILENO) < 0)
		fail(name, "a session of its own");
	if (w->log)
		redirect(name, w->log);
	if (w->net >= 0 && setns(w->net, CLONE_NEWNET))
		fail(name, "entering its network namespace");
	if (w->group && w->group[0]) {
		int ret = group_enter(w->group);

		errno = -ret;
		if (ret)
			fail(name, w->group);
	}
	CPU_ZERO(&set);
	if (w->cpu >= 0) {
		CPU_SET(w->cpu, &set);
		if (sched_setaffinity(0, sizeof(set), &set))
			fail(name, "going to its CPU");
	}
	if (w->nice && setpriority(PRIO_PROCESS, 0, w->nice))
		fail(name, "its priority");
	if (w->nobody)
		become_nobody(name);
}

/* --- outside ---------------------------------------------------------------------------------- */

int child_start(const struct child_place *where, const char *name, const char *const *args,
		struct child *ret_c)
{
	char *copy[CHILD_ARGS_MAX];
	unsigned n = 0;
	pid_t pid;

	for (; args[n]; n++) {
		BUG_ON(n + 1 >= CHILD_ARGS_MAX);
		copy[n] = (char *)(uintptr_t)args[n]; /* execv() changes none of them */
	}
	copy[n] = NULL;
	(void)fflush(NULL);
	pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid) {
		take_place(where, name);
		if (where->env && putenv((char *)(uintptr_t)where->env))
			fail(name, "its environment");
		execv(copy[0], copy);
		fail(name, copy[0]);
	}
	*ret_c = (struct child){ pid, name };
	return 0;
}

int child_fork(const struct child_place *where, const char *name, int (*run)(void *ctx), void *ctx,
	       struct child *ret_c)
{
	pid_t pid;

	(void)fflush(NULL);
	pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid) {
		take_place(where, name);
		_exit(run(ctx));
	}
	*ret_c = (struct child){ pid, name };
	return 0;
}

static int code_of(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int child_wait(struct child *c)
{
	int status = 0;

	while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
		;
	c->pid = 0;
	return code_of(status);
}

uint64_t child_rss_kib(const struct child *c)
{
	char path[64], line[256];
	uint64_t kib = 0;
	FILE *f;

	/* Of the roll-up: what status says is off by the kernel's per-CPU counters. */
	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)c->pid);
	f = fopen(path, "re");
	if (!f) {
		snprintf(path, sizeof(path), "/proc/%d/status", (int)c->pid);
		f = fopen(path, "re");
	}
	while (f && !kib && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Rss: %" SCNu64, &kib) != 1)
			(void)sscanf(line, "VmRSS: %" SCNu64, &kib);
	}
	if (f)
		(void)fclose(f);
	return kib;
}

bool child_ended(struct child *c)
{
	siginfo_t info = { 0 };

	return !c->pid ||
	       (!waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid);
}

void child_stop(struct child *c)
{
	if (!c->pid)
		return;
	(void)kill(c->pid, SIGTERM); /* not reaped yet, so it is this one */
	for (unsigned ms = 0; ms < STOP_MS && !child_ended(c); ms += POLL_MS)
		pause_ms(POLL_MS);
	(void)kill(c->pid, SIGKILL);
	(void)child_wait(c);
}

/* --- what it says ----------------------------------------------------------------------------- */

static void cut_newline(char *line)
{
	line[strcspn(line, "\n")] = '\0';
}

void child_last_line(const char *log, char *line, size_t room)
{
	FILE *f = log ? fopen(log, "re") : NULL;
	char next[LINE_BYTES];

	line[0] = '\0';
	if (!f)
		return;
	while (fgets(next, sizeof(next), f)) {
		cut_newline(next);
		if (next[0])
			snprintf(line, room, "%s", next);
	}
	(void)fclose(f);
}

bool child_said(const char *log, const char *text, char *line, size_t room)
{
	FILE *f = fopen(log, "re");
	char next[LINE_BYTES];
	bool found = false;

	if (!f)
		return false;
	while (!found && fgets(next, sizeof(next), f))
		found = strstr(next, text) && strchr(next, '\n');
	(void)fclose(f);
	if (!found)
		return false;
	cut_newline(next);
	snprintf(line, room, "%s", next);
	return true;
}

void child_endings(sigset_t *ret_set)
{
	static const int endings[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM };
	struct sigaction now;

	(void)sigemptyset(ret_set);
	(void)sigaddset(ret_set, SIGCHLD);
	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		if (!sigaction(endings[i], NULL, &now) && now.sa_handler != SIG_IGN)
			(void)sigaddset(ret_set, endings[i]);
	}
}

void child_must(const struct child_place *where, const char *name, const char *const *args)
{
	char line[LINE_BYTES];
	struct child c;
	int code = child_start(where, name, args, &c);

	if (code)
		exit_with(EX_OSERR, "%s cannot be started: %s", name, strerror(-code));
	code = child_wait(&c);
	if (!code)
		return;
	child_last_line(where->log, line, sizeof(line));
	exit_with(EX_UNAVAILABLE, "%s ended with %d: %s", name, code, line);
}

void child_await(struct child *c, const char *log, const char *text, unsigned seconds, char *line,
		 size_t room)
{
	char last[LINE_BYTES];

	for (unsigned ms = 0; ms < seconds * 1000; ms += POLL_MS) {
		bool ended = child_ended(c);

		if (child_said(log, text, line, room))
			return;
		if (ended)
			break;
		pause_ms(POLL_MS);
	}
	child_last_line(log, last, sizeof(last));
	exit_with(EX_UNAVAILABLE, "%s %s: %s", c->name,
		  child_ended(c) ? "ended while it was started" : "does not get ready",
		  last[0] ? last : "it said nothing");
}
