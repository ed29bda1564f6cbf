#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""100 publishers and 100 receivers, all real programs, while key processes are killed.

Ten groups: each device publishes QoS 1 on plant/GROUP/DEVICE, and each receiver, with a clean
session, subscribes to its group, so every message is meant for ten receivers. A worker of
ssdtf-hsmd is killed with SIGKILL every 2 s, and every fifth time ssdtf-hsmd itself, which the test
starts again. In the end every receiver must have had each message of its group exactly once, and
those of each sender in order.

SOAK_SECONDS (15) is how long it goes on; SOAK_PAIRS (100), SOAK_RATE (2 messages a second and
device) make it smaller or harder, and SOAK_REKEY (5 messages) is how long a context lives: each new
one is ten conversions."""

import os
import random
import re
import time

import gateway
import tap
from clients import Pub, Sub

SECONDS = int(os.environ.get("SOAK_SECONDS", "15"))
PAIRS = int(os.environ.get("SOAK_PAIRS", tap.rounds(100)))
RATE = float(os.environ.get("SOAK_RATE", "2"))
REKEY = int(os.environ.get("SOAK_REKEY", "5"))
KILL_EVERY_S = 2.0
HSMD_EVERY_KILLS = 5
GROUP = 10

g = None


class Soak:
    def __init__(self):
        self.subs = [Sub(g, "rx-%d" % i, "plant/%d/#" % (i // GROUP), wait=False)
                     for i in range(PAIRS)]
        self.pubs = [Pub(g, "dev-%d" % i, "plant/%d/%d" % (i // GROUP, i), "-q", "1")
                     for i in range(PAIRS)]
        self.sent = [0] * PAIRS
        self.kills = {"worker": 0, "hsmd": 0}
        self.random = random.Random()
        for p in self.subs:
            p.wait_text(r"\bsubscribed$", seconds=60)
        for p in self.pubs:
            p.wait_text(r"mutual authentication passed", seconds=60)

    def kill(self):
        if sum(self.kills.values()) % HSMD_EVERY_KILLS == HSMD_EVERY_KILLS - 1:
            g.hsmd.kill()
            g.start_hsmd()
            self.kills["hsmd"] += 1
        elif g.kill_worker(self.random.randrange(g.workers)):
            self.kills["worker"] += 1

    def publish(self):
        """Until SECONDS are over: the devices in turn, evenly."""
        start = time.monotonic()
        next_kill, next_line, i = start + KILL_EVERY_S / 2, start, 0
        while time.monotonic() < start + SECONDS:
            now = time.monotonic()
            while next_line <= now:
                self.pubs[i].line("%d.%d" % (i, self.sent[i]))
                self.sent[i] += 1
                i = (i + 1) % PAIRS
                next_line += 1 / (RATE * PAIRS)
            if now >= next_kill:
                self.kill()
                next_kill += KILL_EVERY_S
            time.sleep(0.005)

    def finish(self):
        """How many messages are acknowledged: all of a publisher's whose exit code is 0."""
        for p in self.pubs:
            p.popen.stdin.close()
        self.acknowledged = sum(self.sent)
        for p in self.pubs:
            if p.wait(60):
                left = re.search(r"(\d+) messages? unacknowledged", p.text())
                tap.note("%s: %s" % (p.name, p.text()[-500:]))
                self.acknowledged -= int(left.group(1)) if left else 0

    def meant_for(self, receiver):
        group = receiver // GROUP
        return {"%d.%d" % (d, n) for d in range(group * GROUP, min(group * GROUP + GROUP, PAIRS))
                for n in range(self.sent[d])}

    def wait_quiet(self):
        """Until every receiver has what is meant for it, or for 20 s nothing more comes."""
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < 20 * tap.SCALE:
            have = [os.path.getsize(s.out) for s in self.subs]
            if sum(have) != seen:
                seen, since = sum(have), time.monotonic()
            elif all(len(s.texts()) >= len(self.meant_for(i)) for i, s in enumerate(self.subs)):
                return
            time.sleep(0.5)

    def judge(self):
        """(delivered, lost, duplicated, disordered, reconnects): what the receivers saw."""
        delivered = lost = duplicated = disordered = reconnects = 0
        for i, sub in enumerate(self.subs):
            texts, want = sub.texts(), self.meant_for(i)
            delivered += len(texts)
            lost += len(want - set(texts))
            # Twice in the output, or again on the wire, which ssdtf-sub ignores by the counter.
            duplicated += len(texts) - len(set(texts)) + sub.text().count("ignored: ")
            reconnects += len(re.findall("mutual authentication passed", sub.text())) - 1
            highest = {}
            for device, n in (t.split(".") for t in texts):
                disordered += int(n) <= highest.get(device, -1)
                highest[device] = int(n)
        return delivered, lost, duplicated, disordered, reconnects


def setup():
    global g
    g = gateway.Gateway()
    g.scope("plant", "plant/#", rekey_messages=REKEY)
    for i in range(PAIRS):
        g.device("dev-%d" % i, "plant")
        g.receiver("rx-%d" % i, "plant")
    g.start()


@tap.test
def soak():
    "every receiver has every message exactly once and in order while key processes are killed"
    s = Soak()
    before = g.stats()
    s.publish()
    s.finish()
    s.wait_quiet()
    delivered, lost, duplicated, disordered, reconnects = s.judge()
    after = g.stats()
    tap.note("seconds=%d publishers=%d receivers=%d" % (SECONDS, PAIRS, PAIRS))
    tap.note("sent=%d acknowledged=%d meant=%d delivered=%d lost=%d duplicated=%d disordered=%d" % (
        sum(s.sent), s.acknowledged, sum(len(s.meant_for(i)) for i in range(PAIRS)), delivered,
        lost, duplicated, disordered))
    tap.note("workers_killed=%d hsmd_killed=%d reconnects=%d" % (
        s.kills["worker"], s.kills["hsmd"], reconnects))
    tap.note(" ".join("%s=%d" % (k, after[k] - before[k]) for k in (
        "accepted", "delivered", "conversions", "capsule_hits", "signatures", "hsm_requeued",
        "hsm_unavailable", "commits")))
    tap.equal((lost, duplicated, disordered, reconnects), (0, 0, 0, 0),
              "lost, duplicated, disordered, reconnects")
    tap.equal(s.acknowledged, sum(s.sent), "acknowledged")
    tap.equal(after["accepted"] - before["accepted"], sum(s.sent), "accepted by the broker")
    tap.true(s.kills["worker"] >= max(1, SECONDS // 4), "workers were killed")
    for sub in s.subs:
        sub.signal(15)
    for sub in s.subs:
        tap.equal(sub.wait(), 0, "exit code of " + sub.name)
    g.stop()


soak.seconds = SECONDS + 180
tap.main(setup)
