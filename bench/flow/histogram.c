// SPDX-License-Identifier: MIT
#include "bench/flow/histogram.h"

#include <math.h>

/* Values of one cell differ by less than their 128th; the first two rows of cells are exact. */
static unsigned cell_of(uint64_t value)
{
	unsigned shift;

	if (value < HISTOGRAM_STEPS)
		return (unsigned)value;
	if (value >> HISTOGRAM_BITS)
		value = (1ull << HISTOGRAM_BITS) - 1;
	shift = 63 - (unsigned)__builtin_clzll(value) - HISTOGRAM_STEPS_LOG;
	return (shift << HISTOGRAM_STEPS_LOG) + (unsigned)(value >> shift);
}

/* The middle of a cell. */
static uint64_t value_of(unsigned cell)
{
	unsigned row = cell >> HISTOGRAM_STEPS_LOG, shift;
	uint64_t low;

	if (row < 2)
		return cell;
	shift = row - 1;
	low = (uint64_t)(cell - (shift << HISTOGRAM_STEPS_LOG)) << shift;
	return low + ((1ull << shift) - 1) / 2;
}

void histogram_add(struct histogram *h, uint64_t value)
{
	if (!h->n || value < h->min)
		h->min = value;
	if (value > h->max)
		h->max = value;
	h->n++;
	h->cells[cell_of(value)]++;
}

uint64_t histogram_at(const struct histogram *h, double part)
{
	uint64_t wanted, seen = 0, value;
	unsigned i = 0;

	if (!h->n)
		return 0;
	wanted = (uint64_t)ceil(part * (double)h->n);
	if (wanted < 1)
		wanted = 1;
	while (i < HISTOGRAM_CELLS - 1 && (seen += h->cells[i]) < wanted)
		i++;
	value = value_of(i);
	return value < h->min ? h->min : value > h->max ? h->max : value;
}
