// SPDX-License-Identifier: MIT
/*
 * ssdtf-admin, the manager (PROTOCOL 1): enrols, grants, revokes, and signs what it hands out.
 *
 *   options.c ─> a row of commands.c ─> manager_open ─> one transaction ─> stdout, exit code
 *                                                        └─> run_*.c
 *
 * Exit codes are those of sysexits.h; what went wrong is one line on stderr.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>

#include "userspace/base/log.h"
#include "userspace/manager/commands.h"
#include "userspace/manager/manager.h"
#include "userspace/manager/options.h"
#include "userspace/manager/setup.h"

/* --- the command line ---------------------------------------------------------------------- */

/* The list of commands for --help, in memory that lives as long as the program. */
static char *help_text(void)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	if (!f)
		exit_with(EX_OSERR, "out of memory");
	(void)fprintf(f, "The SSDTF/MQTT manager: who is who, who may publish, who may read.\v"
			 "Commands (each has its own --help):\n");
	for (size_t i = 0; i < commands_n; i++)
		(void)fprintf(f, "  %-18s %s\n", commands[i].name, commands[i].rules.doc);
	if (fclose(f))
		exit_with(EX_OSERR, "out of memory");
	return text;
}

/* The command whose one or two words argv begins with; *ret_words how many. */
static const struct command *find_command(int argc, char **argv, int *ret_words)
{
	char two[64];

	for (int words = argc < 2 ? 1 : 2; words > 0; words--) {
		(void)snprintf(two, sizeof(two), words == 2 ? "%s %s" : "%s", argv[0],
			       words == 2 ? argv[1] : "");
		for (size_t i = 0; i < commands_n; i++) {
			if (strcmp(two, commands[i].name))
				continue;
			*ret_words = words;
			return &commands[i];
		}
	}
	exit_with(EX_USAGE, "\"%s%s%s\" is no command; --help lists them", argv[0],
		  argc > 1 ? " " : "", argc > 1 ? argv[1] : "");
}

/* --- running one --------------------------------------------------------------------------- */

static int exit_code_of(const struct manager *m, int err)
{
	static const struct {
		int err, code;
	} codes[] = {
		{ EINVAL, EX_DATAERR },	     { EEXIST, EX_DATAERR }, { EMSGSIZE, EX_DATAERR },
		{ ESRCH, EX_NOUSER },	     { ENODATA, EX_CONFIG }, { ENOKEY, EX_CONFIG },
		{ EBUSY, EX_TEMPFAIL },	     { EACCES, EX_NOPERM },  { EPERM, EX_NOPERM },
		{ ENODEV, EX_UNAVAILABLE },  { ENOMEM, EX_OSERR },   { ENOENT, EX_NOINPUT },
		{ EIO, EX_IOERR },	     { ENOSPC, EX_IOERR },   { EBADMSG, EX_DATAERR },
		{ EKEYREJECTED, EX_NOPERM },
	};

	if (m->exit_code)
		return m->exit_code;
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		if (codes[i].err == -err)
			return codes[i].code;
	}
	return EX_SOFTWARE;
}

static int run_in_transaction(struct manager *m, const struct command *c, const struct options *o)
{
	int err = c->how == COMMANDS_WRITES
			  ? manager_begin(m)
			  : manager_fail_registry(m, registry_begin_read(&m->registry));

	m->dry_run = options_has(o, OPTION_DRY_RUN);
	if (m->dry_run)
		(void)fprintf(m->out, "dry run: nothing is changed\n");
	if (!err)
		err = c->run(m, o);
	if (!err)
		err = manager_commit(m);
	if (err)
		manager_rollback(m);
	return err;
}

static int run(struct manager *m, const struct command *c, const struct options *o)
{
	const struct manager_config config = { .dir = o->text[OPTION_DIR],
					       .module = o->text[OPTION_MODULE],
					       .token_label = o->text[OPTION_TOKEN],
					       .pin_file = o->text[OPTION_PIN_FILE] };
	uint64_t now_ms;
	struct timespec now;
	int err;

	if (clock_gettime(CLOCK_REALTIME, &now))
		exit_with(EX_OSERR, "no clock: %s", strerror(errno));
	now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;

	if (c->how == COMMANDS_SETS_UP)
		return setup_manager(m, &config, options_has(o, OPTION_ADOPT), now_ms);
	err = manager_open(m, &config, c->how == COMMANDS_READS ? MANAGER_READS : MANAGER_WRITES,
			   now_ms);
	if (err)
		return err;
	return c->how == COMMANDS_BUNDLES ? c->run(m, o) : run_in_transaction(m, c, o);
}

/* Scope scalars pass through this process: no core file, and no debugger of the same user. */
static void protect(void)
{
	const struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		exit_with(EX_OSERR, "cannot switch core files off: %s", strerror(errno));
	(void)signal(SIGPIPE, SIG_IGN); /* a closed stdout is an error like others */
	(void)umask(077);		/* cannot fail */
}

int main(int argc, char **argv)
{
	const struct command *c;
	struct options o;
	struct manager m;
	int at, words = 0, err, code;
	char *help;

	log_init("ssdtf-admin", LOG_LEVEL_INFO);
	protect();
	options_init(&o);
	help = help_text();
	at = options_parse_global(&o, argc, argv, help);
	if (at == argc)
		exit_with(EX_USAGE, "which command? --help lists them");
	c = find_command(argc - at, argv + at, &words);
	at += words - 1;
	options_parse(&o, &c->rules, argc - at, argv + at);
	free(help);

	err = run(&m, c, &o);
	if (!err)
		err = manager_flush(&m);
	code = err ? exit_code_of(&m, err) : EX_OK;
	if (err)
		log_error("%s", m.error);
	manager_close(&m);
	return code;
}
