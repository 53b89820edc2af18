# SPDX-License-Identifier: BSD-3-Clause
"""A hostile guest and a hostile server inside intercepted TLS 1.3: whatever they send without end, others are served meanwhile, and the core
does not grow. tests/unit/tls/test_floods.c has the same floods, and TLS 1.2's, without a clock.
"""
import os

import forge
import pytest
import worldlib as w

STRICT = ("--egress", "strict") + tuple(f"--egress-allow={n}" for n in (*w.SITES, *w.WEB))
SANITIZED = bool(os.environ.get("SLIRP_MED_SANITIZED"))
# Attackers are processes of their own: each says when its flood is ready, waits for "go", and tells how it ended.
GO = f"""
import multiprocessing
import httplib as h
sys.path.append({os.path.dirname(w.__file__)!r})
import forge
def outcome(c):
    c.s.settimeout(20)
    try:
        while c.s.recv(1 << 16):
            pass
        return "ended"
    except OSError as e:
        return "ended" if e.errno else "open"
def guest(pipe, kind):
    ctx = forge.context(False)
    c = h.tls("line.test", port={w.TLS_LINE}, ctx=ctx)
    f = forge.Forge(ctx, c.o)
    data = f.record(forge.DATA, b"hello\\n") + f.make(kind, forge.FLOOD) + f.record(forge.DATA, b"\\nlast\\n")
    pipe.send("ready"); pipe.recv()
    c.s.settimeout(20)
    try:
        c.s.sendall(data)
        if kind.startswith("onebyte"):
            hello, middle, last = (c.until(b"\\n") for _ in range(3))
            return "whole" if (hello, len(middle) > 100, last) == (b"echo: hello", True, b"echo: last") else "changed"
    except (EOFError, OSError):
        return "ended"
    return outcome(c)
def origin(pipe, kind):
    c = h.tls("flood.test", timeout=30)
    c.send(h.get("/" + kind, "flood.test"))
    pipe.send("ready"); pipe.recv()
    if not kind.startswith("onebyte"):
        return outcome(c)
    n = 0
    while n < 500:
        d = c.recv()
        if not d:
            return "cut"
        n += len(d)
    return "whole"
def tick(c):
    t = time.monotonic()
    assert c.ask(h.get("/", "ok.test")).status == 200
    return time.monotonic() - t
"""


def proc(pid):
    """Resident memory of a process, in KiB."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(x.split()[1]) for x in f if x.startswith("VmRSS"))


@pytest.mark.parametrize("who", ["guest", "origin"])
def test_a_flood_of_records_inside_tls_starves_nobody(sm, world, mark, who):
    kinds = [k for k in forge.KINDS if who == "origin" or k != "tickets"]
    g = sm.start_guest(GO + f"""
mp, ps = multiprocessing.get_context("fork"), []
for k in {kinds!r}:
    for _ in range(2):
        ours, theirs = mp.Pipe()
        mp.Process(target=lambda k=k, p=theirs: p.send({who}(p, k)), daemon=True).start()
        ps.append((k, ours))
c = h.tls("ok.test", alpn=["http/1.1"])
for _, p in ps:
    assert p.poll(60) and p.recv() == "ready"
tick(c)
say("ready"); sys.stdin.readline()
for _, p in ps:
    p.send("go")
took, res, end = [], [], time.monotonic() + 60
while ps and time.monotonic() < end:
    took.append(tick(c))
    for x in [x for x in ps if x[1].poll(0)]:
        ps.remove(x)
        res.append((x[0], x[1].recv()))
say("over"); sys.stdin.readline()
took.sort()
out["left"], out["res"] = [k for k, _ in ps], sorted(set(res))
out["n"], out["median"], out["worst"] = len(took), took[len(took) // 2], took[-1]
""", *STRICT)
    assert g.line(90) == "ready"
    core = g.pids()["core"]
    rss = proc(core)
    g.tell("go")
    assert g.line(90) == "over"
    grown = proc(core) - rss
    g.tell("end")
    r = g.end(60)
    assert r.out["left"] == []
    assert r.out["res"] == [[k, "whole" if k.startswith("onebyte") else "ended"] for k in sorted(kinds)], r.out
    assert r.out["median"] < 0.5 and r.out["worst"] < (4 if SANITIZED else 1), r.out
    assert SANITIZED or grown < 8 << 10, f"the core grew by {grown} KiB"
