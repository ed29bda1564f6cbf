/* SPDX-License-Identifier: MIT */
/*
 * CSV files (RFC 4180), record by record in bounded memory: fields in quotes or without, lines that
 * end in CRLF or LF, UTF-8, with a byte order mark or without. Empty lines are passed over. What is
 * outside the RFC is an error of its record alone, and the next record can be read all the same.
 */
#ifndef SSDTF_MANAGER_CSV_H
#define SSDTF_MANAGER_CSV_H

#include <stdbool.h>
#include <stdio.h>

#include "userspace/base/bytes.h"
#include "userspace/base/compiler.h"

#define CSV_FIELDS_MAX	     16
#define CSV_RECORD_BYTES_MAX 16384 /* of its fields together */

struct csv {
	FILE *f;
	unsigned line; /* on which the record begins, from 1 */
	unsigned n_fields;
	struct bytes fields[CSV_FIELDS_MAX]; /* each with a NUL behind it; until the next record */
	const char *error;		     /* what is wrong with this record, and what to do */
	/* private */
	unsigned next_line;
	size_t used;
	char text[CSV_RECORD_BYTES_MAX];
};

/* A regular file: it can be read twice. -errno. */
int csv_open(struct csv *c, const char *path) must_check;
void csv_close(struct csv *c);
/* Back to the first record. */
int csv_rewind(struct csv *c) must_check;

enum csv_result {
	CSV_END,
	CSV_RECORD,
	CSV_BAD,    /* error has the words; go on */
	CSV_FAILED, /* the file cannot be read: errno */
};
enum csv_result csv_next(struct csv *c) must_check;

#endif
