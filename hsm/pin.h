/* SPDX-License-Identifier: MIT */
/*
 * A token's PIN from a file, kept in memory that is locked, not dumped, and wiped by pin_deinit().
 */
#ifndef SSDTF_HSM_PIN_H
#define SSDTF_HSM_PIN_H

#include <stdbool.h>
#include <stddef.h>

#include "userspace/base/compiler.h"

#define PIN_BYTES_MAX	255
#define PIN_STAMP_BYTES 128

struct pin {
	unsigned char *text; /* n bytes, not terminated */
	size_t n;
	/* Which file, in which state: equal stamps are the same PIN. Says nothing of the PIN. */
	char stamp[PIN_STAMP_BYTES];
};

/*
 * The first line of a regular file that only its owner can reach. credential: the file is a systemd
 * credential, whose ACL for the service's user shows in the mode as group bits: only others' bits
 * are refused then. *ret_why says in a few words what was wrong.
 *
 * -EPERM for a file of another kind or mode or one that we may not open, -EINVAL for an empty or
 * overlong line, -ENOMEM where memory cannot be locked, or open()'s and read()'s own.
 */
int pin_read(const char *path, bool credential, struct pin *ret_pin,
	     const char **ret_why) must_check;
/* The same complaints about the file, without reading it. */
int pin_check(const char *path, bool credential, const char **ret_why) must_check;
void pin_deinit(struct pin *p);

#endif
