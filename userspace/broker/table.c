// SPDX-License-Identifier: MIT
#include "userspace/broker/table.h"

#include <string.h>

#include "userspace/base/siphash.h"

static uint8_t table_key[SIPHASH_KEY_BYTES];
bool table_oom;

void table_key_set(const uint8_t key[16])
{
	memcpy(table_key, key, sizeof(table_key));
}

unsigned table_hash(const void *key, size_t n)
{
	return (unsigned)siphash(table_key, bytes_of(key, n));
}
