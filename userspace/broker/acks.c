// SPDX-License-Identifier: MIT
#include "userspace/broker/acks.h"

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"

struct ack *ack_new(struct broker_conn *c, uint8_t qos, uint16_t packet_id)
{
	struct broker *b = c->broker;
	struct ack *a;

	if (qos == 0 || c->state != CONN_OPEN)
		return NULL;
	a = pool_zalloc(&b->pool, sizeof(*a));
	if (!a) {
		conn_fail(c, "no memory for its acknowledgement");
		return NULL;
	}
	conn_get(c);
	a->conn = c;
	a->packet_id = packet_id;
	a->qos = qos;
	list_init(&a->wait);
	list_add_tail(&c->secure->acks, &a->link);
	if (++c->secure->n_acks >= b->config.limits.verify_pending_max)
		conn_pause(c, CONN_PAUSE_ACKS);
	return a;
}

void ack_drop(struct ack *a)
{
	struct broker_conn *c;

	if (!a)
		return;
	c = a->conn;
	list_del(&a->link);
	list_del(&a->wait);
	pool_free(&c->broker->pool, a);
	if (--c->secure->n_acks <= c->broker->config.limits.verify_pending_max / 2)
		conn_resume(c, CONN_PAUSE_ACKS);
	conn_put(c);
}

void ack_ready(struct ack *a)
{
	struct broker_conn *c;

	if (!a)
		return;
	c = a->conn;
	if (c->state == CONN_CLOSED) {
		ack_drop(a);
		return;
	}
	a->ready = true;
	while ((a = list_first(&c->secure->acks, struct ack, link)) && a->ready) {
		uint16_t packet_id = a->packet_id;
		enum mqtt_type type = ack_type(a->qos);

		ack_drop(a); /* first: sending may end the connection, and with it what is owed */
		if (c->state == CONN_OPEN)
			conn_send_ack(c, type, packet_id);
	}
}

void acks_close(struct broker_conn *c)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &c->secure->acks) {
		struct ack *a = list_entry(pos, struct ack, link);

		if (a->ready)
			ack_drop(a); /* the others' waiters still have them */
	}
}
