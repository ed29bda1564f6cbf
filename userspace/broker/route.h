/* SPDX-License-Identifier: MIT */
/*
 * From a topic to the sessions that asked for it, and the retained messages.
 */
#ifndef SSDTF_BROKER_ROUTE_H
#define SSDTF_BROKER_ROUTE_H

#include <stdint.h>

#include "userspace/broker/message.h"
#include "userspace/mqtt/topicmap.h"
#include "userspace/mqtt/trie.h"

struct broker;
struct broker_conn;
struct session;

struct route_retained {
	struct topicmap_entry entry;
	struct list link; /* in route.kept */
	struct message *message;
};

struct route {
	struct trie *subscriptions;
	struct topicmap *retained;
	struct list kept;	/* every retained message */
	uint64_t seq;		/* of the routing pass */
	struct session **found; /* sessions of this pass; grows, never shrinks */
	unsigned n_found, room_found;
	unsigned n_retained;
};

int route_init(struct broker *b) must_check;
void route_deinit(struct broker *b);
/* Queues m to every session that wants it, and keeps it where it is retained; not if its topic is
 * the broker's own (sys.h). from (may be NULL) is paused where a receiver cannot keep up. */
void route_message(struct broker *b, struct message *m, struct broker_conn *from);
/* The retained messages that match a new subscription, to s. */
void route_send_retained(struct broker *b, struct session *s, struct bytes filter, uint8_t qos);

#endif
