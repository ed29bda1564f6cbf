/* SPDX-License-Identifier: MIT */
/*
 * Taking back. Whatever is revoked is gone from the next bundles. For every key id that somebody
 * could read and no longer may, the gateway's bundle tells when, so that it retires the contexts it
 * had seen by then (PROTOCOL 2): one conversion opens a whole context.
 *
 * Revoking again what was revoked before changes nothing; what never was there is -ESRCH, since a
 * mistyped id must not look like a revocation.
 */
#ifndef SSDTF_MANAGER_REVOKE_H
#define SSDTF_MANAGER_REVOKE_H

#include "userspace/manager/manager.h"

/* All of a receiver's for the scope, those by way of an outlet, too. gateway NULL: at every one. */
int revoke_grant(struct manager *m, const char *scope, const char *receiver,
		 const char *gateway) must_check;
int revoke_outlet_grant(struct manager *m, const char *outlet, const char *receiver) must_check;
/* The outlet with all grants behind it; the hop with the distributor's outlets for the scope. */
int revoke_outlet(struct manager *m, const char *name) must_check;
int revoke_hop(struct manager *m, const char *scope, const char *distributor) must_check;
/* These roles of the party (or PARTY_ANY_ROLE), and what hangs on them; a party without a role is
 * gone. */
int revoke_party(struct manager *m, const char *id, uint8_t roles) must_check;
/* The gateway and all grants at it. It is remembered, so that it can be sent a last bundle. */
int revoke_gateway(struct manager *m, const char *id) must_check;

#endif
