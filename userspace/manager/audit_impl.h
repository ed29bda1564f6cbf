/* SPDX-License-Identifier: MIT */
/*
 * What the log's two files share: audit.c, which appends, and audit_read.c, which verifies and
 * lists. Nobody else includes this.
 */
#ifndef SSDTF_MANAGER_AUDIT_IMPL_H
#define SSDTF_MANAGER_AUDIT_IMPL_H

#include "userspace/manager/audit.h"

/* An entry as it stands in the log, whoever wrote it there: numbers are as wide as SQLite's. The
 * views are its row's, or the deed's. */
struct audit_entry {
	int64_t number, uid, result;
	uint64_t at_ms, asked_ms;
	struct bytes login, action, subject, reason, source, outcome;
	bool signed_;
	struct bytes previous, hash, checkpoint;
};

struct audit_head {
	uint64_t number; /* 0: there is none */
	uint8_t hash[HASH_BYTES];
};

#define AUDIT_COLUMNS                                                                            \
	"number, at_ms, uid, login, action, subject, asked_ms, reason, source, result, outcome," \
	" previous, hash, checkpoint"

void audit_read_row(struct registry_query *q, struct audit_entry *e);
/* Of all fields, which have the form of an entry's, and e->previous. */
void audit_hash(const struct audit_entry *e, uint8_t ret_hash[HASH_BYTES]);
void audit_checkpoint_digest(int64_t number, const uint8_t hash[HASH_BYTES],
			     uint8_t ret_digest[P256_DIGEST_BYTES]);
int audit_get_head(struct manager *m, struct audit_head *ret_h) must_check;
/* 0 stays 0. */
int audit_fail(struct manager *m, int err);

struct audit_walk {
	uint64_t n, n_signed; /* entries seen, and those with a checkpoint */
	uint64_t n_ahead;     /* signed ones behind the head's */
	uint64_t n_uncovered; /* unsigned ones behind the last signed one */
	uint64_t last_signed; /* its number, 0: none */
	uint8_t last_signed_hash[HASH_BYTES];
};
/*
 * Walks the entries from number `from` on. head: what the token says, or NULL. -EBADMSG with words
 * that name the first bad entry.
 */
int audit_walk(struct manager *m, uint64_t from, const struct audit_head *head,
	       struct audit_walk *ret_w) must_check;

#endif
