// SPDX-License-Identifier: MIT
#include "userspace/distributor/hsmlink.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "userspace/base/log.h"

#define NUMBER_DIGITS_MAX 4
#define TICK_MS		  100 /* while jobs are out: their deadlines are looked at so often */

enum link_state { LINK_DOWN, LINK_ASKING, LINK_UP };

struct link {
	unsigned index;	 /* the worker's, in hsm/client.h */
	unsigned number; /* N of hsmd.N.sock */
	enum link_state state;
	int fd;
	size_t to_send; /* of out: filled, and the socket had no room */
	unsigned packets_out;
	uint64_t silent_since_ms;
	uint64_t retry_at_ms, retry_ms;
	bool told; /* that it is another token's; once, until it is up */
	uint8_t out[HSM_PACKET_BYTES_MAX];
	uint8_t in[HSM_PACKET_BYTES_MAX + 1]; /* one more, to see a packet that is too long */
};

struct hsmlink {
	const char *dir;
	struct p256_point signing;
	uint8_t unwrap_key_hash[32];
	struct hsm_client *client;
	uint64_t now_ms;
	unsigned n_up, turn, n;
	struct link links[];
};

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

int hsmlink_new(const char *dir, const struct p256_point *signing,
		const uint8_t unwrap_key_hash[32], struct hsmlink **ret_h)
{
	unsigned numbers[HSM_WORKERS_MAX], n = 0;
	struct sockaddr_un sa;
	struct hsmlink *h;
	int err = find(dir, numbers, &n);

	for (unsigned i = 0; i < n && !err; i++)
		err = address_of(dir, numbers[i], &sa);
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
	h->signing = *signing;
	memcpy(h->unwrap_key_hash, unwrap_key_hash, sizeof(h->unwrap_key_hash));
	h->n = n;
	for (unsigned i = 0; i < n; i++) {
		h->links[i].index = i;
		h->links[i].number = numbers[i];
		h->links[i].fd = -1;
		h->links[i].retry_ms = HSMLINK_RETRY_MS_MIN;
	}
	*ret_h = h;
	return 0;
}

void hsmlink_free(struct hsmlink *h)
{
	if (!h)
		return;
	hsm_client_free(h->client);
	for (unsigned i = 0; i < h->n; i++)
		if (h->links[i].fd >= 0)
			close(h->links[i].fd);
	free(h);
}

/* --- links ------------------------------------------------------------------------------------ */

static void link_down(struct hsmlink *h, struct link *l, const char *why)
{
	if (l->state == LINK_UP) {
		h->n_up--;
		log_warn("hsmd=%u link=down why=\"%s\"", l->number, why);
		hsm_client_down(h->client, l->index);
	} else {
		log_debug("hsmd=%u why=\"%s\"", l->number, why);
	}
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	l->state = LINK_DOWN;
	l->to_send = 0;
	l->packets_out = 0;
	l->retry_at_ms = h->now_ms + l->retry_ms;
	l->retry_ms *= 2;
	if (l->retry_ms > HSMLINK_RETRY_MS_MAX)
		l->retry_ms = HSMLINK_RETRY_MS_MAX;
}

/* A packet goes whole or not at all. */
static void link_send(struct hsmlink *h, struct link *l)
{
	if (!l->to_send)
		return;
	if (send(l->fd, l->out, l->to_send, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		if (errno != EAGAIN && errno != EINTR)
			link_down(h, l, strerror(errno));
		return;
	}
	l->to_send = 0;
	if (l->packets_out++ == 0)
		l->silent_since_ms = h->now_ms;
}

/* Never blocks: a Unix socket is connected at once or not. */
static void link_connect(struct hsmlink *h, struct link *l)
{
	struct hsm_job_wire status = { .op = HSM_STATUS };
	struct sockaddr_un sa;
	struct hsm_batch b;

	BUG_ON(address_of(h->dir, l->number, &sa));
	l->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0 || connect(l->fd, (const struct sockaddr *)&sa, sizeof(sa))) {
		link_down(h, l, strerror(errno));
		return;
	}
	l->state = LINK_ASKING;
	l->silent_since_ms = h->now_ms;
	hsm_batch_begin(&b, 'H', l->out, sizeof(l->out));
	BUG_ON(!hsm_batch_add_job(&b, &status));
	l->to_send = hsm_batch_finish(&b);
	link_send(h, l);
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

/* The operation that signs by the key which the bundle names, or what is different. */
static const char *difference(const struct hsmlink *h, const struct hsm_status_wire *s,
			      enum hsm_op *ret_sign)
{
	if (memcmp(h->unwrap_key_hash, s->unwrap_key_hash, sizeof(s->unwrap_key_hash)) != 0 &&
	    memcmp(h->unwrap_key_hash, s->next_unwrap_key_hash, sizeof(s->unwrap_key_hash)) != 0)
		return "the token's unwrapping key is not the one that the bundle names";
	if (!memcmp(h->signing.b, s->broker_key, sizeof(s->broker_key)))
		*ret_sign = HSM_SIGN;
	else if (!memcmp(h->signing.b, s->next_broker_key, sizeof(s->next_broker_key)))
		*ret_sign = HSM_SIGN_NEXT;
	else
		return "the token's signing key is not the one that the bundle names";
	return NULL;
}

static void link_asked(struct hsmlink *h, struct link *l, struct bytes packet)
{
	struct hsm_status_wire s;
	enum hsm_status status;
	enum hsm_op sign;
	const char *what;

	if (parse_status(packet, &s, &status)) {
		link_down(h, l, "its answer to STATUS is not of the protocol");
		return;
	}
	if (status != HSM_OK) {
		link_down(h, l, "its token does not answer");
		return;
	}
	what = difference(h, &s, &sign);
	if (what) {
		if (!l->told)
			log_error("hsmd=%u what=\"%s\"", l->number, what);
		l->told = true;
		link_down(h, l, what);
		return;
	}
	l->state = LINK_UP;
	l->told = false;
	l->retry_ms = HSMLINK_RETRY_MS_MIN;
	h->n_up++;
	log_info("hsmd=%u link=up", l->number);
	hsm_client_map_signs(h->client, sign, 0);
	hsm_client_up(h->client, l->index);
}

static void link_received(struct hsmlink *h, struct link *l, struct bytes packet)
{
	if (l->packets_out)
		l->packets_out--;
	l->silent_since_ms = h->now_ms;
	if (l->state == LINK_ASKING)
		link_asked(h, l, packet);
	else if (hsm_client_reply(h->client, l->index, packet))
		link_down(h, l, "an answer that is not of the protocol");
}

static void link_receive(struct hsmlink *h, struct link *l)
{
	while (l->state != LINK_DOWN) {
		ssize_t n = recv(l->fd, l->in, sizeof(l->in), MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n > 0 && n <= HSM_PACKET_BYTES_MAX)
			link_received(h, l, bytes_of(l->in, (size_t)n));
		else
			link_down(h, l,
				  n == 0  ? "ended"
				  : n < 0 ? strerror(errno)
					  : "a packet that is too long");
	}
}

/* --- turns ------------------------------------------------------------------------------------ */

void hsmlink_submit(struct hsmlink *h, struct hsm_job *job)
{
	hsm_client_submit(h->client, job);
}

void hsmlink_forget(struct hsmlink *h, const uint8_t grant_id[GRANT_ID_BYTES])
{
	hsm_client_forget(h->client, grant_id);
}

unsigned hsmlink_watch(const struct hsmlink *h, struct pollfd *fds)
{
	for (unsigned i = 0; i < h->n; i++)
		fds[i] = (struct pollfd){
			.fd = h->links[i].fd,
			.events = (short)(POLLIN | (h->links[i].to_send ? POLLOUT : 0)),
		};
	return h->n;
}

void hsmlink_events(struct hsmlink *h, const struct pollfd *fds, uint64_t now_ms)
{
	h->now_ms = now_ms;
	for (unsigned i = 0; i < h->n; i++)
		if (h->links[i].fd >= 0 && h->links[i].fd == fds[i].fd &&
		    fds[i].revents & (POLLIN | POLLHUP | POLLERR))
			link_receive(h, &h->links[i]);
}

static uint64_t link_due_ms(const struct link *l)
{
	switch (l->state) {
	case LINK_DOWN:
		return l->retry_at_ms;
	case LINK_ASKING:
		return l->silent_since_ms + HSMLINK_SILENCE_MS;
	case LINK_UP:
		return l->packets_out ? l->silent_since_ms + HSMLINK_SILENCE_MS : UINT64_MAX;
	}
	return UINT64_MAX;
}

void hsmlink_tick(struct hsmlink *h, uint64_t now_ms)
{
	h->now_ms = now_ms;
	for (unsigned i = 0; i < h->n; i++) {
		struct link *l = &h->links[i];

		if (link_due_ms(l) > now_ms)
			continue;
		if (l->state == LINK_DOWN)
			link_connect(h, l);
		else
			link_down(h, l, "no answer in time");
	}
	hsm_client_tick(h->client, now_ms);
}

void hsmlink_flush(struct hsmlink *h, uint64_t now_ms)
{
	h->now_ms = now_ms;
	h->turn++;
	for (unsigned i = 0; i < h->n; i++) {
		struct link *l = &h->links[(h->turn + i) % h->n];

		if (l->state == LINK_UP && l->to_send == 0)
			l->to_send = hsm_client_fill(h->client, l->index, l->out);
		if (l->state != LINK_DOWN)
			link_send(h, l);
	}
}

uint64_t hsmlink_due_ms(const struct hsmlink *h)
{
	uint64_t at_ms = UINT64_MAX;
	struct hsm_client_stats s;

	for (unsigned i = 0; i < h->n; i++)
		if (link_due_ms(&h->links[i]) < at_ms)
			at_ms = link_due_ms(&h->links[i]);
	hsm_client_stats(h->client, &s);
	if ((s.in_flight || hsm_client_has_work(h->client)) && h->now_ms + TICK_MS < at_ms)
		at_ms = h->now_ms + TICK_MS;
	return at_ms;
}

unsigned hsmlink_up(const struct hsmlink *h)
{
	return h->n_up;
}
