/* SPDX-License-Identifier: MIT */
/*
 * Looks into the engine between two events: do the counters of every session say what its lists
 * say, and is there somebody who will go on with whatever waits? The one part of the tests that
 * knows the engine's inside.
 */
#ifndef SSDTF_TESTS_FAKE_CHECK_H
#define SSDTF_TESTS_FAKE_CHECK_H

#include "tests/fake_broker.h"

/* Ends the test where something is wrong. At any time but within an event. */
void fake_check(struct fake_broker *f);
/* The same behind a turn: besides, nothing waits that could have gone. */
void fake_check_settled(struct fake_broker *f);

#endif
