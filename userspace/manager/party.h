/* SPDX-License-Identifier: MIT */
/*
 * Parties as the registry has them: devices, receivers, distributors, managers. One id, one signing
 * key, and the roles that were given to it.
 */
#ifndef SSDTF_MANAGER_PARTY_H
#define SSDTF_MANAGER_PARTY_H

#include "userspace/bundle/bundle.h"
#include "userspace/crypto/rsa.h"
#include "userspace/manager/manager.h"

#define PARTY_ANY_ROLE	 0xff
#define PARTY_ROLES_ROOM 48 /* all four names, commas, terminator */

struct party {
	char id[MANAGER_ID_ROOM];
	uint8_t roles; /* enum record_roles */
	uint8_t flags; /* enum record_party_flags */
	struct p256_point signing;
	bool has_previous; /* signatures by the key before this one hold until then, too */
	struct p256_point previous;
	uint64_t previous_until_ms;
	bool has_encryption;
	struct p256_point encryption;
	uint8_t admission_flags; /* enum bundle_admission_flags, but for PREVIOUS */
	uint8_t k_adm[ADMISSION_KEY_BYTES];
	bool has_previous_k_adm;
	uint8_t previous_k_adm[ADMISSION_KEY_BYTES];
	uint64_t k_adm_until_ms;
	size_t unwrap_bytes; /* of a distributor: its token's unwrapping key; else 0 */
	uint8_t unwrap[RSA_SPKI_BYTES_MAX];
	uint64_t bundle_serial; /* of the last bundle that was made for it; 0: none was */
	/* Names of the scopes it may publish under, where they were asked for: */
	unsigned n_scopes;
	char scopes[RECORD_SCOPES_MAX][MANAGER_ID_ROOM];
};

/* "device,receiver" */
char *party_roles_text(uint8_t roles, char out[PARTY_ROLES_ROOM]);

/* Without its scopes. *ret_found tells whether it is there. */
int party_find(struct manager *m, const char *id, struct party *ret_p, bool *ret_found) must_check;
/* -ESRCH with words where it is not enrolled, or not in one of these roles. */
int party_load(struct manager *m, const char *id, uint8_t roles, struct party *ret_p) must_check;
/* Whose key is this, besides `id`: *ret_owner is empty where it is nobody's. A key is a party's or
 * a gateway's, and serves one purpose. */
int party_key_owner(struct manager *m, const char *id, const struct p256_point *key,
		    char ret_owner[MANAGER_ID_ROOM]) must_check;
/* Inserts or updates; without its scopes. */
int party_store(struct manager *m, const struct party *p) must_check;

/*
 * Many at a time, with their scopes, in the order of their ids. q selects PARTY_COLUMNS and then a
 * scope (or NULL), a row for each scope, ordered by id and scope; PARTY_ALL_SQL is the plainest.
 * next() is false after the last and where something went wrong, which registry_end(&it.q) then
 * tells.
 */
#define PARTY_COLUMNS                                                          \
	"party.id, roles, party.flags, signing, previous, previous_until_ms,"  \
	" encryption, admission_flags, k_adm, previous_k_adm, k_adm_until_ms," \
	" party.unwrap, bundle_serial"
#define PARTY_ALL_SQL                                           \
	"SELECT " PARTY_COLUMNS ", permission.scope FROM party" \
	" LEFT JOIN permission ON permission.party = party.id ORDER BY id, permission.scope"

struct party_rows {
	struct registry_query q;
	bool started;
};

bool party_rows_next(struct party_rows *it, struct party *p);

/* As a record; the views are into p. A previous key that no longer holds is left out. */
void party_record(const struct manager *m, const struct party *p, struct record_party *ret_r);

#endif
