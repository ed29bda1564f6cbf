/* SPDX-License-Identifier: MIT */
/*
 * The bounded cursor that all wire bytes pass through, in both directions.
 *
 * A reader walks a view that somebody else owns; a writer fills a buffer that somebody else owns.
 * Both have a sticky error: after the first step that does not fit, every later one is a no-op
 * (reads return zero and empty views), so a parser goes straight down and tests once, at the end.
 * Integers are big-endian (PROTOCOL; MQTT 1.5.2). No thread affinity, no allocation.
 */
#ifndef SSDTF_BASE_BYTES_H
#define SSDTF_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "userspace/base/compiler.h"

/* A view: n bytes at p, owned elsewhere. p may be NULL only where n is 0. */
struct bytes {
	const uint8_t *p;
	size_t n;
};

struct bytes_reader {
	const uint8_t *p;
	size_t left;
	bool bad;
};

struct bytes_writer {
	uint8_t *p;  /* next byte to write */
	size_t left; /* bytes that still fit */
	size_t used; /* bytes written since init */
	bool bad;
};

static inline struct bytes bytes_of(const void *p, size_t n)
{
	return (struct bytes){ (const uint8_t *)p, n };
}

/* View of a C string without its terminator. */
struct bytes bytes_str(const char *s);

bool bytes_equal(struct bytes a, struct bytes b);
/* In time that depends on the lengths alone. */
bool bytes_equal_ct(struct bytes a, struct bytes b);
/* Orders like memcmp, a shorter prefix first. */
int bytes_compare(struct bytes a, struct bytes b);
bool bytes_is_zero(struct bytes a);

struct bytes_reader bytes_reader_of(struct bytes v);
uint8_t bytes_read_u8(struct bytes_reader *r);
uint16_t bytes_read_u16(struct bytes_reader *r);
uint32_t bytes_read_u32(struct bytes_reader *r);
uint64_t bytes_read_u64(struct bytes_reader *r);
/* The next n bytes as a view into the source. */
struct bytes bytes_read_view(struct bytes_reader *r, size_t n);
/* Length-prefixed fields: a view behind an 8-, 16- or 32-bit length. */
struct bytes bytes_read_u8_view(struct bytes_reader *r);
struct bytes bytes_read_u16_view(struct bytes_reader *r);
struct bytes bytes_read_u32_view(struct bytes_reader *r);
/* Copies exactly n bytes out; zeroes the target where they do not fit. */
void bytes_read_copy(struct bytes_reader *r, void *to, size_t n);
/* What is left, consumed. */
struct bytes bytes_read_rest(struct bytes_reader *r);
/* True where nothing went wrong and nothing is left: the usual end of a parser. */
bool bytes_read_done(const struct bytes_reader *r) must_check;

struct bytes_writer bytes_writer_of(void *p, size_t n);
void bytes_write_u8(struct bytes_writer *w, uint8_t v);
void bytes_write_u16(struct bytes_writer *w, uint16_t v);
void bytes_write_u32(struct bytes_writer *w, uint32_t v);
void bytes_write_u64(struct bytes_writer *w, uint64_t v);
void bytes_write(struct bytes_writer *w, struct bytes v);
/* A length and the bytes; a view too long for its length field is the sticky error. */
void bytes_write_u8_view(struct bytes_writer *w, struct bytes v);
void bytes_write_u16_view(struct bytes_writer *w, struct bytes v);
void bytes_write_u32_view(struct bytes_writer *w, struct bytes v);
/* Room for n bytes that the caller fills; NULL (and the sticky error) where they do not fit. */
uint8_t *bytes_write_space(struct bytes_writer *w, size_t n);

/* Big-endian loads and stores on memory whose bounds the caller has already proved. */
static inline uint16_t bytes_load_u16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t bytes_load_u32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void bytes_store_u16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void bytes_store_u32(uint8_t *p, uint32_t v)
{
	bytes_store_u16(p, (uint16_t)(v >> 16));
	bytes_store_u16(p + 2, (uint16_t)v);
}

static inline void bytes_store_u64(uint8_t *p, uint64_t v)
{
	bytes_store_u32(p, (uint32_t)(v >> 32));
	bytes_store_u32(p + 4, (uint32_t)v);
}

#endif
