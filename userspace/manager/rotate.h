/* SPDX-License-Identifier: MIT */
/*
 * Keys replaced by others, without a gap: the old one holds until the overlap's end. One rotation
 * of a thing at a time: another one while the overlap runs is refused, since two old keys are one
 * too many for those who are to tell them apart.
 */
#ifndef SSDTF_MANAGER_ROTATE_H
#define SSDTF_MANAGER_ROTATE_H

#include "userspace/manager/manager.h"

#define ROTATE_OVERLAP_HOURS_STANDARD 24
#define ROTATE_OVERLAP_HOURS_MAX      (24 * 366)
#define ROTATE_KEEP_DAYS_STANDARD     30
#define ROTATE_KEEP_DAYS_MAX	      3660

/*
 * A new epoch with a key of its own. Devices may seal to the old one until the overlap's end, and
 * so many days longer it is converted for those who could read it. Scalars and secrets of epochs
 * for which that is over are wiped by the way.
 */
int rotate_scope(struct manager *m, const char *name, uint32_t overlap_hours,
		 uint32_t keep_days) must_check;

struct rotate_party {
	const char *id;
	const char *public_file; /* of a distributor what `ssdtf-hsmd keygen` prints; or NULL */
	const char *encryption_file;
	const char *generate; /* a folder without keys of its, for new ones; or NULL */
	uint32_t overlap_hours;
};

/* Its signing key, its encryption key, its token's unwrapping key: those that are new. */
int rotate_party(struct manager *m, const struct rotate_party *r) must_check;

/* K_adm of one party, or where id is NULL of all but those that have a code to claim yet, in which
 * theirs is; it is in the party's next bundle. */
int rotate_admission(struct manager *m, const char *id, uint32_t overlap_hours) must_check;

/*
 * What `ssdtf-hsmd keygen` prints with its next keys: the broker signs by the new one from that
 * time on, and grants are made anew for a new unwrapping key, the old ones holding for the overlap
 * after it. Where the next signing key is in use already, it becomes the present one.
 */
int rotate_gateway(struct manager *m, const char *id, const char *file, uint64_t from_ms,
		   uint32_t overlap_hours) must_check;

/* 2026-01-31T23:59:59Z; -EINVAL with words. */
int rotate_time(struct manager *m, const char *text, uint64_t *ret_ms) must_check;

#endif
