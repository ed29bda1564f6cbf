/* SPDX-License-Identifier: MIT */
/*
 * Timers on a hashed wheel: arming, moving and cancelling cost the same however many there are.
 * Time is what the caller says it is (milliseconds, never going back), so tests run on a clock of
 * their own. A timer fires at its time or up to TIMER_TICK_MS later. Embedded in its owner; one
 * thread.
 */
#ifndef SSDTF_BASE_TIMER_H
#define SSDTF_BASE_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/list.h"

#define TIMER_TICK_MS 16
#define TIMER_SLOTS   1024

struct timer {
	struct list link;
	uint64_t at_ms;
	void (*fire)(struct timer *t);
};

struct timer_wheel {
	struct list slots[TIMER_SLOTS];
	uint64_t occupied[TIMER_SLOTS / 64]; /* a bit for each slot that is not empty */
	uint64_t tick_now;		     /* the tick up to which everything has fired */
	unsigned armed;
};

void timer_wheel_init(struct timer_wheel *w, uint64_t now_ms);
void timer_init(struct timer *t, void (*fire)(struct timer *t));
/* Arms, or moves one that is armed. */
void timer_arm(struct timer_wheel *w, struct timer *t, uint64_t at_ms);
void timer_cancel(struct timer_wheel *w, struct timer *t);
static inline bool timer_armed(const struct timer *t)
{
	return !list_empty(&t->link);
}

/* Fires what is due. fire() may arm, move and cancel any timer and free the owner of its own. */
void timer_wheel_advance(struct timer_wheel *w, uint64_t now_ms);
/* How long from now_ms until something may be due; UINT64_MAX where nothing is armed. An answer may
 * be early (a slot's timer may be a later turn's), never late. */
uint64_t timer_wheel_wait_ms(const struct timer_wheel *w, uint64_t now_ms);

#endif
