/* SPDX-License-Identifier: MIT */
/*
 * The sealed payload of PROTOCOL 2: parse, build, raise by one level. Structure only; HPKE is in
 * hpke.h and conversion keys in grant.h.
 *
 *  0   2  4       8   12      20   28   44         77     109  125  126
 *  +---+--+-------+---+-------+----+----+----------+------+----+---+- - - -+----
 *  |5D7F|1|suite|key id|seq|counter|time|bind|enc=E|commit|salt|lvl|[block]| ct
 *  +---+--+-------+---+-------+----+----+----------+------+----+---+- - - -+----
 *   \------------- aad 0..43 -----------/
 */
#ifndef SSDTF_CRYPTO_ENVELOPE_H
#define SSDTF_CRYPTO_ENVELOPE_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/crypto/hpke.h"
#include "userspace/crypto/p256.h"

#define ENVELOPE_MAGIC		  0x5d7f
#define ENVELOPE_KEY_ID_AT	  4
#define ENVELOPE_COUNTER_AT	  12
#define ENVELOPE_AAD_BYTES	  44
#define ENVELOPE_FIXED_BYTES	  126 /* up to and with level */
#define ENVELOPE_BIND_BYTES	  16
#define ENVELOPE_COMMIT_BYTES	  32
#define ENVELOPE_SALT_BYTES	  16
#define ENVELOPE_GRANT_BYTES	  8
#define ENVELOPE_LEVEL_MAX	  8
#define ENVELOPE_ORIGIN_BYTES_MAX 64
#define ENVELOPE_INFO		  "ssdtf-mqtt/1"

/* A parsed envelope: numbers, and views into the payload it was parsed from. */
struct envelope {
	struct bytes whole;
	enum hpke_suite suite;
	uint32_t key_id;
	uint32_t seq;
	uint64_t counter;
	uint64_t time_ms;    /* since 1970; 0: no clock */
	struct bytes bind;   /* 16 */
	struct bytes enc;    /* 33, compressed; its form is checked, the curve is not */
	struct bytes commit; /* 32 */
	struct bytes salt;   /* 16 */
	uint8_t level;
	/* Only where level > 0: */
	struct bytes grant;  /* 8 */
	struct bytes x;	     /* 32 */
	struct bytes origin; /* 1..64, an id */
	struct bytes proof;  /* empty, or section 4's origin proof */
	struct bytes ct;     /* at least HPKE_TAG_BYTES */
};

/*
 * Structure alone: magic, version, suite, seq, level, block, origin an id, ct long enough.
 * -EBADMSG where it does not fit: PROTOCOL 7's reason 2. No curve arithmetic.
 */
int envelope_parse(struct bytes payload, struct envelope *ret_env) must_check;

/* SHA-256("ssdtf-bind-1" || salt || u16 id || u16 topic), its first 16 bytes. */
void envelope_bind(struct bytes salt, struct bytes id, struct bytes topic,
		   uint8_t out[ENVELOPE_BIND_BYTES]);
/* Does the envelope's bind fit its salt, this id and this topic? A zero salt is refused too. */
bool envelope_bind_fits(const struct envelope *e, struct bytes id, struct bytes topic);

/* What a sender keeps of an HPKE context between messages. */
struct envelope_sender {
	struct hpke_context hpke;
	unsigned forks; /* as context.h counts them: a child of a fork seals nothing with it */
	uint32_t key_id;
	uint32_t seq_next; /* HPKE_SEQ_MAX + 1: used up */
	struct p256_point enc;
	uint8_t commit[ENVELOPE_COMMIT_BYTES];
	uint8_t salt[ENVELOPE_SALT_BYTES];
};

/* Opens a context to scope key a: fresh ephemeral key, fresh salt. */
int envelope_sender_init(struct envelope_sender *s, enum hpke_suite suite, uint32_t key_id,
			 const struct p256_point *a) must_check;
/* The same with everything given: for known-answer tests only. */
int envelope_sender_init_with(struct envelope_sender *s, enum hpke_suite suite, uint32_t key_id,
			      const struct p256_point *a, const struct secret32 *r,
			      const uint8_t salt[ENVELOPE_SALT_BYTES]) must_check;
void envelope_sender_deinit(struct envelope_sender *s);

#define ENVELOPE_SEALED_BYTES(plain) (ENVELOPE_FIXED_BYTES + (plain) + HPKE_TAG_BYTES)

/*
 * Seals at seq_next and moves it on. Writes ENVELOPE_SEALED_BYTES(plain.n) bytes at out, which must
 * not overlap plain, unless that lies where its ciphertext will, ENVELOPE_FIXED_BYTES behind out.
 * -EOVERFLOW where the context is used up, or was opened before a fork: open another. -EINVAL where
 * id is no id or topic no topic's length.
 */
int envelope_seal(struct envelope_sender *s, uint64_t counter, uint64_t time_ms, struct bytes id,
		  struct bytes topic, struct bytes plain, uint8_t *out) must_check;

/* The block that a conversion puts behind level. */
struct envelope_block {
	struct bytes grant;  /* 8 */
	struct bytes x;	     /* 32 */
	struct bytes origin; /* 1..64 */
	struct bytes proof;
};

/*
 * The head of e one level higher: bytes 0..124, level + 1, the block. The ct that follows is e's,
 * unchanged, and is not written. Returns the bytes written through w's sticky error.
 */
void envelope_raise_head(const struct envelope *e, const struct envelope_block *b,
			 struct bytes_writer *w);
/* ENVELOPE_FIXED_BYTES + block */
size_t envelope_raised_head_bytes(const struct envelope_block *b);

/* What a receiver keeps of a context between its messages; wiped by envelope_receiver_deinit. */
struct envelope_receiver {
	struct hpke_context hpke;
	uint8_t commit[ENVELOPE_COMMIT_BYTES];
};

/*
 * The context that e belongs to: of e only suite and enc enter, so any other message with these
 * gives the same. dh is x(d * lift(e->x)), a the scope key of e->key_id. p256.h's errors.
 */
int envelope_receiver_init(struct envelope_receiver *r, const struct envelope *e,
			   const struct secret32 *dh, const struct p256_point *a) must_check;
void envelope_receiver_deinit(struct envelope_receiver *r);

/*
 * Opens a message of the context: compares its commit in constant time before it decrypts. out
 * holds ct.n - HPKE_TAG_BYTES and is wiped where ct does not open. That the level is not 0 and bind
 * fits, the caller has seen to (PROTOCOL 2). -EBADMSG, or p256.h's.
 */
int envelope_receiver_open(const struct envelope_receiver *r, const struct envelope *e,
			   uint8_t *out) must_check;
/* The three above in one, for a single message. */
int envelope_open(const struct envelope *e, const struct secret32 *dh, const struct p256_point *a,
		  uint8_t *out) must_check;

#endif
