// SPDX-License-Identifier: MIT
#include "bench/flow/series.h"

#include <unistd.h>

#include "bench/flow/campaign.h"

/* Of pairs. So many that no sender's own pace is what is measured. */
#define PAIRS	       10
#define PAYLOAD	       64
#define CONTEXT	       1000
#define WINDOW	       100
#define WINDOW_FAN_OUT 16  /* each message of a fan-out is so many deliveries already */
#define WINDOW_SEALED  32  /* fills the pipeline; more of it only waits */
#define WINDOW_BATCH   128 /* two of the largest batches */
#define HSMD_MAX       16
/* Where it is the token's work that counts: one message is verified once, and converted for each
 * receiver. */
#define TOKEN_RECEIVERS 32
#define WINDOW_TOKEN	8
#define WORDS_BYTES	192

/* --- what grows ------------------------------------------------------------------------------- */

static double idle_of(const struct scenario *s)
{
	return s->idle;
}

static double clients_of(const struct scenario *s)
{
	return s->clients;
}

static double others_of(const struct scenario *s)
{
	return s->others;
}

static double payload_of(const struct scenario *s)
{
	return s->payload;
}

static double rate_of(const struct scenario *s)
{
	return s->rate;
}

static double context_of(const struct scenario *s)
{
	return s->context;
}

static double hsmd_of(const struct scenario *s)
{
	return s->hsmd;
}

static double batch_of(const struct scenario *s)
{
	return s->batch;
}

static const struct series all[SERIES] = {
	[SERIES_CONNECTIONS] = { "connections", "idle connections besides",
				 "10 pairs, QoS 0, 64 B, 100 in flight", idle_of },
	[SERIES_RECEIVERS] = { "receivers", "receivers of each message",
			       "1 sender, QoS 0, 64 B, 16 in flight", clients_of },
	[SERIES_SUBSCRIPTIONS] = { "subscriptions", "other subscriptions",
				   "10 pairs, QoS 0, 64 B, 100 in flight", others_of },
	[SERIES_PAYLOAD] = { "payload", "bytes of payload",
			     "10 pairs, QoS 0, 32 in flight; sealed: 1,000 messages a context",
			     payload_of },
	[SERIES_LOAD] = { "load", "messages offered a second",
			  "10 pairs, QoS 0, 64 B, open loop; sealed: 1,000 messages a context",
			  rate_of },
	[SERIES_CONTEXT] = { "context", "messages of one HPKE context",
			     "sealed, 1 sender to 32 receivers, QoS 0, 64 B, 8 in flight",
			     context_of },
	[SERIES_HSMD] = { "hsmd", "processes of ssdtf-hsmd",
			  "sealed, 1 sender to 32 receivers, QoS 0, 64 B, 8 in flight, E fresh for "
			  "every message",
			  hsmd_of },
	[SERIES_BATCH] = { "batch", "PUBLISHes under one signature of their sender",
			   "sealed, 10 pairs, QoS 0, 64 B, 128 in flight, 1,000 messages a context",
			   batch_of },
};

const struct series *series_get(enum series_id id)
{
	return &all[id];
}

/* --- its points ------------------------------------------------------------------------------- */

/* A value of what grows, and which servers have it. */
struct point {
	unsigned value;
	bool quick, plain, sealed, mosquitto;
};

/* clang-format off */
static const struct point connections[] = {
	/*	  quick, plain, sealed, mosquitto */
	{ 10,	  true,  true,  false, true },
	{ 100,	  false, true,  false, true },
	{ 1000,	  true,  true,  false, true },
	{ 10000,  true,  true,  false, true },
};

static const struct point receivers[] = {
	{ 1,	  true,  true,  true,  true },
	{ 10,	  true,  true,  true,  true },
	{ 100,	  true,  true,  true,  true },
	{ 1000,	  true,  true,  false, true },
};

static const struct point subscriptions[] = {
	{ 10,	   true,  true, false, true },
	{ 1000,	   false, true, false, true },
	{ 10000,   false, true, false, true },
	{ 100000,  true,  true, false, true },
	{ 1000000, false, true, false, false }, /* mosquitto is not given the minutes it takes */
};

static const struct point payloads[] = {
	{ 16,	  true,  true,  true,  true },
	{ 64,	  false, true,  true,  true },
	{ 256,	  true,  true,  true,  true },
	{ 1024,	  false, true,  true,  true },
	{ 4096,	  true,  true,  true,  true },
	{ 16384,  false, true,  true,  true },
	{ 65536,  true,  true,  true,  true },
};

static const struct point loads[] = {
	{ 500,	  false, false, true,  false },
	{ 1000,	  true,  true,  true,  true },
	{ 2000,	  false, false, true,  false },
	{ 5000,	  true,  true,  true,  true },
	{ 10000,  true,  true,  true,  true },
	{ 20000,  true,  true,  true,  true },
	{ 50000,  true,  true,  true,  true },
	{ 100000, true,  true,  false, true },
	{ 200000, false, true,  false, true },
	{ 400000, true,  true,  false, false },
	{ 800000, false, true,  false, false },
};

static const struct point contexts[] = {
	{ 1,	true, false, true, false },
	{ 10,	true, false, true, false },
	{ 100,	true, false, true, false },
	{ 1000,	true, false, true, false },
};

static const struct point batches[] = {
	{ 1,  true, false, true, false },
	{ 8,  true, false, true, false },
	{ 64, true, false, true, false },
};
/* clang-format on */

/* A group of one value: the servers that have it take turns. */
static void add_point(struct campaign *c, enum series_id id, const struct scenario *base,
		      const struct point *p)
{
	const struct {
		bool there;
		enum scenario_server server;
	} servers[] = { { p->plain, SCENARIO_PLAIN },
			{ p->sealed, SCENARIO_SEALED },
			{ p->mosquitto, SCENARIO_MOSQUITTO } };

	char words[WORDS_BYTES];

	campaign_group(c);
	for (size_t i = 0; i < ARRAY_SIZE(servers); i++) {
		struct scenario s = *base;

		if (!servers[i].there)
			continue;
		s.server = servers[i].server;
		scenario_words(&s, words, sizeof(words));
		if (campaign_wants(c, words))
			campaign_add(c, all[id].name, &s);
	}
}

/* Puts the value where it belongs. */
static void set(struct scenario *s, enum series_id id, unsigned value)
{
	switch (id) {
	case SERIES_CONNECTIONS:
		s->idle = value;
		return;
	case SERIES_RECEIVERS:
		s->clients = value;
		return;
	case SERIES_SUBSCRIPTIONS:
		s->others = value;
		return;
	case SERIES_PAYLOAD:
		s->payload = value;
		return;
	case SERIES_LOAD:
		s->rate = value;
		return;
	case SERIES_CONTEXT:
		s->context = value;
		return;
	case SERIES_HSMD:
		s->hsmd = value;
		return;
	case SERIES_BATCH:
		s->batch = value;
		return;
	case SERIES:
		break;
	}
	BUG_ON(true);
}

static struct scenario base_of(enum series_id id)
{
	static const unsigned windows[SERIES] = {
		[SERIES_CONNECTIONS] = WINDOW,
		[SERIES_RECEIVERS] = WINDOW_FAN_OUT,
		[SERIES_SUBSCRIPTIONS] = WINDOW,
		[SERIES_PAYLOAD] = WINDOW_SEALED,
		[SERIES_LOAD] = 0,
		[SERIES_CONTEXT] = WINDOW_TOKEN,
		[SERIES_HSMD] = WINDOW_TOKEN,
		[SERIES_BATCH] = WINDOW_BATCH,
	};
	bool token = id == SERIES_CONTEXT || id == SERIES_HSMD;
	struct scenario s;

	scenario_default(&s);
	s.kind = token || id == SERIES_RECEIVERS ? SCENARIO_FAN_OUT : SCENARIO_PAIRS;
	s.clients = token ? TOKEN_RECEIVERS : PAIRS;
	s.qos = 0;
	s.payload = PAYLOAD;
	s.window = windows[id];
	s.context = id == SERIES_HSMD ? 1 : CONTEXT;
	return s;
}

static void add_points(struct campaign *c, enum series_id id, const struct point *points, size_t n)
{
	struct scenario s = base_of(id);

	for (size_t i = 0; i < n; i++) {
		if (c->quick && !points[i].quick)
			continue;
		set(&s, id, points[i].value);
		add_point(c, id, &s, &points[i]);
	}
}

/* One process, two, four, and so on to one for each CPU. */
static void add_hsmd(struct campaign *c)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned most = cpus < 1 ? 1 : cpus > HSMD_MAX ? HSMD_MAX : (unsigned)cpus;
	struct point p = { 1, true, false, true, false };

	for (; p.value < most; p.value *= 2)
		add_points(c, SERIES_HSMD, &p, 1);
	p.value = most;
	add_points(c, SERIES_HSMD, &p, 1);
}

void series_add(struct campaign *c, enum series_id id)
{
	static const struct {
		const struct point *points;
		size_t n;
	} points[SERIES] = {
		[SERIES_CONNECTIONS] = { connections, ARRAY_SIZE(connections) },
		[SERIES_RECEIVERS] = { receivers, ARRAY_SIZE(receivers) },
		[SERIES_SUBSCRIPTIONS] = { subscriptions, ARRAY_SIZE(subscriptions) },
		[SERIES_PAYLOAD] = { payloads, ARRAY_SIZE(payloads) },
		[SERIES_LOAD] = { loads, ARRAY_SIZE(loads) },
		[SERIES_CONTEXT] = { contexts, ARRAY_SIZE(contexts) },
		[SERIES_BATCH] = { batches, ARRAY_SIZE(batches) },
	};

	if (id == SERIES_HSMD)
		add_hsmd(c);
	else
		add_points(c, id, points[id].points, points[id].n);
}
