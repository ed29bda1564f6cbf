/* SPDX-License-Identifier: MIT */
/*
 * The links to ssdtf-hsmd: Unix SOCK_SEQPACKET to DIR/hsmd.N.sock for every N found at start,
 * driven by the loop's ring. hsm/client.h decides what goes where; this file owns the descriptors,
 * and turns the engine's token jobs into its jobs and back.
 *
 *   DOWN --connect--> ASKING --STATUS names our keys--> UP --end, error, silence--> CLOSING -->
 * DOWN
 *
 * Before a worker gets a job it is asked who it is: one of its signing keys and the hash of one of
 * its unwrapping keys must be those of the bundle, or its signatures would be nobody's. A link that
 * is lost is tried again after 50 ms, then twice as long each time, at most HSMLINK_RETRY_MS_MAX.
 * Jobs that were out on it run elsewhere. The loop's thread only.
 */
#ifndef SSDTF_CORE_HSMLINK_H
#define SSDTF_CORE_HSMLINK_H

#include <stdbool.h>
#include <stdint.h>

#include "hsm/client.h"
#include "userspace/base/pool.h"
#include "userspace/core/ring.h"
#include "userspace/crypto/p256.h"

#define HSMLINK_RETRY_MS_MIN 50
#define HSMLINK_RETRY_MS_MAX 2000
#define HSMLINK_SILENCE_MS   10000 /* a packet out and no answer for so long: the link is cut */

struct broker_token_job;
struct hsmlink;

/*
 * Whose signatures the bundle announces. The token may hold either key as its current or as its
 * next one: between a rotation's steps bundle and token differ by one. Each is used for what the
 * bundle calls it.
 */
struct hsmlink_keys {
	struct p256_point broker;
	bool has_next;
	struct p256_point next;
	uint8_t unwrap_key_hash[32];
};

/*
 * Finds the sockets. -ENOENT: none there; -errno of opendir(3); -ENAMETOOLONG. done() is called
 * from hsmlink_tick(), hsmlink_stop() and ring_drain() with each job's answer in it, once a job.
 */
int hsmlink_new(const char *dir, struct ring *ring, struct pool *pool,
		const struct hsmlink_keys *keys,
		void (*done)(void *ctx, struct broker_token_job *job), void *ctx,
		struct hsmlink **ret_h) must_check;
/* Completes every job as unavailable; nothing more is sent. May be repeated, for jobs that came
 * since; false where there were none. */
bool hsmlink_stop(struct hsmlink *h);
/* After hsmlink_stop(), and after the ring is gone: the kernel may have had the buffers. NULL ok.
 */
void hsmlink_free(struct hsmlink *h);

/*
 * A bundle may name keys that were made since a worker was asked. hsmlink_ask() asks all that are
 * linked once more; when hsmlink_asking() is false again, hsmlink_lacks() says what of a bundle's
 * keys the token does not have (NULL: nothing), and hsmlink_rekey() goes by them from then on.
 */
void hsmlink_ask(struct hsmlink *h);
bool hsmlink_asking(const struct hsmlink *h);
const char *hsmlink_lacks(const struct hsmlink *h, const struct hsmlink_keys *keys);
void hsmlink_rekey(struct hsmlink *h, const struct hsmlink_keys *keys);

void hsmlink_submit(struct hsmlink *h, struct broker_token_job *job);
void hsmlink_forget(struct hsmlink *h, const uint8_t grant_id[GRANT_ID_BYTES]);

/* Start of a turn: deadlines, lost links, attempts to connect. */
void hsmlink_tick(struct hsmlink *h, uint64_t now_ms);
/* End of a turn: one packet to each worker that can take one. */
void hsmlink_flush(struct hsmlink *h);
uint64_t hsmlink_wait_ms(const struct hsmlink *h);

/* The token's public bundle key (PROTOCOL 14); false: it has none, or did not answer yet. */
bool hsmlink_bundle_key(const struct hsmlink *h, struct p256_point *ret_key);

unsigned hsmlink_count(const struct hsmlink *h);
unsigned hsmlink_up(const struct hsmlink *h);
/* A worker held other keys than the bundle names. */
bool hsmlink_mismatch(const struct hsmlink *h);
/* What last kept a link from coming up, or ended one: "hsmd.0.sock: Connection refused". */
const char *hsmlink_trouble(const struct hsmlink *h);
void hsmlink_stats(const struct hsmlink *h, struct hsm_client_stats *ret_s);

#endif
