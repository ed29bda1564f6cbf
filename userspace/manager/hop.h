/* SPDX-License-Identifier: MIT */
/*
 * Hops: a distributor gets a scope's messages as the gateway converted them, from a to a secret of
 * the hop's own (PROTOCOL 12). It can open none of them.
 */
#ifndef SSDTF_MANAGER_HOP_H
#define SSDTF_MANAGER_HOP_H

#include "userspace/manager/grants.h"

struct hop_terms {
	const char *scope;
	const char *distributor;
	const char *gateway; /* where it subscribes; NULL: the only one */
	bool proof;	     /* it gets, and checks, the origin proofs */
};

/* For the scope's present epoch. The same again changes nothing; other terms are -EEXIST, and so is
 * a second gateway for one distributor. */
int hop_add(struct manager *m, const struct hop_terms *t) must_check;
/* The one that stands for the scope's present epoch; -ESRCH with words. */
int hop_load(struct manager *m, const struct scope *s, const char *distributor,
	     struct grant *ret_g) must_check;

#endif
