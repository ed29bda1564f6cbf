/* SPDX-License-Identifier: MIT */
/*
 * Text in lines of words, as programs on one machine say it to each other. Views of somebody else's
 * bytes; nothing is copied, and no terminator is needed or believed.
 */
#ifndef SSDTF_BASE_WORDS_H
#define SSDTF_BASE_WORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"

/* The next line, without the newline that ends it; *text moves behind it. Empty at the end. */
struct bytes words_line(struct bytes *text);
/* The next word: what stands before one blank or the end; *line moves behind it. Empty at the end,
 * and where two blanks stand together. */
struct bytes words_next(struct bytes *line);

bool words_is(struct bytes word, const char *s);
/* Decimal digits and nothing else, at most max. -EINVAL; -ERANGE. */
int words_number(struct bytes word, uint64_t max, uint64_t *ret_n) must_check;
/* out = the word with a terminator, bytes that are no printable ASCII as '?', cut to room - 1.
 * Returns out. */
char *words_copy(struct bytes word, char *out, size_t room);

#endif
