# SPDX-License-Identifier: Apache-2.0
"""What a node answers with and without a leader (availability.md sections 1 to 3): agents live on without a quorum, nobody is denied by a
node that cannot know, a node that may not answer holds no port."""
import http.client, json, time

from cluster import *
from lib import *

DENIED, INVALID, NOT_FOUND = 7, 3, 5


def tcp_open(n, port=None):
    try:
        socket.create_connection(("127.0.0.1", port or n.port), 1).close()
        return True
    except OSError:
        return False


def page(port, path):
    try:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        link.request("GET", path)
        got = link.getresponse()
        return got.status, json.loads(got.read())
    except OSError:
        return None


def code_of(n, method, request, who=None):
    """-> code, text, trailers"""
    link = n.link(who)
    _, code, text, _ = link.call(method, [request])
    link.close()
    return code, text, link.headers


def entry(n, name, *more):
    n.cli("entry", "create", "-parentID", n.agent_id, "-spiffeID", "spiffe://example.org/" + name, "-selector", OWN_UID, *more)


def bogus_attestation(w):
    csr, _ = w.csr("bogus")
    return {"params": {"data": {"type": "join_token", "payload": "Ym9ndXM="}, "params": {"csr": csr}}}


def serial(w, agent):
    """Of the SVID that a workload gets now."""
    folder = w.dir + "/svid"
    os.makedirs(folder, exist_ok=True)
    agent.api("fetch", "x509", "-write", folder, code=0)
    return tool("openssl", "x509", "-in", folder + "/svid.0.pem", "-noout", "-serial")


@test("states-alone", limit=240, agent=True)
def alone(w):
    """Two of three nodes die: the agent at the third one goes on, writes wait for a quorum, no stranger is denied; then all is as before."""
    c = Cluster(w)
    n1, others = c.nodes[0], c.nodes[1:]
    agent = w.agent(n1).start(n1.cli("token", "generate").split(": ")[1].split()[0])
    n1.agent_id = agent.id(n1)
    entry(n1, "short", "-x509SVIDTTL", "30", "-jwtSVIDTTL", "20")
    agent.wait_x509("short")
    stranger, stranger_id = w.attest(n1, "stranger")
    n1.cli("agent", "evict", "-spiffeID", stranger_id)
    c.settle()

    for n in others:
        n.kill()
    n1.wait_log("state=alone", 20)
    before = serial(w, agent)
    check(claims(agent.jwt("a%d" % time.monotonic_ns(), "short"))["sub"].endswith("/short"), "a JWT-SVID")
    for uri in "ab":
        check(w.mint(n1, uri, "spiffe://example.org/" + uri), "minted")

    status, _, err = n1.cli("token", "generate", code=None)
    check(status == 1, "a write without a quorum: exit status %d" % status)
    has("a write without a quorum", err, "no leader: 1 of 3 voters reachable from 'n1' (n2: ")
    same("an unknown agent", code_of(n1, "Entry.GetAuthorizedEntries", {}, stranger)[0], UNAVAILABLE)
    same("a bogus token", code_of(n1, "Agent.AttestAgent", bogus_attestation(w), "tcp")[0], UNAVAILABLE)
    code, _, trailers = code_of(n1, "Entry.CountEntries", {})
    same("a count", code, 0)
    check(int(trailers["trefoil-stale"]) >= 9, str(trailers))
    status, out, err = n1.cli("entry", "count", code=None)
    same("the CLI's count", (status, out), (0, "1 registration entry\n"))
    has("the CLI says so", err, "Warning: the server hears no leader: this is what it knew ")
    same("what is not here", code_of(n1, "Entry.GetEntry", {"id": "none"})[0], UNAVAILABLE)
    n1.serves()
    until("the SVID is renewed without a leader", lambda: serial(w, agent) != before, 60)
    check(n1.status()["signing_budget_s"] < 3600, "the budget runs down")

    for n in others:
        n.start()
    n1.wait_log("state=led", 20, n1.log().rfind("state=alone"))
    same("an unknown agent", code_of(n1, "Entry.GetAuthorizedEntries", {}, stranger)[0], DENIED)
    same("a bogus token", code_of(n1, "Agent.AttestAgent", bogus_attestation(w), "tcp")[0], INVALID)
    same("what is nowhere", code_of(n1, "Entry.GetEntry", {"id": "none"})[0], NOT_FOUND)
    check("trefoil-stale" not in code_of(n1, "Entry.CountEntries", {})[2], "no age")
    entry(n1, "later")
    agent.wait_x509("short", "later")
    check(agent.alive(), "the agent lives")
    c.settle()


@test("states-budget", limit=180)
def budget(w):
    """Without a leader past max_staleness a node gives up its port, and keeps its socket; a leader brings it back."""
    c = Cluster(w, cluster='max_staleness = "14s"')
    n1 = c.nodes[0]
    for n in c.nodes[1:]:
        n.kill()
    n1.wait_log("state=alone", 20)
    check(tcp_open(n1), "alone it serves")
    n1.wait_log("state=out", 40, n1.log().rfind("state=alone"))
    until("the port is closed", lambda: not tcp_open(n1), 5)
    has("the reason", n1.log(), "its budget (max_staleness) is over")
    csr, _ = w.csr("late", "spiffe://example.org/late")
    same("signing past the budget", code_of(n1, "SVID.MintX509SVID", {"csr": csr})[0], UNAVAILABLE)
    code, _, trailers = code_of(n1, "Entry.CountEntries", {})
    same("the socket answers", (code, "trefoil-stale" in trailers), (0, True))
    same("the budget", n1.status()["signing_budget_s"], 0)

    n1.kill()  # over a restart it is still spent
    n1.spawn()
    until("the socket is there", lambda: n1.cli("cluster", "status", code=None)[0] == 0, 20)
    time.sleep(12)  # of which 10 s are those in which a leader may come
    check(not tcp_open(n1), "the budget does not begin again")
    for n in c.nodes[1:]:
        n.spawn()
    for n in c.nodes:
        until("%s serves again" % n.name, n.listens, 30)
    n1.serves()


@test("states-joiner", limit=120)
def joiner(w):
    """A joiner's authority is known to agents before it is used: until then it holds no port."""
    health = free_port()
    c = Cluster(w, 1)
    endpoint = free_port()
    late = Node(w, "late", spread="8s", server='federation { bundle_endpoint { address = "127.0.0.1" port = %d profile "https_spiffe" {} } }' % endpoint, top='health_checks { listener_enabled = true bind_address = "127.0.0.1" bind_port = "%d" }' % health)
    began = time.monotonic()
    late.spawn("-join", c.nodes[0].token())
    until("it is ready to say that it is not", lambda: page(health, "/ready"), 20)
    csr, _ = w.csr("early", "spiffe://example.org/early")
    code, text, _ = code_of(late, "SVID.MintX509SVID", {"csr": csr})
    same("signing", code, UNAVAILABLE)
    has("the reason", text, "this node's authority is published since ", "and is used after 8s")
    check(not tcp_open(late) and not tcp_open(late, endpoint), "no port")
    same("ready, live", (page(health, "/ready")[0], page(health, "/live")[0]), (500, 200))
    same("the authority is public", len(c.nodes[0].call("Bundle.GetBundle")["x509_authorities"]), 2)
    until("it serves", late.listens, 30)
    check(time.monotonic() - began >= 8, "too early")
    until("the bundle endpoint is there", lambda: tcp_open(late, endpoint), 5)
    late.serves()
    status, body = page(health, "/ready")
    leader = c.nodes[0].status()["leader"]
    same("ready", (status, body["trefoil.raft"]), (200, {"role": "leader" if leader == "late" else "follower", "leader": leader, "lag": 0}))

    late.kill()  # its authority is known: a restart waits for nothing
    began = time.monotonic()
    late.start()
    check(time.monotonic() - began < 8 * SLOW, "a known authority is used at once")


@test("states-stop", limit=120)
def stop(w):
    """A planned stop: not ready, but serving for a moment; leadership goes to another first."""
    health = free_port()
    c = Cluster(w)
    leader = c.leader()
    last = Node(w, "last", drain="3s", top='health_checks { listener_enabled = true bind_address = "127.0.0.1" bind_port = "%d" }' % health)
    c.nodes.append(last.start("-join", leader.token()))
    until("it may lead", lambda: last.member("last")["voter"], 20)
    last.cli("cluster", "transfer", "last")
    same("ready", page(health, "/ready")[0], 200)
    term = last.status()["term"]
    last.child.send_signal(15)
    until("it is not ready", lambda: page(health, "/ready")[0] == 500, 5)
    same("live", page(health, "/live")[0], 200)
    same("health", last.call("Health.Check"), {"status": "NOT_SERVING"})
    check(tcp_open(last), "it serves on")
    same("exit status", last.exit_code(20), 0)
    check("Leadership is not handed over" not in last.log(), "leadership was handed over")
    now = c.leader()
    same("one election", now.status()["term"], term + 1)


@test("states-keys-lost", limit=180)
def keys_lost(w):
    """All nodes lose their keys: nothing that agents know is left, so waiting would help nobody. The oldest new authority is used at once,
    the others wait until agents can know them."""
    c = Cluster(w)
    for n in c.nodes:
        n.kill()
        os.unlink(n.data + "/keys.json")
        with open(n.conf) as f:
            text = f.read()
        w.write(n.name + ".conf", text.replace('authority_spread = "1s"', 'authority_spread = "40s"'))
    for n in c.nodes:
        n.spawn()
    began = time.monotonic()
    until("one serves", lambda: any(tcp_open(n) for n in c.nodes), 25)
    time.sleep(3)
    same("nodes that serve", sum(tcp_open(n) for n in c.nodes), 1)
    until("all serve", lambda: all(tcp_open(n) for n in c.nodes), 60)
    check(time.monotonic() - began >= 40, "the others have waited")
    for n in c.nodes:
        n.serves()


@test("states-fail-closed", limit=120)
def fail_closed(w):
    """Ids under fail_closed are signed only while a leader is heard."""
    c = Cluster(w, cluster='fail_closed = [ "/bank" ]')
    n1 = c.nodes[0]
    bank, _ = w.csr("bank", "spiffe://example.org/bank/teller")
    shop, _ = w.csr("shop", "spiffe://example.org/bankers")

    def mint(csr):
        code, text, _ = code_of(n1, "SVID.MintX509SVID", {"csr": csr})
        return code, text

    same("with a leader", (mint(bank)[0], mint(shop)[0]), (0, 0))
    for n in c.nodes[1:]:
        n.kill()
    until("no leader is heard", lambda: mint(bank)[0] == UNAVAILABLE, 10)
    has("the reason", mint(bank)[1], "'spiffe://example.org/bank/teller' is signed only while a leader is heard")
    same("an id beside it", mint(shop)[0], 0)
    jwt = {"id": {"trust_domain": TD, "path": "/bank/teller"}, "audience": ["a"]}
    same("a JWT-SVID", code_of(n1, "SVID.MintJWTSVID", jwt)[0], UNAVAILABLE)
