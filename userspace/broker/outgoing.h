/* SPDX-License-Identifier: MIT */
/*
 * The packet ids in use towards one client, each with what stands under it: a delivery until it is
 * acknowledged, and at QoS 2 then a release (PUBREL) until the client has completed it (PUBCOMP).
 *
 * We choose these ids, so they are chosen such that no two meet in one slot: the slot of an id is
 * its low bits, and everything here is one look, in whatever order a client answers. Releases are
 * a list through their slots, in the order of the PUBRECs [MQTT-4.6.0-4].
 */
#ifndef SSDTF_BROKER_OUTGOING_H
#define SSDTF_BROKER_OUTGOING_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/pool.h"

struct delivery;
struct durable_change;

struct outgoing_slot {
	union {
		struct delivery *delivery;
		struct durable_change *kept; /* of a release: its record (durable.h), or NULL */
	};
	uint16_t packet_id;  /* 0: the slot is free */
	uint16_t next, prev; /* of a release: ids; 0: none */
	bool release;
};

struct outgoing {
	struct outgoing_slot *slots; /* a power of two; NULL: none yet */
	uint32_t room, used;
	uint16_t id_last; /* given */
	uint16_t n_releases, first, last;
};

/* Are there so many that are not in use? */
bool outgoing_has_ids(const struct outgoing *o, uint32_t n);
/* Room for n more ids; where it must grow, for `hope` in all, so that it need not grow again soon.
 * False: no memory, or there are not so many ids. */
bool outgoing_reserve(struct pool *pool, struct outgoing *o, uint32_t n, uint32_t hope) must_check;
/* The next id that is free, for d. There must be room. */
uint16_t outgoing_take(struct outgoing *o, struct delivery *d);
/* NULL: the id is not in use, or a release. */
struct delivery *outgoing_delivery(const struct outgoing *o, uint16_t packet_id);
/* The delivery's place is taken by a release, whose record is kept. */
void outgoing_release(struct outgoing *o, uint16_t packet_id, struct durable_change *kept);
bool outgoing_is_release(const struct outgoing *o, uint16_t packet_id);
/* Its record, or NULL. */
struct durable_change *outgoing_kept(const struct outgoing *o, uint16_t packet_id);
/* An id of an earlier run, for d. -EEXIST: it is in use; -ENOMEM. */
int outgoing_restore(struct pool *pool, struct outgoing *o, uint16_t packet_id,
		     struct delivery *d) must_check;
/* The release behind this one (0: the first); 0: none. */
uint16_t outgoing_next_release(const struct outgoing *o, uint16_t packet_id);
/* The id is free again. */
void outgoing_drop(struct outgoing *o, uint16_t packet_id);
/* Nothing will be sent for now: gives back what is not in use, but for a little. */
void outgoing_trim(struct pool *pool, struct outgoing *o);
void outgoing_deinit(struct pool *pool, struct outgoing *o);

#endif
