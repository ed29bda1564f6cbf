// SPDX-License-Identifier: MIT
#include "userspace/broker/auth.h"

#include <string.h>

#include "userspace/base/text.h"
#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"
#include "userspace/broker/entry.h"
#include "userspace/broker/ingress.h"
#include "userspace/broker/verifier.h"
#include "userspace/crypto/hash.h"

/* CONNACK return codes of MQTT 3.1.1 */
enum { CONNACK_ID = 2, CONNACK_UNAVAILABLE = 3, CONNACK_BAD_USER = 4, CONNACK_REFUSED = 5 };

/* cb is empty until there is TLS (PROTOCOL 5). */
#define CHALLENGE_BYTES (2 * CONN_NONCE_BYTES + 2)
#define RESPONSE_BYTES	(2 * CONN_NONCE_BYTES + HASH_BYTES)
#define RESULT_BYTES	(1 + CONN_NONCE_BYTES + 8)

static void refuse(struct broker_conn *c, uint8_t code, const char *why)
{
	c->broker->stats.auth_failed++;
	broker_note(c->broker, "refused", conn_id(c), why);
	if (entry_may_tell(c))
		conn_send_connack(c, false, code);
	conn_end(c, why);
}

/* The same, of one who is not enrolled or has not our key. */
static void turn_away(struct broker_conn *c, uint8_t code, const char *why)
{
	entry_blame(c);
	refuse(c, code, why);
}

static void not_admitted(struct broker_conn *c)
{
	c->broker->stats.admission_refused++;
	if (c->verdict == ADMISSION_RATE) /* it has the key */
		return refuse(c, CONNACK_REFUSED, "it connects too often");
	if (c->verdict == ADMISSION_SLOT) /* a clock is wrong, and it may be ours */
		return refuse(c, CONNACK_REFUSED,
			      "admission token is not of now: its clock or "
			      "ours is wrong");
	turn_away(c, CONNACK_REFUSED,
		  c->verdict == ADMISSION_REPLAYED ? "admission token was used before"
						   : "admission token does not hold");
}

static void challenge(struct broker_conn *c)
{
	struct broker *b = c->broker;
	uint8_t body[CHALLENGE_BYTES];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	hash_random(c->secure->r_b, sizeof(c->secure->r_b));
	bytes_write(&w, bytes_of(c->secure->r_c, sizeof(c->secure->r_c)));
	bytes_write(&w, bytes_of(c->secure->r_b, sizeof(c->secure->r_b)));
	bytes_write_u8(&w, c->level);
	bytes_write_u8(&w, c->flags);
	c->state = CONN_CHALLENGED;
	timer_arm(&b->wheel, &c->timer, b->mono_ms + b->config.limits.auth_timeout_ms);
	if (signer_control(b, c, CONTROL_TOPIC_CHALLENGE, bytes_of(body, w.used), NULL, NULL))
		conn_fail(c, "no memory for its challenge");
}

void auth_start(struct broker_conn *c, const struct mqtt_connect *p)
{
	struct broker *b = c->broker;
	const struct directory_party *party;

	b->stats.connects++;
	if (!text_is_id(p->client_id))
		return turn_away(c, CONNACK_ID, "client id is not 1 to 64 of A-Z a-z 0-9 . _ : -");
	if (!b->directory || !directory_in_force(b->directory, b->wall_ms))
		return refuse(c, CONNACK_UNAVAILABLE, "no bundle is in force");
	if (!p->has_user_name || !p->has_password ||
	    text_unb64u(p->user_name, c->secure->r_c, sizeof(c->secure->r_c)))
		return turn_away(c, CONNACK_BAD_USER, "User Name is not a nonce of SSDTF");
	party = directory_party(b->directory, p->client_id);
	if (!party || !party->roles)
		return turn_away(c, CONNACK_REFUSED, party ? "revoked" : "not enrolled");
	if (!entry_admitted(c))
		return not_admitted(c);
	if (c->will && control_is_topic(c->will->topic))
		return refuse(c, CONNACK_REFUSED, "a Will to a topic of the broker's own");
	if (!conn_session_fits(c))
		return refuse(c, CONNACK_UNAVAILABLE, "no room for another session");
	if (signer_crowded(&b->signer))
		return refuse(c, CONNACK_UNAVAILABLE, "too many wait for the token");
	conn_send_connack(c, conn_session_present(c), 0);
	if (c->state != CONN_CLOSED)
		challenge(c);
}

static void failed(struct broker_conn *c, const char *why)
{
	entry_blame(c);
	c->broker->stats.auth_failed++;
	broker_note(c->broker, "authentication failed", conn_id(c), why);
	conn_fail(c, why);
}

void auth_publish(struct broker_conn *c, const struct mqtt_publish *p)
{
	struct message *m;

	if (c->state != CONN_CHALLENGED ||
	    !bytes_equal(p->topic, bytes_str(CONTROL_TOPIC_RESPONSE)) || p->retain)
		return failed(c, "PUBLISH before authentication");
	m = message_new(&c->broker->pool, p, conn_id(c), false);
	if (!m)
		return conn_fail(c, "no memory for its response");
	c->state = CONN_CHECKING;
	(void)ingress_submit(c, INGRESS_RESPONSE, m, p->packet_id); /* it has ended c */
}

static void send_result(struct broker_conn *c)
{
	struct broker *b = c->broker;
	struct commit_sender *sender = commit_sender(b, conn_id(c));
	uint8_t body[RESULT_BYTES];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	if (!sender)
		return conn_fail(c, "no memory for its counter");
	bytes_write_u8(&w, 0);
	bytes_write(&w, bytes_of(c->secure->r_b, sizeof(c->secure->r_b)));
	bytes_write_u64(&w, sender->window.highest);
	c->state = CONN_OPENING;
	if (signer_control(b, c, CONTROL_TOPIC_RESULT, bytes_of(body, w.used), NULL, auth_opened))
		conn_fail(c, "no memory for its result");
}

/* R_b || R_c || SHA-256(broker's public point) || cb: all of it is known here. */
static bool response_fits(struct broker_conn *c, struct bytes body)
{
	uint8_t want[RESPONSE_BYTES];
	struct bytes_writer w = bytes_writer_of(want, sizeof(want));

	bytes_write(&w, bytes_of(c->secure->r_b, sizeof(c->secure->r_b)));
	bytes_write(&w, bytes_of(c->secure->r_c, sizeof(c->secure->r_c)));
	bytes_write(&w, bytes_of(c->secure->broker_hash, sizeof(c->secure->broker_hash)));
	return bytes_equal_ct(body, bytes_of(want, w.used));
}

void auth_response_verified(struct ingress *in)
{
	struct broker_conn *c = in->conn;

	if (c->state != CONN_CHECKING)
		return;
	if (in->verify.result != BROKER_VERIFY_OK || !ingress_key_holds(in))
		return failed(c, "its response is not signed by the enrolled key");
	if (in->verify.trailer.kind != (in->verify.zk ? 3 : 1) ||
	    !response_fits(c, in->verify.trailer.body))
		return failed(c, "its response answers another challenge");
	c->secure->key = *verifier_key(in->verify.by);
	c->secure->authenticated = true;
	if (in->packet_id)
		conn_send_ack(c, ack_type(in->message->qos), in->packet_id);
	if (c->state == CONN_CLOSED)
		return;
	if (c->will)
		(void)ingress_submit(c, INGRESS_WILL, message_get(c->will), 0); /* it has ended c */
	else
		send_result(c);
}

void auth_will_verified(struct ingress *in)
{
	struct broker_conn *c = in->conn;
	enum control_reason reason;

	if (c->state != CONN_CHECKING)
		return;
	if (in->verify.result != BROKER_VERIFY_OK || in->verify.trailer.kind != 1 ||
	    !ingress_key_holds(in))
		return failed(c, "its Will is not sealed and signed as a PUBLISH");
	if (ingress_judge(c->broker, in->message, &reason) != INGRESS_TAKE)
		return failed(c, "its Will is not permitted, or its counter was used");
	commit_then_open(c->broker, c);
}

void auth_committed(struct broker_conn *c)
{
	if (c->state == CONN_CHECKING)
		send_result(c);
}

void auth_opened(struct broker_conn *c)
{
	struct broker *b = c->broker;

	if (c->state != CONN_OPENING || !conn_attach(c))
		return;
	b->stats.auth_passed++;
	entry_passed(c);
	control_manager_here(b, c);
}
