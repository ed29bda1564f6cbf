/* SPDX-License-Identifier: MIT */
/*
 * Whole files: read with a limit, and written so that a reader sees all of the old or all of the
 * new.
 */
#ifndef SSDTF_MANAGER_FILE_H
#define SSDTF_MANAGER_FILE_H

#include <sys/types.h>

#include "userspace/base/bytes.h"

#define FILE_PATH_BYTES_MAX 4096

/* -EFBIG where there is more than room; -EISDIR and -EINVAL for what is no regular file. */
int file_read(const char *path, uint8_t *out, size_t room, size_t *ret_n) must_check;

/*
 * Written beside the target under PATH.tmp, synced, renamed, the folder synced. A PATH.tmp that a
 * killed program left is replaced. -EINVAL where something stands at path that is no regular file.
 */
int file_write(const char *path, struct bytes v, mode_t mode) must_check;

/* out = folder "/" name, or -ENAMETOOLONG. */
int file_join(const char *folder, const char *name, char out[FILE_PATH_BYTES_MAX]) must_check;

#endif
