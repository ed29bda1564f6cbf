/* SPDX-License-Identifier: MIT */
/*
 * A gateway token's RSA unwrapping key, its public half: what the manager wraps conversion keys
 * under. OAEP with SHA-1 and MGF1 with SHA-1, no label (RFC 8017 7.1): the one OAEP that tokens
 * agree on; its security does not rest on SHA-1's collision resistance.
 *
 * A key is passed about as its SubjectPublicKeyInfo in DER, whose SHA-256 names it (hash_one).
 * Errors: -EINVAL for bytes that are no RSA public key of 2048 to 4096 bits, -ENOBUFS where the
 * result does not fit, -ENOMEM or -EIO for OpenSSL's own trouble. Thread-safe.
 */
#ifndef SSDTF_CRYPTO_RSA_H
#define SSDTF_CRYPTO_RSA_H

#include <stdint.h>

#include "userspace/base/bytes.h"

#define RSA_SPKI_BYTES_MAX    600 /* 4096 bits take 550 */
#define RSA_WRAPPED_BYTES_MAX 512
#define RSA_PEM_BYTES_MAX     1024

/* PEM text of a SubjectPublicKeyInfo to its DER; returns the length. */
int rsa_public_from_pem(struct bytes pem, uint8_t *out, size_t room) must_check;
/* The way back, for whoever hands the key on: PEM text, not terminated; returns the length. */
int rsa_public_to_pem(struct bytes spki, uint8_t *out, size_t room) must_check;
/* plain under the key; returns the length, which is that of the modulus. */
int rsa_wrap(struct bytes spki, struct bytes plain, uint8_t *out, size_t room) must_check;

#endif
