/* SPDX-License-Identifier: MIT */
/*
 * A listening address as people write it: 192.0.2.1:1883, [2001:db8::1]:1883, localhost:1883.
 * Numeric but for localhost, so that starting never waits for a name server. Port 0: any free one.
 */
#ifndef SSDTF_CORE_ADDRESS_H
#define SSDTF_CORE_ADDRESS_H

#include <sys/socket.h>

#include "userspace/base/compiler.h"

#define ADDRESS_TEXT_BYTES_MAX 64 /* with the terminator */

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
};

/* -EINVAL: not such a text. */
int address_parse(const char *text, struct address *ret_address) must_check;
/* Writes the text of any TCP address. Returns out. */
char *address_text(const struct address *a, char out[ADDRESS_TEXT_BYTES_MAX]);

#endif
