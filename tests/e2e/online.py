#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""The manager online, with the real programs: bundles brought over MQTT (PROTOCOL 14), revocation
by them, reports that are kept (7), and claims (15)."""

import json
import os
import re
import signal
import sqlite3
import time

from cryptography.hazmat.primitives.asymmetric import ec

import gateway
import mqtt
import ssdtf
import tap
from clients import Sub, pub_ok

g = None
UNAVAILABLE, NOUSER, TEMPFAIL, NOPERM = 69, 67, 75, 77


def setup():
    """One gateway for all tests. Its bundle is of many pieces: scopes with long filters."""
    global g
    g = gateway.Gateway()
    g.limits = {"errors-per-second": 1000}
    g.scope("plant", "plant/#")
    for i in range(12):
        g.scope("ballast-%d" % i, *["ballast/%d/%d/%s" % (i, k, os.urandom(80).hex())
                                    for k in range(64)])
    for i in range(1, 5):
        g.device("dev-%d" % i, "plant")
    g.receiver("rx-1", "plant")
    for i in (1, 2):
        g.enrol("manager", "mgr-%d" % i)
    g.start()
    tap.after_each(g.mend)


# --- the manager's programs ---------------------------------------------------------------------

def online_options(manager="mgr-1", address=None):
    host, port = address or g.address
    return ["--gateway", g.id, "--party-dir", g.path(manager), "-h", host, "-p", str(port)]


class Applied:
    def __init__(self, line):
        m = re.fullmatch(r"applied gateway=gw-1 serial=(\d+) sent=(\d+) of=(\d+) pieces=(\d+)/(\d+)"
                         r" seconds=([\d.]+)\n", line)
        tap.true(m, "push says what came of it: %r" % line)
        self.serial, self.sent, self.of, self.pieces, self.all = map(int, m.groups()[:5])
        self.seconds = float(m.group(6))


def push(*options, **named):
    return Applied(g.manager.admin("push", *online_options(**named), *options))


def serial_in_force():
    return int(re.findall(r"event=bundle serial=(\d+)", g.broker.text())[-1])


class Serve(gateway.Process):
    of_test = True

    def __init__(self, *options, manager="mgr-2", wait=True):
        super().__init__("serve", [gateway.program("admin"), "--dir", g.manager.dir, "serve",
                                   *online_options(manager), *options], g.manager.token.env)
        if wait:
            self.wait_text("event=open")


def listed_reports(*options):
    return [json.loads(line) for line in
            g.manager.admin("reports", "--json", *options).splitlines()]


def gateway_line():
    return dict(pair.split("=") for pair in g.manager.admin("list", "gateways").split())


# --- bundles ------------------------------------------------------------------------------------

@tap.test
def bundles_travel():
    "push: of the next bundle little more travels than what changed, and it takes effect"
    first = push()
    tap.equal(serial_in_force(), first.serial, "serial in force")
    tap.true(first.all > 5, "%d pieces" % first.all)
    # The bundle that came as a file is cut by content: most of it is here already.
    tap.true(first.sent < first.of * 3 / 4, "sent %d of %d" % (first.sent, first.of))
    g.device("dev-new", "plant")
    second = push()
    tap.true(second.sent < second.of * 3 / 4, "sent %d of %d" % (second.sent, second.of))
    tap.note("sent %d of %d bytes, %.3f s from command to effect" % (second.sent, second.of,
                                                                     second.seconds))
    line = gateway_line()
    tap.equal((line["made"], line["applied"]), (str(second.serial),) * 2, "list gateways")
    out = os.path.join(g.base, "dev-new.bundle")
    g.manager.admin("bundle", "party", "--id", "dev-new", "--out", out)
    gateway.write(os.path.join(g.path("dev-new"), "bundle"), gateway.read(out))
    pub_ok(g, "dev-new", "plant/new", "-m", "hello")


@tap.test
def the_newer_is_taken_at_the_start():
    "the broker starts with the bundle that came online, whatever the file says; SIGHUP keeps it"
    serial = push().serial
    tap.true("in force stays" in g.reload(), "an older file is refused")
    g.broker.signal(signal.SIGKILL)
    g.broker.wait()
    g.start_broker()
    g.device("dev-after", "plant")
    again = push()
    tap.true(again.serial > serial, "serial")
    tap.true(again.pieces < again.all, "pieces of the one in force were used")
    for path in (g.state_dir + "/bundle", g.state_dir + "/bundle.manifest"):
        tap.equal(os.stat(path).st_mode & 0o777, 0o600, "mode of " + path)
    # A file of the administrator's that is newer still.
    g.update()
    g.stop()
    g.stopped = False
    g.start_hsmd()
    g.start_broker()
    push()


@tap.test
def a_damaged_one_is_left():
    "a damaged bundle in the state directory is left alone: the file is taken"
    serial = push().serial
    g.deliver()
    g.stop()
    with open(g.state_dir + "/bundle", "r+b") as f:
        f.seek(1000)
        f.write(b"damaged")
    g.stopped = False
    g.start_hsmd()
    g.start_broker()
    g.broker.wait_text("state/bundle: is not a whole gateway bundle")
    tap.true(push().serial > serial, "serial")


@tap.test
def killed_on_the_way():
    "kill -9 of the broker at any moment: the old bundle or the new one, and push goes on"
    rounds = tap.rounds(3)
    sent = whole = 0
    for i in range(rounds):
        g.manager.admin("enrol", "manager", "--id", "kill-%d" % i, "--generate",
                        os.path.join(g.parties_dir, "kill-%d" % i))
        before = int(gateway_line()["applied"])
        p = gateway.Process("push", [gateway.program("admin"), "--dir", g.manager.dir, "push",
                                     *online_options()], g.manager.token.env)
        time.sleep(0.01 + 0.06 * i / rounds)
        g.broker.signal(signal.SIGKILL)
        g.broker.wait()
        g.start_broker()
        tap.equal(p.wait(60), 0, "push's exit code: " + p.text())
        result = Applied(re.search("^applied.*\n", p.text(), re.M).group())
        tap.true(result.serial > before, "serial")
        line = gateway_line()
        tap.equal(line["applied"], str(result.serial), "applied")
        sent, whole = sent + result.sent, whole + result.of
    tap.true(sent < whole, "pieces of what was cut short are used: %d of %d" % (sent, whole))


@tap.test
def whom_push_does_not_reach():
    "push: nobody there, a party that is no manager, a gateway without a bundle key"
    r = g.manager.admin_result("push", *online_options(address=("127.0.0.1", 1)), "--timeout", "1")
    tap.true(r.returncode in (UNAVAILABLE, TEMPFAIL) and "refused" in r.stderr, r.stderr)
    r = g.manager.admin_result("push", *online_options("dev-1"), "--timeout", "1")
    tap.true(r.returncode == TEMPFAIL, "a device: %d %s" % (r.returncode, r.stderr))
    r = g.manager.admin_result("push", "--gateway", "gw-9", *online_options()[2:])
    tap.equal(r.returncode, NOUSER, "no such gateway: " + r.stderr)


# --- revocation ---------------------------------------------------------------------------------

@tap.test
def revoked_by_push():
    "a revoked device's session ends, and a revoked receiver gets nothing more, without a restart"
    g.device("gone-dev", "plant")
    g.receiver("gone-rx", "plant")
    g.deliver()
    push()
    pid = g.broker.pid
    device = mqtt.Session(g.address, g.party("gone-dev"))
    sub = Sub(g, "gone-rx", "plant/revoked")
    pub_ok(g, "dev-1", "plant/revoked", "-m", "before")
    sub.wait_text_message("before")
    g.manager.admin("revoke", "grant", "--scope", "plant", "--receiver", "gone-rx")
    tap.note("revoked a grant: %.3f s from command to effect" % push().seconds)
    conversions = g.stats()["conversions"]
    pub_ok(g, "dev-1", "plant/revoked", "-m", "after", "-q", "1")
    tap.equal(g.stats()["conversions"], conversions, "nothing was converted")
    tap.equal(sub.texts(), ["before"], "what the receiver got")
    started = time.monotonic()
    g.manager.admin("revoke", "device", "gone-dev")
    seconds = push().seconds
    device.closes()
    tap.note("revoked a device: %.3f s, %.3f s until its session was closed" % (
        seconds, time.monotonic() - started))
    tap.equal(g.broker.pid, pid, "the broker is the same")
    with mqtt.Connection(g.address) as c:
        r_c, user_name, token = g.party("gone-dev").connect_params()
        c.send(mqtt.connect("gone-dev", user_name, token))
        tap.equal(c.expect(mqtt.CONNACK).body, b"\x00\x05", "CONNACK")


# --- serve --------------------------------------------------------------------------------------

@tap.test
def serve_pushes_what_changes():
    "serve --push: what other commands change reaches the gateway by itself"
    serve = Serve("--push")
    serve.wait_text("event=applied")
    g.device("dev-served", "plant")
    n = len(re.findall("event=applied", serve.text()))
    g.manager.admin("enrol", "manager", "--id", "mgr-9", "--generate",
                    os.path.join(g.parties_dir, "mgr-9"))
    serve.wait_text("event=applied", count=n + 1)
    tap.eventually(lambda: len(re.findall("event=applied", serve.text())) <= n + 2,
                   "not more often than there were changes")
    tap.equal(serve.stop(), 0, "exit code")


@tap.test
def reports_are_kept():
    "reports: kept in the registry, from those who came while nobody served, too, once each"
    hostile = 'x" \x1b[2J \u202e end'
    n = len(listed_reports())
    with mqtt.Session(g.address, g.party("dev-2")) as s:
        text = hostile.encode()
        head = (bytes([ssdtf.NOT_PERMITTED]) + (77).to_bytes(8, "big") + b"\x05dev-1"
                + len(text).to_bytes(2, "big") + text)
        s.wait_acked(s.control(ssdtf.REPORT, head, 1))
        serve = Serve()
        serve.wait_text("event=reports n=1")
        s.wait_acked(s.control(ssdtf.REPORT, head, 1))
        serve.wait_text("event=reports", count=2)
    tap.equal(serve.stop(), 0, "exit code")
    got = listed_reports()[n:]
    tap.equal([(r["kind"], r["reporter"], r["about"], r["reason"], r["counter"], r["proven"],
                r["gateway"], r["text"]) for r in got],
              [("report", "dev-2", "dev-1", 5, 77, True, "gw-1", hostile)] * 2, "reports")
    tap.equal(len(listed_reports("--since", str(got[1]["n"]))), 1, "--since")
    lines = g.manager.admin("reports")
    tap.true("\x1b" not in lines and "\u202e" not in lines, "nothing in it moves a terminal")
    tap.true("signature=holds" in lines, lines)


@tap.test
def push_keeps_reports_too():
    "a report that waits is not lost to whoever merely pushes"
    n = len(listed_reports())
    with mqtt.Session(g.address, g.party("dev-2")) as s:
        head = bytes([ssdtf.UNAVAILABLE]) + bytes(8) + b"\x00" + b"\x00\x00"
        s.wait_acked(s.control(ssdtf.REPORT, head, 1))
    push()
    tap.equal([r["reason"] for r in listed_reports()[n:]], [6], "reasons")


# --- claims -------------------------------------------------------------------------------------

class Claimer(ssdtf.Party):
    """A device that has a claim code and a key of its own, and nothing else."""

    def __init__(self, code):
        self.code = ssdtf.Claim(code)
        self.id, self.counter, self.contexts = self.code.id, 0, {}
        self.signing = self.code.signing()
        self.new, self.answer_key = (ec.generate_private_key(ssdtf.CURVE) for _ in range(2))
        self.manager, self.broker, self.next_broker = self.code.manager, self.code.broker, None
        self.zk = False
        self.broker_hash = ssdtf.sha256(ssdtf.point_bytes(self.broker))
        self.bundle = type("Known", (), {"admission_flags": 0, "k_adm": self.code.k_adm()})

    def certified(self, answer):
        """Takes its bundle: from now on it is a device like others."""
        self.bundle = ssdtf.Bundle(answer.bundle(self.answer_key), self.manager)
        tap.equal(self.bundle.signing, ssdtf.point_bytes(self.new.public_key()), "signing key")
        tap.equal(self.bundle.k_adm, self.code.k_adm(), "admission key")
        self.signing, self.secrets = self.new, {}
        self.take_broker()


def claim(s, party=None):
    """Says it in the session, and waits for the answer."""
    party = party or s.party
    n = sum(p.type == mqtt.PUBLISH and p.topic == ssdtf.CLAIM for p in s.others)
    s.control(ssdtf.CLAIM, party.code.request(party.new, party.answer_key, s.r_b), 1)
    p = s.wait_for(lambda: ([p for p in s.others if p.type == mqtt.PUBLISH
                             and p.topic == ssdtf.CLAIM] + [None] * (n + 1))[n], "an answer")
    body, _ = party.from_broker(p.topic, p.first, p.payload)
    answer = ssdtf.ClaimAnswer(body)
    tap.equal(answer.r_b, s.r_b, "R_b of the answer")
    return answer


def claimers(*ids):
    """Enrolled by a file, without keys: their codes."""
    out = os.path.join(g.base, "codes-" + ids[0])
    os.mkdir(out, 0o700)
    csv = os.path.join(out, "devices.csv")
    gateway.write(csv, "id,scopes,clock,keys\n" + "".join("%s,plant,yes,\n" % i for i in ids))
    g.manager.admin("enrol", "csv", "--gateway", g.id, "--out-dir", out, csv)
    return [Claimer(gateway.read(os.path.join(out, i + ".claim")).decode().strip()) for i in ids]


@tap.test
def claims():
    "claims: devices certify keys of their own, publish in the same session, and once only"
    parties = claimers(*["claim-%d" % i for i in range(4)])
    push()
    serve = Serve()
    sub = Sub(g, "rx-1", "plant/claimed/+")
    sessions = [mqtt.Session(g.address, p) for p in parties]
    for s in sessions:
        s.control(ssdtf.CLAIM, s.party.code.request(s.party.new, s.party.answer_key, s.r_b), 1)
    for s in sessions:
        s.wait_for(lambda s=s: any(p.type == mqtt.PUBLISH and p.topic == ssdtf.CLAIM
                                   for p in s.others), "an answer")
        p = next(p for p in s.others if p.type == mqtt.PUBLISH)
        answer = ssdtf.ClaimAnswer(s.party.from_broker(p.topic, p.first, p.payload)[0])
        tap.equal((answer.result, answer.text), (answer.CERTIFIED, ""), "answer")
        s.party.certified(answer)
        s.wait_acked(s.seal_and_publish("plant", "plant/claimed/" + s.party.id, b"mine"))
        tap.equal(s.errors, [], "errors")
    sub.wait_messages(4)
    tap.true(len(re.findall("event=applied", serve.text())) <= 2, "they share bundles")
    for s in sessions:
        s.close()
    # By its new key it is a device like others; the code's key is nobody's.
    mqtt.Session(g.address, parties[0]).disconnect()
    old = claimer_again(parties[0])
    with mqtt.Session(g.address, old, authenticate=False) as s:
        s.send_connect()
        s.take_connack()
        s.answer(s.take_challenge())
        s.closes()
    tap.equal(serve.stop(), 0, "exit code")


def claimer_again(party):
    other = Claimer.__new__(Claimer)
    other.__dict__ = dict(party.__dict__)
    other.signing, other.new = party.code.signing(), ec.generate_private_key(ssdtf.CURVE)
    return other


class Claim(gateway.Process):
    of_test = True

    def __init__(self, party_id, address=None):
        host, port = address or g.address
        super().__init__("claim " + party_id, [
            gateway.program("claim"), "--dir", g.path(party_id), "--code",
            os.path.join(g.base, "codes-" + party_id, party_id + ".claim"), "-h", host, "-p",
            str(port), "-d"])


@tap.test
def the_devices_program():
    "ssdtf-claim, then ssdtf-pub; where its answer is lost it is killed, and claims by its new key"
    claimers("tool")
    push()
    serve = Serve()
    sub = Sub(g, "rx-1", "plant/tool")
    proxy = gateway.Proxy(g.address)
    proxy.change_back = lambda data: b"" if ssdtf.CLAIM.encode() in data else data
    first = Claim("tool", proxy.address)
    serve.wait_text("event=claim id=tool result=\"certified\"")
    tap.true(first.alive(), "it waits for its answer")
    first.kill()
    proxy.close()
    again = Claim("tool")
    tap.equal(again.wait(30), 0, "exit code: " + again.text())
    pub_ok(g, "tool", "plant/tool", "-m", "it works")
    sub.wait_text_message("it works")
    serve.wait_text("event=claim id=tool", count=2)
    tap.equal(len(re.findall("event=applied", serve.text())), 1, "one bundle was enough")
    # Who finds the code now finds nothing.
    os.rename(g.path("tool"), g.path("tool") + ".good")
    thief = Claim("tool")
    tap.equal(thief.wait(30), NOPERM, "exit code: " + thief.text())
    tap.equal(serve.stop(), 0, "exit code")


@tap.test
def claims_before_anybody_serves():
    "no manager: try again; and until it has claimed, the code's key is good for nothing else"
    party, = claimers("early")
    push()
    with mqtt.Session(g.address, party) as s:
        answer = claim(s)
        tap.equal((answer.result, answer.text), (answer.TRY_AGAIN, "no manager is here"), "answer")
        tap.equal(s.subscribe("plant/#"), [0x80], "SUBACK")
        s.control(ssdtf.REPORT, b"\x05" + bytes(8) + b"\x00\x00\x00", 1)
        tap.equal(s.wait_error().reason, ssdtf.NOT_PERMITTED, "reason")
        serve = Serve()
        tap.equal(claim(s).result, answer.CERTIFIED, "result")
    tap.equal(serve.stop(), 0, "exit code")


@tap.test
def claimed_twice():
    "the same key again is answered again; another key, a forged claim, nothing to claim: refused"
    party, = claimers("twice")
    push()
    serve = Serve()
    with mqtt.Session(g.address, party) as s:
        first = claim(s)
        party.certified(first)
        again = claim(s)  # its answer was lost, say: the same key, signed by it now
        tap.equal(again.result, again.CERTIFIED, "the same key")
        party.certified(again)
        thief = claimer_again(party)
        thief.signing = party.new
        refused = claim(s, thief)
        tap.equal((refused.result, refused.text),
                  (refused.REFUSED, "it was claimed before, with another key"), "another key")
    tap.true("claim refused twice" in g.manager.admin("list", "history"), "it is written down")
    with mqtt.Session(g.address, g.party("dev-3")) as s:
        claimer = claimer_again(party)
        claimer.code = type("Code", (), {"request": party.code.request, "id": "dev-3"})
        claimer.id = "dev-3"
        answer = claim(s, claimer)
        tap.equal((answer.result, answer.text),
                  (answer.REFUSED, "there is nothing for it to claim"), "dev-3")
    tap.equal(serve.stop(), 0, "exit code")


@tap.test
def a_forged_claim():
    "a claim whose new key did not sign it is refused, and the code stays good"
    party, = claimers("forged")
    push()
    serve = Serve()
    with mqtt.Session(g.address, party) as s:
        request = bytearray(party.code.request(party.new, party.answer_key, s.r_b))
        request[-1] ^= 1
        honest = party.code.request
        party.code.request = lambda *_: bytes(request)
        answer = claim(s)
        tap.equal((answer.result, answer.text),
                  (answer.REFUSED, "its new key did not sign it"), "answer")
        party.code.request = honest
        tap.equal(claim(s).result, answer.CERTIFIED, "result")
    tap.equal(serve.stop(), 0, "exit code")


@tap.test
def a_revoked_gateway():
    "the last: a gateway that was revoked gets a bundle with nobody in it, and lets nobody in"
    g.deliver()
    device = mqtt.Session(g.address, g.party("dev-1"))
    g.manager.admin("revoke", "gateway", g.id)
    push()
    device.closes()
    r = g.manager.admin_result("push", *online_options(), "--timeout", "2")
    tap.equal(r.returncode, NOPERM, "exit code: " + r.stderr)
    with mqtt.Connection(g.address) as c:
        r_c, user_name, token = g.party("dev-1").connect_params()
        c.send(mqtt.connect("dev-1", user_name, token))
        tap.equal(c.expect(mqtt.CONNACK).body, b"\x00\x05", "CONNACK")


if __name__ == "__main__":
    tap.main(setup)
