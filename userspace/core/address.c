// SPDX-License-Identifier: MIT
#include "userspace/core/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 0..65535 in decimal digits and nothing else. */
static int parse_port(const char *text, uint16_t *ret_port)
{
	unsigned long port = 0;
	size_t n = strlen(text);

	if (n < 1 || n > 5 || strspn(text, "0123456789") != n)
		return -EINVAL;
	port = strtoul(text, NULL, 10);
	if (port > UINT16_MAX)
		return -EINVAL;
	*ret_port = (uint16_t)port;
	return 0;
}

static int parse_v6(const char *host, uint16_t port, struct address *ret_address)
{
	struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

	if (inet_pton(AF_INET6, host, &sin6.sin6_addr) != 1)
		return -EINVAL;
	memset(ret_address, 0, sizeof(*ret_address));
	memcpy(&ret_address->sa, &sin6, sizeof(sin6));
	ret_address->len = sizeof(sin6);
	return 0;
}

static int parse_v4(const char *host, uint16_t port, struct address *ret_address)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(port) };

	if (!strcmp(host, "localhost"))
		host = "127.0.0.1";
	if (inet_pton(AF_INET, host, &sin.sin_addr) != 1)
		return -EINVAL;
	memset(ret_address, 0, sizeof(*ret_address));
	memcpy(&ret_address->sa, &sin, sizeof(sin));
	ret_address->len = sizeof(sin);
	return 0;
}

int address_parse(const char *text, struct address *ret_address)
{
	const char *colon = strrchr(text, ':');
	char host[ADDRESS_TEXT_BYTES_MAX];
	uint16_t port;
	size_t n;

	if (!colon || parse_port(colon + 1, &port))
		return -EINVAL;
	n = (size_t)(colon - text);
	if (n >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, n);
	host[n] = '\0';
	if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		return parse_v6(host + 1, port, ret_address);
	}
	return parse_v4(host, port, ret_address);
}

int address_of_peer(int fd, uint8_t ret_address[ADDRESS_BYTES])
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct sockaddr_in6 sin6;
	struct sockaddr_in sin;

	if (getpeername(fd, (struct sockaddr *)&sa, &len))
		return -errno;
	memset(ret_address, 0, ADDRESS_BYTES);
	switch (sa.ss_family) {
	case AF_INET6:
		memcpy(&sin6, &sa, sizeof(sin6));
		memcpy(ret_address, &sin6.sin6_addr, ADDRESS_BYTES);
		return 0;
	case AF_INET:
		memcpy(&sin, &sa, sizeof(sin));
		memset(ret_address + 10, 0xff, 2);
		memcpy(ret_address + 12, &sin.sin_addr, 4);
		return 0;
	default:
		return -EAFNOSUPPORT;
	}
}

char *address_text(const struct address *a, char out[ADDRESS_TEXT_BYTES_MAX])
{
	char host[INET6_ADDRSTRLEN] = "?";
	struct sockaddr_in6 sin6;
	struct sockaddr_in sin;

	if (a->sa.ss_family == AF_INET6) {
		memcpy(&sin6, &a->sa, sizeof(sin6));
		(void)inet_ntop(AF_INET6, &sin6.sin6_addr, host, sizeof(host)); /* it has room */
		snprintf(out, ADDRESS_TEXT_BYTES_MAX, "[%s]:%u", host, ntohs(sin6.sin6_port));
	} else {
		memcpy(&sin, &a->sa, sizeof(sin));
		(void)inet_ntop(AF_INET, &sin.sin_addr, host, sizeof(host)); /* it has room */
		snprintf(out, ADDRESS_TEXT_BYTES_MAX, "%s:%u", host, ntohs(sin.sin_port));
	}
	return out;
}
