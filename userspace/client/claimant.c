// SPDX-License-Identifier: MIT
#include "userspace/client/claimant.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "userspace/base/file.h"
#include "userspace/base/log.h"

#define CODE_BYTES_MAX	 4096
#define PEM_BYTES_MAX	 4096
#define BUNDLE_BYTES_MAX (1u << 20)

/* --- the code --------------------------------------------------------------------------------- */

static size_t read_stdin(char *text, size_t room)
{
	size_t n = fread(text, 1, room, stdin);

	if (ferror(stdin))
		exit_with(EX_NOINPUT, "standard input: %s", strerror(errno));
	return n;
}

static bool is_space(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Editors end lines. */
static struct bytes trimmed(struct bytes v)
{
	while (v.n && is_space(v.p[v.n - 1]))
		v.n--;
	while (v.n && is_space(v.p[0]))
		v = bytes_of(v.p + 1, v.n - 1);
	return v;
}

void claimant_read_code(const char *path, struct claim_code *ret_code)
{
	bool from_stdin = !strcmp(path, "-");
	char text[CODE_BYTES_MAX];
	size_t n = 0;
	int ret = 0;

	if (from_stdin)
		n = read_stdin(text, sizeof(text));
	else
		ret = file_read_into(AT_FDCWD, path, (uint8_t *)text, sizeof(text), &n);
	if (ret)
		exit_with(EX_NOINPUT, "%s: %s", path, strerror(-ret));
	ret = claim_code_decode(trimmed(bytes_of(text, n)), ret_code);
	secret_wipe(text, sizeof(text));
	if (ret)
		exit_with(EX_DATAERR, "%s: no claim code (" CLAIM_PREFIX "...), or a damaged one",
			  from_stdin ? "standard input" : path);
}

/* --- keys ------------------------------------------------------------------------------------- */

static void make_key(struct claimant *c, const char *name, struct secret32 *ret_scalar)
{
	uint8_t pem[PEM_BYTES_MAX];
	int n = p256_scalar_random(ret_scalar), ret = 0;

	if (!n)
		n = p256_private_to_pem(ret_scalar, pem, sizeof(pem));
	if (n >= 0)
		ret = file_write(c->party.dir, name, bytes_of(pem, (size_t)n), 0600);
	secret_wipe(pem, sizeof(pem));
	if (n < 0 || ret)
		exit_with(EX_CANTCREAT, "%s/%s: %s", c->party.path, name,
			  strerror(n < 0 ? -n : -ret));
}

static void load_or_make_key(struct claimant *c, const char *name, struct secret32 *ret_scalar)
{
	uint8_t pem[PEM_BYTES_MAX];
	size_t n = 0;
	int ret = file_read_into(c->party.dir, name, pem, sizeof(pem), &n);

	if (ret == -ENOENT) {
		make_key(c, name, ret_scalar);
		return;
	}
	if (ret)
		exit_with(EX_NOINPUT, "%s/%s: %s", c->party.path, name, strerror(-ret));
	ret = p256_private_from_pem(bytes_of(pem, n), ret_scalar);
	secret_wipe(pem, sizeof(pem));
	if (ret)
		exit_with(EX_DATAERR, "%s/%s: no private key on P-256 in PEM", c->party.path, name);
}

/* --- the directory ---------------------------------------------------------------------------- */

static struct ssdtf_config config_by(const struct claimant *c, const struct secret32 *signing)
{
	return (struct ssdtf_config){
		.signing = signing,
		.manager = &c->code.manager,
		.identity = &c->identity,
		.ops = c->ops,
		.ctx = c->ctx,
	};
}

void claimant_change_key(struct claimant *c, struct ssdtf_time now)
{
	struct ssdtf_config config;
	int ret;

	c->by_new_key = !c->by_new_key;
	config = config_by(c, c->by_new_key ? &c->signing_scalar : &c->claim_key);
	ssdtf_deinit(&c->party.client);
	ret = ssdtf_init(&c->party.client, &config, now);
	if (ret)
		exit_with(EX_SOFTWARE, "%s/signing.pem: %s", c->party.path, strerror(-ret));
}

void claimant_open(struct claimant *c, const char *dir, const struct claim_code *code,
		   const struct ssdtf_ops *ops, void *ctx, struct ssdtf_time now)
{
	struct ssdtf_config config;
	int ret;

	memset(c, 0, sizeof(*c));
	c->code = *code;
	c->ops = ops;
	c->ctx = ctx;
	c->identity.id = bytes_str(c->code.id);
	c->identity.gateway_id = bytes_str(c->code.gateway_id);
	c->identity.broker = c->code.broker;
	if (mkdir(dir, 0700) && errno != EEXIST)
		exit_with(EX_CANTCREAT, "%s: %s", dir, strerror(errno));
	ret = claim_keys(c->identity.id, c->code.secret, &c->claim_key, c->identity.k_adm);
	if (ret)
		exit_with(EX_SOFTWARE, "the claim's keys: %s", strerror(-ret));
	config = config_by(c, &c->claim_key);
	party_open_claim(&c->party, dir, &config, now);
	load_or_make_key(c, "signing.pem", &c->signing_scalar);
	ret = p256_private_new(&c->signing_scalar, &c->signing);
	if (ret)
		exit_with(EX_SOFTWARE, "%s/signing.pem: %s", dir, strerror(-ret));
}

/* As a party would take it. */
static int check_bundle(struct claimant *c, struct bytes bundle, struct ssdtf_time now)
{
	static struct ssdtf_client as_party;
	const struct ssdtf_config config = {
		.id = c->identity.id,
		.signing = &c->signing_scalar,
		.manager = &c->code.manager,
		.bundle = bundle,
		.ops = c->ops,
		.ctx = c->ctx,
	};
	int ret = ssdtf_init(&as_party, &config, now);

	if (ret)
		return ret;
	/* The code says where the device is to go: another gateway's bundle is no answer to it. */
	if (!bytes_equal(ssdtf_gateway(&as_party), c->identity.gateway_id))
		ret = -EPERM;
	ssdtf_deinit(&as_party);
	return ret;
}

bool claimant_is_done(struct claimant *c, struct ssdtf_time now)
{
	uint8_t *bundle;
	size_t n;
	int ret = file_read(c->party.dir, "bundle", BUNDLE_BYTES_MAX, &bundle, &n, NULL);

	if (ret == -ENOENT) {
		load_or_make_key(c, "answer.pem", &c->answer);
		ret = p256_mul_base(&c->answer, &c->answer_point);
		if (ret)
			exit_with(EX_SOFTWARE, "%s/answer.pem: %s", c->party.path, strerror(-ret));
		return false;
	}
	if (!ret) {
		ret = check_bundle(c, bytes_of(bundle, n), now);
		secret_wipe(bundle, n);
		free(bundle);
	}
	if (ret)
		exit_with(EX_CANTCREAT,
			  "%s/bundle is there, and is none that this code was claimed for: give "
			  "another directory",
			  c->party.path);
	return true;
}

static int write_files(struct claimant *c, struct bytes bundle, const char **ret_file)
{
	uint8_t pem[PEM_BYTES_MAX];
	int n = p256_public_to_pem(&c->code.manager, pem, sizeof(pem)), ret;

	*ret_file = "manager.pub";
	if (n < 0)
		return n;
	ret = file_write(c->party.dir, "manager.pub", bytes_of(pem, (size_t)n), 0644);
	if (ret)
		return ret;
	*ret_file = "bundle";
	ret = file_write(c->party.dir, "bundle", bundle, 0600);
	if (ret)
		return ret;
	*ret_file = "answer.pem";
	return unlinkat(c->party.dir, "answer.pem", 0) && errno != ENOENT ? -errno : 0;
}

int claimant_finish(struct claimant *c, const struct ssdtf_event *answer, struct ssdtf_time now,
		    const char **ret_file)
{
	size_t n = answer->sealed.n > HPKE_TAG_BYTES ? answer->sealed.n - HPKE_TAG_BYTES : 0;
	uint8_t *bundle = malloc(n + 1);
	int ret;

	*ret_file = NULL;
	if (!bundle)
		return -ENOMEM;
	ret = n ? claim_open(&c->answer, &answer->enc, answer->sealed, bundle) : -EBADMSG;
	if (!ret)
		ret = check_bundle(c, bytes_of(bundle, n), now);
	if (!ret)
		ret = write_files(c, bytes_of(bundle, n), ret_file);
	secret_wipe(bundle, n);
	free(bundle);
	return ret;
}

void claimant_close(struct claimant *c)
{
	p256_private_free(c->signing);
	party_close(&c->party);
	claim_code_wipe(&c->code);
	secret_wipe(c, sizeof(*c));
}
