/* SPDX-License-Identifier: MIT */
/*
 * Admission tokens in user space (PROTOCOL 6): clients make them, the broker checks them. The hash
 * is the kernel filter's own, bpf/admission.h. It admits, it does not authenticate.
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

/*
 * 0; -EBADMSG for a wrong form or hash; -ESTALE for a slot outside now's window (slot 0 included
 * unless no_clock_allowed).
 */
int admission_check(const uint8_t key[ADMISSION_KEY_BYTES], struct bytes client_id,
		    struct bytes user_name, struct bytes token, uint32_t slot_now,
		    bool no_clock_allowed) must_check;

#endif
