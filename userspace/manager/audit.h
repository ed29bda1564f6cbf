/* SPDX-License-Identifier: MIT */
/*
 * The audit log: who had the manager open what nobody else can open (trace.h), and why.
 *
 *   DIR/audit.db (SQLite)                                   the manager's token
 *     entry n: what was done, hash of entry n-1               "ssdtf-manager" signs hash n
 *     hash n = SHA-256("ssdtf-audit-1" || fields || hash      "ssdtf-audit", a data object: the
 * head, n-1), checkpoint n                             number and hash of the last signed entry
 *
 *   fields     = u64 number || u64 time || u32 uid || u8+ login || u8+ action || u16+ subject
 *                || u64 time asked about || u16+ reason || u16+ source || u8 result
 *                || u16+ outcome || u8 signed
 *   checkpoint = signature over "ssdtf-audit-checkpoint-1" || u64 number || hash
 *
 * An entry is on the disk before the head is moved to it, and the head is moved before an answer is
 * given: so where a crash comes between, the log is one signed entry ahead of the head, never
 * behind it. What is tried without the token (it is away, its PIN is wrong) is logged unsigned, and
 * the next checkpoint covers it; until then such entries, alone at the end, are as easily forged or
 * cut as any file. Everything else that is edited, cut or put in another order is found.
 *
 * It is a file of its own so that a registry restored from a copy does not take the log back with
 * it, and so that the log can be shown to somebody without the registry's admission keys.
 */
#ifndef SSDTF_MANAGER_AUDIT_H
#define SSDTF_MANAGER_AUDIT_H

#include "userspace/crypto/hash.h"
#include "userspace/manager/manager.h"

#define AUDIT_HEAD_LABEL	"ssdtf-audit"
#define AUDIT_SUBJECT_BYTES_MAX 128
#define AUDIT_REASON_BYTES_MAX	1024
#define AUDIT_SOURCE_BYTES_MAX	FILE_PATH_BYTES_MAX
#define AUDIT_OUTCOME_BYTES_MAX 512
#define AUDIT_LOGIN_BYTES_MAX	64
#define AUDIT_ACTION_BYTES_MAX	32

/* Numbers are in hashes: never changed. */
enum audit_result { AUDIT_DONE = 0, AUDIT_FAILED = 1 };

/* What a command did or tried. */
struct audit_deed {
	const char *action;  /* "trace" */
	const char *subject; /* whom or what it was about, as it was given */
	uint64_t asked_ms;   /* the time it was asked about, or 0 */
	const char *reason;
	const char *source; /* a file that it was looked up in, or "" */
	enum audit_result result;
	const char *outcome;
};

/* Makes the log ready, before any transaction; it is made where there is none. */
int audit_open(struct manager *m) must_check;

/*
 * Is the end of the log what the token's head says? A log that is one signed entry ahead is put
 * right, by moving the head. -EBADMSG with the words where not: nothing signed may be appended
 * then, or the head that shows it would be gone. Needs manager_token().
 */
int audit_check_end(struct manager *m) must_check;

/*
 * Appends an entry in a transaction of its own, and returns when it is on the disk; texts are cut
 * where too long. Signed: after audit_check_end(), and the head is moved as well.
 */
int audit_append(struct manager *m, const struct audit_deed *d, bool sign) must_check;
/* Its first half: the head stays where it is. */
int audit_write(struct manager *m, const struct audit_deed *d, bool sign) must_check;

/* The whole log, against its signatures and the token's head. -EBADMSG: m->error names the first
 * bad entry. Where the token is away, what can be said without it. */
int audit_verify(struct manager *m) must_check;
int audit_list(struct manager *m, bool json) must_check;

#endif
