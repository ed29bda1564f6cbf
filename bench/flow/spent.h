/* SPDX-License-Identifier: MIT */
/*
 * Processor time of each of a scenario's processes, and of the broker's kinds of threads.
 */
#ifndef SSDTF_BENCH_SPENT_H
#define SSDTF_BENCH_SPENT_H

#include <sys/types.h>

#include "bench/flow/scenario.h"

struct spent {
	unsigned n;
	struct outcome_process processes[OUTCOME_PROCESSES_MAX];
};

/* Pids of 0 are left out. hsmd is a supervisor, whose children are the workers. */
void spent_read(pid_t broker, const char *broker_name, pid_t hsmd, pid_t clients,
		struct spent *ret_s);
/* Of those that were there at both times. */
void spent_between(const struct spent *from, const struct spent *to, struct outcome *o);

#define SPENT_CRYPTO_MAX 64

/* The broker's verifying threads, which it names so; up to max. */
unsigned spent_crypto(pid_t broker, pid_t *tids, unsigned max);
/* The workers, in the order in which they were started; up to max. */
unsigned spent_workers(pid_t hsmd, pid_t *pids, unsigned max);

#endif
