// SPDX-License-Identifier: MIT
#include "userspace/broker/reply.h"

#include <string.h>

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"

struct reply {
	struct list wait;
	struct broker_conn *conn; /* counted */
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

static void reply_free(struct broker *b, struct reply *r)
{
	struct broker_conn *c = r->conn;

	list_del(&r->wait);
	pool_free(&b->pool, r);
	if (--c->n_replies <= b->config.limits.verify_pending_max / 2)
		conn_resume(c, CONN_PAUSE_REPLIES);
	conn_put(c);
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
	conn_get(c);
	r->conn = c;
	r->n = packet.n;
	memcpy(r->packet, packet.p, packet.n);
	list_init(&r->wait);
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
		if (r->conn->state == CONN_OPEN)
			give(r->conn, bytes_of(r->packet, r->n));
		reply_free(b, r);
	}
}

void replies_deinit(struct broker *b)
{
	struct list *all[] = { &b->commit.replies.next, &b->commit.replies.out };

	for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
		while (!list_empty(all[i]))
			reply_free(b, list_first(all[i], struct reply, wait));
}
