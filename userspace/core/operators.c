// SPDX-License-Identifier: MIT
#include "userspace/core/operators.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "userspace/base/log.h"
#include "userspace/base/words.h"
#include "userspace/core/answer.h"
#include "userspace/core/ring.h"

#define MODE	       0660
#define BACKLOG	       OPERATORS_MAX
#define LOCK_SUFFIX    ".lock"
#define LOCK_TRIES     16
#define LIVE_WAIT_MS   1000
#define LIVE_STEP_MS   50
#define RETRY_MS       1000 /* no descriptor for a peer */
#define SEND_BYTES_MAX (2 * ANSWER_BYTES_MAX)

/* What polls are for: the listening socket first, then the peers. */
#define LISTENING 0
#define SLOTS	  (1 + OPERATORS_MAX)

struct slot {
	int fd;	      /* -1: free */
	uint32_t gen; /* of whom the slot is: completions of the one before are not for it */
	bool armed;
	bool ready; /* its poll says that there is something to do */
	uint64_t used_ms;
	uid_t uid;
};

struct operators {
	struct ring *ring;
	const struct answer_ops *ops;
	void *ctx;
	struct slot slots[SLOTS];
	unsigned last; /* had its turn */
	uint64_t now_ms;
	uint64_t next_ms;  /* nothing is done before */
	uint64_t retry_ms; /* nobody is let in before */
	struct sockaddr_un address;
	char lock_path[sizeof(((struct sockaddr_un *)0)->sun_path) + sizeof(LOCK_SUFFIX)];
	int lock_fd;
	dev_t dev; /* of the socket's name */
	ino_t ino;
	struct answer answer;
};

const char *operators_explain(int error)
{
	switch (-error) {
	case EADDRINUSE:
		return "is in use by another broker, or by another program";
	case ENOTSOCK:
		return "something stands there that is no socket";
	case ENAMETOOLONG:
		return "is longer than the 107 bytes that a socket's name may have";
	case ENOENT:
		return "its folder does not exist";
	default:
		return strerror(-error);
	}
}

/* --- the name --------------------------------------------------------------------------------- */

/* Is what was locked still what stands there? Its last owner removes it. */
static bool is_at(int fd, const char *path)
{
	struct stat locked, there;

	return !fstat(fd, &locked) && !lstat(path, &there) && locked.st_dev == there.st_dev &&
	       locked.st_ino == there.st_ino;
}

static int take_lock(const char *path, int *ret_fd)
{
	for (unsigned i = 0; i < LOCK_TRIES; i++) {
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		int err = 0;

		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB))
			err = errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
		else if (is_at(fd, path)) {
			*ret_fd = fd;
			return 0;
		}
		close(fd);
		if (err)
			return err;
	}
	return -EADDRINUSE;
}

/* 1: somebody listens; 0: nobody; -errno: it cannot be told. */
static int answers(const struct sockaddr_un *a)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int err;

	if (fd < 0)
		return -errno;
	err = connect(fd, (const struct sockaddr *)a, sizeof(*a)) ? errno : 0;
	close(fd);
	switch (err) {
	case ECONNREFUSED:
	case ENOENT:
		return 0;
	case 0:
	case EAGAIN:	 /* its queue is full */
	case EPROTOTYPE: /* a socket of another type, that somebody has */
		return 1;
	default:
		return -err;
	}
}

/*
 * We have the lock, so no broker lives there. What still answers may be one that was killed: the
 * kernel takes its ring down, and with it the socket, some milliseconds behind the process.
 */
static int remove_stale(const struct sockaddr_un *a)
{
	const struct timespec step = { .tv_nsec = LIVE_STEP_MS * 1000000 };
	struct stat st;
	int live;

	if (lstat(a->sun_path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	live = answers(a);
	for (unsigned ms = 0; live > 0 && ms < LIVE_WAIT_MS; ms += LIVE_STEP_MS) {
		nanosleep(&step, NULL);
		live = answers(a);
	}
	if (live)
		return live > 0 ? -EADDRINUSE : live;
	return unlink(a->sun_path) && errno != ENOENT ? -errno : 0;
}

static int listen_at(struct operators *o, int fd)
{
	struct stat st;

	if (bind(fd, (const struct sockaddr *)&o->address, sizeof(o->address)))
		return -errno;
	/* Nobody gets in before listen(), so the mode is right in time. */
	if (chmod(o->address.sun_path, MODE) || lstat(o->address.sun_path, &st) ||
	    listen(fd, BACKLOG)) {
		int err = -errno;

		(void)unlink(o->address.sun_path); /* ours: it was bound just now */
		return err;
	}
	o->dev = st.st_dev;
	o->ino = st.st_ino;
	return 0;
}

static void remove_name(const struct operators *o)
{
	struct stat st;

	if (!lstat(o->address.sun_path, &st) && st.st_dev == o->dev && st.st_ino == o->ino)
		(void)unlink(o->address.sun_path); /* the next broker replaces it */
}

static int open_listener(struct operators *o)
{
	int fd, err = remove_stale(&o->address);

	if (err)
		return err;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	err = listen_at(o, fd);
	if (err) {
		close(fd);
		return err;
	}
	o->slots[LISTENING].fd = fd;
	return 0;
}

/* --- polls ------------------------------------------------------------------------------------ */

static void complete(void *ctx, const struct ring_done *d)
{
	struct operators *o = ctx;
	struct slot *s;

	BUG_ON(d->index >= SLOTS);
	s = &o->slots[d->index];
	if (d->gen != s->gen)
		return; /* of a peer that is gone */
	s->armed = false;
	s->ready = true; /* whatever it was: the system call will tell */
}

/* One-shot polls look again each time they are armed, so nothing must be read to the end. */
static void arm(struct operators *o)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *s = &o->slots[i];
		struct io_uring_sqe *sqe;

		if (s->fd < 0 || s->armed || s->ready ||
		    (i == LISTENING && o->now_ms < o->retry_ms))
			continue;
		sqe = ring_sqe(o->ring);
		if (!sqe)
			return; /* the next turn */
		io_uring_prep_poll_add(sqe, s->fd, POLLIN);
		ring_tag(sqe, RING_OPERATOR, s->gen, i);
		s->armed = true;
	}
}

/* --- peers ------------------------------------------------------------------------------------ */

static void drop(struct slot *s)
{
	/* An armed poll holds the socket open; this lets the poll and the peer know. */
	(void)shutdown(s->fd, SHUT_RDWR); /* ENOTCONN: it left first */
	close(s->fd);
	*s = (struct slot){ .fd = -1, .gen = (s->gen + 1) & RING_GEN_MASK };
}

/* A free one; else that of the peer that was silent longest, one that waits for an answer last. */
static struct slot *make_room(struct operators *o)
{
	struct slot *oldest = o->slots + 1;

	for (struct slot *s = o->slots + 1; s < o->slots + SLOTS; s++) {
		if (s->fd < 0)
			return s;
		if (s->ready < oldest->ready ||
		    (s->ready == oldest->ready && s->used_ms < oldest->used_ms))
			oldest = s;
	}
	drop(oldest);
	return oldest;
}

static void let_in(struct operators *o)
{
	int fd = accept4(o->slots[LISTENING].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int send_bytes = SEND_BYTES_MAX;
	struct ucred peer;
	socklen_t n = sizeof(peer);
	struct slot *s;

	if (fd < 0) {
		/* It left, or there is no descriptor or memory: the queue would be ready for ever.
		 */
		if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
			o->retry_ms = o->now_ms + RETRY_MS;
		return;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(send_bytes))) {
		close(fd);
		return;
	}
	s = make_room(o);
	s->fd = fd;
	s->uid = peer.uid;
	s->used_ms = o->now_ms;
}

/* Bans are said, with who made them. */
static void log_change(const struct slot *s, struct bytes request)
{
	char text[ANSWER_REQUEST_BYTES_MAX + 1];
	struct bytes line = words_line(&request);

	log_info("event=operator uid=%u request=\"%s\"", s->uid,
		 words_copy(line, text, sizeof(text)));
}

static bool reply(const struct operators *o, const struct slot *s)
{
	return send(s->fd, o->answer.text, o->answer.n, MSG_DONTWAIT | MSG_NOSIGNAL) ==
	       (ssize_t)o->answer.n;
}

/* One request. False: the peer is done with. */
static bool serve(struct operators *o, struct slot *s)
{
	uint8_t packet[ANSWER_REQUEST_BYTES_MAX];
	struct bytes request;
	/* MSG_TRUNC: the packet's own length, where it is longer than we have room for. */
	ssize_t got = recv(s->fd, packet, sizeof(packet), MSG_DONTWAIT | MSG_TRUNC);

	if (got < 0)
		return errno == EAGAIN || errno == EINTR;
	if (!got || (size_t)got > sizeof(packet))
		return false; /* the end, or no request of any kind */
	s->used_ms = o->now_ms;
	request = bytes_of(packet, (size_t)got);
	answer_request(o->ops, o->ctx, request, &o->answer);
	if (o->answer.changed)
		log_change(s, request);
	return reply(o, s);
}

static uint64_t clock_us(void)
{
	struct timespec ts;

	BUG_ON(clock_gettime(CLOCK_MONOTONIC, &ts));
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* What is ready, each in its turn. */
static struct slot *next_ready(struct operators *o)
{
	for (unsigned i = 1; i <= SLOTS; i++) {
		unsigned at = (o->last + i) % SLOTS;

		if (o->slots[at].ready) {
			o->last = at;
			return &o->slots[at];
		}
	}
	return NULL;
}

static void do_one(struct operators *o)
{
	uint64_t begin_us = clock_us(), share_ms;
	struct slot *s = next_ready(o);

	if (!s)
		return;
	s->ready = false;
	if (s == &o->slots[LISTENING])
		let_in(o);
	else if (!serve(o, s))
		drop(s);
	share_ms = (clock_us() - begin_us) * OPERATORS_SHARE / 1000;
	o->next_ms = o->now_ms + (share_ms > OPERATORS_GAP_MS ? share_ms : OPERATORS_GAP_MS);
}

void operators_turn(struct operators *o, uint64_t now_ms)
{
	o->now_ms = now_ms;
	if (now_ms >= o->next_ms)
		do_one(o);
	arm(o);
}

static uint64_t until(const struct operators *o, uint64_t at_ms)
{
	return at_ms > o->now_ms ? at_ms - o->now_ms : 0;
}

uint64_t operators_wait_ms(const struct operators *o)
{
	const struct slot *l = &o->slots[LISTENING];
	uint64_t ms = !l->armed && !l->ready ? until(o, o->retry_ms) : UINT64_MAX;

	for (unsigned i = 0; i < SLOTS; i++)
		if (o->slots[i].ready && until(o, o->next_ms) < ms)
			ms = until(o, o->next_ms);
	return ms;
}

/* --- life ------------------------------------------------------------------------------------- */

int operators_new(const char *path, struct ring *r, const struct answer_ops *ops, void *ctx,
		  struct operators **ret_o)
{
	size_t n = strlen(path);
	struct operators *o;
	int err;

	if (!n || n >= sizeof(o->address.sun_path))
		return n ? -ENAMETOOLONG : -EINVAL;
	o = calloc(1, sizeof(*o));
	if (!o)
		return -ENOMEM;
	o->ring = r;
	o->ops = ops;
	o->ctx = ctx;
	for (unsigned i = 0; i < SLOTS; i++)
		o->slots[i].fd = -1;
	o->address.sun_family = AF_UNIX;
	memcpy(o->address.sun_path, path, n + 1);
	snprintf(o->lock_path, sizeof(o->lock_path), "%s" LOCK_SUFFIX, path);
	err = take_lock(o->lock_path, &o->lock_fd);
	if (err)
		goto free_operators;
	err = open_listener(o);
	if (err)
		goto unlock;
	ring_on(r, RING_OPERATOR, complete, o);
	*ret_o = o;
	return 0;
unlock:
	(void)unlink(o->lock_path); /* while it is ours */
	close(o->lock_fd);
free_operators:
	free(o);
	return err;
}

void operators_free(struct operators *o)
{
	if (!o)
		return;
	remove_name(o);
	for (unsigned i = 0; i < SLOTS; i++)
		if (o->slots[i].fd >= 0)
			drop(&o->slots[i]);
	(void)unlink(o->lock_path); /* while it is ours; left behind, it does no harm */
	close(o->lock_fd);
	free(o);
}
