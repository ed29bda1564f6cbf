// SPDX-License-Identifier: MIT
#include "userspace/base/secret.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

void secret_wipe(void *p, size_t n)
{
	if (n)
		explicit_bzero(p, n);
}

void secret32_wipe(struct secret32 *s)
{
	secret_wipe(s->b, sizeof(s->b));
}

void *secret_alloc(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	if (mlock(p, n) || madvise(p, n, MADV_DONTDUMP)) {
		int saved = errno;

		(void)munmap(p, n); /* nothing secret was in it yet */
		errno = saved;
		return NULL;
	}
	return p;
}

void secret_free(void *p, size_t n)
{
	if (!p)
		return;
	secret_wipe(p, n);
	(void)munmap(p, n); /* wiped already; a failed unmap leaks zeros */
}
