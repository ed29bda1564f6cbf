/* SPDX-License-Identifier: MIT */
/*
 * Scopes and their epochs: sets of topic filters under one access decision, and the key pair (a, A)
 * of each epoch (PROTOCOL 1). The scalar a is random for every epoch, sealed by the token under a
 * text that names scope, epoch and key id, and in clear only in locked memory while it is used.
 *
 * A filter belongs to one scope, but filters of several scopes may match one topic: such a topic
 * may be published to under each of them, and who may read it is decided by the key id of the
 * message.
 */
#ifndef SSDTF_MANAGER_SCOPE_H
#define SSDTF_MANAGER_SCOPE_H

#include "userspace/bundle/record.h"
#include "userspace/manager/manager.h"

#define SCOPE_FILTER_BYTES_MAX 1024
#define SCOPE_SEALED_BYTES     (P256_SCALAR_BYTES + TOKEN_STORE_OVERHEAD)
#define SCOPE_TEXT_BYTES       (2 * RECORD_FILTERS_MAX * SCOPE_FILTER_BYTES_MAX)
/* A record and its length: names, keys and times take less than the last term. */
#define SCOPE_RECORD_BYTES_MAX (SCOPE_TEXT_BYTES + 2 * RECORD_FILTERS_MAX * 2 + 1024)

/* PROTOCOL 2: a context serves at most so many messages, and so long. */
#define SCOPE_REKEY_MESSAGES_MAX 65536
#define SCOPE_REKEY_SECONDS_MAX	 3600

#define SCOPE_VALID_DAYS_MAX 36500

struct scope_terms {
	const char *name;
	const char *filters[RECORD_FILTERS_MAX];
	unsigned n_filters;
	uint8_t suite;
	bool padded;	     /* PROTOCOL 2 */
	uint32_t valid_days; /* of each epoch's key; 0: no end */
	uint32_t rekey_messages, rekey_seconds;
};

/* Makes the scope and its first epoch. The same again changes nothing; other terms are -EEXIST. */
int scope_add(struct manager *m, const struct scope_terms *t) must_check;

/* A scope and one epoch of it, as the registry has them. */
struct scope {
	struct record_scope record; /* its views are into this struct */
	uint8_t sealed[SCOPE_SEALED_BYTES];
	uint32_t valid_days;
	uint64_t kept_until_ms; /* a later epoch took its place; 0: it is the last */
	char name[MANAGER_ID_ROOM];
	size_t text_used;
	uint8_t text[SCOPE_TEXT_BYTES];
};

/* The scope's latest epoch; -ESRCH with words where there is no such scope. */
int scope_load(struct manager *m, const char *name, struct scope *ret_s) must_check;
/* The epoch of that key id. */
int scope_load_key(struct manager *m, uint32_t key_id, struct scope *ret_s) must_check;
/* A new epoch, s->record.epoch, of the scope that s has: key pair, key id, validity. Makes and
 * stores it. */
int scope_new_epoch(struct manager *m, struct scope *s) must_check;

/* a in clear. to is in memory from secret_alloc(), and its owner wipes it. Makes sure that it is
 * the scalar of the scope's A. */
int scope_open_scalar(struct manager *m, const struct scope *s, struct secret32 *to) must_check;

/* Is there a topic that the filter matches and that is the prefix or begins with it and a slash? */
bool scope_filter_meets(struct bytes filter, struct bytes prefix);

/* Validity that begins a little before now, for parties whose clock is behind ours. */
void scope_validity(const struct manager *m, uint32_t days, uint64_t *ret_not_before_ms,
		    uint64_t *ret_not_after_ms);

/* secret_alloc() with words. */
void *scope_secret_alloc(struct manager *m, size_t n) must_check;

#endif
