// SPDX-License-Identifier: MIT
#include "bench/flow/broker.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/flow/clients.h"
#include "userspace/base/file.h"
#include "userspace/base/log.h"

#define ADDRESS	     "127.0.0.1"
#define READY_S	     30
#define LINE_BYTES   512
#define CONFIG_BYTES 8192
#define ROOM	     1000 /* connections and sessions beyond those of the scenario */

int broker_try(const struct site *s, enum scenario_server server, const char *mosquitto,
	       char *ret_why, size_t room)
{
	(void)s;
	if (server != SCENARIO_MOSQUITTO || !access(mosquitto, X_OK))
		return 0;
	snprintf(ret_why, room,
		 "%s is not there: apt install mosquitto (which starts it as a daemon: "
		 "systemctl disable --now mosquitto), or --mosquitto PATH",
		 mosquitto);
	return -ENOTSUP;
}

/* --- configurations --------------------------------------------------------------------------- */

static void write_config(const char *path, const char *text)
{
	int ret = file_write(AT_FDCWD, path, bytes_str(text), 0644);

	if (ret)
		exit_with(EX_CANTCREAT, "%s: %s", path, strerror(-ret));
}

/* In the gateway's folder, nobody's. */
static void state_make(const struct site *s, char *state)
{
	static unsigned number;
	char name[64];

	snprintf(name, sizeof(name), "gateway/state-%u", ++number);
	site_path(s, name, state);
	if (mkdir(state, 0700) || chown(state, CHILD_NOBODY, CHILD_NOBODY))
		exit_with(EX_CANTCREAT, "%s: %s", state, strerror(errno));
}

/* The lab's folder is memory. */
static void state_remove(const char *state)
{
	DIR *d = opendir(state);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		if (e->d_name[0] != '.')
			(void)unlinkat(dirfd(d), e->d_name, 0); /* rmdir() says it */
	}
	if (d)
		(void)closedir(d);
	if (rmdir(state))
		log_warn("%s cannot be removed: %s", state, strerror(errno));
}

/*
 * Limits are a gateway's own but where they would be what is measured, as mosquitto's are lifted
 * too: messages that one client has not acknowledged (128) or that wait for it (10,000), unsent
 * bytes of all clients (128 MiB), subscriptions of one (256), retained messages, clients.
 */
static size_t write_limits(const struct scenario *sc, char *text, size_t room)
{
	unsigned clients = clients_senders(sc) + clients_receivers(sc) + clients_others(sc) +
			   sc->idle + (sc->kind == SCENARIO_CONNECT ? sc->clients : 0) + ROOM;
	unsigned retained = sc->topics < 100000 ? 100000 : sc->topics;

	return (size_t)snprintf(text, room,
				"limits {\n"
				"\tinflight-max = 65535\n"
				"\tqueue-messages-max = 1000000\n"
				"\tqueue-bytes-max = 1073741824\n"
				"\toutput-bytes-total = 1073741824\n"
				"\tsubscriptions-max = 1000000\n"
				"\tretained-max = %u\n"
				"\tconnections-max = %u\n"
				"\tsessions-max = %u\n"
				"\tadmission-connects-per-second = 1000000\n"
				"\tcontexts-max = 1000000\n"
				"}\n",
				retained, clients < 20000 ? 20000 : clients,
				clients < 50000 ? 50000 : clients);
}

static void config_ssdtf(struct broker_process *b, const struct scenario *sc, const char *path)
{
	const char *dir = b->site->lab->dir;
	char text[CONFIG_BYTES];
	size_t n = write_limits(sc, text, sizeof(text));

	n += (size_t)snprintf(text + n, sizeof(text) - n, "listen = { \"" ADDRESS ":%u\" }\n",
			      BROKER_PORT);
	if (b->server == SCENARIO_PLAIN) {
		n += (size_t)snprintf(text + n, sizeof(text) - n, "plain = true\n");
	} else {
		state_make(b->site, b->state);
		n += (size_t)snprintf(text + n, sizeof(text) - n,
				      "gateway-id = \"gateway-1\"\n"
				      "manager-key = \"%s/manager.pub\"\n"
				      "bundle = \"%s/gateway/gateway.bundle\"\n"
				      "state-dir = \"%s\"\n"
				      "hsm-sockets = \"%s/gateway/run\"\n"
				      "workers = %u\n",
				      dir, dir, b->state, dir, sc->workers);
	}
	BUG_ON(n >= sizeof(text));
	write_config(path, text);
}

/* No limit on what is under way or waits, nothing stored, nothing said for each message; Nagle's
 * algorithm off, as it is with ssdtf-broker. */
static void config_mosquitto(const char *path)
{
	char text[CONFIG_BYTES];

	snprintf(text, sizeof(text),
		 "listener %u " ADDRESS "\nallow_anonymous true\npersistence false\n"
		 "max_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\n"
		 "log_dest stderr\nlog_type error\nlog_type warning\nlog_type information\n"
		 "connection_messages false\n",
		 BROKER_PORT);
	write_config(path, text);
}

/* --- the process ------------------------------------------------------------------------------ */

/* The counts come from a library that the broker is made to load; what it needs is in its
 * environment. */
static void mallocs_prepare(struct broker_process *b, char *preload, size_t room)
{
	char file[SITE_PATH_BYTES], program[SITE_PATH_BYTES];

	site_path(b->site, "gateway/mallocs", file);
	(void)unlink(file);
	if (file_write(AT_FDCWD, file, bytes_str("00000000"), 0600) ||
	    chown(file, CHILD_NOBODY, CHILD_NOBODY))
		exit_with(EX_CANTCREAT, "%s: %s", file, strerror(errno));
	snprintf(program, sizeof(program), "%.*s/lib/ssdtf-malloc-count.so", SITE_PATH_BYTES - 40,
		 b->site->programs);
	if (access(program, R_OK))
		exit_with(EX_UNAVAILABLE, "%s is not there: make", program);
	snprintf(preload, room, "LD_PRELOAD=%s", program);
	if (setenv("SSDTF_MALLOC_COUNT", file, 1))
		exit_with(EX_OSERR, "no memory");
}

/* A broker that connects are made to gets a part of its CPU, so that their rate is the broker's and
 * not the clients'. */
static const char *group_of(const struct broker_process *b, const struct scenario *sc)
{
	return sc->kind == SCENARIO_CONNECT ? b->site->lab->group : NULL;
}

static void launch(struct broker_process *b, const struct scenario *sc, const char *const *args,
		   const char *ready, const char *env)
{
	const struct child_place at = { .net = -1,
					.cpu = b->site->lab->server_cpu,
					.nobody = true,
					.group = group_of(b, sc),
					.env = env,
					.log = b->log };
	char line[LINE_BYTES];
	int ret = child_start(&at, b->server == SCENARIO_MOSQUITTO ? "mosquitto" : "ssdtf-broker",
			      args, &b->child);

	if (ret)
		exit_with(EX_OSERR, "%s cannot be started: %s", args[0], strerror(-ret));
	child_await(&b->child, b->log, ready, READY_S, line, sizeof(line));
}

void broker_start(struct broker_process *b, const struct site *s, const struct scenario *sc,
		  const char *mosquitto)
{
	char program[SITE_PATH_BYTES], config[SITE_PATH_BYTES], preload[SITE_PATH_BYTES + 16];
	const char *const ours[] = { program, "--config", config, NULL };
	const char *const theirs[] = { mosquitto, "-c", config, NULL };

	*b = (struct broker_process){ .server = sc->server, .site = s };
	site_path(s, "broker.conf", config);
	site_path(s, "broker.log", b->log);
	(void)unlink(b->log); /* the one before's */
	if (sc->server == SCENARIO_MOSQUITTO) {
		config_mosquitto(config);
		launch(b, sc, theirs, " running", NULL);
		return;
	}
	site_program(s, "broker", program);
	config_ssdtf(b, sc, config);
	b->counts_mallocs = sc->count_mallocs;
	if (b->counts_mallocs)
		mallocs_prepare(b, preload, sizeof(preload));
	launch(b, sc, ours, "ready:", b->counts_mallocs ? preload : NULL);
	(void)unsetenv("SSDTF_MALLOC_COUNT");
}

void broker_stop(struct broker_process *b)
{
	child_stop(&b->child);
	if (b->state[0])
		state_remove(b->state);
}
