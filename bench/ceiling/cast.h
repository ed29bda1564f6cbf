/* SPDX-License-Identifier: MIT */
/*
 * Those who play in what is timed: a manager with one scope, a device that sends under it, a
 * receiver with a grant, and the device's messages. All made up on the spot; one of each a program.
 */
#ifndef SSDTF_BENCH_CAST_H
#define SSDTF_BENCH_CAST_H

#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/secret.h"
#include "userspace/crypto/envelope.h"
#include "userspace/crypto/grant.h"
#include "userspace/crypto/p256.h"

#define CAST_TOPIC	   "bench/device-000"
#define CAST_DEVICE	   "device-000"
#define CAST_KEY_ID	   1
#define CAST_PAYLOAD_BYTES 64 /* of plaintext, where nothing else is said */
#define CAST_CONTEXT	   1000

struct cast {
	struct secret32 a; /* the scope's key pair */
	struct p256_point scope;
	struct p256_private *device; /* its signing key */
	struct p256_point device_public;
	struct secret32 b; /* the receiver's encryption key pair is b, terms.b */
	struct grant_terms terms;
	struct secret32 d, rk;
};

/* The same one each time. */
const struct cast *cast_get(void);

/* A sealed PUBLISH of the device, QoS 1: body and trailer. */
struct cast_message {
	uint8_t *p;
	size_t n;
};

/* n messages of so much plaintext, `context` of them under one enc; batch 0: each with a signature
 * of its own, else so many under one (n is a multiple). The caller's. */
struct cast_message *cast_messages(unsigned n, unsigned bytes, unsigned context, unsigned batch);

/* The body of such a message, parsed, and the point in it. */
void cast_parse(const struct cast_message *m, struct envelope *ret_e, struct p256_point *ret_enc);

/* The header's first byte that the device signs. */
uint8_t cast_first(void);

#endif
