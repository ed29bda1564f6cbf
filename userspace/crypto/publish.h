/* SPDX-License-Identifier: MIT */
/*
 * Signed PUBLISH (PROTOCOL 4): what is signed, the two trailers, and the origin proof; and the one
 * of SSDTF-ZK-1 (PROTOCOL 16), which stands on an authentication response alone.
 *
 *   payload = body || trailer
 *   trailer 1 = sig || 01                              65 bytes
 *   trailer 2 = sig || path || u16 index || u16 size || 02
 *   trailer 3 = proof || 03                            66 bytes
 */
#ifndef SSDTF_CRYPTO_PUBLISH_H
#define SSDTF_CRYPTO_PUBLISH_H

#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/crypto/envelope.h"
#include "userspace/crypto/merkle.h"
#include "userspace/crypto/p256.h"
#include "userspace/crypto/schnorr.h"

#define PUBLISH_TRAILER_1_BYTES		  65
#define PUBLISH_TRAILER_2_BYTES(path_len) (P256_SIG_BYTES + 32 * (path_len) + 5)
#define PUBLISH_TRAILER_3_BYTES		  (SCHNORR_PROOF_BYTES + 1)
#define PUBLISH_TRAILER_BYTES_MAX	  PUBLISH_TRAILER_2_BYTES(MERKLE_PATH_MAX)
#define PUBLISH_BODY_PARTS_MAX		  4

/*
 * Everything the signature covers, in views. The body may stand in up to PUBLISH_BODY_PARTS_MAX
 * pieces, so that a raised head and the stored ciphertext need not be joined to be signed.
 */
struct publish {
	uint8_t first; /* first byte of the packet; DUP is masked out here */
	struct bytes topic;
	struct bytes properties; /* MQTT 5, PROTOCOL 4's canonical form; empty for 3.1.1 */
	struct bytes body[PUBLISH_BODY_PARTS_MAX];
	unsigned body_parts;
	struct bytes client_id;
};

/* SHA-256 of the input: what trailer 1 signs. */
void publish_digest(const struct publish *p, uint8_t out[HASH_BYTES]);
/* SHA-256(00 || input): its leaf in a batch. */
void publish_leaf(const struct publish *p, uint8_t out[HASH_BYTES]);
/* SHA-256("ssdtf-batch-1" || root): what the one signature of a batch signs. */
void publish_root_digest(const uint8_t root[HASH_BYTES], uint8_t out[HASH_BYTES]);
/* The input itself, for tests and for proofs kept as evidence. */
void publish_input(const struct publish *p, struct bytes_writer *w);

/* A payload taken apart. */
struct publish_trailer {
	struct bytes body;
	struct bytes trailer; /* the whole of it, as it stands behind the body */
	uint8_t kind;	      /* 1 or 2; 3 from publish_split_zk() */
	struct bytes sig;     /* 64; of kind 3 the proof, 65 */
	struct bytes path;    /* kind 2 */
	uint16_t index, size; /* kind 2 */
};

/* -EBADMSG: no trailer, another kind, size 0, index >= size, cut path. */
int publish_split(struct bytes payload, struct publish_trailer *ret_t) must_check;

/*
 * Does the trailer hold for p under key? p's body must be the trailer's body. A batch trailer on a
 * body that does not parse as an envelope, or that is in several parts, is refused. The root does
 * not bind index and size: others that give a path of the same shape hold too (PROTOCOL 1). 0,
 * -EBADMSG, or p256.h's -ENOMEM and -EIO.
 */
int publish_verify(const struct publish *p, const struct publish_trailer *t,
		   const struct p256_public *key) must_check;

/* The root that a batch trailer implies for p. The signature covers it (publish_root_digest), and
 * once verified it holds for every message of the batch. */
void publish_root(const struct publish *p, const struct publish_trailer *t,
		  uint8_t ret_root[HASH_BYTES]);

void publish_write_trailer_1(const uint8_t sig[P256_SIG_BYTES], struct bytes_writer *w);
void publish_write_trailer_2(const uint8_t sig[P256_SIG_BYTES], const struct merkle *m,
			     uint16_t index, struct bytes_writer *w);
/* digest, sign, trailer 1, for those who hold a private key in their own process. */
int publish_sign(const struct publish *p, const struct p256_private *key,
		 uint8_t ret_trailer[PUBLISH_TRAILER_1_BYTES]) must_check;

/*
 * Trailer 3. publish_split() takes it for none, so that nothing but who expects a proof can be
 * given one: publish_split_zk() takes nothing else. Errors of all three as above and schnorr.h's.
 */
int publish_split_zk(struct bytes payload, struct publish_trailer *ret_t) must_check;
int publish_verify_zk(const struct publish *p, const struct publish_trailer *t,
		      const struct p256_point *key) must_check;
int publish_prove_zk(const struct publish *p, const struct secret32 *key,
		     const struct p256_point *public,
		     uint8_t ret_trailer[PUBLISH_TRAILER_3_BYTES]) must_check;

/* first || u16 properties || trailer. */
size_t publish_proof_bytes(struct bytes properties, struct bytes trailer);
void publish_write_proof(uint8_t first, struct bytes properties, struct bytes trailer,
			 struct bytes_writer *w);
/*
 * Rebuilds the sender's input from a delivered envelope (body = bytes 0..124 || 00 || ct, client id
 * = origin, topic as delivered) and takes e->proof apart: *ret_t must hold for *ret_p under the
 * origin's certified key, whether it is of a batch or not (the body is an envelope, having been
 * one). Views into e and topic. 0, -ENOENT for an empty proof, -EBADMSG.
 */
int publish_take_proof(const struct envelope *e, struct bytes topic, struct publish *ret_p,
		       struct publish_trailer *ret_t) must_check;
/* The same, and checks the signature. *ret_first and *ret_properties are the proven ones. 0,
 * -ENOENT, -EBADMSG, or p256.h's. */
int publish_check_proof(const struct envelope *e, struct bytes topic,
			const struct p256_public *origin_key, uint8_t *ret_first,
			struct bytes *ret_properties) must_check;

#endif
