/* SPDX-License-Identifier: MIT */
/*
 * One worker of ssdtf-hsmd: one thread, one PKCS#11 session, a listening socket that the supervisor
 * made. It answers every packet, and goes on answering (HSM_UNAVAILABLE) while the token is away.
 *
 *   ppoll ──► packet ──► its jobs, one after another ──► one packet back
 *                            │ the token failed
 *                            ▼
 *                   ladder (token_recover), the job again ──► HSM_UNAVAILABLE when out of patience
 */
#ifndef SSDTF_HSM_SERVER_H
#define SSDTF_HSM_SERVER_H

#include <stdint.h>
#include <sys/types.h>

#include "hsm/token.h"

/* Links at a time: the broker's, one of a broker that is on its way out, some for status. */
#define SERVER_LINKS_MAX 8

struct server_config {
	int listen_fd;
	unsigned index; /* for what it says */
	struct token_config token;
	uint32_t keys_max;
	uint32_t session_keys_max;
	uint64_t recycle_after; /* derives */
	uid_t peer_uid;		/* may connect, besides root and our own user */
};

/*
 * Serves until SIGTERM; at SIGHUP it looks for keys that were made meanwhile. Returns the exit
 * status: 0; EX_NOPERM where the PIN was refused; EX_CONFIG for what only a person can mend (the
 * supervisor restarts neither); EX_OSERR.
 */
int server_run(const struct server_config *c) must_check;

#endif
