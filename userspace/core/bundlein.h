/* SPDX-License-Identifier: MIT */
/*
 * The gateway's end of bundles online (PROTOCOL 14).
 *
 *   IDLE --offer--> SEARCHING (files, and meanwhile the token opens the context)
 *      --> RECEIVING: want, pieces, want, pieces ... --all are here--> SYNCING
 *      --> checked as a file is, in its place, applied --> IDLE
 *
 * One offer at a time; a newer one takes an older one's place, and the same one offered again goes
 * on where it was, for whichever manager brought it last. Whatever does not hold ends the offer and
 * leaves the bundle in force. What was received stays for the next attempt (pieces.h).
 *
 * The loop's thread only. It does no more than BUNDLEIN_SEARCH_BYTES of reading and hashing a turn;
 * what is whole is read and checked at once, as SIGHUP does it. The owner gives the files' folder
 * and does the rest through ops; none of them is called from within bundlein_take().
 */
#ifndef SSDTF_CORE_BUNDLEIN_H
#define SSDTF_CORE_BUNDLEIN_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/crypto/p256.h"

#define BUNDLEIN_SEARCH_BYTES (1u << 20)
#define BUNDLEIN_RETRY_MS     500 /* the token is away */

struct bundlein;
struct broker_token_job;

struct bundlein_ops {
	/* The gateway's public bundle key; false: the token has none. */
	bool (*key)(void *ctx, struct p256_point *ret_key);
	/* x of the point times that key: bundlein_opened() follows. */
	void (*open)(void *ctx, struct broker_token_job *job);
	/* A message to this manager. */
	void (*answer)(void *ctx, const char *manager_id, struct bytes body);
	/* What is written to fd goes to the disk: bundlein_synced() follows. */
	void (*sync)(void *ctx, int fd);
	/* Is the file a bundle for this gateway, newer than the one in force, and can it be
	 * applied? Then apply() or drop() follows at once. 0 or -errno, and why in words. */
	int (*check)(void *ctx, const char *path, char *why, size_t room);
	void (*apply)(void *ctx);
	void (*drop)(void *ctx);
	void (*note)(void *ctx, const char *manager_id, const char *what);
};

struct bundlein_config {
	const char *state_dir;
	const char *gateway_id;
	const struct p256_public *manager;
	const struct bundlein_ops *ops;
	void *ctx;
};

/* config is copied, what it points to is not. NULL: no memory. */
struct bundlein *bundlein_new(const struct bundlein_config *config) must_check;
/* Neither a job nor a sync is out any more. NULL ok. */
void bundlein_free(struct bundlein *in);

/* Which bundle is in force, and in which file; the path outlives it. */
void bundlein_in_force(struct bundlein *in, uint64_t serial, const char *path);
/* One message of a manager's. False: it is malformed. */
bool bundlein_take(struct bundlein *in, const char *manager_id, struct bytes message);
void bundlein_opened(struct bundlein *in, struct broker_token_job *job);
void bundlein_synced(struct bundlein *in, int error);

/* Goes on with what can go on. */
void bundlein_turn(struct bundlein *in, uint64_t mono_ms, uint64_t wall_ms);
uint64_t bundlein_wait_ms(const struct bundlein *in);

#endif
