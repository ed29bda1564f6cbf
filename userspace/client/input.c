// SPDX-License-Identifier: MIT
#include "userspace/client/input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES 65536

void input_init_fd(struct input *in, int fd, bool lines, uint32_t times, uint32_t delay_ms)
{
	memset(in, 0, sizeof(*in));
	in->fd = fd;
	in->lines = lines;
	in->times = times;
	in->delay_ms = delay_ms;
}

void input_init_message(struct input *in, struct bytes message, uint32_t times, uint32_t delay_ms)
{
	input_init_fd(in, -1, false, times, delay_ms);
	in->eof = true;
	in->used = in->room = message.n;
	in->buffer = malloc(message.n + 1);
	BUG_ON(!in->buffer); /* start-up, and argv is no larger than that */
	if (message.n)
		memcpy(in->buffer, message.p, message.n);
}

void input_deinit(struct input *in)
{
	if (in->fd > STDIN_FILENO)
		(void)close(in->fd); /* only read from */
	free(in->buffer);
}

int input_fd(const struct input *in)
{
	return in->eof ? -1 : in->fd;
}

/* Room for another read; what was given out makes place first. */
static int make_room(struct input *in)
{
	uint8_t *larger;

	if (in->taken) {
		memmove(in->buffer, in->buffer + in->taken, in->used - in->taken);
		in->used -= in->taken;
		in->scanned -= in->taken;
		in->taken = 0;
	}
	if (in->used > INPUT_BYTES_MAX)
		return -EMSGSIZE;
	if (in->room - in->used >= READ_BYTES)
		return 0;
	in->room = in->room ? in->room * 2 : 2 * READ_BYTES;
	larger = realloc(in->buffer, in->room);
	if (!larger)
		return -ENOMEM;
	in->buffer = larger;
	return 0;
}

int input_fill(struct input *in)
{
	ssize_t n;
	int ret;

	if (in->eof)
		return 0;
	ret = make_room(in);
	if (ret)
		return ret;
	n = read(in->fd, in->buffer + in->used, in->room - in->used);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	in->eof = n == 0;
	in->used += (size_t)n;
	return 0;
}

static int next_line(struct input *in, struct bytes *ret_message)
{
	uint8_t *at = in->buffer + in->scanned;
	uint8_t *end = in->used > in->scanned ? memchr(at, '\n', in->used - in->scanned) : NULL;
	size_t n;

	if (end) {
		n = (size_t)(end - in->buffer) - in->taken;
		*ret_message = bytes_of(in->buffer + in->taken, n);
		in->taken += n + 1;
		in->scanned = in->taken;
		return 0;
	}
	in->scanned = in->used;
	if (!in->eof)
		return -EAGAIN;
	if (in->taken == in->used)
		return -ENODATA;
	/* The last line, without a newline. */
	*ret_message = bytes_of(in->buffer + in->taken, in->used - in->taken);
	in->taken = in->used;
	return 0;
}

int input_next(struct input *in, uint64_t now_ms, struct bytes *ret_message)
{
	if (in->lines)
		return next_line(in, ret_message);
	if (!in->times)
		return -ENODATA;
	if (!in->eof || now_ms < in->next_ms)
		return -EAGAIN;
	in->times--;
	in->next_ms = now_ms + in->delay_ms;
	*ret_message = bytes_of(in->buffer, in->used);
	return 0;
}

uint64_t input_next_ms(const struct input *in)
{
	return !in->lines && in->times && in->eof ? in->next_ms : UINT64_MAX;
}
