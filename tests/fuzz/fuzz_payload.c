// FUZZ_OF: userspace/crypto
// SPDX-License-Identifier: MIT
/*
 * PUBLISH payloads from anywhere: trailers, envelopes, origin proofs. What is taken apart must lie
 * within the input and make it up again, and a level more must parse to the same fields.
 */
#include <stdlib.h>
#include <string.h>

#include "userspace/crypto/envelope.h"
#include "userspace/crypto/publish.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Aborts where part is not within whole. */
static void expect_within(struct bytes part, struct bytes whole)
{
	if (part.n == 0)
		return;
	if (part.p < whole.p || part.n > whole.n || (size_t)(part.p - whole.p) > whole.n - part.n)
		abort();
}

static void expect_same(struct bytes a, struct bytes b)
{
	if (!bytes_equal(a, b))
		abort();
}

static struct p256_public *key_get(void)
{
	static struct p256_public *key;
	struct secret32 one = { .b[31] = 1 };
	struct p256_point g;

	if (!key && (p256_mul_base(&one, &g) || p256_public_new(&g, &key)))
		abort();
	return key;
}

/* Nobody signed with the key, so no proof holds; whatever is wrong with it must be found safely. */
static void check_proof(const struct envelope *e)
{
	struct bytes properties;
	uint8_t first;

	if (publish_check_proof(e, bytes_str("a/b"), key_get(), &first, &properties) == 0)
		abort();
}

static void check_raise(const struct envelope *e)
{
	static const uint8_t grant[ENVELOPE_GRANT_BYTES] = { 1 }, x[P256_X_BYTES] = { 2 };
	struct envelope_block b = { .grant = bytes_of(grant, sizeof(grant)),
				    .x = bytes_of(x, sizeof(x)),
				    .origin = e->level ? e->origin : bytes_str("sender"),
				    .proof = e->proof };
	size_t n = envelope_raised_head_bytes(&b) + e->ct.n;
	uint8_t *buf = malloc(n);
	struct bytes_writer w = bytes_writer_of(buf, n);
	struct envelope raised;

	if (!buf)
		abort();
	envelope_raise_head(e, &b, &w);
	bytes_write(&w, e->ct);
	if (e->level == ENVELOPE_LEVEL_MAX) {
		if (!w.bad)
			abort();
	} else {
		if (w.bad || w.left || envelope_parse(bytes_of(buf, n), &raised))
			abort();
		if (raised.level != e->level + 1 || raised.counter != e->counter ||
		    raised.seq != e->seq || raised.key_id != e->key_id ||
		    raised.suite != e->suite || raised.time_ms != e->time_ms)
			abort();
		expect_same(raised.enc, e->enc);
		expect_same(raised.salt, e->salt);
		expect_same(raised.origin, b.origin);
		expect_same(raised.proof, b.proof);
		expect_same(raised.ct, e->ct);
	}
	free(buf);
}

static void check_envelope(struct bytes payload)
{
	struct envelope e;

	if (envelope_parse(payload, &e))
		return;
	expect_within(e.bind, payload);
	expect_within(e.enc, payload);
	expect_within(e.commit, payload);
	expect_within(e.salt, payload);
	expect_within(e.grant, payload);
	expect_within(e.x, payload);
	expect_within(e.origin, payload);
	expect_within(e.proof, payload);
	expect_within(e.ct, payload);
	if (e.ct.n < HPKE_TAG_BYTES || e.level > ENVELOPE_LEVEL_MAX || e.seq > HPKE_SEQ_MAX)
		abort();
	(void)envelope_bind_fits(&e, bytes_str("sender"), bytes_str("a/b"));
	check_raise(&e);
	check_proof(&e);
}

/* What is a proof is no signature, and this one proves nothing. */
static void check_zk(struct bytes payload, struct publish p)
{
	const struct secret32 one = { .b[31] = 1 };
	struct publish_trailer t, signature;
	struct p256_point g;

	if (publish_split_zk(payload, &t))
		return;
	expect_within(t.body, payload);
	expect_within(t.sig, t.trailer);
	if (t.body.n + t.trailer.n != payload.n || t.sig.n != SCHNORR_PROOF_BYTES ||
	    !publish_split(payload, &signature))
		abort();
	p.body[0] = t.body;
	if (p256_mul_base(&one, &g) || publish_verify_zk(&p, &t, &g) == 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct bytes payload = bytes_of(data, n);
	struct publish p = { .first = 0x30,
			     .topic = bytes_str("a/b"),
			     .body_parts = 1,
			     .client_id = bytes_str("sender") };
	struct publish_trailer t;

	check_envelope(payload);
	check_zk(payload, p);
	if (publish_split(payload, &t))
		return 0;
	expect_within(t.body, payload);
	expect_within(t.path, t.trailer);
	expect_within(t.sig, t.trailer);
	if (t.body.n + t.trailer.n != n || t.sig.n != P256_SIG_BYTES)
		abort();
	check_envelope(t.body);
	p.body[0] = t.body;
	if (publish_verify(&p, &t, key_get()) == 0)
		abort();
	return 0;
}
