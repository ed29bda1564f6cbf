// SPDX-License-Identifier: MIT
#include "userspace/distributor/session.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "userspace/base/text.h"
#include "userspace/crypto/admission.h"
#include "userspace/crypto/publish.h"
#include "userspace/distributor/alloc.h"

#define TOPIC_PREFIX	"$SSDTF/"
#define TOPIC_CHALLENGE "$SSDTF/auth/challenge"
#define TOPIC_RESPONSE	"$SSDTF/auth/response"
#define TOPIC_RESULT	"$SSDTF/auth/result"
#define TOPIC_ERROR	"$SSDTF/error"
#define TOPIC_REPORT	"$SSDTF/report"
#define RESULT_OPEN	0
#define MQTT_LEVEL	4 /* 3.1.1 */
#define TEXT_BYTES_MAX	256
#define BODY_BYTES_MAX	(1 + 8 + 1 + ENVELOPE_ORIGIN_BYTES_MAX + 2 + TEXT_BYTES_MAX + 32 + 4)
#define IN_BYTES_STEP	65536

/* CONNECT's flags, MQTT 3.1.1 section 3.1.2.3. */
enum connect_flags { FLAG_CLEAN = 0x02, FLAG_PASSWORD = 0x40, FLAG_USER_NAME = 0x80 };

/* A message to the broker that the token has to sign; QoS 0, trailer 1. */
struct control {
	struct list link;
	struct session *session;
	bool stale; /* its session ended meanwhile */
	struct ask ask;
	const char *topic;
	bool done;
	size_t n;
	uint8_t body[BODY_BYTES_MAX];
};

static int fail(struct session *s, int err, const char *fmt, ...) format_printf(3, 4);
static int fail(struct session *s, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->why, sizeof(s->why), fmt, ap);
	va_end(ap);
	return err;
}

/* --- buffers ---------------------------------------------------------------------------------- */

static uint8_t *buffer_space(struct session_buffer *b, size_t n)
{
	if (n > b->room - b->n) {
		b->room = b->n + n + b->n / 2;
		b->p = alloc_larger(b->p, b->room);
	}
	b->n += n;
	return b->p + b->n - n;
}

static void buffer_drop(struct session_buffer *b, size_t n)
{
	b->n -= n;
	if (b->n)
		memmove(b->p, b->p + n, b->n);
}

static void buffer_deinit(struct session_buffer *b)
{
	free(b->p);
	*b = (struct session_buffer){ 0 };
}

/* Room for a packet of at most n bytes; out_end() gives back what it did not take. */
static struct bytes_writer out_begin(struct session *s, size_t n)
{
	return bytes_writer_of(buffer_space(&s->out, n), n);
}

static void out_end(struct session *s, const struct bytes_writer *w)
{
	BUG_ON(w->bad);
	s->out.n -= w->left;
	s->sent_ms = s->mono_ms;
}

void session_written(struct session *s, size_t n)
{
	buffer_drop(&s->out, n);
}

/* --- packets out ------------------------------------------------------------------------------ */

void session_publish(struct session *s, const struct mqtt_publish *p)
{
	size_t n = mqtt_publish_bytes(p->topic.n, p->payload.n, p->qos);
	struct bytes_writer w = out_begin(s, n);

	mqtt_encode_publish(p, &w);
	out_end(s, &w);
}

void session_puback(struct session *s, uint16_t packet_id)
{
	struct bytes_writer w = out_begin(s, 4);

	mqtt_encode_ack(MQTT_PUBACK, packet_id, &w);
	out_end(s, &w);
}

static void out_empty(struct session *s, enum mqtt_type type)
{
	struct bytes_writer w = out_begin(s, 2);

	mqtt_encode_empty(type, &w);
	out_end(s, &w);
}

void session_disconnect(struct session *s)
{
	out_empty(s, MQTT_DISCONNECT);
}

static size_t filters_bytes(const struct bytes *filters, unsigned n)
{
	size_t all = MQTT_FIXED_HEADER_MAX + 2;

	for (unsigned i = 0; i < n; i++)
		all += 2 + filters[i].n + 1;
	return all;
}

void session_subscribe(struct session *s, const struct bytes *filters, unsigned n, uint8_t qos)
{
	struct bytes_writer w = out_begin(s, filters_bytes(filters, n));
	struct mqtt_subscribe sub = { .packet_id = SESSION_ID_SUBSCRIBE, .n = n };

	BUG_ON(n > MQTT_FILTERS_MAX);
	for (unsigned i = 0; i < n; i++)
		sub.list[i] = (struct mqtt_subscription){ filters[i], qos };
	mqtt_encode_subscribe(&sub, &w);
	out_end(s, &w);
}

void session_unsubscribe(struct session *s, const struct bytes *filters, unsigned n)
{
	struct bytes_writer w = out_begin(s, filters_bytes(filters, n));
	struct mqtt_unsubscribe unsub = { .packet_id = SESSION_ID_UNSUBSCRIBE, .n = n };

	BUG_ON(n > MQTT_FILTERS_MAX);
	memcpy(unsub.filters, filters, n * sizeof(filters[0]));
	mqtt_encode_unsubscribe(&unsub, &w);
	out_end(s, &w);
}

/* --- control messages ------------------------------------------------------------------------- */

static void control_free(struct control *c)
{
	list_del(&c->link);
	free(c);
}

static void send_control(struct session *s, const struct control *c)
{
	uint8_t payload[BODY_BYTES_MAX + PUBLISH_TRAILER_1_BYTES];
	struct bytes_writer w = bytes_writer_of(payload, sizeof(payload));

	bytes_write(&w, bytes_of(c->body, c->n));
	publish_write_trailer_1(c->ask.job.output, &w);
	session_publish(s, &(struct mqtt_publish){ .topic = bytes_str(c->topic),
						   .payload = bytes_of(payload, w.used) });
}

/* In their order, since n of a report may skip but not go back. */
static void flush_controls(struct session *s)
{
	struct control *c;

	while ((c = list_first(&s->controls, struct control, link)) && c->done) {
		send_control(s, c);
		if (s->state == SESSION_SIGNING)
			s->state = SESSION_RESULT;
		s->n_controls--;
		control_free(c);
	}
}

static void control_signed(struct ask *a)
{
	struct control *c = container_of(a, struct control, ask);

	if (c->stale) {
		control_free(c);
		return;
	}
	if (a->job.status != HSM_OK) {
		ask_later(a);
		return;
	}
	c->done = true;
	flush_controls(c->session);
}

static struct control *control_new(struct session *s, const char *topic)
{
	struct control *c = alloc_zeroed(sizeof(*c));

	c->session = s;
	c->topic = topic;
	ask_init(&c->ask, s->asks);
	c->ask.job.op = HSM_SIGN;
	c->ask.answered = control_signed;
	list_add_tail(&s->controls, &c->link);
	s->n_controls++;
	return c;
}

static void control_submit(struct session *s, struct control *c, const struct bytes_writer *w)
{
	struct publish p = {
		.first = mqtt_publish_first(0, false, false),
		.topic = bytes_str(c->topic),
		.body = { bytes_of(c->body, w->used) },
		.body_parts = 1,
		.client_id = s->plan->bundle.id,
	};

	BUG_ON(w->bad);
	c->n = w->used;
	publish_digest(&p, c->ask.job.input);
	ask_submit(&c->ask);
}

/* Those that are with the token go when it answers. */
static void drop_controls(struct session *s)
{
	while (!list_empty(&s->controls)) {
		struct control *c = list_first(&s->controls, struct control, link);

		list_del(&c->link);
		list_add_tail(&s->stale, &c->link);
		c->stale = true;
		if (ask_cancel(&c->ask))
			control_free(c);
	}
	s->n_controls = 0;
}

bool session_report(struct session *s, uint8_t reason, uint64_t counter, struct bytes id,
		    struct bytes text)
{
	struct control *c;
	struct bytes_writer w;

	if (s->state != SESSION_OPEN || s->n_controls >= SESSION_CONTROLS_MAX ||
	    s->n_report == UINT32_MAX)
		return false;
	if (text.n > TEXT_BYTES_MAX)
		text.n = TEXT_BYTES_MAX;
	c = control_new(s, TOPIC_REPORT);
	w = bytes_writer_of(c->body, sizeof(c->body));
	bytes_write_u8(&w, reason);
	bytes_write_u64(&w, counter);
	bytes_write_u8_view(&w, id);
	bytes_write_u16_view(&w, text);
	bytes_write(&w, bytes_of(s->r_b, sizeof(s->r_b)));
	bytes_write_u32(&w, ++s->n_report);
	control_submit(s, c, &w);
	return true;
}

/* --- authentication (PROTOCOL 5) -------------------------------------------------------------- */

static uint8_t connect_flags(const struct session *s)
{
	return FLAG_USER_NAME | FLAG_PASSWORD | (s->config.clean ? FLAG_CLEAN : 0);
}

void session_begin(struct session *s, uint64_t mono_ms, uint64_t unix_ms)
{
	const struct bundle_distributor *b = &s->plan->bundle;
	bool no_clock = !unix_ms || b->admission_flags & BUNDLE_ADMISSION_NO_CLOCK;
	uint32_t slot = no_clock ? ADMISSION_SLOT_NO_CLOCK : admission_slot(unix_ms);
	char user_name[TEXT_B64U_SIZE(SESSION_NONCE_BYTES)];
	uint8_t token[ADMISSION_TOKEN_BYTES];
	struct mqtt_connect c = {
		.level = MQTT_LEVEL,
		.clean_session = s->config.clean,
		.keepalive_s = s->config.keepalive_s,
		.client_id = b->id,
		.has_user_name = true,
		.has_password = true,
	};
	struct bytes_writer w;

	BUG_ON(s->state != SESSION_IDLE);
	s->mono_ms = s->began_ms = s->heard_ms = mono_ms;
	s->state = SESSION_CONNACK;
	hash_random(s->r_c, sizeof(s->r_c));
	c.user_name = bytes_str(text_b64u(bytes_of(s->r_c, sizeof(s->r_c)), user_name));
	BUG_ON(admission_token(b->k_adm, b->id, c.user_name, slot, token));
	c.password = bytes_of(token, sizeof(token));
	w = out_begin(s, 256);
	mqtt_encode_connect(&c, &w);
	out_end(s, &w);
}

void session_end(struct session *s)
{
	drop_controls(s);
	s->in.n = s->out.n = 0;
	s->state = SESSION_IDLE;
	s->pinged = s->heard_notice = false;
	s->n_report = 0;
}

static int take_connack(struct session *s, struct bytes body)
{
	static const char *const words[] = {
		"",
		"it does not speak this protocol level",
		"it does not take this client id",
		"it is not available now",
		"it finds no nonce in CONNECT",
		"this distributor is not enrolled there, or its clock is wrong",
	};
	uint8_t code;

	if (s->state != SESSION_CONNACK || mqtt_decode_connack(body, &s->present, &code))
		return fail(s, -EPROTO, "CONNACK out of place");
	if (code)
		return fail(s, -EPROTO, "the broker refuses the connection (CONNACK %u: %s)", code,
			    code < ARRAY_SIZE(words) ? words[code] : "for a reason of its own");
	s->state = SESSION_CHALLENGE;
	return 0;
}

static bool reads(struct bytes_reader *r, const void *p, size_t n)
{
	return bytes_equal(bytes_read_view(r, n), bytes_of(p, n));
}

/* challenge := R_c || R_b || u8 protocol level || u8 connect flags || cb, which is empty on TCP */
static int take_challenge(struct session *s, struct bytes body, bool by_next)
{
	const struct record_broker *broker =
		s->downstream ? &s->plan->bundle.to : &s->plan->bundle.from;
	const struct p256_point *key = by_next ? &broker->next : &broker->signing;
	struct bytes_reader r = bytes_reader_of(body);
	uint8_t r_b[SESSION_NONCE_BYTES], hash[HASH_BYTES];
	struct bytes_writer w;
	struct control *c;

	if (!reads(&r, s->r_c, sizeof(s->r_c)))
		return fail(s, -EPROTO, "the challenge answers another CONNECT");
	bytes_read_copy(&r, r_b, sizeof(r_b));
	if (bytes_read_u8(&r) != MQTT_LEVEL || bytes_read_u8(&r) != connect_flags(s) ||
	    !bytes_read_done(&r))
		return fail(s, -EPROTO, "the broker received another CONNECT than was sent");
	memcpy(s->r_b, r_b, sizeof(r_b));
	/* response := R_b || R_c || SHA-256(broker's public point) || cb */
	c = control_new(s, TOPIC_RESPONSE);
	w = bytes_writer_of(c->body, sizeof(c->body));
	hash_one(bytes_of(key->b, sizeof(key->b)), hash);
	bytes_write(&w, bytes_of(s->r_b, sizeof(s->r_b)));
	bytes_write(&w, bytes_of(s->r_c, sizeof(s->r_c)));
	bytes_write(&w, bytes_of(hash, sizeof(hash)));
	s->state = SESSION_SIGNING;
	control_submit(s, c, &w);
	return 0;
}

/* result := 00 || R_b || u64 highest counter, which means nothing to a distributor */
static int take_result(struct session *s, struct bytes body)
{
	struct bytes_reader r = bytes_reader_of(body);

	if (bytes_read_u8(&r) != RESULT_OPEN || !reads(&r, s->r_b, sizeof(s->r_b)))
		return fail(s, -EPROTO, "the result is not of this session");
	(void)bytes_read_u64(&r);
	if (!bytes_read_done(&r))
		return fail(s, -EPROTO, "the result is malformed");
	s->state = SESSION_OPEN;
	s->ops->opened(s->ctx, s->present);
	return 0;
}

static int judge_notice(struct session *s, const struct mqtt_publish *p, struct bytes *ret_body,
			bool *ret_by_next)
{
	return judge_control(s->judge, s->downstream ? &s->plan->to : &s->plan->from,
			     s->plan->bundle.id, p, ret_body, ret_by_next);
}

static int take_auth(struct session *s, const struct mqtt_publish *p)
{
	bool challenge = s->state == SESSION_CHALLENGE;
	struct bytes body;
	bool by_next;

	if (!challenge && s->state != SESSION_RESULT)
		return fail(s, -EPROTO, "the broker left the order of authentication");
	if (!bytes_equal(p->topic, bytes_str(challenge ? TOPIC_CHALLENGE : TOPIC_RESULT)) || p->qos)
		return fail(s, -EPROTO, "the broker left the order of authentication");
	if (judge_notice(s, p, &body, &by_next))
		return fail(s, -EPROTO, "the broker's signature does not hold: it is not '%.*s'",
			    (int)(s->downstream ? s->plan->bundle.to : s->plan->bundle.from)
				    .gateway_id.n,
			    (const char *)(s->downstream ? s->plan->bundle.to
							 : s->plan->bundle.from)
				    .gateway_id.p);
	return challenge ? take_challenge(s, body, by_next) : take_result(s, body);
}

/* --- packets in ------------------------------------------------------------------------------- */

/* error := u8 reason || u64 counter || u16+ text || R_b || u32 n. What does not hold is forged or
 * stale, and nothing follows from it. */
static int take_error(struct session *s, const struct mqtt_publish *p)
{
	struct bytes_reader r;
	struct bytes body, text;
	uint64_t counter;
	uint8_t reason;
	bool by_next, ours;
	uint32_t n;

	if (judge_notice(s, p, &body, &by_next))
		return 0;
	r = bytes_reader_of(body);
	reason = bytes_read_u8(&r);
	counter = bytes_read_u64(&r);
	text = bytes_read_u16_view(&r);
	ours = reads(&r, s->r_b, sizeof(s->r_b));
	n = bytes_read_u32(&r);
	if (!bytes_read_done(&r) || !ours || (s->heard_notice && n <= s->n_in))
		return 0;
	s->heard_notice = true;
	s->n_in = n;
	if (s->ops->error(s->ctx, reason, counter, text))
		return 0;
	return fail(s, -EPROTO, "the broker refuses a message for now (reason %u)", reason);
}

static bool begins(struct bytes v, const char *prefix)
{
	struct bytes p = bytes_str(prefix);

	return v.n >= p.n && bytes_equal(bytes_of(v.p, p.n), p);
}

static int take_publish(struct session *s, const struct mqtt_frame *f)
{
	struct mqtt_publish p;

	if (mqtt_decode_publish(f, &p) || p.qos > 1)
		return fail(s, -EPROTO, "a PUBLISH that is malformed, or of QoS 2");
	if (s->state != SESSION_OPEN)
		return take_auth(s, &p);
	if (bytes_equal(p.topic, bytes_str(TOPIC_ERROR))) {
		int err = take_error(s, &p);

		if (err)
			return err;
	} else if (!begins(p.topic, TOPIC_PREFIX)) {
		if (s->ops->publish(s->ctx, &p) || !p.qos)
			return 0;
		/* It is not known what this packet id stands for: only a new session tells. */
		return fail(s, -EPROTO, "a delivery that the broker did not sign");
	}
	if (p.qos)
		session_puback(s, p.packet_id);
	return 0;
}

static int take_ack(struct session *s, const struct mqtt_frame *f)
{
	enum mqtt_type type = mqtt_frame_type(f);
	struct bytes codes = { 0 };
	uint16_t id;

	if (s->state != SESSION_OPEN)
		return fail(s, -EPROTO, "a packet out of place");
	if (type == MQTT_SUBACK ? mqtt_decode_suback(f->body, &id, &codes)
				: mqtt_decode_ack(f->body, &id))
		return fail(s, -EPROTO, "a malformed packet");
	if (type == MQTT_PUBACK)
		s->ops->puback(s->ctx, id);
	else
		s->ops->suback(s->ctx, id, codes);
	return 0;
}

static int take_packet(struct session *s, const struct mqtt_frame *f)
{
	switch (mqtt_frame_type(f)) {
	case MQTT_CONNACK:
		return take_connack(s, f->body);
	case MQTT_PUBLISH:
		return take_publish(s, f);
	case MQTT_PUBACK:
	case MQTT_SUBACK:
	case MQTT_UNSUBACK:
		return take_ack(s, f);
	case MQTT_PINGRESP:
		s->pinged = false;
		return 0;
	case MQTT_CONNECT:
	case MQTT_PUBREC:
	case MQTT_PUBREL:
	case MQTT_PUBCOMP:
	case MQTT_SUBSCRIBE:
	case MQTT_UNSUBSCRIBE:
	case MQTT_PINGREQ:
	case MQTT_DISCONNECT:
	case MQTT_AUTH:
		break;
	}
	return fail(s, -EPROTO, "a packet that no server sends");
}

/* All whole packets of v; *ret_used is how far they reach. */
static int take_packets(struct session *s, struct bytes v, size_t *ret_used)
{
	size_t at = 0, used, need;
	struct mqtt_frame f;
	int err = 0;

	while (!err) {
		enum mqtt_reason reason = mqtt_frame_next(
			bytes_of(v.p + at, v.n - at), s->config.packet_bytes_max, &f, &used, &need);

		if (reason)
			return fail(s, -EPROTO, "a packet that is %s", mqtt_reason_name(reason));
		if (!used)
			break;
		at += used;
		err = take_packet(s, &f);
	}
	*ret_used = at;
	return err;
}

int session_input(struct session *s, struct bytes v, uint64_t mono_ms)
{
	bool behind = s->in.n > 0;
	size_t used = 0;
	int err;

	s->mono_ms = s->heard_ms = mono_ms;
	if (behind)
		memcpy(buffer_space(&s->in, v.n), v.p, v.n);
	err = take_packets(s, behind ? bytes_of(s->in.p, s->in.n) : v, &used);
	if (err)
		return err;
	if (behind)
		buffer_drop(&s->in, used);
	else if (used < v.n)
		memcpy(buffer_space(&s->in, v.n - used), v.p + used, v.n - used);
	return 0;
}

/* --- time ------------------------------------------------------------------------------------- */

uint64_t session_due_ms(const struct session *s)
{
	uint64_t keepalive_ms = s->config.keepalive_s * 1000ull;

	if (s->state == SESSION_IDLE)
		return UINT64_MAX;
	if (s->state != SESSION_OPEN)
		return s->began_ms + SESSION_OPEN_MS;
	if (s->pinged)
		return s->heard_ms + keepalive_ms;
	return s->heard_ms + keepalive_ms / 2 < s->sent_ms + keepalive_ms / 2
		       ? s->heard_ms + keepalive_ms / 2
		       : s->sent_ms + keepalive_ms / 2;
}

/* Where either side was silent for half a keep-alive, it asks; the other half is for the answer. */
int session_tick(struct session *s, uint64_t mono_ms)
{
	s->mono_ms = mono_ms;
	if (session_due_ms(s) > mono_ms)
		return 0;
	if (s->state != SESSION_OPEN)
		return fail(s, -ETIMEDOUT, "no session within %d s", SESSION_OPEN_MS / 1000);
	if (s->pinged)
		return fail(s, -ETIMEDOUT, "the broker is silent");
	out_empty(s, MQTT_PINGREQ);
	s->heard_ms = mono_ms; /* the answer's time begins now */
	s->pinged = true;
	return 0;
}

void session_init(struct session *s, const struct session_ops *ops, void *ctx,
		  const struct session_config *config, struct asks *asks, struct judge *judge,
		  const struct plan *plan, bool downstream)
{
	*s = (struct session){
		.ops = ops,
		.ctx = ctx,
		.config = *config,
		.asks = asks,
		.judge = judge,
		.plan = plan,
		.downstream = downstream,
	};
	list_init(&s->controls);
	list_init(&s->stale);
}

void session_deinit(struct session *s)
{
	struct control *c;

	session_end(s);
	while ((c = list_first(&s->stale, struct control, link))) {
		BUG_ON(!ask_cancel(&c->ask));
		control_free(c);
	}
	buffer_deinit(&s->in);
	buffer_deinit(&s->out);
}
