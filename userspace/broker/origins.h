/* SPDX-License-Identifier: MIT */
/*
 * Whose messages distributors bring (PROTOCOL 12): a replay window for each outlet of a distributor
 * and origin there, kept among the senders of commit.h under the name "distributor/grant/origin"
 * (the outlet's grant id in hexadecimal; no id has a slash). The same message may come by several
 * outlets, under one external id. These change, so one that was not heard of for ORIGINS_KEEP_MS is
 * forgotten; then it begins anew, with messages that are not as old as that themselves. Of each
 * distributor at most origins_max are kept.
 */
#ifndef SSDTF_BROKER_ORIGINS_H
#define SSDTF_BROKER_ORIGINS_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/list.h"

struct broker;
struct commit_sender;
struct envelope;

#define ORIGINS_KEEP_MS (30 * 24 * 3600 * 1000ull) /* after the last use, by the wall clock */

struct origins {
	struct list by_use; /* commit_sender.by_use, oldest first */
};

void origins_init(struct origins *o);
/* The window of what this envelope's block names; NULL: it begins anew. */
struct commit_sender *origins_find(struct broker *b, struct bytes distributor,
				   const struct envelope *e);
/* May it begin with a message of this time (0: its sender has no clock)? */
bool origins_may_begin(const struct broker *b, uint64_t time_ms);
/* NULL: the distributor has as many as it may have, or no memory. */
struct commit_sender *origins_begin(struct broker *b, struct bytes distributor,
				    const struct envelope *e) must_check;
/* A message of it was taken. Of a sender that is no pair: nothing. */
void origins_used(struct broker *b, struct commit_sender *pair);
/* What was stored of a pair's; -ENOMEM. One that was not used for too long is left out. */
struct broker_commit_replay;
int origins_restore(struct broker *b, const struct broker_commit_replay *r) must_check;

#endif
