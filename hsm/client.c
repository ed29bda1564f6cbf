// SPDX-License-Identifier: MIT
/*
 *   submit ──► queue of the grant's home, or signs ──fill──► packet out at a worker ──reply──►
 * finished ▲                                              │                                │
 *                 └──────────────── down, HSM_NO_KEY ────────────┘              done(), in drain()
 * only
 *
 * A job stands in exactly one place: a queue, a slot of a packet, or finished. done() is called
 * from one loop that holds no other state, so it may call back into the client.
 */
#include "hsm/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hsm/lru.h"

/* What stands in a packet that is out. */
struct sent {
	struct hsm_job *job; /* NULL: a LOAD or FORGET, or the job was completed meanwhile */
	uint32_t tag;
	enum hsm_op op;
	uint8_t grant_id[GRANT_ID_BYTES];
};

struct packet {
	unsigned n;
	bool suspect; /* one job that may be what kills workers: nothing else is sent beside it */
	struct sent sent[HSM_BATCH_JOBS_MAX];
};

struct worker {
	bool up;
	unsigned first, n_packets; /* a ring */
	struct packet packets[HSM_PACKETS_IN_FLIGHT];
	struct list queue; /* CONVERTs of the grants at home here */
	uint32_t queued;
};

/* What the workers know of a grant, a bit for each. */
struct grant {
	uint64_t loaded;  /* its blob should be there */
	uint64_t sent;	  /* a LOAD went there since it connected, and no FORGET after it */
	uint64_t forget;  /* a FORGET is still to be sent */
	struct list link; /* in forgets while forget is not 0 */
};

struct hsm_client {
	void *ctx;
	unsigned n_workers, n_up;
	struct list signs;
	struct list finished;
	struct list forgets;
	struct lru known;
	struct grant *grants; /* by slot of known */
	uint64_t seq_next;
	uint64_t deadline_next_ms; /* no job's deadline is earlier; UINT64_MAX: none has one */
	uint32_t tag_next;
	enum hsm_op sign, sign_next; /* what these two go out as */
	struct hsm_client_stats stats;
	struct worker workers[];
};

struct hsm_client *hsm_client_new(unsigned n_workers, void *ctx)
{
	struct hsm_client *c;

	BUG_ON(n_workers < 1 || n_workers > HSM_WORKERS_MAX);
	c = calloc(1, sizeof(*c) + n_workers * sizeof(c->workers[0]));
	if (!c)
		return NULL;
	c->grants = calloc(HSM_GRANTS_MAX + 1, sizeof(*c->grants));
	if (!c->grants || lru_init(&c->known, HSM_GRANTS_MAX)) {
		free(c->grants);
		free(c);
		return NULL;
	}
	c->ctx = ctx;
	c->n_workers = n_workers;
	c->deadline_next_ms = UINT64_MAX;
	c->sign = HSM_SIGN;
	c->sign_next = HSM_SIGN_NEXT;
	list_init(&c->signs);
	list_init(&c->finished);
	list_init(&c->forgets);
	for (unsigned i = 0; i < n_workers; i++)
		list_init(&c->workers[i].queue);
	return c;
}

static struct worker *worker_of(struct hsm_client *c, unsigned worker)
{
	BUG_ON(worker >= c->n_workers);
	return &c->workers[worker];
}

/* --- queues --- */

static struct hsm_job *job_of(struct list *l)
{
	return list_entry(l, struct hsm_job, link);
}

static void finish(struct hsm_client *c, struct hsm_job *job, enum hsm_status status)
{
	job->status = status;
	c->stats.unavailable += status == HSM_UNAVAILABLE;
	list_add_tail(&c->finished, &job->link);
}

static void drain(struct hsm_client *c)
{
	while (!list_empty(&c->finished)) {
		struct hsm_job *job = job_of(c->finished.next);

		list_del(&job->link);
		job->done(c->ctx, job);
	}
}

static unsigned home_of(const struct hsm_client *c, const struct hsm_job *job)
{
	return bytes_load_u32(job->grant_id + 4) % c->n_workers;
}

static struct list *queue_of(struct hsm_client *c, const struct hsm_job *job)
{
	return job->op == HSM_CONVERT ? &c->workers[home_of(c, job)].queue : &c->signs;
}

static void count_queued(struct hsm_client *c, const struct hsm_job *job, int by)
{
	c->stats.queued += (uint32_t)by;
	if (job->op == HSM_CONVERT)
		c->workers[home_of(c, job)].queued += (uint32_t)by;
}

static void dequeue(struct hsm_client *c, struct hsm_job *job)
{
	list_del(&job->link);
	count_queued(c, job, -1);
}

/* Back to where it stood: before everything that was submitted after it. */
static void requeue(struct hsm_client *c, struct hsm_job *job)
{
	struct list *queue = queue_of(c, job);
	struct list *at = queue->next;

	if (++job->losses >= HSM_LOSSES_MAX) {
		finish(c, job, HSM_UNAVAILABLE);
		return;
	}
	while (at != queue && job_of(at)->seq < job->seq)
		at = at->next;
	list_add_tail(at, &job->link);
	count_queued(c, job, 1);
	c->stats.requeued++;
}

void hsm_client_submit(struct hsm_client *c, struct hsm_job *job)
{
	BUG_ON(job->op == HSM_LOAD || job->op == HSM_FORGET || job->op == HSM_STATUS);
	list_init(&job->link);
	job->seq = c->seq_next++;
	job->losses = 0;
	if (job->op == HSM_CONVERT && (!job->blob.n || job->blob.n > HSM_BLOB_BYTES_MAX)) {
		finish(c, job, HSM_BAD_KEY);
		return;
	}
	if (job->deadline_ms && job->deadline_ms < c->deadline_next_ms)
		c->deadline_next_ms = job->deadline_ms;
	list_add_tail(queue_of(c, job), &job->link);
	count_queued(c, job, 1);
}

void hsm_client_map_signs(struct hsm_client *c, enum hsm_op sign, enum hsm_op next)
{
	c->sign = sign;
	c->sign_next = next;
}

/* --- what the workers know --- */

/* A slot is kept as long as any worker may know its grant. */
static void release_if_unknown(struct hsm_client *c, uint32_t slot)
{
	struct grant *g = &c->grants[slot];

	if (!g->forget)
		list_del(&g->link);
	if (!(g->sent | g->forget))
		lru_remove(&c->known, slot);
}

static void unload(struct hsm_client *c, const uint8_t grant_id[GRANT_ID_BYTES], unsigned worker)
{
	uint32_t slot = lru_find(&c->known, grant_id);

	if (slot)
		c->grants[slot].loaded &= ~(1ull << worker);
}

/* The grant's slot, made where it has none; 0: there is no room to remember it. */
static uint32_t remember(struct hsm_client *c, const uint8_t grant_id[GRANT_ID_BYTES])
{
	uint32_t slot = lru_find(&c->known, grant_id);

	if (slot)
		return slot;
	slot = lru_insert(&c->known, grant_id);
	if (slot) {
		c->grants[slot] = (struct grant){ 0 };
		list_init(&c->grants[slot].link);
	}
	return slot;
}

static void forget_jobs_queued(struct hsm_client *c, const uint8_t grant_id[GRANT_ID_BYTES])
{
	for (unsigned i = 0; i < c->n_workers; i++) {
		struct list *queue = &c->workers[i].queue, *pos, *tmp;

		list_for_each_safe(pos, tmp, queue) {
			struct hsm_job *job = job_of(pos);

			if (memcmp(job->grant_id, grant_id, GRANT_ID_BYTES) != 0)
				continue;
			dequeue(c, job);
			finish(c, job, HSM_NO_KEY);
		}
	}
}

/* Calls for each job that is out, with the slot that it stands in. */
static void for_each_sent(struct hsm_client *c,
			  void (*fn)(struct hsm_client *c, struct sent *s, const void *arg),
			  const void *arg)
{
	for (unsigned i = 0; i < c->n_workers; i++) {
		struct worker *w = &c->workers[i];

		for (unsigned k = 0; k < w->n_packets; k++) {
			struct packet *p = &w->packets[(w->first + k) % HSM_PACKETS_IN_FLIGHT];

			for (unsigned j = 0; j < p->n; j++)
				if (p->sent[j].job)
					fn(c, &p->sent[j], arg);
		}
	}
}

/* The job leaves; its answer, when it comes, is nobody's. */
static void finish_sent(struct hsm_client *c, struct sent *s, enum hsm_status status)
{
	struct hsm_job *job = s->job;

	s->job = NULL;
	c->stats.in_flight--;
	finish(c, job, status);
}

static void forget_sent(struct hsm_client *c, struct sent *s, const void *grant_id)
{
	if (s->op == HSM_CONVERT && memcmp(s->grant_id, grant_id, GRANT_ID_BYTES) == 0)
		finish_sent(c, s, HSM_NO_KEY);
}

void hsm_client_forget(struct hsm_client *c, const uint8_t grant_id[GRANT_ID_BYTES])
{
	uint32_t slot = lru_find(&c->known, grant_id);

	forget_jobs_queued(c, grant_id);
	for_each_sent(c, forget_sent, grant_id);
	if (!slot)
		return;
	if (!c->grants[slot].forget)
		list_add_tail(&c->forgets, &c->grants[slot].link);
	c->grants[slot].forget |= c->grants[slot].sent;
	c->grants[slot].sent = 0;
	c->grants[slot].loaded = 0;
	release_if_unknown(c, slot);
}

/* --- links --- */

void hsm_client_up(struct hsm_client *c, unsigned worker)
{
	hsm_client_down(c, worker);
	worker_of(c, worker)->up = true;
	c->n_up++;
}

void hsm_client_down(struct hsm_client *c, unsigned worker)
{
	struct worker *w = worker_of(c, worker);
	uint32_t slot, newer;

	if (!w->up)
		return;
	w->up = false;
	c->n_up--;
	while (w->n_packets) {
		struct packet *p = &w->packets[w->first];

		for (unsigned j = 0; j < p->n; j++) {
			if (!p->sent[j].job)
				continue;
			c->stats.in_flight--;
			requeue(c, p->sent[j].job);
		}
		w->first = (w->first + 1) % HSM_PACKETS_IN_FLIGHT;
		w->n_packets--;
	}
	/* It comes back empty: what it was to forget is forgotten. */
	for (slot = lru_oldest(&c->known); slot; slot = newer) {
		struct grant *g = &c->grants[slot];

		newer = lru_newer(&c->known, slot);
		g->loaded &= ~(1ull << worker);
		g->sent &= ~(1ull << worker);
		g->forget &= ~(1ull << worker);
		release_if_unknown(c, slot);
	}
}

/* --- packets out --- */

static bool may_take_from(const struct hsm_client *c, unsigned worker, unsigned home)
{
	const struct worker *w = &c->workers[worker], *h = &c->workers[home];

	if (home == worker || !h->up)
		return true;
	return !w->n_packets && h->n_packets && h->queued >= HSM_STEAL_MIN;
}

/* The oldest job that this worker may take, or a signature, which goes before. */
static struct hsm_job *choose(struct hsm_client *c, unsigned worker, bool sign_first)
{
	struct hsm_job *oldest = list_first(&c->signs, struct hsm_job, link);

	if (oldest && sign_first)
		return oldest;
	for (unsigned i = 0; i < c->n_workers; i++) {
		struct list *queue = &c->workers[i].queue;

		if (list_empty(queue) || !may_take_from(c, worker, i))
			continue;
		if (!oldest || job_of(queue->next)->seq < oldest->seq)
			oldest = job_of(queue->next);
	}
	return oldest;
}

static void put(struct hsm_client *c, struct hsm_batch *b, struct packet *p,
		struct hsm_job_wire *wire, struct hsm_job *job)
{
	struct sent *s = &p->sent[p->n++];

	wire->tag = c->tag_next++;
	BUG_ON(!hsm_batch_add_job(b, wire));
	*s = (struct sent){ .job = job, .tag = wire->tag, .op = wire->op };
	if (wire->grant_id.n)
		memcpy(s->grant_id, wire->grant_id.p, GRANT_ID_BYTES);
}

/* All that fit; false: some are left, and no job may pass them. */
static bool put_forgets(struct hsm_client *c, struct hsm_batch *b, struct packet *p,
			unsigned worker)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &c->forgets) {
		struct grant *g = list_entry(pos, struct grant, link);
		uint32_t slot = (uint32_t)(g - c->grants);
		struct hsm_job_wire wire = { .op = HSM_FORGET };

		if (!(g->forget & 1ull << worker))
			continue;
		if (p->n == HSM_BATCH_JOBS_MAX)
			return false;
		wire.grant_id = bytes_of(lru_id(&c->known, slot), GRANT_ID_BYTES);
		put(c, b, p, &wire, NULL);
		g->forget &= ~(1ull << worker);
		release_if_unknown(c, slot);
	}
	return true;
}

/* Up to three entries: LOAD where the worker needs it, CONVERT, FORGET where we cannot remember. */
static bool put_convert(struct hsm_client *c, struct hsm_batch *b, struct packet *p,
			unsigned worker, struct hsm_job *job)
{
	struct bytes id = bytes_of(job->grant_id, GRANT_ID_BYTES);
	struct hsm_job_wire load = { .op = HSM_LOAD, .grant_id = id, .blob = job->blob };
	struct hsm_job_wire convert = { .op = HSM_CONVERT, .grant_id = id };
	struct hsm_job_wire forget = { .op = HSM_FORGET, .grant_id = id };
	uint32_t slot = lru_find(&c->known, job->grant_id);
	bool loaded = slot && c->grants[slot].loaded & 1ull << worker;

	if (p->n + (loaded ? 1 : 3) > HSM_BATCH_JOBS_MAX)
		return false;
	if (!loaded) {
		slot = remember(c, job->grant_id);
		c->stats.loads++;
		put(c, b, p, &load, NULL);
	}
	convert.point = bytes_of(job->input, P256_POINT_BYTES);
	put(c, b, p, &convert, job);
	if (!slot) {
		put(c, b, p, &forget, NULL);
		return true;
	}
	c->grants[slot].loaded |= 1ull << worker;
	c->grants[slot].sent |= 1ull << worker;
	return true;
}

/* The operation that goes out for a job; 0: there is no key for it. */
static enum hsm_op op_of(const struct hsm_client *c, const struct hsm_job *job)
{
	if (job->op == HSM_SIGN)
		return c->sign;
	return job->op == HSM_SIGN_NEXT ? c->sign_next : job->op;
}

/* Likewise what needs no key of a grant. */
static bool put_sign(struct hsm_client *c, struct hsm_batch *b, struct packet *p,
		     struct hsm_job *job)
{
	struct hsm_job_wire wire = { .op = op_of(c, job) };

	if (p->n == HSM_BATCH_JOBS_MAX)
		return false;
	if (job->op == HSM_OPEN)
		wire.point = bytes_of(job->input, P256_POINT_BYTES);
	else
		wire.digest = bytes_of(job->input, P256_DIGEST_BYTES);
	put(c, b, p, &wire, job);
	return true;
}

static unsigned share_of(const struct hsm_client *c)
{
	uint32_t share = (c->stats.queued + c->n_up - 1) / c->n_up;

	return share < HSM_SHARE_MIN ? HSM_SHARE_MIN : share;
}

static void put_jobs(struct hsm_client *c, struct hsm_batch *b, struct packet *p, unsigned worker)
{
	struct worker *w = &c->workers[worker];
	unsigned share = share_of(c), converts = 0;

	for (unsigned taken = 0; taken < share && !p->suspect; taken++) {
		struct hsm_job *job = choose(c, worker, taken - converts < HSM_SIGNS_FIRST);
		bool suspect, room;

		if (!job)
			return;
		if (!op_of(c, job)) {
			dequeue(c, job);
			finish(c, job, HSM_NO_KEY);
			continue;
		}
		suspect = job->losses >= HSM_SUSPECT_LOSSES;
		if (suspect && (taken || w->n_packets))
			return;
		if (job->op == HSM_CONVERT && ++converts > HSM_CONVERTS_MAX)
			return;
		room = job->op == HSM_CONVERT ? put_convert(c, b, p, worker, job)
					      : put_sign(c, b, p, job);
		if (!room)
			return;
		dequeue(c, job);
		job->worker = (uint8_t)worker;
		job->tag = c->tag_next - 1;
		c->stats.in_flight++;
		p->suspect = suspect;
	}
}

size_t hsm_client_fill(struct hsm_client *c, unsigned worker, uint8_t *buf)
{
	struct worker *w = worker_of(c, worker);
	struct hsm_batch b;
	struct packet *p;

	if (!w->up || w->n_packets == HSM_PACKETS_IN_FLIGHT)
		return 0;
	if (w->n_packets && w->packets[w->first].suspect)
		return 0;
	p = &w->packets[(w->first + w->n_packets) % HSM_PACKETS_IN_FLIGHT];
	p->n = 0;
	p->suspect = false;
	hsm_batch_begin(&b, 'H', buf, HSM_PACKET_BYTES_MAX);
	if (put_forgets(c, &b, p, worker))
		put_jobs(c, &b, p, worker);
	if (!p->n)
		return 0;
	w->n_packets++;
	c->stats.packets++;
	return hsm_batch_finish(&b);
}

/* --- packets in --- */

/* Is it the answer to this packet, whole? Nothing is believed of one that is not. */
static bool answers(struct bytes packet, const struct packet *p)
{
	struct bytes_reader r;
	unsigned n;

	if (hsm_batch_open(packet, 'R', &r, &n) || n != p->n)
		return false;
	for (unsigned i = 0; i < n; i++) {
		struct hsm_reply_wire reply;

		if (hsm_batch_next_reply(&r, &reply))
			return false;
		if (reply.tag != p->sent[i].tag || reply.op != p->sent[i].op)
			return false;
	}
	return bytes_read_done(&r);
}

static void settle_ok(struct hsm_client *c, struct sent *s, struct bytes result)
{
	memcpy(s->job->output, result.p, result.n);
	c->stats.converts += s->op == HSM_CONVERT;
	c->stats.signs += s->op == HSM_SIGN || s->op == HSM_SIGN_NEXT;
	finish_sent(c, s, HSM_OK);
}

/*
 * One answer. load is the status of the LOAD just before it, HSM_OK where there was none: a CONVERT
 * that found no key after a failed LOAD has that LOAD's failure; one without a LOAD met a worker
 * that had dropped the blob, and is tried again behind a LOAD.
 */
static void settle(struct hsm_client *c, unsigned worker, struct sent *s,
		   const struct hsm_reply_wire *reply, enum hsm_status load)
{
	struct hsm_job *job = s->job;

	if (reply->status != HSM_OK &&
	    (s->op == HSM_LOAD || (s->op == HSM_CONVERT && reply->status == HSM_NO_KEY)))
		unload(c, s->grant_id, worker);
	if (!job)
		return;
	if (reply->status == HSM_OK) {
		settle_ok(c, s, reply->result);
	} else if (reply->status != HSM_NO_KEY || s->op != HSM_CONVERT) {
		finish_sent(c, s, reply->status);
	} else if (load != HSM_OK) {
		finish_sent(c, s, load);
	} else {
		s->job = NULL;
		c->stats.in_flight--;
		requeue(c, job);
	}
}

int hsm_client_reply(struct hsm_client *c, unsigned worker, struct bytes packet)
{
	struct worker *w = worker_of(c, worker);
	struct packet *p = &w->packets[w->first];
	enum hsm_status load = HSM_OK;
	struct bytes_reader r;
	unsigned n;

	if (!w->up || !w->n_packets || !answers(packet, p))
		return -EBADMSG;
	BUG_ON(hsm_batch_open(packet, 'R', &r, &n) != 0);
	for (unsigned i = 0; i < n; i++) {
		struct hsm_reply_wire reply;

		BUG_ON(hsm_batch_next_reply(&r, &reply) != 0);
		settle(c, worker, &p->sent[i], &reply, load);
		load = reply.op == HSM_LOAD ? reply.status : HSM_OK;
	}
	w->first = (w->first + 1) % HSM_PACKETS_IN_FLIGHT;
	w->n_packets--;
	drain(c);
	return 0;
}

/* --- time --- */

/* Past its deadline; where it is not, the next scan is due at it. */
static bool expired(struct hsm_client *c, const struct hsm_job *job, uint64_t now_ms)
{
	if (!job->deadline_ms)
		return false;
	if (job->deadline_ms <= now_ms)
		return true;
	if (job->deadline_ms < c->deadline_next_ms)
		c->deadline_next_ms = job->deadline_ms;
	return false;
}

static void expire_queue(struct hsm_client *c, struct list *queue, uint64_t now_ms)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, queue) {
		struct hsm_job *job = job_of(pos);

		if (!expired(c, job, now_ms))
			continue;
		dequeue(c, job);
		finish(c, job, HSM_UNAVAILABLE);
	}
}

static void expire_sent(struct hsm_client *c, struct sent *s, const void *now_ms)
{
	if (expired(c, s->job, *(const uint64_t *)now_ms))
		finish_sent(c, s, HSM_UNAVAILABLE);
}

static void expire(struct hsm_client *c, uint64_t now_ms)
{
	if (now_ms < c->deadline_next_ms)
		return;
	c->deadline_next_ms = UINT64_MAX;
	expire_queue(c, &c->signs, now_ms);
	for (unsigned i = 0; i < c->n_workers; i++)
		expire_queue(c, &c->workers[i].queue, now_ms);
	for_each_sent(c, expire_sent, &now_ms);
}

void hsm_client_tick(struct hsm_client *c, uint64_t now_ms)
{
	expire(c, now_ms);
	drain(c);
}

bool hsm_client_has_work(const struct hsm_client *c)
{
	return c->stats.queued || !list_empty(&c->forgets) || !list_empty(&c->finished);
}

void hsm_client_stats(const struct hsm_client *c, struct hsm_client_stats *ret_s)
{
	*ret_s = c->stats;
}

static void abandon_queue(struct hsm_client *c, struct list *queue)
{
	while (!list_empty(queue)) {
		struct hsm_job *job = job_of(queue->next);

		dequeue(c, job);
		finish(c, job, HSM_UNAVAILABLE);
	}
}

static void abandon_sent(struct hsm_client *c, struct sent *s, const void *none)
{
	finish_sent(c, s, HSM_UNAVAILABLE);
}

void hsm_client_free(struct hsm_client *c)
{
	if (!c)
		return;
	/* done() may submit once more: that too is answered. */
	for_each_sent(c, abandon_sent, NULL);
	do {
		abandon_queue(c, &c->signs);
		for (unsigned i = 0; i < c->n_workers; i++)
			abandon_queue(c, &c->workers[i].queue);
		drain(c);
	} while (c->stats.queued);
	lru_deinit(&c->known);
	free(c->grants);
	free(c);
}
