/* SPDX-License-Identifier: MIT */
/*
 * A control group that limits how much of a CPU its processes use: the server under test becomes a
 * small machine's. cgroup v2 (cpu.max) where its cpu controller can be had, else v1
 * (cpu.cfs_quota_us), else -ENOTSUP. Packets worked on in softirq are not limited by it.
 */
#ifndef SSDTF_BENCH_GROUP_H
#define SSDTF_BENCH_GROUP_H

#include <stddef.h>

#include "userspace/base/compiler.h"

/* percent of one CPU. path gets the group's folder; *ret_kind a constant for people. -ENOTSUP,
 * -errno. */
int group_make(unsigned percent, char *path, size_t room, const char **ret_kind) must_check;
/* Adds the calling process. */
int group_enter(const char *path) must_check;
/* Only once no process is in it. */
void group_remove(const char *path);

#endif
