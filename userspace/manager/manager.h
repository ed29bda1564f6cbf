/* SPDX-License-Identifier: MIT */
/*
 * The manager at work for one command: its directory, registry and token, what it says and why it
 * failed.
 *
 *   DIR/registry.db   registry.h            DIR/lock         one writing command at a time
 *   DIR/manager.pub   public key, PEM       DIR/token.lock   around the token's initialisation
 *
 * A command is one transaction: manager_begin, what it does, manager_commit. What it tells (m->out)
 * reaches stdout only once the transaction is on the disk; files it made are removed again where
 * the transaction is not. Between processes DIR/lock makes writers wait for each other, so that a
 * serial taken later always stands for a state at least as new.
 *
 * Functions that take a manager return 0 or -errno and have put the words for people into m->error
 * by then (manager_fail); the main prints them. By the errno (see admin_main.c): -EINVAL bad input,
 * -ESRCH no such party, scope or gateway, -EEXIST a contradiction to what is registered, -ENOENT a
 * file, -ENODATA not initialised, -EBUSY locked, -ENODEV token away, -EACCES refused. One thread.
 */
#ifndef SSDTF_MANAGER_MANAGER_H
#define SSDTF_MANAGER_MANAGER_H

#include <stdio.h>

#include "hsm/token.h"
#include "userspace/base/compiler.h"
#include "userspace/base/file.h"
#include "userspace/manager/registry.h"

#define MANAGER_KEY_LABEL   "ssdtf-manager"
#define MANAGER_STORE_LABEL "ssdtf-store"
#define MANAGER_TRACE_LABEL "ssdtf-trace" /* EC, derives only: opens what is sealed to it */
#define MANAGER_ID_ROOM	    65		  /* PROTOCOL 1: at most 64, and a terminator */
#define MANAGER_LABEL_ROOM  33		  /* PKCS#11: 32, and a terminator */
#define MANAGER_MADE_MAX    4

/* The directory, and what names the token: NULL where the registry is to say. Outlives m. */
struct manager_config {
	const char *dir;
	const char *module;
	const char *token_label;
	const char *pin_file;
};

struct manager {
	struct manager_config config;
	uint64_t now_ms; /* the command's one look at the clock */
	int lock_fd;
	bool made_directory;
	bool dry_run; /* nothing is kept: no file is made, and the commit takes all back */
	char registry_path[FILE_PATH_BYTES_MAX];
	struct registry registry;
	struct p256_point key; /* the manager's public key, from the registry */
	struct token *token;   /* NULL until manager_token(), and so are these: */
	char module[FILE_PATH_BYTES_MAX], pin_file[FILE_PATH_BYTES_MAX];
	char token_lock[FILE_PATH_BYTES_MAX];
	char token_label[MANAGER_LABEL_ROOM];
	FILE *out; /* what a command says; printed by manager_flush() */
	char *out_text;
	size_t out_bytes;
	char *made[MANAGER_MADE_MAX]; /* files this transaction made, freed by commit and rollback
				       */
	unsigned n_made;
	int exit_code; /* of sysexits.h, where the errno alone does not tell; or 0 */
	char error[512];
};

enum manager_access {
	MANAGER_READS,
	MANAGER_WRITES,	 /* waits for its turn at DIR/lock */
	MANAGER_SETS_UP, /* and makes DIR where there is none */
};

/* Both leave m fit for manager_close(), whatever they return. Start goes as far as the lock: for
 * setup.c, which makes what there is not yet. */
int manager_open(struct manager *m, const struct manager_config *c, enum manager_access access,
		 uint64_t now_ms) must_check;
int manager_start(struct manager *m, const struct manager_config *c, enum manager_access access,
		  uint64_t now_ms) must_check;
/* m->key from the registry; *ret_found false where init did not come so far. */
int manager_load_key(struct manager *m, bool *ret_found) must_check;
void manager_close(struct manager *m);

/*
 * For a command that lasts: between its transactions others have their turn at DIR/lock. Resuming
 * waits for ours, and looks at the clock anew; -EBUSY leaves it as it was.
 */
void manager_pause(struct manager *m);
int manager_resume(struct manager *m) must_check;

int manager_begin(struct manager *m) must_check;
int manager_commit(struct manager *m) must_check;
void manager_rollback(struct manager *m);
/* A file (or an empty folder) to be removed again on rollback. */
int manager_made(struct manager *m, const char *path) must_check;
/* What the command said since, to the real stdout. */
int manager_flush(struct manager *m) must_check;

/* Opens the token if it is not yet, and makes sure that it is this registry's. */
int manager_token(struct manager *m) must_check;
/* The same without looking at its keys. */
int manager_token_open(struct manager *m) must_check;
/* The public half of the tracing key. A token of before there was one gets it now; only in a
 * transaction that writes. */
int manager_trace_key(struct manager *m, struct p256_point *ret_key) must_check;
/* The next serial, and n - 1 behind it; only in a transaction, which is committed before any of
 * them is seen outside. They follow the clock where they can, so that one made from a registry that
 * was restored from an old copy is above those that were signed after the copy was taken. */
int manager_serials(struct manager *m, uint64_t n, uint64_t *ret_first) must_check;
/* A line for the history. */
int manager_note(struct manager *m, const char *action, const char *subject,
		 const char *detail) must_check;
/* When this was last noted, or 0. */
int manager_noted(struct manager *m, const char *action, const char *subject,
		  uint64_t *ret_at_ms) must_check;

/* Puts words into m->error and returns err. */
int manager_fail(struct manager *m, int err, const char *fmt, ...) format_printf(3, 4);
/* The registry's, the token's and the system's words. 0 stays 0. */
int manager_fail_registry(struct manager *m, int err);
int manager_fail_token(struct manager *m, int err);
int manager_fail_file(struct manager *m, int err, const char *doing, const char *path);

/* -EINVAL with words unless v is an id (PROTOCOL 1); what says whose. */
int manager_check_id(struct manager *m, const char *what, const char *v) must_check;

#endif
