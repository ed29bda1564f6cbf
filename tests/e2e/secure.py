#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""The main job with the real programs: readings travel from devices to receivers; whoever may not
send or read does not, and is told why."""

import os
import re
import struct
import threading
import time

import clients
import gateway
import mqtt
import ssdtf
import tap
from clients import Pub, Sub, pub, pub_ok

g = None


def setup():
    """One gateway for all tests. Each test has topics, and where it changes rights also parties,
    of its own. dev-N publish with ssdtf-pub, py-N from here: a counter has one owner."""
    global g
    g = gateway.Gateway()
    g.limits = {"errors-per-second": 100000}
    g.scope("plant", "plant/#")
    g.scope("chem", "chem/#", "lab/+/chem", suite=2)
    g.scope("secret", "secret/#")
    for i in (1, 2):
        g.device("dev-%d" % i, "plant", "chem")
        g.device("py-%d" % i, "plant", "chem")
    for party in ("rx-1", "rx-2"):
        g.receiver(party, "plant", "chem")
    for name in ("rx-proof", "rx-deaf"):
        g.receiver(name, "plant", proof=True)
    g.enrol("manager", "boss")
    g.start()
    tap.after_each(g.mend)


def session(party_id, **named):
    return mqtt.Session(g.address, g.party(party_id), **named)


def connected(party_id, *filters, qos=1, **named):
    s = session(party_id, **named)
    if filters:
        tap.equal(s.subscribe(*filters, qos=qos), [qos] * len(filters), "SUBACK")
    return s


# --- the happy path -----------------------------------------------------------------------------

@tap.test
def vectors():
    "the tests' own implementation agrees with tests/vectors/core.json"
    ssdtf.self_check(os.path.join(gateway.SOURCE, "tests", "vectors", "core.json"))


def one_to_two(scope, qos):
    topic = "%s/one-to-two/%d" % (scope, qos)
    with_topics = [Sub(g, r, scope + "/one-to-two/" + w, qos=qos)
                   for r, w in (("rx-1", "+"), ("rx-2", "#"))]
    texts = ["reading %d, 21.%d \u00b0C" % (i, i) for i in range(40)]
    pub_ok(g, "dev-1", topic, "-q", str(qos), "-l", stdin="".join(t + "\n" for t in texts))
    heard = []
    for sub in with_topics:
        sub.wait_messages(len(texts))
        tap.equal(sub.texts(), texts, "texts of %s, in order" % sub.name)
        heard.append(sub.messages())
        tap.equal(sub.stop(), 0, "exit code of " + sub.name)
    for one, two in zip(*heard):
        tap.equal((one["origin"], one["topic"], one["qos"]), ("dev-1", topic, qos), "message")
        tap.equal((one["counter"], one["level"]), (two["counter"], 1), "counter and level")
        tap.true(one["grant"] != two["grant"] and one["x"] != two["x"],
                 "each receiver has a conversion of its own")


@tap.test
def suite_1():
    "suite 1, QoS 0, 1 and 2: a device's lines reach two receivers, in order"
    for qos in (0, 1, 2):
        one_to_two("plant", qos)


@tap.test
def suite_2():
    "suite 2, QoS 0 and 1: a device's lines reach two receivers, in order"
    one_to_two("chem", 0)
    one_to_two("chem", 1)


@tap.test
def sizes():
    "payloads from one byte to 256 KiB, binary ones too, arrive unchanged"
    sub = Sub(g, "rx-1", "plant/sizes")
    path = os.path.join(g.base, "payload")
    for n in (1, 15, 16, 4096, 65536, 262144):
        data = os.urandom(n - 1) + b"\x00"
        gateway.write(path, data)
        pub_ok(g, "dev-1", "plant/sizes", "-q", "1", "-f", path)
        got = tap.eventually(lambda: next((m for m in sub.messages()
                                           if m.get("payload_hex") == data.hex()
                                           or m.get("payload") == data.decode("latin-1")), None),
                             "%d bytes arrive" % n)
        tap.equal(got["topic"], "plant/sizes", "topic")
    sub.stop()


@tap.test
def qos_matrix():
    "a delivery's QoS is the lower one of its PUBLISH and its subscription"
    for sub_qos in (0, 1, 2):
        sub = Sub(g, "rx-1", "plant/qos", qos=sub_qos)
        for pub_qos in (0, 1, 2):
            pub_ok(g, "dev-1", "plant/qos", "-q", str(pub_qos), "-m", "q%d" % pub_qos)
        got = {m["payload"]: m["qos"] for m in sub.wait_messages(3)}
        tap.equal(got, {"q%d" % q: min(q, sub_qos) for q in (0, 1, 2)},
                  "QoS at a subscription of %d" % sub_qos)
        sub.stop()


@tap.test
def wildcards():
    "wildcards match as MQTT says; several matching filters deliver once"
    with connected("rx-1", "plant/w/+/t", "plant/w/#", "lab/+/chem") as r:
        topics = [("plant", "plant/w"), ("plant", "plant/w/a/t"), ("plant", "plant/w/a/b/t"),
                  ("plant", "plant/other"), ("chem", "lab/7/chem"), ("chem", "chem/w")]
        with session("py-1") as d:
            for scope, topic in topics:
                d.wait_acked(d.seal_and_publish(scope, topic, topic.encode()))
        r.wait_deliveries(4)
        r.quiet(0.2)
        tap.equal([x.plaintext.decode() for x in r.deliveries],
                  ["plant/w", "plant/w/a/t", "plant/w/a/b/t", "lab/7/chem"], "what arrived")
    with session("rx-2") as r:
        codes = r.subscribe("$SSDTF/#", "$SSDTF/auth/result", "$share/x/$SSDTF/error", "#", "+/#")
        tap.equal(codes, [0x80, 0x80, 0x80, 1, 1], "SUBACK")


@tap.test
def retained():
    "a retained message is kept sealed, converted for whoever comes, and cleared by empty plaintext"
    pub_ok(g, "dev-1", "plant/retained", "-q", "1", "-r", "-m", "old")
    pub_ok(g, "dev-1", "plant/retained", "-q", "1", "-r", "-m", "kept")
    xs = []
    for receiver in ("rx-1", "rx-2"):
        sub = Sub(g, receiver, "plant/retained")
        got = sub.wait_messages(1)
        tap.equal([(m["payload"], m["retain"]) for m in got], [("kept", True)], "retained")
        xs.append(got[0]["x"])
        if receiver == "rx-1":  # once more, to the same state: exempt from replay
            sub.stop()
            sub = Sub(g, receiver, "plant/retained")
            tap.equal(sub.wait_messages(1)[0]["payload"], "kept", "retained, again")
        pub_ok(g, "dev-1", "plant/retained", "-q", "1", "-m", "live")
        tap.equal(sub.wait_text_message("live")["retain"], False, "RETAIN of a live message")
        sub.stop()
    tap.true(xs[0] != xs[1], "two conversions")
    pub_ok(g, "dev-1", "plant/retained", "-q", "1", "-r", "-n")
    sub = Sub(g, "rx-1", "plant/retained", "plant/retained-end")
    pub_ok(g, "dev-1", "plant/retained-end", "-q", "1", "-m", "end")
    tap.equal(sub.wait_messages(1)[0]["payload"], "end", "nothing is retained any more")
    sub.stop()


@tap.test
def wills():
    "a Will is published sealed when the sender dies, not when it leaves, and a retained one stays"
    sub = Sub(g, "rx-1", "plant/will/#")
    will = ("--will-topic", "plant/will/a", "--will-payload", "gone", "--will-qos", "1",
            "--will-retain")
    leaving = Pub(g, "dev-2", "plant/will/b", "-q", "1", *will)
    leaving.line("hello")
    sub.wait_text_message("hello")
    tap.equal(leaving.finish(), 0, "exit code")
    dying = Pub(g, "dev-2", "plant/will/b", "-q", "1", *will)
    dying.line("hello again")
    sub.wait_text_message("hello again")
    tap.equal(sub.texts(), ["hello", "hello again"], "no Will yet")
    dying.kill()
    m = sub.wait_text_message("gone")
    tap.equal((m["topic"], m["origin"], m["qos"]), ("plant/will/a", "dev-2", 1), "Will")
    sub.stop()
    late = Sub(g, "rx-2", "plant/will/#")
    m = late.wait_text_message("gone")
    tap.equal(m["retain"], True, "RETAIN of the Will")
    late.stop()
    pub_ok(g, "dev-1", "plant/will/a", "-q", "1", "-r", "-n")


@tap.test
def persistent():
    "a persistent receiver gets what came while it was away, once and in order"
    sub = Sub(g, "rx-1", "plant/away", more=("-c",))
    pub_ok(g, "dev-1", "plant/away", "-q", "1", "-m", "here")
    sub.wait_text_message("here")
    tap.equal(sub.stop(), 0, "exit code")
    texts = ["away %d" % i for i in range(30)]
    pub_ok(g, "dev-1", "plant/away", "-q", "1", "-l", stdin="".join(t + "\n" for t in texts))
    pub_ok(g, "dev-1", "plant/away", "-q", "0", "-m", "QoS 0 is not kept")
    sub = Sub(g, "rx-1", "plant/away", more=("-c",))
    sub.wait_messages(30)
    pub_ok(g, "dev-1", "plant/away", "-q", "1", "-m", "back")
    sub.wait_text_message("back")
    got = [t for t in sub.texts() if t != "QoS 0 is not kept"]
    tap.equal(got, texts + ["back"], "texts")
    sub.stop()
    connected("rx-1", clean=True).disconnect()  # ends the session at the broker


@tap.test
def origin_proof():
    "the origin proof is carried and verified where the grant asks for it, and only there"
    with_proof, without = Sub(g, "rx-proof", "plant/proof"), Sub(g, "rx-1", "plant/proof")
    pub_ok(g, "dev-1", "plant/proof", "-q", "1", "-m", "by dev-1")
    tap.equal(with_proof.wait_messages(1)[0]["proof"], "verified", "proof")
    tap.equal(without.wait_messages(1)[0]["proof"], "absent", "proof")
    # Enrolled after the receiver's bundle was made: the manager certifies it by an update. One who
    # does not take it, as an older client, cannot check this origin.
    old = gateway.read(os.path.join(g.path("rx-proof"), "bundle"))
    deaf = mqtt.Session(g.address, g.party("rx-deaf"))
    deaf.subscribe("plant/proof")
    g.device("dev-new", "plant")
    g.update()
    gateway.write(os.path.join(g.path("rx-proof"), "bundle"), old)
    with_proof.wait_text(r"update: party dev-new")
    pub_ok(g, "dev-new", "plant/proof", "-q", "1", "-m", "by dev-new")
    without.wait_text_message("by dev-new")
    with_proof.wait_text_message("by dev-new")
    tap.equal(with_proof.texts(), ["by dev-1", "by dev-new"], "texts")
    try:
        deaf.wait_deliveries(1)
        raise AssertionError("an origin that nobody certified was taken")
    except ssdtf.Refused as e:
        tap.true("certif" in str(e), "why: %s" % e)
    deaf.close()
    for sub in (with_proof, without):
        sub.stop()
    g.deliver()


# --- who may not --------------------------------------------------------------------------------

@tap.test
def revoked_receiver():
    "after a revocation and SIGHUP: nothing live, queued or retained any more; the other goes on"
    g.receiver("rx-gone", "plant", "chem")
    g.receiver("rx-away", "plant", "chem")
    g.update()
    topic = "plant/revoked/"
    pub_ok(g, "dev-1", topic + "kept", "-q", "1", "-r", "-m", "kept")
    Sub(g, "rx-away", topic + "queue", "chem/revoked", more=("-c",)).stop()
    gone = Sub(g, "rx-gone", "plant/revoked-live", "chem/revoked")
    other = Sub(g, "rx-1", "plant/#", more=("-R",))
    stays = Pub(g, "dev-1", "plant/revoked-live", "-q", "1")
    stays.line("before")
    gone.wait_text_message("before")
    other.wait_text_message("before")
    bundle = gateway.read(os.path.join(g.path("rx-away"), "bundle"))
    g.manager.admin("revoke", "grant", "--scope", "plant", "--receiver", "rx-gone")
    g.manager.admin("revoke", "grant", "--scope", "plant", "--receiver", "rx-away")
    before = g.stats()
    pid = g.broker.pid
    # Queued while the grant still holds, for a session whose client is away.
    pub_ok(g, "dev-2", topic + "queue", "-q", "1", "-m", "queued")
    other.wait_text_message("queued")
    tap.true(g.stats()["queued"] >= 1, "a message is queued")
    g.update()
    stays.line("after")  # the sender's context is retired: it seals anew by itself
    other.wait_text_message("after")
    tap.equal(stays.finish(), 0, "exit code of the sender")
    # It comes for what is queued and what is retained, with the bundle that it had before.
    gateway.write(os.path.join(g.path("rx-away"), "bundle"), bundle)
    again = Sub(g, "rx-away", "plant/#", more=("-c",))
    pub_ok(g, "dev-1", "plant/revoked-live", "-q", "1", "-m", "after 2")
    pub_ok(g, "dev-1", "chem/revoked", "-q", "1", "-m", "chem still")
    other.wait_text_message("after 2")
    for sub, texts in ((gone, ["before", "chem still"]), (again, ["chem still"])):
        sub.wait_text_message("chem still")  # that grant holds, and came behind all others
        tap.equal(sub.texts(), texts, "what %s gets" % sub.name)
        tap.equal(len(re.findall("received PUBLISH .*'plant/", sub.text())), len(texts) - 1,
                  "packets that %s got, readable or not" % sub.name)
    late = Sub(g, "rx-2", topic + "kept")
    late.wait_text_message("kept")
    after = g.stats()
    tap.true(after["no_grant"] > before["no_grant"], "no_grant counts")
    tap.true(after["refused_8"] > before["refused_8"], "the old context was retired")
    tap.equal(g.broker.pid, pid, "no restart")
    for sub in (gone, again, other, late):
        sub.stop()
    pub_ok(g, "dev-1", topic + "kept", "-q", "1", "-r", "-n")


@tap.test
def roles():
    "a device may not subscribe, and a receiver may not publish"
    with session("py-1") as d:
        tap.equal(d.subscribe("plant/#", "#"), [0x80, 0x80], "SUBACK")
    with session("rx-1") as r:
        scope = next(s for s in all_scopes() if s.name == "plant")
        sealed = ssdtf.Context(scope.key_id, scope.suite, scope.key).seal(r.party.id, "plant/x",
                                                                          b"x", 1)
        packet_id = r.publish("plant/x", r.party.signed("plant/x", sealed, 1), 1)
        tap.equal(r.wait_error().reason, ssdtf.NOT_PERMITTED, "reason")
        r.wait_acked(packet_id)


@tap.test
def unknown_device():
    "a device that is not enrolled here is refused, with a bundle of this manager's or a stranger"
    g.device("dev-never", "plant")
    g.deliver()  # the device has its bundle, the broker was not told
    r = pub(g, "dev-never", "plant/x", "-m", "x", "--retry", "5")
    tap.equal(r.returncode, clients.NOPERM, "exit code: " + r.stderr)
    tap.true("not authorised" in r.stderr.lower() or "refuse" in r.stderr.lower(), r.stderr)
    g.update()
    pub_ok(g, "dev-never", "plant/x", "-m", "x")
    with mqtt.Connection(g.address) as c:
        c.send(mqtt.connect("nobody", ssdtf.user_name_of(os.urandom(32)), b""))
        tap.equal(c.expect(mqtt.CONNACK).body, b"\x00\x05", "CONNACK")
        tap.equal(c.closes(), [], "what follows")


@tap.test
def wrong_keys():
    "admission token, nonce and response are each checked"
    p = g.party("py-1")
    r_c, name, token = p.connect_params()
    bad_slot = ssdtf.admission_token(p.bundle.k_adm, p.id, name, int(time.time()) // 30 - 5)
    no_clock = ssdtf.admission_token(p.bundle.k_adm, p.id, name, 0)
    for what, user, password, code in (
            ("no user name", None, None, 4), ("short nonce", name[:-1], token, 4),
            ("no token", name, b"", 5), ("other key", name, token[:-1] + b"\0", 5),
            ("old slot", name, bad_slot, 5), ("no clock", name, no_clock, 5)):
        with mqtt.Connection(g.address) as c:
            c.send(mqtt.connect(p.id, user, password))
            tap.equal(c.expect(mqtt.CONNACK).body[1], code, "CONNACK: " + what)
            tap.equal(c.closes(), [], "what follows")
    other = g.party("py-2")
    for what, spoil in (
            ("another's key", lambda s, c: setattr(s.party, "signing", other.signing)),
            ("another nonce", lambda s, c: setattr(s, "r_b_wrong", True)),
            ("another broker", lambda s, c: setattr(s.party, "broker_hash", bytes(32)))):
        s = mqtt.Session(g.address, g.party("py-1"), authenticate=False)
        s.send_connect()
        s.take_connack()
        challenge = s.take_challenge()
        spoil(s, challenge)
        if what == "another nonce":
            body = os.urandom(32) + s.r_c + s.party.broker_hash
            s.send(mqtt.publish(ssdtf.RESPONSE, s.party.signed(ssdtf.RESPONSE, body, 0)))
        else:
            s.answer(challenge)
        tap.equal(s.closes(), [], "after a response with " + what)
        s.close()


@tap.test
def no_clock():
    "a party enrolled without a clock comes in with slot 0, with the real programs too"
    g.device("dev-noclock", "plant", options=("--no-clock",))
    g.update()
    sub = Sub(g, "rx-1", "plant/noclock")
    pub_ok(g, "dev-noclock", "plant/noclock", "-q", "1", "-m", "timeless", "--no-clock")
    m = sub.wait_text_message("timeless")
    tap.equal(m["time_ms"], 0, "time")
    sub.stop()


@tap.test
def revoked_device():
    "a revoked device's connection is closed at once, without its Will, and does not come back"
    g.device("dev-out", "plant")
    g.update()
    sub = Sub(g, "rx-1", "plant/out/#")
    p = Pub(g, "dev-out", "plant/out/a", "-q", "1", "--will-topic", "plant/out/will",
            "--will-payload", "my will", "--retry", "4")
    p.line("in")
    sub.wait_text_message("in")
    with session("py-1") as bystander:
        g.manager.admin("revoke", "device", "dev-out")
        g.update()
        g.broker.wait_text(r'event=revoked client="dev-out"')
        tap.equal(p.wait(30), clients.NOPERM, "exit code")
        bystander.wait_acked(bystander.seal_and_publish("plant", "plant/out/b", b"bystander"))
    sub.wait_text_message("bystander")
    tap.equal(sub.texts(), ["in", "bystander"], "no Will")
    sub.stop()


@tap.test
def revoked_receiver_party():
    "a revoked receiver's connection is closed, and its session is gone"
    g.receiver("rx-out", "plant")
    g.update()
    r = connected("rx-out", "plant/rxout", clean=False)
    g.manager.admin("revoke", "receiver", "rx-out")
    g.update()
    r.closes()
    r.close()
    with mqtt.Connection(g.address) as c:
        c.send(mqtt.connect("rx-out", ssdtf.user_name_of(os.urandom(32)), b""))
        tap.equal(c.expect(mqtt.CONNACK).body, b"\x00\x05", "CONNACK: no session, not enrolled")


@tap.test
def take_over():
    "a second connection with the same id takes over when it has proved itself, not before"
    first = connected("rx-1", "plant/over", clean=False)
    with mqtt.Session(g.address, g.party("rx-1"), clean=False, authenticate=False) as intruder:
        intruder.send_connect()
        intruder.take_connack()
        tap.true(intruder.session_present, "session present")
        challenge = intruder.take_challenge()
        intruder.party.signing = g.party("rx-2").signing
        with session("py-1") as d:
            d.wait_acked(d.seal_and_publish("plant", "plant/over", b"undisturbed"))
        tap.equal(first.wait_deliveries(1)[0].plaintext, b"undisturbed", "delivery")
        intruder.answer(challenge)
        intruder.closes()
    first.settle()  # still there
    second = session("rx-1", clean=False)
    tap.true(second.session_present, "session present")
    first.closes()
    first.close()
    with session("py-1") as d:
        d.wait_acked(d.seal_and_publish("plant", "plant/over", b"to the second"))
    tap.equal(second.wait_deliveries(1)[0].plaintext, b"to the second", "delivery")
    second.disconnect()
    session("rx-1", clean=True).disconnect()


# --- spoilt on the way --------------------------------------------------------------------------

def flip(marker, offset, times=1):
    """A change for a Proxy: one bit, `offset` bytes behind the first markers that pass."""
    left = [times]

    def change(data):
        at = data.find(marker)
        if at < 0 or not left[0] or at + offset >= len(data):
            return data
        left[0] -= 1
        return data[:at + offset] + bytes([data[at + offset] ^ 1]) + data[at + offset + 1:]
    return change


@tap.test
def tampered_in_transit():
    "a PUBLISH changed in transit is answered with error 1 and never delivered"
    proxy = gateway.Proxy(g.address)
    sub = Sub(g, "rx-1", "plant/tamper")
    refused = g.stats()["refused_1"]
    proxy.change = flip(b"plant/tamper", 12 + 2 + 130)  # in the ciphertext
    p = Pub(g, "dev-1", "plant/tamper", "-q", "1", address=proxy.address)
    p.line("tampered with")
    p.wait_text(r"reason=1\b")
    tap.equal(g.stats()["refused_1"], refused + 1, "refused_1")
    p.line("untouched")
    sub.wait_text_message("untouched")
    # PROTOCOL 7: there was no PUBACK, so the sender sends again.
    tap.equal((p.finish(), sorted(sub.texts())), (0, ["tampered with", "untouched"]),
              "exit code and texts")
    sub.stop()
    proxy.close()


@tap.test
def delivery_tampered_with():
    "a delivery changed in transit is not shown, asked for once more, and shown then"
    proxy = gateway.Proxy(g.address)
    sub = Sub(g, "rx-1", "plant/tampered-delivery", address=proxy.address)
    proxy.change_back = flip(b"plant/tampered-delivery", 23 + 2 + 130)
    nacks = g.stats()["nacks"]
    pub_ok(g, "dev-1", "plant/tampered-delivery", "-q", "1", "-m", "first")
    sub.wait_text(r"cannot be used")
    sub.wait_text_message("first")
    pub_ok(g, "dev-1", "plant/tampered-delivery", "-q", "1", "-m", "second")
    sub.wait_text_message("second")
    tap.equal(sub.texts(), ["first", "second"], "texts")
    tap.equal(g.stats()["nacks"], nacks + 1, "nacks")
    sub.stop()
    proxy.close()


@tap.test
def every_bit():
    "every 1-bit flip and every truncation of a sealed PUBLISH is refused"
    topic, text = "plant/bits", b"21.5"
    sub = connected("rx-1", topic)
    with session("py-1") as d:
        good = d.party.sealed("plant", topic, text, 1)
        spoilt = []
        for i in range(len(good)):
            for bit in range(8):
                spoilt.append(good[:i] + bytes([good[i] ^ 1 << bit]) + good[i + 1:])
        spoilt += [good[:n] for n in range(len(good))]
        for payload in spoilt:
            d.publish(topic, payload, 1)
        d.wait_for(lambda: len(d.errors) == len(spoilt), "an error for each", 60)
        tap.equal({e.reason for e in d.errors} - {1, 2}, set(), "other reasons")
        tap.equal(d.acked, [], "acknowledged")
        d.wait_acked(d.publish(topic, good, 1))
    sub.wait_deliveries(1)
    sub.quiet(0.2)
    tap.equal([x.plaintext for x in sub.deliveries], [text], "delivered")
    sub.close()


@tap.test
def bound():
    "a PUBLISH holds for its topic, QoS, RETAIN and client id only"
    topic = "plant/bound"
    sub = connected("rx-1", "plant/bound/#", "plant/bound")
    with session("py-1") as d, session("py-2") as other:
        payload = d.party.sealed("plant", topic, b"x", 1)
        for what, args in (("topic", (topic + "/y", payload, 1)), ("QoS", (topic, payload, 0)),
                           ("RETAIN", (topic, payload, 1, True))):
            d.publish(*args)
            tap.equal(d.wait_error().reason, 1, "reason for another " + what)
        other.publish(topic, payload, 1)
        tap.equal(other.wait_error().reason, 1, "reason for another client id")
        # Signed anew by the thief: the bind tells.
        body = ssdtf.split_trailer(payload)[0]
        packet_id = other.publish(topic, other.party.signed(topic, body, 1), 1)
        tap.equal(other.wait_error().reason, 2, "reason for another's ciphertext")
        other.wait_acked(packet_id)
        body = d.party.seal("plant", topic, b"x")
        packet_id = d.publish(topic + "/y", d.party.signed(topic + "/y", body, 1), 1)
        tap.equal(d.wait_error().reason, 2, "reason for another topic's ciphertext")
        d.wait_acked(packet_id)
        d.wait_acked(d.publish(topic, payload, 1, dup=True))
    sub.wait_deliveries(1)
    sub.quiet(0.2)
    tap.equal(len(sub.deliveries), 1, "deliveries")
    sub.close()


@tap.test
def stripped_on_the_way():
    "a client that sees its CONNECT changed, or a broker that is none, ends the connection"
    proxy = gateway.Proxy(g.address)
    proxy.change = flip(b"\x00\x04MQTT\x04", 7, 1000)  # connect flags, reserved bit
    r = pub(g, "dev-1", "plant/x", "-m", "x", "--retry", "2", address=proxy.address)
    tap.true(r.returncode != 0, "a reserved bit: exit code")

    def unclean(data):
        return data.replace(b"\x00\x04MQTT\x04\xc2", b"\x00\x04MQTT\x04\xc0")
    proxy.change = unclean
    r = pub(g, "dev-1", "plant/x", "-m", "x", "--retry", "2", address=proxy.address)
    tap.equal(r.returncode, clients.PROTOCOL, "clean session changed: exit code: " + r.stderr)
    proxy.close()
    # Another key in the place of the broker's.
    s = mqtt.Session(g.address, g.party("py-1"), authenticate=False)
    s.party.broker = g.party("rx-2").signing.public_key()
    s.send_connect()
    s.take_connack()
    try:
        s.answer(s.take_challenge())
        raise AssertionError("a challenge by another key was taken")
    except ssdtf.Refused:
        s.close()


# --- every reason -------------------------------------------------------------------------------

def refused(d, reason, payload, topic, acked, qos=1):
    packet_id = d.publish(topic, payload, qos)
    e = d.wait_error()
    tap.equal(e.reason, reason, "reason (%s)" % e.text)
    if acked:
        d.wait_acked(packet_id)
        at = [i for i, p in enumerate(d.log) if p.type == mqtt.PUBACK
              and p.packet_id == packet_id][0]
        before = [p for p in d.log[:at] if p.type == mqtt.PUBLISH and p.topic == ssdtf.ERROR]
        tap.equal(len(before), len(d.errors), "the error comes before its PUBACK")
    else:
        d.settle()
        tap.true(packet_id not in d.acked, "not acknowledged")
    return e


@tap.test
def reasons_of_senders():
    "reasons 1, 2, 3, 4 and 5 each say what they should, and are acknowledged as they should be"
    topic = "plant/reasons"
    with session("py-1") as d, connected("rx-1", "#") as sub:
        p = d.party
        first_counter = p.counter + 1
        d.wait_acked(d.seal_and_publish("plant", topic, b"fine"))
        spoilt = bytearray(p.sealed("plant", topic, b"x", 1))
        spoilt[-10] ^= 1
        e = refused(d, ssdtf.BAD_SIGNATURE, bytes(spoilt), topic, False)
        tap.equal(e.counter, p.counter, "counter that the error names")
        refused(d, ssdtf.MALFORMED, b"", topic, False)  # nothing that could be a signature
        refused(d, ssdtf.MALFORMED, p.signed(topic, b"no sealed payload", 1), topic, True)
        body = bytearray(p.seal("plant", topic, b"x"))
        body[125] = 1
        refused(d, ssdtf.MALFORMED, p.signed(topic, bytes(body), 1), topic, True)
        # enc that is no point: x of the vectors that none has
        body = bytearray(p.seal("plant", topic, b"x"))
        body[45:77] = bytes.fromhex("199c132cd330c99c0ee8d8166b99c83b"
                                    "a7476a7c3906ea015dc2752d4dff5887")
        refused(d, ssdtf.MALFORMED, p.signed(topic, bytes(body), 1), topic, True)
        p.counter += 200
        d.wait_acked(d.seal_and_publish("plant", topic, b"far ahead"))
        e = refused(d, ssdtf.REPLAYED, p.sealed("plant", topic, b"x", 1, counter=first_counter + 1),
                    topic, True)
        tap.equal(e.counter, first_counter + 1, "counter that the error names")
        unknown = ssdtf.Context(0xFFFFFFFF, 1, p.scope("plant").key)
        p.counter += 1
        refused(d, ssdtf.NO_KEY_ID,
                p.signed(topic, unknown.seal(p.id, topic, b"x", p.counter), 1), topic, True)
        # A scope's key on another scope's topic, and a scope that is not this device's.
        refused(d, ssdtf.NOT_PERMITTED, p.sealed("chem", topic, b"x", 1), topic, True)
        foreign = ssdtf.Context(next(s for s in all_scopes() if s.name == "secret").key_id, 1,
                                p.scope("plant").key)
        p.counter += 1
        refused(d, ssdtf.NOT_PERMITTED,
                p.signed("secret/x", foreign.seal(p.id, "secret/x", b"x", p.counter), 1),
                "secret/x", True)
        # What is refused uses up no counter, and an acknowledged one is only acknowledged again.
        again = p.sealed("plant", topic, b"twice", 1)
        d.wait_acked(d.publish(topic, again, 1))
        n = len(d.errors)
        d.wait_acked(d.publish(topic, again, 1, dup=True))
        d.wait_acked(d.publish(topic, again, 1))
        tap.equal(len(d.errors), n, "errors")
        sub.wait_deliveries(3)
        sub.quiet(0.2)
        tap.equal([x.plaintext for x in sub.deliveries if x.topic == topic],
                  [b"fine", b"far ahead", b"twice"], "delivered")


def all_scopes():
    """Every scope's record, out of the gateway's bundle."""
    r = ssdtf.Reader(ssdtf.Statement(gateway.read(g.bundle)).body)
    ssdtf.BrokerRecord(r)
    r.take(32)
    return r.list(lambda q: ssdtf.Scope(ssdtf.Reader(q.take(q.u(4)))), 4)


def small_gateway(**limits):
    """Another gateway of the same manager's, with py-1 and rx-small."""
    own = gateway.Gateway(g.manager, "gw-small", workers=1)
    own.limits = limits
    own.receiver("rx-small", "plant")
    os.mkdir(own.path("py-1"))
    for name in ("signing.pem", "manager.pub"):
        gateway.write(os.path.join(own.path("py-1"), name),
                      gateway.read(os.path.join(g.path("py-1"), name)))
    own.ids.append("py-1")
    return own.start()


@tap.test
def limits_of_a_gateway():
    "errors-per-second is kept, and the session lives; reason 6 for QoS 0 while the token is away"
    own = small_gateway(**{"errors-per-second": 50, "convert-deadline-ms": 200})
    with mqtt.Session(own.address, own.party("rx-small")) as sub, \
            mqtt.Session(own.address, own.party("py-1")) as d:
        for _ in range(3):
            for _ in range(100):
                d.publish("plant/x", d.party.signed("plant/x", b"malformed", 1), 1)
            d.quiet(0.25)
        # Those that were read before the first was judged are answered at once, and paid off in the
        # seconds after; how many that are is chance. None is left out.
        d.wait_acked(d.seal_and_publish("plant", "plant/x", b"fine"), 15 * tap.SCALE)
        tap.equal((len(d.errors), len(d.acked)), (300, 301), "errors, PUBACKs: all, and the last")
        d.quiet(1.0)
        d.seen_errors = len(d.errors)

        sub.subscribe("plant/six", qos=0)
        os.rename(own.token.dir, own.token.dir + ".away")
        own.kill_worker(0)  # else keys that are session objects live on
        d.seal_and_publish("plant", "plant/six", b"dropped", 0)
        tap.eventually(lambda: own.stats()["dropped_qos0"], "the delivery is dropped", 30.0)
        os.rename(own.token.dir + ".away", own.token.dir)
        e = d.wait_error(15 * tap.SCALE)  # signed now that the token is back
        tap.equal((e.reason, e.counter), (ssdtf.UNAVAILABLE, d.party.counter), "error")
        d.seal_and_publish("plant", "plant/six", b"again", 0)
        sub.wait_deliveries(1)
        tap.equal([x.plaintext for x in sub.deliveries], [b"again"], "delivered")
    own.stop()


@tap.test
def nacks():
    "nacks: a bad signature is made good once; what nobody can open is reported to the manager"
    topic = "plant/nack"
    with session("boss") as boss, connected("rx-1", topic, auto_ack=False) as sub, \
            session("py-1") as d:
        d.wait_acked(d.seal_and_publish("plant", topic, b"good"))
        first = sub.wait_deliveries(1)[0]
        head = struct.pack(">BQ", 1, first.counter) + bytes([4]) + b"py-1"
        sub.control(ssdtf.NACK, head)
        second = sub.wait_deliveries(2)[1]
        tap.equal((second.plaintext, second.dup, second.packet.packet_id),
                  (b"good", True, first.packet.packet_id), "sent again")
        sub.control(ssdtf.NACK, head)
        sub.settle()
        sub.quiet(0.3)
        tap.equal(len(sub.deliveries), 2, "a second nack changes nothing")
        sub.send(mqtt.puback(first.packet.packet_id))
        # A sender that seals a wrong commit: x(E') is right, so it is the sender's fault.
        bad = bytearray(d.party.seal("plant", topic, b"nobody opens this"))
        bad[77] ^= 1
        bad_counter = d.party.counter
        d.wait_acked(d.publish(topic, d.party.signed(topic, bytes(bad), 1), 1))
        p = sub.receive()
        try:
            sub.party.open(p.topic, p.first, p.payload)
            raise AssertionError("opened")
        except ssdtf.Refused:
            pass
        head = struct.pack(">BQ", 7, bad_counter) + bytes([4]) + b"py-1"
        sub.control(ssdtf.NACK, head)
        check_report(wait_report(boss, "rx-1"), "rx-1", ssdtf.NACK, head)
        sub.settle()
        tap.equal(len(sub.deliveries), 2, "not sent again")
        sub.send(mqtt.puback(p.packet_id))


def wait_report(boss, reporter):
    """The first report of this party's that the manager's client gets."""
    def look():
        for p in boss.others:
            if p.type == mqtt.PUBLISH and p.topic == ssdtf.REPORT:
                body, _ = boss.party.from_broker(p.topic, p.first, p.payload)
                if body[1:1 + body[0]].decode() == reporter:
                    return body
        return None
    return boss.wait_for(look, "a report of %s's" % reporter)


def check_report(body, reporter, topic, head):
    """The envelope to the manager: u8+ reporter || first || u16+ properties || as received."""
    n = body[0]
    tap.equal(body[1:1 + n].decode(), reporter, "reporter")
    first, rest = body[1 + n], body[2 + n:]
    tap.equal(rest[:2], b"\0\0", "properties")
    inner, trailer = ssdtf.split_trailer(rest[2:])
    ssdtf.verify_publish(g.party(reporter).signing.public_key(), first, topic, inner, trailer,
                         reporter)
    tap.equal(inner[:len(head)], head, "what the reporter said")


@tap.test
def reports():
    "a report reaches the manager's client, at once or when it comes; a malformed one is refused"
    head = struct.pack(">BQ", 5, 77) + bytes([4]) + b"py-2" + ssdtf.u16p(b"it should know better")
    with session("py-1") as d:
        d.wait_acked(d.control(ssdtf.REPORT, head, 1))
        d.control(ssdtf.REPORT, b"\x09" + head[1:], 1)
        tap.equal(d.wait_error().reason, 2, "reason for an unknown reason")
        d.control_n -= 2
        d.control(ssdtf.REPORT, head, 1)
        tap.equal(d.wait_error().reason, 2, "reason for a number used before")
    with session("boss") as boss:
        check_report(wait_report(boss, "py-1"), "py-1", ssdtf.REPORT, head)
        boss.settle()
        tap.equal(sum(p.type == mqtt.PUBLISH for p in boss.others), 1, "reports")


# --- coming back --------------------------------------------------------------------------------

@tap.test
def reconnect():
    "publisher and receivers come back after a restart of the broker, and nothing is sent twice"
    sub = Sub(g, "rx-1", "plant/reconnect")
    p = Pub(g, "dev-1", "plant/reconnect", "-q", "1")
    p.line(*("a%d" % i for i in range(20)))
    sub.wait_messages(20)
    tap.equal(g.broker.stop(), 0, "exit code of the broker")
    p.line(*("b%d" % i for i in range(20)))
    time.sleep(0.3)
    g.start_broker()
    sub.wait_subscribed(2)
    p.wait_open(2)
    p.line(*("c%d" % i for i in range(20)))
    tap.equal(p.finish(), 0, "exit code of ssdtf-pub: all was acknowledged")
    sub.wait_text_message("c19")
    texts = sub.texts()
    tap.equal(len(texts), len(set(texts)), "nothing twice")
    # What the broker took before the receiver was back was for nobody: its session was clean.
    tap.equal([t for t in texts if t[0] != "b"],
              ["a%d" % i for i in range(20)] + ["c%d" % i for i in range(20)], "texts")
    sub.stop()


@tap.test
def counters():
    "a sender's counter never comes back, over restarts and power cuts"
    sub = Sub(g, "rx-1", "plant/counters")
    for i in range(12):
        p = Pub(g, "dev-2", "plant/counters", "-q", "1", "--reserve", str(1 + 7 * (i % 3)))
        p.wait_open()
        p.line(*("%d.%d" % (i, n) for n in range(40)))
        if i % 2:
            tap.equal(p.finish(), 0, "exit code")
        else:
            time.sleep(0.004 * i)
            p.kill()
    pub_ok(g, "dev-2", "plant/counters", "-q", "1", "-m", "end")
    sub.wait_text_message("end")
    got = sub.messages()
    by_counter = {}
    for m in got:
        before = by_counter.setdefault(m["counter"], m["payload"])
        tap.equal(m["payload"], before, "one counter, one message")
    values = [m["counter"] for m in got]
    tap.equal(values, sorted(set(values)), "counters ascend")
    for i in range(1, 12, 2):
        tap.equal(sum(m["payload"].startswith("%d." % i) for m in got), 40, "of the whole runs")
    sub.stop()


@tap.test
def one_directory_one_process():
    "two publishers on one directory: the second is refused and the first goes on"
    first = Pub(g, "dev-1", "plant/two", "-q", "1")
    first.wait_open()
    r = pub(g, "dev-1", "plant/two", "-m", "x")
    tap.equal(r.returncode, clients.TEMPFAIL, "exit code")
    tap.true("in use" in r.stderr, r.stderr)
    sub = Sub(g, "rx-1", "plant/two")
    first.line("still here")
    sub.wait_text_message("still here")
    tap.equal(first.finish(), 0, "exit code of the first")
    sub.stop()


@tap.test
def many_in_flight():
    "thousands of lines at once: all acknowledged, all delivered once and in order"
    sub = Sub(g, "rx-1", "chem/many")
    texts = ["%d" % i for i in range(3000)]
    pub_ok(g, "dev-1", "chem/many", "-q", "1", "-l", stdin="\n".join(texts) + "\n")
    sub.wait_messages(len(texts), 30)
    tap.equal(sub.texts(), texts, "texts")
    sub.stop()


@tap.test
def burst():
    "bursts of large messages from several senders: a receiver that reads is not cut off"
    senders = ["dev-burst-%d" % i for i in range(8)]
    for d in senders:
        g.device(d, "plant")
    g.update()
    sub = Sub(g, "rx-1", "plant/burst/#")
    text = "x" * 16000
    pubs = [Pub(g, d, "plant/burst/" + d, "-q", "1") for d in senders]
    for p in pubs:
        p.wait_open()
    feeders = [threading.Thread(target=p.line, args=["%03d %s" % (i, text) for i in range(100)])
               for p in pubs]
    for f in feeders:
        f.start()
    for f in feeders:
        f.join()
    for p in pubs:
        tap.equal(p.finish(), 0, "exit code")
    sub.wait_messages(8 * 100, 30)
    for d in senders:
        tap.equal([m["payload"][:3] for m in sub.messages() if m["origin"] == d],
                  ["%03d" % i for i in range(100)], "what arrived of " + d)
    sub.stop()


@tap.test
def in_good_order():
    "SIGTERM ends broker and hsmd with 0, and nothing is left behind"
    g.stop()
    left = sorted(os.listdir(g.run_dir))
    tap.true(set(left) <= {"hsmd.lock", "token.lock"}, "left in the socket directory: %r" % left)


tap.main(setup)
