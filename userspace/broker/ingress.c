// SPDX-License-Identifier: MIT
#include "userspace/broker/ingress.h"

#include "userspace/broker/claims.h"
#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"
#include "userspace/broker/intake.h"
#include "userspace/broker/verifier.h"

/* The party's verifiers, the one first by which its last signature held. */
static void choose_verifiers(struct broker_conn *c, struct directory_party *party,
			     struct ingress *in)
{
	struct broker_verify *v = &in->verify;

	v->verifier = directory_verifier(party);
	if (!party->previous || !v->verifier)
		return;
	v->other = directory_previous_verifier(party, c->broker->wall_ms);
	in->previous_first = v->other && c->secure->previous;
	if (in->previous_first) {
		struct verifier *own = v->verifier;

		v->verifier = v->other;
		v->other = own;
	}
}

/* It holds by one of the two; others may have been judged since it went out. */
static void note_verifier(struct ingress *in)
{
	bool second = in->verify.by == in->verify.other;

	in->conn->secure->previous = second != in->previous_first;
}

/* A bundle that came meanwhile may have taken away the key by which it holds. */
bool ingress_key_holds(const struct ingress *in)
{
	const struct broker *b = in->conn->broker;

	return in->directory == b->directory ||
	       directory_key_holds(b->directory, conn_id(in->conn), verifier_key(in->verify.by),
				   b->wall_ms);
}

bool ingress_submit(struct broker_conn *c, enum ingress_kind kind, struct message *m,
		    uint16_t packet_id)
{
	struct broker *b = c->broker;
	struct directory_party *party = directory_party(b->directory, conn_id(c));
	struct ingress *in = party ? pool_zalloc(&b->pool, sizeof(*in)) : NULL;

	if (in)
		choose_verifiers(c, party, in);
	if (!in || !in->verify.verifier) {
		pool_free(&b->pool, in);
		message_put(&b->pool, m);
		conn_fail(c, party ? "no memory to verify its message" : "no key to verify with");
		return false;
	}
	in->kind = kind;
	in->message = m;
	in->packet_id = packet_id;
	in->directory = directory_get(b->directory);
	in->conn = c;
	conn_get(c);
	in->verify.first = mqtt_publish_first(m->qos, m->retain, false);
	in->verify.topic = m->topic;
	in->verify.payload = m->payload;
	in->verify.client_id = conn_id(c);
	in->verify.sealed = m->sealed;
	if (party->roles & RECORD_ROLE_DISTRIBUTOR)
		in->verify.level_max = ENVELOPE_LEVEL_MAX;
	in->verify.zk = kind == INGRESS_RESPONSE && party->flags & RECORD_PARTY_ZK;
	c->secure->verify_bytes += m->payload.n;
	if (++c->secure->verify_pending >= b->config.limits.verify_pending_max ||
	    c->secure->verify_bytes >= b->config.limits.verify_bytes_max)
		conn_pause(c, CONN_PAUSE_VERIFY);
	b->ops.verify(b->io, &in->verify);
	return true;
}

void ingress_publish(struct broker_conn *c, const struct mqtt_publish *p)
{
	enum ingress_kind kind = INGRESS_PUBLISH;
	struct message *m;

	if (bytes_equal(p->topic, bytes_str(CONTROL_TOPIC_NACK)))
		kind = INGRESS_NACK;
	else if (bytes_equal(p->topic, bytes_str(CONTROL_TOPIC_REPORT)))
		kind = INGRESS_REPORT;
	else if (bytes_equal(p->topic, bytes_str(CONTROL_TOPIC_UPDATE)))
		kind = INGRESS_UPDATE;
	else if (bytes_equal(p->topic, bytes_str(CONTROL_TOPIC_BUNDLE)) && control_is_manager(c))
		kind = INGRESS_BUNDLE;
	else if (bytes_equal(p->topic, bytes_str(CONTROL_TOPIC_CLAIM)))
		kind = INGRESS_CLAIM;
	else if (control_is_topic(p->topic))
		return conn_fail(c, "PUBLISH to a topic that is the broker's own"); /* PROTOCOL 5 */
	m = conn_message(c, p, kind == INGRESS_PUBLISH);
	if (!m)
		return conn_fail(c, "no memory for its message");
	(void)ingress_submit(c, kind, m, p->packet_id); /* it has ended the connection */
}

/* Whose counters m's is one of: its sender's, or above level 0 the pair's (PROTOCOL 12). NULL: it
 * is the first of them. */
static struct commit_sender *counters_of(struct broker *b, const struct message_sealed *sealed)
{
	if (sealed->envelope.level > 0)
		return origins_find(b, sealed->sender, &sealed->envelope);
	return commit_sender_find(b, sealed->sender);
}

/* The same, made; NULL: no room or no memory. */
static struct commit_sender *counters_begin(struct broker *b, const struct message_sealed *sealed)
{
	if (sealed->envelope.level > 0)
		return origins_begin(b, sealed->sender, &sealed->envelope);
	return commit_sender(b, sealed->sender);
}

static enum replay_verdict check_counter(const struct broker *b, const struct commit_sender *sender,
					 const struct envelope *e)
{
	static const struct replay_window none;

	if (!sender && e->level > 0 && !origins_may_begin(b, e->time_ms))
		return REPLAY_BELOW;
	return replay_check(sender ? &sender->window : &none, e->counter);
}

static enum directory_verdict permits(const struct broker *b, const struct message *m)
{
	const struct directory *d = b->directory;
	const struct envelope *e = &m->sealed->envelope;
	const struct directory_party *party = directory_party(d, m->sealed->sender);

	if (!party || directory_may_only_claim(party) || sys_is_topic(m->topic))
		return DIRECTORY_NOT_PERMITTED;
	if (e->level > 0)
		return directory_permits_raised(d, party, e->key_id, e->grant.p, m->topic,
						b->wall_ms);
	return directory_permits(d, party, e->key_id, m->topic, b->wall_ms);
}

enum ingress_verdict ingress_judge(struct broker *b, struct message *m,
				   enum control_reason *ret_reason)
{
	const struct envelope *e = &m->sealed->envelope;
	struct commit_sender *sender = counters_of(b, m->sealed);

	*ret_reason = CONTROL_REPLAYED;
	switch (check_counter(b, sender, e)) {
	case REPLAY_NEW:
		break;
	case REPLAY_SEEN:
		return INGRESS_SEEN;
	case REPLAY_BELOW:
		return INGRESS_REFUSE;
	}
	switch (permits(b, m)) {
	case DIRECTORY_PERMITTED:
		break;
	case DIRECTORY_NO_KEY_ID:
		*ret_reason = CONTROL_NO_KEY_ID;
		return INGRESS_REFUSE;
	case DIRECTORY_NOT_PERMITTED:
		*ret_reason = CONTROL_NOT_PERMITTED;
		return INGRESS_REFUSE;
	}
	*ret_reason = CONTROL_RETIRED;
	if (!e->level && contexts_retired(b, e->key_id, e->enc))
		return INGRESS_REFUSE;
	*ret_reason = CONTROL_UNAVAILABLE;
	if (!sender)
		sender = counters_begin(b, m->sealed);
	if (!sender)
		return INGRESS_REFUSE;
	replay_accept(&sender->window, e->counter);
	origins_used(b, sender);
	commit_sender_changed(b, sender);
	if (!e->level)
		contexts_used(b, sender, e->key_id, e->enc);
	return INGRESS_TAKE;
}

/* What its PUBLISH is owed, in its turn; NULL: nothing. */
static struct ack *ack_of(struct ingress *in)
{
	return ack_new(in->conn, in->packet_id ? in->message->qos : 0, in->packet_id);
}

/* acknowledge: it is never to be sent again. */
static void refuse(struct ingress *in, enum control_reason reason, bool acknowledge)
{
	struct broker *b = in->conn->broker;

	b->stats.refused[reason]++;
	control_error(b, in->conn, reason, in->verify.counter, acknowledge ? ack_of(in) : NULL);
}

/* What the worker found in a sealed message becomes the message's. */
static void adopt(struct ingress *in)
{
	message_opened(in->message, &in->verify.trailer, &in->verify.envelope, &in->verify.e);
}

static void publish_verified(struct ingress *in)
{
	struct broker_conn *c = in->conn;
	struct broker *b = c->broker;
	enum control_reason reason;

	switch (in->verify.result) {
	case BROKER_VERIFY_NO_TRAILER:
		return refuse(in, CONTROL_MALFORMED, false);
	case BROKER_VERIFY_BAD_SIGNATURE:
		return refuse(in, CONTROL_BAD_SIGNATURE, false);
	case BROKER_VERIFY_MALFORMED:
		return refuse(in, CONTROL_MALFORMED, true);
	case BROKER_VERIFY_OK:
		break;
	}
	if (!ingress_key_holds(in))
		return refuse(in, CONTROL_BAD_SIGNATURE, false);
	adopt(in);
	switch (ingress_judge(b, in->message, &reason)) {
	case INGRESS_TAKE:
		b->stats.accepted++;
		route_message(b, in->message, c);
		break;
	case INGRESS_SEEN:
		b->stats.replayed++;
		break;
	case INGRESS_REFUSE:
		/* "Try again" is no acknowledgement. */
		return refuse(in, reason, reason != CONTROL_UNAVAILABLE);
	}
	commit_then_ack(b, ack_of(in));
}

/* A nack, a report or the like: the session's own, signed, in its form. */
static void control_verified(struct ingress *in)
{
	struct broker_conn *c = in->conn;
	struct broker *b = c->broker;
	const struct publish_trailer *t = &in->verify.trailer;
	struct directory_party *party = directory_party(b->directory, conn_id(c));
	bool well_formed;

	/* A report is for others, and may be the last that its sender says. */
	if (c->state != CONN_OPEN && in->kind != INGRESS_REPORT)
		return;
	if (in->verify.result != BROKER_VERIFY_OK || !ingress_key_holds(in))
		return refuse(in, CONTROL_BAD_SIGNATURE, false);
	if (!party || (directory_may_only_claim(party) && in->kind != INGRESS_CLAIM))
		return refuse(in, CONTROL_NOT_PERMITTED, true);
	if (in->kind == INGRESS_NACK)
		well_formed = control_nack(b, c, in->message, t->body);
	else if (in->kind == INGRESS_UPDATE)
		well_formed = updates_ask(b, c, t->body);
	else if (in->kind == INGRESS_BUNDLE)
		well_formed = intake_bundle(b, c, t);
	else if (in->kind == INGRESS_CLAIM)
		well_formed = claims_message(b, c, in->message, t);
	else
		well_formed = control_report(b, c, in->message, t->body);
	if (!well_formed)
		return refuse(in, CONTROL_MALFORMED, true);
	ack_ready(ack_of(in));
}

void broker_verify_done(struct broker *b, struct broker_verify *job)
{
	struct ingress *in = container_of(job, struct ingress, verify);
	struct broker_conn *c = in->conn;

	c->secure->verify_bytes -= in->message->payload.n;
	if (--c->secure->verify_pending <= b->config.limits.verify_pending_max / 2 &&
	    c->secure->verify_bytes <= b->config.limits.verify_bytes_max / 2)
		conn_resume(c, CONN_PAUSE_VERIFY);
	if (in->verify.result == BROKER_VERIFY_OK)
		note_verifier(in);
	switch (in->kind) {
	case INGRESS_PUBLISH:
		publish_verified(in);
		break;
	case INGRESS_NACK:
	case INGRESS_REPORT:
	case INGRESS_UPDATE:
	case INGRESS_BUNDLE:
	case INGRESS_CLAIM:
		control_verified(in);
		break;
	case INGRESS_RESPONSE:
		auth_response_verified(in);
		break;
	case INGRESS_WILL:
		if (in->verify.result == BROKER_VERIFY_OK)
			adopt(in);
		auth_will_verified(in);
		break;
	}
	message_put(&b->pool, in->message);
	directory_put(in->directory);
	pool_free(&b->pool, in);
	conn_put(c);
}
