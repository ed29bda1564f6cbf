/* SPDX-License-Identifier: MIT */
/*
 * Who may publish under a scope, and who may read it. Reading is a grant (PROTOCOL 3): a conversion
 * key for one receiver at one gateway under one key id, made from a fresh x of its own.
 */
#ifndef SSDTF_MANAGER_ACCESS_H
#define SSDTF_MANAGER_ACCESS_H

#include "userspace/manager/grants.h"

/* Takes effect with the next bundles. Doing it again changes nothing. */
int access_allow(struct manager *m, const char *scope, const char *device) must_check;
int access_deny(struct manager *m, const char *scope, const char *device) must_check;

struct access_grant {
	const char *scope;
	const char *receiver;
	const char *gateway; /* NULL: the only one */
	bool proof;	     /* the origin proof is delivered and required (PROTOCOL 4) */
	uint32_t valid_days; /* 0: no end */
};

/*
 * Makes the grant for the scope's present epoch. A grant that stands on the same terms is told
 * again and nothing is changed; other terms are -EEXIST. One that has run out is replaced.
 */
int access_grant(struct manager *m, const struct access_grant *g) must_check;

/*
 * The same for any grant of the scope's present epoch: g has who, what it converts, its outlet, its
 * flags and how long it is to hold. what and name are for people ("scope", its name).
 */
int access_make(struct manager *m, struct grant *g, const struct scope *s, const char *what,
		const char *name, bool *ret_made) must_check;

#endif
