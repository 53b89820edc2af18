# SPDX-License-Identifier: BSD-3-Clause
"""HTTP/2 through interception and in clear: it stays HTTP/2, nothing of it is lost, each request is judged, abuse is bounded."""
import hashlib
import os

import conftest
import pytest
import worldlib as w

H2 = w.SITES["h2.test"]
STRICT = ("--egress", "strict") + tuple(f"--egress-allow={n}" for n in w.SITES)
SANITIZED = bool(os.environ.get("SLIRP_MED_SANITIZED"))
GO = """
import hashlib
import h2lib, httplib as h
def go(**kw):
    return h2lib.tls(**kw) if tls else h2lib.clear(**kw)
scheme = lambda: "https" if tls else "http"
pattern = h.pattern
"""


def both(sm, code, *flags, **kw):
    """The code once inside TLS and once in clear by prior knowledge, in one workspace; out["tls"] and out["clear"]."""
    return conftest.both(sm, GO, code, *(flags or STRICT), **kw)


@pytest.mark.core
def test_requests_arrive_as_they_were_sent(sm, world, mark):
    r = both(sm, """
c = go()
extra = [("x-b", "1"), ("cookie", "a=b"), ("cookie", "c=d"), ("x-a", "two  spaces"), ("x-empty", ""), ("te", "trailers"), ("x-long", "y" * 20000)]
out["a"] = c.ask("h2.test", "/p?q=1;2", extra=extra, scheme=scheme()).json()
sid = c.request("h2.test", "/echo", method="POST", end=False, scheme=scheme())
c.data(sid, b"abc"); c.data(sid, b""); c.data(sid, b"def"); c.trailers(sid, [("x-sum", "abc"), ("x-last", "z")])
out["b"] = c.wait(sid).json()
out["head"] = c.ask("h2.test", "/bytes/100", method="HEAD", scheme=scheme()).get("content-length")
out["codes"] = [c.ask("h2.test", f"/status/{n}", scheme=scheme()).status for n in (204, 304, 404, 500)]
s = c.ask("h2.test", "/hints", scheme=scheme())
out["hints"] = [[dict(i)[":status"] for i in s.interim], s.status, s.body.decode()]
s = c.ask("h2.test", "/trailers", scheme=scheme())
out["trailers"] = [s.trailers, hashlib.sha256(s.body).hexdigest()]
out["large"] = len(c.ask("h2.test", "/large/60", scheme=scheme()).headers)
s = c.ask("h2.test", "/gzip", scheme=scheme())
out["gzip"] = [s.get("content-encoding"), hashlib.sha256(s.body).hexdigest()]
""")
    import gzip
    for how in ("tls", "clear"):
        o = r.out[how]
        names = [[":method", "GET"], [":scheme", "https" if how == "tls" else "http"], [":authority", "h2.test"], [":path", "/p?q=1;2"], ["x-b", "1"],
                 ["cookie", "a=b"], ["cookie", "c=d"], ["x-a", "two  spaces"], ["x-empty", ""], ["te", "trailers"], ["x-long", "y" * 20000]]
        assert o["a"]["headers"] == names, o["a"]["headers"]
        assert o["b"]["sha256"] == hashlib.sha256(b"abcdef").hexdigest() and o["b"]["trailers"] == [["x-sum", "abc"], ["x-last", "z"]], o["b"]
        assert o["head"] == "100" and o["codes"] == [204, 304, 404, 500]
        assert o["hints"] == [["103"], 200, "after the hints"]
        t = hashlib.sha256(w.pattern(30000)).hexdigest()
        assert o["trailers"] == [[["x-sum", t], ["x-last", "a b"]], t], o["trailers"]
        assert o["large"] == 62, "CONTINUATION"
        assert o["gzip"] == ["gzip", hashlib.sha256(gzip.compress(w.pattern(100000), mtime=0)).hexdigest()]
    assert {x["proto"] for x in world.requests(mark)} == {"h2"}
    assert len({x["id"] for x in world.requests(mark)}) == 2, "one connection upstream for one of the guest's"


@pytest.mark.core
def test_bodies_arrive_whole_in_both_directions(sm, world, mark):
    n = (2 if SANITIZED else 64) << 20
    r = both(sm, f"""
c = go()
for n in (1 << 20, {n} if tls else 4 << 20):
    body = pattern(n)
    sid = c.request("h2.test", "/echo", method="POST", end=False, scheme=scheme())
    c.data(sid, body, end=True)
    out[f"up{{n}}"] = c.wait(sid).json()["sha256"] == hashlib.sha256(body).hexdigest()
""", timeout=120)
    for how in ("tls", "clear"):
        assert len(r.out[how]) >= 1 and all(r.out[how].values()), r.out
    p = sm.run(*STRICT, cmd=["curl", "-sS", "-w", "%{stderr}%{http_version}", f"https://h2.test/bytes/{n}"], timeout=120)
    assert p.rc == 0 and hashlib.sha256(p.stdout).digest() == hashlib.sha256(w.pattern(n)).digest(), p
    assert p.one("egress_http_response")["bytes_down"] == n


@pytest.mark.core
def test_many_streams_at_once_do_not_mix(sm, world, mark):
    r = both(sm, """
c = go()
sids = [c.request("h2.test", f"/bytes/{1000 + i}", scheme=scheme()) for i in range(60)]
slow = c.request("h2.test", "/drip/5/20", scheme=scheme())
out["ok"] = [c.wait(s).body == pattern(1000 + i) for i, s in enumerate(sids)]
out["slow"] = c.wait(slow).body.decode()
""")
    for how in ("tls", "clear"):
        assert r.out[how] == {"ok": [True] * 60, "slow": "01234"}, r.out
    rows = r.events("egress_http_request")
    assert len(rows) == 122 and {x["protocol"] for x in rows} == {"HTTP/2"}
    assert len(r.events("egress_http_response", status=200)) == 122
    for flow in {x["flow"] for x in rows}:
        reqs = [x["req"] for x in rows if x["flow"] == flow]
        assert len(set(reqs)) == 61


@pytest.mark.core
def test_resets_and_goaway_are_mapped(sm, world, mark):
    r = both(sm, """
c = go()
s = c.ask("h2.test", "/rst/8", scheme=scheme())
out["rst"] = [s.body.decode(), s.reset]
out["refused"] = c.ask("h2.test", "/refuse", scheme=scheme()).reset
sid = c.request("h2.test", "/drip/1000/50", scheme=scheme())
c.until(lambda: c.streams[sid].body)
c.rst(sid, 8)
sid = c.request("h2.test", "/early", method="POST", end=False, scheme=scheme())
s = c.wait(sid)
out["early"] = s.status
out["alive"] = c.ask("h2.test", "/echo", scheme=scheme()).status
slow = c.request("h2.test", "/drip/20/20", scheme=scheme())
c.until(lambda: c.streams[slow].headers)
s = c.ask("h2.test", "/goaway", scheme=scheme())
out["last"] = [s.body.decode(), c.wait(slow).body.decode()]
out["end"], out["goaway"] = c.drain(), c.goaway and c.goaway[0]
""")
    w.wait_for("the guest's reset at the origin", lambda: len(world.since(mark, "origin", ev="rst_stream", code=8)) >= 2)
    for how in ("tls", "clear"):
        o = r.out[how]
        assert o["rst"][1] == 8 and o["refused"] == 7, o
        assert (o["early"], o["alive"]) == (413, 200), o
        assert o["last"] == ["last words", "01234567890123456789"], "streams that were open are finished"
        assert o["goaway"] == 0 and o["end"] in ("notify", "fin"), o


@pytest.mark.core
def test_push_is_refused_and_alt_svc_h3_removed(sm, world, mark):
    r = both(sm, """
c = go(settings={2: 1})
s = c.ask("h2.test", "/push", scheme=scheme())
out["push"] = [s.status, c.pushed, c.goaway]
c = go()
s = c.ask("h2.test", "/altsvc", scheme=scheme())
out["alt"] = [v for k, v in s.headers if k == "alt-svc"]
out["between"] = s.get("x-between")
""")
    for how in ("tls", "clear"):
        assert r.out[how]["push"][1] == 0, r.out
        assert r.out[how]["between"] == "kept", r.out
    assert not [x for x in r.out["tls"]["alt"] if "h3" in x], r.out
    assert {x["settings"].get("2") for x in world.since(mark, "origin", ev="settings")} <= {0, None}, "upstream is told not to push"


@pytest.mark.core
def test_a_mismatching_authority_is_misdirected_and_the_connection_lives_on(sm, world, mark):
    """Coalescing: the certificate of the real server is for both names, the connection is for one."""
    r = sm.guest(GO + """
tls = True
c = go()
out["before"] = c.ask("h2.test").status
for host in ("origin.test", "evil.test", "h2.test:8443", H2, "H2.TEST", "h2.test:443"):
    s = c.ask(host, "/coalesced")
    out[host] = [s.status, s.get("content-type"), s.json() if s.status == 421 else None]
h2host = c.ask(None, headers=[(":method", "GET"), (":scheme", "https"), (":path", "/coalesced"), ("host", "evil.test")])
out["host"] = h2host.summary()
two = c.ask(None, headers=[(":method", "GET"), (":scheme", "https"), (":authority", "h2.test"), (":path", "/coalesced"), ("host", "evil.test")])
out["two"] = two.summary()
out["after"] = c.ask("h2.test").status
""".replace("H2,", repr(H2) + ","), *STRICT, name="co")
    o = r.out
    assert o["before"] == o["after"] == 200, "the connection lives on"
    for host in ("origin.test", "evil.test", "h2.test:8443", H2):
        status, ctype, page = o[host]
        assert (status, ctype) == (421, "application/json") and page["reason"] == "authority_mismatch" and page["workspace"] == "co", (host, o[host])
    assert o["H2.TEST"][0] == 200 and o["h2.test:443"][0] == 200, o
    assert o["host"][0] in (400, 421) or o["host"][2] == 1, o
    assert o["two"][0] in (400, 421) or o["two"][2] == 1, o
    assert not [x for x in world.since(mark, "origin", ev="head") if dict(x["headers"]).get(":authority", "").lower() not in ("h2.test", "h2.test:443")
                or dict(x["headers"]).get("host") == "evil.test"]
    assert {x["authority"] for x in r.events("egress_deny", reason="authority_mismatch")} >= {"origin.test", "evil.test", "h2.test:8443"}, r.text()


@pytest.mark.core
def test_prior_knowledge_in_clear_is_judged_request_by_request(sm, world, mark):
    r = sm.guest(GO + f"""
tls = False
c = go()
out["ok"] = c.ask("h2.test", scheme="http").status
s = c.ask("evil.test", "/denied", scheme="http")
out["denied"] = [s.status, s.get("content-type"), s.json()]
out["again"] = c.ask("h2.test", scheme="http").status
out["scheme"] = c.ask("h2.test", "/scheme", scheme="https").summary()
d = h2lib.clear(addr="{w.WEB['evil.test']}", port={w.H2C})
out["other"] = h.outcome(lambda: d.ask("evil.test", "/denied", scheme="http").summary()), d.ended
""", *STRICT)
    assert r.out["ok"] == r.out["again"] == 200, r.out
    status, ctype, page = r.out["denied"]
    assert status in (403, 421) and ctype == "application/json", r.out
    assert page["reason"] == r.some("egress_deny", authority="evil.test")["reason"]
    assert not [x for x in world.since(mark, "origin", ev="head") if "denied" in x["line"]]
    world.sync()
    assert not world.since(mark, "nginx", host="evil.test"), "an address that no listed name stands for"


@pytest.mark.core
def test_what_http2_forbids_in_requests_does_not_pass(sm, world, mark):
    r = both(sm, """
def one(extra, **kw):
    c = go()
    s = c.ask("h2.test", "/forbidden", extra=extra, scheme=scheme(), **kw)
    alive = c.goaway is None and not c.ended and h.outcome(lambda: c.ask("h2.test", scheme=scheme()).status)
    c.close()
    return [s.status, s.reset, c.goaway, c.ended, alive]
for k, v in {"crlf": [("x-a", "b\\r\\nx-smuggled: c")], "lf": [("x-a", "b\\nc")], "nul": [("x-a", "b\\0c")], "cr": [("x-a", "b\\rc")],
             "upper": [("X-Upper", "a")], "connection": [("connection", "close")], "te": [("transfer-encoding", "chunked")],
             "space": [("x a", "b")], "colon": [("x:a", "b")], "two-lengths": [("content-length", "0"), ("content-length", "5")],
             "upgrade": [("upgrade", "websocket")], "keepalive": [("keep-alive", "1")], "te-gzip": [("te", "gzip")]}.items():
    out[k] = one(v)
c = go()
p = [(":method", "GET"), (":scheme", scheme()), (":authority", "h2.test"), (":path", "/forbidden")]
def pseudo(headers):
    c = go()
    s = c.wait(c.request(None, headers=headers))
    return [s.status, s.reset, c.goaway, c.ended, None]
out["path-twice"] = pseudo(p + [(":path", "/forbidden2")])
out["pseudo-late"] = pseudo(p[:3] + [("x-a", "b")] + p[3:])
out["no-path"] = pseudo(p[:3])
out["path-empty"] = pseudo(p[:3] + [(":path", "")])
out["path-space"] = pseudo(p[:3] + [(":path", "/forbidden HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n")])
out["unknown-pseudo"] = pseudo(p + [(":evil", "x")])
out["connect"] = pseudo([(":method", "CONNECT"), (":authority", "h2.test:443")])
out["extended-connect"] = pseudo([(":method", "CONNECT"), (":protocol", "websocket")] + p[1:])
out["authority-userinfo"] = pseudo(p[:2] + [(":authority", "evil@h2.test")] + p[3:])
def length(n, body):
    c = go()
    sid = c.request("h2.test", "/length", method="POST", extra=[("content-length", str(n))], end=False, scheme=scheme())
    h.outcome(lambda: c.data(sid, body, end=True))
    s = c.wait(sid)
    return [s.status, s.reset, c.goaway, c.ended, None]
out["short-body"], out["long-body"] = length(10, b"abc"), length(2, b"abcde")
""")
    for how in ("tls", "clear"):
        for k, (status, reset, goaway, ended, alive) in r.out[how].items():
            assert status in (0, 400, 421, 502) and (status or reset is not None or goaway), (how, k, r.out[how][k])
            assert alive in (None, False, 200) or goaway, (how, k, alive)
    heads = world.since(mark, "origin", ev="head")
    assert not [x for x in heads if "forbidden" in x["line"] or "CONNECT" in x["line"]], heads
    assert not [x for x in world.requests(mark) if x["path"] == "/length"], "a body that is not what its length said is never complete"


@pytest.mark.core
def test_responses_that_break_a_rule_do_not_pass(sm, world, mark):
    r = both(sm, """
c = go()
for k in ("connection", "te", "upper", "crlf", "nul", "length"):
    s = c.ask("h2.test", "/bad/" + k, scheme=scheme())
    out[k] = [s.status, s.reset, [x for x in s.headers if x[0] in ("connection", "transfer-encoding", "x-smuggled", "X-Upper", "x-a")]]
    if c.ended or c.goaway:
        c = go()
""")
    for how in ("tls", "clear"):
        for k, (status, reset, headers) in r.out[how].items():
            if k == "length":
                assert status != 200 or reset is not None, (how, k, r.out[how][k])
            else:
                assert status == 502 or reset is not None, (how, k, r.out[how][k])
            assert headers == [], (how, k, headers)


@pytest.mark.core
def test_floods_are_bounded(sm, world, mark):
    """Rapid reset, pings, empty frames, CONTINUATION without end, settings: each ends the connection, and the workspace serves on."""
    r = both(sm, """
def until_end(f, n):
    c = go()
    c.ask("h2.test", scheme=scheme())
    c.io.s.settimeout(20)
    def run():
        for i in range(n):
            f(c, i)
            if i % 200 == 199 and (c.ended or c.goaway): break
        return "sent"
    how = h.outcome(run)
    end = h.outcome(c.drain)
    c.close()
    return [how, end, c.goaway]
def frames(c, *list):
    c.io.send(b"".join(struct.pack("!I", len(p))[1:] + bytes([t, f]) + struct.pack("!I", s) + p for t, f, s, p in list))
def head(c, path):     # by hand: the dynamic table is ours alone
    return b"".join(b"\\0" + bytes([len(k)]) + k + bytes([len(v)]) + v for k, v in (
        (b":method", b"GET"), (b":scheme", scheme().encode()), (b":authority", b"h2.test"), (b":path", path.encode())))
def reset(c, i):
    frames(c, (1, 5, 1001 + 2 * i, head(c, "/drip/100/100")), (3, 0, 1001 + 2 * i, struct.pack("!I", 8)))
def continuation(c, i):
    frames(c, *([(1, 0, 1001, head(c, "/cont"))] if i == 0 else []), (9, 0, 1001, b"\\0\\1a\\1b" * 3000))
def empty(c, i):
    if i == 0: c.sid = c.request("h2.test", "/slow/0", method="POST", end=False, scheme=scheme())
    frames(c, *[(0, 0, c.sid, b"")] * 200)
def bomb(c, i):     # one long entry in the dynamic table, named again and again in one byte each
    frames(c, (1, 4, 1001 + 2 * i, head(c, "/bomb") + b"\\x40\\1b\\x7f" + b"\\xa1\\x1e" + b"y" * 4000)) if i == 0 else \\
        frames(c, (1, 4, 1001 + 2 * i, head(c, "/bomb") + b"\\xbe" * 16000))
out["reset"] = until_end(reset, 5000)
out["ping"] = until_end(lambda c, i: frames(c, *[(6, 0, 0, struct.pack("!Q", i))] * 100), 1000)
out["settings"] = until_end(lambda c, i: frames(c, *[(4, 0, 0, b"\\0\\3\\0\\0\\0\\x64")] * 100), 1000)
out["continuation"] = until_end(continuation, 2000)
out["empty"] = until_end(empty, 1000)
out["bomb"] = until_end(bomb, 100)
c = go()
out["alive"] = c.ask("h2.test", scheme=scheme()).status
""", timeout=150)
    for how in ("tls", "clear"):
        assert r.out[how].pop("alive") == 200
        for k, (sent, end, goaway) in r.out[how].items():
            assert sent != "timeout" and end != "timeout", (how, k, r.out[how])
    assert len(world.since(mark, "origin", ev="head")) < 2500, "not every stream of a reset flood is opened upstream"


@pytest.mark.core
def test_a_slow_guest_slows_the_origin_and_only_its_stream(sm, world, mark):
    r = sm.guest(GO + """
tls = True
c = go(window=65535)
big = c.request("h2.test", "/bytes/%d" % (32 << 20))
c.until(lambda: len(c.streams[big].body) >= 65535)      # the window of that stream is used up; the connection's too
c.c.increment_flow_control_window(1 << 20)
c.flush()
small = c.ask("h2.test", "/bytes/5000")
out["small"], out["held"] = len(small.body), len(c.streams[big].body)
""", *STRICT)
    assert r.out == {"small": 5000, "held": 65535}, r.out
    stalled = world.since(mark, "origin", ev="stalled")
    assert all(x["out"] < 4 << 20 for x in stalled), stalled


@pytest.mark.core
def test_events_are_passed_on_at_once(sm, world, mark):
    r = both(sm, """
c = go()
sid = c.request("h2.test", "/sse/60/5", scheme=scheme())
took, seen = [], 0
while len(took) < 60:
    c.until(lambda: c.streams[sid].body.count(b"\\n\\n") > seen)
    now = time.monotonic()
    lines = [x for x in c.streams[sid].body.decode().split("\\n") if x.startswith("data: ")]
    for x in lines[seen:c.streams[sid].body.count(b"\\n\\n")]:
        took.append((now - float(x[6:])) * 1000)
    seen = len(took)
took.sort()
out["median"], out["worst"] = took[30], took[-1]
""")
    for how in ("tls", "clear"):
        assert r.out[how]["median"] < (50 if SANITIZED else 10), r.out


@pytest.mark.core
def test_grpc_unary_streams_trailers_and_errors(sm, world, mark):
    code = """
import json
import grpc
ch = grpc.secure_channel("grpc.test:443", grpc.ssl_channel_credentials())
out = {}
md = lambda x: {k: v.hex() if isinstance(v, bytes) else v for k, v in x}
r, call = ch.unary_unary("/world.Echo/Unary").with_call(b"x" * 100000, timeout=30, metadata=(("x-meta", "m"), ("x-meta-bin", b"\\0\\xff")))
out["unary"] = [len(r), md(call.initial_metadata()).get("x-initial"), md(call.trailing_metadata())]
c = ch.unary_stream("/world.Echo/ServerStream")(b"200", timeout=30)
out["server"] = [len([m for m in c]), md(c.trailing_metadata())["x-trailer"]]
out["client"] = ch.stream_unary("/world.Echo/ClientStream")((b"z" * 1000 for _ in range(300)), timeout=30).decode()
import queue
q = queue.Queue()
c = ch.stream_stream("/world.Echo/Bidi")(iter(q.get, None), timeout=30)
got = []
for i in range(50):
    q.put(b"m%03d" % i); got.append(next(c))          # each answer is there before the next question is asked
q.put(None)
out["bidi"] = [got == [(b"m%03d" % i)[::-1] for i in range(50)], len(list(c)), md(c.trailing_metadata())["x-trailer"]]
try:
    ch.unary_unary("/world.Echo/Fail")(b"why", timeout=30)
except grpc.RpcError as e:
    out["fail"] = [e.code().name, e.details(), md(e.trailing_metadata())["x-trailer"]]
c = ch.unary_stream("/world.Echo/FailLate")(b"", timeout=30)
n = 0
try:
    for m in c: n += 1
except grpc.RpcError as e:
    out["late"] = [n, e.code().name]
try:
    ch.unary_unary("/world.Echo/Nothing")(b"", timeout=30)
except grpc.RpcError as e:
    out["nothing"] = e.code().name
print("OUT " + json.dumps(out))
"""
    r = sm.run("--egress", "strict", "--egress-allow", "grpc.test", cmd=["/usr/bin/python3", "-c", code], timeout=90)
    assert r.rc == 0, r
    o = r.out
    assert o["unary"][:2] == [100005, "Unary"] and o["unary"][2] == {"x-trailer": "end of Unary", "x-trailer-bin": bytes(range(256)).hex()}, o
    assert o["server"] == [200, "end of ServerStream"] and o["client"] == "300 300000", o
    assert o["bidi"] == [True, 0, "end of Bidi"], o
    assert o["fail"] == ["FAILED_PRECONDITION", "refused: \u00fc % why", "end of Fail"] and o["late"] == [2, "RESOURCE_EXHAUSTED"] and o["nothing"] == "UNIMPLEMENTED", o
    call = world.since(mark, "grpc", ev="call")[0]
    assert ["x-meta", "m"] in call["metadata"] and ["x-meta-bin", "00ff"] in call["metadata"]
    assert r.one("egress_allow")["mitm"] is True and r.one("egress_allow")["alpn"] in ("h2", "grpc-exp")
    assert [x["path"] for x in r.events("egress_http_request")][:1] == ["/world.Echo/Unary"]
    assert len(r.events("egress_http_response")) == 7


@pytest.mark.core
def test_names_that_would_be_intercepted_do_not_offer_h3_or_ech(sm, world, mark):
    code = """
out["h2"] = dns("h2.test", 65)["answers"]
out["only"] = dns("h3only.test", 65)["answers"]
out["ech"] = dns("ech.test", 64)["answers"]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
t = time.monotonic()
out["quic"] = udp(%r, 443, b"\\xc3\\0\\0\\0\\1" + bytes(1195))
""" % H2
    flags = ("--egress", "strict", *(f"--egress-{k}={n}" for k in ("allow",) for n in ("h2.test", "h3only.test", "ech.test")))
    r = sm.guest(code, *flags)
    for k in ("h2", "only", "ech"):
        for a in r.out[k]:
            rdata = bytes.fromhex(a[3])
            assert b"\2h3" not in rdata and b"h3-29" not in rdata and b"echech" not in rdata, (k, rdata)
    assert r.out["h2"] and b"\2h2" in bytes.fromhex(r.out["h2"][0][3])
    assert r.out["quic"].get("error") in ("EACCES", "ECONNREFUSED", "EHOSTUNREACH") and r.out["quic"]["ms"] < 500, r.out
    assert not [x for x in world.wire(mark, dst=H2, proto="udp")]
    r = sm.guest(code, "--egress", "strict", "--egress-passthrough=h2.test", "--egress-passthrough=h3only.test", "--egress-passthrough=ech.test")
    assert b"\2h3" in bytes.fromhex(r.out["h2"][0][3]), "a name that is left alone may speak HTTP/3"


def test_h2_over_guarded_without_a_list(sm, world, mark):
    r = sm.run("--egress", "guarded", cmd=["curl", "-sS", "-w", "%{http_version}", "-o", "/dev/null", "https://h2.test/echo", "--next", "-sS", "-o", "/dev/null",
                                           "-w", "%{http_version}", "--http2-prior-knowledge", "http://h2.test/echo"])
    assert r.rc == 0 and r.stdout == b"22", r
    assert {(x["protocol"], x["authority"]) for x in r.events("egress_http_request")} == {("HTTP/2", "h2.test")}
