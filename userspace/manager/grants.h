/* SPDX-License-Identifier: MIT */
/*
 * Grants as the registry has them, and how one is made (PROTOCOL 3, 12).
 *
 *   level 0 ── ordinary: a → d of a receiver ──────────────────────────► receiver
 *      └────── hop h: a → s1 ──► distributor ── outlet g: s1 → s2 ──► gateway ── s2 → d ──►
 * receiver └─── outlet g: s1 → d of a receiver
 *
 * Each conversion key is the quotient of two secrets, from / to. The scope's a and the secrets of
 * hops are in the registry as the token sealed them, and in clear only in locked memory while a
 * grant is made. What a receiver ends in is forgotten at once.
 */
#ifndef SSDTF_MANAGER_GRANTS_H
#define SSDTF_MANAGER_GRANTS_H

#include "userspace/base/text.h"
#include "userspace/bundle/record.h"
#include "userspace/crypto/grant.h"
#include "userspace/crypto/rsa.h"
#include "userspace/manager/manager.h"
#include "userspace/manager/scope.h"

#define GRANTS_HEX_ROOM TEXT_HEX_SIZE(GRANT_ID_BYTES)

struct grant {
	uint8_t id[GRANT_ID_BYTES];
	bool has_from; /* it converts what that grant ends in; else level 0 */
	uint8_t from[GRANT_ID_BYTES];
	uint32_t key_id;
	uint8_t flags;		       /* enum record_grant_flags */
	char gateway[MANAGER_ID_ROOM]; /* in whose bundle it is */
	char receiver[MANAGER_ID_ROOM];
	char upstream[MANAGER_ID_ROOM]; /* who converts, where it is not the gateway; or "" */
	char outlet[MANAGER_ID_ROOM];	/* the outlet whose grant it is, or behind which; or "" */
	uint32_t valid_days;
	uint64_t not_before_ms, not_after_ms;
	struct p256_point b, x;		    /* not of a hop */
	uint8_t secret[SCOPE_SEALED_BYTES]; /* of a hop */
	uint8_t wrapped[RSA_WRAPPED_BYTES_MAX];
	size_t wrapped_bytes;
	bool replaced; /* another stands in its place; it runs out by itself */
	char prefix[SCOPE_FILTER_BYTES_MAX + 1]; /* of the outlet's topics */
};

static inline bool grants_is_hop(const struct grant *g)
{
	return g->flags & RECORD_GRANT_HOP;
}

/* "SELECT ... FROM grants g ...": a condition follows. */
#define GRANTS_SQL                                                                      \
	"SELECT g.id, g.from_id, g.key_id, g.flags, g.gateway, g.receiver, g.upstream," \
	" g.outlet, g.valid_days, g.not_before_ms, g.not_after_ms, g.b, g.x, g.secret," \
	" g.wrapped, g.next, o.prefix FROM grants g LEFT JOIN outlet o ON o.name = g.outlet"
/* One that holds at the time of the next parameter. */
#define GRANTS_IN_FORCE " (g.not_after_ms = 0 OR g.not_after_ms > ?)"

/* The row that q stands on. */
void grants_read(struct registry_query *q, struct grant *ret_g);
/* The one that stands, of this receiver at this gateway under this key id; outlet "" for none. */
int grants_find(struct manager *m, const char *gateway, const char *receiver, uint32_t key_id,
		const char *outlet, struct grant *ret_g, bool *ret_found) must_check;
int grants_load(struct manager *m, const uint8_t id[GRANT_ID_BYTES],
		struct grant *ret_g) must_check;
/* With the others behind it, and without a word about retired contexts (see revoke.h). */
int grants_delete(struct manager *m, const uint8_t id[GRANT_ID_BYTES]) must_check;

/* As a record. s is the scope of its key id; filter has room for the outlet's; the views are into
 * all three. */
#define GRANTS_FILTER_ROOM (SCOPE_FILTER_BYTES_MAX + 3)
void grants_record(const struct grant *g, const struct scope *s, char filter[GRANTS_FILTER_ROOM],
		   struct record_grant *ret_r);

/* What makes grants: it keeps what the next one may need again. */
struct grants_maker;
int grants_maker_new(struct manager *m, struct grants_maker **ret_k) must_check;
void grants_maker_free(struct grants_maker *k); /* NULL is fine */

/*
 * Makes the grant and stores it: its id, keys and secrets. The rest is the caller's: from, key id,
 * flags, who, times. The receiver's key is its present one.
 */
int grants_make(struct grants_maker *k, struct grant *g) must_check;
/* g takes the place of `old`, which holds until then at the latest (its own end may be earlier). */
int grants_replace(struct grants_maker *k, const struct grant *old, uint64_t until_ms,
		   struct grant *g) must_check;

/* Does the token open the hop's secret? */
int grants_check_secret(struct grants_maker *k, const struct grant *g) must_check;

#endif
