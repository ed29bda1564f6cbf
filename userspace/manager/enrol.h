/* SPDX-License-Identifier: MIT */
/*
 * Enrolment: whose key is whose. The manager sees public keys only, but for a party that asks it to
 * make its keys, whose private halves it writes to that party's folder and forgets.
 */
#ifndef SSDTF_MANAGER_ENROL_H
#define SSDTF_MANAGER_ENROL_H

#include "userspace/bundle/record.h"
#include "userspace/manager/manager.h"

enum enrol_clock { ENROL_CLOCK_AS_IS, ENROL_CLOCK, ENROL_NO_CLOCK /* PROTOCOL 6, slot 0 */ };

struct enrol_party {
	const char *id;
	enum record_roles role;
	const char *public_file;     /* the signing key, of a distributor what `ssdtf-hsmd keygen`
				      * prints; NULL with generate */
	const char *encryption_file; /* a receiver's encryption key; NULL with generate */
	const char *generate;	     /* folder for signing.pem and encryption.pem, or NULL */
	enum enrol_clock clock;
	bool zk; /* authenticates by SSDTF-ZK-1: id may be NULL, and is made of the key */
};

/*
 * Adds the role to the party, which is new or enrolled with the same keys. Doing it again changes
 * nothing. -EEXIST: the id is enrolled with another key, or the key with another id.
 */
int enrol_party(struct manager *m, const struct enrol_party *e) must_check;
/* file: what `ssdtf-hsmd keygen` prints. */
int enrol_gateway(struct manager *m, const char *id, const char *file) must_check;

/* -EEXIST with words where a key offered for this id is somebody else's, or the manager's. */
int enrol_check_key(struct manager *m, const char *id, const struct p256_point *key) must_check;

#endif
