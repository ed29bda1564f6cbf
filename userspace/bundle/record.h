/* SPDX-License-Identifier: MIT */
/*
 * What the manager states, as records: scope keys, grants, parties. One body format each, used
 * alone inside a signed statement (statement.h) and many at a time inside a signed bundle
 * (bundle.h). docs/PROTOCOL.md has the bytes. Decoded records are views into the bytes they came
 * from.
 *
 *   scope  := u32 key id || u32 epoch || u8+ name || u8 suite || u8 flags || u64 not before
 *             || u64 not after || A 65 || u32 rekey messages || u32 rekey seconds
 *             || u16 n || n * u16+ filter || u16 n || n * u16+ public filter
 *   grant  := 8 grant id || 8 from || u32 key id || u8 flags || u8+ upstream (or empty)
 *             || u8+ receiver id || A 65 [|| B 65 || X 65 unless it is a hop's]
 *             || u64 not before || u64 not after || u8+ scope name || u16 n || n * u16+ filter
 *   party  := u8+ id || u8 roles || u8 flags || signing key 65
 *             || u8 0 or 1 [|| previous signing key 65 || u64 until]
 *             || u8 0 or 1 [|| encryption key 65]
 *             || u16 n || n * u8+ name of a scope it may publish under
 *   broker := u8+ gateway id || signing key 65 || u8 0 or 1 [|| next signing key 65 || u64 from]
 *
 * Times are milliseconds since 1970, "not after" exclusive, 0 for no end. Points are checked to be
 * on the curve by decode, ids and names to be ids (PROTOCOL 1), filters to be filters (MQTT 4.7),
 * the suite to be a known one. A flag or role that this version does not know is refused, since it
 * may take away what the known ones give. Errors: -EBADMSG.
 */
#ifndef SSDTF_BUNDLE_RECORD_H
#define SSDTF_BUNDLE_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/crypto/grant.h"
#include "userspace/crypto/p256.h"

#define RECORD_FILTERS_MAX    64 /* of one scope */
#define RECORD_SCOPES_MAX     64 /* that one party publishes under */
#define RECORD_NAME_BYTES_MAX 64

enum record_scope_flags {
	RECORD_SCOPE_PADDED = 1, /* plaintexts are padded (docs/PROTOCOL.md 2) */
};

struct record_scope {
	uint32_t key_id;
	uint32_t epoch;
	struct bytes name;
	uint8_t suite; /* enum hpke_suite: what senders are to use */
	uint8_t flags;
	uint64_t not_before_ms, not_after_ms;
	struct p256_point a;
	uint32_t rekey_messages; /* a sender opens a new HPKE context after that many */
	uint32_t rekey_seconds;	 /* and at the latest after so long */
	unsigned n_filters;
	struct bytes filters[RECORD_FILTERS_MAX]; /* where devices publish, at level 0 */
	unsigned n_public_filters;
	struct bytes public_filters[RECORD_FILTERS_MAX]; /* where distributors do, above it */
};

enum record_grant_flags {
	RECORD_GRANT_PROOF = 1,	       /* the origin proof is delivered and required */
	RECORD_GRANT_IDS_REPLACED = 2, /* origin is an external id; a zero salt is taken */
	RECORD_GRANT_HOP = 4,	       /* ends in a hop secret: the receiver can open nothing */
	RECORD_GRANT_PADDED = 8,       /* plaintexts are padded */
};

struct record_grant {
	uint8_t grant_id[GRANT_ID_BYTES];
	/* What it converts: level 0 where this is zeros, else messages whose block names this
	 * grant. */
	uint8_t from[GRANT_ID_BYTES];
	uint32_t key_id;
	uint8_t flags;
	/* Not empty: the distributor that converts by it, and from which alone messages whose block
	 * names it are taken. */
	struct bytes upstream;
	struct bytes receiver;
	struct p256_point a;
	struct p256_point b, x; /* not of a hop */
	uint64_t not_before_ms, not_after_ms;
	struct bytes scope;
	unsigned n_filters;
	struct bytes filters[RECORD_FILTERS_MAX];
};

enum record_roles {
	/* None: it was revoked. */
	RECORD_ROLE_DEVICE = 1,	     /* publishes sealed payloads at level 0 */
	RECORD_ROLE_RECEIVER = 2,    /* subscribes; holds grants */
	RECORD_ROLE_DISTRIBUTOR = 4, /* upstream: may publish at level > 0 */
	RECORD_ROLE_MANAGER = 8,     /* reports are delivered to it */
};

enum record_party_flags {
	RECORD_PARTY_ZK = 1, /* authenticates by SSDTF-ZK-1; its id is made of its key */
	RECORD_PARTY_CLAIM =
		2, /* its key is that of a claim code: it may claim, and nothing else */
};

struct record_party {
	struct bytes id;
	uint8_t roles;
	uint8_t flags;
	struct p256_point signing;
	bool has_previous;
	struct p256_point previous; /* signatures by it hold, too, */
	uint64_t previous_until_ms; /* before then; 0: without end */
	bool has_encryption;
	struct p256_point encryption;
	unsigned n_scopes;
	struct bytes scopes[RECORD_SCOPES_MAX];
};

/* Who signs for a gateway's broker: `signing` until next_from_ms, then `next`. */
struct record_broker {
	struct bytes gateway_id;
	struct p256_point signing;
	bool has_next;
	struct p256_point next;
	uint64_t next_from_ms;
};

int record_scope_decode(struct bytes body, struct record_scope *ret_s) must_check;
void record_scope_encode(const struct record_scope *s, struct bytes_writer *w);
int record_grant_decode(struct bytes body, struct record_grant *ret_g) must_check;
void record_grant_encode(const struct record_grant *g, struct bytes_writer *w);
int record_party_decode(struct bytes body, struct record_party *ret_p) must_check;
void record_party_encode(const struct record_party *p, struct bytes_writer *w);
/* The same of records in a bundle whose signature holds, but for their points, which are not looked
 * at: among 100,000 records that takes a second. Whoever uses a point checks it (PROTOCOL 3). */
int record_grant_decode_signed(struct bytes body, struct record_grant *ret_g) must_check;
int record_party_decode_signed(struct bytes body, struct record_party *ret_p) must_check;
int record_broker_decode(struct bytes body, struct record_broker *ret_b) must_check;
void record_broker_encode(const struct record_broker *b, struct bytes_writer *w);
/* An id of SSDTF-ZK-1 (PROTOCOL 16): base64url of the compressed key. */
#define RECORD_ZK_ID_CHARS 44
void record_zk_id(const struct p256_point *key, char ret_id[RECORD_ZK_ID_CHARS + 1]);
bool record_id_is_key(struct bytes id, const struct p256_point *key);
/* The same inside something larger: what is wrong makes r bad. */
void record_broker_read(struct bytes_reader *r, struct record_broker *b);

/* Fields that bundles have too: u8+ id, and a point of 65 bytes; what is neither makes r bad. */
struct bytes record_read_id(struct bytes_reader *r);
void record_read_point(struct bytes_reader *r, struct p256_point *p);

/* not_before <= now < not_after (0: no end). now 0 (no clock) counts as within. */
bool record_valid_at(uint64_t not_before_ms, uint64_t not_after_ms, uint64_t now_ms);

/* Not empty, UTF-8 without NUL, # alone in the last level, + alone in its own (MQTT 4.7.1). */
bool record_filter_is_valid(struct bytes filter);

/* A filter without wildcards that does not begin with '$': what can stand in front of public
 * topics.
 */
bool record_topic_is_valid(struct bytes topic);

/* Does an MQTT topic filter (with + and #, MQTT 4.7) match a topic name? `$` topics are matched by
 * no filter that begins with a wildcard. */
bool record_filter_matches(struct bytes filter, struct bytes topic);

#endif
