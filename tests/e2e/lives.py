#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""Lives of devices and receivers with the real programs, from the claim of a key to its change:
ssdtf-claim, ssdtf-pub and ssdtf-sub beside ssdtf-admin, ssdtf-broker and ssdtf-hsmd."""

import os
import re
import shutil
import subprocess

import gateway
import tap
from clients import OK, NOPERM, Pub, Sub, options, pub, pub_ok

g = None


def setup():
    global g
    g = gateway.Gateway()
    g.scope("plant", "plant/#")
    g.scope("brief", "brief/#")
    g.device("dev-1", "plant", "brief")
    g.receiver("rx-1", "plant", "brief", proof=True)
    g.receiver("rx-2", "plant")
    g.enrol("manager", "mgr-1")
    g.start()
    tap.after_each(g.mend)


def state(*ids):
    """Bundles are made, but of those for parties only these are delivered: the others learn what is
    new from the broker."""
    kept = {i: gateway.read(os.path.join(g.path(i), "bundle")) for i in g.ids if i not in ids}
    g.update()
    for i, bundle in kept.items():
        gateway.write(os.path.join(g.path(i), "bundle"), bundle)


def key_ids(party):
    """Of the updates that it took, in order."""
    return re.findall(r"update: \S+ plant key-id=(\d+)", party.text())


# --- a new epoch --------------------------------------------------------------------------------

@tap.test
def epoch():
    "rotate scope: who runs switches by itself, nothing is lost or out of order, a restart stays"
    sub, other = Sub(g, "rx-1", "plant/#"), Sub(g, "rx-2", "plant/#")
    dev = Pub(g, "dev-1", "plant/epoch", "-q", "1")
    texts = []

    def lines(n):
        more = ["line %d" % (len(texts) + i) for i in range(n)]
        texts.extend(more)
        dev.line(*more)

    dev.wait_open()
    lines(20)
    sub.wait_messages(len(texts))
    lines(20)  # on their way
    g.manager.admin("rotate", "scope", "--name", "plant")
    state()
    dev.wait_text(r"update: scope plant")
    for s in (sub, other):
        s.wait_text(r"update: grant plant")
    lines(20)
    tap.equal(dev.finish(), OK, "exit code")
    for s in (sub, other):
        s.wait_messages(len(texts))
        tap.equal(s.texts(), texts, "what %s printed" % s.name)
        grants = [m["grant"] for m in s.messages()]
        tap.equal(len(set(grants)), 2, "grants, one an epoch")
        tap.true(grants[0] != grants[-1], "the new one in the end")
        tap.equal(s.stop(), OK, "exit code")
    newest = sub.messages()[-1]["grant"]
    # Started anew with the bundle of the first day: what was stated since is in the directory.
    sub = Sub(g, "rx-1", "plant/#")
    pub_ok(g, "dev-1", "plant/epoch", "-m", "again", "-q", "1")
    sub.wait_messages(1)
    tap.equal(sub.messages()[0]["grant"], newest, "grant")
    tap.equal(key_ids(sub), [], "updates that were had already")
    tap.equal(sub.stop(), OK, "exit code")


@tap.test
def slept_through():
    "who was away while the old key ran out is told when it is back, and its message gets through"
    g.manager.admin("rotate", "scope", "--name", "brief", "--overlap-hours", "0")
    state("rx-1")
    sub = Sub(g, "rx-1", "brief/#")
    r = pub(g, "dev-1", "brief/slept", "-m", "awake", "-q", "1", "-d")
    tap.equal(r.returncode, OK, "exit code (%s)" % r.stderr)
    tap.true("update: scope brief" in r.stderr, r.stderr)
    sub.wait_text_message("awake")
    tap.equal(sub.stop(), OK, "exit code")


# --- other keys ---------------------------------------------------------------------------------

@tap.test
def encryption_key():
    "rotate party: a receiver with its new and its old encryption key opens what is for either"
    path = g.path("rx-2")
    fresh = os.path.join(g.base, "fresh")
    pub_ok(g, "dev-1", "plant/kept", "-m", "before", "-q", "1", "-r")
    os.mkdir(fresh, 0o700)
    g.manager.admin("rotate", "party", "--id", "rx-2", "--generate", fresh)
    os.rename(os.path.join(path, "encryption.pem"), os.path.join(path, "encryption.old.pem"))
    for name in ("encryption.pem", "signing.pem"):
        os.rename(os.path.join(fresh, name), os.path.join(path, name))
    state("rx-2")
    sub = Sub(g, "rx-2", "plant/#")
    sub.wait_text_message("before")
    pub_ok(g, "dev-1", "plant/kept", "-m", "after", "-q", "1")
    sub.wait_text_message("after")
    tap.equal(sub.stop(), OK, "exit code")


@tap.test
def signing_key():
    "rotate party: a device's new signing key is believed by a receiver that runs and checks proofs"
    path, fresh = g.path("dev-1"), os.path.join(g.base, "fresh-dev")
    sub = Sub(g, "rx-1", "plant/signed")
    os.mkdir(fresh, 0o700)
    g.manager.admin("rotate", "party", "--id", "dev-1", "--generate", fresh)
    pub_ok(g, "dev-1", "plant/signed", "-m", "by the old key", "-q", "1")
    state("dev-1")
    sub.wait_text("update: party dev-1")
    os.rename(os.path.join(fresh, "signing.pem"), os.path.join(path, "signing.pem"))
    pub_ok(g, "dev-1", "plant/signed", "-m", "by the new key", "-q", "1")
    sub.wait_messages(2)
    tap.equal(sub.texts(), ["by the old key", "by the new key"], "texts")
    tap.equal(sub.stop(), OK, "exit code")


# --- padding ------------------------------------------------------------------------------------

@tap.test
def padded():
    "a padded scope: all of a size class have one size on the wire, and arrive as they were"
    g.manager.admin("scope", "add", "--name", "quiet", "--filter", "quiet/#", "--padded")
    g.manager.admin("scope", "allow", "--scope", "quiet", "--device", "dev-1")
    g.grant("rx-1", "quiet", proof=True)
    g.update()
    sub = Sub(g, "rx-1", "quiet/#", more=["--dump-wire"])
    texts = ["1", "a little longer", "x" * 31, "y" * 32]
    for t in texts:
        pub_ok(g, "dev-1", "quiet/a", "-m", t, "-q", "1")
    sub.wait_messages(len(texts))
    tap.equal(sub.texts(), texts, "texts")
    sizes = [len(m["wire"]) for m in sub.messages()]
    tap.equal(len(set(sizes[:3])), 1, "sizes of one class: %r" % sizes)
    tap.equal(sizes[3] - sizes[0], 2 * 32, "the next class, in hex")
    tap.equal(sub.stop(), OK, "exit code")


# --- claims -------------------------------------------------------------------------------------

def codes(*ids):
    """Files with claim codes of devices that are enrolled by a file."""
    out = os.path.join(g.base, "codes-" + ids[0])
    os.mkdir(out, 0o700)
    csv = os.path.join(out, "devices.csv")
    gateway.write(csv, "id,scopes,clock,keys\n" + "".join("%s,plant,yes,\n" % i for i in ids))
    g.manager.admin("enrol", "csv", "--gateway", g.id, "--out-dir", out, csv)
    g.update()
    return [os.path.join(out, i + ".claim") for i in ids]


def claim_args(party_id, code):
    host, port = g.address
    return [gateway.program("claim"), "--dir", g.path(party_id), "--code", code, "-h", host, "-p",
            str(port), "-d"]


class Serve(gateway.Process):
    of_test = True

    def __init__(self):
        super().__init__("serve", [
            gateway.program("admin"), "--dir", g.manager.dir, "serve", "--gateway", g.id,
            "--party-dir", g.path("mgr-1"), *options(g, "mgr-1", [])[2:]], g.manager.token.env)
        self.wait_text("event=open")


@tap.test
def claims():
    "ssdtf-claim: a code becomes a party, which publishes; it waits for the manager to be there"
    first, second = codes("new-1", "new-2")
    waiting = gateway.Process("claim", claim_args("new-1", first))
    waiting.wait_text("not yet: no manager is here")
    serve = Serve()
    tap.equal(waiting.wait(), OK, "exit code (%s)" % waiting.text())
    r = gateway.run(claim_args("new-2", second))
    tap.equal(r.returncode, OK, "exit code (%s)" % r.stderr)
    sub = Sub(g, "rx-2", "plant/new")
    for party in ("new-1", "new-2"):
        pub_ok(g, party, "plant/new", "-m", party, "-q", "1")
    sub.wait_messages(2)
    tap.equal(sorted(sub.texts()), ["new-1", "new-2"], "texts")
    tap.equal(sub.stop(), OK, "exit code")
    # Another device with the same code is late.
    shutil.move(g.path("new-2"), g.path("new-2") + ".was")
    r = gateway.run(claim_args("new-2", second))
    tap.equal(r.returncode, NOPERM, "exit code (%s)" % r.stderr)
    tap.equal(serve.stop(), OK, "exit code")


@tap.test
def killed_while_claiming():
    "kill -9 at any moment: started again it is certified, by the same key"
    serve = Serve()
    n = tap.rounds(6)
    files = codes(*["kill-%d" % i for i in range(n)])
    for i, code in enumerate(files):
        p = subprocess.Popen(claim_args("kill-%d" % i, code), stderr=subprocess.DEVNULL)
        try:
            p.wait(0.04 * (i + 1))
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
        before = os.path.join(g.path("kill-%d" % i), "signing.pem")
        key = gateway.read(before) if os.path.exists(before) else None
        r = gateway.run(claim_args("kill-%d" % i, code))
        tap.equal(r.returncode, OK, "exit code (%s)" % r.stderr)
        tap.true(key in (None, gateway.read(before)), "one key")
        pub_ok(g, "kill-%d" % i, "plant/killed", "-m", "x", "-q", "1")
    tap.equal(serve.stop(), OK, "exit code")


tap.main(setup)
