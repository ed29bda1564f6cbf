// SPDX-License-Identifier: MIT
#include "userspace/core/sandbox.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/* The leak checker attaches to its own process. */
#if defined(__SANITIZE_ADDRESS__)
#define DUMPABLE 1
#else
#define DUMPABLE 0
#endif

/* The soft limit to the hard one: the hard one is the administrator's word. */
static int raise_soft(int resource)
{
	struct rlimit l;

	if (getrlimit(resource, &l))
		return -errno;
	l.rlim_cur = l.rlim_max;
	return setrlimit(resource, &l) ? -errno : 0;
}

int sandbox_enter(void)
{
	const struct rlimit none = { 0, 0 };
	int err;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || setrlimit(RLIMIT_CORE, &none) ||
	    prctl(PR_SET_DUMPABLE, DUMPABLE, 0, 0, 0)) /* a piped core_pattern asks no limit */
		return -errno;
	err = raise_soft(RLIMIT_NOFILE);
	if (!err)
		err = raise_soft(RLIMIT_MEMLOCK);
	if (err)
		return err;
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR || signal(SIGXFSZ, SIG_IGN) == SIG_ERR)
		return -errno;
	return 0;
}
