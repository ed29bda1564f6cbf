// SPDX-License-Identifier: MIT
#include "userspace/broker/outgoing.h"

#include <errno.h>
#include <string.h>

#define ROOM_MIN 8u
#define ROOM_MAX 65536u /* every id has a slot of its own */
#define IDS_MAX	 65535u

static struct outgoing_slot *slot_of(const struct outgoing *o, uint16_t packet_id)
{
	return &o->slots[packet_id & (o->room - 1)];
}

/* NULL: it is not in use. */
static struct outgoing_slot *find(const struct outgoing *o, uint16_t packet_id)
{
	struct outgoing_slot *slot = o->slots ? slot_of(o, packet_id) : NULL;

	return slot && packet_id && slot->packet_id == packet_id ? slot : NULL;
}

/* Ids that differ in their low bits still do with one bit more. */
static bool grow(struct pool *pool, struct outgoing *o, uint32_t room)
{
	struct outgoing bigger = *o;

	bigger.room = room;
	bigger.slots = pool_zalloc(pool, room * sizeof(*bigger.slots));
	if (!bigger.slots)
		return false;
	for (uint32_t i = 0; i < o->room; i++)
		if (o->slots[i].packet_id)
			*slot_of(&bigger, o->slots[i].packet_id) = o->slots[i];
	pool_free(pool, o->slots);
	*o = bigger;
	return true;
}

bool outgoing_has_ids(const struct outgoing *o, uint32_t n)
{
	return o->used + n <= IDS_MAX;
}

bool outgoing_reserve(struct pool *pool, struct outgoing *o, uint32_t n, uint32_t hope)
{
	uint32_t need = o->used + n, room = ROOM_MIN;

	/* At most half full, where there is a choice: then the next free id is near. */
	if (2 * need <= o->room || (o->room == ROOM_MAX && need <= IDS_MAX))
		return true;
	if (need > IDS_MAX)
		return false;
	if (hope < need)
		hope = need;
	while (room < ROOM_MAX && room < 2 * (uint64_t)hope)
		room *= 2;
	return grow(pool, o, room);
}

uint16_t outgoing_take(struct outgoing *o, struct delivery *d)
{
	struct outgoing_slot *slot;

	BUG_ON(o->used >= o->room || o->used >= IDS_MAX);
	do {
		o->id_last++;
		slot = slot_of(o, o->id_last);
	} while (o->id_last == 0 || slot->packet_id);
	*slot = (struct outgoing_slot){ .delivery = d, .packet_id = o->id_last };
	o->used++;
	return o->id_last;
}

struct delivery *outgoing_delivery(const struct outgoing *o, uint16_t packet_id)
{
	const struct outgoing_slot *slot = find(o, packet_id);

	return slot && !slot->release ? slot->delivery : NULL;
}

bool outgoing_is_release(const struct outgoing *o, uint16_t packet_id)
{
	const struct outgoing_slot *slot = find(o, packet_id);

	return slot && slot->release;
}

struct durable_change *outgoing_kept(const struct outgoing *o, uint16_t packet_id)
{
	const struct outgoing_slot *slot = find(o, packet_id);

	return slot && slot->release ? slot->kept : NULL;
}

int outgoing_restore(struct pool *pool, struct outgoing *o, uint16_t packet_id, struct delivery *d)
{
	if (find(o, packet_id))
		return -EEXIST;
	if (!outgoing_reserve(pool, o, 1, 1))
		return -ENOMEM;
	/* Ids that an earlier run gave may meet in a slot, until there is room for each. */
	while (slot_of(o, packet_id)->packet_id)
		if (!grow(pool, o, 2 * o->room))
			return -ENOMEM;
	*slot_of(o, packet_id) = (struct outgoing_slot){ .delivery = d, .packet_id = packet_id };
	o->used++;
	return 0;
}

void outgoing_release(struct outgoing *o, uint16_t packet_id, struct durable_change *kept)
{
	struct outgoing_slot *slot = find(o, packet_id);

	BUG_ON(!slot || slot->release);
	slot->release = true;
	slot->kept = kept;
	slot->prev = o->last;
	if (o->last)
		find(o, o->last)->next = packet_id;
	else
		o->first = packet_id;
	o->last = packet_id;
	o->n_releases++;
}

uint16_t outgoing_next_release(const struct outgoing *o, uint16_t packet_id)
{
	const struct outgoing_slot *slot = find(o, packet_id);

	return slot ? slot->next : packet_id ? 0 : o->first;
}

static void unlink_release(struct outgoing *o, const struct outgoing_slot *slot)
{
	if (slot->prev)
		find(o, slot->prev)->next = slot->next;
	else
		o->first = slot->next;
	if (slot->next)
		find(o, slot->next)->prev = slot->prev;
	else
		o->last = slot->prev;
	o->n_releases--;
}

void outgoing_drop(struct outgoing *o, uint16_t packet_id)
{
	struct outgoing_slot *slot = find(o, packet_id);

	BUG_ON(!slot);
	if (slot->release)
		unlink_release(o, slot);
	*slot = (struct outgoing_slot){ 0 };
	o->used--;
}

void outgoing_trim(struct pool *pool, struct outgoing *o)
{
	if (o->used == 0 && o->room > ROOM_MIN)
		outgoing_deinit(pool, o);
}

void outgoing_deinit(struct pool *pool, struct outgoing *o)
{
	pool_free(pool, o->slots);
	o->slots = NULL;
	o->room = 0;
}
