#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""ssdtf-admit and its pins: all of them or none, and whose they are. Where the filter cannot be
used, a broker says so once and gives the same answers."""

import fcntl
import grp
import os
import pwd
import random
import re
import stat
import time

import filtered
import gateway
import mqtt
import netns
import tap
from filtered import NOBODY, Token, admit, connack

USAGE, UNAVAILABLE, CANTCREAT, NOPERM = 64, 69, 73, 77
PROGRAM_BYTES_MAX = 16384
KILLS = tap.rounds(20)

ROOT = 0
PINS = {  # mode, user, group
    "filter": (0o440, ROOT, NOBODY), "filter_other": (0o440, ROOT, NOBODY),
    "counters": (0o440, ROOT, NOBODY), "sources": (0o440, ROOT, NOBODY),
    "bans": (0o660, NOBODY, NOBODY), "config": (0o660, NOBODY, NOBODY),
    "devices": (0o600, NOBODY, None), "seen": (0o600, ROOT, None), "pend": (0o600, ROOT, None),
    "totals": (0o600, ROOT, None)}

g = None


def setup():
    global g
    tap.equal((pwd.getpwnam(filtered.USER).pw_uid, grp.getgrnam(filtered.GROUP).gr_gid),
              (NOBODY, NOBODY), "ids of nobody")
    g = filtered.Gateway(os.path.join(BPFFS, "broker"))
    g.scope("plant", "plant/#")
    g.device("dev-1", "plant")
    g.device("no-clock", "plant", options=["--no-clock"])
    g.receiver("rx-1", "plant")
    g.deliver()
    g.start_hsmd()
    tap.after_each(between)


def between():
    if g.broker and g.broker.alive():
        g.broker.kill()
    if not g.hsmd.alive():
        g.start_hsmd()
    for name in left():
        admit("unpin", "--pins", os.path.join(BPFFS, name))


def left():
    """What stands in the bpffs, but for what some kernels put into each."""
    return [name for name in os.listdir(BPFFS) if not name.endswith(".debug")]


def pin(path=None, *options):
    path = path or g.pins
    return gateway.must(admit("pin", "--pins", path, "--user", filtered.USER, "--group",
                              filtered.GROUP, *options))


def refused(result, code, *words):
    """One line, and this exit code."""
    tap.equal((result.returncode, len(result.stderr.splitlines())), (code, 1),
              "exit code and lines of %r" % result.stderr)
    for w in words:
        tap.true(w in result.stderr, "%r in %r" % (w, result.stderr))


def as_nobody(*capabilities):
    """setpriv to an ordinary user who keeps these."""
    keep = ",".join("+" + c for c in capabilities)
    more = ["--inh-caps=-all," + keep, "--ambient-caps=-all," + keep] if keep else \
        ["--inh-caps=-all"]
    return ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", *more]


# --- ssdtf-admit --------------------------------------------------------------------------------

@tap.test
def load():
    "load: this kernel takes the filter, it is small enough for 20 KiB of optmem, nothing stays"
    out = gateway.must(admit("load"))
    sizes = {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+) bytes", out, re.M)}
    tap.equal(set(sizes), {"filter", "filter_other"}, "programs of %r" % out)
    for name, n in sizes.items():
        tap.true(0 < n < PROGRAM_BYTES_MAX, "%s has %d bytes" % (name, n))
    tap.equal(left(), [], "pins")


@tap.test
def rights():
    "pin: each pin has the mode, user and group that it should have, and status shows it"
    pin()
    top = os.stat(g.pins)
    tap.equal((stat.S_IMODE(top.st_mode), top.st_uid, top.st_gid), (0o750, ROOT, NOBODY), "folder")
    tap.equal(sorted(os.listdir(g.pins)), sorted(PINS), "pins")
    lines = gateway.must(admit("status", "--pins", g.pins))
    for name, (mode, user, group) in PINS.items():
        s = os.stat(os.path.join(g.pins, name))
        tap.equal((stat.S_IMODE(s.st_mode), s.st_uid), (mode, user), name)
        tap.true(group is None or s.st_gid == group, "group of " + name)
        tap.true(re.search(r"^%s\b.*%04o" % (name, mode), lines, re.M), "%s in %r" % (name, lines))
    tap.equal(gateway.must(admit("unpin", "--pins", g.pins)), "", "words of unpin")
    tap.equal(left(), [], "what is left")


@tap.test
def wrong_use():
    "pin twice, unpin or show nothing, no bpffs, no such user: one line and a code for each"
    pin()
    before = sorted(os.stat(os.path.join(g.pins, n)).st_ino for n in os.listdir(g.pins))
    refused(admit("pin", "--pins", g.pins), CANTCREAT, g.pins, "unpin")
    after = sorted(os.stat(os.path.join(g.pins, n)).st_ino for n in os.listdir(g.pins))
    tap.equal(after, before, "the pins that were there")
    os.unlink(os.path.join(g.pins, "pend"))
    refused_status = admit("status", "--pins", g.pins)
    tap.equal(refused_status.returncode, UNAVAILABLE, "exit code of status: a pin is missing")
    tap.true("1 of 10 pins" in refused_status.stderr, refused_status.stderr)
    gateway.must(admit("unpin", "--pins", g.pins))
    refused(admit("unpin", "--pins", g.pins), UNAVAILABLE, g.pins)
    refused(admit("status", "--pins", g.pins), UNAVAILABLE, g.pins)
    refused(admit("pin", "--pins", os.path.join(g.base, "here")), UNAVAILABLE, "bpffs")
    refused(admit("pin", "--pins", "relative"), USAGE, "relative")
    refused(admit("pin", "--pins", g.pins, "--user", "no-such-user"), 67, "no-such-user")
    for words in ((), ("no-such-command",), ("pin", "unpin")):
        result = admit(*words)
        tap.equal(result.returncode, USAGE, "exit code of %r: %s" % (words, result.stderr))
    tap.equal(left(), [], "pins")


def killed_at_work(command, seconds):
    """kill -9 so long after it began to change what is pinned, where it does."""
    before = left()
    p = gateway.Process("admit", [gateway.program("admit"), command, "--pins", g.pins])
    while p.alive() and left() == before:
        pass
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    p.kill()


@tap.test
def killed():
    "kill -9 at any moment leaves all pins or none, and the next pin puts all in order"
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    tap.note("SEED=%d" % seed)
    rnd = random.Random(seed)
    pin()
    whole = 0
    for i in range(KILLS):
        killed_at_work("unpin" if os.path.exists(g.pins) else "pin",
                       rnd.choice((0, rnd.uniform(0, 2e-4), rnd.uniform(0, 2e-3))))
        if os.path.exists(g.pins):
            whole += 1
            tap.equal(sorted(os.listdir(g.pins)), sorted(PINS), "pins after kill %d" % i)
            gateway.must(admit("status", "--pins", g.pins))
    tap.note("%d of %d times the pins were there" % (whole, KILLS))
    if not os.path.exists(g.pins):
        pin()
    gateway.must(admit("unpin", "--pins", g.pins))
    tap.equal(left(), [], "what is left")


@tap.test
def two_at_once():
    "while one ssdtf-admit is at work, another one says so"
    fd = os.open(BPFFS, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        refused(admit("pin", "--pins", g.pins), 75, "another")
        refused(admit("unpin", "--pins", g.pins), 75, "another")
    finally:
        os.close(fd)


@tap.test
def capabilities():
    "it needs CAP_BPF and CAP_PERFMON, no more to load; without them: one line, EX_NOPERM"
    for keep in ((), ("bpf",), ("perfmon",)):
        for command in ("load", "pin"):
            refused(gateway.run(as_nobody(*keep) + [gateway.program("admit"), command, "--pins",
                                                    g.pins]), NOPERM, "CAP_BPF and CAP_PERFMON")
    gateway.must(gateway.run(as_nobody("bpf", "perfmon") + [gateway.program("admit"), "load"]))
    os.chmod(BPFFS, 0o777)
    try:
        gateway.must(gateway.run(as_nobody("bpf", "perfmon") +
                                 [gateway.program("admit"), "pin", "--pins", g.pins]))
        tap.equal(sorted(os.listdir(g.pins)), sorted(PINS), "pins")
    finally:
        os.chmod(BPFFS, 0o755)


@tap.test
def devices_max():
    "room for as many devices as were asked for; a broker with more of them drops nobody"
    pin(g.pins, "--devices-max", "2")
    g.start_broker()
    g.broker.wait_text(r"event=admission .*drops nobody")
    tap.true(not flags() & filtered.ENFORCE, "the filter does not drop")
    token = Token.of(g.party("rx-1"))
    tap.equal(ask(token.connect()), 0, "CONNACK")
    refused(admit("pin", "--pins", g.pins, "--devices-max", "0"), USAGE, "devices-max")


# --- a broker with and without it ---------------------------------------------------------------

def flags():
    m = filtered.bpf.Map(os.path.join(g.pins, "config"))
    try:
        return filtered.struct.unpack_from("=I", m.get(bytes(4)), 16)[0]
    finally:
        m.close()


def ask(data):
    """CONNACK's code; None: closed without one."""
    with netns.client(g.address) as s:
        s.sendall(data)
        return connack(s)


def table():
    """What different clients are told. Each line has its own connection."""
    d, no_clock = Token.of(g.party("dev-1")), Token.of(g.party("no-clock"))
    slot = int(time.time()) // filtered.SLOT_SECONDS
    long_user, will = mqtt.connect("dev-1", "u" * 49, bytes(13)), mqtt.Will("plant/w", b"w" * 200)
    out = []
    for what, data in (
            ("good", d.connect()), ("with a Will", d.connect(will=will)),
            ("bad tag", d.connect(key=bytes(16))), ("unknown", d.connect(party_id="stranger")),
            ("no password", d.connect(password=b"")), ("short token", d.connect(password=b"\1")),
            ("another version", d.connect(password=b"\2" + bytes(12))),
            ("old", d.connect(slot=slot - 3)), ("of the future", d.connect(slot=slot + 3)),
            ("slot 0, clock", d.connect(slot=0)), ("slot 0, no clock", no_clock.connect(slot=0)),
            ("a time, no clock", no_clock.connect()),
            ("no user name", mqtt.connect("dev-1")), ("long user name", long_user),
            ("MQTT 5", d.connect_5()), ("MQTT 5, bad tag", d.connect_5(key=bytes(16))),
            ("reserved flag", mqtt.connect("dev-1", "u", b"p", flags=0xC3)),
            ("empty id", mqtt.connect("", "u", b"p")), ("good again", d.connect())):
        out.append((what, ask(data)))
    return out


def start(kernel, why=None):
    """A broker that uses the filter, or says once why it does not."""
    g.limits = {"admission-grace-ms": 0}
    g.start_broker()
    g.broker.wait_text("event=admission kernel=")  # said behind "ready"
    lines = [line for line in g.broker.text().splitlines() if "event=admission kernel=" in line]
    tap.equal(len(lines), 1, "lines about the kernel: %r" % lines)
    tap.true("kernel=%s" % ("on" if kernel else "off") in lines[0], lines[0])
    answer = g.ask("admission").splitlines()
    tap.true(("kernel on" if kernel else "kernel off") in answer, "%r" % answer)
    if why:
        tap.true(why in lines[0] and 'what="' in lines[0], "%r in %r" % (why, lines[0]))
        tap.true([line for line in answer if line.startswith("why ") and why in line],
                 "why: %r" % answer)


def works():
    """A device authenticates, one with a bad token is told."""
    mqtt.Session(g.address, g.party("dev-1")).disconnect()
    d = Token.of(g.party("dev-1"))
    tap.equal(ask(d.connect(key=bytes(16))), 5, "CONNACK of a bad token")
    tap.equal(ask(d.connect()), 0, "CONNACK of a good one")


def once(text):
    tap.equal(len(re.findall(text, g.broker.text())), 1, "lines with %s" % text)


@tap.test
def same_answers():
    "the same clients get the same answers with the filter and without it"
    pin()
    start(True)
    tap.true(flags() & filtered.ENFORCE, "the filter drops")
    with_filter = table()
    tap.equal({what for what, code in with_filter if code == 0},
              {"good", "with a Will", "slot 0, no clock", "a time, no clock", "good again"},
              "who gets in: %r" % with_filter)
    g.stop_broker()
    gateway.must(admit("unpin", "--pins", g.pins))
    start(False, g.pins + ": nothing is pinned there")
    tap.equal(table(), with_filter, "without the filter")
    # What the filter drops without a word.
    for data in (b"GET / HTTP/1.1\r\n\r\n", mqtt.packet(mqtt.PINGREQ)):
        tap.equal(ask(data), None, "CONNACK of %r" % data)
    data, no_clock = Token.of(g.party("dev-1")).connect(), Token.of(g.party("no-clock"))
    tap.equal((ask(data), ask(data)), (0, 5), "CONNACK of a token that is used twice")
    g.stop_broker()
    g.limits = {"admission-no-clock-ms": 3600 * 1000}
    g.start_broker()
    codes = [ask(no_clock.connect(slot=0)) for _ in range(2)]
    tap.equal(codes, [0, 5], "CONNACKs of a device without a clock that comes twice")
    once("event=admission kernel=off")


@tap.test
def pins_not_permitted():
    "pins that the broker may not open: it says so once, and checks by itself"
    pin()
    for path, mode in ((g.pins, 0o700), (os.path.join(g.pins, "filter"), 0o400),
                       (os.path.join(g.pins, "config"), 0o600),
                       (os.path.join(g.pins, "devices"), 0o000)):
        before = os.stat(path)
        os.chmod(path, mode)
        os.chown(path, ROOT, ROOT)
        start(False, "Permission denied")
        works()
        g.stop_broker()
        once("event=admission kernel=off")
        os.chmod(path, stat.S_IMODE(before.st_mode))
        os.chown(path, before.st_uid, before.st_gid)
    start(True)
    works()


@tap.test
def pin_missing():
    "a pin that is missing: the broker names it, and checks by itself"
    pin()
    os.unlink(os.path.join(g.pins, "bans"))
    start(False, os.path.join(g.pins, "bans"))
    works()


@tap.test
def unpinned_meanwhile():
    "a broker that runs keeps the filter when the pins go, and takes new ones when it starts again"
    pin()
    start(True)
    gateway.must(admit("unpin", "--pins", g.pins))
    works()
    g.reload()
    works()
    g.stop_broker()
    pin()
    start(True)
    works()


@tap.test
def optmem():
    "net.core.optmem_max: 20480 is enough for the filter; with 4096 the broker checks by itself"
    pin()
    with netns.machine_alone():
        with netns.setting(filtered.OPTMEM, filtered.OPTMEM_OF_6_1):
            start(True)
            works()
            g.stop_broker()
        with netns.setting(filtered.OPTMEM, 4096):
            start(False, "net.core.optmem_max")
            works()
            g.stop_broker()
            once("event=admission kernel=off")
    start(True)
    works()


optmem.seconds = 300  # on a kernel where the setting is the machine's it waits for other tests


@tap.test
def off():
    "admission off: nothing is attached, no token is asked for"
    pin()
    g.options["admission"] = "off"
    try:
        g.limits = {}
        g.start_broker()
        tap.true("event=admission" not in g.broker.text(), "words about admission")
        d = Token.of(g.party("dev-1"))
        tap.equal(ask(d.connect(password=b"")), 0, "CONNACK")
        tap.equal(ask(d.connect(party_id="stranger")), 5, "CONNACK of a stranger")
        tap.true("mode off" in g.ask("admission").splitlines(), "mode")
    finally:
        g.options["admission"] = "enforce"


BPFFS = filtered.enter()
tap.main(setup)
