// SPDX-License-Identifier: MIT
/*
 * What makes a message readable for one receiver, and nothing that all ways need alike: not the
 * check of the sender's signature, not the signature on what is delivered.
 *
 *   ours      E fresh: x(rk E), and the head with it. Remembered: found in a table of 4096, and
 *             the head with it. No byte of the payload is touched: nothing grows with it
 *   umbral    see umbral.h. Its rk E and rk V must come out as whole points, so no token that has
 *             but CKM_ECDH1_DERIVE can hold its key: it is in the broker's memory here
 *   decrypt   HPKE to the broker, which opens, and seals to the receiver. E fresh: both contexts
 *             are new (the broker's key in a token, or in its memory). Kept: both are remembered,
 *             so two passes over the payload remain
 */
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "bench/ceiling/cast.h"
#include "bench/ceiling/umbral.h"
#include "bench/ceiling/works_crypto.h"
#include "bench/ceiling/works_token.h"
#include "userspace/base/log.h"
#include "userspace/broker/table.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/hpke.h"

#define HEAD_BYTES_MAX 256
#define REMEMBERED     4096 /* capsules */

static const unsigned sizes[] = { 64, 256, 1024 };

/* --- ours ------------------------------------------------------------------------------------- */

/* As userspace/broker/capsule.c has them. */
struct remembered {
	UT_hash_handle hh;
	struct {
		uint8_t grant_id[GRANT_ID_BYTES];
		uint8_t enc[P256_COMPRESSED_BYTES];
	} key;
	uint8_t x[P256_X_BYTES];
};

struct our_bed {
	const struct cast *cast;
	struct token_bed *token;
	struct cast_message *message;
	struct envelope envelope; /* into it */
	struct p256_point enc;
	struct remembered *table, list[REMEMBERED];
	unsigned at;
};

static void raise_head(const struct our_bed *b, const uint8_t x[P256_X_BYTES])
{
	uint8_t head[HEAD_BYTES_MAX];
	struct bytes_writer w = bytes_writer_of(head, sizeof(head));
	const struct envelope_block block = {
		.grant = bytes_of(b->cast->terms.grant_id, GRANT_ID_BYTES),
		.x = bytes_of(x, P256_X_BYTES),
		.origin = bytes_str(CAST_DEVICE),
	};

	envelope_raise_head(&b->envelope, &block, &w);
	BUG_ON(w.bad);
}

static void ours_token(const struct work *w, unsigned runs)
{
	const struct our_bed *b = w->bed;
	uint8_t x[P256_X_BYTES];

	while (runs--) {
		token_bed_must(b->token, token_convert(b->token->t, b->token->key,
						       token_bed_point(b->token)->b, x));
		raise_head(b, x);
	}
}

static void ours_fresh(const struct work *w, unsigned runs)
{
	const struct our_bed *b = w->bed;
	uint8_t x[P256_X_BYTES];

	while (runs--) {
		work_must(grant_convert(&b->cast->rk, &b->enc, x), "conversion");
		raise_head(b, x);
	}
}

static void ours_remembered(const struct work *w, unsigned runs)
{
	struct our_bed *b = w->bed;
	struct remembered *found;

	while (runs--) {
		const struct remembered *r = &b->list[b->at++ % REMEMBERED];

		HASH_FIND(hh, b->table, &r->key, sizeof(r->key), found);
		work_prove(found == r, "a capsule");
		raise_head(b, found->x);
	}
}

static void remember(struct our_bed *b)
{
	for (unsigned i = 0; i < REMEMBERED; i++) {
		struct remembered *r = &b->list[i];

		hash_random(&r->key, sizeof(r->key));
		hash_random(r->x, sizeof(r->x));
		HASH_ADD(hh, b->table, key, sizeof(r->key), r);
		work_prove(!table_oom, "memory for capsules");
	}
}

static void add_ours(struct works *w, struct token_bed *token)
{
	struct our_bed *b = calloc(1, sizeof(*b));

	if (!b)
		exit_with(EX_OSERR, "no memory");
	b->cast = cast_get();
	b->token = token;
	b->message = cast_messages(1, CAST_PAYLOAD_BYTES, 1, 0);
	cast_parse(b->message, &b->envelope, &b->enc);
	remember(b);
	if (token)
		(void)works_add(w, "delivery ours, E fresh, token", ours_token, b);
	(void)works_add(w, "delivery ours, E fresh, in process", ours_fresh, b);
	(void)works_add(w, "delivery ours, capsule remembered", ours_remembered, b);
}

/* --- Umbral ----------------------------------------------------------------------------------- */

struct umbral_bed {
	struct umbral *umbral;
	struct umbral_capsule capsule;
	struct umbral_fragment fragment;
};

static void umbral_run(const struct work *w, unsigned runs, bool check, bool prove)
{
	const struct umbral_bed *b = w->bed;
	struct umbral_reencrypted r;

	while (runs--) {
		if (check)
			work_prove(umbral_check(b->umbral, &b->capsule), "Umbral's check");
		umbral_reencrypt(b->umbral, &b->fragment, &b->capsule, prove, &r);
	}
}

static void umbral_checked(const struct work *w, unsigned runs)
{
	umbral_run(w, runs, true, false);
}

static void umbral_unchecked(const struct work *w, unsigned runs)
{
	umbral_run(w, runs, false, false);
}

static void umbral_proved(const struct work *w, unsigned runs)
{
	umbral_run(w, runs, false, true);
}

static void umbral_whole(const struct work *w, unsigned runs)
{
	umbral_run(w, runs, true, true);
}

/* The check holds, and not for a capsule that was altered; what is re-encrypted opens to what the
 * sender encapsulated; the proof holds, and not for another result. */
static void umbral_prove(struct umbral_bed *b, const struct cast *c,
			 const struct secret32 *encapsulated)
{
	struct umbral_capsule altered = b->capsule;
	struct umbral_reencrypted r;
	struct secret32 opened;

	altered.s.b[P256_SCALAR_BYTES - 1] ^= 1;
	work_prove(umbral_check(b->umbral, &b->capsule) && !umbral_check(b->umbral, &altered),
		   "Umbral's check of a capsule");
	altered = b->capsule;
	altered.v = altered.e;
	work_prove(!umbral_check(b->umbral, &altered), "Umbral's check of a capsule");
	umbral_reencrypt(b->umbral, &b->fragment, &b->capsule, true, &r);
	umbral_open(b->umbral, &c->b, &b->fragment, &r, &opened);
	work_prove(!memcmp(&opened, encapsulated, sizeof(opened)), "Umbral's re-encryption");
	work_prove(umbral_proof_holds(b->umbral, &b->fragment, &b->capsule, &r), "Umbral's proof");
	r.v1 = r.e1;
	work_prove(!umbral_proof_holds(b->umbral, &b->fragment, &b->capsule, &r),
		   "Umbral's proof of something else");
}

static void add_umbral(struct works *w)
{
	const struct cast *c = cast_get();
	struct umbral_bed *b = calloc(1, sizeof(*b));
	struct secret32 encapsulated;

	if (!b)
		exit_with(EX_OSERR, "no memory");
	b->umbral = umbral_new();
	umbral_encapsulate(b->umbral, &c->scope, &b->capsule, &encapsulated);
	umbral_grant(b->umbral, &c->a, &c->terms.b, &b->fragment);
	umbral_prove(b, c, &encapsulated);
	(void)works_add(w, "delivery umbral, check", umbral_checked, b);
	(void)works_add(w, "delivery umbral, no check", umbral_unchecked, b);
	(void)works_add(w, "delivery umbral, proof", umbral_proved, b);
	(void)works_add(w, "delivery umbral, check and proof", umbral_whole, b);
}

/* --- decrypting and encrypting again ---------------------------------------------------------- */

struct decrypt_bed {
	struct token_bed *token;  /* with the key in it; NULL: none */
	struct secret32 key;	  /* the same here */
	struct p256_point public; /* and its public half */
	struct p256_point enc;
	struct hpke_context in, out; /* remembered */
	uint8_t aad[ENVELOPE_AAD_BYTES];
	uint8_t sealed[1024 + HPKE_TAG_BYTES]; /* to the broker */
};

static struct bytes info(void)
{
	return bytes_str(ENVELOPE_INFO);
}

static void pass_on(const struct decrypt_bed *b, const struct hpke_context *in,
		    const struct hpke_context *out, unsigned bytes, uint8_t *ret_sealed)
{
	struct bytes aad = bytes_of(b->aad, sizeof(b->aad));
	uint8_t plain[1024];

	work_must(hpke_open(in, 0, aad, bytes_of(b->sealed, bytes + HPKE_TAG_BYTES), plain),
		  "opening");
	work_must(hpke_seal(out, 0, aad, bytes_of(plain, bytes), ret_sealed), "sealing");
}

/* From the Diffie-Hellman value of the broker's key and enc. */
static void contexts_open(const struct decrypt_bed *b, const struct secret32 *dh,
			  struct hpke_context *in, struct hpke_context *out,
			  struct p256_point *ret_enc)
{
	work_must(hpke_setup_from_dh(HPKE_SUITE_AES_128_GCM, dh, &b->enc, &b->public, info(), in),
		  "a context");
	work_must(hpke_setup_sender(HPKE_SUITE_AES_128_GCM, &cast_get()->terms.b, info(), out,
				    ret_enc),
		  "a context");
}

static void decrypt_with(const struct decrypt_bed *b, const struct secret32 *dh, unsigned bytes)
{
	uint8_t sealed[1024 + HPKE_TAG_BYTES];
	struct hpke_context in, out;
	struct p256_point enc;

	contexts_open(b, dh, &in, &out, &enc);
	pass_on(b, &in, &out, bytes, sealed);
	hpke_context_deinit(&in);
	hpke_context_deinit(&out);
}

static void decrypt_token(const struct work *w, unsigned runs)
{
	const struct decrypt_bed *b = w->bed;
	struct secret32 dh SECRET = { 0 };

	while (runs--) {
		token_bed_must(b->token, token_convert(b->token->t, b->token->key, b->enc.b, dh.b));
		decrypt_with(b, &dh, w->bytes);
	}
}

static void decrypt_fresh(const struct work *w, unsigned runs)
{
	const struct decrypt_bed *b = w->bed;
	struct secret32 dh SECRET = { 0 };

	while (runs--) {
		work_must(p256_dh(&b->key, &b->enc, &dh), "a Diffie-Hellman value");
		decrypt_with(b, &dh, w->bytes);
	}
}

static void decrypt_kept(const struct work *w, unsigned runs)
{
	const struct decrypt_bed *b = w->bed;
	uint8_t sealed[1024 + HPKE_TAG_BYTES];

	while (runs--)
		pass_on(b, &b->in, &b->out, w->bytes, sealed);
}

/* What is decrypted and encrypted again is what its receiver then opens. */
static void decrypt_prove(struct decrypt_bed *b, unsigned bytes, const uint8_t *plain)
{
	uint8_t sealed[1024 + HPKE_TAG_BYTES], opened[1024];
	struct secret32 dh SECRET = { 0 };
	struct hpke_context receiver;
	struct p256_point enc;

	work_must(p256_dh(&b->key, &b->enc, &dh), "a Diffie-Hellman value");
	contexts_open(b, &dh, &b->in, &b->out, &enc);
	pass_on(b, &b->in, &b->out, bytes, sealed);
	work_must(hpke_setup_receiver(HPKE_SUITE_AES_128_GCM, &enc, &cast_get()->b, info(),
				      &receiver),
		  "a context");
	work_prove(!hpke_open(&receiver, 0, bytes_of(b->aad, sizeof(b->aad)),
			      bytes_of(sealed, bytes + HPKE_TAG_BYTES), opened) &&
			   !memcmp(opened, plain, bytes),
		   "what was decrypted and encrypted again opens");
}

static struct decrypt_bed *decrypt_bed_new(struct token_bed *token, unsigned bytes)
{
	struct decrypt_bed *b = calloc(1, sizeof(*b));
	struct hpke_context sender;
	uint8_t plain[1024];

	if (!b)
		exit_with(EX_OSERR, "no memory");
	b->token = token;
	b->key = token ? token->rk : cast_get()->a;
	work_must(p256_mul_base(&b->key, &b->public), "a public key");
	hash_random(plain, sizeof(plain));
	hash_random(b->aad, sizeof(b->aad));
	work_must(hpke_setup_sender(HPKE_SUITE_AES_128_GCM, &b->public, info(), &sender, &b->enc),
		  "a context");
	work_must(hpke_seal(&sender, 0, bytes_of(b->aad, sizeof(b->aad)), bytes_of(plain, bytes),
			    b->sealed),
		  "sealing");
	decrypt_prove(b, bytes, plain);
	return b;
}

void works_delivery(struct works *w, struct token_bed *token)
{
	w->part = "what makes a delivery readable";
	add_ours(w, token);
	add_umbral(w);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct decrypt_bed *b = decrypt_bed_new(token, sizes[i]);

		if (token)
			works_add(w, "delivery decrypt, E fresh, token", decrypt_token, b)->bytes =
				sizes[i];
		works_add(w, "delivery decrypt, E fresh, in process", decrypt_fresh, b)->bytes =
			sizes[i];
		works_add(w, "delivery decrypt, contexts kept", decrypt_kept, b)->bytes = sizes[i];
	}
}
