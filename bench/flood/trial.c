// SPDX-License-Identifier: MIT
#include "bench/flood/trial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sysexits.h>
#include <time.h>

#include "userspace/base/log.h"

#define WARM_UP_S     0.5
#define WARM_UP_MAX_S 30
#define CAPTURE_S     0.2
#define CAPTURE_TRIES 20
#define SETTLE_S      0.3 /* packets under way, RSTs, closing sockets */
#define LEAD_IN_S     0.2 /* of a flood, before good clients begin */
#define GOOD_NICE     (-10)
#define US_PER_S      1e6

/* A window's processes. */
struct window {
	const struct trial_bench *b;
	struct bogus bogus;
	struct flooder_options flood;
	struct load_options load;
	struct child flooder;
};

void trial_pause(double seconds)
{
	struct timespec left = { (time_t)seconds,
				 (long)((seconds - (double)(time_t)seconds) * 1e9) };

	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

struct trial_shared *trial_shared_new(void)
{
	struct trial_shared *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (s == MAP_FAILED)
		exit_with(EX_OSERR, "no memory for what is measured: %s", strerror(errno));
	return s;
}

/* --- processes -------------------------------------------------------------------------------- */

static int run_flooder(void *ctx)
{
	struct window *w = ctx;
	struct flooder_state *s = &w->b->shared->flood;

	return w->bogus.kind == BOGUS_SYN ? flooder_run_syn(&w->flood, s)
					  : flooder_run(&w->flood, s);
}

static int run_load(void *ctx)
{
	struct window *w = ctx;

	return load_run(&w->load, &w->b->shared->load);
}

static void must_end(const char *what, int code)
{
	if (code)
		exit_with(EX_SOFTWARE, "%s ended with %d", what, code);
}

static void flood_start(struct window *w)
{
	const struct child_place at = { .net = w->b->lab->client_net, .cpu = w->b->lab->flood_cpu };

	memset(&w->b->shared->flood, 0, sizeof(w->b->shared->flood));
	must_end("starting the flood", child_fork(&at, "flood", run_flooder, w, &w->flooder));
}

static const struct flooder_state *flood_stop(struct window *w)
{
	atomic_store(&w->b->shared->flood.stop, true);
	must_end("the flood", child_wait(&w->flooder));
	return &w->b->shared->flood;
}

/* Good clients go first where they share a CPU with the flood: it is the server's way of treating
 * them that is measured. */
static struct load_result *load_do(struct window *w)
{
	const struct child_place at = { .net = w->b->lab->client_net,
					.cpu = w->b->lab->good_cpu,
					.nice = GOOD_NICE };
	struct child c;

	memset(&w->b->shared->load, 0, sizeof(w->b->shared->load));
	must_end("starting the clients", child_fork(&at, "clients", run_load, w, &c));
	must_end("the clients", child_wait(&c));
	return &w->b->shared->load;
}

/* --- windows ---------------------------------------------------------------------------------- */

static struct load_options load_of(const struct trial_bench *b, const struct server *v,
				   unsigned clients, double seconds)
{
	bool ssdtf = v->kind != SERVER_MOSQUITTO;

	return (struct load_options){ .devices = ssdtf ? b->devices : NULL,
				      .n_devices = ssdtf ? b->n_devices : 0,
				      .port = v->port,
				      .clients = clients,
				      .rate = b->options->connects,
				      .seconds = seconds };
}

static struct trial_good good_do(struct window *w, const struct server *v, bool closed)
{
	struct meter_reading before, after, d;
	struct trial_good g = { 0 };
	struct load_result *r;
	struct meter m;

	server_meter(v, &m);
	meter_read(&m, &before);
	r = load_do(w);
	meter_read(&m, &after);
	d = meter_between(&before, &after);
	g.server_busy = d.core_s / d.seconds;
	g.client_busy = d.client_core_s / d.seconds;
	g.done = r->done;
	g.failed = load_failures(r);
	if (closed)
		g.per_second = (double)r->done / r->seconds;
	g.latency = figure_latency_of(r->us, r->n_us);
	g.devices_short = r->device_waits != 0;
	return g;
}

struct trial_good trial_load(const struct trial_bench *b, const struct server *v, unsigned clients,
			     double seconds)
{
	struct window w = { .b = b, .load = load_of(b, v, clients, seconds) };

	return good_do(&w, v, clients != 0);
}

void trial_warm_up(const struct trial_bench *b, const struct server *v)
{
	bool through = false;

	for (double waited = 0; !through && waited < WARM_UP_MAX_S; waited += WARM_UP_S)
		through = trial_load(b, v, b->options->clients, WARM_UP_S).done != 0;
	if (!through)
		exit_with(EX_UNAVAILABLE, "%s: no client gets through", server_name(v->kind));
	trial_pause(SETTLE_S);
}

/* What somebody on the path of a good client has: its CONNECT, just accepted. */
static size_t capture(struct window *w, const struct server *v, uint8_t *captured)
{
	const struct load_result *r;

	for (unsigned i = 0; i < CAPTURE_TRIES; i++) {
		w->load = load_of(w->b, v, 1, CAPTURE_S);
		r = load_do(w);
		if (!r->connect_n || r->connect_n > BOGUS_BYTES_MAX)
			continue;
		memcpy(captured, r->connect, r->connect_n);
		return r->connect_n;
	}
	exit_with(EX_UNAVAILABLE, "%s: no connect to be replayed", server_name(v->kind));
}

/* A flood for a window. REPLAY gets a CONNECT that the server has just accepted from somebody. */
static void window_init(struct window *w, const struct trial_bench *b, const struct server *v,
			enum bogus_kind kind, uint8_t *captured)
{
	size_t n = 0;

	memset(w, 0, sizeof(*w));
	w->b = b;
	if (kind == BOGUS_REPLAY)
		n = capture(w, v, captured);
	bogus_init(&w->bogus, kind, v->kind == SERVER_MOSQUITTO ? 0 : b->n_devices,
		   bytes_of(captured, n));
	w->flood = (struct flooder_options){ .bogus = &w->bogus,
					     .rate = b->options->rate,
					     .hold_ms = b->options->hold_ms,
					     .port = v->port };
}

struct baseline {
	double core, machine; /* CPU seconds a second, with nothing to do */
};

static struct baseline baseline_read(const struct meter *m, double seconds)
{
	struct meter_reading a, b, d;

	meter_read(m, &a);
	trial_pause(seconds);
	meter_read(m, &b);
	d = meter_between(&a, &b);
	return (struct baseline){ d.core_s / d.seconds, d.machine_s / d.seconds };
}

/* 0 where there is no filter. */
static uint64_t told_read(const struct server *v)
{
	char pinned[SITE_PATH_BYTES];
	uint64_t n;
	int ret;

	if (v->kind != SERVER_FILTER)
		return 0;
	server_pinned(v->site, "counters", pinned);
	ret = meter_told_read(pinned, &n);
	if (ret)
		exit_with(EX_UNAVAILABLE, "%s: %s", pinned, strerror(-ret));
	return n;
}

/* The flood alone. */
static void window_cost(const struct trial_bench *b, const struct server *v, const struct meter *m,
			const struct baseline *base, struct trial *t)
{
	uint8_t captured[BOGUS_BYTES_MAX];
	struct meter_reading before, after, d;
	const struct flooder_state *f;
	struct window w;
	uint64_t told;
	double n;

	window_init(&w, b, v, t->kind, captured);
	trial_pause(SETTLE_S);
	told = told_read(v);
	meter_read(m, &before);
	flood_start(&w);
	trial_pause(b->options->seconds);
	f = flood_stop(&w);
	t->syn_recv = meter_syn_recv(m);
	trial_pause(SETTLE_S);
	meter_read(m, &after);
	d = meter_between(&before, &after);
	n = f->begun ? (double)f->begun : 1;
	t->bogus = f->begun;
	t->reached = (double)f->begun / f->seconds;
	t->connected = (double)f->connected / n;
	t->sent = (double)f->sent / n;
	t->server_us = d.server_s * US_PER_S / n;
	t->core_us = (d.core_s - base->core * d.seconds) * US_PER_S / n;
	t->machine_us = (d.machine_s - base->machine * d.seconds) * US_PER_S / n;
	t->stolen_us = d.stolen_s * US_PER_S / n;
	t->full = (double)d.passive_opens / n;
	t->told = (double)(told_read(v) - told) / n;
	t->base = base->machine;
	t->overflows = d.overflows;
	t->cookies = d.cookies;
}

/* Good clients beside the flood; *ret_reached is its rate. */
static struct trial_good window_good(const struct trial_bench *b, const struct server *v,
				     enum bogus_kind kind, unsigned clients, double *ret_reached)
{
	uint8_t captured[BOGUS_BYTES_MAX];
	const struct flooder_state *f;
	struct trial_good g;
	struct window w;

	window_init(&w, b, v, kind, captured);
	w.load = load_of(b, v, clients, b->options->seconds);
	flood_start(&w);
	trial_pause(LEAD_IN_S);
	g = good_do(&w, v, clients != 0);
	f = flood_stop(&w);
	*ret_reached = (double)f->begun / f->seconds;
	trial_pause(SETTLE_S);
	return g;
}

void trial_run(const struct trial_bench *b, enum server_kind server, enum bogus_kind kind,
	       struct trial *ret_t)
{
	const struct trial_options *o = b->options;
	struct trial t = { .kind = kind, .server = server };
	struct baseline base;
	struct server v;
	struct meter m;

	server_start(&v, b->site, server, SERVER_PORT, o->mosquitto);
	server_meter(&v, &m);
	trial_warm_up(b, &v);
	base = baseline_read(&m, o->seconds);
	t.idle_closed = trial_load(b, &v, o->clients, o->seconds);
	trial_pause(SETTLE_S);
	t.idle_open = trial_load(b, &v, 0, o->seconds);
	window_cost(b, &v, &m, &base, &t);
	t.flood_closed = window_good(b, &v, kind, o->clients, &t.reached_closed);
	t.flood_open = window_good(b, &v, kind, 0, &t.reached_open);
	server_stop(&v);
	*ret_t = t;
}
