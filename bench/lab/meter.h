/* SPDX-License-Identifier: MIT */
/*
 * What the kernel says was used, and happened, between two readings. Three views of CPU time, since
 * none of them is the whole truth on one machine:
 *
 *   server    user and system time of the server's processes, to the nanosecond. Packets are worked
 *             on in softirq, which the kernel books to whatever process it interrupts (unless it
 *             has CONFIG_IRQ_TIME_ACCOUNTING), so some of it is in here and some is not
 *   core      all that was not idle (nor stolen) on the server's CPU. Where packets are steered
 *             (lab.h) that is what a gateway's CPU would have worked: processes, softirq, filter
 *   machine   the same of all CPUs: clients and flood are in it, and whatever else runs
 *
 * core and machine come from /proc/stat in clock ticks (10 ms), idle time being exact: read
 * windows of seconds.
 */
#ifndef SSDTF_BENCH_METER_H
#define SSDTF_BENCH_METER_H

#include <stdint.h>
#include <sys/types.h>

#include "userspace/base/compiler.h"

#define METER_SESSIONS_MAX 4

struct meter {
	int server_cpu, client_cpu;
	uint16_t port;
	unsigned n_sessions; /* whose processes are the server (struct child: pid) */
	pid_t sessions[METER_SESSIONS_MAX];
};

struct meter_reading {
	double seconds; /* CLOCK_MONOTONIC */
	double server_s, core_s, machine_s, stolen_s;
	double client_core_s;	/* not idle, on the CPU of the clients and the flood */
	uint64_t passive_opens; /* connections that became full sockets, RFC 4022 */
	uint64_t overflows;	/* of the accept queue: ListenOverflows */
	uint64_t cookies;	/* SyncookiesSent */
};

/* In the server's namespace. Ends the program where /proc cannot be read. */
void meter_read(const struct meter *m, struct meter_reading *ret_r);
struct meter_reading meter_between(const struct meter_reading *from,
				   const struct meter_reading *to);
/* Connections of the server's port that are in SYN-RECV now. */
unsigned meter_syn_recv(const struct meter *m);

/*
 * The kernel's own account of a pinned BPF program (BPF_ENABLE_STATS, Linux 5.8). It costs some
 * nanoseconds a run, so it is on only while it is asked for.
 */
struct meter_bpf {
	uint64_t runs, ns;
};

/* *ret_fd keeps the account going until it is closed. */
int meter_bpf_start(int *ret_fd) must_check;
int meter_bpf_read(const char *pinned, struct meter_bpf *ret_b) must_check;
/* Rejected segments that the filter let through all the same, for the broker to tell their senders
 * why: its counter of that name. */
int meter_told_read(const char *pinned_counters, uint64_t *ret_n) must_check;

#endif
