/* SPDX-License-Identifier: MIT */
/*
 * What the token's files share: token.c (module, session, errors, recovery), token_keys.c (objects
 * by label, key generation), token_generations.c and token_ops.c (what is done with them). Nobody
 * else includes this. PKCS#11 2.40; struct and type names are the GNU spelling of p11-kit's header,
 * which has no typedefs for structs, constants and functions are Cryptoki's own. Whoever includes
 * this file has included that header in that spelling.
 */
#ifndef SSDTF_HSM_TOKEN_IMPL_H
#define SSDTF_HSM_TOKEN_IMPL_H

#include "hsm/pin.h"
#include "hsm/token.h"

#define TOKEN_FOUND_MAX	    16
#define TOKEN_WORDS_BYTES   256
#define TOKEN_RSA_BYTES_MAX 512

/* An object looked up by label, until its handle is void. */
struct token_found {
	char label[TOKEN_LABEL_BYTES_MAX + 1];
	ck_object_class_t class;
	ck_object_handle_t handle;
};

struct token {
	struct ck_function_list *f;
	char *label;
	char *lock_file; /* NULL: none */
	struct pin pin;
	bool initialised; /* C_Initialize went well, C_Finalize is ours to call */
	bool usable;	  /* session is open and logged in, for all we know */
	ck_slot_id_t slot;
	ck_session_handle_t session;
	unsigned handle_losses; /* in a row, without a success between */
	struct token_found found[TOKEN_FOUND_MAX];
	unsigned n_found;
	ck_rv_t rv; /* of the last failure */
	char words[TOKEN_WORDS_BYTES];
};

/* Cryptoki takes what it only reads through pointers to non-const. */
static inline void *unconst(const void *p)
{
	return (void *)(uintptr_t)p;
}

/* Lines of a template, for arrays in a function: what they point at lives as long as its block. */
/* clang-format off */
#define ATTR(type, var)	       { type, &(var), sizeof(var) }
#define ATTR_BYTES(type, p, n) { type, unconst(p), n }
#define ATTR_BOOL(type, v)     { type, &(unsigned char){ v }, 1 }
#define ATTR_ULONG(type, v)    { type, &(unsigned long){ v }, sizeof(unsigned long) }
/* clang-format on */

/* id-prime256v1 as an ECParameters namedCurve. */
extern unsigned char token_p256_oid[10];

/*
 * What an unwrapped key must be: the lines of the unwrapping key's CKA_UNWRAP_TEMPLATE, and again
 * of each request to unwrap, for a token compares strictly. PRIVATE and TOKEN keep it with the
 * login and the session; without MODIFIABLE=0 and COPYABLE=0 the PIN's holder could allow it to
 * sign, or put a copy on the token that outlives the grant. MODIFIABLE is the last: SoftHSM takes
 * a template line by line, and nothing after that one.
 */
#define CONVERSION_KEY_TEMPLATE                                                                  \
	ATTR_ULONG(CKA_CLASS, CKO_PRIVATE_KEY), ATTR_ULONG(CKA_KEY_TYPE, CKK_EC),                \
		ATTR_BOOL(CKA_TOKEN, 0), ATTR_BOOL(CKA_PRIVATE, 1), ATTR_BOOL(CKA_SENSITIVE, 1), \
		ATTR_BOOL(CKA_EXTRACTABLE, 0), ATTR_BOOL(CKA_DERIVE, 1), ATTR_BOOL(CKA_SIGN, 0), \
		ATTR_BOOL(CKA_COPYABLE, 0), ATTR_BOOL(CKA_MODIFIABLE, 0)

/* Keeps what a call said, for token_error() and token_recover(); 0 or the errno for it. */
int token_called(struct token *t, const char *call, ck_rv_t rv) must_check;
/* What C_name says to these arguments, kept. */
#define CALL(t, name, ...) token_called(t, #name, (t)->f->name(__VA_ARGS__))

/* Other words for the last failure. */
void token_say(struct token *t, const char *fmt, ...) format_printf(2, 3);
/* An answer that a sound token does not give: -EIO. */
int token_odd(struct token *t, const char *call, unsigned long n);
bool token_logged_in(struct token *t);
/* The token itself answers, we are logged in, and the key (if any) can be read about. */
bool token_healthy(struct token *t, ck_object_handle_t key);

/* The one object of that class and label; remembered until handles are void. */
int token_find(struct token *t, const char *label, ck_object_class_t class,
	       ck_object_handle_t *ret_handle) must_check;
/* The attribute's bytes and their number; -ENOBUFS where there is no room. */
int token_get(struct token *t, ck_object_handle_t object, ck_attribute_type_t type, void *out,
	      size_t room, size_t *ret_n) must_check;

#endif
