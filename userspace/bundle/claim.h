/* SPDX-License-Identifier: MIT */
/*
 * Claims (PROTOCOL 15): the one-time code that a device is given, what is derived from it, and what
 * device and broker say to each other about it.
 *
 *   code    := "SSDTF1:" || base64url without padding of
 *              u8 1 || u8+ id || 16 secret || manager's key 33 || u8+ gateway id || broker's key 33
 *   request := u8 1 || new signing key 65 || answer key 65 || signature 64 by the new key
 *   answer  := u8 4 || u8 result || u16+ text || enc 65 || u32+ sealed party bundle
 *
 * Behind request and answer follows the session's R_b || u32 n, which is not read or written here.
 * A code is a secret until it is used: who has it can claim in the device's place.
 */
#ifndef SSDTF_BUNDLE_CLAIM_H
#define SSDTF_BUNDLE_CLAIM_H

#include <stdbool.h>
#include <stdint.h>

#include "bpf/admission.h"
#include "userspace/base/bytes.h"
#include "userspace/base/secret.h"
#include "userspace/base/text.h"
#include "userspace/bundle/record.h"
#include "userspace/crypto/p256.h"

#define CLAIM_PREFIX	     "SSDTF1:"
#define CLAIM_TOPIC	     "$SSDTF/claim"
#define CLAIM_INFO	     "ssdtf-claim-1" /* of HPKE, which seals the bundle to the answer key */
#define CLAIM_SECRET_BYTES   16
#define CLAIM_NONCE_BYTES    32 /* R_b */
#define CLAIM_TEXT_BYTES_MAX 256

#define CLAIM_CODE_BYTES_MAX \
	(1 + 2 * (1 + RECORD_NAME_BYTES_MAX) + CLAIM_SECRET_BYTES + 2 * P256_COMPRESSED_BYTES)
/* The text with its terminator. */
#define CLAIM_CODE_SIZE (sizeof(CLAIM_PREFIX) - 1 + TEXT_B64U_SIZE(CLAIM_CODE_BYTES_MAX))

struct claim_code {
	char id[RECORD_NAME_BYTES_MAX + 1];	    /* terminated */
	char gateway_id[RECORD_NAME_BYTES_MAX + 1]; /* terminated */
	uint8_t secret[CLAIM_SECRET_BYTES];
	struct p256_point manager, broker;
};

/* -EINVAL where an id is none. */
int claim_code_encode(const struct claim_code *c, char out[CLAIM_CODE_SIZE]) must_check;
/* -EINVAL for anything that is no code; white space around it is not taken away. */
int claim_code_decode(struct bytes text, struct claim_code *ret_c) must_check;
void claim_code_wipe(struct claim_code *c);

/* The claim scalar, with which the device authenticates, and K_adm, which it keeps. p256.h's
 * errors. */
int claim_keys(struct bytes id, const uint8_t secret[CLAIM_SECRET_BYTES],
	       struct secret32 *ret_signing, uint8_t ret_k_adm[ADMISSION_KEY_BYTES]) must_check;

enum claim_kind {
	CLAIM_REQUEST = 1,  /* device to broker */
	CLAIM_FORWARD = 2,  /* broker to manager */
	CLAIM_DECISION = 3, /* manager to broker */
	CLAIM_ANSWER = 4,   /* broker to device */
};

enum claim_result {
	CLAIM_CERTIFIED = 0,
	CLAIM_REFUSED = 1,   /* for good */
	CLAIM_TRY_AGAIN = 2, /* later */
};

struct claim_request {
	struct p256_point signing; /* the device's new key */
	struct p256_point answer;  /* to which the bundle is to be sealed */
	uint8_t sig[P256_SIG_BYTES];
};

/* What the new key signs: that it is this id's, in this session. */
void claim_request_digest(const struct claim_request *q, struct bytes id,
			  const uint8_t r_b[CLAIM_NONCE_BYTES],
			  uint8_t ret_digest[P256_DIGEST_BYTES]);
void claim_request_write(const struct claim_request *q, struct bytes_writer *w);
/* Consumes the request; what is none, or has no points, makes r bad. */
void claim_request_read(struct bytes_reader *r, struct claim_request *q);
/* Does the new key's signature hold? 0, -EBADMSG, p256.h's. */
int claim_request_verify(const struct claim_request *q, struct bytes id,
			 const uint8_t r_b[CLAIM_NONCE_BYTES]) must_check;

struct claim_answer {
	enum claim_result result;
	struct bytes text;
	struct p256_point enc; /* zeros where there is no bundle */
	struct bytes sealed;
};

void claim_answer_write(const struct claim_answer *a, struct bytes_writer *w);
void claim_answer_read(struct bytes_reader *r, struct claim_answer *a);

/* The party bundle sealed to the answer key: out holds bundle.n + HPKE_TAG_BYTES, or
 * sealed.n - HPKE_TAG_BYTES. -EBADMSG; p256.h's. */
int claim_seal(const struct p256_point *answer, struct bytes bundle, struct p256_point *ret_enc,
	       uint8_t *out) must_check;
int claim_open(const struct secret32 *answer, const struct p256_point *enc, struct bytes sealed,
	       uint8_t *out) must_check;

#endif
