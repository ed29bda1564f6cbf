// SPDX-License-Identifier: MIT
#include "userspace/distributor/rename.h"

#include <string.h>

/* The level that topic begins with; *topic moves behind it and its slash. False: no level more. */
static bool next_level(struct bytes *topic, bool *more, struct bytes *ret_level)
{
	const uint8_t *slash;

	if (!*more)
		return false;
	slash = topic->n ? memchr(topic->p, '/', topic->n) : NULL;
	*ret_level = bytes_of(topic->p, slash ? (size_t)(slash - topic->p) : topic->n);
	*more = slash;
	if (slash)
		*topic = bytes_of(slash + 1, topic->n - ret_level->n - 1);
	return true;
}

bool rename_betrays(struct bytes topic, struct bytes id)
{
	struct bytes level;
	bool more = true;

	while (next_level(&topic, &more, &level))
		if (!bytes_equal(level, id) && level.n > id.n &&
		    memmem(level.p, level.n, id.p, id.n))
			return true;
	return false;
}

size_t rename_bytes(struct bytes prefix, struct bytes topic, struct bytes id, size_t name_n)
{
	size_t n = prefix.n + 1 + topic.n;
	struct bytes level;
	bool more = true;

	while (next_level(&topic, &more, &level))
		if (bytes_equal(level, id))
			n = n - id.n + name_n;
	return n;
}

void rename_write(struct bytes prefix, struct bytes topic, struct bytes id, struct bytes name,
		  struct bytes_writer *w)
{
	struct bytes level;
	bool more = true;

	bytes_write(w, prefix);
	while (next_level(&topic, &more, &level)) {
		bytes_write_u8(w, '/');
		bytes_write(w, bytes_equal(level, id) ? name : level);
	}
}
