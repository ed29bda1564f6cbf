/* SPDX-License-Identifier: MIT */
/*
 * What the broker says about its peers and about itself, key=value. Peers can provoke notes, so
 * each kind of event is said at most once a second, with the number left out since.
 */
#ifndef SSDTF_CORE_JOURNAL_H
#define SSDTF_CORE_JOURNAL_H

#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/log.h"

#define JOURNAL_EVENTS_MAX 32

struct broker_stats;
struct hsm_client_stats;
struct stream_stats;

struct journal {
	struct {
		const char *event; /* a constant */
		struct log_limit limit;
	} events[JOURNAL_EVENTS_MAX]; /* the last one is of all that find no place */
};

/* client_id and what may be NULL; they may hold a peer's bytes and are made printable. */
void journal_note(struct journal *j, uint64_t now_ms, const char *event, const char *client_id,
		  const char *what);

/* One retained message as it is stored, its bytes shortened; at debug level only. */
void journal_retained(struct bytes topic, struct bytes body);

/* One line with every counter. hsm may be NULL. */
void journal_stats(const struct broker_stats *b, const struct stream_stats *s,
		   const struct hsm_client_stats *hsm);

#endif
