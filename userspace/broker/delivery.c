// SPDX-License-Identifier: MIT
#include "userspace/broker/delivery.h"

#include <errno.h>
#include <string.h>

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"

/* Conversions and signatures of one session that may be under way: enough to fill a batch of each.
 */
#define PIPELINE_MAX 256

/* Acknowledged deliveries remembered for a nack, of all sessions, and for how long. */
#define RECENT_MAX	 1024
#define RECENT_BYTES_MAX (16u << 20)
#define RECENT_MS	 10000

/* It took something. Only a short queue ends a stall, or a trickle would hold its senders for good.
 */
static void progress(const struct broker *b, struct session *s)
{
	if (s->n_queued <= b->config.limits.queue_high_water / 2)
		s->stalled = false;
}

static void count(struct broker *b, struct delivery *d)
{
	d->session->n_queued++;
	d->session->bytes += message_bytes(d->message);
	b->stats.queued++;
}

static void uncount(struct broker *b, struct delivery *d)
{
	struct session *s = d->session;

	s->n_queued--;
	s->bytes -= message_bytes(d->message);
	b->stats.queued--;
	if (s->n_queued == 0)
		outgoing_trim(&b->pool, &s->outgoing);
	if (!list_empty(&s->blocked))
		session_unblock(b, s);
	if (!list_empty(&s->walks))
		retained_room(b, s);
	session_mark_dirty(b, s);
}

/* How a sealed message comes to its receiver. */
struct way {
	bool passed;			     /* as it is, */
	const struct directory_grant *grant; /* or converted by this one; neither: not at all */
};

/* What a distributor converted (PROTOCOL 12). */
static struct way way_of_raised(struct broker *b, const struct session *s, const struct envelope *e)
{
	const struct directory_outlet *o = directory_outlet(b->directory, e->grant.p, b->wall_ms);
	struct way way = { 0 };

	if (o && !(o->flags & RECORD_GRANT_HOP))
		way.passed = bytes_equal(o->receiver, session_id(s));
	else if (o && e->level < ENVELOPE_LEVEL_MAX)
		way.grant = directory_grant(s->party, e->key_id, e->grant.p, b->wall_ms);
	return way;
}

static struct way way_of(struct broker *b, const struct session *s, const struct message *m)
{
	static const uint8_t level_0[GRANT_ID_BYTES];
	const struct envelope *e = &m->sealed->envelope;

	if (e->level > 0)
		return way_of_raised(b, s, e);
	return (struct way){ .grant = directory_grant(s->party, e->key_id, level_0, b->wall_ms) };
}

static bool reaches(struct broker *b, const struct session *s, const struct message *m)
{
	struct way way = way_of(b, s, m);

	return way.passed || way.grant;
}

/* True where it may not be queued; counted. */
static bool refuse_full(struct broker *b, struct session *s, const struct message *m, uint8_t qos)
{
	if (s->n_queued < b->config.limits.queue_messages_max &&
	    s->bytes + message_bytes(m) <= b->config.limits.queue_bytes_max)
		return false;
	if (qos == 0) {
		b->stats.dropped_qos0++;
	} else {
		b->stats.dropped_full++;
		broker_note(b, "queue full", session_id(s), "a message of QoS 1 or 2 was dropped");
	}
	return true;
}

/* Converting or signing: what will be on the connection soon, and is not in its backlog yet. */
static void enter_pipeline(struct delivery *d)
{
	d->session->n_pipeline++;
	d->session->pipeline_bytes += message_bytes(d->message);
}

static void leave_pipeline(struct delivery *d)
{
	d->session->n_pipeline--;
	d->session->pipeline_bytes -= message_bytes(d->message);
}

/* Takes d out of whatever it waits for and out of the counts of its state, but not of its list. */
static void leave_state(struct delivery *d)
{
	struct session *s = d->session;

	switch (d->state) {
	case DELIVERY_WAITING:
	case DELIVERY_RECENT:
		return;
	case DELIVERY_CONVERTING:
		capsule_leave(d);
		leave_pipeline(d);
		break;
	case DELIVERY_CONVERTED:
		leave_pipeline(d);
		break;
	case DELIVERY_SIGNING:
		signer_leave(d);
		leave_pipeline(d);
		break;
	case DELIVERY_SENT:
		break;
	}
	s->inflight -= d->qos > 0;
	d->state = DELIVERY_WAITING;
}

/* What was to be judged, or NULL; it is the caller's. */
static struct message *take_nack(struct delivery *d)
{
	struct message *nack = d->sealed ? d->sealed->nack : NULL;

	if (nack)
		d->sealed->nack = NULL;
	return nack;
}

/* No longer remembered for a nack. */
static void leave_recent(struct broker *b, struct delivery *d)
{
	list_del(&d->sealed->wait);
	b->sessions.n_recent--;
	b->sessions.recent_bytes -= message_bytes(d->message);
}

/* Its packet id is another's again. */
static void drop_id(struct delivery *d)
{
	if (d->packet_id)
		outgoing_drop(&d->session->outgoing, d->packet_id);
	d->packet_id = 0;
	d->sent = false;
}

void delivery_free(struct broker *b, struct delivery *d)
{
	drop_id(d);
	leave_state(d);
	list_del(&d->link);
	if (d->state == DELIVERY_RECENT)
		leave_recent(b, d);
	else
		uncount(b, d);
	message_put(&b->pool, take_nack(d));
	if (d->durable)
		durable_dequeue(b, d);
	message_put(&b->pool, d->message);
	if (d->durable)
		durable_delivery_free(b, d);
	else
		pool_free(&b->pool, d);
}

static void free_list(struct broker *b, struct list *l)
{
	while (!list_empty(l))
		delivery_free(b, list_first(l, struct delivery, link));
}

/* Done, but for a nack that may still come. */
static void acknowledged(struct broker *b, struct delivery *d)
{
	struct sessions *all = &b->sessions;
	struct delivery *oldest;

	if (!d->sealed || d->sealed->nacked) {
		delivery_free(b, d);
		return;
	}
	drop_id(d);
	leave_state(d);
	list_del(&d->link);
	uncount(b, d);
	if (d->durable)
		durable_dequeue(b, d);
	d->state = DELIVERY_RECENT;
	d->sealed->recent_until_ms = b->mono_ms + RECENT_MS;
	list_add_tail(&d->session->recent, &d->link);
	list_add_tail(&all->recent, &d->sealed->wait);
	all->n_recent++;
	all->recent_bytes += message_bytes(d->message);
	while ((oldest = delivery_first_waiting(&all->recent)) != d &&
	       (all->n_recent > RECENT_MAX || all->recent_bytes > RECENT_BYTES_MAX ||
		oldest->sealed->recent_until_ms <= b->mono_ms))
		delivery_free(b, oldest);
}

/* It is to be sent again after all, as a message of its own. */
static void recall(struct broker *b, struct delivery *d)
{
	leave_recent(b, d);
	d->state = DELIVERY_WAITING;
	count(b, d);
	if (d->durable && !durable_queue(b, d))
		broker_note(b, "not stored", session_id(d->session), "no memory");
}

/* Behind those that came before it: few, if any, came after and stand there already. */
static void insert_in_order(struct list *to, struct delivery *d)
{
	struct list *at = to->prev;

	while (at != to && list_entry(at, struct delivery, link)->seq > d->seq)
		at = at->prev;
	list_add_head(at, &d->link);
}

/* Everything of one list back to `to`, as if never started; QoS 0 is dropped [MQTT-4.3.1]. In the
 * order of their first sending [MQTT-4.6.0-1], which a nack may have disturbed. */
static void rewind_list(struct broker *b, struct list *from, struct list *to)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, from) {
		struct delivery *d = list_entry(pos, struct delivery, link);

		if (d->qos == 0) {
			delivery_free(b, d);
			continue;
		}
		if (d->sent)
			d->dup = true; /* [MQTT-4.4.0-1] */
		leave_state(d);
		message_put(&b->pool, take_nack(d));
		list_del(&d->link);
		insert_in_order(to, d);
	}
}

void deliveries_rewind(struct broker *b, struct session *s)
{
	struct list all;

	list_init(&all);
	free_list(b, &s->recent);
	rewind_list(b, &s->sent, &all);
	rewind_list(b, &s->signing, &all);
	rewind_list(b, &s->converting, &all);
	rewind_list(b, &s->waiting, &all);
	list_splice_tail(&s->waiting, &all);
	BUG_ON(s->inflight != s->outgoing.n_releases || s->n_pipeline || s->pipeline_bytes);
}

void deliveries_free(struct broker *b, struct session *s)
{
	free_list(b, &s->waiting);
	free_list(b, &s->converting);
	free_list(b, &s->signing);
	free_list(b, &s->sent);
	free_list(b, &s->recent);
}

void deliveries_restart(struct broker *b, struct session *s)
{
	struct list all;

	list_init(&all);
	list_splice_tail(&all, &s->signing);
	list_splice_tail(&all, &s->converting);
	while (!list_empty(&all)) {
		struct delivery *d = list_entry(all.prev, struct delivery, link);

		leave_state(d);
		list_del(&d->link);
		list_add_head(&s->waiting, &d->link);
	}
	session_mark_dirty(b, s);
}

/* PUBREC: the client has it [MQTT-4.3.3-1]; its id stays in use for PUBREL. One that was to be sent
 * again is not. */
static void received(struct broker *b, struct session *s, struct delivery *d)
{
	struct durable_change *kept;
	struct message *nack;

	if (!durable_release(b, s, d->packet_id, &kept))
		return conn_fail(s->conn, "no memory for its PUBREC"); /* it is asked again */
	nack = take_nack(d);
	outgoing_release(&s->outgoing, d->packet_id, kept);
	s->inflight++;
	d->packet_id = 0;
	d->sent = false;
	acknowledged(b, d);
	if (nack) /* which waited for this, so d is a recent one */
		delivery_restart(b, d, nack);
	message_put(&b->pool, nack);
	deliveries_advance(b, s); /* what was behind it, if it was being converted again */
}

static void completed(struct broker *b, struct session *s, uint16_t packet_id)
{
	durable_completed(b, s, outgoing_kept(&s->outgoing, packet_id));
	outgoing_drop(&s->outgoing, packet_id);
	s->inflight--;
	if (s->n_queued == 0)
		outgoing_trim(&b->pool, &s->outgoing);
	session_mark_dirty(b, s);
}

bool delivery_acknowledge(struct broker *b, struct session *s, enum mqtt_type type,
			  uint16_t packet_id)
{
	struct delivery *d = outgoing_delivery(&s->outgoing, packet_id);

	if (type == MQTT_PUBCOMP) {
		if (outgoing_is_release(&s->outgoing, packet_id))
			completed(b, s, packet_id);
		return true;
	}
	if (!d || !d->sent) /* it may have its id already: none that a client knows */
		return true;
	if (d->qos != (type == MQTT_PUBREC ? 2 : 1))
		return false;
	if (d->qos == 1 && d->state != DELIVERY_SENT) {
		/* Being sent again: the next one counts, if its nack does not come to nothing. */
		if (d->sealed && d->sealed->nack)
			d->sealed->acknowledged = true;
		return true;
	}
	b->stats.acknowledged++;
	progress(b, s);
	if (d->qos == 2)
		received(b, s, d);
	else
		acknowledged(b, d);
	return true;
}

/* --- starting, converting, sending ------------------------------------------------------------ */

uint16_t delivery_packet_id(struct session *s, struct delivery *d)
{
	if (d->qos && !d->packet_id)
		d->packet_id = outgoing_take(&s->outgoing, d);
	return d->packet_id;
}

/* An id for one more that leaves waiting, besides those in the pipeline that have none yet. */
static bool reserve_id(struct broker *b, struct session *s)
{
	uint32_t hope = b->config.limits.inflight_max;

	if (!outgoing_has_ids(&s->outgoing, s->n_pipeline + 1))
		return false; /* until something is acknowledged, which starts it again */
	if (s->n_queued < hope)
		hope = s->n_queued;
	if (outgoing_reserve(&b->pool, &s->outgoing, s->n_pipeline + 1, hope))
		return true;
	session_mark_dirty(b, s);
	b->starved = true;
	return false;
}

void delivery_sent(struct broker *b, struct delivery *d)
{
	struct session *s = d->session;

	b->stats.delivered++;
	progress(b, s);
	if (d->qos == 0) {
		delivery_free(b, d);
		return;
	}
	d->sent = true;
	if (d->durable)
		durable_sent(b, d);
	if (d->state == DELIVERY_SIGNING) {
		signer_leave(d);
		leave_pipeline(d);
	} else {
		s->inflight++; /* a plain one, straight from waiting */
	}
	d->state = DELIVERY_SENT;
	list_del(&d->link);
	list_add_tail(&s->sent, &d->link);
	session_mark_dirty(b, s);
}

void delivery_restart(struct broker *b, struct delivery *d, struct message *nack)
{
	struct session *s = d->session;
	struct list *at = s->waiting.next;

	BUG_ON(d->state != DELIVERY_SENT && d->state != DELIVERY_RECENT);
	if (d->qos == 2 && d->state == DELIVERY_SENT) {
		/* Under its id the client would take it for the same message again: it is sent as
		 * another, once this one is received. */
		if (!d->sealed->nack)
			d->sealed->nack = message_get(nack);
		return;
	}
	d->sealed->nacked = true;
	d->sealed->nack = message_get(nack);
	d->dup = d->state == DELIVERY_SENT;
	if (d->state == DELIVERY_RECENT)
		recall(b, d);
	memcpy(d->sealed->x_before, d->sealed->x, sizeof(d->sealed->x));
	leave_state(d);
	list_del(&d->link);
	while (at != &s->waiting && list_entry(at, struct delivery, link)->seq < d->seq)
		at = at->next;
	list_add_tail(at, &d->link);
	session_mark_dirty(b, s);
}

/* Room on its connection. */
static bool has_room(struct broker *b, const struct session *s)
{
	return b->ops.backlog(b->io, s->conn->io) + s->pipeline_bytes <
	       b->config.limits.output_bytes_soft;
}

/* May d leave waiting now? */
static bool may_start(struct broker *b, struct session *s, struct delivery *d)
{
	if (s->n_pipeline >= PIPELINE_MAX)
		return false;
	if (d->qos && s->inflight >= b->config.limits.inflight_max)
		return false;
	if (d->qos && !d->packet_id && !reserve_id(b, s))
		return false;
	return has_room(b, s) && !(d->durable && d->qos == 2 && !durable_may_send(b, d));
}

/* Room in the session's output for what message_form_write() writes; what is shared stands behind
 * it. NULL: none. */
static uint8_t *reserve(struct broker *b, struct session *s, struct message *m,
			const struct message_form *form)
{
	struct bytes shared = message_shared(m);
	size_t n = message_form_bytes(m, form);
	uint8_t *out;

	if (!shared.n)
		return b->ops.out(b->io, s->conn->io, n);
	out = b->ops.out_shared(b->io, s->conn->io, n, shared, message_get(m));
	if (!out)
		message_put(&b->pool, m);
	return out;
}

/* A plain delivery: straight onto the connection. -ENOBUFS: no room there. -ENOMEM: it is tried
 * again. */
static int send_plain(struct broker *b, struct session *s, struct delivery *d)
{
	const struct message_form *form = message_form(&b->pool, d->message, d->qos);
	uint8_t *out;

	if (!form) {
		session_mark_dirty(b, s);
		b->starved = true;
		return -ENOMEM;
	}
	out = reserve(b, s, d->message, form);
	if (!out)
		return -ENOBUFS;
	message_form_write(d->message, form, d->dup, d->retain, delivery_packet_id(s, d), out);
	delivery_sent(b, d);
	return 0;
}

/* The same at QoS 0 without a delivery. */
static bool pass_on(struct broker *b, struct session *s, struct message *m, bool retain)
{
	const struct message_form *form = has_room(b, s) ? message_form(&b->pool, m, 0) : NULL;
	uint8_t *out = form ? reserve(b, s, m, form) : NULL;

	if (!out)
		return false;
	message_form_write(m, form, false, retain, 0, out);
	b->stats.delivered++;
	progress(b, s);
	return true;
}

static struct delivery *delivery_new(struct broker *b, struct session *s, struct message *m,
				     uint8_t qos, bool retain)
{
	size_t n = sizeof(struct delivery) + (m->sealed ? sizeof(struct delivery_sealed) : 0);
	bool durable = durable_wants(s, qos);
	struct delivery *d = durable_alloc(b, durable ? sizeof(struct durable_change) : 0, n);

	if (!d)
		return NULL;
	d->durable = durable;
	list_init(&d->link);
	d->session = s;
	d->message = message_get(m);
	d->seq = ++s->seq_last;
	d->qos = qos;
	d->retain = retain;
	if (m->sealed) {
		d->sealed = (struct delivery_sealed *)(d + 1);
		d->sealed->delivery = d;
		list_init(&d->sealed->wait);
	}
	return d;
}

void delivery_enqueue(struct broker *b, struct session *s, struct message *m, uint8_t qos,
		      bool retain)
{
	struct delivery *d;
	bool first = list_empty(&s->waiting);

	if (!s->conn && qos == 0)
		return;
	if (m->sealed && !reaches(b, s, m)) {
		b->stats.no_grant++;
		return;
	}
	if (first && qos == 0 && !m->sealed && pass_on(b, s, m, retain))
		return;
	if (refuse_full(b, s, m, qos))
		return;
	d = delivery_new(b, s, m, qos, retain);
	if (!d) {
		b->stats.dropped_full++;
		return;
	}
	list_add_tail(&s->waiting, &d->link);
	count(b, d);
	if (d->durable && !durable_queue(b, d)) {
		b->stats.dropped_full++;
		delivery_free(b, d);
		return;
	}
	if (!s->conn)
		return;
	if (!first || m->sealed || !may_start(b, s, d) || send_plain(b, s, d))
		session_mark_dirty(b, s);
}

/* Nothing is asked of the token but the signature. */
static void pass(struct delivery *d)
{
	memcpy(d->sealed->x, d->message->sealed->envelope.x.p, sizeof(d->sealed->x));
}

static int convert(struct broker *b, struct delivery *d, const struct directory_grant *g)
{
	memcpy(d->sealed->grant_id, g->grant_id, GRANT_ID_BYTES);
	d->sealed->grant_flags = g->flags;
	return capsule_convert(b, d, g);
}

int delivery_restore(struct broker *b, struct session *s, struct message *m,
		     const struct broker_commit_delivery *r)
{
	struct delivery *d = delivery_new(b, s, m, r->qos, r->retain);
	bool full = refuse_full(b, s, m, r->qos);
	int err = 0;

	if (!d)
		return -ENOMEM;
	d->seq = s->seq_last = r->seq;
	list_add_tail(&s->waiting, &d->link);
	count(b, d);
	if (!durable_restore_delivery(b, d, r->packet_id))
		err = -ENOMEM;
	else if (r->packet_id && !full)
		err = outgoing_restore(&b->pool, &s->outgoing, r->packet_id, d);
	if (err == -EEXIST)
		err = -EBADMSG;
	if (!err && !full)
		d->packet_id = r->packet_id;
	d->sent = d->packet_id; /* perhaps, and its client may know */
	d->dup = true; /* it may have been sent, and that is what DUP says [MQTT-3.3.1-1] */
	if (err || full)
		delivery_free(b, d);
	return err;
}

/* A sealed one sets out on its conversion. -ENOMEM: it is tried again. */
static int start_sealed(struct broker *b, struct session *s, struct delivery *d)
{
	struct way way = way_of(b, s, d->message);
	int err = 0;

	if (!way.passed && !way.grant) {
		b->stats.no_grant++;
		delivery_free(b, d);
		return 0;
	}
	list_del(&d->link);
	list_add_tail(&s->converting, &d->link);
	d->state = DELIVERY_CONVERTED;
	enter_pipeline(d);
	s->inflight += d->qos > 0;
	d->sealed->passed = way.passed;
	if (way.passed)
		pass(d);
	else
		err = convert(b, d, way.grant);
	if (err) {
		leave_state(d);
		list_del(&d->link);
		list_add_head(&s->waiting, &d->link);
		session_mark_dirty(b, s);
		b->starved = true;
		return -ENOMEM;
	}
	deliveries_advance(b, s);
	return 0;
}

static void pump(struct broker *b, struct session *s)
{
	struct delivery *d;
	int err;

	/* Nothing is converted under a bundle that ran out; with the next one it goes on. Nor for
	 * one who is yet to be told of its grants. */
	if (!b->config.plain && s->conn &&
	    (!directory_in_force(b->directory, b->wall_ms) || !updates_told(b, s->conn)))
		return;
	while (s->conn && (d = list_first(&s->waiting, struct delivery, link)) &&
	       may_start(b, s, d)) {
		err = d->sealed ? start_sealed(b, s, d) : send_plain(b, s, d);
		if (err == -ENOBUFS)
			conn_fail(s->conn, "its output is full");
		if (err)
			return;
	}
}

void deliveries_pump(struct broker *b)
{
	struct list now;

	list_init(&now);
	list_splice_tail(&now, &b->sessions.dirty);
	while (!list_empty(&now)) {
		struct session *s = list_first(&now, struct session, dirty);

		list_del(&s->dirty);
		pump(b, s);
	}
}

/* After a nack: the same conversion again is the sender's doing, not ours (PROTOCOL 7). */
static bool nack_stands(struct broker *b, struct delivery *d)
{
	struct message *nack = take_nack(d);
	bool same = memcmp(d->sealed->x, d->sealed->x_before, sizeof(d->sealed->x)) == 0;
	bool stands = same && nack->payload.p[0] == CONTROL_CANNOT_OPEN;

	if (stands)
		control_report_sender(b, d, nack);
	message_put(&b->pool, nack);
	return stands;
}

/* It is not sent again: it still waits for its acknowledgement, unless it had that before or
 * meanwhile. */
static void stand_still(struct broker *b, struct delivery *d)
{
	struct session *s = d->session;

	if (!d->sent || d->sealed->acknowledged) { /* it may have an id, and not be sent */
		delivery_free(b, d);
		return;
	}
	leave_pipeline(d);
	d->state = DELIVERY_SENT;
	list_add_tail(&s->sent, &d->link);
	session_mark_dirty(b, s); /* there is room in the pipeline */
}

void deliveries_advance(struct broker *b, struct session *s)
{
	struct delivery *d;

	while ((d = list_first(&s->converting, struct delivery, link)) &&
	       d->state == DELIVERY_CONVERTED) {
		list_del(&d->link);
		if (d->sealed->nack && nack_stands(b, d)) {
			stand_still(b, d);
			continue;
		}
		d->state = DELIVERY_SIGNING;
		list_add_tail(&s->signing, &d->link);
		signer_add(b, d);
	}
}
