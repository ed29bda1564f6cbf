/* SPDX-License-Identifier: MIT */
/*
 * Key files that are handed over, and those that are made on request. PEM throughout. The manager
 * needs nobody's private key: one that is handed over by mistake is refused, and not looked into.
 */
#ifndef SSDTF_MANAGER_KEYFILE_H
#define SSDTF_MANAGER_KEYFILE_H

#include "userspace/crypto/p256.h"
#include "userspace/crypto/rsa.h"
#include "userspace/manager/manager.h"

/* One public P-256 key. */
int keyfile_read_public(struct manager *m, const char *path, struct p256_point *ret_key) must_check;

/*
 * What `ssdtf-hsmd keygen` prints: the broker's signing key, the token's unwrapping key, and the
 * key that bundles are sealed to. The RSA key may stand anywhere; of two P-256 keys the first is
 * the broker's. The bundle key is missing in a file from before there was one.
 */
struct keyfile_gateway {
	struct p256_point broker;
	bool has_bundle;
	struct p256_point bundle;
	uint8_t spki[RSA_SPKI_BYTES_MAX];
	size_t spki_bytes;
};
int keyfile_read_gateway(struct manager *m, const char *path,
			 struct keyfile_gateway *ret_g) must_check;

/*
 * FOLDER/NAME is a private key's file for a party that asked us to make its keys: what stands there
 * is kept, never overwritten (a repeated command finds it), what does not is made, mode 0600. Made
 * files go again when the transaction is rolled back. -ENOENT: there is none and make is false.
 */
int keyfile_private(struct manager *m, const char *folder, const char *name, bool make,
		    struct p256_point *ret_public) must_check;
/* The folder for it, mode 0700, where there is none. */
int keyfile_folder(struct manager *m, const char *folder) must_check;

#endif
