/* SPDX-License-Identifier: MIT */
/*
 * The first command, init: keys in the token, the registry, the public key for everybody else.
 */
#ifndef SSDTF_MANAGER_SETUP_H
#define SSDTF_MANAGER_SETUP_H

#include "userspace/manager/manager.h"

/*
 * Makes what there is not yet: the directory, the keys in the token, the registry, manager.pub; c
 * names everything. Repeating it finishes what was cut short, and takes a new path of the module or
 * the PIN file. Keys that a token has before belong to a registry elsewhere and are taken only
 * where adopt says so. Leaves m fit for manager_close().
 */
int setup_manager(struct manager *m, const struct manager_config *c, bool adopt,
		  uint64_t now_ms) must_check;

#endif
