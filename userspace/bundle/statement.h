/* SPDX-License-Identifier: MIT */
/*
 * A signed statement of the manager.
 *
 *   5D 7E || u8 version 1 || u8 kind || u64 serial || u64 not before || u64 not after
 *   || u32+ body || signature 64 over label(kind) || all bytes before the signature
 *
 * label(kind) is "ssdtf-stmt-scope-1", "ssdtf-stmt-grant-1", "ssdtf-stmt-party-1",
 * "ssdtf-stmt-gateway-1", "ssdtf-stmt-bundle-1", "ssdtf-stmt-broker-1",
 * "ssdtf-stmt-distributor-1" or "ssdtf-stmt-manifest-1": one never passes for another. The
 * serial is the manager's: it grows with every statement it signs and never goes back; who keeps a
 * statement keeps its serial and refuses a lower one.
 */
#ifndef SSDTF_BUNDLE_STATEMENT_H
#define SSDTF_BUNDLE_STATEMENT_H

#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/crypto/p256.h"

enum statement_kind {
	STATEMENT_SCOPE = 1,	   /* record_scope */
	STATEMENT_GRANT = 2,	   /* record_grant */
	STATEMENT_PARTY = 3,	   /* record_party */
	STATEMENT_GATEWAY = 4,	   /* bundle_gateway */
	STATEMENT_BUNDLE = 5,	   /* bundle_party */
	STATEMENT_BROKER = 6,	   /* record_broker */
	STATEMENT_DISTRIBUTOR = 7, /* bundle_distributor */
	STATEMENT_MANIFEST = 8,	   /* manifest.h: a bundle that comes in pieces */
};

#define STATEMENT_HEAD_BYTES	 32 /* up to and with the body's length */
#define STATEMENT_BYTES(body)	 (STATEMENT_HEAD_BYTES + (body) + P256_SIG_BYTES)
#define STATEMENT_BODY_BYTES_MAX (256u << 20)

struct statement {
	enum statement_kind kind;
	uint64_t serial;
	uint64_t not_before_ms, not_after_ms;
	struct bytes body;
};

/* Structure and signature: -EBADMSG for either (cut short, kind, version, another manager's key).
 */
int statement_open(struct bytes whole, enum statement_kind kind, const struct p256_public *manager,
		   struct statement *ret_s) must_check;

/* The same for one that stands inside another statement, whose signature covers it: structure
 * alone, and the kind is whatever it says. */
int statement_read(struct bytes whole, struct statement *ret_s) must_check;

/* The digest to sign, and the bytes around it: head and body are written first, then the signature
 * is appended by whoever has the key (the manager's is in a token). */
void statement_write_unsigned(const struct statement *s, struct bytes_writer *w);
void statement_digest(enum statement_kind kind, struct bytes unsigned_bytes,
		      uint8_t ret_digest[P256_DIGEST_BYTES]);

#endif
