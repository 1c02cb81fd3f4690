#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""writer.py SOCKET OUT FIRST THREADS SECONDS: writers that create, change and delete entries while the server is killed under them.

Each follows every write to a definite answer: after a lost connection it asks again, with the same content. What it writes to OUT is what must
be in the store: {spiffe id path: [entry id, hint]}, and how many writes were acknowledged.
"""
import json, sys, threading, time

import lib, wire

OK, NOT_FOUND, ALREADY_EXISTS = 0, 5, 6


class Writer(threading.Thread):
    def __init__(self, number, sock, end):
        super().__init__(daemon=True)
        self.number, self.sock, self.end = number, sock, end
        self.link, self.entries, self.acknowledged, self.retries, self.problem = None, {}, 0, 0, None

    def ask(self, method, request):
        """-> (the item's status code, its entry, whether an earlier try of it may have been carried out)"""
        unsure, give_up = False, time.monotonic() + 60
        while time.monotonic() < give_up:
            try:
                if self.link is None:
                    self.link = wire.Connection(self.sock, timeout=20)
                answers, code, text, _ = self.link.call(method, [request])
                if code == 0:
                    item = answers[0]["results"][0]
                    self.acknowledged += 1
                    return item["status"].get("code", 0), item.get("entry"), unsure
                if code != 14:
                    raise RuntimeError("%s: %d %s" % (method, code, text))
            except (OSError, ValueError, IndexError):
                if self.link is not None:
                    self.link.close()
                    self.link, unsure = None, True
            self.retries += 1
            time.sleep(0.02)
        raise RuntimeError("%s: no answer in 60 s" % method)

    def run(self):
        try:
            n = 0
            while time.monotonic() < self.end:
                self.create("/w/%d/%d" % (self.number, n))
                if n % 5 == 4:
                    self.change("/w/%d/%d" % (self.number, n - 2), "h%d" % n)
                if n % 7 == 6:
                    self.delete("/w/%d/%d" % (self.number, n - 5))
                n += 1
        except Exception as e:
            self.problem = "writer %d: %s: %s" % (self.number, type(e).__name__, e)

    def create(self, path):
        code, entry, unsure = self.ask("Entry.BatchCreateEntry", {"entries": [{
            "spiffe_id": {"trust_domain": lib.TD, "path": path}, "parent_id": {"trust_domain": lib.TD, "path": "/node/%d" % (self.number % 8)},
            "selectors": [{"type": "unix", "value": "uid:%d" % self.number}]}]})
        if code != OK and not (code == ALREADY_EXISTS and unsure):
            raise RuntimeError("create %s: status %d" % (path, code))
        self.entries[path] = [entry["id"], ""]

    def change(self, path, hint):
        if path not in self.entries:
            return
        code, _, _ = self.ask("Entry.BatchUpdateEntry", {"entries": [{"id": self.entries[path][0], "hint": hint}], "input_mask": {"hint": True}})
        if code != OK:
            raise RuntimeError("update %s: status %d" % (path, code))
        self.entries[path][1] = hint

    def delete(self, path):
        if path not in self.entries:
            return
        code, _, unsure = self.ask("Entry.BatchDeleteEntry", {"ids": [self.entries[path][0]]})
        if code != OK and not (code == NOT_FOUND and unsure):
            raise RuntimeError("delete %s: status %d" % (path, code))
        del self.entries[path]


def main(sock, out, first, threads, seconds):
    end = time.monotonic() + float(seconds)
    writers = [Writer(int(first) + n, sock, end) for n in range(int(threads))]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    result = {"entries": {}, "acknowledged": sum(w.acknowledged for w in writers), "retries": sum(w.retries for w in writers),
              "problems": [w.problem for w in writers if w.problem]}
    for w in writers:
        result["entries"].update(w.entries)
    with open(out, "w") as f:
        json.dump(result, f)


if __name__ == "__main__":
    main(*sys.argv[1:])
