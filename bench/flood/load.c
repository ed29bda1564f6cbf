// SPDX-License-Identifier: MIT
#include "bench/flood/load.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "bench/lab/dial.h"
#include "userspace/base/log.h"
#include "userspace/mqtt/packet.h"

#define EVENTS_MAX    128
#define TURN_MS	      1
#define SWEEP_NS      10000000ull
#define NS_PER_MS     1000000ull
#define NS_PER_S      1000000000ull
#define DISCONNECT_N  2
#define DEVICE_GAP_NS (LOAD_DEVICE_GAP_MS * NS_PER_MS)

struct client {
	int fd; /* -1: free */
	uint64_t due_ns, begun_ns;
	uint8_t connect[EXCHANGE_BYTES_MAX]; /* as it was sent */
	size_t connect_n;
	struct exchange exchange;
};

struct load {
	const struct load_options *o;
	struct load_result *r;
	int epoll;
	unsigned n_clients, n_active;
	struct client *clients;
	unsigned free[LOAD_CLIENTS_MAX]; /* a stack of indices */
	unsigned n_free;
	unsigned device_next, source_next;
	uint64_t begun, planned; /* attempts */
	uint64_t start_ns, end_ns;
	uint8_t disconnect[DISCONNECT_N];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

uint64_t load_failures(const struct load_result *r)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < LOAD_FAILURES; i++)
		n += r->failed[i];
	return n;
}

/* --- an attempt ends -------------------------------------------------------------------------- */

static void remember(struct load *l, uint64_t us)
{
	if (l->r->n_us < LOAD_PLANNED_MAX)
		l->r->us[l->r->n_us++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static void release(struct load *l, struct client *c)
{
	exchange_end(&c->exchange);
	(void)close(c->fd);
	c->fd = -1;
	l->free[l->n_free++] = (unsigned)(c - l->clients);
	l->n_active--;
}

static void failed(struct load *l, struct client *c, enum load_failure why)
{
	l->r->failed[why]++;
	remember(l, LOAD_TIMEOUT_MS * 1000ull);
	release(l, c);
}

static void done(struct load *l, struct client *c)
{
	uint64_t now = now_ns();

	/* A closed loop counts what was done in its time. */
	if (!l->o->clients || now <= l->end_ns) {
		l->r->done++;
		remember(l, (now - c->due_ns) / 1000);
	}
	if (!l->r->connect_n) {
		memcpy(l->r->connect, c->connect, c->connect_n);
		l->r->connect_n = c->connect_n;
	}
	/* Whether it arrives is no part of connecting. */
	(void)!send(c->fd, l->disconnect, sizeof(l->disconnect), MSG_NOSIGNAL | MSG_DONTWAIT);
	release(l, c);
}

/* --- an attempt goes on ----------------------------------------------------------------------- */

static enum load_failure failure_of(int error)
{
	return error == ECONNREFUSED || error == ECONNRESET ? LOAD_REFUSED
	       : error == ETIMEDOUT			    ? LOAD_TIMED_OUT
							    : LOAD_CLOSED;
}

/* True: the client goes on. */
static bool flush(struct load *l, struct client *c)
{
	struct exchange *x = &c->exchange;
	ssize_t n;

	if (!x->out_n)
		return true;
	n = send(c->fd, x->out, x->out_n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == ENOTCONN))
		return true;	      /* not connected yet */
	if (n != (ssize_t)x->out_n) { /* a fresh socket takes a small packet whole */
		failed(l, c, n < 0 ? failure_of(errno) : LOAD_WRONG);
		return false;
	}
	x->out_n = 0;
	return true;
}

static bool receive(struct load *l, struct client *c, bool *ret_more)
{
	struct bytes_writer room = exchange_room(&c->exchange);
	ssize_t n = recv(c->fd, room.p, room.left, MSG_DONTWAIT);

	*ret_more = n > 0;
	if (n < 0 && errno == EAGAIN)
		return true;
	if (n <= 0) {
		failed(l, c, n ? failure_of(errno) : LOAD_CLOSED);
		return false;
	}
	exchange_take(&c->exchange, (size_t)n);
	return true;
}

static void proceed(struct load *l, struct client *c)
{
	bool more = true;

	while (more) {
		if (!flush(l, c))
			return;
		if (!receive(l, c, &more))
			return;
		switch (c->exchange.state) {
		case EXCHANGE_GOING:
			break;
		case EXCHANGE_DONE:
			done(l, c);
			return;
		case EXCHANGE_REFUSED:
			failed(l, c, LOAD_REFUSED);
			return;
		case EXCHANGE_FAILED:
			failed(l, c, LOAD_WRONG);
			return;
		}
	}
}

/* --- an attempt begins ------------------------------------------------------------------------ */

/* NULL where every device is at it, or was a moment ago. */
static struct device *rested_device(struct load *l, uint64_t now)
{
	for (unsigned i = 0; i < l->o->n_devices; i++) {
		struct device *d = &l->o->devices[l->device_next++ % l->o->n_devices];

		if (!d->exchange && now - d->used_ns >= DEVICE_GAP_NS) {
			d->used_ns = now;
			return d;
		}
	}
	return NULL;
}

/* Each from the next address, so that closed connections' ports do not run out. */
static int dial(struct load *l, int *ret_fd)
{
	const int one = 1;
	uint32_t source = LAB_GOOD + l->source_next++ % LAB_GOOD_N;
	int fd, err = dial_from(source, LAB_SERVER, l->o->port, &fd);

	if (err)
		return err;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))) {
		err = -errno;
		(void)close(fd);
		return err;
	}
	*ret_fd = fd;
	return 0;
}

/* 0; -EAGAIN where nobody is free, else -errno. */
static int begin(struct load *l, uint64_t due, uint64_t now)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET };
	struct device *d = NULL;
	struct client *c;
	int ret;

	if (!l->n_free)
		return -EAGAIN;
	if (l->o->devices) {
		d = rested_device(l, now);
		if (!d) {
			l->r->device_waits++;
			return -EAGAIN;
		}
	}
	c = &l->clients[l->free[l->n_free - 1]];
	ret = dial(l, &c->fd);
	if (ret)
		return ret;
	c->due_ns = due;
	c->begun_ns = now;
	e.data.u32 = l->free[--l->n_free];
	l->n_active++;
	ret = exchange_begin(&c->exchange, d, l->begun++);
	memcpy(c->connect, c->exchange.out, c->exchange.out_n);
	c->connect_n = c->exchange.out_n;
	if (!ret && epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &e))
		ret = -errno;
	return ret;
}

/* 0, or why no more can be begun. */
static int begin_due(struct load *l, uint64_t now)
{
	int ret = 0;

	if (l->o->clients) {
		while (!ret && now < l->end_ns && l->n_active < l->n_clients)
			ret = begin(l, now, now);
	} else {
		while (!ret && l->begun < l->planned) {
			uint64_t due = l->start_ns + l->begun * NS_PER_S / l->o->rate;

			if (due > now)
				break;
			ret = begin(l, due, now);
		}
	}
	return ret == -EAGAIN ? 0 : ret;
}

/* --- the process ------------------------------------------------------------------------------ */

static void sweep(struct load *l, uint64_t now)
{
	for (unsigned i = 0; i < l->n_clients; i++) {
		struct client *c = &l->clients[i];

		if (c->fd >= 0 && now - c->begun_ns > LOAD_TIMEOUT_MS * NS_PER_MS)
			failed(l, c, LOAD_TIMED_OUT);
	}
}

static bool finished(const struct load *l, uint64_t now)
{
	if (now < l->end_ns)
		return false;
	if (l->o->clients)
		return true;
	return (!l->n_active && l->begun == l->planned) ||
	       now > l->end_ns + LOAD_TIMEOUT_MS * NS_PER_MS;
}

static int turn(struct load *l)
{
	struct epoll_event events[EVENTS_MAX];
	int n, ret = begin_due(l, now_ns());

	if (ret)
		return ret;
	n = epoll_wait(l->epoll, events, EVENTS_MAX, TURN_MS);
	if (n < 0 && errno != EINTR)
		return -errno;
	for (int i = 0; i < n; i++) {
		struct client *c = &l->clients[events[i].data.u32];

		if (c->fd >= 0)
			proceed(l, c);
	}
	return 0;
}

static int run(struct load *l)
{
	uint64_t now = now_ns(), swept = now;
	int ret = 0;

	l->start_ns = now;
	l->end_ns = now + (uint64_t)(l->o->seconds * 1e9);
	while (!ret && !finished(l, now)) {
		ret = turn(l);
		now = now_ns();
		if (now - swept >= SWEEP_NS) {
			sweep(l, now);
			swept = now;
		}
	}
	l->r->seconds = l->o->seconds;
	if (l->o->clients)
		return ret;
	for (unsigned i = 0; i < l->n_clients; i++) {
		if (l->clients[i].fd >= 0)
			failed(l, &l->clients[i], LOAD_TIMED_OUT);
	}
	for (uint64_t i = l->begun; i < l->planned; i++) {
		l->r->failed[LOAD_ABSENT]++;
		remember(l, LOAD_TIMEOUT_MS * 1000ull);
	}
	return ret;
}

int load_run(const struct load_options *o, struct load_result *r)
{
	struct load l = { .o = o, .r = r };
	struct bytes_writer w = bytes_writer_of(l.disconnect, sizeof(l.disconnect));
	int ret = 0;

	BUG_ON(o->clients > LOAD_CLIENTS_MAX);
	mqtt_encode_empty(MQTT_DISCONNECT, &w);
	l.n_clients = o->clients ? o->clients : LOAD_CLIENTS_MAX;
	l.planned = o->clients ? 0 : (uint64_t)(o->rate * o->seconds);
	BUG_ON(l.planned > LOAD_PLANNED_MAX);
	l.clients = calloc(l.n_clients, sizeof(l.clients[0]));
	l.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!l.clients || l.epoll < 0)
		ret = -ENOMEM;
	for (unsigned i = 0; !ret && i < l.n_clients; i++) {
		l.clients[i].fd = -1;
		l.free[l.n_free++] = i;
	}
	if (!ret)
		ret = run(&l);
	if (ret)
		log_error("clients: %s", strerror(-ret));
	free(l.clients);
	if (l.epoll >= 0)
		(void)close(l.epoll);
	return ret ? EX_OSERR : 0;
}
