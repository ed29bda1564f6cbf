// SPDX-License-Identifier: MIT
#include "hsm/keygen.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "hsm/supervisor.h"
#include "userspace/base/file.h"
#include "userspace/base/log.h"
#include "userspace/base/text.h"
#include "userspace/crypto/grant.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/rsa.h"

#define EC_PEM_BYTES   256
#define FILE_BYTES_MAX (2 * EC_PEM_BYTES + RSA_PEM_BYTES_MAX)
#define NAME_BYTES     8 /* of a key, shown to people, as `ssdtf-hsmd status` shows it */
#define NAME_SIZE      (TEXT_HEX_SIZE(NAME_BYTES) + 2)

/* A public key: of the unwrapping key its SubjectPublicKeyInfo, of the others the point. */
struct public_key {
	uint8_t b[TOKEN_SPKI_BYTES_MAX];
	size_t n;
};

static int sign_and_verify(struct token *t, const char *label, struct public_key *ret_k);
static int open_and_compare(struct token *t, const char *label, struct public_key *ret_k);
static int unwrap_and_attack(struct token *t, const char *label, struct public_key *ret_k);
static int generate_signing(struct token *t, const char *label);
static int generate_opening(struct token *t, const char *label);

/* A kind of key pair, made and tried in the same way in each generation. */
struct role {
	const char *option; /* what --next and --promote call it */
	const char *label, *what;
	int (*generate)(struct token *t, const char *label);
	/* Reads the public half, and tries that the other one belongs to it and works. */
	int (*try)(struct token *t, const char *label, struct public_key *ret_k);
};

static const struct role replaced[KEYGEN_ROLES] = {
	[KEYGEN_SIGNING] = { "signing", TOKEN_LABEL_SIGN, "a P-256 key pair", generate_signing,
			     sign_and_verify },
	[KEYGEN_UNWRAP] = { "unwrap", TOKEN_LABEL_UNWRAP, "an RSA key pair",
			    token_generate_unwrapping, unwrap_and_attack },
};
static const struct role bundle_role = { NULL, TOKEN_LABEL_BUNDLE, "a P-256 key pair",
					 generate_opening, open_and_compare };

/* The keys of this run. */
struct keygen {
	const struct keygen_config *c;
	struct token *t;
	struct public_key keys[KEYGEN_ROLES], bundle;
};

static int exit_code_of(int rc)
{
	switch (rc) {
	case 0:
		return 0;
	case -EACCES:
	case -EKEYREJECTED:
	case -EPERM:
		return EX_NOPERM;
	case -ENODEV:
	case -EIO:
	case -EBUSY:
		return EX_UNAVAILABLE;
	case -ENOTSUP:
		return EX_PROTOCOL;
	case -ENODATA: /* said already */
		return EX_DATAERR;
	default:
		return EX_CONFIG;
	}
}

/* What is done, on stderr; in a dry run what would be, on stdout, for whoever asked. */
static format_printf(2, 3) void say(const struct keygen *k, const char *fmt, ...)
{
	char line[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (k->c->dry_run)
		printf("would have %s\n", line);
	else
		log_info("%s", line);
}

/* --- trying keys --- */

static int generate_signing(struct token *t, const char *label)
{
	struct p256_point public;

	return token_generate_signing(t, label, &public);
}

static int generate_opening(struct token *t, const char *label)
{
	struct p256_point public;

	return token_generate_opening(t, label, &public);
}

static int read_point(struct token *t, const char *label, struct public_key *ret_k,
		      struct p256_point *ret_p)
{
	int rc = token_signing_public(t, label, ret_p);

	if (rc)
		return rc;
	ret_k->n = sizeof(ret_p->b);
	memcpy(ret_k->b, ret_p->b, sizeof(ret_p->b));
	return 0;
}

static int sign_and_verify(struct token *t, const char *label, struct public_key *ret_k)
{
	uint8_t digest[P256_DIGEST_BYTES], sig[P256_SIG_BYTES];
	struct p256_public *key;
	struct p256_point point;
	int rc = read_point(t, label, ret_k, &point);

	if (rc)
		return rc;
	hash_random(digest, sizeof(digest));
	rc = token_sign(t, label, digest, sig);
	if (rc)
		return rc;
	rc = p256_public_new(&point, &key);
	if (rc)
		return rc;
	rc = p256_verify_digest(key, digest, sig);
	p256_public_free(key);
	return rc;
}

static int open_and_compare(struct token *t, const char *label, struct public_key *ret_k)
{
	uint8_t x[P256_X_BYTES], want[P256_X_BYTES];
	struct secret32 k SECRET = { 0 };
	struct p256_point point, e;
	int rc = read_point(t, label, ret_k, &point);

	if (!rc)
		rc = p256_scalar_random(&k);
	if (!rc)
		rc = p256_mul_base(&k, &e);
	if (!rc)
		rc = grant_convert(&k, &point, want);
	if (!rc)
		rc = token_open_point(t, label, e.b, x);
	if (!rc && memcmp(x, want, sizeof(x)) != 0)
		rc = -EBADMSG;
	return rc;
}

static int unwrap_and_attack(struct token *t, const char *label, struct public_key *ret_k)
{
	int n = token_unwrapping_public(t, label, ret_k->b, sizeof(ret_k->b));

	if (n < 0)
		return n;
	ret_k->n = (size_t)n;
	return token_check_unwrapping(t, label);
}

/* --- generations --- */

/* What a keygen that was killed left. No such key was ever written out, so nobody knows it; of one
 * that was being destroyed nobody has need. */
static int remove_halves(const struct keygen *k, const struct role *role,
			 const struct token_generations *g)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < g->n_halves; i++) {
		char label[TOKEN_LABEL_SIZE];

		token_generation_label(role->label, g->halves[i], label);
		if (!k->c->dry_run)
			rc = token_destroy(k->t, label);
		if (!rc)
			say(k, "removed what was left of a key pair %s", label);
	}
	return rc;
}

/* In a dry run there is no key afterwards: ret_k is left alone. */
static int make(const struct keygen *k, const struct role *role, uint32_t number,
		struct public_key *ret_k)
{
	char label[TOKEN_LABEL_SIZE];
	int rc = 0;

	token_generation_label(role->label, number, label);
	if (!k->c->dry_run) {
		rc = role->generate(k->t, label);
		if (!rc)
			rc = role->try(k->t, label, ret_k);
	}
	if (!rc)
		say(k, "made %s, %s, in the token", label, role->what);
	return rc;
}

/* The current key of a role, made where there is none. */
static int have_current(const struct keygen *k, const struct role *role, struct public_key *ret_k)
{
	struct token_generations g;
	char label[TOKEN_LABEL_SIZE];
	int rc = token_generations(k->t, role->label, &g);

	if (rc)
		return rc;
	if (g.n) {
		token_generation_label(role->label, g.whole[0], label);
		return role->try(k->t, label, ret_k);
	}
	rc = remove_halves(k, role, &g);
	return rc ? rc : make(k, role, 1, ret_k);
}

static int destroy(const struct keygen *k, const char *label)
{
	char name[NAME_SIZE], was[NAME_SIZE + 32] = "";
	struct p256_point point;
	int rc = 0;

	/* For a person to compare; of an RSA key the label must do. */
	if (!token_signing_public(k->t, label, &point)) {
		text_short(bytes_of(point.b, sizeof(point.b)), NAME_BYTES, name);
		snprintf(was, sizeof(was), ", key %s", name);
	}
	if (!k->c->dry_run)
		rc = token_destroy(k->t, label);
	if (!rc)
		say(k, "destroyed %s%s", label, was);
	return rc;
}

static bool works(const struct keygen *k, const struct role *role, uint32_t number)
{
	char label[TOKEN_LABEL_SIZE];
	struct public_key public;

	token_generation_label(role->label, number, label);
	return !role->try(k->t, label, &public);
}

static int have_next(const struct keygen *k, const struct role *role, struct public_key *ret_k)
{
	struct token_generations g;
	char label[TOKEN_LABEL_SIZE];
	int rc = token_generations(k->t, role->label, &g);

	if (rc)
		return rc;
	if (!g.n) {
		log_error("there is no %s that another could follow: run `ssdtf-hsmd keygen` first",
			  role->label);
		return -ENODATA;
	}
	rc = remove_halves(k, role, &g);
	if (rc)
		return rc;
	if (g.n == 1)
		return make(k, role, g.whole[0] + 1, ret_k);
	token_generation_label(role->label, g.whole[1], label);
	rc = role->try(k->t, label, ret_k);
	if (!rc || !works(k, role, g.whole[0]))
		return rc;
	/* The token is well, so the key is not: made by a keygen that was killed before its end. */
	rc = destroy(k, label);
	return rc ? rc : make(k, role, g.whole[1], ret_k);
}

/* Has no public half that would show it whole: it is used once instead. */
static int have_ids(const struct keygen *k)
{
	const struct bytes some = bytes_str("ssdtf");
	uint8_t mac[TOKEN_MAC_BYTES];
	int rc = token_mac(k->t, TOKEN_LABEL_IDS, some, mac);

	if (rc != -ENOKEY)
		return rc;
	rc = 0;
	if (!k->c->dry_run) {
		rc = token_generate_mac(k->t, TOKEN_LABEL_IDS);
		if (!rc)
			rc = token_mac(k->t, TOKEN_LABEL_IDS, some, mac);
	}
	if (!rc)
		say(k, "made %s, a secret, in the token", TOKEN_LABEL_IDS);
	return rc;
}

static int promote(const struct keygen *k, const struct role *role)
{
	struct token_generations g;
	char old[TOKEN_LABEL_SIZE], new[TOKEN_LABEL_SIZE];
	struct public_key public;
	int rc = token_generations(k->t, role->label, &g);

	if (rc)
		return rc;
	if (g.n < 2 && !g.n_halves) {
		log_error("there is no key that follows %s: make one with `ssdtf-hsmd keygen "
			  "--next %s`",
			  role->label, role->option);
		return -ENODATA;
	}
	if (g.n > 1) {
		token_generation_label(role->label, g.whole[0], old);
		token_generation_label(role->label, g.whole[1], new);
		rc = role->try(k->t, new, &public); /* before the one that works is gone */
		if (!rc)
			rc = destroy(k, old);
		if (!rc)
			say(k, "made %s the current one of its kind", new);
	}
	return rc ? rc : remove_halves(k, role, &g);
}

/* --- the file --- */

/* The PEM text's length, or an error. */
static int to_pem(const struct keygen *k, uint8_t pem[FILE_BYTES_MAX])
{
	const struct public_key *in_order[] = { &k->keys[KEYGEN_SIGNING], &k->keys[KEYGEN_UNWRAP],
						&k->bundle };
	size_t used = 0;

	for (size_t i = 0; i < ARRAY_SIZE(in_order); i++) {
		const struct public_key *key = in_order[i];
		struct p256_point point;
		int n;

		if (key->n == sizeof(point.b)) {
			memcpy(point.b, key->b, sizeof(point.b));
			n = p256_public_to_pem(&point, pem + used, FILE_BYTES_MAX - used);
		} else {
			n = rsa_public_to_pem(bytes_of(key->b, key->n), pem + used,
					      FILE_BYTES_MAX - used);
		}
		if (n < 0)
			return n;
		used += (size_t)n;
	}
	return (int)used;
}

static int write_file(const struct keygen *k)
{
	uint8_t pem[FILE_BYTES_MAX];
	int rc, n = 0;

	if (!k->c->public_file)
		return 0;
	if (k->c->dry_run) {
		say(k, "written the public keys to %s", k->c->public_file);
		return 0;
	}
	n = to_pem(k, pem);
	if (n < 0) {
		log_error("the token's public keys cannot be written as PEM");
		return exit_code_of(n);
	}
	rc = file_write(AT_FDCWD, k->c->public_file, bytes_of(pem, (size_t)n), 0644);
	if (rc) {
		log_error("%s: %s", k->c->public_file, strerror(-rc));
		return EX_CANTCREAT;
	}
	return 0;
}

/* --- the three commands --- */

static int make_all(struct keygen *k)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < KEYGEN_ROLES; i++)
		rc = have_current(k, &replaced[i], &k->keys[i]);
	if (!rc)
		rc = have_current(k, &bundle_role, &k->bundle);
	return rc ? rc : have_ids(k);
}

static int make_next(struct keygen *k)
{
	int rc = 0;

	/* First, so that no key is made where the file could not be written whole. */
	for (unsigned i = 0; !rc && i < KEYGEN_ROLES; i++)
		if (!k->c->roles[i])
			rc = have_current(k, &replaced[i], &k->keys[i]);
	if (!rc)
		rc = have_current(k, &bundle_role, &k->bundle);
	for (unsigned i = 0; !rc && i < KEYGEN_ROLES; i++)
		if (k->c->roles[i])
			rc = have_next(k, &replaced[i], &k->keys[i]);
	return rc;
}

static int promote_all(struct keygen *k)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < KEYGEN_ROLES; i++)
		if (k->c->roles[i])
			rc = promote(k, &replaced[i]);
	/* In a dry run the old ones are still there, and are not what the file would have. */
	return rc || k->c->dry_run || !k->c->public_file ? rc : make_all(k);
}

static int with_token(const struct keygen_config *c, int (*fn)(struct keygen *k))
{
	struct keygen k = { .c = c };
	int rc = token_open(&c->token, &k.t);

	if (rc) {
		log_error("%s", token_open_error());
		return exit_code_of(rc);
	}
	rc = fn(&k);
	if (rc && rc != -ENODATA)
		log_error("%s", token_error(k.t));
	token_close(k.t);
	return rc ? exit_code_of(rc) : write_file(&k);
}

int keygen_run(const struct keygen_config *c)
{
	return with_token(c, make_all);
}

int keygen_next(const struct keygen_config *c)
{
	return with_token(c, make_next);
}

int keygen_promote(const struct keygen_config *c)
{
	int lock_fd, rc = supervisor_lock(c->socket_dir, &lock_fd);

	if (rc)
		return rc;
	rc = with_token(c, promote_all);
	(void)close(lock_fd); /* lets go of the lock; nothing was written */
	return rc;
}
