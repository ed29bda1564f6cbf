/* SPDX-License-Identifier: MIT */
/*
 * Tracing: whom an external id stands for (docs/PROTOCOL.md 12). The distributor's table has the
 * answer sealed to a key in the manager's token, so nobody traces without it, and everybody who
 * tries is in the audit log (audit.h), with the reason he gave.
 */
#ifndef SSDTF_MANAGER_TRACE_H
#define SSDTF_MANAGER_TRACE_H

#include "userspace/manager/manager.h"

struct trace_question {
	const char *external; /* 32 hexadecimal digits */
	const char *at;	      /* say_parse_time()'s, or NULL */
	const char *reason;   /* not empty */
	const char *table;    /* path of a distributor's table, or of a copy */
};

/*
 * Logs, then answers into m->out. Begins and ends its own transactions. What failed is in the log
 * when this returns, unless m->error says that the log itself failed.
 */
int trace(struct manager *m, const struct trace_question *t) must_check;

#endif
