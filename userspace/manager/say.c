// SPDX-License-Identifier: MIT
#include "userspace/manager/say.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

/* --- characters ---------------------------------------------------------------------------- */

/* The character that v begins with (RFC 3629) and its length; length 0: it is none. */
static uint32_t first_character(struct bytes v, size_t *ret_n)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	uint8_t lead = v.p[0];
	size_t n = lead < 0x80	 ? 1
		   : lead < 0xc2 ? 0
		   : lead < 0xe0 ? 2
		   : lead < 0xf0 ? 3
		   : lead < 0xf5 ? 4
				 : 0;
	uint32_t c = n == 1 ? lead : lead & (0x7fu >> n);

	*ret_n = 0;
	if (!n || n > v.n)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((v.p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (v.p[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	*ret_n = n;
	return c;
}

bool say_is_utf8(struct bytes v)
{
	while (v.n) {
		size_t n;

		(void)first_character(v, &n); /* its length is asked about */
		if (!n)
			return false;
		v = bytes_of(v.p + n, v.n - n);
	}
	return true;
}

/* Controls (C0, DEL, C1), and what is not seen but acts on what is: line and paragraph separators,
 * directions, joiners, tags, the byte order mark. */
static bool is_hidden(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x061c || c == 0x180e ||
	       (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) ||
	       (c >= 0xe0000 && c <= 0xe007f);
}

/* Output goes to memory, whose end is noticed when it is flushed. */
void say_quoted(FILE *f, struct bytes v)
{
	(void)fputc('"', f);
	while (v.n) {
		size_t n;
		uint32_t c = first_character(v, &n);

		if (!n)
			(void)fprintf(f, "\\x%02x", v.p[0]);
		else if (is_hidden(c))
			(void)fprintf(f, "\\u{%x}", c);
		else
			(void)fprintf(f, "%s%.*s", c == '"' || c == '\\' ? "\\" : "", (int)n,
				      (const char *)v.p);
		n = n ? n : 1;
		v = bytes_of(v.p + n, v.n - n);
	}
	(void)fputc('"', f);
}

static void say_utf16(FILE *f, uint32_t c)
{
	if (c > 0xffff)
		(void)fprintf(f, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
			      0xdc00 + (c & 0x3ff));
	else
		(void)fprintf(f, "\\u%04x", c);
}

void say_json(FILE *f, struct bytes v)
{
	(void)fputc('"', f);
	while (v.n) {
		size_t n;
		uint32_t c = first_character(v, &n);

		if (!n)
			(void)fputs("\\ufffd", f);
		else if (is_hidden(c))
			say_utf16(f, c);
		else
			(void)fprintf(f, "%s%.*s", c == '"' || c == '\\' ? "\\" : "", (int)n,
				      (const char *)v.p);
		n = n ? n : 1;
		v = bytes_of(v.p + n, v.n - n);
	}
	(void)fputc('"', f);
}

/* --- times --------------------------------------------------------------------------------- */

const char *say_time(int64_t ms, char out[SAY_TIME_ROOM])
{
	time_t s = (time_t)(ms / 1000);
	struct tm tm;

	if (!ms || !gmtime_r(&s, &tm) || !strftime(out, SAY_TIME_ROOM, "%Y-%m-%dT%H:%M:%SZ", &tm))
		(void)snprintf(out, SAY_TIME_ROOM, "none");
	return out;
}

/* Two-digit groups behind the year, each with what stands in front of it. */
static bool has_form(const char *text, const char *form)
{
	for (; *form; form++, text++) {
		if (*form == '0' ? *text < '0' || *text > '9' : *text != *form)
			return false;
	}
	return !*text;
}

int say_parse_time(const char *text, uint64_t *ret_ms)
{
	char again[SAY_TIME_ROOM], full[SAY_TIME_ROOM];
	struct tm tm = { 0 };
	time_t s;

	if (has_form(text, "0000-00-00"))
		(void)snprintf(full, sizeof(full), "%sT00:00:00Z", text);
	else if (has_form(text, "0000-00-00T00:00:00Z"))
		(void)snprintf(full, sizeof(full), "%s", text);
	else
		return -EINVAL;
	if (!strptime(full, "%Y-%m-%dT%H:%M:%SZ", &tm))
		return -EINVAL;
	s = timegm(&tm);
	/* The 31st of February comes back as another day. */
	if (s <= 0 || strcmp(say_time((int64_t)s * 1000, again), full))
		return -EINVAL;
	*ret_ms = (uint64_t)s * 1000;
	return 0;
}
