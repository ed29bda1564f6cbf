/* SPDX-License-Identifier: MIT */
/*
 * ssdtf-hsmd status: asks each worker of a socket directory how it is.
 */
#ifndef SSDTF_HSM_STATUS_H
#define SSDTF_HSM_STATUS_H

#include "userspace/base/compiler.h"

/* A line a worker on stdout. 0, or EX_UNAVAILABLE where there is none or one did not answer well.
 */
int status_run(const char *socket_dir) must_check;

#endif
