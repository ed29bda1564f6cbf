// SPDX-License-Identifier: MIT
#include "hsm/server.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "hsm/keys.h"
#include "hsm/wire.h"
#include "userspace/base/log.h"
#include "userspace/crypto/hash.h"

/* While the token is away so long, jobs wait for it; afterwards they are answered at once. */
#define PATIENCE_MS	 250
#define PATIENCE_STEP_MS 20
/* Then it is looked for this often. */
#define RETRY_MS_MIN 100
#define RETRY_MS_MAX 2000
/* Rungs that one job may climb. */
#define RUNGS_MAX 4
/* Packets of one link before the others have their turn. */
#define TURN_PACKETS_MAX 4

struct server {
	const struct server_config *c;
	struct token *t; /* NULL: not opened yet */
	struct keys keys;
	bool ready; /* token and both keys are there, for all we know */
	bool stop;  /* the exit status is decided */
	int exit_status;
	uint64_t outage_ms; /* since when nothing worked; 0: it works */
	uint64_t retry_ms;  /* not looked for before */
	unsigned backoff_ms;
	bool outage_said;
	uint64_t derived; /* since the module was initialised */
	char sign[TOKEN_LABEL_SIZE], sign_next[TOKEN_LABEL_SIZE]; /* "": there is none */
	struct hsm_status_wire status;
	struct pollfd polls[1 + SERVER_LINKS_MAX]; /* the listening socket first */
	unsigned n_links;
	uint8_t in[HSM_PACKET_BYTES_MAX], out[HSM_PACKET_BYTES_MAX];
};

static volatile sig_atomic_t terminated, told_to_look;

static void on_term(int sig)
{
	terminated = 1;
}

static void on_hup(int sig)
{
	told_to_look = 1;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* --- the token, there or not --- */

static void stop(struct server *s, int status)
{
	s->stop = true;
	s->exit_status = status;
}

/* The labels of a role's keys: the current one, and the next or "". */
struct role_labels {
	char current[TOKEN_LABEL_SIZE], next[TOKEN_LABEL_SIZE];
};

static int find_role(struct server *s, const char *role, struct role_labels *ret_l)
{
	struct token_generations g;
	int rc = token_generations(s->t, role, &g);

	if (rc)
		return rc;
	/* Where there is none, who looks for the first is told so. */
	token_generation_label(role, g.n ? g.whole[0] : 1, ret_l->current);
	ret_l->next[0] = '\0';
	if (g.n > 1)
		token_generation_label(role, g.whole[1], ret_l->next);
	return 0;
}

static int identify_signing(struct server *s)
{
	struct p256_point current, next = { 0 };
	struct role_labels l;
	int rc = find_role(s, TOKEN_LABEL_SIGN, &l);

	if (!rc)
		rc = token_signing_public(s->t, l.current, &current);
	if (!rc && l.next[0])
		rc = token_signing_public(s->t, l.next, &next);
	if (rc)
		return rc;
	memcpy(s->status.broker_key, current.b, sizeof(current.b));
	memcpy(s->status.next_broker_key, next.b, sizeof(next.b));
	memcpy(s->sign, l.current, sizeof(s->sign));
	memcpy(s->sign_next, l.next, sizeof(s->sign_next));
	return 0;
}

static int name_unwrapping(struct server *s, const char *label, uint8_t ret_hash[HASH_BYTES])
{
	uint8_t spki[TOKEN_SPKI_BYTES_MAX];
	int n = token_unwrapping_public(s->t, label, spki, sizeof(spki));

	if (n < 0)
		return n;
	hash_one(bytes_of(spki, (size_t)n), ret_hash);
	return 0;
}

static int identify_unwrapping(struct server *s)
{
	uint8_t current[HASH_BYTES], next[HASH_BYTES] = { 0 };
	struct role_labels l;
	int rc = find_role(s, TOKEN_LABEL_UNWRAP, &l);

	if (!rc)
		rc = name_unwrapping(s, l.current, current);
	if (!rc && l.next[0])
		rc = name_unwrapping(s, l.next, next);
	if (rc)
		return rc;
	if (memcmp(next, s->status.next_unwrap_key_hash, sizeof(next)) ||
	    memcmp(current, s->status.unwrap_key_hash, sizeof(current)))
		keys_unwrap_with(&s->keys, l.current, l.next);
	memcpy(s->status.unwrap_key_hash, current, sizeof(current));
	memcpy(s->status.next_unwrap_key_hash, next, sizeof(next));
	return 0;
}

/* The bundle key, where there is one. */
static int identify_bundle_key(struct server *s)
{
	struct p256_point public = { 0 };
	int rc = token_signing_public(s->t, TOKEN_LABEL_BUNDLE, &public);

	if (!rc || rc == -ENOKEY)
		memcpy(s->status.bundle_key, public.b, sizeof(s->status.bundle_key));
	return rc == -ENOKEY ? 0 : rc;
}

/* Who the token is: its keys' public halves, or their names. */
static int identify(struct server *s)
{
	int rc = identify_signing(s);

	if (!rc)
		rc = identify_unwrapping(s);
	if (!rc)
		rc = identify_bundle_key(s);
	return rc;
}

/* keygen may make keys while we run: what was not there is looked for again. A token that is away
 * shows at the next job. Not every module shows what another process has made: see look_anew(). */
static void look_for_keys(struct server *s)
{
	if (!s->status.bundle_key[0])
		(void)identify_bundle_key(s);
	if (!s->sign_next[0])
		(void)identify_signing(s);
	if (!s->keys.with[1][0])
		(void)identify_unwrapping(s);
}

static const char *words(const struct server *s)
{
	return s->t ? token_error(s->t) : token_open_error();
}

static int open_token(struct server *s)
{
	int rc = token_open(&s->c->token, &s->t);

	switch (rc) {
	case 0:
	case -EACCES:
	case -EKEYREJECTED:
	case -ENODEV:
	case -EIO:
		return rc;
	default: /* the PIN file, the label, memory that cannot be locked */
		return -EPERM;
	}
}

/* One rung. 0; -EACCES, -EKEYREJECTED, -EPERM: a person must look; else not now. */
static int climb(struct server *s)
{
	bool lost = false;
	int rc;

	if (!s->t) {
		rc = open_token(s);
	} else {
		rc = token_recover(s->t, &lost);
		s->status.recoveries += !rc;
	}
	if (lost)
		keys_lose(&s->keys);
	return rc ? rc : identify(s);
}

/* True where trying again is not for us to decide. */
static bool final(struct server *s, int rc)
{
	switch (rc) {
	case -EACCES:
		log_error("worker %u: PIN refused: %s", s->c->index, words(s));
		stop(s, EX_NOPERM);
		return true;
	case -EKEYREJECTED: /* said by the process that was refused */
		stop(s, EX_NOPERM);
		return true;
	case -EPERM:
		log_error("worker %u: %s", s->c->index, words(s));
		stop(s, EX_CONFIG);
		return true;
	default:
		return false;
	}
}

/* It did not come back in time: from now on jobs are answered without trying. */
static void lose_patience(struct server *s)
{
	static struct log_limit limit;
	uint64_t left_out;

	s->ready = false;
	s->backoff_ms = s->backoff_ms * 2 < RETRY_MS_MIN ? RETRY_MS_MIN : s->backoff_ms * 2;
	if (s->backoff_ms > RETRY_MS_MAX)
		s->backoff_ms = RETRY_MS_MAX;
	s->retry_ms = now_ms() + s->backoff_ms;
	if (s->outage_said || !log_limit_pass(&limit, now_ms(), &left_out))
		return;
	log_warn("worker %u: token unavailable, looked for until it is back: %s", s->c->index,
		 words(s));
	s->outage_said = true;
}

/* 0: the job may be tried again. */
static int mend(struct server *s)
{
	const struct timespec step = { .tv_nsec = PATIENCE_STEP_MS * 1000000L };

	if (now_ms() < s->retry_ms)
		return -ENODEV;
	if (!s->outage_ms)
		s->outage_ms = now_ms();
	for (;;) {
		int rc = climb(s);

		s->ready = !rc;
		if (!rc || final(s, rc))
			return rc;
		if (now_ms() - s->outage_ms >= PATIENCE_MS)
			break;
		(void)nanosleep(&step, NULL); /* cut short: looked for sooner */
	}
	lose_patience(s);
	return -ENODEV;
}

static void works(struct server *s)
{
	if (s->outage_said)
		log_info("worker %u: token is back after %" PRIu64 " ms", s->c->index,
			 now_ms() - s->outage_ms);
	s->outage_ms = 0;
	s->retry_ms = 0;
	s->backoff_ms = 0;
	s->outage_said = false;
}

/* Before what derived objects leak in the module has grown. Keys are unwrapped again as used. */
static void recycle(struct server *s)
{
	if (s->derived < s->c->recycle_after || !s->ready)
		return;
	keys_lose(&s->keys);
	s->derived = 0;
	if (!token_recycle(s->t))
		return;
	s->ready = false;
	if (!mend(s)) /* which says what is to be said */
		works(s);
}

/* SIGHUP: somebody made keys. SoftHSM does not show them before it is initialised again, where its
 * token.object could not be written at login (hsm/override.h). */
static void look_anew(struct server *s)
{
	int rc;

	told_to_look = 0;
	if (!s->ready)
		return; /* it is looked for anyhow */
	keys_lose(&s->keys);
	s->derived = 0;
	rc = token_recycle(s->t);
	if (!rc)
		rc = identify(s);
	if (!rc) {
		log_info("worker %u: looked at the token anew", s->c->index);
		return;
	}
	s->ready = false;
	if (!mend(s)) /* which says what is to be said */
		works(s);
}

/* --- jobs --- */

static uint32_t rss_kib(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (!f)
		return 0;
	if (fscanf(f, "%*u %lu", &pages) != 1)
		pages = 0;
	(void)fclose(f); /* read only */
	return (uint32_t)(pages * (unsigned long)sysconf(_SC_PAGESIZE) / 1024);
}

static void write_status(struct server *s, struct bytes_writer *w)
{
	look_for_keys(s);
	s->status.blobs = s->keys.blobs.n;
	s->status.session_keys = s->keys.sessions.n;
	s->status.rss_kib = rss_kib();
	hsm_status_encode(&s->status, w);
}

static int convert(struct server *s, const struct hsm_job_wire *j, uint8_t x[P256_X_BYTES])
{
	unsigned long key;
	int rc = keys_handle(&s->keys, s->t, j->grant_id.p, &key);

	/* A key made meanwhile may be the one that it fits. */
	if (rc == -EBADMSG && !s->keys.with[1][0]) {
		look_for_keys(s);
		if (s->keys.with[1][0])
			rc = keys_handle(&s->keys, s->t, j->grant_id.p, &key);
	}
	if (rc)
		return rc;
	s->derived++;
	rc = token_convert(s->t, key, j->point.p, x);
	/* The point was checked: what the token does not like is the key. */
	return rc == -EINVAL ? -EBADMSG : rc;
}

static int sign(struct server *s, const char *label, const struct hsm_job_wire *j,
		struct bytes_writer *w)
{
	uint8_t sig[P256_SIG_BYTES];
	int rc = token_sign(s->t, label, j->digest.p, sig);

	if (rc)
		return rc;
	s->status.signs++;
	bytes_write(w, bytes_of(sig, sizeof(sig)));
	return 0;
}

/* What an operation with a key said that a token need not have. */
static int with_optional(struct server *s, const char *label, int rc)
{
	return rc == -ENOKEY && token_lacks(s->t, label) ? -ENOENT : rc;
}

/* One try. The result goes to w. */
static int attempt(struct server *s, const struct hsm_job_wire *j, struct bytes_writer *w)
{
	uint8_t result[P256_SIG_BYTES];
	int rc;

	if (!s->ready)
		return -ENODEV;
	switch (j->op) {
	case HSM_CONVERT:
		rc = convert(s, j, result);
		if (rc)
			return rc;
		s->status.converts++;
		bytes_write(w, bytes_of(result, P256_X_BYTES));
		return 0;
	case HSM_SIGN:
		return sign(s, s->sign, j, w);
	case HSM_SIGN_NEXT:
		if (!s->sign_next[0])
			look_for_keys(s);
		return s->sign_next[0] ? sign(s, s->sign_next, j, w) : -ENOENT;
	case HSM_OPEN:
		s->derived++;
		rc = token_open_point(s->t, TOKEN_LABEL_BUNDLE, j->point.p, result);
		if (rc)
			return with_optional(s, TOKEN_LABEL_BUNDLE, rc);
		bytes_write(w, bytes_of(result, P256_X_BYTES));
		return 0;
	case HSM_MAC:
		rc = token_mac(s->t, TOKEN_LABEL_IDS, j->digest, result);
		if (rc)
			return with_optional(s, TOKEN_LABEL_IDS, rc);
		bytes_write(w, bytes_of(result, HSM_MAC_BYTES));
		return 0;
	case HSM_STATUS:
		write_status(s, w);
		return 0;
	case HSM_LOAD:
	case HSM_FORGET:
		break;
	}
	return -EINVAL;
}

/* Jobs that need the token: tried, mended, tried again. */
static enum hsm_status run_in_token(struct server *s, const struct hsm_job_wire *j,
				    struct bytes_writer *w)
{
	for (unsigned rungs = 0;; rungs++) {
		int rc = attempt(s, j, w);

		switch (rc) {
		case 0:
			/* A status says so where it is what mended the token: nobody else will. */
			if (j->op != HSM_STATUS || rungs)
				works(s);
			return HSM_OK;
		case -ENOENT:
			return HSM_NO_KEY;
		case -EBADMSG:
			return HSM_BAD_KEY;
		case -ENOKEY:
			/* What is not lost with that handle would stay in the module. */
			keys_release(&s->keys, s->t);
			break;
		default:
			break;
		}
		if (rungs == RUNGS_MAX) {
			lose_patience(s);
			return HSM_UNAVAILABLE;
		}
		if (mend(s))
			return HSM_UNAVAILABLE;
	}
}

static enum hsm_status run(struct server *s, const struct hsm_job_wire *j, struct bytes_writer *w)
{
	switch (j->op) {
	case HSM_LOAD:
		return keys_load(&s->keys, s->t, j->grant_id.p, j->blob) ? HSM_FULL : HSM_OK;
	case HSM_FORGET:
		keys_forget(&s->keys, s->t, j->grant_id.p);
		return HSM_OK;
	case HSM_CONVERT:
	case HSM_OPEN:
		if (p256_point_check(j->point))
			return HSM_BAD_REQUEST;
		return run_in_token(s, j, w);
	case HSM_SIGN:
	case HSM_SIGN_NEXT:
	case HSM_MAC:
	case HSM_STATUS:
		return run_in_token(s, j, w);
	}
	return HSM_BAD_REQUEST;
}

/* --- packets --- */

/* All of them or none: a packet that is not of the protocol has no jobs. */
static int parse(struct bytes packet, struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX], unsigned *ret_n)
{
	struct bytes_reader r;
	unsigned n;
	int rc = hsm_batch_open(packet, 'H', &r, &n);

	for (unsigned i = 0; !rc && i < n; i++)
		rc = hsm_batch_next_job(&r, &jobs[i]);
	if (!rc && (!n || !bytes_read_done(&r)))
		rc = -EBADMSG;
	if (!rc)
		*ret_n = n;
	return rc;
}

/* The answer, in s->out. -EBADMSG: an empty one, and the link is to be closed. */
static int answer(struct server *s, struct bytes packet, size_t *ret_bytes)
{
	struct hsm_job_wire jobs[HSM_BATCH_JOBS_MAX];
	struct hsm_batch b;
	unsigned n = 0;
	int rc = parse(packet, jobs, &n);

	hsm_batch_begin(&b, 'R', s->out, sizeof(s->out));
	for (unsigned i = 0; i < n; i++) {
		uint8_t result[HSM_STATUS_BYTES];
		struct bytes_writer w = bytes_writer_of(result, sizeof(result));
		struct hsm_reply_wire reply = { .tag = jobs[i].tag, .op = jobs[i].op };

		reply.status = run(s, &jobs[i], &w);
		reply.result = bytes_of(result, w.used);
		BUG_ON(!hsm_batch_add_reply(&b, &reply));
	}
	*ret_bytes = hsm_batch_finish(&b);
	return rc;
}

/* One packet. False: the link is done with. */
static bool serve_packet(struct server *s, int fd, bool *ret_more)
{
	/* MSG_TRUNC: the packet's own length, where it is longer than we have room for. */
	ssize_t got = recv(fd, s->in, sizeof(s->in), MSG_DONTWAIT | MSG_TRUNC);
	struct bytes packet;
	size_t bytes;
	int rc;

	*ret_more = false;
	if (got < 0)
		return errno == EAGAIN || errno == EINTR;
	if (!got)
		return false;
	packet = (size_t)got > sizeof(s->in) ? bytes_of(NULL, 0) : bytes_of(s->in, (size_t)got);
	rc = answer(s, packet, &bytes);
	/* A peer that lets its answers pile up gets no more of them. */
	if (send(fd, s->out, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)bytes || rc)
		return false;
	recycle(s);
	*ret_more = true;
	return true;
}

static bool serve_link(struct server *s, int fd)
{
	bool more = true;

	for (unsigned i = 0; more && i < TURN_PACKETS_MAX && !s->stop; i++)
		if (!serve_packet(s, fd, &more))
			return false;
	return true;
}

/* --- links --- */

static bool may_connect(const struct server *s, int fd)
{
	struct ucred peer;
	socklen_t n = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n))
		return false;
	return peer.uid == geteuid() || peer.uid == 0 || peer.uid == s->c->peer_uid;
}

static void accept_link(struct server *s)
{
	static struct log_limit limit;
	const char *why = NULL;
	uint64_t left_out;
	int fd = accept4(s->c->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return; /* the peer left, or descriptors are short: it is there at the next turn */
	if (!may_connect(s, fd))
		why = "a link of another user";
	else if (s->n_links == SERVER_LINKS_MAX)
		why = "too many links";
	if (why) {
		if (log_limit_pass(&limit, now_ms(), &left_out))
			log_warn("worker %u: refused %s, and %" PRIu64 " before it", s->c->index,
				 why, left_out);
		(void)close(fd); /* nothing was sent */
		return;
	}
	s->polls[1 + s->n_links++] = (struct pollfd){ .fd = fd, .events = POLLIN };
}

static void close_link(struct server *s, unsigned i)
{
	(void)close(s->polls[1 + i].fd); /* what was sent was sent */
	s->polls[1 + i] = s->polls[s->n_links--];
}

static void serve_links(struct server *s)
{
	/* Downwards: the last takes the place of one that closes, and has had its turn. */
	for (unsigned i = s->n_links; i-- > 0;)
		if (s->polls[1 + i].revents && !serve_link(s, s->polls[1 + i].fd))
			close_link(s, i);
	if (s->polls[0].revents)
		accept_link(s);
}

/* Until something comes, or the token is to be looked for. */
static int wait_for_work(struct server *s, const sigset_t *mask)
{
	struct timespec timeout = { 0 };
	uint64_t now = now_ms();

	if (!s->ready && s->retry_ms > now) {
		timeout.tv_sec = (time_t)((s->retry_ms - now) / 1000);
		timeout.tv_nsec = (long)((s->retry_ms - now) % 1000 * 1000000);
	}
	return ppoll(s->polls, 1 + s->n_links, s->ready ? NULL : &timeout, mask);
}

static void loop(struct server *s, const sigset_t *mask)
{
	while (!s->stop && !terminated) {
		int n = wait_for_work(s, mask);

		if (n < 0 && errno != EINTR) {
			log_error("worker %u: ppoll: %s", s->c->index, strerror(errno));
			stop(s, EX_OSERR);
		} else if (n > 0) {
			serve_links(s);
		}
		if (told_to_look)
			look_anew(s);
		/* Nobody need ask for the token to be looked for. */
		if (!s->stop && !s->ready && !mend(s))
			works(s);
	}
}

/* No core, no ptrace, no new rights: the PIN is in this memory. */
static int harden(void)
{
	const struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none) || prctl(PR_SET_DUMPABLE, 0) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return 0;
}

/* Both are let in only while we wait, so that a packet is always answered whole. */
static void set_signals(sigset_t *ret_mask)
{
	struct sigaction term = { .sa_handler = on_term };
	struct sigaction hup = { .sa_handler = on_hup };
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGHUP);
	BUG_ON(sigprocmask(SIG_BLOCK, &blocked, ret_mask) || sigdelset(ret_mask, SIGTERM) ||
	       sigdelset(ret_mask, SIGHUP));
	BUG_ON(sigaction(SIGTERM, &term, NULL) || sigaction(SIGINT, &ignore, NULL) ||
	       sigaction(SIGHUP, &hup, NULL));
}

int server_run(const struct server_config *c)
{
	static struct server s;
	sigset_t mask;
	int rc;

	s.c = c;
	s.polls[0] = (struct pollfd){ .fd = c->listen_fd, .events = POLLIN };
	set_signals(&mask);
	rc = harden();
	if (rc) {
		log_error("worker %u: cannot keep its memory private: %s", c->index, strerror(-rc));
		return EX_OSERR;
	}
	if (keys_init(&s.keys, c->keys_max, c->session_keys_max)) {
		log_error("worker %u: no memory for %u keys", c->index, c->keys_max);
		return EX_OSERR;
	}
	if (!mend(&s))
		works(&s);
	loop(&s, &mask);
	while (s.n_links)
		close_link(&s, 0);
	token_close(s.t);
	keys_deinit(&s.keys);
	return s.exit_status;
}
