// SPDX-License-Identifier: MIT
#include "bench/ceiling/bare.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <sysexits.h>

#include "userspace/base/log.h"
#include "userspace/crypto/hash.h"

#define CURVE	      "P-256"
#define DER_BYTES_MAX 80

struct bare {
	EVP_PKEY *key, *peer;
	EVP_PKEY_CTX *sign, *verify, *derive;
	uint8_t digest[P256_DIGEST_BYTES], sig[DER_BYTES_MAX];
	size_t sig_n;
};

struct bare *bare_new(void)
{
	struct bare *b = calloc(1, sizeof(*b));

	if (!b)
		exit_with(EX_OSERR, "no memory");
	b->key = EVP_EC_gen(CURVE);
	b->peer = EVP_EC_gen(CURVE);
	if (b->key && b->peer) {
		b->sign = EVP_PKEY_CTX_new(b->key, NULL);
		b->verify = EVP_PKEY_CTX_new(b->key, NULL);
		b->derive = EVP_PKEY_CTX_new(b->key, NULL);
	}
	hash_random(b->digest, sizeof(b->digest));
	if (!b->sign || !b->verify || !b->derive || EVP_PKEY_sign_init(b->sign) != 1 ||
	    EVP_PKEY_verify_init(b->verify) != 1 || EVP_PKEY_derive_init(b->derive) != 1 ||
	    EVP_PKEY_derive_set_peer(b->derive, b->peer) != 1 || !bare_sign(b, 1))
		exit_with(EX_SOFTWARE, "OpenSSL makes no P-256 keys");
	return b;
}

void bare_free(struct bare *b)
{
	EVP_PKEY_CTX_free(b->derive);
	EVP_PKEY_CTX_free(b->verify);
	EVP_PKEY_CTX_free(b->sign);
	EVP_PKEY_free(b->peer);
	EVP_PKEY_free(b->key);
	free(b);
}

bool bare_sign(struct bare *b, unsigned n)
{
	bool good = true;

	while (good && n--) {
		b->sig_n = sizeof(b->sig);
		good = EVP_PKEY_sign(b->sign, b->sig, &b->sig_n, b->digest, sizeof(b->digest)) == 1;
	}
	return good;
}

bool bare_verify(struct bare *b, unsigned n)
{
	bool good = true;

	while (good && n--)
		good = EVP_PKEY_verify(b->verify, b->sig, b->sig_n, b->digest, sizeof(b->digest)) ==
		       1;
	return good;
}

bool bare_derive(struct bare *b, unsigned n)
{
	uint8_t x[P256_X_BYTES];
	bool good = true;

	while (good && n--) {
		size_t x_n = sizeof(x);

		good = EVP_PKEY_derive(b->derive, x, &x_n) == 1 && x_n == sizeof(x);
	}
	return good;
}

bool bare_refuses(struct bare *b)
{
	bool refused;

	b->digest[0] ^= 1;
	refused = !bare_verify(b, 1);
	b->digest[0] ^= 1;
	return refused;
}
