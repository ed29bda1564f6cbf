/* SPDX-License-Identifier: MIT */
/*
 * The manager's side of a broker test: scopes, parties and grants with all their keys, and the
 * gateway bundle that says so. Nothing is in force before world_apply().
 *
 * world_new() has this in it, which most tests need no more than:
 *
 *	scope "temp"  key id 1  site/+/temp, site/+/hum      dev1 and dev2 publish
 *	scope "cam"   key id 2  cam/#                        dev2 and cam1 publish
 *	rx1 reads temp; rx2 reads temp (with proof) and cam; rx3 reads nothing; mgr is the manager
 */
#ifndef SSDTF_TESTS_FAKE_WORLD_H
#define SSDTF_TESTS_FAKE_WORLD_H

#include "tests/fake_broker.h"
#include "userspace/bundle/bundle.h"

#define WORLD_SCOPES_MAX  8
#define WORLD_PARTIES_MAX 16
#define WORLD_GRANTS_MAX  1024
#define WORLD_REVOKED_MAX 1024
#define WORLD_LIST_MAX	  4 /* filters of a scope, scopes of a party */
#define WORLD_BUNDLE_MAX  (1u << 20)

#define WORLD_KEY_TEMP 1
#define WORLD_KEY_CAM  2

struct world_scope {
	const char *name;
	uint32_t key_id;
	enum hpke_suite suite;
	const char *filters[WORLD_LIST_MAX]; /* up to the first NULL, as all lists */
	const char *public_filters[WORLD_LIST_MAX];
	uint64_t not_before_ms, not_after_ms;
	struct secret32 a;
	struct p256_point point;
};

struct world_party {
	const char *id;
	uint8_t roles, flags;
	const char *scopes[WORLD_LIST_MAX];
	uint8_t admission_flags;
	uint8_t k_adm[ADMISSION_KEY_BYTES];
	uint8_t previous_k_adm[ADMISSION_KEY_BYTES]; /* by its admission flag */
	uint64_t previous_k_adm_until_ms;
	struct p256_private *key;
	struct p256_public *key_public;
	struct p256_point signing;
	struct p256_private *previous_key; /* NULL: it has none */
	struct p256_point previous;
	uint64_t previous_until_ms;
	struct secret32 b;
	struct p256_point encryption;
	bool gone; /* not in the next bundle */
};

struct world_grant {
	uint8_t id[GRANT_ID_BYTES];
	struct world_party *to;
	struct world_scope *scope;
	struct world_grant *from;	     /* NULL: from level 0 */
	struct world_party *upstream;	     /* NULL: the broker converts by it */
	const char *filters[WORLD_LIST_MAX]; /* none: the scope's, public ones with a from */
	uint8_t flags;
	uint64_t not_before_ms, not_after_ms;
	struct p256_point x;
	struct secret32 d; /* what it ends in: the receiver's, or a hop's secret */
	struct secret32 rk;
	uint8_t blob[FAKE_BLOB_BYTES];
	bool gone;
};

struct world {
	struct fake_broker *fake;
	struct world_scope scopes[WORLD_SCOPES_MAX];
	struct world_party parties[WORLD_PARTIES_MAX];
	struct world_grant grants[WORLD_GRANTS_MAX];
	struct bundle_gateway_revoked revoked[WORLD_REVOKED_MAX];
	unsigned n_scopes, n_parties, n_grants, n_revoked;
	uint64_t serial;
	bool has_next; /* the broker's next key is stated */
	uint64_t next_from_ms;
	uint8_t bundle[WORLD_BUNDLE_MAX];
	/* Statements that are passed on, each behind its length. */
	unsigned n_updates;
	uint64_t update_serial; /* of the last one */
	size_t updates_n;
	uint8_t updates[WORLD_BUNDLE_MAX / 2];

	/* The usual cast. */
	struct world_scope *temp, *cam;
	struct world_party *dev1, *dev2, *cam1, *rx1, *rx2, *rx3, *mgr;
	struct world_grant *rx1_temp, *rx2_temp, *rx2_cam;
};

/* The usual cast over a broker with SSDTF and these limits (NULL: the default), applied. */
struct world *world_new(const struct broker_config *config);
/* With its broker. */
void world_free(struct world *w);

struct world_scope *world_add_scope(struct world *w, const char *name, uint32_t key_id,
				    const char *filter);
struct world_party *world_add_party(struct world *w, const char *id, uint8_t roles,
				    const char *scope);
struct world_grant *world_add_grant(struct world *w, struct world_party *to,
				    struct world_scope *scope, uint8_t flags);
/* One that begins where `from` ends (NULL: with the scope's key), and by which upstream converts
 * (NULL: the broker). Of a hop the receiver can open nothing. */
struct world_grant *world_add_grant_from(struct world *w, struct world_party *to,
					 struct world_scope *scope, uint8_t flags,
					 struct world_grant *from, struct world_party *upstream);
/* In the bundle or not; NULL: never was. */
struct world_party *world_party_of(struct world *w, struct bytes id);
struct world_grant *world_grant_of(struct world *w, struct bytes grant_id);
/* Takes a grant away and says that its key id has a revocation, now. */
void world_revoke(struct world *w, struct world_grant *g);
/* States it anew, for the next bundle; returns the statement's serial. */
uint64_t world_state_scope(struct world *w, const struct world_scope *s);
uint64_t world_state_grant(struct world *w, const struct world_grant *g);
uint64_t world_state_party(struct world *w, const struct world_party *p);
uint64_t world_state_broker(struct world *w);
uint64_t world_state(struct world *w, enum statement_kind kind, struct bytes body);
/* Another signing key for a party. */
void world_new_key(struct world_party *p);
/* The same, and the one that it had is its previous one until then (0: for good). */
void world_rotate_key(struct world_party *p, uint64_t until_ms);

/* The bundle as it stands. */
struct bytes world_bundle(struct world *w);
/* Applies the bundle with the next serial; it must be taken. */
void world_apply(struct world *w);
/* A restart, with the bundle applied again under its serial. */
void world_restart(struct world *w);

#endif
