// SPDX-License-Identifier: MIT
#include "userspace/broker/verify.h"

#include <errno.h>
#include <string.h>

#include "userspace/broker/verifier.h"

/* The counter of a message that may be damaged: its magic and twenty bytes are enough to name it. 0
 * where it cannot be read (PROTOCOL 7). */
static uint64_t counter_of(struct bytes payload)
{
	struct bytes_reader r = bytes_reader_of(payload);
	uint16_t magic = bytes_read_u16(&r);

	(void)bytes_read_view(&r, ENVELOPE_COUNTER_AT - 2);
	return magic == ENVELOPE_MAGIC ? bytes_read_u64(&r) : 0;
}

static struct publish publish_of(const struct broker_verify *j)
{
	return (struct publish){
		.first = j->first,
		.topic = j->topic,
		.properties = j->properties,
		.body = { j->trailer.body },
		.body_parts = 1,
		.client_id = j->client_id,
	};
}

/* publish_verify() and its answers, over what the sender's verifier knows already. */
static int check_signature_by(const struct broker_verify *j, struct verifier *v, bool parsed)
{
	const struct publish_trailer *t = &j->trailer;
	const struct publish p = publish_of(j);
	uint8_t hash[HASH_BYTES];

	if (t->kind == 1) {
		publish_digest(&p, hash);
		return verifier_digest(v, hash, t->sig.p);
	}
	/* PROTOCOL 4: a sibling's hash must not betray a guessable message. */
	if (!parsed)
		return -EBADMSG;
	/* Each message's own way to the root: one that was altered ends at a root that nobody
	 * signed. */
	publish_root(&p, t, hash);
	return verifier_root(v, hash, t->sig.p);
}

static int check_signature(struct broker_verify *j, bool parsed)
{
	int err;

	j->by = j->verifier;
	err = check_signature_by(j, j->by, parsed);
	if (err != -EBADMSG || !j->other)
		return err;
	j->by = j->other;
	return check_signature_by(j, j->by, parsed);
}

/* Above level 0 the id is the origin's, and zeros for a salt say that it was replaced: then bind is
 * over one that nobody here knows. */
static bool bind_fits(const struct broker_verify *j)
{
	const struct envelope *e = &j->envelope;

	if (e->level == 0)
		return envelope_bind_fits(e, j->client_id, j->topic);
	return bytes_is_zero(e->salt) || envelope_bind_fits(e, e->origin, j->topic);
}

/* The point with x, by the way that remembers: as a compressed one. */
static int lift(struct verifier *v, struct bytes x, struct p256_point *ret_point)
{
	uint8_t compressed[P256_COMPRESSED_BYTES] = { 0x02 };

	memcpy(compressed + 1, x.p, P256_X_BYTES);
	return verifier_point(v, bytes_of(compressed, sizeof(compressed)), ret_point);
}

static enum broker_verify_result check_envelope(struct broker_verify *j)
{
	const struct envelope *e = &j->envelope;

	if (e->level > j->level_max || !bind_fits(j))
		return BROKER_VERIFY_MALFORMED;
	if (verifier_point(j->verifier, e->enc, &j->e))
		return BROKER_VERIFY_MALFORMED;
	if (e->level > 0 && lift(j->verifier, e->x, &j->e))
		return BROKER_VERIFY_MALFORMED;
	return BROKER_VERIFY_OK;
}

/* By the party's key that its id is made of, and no other. */
static void run_zk(struct broker_verify *j)
{
	struct publish p;

	j->result = BROKER_VERIFY_NO_TRAILER;
	if (publish_split_zk(j->payload, &j->trailer))
		return;
	p = publish_of(j);
	j->by = j->verifier;
	j->result = publish_verify_zk(&p, &j->trailer, verifier_key(j->verifier))
			    ? BROKER_VERIFY_BAD_SIGNATURE
			    : BROKER_VERIFY_OK;
}

void broker_verify_run(struct broker_verify *j)
{
	bool parsed;

	if (j->zk) {
		run_zk(j);
		return;
	}
	j->counter = j->sealed ? counter_of(j->payload) : 0;
	j->result = BROKER_VERIFY_NO_TRAILER;
	if (publish_split(j->payload, &j->trailer))
		return;
	j->counter = j->sealed ? counter_of(j->trailer.body) : 0;
	parsed = !envelope_parse(j->trailer.body, &j->envelope);
	j->result = BROKER_VERIFY_BAD_SIGNATURE;
	if (check_signature(j, parsed))
		return;
	j->result = BROKER_VERIFY_OK;
	if (j->sealed)
		j->result = parsed ? check_envelope(j) : BROKER_VERIFY_MALFORMED;
}

bool broker_verify_same_batch(const struct broker_verify *a, const struct broker_verify *b)
{
	struct publish_trailer x, y;

	return a->verifier == b->verifier && !publish_split(a->payload, &x) && x.kind == 2 &&
	       !publish_split(b->payload, &y) && y.kind == 2 && bytes_equal(x.sig, y.sig);
}
