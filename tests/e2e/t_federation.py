# SPDX-License-Identifier: Apache-2.0
"""Trust across domains: bundle endpoints and their refresh between servers of ours and a stock one, killed meanwhile; endpoints that mean harm;
the operator's snippets (snippets/) through real processes."""
import http.server, json, os, re, shlex, ssl, threading, time, urllib.error, urllib.request

from lib import *
import lib

SITE = """server {
  bind_address = "127.0.0.1"
  bind_port = "%(port)d"
  socket_path = "%(dir)s/%(name)s.sock"
  trust_domain = "%(td)s"
  data_dir = "%(dir)s/%(name)s"
  log_level = "DEBUG"
  federation {
%(federation)s
  }
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "%(dir)s/%(name)s/datastore.sqlite3" } }
  KeyManager "disk" { plugin_data { keys_path = "%(dir)s/%(name)s/keys.json" } }
  NodeAttestor "join_token" { plugin_data {} }
}
"""
ENDPOINT = """bundle_endpoint { address = "127.0.0.1" port = %d refresh_hint = "1m" profile "https_spiffe" {} }"""
WEB = """bundle_endpoint { address = "127.0.0.1" port = %d refresh_hint = "1m"
  profile "https_web" { serving_cert_file { cert_file_path = "%s" key_file_path = "%s" file_sync_interval = "1s" } } }"""
WITH_SPIFFE = """federates_with "%(td)s" { bundle_endpoint_url = "%(url)s"
  bundle_endpoint_profile "https_spiffe" { endpoint_spiffe_id = "spiffe://%(td)s/spire/server" } }"""
WITH_WEB = """federates_with "%(td)s" { bundle_endpoint_url = "%(url)s" bundle_endpoint_profile "https_web" {} }"""


class Site(lib.Server):
    """A server of a trust domain, with a bundle endpoint."""

    def __init__(self, w, name, federation=(), binary=SERVER, web=None, env=None):
        self.td = name + ".test"
        self.endpoint = free_port()
        self.url = "https://%s:%d/" % ("localhost" if web else "127.0.0.1", self.endpoint)
        self.here = [(WEB % ((self.endpoint,) + web)) if web else ENDPOINT % self.endpoint]
        self.dir = w.dir
        os.makedirs("%s/%s" % (w.dir, name), exist_ok=True)
        super().__init__(w, name, config="-", data="%s/%s" % (w.dir, name), binary=binary, env=env)
        self.sock = "%s/%s.sock" % (w.dir, name)
        self.configure(*federation)
        w.servers.append(self)

    def configure(self, *federation):
        self.world.write(self.name + ".conf", SITE % dict(port=self.port, dir=self.dir, name=self.name, td=self.td,
                                                          federation="\n".join(self.here + list(federation))))

    def own(self):
        return json.loads(self.cli("bundle", "show", "-format", "spiffe", binary=self.argv[0]))

    def save(self):
        """Its bundle in a file."""
        return self.world.write(self.td + ".json", json.dumps(self.own()))

    def of(self, td):
        """The stored bundle of another trust domain, as JSON; None."""
        status, out, err = self.cli("bundle", "list", "-id", td, "-output", "json", binary=self.argv[0], code=None)
        return json.loads(out) if status == 0 and out.strip() else None

    def roots(self, td):
        bundle = self.of(td)
        return sorted(a["asn1"] for a in bundle["x509_authorities"]) if bundle else []

    def own_roots(self):
        return sorted(a["asn1"] for a in json.loads(self.cli("bundle", "show", "-output", "json", binary=self.argv[0]))["x509_authorities"])

    def new_root(self):
        self.cli("localauthority", "x509", "prepare", binary=self.argv[0])

    def knows(self, other, seconds=25):
        """Until it has the roots that the other has now."""
        until("%s has the bundle of %s" % (self.td, other.td), lambda: self.roots(other.td) == other.own_roots(), seconds)

    def refresh(self, td, code=0):
        return self.cli("federation", "refresh", "-id", td, binary=self.argv[0], code=code)


def authority(w, name="web-ca"):
    key, out = "%s/%s.key" % (w.dir, name), "%s/%s.pem" % (w.dir, name)
    tool("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=" + name, "-keyout", key,
         "-out", out)
    return out


def web_pair(w, name, ca="web-ca", san="DNS:localhost", kind=("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), days=("-days", "2")):
    """-> (certificate file, key file) for https_web."""
    key, out, csr = "%s/%s.key" % (w.dir, name), "%s/%s.crt" % (w.dir, name), "%s/%s.csr" % (w.dir, name)
    tool("openssl", "req", "-newkey", *kind, "-nodes", "-keyout", key, "-out", csr, "-subj", "/CN=" + name)
    ext = w.write(name + ".ext", "subjectAltName=%s\n" % san)
    tool("openssl", "x509", "-req", "-in", csr, "-CA", "%s/%s.pem" % (w.dir, ca), "-CAkey", "%s/%s.key" % (w.dir, ca), "-set_serial", str(free_port()),
         "-extfile", ext, "-out", out, *days)
    return out, key


def introduce(a, b):
    """Each gets the other's present bundle by hand."""
    a.cli("bundle", "set", "-id", b.td, "-path", b.save(), *stock_form(a), binary=a.argv[0])
    b.cli("bundle", "set", "-id", a.td, "-path", a.save(), *stock_form(b), binary=b.argv[0])


def stock_form(site):
    return ["-format", "spiffe"] if site.argv[0] == STOCK_SERVER else []


def both_ways(w, a, b, to_a, to_b):
    """Two running servers learn of each other, follow each other's roots, and one is killed meanwhile. to_a, to_b: b's relationship with a, a's with b."""
    for site, other, profile in ((a, b, to_b), (b, a, to_a)):
        more = ["-endpointSpiffeID", "spiffe://%s/spire/server" % other.td] if profile == "https_spiffe" else []
        site.cli("federation", "create", "-trustDomain", other.td, "-bundleEndpointURL", other.url, "-bundleEndpointProfile", profile, *more,
                 binary=site.argv[0])
    a.knows(b)
    b.knows(a)
    b.new_root()
    a.refresh(b.td)
    same("roots of %s after a rotation" % b.td, a.roots(b.td), b.own_roots())
    # One side dies in the middle of things: the other keeps what it has and says so.
    a.new_root()
    before = b.roots(a.td)
    a.kill()
    status, out, err = b.refresh(a.td, code=None)
    check(status == 1 and "connection refused" in err, "the other side is down, and refresh says so: %r" % err)
    same("roots of %s while it is down" % a.td, b.roots(a.td), before)
    mark = a.mark()
    a.start()
    b.knows(a)  # by itself: within its interval
    a.knows(b)
    check("panic" not in a.log(mark), "it goes on as if nothing had been")


@test("federation-spiffe", limit=200)
def federation_spiffe(w):
    one, two = Site(w, "one").start(), Site(w, "two").start()
    introduce(one, two)
    both_ways(w, one, two, "https_spiffe", "https_spiffe")
    same("sequence numbers never fall", int(two.of("one.test")["sequence_number"]), one.own()["spiffe_sequence"])


@test("federation-web", limit=200)
def federation_web(w):
    roots = {"SSL_CERT_FILE": authority(w)}
    pair = web_pair(w, "one-web")
    one, two = Site(w, "one", web=pair, env=roots).start(), Site(w, "two", env=roots).start()
    one.cli("bundle", "set", "-id", two.td, "-path", two.save())  # two's profile needs a first bundle, one's does not
    both_ways(w, one, two, "https_web", "https_spiffe")
    # The certificate is renewed on disk, with another kind of key; then with one of an authority that nobody trusts.
    before = one.mark()
    web_pair(w, "one-web", kind=("rsa:2048",))
    one.wait_log("Bundle endpoint certificate reloaded", 10, before)
    two.refresh(one.td)
    w.write("one-web.crt", "garbage")
    one.wait_log("the old one stays", 10, before)
    two.refresh(one.td)
    authority(w, "other-ca")
    before = one.mark()
    web_pair(w, "one-web", ca="other-ca")
    one.wait_log("Bundle endpoint certificate reloaded", 10, before)
    status, out, err = two.refresh(one.td, code=None)
    check(status == 1 and "failed to verify certificate" in err, "an authority that is not trusted: %r" % err)


@test("federation-stock", limit=240, cli=True)
def federation_stock(w):
    """The other side is a stock server: both profiles, both directions."""
    roots = {"SSL_CERT_FILE": authority(w)}
    ours = Site(w, "ours", web=web_pair(w, "ours-web"), env=roots).start()
    stock = Site(w, "stock", binary=STOCK_SERVER, env=roots).start(60)
    introduce(ours, stock)
    both_ways(w, ours, stock, "https_web", "https_spiffe")
    plain = Site(w, "plain").start()
    introduce(plain, stock)
    both_ways(w, plain, stock, "https_spiffe", "https_spiffe")


@test("federation-configured", limit=120)
def federation_configured(w):
    """Relationships of the configuration: the other endpoint is down at the start, or wrong for ever; neither keeps a server from starting."""
    one, two = Site(w, "one"), Site(w, "two")
    one.configure(WITH_SPIFFE % dict(td="two.test", url=two.url), WITH_WEB % dict(td="static.test", url="https://127.0.0.1:1/"),
                  WITH_SPIFFE % dict(td="noport.test", url="https://127.0.0.1"), WITH_WEB % dict(td="one.test", url=one.url))
    two.configure(WITH_SPIFFE % dict(td="one.test", url=one.url))
    one.start()
    has("log", one.log(), "federates_with names the server's own trust domain")
    same("no relationship of the configuration is listed", one.call("TrustDomain.ListFederationRelationships"), {})
    same("the server goes on", one.call("Health.Check"), {"status": "SERVING"})
    two.start()
    introduce(one, two)
    one.refresh("two.test")
    for site, other in ((one, two), (two, one)):
        other.new_root()
        site.knows(other, 40)
    # The configuration's wins over one that is made later.
    one.cli("federation", "create", "-trustDomain", "two.test", "-bundleEndpointURL", "https://127.0.0.1:1/", "-bundleEndpointProfile", "https_web")
    one.refresh("two.test")
    # With the endpoints of another the entries can be made, and the bundle set by hand is there.
    one.cli("bundle", "set", "-id", "static.test", "-path", two.save())
    one.cli("entry", "create", "-spiffeID", "spiffe://one.test/w", "-parentID", "spiffe://one.test/n", "-selector", "unix:uid:1", "-federatesWith",
            "static.test")
    status, out, err = one.refresh("static.test", code=None)
    check(status == 1 and "connection refused" in err, "a refresh says what is wrong: %r" % err)
    same("the bundle set by hand stays", one.roots("static.test"), two.own_roots())
    began = time.monotonic()
    one.stop()
    check(time.monotonic() - began < 5 * SLOW, "it stops at once")


class Hostile:
    """An HTTPS server in this process: each path is one way to answer."""

    def __init__(self, w, pair, document):
        self.document, self.hits, hostile = document, [], self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                hostile.hits.append(self.path)
                try:
                    getattr(hostile, "answer_" + self.path.strip("/"))(self)
                except (OSError, ssl.SSLError):
                    pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.base = "https://localhost:%d" % self.port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def send(self, handler, body, status=200, **headers):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def json(self, handler, **changes):
        self.send(handler, json.dumps(dict(self.document, **changes)).encode())

    def answer_good(self, h):
        self.json(h)

    def answer_newer(self, h):
        self.json(h, spiffe_sequence=self.document["spiffe_sequence"] + 5, unknown=1,
                  keys=self.document["keys"] + [{"use": "new", "kty": "EC"}, {"use": "x509-svid", "kty": "LATTICE"}])

    def answer_older(self, h):
        self.json(h, spiffe_sequence=self.document["spiffe_sequence"] + 1)

    def answer_html(self, h):
        self.send(h, b"<!DOCTYPE html><html><body>Sign in</body></html>")

    def answer_empty(self, h):
        self.json(h, keys=[])

    def answer_nothing(self, h):
        self.send(h, b"")

    def answer_deep(self, h):
        self.send(h, b'{"keys":' + b"[" * 200000)

    def answer_badkey(self, h):
        key = dict(self.document["keys"][0], x="AAAA")
        self.json(h, keys=[key] + self.document["keys"][1:])

    def answer_halfgood(self, h):
        self.json(h, keys=self.document["keys"] + [{"use": "jwt-svid", "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}])

    def answer_error(self, h):
        self.send(h, b"x" * 100000, 503)

    def answer_huge(self, h):
        h.send_response(200)
        h.end_headers()
        for _ in range(1 << 14):
            h.wfile.write(b" " * 65536)

    def answer_slow(self, h):
        h.send_response(200)
        h.end_headers()
        for _ in range(600):
            h.wfile.write(b" ")
            time.sleep(0.5)

    def answer_here(self, h):
        self.send(h, b"", 302, Location="/good")

    def answer_loop(self, h):
        self.send(h, b"", 307, Location="/loop")

    def answer_plain(self, h):
        self.send(h, b"", 302, Location="http://localhost:%d/good" % self.port)

    def answer_elsewhere(self, h):
        self.send(h, b"", 301, Location=self.elsewhere)

    def answer_file(self, h):
        self.send(h, b"", 302, Location="file:///etc/passwd")


def relate(site, td, url, spiffe=None):
    more = ["-endpointSpiffeID", spiffe] if spiffe else []
    verb = "update" if td in site.cli("federation", "list") else "create"
    site.cli("federation", verb, "-trustDomain", td, "-bundleEndpointURL", url, "-bundleEndpointProfile", "https_spiffe" if spiffe else "https_web", *more)


@test("federation-hostile", limit=180)
def federation_hostile(w):
    env = {"SSL_CERT_FILE": authority(w)}
    source = Site(w, "source").start()
    source.new_root()
    document = source.own()
    document["spiffe_sequence"] = 7
    s = Site(w, "victim", env=env).start()
    bad = Hostile(w, web_pair(w, "hostile"), document)
    trap = Hostile(w, web_pair(w, "trap"), document)
    bad.elsewhere = trap.base + "/good"
    td = "hostile.test"
    relate(s, td, bad.base + "/good")
    s.refresh(td)
    good = s.of(td)
    same("sequence number", good["sequence_number"], "7")
    relate(s, "slow.test", bad.base + "/slow")  # runs beside the others
    relate(s, td, bad.base + "/here")
    s.refresh(td)  # a redirect to the same place
    for way, words in (("html", "failed to decode bundle"), ("empty", "holds no authority"), ("nothing", "failed to decode bundle"),
                       ("deep", "failed to decode bundle"), ("badkey", "failed to decode bundle"), ("halfgood", "failed to decode bundle"),
                       ("error", "unexpected status 503 fetching bundle: xxx"), ("huge", "more than 1048576 bytes"), ("loop", "stopped after 10 redirects"),
                       ("plain", "is not followed"), ("elsewhere", "is not followed"), ("file", "is not followed")):
        relate(s, td, "%s/%s" % (bad.base, way))
        status, out, err = s.refresh(td, code=None)
        check(status == 1 and words in err, lambda: "%s: %r" % (way, err))
        check(len(err) < 3000, lambda: "%s: the error has %d characters" % (way, len(err)))
        same("the bundle after " + way, s.of(td), good)
    same("nothing was asked of another server", trap.hits, [])
    relate(s, td, bad.base + "/newer")
    s.refresh(td)
    same("roots", s.roots(td), source.own_roots())
    same("sequence number", s.of(td)["sequence_number"], "12")
    relate(s, td, bad.base + "/older")
    status, out, err = s.refresh(td, code=None)
    check(status == 1, "an older bundle is refused")
    has("why", err, "sequence number 8 is lower than that of the stored bundle, 12", "bundle set -id hostile.test")
    s.cli("bundle", "set", "-id", td, "-path", w.write("by-hand.json", json.dumps(dict(document, spiffe_sequence=1))))
    s.refresh(td)  # the remedy works
    # Who it is.
    relate(s, td, "https://127.0.0.1:%d/good" % bad.port)
    status, out, err = s.refresh(td, code=None)
    check(status == 1 and "tls: " in err, "the certificate does not name 127.0.0.1: %r" % err)
    for name, days in (("expired", ("-days", "-1")),):
        late = Hostile(w, web_pair(w, name, days=days), document)
        relate(s, td, late.base + "/good")
        status, out, err = s.refresh(td, code=None)
        check(status == 1 and "expired" in err, "an expired certificate: %r" % err)
    s.cli("bundle", "set", "-id", source.td, "-path", source.save())
    relate(s, source.td, source.url, "spiffe://source.test/other")
    status, out, err = s.refresh(source.td, code=None)
    has("an id that is not the one", err, 'unexpected ID "spiffe://source.test/spire/server"')
    relate(s, source.td, source.url)
    status, out, err = s.refresh(source.td, code=None)
    has("https_web where it is https_spiffe", err, "maybe use https_spiffe instead of https_web")
    relate(s, source.td, source.url, "spiffe://victim.test/spire/server")  # roots of another trust domain
    status, out, err = s.refresh(source.td, code=None)
    check(status == 1 and "unexpected ID" in err, "the endpoint is of another trust domain: %r" % err)
    stranger = Site(w, "stranger").start()
    s.cli("bundle", "set", "-id", stranger.td, "-path", source.save())  # not its roots
    relate(s, stranger.td, stranger.url, "spiffe://stranger.test/spire/server")
    status, out, err = s.refresh(stranger.td, code=None)
    has("roots that are not its", err, "could not verify leaf certificate")
    s.wait_log("it took longer than 30 s", 45)
    same("nothing of the slow one is stored", s.of("slow.test"), None)
    s.serves_on = s.call("Health.Check")
    status = s.stop()
    same("exit status", status, 0)


@test("federation-endpoint-abuse", limit=90)
def federation_endpoint_abuse(w):
    """Those who hold connections, say nothing or nonsense: others are served meanwhile."""
    s = Site(w, "one").start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    held = []
    before = s.descriptors()
    for n in range(1500):  # more than it holds
        try:
            c = socket.create_connection(("127.0.0.1", s.endpoint), 5)
            if n % 10 == 0:
                c = context.wrap_socket(c)
                c.sendall(b"GET / HTTP/1.1\r\nX: ")
            held.append(c)
        except OSError:
            pass
        if n % 500 == 499:
            same("status", fetch(s.url, context), 200)
    check(s.descriptors() - before <= 1100, "connections are limited: %d" % (s.descriptors() - before))
    for junk in (b"\0" * 300, b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000)):
        with socket.create_connection(("127.0.0.1", s.endpoint), 5) as c:
            c.sendall(junk)
            try:
                c.recv(10)
            except OSError:
                pass
    with context.wrap_socket(socket.create_connection(("127.0.0.1", s.endpoint), 5)) as c:
        c.sendall(b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n")
        has("a line that is too long", c.recv(1000).decode(), "HTTP/1.1 431")
    same("status", fetch(s.url, context), 200)
    same("health", s.call("Health.Check"), {"status": "SERVING"})
    for c in held:
        c.close()
    began = time.monotonic()
    same("exit status", s.stop(), 0)
    check(time.monotonic() - began < 5 * SLOW, "open connections do not hold it")


def fetch(url, context):
    try:
        with urllib.request.urlopen(url, timeout=10, context=context) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as e:
        return e.code


# --- the operator's snippets --------------------------------------------------
def snippet(name):
    with open(os.path.join(lib.HERE, "snippets", name)) as f:
        return f.read()


def commands(name, server, **files):
    """Runs the commands of a snippet; paths stand in for those of the test's."""
    out = []
    for line in snippet(name).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            same("the command", words[0], "spire-server")
            words = [files.get(os.path.basename(word), word) for word in words[1:]]
            out.append((words, server))
    return out


def run_snippet_server(w, name, td, conf):
    """A server with the snippet's configuration; what it does not say comes from flags and a plugins section."""
    s = w.server(name, config=conf + 'plugins {\n  KeyManager "memory" { plugin_data {} }\n  NodeAttestor "join_token" { plugin_data {} }\n'
                 '  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "%s/%s.sqlite3" } }\n}\n' % (w.dir, name))
    s.sock = "%s/%s.sock" % (w.dir, name)
    s.argv += ["-socketPath", s.sock, "-dataDir", "%s/%s" % (w.dir, name), "-bindAddress", "127.0.0.1", "-serverPort", str(s.port)]
    return s.start()


@test("federation-snippets", limit=90)
def federation_snippets(w):
    port = free_port()
    conf = snippet("bundle-endpoint.conf")
    a = run_snippet_server(w, "a", "aws.example.com", conf.replace("8443", str(port)))
    b = run_snippet_server(w, "b", "gcp.example.com", conf.replace("aws.example.com", "gcp.example.com").replace("8443", str(free_port())))
    # 1: no profile is named: https_spiffe, and one line that says so.
    same("lines that say so", len(re.findall("level=warn.*no profile set, using https_spiffe", a.log())), 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(w.write("aws.pem", a.cli("bundle", "show")))
    context.verify_flags &= ~0x20  # X509_STRICT
    # 2: both paths serve it, to who asks in its own language too.
    documents = []
    for path in ("/", "/bundle"):
        with urllib.request.urlopen("https://127.0.0.1:%d%s" % (port, path), context=context) as answer:
            documents.append(answer.read())
    same("/bundle", documents[1], documents[0])
    same("keys", [k["use"] for k in json.loads(documents[0])["keys"]], ["x509-svid", "jwt-svid"])
    # 4: bundles in files, without a -format.
    files = {"aws-bundle.json": w.write("aws.json", a.cli("bundle", "show", "-format", "spiffe")),
             "gcp-bundle.json": w.write("gcp.json", b.cli("bundle", "show", "-format", "spiffe"))}
    for words, server in zip([c[0] for c in commands("bundle-set.sh", None, **files)], (a, b)):
        same("bundle set", server.cli(*words), "bundle set.\n")
    has("bundles of A", a.cli("bundle", "list"), "gcp.example.com")
    has("bundles of B", b.cli("bundle", "list"), "aws.example.com")
    # 5: an entry that federates.
    for words, server in commands("entry-create.sh", a):
        has("entry create", server.cli(*words), "spiffe://aws.example.com/service-a", "FederatesWith    : gcp.example.com")


@test("federation-istio-url", limit=60)
def federation_istio_url(w):
    """8: istiod checks the host's name, so the endpoint has profile https_web."""
    url = re.search(r'spiffeBundleUrl: "(\S+)"', snippet("istio-mesh.yaml")).group(1)
    ca = authority(w)
    s = Site(w, "one", web=web_pair(w, "host", san="DNS:spire-server,DNS:localhost")).start()
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags &= ~0x20
    url = url.replace("spire-server:8443", "localhost:%d" % s.endpoint)
    with urllib.request.urlopen(url, context=context) as answer:
        same("uses", [k["use"] for k in json.load(answer)["keys"]], ["x509-svid", "jwt-svid"])


@test("federation-readme", limit=60)
def federation_readme(w):
    """The five commands of the README's section, in its order, as they stand there."""
    text = open(ROOT + "/README.md").read()
    text = text[text.index("## Federation in five commands"):]
    block = re.search(r"^    (federation \{.*)$", text, re.M).group(1)
    lines = re.findall(r"^    ([AB])\$ trefoil (.*)$", text[:text.index("\n## ", 5)], re.M)
    same("commands", len(lines), 5)
    ports = {side: str(free_port()) for side in "AB"}
    sites = {side: run_snippet_server(w, side, td, 'server {\n  trust_domain = "%s"\n  %s\n}\n' % (td, block.replace("8443", ports[side])))
             for side, td in (("A", "aws.example.com"), ("B", "gcp.example.com"))}
    for side, line in lines:
        for other in "AB":
            line = line.replace("https://%s.example.com:8443" % other.lower(), "https://127.0.0.1:" + ports[other])
        words, _, target = line.partition(" > ")
        out = sites[side].cli(*[w.dir + "/" + word if word.endswith(".json") else word for word in words.split()])
        if target:
            w.write(target, out)
    for side, td in (("A", "gcp.example.com"), ("B", "aws.example.com")):
        sites[side].cli("federation", "refresh", "-id", td)
        has("bundles of " + side, sites[side].cli("bundle", "list"), td)
