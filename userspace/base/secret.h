/* SPDX-License-Identifier: MIT */
/*
 * Secrets: wiped when their scope ends, kept out of swap and core dumps where they live long.
 */
#ifndef SSDTF_BASE_SECRET_H
#define SSDTF_BASE_SECRET_H

#include <stddef.h>
#include <stdint.h>

#include "userspace/base/compiler.h"

/* Overwrites n bytes; the compiler may not leave it out. */
void secret_wipe(void *p, size_t n);

/* A 32-byte scalar, shared secret or key that wipes itself:  struct secret32 k SECRET = { 0 }; */
struct secret32 {
	uint8_t b[32];
};

void secret32_wipe(struct secret32 *s);
#define SECRET cleanup(secret32_wipe)

/*
 * A page-aligned area of n bytes that is locked into memory, excluded from core dumps and wiped on
 * secret_free. NULL with errno set where the lock was refused (RLIMIT_MEMLOCK): the caller says so
 * and stops, it does not go on in swappable memory.
 */
void *secret_alloc(size_t n) must_check;
void secret_free(void *p, size_t n);

#endif
