// SPDX-License-Identifier: MIT
/*
 * The engine where memory ends: the same short day again and again, each time with another of its
 * allocations failing, and some with many. Nothing may crash, leak or be lost without being
 * counted, and once there is memory again everything has to go on.
 *
 * The linker leads the engine's allocations here (--wrap in the Makefile). Under the address
 * sanitizer each block of the pool is one; else each slab.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/fake_check.h"
#include "tests/fake_client.h"
#include "tests/harness.h"
#include "userspace/broker/engine.h"

HARNESS_MAIN

#define CLIENTS	     3 /* two that receive, and one that does both and leaves a Will */
#define MESSAGES_MAX 8192
#define FILTERS	     2

/* --- allocations ------------------------------------------------------------------------------ */

static struct {
	bool armed;
	unsigned long n;	/* so far, while armed */
	unsigned long from, to; /* those that fail */
	unsigned one_in;	/* or so many, at random */
	unsigned long failed;
} memory;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *block, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *block, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);

static bool fails(void)
{
	bool yes;

	if (!memory.armed || !fake_inside)
		return false;
	memory.n++;
	yes = (memory.n >= memory.from && memory.n < memory.to) ||
	      (memory.one_in && harness_random() % memory.one_in == 0);
	memory.failed += yes;
	return yes;
}

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *block, size_t n)
{
	return fails() ? NULL : __real_realloc(block, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
	return fails() ? NULL : __real_aligned_alloc(align, n);
}

/* --- a day ------------------------------------------------------------------------------------ */

struct day_client {
	struct fake_client client;
	bool up;	 /* CONNACK came, and what SSDTF asks besides */
	bool authentic;	 /* its response went out */
	bool subscribed; /* to all, before memory ended */
	bool received[MESSAGES_MAX];
};

struct day {
	bool plain;
	struct world *world; /* NULL: plain */
	struct fake_broker *fake;
	struct world_grant *hop, *outlet, *direct; /* the sender is a distributor, too */
	struct day_client clients[CLIENTS];
	uint8_t qos[MESSAGES_MAX];
	uint16_t id[MESSAGES_MAX];
	bool acked[MESSAGES_MAX];
	unsigned n;
};

/* What comes to the sender by hop it may bring anew: to both receivers, or to one alone. */
static void add_outlets(struct day *d)
{
	struct world *w = d->world;
	const uint8_t replaced = RECORD_GRANT_IDS_REPLACED;

	w->dev2->roles |= RECORD_ROLE_DISTRIBUTOR;
	w->temp->public_filters[0] = "site/#";
	d->hop = world_add_grant_from(w, w->dev2, w->temp, RECORD_GRANT_HOP, NULL, NULL);
	d->outlet = world_add_grant_from(w, w->dev2, w->temp, RECORD_GRANT_HOP | replaced, d->hop,
					 w->dev2);
	d->direct = world_add_grant_from(w, w->rx1, w->temp, replaced, d->hop, w->dev2);
	(void)world_add_grant_from(w, w->rx1, w->temp, replaced, d->outlet, NULL);
	(void)world_add_grant_from(w, w->rx2, w->temp, replaced, d->outlet, NULL);
	world_apply(w);
}

static void day_init(struct day *d, bool plain)
{
	static const char *const ids[CLIENTS] = { "rx1", "rx2", "dev2" };
	struct broker_config config;

	*d = (struct day){ .plain = plain };
	fake_config(plain, &config);
	config.durable = !plain || harness_random() % 2;
	config.limits.inflight_max = 4;
	config.limits.output_bytes_soft = plain ? 200 : 2000;
	config.limits.queue_high_water = 16;
	config.limits.capsules_max = 4;
	config.limits.errors_per_second = 100000;
	if (plain) {
		d->fake = fake_new_with(&config);
	} else {
		d->world = world_new(&config);
		d->fake = d->world->fake;
		add_outlets(d);
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct fake_client *c = &d->clients[i].client;
		struct bytes id = bytes_str(ids[i]);

		if (plain)
			client_init(c, d->fake, ids[i]);
		else
			client_init_party(c, d->world, world_party_of(d->world, id));
		c->clean = false;
	}
}

static void day_deinit(struct day *d)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		client_deinit(&d->clients[i].client);
	if (d->world)
		world_free(d->world);
	else
		fake_free(d->fake);
}

static bool is_up(const struct day_client *c)
{
	return c->client.conn && c->client.conn->engine && c->up;
}

/* The same message as it comes back from a distributor that converts by g. */
static void distribute(struct day *d, const struct world_grant *g, struct fake_sealed *s)
{
	struct fake_client *c = &d->clients[CLIENTS - 1].client;
	const struct mqtt_publish p = s->publish;
	struct fake_opened o = { 0 };
	struct fake_sealed sealed = *s;
	struct p256_point e;
	uint8_t x[P256_X_BYTES];

	ASSERT_EQ(envelope_parse(bytes_of(sealed.payload, s->n - PUBLISH_TRAILER_1_BYTES),
				 &o.envelope),
		  0);
	ASSERT_EQ(p256_point_decompress(o.envelope.enc, &e), 0);
	ASSERT_EQ(grant_convert(&d->hop->rk, &e, x), 0);
	o.envelope.x = bytes_of(x, sizeof(x));
	o.envelope.level = 1;
	client_distribute(c, &o, g, "", s->counter % 2 ? "origin-1" : "origin-2", p.qos, p.retain,
			  s);
	s->publish.topic = p.topic;
	client_sign(c, s);
}

/* The next message, under the next number as its text. */
static void publish(struct day *d, uint8_t qos, bool retain)
{
	struct day_client *from = &d->clients[CLIENTS - 1];
	struct fake_client *c = &from->client;
	unsigned number = d->n;
	char text[5000], topic[32];
	struct fake_sealed s;

	if (!is_up(from))
		return;
	ASSERT_LT(d->n, MESSAGES_MAX);
	d->n++;
	d->qos[number] = qos;
	snprintf(text, sizeof(text), "%u", number);
	snprintf(topic, sizeof(topic), "site/%u/temp", number % 4);
	if (number % 9 == 4) /* large: not copied to each */
		snprintf(text, sizeof(text), "%u%*s", number, (int)sizeof(text) - 20, "");
	if (d->plain) {
		d->id[number] = client_publish_text(c, topic, text, qos, retain);
		return;
	}
	if (number % 5 == 0)
		client_new_context(c, d->world->temp);
	client_seal(c, d->world->temp, topic, text, qos, retain, &s);
	if (number % 3 == 1)
		distribute(d, d->outlet, &s);
	client_send_publish(c, &s.publish);
	d->id[number] = s.publish.packet_id;
}

/* One for rx1 alone, which nobody counts. */
static void publish_direct(struct day *d, uint8_t qos)
{
	struct day_client *from = &d->clients[CLIENTS - 1];
	struct fake_sealed s;

	if (d->plain || !is_up(from))
		return;
	client_seal(&from->client, d->world->temp, "site/9/temp", "0", qos, false, &s);
	distribute(d, d->direct, &s);
	client_send_publish(&from->client, &s.publish);
}

static void got_message(struct day *d, struct day_client *c, const struct mqtt_frame *f)
{
	struct mqtt_publish p;
	struct fake_opened o;
	char text[16] = "";
	unsigned number;

	ASSERT_EQ(mqtt_decode_publish(f, &p), MQTT_OK);
	if (control_is_topic(p.topic))
		return;
	if (d->plain) {
		memcpy(text, p.payload.p,
		       p.payload.n < sizeof(text) ? p.payload.n : sizeof(text) - 1);
	} else if (c == &d->clients[CLIENTS - 1]) { /* a hop ends there */
		ASSERT_TRUE(client_take(&c->client, &p, &o));
	} else {
		ASSERT_TRUE(client_open(&c->client, &p, &o));
		memcpy(text, o.text, sizeof(text) - 1);
	}
	number = (unsigned)strtoul(text, NULL, 10);
	ASSERT_LT(number, MESSAGES_MAX);
	c->received[number] = true;
	if (p.qos) /* which may move all of the above */
		client_send_ack(&c->client, p.qos == 2 ? MQTT_PUBREC : MQTT_PUBACK, p.packet_id);
}

static void got_ack(struct day *d, struct day_client *c, const struct mqtt_frame *f)
{
	enum mqtt_type type = mqtt_frame_type(f);
	uint16_t id;

	ASSERT_EQ(mqtt_decode_ack(f->body, &id), MQTT_OK);
	if (type == MQTT_PUBREL)
		client_send_ack(&c->client, MQTT_PUBCOMP, id);
	if (type == MQTT_PUBREC)
		client_send_ack(&c->client, MQTT_PUBREL, id);
	if (type != MQTT_PUBREC && type != MQTT_PUBACK)
		return;
	for (unsigned i = 0; i < d->n; i++)
		if (d->id[i] == id)
			d->acked[i] = true;
}

/* Reads and answers all that came for one. False: nothing. */
static bool react(struct day *d, struct day_client *c)
{
	struct mqtt_frame f;
	bool some = false;

	while (is_up(c) && fake_next_packet(c->client.conn, &f)) {
		some = true;
		switch (mqtt_frame_type(&f)) {
		case MQTT_PUBLISH:
			got_message(d, c, &f);
			break;
		case MQTT_PUBACK:
		case MQTT_PUBREC:
		case MQTT_PUBREL:
			got_ack(d, c, &f);
			break;
		default:
			break;
		}
	}
	return some;
}

static void react_all(struct day *d)
{
	bool some;

	do {
		some = false;
		fake_settle(d->fake);
		for (unsigned i = 0; i < CLIENTS; i++)
			some |= react(d, &d->clients[i]);
	} while (some);
}

/* Up to its session, if that can be. */
static void connect_one(struct day *d, struct day_client *c)
{
	struct mqtt_frame f;

	c->up = false;
	c->client.conn = fake_try_open(d->fake);
	if (!c->client.conn)
		return;
	client_send_connect(&c->client);
	fake_settle(d->fake);
	if (!fake_next_packet(c->client.conn, &f))
		return;
	ASSERT_EQ(mqtt_frame_type(&f), MQTT_CONNACK);
	if (f.body.p[1] != 0)
		return;
	if (!d->plain) {
		if (fake_silent(c->client.conn) || !client_got_challenge(&c->client))
			return;
		client_send_response(&c->client, 1);
		fake_settle(d->fake);
		if (!fake_next_packet(c->client.conn, &f) || mqtt_frame_type(&f) != MQTT_PUBACK)
			return;
		if (fake_silent(c->client.conn) || !client_got_result(&c->client))
			return;
	}
	c->up = true;
}

static void subscribe_one(struct day_client *c, uint8_t qos)
{
	static const char *const filters[FILTERS] = { "site/#", "site/+/temp" };
	struct mqtt_subscribe s = { .packet_id = 1, .n = FILTERS };
	uint8_t packet[256];
	struct bytes_writer out = bytes_writer_of(packet, sizeof(packet));

	for (unsigned i = 0; i < FILTERS; i++)
		s.list[i] = (struct mqtt_subscription){ bytes_str(filters[i]), qos };
	mqtt_encode_subscribe(&s, &out);
	ASSERT_FALSE(out.bad);
	if (is_up(c))
		client_send(&c->client, bytes_of(packet, out.used));
}

static void morning(struct day *d)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		connect_one(d, &d->clients[i]);
	for (unsigned i = 0; i < 2; i++) {
		subscribe_one(&d->clients[i], 2 - (uint8_t)i);
		fake_settle(d->fake);
	}
	react_all(d);
}

/* A bundle with something new for the first receiver. */
static void apply_bundle(struct day *d)
{
	struct world *w = d->world;

	if (!w)
		return;
	w->n_updates = 0;
	w->updates_n = 0;
	(void)world_state_grant(w, w->rx1_temp);
	(void)world_state_broker(w);
	if (!w->dev2->previous_key) /* both hold from then on */
		world_rotate_key(w->dev2, 0);
	world_apply(w);
}

static void ask(struct day *d, struct day_client *c)
{
	if (!d->plain && is_up(c))
		client_ask_updates(&c->client, d->world->update_serial - 1, 0);
}

/* A bit of everything. */
static void noon(struct day *d)
{
	struct day_client *a = &d->clients[0], *b = &d->clients[1];

	for (unsigned i = 0; i < 7; i++)
		publish(d, (uint8_t)(i % 3), i % 2);
	fake_settle(d->fake);
	react(d, a); /* b has yet to */
	fake_check(d->fake);
	subscribe_one(a, 2); /* what is retained, again */
	for (unsigned i = 0; i < 5; i++)
		publish(d, 2 - (uint8_t)(i % 3), false);
	fake_settle(d->fake);
	if (is_up(b))
		fake_hang_up(b->client.conn);
	publish(d, 1, true);
	publish(d, 2, false);
	publish_direct(d, 1);
	react(d, a);
	fake_settle(d->fake);
	connect_one(d, a); /* takes over */
	ask(d, a);
	apply_bundle(d);
	connect_one(d, b);
	ask(d, b);
	fake_settle(d->fake);
	for (unsigned i = 0; i < 6; i++)
		publish(d, (uint8_t)(i % 3), false);
	react_all(d);
}

/* There is memory again: everybody comes back, and all that waited goes. */
static void evening(struct day *d)
{
	unsigned last;

	for (unsigned i = 0; i < CLIENTS; i++)
		if (!is_up(&d->clients[i])) {
			connect_one(d, &d->clients[i]);
			ASSERT_TRUE(is_up(&d->clients[i]));
		}
	fake_pass(d->fake, 3000); /* longer than anything is tried again after */
	react_all(d);
	ASSERT_EQ(fake_stats(d->fake).queued, 0);
	for (unsigned i = 0; i < 2; i++)
		subscribe_one(&d->clients[i], 2);
	react_all(d);
	last = d->n;
	publish(d, 2, false);
	react_all(d);
	fake_pass(d->fake, 2000);
	react_all(d);
	ASSERT_TRUE(d->acked[last]);
	ASSERT_TRUE(d->clients[0].received[last] && d->clients[1].received[last]);
	ASSERT_EQ(fake_stats(d->fake).queued, 0);
}

/* What was acknowledged came, or was counted as dropped. */
static void check_loss(const struct day *d)
{
	struct broker_stats s = fake_stats(d->fake);
	unsigned lost = 0;

	for (unsigned i = 0; i < d->n; i++)
		for (unsigned j = 0; j < 2; j++)
			lost += d->qos[i] && d->acked[i] && !d->clients[j].received[i];
	ASSERT_LE(lost, s.dropped_full);
	/* A receiver is not closed for want of memory for a message on its way: that waits. */
	for (const struct fake_conn *c = d->fake->conns; c; c = c->next)
		ASSERT_TRUE(!c->why || strcmp(c->why, "its output is full") != 0);
}

/* Returns whether memory ran out at all. */
static bool live(bool plain, unsigned long from, unsigned long n, unsigned one_in)
{
	static struct day d;
	unsigned long failed;

	day_init(&d, plain);
	morning(&d);
	memory.n = memory.failed = 0;
	memory.from = from;
	memory.to = from + n;
	memory.one_in = one_in;
	memory.armed = true;
	noon(&d);
	memory.armed = false;
	failed = memory.failed;
	evening(&d);
	check_loss(&d);
	day_deinit(&d);
	return failed;
}

/* Each allocation of the day, and n - 1 behind it; of `step` of them one, another time another. */
static unsigned each_fails(bool plain, unsigned long n, unsigned long step)
{
	unsigned long at = 1 + harness_random() % step;

	while (live(plain, at, n, 0))
		at += step;
	return (unsigned)at;
}

TEST(plain_each_fails)
{
	harness_note("%u allocations", each_fails(true, 1, 1));
	(void)each_fails(true, 6, 2);
}

TEST(sealed_each_fails)
{
	harness_note("%u allocations", each_fails(false, 1, 20 / harness_rounds(10)));
}

TEST(many_fail)
{
	for (unsigned i = 0; i < harness_rounds(24); i++)
		(void)live(i % 2, 0, 0, 2 + i % 7);
}

/* A message is in memory once, whatever the QoS of those that it goes to. */
TEST(payload_is_kept_once)
{
	enum { PAYLOAD = 100000 };
	static char text[PAYLOAD + 1];
	struct fake_broker *f = fake_new(true);
	struct fake_client tx, rx[3];
	static const char *const ids[] = { "rx0", "rx1", "rx2" };
	size_t before;

	memset(text, 'x', PAYLOAD);
	client_init(&tx, f, "tx");
	ASSERT_TRUE(client_up(&tx));
	for (unsigned i = 0; i < 3; i++) {
		client_init(&rx[i], f, ids[i]);
		ASSERT_TRUE(client_up(&rx[i]));
		ASSERT_EQ(client_subscribe(&rx[i], "t", (uint8_t)i), i);
	}
	before = f->engine->pool.bytes_out;
	client_publish_text(&tx, "t", text, 2, true);
	fake_settle(f);
	for (unsigned i = 0; i < 3; i++)
		ASSERT_TRUE(client_got_text(&rx[i], "t", text, (uint8_t)i, NULL));
	ASSERT_LT(f->engine->pool.bytes_out - before, 2 * PAYLOAD);
	for (unsigned i = 0; i < 3; i++)
		client_deinit(&rx[i]);
	client_deinit(&tx);
	fake_free(f);
}

/* --- anything --------------------------------------------------------------------------------- */

/*
 * Clients that do whatever they like in any order: what MQTT asks of them, and what it does not
 * (acknowledgements of what they were never sent, of another QoS, twice). Memory ends at times,
 * sockets stall, jobs wait. The engine's lists and counters are looked at all the while.
 */
static unsigned pick(unsigned n)
{
	return (unsigned)(harness_random() % n);
}

static void send_filter(struct day_client *c, bool subscribe)
{
	static const char *const filters[] = { "#", "site/#", "site/+/temp", "site/1/temp",
					       "$SYS/#" };
	struct bytes filter = bytes_str(filters[pick(ARRAY_SIZE(filters))]);
	struct mqtt_subscribe s = { .packet_id = 1, .n = 1 };
	struct mqtt_unsubscribe u = { .packet_id = 2, .n = 1, .filters = { filter } };
	uint8_t packet[256];
	struct bytes_writer out = bytes_writer_of(packet, sizeof(packet));

	s.list[0] = (struct mqtt_subscription){ filter, (uint8_t)pick(3) };
	if (subscribe)
		mqtt_encode_subscribe(&s, &out);
	else
		mqtt_encode_unsubscribe(&u, &out);
	ASSERT_FALSE(out.bad);
	client_send(&c->client, bytes_of(packet, out.used));
}

static void send_any_ack(struct day_client *c)
{
	static const enum mqtt_type types[] = { MQTT_PUBACK, MQTT_PUBREC, MQTT_PUBREC, MQTT_PUBREL,
						MQTT_PUBCOMP };

	client_send_ack(&c->client, types[pick(ARRAY_SIZE(types))], (uint16_t)(1 + pick(60)));
}

static void read_some(struct day *d, struct day_client *c)
{
	struct mqtt_frame f;

	for (unsigned n = pick(12); n && is_up(c) && fake_next_packet(c->client.conn, &f); n--) {
		enum mqtt_type type = mqtt_frame_type(&f);

		if (type == MQTT_PUBLISH)
			got_message(d, c, &f);
		else if (type >= MQTT_PUBACK && type <= MQTT_PUBCOMP)
			got_ack(d, c, &f);
	}
}

static void clear_retained(struct day *d, struct day_client *c)
{
	if (d->plain)
		client_publish_text(&c->client, "site/1/temp", "", 1, true);
}

static void nack(struct day *d, struct day_client *c)
{
	uint64_t last = d->clients[CLIENTS - 1].client.counter;

	if (!d->plain && last)
		client_send_nack(&c->client, CONTROL_CANNOT_OPEN, last - pick(last < 9 ? 1 : 9),
				 "dev2");
}

static void client_acts(struct day *d, struct day_client *c)
{
	if (!is_up(c) || pick(60) == 0) {
		c->client.clean = pick(3) == 0;
		return connect_one(d, c);
	}
	switch (pick(16)) {
	case 0:
		return pick(4) ? send_filter(c, true) : send_filter(c, false);
	case 1:
		return pick(3) ? (void)0 : send_any_ack(c);
	case 2:
		c->client.conn->stalled = true;
		return;
	case 3:
		c->client.conn->out_max = pick(4) ? 0 : 400 + pick(6000);
		return pick(5) ? (void)0 : fake_hang_up(c->client.conn);
	case 4:
		ask(d, c);
		return nack(d, c);
	case 5:
		return clear_retained(d, c);
	case 6:
	case 7:
		return fake_unstall(c->client.conn);
	case 8:
		publish_direct(d, (uint8_t)pick(3));
		return publish(d, (uint8_t)pick(3), pick(4) == 0);
	case 9:
	case 10:
		return publish(d, (uint8_t)pick(3), pick(4) == 0);
	default:
		return read_some(d, c);
	}
}

static void others_act(struct day *d)
{
	struct fake_broker *f = d->fake;

	f->hold_convert = pick(3) == 0;
	f->hold_sign = pick(4) == 0;
	f->hold_commit = pick(6) == 0;
	f->convert_status = pick(8) ? BROKER_TOKEN_OK : BROKER_TOKEN_UNAVAILABLE;
	if (d->world && pick(10) == 0) {
		struct world_grant *g = d->world->rx1_temp;

		if (d->world->n_grants < WORLD_GRANTS_MAX && pick(2)) {
			g->gone = true;
			d->world->rx1_temp = world_add_grant(d->world, g->to, g->scope, 0);
		}
		apply_bundle(d);
	}
	memory.one_in = pick(2) ? 0 : 2 + pick(40);
	fake_turn(f);
	for (unsigned n = pick(8); n; n--)
		(void)(pick(2) ? fake_run_token(f) : fake_run_verify(f));
	(void)fake_run_commit(f);
}

static void anything(bool plain)
{
	static struct day d;
	struct broker_stats s;

	day_init(&d, plain);
	morning(&d);
	memory.from = memory.to = 0;
	memory.armed = true;
	for (unsigned i = 0; i < harness_rounds(4000); i++) {
		client_acts(&d, &d.clients[pick(CLIENTS)]);
		if (pick(3) == 0)
			others_act(&d);
		if (pick(12) == 0)
			fake_pass(d.fake, pick(100));
		fake_check(d.fake);
	}
	memory.armed = false;
	d.fake->hold_convert = d.fake->hold_sign = d.fake->hold_commit = false;
	d.fake->convert_status = BROKER_TOKEN_OK;
	for (unsigned i = 0; i < CLIENTS; i++)
		if (d.clients[i].client.conn) {
			d.clients[i].client.conn->out_max = 0;
			fake_unstall(d.clients[i].client.conn);
		}
	evening(&d);
	s = fake_stats(d.fake);
	harness_note("%u messages, %u of %lu allocations failed; %u delivered, %u acknowledged, "
		     "%u connections",
		     d.n, (unsigned)memory.failed, memory.n, (unsigned)s.delivered,
		     (unsigned)s.acknowledged, (unsigned)s.connects);
	day_deinit(&d);
}

TEST(anything_plain)
{
	anything(true);
}

TEST(anything_sealed)
{
	anything(false);
}
