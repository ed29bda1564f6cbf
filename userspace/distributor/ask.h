/* SPDX-License-Identifier: MIT */
/*
 * A question to the token, asked until there is an answer: where the token is not available it is
 * put again every ASK_RETRY_MS. Embedded in its owner, who may not go while it is out.
 */
#ifndef SSDTF_DISTRIBUTOR_ASK_H
#define SSDTF_DISTRIBUTOR_ASK_H

#include <stdbool.h>
#include <stdint.h>

#include "hsm/client.h"
#include "userspace/base/list.h"

#define ASK_RETRY_MS	500
#define ASK_DEADLINE_MS 5000

struct asks {
	void (*submit)(void *io, struct hsm_job *job); /* answered through job->done */
	void *io;
	uint64_t mono_ms;
	struct list retries; /* those that wait, the one that is due first in front */
	uint64_t n_retries;
	unsigned n_out;
};

struct ask {
	struct hsm_job job;
	struct asks *all;
	struct list link;
	uint64_t at_ms;
	bool out;
	/* job has the status (never HSM_UNAVAILABLE or HSM_FULL) and the output. */
	void (*answered)(struct ask *a);
};

void asks_init(struct asks *all, void (*submit)(void *io, struct hsm_job *job), void *io,
	       uint64_t mono_ms);
/* Asks again what is due. */
void asks_tick(struct asks *all, uint64_t mono_ms);
/* When the next is due; UINT64_MAX: none waits. */
uint64_t asks_due_ms(const struct asks *all);

/* The caller sets the job's op, operands and answered. */
void ask_init(struct ask *a, struct asks *all);
void ask_submit(struct ask *a);
/* From answered(): not yet, again after ASK_RETRY_MS. */
void ask_later(struct ask *a);
/* With the token, or waiting to be: its owner may not go. */
static inline bool ask_is_out(const struct ask *a)
{
	return a->out;
}
/* No answer is wanted any more. False: it is with the token, and answered() will be called. */
bool ask_cancel(struct ask *a);

#endif
