#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""ssdtf-claim (PROTOCOL 15) against a broker in Python that answers as the test wishes: what it
sends, what it keeps, what it takes and what it refuses."""

import os
import signal
import stat
import struct

from cryptography.hazmat.primitives import serialization

import fake
import gateway
import ssdtf
import tap

OK, USAGE, DATAERR, NOINPUT, UNAVAILABLE, CANTCREAT, TEMPFAIL, PROTOCOL, NOPERM = (
    0, 64, 65, 66, 69, 73, 75, 76, 77)
ID = "dev-new"


class Place:
    """A manager, a broker, a code, and the directory that is to become the device's."""

    def __init__(self, answers):
        """answers: what is said to the first claim, the second, ...: functions of the Place and the
        claim; the last one is said to all further ones. None: nothing is."""
        self.manager, self.secret = fake.Manager(), os.urandom(16)
        self.answers, self.claims = answers, []
        self.certified_key = None  # then that is the party's, and the code's is nobody's
        self.broker = fake.Broker(lambda _: self.certified_key or self.code.signing().public_key(),
                                  self.on_message)
        self.text = ssdtf.Claim.code(ID, self.secret, self.manager.key.public_key(), "gw-1",
                                     self.broker.key.public_key())
        self.code = ssdtf.Claim(self.text)
        self.base = gateway.folder()
        self.dir = os.path.join(self.base, ID)
        self.code_file = os.path.join(self.base, "code")
        gateway.write(self.code_file, self.text + "\n")

    def on_message(self, session, p):
        tap.equal((p.topic, p.qos, p.retain), (ssdtf.CLAIM, 0, False), "a claim")
        claim = Request(self.code, session, session.take_signed(p))
        self.claims.append(claim)
        answer = self.answers[min(len(self.claims), len(self.answers)) - 1]
        if answer:
            session.say_counted(ssdtf.CLAIM, answer(self, claim))

    def args(self, *more, code=None):
        host, port = self.broker.address
        return [gateway.program("claim"), "--dir", self.dir, "--code", code or self.code_file,
                "-h", host, "-p", str(port), *more]

    def run(self, *more, stdin=None, code=None):
        return gateway.run(self.args(*more, code=code), stdin=stdin)

    def files(self):
        return sorted(os.listdir(self.dir))

    def key(self, name="signing.pem"):
        return serialization.load_pem_private_key(gateway.read(os.path.join(self.dir, name)), None)

    def close(self):
        self.broker.close()


class Request:
    """A claim, taken apart and its own signature checked."""

    def __init__(self, code, session, body):
        r = ssdtf.Reader(body)
        tap.equal(r.u(1), 1, "kind")
        self.key, self.answer, signature = r.take(65), r.take(65), r.take(64)
        tap.equal(r.take(32), session.r_b, "R_b")
        self.n = r.u(4)
        tap.equal(r.data, b"", "bytes behind")
        ssdtf.verify(ssdtf.point_parse(self.key), b"ssdtf-claim-1" + ssdtf.u8p(code.id.encode())
                     + self.key + self.answer + session.r_b, signature)


def said(result, text="", enc=bytes(65), sealed=b""):
    return (struct.pack(">BB", 4, result) + ssdtf.u16p(text.encode()) + enc + ssdtf.u32p(sealed))


def sealed_to(claim, bundle):
    enc, hpke = ssdtf.hpke_to(ssdtf.point_parse(claim.answer), b"ssdtf-claim-1")
    return said(0, "", enc, hpke.seal(0, b"", bundle))


def bundle_of(place, claim, **other):
    """What certifies the claim; other: where it is to be another's."""
    fields = {"party_id": ID, "signing": claim.key, "k_adm": place.code.k_adm(),
              "broker": fake.broker_record("gw-1", fake.point(place.broker.key)),
              "scopes": [fake.scope(7, 1, "plant", fake.point(place.manager.key), ["plant/#"])]}
    fields.update(other)
    return (fields.pop("manager", place.manager)).bundle(**fields)


def certify(place, claim):
    return sealed_to(claim, bundle_of(place, claim))


def refuse(_place, _claim):
    return said(1, "the code was used")


def later(_place, _claim):
    return said(2, "no manager is connected")


def expect_failure(result, code, words):
    tap.equal(result.returncode, code, "exit code (%s)" % result.stderr)
    lines = [line for line in result.stderr.splitlines() if "error" in line or "ssdtf-claim: " in
             line]
    tap.true(words in result.stderr, "%r in %r" % (words, result.stderr))
    tap.true(lines and words in lines[-1], "the last line says it: %r" % result.stderr)


@tap.test
def certified():
    "a claim is made, signed by the new key, and what is certified becomes the party's directory"
    place = Place([certify])
    r = place.run()
    tap.equal(r.returncode, OK, "exit code (%s)" % r.stderr)
    tap.equal(place.files(), ["bundle", "manager.pub", "signing.pem"], "files")
    for name in ("bundle", "signing.pem"):
        mode = stat.S_IMODE(os.stat(os.path.join(place.dir, name)).st_mode)
        tap.equal(mode, 0o600, "mode of " + name)
    tap.equal(stat.S_IMODE(os.stat(place.dir).st_mode), 0o700, "mode of the directory")
    tap.equal(fake.point(place.key()), place.claims[0].key, "the key claimed is the one kept")
    tap.true(place.claims[0].key != fake.point(place.code.signing()), "it is not the code's")
    party = ssdtf.Party(place.dir)  # which checks that all fits
    tap.equal((party.id, party.bundle.k_adm), (ID, place.code.k_adm()), "the party")
    tap.equal(len(place.claims), 1, "claims")
    # Again: it is done, and nobody is asked.
    r = place.run()
    tap.equal((r.returncode, len(place.claims)), (OK, 1), "exit code, claims")
    place.close()


@tap.test
def from_standard_input():
    "the code comes from standard input, too, with space around it; the token is the code's"
    place = Place([certify])
    tokens = []
    place.broker.on_open = lambda s: tokens.append(s.token)
    r = place.run("--no-clock", stdin=" \n" + place.text + "\r\n\n", code="-")
    tap.equal(r.returncode, OK, "exit code (%s)" % r.stderr)
    tap.equal(tokens[0][:5], b"\1" + bytes(4), "a token without a clock")
    place.close()


@tap.test
def try_again():
    "where the answer is to try again it does, later; the same key is claimed, with growing numbers"
    place = Place([later, later, certify])
    r = place.run()
    tap.equal(r.returncode, OK, "exit code (%s)" % r.stderr)
    tap.true("no manager is connected" in r.stderr, r.stderr)
    tap.equal(len(place.claims), 3, "claims")
    tap.equal(len({c.key for c in place.claims}), 1, "keys")
    numbers = [c.n for c in place.claims]
    tap.equal(numbers, sorted(set(numbers)), "n grows")
    place.close()


@tap.test
def killed():
    "killed before the answer, it claims the same key when it is started again"
    place = Place([None, certify])
    p = gateway.Process("claim", place.args("-d"))
    tap.eventually(lambda: place.claims, "a claim")
    tap.equal(place.files(), ["answer.pem", "signing.pem"], "files")
    p.kill()
    r = place.run()
    tap.equal(r.returncode, OK, "exit code (%s)" % r.stderr)
    tap.equal(place.claims[0].key, place.claims[1].key, "one key")
    tap.equal(place.claims[0].answer, place.claims[1].answer, "one answer key")
    tap.equal(place.files(), ["bundle", "manager.pub", "signing.pem"], "files")
    place.close()


@tap.test
def lost_answer():
    "where it was certified and the answer is lost, it asks again by its new key, which is its own"
    place = Place([None, certify])
    was = place.on_message

    def lose(session, p):
        was(session, p)
        place.certified_key = ssdtf.point_parse(place.claims[0].key)
        if len(place.claims) == 1:
            session.close()
    place.broker.on_message = lose
    r = place.run("-d")
    tap.equal(r.returncode, OK, "exit code (%s)" % r.stderr)
    tap.equal(place.claims[0].key, place.claims[1].key, "one key")
    tap.true("by the new key" in r.stderr, r.stderr)
    ssdtf.Party(place.dir)
    tap.true(any("bad signature" in f for f in place.broker.failures), "the code's was tried")
    place.broker.failures.clear()
    place.close()


@tap.test
def stopped():
    "SIGTERM ends it at once, with 75: nothing was certified"
    place = Place([None])
    p = gateway.Process("claim", place.args("-d"))
    tap.eventually(lambda: place.claims, "a claim")
    p.signal(signal.SIGTERM)
    tap.equal(p.wait(), TEMPFAIL, "exit code")
    place.close()


@tap.test
def late():
    "-W ends it where no answer comes"
    place = Place([None])
    expect_failure(place.run("-W", "1"), TEMPFAIL, "not certified within 1 s")
    place.close()


@tap.test
def refused():
    "a claim that is refused for good ends it with the manager's words"
    place = Place([refuse])
    expect_failure(place.run(), NOPERM, "the code was used")
    tap.equal(place.files(), ["answer.pem", "signing.pem"], "files")
    place.close()


def wrong_answers():
    """What is said in the manager's name, and is not what was claimed."""
    other = fake.Manager()
    stranger = fake.point(fake.key())
    return {
        "another manager's": lambda p, c: sealed_to(c, bundle_of(p, c, manager=other)),
        "another id's": lambda p, c: sealed_to(c, bundle_of(p, c, party_id="dev-2")),
        "another key's": lambda p, c: sealed_to(c, bundle_of(p, c, signing=stranger)),
        "another gateway's": lambda p, c: sealed_to(c, bundle_of(
            p, c, broker=fake.broker_record("gw-2", stranger))),
        "cut": lambda p, c: sealed_to(c, bundle_of(p, c)[:-1]),
        "sealed to another": lambda p, c: said(0, "", *other_seal(bundle_of(p, c))),
        "empty": lambda p, c: said(0),
    }


def other_seal(bundle):
    enc, hpke = ssdtf.hpke_to(fake.key().public_key(), b"ssdtf-claim-1")
    return enc, hpke.seal(0, b"", bundle)


@tap.test
def wrong_bundles():
    "a bundle that is not for this id, key, manager and gateway is not kept; the right one then is"
    wrong = wrong_answers()
    for what, answer in list(wrong.items()):
        place = Place([answer, certify])
        r = place.run()
        tap.equal(r.returncode, OK, "exit code behind one that is %s (%s)" % (what, r.stderr))
        tap.true("cannot be used" in r.stderr, "%s: %r" % (what, r.stderr))
        ssdtf.Party(place.dir)
        place.close()


@tap.test
def wrong_bundles_only():
    "where nothing else comes, it gives up: 76"
    place = Place([wrong_answers()["another manager's"]])
    r = place.run()
    expect_failure(r, PROTOCOL, "not signed by the manager")
    tap.equal(len(place.claims), 3, "claims")
    tap.equal(place.files(), ["answer.pem", "signing.pem"], "files")
    place.close()


@tap.test
def forged_answers():
    "answers that the broker did not sign, or of another session, are not heard"
    place = Place([None])

    def forge(session, p):
        claim = Request(place.code, session, session.take_signed(p))
        body = certify(place, claim)
        session.say(ssdtf.CLAIM, body + session.r_b + struct.pack(">I", 1), signer=fake.key())
        session.say(ssdtf.CLAIM, body + os.urandom(32) + struct.pack(">I", 1))
        session.say(ssdtf.CLAIM, body + session.r_b)
        place.on_message_was(session, p)

    place.on_message_was, place.broker.on_message = place.on_message, forge
    place.answers = [refuse]
    expect_failure(place.run(), NOPERM, "the code was used")
    place.close()


@tap.test
def another_broker():
    "a broker that is not the code's gets no claim: 76"
    place = Place([certify])
    place.broker.key = fake.key()
    expect_failure(place.run(), PROTOCOL, "failed to prove itself")
    tap.equal(place.claims, [], "claims")
    place.broker.failures.clear()  # it was left in the middle of a handshake
    place.close()


@tap.test
def refusals():
    "what cannot be is refused in one line, with the code of its kind"
    place = Place([certify])

    def refused_with(code, words, *args):
        expect_failure(gateway.run([gateway.program("claim"), *args]), code, words)

    refused_with(USAGE, "--dir is missing", "--code", "-")
    refused_with(USAGE, "--code is missing", "--dir", place.dir)
    refused_with(USAGE, "no arguments", "--dir", place.dir, "--code", "-", "more")
    refused_with(USAGE, "-p takes a number", "--dir", place.dir, "--code", "-", "-p", "x")
    refused_with(NOINPUT, "No such file", "--dir", place.dir, "--code", place.dir + "/none")
    gateway.write(place.code_file, place.text[:-1])
    expect_failure(place.run(), DATAERR, "no claim code")
    gateway.write(place.code_file, "")
    expect_failure(place.run(), DATAERR, "no claim code")
    tap.true(not os.path.exists(place.dir), "nothing was made for them")
    gateway.write(place.code_file, place.text)
    gateway.write(os.path.join(place.base, "file"), "")
    r = gateway.run([gateway.program("claim"), "--dir", os.path.join(place.base, "file"), "--code",
                     place.code_file])
    expect_failure(r, NOINPUT, "Not a directory")
    os.mkdir(place.dir, 0o700)
    gateway.write(os.path.join(place.dir, "bundle"), "another's")
    expect_failure(place.run(), CANTCREAT, "give another directory")
    os.unlink(os.path.join(place.dir, "bundle"))
    gateway.write(os.path.join(place.dir, "signing.pem"), "no key")
    expect_failure(place.run(), DATAERR, "no private key")
    tap.equal(place.claims, [], "claims")
    place.close()
    os.unlink(os.path.join(place.dir, "signing.pem"))
    expect_failure(place.run("--retry", "0"), UNAVAILABLE, "refused")
    r = gateway.run([gateway.program("claim"), "--help"])
    tap.equal((r.returncode, r.stderr), (OK, ""), "--help")


tap.main()
