// SPDX-License-Identifier: MIT
/* Commands that say who may publish, pass on and read; and take it back. */
#include "userspace/manager/run.h"

#include <errno.h>
#include <string.h>

#include "userspace/manager/access.h"
#include "userspace/manager/hop.h"
#include "userspace/manager/outlet.h"
#include "userspace/manager/party.h"
#include "userspace/manager/revoke.h"
#include "userspace/manager/scope.h"

int run_scope_add(struct manager *m, const struct options *o)
{
	struct scope_terms t = {
		.name = o->text[OPTION_NAME],
		.n_filters = o->n_filters,
		.suite = (uint8_t)o->number[OPTION_SUITE],
		.valid_days = o->number[OPTION_VALID_DAYS],
		.rekey_messages = o->number[OPTION_REKEY_MESSAGES],
		.rekey_seconds = o->number[OPTION_REKEY_SECONDS],
		.padded = options_has(o, OPTION_PADDED),
	};

	memcpy(t.filters, o->filters, sizeof(t.filters));
	return scope_add(m, &t);
}

int run_scope_allow(struct manager *m, const struct options *o)
{
	return access_allow(m, o->text[OPTION_SCOPE], o->text[OPTION_DEVICE]);
}

int run_scope_deny(struct manager *m, const struct options *o)
{
	return access_deny(m, o->text[OPTION_SCOPE], o->text[OPTION_DEVICE]);
}

int run_hop(struct manager *m, const struct options *o)
{
	const struct hop_terms t = {
		.scope = o->text[OPTION_SCOPE],
		.distributor = o->text[OPTION_DISTRIBUTOR],
		.gateway = o->text[OPTION_GATEWAY],
		.proof = !options_has(o, OPTION_NO_PROOF),
	};

	return hop_add(m, &t);
}

int run_outlet_add(struct manager *m, const struct options *o)
{
	const struct outlet_terms t = {
		.name = o->text[OPTION_NAME],
		.scope = o->text[OPTION_SCOPE],
		.distributor = o->text[OPTION_DISTRIBUTOR],
		.prefix = o->text[OPTION_TOPIC],
		.ids = o->text[OPTION_IDS],
		.rotate_seconds = o->number[OPTION_ROTATE_SECONDS],
		.gateway = o->text[OPTION_GATEWAY],
		.receiver = o->text[OPTION_RECEIVER],
	};

	return outlet_add(m, &t);
}

/* The gateway is the outlet's, and there is no proof of an origin that has another name. */
static int run_grant_outlet(struct manager *m, const struct options *o)
{
	const struct outlet_grant t = { .outlet = o->text[OPTION_OUTLET],
					.receiver = o->text[OPTION_RECEIVER],
					.valid_days = o->number[OPTION_VALID_DAYS] };

	if (o->text[OPTION_GATEWAY] || options_has(o, OPTION_NO_PROOF))
		return manager_fail(m, -EINVAL, "--gateway and --no-proof are not for an outlet");
	return outlet_grant(m, &t);
}

int run_grant(struct manager *m, const struct options *o)
{
	const struct access_grant g = {
		.scope = o->text[OPTION_SCOPE],
		.receiver = o->text[OPTION_RECEIVER],
		.gateway = o->text[OPTION_GATEWAY],
		.proof = !options_has(o, OPTION_NO_PROOF), /* PROTOCOL 4: required as a rule */
		.valid_days = o->number[OPTION_VALID_DAYS],
	};

	return o->text[OPTION_OUTLET] ? run_grant_outlet(m, o) : access_grant(m, &g);
}

int run_revoke_grant(struct manager *m, const struct options *o)
{
	if (o->text[OPTION_OUTLET])
		return revoke_outlet_grant(m, o->text[OPTION_OUTLET], o->text[OPTION_RECEIVER]);
	return revoke_grant(m, o->text[OPTION_SCOPE], o->text[OPTION_RECEIVER],
			    o->text[OPTION_GATEWAY]);
}

int run_revoke_outlet(struct manager *m, const struct options *o)
{
	return revoke_outlet(m, o->word);
}

int run_revoke_hop(struct manager *m, const struct options *o)
{
	return revoke_hop(m, o->text[OPTION_SCOPE], o->text[OPTION_DISTRIBUTOR]);
}

int run_revoke_device(struct manager *m, const struct options *o)
{
	return revoke_party(m, o->word, RECORD_ROLE_DEVICE);
}

int run_revoke_receiver(struct manager *m, const struct options *o)
{
	return revoke_party(m, o->word, RECORD_ROLE_RECEIVER);
}

int run_revoke_distributor(struct manager *m, const struct options *o)
{
	return revoke_party(m, o->word, RECORD_ROLE_DISTRIBUTOR);
}

int run_revoke_manager(struct manager *m, const struct options *o)
{
	return revoke_party(m, o->word, RECORD_ROLE_MANAGER);
}

int run_revoke_party(struct manager *m, const struct options *o)
{
	return revoke_party(m, o->word, PARTY_ANY_ROLE);
}

int run_revoke_gateway(struct manager *m, const struct options *o)
{
	return revoke_gateway(m, o->word);
}
