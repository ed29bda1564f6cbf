// SPDX-License-Identifier: MIT
/*
 * Mutual authentication, the client's half (PROTOCOL 5), and the fork in the road of incoming
 * messages.
 *
 *   CLOSED -- connect_params --> CONNECTING -- on_connect --> CHALLENGE
 *      -- challenge holds, response sent --> RESULT -- result holds --> OPEN
 *
 * Whatever does not hold on the way ends the connection. In OPEN nothing on these topics can: who
 * can inject there can replay what was right once, and shall not be able to end a session with it.
 */
#include "userspace/client/lib/ssdtf.h"

#include <string.h>

#include "userspace/base/text.h"
#include "userspace/client/lib/ssdtf_private.h"

#define TOPIC_CHALLENGE "$SSDTF/auth/challenge"
#define TOPIC_RESPONSE	"$SSDTF/auth/response"
#define TOPIC_RESULT	"$SSDTF/auth/result"
#define RESULT_OPEN	0

/* CONNECT's flags, MQTT 3.1.1 section 3.1.2.3. */
enum connect_flags {
	FLAG_CLEAN_SESSION = 0x02,
	FLAG_WILL = 0x04,
	FLAG_WILL_QOS_SHIFT = 3,
	FLAG_WILL_RETAIN = 0x20,
	FLAG_PASSWORD = 0x40,
	FLAG_USER_NAME = 0x80,
};

static uint8_t connect_flags(const struct ssdtf_connect *p)
{
	uint8_t flags = FLAG_USER_NAME | FLAG_PASSWORD;

	if (p->clean_session)
		flags |= FLAG_CLEAN_SESSION;
	if (p->has_will) {
		flags |= (uint8_t)(FLAG_WILL | p->will_qos << FLAG_WILL_QOS_SHIFT);
		if (p->will_retain)
			flags |= FLAG_WILL_RETAIN;
	}
	return flags;
}

int ssdtf_connect_params(struct ssdtf_client *c, struct ssdtf_connect *params,
			 struct ssdtf_time now)
{
	struct ssdtf_session s = { .state = SSDTF_CONNECTING, .level = SSDTF_MQTT_LEVEL };
	uint32_t slot = now.unix_ms ? admission_slot(now.unix_ms) : ADMISSION_SLOT_NO_CLOCK;
	int ret;

	if (params->binding.n > sizeof(s.binding) || params->will_qos > 2)
		return -EINVAL;
	s.flags = connect_flags(params);
	s.binding_n = (uint8_t)params->binding.n;
	if (s.binding_n)
		memcpy(s.binding, params->binding.p, s.binding_n);
	hash_random(s.r_c, sizeof(s.r_c));
	text_b64u(bytes_of(s.r_c, sizeof(s.r_c)), params->user_name);
	ret = admission_token(c->bundle.k_adm, c->id, bytes_str(params->user_name), slot,
			      params->password);
	if (ret)
		return ret;
	params->flags = s.flags;
	c->session = s;
	return 0;
}

void ssdtf_on_connect(struct ssdtf_client *c)
{
	if (c->session.state == SSDTF_CONNECTING)
		c->session.state = SSDTF_CHALLENGE;
}

void ssdtf_on_disconnect(struct ssdtf_client *c)
{
	secret_wipe(&c->session, sizeof(c->session)); /* which is SSDTF_CLOSED */
}

bool ssdtf_is_open(const struct ssdtf_client *c)
{
	return c->session.state == SSDTF_OPEN;
}

void ssdtf_event_init(struct ssdtf_event *e, enum ssdtf_event_kind kind, const char *why)
{
	memset(e, 0, sizeof(*e));
	e->kind = kind;
	e->why = why;
}

int ssdtf_send_signed(struct ssdtf_client *c, const char *topic, struct bytes body)
{
	uint8_t payload[SSDTF_NOTICE_BODY_MAX + PUBLISH_TRAILER_1_BYTES];
	uint8_t trailer[PUBLISH_TRAILER_1_BYTES];
	struct bytes_writer w = bytes_writer_of(payload, sizeof(payload));
	struct publish p = {
		.first = ssdtf_first(0, false),
		.topic = bytes_str(topic),
		.body = { body },
		.body_parts = 1,
		.client_id = c->id,
	};
	int ret = publish_sign(&p, c->signing, trailer);

	if (ret)
		return ret;
	bytes_write(&w, body);
	bytes_write(&w, bytes_of(trailer, sizeof(trailer)));
	if (w.bad)
		return -ENOBUFS;
	return c->ops->publish(c->ctx, topic, payload, w.used, 0, false);
}

/* The same with trailer 3, which only the response to a challenge may have. */
static int send_proved(struct ssdtf_client *c, const char *topic, struct bytes body)
{
	uint8_t payload[SSDTF_NOTICE_BODY_MAX + PUBLISH_TRAILER_3_BYTES];
	uint8_t trailer[PUBLISH_TRAILER_3_BYTES];
	struct bytes_writer w = bytes_writer_of(payload, sizeof(payload));
	struct publish p = {
		.first = ssdtf_first(0, false),
		.topic = bytes_str(topic),
		.body = { body },
		.body_parts = 1,
		.client_id = c->id,
	};
	int ret = publish_prove_zk(&p, &c->proves, &c->signing_point, trailer);

	if (ret)
		return ret;
	bytes_write(&w, body);
	bytes_write(&w, bytes_of(trailer, sizeof(trailer)));
	if (w.bad)
		return -ENOBUFS;
	return c->ops->publish(c->ctx, topic, payload, w.used, 0, false);
}

int ssdtf_verify_control(struct ssdtf_client *c, const struct ssdtf_packet *packet,
			 struct bytes *ret_body)
{
	struct publish p = {
		.first = ssdtf_first(packet->qos, packet->retain),
		.topic = packet->topic,
		.body_parts = 1,
		.client_id = c->id,
	};
	struct publish_trailer t;
	int ret = publish_split(packet->payload, &t);

	if (ret)
		return ret;
	if (t.kind != 1)
		return -EBADMSG;
	p.body[0] = t.body;
	ret = ssdtf_verify(c, &p, &t, SSDTF_SIGNER_BROKER, 0);
	if (ret)
		return ret;
	*ret_body = t.body;
	return 0;
}

/* The next n bytes are these? */
static bool reads(struct bytes_reader *r, const void *p, size_t n)
{
	return bytes_equal(bytes_read_view(r, n), bytes_of(p, n));
}

/* body := R_c || R_b || u8 protocol level || u8 connect flags || cb. NULL, or what is wrong. */
static const char *check_challenge(const struct ssdtf_session *s, struct bytes body,
				   uint8_t r_b[SSDTF_NONCE_BYTES])
{
	struct bytes_reader r = bytes_reader_of(body);

	if (!reads(&r, s->r_c, sizeof(s->r_c)))
		return "the challenge answers another CONNECT";
	bytes_read_copy(&r, r_b, SSDTF_NONCE_BYTES);
	if (bytes_read_u8(&r) != s->level)
		return "the broker received another protocol level than was sent";
	if (bytes_read_u8(&r) != s->flags)
		return "the broker received other connect flags than were sent";
	if (!reads(&r, s->binding, s->binding_n) || !bytes_read_done(&r))
		return "the broker sees another channel than we do";
	return NULL;
}

/* body := R_b || R_c || SHA-256(broker's public point) || cb; the point whose key signed the
 * challenge. */
static int respond(struct ssdtf_client *c, const uint8_t r_b[SSDTF_NONCE_BYTES])
{
	uint8_t body[2 * SSDTF_NONCE_BYTES + HASH_BYTES + SSDTF_BINDING_BYTES_MAX];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));
	struct ssdtf_session *s = &c->session;

	bytes_write(&w, bytes_of(r_b, SSDTF_NONCE_BYTES));
	bytes_write(&w, bytes_of(s->r_c, sizeof(s->r_c)));
	bytes_write(&w, bytes_of(ssdtf_broker_hash(c), HASH_BYTES));
	bytes_write(&w, bytes_of(s->binding, s->binding_n));
	return c->zk ? send_proved(c, TOPIC_RESPONSE, bytes_of(body, w.used))
		     : ssdtf_send_signed(c, TOPIC_RESPONSE, bytes_of(body, w.used));
}

static void auth_failed(struct ssdtf_client *c, const char *why, struct ssdtf_event *ret_event)
{
	ssdtf_event_init(ret_event, SSDTF_AUTH_FAILED, why);
	ssdtf_on_disconnect(c);
	c->ops->disconnect(c->ctx);
}

static int take_challenge(struct ssdtf_client *c, struct bytes body, struct ssdtf_event *ret_event)
{
	uint8_t r_b[SSDTF_NONCE_BYTES];
	const char *wrong = check_challenge(&c->session, body, r_b);
	int ret;

	if (wrong) {
		auth_failed(c, wrong, ret_event);
		return 0;
	}
	ret = respond(c, r_b);
	if (ret)
		return ret;
	memcpy(c->session.r_b, r_b, sizeof(r_b));
	c->session.state = SSDTF_RESULT;
	ssdtf_event_init(ret_event, SSDTF_NOTHING, NULL);
	return 0;
}

/* body := 00 || R_b || u64 highest counter accepted */
static void take_result(struct ssdtf_client *c, struct bytes body, struct ssdtf_event *ret_event)
{
	struct bytes_reader r = bytes_reader_of(body);
	uint64_t highest;

	if (bytes_read_u8(&r) != RESULT_OPEN ||
	    !reads(&r, c->session.r_b, sizeof(c->session.r_b))) {
		auth_failed(c, "the result is not of this session", ret_event);
		return;
	}
	highest = bytes_read_u64(&r);
	if (!bytes_read_done(&r)) {
		auth_failed(c, "the result is malformed", ret_event);
		return;
	}
	c->session.state = SSDTF_OPEN;
	ssdtf_event_init(ret_event, SSDTF_AUTHENTICATED, NULL);
	ret_event->counter = highest;
	ret_event->acks_forged = highest < c->acknowledged;
	ret_event->counter_lost = ssdtf_counter_raise(c, highest);
}

static int take_auth(struct ssdtf_client *c, const struct ssdtf_packet *p,
		     struct ssdtf_event *ret_event)
{
	enum ssdtf_state state = c->session.state;
	struct bytes body;
	int ret;

	if (state != SSDTF_CHALLENGE && state != SSDTF_RESULT) {
		ssdtf_event_init(ret_event, SSDTF_IGNORED, "authentication out of place");
		return 0;
	}
	if (!bytes_equal(p->topic,
			 bytes_str(state == SSDTF_CHALLENGE ? TOPIC_CHALLENGE : TOPIC_RESULT))) {
		auth_failed(c, "the broker left the order of authentication", ret_event);
		return 0;
	}
	ret = ssdtf_verify_control(c, p, &body);
	if (ssdtf_is_peers_fault(ret)) {
		auth_failed(c, "the broker's signature does not hold", ret_event);
		return 0;
	}
	if (ret)
		return ret;
	if (state == SSDTF_CHALLENGE)
		return take_challenge(c, body, ret_event);
	take_result(c, body, ret_event);
	return 0;
}

int ssdtf_on_message(struct ssdtf_client *c, const struct ssdtf_packet *packet,
		     struct ssdtf_time now, uint8_t *plain, size_t plain_room,
		     struct ssdtf_event *ret_event)
{
	int ret = 0;

	/* What no MQTT packet can hold is not hashed as if it could. */
	if (packet->topic.n > UINT16_MAX || packet->payload.n > (256u << 20) || packet->qos > 2)
		ssdtf_event_init(ret_event, SSDTF_IGNORED, "no MQTT packet");
	else if (ssdtf_begins(packet->topic, SSDTF_TOPIC_AUTH))
		ret = take_auth(c, packet, ret_event);
	else if (c->session.state != SSDTF_OPEN)
		ssdtf_event_init(ret_event, SSDTF_IGNORED, "a message before authentication");
	else if (bytes_equal(packet->topic, bytes_str(SSDTF_TOPIC_ERROR)))
		ret = ssdtf_take_error(c, packet, ret_event);
	else if (bytes_equal(packet->topic, bytes_str(SSDTF_TOPIC_REPORT)))
		ret = ssdtf_take_report(c, packet, now, ret_event);
	else if (bytes_equal(packet->topic, bytes_str(SSDTF_TOPIC_UPDATE)))
		ret = ssdtf_take_update(c, packet, now, ret_event);
	else if (bytes_equal(packet->topic, bytes_str(CLAIM_TOPIC)))
		ret = ssdtf_take_claim(c, packet, ret_event);
	else if (ssdtf_begins(packet->topic, SSDTF_TOPIC_PREFIX))
		ssdtf_event_init(ret_event, SSDTF_IGNORED, "a $SSDTF topic that is not for us");
	else
		ret = ssdtf_open_message(c, packet, now, plain, plain_room, ret_event);
	if (!ret && ret_event->kind == SSDTF_IGNORED)
		c->stats.ignored++;
	return ret;
}
