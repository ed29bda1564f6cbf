// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "bench/flow/clients_impl.h"

#define EVENTS_MAX   512
#define TURN_NS	     (10 * CLIENTS_NS_PER_MS)
#define REFUSED	     0x80 /* of SUBACK */
#define PATIENCE_NS  (60 * CLIENTS_NS_PER_S)
#define MEET_TURN_NS (2 * CLIENTS_NS_PER_MS)

uint64_t clients_now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t); /* this clock always is */
	return (uint64_t)t.tv_sec * CLIENTS_NS_PER_S + (uint64_t)t.tv_nsec;
}

void clients_fail(struct clients *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->shared->why, sizeof(c->shared->why), fmt, ap);
	va_end(ap);
	_exit(EX_UNAVAILABLE);
}

static const char *kind_name(const struct link *l)
{
	static const char *const names[] = {
		[CLIENT_SENDER] = "sender",    [CLIENT_RECEIVER] = "receiver",
		[CLIENT_IDLE] = "idle client", [CLIENT_OTHER] = "other subscriber",
		[CLIENT_CONNECT] = "client",
	};

	return names[l->kind];
}

/* --- links ------------------------------------------------------------------------------------ */

static void arm(struct clients *c, struct link *l, int op, bool out)
{
	struct epoll_event e = { .events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = l };

	if (epoll_ctl(c->epoll, op, l->fd, &e))
		clients_fail(c, "epoll: %s", strerror(errno));
	l->waits = out;
}

void clients_dial(struct clients *c, struct link *l, struct device *d)
{
	int ret = link_dial(l, c->o->port, d, c->number++);

	if (ret)
		clients_fail(c, "%s %u cannot connect: %s", kind_name(l), l->index, strerror(-ret));
	arm(c, l, EPOLL_CTL_ADD, true);
	c->greeting++;
}

/* Before they run each connection must hold; later its loss is counted. */
static void lost_link(struct clients *c, struct link *l, int why)
{
	bool greeting = l->state == LINK_GREETING;

	if (!c->running)
		clients_fail(c, "%s %u %s: %s", kind_name(l), l->index,
			     greeting ? "is not let in" : "lost its connection",
			     why == -EPROTO ? "the answer makes no sense" : strerror(-why));
	link_close(l);
	if (greeting)
		c->greeting--;
	else
		c->open--;
	if (l->kind == CLIENT_CONNECT)
		connects_lost(c, l);
	else
		c->shared->closed++;
}

void clients_drop(struct clients *c, struct link *l)
{
	lost_link(c, l, -ETIMEDOUT);
}

void clients_list(struct clients *c, struct link *l)
{
	if (l->listed)
		return;
	l->listed = true;
	l->next = c->listed;
	c->listed = l;
}

static void flush(struct clients *c, struct link *l)
{
	int ret;

	if (l->state == LINK_CLOSED)
		return;
	ret = link_flush(l);
	if (ret && ret != -EAGAIN) {
		lost_link(c, l, ret);
		return;
	}
	if ((ret == -EAGAIN) != l->waits)
		arm(c, l, EPOLL_CTL_MOD, ret == -EAGAIN);
	/* What went out made room on the ring. */
	if (l->tape && c->senders[l->index].full)
		sender_list(c, &c->senders[l->index]);
}

static void flush_listed(struct clients *c)
{
	struct link *l;

	while ((l = c->listed)) {
		c->listed = l->next;
		l->listed = false;
		flush(c, l);
	}
}

static void take_other(struct clients *c, const struct mqtt_frame *f)
{
	struct bytes codes;
	uint16_t id;

	if (mqtt_frame_type(f) != MQTT_SUBACK)
		return;
	if (mqtt_decode_suback(f->body, &id, &codes) || memchr(codes.p, REFUSED, codes.n))
		clients_fail(c, "other subscriptions are refused");
	c->others_acked++;
}

static void take(void *ctx, struct link *l, const struct mqtt_frame *f)
{
	struct clients *c = ctx;

	switch ((enum client_kind)l->kind) {
	case CLIENT_SENDER:
		sender_take(c, l, f);
		return;
	case CLIENT_RECEIVER:
		receiver_take(c, l, f);
		return;
	case CLIENT_OTHER:
		take_other(c, f);
		return;
	case CLIENT_IDLE:
	case CLIENT_CONNECT:
		return;
	}
}

static void receive(struct clients *c, struct link *l)
{
	bool greeting = l->state == LINK_GREETING;
	int ret;

	c->now_ns = clients_now_ns();
	ret = link_receive(l, c->rx, CLIENTS_RX_BYTES, take, c);
	clients_publish(c);
	if (ret && ret != -EAGAIN) {
		lost_link(c, l, ret);
		return;
	}
	if (greeting && l->state == LINK_OPEN) {
		c->greeting--;
		c->open++;
		if (l->kind == CLIENT_CONNECT) {
			connects_open(c, l);
			return;
		}
	}
	if (l->out_n || (l->exchange && l->exchange->out_n))
		clients_list(c, l);
}

/* --- a turn ----------------------------------------------------------------------------------- */

static int wait_for(struct clients *c, struct epoll_event *events, uint64_t ns)
{
	struct timespec t = { (time_t)(ns / CLIENTS_NS_PER_S), (long)(ns % CLIENTS_NS_PER_S) };
	int n = epoll_pwait2(c->epoll, events, EVENTS_MAX, &t, NULL);

	if (n < 0 && errno == ENOSYS) /* Linux 5.10 and before */
		n = epoll_wait(c->epoll, events, EVENTS_MAX, (int)(ns / CLIENTS_NS_PER_MS));
	if (n < 0 && errno != EINTR)
		clients_fail(c, "epoll: %s", strerror(errno));
	return n;
}

void clients_turn(struct clients *c, uint64_t wait_ns)
{
	struct epoll_event events[EVENTS_MAX];
	int n;

	senders_pump(c);
	flush_listed(c);
	n = wait_for(c, events, c->pumped ? 0 : wait_ns < TURN_NS ? wait_ns : TURN_NS);
	for (int i = 0; i < n; i++) {
		struct link *l = events[i].data.ptr;

		if (l->state != LINK_CLOSED && events[i].events & ~(uint32_t)EPOLLOUT)
			receive(c, l);
		if (l->state != LINK_CLOSED && events[i].events & EPOLLOUT)
			clients_list(c, l);
	}
	senders_pump(c);
	flush_listed(c);
	c->now_ns = clients_now_ns();
	clients_publish(c);
}

void clients_time(struct clients *c, uint64_t due_ns)
{
	uint64_t from = atomic_load_explicit(&c->shared->from_ns, memory_order_relaxed);
	uint64_t to = atomic_load_explicit(&c->shared->to_ns, memory_order_relaxed);

	if (!c->s->window && from && due_ns >= from && (!to || due_ns < to))
		histogram_add(&c->shared->latency,
			      c->now_ns > due_ns ? (c->now_ns - due_ns) / 1000 : 0);
}

/* Whatever shows that the broker is at it. */
static uint64_t moves(const struct clients *c)
{
	return c->number + c->open + c->others_acked + (c->n_senders ? c->senders[0].acked : 0);
}

void clients_until(struct clients *c, const char *what, bool (*done)(struct clients *c))
{
	uint64_t end = clients_now_ns() + PATIENCE_NS;
	uint64_t moved = moves(c);

	while (!done(c)) {
		clients_turn(c, TURN_NS);
		if (moves(c) != moved) {
			moved = moves(c);
			end = c->now_ns + PATIENCE_NS;
		}
		if (c->now_ns > end)
			clients_fail(c, "%s: nothing went on for a minute", what);
	}
}

void clients_publish(struct clients *c)
{
	atomic_store_explicit(&c->shared->sent, c->sent, memory_order_relaxed);
	atomic_store_explicit(&c->shared->delivered, c->delivered, memory_order_relaxed);
}

void clients_meet(struct clients *c, enum clients_stage at, enum clients_order order)
{
	uint64_t one = 1;

	atomic_store(&c->shared->stage, at);
	(void)!write(c->o->bell, &one, sizeof(one)); /* the lab looks by itself, too, if later */
	while (atomic_load(&c->shared->order) < (uint32_t)order)
		clients_turn(c, MEET_TURN_NS);
}
