/* SPDX-License-Identifier: MIT */
/*
 * Admission tokens as clients make them (PROTOCOL 6), by the very hash that the kernel's filter
 * computes. A token admits, it does not authenticate.
 */
#ifndef SSDTF_CRYPTO_ADMISSION_H
#define SSDTF_CRYPTO_ADMISSION_H

#include <stdint.h>

#include "bpf/admission.h"
#include "userspace/base/bytes.h"

/* -EINVAL: client id longer than 64 bytes or User Name longer than 48. */
int admission_token(const uint8_t key[ADMISSION_KEY_BYTES], struct bytes client_id,
		    struct bytes user_name, uint32_t slot,
		    uint8_t ret_token[ADMISSION_TOKEN_BYTES]) must_check;

static inline uint32_t admission_slot(uint64_t unix_ms)
{
	return (uint32_t)(unix_ms / 1000 / ADMISSION_SLOT_SECONDS);
}

#endif
