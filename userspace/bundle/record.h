/* SPDX-License-Identifier: MIT */
/*
 * What the manager states, as records: scope keys, grants, parties. One body format each, used
 * alone inside a signed statement (statement.h) and many at a time inside a signed bundle
 * (bundle.h). docs/PROTOCOL.md has the bytes. Decoded records are views into the bytes they came
 * from.
 *
 *   scope  := u32 key id || u32 epoch || u8+ name || u8 suite || u64 not before || u64 not after
 *             || A 65 || u32 rekey messages || u32 rekey seconds || u16 n || n * u16+ filter
 *   grant  := 8 grant id || u32 key id || u8 flags || u8+ receiver id || B 65 || A 65 || X 65
 *             || u64 not before || u64 not after || u8+ scope name || u16 n || n * u16+ filter
 *   party  := u8+ id || u8 roles || signing key 65 || u8 0 or 1 [|| encryption key 65]
 *             || u16 n || n * u8+ name of a scope it may publish under
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

struct record_scope {
	uint32_t key_id;
	uint32_t epoch;
	struct bytes name;
	uint8_t suite; /* enum hpke_suite: what senders are to use */
	uint64_t not_before_ms, not_after_ms;
	struct p256_point a;
	uint32_t rekey_messages; /* a sender opens a new HPKE context after that many */
	uint32_t rekey_seconds;	 /* and at the latest after so long */
	unsigned n_filters;
	struct bytes filters[RECORD_FILTERS_MAX];
};

enum record_grant_flags {
	RECORD_GRANT_PROOF = 1,	       /* the origin proof is delivered and required */
	RECORD_GRANT_IDS_REPLACED = 2, /* origin is an external id; a zero salt is taken */
};

struct record_grant {
	uint8_t grant_id[GRANT_ID_BYTES];
	uint32_t key_id;
	uint8_t flags;
	struct bytes receiver;
	struct p256_point b, a, x;
	uint64_t not_before_ms, not_after_ms;
	struct bytes scope;
	unsigned n_filters;
	struct bytes filters[RECORD_FILTERS_MAX];
};

enum record_roles {
	RECORD_ROLE_DEVICE = 1,	     /* publishes sealed payloads at level 0 */
	RECORD_ROLE_RECEIVER = 2,    /* subscribes; holds grants */
	RECORD_ROLE_DISTRIBUTOR = 4, /* upstream: may publish at level > 0 */
	RECORD_ROLE_MANAGER = 8,     /* reports are delivered to it */
};

struct record_party {
	struct bytes id;
	uint8_t roles;
	struct p256_point signing;
	bool has_encryption;
	struct p256_point encryption;
	unsigned n_scopes;
	struct bytes scopes[RECORD_SCOPES_MAX];
};

int record_scope_decode(struct bytes body, struct record_scope *ret_s) must_check;
void record_scope_encode(const struct record_scope *s, struct bytes_writer *w);
int record_grant_decode(struct bytes body, struct record_grant *ret_g) must_check;
void record_grant_encode(const struct record_grant *g, struct bytes_writer *w);
int record_party_decode(struct bytes body, struct record_party *ret_p) must_check;
void record_party_encode(const struct record_party *p, struct bytes_writer *w);

/* Fields that bundles have too: u8+ id, and a point of 65 bytes; what is neither makes r bad. */
struct bytes record_read_id(struct bytes_reader *r);
void record_read_point(struct bytes_reader *r, struct p256_point *p);

/* not_before <= now < not_after (0: no end). now 0 (no clock) counts as within. */
bool record_valid_at(uint64_t not_before_ms, uint64_t not_after_ms, uint64_t now_ms);

/* Not empty, UTF-8 without NUL, # alone in the last level, + alone in its own (MQTT 4.7.1). */
bool record_filter_is_valid(struct bytes filter);

/* Does an MQTT topic filter (with + and #, MQTT 4.7) match a topic name? `$` topics are matched by
 * no filter that begins with a wildcard. */
bool record_filter_matches(struct bytes filter, struct bytes topic);

#endif
