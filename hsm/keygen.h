/* SPDX-License-Identifier: MIT */
/*
 * ssdtf-hsmd keygen: a gateway's keys, made in its token, and their public halves in a file for the
 * manager.
 */
#ifndef SSDTF_HSM_KEYGEN_H
#define SSDTF_HSM_KEYGEN_H

#include "hsm/token.h"

/*
 * Makes what is not there yet, checks that the token keeps the unwrapping key's promise, and writes
 * public_file whole or not at all: three PEM PUBLIC KEY blocks, the broker's signing key (EC), the
 * unwrapping key (RSA) and the bundle key (EC). The id key is a secret and has none. Repeating it
 * changes nothing. Returns a sysexits.h code, with one line said
 * where that is not 0.
 */
int keygen_run(const struct token_config *c, const char *public_file) must_check;

#endif
