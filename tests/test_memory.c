// SPDX-License-Identifier: MIT
/*
 * What OpenSSL frees it gets again (userspace/crypto/memory.h): in a program of its own, since that
 * is decided before OpenSSL is first used. malloc is the one below, which counts.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/memory.h"
#include "userspace/crypto/p256.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KEEPS false /* and malloc is the sanitizer's */
static atomic_ulong mallocs;
#else
#define KEEPS true
static atomic_ulong mallocs;
void *__libc_malloc(size_t n);

void *malloc(size_t n)
{
	atomic_fetch_add(&mallocs, 1);
	return __libc_malloc(n);
}
#endif

#define THREADS 4
#define ROUNDS	40

static struct p256_private *keys[THREADS];
static struct p256_public *publics[THREADS];

static void make(unsigned i)
{
	struct p256_point point;
	struct secret32 scalar;

	ASSERT_EQ(p256_scalar_random(&scalar), 0);
	ASSERT_EQ(p256_private_new(&scalar, &keys[i]), 0);
	p256_private_point(keys[i], &point);
	ASSERT_EQ(p256_public_new(&point, &publics[i]), 0);
}

static void work(unsigned i, unsigned rounds)
{
	uint8_t digest[HASH_BYTES], sig[P256_SIG_BYTES];

	for (unsigned k = 0; k < rounds; k++) {
		hash_one(bytes_of((const uint8_t *)&k, sizeof(k)), digest);
		ASSERT_EQ(p256_sign_digest(keys[i], digest, sig), 0);
		ASSERT_EQ(p256_verify_digest(publics[i], digest, sig), 0);
		digest[k % HASH_BYTES] ^= 1;
		ASSERT_NE(p256_verify_digest(publics[i], digest, sig), 0);
	}
}

static void *member(void *arg)
{
	unsigned i = *(unsigned *)arg;

	work(i, ROUNDS);
	return NULL;
}

static bool kept; /* decided in main() */

TEST(kept_memory_needs_no_malloc)
{
	unsigned long before;

	if (!KEEPS)
		SKIP("a sanitizer has its own malloc, and nothing is kept");
	ASSERT_TRUE(kept);
	make(0);
	work(0, 4);
	before = atomic_load(&mallocs);
	work(0, 50);
	ASSERT_EQ(atomic_load(&mallocs), before);
}

/* What one thread allocated another may free, and OpenSSL does not tell. */
TEST(kept_memory_passes_between_threads)
{
	unsigned index[THREADS];
	pthread_t threads[THREADS];

	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < THREADS; i++) {
			p256_private_free(keys[i]);
			p256_public_free(publics[i]);
			make(i);
			index[i] = i;
			ASSERT_EQ(pthread_create(&threads[i], NULL, member, &index[i]), 0);
		}
		for (unsigned i = 0; i < THREADS; i++)
			ASSERT_EQ(pthread_join(threads[i], NULL), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		p256_private_free(keys[i]);
		p256_public_free(publics[i]);
	}
}

int main(int argc, char **argv)
{
	kept = memory_keep();
	return harness_main(argc, argv);
}
