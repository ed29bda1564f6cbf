/* SPDX-License-Identifier: MIT */
/*
 * The replay window of PROTOCOL 4: the highest counter and which of the 128 below it were accepted.
 * The broker keeps one per sender, a receiver one per origin. Caller's memory; storable as it is.
 */
#ifndef SSDTF_BASE_REPLAY_H
#define SSDTF_BASE_REPLAY_H

#include <stdint.h>

#define REPLAY_WINDOW_BITS 128

struct replay_window {
	uint64_t highest;  /* 0: nothing accepted yet (counters begin at 1) */
	uint64_t below[2]; /* bit i of below[i / 64]: highest - 1 - i was accepted */
};

enum replay_verdict {
	REPLAY_NEW,   /* not seen: may be accepted */
	REPLAY_SEEN,  /* accepted before */
	REPLAY_BELOW, /* older than the window reaches; counter 0 too */
};

enum replay_verdict replay_check(const struct replay_window *w, uint64_t counter);
/* Marks a counter that replay_check() called new. */
void replay_accept(struct replay_window *w, uint64_t counter);

#endif
