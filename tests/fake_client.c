// SPDX-License-Identifier: MIT
#include "tests/fake_client.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/harness.h"
#include "userspace/base/text.h"
#include "userspace/crypto/admission.h"
#include "userspace/crypto/hash.h"

#define PACKET_MAX  65536
#define LEVEL_3_1_1 4

void client_init(struct fake_client *c, struct fake_broker *f, const char *id)
{
	memset(c, 0, sizeof(*c));
	c->fake = f;
	c->id = id;
	c->clean = true;
}

void client_init_party(struct fake_client *c, struct world *w, struct world_party *p)
{
	client_init(c, w->fake, p->id);
	c->world = w;
	c->party = p;
}

void client_new_context(struct fake_client *c, const struct world_scope *s)
{
	size_t at = (size_t)(s - c->world->scopes);

	if (c->context_open[at])
		envelope_sender_deinit(&c->contexts[at]);
	c->context_open[at] = false;
}

void client_deinit(struct fake_client *c)
{
	for (unsigned i = 0; c->world && i < c->world->n_scopes; i++)
		client_new_context(c, &c->world->scopes[i]);
}

/* --- sending ---------------------------------------------------------------------------------- */

void client_dial(struct fake_client *c)
{
	c->conn = fake_open(c->fake);
}

void client_send(struct fake_client *c, struct bytes packet)
{
	if (!c->drip)
		return fake_input(c->conn, packet);
	for (size_t i = 0; i < packet.n; i++) {
		fake_input(c->conn, bytes_of(packet.p + i, 1));
		if (i + 1 < packet.n)
			fake_settle(c->fake);
	}
}

static void send_written(struct fake_client *c, const uint8_t *packet, const struct bytes_writer *w)
{
	ASSERT_FALSE(w->bad);
	client_send(c, bytes_of(packet, w->used));
}

void client_send_hex(struct fake_client *c, const char *hex)
{
	uint8_t packet[256];

	ASSERT_LE(strlen(hex) / 2, sizeof(packet));
	ASSERT_EQ(text_unhex(bytes_str(hex), packet, strlen(hex) / 2), 0);
	client_send(c, bytes_of(packet, strlen(hex) / 2));
}

static struct bytes admission(struct fake_client *c, struct bytes user_name, uint8_t token[])
{
	if (!c->fake->config.admission)
		return bytes_of(NULL, 0);
	ASSERT_EQ(admission_token(c->party->k_adm, bytes_str(c->id), user_name,
				  admission_slot(c->fake->wall_ms), token),
		  0);
	return bytes_of(token, ADMISSION_TOKEN_BYTES);
}

void client_write_connect(struct fake_client *c, struct bytes_writer *w)
{
	char user_name[TEXT_B64U_SIZE(CLIENT_NONCE_BYTES)];
	uint8_t token[ADMISSION_TOKEN_BYTES];
	struct mqtt_connect p = {
		.level = LEVEL_3_1_1,
		.clean_session = c->clean,
		.keepalive_s = c->keepalive_s,
		.client_id = bytes_str(c->id),
		.has_will = c->has_will,
		.will = c->will,
	};

	if (c->party) {
		hash_random(c->r_c, sizeof(c->r_c));
		p.has_user_name = p.has_password = true;
		p.user_name = bytes_str(text_b64u(bytes_of(c->r_c, sizeof(c->r_c)), user_name));
		p.password = admission(c, p.user_name, token);
	}
	mqtt_encode_connect(&p, w);
	ASSERT_FALSE(w->bad);
	/* fixed header of 2 bytes (3, where it is long), "MQTT", level, then the flags */
	c->connect_flags = (uint8_t)((p.has_user_name ? 0xc0 : 0) | (p.clean_session ? 2 : 0) |
				     (p.has_will ? 4 | p.will.qos << 3 | p.will.retain << 5 : 0));
	c->error_n = c->nack_n = c->report_n = c->ask_n = c->update_n = 0;
}

void client_send_connect(struct fake_client *c)
{
	uint8_t packet[PACKET_MAX];
	struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));

	client_write_connect(c, &w);
	send_written(c, packet, &w);
}

void client_send_publish(struct fake_client *c, const struct mqtt_publish *p)
{
	size_t n = mqtt_publish_bytes(p->topic.n, p->payload.n, p->qos);
	uint8_t *packet = malloc(n);
	struct bytes_writer w = bytes_writer_of(packet, n);

	if (!packet)
		abort();
	mqtt_encode_publish(p, &w);
	send_written(c, packet, &w);
	free(packet);
}

static uint16_t next_packet_id(struct fake_client *c, uint8_t qos)
{
	if (qos == 0)
		return 0;
	if (++c->packet_id == 0)
		c->packet_id = 1;
	return c->packet_id;
}

uint16_t client_publish_text(struct fake_client *c, const char *topic, const char *text,
			     uint8_t qos, bool retain)
{
	struct mqtt_publish p = {
		.qos = qos,
		.retain = retain,
		.packet_id = next_packet_id(c, qos),
		.topic = bytes_str(topic),
		.payload = bytes_str(text),
	};

	client_send_publish(c, &p);
	return p.packet_id;
}

void client_send_ack(struct fake_client *c, enum mqtt_type type, uint16_t packet_id)
{
	uint8_t packet[8];
	struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));

	mqtt_encode_ack(type, packet_id, &w);
	send_written(c, packet, &w);
}

void client_send_empty(struct fake_client *c, enum mqtt_type type)
{
	uint8_t packet[8];
	struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));

	mqtt_encode_empty(type, &w);
	send_written(c, packet, &w);
}

/* --- receiving -------------------------------------------------------------------------------- */

static bool next(struct fake_client *c, enum mqtt_type want, struct mqtt_frame *ret_frame)
{
	if (!fake_next_packet(c->conn, ret_frame)) {
		harness_note("%s: got nothing, not a packet of type %d (%s)", c->id, want,
			     c->conn->closed ? c->conn->why : "still open");
		return false;
	}
	if (mqtt_frame_type(ret_frame) != want) {
		harness_note("%s: got a packet of type %d, not %d", c->id,
			     mqtt_frame_type(ret_frame), want);
		return false;
	}
	return true;
}

bool client_got_nothing(struct fake_client *c)
{
	struct mqtt_frame f;

	if (fake_silent(c->conn))
		return true;
	if (fake_next_packet(c->conn, &f))
		harness_note("%s: got a packet of type %d", c->id, mqtt_frame_type(&f));
	return false;
}

bool client_got_connack(struct fake_client *c, bool present, uint8_t code)
{
	struct mqtt_frame f;
	bool got_present;
	uint8_t got_code;

	if (!next(c, MQTT_CONNACK, &f) ||
	    mqtt_decode_connack(f.body, &got_present, &got_code) != MQTT_OK)
		return false;
	if (got_code != code || got_present != present)
		harness_note("%s: CONNACK %d, session present %d", c->id, got_code, got_present);
	return got_code == code && got_present == present;
}

bool client_got_ack(struct fake_client *c, enum mqtt_type type, uint16_t packet_id)
{
	struct mqtt_frame f;
	uint16_t id;

	if (!next(c, type, &f) || mqtt_decode_ack(f.body, &id) != MQTT_OK)
		return false;
	if (id != packet_id)
		harness_note("%s: acknowledges %d, not %d", c->id, id, packet_id);
	return id == packet_id;
}

bool client_got_pingresp(struct fake_client *c)
{
	struct mqtt_frame f;

	return next(c, MQTT_PINGRESP, &f) && f.body.n == 0;
}

bool client_got_publish(struct fake_client *c, struct mqtt_publish *ret_p)
{
	struct mqtt_frame f;

	return next(c, MQTT_PUBLISH, &f) && mqtt_decode_publish(&f, ret_p) == MQTT_OK;
}

bool client_got_text(struct fake_client *c, const char *topic, const char *text, uint8_t qos,
		     uint16_t *ret_id)
{
	struct mqtt_publish p;

	if (!client_got_publish(c, &p))
		return false;
	if (!bytes_equal(p.topic, bytes_str(topic)) || !bytes_equal(p.payload, bytes_str(text)) ||
	    p.qos != qos) {
		harness_note("%s: got %.*s: %.*s at QoS %d", c->id, (int)p.topic.n, p.topic.p,
			     (int)p.payload.n, p.payload.p, p.qos);
		return false;
	}
	if (ret_id)
		*ret_id = p.packet_id;
	return true;
}

bool client_closed(const struct fake_client *c)
{
	return c->conn->closed;
}

uint8_t client_subscribe(struct fake_client *c, const char *filter, uint8_t qos)
{
	uint8_t packet[PACKET_MAX];
	struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));
	struct mqtt_subscribe s = {
		.packet_id = next_packet_id(c, 1),
		.n = 1,
		.list = { { .filter = bytes_str(filter), .qos = qos } },
	};
	struct mqtt_frame f;
	struct bytes codes;
	bool hold = c->fake->hold_sign;
	uint16_t id;

	mqtt_encode_subscribe(&s, &w);
	send_written(c, packet, &w);
	c->fake->hold_sign = true; /* what is retained may be quicker than a SUBACK that waits */
	fake_settle(c->fake);
	c->fake->hold_sign = hold;
	fake_settle(c->fake);
	ASSERT_TRUE(next(c, MQTT_SUBACK, &f));
	ASSERT_EQ(mqtt_decode_suback(f.body, &id, &codes), MQTT_OK);
	ASSERT_EQ(id, s.packet_id);
	ASSERT_EQ(codes.n, 1);
	return codes.p[0];
}

bool client_unsubscribe(struct fake_client *c, const char *filter)
{
	uint8_t packet[PACKET_MAX];
	struct bytes_writer w = bytes_writer_of(packet, sizeof(packet));
	struct mqtt_unsubscribe u = {
		.packet_id = next_packet_id(c, 1),
		.n = 1,
		.filters = { bytes_str(filter) },
	};

	mqtt_encode_unsubscribe(&u, &w);
	send_written(c, packet, &w);
	fake_settle(c->fake);
	return client_got_ack(c, MQTT_UNSUBACK, u.packet_id);
}

/* --- connecting ------------------------------------------------------------------------------- */

/* Both sides of PROTOCOL 5, behind the CONNACK. */
static bool authenticate(struct fake_client *c)
{
	if (!client_got_challenge(c))
		return false;
	client_send_response(c, 0);
	fake_settle(c->fake);
	return client_got_result(c);
}

bool client_resumes(struct fake_client *c, bool present)
{
	client_dial(c);
	client_send_connect(c);
	fake_settle(c->fake);
	if (!client_got_connack(c, present, 0))
		return false;
	return !c->party || authenticate(c);
}

bool client_up(struct fake_client *c)
{
	struct mqtt_frame f;

	client_dial(c);
	client_send_connect(c);
	fake_settle(c->fake);
	if (!next(c, MQTT_CONNACK, &f) || f.body.p[1] != 0)
		return false;
	return !c->party || authenticate(c);
}

bool client_up_clean(struct fake_client *c)
{
	c->clean = true;
	return client_up(c);
}

bool client_up_persistent(struct fake_client *c)
{
	c->clean = false;
	return client_up(c);
}

/* --- what the broker signs -------------------------------------------------------------------- */

/* PROTOCOL 4: from the broker, the client id is the receiver's. */
static bool broker_signed(struct fake_client *c, const struct mqtt_publish *p,
			  struct publish_trailer *ret_t)
{
	struct publish input = {
		.first = mqtt_publish_first(p->qos, p->retain, false),
		.topic = p->topic,
		.body_parts = 1,
		.client_id = bytes_str(c->id),
	};

	if (publish_split(p->payload, ret_t))
		return false;
	input.body[0] = ret_t->body;
	return publish_verify(&input, ret_t,
			      c->fake->next_expected ? c->fake->next_public
						     : c->fake->key_public) == 0;
}

bool client_got_control(struct fake_client *c, const char *topic, struct bytes *ret_body)
{
	struct publish_trailer t;
	struct mqtt_publish p;

	if (!client_got_publish(c, &p))
		return false;
	if (!bytes_equal(p.topic, bytes_str(topic)) || p.qos || p.retain) {
		harness_note("%s: got %.*s, not %s", c->id, (int)p.topic.n, p.topic.p, topic);
		return false;
	}
	if (!broker_signed(c, &p, &t) || t.kind != 1) {
		harness_note("%s: %s is not signed by the broker", c->id, topic);
		return false;
	}
	*ret_body = t.body;
	return true;
}

/* R_c || R_b || u8 protocol level || u8 connect flags, byte by byte (PROTOCOL 5, step 1). */
bool client_got_challenge(struct fake_client *c)
{
	struct bytes body;
	uint8_t want[2 * CLIENT_NONCE_BYTES + 2];

	if (!client_got_control(c, "$SSDTF/auth/challenge", &body) || body.n != sizeof(want))
		return false;
	memcpy(c->r_b, body.p + CLIENT_NONCE_BYTES, CLIENT_NONCE_BYTES);
	memcpy(want, c->r_c, CLIENT_NONCE_BYTES);
	memcpy(want + CLIENT_NONCE_BYTES, c->r_b, CLIENT_NONCE_BYTES);
	want[64] = LEVEL_3_1_1;
	want[65] = c->connect_flags;
	return bytes_equal(body, bytes_of(want, sizeof(want)));
}

/* 00 || R_b || u64 highest counter accepted (step 3). */
bool client_got_result(struct fake_client *c)
{
	struct bytes_reader r;
	struct bytes body, r_b;
	uint8_t code;

	if (!client_got_control(c, "$SSDTF/auth/result", &body))
		return false;
	r = bytes_reader_of(body);
	code = bytes_read_u8(&r);
	r_b = bytes_read_view(&r, CLIENT_NONCE_BYTES);
	c->highest = bytes_read_u64(&r);
	return bytes_read_done(&r) && code == 0 &&
	       bytes_equal(r_b, bytes_of(c->r_b, sizeof(c->r_b)));
}

/* u8 reason, u64 counter, u16 + text, R_b, u32 n (PROTOCOL 7). */
bool client_got_any_error(struct fake_client *c, enum control_reason *ret_reason,
			  uint64_t *ret_counter)
{
	struct bytes body, text, r_b;
	struct bytes_reader r;
	uint32_t n;

	if (!client_got_control(c, "$SSDTF/error", &body))
		return false;
	r = bytes_reader_of(body);
	*ret_reason = bytes_read_u8(&r);
	*ret_counter = bytes_read_u64(&r);
	text = bytes_read_u16_view(&r);
	r_b = bytes_read_view(&r, CLIENT_NONCE_BYTES);
	n = bytes_read_u32(&r);
	if (bytes_read_done(&r) && text.n && mqtt_utf8_ok(text) && n == ++c->error_n &&
	    bytes_equal(r_b, bytes_of(c->r_b, sizeof(c->r_b))))
		return true;
	harness_note("%s: an error of another form or session", c->id);
	return false;
}

bool client_got_error(struct fake_client *c, enum control_reason reason, uint64_t counter)
{
	enum control_reason got_reason;
	uint64_t got_counter;

	if (!client_got_any_error(c, &got_reason, &got_counter))
		return false;
	if (got_reason != reason || got_counter != counter)
		harness_note("%s: error %d of message %llu", c->id, got_reason,
			     (unsigned long long)got_counter);
	return got_reason == reason && got_counter == counter;
}

/* --- what the client signs -------------------------------------------------------------------- */

static void sign(struct fake_client *c, uint8_t first, struct bytes topic, struct bytes body,
		 uint8_t trailer[PUBLISH_TRAILER_1_BYTES])
{
	struct publish p = {
		.first = first,
		.topic = topic,
		.body = { body },
		.body_parts = 1,
		.client_id = bytes_str(c->id),
	};

	ASSERT_EQ(publish_sign(&p, c->old_key ? c->party->previous_key : c->party->key, trailer),
		  0);
}

void client_send_signed(struct fake_client *c, const char *topic, struct bytes body, uint8_t qos)
{
	uint8_t payload[8192], trailer[PUBLISH_TRAILER_1_BYTES];
	struct bytes_writer w = bytes_writer_of(payload, sizeof(payload));
	struct mqtt_publish p = {
		.qos = qos,
		.packet_id = next_packet_id(c, qos),
		.topic = bytes_str(topic),
	};

	sign(c, mqtt_publish_first(qos, false, false), p.topic, body, trailer);
	bytes_write(&w, body);
	bytes_write(&w, bytes_of(trailer, sizeof(trailer)));
	ASSERT_FALSE(w.bad);
	p.payload = bytes_of(payload, w.used);
	client_send_publish(c, &p);
}

/* R_b || R_c || SHA-256(broker's public point) (step 2). */
void client_response_body(struct fake_client *c, struct bytes_writer *w)
{
	uint8_t hash[HASH_BYTES];

	hash_one(bytes_of(c->fake->next_expected ? c->fake->next_point.b : c->fake->key_point.b,
			  P256_POINT_BYTES),
		 hash);
	bytes_write(w, bytes_of(c->r_b, sizeof(c->r_b)));
	bytes_write(w, bytes_of(c->r_c, sizeof(c->r_c)));
	bytes_write(w, bytes_of(hash, sizeof(hash)));
}

void client_send_response(struct fake_client *c, uint8_t qos)
{
	uint8_t body[CLIENT_RESPONSE_BYTES];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	client_response_body(c, &w);
	client_send_signed(c, "$SSDTF/auth/response", bytes_of(body, w.used), qos);
}

static void send_complaint(struct fake_client *c, const char *topic, struct bytes_writer *w,
			   const uint8_t *body, uint32_t n)
{
	bytes_write(w, bytes_of(c->r_b, sizeof(c->r_b)));
	bytes_write_u32(w, n);
	ASSERT_FALSE(w->bad);
	client_send_signed(c, topic, bytes_of(body, w->used), 0);
}

/* u8 reason, u64 counter, u8 + origin, R_b, u32 n */
void client_send_nack(struct fake_client *c, enum control_reason reason, uint64_t counter,
		      const char *origin)
{
	uint8_t body[256];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	bytes_write_u8(&w, (uint8_t)reason);
	bytes_write_u64(&w, counter);
	bytes_write_u8_view(&w, bytes_str(origin));
	send_complaint(c, "$SSDTF/nack", &w, body, ++c->nack_n);
}

/* u64 serial, R_b, u32 n */
void client_ask_updates(struct fake_client *c, uint64_t had, uint8_t qos)
{
	uint8_t body[64];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	bytes_write_u64(&w, had);
	bytes_write(&w, bytes_of(c->r_b, sizeof(c->r_b)));
	bytes_write_u32(&w, ++c->ask_n);
	ASSERT_FALSE(w.bad);
	client_send_signed(c, "$SSDTF/update", bytes_of(body, w.used), qos);
}

/* u16 k, k statements, R_b, u32 n */
bool client_got_updates(struct fake_client *c, uint64_t *serials, unsigned *n)
{
	struct bytes body, r_b, whole;
	struct bytes_reader r;
	struct statement st;
	unsigned k;

	if (!client_got_control(c, "$SSDTF/update", &body) ||
	    body.n + PUBLISH_TRAILER_1_BYTES > 60000)
		return false;
	r = bytes_reader_of(body);
	k = bytes_read_u16(&r);
	ASSERT_LE(k, *n);
	*n = k;
	for (unsigned i = 0; i < k; i++) {
		whole = bytes_read_u32_view(&r);
		if (r.bad || statement_read(whole, &st))
			return false;
		serials[i] = st.serial;
	}
	r_b = bytes_read_view(&r, CLIENT_NONCE_BYTES);
	if (bytes_read_u32(&r) == ++c->update_n && bytes_read_done(&r) &&
	    bytes_equal(r_b, bytes_of(c->r_b, sizeof(c->r_b))))
		return true;
	harness_note("%s: updates of another form or session", c->id);
	return false;
}

/* u8 reason, u64 counter, u8 + id complained of, u16 + text, R_b, u32 n */
void client_send_report(struct fake_client *c, enum control_reason reason, uint64_t counter,
			const char *about, const char *text)
{
	uint8_t body[8192];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	bytes_write_u8(&w, (uint8_t)reason);
	bytes_write_u64(&w, counter);
	bytes_write_u8_view(&w, bytes_str(about));
	bytes_write_u16_view(&w, bytes_str(text));
	send_complaint(c, "$SSDTF/report", &w, body, ++c->report_n);
}

/* --- sealing ---------------------------------------------------------------------------------- */

void client_sign(struct fake_client *c, struct fake_sealed *s)
{
	size_t body_n = s->n - PUBLISH_TRAILER_1_BYTES;

	sign(c, mqtt_publish_first(s->publish.qos, s->publish.retain, false), s->publish.topic,
	     bytes_of(s->payload, body_n), s->payload + body_n);
	s->publish.payload = bytes_of(s->payload, s->n);
}

static struct envelope_sender *context_of(struct fake_client *c, const struct world_scope *s)
{
	size_t at = (size_t)(s - c->world->scopes);

	if (!c->context_open[at])
		ASSERT_EQ(envelope_sender_init(&c->contexts[at], s->suite, s->key_id, &s->point),
			  0);
	c->context_open[at] = true;
	return &c->contexts[at];
}

void client_seal(struct fake_client *c, const struct world_scope *s, const char *topic,
		 const char *text, uint8_t qos, bool retain, struct fake_sealed *ret_s)
{
	struct bytes plain = bytes_str(text);

	ASSERT_LE(ENVELOPE_SEALED_BYTES(plain.n) + PUBLISH_TRAILER_1_BYTES, CLIENT_SEALED_MAX);
	ret_s->counter = ++c->counter;
	ASSERT_EQ(envelope_seal(context_of(c, s), ret_s->counter, c->fake->wall_ms,
				bytes_str(c->id), bytes_str(topic), plain, ret_s->payload),
		  0);
	ret_s->n = ENVELOPE_SEALED_BYTES(plain.n) + PUBLISH_TRAILER_1_BYTES;
	ret_s->publish = (struct mqtt_publish){
		.qos = qos,
		.retain = retain,
		.packet_id = next_packet_id(c, qos),
		.topic = bytes_str(topic),
	};
	client_sign(c, ret_s);
}

void client_seal_will(struct fake_client *c, const struct world_scope *scope, const char *topic,
		      const char *text, struct fake_sealed *s)
{
	client_seal(c, scope, topic, text, 1, false, s);
	c->has_will = true;
	c->will = (struct mqtt_will){
		.topic = s->publish.topic,
		.payload = s->publish.payload,
		.qos = s->publish.qos,
	};
}

uint16_t client_publish(struct fake_client *c, const struct world_scope *s, const char *topic,
			const char *text, uint8_t qos)
{
	struct fake_sealed sealed;

	client_seal(c, s, topic, text, qos, false, &sealed);
	client_send_publish(c, &sealed.publish);
	return sealed.publish.packet_id;
}

uint16_t client_publish_retained(struct fake_client *c, const struct world_scope *s,
				 const char *topic, const char *text, uint8_t qos)
{
	struct fake_sealed sealed;

	client_seal(c, s, topic, text, qos, true, &sealed);
	client_send_publish(c, &sealed.publish);
	return sealed.publish.packet_id;
}

/* --- opening ---------------------------------------------------------------------------------- */

static bool refuse(struct fake_client *c, const char *why)
{
	harness_note("%s: does not open: %s", c->id, why);
	return false;
}

/* How often what comes by it was converted. */
static uint8_t level_of(const struct world_grant *g)
{
	return g->from ? (uint8_t)(level_of(g->from) + 1) : 1;
}

/* A salt of zeros where the grant says that ids are replaced, and there alone. */
static bool bind_holds(const struct fake_opened *o)
{
	if (bytes_is_zero(o->envelope.salt))
		return o->grant->flags & RECORD_GRANT_IDS_REPLACED;
	return envelope_bind_fits(&o->envelope, o->envelope.origin, o->publish.topic);
}

static bool proven_by(const struct fake_opened *o, const struct p256_point *key)
{
	struct p256_public *k;
	struct bytes properties;
	uint8_t first;
	int err;

	ASSERT_EQ(p256_public_new(key, &k), 0);
	err = publish_check_proof(&o->envelope, o->publish.topic, k, &first, &properties);
	p256_public_free(k);
	return !err;
}

/* The origin proof where the grant asks for one, by either of its keys, and none where it does not.
 */
static bool proof_holds(struct fake_client *c, const struct fake_opened *o)
{
	struct world_party *origin = world_party_of(c->world, o->envelope.origin);

	if (!(o->grant->flags & RECORD_GRANT_PROOF) || o->envelope.level > 1)
		return o->envelope.proof.n == 0;
	return origin && (proven_by(o, &origin->signing) ||
			  (origin->previous_key && proven_by(o, &origin->previous)));
}

static bool decrypt(struct fake_client *c, struct fake_opened *o)
{
	struct grant_terms terms = {
		.key_id = o->grant->scope->key_id,
		.x = o->grant->x,
		.b = c->party->encryption,
	};
	struct secret32 d SECRET = { 0 }, dh SECRET = { 0 };

	memcpy(terms.grant_id, o->grant->id, GRANT_ID_BYTES);
	if (o->envelope.ct.n - HPKE_TAG_BYTES >= sizeof(o->text) ||
	    grant_secret_receiver(&terms, &c->party->b, &d) || grant_dh(&d, o->envelope.x.p, &dh) ||
	    envelope_open(&o->envelope, &dh, &o->grant->scope->point, (uint8_t *)o->text))
		return false;
	o->text[o->envelope.ct.n - HPKE_TAG_BYTES] = '\0';
	return true;
}

bool client_take(struct fake_client *c, const struct mqtt_publish *p, struct fake_opened *ret_o)
{
	ret_o->publish = *p;
	if (!broker_signed(c, p, &ret_o->trailer))
		return refuse(c, "the broker's signature");
	if (envelope_parse(ret_o->trailer.body, &ret_o->envelope))
		return refuse(c, "no envelope");
	if (ret_o->envelope.level == 0)
		return refuse(c, "level 0");
	ret_o->grant = world_grant_of(c->world, ret_o->envelope.grant);
	if (!ret_o->grant || ret_o->grant->to != c->party ||
	    ret_o->grant->scope->key_id != ret_o->envelope.key_id)
		return refuse(c, "another's grant, or another key id's");
	if (ret_o->envelope.level != level_of(ret_o->grant))
		return refuse(c, "level");
	if (!bind_holds(ret_o))
		return refuse(c, "bind");
	return proof_holds(c, ret_o) || refuse(c, "origin proof");
}

bool client_got_taken(struct fake_client *c, struct fake_opened *ret_o)
{
	struct mqtt_publish p;

	return client_got_publish(c, &p) && client_take(c, &p, ret_o);
}

bool client_open(struct fake_client *c, const struct mqtt_publish *p, struct fake_opened *ret_o)
{
	if (!client_take(c, p, ret_o))
		return false;
	return decrypt(c, ret_o) || refuse(c, "commitment or ciphertext");
}

/* x(rk * P), P of either sign. */
static void convert(const struct world_grant *g, const struct envelope *e, uint8_t x[P256_X_BYTES])
{
	struct p256_point point;

	ASSERT_EQ(p256_point_lift(e->x.p, &point), 0);
	ASSERT_EQ(grant_convert(&g->rk, &point, x), 0);
}

/* PROTOCOL 12: what stays, stays byte for byte. */
void client_distribute(struct fake_client *c, const struct fake_opened *o,
		       const struct world_grant *g, const char *topic, const char *origin,
		       uint8_t qos, bool retain, struct fake_sealed *ret_s)
{
	static const uint8_t no_salt[ENVELOPE_SALT_BYTES];
	const struct envelope *e = &o->envelope;
	struct bytes_writer w = bytes_writer_of(ret_s->payload, sizeof(ret_s->payload));
	uint8_t x[P256_X_BYTES];

	convert(g, e, x);
	bytes_write(&w, bytes_of(e->whole.p, ENVELOPE_FIXED_BYTES - 1 - ENVELOPE_SALT_BYTES));
	bytes_write(&w, origin ? bytes_of(no_salt, sizeof(no_salt)) : e->salt);
	bytes_write_u8(&w, (uint8_t)(e->level + 1));
	bytes_write(&w, bytes_of(g->id, GRANT_ID_BYTES));
	bytes_write(&w, bytes_of(x, sizeof(x)));
	bytes_write_u8_view(&w, origin ? bytes_str(origin) : e->origin);
	bytes_write_u16(&w, 0);
	bytes_write(&w, e->ct);
	(void)bytes_write_space(&w, PUBLISH_TRAILER_1_BYTES);
	ASSERT_FALSE(w.bad);
	ret_s->n = w.used;
	ret_s->counter = e->counter;
	ret_s->publish = (struct mqtt_publish){
		.qos = qos,
		.retain = retain,
		.packet_id = next_packet_id(c, qos),
		.topic = bytes_str(topic),
	};
	client_sign(c, ret_s);
}

bool client_got_sealed(struct fake_client *c, const char *text, struct fake_opened *ret_o)
{
	struct fake_opened own = { 0 }, *o = ret_o ? ret_o : &own;
	struct mqtt_publish p;

	if (!client_got_publish(c, &p) || !client_open(c, &p, o))
		return false;
	if (strcmp(o->text, text) != 0)
		harness_note("%s: opened \"%s\", not \"%s\"", c->id, o->text, text);
	return strcmp(o->text, text) == 0;
}
