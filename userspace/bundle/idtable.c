// SPDX-License-Identifier: MIT
#include "userspace/bundle/idtable.h"

#include <errno.h>
#include <string.h>

#include "userspace/base/text.h"
#include "userspace/bundle/record.h"
#include "userspace/crypto/hpke.h"

#define LOOKUP_LABEL "ssdtf-ids-1"
#define TRACE_INFO   "ssdtf-trace-1"
#define TRACE_SEQ    0

_Static_assert(IDTABLE_TRACE_BYTES_MAX ==
		       P256_POINT_BYTES + IDTABLE_ENTRY_BYTES_MAX + HPKE_TAG_BYTES,
	       "the longest trace field");

void idtable_lookup_input(struct bytes domain, uint64_t period, struct bytes internal,
			  uint8_t ret_input[HASH_BYTES])
{
	uint8_t input[2 * (1 + IDTABLE_ID_BYTES_MAX) + 8];
	struct bytes_writer w = bytes_writer_of(input, sizeof(input));
	struct bytes parts[2] = { bytes_str(LOOKUP_LABEL) };

	bytes_write_u8_view(&w, domain);
	bytes_write_u64(&w, period);
	bytes_write_u8_view(&w, internal);
	BUG_ON(w.bad);
	parts[1] = bytes_of(input, w.used);
	hash_parts(parts, 2, ret_input);
}

uint64_t idtable_period(uint64_t now_ms, uint32_t rotate_seconds, uint64_t *ret_from_ms,
			uint64_t *ret_until_ms)
{
	uint64_t length_ms = rotate_seconds * 1000ull;
	uint64_t period = length_ms ? now_ms / length_ms : 0;

	*ret_from_ms = period * length_ms;
	*ret_until_ms = length_ms ? *ret_from_ms + length_ms : 0;
	return period;
}

int idtable_trace_seal(const struct p256_point *trace_key,
		       const uint8_t external[IDTABLE_EXTERNAL_BYTES],
		       const struct idtable_entry *e, struct bytes_writer *w)
{
	uint8_t entry[IDTABLE_ENTRY_BYTES_MAX], sealed[IDTABLE_ENTRY_BYTES_MAX + HPKE_TAG_BYTES];
	struct bytes_writer plain = bytes_writer_of(entry, sizeof(entry));
	struct hpke_context hpke;
	struct p256_point enc;
	int err;

	bytes_write_u8_view(&plain, e->internal);
	bytes_write_u8_view(&plain, e->domain);
	bytes_write_u64(&plain, e->from_ms);
	bytes_write_u64(&plain, e->until_ms);
	BUG_ON(plain.bad);
	err = hpke_setup_sender(HPKE_SUITE_AES_128_GCM, trace_key, bytes_str(TRACE_INFO), &hpke,
				&enc);
	if (err)
		return err;
	err = hpke_seal(&hpke, TRACE_SEQ, bytes_of(external, IDTABLE_EXTERNAL_BYTES),
			bytes_of(entry, plain.used), sealed);
	hpke_context_deinit(&hpke);
	secret_wipe(entry, sizeof(entry));
	if (err)
		return err;
	bytes_write(w, bytes_of(enc.b, sizeof(enc.b)));
	bytes_write(w, bytes_of(sealed, plain.used + HPKE_TAG_BYTES));
	return 0;
}

int idtable_trace_enc(struct bytes trace, struct p256_point *ret_enc)
{
	struct bytes_reader r = bytes_reader_of(trace);
	struct p256_point enc;

	record_read_point(&r, &enc);
	if (r.bad)
		return -EBADMSG;
	*ret_enc = enc;
	return 0;
}

static int parse_entry(struct bytes plain, struct idtable_entry *ret_e)
{
	struct bytes_reader r = bytes_reader_of(plain);
	struct idtable_entry e;

	e.internal = record_read_id(&r);
	e.domain = record_read_id(&r);
	e.from_ms = bytes_read_u64(&r);
	e.until_ms = bytes_read_u64(&r);
	if (!bytes_read_done(&r))
		return -EBADMSG;
	*ret_e = e;
	return 0;
}

int idtable_trace_open(struct bytes trace, const struct secret32 *dh,
		       const struct p256_point *trace_key,
		       const uint8_t external[IDTABLE_EXTERNAL_BYTES],
		       uint8_t room[IDTABLE_ENTRY_BYTES_MAX], struct idtable_entry *ret_e)
{
	struct bytes_reader r = bytes_reader_of(trace);
	struct hpke_context hpke;
	struct p256_point enc;
	struct bytes sealed;
	int err = idtable_trace_enc(trace, &enc);

	if (err)
		return err;
	(void)bytes_read_view(&r, sizeof(enc.b));
	sealed = bytes_read_rest(&r);
	if (sealed.n < HPKE_TAG_BYTES || sealed.n - HPKE_TAG_BYTES > IDTABLE_ENTRY_BYTES_MAX)
		return -EBADMSG;
	err = hpke_setup_from_dh(HPKE_SUITE_AES_128_GCM, dh, &enc, trace_key, bytes_str(TRACE_INFO),
				 &hpke);
	if (err)
		return err;
	err = hpke_open(&hpke, TRACE_SEQ, bytes_of(external, IDTABLE_EXTERNAL_BYTES), sealed, room);
	hpke_context_deinit(&hpke);
	if (err)
		return err;
	return parse_entry(bytes_of(room, sealed.n - HPKE_TAG_BYTES), ret_e);
}
