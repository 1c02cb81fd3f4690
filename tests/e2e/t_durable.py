# SPDX-License-Identifier: Apache-2.0
"""Nothing acknowledged is lost, nothing is done twice: kill -9 under load, a full disk, a failed fsync."""
import ctypes, os, random, shutil, sys, time

from lib import *

LONG = bool(os.environ.get("E2E_LONG"))


def all_entries(s):
    """{spiffe id path: [(entry id, hint), ...]}"""
    found, token, link = {}, "", s.link()
    while True:
        page = answer(link.call("Entry.ListEntries", [{"page_size": 1000, "page_token": token}]))
        for e in page.get("entries", []):
            found.setdefault(e["spiffe_id"]["path"], []).append((e["id"], e.get("hint", "")))
        token = page.get("next_page_token", "")
        if not token:
            link.close()
            return found


@test("kill9-writers", limit=240)
def kill9(w):
    """64 writers while the server is killed and started again: at the end the store holds exactly what was acknowledged, once."""
    seconds, processes = (60 if LONG else 15), 2
    s = w.server().start()
    writers = [Process(w, "writer%d" % n, [sys.executable, HERE + "/writer.py", s.sock, "%s/out%d.json" % (w.dir, n), str(32 * n), "32", str(seconds)]).spawn()
               for n in range(processes)]
    dice, kills, slowest, end = random.Random(), 0, 0.0, time.monotonic() + seconds
    while time.monotonic() < end - 1:
        time.sleep(3 if LONG else dice.uniform(0.3, 2.0))  # the instant of the kill is what is tried
        check(s.alive(), lambda: "it ended by itself: %s\n%s" % (s.child.returncode, s.log()[-3000:]))
        s.kill()
        kills += 1
        began = time.monotonic()
        s.start()
        slowest = max(slowest, time.monotonic() - began)
    want, acknowledged, retries = {}, 0, 0
    for n, p in enumerate(writers):
        same("writer's exit status (%s)" % p.log()[-500:], p.exit_code(90), 0)
        result = json.load(open("%s/out%d.json" % (w.dir, n)))
        check(not result["problems"], lambda: "\n".join(result["problems"][:5]))
        want.update(result["entries"])
        acknowledged, retries = acknowledged + result["acknowledged"], retries + result["retries"]
    for again in ("now", "after another kill"):
        found = all_entries(s)
        missing = [p for p in want if p not in found]
        twice = [p for p in found if len(found[p]) > 1]
        extra = [p for p in found if p not in want]
        wrong = [p for p in want if p in found and list(found[p][0]) != want[p]]
        check(not (missing or twice or extra or wrong), lambda: "%s: %d acknowledged entries missing %s, %d twice %s, %d deleted ones there %s, %d differ %s" % (
            again, len(missing), missing[:3], len(twice), twice[:3], len(extra), extra[:3], len(wrong), [(p, found[p], want[p]) for p in wrong[:3]]))
        s.kill()
        s.start()
    check(acknowledged >= 500 and kills >= (10 if LONG else 5), "too little was done to say anything: %d writes, %d kills" % (acknowledged, kills))
    w.note = "%d writes acknowledged, %d kills, %d retries, slowest start %.2f s" % (acknowledged, kills, retries, slowest)


def fill(s, acknowledged, seconds):
    """Creates entries until the server is gone or the time is over. acknowledged grows by what was."""
    end, n = time.monotonic() + seconds, 0
    try:
        link = s.link(timeout=10)
        while time.monotonic() < end and s.alive():
            path = "/w%d" % len(acknowledged) if n == 0 else "/w%d-%d" % (len(acknowledged), n)
            answers, code, text, _ = link.call("Entry.BatchCreateEntry", [{"entries": [{
                "spiffe_id": {"trust_domain": TD, "path": path}, "parent_id": {"trust_domain": TD, "path": "/node"},
                "selectors": [{"type": "a", "value": "b" * 2000}]}]}])
            if code == 0 and answers[0]["results"][0]["status"].get("code", 0) == 0:
                acknowledged.append(path)
                n = 0
            else:
                n += 1
                time.sleep(0.01)
    except (OSError, ValueError, IndexError):
        pass


def stops_itself(s, mark, phrase):
    code = s.exit_code(10)
    check(code not in (0, -9), "exit status %s" % code)
    log = s.log(mark)
    check("level=fatal" in log, lambda: "no FATAL line in\n" + log[-2000:])
    has("the log", log, phrase)


def all_there(s, acknowledged):
    found = all_entries(s)
    missing = [p for p in acknowledged if p not in found]
    twice = [p for p in found if len(found[p]) > 1]
    check(not missing and not twice, lambda: "%d of %d acknowledged entries missing: %s; twice: %s" % (len(missing), len(acknowledged), missing[:5], twice[:5]))


@test("disk-full")
def disk_full(w):
    """The disk fills up: the process stops itself with a FATAL line; with space again it starts, and all that was acknowledged is there."""
    if os.getuid() != 0:
        raise Skip("mounting a small file system needs root")
    libc = ctypes.CDLL(None, use_errno=True)
    # A mount namespace of this test's own: the mount goes with its last process.
    if libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, 0x4000 | (1 << 18), None):
        raise Skip("no mount namespace: %s" % os.strerror(ctypes.get_errno()))
    data = w.dir + "/data"
    os.mkdir(data)
    if libc.mount(b"tmpfs", data.encode(), b"tmpfs", 0, b"size=256m,mode=0750"):
        raise Skip("tmpfs cannot be mounted: %s" % os.strerror(ctypes.get_errno()))
    w.mounts.append(data)
    s, acknowledged = w.server(), []
    for left in (0, 100_000, 1_000_000):
        s.start()
        fill(s, acknowledged, 0.5)
        mark = s.mark()
        with open(data + "/balloon", "wb") as f:
            free = os.statvfs(data).f_bavail * os.statvfs(data).f_frsize
            try:
                os.posix_fallocate(f.fileno(), 0, max(free - left, 4096))
            except OSError:
                pass
        fill(s, acknowledged, 60)
        stops_itself(s, mark, "full")
        s.spawn()  # on a disk that is still full it serves, or says so and ends: what it does not do is hang or harm
        until("a start on a full disk", lambda: s.listens() or not s.alive(), 15)
        check(s.alive() or s.child.returncode == 1, lambda: "exit status %s" % s.child.returncode)
        s.kill()
        os.unlink(data + "/balloon")
        s.start().serves()
        all_there(s, acknowledged)
        s.kill()
    check(len(acknowledged) > 20, "too little was done: %d" % len(acknowledged))
    w.note = "%d acknowledged" % len(acknowledged)


@test("disk-failed-fsync")
def failed_fsync(w):
    """fsync fails: the process must not go on with that file. It stops itself; started again, all that was acknowledged is there."""
    if SANITIZED:
        raise Skip("no preload into a sanitizer's build")
    shim = w.dir + "/faultio.so"
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        raise Skip("no compiler for the preloaded fault")
    tool(compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", shim, HERE + "/faultio.c")
    control = w.write("control", "0")
    s, acknowledged = w.server(env={"LD_PRELOAD": shim, "FAULTIO": control}), []
    for _ in range(3):
        s.start()
        fill(s, acknowledged, 0.5)
        mark = s.mark()
        with open(control, "r+") as f:
            f.write("1")
        fill(s, acknowledged, 30)
        stops_itself(s, mark, "error")
        with open(control, "r+") as f:
            f.write("0")
        s.start().serves()
        all_there(s, acknowledged)
        s.kill()
    check(len(acknowledged) > 20, "too little was done: %d" % len(acknowledged))
    w.note = "%d acknowledged" % len(acknowledged)
