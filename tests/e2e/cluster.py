# SPDX-License-Identifier: Apache-2.0
"""Clusters of real processes, and a load that knows what was acknowledged."""
import json, os, random, threading, time, uuid

import lib, wire
from lib import TD, Fail, Server, answer, check, free_port, same, until

UNAVAILABLE = 14

CONFIG = """server {
  bind_address = "127.0.0.1" bind_port = "%(port)d" socket_path = "%(sock)s" trust_domain = "example.org" data_dir = "%(data)s"
  log_level = "DEBUG"
  ratelimit { attestation = false signing = false }
%(server)s
}
plugins {
  KeyManager "disk" { plugin_data { keys_path = "%(data)s/keys.json" } }
  NodeAttestor "join_token" { plugin_data {} }
}
cluster {
  name = "%(name)s" bind_address = "127.0.0.1" bind_port = %(peer_port)d advertise = "127.0.0.1:%(peer_port)d"
  api_advertise = "127.0.0.1:%(port)d" authority_spread = "%(spread)s" drain = "%(drain)s"
%(cluster)s
}
%(top)s
"""


class Node(Server):
    def __init__(self, world, name, server="", cluster="", top="", drain="0s", spread="1s"):
        folder = os.path.join(world.dir, name)
        os.makedirs(folder, exist_ok=True)
        self.peer_port, port, data = free_port(), free_port(), os.path.join(folder, "data")
        sock = os.path.join(folder, "api.sock")
        super().__init__(world, name, data=data, port=port, config=CONFIG % dict(
            port=port, sock=sock, data=data, name=name, peer_port=self.peer_port, server=server, cluster=cluster, top=top, drain=drain, spread=spread))
        self.sock = sock
        world.servers.append(self)

    def start(self, *flags, seconds=30):
        """Runs, and has a leader."""
        before = self.mark() if os.path.exists(self.path) else 0
        self.spawn(*flags)
        until("%s listens" % self.name, self.listens, seconds,
              (lambda: not self.alive(), lambda: "it ended with %s\n%s" % (self.child.returncode, self.log(before)[-3000:])))
        return self

    def status(self):
        return json.loads(self.cli("cluster", "status", "-output", "json"))

    def member(self, name):
        return next(m for m in self.status()["members"] if m["name"] == name and m["state"] != "removed")

    def token(self, *more):
        return self.cli("cluster", "token", *more).split(": ")[1].strip()


class Cluster:
    def __init__(self, world, n=3, **more):
        self.world, self.more, self.nodes = world, more, []
        self.add("-bootstrap")
        for _ in range(n - 1):
            self.join()

    def add(self, *flags):
        node = Node(self.world, "n%d" % (len(self.nodes) + 1), **self.more)
        self.nodes.append(node.start(*flags))
        return node

    def join(self):
        """One more, by a token of any."""
        return self.add("-join", random.choice(self.up()).token())

    def up(self):
        return [n for n in self.nodes if n.alive()]

    def leader(self, seconds=10):
        """The node that leads, as all that run agree."""
        def agreed():
            names = {n.status()["leader"] for n in self.up()}
            return names if len(names) == 1 and "" not in names else None
        name = until("all hear one leader", agreed, seconds).pop()
        return next(n for n in self.nodes if n.name == name)

    def settle(self, *names, seconds=30):
        """Every one of them has applied what each of them holds."""
        nodes = [n for n in self.up() if not names or n.name in names]
        newest = max(n.status()["revision"] for n in nodes)
        for n in nodes:
            n.cli("cluster", "wait", "-revision", str(newest), "-timeout", "%ds" % (seconds * lib.SLOW))
        return nodes


def entries(node):
    """{spiffe id path: [(entry id, hint), ...]} as this node has it."""
    found, token, link = {}, "", node.link()
    while True:
        page = answer(link.call("Entry.ListEntries", [{"page_size": 1000, "page_token": token}]))
        for e in page.get("entries", []):
            found.setdefault(e["spiffe_id"]["path"], []).append((e["id"], e.get("hint", "")))
        token = page.get("next_page_token", "")
        if not token:
            link.close()
            return found


class Writer(threading.Thread):
    """Creates, changes and deletes entries through whichever node answers; each write has one request id over all tries."""

    def __init__(self, load, number):
        super().__init__(daemon=True)
        self.load, self.number = load, number
        self.links, self.entries, self.problem = {}, {}, None
        self.dice = random.Random(number)

    def run(self):
        try:
            n = 0
            while not self.load.over.is_set():
                path = "/w/%d/%d" % (self.number, n)
                self.entries[path] = [self.one("Entry.BatchCreateEntry", {"entries": [{
                    "spiffe_id": {"trust_domain": TD, "path": path}, "parent_id": {"trust_domain": TD, "path": "/node/%d" % (self.number % 4)},
                    "selectors": [{"type": "unix", "value": "uid:%d" % self.number}]}]})["id"], ""]
                if n % 5 == 4:
                    self.change("/w/%d/%d" % (self.number, n - 2), "h%d" % n)
                if n % 7 == 6:
                    self.delete("/w/%d/%d" % (self.number, n - 5))
                n += 1
                if self.load.pause:
                    time.sleep(self.load.pause)
        except Exception as e:
            self.problem = "writer %d: %s: %s" % (self.number, type(e).__name__, e)
        for link in self.links.values():
            link.close()

    def change(self, path, hint):
        if path in self.entries:
            self.one("Entry.BatchUpdateEntry", {"entries": [{"id": self.entries[path][0], "hint": hint}], "input_mask": {"hint": True}})
            self.entries[path][1] = hint

    def delete(self, path):
        if path in self.entries:
            self.one("Entry.BatchDeleteEntry", {"ids": [self.entries[path][0]]})
            del self.entries[path]

    def one(self, method, request):
        """Follows the write to a definite answer -> its entry."""
        began, id = time.monotonic(), str(uuid.uuid4())
        while time.monotonic() < began + 60 * lib.SLOW:
            node = self.dice.choice(self.load.targets)
            try:
                if node.name not in self.links:
                    self.links[node.name] = wire.Connection(node.sock, timeout=30 * lib.SLOW)
                answers, code, text, _ = self.links[node.name].call(method, [request], [("trefoil-request-id", id)])
            except (OSError, ValueError, IndexError) as e:
                if node.name in self.links:
                    self.links.pop(node.name).close()
                self.load.note_failure("connection")
                time.sleep(0.02)
                continue
            if code == UNAVAILABLE:
                self.load.note_failure(text)
                time.sleep(0.02)
                continue
            check(code == 0, "%s on %s: %s %s" % (method, node.name, wire.CODES[code], text))
            item = answers[0]["results"][0]
            status = item["status"]
            check(status.get("code", 0) == 0, lambda: "%s on %s: item %s" % (method, node.name, status))
            self.load.done(time.monotonic() - began)
            return item.get("entry")
        raise Fail("%s: no definite answer" % method)


class Load:
    """threads writers over `targets`, which may be changed while they run."""

    def __init__(self, targets, threads=8, pause=0.02):
        self.targets, self.pause = list(targets), pause
        self.over, self.lock = threading.Event(), threading.Lock()
        self.acknowledged, self.slowest, self.failures, self.last = 0, 0.0, {}, time.monotonic()
        self.writers = [Writer(self, n) for n in range(threads)]
        for w in self.writers:
            w.start()

    def done(self, seconds):
        with self.lock:
            self.acknowledged += 1
            self.slowest, self.last = max(self.slowest, seconds), time.monotonic()

    def note_failure(self, text):
        with self.lock:
            self.failures[text] = self.failures.get(text, 0) + 1

    def goes_on(self, writes=20, seconds=10):
        """So many more writes are acknowledged within that time -> how long it took."""
        began, before = time.monotonic(), self.acknowledged
        until("writes go on (%s)" % self.failures, lambda: self.acknowledged >= before + writes, seconds,
              (lambda: any(w.problem for w in self.writers), lambda: "; ".join(w.problem for w in self.writers if w.problem)))
        return time.monotonic() - began

    def stop(self):
        """-> {path: [entry id, hint]}: what must be there, no more and no less."""
        self.over.set()
        want = {}
        for w in self.writers:
            w.join(90 * lib.SLOW)
            check(not w.is_alive(), "a writer does not end")
            check(w.problem is None, w.problem)
            want.update(w.entries)
        return want


def same_entries(nodes, want):
    """Each of the nodes holds exactly that."""
    for node in nodes:
        found = entries(node)
        missing = [p for p in want if p not in found]
        twice = [p for p in found if len(found[p]) > 1]
        extra = [p for p in found if p not in want and p.startswith("/w/")]
        wrong = [p for p in want if p in found and list(found[p][0]) != want[p]]
        check(not (missing or twice or extra or wrong), lambda: "%s: %d acknowledged entries missing %s, %d twice %s, %d that were deleted %s, %d differ %s" % (
            node.name, len(missing), missing[:3], len(twice), twice[:3], len(extra), extra[:3], len(wrong),
            [(p, found[p], want[p]) for p in wrong[:3]]))
