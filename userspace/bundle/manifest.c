// SPDX-License-Identifier: MIT
#include "userspace/bundle/manifest.h"

#include <errno.h>

#include "userspace/bundle/record.h"

struct manifest_piece manifest_next(struct bytes_reader *r)
{
	struct manifest_piece p;

	p.bytes = bytes_read_u32(r);
	p.hash = bytes_read_view(r, HASH_BYTES);
	return p;
}

int manifest_decode(struct bytes body, struct manifest *ret_m)
{
	struct bytes_reader r = bytes_reader_of(body), pieces;
	struct manifest m = { 0 };
	uint64_t sum = 0;

	m.gateway_id = record_read_id(&r);
	m.serial = bytes_read_u64(&r);
	m.bytes = bytes_read_u64(&r);
	m.n_pieces = bytes_read_u32(&r);
	if (r.bad || !m.n_pieces || m.n_pieces > MANIFEST_PIECES_MAX ||
	    m.bytes > MANIFEST_BYTES_MAX)
		return -EBADMSG;
	m.pieces = pieces = r;
	for (uint32_t i = 0; i < m.n_pieces && !pieces.bad; i++) {
		struct manifest_piece p = manifest_next(&pieces);

		if (!p.bytes || p.bytes > MANIFEST_PIECE_BYTES_MAX)
			return -EBADMSG;
		sum += p.bytes;
	}
	if (!bytes_read_done(&pieces) || sum != m.bytes)
		return -EBADMSG;
	*ret_m = m;
	return 0;
}

void manifest_write_head(const struct manifest *m, struct bytes_writer *w)
{
	bytes_write_u8_view(w, m->gateway_id);
	bytes_write_u64(w, m->serial);
	bytes_write_u64(w, m->bytes);
	bytes_write_u32(w, m->n_pieces);
}

void manifest_write_piece(const struct manifest_piece *p, struct bytes_writer *w)
{
	bytes_write_u32(w, p->bytes);
	bytes_write(w, p->hash);
}
