// SPDX-License-Identifier: MIT
#include "hsm/keygen.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "userspace/base/file.h"
#include "userspace/base/log.h"
#include "userspace/crypto/rsa.h"

#define EC_PEM_BYTES   256
#define FILE_BYTES_MAX (2 * EC_PEM_BYTES + RSA_PEM_BYTES_MAX)

static int exit_code_of(int rc)
{
	switch (rc) {
	case -EACCES:
	case -EKEYREJECTED:
	case -EPERM:
		return EX_NOPERM;
	case -ENODEV:
	case -EIO:
	case -EBUSY:
		return EX_UNAVAILABLE;
	case -ENOTSUP:
		return EX_PROTOCOL;
	default:
		return EX_CONFIG;
	}
}

/* The public halves of what is in the token. */
struct public_keys {
	struct p256_point signing, bundle;
	uint8_t spki[TOKEN_SPKI_BYTES_MAX]; /* of the unwrapping key */
	size_t spki_bytes;
};

static int make_ec(struct token *t, const char *label,
		   int (*generate)(struct token *t, const char *label,
				   struct p256_point *ret_public),
		   struct p256_point *ret_public)
{
	int rc = token_signing_public(t, label, ret_public);

	if (rc != -ENOKEY)
		return rc;
	/* A keygen that was killed may have left the private half. Its public half was never
	 * written out, so nobody knows the key. */
	rc = token_destroy(t, label);
	if (!rc)
		rc = generate(t, label, ret_public);
	if (!rc)
		log_info("made %s, a P-256 key pair, in the token", label);
	return rc;
}

/* Tried, since it has no other half that would show it whole. */
static int make_ids(struct token *t)
{
	uint8_t mac[TOKEN_MAC_BYTES];
	int rc = token_mac(t, TOKEN_LABEL_IDS, bytes_str("ssdtf"), mac);

	if (rc != -ENOKEY)
		return rc;
	rc = token_generate_mac(t, TOKEN_LABEL_IDS);
	if (!rc)
		rc = token_mac(t, TOKEN_LABEL_IDS, bytes_str("ssdtf"), mac);
	if (!rc)
		log_info("made %s, a secret, in the token", TOKEN_LABEL_IDS);
	return rc;
}

static int make_unwrapping(struct token *t, uint8_t spki[TOKEN_SPKI_BYTES_MAX], size_t *ret_n)
{
	int n = token_unwrapping_public(t, TOKEN_LABEL_UNWRAP, spki, TOKEN_SPKI_BYTES_MAX);
	int rc;

	if (n == -ENOKEY) {
		rc = token_destroy(t, TOKEN_LABEL_UNWRAP); /* likewise */
		if (!rc)
			rc = token_generate_unwrapping(t, TOKEN_LABEL_UNWRAP);
		if (rc)
			return rc;
		log_info("made %s, an RSA key pair, in the token", TOKEN_LABEL_UNWRAP);
		n = token_unwrapping_public(t, TOKEN_LABEL_UNWRAP, spki, TOKEN_SPKI_BYTES_MAX);
	}
	if (n < 0)
		return n;
	*ret_n = (size_t)n;
	return token_check_unwrapping(t, TOKEN_LABEL_UNWRAP);
}

/* With the words said. */
static int make_keys(const struct token_config *c, struct public_keys *ret_k)
{
	struct token *t;
	int rc = token_open(c, &t);

	if (rc) {
		log_error("%s", token_open_error());
		return rc;
	}
	rc = make_ec(t, TOKEN_LABEL_SIGN, token_generate_signing, &ret_k->signing);
	if (!rc)
		rc = make_unwrapping(t, ret_k->spki, &ret_k->spki_bytes);
	if (!rc)
		rc = make_ec(t, TOKEN_LABEL_BUNDLE, token_generate_opening, &ret_k->bundle);
	if (!rc)
		rc = make_ids(t);
	if (rc)
		log_error("%s", token_error(t));
	token_close(t);
	return rc;
}

/* The PEM text's length, or an error with the words said. */
static int write_keys(const struct public_keys *k, uint8_t pem[FILE_BYTES_MAX])
{
	size_t used = 0;
	int n = p256_public_to_pem(&k->signing, pem, FILE_BYTES_MAX);

	if (n > 0) {
		used += (size_t)n;
		n = rsa_public_to_pem(bytes_of(k->spki, k->spki_bytes), pem + used,
				      FILE_BYTES_MAX - used);
	}
	if (n > 0) {
		used += (size_t)n;
		n = p256_public_to_pem(&k->bundle, pem + used, FILE_BYTES_MAX - used);
	}
	if (n < 0) {
		log_error("the token's public keys cannot be written as PEM");
		return n;
	}
	return (int)used + n;
}

int keygen_run(const struct token_config *c, const char *public_file)
{
	uint8_t pem[FILE_BYTES_MAX];
	struct public_keys k;
	int n, rc = make_keys(c, &k);

	if (rc)
		return exit_code_of(rc);
	n = write_keys(&k, pem);
	if (n < 0)
		return exit_code_of(n);
	rc = file_write(AT_FDCWD, public_file, bytes_of(pem, (size_t)n), 0644);
	if (rc) {
		log_error("%s: %s", public_file, strerror(-rc));
		return EX_CANTCREAT;
	}
	return 0;
}
