/* SPDX-License-Identifier: MIT */
/*
 * $SYS/broker/...: what the broker says about itself, one number under each name (PROTOCOL 7). The
 * owner sets them (broker_sys_set()), the engine tells those who subscribed: what there is at once,
 * then what has changed, each session once in SYS_PERIOD_MS.
 *
 * They are no deliveries: none is queued or acknowledged, none pauses a sender. A session remembers
 * up to which change it was told (sys_seen), and where it is absent or slow it is told later, the
 * numbers of then. Sessions wait in the order in which they are due:
 *
 *    session_subscribe() ──► fresh ──┐
 *                                    ├─ the earlier due first ──► served ──► watchers, due later
 *    watchers ───────────────────────┘
 *
 * In SSDTF mode only a manager may subscribe, and each message costs a signature of the token: a
 * step serves a few sessions, and none while many control messages wait to be signed.
 */
#ifndef SSDTF_BROKER_SYS_H
#define SSDTF_BROKER_SYS_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/list.h"
#include "userspace/base/timer.h"

struct broker;
struct session;
struct subscription;

#define SYS_TOPIC_PREFIX   "$SYS/broker/"
#define SYS_NAME_BYTES_MAX 96
#define SYS_VALUES_MAX	   256
#define SYS_PERIOD_MS	   10000 /* between two times that a session is told of changes */
#define SYS_STEP_MS	   100	 /* between two steps */
#define SYS_STEP_MAX	   256	 /* sessions and messages, after which a step takes no more */

struct sys_value {
	uint64_t value;
	uint64_t changed; /* the number of its last change */
	uint64_t pass;	  /* the last that sent it */
	size_t topic_n;
	char topic[]; /* terminated; stays where it is: the signer points there */
};

struct sys {
	struct sys_value *values[SYS_VALUES_MAX];
	unsigned n;
	uint64_t change;	     /* the last, of all values */
	uint64_t pass;		     /* over a session's filters: one message for each value */
	struct list fresh, watchers; /* session.sys, by sys_due_ms */
	uint64_t step_next_ms;
	struct timer timer;
	struct broker *broker;
};

void sys_init(struct broker *b);
void sys_deinit(struct broker *b);

/* Is a topic, or what a filter begins with, the broker's own $SYS? */
bool sys_is_topic(struct bytes topic);
/* s subscribed, perhaps again, to such a filter: the values there are will be sent. */
void sys_subscribed(struct broker *b, struct session *s, struct subscription *sub);

#endif
