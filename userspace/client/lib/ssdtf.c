// SPDX-License-Identifier: MIT
/* Set-up: the bundle checked and taken apart into the client's fixed tables. */
#include "userspace/client/lib/ssdtf.h"

#include <errno.h>
#include <string.h>

#include "userspace/bundle/statement.h"
#include "userspace/client/lib/ssdtf_private.h"

const char *ssdtf_reason_text(unsigned reason)
{
	static const char *const texts[] = {
		[SSDTF_REASON_NONE] = "no reason",
		[SSDTF_REASON_BAD_SIGNATURE] = "bad signature",
		[SSDTF_REASON_MALFORMED] = "malformed",
		[SSDTF_REASON_REPLAYED] = "replayed",
		[SSDTF_REASON_KEY_ID] = "unknown or expired key id",
		[SSDTF_REASON_NOT_PERMITTED] = "not permitted on this topic",
		[SSDTF_REASON_UNAVAILABLE] = "conversion unavailable",
		[SSDTF_REASON_CANNOT_OPEN] = "cannot open",
		[SSDTF_REASON_CONTEXT_RETIRED] = "context retired",
	};

	return reason < ARRAY_SIZE(texts) ? texts[reason] : "unknown reason";
}

static int check_scopes(const struct bundle_party *b)
{
	struct bytes_reader r = b->scopes;
	struct record_scope s;
	int ret;

	if (b->n_scopes > SSDTF_SCOPES_MAX)
		return -E2BIG;
	for (unsigned i = 0; i < b->n_scopes; i++) {
		ret = bundle_party_next_scope(&r, &s);
		if (ret)
			return ret;
	}
	return 0;
}

static int check_grants(const struct ssdtf_client *c, const struct bundle_party *b)
{
	struct bytes_reader r = b->grants;
	struct record_grant g;
	int ret;

	if (!c->n_encryption)
		return 0;
	if (b->n_grants > SSDTF_GRANTS_MAX)
		return -E2BIG;
	for (unsigned i = 0; i < b->n_grants; i++) {
		ret = bundle_party_next_grant(&r, &g);
		if (ret)
			return ret;
		if (!bytes_equal(g.receiver, b->party_id) || g.flags & RECORD_GRANT_HOP ||
		    ssdtf_grant_key(c, &g) < 0)
			return -EPERM;
	}
	return 0;
}

static int check_origins(const struct bundle_party *b)
{
	struct bytes_reader r = b->origins;
	struct record_party p;
	int ret;

	for (unsigned i = 0; i < b->n_origins; i++) {
		ret = bundle_party_next_origin(&r, &p);
		if (ret)
			return ret;
	}
	return 0;
}

/* All that can be wrong with a bundle is found here, so that taking it over cannot fail half-way.
 */
static int check_bundle(const struct ssdtf_client *c, struct bytes bytes, struct bytes id,
			uint64_t serial_min, uint64_t now_ms, struct statement *ret_s,
			struct bundle_party *ret_b)
{
	struct bundle_party b;
	struct statement s;
	int ret = statement_open(bytes, STATEMENT_BUNDLE, c->manager, &s);

	if (ret)
		return ret;
	ret = bundle_party_decode(s.body, &b);
	if (ret)
		return ret;
	if (s.serial < serial_min)
		return -ESTALE;
	if (!record_valid_at(s.not_before_ms, s.not_after_ms, now_ms))
		return -ETIME;
	if ((id.n && !bytes_equal(b.party_id, id)) ||
	    memcmp(b.signing.b, c->signing_point.b, P256_POINT_BYTES))
		return -EPERM;
	if (c->zk && !record_id_is_key(b.party_id, &b.signing))
		return -EPERM;
	ret = check_scopes(&b);
	if (!ret)
		ret = check_grants(c, &b);
	if (!ret)
		ret = check_origins(&b);
	if (ret)
		return ret;
	*ret_s = s;
	*ret_b = b;
	return 0;
}

static void take_scopes(struct ssdtf_client *c)
{
	struct bytes_reader r = c->bundle.scopes;
	struct record_scope s;

	ssdtf_contexts_close(c);
	c->n_scopes = 0;
	while (c->n_scopes < c->bundle.n_scopes && !bundle_party_next_scope(&r, &s))
		ssdtf_scope_add(c, &s, NULL);
}

static void take_grants(struct ssdtf_client *c)
{
	struct bytes_reader r = c->bundle.grants;
	struct record_grant g;

	ssdtf_contexts_wipe(c);
	secret_wipe(c->grants, sizeof(c->grants));
	c->n_grants = 0;
	while (c->n_encryption && c->n_grants < c->bundle.n_grants &&
	       !bundle_party_next_grant(&r, &g))
		ssdtf_grant_add(c, &g, NULL);
}

static int load(struct ssdtf_client *c, struct bytes bytes, struct bytes id, uint64_t serial_min,
		uint64_t now_ms)
{
	struct bundle_party b;
	struct statement s;
	int ret = check_bundle(c, bytes, id, serial_min, now_ms, &s, &b);

	if (!ret)
		ret = ssdtf_broker_take(c, &b.broker);
	if (ret)
		return ret;
	secret_wipe(&c->bundle, sizeof(c->bundle)); /* K_adm */
	c->bundle = b;
	c->id = b.party_id;
	c->bundle_serial = c->serial = s.serial;
	take_scopes(c);
	take_grants(c);
	ssdtf_statements_take(c, now_ms);
	return 0;
}

/* Who has no bundle knows only whom to ask for one. */
static int identify(struct ssdtf_client *c, const struct ssdtf_identity *who)
{
	struct bundle_party b = {
		.party_id = who->id,
		.signing = c->signing_point,
		.broker = { .gateway_id = who->gateway_id, .signing = who->broker },
	};
	int ret = ssdtf_broker_take(c, &b.broker);

	if (ret)
		return ret;
	memcpy(b.k_adm, who->k_adm, sizeof(b.k_adm));
	c->bundle = b;
	c->id = who->id;
	secret_wipe(&b, sizeof(b));
	return 0;
}

int ssdtf_load_bundle(struct ssdtf_client *c, struct bytes bundle, struct ssdtf_time now)
{
	return load(c, bundle, c->id, c->bundle_serial, now.unix_ms);
}

static int load_keys(struct ssdtf_client *c, const struct ssdtf_config *config)
{
	const struct secret32 *const encryption[] = { config->encryption, config->encryption_old };
	int ret = p256_private_new(config->signing, &c->signing);

	if (ret)
		return ret;
	p256_private_point(c->signing, &c->signing_point);
	c->zk = config->zk;
	if (c->zk)
		c->proves = *config->signing;
	for (unsigned i = 0; i < ARRAY_SIZE(encryption) && encryption[i]; i++) {
		ret = p256_mul_base(encryption[i], &c->encryption[i].point);
		if (ret)
			return ret;
		c->encryption[i].scalar = *encryption[i];
		c->n_encryption++;
	}
	return p256_public_new(config->manager, &c->manager);
}

static bool config_is_whole(const struct ssdtf_config *config)
{
	const struct ssdtf_ops *ops = config->ops;

	return config->signing && config->manager && ops && ops->publish && ops->disconnect &&
	       ops->counter_load && ops->counter_reserve &&
	       (!config->encryption || config->n_origins) &&
	       (!config->n_origins || config->origins) &&
	       (!config->contexts || config->n_contexts) &&
	       (!config->encryption_old || config->encryption) &&
	       (!config->identity || !config->bundle.n) &&
	       (!config->statements_room || config->statements) &&
	       config->statements_n <= config->statements_room;
}

int ssdtf_init(struct ssdtf_client *c, const struct ssdtf_config *config, struct ssdtf_time now)
{
	int ret;

	if (!config_is_whole(config))
		return -EINVAL;
	memset(c, 0, sizeof(*c));
	for (unsigned i = 0; i < config->n_origins; i++) {
		/* Loaded from storage, perhaps damaged there. */
		if (config->origins[i].id_n > ENVELOPE_ORIGIN_BYTES_MAX)
			return -EINVAL;
		if (config->origins[i].used > c->tick)
			c->tick = config->origins[i].used;
	}
	c->ops = config->ops;
	c->ctx = config->ctx;
	c->origins = config->origins;
	c->n_origins = config->n_origins;
	c->contexts = config->contexts ? config->contexts : c->own_contexts;
	c->n_contexts = config->contexts ? config->n_contexts : SSDTF_CONTEXTS_MAX;
	c->rekey_messages = config->rekey_messages;
	c->rekey_seconds = config->rekey_seconds;
	c->counter_step = config->counter_step ? config->counter_step : SSDTF_COUNTER_STEP;
	c->statements.p = config->statements;
	c->statements.n = config->statements_n;
	c->statements.room = config->statements_room;
	ret = load_keys(c, config);
	if (!ret)
		ret = ssdtf_statements_check(c);
	if (!ret && config->identity)
		ret = identify(c, config->identity);
	else if (!ret)
		ret = load(c, config->bundle, config->id, config->serial_min, now.unix_ms);
	if (!ret)
		ret = ssdtf_counter_init(c);
	if (ret)
		ssdtf_deinit(c);
	return ret;
}

void ssdtf_deinit(struct ssdtf_client *c)
{
	ssdtf_contexts_close(c);
	ssdtf_contexts_wipe(c);
	ssdtf_signers_forget(c);
	ssdtf_signer_deinit(&c->broker);
	p256_public_free(c->manager);
	p256_private_free(c->signing);
	secret_wipe(c, sizeof(*c));
}

struct bytes ssdtf_id(const struct ssdtf_client *c)
{
	return c->id;
}

uint64_t ssdtf_serial(const struct ssdtf_client *c)
{
	return c->bundle_serial;
}

uint64_t ssdtf_updated_to(const struct ssdtf_client *c)
{
	return c->serial;
}

struct bytes ssdtf_statements(const struct ssdtf_client *c)
{
	return bytes_of(c->statements.p, c->statements.n);
}

struct bytes ssdtf_gateway(const struct ssdtf_client *c)
{
	return c->bundle.broker.gateway_id;
}

const uint8_t *ssdtf_broker_hash(const struct ssdtf_client *c)
{
	return c->broker_hashes[c->broker_key];
}
