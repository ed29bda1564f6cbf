// SPDX-License-Identifier: MIT
#include "userspace/bundle/relay.h"

#include <errno.h>

void relay_write_forward(const struct relay_forward *f, struct bytes_writer *w)
{
	bytes_write_u8(w, CLAIM_FORWARD);
	bytes_write_u8_view(w, f->id);
	bytes_write_u8(w, f->first);
	bytes_write_u16_view(w, f->properties);
	bytes_write(w, f->payload);
}

int relay_read_forward(struct bytes body, struct relay_forward *ret_f)
{
	struct bytes_reader r = bytes_reader_of(body);
	struct relay_forward f = { 0 };
	uint8_t kind = bytes_read_u8(&r);

	f.id = record_read_id(&r);
	f.first = bytes_read_u8(&r);
	f.properties = bytes_read_u16_view(&r);
	f.payload = bytes_read_rest(&r);
	if (!bytes_read_done(&r) || kind != CLAIM_FORWARD)
		return -EBADMSG;
	*ret_f = f;
	return 0;
}

void relay_write_decision(struct bytes id, const struct claim_answer *a, struct bytes_writer *w)
{
	bytes_write_u8(w, CLAIM_DECISION);
	bytes_write_u8_view(w, id);
	bytes_write_u8(w, (uint8_t)a->result);
	bytes_write_u16_view(w, a->text);
	bytes_write(w, bytes_of(a->enc.b, sizeof(a->enc.b)));
	bytes_write_u32_view(w, a->sealed);
}

int relay_read_decision(struct bytes body, struct bytes *ret_id, struct bytes *ret_answer)
{
	struct bytes_reader r = bytes_reader_of(body), answer;
	uint8_t kind = bytes_read_u8(&r), result;
	struct bytes id = record_read_id(&r), rest;

	rest = bytes_read_rest(&r);
	answer = bytes_reader_of(rest);
	result = bytes_read_u8(&answer);
	(void)bytes_read_u16_view(&answer);
	(void)bytes_read_view(&answer, P256_POINT_BYTES);
	(void)bytes_read_u32_view(&answer);
	if (!bytes_read_done(&r) || !bytes_read_done(&answer) || kind != CLAIM_DECISION ||
	    result > CLAIM_TRY_AGAIN)
		return -EBADMSG;
	*ret_id = id;
	*ret_answer = rest;
	return 0;
}
