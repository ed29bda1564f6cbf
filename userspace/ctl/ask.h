/* SPDX-License-Identifier: MIT */
/*
 * One broker's control socket from the other side: a request goes out, its answer comes in. What
 * goes wrong ends the program with one line and a code of sysexits.h.
 */
#ifndef SSDTF_CTL_ASK_H
#define SSDTF_CTL_ASK_H

#include "userspace/base/bytes.h"
#include "userspace/base/compiler.h"

struct ask {
	const char *path;
	int fd;
};

void ask_open(struct ask *a, const char *path);
/* The lines of the answer behind its "ok"; they are there until the next request. */
struct bytes ask_lines(struct ask *a, const char *fmt, ...) format_printf(2, 3);
/* The broker answered what this program does not understand. */
void ask_malformed(const struct ask *a) noreturn_fn;

#endif
