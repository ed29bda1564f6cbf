// SPDX-License-Identifier: MIT
#include "userspace/manager/serve.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "userspace/base/log.h"
#include "userspace/bundle/relay.h"
#include "userspace/manager/claims.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/push.h"
#include "userspace/manager/reports.h"
#include "userspace/manager/session.h"

#define FORWARD_BYTES_MAX 1024

/* What the broker said, as it came. */
struct kept {
	size_t n;
	uint8_t *bytes;
};

struct claim {
	uint16_t n;
	uint8_t forward[FORWARD_BYTES_MAX];
};

struct serve {
	struct manager *m;
	const struct serve_options *o;
	char gateway[MANAGER_ID_ROOM];
	struct session *session;

	struct kept reports[SERVE_REPORTS_MAX];
	unsigned n_reports;

	/* Claims that came, and those that were decided and wait for the bundle. */
	struct claim claims[SERVE_CLAIMS_MAX];
	unsigned n_claims;
	uint64_t claims_due_ms;
	struct claims_one decided[SERVE_CLAIMS_MAX];
	unsigned n_decided;

	struct push *push; /* under way */
	bool push_wanted;
	int64_t seen; /* of the history, in the last bundle */
	uint64_t look_ms, retry_ms;
};

/* --- what comes ------------------------------------------------------------------------------- */

static void on_opened(void *ctx)
{
	struct serve *s = ctx;

	log_info("event=open gateway=%s", s->gateway);
	if (s->push)
		push_offer(s->push, s->session);
}

static void on_bundle(void *ctx, struct bytes body)
{
	struct serve *s = ctx;

	if (s->push)
		push_take(s->push, s->session, body);
}

static void on_claim(void *ctx, struct bytes body)
{
	struct serve *s = ctx;
	struct claim *c;

	if (s->n_claims == SERVE_CLAIMS_MAX || body.n > sizeof(c->forward))
		return; /* it is made again */
	c = &s->claims[s->n_claims];
	if (!s->n_claims)
		s->claims_due_ms = session_now_ms(s->session) + SERVE_CLAIM_MS;
	c->n = (uint16_t)body.n;
	memcpy(c->forward, body.p, body.n);
	s->n_claims++;
}

static void on_report(void *ctx, const struct ssdtf_report *r)
{
	struct serve *s = ctx;
	struct kept k = { .n = r->whole.n };

	if (s->n_reports < SERVE_REPORTS_MAX)
		k.bytes = malloc(k.n);
	if (!k.bytes) {
		log_error("a report of \"%.*s\" is lost: too many at once", (int)r->reporter.n,
			  (const char *)r->reporter.p);
		return;
	}
	memcpy(k.bytes, r->whole.p, k.n);
	s->reports[s->n_reports++] = k;
}

static const struct session_handler handler = {
	.opened = on_opened,
	.bundle = on_bundle,
	.claim = on_claim,
	.report = on_report,
};

/* --- at work ---------------------------------------------------------------------------------- */

/* Something of ours failed: said, and tried again later. */
static void put_off(struct serve *s)
{
	log_error("%s", s->m->error);
	s->retry_ms = session_now_ms(s->session) + SERVE_RETRY_MS;
}

/* work() in a transaction, with DIR/lock. */
static int in_transaction(struct serve *s, int (*work)(struct serve *s))
{
	int err = manager_resume(s->m);

	if (err)
		return err;
	err = manager_begin(s->m);
	if (!err)
		err = work(s);
	if (!err)
		err = manager_commit(s->m);
	manager_rollback(s->m); /* harmless behind a commit */
	manager_pause(s->m);
	return err;
}

/* --- reports ---------------------------------------------------------------------------------- */

static int store_reports(struct serve *s)
{
	int err = 0;

	for (unsigned i = 0; i < s->n_reports && !err; i++) {
		struct ssdtf_report r;
		bool is_new;

		/* It was read when it came. */
		if (!ssdtf_report_read(bytes_of(s->reports[i].bytes, s->reports[i].n), &r))
			err = reports_store(s->m, s->gateway, &r, &is_new);
	}
	return err;
}

static void forget_reports(struct serve *s)
{
	while (s->n_reports)
		free(s->reports[--s->n_reports].bytes);
}

static void take_reports(struct serve *s)
{
	if (in_transaction(s, store_reports))
		return put_off(s);
	log_info("event=reports n=%u", s->n_reports);
	forget_reports(s);
}

/* --- bundles ---------------------------------------------------------------------------------- */

/* The last change that a bundle would tell. */
static int read_change(struct serve *s, int64_t *ret_n)
{
	struct registry_query q =
		registry_query(&s->m->registry, "SELECT coalesce(max(n), 0) FROM history"
						" WHERE action <> 'claim refused'");
	int64_t n = 0;
	int err;

	if (registry_step(&q))
		n = registry_int(&q, 0);
	err = manager_fail_registry(s->m, registry_end(&q));
	if (!err)
		*ret_n = n;
	return err;
}

static void look_for_changes(struct serve *s, uint64_t now_ms)
{
	int64_t n;

	s->look_ms = now_ms + SERVE_CHANGE_MS;
	if (read_change(s, &n))
		return put_off(s);
	if (n != s->seen)
		s->push_wanted = true;
}

/* What changed before is in it; what changes meanwhile may be, and then makes another. */
static int make_push(struct serve *s)
{
	int64_t seen = 0;
	int err = manager_resume(s->m);

	if (err)
		return err;
	err = read_change(s, &seen);
	if (!err)
		err = push_make(s->m, &s->o->terms, &s->push);
	manager_pause(s->m);
	if (!err)
		s->seen = seen;
	return err;
}

static void begin_push(struct serve *s)
{
	if (make_push(s))
		return put_off(s);
	s->push_wanted = false;
	if (session_is_open(s->session))
		push_offer(s->push, s->session);
}

/* --- claims ----------------------------------------------------------------------------------- */

static int decide_claims(struct serve *s)
{
	s->n_decided = 0;
	for (unsigned i = 0; i < s->n_claims; i++) {
		const struct claim *c = &s->claims[i];
		int err = claims_decide(s->m, s->gateway, bytes_of(c->forward, c->n),
					&s->decided[s->n_decided]);

		if (!err)
			s->n_decided++;
		else if (err != -EBADMSG)
			return err;
	}
	return 0;
}

static const char *name_of(enum claim_result result)
{
	switch (result) {
	case CLAIM_CERTIFIED:
		return "certified";
	case CLAIM_REFUSED:
		return "refused";
	case CLAIM_TRY_AGAIN:
		break;
	}
	return "put off";
}

/* DIR/lock is free between two of them. Who gets no answer claims again. */
static void answer(struct serve *s, const struct claims_one *c)
{
	int err = manager_resume(s->m);

	if (!err)
		err = claims_answer(s->m, &s->o->terms, c, s->session);
	manager_pause(s->m);
	if (err)
		log_error("%s", s->m->error);
	else
		log_info("event=claim id=%s result=\"%s\" what=\"%s\"", c->id, name_of(c->result),
			 c->text);
}

/* Those whose answer needs no bundle of the gateway's any more, or all. The others stay. */
static void answer_claims(struct serve *s, bool all)
{
	unsigned left = 0;

	for (unsigned i = 0; i < s->n_decided; i++) {
		const struct claims_one *c = &s->decided[i];

		if (!all && c->result == CLAIM_CERTIFIED && !c->in_force)
			s->decided[left++] = *c;
		else
			answer(s, c);
	}
	s->n_decided = left;
}

static void put_off_claims(struct serve *s)
{
	for (unsigned i = 0; i < s->n_decided; i++) {
		s->decided[i].result = CLAIM_TRY_AGAIN;
		s->decided[i].text = "the gateway did not take its key yet";
	}
	answer_claims(s, true);
}

static void take_claims(struct serve *s)
{
	if (in_transaction(s, decide_claims)) {
		s->n_decided = 0;
		s->claims_due_ms = session_now_ms(s->session) + SERVE_RETRY_MS;
		return put_off(s);
	}
	s->n_claims = 0;
	answer_claims(s, false);
	s->push_wanted |= s->n_decided > 0;
}

/* --- the end of a bundle's way ---------------------------------------------------------------- */

static void push_applied(struct serve *s)
{
	struct push_figures f;

	push_figures(s->push, &f);
	log_info("event=applied gateway=%s serial=%" PRIu64 " sent=%" PRIu64 " of=%" PRIu64,
		 s->gateway, push_serial(s->push), f.bytes_sent, f.bytes);
	if (manager_resume(s->m)) {
		put_off(s);
	} else {
		if (push_note_applied(s->m, s->push))
			put_off(s);
		manager_pause(s->m);
	}
	answer_claims(s, true);
}

static void end_push(struct serve *s)
{
	if (push_state(s->push) == PUSH_APPLIED) {
		push_applied(s);
	} else {
		log_error("gateway \"%s\" refused the bundle: %s", s->gateway, push_words(s->push));
		s->push_wanted = true;
		s->retry_ms = session_now_ms(s->session) + SERVE_RETRY_MS;
		put_off_claims(s);
	}
	push_free(s->push);
	s->push = NULL;
}

/* --- the loop --------------------------------------------------------------------------------- */

static void step(struct serve *s)
{
	uint64_t now_ms = session_now_ms(s->session);

	if (s->push && push_state(s->push) != PUSH_UNDER_WAY)
		end_push(s);
	if (now_ms < s->retry_ms)
		return;
	if (s->n_reports)
		take_reports(s);
	if (s->o->push && now_ms >= s->look_ms)
		look_for_changes(s, now_ms);
	if (s->push)
		return;
	if (s->n_claims && now_ms >= s->claims_due_ms)
		take_claims(s);
	if (s->push_wanted)
		begin_push(s);
}

/* Until when nothing is to be done that was not brought about by the broker. */
static uint64_t next_ms(const struct serve *s)
{
	uint64_t now_ms = session_now_ms(s->session);
	uint64_t at_ms = now_ms + SERVE_CHANGE_MS;

	if (s->n_claims && !s->push && s->claims_due_ms < at_ms)
		at_ms = s->claims_due_ms;
	return at_ms > s->retry_ms || !s->n_claims ? at_ms : s->retry_ms;
}

static int loop(struct serve *s)
{
	while (!session_stopped()) {
		int code = session_turn(s->session, next_ms(s));

		if (code) {
			s->m->exit_code = code;
			return manager_fail(s->m, -ECANCELED, "gateway \"%s\": %s", s->gateway,
					    session_why(s->session));
		}
		step(s);
	}
	return 0;
}

static int open_session(struct serve *s)
{
	const struct session_options so = {
		.dir = s->o->party_dir, .id = s->o->party_id, .host = s->o->host, .port = s->o->port
	};

	s->session = session_new(&so, &handler, s);
	if (!s->session)
		return manager_fail(s->m, -ENOMEM, "out of memory");
	if (bytes_equal(session_gateway(s->session), bytes_str(s->gateway)))
		return 0;
	s->m->exit_code = EX_CONFIG;
	return manager_fail(s->m, -EINVAL, "%s: its bundle is for another gateway than \"%s\"",
			    s->o->party_dir, s->gateway);
}

static int run(struct serve *s)
{
	struct gateway g;
	int err = gateway_load(s->m, s->o->terms.gateway, &g);

	if (err)
		return err;
	(void)snprintf(s->gateway, sizeof(s->gateway), "%s", g.id); /* an id, so it fits */
	s->push_wanted = s->o->push; /* what changed while nobody served */
	manager_pause(s->m);
	err = open_session(s);
	if (!err)
		err = loop(s);
	if (s->n_reports && in_transaction(s, store_reports))
		log_error("%u reports are lost: %s", s->n_reports, s->m->error);
	session_free(s->session);
	push_free(s->push);
	forget_reports(s);
	return err;
}

int serve_run(struct manager *m, const struct serve_options *o)
{
	struct serve *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return manager_fail(m, -ENOMEM, "out of memory");
	s->m = m;
	s->o = o;
	err = run(s);
	free(s);
	return err;
}
