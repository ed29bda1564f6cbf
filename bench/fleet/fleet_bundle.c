// SPDX-License-Identifier: MIT
#include "bench/fleet/fleet_bundle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/fleet/fleet.h"
#include "bench/lab/site.h"
#include "userspace/base/file.h"
#include "userspace/base/log.h"
#include "userspace/bundle/bundle.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/hpke.h"

/* One record of each kind with all about it stays below, so this is room enough. */
#define PARTY_ROOM	  512
#define GRANT_ROOM	  1024
#define SCOPE_ROOM	  512
#define PEM_ROOM	  512
#define TEMPLATE_ROOM	  (1u << 20)
#define REKEY_SECONDS_MAX 3600
#define REKEY_MESSAGES	  65536
#define NAME_BYTES	  32

struct fleet_bundle {
	struct p256_private *manager;
	uint8_t *whole; /* head of a statement, body, signature */
	size_t room;
	struct bytes body; /* in memory of its own */
	uint8_t *body_memory;
};

/* What is taken from the bundle that ssdtf-admin made: whose token it is, and one wrapped key. */
struct template
{
	struct bundle_gateway head;
	uint8_t wrapped[BUNDLE_WRAPPED_BYTES_MAX];
	size_t wrapped_n;
	uint8_t file[TEMPLATE_ROOM];
};

static void no_memory(void)
{
	exit_with(EX_OSERR, "out of memory");
}

static void template_read(const struct site *s, struct template *t)
{
	char path[SITE_PATH_BYTES];
	struct bundle_gateway_grant g;
	struct bytes_reader grants;
	struct statement st;
	size_t n;

	site_path(s, "gateway/gateway.bundle", path);
	if (file_read_into(AT_FDCWD, path, t->file, sizeof(t->file), &n) ||
	    statement_read(bytes_of(t->file, n), &st) || bundle_gateway_decode(st.body, &t->head))
		exit_with(EX_SOFTWARE, "%s cannot be read", path);
	grants = t->head.grants;
	if (bundle_gateway_next_grant(&grants, &g))
		exit_with(EX_SOFTWARE, "%s has no grant", path);
	t->wrapped_n = g.wrapped_rk.n;
	memcpy(t->wrapped, g.wrapped_rk.p, g.wrapped_rk.n);
}

/* Another point each time. */
static struct p256_point some_point(void)
{
	struct secret32 k;
	struct p256_point p;
	int err = p256_scalar_random(&k);

	if (!err)
		err = p256_mul_base(&k, &p);
	if (err)
		exit_with(EX_SOFTWARE, "no point: %s", strerror(-err));
	return p;
}

static struct bytes name_of(char name[NAME_BYTES], const char *what, unsigned i)
{
	int n = snprintf(name, NAME_BYTES, "%s-%06u", what, i);

	return bytes_of(name, (size_t)n);
}

static void put_scopes(struct bytes_writer *w)
{
	char name[NAME_BYTES], filter[NAME_BYTES + 4];

	bytes_write_u32(w, FLEET_SCOPES);
	for (unsigned i = 0; i < FLEET_SCOPES; i++) {
		struct record_scope s = { .key_id = i + 1,
					  .epoch = 1,
					  .name = name_of(name, "scope", i),
					  .suite = HPKE_SUITE_AES_128_GCM,
					  .a = some_point(),
					  .rekey_messages = REKEY_MESSAGES,
					  .rekey_seconds = REKEY_SECONDS_MAX,
					  .n_filters = 1 };

		(void)snprintf(filter, sizeof(filter), "%.*s/#", (int)s.name.n, name);
		s.filters[0] = bytes_str(filter);
		bundle_gateway_write_scope(&s, w);
	}
}

static void put_party(struct bytes_writer *w, const char *what, unsigned i, uint8_t role)
{
	char name[NAME_BYTES], scope[NAME_BYTES];
	struct bundle_gateway_party p = {
		.party = { .id = name_of(name, what, i), .roles = role, .signing = some_point() }
	};

	hash_random(p.k_adm, sizeof(p.k_adm));
	if (role == RECORD_ROLE_DEVICE) {
		p.party.n_scopes = 1;
		p.party.scopes[0] = name_of(scope, "scope", i % FLEET_SCOPES);
	}
	bundle_gateway_write_party(&p, w);
}

static void put_grants(const struct template *t, unsigned receivers, struct bytes_writer *w)
{
	char receiver[NAME_BYTES], scope[NAME_BYTES], filter[NAME_BYTES + 4];

	bytes_write_u32(w, receivers * FLEET_SCOPES);
	for (unsigned i = 0; i < receivers * FLEET_SCOPES; i++) {
		unsigned s = i % FLEET_SCOPES;
		struct bundle_gateway_grant g = {
			.grant = { .key_id = s + 1,
				   .receiver = name_of(receiver, "receiver", i / FLEET_SCOPES),
				   .scope = name_of(scope, "scope", s),
				   .flags = RECORD_GRANT_PROOF,
				   .a = some_point(),
				   .b = some_point(),
				   .x = some_point(),
				   .n_filters = 1 },
			.wrapped_rk = bytes_of(t->wrapped, t->wrapped_n),
		};

		hash_random(g.grant.grant_id, sizeof(g.grant.grant_id));
		(void)snprintf(filter, sizeof(filter), "%s/#", scope);
		g.grant.filters[0] = bytes_str(filter);
		bundle_gateway_write_grant(&g, w);
	}
}

static void body_make(struct fleet_bundle *b, const struct template *t, unsigned n)
{
	unsigned receivers = (n + FLEET_SCOPES - 1) / FLEET_SCOPES;
	size_t room = FLEET_SCOPES * SCOPE_ROOM + (size_t)(n + receivers) * PARTY_ROOM +
		      (size_t)receivers * FLEET_SCOPES * GRANT_ROOM + SCOPE_ROOM;
	struct bytes_writer w;

	b->body_memory = malloc(room);
	if (!b->body_memory)
		no_memory();
	w = bytes_writer_of(b->body_memory, room);
	bundle_gateway_write_head(&t->head, &w);
	put_scopes(&w);
	bytes_write_u32(&w, n + receivers);
	for (unsigned i = 0; i < n; i++)
		put_party(&w, "device", i, RECORD_ROLE_DEVICE);
	for (unsigned i = 0; i < receivers; i++)
		put_party(&w, "receiver", i, RECORD_ROLE_RECEIVER);
	put_grants(t, receivers, &w);
	bytes_write_u32(&w, 0); /* revoked */
	bytes_write_u32(&w, 0); /* updates */
	BUG_ON(w.bad);
	b->body = bytes_of(b->body_memory, w.used);
}

static void manager_make(struct fleet_bundle *b, const char *manager_pub)
{
	struct p256_point point;
	struct secret32 k;
	uint8_t pem[PEM_ROOM];
	int n = p256_scalar_random(&k);

	if (!n)
		n = p256_private_new(&k, &b->manager);
	if (n)
		exit_with(EX_SOFTWARE, "no manager's key: %s", strerror(-n));
	p256_private_point(b->manager, &point);
	n = p256_public_to_pem(&point, pem, sizeof(pem));
	if (n > 0)
		n = file_write(AT_FDCWD, manager_pub, bytes_of(pem, (size_t)n), 0644);
	if (n < 0)
		exit_with(EX_CANTCREAT, "%s: %s", manager_pub, strerror(-n));
}

struct fleet_bundle *fleet_bundle_new(const struct site *s, unsigned n, const char *manager_pub)
{
	struct fleet_bundle *b = calloc(1, sizeof(*b));
	struct template *t = malloc(sizeof(*t));

	if (!b || !t)
		no_memory();
	template_read(s, t);
	manager_make(b, manager_pub);
	body_make(b, t, n);
	free(t);
	b->room = STATEMENT_BYTES(b->body.n);
	b->whole = malloc(b->room);
	if (!b->whole)
		no_memory();
	return b;
}

void fleet_bundle_write(struct fleet_bundle *b, uint64_t serial, const char *path)
{
	const struct statement s = { .kind = STATEMENT_GATEWAY, .serial = serial, .body = b->body };
	struct bytes_writer w = bytes_writer_of(b->whole, b->room);
	uint8_t digest[P256_DIGEST_BYTES], sig[P256_SIG_BYTES];
	int err;

	statement_write_unsigned(&s, &w);
	if (w.bad)
		exit_with(EX_USAGE, "so many do not fit into one bundle of %u MiB",
			  STATEMENT_BODY_BYTES_MAX >> 20);
	statement_digest(STATEMENT_GATEWAY, bytes_of(b->whole, w.used), digest);
	err = p256_sign_digest(b->manager, digest, sig);
	if (err)
		exit_with(EX_SOFTWARE, "the bundle cannot be signed: %s", strerror(-err));
	bytes_write(&w, bytes_of(sig, sizeof(sig)));
	err = file_write(AT_FDCWD, path, bytes_of(b->whole, w.used), 0600);
	if (!err && chown(path, CHILD_NOBODY, CHILD_NOBODY))
		err = -errno;
	if (err)
		exit_with(EX_CANTCREAT, "%s: %s", path, strerror(-err));
}

size_t fleet_bundle_bytes(const struct fleet_bundle *b)
{
	return STATEMENT_BYTES(b->body.n);
}

void fleet_bundle_free(struct fleet_bundle *b)
{
	p256_private_free(b->manager);
	free(b->body_memory);
	free(b->whole);
	free(b);
}
