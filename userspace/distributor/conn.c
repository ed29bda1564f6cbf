// SPDX-License-Identifier: MIT
#include "userspace/distributor/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES 65536
#define READS_MAX  16 /* of one turn */
#define GOODBYE_MS 1000

void conn_init(struct conn *c, const char *role, const struct config_address *a,
	       void (*closed)(struct conn *c))
{
	c->role = role;
	c->address = a;
	c->fd = -1;
	c->state = CONN_WAITING;
	c->retry_ms = CONN_RETRY_MS_MIN;
	c->retry_at_ms = 0;
	c->closed = closed;
}

static void drop(struct conn *c, const char *why, uint64_t mono_ms)
{
	bool was_open = session_is_open(&c->session);

	if (was_open && mono_ms - c->connected_ms >= CONN_SETTLED_MS)
		c->retry_ms = CONN_RETRY_MS_MIN;
	if (!c->complained)
		log_warn("%s=%s session=%s why=\"%s\"", c->role, c->address->text,
			 was_open ? "ended" : "none", why);
	c->complained = true;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->state = CONN_WAITING;
	c->retry_at_ms = mono_ms + c->retry_ms;
	c->retry_ms *= 2;
	if (c->retry_ms > CONN_RETRY_MS_MAX)
		c->retry_ms = CONN_RETRY_MS_MAX;
	session_end(&c->session);
	if (was_open)
		c->closed(c);
}

void conn_opened(struct conn *c)
{
	c->connected_ms = c->session.mono_ms;
	c->connects++;
	c->complained = false;
	log_info("%s=%s session=open", c->role, c->address->text);
}

static void begin_connect(struct conn *c, uint64_t mono_ms)
{
	const int one = 1;

	c->fd = socket(c->address->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0) {
		drop(c, strerror(errno), mono_ms);
		return;
	}
	/* Packets are gathered by the turn; where it is refused they only come later. */
	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->connected_ms = mono_ms;
	c->state = CONN_CONNECTING;
	if (connect(c->fd, (const struct sockaddr *)&c->address->sa, c->address->len) &&
	    errno != EINPROGRESS)
		drop(c, strerror(errno), mono_ms);
}

static void end_connect(struct conn *c, uint64_t mono_ms, uint64_t unix_ms)
{
	socklen_t n = sizeof(int);
	int err = 0;

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &n))
		err = errno;
	if (err) {
		drop(c, strerror(err), mono_ms);
		return;
	}
	c->state = CONN_UP;
	session_begin(&c->session, mono_ms, unix_ms);
}

static void read_some(struct conn *c, uint64_t mono_ms)
{
	static uint8_t room[READ_BYTES];

	for (unsigned i = 0; i < READS_MAX; i++) {
		ssize_t n = recv(c->fd, room, sizeof(room), MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			drop(c, n ? strerror(errno) : "the broker closed the connection", mono_ms);
			return;
		}
		if (session_input(&c->session, bytes_of(room, (size_t)n), mono_ms)) {
			/* PROTOCOL 5: who failed to prove itself is told goodbye. */
			session_disconnect(&c->session);
			conn_flush(c, mono_ms);
			if (c->state == CONN_UP)
				drop(c, c->session.why, mono_ms);
			return;
		}
		if ((size_t)n < sizeof(room))
			return;
	}
}

void conn_flush(struct conn *c, uint64_t mono_ms)
{
	struct bytes v = session_output(&c->session);
	size_t at = 0;

	if (c->state != CONN_UP)
		return;
	while (at < v.n) {
		ssize_t n = send(c->fd, v.p + at, v.n - at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			drop(c, strerror(errno), mono_ms);
			return;
		}
		if (n < 0)
			break;
		at += (size_t)n;
	}
	if (at)
		session_written(&c->session, at);
}

void conn_watch(const struct conn *c, struct pollfd *fd)
{
	*fd = (struct pollfd){ .fd = c->fd };
	if (c->state == CONN_CONNECTING)
		fd->events = POLLOUT;
	else if (c->state == CONN_UP)
		fd->events = (short)(POLLIN | (session_output(&c->session).n ? POLLOUT : 0));
}

void conn_events(struct conn *c, short events, uint64_t mono_ms, uint64_t unix_ms)
{
	if (!events)
		return;
	if (c->state == CONN_CONNECTING)
		end_connect(c, mono_ms, unix_ms);
	else if (c->state == CONN_UP && events & (POLLIN | POLLHUP | POLLERR))
		read_some(c, mono_ms);
}

uint64_t conn_due_ms(const struct conn *c)
{
	switch (c->state) {
	case CONN_WAITING:
		return c->retry_at_ms;
	case CONN_CONNECTING:
		return c->connected_ms + CONN_CONNECT_MS;
	case CONN_UP:
		return session_due_ms(&c->session);
	}
	return UINT64_MAX;
}

void conn_tick(struct conn *c, uint64_t mono_ms)
{
	switch (c->state) {
	case CONN_WAITING:
		if (c->retry_at_ms <= mono_ms)
			begin_connect(c, mono_ms);
		return;
	case CONN_CONNECTING:
		if (c->connected_ms + CONN_CONNECT_MS <= mono_ms)
			drop(c, "no connection in time", mono_ms);
		return;
	case CONN_UP:
		if (session_tick(&c->session, mono_ms))
			drop(c, c->session.why, mono_ms);
		return;
	}
}

/* The broker is waited for to close: a close with anything unread makes TCP reset the connection,
 * which can overtake what was just written. */
void conn_close(struct conn *c)
{
	struct pollfd p = { .fd = c->fd, .events = POLLOUT };
	uint8_t unread[4096];

	if (c->state == CONN_UP && session_is_open(&c->session)) {
		session_disconnect(&c->session);
		while (c->state == CONN_UP && session_output(&c->session).n &&
		       poll(&p, 1, GOODBYE_MS) > 0)
			conn_flush(c, c->session.mono_ms);
		p.events = POLLIN;
		if (c->fd >= 0 && !shutdown(c->fd, SHUT_WR))
			while (poll(&p, 1, GOODBYE_MS) > 0 &&
			       recv(c->fd, unread, sizeof(unread), MSG_DONTWAIT) > 0)
				;
	}
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->state = CONN_WAITING;
	c->retry_at_ms = UINT64_MAX;
	session_end(&c->session);
}
