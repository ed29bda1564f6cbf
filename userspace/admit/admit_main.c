// SPDX-License-Identifier: MIT
/*
 * ssdtf-admit: puts the admission filter into the kernel and ends. Needs CAP_BPF and CAP_PERFMON
 * (and CAP_CHOWN to give the pins to the broker's user); the broker needs none to use them.
 */
#include <argp.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <unistd.h>

#include "bpf/admission.h"
#include "userspace/admit/load.h"
#include "userspace/admit/pins.h"
#include "userspace/base/log.h"

#define VERSION_TEXT	"ssdtf-admit 0.1"
#define DEVICES_DEFAULT 32768
#define DEVICES_MAX	10000000
#define PROGRAM_BYTES_WARN                                                     \
	16384 /* with less than 20 KiB of optmem for all of a socket's options \
	       */

enum { KEY_PINS = 'p', KEY_USER = 'u', KEY_GROUP = 'g', KEY_DEVICES = 'n' };

struct arguments {
	const char *command, *pins, *user, *group;
	uint32_t devices_max;
};

static const struct argp_option argp_options[] = {
	{ "pins", KEY_PINS, "DIR", 0, "The folder of the pins (" ADMISSION_PINS_DEFAULT ")", 0 },
	{ "user", KEY_USER, "NAME", 0, "pin: the broker's user (who runs this)", 0 },
	{ "group", KEY_GROUP, "NAME", 0,
	  "pin: who else may see counters and set bans (that user's)", 0 },
	{ "devices-max", KEY_DEVICES, "N", 0, "pin: room for enrolled devices (32768)", 0 },
	{ 0 },
};

static const char doc[] = "Puts the admission filter of the SSDTF/MQTT broker into the kernel.\v"
			  "Commands:\n"
			  "  load     load it to see whether this kernel takes it; keeps nothing\n"
			  "  pin      load it and pin it, for the broker to attach\n"
			  "  unpin    remove the pins; sockets that have the filter keep it\n"
			  "  status   what is pinned\n"
			  "Examples:\n"
			  "  ssdtf-admit pin --user ssdtf --group ssdtf-operators\n"
			  "  ssdtf-admit status";

static uint32_t number_of(const char *text)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (errno || !*text || *end || *text == '-' || n < 1 || n > DEVICES_MAX)
		exit_with(EX_USAGE, "--devices-max: '%s' is not a number from 1 to %d", text,
			  DEVICES_MAX);
	return (uint32_t)n;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case KEY_PINS:
		a->pins = arg;
		return 0;
	case KEY_USER:
		a->user = arg;
		return 0;
	case KEY_GROUP:
		a->group = arg;
		return 0;
	case KEY_DEVICES:
		a->devices_max = number_of(arg);
		return 0;
	case ARGP_KEY_ARG:
		if (a->command)
			argp_error(state, "'%s' is one word too many", arg);
		a->command = arg;
		return 0;
	case ARGP_KEY_END:
		if (!a->command)
			argp_error(state, "a command is needed: load, pin, unpin or status");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int exit_code(int err)
{
	switch (-err) {
	case EPERM:
	case EACCES:
		return EX_NOPERM;
	case EEXIST:
		return EX_CANTCREAT;
	case EBUSY:
		return EX_TEMPFAIL;
	case EINVAL:
		return EX_USAGE;
	default:
		return EX_UNAVAILABLE;
	}
}

static bool is_capable(unsigned capability)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &head, sets))
		return false;
	return sets[CAP_TO_INDEX(capability)].effective & CAP_TO_MASK(capability);
}

static void not_permitted(void) noreturn_fn;
static void not_permitted(void)
{
	exit_with(EX_NOPERM, "the kernel does not let us load the filter: it takes CAP_BPF and "
			     "CAP_PERFMON; run it as root");
}

static struct load *load_or_exit(uint32_t devices_max)
{
	struct load *l;
	const char *why;
	int err;

	/* Without CAP_PERFMON some verifiers refuse only after minutes of thought. */
	if (!is_capable(CAP_BPF) || !is_capable(CAP_PERFMON))
		not_permitted();
	err = load_new(devices_max, &l, &why);
	switch (-err) {
	case 0:
		return l;
	case EPERM:
		not_permitted();
	case ENOSYS:
		exit_with(EX_UNAVAILABLE, "this kernel has no BPF; the broker checks admission by "
					  "itself then");
	default:
		break;
	}
	exit_with(EX_UNAVAILABLE, "the kernel does not take the filter: %s (%s)", strerror(-err),
		  why);
}

static void show_program(const char *name, int fd)
{
	uint32_t bytes, verified;
	int err = load_program_sizes(fd, &bytes, &verified);

	if (err)
		exit_with(EX_OSERR, "%s: %s", name, strerror(-err));
	printf("%-14s %u bytes for each socket, %u instructions verified\n", name, bytes, verified);
	if (bytes > PROGRAM_BYTES_WARN)
		log_warn("%s: more than %d bytes: net.core.optmem_max of older kernels is 20480",
			 name, PROGRAM_BYTES_WARN);
}

static int run_load(const struct arguments *a)
{
	struct load *l = load_or_exit(a->devices_max);

	show_program("filter", load_fd(l, 0));
	show_program("filter_other", load_fd(l, 1));
	load_free(l);
	return 0;
}

static struct pins_owner owner_of(const struct arguments *a)
{
	struct pins_owner o = { geteuid(), getegid() };
	const struct passwd *user = a->user ? getpwnam(a->user) : NULL;
	const struct group *group;

	if (a->user && !user)
		exit_with(EX_NOUSER, "--user: there is no user '%s'", a->user);
	if (user) {
		o.user = user->pw_uid;
		o.group = user->pw_gid;
	}
	group = a->group ? getgrnam(a->group) : NULL;
	if (a->group && !group)
		exit_with(EX_NOUSER, "--group: there is no group '%s'", a->group);
	if (group)
		o.group = group->gr_gid;
	return o;
}

static int run_pin(const struct arguments *a)
{
	struct pins_owner owner = owner_of(a);
	struct load *l = load_or_exit(a->devices_max);
	char why[PINS_WHY_BYTES];
	int err = pins_make(a->pins, l, &owner, why);

	if (err)
		exit_with(exit_code(err), "%s", why);
	load_free(l);
	if (!pins_reachable(a->pins, owner.user))
		log_warn("%s: a folder above it is closed to the broker's user; chmod 711 opens "
			 "the way and shows nothing",
			 a->pins);
	printf("pinned in %s; a broker that runs already takes it when it is started again\n",
	       a->pins);
	return 0;
}

static int run_unpin(const struct arguments *a)
{
	char why[PINS_WHY_BYTES];
	int err = pins_remove(a->pins, why);

	if (err)
		exit_with(exit_code(err), "%s", why);
	return 0;
}

static int run_status(const struct arguments *a)
{
	unsigned there = 0;

	for (unsigned i = 0; i < LOAD_PARTS; i++) {
		char path[4096];
		struct stat st;

		snprintf(path, sizeof(path), "%s/%s", a->pins, load_name(i));
		if (stat(path, &st)) {
			if (errno != ENOENT && errno != ENOTDIR)
				exit_with(exit_code(-errno), "%s: %s", path, strerror(errno));
			continue;
		}
		there++;
		printf("%-14s mode %04o user %u group %u\n", load_name(i),
		       (unsigned)(st.st_mode & 07777), st.st_uid, st.st_gid);
	}
	if (!there)
		exit_with(EX_UNAVAILABLE, "%s: nothing is pinned there", a->pins);
	if (there < LOAD_PARTS)
		exit_with(EX_UNAVAILABLE, "%s: %u of %d pins are missing; unpin it, and pin again",
			  a->pins, LOAD_PARTS - there, LOAD_PARTS);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = argp_options, .parser = parse, .args_doc = "COMMAND", .doc = doc
	};
	static const struct {
		const char *name;
		int (*run)(const struct arguments *a);
	} commands[] = { { "load", run_load },
			 { "pin", run_pin },
			 { "unpin", run_unpin },
			 { "status", run_status } };
	struct arguments a = { .pins = ADMISSION_PINS_DEFAULT, .devices_max = DEVICES_DEFAULT };

	argp_program_version = VERSION_TEXT;
	argp_err_exit_status = EX_USAGE;
	log_init(argv[0], LOG_LEVEL_INFO);
	argp_parse(&argp, argc, argv, 0, NULL, &a);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(a.command, commands[i].name))
			return commands[i].run(&a);
	exit_with(EX_USAGE, "'%s' is not a command: load, pin, unpin or status", a.command);
}
