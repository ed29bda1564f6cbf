// SPDX-License-Identifier: MIT
#include "userspace/core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/base/secret.h"

/* Up to room bytes, until the end; -errno, or how many. */
static ssize_t read_all(int fd, uint8_t *p, size_t room)
{
	size_t n = 0;

	while (n < room) {
		ssize_t got = read(fd, p + n, room - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		n += (size_t)got;
	}
	return (ssize_t)n;
}

static int read_open(int fd, size_t max, uint8_t **ret_bytes, size_t *ret_n, mode_t *ret_mode)
{
	struct stat st;
	uint8_t *p;
	ssize_t n;
	size_t room;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
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

int file_read(const char *path, size_t max, uint8_t **ret_bytes, size_t *ret_n, mode_t *ret_mode)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us up */
	int err;

	if (fd < 0)
		return -errno;
	err = read_open(fd, max, ret_bytes, ret_n, ret_mode);
	close(fd);
	return err;
}
