// SPDX-License-Identifier: MIT
#include "userspace/manager/keyfile.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_BYTES_MAX 16384
#define PEM_BYTES_MAX  2048

static const char begin_marker[] = "-----BEGIN ", end_marker[] = "-----END ", dashes[] = "-----";

/* Cuts v down to what follows its first `text`; false where that is not in it. */
static bool skip_past(struct bytes *v, const char *text)
{
	const uint8_t *at = v->n ? memmem(v->p, v->n, text, strlen(text)) : NULL;

	if (!at)
		return false;
	at += strlen(text);
	*v = bytes_of(at, v->n - (size_t)(at - v->p));
	return true;
}

struct block {
	struct bytes label; /* "PUBLIC KEY" */
	struct bytes whole; /* from the begin line to the end line */
};

/* The next PEM block (RFC 7468) of *rest, which is then what follows it. */
static bool next_block(struct bytes *rest, struct block *ret_b)
{
	struct bytes at = *rest;
	struct block b;

	if (!skip_past(&at, begin_marker))
		return false;
	b.whole.p = at.p - strlen(begin_marker);
	b.label.p = at.p;
	if (!skip_past(&at, dashes))
		return false;
	b.label.n = (size_t)(at.p - b.label.p) - strlen(dashes);
	if (!skip_past(&at, end_marker) || !skip_past(&at, dashes))
		return false;
	b.whole.n = (size_t)(at.p - b.whole.p);
	*rest = at;
	*ret_b = b;
	return true;
}

/* Reads the file; whatever it holds that is no public key is said in words. */
static int read_pem(struct manager *m, const char *path, uint8_t buf[FILE_BYTES_MAX],
		    struct bytes *ret_pem)
{
	static const char private_label[] = "PRIVATE KEY";
	struct bytes rest;
	struct block b;
	size_t n = 0;
	int err = file_read_into(AT_FDCWD, path, buf, FILE_BYTES_MAX, &n);

	if (err == -EFBIG)
		return manager_fail(m, -EINVAL, "%s: too long for a file of public keys", path);
	if (err)
		return manager_fail_file(m, err, "read", path);
	rest = bytes_of(buf, n);
	while (next_block(&rest, &b)) {
		if (memmem(b.label.p, b.label.n, private_label, strlen(private_label)))
			return manager_fail(
				m, -EINVAL,
				"%s: is a private key, which stays with its owner; hand over "
				"what `openssl pkey -in FILE -pubout` prints",
				path);
	}
	*ret_pem = bytes_of(buf, n);
	return 0;
}

int keyfile_read_public(struct manager *m, const char *path, struct p256_point *ret_key)
{
	uint8_t buf[FILE_BYTES_MAX];
	struct bytes pem = { 0 };
	struct block b;
	int err = read_pem(m, path, buf, &pem);

	if (!err) {
		if (!next_block(&pem, &b) || p256_public_from_pem(b.whole, ret_key))
			err = manager_fail(m, -EINVAL, "%s: is no P-256 public key in PEM", path);
		else if (next_block(&pem, &b))
			err = manager_fail(m, -EINVAL, "%s: holds more than one key", path);
	}
	secret_wipe(buf, sizeof(buf)); /* it may have been a private key after all */
	return err;
}

/* Each once, the bundle key at most. */
static int read_gateway(struct bytes pem, struct keyfile_gateway *ret_g)
{
	bool broker = false, unwrap = false;
	struct block b;

	while (next_block(&pem, &b)) {
		int n = rsa_public_from_pem(b.whole, ret_g->spki, sizeof(ret_g->spki));

		if (n > 0 && !unwrap) {
			unwrap = true;
			ret_g->spki_bytes = (size_t)n;
		} else if (n <= 0 && !broker && !p256_public_from_pem(b.whole, &ret_g->broker)) {
			broker = true;
		} else if (n <= 0 && !ret_g->has_bundle &&
			   !p256_public_from_pem(b.whole, &ret_g->bundle)) {
			ret_g->has_bundle = true;
		} else {
			return -EINVAL;
		}
	}
	/* Two keys for two purposes: one alone would sign and open. */
	if (ret_g->has_bundle && !memcmp(&ret_g->broker, &ret_g->bundle, sizeof(ret_g->broker)))
		return -EINVAL;
	return broker && unwrap ? 0 : -EINVAL;
}

int keyfile_read_gateway(struct manager *m, const char *path, struct keyfile_gateway *ret_g)
{
	uint8_t buf[FILE_BYTES_MAX];
	struct keyfile_gateway g = { 0 };
	struct bytes pem = { 0 };
	int err = read_pem(m, path, buf, &pem);

	if (!err && read_gateway(pem, &g))
		err = manager_fail(
			m, -EINVAL,
			"%s: is not what `ssdtf-hsmd keygen` prints: the public keys of a "
			"gateway, P-256, RSA and P-256 (or none), in PEM",
			path);
	secret_wipe(buf, sizeof(buf));
	if (!err)
		*ret_g = g;
	return err;
}

int keyfile_folder(struct manager *m, const char *folder)
{
	struct stat st;

	if (m->dry_run)
		return 0;
	if (mkdir(folder, 0700) == 0)
		return manager_made(m, folder);
	if (errno != EEXIST)
		return manager_fail_file(m, -errno, "make", folder);
	if (stat(folder, &st))
		return manager_fail_file(m, -errno, "open", folder);
	return S_ISDIR(st.st_mode) ? 0 : manager_fail(m, -EINVAL, "%s: is no folder", folder);
}

static int make_private(struct manager *m, const char *path, struct p256_point *ret_public)
{
	struct secret32 k SECRET = { 0 };
	struct p256_point public;
	uint8_t pem[PEM_BYTES_MAX];
	int n = p256_scalar_random(&k);
	int err;

	if (!n)
		n = p256_mul_base(&k, &public);
	if (!n)
		n = p256_private_to_pem(&k, pem, sizeof(pem));
	if (n < 0)
		return manager_fail(m, n, "cannot make a key: %s", strerror(-n));
	*ret_public = public;
	/* Said first, so that what a failing write leaves is removed too. */
	err = m->dry_run ? 0 : manager_made(m, path);
	if (!err && !m->dry_run)
		err = manager_fail_file(m,
					file_write(AT_FDCWD, path, bytes_of(pem, (size_t)n), 0600),
					"write", path);
	secret_wipe(pem, sizeof(pem));
	return err;
}

int keyfile_private(struct manager *m, const char *folder, const char *name, bool make,
		    struct p256_point *ret_public)
{
	char path[FILE_PATH_BYTES_MAX];
	struct secret32 k SECRET = { 0 };
	uint8_t pem[PEM_BYTES_MAX];
	size_t n = 0;
	int err = file_join(folder, name, path);

	if (err)
		return manager_fail_file(m, err, "open", folder);
	err = file_read_into(AT_FDCWD, path, pem, sizeof(pem), &n);
	if (err == -ENOENT && make)
		return make_private(m, path, ret_public);
	if (err == -EFBIG)
		err = -EINVAL;
	else if (err)
		return manager_fail_file(m, err, "read", path);
	if (!err)
		err = p256_private_from_pem(bytes_of(pem, n), &k);
	secret_wipe(pem, sizeof(pem));
	if (!err)
		err = p256_mul_base(&k, ret_public);
	return err ? manager_fail(m, err, "%s: is no P-256 private key in PEM; not overwritten",
				  path)
		   : 0;
}
