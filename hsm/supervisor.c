// SPDX-License-Identifier: MIT
#include "hsm/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "hsm/client.h"
#include "userspace/base/bytes.h"
#include "userspace/base/log.h"

/* A worker that lived so long is started again at once; else after a pause that doubles. */
#define LIVED_MS       200
#define PAUSE_MS_MIN   50
#define PAUSE_MS_MAX   5000
#define STOP_WAIT_MS   3000
#define LISTEN_BACKLOG 16
#define PATH_BYTES     4096

struct worker {
	pid_t pid; /* 0: not running */
	int listen_fd;
	uint64_t started_ms;
	uint64_t start_ms; /* not running: when it is to be */
	unsigned pause_ms;
};

struct supervisor {
	const struct supervisor_config *c;
	int lock_fd;
	unsigned n_listening;
	pid_t own_pid;
	sigset_t outer_mask;
	struct worker workers[HSM_WORKERS_MAX];
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

int supervisor_path(const char *dir, unsigned n, const char *what, char *out, size_t room)
{
	int used = snprintf(out, room, "%s/hsmd.%u.%s", dir, n, what);

	return used < 0 || (size_t)used >= room ? -ENAMETOOLONG : 0;
}

/* --- files --- */

int supervisor_lock(const char *dir, int *ret_fd)
{
	char path[PATH_BYTES];
	int fd;

	if (snprintf(path, sizeof(path), "%s/hsmd.lock", dir) >= (int)sizeof(path)) {
		log_error("--socket-dir is too long");
		return EX_USAGE;
	}
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		log_error("%s: %s", path, strerror(errno));
		return EX_CANTCREAT;
	}
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		log_error("%s: another ssdtf-hsmd runs there", dir);
		(void)close(fd); /* nothing was written */
		return EX_TEMPFAIL;
	}
	*ret_fd = fd;
	return 0;
}

static int listen_at(struct supervisor *s, unsigned i)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	mode_t before;
	int fd, rc;

	if (supervisor_path(s->c->socket_dir, i, "sock", address.sun_path,
			    sizeof(address.sun_path))) {
		log_error("--socket-dir is too long for a socket's name");
		return EX_USAGE;
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		log_error("socket: %s", strerror(errno));
		return EX_OSERR;
	}
	/* We hold the lock: what is there is left over. */
	(void)unlink(address.sun_path);
	before = umask(0777 & ~s->c->socket_mode);
	rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
	(void)umask(before); /* cannot fail */
	if (rc || listen(fd, LISTEN_BACKLOG)) {
		log_error("%s: %s", address.sun_path, strerror(errno));
		(void)close(fd); /* never used */
		return EX_CANTCREAT;
	}
	s->workers[i].listen_fd = fd;
	s->n_listening++;
	return 0;
}

/* Whole or not at all: it is read by others while workers come and go. */
static void write_pid(const struct supervisor *s, unsigned i)
{
	char path[PATH_BYTES], temporary[PATH_BYTES], text[16];
	int n = snprintf(text, sizeof(text), "%d\n", (int)s->workers[i].pid);
	bool written;
	int fd;

	if (supervisor_path(s->c->socket_dir, i, "pid", path, sizeof(path)) ||
	    supervisor_path(s->c->socket_dir, i, "pid.new", temporary, sizeof(temporary)))
		return;
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	written = fd >= 0 && write(fd, text, (size_t)n) == n;
	if (fd >= 0)
		written &= !close(fd);
	if (!written || rename(temporary, path))
		log_warn("%s: %s", path, strerror(errno));
}

static void remove_files(struct supervisor *s)
{
	static const char *const all[] = { "sock", "pid", "pid.new" };
	char path[PATH_BYTES];

	for (unsigned i = 0; i < s->n_listening; i++) {
		(void)close(s->workers[i].listen_fd); /* nothing is written to it */
		for (size_t k = 0; k < ARRAY_SIZE(all); k++)
			if (!supervisor_path(s->c->socket_dir, i, all[k], path, sizeof(path)))
				(void)unlink(path); /* not there: as well */
	}
}

/* --- workers --- */

/* In the child, up to the exec: only what may follow a fork. */
static void become_worker(const struct supervisor *s, unsigned i) noreturn_fn;
static void become_worker(const struct supervisor *s, unsigned i)
{
	const char *argv[SUPERVISOR_ARGS_MAX + 2];
	char index[32];

	snprintf(index, sizeof(index), "--index=%u", i);
	for (size_t k = 0; k < s->c->argc; k++)
		argv[k] = s->c->argv[k];
	argv[s->c->argc] = index;
	argv[s->c->argc + 1] = NULL;
	/* It must not outlive us, not even where we died before this line. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != s->own_pid)
		_exit(EX_OSERR);
	if (s->workers[i].listen_fd == SUPERVISOR_LISTEN_FD) {
		if (fcntl(SUPERVISOR_LISTEN_FD, F_SETFD, 0))
			_exit(EX_OSERR);
	} else if (dup2(s->workers[i].listen_fd, SUPERVISOR_LISTEN_FD) < 0) {
		_exit(EX_OSERR);
	}
	/* Until the worker is ready for it. */
	if (signal(SIGHUP, SIG_IGN) == SIG_ERR || sigprocmask(SIG_SETMASK, &s->outer_mask, NULL))
		_exit(EX_OSERR);
	execv("/proc/self/exe", (char *const *)(uintptr_t)argv);
	_exit(EX_OSERR);
}

static void start(struct supervisor *s, unsigned i)
{
	struct worker *w = &s->workers[i];
	pid_t pid = fork();

	if (!pid)
		become_worker(s, i);
	w->started_ms = now_ms();
	if (pid < 0) {
		log_error("worker %u: fork: %s", i, strerror(errno));
		w->start_ms = w->started_ms + PAUSE_MS_MAX;
		return;
	}
	w->pid = pid;
	write_pid(s, i);
}

static void start_those_due(struct supervisor *s)
{
	for (unsigned i = 0; i < s->c->n_workers; i++)
		if (!s->workers[i].pid && s->workers[i].start_ms <= now_ms())
			start(s, i);
}

/* How long until the next start; -1: none is due. */
static int64_t next_start_ms(const struct supervisor *s)
{
	uint64_t now = now_ms(), next = UINT64_MAX;

	for (unsigned i = 0; i < s->c->n_workers; i++)
		if (!s->workers[i].pid && s->workers[i].start_ms < next)
			next = s->workers[i].start_ms;
	if (next == UINT64_MAX)
		return -1;
	return next > now ? (int64_t)(next - now) : 0;
}

static void plan_restart(struct supervisor *s, unsigned i, int status)
{
	struct worker *w = &s->workers[i];
	uint64_t lived_ms = now_ms() - w->started_ms;

	if (lived_ms >= LIVED_MS)
		w->pause_ms = 0;
	else
		w->pause_ms = w->pause_ms ? w->pause_ms * 2 : PAUSE_MS_MIN;
	if (w->pause_ms > PAUSE_MS_MAX)
		w->pause_ms = PAUSE_MS_MAX;
	w->start_ms = now_ms() + w->pause_ms;
	if (WIFSIGNALED(status))
		log_warn("worker %u: killed by signal %d after %" PRIu64 " ms, again in %u ms", i,
			 WTERMSIG(status), lived_ms, w->pause_ms);
	else
		log_warn("worker %u: ended with status %d after %" PRIu64 " ms, again in %u ms", i,
			 WEXITSTATUS(status), lived_ms, w->pause_ms);
}

/* 0, or the exit status that all are to end with. */
static int reap(struct supervisor *s)
{
	int final = 0, status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		unsigned i = 0;

		while (i < s->c->n_workers && s->workers[i].pid != pid)
			i++;
		if (i == s->c->n_workers)
			continue;
		s->workers[i].pid = 0;
		if (WIFEXITED(status) &&
		    (WEXITSTATUS(status) == EX_NOPERM || WEXITSTATUS(status) == EX_CONFIG))
			final = WEXITSTATUS(status);
		else
			plan_restart(s, i, status);
	}
	return final;
}

static bool any_running(const struct supervisor *s)
{
	for (unsigned i = 0; i < s->c->n_workers; i++)
		if (s->workers[i].pid)
			return true;
	return false;
}

static void signal_all(const struct supervisor *s, int sig)
{
	for (unsigned i = 0; i < s->c->n_workers; i++)
		if (s->workers[i].pid)
			(void)kill(s->workers[i].pid, sig); /* ours until reaped */
}

static void wait_for_signal(const sigset_t *set, int64_t ms, int *ret_signal)
{
	const struct timespec timeout = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
	int sig = ms < 0 ? sigwaitinfo(set, NULL) : sigtimedwait(set, NULL, &timeout);

	*ret_signal = sig < 0 ? 0 : sig; /* time-out, or a signal that is not of the set */
}

static void stop_all(struct supervisor *s, const sigset_t *set)
{
	uint64_t deadline = now_ms() + STOP_WAIT_MS;
	int sig;

	signal_all(s, SIGTERM);
	while (any_running(s) && now_ms() < deadline) {
		wait_for_signal(set, (int64_t)(deadline - now_ms()), &sig);
		for (unsigned i = 0; i < s->c->n_workers; i++)
			if (s->workers[i].pid &&
			    waitpid(s->workers[i].pid, NULL, WNOHANG) == s->workers[i].pid)
				s->workers[i].pid = 0;
	}
	signal_all(s, SIGKILL);
	for (unsigned i = 0; i < s->c->n_workers; i++)
		if (s->workers[i].pid)
			(void)waitpid(s->workers[i].pid, NULL, 0); /* killed: it ends */
}

static int supervise(struct supervisor *s, const sigset_t *set)
{
	for (;;) {
		int sig, final;

		start_those_due(s);
		wait_for_signal(set, next_start_ms(s), &sig);
		if (sig == SIGTERM || sig == SIGINT)
			return 0;
		if (sig == SIGHUP)
			signal_all(s, SIGHUP);
		final = reap(s);
		if (final == EX_NOPERM)
			log_error("the token refused the PIN: stopped; correct the PIN file");
		if (final)
			return final;
	}
}

int supervisor_run(const struct supervisor_config *c)
{
	static struct supervisor s;
	sigset_t set;
	int rc;

	BUG_ON(c->n_workers < 1 || c->n_workers > HSM_WORKERS_MAX);
	BUG_ON(c->argc > SUPERVISOR_ARGS_MAX);
	s.c = c;
	s.own_pid = getpid();
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	rc = sigprocmask(SIG_BLOCK, &set, &s.outer_mask);
	BUG_ON(rc);
	rc = supervisor_lock(c->socket_dir, &s.lock_fd);
	for (unsigned i = 0; !rc && i < c->n_workers; i++)
		rc = listen_at(&s, i);
	if (!rc) {
		rc = supervise(&s, &set);
		stop_all(&s, &set);
	}
	remove_files(&s);
	return rc;
}
