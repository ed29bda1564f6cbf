/* SPDX-License-Identifier: MIT */
/*
 * Small files read whole, at start and on SIGHUP.
 */
#ifndef SSDTF_CORE_FILE_H
#define SSDTF_CORE_FILE_H

#include <stdint.h>
#include <sys/types.h>

#include "userspace/base/compiler.h"

/*
 * *ret_bytes is the caller's to free (and to wipe, where it is secret). -EFBIG above max bytes;
 * -EINVAL for what is no regular file; -errno. *ret_mode may be NULL.
 */
int file_read(const char *path, size_t max, uint8_t **ret_bytes, size_t *ret_n,
	      mode_t *ret_mode) must_check;

#endif
