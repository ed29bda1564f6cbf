/* SPDX-License-Identifier: MIT */
/*
 * A manager with a SoftHSM token in a temporary folder, for the programs that test what is below
 * ssdtf-admin's command line: the fixture `token`, commands as transactions of their own, bundles
 * read back, and conversion keys unwrapped with a key that the test has.
 */
#ifndef SSDTF_TESTS_MANAGER_WORLD_H
#define SSDTF_TESTS_MANAGER_WORLD_H

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <spawn.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/harness.h"
#include "userspace/base/file.h"
#include "userspace/bundle/bundle.h"
#include "userspace/bundle/statement.h"
#include "userspace/crypto/envelope.h"
#include "userspace/crypto/hash.h"
#include "userspace/manager/access.h"
#include "userspace/manager/bundle_make.h"
#include "userspace/manager/enrol.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/keyfile.h"
#include "userspace/manager/list.h"
#include "userspace/manager/party.h"
#include "userspace/manager/revoke.h"
#include "userspace/manager/scope.h"
#include "userspace/manager/setup.h"

#define T0	       1800000000000ull /* the clock of these tests: 2027-01-15 */
#define FILE_BYTES_MAX (8u << 20)

extern char **environ;

/* --- a folder of its own for each test ------------------------------------------------------ */

static char base[64];

static const char *in_base(const char *name)
{
	static char paths[8][256];
	static unsigned next;
	char *out = paths[next++ % 8];

	snprintf(out, sizeof(paths[0]), "%s/%s", base, name);
	return out;
}

static inline void run_program(char *const argv[])
{
	posix_spawn_file_actions_t quiet;
	pid_t pid;
	int status;

	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
	ASSERT_EQ(posix_spawnp(&pid, argv[0], &quiet, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&quiet);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	ASSERT_EQ(status, 0);
}

static inline void base_make(void)
{
	snprintf(base, sizeof(base), "/tmp/test-manager.XXXXXX");
	ASSERT_TRUE(mkdtemp(base) != NULL);
}

static inline void base_remove(void)
{
	char rm[] = "rm", rf[] = "-rf";
	char *argv[] = { rm, rf, base, NULL };

	run_program(argv);
}

static inline void put(const char *path, const char *text)
{
	ASSERT_EQ(file_write(AT_FDCWD, path, bytes_str(text), 0600), 0);
}

static inline size_t get(const char *path, uint8_t *out, size_t room)
{
	size_t n = 0;

	ASSERT_EQ(file_read_into(AT_FDCWD, path, out, room, &n), 0);
	return n;
}

/* Both halves of a key, each as a file in base. */
static inline struct p256_point make_key(const char *private_file, const char *public_file)
{
	struct secret32 k;
	struct p256_point p;
	uint8_t pem[512];
	int n;

	ASSERT_EQ(p256_scalar_random(&k), 0);
	ASSERT_EQ(p256_mul_base(&k, &p), 0);
	if (private_file) {
		n = p256_private_to_pem(&k, pem, sizeof(pem));
		ASSERT_GT(n, 0);
		ASSERT_EQ(file_write(AT_FDCWD, in_base(private_file), bytes_of(pem, (size_t)n),
				     0600),
			  0);
	}
	n = p256_public_to_pem(&p, pem, sizeof(pem));
	ASSERT_GT(n, 0);
	ASSERT_EQ(file_write(AT_FDCWD, in_base(public_file), bytes_of(pem, (size_t)n), 0600), 0);
	return p;
}

static inline void append(const char *to, const char *from)
{
	uint8_t buf[8192];
	size_t n = 0;

	(void)!file_read_into(AT_FDCWD, in_base(to), buf, sizeof(buf),
			      &n); /* may not be there yet */
	n += get(in_base(from), buf + n, sizeof(buf) - n);
	ASSERT_EQ(file_write(AT_FDCWD, in_base(to), bytes_of(buf, n), 0600), 0);
}

static inline void write_public_pem(const char *file, EVP_PKEY *key)
{
	FILE *f = fopen(in_base(file), "w");

	ASSERT_TRUE(f != NULL);
	ASSERT_EQ(PEM_write_PUBKEY(f, key), 1);
	ASSERT_EQ(fclose(f), 0);
}

static inline EVP_PKEY *make_rsa(const char *public_file, unsigned bits)
{
	EVP_PKEY *key = EVP_RSA_gen(bits);

	ASSERT_TRUE(key != NULL);
	write_public_pem(public_file, key);
	return key;
}

static inline size_t unwrap(EVP_PKEY *key, struct bytes wrapped, uint8_t *out, size_t room)
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(key, NULL);
	size_t n = room;

	ASSERT_EQ(EVP_PKEY_decrypt_init(c), 1);
	ASSERT_EQ(EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_OAEP_PADDING), 1);
	ASSERT_EQ(EVP_PKEY_CTX_set_rsa_oaep_md(c, EVP_sha1()), 1);
	ASSERT_EQ(EVP_PKEY_CTX_set_rsa_mgf1_md(c, EVP_sha1()), 1);
	ASSERT_EQ(EVP_PKEY_decrypt(c, out, &n, wrapped.p, wrapped.n), 1);
	EVP_PKEY_CTX_free(c);
	return n;
}

/* --- a manager with a token ---------------------------------------------------------------- */

static const char *const modules[] = { "/usr/lib/softhsm/libsofthsm2.so",
				       "/usr/lib64/pkcs11/libsofthsm2.so",
				       "/usr/local/lib/softhsm/libsofthsm2.so" };

/* Made once, in main(): a key takes longer than most of these tests. */
static EVP_PKEY *gateway_rsa;

FIXTURE(token)
{
	struct manager_config config;
	struct manager m; /* the command that runs: open_at .. done */
	EVP_PKEY *rsa;
	struct p256_point broker;
	uint8_t *file; /* FILE_BYTES_MAX of room */
};

static const char *find_module(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(modules); i++) {
		if (!access(modules[i], R_OK))
			return modules[i];
	}
	SKIP("no SoftHSM");
}

static inline void make_token(void)
{
	char conf[512], name[] = "softhsm2-util", init[] = "--init-token", freeslot[] = "--free",
			label[] = "--label=mgr", pin[] = "--pin=1234", so[] = "--so-pin=5678";
	char *argv[] = { name, init, freeslot, label, pin, so, NULL };

	snprintf(conf, sizeof(conf), "directories.tokendir = %s\nobjectstore.backend = file\n",
		 in_base("tokens"));
	ASSERT_EQ(mkdir(in_base("tokens"), 0700), 0);
	put(in_base("softhsm2.conf"), conf);
	put(in_base("pin"), "1234\n");
	ASSERT_EQ(setenv("SOFTHSM2_CONF", in_base("softhsm2.conf"), 1), 0);
	run_program(argv);
}

static inline void open_at(struct fixture_token *self, uint64_t now_ms)
{
	if (manager_open(&self->m, &self->config, MANAGER_WRITES, now_ms))
		harness_fail(__FILE__, __LINE__, true, "%s", self->m.error);
	ASSERT_EQ(manager_begin(&self->m), 0);
}

/* Ends a command: its result is what it was expected to be, and its words are kept in `said`. */
static char said[4096];

static inline void done(struct fixture_token *self, int err, int want)
{
	if (!err)
		err = manager_commit(&self->m);
	if (err != want)
		harness_fail(__FILE__, __LINE__, true, "%d and not %d: %s", err, want,
			     self->m.error);
	(void)fflush(self->m.out);
	snprintf(said, sizeof(said), "%s", err ? self->m.error : self->m.out_text);
	manager_close(&self->m);
}

#define COMMAND(self, now, want, call)  \
	do {                            \
		open_at(self, now);     \
		done(self, call, want); \
	} while (0)

/* Bundles have transactions of their own. */
#define BUNDLE(self, now, want, call)                                                            \
	do {                                                                                     \
		ASSERT_EQ(manager_open(&(self)->m, &(self)->config, MANAGER_WRITES, now), 0);    \
		int err_ = call;                                                                 \
		if (err_ != (want))                                                              \
			harness_fail(__FILE__, __LINE__, true, "%d: %s", err_, (self)->m.error); \
		manager_close(&(self)->m);                                                       \
	} while (0)

FIXTURE_SETUP(token)
{
	const char *module = find_module();

	base_make();
	make_token();
	self->config = (struct manager_config){ .dir = strdup(in_base("state")),
						.module = module,
						.token_label = "mgr",
						.pin_file = strdup(in_base("pin")) };
	ASSERT_EQ(setup_manager(&self->m, &self->config, false, T0), 0);
	manager_close(&self->m);
	/* From now on the registry says where the token is. */
	self->config.module = self->config.token_label = NULL;
	free((void *)(uintptr_t)self->config.pin_file);
	self->config.pin_file = NULL;

	self->broker = make_key(NULL, "gateway");
	ASSERT_EQ(EVP_PKEY_up_ref(gateway_rsa), 1);
	self->rsa = gateway_rsa;
	write_public_pem("rsa", self->rsa);
	append("gateway", "rsa");
	COMMAND(self, T0, 0, enrol_gateway(&self->m, "gw", in_base("gateway")));
	self->file = malloc(FILE_BYTES_MAX);
	ASSERT_TRUE(self->file != NULL);
}

FIXTURE_TEARDOWN(token)
{
	if (!base[0])
		return; /* skipped before there was anything */
	manager_close(&self->m);
	EVP_PKEY_free(self->rsa);
	free(self->file);
	free((void *)(uintptr_t)self->config.dir);
	base_remove();
}

static inline int enrol(struct fixture_token *self, const char *id, enum record_roles role)
{
	const struct enrol_party e = { .id = id, .role = role, .generate = in_base(id) };

	return enrol_party(&self->m, &e);
}

static inline int add_scope(struct fixture_token *self, const char *name, const char *filter)
{
	const struct scope_terms t = { .name = name,
				       .filters = { filter },
				       .n_filters = 1,
				       .suite = 1,
				       .rekey_messages = 100,
				       .rekey_seconds = 60 };

	return scope_add(&self->m, &t);
}

static inline int grant(struct fixture_token *self, const char *scope, const char *receiver,
			bool proof)
{
	const struct access_grant g = { .scope = scope, .receiver = receiver, .proof = proof };

	return access_grant(&self->m, &g);
}

static const struct bundle_terms no_terms;

/* The statement in base/name, opened with manager.pub. */
static inline struct statement open_bundle(struct fixture_token *self, const char *name,
					   enum statement_kind kind)
{
	uint8_t pem[1024];
	size_t n = get(in_base("state/manager.pub"), pem, sizeof(pem));
	struct p256_point point;
	struct p256_public *manager;
	struct statement s;

	ASSERT_EQ(p256_public_from_pem(bytes_of(pem, n), &point), 0);
	ASSERT_EQ(p256_public_new(&point, &manager), 0);
	n = get(in_base(name), self->file, FILE_BYTES_MAX);
	ASSERT_EQ(statement_open(bytes_of(self->file, n), kind, manager, &s), 0);
	p256_public_free(manager);
	return s;
}

static inline void make_world(struct fixture_token *self)
{
	COMMAND(self, T0, 0, enrol(self, "dev-1", RECORD_ROLE_DEVICE));
	COMMAND(self, T0, 0, enrol(self, "r-1", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, 0, enrol(self, "r-2", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, 0, add_scope(self, "hall", "hall/#"));
	COMMAND(self, T0, 0, access_allow(&self->m, "hall", "dev-1"));
	COMMAND(self, T0, 0, grant(self, "hall", "r-1", true));
	COMMAND(self, T0, 0, grant(self, "hall", "r-2", false));
}

static inline struct secret32 private_of(const char *file)
{
	uint8_t pem[1024];
	size_t n = get(in_base(file), pem, sizeof(pem));
	struct secret32 k;

	ASSERT_EQ(p256_private_from_pem(bytes_of(pem, n), &k), 0);
	return k;
}

/* The conversion key of a grant, as the gateway's token would unwrap it. */
static inline void convert(struct fixture_token *self, const struct bundle_gateway_grant *g,
			   const struct p256_point *capsule, uint8_t x[P256_X_BYTES])
{
	uint8_t pkcs8[RSA_WRAPPED_BYTES_MAX], same[P256_PKCS8_BYTES];
	struct secret32 rk;

	ASSERT_EQ(unwrap(self->rsa, g->wrapped_rk, pkcs8, sizeof(pkcs8)), P256_PKCS8_BYTES);
	memcpy(rk.b, pkcs8 + P256_PKCS8_BYTES - P256_SCALAR_BYTES, P256_SCALAR_BYTES);
	p256_pkcs8(&rk, same);
	ASSERT_BYTES(pkcs8, same, sizeof(same));
	ASSERT_EQ(grant_convert(&rk, capsule, x), 0);
}

static inline int enrol_with(struct fixture_token *self, const char *id, enum record_roles role,
			     const char *public_file, const char *encryption_file)
{
	const struct enrol_party e = { .id = id,
				       .role = role,
				       .public_file = in_base(public_file),
				       .encryption_file =
					       encryption_file ? in_base(encryption_file) : NULL };

	return enrol_party(&self->m, &e);
}

static inline void change_registry(const char *sql)
{
	struct registry r;

	ASSERT_EQ(registry_open(&r, in_base("state/registry.db")), 0);
	ASSERT_EQ(sqlite3_exec(r.db, sql, NULL, NULL, NULL), SQLITE_OK);
	registry_close(&r);
}

static inline void enrol_second_gateway(struct fixture_token *self)
{
	make_key(NULL, "gateway2");
	append("gateway2", "rsa");
	COMMAND(self, T0, 0, enrol_gateway(&self->m, "gw2", in_base("gateway2")));
}

/* --- a message, and the keys on its way --- */

static const char reading[] = "21.5 C";

/* What a device sealed, and what the keys on its way make of it. */
struct sealed {
	uint8_t bytes[ENVELOPE_SEALED_BYTES(sizeof(reading))];
	struct envelope e;
	struct p256_point enc;
};

static inline void seal(const struct record_scope *scope, struct sealed *s)
{
	struct envelope_sender sender;

	ASSERT_EQ(envelope_sender_init(&sender, (enum hpke_suite)scope->suite, scope->key_id,
				       &scope->a),
		  0);
	ASSERT_EQ(envelope_seal(&sender, 1, T0, bytes_str("dev-1"), bytes_str("hall/a"),
				bytes_str(reading), s->bytes),
		  0);
	ASSERT_EQ(envelope_parse(bytes_of(s->bytes, ENVELOPE_SEALED_BYTES(strlen(reading))), &s->e),
		  0);
	s->enc = sender.enc;
	envelope_sender_deinit(&sender);
}

static inline struct secret32 key_of(struct fixture_token *self, struct bytes wrapped)
{
	uint8_t pkcs8[RSA_WRAPPED_BYTES_MAX];
	struct secret32 rk;

	ASSERT_EQ(unwrap(self->rsa, wrapped, pkcs8, sizeof(pkcs8)), P256_PKCS8_BYTES);
	memcpy(rk.b, pkcs8 + P256_PKCS8_BYTES - P256_SCALAR_BYTES, P256_SCALAR_BYTES);
	return rk;
}

/* One conversion on the way: x is what came before, and what comes of it. */
static inline void step(const struct secret32 *rk, uint8_t x[P256_X_BYTES])
{
	struct p256_point p;

	ASSERT_EQ(p256_point_lift(x, &p), 0);
	ASSERT_EQ(grant_convert(rk, &p, x), 0);
}

/* Does x open with d? */
static inline bool opens_with(const struct sealed *s, const struct record_grant *g,
			      const struct secret32 *d, const uint8_t x[P256_X_BYTES])
{
	struct secret32 dh;
	uint8_t plain[64];

	ASSERT_EQ(grant_dh(d, x, &dh), 0);
	if (envelope_open(&s->e, &dh, &g->a, plain))
		return false;
	ASSERT_BYTES(plain, reading, strlen(reading));
	return true;
}

static inline bool receiver_opens(const char *id, const struct sealed *s,
				  const struct record_grant *g, const uint8_t x[P256_X_BYTES])
{
	struct grant_terms t = { .key_id = g->key_id, .x = g->x, .b = g->b };
	struct secret32 private, d;
	char file[80];

	snprintf(file, sizeof(file), "%s/encryption.pem", id);
	private = private_of(file);
	memcpy(t.grant_id, g->grant_id, sizeof(t.grant_id));
	ASSERT_EQ(grant_secret_receiver(&t, &private, &d), 0);
	return opens_with(s, g, &d, x);
}

static inline void enrol_distributor(struct fixture_token *self, const char *id)
{
	char file[80];

	snprintf(file, sizeof(file), "%s.pub", id);
	make_key(NULL, file);
	append(file, "rsa");
	COMMAND(self, T0, 0, enrol_with(self, id, RECORD_ROLE_DISTRIBUTOR, file, NULL));
}

/* Bundles stay where a view into them is used: each kind has memory of its own. */
static inline struct bytes kept_body(struct fixture_token *self, const char *name,
				     enum statement_kind kind)
{
	static uint8_t kept[3][65536];
	static unsigned next;
	struct bytes body = open_bundle(self, name, kind).body;
	uint8_t *to = kept[next++ % 3];

	ASSERT_TRUE(body.n <= sizeof(kept[0]));
	memcpy(to, body.p, body.n);
	return bytes_of(to, body.n);
}

/* The gateway's grant by receiver, outlet's upstream or not. */
static inline struct bundle_gateway_grant gateway_grant(struct bundle_gateway b,
							const char *receiver, const char *upstream,
							const char *filter)
{
	struct bundle_gateway_grant g;

	for (uint32_t i = 0; i < b.n_grants; i++) {
		ASSERT_EQ(bundle_gateway_next_grant(&b.grants, &g), 0);
		if (bytes_equal(g.grant.receiver, bytes_str(receiver)) &&
		    bytes_equal(g.grant.upstream, bytes_str(upstream)) &&
		    bytes_equal(g.grant.filters[0], bytes_str(filter)))
			return g;
	}
	harness_fail(__FILE__, __LINE__, true, "no grant of %s", receiver);
	harness_end();
}

static inline struct bundle_outlet find_outlet(struct bundle_distributor d, const char *name)
{
	struct bundle_outlet o;

	for (uint16_t i = 0; i < d.n_outlets; i++) {
		ASSERT_EQ(bundle_distributor_next_outlet(&d.outlets, &o), 0);
		if (bytes_equal(o.name, bytes_str(name)))
			return o;
	}
	harness_fail(__FILE__, __LINE__, true, "no outlet %s", name);
	harness_end();
}

static inline int64_t count(struct fixture_token *self, const char *sql)
{
	struct registry_query q;
	int64_t n = -1;

	open_at(self, T0);
	q = registry_query(&self->m.registry, sql);
	if (registry_step(&q))
		n = registry_int(&q, 0);
	ASSERT_EQ(registry_end(&q), 0);
	done(self, 0, 0);
	return n;
}

static inline int world_main(int argc, char **argv)
{
	int status;

	gateway_rsa = EVP_RSA_gen(2048);
	if (!gateway_rsa)
		abort();
	status = harness_main(argc, argv);
	EVP_PKEY_free(gateway_rsa);
	return status;
}

#endif
