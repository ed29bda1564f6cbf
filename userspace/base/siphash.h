/* SPDX-License-Identifier: MIT */
/*
 * SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012), for hash tables whose
 * keys peers choose: who does not know the 16 random bytes cannot prepare collisions.
 * The admission token has its own copy (bpf/admission.h), since that text is also a BPF program's.
 */
#ifndef SSDTF_BASE_SIPHASH_H
#define SSDTF_BASE_SIPHASH_H

#include <stdint.h>

#include "userspace/base/bytes.h"

#define SIPHASH_KEY_BYTES 16

uint64_t siphash(const uint8_t key[SIPHASH_KEY_BYTES], struct bytes m);

#endif
