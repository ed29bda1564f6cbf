/* SPDX-License-Identifier: MIT */
/*
 * A SoftHSM token of a test's own, in a temporary directory, and a raw PKCS#11 session on it such
 * as anybody has who holds the PIN. For test_token.c and test_hsmd.c, which differ in what stands
 * between them and the token: nothing but hsm/token.h, or ssdtf-hsmd.
 *
 * The gateway's keys are made once a run of the test program and copied for each test, because the
 * RSA key takes a second. token_env_main() owns the directory that all of it is in.
 */
#ifndef SSDTF_TESTS_TOKEN_ENV_H
#define SSDTF_TESTS_TOKEN_ENV_H

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CRYPTOKI_GNU
#include <p11-kit/pkcs11.h>

#include "hsm/token.h"
#include "tests/harness.h"
#include "userspace/crypto/grant.h"
#include "userspace/crypto/rsa.h"

#define TOKEN_ENV_MODULE "/usr/lib/softhsm/libsofthsm2.so"
#define TOKEN_ENV_LABEL	 "gateway"
#define TOKEN_ENV_PIN	 "4711-test"
#define TOKEN_ENV_SO_PIN "8150-test"
#define PATH_ROOM	 512

struct token_env {
	char dir[PATH_ROOM];	/* of this test alone */
	char tokens[PATH_ROOM]; /* SoftHSM's directory */
	char aside[PATH_ROOM];	/* where it is moved to, to be gone */
	char pin[PATH_ROOM];
	char lock[PATH_ROOM];
	struct token_config config;
	uint8_t spki[TOKEN_SPKI_BYTES_MAX]; /* of the unwrapping key */
	size_t spki_n;
};

static inline void path_in(const char *dir, const char *name, char out[PATH_ROOM])
{
	ASSERT_LT(snprintf(out, PATH_ROOM, "%s/%s", dir, name), PATH_ROOM);
}

/* A new file, whatever the mode of the old one. */
static inline void write_file(const char *path, const char *text, mode_t mode)
{
	int fd;

	(void)unlink(path); /* not there: as well */
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ASSERT_EQ(fchmod(fd, mode), 0);
	ASSERT_EQ(close(fd), 0);
}

static inline void copy_file(const char *from, const char *to)
{
	char bytes[65536];
	int in = open(from, O_RDONLY | O_CLOEXEC);
	int out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ssize_t n;

	ASSERT_TRUE(in >= 0 && out >= 0);
	while ((n = read(in, bytes, sizeof(bytes))) > 0)
		ASSERT_EQ(write(out, bytes, (size_t)n), n);
	ASSERT_EQ(n, 0);
	ASSERT_EQ(close(in) | close(out), 0);
}

/* A directory of directories of files: SoftHSM's has no more than that. */
static inline void copy_tree(const char *from, const char *to)
{
	DIR *d = opendir(from);
	struct dirent *e;

	ASSERT_TRUE(d);
	ASSERT_EQ(mkdir(to, 0700), 0);
	while ((e = readdir(d))) {
		char a[PATH_ROOM], b[PATH_ROOM];

		if (e->d_name[0] == '.')
			continue;
		path_in(from, e->d_name, a);
		path_in(to, e->d_name, b);
		if (e->d_type == DT_DIR)
			copy_tree(a, b);
		else
			copy_file(a, b);
	}
	closedir(d);
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	return remove(path);
}

static inline void remove_tree(const char *path)
{
	(void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS); /* a temporary directory */
}

/* --- the module, raw --- */

/* Cryptoki takes what it only reads through pointers to non-const. */
static inline void *raw_bytes(const void *p)
{
	return (void *)(uintptr_t)p;
}

struct raw {
	struct ck_function_list *f;
	ck_slot_id_t slot;
	ck_session_handle_t session;
};

static inline struct ck_function_list *raw_module(void)
{
	void *dl = dlopen(TOKEN_ENV_MODULE, RTLD_NOW | RTLD_LOCAL);
	void *symbol = dl ? dlsym(dl, "C_GetFunctionList") : NULL;
	ck_rv_t (*get)(struct ck_function_list * *list);
	struct ck_function_list *f = NULL;

	if (!symbol)
		return NULL;
	memcpy(&get, &symbol, sizeof(get));
	return get(&f) == CKR_OK ? f : NULL;
}

/* The slot of the token that is labelled so; -1: there is none. */
static inline long raw_slot(struct ck_function_list *f, const char *label)
{
	ck_slot_id_t slots[16];
	unsigned long n = 16;
	char padded[33];

	snprintf(padded, sizeof(padded), "%-32s", label);
	if (f->C_GetSlotList(1, slots, &n) != CKR_OK)
		return -1;
	for (unsigned long i = 0; i < n; i++) {
		struct ck_token_info info;

		if (f->C_GetTokenInfo(slots[i], &info) == CKR_OK &&
		    info.flags & CKF_TOKEN_INITIALIZED && !memcmp(info.label, padded, 32))
			return (long)slots[i];
	}
	return -1;
}

static inline void raw_open(struct raw *r)
{
	long slot;

	r->f = raw_module();
	ASSERT_TRUE(r->f);
	ASSERT_EQ(r->f->C_Initialize(NULL), CKR_OK);
	slot = raw_slot(r->f, TOKEN_ENV_LABEL);
	ASSERT_GE(slot, 0);
	r->slot = (ck_slot_id_t)slot;
	ASSERT_EQ(r->f->C_OpenSession(r->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL,
				      &r->session),
		  CKR_OK);
	ASSERT_EQ(r->f->C_Login(r->session, CKU_USER, raw_bytes(TOKEN_ENV_PIN),
				strlen(TOKEN_ENV_PIN)),
		  CKR_OK);
}

static inline void raw_close(struct raw *r)
{
	if (r->f)
		EXPECT_EQ(r->f->C_Finalize(NULL), CKR_OK);
}

static inline ck_object_handle_t raw_find(struct raw *r, const char *label, ck_object_class_t class)
{
	struct ck_attribute wanted[] = { { CKA_LABEL, raw_bytes(label), strlen(label) },
					 { CKA_CLASS, &class, sizeof(class) } };
	ck_object_handle_t h = CK_INVALID_HANDLE;
	unsigned long n = 0;

	ASSERT_EQ(r->f->C_FindObjectsInit(r->session, wanted, 2), CKR_OK);
	ASSERT_EQ(r->f->C_FindObjects(r->session, &h, 1, &n), CKR_OK);
	ASSERT_EQ(r->f->C_FindObjectsFinal(r->session), CKR_OK);
	ASSERT_EQ(n, 1);
	return h;
}

/* A new token in SoftHSM's directory, with our PINs. In a process of its own: it leaves the module
 * as it found it. */
static inline void raw_make_token(const char *label)
{
	struct ck_function_list *f = raw_module();
	ck_slot_id_t slots[16];
	unsigned long n = 16;
	ck_session_handle_t session;
	char padded[33];
	unsigned char *so = raw_bytes(TOKEN_ENV_SO_PIN);
	unsigned char *pin = raw_bytes(TOKEN_ENV_PIN);

	snprintf(padded, sizeof(padded), "%-32s", label);
	ASSERT_EQ(f->C_Initialize(NULL), CKR_OK);
	ASSERT_EQ(f->C_GetSlotList(0, slots, &n), CKR_OK);
	/* The last slot is the one without a token. */
	ASSERT_EQ(f->C_InitToken(slots[n - 1], so, strlen(TOKEN_ENV_SO_PIN),
				 (unsigned char *)padded),
		  CKR_OK);
	ASSERT_EQ(f->C_OpenSession(slots[n - 1], CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL,
				   &session),
		  CKR_OK);
	ASSERT_EQ(f->C_Login(session, CKU_SO, so, strlen(TOKEN_ENV_SO_PIN)), CKR_OK);
	ASSERT_EQ(f->C_InitPIN(session, pin, strlen(TOKEN_ENV_PIN)), CKR_OK);
	ASSERT_EQ(f->C_Finalize(NULL), CKR_OK);
}

/* --- the environment --- */

static inline void conf_for(const char *dir)
{
	char conf[PATH_ROOM], text[PATH_ROOM + 128];

	path_in(dir, "softhsm2.conf", conf);
	snprintf(text, sizeof(text),
		 "directories.tokendir = %s/tokens\nobjectstore.backend = file\n"
		 "log.level = ERROR\nslots.removable = false\n",
		 dir);
	write_file(conf, text, 0600);
	ASSERT_EQ(setenv("SOFTHSM2_CONF", conf, 1), 0);
}

static inline void paths_for(struct token_env *e, const char *dir)
{
	ASSERT_LT(snprintf(e->dir, sizeof(e->dir), "%s", dir), PATH_ROOM);
	path_in(dir, "tokens", e->tokens);
	path_in(dir, "aside", e->aside);
	path_in(dir, "pin", e->pin);
	path_in(dir, "token.lock", e->lock);
	e->config = (struct token_config){ .module = TOKEN_ENV_MODULE,
					   .label = TOKEN_ENV_LABEL,
					   .pin_file = e->pin,
					   .lock_file = e->lock };
}

static inline void make_template(const char *dir)
{
	struct token_env e = { 0 };
	struct p256_point public;
	struct token *t;

	ASSERT_EQ(mkdir(dir, 0700), 0);
	conf_for(dir);
	paths_for(&e, dir);
	ASSERT_EQ(mkdir(e.tokens, 0700), 0);
	write_file(e.pin, TOKEN_ENV_PIN "\n", 0600);
	raw_make_token(TOKEN_ENV_LABEL);
	ASSERT_EQ(token_open(&e.config, &t), 0);
	ASSERT_EQ(token_generate_signing(t, TOKEN_LABEL_SIGN, &public), 0);
	ASSERT_EQ(token_generate_unwrapping(t, TOKEN_LABEL_UNWRAP), 0);
	token_close(t);
}

/* SKIPs where there is no SoftHSM. Leaves the module untouched in this process. */
static inline void token_env_make(struct token_env *e)
{
	const char *base = getenv("SSDTF_TOKEN_ENV");
	char template[PATH_ROOM], tokens[PATH_ROOM], dir[PATH_ROOM];
	int status;

	if (access(TOKEN_ENV_MODULE, R_OK))
		SKIP("no SoftHSM at " TOKEN_ENV_MODULE);
	ASSERT_TRUE(base);
	path_in(base, "template", template);
	path_in(template, "tokens", tokens);
	if (access(template, F_OK)) {
		pid_t pid = fork();

		path_in(base, "template.new", dir);
		if (!pid) {
			make_template(dir);
			_exit(0);
		}
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		ASSERT_EQ(status, 0);
		ASSERT_EQ(rename(dir, template), 0);
	}
	path_in(base, "XXXXXX", dir);
	ASSERT_TRUE(mkdtemp(dir));
	conf_for(dir);
	paths_for(e, dir);
	copy_tree(tokens, e->tokens);
	write_file(e->pin, TOKEN_ENV_PIN "\n", 0600);
}

static inline void token_env_remove(struct token_env *e)
{
	if (e->dir[0])
		remove_tree(e->dir);
}

/* Needs an open token: keeps the unwrapping key, for blob_of(). */
static inline void token_env_learn(struct token_env *e, struct token *t)
{
	int n = token_unwrapping_public(t, TOKEN_LABEL_UNWRAP, e->spki, sizeof(e->spki));

	ASSERT_GT(n, 0);
	e->spki_n = (size_t)n;
}

/* What the manager sends: the conversion key's 67 bytes, wrapped for the token. */
static inline size_t blob_of(const struct token_env *e, const struct secret32 *rk, uint8_t *blob)
{
	uint8_t pkcs8[P256_PKCS8_BYTES];
	int n;

	p256_pkcs8(rk, pkcs8);
	n = rsa_wrap(bytes_of(e->spki, e->spki_n), bytes_of(pkcs8, sizeof(pkcs8)), blob,
		     RSA_WRAPPED_BYTES_MAX);
	ASSERT_EQ(n, 384);
	return (size_t)n;
}

static inline void random_scalar(struct secret32 *k)
{
	ASSERT_EQ(p256_scalar_random(k), 0);
}

static inline void random_point(struct p256_point *p)
{
	struct secret32 k;

	random_scalar(&k);
	ASSERT_EQ(p256_mul_base(&k, p), 0);
}

static inline int token_env_main(int argc, char **argv)
{
	const char *tmp = getenv("TMPDIR");
	char base[PATH_ROOM / 8];
	int rc;

	snprintf(base, sizeof(base), "%s/ssdtf-token.XXXXXX",
		 tmp && strlen(tmp) < 30 ? tmp : "/tmp");
	if (!mkdtemp(base) || chmod(base, 0711) || setenv("SSDTF_TOKEN_ENV", base, 1)) {
		perror(base);
		return 1;
	}
	rc = harness_main(argc, argv);
	remove_tree(base);
	return rc;
}

#endif
