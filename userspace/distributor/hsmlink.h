/* SPDX-License-Identifier: MIT */
/*
 * The links to the distributor's own ssdtf-hsmd: Unix SOCK_SEQPACKET to DIR/hsmd.N.sock for every N
 * found at start, watched with poll(2). hsm/client.h decides what goes where; this file owns the
 * descriptors.
 *
 *   DOWN --connect--> ASKING --STATUS names our keys--> UP --end, error, silence--> DOWN
 *
 * Before a worker gets a job it is asked who it is: its signing key (the one in force or the next)
 * and its unwrapping key must be those of the bundle. A link that is lost is tried again after 50
 * ms, then twice as long each time, at most HSMLINK_RETRY_MS_MAX. Jobs that were out on it run
 * elsewhere, or wait.
 */
#ifndef SSDTF_DISTRIBUTOR_HSMLINK_H
#define SSDTF_DISTRIBUTOR_HSMLINK_H

#include <poll.h>
#include <stdint.h>

#include "hsm/client.h"
#include "userspace/crypto/p256.h"

#define HSMLINK_RETRY_MS_MIN 50
#define HSMLINK_RETRY_MS_MAX 2000
#define HSMLINK_SILENCE_MS   10000 /* a packet out and no answer for so long: the link is cut */

struct hsmlink;

/* Finds the sockets. -ENOENT: none there; -errno of opendir(3); -ENAMETOOLONG; -ENOMEM. dir is not
 * copied. */
int hsmlink_new(const char *dir, const struct p256_point *signing,
		const uint8_t unwrap_key_hash[32], struct hsmlink **ret_h) must_check;
/* Every job still held is answered HSM_UNAVAILABLE first. NULL ok. */
void hsmlink_free(struct hsmlink *h);

void hsmlink_submit(struct hsmlink *h, struct hsm_job *job);
void hsmlink_forget(struct hsmlink *h, const uint8_t grant_id[GRANT_ID_BYTES]);

/* What to watch: at most HSM_WORKERS_MAX. Returns how many. */
unsigned hsmlink_watch(const struct hsmlink *h, struct pollfd *fds);
/* What poll() said of them. */
void hsmlink_events(struct hsmlink *h, const struct pollfd *fds, uint64_t now_ms);
/* Begin of a turn: deadlines, lost links, attempts to connect. */
void hsmlink_tick(struct hsmlink *h, uint64_t now_ms);
/* End of a turn: a packet to each worker that can take one. */
void hsmlink_flush(struct hsmlink *h, uint64_t now_ms);
uint64_t hsmlink_due_ms(const struct hsmlink *h);
unsigned hsmlink_up(const struct hsmlink *h);

#endif
