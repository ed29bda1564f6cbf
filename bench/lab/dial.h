/* SPDX-License-Identifier: MIT */
/*
 * A TCP connection to the server under test (bench/lab.h), begun and not waited for.
 */
#ifndef SSDTF_BENCH_DIAL_H
#define SSDTF_BENCH_DIAL_H

#include <stdint.h>

#include "userspace/base/compiler.h"

/* Addresses in the host's byte order: where the server is, and from which of our own, so that
 * closed connections' ports do not run out. The descriptor is non-blocking. -errno. */
int dial_from(uint32_t source, uint32_t server, uint16_t port, int *ret_fd) must_check;

#endif
