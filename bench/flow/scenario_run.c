// SPDX-License-Identifier: MIT
/*
 * One scenario: start the server, then the clients in a process of their own; warm up, read all
 * meters, wait, read them again.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "bench/flow/broker.h"
#include "bench/flow/clients.h"
#include "bench/flow/files.h"
#include "bench/flow/material.h"
#include "bench/flow/progress.h"
#include "bench/flow/spent.h"
#include "bench/flow/stage_impl.h"
#include "bench/lab/meter.h"
#include "userspace/base/log.h"

#define WARM_UP_S	  1.0
#define INGRESS_WARM_UP_S 0.25 /* what was sealed ahead does not last long at its rates */
#define STEP_MS		  100
#define NS_PER_S	  1e9
#define BEHIND_US	  1000 /* at the 99th percentile: then the figures are the clients' own */

struct run {
	struct stage *stage;
	const struct scenario *scenario;
	struct broker_process broker;
	struct child clients;
	struct clients_options options;
	struct clients_shared *shared;
	struct progress progress;
	int bell, clients_fd; /* the clients' eventfd; a pidfd of them */
	struct meter meter;
};

/* All that is read at the same moment. */
struct reading {
	struct meter_reading meter;
	struct spent spent;
	struct broker_counts counts;
	uint64_t sent, delivered;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t); /* this clock always is */
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

double scenario_warm_up_s(const struct scenario *sc)
{
	double most = sc->kind == SCENARIO_INGRESS ? INGRESS_WARM_UP_S : WARM_UP_S;

	return sc->seconds < most ? sc->seconds : most;
}

/* --- the clients ------------------------------------------------------------------------------ */

static struct clients_shared *shared_new(void)
{
	struct clients_shared *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (s == MAP_FAILED)
		exit_with(EX_OSERR, "no memory for what is measured: %s", strerror(errno));
	return s;
}

static void clients_start(struct run *r)
{
	const struct child_place at = { .net = -1, .cpu = r->stage->client_cpu };
	int ret;

	r->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->bell < 0)
		exit_with(EX_OSERR, "an eventfd: %s", strerror(errno));
	r->options.bell = r->bell;
	ret = child_fork(&at, "clients", clients_run, &r->options, &r->clients);
	r->clients_fd = ret ? -1 : pidfd_open(r->clients.pid, 0);
	if (ret || r->clients_fd < 0)
		exit_with(EX_OSERR, "the clients cannot be started: %s",
			  strerror(ret ? -ret : errno));
}

static void clients_failed(struct run *r, int code)
{
	char words[160];

	scenario_words(r->scenario, words, sizeof(words));
	if (r->shared->why[0])
		exit_with(EX_PROTOCOL, "%s: %s", words, r->shared->why);
	exit_with(EX_SOFTWARE, "%s: the clients ended with %d", words, code);
}

/* Until the bell rings or ms pass. Clients that end now have failed. */
static void listen_for(struct run *r, int ms)
{
	struct pollfd p[] = { { .fd = r->bell, .events = POLLIN },
			      { .fd = r->clients_fd, .events = POLLIN } };
	uint64_t rung;

	if (poll(p, ARRAY_SIZE(p), ms) < 0 && errno != EINTR)
		exit_with(EX_OSERR, "poll: %s", strerror(errno));
	(void)!read(r->bell, &rung, sizeof(rung)); /* quiet again */
	if (p[1].revents)
		clients_failed(r, child_wait(&r->clients));
}

static void clients_await(struct run *r, enum clients_stage stage)
{
	while (atomic_load(&r->shared->stage) < (uint32_t)stage)
		listen_for(r, STEP_MS);
}

static void clients_order(struct run *r, enum clients_order order)
{
	atomic_store(&r->shared->order, order);
}

static void clients_end(struct run *r)
{
	int code;

	while (!child_ended(&r->clients)) {
		struct pollfd p = { .fd = r->clients_fd, .events = POLLIN };

		(void)poll(&p, 1, STEP_MS);
	}
	code = child_wait(&r->clients);
	if (code)
		clients_failed(r, code);
	(void)close(r->clients_fd);
	(void)close(r->bell);
}

/* --- time ------------------------------------------------------------------------------------- */

static uint64_t seconds_after(uint64_t ns, double seconds)
{
	return ns + (uint64_t)(seconds * NS_PER_S);
}

/* A line a second. False: it ended before, since nothing is left to be sent. */
static bool pass(struct run *r, uint64_t end_ns)
{
	uint64_t now;

	while ((now = now_ns()) < end_ns) {
		uint64_t left_ms = (end_ns - now) / 1000000 + 1;

		if (atomic_load(&r->shared->exhausted))
			return false;
		progress_tick(&r->progress, now, atomic_load(&r->shared->delivered));
		listen_for(r, left_ms < STEP_MS ? (int)left_ms : STEP_MS);
	}
	return true;
}

static void read_all(struct run *r, struct reading *ret_r)
{
	bool sealed = r->scenario->server == SCENARIO_SEALED;

	broker_ask(&r->broker);
	meter_read(&r->meter, &ret_r->meter);
	ret_r->sent = atomic_load(&r->shared->sent);
	ret_r->delivered = atomic_load(&r->shared->delivered);
	spent_read(r->broker.child.pid,
		   r->scenario->server == SCENARIO_MOSQUITTO ? "mosquitto" : "broker",
		   sealed ? r->stage->site.hsmd.pid : 0, r->clients.pid, &ret_r->spent);
	broker_answer(&r->broker, &ret_r->counts);
}

/* --- outcome ---------------------------------------------------------------------------------- */

static void take_latency(const struct histogram *h, struct outcome_latency *l)
{
	*l = (struct outcome_latency){ .n = h->n,
				       .min = h->min,
				       .p50 = histogram_at(h, 0.5),
				       .p90 = histogram_at(h, 0.9),
				       .p99 = histogram_at(h, 0.99),
				       .p999 = histogram_at(h, 0.999),
				       .max = h->max };
}

static void take_counts(const struct broker_counts *a, const struct broker_counts *b,
			struct outcome *o)
{
	o->conversions = b->conversions - a->conversions;
	o->capsule_hits = b->capsule_hits - a->capsule_hits;
	o->signatures = b->signatures - a->signatures;
	o->signed_deliveries = b->signed_deliveries - a->signed_deliveries;
	o->commits = b->commits - a->commits;
	o->token_packets = b->token_packets - a->token_packets;
	o->mallocs = b->mallocs - a->mallocs;
}

static void take(const struct run *r, const struct reading *a, const struct reading *b,
		 struct outcome *o)
{
	struct meter_reading d = meter_between(&a->meter, &b->meter);

	o->seconds = d.seconds;
	o->sent = b->sent - a->sent;
	o->delivered = b->delivered - a->delivered;
	o->server_s = d.server_s;
	o->core_s = d.core_s;
	o->stolen_s = d.stolen_s;
	spent_between(&a->spent, &b->spent, o);
	take_counts(&a->counts, &b->counts, o);
	o->mallocs_known = r->broker.counts_mallocs;
}

static void take_end(struct run *r, struct outcome *o)
{
	const struct clients_shared *s = r->shared;
	struct broker_counts counts;

	o->lost = s->lost;
	o->duplicated = s->duplicated;
	o->disordered = s->disordered;
	o->wrong = s->wrong;
	o->opened = s->opened;
	take_latency(&s->latency, &o->latency);
	broker_ask(&r->broker);
	broker_answer(&r->broker, &counts);
	o->behind = histogram_at(&s->late, 0.99) > BEHIND_US;
	if (counts.dropped)
		log_warn("the broker says that it dropped %" PRIu64, counts.dropped);
	if (s->refused)
		log_warn("the broker refused a message: reason %u (PROTOCOL 7)", s->refused);
	if (s->closed)
		log_warn("the broker ended %u connections in the midst of it", s->closed);
}

/* --- a run ------------------------------------------------------------------------------------ */

static void meter_init(struct run *r)
{
	r->meter = (struct meter){ .server_cpu = r->stage->lab->server_cpu,
				   .client_cpu = r->stage->client_cpu,
				   .port = BROKER_PORT,
				   .n_sessions = 1,
				   .sessions = { r->broker.child.pid } };
	if (r->scenario->server == SCENARIO_SEALED)
		r->meter.sessions[r->meter.n_sessions++] = r->stage->site.hsmd.pid;
}

static void start(struct run *r, struct outcome *o)
{
	const struct scenario *s = r->scenario;

	files_allow(s);
	r->shared = shared_new();
	r->options =
		(struct clients_options){ .scenario = s, .port = BROKER_PORT, .shared = r->shared };
	if (s->server == SCENARIO_SEALED)
		stage_sealed(r->stage, s, &r->options);
	broker_start(&r->broker, &r->stage->site, s, r->stage->mosquitto);
	o->rss_before_kib = broker_rss_kib(&r->broker);
	clients_start(r);
}

static void measure(struct run *r, struct outcome *o)
{
	struct reading before, after;
	uint64_t begin;

	clients_await(r, CLIENTS_READY);
	if (r->scenario->server == SCENARIO_SEALED)
		stage_hsmd(r->stage, r->stage->hsmd); /* its workers are there by now */
	stage_verifiers(r->stage, r->broker.child.pid);
	meter_init(r);
	clients_order(r, CLIENTS_RUN);
	(void)pass(r, seconds_after(now_ns(), scenario_warm_up_s(r->scenario)));
	begin = now_ns();
	atomic_store(&r->shared->from_ns, begin);
	read_all(r, &before);
	if (!pass(r, seconds_after(begin, r->scenario->seconds)))
		log_info("all that was sealed ahead is sent: the window ends here");
	atomic_store(&r->shared->to_ns, now_ns());
	read_all(r, &after);
	o->rss_kib = broker_rss_kib(&r->broker);
	clients_order(r, CLIENTS_DRAIN);
	take(r, &before, &after, o);
}

void scenario_run(struct stage *s, const struct scenario *sc, struct outcome *ret_o)
{
	struct run r = { .stage = s, .scenario = sc };
	struct outcome o = { 0 };

	start(&r, &o);
	progress_init(&r.progress, s->options.quiet);
	clients_await(&r, CLIENTS_IDLE_THERE);
	o.rss_idle_kib = broker_rss_kib(&r.broker);
	clients_order(&r, CLIENTS_GO_ON);
	measure(&r, &o);
	clients_end(&r);
	take_end(&r, &o);
	broker_stop(&r.broker);
	material_free(r.options.material);
	(void)munmap(r.shared, sizeof(*r.shared));
	*ret_o = o;
}
