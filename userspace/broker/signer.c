// SPDX-License-Identifier: MIT
#include "userspace/broker/signer.h"

#include <errno.h>
#include <string.h>

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"
#include "userspace/crypto/publish.h"

#define RETRY_MS 500

/* The origin proof with the longest trailer that can stand in one. */
#define PROOF_BYTES_MAX (1 + 2 + PUBLISH_TRAILER_BYTES_MAX)

static void request_free(struct broker *b, struct signer_request *r);
static void finish(struct broker *b);

static void ask(struct broker *b, struct signer_request *r)
{
	r->job.deadline_ms = b->mono_ms + b->config.limits.convert_deadline_ms;
	b->ops.token(b->io, &r->job);
}

/* The one that is in use now: what was the next key once is the key by now and there is no next
 * one, or the token has nothing but that one any more. */
static void choose_key(struct broker *b, struct signer_request *r)
{
	r->job.next = directory_next_in_use(b->directory, b->wall_ms);
	if (r->conn && r->conn->state == CONN_CHALLENGED) /* this is its challenge */
		memcpy(r->conn->secure->broker_hash,
		       directory_broker_hash(b->directory, b->wall_ms), HASH_BYTES);
}

static void retry_fired(struct timer *t)
{
	struct signer *s = container_of(t, struct signer, retry);
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &s->requests) {
		struct signer_request *r = list_entry(pos, struct signer_request, link);

		if (!r->failed)
			continue;
		r->failed = false;
		if (r->conn && r->conn->state == CONN_CLOSED) {
			request_free(s->broker, r);
			continue;
		}
		choose_key(s->broker, r);
		ask(s->broker, r);
	}
	finish(s->broker); /* what waited behind one that was freed */
}

void signer_init(struct broker *b)
{
	struct signer *s = &b->signer;

	memset(s, 0, sizeof(*s));
	list_init(&s->requests);
	list_init(&s->ready);
	timer_init(&s->retry, retry_fired);
	s->broker = b;
}

static void request_free(struct broker *b, struct signer_request *r)
{
	list_del(&r->link);
	ack_drop(r->ack);
	if (r->conn) {
		b->signer.controls_out--;
		conn_put(r->conn);
	} else {
		b->signer.batches_out--;
	}
	pool_free(&b->pool, r->body);
	pool_free(&b->pool, r->nodes);
	pool_free(&b->pool, r);
}

void signer_deinit(struct broker *b)
{
	while (!list_empty(&b->signer.requests)) {
		struct signer_request *r =
			list_first(&b->signer.requests, struct signer_request, link);

		for (unsigned i = 0; i < r->n; i++)
			if (r->deliveries[i])
				r->deliveries[i]->sealed->batch = NULL;
		request_free(b, r);
	}
	timer_cancel(&b->wheel, &b->signer.retry);
}

static void submit(struct broker *b, struct signer_request *r, const uint8_t digest[HASH_BYTES])
{
	r->job.op = BROKER_TOKEN_SIGN;
	choose_key(b, r);
	memcpy(r->job.input, digest, HASH_BYTES);
	list_add_tail(&b->signer.requests, &r->link);
	b->stats.signatures++;
	ask(b, r);
}

int signer_control(struct broker *b, struct broker_conn *conn, const char *topic, struct bytes body,
		   struct ack *ack, void (*sent)(struct broker_conn *c))
{
	struct signer_request *r = pool_zalloc(&b->pool, sizeof(*r));
	uint8_t *copy = pool_alloc(&b->pool, body.n ? body.n : 1);
	struct publish p = {
		.first = mqtt_publish_first(0, false, false),
		.topic = bytes_str(topic),
		.body = { body },
		.body_parts = 1,
		.client_id = conn_id(conn),
	};
	uint8_t digest[HASH_BYTES];

	if (!r || !copy) {
		pool_free(&b->pool, r);
		pool_free(&b->pool, copy);
		return -ENOMEM;
	}
	memcpy(copy, body.p, body.n);
	conn_get(conn);
	b->signer.controls_out++;
	r->conn = conn;
	r->topic = topic;
	r->body = copy;
	r->body_n = body.n;
	r->ack = ack;
	r->sent = sent;
	publish_digest(&p, digest);
	submit(b, r, digest);
	return 0;
}

/* --- deliveries ------------------------------------------------------------------------------- */

void signer_add(struct broker *b, struct delivery *d)
{
	list_add_tail(&b->signer.ready, &d->sealed->wait);
}

void signer_leave(struct delivery *d)
{
	list_del(&d->sealed->wait);
	if (d->sealed->batch)
		d->sealed->batch->deliveries[d->sealed->batch_index] = NULL;
	d->sealed->batch = NULL;
}

/* What conversion puts behind the level of this delivery; proof is built in the given memory. Above
 * level 0 there is none: the trailer is the distributor's. */
static struct envelope_block block_of(const struct delivery *d, uint8_t proof[PROOF_BYTES_MAX])
{
	const struct message_sealed *sealed = d->message->sealed;
	struct envelope_block block = {
		.grant = bytes_of(d->sealed->grant_id, GRANT_ID_BYTES),
		.x = bytes_of(d->sealed->x, P256_X_BYTES),
		.origin = sealed->origin,
	};
	struct bytes_writer w = bytes_writer_of(proof, PROOF_BYTES_MAX);

	if (d->sealed->grant_flags & RECORD_GRANT_PROOF && sealed->envelope.level == 0)
		publish_write_proof(sealed->first, bytes_of(NULL, 0), sealed->trailer, &w);
	BUG_ON(w.bad);
	block.proof = bytes_of(proof, w.used);
	return block;
}

#define HEAD_BYTES_MAX \
	(ENVELOPE_FIXED_BYTES + GRANT_ID_BYTES + P256_X_BYTES + 1 + 64 + 2 + PROOF_BYTES_MAX)

/* The converted envelope up to its ciphertext; it may be built in the given memory. */
static struct bytes head_of(const struct delivery *d, uint8_t head[HEAD_BYTES_MAX])
{
	const struct envelope *e = &d->message->sealed->envelope;
	struct bytes_writer w = bytes_writer_of(head, HEAD_BYTES_MAX);
	uint8_t proof[PROOF_BYTES_MAX];
	struct envelope_block block;

	if (d->sealed->passed)
		return bytes_of(e->whole.p, e->whole.n - e->ct.n);
	block = block_of(d, proof);
	envelope_raise_head(e, &block, &w);
	BUG_ON(w.bad);
	return bytes_of(head, w.used);
}

static struct publish publish_of(const struct delivery *d, struct bytes head)
{
	return (struct publish){
		.first = mqtt_publish_first(d->qos, d->retain, false),
		.topic = d->message->topic,
		.body = { head, d->message->sealed->envelope.ct },
		.body_parts = 2,
		.client_id = session_id(d->session),
	};
}

/* How many the next batch has. */
static unsigned batch_size(const struct signer *s)
{
	struct list *pos;
	unsigned n = 0;

	list_for_each(pos, &s->ready) {
		if (++n == SIGNER_BATCH_MAX)
			break;
	}
	return n;
}

/* Room for a batch of n. */
static bool make_room(struct broker *b, struct signer_request *r, unsigned n)
{
	size_t nodes = merkle_nodes((uint16_t)n) * sizeof(*r->nodes);

	r->nodes = pool_alloc(&b->pool, nodes + n * sizeof(struct delivery *));
	if (!r->nodes)
		return false;
	r->deliveries = (void *)((uint8_t *)r->nodes + nodes);
	return true;
}

/* Takes the first n of what is ready. */
static void gather(struct broker *b, struct signer_request *r, unsigned n)
{
	struct delivery *d;

	while (r->n < n && (d = delivery_first_waiting(&b->signer.ready))) {
		list_del(&d->sealed->wait);
		d->sealed->batch = r;
		d->sealed->batch_index = (uint16_t)r->n;
		r->deliveries[r->n++] = d;
	}
}

static void batch_digest(struct signer_request *r, uint8_t digest[HASH_BYTES])
{
	uint8_t head[HEAD_BYTES_MAX];
	struct merkle m;

	for (unsigned i = 0; i < r->n; i++) {
		struct publish p = publish_of(r->deliveries[i], head_of(r->deliveries[i], head));

		if (r->n == 1) {
			publish_digest(&p, digest);
			return;
		}
		publish_leaf(&p, r->nodes[i]);
	}
	merkle_build(&m, r->nodes, (uint16_t)r->n);
	publish_root_digest(merkle_root(&m), digest);
}

void signer_turn(struct broker *b)
{
	struct signer *s = &b->signer;

	while (!list_empty(&s->ready) && s->batches_out < SIGNER_BATCHES_OUT) {
		unsigned n = batch_size(s);
		struct signer_request *r = pool_zalloc(&b->pool, sizeof(*r));
		uint8_t digest[HASH_BYTES];

		if (!r || !make_room(b, r, n)) {
			pool_free(&b->pool, r);
			b->starved = true; /* they stay ready */
			return;
		}
		s->batches_out++;
		gather(b, r, n);
		b->stats.signed_deliveries += r->n;
		batch_digest(r, digest);
		submit(b, r, digest);
	}
}

/* --- what the token signed goes out ----------------------------------------------------------- */

static size_t trailer_bytes(const struct signer_request *r, unsigned index)
{
	if (r->n == 1)
		return PUBLISH_TRAILER_1_BYTES;
	return PUBLISH_TRAILER_2_BYTES(merkle_path_len((uint16_t)index, (uint16_t)r->n));
}

static void write_trailer(const struct signer_request *r, unsigned index, struct bytes_writer *w)
{
	struct merkle m = { .nodes = r->nodes, .size = (uint16_t)r->n };

	if (r->n == 1)
		publish_write_trailer_1(r->job.output, w);
	else
		publish_write_trailer_2(r->job.output, &m, (uint16_t)index, w);
}

/* Room for n bytes of it; a ciphertext that is not small is not copied but stands behind them.
 * NULL: the connection ended. */
static uint8_t *reserve(struct broker *b, const struct delivery *d, size_t n, bool shared)
{
	struct broker_conn *c = d->session->conn;
	struct message *m;
	uint8_t *out;

	if (!shared)
		return conn_out(c, n);
	m = message_get(d->message);
	out = b->ops.out_shared(b->io, c->io, n, m->sealed->envelope.ct, m);
	if (!out) {
		message_put(&b->pool, m);
		conn_fail(c, "its output is full");
	}
	return out;
}

static void send_delivery(struct broker *b, struct signer_request *r, struct delivery *d)
{
	const unsigned index = d->sealed->batch_index;
	uint8_t head_buf[HEAD_BYTES_MAX];
	struct bytes head = head_of(d, head_buf);
	struct bytes ct = d->message->sealed->envelope.ct;
	bool shared = ct.n >= MESSAGE_SHARED_BYTES_MIN;
	size_t trailer = trailer_bytes(r, index), payload = head.n + ct.n + trailer;
	struct mqtt_publish p = {
		.dup = d->dup,
		.retain = d->retain,
		.qos = d->qos,
		.topic = d->message->topic,
	};
	size_t n = mqtt_publish_bytes(p.topic.n, payload, p.qos) - (shared ? ct.n + trailer : 0);
	uint8_t *out = reserve(b, d, n, shared);
	struct bytes_writer w;

	if (!out)
		return; /* the connection ended, and took d back with it */
	p.packet_id = delivery_packet_id(d->session, d);
	w = bytes_writer_of(out, n);
	mqtt_encode_publish_head(&p, payload, &w);
	bytes_write(&w, head);
	if (shared) {
		BUG_ON(w.bad || w.left);
		out = conn_out(d->session->conn, trailer);
		if (!out)
			return;
		w = bytes_writer_of(out, trailer);
	} else {
		bytes_write(&w, ct);
	}
	write_trailer(r, index, &w);
	BUG_ON(w.bad || w.left);
	delivery_sent(b, d);
}

static void send_control(struct signer_request *r)
{
	struct broker_conn *c = r->conn;
	size_t payload = r->body_n + PUBLISH_TRAILER_1_BYTES;
	struct mqtt_publish p = { .topic = bytes_str(r->topic) };
	size_t n = mqtt_publish_bytes(p.topic.n, payload, 0);
	uint8_t *out = conn_out(c, n);
	struct bytes_writer w;

	if (!out)
		return;
	w = bytes_writer_of(out, n);
	mqtt_encode_publish_head(&p, payload, &w);
	bytes_write(&w, bytes_of(r->body, r->body_n));
	publish_write_trailer_1(r->job.output, &w);
	BUG_ON(w.bad || w.left);
	ack_ready(r->ack);
	r->ack = NULL;
	if (r->sent && c->state != CONN_CLOSED)
		r->sent(c);
}

/* Those that are signed, as far as the first that is not. */
static void finish(struct broker *b)
{
	struct signer_request *r;

	while ((r = list_first(&b->signer.requests, struct signer_request, link)) && r->done) {
		if (r->conn && r->conn->state != CONN_CLOSED)
			send_control(r);
		for (unsigned i = 0; i < r->n; i++)
			if (r->deliveries[i])
				send_delivery(b, r, r->deliveries[i]);
		request_free(b, r);
	}
}

void signer_done(struct broker *b, struct broker_token_job *job)
{
	struct signer_request *r = container_of(job, struct signer_request, job);

	if (job->status != BROKER_TOKEN_OK) {
		/* The others wait for it, in order: without the token there is nothing to send. */
		r->failed = true;
		if (!timer_armed(&b->signer.retry))
			timer_arm(&b->wheel, &b->signer.retry, b->mono_ms + RETRY_MS);
		return;
	}
	r->done = true;
	finish(b);
}
