// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#define CRYPTOKI_GNU
#include <p11-kit/pkcs11.h>

#include "hsm/token_impl.h"
#include "userspace/base/bytes.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/rsa.h"

#define GCM_NONCE_BYTES 12
#define GCM_TAG_BYTES	16

/* --- signing, unwrapping, converting --- */

int token_sign(struct token *t, const char *label, const uint8_t digest[P256_DIGEST_BYTES],
	       uint8_t ret_sig[P256_SIG_BYTES])
{
	struct ck_mechanism m = { .mechanism = CKM_ECDSA };
	unsigned char sig[P256_SIG_BYTES];
	unsigned long n = sizeof(sig);
	ck_object_handle_t key;
	int rc = token_find(t, label, CKO_PRIVATE_KEY, &key);

	if (!rc)
		rc = CALL(t, C_SignInit, t->session, &m, key);
	if (!rc)
		rc = CALL(t, C_Sign, t->session, unconst(digest), P256_DIGEST_BYTES, sig, &n);
	if (rc)
		return rc;
	if (n != sizeof(sig))
		return token_odd(t, "C_Sign", n);
	memcpy(ret_sig, sig, sizeof(sig));
	t->handle_losses = 0;
	return 0;
}

static int derive(struct token *t, ck_object_handle_t key, const uint8_t *point,
		  uint8_t ret_x[P256_X_BYTES])
{
	struct ck_ecdh1_derive_params params = {
		.kdf = CKD_NULL,
		.public_data_len = P256_POINT_BYTES,
		.public_data = unconst(point),
	};
	struct ck_mechanism m = { CKM_ECDH1_DERIVE, &params, sizeof(params) };
	/* PRIVATE=0: x(E') goes to the broker anyway; private objects are encrypted, for nothing.
	 */
	struct ck_attribute template[] = {
		ATTR_ULONG(CKA_CLASS, CKO_SECRET_KEY),
		ATTR_ULONG(CKA_KEY_TYPE, CKK_GENERIC_SECRET),
		ATTR_BOOL(CKA_TOKEN, 0),
		ATTR_BOOL(CKA_PRIVATE, 0),
		ATTR_BOOL(CKA_SENSITIVE, 0),
		ATTR_BOOL(CKA_EXTRACTABLE, 1),
		ATTR_ULONG(CKA_VALUE_LEN, P256_X_BYTES),
	};
	ck_object_handle_t derived;
	uint8_t x[P256_X_BYTES];
	size_t n;
	int rc =
		CALL(t, C_DeriveKey, t->session, &m, key, template, ARRAY_SIZE(template), &derived);

	if (rc)
		return rc;
	rc = token_get(t, derived, CKA_VALUE, x, sizeof(x), &n);
	/* An object that stays is a leak that recycling clears; the answer is right regardless. */
	(void)t->f->C_DestroyObject(t->session, derived);
	if (rc)
		return rc;
	if (n != sizeof(x))
		return token_odd(t, "C_DeriveKey", n);
	memcpy(ret_x, x, sizeof(x));
	return 0;
}

int token_open_point(struct token *t, const char *label, const uint8_t point[P256_POINT_BYTES],
		     uint8_t ret_x[P256_X_BYTES])
{
	ck_object_handle_t key;
	int rc = token_find(t, label, CKO_PRIVATE_KEY, &key);

	if (!rc)
		rc = derive(t, key, point, ret_x);
	if (!rc)
		t->handle_losses = 0;
	return rc;
}

int token_mac(struct token *t, const char *label, struct bytes v, uint8_t ret_mac[TOKEN_MAC_BYTES])
{
	struct ck_mechanism m = { .mechanism = CKM_SHA256_HMAC };
	unsigned char mac[TOKEN_MAC_BYTES];
	unsigned long n = sizeof(mac);
	ck_object_handle_t key;
	int rc = v.n ? token_find(t, label, CKO_SECRET_KEY, &key) : -EINVAL;

	if (!rc)
		rc = CALL(t, C_SignInit, t->session, &m, key);
	if (!rc)
		rc = CALL(t, C_Sign, t->session, unconst(v.p), v.n, mac, &n);
	if (rc)
		return rc;
	if (n != sizeof(mac))
		return token_odd(t, "C_Sign", n);
	memcpy(ret_mac, mac, sizeof(mac));
	t->handle_losses = 0;
	return 0;
}

static struct ck_rsa_pkcs_oaep_params oaep = {
	.hash_alg = CKM_SHA_1, /* what tokens have; SoftHSM refuses SHA-256 */
	.mgf = CKG_MGF1_SHA1,
	.source = CKZ_DATA_SPECIFIED,
};

static int unwrap(struct token *t, ck_object_handle_t with, struct bytes blob,
		  ck_object_handle_t *ret_key)
{
	struct ck_mechanism m = { CKM_RSA_PKCS_OAEP, &oaep, sizeof(oaep) };
	ck_mechanism_type_t allowed[] = { CKM_ECDH1_DERIVE };
	struct ck_attribute template[] = {
		ATTR_BOOL(CKA_DECRYPT, 0),
		ATTR_BOOL(CKA_UNWRAP, 0),
		ATTR(CKA_ALLOWED_MECHANISMS, allowed),
		CONVERSION_KEY_TEMPLATE,
	};

	return CALL(t, C_UnwrapKey, t->session, &m, with, unconst(blob.p), blob.n, template,
		    ARRAY_SIZE(template), ret_key);
}

/* On P-256, and it converts: a scalar of 0 or n is taken by some tokens and fails with each use. */
static int try_key(struct token *t, ck_object_handle_t key)
{
	const struct secret32 one = { .b[P256_SCALAR_BYTES - 1] = 1 };
	struct p256_point g;
	uint8_t params[sizeof(token_p256_oid)], x[P256_X_BYTES];
	size_t n;
	int rc = token_get(t, key, CKA_EC_PARAMS, params, sizeof(params), &n);

	if (rc && rc != -ENOBUFS)
		return rc;
	if (rc ||
	    !bytes_equal(bytes_of(params, n), bytes_of(token_p256_oid, sizeof(token_p256_oid)))) {
		t->rv = CKR_WRAPPED_KEY_INVALID;
		token_say(t, "the unwrapped key is not on P-256");
		return -EBADMSG;
	}
	rc = p256_mul_base(&one, &g);
	return rc ? rc : derive(t, key, g.b, x);
}

/*
 * A bad blob and a broken token get the same answers from SoftHSM (GENERAL_ERROR, FUNCTION_FAILED):
 * where the token is well otherwise, it is the blob.
 */
static int blame(struct token *t, ck_object_handle_t with, int rc)
{
	bool ambiguous = t->rv == CKR_GENERAL_ERROR || t->rv == CKR_FUNCTION_FAILED;

	if (rc == -EIO && ambiguous && token_healthy(t, with)) {
		t->rv = CKR_WRAPPED_KEY_INVALID;
		return -EBADMSG;
	}
	return rc;
}

int token_unwrap(struct token *t, const char *label, struct bytes blob, unsigned long *ret_handle)
{
	ck_object_handle_t with, key;
	int rc;

	if (!blob.n || blob.n > TOKEN_RSA_BYTES_MAX)
		return -EBADMSG;
	rc = token_find(t, label, CKO_PRIVATE_KEY, &with);
	if (rc)
		return rc;
	rc = unwrap(t, with, blob, &key);
	if (rc)
		return blame(t, with, rc);
	rc = try_key(t, key);
	if (rc) {
		rc = blame(t, with, rc);
		(void)t->f->C_DestroyObject(t->session, key); /* dies with the session else */
		return rc;
	}
	t->handle_losses = 0;
	*ret_handle = key;
	return 0;
}

int token_convert(struct token *t, unsigned long key, const uint8_t point[P256_POINT_BYTES],
		  uint8_t ret_x[P256_X_BYTES])
{
	int rc = t->usable ? derive(t, key, point, ret_x) : -ENODEV;

	if (!rc)
		t->handle_losses = 0;
	return rc;
}

void token_forget(struct token *t, unsigned long key)
{
	if (t->usable)
		(void)t->f->C_DestroyObject(t->session, key); /* void already: as well */
}

/* --- does the token keep its word? --- */

static int get_bool(struct token *t, ck_object_handle_t object, ck_attribute_type_t type,
		    bool *ret_v)
{
	unsigned char v;
	size_t n;
	int rc = token_get(t, object, type, &v, sizeof(v), &n);

	if (rc)
		return rc;
	*ret_v = v;
	return 0;
}

static int check_attributes(struct token *t, ck_object_handle_t key)
{
	static const struct {
		ck_attribute_type_t type;
		const char *name;
		bool want;
	} wanted[] = {
		{ CKA_SENSITIVE, "CKA_SENSITIVE", true },
		{ CKA_EXTRACTABLE, "CKA_EXTRACTABLE", false },
		{ CKA_LOCAL, "CKA_LOCAL", true },
		{ CKA_NEVER_EXTRACTABLE, "CKA_NEVER_EXTRACTABLE", true },
		{ CKA_UNWRAP, "CKA_UNWRAP", true },
		{ CKA_DECRYPT, "CKA_DECRYPT", false },
		{ CKA_MODIFIABLE, "CKA_MODIFIABLE", false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		bool v;
		int rc = get_bool(t, key, wanted[i].type, &v);

		if (rc)
			return rc;
		if (v != wanted[i].want) {
			token_say(t, "the unwrapping key has %s=%d", wanted[i].name, v);
			return -ENOTSUP;
		}
	}
	return 0;
}

/* A throw-away key, wrapped as the manager wraps conversion keys. */
static int wrap_throwaway(struct token *t, const char *label, uint8_t *blob, size_t room)
{
	uint8_t spki[TOKEN_SPKI_BYTES_MAX], pkcs8[P256_PKCS8_BYTES];
	struct secret32 scalar SECRET = { 0 };
	int n = token_unwrapping_public(t, label, spki, sizeof(spki));
	int rc;

	if (n < 0)
		return n;
	rc = p256_scalar_random(&scalar);
	if (rc)
		return rc;
	p256_pkcs8(&scalar, pkcs8);
	rc = rsa_wrap(bytes_of(spki, (size_t)n), bytes_of(pkcs8, sizeof(pkcs8)), blob, room);
	secret_wipe(pkcs8, sizeof(pkcs8));
	if (rc < 0)
		token_say(t, "the unwrapping key \"%s\" cannot be wrapped under", label);
	return rc;
}

/* The requests that would give the blob's key away: the template with one line changed each. */
static int check_refused(struct token *t, ck_object_handle_t with, struct bytes blob)
{
	static const struct {
		ck_attribute_type_t type;
		unsigned char v;
		const char *how;
	} attacks[] = {
		{ CKA_SENSITIVE, 0, "with CKA_SENSITIVE=0" },
		{ CKA_EXTRACTABLE, 1, "with CKA_EXTRACTABLE=1" },
		{ CKA_SIGN, 1, "with CKA_SIGN=1" },
		{ CKA_MODIFIABLE, 1, "with CKA_MODIFIABLE=1" },
		{ CKA_COPYABLE, 1, "with CKA_COPYABLE=1" },
		{ CKA_TOKEN, 1, "with CKA_TOKEN=1" },
	};
	struct ck_mechanism m = { CKM_RSA_PKCS_OAEP, &oaep, sizeof(oaep) };

	for (size_t i = 0; i < ARRAY_SIZE(attacks); i++) {
		struct ck_attribute template[] = { CONVERSION_KEY_TEMPLATE };
		ck_object_handle_t key;

		for (size_t k = 0; k < ARRAY_SIZE(template); k++)
			if (template[k].type == attacks[i].type)
				template[k].value = unconst(&attacks[i].v);
		if (t->f->C_UnwrapKey(t->session, &m, with, unconst(blob.p), blob.n, template,
				      ARRAY_SIZE(template), &key) != CKR_OK)
			continue;
		(void)t->f->C_DestroyObject(t->session, key); /* dies with the session else */
		token_say(t, "CKA_UNWRAP_TEMPLATE is not enforced: C_UnwrapKey %s went through",
			  attacks[i].how);
		return -ENOTSUP;
	}
	return 0;
}

int token_check_unwrapping(struct token *t, const char *label)
{
	uint8_t blob[TOKEN_RSA_BYTES_MAX], value[P256_SCALAR_BYTES];
	ck_object_handle_t with;
	unsigned long handle;
	size_t value_n;
	int n, rc = token_find(t, label, CKO_PRIVATE_KEY, &with);

	if (!rc)
		rc = check_attributes(t, with);
	if (rc)
		return rc;
	n = wrap_throwaway(t, label, blob, sizeof(blob));
	if (n < 0)
		return n;
	rc = token_unwrap(t, label, bytes_of(blob, (size_t)n), &handle);
	if (rc)
		return rc;
	if (!token_get(t, handle, CKA_VALUE, value, sizeof(value), &value_n)) {
		token_say(t, "CKA_VALUE of a sensitive conversion key can be read");
		rc = -ENOTSUP;
	}
	token_forget(t, handle);
	secret_wipe(value, sizeof(value));
	return rc ? rc : check_refused(t, with, bytes_of(blob, (size_t)n));
}

/* --- the store key --- */

static struct ck_gcm_params gcm_of(const uint8_t *nonce, struct bytes aad)
{
	return (struct ck_gcm_params){
		.iv_ptr = unconst(nonce),
		.iv_len = GCM_NONCE_BYTES,
		.iv_bits = GCM_NONCE_BYTES * 8,
		.aad_ptr = unconst(aad.p),
		.aad_len = aad.n,
		.tag_bits = GCM_TAG_BYTES * 8,
	};
}

int token_store_seal(struct token *t, const char *label, struct bytes aad, struct bytes plain,
		     uint8_t *out)
{
	uint8_t *sealed = out + GCM_NONCE_BYTES;
	unsigned long n = plain.n + GCM_TAG_BYTES;
	struct ck_gcm_params gcm = gcm_of(out, aad);
	struct ck_mechanism m = { CKM_AES_GCM, &gcm, sizeof(gcm) };
	ck_object_handle_t key;
	int rc;

	if (!plain.n || plain.n > TOKEN_STORE_BYTES_MAX)
		return -EINVAL;
	rc = token_find(t, label, CKO_SECRET_KEY, &key);
	if (rc)
		return rc;
	hash_random(out, GCM_NONCE_BYTES);
	rc = CALL(t, C_EncryptInit, t->session, &m, key);
	if (!rc)
		rc = CALL(t, C_Encrypt, t->session, unconst(plain.p), plain.n, sealed, &n);
	if (!rc && n != plain.n + GCM_TAG_BYTES)
		rc = token_odd(t, "C_Encrypt", n);
	return rc;
}

int token_store_open(struct token *t, const char *label, struct bytes aad, struct bytes sealed,
		     uint8_t *out)
{
	/* Modules want room for the tag too, and may write before they have checked it. */
	uint8_t plain[TOKEN_STORE_BYTES_MAX + GCM_TAG_BYTES];
	unsigned long n = sizeof(plain);
	struct ck_gcm_params gcm = gcm_of(sealed.p, aad);
	struct ck_mechanism m = { CKM_AES_GCM, &gcm, sizeof(gcm) };
	ck_object_handle_t key;
	int rc;

	if (sealed.n <= TOKEN_STORE_OVERHEAD ||
	    sealed.n > TOKEN_STORE_BYTES_MAX + TOKEN_STORE_OVERHEAD)
		return -EBADMSG;
	rc = token_find(t, label, CKO_SECRET_KEY, &key);
	if (!rc)
		rc = CALL(t, C_DecryptInit, t->session, &m, key);
	if (rc)
		return rc;
	rc = CALL(t, C_Decrypt, t->session, unconst(sealed.p + GCM_NONCE_BYTES),
		  sealed.n - GCM_NONCE_BYTES, plain, &n);
	if (!rc && n != sealed.n - TOKEN_STORE_OVERHEAD)
		rc = token_odd(t, "C_Decrypt", n);
	if (rc)
		rc = blame(t, key, rc);
	else
		memcpy(out, plain, n);
	secret_wipe(plain, sizeof(plain));
	return rc;
}
