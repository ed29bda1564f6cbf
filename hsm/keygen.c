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
#define FILE_BYTES_MAX (EC_PEM_BYTES + RSA_PEM_BYTES_MAX)

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

static int make_signing(struct token *t, struct p256_point *ret_public)
{
	int rc = token_signing_public(t, TOKEN_LABEL_SIGN, ret_public);

	if (rc != -ENOKEY)
		return rc;
	/* A keygen that was killed may have left the private half. Its public half was never
	 * written out, so nobody knows the key. */
	rc = token_destroy(t, TOKEN_LABEL_SIGN);
	if (!rc)
		rc = token_generate_signing(t, TOKEN_LABEL_SIGN, ret_public);
	if (!rc)
		log_info("made %s, a P-256 key pair, in the token", TOKEN_LABEL_SIGN);
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

/* Both keys as PEM; returns the length, or an error with the words said. */
static int make_keys(const struct token_config *c, uint8_t pem[FILE_BYTES_MAX])
{
	uint8_t spki[TOKEN_SPKI_BYTES_MAX];
	struct p256_point public;
	struct token *t;
	size_t spki_n;
	int n, m = 0, rc = token_open(c, &t);

	if (rc) {
		log_error("%s", token_open_error());
		return rc;
	}
	rc = make_signing(t, &public);
	if (!rc)
		rc = make_unwrapping(t, spki, &spki_n);
	if (rc)
		log_error("%s", token_error(t));
	token_close(t);
	if (rc)
		return rc;
	n = p256_public_to_pem(&public, pem, FILE_BYTES_MAX);
	if (n > 0)
		m = rsa_public_to_pem(bytes_of(spki, spki_n), pem + n, FILE_BYTES_MAX - (size_t)n);
	if (n < 0 || m < 0) {
		log_error("the token's public keys cannot be written as PEM");
		return n < 0 ? n : m;
	}
	return n + m;
}

int keygen_run(const struct token_config *c, const char *public_file)
{
	uint8_t pem[FILE_BYTES_MAX];
	int rc, n = make_keys(c, pem);

	if (n < 0)
		return exit_code_of(n);
	rc = file_write(AT_FDCWD, public_file, bytes_of(pem, (size_t)n), 0644);
	if (rc) {
		log_error("%s: %s", public_file, strerror(-rc));
		return EX_CANTCREAT;
	}
	return 0;
}
