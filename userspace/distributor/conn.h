/* SPDX-License-Identifier: MIT */
/*
 * A TCP connection to a broker with a session on it, made again whenever it ends: after 0.1 s, then
 * after twice as long each time, at most 30 s. One that lasted a while is come back to at once.
 */
#ifndef SSDTF_DISTRIBUTOR_CONN_H
#define SSDTF_DISTRIBUTOR_CONN_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "userspace/distributor/config.h"
#include "userspace/distributor/session.h"

#define CONN_RETRY_MS_MIN 100
#define CONN_RETRY_MS_MAX 30000
#define CONN_CONNECT_MS	  10000
#define CONN_SETTLED_MS	  5000 /* a session that lasted so long was worth coming back to */

enum conn_state { CONN_WAITING, CONN_CONNECTING, CONN_UP };

struct conn {
	const struct config_address *address;
	const char *role; /* for people */
	struct session session;
	enum conn_state state;
	int fd;
	uint64_t retry_ms, retry_at_ms, connected_ms;
	uint64_t connects; /* that came to a session */
	bool complained;   /* of being without a session */
	void (*closed)(struct conn *c);
};

/* The session is its owner's to init and deinit. */
void conn_init(struct conn *c, const char *role, const struct config_address *a,
	       void (*closed)(struct conn *c));
/* Ends it, with what is written and DISCONNECT where it is open; it is not made again. */
void conn_close(struct conn *c);
/* The session has opened. */
void conn_opened(struct conn *c);

void conn_watch(const struct conn *c, struct pollfd *fd);
void conn_events(struct conn *c, short events, uint64_t mono_ms, uint64_t unix_ms);
void conn_tick(struct conn *c, uint64_t mono_ms);
/* Writes what the session has for the broker, as far as the socket takes it. */
void conn_flush(struct conn *c, uint64_t mono_ms);
uint64_t conn_due_ms(const struct conn *c);

#endif
