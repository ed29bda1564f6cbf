// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CRYPTOKI_GNU
#include <p11-kit/pkcs11.h>

#include "hsm/token_impl.h"

#define OBJECTS_MAX 64 /* key halves on a gateway's token */

/* Ascending, without doubles. */
struct numbers {
	unsigned n;
	uint32_t v[TOKEN_GENERATIONS_MAX];
};

void token_generation_label(const char *role, uint32_t number, char out[TOKEN_LABEL_SIZE])
{
	int n = number == 1 ? snprintf(out, TOKEN_LABEL_SIZE, "%s", role)
			    : snprintf(out, TOKEN_LABEL_SIZE, "%s-%u", role, number);

	BUG_ON(n >= (int)TOKEN_LABEL_SIZE);
}

/* 0: another role's, or not of this form. */
static uint32_t number_of(const char *role, const char *label)
{
	char again[TOKEN_LABEL_SIZE];
	size_t n = strlen(role);
	unsigned long number;

	if (strncmp(label, role, n) != 0)
		return 0;
	if (!label[n])
		return 1;
	number = label[n] == '-' ? strtoul(label + n + 1, NULL, 10) : 0;
	if (number < 2 || number > TOKEN_GENERATION_MAX)
		return 0;
	/* Spelled as we spell it: no sign, no leading zero, nothing behind. */
	token_generation_label(role, (uint32_t)number, again);
	return strcmp(label, again) ? 0 : (uint32_t)number;
}

static bool has(const struct numbers *s, uint32_t number)
{
	for (unsigned i = 0; i < s->n; i++)
		if (s->v[i] == number)
			return true;
	return false;
}

static bool add(struct numbers *s, uint32_t number)
{
	unsigned at = s->n;

	if (!number || has(s, number))
		return true;
	if (s->n == ARRAY_SIZE(s->v))
		return false;
	for (; at && s->v[at - 1] > number; at--)
		s->v[at] = s->v[at - 1];
	s->v[at] = number;
	s->n++;
	return true;
}

static int find_all(struct token *t, ck_object_class_t class, ck_object_handle_t *handles,
		    unsigned long *ret_n)
{
	struct ck_attribute wanted[] = { ATTR(CKA_CLASS, class), ATTR_BOOL(CKA_TOKEN, 1) };
	int rc = CALL(t, C_FindObjectsInit, t->session, wanted, ARRAY_SIZE(wanted));

	if (rc)
		return rc;
	rc = CALL(t, C_FindObjects, t->session, handles, OBJECTS_MAX, ret_n);
	(void)t->f->C_FindObjectsFinal(t->session); /* an open search shows at the next one */
	return rc;
}

static int numbers_of(struct token *t, const char *role, ck_object_class_t class,
		      struct numbers *ret_s)
{
	ck_object_handle_t handles[OBJECTS_MAX];
	unsigned long n = 0;
	int rc = find_all(t, class, handles, &n);

	*ret_s = (struct numbers){ 0 };
	for (unsigned long i = 0; !rc && i < n; i++) {
		char label[TOKEN_LABEL_SIZE];
		size_t bytes;

		rc = token_get(t, handles[i], CKA_LABEL, label, sizeof(label) - 1, &bytes);
		if (rc == -ENOBUFS) {
			rc = 0; /* longer than ours */
			continue;
		}
		if (rc)
			return rc;
		label[bytes] = '\0';
		if (!add(ret_s, number_of(role, label))) {
			token_say(t, "more than %u keys \"%s\"", TOKEN_GENERATIONS_MAX, role);
			return -EIO;
		}
	}
	return rc;
}

int token_generations(struct token *t, const char *role, struct token_generations *ret_g)
{
	struct token_generations g = { 0 };
	struct numbers public, private;
	int rc;

	if (!t->usable)
		return -ENODEV;
	rc = numbers_of(t, role, CKO_PUBLIC_KEY, &public);
	if (!rc)
		rc = numbers_of(t, role, CKO_PRIVATE_KEY, &private);
	if (rc)
		return rc;
	for (unsigned i = 0; i < public.n; i++) {
		if (has(&private, public.v[i]))
			g.whole[g.n++] = public.v[i];
		else
			g.halves[g.n_halves++] = public.v[i];
	}
	for (unsigned i = 0; i < private.n; i++)
		if (!has(&public, private.v[i]))
			g.halves[g.n_halves++] = private.v[i];
	/* Without a login every private half is missing, and the wrong key would be the current. */
	if (g.n_halves && !token_logged_in(t)) {
		t->rv = CKR_OBJECT_HANDLE_INVALID;
		token_say(t, "the token does not show the keys \"%s\" whole", role);
		return -ENOKEY;
	}
	*ret_g = g;
	return 0;
}
