// SPDX-License-Identifier: MIT
#include "userspace/distributor/judge.h"

#include <errno.h>
#include <string.h>

#include "userspace/crypto/publish.h"
#include "userspace/distributor/rename.h"

#define FIRST_RETAIN 0x01

/* PROTOCOL 7 */
enum reason {
	REASON_BAD_SIGNATURE = 1,
	REASON_MALFORMED = 2,
	REASON_KEY_ID = 4,
	REASON_NOT_PERMITTED = 5,
};

static const struct {
	const char *words;
	enum reason reason;
} verdicts[JUDGE_VERDICTS] = {
	[JUDGE_OK] = { "passed on", 0 },
	[JUDGE_NOT_BROKERS] = { "the broker's signature does not hold", REASON_BAD_SIGNATURE },
	[JUDGE_TROUBLE] = { "no memory to verify it", 0 },
	[JUDGE_MALFORMED] = { "it is no converted message", REASON_MALFORMED },
	[JUDGE_NO_HOP] = { "no hop of this distributor leads here", REASON_KEY_ID },
	[JUDGE_NOT_NOW] = { "its hop is not valid now", REASON_KEY_ID },
	[JUDGE_NOT_COVERED] = { "its hop does not cover this topic", REASON_NOT_PERMITTED },
	[JUDGE_BOUND_ELSEWHERE] = { "it is bound to another id or topic", REASON_MALFORMED },
	[JUDGE_NAMES_SENDER] = { "its topic names the sender as a part of a level",
				 REASON_NOT_PERMITTED },
	[JUDGE_NO_PROOF] = { "its origin proof is missing", REASON_BAD_SIGNATURE },
	[JUDGE_NO_KEY] = { "no key is certified for its origin", REASON_BAD_SIGNATURE },
	[JUDGE_BAD_PROOF] = { "its origin proof does not hold", REASON_BAD_SIGNATURE },
	[JUDGE_RETAINED] = { "retained against its sender's wish", REASON_MALFORMED },
	[JUDGE_TOO_FAR] = { "it was converted as often as may be", REASON_MALFORMED },
};

const char *judge_words(enum judge_verdict v)
{
	return verdicts[v].words;
}

uint8_t judge_reason(enum judge_verdict v)
{
	return (uint8_t)verdicts[v].reason;
}

void judge_init(struct judge *j)
{
	memset(j, 0, sizeof(*j));
}

void judge_forget(struct judge *j)
{
	memset(j->roots, 0, sizeof(j->roots));
}

/* --- signatures ------------------------------------------------------------------------------- */

static bool peers_fault(int err)
{
	return err == -EBADMSG || err == -EINVAL;
}

static bool root_known(const struct judge *j, const uint8_t name[HASH_BYTES])
{
	for (unsigned i = 0; i < JUDGE_ROOTS_MAX; i++)
		if (!memcmp(j->roots[i], name, HASH_BYTES))
			return true;
	return false;
}

static void root_keep(struct judge *j, const uint8_t name[HASH_BYTES])
{
	memcpy(j->roots[j->next], name, HASH_BYTES);
	j->next = (j->next + 1) % JUDGE_ROOTS_MAX;
}

/*
 * Does t hold for p under this key? Whose key it is belongs to what is remembered of a batch: the
 * key stands in memory as long as its plan, and with the plan all is forgotten.
 */
static int verify(struct judge *j, const struct publish *p, const struct publish_trailer *t,
		  const struct p256_public *key)
{
	uint8_t hash[HASH_BYTES], name[HASH_BYTES];
	struct bytes parts[3] = { bytes_of(hash, sizeof(hash)), t->sig,
				  bytes_of(&key, sizeof(key)) };
	int err;

	if (t->kind == 1) {
		publish_digest(p, hash);
		j->stats.verifications++;
		return p256_verify_digest(key, hash, t->sig.p);
	}
	publish_root(p, t, hash);
	hash_parts(parts, ARRAY_SIZE(parts), name);
	if (root_known(j, name)) {
		j->stats.roots_reused++;
		return 0;
	}
	publish_root_digest(hash, hash);
	j->stats.verifications++;
	err = p256_verify_digest(key, hash, t->sig.p);
	if (!err)
		root_keep(j, name);
	return err;
}

static struct publish publish_of(const struct mqtt_publish *p, struct bytes body,
				 struct bytes client_id)
{
	return (struct publish){
		.first = mqtt_publish_first(p->qos, p->retain, false),
		.topic = p->topic,
		.body = { body },
		.body_parts = 1,
		.client_id = client_id,
	};
}

/* By either of a broker's keys: clocks differ, and the one that is not in force harms nobody. */
static int verify_broker(struct judge *j, const struct plan_signer *s, const struct publish *p,
			 const struct publish_trailer *t, bool *ret_by_next)
{
	int err = verify(j, p, t, s->key);

	*ret_by_next = false;
	if (peers_fault(err) && s->previous) {
		*ret_by_next = true;
		err = verify(j, p, t, s->previous);
	}
	return err;
}

int judge_control(struct judge *j, const struct plan_signer *which, struct bytes client_id,
		  const struct mqtt_publish *p, struct bytes *ret_body, bool *ret_by_next)
{
	struct publish_trailer t;
	struct publish signed_as;
	bool by_next;
	int err = publish_split(p->payload, &t);

	if (err || t.kind != 1)
		return -EBADMSG;
	signed_as = publish_of(p, t.body, client_id);
	err = verify_broker(j, which, &signed_as, &t, &by_next);
	if (err)
		return err;
	*ret_body = t.body;
	*ret_by_next = by_next;
	return 0;
}

static enum judge_verdict check_signature(struct judge *j, struct plan *plan,
					  const struct mqtt_publish *p, struct judged *d)
{
	struct publish_trailer t;
	struct publish signed_as;
	bool parsed, by_next;
	int err;

	if (publish_split(p->payload, &t))
		return JUDGE_NOT_BROKERS;
	parsed = !envelope_parse(t.body, &d->e);
	/* PROTOCOL 4: a batch trailer stands only on bodies that parse. */
	if (t.kind != 1 && !parsed)
		return JUDGE_NOT_BROKERS;
	signed_as = publish_of(p, t.body, plan->bundle.id);
	err = verify_broker(j, &plan->from, &signed_as, &t, &by_next);
	if (err)
		return peers_fault(err) ? JUDGE_NOT_BROKERS : JUDGE_TROUBLE;
	return parsed && d->e.level > 0 ? JUDGE_OK : JUDGE_MALFORMED;
}

/* --- what it says ----------------------------------------------------------------------------- */

static bool covered(const struct record_grant *g, struct bytes topic)
{
	for (unsigned i = 0; i < g->n_filters; i++)
		if (record_filter_matches(g->filters[i], topic))
			return true;
	return false;
}

static enum judge_verdict check_hop(struct plan *plan, const struct mqtt_publish *p,
				    uint64_t unix_ms, struct judged *d)
{
	const struct plan_hop *h = plan_hop(plan, d->e.grant);
	bool replaced = bytes_is_zero(d->e.salt);

	if (!h || h->grant.key_id != d->e.key_id)
		return JUDGE_NO_HOP;
	if (!record_valid_at(h->grant.not_before_ms, h->grant.not_after_ms, unix_ms))
		return JUDGE_NOT_NOW;
	if (!covered(&h->grant, p->topic))
		return JUDGE_NOT_COVERED;
	if (d->e.level >= ENVELOPE_LEVEL_MAX)
		return JUDGE_TOO_FAR;
	/* Another distributor before us has replaced the id: only where the hop says so. */
	if (replaced ? !(h->grant.flags & RECORD_GRANT_IDS_REPLACED)
		     : !envelope_bind_fits(&d->e, d->e.origin, p->topic))
		return JUDGE_BOUND_ELSEWHERE;
	if (rename_betrays(p->topic, d->e.origin))
		return JUDGE_NAMES_SENDER;
	d->hop = h;
	return JUDGE_OK;
}

static int verify_origin(struct judge *j, const struct plan_signer *s, const struct publish *p,
			 const struct publish_trailer *t, uint64_t unix_ms)
{
	int err = verify(j, p, t, s->key);

	if (peers_fault(err) && s->previous && record_valid_at(0, s->change_ms, unix_ms))
		err = verify(j, p, t, s->previous);
	return err;
}

/* RETAIN is what the sender signed. Where there is no proof (the id was replaced before, or the hop
 * does without) the delivery's own stands. */
static enum judge_verdict check_proof(struct judge *j, struct plan *plan,
				      const struct mqtt_publish *p, uint64_t unix_ms,
				      struct judged *d)
{
	const struct plan_signer *origin;
	struct publish_trailer t;
	struct publish signed_as;
	int err;

	if (bytes_is_zero(d->e.salt)) {
		d->retain = p->retain;
		return d->e.proof.n ? JUDGE_MALFORMED : JUDGE_OK;
	}
	err = publish_take_proof(&d->e, p->topic, &signed_as, &t);
	if (err == -ENOENT && !(d->hop->grant.flags & RECORD_GRANT_PROOF)) {
		d->retain = p->retain;
		return JUDGE_OK;
	}
	if (err)
		return err == -ENOENT ? JUDGE_NO_PROOF : JUDGE_BAD_PROOF;
	err = plan_origin(plan, d->e.origin, &origin);
	if (err == -ENOENT)
		return JUDGE_NO_KEY;
	if (!err)
		err = verify_origin(j, origin, &signed_as, &t, unix_ms);
	if (err)
		return peers_fault(err) ? JUDGE_BAD_PROOF : JUDGE_TROUBLE;
	d->retain = signed_as.first & FIRST_RETAIN;
	return p->retain && !d->retain ? JUDGE_RETAINED : JUDGE_OK;
}

enum judge_verdict judge_delivery(struct judge *j, struct plan *plan, const struct mqtt_publish *p,
				  uint64_t unix_ms, struct judged *ret_judged)
{
	struct judged d = { 0 };
	enum judge_verdict v = check_signature(j, plan, p, &d);

	if (v == JUDGE_OK)
		v = check_hop(plan, p, unix_ms, &d);
	if (v == JUDGE_OK)
		v = check_proof(j, plan, p, unix_ms, &d);
	j->stats.by_verdict[v]++;
	*ret_judged = d;
	return v;
}
