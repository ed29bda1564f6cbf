// SPDX-License-Identifier: MIT
#include "userspace/distributor/relay.h"

#include <string.h>

#include "userspace/base/text.h"
#include "userspace/distributor/alloc.h"
#include "userspace/distributor/rename.h"

#define REASON_BAD_SIGNATURE 1
#define REASON_UNAVAILABLE   6

#define TRAILER_BYTES_MAX PUBLISH_TRAILER_2_BYTES(MERKLE_STEPS_MAX(RELAY_BATCH_MAX))

struct relay *relay_new(const struct relay_ops *ops, void *io, const struct relay_limits *l,
			struct plan *plan, uint64_t mono_ms, uint64_t unix_ms)
{
	struct relay *r = alloc_zeroed(sizeof(*r));

	BUG_ON(!l->window || l->window > RELAY_WINDOW_MAX);
	r->ops = ops;
	r->io = io;
	r->limits = *l;
	r->plan = plan_get(plan);
	r->mono_ms = mono_ms;
	r->unix_ms = unix_ms;
	r->packet_id_next = 1;
	asks_init(&r->asks, ops->token, io, mono_ms);
	judge_init(&r->judge);
	aliases_init(&r->aliases, l->names_max);
	capsules_init(&r->capsules, l->capsules_max);
	list_init(&r->work);
	list_init(&r->acks);
	list_init(&r->orphans);
	list_init(&r->ready);
	list_init(&r->batches);
	list_init(&r->unsent);
	list_init(&r->sent);
	return r;
}

/* --- the end of things ------------------------------------------------------------------------ */

static void delivery_free(struct delivery *d)
{
	d->relay->n_deliveries--;
	list_del(&d->link);
	list_del(&d->ack);
	list_del(&d->mark_wait.link);
	for (unsigned i = 0; i < d->n; i++) {
		list_del(&d->outgoings[i].link);
		list_del(&d->outgoings[i].capsule_wait);
		list_del(&d->outgoings[i].name_wait.link);
		free(d->outgoings[i].bytes);
	}
	plan_put(d->plan);
	free(d->payload);
	free(d);
}

/* PUBACKs in the order of the deliveries, as far as all is done [MQTT-4.6.0-2]. */
static void acknowledge(struct relay *r)
{
	struct delivery *d;

	while ((d = list_first(&r->acks, struct delivery, ack)) && !d->n_open) {
		r->ops->puback(r->io, d->packet_id);
		r->stats.acknowledged_upstream++;
		delivery_free(d);
	}
}

/* Nothing is open any more: it waits for its turn to be acknowledged, or for nothing. */
static void delivery_over(struct delivery *d)
{
	struct relay *r = d->relay;

	if (!d->qos || d->orphan)
		delivery_free(d);
	else
		acknowledge(r);
}

static void outgoing_over(struct outgoing *o)
{
	struct delivery *d = o->delivery;

	list_del(&o->link);
	o->state = OUTGOING_VOID;
	free(o->bytes);
	o->bytes = NULL;
	if (!--d->n_open)
		delivery_over(d);
}

/* --- waiting ---------------------------------------------------------------------------------- */

void delivery_waited(struct delivery *d)
{
	BUG_ON(!d->n_waits);
	d->n_waits--;
}

void outgoing_waited(struct outgoing *o)
{
	delivery_waited(o->delivery);
}

void outgoing_void(struct outgoing *o)
{
	o->state = OUTGOING_VOID;
	delivery_waited(o->delivery);
}

/* --- in --------------------------------------------------------------------------------------- */

static struct delivery *delivery_new(struct relay *r, const struct mqtt_publish *p,
				     const struct judged *judged)
{
	unsigned n = judged->hop ? judged->hop->n_outlets : 0;
	struct delivery *d = alloc_zeroed(sizeof(*d) + n * sizeof(d->outgoings[0]));

	list_init(&d->link);
	list_init(&d->ack);
	list_init(&d->mark_wait.link);
	d->relay = r;
	d->plan = plan_get(r->plan);
	d->hop = judged->hop;
	d->qos = p->qos;
	d->packet_id = p->packet_id;
	d->retain = judged->retain;
	d->mark_wait.delivery = d;
	d->mark_wait.to = d->mark;
	d->n = n;
	for (unsigned i = 0; i < n; i++) {
		struct outgoing *o = &d->outgoings[i];

		list_init(&o->link);
		list_init(&o->capsule_wait);
		list_init(&o->name_wait.link);
		o->delivery = d;
		o->outlet = &r->plan->outlets[judged->hop->first_outlet + i];
		o->name_wait.delivery = d;
		o->name_wait.to = o->external;
	}
	r->n_deliveries++;
	if (d->qos)
		list_add_tail(&r->acks, &d->ack);
	return d;
}

/* Its own copy of what it was judged by. */
static void keep_message(struct delivery *d, const struct mqtt_publish *p, const struct envelope *e)
{
	struct bytes body = e->whole;

	d->payload = alloc_zeroed(body.n + p->topic.n);
	memcpy(d->payload, body.p, body.n);
	memcpy(d->payload + body.n, p->topic.p, p->topic.n);
	d->topic = bytes_of(d->payload + body.n, p->topic.n);
	/* It parsed: the same bytes parse again. */
	BUG_ON(envelope_parse(bytes_of(d->payload, body.n), &d->e));
}

static bool outlet_takes(const struct outgoing *o, uint64_t unix_ms)
{
	const struct record_grant *g = &o->outlet->outlet.grant;

	return !o->outlet->broken && record_valid_at(g->not_before_ms, g->not_after_ms, unix_ms);
}

/* Asks for all that its outgoings need. What is at hand is there at once. */
static void begin(struct relay *r, struct delivery *d)
{
	d->n_open = d->n;
	list_add_tail(&r->work, &d->link);
	d->n_waits += !alias_mark(r, d->e.origin, &d->mark_wait);
	for (unsigned i = 0; i < d->n; i++) {
		struct outgoing *o = &d->outgoings[i];
		const struct bundle_outlet *b = &o->outlet->outlet;

		if (!outlet_takes(o, r->unix_ms)) {
			o->state = OUTGOING_VOID;
			continue;
		}
		if (!capsule_convert(r, o, d->e.x))
			d->n_waits += o->state != OUTGOING_VOID;
		if (o->state != OUTGOING_VOID)
			d->n_waits += !alias_external(r, b->domain, b->rotate_seconds, d->e.origin,
						      &o->name_wait);
	}
}

/* The same message, still under way since an earlier session: it is that session's no more. */
static bool adopt(struct relay *r, const struct mqtt_publish *p, const struct envelope *e)
{
	struct list *pos;

	list_for_each(pos, &r->orphans) {
		struct delivery *d = list_entry(pos, struct delivery, ack);

		if (d->e.counter != e->counter || !bytes_equal(d->e.origin, e->origin) ||
		    !bytes_equal(d->topic, p->topic) || !bytes_equal(d->e.bind, e->bind))
			continue;
		list_del(&d->ack);
		list_add_tail(&r->acks, &d->ack);
		d->orphan = false;
		d->packet_id = p->packet_id;
		r->stats.adopted++;
		return true;
	}
	return false;
}

static void refuse(struct relay *r, const struct mqtt_publish *p, const struct judged *judged,
		   enum judge_verdict v)
{
	struct bytes words = bytes_str(judge_words(v));

	r->stats.refused++;
	r->ops->note(r->io, RELAY_NOTE_REFUSED, words);
	if (judged->e.origin.n)
		r->ops->report(r->io, judge_reason(v), judged->e.counter, judged->e.origin, words);
	if (!p->qos)
		return;
	/* It takes its place in the order of acknowledgements. */
	(void)delivery_new(r, p, &(struct judged){ .hop = NULL });
	acknowledge(r);
}

bool relay_deliver(struct relay *r, const struct mqtt_publish *p)
{
	struct judged judged;
	enum judge_verdict v;
	struct delivery *d;

	r->stats.received++;
	r->stats.repeated += p->dup;
	v = judge_delivery(&r->judge, r->plan, p, r->unix_ms, &judged);
	if (v == JUDGE_NOT_BROKERS || v == JUDGE_TROUBLE)
		return false;
	if (v != JUDGE_OK) {
		refuse(r, p, &judged, v);
		return true;
	}
	if (p->qos && adopt(r, p, &judged.e))
		return true;
	if (!p->qos && r->n_deliveries >= r->limits.messages_max) {
		r->stats.dropped_qos0++;
		r->ops->note(r->io, RELAY_NOTE_DROPPED, bytes_of(NULL, 0));
		return true;
	}
	r->stats.no_outlet += !judged.hop->n_outlets;
	d = delivery_new(r, p, &judged);
	if (!d->n) {
		delivery_over(d);
		return true;
	}
	keep_message(d, p, &judged.e);
	begin(r, d);
	return true;
}

/* --- building --------------------------------------------------------------------------------- */

static bool covered(const struct record_grant *g, struct bytes topic)
{
	for (unsigned i = 0; i < g->n_filters; i++)
		if (record_filter_matches(g->filters[i], topic))
			return true;
	return false;
}

/* PROTOCOL 12: level, grant id and x are ours, origin is the external id, proof is empty and salt
 * zeros; all else, and the ciphertext, stays. */
static void write_body(const struct delivery *d, const struct outgoing *o, struct bytes origin,
		       struct bytes_writer *w)
{
	const size_t salt_at = (size_t)(d->e.salt.p - d->e.whole.p);
	struct envelope_block block = {
		.grant = bytes_of(o->outlet->outlet.grant.grant_id, GRANT_ID_BYTES),
		.x = bytes_of(o->x, sizeof(o->x)),
		.origin = origin,
	};
	uint8_t *head = w->p;

	envelope_raise_head(&d->e, &block, w);
	bytes_write(w, d->e.ct);
	BUG_ON(w->bad);
	memset(head + salt_at, 0, ENVELOPE_SALT_BYTES);
}

/* Topic and body, with room for the trailer. False: it has no public topic there. */
static bool build(struct outgoing *o)
{
	const struct delivery *d = o->delivery;
	const struct bundle_outlet *b = &o->outlet->outlet;
	char text[IDTABLE_EXTERNAL_DIGITS + 1];
	struct bytes name, topic;
	struct bytes_writer w;
	size_t room;

	name = bytes_str(text_hex(bytes_of(o->external, sizeof(o->external)), text));
	o->topic_n = rename_bytes(b->prefix, d->topic, d->e.origin, name.n);
	if (o->topic_n > RENAME_TOPIC_BYTES_MAX)
		return false;
	room = o->topic_n + d->e.whole.n + ENVELOPE_ORIGIN_BYTES_MAX + TRAILER_BYTES_MAX;
	o->bytes = alloc_zeroed(room);
	w = bytes_writer_of(o->bytes, room);
	rename_write(b->prefix, d->topic, d->e.origin, name, &w);
	topic = bytes_of(o->bytes, o->topic_n);
	BUG_ON(w.bad || w.used != o->topic_n);
	if (!covered(&b->grant, topic))
		return false;
	write_body(d, o, name, &w);
	o->body_n = w.used - o->topic_n;
	return true;
}

static uint8_t first_of(const struct outgoing *o)
{
	return mqtt_publish_first(o->delivery->qos, o->delivery->retain, false);
}

/* All that it waited for is there. */
static void leave_work(struct relay *r, struct delivery *d)
{
	list_del(&d->link);
	d->n_open++; /* ours, until each of them is looked at */
	for (unsigned i = 0; i < d->n; i++) {
		struct outgoing *o = &d->outgoings[i];
		bool gone = d->plan != r->plan && !plan_has(r->plan, o->outlet);

		if (o->state == OUTGOING_VOID || gone || !build(o)) {
			r->stats.withdrawn++;
			outgoing_over(o);
			continue;
		}
		o->state = OUTGOING_SIGNING;
		list_add_tail(&r->ready, &o->link);
	}
	if (!--d->n_open)
		delivery_over(d);
}

static void advance(struct relay *r)
{
	struct delivery *d;

	while ((d = list_first(&r->work, struct delivery, link)) && !d->n_waits)
		leave_work(r, d);
}

/* --- signing ---------------------------------------------------------------------------------- */

static struct publish publish_of(const struct outgoing *o)
{
	return (struct publish){
		.first = first_of(o),
		.topic = bytes_of(o->bytes, o->topic_n),
		.body = { bytes_of(o->bytes + o->topic_n, o->body_n) },
		.body_parts = 1,
		.client_id = o->delivery->relay->plan->bundle.id,
	};
}

static void write_trailer(const struct batch *b, unsigned i)
{
	struct merkle m = { .nodes = (uint8_t(*)[HASH_BYTES])b->nodes, .size = (uint16_t)b->n };
	struct outgoing *o = b->outgoings[i];
	struct bytes_writer w =
		bytes_writer_of(o->bytes + o->topic_n + o->body_n, TRAILER_BYTES_MAX);

	if (b->n == 1)
		publish_write_trailer_1(b->ask.job.output, &w);
	else
		publish_write_trailer_2(b->ask.job.output, &m, (uint16_t)i, &w);
	BUG_ON(w.bad);
	o->payload_n = o->body_n + w.used;
}

/* Batches that are signed, as far as the first that is not. */
static void finish_batches(struct relay *r)
{
	struct batch *b;

	while ((b = list_first(&r->batches, struct batch, link)) && b->done) {
		for (unsigned i = 0; i < b->n; i++) {
			write_trailer(b, i);
			b->outgoings[i]->state = OUTGOING_UNSENT;
			list_add_tail(&r->unsent, &b->outgoings[i]->link);
		}
		list_del(&b->link);
		r->n_batches--;
		free(b);
	}
}

static void batch_signed(struct ask *a)
{
	struct batch *b = container_of(a, struct batch, ask);

	if (a->job.status != HSM_OK) {
		ask_later(a);
		return;
	}
	b->done = true;
	finish_batches(b->relay);
}

static void batch_digest(struct batch *b, uint8_t digest[HASH_BYTES])
{
	struct merkle m;

	for (unsigned i = 0; i < b->n; i++) {
		struct publish p = publish_of(b->outgoings[i]);

		if (b->n == 1) {
			publish_digest(&p, digest);
			return;
		}
		publish_leaf(&p, b->nodes[i]);
	}
	merkle_build(&m, b->nodes, (uint16_t)b->n);
	publish_root_digest(merkle_root(&m), digest);
}

static void sign(struct relay *r)
{
	while (!list_empty(&r->ready) && r->n_batches < RELAY_BATCHES_OUT) {
		struct batch *b = alloc_zeroed(sizeof(*b));
		struct outgoing *o;

		b->relay = r;
		while (b->n < RELAY_BATCH_MAX &&
		       (o = list_first(&r->ready, struct outgoing, link))) {
			list_del(&o->link);
			b->outgoings[b->n++] = o;
		}
		ask_init(&b->ask, &r->asks);
		b->ask.job.op = HSM_SIGN;
		b->ask.answered = batch_signed;
		batch_digest(b, b->ask.job.input);
		list_add_tail(&r->batches, &b->link);
		r->n_batches++;
		r->stats.signatures++;
		ask_submit(&b->ask);
	}
}

/* --- out -------------------------------------------------------------------------------------- */

static void sighted(struct relay *r, const struct outgoing *o)
{
	const struct delivery *d = o->delivery;
	struct bytes prefix = o->outlet->outlet.prefix;
	size_t n = rename_bytes(prefix, d->topic, d->e.origin, 1);
	struct relay_sight s = { .outlet = o->outlet->outlet.name,
				 .plain_n = d->e.ct.n - HPKE_TAG_BYTES };
	uint8_t *topic = alloc_zeroed(n);
	struct bytes_writer w = bytes_writer_of(topic, n);

	rename_write(prefix, d->topic, d->e.origin, bytes_str("+"), &w);
	BUG_ON(w.bad);
	s.topic = bytes_of(topic, n);
	memcpy(s.mark, d->mark, sizeof(s.mark));
	r->ops->sight(r->io, &s);
	free(topic);
}

/* Not in use. What was sent before and is to be sent again stands in front of what never was, so
 * all ids that are in use are in `sent` when one is drawn. */
static uint16_t packet_id(struct relay *r)
{
	for (;;) {
		uint16_t id = r->packet_id_next;
		struct list *pos;
		bool used = false;

		r->packet_id_next = id == RELAY_PACKET_ID_MAX ? 1 : (uint16_t)(id + 1);
		list_for_each(pos, &r->sent)
			used |= list_entry(pos, struct outgoing, link)->packet_id == id;
		if (!used)
			return id;
	}
}

static void send_one(struct relay *r, struct outgoing *o)
{
	struct mqtt_publish p = {
		.dup = o->again,
		.retain = o->delivery->retain,
		.qos = o->delivery->qos,
		.topic = bytes_of(o->bytes, o->topic_n),
		.payload = bytes_of(o->bytes + o->topic_n, o->payload_n),
	};

	list_del(&o->link);
	r->stats.published++;
	r->stats.published_again += o->again;
	if (p.qos) {
		if (!o->packet_id)
			o->packet_id = packet_id(r);
		p.packet_id = o->packet_id;
		o->state = OUTGOING_SENT;
		o->again = true;
		list_add_tail(&r->sent, &o->link);
		r->n_sent++;
		r->ops->publish(r->io, &p);
		return;
	}
	r->ops->publish(r->io, &p);
	sighted(r, o);
	outgoing_over(o);
}

static void send_out(struct relay *r)
{
	struct outgoing *o;

	while (r->downstream && (o = list_first(&r->unsent, struct outgoing, link))) {
		if (o->delivery->plan != r->plan && !plan_has(r->plan, o->outlet)) {
			r->stats.withdrawn++;
			outgoing_over(o);
			continue;
		}
		if (o->delivery->qos && r->n_sent >= r->limits.window)
			return;
		send_one(r, o);
	}
}

void relay_acknowledged(struct relay *r, uint16_t packet_id)
{
	struct list *pos;

	list_for_each(pos, &r->sent) {
		struct outgoing *o = list_entry(pos, struct outgoing, link);

		if (o->packet_id != packet_id)
			continue;
		r->n_sent--;
		r->stats.acknowledged_downstream++;
		sighted(r, o);
		outgoing_over(o);
		return;
	}
}

bool relay_error(struct relay *r, uint8_t reason)
{
	r->stats.errors++;
	/* PROTOCOL 7: neither of the two is an acknowledgement. At QoS 0 nothing waits for one. */
	return (reason != REASON_UNAVAILABLE && reason != REASON_BAD_SIGNATURE) ||
	       list_empty(&r->sent);
}

/* --- sessions --------------------------------------------------------------------------------- */

void relay_upstream(struct relay *r, bool open)
{
	struct delivery *d;

	r->upstream = open;
	if (open)
		return;
	while ((d = list_first(&r->acks, struct delivery, ack))) {
		list_del(&d->ack);
		if (!d->n_open) {
			delivery_free(d);
			continue;
		}
		d->orphan = true;
		list_add_tail(&r->orphans, &d->ack);
	}
}

void relay_downstream(struct relay *r, bool open)
{
	r->downstream = open;
	if (open)
		return;
	/* What was sent goes first, in its order, under its packet ids [MQTT-4.4.0-1]. */
	list_splice_tail(&r->sent, &r->unsent);
	list_splice_tail(&r->unsent, &r->sent);
	for (struct list *pos = r->unsent.next; r->n_sent; pos = pos->next, r->n_sent--)
		list_entry(pos, struct outgoing, link)->state = OUTGOING_UNSENT;
}

/* --- time ------------------------------------------------------------------------------------- */

void relay_tick(struct relay *r, uint64_t mono_ms, uint64_t unix_ms)
{
	r->mono_ms = mono_ms;
	r->unix_ms = unix_ms;
	asks_tick(&r->asks, mono_ms);
}

void relay_turn(struct relay *r)
{
	if (!list_empty(&r->aliases.fresh) && r->mono_ms >= r->commit_at_ms) {
		aliases_commit(r);
		if (!list_empty(&r->aliases.fresh))
			r->commit_at_ms = r->mono_ms + RELAY_COMMIT_RETRY_MS;
	}
	advance(r);
	sign(r);
	send_out(r);
}

uint64_t relay_due_ms(const struct relay *r)
{
	uint64_t at_ms = asks_due_ms(&r->asks);

	if (!list_empty(&r->aliases.fresh) && r->commit_at_ms < at_ms)
		at_ms = r->commit_at_ms;
	return at_ms;
}

bool relay_idle(const struct relay *r)
{
	return !r->n_deliveries;
}

/* --- another bundle --------------------------------------------------------------------------- */

void relay_plan(struct relay *r, struct plan *plan)
{
	struct plan *old = r->plan;

	r->plan = plan_get(plan);
	judge_forget(&r->judge);
	for (unsigned i = 0; i < old->n_outlets; i++)
		if (!plan_has(plan, &old->outlets[i]))
			r->ops->forget(r->io, old->outlets[i].outlet.grant.grant_id);
	capsules_plan(r);
	plan_put(old);
}

void relay_free(struct relay *r)
{
	struct list *all[] = { &r->work, &r->acks, &r->orphans, &r->ready, &r->unsent, &r->sent };
	struct batch *b;

	if (!r)
		return;
	while ((b = list_first(&r->batches, struct batch, link))) {
		BUG_ON(!ask_cancel(&b->ask));
		for (unsigned i = 0; i < b->n; i++)
			list_add_tail(&r->ready, &b->outgoings[i]->link);
		list_del(&b->link);
		free(b);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
		while (!list_empty(all[i])) {
			struct list *node = all[i]->next;

			if (i == 0)
				delivery_free(list_entry(node, struct delivery, link));
			else if (i <= 2)
				delivery_free(list_entry(node, struct delivery, ack));
			else
				delivery_free(list_entry(node, struct outgoing, link)->delivery);
		}
	}
	capsules_deinit(&r->capsules);
	aliases_deinit(&r->aliases);
	plan_put(r->plan);
	free(r);
}
