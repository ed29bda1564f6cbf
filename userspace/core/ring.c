// SPDX-License-Identifier: MIT
#include "userspace/core/ring.h"

#include <errno.h>
#include <string.h>

#define STARVED_WAIT_MS 10

/* The opcodes that core uses; a kernel with the set-up flags has them, unless it restricts them. */
static const int ops_needed[] = { IORING_OP_POLL_ADD, IORING_OP_ACCEPT,	 IORING_OP_RECV,
				  IORING_OP_SEND,     IORING_OP_SENDMSG, IORING_OP_ASYNC_CANCEL,
				  IORING_OP_FSYNC };

static void complete_ignored(void *ctx, const struct ring_done *d)
{
}

static int check_ops(struct ring *r)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(&r->uring);
	int err = probe ? 0 : -ENOMEM;

	for (unsigned i = 0; probe && i < ARRAY_SIZE(ops_needed); i++)
		if (!io_uring_opcode_supported(probe, ops_needed[i]))
			err = -EINVAL;
	io_uring_free_probe(probe);
	return err;
}

int ring_init(struct ring *r, unsigned sq_entries, unsigned cq_entries)
{
	int err;

	memset(r, 0, sizeof(*r));
	for (;;) {
		struct io_uring_params p = {
			.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
				 IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
			.cq_entries = cq_entries,
		};

		err = io_uring_queue_init_params(sq_entries, &r->uring, &p);
		if (err != -ENOMEM || sq_entries / 2 < RING_SQ_ENTRIES_MIN)
			break;
		sq_entries /= 2;
		cq_entries /= 2;
	}
	if (err)
		return err;
	err = check_ops(r);
	if (err) {
		io_uring_queue_exit(&r->uring);
		return err;
	}
	/* Saves a lookup per system call; where it is refused, everything works without. */
	(void)io_uring_register_ring_fd(&r->uring);
	ring_on(r, RING_IGNORED, complete_ignored, NULL);
	return 0;
}

void ring_deinit(struct ring *r)
{
	io_uring_queue_exit(&r->uring);
}

const char *ring_explain(int error)
{
	switch (-error) {
	case ENOSYS:
		return "this kernel has no io_uring: Linux 6.1 or later with CONFIG_IO_URING is "
		       "needed";
	case EPERM:
	case EACCES:
		return "io_uring is forbidden to this process: either sysctl "
		       "kernel.io_uring_disabled is not 0, or a seccomp filter (the default "
		       "profile of most container runtimes is one) must be told to allow "
		       "io_uring_setup, io_uring_enter and io_uring_register";
	case EINVAL:
		return "this kernel's io_uring lacks what is needed: Linux 6.1 or later "
		       "(SINGLE_ISSUER, DEFER_TASKRUN, ring-mapped buffers)";
	case ENOMEM:
		return "no memory for io_uring's rings: raise the limit of locked memory to 8 MiB "
		       "(ulimit -l 8192, LimitMEMLOCK=8M in a systemd unit)";
	case EMFILE:
	case ENFILE:
		return "no descriptor left for io_uring: raise the limit of open files "
		       "(ulimit -n, LimitNOFILE= in a systemd unit)";
	default:
		return strerror(-error);
	}
}

void ring_on(struct ring *r, enum ring_op op, ring_complete_fn *complete, void *ctx)
{
	r->ops[op].complete = complete;
	r->ops[op].ctx = ctx;
}

struct io_uring_sqe *ring_sqe(struct ring *r)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);

	if (!sqe) {
		/* Runs no completions (DEFER_TASKRUN), so no owner is called from in here. */
		(void)io_uring_submit(&r->uring); /* EAGAIN, EBUSY: then there is no entry below */
		sqe = io_uring_get_sqe(&r->uring);
	}
	if (!sqe)
		r->starved = true;
	return sqe;
}

uint64_t ring_tag_of(enum ring_op op, uint32_t gen, uint32_t index)
{
	return (uint64_t)op << 56 | (uint64_t)(gen & RING_GEN_MASK) << 32 | index;
}

void ring_tag(struct io_uring_sqe *sqe, enum ring_op op, uint32_t gen, uint32_t index)
{
	io_uring_sqe_set_data64(sqe, ring_tag_of(op, gen, index));
}

int ring_wait(struct ring *r, uint64_t timeout_ms)
{
	struct io_uring_cqe *cqe;
	int ret;

	if (r->starved && timeout_ms > STARVED_WAIT_MS)
		timeout_ms = STARVED_WAIT_MS;
	r->starved = false;
	if (timeout_ms == 0) {
		ret = io_uring_submit_and_get_events(&r->uring);
	} else {
		struct __kernel_timespec ts = {
			.tv_sec = (int64_t)(timeout_ms / 1000),
			.tv_nsec = (int64_t)(timeout_ms % 1000 * 1000000),
		};

		ret = io_uring_submit_and_wait_timeout(&r->uring, &cqe, 1,
						       timeout_ms == UINT64_MAX ? NULL : &ts, NULL);
	}
	/* EAGAIN and EBUSY: the kernel wants its completions taken first. */
	if (ret >= 0 || ret == -ETIME || ret == -EINTR || ret == -EAGAIN || ret == -EBUSY)
		return 0;
	return ret;
}

bool ring_ready(const struct ring *r)
{
	return io_uring_cq_ready(&r->uring) > 0;
}

unsigned ring_drain(struct ring *r, unsigned budget)
{
	struct io_uring_cqe *cqe;
	unsigned n = 0;

	while (n < budget && io_uring_peek_cqe(&r->uring, &cqe) == 0) {
		struct ring_done d = {
			.index = (uint32_t)cqe->user_data,
			.gen = (uint32_t)(cqe->user_data >> 32) & RING_GEN_MASK,
			.res = cqe->res,
			.flags = cqe->flags,
		};
		unsigned op = (unsigned)(cqe->user_data >> 56);

		/* Freed before its owner is told: the owner may submit, and wait for room. */
		io_uring_cqe_seen(&r->uring, cqe);
		BUG_ON(op >= RING_OPS || !r->ops[op].complete);
		r->ops[op].complete(r->ops[op].ctx, &d);
		n++;
	}
	return n;
}
