/* SPDX-License-Identifier: MIT */
/*
 * OpenSSL's EVP without anything of ours, as `openssl speed ecdsap256 ecdhp256` uses it: for seeing
 * what userspace/crypto adds. One thread; a copy by fork() is as good.
 */
#ifndef SSDTF_BENCH_BARE_H
#define SSDTF_BENCH_BARE_H

#include "userspace/crypto/p256.h"

struct bare;

/* Keys of its own. Ends the program where OpenSSL has none. */
struct bare *bare_new(void);
void bare_free(struct bare *b);

/* Each n times; false where OpenSSL says no. The signature is DER, as EVP has it. */
bool bare_sign(struct bare *b, unsigned n);
bool bare_verify(struct bare *b, unsigned n);
bool bare_derive(struct bare *b, unsigned n);
/* Does it refuse a signature that is not of this digest? */
bool bare_refuses(struct bare *b);

#endif
