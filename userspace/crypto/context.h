/* SPDX-License-Identifier: MIT */
/*
 * What this layer keeps of OpenSSL: algorithms fetched once a process, working contexts once a
 * thread (freed when the thread ends), and the one way out of its error queue. Private to crypto/.
 *
 * OpenSSL 3.0 still allocates a small state of its own whenever a context is initialised, and wipes
 * it when the context is reset; nothing else is allocated once a thread has its contexts.
 */
#ifndef SSDTF_CRYPTO_CONTEXT_H
#define SSDTF_CRYPTO_CONTEXT_H

#include <openssl/types.h>

#include "userspace/base/compiler.h"

/* This thread's contexts, and the algorithms to initialise them with. Never NULL: a process that
 * has no SHA-256 or no memory for its first hash says so and ends. */
struct context {
	EVP_MD_CTX *digest;
	EVP_CIPHER_CTX *cipher;
	const EVP_MD *sha256;
	const EVP_CIPHER *aes_128_gcm;
	const EVP_CIPHER *chacha20_poly1305;
};

const struct context *context_get(void);

/* How many forks lie between the program's start and this process: a child has one more. */
unsigned context_forks(void);

/*
 * After a failed OpenSSL call: -ENOMEM where memory was the reason, otherwise what the caller makes
 * of it. Empties the thread's error queue, which a TLS connection on the same thread would else
 * take for its own.
 */
int context_error(int otherwise) must_check;

#endif
