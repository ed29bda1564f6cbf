// SPDX-License-Identifier: MIT
#include "bench/ceiling/throwaway.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/lab/child.h"
#include "hsm/keygen.h"
#include "userspace/base/file.h"
#include "userspace/base/log.h"

#define MODULE	     "/usr/lib/softhsm/libsofthsm2.so"
#define SOFTHSM_UTIL "/usr/bin/softhsm2-util"
#define LABEL	     "bench"
#define PIN	     "bench-4711" /* of a token that lives as long as the measurement */

bool throwaway_possible(void)
{
	return !access(SOFTHSM_UTIL, X_OK) && !access(MODULE, R_OK);
}

static void path_in(const char *dir, const char *name, char path[THROWAWAY_PATH_BYTES])
{
	BUG_ON(snprintf(path, THROWAWAY_PATH_BYTES, "%s/%s", dir, name) >= THROWAWAY_PATH_BYTES);
}

static void file(const char *path, const char *text)
{
	int ret = file_write(AT_FDCWD, path, bytes_str(text), 0600);

	if (ret)
		exit_with(EX_CANTCREAT, "%s: %s", path, strerror(-ret));
}

/* SoftHSM finds its folder by this, in this process and those that it starts. */
static void configure(const char *dir)
{
	char conf[THROWAWAY_PATH_BYTES], tokens[THROWAWAY_PATH_BYTES];
	char text[2 * THROWAWAY_PATH_BYTES];

	path_in(dir, "softhsm2.conf", conf);
	path_in(dir, "tokens", tokens);
	if (mkdir(tokens, 0700))
		exit_with(EX_CANTCREAT, "%s: %s", tokens, strerror(errno));
	snprintf(text, sizeof(text),
		 "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n",
		 tokens);
	file(conf, text);
	if (setenv("SOFTHSM2_CONF", conf, 1))
		exit_with(EX_OSERR, "$SOFTHSM2_CONF: %s", strerror(errno));
}

struct keys {
	const struct throwaway *throwaway;
	const char *public;
};

static int make_keys(void *ctx)
{
	const struct keys *k = ctx;
	const struct keygen_config config = { .token = k->throwaway->config,
					      .public_file = k->public };

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* else it ends a second later */
	log_init("ssdtf-bench", LOG_LEVEL_WARN);
	return keygen_run(&config);
}

void throwaway_make(struct throwaway *t, const char *dir)
{
	static const char *const init[] = { SOFTHSM_UTIL, "--init-token", "--free",
					    "--label",	  LABEL,	  "--pin",
					    PIN,	  "--so-pin",	  PIN,
					    NULL };
	char log[THROWAWAY_PATH_BYTES], public[THROWAWAY_PATH_BYTES];
	struct child_place at = { .net = -1, .cpu = -1, .log = log };
	const struct keys keys = { t, public };
	struct child child;
	int ret;

	path_in(dir, "log", log);
	path_in(dir, "public.pem", public);
	path_in(dir, "pin", t->pin);
	path_in(dir, "lock", t->lock);
	t->config = (struct token_config){
		.module = MODULE, .label = LABEL, .pin_file = t->pin, .lock_file = t->lock
	};
	configure(dir);
	file(t->pin, PIN "\n");
	child_must(&at, "softhsm2-util", init);
	at.log = NULL;
	ret = child_fork(&at, "keys", make_keys, (void *)(uintptr_t)&keys, &child);
	if (ret)
		exit_with(EX_OSERR, "a process: %s", strerror(-ret));
	ret = child_wait(&child);
	if (ret)
		exit(ret); /* it said why */
}
