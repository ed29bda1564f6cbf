/* SPDX-License-Identifier: MIT */
/*
 * A program of others that is given its input and leaves its output: no shell, no terminal. Both
 * are whole, in memory; for a plot, or the line in which a program tells its version.
 */
#ifndef SSDTF_BENCH_CAPTURE_H
#define SSDTF_BENCH_CAPTURE_H

#include "userspace/base/bytes.h"

struct capture {
	char *text; /* standard output, terminated; the caller's to free */
	size_t n;
	char error[256]; /* the first line of standard error */
	int status;	 /* exit code, or 128 and the signal */
};

/* args end with NULL; args[0] is looked for in PATH. -ENOENT where there is no such program. */
int capture_run(const char *const *args, struct bytes input, struct capture *ret_c) must_check;

#endif
