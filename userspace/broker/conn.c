// SPDX-License-Identifier: MIT
#include "userspace/broker/conn.h"

#include <string.h>

#include "userspace/broker/auth.h"
#include "userspace/broker/engine.h"
#include "userspace/broker/entry.h"
#include "userspace/broker/ingress.h"
#include "userspace/base/text.h"
#include "userspace/crypto/hash.h"

#define PARTIAL_BYTES_MIN 256

/* Before a session is open: room for a CONNECT with a Will, then for a response. */
#define PACKET_BYTES_CONNECT (160u << 10)
#define PACKET_BYTES_AUTH    4096u

static void timer_fired(struct timer *t);
static void errors_fired(struct timer *t);

static struct broker_conn *conn_new(struct broker *b)
{
	size_t n = sizeof(struct broker_conn) + (b->config.plain ? 0 : sizeof(struct conn_secure));
	struct broker_conn *c;

	if (b->stats.connections >= b->config.limits.connections_max)
		return NULL;
	c = pool_zalloc(&b->pool, n);
	if (c && !b->config.plain) {
		c->secure = (struct conn_secure *)(c + 1);
		c->secure->conn = c;
		list_init(&c->secure->acks);
		list_init(&c->secure->commit_wait);
		updates_conn_init(&c->secure->updates);
		timer_init(&c->secure->errors, errors_fired);
	}
	return c;
}

struct broker_conn *broker_conn_open(struct broker *b, void *conn_io, const uint8_t address[16])
{
	struct broker_conn *c;

	if (!entry_may_connect(b, address))
		return NULL;
	c = conn_new(b);
	if (!c) {
		broker_note(b, "refused", bytes_of(NULL, 0), "no room for another connection");
		return NULL;
	}
	c->source = gate_source_of(address);
	c->broker = b;
	c->io = conn_io;
	c->state = CONN_NEW;
	c->last_rx_ms = b->mono_ms;
	list_init(&c->blocked);
	list_init(&c->replies);
	timer_init(&c->timer, timer_fired);
	timer_arm(&b->wheel, &c->timer, b->mono_ms + b->config.limits.connect_timeout_ms);
	list_add_tail(&b->conns, &c->link);
	b->stats.connections++;
	return c;
}

void conn_put(struct broker_conn *c)
{
	BUG_ON(c->refs == 0);
	c->refs--;
	if (c->refs == 0 && c->state == CONN_CLOSED) {
		/* broker_turn() frees it, so that nobody up the stack loses it. */
		list_del(&c->link);
		list_add_tail(&c->broker->reapable, &c->link);
	}
}

/* The engine lets go of a connection; jobs may still point at it. */
static void forget(struct broker_conn *c, bool publish_will)
{
	struct broker *b = c->broker;
	struct message *will = c->state == CONN_OPEN && publish_will ? c->will : NULL;
	struct session *s = c->session;

	if (c->will && !will)
		message_put(&b->pool, c->will);
	c->will = NULL;
	c->pauses = 0;
	replies_close(c);
	if (c->secure) {
		acks_close(c);
		updates_close(b, c);
		timer_cancel(&b->wheel, &c->secure->errors);
	}
	c->state = CONN_CLOSED;
	c->io = NULL;
	c->session = NULL;
	timer_cancel(&b->wheel, &c->timer);
	list_del(&c->blocked);
	list_del(&c->link); /* `partial` stays: a packet in it may be in hand */
	list_add_tail(c->refs ? &b->dead : &b->reapable, &c->link);
	b->stats.connections--;
	if (s) {
		s->conn = NULL;
		session_detach(b, s);
		if (s->clean)
			session_free(b, s);
	}
	if (will) {
		route_message(b, will, NULL);
		message_put(&b->pool, will);
	}
}

static void close_conn(struct broker_conn *c, const char *why, bool publish_will, bool peer_ends)
{
	void *io = c->io;

	if (c->state == CONN_CLOSED)
		return;
	forget(c, publish_will);
	c->broker->ops.close(c->broker->io, io, why, peer_ends);
}

void conn_fail(struct broker_conn *c, const char *why)
{
	close_conn(c, why, true, false);
}

void conn_end(struct broker_conn *c, const char *why)
{
	close_conn(c, why, false, false);
}

void broker_conn_closed(struct broker_conn *c)
{
	if (c->state != CONN_CLOSED)
		forget(c, true);
}

void broker_conn_drained(struct broker_conn *c)
{
	if (!c->session)
		return;
	session_mark_dirty(c->broker, c->session);
	if (c->secure)
		updates_room(c->broker, c);
}

static void timer_fired(struct timer *t)
{
	struct broker_conn *c = container_of(t, struct broker_conn, timer);
	struct broker *b = c->broker;

	switch (c->state) {
	case CONN_NEW:
		entry_blame(c);
		conn_fail(c, "no CONNECT in time");
		return;
	case CONN_CHALLENGED:
	case CONN_CHECKING:
	case CONN_OPENING:
		b->stats.auth_failed++;
		conn_fail(c, "not authenticated in time");
		return;
	case CONN_OPEN:
		/* Armed once per period, not once per packet. [MQTT-3.1.2-24] One that is paused is
		 * silent by our own doing. */
		if (c->pauses)
			c->last_rx_ms = b->mono_ms;
		if (b->mono_ms - c->last_rx_ms >= c->keepalive_ms)
			conn_fail(c, "keep alive time-out");
		else
			timer_arm(&b->wheel, t, c->last_rx_ms + c->keepalive_ms);
		return;
	case CONN_CLOSED:
		return;
	}
}

void conn_pause(struct broker_conn *c, enum conn_pause why)
{
	if (c->state == CONN_CLOSED)
		return;
	if (!c->pauses)
		c->broker->ops.pause(c->broker->io, c->io, true);
	c->pauses |= why;
}

void conn_resume(struct broker_conn *c, enum conn_pause why)
{
	if (c->state == CONN_CLOSED || !(c->pauses & why))
		return;
	c->pauses &= (uint8_t)~why;
	if (!c->pauses)
		c->broker->ops.pause(c->broker->io, c->io, false);
}

uint8_t *conn_out(struct broker_conn *c, size_t n)
{
	uint8_t *p;

	if (c->state == CONN_CLOSED)
		return NULL;
	p = c->broker->ops.out(c->broker->io, c->io, n);
	if (!p)
		conn_fail(c, "its output is full");
	return p;
}

/* A packet encoded in a small buffer first: everything here but PUBLISH is small. */
static void send_small(struct broker_conn *c, const uint8_t *packet, size_t n)
{
	uint8_t *p = conn_out(c, n);

	if (p)
		memcpy(p, packet, n);
}

void conn_send_connack(struct broker_conn *c, bool session_present, uint8_t code)
{
	uint8_t buf[8];
	struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));

	mqtt_encode_connack(session_present, code, &w);
	BUG_ON(w.bad);
	send_small(c, buf, w.used);
}

void conn_send_ack(struct broker_conn *c, enum mqtt_type type, uint16_t packet_id)
{
	uint8_t buf[8];
	struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));

	mqtt_encode_ack(type, packet_id, &w);
	BUG_ON(w.bad);
	send_small(c, buf, w.used);
}

static void send_suback(struct broker_conn *c, uint16_t packet_id, const uint8_t *codes, size_t n)
{
	uint8_t buf[MQTT_FIXED_HEADER_MAX + 2 + MQTT_FILTERS_MAX];
	struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));

	mqtt_encode_suback(packet_id, codes, n, &w);
	BUG_ON(w.bad);
	reply_send(c, bytes_of(buf, w.used),
		   c->session && durable_is_behind(c->broker, c->session));
}

/* conn_send_ack(), but it may have to wait (reply.h). */
static void reply_ack(struct broker_conn *c, enum mqtt_type type, uint16_t packet_id, bool wait)
{
	uint8_t buf[8];
	struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));

	mqtt_encode_ack(type, packet_id, &w);
	BUG_ON(w.bad);
	reply_send(c, bytes_of(buf, w.used), wait);
}

/* The same, where it tells of something of the session's own. */
static void reply_own(struct broker_conn *c, enum mqtt_type type, uint16_t packet_id)
{
	if (c->state == CONN_OPEN)
		reply_ack(c, type, packet_id, durable_is_behind(c->broker, c->session));
}

/* Every second that passed lets off its share. */
static void budget_refresh(struct broker_conn *c)
{
	struct conn_secure *s = c->secure;
	uint64_t second = c->broker->mono_ms / 1000;
	uint64_t let_off = (second - s->budget_second) * c->broker->config.limits.errors_per_second;

	s->budget_second = second;
	s->budget = let_off >= s->budget ? 0 : s->budget - (uint32_t)let_off;
}

bool conn_budget(struct broker_conn *c)
{
	budget_refresh(c);
	if (c->secure->budget >= c->broker->config.limits.errors_per_second)
		return false;
	c->secure->budget++;
	return true;
}

void conn_budget_owe(struct broker_conn *c)
{
	struct conn_secure *s = c->secure;

	budget_refresh(c);
	if (++s->budget < c->broker->config.limits.errors_per_second)
		return;
	conn_pause(c, CONN_PAUSE_ERRORS);
	if (!timer_armed(&s->errors))
		timer_arm(&c->broker->wheel, &s->errors, (s->budget_second + 1) * 1000);
}

static void errors_fired(struct timer *t)
{
	struct broker_conn *c = container_of(t, struct conn_secure, errors)->conn;

	budget_refresh(c);
	if (c->secure->budget < c->broker->config.limits.errors_per_second)
		conn_resume(c, CONN_PAUSE_ERRORS);
	else
		timer_arm(&c->broker->wheel, t, (c->secure->budget_second + 1) * 1000);
}

/* [MQTT-4.4.0-1], in the order in which they went first; the last of them may not yet be stored. */
static void resend_releases(struct broker_conn *c)
{
	const struct outgoing *o = &c->session->outgoing;

	for (uint16_t id = outgoing_next_release(o, 0); id && c->state == CONN_OPEN;
	     id = outgoing_next_release(o, id))
		reply_own(c, MQTT_PUBREL, id);
}

bool conn_attach(struct broker_conn *c)
{
	struct broker *b = c->broker;
	struct session *s = session_find(b, conn_id(c));

	if (s && s->conn) {
		conn_fail(s->conn, "taken over by a new connection"); /* [MQTT-3.1.4-2] */
		s = session_find(b, conn_id(c)); /* a clean one is gone with it */
	}
	if (s && c->clean) {
		session_free(b, s);
		s = NULL;
	}
	if (!s)
		s = session_new(b, conn_id(c), c->clean);
	if (!s) {
		conn_fail(c, "no room for another session");
		return false;
	}
	s->clean = c->clean;
	s->conn = c;
	s->party = b->config.plain ? NULL : directory_party(b->directory, conn_id(c));
	c->session = s;
	c->state = CONN_OPEN;
	if (c->keepalive_ms)
		timer_arm(&b->wheel, &c->timer, b->mono_ms + c->keepalive_ms);
	else
		timer_cancel(&b->wheel, &c->timer);
	updates_open(b, c);
	session_mark_dirty(b, s);
	resend_releases(c);
	return c->state == CONN_OPEN;
}

/* --- packets ---------------------------------------------------------------------------------- */

static void refuse_connect(struct broker_conn *c, uint8_t code, const char *why)
{
	broker_note(c->broker, "refused", conn_id(c), why);
	if (entry_may_tell(c))
		conn_send_connack(c, false, code);
	conn_end(c, why);
}

/* An id for a client that left it to us [MQTT-3.1.3-6]; plain mode only. */
static void assign_id(struct broker_conn *c)
{
	uint8_t random[12];

	hash_random(random, sizeof(random));
	memcpy(c->id, "auto-", 5);
	text_hex(bytes_of(random, sizeof(random)), c->id + 5);
	c->id_n = (uint8_t)strlen(c->id);
}

static bool keep_will(struct broker_conn *c, const struct mqtt_connect *p)
{
	struct mqtt_publish will = {
		.qos = p->will.qos,
		.retain = p->will.retain,
		.topic = p->will.topic,
		.payload = p->will.payload,
	};

	if (!p->has_will)
		return true;
	c->will = message_new(&c->broker->pool, &will, conn_id(c), !c->broker->config.plain);
	return c->will;
}

bool conn_session_present(const struct broker_conn *c)
{
	const struct session *s = session_find(c->broker, conn_id(c));

	return !c->clean && s && !s->clean; /* a clean one ends where its connection does */
}

bool conn_session_fits(const struct broker_conn *c)
{
	const struct broker *b = c->broker;

	return b->sessions.n < b->config.limits.sessions_max || session_find(c->broker, conn_id(c));
}

static void open_plain(struct broker_conn *c)
{
	if (!conn_session_fits(c))
		return refuse_connect(c, 3, "no room for another session");
	conn_send_connack(c, conn_session_present(c), 0);
	if (c->state != CONN_CLOSED && conn_attach(c))
		c->broker->stats.connects++;
}

/* A client that is enrolled may go wrong one day; of all others it is what they do. */
static void wrong(struct broker_conn *c, const char *why)
{
	if (c->state != CONN_OPEN)
		entry_blame(c);
	conn_fail(c, why);
}

static void handle_connect(struct broker_conn *c, const struct mqtt_frame *f)
{
	struct mqtt_connect p;
	enum mqtt_reason r = mqtt_decode_connect(f->body, &p);

	entry_judge(c, f->packet);
	if (r == MQTT_UNSUPPORTED_LEVEL)
		return refuse_connect(c, 1, "protocol level is not 3.1.1");
	if (r == MQTT_IDENTIFIER_REJECTED)
		return refuse_connect(c, 2, "no client id");
	if (r != MQTT_OK)
		return wrong(c, mqtt_reason_name(r));
	if (p.client_id.n >= sizeof(c->id))
		return refuse_connect(c, 2, "client id of more than 64 bytes");
	memcpy(c->id, p.client_id.p, p.client_id.n);
	c->id_n = (uint8_t)p.client_id.n;
	c->level = p.level;
	c->flags = p.flags;
	c->clean = p.clean_session;
	c->keepalive_ms = p.keepalive_s * 1500u;
	if (!keep_will(c, &p))
		return refuse_connect(c, 3, "no memory");
	if (!c->broker->config.plain)
		return auth_start(c, &p);
	if (c->id_n == 0)
		assign_id(c);
	open_plain(c);
}

struct message *conn_message(struct broker_conn *c, const struct mqtt_publish *p, bool sealed)
{
	struct pool *pool = &c->broker->pool;
	struct message *m;

	/* What is in hand and partial is this packet, and nothing else. One whose length is written
	 * longer than need be is not passed on like that. */
	if (c->partial_n != mqtt_publish_bytes(p->topic.n, p->payload.n, p->qos) ||
	    p->payload.n < MESSAGE_SHARED_BYTES_MIN)
		return message_new(pool, p, conn_id(c), sealed);
	m = message_adopt(pool, p, c->partial, c->partial_n, conn_id(c), sealed);
	if (m)
		c->partial = NULL;
	return m;
}

/* The id of a QoS 2 message is remembered until PUBREL. False: no memory. */
static bool take_incoming(struct broker_conn *c, uint16_t packet_id)
{
	struct broker *b = c->broker;
	struct session *s = c->session;

	if (!incoming_add(&b->pool, &s->incoming, packet_id))
		return false;
	if (durable_incoming(b, s, packet_id, false))
		return true;
	incoming_remove(&b->pool, &s->incoming, packet_id);
	return false;
}

static void publish_plain(struct broker_conn *c, const struct mqtt_publish *p)
{
	struct broker *b = c->broker;
	uint64_t before = b->durable.n_urgent;
	struct message *m;

	if (p->qos == 2 && incoming_has(c->session->incoming, p->packet_id)) {
		b->stats.replayed++;
		return reply_own(c, MQTT_PUBREC, p->packet_id);
	}
	m = conn_message(c, p, false);
	if (!m || (p->qos == 2 && !take_incoming(c, p->packet_id))) {
		message_put(&b->pool, m);
		return conn_fail(c, "no memory for its message");
	}
	b->stats.accepted++;
	route_message(b, m, c);
	message_put(&b->pool, m);
	if (p->qos && c->state == CONN_OPEN)
		reply_ack(c, ack_type(p->qos), p->packet_id, b->durable.n_urgent != before);
}

static void handle_publish(struct broker_conn *c, const struct mqtt_frame *f)
{
	struct mqtt_publish p;
	enum mqtt_reason r = mqtt_decode_publish(f, &p);

	if (r != MQTT_OK)
		return conn_fail(c, mqtt_reason_name(r));
	c->broker->stats.received++;
	if (c->state != CONN_OPEN)
		return auth_publish(c, &p);
	if (c->broker->config.plain)
		return publish_plain(c, &p);
	ingress_publish(c, &p);
}

static void handle_subscribe(struct broker_conn *c, struct bytes body)
{
	struct mqtt_subscribe p;
	enum mqtt_reason r = mqtt_decode_subscribe(body, &p);
	uint8_t codes[MQTT_FILTERS_MAX];

	if (r != MQTT_OK)
		return conn_fail(c, mqtt_reason_name(r));
	for (unsigned i = 0; i < p.n; i++)
		codes[i] = c->state == CONN_OPEN
				   ? session_subscribe(c->broker, c->session, p.list[i].filter,
						       p.list[i].qos)
				   : 0x80; /* PROTOCOL 5 */
	send_suback(c, p.packet_id, codes, p.n);
}

static void handle_unsubscribe(struct broker_conn *c, struct bytes body)
{
	struct mqtt_unsubscribe p;
	enum mqtt_reason r = mqtt_decode_unsubscribe(body, &p);

	if (r != MQTT_OK)
		return conn_fail(c, mqtt_reason_name(r));
	if (c->state != CONN_OPEN)
		return conn_fail(c, "UNSUBSCRIBE before authentication");
	for (unsigned i = 0; i < p.n; i++)
		session_unsubscribe(c->broker, c->session, p.filters[i]);
	reply_own(c, MQTT_UNSUBACK, p.packet_id);
}

/* PUBACK, PUBREC or PUBCOMP. */
static void handle_ack(struct broker_conn *c, enum mqtt_type type, struct bytes body)
{
	uint16_t packet_id;
	enum mqtt_reason r = mqtt_decode_ack(body, &packet_id);

	if (r != MQTT_OK)
		return conn_fail(c, mqtt_reason_name(r));
	if (c->state != CONN_OPEN)
		return; /* of what it was sent on another connection: it will be asked again */
	if (!delivery_acknowledge(c->broker, c->session, type, packet_id))
		return conn_fail(c, "acknowledges a message of another QoS");
	if (type == MQTT_PUBREC) /* of an id that we do not know, too: else it is stuck with it */
		reply_own(c, MQTT_PUBREL, packet_id);
}

/* Completed whether we know of it or not, and before authentication as after: what a client was
 * told once, it may have missed. */
static void handle_pubrel(struct broker_conn *c, struct bytes body)
{
	uint16_t packet_id;
	enum mqtt_reason r = mqtt_decode_ack(body, &packet_id);

	if (r != MQTT_OK)
		return conn_fail(c, mqtt_reason_name(r));
	if (!c->session || !c->broker->config.plain)
		return conn_send_ack(c, MQTT_PUBCOMP, packet_id);
	if (incoming_has(c->session->incoming, packet_id)) {
		if (!durable_incoming(c->broker, c->session, packet_id, true))
			return conn_fail(c, "no memory for its PUBREL");
		incoming_remove(&c->broker->pool, &c->session->incoming, packet_id);
	}
	reply_own(c, MQTT_PUBCOMP, packet_id);
}

static void handle_empty(struct broker_conn *c, enum mqtt_type type, struct bytes body)
{
	static const uint8_t pingresp[] = { MQTT_PINGRESP << 4, 0 };
	enum mqtt_reason r = mqtt_decode_empty(body);

	if (r != MQTT_OK)
		conn_fail(c, mqtt_reason_name(r));
	else if (type == MQTT_PINGREQ)
		send_small(c, pingresp, sizeof(pingresp));
	else
		close_conn(c, "DISCONNECT", false, true);
}

static void handle(struct broker_conn *c, const struct mqtt_frame *f)
{
	enum mqtt_type type = mqtt_frame_type(f);

	c->last_rx_ms = c->broker->mono_ms;
	if ((c->state == CONN_NEW) != (type == MQTT_CONNECT)) /* [MQTT-3.1.0-1], [MQTT-3.1.0-2] */
		return wrong(c, c->state == CONN_NEW ? "its first packet is no CONNECT"
						     : "a second CONNECT");
	switch (type) {
	case MQTT_CONNECT:
		return handle_connect(c, f);
	case MQTT_PUBLISH:
		return handle_publish(c, f);
	case MQTT_PUBACK:
	case MQTT_PUBREC:
	case MQTT_PUBCOMP:
		return handle_ack(c, type, f->body);
	case MQTT_PUBREL:
		return handle_pubrel(c, f->body);
	case MQTT_SUBSCRIBE:
		return handle_subscribe(c, f->body);
	case MQTT_UNSUBSCRIBE:
		return handle_unsubscribe(c, f->body);
	case MQTT_PINGREQ:
	case MQTT_DISCONNECT:
		return handle_empty(c, type, f->body);
	case MQTT_CONNACK:
	case MQTT_SUBACK:
	case MQTT_UNSUBACK:
	case MQTT_PINGRESP:
	case MQTT_AUTH:
		return conn_fail(c, "a packet that a client does not send");
	}
}

/* --- framing ---------------------------------------------------------------------------------- */

/* Room for n bytes of a packet of need. It grows with what has arrived, not with what a header
 * promises. */
static bool partial_grow(struct broker_conn *c, size_t n, size_t need)
{
	size_t room = c->partial_room ? c->partial_room : PARTIAL_BYTES_MIN;
	uint8_t *bigger;

	if (n <= c->partial_room)
		return true;
	while (room < n)
		room *= 4;
	if (room > need)
		room = need;
	bigger = pool_alloc(&c->broker->pool, room);
	if (!bigger)
		return false;
	if (c->partial_n)
		memcpy(bigger, c->partial, c->partial_n);
	pool_free(&c->broker->pool, c->partial);
	c->partial = bigger;
	c->partial_room = (uint32_t)room;
	return true;
}

/* Takes bytes of in into the partial packet, up to need. */
static void partial_append(struct broker_conn *c, struct bytes *in, size_t need)
{
	size_t n = need - c->partial_n;

	if (n > in->n)
		n = in->n;
	if (!partial_grow(c, c->partial_n + n, need))
		return conn_fail(c, "no memory for its packet");
	memcpy(c->partial + c->partial_n, in->p, n);
	c->partial_n += (uint32_t)n; /* packets are below 2^28 */
	c->partial_need = (uint32_t)need;
	*in = bytes_of(in->p + n, in->n - n);
}

static void partial_drop(struct broker_conn *c)
{
	pool_free(&c->broker->pool, c->partial);
	c->partial = NULL;
	c->partial_n = c->partial_need = c->partial_room = 0;
}

static uint32_t packet_bytes_max(const struct broker_conn *c)
{
	uint32_t max = c->broker->config.limits.packet_bytes_max;
	uint32_t before_open = c->state == CONN_NEW ? PACKET_BYTES_CONNECT : PACKET_BYTES_AUTH;

	return c->state == CONN_OPEN || max < before_open ? max : before_open;
}

/* One step: a whole packet handled, or bytes moved into the partial one. */
static void input_step(struct broker_conn *c, struct bytes *in)
{
	struct bytes v = c->partial_n ? bytes_of(c->partial, c->partial_n) : *in;
	struct mqtt_frame f;
	size_t used, need;
	enum mqtt_reason r = mqtt_frame_next(v, packet_bytes_max(c), &f, &used, &need);

	if (r != MQTT_OK)
		return wrong(c, mqtt_reason_name(r));
	if (used == 0)
		return partial_append(c, in, need);
	handle(c, &f);
	if (c->state == CONN_CLOSED)
		return;
	if (c->partial_n)
		partial_drop(c);
	else
		*in = bytes_of(in->p + used, in->n - used);
}

void broker_conn_input(struct broker_conn *c, struct bytes in)
{
	conn_get(c);
	while (c->state != CONN_CLOSED && (in.n || c->partial_n)) {
		if (c->partial_n && c->partial_n < c->partial_need) {
			if (in.n == 0)
				break;
			partial_append(c, &in, c->partial_need);
			continue;
		}
		input_step(c, &in);
	}
	conn_put(c);
}
