// SPDX-License-Identifier: MIT
#include "userspace/base/timer.h"

#include <string.h>

void timer_wheel_init(struct timer_wheel *w, uint64_t now_ms)
{
	for (unsigned i = 0; i < TIMER_SLOTS; i++)
		list_init(&w->slots[i]);
	memset(w->occupied, 0, sizeof(w->occupied));
	w->tick_now = now_ms / TIMER_TICK_MS;
	w->armed = 0;
}

static void note_occupied(struct timer_wheel *w, uint64_t tick)
{
	unsigned slot = tick % TIMER_SLOTS;
	uint64_t bit = 1ull << slot % 64;

	if (list_empty(&w->slots[slot]))
		w->occupied[slot / 64] &= ~bit;
	else
		w->occupied[slot / 64] |= bit;
}

void timer_init(struct timer *t, void (*fire)(struct timer *t))
{
	list_init(&t->link);
	t->at_ms = 0;
	t->fire = fire;
}

void timer_arm(struct timer_wheel *w, struct timer *t, uint64_t at_ms)
{
	/* Rounded up, and never into the tick that has passed, or it would wait a whole turn. */
	uint64_t tick = (at_ms + TIMER_TICK_MS - 1) / TIMER_TICK_MS;

	timer_cancel(w, t);
	if (tick <= w->tick_now)
		tick = w->tick_now + 1;
	t->at_ms = tick * TIMER_TICK_MS;
	list_add_tail(&w->slots[tick % TIMER_SLOTS], &t->link);
	note_occupied(w, tick);
	w->armed++;
}

void timer_cancel(struct timer_wheel *w, struct timer *t)
{
	if (!timer_armed(t))
		return;
	list_del(&t->link);
	note_occupied(w, t->at_ms / TIMER_TICK_MS);
	w->armed--;
}

/* Fires one slot's due timers; those of later turns of the wheel stay. */
static void fire_slot(struct timer_wheel *w, struct list *slot, uint64_t now_ms)
{
	struct list due, *pos, *tmp;

	list_init(&due);
	list_for_each_safe(pos, tmp, slot) {
		if (list_entry(pos, struct timer, link)->at_ms > now_ms)
			continue;
		list_del(pos);
		list_add_tail(&due, pos);
	}
	note_occupied(w, w->tick_now);
	/* One at a time from the front: fire() may cancel any that is still on the list. */
	while (!list_empty(&due)) {
		struct timer *t = list_first(&due, struct timer, link);

		list_del(&t->link);
		w->armed--;
		t->fire(t);
	}
}

void timer_wheel_advance(struct timer_wheel *w, uint64_t now_ms)
{
	uint64_t tick = now_ms / TIMER_TICK_MS;
	uint64_t slots = tick - w->tick_now;

	if (tick <= w->tick_now)
		return;
	if (slots > TIMER_SLOTS)
		slots = TIMER_SLOTS; /* a longer sleep has passed each slot once: that is enough */
	for (uint64_t i = tick - slots + 1; i <= tick; i++) {
		w->tick_now = i;
		fire_slot(w, &w->slots[i % TIMER_SLOTS], now_ms);
	}
	w->tick_now = tick;
}

/* How many ticks from now to the first slot with a timer; some there is. */
static unsigned next_occupied(const struct timer_wheel *w)
{
	const unsigned words = TIMER_SLOTS / 64;
	unsigned first = (w->tick_now + 1) % TIMER_SLOTS;

	for (unsigned i = 0; i <= words; i++) {
		unsigned word = (first / 64 + i) % words, slot;
		uint64_t bits = w->occupied[word];

		if (i == 0)
			bits &= UINT64_MAX << first % 64;
		if (!bits)
			continue;
		slot = 64 * word + (unsigned)__builtin_ctzll(bits);
		return (slot + TIMER_SLOTS - first) % TIMER_SLOTS + 1;
	}
	BUG_ON(true);
}

uint64_t timer_wheel_wait_ms(const struct timer_wheel *w, uint64_t now_ms)
{
	uint64_t at_ms;

	if (w->armed == 0)
		return UINT64_MAX;
	at_ms = (w->tick_now + next_occupied(w)) * TIMER_TICK_MS;
	return at_ms > now_ms ? at_ms - now_ms : 0;
}
