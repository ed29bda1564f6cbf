// SPDX-License-Identifier: MIT
#include "bench/ceiling/works_token.h"

#include <errno.h>
#include <string.h>
#include <sysexits.h>

#include "hsm/token_bare.h"
#include "userspace/base/log.h"
#include "userspace/crypto/grant.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/rsa.h"

static int exit_code_of(int ret)
{
	switch (ret) {
	case -EACCES:
	case -EKEYREJECTED:
	case -EPERM:
		return EX_NOPERM;
	case -ENODEV:
	case -EIO:
	case -EBUSY:
		return EX_UNAVAILABLE;
	default:
		return EX_CONFIG;
	}
}

void token_bed_must(struct token_bed *b, int ret)
{
	if (ret == -ENOKEY)
		exit_with(EX_CONFIG,
			  "%s; `ssdtf-hsmd keygen` makes a gateway's keys in a token that has none",
			  token_error(b->t));
	if (ret)
		exit_with(exit_code_of(ret), "%s", token_error(b->t));
}

struct token_bed *token_bed_new(const struct token_config *config)
{
	struct token_bed *b = calloc(1, sizeof(*b));
	struct secret32 r SECRET = { 0 };

	if (!b)
		exit_with(EX_OSERR, "no memory");
	b->config = config;
	work_must(p256_scalar_random(&b->rk), "a conversion key");
	for (unsigned i = 0; i < TOKEN_BED_POINTS; i++) {
		work_must(p256_scalar_random(&r), "a capsule");
		work_must(p256_mul_base(&r, &b->points[i]), "a capsule");
		work_must(grant_convert(&b->rk, &b->points[i], b->x[i]), "its conversion");
	}
	return b;
}

const struct p256_point *token_bed_point(struct token_bed *b)
{
	return &b->points[b->at++ % TOKEN_BED_POINTS];
}

/* As the manager wraps it. */
static void wrap(struct token_bed *b)
{
	uint8_t spki[TOKEN_SPKI_BYTES_MAX], pkcs8[P256_PKCS8_BYTES];
	int n = token_unwrapping_public(b->t, TOKEN_LABEL_UNWRAP, spki, sizeof(spki));

	token_bed_must(b, n < 0 ? n : 0);
	p256_pkcs8(&b->rk, pkcs8);
	n = rsa_wrap(bytes_of(spki, (size_t)n), bytes_of(pkcs8, sizeof(pkcs8)), b->blob,
		     sizeof(b->blob));
	secret_wipe(pkcs8, sizeof(pkcs8));
	work_must(n < 0 ? n : 0, "wrapping a conversion key");
	b->blob_n = (size_t)n;
}

static void prove(struct token_bed *b)
{
	uint8_t x[P256_X_BYTES];

	for (unsigned i = 0; i < 2; i++) {
		token_bed_must(b, token_convert(b->t, b->key, b->points[i].b, x));
		work_prove(!memcmp(x, b->x[i], sizeof(x)), "the token's conversion");
		token_bed_must(b, token_bare_convert(b->t, b->key, b->points[i].b, 2, x));
		work_prove(!memcmp(x, b->x[i], sizeof(x)), "the bare conversion");
	}
	work_prove(!p256_verify_digest(b->verifier, b->digest, b->sig), "the token's signature");
}

void token_bed_ready(struct token_bed *b)
{
	struct p256_point public;
	int ret = token_open(b->config, &b->t);

	if (ret)
		exit_with(exit_code_of(ret), "%s", token_open_error());
	hash_random(b->digest, sizeof(b->digest));
	wrap(b);
	token_bed_must(b, token_unwrap(b->t, TOKEN_LABEL_UNWRAP, bytes_of(b->blob, b->blob_n),
				       &b->key));
	token_bed_must(b, token_signing_public(b->t, TOKEN_LABEL_SIGN, &public));
	work_must(p256_public_new(&public, &b->verifier), "the token's public key");
	token_bed_must(b, token_sign(b->t, TOKEN_LABEL_SIGN, b->digest, b->sig));
	prove(b);
}

/* --- the works -------------------------------------------------------------------------------- */

static void bare_convert(const struct work *w, unsigned runs)
{
	struct token_bed *b = w->bed;
	uint8_t x[P256_X_BYTES];

	token_bed_must(b, token_bare_convert(b->t, b->key, token_bed_point(b)->b, runs, x));
}

static void convert(const struct work *w, unsigned runs)
{
	struct token_bed *b = w->bed;
	uint8_t x[P256_X_BYTES];

	while (runs--)
		token_bed_must(b, token_convert(b->t, b->key, token_bed_point(b)->b, x));
}

static void sign(const struct work *w, unsigned runs)
{
	struct token_bed *b = w->bed;

	while (runs--)
		token_bed_must(b, token_sign(b->t, TOKEN_LABEL_SIGN, b->digest, b->sig));
}

static void unwrap(const struct work *w, unsigned runs)
{
	struct token_bed *b = w->bed;
	unsigned long key;

	while (runs--) {
		token_bed_must(b, token_unwrap(b->t, TOKEN_LABEL_UNWRAP,
					       bytes_of(b->blob, b->blob_n), &key));
		token_forget(b->t, key);
	}
}

static void verify(const struct work *w, unsigned runs)
{
	struct token_bed *b = w->bed;

	while (runs--)
		work_must(p256_verify_digest(b->verifier, b->digest, b->sig), "a signature");
}

void works_token(struct works *w, struct token_bed *b)
{
	w->part = "through hsm/token.h";
	(void)works_add(w, "bare convert", bare_convert, b);
	works_add(w, "convert", convert, b)->memory = true;
	(void)works_add(w, "sign", sign, b);
	(void)works_add(w, "unwrap", unwrap, b);
	(void)works_add(w, "verify", verify, b);
}
