/* SPDX-License-Identifier: MIT */
/*
 * Claim codes (docs/PROTOCOL.md 15) on the manager's side: they are made, written to
 * FOLDER/ID.claim (mode 0600) and not kept. The registry has the party with the code's key and
 * K_adm, flag claim, and a row of the table `claim`, which tells whether the code waits for its
 * device.
 */
#ifndef SSDTF_MANAGER_CLAIMCODE_H
#define SSDTF_MANAGER_CLAIMCODE_H

#include "userspace/bundle/claim.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/party.h"

/* The folder of the codes, for file_join() and errors; -EACCES where others may write to it. */
int claimcode_check_folder(struct manager *m, const char *folder) must_check;

/* A code for id, with a secret of its own. */
void claimcode_make(const struct manager *m, const struct gateway *g, const char *id,
		    struct claim_code *ret_c);
/* The key and K_adm that come of it, and the flag, into p. */
int claimcode_apply(struct manager *m, const struct claim_code *c, struct party *p) must_check;

/*
 * FOLDER/ID.claim. *ret_found false where there is none, or half of one. -EEXIST: one of another
 * party, manager, gateway or broker's key.
 */
int claimcode_read(struct manager *m, const char *folder, const struct gateway *g, const char *id,
		   struct claim_code *ret_c, bool *ret_found) must_check;
/* Not synced: claimcode_sync() once behind many. */
int claimcode_write(struct manager *m, const char *folder, const struct claim_code *c) must_check;
int claimcode_sync(struct manager *m, const char *folder) must_check;
/* Code, label and row for a party that has a code already, in place of the old one. */
int claimcode_renew(struct manager *m, const char *id, const char *gateway,
		    const char *folder) must_check;
int claimcode_list(struct manager *m) must_check;

#endif
