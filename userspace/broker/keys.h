/* SPDX-License-Identifier: MIT */
/*
 * The end of parties' previous signing keys (PROTOCOL 8): who authenticated by one is let in again
 * by the new one alone.
 */
#ifndef SSDTF_BROKER_KEYS_H
#define SSDTF_BROKER_KEYS_H

#include "userspace/base/timer.h"

struct broker;

struct keys {
	struct timer timer; /* until the next one ends */
	struct broker *broker;
};

void keys_init(struct broker *b);
void keys_deinit(struct broker *b);
/* Another bundle is in force: connections of parties that are gone, or that authenticated by a key
 * that does not hold any more, are ended, without their Will. */
void keys_bundle(struct broker *b);

#endif
