// SPDX-License-Identifier: MIT
#include "userspace/manager/push_run.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "userspace/base/log.h"
#include "userspace/manager/push.h"
#include "userspace/manager/reports.h"
#include "userspace/manager/session.h"

#define PROGRESS_MS 1000
#define TURN_MS	    1000

struct run {
	struct manager *m;
	struct push *push;
	struct session *session;
	uint64_t said_ms;
};

static void on_opened(void *ctx)
{
	struct run *r = ctx;

	push_offer(r->push, r->session);
}

static void on_bundle(void *ctx, struct bytes body)
{
	struct run *r = ctx;

	push_take(r->push, r->session, body);
}

/* For whoever serves: the device claims again. */
static void on_claim(void *ctx, struct bytes body)
{
}

/* The broker has kept it for the next manager, and that is us. */
static void on_report(void *ctx, const struct ssdtf_report *report)
{
	struct run *r = ctx;
	bool is_new;
	int err = manager_resume(r->m);

	if (!err)
		err = manager_begin(r->m);
	if (!err)
		err = reports_store(r->m, push_gateway(r->push), report, &is_new);
	if (!err)
		err = manager_commit(r->m);
	manager_rollback(r->m); /* harmless behind a commit */
	manager_pause(r->m);
	if (err)
		log_error("a report is lost: %s", r->m->error);
}

static const struct session_handler handler = {
	.opened = on_opened,
	.bundle = on_bundle,
	.claim = on_claim,
	.report = on_report,
};

static void say_progress(struct run *r, uint64_t now_ms)
{
	struct push_figures f;

	push_figures(r->push, &f);
	if (now_ms - r->said_ms < PROGRESS_MS || !f.pieces_sent)
		return;
	r->said_ms = now_ms;
	log_info("%u of %u pieces sent", f.pieces_sent, f.pieces);
}

static int give_up(struct manager *m, struct run *r, int code, const char *words)
{
	m->exit_code = code;
	return manager_fail(m, -ECANCELED, "gateway \"%s\": %s", push_gateway(r->push), words);
}

static int bring(struct manager *m, const struct push_options *o, struct run *r)
{
	uint64_t end_ms = session_now_ms(r->session) + o->timeout_s * 1000ull;

	r->said_ms = session_now_ms(r->session);
	while (push_state(r->push) == PUSH_UNDER_WAY) {
		uint64_t now_ms = session_now_ms(r->session);
		int code = session_turn(r->session,
					now_ms + TURN_MS < end_ms ? now_ms + TURN_MS : end_ms);

		if (code == EX_NOPERM && push_is_farewell(r->push))
			return 0;
		if (code)
			return give_up(m, r, code, session_why(r->session));
		if (session_stopped())
			return give_up(m, r, EX_TEMPFAIL, "stopped before it was applied");
		if (push_state(r->push) == PUSH_UNDER_WAY && session_now_ms(r->session) >= end_ms)
			return give_up(m, r, EX_TEMPFAIL,
				       session_is_open(r->session)
					       ? "did not say in time that it applied the bundle"
					       : session_why(r->session));
		say_progress(r, session_now_ms(r->session));
	}
	if (push_state(r->push) == PUSH_REFUSED)
		return give_up(m, r, EX_DATAERR, push_words(r->push));
	return 0;
}

static double seconds_since(const struct timespec *start)
{
	struct timespec now;

	BUG_ON(clock_gettime(CLOCK_MONOTONIC, &now));
	return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

static int session_for(struct manager *m, const struct push_options *o, struct run *r)
{
	const struct session_options so = { .dir = o->party_dir,
					    .id = o->party_id,
					    .host = o->host,
					    .port = o->port,
					    .patience_s = o->timeout_s };

	r->session = session_new(&so, &handler, r);
	if (!r->session)
		return manager_fail(m, -ENOMEM, "out of memory");
	if (bytes_equal(session_gateway(r->session), bytes_str(push_gateway(r->push))))
		return 0;
	m->exit_code = EX_CONFIG;
	return manager_fail(m, -EINVAL, "%s: its bundle is for another gateway than \"%s\"",
			    o->party_dir, push_gateway(r->push));
}

int push_run(struct manager *m, const struct push_options *o)
{
	struct push_figures f;
	struct timespec start;
	struct run r = { .m = m };
	int err;

	BUG_ON(clock_gettime(CLOCK_MONOTONIC, &start));
	err = push_make(m, &o->terms, &r.push);
	if (err)
		return err;
	manager_pause(m);
	err = session_for(m, o, &r);
	if (!err)
		err = bring(m, o, &r);
	if (!err) {
		push_figures(r.push, &f);
		(void)fprintf(m->out,
			      "applied gateway=%s serial=%" PRIu64 " sent=%" PRIu64 " of=%" PRIu64
			      " pieces=%u/%u seconds=%.3f\n",
			      push_gateway(r.push), push_serial(r.push), f.bytes_sent, f.bytes,
			      f.pieces_sent, f.pieces, seconds_since(&start));
		err = manager_resume(m);
	}
	if (!err)
		err = push_note_applied(m, r.push);
	session_free(r.session);
	push_free(r.push);
	return err;
}
