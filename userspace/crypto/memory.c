// SPDX-License-Identifier: MIT
#include "userspace/crypto/memory.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>

#include "userspace/base/compiler.h"

#define CLASS_BITS_MIN 5  /* 32 bytes */
#define CLASSES	       8  /* to 4 KiB; what is larger is malloc's own */
#define KEPT_MAX       64 /* of a class and thread */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KEEPS false
#else
#define KEEPS true
#endif

struct block {
	union {
		struct {
			size_t room;
			uint32_t class;
		};
		max_align_t align;
		struct block *next; /* while it is kept */
	};
};

/* Of this thread. A block may end up with another thread than the one that made it. */
static _Thread_local struct {
	struct block *first[CLASSES];
	unsigned n[CLASSES];
} kept;

static unsigned class_of(size_t n)
{
	unsigned class = 0;

	while (class < CLASSES && n > (size_t)1 << (class + CLASS_BITS_MIN))
		class ++;
	return class;
}

static void *take(size_t n, const char *file, int line)
{
	unsigned class = class_of(n);
	size_t room = class < CLASSES ? (size_t)1 << (class + CLASS_BITS_MIN) : n;
	struct block *b = class < CLASSES ? kept.first[class] : NULL;

	if (n == 0 || room > SIZE_MAX - sizeof(*b))
		return NULL;
	if (b) {
		kept.first[class] = b->next;
		kept.n[class]--;
	} else {
		b = malloc(sizeof(*b) + room);
	}
	if (!b)
		return NULL;
	b->room = room;
	b->class = class;
	return b + 1;
}

static void give(void *data, const char *file, int line)
{
	struct block *b = data ? (struct block *)data - 1 : NULL;
	unsigned class;

	if (!b)
		return;
	class = b->class;
	if (class == CLASSES || kept.n[class] == KEPT_MAX) {
		free(b);
		return;
	}
	b->next = kept.first[class];
	kept.first[class] = b;
	kept.n[class]++;
}

static void *retake(void *data, size_t n, const char *file, int line)
{
	const struct block *b = data ? (struct block *)data - 1 : NULL;
	void *bigger;

	if (b && n && n <= b->room)
		return data;
	bigger = take(n, file, line);
	if (b && bigger)
		memcpy(bigger, data, b->room);
	if (!n || bigger)
		give(data, file, line);
	return bigger;
}

bool memory_keep(void)
{
	return !KEEPS || CRYPTO_set_mem_functions(take, retake, give) == 1;
}
