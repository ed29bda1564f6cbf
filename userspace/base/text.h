/* SPDX-License-Identifier: MIT */
/*
 * Bytes as text: hex and base64url, and the check of an SSDTF id. Nothing here allocates.
 */
#ifndef SSDTF_BASE_TEXT_H
#define SSDTF_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "userspace/base/bytes.h"

#define TEXT_HEX_SIZE(n)  (2 * (n) + 1)		/* with the terminator */
#define TEXT_B64U_SIZE(n) (((n)*4 + 2) / 3 + 1) /* with the terminator, no padding */

/* Lower-case hex of v, terminated. out holds TEXT_HEX_SIZE(v.n) characters. Returns out. */
char *text_hex(struct bytes v, char *out);

/* 2 * n hex characters of either case to n bytes. 0, or -EINVAL (out is then undefined). */
int text_unhex(struct bytes hex, uint8_t *out, size_t n) must_check;

/* RFC 4648 section 5, no padding, terminated. out holds TEXT_B64U_SIZE(v.n). Returns out. */
char *text_b64u(struct bytes v, char *out);

/* Exactly n bytes from unpadded base64url; -EINVAL on a wrong length, alphabet or stray bits. */
int text_unb64u(struct bytes text, uint8_t *out, size_t n) must_check;

/* PROTOCOL 1: 1 to 64 bytes of A-Z a-z 0-9 . _ : - */
bool text_is_id(struct bytes id);

/* The first n bytes of v in hex and "..", for people: out holds TEXT_HEX_SIZE(n) + 2. */
char *text_short(struct bytes v, size_t n, char *out);

#endif
