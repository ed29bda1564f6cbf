// SPDX-License-Identifier: MIT
#include "hsm/wire.h"

#include <errno.h>

#include "userspace/base/compiler.h"

#define WIRE_VERSION 1
#define HEAD_BYTES   6
/* tag, op, grant id, length, blob: no job is longer. */
#define JOB_BYTES_MAX (4 + 1 + GRANT_ID_BYTES + 2 + HSM_BLOB_BYTES_MAX)

_Static_assert(HEAD_BYTES + HSM_BATCH_JOBS_MAX * JOB_BYTES_MAX <= HSM_PACKET_BYTES_MAX,
	       "any full batch fits a packet");

void hsm_batch_begin(struct hsm_batch *b, char kind, uint8_t *buf, size_t n)
{
	b->w = bytes_writer_of(buf, n);
	b->n = 0;
	bytes_write_u8(&b->w, 'S');
	bytes_write_u8(&b->w, (uint8_t)kind);
	bytes_write_u8(&b->w, WIRE_VERSION);
	bytes_write_u8(&b->w, 0);
	b->count_at = bytes_write_space(&b->w, 2);
	BUG_ON(!b->count_at);
}

/* Keeps what was written since `before` where it fitted, and takes it back where it did not. */
static bool commit(struct hsm_batch *b, const struct bytes_writer *before)
{
	if (b->w.bad) {
		b->w = *before;
		return false;
	}
	b->n++;
	return true;
}

bool hsm_batch_add_job(struct hsm_batch *b, const struct hsm_job_wire *j)
{
	struct bytes_writer before = b->w;

	if (b->n == HSM_BATCH_JOBS_MAX)
		return false;
	bytes_write_u32(&b->w, j->tag);
	bytes_write_u8(&b->w, (uint8_t)j->op);
	switch (j->op) {
	case HSM_CONVERT:
		BUG_ON(j->grant_id.n != GRANT_ID_BYTES || j->point.n != P256_POINT_BYTES);
		bytes_write(&b->w, j->grant_id);
		bytes_write(&b->w, j->point);
		break;
	case HSM_OPEN:
		BUG_ON(j->point.n != P256_POINT_BYTES);
		bytes_write(&b->w, j->point);
		break;
	case HSM_SIGN:
	case HSM_SIGN_NEXT:
	case HSM_MAC:
		BUG_ON(j->digest.n != P256_DIGEST_BYTES);
		bytes_write(&b->w, j->digest);
		break;
	case HSM_LOAD:
		BUG_ON(j->grant_id.n != GRANT_ID_BYTES);
		BUG_ON(!j->blob.n || j->blob.n > HSM_BLOB_BYTES_MAX);
		bytes_write(&b->w, j->grant_id);
		bytes_write_u16_view(&b->w, j->blob);
		break;
	case HSM_FORGET:
		BUG_ON(j->grant_id.n != GRANT_ID_BYTES);
		bytes_write(&b->w, j->grant_id);
		break;
	case HSM_STATUS:
		break;
	}
	return commit(b, &before);
}

/* The result of an operation that went well has one length. */
static size_t result_bytes(enum hsm_op op)
{
	switch (op) {
	case HSM_CONVERT:
	case HSM_OPEN:
		return P256_X_BYTES;
	case HSM_MAC:
		return HSM_MAC_BYTES;
	case HSM_SIGN:
	case HSM_SIGN_NEXT:
		return P256_SIG_BYTES;
	case HSM_STATUS:
		return HSM_STATUS_BYTES;
	case HSM_LOAD:
	case HSM_FORGET:
		return 0;
	}
	return 0;
}

bool hsm_batch_add_reply(struct hsm_batch *b, const struct hsm_reply_wire *r)
{
	struct bytes_writer before = b->w;

	if (b->n == HSM_BATCH_JOBS_MAX)
		return false;
	BUG_ON(r->result.n != (r->status == HSM_OK ? result_bytes(r->op) : 0));
	bytes_write_u32(&b->w, r->tag);
	bytes_write_u8(&b->w, (uint8_t)r->op);
	bytes_write_u8(&b->w, (uint8_t)r->status);
	bytes_write(&b->w, r->result);
	return commit(b, &before);
}

size_t hsm_batch_finish(struct hsm_batch *b)
{
	bytes_store_u16(b->count_at, (uint16_t)b->n);
	return b->w.used;
}

int hsm_batch_open(struct bytes packet, char kind, struct bytes_reader *ret_r, unsigned *ret_n)
{
	struct bytes_reader r = bytes_reader_of(packet);
	bool fits = bytes_read_u8(&r) == 'S';
	unsigned n;

	fits &= bytes_read_u8(&r) == (uint8_t)kind;
	fits &= bytes_read_u8(&r) == WIRE_VERSION;
	fits &= bytes_read_u8(&r) == 0;
	n = bytes_read_u16(&r);
	if (!fits || r.bad || n > HSM_BATCH_JOBS_MAX)
		return -EBADMSG;
	*ret_r = r;
	*ret_n = n;
	return 0;
}

static bool is_op(uint8_t op)
{
	return op >= HSM_CONVERT && op <= HSM_SIGN_NEXT;
}

int hsm_batch_next_job(struct bytes_reader *r, struct hsm_job_wire *ret_j)
{
	struct hsm_job_wire j = { .tag = bytes_read_u32(r) };
	uint8_t op = bytes_read_u8(r);

	if (r->bad || !is_op(op))
		return -EBADMSG;
	j.op = (enum hsm_op)op;
	switch (j.op) {
	case HSM_CONVERT:
		j.grant_id = bytes_read_view(r, GRANT_ID_BYTES);
		j.point = bytes_read_view(r, P256_POINT_BYTES);
		break;
	case HSM_OPEN:
		j.point = bytes_read_view(r, P256_POINT_BYTES);
		break;
	case HSM_SIGN:
	case HSM_SIGN_NEXT:
	case HSM_MAC:
		j.digest = bytes_read_view(r, P256_DIGEST_BYTES);
		break;
	case HSM_LOAD:
		j.grant_id = bytes_read_view(r, GRANT_ID_BYTES);
		j.blob = bytes_read_u16_view(r);
		if (!j.blob.n || j.blob.n > HSM_BLOB_BYTES_MAX)
			return -EBADMSG;
		break;
	case HSM_FORGET:
		j.grant_id = bytes_read_view(r, GRANT_ID_BYTES);
		break;
	case HSM_STATUS:
		break;
	}
	if (r->bad)
		return -EBADMSG;
	*ret_j = j;
	return 0;
}

int hsm_batch_next_reply(struct bytes_reader *r, struct hsm_reply_wire *ret_r)
{
	struct hsm_reply_wire reply = { .tag = bytes_read_u32(r) };
	uint8_t op = bytes_read_u8(r);
	uint8_t status = bytes_read_u8(r);

	if (r->bad || !is_op(op) || status > HSM_UNAVAILABLE)
		return -EBADMSG;
	reply.op = (enum hsm_op)op;
	reply.status = (enum hsm_status)status;
	if (reply.status == HSM_OK)
		reply.result = bytes_read_view(r, result_bytes(reply.op));
	if (r->bad)
		return -EBADMSG;
	*ret_r = reply;
	return 0;
}

void hsm_status_encode(const struct hsm_status_wire *s, struct bytes_writer *w)
{
	bytes_write_u64(w, s->converts);
	bytes_write_u64(w, s->signs);
	bytes_write_u64(w, s->recoveries);
	bytes_write_u32(w, s->blobs);
	bytes_write_u32(w, s->session_keys);
	bytes_write_u32(w, s->rss_kib);
	bytes_write(w, bytes_of(s->broker_key, sizeof(s->broker_key)));
	bytes_write(w, bytes_of(s->unwrap_key_hash, sizeof(s->unwrap_key_hash)));
	bytes_write(w, bytes_of(s->next_broker_key, sizeof(s->next_broker_key)));
	bytes_write(w, bytes_of(s->next_unwrap_key_hash, sizeof(s->next_unwrap_key_hash)));
	bytes_write(w, bytes_of(s->bundle_key, sizeof(s->bundle_key)));
}

int hsm_status_decode(struct bytes v, struct hsm_status_wire *ret_s)
{
	struct bytes_reader r = bytes_reader_of(v);
	struct hsm_status_wire s = { 0 };

	s.converts = bytes_read_u64(&r);
	s.signs = bytes_read_u64(&r);
	s.recoveries = bytes_read_u64(&r);
	s.blobs = bytes_read_u32(&r);
	s.session_keys = bytes_read_u32(&r);
	s.rss_kib = bytes_read_u32(&r);
	bytes_read_copy(&r, s.broker_key, sizeof(s.broker_key));
	bytes_read_copy(&r, s.unwrap_key_hash, sizeof(s.unwrap_key_hash));
	bytes_read_copy(&r, s.next_broker_key, sizeof(s.next_broker_key));
	bytes_read_copy(&r, s.next_unwrap_key_hash, sizeof(s.next_unwrap_key_hash));
	bytes_read_copy(&r, s.bundle_key, sizeof(s.bundle_key));
	if (!bytes_read_done(&r))
		return -EBADMSG;
	*ret_s = s;
	return 0;
}
