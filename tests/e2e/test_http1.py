# SPDX-License-Identifier: BSD-3-Clause
"""HTTP/1.1 through interception and in clear: what arrives at the origin and comes back is what was sent, and each request is judged.

Most tests run the same exchanges twice, inside TLS and in clear: one engine serves both (spec sections 4 and 5).
"""
import hashlib
import json
import os

import conftest
import pytest
import worldlib as w

ORIGIN = w.SITES["origin.test"]
STRICT = ("--egress", "strict") + tuple(f"--egress-allow={n}" for n in w.SITES)
SANITIZED = bool(os.environ.get("SLIRP_MED_SANITIZED"))
# `go` opens a connection to the origin: inside TLS when `tls` is true.
GO = """
import hashlib
import httplib as h
def go(n="origin.test", **kw):
    return h.tls(n, alpn=["http/1.1"], **kw) if tls else h.connect(n, 80)
pattern = h.pattern
"""


def both(sm, code, *flags, **kw):
    """The code once inside TLS and once in clear, in one workspace; out["tls"] and out["clear"]."""
    return conftest.both(sm, GO, code, *(flags or STRICT), **kw)


@pytest.mark.core
def test_what_no_rule_rewrites_arrives_bit_identical(sm, world, mark):
    heads = [b"GET /a?b=c%20d;e HTTP/1.1\r\nHoSt: origin.test\r\nACCEPT:*/*\r\nX-a:  two  spaces \r\nx-A: again\r\nCookie: a=b; c=d\r\nX-Empty:\r\n"
             b"X-8bit: \xe9\xff\r\nX-Tab:\ta\tb\t\r\n\r\n",
             b"OPTIONS * HTTP/1.1\r\nHost: ORIGIN.test\r\n\r\n",
             b"PoSt /p//../q HTTP/1.1\r\nHost: origin.test\r\nContent-Length: 00005\r\nX-Method: odd-case\r\n\r\nhello",
             b"PUT /chunks HTTP/1.1\r\nHost: origin.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX-Sum:  abc \r\n\r\n"]
    sent = b"".join(heads)
    r = both(sm, f"""
c = go()
out["r"] = [c.ask(raw).json()["line"] for raw in {heads!r}]
c.close()
""")
    world.origin_closed(mark, 2)
    for how, srv in (("tls", "tls"), ("clear", "http")):
        assert r.out[how]["r"] == [x.split(b"\r\n")[0].decode() for x in heads], r.out
        got = world.received(mark, srv)
        assert got == sent, f"{how}: {got}"
        chunks = world.requests(mark, srv=srv)[3]
        assert chunks["trailers"] == [["X-Sum", "  abc "]] and chunks["body"] == 13


@pytest.mark.core
def test_answers_of_every_framing_come_back_as_they_were(sm, world, mark):
    r = both(sm, """
c = go()
def one(path, method="GET"):
    r = c.ask(h.get(path, "origin.test", method=method), method)
    return [r.status, r.headers, hashlib.sha256(r.body).hexdigest(), len(r.body), r.trailers, r.chunks[:2], [i.line for i in r.interim]]
out["all"] = [one(*x) for x in (("/bytes/1000",), ("/chunked/5000/7",), ("/hints",), ("/status/204",), ("/status/304",), ("/status/205",), ("/gzip",),
                                ("/bytes/500", "HEAD"), ("/chunked/100/10", "HEAD"), ("/status/404",), ("/bytes/0",))]
out["keep"] = c.ask(h.get("/echo", "origin.test")).json()["n"]
for p in ("/untilclose", "/http10"):
    c = go()
    r = c.ask(h.get(p, "origin.test"))
    out[p] = [r.status, hashlib.sha256(r.body).hexdigest(), c.end]
c = go()
r = c.ask(h.get("/bytes/10", "origin.test", "Connection: close\\r\\n"))
out["close"] = [r.get("connection"), len(r.body), len(c.rest()), c.end]
c = go()
c.ask(h.get("/closekeep", "origin.test"))
out["closekeep"] = [len(c.rest()), c.end]
c = go()
c.send(b"GET /echo HTTP/1.0\\r\\n\\r\\n")
r = c.answer()
out["http10"] = [r.status, r.json()["line"], c.rest().decode(), c.end]
""")
    def sha(b):
        return hashlib.sha256(b).hexdigest()
    import gzip
    for how in ("tls", "clear"):
        o = r.out[how]
        a = o["all"]
        assert [x[0] for x in a] == [200, 200, 200, 204, 304, 205, 200, 200, 200, 404, 200], o
        assert a[0][2] == sha(w.pattern(1000)) and a[1][2] == sha(w.pattern(5000)) and a[6][2] == sha(gzip.compress(w.pattern(100000), mtime=0))
        assert a[1][4] == [["X-Sum", " " + sha(w.pattern(5000))], ["x-ODD", "  spaced "]], "trailers with their spacing"
        assert a[1][5] == ['7;ext="a b"', "7"], "chunks and their extensions keep their borders"
        assert a[2][6] == ["HTTP/1.1 103 Early Hints", "HTTP/1.1 102 Processing"]
        assert a[4][1] == [["ETag", ' "x"'], ["Content-Length", " 1234"]] and a[7][1][-1] == ["Content-Length", " 500"]
        assert o["keep"] == 12, "one connection carried all of them"
        end = "notify" if how == "tls" else "fin"
        assert o["/untilclose"] == [200, sha(w.pattern(50000)), end] and o["/http10"] == [200, sha(w.pattern(50000)), end], o
        assert o["close"] == ["close", 10, 0, end] and o["closekeep"] == [0, end]
        assert o["http10"][0] == 200 and o["http10"][1] == "GET /echo HTTP/1.0" and o["http10"][2:] == ["", end]


@pytest.mark.core
def test_bodies_arrive_whole_in_both_directions(sm, world, mark):
    n = (4 if SANITIZED else 64) << 20
    r = both(sm, f"""
c = go()
for n in (1 << 20, {n}):
    body = pattern(n)
    c.send(b"POST /echo HTTP/1.1\\r\\nHost: origin.test\\r\\nContent-Length: %d\\r\\n\\r\\n" % n)
    c.send(body)
    out[f"up{{n}}"] = c.answer().json()["sha256"] == hashlib.sha256(body).hexdigest()
    out[f"down{{n}}"] = c.ask(h.get(f"/bytes/{{n}}", "origin.test")).body == body
""", timeout=120)
    for how in ("tls", "clear"):
        assert r.out[how] and all(r.out[how].values()), r.out
    rows = [x for x in r.events("egress_http_response") if x["bytes_down"] == n]
    assert len(rows) == 2 and [x["bytes_up"] for x in r.events("egress_http_response") if x["bytes_up"] == n] == [n, n], r.text()


@pytest.mark.core
def test_pipelined_requests_are_judged_one_by_one(sm, world, mark):
    r = both(sm, """
c = go()
c.send(h.get("/one", "origin.test") + h.get("/two", "origin.test") + h.get("/three", "origin.test"))
out["ok"] = [c.answer().json()["path"] for _ in range(3)]
c.close()
c = go()
c.send(h.get("/four", "origin.test") + h.get("/smuggled", "evil.test") + h.get("/never", "origin.test"))
out["first"] = c.answer().json()["path"]
r = c.answer()
out["second"] = [r.status, r.get("content-type"), r.json(), c.rest().decode(), c.end]
""")
    got = world.received(mark)
    assert b"smuggled" not in got and b"never" not in got and got.count(b"GET /four") == 2
    for how in ("tls", "clear"):
        o = r.out[how]
        assert o["ok"] == ["/one", "/two", "/three"] and o["first"] == "/four"
        status, ctype, page, rest, end = o["second"]
        assert (status, ctype, rest) == (421, "application/json", "") and page["reason"] == "authority_mismatch", o
        assert end in ("notify", "fin"), o
    rows = r.events("egress_deny", reason="authority_mismatch")
    assert len(rows) == 2 and {x["authority"] for x in rows} == {"evil.test"}, r.text()
    assert [x["path"] for x in r.events("egress_http_request")] == ["/one", "/two", "/three", "/four"] * 2


@pytest.mark.core
def test_other_authorities_of_the_same_name(sm, world, mark):
    """The port, letter case and final dot of the name; another name of the same server; an address; absolute-form."""
    r = both(sm, """
port = 443 if tls else 80
def one(host, target="/x"):
    c = go()
    r = c.ask(f"GET {target} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode())
    c.close()
    return [r.status, r.json().get("reason") or r.json()["host"]]
s = "https" if tls else "http"
out["good"] = [one(f"origin.test:{port}"), one("ORIGIN.Test"), one("origin.test", f"{s}://origin.test/abs")]
out["bad"] = [one(x) for x in ("origin.test:8443", "x.origin.test")]
if tls:   # in clear the first Host is itself what the connection is judged by
    out["bad"] += [one(x) for x in ("alias.test", "203.0.113.40", "evil.test", "inter.test")]
""")
    for how in ("tls", "clear"):
        assert [x[0] for x in r.out[how]["good"]] == [200, 200, 200], r.out
    assert r.out["tls"]["bad"] == [[421, "authority_mismatch"]] * 6, r.out
    assert all(x[0] in (403, 421) for x in r.out["clear"]["bad"]), r.out
    assert not [x for x in world.requests(mark) if (x["host"] or "").lower() not in ("origin.test", "origin.test:443", "origin.test:80")]


@pytest.mark.core
def test_expect_100_continue(sm, world, mark):
    r = both(sm, """
c = go()
c.send(b"POST /echo HTTP/1.1\\r\\nHost: origin.test\\r\\nContent-Length: 5\\r\\nExpect: 100-continue\\r\\n\\r\\n")
out["go"] = c.until(b"\\r\\n\\r\\n").decode()
c.send(b"hello")
out["n"] = c.answer().json()["body"]
c.send(b"POST /refusebody HTTP/1.1\\r\\nHost: origin.test\\r\\nContent-Length: 5\\r\\nExpect: 100-continue\\r\\n\\r\\n")
out["no"] = c.answer().status
""")
    for how in ("tls", "clear"):
        assert r.out[how] == {"go": "HTTP/1.1 100 Continue", "n": 5, "no": 417}, r.out
    assert [x["early"] for x in world.since(mark, "origin", ev="continue")] == [0, 0], "the body waited for the origin's word"


@pytest.mark.core
def test_websocket_echo_and_what_follows_a_101_is_raw(sm, world, mark):
    r = both(sm, """
c = go()
r = h.ws_open(c, "/ws", "origin.test")
out["status"] = r.status
got = []
for size in (0, 1, 125, 126, 65535, 65536, 1 << 20):
    data = pattern(size)
    h.ws_send(c, 2, data)
    got.append(h.ws_recv(c) == (2, data))
h.ws_send(c, 9, b"ping"); got.append(h.ws_recv(c) == (10, b"ping"))
h.ws_send(c, 8, b"\\3\\xe8"); got.append(h.ws_recv(c)[0] == 8)
c.shut(); c.rest()
out["echo"] = all(got)
c = go()
c.send(h.get("/wsraw", "origin.test", "Upgrade: websocket\\r\\nConnection: Upgrade\\r\\n"))
out["raw"] = [c.answer().status, c.take(5).decode()]
raw = b"GET /not-http HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n\\0\\1"
c.send(raw)
out["back"] = c.take(len(raw)) == raw
c.shut()
out["rest"], out["end"] = c.rest().decode(), c.end
""")
    for how in ("tls", "clear"):
        o = r.out[how]
        assert o["status"] == 101 and o["echo"] and o["raw"] == [101, "hello"], o
        assert o["back"] and o["rest"] == "end", "half-close after the upgrade"
    assert [x["outcome"] for x in r.events("egress_http_response")] == ["upgraded"] * 4, r.text()


@pytest.mark.core
def test_an_upgrade_without_a_101_stays_http(sm, world, mark):
    """The server declines: what comes next is judged as HTTP, also when it was sent before the answer."""
    r = both(sm, """
up = "Upgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Key: x\\r\\n"
c = go()
out["a"] = c.ask(h.get("/ws200", "origin.test", up)).body.decode()
out["b"] = c.ask(h.get("/after", "origin.test")).json()["path"]
r = c.ask(h.get("/smuggled1", "evil.test"))
out["c"] = [r.status, r.json()["reason"]]
c = go()
c.send(h.get("/ws200", "origin.test", up) + h.get("/smuggled2", "evil.test"))
out["d"] = [c.answer().status, h.outcome(lambda: c.answer().status)]
""")
    for how in ("tls", "clear"):
        o = r.out[how]
        assert (o["a"], o["b"], o["c"]) == ("no upgrade", "/after", [421, "authority_mismatch"]), o
        assert o["d"][0] in (200, 400) and o["d"][1] != 200, o
    assert b"smuggled" not in world.received(mark)


@pytest.mark.core
def test_half_close_and_early_answers(sm, world, mark):
    r = both(sm, """
c = go()
c.send(h.get("/late", "origin.test"))
c.shut()
out["late"] = c.answer().body.decode()
c = go()
c.send(b"POST /early HTTP/1.1\\r\\nHost: origin.test\\r\\nContent-Length: 100000000\\r\\n\\r\\n" + b"x" * 1000)
out["early"] = c.answer().status
c = go()
c.send(b"POST /duplex HTTP/1.1\\r\\nHost: origin.test\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
out["head"] = c.until(b"\\r\\n\\r\\n").decode().split("\\r\\n")[0]
for i in range(5):                           # each piece is back before the next one is sent
    c.send(b"4\\r\\nab%02d\\r\\n" % i)
    assert c.until(b"\\r\\n") == b"4" and c.until(b"\\r\\n") == b"ab%02d" % i
c.send(b"0\\r\\n\\r\\n")
out["tail"] = c.until(b"\\r\\n\\r\\n").decode()
""")
    assert r.out["tls"]["late"] == "saw the end as notify" and r.out["clear"]["late"] == "saw the end as fin", r.out
    for how in ("tls", "clear"):
        o = r.out[how]
        assert (o["early"], o["head"], o["tail"]) == (413, "HTTP/1.1 200 OK", "0"), o


@pytest.mark.core
def test_a_cut_answer_is_not_made_whole(sm, world, mark):
    r = both(sm, """
def one(path):
    c = go()
    c.send(h.get(path, "origin.test"))
    return [h.outcome(lambda: c.answer().status), c.end]
for p in ("/reset/1000", "/truncated", "/truncated/chunked", "/reset/1000/open"):
    out[p] = one(p)
""")
    for how in ("tls", "clear"):
        status, end = r.out[how].pop("/reset/1000/open")
        assert end in ("cut", "ECONNRESET"), f"only the end says that something is missing: {r.out}"
        for p, (status, end) in r.out[how].items():
            assert str(status).startswith("EOF"), f"{how} {p} {r.out}"


@pytest.mark.core
def test_events_and_drips_are_passed_on_at_once(sm, world, mark):
    r = both(sm, """
def lag(path):
    c = go()
    c.send(h.get(path, "origin.test"))
    c.until(b"\\r\\n\\r\\n")
    took = []
    for _ in range(60):
        line = c.until(b"data: ")
        sent = float(c.until(b"\\n"))
        took.append((time.monotonic() - sent) * 1000)
    took.sort()
    return took[len(took) // 2], took[-1]
out["sse"] = lag("/sse/60/5")
c = go()
c.send(h.get("/drip/10/30", "origin.test"))
c.until(b"\\r\\n\\r\\n")
t, gaps = time.monotonic(), []
for _ in range(10):
    c.take(1)
    gaps.append(time.monotonic() - t); t = time.monotonic()
out["drip"] = sorted(gaps)[5]
""")
    for how in ("tls", "clear"):
        median, worst = r.out[how]["sse"]
        assert median < (50 if SANITIZED else 10), r.out
        assert r.out[how]["drip"] > 0.015, "bytes come as they are sent, not in one lump"


@pytest.mark.core
def test_alt_svc_h3_is_removed_inside_tls(sm, world, mark):
    r = both(sm, """
r = go().ask(h.get("/altsvc", "origin.test"))
out["alt"], out["between"], out["body"] = r.all("alt-svc"), r.get("x-between"), r.body.decode()
""")
    for how in ("tls", "clear"):
        assert r.out[how]["between"] == "kept" and r.out[how]["body"] == "alt"
    assert not [x for x in r.out["tls"]["alt"] if "h3" in x], r.out
    assert r.out["tls"]["alt"] == ['h2="alias.test:443"'] or r.out["tls"]["alt"] == [], r.out


BAD_RESPONSES = ["two-lengths", "length-and-chunked", "bare-lf", "folded", "control", "space-colon", "version", "nothing", "large", "unasked-101"]


@pytest.mark.core
def test_responses_that_break_a_rule_do_not_pass(sm, world, mark):
    r = both(sm, f"""
for k in {BAD_RESPONSES!r}:
    c = go()
    r = c.ask(h.get("/bad/" + k, "origin.test"))
    out[k] = [r.status, r.get("content-type"), r.body.decode("latin-1")[:300]]
c = go()
out["chunk-size"] = [h.outcome(lambda: c.ask(h.get("/bad/chunk-size", "origin.test")).status), c.end]
c = go()
out["extra"] = c.ask(h.get("/extra", "origin.test")).body.decode()
out["after"] = c.rest().decode("latin-1")
""")
    for how in ("tls", "clear"):
        o = r.out[how]
        for k in BAD_RESPONSES:
            assert o[k][0] == 502 and o[k][1] == "application/json" and '"reason"' in o[k][2], (how, k, o[k])
        assert str(o["chunk-size"][0]).startswith("EOF") and o["chunk-size"][1] in ("cut", "ECONNRESET"), o
        assert o["extra"] == "one" and "SMUGGLED" not in o["after"], "a response that nobody asked for"
    reasons = {x["reason"] for x in r.events("egress_mitm_upstream_error")}
    assert len(reasons) > 5, r.text()


@pytest.mark.core
def test_connect_and_mixed_h2c_inside_are_refused(sm, world, mark):
    r = both(sm, """
def one(raw):
    c = go()
    c.send(raw)
    r = h.outcome(lambda: c.answer())
    return [r.status, r.json()["reason"], h.outcome(lambda: c.rest().decode()), c.end] if isinstance(r, h.Response) else r
port = 443 if tls else 80
first = h.get("/first", "origin.test")
def second(raw):
    c = go()
    assert c.ask(first).status == 200
    r = c.ask(raw)
    return [r.status, r.json()["reason"], c.rest().decode(), c.end]
connect = b"CONNECT origin.test:%d HTTP/1.1\\r\\nHost: origin.test:%d\\r\\n\\r\\nGET /smuggled HTTP/1.1\\r\\nHost: origin.test\\r\\n\\r\\n" % (port, port)
h2c = h.get("/smuggled", "origin.test", "Connection: Upgrade, HTTP2-Settings\\r\\nUpgrade: h2c, websocket\\r\\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\\r\\n")
out["connect"], out["h2c"] = second(connect), second(h2c)
out["connect1"], out["h2c1"] = one(connect), one(h2c)
""")
    for how in ("tls", "clear"):
        o = r.out[how]
        for k, why in (("connect", "http_connect"), ("h2c", "http_upgrade"), ("connect1", "http_connect"), ("h2c1", "http_upgrade")):
            assert o[k][:3] == [400, why, ""] and o[k][3] in ("notify", "fin"), (how, k, o)
    assert b"smuggled" not in world.received(mark) and b"CONNECT" not in world.received(mark)


@pytest.mark.core
def test_an_offer_of_h2c_ends_at_us_and_nothing_else_changes(sm, world, mark):
    """curl and Java offer it by default; the origin must not see it, because what it would then speak is not judged."""
    r = both(sm, """
c = go()
c.send(b"POST /one HTTP/1.1\\r\\nHoSt: origin.test\\r\\nX-a:  two  spaces \\r\\nConnection: Upgrade, X-Hop ,HTTP2-Settings\\r\\nUpgrade: h2c\\r\\n"
       b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\\r\\nX-Hop: 1\\r\\nContent-Length: 2\\r\\n\\r\\nhi")
a = c.answer()
b = c.ask(h.get("/two", "origin.test", "connection:upgrade\\r\\nUPGRADE: H2C\\r\\n"))
out["r"] = [a.status, a.json()["path"], b.status, b.json()["path"]]
c.close()
""")
    world.origin_closed(mark, 2)
    for how, srv in (("tls", "tls"), ("clear", "http")):
        assert r.out[how]["r"] == [200, "/one", 200, "/two"], r.out
        got = world.received(mark, srv)
        head, rest = got.split(b"\r\n\r\nhi", 1)
        assert head == b"POST /one HTTP/1.1\r\nHoSt: origin.test\r\nX-a:  two  spaces \r\nConnection: X-Hop \r\nX-Hop: 1\r\nContent-Length: 2", head
        assert rest.startswith(b"GET /two HTTP/1.1\r\nHost: origin.test\r\n") and b"upgrade" not in rest.lower(), rest


@pytest.mark.core
def test_denied_hosts_in_clear_get_a_page(sm, world, mark):
    r = sm.guest(f"""
import httplib as h
c = h.connect("{w.WEB['evil.test']}", 80)
r = c.ask(h.get("/x?secret=1", "evil.test"))
out["r"] = [r.status, r.get("content-type"), r.json(), c.rest().decode(), c.end]
c = h.connect("{w.WEB['evil.test']}", 80)
r = c.ask(h.get("/x", "evil.test", method="HEAD"), "HEAD")
out["head"] = [r.status, int(r.get("content-length")), c.rest().decode(), c.end]
c = h.connect("{w.WEB['evil.test']}", 80)
r = c.ask(b"GET / HTTP/1.1\\r\\nHost: evil.test\\r\\nHost: origin.test\\r\\n\\r\\n")
out["bad"] = [r.status, r.json()["reason"]]
""", *STRICT, name="pages")
    status, ctype, page, rest, end = r.out["r"]
    assert (status, ctype, rest, end) == (403, "application/json", "", "fin"), r.out
    assert set(page) == {"error", "reason", "host", "workspace", "hint"}, page
    row = r.some("egress_deny", host="evil.test")
    assert (page["error"], page["reason"], page["host"], page["workspace"]) == ("forbidden", row["reason"], "evil.test", "pages")
    assert row["reason"] == "unlisted_name" and "--egress-allow" in page["hint"], page
    assert r.out["head"][0] == 403 and r.out["head"][1] > 0 and r.out["head"][2:] == ["", "fin"], r.out
    assert r.out["bad"] == [400, "http_host_repeated"], r.out
    assert not world.wire(mark)


@pytest.mark.core
@pytest.mark.parametrize("flag", [(), ("--egress-log-query",)], ids=["default", "log-query"])
def test_requests_and_responses_on_record(sm, world, mark, flag):
    r = both(sm, """
c = go()
c.send(b"POST /path/a?token=s3cret HTTP/1.1\\r\\nHost: origin.test\\r\\nContent-Length: 3\\r\\n\\r\\nabc")
out["n"] = len(c.answer().body)
c.ask(h.get("/status/404?q", "origin.test"))
c.close()
""", *STRICT, *flag)
    for how, port in (("tls", 443), ("clear", 80)):
        allow = r.one("egress_allow", port=port)
        assert allow["mitm"] is (how == "tls")
        q = r.events("egress_http_request", flow=allow["flow"])
        a = r.events("egress_http_response", flow=allow["flow"])
        assert [(x["req"], x["method"], x["authority"], x["path"], x["protocol"]) for x in q] == [
            (1, "POST", "origin.test", "/path/a", "HTTP/1.1"), (2, "GET", "origin.test", "/status/404", "HTTP/1.1")], r.text()
        assert [x.get("query") for x in q] == (["token=s3cret", "q"] if flag else [None, None])
        assert [(x["req"], x["status"], x["bytes_up"], x["bytes_down"], x["outcome"]) for x in a] == [
            (1, 200, 3, r.out[how]["n"], "done"), (2, 404, 0, 10, "done")], r.text()
        assert all(x["ms"] >= 0 for x in a) and q[0]["seq"] < a[0]["seq"] < q[1]["seq"] < a[1]["seq"]
        close = r.one("egress_close", flow=allow["flow"])
        assert close["bytes_up"] > 100 and close["bytes_down"] > 100
    if not flag:
        assert "s3cret" not in r.text()


@pytest.mark.core
def test_every_request_has_its_end_on_record(sm, world, mark):
    """Also when the guest resets the connection, or the origin does, or the workspace ends in the middle."""
    r = both(sm, """
def rst(c):
    c.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()
c = go(); c.send(h.get("/drip/1000/50", "origin.test")); c.until(b"\\r\\n\\r\\n"); c.take(1); rst(c)
c = go(); c.ask(h.get("/wsraw", "origin.test", "Upgrade: websocket\\r\\nConnection: Upgrade\\r\\n")); c.take(5); rst(c)
c = go(); h.outcome(lambda: c.ask(h.get("/reset/10", "origin.test")))
global last
last = go(); last.send(h.get("/drip/1000/50", "origin.test")); last.until(b"\\r\\n\\r\\n"); last.take(1)
out["x"] = 1
""")
    asked = [(x["flow"], x["req"]) for x in r.events("egress_http_request")]
    told = {(x["flow"], x["req"]): x["outcome"] for x in r.events("egress_http_response")}
    assert len(asked) == 8 and set(told) == set(asked), r.text()
    by_path = {(x["flow"], x["req"]): x["path"] for x in r.events("egress_http_request")}
    assert {told[k] for k, p in by_path.items() if p != "/wsraw"} == {"reset"} and {told[k] for k, p in by_path.items() if p == "/wsraw"} == {"upgraded"}, r.text()


def test_a_request_is_on_record_before_the_origin_sees_it(sm, world, mark):
    g = sm.start_guest("""
import httplib as h
c = h.tls("origin.test", alpn=["http/1.1"])
c.send(b"POST /late-body HTTP/1.1\\r\\nHost: origin.test\\r\\nContent-Length: 5\\r\\n\\r\\n")
say("sent"); sys.stdin.readline()
c.send(b"hello")
out["s"] = c.answer().status
""", *STRICT)
    assert g.line() == "sent"
    w.wait_for("the head at the origin", lambda: world.since(mark, "origin", ev="head"))
    assert [x["path"] for x in g.audit() if x["event"] == "egress_http_request"] == ["/late-body"]
    assert not [x for x in g.audit() if x["event"] == "egress_http_response"]
    g.tell("")
    assert g.end().out["s"] == 200


@pytest.mark.core
def test_a_slow_reader_slows_the_origin(sm, world, mark):
    """What is between holds little: the origin is stopped while the guest does not read."""
    g = sm.start_guest(GO + """
tls = True
c = go()
c.send(h.get("/bytes/%d" % (64 << 20), "origin.test", "Connection: close\\r\\n"))
c.until(b"\\r\\n\\r\\n")
say("head"); sys.stdin.readline()
out["n"] = len(c.rest())
""", *STRICT)
    assert g.line() == "head"
    w.wait_for("the origin to be held back", lambda: world.since(mark, "origin", ev="stalled"), 30)
    out = world.since(mark, "origin", ev="stalled")[-1]["out"]
    assert out < 32 << 20, f"{out} bytes are on their way to a guest that reads nothing"
    g.tell("")
    assert g.end(60).out["n"] == 64 << 20


@pytest.mark.core
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_git_clone_and_push_over_smart_http(sm, world, tmp_path, version):
    import httplib
    name = f"{sm.datapath}{version[-1]}"
    path = httplib.new_repo(world, name, 3 << 20)
    os.chmod(tmp_path, 0o777)
    r = sm.run("--egress", "strict", "--egress-allow", "git.test", cmd=["bash", "-ec", f"""
cd {tmp_path}; export HOME=$PWD GIT_TERMINAL_PROMPT=0
git config --global http.version {version}
git clone -q https://git.test/{name}.git work; cd work
sha256sum <data
head -c 2000000 /dev/urandom >more; git add more
git -c user.name=g -c user.email=g@g.test commit -qm second
git push -q origin HEAD:main
git rev-parse HEAD; sha256sum <more
"""], timeout=120)
    assert r.rc == 0, r
    lines = r.stdout.decode().split("\n")
    assert lines[0].split()[0] == hashlib.sha256(w.pattern(3 << 20)).hexdigest()
    import subprocess
    assert subprocess.check_output(["git", "-C", path, "rev-parse", "main"]).decode().strip() == lines[1]
    more = subprocess.check_output(["git", "-C", path, "show", "main:more"])
    assert hashlib.sha256(more).hexdigest() == lines[2].split()[0]
    assert {x["protocol"] for x in r.events("egress_http_request")} == {version}, r.text()


@pytest.mark.slow
def test_clone_of_100_mb_is_byte_identical(sm, world, tmp_path):
    import subprocess

    import httplib
    path = httplib.new_repo(world, "large", 8)
    os.chmod(tmp_path, 0o777)
    src = tmp_path / "src"
    subprocess.run(["git", "clone", "-q", path, src], check=True)
    sums = {}
    for i in range(10):
        data = os.urandom(10 << 20)
        (src / f"blob{i}").write_bytes(data)
        sums[f"blob{i}"] = hashlib.sha256(data).hexdigest()
    subprocess.run("git add . && git -c user.name=g -c user.email=g@g.test commit -qm large && git push -q origin HEAD:main", shell=True, cwd=src, check=True)
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=src).decode().strip()
    r = sm.run("--egress", "strict", "--egress-allow", "git.test", cmd=["bash", "-ec", f"""
cd {tmp_path}; export HOME=$PWD
git clone -q https://git.test/large.git clone; cd clone
git rev-parse HEAD; git fsck --full 2>/dev/null; sha256sum blob*
"""], timeout=180)
    assert r.rc == 0, r
    lines = r.stdout.decode().split("\n")
    assert lines[0] == head
    assert {x.split()[1]: x.split()[0] for x in lines[1:] if x} == sums


@pytest.mark.core
def test_pycurl_with_gnutls(sm, world, mark):
    code = """
import io, json, os, pycurl
assert "GnuTLS" in pycurl.version, pycurl.version
for host in ("origin.test", "h2.test"):
    b = io.BytesIO()
    c = pycurl.Curl()
    c.setopt(c.URL, f"https://{host}/echo"); c.setopt(c.WRITEDATA, b); c.setopt(c.CAINFO, os.environ["CURL_CA_BUNDLE"])
    c.setopt(c.HTTP_VERSION, c.CURL_HTTP_VERSION_2TLS)
    c.perform()
    print(host, c.getinfo(c.RESPONSE_CODE), c.getinfo(c.INFO_HTTP_VERSION), json.loads(b.getvalue())["proto"])
"""
    r = sm.run(*STRICT, cmd=["/usr/bin/python3", "-c", code])
    assert r.rc == 0, r
    assert r.stdout.decode().split("\n")[:2] == ["origin.test 200 2 h1", "h2.test 200 3 h2"], r
    assert [x["mitm"] for x in r.events("egress_allow")] == [True, True]


@pytest.mark.core
def test_pages_name_the_reason_in_the_audits_words(sm, world, mark):
    """Inside TLS too: the page of a broken request has the word that the record has."""
    r = sm.guest("""
import httplib as h
c = h.tls("origin.test", alpn=["http/1.1"])
r = c.ask(b"GET / HTTP/1.1\\r\\nHost : origin.test\\r\\n\\r\\n")
out["r"] = [r.status, r.get("content-type"), r.json(), c.rest().decode(), c.end]
""", *STRICT, name="words")
    status, ctype, page, rest, end = r.out["r"]
    assert (status, ctype, rest, end) == (400, "application/json", "", "notify"), r.out
    row = r.one("egress_deny")
    assert page["reason"] == row["reason"] == "http_space_before_colon" and page["workspace"] == "words" and page["host"] == "origin.test", (page, row)
    assert json.dumps(page) and world.received(mark) == b""
