/* SPDX-License-Identifier: MIT */
/*
 * Text that somebody else wrote, as ssdtf-admin prints it: nothing in it can move a terminal's
 * cursor, change the order of what is read, or end a field early. And times, in and out.
 */
#ifndef SSDTF_MANAGER_SAY_H
#define SSDTF_MANAGER_SAY_H

#include <stdbool.h>
#include <stdio.h>

#include "userspace/base/bytes.h"
#include "userspace/base/compiler.h"

bool say_is_utf8(struct bytes v);
/* In double quotes. Letters of every script stay; quotes, backslashes, control and format
 * characters and what is no UTF-8 become \" \\ \u{202e} \xff. */
void say_quoted(FILE *f, struct bytes v);
/* As a JSON string (RFC 8259), quotes included; what is no UTF-8 becomes U+FFFD. */
void say_json(FILE *f, struct bytes v);

#define SAY_TIME_ROOM 32
/* 2026-01-31T23:59:59Z, or "none" for 0. Returns out. */
const char *say_time(int64_t ms, char out[SAY_TIME_ROOM]);
/* 2026-01-31T23:59:59Z or 2026-01-31, in UTC, from 1970 to 9999. -EINVAL. */
int say_parse_time(const char *text, uint64_t *ret_ms) must_check;

#endif
