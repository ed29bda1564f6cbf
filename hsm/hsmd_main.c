// SPDX-License-Identifier: MIT
/*
 * ssdtf-hsmd: the only program of a gateway that sees the PIN and the PKCS#11 module.
 *
 *   run      supervisor: sockets, workers, restarts
 *   worker   one worker, started by run
 *   keygen   makes the gateway's keys in the token
 *   status   asks the workers
 */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "hsm/client.h"
#include "hsm/keygen.h"
#include "hsm/keys.h"
#include "hsm/pin.h"
#include "hsm/server.h"
#include "hsm/status.h"
#include "hsm/supervisor.h"
#include "userspace/base/log.h"

#define DEFAULT_MODULE	      "/usr/lib/softhsm/libsofthsm2.so"
#define DEFAULT_KEYS	      65536
#define DEFAULT_SESSION_KEYS  4096
#define DEFAULT_RECYCLE_AFTER 1000000
#define PATH_BYTES	      4096

enum option_key {
	OPT_MODULE = 'm',
	OPT_TOKEN = 't',
	OPT_PIN_FILE = 'p',
	OPT_SOCKET_DIR = 's',
	OPT_WORKERS = 'w',
	OPT_PUBLIC = 'o',
	OPT_DRY_RUN = 'n',
	OPT_LOCK_FILE = 256,
	OPT_KEYS_MAX,
	OPT_SESSION_KEYS_MAX,
	OPT_RECYCLE_AFTER,
	OPT_UID,
	OPT_INDEX,
	OPT_NEXT,
	OPT_PROMOTE,
};

struct options {
	struct token_config token;
	const char *socket_dir;
	struct keygen_config keygen;
	bool next, promote;
	unsigned workers; /* 0: one a core */
	unsigned index;
	uint32_t keys_max;
	uint32_t session_keys_max;
	uint64_t recycle_after;
	uid_t uid;
	bool uid_given;
};

/* clang-format off */
#define TOKEN_OPTIONS                                                                             \
	{ "module", OPT_MODULE, "PATH", 0, "PKCS#11 module (" DEFAULT_MODULE ")", 0 },            \
	{ "token", OPT_TOKEN, "LABEL", 0, "the token's label", 0 },                               \
	{ "pin-file", OPT_PIN_FILE, "FILE", 0,                                                    \
	  "first line is the PIN, mode 0600 ($CREDENTIALS_DIRECTORY/pin)", 0 },                   \
	{ "lock-file", OPT_LOCK_FILE, "FILE", 0,                                                  \
	  "held while the token is initialised (run: SOCKET-DIR/token.lock)", 0 }
#define SOCKET_DIR_OPTION                                                                         \
	{ "socket-dir", OPT_SOCKET_DIR, "DIR", 0, "where the workers' sockets are", 0 }
#define RUN_OPTIONS                                                                               \
	TOKEN_OPTIONS, SOCKET_DIR_OPTION,                                                         \
	{ "workers", OPT_WORKERS, "N", 0, "processes (one a core)", 0 },                          \
	{ "keys-max", OPT_KEYS_MAX, "N", 0, "wrapped keys kept by a worker (65536)", 0 },         \
	{ "session-keys-max", OPT_SESSION_KEYS_MAX, "N", 0,                                       \
	  "unwrapped keys kept in the token by a worker (4096)", 0 },                             \
	{ "recycle-after", OPT_RECYCLE_AFTER, "N", 0,                                             \
	  "conversions after which a worker reinitialises the module (1000000)", 0 },             \
	{ "uid", OPT_UID, "USER", 0,                                                              \
	  "may connect, besides root and hsmd's user; the sockets' group then may, too", \
	  0 }

static const struct argp_option run_options[] = { RUN_OPTIONS, { 0 } };
static const struct argp_option worker_options[] = {
	RUN_OPTIONS,
	{ "index", OPT_INDEX, "N", 0, "which worker this is", 0 },
	{ 0 },
};
static const struct argp_option keygen_options[] = {
	TOKEN_OPTIONS,
	{ "public", OPT_PUBLIC, "FILE", 0, "gets the public keys, as PEM", 0 },
	{ "next", OPT_NEXT, "signing|unwrap", 0,
	  "make the key that is to follow this one (both: give it twice); FILE gets it in the "
	  "other's place. A running hsmd uses it from SIGHUP on",
	  1 },
	{ "promote", OPT_PROMOTE, "signing|unwrap", 0,
	  "destroy this key, so that the next one takes its place: when the gateway's bundle "
	  "names that and no longer the old one. hsmd must be stopped (--socket-dir)",
	  1 },
	{ "dry-run", OPT_DRY_RUN, NULL, 0, "say what would be done, and do nothing", 1 },
	SOCKET_DIR_OPTION,
	{ 0 },
};
static const struct argp_option status_options[] = { SOCKET_DIR_OPTION, { 0 } };
/* clang-format on */

/* A whole number from min to max, or the end of the program. */
static uint64_t number(struct argp_state *state, const char *name, const char *arg, uint64_t min,
		       uint64_t max)
{
	char *end;
	uint64_t v;

	errno = 0;
	v = strtoull(arg, &end, 10);
	if (errno || end == arg || *end || *arg == '-' || v < min || v > max)
		argp_error(state, "--%s: a number from %" PRIu64 " to %" PRIu64 ", not \"%s\"",
			   name, min, max, arg);
	return v;
}

static uid_t user(struct argp_state *state, const char *arg)
{
	const struct passwd *p = getpwnam(arg);

	if (p)
		return p->pw_uid;
	if (arg[strspn(arg, "0123456789")])
		argp_error(state, "--uid: no user \"%s\"", arg);
	return (uid_t)number(state, "uid", arg, 0, UINT32_MAX - 1);
}

static void choose_role(struct argp_state *state, const char *name, const char *arg,
			struct keygen_config *c)
{
	if (!strcmp(arg, "signing"))
		c->roles[KEYGEN_SIGNING] = true;
	else if (!strcmp(arg, "unwrap"))
		c->roles[KEYGEN_UNWRAP] = true;
	else
		argp_error(state, "--%s: signing or unwrap, not \"%s\"", name, arg);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case OPT_MODULE:
		o->token.module = arg;
		return 0;
	case OPT_TOKEN:
		o->token.label = arg;
		return 0;
	case OPT_PIN_FILE:
		o->token.pin_file = arg;
		return 0;
	case OPT_LOCK_FILE:
		o->token.lock_file = arg;
		return 0;
	case OPT_SOCKET_DIR:
		o->socket_dir = arg;
		return 0;
	case OPT_WORKERS:
		o->workers = (unsigned)number(state, "workers", arg, 1, HSM_WORKERS_MAX);
		return 0;
	case OPT_PUBLIC:
		o->keygen.public_file = arg;
		return 0;
	case OPT_NEXT:
		o->next = true;
		choose_role(state, "next", arg, &o->keygen);
		return 0;
	case OPT_PROMOTE:
		o->promote = true;
		choose_role(state, "promote", arg, &o->keygen);
		return 0;
	case OPT_DRY_RUN:
		o->keygen.dry_run = true;
		return 0;
	case OPT_KEYS_MAX:
		o->keys_max = (uint32_t)number(state, "keys-max", arg, 1, KEYS_BLOBS_MAX);
		return 0;
	case OPT_SESSION_KEYS_MAX:
		o->session_keys_max =
			(uint32_t)number(state, "session-keys-max", arg, 1, KEYS_SESSIONS_MAX);
		return 0;
	case OPT_RECYCLE_AFTER:
		o->recycle_after = number(state, "recycle-after", arg, 1, UINT32_MAX);
		return 0;
	case OPT_UID:
		o->uid = user(state, arg);
		o->uid_given = true;
		return 0;
	case OPT_INDEX:
		o->index = (unsigned)number(state, "index", arg, 0, HSM_WORKERS_MAX - 1);
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "not an option: \"%s\"", arg);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* --token, and where the PIN is: the option, or what systemd hands over. */
static void need_token(struct options *o)
{
	static char path[PATH_BYTES];
	const char *dir = getenv("CREDENTIALS_DIRECTORY");
	const char *why;
	int rc;

	if (!o->token.label)
		exit_with(EX_USAGE, "which token? Give --token LABEL");
	if (!o->token.pin_file) {
		if (!dir || !*dir)
			exit_with(EX_USAGE, "where is the PIN? Give --pin-file FILE");
		if (snprintf(path, sizeof(path), "%s/pin", dir) >= (int)sizeof(path))
			exit_with(EX_CONFIG, "$CREDENTIALS_DIRECTORY is too long");
		o->token.pin_file = path;
		o->token.pin_credential = true;
	}
	rc = pin_check(o->token.pin_file, o->token.pin_credential, &why);
	if (rc)
		exit_with(rc == -EPERM ? EX_NOPERM : EX_CONFIG, "PIN file %s: %s",
			  o->token.pin_file, why);
}

static void need_socket_dir(const struct options *o)
{
	if (!o->socket_dir)
		exit_with(EX_USAGE, "where are the sockets? Give --socket-dir DIR");
}

static void default_lock_file(struct options *o)
{
	static char path[PATH_BYTES];

	if (o->token.lock_file)
		return;
	if (snprintf(path, sizeof(path), "%s/token.lock", o->socket_dir) >= (int)sizeof(path))
		exit_with(EX_USAGE, "--socket-dir is too long");
	o->token.lock_file = path;
}

/* argv with the command's place taken by "worker": a worker understands all that run does. */
static int run(struct options *o, int argc, char **argv)
{
	static const char *args[SUPERVISOR_ARGS_MAX];
	struct supervisor_config c = { .socket_dir = o->socket_dir, .argv = args };

	need_socket_dir(o);
	need_token(o);
	if (argc > SUPERVISOR_ARGS_MAX)
		exit_with(EX_USAGE, "more than %d arguments", SUPERVISOR_ARGS_MAX);
	args[c.argc++] = argv[0];
	args[c.argc++] = "worker";
	for (int i = 2; i < argc; i++)
		args[c.argc++] = argv[i];
	c.n_workers = o->workers;
	if (!c.n_workers) {
		long cores = sysconf(_SC_NPROCESSORS_ONLN);

		c.n_workers = cores < 1 ? 1 : cores > HSM_WORKERS_MAX ? HSM_WORKERS_MAX : cores;
	}
	c.socket_mode = o->uid_given ? 0660 : 0600;
	return supervisor_run(&c);
}

static int worker(struct options *o)
{
	struct server_config c = {
		.listen_fd = SUPERVISOR_LISTEN_FD,
		.index = o->index,
		.keys_max = o->keys_max,
		.session_keys_max = o->session_keys_max,
		.recycle_after = o->recycle_after,
		.peer_uid = o->uid_given ? o->uid : geteuid(),
	};

	need_socket_dir(o);
	need_token(o);
	default_lock_file(o);
	c.token = o->token;
	return server_run(&c);
}

static int keygen(struct options *o)
{
	if (o->next && o->promote)
		exit_with(EX_USAGE,
			  "--next and --promote are two steps, with the manager's between");
	if (!o->keygen.public_file && !o->promote)
		exit_with(EX_USAGE, "where do the public keys go? Give --public FILE");
	if (o->promote)
		need_socket_dir(o);
	need_token(o);
	o->keygen.token = o->token;
	o->keygen.socket_dir = o->socket_dir;
	if (o->promote)
		return keygen_promote(&o->keygen);
	return o->next ? keygen_next(&o->keygen) : keygen_run(&o->keygen);
}

static int usage(FILE *to, int status)
{
	fputs("Usage: ssdtf-hsmd run|keygen|status [OPTION...]\n"
	      "Keeps a gateway's keys in a PKCS#11 token and works with them for ssdtf-broker.\n\n"
	      "  run      start the workers (--token, --pin-file, --socket-dir, ...)\n"
	      "  keygen   make the gateway's keys in the token and write their public halves;\n"
	      "           --next, --promote: the two steps of replacing one\n"
	      "  status   ask the workers how they are (--socket-dir)\n\n"
	      "ssdtf-hsmd COMMAND --help lists a command's options.\n",
	      to);
	return status;
}

static void parse_options(const struct argp_option *options, const char *doc, int argc, char **argv,
			  struct options *ret_o)
{
	const struct argp argp = { .options = options, .parser = parse, .doc = doc };
	static char name[64];

	/* argp takes the program's name from the word before the options. */
	snprintf(name, sizeof(name), "ssdtf-hsmd %s", argv[1]);
	argv[1] = name;
	argp_err_exit_status = EX_USAGE;
	if (argp_parse(&argp, argc - 1, argv + 1, ARGP_IN_ORDER, NULL, ret_o))
		exit_with(EX_USAGE, "the options cannot be read");
}

int main(int argc, char **argv)
{
	struct options o = {
		.token.module = DEFAULT_MODULE,
		.keys_max = DEFAULT_KEYS,
		.session_keys_max = DEFAULT_SESSION_KEYS,
		.recycle_after = DEFAULT_RECYCLE_AFTER,
	};
	const char *command = argc > 1 ? argv[1] : "";

	log_init("ssdtf-hsmd", LOG_LEVEL_INFO);
	if (!strcmp(command, "run")) {
		parse_options(run_options, "Starts the workers and keeps them running.", argc, argv,
			      &o);
		return run(&o, argc, argv);
	}
	if (!strcmp(command, "worker")) {
		parse_options(worker_options, "Started by run.", argc, argv, &o);
		return worker(&o);
	}
	if (!strcmp(command, "keygen")) {
		parse_options(keygen_options,
			      "Makes the gateway's keys where they are missing, or replaces them.",
			      argc, argv, &o);
		return keygen(&o);
	}
	if (!strcmp(command, "status")) {
		parse_options(status_options, "Asks the workers how they are.", argc, argv, &o);
		need_socket_dir(&o);
		return status_run(o.socket_dir);
	}
	if (!strcmp(command, "--help") || !strcmp(command, "-?"))
		return usage(stdout, 0);
	return usage(stderr, EX_USAGE);
}
