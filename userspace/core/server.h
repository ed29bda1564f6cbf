/* SPDX-License-Identifier: MIT */
/*
 * The broker as a process: every descriptor, the one loop, and the way in and out.
 *
 *      ┌──────────── wait (completions, a thread's wake, a signal, the next time limit) ◄──┐
 *      ▼                                                                                   │
 *   drain completions ─► retire verify jobs, commits, token jobs ─► broker_turn() ─► flush ┘
 *        stream, listener     workers, store, hsmlink       the batches    one send a stream
 *
 * SIGTERM, SIGINT: orderly stop. SIGHUP: reads the bundle again. SIGUSR1: one line of counters.
 */
#ifndef SSDTF_CORE_SERVER_H
#define SSDTF_CORE_SERVER_H

struct config;

/*
 * Runs until it is told to stop; 0, or EX_OSERR where the ring broke. What keeps it from starting
 * ends the process with one line and a code of sysexits.h. Once in a process.
 */
int server_run(const struct config *config);

/* --check-config: the configuration is read already; this reads the files that it names. Returns 0
 * or ends the process as server_run() would. */
int server_check(const struct config *config);

#endif
