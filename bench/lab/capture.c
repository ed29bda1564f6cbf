// SPDX-License-Identifier: MIT
#include "bench/lab/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_BYTES_MAX (16u << 20)

/* The three streams are files in memory, so none of them can block the program or us. */
struct streams {
	int fd[3];
};

static void streams_close(struct streams *s)
{
	for (unsigned i = 0; i < ARRAY_SIZE(s->fd); i++) {
		if (s->fd[i] >= 0)
			(void)close(s->fd[i]);
	}
}

static int write_all(int fd, struct bytes v)
{
	for (size_t done = 0; done < v.n;) {
		ssize_t n = write(fd, v.p + done, v.n - done);

		if (n < 0 && errno != EINTR)
			return -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	return lseek(fd, 0, SEEK_SET) < 0 ? -errno : 0;
}

static int streams_open(struct streams *s, struct bytes input)
{
	for (unsigned i = 0; i < ARRAY_SIZE(s->fd); i++) {
		s->fd[i] = memfd_create("capture", MFD_CLOEXEC);
		if (s->fd[i] < 0)
			return -errno;
	}
	return write_all(s->fd[STDIN_FILENO], input);
}

/* All of it, terminated. */
static int read_all(int fd, char **ret_text, size_t *ret_n)
{
	struct stat st;
	size_t done = 0, n;
	char *text;

	if (fstat(fd, &st))
		return -errno;
	if (st.st_size > OUTPUT_BYTES_MAX)
		return -EFBIG;
	n = (size_t)st.st_size;
	text = malloc(n + 1);
	if (!text)
		return -ENOMEM;
	while (done < n) {
		ssize_t got = pread(fd, text + done, n - done, (off_t)done);

		if (got <= 0 && errno != EINTR) {
			free(text);
			return -EIO;
		}
		done += got > 0 ? (size_t)got : 0;
	}
	text[n] = '\0';
	*ret_text = text;
	*ret_n = n;
	return 0;
}

static int spawn(const char *const *args, const struct streams *s, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	int ret = posix_spawn_file_actions_init(&actions);

	if (ret)
		return -ret;
	for (int i = 0; !ret && i < (int)ARRAY_SIZE(s->fd); i++)
		ret = posix_spawn_file_actions_adddup2(&actions, s->fd[i], i);
	if (!ret) /* execvp() changes none of args */
		ret = posix_spawnp(ret_pid, args[0], &actions, NULL, (char *const *)(uintptr_t)args,
				   environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	return -ret;
}

static int wait_status(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int capture_run(const char *const *args, struct bytes input, struct capture *ret_c)
{
	struct streams s = { { -1, -1, -1 } };
	struct capture c = { 0 };
	char *error = NULL;
	size_t n;
	pid_t pid;
	int ret = streams_open(&s, input);

	if (!ret)
		ret = spawn(args, &s, &pid);
	if (ret)
		goto out;
	c.status = wait_status(pid);
	ret = read_all(s.fd[STDERR_FILENO], &error, &n);
	if (ret)
		goto out;
	error[strcspn(error, "\n")] = '\0';
	snprintf(c.error, sizeof(c.error), "%s", error);
	ret = read_all(s.fd[STDOUT_FILENO], &c.text, &c.n);
	if (!ret)
		*ret_c = c;
out:
	free(error);
	streams_close(&s);
	return ret;
}
