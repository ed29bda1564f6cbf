/* SPDX-License-Identifier: MIT */
/*
 * PROTOCOL 6 read a second time, for tests to hold against the gate and the filter: is this token
 * one of this key's, for this id and User Name, now?
 */
#ifndef SSDTF_TESTS_ADMISSION_CHECK_H
#define SSDTF_TESTS_ADMISSION_CHECK_H

#include <errno.h>
#include <stdbool.h>

#include "userspace/crypto/admission.h"

/*
 * 0; -EBADMSG for a wrong form or hash; -ESTALE for a slot outside now's window (slot 0 included
 * unless no_clock_allowed).
 */
static inline int admission_check(const uint8_t key[ADMISSION_KEY_BYTES], struct bytes client_id,
				  struct bytes user_name, struct bytes token, uint32_t slot_now,
				  bool no_clock_allowed)
{
	struct bytes_reader r = bytes_reader_of(token);
	uint8_t version = bytes_read_u8(&r), expected[ADMISSION_TOKEN_BYTES];
	uint32_t slot = bytes_read_u32(&r);

	(void)bytes_read_view(&r, 8); /* compared below, with all the rest */
	if (!bytes_read_done(&r) || version != 1 ||
	    admission_token(key, client_id, user_name, slot, expected) ||
	    !bytes_equal_ct(token, bytes_of(expected, sizeof(expected))))
		return -EBADMSG;
	if (slot == 0)
		return no_clock_allowed ? 0 : -ESTALE;
	return slot + 1ull >= slot_now && slot <= slot_now + 1ull ? 0 : -ESTALE;
}

#endif
