/* SPDX-License-Identifier: MIT */
/*
 * The report of layer anonymity: of each outlet and kind of message the number of senders that an
 * observer cannot tell apart (s), as store.h counts them.
 */
#ifndef SSDTF_DISTRIBUTOR_ANONYMITY_H
#define SSDTF_DISTRIBUTOR_ANONYMITY_H

#include <stdbool.h>

#include "userspace/distributor/config.h"

/* To stdout, of the newest period. The exit code. Trouble ends the program (exit_with). */
int anonymity_report(const struct config *c, bool json);

#endif
