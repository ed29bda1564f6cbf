// SPDX-License-Identifier: MIT
/*
 * A token knows no transactions. So the registry says first what is about to be done (settings, but
 * no "manager_key"), then the keys are made, and last the registry gets "manager_key". What is cut
 * short in between is found and finished by the next init.
 */
#include "userspace/manager/setup.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/base/text.h"
#include "userspace/crypto/hash.h"

#define PEM_BYTES_MAX 512

/* A directory of ours with no registry in it yet goes again. */
static void remove_directory(struct manager *m)
{
	char path[FILE_PATH_BYTES_MAX];

	if (file_join(m->config.dir, "lock", path) == 0)
		(void)unlink(path);
	if (file_join(m->config.dir, "token.lock", path) == 0)
		(void)unlink(path); /* mostly not there */
	(void)rmdir(m->config.dir); /* stays where somebody put something into it */
}

/* A registry that is of another token is left alone. Opens it where it is there. */
static int find_registry(struct manager *m)
{
	char label[MANAGER_LABEL_ROOM];
	int err = registry_open(&m->registry, m->registry_path);

	if (err == -ENODATA)
		return 0;
	if (err)
		return manager_fail_registry(m, err);
	err = registry_setting(&m->registry, "token", label, sizeof(label));
	if (err == -ENOENT)
		return 0;
	if (err)
		return manager_fail_registry(m, err);
	if (strcmp(label, m->config.token_label))
		return manager_fail(m, -EEXIST, "%s: is initialised with token \"%s\"",
				    m->config.dir, label);
	return 0;
}

static int refuse_foreign_keys(struct manager *m)
{
	struct p256_point key;
	int err = token_signing_public(m->token, MANAGER_KEY_LABEL, &key);

	if (err == -ENOKEY)
		return 0;
	if (err)
		return manager_fail_token(m, err);
	return manager_fail(
		m, -EEXIST,
		"token \"%s\": has a manager's keys already; --adopt takes them over for "
		"a registry that was lost",
		m->token_label);
}

static int set_path(struct manager *m, const char *name, const char *path)
{
	char absolute[PATH_MAX];

	if (!realpath(path, absolute))
		return manager_fail_file(m, -errno, "read", path);
	return manager_fail_registry(m, registry_set(&m->registry, name, absolute));
}

static int write_settings(struct manager *m)
{
	int err = manager_begin(m);

	if (!err)
		err = set_path(m, "module", m->config.module);
	if (!err)
		err = set_path(m, "pin_file", m->config.pin_file);
	if (!err)
		err = manager_fail_registry(m, registry_set(&m->registry, "token",
							    m->config.token_label));
	if (!err)
		err = manager_commit(m);
	if (err)
		manager_rollback(m);
	return err;
}

/* Half a pair, or keys that do not work: not ours to repair. */
static int fail_broken_keys(struct manager *m)
{
	return manager_fail(m, -EIO, "token \"%s\": its keys do not work", m->token_label);
}

/*
 * The keys of an init that was finished, or that somebody wants to adopt, are the token's. Others
 * were used for nothing yet: an init that was killed may have left half of one, so all are made
 * anew.
 */
static int make_keys(struct manager *m, bool keep, struct p256_point *ret_key)
{
	int err = 0;

	if (!keep) {
		err = token_destroy(m->token, MANAGER_KEY_LABEL);
		if (!err)
			err = token_destroy(m->token, MANAGER_STORE_LABEL);
		if (!err)
			err = token_generate_signing(m->token, MANAGER_KEY_LABEL, ret_key);
		if (!err)
			err = token_generate_store(m->token, MANAGER_STORE_LABEL);
	} else {
		err = token_signing_public(m->token, MANAGER_KEY_LABEL, ret_key);
	}
	return manager_fail_token(m, err);
}

/* Do the keys work, and do both halves of the signing key belong together? */
static int try_keys(struct manager *m, const struct p256_point *key)
{
	static const uint8_t plain[P256_DIGEST_BYTES] = { 1 };
	uint8_t sealed[sizeof(plain) + TOKEN_STORE_OVERHEAD], opened[sizeof(plain)];
	uint8_t sig[P256_SIG_BYTES];
	const struct bytes aad = bytes_str("ssdtf-admin init");
	struct p256_public *public;
	int err;

	err = token_sign(m->token, MANAGER_KEY_LABEL, plain, sig);
	if (!err)
		err = token_store_seal(m->token, MANAGER_STORE_LABEL, aad,
				       bytes_of(plain, sizeof(plain)), sealed);
	if (!err)
		err = token_store_open(m->token, MANAGER_STORE_LABEL, aad,
				       bytes_of(sealed, sizeof(sealed)), opened);
	if (err == -ENODEV)
		return manager_fail_token(m, err);
	if (err || memcmp(plain, opened, sizeof(plain)))
		return fail_broken_keys(m);
	err = p256_public_new(key, &public);
	if (err)
		return manager_fail(m, err, "cannot check a signature: %s", strerror(-err));
	err = p256_verify_digest(public, plain, sig);
	p256_public_free(public);
	return err ? fail_broken_keys(m) : 0;
}

/* The last step in the registry; the first init that comes here is noted. */
static int finish_registry(struct manager *m, const struct p256_point *key)
{
	char hex[TEXT_HEX_SIZE(P256_POINT_BYTES)];
	struct p256_point trace;
	bool found = false;
	int err = manager_load_key(m, &found);

	if (err)
		return err;
	if (found && memcmp(m->key.b, key->b, sizeof(key->b)))
		return manager_fail(m, -EEXIST, "token \"%s\": holds another manager's keys",
				    m->token_label);
	if (found)
		return 0;
	err = manager_begin(m);
	if (err)
		return err;
	text_hex(bytes_of(key->b, sizeof(key->b)), hex);
	err = manager_fail_registry(m, registry_set(&m->registry, "manager_key", hex));
	m->key = *key;
	if (!err)
		err = manager_trace_key(m, &trace);
	if (!err)
		err = manager_note(m, "init", "manager", m->token_label);
	if (!err)
		err = manager_commit(m);
	if (err)
		manager_rollback(m);
	return err;
}

static int write_public(struct manager *m, const struct p256_point *key)
{
	char path[FILE_PATH_BYTES_MAX];
	uint8_t pem[PEM_BYTES_MAX];
	int err = file_join(m->config.dir, "manager.pub", path);
	int n = p256_public_to_pem(key, pem, sizeof(pem));

	if (n < 0)
		return manager_fail(m, n, "cannot write the public key as PEM: %s", strerror(-n));
	if (!err)
		err = file_write(AT_FDCWD, path, bytes_of(pem, (size_t)n), 0644);
	if (err)
		return manager_fail_file(m, err, "write", path);
	(void)fprintf(m->out, "manager key=%s token=%s\n", path, m->token_label);
	return 0;
}

static int setup(struct manager *m, bool adopt)
{
	struct p256_point key;
	bool finished = false;
	int err = find_registry(m);

	if (!err && m->registry.db)
		err = manager_load_key(m, &finished);
	if (!err)
		err = manager_token_open(m);
	if (!err && !m->registry.db) {
		err = adopt ? 0 : refuse_foreign_keys(m);
		if (!err)
			err = manager_fail_registry(m, registry_create(&m->registry,
								       m->registry_path));
	}
	if (!err)
		err = write_settings(m);
	if (!err)
		err = make_keys(m, adopt || finished, &key);
	if (!err)
		err = try_keys(m, &key);
	if (!err)
		err = finish_registry(m, &key);
	return err ? err : write_public(m, &key);
}

int setup_manager(struct manager *m, const struct manager_config *c, bool adopt, uint64_t now_ms)
{
	int err = manager_start(m, c, MANAGER_SETS_UP, now_ms);

	if (!err)
		err = setup(m, adopt);
	/* token.lock notes that a PIN was refused, so that it is not tried again: that stays. */
	if (err && err != -EACCES && err != -EKEYREJECTED && m->made_directory && !m->registry.db)
		remove_directory(m);
	return err;
}
