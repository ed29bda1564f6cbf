#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""The broker is killed with SIGKILL at random moments under load, and started again on what it
left on disk. PROTOCOL 4: a counter is taken once, and acknowledged when that is stored. PROTOCOL 2:
a context that was retired stays so."""

import os
import random
import threading
import time

import gateway
import mqtt
import ssdtf
import tap
from clients import Pub, Sub

CRASHES = int(os.environ.get("CRASHES", tap.rounds(10)))
SENDERS = 4
IN_FLIGHT = 60  # below the 128 of a replay window, with what is sent again behind it

g = None
rnd = None


def setup():
    global g, rnd
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    tap.note("SEED=%d" % seed)
    rnd = random.Random(seed)
    g = gateway.Gateway()
    g.limits = {"errors-per-second": 100000}
    g.scope("plant", "plant/#")
    for i in range(SENDERS):
        g.device("py-%d" % i, "plant")
        g.device("dev-%d" % i, "plant")
    for name in ("rx-1", "rx-2", "rx-3", "rx-4", "rx-real"):
        g.receiver(name, "plant")
    g.start()
    tap.after_each(g.mend)


def crash():
    g.broker.kill()
    g.start_broker()


# --- counters -----------------------------------------------------------------------------------

class Sender(threading.Thread):
    """Publishes QoS 1 or 2 as fast as IN_FLIGHT allows, until the broker is gone. It keeps the
    bytes of everything, as an eavesdropper could."""

    def __init__(self, i):
        super().__init__(daemon=True)
        self.topic = "plant/crash/%d" % i
        self.party, self.qos = g.party("py-%d" % i), 1 + i % 2
        self.sent, self.acked = {}, set()  # counter: payload; counters
        self.trouble = None

    def run(self):
        try:
            self.publish()
        except mqtt.Closed:
            pass
        except Exception as e:
            self.trouble = e

    def publish(self):
        with mqtt.Session(g.address, self.party) as s:
            self.counter_of = {}
            while True:
                while len(self.counter_of) < IN_FLIGHT:
                    payload = self.party.sealed("plant", self.topic, b"x", self.qos)
                    counter = self.party.counter
                    self.sent[counter] = payload
                    self.counter_of[s.publish(self.topic, payload, self.qos)] = counter
                before = len(s.acked)
                try:
                    s.wait_for(lambda: len(s.acked) > before, "PUBACK")
                finally:  # what came before the end counts too
                    for packet_id in s.acked[before:]:
                        self.acked.add(self.counter_of.pop(packet_id))
                tap.equal(s.errors, [], "errors")

    def again(self, s, counters):
        """The same bytes once more, all of which are acknowledged."""
        ids = [s.publish(self.topic, self.sent[c], self.qos, dup=True) for c in counters]
        s.wait_for(lambda: set(ids) <= set(s.acked), "PUBACK for each")

    def replay(self, receiver):
        """After the restart: all acknowledged bytes of the window once more, then what was not
        acknowledged. Returns the counters of these."""
        highest_acked = max(self.acked, default=0)
        with mqtt.Session(g.address, self.party) as s:
            tap.true(s.highest >= highest_acked, "%s: the broker knows counters up to %d, and has "
                     "acknowledged %d" % (self.party.id, s.highest, highest_acked))
            known = sorted(c for c in self.acked if c > s.highest - 128)
            below = sorted(c for c in self.acked if c < s.highest - 128)[-20:]
            self.again(s, known)
            tap.equal(s.errors, [], "errors for what was acknowledged")
            self.again(s, below)
            tap.equal([e.reason for e in s.errors], [ssdtf.REPLAYED] * len(below),
                      "reasons below the window")
            receiver.settle()
            mine = [d.counter for d in receiver.deliveries if d.origin == self.party.id]
            tap.equal(mine, [], "deliveries of replayed bytes")
            unacked = sorted(set(self.sent) - self.acked)
            self.again(s, unacked)
            tap.equal(len(s.errors), len(below), "errors for what was sent again")
        return unacked, s.highest


def one_crash(senders, counts):
    live = mqtt.Session(g.address, g.party("rx-1"))
    live.subscribe("plant/crash/#", qos=2)
    for s in senders:
        s.start()
    took = rnd.uniform(0.05, 0.6) * tap.SCALE
    end = time.monotonic() + took
    while time.monotonic() < end:
        try:
            live.sort(live.receive(0.02))
        except mqtt.Silence:
            pass
    g.broker.kill()
    for s in senders:
        s.join(20)
        if s.trouble:
            raise s.trouble
    try:
        live.quiet(0.1)
    except mqtt.Closed:
        pass
    live.close()
    before = {(d.origin, d.counter) for d in live.deliveries}
    tap.equal(len(before), len(live.deliveries), "deliveries before the crash: none twice")
    g.start_broker()
    with mqtt.Session(g.address, g.party("rx-1")) as receiver:
        receiver.subscribe("plant/crash/#")
        sent_again = {}
        for s in senders:
            sent_again[s.party.id] = s.replay(receiver)
        receiver.settle()
        receiver.quiet(0.1)
        got = [(d.origin, d.counter) for d in receiver.deliveries]
        tap.equal(len(got), len(set(got)), "deliveries after the crash: none twice")
        for name, (unacked, highest) in sent_again.items():
            mine = [c for o, c in got if o == name]
            tap.true(set(mine) <= set(unacked), "only what was never acknowledged comes anew")
            # What the broker had not stored is taken; what it had is acknowledged only.
            missing = [c for c in unacked if c > highest and c not in mine]
            tap.equal(missing, [], "%s: sent again and not delivered" % name)
            counts["again"] += len(unacked)
    counts["sent"] += sum(len(s.sent) for s in senders)
    counts["acked"] += sum(len(s.acked) for s in senders)  # before the crash
    counts["repeated"] += len(before & set(got))


@tap.test
def counters():
    "no counter is accepted twice over crashes; what was acknowledged is known, the rest is taken"
    counts = dict.fromkeys(("sent", "acked", "again", "repeated"), 0)
    for i in range(CRASHES):
        one_crash([Sender(n) for n in range(SENDERS)], counts)
    tap.note("crashes=%d sent=%d acknowledged=%d sent_again=%d delivered_before_and_after=%d" % (
        CRASHES, counts["sent"], counts["acked"], counts["again"], counts["repeated"]))
    tap.true(counts["sent"] > 20 * CRASHES, "there was load")


@tap.test
def programs():
    "ssdtf-pub sends again what was not acknowledged, ssdtf-sub comes back, nothing is shown twice"
    sub = Sub(g, "rx-real", "plant/programs/#")
    pubs = [Pub(g, "dev-%d" % i, "plant/programs/%d" % i, "-q", "1") for i in range(SENDERS)]
    for p in pubs:
        p.wait_open()
    n, crashes = 0, 0
    for crashes in range(1, 4):
        end = time.monotonic() + rnd.uniform(0.1, 0.5)
        while time.monotonic() < end:
            for i, p in enumerate(pubs):
                p.line("%d.%d" % (i, n))
            n += 1
            time.sleep(0.002)
        crash()
        sub.wait_subscribed(crashes + 1)
        for p in pubs:
            p.wait_open(crashes + 1)
    for i, p in enumerate(pubs):
        p.line("%d.end" % i)
        tap.equal(p.finish(), 0, "exit code of %s: %s" % (p.name, p.text()[-500:]))
        sub.wait_text_message("%d.end" % i)
    texts = sub.texts()
    tap.equal(len(texts), len(set(texts)), "nothing is shown twice")
    seen = {}
    for m in sub.messages():
        key = m["origin"], m["counter"]
        tap.true(key not in seen, "counter %d of %s stands for %r and %r" % (
            m["counter"], m["origin"], seen.get(key), m["payload"]))
        seen[key] = m["payload"]
    tap.note("sent=%d shown=%d" % (n * SENDERS + SENDERS, len(texts)))
    tap.true(len(texts) > SENDERS, "messages were shown")


# --- retired contexts ---------------------------------------------------------------------------

def published(d, text, want=0):
    """Publishes on the scope's context; want: the reason of the error, or 0."""
    packet_id = d.seal_and_publish("plant", "plant/retired", text)
    if want:
        tap.equal(d.wait_error().reason, want, "reason for %r" % text)
    d.wait_acked(packet_id)
    if not want:
        tap.equal(d.errors[d.seen_errors:], [], "errors for %r" % text)


def revoke(receiver):
    g.manager.admin("revoke", "grant", "--scope", "plant", "--receiver", receiver)
    g.deliver()


@tap.test
def retired_before():
    "a context retired before the crash is refused after it, and a new one is taken"
    party = g.party("py-0")
    with mqtt.Session(g.address, party) as d:
        published(d, b"fine")
        revoke("rx-2")
        tap.true("event=bundle" in g.reload(), "the bundle is taken")
        published(d, b"retired", ssdtf.RETIRED)
    for _ in range(2):
        crash()
        with mqtt.Session(g.address, party) as d:
            published(d, b"still retired", ssdtf.RETIRED)
    party.contexts.clear()
    with mqtt.Session(g.address, party) as d:
        published(d, b"a new context")
    crash()
    with mqtt.Session(g.address, party) as d:
        published(d, b"the new context again")


@tap.test
def retired_by_restart():
    "a context seen before the crash is retired by a bundle that the broker finds when it starts"
    party = g.party("py-1")
    with mqtt.Session(g.address, party) as d:
        published(d, b"fine")
    g.broker.kill()
    revoke("rx-3")
    g.start_broker()
    with mqtt.Session(g.address, party) as d:
        published(d, b"retired", ssdtf.RETIRED)
        party.contexts.clear()
        published(d, b"a new context")


@tap.test
def crash_while_revoking():
    "a crash right behind SIGHUP leaves the old bundle or the new one, and the context retired"
    party = g.party("py-2")
    with mqtt.Session(g.address, party) as d:
        published(d, b"fine")
        revoke("rx-4")
        g.broker.signal(1)
        time.sleep(rnd.uniform(0, 0.01))
        g.broker.kill()
    g.start_broker()
    with mqtt.Session(g.address, party) as d:
        published(d, b"retired", ssdtf.RETIRED)


@tap.test
def hard_end():
    "after all crashes the state is whole: the broker starts, works and ends in good order"
    crash()
    with mqtt.Session(g.address, g.party("rx-1")) as r, \
            mqtt.Session(g.address, g.party("py-3")) as d:
        r.subscribe("plant/end")
        d.wait_acked(d.seal_and_publish("plant", "plant/end", b"end"))
        tap.equal(r.wait_deliveries(1)[0].plaintext, b"end", "delivery")
    g.stop()


counters.seconds = 120
tap.main(setup)
