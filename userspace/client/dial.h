/* SPDX-License-Identifier: MIT */
/*
 * A TCP connection with an MQTT CONNECT on it, handed to libmosquitto.
 *
 * libmosquitto takes the Password as a C string, but an admission token (PROTOCOL 6) is bytes,
 * zeros among them: the slot alone has a zero byte for two hours in every 23 days, and four of them
 * on a machine without a clock. So the library writes its CONNECT, with a password of the same
 * length, to a Unix socket of ours; we put the token in its place, send the packet to the broker,
 * and move the TCP connection under the descriptor that the library already holds:
 *
 *   libmosquitto --CONNECT--> Unix socket --> dial: token in --> TCP --> broker
 *   libmosquitto <------- from then on: the same fd number, now TCP --------> broker
 *
 * Only documented calls of libmosquitto are used, and every connection goes this way, so that the
 * path is not one that is taken once in 23 days.
 */
#ifndef SSDTF_CLIENT_DIAL_H
#define SSDTF_CLIENT_DIAL_H

#include <stdint.h>

#include "userspace/base/bytes.h"

struct mosquitto;

/* The password for mosquitto_username_pw_set: as long as a token, no byte of it zero. */
#define DIAL_PLACEHOLDER "-------------"

/*
 * Connects TCP, waiting at most timeout_ms for each address. 0; -EINTR where a signal came; -errno.
 * *ret_why is a constant or gai text for people on error.
 */
int dial_tcp(const char *host, int port, int timeout_ms, int *ret_fd,
	     const char **ret_why) must_check;

/*
 * Has m connect, and gives it tcp_fd (which is taken, closed on failure). The last token.n bytes of
 * CONNECT, which are the password, become the token. 0 or -errno.
 */
int dial_mosquitto(struct mosquitto *m, int tcp_fd, int keepalive_s, struct bytes token) must_check;

#endif
