/* SPDX-License-Identifier: MIT */
/*
 * The pins of the admission filter: a folder in a bpffs, with a name in it for each program and map
 * (bpf/admission.h). There are all of them or none: they are made in a folder beside it, which then
 * gets the name. One who is killed meanwhile leaves that folder, and the next one clears it away.
 */
#ifndef SSDTF_ADMIT_PINS_H
#define SSDTF_ADMIT_PINS_H

#include <stdbool.h>
#include <sys/types.h>

#include "userspace/admit/load.h"
#include "userspace/base/compiler.h"

#define PINS_WHY_BYTES 1024

struct pins_owner {
	uid_t user;  /* the broker's */
	gid_t group; /* of who may look */
};

/*
 * All: 0, or -errno and one line in why. -ENODEV: the folder above is no bpffs. -EBUSY: another
 * ssdtf-admit is at work there.
 */
/* -EEXIST: there are pins already. */
int pins_make(const char *dir, const struct load *l, const struct pins_owner *owner,
	      char why[PINS_WHY_BYTES]) must_check;
/* -ENOENT: there are none. */
int pins_remove(const char *dir, char why[PINS_WHY_BYTES]) must_check;
/* Can the user come as far as dir? False where a folder above it is closed to him. */
bool pins_reachable(const char *dir, uid_t user);

#endif
