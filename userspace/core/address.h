/* SPDX-License-Identifier: MIT */
/*
 * A listening address as people write it: 192.0.2.1:1883, [2001:db8::1]:1883, localhost:1883.
 * Numeric but for localhost, so that starting never waits for a name server. Port 0: any free one.
 */
#ifndef SSDTF_CORE_ADDRESS_H
#define SSDTF_CORE_ADDRESS_H

#include <stdint.h>
#include <sys/socket.h>

#include "userspace/base/compiler.h"

#define ADDRESS_TEXT_BYTES_MAX 64 /* with the terminator */
#define ADDRESS_BYTES	       16

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
};

/* -EINVAL: not such a text. */
int address_parse(const char *text, struct address *ret_address) must_check;
/* The address of a connected socket's peer without its port, IPv4 as ::ffff:a.b.c.d. -errno. */
int address_of_peer(int fd, uint8_t ret_address[ADDRESS_BYTES]) must_check;
/* Writes the text of any TCP address. Returns out. */
char *address_text(const struct address *a, char out[ADDRESS_TEXT_BYTES_MAX]);

#endif
