#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""SSDTF-ZK-1 with the real programs: the id is the key, the response to the challenge ends in a
proof of knowing its logarithm, and nothing else opens the session of who is enrolled so."""

import os
import re

import clients
import gateway
import mqtt
import ssdtf
import tap
from clients import Sub, pub, pub_ok

g = None
ids = {}


def setup():
    global g
    g = gateway.Gateway()
    g.limits = {"errors-per-second": 100000}
    g.scope("plant", "plant/#")
    for name in ("pub", "py"):
        enrol_zk("device", name)
        g.manager.admin("scope", "allow", "--scope", "plant", "--device", ids[name])
    enrol_zk("receiver", "sub")
    g.grant(ids["sub"], "plant", proof=True)
    g.device("dev-1", "plant")
    g.receiver("rx-1", "plant", proof=True)
    g.start()
    tap.after_each(g.mend)


def enrol_zk(role, name):
    """Without --id: it comes of the key, which is made first and then its folder's name."""
    made = os.path.join(g.parties_dir, "new")
    os.mkdir(made, 0o700)
    said = g.manager.admin("enrol", role, "--zk", "--generate", made)
    ids[name] = re.search(r"enrolled id=(\S{44}) roles=%s" % role, said).group(1)
    os.rename(made, g.path(ids[name]))
    gateway.write(os.path.join(g.path(ids[name]), "manager.pub"), gateway.read(g.manager.public))
    g.ids.append(ids[name])


def zk_party(name):
    return ssdtf.Party(g.path(ids[name]), zk=True)


@tap.test
def vectors():
    "the tests' own implementation agrees with tests/vectors/zk.json"
    ssdtf.check_zk(os.path.join(gateway.SOURCE, "tests", "vectors", "zk.json"))
    for name, party_id in ids.items():
        p = ssdtf.Party(g.path(party_id))
        tap.equal(party_id, ssdtf.zk_id(p.signing.public_key()), "id of " + name)


@tap.test
def end_to_end():
    "ssdtf-pub and ssdtf-sub by SSDTF-ZK-1, beside parties that authenticate by SSDTF-1"
    subs = [Sub(g, ids["sub"], "plant/#", more=("--auth", "zk")), Sub(g, "rx-1", "plant/#")]
    pub_ok(g, ids["pub"], "plant/a", "--auth", "zk", "-m", "of a key")
    pub_ok(g, "dev-1", "plant/a", "--auth", "ecdsa", "-m", "of a name")
    for sub in subs:
        sub.wait_messages(2)
        tap.equal([m["origin"] for m in sub.messages()], [ids["pub"], "dev-1"], "origins")
        tap.equal(sub.texts(), ["of a key", "of a name"], "texts")
        sub.stop()


@tap.test
def another_implementation():
    "a client written from the page alone; its messages are signed as ever"
    with_proof = mqtt.Session(g.address, zk_party("py"))
    with_proof.seal_and_publish("plant", "plant/py", b"hello")
    with_proof.wait_for(lambda: with_proof.acked, "PUBACK")
    with_proof.close()


def fails(party, why):
    n = g.stats()["auth_failed"]
    opened = True
    try:
        mqtt.Session(g.address, party).close()
    except mqtt.Closed:
        opened = False
    tap.true(not opened, "no session opens: " + why)
    tap.equal(g.stats()["auth_failed"], n + 1, "authentications that failed: " + why)


@tap.test
def only_by_proof():
    "who is enrolled so cannot sign in its place, and who is not cannot prove"
    fails(ssdtf.Party(g.path(ids["py"])), "a signature of the right key")
    fails(ssdtf.Party(g.path("dev-1"), zk=True), "a proof of one that is to sign")
    r = pub(g, ids["pub"], "plant/a", "--retry", "1", "-m", "x")
    tap.true(r.returncode != 0, "ssdtf-pub without --auth zk: %d" % r.returncode)
    r = pub(g, "dev-1", "plant/a", "--auth", "zk", "-m", "x")
    tap.equal(r.returncode, 65, "ssdtf-pub --auth zk of one whose id is a name")
    r = pub(g, "dev-1", "plant/a", "--auth", "maybe", "-m", "x")
    tap.equal(r.returncode, clients.USAGE, "--auth maybe")


class Bent(ssdtf.Party):
    """Its proofs are changed on their way."""

    def __init__(self, change):
        super().__init__(g.path(ids["py"]), zk=True)
        self.change = change

    def proved(self, topic, body, qos=0):
        return self.change(self, super().proved(topic, body, qos), topic)


def flip(at):
    def change(_party, payload, _topic):
        payload = bytearray(payload)
        payload[at] ^= 0x10
        return bytes(payload)
    return change


def of_another_body(at):
    """A proof that holds, of a body that is not the one asked for."""
    def change(party, payload, topic):
        body = bytearray(payload[:-66])
        body[at] ^= 1
        return ssdtf.Party.proved(party, topic, bytes(body))
    return change


def negated(_party, payload, _topic):
    body, v, s = payload[:-66], payload[-66:-33], int.from_bytes(payload[-33:-1], "big")
    return (body + bytes([v[0] ^ 1]) + v[1:] + (ssdtf.ORDER - s).to_bytes(32, "big") + b"\x03")


@tap.test
def what_is_no_proof():
    "bits flipped, other nonces or another broker proved, the negative, no point at all"
    for at in (0, 40, 70, -66, -50, -33, -2, -1):
        fails(Bent(flip(at)), "byte %d" % at)
    for at in (0, 32, 64):
        fails(Bent(of_another_body(at)), "body byte %d" % at)
    fails(Bent(negated), "-V, -s")
    fails(Bent(lambda _p, payload, _t: payload[:-66] + bytes(33) + payload[-33:]), "infinity")
    mqtt.Session(g.address, zk_party("py")).close()


@tap.test
def the_id_is_the_key():
    "an id that is given must be the key's; the key cannot be replaced under it"
    path = os.path.join(g.base, "zk-other")
    os.mkdir(path, 0o700)
    r = g.manager.admin_result("enrol", "device", "--zk", "--id", "a-name", "--generate", path)
    tap.equal(r.returncode, 65, "exit code")
    tap.true("the id is made of the key" in r.stderr, r.stderr)
    r = g.manager.admin_result("enrol", "device", "--generate", path)
    tap.equal(r.returncode, 64, "exit code without --id and --zk")


tap.main(setup)
