#!/bin/bash
# SPDX-License-Identifier: MIT
# The harness itself: a small program whose tests pass, fail, skip, crash and hang, and what
# tests/harness.c says about each; then what tests/run makes of programs that misbehave.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/tap.sh

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
unset SSDTF_SEED HARNESS_TIMEOUT_SCALE

cat >"$work/sample.c" <<'END'
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "tests/harness.h"

static void *fail_here(void *unused)
{
	ASSERT_TRUE(!"in a thread");
	return unused;
}

TEST(pass) { ASSERT_EQ(1 + 1, 2); ASSERT_STREQ("a", "a"); ASSERT_BYTES("ab", "ab", 2); }
TEST(assert) { ASSERT_EQ(1 + 1, 3); EXPECT_TRUE(!"reached"); }
TEST(expect) { EXPECT_EQ(7, 5); EXPECT_TRUE(!"reached"); }
TEST(bytes) { ASSERT_BYTES("\1\2\3", "\1\2\4", 3); }
TEST(quoted) { ASSERT_STREQ("x\nok 99 - forged", ""); }
TEST(skip) { SKIP("no %s here", "token"); }
TEST(crash) { raise(SIGSEGV); }
TEST_TIMEOUT(hang, 1) { for (;;) pause(); }
TEST(stray) { exit(0); }
TEST(thread) { pthread_t t; pthread_create(&t, NULL, fail_here, NULL); pthread_join(t, NULL); }
TEST(forked) { pid_t p = fork(); EXPECT_TRUE(p); if (!p) _exit(0); sleep(1); }
TEST(leftover) { pid_t p = fork(); if (!p) for (;;) pause(); printf("# left %d\n", (int)p); }
TEST(random) { printf("# random %llx\n", (unsigned long long)harness_random()); }

FIXTURE(row) { int bits; };
FIXTURE_VARIANT(row) { int bits; };
FIXTURE_VARIANT_ADD(row, small) { .bits = 8 };
FIXTURE_VARIANT_ADD(row, large) { .bits = 64 };
FIXTURE_SETUP(row) { self->bits = variant->bits; }
FIXTURE_TEARDOWN(row) { printf("# teardown %d\n", self->bits); }
TEST_F(row, bits) { ASSERT_EQ(self->bits, 8); }

FIXTURE(absent) { int unused; };
FIXTURE_SETUP(absent) { (void)variant; self->unused = 0; SKIP("not today"); }
FIXTURE_TEARDOWN(absent) { (void)variant; printf("# teardown %d\n", self->unused); }
TEST_F(absent, body) { (void)variant; ASSERT_EQ(self->unused, 1); }

HARNESS_MAIN
END
"${CC:-cc}" -I. -D_GNU_SOURCE -std=gnu11 -o "$work/sample" "$work/sample.c" tests/harness.c
tap $? 'compiles'
[[ -x $work/sample ]] || { tap_done; exit 1; }
"$work/sample" -s 7 >"$work/out" 2>"$work/err"
status=$?
((status == 1))
tap $? 'exits with 1 where a test failed'

# says NAME REGEX: a whole line of the sample's output.
says() {
	grep -qE "^$2\$" "$work/out"
	tap $? "$1"
}

[[ $(head -n 3 "$work/out") == $'TAP version 13\n# seed 7\n1..16' ]]
tap $? 'begins with version, seed and plan'
says 'pass' 'ok 1 - pass'
says 'assert' 'not ok 2 - assert'
says 'names file, line and values' '# .*/sample.c:15: not true: 1 \+ 1 == 3 \(2, 3\)'
! grep -q 'sample.c:15: .*reached' "$work/out"
tap $? 'assert ends the test'
says 'expect' 'not ok 3 - expect'
says 'expect goes on' '# .*/sample.c:16: not true: !"reached"'
says 'bytes' '# .*; from byte 2 of 3: 03, 04'
says 'text cannot forge a result' '# .*"x ok 99 - forged" is not ""'
says 'skip' 'ok 6 - skip # SKIP no token here'
says 'crash' 'not ok 7 - crash # killed by signal 11 .*'
says 'hang' 'not ok 8 - hang # timed out after 1 s'
says 'exit before the end' 'not ok 9 - stray # exited with status 0 before its end'
says 'failure in a thread' 'not ok 10 - thread'
says 'failure in a child of the test' 'not ok 11 - forked'
says 'leftover' 'ok 12 - leftover'
left=$(sed -n 's/^# left //p' "$work/out")
[[ $left ]] && ! kill -0 "$left" 2>/dev/null
tap $? 'kills what a test left running'
says 'first variant' 'ok 14 - row.small.bits'
says 'second variant' 'not ok 15 - row.large.bits'
says 'teardown behind a failed assert' '# teardown 64'
says 'skip in the setup' 'ok 16 - absent.body # SKIP not today'
! grep -q '^# teardown 0' "$work/out"
tap $? 'no teardown of what was not set up'

# The options.
[[ $("$work/sample" -l | tail -n 2) == $'row.large.bits\nabsent.body' ]]
tap $? '-l lists'
"$work/sample" -t 'row.s*' >"$work/out"
tap $? 'exits with 0 where all passed'
[[ $(sed -n '3,$p' "$work/out") == $'1..1\n# teardown 8\nok 1 - row.small.bits' ]]
tap $? '-t picks'
"$work/sample" -t 'nothing*' >/dev/null 2>&1
(($? == 1))
tap $? '-t that picks nothing fails'
drawn() {
	"$work/sample" -t random "$@" | grep '^# random'
}
[[ $(drawn -s 5) && $(drawn -s 5) == $(SSDTF_SEED=5 drawn) ]]
tap $? 'the same seed, the same numbers'
[[ $(drawn -s 5) != $(drawn -s 6) ]]
tap $? 'another seed, others'
[[ $(HARNESS_TIMEOUT_SCALE=2 "$work/sample" -t hang) == *'timed out after 2 s'* ]]
tap $? 'HARNESS_TIMEOUT_SCALE scales'

# An interrupted harness takes its test with it.
"$work/sample" -t leftover >/dev/null # warms the file cache, so that the next is quick to start
HARNESS_TIMEOUT_SCALE=100 "$work/sample" -t hang >"$work/out" &
harness=$!
for ((i = 0; i < 100; i++)); do
	child=$(pgrep -P "$harness") && break
	sleep 0.05
done
kill -TERM "$harness"
wait "$harness"
for ((i = 0; i < 100; i++)); do
	kill -0 "$child" 2>/dev/null || break
	sleep 0.05
done
[[ $child ]] && ! kill -0 "$child" 2>/dev/null
tap $? 'an interrupted harness takes its test with it'

# tests/run on a tree of its own.
mkdir -p "$work/tree/tests/e2e" "$work/tree/o/tests"
cp tests/run "$work/tree/tests"
runs() {
	local name=$1 script=$2 expected=$3 output

	printf '#!/bin/bash\n%s\n' "$script" >"$work/tree/tests/test_x.sh"
	chmod +x "$work/tree/tests/test_x.sh"
	output=$(O=o TESTS_SECONDS_MAX=${seconds:-60} "$work/tree/tests/run" 2>&1)
	[[ $(tail -n 1 <<<"$output") == "$expected" ]]
	tap $? "run: $name"
	[[ $(tail -n 1 <<<"$output") == "$expected" ]] || tap_note <<<"$output"
}
runs 'counts' 'echo 1..3; echo ok 1 - a; echo ok 2 - b; echo "ok 3 - c # SKIP why"' \
	'2 passed, 0 failed, 1 skipped'
runs 'a failed test' 'echo 1..2; echo ok 1; echo not ok 2; exit 1' '1 passed, 1 failed'
runs 'no plan' 'echo ok 1' '1 passed, 1 failed'
runs 'fewer tests than planned' 'echo 1..2; echo ok 1' '1 passed, 1 failed'
runs 'more tests than planned' 'echo 1..1; echo ok 1; echo ok 2' '2 passed, 1 failed'
runs 'a program that dies' 'echo 1..1; echo ok 1; kill -SEGV $$' '1 passed, 1 failed'
runs 'a whole program skipped' 'echo "1..0 # SKIP no token"; exit 4' \
	'0 passed, 0 failed, 1 skipped'
seconds=1 runs 'the time limit' 'echo 1..1; sleep 60' '0 passed, 1 failed'
runs 'a process left behind' 'echo 1..1; echo ok 1; sleep 5 & disown' '1 passed, 0 failed'
touch "$work/tree/tests/test_gone.c"
runs 'a program that was not built' 'echo 1..1; echo ok 1' '1 passed, 1 failed'
tap_done
