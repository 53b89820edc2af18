# SPDX-License-Identifier: BSD-3-Clause
"""An origin that says 401 to a token: one new token, and the request once more, without the guest seeing anything of it.

The token endpoint and the origin that refuses (/unauth/KEY/N: the first N requests) are tests/world/credd.py. At most one token a minute is
fetched because of 401, so every scenario has an entry of its own.
"""
import json
import os
import uuid

import pytest
import worldlib as w
from credlib import GO, STRICT, canary, jwt, oauth, signing_key, static, swap_file, values

ENV = {"CLIENT_ID": canary("id"), "CLIENT_SECRET": canary("secret")}


def key():
    return "k" + uuid.uuid4().hex[:10]


def url(how, k, *more):
    return "/".join(["https://id.test/token", how, k, *more])


def bearer(k, n):
    return f"Bearer {w.token(k, n)}"


def sent(world, mark, path):
    """Of each request for this path that reached the origin: the values of Authorization, and the body."""
    return [(values(q, "authorization"), q.get("text", "")) for q in world.requests(mark, path=path)]


def lines(r, path):
    """What the audit has of the one request for this path, in its order: (event, replay, status, outcome)."""
    one = r.one("egress_http_request", path=path)
    rows = [x for x in r.audit if x.get("flow") == one["flow"] and x.get("req") == one["req"]]
    return [(x["event"], x.get("replay"), x.get("status"), x.get("outcome")) for x in rows]


REPLAYED = [("egress_http_request", None, None, None), ("egress_swap", None, None, None), ("egress_swap", True, None, None),
            ("egress_http_response", None, 200, "done")]


@pytest.mark.core
def test_sent_again_with_a_new_token(sm, world, mark, tmp_path):
    """With no body, one of a known length, a chunked one; over both protocols. The guest gets the second answer only, the audit has all of it."""
    names = ["a1", "b1", "c1", "a2", "b2", "c2"]
    keys = {n: key() for n in names}
    flags = swap_file(tmp_path, **{n: oauth(f"{n}.swap.test", url=url("ok", keys[n])) for n in names})
    r = sm.guest(GO + f"""
keys = {keys!r}
def one(n, head, body, method="POST"):
    c = h1(n + ".swap.test")
    a = c.ask(f"{{method}} /unauth/{{keys[n]}}/1 HTTP/1.1\\r\\nHost: {{n}}.swap.test\\r\\nAuthorization: mine\\r\\n{{head}}\\r\\n".encode() + body)
    out[n] = [a.status, a.json()["n"], c.ask(h.get("/after/" + n, n + ".swap.test")).status]
def two(n, *pieces, method="POST"):
    c = h2(n + ".swap.test")
    s = c.request(n + ".swap.test", f"/unauth/{{keys[n]}}/1", method=method, extra=[("authorization", "mine")], end=not pieces)
    for i, p in enumerate(pieces):
        c.data(s, p, end=i + 1 == len(pieces))
    a = c.wait(s)
    out[n] = [a.status, a.json()["n"], c.ask(n + ".swap.test", "/after/" + n).status]
one("a1", "", b"", method="GET")
one("b1", "Content-Length: 60000\\r\\n", b"x" * 60000)
one("c1", "Transfer-Encoding: chunked\\r\\n", b"3\\r\\nabc\\r\\n4;e=1\\r\\ndefg\\r\\n0\\r\\n\\r\\n")
two("a2", method="GET")
two("b2", b"x" * 60000)
two("c2", b"abc", b"", b"defg")
""", *STRICT, *flags, env=ENV)
    assert r.out == {n: [200, 2, 200] for n in names}, (r.out, r.text())
    bodies = {"a": "", "b": "x" * 60000, "c": "abcdefg"}
    for n in names:
        k, path = keys[n], f"/unauth/{keys[n]}/1"
        assert sent(world, mark, path) == [([bearer(k, 1)], bodies[n[0]]), ([bearer(k, 2)], bodies[n[0]])]
        assert sent(world, mark, "/after/" + n) == [([bearer(k, 2)], "")]
        assert len(world.tokens(mark, k)) == 2
        assert lines(r, path) == REPLAYED
        response = r.one("egress_http_response", flow=r.one("egress_http_request", path=path)["flow"], req=1)
        assert response["bytes_up"] == len(bodies[n[0]]), "what was sent again is not counted again"
        assert response["bytes_down"] == len(json.dumps({"n": 2}))
        assert len({q["id"] for q in world.requests(mark, path=path)}) == 1, "over the same connection"
    r.none("egress_swap_error")
    for k in keys.values():
        assert w.token(k, 1) not in r.text() + json.dumps(r.out) and w.token(k, 2) not in r.text()


def test_not_sent_again(sm, world, mark, tmp_path):
    """A second 401, a body that is too long to keep, one that ends with trailers, a key instead of a token."""
    keys = {n: key() for n in ("twice", "long", "trailers", "fixed")}
    flags = swap_file(tmp_path, fixed=static("fixed.swap.test", ref="env:FIXED"),
                      **{n: oauth(f"{n}.swap.test", url=url("ok", k)) for n, k in keys.items() if n != "fixed"})
    r = sm.guest(GO + f"""
keys = {keys!r}
def ask(n, head="", body=b"", times=1):
    c = h1(n + ".swap.test")
    a = c.ask(f"POST /unauth/{{keys[n]}}/{{times}} HTTP/1.1\\r\\nHost: {{n}}.swap.test\\r\\n{{head}}\\r\\n".encode() + body)
    out[n] = [a.status, a.json()["n"], a.get("www-authenticate"), c.ask(h.get("/after/" + n, n + ".swap.test")).status]
ask("twice", times=2)
ask("long", "Content-Length: 70000\\r\\n", b"x" * 70000)
ask("trailers", "Transfer-Encoding: chunked\\r\\n", b"3\\r\\nabc\\r\\n0\\r\\nX-Sum: 1\\r\\n\\r\\n")
ask("fixed")
""", *STRICT, *flags, env={**ENV, "FIXED": canary()})
    told = 'Bearer error="invalid_token"'
    assert r.out == {"twice": [401, 2, told, 200], "long": [401, 1, told, 200], "trailers": [401, 1, told, 200], "fixed": [401, 1, told, 200]}, (r.out, r.text())
    assert [v for v, _ in sent(world, mark, f"/unauth/{keys['twice']}/2")] == [[bearer(keys["twice"], n)] for n in (1, 2)]
    assert lines(r, f"/unauth/{keys['twice']}/2") == [*REPLAYED[:3], ("egress_http_response", None, 401, "done")]
    for n in ("long", "trailers", "fixed"):
        assert len(sent(world, mark, f"/unauth/{keys[n]}/1")) == 1
        assert lines(r, f"/unauth/{keys[n]}/1") == [*REPLAYED[:2], ("egress_http_response", None, 401, "done")]
    for n in ("long", "trailers"):
        assert sent(world, mark, "/after/" + n) == [([bearer(keys[n], 2)], "")], "the next request has a new one all the same"


def test_what_was_sent_ahead_keeps_its_order(sm, world, mark, tmp_path):
    k, l = key(), key()
    r = sm.guest(GO + f"""
n = "a.swap.test"
c = h1(n)
c.send(h.get("/unauth/{k}/1", n) + b"POST /b HTTP/1.1\\r\\nHost: a.swap.test\\r\\nContent-Length: 2\\r\\n\\r\\nhi" + h.get("/c", n))
out["h1"] = [c.answer().status for _ in range(3)]
n = "b.swap.test"
c = h2(n)
sids = [c.request(n, f"/unauth/{l}/1")] + [c.request(n, f"/many/{{i}}") for i in range(20)]
out["h2"] = [s.status for s in c.wait(*sids)]
""", *STRICT, *swap_file(tmp_path, a=oauth("a.swap.test", url=url("ok", k)), b=oauth("b.swap.test", url=url("ok", l))), env=ENV)
    assert r.out == {"h1": [200] * 3, "h2": [200] * 21}, (r.out, r.text())
    rows = [(q["path"], values(q, "authorization")) for q in world.requests(mark) if q["path"] in (f"/unauth/{k}/1", "/b", "/c")]
    assert rows == [(f"/unauth/{k}/1", [bearer(k, 1)]), (f"/unauth/{k}/1", [bearer(k, 2)]), ("/b", [bearer(k, 2)]), ("/c", [bearer(k, 2)])]
    assert len(world.tokens(mark, l)) == 2


def test_placeholder(sm, world, mark, tmp_path):
    """What the guest wrote around it stays, in the second one too."""
    k = key()
    entry = oauth("a.swap.test", url=url("ok", k), placeholder="tok-placeholder-0000")
    r = sm.guest(GO + f"""
out["status"] = ask2("/unauth/{k}/1", "a.swap.test", [("authorization", "Custom tok-placeholder-0000; v=1")]).status
""", *STRICT, *swap_file(tmp_path, a=entry), env=ENV)
    assert r.out == {"status": 200}
    assert [v for v, _ in sent(world, mark, f"/unauth/{k}/1")] == [[f"Custom {w.token(k, n)}; v=1"] for n in (1, 2)]


def test_no_new_token_to_be_had(sm, world, mark, tmp_path):
    """502 with the reason, in place of the 401; a line for it, and the response's."""
    path, name = signing_key(world, tmp_path, "ES256")
    k = key()
    entry = jwt("a.swap.test", key=path, token_url=url("assert", k, name))
    r = sm.start_guest(GO + f"""
c = h2("a.swap.test")
say(str(c.ask("a.swap.test", "/first").status))
sys.stdin.readline()
s = c.ask("a.swap.test", "/unauth/{k}/1", method="POST")
out["then"] = [s.status, s.json().get("reason"), c.ping()]
""", *STRICT, *swap_file(tmp_path, a=entry), env=ENV)
    assert r.line() == "200"
    os.unlink(os.path.join(world.keys, name + ".pub"))
    r.tell("go on")
    r = r.end()
    assert r.out == {"then": [502, "token_endpoint_status", True]}, (r, r.text())
    assert len(sent(world, mark, f"/unauth/{k}/1")) == 1
    assert lines(r, f"/unauth/{k}/1") == [*REPLAYED[:2], ("egress_swap_error", True, 502, None), ("egress_http_response", None, 502, "refused")]
    assert r.one("egress_swap_error", replay=True)["reason"] == "token_endpoint_status"


def test_the_guest_does_not_wait(sm, world, mark, tmp_path):
    """It resets the stream, or closes, while the new token is on its way: nothing is sent again, and others go on."""
    k, l = key(), key()
    flags = swap_file(tmp_path, a=oauth("a.swap.test", url=url("slow", k, "1000")), b=oauth("b.swap.test", url=url("slow", l, "1000")))
    r = sm.start_guest(GO + f"""
c, d = h2("a.swap.test", timeout=30), h1("b.swap.test", timeout=30)
out["first"] = [c.ask("a.swap.test", "/first").status, d.ask(h.get("/first", "b.swap.test")).status]
s = c.request("a.swap.test", "/unauth/{k}/1")
d.send(h.get("/unauth/{l}/1", "b.swap.test"))
say("waiting")
sys.stdin.readline()
c.rst(s)
d.close()
out["then"] = c.ask("a.swap.test", "/then").status
""", *STRICT, *flags, env=ENV)
    assert r.line() == "waiting"
    w.wait_for("the new tokens to be asked for", lambda: len(world.tokens(mark, k)) == 2 and len(world.tokens(mark, l)) == 2, 20)
    r.tell("go on")
    r = r.end()
    assert r.out == {"first": [200, 200], "then": 200}, (r, r.text())
    for path in (f"/unauth/{k}/1", f"/unauth/{l}/1"):
        assert len(sent(world, mark, path)) == 1
        assert lines(r, path) == [*REPLAYED[:2], ("egress_http_response", None, 0, "reset")]
    assert sent(world, mark, "/then") == [([bearer(k, 2)], "")]
