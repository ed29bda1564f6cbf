// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define CRYPTOKI_GNU
#include <p11-kit/pkcs11.h>

#include "hsm/token_impl.h"
#include "userspace/base/bytes.h"

#define RSA_BITS  3072
#define AES_BYTES 32
#define MAC_BYTES 32 /* as long as what comes out: RFC 2104 section 3 */

unsigned char token_p256_oid[] = { 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07 };

/* --- objects --- */

int token_find(struct token *t, const char *label, ck_object_class_t class,
	       ck_object_handle_t *ret_handle)
{
	struct ck_attribute wanted[] = {
		ATTR(CKA_CLASS, class),
		ATTR_BYTES(CKA_LABEL, label, strlen(label)),
	};
	ck_object_handle_t handles[2];
	unsigned long n = 0;
	int rc;

	if (!t->usable)
		return -ENODEV;
	for (unsigned i = 0; i < t->n_found; i++) {
		if (t->found[i].class == class && !strcmp(t->found[i].label, label)) {
			*ret_handle = t->found[i].handle;
			return 0;
		}
	}
	rc = CALL(t, C_FindObjectsInit, t->session, wanted, ARRAY_SIZE(wanted));
	if (rc)
		return rc;
	rc = CALL(t, C_FindObjects, t->session, handles, ARRAY_SIZE(handles), &n);
	(void)t->f->C_FindObjectsFinal(t->session); /* an open search shows at the next one */
	if (rc)
		return rc;
	if (n != 1) {
		/* Nothing is what one also sees without a login, or when the token is gone. */
		t->rv = CKR_OBJECT_HANDLE_INVALID;
		token_say(t, n ? "several objects labelled \"%s\"" : "no object labelled \"%s\"",
			  label);
		return -ENOKEY;
	}
	if (t->n_found < TOKEN_FOUND_MAX) {
		struct token_found *f = &t->found[t->n_found++];

		snprintf(f->label, sizeof(f->label), "%s", label);
		f->class = class;
		f->handle = handles[0];
	}
	*ret_handle = handles[0];
	return 0;
}

int token_get(struct token *t, ck_object_handle_t object, ck_attribute_type_t type, void *out,
	      size_t room, size_t *ret_n)
{
	struct ck_attribute a = { type, out, room };
	ck_rv_t rv = t->f->C_GetAttributeValue(t->session, object, &a, 1);

	if (rv == CKR_BUFFER_TOO_SMALL)
		return -ENOBUFS;
	if (rv != CKR_OK)
		return token_called(t, "C_GetAttributeValue", rv);
	if (a.value_len > room)
		return token_odd(t, "C_GetAttributeValue", a.value_len);
	*ret_n = a.value_len;
	return 0;
}

int token_signing_public(struct token *t, const char *label, struct p256_point *ret_public)
{
	uint8_t value[2 + P256_POINT_BYTES];
	const uint8_t *point = value;
	ck_object_handle_t key;
	size_t n;
	int rc = token_find(t, label, CKO_PUBLIC_KEY, &key);

	if (!rc)
		rc = token_get(t, key, CKA_EC_POINT, value, sizeof(value), &n);
	if (rc)
		return rc;
	/* PKCS#11 2.40 section 2.3.3: a DER OCTET STRING; some modules give the point itself. */
	if (n == sizeof(value) && value[0] == 0x04 && value[1] == P256_POINT_BYTES) {
		point += 2;
		n -= 2;
	}
	if (p256_point_check(bytes_of(point, n))) {
		token_say(t, "\"%s\" is not a P-256 key", label);
		return -EIO;
	}
	memcpy(ret_public->b, point, P256_POINT_BYTES);
	return 0;
}

/* --- SubjectPublicKeyInfo of an RSA key, RFC 3279 section 2.3.1 --- */

static size_t der_head_bytes(size_t n)
{
	return n < 0x80 ? 2 : n < 0x100 ? 3 : 4;
}

static void der_head(struct bytes_writer *w, uint8_t tag, size_t n)
{
	bytes_write_u8(w, tag);
	if (n < 0x80) {
		bytes_write_u8(w, (uint8_t)n);
	} else if (n < 0x100) {
		bytes_write_u8(w, 0x81);
		bytes_write_u8(w, (uint8_t)n);
	} else {
		bytes_write_u8(w, 0x82);
		bytes_write_u16(w, (uint16_t)n);
	}
}

static struct bytes without_leading_zeros(const uint8_t *p, size_t n)
{
	while (n > 1 && !*p) {
		p++;
		n--;
	}
	return bytes_of(p, n);
}

/* Content length of an INTEGER: positive, so a set top bit gets a zero in front. */
static size_t der_unsigned_bytes(struct bytes v)
{
	return v.n + (v.n && v.p[0] & 0x80);
}

static void der_unsigned(struct bytes_writer *w, struct bytes v)
{
	der_head(w, 0x02, der_unsigned_bytes(v));
	if (v.p[0] & 0x80)
		bytes_write_u8(w, 0);
	bytes_write(w, v);
}

static void der_rsa_spki(struct bytes_writer *w, struct bytes modulus, struct bytes exponent)
{
	/* rsaEncryption, NULL */
	static const uint8_t algorithm[] = { 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
					     0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00 };
	size_t n = der_unsigned_bytes(modulus), e = der_unsigned_bytes(exponent);
	size_t key = der_head_bytes(n) + n + der_head_bytes(e) + e;
	size_t bits = 1 + der_head_bytes(key) + key;

	der_head(w, 0x30, sizeof(algorithm) + der_head_bytes(bits) + bits);
	bytes_write(w, bytes_of(algorithm, sizeof(algorithm)));
	der_head(w, 0x03, bits);
	bytes_write_u8(w, 0); /* no unused bits */
	der_head(w, 0x30, key);
	der_unsigned(w, modulus);
	der_unsigned(w, exponent);
}

int token_unwrapping_public(struct token *t, const char *label, uint8_t *out, size_t room)
{
	uint8_t modulus[TOKEN_RSA_BYTES_MAX], exponent[8];
	struct bytes_writer w = bytes_writer_of(out, room);
	size_t modulus_n, exponent_n;
	ck_object_handle_t key;
	int rc = token_find(t, label, CKO_PUBLIC_KEY, &key);

	if (!rc)
		rc = token_get(t, key, CKA_MODULUS, modulus, sizeof(modulus), &modulus_n);
	if (!rc)
		rc = token_get(t, key, CKA_PUBLIC_EXPONENT, exponent, sizeof(exponent),
			       &exponent_n);
	if (rc)
		return rc;
	if (!modulus_n || !exponent_n)
		return token_odd(t, "C_GetAttributeValue", 0);
	der_rsa_spki(&w, without_leading_zeros(modulus, modulus_n),
		     without_leading_zeros(exponent, exponent_n));
	return w.bad ? -ENOBUFS : (int)w.used;
}

/* --- key generation --- */

static int must_be_free(struct token *t, const char *label, ck_object_class_t class)
{
	ck_object_handle_t key;
	int rc;

	if (strlen(label) > TOKEN_LABEL_BYTES_MAX)
		return -EINVAL;
	rc = token_find(t, label, class, &key);
	if (rc == -ENOKEY)
		return 0;
	if (!rc)
		token_say(t, "an object labelled \"%s\" is there already", label);
	return rc ? rc : -EEXIST;
}

static int generate_pair(struct token *t, ck_mechanism_type_t type, struct ck_attribute *public,
			 size_t n_public, struct ck_attribute *private, size_t n_private)
{
	struct ck_mechanism m = { .mechanism = type };
	ck_object_handle_t public_key, private_key;
	ck_session_handle_t rw;
	int rc = CALL(t, C_OpenSession, t->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL,
		      &rw);

	if (rc)
		return rc;
	rc = CALL(t, C_GenerateKeyPair, rw, &m, public, n_public, private, n_private, &public_key,
		  &private_key);
	(void)t->f->C_CloseSession(rw); /* the keys are the token's, not the session's */
	return rc;
}

/* A P-256 pair that may do what this mechanism does, and nothing else. */
static int generate_ec(struct token *t, const char *label, ck_mechanism_type_t mechanism,
		       struct p256_point *ret_public)
{
	ck_mechanism_type_t allowed[] = { mechanism };
	bool signs = mechanism == CKM_ECDSA;
	struct ck_attribute public[] = {
		ATTR_BOOL(CKA_TOKEN, 1),
		ATTR_BOOL(CKA_PRIVATE, 0),
		ATTR_BOOL(CKA_VERIFY, signs),
		ATTR_BOOL(CKA_ENCRYPT, 0),
		ATTR_BOOL(CKA_WRAP, 0),
		ATTR_BOOL(CKA_MODIFIABLE, 0),
		ATTR(CKA_EC_PARAMS, token_p256_oid),
		ATTR_BYTES(CKA_LABEL, label, strlen(label)),
		ATTR_BYTES(CKA_ID, label, strlen(label)),
	};
	struct ck_attribute private[] = {
		ATTR_BOOL(CKA_TOKEN, 1),
		ATTR_BOOL(CKA_PRIVATE, 1),
		ATTR_BOOL(CKA_SENSITIVE, 1),
		ATTR_BOOL(CKA_EXTRACTABLE, 0),
		ATTR_BOOL(CKA_SIGN, signs),
		ATTR_BOOL(CKA_SIGN_RECOVER, 0),
		ATTR_BOOL(CKA_DECRYPT, 0),
		ATTR_BOOL(CKA_UNWRAP, 0),
		ATTR_BOOL(CKA_DERIVE, !signs),
		ATTR_BOOL(CKA_MODIFIABLE, 0),
		ATTR_BOOL(CKA_COPYABLE, 0),
		ATTR(CKA_ALLOWED_MECHANISMS, allowed),
		ATTR_BYTES(CKA_LABEL, label, strlen(label)),
		ATTR_BYTES(CKA_ID, label, strlen(label)),
	};
	int rc = must_be_free(t, label, CKO_PRIVATE_KEY);

	if (!rc)
		rc = generate_pair(t, CKM_EC_KEY_PAIR_GEN, public, ARRAY_SIZE(public), private,
				   ARRAY_SIZE(private));
	if (rc)
		return rc;
	return token_signing_public(t, label, ret_public);
}

int token_generate_signing(struct token *t, const char *label, struct p256_point *ret_public)
{
	return generate_ec(t, label, CKM_ECDSA, ret_public);
}

int token_generate_opening(struct token *t, const char *label, struct p256_point *ret_public)
{
	return generate_ec(t, label, CKM_ECDH1_DERIVE, ret_public);
}

int token_generate_unwrapping(struct token *t, const char *label)
{
	ck_mechanism_type_t allowed[] = { CKM_RSA_PKCS_OAEP };
	unsigned char exponent[] = { 1, 0, 1 };
	struct ck_attribute template[] = { CONVERSION_KEY_TEMPLATE };
	struct ck_attribute public[] = {
		ATTR_BOOL(CKA_TOKEN, 1),
		ATTR_BOOL(CKA_PRIVATE, 0),
		ATTR_BOOL(CKA_WRAP, 0), /* the manager wraps, and has the key in a file */
		ATTR_BOOL(CKA_ENCRYPT, 0),
		ATTR_BOOL(CKA_VERIFY, 0),
		ATTR_BOOL(CKA_MODIFIABLE, 0),
		ATTR_ULONG(CKA_MODULUS_BITS, RSA_BITS),
		ATTR(CKA_PUBLIC_EXPONENT, exponent),
		ATTR_BYTES(CKA_LABEL, label, strlen(label)),
		ATTR_BYTES(CKA_ID, label, strlen(label)),
	};
	struct ck_attribute private[] = {
		ATTR_BOOL(CKA_TOKEN, 1),
		ATTR_BOOL(CKA_PRIVATE, 1),
		ATTR_BOOL(CKA_SENSITIVE, 1),
		ATTR_BOOL(CKA_EXTRACTABLE, 0),
		ATTR_BOOL(CKA_UNWRAP, 1),
		ATTR_BOOL(CKA_DECRYPT, 0),
		ATTR_BOOL(CKA_SIGN, 0),
		ATTR_BOOL(CKA_SIGN_RECOVER, 0),
		ATTR_BOOL(CKA_DERIVE, 0),
		ATTR_BOOL(CKA_MODIFIABLE, 0),
		ATTR_BOOL(CKA_COPYABLE, 0),
		ATTR(CKA_ALLOWED_MECHANISMS, allowed),
		ATTR(CKA_UNWRAP_TEMPLATE, template),
		ATTR_BYTES(CKA_LABEL, label, strlen(label)),
		ATTR_BYTES(CKA_ID, label, strlen(label)),
	};
	int rc = must_be_free(t, label, CKO_PRIVATE_KEY);

	if (rc)
		return rc;
	return generate_pair(t, CKM_RSA_PKCS_KEY_PAIR_GEN, public, ARRAY_SIZE(public), private,
			     ARRAY_SIZE(private));
}

static int generate_secret(struct token *t, const char *label, ck_mechanism_type_t type,
			   struct ck_attribute *template, size_t n)
{
	struct ck_mechanism m = { .mechanism = type };
	ck_object_handle_t key;
	ck_session_handle_t rw;
	int rc = must_be_free(t, label, CKO_SECRET_KEY);

	if (!rc)
		rc = CALL(t, C_OpenSession, t->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL,
			  NULL, &rw);
	if (rc)
		return rc;
	rc = CALL(t, C_GenerateKey, rw, &m, template, n, &key);
	(void)t->f->C_CloseSession(rw); /* the key is the token's, not the session's */
	return rc;
}

int token_generate_store(struct token *t, const char *label)
{
	ck_mechanism_type_t allowed[] = { CKM_AES_GCM };
	struct ck_attribute template[] = {
		ATTR_BOOL(CKA_TOKEN, 1),
		ATTR_BOOL(CKA_PRIVATE, 1),
		ATTR_BOOL(CKA_SENSITIVE, 1),
		ATTR_BOOL(CKA_EXTRACTABLE, 0),
		ATTR_BOOL(CKA_ENCRYPT, 1),
		ATTR_BOOL(CKA_DECRYPT, 1),
		ATTR_BOOL(CKA_SIGN, 0),
		ATTR_BOOL(CKA_VERIFY, 0),
		ATTR_BOOL(CKA_WRAP, 0),
		ATTR_BOOL(CKA_UNWRAP, 0),
		ATTR_BOOL(CKA_DERIVE, 0),
		ATTR_BOOL(CKA_MODIFIABLE, 0),
		ATTR_BOOL(CKA_COPYABLE, 0),
		ATTR_ULONG(CKA_VALUE_LEN, AES_BYTES),
		ATTR(CKA_ALLOWED_MECHANISMS, allowed),
		ATTR_BYTES(CKA_LABEL, label, strlen(label)),
		ATTR_BYTES(CKA_ID, label, strlen(label)),
	};

	return generate_secret(t, label, CKM_AES_KEY_GEN, template, ARRAY_SIZE(template));
}

int token_generate_mac(struct token *t, const char *label)
{
	ck_mechanism_type_t allowed[] = { CKM_SHA256_HMAC };
	struct ck_attribute template[] = {
		ATTR_BOOL(CKA_TOKEN, 1),
		ATTR_BOOL(CKA_PRIVATE, 1),
		ATTR_BOOL(CKA_SENSITIVE, 1),
		ATTR_BOOL(CKA_EXTRACTABLE, 0),
		ATTR_BOOL(CKA_SIGN, 1),
		ATTR_BOOL(CKA_VERIFY, 0),
		ATTR_BOOL(CKA_ENCRYPT, 0),
		ATTR_BOOL(CKA_DECRYPT, 0),
		ATTR_BOOL(CKA_WRAP, 0),
		ATTR_BOOL(CKA_UNWRAP, 0),
		ATTR_BOOL(CKA_DERIVE, 0),
		ATTR_BOOL(CKA_MODIFIABLE, 0),
		ATTR_BOOL(CKA_COPYABLE, 0),
		ATTR_ULONG(CKA_VALUE_LEN, MAC_BYTES),
		ATTR(CKA_ALLOWED_MECHANISMS, allowed),
		ATTR_BYTES(CKA_LABEL, label, strlen(label)),
		ATTR_BYTES(CKA_ID, label, strlen(label)),
	};

	return generate_secret(t, label, CKM_GENERIC_SECRET_KEY_GEN, template,
			       ARRAY_SIZE(template));
}

/* One that has the label; false where there is none. */
static int find_labelled(struct token *t, const char *label, ck_object_handle_t *ret_handle,
			 bool *ret_found)
{
	struct ck_attribute wanted[] = { ATTR_BYTES(CKA_LABEL, label, strlen(label)) };
	unsigned long n = 0;
	int rc = CALL(t, C_FindObjectsInit, t->session, wanted, ARRAY_SIZE(wanted));

	if (rc)
		return rc;
	rc = CALL(t, C_FindObjects, t->session, ret_handle, 1, &n);
	(void)t->f->C_FindObjectsFinal(t->session); /* an open search shows at the next one */
	*ret_found = !rc && n == 1;
	return rc;
}

bool token_lacks(struct token *t, const char *label)
{
	ck_object_handle_t object;
	bool found = false;

	return t->usable && !find_labelled(t, label, &object, &found) && !found &&
	       token_healthy(t, CK_INVALID_HANDLE);
}

int token_destroy(struct token *t, const char *label)
{
	ck_session_handle_t rw;
	ck_object_handle_t object;
	bool found = false;
	int rc;

	if (!t->usable)
		return -ENODEV;
	t->n_found = 0; /* the handles of these labels are void from now on */
	rc = CALL(t, C_OpenSession, t->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &rw);
	if (rc)
		return rc;
	do {
		rc = find_labelled(t, label, &object, &found);
		if (!rc && found)
			rc = CALL(t, C_DestroyObject, rw, object);
	} while (!rc && found);
	(void)t->f->C_CloseSession(rw); /* what was destroyed is so for good */
	return rc;
}
