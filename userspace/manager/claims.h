/* SPDX-License-Identifier: MIT */
/*
 * Claims as the manager decides them (PROTOCOL 15): who was given a code, and brings a key of its
 * own, is certified with it, once.
 *
 *   waiting --a claim that holds--> claimed; the same key again is answered again, another refused
 */
#ifndef SSDTF_MANAGER_CLAIMS_H
#define SSDTF_MANAGER_CLAIMS_H

#include <stdbool.h>

#include "userspace/bundle/claim.h"
#include "userspace/manager/bundle_make.h"
#include "userspace/manager/manager.h"

struct session;

/* One claim, decided. */
struct claims_one {
	char id[MANAGER_ID_ROOM];
	enum claim_result result;
	const char *text;	  /* for the device's people; a constant */
	struct p256_point answer; /* CERTIFIED: to which its bundle is sealed */
	bool in_force;		  /* likewise: the gateway has its key already */
};

/*
 * What the broker passed on. Within the caller's transaction, and told only after that. -EBADMSG:
 * it is no claim, and nothing is answered; else as everywhere in the manager.
 */
int claims_decide(struct manager *m, const char *gateway, struct bytes forward,
		  struct claims_one *ret_c) must_check;

/* Tells the device, by way of the broker; who is certified gets its bundle, for which this begins
 * and ends transactions of its own. */
int claims_answer(struct manager *m, const struct bundle_terms *t, const struct claims_one *c,
		  struct session *s) must_check;

#endif
