/* SPDX-License-Identifier: MIT */
/*
 * Listening sockets, each with one multishot accept. TCP_NODELAY, TCP_NOTSENT_LOWAT and
 * SO_KEEPALIVE are set here once; accepted sockets inherit them. Out of descriptors (EMFILE,
 * ENFILE), the accept ends and is armed again when a connection was closed, or after
 * LISTENER_RETRY_MS: it never spins. Those who wait meanwhile stand in the kernel's queue.
 */
#ifndef SSDTF_CORE_LISTENER_H
#define SSDTF_CORE_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/core/address.h"
#include "userspace/core/ring.h"

#define LISTENER_MAX	     16
#define LISTENER_RETRY_MS    1000
#define LISTENER_BACKLOG     4096
#define LISTENER_KEEPALIVE_S 120
/* Unsent bytes of ours that the kernel holds of a connection. */
#define LISTENER_LOWAT_BYTES 16384

struct listener {
	int fd;
	bool armed;
	uint64_t retry_at_ms; /* after an error; 0: at once */
};

struct listener_set {
	struct ring *ring;
	unsigned n;
	struct listener all[LISTENER_MAX];
	bool started, stopping;
	uint64_t now_ms;
	uint64_t out_of_fds;		     /* times that an accept ended so */
	void (*accepted)(void *ctx, int fd); /* takes fd */
	void *ctx;
};

void listener_set_init(struct listener_set *s, struct ring *r, void (*accepted)(void *ctx, int fd),
		       void *ctx);
void listener_set_deinit(struct listener_set *s);
/* Binds, so that an address that is taken is known at once; *ret_bound has the real port. -errno;
 * -E2BIG above LISTENER_MAX. */
int listener_add(struct listener_set *s, const struct address *a,
		 struct address *ret_bound) must_check;
/* From here on the kernel lets clients in. -errno: somebody else listens there since. */
int listener_start(struct listener_set *s) must_check;
/* Arms what is to be armed. released: a descriptor was closed since the last turn. */
void listener_turn(struct listener_set *s, uint64_t now_ms, bool released);
uint64_t listener_wait_ms(const struct listener_set *s);
/* How full is the fullest accept queue? */
unsigned listener_queue_percent(const struct listener_set *s);
/* Takes no connection any more; those in the kernel's queue are reset. */
void listener_stop(struct listener_set *s);

#endif
