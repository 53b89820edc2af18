# SPDX-License-Identifier: BSD-3-Clause
"""A token that its issuer has withdrawn: upstream's 401 brings a new one, and the request goes again, where it can (issue 4, item 3)."""
import json
import uuid

import pytest
import worldlib as w
from credlib import GO, STRICT, canary, oauth, static, swap_file, values

ENV = {"CLIENT_ID": canary("id"), "CLIENT_SECRET": canary("secret"), "FIXED": canary()}
POST = """
def post1(path, body, n="origin.test"):
    return h1(n).ask(b"POST %s HTTP/1.1\\r\\nHost: %s\\r\\nContent-Length: %d\\r\\n\\r\\n" % (path.encode(), n.encode(), len(body)) + body, "POST")
def post2(path, body, n="h2.test"):
    c = h2(n); sid = c.request(n, path, method="POST", end=False); c.data(sid, body, end=True)
    return c.wait(sid)
"""


def key():
    return "k" + uuid.uuid4().hex[:10]


def url(how, k):
    return f"https://id.test/token/{how}/{k}"


def bearers(world, mark, path):
    return [values(q, "authorization") for q in world.requests(mark, path=path)]


@pytest.mark.core
@pytest.mark.parametrize("how", ["ask1(p, N1).status", "ask2(p, N2).status", "post1(p, b'x' * 20000, N1).status", "post2(p, b'x' * 20000, N2).status"],
                         ids=["h1", "h2", "h1 body", "h2 body"])
def test_the_guest_never_sees_the_401(sm, world, mark, tmp_path, how):
    """One answer, one request line and one response line; two swaps, the second a replay; the same body twice at the origin."""
    k = key()
    r = sm.guest(GO + POST + f"""
N1 = N2 = "a.swap.test"
p = "/current/{k}/2"
out["s"] = [{how}, {how}]
""", *STRICT, *swap_file(tmp_path, api=oauth("a.swap.test", url=url("ok", k))), env=ENV)
    assert r.out["s"] == [200, 200], r.text()
    one, two = [f"Bearer {w.token(k, 1)}"], [f"Bearer {w.token(k, 2)}"]
    assert bearers(world, mark, f"/current/{k}/2") == [one, two, two]
    rows = world.requests(mark, path=f"/current/{k}/2")
    assert len({(q["method"], q["body"], q["sha256"]) for q in rows}) == 1, "what goes again is what went"
    assert len(world.tokens(mark, k)) == 2
    first = r.events("egress_http_request")[0]
    assert r.one("egress_http_response", flow=first["flow"], req=first["req"])["status"] == 200
    swaps = r.events("egress_swap", flow=first["flow"], req=first["req"])
    assert [s.get("replay", False) for s in swaps] == [False, True]
    assert len(r.events("egress_http_request")) == len(r.events("egress_http_response")) == 2 and len(r.events("egress_swap")) == 3
    r.none("egress_swap_error")


def test_fifty_at_once_cause_one_fetch(sm, world, mark, tmp_path):
    k = key()
    r = sm.guest(GO + f"""
c = h2("a.swap.test"); c.ask("a.swap.test", "/first")
sids = [c.request("a.swap.test", "/current/{k}/2") for _ in range(50)]
out["s"] = [s.status for s in c.wait(*sids)]
""", *STRICT, *swap_file(tmp_path, api=oauth("a.swap.test", url=url("ok", k))), env=ENV)
    assert r.out["s"] == [200] * 50
    assert len(world.tokens(mark, k)) == 2
    got = bearers(world, mark, f"/current/{k}/2")
    assert {x for v in got for x in v} <= {f"Bearer {w.token(k, n)}" for n in (1, 2)} and got.count([f"Bearer {w.token(k, 2)}"]) == 50


def test_what_cannot_go_again_is_a_401(sm, world, mark, tmp_path):
    """An upload larger than what is kept, a fixed key, and a second 401: the guest gets it, with the token taken out; the next request has the new token."""
    a, b = key(), key()
    flags = swap_file(tmp_path, large=oauth("a.swap.test", url=url("ok", a)), twice=oauth("b.swap.test", url=url("ok", b)), fixed=static("c.swap.test", ref="env:FIXED"))
    r = sm.guest(GO + POST + f"""
def told(x): return [x.status, x.body.decode()]
out["large"] = [told(post2("/current/{a}/2", b"x" * 300000, "a.swap.test")), ask2("/current/{a}/2", "a.swap.test").status]
out["twice"] = [told(ask2("/current/{b}/9", "b.swap.test")) for _ in range(3)] + [told(ask1("/current/{b}/9", "b.swap.test"))]
out["fixed"] = told(ask2("/current/none/1", "c.swap.test"))
""", *STRICT, *flags, env=ENV)
    assert r.out["large"][0][0] == 401 and r.out["large"][1] == 200
    assert [q["body"] for q in world.requests(mark, path=f"/current/{a}/2")] == [300000, 0]
    assert [x[0] for x in r.out["twice"]] == [401] * 4 and r.out["fixed"][0] == 401
    assert bearers(world, mark, f"/current/{b}/9") == [[f"Bearer {w.token(b, n)}"] for n in (1, 2, 2, 2, 2)], "again once, and then a minute not at all"
    assert len(world.tokens(mark, b)) == 2 and len(world.requests(mark, path="/current/none/1")) == 1
    for status, body in [r.out["large"][0], *r.out["twice"], r.out["fixed"]]:
        assert set(json.loads(body)["said"]) == {"*"}, body
    text = json.dumps(r.out) + r.text()
    assert not [s for s in (*ENV.values(), *(w.token(k, n) for k in (a, b) for n in (1, 2))) if s in text]


def test_no_new_token(sm, world, mark, tmp_path):
    """The endpoint gives no second one: 502 with its word, and the error's line says that it was for a replay. The connection stays usable."""
    k = key()
    r = sm.guest(GO + f"""
c = h2("a.swap.test")
s = c.ask("a.swap.test", "/current/{k}/2"); out["s"] = [s.status, s.json().get("reason")]
out["ping"] = c.ping()
""", *STRICT, *swap_file(tmp_path, api=oauth("a.swap.test", url=url("once", k))), env=ENV)
    assert r.out == {"s": [502, "token_missing"], "ping": True}
    assert bearers(world, mark, f"/current/{k}/2") == [[f"Bearer {w.token(k, 1)}"]]
    e = r.one("egress_swap_error")
    assert e["replay"] is True and r.one("egress_http_response", flow=e["flow"], req=e["req"])["status"] == 502
