// SPDX-License-Identifier: MIT
#define _XOPEN_SOURCE	700 /* strptime */
#define _DEFAULT_SOURCE	    /* timegm */
#include "userspace/manager/rotate.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "userspace/manager/rotate_impl.h"

#define TIME_FORMAT "%Y-%m-%dT%H:%M:%SZ"

char *rotate_time_text(uint64_t ms, char out[ROTATE_TIME_ROOM])
{
	time_t s = (time_t)(ms / 1000);
	struct tm tm;

	if (!gmtime_r(&s, &tm) || !strftime(out, ROTATE_TIME_ROOM, TIME_FORMAT, &tm))
		(void)snprintf(out, ROTATE_TIME_ROOM, "never");
	return out;
}

int rotate_time(struct manager *m, const char *text, uint64_t *ret_ms)
{
	struct tm tm = { 0 };
	const char *end = strptime(text, TIME_FORMAT, &tm);
	time_t s = end && !*end ? timegm(&tm) : -1;
	char again[ROTATE_TIME_ROOM];

	/* The 31st of February comes back as another day. */
	if (s < 0 || strcmp(rotate_time_text((uint64_t)s * 1000, again), text) != 0)
		return manager_fail(m, -EINVAL, "\"%.40s\" is no time such as 2027-01-31T23:59:59Z",
				    text);
	*ret_ms = (uint64_t)s * 1000;
	return 0;
}

int rotate_check_overlap(struct manager *m, const char *what, const char *name, const char *why,
			 uint64_t until_ms)
{
	char text[ROTATE_TIME_ROOM];

	if (until_ms <= m->now_ms)
		return 0;
	return manager_fail(m, -EBUSY, "%s \"%s\": %s until %s; rotate it again after that", what,
			    name, why, rotate_time_text(until_ms, text));
}
