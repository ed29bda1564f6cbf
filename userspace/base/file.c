// SPDX-License-Identifier: MIT
#include "userspace/base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/base/secret.h"

static void fd_close(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd); /* only read from, or synced already */
}
#define FD cleanup(fd_close)

/* A regular file, and what stat says of it. */
static int open_regular(int dir, const char *path, struct stat *ret_st)
{
	/* O_NONBLOCK: a FIFO handed over by mistake is looked at, not waited for. */
	int fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (fstat(fd, ret_st))
		err = -errno;
	else if (!S_ISREG(ret_st->st_mode))
		err = S_ISDIR(ret_st->st_mode) ? -EISDIR : -EINVAL;
	if (!err)
		return fd;
	(void)close(fd); /* nothing was read */
	return err;
}

/* Up to room bytes, until the end; -errno, or how many. */
static ssize_t read_all(int fd, uint8_t *p, size_t room)
{
	size_t used = 0;

	while (used < room) {
		ssize_t n = read(fd, p + used, room - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		used += (size_t)n;
	}
	return (ssize_t)used;
}

int file_read_into(int dir, const char *path, uint8_t *out, size_t room, size_t *ret_n)
{
	struct stat st;
	int fd FD = open_regular(dir, path, &st);
	uint8_t more;
	ssize_t n;

	if (fd < 0)
		return fd;
	n = read_all(fd, out, room);
	if (n < 0)
		return (int)n;
	if ((size_t)n == room && read_all(fd, &more, 1))
		return -EFBIG;
	*ret_n = (size_t)n;
	return 0;
}

int file_read(int dir, const char *path, size_t max, uint8_t **ret_bytes, size_t *ret_n,
	      mode_t *ret_mode)
{
	struct stat st;
	int fd FD = open_regular(dir, path, &st);
	size_t room;
	uint8_t *p;
	ssize_t n;

	if (fd < 0)
		return fd;
	if ((uintmax_t)st.st_size > max)
		return -EFBIG;
	room = (size_t)st.st_size + 1; /* one more, to see that it grows */
	p = malloc(room);
	if (!p)
		return -ENOMEM;
	n = read_all(fd, p, room);
	if (n < 0 || (size_t)n == room) {
		secret_wipe(p, room);
		free(p);
		return n < 0 ? (int)n : -EAGAIN;
	}
	*ret_bytes = p;
	*ret_n = (size_t)n;
	if (ret_mode)
		*ret_mode = st.st_mode;
	return 0;
}

static int write_all(int fd, struct bytes v)
{
	while (v.n) {
		ssize_t n = write(fd, v.p, v.n);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		v = bytes_of(v.p + n, v.n - (size_t)n);
	}
	return fsync(fd) ? -errno : 0;
}

static int sync_folder_of(int dir, const char *path)
{
	char folder[FILE_PATH_BYTES_MAX];
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 0;
	int fd FD = -1;

	memcpy(folder, path, n); /* shorter than path, which fitted with ".tmp" behind it */
	folder[n] = '\0';
	fd = openat(dir, !slash ? "." : n ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* Some file systems have nothing to sync for a folder and say EINVAL. */
	return fsync(fd) && errno != EINVAL ? -errno : 0;
}

static int write_temporary(int dir, const char *tmp, struct bytes v, mode_t mode)
{
	int fd FD = -1;

	if (unlinkat(dir, tmp, 0) && errno != ENOENT)
		return -errno;
	fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	if (fchmod(fd, mode)) /* the umask may have taken some of it */
		return -errno;
	return write_all(fd, v);
}

int file_write(int dir, const char *path, struct bytes v, mode_t mode)
{
	char tmp[FILE_PATH_BYTES_MAX];
	int n = snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	struct stat st;
	int err;

	if (n < 0 || (size_t)n >= sizeof(tmp))
		return -ENAMETOOLONG;
	/* A rename would replace a device or a link such as /dev/stdout itself. */
	if (!fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW) && !S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	err = write_temporary(dir, tmp, v, mode);
	if (!err && renameat(dir, tmp, dir, path))
		err = -errno;
	if (err) {
		(void)unlinkat(dir, tmp, 0); /* the error is said already */
		return err;
	}
	return sync_folder_of(dir, path);
}

int file_join(const char *folder, const char *name, char out[FILE_PATH_BYTES_MAX])
{
	int n = snprintf(out, FILE_PATH_BYTES_MAX, "%s/%s", folder, name);

	return n < 0 || n >= FILE_PATH_BYTES_MAX ? -ENAMETOOLONG : 0;
}
