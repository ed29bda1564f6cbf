/* SPDX-License-Identifier: MIT */
/*
 * The command `serve`: the manager at a gateway, until it is told to stop. It keeps the reports
 * that come, decides claims, and brings the gateway a new bundle where that is needed.
 *
 * DIR/lock is free but for the moments in which something is written, so that other commands go on.
 */
#ifndef SSDTF_MANAGER_SERVE_H
#define SSDTF_MANAGER_SERVE_H

#include <stdbool.h>

#include "userspace/manager/bundle_make.h"
#include "userspace/manager/manager.h"

#define SERVE_CLAIM_MS	  200  /* claims that come so close share one bundle */
#define SERVE_CHANGE_MS	  1000 /* how often the registry is looked at */
#define SERVE_RETRY_MS	  5000 /* after a failure of our own, or a bundle that was refused */
#define SERVE_CLAIMS_MAX  1024 /* that wait; further ones are made again */
#define SERVE_REPORTS_MAX 1024

struct serve_options {
	struct bundle_terms terms;
	const char *party_dir, *party_id, *host;
	int port;
	bool push; /* when the registry changed, too */
};

int serve_run(struct manager *m, const struct serve_options *o) must_check;

#endif
