// SPDX-License-Identifier: MIT
#include "userspace/manager/csv.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/manager/say.h"

int csv_open(struct csv *c, const char *path)
{
	/* O_NONBLOCK: a FIFO handed over by mistake is looked at, not waited for. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	int err = 0;

	c->f = NULL;
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st))
		err = -errno;
	else if (!S_ISREG(st.st_mode))
		err = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if (!err) {
		c->f = fdopen(fd, "r");
		if (!c->f)
			err = -errno;
	}
	if (err) {
		(void)close(fd); /* nothing was read */
		return err;
	}
	return csv_rewind(c);
}

void csv_close(struct csv *c)
{
	if (c->f)
		(void)fclose(c->f); /* only read from */
	c->f = NULL;
}

int csv_rewind(struct csv *c)
{
	static const char mark[] = "\xef\xbb\xbf";
	size_t i = 0;

	c->next_line = 1;
	if (fseek(c->f, 0, SEEK_SET))
		return -errno;
	while (i < sizeof(mark) - 1 && getc_unlocked(c->f) == (uint8_t)mark[i])
		i++;
	return i == sizeof(mark) - 1 || !fseek(c->f, 0, SEEK_SET) ? 0 : -errno;
}

/* --- one record ---------------------------------------------------------------------------- */

static int peek(struct csv *c)
{
	return ungetc(getc_unlocked(c->f), c->f); /* EOF stays EOF */
}

static int take(struct csv *c)
{
	int ch = getc_unlocked(c->f);

	if (ch == '\n')
		c->next_line++;
	return ch;
}

static void complain(struct csv *c, const char *what)
{
	if (!c->error) /* the first */
		c->error = what;
}

static void keep(struct csv *c, int ch)
{
	if (ch == 0)
		complain(c, "has a zero byte: save it as UTF-8");
	else if (c->used + 1 >= sizeof(c->text)) /* one for the terminator */
		complain(c, "is too long for a line: is a quote missing?");
	else
		c->text[c->used++] = (char)ch;
}

/* To where the next line begins, whatever stands before. */
static void skip_line(struct csv *c)
{
	int ch;

	do {
		ch = take(c);
	} while (ch != '\n' && ch != EOF);
}

/* LF, CRLF, or the end of the file: one of them is next, or a CR alone. */
static void take_end(struct csv *c)
{
	if (take(c) != '\r')
		return;
	if (peek(c) != '\n' && peek(c) != EOF)
		complain(c, "has a carriage return within: end lines in LF or CRLF");
	skip_line(c);
}

/* What follows the opening quote, up to the closing one. */
static void take_quoted(struct csv *c)
{
	for (;;) {
		int ch = take(c);

		if (ch == EOF) {
			complain(c, "has a quote that is opened and not closed");
			return;
		}
		if (ch == '"' && peek(c) != '"')
			break;
		if (ch == '"')
			(void)take(c); /* two of them stand for one */
		keep(c, ch);
	}
	if (peek(c) != ',' && peek(c) != '\r' && peek(c) != '\n' && peek(c) != EOF)
		complain(c, "has text behind a closing quote: write a quote within as \"\"");
}

static void take_bare(struct csv *c)
{
	for (;;) {
		int ch = peek(c);

		if (ch == ',' || ch == '\r' || ch == '\n' || ch == EOF)
			return;
		if (ch == '"')
			complain(c, "has a quote in a field that does not begin with one: put the "
				    "whole field in quotes");
		keep(c, take(c));
	}
}

static void take_field(struct csv *c)
{
	size_t start = c->used;
	struct bytes v;

	if (peek(c) == '"') {
		(void)take(c);
		take_quoted(c);
	}
	take_bare(c); /* behind a quote it is an error, but read as well */
	v = bytes_of(c->text + start, c->used - start);
	c->text[c->used] = '\0'; /* keep() leaves room */
	if (c->used + 1 < sizeof(c->text))
		c->used++;
	if (!say_is_utf8(v))
		complain(c, "is not UTF-8: save it as UTF-8");
	if (c->n_fields == CSV_FIELDS_MAX)
		complain(c, "has more fields than any of ours");
	else
		c->fields[c->n_fields++] = v;
}

enum csv_result csv_next(struct csv *c)
{
	c->n_fields = 0;
	c->used = 0;
	c->error = NULL;
	errno = 0;
	while (!c->error && (peek(c) == '\n' || peek(c) == '\r')) {
		c->line = c->next_line;
		take_end(c);
	}
	if (c->error)
		return CSV_BAD;
	if (peek(c) == EOF)
		return ferror(c->f) ? CSV_FAILED : CSV_END;
	c->line = c->next_line;
	take_field(c);
	while (peek(c) == ',') {
		(void)take(c);
		take_field(c);
	}
	take_end(c);
	if (ferror(c->f))
		return CSV_FAILED;
	return c->error ? CSV_BAD : CSV_RECORD;
}
