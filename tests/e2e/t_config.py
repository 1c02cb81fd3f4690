# SPDX-License-Identifier: Apache-2.0
"""A configuration or a data directory that cannot work: SPIRE's text or one in its form, exit status 1, nothing written, and soon."""
import os, re, signal, socket

from lib import *

SOON = 8  # seconds


def refused(w, s, *phrases, argv=None):
    """Starts a server that must refuse to start: what it prints has the phrases, and its data directory is as before."""
    before = tree(s.data) if os.path.exists(s.data) else None
    status, out, err = run(argv or s.argv, seconds=SOON)
    same("exit status", (status, out[-600:] + err[-600:]), (1, out[-600:] + err[-600:]))
    check(not re.search(r"(?i)panic|assert|sanitizer", out + err), lambda: "it broke down: %s%s" % (out[-2000:], err[-2000:]))
    for p in phrases:
        check(re.search(p, out + err), lambda: "no match for %r in:\n%s%s" % (p, out[-2000:], err[-2000:]))
    after = tree(s.data) if os.path.exists(s.data) else None
    check(after == before or before is None and not after,
          lambda: "something was written: %s" % sorted(k for k in after if (before or {}).get(k) != after[k]))


def with_line(w, name, line=None, plugin="", top="", replace=None):
    s = w.server(name, server=line or "", plugins=plugin, top=top)
    if replace:
        text = open(s.conf).read()
        check(replace[0] in text, "the sample has " + replace[0])
        w.write(name + ".conf", text.replace(*replace))
    return s


@test("config-unknown-key")
def unknown_key(w):
    refused(w, with_line(w, "a", "  bogus_key = 1"), r'level=error msg="Unknown configuration detected" keys=bogus_key section=server',
            r"(?m)^unknown configuration detected$")
    refused(w, with_line(w, "b", "  bogus_b = 1\n  bogus_a = 2"), r'keys="bogus_a,bogus_b" section=server')
    refused(w, with_line(w, "c", top="nonsense {}"), r"keys=nonsense section=top-level")


@test("config-wrong-type")
def wrong_type(w):
    refused(w, with_line(w, "a", replace=('bind_port = "', 'bind_port = "x')), r'unable to decode configuration at ".*a\.conf": .*(invalid syntax|expected a number)')
    refused(w, with_line(w, "b", '  admin_ids = "spiffe://example.org/a"'), r'unable to decode configuration at ".*b\.conf": .*(7:15|slice|expected a list)')
    refused(w, with_line(w, "c", '  audit_log_enabled = "maybe"'), r"audit_log_enabled")
    refused(w, with_line(w, "d", '  ca_ttl = "5x"'), r'could not parse default CA ttl "5x"')
    refused(w, with_line(w, "e", replace=('log_level = "DEBUG"', 'log_level = "LOUD"')), r'could not start logger: not a valid logrus Level: "LOUD"')
    refused(w, with_line(w, "f", replace=('trust_domain = "example.org"', 'trust_domain = "Not A Domain"')), r"could not parse trust_domain")
    refused(w, with_line(w, "g", replace=('trust_domain = "example.org"', "")), r"trust_domain must be configured")
    refused(w, with_line(w, "h", "  default_x509_svid_ttl = [ 1 ]"), r"default_x509_svid_ttl|unable to decode")


@test("config-missing-file")
def missing_file(w):
    s = w.server()
    refused(w, s, r"could not find config file .*/absent\.conf: please use the -config flag", argv=[SERVER, "run", "-config", w.dir + "/absent.conf"])
    refused(w, s, r'unable to read configuration at ".*": .*is a directory', argv=[SERVER, "run", "-config", w.dir])
    refused(w, s, r"flag provided but not defined: -nonsense", argv=[SERVER, "run", "-nonsense"])


@test("config-plugins")
def plugins(w):
    refused(w, with_line(w, "a", plugin='KeyManager "memory" { plugin_data {} }'), r"KeyManager.*constraint not satisfied: expected exactly 1 but got 2")
    refused(w, with_line(w, "b", plugin='NodeAttestor "nonsense" { plugin_data {} }'), r"nonsense")
    refused(w, with_line(w, "c", plugin='NodeAttestor "x509pop" { plugin_data { ca_bundle_path = "/absent/ca.pem" } }'),
            r"/absent/ca\.pem: no such file or directory")
    w.write("ca.pem", "no certificate\n")
    refused(w, with_line(w, "d", plugin='NodeAttestor "x509pop" { plugin_data { ca_bundle_path = "%s/ca.pem" } }' % w.dir), r"x509pop")
    refused(w, with_line(w, "e", plugin='Nonsense "x" { plugin_data {} }'), r'unsupported plugin type|Nonsense')


@test("config-refused-keys")
def refused_keys(w):
    """Keys that would change trust or access are no warning as long as they are not built."""
    refused(w, with_line(w, "a", plugin='UpstreamAuthority "disk" { plugin_data { cert_file_path = "/absent/c.pem" key_file_path = "/absent/k.pem" } }'),
            r"UpstreamAuthority|/absent/")
    refused(w, with_line(w, "b", '  experimental { auth_opa_policy_engine { local { rego_path = "/absent/p.rego" policy_data_path = "/absent/d.json" } } }'),
            r"auth_opa_policy_engine|/absent/")


@test("config-hostile")
def hostile(w):
    """Deep nesting, NUL, 10 MB: an error that names line and column or that it is too large, without a crash and soon."""
    for name, text in (("blocks", b"server " + b"{ a " * 100000), ("lists", b"server {\n a = " + b"[" * 100000), ("nul", b'server {\n  data_dir = "a\0b"\n}\n'),
                       ("bytes", b"\xff\xfe" * 5000), ("long", b"server {\n  x = \"" + b"y" * 10_000_000 + b"\"\n}\n"),
                       ("many", b"server {\n" + b"  x { y = 1 }\n" * 700_000 + b"}\n"), ("open", b"server {\n  x = <<EOF\n" + b"y\n" * 5_000_000)):
        path = w.write(name + ".conf", text, "wb")
        s = w.server(name + "-x")
        refused(w, s, r'unable to (decode|read) configuration at ".*/%s\.conf": .*(\d+:\d+|is larger than \d+ bytes)' % name, argv=[SERVER, "run", "-config", path])
        refused(w, s, r"\d+:\d+|is larger than", argv=[SERVER, "validate", "-config", path])


@test("config-port-in-use")
def port_in_use(w):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        s = w.server(port=taken.getsockname()[1])
        refused(w, s, r"listen tcp 127\.0\.0\.1:%d: bind: address already in use" % s.port)
    s.start().serves()  # nothing has to be mended by hand


@test("config-unreadable-key")
def unreadable_key(w):
    s = w.server().start()
    bundle = s.cli("bundle", "show", "-output", "json")
    s.stop()
    path = s.data + "/keys.json"
    good = open(path, "rb").read()
    for bad in (b"garbage", b"", good[:len(good) // 2], good.replace(b'": "', b'": "AAAA', 1), b"\0" * len(good)):
        w.write("data/keys.json", bad, "wb")
        refused(w, s, r"(?i)key")
    os.unlink(path)
    os.mkdir(path)
    refused(w, s, r"keys\.json.*is a directory")
    os.rmdir(path)
    w.write("data/keys.json", good, "wb")
    s.start().serves()
    same("the bundle with the good key again", s.cli("bundle", "show", "-output", "json"), bundle)


@test("config-data-dir")
def data_dir(w):
    w.write("file", "x")
    refused(w, w.server("a", data=w.dir + "/file"), r"/file")
    s = w.server()
    s.sock = w.dir + "/" + "s" * 120
    w.write("server.conf", open(s.conf).read().replace(w.dir + "/api.sock", s.sock))
    refused(w, s, r"s{100}.*(invalid argument|too long|more than \d+ characters)")


@test("config-two-processes")
def two_processes(w):
    s = w.server().start()
    create_entry(s, "web", "spiffe://example.org/node", OWN_UID)
    second = w.server("second", data=s.data)
    w.write("second.conf", open(second.conf).read().replace("api.sock", "second.sock"))
    status, out, err = run(second.argv, seconds=SOON)
    same("exit status of the second", status, 1)
    has("what it says", out + err, s.data)
    # With the very same configuration, too: the socket of the first stays.
    status, out, err = run(s.argv, seconds=SOON)
    same("exit status of the second", status, 1)
    s.serves()
    create_entry(s, "more", "spiffe://example.org/node", OWN_UID)
    s.kill()
    s.start().serves()
    same("entries", s.call("Entry.CountEntries"), {"count": 2})


@test("config-broken-state")
def broken_state(w):
    s = w.server().start()
    create_entry(s, "web", "spiffe://example.org/node", OWN_UID)
    s.stop()
    found = [n for n in ("state.db", "datastore.sqlite3") if os.path.exists("%s/%s" % (s.data, n))]
    check(found, "the state is where it should be: %s" % os.listdir(s.data))
    path = "%s/%s" % (s.data, found[0])
    good = open(path, "rb").read()
    for bad in (b"garbage " * 1000, b"\0" * 8192, good[:100] + b"\xff" * 3996 + good[4096:]):
        w.write("data/" + found[0], bad, "wb")
        refused(w, s, re.escape(found[0]))
    w.write("data/" + found[0], good, "wb")
    s.start().serves()
    same("entries", s.call("Entry.CountEntries"), {"count": 1})


@test("config-other-trust-domain")
def other_trust_domain(w):
    s = w.server().start()
    create_entry(s, "web", "spiffe://example.org/node", OWN_UID)
    s.stop()
    good = open(s.conf).read()
    w.write("server.conf", good.replace('trust_domain = "example.org"', 'trust_domain = "other.org"'))
    status, out, err = run(s.argv, seconds=SOON)
    same("exit status", status, 1)
    has("what it says", out + err, "example.org", "other.org")
    w.write("server.conf", good)
    s.start().serves()


@test("config-sample")
def sample(w):
    """deploy/server.conf is a configuration, and one that starts."""
    status, out, err = run([SERVER, "validate", "-config", ROOT + "/deploy/server.conf"])
    same("validate", (status, out + err), (0, "SPIRE server configuration file is valid.\n"))
    text = open(ROOT + "/deploy/server.conf").read()
    s = w.server("sample")
    ports = {'"8081"': '"%d"' % s.port, '"8080"': '"%d"' % free_port(), "port = 9988": "port = %d" % free_port(), '"0.0.0.0"': '"127.0.0.1"',
             "/run/trefoil/": w.dir + "/", "/var/lib/trefoil": s.data}
    for old, new in ports.items():
        check(old in text, "the sample has " + old)
        text = text.replace(old, new)
    w.write("sample.conf", text)
    s.start().serves()
