/* SPDX-License-Identifier: MIT */
/*
 * What parties learn over the session that they have (PROTOCOL 13): statements that gateways'
 * bundles carry and brokers pass on.
 *
 *   changed ── update_*() ──► noted ── update_sign() ──► signed, of one serial ──► in every bundle
 *                               ▲                            │            for UPDATE_DAYS_STANDARD
 *                               └──── changed again ◄────────┘
 *
 * Noted is what it is about, and not the words: a statement says what holds when it is signed.
 * Whoever has had no bundle yet finds all in its first one, and is not told of anything twice.
 */
#ifndef SSDTF_MANAGER_UPDATE_H
#define SSDTF_MANAGER_UPDATE_H

#include "userspace/manager/grants.h"
#include "userspace/manager/party.h"

#define UPDATE_DAYS_STANDARD 30
#define UPDATE_DAYS_SETTING  "update_days"

/* The scope's last epoch, for those who publish under it. */
int update_scope(struct manager *m, const char *name) must_check;
/* A grant, for its receiver. Hops are a distributor's, which needs a bundle for the keys behind it.
 */
int update_grant(struct manager *m, const struct grant *g) must_check;
/* Who it is and by what keys it signs, for those who check its proofs. */
int update_party(struct manager *m, const char *id) must_check;
/* That it is nobody any more, for the same: before it and its permissions are gone. */
int update_party_revoked(struct manager *m, const struct party *p) must_check;
/* Who signs for the gateway, for everybody there. */
int update_broker(struct manager *m, const char *gateway) must_check;

/* Signs what this gateway's next bundle has to say, and forgets what is too old or void. In a
 * transaction; the serials are below those taken after it. */
int update_sign(struct manager *m, const char *gateway) must_check;
/* All that is signed for this gateway, by ascending serial, with the count in front. */
int update_write(struct manager *m, const char *gateway, struct bytes_writer *w) must_check;

#endif
