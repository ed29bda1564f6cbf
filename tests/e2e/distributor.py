#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""The distribution server with the real programs (PROTOCOL 12): device, broker, distributor, the
same broker, receivers. Who sends is not seen behind it, nothing is lost or out of order whatever is
killed, and it can open nothing."""

import json
import os
import random
import re
import signal
import threading
import time

import gateway
import mqtt
import ssdtf
import tap
from clients import Sub, pub_ok

KILLS = int(os.environ.get("KILLS", tap.rounds(4)))
SENDERS = 3

g = d = rnd = None


def admin(*args):
    return g.manager.admin(*args)


def setup():
    global g, d, rnd
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    tap.note("SEED=%d" % seed)
    rnd = random.Random(seed)
    g = gateway.Gateway()
    g.limits = {"errors-per-second": 100000}
    g.scope("plant", "plant/#")
    for i in range(SENDERS):
        g.device("py-%d" % i, "plant")
    g.device("dev-1", "plant")
    for name in ("rx-a", "rx-b", "rx-acme", "rx-turn", "rx-late"):
        g.receiver(name)
    g.receiver("rx-inside", "plant", proof=True)
    d = gateway.Distributor(g, "dist-1")
    admin("hop", "--scope", "plant", "--distributor", "dist-1")
    outlet("weather", "open/weather")
    outlet("acme", "acme", "--receiver", "rx-acme")
    outlet("turn", "turn", "--receiver", "rx-turn", "--rotate-seconds", "2")
    for name in ("rx-a", "rx-b"):
        admin("grant", "--outlet", "weather", "--receiver", name)
    d.deliver()
    g.start()
    d.start_hsmd()
    d.start()
    tap.after_each(mend)


def outlet(name, topic, *options):
    admin("outlet", "add", "--name", name, "--scope", "plant", "--distributor", "dist-1",
          "--topic", topic, *options)


def mend():
    g.mend()
    if not d.hsmd.alive():
        d.hsmd.kill()
        d.start_hsmd()
    if not d.process.alive():
        d.process.kill()
        d.start()


def is_external(name):
    return re.fullmatch(r"[0-9a-f]{32}", name) is not None


# --- what comes out -----------------------------------------------------------------------------

@tap.test
def all_the_way():
    "a reading reaches a group's receivers and a single one, under other names and topics"
    subs = {name: Sub(g, name, topic + "/#") for name, topic in
            (("rx-a", "open/weather"), ("rx-b", "open/weather"), ("rx-acme", "acme"))}
    texts = ["reading %d" % i for i in range(20)]
    pub_ok(g, "dev-1", "plant/dev-1/temp", "-q", "1", "-l", stdin="".join(t + "\n" for t in texts))
    names = {}
    for name, sub in subs.items():
        got = sub.wait_messages(len(texts))
        tap.equal(sub.texts(), texts, "texts of %s, in order" % name)
        origins = {m["origin"] for m in got}
        tap.equal(len(origins), 1, "names of one sender")
        names[name] = origins.pop()
        tap.true(is_external(names[name]), "an external id: " + names[name])
        top = "acme" if name == "rx-acme" else "open/weather"
        tap.equal({m["topic"] for m in got}, {"%s/plant/%s/temp" % (top, names[name])}, "topics")
        tap.equal({m["level"] for m in got}, {2 if name == "rx-acme" else 3}, "level")
        tap.true("dev-1" not in json.dumps(got), "the sender's own id is nowhere")
        tap.equal(sub.stop(), 0, "exit code")
    tap.equal(names["rx-a"], names["rx-b"], "one group, one name")
    tap.true(names["rx-a"] != names["rx-acme"], "two consumers cannot link a sender")
    tap.eventually(lambda: d.counters()["acknowledged_upstream"] >= len(texts), "all acknowledged")
    tap.true(d.counters()["conversions"] < len(texts), "one conversion for many")


@tap.test
def to_nobody_else():
    "who holds no grant behind an outlet gets nothing of it, and a direct one's is for one alone"
    a = Sub(g, "rx-a", "#")
    late = Sub(g, "rx-late", "#")
    acme = Sub(g, "rx-acme", "#")
    pub_ok(g, "dev-1", "plant/x", "-q", "1", "-m", "only for some")
    a.wait_text_message("only for some")
    acme.wait_text_message("only for some")
    time.sleep(0.3)
    tap.equal([len(s.messages()) for s in (a, acme, late)], [1, 1, 0], "messages")
    for s in (a, acme, late):
        s.stop()


@tap.test
def qos_and_retain():
    "QoS 0 stays QoS 0, and RETAIN is the sender's: late receivers find it, empty clears it"
    a = Sub(g, "rx-a", "open/weather/#")
    pub_ok(g, "dev-1", "plant/q", "-q", "0", "-m", "zero")
    tap.equal(a.wait_text_message("zero")["qos"], 0, "QoS")
    pub_ok(g, "dev-1", "plant/kept", "-q", "1", "-r", "-m", "kept")
    a.wait_text_message("kept")
    b = Sub(g, "rx-b", "open/weather/plant/kept")
    tap.equal(b.wait_text_message("kept")["retain"], True, "RETAIN")
    b.stop()
    pub_ok(g, "dev-1", "plant/kept", "-q", "1", "-r", "-n")
    a.wait_messages(3)
    b = Sub(g, "rx-b", "open/weather/plant/kept", "open/weather/plant/end")
    pub_ok(g, "dev-1", "plant/end", "-q", "1", "-m", "end")
    b.wait_text_message("end")
    tap.equal(b.texts(), ["end"], "nothing is retained any more")
    a.stop()
    b.stop()


@tap.test
def names_turn():
    "external ids of an outlet that rotates change with its time; the others stay"
    turn, a = Sub(g, "rx-turn", "turn/#"), Sub(g, "rx-a", "open/weather/#")
    for i in range(2):
        pub_ok(g, "dev-1", "plant/dev-1/turn", "-q", "1", "-m", "turn %d" % i)
        turn.wait_text_message("turn %d" % i)
        if not i:
            time.sleep(2.1)
    first, second = [m["origin"] for m in turn.messages()]
    tap.true(is_external(first) and is_external(second) and first != second,
             "another name: %s, %s" % (first, second))
    tap.equal(len({m["origin"] for m in a.wait_messages(2)}), 1, "names at the outlet that stays")
    turn.stop()
    a.stop()


@tap.test
def refused_and_reported():
    "a topic that names its sender in another way is not published, and the manager hears of it"
    g.enrol("manager", "boss")
    g.update()
    with mqtt.Session(g.address, g.party("boss")) as boss:
        a = Sub(g, "rx-a", "open/weather/#")
        pub_ok(g, "dev-1", "plant/log-dev-1", "-q", "1", "-m", "betrayed")
        pub_ok(g, "dev-1", "plant/fine", "-q", "1", "-m", "fine")
        a.wait_text_message("fine")
        tap.equal(a.texts(), ["fine"], "what was published")
        report = boss.wait_for(lambda: next((p for p in boss.others if p.type == mqtt.PUBLISH
                                             and p.topic == ssdtf.REPORT), None), "the report")
        tap.true(b"dist-1" in report.payload and b"dev-1" in report.payload
                 and b"names the sender" in report.payload, "who, whom and why")
        a.stop()


# --- what it holds ------------------------------------------------------------------------------

@tap.test
def opens_nothing():
    "nothing of what it holds or sees opens a message; its table names nobody"
    with mqtt.Session(g.address, g.party("rx-inside")) as s:
        s.subscribe("plant/secret")
        pub_ok(g, "dev-1", "plant/secret", "-q", "1", "-m", "top secret")
        e = s.wait_deliveries(1)[0].opened.envelope
    bundle = gateway.read(d.bundle)
    key = g.party("dev-1").scope("plant").key
    tried = rnd.sample([bundle[i:i + 32] for i in range(len(bundle) - 31)], 150) + [e.x]
    for x in tried:
        hpke = ssdtf.Hpke(e.suite, x, ssdtf.point_bytes(e.e), key)
        tap.true(hpke.commit != e.commit, "no 32 bytes that it has are the shared secret")
    state = b"".join(gateway.read(os.path.join(d.state_dir, f)) for f in os.listdir(d.state_dir))
    for word in (b"dev-1", b"py-0", b"top secret"):
        tap.true(word not in state, "%r is not in its state" % word)
    for name in os.listdir(d.state_dir):
        mode = os.stat(os.path.join(d.state_dir, name)).st_mode & 0o777
        tap.equal(mode & 0o077, 0, "mode of %s: %o" % (name, mode))


@tap.test
def table():
    "an external id has its row, with a sealed entry and its time, and the manager traces it"
    a = Sub(g, "rx-a", "open/weather/#")
    pub_ok(g, "dev-1", "plant/row", "-q", "1", "-m", "row")
    origin = a.wait_text_message("row")["origin"]
    a.stop()
    rows = {external.hex(): (lookup, trace, start, end)
            for lookup, external, trace, start, end in d.rows()}
    lookup, trace, start, end = rows[origin]
    tap.equal((len(lookup), trace[0], start, end), (32, 4, 0, 0), "the row of a name that stays")
    tap.true(any(end - start == 2000 for _, _, start, end in rows.values()), "one that rotates")
    told = admin("trace", origin, "--table", os.path.join(d.state_dir, "distributor.db"),
                 "--reason", "a test asks")
    tap.true("dev-1" in told, "the manager traces it: " + told)


@tap.test
def anonymity():
    "the report says how many senders share a view, by outlet and topic with + for the sender"
    a = Sub(g, "rx-a", "open/weather/#")
    for name in ["py-%d" % i for i in range(SENDERS)]:
        pub_ok(g, name, "plant/%s/anonymous" % name, "-q", "1", "-m", "x")
    a.wait_messages(SENDERS)
    a.stop()

    def look():
        report = json.loads(gateway.must(d.command("anonymity", "--json")))
        views = {v["topic"]: v for o in report["outlets"] for v in o["views"]
                 if o["outlet"] == "weather"}
        v = views.get("open/weather/plant/+/anonymous")
        return v if v and v["s"] == SENDERS else None
    tap.eventually(look, "three senders share a view")
    text = gateway.must(d.command("anonymity"))
    tap.true("outlet weather: s = 1" in text, "the smallest s of an outlet: " + text)


# --- bundles ------------------------------------------------------------------------------------

@tap.test
def another_bundle():
    "SIGHUP takes a newer bundle; an outlet taken away publishes no more; an older one is refused"
    old = gateway.read(d.bundle)
    outlet("brief", "brief", "--receiver", "rx-late")
    d.deliver()
    g.update()
    tap.true("in-force" in d.reload(), "taken")
    late = Sub(g, "rx-late", "brief/#")
    pub_ok(g, "dev-1", "plant/b", "-q", "1", "-m", "while it was there")
    late.wait_text_message("while it was there")
    admin("revoke", "outlet", "brief")
    d.deliver()
    tap.true("in-force" in d.reload(), "taken")
    a = Sub(g, "rx-a", "open/weather/#")
    pub_ok(g, "dev-1", "plant/b", "-q", "1", "-m", "afterwards")
    a.wait_text_message("afterwards")
    tap.equal(late.texts(), ["while it was there"], "what the revoked outlet published")
    g.update()
    gateway.write(d.bundle, old)
    tap.true("was in force already" in d.reload(), "the older one is refused")
    d.process.stop()
    r = d.command("run")
    tap.equal(r.returncode, 65, "exit code with an old bundle: " + r.stderr)
    d.deliver()
    d.start()
    a.stop()
    late.stop()


@tap.test
def new_epoch():
    "a scope's new key goes through, under the same name: bundles come against the stream"
    subs = [Sub(g, "rx-a", "open/weather/#"), Sub(g, "rx-acme", "acme/#")]
    pub_ok(g, "dev-1", "plant/e", "-q", "1", "-m", "by the old key")
    for s in subs:
        s.wait_text_message("by the old key")
    admin("rotate", "scope", "--name", "plant")
    d.deliver()
    tap.true("in-force" in d.reload(), "taken")
    pub_ok(g, "dev-1", "plant/e", "-q", "1", "-m", "by the old key still")
    g.update()
    pub_ok(g, "dev-1", "plant/e", "-q", "1", "-m", "by the new key")
    for s in subs:
        s.wait_text_message("by the new key")
        tap.equal(s.texts(), ["by the old key", "by the old key still", "by the new key"], "texts")
        tap.equal(len({m["origin"] for m in s.messages()}), 1, "names")
        s.stop()


@tap.test
def refusals():
    "bad configurations and bundles are refused with a line that says where"
    def refused(code, words, *args):
        r = d.command(*(args or ("check-config",)))
        tap.equal(r.returncode, code, "exit code: " + r.stderr)
        tap.true(words in r.stderr, "%r in %r" % (words, r.stderr))

    good = gateway.read(d.config).decode()
    tap.true("outlet weather" in gateway.must(d.command("check-config")), "what the bundle holds")
    for text, words in (
            (good + "stat-dir = \"x\"\n", "did you mean 'state-dir'"),
            (good.replace("upstream", "window = 3\nupstream"), "inside of limits"),
            (good.replace("upstream", "#"), "'upstream' is missing"),
            (good.replace('upstream = "', 'upstream = "nowhere.example:'), "not a broker's"),
            (good + "limits {\nwindow = 7\n}\n", "'limits' stands twice"),
            (good.replace("limits {", "limits {\nwindow = 1000\n"), "from 1 to 128")):
        gateway.write(d.config, text)
        refused(78, words)
    gateway.write(d.config, good)
    bundle = gateway.read(d.bundle)
    gateway.write(d.bundle, bundle, 0o644)
    refused(77, "chmod 600")
    gateway.write(d.bundle, bundle[:-1] + bytes([bundle[-1] ^ 1]))
    refused(65, "signed by this manager")
    gateway.write(d.bundle, bundle)
    refused(75, "in use by another distributor", "run")
    tap.equal(d.command("check-config", "--json").returncode, 64, "usage")


# --- whatever is killed -------------------------------------------------------------------------

class Sender(threading.Thread):
    """Publishes numbers at QoS 1 until told to stop; through broken connections, too."""

    def __init__(self, i):
        super().__init__(daemon=True)
        self.party = g.party("py-%d" % i)
        self.topic = "plant/py-%d/load" % i
        self.stop, self.n, self.trouble = False, 0, None
        self.waiting = []  # (number, payload) in order, not acknowledged

    def run(self):
        try:
            while not self.stop or self.waiting:
                try:
                    self.session()
                except (OSError, mqtt.Closed, mqtt.Silence):
                    time.sleep(0.1)
        except Exception as e:
            self.trouble = e

    def session(self):
        with mqtt.Session(g.address, self.party) as s:
            ids = {s.publish(self.topic, payload, 1, dup=True): n for n, payload in self.waiting}
            while not self.stop or self.waiting:
                if not self.stop and len(self.waiting) < 20:
                    payload = self.party.sealed("plant", self.topic, b"%d" % self.n, 1)
                    self.waiting.append((self.n, payload))
                    self.n += 1
                    ids[s.publish(self.topic, payload, 1)] = self.n - 1
                    time.sleep(0.002 * tap.SCALE)
                try:
                    s.sort(s.receive(0.001 if len(self.waiting) < 20 else 1))
                except mqtt.Silence:
                    pass
                for packet_id in s.acked:
                    if packet_id in ids:
                        n = ids.pop(packet_id)
                        self.waiting = [w for w in self.waiting if w[0] != n]
                s.acked.clear()


def under_load(harm):
    """Three senders, two receivers that stay; what was acknowledged arrives, once and in order."""
    receivers = [Sub(g, "rx-a", "open/weather/plant/+/load", more=("-c",)),
                 Sub(g, "rx-acme", "acme/plant/+/load", more=("-c",))]
    senders = [Sender(i) for i in range(SENDERS)]
    for s in senders:
        s.start()
    for _ in range(KILLS):
        time.sleep(rnd.uniform(0.05, 0.3) * tap.SCALE)
        harm()
    time.sleep(0.2)
    for s in senders:
        s.stop = True
    for s in senders:
        s.join(60 * tap.SCALE)
        if s.trouble:
            raise s.trouble
        tap.true(not s.is_alive(), "all was acknowledged")
    total = sum(s.n for s in senders)
    tap.note("%d messages" % total)
    for r in receivers:
        r.wait_messages(total, 60)
        by_origin = {}
        for m in r.messages():
            by_origin.setdefault(m["origin"], []).append(int(m["payload"]))
        tap.equal(len(by_origin), SENDERS, "names")
        tap.equal(sorted(len(v) for v in by_origin.values()), sorted(s.n for s in senders),
                  "messages of each sender")
        for numbers in by_origin.values():
            tap.equal(numbers, list(range(len(numbers))), "each once, in order")
        r.stop()


@tap.test
def distributor_killed():
    "kill -9 of the distributor under load: nothing is lost, each sender's order holds"
    def harm():
        d.process.kill()
        d.start(wait=False)
    under_load(harm)


@tap.test
def hsmd_killed():
    "kill -9 of its key processes under load: the same"
    def harm():
        for i in range(2):
            try:
                with open(os.path.join(d.run_dir, "hsmd.%d.pid" % i), encoding="ascii") as f:
                    os.kill(int(f.read()), signal.SIGKILL)
            except (OSError, ValueError):
                pass
    under_load(harm)


@tap.test
def broker_killed():
    "kill -9 of the broker under load: the same"
    def harm():
        g.broker.kill()
        g.start_broker()
    under_load(harm)


@tap.test
def another_broker():
    "it publishes at another gateway's broker, and holds on to what that one does not take"
    h = gateway.Gateway(g.manager, "gw-2", workers=1)
    other = gateway.Distributor(g, "dist-2", downstream=h)
    admin("hop", "--scope", "plant", "--distributor", "dist-2", "--gateway", g.id)
    h.enrol("receiver", "rx-far")
    admin("outlet", "add", "--name", "far", "--scope", "plant", "--distributor", "dist-2",
          "--topic", "far", "--gateway", "gw-2", "--receiver", "rx-far")
    try:
        h.start()
        g.update()
        other.deliver()
        other.start_hsmd()
        other.start()
        far = Sub(h, "rx-far", "far/#", more=("-c",))
        pub_ok(g, "dev-1", "plant/dev-1/far", "-q", "1", "-m", "one")
        m = far.wait_text_message("one")
        tap.true(is_external(m["origin"]) and m["level"] == 2, "name and level")
        tap.equal(far.stop(), 0, "exit code")
        h.broker.kill()
        texts = ["while it was away %d" % i for i in range(50)]
        pub_ok(g, "dev-1", "plant/dev-1/far", "-q", "1", "-l",
               stdin="".join(t + "\n" for t in texts))
        h.start_broker()
        far = Sub(h, "rx-far", "far/#", more=("-c",))
        far.wait_messages(50, 60)
        tap.equal(far.texts(), texts, "texts, in order")
        far.stop()
        tap.equal(other.process.stop(), 0, "exit code")
        tap.equal(other.hsmd.stop(), 0, "exit code of its hsmd")
    finally:
        h.stop()


@tap.test
def ends_in_good_order():
    "SIGTERM ends it at once, with exit code 0, and it goes on where it was"
    a = Sub(g, "rx-a", "open/weather/#")
    pub_ok(g, "dev-1", "plant/o", "-q", "1", "-m", "before")
    a.wait_text_message("before")
    tap.equal(d.process.stop(), 0, "exit code")
    pub_ok(g, "dev-1", "plant/o", "-q", "1", "-m", "meanwhile")
    d.start()
    a.wait_text_message("meanwhile")
    tap.equal(a.texts(), ["before", "meanwhile"], "texts")
    a.stop()


tap.main(setup)
