// SPDX-License-Identifier: MIT
#include "bench/flood/server.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "userspace/base/file.h"
#include "userspace/base/log.h"

#define READY_S	     20
#define LINE_BYTES   512
#define CONFIG_BYTES (8 * SITE_PATH_BYTES)
#define PINS	     "bpf/pins"

static const char *const names[] = {
	[SERVER_FILTER] = "filter",
	[SERVER_CHECKS] = "checks",
	[SERVER_OFF] = "off",
	[SERVER_MOSQUITTO] = "mosquitto",
};

const char *server_name(enum server_kind k)
{
	return names[k];
}

/* NAME-PORT.SUFFIX in the lab's folder. */
static void own_path(const struct server *v, const char *suffix, char *path)
{
	char name[64];

	snprintf(name, sizeof(name), "%s-%u.%s", names[v->kind], v->port, suffix);
	site_path(v->site, name, path);
}

static void write_config(const char *path, const char *text)
{
	int ret = file_write(AT_FDCWD, path, bytes_str(text), 0644);

	if (ret)
		exit_with(EX_CANTCREAT, "%s: %s", path, strerror(-ret));
}

/* --- the filter ------------------------------------------------------------------------------- */

void server_pinned(const struct site *s, const char *name, char *path)
{
	char relative[64];

	snprintf(relative, sizeof(relative), PINS "/%s", name);
	site_path(s, relative, path);
}

/* By which ssdtf-admit knows nobody; NULL where /etc/passwd or /etc/group lack it. */
static const char *user_name(void)
{
	const struct passwd *p = getpwuid(CHILD_NOBODY);

	return p ? p->pw_name : NULL;
}

static const char *group_name(void)
{
	const struct group *g = getgrgid(CHILD_NOBODY);

	return g ? g->gr_name : NULL;
}

/* ssdtf-admit VERB --pins DIR and what belongs to it; its exit code, or -errno. */
static int admit(const struct site *s, const char *verb, char *log)
{
	char program[SITE_PATH_BYTES], pins[SITE_PATH_BYTES];
	const char *args[CHILD_ARGS_MAX] = { program, verb, "--pins", pins };
	struct child_place at = { .net = -1, .cpu = -1, .log = log };
	struct child c;
	int ret;

	site_program(s, "admit", program);
	site_path(s, PINS, pins);
	site_path(s, "admit.log", log);
	if (!strcmp(verb, "pin")) {
		args[4] = "--user";
		args[5] = user_name();
		args[6] = "--group";
		args[7] = group_name();
	}
	ret = child_start(&at, "ssdtf-admit", args, &c);
	return ret ? ret : child_wait(&c);
}

static int filter_try(const struct site *s, char *ret_why, size_t room)
{
	char program[SITE_PATH_BYTES], log[SITE_PATH_BYTES], line[LINE_BYTES];
	int ret;

	site_program(s, "admit", program);
	if (access(program, X_OK)) {
		snprintf(ret_why, room, "%s is not there: make", program);
		return -ENOTSUP;
	}
	if (!user_name() || !group_name()) {
		snprintf(ret_why, room, "/etc/passwd or /etc/group has no number %d (nobody)",
			 CHILD_NOBODY);
		return -ENOTSUP;
	}
	if (!s->lab->bpf[0]) {
		snprintf(ret_why, room, "this kernel has no bpf file system (CONFIG_BPF_SYSCALL)");
		return -ENOTSUP;
	}
	ret = admit(s, "pin", log);
	if (!ret)
		ret = admit(s, "unpin", log);
	if (!ret)
		return 0;
	child_last_line(log, line, sizeof(line));
	snprintf(ret_why, room, "%.*s", LINE_BYTES, line[0] ? line : "ssdtf-admit failed");
	return -ENOTSUP;
}

static void filter_pin(const struct site *s)
{
	char log[SITE_PATH_BYTES], line[LINE_BYTES];

	/* From the round before: a filter starts with empty tables. */
	(void)admit(s, "unpin", log);
	if (!admit(s, "pin", log))
		return;
	child_last_line(log, line, sizeof(line));
	exit_with(EX_UNAVAILABLE, "the filter cannot be pinned: %s", line);
}

/* A broker that fell back, or did not, would make the figures another server's. */
static void check_kernel(const struct server *v, const char *log)
{
	const char *wanted = v->kind == SERVER_FILTER ? "kernel=on" : "kernel=off";
	char line[LINE_BYTES] = "";

	if (child_said(log, "event=admission kernel=", line, sizeof(line)) && strstr(line, wanted))
		return;
	exit_with(EX_UNAVAILABLE, "ssdtf-broker was to run with %s: %s", wanted,
		  line[0] ? line : "it says nothing of admission");
}

/* --- the brokers ------------------------------------------------------------------------------ */

/* Nobody is ever banned, so that every bogus connection costs what the first one does. */
static void broker_config(const struct server *v, const char *path, const char *state)
{
	const char *dir = v->site->lab->dir;
	char text[CONFIG_BYTES], pins[SITE_PATH_BYTES];
	int n;

	n = snprintf(text, sizeof(text),
		     "listen = { \"" LAB_SERVER_TEXT ":%u\" }\n"
		     "gateway-id = \"gateway-1\"\n"
		     "manager-key = \"%s/manager.pub\"\n"
		     "bundle = \"%s/gateway/gateway.bundle\"\n"
		     "state-dir = \"%s\"\n"
		     "hsm-sockets = \"%s/gateway/run\"\n",
		     v->port, dir, dir, state, dir);
	BUG_ON(n >= (int)sizeof(text));
	if (v->kind != SERVER_OFF) {
		site_path(v->site, v->kind == SERVER_FILTER ? PINS : "no-pins", pins);
		n += snprintf(text + n, sizeof(text) - (size_t)n,
			      "admission = \"enforce\"\n"
			      "admission-pins = \"%s\"\n"
			      "limits {\n\tadmission-grace-ms = 0\n\tadmission-ban-ms = 0\n}\n",
			      pins);
		BUG_ON(n >= (int)sizeof(text));
	}
	write_config(path, text);
}

static void state_make(const struct server *v, char *state)
{
	static unsigned number;
	char name[64];

	snprintf(name, sizeof(name), "gateway/state-%u", ++number);
	site_path(v->site, name, state);
	if (mkdir(state, 0700) || chown(state, CHILD_NOBODY, CHILD_NOBODY))
		exit_with(EX_CANTCREAT, "%s: %s", state, strerror(errno));
}

static void broker_start(struct server *v)
{
	char program[SITE_PATH_BYTES], config[SITE_PATH_BYTES], log[SITE_PATH_BYTES];
	char state[SITE_PATH_BYTES], line[LINE_BYTES];
	const struct child_place at = { .net = -1,
					.cpu = v->site->lab->server_cpu,
					.nobody = true,
					.group = v->site->lab->group,
					.log = log };
	const char *const args[] = { program, "--config", config, NULL };
	int ret;

	site_program(v->site, "broker", program);
	own_path(v, "conf", config);
	own_path(v, "log", log);
	(void)unlink(log); /* the round before's */
	state_make(v, state);
	broker_config(v, config, state);
	if (v->kind == SERVER_FILTER)
		filter_pin(v->site);
	ret = child_start(&at, "ssdtf-broker", args, &v->child);
	if (ret)
		exit_with(EX_OSERR, "ssdtf-broker cannot be started: %s", strerror(-ret));
	child_await(&v->child, log, "ready:", READY_S, line, sizeof(line));
	if (v->kind != SERVER_OFF)
		check_kernel(v, log);
}

static void mosquitto_start(struct server *v, const char *mosquitto)
{
	char config[SITE_PATH_BYTES], log[SITE_PATH_BYTES], text[256], line[LINE_BYTES];
	const struct child_place at = { .net = -1,
					.cpu = v->site->lab->server_cpu,
					.nobody = true,
					.group = v->site->lab->group,
					.log = log };
	const char *const args[] = { mosquitto, "-c", config, NULL };
	int ret;

	own_path(v, "conf", config);
	own_path(v, "log", log);
	(void)unlink(log);
	snprintf(text, sizeof(text),
		 "listener %u " LAB_SERVER_TEXT "\nallow_anonymous true\npersistence false\n"
		 "log_dest stderr\nlog_type error\nlog_type warning\nlog_type information\n"
		 "connection_messages false\n",
		 v->port);
	write_config(config, text);
	ret = child_start(&at, "mosquitto", args, &v->child);
	if (ret)
		exit_with(EX_OSERR, "mosquitto cannot be started: %s", strerror(-ret));
	child_await(&v->child, log, " running", READY_S, line, sizeof(line));
}

int server_try(const struct site *s, enum server_kind k, const char *mosquitto, char *ret_why,
	       size_t room)
{
	switch (k) {
	case SERVER_FILTER:
		return filter_try(s, ret_why, room);
	case SERVER_CHECKS:
	case SERVER_OFF:
		return 0;
	case SERVER_MOSQUITTO:
		if (!access(mosquitto, X_OK))
			return 0;
		snprintf(ret_why, room,
			 "%s is not there: apt install mosquitto (which starts it as a daemon: "
			 "systemctl disable --now mosquitto), or --mosquitto PATH",
			 mosquitto);
		return -ENOTSUP;
	case SERVER_KINDS:
		break;
	}
	BUG_ON(true);
}

void server_start(struct server *v, const struct site *s, enum server_kind k, uint16_t port,
		  const char *mosquitto)
{
	*v = (struct server){ .kind = k, .port = port, .site = s };
	if (k == SERVER_MOSQUITTO)
		mosquitto_start(v, mosquitto);
	else
		broker_start(v);
}

void server_stop(struct server *v)
{
	child_stop(&v->child);
}

void server_meter(const struct server *v, struct meter *ret_m)
{
	*ret_m = (struct meter){ .server_cpu = v->site->lab->server_cpu,
				 .client_cpu = v->site->lab->good_cpu,
				 .port = v->port,
				 .n_sessions = 1,
				 .sessions = { v->child.pid } };
	if (v->kind != SERVER_MOSQUITTO)
		ret_m->sessions[ret_m->n_sessions++] = v->site->hsmd.pid;
}
