// SPDX-License-Identifier: MIT
#include "userspace/core/workers.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "userspace/broker/verify.h"
#include "userspace/core/wake.h"

_Static_assert((WORKERS_SLOTS & (WORKERS_SLOTS - 1)) == 0, "slots are found by masking");

struct slot {
	struct broker_verify *job;
	atomic_bool akin;     /* to the one before */
	atomic_uint done_for; /* counter + 1 of the job that is done here */
};

struct workers {
	struct slot slots[WORKERS_SLOTS];

	/* The loop's own. */
	uint32_t filled, retired, pending;
	uint32_t portions; /* filled and not published, counting jobs that are akin as one */
	struct broker_verify *waiting, *waiting_last;
	struct wake *wake;
	const struct workers_ops *ops;

	/* Shared; each on a cache line of its own. */
	_Alignas(64) atomic_uint published;
	_Alignas(64) atomic_uint claimed;
	_Alignas(64) atomic_uint sleepers;
	_Alignas(64) atomic_uint bell; /* a futex: rung when there is more, or nothing any more */
	atomic_bool stopping;

	unsigned n, started;
	pthread_t threads[WORKERS_MAX];
};

/* --- sleep ------------------------------------------------------------------------------------ */

/*
 * One system call wakes as many as there is work for. A worker counts itself among the sleepers and
 * then looks at the counters; the loop moves the counter and then looks for sleepers: one of the
 * two sees the other. A ring between the worker's look and its wait makes the wait return at once.
 */
static void ring(struct workers *w, uint32_t sleepers_max)
{
	atomic_fetch_add(&w->bell, 1);
	/* Fails only for a wrong address. */
	(void)syscall(SYS_futex, &w->bell, FUTEX_WAKE_PRIVATE, (int)sleepers_max, NULL, NULL, 0);
}

/* Waits until something may be there. False: stop. */
static bool sleep_for_more(struct workers *w)
{
	atomic_fetch_add(&w->sleepers, 1);
	for (;;) {
		uint32_t heard = atomic_load(&w->bell);

		if (atomic_load(&w->stopping) ||
		    atomic_load(&w->published) != atomic_load(&w->claimed))
			break;
		/* EAGAIN: it rang meanwhile. */
		(void)syscall(SYS_futex, &w->bell, FUTEX_WAIT_PRIVATE, heard, NULL, NULL, 0);
	}
	atomic_fetch_sub(&w->sleepers, 1);
	return !atomic_load(&w->stopping);
}

/* --- workers ---------------------------------------------------------------------------------- */

static bool is_akin(struct workers *w, uint32_t i)
{
	return atomic_load_explicit(&w->slots[i % WORKERS_SLOTS].akin, memory_order_relaxed);
}

/* Takes a fair share of what is published. Returns how many, from *ret_first on. */
static uint32_t claim(struct workers *w, uint32_t *ret_first)
{
	uint32_t first = atomic_load(&w->claimed);

	for (;;) {
		uint32_t there = atomic_load(&w->published) - first;
		uint32_t share = (there + w->n - 1) / w->n;

		/* A stale first may be far behind or, by wrapping, ahead: try with a fresh one. */
		if (there == 0 || there > WORKERS_SLOTS) {
			uint32_t again = atomic_load(&w->claimed);

			if (again == first)
				return 0;
			first = again;
			continue;
		}
		if (share > WORKERS_CLAIM_MAX)
			share = WORKERS_CLAIM_MAX;
		/* With a stale first it may see a slot's next job; then the exchange fails. */
		while (share < there && share < WORKERS_AKIN_MAX && is_akin(w, first + share))
			share++;
		if (atomic_compare_exchange_weak(&w->claimed, &first, first + share)) {
			*ret_first = first;
			return share;
		}
	}
}

static void *work(void *arg)
{
	struct workers *w = arg;

	do {
		uint32_t first, n;

		while ((n = claim(w, &first)) > 0) {
			for (uint32_t i = first; i != first + n; i++) {
				struct slot *s = &w->slots[i % WORKERS_SLOTS];

				w->ops->run(s->job);
				atomic_store(&s->done_for, i + 1);
			}
			wake_signal(w->wake);
		}
	} while (sleep_for_more(w));
	return NULL;
}

/* --- the loop's side -------------------------------------------------------------------------- */

static void stop(struct workers *w)
{
	atomic_store(&w->stopping, true);
	ring(w, INT_MAX);
	for (unsigned i = 0; i < w->started; i++)
		pthread_join(w->threads[i], NULL);
}

int workers_new(unsigned n, struct wake *wake, const struct workers_ops *ops,
		struct workers **ret_w)
{
	struct workers *w = aligned_alloc(_Alignof(struct workers), sizeof(*w));
	sigset_t all, before;
	int err = 0;

	BUG_ON(n < 1 || n > WORKERS_MAX);
	if (!w)
		return -ENOMEM;
	*w = (struct workers){ .wake = wake, .ops = ops, .n = n }; /* claim() divides by n */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (unsigned i = 0; i < n && !err; i++) {
		err = -pthread_create(&w->threads[i], NULL, work, w);
		if (err)
			break;
		w->started++;
		(void)pthread_setname_np(w->threads[i], "crypto"); /* for people */
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err) {
		workers_free(w);
		return err;
	}
	*ret_w = w;
	return 0;
}

void workers_free(struct workers *w)
{
	if (!w)
		return;
	BUG_ON(w->pending);
	stop(w);
	free(w);
}

/* The job before is the submitter's memory again once it is retired. */
static bool akin_to_last(struct workers *w, const struct broker_verify *job)
{
	return w->ops->akin && w->filled != w->retired &&
	       w->ops->akin(w->slots[(w->filled - 1) % WORKERS_SLOTS].job, job);
}

static bool fill(struct workers *w, struct broker_verify *job)
{
	struct slot *s = &w->slots[w->filled % WORKERS_SLOTS];
	bool akin;

	if (w->filled - w->retired == WORKERS_SLOTS)
		return false;
	akin = akin_to_last(w, job);
	s->job = job;
	atomic_store_explicit(&s->akin, akin, memory_order_relaxed);
	w->filled++;
	w->portions += !akin;
	return true;
}

void workers_submit(struct workers *w, struct broker_verify *job)
{
	w->pending++;
	if (!w->waiting && fill(w, job))
		return;
	job->next = NULL;
	if (w->waiting)
		w->waiting_last->next = job;
	else
		w->waiting = job;
	w->waiting_last = job;
}

void workers_publish(struct workers *w)
{
	uint32_t sleepers;

	while (w->waiting) {
		struct broker_verify *next = w->waiting->next;

		if (!fill(w, w->waiting))
			break;
		w->waiting = next;
	}
	if (atomic_load(&w->published) == w->filled)
		return;
	atomic_store(&w->published, w->filled);
	sleepers = atomic_load(&w->sleepers);
	/* At least one: what is akin to a job that has been claimed is still to be done. */
	if (sleepers > w->portions)
		sleepers = w->portions ? w->portions : 1;
	if (sleepers)
		ring(w, sleepers);
	w->portions = 0;
}

bool workers_ready(const struct workers *w)
{
	const struct slot *s = &w->slots[w->retired % WORKERS_SLOTS];

	return w->retired != w->filled && atomic_load(&s->done_for) == w->retired + 1;
}

struct broker_verify *workers_retire(struct workers *w)
{
	struct broker_verify *job;

	if (!workers_ready(w))
		return NULL;
	job = w->slots[w->retired % WORKERS_SLOTS].job;
	w->retired++;
	w->pending--;
	return job;
}

uint32_t workers_pending(const struct workers *w)
{
	return w->pending;
}
