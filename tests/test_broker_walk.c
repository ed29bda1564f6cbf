// SPDX-License-Identifier: MIT
/*
 * A long random walk through the engine in SSDTF mode, beside a model of what must and must not
 * come of it. Senders and receivers connect, authenticate, subscribe, publish, hang up and are
 * taken over; jobs come back in any order, late, or not done; commits fail; sockets stall; grants
 * and parties come and go; the broker crashes and starts again.
 *
 * Checked at each packet that a client reads:
 *   - it is signed, opens, and is what its sender sealed;
 *   - the grant it was converted under was in force when the packet was written;
 *   - per receiver and sender the order is that of sending, and nothing comes twice without DUP;
 *   - at QoS 2 nothing comes twice at all;
 *   - an acknowledgement means that the counter is in storage, or that the message was refused.
 * Checked whenever the walk comes to rest: what was acknowledged has reached every receiver that
 * was subscribed and granted all the time since before it was sent, over crashes of the broker,
 * too, if its session was not clean.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/fake_check.h"
#include "tests/fake_client.h"
#include "tests/harness.h"

HARNESS_MAIN

#define SENDERS		3
#define RECEIVERS	3
#define MESSAGES_MAX	32768 /* of one sender: its counters begin at 1 */
#define UNACKED_MAX	12
#define STEPS		60000
#define STEPS_OF_A_WALK 1000 /* from one rest to the next */
#define REST_ROUNDS_MAX 200

static const struct {
	const char *topic;
	unsigned key_id;
} topics[] = {
	{ "site/1/temp", WORLD_KEY_TEMP },
	{ "site/2/hum", WORLD_KEY_TEMP },
	{ "cam/1", WORLD_KEY_CAM },
	{ "cam/2/door", WORLD_KEY_CAM },
};

static const char *const filters[] = { "#", "site/#", "site/1/temp", "+/2/+", "cam/1" };

enum message_state { UNSENT, SENT, ACKED, REFUSED };

struct model_message {
	enum message_state state;
	uint64_t sent_at; /* step */
	uint8_t topic, qos;
	bool retain;
	bool received[RECEIVERS];
	uint64_t once[RECEIVERS]; /* the session in which it was received at QoS 2 */
};

struct sender {
	struct fake_client client;
	bool open;
	struct model_message messages[MESSAGES_MAX];
	struct fake_sealed unacked[UNACKED_MAX]; /* in the order of sending */
	unsigned n_unacked;
	uint64_t checked; /* up to this counter */
};

struct receiver {
	struct fake_client client;
	bool open;
	bool present;		      /* CONNACK found the session */
	bool kept;		      /* it must, next time */
	bool crashed;		      /* the broker, since its last session opened */
	int qos[ARRAY_SIZE(filters)]; /* subscribed with; -1: not */
	uint64_t stable_since;	      /* session, subscriptions and grants are as they are since */
	uint64_t last[SENDERS];	      /* highest counter on this connection */
	uint64_t last_new[SENDERS];   /* highest in this session that came without DUP */
	int asked;		      /* the filter whose SUBACK is awaited, or -1 */
	int asked_qos;
	uint64_t session;   /* its number: another where it may have ended */
	bool stored[65536]; /* QoS 2: ids between PUBLISH and PUBREL */
	struct {
		enum mqtt_type type;
		uint16_t id;
	} to_ack[64];
	unsigned n_to_ack;
};

/* How much goes wrong between one rest and the next. */
enum weather { CALM, WIND, STORM };

struct walk {
	struct world *world;
	struct fake_broker *fake;
	uint64_t step;
	enum weather weather;
	struct sender senders[SENDERS];
	struct receiver receivers[RECEIVERS];
	/* Where each grant that is gone stood when it went. */
	struct fake_conn *gone_conn[WORLD_GRANTS_MAX];
	size_t gone_at[WORLD_GRANTS_MAX];
	unsigned deliveries, once, checked, restarts, bundles, retired;
};

static unsigned pick(unsigned n)
{
	return (unsigned)(harness_random() % n);
}

static bool one_in(unsigned n)
{
	return pick(n) == 0;
}

/* Something goes wrong: once in so many in a storm, less in a wind. */
static bool mishap(const struct walk *w, unsigned n)
{
	switch (w->weather) {
	case CALM:
		return false;
	case WIND:
		return one_in(10 * n);
	case STORM:
		return one_in(n);
	}
	return false;
}

/* It is no longer connected, by whose doing it may be. */
static bool is_down(const struct fake_client *c)
{
	return !c->conn || !c->conn->engine;
}

/* --- senders ---------------------------------------------------------------------------------- */

static struct model_message *message_of(struct sender *s, uint64_t counter)
{
	ASSERT_LT(counter, MESSAGES_MAX);
	return &s->messages[counter];
}

static void sender_forget(struct sender *s, unsigned at)
{
	memmove(&s->unacked[at], &s->unacked[at + 1],
		(--s->n_unacked - at) * sizeof(s->unacked[0]));
	/* Its payload is a view of itself, and has moved with it. */
	for (unsigned i = at; i < s->n_unacked; i++)
		s->unacked[i].publish.payload.p = s->unacked[i].payload;
}

static void sender_publish(struct walk *w, struct sender *s)
{
	bool cam1 = s == &w->senders[2];
	bool dev1 = s == &w->senders[0];
	unsigned topic = cam1 ? 2 + pick(2) : dev1 ? pick(2) : pick(4);
	const struct world_scope *scope =
		topics[topic].key_id == WORLD_KEY_TEMP ? w->world->temp : w->world->cam;
	uint8_t qos = (uint8_t)pick(3);
	bool retain = one_in(8);
	struct fake_sealed s0 = { 0 }, *slot;
	struct model_message *m;
	char text[64];

	if (s->n_unacked == UNACKED_MAX || s->client.conn->paused)
		return;
	if (one_in(30))
		client_new_context(&s->client, scope);
	slot = qos ? &s->unacked[s->n_unacked++] : &s0;
	snprintf(text, sizeof(text), "%s %llu", s->client.id,
		 (unsigned long long)s->client.counter + 1);
	client_seal(&s->client, scope, topics[topic].topic, text, qos, retain, slot);
	m = message_of(s, slot->counter);
	*m = (struct model_message){
		.state = SENT,
		.sent_at = w->step,
		.topic = (uint8_t)topic,
		.qos = qos,
		.retain = retain,
	};
	client_send_publish(&s->client, &slot->publish);
}

/* The session is open: all that is unacknowledged again, in order. */
static void sender_opened(struct sender *s)
{
	s->open = true;
	for (unsigned i = 0; i < s->n_unacked; i++) {
		s->unacked[i].publish.dup = true;
		client_send_publish(&s->client, &s->unacked[i].publish);
	}
}

static void sender_acked(struct walk *w, struct sender *s)
{
	enum mqtt_type type;
	struct mqtt_frame f;
	uint16_t id;

	ASSERT_TRUE(fake_next_packet(s->client.conn, &f));
	ASSERT_EQ(mqtt_decode_ack(f.body, &id), MQTT_OK);
	type = mqtt_frame_type(&f);
	if (type == MQTT_PUBREC)
		client_send_ack(&s->client, MQTT_PUBREL, id); /* may get lost: nobody cares */
	for (unsigned i = 0; i < s->n_unacked; i++) {
		struct model_message *m = message_of(s, s->unacked[i].counter);
		const struct replay_window *stored = fake_stored_window(w->fake, s->client.id);

		if (s->unacked[i].publish.packet_id != id)
			continue;
		ASSERT_EQ(type, m->qos == 2 ? MQTT_PUBREC : MQTT_PUBACK);
		if (m->state == SENT) {
			ASSERT_TRUE(stored != NULL);
			ASSERT_EQ(replay_check(stored, s->unacked[i].counter), REPLAY_SEEN);
			m->state = ACKED;
		}
		sender_forget(s, i);
		return;
	}
	harness_fail(__FILE__, __LINE__, true, "%s: acknowledges %u, which is not out",
		     s->client.id, id);
}

static void sender_told_error(struct walk *w, struct sender *s)
{
	enum control_reason reason;
	uint64_t counter;
	struct model_message *m;

	ASSERT_TRUE(client_got_any_error(&s->client, &reason, &counter));
	m = message_of(s, counter);
	if (reason == CONTROL_UNAVAILABLE)
		return; /* to a receiver at QoS 0: nothing that was promised */
	ASSERT_EQ(reason, CONTROL_RETIRED);
	ASSERT_TRUE(m->state == SENT || m->state == REFUSED); /* sent again before it was told */
	m->state = REFUSED;
	w->retired++;
	client_new_context(&s->client, topics[m->topic].key_id == WORLD_KEY_TEMP ? w->world->temp
										 : w->world->cam);
}

/* --- receivers -------------------------------------------------------------------------------- */

static int subscribed_qos(const struct receiver *r, struct bytes topic)
{
	int qos = -1;

	for (unsigned i = 0; i < ARRAY_SIZE(filters); i++)
		if (r->qos[i] > qos && record_filter_matches(bytes_str(filters[i]), topic))
			qos = r->qos[i];
	return qos;
}

/* Its session has ended, or may have: nothing is promised to it. */
static void receiver_reset(struct walk *w, struct receiver *r)
{
	for (unsigned i = 0; i < ARRAY_SIZE(filters); i++)
		r->qos[i] = -1;
	memset(r->last_new, 0, sizeof(r->last_new));
	r->stable_since = w->step;
	r->session++;
	r->kept = false;
}

static void receiver_opened(struct walk *w, struct receiver *r)
{
	r->open = true;
	r->asked = -1;
	r->n_to_ack = 0;
	memset(r->last, 0, sizeof(r->last));
	if (r->crashed)
		memset(r->last_new, 0, sizeof(r->last_new));
	r->crashed = false;
	if (!r->present) {
		ASSERT_FALSE(r->kept);
		receiver_reset(w, r);
		memset(r->stored, 0, sizeof(r->stored));
	}
}

static void receiver_subscribe(struct receiver *r)
{
	struct mqtt_subscribe s = { .packet_id = 1, .n = 1 };
	uint8_t packet[256];
	struct bytes_writer out = bytes_writer_of(packet, sizeof(packet));

	if (r->asked >= 0)
		return;
	r->asked = (int)pick(ARRAY_SIZE(filters));
	r->qos[r->asked] = -1; /* either may hold until the SUBACK comes, if it does */
	r->asked_qos = one_in(4) ? 0 : 1 + (int)pick(2);
	s.list[0] =
		(struct mqtt_subscription){ bytes_str(filters[r->asked]), (uint8_t)r->asked_qos };
	mqtt_encode_subscribe(&s, &out);
	ASSERT_FALSE(out.bad);
	client_send(&r->client, bytes_of(packet, out.used));
}

static void receiver_unsubscribe(struct walk *w, struct receiver *r)
{
	unsigned at = pick(ARRAY_SIZE(filters));
	struct mqtt_unsubscribe u = {
		.packet_id = 2,
		.n = 1,
		.filters = { bytes_str(filters[at]) },
	};
	uint8_t packet[256];
	struct bytes_writer out = bytes_writer_of(packet, sizeof(packet));

	if (r->asked >= 0)
		return;
	mqtt_encode_unsubscribe(&u, &out);
	client_send(&r->client, bytes_of(packet, out.used));
	r->qos[at] = -1;
	r->stable_since = w->step;
}

static void receiver_suback(struct walk *w, struct receiver *r)
{
	struct mqtt_frame f;

	ASSERT_TRUE(fake_next_packet(r->client.conn, &f));
	ASSERT_GE(r->asked, 0);
	ASSERT_EQ(f.body.p[2], r->asked_qos);
	if (!is_down(&r->client)) { /* else the session may have ended since it was sent */
		r->qos[r->asked] = r->asked_qos;
		r->stable_since = w->step;
		r->kept = !r->client.clean;
	}
	r->asked = -1;
}

static unsigned sender_of(struct walk *w, struct bytes origin)
{
	for (unsigned i = 0; i < SENDERS; i++)
		if (bytes_equal(origin, bytes_str(w->senders[i].client.id)))
			return i;
	harness_fail(__FILE__, __LINE__, true, "a sender that does not exist");
	return 0;
}

/* The grant was there when the packet was written, at byte at of this connection. */
static void check_grant(struct walk *w, const struct receiver *r, const struct world_grant *g,
			size_t at)
{
	size_t i = (size_t)(g - w->world->grants);

	if (!g->gone)
		return;
	ASSERT_TRUE(w->gone_conn[i] == r->client.conn);
	ASSERT_LT(at, w->gone_at[i]);
}

static void check_order(struct receiver *r, unsigned from, const struct fake_opened *o)
{
	uint64_t counter = o->envelope.counter;

	if (o->publish.retain)
		return; /* kept, not on its way */
	ASSERT_GT(counter, r->last[from]);
	r->last[from] = counter;
	if (o->publish.dup)
		return;
	ASSERT_GT(counter, r->last_new[from]);
	r->last_new[from] = counter;
}

static void owe(struct receiver *r, enum mqtt_type type, uint16_t id)
{
	ASSERT_LT(r->n_to_ack, ARRAY_SIZE(r->to_ack));
	r->to_ack[r->n_to_ack].type = type;
	r->to_ack[r->n_to_ack++].id = id;
}

/* [MQTT-4.3.3-2]: false where it is one that it has already. */
static bool received_once(struct walk *w, struct receiver *r, struct model_message *m,
			  const struct mqtt_publish *p)
{
	size_t at = (size_t)(r - w->receivers);

	if (r->stored[p->packet_id]) {
		ASSERT_TRUE(p->dup);
		return false;
	}
	r->stored[p->packet_id] = true;
	if (!p->retain) {
		ASSERT_NE(m->once[at], r->session);
		m->once[at] = r->session;
	}
	return true;
}

static void receiver_delivered(struct walk *w, struct receiver *r)
{
	size_t at = r->client.conn->read;
	struct model_message *m;
	struct fake_opened o;
	struct mqtt_publish p;
	unsigned from;
	char text[64];

	ASSERT_TRUE(client_got_publish(&r->client, &p));
	ASSERT_TRUE(client_open(&r->client, &p, &o));
	from = sender_of(w, o.envelope.origin);
	m = message_of(&w->senders[from], o.envelope.counter);
	snprintf(text, sizeof(text), "%s %llu", w->senders[from].client.id,
		 (unsigned long long)o.envelope.counter);
	ASSERT_STREQ(o.text, text);
	ASSERT_NE(m->state, UNSENT);
	ASSERT_TRUE(bytes_equal(p.topic, bytes_str(topics[m->topic].topic)));
	ASSERT_LE(p.qos, m->qos);
	check_grant(w, r, o.grant, at);
	check_order(r, from, &o);
	m->received[r - w->receivers] = true;
	w->deliveries++;
	if (p.qos)
		owe(r, p.qos == 2 ? MQTT_PUBREC : MQTT_PUBACK, p.packet_id);
	if (p.qos == 2 && received_once(w, r, m, &p))
		w->once++;
}

static void receiver_released(struct receiver *r)
{
	struct mqtt_frame f;
	uint16_t id;

	ASSERT_TRUE(fake_next_packet(r->client.conn, &f));
	ASSERT_EQ(mqtt_decode_ack(f.body, &id), MQTT_OK);
	r->stored[id] = false;
	owe(r, MQTT_PUBCOMP, id);
}

/* One of those that wait, any of them. */
static void receiver_ack(struct receiver *r)
{
	unsigned at;

	if (r->n_to_ack == 0)
		return;
	at = one_in(4) ? pick(r->n_to_ack) : 0;
	client_send_ack(&r->client, r->to_ack[at].type, r->to_ack[at].id);
	memmove(&r->to_ack[at], &r->to_ack[at + 1], (--r->n_to_ack - at) * sizeof(r->to_ack[0]));
}

/* --- clients react ---------------------------------------------------------------------------- */

static bool topic_is(const struct mqtt_frame *f, const char *topic)
{
	struct mqtt_publish p;

	return mqtt_decode_publish(f, &p) == MQTT_OK && bytes_equal(p.topic, bytes_str(topic));
}

/* CONNACK, challenge and result, of whichever kind the client is. False: another packet. */
static bool handshake(struct fake_client *c, const struct mqtt_frame *f, bool *ret_opened,
		      bool *present)
{
	struct mqtt_frame skipped;

	*ret_opened = false;
	if (mqtt_frame_type(f) == MQTT_CONNACK) {
		*present = f->body.p[0];
		ASSERT_TRUE(fake_next_packet(c->conn, &skipped));
		return true;
	}
	if (mqtt_frame_type(f) != MQTT_PUBLISH)
		return false;
	if (topic_is(f, "$SSDTF/auth/challenge")) {
		ASSERT_TRUE(client_got_challenge(c));
		client_send_response(c, (uint8_t)pick(3));
		return true;
	}
	if (!topic_is(f, "$SSDTF/auth/result"))
		return false;
	ASSERT_TRUE(client_got_result(c));
	*ret_opened = true;
	return true;
}

/* The next packet, if there is one. */
static bool sender_reacts(struct walk *w, struct sender *s)
{
	struct fake_conn *conn = s->client.conn;
	struct mqtt_frame f;
	bool opened, present;

	if (!conn || !fake_peek_packet(conn, &f))
		return false;
	if (handshake(&s->client, &f, &opened, &present)) {
		if (opened)
			sender_opened(s);
	} else if (mqtt_frame_type(&f) == MQTT_PUBLISH) {
		sender_told_error(w, s);
	} else if (s->open && mqtt_frame_type(&f) != MQTT_PUBCOMP) {
		sender_acked(w, s);
	} else {
		ASSERT_TRUE(fake_next_packet(conn, &f)); /* of the response */
	}
	return true;
}

static bool receiver_reacts(struct walk *w, struct receiver *r)
{
	struct fake_conn *conn = r->client.conn;
	struct mqtt_frame f;
	bool opened;

	if (!conn || !fake_peek_packet(conn, &f))
		return false;
	if (handshake(&r->client, &f, &opened, &r->present)) {
		if (opened)
			receiver_opened(w, r);
		return true;
	}
	switch (mqtt_frame_type(&f)) {
	case MQTT_SUBACK:
		receiver_suback(w, r);
		break;
	case MQTT_PUBLISH:
		receiver_delivered(w, r);
		break;
	case MQTT_PUBREL:
		receiver_released(r);
		break;
	default: /* UNSUBACK, and the PUBACK or PUBREC of the response */
		ASSERT_TRUE(fake_next_packet(conn, &f));
		break;
	}
	return true;
}

/* --- what can happen -------------------------------------------------------------------------- */

/* Another connection, in place of the one that there is or was. */
static void dial(struct fake_client *c, bool *open)
{
	*open = false;
	client_dial(c);
	client_send_connect(c);
}

static void receiver_dials(struct walk *w, struct receiver *r)
{
	/* A clean session ends with its connection, and ends the one before it once this is
	 * authenticated, which the client may never hear of. */
	if (r->client.clean)
		receiver_reset(w, r);
	dial(&r->client, &r->open);
}

static void sender_acts(struct walk *w, struct sender *s)
{
	if (is_down(&s->client)) {
		/* What it was told last is lost to it unless it read that. */
		s->open = false;
		if (one_in(4))
			dial(&s->client, &s->open);
		return;
	}
	if (mishap(w, 60))
		return fake_hang_up(s->client.conn);
	if (mishap(w, 200))
		return dial(&s->client, &s->open); /* takes over, once authenticated */
	if (s->open)
		sender_publish(w, s);
}

static void receiver_acts(struct walk *w, struct receiver *r)
{
	struct fake_client *c = &r->client;

	if (is_down(c)) {
		if (c->clean)
			receiver_reset(w, r);
		r->open = false;
		if (one_in(4)) {
			c->clean = one_in(3);
			receiver_dials(w, r);
		}
		return;
	}
	if (mishap(w, 150))
		return fake_hang_up(c->conn);
	if (mishap(w, 300))
		return receiver_dials(w, r);
	if (mishap(w, 20))
		c->conn->stalled = true;
	else if (one_in(3))
		fake_unstall(c->conn);
	if (!r->open)
		return;
	if (subscribed_qos(r, bytes_str(topics[0].topic)) < 0 || mishap(w, 25))
		receiver_subscribe(r);
	else if (mishap(w, 100))
		receiver_unsubscribe(w, r);
	for (unsigned n = pick(6); n; n--)
		receiver_ack(r);
}

static void jobs(struct walk *w)
{
	struct fake_broker *f = w->fake;
	unsigned n = 1 + pick(10);

	for (unsigned i = 0; i < n; i++) {
		switch (pick(4)) {
		case 0:
			(void)fake_run_verify(f);
			break;
		case 1:
			f->commit_error = mishap(w, 5) ? -EIO : 0;
			(void)fake_run_commit(f);
			break;
		default:
			f->convert_status =
				mishap(w, 10) ? BROKER_TOKEN_UNAVAILABLE : BROKER_TOKEN_OK;
			f->sign_status = mishap(w, 20) ? BROKER_TOKEN_UNAVAILABLE : BROKER_TOKEN_OK;
			(void)fake_run_token(f);
			break;
		}
	}
}

/* --- bundles ---------------------------------------------------------------------------------- */

static struct receiver *receiver_of(struct walk *w, const struct world_party *p)
{
	for (unsigned i = 0; i < RECEIVERS; i++)
		if (w->receivers[i].client.party == p)
			return &w->receivers[i];
	return NULL;
}

static struct world_grant *live_grant(struct walk *w, const struct world_party *to,
				      const struct world_scope *scope)
{
	for (unsigned i = 0; i < w->world->n_grants; i++) {
		struct world_grant *g = &w->world->grants[i];

		if (!g->gone && g->to == to && g->scope == scope)
			return g;
	}
	return NULL;
}

static void grant_goes(struct walk *w, struct world_grant *g)
{
	size_t i = (size_t)(g - w->world->grants);
	struct fake_conn *conn = receiver_of(w, g->to)->client.conn;

	w->gone_conn[i] = conn;
	w->gone_at[i] = conn ? conn->out_n : 0;
}

/* A grant is revoked, given, or given anew in the place of the one there was. */
static void change_grant(struct walk *w)
{
	struct receiver *r = &w->receivers[pick(RECEIVERS)];
	struct world_scope *scope = one_in(2) ? w->world->temp : w->world->cam;
	struct world_grant *g = live_grant(w, r->client.party, scope);

	r->stable_since = w->step;
	if (g && one_in(2)) {
		grant_goes(w, g);
		world_revoke(w->world, g);
		return;
	}
	if (g) {
		grant_goes(w, g);
		g->gone = true;
	}
	if (w->world->n_grants < WORLD_GRANTS_MAX)
		world_add_grant(w->world, r->client.party, scope,
				one_in(2) ? RECORD_GRANT_PROOF : 0);
}

/* A party goes, with its session, or comes back; a receiver's grants go with it. */
static void change_party(struct walk *w)
{
	struct world_party *p = &w->world->parties[pick(w->world->n_parties)];
	struct receiver *r = receiver_of(w, p);

	/* Nobody is enrolled again while what he sent before is still being verified: it would be
	 * taken behind what was refused meanwhile. */
	while (p->gone && fake_run_verify(w->fake))
		;
	p->gone = !p->gone;
	if (!r)
		return;
	receiver_reset(w, r);
	for (unsigned i = 0; i < w->world->n_grants; i++) {
		struct world_grant *g = &w->world->grants[i];

		if (g->to != p || g->gone || !p->gone)
			continue;
		grant_goes(w, g);
		g->gone = true;
	}
}

static void new_bundle(struct walk *w)
{
	w->fake->wall_ms += 2; /* no two revocations at one time */
	if (one_in(3))
		change_grant(w);
	else if (one_in(4))
		change_party(w);
	world_apply(w->world);
	w->bundles++;
}

/* Sessions that are not clean outlive it, with what they are owed. What was not acknowledged yet
 * may come for a second time, as from another sender. */
static void crash(struct walk *w)
{
	w->fake->late_crash = one_in(2);
	world_restart(w->world);
	for (unsigned i = 0; i < RECEIVERS; i++) {
		struct receiver *r = &w->receivers[i];

		if (r->client.clean)
			receiver_reset(w, r);
		r->crashed = true;
		r->open = false;
	}
	w->restarts++;
}

/* --- rest ------------------------------------------------------------------------------------- */

static bool react_all(struct walk *w)
{
	bool some = false;

	for (unsigned i = 0; i < SENDERS; i++)
		while (sender_reacts(w, &w->senders[i]))
			some = true;
	for (unsigned i = 0; i < RECEIVERS; i++) {
		struct receiver *r = &w->receivers[i];

		while (receiver_reacts(w, r))
			some = true;
		while (r->open && !is_down(&r->client) && r->n_to_ack) {
			receiver_ack(r);
			some = true;
		}
	}
	return some;
}

static void all_connect(struct walk *w)
{
	for (unsigned i = 0; i < SENDERS; i++)
		if (is_down(&w->senders[i].client))
			dial(&w->senders[i].client, &w->senders[i].open);
	for (unsigned i = 0; i < RECEIVERS; i++) {
		struct receiver *r = &w->receivers[i];

		if (!is_down(&r->client)) {
			fake_unstall(r->client.conn);
			continue;
		}
		if (r->client.clean)
			receiver_reset(w, r);
		r->client.clean = false;
		receiver_dials(w, r);
	}
}

/* Everybody is there, everything works, until nothing more happens. */
static void come_to_rest(struct walk *w)
{
	struct fake_broker *f = w->fake;
	unsigned quiet = 0;

	f->convert_status = f->sign_status = BROKER_TOKEN_OK;
	f->commit_error = 0;
	while (fake_run_verify(f))
		;
	for (unsigned i = 0; i < w->world->n_parties; i++)
		w->world->parties[i].gone = false;
	world_apply(w->world);
	for (unsigned i = 0; quiet < 3; i++) {
		ASSERT_LT(i, REST_ROUNDS_MAX);
		w->step++;
		all_connect(w);
		fake_pass(f, 600); /* longer than any retry of the token's */
		quiet = react_all(w) ? 0 : quiet + 1;
		if (i % 4 == 3)
			fake_pass(f, 1100); /* ... and of the storage's */
	}
}

static void check_message(struct walk *w, struct sender *s, uint64_t counter)
{
	const struct model_message *m = message_of(s, counter);
	struct bytes topic = bytes_str(topics[m->topic].topic);
	const struct world_scope *scope =
		topics[m->topic].key_id == WORLD_KEY_TEMP ? w->world->temp : w->world->cam;

	if (m->qos == 0)
		return;
	ASSERT_TRUE(m->state == ACKED || m->state == REFUSED);
	for (unsigned i = 0; i < RECEIVERS; i++) {
		struct receiver *r = &w->receivers[i];

		if (m->state == REFUSED || m->sent_at <= r->stable_since ||
		    subscribed_qos(r, topic) < 1 || !live_grant(w, r->client.party, scope))
			continue;
		if (!m->received[i])
			harness_fail(__FILE__, __LINE__, true,
				     "%s %llu of step %llu did not reach %s, as it is since %llu",
				     s->client.id, (unsigned long long)counter,
				     (unsigned long long)m->sent_at, r->client.id,
				     (unsigned long long)r->stable_since);
		w->checked++;
	}
}

static void check_rest(struct walk *w)
{
	struct broker_stats stats = fake_stats(w->fake);

	for (unsigned i = 0; i < SENDERS; i++) {
		struct sender *s = &w->senders[i];

		ASSERT_TRUE(s->open);
		ASSERT_EQ(s->n_unacked, 0);
		while (s->checked < s->client.counter)
			check_message(w, s, ++s->checked);
		ASSERT_FALSE(s->client.conn->paused);
	}
	ASSERT_EQ(stats.queued, 0);
	ASSERT_EQ(stats.dropped_full, 0);
	ASSERT_EQ(w->fake->n_verify + w->fake->n_token, 0);
}

/* --- the walk --------------------------------------------------------------------------------- */

static void walk_init(struct walk *w)
{
	struct broker_config config;
	struct world_party *senders[SENDERS], *receivers[RECEIVERS];

	fake_config(false, &config);
	config.limits.inflight_max = 8;
	config.limits.queue_high_water = 20;
	config.limits.queue_messages_max = 1000000;
	config.limits.capsules_max = 16;
	config.limits.verify_pending_max = 4;
	config.limits.output_bytes_soft = 3000;
	config.limits.auth_timeout_ms = 3600 * 1000; /* the clients here are slow, not wrong */
	config.limits.connect_timeout_ms = 3600 * 1000;
	config.limits.errors_per_second = 1000000;
	w->world = world_new(&config);
	w->fake = w->world->fake;
	senders[0] = w->world->dev1;
	senders[1] = w->world->dev2;
	senders[2] = w->world->cam1;
	receivers[0] = w->world->rx1;
	receivers[1] = w->world->rx2;
	receivers[2] = w->world->rx3;
	for (unsigned i = 0; i < SENDERS; i++)
		client_init_party(&w->senders[i].client, w->world, senders[i]);
	for (unsigned i = 0; i < RECEIVERS; i++) {
		client_init_party(&w->receivers[i].client, w->world, receivers[i]);
		receiver_reset(w, &w->receivers[i]);
	}
}

static void take_step(struct walk *w)
{
	struct sender *s = &w->senders[pick(SENDERS)];
	struct receiver *r = &w->receivers[pick(RECEIVERS)];

	w->step++;
	switch (pick(8)) {
	case 0:
	case 1:
		sender_acts(w, s);
		break;
	case 2:
	case 3:
		receiver_acts(w, r);
		break;
	case 4:
		for (unsigned n = pick(10); n && sender_reacts(w, s); n--)
			;
		for (unsigned n = pick(10); n && receiver_reacts(w, r); n--)
			;
		break;
	default:
		jobs(w);
		break;
	}
	w->fake->mono_ms += pick(10);
	w->fake->wall_ms += pick(10);
	if (mishap(w, 150))
		new_bundle(w);
	if (mishap(w, 1500))
		crash(w);
	if (one_in(3))
		fake_turn(w->fake);
	if (one_in(10))
		fake_check(w->fake);
}

TEST_TIMEOUT(random_walk, 180)
{
	struct walk *w = calloc(1, sizeof(*w));

	if (!w)
		abort();
	walk_init(w);
	while (w->step < harness_rounds(STEPS)) {
		w->weather = (enum weather)pick(3);
		for (unsigned i = 0; i < STEPS_OF_A_WALK; i++)
			take_step(w);
		come_to_rest(w);
		check_rest(w);
	}
	harness_note("%u deliveries (%u at QoS 2), %u of them had to be; %u messages refused under "
		     "retired contexts; %u bundles, %u restarts",
		     w->deliveries, w->once, w->checked, w->retired, w->bundles, w->restarts);
	ASSERT_GT(w->deliveries, 1000);
	ASSERT_GT(w->checked, 300);
	for (unsigned i = 0; i < SENDERS; i++)
		client_deinit(&w->senders[i].client);
	world_free(w->world);
	free(w);
}
