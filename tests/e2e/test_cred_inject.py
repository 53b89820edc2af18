# SPDX-License-Identifier: BSD-3-Clause
"""Where a credential goes and where it never does; judged by the bytes that the origin received (spec section 6)."""
import json

import conftest
import credlib
import pytest
import worldlib as w
from credlib import GO, STRICT, arrived, canary, static, swap_file, swapped

KEY = canary()
ENV = {"API_KEY": KEY}


@pytest.mark.core
def test_a_static_key_from_a_variable(sm, world, mark, tmp_path):
    """It reaches the origin in h1 and h2, the guest never has it, and each has its line; a request to another host has none."""
    flags = swap_file(tmp_path, api=static("origin.test", "h2.test"))
    r = sm.guest(GO + """
out["got"] = [ask1("/one/a", extra="Authorization: mine\\r\\n").body.decode(), ask1("/one/b").body.decode(),
              ask2("/two/a", extra=[("authorization", "mine")]).body.decode(), ask2("/two/b").body.decode()]
ask1("/other", "alias.test", "Authorization: mine\\r\\n")
out["env"] = dict(os.environ)
""", *STRICT, *flags, env=ENV)
    for path in ("/one/a", "/one/b", "/two/a", "/two/b"):
        assert arrived(world, mark, path) == [f"Bearer {KEY}"], path
    assert arrived(world, mark, "/other") == ["mine"]
    assert KEY not in json.dumps(r.out) and "API_KEY" not in r.out["env"]
    assert KEY not in r.text() and KEY.encode() not in r.stderr
    rows = swapped(r, "api", 4)
    assert {(x["type"], x["header"]) for x in rows} == {("static", "Authorization")}
    other = r.one("egress_http_request", path="/other")
    r.none("egress_swap", flow=other["flow"])
    r.none("egress_swap_error")
    r.none("egress_swap_fetch")
    r.none("egress_deny")


@pytest.mark.core
def test_every_copy_of_the_guest_is_replaced(sm, world, mark, tmp_path):
    """Repeated, in another case, named in Connection (which would have a relay drop it); the other lines stay as they were."""
    flags = swap_file(tmp_path, api=static("origin.test", "h2.test", header="X-Api-Key", format="k={key}"))
    raw = (b"GET /copies HTTP/1.1\r\nX-First: 1\r\nx-api-key: mine-1\r\nHost: origin.test\r\nX-API-KEY:mine-2\r\nConnection: keep-alive, X-Api-Key, X-Hop\r\n"
           b"X-Hop: h\r\nX-Api-Key:\r\nX-Api-Keys: kept\r\nX-Last:  two  spaces \r\n\r\n")
    sm.guest(GO + f"""
c = h1(); c.ask({raw!r})
c.ask(h.get("/after", "origin.test"))
ask2("/copies2", extra=[("x-api-key", "mine-1"), ("x-b", "kept"), ("x-api-key", "mine-2"), ("x-api-keys", "kept")])
""", *STRICT, *flags, env=ENV)
    row, = world.requests(mark, path="/copies")
    assert credlib.values(row, "x-api-key") == [f"k={KEY}"]
    named = [x.strip().lower() for v in credlib.values(row, "connection") for x in v.split(",")]
    assert "x-api-key" not in named and "x-hop" in named and "keep-alive" in named
    rest = [x for x in row["headers"] if x[0].lower() not in ("x-api-key", "connection", "accept-encoding")]
    assert rest == [["X-First", " 1"], ["Host", " origin.test"], ["X-Hop", " h"], ["X-Api-Keys", " kept"], ["X-Last", "  two  spaces "]]
    assert arrived(world, mark, "/after", "x-api-key") == [f"k={KEY}"]
    row, = world.requests(mark, path="/copies2")
    assert credlib.values(row, "x-api-key") == [f"k={KEY}"] and ["x-b", "kept"] in row["headers"] and ["x-api-keys", "kept"] in row["headers"]
    assert b"mine" not in world.received(mark)


def test_never_in_a_trailer(sm, world, mark, tmp_path):
    """A trailer of that name would add to what was replaced: the request is refused. Another trailer passes, and gets nothing."""
    flags = swap_file(tmp_path, api=static("origin.test", "h2.test"))
    head = "POST /{} HTTP/1.1\\r\\nHost: origin.test\\r\\nTransfer-Encoding: chunked\\r\\nTrailer: {}\\r\\n\\r\\n3\\r\\nabc\\r\\n0\\r\\n{}: mine\\r\\n\\r\\n"
    r = sm.guest(GO + f"""
def one(path, name):
    c = h1(); c.send("{head}".format(path, name, name).encode())
    return h.outcome(lambda: c.answer("POST").status)
out["h1"] = [one("bad", "Authorization"), one("good", "X-Sum")]
def two(path, name):
    c = h2(); sid = c.request("h2.test", path, method="POST", end=False)
    c.data(sid, b"abc"); c.trailers(sid, [(name, "mine")])
    s = c.wait(sid)
    return [s.status, s.reset]
out["h2"] = [two("/bad2", "authorization"), two("/good2", "x-sum")]
""", *STRICT, *flags, env=ENV)
    assert r.out["h1"][1] == 200 and r.out["h1"][0] != 200, r.out
    assert r.out["h2"][1] == [200, None] and r.out["h2"][0][0] != 200, r.out
    for path in ("/good", "/good2"):
        row, = world.requests(mark, path=path)
        assert credlib.values(row, "authorization") == [f"Bearer {KEY}"] and [k.lower() for k, _ in row["trailers"]] == ["x-sum"]
    assert not world.requests(mark, path="/bad") and not world.requests(mark, path="/bad2")
    assert b"Authorization: mine" not in world.received(mark)


def test_not_on_cleartext_passthrough_or_to_anybody_else(sm, world, mark, tmp_path):
    flags = swap_file(tmp_path, api=static("origin.test", "h2.test"))
    r = sm.guest(GO + """
mine = "Authorization: mine\\r\\n"
out["clear"] = h.connect("origin.test", 80).ask(h.get("/clear", "origin.test", mine)).status
c = h2lib.clear()
out["clear2"] = c.ask("h2.test", "/clear2", extra=[("authorization", "mine")], scheme="http").status
out["pass"] = h.tls("h2.test", 8443, alpn=["http/1.1"], cafile=os.environ["WORLD_CA"]).ask(h.get("/pass", "h2.test:8443", mine)).status
c = h1()
out["redirect"] = c.ask(h.get("/to/alias.test", "origin.test", mine)).get("location")
out["followed"] = ask1("/echo", "alias.test", mine).json()["headers"]
c = h1(); out["authority"] = c.ask(h.get("/authority", "alias.test", mine)).status
c = h2(); out["authority2"] = c.ask("origin.test", "/authority2", extra=[("authorization", "mine")]).status
c = h1("alias.test"); out["sni"] = c.ask(h.get("/sni", "origin.test", mine)).status
""", *STRICT, "--egress-passthrough", "h2.test:8443", *flags, env=ENV)
    assert [r.out[k] for k in ("clear", "clear2", "pass")] == [200] * 3
    for path in ("/clear", "/clear2", "/pass", "/echo"):
        assert arrived(world, mark, path) == ["mine"], path
    assert r.out["redirect"] == "https://alias.test/echo" and [r.out[k] for k in ("authority", "authority2", "sni")] == [421] * 3
    for path in ("/authority", "/authority2", "/sni"):
        assert not world.requests(mark, path=path)
    assert len(r.events("egress_deny", reason="authority_mismatch")) == 3
    swapped(r, "api", 1)  # the request that was redirected
    assert KEY not in json.dumps(r.out)


def test_no_sni_and_a_verified_pin(sm, world, mark, tmp_path):
    """Without SNI the certificate is verified for the name that the address is pinned for: that name gets its credential, and no other."""
    flags = swap_file(tmp_path, api=static("h2.test"))
    r = sm.guest(GO + """
import socket
addr = socket.gethostbyname("h2.test")
c = h.tls("h2.test", addr=addr, sni=None, alpn=["http/1.1"]); out["pin"] = c.ask(h.get("/pin", "h2.test")).status
c = h.tls("h2.test", addr=addr, sni=None, alpn=["http/1.1"]); out["addr"] = c.ask(h.get("/addr", addr)).status
""", *STRICT, *flags, env=ENV)
    assert r.out == {"pin": 200, "addr": 200}
    assert arrived(world, mark, "/pin") == [f"Bearer {KEY}"] and arrived(world, mark, "/addr") == []


def test_trace_is_refused(sm, world, mark, tmp_path):
    """A server says back what TRACE brought (RFC 9110 9.3.8). Where there is no credential it is a method like others."""
    flags = swap_file(tmp_path, api=static("origin.test", "h2.test"))
    r = sm.guest(GO + """
a = h1().ask(h.get("/trace", "origin.test", method="TRACE")); out["h1"] = [a.status, a.json()["reason"]]
c = h2(); s = c.ask("h2.test", "/trace2", method="TRACE"); out["h2"] = [s.status, s.json()["reason"]]
out["other"] = h1("alias.test").ask(h.get("/trace3", "alias.test", method="TRACE")).status
""", *STRICT, *flags, env=ENV)
    assert r.out == {"h1": [403, "trace_with_credential"], "h2": [403, "trace_with_credential"], "other": 200}
    assert not world.requests(mark, path="/trace") and not world.requests(mark, path="/trace2")
    rows = r.events("egress_deny", reason="trace_with_credential")
    assert len(rows) == 2 and all(x["req"] >= 1 for x in rows)


# ---- placeholders ----

FAKE = "sk-0000-placeholder-0000"


def test_placeholder(sm, world, mark, tmp_path):
    """The key stands where the placeholder stood in that header, twice if it was there twice; a header without it is replaced whole."""
    flags = swap_file(tmp_path, api=static("origin.test", "h2.test", placeholder=FAKE))
    r = sm.guest(GO + f"""
ask1("/p/in", extra="Authorization: Custom id=7,key={FAKE};v=1\\r\\n")
ask1("/p/twice", extra="Authorization: {FAKE}/{FAKE}\\r\\n")
ask1("/p/second", extra="Authorization: other\\r\\nauthorization: Token {FAKE}\\r\\n")
ask1("/p/without", extra="Authorization: other\\r\\n")
ask1("/p/none")
ask2("/p/h2", extra=[("authorization", "Token {FAKE}")])
""", *STRICT, *flags, env=ENV)
    want = {"/p/in": f"Custom id=7,key={KEY};v=1", "/p/twice": f"{KEY}/{KEY}", "/p/second": f"Token {KEY}", "/p/without": f"Bearer {KEY}",
            "/p/none": f"Bearer {KEY}", "/p/h2": f"Token {KEY}"}
    for path, value in want.items():
        assert arrived(world, mark, path) == [value], path
    assert FAKE.encode() not in world.received(mark)
    swapped(r, "api", 6)
    r.none("egress_deny")


def test_placeholder_elsewhere(sm, world, mark, tmp_path):
    """To another host, in cleartext, in a path or a query, beside the right one: refused, recorded, and nothing of it goes out. The connection of a
    neighbour lives on."""
    flags = swap_file(tmp_path, api=static("origin.test", placeholder=FAKE), two=static("h2.test", ref="env:OTHER", placeholder="sk-1111-placeholder"))
    r = sm.guest(GO + f"""
def said(x): return [x.status, x.json()["reason"]]
fake = "Authorization: Bearer {FAKE}\\r\\n"
out["host"] = said(ask1("/e/host", "alias.test", fake))
out["any"] = said(ask1("/e/any", "alias.test", "X-Debug: a{FAKE}b\\r\\n"))
out["query"] = said(ask1("/e/query?k={FAKE}", "alias.test"))
out["path"] = said(ask1("/e/{FAKE}", "alias.test"))
out["clear"] = said(h.connect("origin.test", 80).ask(h.get("/e/clear", "origin.test", fake)))
out["both"] = said(ask1("/e/both", extra="Authorization: {FAKE} sk-1111-placeholder\\r\\n"))
c = h2()
out["two"] = said(c.ask("h2.test", "/e/two", extra=[("authorization", "Bearer {FAKE}")]))
out["after"] = c.ask("h2.test", "/e/after", extra=[("authorization", "Bearer sk-1111-placeholder")]).status
""", *STRICT, *flags, env={**ENV, "OTHER": "another-key-0123456789"})
    refused = ("host", "any", "query", "path", "clear", "both", "two")
    assert {k: r.out[k] for k in refused} == {k: [403, "placeholder_elsewhere"] for k in refused}, r.out
    assert r.out["after"] == 200 and arrived(world, mark, "/e/after") == ["Bearer another-key-0123456789"]
    assert FAKE.encode() not in world.received(mark) and KEY.encode() not in world.received(mark)
    rows = r.events("egress_deny", reason="placeholder_elsewhere")
    assert sum(x.get("count", 1) for x in rows) == len(refused) and all(x.get("status", 403) == 403 for x in rows), rows  # repeats are counted
    swapped(r, "two", 1)
    r.none("egress_swap", name="api")


# ---- providers ----

@pytest.mark.core
def test_anthropic_as_the_issue_has_it(sm, world, mark):
    """slirp-med run --egress strict --cred-swap anthropic: the flag lists the host."""
    r = sm.guest("""
import h2lib
c = h2lib.tls("api.anthropic.com")
sid = c.request("api.anthropic.com", "/v1/messages", method="POST", end=False, extra=[("anthropic-version", "2023-06-01"), ("x-api-key", "dummy")])
c.data(sid, b'{"model": "m", "messages": []}', end=True)
s = c.wait(sid)
out["got"], out["status"] = s.body.decode(), s.status
out["env"] = dict(os.environ)
""", "--egress", "strict", "--cred-swap", "anthropic", env={"ANTHROPIC_API_KEY": KEY})
    assert r.out["status"] == 200, r.out
    assert arrived(world, mark, "/v1/messages", "x-api-key") == [KEY] and arrived(world, mark, "/v1/messages", "authorization") == []
    assert KEY not in json.dumps(r.out) and "ANTHROPIC_API_KEY" not in r.out["env"]
    assert swapped(r, "anthropic")[0]["header"] == "x-api-key"


BODIES = {"api.anthropic.com": {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]},
          "generativelanguage.googleapis.com": {"contents": [{"parts": [{"text": "hi"}]}]}}
PATHS = {"generativelanguage.googleapis.com": "/v1beta/models/gemini-test:generateContent"}
NAMES = {"anthropic": "api.anthropic.com", "openai": "api.openai.com", "gemini": "generativelanguage.googleapis.com", "groq": "api.groq.com",
         "openrouter": "openrouter.ai", "deepseek": "api.deepseek.com"}


@pytest.mark.parametrize("provider", NAMES)
def test_a_client_shaped_like_each_providers_sdk(sm, world, mark, provider):
    """Right host, right header, right format; whole answers and, over server-sent events, pieces as they come."""
    host = NAMES[provider]
    _, path, header, scheme = w.PROVIDERS[host]
    path = PATHS.get(host, path)
    doc = BODIES.get(host, {"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    extra = {"anthropic-version": "2023-06-01"} if provider == "anthropic" else {}
    r = sm.guest(f"""
import time, urllib.request
def ask(doc):
    head = {{"Content-Type": "application/json", "User-Agent": "sdk/1.0", "{header}": "{scheme}dummy-key-of-the-sdk", **{extra!r}}}
    return urllib.request.urlopen(urllib.request.Request("https://{host}{path}", json.dumps(doc).encode(), head), timeout=20)
out["whole"] = ask({doc!r}).read().decode()
late = []
text = ""
if {provider != "gemini"}:
    for line in ask({{**{doc!r}, "stream": True}}):
        if line.startswith(b"data: {{"):
            d = json.loads(line[6:])
            if "t" in d:
                late.append(time.monotonic() - d["t"])
                text += d["delta"]["text"] if "delta" in d else d["choices"][0]["delta"]["content"]
out["text"], out["late"] = text, late
""", "--egress", "strict", "--cred-swap", f"{provider}=env:SOME_KEY", env={"SOME_KEY": KEY})
    rows = world.requests(mark, path=path)
    assert len(rows) == (1 if provider == "gemini" else 2)
    for row in rows:
        assert row["host"] == host and row["sni"] == host and row["local"] == w.PROVIDERS[host][0]
        assert credlib.values(row, header) == [scheme + KEY]
        assert json.loads(row["text"])[list(doc)[0]] == doc[list(doc)[0]]
    assert f"hello from {host}" in r.out["whole"]
    if provider != "gemini":
        assert r.out["text"] == f"hello from {host}" and len(r.out["late"]) == 3 and max(r.out["late"]) < 1.0, r.out
    swapped(r, provider, len(rows))
    assert KEY not in json.dumps(r.out) and KEY not in r.text()
