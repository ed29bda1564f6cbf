// SPDX-License-Identifier: MIT
/*
 * Receiving: a delivery passes one check after another and is opened last. What a check finds wrong
 * is a reason of PROTOCOL 7; nothing of such a message is used.
 */
#include "userspace/client/lib/ssdtf.h"

#include <string.h>

#include "userspace/client/lib/ssdtf_private.h"

#define FIRST_RETAIN 0x01

/* One delivery on its way through the checks. */
struct opening {
	struct ssdtf_client *c;
	const struct ssdtf_packet *packet;
	struct ssdtf_time now;
	struct publish_trailer trailer;
	bool parsed;
	struct envelope e; /* where parsed */
	struct ssdtf_grant *grant;
	bool seen; /* refused as a replay, not for a reason */
	enum ssdtf_proof proof;
	uint8_t proven_first;
	struct bytes plain;	  /* where it was opened */
	enum ssdtf_reason reason; /* where it was refused */
	const char *why;
};

/* Ends the checks: always -EBADMSG. */
static int refuse(struct opening *o, enum ssdtf_reason reason, const char *why)
{
	o->reason = reason;
	o->why = why;
	return -EBADMSG;
}

/* --- the broker's signature ------------------------------------------------------------------- */

static int check_signature(struct opening *o)
{
	struct publish p = {
		.first = ssdtf_first(o->packet->qos, o->packet->retain),
		.topic = o->packet->topic,
		.body_parts = 1,
		.client_id = o->c->id,
	};
	int ret;

	if (publish_split(o->packet->payload, &o->trailer))
		return refuse(o, SSDTF_REASON_BAD_SIGNATURE, "it carries no signature");
	o->parsed = !envelope_parse(o->trailer.body, &o->e);
	p.body[0] = o->trailer.body;
	/* PROTOCOL 4: a batch trailer stands only on bodies that parse. */
	if (o->trailer.kind != 1 && !o->parsed)
		ret = -EBADMSG;
	else
		ret = ssdtf_verify(o->c, &p, &o->trailer, SSDTF_SIGNER_BROKER, o->now.unix_ms);
	if (ssdtf_is_peers_fault(ret))
		return refuse(o, SSDTF_REASON_BAD_SIGNATURE,
			      "the broker's signature does not hold");
	if (ret)
		return ret;
	if (!o->parsed)
		return refuse(o, SSDTF_REASON_MALFORMED, "it is no sealed message");
	return 0;
}

/* --- grant, bind, replay, proof --------------------------------------------------------------- */

static struct ssdtf_grant *grant_of(struct ssdtf_client *c, const struct envelope *e)
{
	for (unsigned i = 0; i < c->n_grants; i++) {
		struct ssdtf_grant *g = &c->grants[i];

		if (g->key_id == e->key_id &&
		    bytes_equal(e->grant, bytes_of(g->grant_id, GRANT_ID_BYTES)))
			return g;
	}
	return NULL;
}

static int check_grant(struct opening *o)
{
	const struct envelope *e = &o->e;
	struct ssdtf_grant *g;

	/* PROTOCOL 2: a receiver refuses level 0. */
	if (e->level == 0)
		return refuse(o, SSDTF_REASON_MALFORMED, "it was not converted");
	g = grant_of(o->c, e);
	if (!g)
		return refuse(o, SSDTF_REASON_KEY_ID, "no grant of ours reads this key id");
	if (!record_valid_at(g->not_before_ms, g->not_after_ms, o->now.unix_ms))
		return refuse(o, SSDTF_REASON_KEY_ID, "the grant is not valid now");
	if (!ssdtf_filters_match(g->filters, o->packet->topic))
		return refuse(o, SSDTF_REASON_NOT_PERMITTED, "the grant does not cover this topic");
	/* The zero salt of a replaced id fits no bind; only a grant that says so lets it pass. */
	if (bytes_is_zero(e->salt)) {
		if (!(g->flags & RECORD_GRANT_IDS_REPLACED))
			return refuse(o, SSDTF_REASON_MALFORMED, "its id was replaced");
	} else if (!envelope_bind_fits(e, e->origin, o->packet->topic)) {
		return refuse(o, SSDTF_REASON_MALFORMED, "it is bound to another id or topic");
	}
	o->grant = g;
	return 0;
}

static struct ssdtf_origin *origin_find(struct ssdtf_client *c, struct bytes id)
{
	for (unsigned i = 0; i < c->n_origins; i++) {
		struct ssdtf_origin *o = &c->origins[i];

		if (o->id_n && bytes_equal(bytes_of(o->id, o->id_n), id))
			return o;
	}
	return NULL;
}

static int check_replay(struct opening *o)
{
	const struct ssdtf_origin *origin;

	if (o->packet->retain)
		return 0;
	origin = origin_find(o->c, o->e.origin);
	if (!origin)
		return 0;
	switch (replay_check(&origin->window, o->e.counter)) {
	case REPLAY_NEW:
		return 0;
	case REPLAY_SEEN:
		o->seen = true;
		return refuse(o, SSDTF_REASON_REPLAYED, "this message was here before");
	case REPLAY_BELOW:
		o->seen = true;
		return refuse(o, SSDTF_REASON_REPLAYED, "older than what is remembered");
	}
	return -EINVAL;
}

static int check_proof(struct opening *o)
{
	bool required = o->grant->flags & RECORD_GRANT_PROOF;
	struct publish_trailer t;
	struct publish p;
	int ret;

	o->proof = SSDTF_PROOF_ABSENT;
	/* PROTOCOL 4: downstream of a replacement the proof is empty, for it would name the id. */
	if (bytes_is_zero(o->e.salt)) {
		if (o->e.proof.n)
			return refuse(o, SSDTF_REASON_MALFORMED, "a proof with a replaced id");
		if (required)
			return refuse(o, SSDTF_REASON_BAD_SIGNATURE, "its origin proof is missing");
		return 0;
	}
	if (!o->e.proof.n) {
		if (required)
			return refuse(o, SSDTF_REASON_BAD_SIGNATURE, "its origin proof is missing");
		return 0;
	}
	ret = publish_take_proof(&o->e, o->packet->topic, &p, &t);
	if (!ret)
		ret = ssdtf_verify(o->c, &p, &t, o->e.origin, o->now.unix_ms);
	if (ret == -ENOENT) {
		if (required)
			return refuse(o, SSDTF_REASON_BAD_SIGNATURE,
				      "no key is certified for its origin");
		o->proof = SSDTF_PROOF_UNCHECKED;
		return 0;
	}
	if (ssdtf_is_peers_fault(ret))
		return refuse(o, SSDTF_REASON_BAD_SIGNATURE, "its origin proof does not hold");
	if (ret)
		return ret;
	o->proven_first = p.first;
	/* RETAIN exempts from the replay window: only where the sender asked for it. */
	if (o->packet->retain && !(o->proven_first & FIRST_RETAIN))
		return refuse(o, SSDTF_REASON_MALFORMED, "retained against its sender's wish");
	o->proof = SSDTF_PROOF_VERIFIED;
	return 0;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* d is computed once per grant, in the place of the X that it is computed from. */
static int grant_ready(const struct ssdtf_client *c, struct ssdtf_grant *g)
{
	struct grant_terms terms = {
		.key_id = g->key_id,
		.b = c->encryption[g->key].point,
	};
	struct secret32 d SECRET = { { 0 } };
	int ret;

	if (g->ready)
		return 0;
	terms.x = g->u.x;
	memcpy(terms.grant_id, g->grant_id, GRANT_ID_BYTES);
	ret = grant_secret_receiver(&terms, &c->encryption[g->key].scalar, &d);
	if (ret)
		return ret;
	g->u.d = d;
	g->ready = true;
	return 0;
}

/* The context of a message, from its converted capsule. */
static int context_compute(struct opening *o, struct envelope_receiver *ret_receiver)
{
	struct secret32 dh SECRET = { { 0 } };
	int ret = grant_ready(o->c, o->grant);

	if (ret)
		return ret;
	o->c->stats.exchanges++;
	ret = grant_dh(&o->grant->u.d, o->e.x.p, &dh);
	if (ssdtf_is_peers_fault(ret))
		return refuse(o, SSDTF_REASON_CANNOT_OPEN, "its converted capsule is no point");
	if (ret)
		return ret;
	ret = envelope_receiver_init(ret_receiver, &o->e, &dh, &o->grant->a);
	if (ssdtf_is_peers_fault(ret))
		return refuse(o, SSDTF_REASON_CANNOT_OPEN, "its enc is no point");
	return ret;
}

static int open_sealed(struct opening *o, uint8_t *plain)
{
	uint32_t grant = (uint32_t)(o->grant - o->c->grants);
	const struct envelope_receiver *known = ssdtf_context_find(o->c, grant, &o->e);
	struct envelope_receiver fresh;
	int ret;

	if (known) {
		o->c->stats.contexts_reused++;
		ret = envelope_receiver_open(known, &o->e, plain);
	} else {
		ret = context_compute(o, &fresh);
		if (ret)
			return ret;
		ret = envelope_receiver_open(&fresh, &o->e, plain);
		/* What opened nothing takes nobody's place. */
		if (!ret)
			ssdtf_context_keep(o->c, grant, &o->e, &fresh);
		envelope_receiver_deinit(&fresh);
	}
	if (ssdtf_is_peers_fault(ret))
		return refuse(o, SSDTF_REASON_CANNOT_OPEN, "it does not open");
	if (ret)
		return ret;
	o->plain = bytes_of(plain, o->e.ct.n - HPKE_TAG_BYTES);
	if (o->grant->flags & RECORD_GRANT_PADDED && ssdtf_unpad(&o->plain))
		return refuse(o, SSDTF_REASON_MALFORMED, "it is not padded as its scope is");
	return 0;
}

/* --- what is kept and told -------------------------------------------------------------------- */

static void remember_origin(struct opening *o)
{
	struct ssdtf_client *c = o->c;
	struct ssdtf_origin *origin = origin_find(c, o->e.origin);

	if (o->packet->retain)
		return;
	if (!origin) {
		origin = &c->origins[0];
		for (unsigned i = 1; i < c->n_origins && origin->id_n; i++)
			if (!c->origins[i].id_n || c->origins[i].used < origin->used)
				origin = &c->origins[i];
		if (origin->id_n)
			c->stats.origins_forgotten++;
		memset(origin, 0, sizeof(*origin));
		origin->id_n = (uint8_t)o->e.origin.n;
		memcpy(origin->id, o->e.origin.p, o->e.origin.n);
	}
	replay_accept(&origin->window, o->e.counter);
	origin->used = ++c->tick;
}

/* True where the same message failed before; else it is remembered. */
static bool failed_before(struct ssdtf_client *c, const struct envelope *e)
{
	struct ssdtf_failed f = { .counter = e->counter };
	uint8_t hash[HASH_BYTES];

	hash_one(e->origin, hash);
	memcpy(f.origin_hash, hash, sizeof(f.origin_hash));
	for (unsigned i = 0; i < c->failed_used; i++)
		if (c->failed[i].counter == f.counter &&
		    !memcmp(c->failed[i].origin_hash, f.origin_hash, sizeof(f.origin_hash)))
			return true;
	c->failed[c->failed_at] = f;
	c->failed_at = (c->failed_at + 1) % SSDTF_FAILED_MAX;
	if (c->failed_used < SSDTF_FAILED_MAX)
		c->failed_used++;
	return false;
}

/* A broker converts and signs once more for these two reasons (PROTOCOL 7). */
static bool another_may_help(enum ssdtf_reason reason)
{
	return reason == SSDTF_REASON_BAD_SIGNATURE || reason == SSDTF_REASON_CANNOT_OPEN;
}

static void tell_refused(struct opening *o, struct ssdtf_event *e)
{
	ssdtf_event_init(e, o->seen ? SSDTF_REPLAYED : SSDTF_UNOPENED, o->why);
	e->reason = o->seen ? SSDTF_REASON_NONE : o->reason;
	if (o->parsed) {
		e->envelope = o->e;
		e->counter = o->e.counter;
		e->origin = o->e.origin;
	}
	if (o->seen) {
		o->c->stats.replayed++;
		return;
	}
	o->c->stats.unopened++;
	e->ask_again = o->parsed && another_may_help(o->reason) && !failed_before(o->c, &o->e);
}

static void tell_opened(struct opening *o, struct ssdtf_event *e)
{
	ssdtf_event_init(e, SSDTF_MESSAGE, NULL);
	e->counter = o->e.counter;
	e->origin = o->e.origin;
	e->plain = o->plain;
	e->time_ms = o->e.time_ms;
	e->proof = o->proof;
	e->proven_first = o->proven_first;
	e->id_replaced = bytes_is_zero(o->e.salt);
	e->envelope = o->e;
	o->c->stats.opened++;
}

int ssdtf_open_message(struct ssdtf_client *c, const struct ssdtf_packet *packet,
		       struct ssdtf_time now, uint8_t *plain, size_t room,
		       struct ssdtf_event *ret_event)
{
	static int (*const checks[])(struct opening * o) = {
		check_signature,
		check_grant,
		check_replay,
		check_proof,
	};
	struct opening o = { .c = c, .packet = packet, .now = now };
	int ret = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(checks) && !ret; i++)
		ret = checks[i](&o);
	if (!ret && o.e.ct.n - HPKE_TAG_BYTES > room)
		return -ENOBUFS;
	if (!ret)
		ret = open_sealed(&o, plain);
	if (!ret) {
		remember_origin(&o);
		tell_opened(&o, ret_event);
		return 0;
	}
	/* refuse() alone sets a reason: the rest is trouble of our own. */
	if (!o.why)
		return ret;
	tell_refused(&o, ret_event);
	return 0;
}
