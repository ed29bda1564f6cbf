/* SPDX-License-Identifier: MIT */
/*
 * Bundles: what the registry says, written out as userspace/bundle reads it, signed in the token.
 *
 * The serial is taken and on the disk before a byte is read for the bundle, and DIR/lock is held
 * all the while: a bundle of a higher serial never says less than one of a lower. A file appears
 * whole, mode 0600, or not at all. But for serial and signature the same registry gives the same
 * bytes.
 */
#ifndef SSDTF_MANAGER_BUNDLE_MAKE_H
#define SSDTF_MANAGER_BUNDLE_MAKE_H

#include "userspace/manager/manager.h"

/* A bundle in memory: the caller's to wipe and to free. */
struct bundle_made {
	uint8_t *bytes;
	size_t n;
	uint64_t serial;
};

struct bundle_terms {
	const char *gateway;	  /* NULL: the only one */
	uint32_t valid_days;	  /* of the statement; 0: until one with a higher serial */
	struct bundle_made *made; /* not NULL: it goes there and not to a file, and is not told */
};

/* These begin and end transactions of their own. file is not looked at where t->made is there. A
 * gateway that was revoked gets a bundle with nothing in it, to forget everybody by. */
int bundle_make_gateway(struct manager *m, const struct bundle_terms *t,
			const char *file) must_check;
int bundle_make_party(struct manager *m, const struct bundle_terms *t, const char *id,
		      const char *file) must_check;
/* Where it subscribes and publishes, its hops and outlets say: t->gateway is not looked at. */
int bundle_make_distributor(struct manager *m, const struct bundle_terms *t, const char *id,
			    const char *file) must_check;
/* folder/gateway-ID.bundle, folder/party-ID.bundle for every party, and
 * folder/distributor-ID.bundle for every distributor that a hop from this gateway leads to. */
int bundle_make_all(struct manager *m, const struct bundle_terms *t, const char *folder) must_check;
/* Builds every body at every gateway and reads it back; signs and writes nothing. Inside the
 * caller's transaction. */
int bundle_make_check(struct manager *m) must_check;

#endif
