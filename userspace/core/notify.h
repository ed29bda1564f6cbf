/* SPDX-License-Identifier: MIT */
/*
 * sd_notify(3)'s protocol: one datagram to the socket that NOTIFY_SOCKET names, where it is set.
 */
#ifndef SSDTF_CORE_NOTIFY_H
#define SSDTF_CORE_NOTIFY_H

/* state: "READY=1", "STOPPING=1". Nobody listening is no error. */
void notify_state(const char *state);

#endif
