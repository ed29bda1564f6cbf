/* SPDX-License-Identifier: MIT */
/*
 * What a distributor keeps, in one SQLite database (WAL, synchronous=FULL), written in the loop:
 * rows are few, one for each sender, domain and period, and nothing may go out before they are
 * there.
 *
 *   DIR/lock              held with flock(2) while a distributor uses DIR
 *   DIR/distributor.db    mode 0600, and SQLite's -wal and -shm beside it
 *
 *     external            bundle/idtable.h, which the manager reads
 *     view, seen          what an observer of an outlet cannot tell apart, and how many share it
 *     subscription        the filters that the session upstream has
 *     distributor         the serial of the bundle in force
 *
 * DIR is the distributor's alone: mode 0700. The tables name no sender: what stands in `seen` is a
 * hash of the outlet, the period and a MAC under the token's id key.
 */
#ifndef SSDTF_DISTRIBUTOR_STORE_H
#define SSDTF_DISTRIBUTOR_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/distributor/relay.h"

#define STORE_ERROR_BYTES 4480 /* a path, and what is wrong with it */

struct store;

/*
 * Makes DIR and the database where they are missing. -EBUSY: another process uses DIR; -EPERM: DIR
 * is open to others; -EPROTO: another program's database or another version; -EUCLEAN: damaged;
 * else -errno. why has the sentence.
 */
int store_open(const char *dir, struct store **ret_s, char why[STORE_ERROR_BYTES]) must_check;
/* For the report, beside a distributor that runs: no lock, and nothing is written. -ENOENT: there
 * is no database yet. */
int store_open_reader(const char *dir, struct store **ret_s,
		      char why[STORE_ERROR_BYTES]) must_check;
/* Writes the counts that are not written yet. */
void store_close(struct store *s);
/* What SQLite said of the last call that failed. */
const char *store_words(const struct store *s);

uint64_t store_serial(const struct store *s);
int store_set_serial(struct store *s, uint64_t serial) must_check;

/* See relay_ops. */
int store_id_find(struct store *s, const uint8_t lookup[IDTABLE_LOOKUP_BYTES],
		  uint8_t ret_external[IDTABLE_EXTERNAL_BYTES]) must_check;
int store_ids_put(struct store *s, const struct relay_row *rows, unsigned n) must_check;

/* Deletes external ids that ended before then, at most STORE_FORGET_MAX of them. *ret_more: there
 * may be others. Nobody can trace them afterwards. */
#define STORE_FORGET_MAX 1000
int store_ids_forget(struct store *s, uint64_t before_ms, bool *ret_more) must_check;

/* Each filter of the session upstream; fn returns 0, or what ends the reading. */
int store_filters(struct store *s, int (*fn)(void *ctx, struct bytes filter), void *ctx) must_check;
int store_set_filters(struct store *s, const struct bytes *filters, unsigned n) must_check;

/*
 * Anonymity. A view is what an observer of one outlet sees alike: outlet, topic with + for the
 * sender, and the size of the plaintext to the next power of two (at least STORE_SIZE_MIN). Counted
 * are its messages and its senders in a period. A sender is written when first seen, counts of
 * messages with it or when store_flush() is called.
 */
#define STORE_SIZE_MIN	   32
#define STORE_PERIODS_KEPT 31 /* older ones are deleted */
/* Of a period. Topics that are new with each message would fill any disk: beyond, -E2BIG. */
#define STORE_VIEWS_MAX 65536

int store_sight(struct store *s, const struct relay_sight *sight, uint64_t period) must_check;
int store_flush(struct store *s) must_check;

struct store_view {
	uint64_t period;
	struct bytes outlet, topic;
	uint64_t size_max;
	uint64_t senders, messages;
};

/* The newest period that has any; -ENOENT: none has. */
int store_newest_period(struct store *s, uint64_t *ret_period) must_check;
/* Views of a period, by outlet, then the one with the fewest senders first. */
int store_views(struct store *s, uint64_t period, int (*fn)(void *ctx, const struct store_view *v),
		void *ctx) must_check;

#endif
