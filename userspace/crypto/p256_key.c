// SPDX-License-Identifier: MIT
/*
 * Keys of p256.h as OpenSSL's EVP takes them: ECDSA, and PEM files. The curve itself is in p256.c.
 */
#include "userspace/crypto/p256.h"

#include <errno.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <openssl/pem.h>
#include <stdatomic.h>
#include <string.h>

#include "userspace/crypto/context.h"

/* SEQUENCE { INTEGER r, INTEGER s }, each with a leading zero */
#define DER_SIG_BYTES_MAX (2 + 2 * (2 + 1 + P256_SCALAR_BYTES))

/* --- EVP_PKEY -------------------------------------------------------------------------------- */

/* A number as OSSL_PARAM holds it, in the host's byte order. */
static int native_from_big(const uint8_t big[P256_SCALAR_BYTES], uint8_t out[P256_SCALAR_BYTES])
{
	BIGNUM *v = BN_bin2bn(big, P256_SCALAR_BYTES, NULL);
	bool ok = v && BN_bn2nativepad(v, out, P256_SCALAR_BYTES) == P256_SCALAR_BYTES;

	BN_clear_free(v);
	return ok ? 0 : context_error(-EIO);
}

static int big_from_native(const uint8_t native[P256_SCALAR_BYTES], uint8_t out[P256_SCALAR_BYTES])
{
	BIGNUM *v = BN_native2bn(native, P256_SCALAR_BYTES, NULL);
	bool ok = v && BN_bn2binpad(v, out, P256_SCALAR_BYTES) == P256_SCALAR_BYTES;

	BN_clear_free(v);
	return ok ? 0 : context_error(-EIO);
}

/* An EVP_PKEY from a checked point and, where there is one, its checked scalar. */
static int pkey_new(const struct p256_point *p, const struct secret32 *scalar, EVP_PKEY **ret_pkey)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	int selection = scalar ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY;
	char curve[] = SN_X9_62_prime256v1;
	struct p256_point public = *p;
	struct secret32 native SECRET = { 0 };
	OSSL_PARAM params[] = {
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, curve, sizeof(curve) - 1),
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, public.b, sizeof(public.b)),
		scalar ? OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_PRIV_KEY, native.b,
						 sizeof(native.b))
		       : OSSL_PARAM_construct_end(),
		OSSL_PARAM_construct_end(),
	};
	EVP_PKEY *pkey = NULL;
	int err = scalar ? native_from_big(scalar->b, native.b) : 0;

	if (!err && (!ctx || EVP_PKEY_fromdata_init(ctx) != 1 ||
		     EVP_PKEY_fromdata(ctx, &pkey, selection, params) != 1))
		err = context_error(-EIO);
	if (!err)
		*ret_pkey = pkey;
	EVP_PKEY_CTX_free(ctx);
	return err;
}

/* --- ECDSA ----------------------------------------------------------------------------------- */

/*
 * One key, made ready for one operation. An EVP_PKEY_CTX may be used by one thread at a time and
 * takes microseconds to make, so those not in use wait here for whoever comes next; a thread that
 * finds none makes one more.
 */
#define IDLE_MAX 4

struct operation {
	EVP_PKEY *pkey;
	int (*init)(EVP_PKEY_CTX *ctx);
	_Atomic(EVP_PKEY_CTX *) idle[IDLE_MAX];
};

static EVP_PKEY_CTX *operation_take(struct operation *o)
{
	EVP_PKEY_CTX *c;

	for (int i = 0; i < IDLE_MAX; i++) {
		if (!atomic_load_explicit(&o->idle[i], memory_order_relaxed))
			continue;
		c = atomic_exchange(&o->idle[i], NULL);
		if (c)
			return c;
	}
	c = EVP_PKEY_CTX_new_from_pkey(NULL, o->pkey, NULL);
	if (c && o->init(c) == 1)
		return c;
	EVP_PKEY_CTX_free(c);
	return NULL;
}

static void operation_give(struct operation *o, EVP_PKEY_CTX *c)
{
	for (int i = 0; i < IDLE_MAX; i++) {
		EVP_PKEY_CTX *none = NULL;

		if (atomic_compare_exchange_strong(&o->idle[i], &none, c))
			return;
	}
	EVP_PKEY_CTX_free(c);
}

static void operation_free(struct operation *o)
{
	if (!o)
		return;
	for (int i = 0; i < IDLE_MAX; i++)
		EVP_PKEY_CTX_free(o->idle[i]);
	EVP_PKEY_free(o->pkey);
	free(o);
}

static int operation_new(const struct p256_point *p, const struct secret32 *scalar,
			 int (*init)(EVP_PKEY_CTX *ctx), struct operation **ret_o)
{
	struct operation *o = calloc(1, sizeof(*o));
	int err;

	if (!o)
		return -ENOMEM;
	o->init = init;
	err = pkey_new(p, scalar, &o->pkey);
	if (err)
		operation_free(o);
	else
		*ret_o = o;
	return err;
}

/* INTEGER: no leading zeros but one before a set top bit (X.690 8.3). */
static void der_write_integer(struct bytes_writer *w, const uint8_t v[P256_SCALAR_BYTES])
{
	size_t skip = 0;
	bool pad;

	while (skip < P256_SCALAR_BYTES - 1 && v[skip] == 0)
		skip++;
	pad = v[skip] & 0x80;
	bytes_write_u8(w, 0x02);
	bytes_write_u8(w, (uint8_t)(P256_SCALAR_BYTES - skip + pad));
	if (pad)
		bytes_write_u8(w, 0);
	bytes_write(w, bytes_of(v + skip, P256_SCALAR_BYTES - skip));
}

static size_t der_write_sig(const uint8_t sig[P256_SIG_BYTES], uint8_t out[DER_SIG_BYTES_MAX])
{
	struct bytes_writer w = bytes_writer_of(out, DER_SIG_BYTES_MAX);
	uint8_t *len;

	bytes_write_u8(&w, 0x30);
	len = bytes_write_space(&w, 1);
	der_write_integer(&w, sig);
	der_write_integer(&w, sig + P256_SCALAR_BYTES);
	BUG_ON(w.bad);
	*len = (uint8_t)(w.used - 2);
	return w.used;
}

static void der_read_integer(struct bytes_reader *r, uint8_t out[P256_SCALAR_BYTES])
{
	struct bytes v;

	r->bad |= bytes_read_u8(r) != 0x02;
	v = bytes_read_u8_view(r);
	if (v.n && v.p[0] == 0)
		v = bytes_of(v.p + 1, v.n - 1);
	if (v.n > P256_SCALAR_BYTES)
		r->bad = true;
	if (r->bad)
		return;
	memset(out, 0, P256_SCALAR_BYTES);
	if (v.n)
		memcpy(out + P256_SCALAR_BYTES - v.n, v.p, v.n);
}

static int der_read_sig(struct bytes der, uint8_t ret_sig[P256_SIG_BYTES])
{
	struct bytes_reader r = bytes_reader_of(der);
	uint8_t sig[P256_SIG_BYTES];

	r.bad |= bytes_read_u8(&r) != 0x30;
	r.bad |= bytes_read_u8(&r) != r.left;
	der_read_integer(&r, sig);
	der_read_integer(&r, sig + P256_SCALAR_BYTES);
	if (!bytes_read_done(&r))
		return -EIO;
	memcpy(ret_sig, sig, sizeof(sig));
	return 0;
}

struct p256_public {
	struct operation *verify;
};

int p256_public_new(const struct p256_point *p, struct p256_public **ret_key)
{
	struct p256_public *k;
	int err = p256_point_check(bytes_of(p->b, sizeof(p->b)));

	if (err)
		return err;
	k = calloc(1, sizeof(*k));
	if (!k)
		return -ENOMEM;
	err = operation_new(p, NULL, EVP_PKEY_verify_init, &k->verify);
	if (err)
		free(k);
	else
		*ret_key = k;
	return err;
}

void p256_public_free(struct p256_public *k)
{
	if (!k)
		return;
	operation_free(k->verify);
	free(k);
}

/* r and s are no secrets, but scalars all the same. */
static bool sig_in_range(const uint8_t sig[P256_SIG_BYTES])
{
	struct secret32 r, s;

	memcpy(r.b, sig, sizeof(r.b));
	memcpy(s.b, sig + sizeof(r.b), sizeof(s.b));
	return !p256_scalar_check(&r) && !p256_scalar_check(&s);
}

int p256_verify_digest(const struct p256_public *k, const uint8_t digest[P256_DIGEST_BYTES],
		       const uint8_t sig[P256_SIG_BYTES])
{
	uint8_t der[DER_SIG_BYTES_MAX];
	EVP_PKEY_CTX *c;
	size_t n;
	int held;

	/* PROTOCOL 1: r and s in 1..n-1. */
	if (!sig_in_range(sig))
		return -EBADMSG;
	n = der_write_sig(sig, der);
	c = operation_take(k->verify);
	if (!c)
		return context_error(-EIO);
	held = EVP_PKEY_verify(c, der, n, digest, P256_DIGEST_BYTES);
	operation_give(k->verify, c);
	if (held == 1)
		return 0;
	return context_error(held ? -EIO : -EBADMSG);
}

struct p256_private {
	struct operation *sign;
	struct p256_point point;
};

int p256_private_new(const struct secret32 *scalar, struct p256_private **ret_key)
{
	struct p256_private *k = calloc(1, sizeof(*k));
	int err;

	if (!k)
		return -ENOMEM;
	err = p256_mul_base(scalar, &k->point);
	if (!err)
		err = operation_new(&k->point, scalar, EVP_PKEY_sign_init, &k->sign);
	if (err)
		free(k);
	else
		*ret_key = k;
	return err;
}

void p256_private_free(struct p256_private *k)
{
	if (!k)
		return;
	operation_free(k->sign); /* OpenSSL wipes the scalar */
	free(k);
}

void p256_private_point(const struct p256_private *k, struct p256_point *ret_point)
{
	*ret_point = k->point;
}

int p256_sign_digest(const struct p256_private *k, const uint8_t digest[P256_DIGEST_BYTES],
		     uint8_t ret_sig[P256_SIG_BYTES])
{
	uint8_t der[DER_SIG_BYTES_MAX];
	size_t n = sizeof(der);
	EVP_PKEY_CTX *c = operation_take(k->sign);
	int done;

	if (!c)
		return context_error(-EIO);
	done = EVP_PKEY_sign(c, der, &n, digest, P256_DIGEST_BYTES);
	operation_give(k->sign, c);
	if (done != 1)
		return context_error(-EIO);
	return der_read_sig(bytes_of(der, n), ret_sig);
}

/* --- files ----------------------------------------------------------------------------------- */

/* Without this, OpenSSL asks the terminal for the pass phrase of an encrypted key. */
static int no_pass_phrase(char *buf, int size, int writing, void *arg)
{
	return -1;
}

static int pem_read(struct bytes pem,
		    EVP_PKEY *(*parse)(BIO *, EVP_PKEY **, pem_password_cb *, void *),
		    EVP_PKEY **ret_pkey)
{
	char curve[32];
	EVP_PKEY *pkey;
	BIO *bio;

	if (pem.n < 1 || pem.n > INT_MAX)
		return -EINVAL;
	bio = BIO_new_mem_buf(pem.p, (int)pem.n);
	if (!bio)
		return context_error(-ENOMEM);
	pkey = parse(bio, NULL, no_pass_phrase, NULL);
	BIO_free(bio);
	if (!pkey)
		return context_error(-EINVAL);
	if (EVP_PKEY_get_utf8_string_param(pkey, OSSL_PKEY_PARAM_GROUP_NAME, curve, sizeof(curve),
					   NULL) != 1 ||
	    strcmp(curve, SN_X9_62_prime256v1)) {
		EVP_PKEY_free(pkey);
		return context_error(-EINVAL);
	}
	*ret_pkey = pkey;
	return 0;
}

/* One of a key's numbers. */
static int pkey_number(const EVP_PKEY *pkey, const char *name, uint8_t out[P256_SCALAR_BYTES])
{
	struct secret32 native SECRET = { 0 };
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_BN(name, native.b, sizeof(native.b)),
		OSSL_PARAM_construct_end(),
	};

	if (EVP_PKEY_get_params(pkey, params) != 1 || !OSSL_PARAM_modified(params))
		return context_error(-EINVAL);
	return big_from_native(native.b, out);
}

int p256_private_from_pem(struct bytes pem, struct secret32 *ret_scalar)
{
	struct secret32 k SECRET = { 0 };
	EVP_PKEY *pkey;
	int err = pem_read(pem, PEM_read_bio_PrivateKey, &pkey);

	if (err)
		return err;
	err = pkey_number(pkey, OSSL_PKEY_PARAM_PRIV_KEY, k.b);
	EVP_PKEY_free(pkey);
	if (!err)
		err = p256_scalar_check(&k);
	if (!err)
		*ret_scalar = k;
	return err;
}

int p256_public_from_pem(struct bytes pem, struct p256_point *ret_point)
{
	struct p256_point p = { .b = { 0x04 } };
	EVP_PKEY *pkey;
	int err = pem_read(pem, PEM_read_bio_PUBKEY, &pkey);

	if (err)
		return err;
	err = pkey_number(pkey, OSSL_PKEY_PARAM_EC_PUB_X, p.b + 1);
	if (!err)
		err = pkey_number(pkey, OSSL_PKEY_PARAM_EC_PUB_Y, p.b + 1 + P256_X_BYTES);
	EVP_PKEY_free(pkey);
	if (!err)
		err = p256_point_check(bytes_of(p.b, sizeof(p.b)));
	if (!err)
		*ret_point = p;
	return err;
}

static int pem_write(const struct p256_point *p, const struct secret32 *scalar, uint8_t *out,
		     size_t room)
{
	BIO *bio = BIO_new(BIO_s_secmem()); /* wiped when freed */
	EVP_PKEY *pkey = NULL;
	char *text = NULL;
	long n = 0;
	int err = bio ? pkey_new(p, scalar, &pkey) : context_error(-ENOMEM);

	if (!err) {
		int done =
			scalar ? PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL)
			       : PEM_write_bio_PUBKEY(bio, pkey);

		n = BIO_get_mem_data(bio, &text);
		if (done != 1 || n <= 0)
			err = context_error(-EIO);
		else if ((size_t)n > room)
			err = -ENOBUFS;
		else
			memcpy(out, text, (size_t)n);
	}
	EVP_PKEY_free(pkey);
	BIO_free(bio);
	return err ? err : (int)n;
}

int p256_private_to_pem(const struct secret32 *scalar, uint8_t *out, size_t room)
{
	struct p256_point p;
	int err = p256_mul_base(scalar, &p);

	return err ? err : pem_write(&p, scalar, out, room);
}

int p256_public_to_pem(const struct p256_point *p, uint8_t *out, size_t room)
{
	int err = p256_point_check(bytes_of(p->b, sizeof(p->b)));

	return err ? err : pem_write(p, NULL, out, room);
}
