/* SPDX-License-Identifier: MIT */
/*
 * Conversion as bare as PKCS#11 has it: for ssdtf-bench, which says how much of it token_convert()
 * and everything above leave. No part of a gateway uses it.
 */
#ifndef SSDTF_HSM_TOKEN_BARE_H
#define SSDTF_HSM_TOKEN_BARE_H

#include "hsm/token.h"

/*
 * C_DeriveKey, C_GetAttributeValue and C_DestroyObject, n times over in the token's session, with
 * nothing around them but a look at their codes. ret_x is the last answer. Errors as
 * token_convert()'s.
 */
int token_bare_convert(struct token *t, unsigned long key, const uint8_t point[P256_POINT_BYTES],
		       unsigned n, uint8_t ret_x[P256_X_BYTES]) must_check;

#endif
