/* SPDX-License-Identifier: MIT */
/*
 * What a token does for a gateway, timed through hsm/token.h as ssdtf-hsmd calls it.
 */
#ifndef SSDTF_BENCH_WORKS_TOKEN_H
#define SSDTF_BENCH_WORKS_TOKEN_H

#include "bench/ceiling/work.h"
#include "hsm/token.h"

#define TOKEN_BED_POINTS 64

struct token_bed {
	const struct token_config *config;
	struct secret32 rk;
	struct p256_point points[TOKEN_BED_POINTS]; /* capsules E */
	uint8_t x[TOKEN_BED_POINTS][P256_X_BYTES];  /* what they convert to */
	unsigned at;

	/* From here on each process's own. */
	struct token *t;
	unsigned long key; /* rk in the token */
	uint8_t blob[512];
	size_t blob_n;
	struct p256_public *verifier;
	uint8_t digest[P256_DIGEST_BYTES], sig[P256_SIG_BYTES];
};

/* A throw-away conversion key. The config stays the caller's. */
struct token_bed *token_bed_new(const struct token_config *config);
/* In the process that is to measure: opens the token, unwraps the key, and looks whether the token
 * converts and signs rightly. Ends the process where anything fails, with one line said. */
void token_bed_ready(struct token_bed *b);
/* The next capsule, round and round. */
const struct p256_point *token_bed_point(struct token_bed *b);

void works_token(struct works *w, struct token_bed *b);

/* The token failed in the midst of it: says what, and ends the process. */
void token_bed_must(struct token_bed *b, int ret);

#endif
