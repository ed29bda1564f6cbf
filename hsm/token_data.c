// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#define CRYPTOKI_GNU
#include <p11-kit/pkcs11.h>

#include "hsm/token_impl.h"
#include "userspace/base/bytes.h"

/* What a killed writer may leave is one object too many; others of the label are somebody's. */
#define DATA_OBJECTS_MAX 8

/* All objects of the label, and how many they are. */
static int find_data(struct token *t, const char *label,
		     ck_object_handle_t ret_handles[DATA_OBJECTS_MAX], unsigned long *ret_n)
{
	ck_object_class_t class = CKO_DATA;
	struct ck_attribute wanted[] = {
		ATTR(CKA_CLASS, class),
		ATTR_BYTES(CKA_LABEL, label, strlen(label)),
	};
	unsigned long n = 0;
	int rc;

	if (!t->usable)
		return -ENODEV;
	rc = CALL(t, C_FindObjectsInit, t->session, wanted, ARRAY_SIZE(wanted));
	if (rc)
		return rc;
	rc = CALL(t, C_FindObjects, t->session, ret_handles, DATA_OBJECTS_MAX, &n);
	(void)t->f->C_FindObjectsFinal(t->session); /* an open search shows at the next one */
	if (rc)
		return rc;
	if (n == DATA_OBJECTS_MAX)
		return token_odd(t, "C_FindObjects", n);
	*ret_n = n;
	return 0;
}

int token_data_get(struct token *t, const char *label, size_t size,
		   bool (*newer)(const uint8_t *a, const uint8_t *b), uint8_t *ret_value)
{
	ck_object_handle_t handles[DATA_OBJECTS_MAX];
	uint8_t value[TOKEN_DATA_BYTES_MAX], best[TOKEN_DATA_BYTES_MAX];
	unsigned long n = 0;
	bool found = false;
	int rc;

	if (!size || size > sizeof(value))
		return -EINVAL;
	rc = find_data(t, label, handles, &n);
	for (unsigned long i = 0; !rc && i < n; i++) {
		size_t got = 0;

		rc = token_get(t, handles[i], CKA_VALUE, value, sizeof(value), &got);
		if (rc == -ENOBUFS)
			rc = 0;
		/* One of another size was cut short while it was made. */
		if (rc || got != size || (found && !newer(value, best)))
			continue;
		memcpy(best, value, size);
		found = true;
	}
	if (rc)
		return rc;
	if (!found)
		return -ENOKEY;
	memcpy(ret_value, best, size);
	return 0;
}

static int create(struct token *t, ck_session_handle_t rw, const char *label, struct bytes v)
{
	ck_object_class_t class = CKO_DATA;
	struct ck_attribute template[] = {
		ATTR(CKA_CLASS, class),
		ATTR_BOOL(CKA_TOKEN, 1),
		ATTR_BOOL(CKA_PRIVATE, 1),
		ATTR_BYTES(CKA_APPLICATION, "ssdtf", 5),
		ATTR_BYTES(CKA_LABEL, label, strlen(label)),
		ATTR_BYTES(CKA_VALUE, v.p, v.n),
		ATTR_BOOL(CKA_MODIFIABLE, 0), /* last, for SoftHSM: see CONVERSION_KEY_TEMPLATE */
	};
	ck_object_handle_t made;

	return CALL(t, C_CreateObject, rw, template, ARRAY_SIZE(template), &made);
}

/*
 * The new one is made before the old ones go, because a token may write an object in place: SoftHSM
 * empties the file first, and a process killed then would take the only copy with it.
 */
int token_data_put(struct token *t, const char *label, struct bytes v)
{
	ck_object_handle_t old[DATA_OBJECTS_MAX];
	ck_session_handle_t rw;
	unsigned long n = 0;
	int rc;

	if (!v.n || v.n > TOKEN_DATA_BYTES_MAX || strlen(label) > TOKEN_LABEL_BYTES_MAX)
		return -EINVAL;
	rc = find_data(t, label, old, &n);
	if (!rc)
		rc = CALL(t, C_OpenSession, t->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL,
			  NULL, &rw);
	if (rc)
		return rc;
	rc = create(t, rw, label, v);
	for (unsigned long i = 0; !rc && i < n; i++)
		rc = CALL(t, C_DestroyObject, rw, old[i]);
	(void)t->f->C_CloseSession(rw); /* what was made is the token's, not the session's */
	return rc;
}
