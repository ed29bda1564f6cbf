/* SPDX-License-Identifier: MIT */
/*
 * Names of senders: the external id that an id domain gives a sender for a period, and the mark by
 * which senders are counted without being named (PROTOCOL 12; the table is bundle/idtable.h).
 *
 *   ASKED --the token's MAC--> found in the table, or drawn: FRESH --row on disk--> READY
 *
 * Nothing goes out under an external id before its row is on disk. Rows are written together, once
 * a turn. The cache is bounded; what was pushed out is asked for again, and found.
 */
#ifndef SSDTF_DISTRIBUTOR_ALIAS_H
#define SSDTF_DISTRIBUTOR_ALIAS_H

#include <uthash.h>

#include "userspace/bundle/idtable.h"
#include "userspace/distributor/ask.h"

struct relay;
struct delivery;

enum alias_state { ALIAS_ASKED, ALIAS_FRESH, ALIAS_READY };

struct alias {
	UT_hash_handle hh;
	uint8_t input[HASH_BYTES]; /* its key: of domain, period and id; or of the mark's id */
	enum alias_state state;
	bool mark;
	uint8_t value[HASH_BYTES]; /* the mark, or the external id in the first 16 */
	struct list link;	   /* by state: none, relay's fresh, lru */
	struct list waiters;	   /* struct alias_wait */
	struct relay *relay;
	struct ask ask;
	uint8_t lookup[IDTABLE_LOOKUP_BYTES];
	uint8_t internal[IDTABLE_ID_BYTES_MAX], domain[IDTABLE_ID_BYTES_MAX];
	uint8_t internal_n, domain_n;
	uint64_t from_ms, until_ms; /* until 0: no end */
};

/* One who waits for it. */
struct alias_wait {
	struct list link;
	struct delivery *delivery;
	uint8_t *to; /* where the value goes */
	size_t n;
};

struct aliases {
	struct alias *table;
	struct list fresh;
	struct list lru; /* READY, oldest first */
	unsigned n, n_max;
	uint64_t hits, asked, drawn;
};

void aliases_init(struct aliases *a, unsigned n_max);
/* Nothing waits any more, and the token has given everything back. */
void aliases_deinit(struct aliases *a);

/* The external id of internal in this domain now, 16 bytes to w->to. False: w waits. */
bool alias_external(struct relay *r, struct bytes domain, uint32_t rotate_seconds,
		    struct bytes internal, struct alias_wait *w);
/* The mark of internal, 32 bytes to w->to. */
bool alias_mark(struct relay *r, struct bytes internal, struct alias_wait *w);
/* Puts fresh rows on disk, all together; where that fails they wait for the next time. */
void aliases_commit(struct relay *r);

#endif
