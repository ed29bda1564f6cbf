/* SPDX-License-Identifier: MIT */
/*
 * How much of what the machine can do at most the whole broker reaches: ssdtf-broker under load,
 * and the same CPUs doing the one thing that limits it and nothing else, in turn within each round.
 * A ratio is made within a round; the median of the rounds decides about a target.
 *
 * JSON (--json): what bench/lab/results.h begins with, and
 *
 *   "rounds", "seconds" (of a window), "receivers",
 *   "entries": [ { "kind": "reach", "name", "of", "unit": "x" | "us" | "deliveries",
 *                  "words": of the scenario, "cpus": how many both had, "value": FIGURE,
 *                  "reached": FIGURE, "alone": FIGURE (both a second), "cpu": FIGURE,
 *                  "busy": { "given": FIGURE, "loop": FIGURE, "ours": FIGURE, "clients": FIGURE },
 *                  "wanted": { "at_least" or "at_most": number }, "met": true | false,
 *                  "bad": messages lost, twice, out of order or wrong } ]
 *
 * FIGURE is {"n", "min", "median", "max"} over the rounds. "value" is reached / alone where unit is
 * "x", and "cpu" the same of CPU time for each, by which it would be on a machine that does nothing
 * else. "busy" is of 1: the CPUs that were given to what is measured, by what was to be alone on
 * them; the loop's CPU, by whatever ran there and by what is ours; the clients. What an entry has
 * not is null.
 *
 * Names:
 *   "conversions, E fresh"                     of the bare PKCS#11 loop; cpus 1 and so on
 *   "ingress, a signature each"                of OpenSSL's verifications; cpus 1, and all but one
 *   "ingress, a signature each, E fresh"       the same, no target
 *   "ingress, a signature for 64"              the same
 *   "egress, a signature for 64", "egress, a signature for 256"   us of CPU a delivery, token's too
 *   "egress under load, plain", "egress under load, sealed", "egress under load, added"
 *                                              us of CPU of all the broker's processes a delivery
 *   "egress under load, key processes"         us of it that were ssdtf-hsmd's
 *   "egress under load, for a signature"       deliveries
 */
#ifndef SSDTF_BENCH_REACH_H
#define SSDTF_BENCH_REACH_H

int reach_main(int argc, char **argv);

#endif
