// SPDX-License-Identifier: MIT
#include "userspace/manager/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void fd_close(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd); /* what mattered was synced */
}

int file_join(const char *folder, const char *name, char out[FILE_PATH_BYTES_MAX])
{
	int n = snprintf(out, FILE_PATH_BYTES_MAX, "%s/%s", folder, name);

	return n < 0 || n >= FILE_PATH_BYTES_MAX ? -ENAMETOOLONG : 0;
}

int file_read(const char *path, uint8_t *out, size_t room, size_t *ret_n)
{
	/* O_NONBLOCK: a FIFO handed over by mistake is looked at, not waited for. */
	int fd cleanup(fd_close) = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	size_t used = 0;

	if (fd < 0 || fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	for (;;) {
		uint8_t more;
		bool full = used == room;
		ssize_t n = read(fd, full ? &more : out + used, full ? 1 : room - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		if (full)
			return -EFBIG;
		used += (size_t)n;
	}
	*ret_n = used;
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

static int sync_folder_of(const char *path)
{
	char folder[FILE_PATH_BYTES_MAX];
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 0;
	int fd cleanup(fd_close) = -1;

	memcpy(folder, path, n); /* shorter than path, which fitted with ".tmp" behind it */
	folder[n] = '\0';
	fd = open(!slash ? "." : n ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* Some file systems have nothing to sync for a folder and say EINVAL. */
	return fsync(fd) && errno != EINVAL ? -errno : 0;
}

static int write_temporary(const char *tmp, struct bytes v, mode_t mode)
{
	int fd cleanup(fd_close) = -1;

	if (unlink(tmp) && errno != ENOENT)
		return -errno;
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	if (fchmod(fd, mode)) /* the umask may have taken some of it */
		return -errno;
	return write_all(fd, v);
}

int file_write(const char *path, struct bytes v, mode_t mode)
{
	char tmp[FILE_PATH_BYTES_MAX];
	int n = snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	struct stat st;
	int err;

	if (n < 0 || (size_t)n >= sizeof(tmp))
		return -ENAMETOOLONG;
	/* A rename would replace a device or a link such as /dev/stdout itself. */
	if (!lstat(path, &st) && !S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	err = write_temporary(tmp, v, mode);
	if (!err && rename(tmp, path))
		err = -errno;
	if (err) {
		(void)unlink(tmp); /* the error is said already */
		return err;
	}
	return sync_folder_of(path);
}
