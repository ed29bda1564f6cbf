// SPDX-License-Identifier: MIT
#include "bench/lab/figure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/compiler.h"

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int by_us(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

struct figure figure_of(const double *values, unsigned n)
{
	struct figure f = { n, NAN, NAN, NAN };
	double v[FIGURE_VALUES_MAX];

	BUG_ON(n > FIGURE_VALUES_MAX);
	if (!n)
		return f;
	memcpy(v, values, n * sizeof(v[0]));
	qsort(v, n, sizeof(v[0]), by_value);
	f.min = v[0];
	f.max = v[n - 1];
	f.median = n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
	return f;
}

struct figure_latency figure_latency_of(uint32_t *us, size_t n)
{
	struct figure_latency l = { 0 };

	if (!n)
		return l;
	qsort(us, n, sizeof(us[0]), by_us);
	l.min = us[0];
	l.median = us[n / 2];
	l.p99 = us[n - 1 - (n - 1) / 100];
	l.max = us[n - 1];
	return l;
}
