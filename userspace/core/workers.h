/* SPDX-License-Identifier: MIT */
/*
 * Crypto worker threads: jobs out in batches, back in the order in which they went out.
 *
 *        retired <= claimed <= published <= filled            (counters that only grow)
 *   ring  [done][done][    ][done][    ][ .. ][ .. ]          slot = counter % WORKERS_SLOTS
 *          ^loop             ^workers take runs of slots by compare-and-swap
 *
 * The loop's thread submits, publishes once a turn with one wake for all, and retires from the
 * front as far as slots are done. What does not fit waits in a list through the jobs themselves.
 * Workers signal the loop only while it sleeps (wake.h). A job's memory is the submitter's
 * throughout.
 *
 * A thread takes its share of what is there, and what is akin to the last of it: jobs of one batch,
 * of which the first pays for the signature, so no two threads pay for the same one.
 */
#ifndef SSDTF_CORE_WORKERS_H
#define SSDTF_CORE_WORKERS_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/compiler.h"

#define WORKERS_MAX	  64
#define WORKERS_SLOTS	  1024 /* a power of two */
#define WORKERS_CLAIM_MAX 8    /* jobs that one thread takes at a time */
#define WORKERS_AKIN_MAX  64   /* with those that are akin to the last */

struct broker_verify;
struct wake;
struct workers;

struct workers_ops {
	void (*run)(struct broker_verify *job);
	/* Should one thread do both? Asked by the loop while both are out; looks at what goes in
	 * alone. NULL: never. */
	bool (*akin)(const struct broker_verify *before, const struct broker_verify *job);
};

/* n threads, 1..WORKERS_MAX, that take no signals. ops stays the caller's. */
int workers_new(unsigned n, struct wake *wake, const struct workers_ops *ops,
		struct workers **ret_w) must_check;
/* Every job must have been retired. */
void workers_free(struct workers *w);

void workers_submit(struct workers *w, struct broker_verify *job);
/* Hands over what was submitted since the last time, and what found no slot before. After the last
 * workers_retire() of a turn, or what still waits for a slot waits for ever. */
void workers_publish(struct workers *w);
/* The oldest job, if it is done; NULL otherwise. */
struct broker_verify *workers_retire(struct workers *w);
/* Submitted and not retired. */
uint32_t workers_pending(const struct workers *w);
/* workers_retire() would give one: for the loop's last look before it sleeps. */
bool workers_ready(const struct workers *w);

#endif
