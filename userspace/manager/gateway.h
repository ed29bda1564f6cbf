/* SPDX-License-Identifier: MIT */
/*
 * Gateways as the registry has them: the broker's signing key, the one that it will sign with next,
 * its token's unwrapping key, and the key that bundles are sealed to on their way there.
 */
#ifndef SSDTF_MANAGER_GATEWAY_H
#define SSDTF_MANAGER_GATEWAY_H

#include "userspace/bundle/record.h"
#include "userspace/crypto/p256.h"
#include "userspace/crypto/rsa.h"
#include "userspace/manager/manager.h"

struct gateway {
	char id[MANAGER_ID_ROOM];
	struct p256_point broker;
	bool has_next;
	struct p256_point next; /* signs from next_from_ms on */
	uint64_t next_from_ms;
	bool has_bundle_key;
	struct p256_point bundle_key;
	uint64_t revoked_ms; /* 0: it was not */
	uint8_t spki[RSA_SPKI_BYTES_MAX];
	size_t spki_bytes;
};

/* The one of that id, or, id NULL, the only one there is. -ESRCH with words otherwise, and for one
 * that was revoked. */
int gateway_load(struct manager *m, const char *id, struct gateway *ret_g) must_check;
/* Those that were revoked, too. */
int gateway_find(struct manager *m, const char *id, struct gateway *ret_g,
		 bool *ret_found) must_check;
/* Inserts or updates. */
int gateway_store(struct manager *m, const struct gateway *g) must_check;
/* For an id that is enrolled again after it was revoked. */
int gateway_delete(struct manager *m, const char *id) must_check;

/* Whose signatures hold, as a record; the views are into g. */
void gateway_record(const struct gateway *g, struct record_broker *ret_r);

#endif
