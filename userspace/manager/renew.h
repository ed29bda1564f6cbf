/* SPDX-License-Identifier: MIT */
/*
 * Grants made anew on the same terms, since a key that they were made from or for is replaced. The
 * old ones hold a while longer, so that what is queued can still be converted by them.
 */
#ifndef SSDTF_MANAGER_RENEW_H
#define SSDTF_MANAGER_RENEW_H

#include "userspace/manager/grants.h"

/* Which of those that stand, every condition that is set; and all that convert what they end in. */
struct renew_which {
	uint32_t key_id;      /* 0: any */
	const char *receiver; /* what it can open */
	const char *upstream; /* what it converts by as a distributor */
	const char *gateway;  /* what the gateway itself converts by */
};

/* key_id: what they are under from now on, 0 for the same. Tells of each one in m->out. */
int renew_grants(struct manager *m, const struct renew_which *which, uint32_t key_id,
		 uint64_t old_until_ms, uint32_t *ret_n) must_check;

#endif
