# SPDX-License-Identifier: Apache-2.0
"""Servers below servers: three levels in one trust domain, ours and stock ones above and below each other, with stock agents."""
import json, os

from lib import *

BELOW = 'UpstreamAuthority "spire" { plugin_data { server_address = "127.0.0.1" server_port = %d workload_api_socket = "%s" } }'
OURS, STOCK = SERVER, STOCK_SERVER


class Level:
    """A server, and the agent that attests with it."""

    def __init__(self, w, name, binary, above=None):
        plugins = BELOW % (above.server.port, above.agent.sock) if above else ""
        self.name, self.above, self.world = name, above, w
        self.server = w.server(name, plugins=plugins, binary=binary, home=name)

    def start(self):
        self.server.start(60)
        token = json.loads(self.server.cli("token", "generate", "-output", "json"))["value"]
        self.agent = self.world.agent(self.server, self.name + "-agent").start(token)
        self.agent_id = self.agent.id(self.server)
        return self

    def admit(self, name):
        """The server `name` below may come: our agent gives it its identity."""
        create_entry(self.server, name, self.agent_id, OWN_UID, more=["-downstream"])
        self.agent.wait_x509(name)

    def bundle(self):
        return json.loads(self.server.cli("bundle", "show", "-output", "json"))

    def roots(self):
        return self.bundle()["x509_authorities"]

    def kids(self):
        return {k["key_id"] for k in self.bundle()["jwt_authorities"]}

    def active(self, kind="x509"):
        return json.loads(self.server.cli("localauthority", kind, "show", "-output", "json"))["active"]

    def authority(self, kind, verb, *args):
        out = json.loads(self.server.cli("localauthority", kind, verb, *args, "-output", "json"))
        return next(iter(out.values()))["authority_id"]


def tree(w, *binaries):
    levels = []
    for i, binary in enumerate(binaries):
        level = Level(w, "level%d" % i, binary, levels[-1] if levels else None)
        if levels:
            levels[-1].admit(level.name)
        levels.append(level.start())
    create_entry(levels[-1].server, "web", levels[-1].agent_id, OWN_UID)
    levels[-1].agent.wait_x509("web")
    return levels


def same_roots(levels, n, seconds=60):
    """All have the root's roots, in its order and with its marks, and there are n."""
    def equal():
        roots = levels[0].roots()
        return len(roots) == n and all(level.roots() == roots for level in levels[1:])
    until("all levels have the same %d roots" % n, equal, seconds)


def svid(w, leaf, root):
    """The workload's chain at the lowest level leads to the root, by the root's bundle. -> the number of its certificates"""
    folder = w.dir + "/svid"
    os.makedirs(folder, exist_ok=True)
    leaf.agent.api("fetch", "x509", "-write", folder, code=0)
    bundle = w.write("root.pem", root.server.cli("bundle", "show"))
    tool("openssl", "verify", "-CAfile", bundle, "-untrusted", folder + "/svid.0.pem", folder + "/svid.0.pem")
    same("the bundle at the lowest level", open(folder + "/bundle.0.pem").read().split(), open(bundle).read().split())
    return open(folder + "/svid.0.pem").read().count("BEGIN CERTIFICATE")


def jwt_is_valid_above(leaf, root):
    token = leaf.agent.jwt("db", "web")
    until("a JWT-SVID of the lowest level is valid at the root's agent",
          lambda: root.agent.api("validate", "jwt", "-audience", "db", "-svid", token)[0] == 0, 30)


def rotate_root(levels):
    """The root's authority is changed, the old one tainted and revoked: all below follow by themselves."""
    root = levels[0]
    before = [level.active()["authority_id"] for level in levels]
    old, new = before[0], root.authority("x509", "prepare")
    same_roots(levels, 2)
    root.authority("x509", "activate", "-authorityID", new)
    root.authority("x509", "taint", "-authorityID", old)
    same_roots(levels, 2, 90)
    for above, level, was in zip(levels, levels[1:], before[1:]):
        until("%s has left the tainted authority" % level.name, lambda: level.active()["authority_id"] != was, 60)
        until("%s hangs on the present authority above" % level.name,
              lambda: level.active()["upstream_authority_subject_key_id"] == above.active()["authority_id"], 60)
    levels[-1].agent.wait_log("Scheduled rotation for SVID entries due to tainted X.509 authorities", 60)
    root.authority("x509", "revoke", "-authorityID", old)
    same_roots(levels, 1, 90)


def life(w, *binaries):
    levels = tree(w, *binaries)
    root, leaf = levels[0], levels[-1]
    for level in levels[1:]:
        same("authority above %s" % level.name, level.active()["upstream_authority_subject_key_id"], level.above.active()["authority_id"])
    same_roots(levels, 1)
    kids = {level.active("jwt")["authority_id"] for level in levels}
    until("the root knows all JWT keys", lambda: root.kids() == kids, 30)
    until("all know all JWT keys", lambda: all(level.kids() == kids for level in levels), 30)
    same("certificates in the workload's chain", svid(w, leaf, root), len(levels))
    jwt_is_valid_above(leaf, root)
    new = leaf.authority("jwt", "prepare")
    until("a new JWT key of the lowest level is known at the root", lambda: new in root.kids(), 20)
    leaf.authority("jwt", "activate", "-authorityID", new)
    rotate_root(levels)
    leaf.agent.wait_x509("web")
    until("the workload has an SVID of the new authority", lambda: verifies(w, leaf, root), 60)
    same("certificates in the workload's chain", svid(w, leaf, root), len(levels))
    return levels


def verifies(w, leaf, root):
    try:
        svid(w, leaf, root)
        return True
    except Fail:
        return False


@test("nesting-ours", limit=400, agent=True)
def ours(w):
    life(w, OURS, OURS, OURS)


@test("nesting-ours-between", limit=400, agent=True, cli=True)
def between(w):
    life(w, STOCK, OURS, STOCK)


@test("nesting-ours-around", limit=400, agent=True, cli=True)
def around(w):
    life(w, OURS, STOCK, OURS)


@test("nesting-outage", limit=300, agent=True)
def outage(w):
    """A parent that is away stops nobody below; what needs it says so, and goes on when it is back. A restart keeps the CA."""
    root, leaf = tree(w, OURS, OURS)
    before = leaf.active()
    root.server.kill()
    svid_before = leaf.agent.api("fetch", "x509", code=0)
    has("the workload's SVID", svid_before, "spiffe://example.org/web")
    status, out, err = leaf.server.cli("localauthority", "x509", "prepare", code=None)
    check(status == 1, "an authority cannot be prepared without the server above: %s" % out)
    has("prepare without the server above", err, "could not prepare X.509 authority", "unable to request a new Downstream X509CA", "connection refused")
    same("the authority after a failure", leaf.active(), before)
    create_entry(leaf.server, "late", leaf.agent_id, OWN_UID)
    leaf.agent.wait_x509("late", "web")

    leaf.server.kill()
    leaf.server.start()  # the server above is still away: keys and journal are enough
    same("the authority after a restart", leaf.active(), before)
    leaf.agent.wait_x509("late", "web")
    root.server.start()
    new = root.authority("jwt", "prepare")
    until("a new JWT key of the root comes down again", lambda: new in leaf.kids(), 40)
    prepared = leaf.authority("x509", "prepare")
    leaf.authority("x509", "activate", "-authorityID", prepared)
    same("the authority above", leaf.active()["upstream_authority_subject_key_id"], root.active()["authority_id"])


@test("nesting-late", limit=200, agent=True)
def late(w):
    """A server whose identity is not there yet waits for it and opens no API; it can be stopped meanwhile, and a refusal ends it."""
    root = Level(w, "root", OURS).start()
    child = Level(w, "child", OURS, root)
    child.server.spawn()
    child.server.wait_log("Failed to watch the Workload API", 20)
    check(not os.path.exists(child.server.sock), "no API before the first CA")
    check("Starting Server APIs" not in child.server.log(), "no API before the first CA")
    same("exit status of a stop at the start", child.server.stop(), 0)
    child.server.spawn()
    child.server.wait_log("Failed to watch the Workload API", 20, child.server.mark())
    entry = create_entry(root.server, "child", root.agent_id, OWN_UID)  # not downstream: refused
    same("exit status after a refusal", child.server.exit_code(60), 1)
    has("the log", child.server.log(), "unable to request a new Downstream X509CA: rpc error: code = PermissionDenied")
    root.server.cli("entry", "update", "-entryID", entry, "-parentID", root.agent_id, "-spiffeID", "spiffe://example.org/child",
                    "-selector", OWN_UID, "-downstream")
    child.server.start(40)
    child.server.serves()
