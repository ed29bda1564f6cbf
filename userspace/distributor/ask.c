// SPDX-License-Identifier: MIT
#include "userspace/distributor/ask.h"

void asks_init(struct asks *all, void (*submit)(void *io, struct hsm_job *job), void *io,
	       uint64_t mono_ms)
{
	*all = (struct asks){ .submit = submit, .io = io, .mono_ms = mono_ms };
	list_init(&all->retries);
}

void ask_later(struct ask *a)
{
	a->at_ms = a->all->mono_ms + ASK_RETRY_MS;
	a->all->n_retries++;
	list_add_tail(&a->all->retries, &a->link);
}

static void done(void *ctx, struct hsm_job *job)
{
	struct ask *a = container_of(job, struct ask, job);

	a->out = false;
	a->all->n_out--;
	switch (job->status) {
	case HSM_FULL:
	case HSM_UNAVAILABLE:
		ask_later(a);
		return;
	case HSM_OK:
	case HSM_BAD_REQUEST:
	case HSM_NO_KEY:
	case HSM_BAD_KEY:
		a->answered(a);
		return;
	}
}

void ask_init(struct ask *a, struct asks *all)
{
	a->all = all;
	list_init(&a->link);
	a->job.done = done;
}

void ask_submit(struct ask *a)
{
	BUG_ON(a->out || !list_empty(&a->link));
	a->out = true;
	a->all->n_out++;
	a->job.deadline_ms = a->all->mono_ms + ASK_DEADLINE_MS;
	a->all->submit(a->all->io, &a->job);
}

bool ask_cancel(struct ask *a)
{
	list_del(&a->link);
	return !a->out;
}

void asks_tick(struct asks *all, uint64_t mono_ms)
{
	struct ask *a;

	all->mono_ms = mono_ms;
	while ((a = list_first(&all->retries, struct ask, link)) && a->at_ms <= mono_ms) {
		list_del(&a->link);
		ask_submit(a);
	}
}

uint64_t asks_due_ms(const struct asks *all)
{
	const struct ask *a = list_first(&all->retries, struct ask, link);

	return a ? a->at_ms : UINT64_MAX;
}
