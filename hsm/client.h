/* SPDX-License-Identifier: MIT */
/*
 * The broker's side of the link, without the sockets: which worker gets which job, batches out,
 * replies in, nothing lost when a worker dies. The caller (core) owns the descriptors: it asks
 * hsm_client_fill() for a packet when a worker's link can take one, and hands packets received to
 * hsm_client_reply().
 *
 * Jobs are the caller's memory and stay the client's until their done() is called, exactly once,
 * from hsm_client_reply(), hsm_client_tick() or hsm_client_free(). done() may submit, and may reuse
 * or free its job. A job that is out at a worker which is lost goes back to the queue's head in
 * order, and to whichever worker is there. One thread.
 *
 * A grant has a worker that it is at home with, so that each key is unwrapped at one worker and not
 * at all of them; signatures go anywhere, and so do OPEN and MAC, which are queued with them. An
 * idle worker takes from another that is down, or that is at work with HSM_STEAL_MIN jobs waiting.
 * Within what a worker may take, the oldest goes first, but signatures before conversions, to
 * HSM_SIGNS_FIRST of a packet: one lets many deliveries go that are converted already.
 *
 * A CONVERT for a grant that the chosen worker has not seen since it connected is preceded by a
 * LOAD of the grant's blob; the client asks for the blob through the job's own pointer, so it keeps
 * none.
 *
 * A job that was out at HSM_SUSPECT_LOSSES lost workers goes alone from then on, so that what kills
 * workers takes nothing else along; after HSM_LOSSES_MAX it ends with HSM_UNAVAILABLE.
 */
#ifndef SSDTF_HSM_CLIENT_H
#define SSDTF_HSM_CLIENT_H

#include <stdint.h>

#include "hsm/wire.h"
#include "userspace/base/list.h"

#define HSM_WORKERS_MAX 64
/* Packets that may be out at one worker: it works on one while the next already waits. */
#define HSM_PACKETS_IN_FLIGHT 2
/* A smaller share than this is not worth a wake. */
#define HSM_SHARE_MIN 8
/* What a worker has before it is some milliseconds of work, so that a signature need not wait
 * longer.
 */
#define HSM_CONVERTS_MAX 32
#define HSM_SIGNS_FIRST	 8
/* About what an unwrapping costs, in conversions. */
#define HSM_STEAL_MIN	   16
#define HSM_SUSPECT_LOSSES 3
#define HSM_LOSSES_MAX	   16
/* Grants whose place is remembered; further ones are loaded and forgotten with each use. */
#define HSM_GRANTS_MAX 131072

struct hsm_job {
	struct list link; /* the client's, as the next four */
	uint64_t seq;
	uint32_t tag;
	uint8_t worker;
	uint8_t losses;
	enum hsm_op
		op; /* HSM_CONVERT, or one that needs no blob: HSM_SIGN, _SIGN_NEXT, _OPEN, _MAC */
	uint8_t grant_id[GRANT_ID_BYTES];
	uint8_t input[P256_POINT_BYTES]; /* point, or digest (MAC: bytes) in the first 32 */
	struct bytes blob;		 /* CONVERT: wrapped key, must outlive the job */
	uint64_t deadline_ms;		 /* then done() with HSM_UNAVAILABLE; 0: none */
	/* status; on HSM_OK output holds x or the MAC (32) or the signature (64). */
	enum hsm_status status;
	uint8_t output[P256_SIG_BYTES];
	void (*done)(void *ctx, struct hsm_job *job);
};

struct hsm_client;

struct hsm_client_stats {
	uint64_t converts, signs, loads, packets, requeued, unavailable;
	uint32_t queued, in_flight;
};

struct hsm_client *hsm_client_new(unsigned n_workers, void *ctx /* for done() */) must_check;
/* Every job still held is completed with HSM_UNAVAILABLE first. */
void hsm_client_free(struct hsm_client *c);

void hsm_client_submit(struct hsm_client *c, struct hsm_job *job);
/*
 * A grant was revoked: each connected worker is told to forget its key, before any later job. What
 * was submitted under it and is not answered yet completes with HSM_NO_KEY, at the next reply or
 * tick.
 */
void hsm_client_forget(struct hsm_client *c, const uint8_t grant_id[GRANT_ID_BYTES]);

/*
 * The bundle and the token may disagree about which signing key is the current one and which the
 * next. From now on a job's HSM_SIGN goes out as `sign` and its HSM_SIGN_NEXT as `next`, those that
 * wait already included; either is one of the two operations, or 0: done() with HSM_NO_KEY.
 */
void hsm_client_map_signs(struct hsm_client *c, enum hsm_op sign, enum hsm_op next);

/* The link to a worker came up; it knows no key. */
void hsm_client_up(struct hsm_client *c, unsigned worker);
/* It went down: its jobs are queued again. */
void hsm_client_down(struct hsm_client *c, unsigned worker);
/* The next packet for a worker, at most HSM_PACKET_BYTES_MAX bytes into buf. 0: nothing to send
 * now. The packet counts as sent. Asking the idle workers in turn shares the load. */
size_t hsm_client_fill(struct hsm_client *c, unsigned worker, uint8_t *buf);
/* A packet from a worker. -EBADMSG: not of the protocol; the caller closes the link and says
 * hsm_client_down(). */
int hsm_client_reply(struct hsm_client *c, unsigned worker, struct bytes packet) must_check;
/* Completes jobs whose deadline is past. */
void hsm_client_tick(struct hsm_client *c, uint64_t now_ms);
/* Something waits: to be sent by hsm_client_fill(), or to be completed by hsm_client_tick(). */
bool hsm_client_has_work(const struct hsm_client *c);
void hsm_client_stats(const struct hsm_client *c, struct hsm_client_stats *ret_s);

#endif
