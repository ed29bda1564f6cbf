/* SPDX-License-Identifier: MIT */
/*
 * Gateways as the registry has them: the broker's signing key and its token's unwrapping key.
 */
#ifndef SSDTF_MANAGER_GATEWAY_H
#define SSDTF_MANAGER_GATEWAY_H

#include "userspace/crypto/p256.h"
#include "userspace/crypto/rsa.h"
#include "userspace/manager/manager.h"

struct gateway {
	char id[MANAGER_ID_ROOM];
	struct p256_point broker;
	uint8_t spki[RSA_SPKI_BYTES_MAX];
	size_t spki_bytes;
};

/* The one of that id, or, id NULL, the only one there is. -ESRCH with words otherwise. */
int gateway_load(struct manager *m, const char *id, struct gateway *ret_g) must_check;
int gateway_find(struct manager *m, const char *id, struct gateway *ret_g,
		 bool *ret_found) must_check;
int gateway_insert(struct manager *m, const struct gateway *g) must_check;

#endif
