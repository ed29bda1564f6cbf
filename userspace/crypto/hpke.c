// SPDX-License-Identifier: MIT
/*
 * RFC 9180, section by section: 4 labelled HKDF, 4.1 the KEM, 5.1 the key schedule, 5.2 the AEAD,
 * 5.3 export. Base mode only: psk and psk_id are empty.
 */
#include "userspace/crypto/hpke.h"

#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <string.h>

#include "userspace/crypto/context.h"
#include "userspace/crypto/hash.h"

#define MODE_BASE	   0x00
#define KEM_P256_SHA256	   0x0010
#define KDF_HKDF_SHA256	   0x0001
#define AEAD_AES_128_GCM   0x0001
#define AEAD_CHACHA20_POLY 0x0003
#define SUITE_ID_BYTES_MAX 10

/* What a suite's number stands for. */
struct suite {
	uint16_t aead_id;
	size_t key_bytes;
	const EVP_CIPHER *cipher;
};

static int suite_get(enum hpke_suite suite, struct suite *ret_s)
{
	const struct context *c = context_get();

	switch (suite) {
	case HPKE_SUITE_AES_128_GCM:
		*ret_s = (struct suite){ AEAD_AES_128_GCM, 16, c->aes_128_gcm };
		return 0;
	case HPKE_SUITE_CHACHA20_POLY1305:
		*ret_s = (struct suite){ AEAD_CHACHA20_POLY, 32, c->chacha20_poly1305 };
		return 0;
	}
	return -EINVAL;
}

/* --- section 4: labels, and the suite_id that goes into each --------------------------------- */

struct suite_id {
	uint8_t b[SUITE_ID_BYTES_MAX];
	size_t n;
};

static struct suite_id suite_id_kem(void)
{
	return (struct suite_id){ { 'K', 'E', 'M', 0, KEM_P256_SHA256 }, 5 };
}

static struct suite_id suite_id_hpke(const struct suite *s)
{
	return (struct suite_id){ { 'H', 'P', 'K', 'E', 0, KEM_P256_SHA256, 0, KDF_HKDF_SHA256, 0,
				    (uint8_t)s->aead_id },
				  10 };
}

static void labeled_extract(const struct suite_id *id, struct bytes salt, const char *label,
			    struct bytes ikm, struct secret32 *ret_prk)
{
	struct bytes parts[] = { bytes_str("HPKE-v1"), bytes_of(id->b, id->n), bytes_str(label),
				 ikm };

	hash_hkdf_extract(salt, parts, ARRAY_SIZE(parts), ret_prk);
}

static void labeled_expand(const struct suite_id *id, const struct secret32 *prk, const char *label,
			   struct bytes info, uint8_t *out, size_t len)
{
	uint8_t length[2];
	struct bytes parts[] = { bytes_of(length, sizeof(length)), bytes_str("HPKE-v1"),
				 bytes_of(id->b, id->n), bytes_str(label), info };

	BUG_ON(len > HASH_EXPAND_BYTES_MAX);
	bytes_store_u16(length, (uint16_t)len);
	hash_hkdf_expand(prk, parts, ARRAY_SIZE(parts), out, len);
}

/* --- sections 4.1 and 5.1: from the Diffie-Hellman value to a context ------------------------ */

static void extract_and_expand(const struct secret32 *dh, const struct p256_point *enc,
			       const struct p256_point *pk_r, struct secret32 *ret_shared)
{
	struct suite_id id = suite_id_kem();
	struct secret32 prk SECRET = { 0 };
	uint8_t kem_context[2 * P256_POINT_BYTES];

	memcpy(kem_context, enc->b, P256_POINT_BYTES);
	memcpy(kem_context + P256_POINT_BYTES, pk_r->b, P256_POINT_BYTES);
	labeled_extract(&id, bytes_of(NULL, 0), "eae_prk", bytes_of(dh->b, sizeof(dh->b)), &prk);
	labeled_expand(&id, &prk, "shared_secret", bytes_of(kem_context, sizeof(kem_context)),
		       ret_shared->b, sizeof(ret_shared->b));
}

static void key_schedule(const struct suite *s, const struct secret32 *shared, struct bytes info,
			 struct hpke_context *c)
{
	struct bytes none = bytes_of(NULL, 0);
	struct suite_id id = suite_id_hpke(s);
	struct secret32 secret SECRET = { 0 }, psk_id_hash, info_hash;
	uint8_t schedule[1 + 2 * HASH_BYTES] = { MODE_BASE };
	struct bytes schedule_view = bytes_of(schedule, sizeof(schedule));

	labeled_extract(&id, none, "psk_id_hash", none, &psk_id_hash);
	labeled_extract(&id, none, "info_hash", info, &info_hash);
	memcpy(schedule + 1, psk_id_hash.b, HASH_BYTES);
	memcpy(schedule + 1 + HASH_BYTES, info_hash.b, HASH_BYTES);

	labeled_extract(&id, bytes_of(shared->b, sizeof(shared->b)), "secret", none, &secret);
	labeled_expand(&id, &secret, "key", schedule_view, c->key, s->key_bytes);
	labeled_expand(&id, &secret, "base_nonce", schedule_view, c->base_nonce,
		       sizeof(c->base_nonce));
	labeled_expand(&id, &secret, "exp", schedule_view, c->exporter_secret,
		       sizeof(c->exporter_secret));
}

int hpke_setup_from_dh(enum hpke_suite suite, const struct secret32 *dh,
		       const struct p256_point *enc, const struct p256_point *pk_r,
		       struct bytes info, struct hpke_context *ret_ctx)
{
	struct secret32 shared SECRET = { 0 };
	struct suite s;
	int err = suite_get(suite, &s);

	if (err)
		return err;
	memset(ret_ctx, 0, sizeof(*ret_ctx));
	ret_ctx->suite = suite;
	extract_and_expand(dh, enc, pk_r, &shared);
	key_schedule(&s, &shared, info, ret_ctx);
	return 0;
}

int hpke_setup_sender_with(enum hpke_suite suite, const struct p256_point *pk_r, struct bytes info,
			   const struct secret32 *sk_e, struct hpke_context *ret_ctx,
			   struct p256_point *ret_enc)
{
	struct secret32 dh SECRET = { 0 };
	struct p256_point enc;
	int err = p256_mul_base(sk_e, &enc);

	if (!err)
		err = p256_dh(sk_e, pk_r, &dh);
	if (!err)
		err = hpke_setup_from_dh(suite, &dh, &enc, pk_r, info, ret_ctx);
	if (!err)
		*ret_enc = enc;
	return err;
}

int hpke_setup_sender(enum hpke_suite suite, const struct p256_point *pk_r, struct bytes info,
		      struct hpke_context *ret_ctx, struct p256_point *ret_enc)
{
	struct secret32 sk_e SECRET = { 0 };
	int err = p256_scalar_random(&sk_e);

	return err ? err : hpke_setup_sender_with(suite, pk_r, info, &sk_e, ret_ctx, ret_enc);
}

int hpke_setup_receiver(enum hpke_suite suite, const struct p256_point *enc,
			const struct secret32 *sk_r, struct bytes info,
			struct hpke_context *ret_ctx)
{
	struct secret32 dh SECRET = { 0 };
	struct p256_point pk_r;
	int err = p256_mul_base(sk_r, &pk_r);

	if (!err)
		err = p256_dh(sk_r, enc, &dh);
	return err ? err : hpke_setup_from_dh(suite, &dh, enc, &pk_r, info, ret_ctx);
}

void hpke_context_deinit(struct hpke_context *c)
{
	secret_wipe(c, sizeof(*c));
}

/* --- section 5.2: the AEAD ------------------------------------------------------------------- */

/* The thread's cipher context, keyed for message seq; EVP_CIPHER_CTX_reset wipes it afterwards. */
static int aead_init(const struct hpke_context *c, uint32_t seq, int encrypt,
		     EVP_CIPHER_CTX **ret_ctx)
{
	EVP_CIPHER_CTX *ctx = context_get()->cipher;
	uint8_t nonce[HPKE_NONCE_BYTES], counter[4];
	struct suite s;
	int err = suite_get(c->suite, &s);

	if (err)
		return err;
	if (seq > HPKE_SEQ_MAX)
		return -EOVERFLOW;
	memcpy(nonce, c->base_nonce, sizeof(nonce));
	bytes_store_u32(counter, seq);
	for (size_t i = 0; i < sizeof(counter); i++)
		nonce[sizeof(nonce) - sizeof(counter) + i] ^= counter[i];
	if (EVP_CipherInit_ex2(ctx, s.cipher, c->key, nonce, encrypt, NULL) != 1) {
		(void)EVP_CIPHER_CTX_reset(ctx); /* cannot fail */
		return context_error(-EIO);
	}
	*ret_ctx = ctx;
	return 0;
}

/* EVP counts in int. out is NULL for additional data. */
static bool aead_update(EVP_CIPHER_CTX *ctx, uint8_t *out, struct bytes in)
{
	int n;

	if (in.n == 0)
		return true;
	return in.n <= INT_MAX && EVP_CipherUpdate(ctx, out, &n, in.p, (int)in.n) == 1;
}

int hpke_seal(const struct hpke_context *c, uint32_t seq, struct bytes aad, struct bytes pt,
	      uint8_t *out)
{
	EVP_CIPHER_CTX *ctx;
	uint8_t *tag = out + pt.n;
	int n, err = aead_init(c, seq, 1, &ctx);

	if (err)
		return err;
	if (!aead_update(ctx, NULL, aad) || !aead_update(ctx, out, pt) ||
	    EVP_CipherFinal_ex(ctx, tag, &n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, HPKE_TAG_BYTES, tag) != 1)
		err = context_error(-EIO);
	(void)EVP_CIPHER_CTX_reset(ctx); /* cannot fail */
	return err;
}

int hpke_open(const struct hpke_context *c, uint32_t seq, struct bytes aad, struct bytes ct,
	      uint8_t *out)
{
	struct bytes_reader r = bytes_reader_of(ct);
	uint8_t tag[HPKE_TAG_BYTES], rest[HPKE_TAG_BYTES];
	EVP_CIPHER_CTX *ctx;
	struct bytes sealed;
	int n, err;

	if (ct.n < HPKE_TAG_BYTES)
		return -EBADMSG;
	sealed = bytes_read_view(&r, ct.n - HPKE_TAG_BYTES);
	bytes_read_copy(&r, tag, sizeof(tag));
	err = aead_init(c, seq, 0, &ctx);
	if (err)
		return err;
	if (EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, HPKE_TAG_BYTES, tag) != 1)
		err = context_error(-EIO);
	else if (!aead_update(ctx, NULL, aad) || !aead_update(ctx, out, sealed) ||
		 EVP_CipherFinal_ex(ctx, rest, &n) != 1)
		err = context_error(-EBADMSG);
	(void)EVP_CIPHER_CTX_reset(ctx); /* cannot fail */
	if (err)
		secret_wipe(out, sealed.n);
	return err;
}

/* --- section 5.3 ----------------------------------------------------------------------------- */

void hpke_export(const struct hpke_context *c, struct bytes exporter_context, uint8_t *out,
		 size_t len)
{
	struct secret32 exporter SECRET = { 0 };
	struct suite_id id;
	struct suite s;

	BUG_ON(suite_get(c->suite, &s)); /* no setup gives a context of another suite */
	id = suite_id_hpke(&s);
	memcpy(exporter.b, c->exporter_secret, sizeof(exporter.b));
	labeled_expand(&id, &exporter, "sec", exporter_context, out, len);
}
