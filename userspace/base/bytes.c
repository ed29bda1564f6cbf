// SPDX-License-Identifier: MIT
#include "userspace/base/bytes.h"

#include <string.h>

struct bytes bytes_str(const char *s)
{
	return bytes_of(s, strlen(s));
}

bool bytes_equal(struct bytes a, struct bytes b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool bytes_equal_ct(struct bytes a, struct bytes b)
{
	volatile uint8_t diff = 0;

	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++)
		diff |= a.p[i] ^ b.p[i];
	return diff == 0;
}

int bytes_compare(struct bytes a, struct bytes b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int order = n ? memcmp(a.p, b.p, n) : 0;

	if (order)
		return order;
	return a.n < b.n ? -1 : a.n > b.n;
}

bool bytes_is_zero(struct bytes a)
{
	uint8_t any = 0;

	for (size_t i = 0; i < a.n; i++)
		any |= a.p[i];
	return any == 0;
}

struct bytes_reader bytes_reader_of(struct bytes v)
{
	return (struct bytes_reader){ .p = v.p, .left = v.n };
}

/* The one bounds test of all reads: n more bytes, or the sticky error. */
static const uint8_t *take(struct bytes_reader *r, size_t n)
{
	const uint8_t *p = r->p;

	if (r->bad || n > r->left) {
		r->bad = true;
		return NULL;
	}
	if (n) {
		r->p += n;
		r->left -= n;
	}
	return p;
}

uint8_t bytes_read_u8(struct bytes_reader *r)
{
	const uint8_t *p = take(r, 1);

	return p ? p[0] : 0;
}

uint16_t bytes_read_u16(struct bytes_reader *r)
{
	const uint8_t *p = take(r, 2);

	return p ? bytes_load_u16(p) : 0;
}

uint32_t bytes_read_u32(struct bytes_reader *r)
{
	const uint8_t *p = take(r, 4);

	return p ? bytes_load_u32(p) : 0;
}

uint64_t bytes_read_u64(struct bytes_reader *r)
{
	const uint8_t *p = take(r, 8);

	return p ? (uint64_t)bytes_load_u32(p) << 32 | bytes_load_u32(p + 4) : 0;
}

struct bytes bytes_read_view(struct bytes_reader *r, size_t n)
{
	const uint8_t *p = take(r, n);

	return p ? bytes_of(p, n) : bytes_of(NULL, 0);
}

struct bytes bytes_read_u8_view(struct bytes_reader *r)
{
	return bytes_read_view(r, bytes_read_u8(r));
}

struct bytes bytes_read_u16_view(struct bytes_reader *r)
{
	return bytes_read_view(r, bytes_read_u16(r));
}

struct bytes bytes_read_u32_view(struct bytes_reader *r)
{
	return bytes_read_view(r, bytes_read_u32(r));
}

void bytes_read_copy(struct bytes_reader *r, void *to, size_t n)
{
	const uint8_t *p = take(r, n);

	if (p)
		memcpy(to, p, n);
	else
		memset(to, 0, n);
}

struct bytes bytes_read_rest(struct bytes_reader *r)
{
	return bytes_read_view(r, r->left);
}

bool bytes_read_done(const struct bytes_reader *r)
{
	return !r->bad && r->left == 0;
}

struct bytes_writer bytes_writer_of(void *p, size_t n)
{
	return (struct bytes_writer){ .p = (uint8_t *)p, .left = n };
}

uint8_t *bytes_write_space(struct bytes_writer *w, size_t n)
{
	uint8_t *p = w->p;

	if (w->bad || n > w->left) {
		w->bad = true;
		return NULL;
	}
	if (n) {
		w->p += n;
		w->left -= n;
		w->used += n;
	}
	return p;
}

void bytes_write_u8(struct bytes_writer *w, uint8_t v)
{
	uint8_t *p = bytes_write_space(w, 1);

	if (p)
		*p = v;
}

void bytes_write_u16(struct bytes_writer *w, uint16_t v)
{
	uint8_t *p = bytes_write_space(w, 2);

	if (p)
		bytes_store_u16(p, v);
}

void bytes_write_u32(struct bytes_writer *w, uint32_t v)
{
	uint8_t *p = bytes_write_space(w, 4);

	if (p)
		bytes_store_u32(p, v);
}

void bytes_write_u64(struct bytes_writer *w, uint64_t v)
{
	uint8_t *p = bytes_write_space(w, 8);

	if (p)
		bytes_store_u64(p, v);
}

void bytes_write(struct bytes_writer *w, struct bytes v)
{
	uint8_t *p = bytes_write_space(w, v.n);

	if (p && v.n)
		memcpy(p, v.p, v.n);
}

void bytes_write_u8_view(struct bytes_writer *w, struct bytes v)
{
	w->bad |= v.n > UINT8_MAX;
	bytes_write_u8(w, (uint8_t)v.n);
	bytes_write(w, v);
}

void bytes_write_u16_view(struct bytes_writer *w, struct bytes v)
{
	w->bad |= v.n > UINT16_MAX;
	bytes_write_u16(w, (uint16_t)v.n);
	bytes_write(w, v);
}

void bytes_write_u32_view(struct bytes_writer *w, struct bytes v)
{
	w->bad |= v.n > UINT32_MAX;
	bytes_write_u32(w, (uint32_t)v.n);
	bytes_write(w, v);
}
