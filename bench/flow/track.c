// SPDX-License-Identifier: MIT
#include "bench/flow/track.h"

enum track_verdict track_take(struct track *t, uint64_t number, uint64_t *ret_skipped)
{
	uint64_t step, back;

	*ret_skipped = 0;
	if (number >= t->next) {
		step = number - t->next + 1;
		t->seen = step < TRACK_BACK ? t->seen << step | 1 : 1;
		t->next = number + 1;
		*ret_skipped = step - 1;
		return TRACK_NEW;
	}
	back = t->next - 1 - number;
	if (back >= TRACK_BACK)
		return TRACK_LATE;
	if (t->seen >> back & 1)
		return TRACK_AGAIN;
	t->seen |= 1ull << back;
	return TRACK_LATE;
}
