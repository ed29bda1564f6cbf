/* SPDX-License-Identifier: MIT */
/*
 * The distributor's configuration file (libconfuse syntax). Nothing is guessed: an unknown option,
 * one that stands twice, and a value out of its range are errors that name file and line. Relative
 * paths are relative to the file's own directory. tools/distributor.conf.example lists every
 * option.
 */
#ifndef SSDTF_DISTRIBUTOR_CONFIG_H
#define SSDTF_DISTRIBUTOR_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "userspace/base/log.h"

#define CONFIG_PATH_BYTES  1024
#define CONFIG_ERROR_BYTES 2048

/* Where a broker listens: numeric, so that a connection never waits for a name server. */
struct config_address {
	struct sockaddr_storage sa;
	socklen_t len; /* 0: not given */
	char text[64];
};

struct config_limits {
	uint32_t messages_max;
	uint32_t window;
	uint32_t capsules_max;
	uint32_t names_max;
	uint32_t packet_bytes_max;
	uint32_t keepalive_s;
	uint32_t reports_per_second;
	uint32_t anonymity_period_s;
	uint32_t trace_days; /* ids that ended are deleted after so long; 0: never */
};

struct config {
	char manager_key[CONFIG_PATH_BYTES];
	char bundle[CONFIG_PATH_BYTES];
	char state_dir[CONFIG_PATH_BYTES];
	char hsm_sockets[CONFIG_PATH_BYTES];
	struct config_address upstream, downstream;
	enum log_level log_level;
	struct config_limits limits;
};

/*
 * 0, -EINVAL for what the file says, -errno where it cannot be read; then why holds one line,
 * "FILE:LINE: what" where a line is to blame, "FILE: what" otherwise. Not thread-safe (libconfuse).
 */
int config_read(const char *file, struct config *ret_c, char why[CONFIG_ERROR_BYTES]) must_check;

#endif
