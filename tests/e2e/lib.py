# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: real processes in a folder of their own, ended by their pid, and waits with a deadline.

A test is a function with the mark @test; it gets a World: a fresh folder, free ports on 127.0.0.1, and all that it starts. When it ends, however
it ends, what it started is ended and the folder is removed. Children die with this process even if it is killed.
"""
import base64, json, os, random, shutil, signal, socket, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "golden"))
sys.dont_write_bytecode = True
import wire

TD = "example.org"
SERVER = os.path.abspath(os.environ.get("SERVER") or os.path.join(ROOT, "build/release/trefoil"))  # the server under test, also its CLI
STOCK_AGENT = os.environ.get("SPIRE_AGENT")  # stock spire-agent 1.13.3
STOCK_SERVER = os.environ.get("SPIRE_SERVER")  # stock spire-server 1.13.3, used as a CLI
SANITIZED = "asan" in SERVER or "tsan" in SERVER  # memory is not measured then, and things are slower
SLOW = 4 if SANITIZED else 1

TESTS = []  # (name, function, limit in seconds)


class Fail(Exception):
    pass


class Skip(Exception):
    pass


def test(name, limit=120, agent=False, cli=False):
    """Registers a test. agent, cli: it needs the stock agent, the stock CLI."""
    def mark(function):
        def run(world):
            if agent and not STOCK_AGENT:
                raise Skip("no stock spire-agent (SPIRE_AGENT)")
            if cli and not STOCK_SERVER:
                raise Skip("no stock spire-server as a CLI (SPIRE_SERVER)")
            function(world)
        TESTS.append((name, run, limit))
        return run
    return mark


# --- checks and waits -------------------------------------------------------
def check(condition, text):
    if not condition:
        raise Fail(text() if callable(text) else text)


def same(what, got, want):
    check(got == want, lambda: "%s: got %r, want %r" % (what, got, want))


def has(what, text, *phrases):
    for phrase in phrases:
        check(phrase in text, lambda: "%s: %r does not occur in:\n%s" % (what, phrase, text[-3000:]))


def until(what, condition, seconds, *quit_if):
    """Polls until the condition holds and returns its value. quit_if: (condition, text) that make further waiting useless."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        for stop, text in quit_if:
            if stop():
                raise Fail("%s: %s" % (what, text() if callable(text) else text))
        if time.monotonic() > end:
            raise Fail("%s: not within %g s" % (what, seconds * SLOW))
        time.sleep(0.03)


# --- processes --------------------------------------------------------------
def free_port():
    """Below the range from which the kernel takes the ports of outgoing connections, so that none of them takes it in between."""
    while True:
        port = random.randrange(12000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def tree(folder):
    """All below a folder: path -> mode and content, to see that nothing was written. (The lock file names who held it last.)"""
    out = {}
    for base, folders, files in os.walk(folder):
        for name in folders + [f for f in files if f != "lock"]:
            path = os.path.join(base, name)
            info = os.lstat(path)
            content = open(path, "rb").read() if os.path.isfile(path) else None
            out[os.path.relpath(path, folder)] = (oct(info.st_mode), content)
    return out


class Process:
    """A child with its output in a file."""

    def __init__(self, world, name, argv, env=None):
        self.world, self.name, self.argv, self.env = world, name, argv, env or {}
        self.path = os.path.join(world.dir, name + ".log")
        self.child = None

    def spawn(self, *more):
        with open(self.path, "ab") as log:
            self.child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--"] + self.argv + list(more), cwd=self.world.dir,
                                          env=dict(os.environ, **self.env), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.world.children.append(self.child)
        return self

    @property
    def pid(self):
        return self.child.pid

    def alive(self):
        return self.child is not None and self.child.poll() is None

    def log(self, since=0):
        with open(self.path, encoding="utf-8", errors="replace") as f:
            f.seek(since)
            return f.read()

    def mark(self):
        """The place in the log up to now, for log(since)."""
        return os.path.getsize(self.path)

    def kill(self):
        self.child.kill()
        self.child.wait()

    def stop(self, seconds=20):
        self.child.send_signal(signal.SIGTERM)
        return self.exit_code(seconds)

    def exit_code(self, seconds=20):
        try:
            return self.child.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            raise Fail("%s (pid %d) does not end within %g s\n%s" % (self.name, self.pid, seconds * SLOW, self.log()[-2000:])) from None

    def wait_log(self, phrase, seconds, since=0):
        until("%s logs %r" % (self.name, phrase), lambda: phrase in self.log(since), seconds,
              (lambda: not self.alive() and phrase not in self.log(since), lambda: "it ended\n" + self.log(since)[-2000:]))

    def rss(self):
        """Resident memory in KiB."""
        with open("/proc/%d/status" % self.pid) as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))


CONFIG = """server {
  bind_address = "127.0.0.1"
  bind_port = "%(port)d"
  socket_path = "%(dir)s/api.sock"
  trust_domain = "example.org"
  data_dir = "%(data)s"
  log_level = "DEBUG"
%(server)s
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "%(data)s/datastore.sqlite3" } }
  KeyManager "disk" { plugin_data { keys_path = "%(data)s/keys.json" } }
  NodeAttestor "join_token" { plugin_data {} }
%(plugins)s
}
%(top)s
"""


class Server(Process):
    def __init__(self, world, name="server", server="", plugins="", top="", config=None, env=None, data=None, binary=SERVER, port=None, home=None):
        """home: a folder within the world's for its socket and its data, where there are several servers."""
        home = os.path.join(world.dir, home) if home else world.dir
        os.makedirs(home, exist_ok=True)
        self.conf = os.path.join(world.dir, name + ".conf")
        self.data = data or os.path.join(home, "data")
        self.port = port or free_port()
        self.sock = os.path.join(home, "api.sock")
        with open(self.conf, "w") as f:
            f.write(config or CONFIG % dict(port=self.port, dir=home, data=self.data, server=server, plugins=plugins, top=top))
        super().__init__(world, name, [binary, "run", "-config", self.conf], env)

    def start(self, seconds=20):
        before = self.mark() if os.path.exists(self.path) else 0
        self.spawn()
        until("the server listens", self.listens, seconds,
              (lambda: not self.alive(), lambda: "it ended with %s\n%s" % (self.child.returncode, self.log(before)[-3000:])))
        return self

    def listens(self):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(self.sock)
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False

    def cli(self, *args, binary=SERVER, code=0, stdin=None):
        """A command of the CLI -> its standard output. code: the exit status it must have (None: any; then (status, stdout, stderr))."""
        first = next((i for i, a in enumerate(args) if a.startswith("-")), len(args))
        argv = [binary] + list(args[:first]) + ["-socketPath", self.sock] + list(args[first:])
        done = run(argv, stdin=stdin)
        if code is None:
            return done
        check(done[0] == code, lambda: "%s: exit status %d, want %d\n%s%s" % (" ".join(argv), done[0], code, done[1], done[2]))
        return done[1]

    def stock_cli(self, *args, **more):
        return self.cli(*args, binary=STOCK_SERVER, **more)

    def link(self, who=None, timeout=40):
        """A gRPC connection: None is the socket, "tcp" a caller without a certificate, else (certificate file, key file)."""
        if who is None:
            return wire.Connection(self.sock, timeout=timeout)
        return wire.Connection(("127.0.0.1", self.port), None if who == "tcp" else who, timeout=timeout)

    def call(self, method, request=None, who=None):
        """One call on a new connection -> its answer; an error fails the test."""
        link = self.link(who)
        try:
            return answer(link.call(method, [request or {}]), method)
        finally:
            link.close()

    def serves(self):
        """It does its work: a call on the socket, one over TCP."""
        same("health", self.call("Health.Check"), {"status": "SERVING"})
        same("GetBundle", self.call("Bundle.GetBundle", {"output_mask": {}}, "tcp"), {"trust_domain": TD})


def answer(result, what="the call"):
    answers, code, message, _ = result
    check(code == 0, lambda: "%s: %s: %s" % (what, wire.CODES[code], message))
    return answers[0]


def run(argv, stdin=None, seconds=60, env=None):
    """-> (status, stdout, stderr)"""
    try:
        done = subprocess.run(argv, input=stdin.encode() if stdin is not None else None, stdin=subprocess.DEVNULL if stdin is None else None,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=seconds * SLOW, env=env)
    except subprocess.TimeoutExpired:
        raise Fail("no end within %g s: %s" % (seconds * SLOW, " ".join(argv))) from None
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def tool(*argv):
    status, out, err = run(list(argv))
    check(status == 0, lambda: "%s: exit status %d\n%s%s" % (" ".join(argv), status, out, err))
    return out


AGENT = """agent {
  data_dir = "%(dir)s" log_level = "DEBUG" trust_domain = "example.org" insecure_bootstrap = true
  server_address = "127.0.0.1" server_port = "%(port)d" socket_path = "%(sock)s"
  experimental { sync_interval = "1s" }
}
plugins {
  NodeAttestor "%(attestor)s" { plugin_data { %(attestor_data)s } }
  KeyManager "disk" { plugin_data { directory = "%(dir)s" } }
  WorkloadAttestor "unix" { plugin_data {} }
}
"""


class Agent(Process):
    """A stock spire-agent. pop: (certificate file, key file) for x509pop, else it attests by join token."""

    def __init__(self, world, server, name="agent", pop=None):
        folder = os.path.join(world.dir, name)
        os.makedirs(folder, exist_ok=True)
        self.sock = os.path.join(world.dir, name + ".sock")
        data = 'certificate_path = "%s" private_key_path = "%s"' % pop if pop else ""
        conf = world.write(name + ".conf", AGENT % dict(dir=folder, port=server.port, sock=self.sock, attestor="x509pop" if pop else "join_token",
                                                        attestor_data=data))
        super().__init__(world, name, [STOCK_AGENT, "run", "-config", conf])

    def start(self, token=None, seconds=40):
        if os.path.exists(self.sock):
            os.unlink(self.sock)
        self.spawn(*(["-joinToken", token] if token else []))
        until("the agent attests and listens", lambda: os.path.exists(self.sock), seconds,
              (lambda: not self.alive(), lambda: "it ended\n" + self.log()[-3000:]))
        return self

    def id(self, server):
        """Its SPIFFE ID: the one agent that the server lists with this attestation."""
        listed = json.loads(server.cli("agent", "list", "-output", "json"))["agents"]
        check(len(listed) == 1, "one agent is listed, not %d" % len(listed))
        return "spiffe://%s%s" % (listed[0]["id"]["trust_domain"], listed[0]["id"]["path"])

    def api(self, *args, code=None):
        """spire-agent api ... -> (status, stdout, stderr), or stdout where a code is asked for."""
        done = run([STOCK_AGENT, "api"] + list(args) + ["-socketPath", self.sock])
        if code is None:
            return done
        check(done[0] == code, lambda: "api %s: exit status %d, want %d\n%s%s" % (" ".join(args), done[0], code, done[1], done[2]))
        return done[1]

    def x509(self):
        """The SPIFFE IDs of the X.509-SVIDs that a workload of our user gets now; [] if none."""
        status, out, _ = self.api("fetch", "x509")
        return sorted(line.split()[-1] for line in out.splitlines() if line.startswith("SPIFFE ID:")) if status == 0 else []

    def wait_x509(self, *ids, seconds=40):
        want = sorted("spiffe://%s/%s" % (TD, i) for i in ids)
        last = []

        def ready():
            last[:] = [self.x509()]
            return last[0] == want
        try:
            until("the workload gets %s" % (want or "nothing"), ready, seconds,
                  (lambda: not self.alive(), lambda: "the agent ended\n" + self.log()[-2000:]))
        except Fail as e:
            raise Fail("%s; it gets %s" % (e, last[0] if last else None)) from None

    def jwt(self, audience, spiffe_id):
        out = self.api("fetch", "jwt", "-audience", audience, "-spiffeID", "spiffe://%s/%s" % (TD, spiffe_id), "-output", "json", code=0)
        return json.loads(out)[0]["svids"][0]["svid"]


def claims(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


class World:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="e2e-")
        self.children, self.mounts = [], []
        self.servers, self.note = [], None  # note: what an "ok" line says besides

    def write(self, name, text, mode="w"):
        path = os.path.join(self.dir, name)
        with open(path, mode) as f:
            f.write(text)
        return path

    def server(self, *args, **more):
        s = Server(self, *args, **more)
        self.servers.append(s)
        return s

    def agent(self, *args, **more):
        return Agent(self, *args, **more)

    def pop_authority(self):
        """pop-ca.pem, a CA for x509pop, and its key."""
        key, out = self.dir + "/pop-ca.key", self.dir + "/pop-ca.pem"
        tool("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=pop-ca",
             "-keyout", key, "-out", out, "-addext", "keyUsage=critical,keyCertSign")
        return out

    def pop_certificate(self, name):
        key, out = "%s/%s.key" % (self.dir, name), "%s/%s.pem" % (self.dir, name)
        tool("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=" + name,
             "-keyout", key, "-out", out, "-CA", self.dir + "/pop-ca.pem", "-CAkey", self.dir + "/pop-ca.key",
             "-addext", "keyUsage=critical,digitalSignature", "-addext", "basicConstraints=CA:FALSE",
             "-addext", "subjectAltName=URI:x509pop://%s/name/%s" % (TD, name))
        return out, key

    def csr(self, name, uri=None):
        """-> (base64 of the DER of a CSR, key file)"""
        key, out = "%s/%s.key" % (self.dir, name), "%s/%s.csr" % (self.dir, name)
        tool("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-outform", "DER", "-out", out,
             "-subj", "/C=US/O=SPIRE", *(["-addext", "subjectAltName=URI:" + uri] if uri else []))
        with open(out, "rb") as f:
            return base64.b64encode(f.read()).decode(), key

    def save_chain(self, name, chain):
        path = "%s/%s.pem" % (self.dir, name)
        with open(path, "w") as f:
            for der in chain:
                f.write("-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n" % "\n".join(der[i:i + 64] for i in range(0, len(der), 64)))
        return path

    def mint(self, server, name, uri, ttl=600):
        """A caller with a minted X.509-SVID -> (certificate file, key file)."""
        csr, key = self.csr(name, uri)
        return self.save_chain(name, server.call("SVID.MintX509SVID", {"csr": csr, "ttl": ttl})["svid"]["cert_chain"]), key

    def attest(self, server, name, token=None):
        """Our own client attests by join token -> (certificate file, key file), its SPIFFE ID."""
        token = token or server.call("Agent.CreateJoinToken", {"ttl": 600})["value"]
        csr, key = self.csr(name)
        params = {"data": {"type": "join_token", "payload": base64.b64encode(token.encode()).decode()}, "params": {"csr": csr}}
        for _ in range(20):  # attestations are limited to one a second
            link = server.link("tcp")
            result = link.call("Agent.AttestAgent", [{"params": params}])
            link.close()
            if result[1] != 8:
                break
            time.sleep(0.2)
        svid = answer(result, "AttestAgent")["result"]["svid"]
        return (self.save_chain(name, svid["cert_chain"]), key), "spiffe://%s%s" % (TD, svid["id"]["path"])

    def close(self, keep=False):
        for child in reversed(self.children):
            if child.poll() is None:
                child.kill()
                child.wait()
        for path in reversed(self.mounts):
            subprocess.run(["umount", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if keep:
            print("     kept %s" % self.dir)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


def create_entry(server, spiffe_id, parent, *selectors, more=(), stock=False):
    args = ["entry", "create", "-spiffeID", "spiffe://%s/%s" % (TD, spiffe_id), "-parentID", parent, "-output", "json"]
    for s in selectors:
        args += ["-selector", s]
    out = (server.stock_cli if stock else server.cli)(*args, *more)
    return json.loads(out)["results"][0]["entry"]["id"]


OWN_UID = "unix:uid:%d" % os.getuid()
