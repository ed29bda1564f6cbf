/* SPDX-License-Identifier: MIT */
/*
 * What the commands of ssdtf-admin call, by the options that were given: the rows of commands.c.
 * Whether one begins a transaction of its own, its row says.
 */
#ifndef SSDTF_MANAGER_RUN_H
#define SSDTF_MANAGER_RUN_H

#include "userspace/manager/manager.h"
#include "userspace/manager/options.h"

/* run_enrol.c */
int run_enrol_device(struct manager *m, const struct options *o) must_check;
int run_enrol_receiver(struct manager *m, const struct options *o) must_check;
int run_enrol_distributor(struct manager *m, const struct options *o) must_check;
int run_enrol_manager(struct manager *m, const struct options *o) must_check;
int run_enrol_gateway(struct manager *m, const struct options *o) must_check;
int run_enrol_csv(struct manager *m, const struct options *o) must_check;
int run_claim_renew(struct manager *m, const struct options *o) must_check;
int run_claims(struct manager *m, const struct options *o) must_check;

/* run_access.c */
int run_scope_add(struct manager *m, const struct options *o) must_check;
int run_scope_allow(struct manager *m, const struct options *o) must_check;
int run_scope_deny(struct manager *m, const struct options *o) must_check;
int run_hop(struct manager *m, const struct options *o) must_check;
int run_outlet_add(struct manager *m, const struct options *o) must_check;
int run_grant(struct manager *m, const struct options *o) must_check;
int run_revoke_grant(struct manager *m, const struct options *o) must_check;
int run_revoke_outlet(struct manager *m, const struct options *o) must_check;
int run_revoke_hop(struct manager *m, const struct options *o) must_check;
int run_revoke_device(struct manager *m, const struct options *o) must_check;
int run_revoke_receiver(struct manager *m, const struct options *o) must_check;
int run_revoke_distributor(struct manager *m, const struct options *o) must_check;
int run_revoke_manager(struct manager *m, const struct options *o) must_check;
int run_revoke_party(struct manager *m, const struct options *o) must_check;
int run_revoke_gateway(struct manager *m, const struct options *o) must_check;

/* run_rotate.c */
int run_rotate_scope(struct manager *m, const struct options *o) must_check;
int run_rotate_party(struct manager *m, const struct options *o) must_check;
int run_rotate_admission(struct manager *m, const struct options *o) must_check;
int run_rotate_gateway(struct manager *m, const struct options *o) must_check;
int run_set(struct manager *m, const struct options *o) must_check;

/* run_bundle.c */
int run_bundle_gateway(struct manager *m, const struct options *o) must_check;
int run_bundle_party(struct manager *m, const struct options *o) must_check;
int run_bundle_distributor(struct manager *m, const struct options *o) must_check;
int run_bundle_all(struct manager *m, const struct options *o) must_check;
int run_push(struct manager *m, const struct options *o) must_check;
int run_serve(struct manager *m, const struct options *o) must_check;
int run_reports(struct manager *m, const struct options *o) must_check;

/* run_look.c */
int run_list_parties(struct manager *m, const struct options *o) must_check;
int run_list_gateways(struct manager *m, const struct options *o) must_check;
int run_list_scopes(struct manager *m, const struct options *o) must_check;
int run_list_grants(struct manager *m, const struct options *o) must_check;
int run_list_outlets(struct manager *m, const struct options *o) must_check;
int run_list_history(struct manager *m, const struct options *o) must_check;
int run_show_manager(struct manager *m, const struct options *o) must_check;
int run_show_party(struct manager *m, const struct options *o) must_check;
int run_show_gateway(struct manager *m, const struct options *o) must_check;
int run_show_scope(struct manager *m, const struct options *o) must_check;
int run_show_outlet(struct manager *m, const struct options *o) must_check;
int run_trace(struct manager *m, const struct options *o) must_check;
int run_audit_verify(struct manager *m, const struct options *o) must_check;
int run_audit_list(struct manager *m, const struct options *o) must_check;
int run_check(struct manager *m, const struct options *o) must_check;

#endif
