/* SPDX-License-Identifier: MIT */
/*
 * Which filters the session upstream has, and which it should have: those of the hops. What it has
 * is stored, so that a session that the broker has kept is not subscribed to again, which would
 * bring every retained message anew. A filter whose hop is gone is unsubscribed.
 */
#ifndef SSDTF_DISTRIBUTOR_SUBSCRIBER_H
#define SSDTF_DISTRIBUTOR_SUBSCRIBER_H

#include <stdbool.h>

#include "userspace/distributor/plan.h"
#include "userspace/distributor/session.h"

struct store;

struct subscriber_set {
	struct bytes *list; /* each its own memory */
	unsigned n, room;
};

struct subscriber {
	struct session *session;
	struct store *store;
	struct subscriber_set want, have, refused;
	bool busy; /* a packet is out, of these: */
	struct subscriber_set out;
};

/* Reads what is stored. -errno. */
int subscriber_init(struct subscriber *s, struct session *session, struct store *store) must_check;
void subscriber_deinit(struct subscriber *s);
void subscriber_plan(struct subscriber *s, const struct plan *p);
/* The session opened; the broker had kept it, or not. */
void subscriber_opened(struct subscriber *s, bool present);
void subscriber_closed(struct subscriber *s);
void subscriber_answered(struct subscriber *s, uint16_t packet_id, struct bytes codes);

#endif
