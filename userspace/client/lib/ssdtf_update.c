// SPDX-License-Identifier: MIT
/*
 * Updates (PROTOCOL 13): what the manager stated after the bundle was made.
 *
 *   $SSDTF/update --> signature of the broker, R_b, n --> each statement:
 *        the manager's? newer? for us? room? --> memory --> statement_store() --> tables
 *
 * The caller's memory holds the statements whole, by ascending serial, and the tables' views are
 * into it. When it is full, those that nothing uses any more are taken out and the others move
 * together.
 */
#include "userspace/client/lib/ssdtf.h"

#include <string.h>

#include "userspace/client/lib/ssdtf_private.h"

#define BODY_LENGTH_AT (STATEMENT_HEAD_BYTES - 4)

/* One statement on its way into memory and tables. */
struct taking {
	struct ssdtf_client *c;
	uint64_t now_ms;
	struct bytes whole;
	struct statement s;
	union {
		struct record_scope scope;
		struct record_grant grant;
		struct record_party party;
		struct record_broker broker;
	} record;
	struct ssdtf_update what; /* views are where whole is */
	const char *why;	  /* it is not taken; NULL: it was had */
};

enum judgement {
	JUDGEMENT_TAKE,
	JUDGEMENT_SKIP, /* those behind it may be taken */
	JUDGEMENT_STOP, /* nothing behind it: it is to come again */
};

/* --- what is in the memory -------------------------------------------------------------------- */

/* The statement at the front, if a whole one is there. */
static struct bytes first_whole(struct bytes v)
{
	size_t body;

	if (v.n < STATEMENT_BYTES(0))
		return bytes_of(NULL, 0);
	body = bytes_load_u32(v.p + BODY_LENGTH_AT);
	return body > v.n - STATEMENT_BYTES(0) ? bytes_of(NULL, 0)
					       : bytes_of(v.p, STATEMENT_BYTES(body));
}

static struct bytes behind(struct bytes v, size_t n)
{
	return bytes_of(v.p + n, v.n - n);
}

/* The id that a party's record begins with. */
static struct bytes id_of_party(struct bytes body)
{
	struct bytes_reader r = bytes_reader_of(body);

	return bytes_read_u8_view(&r);
}

bool ssdtf_statement_of_party(const struct ssdtf_client *c, struct bytes id, struct bytes *ret_body)
{
	struct bytes rest = bytes_of(c->statements.p, c->statements.n), whole;
	struct statement s;
	bool found = false;

	for (; (whole = first_whole(rest)).n; rest = behind(rest, whole.n)) {
		if (statement_read(whole, &s) || s.kind != STATEMENT_PARTY ||
		    !bytes_equal(id_of_party(s.body), id))
			continue;
		*ret_body = s.body;
		found = true;
	}
	return found;
}

/* Is it superseded by one behind it? Scopes and grants are asked for in the tables instead. */
static bool is_superseded(const struct statement *s, struct bytes rest)
{
	struct statement other;
	struct bytes whole;

	for (; (whole = first_whole(rest)).n; rest = behind(rest, whole.n)) {
		if (statement_read(whole, &other) || other.kind != s->kind)
			continue;
		if (s->kind == STATEMENT_BROKER ||
		    bytes_equal(id_of_party(other.body), id_of_party(s->body)))
			return true;
	}
	return false;
}

static bool is_of_use(const struct ssdtf_client *c, struct bytes whole, struct bytes rest)
{
	struct statement s;

	if (statement_read(whole, &s) || s.serial <= c->bundle_serial)
		return false;
	if (s.kind == STATEMENT_SCOPE || s.kind == STATEMENT_GRANT)
		return ssdtf_tables_use(c, whole.p);
	return !is_superseded(&s, rest);
}

/* Takes out what is of no use; the others move to the front. Quadratic in records of parties. */
static void compact(struct ssdtf_client *c)
{
	struct bytes rest = bytes_of(c->statements.p, c->statements.n), whole;
	uint8_t *to = c->statements.p;

	while ((whole = first_whole(rest)).n) {
		rest = behind(rest, whole.n);
		if (!is_of_use(c, whole, rest))
			continue;
		if (to != whole.p) {
			ssdtf_tables_move(c, whole.p, to);
			memmove(to, whole.p, whole.n);
		}
		to += whole.n;
	}
	c->statements.n = (size_t)(to - c->statements.p);
	/* Their ids are views into statements. */
	ssdtf_signers_forget(c);
}

static bool has_room(struct ssdtf_client *c, size_t n)
{
	if (n <= c->statements.room - c->statements.n)
		return true;
	compact(c);
	while (n > c->statements.room - c->statements.n && ssdtf_grant_drop(c))
		compact(c);
	return n <= c->statements.room - c->statements.n;
}

/* --- one statement ---------------------------------------------------------------------------- */

static enum judgement skip(struct taking *t, const char *why)
{
	t->why = why;
	return JUDGEMENT_SKIP;
}

static enum judgement stop(struct taking *t, const char *why)
{
	t->why = why;
	return JUDGEMENT_STOP;
}

static enum judgement judge_scope(struct taking *t)
{
	const struct record_scope *s = &t->record.scope;

	if (record_scope_decode(t->s.body, &t->record.scope))
		return skip(t, "a malformed scope");
	if (ssdtf_scope_is_over(t->c, s))
		return skip(t, "an epoch that is over");
	if (!ssdtf_scope_fits(t->c, s, t->now_ms))
		return stop(t, "no room for another scope");
	t->what.name = s->name;
	t->what.key_id = s->key_id;
	return JUDGEMENT_TAKE;
}

static enum judgement judge_grant(struct taking *t)
{
	const struct record_grant *g = &t->record.grant;

	if (record_grant_decode(t->s.body, &t->record.grant))
		return skip(t, "a malformed grant");
	if (!bytes_equal(g->receiver, t->c->id) || g->flags & RECORD_GRANT_HOP)
		return skip(t, "another's grant");
	if (ssdtf_grant_key(t->c, g) < 0)
		return skip(t, "a grant for an encryption key that is not ours");
	if (!ssdtf_grant_fits(t->c, g, t->now_ms))
		return stop(t, "no room for another grant");
	t->what.name = g->scope;
	t->what.key_id = g->key_id;
	return JUDGEMENT_TAKE;
}

static enum judgement judge_party(struct taking *t)
{
	if (record_party_decode(t->s.body, &t->record.party))
		return skip(t, "a malformed party");
	if (!t->c->n_encryption)
		return skip(t, "a party that is of no use to who reads nothing");
	t->what.name = t->record.party.id;
	t->what.removed = !t->record.party.roles;
	return JUDGEMENT_TAKE;
}

static enum judgement judge_broker(struct taking *t)
{
	if (record_broker_decode(t->s.body, &t->record.broker))
		return skip(t, "a malformed broker's record");
	if (!bytes_equal(t->record.broker.gateway_id, t->c->bundle.broker.gateway_id))
		return skip(t, "another gateway's broker");
	t->what.name = t->record.broker.gateway_id;
	return JUDGEMENT_TAKE;
}

static int apply_scope(struct taking *t)
{
	ssdtf_scope_take(t->c, &t->record.scope, t->whole.p, t->now_ms);
	return 0;
}

static int apply_grant(struct taking *t)
{
	ssdtf_grant_take(t->c, &t->record.grant, t->whole.p, t->now_ms);
	return 0;
}

/* ssdtf_statement_of_party() finds it; what was made ready of one before is old. */
static int apply_party(struct taking *t)
{
	ssdtf_signers_forget(t->c);
	return 0;
}

static int apply_broker(struct taking *t)
{
	return ssdtf_broker_take(t->c, &t->record.broker);
}

/* The kinds that are updates. apply() is for what was judged JUDGEMENT_TAKE, and stays where it is;
 * p256.h's errors. */
static const struct {
	enum judgement (*judge)(struct taking *t);
	int (*apply)(struct taking *t);
} kinds[] = {
	[STATEMENT_SCOPE] = { judge_scope, apply_scope },
	[STATEMENT_GRANT] = { judge_grant, apply_grant },
	[STATEMENT_PARTY] = { judge_party, apply_party },
	[STATEMENT_BROKER] = { judge_broker, apply_broker },
};

/* t->s is the manager's. */
static enum judgement judge(struct taking *t)
{
	if (t->s.kind >= ARRAY_SIZE(kinds) || !kinds[t->s.kind].judge)
		return skip(t, "a statement that is no update");
	if (t->s.serial <= t->c->serial)
		return skip(t, NULL);
	if (t->now_ms && t->s.not_after_ms && t->s.not_after_ms <= t->now_ms)
		return skip(t, "a statement that has run out");
	if (!record_valid_at(t->s.not_before_ms, 0, t->now_ms))
		return stop(t, "a statement that is not valid yet");
	t->what.kind = t->s.kind;
	t->what.serial = t->s.serial;
	return kinds[t->s.kind].judge(t);
}

static int apply(struct taking *t)
{
	int ret = kinds[t->s.kind].apply(t);

	if (!ret)
		t->c->serial = t->s.serial;
	return ret;
}

/* --- those that were kept --------------------------------------------------------------------- */

int ssdtf_statements_check(struct ssdtf_client *c)
{
	struct bytes rest = bytes_of(c->statements.p, c->statements.n), whole;
	struct statement s;
	int ret;

	for (; rest.n; rest = behind(rest, whole.n)) {
		whole = first_whole(rest);
		if (!whole.n || statement_read(whole, &s))
			return -EILSEQ;
		ret = statement_open(whole, s.kind, c->manager, &s);
		if (ret)
			return ssdtf_is_peers_fault(ret) ? -EILSEQ : ret;
	}
	return 0;
}

void ssdtf_statements_take(struct ssdtf_client *c, uint64_t now_ms)
{
	struct bytes rest = bytes_of(c->statements.p, c->statements.n), whole;

	for (; (whole = first_whole(rest)).n; rest = behind(rest, whole.n)) {
		struct taking t = { .c = c, .now_ms = now_ms, .whole = whole };
		enum judgement j = statement_read(whole, &t.s) ? JUDGEMENT_STOP : judge(&t);

		if (j == JUDGEMENT_TAKE && apply(&t))
			j = JUDGEMENT_STOP;
		if (j == JUDGEMENT_STOP) {
			/* The broker has it still, and those behind it. */
			c->statements.n = (size_t)(whole.p - c->statements.p);
			break;
		}
	}
	compact(c);
}

/* --- those that come -------------------------------------------------------------------------- */

/* Copies it behind the others; then all views are into the copy. */
static int remember(struct taking *t)
{
	struct ssdtf_client *c = t->c;
	uint8_t *to = c->statements.p + c->statements.n;

	memcpy(to, t->whole.p, t->whole.n);
	t->whole = bytes_of(to, t->whole.n);
	if (statement_read(t->whole, &t->s) || judge(t) != JUDGEMENT_TAKE)
		return -EINVAL; /* which it was a moment ago */
	c->statements.n += t->whole.n;
	return 0;
}

/* *ret_j is what became of it; where an error is returned, it was not taken. */
static int take_one(struct taking *t, enum judgement *ret_j)
{
	struct ssdtf_client *c = t->c;
	struct ssdtf_update what;
	int ret = statement_read(t->whole, &t->s);

	if (!ret)
		ret = statement_open(t->whole, t->s.kind, c->manager, &t->s);
	if (ssdtf_is_peers_fault(ret)) {
		*ret_j = skip(t, "a statement that the manager did not sign");
		return 0;
	}
	if (ret)
		return ret;
	*ret_j = judge(t);
	if (*ret_j != JUDGEMENT_TAKE)
		return 0;
	if (!has_room(c, t->whole.n)) {
		*ret_j = stop(t, "no memory for another statement");
		return 0;
	}
	what = t->what;
	ret = remember(t);
	if (ret)
		return ret;
	if (c->ops->statement_store)
		ret = c->ops->statement_store(c->ctx, t->whole, &t->what);
	if (!ret)
		ret = apply(t);
	if (ret)
		c->statements.n -= t->whole.n;
	t->what = what; /* as it came: what is in memory may move */
	return ret;
}

static int take_all(struct ssdtf_client *c, struct bytes_reader r, unsigned n,
		    struct ssdtf_time now, struct ssdtf_event *e)
{
	enum judgement j = JUDGEMENT_TAKE;

	for (unsigned i = 0; i < n && j != JUDGEMENT_STOP; i++) {
		struct taking t = { .c = c, .now_ms = now.unix_ms };
		int ret;

		t.whole = bytes_read_u32_view(&r);
		ret = take_one(&t, &j);
		if (ret)
			return ret;
		if (j == JUDGEMENT_TAKE) {
			c->stats.updates++;
			e->updates++;
			e->update = t.what;
		} else if (!e->why) {
			e->why = t.why;
		}
	}
	return 0;
}

/* body := u16 k || k * u32+ statement || R_b || u32 n */
int ssdtf_take_update(struct ssdtf_client *c, const struct ssdtf_packet *p, struct ssdtf_time now,
		      struct ssdtf_event *ret_event)
{
	struct bytes_reader r, statements;
	const char *wrong = NULL;
	struct ssdtf_event e;
	struct bytes body;
	unsigned n;
	int ret = ssdtf_verify_control(c, p, &body);

	ssdtf_event_init(&e, SSDTF_UPDATED, NULL);
	if (ret && !ssdtf_is_peers_fault(ret))
		return ret;
	if (!ret) {
		r = bytes_reader_of(body);
		n = bytes_read_u16(&r);
		statements = r;
		for (unsigned i = 0; i < n && !r.bad; i++)
			(void)bytes_read_u32_view(&r); /* what is cut makes the tail malformed */
		wrong = ssdtf_check_tail(&c->session, SSDTF_COUNTED_UPDATE, &r);
		if (!wrong && !c->statements.room)
			wrong = "an update, for which there is no memory";
		if (!wrong)
			ret = take_all(c, statements, n, now, &e);
	} else {
		wrong = "an update whose signature does not hold";
		ret = 0;
	}
	if (ret)
		return ret;
	if (wrong)
		ssdtf_event_init(&e, SSDTF_IGNORED, wrong);
	*ret_event = e;
	return 0;
}

int ssdtf_ask_updates(struct ssdtf_client *c)
{
	uint8_t body[SSDTF_NOTICE_BODY_MAX];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	if (!c->statements.room)
		return -ENOTSUP;
	if (!ssdtf_is_open(c))
		return -ENOTCONN;
	bytes_write_u64(&w, c->serial);
	return ssdtf_send_counted(c, SSDTF_TOPIC_UPDATE, &w, body);
}
