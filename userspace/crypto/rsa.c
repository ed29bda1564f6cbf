// SPDX-License-Identifier: MIT
#include "userspace/crypto/rsa.h"

#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <string.h>

#include "userspace/crypto/context.h"

#define BITS_MIN 2048
#define BITS_MAX 4096

static void pkey_free(EVP_PKEY **k)
{
	EVP_PKEY_free(*k);
}

static void pkey_ctx_free(EVP_PKEY_CTX **c)
{
	EVP_PKEY_CTX_free(*c);
}

static void bio_free(BIO **b)
{
	BIO_free(*b);
}

static int check_kind(EVP_PKEY *k)
{
	int bits = EVP_PKEY_get_bits(k);

	return EVP_PKEY_is_a(k, "RSA") && bits >= BITS_MIN && bits <= BITS_MAX ? 0 : -EINVAL;
}

/* The whole of spki and nothing behind it. */
static int key_load(struct bytes spki, EVP_PKEY **ret_key)
{
	EVP_PKEY *key cleanup(pkey_free) = NULL;
	const unsigned char *at = spki.p;
	int err;

	if (!spki.n || spki.n > RSA_SPKI_BYTES_MAX)
		return -EINVAL;
	key = d2i_PUBKEY(NULL, &at, (long)spki.n);
	if (!key)
		return context_error(-EINVAL);
	err = at == spki.p + spki.n ? check_kind(key) : -EINVAL;
	if (err)
		return err;
	*ret_key = key;
	key = NULL;
	return 0;
}

int rsa_public_from_pem(struct bytes pem, uint8_t *out, size_t room)
{
	BIO *bio cleanup(bio_free) = NULL;
	EVP_PKEY *key cleanup(pkey_free) = NULL;
	unsigned char *at = out;
	int err, n;

	if (!pem.n || pem.n > INT_MAX)
		return -EINVAL;
	bio = BIO_new_mem_buf(pem.p, (int)pem.n);
	if (!bio)
		return context_error(-ENOMEM);
	key = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
	if (!key)
		return context_error(-EINVAL);
	err = check_kind(key);
	if (err)
		return err;
	n = i2d_PUBKEY(key, NULL);
	if (n <= 0)
		return context_error(-EIO);
	if ((size_t)n > room)
		return -ENOBUFS;
	return i2d_PUBKEY(key, &at) == n ? n : context_error(-EIO);
}

int rsa_public_to_pem(struct bytes spki, uint8_t *out, size_t room)
{
	BIO *bio cleanup(bio_free) = BIO_new(BIO_s_mem());
	EVP_PKEY *key cleanup(pkey_free) = NULL;
	char *text;
	long n;
	int err;

	if (!bio)
		return context_error(-ENOMEM);
	err = key_load(spki, &key);
	if (err)
		return err;
	if (PEM_write_bio_PUBKEY(bio, key) != 1)
		return context_error(-EIO);
	n = BIO_get_mem_data(bio, &text);
	if (n <= 0 || (size_t)n > room)
		return -ENOBUFS;
	memcpy(out, text, (size_t)n);
	return (int)n;
}

int rsa_wrap(struct bytes spki, struct bytes plain, uint8_t *out, size_t room)
{
	EVP_PKEY *key cleanup(pkey_free) = NULL;
	EVP_PKEY_CTX *ctx cleanup(pkey_ctx_free) = NULL;
	size_t n = room;
	int err = key_load(spki, &key);

	if (err)
		return err;
	if ((size_t)EVP_PKEY_get_size(key) > room)
		return -ENOBUFS;
	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
	if (!ctx || EVP_PKEY_encrypt_init(ctx) != 1 ||
	    EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) != 1 ||
	    EVP_PKEY_CTX_set_rsa_oaep_md(ctx, EVP_sha1()) != 1 ||
	    EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, EVP_sha1()) != 1 ||
	    EVP_PKEY_encrypt(ctx, out, &n, plain.p, plain.n) != 1)
		return context_error(-EIO);
	return (int)n;
}
