// SPDX-License-Identifier: MIT
#include "userspace/core/source.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PREFIX	     "/64"
#define PREFIX_BYTES 8

static const uint8_t v4_mapped[12] = { [10] = 0xff, [11] = 0xff };

static bool is_v4(const struct admission_source *s)
{
	return !memcmp(s->address, v4_mapped, sizeof(v4_mapped));
}

int source_parse(struct bytes text, struct admission_source *ret_s)
{
	struct bytes prefix = bytes_str(PREFIX);
	struct admission_source s = { { 0 } };
	char host[INET6_ADDRSTRLEN + 1];
	bool prefixed =
		text.n > prefix.n && !memcmp(text.p + text.n - prefix.n, prefix.p, prefix.n);

	if (prefixed)
		text.n -= prefix.n;
	if (!text.n || text.n >= sizeof(host) || memchr(text.p, '\0', text.n))
		return -EINVAL;
	memcpy(host, text.p, text.n);
	host[text.n] = '\0';
	if (inet_pton(AF_INET6, host, s.address) == 1) {
		if (!admission_source_is_host(s.address))
			memset(s.address + PREFIX_BYTES, 0, sizeof(s.address) - PREFIX_BYTES);
	} else {
		memcpy(s.address, v4_mapped, sizeof(v4_mapped));
		if (inet_pton(AF_INET, host, s.address + sizeof(v4_mapped)) != 1)
			return -EINVAL;
	}
	if (prefixed && admission_source_is_host(s.address))
		return -EINVAL;
	*ret_s = s;
	return 0;
}

char *source_text(const struct admission_source *s, char out[SOURCE_TEXT_BYTES_MAX])
{
	uint8_t prefix[sizeof(s->address)] = { 0 };
	char host[INET6_ADDRSTRLEN] = "?";

	if (is_v4(s)) {
		(void)inet_ntop(AF_INET, s->address + sizeof(v4_mapped), out,
				SOURCE_TEXT_BYTES_MAX); /* it has room */
		return out;
	}
	if (admission_source_is_host(s->address)) {
		(void)inet_ntop(AF_INET6, s->address, out, SOURCE_TEXT_BYTES_MAX); /* likewise */
		return out;
	}
	memcpy(prefix, s->address, PREFIX_BYTES);
	(void)inet_ntop(AF_INET6, prefix, host, sizeof(host)); /* it has room */
	/* Four groups at most, and "::". */
	snprintf(out, SOURCE_TEXT_BYTES_MAX, "%.*s" PREFIX,
		 (int)(SOURCE_TEXT_BYTES_MAX - sizeof(PREFIX)), host);
	return out;
}
