// SPDX-License-Identifier: MIT
#include "bench/ceiling/scratch.h"

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/lab/child.h"
#include "userspace/base/log.h"

#define FOLDERS_OPEN 8

static void folder_make(char dir[SCRATCH_PATH_BYTES])
{
	const char *tmp = getenv("TMPDIR");

	if (!tmp || !*tmp)
		tmp = "/tmp";
	if (tmp[0] != '/')
		exit_with(EX_USAGE, "$TMPDIR is not an absolute path");
	if (snprintf(dir, SCRATCH_PATH_BYTES, "%s/ssdtf-bench.XXXXXX", tmp) >= SCRATCH_PATH_BYTES)
		exit_with(EX_USAGE, "$TMPDIR is too long");
	if (!mkdtemp(dir))
		exit_with(EX_CANTCREAT, "%s: %s", dir, strerror(errno));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	return remove(path);
}

static void folder_remove(const char *dir)
{
	if (nftw(dir, remove_one, FOLDERS_OPEN, FTW_DEPTH | FTW_PHYS))
		log_warn("%s cannot be removed: %s", dir, strerror(errno));
}

/* Its status as waitpid() has it, once all are gone that it started; *ret_signal is one that wanted
 * an end, or 0. */
static int wait_for(pid_t pid, const sigset_t *set, int *ret_signal)
{
	int status = 0, other;
	pid_t ended = 0;

	*ret_signal = 0;
	while (ended != pid) {
		int number = sigwaitinfo(set, NULL);

		if (number > 0 && number != SIGCHLD) {
			*ret_signal = number;
			(void)kill(-pid, SIGKILL); /* its session; it may not have one yet */
			(void)kill(pid, SIGKILL);
		}
		do
			ended = waitpid(-1, &status, WNOHANG);
		while (ended > 0 && ended != pid);
	}
	/* Orphans come to us. Those of the session are killed with it, the others end soon. */
	(void)kill(-pid, SIGKILL);
	while (waitpid(-1, &other, 0) > 0 || errno == EINTR)
		;
	return status;
}

int scratch_run(int (*body)(const char *dir, void *ctx), void *ctx)
{
	char dir[SCRATCH_PATH_BYTES];
	sigset_t set, before;
	int status, ended_by;
	pid_t pid, self = getpid();

	folder_make(dir);
	child_endings(&set);
	(void)sigprocmask(SIG_BLOCK, &set, &before);
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	(void)fflush(NULL);
	pid = fork();
	if (!pid) {
		(void)setsid(); /* a new process leads no group, so it may */
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != self)
			_exit(EX_OSERR);
		(void)sigprocmask(SIG_SETMASK, &before, NULL);
		exit(body(dir, ctx));
	}
	if (pid < 0) {
		int error = errno;

		folder_remove(dir);
		exit_with(EX_OSERR, "a process: %s", strerror(error));
	}
	status = wait_for(pid, &set, &ended_by);
	folder_remove(dir);
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	if (ended_by)
		(void)raise(ended_by); /* whoever called us sees what it was */
	if (WIFEXITED(status) && !ended_by)
		return WEXITSTATUS(status);
	exit_with(EX_SOFTWARE, "ended by signal %d", ended_by ? ended_by : WTERMSIG(status));
}
