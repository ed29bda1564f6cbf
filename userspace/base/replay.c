// SPDX-License-Identifier: MIT
#include "userspace/base/replay.h"

#include <stdbool.h>

#include "userspace/base/compiler.h"

enum replay_verdict replay_check(const struct replay_window *w, uint64_t counter)
{
	uint64_t below;

	if (counter == 0)
		return REPLAY_BELOW;
	if (counter > w->highest)
		return REPLAY_NEW;
	if (counter == w->highest)
		return REPLAY_SEEN;
	below = w->highest - 1 - counter;
	if (below >= REPLAY_WINDOW_BITS)
		return REPLAY_BELOW;
	return w->below[below / 64] >> below % 64 & 1 ? REPLAY_SEEN : REPLAY_NEW;
}

/* Moves the window up by n places, n >= 1; the place of the old highest becomes a set bit. */
static void shift(struct replay_window *w, uint64_t n)
{
	uint64_t lo = w->below[0], hi = w->below[1];
	bool had = w->highest != 0;

	if (n >= 128) {
		hi = lo = 0;
	} else if (n >= 64) {
		hi = lo << (n - 64);
		lo = 0;
	} else {
		hi = hi << n | lo >> (64 - n);
		lo <<= n;
	}
	if (had && n <= 64)
		lo |= 1ull << (n - 1);
	else if (had && n <= 128)
		hi |= 1ull << (n - 65);
	w->below[0] = lo;
	w->below[1] = hi;
}

void replay_accept(struct replay_window *w, uint64_t counter)
{
	BUG_ON(replay_check(w, counter) != REPLAY_NEW);
	if (counter > w->highest) {
		shift(w, counter - w->highest);
		w->highest = counter;
	} else {
		uint64_t below = w->highest - 1 - counter;

		w->below[below / 64] |= 1ull << below % 64;
	}
}
