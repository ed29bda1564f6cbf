// SPDX-License-Identifier: MIT
#include "bench/flow/link.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/lab/dial.h"
#include "userspace/base/log.h"

#define SERVER	   0x7f000001u /* 127.0.0.1 */
#define SOURCE	   0x7f000101u /* 127.0.1.1 and on, so that ports do not run out */
#define SOURCES	   240
#define ROOM_FIRST 256
#define ACK_BYTES  4

void link_init(struct link *l, unsigned kind, uint32_t index)
{
	*l = (struct link){ .fd = -1, .kind = kind, .index = index };
}

int link_dial(struct link *l, uint16_t port, struct device *device, uint64_t number)
{
	const int one = 1;
	int fd, ret;

	BUG_ON(l->state != LINK_CLOSED);
	if (!l->exchange)
		l->exchange = calloc(1, sizeof(*l->exchange));
	if (!l->exchange)
		return -ENOMEM;
	ret = dial_from(SOURCE + (uint32_t)(number % SOURCES), SERVER, port, &fd);
	if (ret)
		return ret;
	ret = setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ? -errno : 0;
	if (!ret)
		ret = exchange_begin(l->exchange, device, number);
	if (ret) {
		(void)close(fd);
		return ret;
	}
	l->fd = fd;
	l->state = LINK_GREETING;
	l->out_n = l->part_n = 0;
	return 0;
}

void link_close(struct link *l)
{
	if (l->fd < 0)
		return;
	if (l->exchange)
		exchange_end(l->exchange);
	(void)close(l->fd);
	l->fd = -1;
	l->state = LINK_CLOSED;
	l->waits = false;
	l->out_n = l->part_n = 0;
}

void link_deinit(struct link *l)
{
	link_close(l);
	free(l->exchange);
	free(l->out);
	free(l->part);
	*l = (struct link){ .fd = -1 };
}

/* --- sending ---------------------------------------------------------------------------------- */

static void make_room(uint8_t **p, size_t *room, size_t n)
{
	size_t wanted = *room ? *room : ROOM_FIRST;
	uint8_t *grown;

	if (n <= *room)
		return;
	while (wanted < n)
		wanted *= 2;
	grown = realloc(*p, wanted);
	if (!grown)
		exit_with(EX_OSERR, "the clients have no memory for %zu bytes", wanted);
	*p = grown;
	*room = wanted;
}

uint8_t *link_space(struct link *l, size_t n)
{
	make_room(&l->out, &l->out_room, l->out_n + n);
	l->out_n += n;
	return l->out + l->out_n - n;
}

void link_write_ack(struct link *l, enum mqtt_type type, uint16_t packet_id)
{
	struct bytes_writer w = bytes_writer_of(link_space(l, ACK_BYTES), ACK_BYTES);

	mqtt_encode_ack(type, packet_id, &w);
	BUG_ON(w.bad || w.used != ACK_BYTES);
}

/* What a greeting, or libssdtf's answer to a challenge, has to say. */
static void take_exchange(struct link *l)
{
	struct exchange *x = l->exchange;

	if (!x || !x->out_n)
		return;
	memcpy(link_space(l, x->out_n), x->out, x->out_n);
	x->out_n = 0;
}

static void wrote_out(struct link *l, size_t n)
{
	memmove(l->out, l->out + n, l->out_n - n);
	l->out_n -= n;
}

int link_flush(struct link *l)
{
	struct iovec v[TAPE_IOV + 1];
	struct msghdr m = { .msg_iov = v };
	size_t n_out;
	bool tape_first;
	unsigned n = 0;
	ssize_t sent;

	take_exchange(l);
	/* A packet of the tape that was begun is ended first; small ones go first otherwise. */
	tape_first = l->tape && l->tape->part;
	n_out = l->out_n;
	if (n_out && !tape_first)
		v[n++] = (struct iovec){ l->out, n_out };
	if (l->tape && l->state == LINK_OPEN)
		n += tape_pending(l->tape, v + n);
	if (n_out && tape_first)
		v[n++] = (struct iovec){ l->out, n_out };
	if (!n)
		return 0;
	m.msg_iovlen = n;
	sent = sendmsg(l->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0)
		return errno == ENOTCONN ? -EAGAIN : -errno;
	for (unsigned i = 0; i < n; i++) {
		size_t part = (size_t)sent < v[i].iov_len ? (size_t)sent : v[i].iov_len;

		if (n_out && v[i].iov_base == l->out)
			wrote_out(l, part);
		else
			tape_wrote(l->tape, part);
		sent -= (ssize_t)part;
		if (part < v[i].iov_len)
			return -EAGAIN;
	}
	return 0;
}

/* --- receiving -------------------------------------------------------------------------------- */

static int gone(ssize_t n)
{
	return n ? -errno : -ECONNRESET;
}

static void keep(struct link *l, const uint8_t *p, size_t n)
{
	make_room(&l->part, &l->part_room, n);
	if (n)
		memcpy(l->part, p, n);
	l->part_n = n;
}

static int receive_greeting(struct link *l)
{
	struct exchange *x = l->exchange;
	struct bytes_writer room = exchange_room(x);
	ssize_t n = recv(l->fd, room.p, room.left, MSG_DONTWAIT);

	if (n <= 0)
		return gone(n);
	exchange_take(x, (size_t)n);
	if (x->state == EXCHANGE_GOING)
		return 0;
	if (x->state != EXCHANGE_DONE)
		return -EPROTO;
	keep(l, x->in, x->in_n);
	x->in_n = 0;
	l->state = LINK_OPEN;
	if (x->device)
		return 0; /* it goes on to answer for libssdtf */
	free(x);
	l->exchange = NULL;
	return 0;
}

int link_receive(struct link *l, uint8_t *rx, size_t rx_n, link_take *take, void *ctx)
{
	size_t at = 0, have = l->part_n, used, need;
	struct mqtt_frame f;
	ssize_t n;

	if (l->state == LINK_GREETING)
		return receive_greeting(l);
	if (have)
		memcpy(rx, l->part, have);
	BUG_ON(have >= rx_n);
	n = recv(l->fd, rx + have, rx_n - have, MSG_DONTWAIT);
	if (n <= 0)
		return gone(n);
	have += (size_t)n;
	for (;;) {
		if (mqtt_frame_next(bytes_of(rx + at, have - at), LINK_PACKET_BYTES_MAX, &f, &used,
				    &need))
			return -EPROTO;
		if (!used)
			break;
		take(ctx, l, &f);
		if (l->state != LINK_OPEN)
			return 0; /* the taker closed it */
		at += used;
	}
	keep(l, rx + at, have - at);
	return 0;
}
