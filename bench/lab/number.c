// SPDX-License-Identifier: MIT
#include "bench/lab/number.h"

#include <errno.h>
#include <stdlib.h>
#include <sysexits.h>

#include "userspace/base/log.h"

unsigned number_first_of(const char *name, const char *arg, unsigned min, unsigned max,
			 const char **ret_end)
{
	unsigned long v;
	char *end;

	errno = 0;
	v = strtoul(arg, &end, 10);
	if (errno || end == arg || *arg < '0' || *arg > '9' || v < min || v > max)
		exit_with(EX_USAGE, "--%s: a number from %u to %u, not \"%s\"", name, min, max,
			  arg);
	*ret_end = end;
	return (unsigned)v;
}

unsigned number_of(const char *name, const char *arg, unsigned min, unsigned max)
{
	const char *end;
	unsigned v = number_first_of(name, arg, min, max, &end);

	if (*end)
		exit_with(EX_USAGE, "--%s: a number from %u to %u, not \"%s\"", name, min, max,
			  arg);
	return v;
}

double number_real_of(const char *name, const char *arg, double min, double max)
{
	char *end;
	double v = strtod(arg, &end);

	if (end == arg || *end || !(v >= min && v <= max))
		exit_with(EX_USAGE, "--%s: a number from %g to %.0f, not \"%s\"", name, min, max,
			  arg);
	return v;
}
