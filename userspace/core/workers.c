// SPDX-License-Identifier: MIT
#include "userspace/core/workers.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "userspace/broker/verify.h"
#include "userspace/core/wake.h"

_Static_assert((WORKERS_SLOTS & (WORKERS_SLOTS - 1)) == 0, "slots are found by masking");

struct slot {
	struct broker_verify *job;
	atomic_uint done_for; /* counter + 1 of the job that is done here */
};

struct workers {
	struct slot slots[WORKERS_SLOTS];

	/* The loop's own. */
	uint32_t filled, retired, pending;
	struct broker_verify *waiting, *waiting_last;
	struct wake *wake;
	void (*run)(struct broker_verify *job);

	/* Shared; each on a cache line of its own. */
	_Alignas(64) atomic_uint published;
	_Alignas(64) atomic_uint claimed;
	_Alignas(64) atomic_uint sleepers;
	_Alignas(64) pthread_mutex_t lock; /* of stopping, and of going to sleep */
	pthread_cond_t more;
	bool stopping;

	unsigned n, started;
	pthread_t threads[WORKERS_MAX];
};

/* --- workers ---------------------------------------------------------------------------------- */

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
		if (atomic_compare_exchange_weak(&w->claimed, &first, first + share)) {
			*ret_first = first;
			return share;
		}
	}
}

/* Waits until something may be there. False: stop. */
static bool sleep_for_more(struct workers *w)
{
	bool stopping;

	pthread_mutex_lock(&w->lock);
	atomic_fetch_add(&w->sleepers, 1);
	/* The loop publishes, then looks for sleepers: one of the two sees the other. */
	while (!w->stopping && atomic_load(&w->published) == atomic_load(&w->claimed))
		pthread_cond_wait(&w->more, &w->lock);
	atomic_fetch_sub(&w->sleepers, 1);
	stopping = w->stopping;
	pthread_mutex_unlock(&w->lock);
	return !stopping;
}

static void *work(void *arg)
{
	struct workers *w = arg;

	do {
		uint32_t first, n;

		while ((n = claim(w, &first)) > 0) {
			for (uint32_t i = first; i != first + n; i++) {
				struct slot *s = &w->slots[i % WORKERS_SLOTS];

				w->run(s->job);
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
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_broadcast(&w->more);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->started; i++)
		pthread_join(w->threads[i], NULL);
}

int workers_new(unsigned n, struct wake *wake, void (*run)(struct broker_verify *job),
		struct workers **ret_w)
{
	struct workers *w = aligned_alloc(_Alignof(struct workers), sizeof(*w));
	sigset_t all, before;
	int err = 0;

	BUG_ON(n < 1 || n > WORKERS_MAX);
	if (!w)
		return -ENOMEM;
	*w = (struct workers){ .wake = wake, .run = run };
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->more, NULL);
	w->n = n; /* claim() divides by it */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (unsigned i = 0; i < n && !err; i++) {
		err = -pthread_create(&w->threads[i], NULL, work, w);
		if (!err)
			w->started++;
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
	pthread_cond_destroy(&w->more);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

static bool fill(struct workers *w, struct broker_verify *job)
{
	if (w->filled - w->retired == WORKERS_SLOTS)
		return false;
	w->slots[w->filled++ % WORKERS_SLOTS].job = job;
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
	while (w->waiting) {
		struct broker_verify *next = w->waiting->next;

		if (!fill(w, w->waiting))
			break;
		w->waiting = next;
	}
	if (atomic_load(&w->published) == w->filled)
		return;
	atomic_store(&w->published, w->filled);
	if (atomic_load(&w->sleepers) == 0)
		return;
	pthread_mutex_lock(&w->lock);
	pthread_cond_broadcast(&w->more);
	pthread_mutex_unlock(&w->lock);
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
