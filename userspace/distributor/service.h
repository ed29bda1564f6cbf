/* SPDX-License-Identifier: MIT */
/*
 * The distributor as a process: configuration, files, descriptors and signals around relay.h and
 * session.h. One thread, poll(2).
 *
 *   upstream broker ──TCP──► conn/session ──► relay ──► conn/session ──TCP──► downstream broker
 *                                 ▲             │ jobs, rows
 *                  the same one where the       ▼
 *                  bundle names one gateway   hsmlink ──► ssdtf-hsmd × n,   store ──► SQLite
 */
#ifndef SSDTF_DISTRIBUTOR_SERVICE_H
#define SSDTF_DISTRIBUTOR_SERVICE_H

#include "userspace/distributor/config.h"

/* Until SIGTERM or SIGINT. Its trouble at the start ends the program (exit_with). The exit code. */
int service_run(const struct config *c);
/* Reads the manager's key and the bundle, and says what they hold. */
int service_check(const struct config *c);

#endif
