// SPDX-License-Identifier: MIT
#include "userspace/admit/pins.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "bpf/admission.h"

#define DIR_MODE 0750

/* A bpffs takes no dots in names. */
#define SUFFIX_NEW "-new"
#define SUFFIX_OLD "-old"

static const struct {
	mode_t mode;
	bool owned;
} rights[LOAD_PARTS] = {
#define RIGHTS(name, mode, owned) { mode, owned },
	ADMISSION_PIN_LIST(RIGHTS)
#undef RIGHTS
};

static int failed(char why[PINS_WHY_BYTES], int err, const char *fmt, ...) format_printf(3, 4);
static int failed(char why[PINS_WHY_BYTES], int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, PINS_WHY_BYTES, fmt, ap);
	va_end(ap);
	return err;
}

/* The folder above dir, locked for as long as it is open: -errno. */
static int lock_above(const char *dir, char why[PINS_WHY_BYTES])
{
	const char *slash = strrchr(dir, '/');
	char above[PATH_MAX];
	struct statfs fs;
	int fd, err;

	if (!slash || dir[0] != '/' || !slash[1] || strlen(dir) > PATH_MAX - sizeof(SUFFIX_NEW))
		return failed(why, -EINVAL, "%s: is not an absolute path of a folder to be made",
			      dir);
	snprintf(above, sizeof(above), "%.*s", slash > dir ? (int)(slash - dir) : 1, dir);
	fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstatfs(fd, &fs)) {
		err = -errno;
		failed(why, err, "%s: %s", above, strerror(-err));
	} else if (fs.f_type != BPF_FS_MAGIC) {
		err = failed(why, -ENODEV, "%s: is no bpffs; mount -t bpf bpf %s", above, above);
	} else if (flock(fd, LOCK_EX | LOCK_NB)) {
		err = failed(why, -EBUSY, "%s: another ssdtf-admit is at work there", above);
	} else {
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return err;
}

/* Takes the pins out of a folder, those of other versions too, and the folder away. A folder that
 * is not there is fine. */
static int clear(const char *dir, char why[PINS_WHY_BYTES])
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), err = 0;
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *e;

	if (!d) {
		err = -errno;
		if (fd >= 0)
			close(fd);
		return err == -ENOENT ? 0 : failed(why, err, "%s: %s", dir, strerror(-err));
	}
	while (!err && (e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (unlinkat(fd, e->d_name, 0))
			err = failed(why, -errno, "%s/%s: cannot be removed: %s", dir, e->d_name,
				     strerror(errno));
	}
	closedir(d); /* and fd */
	if (!err && rmdir(dir))
		err = failed(why, -errno, "%s: cannot be removed: %s", dir, strerror(errno));
	return err;
}

static int clear_rests(const char *dir, char why[PINS_WHY_BYTES])
{
	char rest[PATH_MAX];
	int err;

	snprintf(rest, sizeof(rest), "%s" SUFFIX_NEW, dir);
	err = clear(rest, why);
	snprintf(rest, sizeof(rest), "%s" SUFFIX_OLD, dir);
	return err ? err : clear(rest, why);
}

static int pin_part(const char *dir, const struct load *l, unsigned i,
		    const struct pins_owner *owner, char why[PINS_WHY_BYTES])
{
	char path[PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/%s", dir, load_name(i));
	if (bpf_obj_pin(load_fd(l, i), path))
		return failed(why, -errno, "%s: cannot be pinned: %s", path, strerror(errno));
	if (chmod(path, rights[i].mode) ||
	    chown(path, rights[i].owned ? owner->user : (uid_t)-1, owner->group))
		return failed(why, -errno, "%s: cannot be given away: %s", path, strerror(errno));
	return 0;
}

static int fill(const char *dir, const struct load *l, const struct pins_owner *owner,
		char why[PINS_WHY_BYTES])
{
	if (mkdir(dir, 0700))
		return failed(why, -errno, "%s: cannot be made: %s", dir, strerror(errno));
	for (unsigned i = 0; i < LOAD_PARTS; i++) {
		int err = pin_part(dir, l, i, owner, why);

		if (err)
			return err;
	}
	if (chmod(dir, DIR_MODE) || chown(dir, (uid_t)-1, owner->group))
		return failed(why, -errno, "%s: cannot be given away: %s", dir, strerror(errno));
	return 0;
}

static int make(const char *dir, const struct load *l, const struct pins_owner *owner,
		char why[PINS_WHY_BYTES])
{
	char fresh[PATH_MAX], ignored[PINS_WHY_BYTES];
	struct stat st;
	int err = clear_rests(dir, why);

	if (err)
		return err;
	if (!lstat(dir, &st))
		return failed(why, -EEXIST, "%s: is there already; unpin it first", dir);
	snprintf(fresh, sizeof(fresh), "%s" SUFFIX_NEW, dir);
	err = fill(fresh, l, owner, why);
	if (!err && rename(fresh, dir))
		err = failed(why, -errno, "%s: cannot be made: %s", dir, strerror(errno));
	if (err)
		(void)clear(fresh, ignored); /* what stays is cleared by the next one */
	return err;
}

int pins_make(const char *dir, const struct load *l, const struct pins_owner *owner,
	      char why[PINS_WHY_BYTES])
{
	int lock = lock_above(dir, why), err;

	if (lock < 0)
		return lock;
	err = make(dir, l, owner, why);
	close(lock);
	return err;
}

int pins_remove(const char *dir, char why[PINS_WHY_BYTES])
{
	int lock = lock_above(dir, why), err;
	char old[PATH_MAX];

	if (lock < 0)
		return lock;
	err = clear_rests(dir, why);
	snprintf(old, sizeof(old), "%s" SUFFIX_OLD, dir);
	if (!err && rename(dir, old))
		err = failed(why, -errno, "%s: %s", dir,
			     errno == ENOENT ? "nothing is pinned there" : strerror(errno));
	if (!err)
		err = clear(old, why);
	close(lock);
	return err;
}

bool pins_reachable(const char *dir, uid_t user)
{
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "%s", dir);
	for (char *slash = strrchr(path, '/'); slash && slash > path; slash = strrchr(path, '/')) {
		*slash = '\0';
		if (stat(path, &st) || (user && st.st_uid != user && !(st.st_mode & S_IXOTH)))
			return false;
	}
	return true;
}
