# SPDX-License-Identifier: MIT
"""ssdtf-pub and ssdtf-sub as the tests use them.

    pub(g, "dev-1", "plant/a", "-m", "text")   runs to its end: CompletedProcess
    Pub(g, "dev-1", "plant/a")                 runs, and publishes line()s
    Sub(g, "rx-1", "plant/#")                  runs, subscribed; messages() has what it printed
"""

import json
import os
import subprocess
import tempfile

import gateway
import tap

OK, USAGE, DATAERR, UNAVAILABLE, TEMPFAIL, PROTOCOL, NOPERM, CONFIG = 0, 64, 65, 69, 75, 76, 77, 78


def options(g, party_id, topics, address=None):
    host, port = address or g.address
    out = ["--dir", g.path(party_id), "-h", host, "-p", str(port)]
    for t in topics:
        out += ["-t", t]
    return out


def pub(g, party_id, topic, *more, stdin=None, address=None, seconds=60):
    return gateway.run([gateway.program("pub"), *options(g, party_id, [topic], address), *more],
                       stdin=stdin, seconds=seconds)


def pub_ok(*args, **named):
    r = pub(*args, **named)
    tap.equal((r.returncode, r.stderr), (0, ""), "ssdtf-pub's exit code and words")


class Pub(gateway.Process):
    of_test = True

    def __init__(self, g, party_id, topic, *more, address=None):
        super().__init__("pub " + party_id,
                         [gateway.program("pub"), *options(g, party_id, [topic], address), "-l",
                          "-d", *more], stdin=subprocess.PIPE)

    def line(self, *texts):
        self.popen.stdin.write(b"".join(t.encode() + b"\n" for t in texts))
        self.popen.stdin.flush()

    def wait_open(self, count=1):
        self.wait_text(r"mutual authentication passed", count=count)

    def finish(self, seconds=40):
        """No more lines: its exit code, once all was acknowledged."""
        self.popen.stdin.close()
        return self.wait(seconds)


class Sub(gateway.Process):
    of_test = True

    def __init__(self, g, party_id, *filters, qos=1, more=(), address=None, wait=True):
        handle, self.out = tempfile.mkstemp(prefix="ssdtf-e2e.", suffix=".json")
        gateway.folders.append(self.out)
        with os.fdopen(handle, "ab") as f:
            super().__init__("sub " + party_id,
                             [gateway.program("sub"), *options(g, party_id, filters, address),
                              "-q", str(qos), "--json", "-d", *more], stdout=f)
        if wait:
            self.wait_subscribed()

    def wait_subscribed(self, count=1):
        self.wait_text(r"\bsubscribed$", count=count)

    def messages(self):
        with open(self.out, encoding="utf-8") as f:
            return [json.loads(line) for line in f.read().split("\n")[:-1]]

    def texts(self):
        return [m["payload"] for m in self.messages()]

    def wait_messages(self, n, seconds=15):
        """At least n, else AssertionError."""
        return tap.eventually(lambda: len(self.messages()) >= n and self.messages(),
                              "%s has %d messages" % (self.name, n), seconds)

    def wait_text_message(self, text, seconds=15):
        """The message with this plaintext."""
        def look():
            return next((m for m in self.messages() if m["payload"] == text), None)
        return tap.eventually(look, "%s receives %r" % (self.name, text), seconds)
