/* SPDX-License-Identifier: MIT */
/*
 * What it takes to know very many: a gateway's start, memory and change of bundle with N devices
 * enrolled and N grants.
 *
 * The gateway is the real one (bench/lab/site.h: token, ssdtf-hsmd, ssdtf-broker). Its bundle is
 * made here instead of by ssdtf-admin, with as many true records in it: FLEET_SCOPES scopes, N
 * devices that may each publish under one of them, and receivers that hold a grant for every scope,
 * N grants in all. Every point is on the curve and another one, as a manager's are. All grants
 * carry the one wrapped key that the site's token can unwrap: it is not converted here.
 *
 * JSON (--json): what bench/lab/results.h begins with, and
 *
 *   "rounds", "entries": [ { "devices", "grants", "bundle_bytes",
 *                            "start_s": FIGURE  from fork() to "ready",
 *                            "reload_s": FIGURE from SIGHUP to "event=bundle" with the next serial,
 *                            "rss_kib": FIGURE  once ready, "reloaded_rss_kib": FIGURE after it } ]
 *
 * FIGURE is {"n", "min", "median", "max"} over the rounds.
 */
#ifndef SSDTF_BENCH_FLEET_H
#define SSDTF_BENCH_FLEET_H

#define FLEET_SCOPES 100u

int fleet_main(int argc, char **argv);

#endif
