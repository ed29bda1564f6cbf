// SPDX-License-Identifier: MIT
#include "bench/lab/site.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "userspace/base/file.h"
#include "userspace/base/log.h"

#define MODULE	      "/usr/lib/softhsm/libsofthsm2.so"
#define SOFTHSM_UTIL  "/usr/bin/softhsm2-util"
#define PIN	      "bench-4711" /* of tokens that live as long as the measurement */
#define GATEWAY	      "gateway-1"
#define SCOPE	      "bench"
#define PROGRESS_EACH 64

/* Of the paths that stay the same. */
struct paths {
	char conf[SITE_PATH_BYTES];
	char pin[SITE_PATH_BYTES];
	char env[SITE_PATH_BYTES + 16];
	char log[SITE_PATH_BYTES];
};

void site_program(const struct site *s, const char *name, char *path)
{
	if (snprintf(path, SITE_PATH_BYTES, "%s/ssdtf-%s", s->programs, name) >= SITE_PATH_BYTES)
		exit_with(EX_USAGE, "the path of the programs is too long");
}

void site_path(const struct site *s, const char *name, char *path)
{
	/* The lab's folder is shorter than half of it. */
	BUG_ON(snprintf(path, SITE_PATH_BYTES, "%s/%s", s->lab->dir, name) >= SITE_PATH_BYTES);
}

void site_device_id(unsigned i, char id[SITE_ID_BYTES])
{
	snprintf(id, SITE_ID_BYTES, "device-%03u", i);
}

void site_receiver_id(unsigned i, char id[SITE_ID_BYTES])
{
	snprintf(id, SITE_ID_BYTES, "receiver-%03u", i);
}

static void own_folder(char *path)
{
	ssize_t n = readlink("/proc/self/exe", path, SITE_PATH_BYTES - 1);

	if (n < 0)
		exit_with(EX_OSERR, "/proc/self/exe: %s", strerror(errno));
	path[n] = '\0';
	*strrchr(path, '/') = '\0';
}

/* The lab has the same files, but its programs may be started from elsewhere. One that is not there
 * is found missing with its programs. */
static void given_folder(const char *programs, char *path)
{
	char *absolute = realpath(programs, NULL);
	const char *found = absolute ? absolute : programs;

	if (strlen(found) >= SITE_PATH_BYTES)
		exit_with(EX_USAGE, "--programs: the path is too long");
	memcpy(path, found, strlen(found) + 1);
	free(absolute);
}

int site_find(struct site *s, const char *programs, char *ret_missing, size_t room)
{
	static const char *const names[] = { "admin", "hsmd", "broker" };
	char path[SITE_PATH_BYTES];

	if (!programs)
		own_folder(s->programs);
	else
		given_folder(programs, s->programs);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		site_program(s, names[i], path);
		if (!access(path, X_OK))
			continue;
		snprintf(ret_missing, room, "%s is not there: make, or --programs DIR", path);
		return -ENOENT;
	}
	if (access(SOFTHSM_UTIL, X_OK) || access(MODULE, R_OK)) {
		snprintf(ret_missing, room, "SoftHSM is not there: apt install softhsm2");
		return -ENOENT;
	}
	return 0;
}

/* --- small steps ------------------------------------------------------------------------------ */

static void folder(const struct site *s, const char *name, bool nobody)
{
	char path[SITE_PATH_BYTES];

	site_path(s, name, path);
	if (mkdir(path, 0700) || (nobody && chown(path, CHILD_NOBODY, CHILD_NOBODY)))
		exit_with(EX_CANTCREAT, "%s: %s", path, strerror(errno));
}

static void file(const char *path, const char *text, mode_t mode, bool nobody)
{
	int ret = file_write(AT_FDCWD, path, bytes_str(text), mode);

	if (!ret && nobody && chown(path, CHILD_NOBODY, CHILD_NOBODY))
		ret = -errno;
	if (ret)
		exit_with(EX_CANTCREAT, "%s: %s", path, strerror(-ret));
}

static void paths_of(const struct site *s, const char *who, struct paths *ret_p)
{
	char name[64];

	snprintf(name, sizeof(name), "%s/softhsm2.conf", who);
	site_path(s, name, ret_p->conf);
	snprintf(name, sizeof(name), "%s/pin", who);
	site_path(s, name, ret_p->pin);
	snprintf(name, sizeof(name), "%s.log", who);
	site_path(s, name, ret_p->log);
	snprintf(ret_p->env, sizeof(ret_p->env), "SOFTHSM2_CONF=%s", ret_p->conf);
}

/* who/ with a token of that name in it. */
static void token_make(const struct site *s, const char *who, bool nobody)
{
	char tokens[SITE_PATH_BYTES], text[2 * SITE_PATH_BYTES], name[64];
	struct paths p;
	const char *const args[] = {
		SOFTHSM_UTIL, "--init-token", "--free", "--label", who, "--pin",
		PIN,	      "--so-pin",     PIN,	NULL
	};
	struct child_place at = { .net = -1, .cpu = -1, .nobody = nobody };

	folder(s, who, nobody);
	snprintf(name, sizeof(name), "%s/tokens", who);
	folder(s, name, nobody);
	site_path(s, name, tokens);
	paths_of(s, who, &p);
	snprintf(text, sizeof(text),
		 "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n",
		 tokens);
	file(p.conf, text, 0600, nobody);
	file(p.pin, PIN "\n", 0600, nobody);
	at.env = p.env;
	at.log = p.log;
	child_must(&at, "softhsm2-util", args);
}

/* ssdtf-admin with up to CHILD_ARGS_MAX - 4 words. */
static void admin(const struct site *s, const char *const *words)
{
	char program[SITE_PATH_BYTES], state[SITE_PATH_BYTES];
	const char *args[CHILD_ARGS_MAX] = { program, "--dir", state };
	struct paths p;
	struct child_place at = { .net = -1, .cpu = -1, .env = p.env, .log = p.log };
	unsigned n = 3;

	site_program(s, "admin", program);
	site_path(s, "manager/state", state);
	paths_of(s, "manager", &p);
	while (*words) {
		BUG_ON(n + 1 >= CHILD_ARGS_MAX);
		args[n++] = *words++;
	}
	child_must(&at, "ssdtf-admin", args);
}

#define ADMIN(s, ...) admin(s, (const char *const[]){ __VA_ARGS__, NULL })

/* --- who is who ------------------------------------------------------------------------------- */

static void gateway_make(const struct site *s)
{
	char program[SITE_PATH_BYTES], public[SITE_PATH_BYTES];
	struct paths p;
	struct child_place at = {
		.net = -1, .cpu = -1, .nobody = true, .env = p.env, .log = p.log
	};
	const char *const args[] = { program,	 "keygen",  "--module",	  MODULE,
				     "--token",	 "gateway", "--pin-file", p.pin,
				     "--public", public,    NULL };

	token_make(s, "gateway", true);
	folder(s, "gateway/run", true);
	paths_of(s, "gateway", &p);
	site_program(s, "hsmd", program);
	site_path(s, "gateway/public.pem", public);
	child_must(&at, "ssdtf-hsmd keygen", args);
	ADMIN(s, "enrol", "gateway", "--id", GATEWAY, "--public", public);
}

static void progress(unsigned done, unsigned all, const char *who)
{
	if (done % PROGRESS_EACH == 0)
		fprintf(stderr, "ssdtf-bench: %u of %u %s are enrolled\n", done, all, who);
}

static void party_folder(const struct site *s, const char *id, char *path)
{
	char name[64];

	snprintf(name, sizeof(name), "parties/%s", id);
	site_path(s, name, path);
}

static void devices_make(const struct site *s)
{
	char path[SITE_PATH_BYTES], id[SITE_ID_BYTES];

	for (unsigned i = 0; i < s->n_devices; i++) {
		site_device_id(i, id);
		party_folder(s, id, path);
		ADMIN(s, "enrol", "device", "--id", id, "--generate", path);
		/* Who only connects needs no scope; it halves the time. */
		if (s->n_receivers)
			ADMIN(s, "scope", "allow", "--scope", SCOPE, "--device", id);
		progress(i + 1, s->n_devices, "devices");
	}
}

static void receivers_make(const struct site *s)
{
	char path[SITE_PATH_BYTES], id[SITE_ID_BYTES];

	for (unsigned i = 0; i < s->n_receivers; i++) {
		site_receiver_id(i, id);
		party_folder(s, id, path);
		ADMIN(s, "enrol", "receiver", "--id", id, "--generate", path);
		ADMIN(s, "grant", "--scope", SCOPE, "--receiver", id);
		progress(i + 1, s->n_receivers, "receivers");
	}
}

static void bundle_hand_out(const struct site *s, const char *id)
{
	char from[SITE_PATH_BYTES], to[SITE_PATH_BYTES], name[64];

	snprintf(name, sizeof(name), "bundles/party-%s.bundle", id);
	site_path(s, name, from);
	snprintf(name, sizeof(name), "parties/%s/bundle", id);
	site_path(s, name, to);
	if (rename(from, to))
		exit_with(EX_CANTCREAT, "%s: %s", to, strerror(errno));
}

/* Each party's bundle goes beside its keys; the gateway's to the gateway. */
static void bundles_make(const struct site *s)
{
	char bundles[SITE_PATH_BYTES], from[SITE_PATH_BYTES], to[SITE_PATH_BYTES];
	char id[SITE_ID_BYTES];

	site_path(s, "bundles", bundles);
	ADMIN(s, "bundle", "all", "--out-dir", bundles);
	site_path(s, "bundles/gateway-" GATEWAY ".bundle", from);
	site_path(s, "gateway/gateway.bundle", to);
	if (rename(from, to) || chown(to, CHILD_NOBODY, CHILD_NOBODY))
		exit_with(EX_CANTCREAT, "%s: %s", to, strerror(errno));
	for (unsigned i = 0; i < s->n_devices; i++) {
		site_device_id(i, id);
		bundle_hand_out(s, id);
	}
	for (unsigned i = 0; i < s->n_receivers; i++) {
		site_receiver_id(i, id);
		bundle_hand_out(s, id);
	}
}

/* The broker, which is nobody, reads the manager's public key from here. */
static void manager_key_publish(const struct site *s)
{
	char from[SITE_PATH_BYTES], to[SITE_PATH_BYTES];
	uint8_t pem[4096];
	size_t n;
	int ret;

	site_path(s, "manager/state/manager.pub", from);
	site_path(s, "manager.pub", to);
	ret = file_read_into(AT_FDCWD, from, pem, sizeof(pem), &n);
	if (!ret)
		ret = file_write(AT_FDCWD, to, bytes_of(pem, n), 0644);
	if (ret)
		exit_with(EX_CANTCREAT, "%s: %s", to, strerror(-ret));
}

void site_make(struct site *s, const struct lab *lab, unsigned n_devices, unsigned n_receivers)
{
	struct paths p;

	BUG_ON(n_devices > SITE_DEVICES_MAX || n_receivers > SITE_DEVICES_MAX);
	s->lab = lab;
	s->n_devices = n_devices;
	s->n_receivers = n_receivers;
	token_make(s, "manager", false);
	paths_of(s, "manager", &p);
	ADMIN(s, "init", "--module", MODULE, "--token", "manager", "--pin-file", p.pin);
	manager_key_publish(s);
	gateway_make(s);
	folder(s, "parties", false);
	ADMIN(s, "scope", "add", "--name", SCOPE, "--filter", "bench/#");
	devices_make(s);
	receivers_make(s);
	bundles_make(s);
}

void site_make_plain(struct site *s, const struct lab *lab)
{
	s->lab = lab;
	folder(s, "gateway", true);
}

void site_start_hsmd(struct site *s, unsigned workers, int cpu)
{
	char program[SITE_PATH_BYTES], run[SITE_PATH_BYTES], log[SITE_PATH_BYTES], number[16];
	struct paths p;
	struct child_place at = { .net = -1,
				  .cpu = cpu,
				  .nobody = true,
				  .group = s->lab->group,
				  .env = p.env,
				  .log = log };
	const char *const args[] = { program,	   "run",	"--module",
				     MODULE,	   "--token",	"gateway",
				     "--pin-file", p.pin,	"--socket-dir",
				     run,	   "--workers", number,
				     NULL };
	int ret;

	paths_of(s, "gateway", &p);
	site_program(s, "hsmd", program);
	site_path(s, "gateway/run", run);
	site_path(s, "hsmd.log", log);
	snprintf(number, sizeof(number), "%u", workers);
	ret = child_start(&at, "ssdtf-hsmd", args, &s->hsmd);
	if (ret)
		exit_with(EX_OSERR, "ssdtf-hsmd cannot be started: %s", strerror(-ret));
}
