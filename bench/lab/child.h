/* SPDX-License-Identifier: MIT */
/*
 * Processes of the lab: programs, and functions of ours in a process of their own. Each is in the
 * network namespace, on the CPU and of the user that it is started with. The lab's PID namespace
 * ends what is not stopped.
 */
#ifndef SSDTF_BENCH_CHILD_H
#define SSDTF_BENCH_CHILD_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "userspace/base/compiler.h"

#define CHILD_ARGS_MAX 32

/* The user of servers that need no privilege: Debian's nobody and nogroup. */
#define CHILD_NOBODY 65534

struct child_place {
	int net; /* namespace; -1: the server's, where the lab is */
	int cpu; /* -1: any */
	int nice;
	bool nobody;	   /* CHILD_NOBODY, without a capability */
	const char *group; /* control group; NULL or empty: none */
	const char *env;   /* one more "NAME=VALUE"; NULL: none */
	const char *log;   /* stdout and stderr, appended; NULL: the lab's own */
};

struct child {
	pid_t pid; /* 0: none. Also the session that its own children are in */
	const char *name;
};

/* args end with NULL; args[0] is the program's path. Name must outlive the child. */
int child_start(const struct child_place *where, const char *name, const char *const *args,
		struct child *ret_c) must_check;
/* run(ctx) in a process of its own, which ends with what it returns. */
int child_fork(const struct child_place *where, const char *name, int (*run)(void *ctx), void *ctx,
	       struct child *ret_c) must_check;
/* Waits for it; its exit code, or 128 and the signal. */
int child_wait(struct child *c);
bool child_ended(struct child *c);
/* Its resident memory, KiB; 0 where the kernel does not tell. */
uint64_t child_rss_kib(const struct child *c);
/* SIGTERM to it, and after a while SIGKILL. */
void child_stop(struct child *c);

/* What a process waits for that has to clean up after its children: SIGCHLD, and the signals that
 * ask for an end. One that whoever started us had us ignore (nohup) stays ignored. */
void child_endings(sigset_t *ret_set);

/* A program that is to end with 0. Where it does not, the program ends with the last line of its
 * log. */
void child_must(const struct child_place *where, const char *name, const char *const *args);
/* The last line of a log into line, terminated; empty where there is none. */
void child_last_line(const char *log, char *line, size_t room);
/*
 * The first line of log that has text in it. Waits; where the child ends, or seconds pass, before
 * there is one, the program ends with what the log says.
 */
void child_await(struct child *c, const char *log, const char *text, unsigned seconds, char *line,
		 size_t room);
/* Whether there is such a line now. */
bool child_said(const char *log, const char *text, char *line, size_t room);

#endif
