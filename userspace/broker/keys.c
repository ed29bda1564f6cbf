// SPDX-License-Identifier: MIT
#include "userspace/broker/keys.h"

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"

/* However many end at different times, it is looked at all no more often than that; and at least as
 * often as that, for the clock may be set. */
#define LOOK_MS_MIN 1000
#define LOOK_MS_MAX (3600 * 1000)

static void timer_fired(struct timer *t);

void keys_init(struct broker *b)
{
	timer_init(&b->keys.timer, timer_fired);
	b->keys.broker = b;
}

void keys_deinit(struct broker *b)
{
	timer_cancel(&b->wheel, &b->keys.timer);
}

/* One that has not answered its challenge yet is judged when it does. */
static bool holds(const struct broker *b, const struct broker_conn *c)
{
	const struct directory_party *p;

	if (c->secure->authenticated)
		return directory_key_holds(b->directory, conn_id(c), &c->secure->key, b->wall_ms);
	p = directory_party(b->directory, conn_id(c));
	return p && p->roles;
}

static void end_others(struct broker *b)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &b->conns) {
		struct broker_conn *c = list_entry(pos, struct broker_conn, link);

		if (c->state == CONN_NEW || holds(b, c))
			continue;
		broker_note(b, "revoked", conn_id(c), "its connection is closed");
		conn_end(c, "revoked");
	}
}

static void arm(struct broker *b)
{
	uint64_t next = directory_next_end_ms(b->directory, b->wall_ms), wait;

	if (!next)
		return timer_cancel(&b->wheel, &b->keys.timer);
	wait = next - b->wall_ms;
	if (wait < LOOK_MS_MIN)
		wait = LOOK_MS_MIN;
	if (wait > LOOK_MS_MAX)
		wait = LOOK_MS_MAX;
	timer_arm(&b->wheel, &b->keys.timer, b->mono_ms + wait);
}

static void timer_fired(struct timer *t)
{
	struct broker *b = container_of(t, struct keys, timer)->broker;

	end_others(b);
	arm(b);
}

void keys_bundle(struct broker *b)
{
	end_others(b);
	arm(b);
}
