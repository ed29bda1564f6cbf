// SPDX-License-Identifier: MIT
#include "userspace/broker/intake.h"

#include <string.h>

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"
#include "userspace/bundle/online.h"
#include "userspace/crypto/publish.h"

#define TAIL_BYTES (CONN_NONCE_BYTES + 4)

bool intake_bundle(struct broker *b, struct broker_conn *conn, const struct publish_trailer *t)
{
	struct bytes_reader r = bytes_reader_of(t->body);
	struct bytes message;

	if (t->kind != 1 || t->body.n < TAIL_BYTES)
		return false;
	message = bytes_read_view(&r, t->body.n - TAIL_BYTES);
	if (!control_numbered(&r, conn, &conn->secure->bundle_next))
		return false;
	if (!control_is_manager(conn)) /* any more */
		return true;
	return b->ops.bundle(b->io, conn->id, message);
}

bool broker_bundle_answer(struct broker *b, const char *manager_id, struct bytes body)
{
	uint8_t whole[ONLINE_ANSWER_BYTES_MAX + TAIL_BYTES];
	struct bytes_writer w = bytes_writer_of(whole, sizeof(whole));
	struct session *s = session_find(b, bytes_str(manager_id));
	struct broker_conn *c = s ? s->conn : NULL;

	if (!c || !control_is_manager(c))
		return false;
	bytes_write(&w, body);
	bytes_write(&w, bytes_of(c->secure->r_b, sizeof(c->secure->r_b)));
	bytes_write_u32(&w, ++c->secure->bundle_n);
	BUG_ON(w.bad);
	return signer_control(b, c, CONTROL_TOPIC_BUNDLE, bytes_of(whole, w.used), NULL, NULL) == 0;
}
