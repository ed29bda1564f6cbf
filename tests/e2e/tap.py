# SPDX-License-Identifier: MIT
"""TAP 13 for the end-to-end tests: each decorated function is a test, its first line the name.

    @tap.test
    def taken_once():
        "a message is delivered once"
        tap.equal(receiver.count(), 1, "deliveries")

    tap.main(setup)

Tests run in the order in which they stand in the file. main() ends the program. Whatever happens,
what was started is stopped: `with` blocks and tap.at_end() see to that, since SIGTERM and a test's
time-out arrive as exceptions.
"""

import os
import signal
import sys
import time
import traceback

SCALE = int(os.environ.get("HARNESS_TIMEOUT_SCALE", "1"))  # slow builds, as in tests/harness.h
SECONDS_MAX = 60  # of one test

tests = []
endings = []
between = []  # called behind each test
notes = []  # functions that print what helps to understand a failure


def rounds(full):
    """How often to do what is done full times, as harness_rounds() of tests/harness.h."""
    return max(1, full // 4) if os.environ.get("TESTS_EFFORT") == "low" else full


class TimedOut(Exception):
    pass


class Skipped(Exception):
    pass


def test(function):
    tests.append(function)
    return function


def at_end(function):
    """function() is called when the program ends, the last one first."""
    endings.append(function)


def after_each(function):
    """function() is called behind each test."""
    between.append(function)


def on_failure(function):
    """function() gives lines for people behind a failed test."""
    notes.append(function)


def full_effort_only(what):
    """Ends the program where effort is to be low: for what draws on nothing that differs between
    machines, and takes minutes on a slow one."""
    if os.environ.get("TESTS_EFFORT") == "low":
        print("1..0 # SKIP %s: not with TESTS_EFFORT=low" % what, flush=True)
        sys.exit(4)


def skip(why):
    raise Skipped(why)


def note(text):
    for line in str(text).splitlines():
        print("# " + line)
    sys.stdout.flush()


def true(condition, what):
    if not condition:
        raise AssertionError(what)


def equal(got, want, what):
    if got != want:
        raise AssertionError("%s: got %r, want %r" % (what, got, want))


def eventually(condition, what, seconds=10.0):
    """Asks until condition() is true, and returns what it said."""
    end = time.monotonic() + seconds * SCALE
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() >= end:
            raise AssertionError("not within %g s: %s" % (seconds * SCALE, what))
        time.sleep(0.02)


def timed_out(_number, _frame):
    raise TimedOut("the test took too long")


def told_to_end(number, _frame):
    raise SystemExit(128 + number)


def explain():
    note(traceback.format_exc())
    for more in notes:
        note("\n".join(more()))


def run_one(function):
    """Whether it passed, and what is to stand behind its name."""
    signal.alarm(getattr(function, "seconds", SECONDS_MAX) * SCALE)
    try:
        function()
        return True, ""
    except Skipped as e:
        return True, " # SKIP %s" % e
    except Exception:  # whatever it is, the other tests go on
        signal.alarm(0)
        explain()
        return False, ""
    finally:
        signal.alarm(0)
        for each in between:
            each()


def run_all(setup):
    failed = 0
    print("TAP version 13\n1..%d" % len(tests), flush=True)
    if setup:
        setup()
    for i, function in enumerate(tests, 1):
        started = time.monotonic()
        passed, words = run_one(function)
        name = function.__doc__.strip().splitlines()[0]
        print("%s %d - %s%s" % ("ok" if passed else "not ok", i, name, words), flush=True)
        if os.environ.get("TAP_TIMES"):
            note("%.1f s" % (time.monotonic() - started))
        failed += not passed
    return 1 if failed else 0


def main(setup=None):
    """Runs every test; setup() is called once before them. With arguments: those whose function's
    name contains one of them."""
    if len(sys.argv) > 1:
        tests[:] = [f for f in tests if any(a in f.__name__ for a in sys.argv[1:])]
    signal.signal(signal.SIGALRM, timed_out)
    signal.signal(signal.SIGTERM, told_to_end)
    signal.signal(signal.SIGINT, told_to_end)
    signal.signal(signal.SIGHUP, told_to_end)
    code = 1
    try:
        code = run_all(setup)
    except Exception:
        explain()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while endings:
            endings.pop()()
    sys.exit(code)
