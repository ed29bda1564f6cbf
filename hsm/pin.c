// SPDX-License-Identifier: MIT
#include "hsm/pin.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/base/secret.h"

#define ROOM (PIN_BYTES_MAX + 1) /* the PIN and the end of its line */

static int read_line(int fd, struct pin *p, const char **ret_why)
{
	const unsigned char *end;
	size_t used = 0;

	while (used < ROOM) {
		ssize_t n = read(fd, p->text + used, ROOM - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			*ret_why = "cannot be read";
			return -errno;
		}
		if (!n)
			break;
		used += (size_t)n;
	}
	end = memchr(p->text, '\n', used);
	p->n = end ? (size_t)(end - p->text) : used;
	if (!p->n || p->n > PIN_BYTES_MAX) {
		*ret_why = p->n ? "its first line is too long" : "its first line is empty";
		return -EINVAL;
	}
	return 0;
}

static int check_file(int fd, bool credential, struct pin *p, const char **ret_why)
{
	mode_t refused = credential ? S_IRWXO : S_IRWXG | S_IRWXO;
	struct stat st;

	if (fstat(fd, &st)) {
		*ret_why = "cannot be read";
		return -errno;
	}
	if (!S_ISREG(st.st_mode)) {
		*ret_why = "is not a regular file";
		return -EPERM;
	}
	if (st.st_mode & refused) {
		*ret_why = credential ? "others may read it" : "its mode lets others in: chmod 600";
		return -EPERM;
	}
	snprintf(p->stamp, sizeof(p->stamp), "%ju:%ju %ju.%09ld %ju.%09ld", (uintmax_t)st.st_dev,
		 (uintmax_t)st.st_ino, (uintmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
		 (uintmax_t)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
	return 0;
}

static int open_checked(const char *path, bool credential, struct pin *p, const char **ret_why,
			int *ret_fd)
{
	/* Not to hang on a FIFO that somebody put there. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int rc;

	if (fd < 0) {
		rc = errno == EACCES ? -EPERM : -errno;
		*ret_why = strerror(errno);
		return rc;
	}
	rc = check_file(fd, credential, p, ret_why);
	if (rc)
		(void)close(fd); /* read only: nothing is lost */
	else
		*ret_fd = fd;
	return rc;
}

int pin_check(const char *path, bool credential, const char **ret_why)
{
	struct pin p = { 0 };
	int fd, rc = open_checked(path, credential, &p, ret_why, &fd);

	if (!rc)
		(void)close(fd); /* read only: nothing is lost */
	return rc;
}

int pin_read(const char *path, bool credential, struct pin *ret_pin, const char **ret_why)
{
	struct pin p = { 0 };
	int fd, rc = open_checked(path, credential, &p, ret_why, &fd);

	if (rc)
		return rc;
	p.text = secret_alloc(ROOM);
	if (p.text) {
		rc = read_line(fd, &p, ret_why);
	} else {
		*ret_why = "no memory can be locked for it (RLIMIT_MEMLOCK)";
		rc = -ENOMEM;
	}
	(void)close(fd); /* read only: nothing is lost */
	if (rc)
		pin_deinit(&p);
	else
		*ret_pin = p;
	return rc;
}

void pin_deinit(struct pin *p)
{
	secret_free(p->text, ROOM);
	*p = (struct pin){ 0 };
}
