/* SPDX-License-Identifier: MIT */
/*
 * The command `push`: one bundle, from the registry to "applied".
 */
#ifndef SSDTF_MANAGER_PUSH_RUN_H
#define SSDTF_MANAGER_PUSH_RUN_H

#include "userspace/manager/bundle_make.h"
#include "userspace/manager/manager.h"

struct push_options {
	struct bundle_terms terms;
	const char *party_dir, *party_id, *host;
	int port;
	uint32_t timeout_s;
};

/*
 * DIR/lock is given up while it is under way. Reports that wait for a manager come with the session
 * and are kept. Exit codes besides the manager's: EX_DATAERR the gateway refused it, EX_TEMPFAIL it
 * took too long, and those of the session (link.h).
 */
int push_run(struct manager *m, const struct push_options *o) must_check;

#endif
