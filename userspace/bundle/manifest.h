/* SPDX-License-Identifier: MIT */
/*
 * What a bundle that comes in pieces is made of: the body of a statement of kind 8 (PROTOCOL 14).
 *
 *   manifest := u8+ gateway id || u64 bundle serial || u64 bytes
 *               || u32 n || n * ( u32 bytes of the piece || SHA-256 of it 32 )
 *
 * The pieces, one behind the other, are the gateway's bundle: a whole statement of kind 4.
 */
#ifndef SSDTF_BUNDLE_MANIFEST_H
#define SSDTF_BUNDLE_MANIFEST_H

#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/bundle/statement.h"
#include "userspace/crypto/hash.h"

#define MANIFEST_PIECE_BYTES_MAX 65536
#define MANIFEST_PIECES_MAX	 65536 /* an index is a sequence number of HPKE, too */
#define MANIFEST_BYTES_MAX	 STATEMENT_BYTES((uint64_t)STATEMENT_BODY_BYTES_MAX)
#define MANIFEST_HEAD_BYTES_MAX	 (1 + 64 + 8 + 8 + 4)
#define MANIFEST_ENTRY_BYTES	 (4 + HASH_BYTES)

struct manifest {
	struct bytes gateway_id;
	uint64_t serial; /* the bundle's, not the manifest's own */
	uint64_t bytes;
	uint32_t n_pieces;
	struct bytes_reader pieces;
};

struct manifest_piece {
	uint32_t bytes;
	struct bytes hash;
};

/* -EBADMSG: also where a piece is empty or too large, or they do not add up to `bytes`. */
int manifest_decode(struct bytes body, struct manifest *ret_m) must_check;
/* From a copy of pieces, n times; a manifest that decoded has them all. */
struct manifest_piece manifest_next(struct bytes_reader *r);
/* Writing: head (all but pieces), then each piece. */
void manifest_write_head(const struct manifest *m, struct bytes_writer *w);
void manifest_write_piece(const struct manifest_piece *p, struct bytes_writer *w);

#endif
