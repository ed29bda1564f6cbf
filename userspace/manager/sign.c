// SPDX-License-Identifier: MIT
#include "userspace/manager/sign.h"

int sign_statement(struct manager *m, const struct statement *s, uint8_t *out, size_t room,
		   size_t *ret_n)
{
	struct bytes_writer w = bytes_writer_of(out, room);
	uint8_t digest[P256_DIGEST_BYTES], sig[P256_SIG_BYTES];
	int err = manager_token(m);

	if (err)
		return err;
	statement_write_unsigned(s, &w);
	BUG_ON(w.bad);
	statement_digest(s->kind, bytes_of(out, w.used), digest);
	err = manager_fail_token(m, token_sign(m->token, MANAGER_KEY_LABEL, digest, sig));
	if (err)
		return err;
	bytes_write(&w, bytes_of(sig, sizeof(sig)));
	BUG_ON(w.bad);
	*ret_n = w.used;
	return 0;
}
