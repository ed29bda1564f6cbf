/* SPDX-License-Identifier: MIT */
/*
 * What every file of results begins with, so that a figure never stands without its origin:
 *
 *   { "tool": "compare", "commit": "0113251b4a1c",
 *     "command": ["ssdtf-bench", "compare", "--rounds", "3"], "date": "2026-11-26T01:15:00Z",
 *     "machine": { "cpu", "cpus", "memory_mib", "kernel", "distribution", "openssl",
 *                  "mosquitto" }, ... }
 *
 * The commit is that of the build ("-dirty" behind it where files differed from it), "unknown"
 * outside of a repository. A program that is not there has null for its version.
 */
#ifndef SSDTF_BENCH_RESULTS_H
#define SSDTF_BENCH_RESULTS_H

#include <stdio.h>

#include "userspace/base/compiler.h"

struct json_t;

/* argv as a command's main has it; argv[0] is "ssdtf-bench COMMAND". mosquitto: its path, NULL for
 * Debian's. The caller's to json_decref(). */
struct json_t *results_head(int argc, char *const *argv, const char *mosquitto);
/* The command as a shell takes it, quoted where it must be. To be freed; NULL: out of memory. */
char *results_command(const struct json_t *head) must_check;
/* Command, date, commit and machine, for people; three lines. */
void results_print_head(const struct json_t *head, FILE *to);
/* Ends the program where no file can be made at path: asked before time is spent on what goes
 * there. */
void results_check_path(const char *path);
/* 0, or EX_CANTCREAT and the reason is said. */
int results_write(const struct json_t *root, const char *path) must_check;

#endif
