/* SPDX-License-Identifier: MIT */
/*
 * What the machine can do at most: the token alone (ssdtf-bench hsm), and the cryptography in one's
 * own process (ssdtf-bench crypto). Whoever measures a broker divides by these.
 *
 * Both write the same JSON (--json): what bench/lab/results.h begins with, and
 *
 *   "rounds", "seconds" (of a slice), "module" (null: none), "entries": [..]
 *
 * with three kinds of entries. FIGURE is {"n", "min", "median", "max"} over the rounds.
 *
 *   { "kind": "speed", "name", "processes", "per_second": FIGURE, "cpu_us": FIGURE }
 *        per_second of all processes together; cpu_us of one operation. Where they say something:
 *        "bytes" (of payload), "batch" (under one signature), "context" (messages of one HPKE
 *        context; 1: E is fresh each time)
 *   { "kind": "ratio", "name", "of", "to", "processes", "ratio": FIGURE }
 *        of CPU time for one operation, "of" / "to", each value of the same round
 *   { "kind": "memory", "name", "processes", "kib_per_million" }
 *        growth of resident memory, for a million operations
 *
 * Names, with processes 1 and so on:
 *
 *   hsm     "bare convert"    the three calls of PKCS#11 and nothing around them
 *           "convert"         token_convert(), as ssdtf-hsmd does       (memory too)
 *           "sign"            token_sign()
 *           "unwrap"          token_unwrap() and token_forget()
 *           "verify"          p256_verify_digest() of such a signature, in process: for reference
 *
 *   crypto  "p256 multiply", "p256 multiply base", "p256 decompress", "p256 sign", "p256 verify",
 *           "zk prove", "zk verify"         of an authentication response (SSDTF-ZK-1)
 *           "evp derive", "evp sign", "evp verify"  OpenSSL alone, as `openssl speed` does
 *           "aes-128-gcm", "chacha20-poly1305", "sha-256"               (bytes)
 *           "publish digest", "publish leaf", "merkle build"            (bytes; batch)
 *           "envelope seal", "envelope open"                            (context; bytes)
 *           "trie match, 1000 subscriptions", "trie match, 100000 subscriptions"
 *           "ingress trailer 1"    broker_verify_run()                  (context)
 *           "ingress trailer 2"    the same, one signature for a batch  (batch)
 *           "egress"               head, leaf, tree, encoding           (batch)
 *           "egress signed"        and the signature, in process        (batch)
 *           "egress token"         and the signature, in a token        (batch)
 *           what makes one delivery readable for its receiver           (bytes):
 *           "delivery ours, E fresh, token", "delivery ours, E fresh, in process",
 *           "delivery ours, capsule remembered",
 *           "delivery umbral, check", "delivery umbral, no check",
 *           "delivery umbral, proof", "delivery umbral, check and proof",
 *           "delivery decrypt, E fresh, token", "delivery decrypt, E fresh, in process",
 *           "delivery decrypt, contexts kept"
 *
 * What needs a token is left out of crypto where SoftHSM is not installed.
 */
#ifndef SSDTF_BENCH_CEILING_H
#define SSDTF_BENCH_CEILING_H

int ceiling_hsm_main(int argc, char **argv);
int ceiling_crypto_main(int argc, char **argv);

#endif
