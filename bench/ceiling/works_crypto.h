/* SPDX-License-Identifier: MIT */
/*
 * What `ssdtf-bench crypto` times, a file a kind. Each function makes its beds, looks whether what
 * is to be timed is right, and adds its works. Names: ceiling.h.
 */
#ifndef SSDTF_BENCH_WORKS_CRYPTO_H
#define SSDTF_BENCH_WORKS_CRYPTO_H

#include "bench/ceiling/work.h"

struct token_bed;

void works_curve(struct works *w);    /* P-256, with p256.h and with EVP alone */
void works_bytes(struct works *w);    /* AEADs and SHA-256 over payloads */
void works_envelope(struct works *w); /* digests, trees, HPKE */
void works_routing(struct works *w);  /* the trie of subscriptions */
void works_ingress(struct works *w);  /* what the broker's workers do for a PUBLISH */
/* With NULL for a token, what needs one is left out. */
void works_egress(struct works *w, struct token_bed *token);
void works_delivery(struct works *w, struct token_bed *token);

#endif
