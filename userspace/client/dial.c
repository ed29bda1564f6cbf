// SPDX-License-Identifier: MIT
#include "userspace/client/dial.h"

#include <errno.h>
#include <fcntl.h>
#include <mosquitto.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Fixed header and variable header, the longest client id and Will, User Name and Password. */
#define CONNECT_BYTES_MAX (5 + 10 + 2 + 64 + 2 * (2 + UINT16_MAX) + 2 + 43 + 2 + 13)
#define SEND_TIMEOUT_MS	  10000
#define DIR_TEMPLATE	  "/ssdtf-XXXXXX"
#define SOCKET_NAME	  "/connect"

static void close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd); /* nothing of ours is buffered behind it */
}
#define FD cleanup(close_fd)

/* --- TCP -------------------------------------------------------------------------------------- */

/* Signals that are blocked otherwise may end the wait. */
static int wait_for(int fd, short events, int timeout_ms)
{
	struct timespec timeout = { .tv_sec = timeout_ms / 1000,
				    .tv_nsec = timeout_ms % 1000 * 1000000l };
	struct pollfd p = { .fd = fd, .events = events };
	sigset_t none;
	int n;

	sigemptyset(&none);
	n = ppoll(&p, 1, &timeout, &none);

	if (n < 0)
		return -errno;
	return n ? 0 : -ETIMEDOUT;
}

static int connect_one(const struct addrinfo *a, int timeout_ms, int *ret_fd)
{
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
	int on = 1, error = 0, ret = 0;
	socklen_t n = sizeof(error);

	if (fd < 0)
		return -errno;
	/* Small packets, each of them wanted at once. An old kernel without it is only slower. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, a->ai_addr, a->ai_addrlen) && errno != EINPROGRESS)
		ret = -errno;
	if (!ret)
		ret = wait_for(fd, POLLOUT, timeout_ms);
	if (!ret && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n))
		ret = -errno;
	if (!ret)
		ret = -error;
	if (ret)
		(void)close(fd);
	else
		*ret_fd = fd;
	return ret;
}

int dial_tcp(const char *host, int port, int timeout_ms, int *ret_fd, const char **ret_why)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
	struct addrinfo *list;
	char service[8];
	int ret;

	snprintf(service, sizeof(service), "%d", port);
	ret = getaddrinfo(host, service, &hints, &list);
	if (ret) {
		*ret_why = gai_strerror(ret);
		return -EHOSTUNREACH;
	}
	ret = -EHOSTUNREACH;
	for (const struct addrinfo *a = list; a; a = a->ai_next) {
		ret = connect_one(a, timeout_ms, ret_fd);
		if (!ret || ret == -EINTR)
			break;
	}
	freeaddrinfo(list);
	if (ret)
		*ret_why = strerror(-ret);
	return ret;
}

/* --- the library's CONNECT -------------------------------------------------------------------- */

/* A listening Unix socket in a directory of its own; the paths are kept to be removed. */
struct rendezvous {
	char dir[108];
	struct sockaddr_un at;
	int fd;
};

static void rendezvous_close(struct rendezvous *r)
{
	if (r->fd >= 0)
		(void)close(r->fd);
	if (r->at.sun_path[0])
		(void)unlink(r->at.sun_path); /* may not have come into being */
	if (r->dir[0])
		(void)rmdir(r->dir);
}

static int rendezvous_open(struct rendezvous *r)
{
	const char *tmp = getenv("TMPDIR");

	memset(r, 0, sizeof(*r));
	r->fd = -1;
	if (!tmp || strlen(tmp) + sizeof(DIR_TEMPLATE SOCKET_NAME) > sizeof(r->at.sun_path))
		tmp = P_tmpdir;
	snprintf(r->dir, sizeof(r->dir), "%s" DIR_TEMPLATE, tmp);
	if (!mkdtemp(r->dir)) {
		r->dir[0] = '\0';
		return -errno;
	}
	r->at.sun_family = AF_UNIX;
	if (snprintf(r->at.sun_path, sizeof(r->at.sun_path), "%s" SOCKET_NAME, r->dir) >=
	    (int)sizeof(r->at.sun_path))
		return -ENAMETOOLONG;
	r->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (r->fd < 0 || bind(r->fd, (const struct sockaddr *)&r->at, sizeof(r->at)) ||
	    listen(r->fd, 1))
		return -errno;
	return 0;
}

/* How long the packet at the front of v is in all; 0: that is not here yet. */
static size_t packet_bytes(struct bytes v)
{
	struct bytes_reader r = bytes_reader_of(v);
	size_t length = 0;
	unsigned shift = 0;
	uint8_t byte;

	(void)bytes_read_u8(&r); /* CONNECT: the library writes nothing else first */
	do {
		byte = bytes_read_u8(&r);
		length |= (size_t)(byte & 0x7f) << shift;
		shift += 7;
	} while (byte & 0x80 && shift < 28);
	return r.bad ? 0 : v.n - r.left + length;
}

/* The whole packet from the library's end, which may hold back what its socket would not take. */
static int read_connect(struct mosquitto *m, int fd, uint8_t *p, size_t room, size_t *ret_n)
{
	size_t used = 0, whole = 0;

	while (!whole || used < whole) {
		ssize_t got = recv(fd, p + used, room - used, MSG_DONTWAIT);

		if (got == 0 || used == room)
			return -EPROTO;
		if (got < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (got < 0 && !mosquitto_want_write(m))
			return -EPROTO;
		if (got < 0 && mosquitto_loop_write(m, 1) != MOSQ_ERR_SUCCESS)
			return -EIO;
		if (got > 0)
			used += (size_t)got;
		whole = packet_bytes(bytes_of(p, used));
	}
	if (used != whole)
		return -EPROTO;
	*ret_n = whole;
	return 0;
}

static int send_all(int fd, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t done = send(fd, p, n, MSG_NOSIGNAL);
		int ret;

		if (done < 0 && errno == EAGAIN) {
			ret = wait_for(fd, POLLOUT, SEND_TIMEOUT_MS);
			if (ret && ret != -EINTR)
				return ret;
			continue;
		}
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		p += done;
		n -= (size_t)done;
	}
	return 0;
}

static int hand_over(struct mosquitto *m, int unix_fd, int tcp_fd, struct bytes token)
{
	uint8_t *packet = malloc(CONNECT_BYTES_MAX);
	size_t n = 0;
	int ret;

	if (!packet)
		return -ENOMEM;
	ret = read_connect(m, unix_fd, packet, CONNECT_BYTES_MAX, &n);
	if (!ret && n < token.n)
		ret = -EPROTO;
	if (!ret) {
		/* Password is the last field of the payload [MQTT-3.1.3-1]. */
		memcpy(packet + n - token.n, token.p, token.n);
		ret = send_all(tcp_fd, packet, n);
	}
	free(packet);
	if (!ret && dup3(tcp_fd, mosquitto_socket(m), O_CLOEXEC) < 0)
		ret = -errno;
	return ret;
}

int dial_mosquitto(struct mosquitto *m, int tcp_fd, int keepalive_s, struct bytes token)
{
	struct rendezvous r cleanup(rendezvous_close);
	int tcp FD = tcp_fd;
	int unix_fd FD = -1;
	int ret = rendezvous_open(&r);

	if (ret)
		return ret;
	/* Port 0 makes the host the path of a Unix socket. It cannot wait: we listen already. */
	if (mosquitto_connect(m, r.at.sun_path, 0, keepalive_s) != MOSQ_ERR_SUCCESS)
		return -EIO;
	unix_fd = accept4(r.fd, NULL, NULL, SOCK_CLOEXEC);
	if (unix_fd < 0)
		return -errno;
	return hand_over(m, unix_fd, tcp, token);
}
