// SPDX-License-Identifier: MIT
/*
 * ssdtf-admin, the manager (PROTOCOL 1): enrols, grants, revokes, and signs what it hands out.
 *
 *   options.c ─> a row of commands[] ─> manager_open ─> one transaction ─> stdout, exit code
 *
 * Exit codes are those of sysexits.h; what went wrong is one line on stderr.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>

#include "userspace/base/log.h"
#include "userspace/manager/access.h"
#include "userspace/manager/audit.h"
#include "userspace/manager/bulk.h"
#include "userspace/manager/bundle_make.h"
#include "userspace/manager/claimcode.h"
#include "userspace/manager/enrol.h"
#include "userspace/manager/hop.h"
#include "userspace/manager/list.h"
#include "userspace/manager/manager.h"
#include "userspace/manager/options.h"
#include "userspace/manager/party.h"
#include "userspace/manager/outlet.h"
#include "userspace/manager/push_run.h"
#include "userspace/manager/reports.h"
#include "userspace/manager/revoke.h"
#include "userspace/manager/rotate.h"
#include "userspace/manager/scope.h"
#include "userspace/manager/serve.h"
#include "userspace/manager/setup.h"
#include "userspace/manager/trace.h"
#include "userspace/manager/update.h"

/* --- what the commands call ---------------------------------------------------------------- */

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

static int run_enrol_device(struct manager *m, const struct options *o)
{
	return run_enrol(m, o, RECORD_ROLE_DEVICE);
}

static int run_enrol_receiver(struct manager *m, const struct options *o)
{
	return run_enrol(m, o, RECORD_ROLE_RECEIVER);
}

static int run_enrol_distributor(struct manager *m, const struct options *o)
{
	return run_enrol(m, o, RECORD_ROLE_DISTRIBUTOR);
}

static int run_enrol_manager(struct manager *m, const struct options *o)
{
	return run_enrol(m, o, RECORD_ROLE_MANAGER);
}

static int run_enrol_gateway(struct manager *m, const struct options *o)
{
	return enrol_gateway(m, o->text[OPTION_ID], o->text[OPTION_PUBLIC]);
}

static void say_complaint(void *arg, const char *text)
{
	log_error("%s", text);
}

static int run_enrol_csv(struct manager *m, const struct options *o)
{
	const struct bulk_order order = { .file = o->word,
					  .folder = o->text[OPTION_OUT_DIR],
					  .gateway = o->text[OPTION_GATEWAY],
					  .dry_run = options_has(o, OPTION_DRY_RUN),
					  .complain = say_complaint };

	return bulk_enrol(m, &order);
}

static int run_claim_renew(struct manager *m, const struct options *o)
{
	return claimcode_renew(m, o->text[OPTION_ID], o->text[OPTION_GATEWAY],
			       o->text[OPTION_OUT_DIR]);
}

static int run_claims(struct manager *m, const struct options *o)
{
	return claimcode_list(m);
}

static int run_scope_add(struct manager *m, const struct options *o)
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

static int run_scope_allow(struct manager *m, const struct options *o)
{
	return access_allow(m, o->text[OPTION_SCOPE], o->text[OPTION_DEVICE]);
}

static int run_scope_deny(struct manager *m, const struct options *o)
{
	return access_deny(m, o->text[OPTION_SCOPE], o->text[OPTION_DEVICE]);
}

static int run_hop(struct manager *m, const struct options *o)
{
	const struct hop_terms t = {
		.scope = o->text[OPTION_SCOPE],
		.distributor = o->text[OPTION_DISTRIBUTOR],
		.gateway = o->text[OPTION_GATEWAY],
		.proof = !options_has(o, OPTION_NO_PROOF),
	};

	return hop_add(m, &t);
}

static int run_outlet_add(struct manager *m, const struct options *o)
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

static int run_grant(struct manager *m, const struct options *o)
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

static int run_revoke_grant(struct manager *m, const struct options *o)
{
	if (o->text[OPTION_OUTLET])
		return revoke_outlet_grant(m, o->text[OPTION_OUTLET], o->text[OPTION_RECEIVER]);
	return revoke_grant(m, o->text[OPTION_SCOPE], o->text[OPTION_RECEIVER],
			    o->text[OPTION_GATEWAY]);
}

static int run_revoke_outlet(struct manager *m, const struct options *o)
{
	return revoke_outlet(m, o->word);
}

static int run_revoke_hop(struct manager *m, const struct options *o)
{
	return revoke_hop(m, o->text[OPTION_SCOPE], o->text[OPTION_DISTRIBUTOR]);
}

static int run_revoke_device(struct manager *m, const struct options *o)
{
	return revoke_party(m, o->word, RECORD_ROLE_DEVICE);
}

static int run_revoke_receiver(struct manager *m, const struct options *o)
{
	return revoke_party(m, o->word, RECORD_ROLE_RECEIVER);
}

static int run_revoke_distributor(struct manager *m, const struct options *o)
{
	return revoke_party(m, o->word, RECORD_ROLE_DISTRIBUTOR);
}

static int run_revoke_manager(struct manager *m, const struct options *o)
{
	return revoke_party(m, o->word, RECORD_ROLE_MANAGER);
}

static int run_revoke_party(struct manager *m, const struct options *o)
{
	return revoke_party(m, o->word, PARTY_ANY_ROLE);
}

static int run_revoke_gateway(struct manager *m, const struct options *o)
{
	return revoke_gateway(m, o->word);
}

static int run_rotate_scope(struct manager *m, const struct options *o)
{
	return rotate_scope(m, o->text[OPTION_NAME], o->number[OPTION_OVERLAP_HOURS],
			    o->number[OPTION_KEEP_DAYS]);
}

static int run_rotate_party(struct manager *m, const struct options *o)
{
	const struct rotate_party r = { .id = o->text[OPTION_ID],
					.public_file = o->text[OPTION_PUBLIC],
					.encryption_file = o->text[OPTION_ENCRYPTION],
					.generate = o->text[OPTION_GENERATE],
					.overlap_hours = o->number[OPTION_OVERLAP_HOURS] };

	return rotate_party(m, &r);
}

static int run_rotate_admission(struct manager *m, const struct options *o)
{
	return rotate_admission(m, o->text[OPTION_ID], o->number[OPTION_OVERLAP_HOURS]);
}

static int run_rotate_gateway(struct manager *m, const struct options *o)
{
	uint64_t from_ms = m->now_ms + o->number[OPTION_IN_HOURS] * 3600000ull;
	int err = o->text[OPTION_FROM] ? rotate_time(m, o->text[OPTION_FROM], &from_ms) : 0;

	return err ? err
		   : rotate_gateway(m, o->text[OPTION_ID], o->text[OPTION_PUBLIC], from_ms,
				    o->number[OPTION_OVERLAP_HOURS]);
}

static int run_set(struct manager *m, const struct options *o)
{
	char text[16];
	int err;

	(void)snprintf(text, sizeof(text), "%u", o->number[OPTION_UPDATE_DAYS]);
	err = manager_fail_registry(m, registry_set(&m->registry, UPDATE_DAYS_SETTING, text));
	if (!err)
		err = manager_note(m, "set", UPDATE_DAYS_SETTING, text);
	if (!err)
		(void)fprintf(m->out, "set update-days=%s\n", text);
	return err;
}

static struct bundle_terms bundle_terms_of(const struct options *o)
{
	return (struct bundle_terms){ .gateway = o->text[OPTION_GATEWAY],
				      .valid_days = o->number[OPTION_VALID_DAYS] };
}

static int run_bundle_gateway(struct manager *m, const struct options *o)
{
	struct bundle_terms t = bundle_terms_of(o);

	t.gateway = o->text[OPTION_ID];
	return bundle_make_gateway(m, &t, o->text[OPTION_OUT]);
}

static int run_bundle_party(struct manager *m, const struct options *o)
{
	const struct bundle_terms t = bundle_terms_of(o);

	return bundle_make_party(m, &t, o->text[OPTION_ID], o->text[OPTION_OUT]);
}

static int run_bundle_distributor(struct manager *m, const struct options *o)
{
	const struct bundle_terms t = bundle_terms_of(o);

	return bundle_make_distributor(m, &t, o->text[OPTION_ID], o->text[OPTION_OUT]);
}

static int run_bundle_all(struct manager *m, const struct options *o)
{
	const struct bundle_terms t = bundle_terms_of(o);

	return bundle_make_all(m, &t, o->text[OPTION_OUT_DIR]);
}

static int run_push(struct manager *m, const struct options *o)
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

static int run_serve(struct manager *m, const struct options *o)
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

static int run_reports(struct manager *m, const struct options *o)
{
	return reports_list(m, o->number[OPTION_SINCE], options_has(o, OPTION_JSON));
}

static int run_list_parties(struct manager *m, const struct options *o)
{
	return list_parties(m);
}

static int run_list_gateways(struct manager *m, const struct options *o)
{
	return list_gateways(m);
}

static int run_list_scopes(struct manager *m, const struct options *o)
{
	return list_scopes(m);
}

static int run_list_grants(struct manager *m, const struct options *o)
{
	return list_grants(m);
}

static int run_list_outlets(struct manager *m, const struct options *o)
{
	return list_outlets(m);
}

static int run_list_history(struct manager *m, const struct options *o)
{
	return list_history(m);
}

static int run_show_manager(struct manager *m, const struct options *o)
{
	return list_manager(m);
}

static int run_show_party(struct manager *m, const struct options *o)
{
	return list_party(m, o->word);
}

static int run_show_gateway(struct manager *m, const struct options *o)
{
	return list_gateway(m, o->word);
}

static int run_show_scope(struct manager *m, const struct options *o)
{
	return list_scope(m, o->word);
}

static int run_show_outlet(struct manager *m, const struct options *o)
{
	return list_outlet(m, o->word);
}

static int run_trace(struct manager *m, const struct options *o)
{
	const struct trace_question t = { .external = o->word,
					  .at = o->text[OPTION_AT],
					  .reason = o->text[OPTION_REASON],
					  .table = o->text[OPTION_TABLE] };

	return trace(m, &t);
}

static int run_audit_verify(struct manager *m, const struct options *o)
{
	return audit_verify(m);
}

static int run_audit_list(struct manager *m, const struct options *o)
{
	return audit_list(m, options_has(o, OPTION_JSON));
}

static int run_check(struct manager *m, const struct options *o)
{
	return list_check(m);
}

/* --- the commands -------------------------------------------------------------------------- */

/* READS and WRITES run in a transaction of that kind; bundles and what brings them begin and end
 * their own, and so does what has to do with the audit log. */
enum how { HOW_SETS_UP, HOW_READS, HOW_WRITES, HOW_BUNDLES };

#define B(o)	 OPTION_BIT(OPTION_##o)
#define KEYS	 (B(PUBLIC) | B(GENERATE))
#define ONLINE	 (B(GATEWAY) | B(PARTY_DIR) | B(AS) | B(HOST) | B(PORT))
#define PARTY	 (B(ID) | KEYS | B(CLOCK) | B(NO_CLOCK))
#define USAGE(n) "ssdtf-admin " n

static const struct command {
	const char *name;
	enum how how;
	int (*run)(struct manager *m, const struct options *o); /* NULL: setup */
	struct options_rules rules;
} commands[] = {
	{ "init",
	  HOW_SETS_UP,
	  NULL,
	  { USAGE("init"), "Make the manager's keys in its token, and an empty registry.", NULL,
	    B(ADOPT), B(MODULE) | B(TOKEN) | B(PIN_FILE), 0 } },
	{ "enrol device",
	  HOW_WRITES,
	  run_enrol_device,
	  { USAGE("enrol device"), "Enrol a sender.", NULL, PARTY | B(ZK), B(ID), KEYS } },
	{ "enrol receiver",
	  HOW_WRITES,
	  run_enrol_receiver,
	  { USAGE("enrol receiver"), "Enrol a receiver.", NULL, PARTY | B(ENCRYPTION) | B(ZK),
	    B(ID), KEYS } },
	{ "enrol distributor",
	  HOW_WRITES,
	  run_enrol_distributor,
	  { USAGE("enrol distributor"),
	    "Enrol a distributor by what `ssdtf-hsmd keygen` printed there.", NULL,
	    B(ID) | B(PUBLIC) | B(CLOCK) | B(NO_CLOCK), B(ID) | B(PUBLIC), 0 } },
	{ "enrol manager",
	  HOW_WRITES,
	  run_enrol_manager,
	  { USAGE("enrol manager"), "Enrol a client that reports are delivered to.", NULL, PARTY,
	    B(ID), KEYS } },
	{ "enrol gateway",
	  HOW_WRITES,
	  run_enrol_gateway,
	  { USAGE("enrol gateway"), "Enrol a gateway by what `ssdtf-hsmd keygen` printed there.",
	    NULL, B(ID) | B(PUBLIC), B(ID) | B(PUBLIC), 0 } },
	{ "enrol csv",
	  HOW_BUNDLES,
	  run_enrol_csv,
	  { USAGE("enrol csv"),
	    "Enrol devices by a CSV file with the columns id, scopes (separated by ';'), clock "
	    "(yes or no) and keys (file of a public key, or empty: it gets a claim code).",
	    "FILE", B(OUT_DIR) | B(GATEWAY) | B(DRY_RUN), B(OUT_DIR), 0 } },
	{ "claims",
	  HOW_READS,
	  run_claims,
	  { USAGE("claims"), "Claim codes, and which of them were used.", NULL, 0, 0, 0 } },
	{ "claim renew",
	  HOW_WRITES,
	  run_claim_renew,
	  { USAGE("claim renew"), "A new claim code for one that was lost: the old one is void.",
	    NULL, B(ID) | B(GATEWAY) | B(OUT_DIR), B(ID) | B(OUT_DIR), 0 } },
	{ "scope add",
	  HOW_WRITES,
	  run_scope_add,
	  { USAGE("scope add"),
	    "Make a scope: topic filters under one access decision, and its key.", NULL,
	    B(NAME) | B(FILTER) | B(SUITE) | B(VALID_DAYS) | B(REKEY_MESSAGES) | B(REKEY_SECONDS) |
		    B(PADDED),
	    B(NAME) | B(FILTER), 0 } },
	{ "scope allow",
	  HOW_WRITES,
	  run_scope_allow,
	  { USAGE("scope allow"), "Let a device publish under a scope.", NULL, B(SCOPE) | B(DEVICE),
	    B(SCOPE) | B(DEVICE), 0 } },
	{ "scope deny",
	  HOW_WRITES,
	  run_scope_deny,
	  { USAGE("scope deny"), "Let it no longer.", NULL, B(SCOPE) | B(DEVICE),
	    B(SCOPE) | B(DEVICE), 0 } },
	{ "grant",
	  HOW_WRITES,
	  run_grant,
	  { USAGE("grant"),
	    "Let a receiver read a scope through one gateway, or what an outlet publishes.", NULL,
	    B(SCOPE) | B(OUTLET) | B(RECEIVER) | B(GATEWAY) | B(NO_PROOF) | B(VALID_DAYS),
	    B(RECEIVER), B(SCOPE) | B(OUTLET) } },
	{ "hop",
	  HOW_WRITES,
	  run_hop,
	  { USAGE("hop"), "Let a distributor take and pass on a scope's messages, unread.", NULL,
	    B(SCOPE) | B(DISTRIBUTOR) | B(GATEWAY) | B(NO_PROOF), B(SCOPE) | B(DISTRIBUTOR), 0 } },
	{ "outlet add",
	  HOW_WRITES,
	  run_outlet_add,
	  { USAGE("outlet add"),
	    "Have a distributor publish a scope under other topics and other ids.", NULL,
	    B(NAME) | B(SCOPE) | B(DISTRIBUTOR) | B(TOPIC) | B(IDS) | B(ROTATE_SECONDS) |
		    B(GATEWAY) | B(RECEIVER),
	    B(NAME) | B(SCOPE) | B(DISTRIBUTOR) | B(TOPIC), 0 } },
	{ "revoke grant",
	  HOW_WRITES,
	  run_revoke_grant,
	  { USAGE("revoke grant"),
	    "Take a receiver's grants back: all for a scope, or that for an outlet.", NULL,
	    B(SCOPE) | B(OUTLET) | B(RECEIVER) | B(GATEWAY), B(RECEIVER), B(SCOPE) | B(OUTLET) } },
	{ "revoke outlet",
	  HOW_WRITES,
	  run_revoke_outlet,
	  { USAGE("revoke outlet"), "Take an outlet, and all grants behind it.", "NAME", 0, 0,
	    0 } },
	{ "revoke hop",
	  HOW_WRITES,
	  run_revoke_hop,
	  { USAGE("revoke hop"), "Take a scope from a distributor, and its outlets for it.", NULL,
	    B(SCOPE) | B(DISTRIBUTOR), B(SCOPE) | B(DISTRIBUTOR), 0 } },
	{ "revoke device",
	  HOW_WRITES,
	  run_revoke_device,
	  { USAGE("revoke device"), "Take the role of a device.", "ID", 0, 0, 0 } },
	{ "revoke receiver",
	  HOW_WRITES,
	  run_revoke_receiver,
	  { USAGE("revoke receiver"), "Take the role of a receiver, and all its grants.", "ID", 0,
	    0, 0 } },
	{ "revoke distributor",
	  HOW_WRITES,
	  run_revoke_distributor,
	  { USAGE("revoke distributor"), "Take the role of a distributor.", "ID", 0, 0, 0 } },
	{ "revoke manager",
	  HOW_WRITES,
	  run_revoke_manager,
	  { USAGE("revoke manager"), "Take the role of a manager's client.", "ID", 0, 0, 0 } },
	{ "revoke party",
	  HOW_WRITES,
	  run_revoke_party,
	  { USAGE("revoke party"), "Take every role: the party is gone.", "ID", 0, 0, 0 } },
	{ "revoke gateway",
	  HOW_WRITES,
	  run_revoke_gateway,
	  { USAGE("revoke gateway"), "Take a gateway out, and all grants at it.", "ID", 0, 0, 0 } },
	{ "rotate scope",
	  HOW_WRITES,
	  run_rotate_scope,
	  { USAGE("rotate scope"), "A new key for a scope, and new grants for all that stand.",
	    NULL, B(NAME) | B(OVERLAP_HOURS) | B(KEEP_DAYS) | B(DRY_RUN), B(NAME), 0 } },
	{ "rotate party",
	  HOW_WRITES,
	  run_rotate_party,
	  { USAGE("rotate party"), "New keys for a party, its old ones holding a while.", NULL,
	    B(ID) | KEYS | B(ENCRYPTION) | B(OVERLAP_HOURS) | B(DRY_RUN), B(ID), 0 } },
	{ "rotate admission",
	  HOW_WRITES,
	  run_rotate_admission,
	  { USAGE("rotate admission"), "A new admission key for a party, or for all.", NULL,
	    B(ID) | B(ALL) | B(OVERLAP_HOURS) | B(DRY_RUN), 0, B(ID) | B(ALL) } },
	{ "rotate gateway",
	  HOW_WRITES,
	  run_rotate_gateway,
	  { USAGE("rotate gateway"), "A gateway's next keys, as `ssdtf-hsmd keygen` printed them.",
	    NULL, B(ID) | B(PUBLIC) | B(FROM) | B(IN_HOURS) | B(OVERLAP_HOURS) | B(DRY_RUN),
	    B(ID) | B(PUBLIC), B(FROM) | B(IN_HOURS) } },
	{ "set",
	  HOW_WRITES,
	  run_set,
	  { USAGE("set"), "How long bundles carry what is stated anew.", NULL, B(UPDATE_DAYS),
	    B(UPDATE_DAYS), 0 } },
	{ "bundle gateway",
	  HOW_BUNDLES,
	  run_bundle_gateway,
	  { USAGE("bundle gateway"), "Sign what a gateway works by.", NULL,
	    B(ID) | B(OUT) | B(VALID_DAYS), B(ID) | B(OUT), 0 } },
	{ "bundle party",
	  HOW_BUNDLES,
	  run_bundle_party,
	  { USAGE("bundle party"), "Sign what a party works by.", NULL,
	    B(ID) | B(OUT) | B(GATEWAY) | B(VALID_DAYS), B(ID) | B(OUT), 0 } },
	{ "bundle distributor",
	  HOW_BUNDLES,
	  run_bundle_distributor,
	  { USAGE("bundle distributor"), "Sign what a distributor works by.", NULL,
	    B(ID) | B(OUT) | B(VALID_DAYS), B(ID) | B(OUT), 0 } },
	{ "bundle all",
	  HOW_BUNDLES,
	  run_bundle_all,
	  { USAGE("bundle all"), "Sign the bundles of a gateway and of every party.", NULL,
	    B(OUT_DIR) | B(GATEWAY) | B(VALID_DAYS), B(OUT_DIR), 0 } },
	{ "push",
	  HOW_BUNDLES,
	  run_push,
	  { USAGE("push"), "Bring a gateway its bundle over MQTT, and wait until it is applied.",
	    NULL, ONLINE | B(VALID_DAYS) | B(TIMEOUT), B(PARTY_DIR) | B(HOST), 0 } },
	{ "serve",
	  HOW_BUNDLES,
	  run_serve,
	  { USAGE("serve"), "Stay at a gateway: keep reports, decide claims, bring bundles.", NULL,
	    ONLINE | B(VALID_DAYS) | B(PUSH), B(PARTY_DIR) | B(HOST), 0 } },
	{ "reports",
	  HOW_READS,
	  run_reports,
	  { USAGE("reports"), "What parties complained of, as `serve` and `push` took it.", NULL,
	    B(SINCE) | B(JSON), 0, 0 } },
	{ "list parties",
	  HOW_READS,
	  run_list_parties,
	  { USAGE("list parties"), "One line a party.", NULL, 0, 0, 0 } },
	{ "list gateways",
	  HOW_READS,
	  run_list_gateways,
	  { USAGE("list gateways"), "One line a gateway.", NULL, 0, 0, 0 } },
	{ "list scopes",
	  HOW_READS,
	  run_list_scopes,
	  { USAGE("list scopes"), "One line a scope and epoch.", NULL, 0, 0, 0 } },
	{ "list grants",
	  HOW_READS,
	  run_list_grants,
	  { USAGE("list grants"), "One line a grant.", NULL, 0, 0, 0 } },
	{ "list outlets",
	  HOW_READS,
	  run_list_outlets,
	  { USAGE("list outlets"), "One line an outlet.", NULL, 0, 0, 0 } },
	{ "list history",
	  HOW_READS,
	  run_list_history,
	  { USAGE("list history"), "What was done, and when.", NULL, 0, 0, 0 } },
	{ "show manager",
	  HOW_READS,
	  run_show_manager,
	  { USAGE("show manager"), "The manager's key, token and last serial.", NULL, 0, 0, 0 } },
	{ "show party",
	  HOW_READS,
	  run_show_party,
	  { USAGE("show party"), "One party.", "ID", 0, 0, 0 } },
	{ "show gateway",
	  HOW_READS,
	  run_show_gateway,
	  { USAGE("show gateway"), "One gateway.", "ID", 0, 0, 0 } },
	{ "show scope",
	  HOW_READS,
	  run_show_scope,
	  { USAGE("show scope"), "One scope.", "NAME", 0, 0, 0 } },
	{ "show outlet",
	  HOW_READS,
	  run_show_outlet,
	  { USAGE("show outlet"), "One outlet.", "NAME", 0, 0, 0 } },
	{ "trace",
	  HOW_BUNDLES,
	  run_trace,
	  { USAGE("trace"),
	    "Say whom an external id stands for; the audit log keeps who asked, and why.",
	    "EXTERNAL-ID", B(AT) | B(REASON) | B(TABLE), B(REASON) | B(TABLE), 0 } },
	{ "audit verify",
	  HOW_BUNDLES,
	  run_audit_verify,
	  { USAGE("audit verify"), "Is the audit log whole? Names the first bad entry.", NULL, 0, 0,
	    0 } },
	{ "audit list",
	  HOW_BUNDLES,
	  run_audit_list,
	  { USAGE("audit list"), "Who traced whom, when and why.", NULL, B(JSON), 0, 0 } },
	{ "check",
	  HOW_READS,
	  run_check,
	  { USAGE("check"), "Is the registry whole, and does the token open its keys?", NULL, 0, 0,
	    0 } },
};

/* The list of commands for --help, in memory that lives as long as the program. */
static char *help_text(void)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	if (!f)
		exit_with(EX_OSERR, "out of memory");
	(void)fprintf(f, "The SSDTF/MQTT manager: who is who, who may publish, who may read.\v"
			 "Commands (each has its own --help):\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		(void)fprintf(f, "  %-18s %s\n", commands[i].name, commands[i].rules.doc);
	if (fclose(f))
		exit_with(EX_OSERR, "out of memory");
	return text;
}

/* The command whose one or two words argv begins with; *ret_words how many. */
static const struct command *find_command(int argc, char **argv, int *ret_words)
{
	char two[64];

	for (int words = argc < 2 ? 1 : 2; words > 0; words--) {
		(void)snprintf(two, sizeof(two), words == 2 ? "%s %s" : "%s", argv[0],
			       words == 2 ? argv[1] : "");
		for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
			if (strcmp(two, commands[i].name))
				continue;
			*ret_words = words;
			return &commands[i];
		}
	}
	exit_with(EX_USAGE, "\"%s%s%s\" is no command; --help lists them", argv[0],
		  argc > 1 ? " " : "", argc > 1 ? argv[1] : "");
}

/* --- running one --------------------------------------------------------------------------- */

static int exit_code_of(const struct manager *m, int err)
{
	static const struct {
		int err, code;
	} codes[] = {
		{ EINVAL, EX_DATAERR },	     { EEXIST, EX_DATAERR }, { EMSGSIZE, EX_DATAERR },
		{ ESRCH, EX_NOUSER },	     { ENODATA, EX_CONFIG }, { ENOKEY, EX_CONFIG },
		{ EBUSY, EX_TEMPFAIL },	     { EACCES, EX_NOPERM },  { EPERM, EX_NOPERM },
		{ ENODEV, EX_UNAVAILABLE },  { ENOMEM, EX_OSERR },   { ENOENT, EX_NOINPUT },
		{ EIO, EX_IOERR },	     { ENOSPC, EX_IOERR },   { EBADMSG, EX_DATAERR },
		{ EKEYREJECTED, EX_NOPERM },
	};

	if (m->exit_code)
		return m->exit_code;
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		if (codes[i].err == -err)
			return codes[i].code;
	}
	return EX_SOFTWARE;
}

static int run_in_transaction(struct manager *m, const struct command *c, const struct options *o)
{
	int err = c->how == HOW_WRITES
			  ? manager_begin(m)
			  : manager_fail_registry(m, registry_begin_read(&m->registry));

	m->dry_run = options_has(o, OPTION_DRY_RUN);
	if (m->dry_run)
		(void)fprintf(m->out, "dry run: nothing is changed\n");
	if (!err)
		err = c->run(m, o);
	if (!err)
		err = manager_commit(m);
	if (err)
		manager_rollback(m);
	return err;
}

static int run(struct manager *m, const struct command *c, const struct options *o)
{
	const struct manager_config config = { .dir = o->text[OPTION_DIR],
					       .module = o->text[OPTION_MODULE],
					       .token_label = o->text[OPTION_TOKEN],
					       .pin_file = o->text[OPTION_PIN_FILE] };
	uint64_t now_ms;
	struct timespec now;
	int err;

	if (clock_gettime(CLOCK_REALTIME, &now))
		exit_with(EX_OSERR, "no clock: %s", strerror(errno));
	now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;

	if (c->how == HOW_SETS_UP)
		return setup_manager(m, &config, options_has(o, OPTION_ADOPT), now_ms);
	err = manager_open(m, &config, c->how == HOW_READS ? MANAGER_READS : MANAGER_WRITES,
			   now_ms);
	if (err)
		return err;
	return c->how == HOW_BUNDLES ? c->run(m, o) : run_in_transaction(m, c, o);
}

/* Scope scalars pass through this process: no core file, and no debugger of the same user. */
static void protect(void)
{
	const struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		exit_with(EX_OSERR, "cannot switch core files off: %s", strerror(errno));
	(void)signal(SIGPIPE, SIG_IGN); /* a closed stdout is an error like others */
	(void)umask(077);		/* cannot fail */
}

int main(int argc, char **argv)
{
	const struct command *c;
	struct options o;
	struct manager m;
	int at, words = 0, err, code;
	char *help;

	log_init("ssdtf-admin", LOG_LEVEL_INFO);
	protect();
	options_init(&o);
	help = help_text();
	at = options_parse_global(&o, argc, argv, help);
	if (at == argc)
		exit_with(EX_USAGE, "which command? --help lists them");
	c = find_command(argc - at, argv + at, &words);
	at += words - 1;
	options_parse(&o, &c->rules, argc - at, argv + at);
	free(help);

	err = run(&m, c, &o);
	if (!err)
		err = manager_flush(&m);
	code = err ? exit_code_of(&m, err) : EX_OK;
	if (err)
		log_error("%s", m.error);
	manager_close(&m);
	return code;
}
