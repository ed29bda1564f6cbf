/* SPDX-License-Identifier: MIT */
/*
 * A PKCS#11 token in one session and one thread; token.c is the only includer of pkcs11.h and needs
 * no more of a module than C_GetFunctionList. Used by ssdtf-hsmd (the gateway's keys) and
 * ssdtf-admin (the manager's own token). One struct token a process: the module is its alone.
 *
 * Objects on a gateway's token, by CKA_LABEL:
 *   "ssdtf-sign"    P-256 key pair, private half sensitive, not extractable, SIGN only
 *   "ssdtf-unwrap"  RSA-3072 key pair, UNWRAP only, ALLOWED_MECHANISMS {RSA_PKCS_OAEP},
 *                   CKA_UNWRAP_TEMPLATE {EC private key, of the session, private, sensitive, not
 *                   extractable, DERIVE=1, SIGN=0, MODIFIABLE=0, COPYABLE=0}
 *   "ssdtf-bundle"  P-256 key pair, private half sensitive, not extractable, DERIVE only
 *   "ssdtf-ids"     a generic secret, sensitive, not extractable, SIGN only (CKM_SHA256_HMAC)
 * The first two are replaced in turn: see token_generations().
 * on the manager's:
 *   "ssdtf-manager" P-256 key pair as above
 *   "ssdtf-store"   AES-256, ENCRYPT/DECRYPT only (CKM_AES_GCM), for scope scalars at rest
 *
 * Why the template: encryption to the unwrapping key hides a conversion key from nobody who holds
 * the PIN, since C_UnwrapKey gives the new object whatever attributes its caller asks for, readable
 * ones too. CKA_UNWRAP_TEMPLATE is part of the key, so the token refuses any other wish;
 * MODIFIABLE=0 keeps it from being changed, DECRYPT=0 and ALLOWED_MECHANISMS close the ways round
 * it.
 *
 * Errors: -ENODEV token or module not there (again later), -EACCES PIN refused (never again by
 * itself), -EKEYREJECTED the same PIN was refused before and was not even tried, -ENOKEY no such
 * object, -EEXIST, -EBADMSG a blob that does not unwrap or a sealed text that does not open,
 * -EINVAL a request the token refuses for its form, -EBUSY the module is initialised by another
 * part of this process, -EIO anything else; token_error() has the words (call, CKR name).
 */
#ifndef SSDTF_HSM_TOKEN_H
#define SSDTF_HSM_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/secret.h"
#include "userspace/crypto/p256.h"

#define TOKEN_LABEL_SIGN   "ssdtf-sign"
#define TOKEN_LABEL_UNWRAP "ssdtf-unwrap"
#define TOKEN_LABEL_BUNDLE "ssdtf-bundle" /* opens what is sealed to the gateway (PROTOCOL 14) */
#define TOKEN_LABEL_IDS	   "ssdtf-ids"	  /* a secret for HMAC-SHA-256 (PROTOCOL 12) */

#define TOKEN_LABEL_BYTES_MAX 32 /* of an object here, and of a token (PKCS#11 pads to 32) */
#define TOKEN_LABEL_SIZE      (TOKEN_LABEL_BYTES_MAX + 1)

struct token;

struct token_config {
	const char *module;   /* path of the PKCS#11 module */
	const char *label;    /* the token's label */
	const char *pin_file; /* first line is the PIN; mode must not allow others */
	/*
	 * flock'd around initialise + login (processes that do so together find the token missing
	 * now and then); NULL: none. It also keeps the note that a PIN was refused, so that no
	 * other process and no restart tries that PIN file again until it is replaced or touched
	 * (-EKEYREJECTED): tokens lock after a few wrong ones.
	 */
	const char *lock_file;
	bool pin_credential; /* pin_file is a systemd credential: see pin.h */
};

/*
 * Loads the module, reads the PIN, finds the token by label, logs in. Besides the above: -EPERM,
 * -ENOENT and the like for a PIN file that may not or cannot be read.
 */
int token_open(const struct token_config *c, struct token **ret_t) must_check;
void token_close(struct token *t);
/* What went wrong last, for people: "C_Login: CKR_PIN_INCORRECT". Valid until the next call. */
const char *token_error(const struct token *t);
/* The words for a failed token_open (there is no token to ask). */
const char *token_open_error(void);

/* Key generation, inside the token. -EEXIST where the label is taken. */
int token_generate_signing(struct token *t, const char *label,
			   struct p256_point *ret_public) must_check;
int token_generate_unwrapping(struct token *t, const char *label) must_check;
int token_generate_store(struct token *t, const char *label) must_check;
/* An EC key pair that may do nothing but derive. */
int token_generate_opening(struct token *t, const char *label,
			   struct p256_point *ret_public) must_check;
int token_generate_mac(struct token *t, const char *label) must_check;
/*
 * Destroys every object of this label, on the token for good. For keys that were not used yet: what
 * a killed generation leaves is half a pair, or an object without its value, and no label is free
 * again until it is gone. 0 also where there is nothing.
 */
int token_destroy(struct token *t, const char *label) must_check;

/*
 * Does this token keep what the unwrapping key promises? Wraps a throw-away key in it and unwraps
 * that as it should be, then in each readable form. 0; -ENOTSUP with the words where any of those
 * was allowed, or where an attribute is not as token_generate_unwrapping() asks.
 */
int token_check_unwrapping(struct token *t, const char *label) must_check;

/*
 * The token is well, and nothing in it has this label: an -ENOKEY said that there is no such key,
 * not that a handle went void or the token away.
 */
bool token_lacks(struct token *t, const char *label);

/*
 * Keys of one role that follow each other. The first has the role's name for a label, those after
 * it
 * "-2", "-3" and so on behind it. Of those that have both halves the lowest is the current key, and
 * the one after it the next: so the next key takes its place when the current one is destroyed, and
 * a process that is killed in between leaves one or the other. (A label that is changed will not
 * do: our keys cannot be modified.) halves: what a killed generation or destruction left.
 */
#define TOKEN_GENERATIONS_MAX 8
#define TOKEN_GENERATION_MAX  999999
struct token_generations {
	unsigned n, n_halves;
	uint32_t whole[TOKEN_GENERATIONS_MAX]; /* ascending */
	uint32_t halves[2 * TOKEN_GENERATIONS_MAX];
};
int token_generations(struct token *t, const char *role,
		      struct token_generations *ret_g) must_check;
void token_generation_label(const char *role, uint32_t number, char out[TOKEN_LABEL_SIZE]);

/* Public halves; signing: of any EC key. */
int token_signing_public(struct token *t, const char *label,
			 struct p256_point *ret_public) must_check;
/* SubjectPublicKeyInfo DER of an RSA key; returns its length or an error (-ENOBUFS: no room). */
#define TOKEN_SPKI_BYTES_MAX 600
int token_unwrapping_public(struct token *t, const char *label, uint8_t *out,
			    size_t room) must_check;

int token_sign(struct token *t, const char *label, const uint8_t digest[P256_DIGEST_BYTES],
	       uint8_t ret_sig[P256_SIG_BYTES]) must_check;
/* x of the point times an opening key. As with token_convert(), the point is checked before. */
int token_open_point(struct token *t, const char *label, const uint8_t point[P256_POINT_BYTES],
		     uint8_t ret_x[P256_X_BYTES]) must_check;
#define TOKEN_MAC_BYTES 32
/* HMAC-SHA-256. -EINVAL: no bytes. */
int token_mac(struct token *t, const char *label, struct bytes v,
	      uint8_t ret_mac[TOKEN_MAC_BYTES]) must_check;

/*
 * A conversion key as a session object, tried once on the base point. Handles die with the session:
 * -ENOKEY or -EIO from convert then, token_recover(), and the caller unwraps again. The point's
 * being on the curve is the caller's to check: a token answers it as if it were broken itself.
 */
int token_unwrap(struct token *t, const char *label, struct bytes blob,
		 unsigned long *ret_handle) must_check;
int token_convert(struct token *t, unsigned long key, const uint8_t point[P256_POINT_BYTES],
		  uint8_t ret_x[P256_X_BYTES]) must_check;
void token_forget(struct token *t, unsigned long key);

/* AES-256-GCM under a store key: out = 12-byte nonce || ciphertext || 16-byte tag. */
#define TOKEN_STORE_OVERHEAD  28
#define TOKEN_STORE_BYTES_MAX 4096 /* plain */
int token_store_seal(struct token *t, const char *label, struct bytes aad, struct bytes plain,
		     uint8_t *out) must_check;
int token_store_open(struct token *t, const char *label, struct bytes aad, struct bytes sealed,
		     uint8_t *out) must_check;

/*
 * A few bytes that the token keeps for those who are logged in (a private CKO_DATA object); the
 * manager's "ssdtf-audit" is one. To put makes the new one before the old one goes: who is killed
 * in between leaves both, so that get is told which of two is newer. Those of another size are left
 * out. -ENOKEY: there is none.
 */
#define TOKEN_DATA_BYTES_MAX 256
int token_data_get(struct token *t, const char *label, size_t size,
		   bool (*newer)(const uint8_t *a, const uint8_t *b),
		   uint8_t *ret_value) must_check;
int token_data_put(struct token *t, const char *label, struct bytes v) must_check;

/*
 * The recovery ladder, one rung a call, after an error of convert/sign/unwrap: reopens the session,
 * logs in again, or finalises and initialises the module (flock'd), as the last CKR asks for. After
 * it, handles are void where *ret_handles_lost says so (set on failure too). 0: try again; -ENODEV:
 * back off and call again; -EACCES, -EKEYREJECTED: stop for good.
 */
int token_recover(struct token *t, bool *ret_handles_lost) must_check;
/* Finalise and initialise, on purpose, before what the module leaks has grown. Handles are void. */
int token_recycle(struct token *t) must_check;

#endif
