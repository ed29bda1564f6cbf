// SPDX-License-Identifier: MIT
/* Commands that sign what others work by, and bring it to gateways. */
#include "userspace/manager/run.h"

#include "userspace/manager/bundle_make.h"
#include "userspace/manager/push_run.h"
#include "userspace/manager/reports.h"
#include "userspace/manager/serve.h"

static struct bundle_terms bundle_terms_of(const struct options *o)
{
	return (struct bundle_terms){ .gateway = o->text[OPTION_GATEWAY],
				      .valid_days = o->number[OPTION_VALID_DAYS] };
}

int run_bundle_gateway(struct manager *m, const struct options *o)
{
	struct bundle_terms t = bundle_terms_of(o);

	t.gateway = o->text[OPTION_ID];
	return bundle_make_gateway(m, &t, o->text[OPTION_OUT]);
}

int run_bundle_party(struct manager *m, const struct options *o)
{
	const struct bundle_terms t = bundle_terms_of(o);

	return bundle_make_party(m, &t, o->text[OPTION_ID], o->text[OPTION_OUT]);
}

int run_bundle_distributor(struct manager *m, const struct options *o)
{
	const struct bundle_terms t = bundle_terms_of(o);

	return bundle_make_distributor(m, &t, o->text[OPTION_ID], o->text[OPTION_OUT]);
}

int run_bundle_all(struct manager *m, const struct options *o)
{
	const struct bundle_terms t = bundle_terms_of(o);

	return bundle_make_all(m, &t, o->text[OPTION_OUT_DIR]);
}

int run_push(struct manager *m, const struct options *o)
{
	const struct push_options p = {
		.terms = bundle_terms_of(o),
		.party_dir = o->text[OPTION_PARTY_DIR],
		.party_id = o->text[OPTION_AS],
		.host = o->text[OPTION_HOST],
		.port = (int)o->number[OPTION_PORT],
		.timeout_s = o->number[OPTION_TIMEOUT],
	};

	return push_run(m, &p);
}

int run_serve(struct manager *m, const struct options *o)
{
	const struct serve_options s = {
		.terms = bundle_terms_of(o),
		.party_dir = o->text[OPTION_PARTY_DIR],
		.party_id = o->text[OPTION_AS],
		.host = o->text[OPTION_HOST],
		.port = (int)o->number[OPTION_PORT],
		.push = options_has(o, OPTION_PUSH),
	};

	return serve_run(m, &s);
}

int run_reports(struct manager *m, const struct options *o)
{
	return reports_list(m, o->number[OPTION_SINCE], options_has(o, OPTION_JSON));
}
