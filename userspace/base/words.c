// SPDX-License-Identifier: MIT
#include "userspace/base/words.h"

#include <errno.h>
#include <string.h>

/* What stands before the first such byte; v moves behind that byte. */
static struct bytes before(struct bytes *v, uint8_t end)
{
	const uint8_t *at = v->n ? memchr(v->p, end, v->n) : NULL;
	size_t n = at ? (size_t)(at - v->p) : v->n;
	struct bytes_reader r = bytes_reader_of(*v);
	struct bytes head = bytes_read_view(&r, n);

	if (at)
		(void)bytes_read_u8(&r); /* end itself */
	*v = bytes_read_rest(&r);
	return head;
}

struct bytes words_line(struct bytes *text)
{
	return before(text, '\n');
}

struct bytes words_next(struct bytes *line)
{
	return before(line, ' ');
}

bool words_is(struct bytes word, const char *s)
{
	return bytes_equal(word, bytes_str(s));
}

int words_number(struct bytes word, uint64_t max, uint64_t *ret_n)
{
	uint64_t n = 0;

	if (!word.n)
		return -EINVAL;
	for (size_t i = 0; i < word.n; i++)
		if (word.p[i] < '0' || word.p[i] > '9')
			return -EINVAL;
	for (size_t i = 0; i < word.n; i++) {
		unsigned digit = word.p[i] - '0';

		if (digit > max || n > (max - digit) / 10)
			return -ERANGE;
		n = n * 10 + digit;
	}
	*ret_n = n;
	return 0;
}

char *words_copy(struct bytes word, char *out, size_t room)
{
	size_t n = word.n < room - 1 ? word.n : room - 1;

	for (size_t i = 0; i < n; i++)
		out[i] = word.p[i] >= ' ' && word.p[i] < 0x7f ? (char)word.p[i] : '?';
	out[n] = '\0';
	return out;
}
