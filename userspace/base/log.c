// SPDX-License-Identifier: MIT
#include "userspace/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES_MAX 1024
#define LIMIT_MS       1000

static const char *log_program = "ssdtf";
static enum log_level log_most = LOG_LEVEL_INFO;

void log_init(const char *program, enum log_level most)
{
	const char *slash = strrchr(program, '/');

	log_program = slash ? slash + 1 : program;
	log_most = most;
}

/* One write per line, so that lines of several threads and processes do not mix. */
static void say(const char *level, const char *fmt, va_list ap)
{
	char line[LINE_BYTES_MAX];
	int n = snprintf(line, sizeof(line), "%s: %s", log_program, level);
	size_t used = (size_t)n;

	n = vsnprintf(line + used, sizeof(line) - used, fmt, ap);
	used += (size_t)n;
	if (used > sizeof(line) - 2)
		used = sizeof(line) - 2;
	line[used++] = '\n';
	(void)!write(STDERR_FILENO, line, used); /* nobody is left to tell */
}

void log_at(enum log_level level, const char *fmt, ...)
{
	static const char *const names[] = {
		[LOG_LEVEL_ERROR] = "error: ",
		[LOG_LEVEL_WARN] = "warning: ",
		[LOG_LEVEL_INFO] = "",
		[LOG_LEVEL_DEBUG] = "debug: ",
	};
	va_list ap;

	if (level > log_most)
		return;
	va_start(ap, fmt);
	say(names[level], fmt, ap);
	va_end(ap);
}

bool log_limit_pass(struct log_limit *l, uint64_t now_ms, uint64_t *ret_left_out)
{
	if (now_ms < l->next_ms) {
		l->left_out++;
		return false;
	}
	*ret_left_out = l->left_out;
	l->left_out = 0;
	l->next_ms = now_ms + LIMIT_MS;
	return true;
}

void exit_with(int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("", fmt, ap);
	va_end(ap);
	exit(code);
}
