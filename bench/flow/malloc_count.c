// SPDX-License-Identifier: MIT
/*
 * Not linked into anything: a library that a broker is made to load (LD_PRELOAD) so that its
 * allocations are counted, glibc's own doing the work. The count is a uint64_t at the beginning of
 * the file that $SSDTF_MALLOC_COUNT names; without one nothing is counted.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* What glibc's own functions are beneath their names. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

static _Atomic uint64_t unseen; /* before the file is there */
static _Atomic(_Atomic uint64_t *) count = &unseen;

static void note(void)
{
	atomic_fetch_add_explicit(atomic_load_explicit(&count, memory_order_relaxed), 1,
				  memory_order_relaxed);
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("SSDTF_MALLOC_COUNT");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p;

	if (fd < 0)
		return;
	p = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	(void)close(fd);
	if (p == MAP_FAILED)
		return;
	atomic_store((_Atomic uint64_t *)p, 0);
	atomic_store(&count, (_Atomic uint64_t *)p);
}

void *malloc(size_t n)
{
	note();
	return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
	note();
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
	note();
	return __libc_realloc(p, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
	note();
	return __libc_memalign(alignment, n);
}

int posix_memalign(void **ret_p, size_t alignment, size_t n)
{
	void *p;

	if (!alignment || alignment & (alignment - 1) || alignment % sizeof(void *))
		return EINVAL;
	note();
	p = __libc_memalign(alignment, n);
	if (!p)
		return ENOMEM;
	*ret_p = p;
	return 0;
}
