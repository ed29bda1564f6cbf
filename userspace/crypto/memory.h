/* SPDX-License-Identifier: MIT */
/*
 * OpenSSL 3.0 allocates a small state for every hash and some dozens for a verification. A process
 * that does very many of either lets it have what it gave back before: each thread keeps freed
 * blocks in size classes, and once warm calls malloc no more.
 */
#ifndef SSDTF_CRYPTO_MEMORY_H
#define SSDTF_CRYPTO_MEMORY_H

#include <stdbool.h>

/* For the whole process, before its first use of OpenSSL; false: too late, all stays as it was.
 * Under a sanitizer nothing is kept. */
bool memory_keep(void);

#endif
