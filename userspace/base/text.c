// SPDX-License-Identifier: MIT
#include "userspace/base/text.h"

#include <errno.h>
#include <string.h>

static const char hex_digits[] = "0123456789abcdef";
static const char b64u_digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#define ID_BYTES_MAX 64

char *text_hex(struct bytes v, char *out)
{
	char *to = out;

	for (size_t i = 0; i < v.n; i++) {
		*to++ = hex_digits[v.p[i] >> 4];
		*to++ = hex_digits[v.p[i] & 15];
	}
	*to = '\0';
	return out;
}

static int hex_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

int text_unhex(struct bytes hex, uint8_t *out, size_t n)
{
	if (hex.n != 2 * n)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		int hi = hex_value(hex.p[2 * i]);
		int lo = hex_value(hex.p[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return -EINVAL;
		out[i] = (uint8_t)(hi << 4 | lo);
	}
	return 0;
}

char *text_b64u(struct bytes v, char *out)
{
	char *to = out;
	uint32_t acc = 0;
	unsigned bits = 0;

	for (size_t i = 0; i < v.n; i++) {
		acc = acc << 8 | v.p[i];
		bits += 8;
		while (bits >= 6) {
			bits -= 6;
			*to++ = b64u_digits[acc >> bits & 63];
		}
	}
	if (bits)
		*to++ = b64u_digits[acc << (6 - bits) & 63];
	*to = '\0';
	return out;
}

int text_unb64u(struct bytes text, uint8_t *out, size_t n)
{
	uint32_t acc = 0;
	unsigned bits = 0;
	size_t used = 0;

	if (text.n != TEXT_B64U_SIZE(n) - 1)
		return -EINVAL;
	for (size_t i = 0; i < text.n; i++) {
		const char *at = text.p[i] ? strchr(b64u_digits, text.p[i]) : NULL;

		if (!at)
			return -EINVAL;
		acc = acc << 6 | (uint32_t)(at - b64u_digits);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[used++] = (uint8_t)(acc >> bits);
		}
	}
	/* The bits that no byte holds are zero, so that one value has one text. */
	return acc & ((1u << bits) - 1) ? -EINVAL : 0;
}

bool text_is_id(struct bytes id)
{
	if (id.n < 1 || id.n > ID_BYTES_MAX)
		return false;
	for (size_t i = 0; i < id.n; i++) {
		uint8_t c = id.p[i];
		bool alnum =
			(c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');

		if (!alnum && c != '.' && c != '_' && c != ':' && c != '-')
			return false;
	}
	return true;
}

char *text_short(struct bytes v, size_t n, char *out)
{
	if (v.n <= n)
		return text_hex(v, out);
	text_hex(bytes_of(v.p, n), out);
	memcpy(out + 2 * n, "..", 3);
	return out;
}
