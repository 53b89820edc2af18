# SPDX-License-Identifier: BSD-3-Clause
"""Guests and servers that begin and do not go on: each phase of an intercepted flow has an end, or costs next to nothing while it lasts."""
import os

import pytest
import worldlib as w

STRICT = ("--egress", "strict") + tuple(f"--egress-allow={n}" for n in (*w.SITES, *w.TLS_BAD, "ok.test"))
SANITIZED = bool(os.environ.get("SLIRP_MED_SANITIZED"))


def rss(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(x.split()[1]) for x in f if x.startswith("VmRSS"))


@pytest.mark.parametrize("to_the_end", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["meanwhile", "to-the-end"])
def test_flows_that_stall_in_every_phase(sm, world, mark, to_the_end):
    """Many of each kind: half a hello, no answer to the leaf, silence and half a word inside TLS without ALPN, half a head, a response
    that nobody reads. Others are served meanwhile; what stalls before TLS is up is over in a minute; the rest is small."""
    n = 20 if SANITIZED else 60
    g = sm.start_guest(f"""
import resource
import httplib as h
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
N, ORIGIN, LINE = {n}, "{w.SITES['origin.test']}", "{w.SITES['line.test']}"
for name in ("origin.test", "line.test", "h2.test"): dns(name)
plain, http1 = h.context(), h.context(alpn=["http/1.1"])   # a bundle takes its time to load
def hello_part(): s = dial(ORIGIN, 443); s.send(hello("origin.test")[:100]); return s
def no_leaf(): s = dial(ORIGIN, 443); s.send(hello("origin.test")); return s
def silent(): return h.tls("line.test", port={w.TLS_LINE}, addr=LINE, ctx=plain).s
def word(): c = h.tls("line.test", port={w.TLS_LINE}, addr=LINE, ctx=plain); c.send(b"WOR"); return c.s
def half_head(): c = h.tls("origin.test", addr=ORIGIN, ctx=http1); c.send(b"GET / HTTP/1.1\\r\\nHost: origin.test\\r\\nX: " + b"x" * 3000); return c.s
def unread(): c = h.tls("origin.test", addr=ORIGIN, ctx=http1); c.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096); c.send(h.get("/bytes/3000000", "origin.test")); return c.s
h.tls("ok.test", alpn=["http/1.1"]).close()
say("ready"); sys.stdin.readline()
kinds = (hello_part, no_leaf, silent, word, half_head)
flows = {{k.__name__: [k() for _ in range(N)] for k in kinds}}
flows["unread"] = [unread() for _ in range(10)]
victim, took = h.tls("ok.test", alpn=["http/1.1"]), []
for _ in range(50):
    t = time.monotonic()
    assert victim.ask(h.get("/", "ok.test")).status == 200
    took.append(time.monotonic() - t)
out["worst"] = max(took)
t = time.monotonic()
out["new"] = h.tls("h2.test", alpn=["http/1.1"]).ask(h.get("/new", "h2.test")).status, time.monotonic() - t
say("stalled"); sys.stdin.readline()
ended = {{}}
limit = time.monotonic() + 70
for k in ("hello_part", "no_leaf") if {to_the_end} else ():
    ends = 0
    for s in flows[k]:
        s.settimeout(max(0.01, limit - time.monotonic()))
        try:
            while s.recv(65536):
                pass
            ends += 1
        except (TimeoutError, socket.timeout):
            pass
        except OSError:
            ends += 1
    ended[k] = ends
out["ended"] = ended
""", *STRICT)
    assert g.line(60) == "ready"
    before = rss(g.pids()["core"])
    g.tell("go")
    assert g.line(120) == "stalled"
    grown = rss(g.pids()["core"]) - before
    g.tell("on")
    r = g.end(120)
    assert r.rc == 0, r
    assert r.out["worst"] < 2 and r.out["new"][0] == 200 and r.out["new"][1] < 5, r.out
    assert r.out["ended"] == ({"hello_part": n, "no_leaf": n} if to_the_end else {}), r.out
    # 36 KiB an intercepted connection, the heads, and ten responses in a megabyte each of the pair's and the bridge's queues.
    assert SANITIZED or grown < 5 * n * 64 + 10 * 1024, f"the core grew by {grown} KiB"


def test_an_upstream_that_trickles_its_handshake_has_an_end(sm, world, mark):
    """A byte now and then is no progress: the limit is of the whole handshake."""
    r = sm.guest("""
import httplib as h
t = time.monotonic()
out["r"] = h.outcome(lambda: h.tls("trickle.test", timeout=40).cert)
out["s"] = time.monotonic() - t
""", *STRICT, timeout=90)
    assert "ALERT" in str(r.out["r"]) and 5 < r.out["s"] < 20, r.out
    assert r.one("egress_mitm_upstream_error")["reason"] == "tls_timeout"
