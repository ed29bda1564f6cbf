/* SPDX-License-Identifier: MIT */
/*
 * The messages on $SSDTF/bundle (PROTOCOL 14), without the R_b || u32 n that each ends in, and how
 * their pieces are sealed. Decoded ones are views into the bytes they came from.
 *
 *   offer   := u8 1 || u32+ manifest (a statement of kind 8) || enc 65        manager -> broker
 *   want    := u8 2 || u64 bundle serial || u32 k || k * u32 index            broker -> manager
 *   piece   := u8 3 || u64 bundle serial || u32 index || u32+ sealed piece    manager -> broker
 *   applied := u8 4 || u64 serial in force || u8 result || u16+ text          broker -> manager
 */
#ifndef SSDTF_BUNDLE_ONLINE_H
#define SSDTF_BUNDLE_ONLINE_H

#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/bundle/manifest.h"
#include "userspace/crypto/hpke.h"
#include "userspace/crypto/p256.h"

#define ONLINE_TOPIC	      "$SSDTF/bundle"
#define ONLINE_INFO	      "ssdtf-bundle-1"
#define ONLINE_WANTED_MAX     64
#define ONLINE_TEXT_BYTES_MAX 512
#define ONLINE_SEALED_MAX     (MANIFEST_PIECE_BYTES_MAX + HPKE_TAG_BYTES)
#define ONLINE_PIECE_BYTES(n) (1 + 8 + 4 + 4 + (n) + HPKE_TAG_BYTES)
#define ONLINE_OFFER_BYTES(n) (1 + 4 + (n) + P256_POINT_BYTES)
/* The longest that a broker says: a full want, or a text. */
#define ONLINE_ANSWER_BYTES_MAX (1 + 8 + 1 + 2 + ONLINE_TEXT_BYTES_MAX)

enum online_kind { ONLINE_OFFER = 1, ONLINE_WANT = 2, ONLINE_PIECE = 3, ONLINE_APPLIED = 4 };

enum online_result {
	ONLINE_RESULT_APPLIED = 0,
	ONLINE_RESULT_REFUSED = 1,  /* the text says why */
	ONLINE_RESULT_IN_FORCE = 2, /* already */
};

struct online_message {
	enum online_kind kind;
	uint64_t serial; /* of the bundle; APPLIED: of the one in force */
	/* OFFER */
	struct bytes manifest;
	struct p256_point enc;
	/* WANT */
	unsigned n_wanted;
	uint32_t wanted[ONLINE_WANTED_MAX];
	/* PIECE */
	uint32_t index;
	struct bytes sealed;
	/* APPLIED */
	uint8_t result;
	struct bytes text;
};

/* -EBADMSG. */
int online_decode(struct bytes body, struct online_message *ret_m) must_check;
void online_write(const struct online_message *m, struct bytes_writer *w);

/* The additional data of a piece. */
#define ONLINE_AAD_BYTES (8 + 4)
void online_aad(uint64_t serial, uint32_t index, uint8_t out[ONLINE_AAD_BYTES]);

#endif
