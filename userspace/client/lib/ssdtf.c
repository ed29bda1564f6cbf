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

bool ssdtf_filters_match(struct bytes filters, struct bytes topic)
{
	struct bytes_reader r = bytes_reader_of(filters);

	while (r.left && !r.bad)
		if (record_filter_matches(bytes_read_u16_view(&r), topic))
			return true;
	return false;
}

/* The filters as they stand in the record, length fields and all. */
static struct bytes filters_view(const struct bytes *filters, unsigned n)
{
	const uint8_t *begin, *end;

	if (!n)
		return bytes_of(NULL, 0);
	begin = filters[0].p - 2;
	end = filters[n - 1].p + filters[n - 1].n;
	return bytes_of(begin, (size_t)(end - begin));
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

	if (!c->reads)
		return 0;
	if (b->n_grants > SSDTF_GRANTS_MAX)
		return -E2BIG;
	for (unsigned i = 0; i < b->n_grants; i++) {
		ret = bundle_party_next_grant(&r, &g);
		if (ret)
			return ret;
		if (!bytes_equal(g.receiver, b->party_id) ||
		    memcmp(g.b.b, c->encryption_point.b, P256_POINT_BYTES))
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

/* 0 wishes nothing. */
static uint32_t within(uint32_t wish, uint32_t most)
{
	return wish && wish < most ? wish : most;
}

static void take_scopes(struct ssdtf_client *c)
{
	struct bytes_reader r = c->bundle.scopes;
	struct record_scope s;

	ssdtf_contexts_close(c);
	c->n_scopes = 0;
	while (c->n_scopes < c->bundle.n_scopes && !bundle_party_next_scope(&r, &s)) {
		struct ssdtf_scope *to = &c->scopes[c->n_scopes++];

		to->key_id = s.key_id;
		to->epoch = s.epoch;
		to->name = s.name;
		to->filters = filters_view(s.filters, s.n_filters);
		to->not_before_ms = s.not_before_ms;
		to->not_after_ms = s.not_after_ms;
		to->a = s.a;
		to->suite = (enum hpke_suite)s.suite;
		to->messages_max = within(c->rekey_messages,
					  within(s.rekey_messages, SSDTF_CONTEXT_MESSAGES_MAX));
		to->seconds_max = within(c->rekey_seconds,
					 within(s.rekey_seconds, SSDTF_CONTEXT_SECONDS_MAX));
	}
}

static void take_grants(struct ssdtf_client *c)
{
	struct bytes_reader r = c->bundle.grants;
	struct record_grant g;

	ssdtf_contexts_wipe(c);
	secret_wipe(c->grants, sizeof(c->grants));
	c->n_grants = 0;
	while (c->reads && c->n_grants < c->bundle.n_grants && !bundle_party_next_grant(&r, &g)) {
		struct ssdtf_grant *to = &c->grants[c->n_grants++];

		memcpy(to->grant_id, g.grant_id, GRANT_ID_BYTES);
		to->key_id = g.key_id;
		to->flags = g.flags;
		to->filters = filters_view(g.filters, g.n_filters);
		to->not_before_ms = g.not_before_ms;
		to->not_after_ms = g.not_after_ms;
		to->a = g.a;
		to->u.x = g.x;
	}
}

static int load(struct ssdtf_client *c, struct bytes bytes, struct bytes id, uint64_t serial_min,
		uint64_t now_ms)
{
	struct p256_public *broker;
	struct bundle_party b;
	struct statement s;
	int ret = check_bundle(c, bytes, id, serial_min, now_ms, &s, &b);

	if (ret)
		return ret;
	ret = p256_public_new(&b.broker.signing, &broker);
	if (ret)
		return ret;
	p256_public_free(c->broker);
	c->broker = broker;
	hash_one(bytes_of(b.broker.signing.b, P256_POINT_BYTES), c->broker_hash);
	secret_wipe(&c->bundle, sizeof(c->bundle)); /* K_adm */
	c->bundle = b;
	c->id = b.party_id;
	c->serial = s.serial;
	take_scopes(c);
	take_grants(c);
	/* What was remembered stood under the old bundle's keys. */
	ssdtf_signers_forget(c);
	return 0;
}

int ssdtf_load_bundle(struct ssdtf_client *c, struct bytes bundle, struct ssdtf_time now)
{
	return load(c, bundle, c->id, c->serial, now.unix_ms);
}

static int load_keys(struct ssdtf_client *c, const struct ssdtf_config *config)
{
	int ret = p256_private_new(config->signing, &c->signing);

	if (ret)
		return ret;
	p256_private_point(c->signing, &c->signing_point);
	if (config->encryption) {
		ret = p256_mul_base(config->encryption, &c->encryption_point);
		if (ret)
			return ret;
		c->encryption = *config->encryption;
		c->reads = true;
	}
	return p256_public_new(config->manager, &c->manager);
}

static bool config_is_whole(const struct ssdtf_config *config)
{
	const struct ssdtf_ops *ops = config->ops;

	return config->signing && config->manager && ops && ops->publish && ops->disconnect &&
	       ops->counter_load && ops->counter_reserve &&
	       (!config->encryption || config->n_origins) &&
	       (!config->n_origins || config->origins) && (!config->contexts || config->n_contexts);
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
	ret = load_keys(c, config);
	if (!ret)
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
	p256_public_free(c->broker);
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
	return c->serial;
}

struct bytes ssdtf_gateway(const struct ssdtf_client *c)
{
	return c->bundle.broker.gateway_id;
}

const uint8_t *ssdtf_broker_hash(const struct ssdtf_client *c)
{
	return c->broker_hash;
}
