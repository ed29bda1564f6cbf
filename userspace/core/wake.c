// SPDX-License-Identifier: MIT
#include "userspace/core/wake.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int wake_init(struct wake *w)
{
	atomic_init(&w->sleeping, false);
	w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return w->fd < 0 ? -errno : 0;
}

void wake_deinit(struct wake *w)
{
	close(w->fd);
}

void wake_sleep(struct wake *w)
{
	atomic_store(&w->sleeping, true);
}

void wake_awake(struct wake *w)
{
	atomic_store(&w->sleeping, false);
}

void wake_clear(struct wake *w)
{
	uint64_t n;

	(void)!read(w->fd, &n, sizeof(n)); /* EAGAIN: somebody else's turn has cleared it */
}

void wake_signal(struct wake *w)
{
	uint64_t one = 1;

	if (atomic_load(&w->sleeping) && atomic_exchange(&w->sleeping, false))
		(void)!write(w->fd, &one, sizeof(one)); /* EAGAIN: 2^64 wakes are pending already */
}
