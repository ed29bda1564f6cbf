// SPDX-License-Identifier: MIT
#include "hsm/token_bare.h"

#include <errno.h>

#define CRYPTOKI_GNU
#include <p11-kit/pkcs11.h>

#include "hsm/token_impl.h"

int token_bare_convert(struct token *t, unsigned long key, const uint8_t point[P256_POINT_BYTES],
		       unsigned n, uint8_t ret_x[P256_X_BYTES])
{
	struct ck_ecdh1_derive_params params = {
		.kdf = CKD_NULL,
		.public_data_len = P256_POINT_BYTES,
		.public_data = unconst(point),
	};
	struct ck_mechanism m = { CKM_ECDH1_DERIVE, &params, sizeof(params) };
	/* The same template as token_convert()'s: what is asked for is what costs. */
	struct ck_attribute template[] = {
		ATTR_ULONG(CKA_CLASS, CKO_SECRET_KEY),
		ATTR_ULONG(CKA_KEY_TYPE, CKK_GENERIC_SECRET),
		ATTR_BOOL(CKA_TOKEN, 0),
		ATTR_BOOL(CKA_PRIVATE, 0),
		ATTR_BOOL(CKA_SENSITIVE, 0),
		ATTR_BOOL(CKA_EXTRACTABLE, 1),
		ATTR_ULONG(CKA_VALUE_LEN, P256_X_BYTES),
	};
	struct ck_attribute value = ATTR_BYTES(CKA_VALUE, ret_x, P256_X_BYTES);
	struct ck_function_list *f = t->f;
	ck_session_handle_t session = t->session;
	ck_object_handle_t derived;
	ck_rv_t rv = CKR_OK;

	if (!t->usable)
		return -ENODEV;
	for (unsigned i = 0; i < n && rv == CKR_OK; i++) {
		rv = f->C_DeriveKey(session, &m, key, template, ARRAY_SIZE(template), &derived);
		if (rv != CKR_OK)
			break;
		rv = f->C_GetAttributeValue(session, derived, &value, 1);
		if (f->C_DestroyObject(session, derived) != CKR_OK)
			rv = CKR_GENERAL_ERROR;
	}
	return token_called(t, "C_DeriveKey, C_GetAttributeValue, C_DestroyObject", rv);
}
