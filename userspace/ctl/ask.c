// SPDX-License-Identifier: MIT
#include "userspace/ctl/ask.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "userspace/base/log.h"
#include "userspace/core/answer.h"

#define WAIT_S 10

static void cannot_connect(const char *path, int error) noreturn_fn;
static void cannot_connect(const char *path, int error)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
	case ECONNREFUSED:
		exit_with(EX_UNAVAILABLE,
			  "%s: nobody answers there (%s); is ssdtf-broker running, and does its "
			  "configuration have control-socket?",
			  path, strerror(error));
	case EACCES:
	case EPERM:
		exit_with(EX_NOPERM,
			  "%s: %s; only the broker's user and group may ask it, and root", path,
			  strerror(error));
	case EPROTOTYPE:
		exit_with(EX_USAGE,
			  "%s: is another program's socket, not the broker's control "
			  "socket",
			  path);
	case EAGAIN:
		exit_with(EX_UNAVAILABLE, "%s: the broker lets nobody in; does it hang?", path);
	default:
		exit_with(EX_UNAVAILABLE, "%s: %s", path, strerror(error));
	}
}

void ask_open(struct ask *a, const char *path)
{
	const struct timeval wait = { .tv_sec = WAIT_S };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t n = strlen(path);

	if (!n || n >= sizeof(address.sun_path))
		exit_with(EX_USAGE, "--socket: a path of 1 to %zu bytes is needed",
			  sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, path, n);
	a->path = path;
	a->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (a->fd < 0 || setsockopt(a->fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) ||
	    setsockopt(a->fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)))
		exit_with(EX_OSERR, "socket: %s", strerror(errno));
	if (connect(a->fd, (const struct sockaddr *)&address, sizeof(address)))
		cannot_connect(path, errno);
}

static void no_answer(const struct ask *a, int error) noreturn_fn;
static void no_answer(const struct ask *a, int error)
{
	if (error == EAGAIN)
		exit_with(EX_UNAVAILABLE, "%s: no answer within %d seconds; does the broker hang?",
			  a->path, WAIT_S);
	exit_with(EX_UNAVAILABLE, "%s: the broker ended the connection%s%s", a->path,
		  error ? ": " : "", error ? strerror(error) : "");
}

void ask_malformed(const struct ask *a)
{
	exit_with(EX_PROTOCOL, "%s: an answer that is none; is it a broker of this version?",
		  a->path);
}

struct bytes ask_lines(struct ask *a, const char *fmt, ...)
{
	static uint8_t answer[ANSWER_BYTES_MAX];
	char request[ANSWER_REQUEST_BYTES_MAX], error[ANSWER_ERROR_BYTES];
	struct bytes lines;
	ssize_t got;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(request, sizeof(request), fmt, ap);
	va_end(ap);
	BUG_ON(n < 0 || (size_t)n >= sizeof(request));
	if (send(a->fd, request, (size_t)n, MSG_NOSIGNAL) != n)
		no_answer(a, errno);
	/* MSG_TRUNC: the packet's own length, where it is longer than any answer. */
	got = recv(a->fd, answer, sizeof(answer), MSG_TRUNC);
	if (got <= 0)
		no_answer(a, got ? errno : 0);
	if ((size_t)got > sizeof(answer))
		ask_malformed(a);
	switch (answer_open(bytes_of(answer, (size_t)got), &lines, error)) {
	case 0:
		return lines;
	case -EREMOTEIO:
		exit_with(EX_DATAERR, "%s: refused: %s", a->path, error);
	}
	ask_malformed(a);
}
