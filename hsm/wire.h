/* SPDX-License-Identifier: MIT */
/*
 * The link between the broker and ssdtf-hsmd: one SOCK_SEQPACKET packet is one batch, one wake.
 *
 *   request := "SH" || u8 version 1 || u8 0 || u16 n || n * job      at most HSM_PACKET_BYTES_MAX
 *   job     := u32 tag || u8 op || operands
 *   reply   := "SR" || u8 version 1 || u8 0 || u16 n || n * ( u32 tag || u8 op || u8 status ||
 * result )
 *
 *   op          operands                    result (status HSM_OK only)
 *   1 CONVERT   8 grant id || point 65      x 32
 *   2 SIGN      digest 32                   signature 64
 *   3 LOAD      8 grant id || u16+ blob     -
 *   4 FORGET    8 grant id                  -
 *   5 STATUS    -                           u64 converts || u64 signs || u64 recoveries || u32
 * blobs
 *                                           || u32 session keys || u32 rss KiB || broker key 65
 *                                           || 32 unwrap key hash || next broker key 65
 *                                           || 32 next unwrap key hash || bundle key 65
 *   6 OPEN      point 65                    x 32: the point times the bundle key
 *   7 MAC       32 bytes                    HMAC-SHA-256 32 under the id key
 *   8 SIGN NEXT digest 32                   signature 64 by the next broker key
 *
 * A key that the token does not have is zeros in STATUS, and HSM_NO_KEY to 6, 7 and 8. n is at most
 * HSM_BATCH_JOBS_MAX, a blob has 1 to HSM_BLOB_BYTES_MAX bytes. Replies to the jobs of one packet
 * come in one packet, in the jobs' order. A packet that is not of this form is answered with an
 * empty reply packet (n = 0) and the link is closed. A tag is the broker's own. Jobs are
 * idempotent: one whose answer was lost is sent again.
 *
 * A worker keeps the most recently used blobs. It may have dropped one that it took: then a CONVERT
 * is answered HSM_NO_KEY, and LOAD and CONVERT in one packet will do.
 */
#ifndef SSDTF_HSM_WIRE_H
#define SSDTF_HSM_WIRE_H

#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/crypto/grant.h"
#include "userspace/crypto/p256.h"

#define HSM_PACKET_BYTES_MAX 65536
#define HSM_BATCH_JOBS_MAX   64
#define HSM_BLOB_BYTES_MAX   512
#define HSM_STATUS_BYTES     (3 * 8 + 3 * 4 + 2 * (P256_POINT_BYTES + 32) + P256_POINT_BYTES)
#define HSM_MAC_BYTES	     32 /* what goes in, and what comes out */

enum hsm_op {
	HSM_CONVERT = 1,
	HSM_SIGN = 2,
	HSM_LOAD = 3,
	HSM_FORGET = 4,
	HSM_STATUS = 5,
	HSM_OPEN = 6,
	HSM_MAC = 7,
	HSM_SIGN_NEXT = 8,
};

enum hsm_status {
	HSM_OK = 0,
	HSM_BAD_REQUEST = 1, /* malformed or a point off the curve: do not send it again */
	HSM_NO_KEY = 2,	     /* no blob of that grant is loaded here: LOAD it, then again; or the
			      * token has no bundle key, id key or next broker key */
	HSM_BAD_KEY = 3,     /* the blob does not unwrap to a conversion key */
	HSM_FULL = 4,	     /* no memory for another blob */
	HSM_UNAVAILABLE = 5, /* the token does not answer: again later (PROTOCOL 7 reason 6) */
};

struct hsm_job_wire {
	uint32_t tag;
	enum hsm_op op;
	struct bytes grant_id; /* 8: CONVERT, LOAD, FORGET */
	struct bytes point;    /* 65: CONVERT, OPEN */
	struct bytes digest;   /* 32: SIGN, SIGN NEXT, MAC */
	struct bytes blob;     /* LOAD */
};

struct hsm_status_wire {
	uint64_t converts, signs, recoveries;
	uint32_t blobs, session_keys, rss_kib;
	uint8_t broker_key[P256_POINT_BYTES];
	uint8_t unwrap_key_hash[32];
	uint8_t next_broker_key[P256_POINT_BYTES]; /* zeros: none; likewise the rest */
	uint8_t next_unwrap_key_hash[32];
	uint8_t bundle_key[P256_POINT_BYTES];
};

struct hsm_reply_wire {
	uint32_t tag;
	enum hsm_op op;
	enum hsm_status status;
	struct bytes result; /* 32, 64 or the encoded status; empty otherwise */
};

/* A batch being written: begin, add until it returns false (no room), finish gives the length. */
struct hsm_batch {
	struct bytes_writer w;
	uint8_t *count_at;
	unsigned n;
};

/* buf holds the whole packet: HSM_PACKET_BYTES_MAX is room for any HSM_BATCH_JOBS_MAX jobs. */
void hsm_batch_begin(struct hsm_batch *b, char kind /* 'H' or 'R' */, uint8_t *buf, size_t n);
bool hsm_batch_add_job(struct hsm_batch *b, const struct hsm_job_wire *j);
bool hsm_batch_add_reply(struct hsm_batch *b, const struct hsm_reply_wire *r);
size_t hsm_batch_finish(struct hsm_batch *b);

/* Reading: the count, then next() so many times; after the last, bytes_read_done must hold. */
int hsm_batch_open(struct bytes packet, char kind, struct bytes_reader *ret_r,
		   unsigned *ret_n) must_check;
int hsm_batch_next_job(struct bytes_reader *r, struct hsm_job_wire *ret_j) must_check;
int hsm_batch_next_reply(struct bytes_reader *r, struct hsm_reply_wire *ret_r) must_check;

void hsm_status_encode(const struct hsm_status_wire *s, struct bytes_writer *w);
int hsm_status_decode(struct bytes v, struct hsm_status_wire *ret_s) must_check;

#endif
