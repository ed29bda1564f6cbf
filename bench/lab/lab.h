/* SPDX-License-Identifier: MIT */
/*
 * A place of its own to measure in, of which nothing is left afterwards:
 *
 *   this process: waits, passes an end on, removes the folder
 *     |
 *     `-- process 1 of a PID namespace
 *          |
 *          +-- the lab, in a mount namespace with a tmpfs at dir, and in that a bpffs (dir/bpf) and
 *          |   a sysfs (dir/sys); it makes two network namespaces:
 *          |
 *          |   server namespace  198.18.0.1 ===== veth ===== 198.18.0.2  client namespace
 *          |   (the lab is in it)     198.19.0.0/16 via .2   local: 198.19.0.0/17
 *          |                                                 nobody: 198.19.128.0/17
 *          `-- servers and clients, each put where it belongs
 *
 * Whatever way one of the two ends, SIGKILL included, the kernel ends everything in the lab, and
 * with the last process go namespaces, mounts and pinned programs. (SIGKILL to the one that waits
 * leaves an empty folder, and an empty control group where one was asked for.) The addresses are
 * RFC 2544's, for benchmarks; no packet leaves the two namespaces.
 */
#ifndef SSDTF_BENCH_LAB_H
#define SSDTF_BENCH_LAB_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/compiler.h"

#define LAB_PATH_BYTES 256

#define LAB_SERVER_TEXT "198.18.0.1"
/* Host order. Addresses of well-behaved clients, of ill-behaved ones that a SYN-ACK reaches, and of
 * nobody (the client's namespace is the way to them, and they do not answer). */
#define LAB_SERVER    0xc6120001u /* 198.18.0.1 */
#define LAB_GOOD      0xc6130101u /* 198.19.1.1 */
#define LAB_GOOD_N    240u
#define LAB_BOGUS     0xc6130201u /* 198.19.2.1 */
#define LAB_BOGUS_N   16u
#define LAB_SPOOFED   0xc6138000u /* 198.19.128.0 */
#define LAB_SPOOFED_N 0x8000u

struct lab {
	char dir[LAB_PATH_BYTES];
	char bpf[LAB_PATH_BYTES + 8]; /* the bpffs; empty where this kernel has none */
	int server_net, client_net;   /* the namespaces */
	int server_cpu, flood_cpu,
		good_cpu;	    /* of good clients; with fewer CPUs some are the same */
	bool steered;		    /* received packets are worked on by the receiver's CPU */
	char group[LAB_PATH_BYTES]; /* control group of servers; empty: none */
	const char *capped_by;	    /* "cgroup v2" or "cgroup v1" where server_percent holds */
};

/* In lab_run()'s server_percent: where there can be no such limit, there is none. */
#define LAB_PERCENT_IF_POSSIBLE 0x1000u

/*
 * Runs body in a lab and returns its exit code. server_percent: of one CPU that the servers may
 * use, 0: all. What cannot be set up ends the program, with a line that says what to do.
 */
int lab_run(unsigned server_percent, int (*body)(struct lab *lab, void *ctx), void *ctx) must_check;

#endif
