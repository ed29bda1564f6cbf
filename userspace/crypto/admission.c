// SPDX-License-Identifier: MIT
#include "userspace/crypto/admission.h"

#include <errno.h>
#include <string.h>

#include "userspace/base/secret.h"

int admission_token(const uint8_t key[ADMISSION_KEY_BYTES], struct bytes client_id,
		    struct bytes user_name, uint32_t slot, uint8_t ret_token[ADMISSION_TOKEN_BYTES])
{
	struct admission_message m = { .words = { 0 } };
	__u64 words[ADMISSION_KEY_BYTES / 8], hash;
	struct bytes_writer w;

	if (client_id.n > sizeof(m.id) || user_name.n > sizeof(m.user_name))
		return -EINVAL;
	if (client_id.n)
		memcpy(m.id, client_id.p, client_id.n);
	if (user_name.n)
		memcpy(m.user_name, user_name.p, user_name.n);
	bytes_store_u32(m.slot, slot);
	memcpy(words, key, sizeof(words));
	hash = ADMISSION_LE64(admission_siphash(words, m.words, ARRAY_SIZE(m.words)));
	secret_wipe(words, sizeof(words));

	w = bytes_writer_of(ret_token, ADMISSION_TOKEN_BYTES);
	bytes_write_u8(&w, ADMISSION_TOKEN_VERSION);
	bytes_write_u32(&w, slot);
	bytes_write(&w, bytes_of(&hash, sizeof(hash)));
	BUG_ON(w.bad || w.left);
	return 0;
}
