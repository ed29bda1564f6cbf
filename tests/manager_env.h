/* SPDX-License-Identifier: MIT */
/*
 * A manager of a test's own: a folder, a SoftHSM token in it, a registry that was set up, a gateway
 * that is enrolled. For tests of ssdtf-admin's parts below its command line. The token has the
 * label and PIN of token_env.h, so that its raw_open() works here, too.
 */
#ifndef SSDTF_TESTS_MANAGER_ENV_H
#define SSDTF_TESTS_MANAGER_ENV_H

#include <spawn.h>

#include "tests/token_env.h"
#include "userspace/base/file.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/manager.h"
#include "userspace/manager/setup.h"

#define MANAGER_ENV_T0 1800000000000ull /* the clock of these tests: 2027-01-15 */

extern char **environ;

struct manager_env {
	char base[64];
	char state[PATH_ROOM];
	struct manager_config config;
	struct manager m;   /* the command that runs */
	char said[1 << 16]; /* what the last one said, or why it failed */
};

/* A path in the test's folder; eight at a time. */
static inline const char *env_path(const struct manager_env *e, const char *name)
{
	static char paths[8][PATH_ROOM];
	static unsigned next;
	char *out = paths[next++ % ARRAY_SIZE(paths)];

	path_in(e->base, name, out);
	return out;
}

static inline void env_run(char *const argv[])
{
	posix_spawn_file_actions_t quiet;
	pid_t pid;
	int status;

	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
	ASSERT_EQ(posix_spawnp(&pid, argv[0], &quiet, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&quiet);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	ASSERT_EQ(status, 0);
}

static inline void env_make_token(struct manager_env *e)
{
	char name[] = "softhsm2-util", init[] = "--init-token", slot[] = "--free",
	     label[] = "--label=" TOKEN_ENV_LABEL, pin[] = "--pin=" TOKEN_ENV_PIN,
	     so[] = "--so-pin=" TOKEN_ENV_SO_PIN;
	char *argv[] = { name, init, slot, label, pin, so, NULL };

	ASSERT_EQ(mkdir(env_path(e, "tokens"), 0700), 0);
	conf_for(e->base);
	write_file(env_path(e, "pin"), TOKEN_ENV_PIN "\n", 0600);
	env_run(argv);
}

/* Opens for a command that begins and ends its own transactions. */
static inline void env_open(struct manager_env *e, uint64_t now_ms)
{
	if (manager_open(&e->m, &e->config, MANAGER_WRITES, now_ms))
		harness_fail(__FILE__, __LINE__, true, "%s", e->m.error);
}

static inline void env_close(struct manager_env *e, int err)
{
	(void)fflush(e->m.out);
	snprintf(e->said, sizeof(e->said), "%s", err ? e->m.error : e->m.out_text);
	manager_close(&e->m);
}

/* One command at T0 plus so many milliseconds: returns what it returned. */
#define ENV_COMMAND(e, after_ms, call)                    \
	({                                                \
		env_open(e, MANAGER_ENV_T0 + (after_ms)); \
		int err_ = (call);                        \
		env_close(e, err_);                       \
		err_;                                     \
	})

/* The same in a transaction around it. */
#define ENV_IN_TRANSACTION(e, after_ms, call)                      \
	ENV_COMMAND(e, after_ms, ({                                \
			    int in_ = manager_begin(&(e)->m);      \
			    if (!in_)                              \
				    in_ = (call);                  \
			    if (!in_)                              \
				    in_ = manager_commit(&(e)->m); \
			    in_;                                   \
		    }))

#define EXPECT_SAID(e, text)                                                                     \
	do {                                                                                     \
		if (!strstr((e)->said, text))                                                    \
			harness_fail(__FILE__, __LINE__, false, "\"%s\" is not in \"%s\"", text, \
				     (e)->said);                                                 \
	} while (0)

/* SKIPs where there is no SoftHSM. */
static inline void manager_env_make(struct manager_env *e)
{
	if (access(TOKEN_ENV_MODULE, R_OK))
		SKIP("no SoftHSM at " TOKEN_ENV_MODULE);
	snprintf(e->base, sizeof(e->base), "/tmp/ssdtf-manager.XXXXXX");
	ASSERT_TRUE(mkdtemp(e->base) != NULL);
	env_make_token(e);
	path_in(e->base, "state", e->state);
	e->config = (struct manager_config){ .dir = e->state,
					     .module = TOKEN_ENV_MODULE,
					     .token_label = TOKEN_ENV_LABEL,
					     .pin_file = env_path(e, "pin") };
	ASSERT_EQ(setup_manager(&e->m, &e->config, false, MANAGER_ENV_T0), 0);
	manager_close(&e->m);
	/* From now on the registry says where the token is. */
	e->config = (struct manager_config){ .dir = e->state };
}

static inline void manager_env_remove(struct manager_env *e)
{
	if (!e->base[0])
		return; /* skipped before there was anything */
	manager_close(&e->m);
	remove_tree(e->base);
}

#endif
