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

int statement_open(struct bytes whole, enum statement_kind kind, const struct p256_public *manager,
		   struct statement *ret_s)
{
	struct bytes_reader r = bytes_reader_of(whole);
	struct statement s = { .kind = kind };
	uint8_t digest[P256_DIGEST_BYTES];
	struct bytes sig;
	bool known;
	int err;

	known = bytes_read_u8(&r) == MAGIC_0;
	known &= bytes_read_u8(&r) == MAGIC_1;
	known &= bytes_read_u8(&r) == VERSION;
	known &= bytes_read_u8(&r) == (uint8_t)kind;
	s.serial = bytes_read_u64(&r);
	s.not_before_ms = bytes_read_u64(&r);
	s.not_after_ms = bytes_read_u64(&r);
	s.body = bytes_read_u32_view(&r);
	sig = bytes_read_view(&r, P256_SIG_BYTES);
	if (!bytes_read_done(&r) || !known || s.body.n > STATEMENT_BODY_BYTES_MAX)
		return -EBADMSG;

	statement_digest(kind, bytes_of(whole.p, whole.n - P256_SIG_BYTES), digest);
	err = p256_verify_digest(manager, digest, sig.p);
	if (err)
		return err;
	*ret_s = s;
	return 0;
}
