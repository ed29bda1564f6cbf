/* SPDX-License-Identifier: MIT */
/*
 * The broker's configuration file (libconfuse syntax). Nothing is guessed: an unknown option, one
 * that stands twice, and a value out of its range are errors that name file and line. Relative
 * paths are relative to the file's own directory. tools/gateway.conf.example lists every option.
 */
#ifndef SSDTF_CORE_CONFIG_H
#define SSDTF_CORE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/log.h"
#include "userspace/broker/broker.h"
#include "userspace/core/address.h"
#include "userspace/core/listener.h"

#define CONFIG_PATH_BYTES  1024
#define CONFIG_ID_BYTES	   65
#define CONFIG_ERROR_BYTES 2048

/* Limits of core's own; they stand in the file among the engine's. */
struct config_limits {
	uint32_t output_bytes_hard;  /* unsent bytes of a connection that end it */
	uint32_t output_bytes_total; /* unsent bytes of all: then the largest is cut off */
	uint32_t stall_timeout_ms;   /* a peer that takes nothing for so long is cut off */
	uint32_t admission_grace_ms; /* after the start: the filter only counts */
	uint32_t admission_pressure_per_second; /* rejects from which auto enforces */
	uint32_t admission_calm_ms;		/* without pressure: then it stops */
};

/* When the kernel's filter drops what has no valid token; core/admit.h says it in full. */
enum config_admission {
	CONFIG_ADMISSION_OFF,
	CONFIG_ADMISSION_MONITOR,
	CONFIG_ADMISSION_ENFORCE,
	CONFIG_ADMISSION_AUTO,
};

struct config {
	bool plain;
	unsigned n_listen;
	struct address listen[LISTENER_MAX];
	char state_dir[CONFIG_PATH_BYTES];
	char bundle[CONFIG_PATH_BYTES];
	char manager_key[CONFIG_PATH_BYTES];
	char hsm_sockets[CONFIG_PATH_BYTES];
	char gateway_id[CONFIG_ID_BYTES];
	enum config_admission admission;
	char admission_pins[CONFIG_PATH_BYTES];
	char control_socket[CONFIG_PATH_BYTES]; /* "": none */
	unsigned workers; /* 0: one less than there are processors, at least one */
	enum log_level log_level;
	struct broker_limits limits;
	struct config_limits core;
};

/* Every option at its default, no address. */
void config_init(struct config *c);
/*
 * 0, -EINVAL for what the file says, -errno where it cannot be read; then why holds one line,
 * "FILE:LINE: what" where a line is to blame, "FILE: what" otherwise. Not thread-safe (libconfuse).
 */
int config_read(const char *file, struct config *ret_c, char why[CONFIG_ERROR_BYTES]) must_check;
/* One more address, for --plain. -EINVAL: not an address; -E2BIG: too many. */
int config_add_listen(struct config *c, const char *text) must_check;

#endif
