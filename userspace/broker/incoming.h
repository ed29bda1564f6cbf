/* SPDX-License-Identifier: MIT */
/*
 * The packet ids of one client's QoS 2 messages that were routed and that it has not released yet:
 * the same id again is the same message again [MQTT-4.3.3-2]. Plain mode's alone; a sealed message
 * has its counter, which holds over restarts, too.
 *
 * A bit an id, in pages that come and go with what is in them: some 800 bytes for a client that
 * counts its ids up, never more than 9 KiB, and nothing for one that is owed nothing.
 */
#ifndef SSDTF_BROKER_INCOMING_H
#define SSDTF_BROKER_INCOMING_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/pool.h"

struct incoming; /* NULL is the empty set */

bool incoming_has(const struct incoming *in, uint16_t packet_id);
/* Of one that is not in it. False: no memory. */
bool incoming_add(struct pool *pool, struct incoming **in, uint16_t packet_id) must_check;
/* Of one that may not be in it. */
void incoming_remove(struct pool *pool, struct incoming **in, uint16_t packet_id);
void incoming_free(struct pool *pool, struct incoming **in);

#endif
