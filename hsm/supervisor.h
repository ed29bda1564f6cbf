/* SPDX-License-Identifier: MIT */
/*
 * The parent of the workers: it listens for them, starts them, starts them again, and knows neither
 * PIN nor module. A worker is this same program executed afresh, so that nothing of one lives on in
 * the next; its listening socket stays open here, so that who connects meanwhile waits and is not
 * refused.
 *
 *   DIR/hsmd.lock     flock'd: one supervisor a directory
 *   DIR/hsmd.N.sock   SOCK_SEQPACKET, worker N's
 *   DIR/hsmd.N.pid    worker N's process id, in decimal
 */
#ifndef SSDTF_HSM_SUPERVISOR_H
#define SSDTF_HSM_SUPERVISOR_H

#include <stddef.h>
#include <sys/stat.h>

#include "userspace/base/compiler.h"

/* Where a worker finds its listening socket. */
#define SUPERVISOR_LISTEN_FD 3
#define SUPERVISOR_ARGS_MAX  64

struct supervisor_config {
	const char *socket_dir;
	unsigned n_workers;
	mode_t socket_mode;
	/* The worker's arguments, without the last: "--index=N" is added. */
	const char *const *argv;
	size_t argc;
};

/* DIR/hsmd.N.what into out; -ENAMETOOLONG. */
int supervisor_path(const char *dir, unsigned n, const char *what, char *out,
		    size_t room) must_check;

/* Takes DIR/hsmd.lock; closing *ret_fd gives it back. A sysexits.h code, with one line said, where
 * another has it or it cannot be made. */
int supervisor_lock(const char *dir, int *ret_fd) must_check;

/*
 * Runs until SIGTERM or SIGINT: 0. Or until a worker ends with EX_NOPERM (its PIN was refused) or
 * EX_CONFIG, which ends all of them and is returned: neither is tried again. Or a sysexits.h code
 * with one line said, where it cannot start.
 */
int supervisor_run(const struct supervisor_config *c) must_check;

#endif
