// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "userspace/broker/durable.h"
#include "userspace/broker/engine.h"
#include "userspace/crypto/publish.h"

/* What a number stands for. */
struct durable_found {
	UT_hash_handle hh;
	uint64_t number;
	struct session *session; /* NULL: it was dropped, */
	struct message *message; /* or this is a message, counted */
};

static struct durable_found *find(struct durable_found *table, uint64_t number)
{
	struct durable_found *f;

	HASH_FIND(hh, table, &number, sizeof(number), f);
	return f;
}

/* NULL: no memory. */
static struct durable_found *add(struct broker *b, struct durable_found **table, uint64_t number)
{
	struct durable_found *f = pool_zalloc(&b->pool, sizeof(*f));

	if (!f)
		return NULL;
	f->number = number;
	table_oom = false;
	HASH_ADD(hh, *table, number, sizeof(f->number), f);
	if (!table_oom)
		return f;
	pool_free(&b->pool, f);
	return NULL;
}

static void free_table(struct broker *b, struct durable_found **table)
{
	struct durable_found *f, *tmp;

	HASH_ITER(hh, *table, f, tmp) {
		HASH_DELETE(hh, *table, f);
		message_put(&b->pool, f->message);
		pool_free(&b->pool, f);
	}
}

void durable_found_free(struct broker *b)
{
	free_table(b, &b->durable.found_sessions);
	free_table(b, &b->durable.found_messages);
}

/* --- sessions --------------------------------------------------------------------------------- */

/* May it live on? Says why not. */
static bool may_return(struct broker *b, struct bytes id)
{
	const struct directory_party *p =
		b->config.plain ? NULL : directory_party(b->directory, id);

	if (!b->config.plain && (!p || !p->roles)) {
		broker_note(b, "not restored", id, "it is not enrolled any more");
		return false;
	}
	if (b->sessions.n < b->config.limits.sessions_max)
		return true;
	broker_note(b, "not restored", id, "there are too many sessions");
	return false;
}

/* It has a row, and this number. */
static void adopt(struct broker *b, struct durable_session *d, uint64_t number)
{
	list_del(&d->link);
	d->number = number;
	d->stored = true;
}

static int drop(struct broker *b, uint64_t number)
{
	struct durable_session *d = pool_zalloc(&b->pool, sizeof(*d));

	if (!d)
		return -ENOMEM;
	list_init(&d->link);
	adopt(b, d, number);
	list_add_tail(&b->durable.gone, &d->link);
	b->durable.urgent = true;
	return 0;
}

int broker_restore_session(struct broker *b, const struct broker_commit_session *r)
{
	struct bytes id = bytes_of(r->id, strnlen(r->id, sizeof(r->id)));
	struct durable_found *f;

	if (!id.n || id.n == sizeof(r->id) || session_find(b, id) ||
	    find(b->durable.found_sessions, r->number))
		return -EBADMSG;
	f = add(b, &b->durable.found_sessions, r->number);
	if (!f)
		return -ENOMEM;
	if (!may_return(b, id)) {
		if (r->number > b->durable.session_last)
			b->durable.session_last = r->number;
		return drop(b, r->number);
	}
	f->session = session_new(b, id, false);
	if (!f->session)
		return -ENOMEM;
	adopt(b, f->session->durable, r->number);
	if (r->number > b->durable.session_last)
		b->durable.session_last = r->number;
	f->session->outgoing.id_last = f->session->durable->packet_id = r->packet_id;
	f->session->updates.asks = true; /* perhaps */
	f->session->party = b->config.plain ? NULL : directory_party(b->directory, id);
	return 0;
}

/* -EBADMSG: nobody's. *ret_s is NULL where the session was dropped, and its rows with it. */
static int session_of(struct broker *b, uint64_t number, struct session **ret_s)
{
	const struct durable_found *f = find(b->durable.found_sessions, number);

	if (!f)
		return -EBADMSG;
	*ret_s = f->session;
	return 0;
}

void durable_restore_subscription(struct session *s, struct subscription *sub, uint64_t number)
{
	struct durable_change *c = durable_of(sub);

	list_init(&c->link);
	c->kind = DURABLE_SUBSCRIPTION;
	c->state = DURABLE_STORED;
	c->commit = 1; /* it has a row */
	container_of(c, struct durable_subscription, change)->number = number;
	if (number > s->durable->subscription_last)
		s->durable->subscription_last = number;
}

int broker_restore_subscription(struct broker *b, const struct broker_commit_subscription *r)
{
	struct session *s;
	int err = session_of(b, r->session, &s);

	return err || !s ? err : session_restore_subscription(b, s, r);
}

/* --- messages --------------------------------------------------------------------------------- */

/* As verify.c and ingress.c left it; that its signature holds was seen then. */
static int reopen(struct message *m)
{
	struct publish_trailer t;

	struct envelope e;
	struct p256_point point;

	if (!m->sealed->sender.n || publish_split(m->payload, &t) || envelope_parse(t.body, &e) ||
	    (e.level ? p256_point_lift(e.x.p, &point) : p256_point_decompress(e.enc, &point)))
		return -EBADMSG;
	message_opened(m, &t, &e, &point);
	return 0;
}

int broker_restore_message(struct broker *b, const struct broker_commit_message *r)
{
	const struct mqtt_publish p = {
		.qos = r->qos,
		.retain = r->retain,
		.topic = r->topic,
		.payload = r->payload,
	};
	struct durable_found *f;

	if (r->sealed == b->config.plain)
		return -EPROTO;
	if (!r->number || r->qos > 2 || !mqtt_topic_name_ok(r->topic) ||
	    find(b->durable.found_messages, r->number))
		return -EBADMSG;
	f = add(b, &b->durable.found_messages, r->number);
	if (f)
		f->message = message_new(&b->pool, &p, r->sender, r->sealed);
	if (!f || !f->message || !durable_message_get(b, f->message))
		return -ENOMEM;
	/* It has a row; one that nothing names goes with broker_restore_end(). */
	list_del(&f->message->durable->link);
	f->message->durable->number = r->number;
	if (r->number > b->durable.message_last)
		b->durable.message_last = r->number;
	return r->sealed ? reopen(f->message) : 0;
}

bool durable_restore_delivery(struct broker *b, struct delivery *d, uint16_t packet_id)
{
	struct durable_change *c = durable_of(d);

	list_init(&c->link);
	c->kind = DURABLE_DELIVERY;
	if (!durable_message_get(b, d->message))
		return false;
	c->packet_id = packet_id;
	c->state = DURABLE_STORED;
	return true;
}

int broker_restore_delivery(struct broker *b, const struct broker_commit_delivery *r)
{
	const struct durable_found *f = find(b->durable.found_messages, r->message);
	struct session *s;
	int err = session_of(b, r->session, &s);

	if (err || !s)
		return err;
	if (!f || r->qos < 1 || r->qos > 2 || r->seq <= s->seq_last)
		return -EBADMSG;
	return delivery_restore(b, s, f->message, r);
}

/* --- packet ids ------------------------------------------------------------------------------- */

int broker_restore_release(struct broker *b, const struct broker_commit_release *r)
{
	struct durable_release *d;
	struct session *s;
	int err = session_of(b, r->session, &s);

	if (err || !s)
		return err;
	d = pool_zalloc(&b->pool, sizeof(*d));
	if (!d)
		return -ENOMEM;
	list_init(&d->change.link);
	d->change.kind = DURABLE_RELEASE;
	d->change.state = DURABLE_STORED;
	d->change.packet_id = r->packet_id;
	d->place = s->durable->place_last = r->place;
	err = r->packet_id ? outgoing_restore(&b->pool, &s->outgoing, r->packet_id, NULL) : -EEXIST;
	if (err) {
		pool_free(&b->pool, d);
		return err == -EEXIST ? -EBADMSG : err;
	}
	outgoing_release(&s->outgoing, r->packet_id, &d->change);
	s->inflight++;
	return 0;
}

int broker_restore_incoming(struct broker *b, const struct broker_commit_incoming *r)
{
	struct session *s;
	int err = session_of(b, r->session, &s);

	if (err || !s)
		return err;
	if (!r->packet_id || incoming_has(s->incoming, r->packet_id))
		return -EBADMSG;
	return incoming_add(&b->pool, &s->incoming, r->packet_id) ? 0 : -ENOMEM;
}

/* --- what is retained ------------------------------------------------------------------------- */

void durable_restore_retained(struct retained_message *kept)
{
	struct durable_retained *d = durable_of_retained(kept);

	list_init(&d->link);
	d->stored = retained_of(kept)->durable->number;
}

int broker_restore_retained(struct broker *b, const struct broker_commit_retained *r)
{
	const struct durable_found *f = find(b->durable.found_messages, r->message);

	return f ? retained_restore(b, f->message) : -EBADMSG;
}

void broker_restore_end(struct broker *b)
{
	struct durable_found *f, *tmp;

	HASH_ITER(hh, b->durable.found_messages, f, tmp)
		durable_message_put(b, f->message);
	b->durable.urgent |= !list_empty(&b->durable.dead);
	durable_found_free(b);
}
