// SPDX-License-Identifier: MIT
#include "userspace/distributor/service.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "userspace/base/file.h"
#include "userspace/distributor/bundlefile.h"
#include "userspace/distributor/conn.h"
#include "userspace/distributor/hsmlink.h"
#include "userspace/distributor/relay.h"
#include "userspace/distributor/store.h"
#include "userspace/distributor/subscriber.h"

#define PEM_BYTES_MAX 65536
#define FLUSH_MS      60000 /* numbers of messages reach the disk so often */
#define FORGET_MS     100   /* between two helpings of ids that are deleted */
#define STOP_MS	      3000  /* what is under way may take so long at the end */
#define FDS_MAX	      (HSM_WORKERS_MAX + 2)

struct service {
	const struct config *config;
	struct p256_public *manager;
	struct plan *plan;
	struct store *store;
	struct hsmlink *hsm;
	struct relay *relay;
	struct subscriber subscriber;
	struct conn upstream, downstream_own;
	struct conn *downstream; /* &upstream where there is one broker */
	uint64_t mono_ms, unix_ms;
	uint64_t flush_at_ms, reports_at_ms;
	unsigned reports_left;
	uint64_t reports, reports_left_out, sights_lost;
	bool stopping; /* nothing new is taken */
};

static volatile sig_atomic_t stop_wanted, reload_wanted, counters_wanted;

static void on_signal(int signal)
{
	if (signal == SIGHUP)
		reload_wanted = 1;
	else if (signal == SIGUSR1)
		counters_wanted = 1;
	else
		stop_wanted = 1;
}

/* They are blocked but for the wait in ppoll(), so that none falls between a look and a wait. */
static void catch_signals(void)
{
	static const int caught[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1 };
	struct sigaction action = { .sa_handler = on_signal }, ignore = { .sa_handler = SIG_IGN };
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_SIZE(caught); i++)
		sigaddset(&set, caught[i]);
	BUG_ON(sigprocmask(SIG_BLOCK, &set, NULL));
	for (unsigned i = 0; i < ARRAY_SIZE(caught); i++)
		BUG_ON(sigaction(caught[i], &action, NULL));
	BUG_ON(sigaction(SIGPIPE, &ignore, NULL));
}

static uint64_t clock_ms(clockid_t clock)
{
	struct timespec t;

	BUG_ON(clock_gettime(clock, &t));
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void look_at_clock(struct service *s)
{
	s->mono_ms = clock_ms(CLOCK_MONOTONIC);
	s->unix_ms = clock_ms(CLOCK_REALTIME);
}

/* --- what the relay asks for ------------------------------------------------------------------ */

static void io_token(void *io, struct hsm_job *job)
{
	hsmlink_submit(((struct service *)io)->hsm, job);
}

static void io_forget(void *io, const uint8_t grant_id[GRANT_ID_BYTES])
{
	hsmlink_forget(((struct service *)io)->hsm, grant_id);
}

static void store_trouble(struct service *s, int err)
{
	static struct log_limit limit;
	uint64_t left_out;

	if (log_limit_pass(&limit, s->mono_ms, &left_out))
		log_error("store=\"%s\" error=\"%s\" words=\"%s\": nothing new goes out before it "
			  "can be written",
			  s->config->state_dir, strerror(-err), store_words(s->store));
}

static int io_id_find(void *io, const uint8_t lookup[IDTABLE_LOOKUP_BYTES],
		      uint8_t ret_external[IDTABLE_EXTERNAL_BYTES])
{
	struct service *s = io;
	int err = store_id_find(s->store, lookup, ret_external);

	if (err && err != -ENOENT)
		store_trouble(s, err);
	return err;
}

static int io_ids_put(void *io, const struct relay_row *rows, unsigned n)
{
	struct service *s = io;
	int err = store_ids_put(s->store, rows, n);

	if (err)
		store_trouble(s, err);
	return err;
}

static void io_sight(void *io, const struct relay_sight *sight)
{
	struct service *s = io;
	uint64_t period = s->unix_ms / (s->config->limits.anonymity_period_s * 1000ull);

	/* The report is short of a message then; nothing that is promised hangs on it. */
	if (store_sight(s->store, sight, period))
		s->sights_lost++;
}

static void io_publish(void *io, const struct mqtt_publish *p)
{
	session_publish(&((struct service *)io)->downstream->session, p);
}

static void io_puback(void *io, uint16_t packet_id)
{
	session_puback(&((struct service *)io)->upstream.session, packet_id);
}

static void io_report(void *io, uint8_t reason, uint64_t counter, struct bytes id,
		      struct bytes text)
{
	struct service *s = io;

	if (s->mono_ms >= s->reports_at_ms) {
		s->reports_at_ms = s->mono_ms + 1000;
		s->reports_left = s->config->limits.reports_per_second;
	}
	if (s->reports_left && session_report(&s->upstream.session, reason, counter, id, text)) {
		s->reports_left--;
		s->reports++;
	} else {
		s->reports_left_out++;
	}
}

static void io_note(void *io, enum relay_note note, struct bytes what)
{
	static struct log_limit limits[RELAY_NOTE_DROPPED + 1];
	struct service *s = io;
	uint64_t left_out;

	if (!log_limit_pass(&limits[note], s->mono_ms, &left_out))
		return;
	switch (note) {
	case RELAY_NOTE_REFUSED:
		log_warn("message=refused why=\"%.*s\" left_out=%llu", (int)what.n,
			 (const char *)what.p, (unsigned long long)left_out);
		return;
	case RELAY_NOTE_KEY_REFUSED:
		log_error("outlet=%.*s why=\"the token does not take its conversion key: was the "
			  "bundle made for this token?\"",
			  (int)what.n, (const char *)what.p);
		return;
	case RELAY_NOTE_NO_ID_KEY:
		log_error("ids=none why=\"the token has no key for external ids: ssdtf-hsmd "
			  "keygen makes it\"");
		return;
	case RELAY_NOTE_DROPPED:
		log_warn("message=dropped qos=0 why=\"too many are under way\" left_out=%llu",
			 (unsigned long long)left_out);
		return;
	}
}

static const struct relay_ops relay_ops = {
	.token = io_token,
	.forget = io_forget,
	.id_find = io_id_find,
	.ids_put = io_ids_put,
	.sight = io_sight,
	.publish = io_publish,
	.puback = io_puback,
	.report = io_report,
	.note = io_note,
};

/* --- what sessions say ------------------------------------------------------------------------ */

static void upstream_opened(void *ctx, bool present)
{
	struct service *s = ctx;

	conn_opened(&s->upstream);
	relay_upstream(s->relay, true);
	subscriber_opened(&s->subscriber, present);
	if (s->downstream == &s->upstream)
		relay_downstream(s->relay, true);
}

static void upstream_closed(struct conn *c)
{
	struct service *s = container_of(c, struct service, upstream);

	relay_upstream(s->relay, false);
	subscriber_closed(&s->subscriber);
	if (s->downstream == &s->upstream)
		relay_downstream(s->relay, false);
}

static void downstream_opened(void *ctx, bool present)
{
	struct service *s = ctx;

	conn_opened(s->downstream);
	relay_downstream(s->relay, true);
}

static void downstream_closed(struct conn *c)
{
	relay_downstream(container_of(c, struct service, downstream_own)->relay, false);
}

static bool take_publish(void *ctx, const struct mqtt_publish *p)
{
	struct service *s = ctx;

	/* At the end nothing is begun: it is not acknowledged, and comes again. */
	return s->stopping || relay_deliver(s->relay, p);
}

/* What only a broker that is not asked for it sends. */
static bool refuse_publish(void *ctx, const struct mqtt_publish *p)
{
	return false;
}

static void take_puback(void *ctx, uint16_t packet_id)
{
	relay_acknowledged(((struct service *)ctx)->relay, packet_id);
}

static void take_suback(void *ctx, uint16_t packet_id, struct bytes codes)
{
	subscriber_answered(&((struct service *)ctx)->subscriber, packet_id, codes);
}

static bool take_error(void *ctx, uint8_t reason, uint64_t counter, struct bytes text)
{
	static struct log_limit limit;
	struct service *s = ctx;
	uint64_t left_out;
	char words[128];
	bool for_good = relay_error(s->relay, reason);

	if (!log_limit_pass(&limit, s->mono_ms, &left_out))
		return for_good;
	snprintf(words, sizeof(words), "%.*s", (int)text.n, (const char *)text.p);
	for (char *c = words; *c; c++)
		if ((unsigned char)*c < ' ' || (unsigned char)*c >= 0x7f)
			*c = '?';
	log_warn("downstream refused=%u counter=%llu words=\"%s\" left_out=%llu", reason,
		 (unsigned long long)counter, words, (unsigned long long)left_out);
	return for_good;
}

static const struct session_ops upstream_ops = {
	.opened = upstream_opened,
	.publish = take_publish,
	.puback = take_puback,
	.suback = take_suback,
	.error = take_error,
};

static const struct session_ops downstream_ops = {
	.opened = downstream_opened,
	.publish = refuse_publish,
	.puback = take_puback,
	.suback = take_suback,
	.error = take_error,
};

/* --- start ------------------------------------------------------------------------------------ */

static int exit_code_of(int err)
{
	switch (-err) {
	case ENOENT:
		return EX_NOINPUT;
	case EACCES:
	case EPERM:
		return EX_NOPERM;
	case EBADMSG:
	case ESTALE:
	case EXDEV:
	case EUCLEAN:
	case EPROTO:
		return EX_DATAERR;
	case EBUSY:
		return EX_TEMPFAIL;
	default:
		return EX_OSERR;
	}
}

static struct p256_public *read_manager_key(const char *path)
{
	struct p256_public *key;
	struct p256_point point;
	uint8_t *pem;
	size_t n;
	int err = file_read(AT_FDCWD, path, PEM_BYTES_MAX, &pem, &n, NULL);

	if (err)
		exit_with(exit_code_of(err), "%s: %s", path, strerror(-err));
	err = p256_public_from_pem(bytes_of(pem, n), &point);
	free(pem);
	if (err || p256_public_new(&point, &key))
		exit_with(EX_DATAERR, "%s: is no public key in PEM, of the curve P-256", path);
	return key;
}

static struct bundlefile_expect expect_of(const struct service *s)
{
	return (struct bundlefile_expect){
		.manager = s->manager,
		.serial_min = s->plan	 ? s->plan->serial
			      : s->store ? store_serial(s->store)
					 : 0,
		.wall_ms = clock_ms(CLOCK_REALTIME),
		.now = s->plan,
		.has_downstream = s->config->downstream.len > 0,
	};
}

static void read_bundle(struct service *s)
{
	const struct bundlefile_expect e = expect_of(s);
	char why[BUNDLEFILE_ERROR_BYTES];
	int err = bundlefile_read(s->config->bundle, &e, &s->plan, why);

	if (err)
		exit_with(exit_code_of(err), "%s", why);
}

static void open_store(struct service *s)
{
	char why[STORE_ERROR_BYTES];
	int err = store_open(s->config->state_dir, &s->store, why);

	if (err)
		exit_with(exit_code_of(err), "%s", why);
}

static void keep_serial(struct service *s)
{
	int err = 0;

	if (s->plan->serial > store_serial(s->store))
		err = store_set_serial(s->store, s->plan->serial);
	if (err)
		store_trouble(s, err);
}

static void open_hsm(struct service *s)
{
	const char *dir = s->config->hsm_sockets;
	int err = hsmlink_new(dir, &s->plan->bundle.signing, s->plan->bundle.unwrap_key_hash,
			      &s->hsm);

	if (err == -ENOENT)
		exit_with(EX_UNAVAILABLE,
			  "%s: has no hsmd.N.sock: start this distributor's ssdtf-hsmd first", dir);
	if (err)
		exit_with(exit_code_of(err), "%s: %s", dir, strerror(-err));
}

static void make_sessions(struct service *s)
{
	const struct config_limits *l = &s->config->limits;
	struct session_config up = { .keepalive_s = (uint16_t)l->keepalive_s,
				     .packet_bytes_max = l->packet_bytes_max };
	struct session_config down = up;
	int err;

	down.clean = true;
	s->downstream = s->plan->one_broker ? &s->upstream : &s->downstream_own;
	if (s->plan->one_broker && s->config->downstream.len)
		log_warn("downstream=%s unused why=\"the bundle publishes where it subscribes\"",
			 s->config->downstream.text);
	session_init(&s->upstream.session, &upstream_ops, s, &up, &s->relay->asks, &s->relay->judge,
		     s->plan, false);
	conn_init(&s->upstream, s->plan->one_broker ? "broker" : "upstream", &s->config->upstream,
		  upstream_closed);
	session_init(&s->downstream_own.session, &downstream_ops, s, &down, &s->relay->asks,
		     &s->relay->judge, s->plan, true);
	conn_init(&s->downstream_own, "downstream", &s->config->downstream, downstream_closed);
	err = subscriber_init(&s->subscriber, &s->upstream.session, s->store);
	if (err)
		exit_with(EX_OSERR, "%s: %s", s->config->state_dir, store_words(s->store));
	subscriber_plan(&s->subscriber, s->plan);
}

/* --- signals ---------------------------------------------------------------------------------- */

static void reload(struct service *s)
{
	const struct bundlefile_expect e = expect_of(s);
	char why[BUNDLEFILE_ERROR_BYTES];
	struct plan *p;
	int err = bundlefile_read(s->config->bundle, &e, &p, why);

	if (err) {
		log_error("bundle=refused why=\"%s\": the one in force stays", why);
		return;
	}
	if (p->serial == s->plan->serial) {
		log_info("bundle=unchanged serial=%llu", (unsigned long long)p->serial);
		plan_put(p);
		return;
	}
	relay_plan(s->relay, p);
	s->upstream.session.plan = s->downstream_own.session.plan = p;
	plan_put(s->plan);
	s->plan = p;
	subscriber_plan(&s->subscriber, p);
	keep_serial(s);
	log_info("bundle=in-force serial=%llu hops=%u outlets=%u origins=%u",
		 (unsigned long long)p->serial, p->n_hops, p->n_outlets, p->n_origins);
}

#define N(x) ((unsigned long long)(x))

static void say_counters(const struct service *s)
{
	const struct relay *r = s->relay;
	const struct relay_stats *t = &r->stats;

	log_info("counters received=%llu repeated=%llu adopted=%llu refused=%llu no_outlet=%llu "
		 "withdrawn=%llu dropped_qos0=%llu under_way=%u",
		 N(t->received), N(t->repeated), N(t->adopted), N(t->refused), N(t->no_outlet),
		 N(t->withdrawn), N(t->dropped_qos0), r->n_deliveries);
	log_info("counters published=%llu published_again=%llu acknowledged_downstream=%llu "
		 "acknowledged_upstream=%llu errors=%llu reports=%llu reports_left_out=%llu",
		 N(t->published), N(t->published_again), N(t->acknowledged_downstream),
		 N(t->acknowledged_upstream), N(t->errors), N(s->reports), N(s->reports_left_out));
	log_info("counters verifications=%llu roots_reused=%llu conversions=%llu "
		 "capsule_hits=%llu signatures=%llu ids_asked=%llu ids_drawn=%llu "
		 "token_retries=%llu hsmd_up=%u sights_lost=%llu",
		 N(r->judge.stats.verifications), N(r->judge.stats.roots_reused),
		 N(r->capsules.asked), N(r->capsules.hits), N(t->signatures), N(r->aliases.asked),
		 N(r->aliases.drawn), N(r->asks.n_retries), hsmlink_up(s->hsm), N(s->sights_lost));
	for (unsigned v = JUDGE_MALFORMED; v < JUDGE_VERDICTS; v++)
		if (r->judge.stats.by_verdict[v])
			log_info("counters refused=%llu why=\"%s\"",
				 N(r->judge.stats.by_verdict[v]), judge_words(v));
}

/* --- the loop --------------------------------------------------------------------------------- */

/* Once a minute: numbers of messages to the disk, and ids away that nobody is to trace any more. */
static void look_after_store(struct service *s)
{
	uint64_t kept_ms = s->config->limits.trace_days * 86400000ull;
	bool more = false;
	int err = 0;

	s->flush_at_ms = s->mono_ms + FLUSH_MS;
	if (store_flush(s->store))
		s->sights_lost++;
	if (kept_ms && s->unix_ms > kept_ms)
		err = store_ids_forget(s->store, s->unix_ms - kept_ms, &more);
	if (err)
		store_trouble(s, err);
	if (more)
		s->flush_at_ms = s->mono_ms + FORGET_MS;
}

static void tick(struct service *s)
{
	hsmlink_tick(s->hsm, s->mono_ms);
	relay_tick(s->relay, s->mono_ms, s->unix_ms);
	conn_tick(&s->upstream, s->mono_ms);
	if (s->downstream != &s->upstream)
		conn_tick(s->downstream, s->mono_ms);
	if (s->mono_ms >= s->flush_at_ms)
		look_after_store(s);
}

/* What this turn made goes out together. */
static void flush(struct service *s)
{
	relay_turn(s->relay);
	hsmlink_flush(s->hsm, s->mono_ms);
	conn_flush(&s->upstream, s->mono_ms);
	if (s->downstream != &s->upstream)
		conn_flush(s->downstream, s->mono_ms);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t due_ms(const struct service *s)
{
	uint64_t at_ms = earlier(relay_due_ms(s->relay), s->flush_at_ms);

	at_ms = earlier(at_ms, hsmlink_due_ms(s->hsm));
	at_ms = earlier(at_ms, conn_due_ms(&s->upstream));
	if (s->downstream != &s->upstream)
		at_ms = earlier(at_ms, conn_due_ms(s->downstream));
	return at_ms;
}

static void turn(struct service *s)
{
	struct pollfd fds[FDS_MAX] = { { .fd = -1 }, { .fd = -1 } };
	unsigned n = 2 + hsmlink_watch(s->hsm, fds + 2);
	uint64_t at_ms = due_ms(s), wait_ms = at_ms > s->mono_ms ? at_ms - s->mono_ms : 0;
	struct timespec wait = { .tv_sec = (time_t)(wait_ms / 1000),
				 .tv_nsec = (long)(wait_ms % 1000) * 1000000 };
	sigset_t none;

	conn_watch(&s->upstream, &fds[0]);
	if (s->downstream != &s->upstream)
		conn_watch(s->downstream, &fds[1]);
	sigemptyset(&none);
	if (ppoll(fds, n, &wait, &none) < 0) {
		if (errno != EINTR)
			exit_with(EX_OSERR, "poll: %s", strerror(errno));
		for (unsigned i = 0; i < n; i++)
			fds[i].revents = 0;
	}
	look_at_clock(s);
	tick(s);
	hsmlink_events(s->hsm, fds + 2, s->mono_ms);
	if (fds[0].fd >= 0 && fds[0].fd == s->upstream.fd)
		conn_events(&s->upstream, fds[0].revents, s->mono_ms, s->unix_ms);
	if (fds[1].fd >= 0 && fds[1].fd == s->downstream->fd)
		conn_events(s->downstream, fds[1].revents, s->mono_ms, s->unix_ms);
	flush(s);
}

static void run(struct service *s)
{
	uint64_t stop_at_ms = 0;

	while (!s->stopping || (!relay_idle(s->relay) && s->mono_ms < stop_at_ms)) {
		if (reload_wanted) {
			reload_wanted = 0;
			reload(s);
		}
		if (counters_wanted) {
			counters_wanted = 0;
			say_counters(s);
		}
		turn(s);
		if (stop_wanted && !s->stopping) {
			s->stopping = true;
			stop_at_ms = s->mono_ms + STOP_MS;
		}
	}
}

static void end(struct service *s)
{
	conn_close(&s->upstream);
	conn_close(&s->downstream_own);
	hsmlink_free(s->hsm); /* gives every job back */
	session_deinit(&s->upstream.session);
	session_deinit(&s->downstream_own.session);
	subscriber_deinit(&s->subscriber);
	relay_free(s->relay);
	store_close(s->store);
	plan_put(s->plan);
	p256_public_free(s->manager);
}

int service_run(const struct config *c)
{
	static struct service s;
	const struct config_limits *l = &c->limits;
	const struct relay_limits limits = {
		.messages_max = l->messages_max,
		.window = l->window,
		.capsules_max = l->capsules_max,
		.names_max = l->names_max,
	};

	s.config = c;
	s.manager = read_manager_key(c->manager_key);
	open_store(&s);
	read_bundle(&s);
	open_hsm(&s);
	look_at_clock(&s);
	keep_serial(&s);
	s.flush_at_ms = s.mono_ms + FLUSH_MS;
	s.relay = relay_new(&relay_ops, &s, &limits, s.plan, s.mono_ms, s.unix_ms);
	make_sessions(&s);
	catch_signals();
	log_info("distributor=%.*s serial=%llu hops=%u outlets=%u origins=%u",
		 (int)s.plan->bundle.id.n, (const char *)s.plan->bundle.id.p, N(s.plan->serial),
		 s.plan->n_hops, s.plan->n_outlets, s.plan->n_origins);
	run(&s);
	say_counters(&s);
	end(&s);
	return EX_OK;
}

static void say_plan(const struct plan *p)
{
	printf("distributor %.*s, bundle %llu: %u hops, %u outlets, %u origins; subscribes at "
	       "%.*s, publishes at %.*s\n",
	       (int)p->bundle.id.n, (const char *)p->bundle.id.p, N(p->serial), p->n_hops,
	       p->n_outlets, p->n_origins, (int)p->bundle.from.gateway_id.n,
	       (const char *)p->bundle.from.gateway_id.p, (int)p->bundle.to.gateway_id.n,
	       (const char *)p->bundle.to.gateway_id.p);
	for (unsigned i = 0; i < p->n_outlets; i++) {
		const struct bundle_outlet *o = &p->outlets[i].outlet;

		printf("outlet %.*s: %.*s/..., scope %.*s, %s %.*s, ids of domain %.*s, ",
		       (int)o->name.n, (const char *)o->name.p, (int)o->prefix.n,
		       (const char *)o->prefix.p, (int)o->grant.scope.n,
		       (const char *)o->grant.scope.p,
		       o->grant.flags & RECORD_GRANT_HOP ? "group" : "for",
		       (int)o->grant.receiver.n, (const char *)o->grant.receiver.p,
		       (int)o->domain.n, (const char *)o->domain.p);
		if (o->rotate_seconds)
			printf("new every %u s\n", o->rotate_seconds);
		else
			printf("for ever\n");
	}
}

int service_check(const struct config *c)
{
	struct service s = { .config = c };

	s.manager = read_manager_key(c->manager_key);
	read_bundle(&s);
	say_plan(s.plan);
	plan_put(s.plan);
	p256_public_free(s.manager);
	return EX_OK;
}
