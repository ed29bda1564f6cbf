/* SPDX-License-Identifier: MIT */
/*
 * Who may do what, as one gateway bundle says: parties, scopes, grants, in sorted arrays over the
 * bundle's own bytes. Built whole or not at all, read-only from then on, and counted: a job that
 * uses a party's key or a grant's blob holds the directory it came from, so a new bundle can take
 * its place at any moment.
 */
#ifndef SSDTF_BROKER_DIRECTORY_H
#define SSDTF_BROKER_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/broker/stated.h"
#include "userspace/bundle/bundle.h"
#include "userspace/crypto/p256.h"

struct verifier;

struct directory_scope {
	uint32_t key_id;
	uint64_t not_before_ms, not_after_ms;
	struct bytes name;
	unsigned n_filters, n_public_filters;
	struct bytes *filters;
	struct bytes *public_filters;
};

/* One by which this broker converts. */
struct directory_grant {
	uint32_t key_id;
	uint8_t grant_id[GRANT_ID_BYTES];
	uint8_t from[GRANT_ID_BYTES]; /* what it converts: zeros, or the grant that a block names */
	uint8_t flags;
	uint64_t not_before_ms, not_after_ms;
	struct bytes receiver;
	struct bytes wrapped_rk;
};

/* One by which a distributor, its upstream, converted what it publishes here. */
struct directory_outlet {
	uint8_t grant_id[GRANT_ID_BYTES];
	uint32_t key_id;
	uint8_t flags;
	uint64_t not_before_ms, not_after_ms;
	struct bytes upstream;
	struct bytes receiver; /* where it is no hop: the only one who gets it */
	unsigned n_filters;
	struct bytes *filters;
};

/* A key that was a party's before. */
struct directory_previous {
	struct p256_point key;
	uint64_t until_ms; /* 0: no end */
	struct verifier *verifier;
};

struct directory_party {
	struct bytes id;
	uint8_t roles;
	uint8_t flags;			/* enum record_party_flags */
	struct admission_device device; /* its rates change as it connects */
	struct p256_point signing;
	struct verifier *verifier;	     /* of signing; made when first asked for */
	struct directory_previous *previous; /* NULL: there is none */
	uint32_t *publishes;		     /* indexes of the scopes it may publish under */
	unsigned n_publishes;
	struct directory_grant *grants; /* its own, by key id, then from */
	unsigned n_grants;
};

/* A scope by its name, of which it has one for each epoch. */
struct directory_name {
	struct bytes name;
	uint32_t scope; /* index */
};

struct directory {
	unsigned refs;
	uint64_t serial;
	uint64_t not_after_ms; /* 0: no end */
	struct record_broker broker;
	/* SHA-256 of the broker's public points (PROTOCOL 5). */
	uint8_t broker_hash[32], next_hash[32];
	unsigned n_parties, n_previous, n_scopes, n_grants, n_outlets, n_revoked;
	struct directory_party *parties; /* by id */
	struct directory_previous *previous;
	struct directory_scope *scopes; /* by key id */
	struct directory_name *names;	/* of the scopes, by name */
	/* By receiver, key id and from; of those that have these alike the one to be preferred is
	 * last. */
	struct directory_grant *grants;
	struct directory_outlet *outlets; /* by grant id */
	struct bundle_gateway_revoked *revoked;
	struct stated stated;  /* what is passed on to parties */
	struct bytes *filters; /* all scopes' and outlets' */
	size_t n_filters;
	uint32_t *publishes; /* all parties' */
	uint8_t *body;	     /* what the views point into */
	size_t body_n;
};

/* -EBADMSG, -ENOMEM; *ret_why says more. The result has one reference. */
int directory_new(uint64_t serial, struct bytes body, struct directory **ret_dir,
		  const char **ret_why) must_check;
struct directory *directory_get(struct directory *d);
void directory_put(struct directory *d); /* NULL is fine */

/* Is it in force now? */
bool directory_in_force(const struct directory *d, uint64_t wall_ms);
struct directory_party *directory_party(const struct directory *d, struct bytes id);
/* PROTOCOL 15: its key is that of a claim code, good for $SSDTF/claim and for nothing else. */
static inline bool directory_may_only_claim(const struct directory_party *p)
{
	return p->flags & RECORD_PARTY_CLAIM;
}
/* Is the party in both and not revoked, and its signing key of then its own or its previous one
 * now? Then it is still the one that authenticated, and has its session. */
bool directory_same_key(const struct directory *old, const struct directory *now, struct bytes id);
/* Do signatures of this party by this key hold now? */
bool directory_key_holds(const struct directory *d, struct bytes id, const struct p256_point *key,
			 uint64_t wall_ms);
/* When the next of the previous keys ends, after now; 0: none does. */
uint64_t directory_next_end_ms(const struct directory *d, uint64_t wall_ms);
/* Does the broker sign by its next key by now? And the hash of the key that it signs by. */
bool directory_next_in_use(const struct directory *d, uint64_t wall_ms);
const uint8_t *directory_broker_hash(const struct directory *d, uint64_t wall_ms);
const struct directory_scope *directory_scope(const struct directory *d, uint32_t key_id);
/*
 * The grant with which this party reads key_id now, or NULL: level 0 where from is zeros, else what
 * carries that grant id. While keys change it may have several: of those that are valid it is the
 * one with the latest "not before", and of these the one with the highest id.
 */
const struct directory_grant *directory_grant(const struct directory_party *p, uint32_t key_id,
					      const uint8_t from[GRANT_ID_BYTES], uint64_t wall_ms);
/* Is the very grant g (terms and wrapped key) in d? */
bool directory_has_grant(const struct directory *d, const struct directory_grant *g);
/* The outlet of this grant id that is in force now, or NULL. */
const struct directory_outlet *directory_outlet(const struct directory *d,
						const uint8_t grant_id[GRANT_ID_BYTES],
						uint64_t wall_ms);
/* NULL: no memory. The point itself was checked with the bundle. */
struct verifier *directory_verifier(struct directory_party *p);
/* Of its previous key; NULL: it has none that holds now, or no memory. */
struct verifier *directory_previous_verifier(struct directory_party *p, uint64_t wall_ms);

/* Marks in d->stated what concerns p and has a serial above this one (PROTOCOL 13). */
void directory_mark_updates(struct directory *d, const struct directory_party *p, uint64_t after);

enum directory_verdict {
	DIRECTORY_PERMITTED,
	DIRECTORY_NO_KEY_ID,	 /* unknown, not yet or no longer valid: PROTOCOL 7 reason 4 */
	DIRECTORY_NOT_PERMITTED, /* not this party, or not on this topic: reason 5 */
};

/* May p publish under key_id on topic now, at level 0? (PROTOCOL 1: the key id must belong to the
 * scope.) */
enum directory_verdict directory_permits(const struct directory *d, const struct directory_party *p,
					 uint32_t key_id, struct bytes topic, uint64_t wall_ms);
/* The same above level 0: what it converted by grant_id (PROTOCOL 12). It was taken from its sender
 * before, so this grant's time counts and not that in which the key id may be sealed to. */
enum directory_verdict directory_permits_raised(const struct directory *d,
						const struct directory_party *p, uint32_t key_id,
						const uint8_t grant_id[GRANT_ID_BYTES],
						struct bytes topic, uint64_t wall_ms);

#endif
