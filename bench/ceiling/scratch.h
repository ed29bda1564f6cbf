/* SPDX-License-Identifier: MIT */
/*
 * A folder for as long as something runs, that is gone afterwards, also where a signal ends it:
 *
 *   this process: waits, passes an end on, removes the folder
 *     `-- what runs, in a session of its own, with all that it starts
 *
 * SIGKILL to the one that waits ends the others and leaves the folder. No root needed.
 */
#ifndef SSDTF_BENCH_SCRATCH_H
#define SSDTF_BENCH_SCRATCH_H

#include "userspace/base/compiler.h"

#define SCRATCH_PATH_BYTES 256

/* Runs body with such a folder in $TMPDIR and returns its exit code. */
int scratch_run(int (*body)(const char *dir, void *ctx), void *ctx) must_check;

#endif
