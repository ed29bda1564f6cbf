/* SPDX-License-Identifier: MIT */
/*
 * Outlets: what a distributor makes of one scope's messages for one group of consumers (PROTOCOL
 * 12). Its public topics begin with a prefix that is no other outlet's and meets no scope's
 * filters, so that a topic says whether a device or a distributor published to it.
 */
#ifndef SSDTF_MANAGER_OUTLET_H
#define SSDTF_MANAGER_OUTLET_H

#include "userspace/manager/grants.h"

#define OUTLET_ROTATE_SECONDS_MAX (366u * 24 * 60 * 60)

struct outlet_terms {
	const char *name;
	const char *scope;
	const char *distributor;
	const char *prefix;
	const char *ids;	 /* "own" (NULL), "shared", or the name of an id domain */
	uint32_t rotate_seconds; /* 0: external ids stay */
	const char *gateway;	 /* where it is published; NULL: at the hop's */
	const char *receiver;	 /* the one it is for; NULL: those who are granted it */
};

/* With its grant for the scope's present epoch. The same again changes nothing; other terms are
 * -EEXIST. */
int outlet_add(struct manager *m, const struct outlet_terms *t) must_check;

struct outlet {
	char name[MANAGER_ID_ROOM], scope[MANAGER_ID_ROOM], distributor[MANAGER_ID_ROOM];
	char gateway[MANAGER_ID_ROOM], domain[MANAGER_ID_ROOM];
	char receiver[MANAGER_ID_ROOM]; /* or "" */
	char prefix[SCOPE_FILTER_BYTES_MAX + 1];
	uint32_t rotate_seconds;
};

int outlet_find(struct manager *m, const char *name, struct outlet *ret_o,
		bool *ret_found) must_check;
/* -ESRCH with words where there is none. */
int outlet_load(struct manager *m, const char *name, struct outlet *ret_o) must_check;

/* Lets a receiver read what an outlet publishes. */
struct outlet_grant {
	const char *outlet;
	const char *receiver;
	uint32_t valid_days; /* 0: no end */
};

int outlet_grant(struct manager *m, const struct outlet_grant *t) must_check;

#endif
