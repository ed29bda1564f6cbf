/* SPDX-License-Identifier: MIT */
/*
 * Whole files: read with a limit, and written so that a reader sees all of the old or all of the
 * new. For mains, core and the manager; engines and libssdtf do no I/O. dir is a folder's
 * descriptor for relative paths, or AT_FDCWD.
 */
#ifndef SSDTF_BASE_FILE_H
#define SSDTF_BASE_FILE_H

#include <fcntl.h>
#include <stdint.h>
#include <sys/types.h>

#include "userspace/base/bytes.h"

#define FILE_PATH_BYTES_MAX 4096

/*
 * *ret_bytes is the caller's to free (and to wipe, where it is secret). -EFBIG above max bytes,
 * -EISDIR and -EINVAL for what is no regular file, -EAGAIN for one that grew meanwhile; -errno.
 * *ret_mode may be NULL.
 */
int file_read(int dir, const char *path, size_t max, uint8_t **ret_bytes, size_t *ret_n,
	      mode_t *ret_mode) must_check;
/* The same into the caller's memory. */
int file_read_into(int dir, const char *path, uint8_t *out, size_t room, size_t *ret_n) must_check;

/*
 * Written beside the target under PATH.tmp, synced, renamed, the folder synced. A PATH.tmp that a
 * killed program left is replaced. -EINVAL where something stands at path that is no regular file.
 */
int file_write(int dir, const char *path, struct bytes v, mode_t mode) must_check;

/* out = folder "/" name, or -ENAMETOOLONG. */
int file_join(const char *folder, const char *name, char out[FILE_PATH_BYTES_MAX]) must_check;

#endif
