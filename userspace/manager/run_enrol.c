// SPDX-License-Identifier: MIT
/* Commands that say who there is: parties, gateways, claim codes. */
#include "userspace/manager/run.h"

#include "userspace/base/log.h"
#include "userspace/manager/bulk.h"
#include "userspace/manager/claimcode.h"
#include "userspace/manager/enrol.h"

static int run_enrol(struct manager *m, const struct options *o, enum record_roles role)
{
	const struct enrol_party e = {
		.id = o->text[OPTION_ID],
		.role = role,
		.public_file = o->text[OPTION_PUBLIC],
		.encryption_file = o->text[OPTION_ENCRYPTION],
		.generate = o->text[OPTION_GENERATE],
		.zk = options_has(o, OPTION_ZK),
		.clock = options_has(o, OPTION_NO_CLOCK) ? ENROL_NO_CLOCK
			 : options_has(o, OPTION_CLOCK)	 ? ENROL_CLOCK
							 : ENROL_CLOCK_AS_IS,
	};

	return enrol_party(m, &e);
}

int run_enrol_device(struct manager *m, const struct options *o)
{
	return run_enrol(m, o, RECORD_ROLE_DEVICE);
}

int run_enrol_receiver(struct manager *m, const struct options *o)
{
	return run_enrol(m, o, RECORD_ROLE_RECEIVER);
}

int run_enrol_distributor(struct manager *m, const struct options *o)
{
	return run_enrol(m, o, RECORD_ROLE_DISTRIBUTOR);
}

int run_enrol_manager(struct manager *m, const struct options *o)
{
	return run_enrol(m, o, RECORD_ROLE_MANAGER);
}

int run_enrol_gateway(struct manager *m, const struct options *o)
{
	return enrol_gateway(m, o->text[OPTION_ID], o->text[OPTION_PUBLIC]);
}

static void say_complaint(void *arg, const char *text)
{
	log_error("%s", text);
}

int run_enrol_csv(struct manager *m, const struct options *o)
{
	const struct bulk_order order = { .file = o->word,
					  .folder = o->text[OPTION_OUT_DIR],
					  .gateway = o->text[OPTION_GATEWAY],
					  .dry_run = options_has(o, OPTION_DRY_RUN),
					  .complain = say_complaint };

	return bulk_enrol(m, &order);
}

int run_claim_renew(struct manager *m, const struct options *o)
{
	return claimcode_renew(m, o->text[OPTION_ID], o->text[OPTION_GATEWAY],
			       o->text[OPTION_OUT_DIR]);
}

int run_claims(struct manager *m, const struct options *o)
{
	return claimcode_list(m);
}
