/* SPDX-License-Identifier: MIT */
/*
 * Admission in user space (PROTOCOL 6): the same judgement of a CONNECT as the kernel's filter,
 * from the same text (bpf/admission_judge.h), and what only user space may do, for only here has a
 * peer proven its address: counting the failures of a source, and banning it.
 *
 * It judges each CONNECT that reaches the broker, whether a filter stood before it or not: a filter
 * can be missing, be told to pass, or let one through so that it gets an answer.
 *
 * Everything is bounded: what was seen and the sources are forgotten oldest use first, as in the
 * kernel's LRU maps; a ban too many is not taken.
 */
#ifndef SSDTF_BROKER_GATE_H
#define SSDTF_BROKER_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "bpf/admission.h"
#include "userspace/base/bytes.h"
#include "userspace/base/list.h"
#include "userspace/base/pool.h"

#define GATE_SEEN_MAX	 262144
#define GATE_SOURCES_MAX 16384
#define GATE_BANS_MAX	 16384

struct broker_limits;
struct gate_seen;
struct gate_source;
struct gate_ban;

struct gate {
	struct pool *pool;
	/* The entry of an id, zero-padded; NULL: nobody of that id is enrolled. */
	struct admission_device *(*find_device)(void *ctx, const struct admission_id *id);
	void *ctx;
	struct admission_config config; /* rates; offset and flags are not looked at */
	__u64 told_tat_ns;		/* of all sources */
	struct gate_seen *seen;
	struct gate_source *sources;
	struct gate_ban *bans;
	struct list seen_by_use, sources_by_use; /* oldest first */
	unsigned n_seen, n_sources, n_bans;
	uint64_t counters[ADMISSION_COUNTERS];
};

/* Times are the owner's own, in ms; wall_ms is since 1970. */
struct gate_now {
	uint64_t mono_ms, wall_ms;
};

/* The rates that these limits mean, for the filter as well. Offset and flags are 0. */
void gate_config(const struct broker_limits *l, struct admission_config *ret_config);

/* find_device is to be set before anything is judged. Devices may come in twice the number at once
 * that the filter lets in: what it let in one by one may be read here at once, after a pause of
 * ours. */
void gate_init(struct gate *g, struct pool *pool, const struct broker_limits *limits);
void gate_deinit(struct gate *g);

/* The source of a peer's address: 16 bytes, IPv4 as ::ffff:a.b.c.d. */
struct admission_source gate_source_of(const uint8_t address[16]);

/* in: a CONNECT must begin it and be there whole. Counts the verdict. */
enum admission_verdict gate_judge(struct gate *g, struct gate_now now, struct bytes in);

/* Is there still an answer for a rejected CONNECT of this source, or is it closed in silence? */
bool gate_may_tell(struct gate *g, struct gate_now now, const struct admission_source *s,
		   enum admission_verdict verdict);

/* A peer that has proven this address failed to authenticate. True: it is time to ban it. */
bool gate_failed(struct gate *g, struct gate_now now, const struct admission_source *s,
		 unsigned failures_max, uint64_t window_ms);
/* One authenticated: its source begins anew. */
void gate_passed(struct gate *g, const struct admission_source *s);

bool gate_banned(struct gate *g, struct gate_now now, const struct admission_source *s);
/* until_ms is of mono_ms. -ENOSPC: GATE_BANS_MAX stand; -ENOMEM. */
int gate_ban(struct gate *g, struct gate_now now, const struct admission_source *s,
	     uint64_t until_ms) must_check;
/* False: it was not banned. */
bool gate_unban(struct gate *g, const struct admission_source *s);

void gate_each_ban(const struct gate *g, struct gate_now now,
		   void (*each)(void *ctx, const struct admission_source *s, uint64_t left_ms),
		   void *ctx);
void gate_each_rejected(const struct gate *g,
			void (*each)(void *ctx, const struct admission_source *s, uint64_t rejected,
				     enum admission_verdict last),
			void *ctx);

#endif
