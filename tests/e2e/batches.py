#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""What ssdtf-pub puts under one signature, and into one HPKE context. The receiver here is the
tests' own implementation: it verifies the origin proof of each delivery, whose trailer is the
device's."""

import os
import re
import struct
import time

import clients
import gateway
import mqtt
import tap
from clients import Pub, Sub, pub, pub_ok

g = None


def setup():
    global g
    g = gateway.Gateway()
    g.scope("plant", "plant/#")
    g.scope("tight", "tight/#", rekey_messages=3, rekey_seconds=600)
    g.device("dev-1", "plant", "tight")
    g.receiver("py-rx", "plant", "tight", proof=True)
    g.receiver("rx-1", "plant", proof=True)
    g.start()
    tap.after_each(g.mend)


def receiver(topic):
    r = mqtt.Session(g.address, g.party("py-rx"))
    tap.equal(r.subscribe(topic), [1], "SUBACK")
    return r


def lines(topic, texts, *more):
    """ssdtf-pub with all lines there from the start; its exit code and words."""
    path = os.path.join(g.base, "lines")
    gateway.write(path, "".join(t + "\n" for t in texts).encode())
    with open(path, "rb") as f:
        p = gateway.Process("pub", [gateway.program("pub"), *clients.options(g, "dev-1", [topic]),
                                    "-l", *more], stdin=f)
    return p.wait(40), p.text()


def lines_ok(topic, texts, *more):
    tap.equal(lines(topic, texts, *more), (0, ""), "ssdtf-pub's exit code and words")


def trailer(delivery):
    """(index, size) of the device's; (0, 1) is a trailer 1."""
    proof = delivery.opened.envelope.proof
    return struct.unpack(">HH", proof[-5:-1]) if proof[-1] == 2 else (0, 1)


def batch_sizes(deliveries):
    """Of batches that arrived whole, one after the other."""
    sizes, at = [], 0
    while at < len(deliveries):
        n = trailer(deliveries[at])[1]
        tap.equal([trailer(d) for d in deliveries[at:at + n]], [(i, n) for i in range(n)],
                  "index and size of each message of a batch")
        sizes.append(n)
        at += n
    return sizes


def contexts(deliveries):
    """How many messages each enc served, in their order."""
    out = []
    for d in deliveries:
        e = d.opened.envelope
        if not out or out[-1][0] != e.enc:
            out.append([e.enc, 0])
        tap.equal(e.seq, out[-1][1], "seq")
        out[-1][1] += 1
    tap.equal(len({enc for enc, _ in out}), len(out), "no enc comes back")
    return [n for _, n in out]


# --- signatures ---------------------------------------------------------------------------------

@tap.test
def alone():
    "a message that is there alone has a signature of its own, at once"
    with receiver("plant/alone") as r:
        p = Pub(g, "dev-1", "plant/alone", "-q", "1")
        p.wait_open()
        for i in range(3):
            p.line("reading %d" % i)
            r.wait_deliveries(i + 1)
        tap.equal(batch_sizes(r.deliveries), [1, 1, 1], "batches")
        tap.equal(p.finish(), 0, "exit code")


@tap.test
def together():
    "64 lines that wait for the session are signed at once, and each is delivered and proven"
    for qos in ("0", "1"):
        texts = ["line %d" % i for i in range(64)]
        with receiver("plant/together") as r:
            lines_ok("plant/together", texts, "-q", qos)
            r.wait_deliveries(64)
            tap.equal([d.plaintext.decode() for d in r.deliveries], texts, "texts, in order")
            tap.equal(batch_sizes(r.deliveries), [64], "batches")
            tap.equal(contexts(r.deliveries), [64], "messages of each context")


@tap.test
def limited():
    "--batch N puts no more than N under one signature, --batch 1 one"
    for n, want in ((20, [20, 20, 20, 4]), (1, [1] * 5), (64, [5])):
        with receiver("plant/limited") as r:
            lines_ok("plant/limited", ["x"] * sum(want), "-q", "1", "--batch", str(n))
            r.wait_deliveries(sum(want))
            tap.equal(batch_sizes(r.deliveries), want, "batches")


@tap.test
def behind_a_full_window():
    "what waits for acknowledgements forms batches, and all of it arrives in order"
    texts = ["%d" % i for i in range(64 + tap.rounds(300))]
    with receiver("plant/window") as r:
        lines_ok("plant/window", texts, "-q", "1")
        r.wait_deliveries(len(texts))
        tap.equal([d.plaintext.decode() for d in r.deliveries], texts, "texts, in order")
        sizes = batch_sizes(r.deliveries)
        tap.note("batches of %s" % sizes)
        tap.equal(sizes[0], 64, "the first batch")
        tap.true(max(sizes) <= 64, "no batch is larger than the window")


@tap.test
def written_at_once():
    "lines that are written at once at QoS 0 do not wait for more input"
    texts = ["%d" % i for i in range(1500)]
    sub = Sub(g, "rx-1", "plant/at-once")
    p = Pub(g, "dev-1", "plant/at-once", "-q", "0")
    p.wait_open()
    p.line(*texts)
    sub.wait_messages(len(texts), 15)
    tap.equal(sub.texts(), texts, "texts, in order")
    tap.equal(p.finish(), 0, "exit code")
    sub.stop()


@tap.test
def repeated():
    "repetitions without a delay are signed at once too"
    with receiver("plant/repeated") as r:
        pub_ok(g, "dev-1", "plant/repeated", "-q", "1", "-m", "again", "--repeat", "10",
               "--repeat-delay", "0")
        r.wait_deliveries(10)
        tap.equal(batch_sizes(r.deliveries), [10], "batches")


@tap.test
def damaged_in_transit():
    "of a batch one message is damaged on the way: it is sent again, the others are not"
    proxy = gateway.Proxy(g.address)
    topic, seen = b"plant/damaged", [0]

    def change(data):
        at = data.find(topic)
        while at >= 0:
            seen[0] += 1
            if seen[0] == 2:
                at += len(topic) + 2 + 130  # in the ciphertext
                return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
            at = data.find(topic, at + 1)
        return data
    proxy.change = change
    with receiver("plant/damaged") as r:
        p = Pub(g, "dev-1", "plant/damaged", "-q", "1", address=proxy.address)
        p.line("a", "b", "c", "d")
        p.wait_text(r"reason=1\b.*sent again")
        tap.equal(p.finish(), 0, "exit code")
        r.wait_deliveries(4)
        r.settle()
        tap.equal([(d.plaintext, trailer(d)) for d in r.deliveries],
                  [(b"a", (0, 4)), (b"c", (2, 4)), (b"d", (3, 4)), (b"b", (1, 4))],
                  "what arrived, and its place in the batch")
    proxy.close()


@tap.test
def opened_by_ssdtf_sub():
    "ssdtf-sub opens a batch and has nothing to say about it"
    texts = ["%d" % i for i in range(64)]
    sub = Sub(g, "rx-1", "plant/sub")
    lines_ok("plant/sub", texts, "-q", "1")
    sub.wait_messages(64)
    tap.equal(sub.texts(), texts, "texts")
    tap.equal({m["proof"] for m in sub.messages()}, {"verified"}, "proofs")
    tap.true("cannot be used" not in sub.text(), "words: " + sub.text())
    tap.equal(sub.stop(), 0, "exit code")


# --- contexts -----------------------------------------------------------------------------------

@tap.test
def rekey_messages():
    "--rekey-messages: each message its own context, or three share one"
    for n, want in ((1, [1] * 6), (3, [3, 3])):
        with receiver("plant/rekey") as r:
            lines_ok("plant/rekey", ["x"] * 6, "-q", "1", "--rekey-messages", str(n))
            r.wait_deliveries(6)
            tap.equal(contexts(r.deliveries), want, "messages of each context")
            tap.equal(batch_sizes(r.deliveries), [6], "one signature all the same")


@tap.test
def rekey_seconds():
    "--rekey-seconds: another context once its time is over, and not before"
    for more, want in ((["--rekey-seconds", "1"], [1, 1]), ([], [2])):
        with receiver("plant/seconds") as r:
            p = Pub(g, "dev-1", "plant/seconds", "-q", "1", *more)
            p.line("one")
            r.wait_deliveries(1)
            time.sleep(1.1)
            p.line("two")
            r.wait_deliveries(2)
            tap.equal(contexts(r.deliveries), want, "messages of each context")
            tap.equal(p.finish(), 0, "exit code")


@tap.test
def the_managers_limits_hold():
    "who wants more than the bundle allows is told so and gets what it allows"
    for more, words in ((("--rekey-messages", "100"),
                         r"--rekey-messages 100: a context .*tight/a.* 3 at most"),
                        (("--rekey-seconds", "601"), r"--rekey-seconds 601: .* 600 s at most"),
                        (("--rekey-messages", "3", "--rekey-seconds", "600"), None),
                        ((), None)):
        with receiver("tight/a") as r:
            code, text = lines("tight/a", ["x"] * 7, "-q", "1", *more)
            tap.equal(code, 0, "exit code")
            if words:
                tap.true(re.search(words, text), "what ssdtf-pub says: " + text)
                tap.equal(text.count("\n"), 1, "lines that it says")
            else:
                tap.equal(text, "", "what ssdtf-pub says")
            r.wait_deliveries(7)
            tap.equal(contexts(r.deliveries), [3, 3, 1], "messages of each context")


@tap.test
def a_stricter_wish():
    "who asks for less than the bundle allows gets that, in silence"
    with receiver("tight/b") as r:
        lines_ok("tight/b", ["x"] * 4, "-q", "1", "--rekey-messages", "2")
        r.wait_deliveries(4)
        tap.equal(contexts(r.deliveries), [2, 2], "messages of each context")


@tap.test
def numbers():
    "numbers that the protocol rules out are refused"
    for option, bad in (("--rekey-messages", ("0", "65537", "-1", "x")),
                        ("--rekey-seconds", ("0", "3601")), ("--batch", ("0", "65"))):
        for number in bad:
            r = pub(g, "dev-1", "plant/a", "-m", "x", option, number)
            tap.equal(r.returncode, clients.USAGE, "exit code of %s %s" % (option, number))
            tap.true(option + " takes a number from 1 to" in r.stderr, r.stderr)


tap.main(setup)
