// SPDX-License-Identifier: MIT
#include "userspace/broker/reply.h"

#include <string.h>

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"

struct reply {
	struct list link; /* in the connection's, in order */
	struct list wait; /* in replies.next or replies.out */
	struct broker_conn *conn;
	size_t n;
	uint8_t packet[];
};

void replies_init(struct replies *r)
{
	list_init(&r->next);
	list_init(&r->out);
}

static void give(struct broker_conn *c, struct bytes packet)
{
	uint8_t *out = conn_out(c, packet.n);

	if (out)
		memcpy(out, packet.p, packet.n);
}

static void take_out(struct broker *b, struct reply *r)
{
	struct broker_conn *c = r->conn;

	list_del(&r->link);
	list_del(&r->wait);
	if (--c->n_replies <= b->config.limits.verify_pending_max / 2)
		conn_resume(c, CONN_PAUSE_REPLIES);
}

void reply_send(struct broker_conn *c, struct bytes packet, bool wait)
{
	struct broker *b = c->broker;
	struct reply *r;

	if (c->state == CONN_CLOSED)
		return;
	if (!c->n_replies && !wait)
		return give(c, packet);
	r = pool_alloc(&b->pool, sizeof(*r) + packet.n);
	if (!r)
		return conn_fail(c, "no memory for its answer");
	r->conn = c;
	r->n = packet.n;
	memcpy(r->packet, packet.p, packet.n);
	list_init(&r->link);
	list_init(&r->wait);
	list_add_tail(&c->replies, &r->link);
	list_add_tail(&b->commit.replies.next, &r->wait);
	if (++c->n_replies >= b->config.limits.verify_pending_max)
		conn_pause(c, CONN_PAUSE_REPLIES);
}

void replies_formed(struct broker *b)
{
	list_splice_tail(&b->commit.replies.out, &b->commit.replies.next);
}

void replies_release(struct broker *b, struct list *replies)
{
	struct reply *r;

	while ((r = list_first(replies, struct reply, wait))) {
		take_out(b, r); /* first: giving it may end the connection, and with it the rest */
		give(r->conn, bytes_of(r->packet, r->n));
		pool_free(&b->pool, r);
	}
}

void replies_close(struct broker_conn *c)
{
	struct reply *r;

	while ((r = list_first(&c->replies, struct reply, link))) {
		take_out(c->broker, r);
		pool_free(&c->broker->pool, r);
	}
}
