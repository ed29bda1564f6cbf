/* SPDX-License-Identifier: MIT */
/*
 * What the registry says, for people and for scripts: key=value lines into m->out, in the order of
 * ids. No secret is ever in them. And the check of the whole.
 */
#ifndef SSDTF_MANAGER_LIST_H
#define SSDTF_MANAGER_LIST_H

#include "userspace/manager/manager.h"

int list_parties(struct manager *m) must_check;
int list_gateways(struct manager *m) must_check;
int list_scopes(struct manager *m) must_check;
int list_grants(struct manager *m) must_check;
int list_outlets(struct manager *m) must_check;
int list_history(struct manager *m) must_check;

/* One of them with all that hangs on it; -ESRCH with words. */
int list_party(struct manager *m, const char *id) must_check;
int list_gateway(struct manager *m, const char *id) must_check;
int list_scope(struct manager *m, const char *name) must_check;
int list_outlet(struct manager *m, const char *name) must_check;
/* The manager itself. */
int list_manager(struct manager *m) must_check;

/* Is the registry whole, does the token open every scope's key, can every bundle be made? */
int list_check(struct manager *m) must_check;

#endif
