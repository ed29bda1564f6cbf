// SPDX-License-Identifier: MIT
#include "userspace/crypto/envelope.h"

#include <errno.h>
#include <string.h>

#include "userspace/base/text.h"
#include "userspace/crypto/context.h"
#include "userspace/crypto/hash.h"

#define VERSION	       1
#define BIND_LABEL     "ssdtf-bind-1"
#define COMMIT_LABEL   "ssdtf-commit"
#define X_BYTES	       P256_X_BYTES
#define LEVEL_OFFSET   (ENVELOPE_FIXED_BYTES - 1)
#define BLOCK_OVERHEAD (ENVELOPE_GRANT_BYTES + X_BYTES + 1 + 2)

/* --- parse ----------------------------------------------------------------------------------- */

static bool suite_known(uint8_t suite)
{
	return suite == HPKE_SUITE_AES_128_GCM || suite == HPKE_SUITE_CHACHA20_POLY1305;
}

static bool looks_compressed(struct bytes enc)
{
	return enc.n == P256_COMPRESSED_BYTES && (enc.p[0] == 0x02 || enc.p[0] == 0x03);
}

int envelope_parse(struct bytes payload, struct envelope *ret_env)
{
	struct bytes_reader r = bytes_reader_of(payload);
	struct envelope e = { .whole = payload };
	uint8_t suite;
	bool fits;

	fits = bytes_read_u16(&r) == ENVELOPE_MAGIC;
	fits &= bytes_read_u8(&r) == VERSION;
	suite = bytes_read_u8(&r);
	e.key_id = bytes_read_u32(&r);
	e.seq = bytes_read_u32(&r);
	e.counter = bytes_read_u64(&r);
	e.time_ms = bytes_read_u64(&r);
	e.bind = bytes_read_view(&r, ENVELOPE_BIND_BYTES);
	e.enc = bytes_read_view(&r, P256_COMPRESSED_BYTES);
	e.commit = bytes_read_view(&r, ENVELOPE_COMMIT_BYTES);
	e.salt = bytes_read_view(&r, ENVELOPE_SALT_BYTES);
	e.level = bytes_read_u8(&r);
	if (e.level > 0) {
		e.grant = bytes_read_view(&r, ENVELOPE_GRANT_BYTES);
		e.x = bytes_read_view(&r, X_BYTES);
		e.origin = bytes_read_u8_view(&r);
		e.proof = bytes_read_u16_view(&r);
		fits &= text_is_id(e.origin);
	}
	e.ct = bytes_read_rest(&r);
	fits &= bytes_read_done(&r) && e.ct.n >= HPKE_TAG_BYTES;
	fits &= suite_known(suite) && e.seq <= HPKE_SEQ_MAX && e.level <= ENVELOPE_LEVEL_MAX;
	fits &= looks_compressed(e.enc);
	if (!fits)
		return -EBADMSG;
	e.suite = suite;
	*ret_env = e;
	return 0;
}

/* --- bind ------------------------------------------------------------------------------------ */

void envelope_bind(struct bytes salt, struct bytes id, struct bytes topic,
		   uint8_t out[ENVELOPE_BIND_BYTES])
{
	uint8_t id_n[2], topic_n[2], hash[HASH_BYTES];
	struct bytes parts[] = { bytes_str(BIND_LABEL),
				 salt,
				 bytes_of(id_n, sizeof(id_n)),
				 id,
				 bytes_of(topic_n, sizeof(topic_n)),
				 topic };

	/* Both are MQTT strings, which have 16-bit lengths [MQTT-1.5.3]. */
	BUG_ON(id.n > UINT16_MAX || topic.n > UINT16_MAX);
	bytes_store_u16(id_n, (uint16_t)id.n);
	bytes_store_u16(topic_n, (uint16_t)topic.n);
	hash_parts(parts, ARRAY_SIZE(parts), hash);
	memcpy(out, hash, ENVELOPE_BIND_BYTES);
}

bool envelope_bind_fits(const struct envelope *e, struct bytes id, struct bytes topic)
{
	uint8_t bind[ENVELOPE_BIND_BYTES];

	if (bytes_is_zero(e->salt))
		return false;
	envelope_bind(e->salt, id, topic, bind);
	return bytes_equal(e->bind, bytes_of(bind, sizeof(bind)));
}

/* --- seal ------------------------------------------------------------------------------------ */

static void sender_ready(struct envelope_sender *s, uint32_t key_id,
			 const uint8_t salt[ENVELOPE_SALT_BYTES])
{
	s->key_id = key_id;
	s->seq_next = 0;
	s->forks = context_forks();
	memcpy(s->salt, salt, ENVELOPE_SALT_BYTES);
	hpke_export(&s->hpke, bytes_str(COMMIT_LABEL), s->commit, sizeof(s->commit));
}

int envelope_sender_init(struct envelope_sender *s, enum hpke_suite suite, uint32_t key_id,
			 const struct p256_point *a)
{
	uint8_t salt[ENVELOPE_SALT_BYTES];
	int err = hpke_setup_sender(suite, a, bytes_str(ENVELOPE_INFO), &s->hpke, &s->enc);

	if (err)
		return err;
	do {
		hash_random(salt, sizeof(salt)); /* zeros mean "replaced", PROTOCOL 2 */
	} while (bytes_is_zero(bytes_of(salt, sizeof(salt))));
	sender_ready(s, key_id, salt);
	return 0;
}

int envelope_sender_init_with(struct envelope_sender *s, enum hpke_suite suite, uint32_t key_id,
			      const struct p256_point *a, const struct secret32 *r,
			      const uint8_t salt[ENVELOPE_SALT_BYTES])
{
	int err = hpke_setup_sender_with(suite, a, bytes_str(ENVELOPE_INFO), r, &s->hpke, &s->enc);

	if (!err)
		sender_ready(s, key_id, salt);
	return err;
}

void envelope_sender_deinit(struct envelope_sender *s)
{
	secret_wipe(s, sizeof(*s));
	s->seq_next = HPKE_SEQ_MAX + 1; /* what is wiped seals nothing */
}

int envelope_seal(struct envelope_sender *s, uint64_t counter, uint64_t time_ms, struct bytes id,
		  struct bytes topic, struct bytes plain, uint8_t *out)
{
	struct bytes_writer w = bytes_writer_of(out, ENVELOPE_FIXED_BYTES);
	uint8_t bind[ENVELOPE_BIND_BYTES], enc[P256_COMPRESSED_BYTES];
	int err;

	if (!text_is_id(id) || topic.n < 1 || topic.n > UINT16_MAX)
		return -EINVAL;
	/* One (enc, seq) seals once, ever: not a second time in a forked child (PROTOCOL 2). */
	if (s->seq_next > HPKE_SEQ_MAX || s->forks != context_forks())
		return -EOVERFLOW;
	envelope_bind(bytes_of(s->salt, sizeof(s->salt)), id, topic, bind);
	p256_point_compress(&s->enc, enc);
	bytes_write_u16(&w, ENVELOPE_MAGIC);
	bytes_write_u8(&w, VERSION);
	bytes_write_u8(&w, (uint8_t)s->hpke.suite);
	bytes_write_u32(&w, s->key_id);
	bytes_write_u32(&w, s->seq_next);
	bytes_write_u64(&w, counter);
	bytes_write_u64(&w, time_ms);
	bytes_write(&w, bytes_of(bind, sizeof(bind)));
	bytes_write(&w, bytes_of(enc, sizeof(enc)));
	bytes_write(&w, bytes_of(s->commit, sizeof(s->commit)));
	bytes_write(&w, bytes_of(s->salt, sizeof(s->salt)));
	bytes_write_u8(&w, 0);
	BUG_ON(w.bad || w.left);
	err = hpke_seal(&s->hpke, s->seq_next, bytes_of(out, ENVELOPE_AAD_BYTES), plain, w.p);
	s->seq_next++; /* after a failure too: what it wrote may have been seen */
	return err;
}

/* --- raise ----------------------------------------------------------------------------------- */

size_t envelope_raised_head_bytes(const struct envelope_block *b)
{
	return ENVELOPE_FIXED_BYTES + BLOCK_OVERHEAD + b->origin.n + b->proof.n;
}

void envelope_raise_head(const struct envelope *e, const struct envelope_block *b,
			 struct bytes_writer *w)
{
	BUG_ON(b->grant.n != ENVELOPE_GRANT_BYTES || b->x.n != X_BYTES);
	w->bad |= e->level >= ENVELOPE_LEVEL_MAX || !text_is_id(b->origin);
	bytes_write(w, bytes_of(e->whole.p, LEVEL_OFFSET));
	bytes_write_u8(w, (uint8_t)(e->level + 1));
	bytes_write(w, b->grant);
	bytes_write(w, b->x);
	bytes_write_u8_view(w, b->origin);
	bytes_write_u16_view(w, b->proof);
}

/* --- open ------------------------------------------------------------------------------------ */

int envelope_receiver_init(struct envelope_receiver *r, const struct envelope *e,
			   const struct secret32 *dh, const struct p256_point *a)
{
	struct p256_point enc;
	int err = p256_point_decompress(e->enc, &enc);

	if (!err)
		err = hpke_setup_from_dh(e->suite, dh, &enc, a, bytes_str(ENVELOPE_INFO), &r->hpke);
	if (!err)
		hpke_export(&r->hpke, bytes_str(COMMIT_LABEL), r->commit, sizeof(r->commit));
	return err;
}

void envelope_receiver_deinit(struct envelope_receiver *r)
{
	secret_wipe(r, sizeof(*r));
}

int envelope_receiver_open(const struct envelope_receiver *r, const struct envelope *e,
			   uint8_t *out)
{
	if (!bytes_equal_ct(e->commit, bytes_of(r->commit, sizeof(r->commit))))
		return -EBADMSG;
	return hpke_open(&r->hpke, e->seq, bytes_of(e->whole.p, ENVELOPE_AAD_BYTES), e->ct, out);
}

int envelope_open(const struct envelope *e, const struct secret32 *dh, const struct p256_point *a,
		  uint8_t *out)
{
	struct envelope_receiver r;
	int err = envelope_receiver_init(&r, e, dh, a);

	if (err)
		return err;
	err = envelope_receiver_open(&r, e, out);
	envelope_receiver_deinit(&r);
	return err;
}
