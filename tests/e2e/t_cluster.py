# SPDX-License-Identifier: Apache-2.0
"""Three nodes and more: founding, joining, losing the leader, members that come and go. Nothing acknowledged is ever missing."""
import json, os, re, threading, time

from cluster import *
from lib import *


@test("cluster-forms", limit=120)
def forms(w):
    """Three nodes from nothing; what is written through any of them is on all, and each tells the same of the cluster."""
    c = Cluster(w)
    leader = c.leader()
    for i, n in enumerate(c.nodes):
        n.cli("entry", "create", "-parentID", "spiffe://example.org/node", "-spiffeID", "spiffe://example.org/e%d" % i, "-selector", "a:b")
    c.settle()
    for n in c.nodes:
        same("entries of " + n.name, sorted(entries(n)), ["/e0", "/e1", "/e2"])
        s = n.status()
        same("what %s tells" % n.name, (s["node"], s["leader"], s["voters"], s["survives"], s["quorum"], s["trust_domain"], s["epoch"]),
             (n.name, leader.name, 3, 1, True, TD, 1))
        same("members", [(m["name"], m["voter"], m["state"], m["api_address"], m["peer_address"]) for m in s["members"]],
             [(o.name, True, "up", "127.0.0.1:%d" % o.port, "127.0.0.1:%d" % o.peer_port) for o in c.nodes])
        same("one leads", [m["name"] for m in s["members"] if m["role"] == "leader"], [leader.name])
        check(all(m["x509_authority"] and m["disk_free_mb"] > 0 and m["version"] for m in s["members"]), json.dumps(s))
        n.serves()
        has("pretty", n.cli("cluster", "status"), "Leader           : " + leader.name, "Voters           : 3 (survives 1)")
    same("one cluster", len({n.status()["cluster_id"] for n in c.nodes}), 1)


@test("cluster-leader-killed", limit=180)
def leader_killed(w):
    """kill -9 of the leader under load, three times over: the others go on within 10 s, it comes back and catches up."""
    c = Cluster(w)
    load = Load(c.nodes)
    load.goes_on()
    stalls = []
    for _ in range(3):
        victim = c.leader()
        load.targets = [n for n in c.nodes if n is not victim]
        victim.kill()
        stalls.append(load.goes_on(1))
        load.goes_on(20)
        victim.start()
        load.targets = list(c.nodes)
        c.settle()
        load.goes_on()
    want = load.stop()
    same_entries(c.settle(), want)
    w.note = "%d writes acknowledged, stalled %s s, slowest %.2f s, failures %s" % (
        load.acknowledged, ", ".join("%.2f" % s for s in stalls), load.slowest, sum(load.failures.values()))


@test("cluster-members", limit=240)
def members(w):
    """Under load a fourth node joins, a member is removed, leadership moves, and all are restarted one by one."""
    c = Cluster(w)
    load = Load(c.nodes)
    load.goes_on()
    c.join()
    c.nodes[3].serves()
    until("n4 votes", lambda: c.nodes[0].member("n4")["voter"], 20)
    load.targets = list(c.nodes)
    load.goes_on()

    gone = next(n for n in c.nodes[:3] if n is not c.leader())
    load.targets = [n for n in c.nodes if n is not gone]
    time.sleep(0.1)
    asked = next(n for n in c.nodes if n is not gone)
    has("remove", asked.cli("cluster", "remove", gone.name), "Removed %s; 3 voters left, survives 1 failure" % gone.name)
    gone.exit_code(20)
    has("its last words", gone.log()[-2000:], "no member any more")
    load.goes_on()
    rest = load.targets
    for n in rest:
        check(not any(m["name"] == gone.name and m["state"] != "removed" for m in n.status()["members"]), "%s still shows %s" % (n.name, gone.name))
    gone.spawn()  # by mistake
    check(gone.exit_code(30) != 0, "a removed node runs")
    load.goes_on()

    for n in rest:
        before = c.leader()
        if before is not n:
            found = re.match(r"Leader: (\S+) \(term (\d+)\), writes stalled (\d+) ms\n$", rest[0].cli("cluster", "transfer", n.name))
            check(found and found[1] == n.name, "transfer to " + n.name)
        load.goes_on()
    for n in rest:
        load.targets = [o for o in rest if o is not n]
        n.stop()
        load.goes_on()
        n.start()
        c.settle(*[o.name for o in rest])
        load.targets = list(rest)
        load.goes_on()
    want = load.stop()
    same_entries(c.settle(*[o.name for o in rest]), want)
    w.note = "%d writes acknowledged, slowest %.2f s, failures %s" % (load.acknowledged, load.slowest, sum(load.failures.values()))


@test("cluster-no-quorum", limit=120)
def no_quorum(w):
    """With one of three left nothing can be changed, and it says so; with a second one it goes on."""
    c = Cluster(w)
    same("before", c.leader().status()["survives"], 1)
    c.nodes[1].kill()
    c.nodes[2].kill()
    alone = c.nodes[0]
    until("no leader is heard", lambda: alone.status()["leader"] == "", 10)
    s = alone.status()
    same("quorum", (s["quorum"], s["survives"]), (False, 0))
    has("pretty", alone.cli("cluster", "status"), "no quorum", "n2 cannot be reached", "n3 cannot be reached")
    link = alone.link()
    _, code, text, _ = link.call("Entry.BatchCreateEntry", [{"entries": [{
        "spiffe_id": {"trust_domain": TD, "path": "/x"}, "parent_id": {"trust_domain": TD, "path": "/node"}, "selectors": [{"type": "a", "value": "b"}]}]}])
    same("a write (%s)" % text, wire.CODES[code], "Unavailable")
    status, _, err = alone.cli("cluster", "wait", "-leader", "-timeout", "2s", code=None)
    same("wait", status, 1)
    has("wait", err, "hears no leader")
    c.nodes[1].start()
    alone.cli("cluster", "wait", "-leader", "-members", "2")
    alone.cli("entry", "create", "-parentID", "spiffe://example.org/node", "-spiffeID", "spiffe://example.org/x", "-selector", "a:b")


@test("cluster-metadata", limit=90)
def metadata(w):
    """Who answered, at which revision, and not before which one; one request id is one write, on whatever node."""
    c = Cluster(w)
    request = [{"entries": [{"spiffe_id": {"trust_domain": TD, "path": "/x"}, "parent_id": {"trust_domain": TD, "path": "/node"},
                             "selectors": [{"type": "a", "value": "b"}]}]}]
    ids, revision = set(), 0
    for n in c.nodes:
        link = n.link()
        made = answer(link.call("Entry.BatchCreateEntry", request, [("trefoil-request-id", "0123456789abcdef")]))["results"][0]
        same("status on " + n.name, made["status"].get("code", 0), 0)
        same("trefoil-node", link.headers.get("trefoil-node"), n.name)
        ids.add(made["entry"]["id"])
        revision = max(revision, int(link.headers["trefoil-revision"]))
        link.close()
    same("entries made", len(ids), 1)
    for n in c.nodes:
        link = n.link()
        answer(link.call("Entry.CountEntries", [{}], [("trefoil-min-revision", str(revision))]))
        result = link.call("Entry.CountEntries", [{}], [("trefoil-min-revision", str(revision + 1000)), ("grpc-timeout", "2S")])
        same("code", wire.CODES[result[1]], "Unavailable")
        check(re.match(r"node '%s' has not reached revision %d \(at \d+\)$" % (n.name, revision + 1000), result[2]), result[2])
        link.close()


@test("cluster-refusals", limit=120)
def refusals(w):
    """What must not happen is refused by name and remedy; a server without a cluster says so."""
    s = w.server().start()
    for words in (["status"], ["token"], ["remove", "n1"], ["transfer"], ["leave"], ["wait", "-leader"]):
        status, _, err = s.cli("cluster", *words, code=None)
        same("cluster %s without a cluster" % words, status, 1)
        has("cluster %s" % words, err, "no cluster {} block")
    c = Cluster(w, 2)
    for words, want in ((["remove", "n2"], "two voters"), (["leave"], "two voters"), (["remove", "n9"], "no member is named 'n9'"),
                        (["transfer", "n9"], "no member is named 'n9'"), (["remove"], "name of a member"), (["wait"], "wait for what")):
        status, _, err = c.nodes[0].cli("cluster", *words, code=None)
        same("cluster %s" % words, status, 1)
        has("cluster %s" % words, err, want)
    stranger = Node(w, "stranger")
    stranger.spawn()
    check(stranger.exit_code() != 0, "a node without data runs without -bootstrap and -join")
    has("its words", stranger.log(), "-bootstrap", "-join")
    stranger.spawn("-join", "join1.nonsense")
    check(stranger.exit_code() != 0, "a node joins with nonsense")
    once = c.nodes[1].token()
    c.add("-join", once)
    late = Node(w, "late")
    late.spawn("-join", once)
    check(late.exit_code(60) != 0, "a token for one use is used twice")
    has("the third still holds", c.nodes[2].cli("cluster", "status"), "Voters           : 3 (survives 1)")


@test("cluster-over-tcp", limit=120)
def over_tcp(w):
    """Commands over TCP: whoever is dead is passed over, a write is done once, and who may do what."""
    c = Cluster(w, server='  admin_ids = ["spiffe://example.org/admin"]', cluster='  admin_ids = ["spiffe://example.org/operator"]')
    bundle = w.write("bundle.pem", c.nodes[0].cli("bundle", "show"))
    servers = ",".join("127.0.0.1:%d" % p for p in [free_port()] + [n.port for n in c.nodes])

    def command(who, *words, code=0, env=None, also=("-server", servers)):
        cert, key = who
        done = run([SERVER, *words, *also, "-svid", cert, "-key", key, "-bundle", bundle], env=dict(os.environ, **(env or {})))
        check(done[0] == code, lambda: "%s: exit status %d, want %d\n%s%s" % (" ".join(words), done[0], code, done[1], done[2]))
        return done[1] + done[2]
    admin, operator, nobody = (w.mint(c.nodes[0], n, "spiffe://example.org/" + n) for n in ("admin", "operator", "nobody"))
    create = ["entry", "create", "-parentID", "spiffe://example.org/node", "-selector", "a:b", "-spiffeID"]
    command(admin, *create, "spiffe://example.org/e0")
    has("show", command(admin, "entry", "show", env={"TREFOIL_SERVERS": servers}, also=()), "spiffe://example.org/e0")
    token = command(admin, "token", "generate", "-spiffeID", "spiffe://example.org/a")
    check(re.match(r"Token: [0-9a-f-]{36}\n$", token), token)

    has("status", command(operator, "cluster", "status"), "Voters           : 3")
    has("status", command(admin, "cluster", "status", "-output", "json"), '"voters":3')
    has("token", command(admin, "cluster", "token", code=1), "PermissionDenied")
    has("token", command(operator, "cluster", "token"), "Token: join1.")
    has("an operator is no admin", command(operator, "entry", "show", code=1), "PermissionDenied")
    has("nobody", command(nobody, "cluster", "status", code=1), "PermissionDenied")

    victim = c.leader()
    victim.kill()
    began = time.monotonic()
    command(admin, *create, "spiffe://example.org/e1")
    took = time.monotonic() - began
    check(took < 10 * SLOW, "a write took %.1f s while the leader was dead" % took)
    rest = [n for n in c.nodes if n is not victim]
    c.settle()
    for n in rest:
        same("entries", [p for p in entries(n) if p in ("/e0", "/e1")], ["/e0", "/e1"])
    for n in rest:
        n.kill()
    has("all dead", command(admin, "entry", "count", "-timeout", "2s", code=1), "Unavailable")
    has("half of it", run([SERVER, "entry", "count", "-server", servers])[2], "-svid, -key and -bundle")
    has("no port", command(admin, "entry", "count", also=("-server", "localhost"), code=1), "expected HOST:PORT, got 'localhost'")
    w.note = "a write with the leader dead: %.2f s" % took


@test("drill-failover", limit=240)
def drill(w):
    """The drill tells how long writes stall, that nothing is missing, and cleans up; kills are made good by a supervisor."""
    c = Cluster(w)
    sockets = ",".join(n.sock for n in c.nodes)

    def failover(*words, code=0):
        status, out, err = run([SERVER, "drill", "failover", "-socketPath", sockets, *words], seconds=150)
        check(status == code, lambda: "drill: exit status %d, want %d\n%s%s" % (status, code, out, err))
        return out + err
    report = os.path.join(w.dir, "report.html")
    has("pretty", failover("-rounds", "2", "-report", report), "Rounds           : 2 of 2 (transfer)", "Missing          : 0", "0 refused")
    has("html", open(report).read(), "Failover drill: passed", "2 of 2 rounds by transfer")
    told = json.loads(failover("-rounds", "4", "-output", "json"))
    same("told", (told["kind"], len(told["rounds"]), told["missing"], told["svids_refused"], told["passed"], told["given_up"]),
         ("transfer", 4, 0, 0, True, 0))
    check(told["writes"] > 20 and told["svids"] > 5, json.dumps(told))
    same("entries left", entries(c.nodes[0]), {})

    has("no -yes", failover("-kind", "kill", code=1), "Say -yes")
    has("kind", failover("-kind", "step-down", code=1), "transfer, stop or kill")

    def supervise():  # to the end: children of a thread die with it
        while True:
            time.sleep(0.2)
            if not c.nodes[0].alive():
                c.nodes[0].spawn()
    threading.Thread(target=supervise, daemon=True).start()
    stalls = {}
    for kind in ("kill", "stop"):
        told = json.loads(failover("-rounds", "2", "-kind", kind, "-yes", "-output", "json"))
        same(kind, (len(told["rounds"]), told["missing"], told["svids_refused"], told["ended"]), (2, 0, 0, ""))
        check(all(r["from"] == "n1" and r["to"] != "n1" for r in told["rounds"]), json.dumps(told))
        stalls[kind] = told["stalled_ms"]["max"]
    c.settle()
    for n in c.nodes:
        same("entries left on " + n.name, entries(n), {})
    c.nodes[1].kill()
    has("a cluster that stands nothing", failover(code=1), c.nodes[1].sock)
    w.note = "stall at a kill %d ms, at a stop %d ms" % (stalls["kill"], stalls["stop"])
