#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""ssdtf-broker as a gateway's broker: what keeps it from starting is said in one line and a code of
sysexits.h; a bundle that must not be believed changes nothing."""

import os
import shutil
import signal
import sqlite3
import time

import gateway
import mqtt
import tap

DATAERR, NOINPUT, UNAVAILABLE, TEMPFAIL, CONFIG = 65, 66, 69, 75, 78

g = other = None


def setup():
    """A gateway whose broker can be started, and another manager's with a gateway of the same
    name."""
    global g, other
    g = gateway.Gateway()
    other = gateway.Gateway()
    for x in (g, other):
        x.scope("plant", "plant/#")
        x.device("dev-1", "plant")
        x.deliver()
    g.start_hsmd()


def refused(code, words, *options):
    """The broker does not start: exit code, and one line on stderr that has the words."""
    r = gateway.run([gateway.program("broker"), "--config", g.config, *options])
    tap.equal((r.returncode, r.stdout), (code, ""), "exit code and stdout: %s" % r.stderr)
    lines = r.stderr.splitlines()
    tap.equal(len(lines), 1, "lines of %r" % r.stderr)
    tap.true(lines[0].startswith("ssdtf-broker: ") and words in lines[0], "words: " + lines[0])


class Changed:
    """Another text, bytes or mode for a file, for as long as the with block lasts."""

    def __init__(self, path, data=None, mode=0o600):
        self.path, self.data, self.mode = path, data, mode

    def __enter__(self):
        os.rename(self.path, self.path + ".saved")
        if self.data is not None:
            gateway.write(self.path, self.data, self.mode)

    def __exit__(self, *_):
        os.rename(self.path + ".saved", self.path)


@tap.test
def check_config():
    "--check-config is content with what is right, and starts nothing"
    g.write_config()
    r = gateway.run([gateway.program("broker"), "--config", g.config, "--check-config"])
    tap.equal((r.returncode, r.stdout, r.stderr), (0, g.config + ": ok\n", ""), "result")
    tap.true(not os.path.exists(g.state_dir), "no state directory was made")


@tap.test
def config_typo():
    "a typo in the configuration is named with file, line and what was probably meant"
    g.write_config()
    text = gateway.read(g.config).decode().replace("state-dir", "state-dri")
    line = 1 + text[:text.index("state-dri")].count("\n")
    with Changed(g.config, text):
        for more in ((), ("--check-config",)):
            refused(CONFIG, "%s:%d: no such option 'state-dri'; did you mean 'state-dir'?"
                    % (g.config, line), *more)


@tap.test
def manager_key():
    "a manager's key that is missing or none is named"
    key = g.manager.public
    with Changed(key):
        refused(NOINPUT, key + ": No such file or directory")
    with Changed(key, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        refused(DATAERR, key + ": is not a P-256 public key in PEM", "--check-config")
    with Changed(key, gateway.read(other.manager.public)):
        refused(DATAERR, g.bundle + ": is not a whole gateway bundle signed by this manager's key")


@tap.test
def bundle():
    "a bundle that is missing, cut, bent, another gateway's or open to others is named"
    good = gateway.read(g.bundle)
    bent = bytearray(good)
    bent[len(good) // 2] ^= 1
    with Changed(g.bundle):
        refused(NOINPUT, g.bundle + ": No such file or directory")
    for data in (b"", good[:-1], good + b"\0", bytes(bent), gateway.read(other.bundle)):
        with Changed(g.bundle, data):
            refused(DATAERR, g.bundle + ": is not a whole gateway bundle")
    with Changed(g.bundle, good, 0o644):
        refused(CONFIG, g.bundle + ": has admission keys in it and is open to others (chmod 600)")
    text = gateway.read(g.config).decode().replace('"gw-1"', '"gw-2"')
    with Changed(g.config, text):
        refused(CONFIG, g.bundle + ": is for gateway 'gw-1', this one is 'gw-2'")


@tap.test
def state_directory():
    "a state directory that is in use, open to others or another version's is named"
    g.start_broker()
    refused(TEMPFAIL, g.state_dir + ": is in use by another broker")
    tap.equal(g.broker.stop(), 0, "exit code")
    os.chmod(g.state_dir, 0o755)
    refused(CONFIG, g.state_dir + ": must belong to the broker's user and have mode 0700")
    os.chmod(g.state_dir, 0o700)
    database = os.path.join(g.state_dir, "broker.db")
    db = sqlite3.connect(database)
    own = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    for version, code in ((own + 6, DATAERR), (own, None)):
        db = sqlite3.connect(database)
        db.execute("PRAGMA user_version = %d" % version)
        db.commit()
        db.close()
        if code:
            refused(code, "schema version %d; this program reads version %d" % (version, own))
    g.start_broker()
    tap.equal(g.broker.stop(), 0, "exit code")


@tap.test
def older_bundle():
    "a bundle older than one that was in force is refused, over restarts too"
    old = gateway.read(g.bundle)
    g.deliver()
    g.start_broker()
    with Changed(g.bundle, old):
        line = g.reload()
        tap.true("has serial" in line and "the one in force stays" in line, line)
        tap.equal(g.broker.stop(), 0, "exit code")
        refused(DATAERR, g.bundle + ": has serial ")


@tap.test
def reload_bad():
    "SIGHUP with a bundle that must not be believed leaves the one in force; a good one is taken"
    g.start_broker()
    good = gateway.read(g.bundle)
    for data in (None, b"", good[:-1], gateway.read(other.bundle)):
        with Changed(g.bundle, data):
            tap.true("the one in force stays" in g.reload(), "a line")
    mqtt.Session(g.address, g.party("dev-1")).disconnect()
    g.device("dev-2", "plant")
    g.update()
    mqtt.Session(g.address, g.party("dev-2")).disconnect()
    tap.equal(g.broker.stop(), 0, "exit code")


@tap.test
def listen_taken():
    "an address that is taken is named"
    g.start_broker()
    state, g.state_dir = g.state_dir, os.path.join(g.base, "state-2")
    g.write_config()
    refused(UNAVAILABLE, "cannot listen on %s:%d: Address already in use" % g.address)
    shutil.rmtree(g.state_dir)
    g.state_dir = state
    g.write_config()
    tap.equal(g.broker.stop(), 0, "exit code")


@tap.test
def another_token():
    "a key process with another token than the bundle's is refused"
    hsmd, token = g.hsmd, g.token
    tap.equal(hsmd.stop(), 0, "exit code of hsmd")
    g.token = other.token
    g.start_hsmd()
    r = gateway.run([gateway.program("broker"), "--config", g.config])
    tap.equal(r.returncode, CONFIG, "exit code")
    tap.true("the token's signing key is not the one that the bundle names" in r.stderr, r.stderr)
    tap.equal(g.hsmd.stop(), 0, "exit code of hsmd")
    g.token = token


@tap.test
def key_process_comes_later():
    "the broker waits for a first key process, and gives up after ten seconds"
    g.start_broker(wait=False)
    time.sleep(1)
    tap.true(g.broker.alive() and "ready" not in g.broker.text(), "it waits")
    g.start_hsmd()
    g.wait_ready()
    tap.equal(g.broker.stop(), 0, "exit code")
    tap.equal(g.hsmd.stop(), 0, "exit code of hsmd")
    g.start_broker(wait=False)
    time.sleep(min(0.5 * tap.SCALE, 5))  # it waits by then, and still does
    tap.equal(g.broker.stop(), 0, "exit code where it is told to stop while it waits")
    begin = time.monotonic()
    refused(UNAVAILABLE, "is ssdtf-hsmd running?")
    tap.true(9 < time.monotonic() - begin < 20 * tap.SCALE, "it took its time")


tap.main(setup)
