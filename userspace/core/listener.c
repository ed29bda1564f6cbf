// SPDX-License-Identifier: MIT
#include "userspace/core/listener.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void complete_accept(void *ctx, const struct ring_done *d)
{
	struct listener_set *s = ctx;
	struct listener *l = &s->all[d->index];

	BUG_ON(d->index >= s->n);
	if (!(d->flags & IORING_CQE_F_MORE))
		l->armed = false;
	if (d->res >= 0) {
		if (s->stopping)
			close(d->res);
		else
			s->accepted(s->ctx, d->res);
		return;
	}
	switch (-d->res) {
	case EMFILE:
	case ENFILE:
		s->out_of_fds++;
		l->retry_at_ms = s->now_ms + LISTENER_RETRY_MS;
		break;
	case ECONNABORTED:
	case EINTR:
	case EAGAIN:
	case ECANCELED:
		break;
	default: /* no memory, or the network's own errors, of which accept(2) has a list */
		l->retry_at_ms = s->now_ms + LISTENER_RETRY_MS;
	}
}

void listener_set_init(struct listener_set *s, struct ring *r, void (*accepted)(void *ctx, int fd),
		       void *ctx)
{
	memset(s, 0, sizeof(*s));
	s->ring = r;
	s->accepted = accepted;
	s->ctx = ctx;
	ring_on(r, RING_ACCEPT, complete_accept, s);
}

void listener_set_deinit(struct listener_set *s)
{
	for (unsigned i = 0; i < s->n; i++)
		if (s->all[i].fd >= 0)
			close(s->all[i].fd);
}

static int set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) ? -errno : 0;
}

static int prepare(int fd, const struct address *a)
{
	int err = set(fd, SOL_SOCKET, SO_REUSEADDR, 1);

	/* [::] and 0.0.0.0 may stand beside each other. */
	if (!err && a->sa.ss_family == AF_INET6)
		err = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (!err)
		err = set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (!err)
		err = set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, LISTENER_LOWAT_BYTES);
	/* A client may ask for no keep-alive of MQTT's; a dead one is found all the same. */
	if (!err)
		err = set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	if (!err)
		err = set(fd, IPPROTO_TCP, TCP_KEEPIDLE, LISTENER_KEEPALIVE_S);
	if (!err && bind(fd, (const struct sockaddr *)&a->sa, a->len))
		err = -errno;
	return err;
}

int listener_add(struct listener_set *s, const struct address *a, struct address *ret_bound)
{
	struct address bound = { .len = sizeof(bound.sa) };
	int fd, err;

	if (s->n == LISTENER_MAX)
		return -E2BIG;
	fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0)
		return -errno;
	err = prepare(fd, a);
	if (!err && getsockname(fd, (struct sockaddr *)&bound.sa, &bound.len))
		err = -errno;
	if (err) {
		close(fd);
		return err;
	}
	s->all[s->n++] = (struct listener){ .fd = fd };
	*ret_bound = bound;
	return 0;
}

int listener_start(struct listener_set *s)
{
	for (unsigned i = 0; i < s->n; i++)
		if (listen(s->all[i].fd, LISTENER_BACKLOG))
			return -errno;
	/* Behind listen(), which may switch it on: the admission filter judges no SYN. Where there
	 * is no Fast Open, there is nothing to switch off. */
	for (unsigned i = 0; i < s->n; i++)
		(void)set(s->all[i].fd, IPPROTO_TCP, TCP_FASTOPEN, 0);
	s->started = true;
	return 0;
}

static void arm(struct listener_set *s, unsigned i)
{
	struct io_uring_sqe *sqe = ring_sqe(s->ring);

	if (!sqe)
		return; /* the next turn */
	io_uring_prep_multishot_accept(sqe, s->all[i].fd, NULL, NULL, SOCK_CLOEXEC);
	ring_tag(sqe, RING_ACCEPT, 0, i);
	s->all[i].armed = true;
	s->all[i].retry_at_ms = 0;
}

void listener_turn(struct listener_set *s, uint64_t now_ms, bool released)
{
	s->now_ms = now_ms;
	for (unsigned i = 0; i < s->n && s->started && !s->stopping; i++)
		if (!s->all[i].armed && (released || now_ms >= s->all[i].retry_at_ms))
			arm(s, i);
}

uint64_t listener_wait_ms(const struct listener_set *s)
{
	uint64_t wait_ms = UINT64_MAX;

	for (unsigned i = 0; i < s->n && s->started && !s->stopping; i++) {
		uint64_t at_ms = s->all[i].retry_at_ms;

		if (s->all[i].armed)
			continue;
		at_ms = at_ms > s->now_ms ? at_ms - s->now_ms : 0;
		if (at_ms < wait_ms)
			wait_ms = at_ms;
	}
	return wait_ms;
}

/* Of a listener, TCP_INFO has its queue and that queue's limit where it has segments of others. */
unsigned listener_queue_percent(const struct listener_set *s)
{
	unsigned most = 0;

	for (unsigned i = 0; i < s->n; i++) {
		struct tcp_info info;
		socklen_t n = sizeof(info);

		if (getsockopt(s->all[i].fd, IPPROTO_TCP, TCP_INFO, &info, &n) || !info.tcpi_sacked)
			continue;
		if (info.tcpi_unacked * 100 / info.tcpi_sacked > most)
			most = info.tcpi_unacked * 100 / info.tcpi_sacked;
	}
	return most;
}

void listener_stop(struct listener_set *s)
{
	s->stopping = true;
	for (unsigned i = 0; i < s->n; i++) {
		/* Ends the armed accept; closing alone would not. */
		(void)shutdown(s->all[i].fd, SHUT_RDWR); /* ENOTCONN is not for listeners */
		if (!s->all[i].armed) {
			close(s->all[i].fd);
			s->all[i].fd = -1;
		}
	}
}
