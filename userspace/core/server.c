// SPDX-License-Identifier: MIT
#include "userspace/core/server.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "userspace/base/log.h"
#include "userspace/core/bundlefile.h"
#include "userspace/core/notify.h"
#include "userspace/core/server_impl.h"

#define DRAIN_BUDGET 2048 /* completions of one turn: then the engine's batches go out */
#define STOP_MS	     5000 /* to flush and commit, when told to stop */
#define STOP_STEP_MS 100

static uint64_t clock_ms(clockid_t id)
{
	struct timespec ts;

	BUG_ON(clock_gettime(id, &ts));
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void server_take_time(struct server *s)
{
	s->mono_ms = clock_ms(CLOCK_MONOTONIC);
	s->wall_ms = clock_ms(CLOCK_REALTIME);
}

/* --- the engine's actions --------------------------------------------------------------------- */

static uint8_t *op_out(void *io, void *conn_io, size_t n)
{
	return stream_out(conn_io, n);
}

static uint8_t *op_out_shared(void *io, void *conn_io, size_t n, struct bytes shared, void *handle)
{
	return stream_out_shared(conn_io, n, shared, handle);
}

static size_t op_backlog(void *io, void *conn_io)
{
	return stream_backlog(conn_io);
}

static void op_close(void *io, void *conn_io, const char *why, bool peer_ends)
{
	log_debug("event=close what=\"%s\"", why);
	stream_close(conn_io, peer_ends);
}

static void op_pause(void *io, void *conn_io, bool paused)
{
	stream_pause(conn_io, paused);
}

static void op_verify(void *io, struct broker_verify *job)
{
	struct server *s = io;

	workers_submit(s->workers, job);
}

static void op_token(void *io, struct broker_token_job *job)
{
	struct server *s = io;

	hsmlink_submit(s->hsm, job);
}

static void op_forget(void *io, const uint8_t grant_id[GRANT_ID_BYTES])
{
	struct server *s = io;

	if (s->hsm)
		hsmlink_forget(s->hsm, grant_id);
}

static void op_commit(void *io, const struct broker_commit *commit)
{
	struct server *s = io;

	store_submit(s->store, commit);
}

static bool op_bundle(void *io, const char *manager_id, struct bytes message)
{
	struct server *s = io;

	return bundlein_take(s->bundlein, manager_id, message);
}

static void op_note(void *io, const char *event, const char *client_id, const char *what)
{
	struct server *s = io;

	journal_note(&s->journal, s->mono_ms, event, client_id, what);
}

static void op_ban(void *io, const struct admission_source *source, uint64_t ms)
{
	struct server *s = io;

	admit_ban(s->admit, source, ms);
}

const struct broker_ops server_ops = {
	.out = op_out,
	.out_shared = op_out_shared,
	.backlog = op_backlog,
	.close = op_close,
	.pause = op_pause,
	.verify = op_verify,
	.token = op_token,
	.forget = op_forget,
	.commit = op_commit,
	.bundle = op_bundle,
	.note = op_note,
	.ban = op_ban,
};

/* --- the engine's events ---------------------------------------------------------------------- */

void server_accepted(void *ctx, int fd)
{
	struct server *s = ctx;
	struct stream *stream = stream_open(&s->streams, fd);
	struct broker_conn *conn = NULL;
	uint8_t address[ADDRESS_BYTES];

	if (!stream) {
		journal_note(&s->journal, s->mono_ms, "refused", NULL,
			     "no room for another connection");
		return;
	}
	if (!address_of_peer(fd, address))
		conn = broker_conn_open(s->broker, stream, address);
	if (conn)
		stream_set_user(stream, conn);
	else
		stream_abort(stream);
}

static void stream_input(void *ctx, struct stream *stream, struct bytes in)
{
	broker_conn_input(stream_user(stream), in);
}

static void stream_drained(void *ctx, struct stream *stream)
{
	broker_conn_drained(stream_user(stream));
}

static void stream_closed(void *ctx, struct stream *stream, const char *why)
{
	log_debug("event=closed what=\"%s\"", why);
	broker_conn_closed(stream_user(stream));
}

static void stream_unshare(void *ctx, void *handle)
{
	struct server *s = ctx;

	broker_unshare(s->broker, handle);
}

const struct stream_events server_stream_events = {
	.input = stream_input,
	.drained = stream_drained,
	.closed = stream_closed,
	.unshare = stream_unshare,
};

void server_token_done(void *ctx, struct broker_token_job *job)
{
	struct server *s = ctx;

	if (job->op == BROKER_TOKEN_OPEN)
		bundlein_opened(s->bundlein, job);
	else
		broker_token_done(s->broker, job);
}

static void retire_verified(struct server *s)
{
	struct broker_verify *job;

	while (s->workers && (job = workers_retire(s->workers)))
		broker_verify_done(s->broker, job);
}

static void retire_commit(struct server *s)
{
	const char *words;
	int error;

	if (!s->store || !store_poll(s->store, &error, &words))
		return;
	if (error)
		log_error("event=commit what=\"%s\" error=\"%s\" retry_ms=1000", words,
			  strerror(-error));
	broker_commit_done(s->broker, error);
}

void server_retire(struct server *s)
{
	retire_verified(s);
	retire_commit(s);
}

/* --- signals ---------------------------------------------------------------------------------- */

static void each_retained(void *ctx, struct bytes topic, struct bytes body)
{
	journal_retained(topic, body);
}

static void log_stats(struct server *s)
{
	struct hsm_client_stats hsm;
	struct broker_stats b;

	broker_stats(s->broker, &b);
	if (s->hsm)
		hsmlink_stats(s->hsm, &hsm);
	journal_stats(&b, &s->streams.stats, s->hsm ? &hsm : NULL);
	broker_each_retained(s->broker, each_retained, NULL);
}

void server_keys_of(const struct bundle_gateway *b, struct hsmlink_keys *ret_k)
{
	*ret_k = (struct hsmlink_keys){ .broker = b->broker.signing,
					.has_next = b->broker.has_next,
					.next = b->broker.next };
	memcpy(ret_k->unwrap_key_hash, b->unwrap_key_hash, sizeof(ret_k->unwrap_key_hash));
}

/*
 * A bundle that does not fit leaves the one in force. One that names keys which the token did not
 * have when it was asked makes us ask again, and is read again when it has answered.
 */
static void reload(struct server *s)
{
	bool again = s->reload_again;
	struct bundlefile_expect e = { s->manager, s->config->gateway_id, s->bundle_serial,
				       s->wall_ms };
	char why[BUNDLEFILE_ERROR_BYTES];
	const char *engine_why = "", *lacks;
	struct hsmlink_keys keys;
	struct bundlefile b;
	int err;

	s->reload_again = false;
	if (s->config->plain)
		return;
	if (bundlefile_read(s->config->bundle, &e, &b, why)) {
		log_error("%s; the one in force stays", why);
		return;
	}
	server_keys_of(&b.gateway, &keys);
	lacks = hsmlink_lacks(s->hsm, &keys);
	if (lacks && !again) {
		hsmlink_ask(s->hsm);
		s->reload_again = true;
		goto out;
	}
	if (lacks) {
		log_error("%s: %s; the one in force stays", s->config->bundle, lacks);
		goto out;
	}
	err = broker_apply_bundle(s->broker, b.statement.serial, b.statement.body, &engine_why);
	if (err) {
		log_error("%s: %s (%s); the one in force stays", s->config->bundle, engine_why,
			  strerror(-err));
		goto out;
	}
	s->keys = keys;
	hsmlink_rekey(s->hsm, &keys);
	broker_bundle_until(s->broker, b.statement.not_after_ms);
	admit_sync(s->admit, s->broker);
	server_bundle_in_force(s, b.statement.serial, s->config->bundle);
out:
	bundlefile_deinit(&b);
}

static void take_signals(struct server *s)
{
	struct signalfd_siginfo si;

	while (read(s->polled[POLLED_SIGNALS].fd, &si, sizeof(si)) == sizeof(si)) {
		switch (si.ssi_signo) {
		case SIGHUP:
			reload(s);
			break;
		case SIGUSR1:
			log_stats(s);
			break;
		default:
			s->stops++;
		}
	}
}

void server_complete_poll(void *ctx, const struct ring_done *d)
{
	struct server *s = ctx;

	BUG_ON(d->index >= POLLED);
	if (!(d->flags & IORING_CQE_F_MORE))
		s->polled[d->index].armed = false;
	if (d->index == POLLED_WAKE)
		wake_clear(&s->wake);
	else
		take_signals(s);
}

static void arm_polls(struct server *s)
{
	for (unsigned i = 0; i < POLLED; i++) {
		struct io_uring_sqe *sqe;

		if (s->polled[i].armed)
			continue;
		sqe = ring_sqe(&s->ring);
		if (!sqe)
			return; /* the next turn */
		io_uring_prep_poll_multishot(sqe, s->polled[i].fd, POLLIN);
		ring_tag(sqe, RING_POLL, 0, i);
		s->polled[i].armed = true;
	}
}

/* --- the loop --------------------------------------------------------------------------------- */

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t wait_ms(struct server *s)
{
	uint64_t ms = least(broker_wait_ms(s->broker), stream_table_wait_ms(&s->streams));

	ms = least(ms, listener_wait_ms(&s->listeners));
	ms = least(ms, admit_wait_ms(s->admit, s->mono_ms));
	if (s->operators)
		ms = least(ms, operators_wait_ms(s->operators));
	if (s->bundlein)
		ms = least(ms, bundlein_wait_ms(s->bundlein));
	if (s->hsm)
		ms = least(ms, hsmlink_wait_ms(s->hsm));
	/* The last look, after wake_sleep(): what a thread finished before it needs no wake. */
	if (ring_ready(&s->ring) || (s->workers && workers_ready(s->workers)) ||
	    (s->store && store_ready(s->store)))
		return 0;
	return ms;
}

int server_turn(struct server *s, uint64_t wait_ms_max)
{
	int err;

	arm_polls(s);
	wake_sleep(&s->wake);
	err = ring_wait(&s->ring, least(wait_ms(s), wait_ms_max));
	wake_awake(&s->wake);
	if (err)
		return err;

	server_take_time(s);
	broker_time(s->broker, s->mono_ms, s->wall_ms);
	stream_table_time(&s->streams, s->mono_ms);
	ring_drain(&s->ring, DRAIN_BUDGET);
	server_retire(s);
	if (s->hsm)
		hsmlink_tick(s->hsm, s->mono_ms);
	if (s->reload_again && !hsmlink_asking(s->hsm))
		reload(s);
	if (s->operators)
		operators_turn(s->operators, s->mono_ms);
	admit_tick(s->admit, s->broker, &s->listeners, s->mono_ms);
	if (s->bundlein)
		bundlein_turn(s->bundlein, s->mono_ms, s->wall_ms);
	stream_table_check(&s->streams);
	broker_turn(s->broker);

	if (s->workers)
		workers_publish(s->workers);
	if (s->hsm)
		hsmlink_flush(s->hsm);
	stream_table_flush(&s->streams);
	listener_turn(&s->listeners, s->mono_ms, stream_table_take_released(&s->streams));
	return 0;
}

/* Everything is said, stored and closed. */
static bool at_rest(const struct server *s)
{
	return s->streams.used == 0 && (!s->workers || workers_pending(s->workers) == 0) &&
	       (!s->store || !store_busy(s->store));
}

/* Or until it was told to stop so often. */
static int run_to_rest(struct server *s, unsigned stops_max)
{
	uint64_t end_ms = s->mono_ms + STOP_MS;
	int err = 0;

	while (!err && !at_rest(s) && s->mono_ms < end_ms && s->stops < stops_max)
		err = server_turn(s, least(end_ms - s->mono_ms, STOP_STEP_MS));
	return err;
}

/* Goodbye to every client, the last commit, and no word lost that a client could still take. */
static int stop(struct server *s)
{
	int err;

	log_info("event=stop");
	notify_state("STOPPING=1");
	listener_stop(&s->listeners);
	broker_stop(s->broker);
	err = server_turn(s, 0); /* the engine's last batches */
	if (!err)
		err = run_to_rest(s, 2);
	if (!err && !at_rest(s)) {
		log_warn("event=stop what=\"%u connections did not close in time\"",
			 s->streams.used);
		stream_table_abort(&s->streams);
		err = run_to_rest(s, UINT_MAX);
	}
	return err;
}

static int loop(struct server *s)
{
	int err = 0;

	while (!err && !s->stops)
		err = server_turn(s, UINT64_MAX);
	if (!err)
		err = stop(s);
	if (err)
		log_error("event=ring what=\"%s\"", strerror(-err));
	return err ? EX_OSERR : 0;
}

int server_run(const struct config *config)
{
	static struct server s;
	int code;

	server_start(&s, config);
	code = loop(&s);
	server_free(&s);
	return code;
}
