/* SPDX-License-Identifier: MIT */
/*
 * The rows of sessions and retained messages in a fake broker's storage. Each commit is held to
 * what durable.h promises: a row that goes was there, a message that is written is new, whatever is
 * named is there, and what nothing names is not.
 */
#ifndef SSDTF_TESTS_FAKE_DURABLE_H
#define SSDTF_TESTS_FAKE_DURABLE_H

#include "userspace/broker/broker.h"

struct fake_durable {
	struct broker_commit rows; /* with arrays and bytes of its own */
	unsigned room_sessions, room_subscriptions, room_messages, room_deliveries;
	unsigned room_releases, room_incoming, room_retained;
	unsigned written; /* rows that commits brought, of all kinds */
	unsigned written_messages;
};

void fake_durable_apply(struct fake_durable *d, const struct broker_commit *c);
void fake_durable_restore(struct fake_durable *d, struct broker *engine);
void fake_durable_free(struct fake_durable *d);

/* Of the client with this id: what is stored. */
unsigned fake_durable_queued(const struct fake_durable *d, const char *id);
bool fake_durable_has_session(const struct fake_durable *d, const char *id);

#endif
