// SPDX-License-Identifier: MIT
#include "userspace/client/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_BYTES_MAX 64

static void close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd); /* only read from, or synced already */
}
#define FD cleanup(close_fd)

static int read_all(int fd, uint8_t *p, size_t n, size_t *ret_n)
{
	size_t used = 0;

	while (used < n) {
		ssize_t got = read(fd, p + used, n - used);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		used += (size_t)got;
	}
	*ret_n = used;
	return 0;
}

int state_load(int dir, const char *name, size_t bytes_max, uint8_t **ret_p, size_t *ret_n)
{
	int fd FD = openat(dir, name, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *p;
	size_t n = 0;
	int ret;

	if (fd < 0 || fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if (st.st_size > (off_t)bytes_max)
		return -EFBIG;
	p = malloc((size_t)st.st_size + 1);
	if (!p)
		return -ENOMEM;
	ret = read_all(fd, p, (size_t)st.st_size, &n);
	if (ret) {
		free(p);
		return ret;
	}
	*ret_p = p;
	*ret_n = n;
	return 0;
}

static int write_all(int fd, struct bytes v)
{
	while (v.n) {
		ssize_t done = write(fd, v.p, v.n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		v.p += done;
		v.n -= (size_t)done;
	}
	return fsync(fd) ? -errno : 0;
}

int state_store(int dir, const char *name, struct bytes v)
{
	char beside[NAME_BYTES_MAX + 6];
	int ret;

	if (snprintf(beside, sizeof(beside), ".%s.new", name) >= (int)sizeof(beside))
		return -ENAMETOOLONG;
	{
		int fd FD = openat(dir, beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

		if (fd < 0)
			return -errno;
		ret = write_all(fd, v);
	}
	if (!ret && renameat(dir, beside, dir, name))
		ret = -errno;
	if (ret) {
		(void)unlinkat(dir, beside, 0); /* the first error is the one to tell */
		return ret;
	}
	/* The name, too, must be on the disk. */
	return fsync(dir) ? -errno : 0;
}
