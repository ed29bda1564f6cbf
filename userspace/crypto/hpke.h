/* SPDX-License-Identifier: MIT */
/*
 * HPKE (RFC 9180) in Base mode: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-128-GCM or
 * ChaCha20-Poly1305. Written here because OpenSSL 3.0 has none, and because a receiver enters in
 * the middle: with the Diffie-Hellman value that conversion gives it (PROTOCOL 3).
 *
 * A context is caller's memory, belongs to one thread, holds secrets and is wiped by
 * hpke_context_deinit. Errors are p256.h's; -EBADMSG where a ciphertext does not open; -EOVERFLOW
 * where seq is above HPKE_SEQ_MAX.
 */
#ifndef SSDTF_CRYPTO_HPKE_H
#define SSDTF_CRYPTO_HPKE_H

#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/crypto/p256.h"

#define HPKE_TAG_BYTES	 16
#define HPKE_NONCE_BYTES 12
#define HPKE_SEQ_MAX	 65535 /* PROTOCOL 2; RFC 9180 would allow more */

/* PROTOCOL 2's numbers, which name whole suites. */
enum hpke_suite { HPKE_SUITE_AES_128_GCM = 1, HPKE_SUITE_CHACHA20_POLY1305 = 2 };

struct hpke_context {
	enum hpke_suite suite;
	uint8_t key[32]; /* the first 16 or all 32 are used */
	uint8_t base_nonce[HPKE_NONCE_BYTES];
	uint8_t exporter_secret[32];
};

void hpke_context_deinit(struct hpke_context *c);

/* Base mode sender: fresh ephemeral key. ret_enc is the serialised (65-byte) encapsulated key. */
int hpke_setup_sender(enum hpke_suite suite, const struct p256_point *pk_r, struct bytes info,
		      struct hpke_context *ret_ctx, struct p256_point *ret_enc) must_check;
/* The same with a given ephemeral scalar: for known-answer tests only. */
int hpke_setup_sender_with(enum hpke_suite suite, const struct p256_point *pk_r, struct bytes info,
			   const struct secret32 *sk_e, struct hpke_context *ret_ctx,
			   struct p256_point *ret_enc) must_check;
int hpke_setup_receiver(enum hpke_suite suite, const struct p256_point *enc,
			const struct secret32 *sk_r, struct bytes info,
			struct hpke_context *ret_ctx) must_check;
/* From a Diffie-Hellman value computed elsewhere: ExtractAndExpand(dh, enc || pk_r), then the
 * key schedule. */
int hpke_setup_from_dh(enum hpke_suite suite, const struct secret32 *dh,
		       const struct p256_point *enc, const struct p256_point *pk_r,
		       struct bytes info, struct hpke_context *ret_ctx) must_check;

/* out holds pt.n + HPKE_TAG_BYTES; may equal pt.p. */
int hpke_seal(const struct hpke_context *c, uint32_t seq, struct bytes aad, struct bytes pt,
	      uint8_t *out) must_check;
/* out holds ct.n - HPKE_TAG_BYTES; nothing of it may be used on failure (it is wiped). */
int hpke_open(const struct hpke_context *c, uint32_t seq, struct bytes aad, struct bytes ct,
	      uint8_t *out) must_check;
void hpke_export(const struct hpke_context *c, struct bytes exporter_context, uint8_t *out,
		 size_t len);

#endif
