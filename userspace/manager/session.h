/* SPDX-License-Identifier: MIT */
/*
 * The manager's session at a gateway's broker: as a party with the role of a manager, whose folder
 * is as ssdtf-pub's (userspace/client/party.h). It connects, stays connected, and takes what comes
 * on the $SSDTF topics that are for managers, with the broker's signature checked.
 *
 * One thread, one at a time in a process. Handlers are called from within session_turn() and may
 * call session_say().
 */
#ifndef SSDTF_MANAGER_SESSION_H
#define SSDTF_MANAGER_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/client/lib/ssdtf_manager.h"

struct session;

struct session_options {
	const char *dir; /* the party's folder */
	const char *id;	 /* must be its; NULL: whatever its bundle says */
	const char *host;
	int port;
	uint32_t patience_s; /* without a session: then session_turn() gives up; 0: never */
};

/* body is without the session's end. */
struct session_handler {
	void (*opened)(void *ctx);
	void (*bundle)(void *ctx, struct bytes body);
	void (*claim)(void *ctx, struct bytes body);
	void (*report)(void *ctx, const struct ssdtf_report *r);
};

/* Catches SIGINT and SIGTERM from here on. Says what is wrong with the folder and ends the program
 * where it is. NULL: no memory. */
struct session *session_new(const struct session_options *o, const struct session_handler *h,
			    void *ctx) must_check;
/* Says goodbye. NULL ok. */
void session_free(struct session *s);

/* Goes on until something happened or until_ms (session_now_ms()) is reached. 0, or the exit code
 * to give up with; session_why() has the words. */
int session_turn(struct session *s, uint64_t until_ms) must_check;
const char *session_why(const struct session *s);
bool session_is_open(const struct session *s);
/* SIGINT or SIGTERM came. */
bool session_stopped(void);
uint64_t session_now_ms(const struct session *s);
/* The gateway that the party's bundle names. */
struct bytes session_gateway(const struct session *s);

/* body on ONLINE_TOPIC or CLAIM_TOPIC, signed. -ENOTCONN, -ENOMEM, -EIO. */
int session_say(struct session *s, const char *topic, struct bytes body) must_check;

#endif
