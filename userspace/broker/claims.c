// SPDX-License-Identifier: MIT
#include "userspace/broker/claims.h"

#include <string.h>

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"
#include "userspace/bundle/relay.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/publish.h"

#define TAIL_BYTES    (CONN_NONCE_BYTES + 4)
#define REQUEST_BYTES (RELAY_REQUEST_BYTES + TAIL_BYTES + PUBLISH_TRAILER_1_BYTES)

/* what || R_b || u32 n, signed, to conn. False: no memory. */
static bool say(struct broker *b, struct broker_conn *conn, struct bytes what)
{
	size_t n = what.n + TAIL_BYTES;
	uint8_t *body = pool_alloc(&b->pool, n);
	struct bytes_writer w = bytes_writer_of(body, n);
	int err;

	if (!body)
		return false;
	bytes_write(&w, what);
	bytes_write(&w, bytes_of(conn->secure->r_b, sizeof(conn->secure->r_b)));
	bytes_write_u32(&w, ++conn->secure->claim_n);
	BUG_ON(w.bad);
	err = signer_control(b, conn, CONTROL_TOPIC_CLAIM, bytes_of(body, n), NULL, NULL);
	pool_free(&b->pool, body);
	return !err;
}

static void try_again(struct broker *b, struct broker_conn *conn)
{
	const struct claim_answer a = { .result = CLAIM_TRY_AGAIN,
					.text = bytes_str("no manager is here") };
	uint8_t body[RELAY_ANSWER_BYTES(0) + 1];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	claim_answer_write(&a, &w);
	BUG_ON(w.bad);
	(void)say(b, conn, bytes_of(body, w.used)); /* unanswered it tries again, too */
}

/* --- the device ------------------------------------------------------------------------------- */

/* To every manager that is here. */
static bool forward(struct broker *b, struct broker_conn *conn, const struct message *m)
{
	const struct relay_forward f = {
		.id = conn_id(conn),
		.first = mqtt_publish_first(m->qos, m->retain, false),
		.payload = m->payload,
	};
	uint8_t body[RELAY_FORWARD_BYTES(REQUEST_BYTES)];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));
	struct list *pos;
	bool sent = false;

	relay_write_forward(&f, &w);
	BUG_ON(w.bad);
	list_for_each(pos, &b->conns) {
		struct broker_conn *c = list_entry(pos, struct broker_conn, link);

		if (control_is_manager(c) && say(b, c, bytes_of(body, w.used)))
			sent = true;
	}
	return sent;
}

static bool take_request(struct broker *b, struct broker_conn *conn, struct message *m,
			 const struct publish_trailer *t)
{
	struct bytes_reader r = bytes_reader_of(t->body);
	struct claim_request request;

	claim_request_read(&r, &request);
	if (!control_numbered(&r, conn, &conn->secure->claim_next))
		return false;
	if (!conn_budget(conn))
		return true;
	/* The session may go on by this key: not for who has it not. What to say to that one is
	 * the manager's, who writes it down. */
	if (!claim_request_verify(&request, conn_id(conn), conn->secure->r_b))
		hash_one(bytes_of(request.signing.b, sizeof(request.signing.b)),
			 conn->secure->claimed);
	if (!forward(b, conn, m))
		try_again(b, conn);
	return true;
}

/* --- the manager ------------------------------------------------------------------------------ */

static bool take_decision(struct broker *b, struct broker_conn *conn,
			  const struct publish_trailer *t)
{
	struct bytes_reader r = bytes_reader_of(t->body);
	struct bytes decision, id, answer;
	struct session *s;
	struct bytes_writer w;
	uint8_t *body;

	if (t->body.n < TAIL_BYTES)
		return false;
	decision = bytes_read_view(&r, t->body.n - TAIL_BYTES);
	if (!control_numbered(&r, conn, &conn->secure->claim_next) ||
	    relay_read_decision(decision, &id, &answer))
		return false;
	s = session_find(b, id);
	if (!s || !s->conn || s->conn->state != CONN_OPEN)
		return true; /* it claims again when it is back */
	body = pool_alloc(&b->pool, 1 + answer.n);
	if (!body)
		return true;
	w = bytes_writer_of(body, 1 + answer.n);
	bytes_write_u8(&w, CLAIM_ANSWER);
	bytes_write(&w, answer);
	(void)say(b, s->conn, bytes_of(body, w.used)); /* likewise */
	pool_free(&b->pool, body);
	return true;
}

bool claims_message(struct broker *b, struct broker_conn *conn, struct message *m,
		    const struct publish_trailer *t)
{
	if (t->kind != 1)
		return false;
	return control_is_manager(conn) ? take_decision(b, conn, t) : take_request(b, conn, m, t);
}

/* The key that was claimed here is its party's now. */
static bool is_certified(const struct broker_conn *c, const struct directory_party *p)
{
	uint8_t hash[HASH_BYTES];

	if (!p || c->state != CONN_OPEN || directory_may_only_claim(p) ||
	    bytes_is_zero(bytes_of(c->secure->claimed, sizeof(c->secure->claimed))))
		return false;
	hash_one(bytes_of(p->signing.b, sizeof(p->signing.b)), hash);
	return memcmp(hash, c->secure->claimed, sizeof(hash)) == 0;
}

void claims_bundle(struct broker *b)
{
	struct list *pos;

	list_for_each(pos, &b->conns) {
		struct broker_conn *c = list_entry(pos, struct broker_conn, link);
		const struct directory_party *p = directory_party(b->directory, conn_id(c));

		if (!is_certified(c, p))
			continue;
		c->secure->key = p->signing;
		c->secure->previous = false;
	}
}
