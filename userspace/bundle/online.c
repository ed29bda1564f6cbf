// SPDX-License-Identifier: MIT
#include "userspace/bundle/online.h"

#include <errno.h>

#include "userspace/bundle/record.h"

static void read_want(struct bytes_reader *r, struct online_message *m)
{
	m->serial = bytes_read_u64(r);
	m->n_wanted = bytes_read_u32(r);
	if (m->n_wanted > ONLINE_WANTED_MAX) {
		r->bad = true;
		return;
	}
	for (unsigned i = 0; i < m->n_wanted; i++)
		m->wanted[i] = bytes_read_u32(r);
}

int online_decode(struct bytes body, struct online_message *ret_m)
{
	struct bytes_reader r = bytes_reader_of(body);
	struct online_message m = { .kind = (enum online_kind)bytes_read_u8(&r) };

	switch (m.kind) {
	case ONLINE_OFFER:
		m.manifest = bytes_read_u32_view(&r);
		record_read_point(&r, &m.enc);
		break;
	case ONLINE_WANT:
		read_want(&r, &m);
		break;
	case ONLINE_PIECE:
		m.serial = bytes_read_u64(&r);
		m.index = bytes_read_u32(&r);
		m.sealed = bytes_read_u32_view(&r);
		break;
	case ONLINE_APPLIED:
		m.serial = bytes_read_u64(&r);
		m.result = bytes_read_u8(&r);
		m.text = bytes_read_u16_view(&r);
		break;
	default:
		return -EBADMSG;
	}
	if (!bytes_read_done(&r))
		return -EBADMSG;
	*ret_m = m;
	return 0;
}

void online_write(const struct online_message *m, struct bytes_writer *w)
{
	bytes_write_u8(w, (uint8_t)m->kind);
	switch (m->kind) {
	case ONLINE_OFFER:
		bytes_write_u32_view(w, m->manifest);
		bytes_write(w, bytes_of(m->enc.b, sizeof(m->enc.b)));
		return;
	case ONLINE_WANT:
		bytes_write_u64(w, m->serial);
		bytes_write_u32(w, m->n_wanted);
		for (unsigned i = 0; i < m->n_wanted; i++)
			bytes_write_u32(w, m->wanted[i]);
		return;
	case ONLINE_PIECE:
		bytes_write_u64(w, m->serial);
		bytes_write_u32(w, m->index);
		bytes_write_u32_view(w, m->sealed);
		return;
	case ONLINE_APPLIED:
		bytes_write_u64(w, m->serial);
		bytes_write_u8(w, m->result);
		bytes_write_u16_view(w, m->text);
		return;
	}
}

void online_aad(uint64_t serial, uint32_t index, uint8_t out[ONLINE_AAD_BYTES])
{
	bytes_store_u64(out, serial);
	bytes_store_u32(out + 8, index);
}
