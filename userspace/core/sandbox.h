/* SPDX-License-Identifier: MIT */
/*
 * What the process takes from itself and for itself, once, before any thread and any peer's byte.
 */
#ifndef SSDTF_CORE_SANDBOX_H
#define SSDTF_CORE_SANDBOX_H

#include "userspace/base/compiler.h"

/*
 * No new privileges, no core dumps (they would hold admission keys and messages); as many
 * descriptors as the hard limit gives; SIGPIPE and SIGXFSZ are errors of calls, not deaths. -errno.
 */
int sandbox_enter(void) must_check;

#endif
