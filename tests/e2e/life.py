#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""The life of keys with programs that are killed. While a scope gets new keys and grants come and
go, each of the programs is ended with SIGKILL at random moments: what is found afterwards is the
old state or the new one, never something between, and nothing that was acknowledged is lost.

Each program by itself: crash.py and durable.py (broker), distributor.py, updates.py (ssdtf-pub),
online.py (push), lives.py (ssdtf-claim). Here are all of them in one place, and the manager."""

import collections
import json
import os
import random
import re
import signal
import subprocess
import threading
import time

import gateway
import ssdtf
import tap
from clients import Pub, Sub

KILLS = int(os.environ.get("KILLS", tap.rounds(100)))
ADMIN_KILLS = tap.rounds(40)
ROTATE = ["rotate", "scope", "--name", "plant", "--overlap-hours", "0"]
REVOKE = ["revoke", "grant", "--scope", "plant", "--receiver", "rx-gone"]
LINE_S = 0.01 * tap.SCALE  # a line of each sender's so often
CHECK_EVERY = 10  # rounds
SETTLED_S = 6.2  # behind a session of five clients come back at once, else ever later
WINDOWS_STORED = 256  # by ssdtf-sub after so many messages: as many may come twice if it is killed

g = d = rnd = None


def setup():
    global g, d, rnd
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    tap.note("SEED=%d" % seed)
    rnd = random.Random(seed)
    g = gateway.Gateway()
    g.limits = {"errors-per-second": 100000}
    g.scope("plant", "plant/#")
    for name in ("dev-0", "dev-1"):
        g.device(name, "plant")
    g.receiver("rx-direct", "plant", proof=True)
    g.receiver("rx-gone", "plant", proof=True)
    g.receiver("rx-group")
    g.enrol("manager", "mgr-1")
    d = gateway.Distributor(g, "dist-1")
    g.manager.admin("hop", "--scope", "plant", "--distributor", d.id)
    g.manager.admin("outlet", "add", "--name", "open", "--scope", "plant", "--distributor", d.id,
                    "--topic", "open")
    g.manager.admin("grant", "--outlet", "open", "--receiver", "rx-group")
    d.deliver()
    g.start()
    d.start_hsmd()
    d.start()
    tap.after_each(g.mend)


# --- what the manager has -----------------------------------------------------------------------

class State:
    """What an operation may change, as ssdtf-admin tells it."""

    def __init__(self):
        def rows(what):
            return [dict(w.split("=", 1) for w in line.split())
                    for line in g.manager.admin("list", what).splitlines()]

        scopes, grants = rows("scopes"), rows("grants")
        newest = max(scopes, key=lambda s: int(s["epoch"]))
        self.epoch, self.key_id = int(newest["epoch"]), int(newest["key_id"])
        self.epochs = len(scopes)
        self.all = {(x["key_id"], x["receiver"], x["kind"], x["grant"], x["stands"])
                    for x in grants}
        self.standing = sorted((x["receiver"], x["kind"]) for x in grants
                               if x["key_id"] == newest["key_id"] and x["stands"] == "yes")
        self.gone_reads = any(x["receiver"] == "rx-gone" for x in grants)

    def __eq__(self, other):
        return (self.epoch, self.key_id, self.all) == (other.epoch, other.key_id, other.all)

    def check(self):
        """Everybody who is to read the newest epoch does, and nobody an older one alone."""
        tap.equal(self.epochs, self.epoch, "epochs, one a key")
        want = [("dist-1", "hop"), ("dist-1", "outlet"), ("rx-direct", "reader"),
                ("rx-group", "behind-outlet")]
        if self.gone_reads:
            want.append(("rx-gone", "reader"))
        tap.equal(self.standing, sorted(want), "grants at the newest epoch")


class Operation:
    """One of those that change keys or grants, and the state that it is to lead to."""

    def __init__(self, n):
        self.before = State()
        if n % 3 == 0:
            self.words = ROTATE
        elif self.before.gone_reads:
            self.words = REVOKE
        else:
            self.words = ["grant", "--scope", "plant", "--receiver", "rx-gone", "--gateway", g.id]
        self.name = self.words[0]

    def is_done(self):
        """False: all is as it was. Something between is a failure."""
        now = State()
        now.check()
        if now == self.before:
            return False
        rotates = self.name == "rotate"
        tap.equal(now.epoch - self.before.epoch, int(rotates), "epochs more by " + self.name)
        tap.equal(now.gone_reads != self.before.gone_reads, not rotates, "grant by " + self.name)
        return True


def killed_in(words, typical_s):
    """Whether ssdtf-admin was: it may have been faster. Its words, if it was."""
    p = subprocess.Popen([gateway.program("admin"), "--dir", g.manager.dir, *words],
                         env=dict(os.environ, **g.manager.token.env),
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _, words_of_it = p.communicate(timeout=rnd.uniform(0, typical_s))
    except subprocess.TimeoutExpired:
        p.kill()
        _, words_of_it = p.communicate()
    tap.true(p.returncode in (0, -signal.SIGKILL), "%s: exit code %d: %s" % (
        " ".join(words), p.returncode, words_of_it))
    return p.returncode != 0


class Times:
    """How long each of the manager's commands takes, as measured the last time."""

    def __init__(self):
        self.took = {}

    def admin(self, name, words):
        began = time.monotonic()
        out = g.manager.admin(*words)
        self.took[name] = time.monotonic() - began
        return out


@tap.test
def manager_killed():
    "ssdtf-admin killed while it rotates, revokes and grants: old keys or new ones, all of them"
    times = Times()
    killed = done = 0
    for n in range(ADMIN_KILLS):
        op = Operation(n)
        if op.name not in times.took:
            times.admin(op.name, op.words)
        else:
            hit = killed_in(op.words, times.took[op.name])
            killed += hit
            changed = op.is_done()
            done += hit and changed
            tap.true(changed or hit, "it did what it ended well for")
    g.manager.admin("check")
    if not State().gone_reads:
        g.grant("rx-gone", "plant", True)
    tap.note("runs=%d killed=%d done_nevertheless=%d epochs=%d" % (ADMIN_KILLS, killed, done,
                                                                 State().epoch))
    tap.true(killed, "it was killed at all")


@tap.test
def bundle_killed():
    "ssdtf-admin killed while it writes the gateway's bundle: the old file or the new one"
    out = os.path.join(g.base, "killed.bundle")
    times = Times()
    words = ["bundle", "gateway", "--id", g.id, "--out", out]
    times.admin("bundle", words)
    serial = ssdtf.Statement(gateway.read(out)).serial
    for _ in range(tap.rounds(20)):
        hit = killed_in(words, times.took["bundle"])
        s = ssdtf.Statement(gateway.read(out))
        tap.true(s.serial > serial or hit and s.serial == serial,
                 "serial %d after %d" % (s.serial, serial))
        serial = s.serial


# --- senders and receivers ----------------------------------------------------------------------

class Sender(threading.Thread):
    """Lines for ssdtf-pub, numbered over all its lives."""

    def __init__(self, i):
        super().__init__(daemon=True)
        self.i, self.n = i, 0
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.lives = []
        self.begin()

    def begin(self):
        self.lives.append(Pub(g, "dev-%d" % self.i, "plant/dev-%d/life" % self.i, "-q", "1",
                              "--retry", "600"))

    def run(self):
        while not self.stopping.wait(LINE_S):
            with self.lock:
                self.lives[-1].line("%d.%d" % (self.i, self.n))
                self.n += 1

    def kill(self):
        with self.lock:
            self.lives[-1].kill()
            self.begin()

    def finish(self):
        self.stopping.set()
        self.join()
        pub = self.lives[-1]
        tap.equal(pub.finish(60), 0, "exit code of %s: %s" % (pub.name, pub.text()[-1000:]))

    def acknowledged(self):
        """The counters of what it was told is taken."""
        return {int(c) for pub in self.lives
                for c in re.findall(r"acknowledged: counter=(\d+)$", pub.text(), re.M)}


Message = collections.namedtuple("Message", "life sender number counter key_id")


class Receiver:
    """ssdtf-sub with a session that is kept, over all its lives."""

    def __init__(self, name, topic):
        self.name, self.topic = name, topic
        self.lives, self.read = [], 0
        self.messages = []
        self.kills = 0
        self.begin(True)

    def begin(self, wait):
        sub = Sub(g, self.name, self.topic, more=("-c", "--retry", "600"), wait=False)
        self.read = 0
        self.lives.append(sub)
        if wait:
            sub.wait_subscribed()

    def look(self):
        """What was printed since; a line that a kill cut off is none."""
        with open(self.lives[-1].out, "rb") as f:
            f.seek(self.read)
            data = f.read()
        end = data.rfind(b"\n") + 1
        self.read += end
        for line in data[:end].splitlines():
            m = json.loads(line)
            sender, number = m["payload"].split(".")
            self.messages.append(Message(len(self.lives), int(sender), int(number), m["counter"],
                                         m["key_id"]))
        return self.messages

    def kill(self):
        self.lives[-1].kill()
        self.look()
        self.kills += 1
        self.begin(False)

    def again(self):
        """Ended in good order, or by itself."""
        if self.lives[-1].alive():
            tap.equal(self.lives[-1].stop(), 0, "exit code of " + self.name)
        self.look()
        self.begin(True)

    def newer_than(self, at, numbers):
        """Has each sender's number, or one behind it, come since at?"""
        seen = collections.defaultdict(int)
        for m in self.look()[at:]:
            seen[m.sender] = max(seen[m.sender], m.number)
        return all(seen[i] >= n for i, n in enumerate(numbers))

    def highest(self):
        """Of each sender's, the highest number shown."""
        return [max((m.number for m in self.look() if m.sender == i), default=-1)
                for i in range(2)]

    def shown(self):
        return {(m.sender, m.counter) for m in self.look()}

    def check_once(self):
        """In one life nothing comes twice; behind a kill no more than the windows had not stored.
        By ascending counters each sender's. How often something came again."""
        seen, highest, again = {}, {}, 0
        for m in self.messages:
            key = m.sender, m.counter
            if key in seen:
                tap.true(seen[key] < m.life,
                         "%s shows counter %d of dev-%d twice" % (self.name, m.counter, m.sender))
                again += 1
            else:
                tap.true(m.counter > highest.get(m.sender, -1),
                         "%s: counter %d of dev-%d behind %d" % (
                             self.name, m.counter, m.sender, highest.get(m.sender, -1)))
                highest[m.sender] = m.counter
            seen[key] = m.life
        tap.true(again <= WINDOWS_STORED * self.kills, "%d came again" % again)
        return again

    def check_sealed_anew(self, acknowledged):
        """A broker delivers before it stores and acknowledges. If it is killed between the two, the
        sender sends again, and has to seal anew if the key or context is an old one by then. So a
        number may have several counters, of which one is acknowledged. How many do."""
        counters = collections.defaultdict(set)
        for m in self.messages:
            counters[m.sender, m.number].add(m.counter)
        several = {k: v for k, v in counters.items() if len(v) > 1}
        for (sender, number), v in several.items():
            tap.true(len(v & acknowledged[sender]) <= 1, "%s: counters %r of %d.%d were all "
                     "acknowledged" % (self.name, sorted(v), sender, number))
        return len(several)


# --- all of them --------------------------------------------------------------------------------

class Life:
    def __init__(self):
        self.senders = [Sender(0), Sender(1)]
        self.direct = Receiver("rx-direct", "plant/#")
        self.group = Receiver("rx-group", "open/#")
        self.gone = Receiver("rx-gone", "plant/#")
        self.times, self.round_s = Times(), 0.2 * tap.SCALE
        self.serial = ssdtf.Statement(gateway.read(g.bundle)).serial  # of the bundle in force
        self.found = []  # serials with which a killed broker came back
        self.broker_since = 0.0
        self.lock = threading.Lock()  # whoever signals a process, or kills it and starts another
        self.kills = collections.Counter()
        self.blind = []  # [sender] after and [sender] up to which rx-gone had no grant
        self.trouble = None
        self.deck = []
        self.victims = {
            "admin": None, "broker": self.kill_broker, "worker": lambda: g.kill_worker(
                rnd.randrange(g.workers)),
            "hsmd": self.kill_hsmd, "distributor": self.kill_distributor,
            "distributor's hsmd": self.kill_distributors_hsmd,
            "pub": self.senders[0].kill,  # the other one lives, and ends well
            "sub": lambda: rnd.choice((self.direct, self.group)).kill()}

    def numbers(self):
        return [s.n for s in self.senders]

    # whom it hits

    def next_victim(self):
        if not self.deck:
            self.deck = sorted([*self.victims, "admin", "sub"])
            rnd.shuffle(self.deck)
        return self.deck.pop()

    def kill_broker(self):
        g.broker.kill()
        g.start_broker()
        self.broker_since = time.monotonic()
        line = g.reload()  # it says which it has
        self.found.append(int(re.findall(r"serial[= ](\d+)", line)[-1]))

    @staticmethod
    def kill_hsmd():
        g.hsmd.kill()
        g.start_hsmd()

    @staticmethod
    def kill_distributor():
        d.process.kill()
        d.start()

    @staticmethod
    def kill_distributors_hsmd():
        d.hsmd.kill()
        d.start_hsmd()

    def harm(self, victim, delay_s):
        time.sleep(delay_s)
        try:
            with self.lock:
                self.victims[victim]()
                self.kills[victim] += 1
        except Exception as e:  # for finish_round()
            self.trouble = e

    # what the manager does

    def admin(self, name, words, done, kill):
        """The command, killed at some moment where it is to be, and then until it is done."""
        if kill == name and name in self.times.took:
            self.kills["admin"] += killed_in(words, self.times.took[name])
            if done():
                return
        self.times.admin(name, words)
        tap.true(done(), " ".join(words))

    def file_done(self, path):
        """Old or new it is whole; new?"""
        was = ssdtf.Statement(gateway.read(path)).serial
        return lambda: ssdtf.Statement(gateway.read(path)).serial > was

    def distributor_bundle(self, kill):
        self.admin("distributor", ["bundle", "distributor", "--id", d.id, "--out", d.bundle],
                   self.file_done(d.bundle), kill)
        serial = ssdtf.Statement(gateway.read(d.bundle)).serial

        def applied():
            with self.lock:
                line = d.reload()
            return "serial=%d" % serial in line or "was in force already" in line or \
                "unchanged" in line
        tap.eventually(applied, "the distributor works by %d" % serial, 20)

    def gateway_file(self, kill):
        self.admin("gateway", ["bundle", "gateway", "--id", g.id, "--out", g.bundle],
                   self.file_done(g.bundle), kill)
        serial = ssdtf.Statement(gateway.read(g.bundle)).serial

        def applied():
            with self.lock:
                line = g.reload()
            return "serial=%d" % serial in line or "one with serial %d was" % serial in line
        tap.eventually(applied, "the broker works by %d" % serial, 20)
        return serial

    def gateway_push(self, kill):
        host, port = g.address
        words = ["push", "--gateway", g.id, "--party-dir", g.path("mgr-1"), "-h", host, "-p",
                 str(port)]
        if kill == "gateway" and "push" in self.times.took:
            self.kills["admin"] += killed_in(words, self.times.took["push"])
        return int(re.search(r"serial=(\d+)", self.times.admin("push", words)).group(1))

    # a round

    def round(self, n):
        victim = self.next_victim()
        kill = rnd.choice(("operation", "distributor", "gateway")) if victim == "admin" else None
        if victim == "broker":
            tap.eventually(lambda: time.monotonic() > self.broker_since + SETTLED_S,
                           "sessions are settled", SETTLED_S + 1)
        op, began = Operation(n), time.monotonic()
        killer = None
        if victim != "admin":
            killer = threading.Thread(target=self.harm, daemon=True,
                                      args=(victim, rnd.uniform(0, self.round_s)))
            killer.start()
        published = self.direct.highest()
        self.admin(op.name, op.words, op.is_done, op.name if kill == "operation" else None)
        self.distributor_bundle(kill)
        serial = (self.gateway_file if n % 2 else self.gateway_push)(kill)
        if not killer:
            self.round_s = time.monotonic() - began
        else:
            killer.join()
        if self.trouble:
            raise self.trouble
        for found in self.found:
            tap.true(found in (self.serial, serial), "the broker came back with %d, neither %d nor "
                     "%d" % (found, self.serial, serial))
        self.found.clear()
        self.serial = serial
        self.settle(op, published)

    def settle(self, op, published):
        """What is sent from now on is by the newest key, and gets through to whom it is for."""
        state, numbers = State(), self.numbers()
        readers = [self.direct, self.group]
        if op.name == "revoke":
            self.blind.append((numbers, None))
        if op.name == "grant":
            self.blind[-1] = (self.blind[-1][0], published)
            # libssdtf has room for 64 grants. A bundle has those that stand.
            g.manager.admin("bundle", "party", "--id", "rx-gone", "--out",
                            os.path.join(g.path("rx-gone"), "bundle"))
            self.gone.again()
        if state.gone_reads:
            readers.append(self.gone)
        at = {r: len(r.look()) for r in readers}
        numbers = self.numbers()
        for r in readers:
            tap.eventually(lambda r=r: r.newer_than(at[r], [n + 1 for n in numbers]),
                           "%s gets what is sent by epoch %d" % (r.name, state.epoch), 40)
            tap.equal({m.key_id for m in r.messages[at[r]:] if m.number > numbers[m.sender]},
                      {state.key_id}, "key ids at " + r.name)

    # the end

    def check_gone(self):
        for m in self.gone.look():
            for start, end in self.blind:
                if m.number > start[m.sender] and (end is None or m.number <= end[m.sender]):
                    raise AssertionError("rx-gone opened %d.%d, with no grant from %r to %r" % (
                        m.sender, m.number, start, end))

    def missing(self, r):
        """(sender, counter) that were acknowledged and are not shown."""
        acked = {(s.i, c) for s in self.senders for c in s.acknowledged()}
        return acked - r.shown()

    def finish(self):
        """All that was acknowledged is shown; of the sender that was never killed, all lines."""
        for s in self.senders:
            s.finish()
        for r in (self.direct, self.group):
            self.all_there(r)
        whole = set(range(self.senders[1].n))
        for r in (self.direct, self.group):
            lost = whole - {m.number for m in r.messages if m.sender == 1}
            tap.true(len(lost) <= r.kills, "%s lacks %r" % (r.name, sorted(lost)))

    def all_there(self, r):
        """libmosquitto acknowledges a message before it hands it over: a receiver that is killed
        between the two has taken one that it has not printed."""
        allowed = r.kills
        try:
            tap.eventually(lambda: len(self.missing(r)) <= allowed, "all is there", 20)
        except AssertionError:
            raise AssertionError("%s: acknowledged and never shown: %r" % (
                r.name, sorted(self.missing(r))[:20])) from None


@tap.test
def all_killed():
    "each program killed under rotation and revocation: the old state or the new, nothing lost"
    life = Life()
    for s in life.senders:
        s.start()
    for n in range(KILLS):
        life.round(n)
        if n % CHECK_EVERY == CHECK_EVERY - 1:
            g.manager.admin("check")
    life.finish()
    life.check_gone()
    receivers = life.direct, life.group, life.gone
    again = [r.check_once() for r in receivers]
    acknowledged = [s.acknowledged() for s in life.senders]
    several = [r.check_sealed_anew(acknowledged) for r in receivers]
    g.manager.admin("check")
    g.manager.admin("audit", "verify")
    tap.note("kills=%d: %s" % (sum(life.kills.values()), ", ".join(
        "%s %d" % pair for pair in sorted(life.kills.items()))))
    tap.note("epochs=%d revocations=%d lines=%r acknowledged=%r" % (
        State().epoch, len(life.blind), life.numbers(), [len(a) for a in acknowledged]))
    tap.note("shown=%r again=%r sealed_anew_and_shown_twice=%r unprinted=%r" % (
        [len(r.messages) for r in receivers], again, several,
        [len(life.missing(r)) for r in receivers[:2]]))


all_killed.seconds = 240
tap.full_effort_only("a hundred kills")
tap.main(setup)
