// SPDX-License-Identifier: MIT
#include "bench/flood/flooder.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "bench/lab/dial.h"
#include "bench/lab/lab.h"
#include "userspace/base/log.h"

#define EVENTS_MAX 256
#define BURST_MAX  64 /* begun between two looks at what came back */
#define TURN_MS	   1
#define NS_PER_MS  1000000ull
#define NS_PER_S   1000000000ull
#define LATE_PARTS 10 /* of a second */

/* Connections live equally long, so they end in the order in which they began. */
struct ring {
	unsigned first, n;
	struct {
		int fd;
		uint64_t begun_ns;
	} at[FLOODER_OPEN_MAX];
};

struct flooder {
	const struct flooder_options *o;
	struct flooder_state *s;
	struct flooder_pace pace;
	struct ring *ring;
	int epoll;
	uint64_t number;
};

/* --- the rate --------------------------------------------------------------------------------- */

uint64_t flooder_now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

void flooder_pace_init(struct flooder_pace *p, unsigned rate)
{
	*p = (struct flooder_pace){ .rate = rate, .start_ns = flooder_now_ns() };
}

uint64_t flooder_pace_due(struct flooder_pace *p, uint64_t now_ns)
{
	/* A run is minutes at most: ns * rate stays below 2^64 for a day at 200,000/s. */
	uint64_t all = (now_ns - p->start_ns) / 1000 * p->rate / 1000000;
	uint64_t due = all - p->begun - p->left_out;

	if (due > p->rate / LATE_PARTS + 1) {
		p->left_out += due - p->rate / LATE_PARTS - 1;
		due = p->rate / LATE_PARTS + 1;
	}
	return due;
}

void flooder_pace_report(const struct flooder_pace *p, struct flooder_state *s)
{
	s->begun = p->begun;
	s->left_out = p->left_out;
	s->seconds = (double)(flooder_now_ns() - p->start_ns) / 1e9;
}

/* --- one connection --------------------------------------------------------------------------- */

static int dial(struct flooder *f, int *ret_fd)
{
	const struct linger rst = { 1, 0 }; /* close() sends RST */
	uint32_t source = LAB_BOGUS + (uint32_t)(f->number++ % LAB_BOGUS_N);
	int fd, err = dial_from(source, LAB_SERVER, f->o->port, &fd);

	if (err)
		return err;
	if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst))) {
		err = -errno;
		(void)close(fd);
		return err;
	}
	*ret_fd = fd;
	return 0;
}

static int begin(struct flooder *f, uint64_t now)
{
	struct epoll_event e = { .events = EPOLLOUT | EPOLLET };
	struct ring *r = f->ring;
	unsigned at = (r->first + r->n) % FLOODER_OPEN_MAX;
	int ret = dial(f, &r->at[at].fd);

	if (ret)
		return ret;
	r->at[at].begun_ns = now;
	r->n++;
	f->pace.begun++;
	e.data.u32 = at;
	return epoll_ctl(f->epoll, EPOLL_CTL_ADD, r->at[at].fd, &e) ? -errno : 0;
}

/* The handshake is over, or something went wrong, which is all the same to a flood. */
static void speak(struct flooder *f, const struct epoll_event *e)
{
	uint8_t out[BOGUS_BYTES_MAX];
	size_t n;

	if (e->events & (EPOLLERR | EPOLLHUP) || !(e->events & EPOLLOUT))
		return;
	f->s->connected++;
	n = bogus_next(f->o->bogus, out);
	if (n && send(f->ring->at[e->data.u32].fd, out, n, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
		f->s->sent++;
	/* One report of being writable is all that is wanted. */
	(void)epoll_ctl(f->epoll, EPOLL_CTL_DEL, f->ring->at[e->data.u32].fd, NULL);
}

static void end_due(struct flooder *f, uint64_t now, uint64_t hold_ns)
{
	struct ring *r = f->ring;

	while (r->n && now - r->at[r->first].begun_ns >= hold_ns) {
		(void)close(r->at[r->first].fd);
		r->first = (r->first + 1) % FLOODER_OPEN_MAX;
		r->n--;
	}
}

/* --- the process ------------------------------------------------------------------------------ */

static int begin_due(struct flooder *f, uint64_t now)
{
	uint64_t due = flooder_pace_due(&f->pace, now);
	int ret = 0;

	for (unsigned i = 0; !ret && i < due && i < BURST_MAX && f->ring->n < FLOODER_OPEN_MAX; i++)
		ret = begin(f, now);
	return ret;
}

static int turn(struct flooder *f)
{
	struct epoll_event events[EVENTS_MAX];
	uint64_t now = flooder_now_ns();
	int n, ret;

	end_due(f, now, f->o->hold_ms * NS_PER_MS);
	ret = begin_due(f, now);
	if (ret)
		return ret;
	n = epoll_wait(f->epoll, events, EVENTS_MAX,
		       flooder_pace_due(&f->pace, flooder_now_ns()) ? 0 : TURN_MS);
	if (n < 0 && errno != EINTR)
		return -errno;
	for (int i = 0; i < n; i++)
		speak(f, &events[i]);
	return 0;
}

int flooder_run(const struct flooder_options *o, struct flooder_state *s)
{
	struct flooder f = { .o = o, .s = s };
	int ret = 0;

	f.ring = calloc(1, sizeof(*f.ring));
	f.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!f.ring || f.epoll < 0)
		ret = -ENOMEM;
	flooder_pace_init(&f.pace, o->rate);
	while (!ret && !atomic_load(&s->stop))
		ret = turn(&f);
	flooder_pace_report(&f.pace, s);
	if (f.ring)
		end_due(&f, UINT64_MAX, 0);
	free(f.ring);
	if (f.epoll >= 0)
		(void)close(f.epoll);
	if (ret)
		log_error("flood: %s", strerror(-ret));
	return ret ? EX_OSERR : 0;
}
