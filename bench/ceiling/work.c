// SPDX-License-Identifier: MIT
#include "bench/ceiling/work.h"

#include <string.h>
#include <sysexits.h>

#include "userspace/base/log.h"

struct work *works_add(struct works *w, const char *name,
		       void (*run)(const struct work *w, unsigned runs), void *bed)
{
	struct work *new = &w->list[w->n++];

	BUG_ON(w->n > WORKS_MAX);
	*new = (struct work){ .name = name, .part = w->part, .each = 1, .run = run, .bed = bed };
	return new;
}

void work_must(int ret, const char *what)
{
	if (ret)
		exit_with(EX_SOFTWARE, "%s: %s", what, strerror(-ret));
}

void work_prove(bool holds, const char *what)
{
	if (!holds)
		exit_with(EX_SOFTWARE, "not timed, because it is wrong: %s", what);
}
