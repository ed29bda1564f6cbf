/* SPDX-License-Identifier: MIT */
/*
 * The few rtnetlink requests (rtnetlink(7)) that two network namespaces and a veth pair need. A
 * socket speaks for the namespace that its maker was in, wherever the maker is by now. Addresses
 * are IPv4 in network order. One request is one round trip; 0 or the kernel's -errno.
 */
#ifndef SSDTF_BENCH_NETLINK_H
#define SSDTF_BENCH_NETLINK_H

#include <stdint.h>

#include "userspace/base/compiler.h"

#define NETLINK_LOOPBACK 1 /* the interface index of lo, in every namespace */

int netlink_open(int *ret_fd) must_check;

/* A veth pair: one end here, the other in the namespace peer_ns; both get this interface index,
 * which must be free in both. */
int netlink_add_veth(int fd, const char *name, const char *peer_name, int peer_ns,
		     int index) must_check;
int netlink_set_up(int fd, int index) must_check;
int netlink_add_address(int fd, int index, uint32_t address, uint8_t prefix) must_check;
int netlink_add_route(int fd, int index, uint32_t network, uint8_t prefix,
		      uint32_t gateway) must_check;
/* Every address of network/prefix becomes one of this machine's own. */
int netlink_add_local(int fd, uint32_t network, uint8_t prefix) must_check;

#endif
