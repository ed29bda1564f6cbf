// SPDX-License-Identifier: MIT
#include "userspace/bundle/statement.h"

#include <errno.h>

#include "userspace/base/compiler.h"
#include "userspace/crypto/hash.h"

#define MAGIC_0 0x5d
#define MAGIC_1 0x7e
#define VERSION 1

/* A label per kind, none a prefix of another, so that no statement reads as one of another kind. */
static const char *label_of(enum statement_kind kind)
{
	switch (kind) {
	case STATEMENT_SCOPE:
		return "ssdtf-stmt-scope-1";
	case STATEMENT_GRANT:
		return "ssdtf-stmt-grant-1";
	case STATEMENT_PARTY:
		return "ssdtf-stmt-party-1";
	case STATEMENT_GATEWAY:
		return "ssdtf-stmt-gateway-1";
	case STATEMENT_BUNDLE:
		return "ssdtf-stmt-bundle-1";
	case STATEMENT_BROKER:
		return "ssdtf-stmt-broker-1";
	case STATEMENT_DISTRIBUTOR:
		return "ssdtf-stmt-distributor-1";
	case STATEMENT_MANIFEST:
		return "ssdtf-stmt-manifest-1";
	}
	BUG_ON(true); /* our own callers name a kind */
	return NULL;
}

void statement_digest(enum statement_kind kind, struct bytes unsigned_bytes,
		      uint8_t ret_digest[P256_DIGEST_BYTES])
{
	const struct bytes parts[] = { bytes_str(label_of(kind)), unsigned_bytes };

	hash_parts(parts, ARRAY_SIZE(parts), ret_digest);
}

void statement_write_unsigned(const struct statement *s, struct bytes_writer *w)
{
	w->bad |= s->body.n > STATEMENT_BODY_BYTES_MAX;
	bytes_write_u8(w, MAGIC_0);
	bytes_write_u8(w, MAGIC_1);
	bytes_write_u8(w, VERSION);
	bytes_write_u8(w, (uint8_t)s->kind);
	bytes_write_u64(w, s->serial);
	bytes_write_u64(w, s->not_before_ms);
	bytes_write_u64(w, s->not_after_ms);
	bytes_write_u32_view(w, s->body);
}

int statement_read(struct bytes whole, struct statement *ret_s)
{
	struct bytes_reader r = bytes_reader_of(whole);
	struct statement s = { 0 };
	uint8_t kind;
	bool known;

	known = bytes_read_u8(&r) == MAGIC_0;
	known &= bytes_read_u8(&r) == MAGIC_1;
	known &= bytes_read_u8(&r) == VERSION;
	kind = bytes_read_u8(&r);
	known &= kind >= STATEMENT_SCOPE && kind <= STATEMENT_MANIFEST;
	s.kind = (enum statement_kind)kind;
	s.serial = bytes_read_u64(&r);
	s.not_before_ms = bytes_read_u64(&r);
	s.not_after_ms = bytes_read_u64(&r);
	s.body = bytes_read_u32_view(&r);
	(void)bytes_read_view(&r, P256_SIG_BYTES); /* too short a rest makes r bad */
	if (!bytes_read_done(&r) || !known || s.body.n > STATEMENT_BODY_BYTES_MAX)
		return -EBADMSG;
	*ret_s = s;
	return 0;
}

int statement_open(struct bytes whole, enum statement_kind kind, const struct p256_public *manager,
		   struct statement *ret_s)
{
	uint8_t digest[P256_DIGEST_BYTES];
	struct statement s;
	int err = statement_read(whole, &s);

	if (err)
		return err;
	if (s.kind != kind)
		return -EBADMSG;
	statement_digest(kind, bytes_of(whole.p, whole.n - P256_SIG_BYTES), digest);
	err = p256_verify_digest(manager, digest, whole.p + whole.n - P256_SIG_BYTES);
	if (err)
		return err;
	*ret_s = s;
	return 0;
}
