// SPDX-License-Identifier: MIT
#include "userspace/core/bufring.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Populated: what a busy broker touches anyway it takes at its start and not by page faults. */
static void *map(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
		       -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int try_init(struct bufring *b, unsigned entries)
{
	/* The kernel maps whole pages, and those of arm64 may have 16 KiB. */
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct io_uring_buf_reg reg = { .ring_entries = entries, .bgid = BUFRING_GROUP };
	int err;

	b->entries = entries;
	b->shared_bytes = (entries * sizeof(struct io_uring_buf) + page - 1) / page * page;
	b->shared = map(b->shared_bytes);
	if (!b->shared)
		return -ENOMEM;
	b->buffers = map((size_t)entries * BUFRING_BYTES);
	if (!b->buffers) {
		err = -ENOMEM;
		goto unmap_shared;
	}
	reg.ring_addr = (uintptr_t)b->shared;
	err = io_uring_register_buf_ring(&b->ring->uring, &reg, 0);
	if (err)
		goto unmap_buffers;
	return 0;

unmap_buffers:
	(void)munmap(b->buffers, (size_t)entries * BUFRING_BYTES); /* anonymous: cannot fail */
unmap_shared:
	(void)munmap(b->shared, b->shared_bytes);
	return err;
}

int bufring_init(struct bufring *b, struct ring *r, unsigned entries)
{
	int err;

	BUG_ON(entries == 0 || (entries & (entries - 1)) || entries > BUFRING_ENTRIES_MAX);
	memset(b, 0, sizeof(*b));
	b->ring = r;
	for (;;) {
		err = try_init(b, entries);
		if (err != -ENOMEM || entries / 2 < BUFRING_ENTRIES_MIN)
			break;
		entries /= 2;
	}
	if (err)
		return err;
	io_uring_buf_ring_init(b->shared);
	for (unsigned i = 0; i < b->entries; i++)
		bufring_put(b, (uint16_t)i);
	bufring_publish(b);
	return 0;
}

void bufring_deinit(struct bufring *b)
{
	(void)io_uring_unregister_buf_ring(&b->ring->uring, BUFRING_GROUP); /* the ring goes next */
	(void)munmap(b->buffers, (size_t)b->entries * BUFRING_BYTES);
	(void)munmap(b->shared, b->shared_bytes);
}

uint16_t bufring_id(const struct ring_done *d)
{
	return (uint16_t)(d->flags >> IORING_CQE_BUFFER_SHIFT);
}

uint8_t *bufring_at(const struct bufring *b, uint16_t id)
{
	BUG_ON(id >= b->entries);
	return b->buffers + (size_t)id * BUFRING_BYTES;
}

void bufring_put(struct bufring *b, uint16_t id)
{
	io_uring_buf_ring_add(b->shared, bufring_at(b, id), BUFRING_BYTES, id,
			      io_uring_buf_ring_mask(b->entries), (int)b->put);
	b->put++;
}

unsigned bufring_publish(struct bufring *b)
{
	unsigned n = b->put;

	if (n)
		io_uring_buf_ring_advance(b->shared, (int)n);
	b->put = 0;
	return n;
}
