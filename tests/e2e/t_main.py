# SPDX-License-Identifier: Apache-2.0
"""SPIRE's main job with stock agents: attestation, entries, SVIDs for workloads; the server killed in between; agents renewed, banned, evicted."""
import json, os, signal, time

from lib import *

X509POP = 'NodeAttestor "x509pop" { plugin_data { ca_bundle_path = "%s" } }'


@test("agent-join-token", agent=True, cli=True)
def agent_join_token(w):
    s = w.server().start()
    token = json.loads(s.stock_cli("token", "generate", "-spiffeID", "spiffe://example.org/node", "-output", "json"))["value"]
    a = w.agent(s).start(token)
    same("the agent's id", a.id(s), "spiffe://example.org/spire/agent/join_token/" + token)
    create_entry(s, "by-stock", "spiffe://example.org/node", OWN_UID, stock=True, more=["-dns", "stock.example.org", "-x509SVIDTTL", "600"])
    create_entry(s, "by-ours", "spiffe://example.org/node", OWN_UID, more=["-jwtSVIDTTL", "120"])
    create_entry(s, "other", "spiffe://example.org/node", "unix:uid:123456")
    a.wait_x509("by-stock", "by-ours")

    folder = w.dir + "/svids"
    os.mkdir(folder)
    a.api("fetch", "x509", "-write", folder, code=0)
    bundle = w.write("bundle.pem", s.cli("bundle", "show"))
    same("the bundle that the agent hands out", open(folder + "/bundle.0.pem").read().strip(), open(bundle).read().strip())
    seen = ""
    for n in (0, 1):
        tool("openssl", "verify", "-CAfile", bundle, "%s/svid.%d.pem" % (folder, n))
        seen += tool("openssl", "x509", "-in", "%s/svid.%d.pem" % (folder, n), "-noout", "-subject", "-ext", "subjectAltName")
        same("the key's public part", tool("openssl", "pkey", "-in", "%s/svid.%d.key" % (folder, n), "-pubout"),
             tool("openssl", "x509", "-in", "%s/svid.%d.pem" % (folder, n), "-noout", "-pubkey"))
    has("names of the SVIDs", seen, "DNS:stock.example.org, URI:spiffe://example.org/by-stock", "URI:spiffe://example.org/by-ours")

    jwt = a.jwt("db", "by-ours")
    body = claims(jwt)
    same("claims", (body["sub"], body["aud"]), ("spiffe://example.org/by-ours", ["db"]))
    check(110 < body["exp"] - body["iat"] <= 120, "the entry's TTL of 120 s holds: %s" % body)
    has("validate", a.api("validate", "jwt", "-audience", "db", "-svid", jwt, code=0), "SVID is valid", "spiffe://example.org/by-ours")
    status, out, err = a.api("validate", "jwt", "-audience", "web", "-svid", jwt)
    check(status != 0, "a JWT-SVID is not valid for another audience")
    status, out, err = a.api("validate", "jwt", "-audience", "db", "-svid", jwt[:-8] + "AAAAAAAA")
    check(status != 0, "a forged signature is not valid")

    other = w.agent(s, "second")
    other.spawn("-joinToken", token)
    other.wait_log("failed to attest: join token does not exist or has already been used", 20)
    same("agents after a used token", s.call("Agent.CountAgents"), {"count": 1})


@test("agent-x509pop", agent=True, cli=True)
def agent_x509pop(w):
    s = w.server(plugins=X509POP % w.pop_authority()).start()
    a = w.agent(s, pop=w.pop_certificate("n1")).start()
    shown = s.stock_cli("agent", "show", "-spiffeID", a.id(s))
    has("agent show", shown, "Attestation type  : x509pop", "x509pop:subject:cn:n1", "x509pop:san:name:n1", "x509pop:ca:fingerprint:")
    # A node alias: whoever has the selector is a parent.
    s.stock_cli("entry", "create", "-node", "-spiffeID", "spiffe://example.org/group", "-selector", "x509pop:san:name:n1")
    create_entry(s, "web", "spiffe://example.org/group", OWN_UID)
    a.wait_x509("web")
    # It re-attests: the same identity, another certificate.
    before = s.call("Agent.ListAgents")["agents"][0]["x509svid_serial_number"]
    a.stop()
    for name in os.listdir(w.dir + "/agent"):
        os.unlink("%s/agent/%s" % (w.dir, name))
    a.start()
    a.wait_x509("web")
    after = s.call("Agent.ListAgents")["agents"]
    same("agents after attesting again", len(after), 1)
    check(after[0]["x509svid_serial_number"] != before, "attesting again gives a new certificate")

    stranger = World()
    try:
        stranger.pop_authority()
        bad = w.agent(s, "stranger", pop=stranger.pop_certificate("n2"))
        bad.spawn()
        bad.wait_log("certificate verification failed", 20)
    finally:
        stranger.close()
    same("agents after a stranger's try", len(s.call("Agent.ListAgents")["agents"]), 1)


@test("cli-same-answers", cli=True)
def cli_same_answers(w):
    """The stock CLI and ours print the same about the same server, and each understands what the other wrote."""
    s = w.server().start()
    parent = "spiffe://example.org/node"
    s.stock_cli("token", "generate", "-spiffeID", parent)
    for n, stock in enumerate((True, False, True, False)):
        create_entry(s, "w%d" % n, parent, "unix:uid:%d" % n, "k8s:ns:%d" % n, stock=stock,
                     more=["-entryID", "e%d" % n, "-dns", "w%d.example.org" % n, "-hint", "h"] + (["-admin", "-downstream"] if n == 1 else []))
    s.stock_cli("entry", "update", "-entryID", "e1", "-spiffeID", "spiffe://example.org/w1", "-parentID", parent, "-selector", "a:b")
    s.cli("entry", "update", "-entryID", "e2", "-spiffeID", "spiffe://example.org/w2", "-parentID", parent, "-selector", "a:b", "-admin")
    s.stock_cli("entry", "delete", "-entryID", "e3")
    w.attest(s, "a1")
    w.attest(s, "a2")
    agent = "spiffe://example.org" + s.call("Agent.ListAgents")["agents"][0]["id"]["path"]
    ca = w.pop_authority()
    s.stock_cli("bundle", "set", "-id", "spiffe://other.org", "-path", ca)
    s.cli("bundle", "set", "-id", "spiffe://third.org", "-path", ca)
    for command in ("entry show", "entry show -spiffeID spiffe://example.org/w1", "entry show -selector a:b", "entry show -entryID e0", "entry count",
                    "agent list", "agent count", "agent show -spiffeID " + agent, "bundle show", "bundle show -format spiffe", "bundle list", "bundle count",
                    "bundle list -id spiffe://other.org", "entry show -entryID none", "agent show -spiffeID " + agent + "x", "entry delete -entryID none",
                    "bundle delete -id spiffe://none.org", "healthcheck", "healthcheck -verbose"):
        for output in ([], ["-output", "json"]) if "healthcheck" not in command else ([],):
            args = command.split() + output
            stock, ours = s.stock_cli(*args, code=None), s.cli(*args, code=None)
            check(stock == ours, lambda: "%s:\nstock: %r\nours:  %r" % (" ".join(args), stock, ours))
    same("entries", json.loads(s.stock_cli("entry", "count", "-output", "json")), {"count": 4})


@test("kill-and-go-on", agent=True, cli=True)
def kill_and_go_on(w):
    """kill -9 at any moment: agents go on, nothing has to be done by hand, and what was acknowledged is there."""
    s = w.server().start()
    token = s.call("Agent.CreateJoinToken", {"ttl": 600, "agent_id": {"trust_domain": TD, "path": "/node"}})["value"]
    a = w.agent(s).start(token)
    create_entry(s, "one", "spiffe://example.org/node", OWN_UID, stock=True)
    a.wait_x509("one")
    bundle, agents = s.cli("bundle", "show", "-output", "json"), s.cli("agent", "list", "-output", "json")
    ids = ["one"]
    for n in range(3):
        ids.append("round%d" % n)
        create_entry(s, ids[-1], "spiffe://example.org/node", OWN_UID, stock=bool(n & 1))
        s.kill()
        check("spiffe://example.org/one" in a.x509(), "the agent serves its workloads while the server is down")
        s.start()
        same("the bundle after a kill", s.cli("bundle", "show", "-output", "json"), bundle)
        same("the agents after a kill", s.cli("agent", "list", "-output", "json"), agents)
        a.wait_x509(*ids)
        has("claims", json.dumps(claims(a.jwt("x", ids[-1]))), "spiffe://example.org/" + ids[-1])
    check(a.alive(), "the agent lives")
    # An agent that was away meanwhile comes back with its old SVID.
    a.stop()
    s.kill()
    s.start()
    a.start()
    a.wait_x509(*ids)
    same("the agents after all", s.cli("agent", "list", "-output", "json"), agents)
    check(s.stop() == 0, "it stops when asked to")


@test("agent-renewed", agent=True)
def agent_renewed(w):
    s = w.server(server='  agent_ttl = "20s"').start()
    token = s.call("Agent.CreateJoinToken", {"ttl": 600, "agent_id": {"trust_domain": TD, "path": "/node"}})["value"]
    a = w.agent(s).start(token)
    create_entry(s, "web", "spiffe://example.org/node", OWN_UID)

    def serial():
        return s.call("Agent.ListAgents")["agents"][0]["x509svid_serial_number"]
    a.wait_x509("web")
    for n in range(2):
        before = serial()
        until("the agent's SVID is renewed", lambda: serial() != before, 30, (lambda: not a.alive(), lambda: "it ended\n" + a.log()[-2000:]))
        s.kill()
        s.start()
        create_entry(s, "r%d" % n, "spiffe://example.org/node", OWN_UID)
        a.wait_x509("web", *["r%d" % i for i in range(n + 1)])
    has("the agent's log", a.log(), "Successfully rotated agent SVID")
    same("attestations", a.log().count("Node attestation was successful"), 1)


@test("agent-banned", agent=True, cli=True)
def agent_banned(w):
    s = w.server(plugins=X509POP % w.pop_authority()).start()
    for kind in ("x509pop", "join_token"):
        if kind == "x509pop":
            a = w.agent(s, kind, pop=w.pop_certificate("n1")).start()
        else:
            token = s.call("Agent.CreateJoinToken", {"ttl": 600})["value"]
            a = w.agent(s, kind).start(token)
        me = a.id(s)
        create_entry(s, "web-" + kind, me, OWN_UID)
        a.wait_x509("web-" + kind)
        ban = s.stock_cli if kind == "x509pop" else s.cli
        has("agent ban", ban("agent", "ban", "-spiffeID", me), "Agent banned successfully")
        a.wait_log("Agent is banned: removing SVID and shutting down", 40)
        a.exit_code()
        s.kill()
        s.start()
        has("agent show", s.cli("agent", "show", "-spiffeID", me), "Banned            : true")
        mark = a.mark()
        a.spawn(*(["-joinToken", token] if kind == "join_token" else []))
        a.wait_log("failed to attest: agent is banned" if kind == "x509pop" else "join token does not exist or has already been used", 20, mark)
        a.kill()
        check("Node attestation was successful" not in a.log(mark), "a banned agent is not attested again")
        s.stock_cli("agent", "evict", "-spiffeID", me)
        if kind == "x509pop":  # an evicted one may come back
            a.start()
            a.wait_x509("web-" + kind)
            a.stop()
            s.cli("agent", "evict", "-spiffeID", me)
        same("agents left", s.call("Agent.CountAgents"), {})


@test("agent-evicted", agent=True, cli=True)
def agent_evicted(w):
    s = w.server(plugins=X509POP % w.pop_authority()).start()
    a = w.agent(s, "pop", pop=w.pop_certificate("n1")).start()
    me = a.id(s)
    create_entry(s, "web", me, OWN_UID)
    a.wait_x509("web")
    mark = a.mark()
    has("agent evict", s.stock_cli("agent", "evict", "-spiffeID", me), "Agent evicted successfully")
    a.wait_log("Successfully reattested node", 40, mark)  # by itself
    same("its id", a.id(s), me)
    create_entry(s, "later", me, OWN_UID)
    a.wait_x509("web", "later")
    a.stop()
    s.cli("agent", "evict", "-spiffeID", me)

    token = s.call("Agent.CreateJoinToken", {"ttl": 600})["value"]
    b = w.agent(s, "token").start(token)
    s.cli("agent", "evict", "-spiffeID", b.id(s))
    b.wait_log("Agent needs to re-attest", 40)
    b.exit_code(40)
    same("agents", s.call("Agent.CountAgents"), {})


@test("entries-moved", cli=True)
def entries_moved(w):
    """The way from a SPIRE server to ours that the README names: entry show, deploy/entries.jq, entry create -data."""
    if run(["jq", "--version"])[0] != 0:
        raise Skip("no jq")
    old = w.server("old", binary=STOCK_SERVER).start()
    create_entry(old, "one", "spiffe://example.org/node", "unix:uid:1", "k8s:ns:x", more=["-dns", "one.example.org", "-hint", "h", "-x509SVIDTTL", "300"])
    create_entry(old, "two", "spiffe://example.org/node", "a:b", more=["-admin", "-downstream", "-jwtSVIDTTL", "60", "-entryExpiry", "4102444800"])
    before = old.stock_cli("entry", "show", "-output", "json")
    old.stop()
    status, out, err = run(["jq", "-f", ROOT + "/deploy/entries.jq"], stdin=before)
    same("jq", (status, err), (0, ""))
    new = w.server("new", data=w.dir + "/new-data").start()
    new.cli("entry", "create", "-data", w.write("entries.json", out))
    after = new.stock_cli("entry", "show", "-output", "json")

    def content(text):
        for e in (entries := json.loads(text)["entries"]):
            del e["created_at"]
        return sorted(entries, key=lambda e: e["id"])
    same("the entries", content(after), content(before))
