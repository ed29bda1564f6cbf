// SPDX-License-Identifier: MIT
#include "bench/lab/group.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Short, so that a server that used its share does not stand still for long. */
#define PERIOD_US     10000u
#define PATH_BYTES    512
#define CONTENT_BYTES 1024
#define REMOVE_TRIES  50
#define REMOVE_US     20000

static int write_text(const char *folder, const char *name, const char *text)
{
	char path[PATH_BYTES];
	int fd, ret = 0;

	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		ret = -errno;
	(void)close(fd); /* a control file keeps nothing back */
	return ret;
}

/* A space-separated list of controllers has this one. */
static bool has_cpu(const char *root)
{
	char path[PATH_BYTES], list[CONTENT_BYTES];
	FILE *f;
	bool has = false;

	if (snprintf(path, sizeof(path), "%s/cgroup.controllers", root) >= (int)sizeof(path))
		return false;
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!has && fscanf(f, "%1023s", list) == 1)
		has = !strcmp(list, "cpu");
	(void)fclose(f);
	return has;
}

static int make_in(const char *root, char *path, size_t room)
{
	if (snprintf(path, room, "%s/ssdtf-bench.%d", root, (int)getpid()) >= (int)room)
		return -ENAMETOOLONG;
	return mkdir(path, 0755) ? -errno : 0;
}

static int make_v2(const char *root, unsigned percent, char *path, size_t room)
{
	char text[64];
	int ret = write_text(root, "cgroup.subtree_control", "+cpu");

	if (!ret)
		ret = make_in(root, path, room);
	if (ret)
		return ret;
	snprintf(text, sizeof(text), "%u %u", percent * PERIOD_US / 100, PERIOD_US);
	ret = write_text(path, "cpu.max", text);
	if (ret)
		group_remove(path);
	return ret;
}

static int make_v1(const char *root, unsigned percent, char *path, size_t room)
{
	char text[64];
	int ret = make_in(root, path, room);

	if (ret)
		return ret;
	snprintf(text, sizeof(text), "%u", PERIOD_US);
	ret = write_text(path, "cpu.cfs_period_us", text);
	snprintf(text, sizeof(text), "%u", percent * PERIOD_US / 100);
	if (!ret)
		ret = write_text(path, "cpu.cfs_quota_us", text);
	if (ret)
		group_remove(path);
	return ret;
}

int group_make(unsigned percent, char *path, size_t room, const char **ret_kind)
{
	static const char *const v2[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	static const char *const v1[] = { "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct" };

	for (size_t i = 0; i < ARRAY_SIZE(v2); i++) {
		if (!has_cpu(v2[i]) || make_v2(v2[i], percent, path, room))
			continue;
		*ret_kind = "cgroup v2";
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(v1); i++) {
		if (make_v1(v1[i], percent, path, room))
			continue;
		*ret_kind = "cgroup v1";
		return 0;
	}
	path[0] = '\0';
	return -ENOTSUP;
}

int group_enter(const char *path)
{
	return write_text(path, "cgroup.procs", "0");
}

void group_remove(const char *path)
{
	/* The kernel lets go of ended processes a moment later. */
	for (int i = 0; i < REMOVE_TRIES; i++) {
		if (!rmdir(path) || errno != EBUSY)
			return;
		(void)usleep(REMOVE_US); /* cut short, it is tried sooner */
	}
}
