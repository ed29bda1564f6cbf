#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""Bad input to the real programs: bundles, configuration, PIN, token, files, and MQTT that is
none. Each is refused with words and an exit code, and harms nobody else."""

import os
import random
import socket
import struct
import time

import clients
import gateway
import mqtt
import ssdtf
import tap

g = None  # the gateway that runs
other = None  # another manager's, of the same id

USAGE, DATAERR, NOINPUT, UNAVAILABLE, CANTCREAT, TEMPFAIL, NOPERM, CONFIG = (
    64, 65, 66, 69, 73, 75, 77, 78)


def setup():
    global g, other
    g = gateway.Gateway()
    g.limits = {"connect-timeout-ms": 1500, "auth-timeout-ms": 1500, "packet-bytes-max": 65536,
                "errors-per-second": 100000}
    g.scope("plant", "plant/#")
    g.device("dev-1", "plant")
    g.device("py-1", "plant")
    g.receiver("rx-1", "plant")
    g.receiver("rx-2", "plant")
    other = gateway.Gateway(workers=1)
    other.scope("plant", "plant/#")
    other.device("dev-1", "plant")
    other.deliver()
    g.start()
    tap.after_each(g.mend)


def session(party_id, **named):
    return mqtt.Session(g.address, g.party(party_id), **named)


def works(text):
    """A message goes through."""
    with session("rx-1") as r, session("py-1") as d:
        tap.equal(r.subscribe("plant/works"), [1], "SUBACK")
        d.wait_acked(d.seal_and_publish("plant", "plant/works", text.encode()))
        tap.equal(r.wait_deliveries(1)[0].plaintext, text.encode(), "delivery")


# --- bundles ------------------------------------------------------------------------------------

class Spare:
    """What a second broker of the same gateway needs: own configuration, bundle and state."""

    def __init__(self, bundle=None, **options):
        self.dir = gateway.folder()
        self.config = os.path.join(self.dir, "spare.conf")
        self.options = {"bundle": os.path.join(self.dir, "bundle"),
                        "state-dir": os.path.join(self.dir, "state"), **options}
        gateway.write(self.options["bundle"], gateway.read(g.bundle) if bundle is None else bundle)
        keep, g.options = g.options, {**g.options, **self.options}
        g_config, g.config = g.config, self.config
        g_port, g.port = g.port, 0
        g.write_config()
        g.options, g.config, g.port = keep, g_config, g_port

    def run(self, *more):
        """Starts it where it should not start: CompletedProcess."""
        return gateway.run([gateway.program("broker"), "--config", self.config, *more], seconds=30)

    def start(self):
        p = gateway.Process("spare broker", [gateway.program("broker"), "--config", self.config])
        p.of_test = True
        p.wait_text(r"ready: listening on")
        return p


def refused(result, code, *words):
    """One line that has the words, and the exit code."""
    lines = [line for line in result.stderr.splitlines() if "link=" not in line]
    tap.equal((result.returncode, len(lines)), (code, 1), "exit code and lines: " + result.stderr)
    for w in words:
        tap.true(w in lines[0], "%r has %r" % (lines[0], w))


def spoilt_bundles():
    """(what, bytes, exit code at start)"""
    good = gateway.read(g.bundle)
    party = gateway.read(os.path.join(g.path("dev-1"), "bundle"))
    cuts = sorted({0, 1, 2, 3, 4, 12, 27, 28, 31, 32, len(good) - 65, len(good) - 64,
                   len(good) - 1} | set(range(40, len(good), len(good) // 40)))
    for n in cuts:
        yield "cut to %d of %d bytes" % (n, len(good)), good[:n], DATAERR
    for at in range(0, len(good), len(good) // 40):
        flipped = good[:at] + bytes([good[at] ^ 1]) + good[at + 1:]
        yield "a bit of byte %d flipped" % at, flipped, DATAERR
    yield "a byte too long", good + b"\0", DATAERR
    yield "another manager's", gateway.read(other.bundle), DATAERR
    yield "a party's", party, DATAERR
    yield "no bundle at all", os.urandom(1000), DATAERR


@tap.test
def bundle_at_start():
    "at start: a bundle that is cut, changed, another manager's or another kind is refused"
    for what, data, code in spoilt_bundles():
        result = Spare(data).run()
        tap.equal(result.returncode, code, "exit code: " + what)
        tap.equal(len(result.stderr.splitlines()), 1, "lines: " + what)
        tap.true("bundle: " in result.stderr, result.stderr)
    refused(Spare(gateway.read(other.bundle)).run("--check-config"), DATAERR, "this manager's key")


@tap.test
def bundle_of_another_gateway():
    "at start and on SIGHUP: a bundle for another gateway, or one that others can read, is refused"
    g.manager.admin("enrol", "gateway", "--id", "gw-2", "--public", other.public)
    out = os.path.join(gateway.folder(), "gw-2")
    g.manager.admin("bundle", "gateway", "--id", "gw-2", "--out", out)
    refused(Spare(gateway.read(out)).run(), CONFIG, "gw-2", "gw-1")
    keep = gateway.read(g.bundle)
    gateway.write(g.bundle, gateway.read(out))
    tap.true("gw-2" in g.reload(), "the reason is said")
    gateway.write(g.bundle, keep)
    spare = Spare()
    os.chmod(spare.options["bundle"], 0o644)
    refused(spare.run(), CONFIG, "chmod 600")
    os.chmod(g.bundle, 0o644)
    tap.true("chmod 600" in g.reload(), "the reason is said")
    os.chmod(g.bundle, 0o600)
    works("after a foreign bundle")
    g.manager.admin("revoke", "gateway", "gw-2")


@tap.test
def bundle_on_hangup():
    "on SIGHUP: whatever is wrong with the new bundle, the old one stays in force"
    good = gateway.read(g.bundle)
    serial = ssdtf.Statement(good).serial
    with session("rx-1") as r, session("py-1") as d:
        r.subscribe("plant/hangup")
        for what, data, _ in spoilt_bundles():
            gateway.write(g.bundle, data)
            line = g.reload()
            tap.true("stays" in line, "%s: %s" % (what, line))
        os.unlink(g.bundle)
        tap.true("No such file" in g.reload(), "without a file the old one stays")
        gateway.write(g.bundle, good)
        tap.true("serial=%d" % serial in g.reload(), "the same serial is taken again")
        # Both sessions are as they were.
        d.wait_acked(d.seal_and_publish("plant", "plant/hangup", b"undisturbed"))
        tap.equal(r.wait_deliveries(1)[0].plaintext, b"undisturbed", "delivery")


@tap.test
def bundle_from_the_past():
    "an older bundle is refused on SIGHUP and after a restart: a revocation cannot be taken back"
    old = gateway.read(g.bundle)
    g.manager.admin("revoke", "grant", "--scope", "plant", "--receiver", "rx-2")
    g.update()
    new = gateway.read(g.bundle)
    gateway.write(g.bundle, old)
    line = g.reload()
    tap.true("serial" in line and "stays" in line, line)
    with session("rx-2") as r, session("rx-1") as r1, session("py-1") as d:
        r.subscribe("plant/past")
        r1.subscribe("plant/past")
        d.wait_acked(d.seal_and_publish("plant", "plant/past", b"not for rx-2"))
        r1.wait_deliveries(1)
        r.settle()
        tap.equal(r.deliveries, [], "what the revoked receiver gets")
    g.broker.stop()
    g.start_broker(wait=False)
    tap.equal(g.broker.wait(), DATAERR, "exit code with the older bundle")
    tap.true("was in force already" in g.broker.text(), g.broker.text())
    gateway.write(g.bundle, new)
    g.start_broker()
    works("with the newer bundle")


@tap.test
def bundle_of_a_party():
    "ssdtf-pub and ssdtf-sub refuse a bundle that is cut, another manager's, another's or older"
    path = os.path.join(g.path("dev-1"), "bundle")
    clients.pub_ok(g, "dev-1", "plant/x", "-m", "x")
    old = gateway.read(path)
    g.manager.admin("bundle", "party", "--id", "dev-1", "--out", path)
    clients.pub_ok(g, "dev-1", "plant/x", "-m", "x")
    good = gateway.read(path)
    for what, data in (("cut", good[:-1]), ("empty", b""), ("changed", good[:100] + b"x" +
                                                           good[101:]),
                       ("another manager's", gateway.read(os.path.join(other.path("dev-1"),
                                                                       "bundle"))),
                       ("another's", gateway.read(os.path.join(g.path("py-1"), "bundle"))),
                       ("a gateway's", gateway.read(g.bundle)), ("older", old)):
        gateway.write(path, data)
        r = clients.pub(g, "dev-1", "plant/x", "-m", "x")
        tap.true(r.returncode in (DATAERR, CONFIG, NOPERM), "%s: exit code %d: %s" % (
            what, r.returncode, r.stderr))
        tap.equal(len(r.stderr.splitlines()), 1, "lines: " + r.stderr)
    gateway.write(path, good)
    clients.pub_ok(g, "dev-1", "plant/x", "-m", "x")
    path = os.path.join(g.path("rx-1"), "bundle")
    good = gateway.read(path)
    gateway.write(path, good[:200])
    r = gateway.run([gateway.program("sub"), *clients.options(g, "rx-1", ["plant/#"])])
    tap.true(r.returncode in (DATAERR, CONFIG), "exit code %d: %s" % (r.returncode, r.stderr))
    gateway.write(path, good)


# --- configuration and files --------------------------------------------------------------------

@tap.test
def config_typos():
    "a mistake in the configuration is named with file and line, and what was meant"
    spare = Spare()
    good = gateway.read(spare.config).decode().splitlines()

    def at(start):
        return next(i for i, line in enumerate(good) if line.strip().startswith(start))

    for line, text, words in (
            (at("bundle"), 'bundel = "x"', ("no such option 'bundel'", "did you mean 'bundle'")),
            (at("state-dir"), 'statedir = "x"', ("did you mean 'state-dir'",)),
            (at("admission"), "admision = off", ("did you mean 'admission'",)),
            (at("admission"), "admission = perhaps", ("admission",)),
            (at("connect-timeout-ms"), "\tconect-timeout-ms = 1",
             ("did you mean 'connect-timeout-ms'",)),
            (at("connect-timeout-ms"), "\tconnect-timeout-ms = 1", ("from 100 to 3600000",)),
            (at("connect-timeout-ms"), "\tconnect-timeout-ms = soon", ("connect-timeout-ms",)),
            (at("gateway-id"), 'gateway-id = "a gateway"', ("not an id",)),
            (at("listen"), 'listen = { "somewhere" }', ("somewhere",)),
            (at("admission"), 'gateway-id = "twice"', ("twice", "line"))):
        gateway.write(spare.config, "\n".join(good[:line] + [text] + good[line + 1:]) + "\n")
        refused(spare.run(), CONFIG, "%s:%d: " % (spare.config, line + 1), *words)
    gateway.write(spare.config, "\n".join(x for x in good if not x.startswith("bundle")) + "\n")
    refused(spare.run(), CONFIG, "'bundle' is missing")
    gateway.write(spare.config, "\n".join(good)[:-3])
    tap.equal(spare.run().returncode, CONFIG, "exit code for a section that does not end")


@tap.test
def missing_files():
    "a file that is missing is named, and nothing starts"
    def with_option(name, value):
        s = Spare()
        text = gateway.read(s.config).decode().splitlines()
        gateway.write(s.config, "\n".join('%s = "%s"' % (name, value) if x.startswith(name)
                                          else x for x in text) + "\n")
        return s

    none = os.path.join(gateway.folder(), "none")
    r = gateway.run([gateway.program("broker"), "--config", none])
    refused(r, NOINPUT, none, "No such file")
    refused(with_option("bundle", none).run(), NOINPUT, none, "No such file")
    refused(with_option("manager-key", none).run(), NOINPUT, none, "No such file")
    refused(with_option("manager-key", g.config).run(), DATAERR, "public key")
    refused(with_option("state-dir", none + "/deeper").run(), CANTCREAT, none)
    opened = os.path.join(gateway.folder(), "state")
    os.mkdir(opened, 0o755)
    os.chmod(opened, 0o755)
    tap.equal(with_option("state-dir", opened).run().returncode, CONFIG, "open to others")
    for name in ("signing.pem", "bundle", "manager.pub"):
        path = os.path.join(g.path("dev-1"), name)
        os.rename(path, path + ".away")
        r = clients.pub(g, "dev-1", "plant/x", "-m", "x")
        os.rename(path + ".away", path)
        tap.equal(r.returncode, NOINPUT, "exit code without " + name)
        tap.true(path in r.stderr, r.stderr)


@tap.test
def port_in_use():
    "a port in use and a state directory in use are each said, and the first broker goes on"
    spare = Spare()
    text = gateway.read(spare.config).decode()
    gateway.write(spare.config, text.replace(":0\"", ":%d\"" % g.port))
    refused(spare.run(), UNAVAILABLE, "cannot listen on %s:%d" % g.address, "in use")
    refused(Spare(**{"state-dir": g.state_dir}).run(), TEMPFAIL, g.state_dir)
    works("while others tried")


@tap.test
def damaged_state():
    "a damaged state database is refused in words, not used"
    spare = Spare()
    p = spare.start()
    tap.equal(p.stop(), 0, "exit code")
    path = os.path.join(spare.options["state-dir"], "broker.db")
    for leftover in os.listdir(spare.options["state-dir"]):
        if leftover.startswith("broker.db-"):
            os.unlink(os.path.join(spare.options["state-dir"], leftover))
    gateway.write(path, b"this is no database, but it is long enough to be looked at" * 100)
    refused(spare.run(), DATAERR, "broker.db")


# --- token and key process ----------------------------------------------------------------------

SPY = r"""
#include <dlfcn.h>
#include <fcntl.h>
#include <p11-kit/pkcs11.h>
#include <stdlib.h>
#include <unistd.h>

static CK_FUNCTION_LIST list;
static CK_RV (*login)(CK_SESSION_HANDLE, CK_USER_TYPE, CK_UTF8CHAR_PTR, CK_ULONG);

static CK_RV spy_login(CK_SESSION_HANDLE s, CK_USER_TYPE u, CK_UTF8CHAR_PTR pin, CK_ULONG n)
{
	int fd = open(getenv("SPY_FILE"), O_WRONLY | O_CREAT | O_APPEND, 0600);

	if (write(fd, "login\n", 6) != 6)
		abort();
	close(fd);
	return login(s, u, pin, n);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR ret_list)
{
	void *real = dlopen(getenv("SPY_MODULE"), RTLD_NOW);
	CK_RV (*get)(CK_FUNCTION_LIST_PTR_PTR) = real ? dlsym(real, "C_GetFunctionList") : NULL;
	CK_FUNCTION_LIST_PTR theirs;

	if (!get || get(&theirs) != CKR_OK)
		return CKR_GENERAL_ERROR;
	list = *theirs;
	login = list.C_Login;
	list.C_Login = spy_login;
	*ret_list = &list;
	return CKR_OK;
}
"""


class LoginSpy:
    """A PKCS#11 module that counts C_Login and passes all on to SoftHSM."""

    def __init__(self):
        self.dir = gateway.folder()
        self.module, self.file = os.path.join(self.dir, "spy.so"), os.path.join(self.dir, "logins")
        gateway.write(os.path.join(self.dir, "spy.c"), SPY)
        flags = gateway.must(gateway.run(["pkg-config", "--cflags", "p11-kit-1"])).split()
        gateway.must(gateway.run(["gcc", "-shared", "-fPIC", *flags, "-o", self.module,
                                  os.path.join(self.dir, "spy.c"), "-ldl"]))

    def env(self):
        return {"SPY_FILE": self.file, "SPY_MODULE": gateway.MODULE}

    def logins(self):
        return gateway.read(self.file).count(b"\n") if os.path.exists(self.file) else 0


def hsmd(token, run_dir, *more, module=gateway.MODULE, env=None, pin_file=None):
    options = ["--module", module, "--token", token.label, "--pin-file",
               pin_file or token.pin_file, "--socket-dir", run_dir, *more]
    p = gateway.Process("hsmd", [gateway.program("hsmd"), "run", *options],
                        {**token.env, **(env or {})})
    p.of_test = True
    return p


@tap.test
def wrong_pin():
    "a wrong PIN is tried exactly once, by one of several workers: one line, exit code 77"
    spy, run_dir = LoginSpy(), gateway.folder()
    pin_file = os.path.join(run_dir, "pin")
    gateway.write(pin_file, "wrong-%s\n" % gateway.PIN)
    p = hsmd(other.token, run_dir, "--workers", "4", module=spy.module, env=spy.env(),
             pin_file=pin_file)
    tap.equal(p.wait(), NOPERM, "exit code")
    tap.equal(p.text().count("CKR_PIN_INCORRECT"), 1, "refusals in " + p.text())
    tap.equal(spy.logins(), 1, "logins")
    # Started again by somebody who has not read that line: the same PIN is not tried again.
    p = hsmd(other.token, run_dir, module=spy.module, env=spy.env(), pin_file=pin_file)
    tap.equal(p.wait(), NOPERM, "exit code")
    tap.equal(spy.logins(), 1, "logins after a second start")
    gateway.write(pin_file, gateway.PIN + "\n")
    p = hsmd(other.token, run_dir, "--workers", "1", module=spy.module, env=spy.env(),
             pin_file=pin_file)
    status = [gateway.program("hsmd"), "status", "--socket-dir", run_dir]
    tap.eventually(lambda: "state=ok" in gateway.run(status).stdout, "the right PIN works")
    tap.equal(p.stop(), 0, "exit code")


@tap.test
def hsmd_mistakes():
    "hsmd: a PIN file that others can read, a missing file, an unknown token, a second hsmd"
    run_dir = gateway.folder()
    pin_file = os.path.join(run_dir, "pin")
    gateway.write(pin_file, gateway.PIN + "\n", 0o644)
    tap.equal(hsmd(other.token, run_dir, pin_file=pin_file).wait(), NOPERM, "mode 0644")
    os.unlink(pin_file)
    code = hsmd(other.token, run_dir, pin_file=pin_file).wait()
    tap.true(code in (NOINPUT, CONFIG), "no PIN file: exit code %d" % code)
    p = hsmd(g.token, g.run_dir)
    tap.equal(p.wait(), TEMPFAIL, "a second hsmd in the same directory")
    tap.true("another ssdtf-hsmd runs there" in p.text(), p.text())
    works("beside hsmds that do not start")


@tap.test
def broker_before_hsmd():
    "a broker that is started before hsmd waits for it, and works once it appears"
    g.stop()
    g.stopped = False
    g.start_broker(wait=False)
    time.sleep(1.0)
    tap.true(g.broker.alive(), "the broker waits")
    g.start_hsmd()
    g.wait_ready()
    works("hsmd came late")


@tap.test
def broker_without_hsmd():
    "a broker without hsmd, or beside one with another token, says so and ends"
    nobody, foreign = gateway.folder(), gateway.folder()
    a = Spare(**{"hsm-sockets": nobody})
    p = gateway.Process("lonely broker", [gateway.program("broker"), "--config", a.config])
    p.of_test = True
    h = hsmd(other.token, foreign, "--workers", "1")
    tap.eventually(lambda: os.path.exists(os.path.join(foreign, "hsmd.0.sock")), "socket")
    r = Spare(**{"hsm-sockets": foreign}).run()
    tap.equal(r.returncode, CONFIG, "exit code beside another token: " + r.stderr)
    tap.true("key" in r.stderr, r.stderr)
    tap.equal(h.stop(), 0, "exit code of hsmd")
    tap.equal(p.wait(30), UNAVAILABLE, "exit code without hsmd")
    tap.true("is ssdtf-hsmd running?" in p.text(), p.text())


def token_away(kill):
    """A QoS 1 message that is published while the token is away."""
    with session("rx-1") as r, session("py-1") as d:
        r.subscribe("plant/away")
        d.wait_acked(d.seal_and_publish("plant", "plant/away", b"before"))
        r.wait_deliveries(1)
        d.party.contexts.clear()  # a conversion that nobody has made yet
        os.rename(g.token.dir, g.token.dir + ".away")
        try:
            if kill:
                for i in range(g.workers):
                    g.kill_worker(i)
            ids = [d.seal_and_publish("plant", "plant/away", b"while away %d" % i)
                   for i in range(10)]
            for i in ids:  # acknowledged: kept by the broker, whatever the token does
                d.wait_acked(i)
            r.quiet(1.0)
            if kill:
                tap.equal(len(r.deliveries), 1, "deliveries without a token")
        finally:
            os.rename(g.token.dir + ".away", g.token.dir)
        r.wait_deliveries(11, 30 * tap.SCALE)
        d.wait_acked(d.seal_and_publish("plant", "plant/away", b"after"))
        r.wait_deliveries(12)
        tap.equal([x.plaintext for x in r.deliveries],
                  [b"before"] + [b"while away %d" % i for i in range(10)] + [b"after"],
                  "deliveries")


@tap.test
def token_gone():
    "the token goes away under load: QoS 1 is acknowledged, and delivered once it is back"
    token_away(kill=False)


@tap.test
def token_and_workers_gone():
    "the same, with every worker of hsmd killed too"
    token_away(kill=True)


@tap.test
def hsmd_gone():
    "hsmd itself is killed and started again: QoS 1 is delivered then, sessions live on"
    with session("rx-1") as r, session("py-1") as d:
        r.subscribe("plant/nohsmd")
        g.hsmd.kill()
        for i in range(10):
            d.wait_acked(d.seal_and_publish("plant", "plant/nohsmd", b"%d" % i))
        r.quiet(0.5)
        tap.equal(r.deliveries, [], "deliveries without hsmd")
        g.start_hsmd()
        r.wait_deliveries(10, 30 * tap.SCALE)
        tap.equal([x.plaintext for x in r.deliveries], [b"%d" % i for i in range(10)],
                  "deliveries")


# --- MQTT that is none --------------------------------------------------------------------------

def two(n):
    return struct.pack(">H", n)


def connect_body(name=b"MQTT", level=4, flags=0xC2, keepalive=60, rest=None):
    rest = ssdtf.u16p(b"py-1") + ssdtf.u16p(b"u") + ssdtf.u16p(b"p") if rest is None else rest
    return ssdtf.u16p(name) + bytes([level, flags]) + two(keepalive) + rest


def raw(first, body):
    return mqtt.packet(first >> 4, first & 15, body)


BAD_CONNECTS = {
    "empty": raw(0x10, b""),
    "cut in the name": raw(0x10, b"\0\4MQ"),
    "another protocol": raw(0x10, connect_body(b"MQTX")),
    "MQIsdp": raw(0x10, connect_body(b"MQIsdp", 3)),
    "level 3": raw(0x10, connect_body(level=3)),
    "level 5": raw(0x10, connect_body(level=5)),
    "reserved flag": raw(0x10, connect_body(flags=0xC3)),
    "Will QoS 3": raw(0x10, connect_body(flags=0xDE)),
    "Will QoS without Will": raw(0x10, connect_body(flags=0xCA)),
    "Will RETAIN without Will": raw(0x10, connect_body(flags=0xE2)),
    "password without user name": raw(0x10, connect_body(flags=0x42)),
    "no client id": raw(0x10, connect_body(rest=b"")),
    "cut client id": raw(0x10, connect_body(rest=b"\0\x09py")),
    "empty client id": raw(0x10, connect_body(rest=b"\0\0\0\1u\0\1p")),
    "id of 65": raw(0x10, connect_body(rest=ssdtf.u16p(b"x" * 65) + b"\0\1u\0\1p")),
    "id with a blank": raw(0x10, connect_body(rest=b"\0\3a b\0\1u\0\1p")),
    "id that is no UTF-8": raw(0x10, connect_body(rest=b"\0\2\xc3\x28\0\1u\0\1p")),
    "bytes behind it": raw(0x10, connect_body() + b"x"),
    "flags in the first byte": raw(0x11, connect_body()),
    "Will to $SSDTF": raw(0x10, connect_body(flags=0xC6, rest=b"\0\4py-1" + ssdtf.u16p(
        b"$SSDTF/error") + b"\0\1w\0\1u\0\1p")),
    "Will of QoS 3": raw(0x10, connect_body(flags=0xDE, rest=b"\0\4py-1\0\1t\0\1w\0\1u\0\1p")),
    "a length of five bytes": b"\x10\xff\xff\xff\xff\x7f",
    "PUBLISH first": mqtt.publish("plant/x", b"x"),
    "PINGREQ first": raw(0xC0, b""),
    "SUBSCRIBE first": mqtt.subscribe(1, ["#"], 0),
    "type 0": b"\x00\x00",
    "type 15": b"\xf0\x00",
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
}

# On an open session: each ends the connection.
BAD_PACKETS = {
    "a second CONNECT": raw(0x10, connect_body()),
    "CONNACK": raw(0x20, b"\0\0"),
    "PUBLISH, empty": raw(0x30, b""),
    "PUBLISH, cut topic": raw(0x30, b"\0\x09pl"),
    "PUBLISH, empty topic": raw(0x30, b"\0\0x"),
    "PUBLISH, topic with +": raw(0x30, b"\0\3a/+x"),
    "PUBLISH, topic with #": raw(0x30, b"\0\1#x"),
    "PUBLISH, topic with NUL": raw(0x30, b"\0\3a\0bx"),
    "PUBLISH, topic no UTF-8": raw(0x30, b"\0\2\xc3\x28x"),
    "PUBLISH, surrogate": raw(0x30, b"\0\3\xed\xa0\x80x"),
    "PUBLISH, QoS 3": raw(0x36, b"\0\1a\0\1x"),
    "PUBLISH, QoS 2, packet id 0": raw(0x34, b"\0\1a\0\0x"),
    "PUBLISH, DUP at QoS 0": raw(0x38, b"\0\1ax"),
    "PUBLISH, no packet id": raw(0x32, b"\0\1a"),
    "PUBLISH, packet id 0": raw(0x32, b"\0\1a\0\0x"),
    "PUBLISH to $SSDTF/error": raw(0x30, ssdtf.u16p(b"$SSDTF/error") + b"x"),
    "PUBLISH to $SSDTF/auth/response": raw(0x30, ssdtf.u16p(b"$SSDTF/auth/response") + b"x"),
    "PUBLISH to $SSDTF/": raw(0x30, ssdtf.u16p(b"$SSDTF/") + b"x"),
    "PUBACK, empty": raw(0x40, b""),
    "PUBACK, one byte": raw(0x40, b"\1"),
    "PUBACK, three bytes": raw(0x40, b"\0\1x"),
    "PUBACK, flags": raw(0x42, b"\0\1"),
    "PUBREC, packet id 0": raw(0x50, b"\0\0"),
    "PUBREC, flags": raw(0x52, b"\0\1"),
    "PUBREL, empty": raw(0x62, b""),
    "PUBREL, flags": raw(0x60, b"\0\1"),
    "PUBCOMP, three bytes": raw(0x70, b"\0\1x"),
    "PUBCOMP, flags": raw(0x72, b"\0\1"),
    "SUBSCRIBE, 82 00": b"\x82\x00",
    "SUBSCRIBE, one byte": raw(0x82, b"\0"),
    "SUBSCRIBE, no filter": raw(0x82, b"\0\1"),
    "SUBSCRIBE, packet id 0": raw(0x82, b"\0\0\0\1a\0"),
    "SUBSCRIBE, no QoS": raw(0x82, b"\0\1\0\1a"),
    "SUBSCRIBE, QoS 3": raw(0x82, b"\0\1\0\1a\3"),
    "SUBSCRIBE, reserved bits": raw(0x82, b"\0\1\0\1a\x81"),
    "SUBSCRIBE, cut filter": raw(0x82, b"\0\1\0\x09a"),
    "SUBSCRIBE, empty filter": raw(0x82, b"\0\1\0\0\0"),
    "SUBSCRIBE, a#": raw(0x82, b"\0\1\0\2a#\0"),
    "SUBSCRIBE, #/a": raw(0x82, b"\0\1\0\3#/a\0"),
    "SUBSCRIBE, a+": raw(0x82, b"\0\1\0\2a+\0"),
    "SUBSCRIBE, NUL": raw(0x82, b"\0\1\0\1\0\0"),
    "SUBSCRIBE, flags": raw(0x80, b"\0\1\0\1a\0"),
    "SUBACK": raw(0x90, b"\0\1\0"),
    "UNSUBSCRIBE, empty": raw(0xA2, b""),
    "UNSUBSCRIBE, no filter": raw(0xA2, b"\0\1"),
    "UNSUBSCRIBE, cut filter": raw(0xA2, b"\0\1\0\x09a"),
    "UNSUBSCRIBE, flags": raw(0xA0, b"\0\1\0\1a"),
    "UNSUBACK": raw(0xB0, b"\0\1"),
    "PINGREQ, a byte": raw(0xC0, b"x"),
    "PINGREQ, flags": raw(0xC1, b""),
    "PINGRESP": raw(0xD0, b""),
    "DISCONNECT, a byte": raw(0xE0, b"x"),
    "DISCONNECT, flags": raw(0xE1, b""),
    "type 0": b"\x00\x00",
    "AUTH": b"\xf0\x00",
    "a length of five bytes": b"\x30\xff\xff\xff\xff\x7f",
}


@tap.test
def bad_connects():
    "malformed first packets: refused or closed, and no CONNACK 0"
    for what, data in BAD_CONNECTS.items():
        with mqtt.Connection(g.address) as c:
            c.send(data)
            for p in c.closes():
                tap.true(p.type == mqtt.CONNACK and p.body[1] in range(1, 6),
                         "%s: the answer is %r" % (what, p))
    works("after bad CONNECTs")


@tap.test
def bad_packets():
    "malformed packets of every type, 82 00 among them, end their session and no other"
    with session("rx-2") as bystander:
        for what, data in BAD_PACKETS.items():
            with session("rx-1") as c:
                c.send(data)
                try:
                    came = c.closes()
                except AssertionError:
                    raise AssertionError(what + ": the connection stays") from None
                tap.equal(came, [], "what comes behind " + what)
        bystander.settle()
    works("after bad packets")


@tap.test
def random_packets():
    "thousands of mutated packets, before and after authentication, in any cut: the broker lives"
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    tap.note("SEED=%d" % seed)
    rnd = random.Random(seed)
    good = list(BAD_PACKETS.values()) + list(BAD_CONNECTS.values())
    with session("py-1") as d:
        good += [mqtt.publish("plant/x", d.party.sealed("plant", "plant/x", b"x", 1), 1, False, 7),
                 mqtt.subscribe(3, ["plant/#", "a/+/b"], 1), mqtt.puback(1)]
    for i in range(300):
        c = session("rx-1") if i % 2 else mqtt.Connection(g.address)
        data = bytearray(b"".join(rnd.choice(good) for _ in range(rnd.randrange(1, 6))))
        for _ in range(rnd.randrange(0, 6)):
            data[rnd.randrange(len(data))] = rnd.randrange(256)
        try:
            while data:
                n = rnd.randrange(1, 40)
                c.send(bytes(data[:n]))
                del data[:n]
        except mqtt.Closed:
            pass
        c.close()
    tap.true(g.broker.alive(), "the broker runs")
    works("after random packets")


@tap.test
def oversized():
    "a packet above packet-bytes-max ends the connection by its header alone; one below is taken"
    with session("rx-1") as r, session("py-1") as d:
        r.subscribe("plant/big")
        fits = 65536 - 4 - len("plant/big") - 4 - 126 - 16 - 65 - 200
        d.wait_acked(d.seal_and_publish("plant", "plant/big", b"x" * fits))
        tap.equal(len(r.wait_deliveries(1)[0].plaintext), fits, "bytes delivered")
    for first in (0x30, 0x82, 0xA2, 0x10, 0x40):
        with session("rx-1") as c:
            c.send(bytes([first]) + b"\x81\x80\x04")  # 65,537 bytes are announced
            tap.equal(c.closes(), [], "what comes")
    with mqtt.Connection(g.address) as c:
        c.send(b"\x10\xff\xff\xff\x7f")
        tap.equal(c.closes(), [], "what comes")
    with session("rx-1") as c:  # many filters in one packet
        codes = c.subscribe(*("plant/%d" % i for i in range(8)))
        tap.equal(codes, [1] * 8, "SUBACK")


@tap.test
def before_authentication():
    "before the result: SUBSCRIBE gets 0x80 each, PINGREQ and PUBREL their answer; others end it"
    def challenged():
        s = mqtt.Session(g.address, g.party("rx-1"), authenticate=False)
        s.send_connect()
        s.take_connack()
        return s, s.take_challenge()

    s, challenge = challenged()
    s.send(mqtt.subscribe(9, ["plant/#", "#", "a/b"], 1), raw(0xC0, b""), mqtt.puback(5),
           mqtt.ack(mqtt.PUBREC, 6), mqtt.ack(mqtt.PUBREL, 7), mqtt.ack(mqtt.PUBCOMP, 8))
    p = s.expect(mqtt.SUBACK)
    tap.equal(p.body, b"\0\x09\x80\x80\x80", "SUBACK")
    s.expect(mqtt.PINGRESP)
    tap.equal(s.expect(mqtt.PUBCOMP).packet_id, 7, "packet id of PUBCOMP")
    s.answer(challenge, qos=2)
    s.take_result()
    with session("py-1") as d:
        d.wait_acked(d.seal_and_publish("plant", "plant/early", b"not subscribed"))
    s.settle()
    tap.equal(s.deliveries, [], "what was subscribed to too early")
    s.disconnect()
    for what, data in (("PUBLISH", mqtt.publish("plant/x", b"x")),
                       ("nack", mqtt.publish(ssdtf.NACK, b"x")),
                       ("UNSUBSCRIBE", mqtt.unsubscribe(1, ["a"])),
                       ("DISCONNECT", raw(0xE0, b"")),
                       ("response, retained", mqtt.publish(ssdtf.RESPONSE, b"x", 0, True)),
                       ("empty response", mqtt.publish(ssdtf.RESPONSE, b"")),
                       ("PUBREL of id 0", raw(0x62, b"\0\0"))):
        s, _ = challenged()
        s.send(data)
        tap.equal(s.closes(), [], "what comes behind " + what)
        s.close()


@tap.test
def slow_loris():
    "a CONNECT that comes byte by byte, and a response that never comes, are cut off in time"
    good = mqtt.connect("py-1", "u", b"p" * 200)
    c = mqtt.Connection(g.address)
    started = time.monotonic()
    ended = None
    for i in range(len(good) - 1):
        try:
            c.send(good[i:i + 1])
            c.receive(0.1)
        except mqtt.Silence:
            continue
        except mqtt.Closed:
            ended = time.monotonic() - started
            break
    c.close()
    tap.true(ended and 1.2 < ended < 5.0 * tap.SCALE, "closed after %s s" % ended)
    with mqtt.Connection(g.address) as c:  # says nothing at all
        tap.equal(c.closes(5 * tap.SCALE), [], "what comes")
    s = mqtt.Session(g.address, g.party("py-1"), authenticate=False)
    s.send_connect()
    s.take_connack()
    s.take_challenge()
    tap.equal(s.closes(5 * tap.SCALE), [], "what comes")
    s.close()


@tap.test
def keep_alive():
    "a client that is silent for one and a half keep-alive times is cut off; one that pings stays"
    with session("rx-1", keepalive=1) as silent, session("rx-2", keepalive=1) as pings:
        started = time.monotonic()
        end = started + 4
        closed = None
        while time.monotonic() < end:
            pings.settle()
            try:
                silent.receive(0.3)
            except mqtt.Silence:
                continue
            except mqtt.Closed:
                closed = closed or time.monotonic() - started
                time.sleep(0.3)
        tap.true(closed and 1.3 < closed < 3.5, "closed after %s s" % closed)
        pings.settle()


@tap.test
def slow_receiver():
    "a receiver that reads nothing costs the others nothing but a pause, and nobody's message"
    own = Spare()
    p = own.start()
    port = int(p.wait_text(r"listening on [\d.]+:(\d+)").group(1))
    address = (g.host, port)
    stuck = mqtt.Session(address, g.party("rx-2"))
    stuck.subscribe("plant/slow")
    fast = clients.Sub(g, "rx-1", "plant/slow", address=address)
    texts = ["%06d %s" % (i, "x" * 16000) for i in range(300)]
    clients.pub_ok(g, "dev-1", "plant/slow", "-q", "1", "-l", address=address,
                   stdin="".join(t + "\n" for t in texts))
    fast.wait_messages(len(texts), 30)
    tap.equal([t[:6] for t in fast.texts()], [t[:6] for t in texts], "deliveries")
    fast.stop()
    stuck.close()
    tap.equal(p.stop(), 0, "exit code")


@tap.test
def too_many_connections():
    "beyond connections-max a connection is closed at once, and room is used again"
    keep = dict(g.limits)
    g.limits["connections-max"] = 8
    spare = Spare()
    g.limits = keep
    p = spare.start()
    address = (g.host, int(p.wait_text(r"listening on [\d.]+:(\d+)").group(1)))
    waiting = [mqtt.Connection(address) for _ in range(8)]
    try:
        with mqtt.Connection(address) as ninth:
            tap.equal(ninth.closes(), [], "what the ninth gets")
    except mqtt.Closed:
        pass  # so fast that there was no connection
    for c in waiting:
        c.close()

    def again():
        try:
            mqtt.Session(address, g.party("rx-1")).disconnect()
            return True
        except mqtt.Closed:
            return False
    tap.eventually(again, "room again")
    tap.equal(p.stop(), 0, "exit code")


@tap.test
def reset_connections():
    "hundreds of connections that are reset in the middle of a packet leave nothing behind"
    for i in range(300):
        s = socket.create_connection(g.address)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.sendall(mqtt.connect("py-1", "u", b"p")[:i % 20])
        s.close()
    tap.eventually(lambda: g.stats()["connections"] == 0, "no connection is left")
    works("after resets")


@tap.test
def alive_at_the_end():
    "after all this the same broker and hsmd run, and end in good order"
    tap.true(g.broker.alive() and g.hsmd.alive(), "both run")
    tap.true("BUG" not in g.broker.text(), "no BUG in the log")
    g.stop()


tap.main(setup)
