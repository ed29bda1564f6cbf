#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""A gateway's signing and unwrapping keys replaced with the real programs: hsmd makes the next
ones, the manager states them, the broker takes the bundle while it runs, and the old ones are
destroyed."""

import os
import re
import signal
import time

import gateway
import tap
from clients import Sub, pub_ok

g = None


def setup():
    global g
    g = gateway.Gateway(workers=1)
    g.scope("plant", "plant/#")
    g.device("dev-1", "plant")
    g.receiver("rx-1", "plant", proof=True)
    g.start()


def keygen(*options):
    return gateway.run([gateway.program("hsmd"), "keygen", *g.token.options(), *options],
                       g.token.env)


def status():
    said = gateway.must(gateway.run([gateway.program("hsmd"), "status", "--socket-dir",
                                     g.run_dir]))
    return dict(re.findall(r"(\S+-key)=(\S+)", said))


def exchange(text):
    sub = Sub(g, "rx-1", "plant/keys")
    pub_ok(g, "dev-1", "plant/keys", "-m", text)
    sub.wait_text_message(text)
    tap.equal(sub.stop(), 0, "exit code of ssdtf-sub")


@tap.test
def replaced():
    "from the next keys' making to the old ones' end, messages go through at each step"
    exchange("before")
    before = status()
    tap.equal((before["next-broker-key"], before["next-unwrap-key"]), ("none", "none"), "next keys")

    following = os.path.join(g.base, "next.pub")
    both = ("--next", "signing", "--next", "unwrap", "--public", following)
    said = gateway.must(keygen(*both, "--dry-run"))
    tap.true("would have made ssdtf-unwrap-2" in said, said)
    tap.true(not os.path.exists(following), "a dry run writes nothing")
    gateway.must(keygen(*both))
    g.hsmd.signal(signal.SIGHUP)
    g.hsmd.wait_text("looked at the token anew")
    made = status()
    tap.equal(made["broker-key"], before["broker-key"], "the signing key in use")

    begins = int(time.time()) + 3 * tap.SCALE
    args = ("rotate", "gateway", "--id", g.id, "--public", following, "--overlap-hours", "0",
            "--from", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begins)))
    g.manager.admin(*args, "--dry-run")
    g.manager.admin(*args)
    g.update()  # the broker runs, and had not heard of these keys
    exchange("unwrapped by the next key, signed by the old one")
    time.sleep(max(0, begins + 0.2 - time.time()))
    exchange("signed by the next key")

    r = keygen("--promote", "signing", "--socket-dir", g.run_dir)
    tap.equal(r.returncode, 75, "keygen --promote while hsmd runs: " + r.stderr)
    g.hsmd.stop()
    gateway.must(keygen("--promote", "signing", "--promote", "unwrap", "--socket-dir", g.run_dir))
    g.start_hsmd()
    g.broker.wait_text("hsmd=0 link=up", count=2)
    after = status()
    tap.equal((after["broker-key"], after["unwrap-key"]),
              (made["next-broker-key"], made["next-unwrap-key"]), "keys in use")
    exchange("with the old ones gone")

    g.broker.stop()
    g.start_broker()
    exchange("after a restart")


@tap.test
def not_there():
    "a bundle that names keys which the token does not have leaves the one in force"
    other = gateway.Token(gateway.folder(), "gateway")
    following = os.path.join(g.base, "others.pub")
    gateway.must(gateway.run([gateway.program("hsmd"), "keygen", *other.options(), "--public",
                              following], other.env))
    g.manager.admin("rotate", "gateway", "--id", g.id, "--public", following, "--in-hours", "1")
    g.deliver()
    line = g.reload()
    tap.true("in force stays" in line and "the token" in line, line)
    exchange("by the keys in force")


tap.main(setup)
