// SPDX-License-Identifier: MIT
/* Commands that look: registry, audit log, who stands behind an external id. */
#include "userspace/manager/run.h"

#include "userspace/manager/audit.h"
#include "userspace/manager/list.h"
#include "userspace/manager/trace.h"

int run_list_parties(struct manager *m, const struct options *o)
{
	return list_parties(m);
}

int run_list_gateways(struct manager *m, const struct options *o)
{
	return list_gateways(m);
}

int run_list_scopes(struct manager *m, const struct options *o)
{
	return list_scopes(m);
}

int run_list_grants(struct manager *m, const struct options *o)
{
	return list_grants(m);
}

int run_list_outlets(struct manager *m, const struct options *o)
{
	return list_outlets(m);
}

int run_list_history(struct manager *m, const struct options *o)
{
	return list_history(m);
}

int run_show_manager(struct manager *m, const struct options *o)
{
	return list_manager(m);
}

int run_show_party(struct manager *m, const struct options *o)
{
	return list_party(m, o->word);
}

int run_show_gateway(struct manager *m, const struct options *o)
{
	return list_gateway(m, o->word);
}

int run_show_scope(struct manager *m, const struct options *o)
{
	return list_scope(m, o->word);
}

int run_show_outlet(struct manager *m, const struct options *o)
{
	return list_outlet(m, o->word);
}

int run_trace(struct manager *m, const struct options *o)
{
	const struct trace_question t = { .external = o->word,
					  .at = o->text[OPTION_AT],
					  .reason = o->text[OPTION_REASON],
					  .table = o->text[OPTION_TABLE] };

	return trace(m, &t);
}

int run_audit_verify(struct manager *m, const struct options *o)
{
	return audit_verify(m);
}

int run_audit_list(struct manager *m, const struct options *o)
{
	return audit_list(m, options_has(o, OPTION_JSON));
}

int run_check(struct manager *m, const struct options *o)
{
	return list_check(m);
}
