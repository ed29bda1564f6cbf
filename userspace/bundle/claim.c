// SPDX-License-Identifier: MIT
#include "userspace/bundle/claim.h"

#include <errno.h>
#include <string.h>

#include "userspace/crypto/hash.h"
#include "userspace/crypto/hpke.h"

#define VERSION		1
#define LABEL_SIGN	"ssdtf-claim-sign-1"
#define LABEL_ADMISSION "ssdtf-claim-admission-1"
#define LABEL_REQUEST	"ssdtf-claim-1"
#define WIDE_BYTES	48 /* 16 more than the order, so that the remainder is not biased */

/* --- the code ------------------------------------------------------------------------------ */

static void write_compressed(struct bytes_writer *w, const struct p256_point *p)
{
	uint8_t compressed[P256_COMPRESSED_BYTES];

	p256_point_compress(p, compressed);
	bytes_write(w, bytes_of(compressed, sizeof(compressed)));
}

static void read_compressed(struct bytes_reader *r, struct p256_point *p)
{
	struct bytes compressed = bytes_read_view(r, P256_COMPRESSED_BYTES);

	if (!r->bad && p256_point_decompress(compressed, p))
		r->bad = true;
}

static void read_name(struct bytes_reader *r, char out[RECORD_NAME_BYTES_MAX + 1])
{
	struct bytes id = record_read_id(r);

	if (r->bad)
		return;
	memcpy(out, id.p, id.n);
	out[id.n] = '\0';
}

int claim_code_encode(const struct claim_code *c, char out[CLAIM_CODE_SIZE])
{
	uint8_t code[CLAIM_CODE_BYTES_MAX];
	struct bytes_writer w = bytes_writer_of(code, sizeof(code));

	if (!text_is_id(bytes_str(c->id)) || !text_is_id(bytes_str(c->gateway_id)))
		return -EINVAL;
	bytes_write_u8(&w, VERSION);
	bytes_write_u8_view(&w, bytes_str(c->id));
	bytes_write(&w, bytes_of(c->secret, sizeof(c->secret)));
	write_compressed(&w, &c->manager);
	bytes_write_u8_view(&w, bytes_str(c->gateway_id));
	write_compressed(&w, &c->broker);
	BUG_ON(w.bad);
	memcpy(out, CLAIM_PREFIX, sizeof(CLAIM_PREFIX) - 1);
	text_b64u(bytes_of(code, w.used), out + sizeof(CLAIM_PREFIX) - 1);
	secret_wipe(code, sizeof(code));
	return 0;
}

int claim_code_decode(struct bytes text, struct claim_code *ret_c)
{
	struct bytes prefix = bytes_str(CLAIM_PREFIX);
	struct bytes_reader r = bytes_reader_of(text);
	uint8_t code[CLAIM_CODE_BYTES_MAX];
	struct claim_code c = { 0 };
	size_t n;
	int ret = -EINVAL;

	if (!bytes_equal(bytes_read_view(&r, prefix.n), prefix))
		return -EINVAL;
	n = r.left * 3 / 4;
	if (n > sizeof(code) || text_unb64u(bytes_read_rest(&r), code, n))
		goto wipe;
	r = bytes_reader_of(bytes_of(code, n));
	if (bytes_read_u8(&r) != VERSION)
		goto wipe;
	read_name(&r, c.id);
	bytes_read_copy(&r, c.secret, sizeof(c.secret));
	read_compressed(&r, &c.manager);
	read_name(&r, c.gateway_id);
	read_compressed(&r, &c.broker);
	if (!bytes_read_done(&r))
		goto wipe;
	*ret_c = c;
	ret = 0;
wipe:
	secret_wipe(code, sizeof(code));
	claim_code_wipe(&c);
	return ret;
}

void claim_code_wipe(struct claim_code *c)
{
	secret_wipe(c, sizeof(*c));
}

/* HKDF(salt "", secret, label || id) */
static void derive(const uint8_t secret[CLAIM_SECRET_BYTES], const char *label, struct bytes id,
		   uint8_t *out, size_t n)
{
	const struct bytes ikm = bytes_of(secret, CLAIM_SECRET_BYTES);
	const struct bytes info[] = { bytes_str(label), id };
	struct secret32 prk SECRET = { { 0 } };

	hash_hkdf_extract(bytes_of(NULL, 0), &ikm, 1, &prk);
	hash_hkdf_expand(&prk, info, ARRAY_SIZE(info), out, n);
}

int claim_keys(struct bytes id, const uint8_t secret[CLAIM_SECRET_BYTES],
	       struct secret32 *ret_signing, uint8_t ret_k_adm[ADMISSION_KEY_BYTES])
{
	uint8_t wide[WIDE_BYTES];
	int ret;

	derive(secret, LABEL_SIGN, id, wide, sizeof(wide));
	ret = p256_scalar_from_wide(bytes_of(wide, sizeof(wide)), ret_signing);
	secret_wipe(wide, sizeof(wide));
	if (!ret)
		derive(secret, LABEL_ADMISSION, id, ret_k_adm, ADMISSION_KEY_BYTES);
	return ret;
}

/* --- request and answer -------------------------------------------------------------------- */

static void write_point(struct bytes_writer *w, const struct p256_point *p)
{
	bytes_write(w, bytes_of(p->b, sizeof(p->b)));
}

void claim_request_digest(const struct claim_request *q, struct bytes id,
			  const uint8_t r_b[CLAIM_NONCE_BYTES],
			  uint8_t ret_digest[P256_DIGEST_BYTES])
{
	const uint8_t id_n = (uint8_t)id.n;
	const struct bytes parts[] = {
		bytes_str(LABEL_REQUEST),
		bytes_of(&id_n, 1),
		id,
		bytes_of(q->signing.b, P256_POINT_BYTES),
		bytes_of(q->answer.b, P256_POINT_BYTES),
		bytes_of(r_b, CLAIM_NONCE_BYTES),
	};

	BUG_ON(id.n > RECORD_NAME_BYTES_MAX);
	hash_parts(parts, ARRAY_SIZE(parts), ret_digest);
}

void claim_request_write(const struct claim_request *q, struct bytes_writer *w)
{
	bytes_write_u8(w, CLAIM_REQUEST);
	write_point(w, &q->signing);
	write_point(w, &q->answer);
	bytes_write(w, bytes_of(q->sig, sizeof(q->sig)));
}

void claim_request_read(struct bytes_reader *r, struct claim_request *q)
{
	r->bad |= bytes_read_u8(r) != CLAIM_REQUEST;
	record_read_point(r, &q->signing);
	record_read_point(r, &q->answer);
	bytes_read_copy(r, q->sig, sizeof(q->sig));
}

int claim_request_verify(const struct claim_request *q, struct bytes id,
			 const uint8_t r_b[CLAIM_NONCE_BYTES])
{
	uint8_t digest[P256_DIGEST_BYTES];
	struct p256_public *key;
	int ret = p256_public_new(&q->signing, &key);

	if (ret)
		return ret;
	claim_request_digest(q, id, r_b, digest);
	ret = p256_verify_digest(key, digest, q->sig);
	p256_public_free(key);
	return ret;
}

void claim_answer_write(const struct claim_answer *a, struct bytes_writer *w)
{
	bytes_write_u8(w, CLAIM_ANSWER);
	bytes_write_u8(w, (uint8_t)a->result);
	bytes_write_u16_view(w, a->text);
	write_point(w, &a->enc);
	bytes_write_u32_view(w, a->sealed);
}

void claim_answer_read(struct bytes_reader *r, struct claim_answer *a)
{
	uint8_t result;

	r->bad |= bytes_read_u8(r) != CLAIM_ANSWER;
	result = bytes_read_u8(r);
	r->bad |= result > CLAIM_TRY_AGAIN;
	a->result = (enum claim_result)result;
	a->text = bytes_read_u16_view(r);
	bytes_read_copy(r, a->enc.b, sizeof(a->enc.b)); /* claim_open() looks whether it is one */
	a->sealed = bytes_read_u32_view(r);
}

int claim_seal(const struct p256_point *answer, struct bytes bundle, struct p256_point *ret_enc,
	       uint8_t *out)
{
	struct hpke_context c;
	int ret = hpke_setup_sender(HPKE_SUITE_AES_128_GCM, answer, bytes_str(CLAIM_INFO), &c,
				    ret_enc);

	if (ret)
		return ret;
	ret = hpke_seal(&c, 0, bytes_of(NULL, 0), bundle, out);
	hpke_context_deinit(&c);
	return ret;
}

int claim_open(const struct secret32 *answer, const struct p256_point *enc, struct bytes sealed,
	       uint8_t *out)
{
	struct hpke_context c;
	int ret;

	if (sealed.n < HPKE_TAG_BYTES || p256_point_check(bytes_of(enc->b, sizeof(enc->b))))
		return -EBADMSG;
	ret = hpke_setup_receiver(HPKE_SUITE_AES_128_GCM, enc, answer, bytes_str(CLAIM_INFO), &c);
	if (ret)
		return ret;
	ret = hpke_open(&c, 0, bytes_of(NULL, 0), sealed, out);
	hpke_context_deinit(&c);
	return ret;
}
