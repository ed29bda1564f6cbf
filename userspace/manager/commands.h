/* SPDX-License-Identifier: MIT */
/* The commands of ssdtf-admin: what each is called, takes and says of itself, and what it runs. */
#ifndef SSDTF_MANAGER_COMMANDS_H
#define SSDTF_MANAGER_COMMANDS_H

#include <stddef.h>

#include "userspace/manager/manager.h"
#include "userspace/manager/options.h"

/* READS and WRITES run in a transaction of that kind; bundles and what brings them begin and end
 * their own, and so does what has to do with the audit log. */
enum commands_how { COMMANDS_SETS_UP, COMMANDS_READS, COMMANDS_WRITES, COMMANDS_BUNDLES };

struct command {
	const char *name;
	enum commands_how how;
	int (*run)(struct manager *m, const struct options *o); /* NULL: setup */
	struct options_rules rules;
};

extern const struct command commands[];
extern const size_t commands_n;

#endif
