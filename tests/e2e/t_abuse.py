# SPDX-License-Identifier: Apache-2.0
"""Peers that break the rules, on the TCP port and on the socket: the server goes on, others are served meanwhile, memory and descriptors come
back, and the log gets one line a connection at most (lines for debugging aside)."""
import os, random, socket, struct, time

from h2 import *
from lib import *

BOTH = (False, True)  # the UNIX socket, TLS


def started(w, **more):
    s = w.server(**more).start()
    s.serves()
    return s


class Watch:
    """Around abuse: s goes on, with the descriptors and about the memory that it had, and at most `lines` new lines in the log, not
    counting those for debugging."""

    def __init__(self, s, lines, mib=8):
        self.s, self.lines, self.mib = s, lines, mib

    def __enter__(self):
        self.s.serves()
        self.mark, self.rss, self.descriptors = self.s.mark(), self.s.rss(), self.s.descriptors()
        return self

    def __exit__(self, kind, *_):
        check(self.s.alive(), lambda: "the server died (%s)\n%s" % (self.s.child.returncode, self.s.log(self.mark)[-3000:]))
        if kind is not None:
            return
        self.s.serves()
        log = "".join(t for t in self.s.log(self.mark).splitlines(True) if "level=debug" not in t)
        check(log.count("\n") <= self.lines, lambda: "%d lines in the log for at most %d:\n%s" % (log.count("\n"), self.lines, log[:2000]))
        until("descriptors come back", lambda: self.s.descriptors() <= self.descriptors + 2, 20)
        if not SANITIZED:
            until("memory comes back (%d KiB before, %d after)" % (self.rss, self.s.rss()), lambda: self.s.rss() < self.rss + self.mib * 1024, 20)


def attempt(s, secure, raw, begin=True, wait=0.0, **more):
    """One connection that sends this and goes; what happens to it is not judged."""
    try:
        with Peer(s, secure, begin=begin, **more) as p:
            p.send(raw)
            if wait:
                p.drain(wait)
    except OSError:
        pass


@test("abuse-garbage")
def garbage(w):
    s = started(w)
    dice = random.Random(1)
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40)
    big = frame(HEADERS, END_HEADERS, 1, b"\xff" * 16000)
    wires = [dice.randbytes(400), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", hello, hello + dice.randbytes(200), PREFACE[:10], PREFACE,
             PREFACE + b"\xff" * 100, PREFACE + frame(SETTINGS, 0, 0, b"12345"), PREFACE + frame(SETTINGS, ACK, 0, b"123456"), b"\0" * 1000]
    begun = [frame(DATA, 0, 0, b"x"), frame(DATA, 0, 1, b"x"), frame(HEADERS, END_HEADERS, 2, b"\x82"), frame(HEADERS, END_HEADERS, 1, b"\xbf\xff\xff"),
             frame(CONTINUATION, END_HEADERS, 1, b"\x82"), frame(WINDOW, 0, 0, bytes(4)), frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff"), frame(RST, 0, 1, bytes(4)),
             frame(PING, 0, 0, b"1234"), frame(PRIORITY, 0, 1, b"\0\0\0\1\0"), frame(PUSH, 0, 1, bytes(8)), frame(99, 0, 0, b"x" * 100), big, big[:700],
             frame(GOAWAY, 0, 0, bytes(8)), settings(frame=1), settings(window=0xFFFFFFFF), frame(DATA, 8, 1, b"\xff"), b"\xff\xff\xff\0\0\0\0\0\1" + bytes(5000)]

    def round_():
        for secure in BOTH:
            for raw in wires:
                attempt(s, secure, raw, begin=False)
            for raw in begun:
                attempt(s, secure, raw)
        for raw in wires:  # bytes that are no TLS, on the TLS port
            with socket.create_connection(("127.0.0.1", s.port), 10) as c:
                c.sendall(raw)
    round_()
    with Watch(s, 5 * (3 * len(wires) + 2 * len(begun))):
        for _ in range(5):
            round_()


@test("abuse-half-calls")
def half_calls(w):
    """A message or a frame that never becomes whole; the client goes, or says that it has ended."""
    s = started(w)
    with Watch(s, 60):
        for secure in BOTH:
            for body in (b"", b"\0", b"\0\0\0\0\x10", b"\0\0\0\0\x10half", message(b"\xff" * 20), message(b"x", flag=1), message(b"x", flag=7),
                         message(b"", length=0xFFFFFFFF), message(b"\x0a\xff\xff\xff\xff\x0f")):
                with Peer(s, secure) as p:
                    p.open(1, "Bundle.GetBundle")
                    p.send_message(1, body)
                    code = p.status(1)[0]
                    check(code not in (0, "http"), lambda: "body %r is answered with %s" % (body, p.status(1)))
                    p.open(3, "Bundle.GetBundle")  # the connection is as good as before
                    p.send_message(3, message(b""))
                    same("a whole call after %r" % body, p.status(3)[0], 0)
                attempt(s, secure, frame(DATA, 0, 1, body)[:-1] if body else b"")


@test("abuse-unknown-methods")
def unknown_methods(w):
    s = started(w)
    with Watch(s, 0):
        for secure in BOTH:
            with Peer(s, secure) as p:
                stream = 1
                for path, text in (("/spire.api.server.entry.v1.Entry/Nope", "unknown method Nope for service spire.api.server.entry.v1.Entry"),
                                   ("/no.such.Service/Get", "unknown service no.such.Service"), ("/x", 'malformed method name: "/x"'),
                                   ("/", 'malformed method name: "/"'), ("/a/b/c/d", "unknown service a/b/c")) * 20:
                    p.open(stream, path)
                    p.send_message(stream, message(b""))
                    same(path, p.status(stream), (12, text))
                    stream += 2
                for more, want in ((dict(content_type="text/plain"), None), (dict(method="GET"), None), (dict(grpc_timeout="abc"), None),
                                   (dict(grpc_timeout="99999999H"), 0), (dict(grpc_timeout="1n"), None), (dict(grpc_encoding="gzip"), None),
                                   (dict(grpc_encoding="nonsense"), None), (dict(path="/" + "a" * 100), 12), (dict(user_agent="x" * 120), 0)):
                    path = more.pop("path", "Bundle.GetBundle")
                    if "content_type" in more:
                        more = {"content-type": more["content_type"]}
                    try:
                        p.open(stream, path, **more)
                        p.send_message(stream, message(b""))
                        got = p.status(stream)
                        check(want is None or got[0] == want, lambda: "%s %s: %s" % (path, more, got))
                    except OSError:  # some of these end the connection
                        p.close()
                        break
                    stream += 2


@test("abuse-large-messages")
def large_messages(w):
    s = started(w)

    def round_(secure):
        with Peer(s, secure) as p:
            for stream, size in ((1, 4194305), (3, 5 << 20), (5, 1 << 30), (7, 0xFFFFFFFF)):
                p.open(stream, "Bundle.GetBundle")
                p.send_message(stream, message(b"\0" * min(size, 5 << 20), length=size), end=size <= 5 << 20)
                code, text = p.status(stream)
                same("%d bytes" % size, code, 8)
                has("%d bytes" % size, text.replace("%25", "%"), "received message larger than max (%d vs. 4194304)" % size)
            p.open(9, "Bundle.GetBundle")
            p.send_message(9, message(b"\x7a" + b"\xf0\xff\xff\x01" + b"\0" * ((4 << 20) - 20)))  # just below: a field that nobody knows
            check(p.status(9)[0] in (0, 13), lambda: "4 MiB: %s" % (p.status(9),))
            p.open(11, "Bundle.GetBundle")
            p.send_message(11, message(b""))
            same("a call after that", p.status(11)[0], 0)
    for secure in BOTH:
        round_(secure)
    with Watch(s, 0, mib=12):
        for _ in range(3):
            for secure in BOTH:
                round_(secure)


def many_entries(s, count):
    """Entries for a large answer."""
    link = s.link()
    for first in range(0, count, 500):
        answer(link.call("Entry.BatchCreateEntry", [{"entries": [
            {"spiffe_id": {"trust_domain": TD, "path": "/w%d" % n}, "parent_id": {"trust_domain": TD, "path": "/node"},
             "selectors": [{"type": "unix", "value": "uid:%d" % n}], "dns_names": ["w%d.example.org" % n]} for n in range(first, first + 500)]}]))
    link.close()


@test("abuse-client-gone")
def client_gone(w):
    """Clients that leave in the middle of a call, at each stage of it."""
    s = started(w)
    many_entries(s, 5000)
    admin = w.mint(s, "admin", "spiffe://example.org/admin")
    s.cli("entry", "create", "-spiffeID", "spiffe://example.org/admin", "-parentID", "spiffe://example.org/x", "-selector", "a:b", "-admin")

    def stages(secure):
        def peer(**more):
            return Peer(s, secure, identity=admin if secure else None, **more)
        with peer() as p:
            p.open(1, "Entry.ListEntries")
        with peer() as p:
            p.open(1, "Entry.ListEntries")
            p.send(frame(DATA, 0, 1, b"\0\0\0"))
        with peer() as p:
            p.open(1, "Entry.ListEntries")
            p.send_message(1, message(b""))
        with peer() as p:  # in the middle of the answer
            p.open(1, "Entry.ListEntries")
            p.send_message(1, message(b""))
            while not p.bodies.get(1):
                p.read()
        with peer() as p:  # the call is cancelled, the connection stays
            p.send(frame(WINDOW, 0, 0, struct.pack(">I", 100 << 20)))  # what is on its way for the first counts, too
            p.open(1, "Entry.ListEntries")
            p.send_message(1, message(b""))
            p.send(frame(RST, 0, 1, struct.pack(">I", 8)))
            p.open(3, "Bundle.GetBundle")
            p.send_message(3, message(b""))
            same("a call after a cancelled one", p.status(3)[0], 0)
        with peer() as p:  # a write whose client does not wait
            p.open(1, "Entry.BatchCreateEntry")
            p.send_message(1, message(wire.encode(wire.METHODS["Entry.BatchCreateEntry"][1], {"entries": [{}] * 50})))
        with peer() as p:
            p.open(1, "Agent.AttestAgent")
        with peer() as p:
            p.open(1, "Entry.SyncAuthorizedEntries")
    for secure in BOTH:
        for _ in range(10):
            stages(secure)
    # A log line for a call that was answered is no fault; the writes with empty entries are answered with 50 errors in one answer each.
    with Watch(s, 2 * 40 * 60, mib=16):
        for secure in BOTH:
            for _ in range(40):
                stages(secure)


@test("abuse-slow-readers")
def slow_readers(w):
    """One that does not read holds its own stream, and neither the other streams of its connection nor anybody else."""
    s = started(w)
    many_entries(s, 5000)
    with Watch(s, 0, mib=24):
        peers = []
        for n in range(40):
            p = Peer(s, window=1000)
            p.open(1, "Entry.ListEntries")
            p.send_message(1, message(b""))
            peers.append(p)
        for p in peers:
            while len(p.bodies.get(1, b"")) < 1000:
                p.read()
            began = time.monotonic()
            p.open(3, "Entry.CountEntries")
            p.send_message(3, message(b""))
            same("the other stream", p.status(3)[0], 0)
            check(time.monotonic() - began < 5 * SLOW, "the other stream is answered at once")
        began = time.monotonic()
        s.serves()
        check(time.monotonic() - began < 5 * SLOW, "others are answered at once")
        p = peers[0]  # it was asleep: it gets all of its answer
        p.send(frame(WINDOW, 0, 1, struct.pack(">I", 100 << 20)) + frame(WINDOW, 0, 0, struct.pack(">I", 100 << 20)))
        same("the answer of one that wakes up", p.status(1)[0], 0)
        same("all of its bytes", len(p.bodies[1]), 5 + struct.unpack(">I", p.bodies[1][1:5])[0])
        for p in peers:
            p.close()


@test("abuse-floods")
def floods(w):
    """Frames that cost the sender little. The connection may end; the server may not grow without bound, and serves others meanwhile."""
    s = started(w)

    def pour(secure, pieces, count):
        """Sends without reading until it is over, the server hangs up, or it takes no more."""
        with Peer(s, secure, timeout=3) as p:
            try:
                for n in range(count):
                    p.send(pieces(p, n))
            except (OSError, TimeoutError):
                pass
            peak = s.rss()
            s.serves()
        return peak
    fields = {}

    def resets(p, n):
        raw = fields.setdefault(p.secure, p.fields("/spire.api.server.bundle.v1.Bundle/GetBundle"))
        return b"".join(frame(HEADERS, END_HEADERS, 2 * (50 * n + i) + 1, raw) + frame(RST, 0, 2 * (50 * n + i) + 1, struct.pack(">I", 8)) for i in range(50))
    kinds = {
        "rapid reset": (resets, 400),
        "ping": (lambda p, n: frame(PING, 0, 0, b"12345678") * 100, 2000),
        "settings": (lambda p, n: settings(window=65535) * 100, 1000),
        "window": (lambda p, n: frame(WINDOW, 0, 0, b"\0\0\0\1") * 100, 1000),
        "priority": (lambda p, n: frame(PRIORITY, 0, 2 * n + 1, b"\0\0\0\0\1") * 100, 1000),
        "continuation": (lambda p, n: frame(HEADERS, 0, 1, b"\x82") if n == 0 else frame(CONTINUATION, 0, 1, b"\0\1a\1b" * 200), 3000),
        "empty data": (lambda p, n: frame(HEADERS, END_HEADERS, 1, p.fields("/spire.api.server.bundle.v1.Bundle/GetBundle")) if n == 0
                       else frame(DATA, 0, 1) * 100, 1000),
        "open streams": (lambda p, n: frame(HEADERS, END_HEADERS, 2 * n + 1, p.fields("/spire.api.server.agent.v1.Agent/AttestAgent")), 5000),
    }
    for name, (pieces, count) in kinds.items():  # once to get warm
        pour(False, pieces, count)
    with Watch(s, 100, mib=24):
        for secure in BOTH:
            for name, (pieces, count) in kinds.items():
                before = s.rss()
                peak = pour(secure, pieces, count)
                check(SANITIZED or peak - before < 64 * 1024, "%s: memory grew by %d MiB" % (name, (peak - before) >> 10))


@test("abuse-idle-connections")
def idle(w):
    """Connections that say nothing, or stop in the middle of the handshake: others are served, and all is given back."""
    s = started(w)
    with Watch(s, 300, mib=24):
        held = []
        for n in range(300):
            c = socket.create_connection(("127.0.0.1", s.port), 10)
            if n % 3 == 1:
                c.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
            held.append(c)
            if n % 3 == 2:
                u = socket.socket(socket.AF_UNIX)
                u.connect(s.sock)
                u.sendall(PREFACE[:12])
                held.append(u)
        began = time.monotonic()
        for _ in range(5):
            s.serves()
        check(time.monotonic() - began < 10 * SLOW, "others are served at once")
        for c in held:
            c.close()


@test("abuse-client-certificates")
def client_certificates(w):
    """Expired, of another authority, without an id: no connection. A certificate that expires while it is connected: its calls are refused."""
    s = started(w)
    s.cli("entry", "create", "-spiffeID", "spiffe://example.org/admin", "-parentID", "spiffe://example.org/x", "-selector", "a:b", "-admin")
    expired = w.mint(s, "expired", "spiffe://example.org/admin", ttl=1)
    good = w.mint(s, "good", "spiffe://example.org/admin")
    same("the good one", s.call("Entry.CountEntries", who=good), {"count": 1})
    other = World()
    try:
        other.pop_authority()
        foreign = other.pop_certificate("foreign")
        until("it has expired", lambda: run(["openssl", "x509", "-in", expired[0], "-noout", "-checkend", "0"])[0] == 1, 5)
        with Watch(s, 30):
            for name, identity in (("expired", expired), ("foreign", foreign)) * 5:
                try:
                    link = s.link(identity, timeout=10)
                    result = link.call("Bundle.GetBundle", [{}])
                    raise Fail("%s: answered with %s" % (name, result[1:3]))
                except OSError:
                    pass
        same("the good one", s.call("Entry.CountEntries", who=good), {"count": 1})
    finally:
        other.close()


@test("abuse-bad-items")
def bad_items(w):
    """A batch in which some items are nonsense: each gets its own status, the good ones are carried out."""
    s = started(w)
    agent, me = w.attest(s, "a1")
    entry = create_entry(s, "web", me, OWN_UID)
    csr, _ = w.csr("k")
    dice = random.Random(2)
    raw = base64.b64decode(csr)
    params = [{"entry_id": entry, "csr": csr}, {"entry_id": entry, "csr": "AAAA"}, {"entry_id": entry}, {"entry_id": "none", "csr": csr}, {"csr": csr}, {}]
    for n in range(60):  # the request with bytes changed, cut, grown
        bad = bytearray(raw)
        for _ in range(1 + n % 3):
            bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        params.append({"entry_id": entry, "csr": base64.b64encode(bytes(bad if n % 5 else bad[:dice.randrange(len(bad))])).decode()})
    params.append({"entry_id": entry, "csr": csr})
    until("the entry reaches the agent", lambda: s.call("Entry.GetAuthorizedEntries", who=agent).get("entries"), 15)
    results = s.call("SVID.BatchNewX509SVID", {"params": params}, agent)["results"]
    same("results", len(results), len(params))
    check("svid" in results[0] and "svid" in results[-1], "the good items are signed")
    for item, result in zip(params[1:-1], results[1:-1]):
        check(result.get("status", {}).get("code", 0) != 0 and "svid" not in result, lambda: "%s: %s" % (item, result))
    s.serves()
