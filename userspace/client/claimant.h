/* SPDX-License-Identifier: MIT */
/*
 * The directory of a device that claims (PROTOCOL 15), which becomes a party's:
 *
 *   signing.pem    PEM, the key that it made; the same over restarts, so that the claim is the same
 *   answer.pem     PEM, the key that the bundle is sealed to; removed when the bundle is here
 *   manager.pub    PEM, the manager's key, from the code
 *   bundle         last: when it is there, all is
 *
 * The directory is locked by its struct party. What ends the program says so itself.
 */
#ifndef SSDTF_CLIENT_CLAIMANT_H
#define SSDTF_CLIENT_CLAIMANT_H

#include <stdbool.h>

#include "userspace/bundle/claim.h"
#include "userspace/client/party.h"

struct claimant {
	struct party party;
	struct claim_code code;
	struct ssdtf_identity identity;
	const struct ssdtf_ops *ops;
	void *ctx;		      /* for ops */
	struct secret32 claim_key;    /* the code's */
	bool by_new_key;	      /* which of the two it authenticates by */
	struct p256_private *signing; /* the new key */
	struct secret32 signing_scalar, answer;
	struct p256_point answer_point;
};

/* The text of a claim code, from a file or standard input ("-"). */
void claimant_read_code(const char *path, struct claim_code *ret_code);
/* Makes the directory where there is none, and the keys where they are not there. */
void claimant_open(struct claimant *c, const char *dir, const struct claim_code *code,
		   const struct ssdtf_ops *ops, void *ctx, struct ssdtf_time now);
/*
 * To authenticate by the other key from the next connection on. By the code's it can claim; once
 * the claim is certified the new one alone is its key, and where the answer was lost on the way,
 * the same claim by it brings the answer again.
 */
void claimant_change_key(struct claimant *c, struct ssdtf_time now);
/* The bundle is there, and is this code's. */
bool claimant_is_done(struct claimant *c, struct ssdtf_time now);
/*
 * The manager's answer: checked as a party's, then written. 0; -EBADMSG, -EPERM and the like of
 * ssdtf_init(): it is not for this claim; -errno where it cannot be kept, *ret_file then names
 * what.
 */
int claimant_finish(struct claimant *c, const struct ssdtf_event *answer, struct ssdtf_time now,
		    const char **ret_file) must_check;
void claimant_close(struct claimant *c);

#endif
