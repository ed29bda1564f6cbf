#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""Errors, nacks and reports (PROTOCOL 7) with the real programs, all the way to what
`ssdtf-admin reports` lists. Packet by packet they are in secure.py (reasons 1 to 6, nacks, reports,
rates) and crash.py (3 and 8)."""

import json
import struct

import gateway
import mqtt
import ssdtf
import tap
from clients import NOPERM, Pub, Sub, pub, pub_ok

g = serve = None


def setup():
    global g
    g = gateway.Gateway()
    g.limits = {"reports-queue-max": 3}
    g.scope("plant", "plant/#")
    for i in (1, 2, 3):
        g.device("dev-%d" % i, "plant")
    g.device("py-1", "plant")
    for receiver in ("rx-1", "rx-2"):
        g.receiver(receiver, "plant")
    for i in (1, 2):
        g.enrol("manager", "mgr-%d" % i)
    g.start()
    begin_serve()
    tap.after_each(g.mend)


def online(command, manager, *options):
    return [command, "--gateway", g.id, "--party-dir", g.path(manager), "-h", g.host, "-p",
            str(g.port), *options]


def begin_serve():
    global serve
    serve = gateway.Process("serve", [gateway.program("admin"), "--dir", g.manager.dir,
                                      *online("serve", "mgr-1")], g.manager.token.env)
    serve.wait_text("event=open")


def push():
    g.manager.admin(*online("push", "mgr-2"))


def listed(since):
    return [json.loads(line) for line in
            g.manager.admin("reports", "--json", "--since", str(since)).splitlines()]


def next_number():
    return max((r["n"] for r in listed(1)), default=0) + 1


def wait_listed(since, n=1):
    """n reports from this number on, each in short."""
    tap.eventually(lambda: len(listed(since)) >= n, "%d reports are listed" % n)
    return [(r["kind"], r["reporter"], r["about"], r["reason"], r["proven"])
            for r in listed(since)]


# --- errors -------------------------------------------------------------------------------------

@tap.test
def not_permitted():
    "reason 5: whose permission went gives the message up and reports; the manager lists it"
    at = next_number()
    g.manager.admin("scope", "deny", "--scope", "plant", "--device", "dev-3")
    push()
    r = pub(g, "dev-3", "plant/denied", "-m", "may I?", "-q", "1")
    tap.equal(r.returncode, NOPERM, "exit code: " + r.stderr)
    tap.true("reason=5" in r.stderr and ": reported" in r.stderr, r.stderr)
    tap.equal(wait_listed(at), [("report", "dev-3", g.id, 5, True)], "reports")


@tap.test
def no_key_id():
    "reason 4: a key id that the gateway does not know yet; with its bundle the message is taken"
    at = next_number()
    g.scope("young", "young/#")
    g.manager.admin("scope", "allow", "--scope", "young", "--device", "py-1")
    g.deliver()  # to the device; the gateway is not told
    with mqtt.Session(g.address, g.party("py-1")) as d:
        packet_id = d.seal_and_publish("young", "young/x", b"too early")
        e = d.wait_error()
        tap.equal((e.reason, e.counter), (ssdtf.NO_KEY_ID, d.party.counter), "error")
        d.wait_acked(packet_id)
        d.control(ssdtf.REPORT, struct.pack(">BQ", e.reason, e.counter)
                  + bytes([len(g.id)]) + g.id.encode() + ssdtf.u16p(b""), 1)
        tap.equal(wait_listed(at), [("report", "py-1", g.id, 4, True)], "reports")
        push()
        d.wait_acked(d.seal_and_publish("young", "young/x", b"now"))
        tap.equal(len(d.errors), 1, "errors")


@tap.test
def context_retired():
    "reason 8: after a revocation a sender opens a new context by itself; nothing is lost"
    at = next_number()
    sub = Sub(g, "rx-1", "plant/retired")
    p = Pub(g, "dev-1", "plant/retired", "-q", "1")
    p.line("before")
    sub.wait_text_message("before")
    g.manager.admin("revoke", "grant", "--scope", "plant", "--receiver", "rx-2")
    push()
    p.line("after")
    p.wait_text(r"reason=8\b.*sealed anew")
    sub.wait_text_message("after")
    tap.equal((p.finish(), sub.texts()), (0, ["before", "after"]), "exit code and texts")
    tap.equal(listed(at), [], "reports")


# --- nacks --------------------------------------------------------------------------------------

@tap.test
def made_good():
    "nack, reason 1: a delivery that was damaged on the way comes again, and nobody is reported"
    at = next_number()
    proxy = gateway.Proxy(g.address)
    sub = Sub(g, "rx-1", "plant/damaged", address=proxy.address)
    nacks = g.stats()["nacks"]

    def flip(data):
        i = data.find(b"plant/damaged")
        if i < 0 or len(data) < i + 180:
            return data
        proxy.change_back = None
        return data[:i + 170] + bytes([data[i + 170] ^ 1]) + data[i + 171:]

    proxy.change_back = flip
    pub_ok(g, "dev-1", "plant/damaged", "-q", "1", "-m", "precious")
    sub.wait_text_message("precious")
    tap.equal((sub.texts(), g.stats()["nacks"]), (["precious"], nacks + 1), "texts and nacks")
    tap.true("asked for once more" in sub.text(), sub.text())
    tap.equal(listed(at), [], "reports")
    proxy.close()


@tap.test
def the_senders_fault():
    "nack, reason 7: what the same conversion leaves shut is the sender's fault, and it is listed"
    at = next_number()
    sub = Sub(g, "rx-1", "plant/shut")
    with mqtt.Session(g.address, g.party("py-1")) as d:
        bad = bytearray(d.party.seal("plant", "plant/shut", b"nobody opens this"))
        bad[77] ^= 1  # the commit: the broker cannot tell
        counter = d.party.counter
        d.wait_acked(d.publish("plant/shut", d.party.signed("plant/shut", bytes(bad), 1), 1))
        tap.equal(wait_listed(at), [("nack", "rx-1", "py-1", 7, True)], "reports")
        tap.equal(listed(at)[0]["counter"], counter, "counter")
        d.wait_acked(d.seal_and_publish("plant", "plant/shut", b"and this is fine"))
    sub.wait_text_message("and this is fine")
    line = g.manager.admin("reports", "--since", str(at))
    tap.true('reason=7 about=py-1' in line and "signature=holds" in line, line)


# --- rates, absence, and who is gone ------------------------------------------------------------

def report_head(about, text=b""):
    return (struct.pack(">BQ", ssdtf.NOT_PERMITTED, 1) + bytes([len(about)]) + about.encode()
            + ssdtf.u16p(text))


@tap.test
def too_many():
    "reports beyond errors-per-second are acknowledged and go no further"
    at = next_number()
    per_second = 20
    with mqtt.Session(g.address, g.party("py-1")) as s:
        ids = [s.control(ssdtf.REPORT, report_head("dev-1", b"%d" % i), 1) for i in range(200)]
        s.wait_acked(ids[-1])
        tap.equal(sorted(s.acked), sorted(ids), "acknowledged")
        tap.equal(s.errors, [], "errors")
    n = len(wait_listed(at, per_second))
    tap.true(n < 200, "%d of 200 are listed" % n)


@tap.test
def nobody_listens():
    "reports wait for the manager; of more than reports-queue-max the oldest are forgotten"
    at = next_number()
    tap.equal(serve.stop(), 0, "exit code")
    with mqtt.Session(g.address, g.party("py-1")) as s:
        for about in ("forgotten", "first", "second", "third"):
            s.wait_acked(s.control(ssdtf.REPORT, report_head(about), 1))
    begin_serve()
    wait_listed(at, 3)
    tap.equal([r["about"] for r in listed(at)], ["first", "second", "third"], "about whom")


@tap.test
def the_reporter_is_gone():
    "a report of somebody who is not enrolled any more is kept as unproven"
    at = next_number()
    tap.equal(serve.stop(), 0, "exit code")
    g.device("dev-gone", "plant")
    g.deliver()
    push()
    with mqtt.Session(g.address, g.party("dev-gone")) as s:
        s.wait_acked(s.control(ssdtf.REPORT, report_head("dev-1"), 1))
    g.manager.admin("revoke", "party", "dev-gone")
    begin_serve()
    tap.equal(wait_listed(at), [("report", "dev-gone", "dev-1", 5, False)], "reports")


if __name__ == "__main__":
    tap.main(setup)
