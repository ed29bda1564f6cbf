/* SPDX-License-Identifier: MIT */
/*
 * What programs say to people: one line on stderr, level first, key=value where machines read too.
 *
 * Only mains and core/ log (lower layers return errors). log_every() limits a message that a peer
 * can provoke: it is said once, then at most once a second with the number left out since.
 * exit_with() is for start-up only: "program: what, where, what to do" and a sysexits.h code.
 */
#ifndef SSDTF_BASE_LOG_H
#define SSDTF_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/compiler.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* The program's name in front of each line, and the most that is said. Once, before any thread. */
void log_init(const char *program, enum log_level most);

void log_at(enum log_level level, const char *fmt, ...) format_printf(2, 3);

#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* One per call site, static. Single-threaded users only. */
struct log_limit {
	uint64_t next_ms;
	uint64_t left_out;
};

/* True where the line may be said now; *ret_left_out is how many were not since the last. */
bool log_limit_pass(struct log_limit *l, uint64_t now_ms, uint64_t *ret_left_out);

/* Says the line (as an error) and ends the program with a code from sysexits.h. */
void exit_with(int code, const char *fmt, ...) format_printf(2, 3) noreturn_fn;

#endif
