/* SPDX-License-Identifier: MIT */
/*
 * A distributor's table of external ids (docs/PROTOCOL.md 12), as far as others read it: its
 * schema, what its rows hold, and the trace entry that the manager alone can open.
 *
 *   table external (SQLite)
 *     lookup     32 bytes  HMAC under the id key of the distributor's token, over
 *                          SHA-256("ssdtf-ids-1" || u8+ domain || u64 period || u8+ internal id)
 *     external   16 bytes  at random; as 32 hexadecimal digits it is the external id
 *     trace                enc 65 || sealed entry
 *     from_ms, until_ms    when it is given out: milliseconds since 1970; until 0: no end
 *
 *   entry := u8+ internal id || u8+ domain || u64 from || u64 until
 *
 * The entry is sealed with HPKE (Base mode, suite 1, info "ssdtf-trace-1", additional data: the 16
 * external bytes, sequence number 0) to the manager's tracing key. So the table names nobody:
 * whoever has it without the token cannot even look a known id up, and with the token alone only
 * ids that he guesses. period is the number of the domain's period since 1970, 0 where ids do not
 * change.
 *
 * No SQLite in here: the distributor and the manager each open the file themselves. It is in WAL
 * mode, and may be read while the distributor writes it. A copy needs the "-wal" file beside it.
 */
#ifndef SSDTF_BUNDLE_IDTABLE_H
#define SSDTF_BUNDLE_IDTABLE_H

#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/p256.h"

#define IDTABLE_APPLICATION_ID 0x53534944 /* "SSID": PRAGMA application_id */
#define IDTABLE_SCHEMA_VERSION 1	  /* PRAGMA user_version */
#define IDTABLE_FILE	       "distributor.db"

#define IDTABLE_LOOKUP_BYTES	32
#define IDTABLE_EXTERNAL_BYTES	16
#define IDTABLE_EXTERNAL_DIGITS (2 * IDTABLE_EXTERNAL_BYTES)
#define IDTABLE_ID_BYTES_MAX	64
#define IDTABLE_ENTRY_BYTES_MAX (2 * (1 + IDTABLE_ID_BYTES_MAX) + 2 * 8)
#define IDTABLE_TRACE_BYTES_MAX (P256_POINT_BYTES + IDTABLE_ENTRY_BYTES_MAX + 16)

#define IDTABLE_SCHEMA_SQL                                               \
	"CREATE TABLE external ("                                        \
	"  lookup BLOB PRIMARY KEY CHECK (length(lookup) = 32),"         \
	"  external BLOB NOT NULL UNIQUE CHECK (length(external) = 16)," \
	"  trace BLOB NOT NULL,"                                         \
	"  from_ms INTEGER NOT NULL,"                                    \
	"  until_ms INTEGER NOT NULL"                                    \
	") STRICT, WITHOUT ROWID;"                                       \
	"CREATE INDEX external_until ON external (until_ms);"
/* ?1: the 16 bytes. One row or none. */
#define IDTABLE_BY_EXTERNAL_SQL "SELECT trace, from_ms, until_ms FROM external WHERE external = ?1"

/* Who an external id stands for. */
struct idtable_entry {
	struct bytes internal; /* ids, both */
	struct bytes domain;
	uint64_t from_ms, until_ms;
};

/* What the lookup key is the MAC of. internal and domain are ids. */
void idtable_lookup_input(struct bytes domain, uint64_t period, struct bytes internal,
			  uint8_t ret_input[HASH_BYTES]);

/* Which period a time is in, and its bounds. rotate_seconds 0: one without end. */
uint64_t idtable_period(uint64_t now_ms, uint32_t rotate_seconds, uint64_t *ret_from_ms,
			uint64_t *ret_until_ms);

/* Writes the trace field. Errors: p256.h's. */
int idtable_trace_seal(const struct p256_point *trace_key,
		       const uint8_t external[IDTABLE_EXTERNAL_BYTES],
		       const struct idtable_entry *e, struct bytes_writer *w) must_check;
/* Its first part: with it the holder of the tracing key t (in a token, say) computes
 * dh = x(t * enc). -EBADMSG where it is no point. */
int idtable_trace_enc(struct bytes trace, struct p256_point *ret_enc) must_check;
/*
 * Opens a trace field with that dh. room has IDTABLE_ENTRY_BYTES_MAX bytes, in which *ret_e's views
 * lie. -EBADMSG: it is another key's, another row's, or damaged.
 */
int idtable_trace_open(struct bytes trace, const struct secret32 *dh,
		       const struct p256_point *trace_key,
		       const uint8_t external[IDTABLE_EXTERNAL_BYTES],
		       uint8_t room[IDTABLE_ENTRY_BYTES_MAX],
		       struct idtable_entry *ret_e) must_check;

#endif
