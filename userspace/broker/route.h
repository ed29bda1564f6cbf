/* SPDX-License-Identifier: MIT */
/*
 * From a topic to the sessions that asked for it.
 */
#ifndef SSDTF_BROKER_ROUTE_H
#define SSDTF_BROKER_ROUTE_H

#include <stdint.h>

#include "userspace/broker/message.h"
#include "userspace/mqtt/trie.h"

struct broker;
struct broker_conn;
struct session;

struct route {
	struct trie *subscriptions;
	uint64_t seq;		/* of the routing pass */
	struct session **found; /* sessions of this pass; grows, never shrinks */
	unsigned n_found, room_found;
};

int route_init(struct broker *b) must_check;
void route_deinit(struct broker *b);
/* Queues m to every session that wants it, and keeps it where it is retained; not if its topic is
 * the broker's own (sys.h). from (may be NULL) is paused where a receiver cannot keep up. */
void route_message(struct broker *b, struct message *m, struct broker_conn *from);

#endif
