/* SPDX-License-Identifier: MIT */
/*
 * Root without its right to write where the mode says no (CAP_DAC_OVERRIDE), for a while.
 *
 * SoftHSM empties token.object at every login and writes it anew. Killed in between, a program
 * leaves no token at all, keys and everything. With token.object made read-only (mode 0400, once
 * the token is initialised) login goes on without writing; but root writes whatever the mode is.
 * This thread's capabilities only.
 */
#ifndef SSDTF_HSM_OVERRIDE_H
#define SSDTF_HSM_OVERRIDE_H

#include <stdbool.h>

/* True: it was there and is now gone, for override_restore(). */
bool override_drop(void);
void override_restore(bool dropped);

#endif
