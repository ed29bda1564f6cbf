/* SPDX-License-Identifier: MIT */
/*
 * A worker's conversion keys. Wrapped blobs are kept in memory, at most so many, the least recently
 * used giving way; the token holds the session objects of those that were used last.
 *
 *   LOAD ──► blob ──first use──► session object ──more than session_max──► blob alone
 *
 * One thread. The handles die with the token's session: keys_lose() then.
 */
#ifndef SSDTF_HSM_KEYS_H
#define SSDTF_HSM_KEYS_H

#include <stdint.h>

#include "hsm/lru.h"
#include "hsm/token.h"
#include "userspace/base/bytes.h"

#define KEYS_BLOBS_MAX	  (1u << 20)
#define KEYS_SESSIONS_MAX (1u << 20)

struct keys_blob;

struct keys {
	/* Labels of the unwrapping keys; "": none. A blob is unwrapped by whichever it fits. */
	char with[2][TOKEN_LABEL_SIZE];
	struct lru blobs;
	struct keys_blob *blob; /* by slot */
	struct lru sessions;
	unsigned long *handle; /* by slot */
};

/* -ENOMEM */
int keys_init(struct keys *k, uint32_t blobs_max, uint32_t sessions_max) must_check;
/* Other unwrapping keys than TOKEN_LABEL_UNWRAP alone; next may be "". Blobs that fitted none
 * before are tried again. */
void keys_unwrap_with(struct keys *k, const char *current, const char *next);
/* The handles are not destroyed: the session that they live in is about to be. */
void keys_deinit(struct keys *k);

/* Where the same blob is there already, its session object stays. -ENOMEM. t may be NULL. */
int keys_load(struct keys *k, struct token *t, const uint8_t id[GRANT_ID_BYTES],
	      struct bytes blob) must_check;
void keys_forget(struct keys *k, struct token *t, const uint8_t id[GRANT_ID_BYTES]);

/* The grant's session object, unwrapped where it is not there. -ENOENT: no blob; -EBADMSG: the blob
 * is no conversion key; or token_unwrap()'s. */
int keys_handle(struct keys *k, struct token *t, const uint8_t id[GRANT_ID_BYTES],
		unsigned long *ret_handle) must_check;

/* All session objects are destroyed; keys_lose(): they are gone already. Blobs stay. */
void keys_release(struct keys *k, struct token *t);
void keys_lose(struct keys *k);

#endif
