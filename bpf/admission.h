/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * The admission token of PROTOCOL 6, as the kernel's filter and user space both compute it. Nothing
 * here calls anything, so that one text serves a BPF program and a C program.
 *
 *   token = 01 || u32 slot || SipHash-2-4(K_adm, client id padded to 64 || User Name padded to 48
 *                                         || u32 slot || u32 0)
 *
 * The slot is big-endian in the token and in the hashed message (PROTOCOL: integers are); key words
 * and the eight output bytes are little-endian, as SipHash defines them.
 */
#ifndef SSDTF_BPF_ADMISSION_H
#define SSDTF_BPF_ADMISSION_H

#include <linux/types.h>

#define ADMISSION_KEY_BYTES	  16
#define ADMISSION_TOKEN_BYTES	  13
#define ADMISSION_ID_BYTES	  64 /* client id, zero-padded */
#define ADMISSION_USER_BYTES	  48 /* User Name, zero-padded */
#define ADMISSION_MESSAGE_BYTES	  (ADMISSION_ID_BYTES + ADMISSION_USER_BYTES + 8)
#define ADMISSION_SLOT_SECONDS	  30
#define ADMISSION_SLOT_EITHER_WAY 1
#define ADMISSION_SLOT_NO_CLOCK	  0
#define ADMISSION_TOKEN_VERSION	  1

#define ADMISSION_ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define ADMISSION_SIPROUND(v0, v1, v2, v3)   \
	do {                                 \
		v0 += v1;                    \
		v1 = ADMISSION_ROTL(v1, 13); \
		v1 ^= v0;                    \
		v0 = ADMISSION_ROTL(v0, 32); \
		v2 += v3;                    \
		v3 = ADMISSION_ROTL(v3, 16); \
		v3 ^= v2;                    \
		v0 += v3;                    \
		v3 = ADMISSION_ROTL(v3, 21); \
		v3 ^= v0;                    \
		v2 += v1;                    \
		v1 = ADMISSION_ROTL(v1, 17); \
		v1 ^= v2;                    \
		v2 = ADMISSION_ROTL(v2, 32); \
	} while (0)

static inline __u64 admission_load_le64(const __u8 *p)
{
	return (__u64)p[0] | (__u64)p[1] << 8 | (__u64)p[2] << 16 | (__u64)p[3] << 24 |
	       (__u64)p[4] << 32 | (__u64)p[5] << 40 | (__u64)p[6] << 48 | (__u64)p[7] << 56;
}

/* SipHash-2-4 (Aumasson, Bernstein 2012) of n bytes, n a multiple of 8. */
static inline __u64 admission_siphash(const __u8 key[ADMISSION_KEY_BYTES], const __u8 *m,
				      unsigned int n)
{
	__u64 k0 = admission_load_le64(key), k1 = admission_load_le64(key + 8);
	__u64 v0 = k0 ^ 0x736f6d6570736575ull, v1 = k1 ^ 0x646f72616e646f6dull;
	__u64 v2 = k0 ^ 0x6c7967656e657261ull, v3 = k1 ^ 0x7465646279746573ull;
	__u64 last = (__u64)n << 56;

	for (unsigned int i = 0; i < n; i += 8) {
		__u64 w = admission_load_le64(m + i);

		v3 ^= w;
		ADMISSION_SIPROUND(v0, v1, v2, v3);
		ADMISSION_SIPROUND(v0, v1, v2, v3);
		v0 ^= w;
	}
	v3 ^= last;
	ADMISSION_SIPROUND(v0, v1, v2, v3);
	ADMISSION_SIPROUND(v0, v1, v2, v3);
	v0 ^= last;
	v2 ^= 0xff;
	ADMISSION_SIPROUND(v0, v1, v2, v3);
	ADMISSION_SIPROUND(v0, v1, v2, v3);
	ADMISSION_SIPROUND(v0, v1, v2, v3);
	ADMISSION_SIPROUND(v0, v1, v2, v3);
	return v0 ^ v1 ^ v2 ^ v3;
}

#endif
