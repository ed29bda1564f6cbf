// SPDX-License-Identifier: MIT
#include "userspace/crypto/admission.h"

#include <errno.h>
#include <string.h>

#define SIPHASH_BYTES 8

static void store_le64(uint8_t out[SIPHASH_BYTES], uint64_t v)
{
	for (size_t i = 0; i < SIPHASH_BYTES; i++)
		out[i] = (uint8_t)(v >> 8 * i);
}

int admission_token(const uint8_t key[ADMISSION_KEY_BYTES], struct bytes client_id,
		    struct bytes user_name, uint32_t slot, uint8_t ret_token[ADMISSION_TOKEN_BYTES])
{
	uint8_t m[ADMISSION_MESSAGE_BYTES] = { 0 }, hash[SIPHASH_BYTES];
	struct bytes_writer w;

	if (client_id.n > ADMISSION_ID_BYTES || user_name.n > ADMISSION_USER_BYTES)
		return -EINVAL;
	if (client_id.n)
		memcpy(m, client_id.p, client_id.n);
	if (user_name.n)
		memcpy(m + ADMISSION_ID_BYTES, user_name.p, user_name.n);
	bytes_store_u32(m + ADMISSION_ID_BYTES + ADMISSION_USER_BYTES, slot);
	store_le64(hash, admission_siphash(key, m, sizeof(m)));

	w = bytes_writer_of(ret_token, ADMISSION_TOKEN_BYTES);
	bytes_write_u8(&w, ADMISSION_TOKEN_VERSION);
	bytes_write_u32(&w, slot);
	bytes_write(&w, bytes_of(hash, sizeof(hash)));
	BUG_ON(w.bad || w.left);
	return 0;
}

/* Slot 0 means "no clock" and lies in no window, not even in that of 1970. */
static bool slot_in_window(uint32_t slot, uint32_t now, bool no_clock_allowed)
{
	uint32_t apart = slot > now ? slot - now : now - slot;

	if (slot == ADMISSION_SLOT_NO_CLOCK)
		return no_clock_allowed;
	return apart <= ADMISSION_SLOT_EITHER_WAY;
}

int admission_check(const uint8_t key[ADMISSION_KEY_BYTES], struct bytes client_id,
		    struct bytes user_name, struct bytes token, uint32_t slot_now,
		    bool no_clock_allowed)
{
	struct bytes_reader r = bytes_reader_of(token);
	uint8_t version = bytes_read_u8(&r);
	uint32_t slot = bytes_read_u32(&r);
	uint8_t expected[ADMISSION_TOKEN_BYTES];

	(void)bytes_read_view(&r, SIPHASH_BYTES); /* compared below, with all the rest */
	if (!bytes_read_done(&r) || version != ADMISSION_TOKEN_VERSION ||
	    admission_token(key, client_id, user_name, slot, expected) ||
	    !bytes_equal_ct(token, bytes_of(expected, sizeof(expected))))
		return -EBADMSG;
	return slot_in_window(slot, slot_now, no_clock_allowed) ? 0 : -ESTALE;
}
