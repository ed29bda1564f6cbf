// SPDX-License-Identifier: MIT
#include "userspace/core/hsmlink.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "userspace/base/log.h"
#include "userspace/broker/broker.h"

#define NUMBER_DIGITS_MAX 4
#define TICK_MS		  100 /* while jobs are out: their deadlines are looked at so often */
#define WORDS_BYTES	  256

enum link_state { LINK_DOWN, LINK_ASKING, LINK_UP, LINK_CLOSING };

struct hsm_link {
	struct hsmlink *owner;
	unsigned index;	 /* the worker's, in hsm/client.h */
	unsigned number; /* N of hsmd.N.sock */
	enum link_state state;
	int fd;
	uint32_t gen;
	bool recv_out, send_out;
	size_t to_send;	      /* filled, and waiting for the ring */
	unsigned packets_out; /* sent and not answered */
	bool ask_due, asking; /* STATUS, while it is up */
	unsigned before_told; /* packets that are answered before it is */
	uint64_t silent_since_ms;
	uint64_t retry_at_ms, retry_ms;
	bool told; /* that it is another token's; once, until it is up */
	uint8_t out[HSM_PACKET_BYTES_MAX];
	uint8_t in[HSM_PACKET_BYTES_MAX + 1]; /* one more, to see a packet that is too long */
};

struct hsmlink {
	const char *dir;
	struct ring *ring;
	struct pool *pool;
	struct hsmlink_keys keys;
	void (*done)(void *ctx, struct broker_token_job *job);
	void *ctx;
	struct hsm_client *client;	  /* NULL once stopped */
	struct broker_token_job *refused; /* there was no memory for them; through job->owner */
	struct hsm_status_wire token;	  /* as last told; all workers have the same */
	uint64_t now_ms;
	unsigned n_up, turn;
	bool mismatch;
	char trouble[WORDS_BYTES];
	unsigned n;
	struct hsm_link links[];
};

/* A token job on its way through the client. */
struct call {
	struct hsm_job hsm;
	struct broker_token_job *job;
};

static ring_complete_fn complete_recv, complete_send;

/* --- finding the sockets ---------------------------------------------------------------------- */

/* hsmd.N.sock, N in decimal without leading zeros. */
static bool parse_name(const char *name, unsigned *ret_number)
{
	static const char head[] = "hsmd.";
	const char *digits = name + sizeof(head) - 1;
	size_t n;

	if (strncmp(name, head, sizeof(head) - 1))
		return false;
	n = strspn(digits, "0123456789");
	if (n < 1 || n > NUMBER_DIGITS_MAX || (n > 1 && digits[0] == '0') ||
	    strcmp(digits + n, ".sock"))
		return false;
	*ret_number = (unsigned)strtoul(digits, NULL, 10);
	return true;
}

static int compare_numbers(const void *a, const void *b)
{
	unsigned na = *(const unsigned *)a, nb = *(const unsigned *)b;

	return na < nb ? -1 : na > nb;
}

static int find(const char *dir, unsigned numbers[HSM_WORKERS_MAX], unsigned *ret_n)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	unsigned n = 0;

	if (!d)
		return -errno;
	while (n < HSM_WORKERS_MAX && (e = readdir(d)))
		n += parse_name(e->d_name, &numbers[n]);
	closedir(d);
	if (n == 0)
		return -ENOENT;
	qsort(numbers, n, sizeof(numbers[0]), compare_numbers);
	*ret_n = n;
	return 0;
}

static int address_of(const char *dir, unsigned number, struct sockaddr_un *ret_sa)
{
	int n;

	*ret_sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	n = snprintf(ret_sa->sun_path, sizeof(ret_sa->sun_path), "%s/hsmd.%u.sock", dir, number);
	return (size_t)n < sizeof(ret_sa->sun_path) ? 0 : -ENAMETOOLONG;
}

int hsmlink_new(const char *dir, struct ring *ring, struct pool *pool,
		const struct hsmlink_keys *keys,
		void (*done)(void *ctx, struct broker_token_job *job), void *ctx,
		struct hsmlink **ret_h)
{
	unsigned numbers[HSM_WORKERS_MAX], n = 0;
	struct sockaddr_un sa;
	struct hsmlink *h;
	int err = find(dir, numbers, &n);

	if (!err)
		err = address_of(dir, numbers[n - 1], &sa);
	if (err)
		return err;
	h = calloc(1, sizeof(*h) + n * sizeof(h->links[0]));
	if (!h)
		return -ENOMEM;
	h->client = hsm_client_new(n, h);
	if (!h->client) {
		free(h);
		return -ENOMEM;
	}
	h->dir = dir;
	h->ring = ring;
	h->pool = pool;
	h->keys = *keys;
	h->done = done;
	h->ctx = ctx;
	h->n = n;
	for (unsigned i = 0; i < n; i++) {
		h->links[i].owner = h;
		h->links[i].index = i;
		h->links[i].number = numbers[i];
		h->links[i].fd = -1;
		h->links[i].retry_ms = HSMLINK_RETRY_MS_MIN;
	}
	ring_on(ring, RING_LINK_RECV, complete_recv, h);
	ring_on(ring, RING_LINK_SEND, complete_send, h);
	*ret_h = h;
	return 0;
}

/* --- links ------------------------------------------------------------------------------------ */

static void release_if_idle(struct hsm_link *l)
{
	if (l->state != LINK_CLOSING || l->recv_out || l->send_out)
		return;
	close(l->fd);
	l->fd = -1;
	l->gen = (l->gen + 1) & RING_GEN_MASK;
	l->state = LINK_DOWN;
}

/* Keeps the reason for whoever waits for a first link, and sets the time of the next attempt. */
static void link_failed(struct hsm_link *l, const char *why)
{
	snprintf(l->owner->trouble, sizeof(l->owner->trouble), "hsmd.%u.sock: %s", l->number, why);
	l->retry_at_ms = l->owner->now_ms + l->retry_ms;
	l->retry_ms *= 2;
	if (l->retry_ms > HSMLINK_RETRY_MS_MAX)
		l->retry_ms = HSMLINK_RETRY_MS_MAX;
}

static void link_down(struct hsm_link *l, const char *why)
{
	struct hsmlink *h = l->owner;

	BUG_ON(l->state != LINK_ASKING && l->state != LINK_UP);
	if (l->state == LINK_UP) {
		h->n_up--;
		if (h->client) {
			log_warn("hsmd=%u link=down why=\"%s\"", l->number, why);
			hsm_client_down(h->client, l->index);
		}
	}
	l->state = LINK_CLOSING;
	l->to_send = 0;
	l->packets_out = 0;
	l->ask_due = false;
	l->asking = false;
	link_failed(l, why);
	(void)shutdown(l->fd, SHUT_RDWR); /* ends what is in flight; it may have ended already */
	release_if_idle(l);
}

static void link_receive(struct hsm_link *l)
{
	struct io_uring_sqe *sqe;

	if (l->recv_out || (l->state != LINK_ASKING && l->state != LINK_UP))
		return;
	sqe = ring_sqe(l->owner->ring);
	if (!sqe)
		return; /* the next turn */
	io_uring_prep_recv(sqe, l->fd, l->in, sizeof(l->in), 0);
	ring_tag(sqe, RING_LINK_RECV, l->gen, l->index);
	l->recv_out = true;
}

static void link_send(struct hsm_link *l)
{
	struct io_uring_sqe *sqe;

	if (l->send_out || l->to_send == 0)
		return;
	sqe = ring_sqe(l->owner->ring);
	if (!sqe)
		return; /* the next turn */
	io_uring_prep_send(sqe, l->fd, l->out, l->to_send, MSG_NOSIGNAL);
	ring_tag(sqe, RING_LINK_SEND, l->gen, l->index);
	l->send_out = true;
	l->to_send = 0;
	if (l->packets_out++ == 0)
		l->silent_since_ms = l->owner->now_ms;
}

/* Never blocks: a Unix socket is connected at once or not. The ring then wants it blocking, or its
 * operations would answer EAGAIN in place of waiting. */
static int connect_now(const char *dir, unsigned number, int *ret_fd)
{
	struct sockaddr_un sa;
	int fd, err = address_of(dir, number, &sa);

	if (err)
		return err;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) || fcntl(fd, F_SETFL, 0)) {
		err = -errno;
		close(fd);
		return err;
	}
	*ret_fd = fd;
	return 0;
}

static void put_status(struct hsm_link *l)
{
	struct hsm_job_wire status = { .op = HSM_STATUS };
	struct hsm_batch b;

	hsm_batch_begin(&b, 'H', l->out, sizeof(l->out));
	BUG_ON(!hsm_batch_add_job(&b, &status));
	l->to_send = hsm_batch_finish(&b);
}

static void link_connect(struct hsm_link *l)
{
	int err = connect_now(l->owner->dir, l->number, &l->fd);

	if (err) {
		l->fd = -1;
		link_failed(l, strerror(-err));
		return;
	}
	l->state = LINK_ASKING;
	l->silent_since_ms = l->owner->now_ms;
	put_status(l);
}

/* --- answers ---------------------------------------------------------------------------------- */

static int parse_status(struct bytes packet, struct hsm_status_wire *ret_s,
			enum hsm_status *ret_status)
{
	struct hsm_reply_wire reply;
	struct bytes_reader r;
	unsigned n;

	if (hsm_batch_open(packet, 'R', &r, &n) || n != 1 || hsm_batch_next_reply(&r, &reply) ||
	    !bytes_read_done(&r) || reply.op != HSM_STATUS)
		return -EBADMSG;
	*ret_status = reply.status;
	return reply.status == HSM_OK ? hsm_status_decode(reply.result, ret_s) : 0;
}

/* The operation that signs by this key; 0: the token has it neither as its key nor as the next. */
static enum hsm_op signs_by(const struct hsm_status_wire *token, const struct p256_point *key)
{
	if (!memcmp(key->b, token->broker_key, sizeof(key->b)))
		return HSM_SIGN;
	return memcmp(key->b, token->next_broker_key, sizeof(key->b)) ? 0 : HSM_SIGN_NEXT;
}

static bool unwraps_by(const struct hsm_status_wire *token, const uint8_t hash[32])
{
	return !memcmp(hash, token->unwrap_key_hash, 32) ||
	       !memcmp(hash, token->next_unwrap_key_hash, 32);
}

static const char *difference(const struct hsmlink_keys *k, const struct hsm_status_wire *s)
{
	if (!signs_by(s, &k->broker) && !(k->has_next && signs_by(s, &k->next)))
		return "the token's signing key is not the one that the bundle names";
	if (!unwraps_by(s, k->unwrap_key_hash))
		return "the token's unwrapping key is not the one that the bundle names";
	return NULL;
}

static void map_signs(struct hsmlink *h)
{
	hsm_client_map_signs(h->client, signs_by(&h->token, &h->keys.broker),
			     h->keys.has_next ? signs_by(&h->token, &h->keys.next) : 0);
}

/* False: it has gone down. */
static bool link_told(struct hsm_link *l, struct bytes packet)
{
	struct hsmlink *h = l->owner;
	struct hsm_status_wire s;
	enum hsm_status status;
	const char *what;

	if (parse_status(packet, &s, &status)) {
		link_down(l, "its answer to STATUS is not of the protocol");
		return false;
	}
	if (status != HSM_OK) {
		link_down(l, "its token does not answer");
		return false;
	}
	what = difference(&h->keys, &s);
	if (what) {
		if (!l->told)
			log_error("hsmd=%u what=\"%s\"", l->number, what);
		l->told = true;
		h->mismatch = true;
		link_down(l, what);
		return false;
	}
	h->token = s;
	map_signs(h);
	return true;
}

static void link_asked(struct hsm_link *l, struct bytes packet)
{
	struct hsmlink *h = l->owner;

	if (!link_told(l, packet))
		return;
	l->state = LINK_UP;
	l->told = false;
	l->retry_ms = HSMLINK_RETRY_MS_MIN;
	h->n_up++;
	log_info("hsmd=%u link=up", l->number);
	hsm_client_up(h->client, l->index);
}

static void link_received(struct hsm_link *l, struct bytes packet)
{
	struct hsmlink *h = l->owner;

	if (l->packets_out)
		l->packets_out--;
	l->silent_since_ms = h->now_ms;
	if (l->state == LINK_ASKING) {
		link_asked(l, packet);
		return;
	}
	if (l->asking && !l->before_told) {
		l->asking = false;
		(void)link_told(l, packet); /* where it goes down, that is all there is to do */
		return;
	}
	l->before_told -= l->asking;
	if (hsm_client_reply(h->client, l->index, packet))
		link_down(l, "an answer that is not of the protocol");
}

static void complete_recv(void *ctx, const struct ring_done *d)
{
	struct hsmlink *h = ctx;
	struct hsm_link *l = &h->links[d->index];

	BUG_ON(d->index >= h->n || d->gen != l->gen);
	l->recv_out = false;
	if (l->state == LINK_CLOSING)
		release_if_idle(l);
	else if (d->res > 0 && d->res <= HSM_PACKET_BYTES_MAX)
		link_received(l, bytes_of(l->in, (size_t)d->res));
	else if (d->res != -EINTR)
		link_down(l, d->res == 0  ? "ended"
			     : d->res < 0 ? strerror(-d->res)
					  : "a packet that is too long");
	link_receive(l);
}

static void complete_send(void *ctx, const struct ring_done *d)
{
	struct hsmlink *h = ctx;
	struct hsm_link *l = &h->links[d->index];

	BUG_ON(d->index >= h->n || d->gen != l->gen);
	l->send_out = false;
	if (l->state == LINK_CLOSING)
		release_if_idle(l);
	else if (d->res < 0) /* a packet goes whole or not at all */
		link_down(l, strerror(-d->res));
}

/* --- jobs ------------------------------------------------------------------------------------- */

static enum broker_token_status token_status(enum hsm_status status)
{
	switch (status) {
	case HSM_OK:
		return BROKER_TOKEN_OK;
	case HSM_BAD_REQUEST:
	case HSM_BAD_KEY:
		return BROKER_TOKEN_REFUSED;
	case HSM_NO_KEY: /* forgotten while it was out, or not made yet */
	case HSM_FULL:
	case HSM_UNAVAILABLE:
		break;
	}
	return BROKER_TOKEN_UNAVAILABLE;
}

static void job_done(void *ctx, struct hsm_job *hsm)
{
	struct hsmlink *h = ctx;
	struct call *call = container_of(hsm, struct call, hsm);
	struct broker_token_job *job = call->job;

	job->status = token_status(hsm->status);
	if (hsm->status == HSM_OK)
		memcpy(job->output, hsm->output, sizeof(job->output));
	pool_free(h->pool, call);
	h->done(h->ctx, job);
}

static enum hsm_op op_of(const struct broker_token_job *job)
{
	switch (job->op) {
	case BROKER_TOKEN_CONVERT:
		return HSM_CONVERT;
	case BROKER_TOKEN_OPEN:
		return HSM_OPEN;
	case BROKER_TOKEN_SIGN:
		break;
	}
	return job->next ? HSM_SIGN_NEXT : HSM_SIGN;
}

void hsmlink_submit(struct hsmlink *h, struct broker_token_job *job)
{
	struct call *call = h->client ? pool_zalloc(h->pool, sizeof(*call)) : NULL;

	if (!call) {
		job->owner = h->refused;
		h->refused = job;
		return;
	}
	call->job = job;
	call->hsm.op = op_of(job);
	memcpy(call->hsm.grant_id, job->grant_id, sizeof(call->hsm.grant_id));
	memcpy(call->hsm.input, job->input, sizeof(call->hsm.input));
	call->hsm.blob = job->blob;
	call->hsm.deadline_ms = job->deadline_ms;
	call->hsm.done = job_done;
	hsm_client_submit(h->client, &call->hsm);
}

/* Those that were there; what is submitted meanwhile waits for the next time. */
static void give_back_refused(struct hsmlink *h)
{
	struct broker_token_job *next = h->refused;

	h->refused = NULL;
	while (next) {
		struct broker_token_job *job = next;

		next = job->owner;
		job->status = BROKER_TOKEN_UNAVAILABLE;
		h->done(h->ctx, job);
	}
}

void hsmlink_forget(struct hsmlink *h, const uint8_t grant_id[GRANT_ID_BYTES])
{
	if (h->client)
		hsm_client_forget(h->client, grant_id);
}

/* --- turns ------------------------------------------------------------------------------------ */

static uint64_t link_due_ms(const struct hsm_link *l)
{
	switch (l->state) {
	case LINK_DOWN:
		return l->retry_at_ms;
	case LINK_ASKING:
		return l->silent_since_ms + HSMLINK_SILENCE_MS;
	case LINK_UP:
		return l->packets_out ? l->silent_since_ms + HSMLINK_SILENCE_MS : UINT64_MAX;
	case LINK_CLOSING:
		break;
	}
	return UINT64_MAX;
}

void hsmlink_tick(struct hsmlink *h, uint64_t now_ms)
{
	h->now_ms = now_ms;
	if (!h->client)
		return;
	for (unsigned i = 0; i < h->n; i++) {
		struct hsm_link *l = &h->links[i];

		if (link_due_ms(l) > now_ms)
			continue;
		if (l->state == LINK_DOWN)
			link_connect(l);
		else
			link_down(l, "no answer in time");
	}
	hsm_client_tick(h->client, now_ms);
	give_back_refused(h);
}

/* A worker answers in order: what is out already is answered before this question. */
static void link_fill(struct hsm_link *l)
{
	if (!l->ask_due) {
		l->to_send = hsm_client_fill(l->owner->client, l->index, l->out);
		return;
	}
	put_status(l);
	l->ask_due = false;
	l->asking = true;
	l->before_told = l->packets_out;
}

void hsmlink_flush(struct hsmlink *h)
{
	h->turn++;
	for (unsigned i = 0; i < h->n && h->client; i++) {
		struct hsm_link *l = &h->links[(h->turn + i) % h->n];

		if (l->state == LINK_UP && !l->send_out && l->to_send == 0)
			link_fill(l);
		link_send(l);
		link_receive(l);
	}
}

uint64_t hsmlink_wait_ms(const struct hsmlink *h)
{
	uint64_t at_ms = UINT64_MAX;
	struct hsm_client_stats s;

	if (!h->client)
		return UINT64_MAX;
	for (unsigned i = 0; i < h->n; i++)
		if (link_due_ms(&h->links[i]) < at_ms)
			at_ms = link_due_ms(&h->links[i]);
	hsm_client_stats(h->client, &s);
	if (s.in_flight || hsm_client_has_work(h->client) || h->refused)
		at_ms = at_ms < h->now_ms + TICK_MS ? at_ms : h->now_ms + TICK_MS;
	if (at_ms == UINT64_MAX)
		return UINT64_MAX;
	return at_ms > h->now_ms ? at_ms - h->now_ms : 0;
}

bool hsmlink_bundle_key(const struct hsmlink *h, struct p256_point *ret_key)
{
	if (bytes_is_zero(bytes_of(h->token.bundle_key, sizeof(h->token.bundle_key))))
		return false;
	memcpy(ret_key->b, h->token.bundle_key, sizeof(ret_key->b));
	return true;
}

void hsmlink_ask(struct hsmlink *h)
{
	for (unsigned i = 0; i < h->n; i++)
		if (h->links[i].state == LINK_UP && !h->links[i].asking)
			h->links[i].ask_due = true;
}

bool hsmlink_asking(const struct hsmlink *h)
{
	for (unsigned i = 0; i < h->n; i++)
		if (h->links[i].ask_due || h->links[i].asking)
			return true;
	return false;
}

/* Of the next key more is asked than of a link: who takes a bundle that names one will need it. */
const char *hsmlink_lacks(const struct hsmlink *h, const struct hsmlink_keys *keys)
{
	if (keys->has_next && !signs_by(&h->token, &keys->next))
		return "the token does not have the next signing key that the bundle names";
	return difference(keys, &h->token);
}

void hsmlink_rekey(struct hsmlink *h, const struct hsmlink_keys *keys)
{
	h->keys = *keys;
	if (h->client)
		map_signs(h);
}

unsigned hsmlink_count(const struct hsmlink *h)
{
	return h->n;
}

unsigned hsmlink_up(const struct hsmlink *h)
{
	return h->n_up;
}

bool hsmlink_mismatch(const struct hsmlink *h)
{
	return h->mismatch;
}

const char *hsmlink_trouble(const struct hsmlink *h)
{
	return h->trouble;
}

void hsmlink_stats(const struct hsmlink *h, struct hsm_client_stats *ret_s)
{
	*ret_s = (struct hsm_client_stats){ 0 };
	if (h->client)
		hsm_client_stats(h->client, ret_s);
}

bool hsmlink_stop(struct hsmlink *h)
{
	struct hsm_client *client = h->client;
	bool some = client || h->refused;

	/* Jobs submitted from within a done() are refused from here on. */
	h->client = NULL;
	hsm_client_free(client);
	give_back_refused(h);
	for (unsigned i = 0; i < h->n; i++)
		if (h->links[i].state == LINK_ASKING || h->links[i].state == LINK_UP)
			link_down(&h->links[i], "stopping");
	return some;
}

void hsmlink_free(struct hsmlink *h)
{
	if (!h)
		return;
	BUG_ON(h->client);
	for (unsigned i = 0; i < h->n; i++)
		if (h->links[i].fd >= 0)
			close(h->links[i].fd);
	free(h);
}
