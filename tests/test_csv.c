// SPDX-License-Identifier: MIT
/*
 * CSV (RFC 4180) as a file of devices comes in: what is read, what is refused and where, and that
 * what follows an error is read all the same.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/harness.h"
#include "userspace/base/file.h"
#include "userspace/manager/csv.h"

FIXTURE(csv)
{
	char path[64];
	struct csv csv;
};
FIXTURE_SETUP(csv)
{
	int fd;

	snprintf(self->path, sizeof(self->path), "/tmp/test-csv.XXXXXX");
	fd = mkstemp(self->path);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(close(fd), 0);
}
FIXTURE_TEARDOWN(csv)
{
	csv_close(&self->csv);
	(void)unlink(self->path);
}

static void open_text(struct fixture_csv *self, const char *text, size_t n)
{
	csv_close(&self->csv);
	ASSERT_EQ(file_write(AT_FDCWD, self->path, bytes_of(text, n), 0600), 0);
	ASSERT_EQ(csv_open(&self->csv, self->path), 0);
}

/* All records as text: "1:a|b;2:!;" where the record of line 2 is bad. */
static const char *read_all(struct csv *c)
{
	static char out[4096];
	size_t used = 0;
	enum csv_result r;

	out[0] = '\0';
	while ((r = csv_next(c)) == CSV_RECORD || r == CSV_BAD) {
		used += (size_t)snprintf(out + used, sizeof(out) - used, "%u:", c->line);
		for (unsigned i = 0; r == CSV_RECORD && i < c->n_fields; i++)
			used += (size_t)snprintf(out + used, sizeof(out) - used, "%s%s",
						 i ? "|" : "", (const char *)c->fields[i].p);
		ASSERT_TRUE((r == CSV_BAD) == (c->error != NULL));
		used += (size_t)snprintf(out + used, sizeof(out) - used, r == CSV_BAD ? "!;" : ";");
		ASSERT_LT(used, sizeof(out));
	}
	ASSERT_EQ(r, CSV_END);
	return out;
}

TEST_F(csv, records)
{
	static const struct {
		const char *text, *records;
	} rows[] = {
		{ "", "" },
		{ "\n\r\n\n", "" },
		{ "a", "1:a;" },
		{ "a,b\n", "1:a|b;" },
		{ "a,b\r\nc,d\r\n", "1:a|b;2:c|d;" },
		{ "a,b\nc,d\r\ne", "1:a|b;2:c|d;3:e;" },
		{ "\xef\xbb\xbf"
		  "a,b\n",
		  "1:a|b;" },
		{ ",\n", "1:|;" },
		{ "a,,b,", "1:a||b|;" },
		{ " a , b\n", "1: a | b;" },
		{ "\"a\",\"b,c\"\n", "1:a|b,c;" },
		{ "\"a\"\"b\",\"\",\"\"\"\"\n", "1:a\"b||\";" },
		{ "\"a\nb\r\nc\",d\ne\n", "1:a\nb\r\nc|d;4:e;" },
		{ "a\n\n\nb\n", "1:a;4:b;" },
		{ "\xe6\xb8\xa9\xe5\xba\xa6,\"\xf0\x9f\x94\x91\"", "1:\xe6\xb8\xa9\xe5\xba\xa6|"
								   "\xf0\x9f\x94\x91;" },
		/* errors, and what follows them */
		{ "a\"b,c\nd\n", "1:!;2:d;" },
		{ "\"a\"b,c\nd\n", "1:!;2:d;" },
		{ "\"a\" ,c\nd\n", "1:!;2:d;" },
		{ "a\n\"b,c\nd\n", "1:a;2:!;" },
		{ "a\"", "1:!;" },
		{ "\"", "1:!;" },
		{ "a\rb\nc\n", "1:!;2:c;" },
		{ "\ra\nb\n", "1:!;2:b;" },
		{ "a\r", "1:a;" },
		{ "\xff,a\nb\n", "1:!;2:b;" },
		{ "\xc0\xaf\nb\n", "1:!;2:b;" },
		{ "\xed\xa0\x80\nb\n", "1:!;2:b;" },
		{ "\xf8\x88\x80\x80\n", "1:!;" },
		{ "\xe6\xb8\n", "1:!;" },
		{ "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16\n",
		  "1:1|2|3|4|5|6|7|8|9|10|11|12|13|14|15|16;" },
		{ "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17\nb\n", "1:!;2:b;" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		open_text(self, rows[i].text, strlen(rows[i].text));
		ASSERT_STREQ(read_all(&self->csv), rows[i].records);
		ASSERT_EQ(csv_rewind(&self->csv), 0);
		ASSERT_STREQ(read_all(&self->csv), rows[i].records);
	}
	open_text(self, "a\0b\nc\n", 6);
	ASSERT_STREQ(read_all(&self->csv), "1:!;2:c;");
}

TEST_F(csv, bounded)
{
	size_t room = 3 * CSV_RECORD_BYTES_MAX;
	char *text = malloc(room);

	ASSERT_TRUE(text != NULL);
	/* One byte more than fits, as one field, as two, and in quotes. */
	for (unsigned how = 0; how < 4; how++) {
		size_t n = CSV_RECORD_BYTES_MAX - (how == 0 ? 1 : 0);

		memset(text, 'x', room);
		if (how == 2)
			text[n / 2] = ',';
		if (how == 3)
			text[0] = '"';
		memcpy(text + n, "\nb\n", 3);
		open_text(self, text, n + 3);
		if (how == 0) {
			ASSERT_EQ(csv_next(&self->csv), CSV_RECORD);
			ASSERT_EQ(self->csv.fields[0].n, n);
		} else {
			ASSERT_EQ(csv_next(&self->csv), CSV_BAD);
		}
		if (how < 3) {
			ASSERT_EQ(csv_next(&self->csv), CSV_RECORD);
			ASSERT_EQ(self->csv.line, 2);
		}
		ASSERT_EQ(csv_next(&self->csv), CSV_END);
	}
	memset(text, ',', room);
	open_text(self, text, room);
	ASSERT_EQ(csv_next(&self->csv), CSV_BAD);
	ASSERT_EQ(csv_next(&self->csv), CSV_END);
	free(text);
}

/* Whatever the bytes: it ends, lines only grow, fields lie within and are terminated. */
TEST_F(csv, any_bytes)
{
	static const char some[] = "\"\",,\r\n\nab\xc3\xa9\xff";
	char text[200];

	for (unsigned round = harness_rounds(400); round; round--) {
		size_t n = harness_random() % sizeof(text);
		unsigned line = 0, records = 0;
		enum csv_result r;

		for (size_t i = 0; i < n; i++)
			text[i] = some[harness_random() % (sizeof(some) - 1)];
		open_text(self, text, n);
		while ((r = csv_next(&self->csv)) != CSV_END) {
			ASSERT_NE(r, CSV_FAILED);
			ASSERT_GT(self->csv.line, line);
			line = self->csv.line;
			ASSERT_LE(++records, n);
			for (unsigned i = 0; r == CSV_RECORD && i < self->csv.n_fields; i++)
				ASSERT_EQ(self->csv.fields[i].n,
					  strlen((const char *)self->csv.fields[i].p));
		}
	}
}

TEST_F(csv, files)
{
	EXPECT_EQ(csv_open(&self->csv, "/nowhere/at/all"), -ENOENT);
	EXPECT_EQ(csv_open(&self->csv, "/tmp"), -EISDIR);
	EXPECT_EQ(csv_open(&self->csv, "/dev/zero"), -EINVAL);
}

HARNESS_MAIN
