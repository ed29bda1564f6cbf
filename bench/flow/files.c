// SPDX-License-Identifier: MIT
#include "bench/flow/files.h"

#include <sys/resource.h>
#include <sysexits.h>

#include "bench/flow/clients.h"
#include "userspace/base/log.h"

#define FILES_OTHER 100 /* logs, sockets of hsmd, rings, the database, connections that end */

void files_allow(const struct scenario *s)
{
	unsigned connects = s->kind == SCENARIO_CONNECT ? s->clients : 0;
	rlim_t wanted = clients_senders(s) + clients_receivers(s) + clients_others(s) + s->idle +
			2 * connects + FILES_OTHER;
	struct rlimit l;

	if (!getrlimit(RLIMIT_NOFILE, &l) && l.rlim_cur >= wanted)
		return;
	l.rlim_cur = wanted;
	if (l.rlim_max < wanted)
		l.rlim_max = wanted; /* root may, with CAP_SYS_RESOURCE */
	if (setrlimit(RLIMIT_NOFILE, &l))
		exit_with(
			EX_OSERR,
			"%lu open files are needed: ulimit -n %lu, and sysctl fs.nr_open at least "
			"as high",
			(unsigned long)wanted, (unsigned long)wanted);
}
