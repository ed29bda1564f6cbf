/* SPDX-License-Identifier: MIT */
/*
 * uthash with a keyed hash: the engine's tables are keyed by what peers choose. Out of memory is an
 * answer (table_full), not an exit. Include this, never uthash.h.
 */
#ifndef SSDTF_BROKER_TABLE_H
#define SSDTF_BROKER_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

unsigned table_hash(const void *key, size_t n);
/* The key of table_hash, once, before any table is used. */
void table_key_set(const uint8_t key[16]);

#define HASH_FUNCTION(keyptr, keylen, hashv) ((hashv) = table_hash((keyptr), (keylen)))
#define HASH_NONFATAL_OOM		     1
#define uthash_nonfatal_oom(elt)	     ((void)(elt), table_oom = true)

/* Set by an insertion that found no memory (the element is then not in the table). */
extern bool table_oom;

#include <uthash.h>

#endif
