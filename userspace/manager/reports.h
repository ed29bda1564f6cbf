/* SPDX-License-Identifier: MIT */
/*
 * Reports and nacks that gateways passed on (PROTOCOL 7), kept in the registry: who complains of
 * whom, why, and what it signed, so that it can be shown to others. One that comes twice is kept
 * once; of more than REPORTS_MAX the oldest go.
 */
#ifndef SSDTF_MANAGER_REPORTS_H
#define SSDTF_MANAGER_REPORTS_H

#include <stdbool.h>

#include "userspace/client/lib/ssdtf_manager.h"
#include "userspace/manager/manager.h"

#define REPORTS_MAX 100000

/* Checks the reporter's own signature with the key that the registry has for it, and keeps the
 * outcome. *ret_new: it was not here. Within the caller's transaction. */
int reports_store(struct manager *m, const char *gateway, const struct ssdtf_report *r,
		  bool *ret_new) must_check;

/* One line a report, or one JSON object, from number `since` on. */
int reports_list(struct manager *m, uint32_t since, bool json) must_check;

#endif
