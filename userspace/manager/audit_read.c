// SPDX-License-Identifier: MIT
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "userspace/manager/audit_impl.h"
#include "userspace/manager/say.h"

/* --- one entry ----------------------------------------------------------------------------- */

void audit_read_row(struct registry_query *q, struct audit_entry *e)
{
	*e = (struct audit_entry){
		.number = registry_int(q, 0),
		.at_ms = (uint64_t)registry_int(q, 1),
		.uid = registry_int(q, 2),
		.login = registry_blob(q, 3),
		.action = registry_blob(q, 4),
		.subject = registry_blob(q, 5),
		.asked_ms = (uint64_t)registry_int(q, 6),
		.reason = registry_blob(q, 7),
		.source = registry_blob(q, 8),
		.result = registry_int(q, 9),
		.outcome = registry_blob(q, 10),
		.previous = registry_blob(q, 11),
		.hash = registry_blob(q, 12),
		.signed_ = !registry_is_null(q, 13),
		.checkpoint = registry_blob(q, 13),
	};
}

/* Anything else has no encoding, or the encoding of another entry. */
static bool has_form(const struct audit_entry *e)
{
	return e->uid >= 0 && e->uid <= UINT32_MAX && e->result >= 0 && e->result <= UINT8_MAX &&
	       e->login.n <= AUDIT_LOGIN_BYTES_MAX && e->action.n <= AUDIT_ACTION_BYTES_MAX &&
	       e->subject.n <= AUDIT_SUBJECT_BYTES_MAX && e->reason.n <= AUDIT_REASON_BYTES_MAX &&
	       e->source.n <= AUDIT_SOURCE_BYTES_MAX && e->outcome.n <= AUDIT_OUTCOME_BYTES_MAX &&
	       e->previous.n == HASH_BYTES && e->hash.n == HASH_BYTES &&
	       e->checkpoint.n == (e->signed_ ? P256_SIG_BYTES : 0);
}

/* --- the walk ------------------------------------------------------------------------------ */

struct walker {
	struct manager *m;
	const struct p256_public *key;
	const struct audit_head *head; /* or NULL */
	int64_t expected;	       /* the next number */
	bool knows_previous;
	uint8_t previous[HASH_BYTES];
	struct audit_walk w;
};

static int bad(struct walker *k, int64_t number, const char *what)
{
	return manager_fail(k->m, -EBADMSG, "%s/audit.db: entry %" PRId64 " %s", k->m->config.dir,
			    number, what);
}

static int check_checkpoint(struct walker *k, const struct audit_entry *e)
{
	uint8_t digest[P256_DIGEST_BYTES];
	int err;

	audit_checkpoint_digest(e->number, e->hash.p, digest);
	err = p256_verify_digest(k->key, digest, e->checkpoint.p);
	if (err == -EBADMSG)
		return bad(k, e->number, "has a checkpoint that this manager did not sign");
	return err ? manager_fail(k->m, err, "cannot check a signature: %s", strerror(-err)) : 0;
}

static int check_head(struct walker *k, const struct audit_entry *e)
{
	uint64_t at;

	if (!k->head)
		return 0;
	at = k->head->number;
	if ((uint64_t)e->number == at &&
	    !bytes_equal(e->hash, bytes_of(k->head->hash, sizeof(k->head->hash))))
		return bad(k, e->number, "is not the one whose hash the token keeps");
	if (!e->signed_ || (uint64_t)e->number <= at)
		return 0;
	/* One, where a crash came before the head was moved. */
	if (++k->w.n_ahead > 1)
		return bad(k, e->number, "is signed, but the token's head is not near it");
	return 0;
}

static int check_entry(struct walker *k, const struct audit_entry *e)
{
	uint8_t hash[HASH_BYTES];
	int err;

	if (e->number > k->expected)
		return bad(k, k->expected, "is missing");
	if (e->number < k->expected)
		return bad(k, e->number, "has no place in the log");
	if (!has_form(e))
		return bad(k, e->number, "was changed: it has not the form of an entry");
	audit_hash(e, hash);
	if (!bytes_equal(e->hash, bytes_of(hash, sizeof(hash))))
		return bad(k, e->number, "was changed: its hash is another");
	if (k->knows_previous &&
	    !bytes_equal(e->previous, bytes_of(k->previous, sizeof(k->previous))))
		return bad(k, e->number, "does not follow the entry before it");
	err = e->signed_ ? check_checkpoint(k, e) : 0;
	return err ? err : check_head(k, e);
}

static void count_entry(struct walker *k, const struct audit_entry *e)
{
	memcpy(k->previous, e->hash.p, sizeof(k->previous));
	k->knows_previous = true;
	k->expected++;
	k->w.n++;
	k->w.n_uncovered++;
	if (!e->signed_)
		return;
	k->w.n_signed++;
	k->w.n_uncovered = 0;
	k->w.last_signed = (uint64_t)e->number;
	memcpy(k->w.last_signed_hash, e->hash.p, sizeof(k->w.last_signed_hash));
}

static int walk(struct walker *k)
{
	struct registry_query q =
		registry_query(&k->m->registry,
			       "SELECT " AUDIT_COLUMNS
			       " FROM audit.entry WHERE number >= ? ORDER BY number");
	struct audit_entry e;
	int err = 0, end;

	/* From the first on: also those that somebody put in front of it. */
	registry_bind_int(&q, k->expected == 1 ? INT64_MIN : k->expected);
	while (!err && registry_step(&q)) {
		audit_read_row(&q, &e);
		err = check_entry(k, &e);
		if (!err)
			count_entry(k, &e);
	}
	end = registry_end(&q);
	if (!err)
		err = audit_fail(k->m, end);
	if (!err && k->head && (uint64_t)k->expected <= k->head->number)
		err = bad(k, k->expected, "is missing: the log was cut at its end");
	return err;
}

int audit_walk(struct manager *m, uint64_t from, const struct audit_head *head,
	       struct audit_walk *ret_w)
{
	struct walker k = {
		.m = m, .head = head, .expected = (int64_t)from, .knows_previous = from == 1
	}; /* zeros, in front of the first */
	struct p256_public *key;
	int err = p256_public_new(&m->key, &key);

	if (err)
		return manager_fail(m, err, "cannot check a signature: %s", strerror(-err));
	k.key = key;
	err = walk(&k);
	p256_public_free(key);
	if (!err)
		*ret_w = k.w;
	return err;
}

/* --- the commands -------------------------------------------------------------------------- */

static int verify_without_token(struct manager *m, int token_err)
{
	char words[sizeof(m->error)];
	struct audit_walk w;
	int err;

	memcpy(words, m->error, sizeof(words));
	err = audit_walk(m, 1, NULL, &w);
	if (err)
		return err;
	return manager_fail(m, token_err,
			    "%s/audit.db: %" PRIu64 " entries hold, but whether some were cut from "
			    "the end only the token can say: %.200s",
			    m->config.dir, w.n, words);
}

int audit_verify(struct manager *m)
{
	struct audit_head head;
	struct audit_walk w;
	int err = audit_open(m);

	if (err)
		return err;
	err = manager_token(m);
	if (!err)
		err = audit_get_head(m, &head);
	if (err)
		return verify_without_token(m, err);
	err = audit_walk(m, 1, &head, &w);
	if (err)
		return err;
	(void)fprintf(m->out,
		      "whole entries=%" PRIu64 " signed=%" PRIu64 " uncovered=%" PRIu64
		      " head=%" PRIu64 "\n",
		      w.n, w.n_signed, w.n_uncovered, head.number);
	return 0;
}

static const char *result_of(const struct audit_entry *e)
{
	return e->result == AUDIT_DONE ? "done" : "failed";
}

static void list_plain(FILE *f, const struct audit_entry *e)
{
	char at[SAY_TIME_ROOM], asked[SAY_TIME_ROOM];

	(void)fprintf(f, "%" PRId64 " %s uid=%" PRId64 " login=", e->number,
		      say_time((int64_t)e->at_ms, at), e->uid);
	say_quoted(f, e->login);
	(void)fprintf(f, " action=");
	say_quoted(f, e->action);
	(void)fprintf(f, " subject=");
	say_quoted(f, e->subject);
	(void)fprintf(f, " asked=%s reason=", say_time((int64_t)e->asked_ms, asked));
	say_quoted(f, e->reason);
	(void)fprintf(f, " source=");
	say_quoted(f, e->source);
	(void)fprintf(f, " result=%s outcome=", result_of(e));
	say_quoted(f, e->outcome);
	(void)fprintf(f, " signed=%s\n", e->signed_ ? "yes" : "no");
}

static void list_hex(FILE *f, const char *name, struct bytes v)
{
	(void)fprintf(f, ", \"%s\": \"", name);
	for (size_t i = 0; i < v.n; i++)
		(void)fprintf(f, "%02x", v.p[i]);
	(void)fprintf(f, "\"");
}

/* Everything that is hashed, so that others can verify it too. */
static void list_json(FILE *f, const struct audit_entry *e)
{
	const struct {
		const char *name;
		struct bytes v;
	} texts[] = { { "login", e->login },   { "action", e->action }, { "subject", e->subject },
		      { "reason", e->reason }, { "source", e->source }, { "outcome", e->outcome } };

	(void)fprintf(f,
		      "{\"number\": %" PRId64 ", \"time_ms\": %" PRIu64 ", \"uid\": %" PRId64
		      ", \"asked_ms\": %" PRIu64 ", \"result\": \"%s\", \"signed\": %s",
		      e->number, e->at_ms, e->uid, e->asked_ms, result_of(e),
		      e->signed_ ? "true" : "false");
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		(void)fprintf(f, ", \"%s\": ", texts[i].name);
		say_json(f, texts[i].v);
	}
	list_hex(f, "previous", e->previous);
	list_hex(f, "hash", e->hash);
	if (e->signed_)
		list_hex(f, "checkpoint", e->checkpoint);
	(void)fprintf(f, "}");
}

int audit_list(struct manager *m, bool json)
{
	struct registry_query q;
	struct audit_entry e;
	unsigned n = 0;
	int err = audit_open(m);

	if (err)
		return err;
	q = registry_query(&m->registry,
			   "SELECT " AUDIT_COLUMNS " FROM audit.entry ORDER BY number");
	if (json)
		(void)fprintf(m->out, "[");
	while (registry_step(&q)) {
		audit_read_row(&q, &e);
		if (json) {
			(void)fprintf(m->out, "%s\n", n++ ? "," : "");
			list_json(m->out, &e);
		} else {
			list_plain(m->out, &e);
		}
	}
	if (json)
		(void)fprintf(m->out, "%s]\n", n ? "\n" : "");
	return audit_fail(m, registry_end(&q));
}
