# SPDX-License-Identifier: BSD-3-Clause
"""Tokens: fetched with a client's credentials (RFC 6749 4.4), signed (RFC 7519), or signed and exchanged (RFC 7523).

The endpoint is tests/world/credd.py; what it was asked, and what the origin got, is read from the world's log.
"""
import base64
import http.server
import json
import threading
import time
import urllib.parse
import uuid

import pytest
import worldlib as w
from credlib import GO, STRICT, arrived, canary, jwt, oauth, secret_file, signing_key, static, swap_file, swapped, values

ID, SECRET = canary("id"), canary("secret")
ENV = {"CLIENT_ID": ID, "CLIENT_SECRET": SECRET}


def key():
    """A name for one test's tokens at the endpoint."""
    return "k" + uuid.uuid4().hex[:10]


def url(how, k, *more, host="id.test"):
    return "/".join([f"https://{host}/token/{how}/{k}", *more])


@pytest.mark.core
def test_oauth2_client_credentials(sm, world, mark, tmp_path):
    """In the body and as Basic; scopes, audience, another member of the answer. One fetch serves every request; each fetch has its line."""
    a, b, c = key(), key(), key()
    odd_id, odd_secret = "id:with&odd=+%/ characters", canary("odd ") + ":&=+%\"\\"
    flags = swap_file(tmp_path, body=oauth("a.swap.test", url=url("ok", a), scopes=["read", "write:all"], audience="https://api.swap.test/"),
                      basic={**oauth("b.swap.test", url=url("ok", b), auth_style="basic"), "client_id_ref": "env:ODD_ID", "client_secret_ref": "env:ODD_SECRET"},
                      field=oauth("c.swap.test", url=url("field", c), token_response_field="id_token", header="X-Token", format="t={token};"))
    r = sm.guest(GO + """
for x in "abc":
    n = x + ".swap.test"; c = h2(n)
    out[x] = [c.ask(n, f"/t/{x}{i}", extra=[("authorization", "mine"), ("x-token", "mine")]).status for i in range(3)]
out["h1"] = ask1("/t/a3", "a.swap.test").status
""", *STRICT, *flags, env={**ENV, "ODD_ID": odd_id, "ODD_SECRET": odd_secret})
    assert r.out == {"a": [200] * 3, "b": [200] * 3, "c": [200] * 3, "h1": 200}, (r.out, r.text())
    for x, k in (("a", a), ("b", b)):
        assert [arrived(world, mark, f"/t/{x}{i}") for i in range(3)] == [[f"Bearer {w.token(k, 1)}"]] * 3
    assert arrived(world, mark, "/t/a3") == [f"Bearer {w.token(a, 1)}"]
    assert arrived(world, mark, "/t/c0", "x-token") == [f"t={w.token(c, 1)};"] and arrived(world, mark, "/t/c0") == ["mine"]
    one, = world.tokens(mark, a)
    assert one["form"] == {"grant_type": "client_credentials", "client_id": ID, "client_secret": SECRET, "scope": "read write:all", "audience": "https://api.swap.test/"}
    assert one["authorization"] is None
    two, = world.tokens(mark, b)
    user, _, password = base64.b64decode(two["authorization"].removeprefix("Basic ")).decode().partition(":")
    assert (urllib.parse.unquote_plus(user), urllib.parse.unquote_plus(password)) == (odd_id, odd_secret), "each form-encoded, then Basic (RFC 6749 2.3.1)"
    assert two["form"] == {"grant_type": "client_credentials"}
    assert len(world.tokens(mark, c)) == 1
    names = dict(one["headers"])
    assert names["host"] == "id.test" and "expect" not in names
    fetches = r.events("egress_swap_fetch")
    assert sorted(f["name"] for f in fetches) == ["basic", "body", "field"] and all(f["dst"] == w.CRED["id.test"] and f["port"] == 443 for f in fetches)
    for name, n in (("body", 4), ("basic", 3), ("field", 3)):
        swapped(r, name, n)
    r.none("egress_swap_error")
    for text in (ID, SECRET, odd_secret, w.token(a, 1), w.token(b, 1), w.token(c, 1)):
        assert text not in json.dumps(r.out) + r.text()


def test_fifty_parallel_requests_cause_one_fetch(sm, world, mark, tmp_path):
    """And a host that needs no token is not delayed by them."""
    k = key()
    flags = swap_file(tmp_path, api=oauth("a.swap.test", "b.swap.test", url=url("slow", k, "1500")), quick=static("c.swap.test", ref="env:QUICK"))
    r = sm.guest(GO + """
a, b = h2("a.swap.test"), h2("b.swap.test")
quick, plain, one = h2("c.swap.test"), h1("alias.test"), h1("a.swap.test")
begin = time.monotonic()
sids = [a.request("a.swap.test", f"/fifty/a{i}") for i in range(40)]
more = [b.request("b.swap.test", f"/fifty/b{i}") for i in range(9)]
one.send(h.get("/fifty/c0", "a.swap.test"))
out["quick"], out["plain"] = [], []
for i in range(20):
    t = time.monotonic(); quick.ask("c.swap.test", f"/quick/{i}"); out["quick"].append(time.monotonic() - t)
    t = time.monotonic(); plain.ask(h.get(f"/plain/{i}", "alias.test")); out["plain"].append(time.monotonic() - t)
out["early"] = time.monotonic() - begin
out["status"] = [s.status for s in a.wait(*sids) + b.wait(*more)] + [one.answer().status]
out["all"] = time.monotonic() - begin
""", *STRICT, *flags, env={**ENV, "QUICK": canary()})
    assert r.out["status"] == [200] * 50 and r.out["all"] >= 1.4
    assert r.out["early"] < 1.4, "the others were done while the token was on its way"
    assert max(r.out["quick"] + r.out["plain"]) < 0.5, r.out
    assert len(world.tokens(mark, k)) == 1
    rows = [q for q in world.requests(mark) if q["path"].startswith("/fifty/")]
    assert len(rows) == 50 and all(values(q, "authorization") == [f"Bearer {w.token(k, 1)}"] for q in rows)
    assert len(r.events("egress_swap_fetch", name="api")) == 1
    swapped(r, "api", 50)
    swapped(r, "quick", 20)


def test_refreshed_before_it_ends(sm, world, mark, tmp_path):
    """expires_in 4: renewed while it is good, never used when it is not, and no request waits for the renewal."""
    k = key()
    r = sm.guest(GO + """
c, took, begin, i = h2(), [], time.monotonic(), 0
while time.monotonic() - begin < 6:
    t = time.monotonic(); c.ask("h2.test", f"/r/{i}"); took.append(time.monotonic() - t)
    time.sleep(0.05); i += 1
out["took"], out["n"] = took, i
""", *STRICT, *swap_file(tmp_path, api=oauth("h2.test", url=url("expiry", k, "4"))), env=ENV)
    asked = world.tokens(mark, k)
    assert 3 <= len(asked) <= 6, f"{len(asked)} fetches in 6 s of tokens that live for 4"
    born = {f"Bearer {w.token(k, x['n'])}": x["t"] for x in asked}
    rows = [q for q in world.requests(mark) if q["path"].startswith("/r/")]
    assert len(rows) == r.out["n"] > 40
    for q in rows:
        value, = values(q, "authorization")
        assert q["t"] - born[value] < 3, "a token was used close to its end"
    assert len({values(q, "authorization")[0] for q in rows}) >= 3


def test_a_401_brings_a_new_token(sm, world, mark, tmp_path):
    """Once: the next request has a new one. An origin that refuses that too makes no token request out of every request; a static key is only reported."""
    k, u, v = key(), key(), key()
    flags = swap_file(tmp_path, api=oauth("a.swap.test", url=url("ok", k)), fixed=static("b.swap.test", ref="env:FIXED"))
    r = sm.guest(GO + f"""
a, b = h2("a.swap.test"), h2("b.swap.test")
out["first"] = a.ask("a.swap.test", "/unauth/{u}/2", method="POST").status
out["then"] = a.ask("a.swap.test", "/after").status
out["again"] = [a.ask("a.swap.test", "/unauth/{v}/100", method="POST").status for _ in range(5)]
out["fixed"] = [b.ask("b.swap.test", "/unauth/{u}f/100").status for _ in range(3)]
""", *STRICT, *flags, env={**ENV, "FIXED": canary()})
    assert r.out["then"] == 200 and r.out["again"] == [401] * 5 and r.out["fixed"] == [401] * 3
    assert arrived(world, mark, "/after") == [f"Bearer {w.token(k, 2)}"]
    assert len(world.tokens(mark, k)) == 2, "one a minute because of 401, whatever the origin says"
    first = [values(q, "authorization") for q in world.requests(mark, path=f"/unauth/{u}/2")]
    assert first[0] == [f"Bearer {w.token(k, 1)}"] and first[1:] in ([], [[f"Bearer {w.token(k, 2)}"]])
    assert {values(q, "authorization")[0] for q in world.requests(mark, path=f"/unauth/{v}/100")} == {f"Bearer {w.token(k, 2)}"}


# what the endpoint does: the word for it (None: good all the same)
FAILURES = {
    "never": (["never"], "endpoint_timeout"), "drip": (["drip"], "endpoint_timeout"), "reset": (["reset"], "endpoint_unreachable"),
    "redirect": (["redirect"], "endpoint_redirect"), "type": (["type"], "token_response_type"), "huge": (["huge"], "token_response_too_large"),
    "garbage": (["garbage"], "token_response_malformed"), "twice": (["twice"], "token_response_malformed"), "none": (["none"], "token_missing"),
    "empty": (["empty"], "token_invalid"), "bad": (["bad"], "token_invalid"), "zero": (["expiry", "0"], "token_expiry_invalid"),
    "minus": (["expiry", "-5"], "token_expiry_invalid"), "word": (["expiry", "soon"], "token_expiry_invalid"), "mac": (["mac"], "token_type_unsupported"),
    "error": (["error"], "token_endpoint_status"), "s500": (["status", "500"], "token_endpoint_status"), "s201": (["status", "201"], "token_endpoint_status")}
ADDRESSES = {"down": ("https://id.test:444/t", "endpoint_unreachable"), "noname": ("https://nosuch.test/t", "endpoint_unreachable"),
             "selfsigned": ("https://selfsigned.test/token/ok/x", "endpoint_tls"), "expired": ("https://expired.test/token/ok/x", "endpoint_tls"),
             "wrongname": ("https://wrongname.test/token/ok/x", "endpoint_tls"), "oldtls": ("https://tls10.test/t", "endpoint_tls"),
             "nottls": ("https://nottls.test/t", "endpoint_tls"), "meta": ("https://meta.test/t", "endpoint_denied"),
             "loop": ("https://loop.test/t", "endpoint_denied"), "own": ("https://own.test/t", "endpoint_denied"),
             "metaaddr": ("https://169.254.169.254/t", "endpoint_denied"), "zero0": ("https://zeroaddr.test/t", "endpoint_denied"),
             "azure": ("https://azure.test/t", "endpoint_denied")}


def test_each_failure_of_an_endpoint_has_its_word(sm, world, mark, tmp_path):
    """502 with the reason within the limit of 10 s, a line, no secret in either; a neighbour gets its token meanwhile; nothing inside is dialled."""
    keys = {n: key() for n in FAILURES}
    entries = {n: oauth(f"{n}.swap.test", url=url(how[0], keys[n], *how[1:])) for n, (how, _) in FAILURES.items()}
    entries.update({n: oauth(f"{n}.swap.test", url=u) for n, (u, _) in ADDRESSES.items()})
    good = key()
    entries["good"] = oauth("good.swap.test", url=url("ok", good))
    entries["private"] = oauth("private.swap.test", url=url("ok", good + "p", host="id10.test"))
    want = {**{n: x for n, (_, x) in FAILURES.items()}, **{n: x for n, (_, x) in ADDRESSES.items()}}
    r = sm.guest(GO + f"""
def one(name):
    n = name + ".swap.test"
    c = h2(n, timeout=60)
    t = time.monotonic()
    s = c.ask(n, "/f/" + name)
    out[name] = [s.status, s.json().get("reason"), s.json().get("hint"), time.monotonic() - t, c.ping()]
names = {list(want)!r}
# Those that take their 10 s are last, so that the others need not wait for a helper.
for group in ([n for n in names if n not in ("never", "drip")], ["never", "drip", "good", "private"]):
    threads = [threading.Thread(target=one, args=(n,)) for n in group]
    for t in threads: t.start()
    for t in threads: t.join()
""", *STRICT, *swap_file(tmp_path, **entries), env=ENV, timeout=120)
    assert r.out["good"][0] == 200 and r.out["good"][3] < 5, r.out["good"]
    assert r.out["private"][0] == 200, "a name that is private only is the operator's choice"
    assert arrived(world, mark, "/f/private") == [f"Bearer {w.token(good + 'p', 1)}"]
    assert {n: r.out[n][:2] for n in want} == {n: [502, x] for n, x in want.items()}
    for n in want:
        assert r.out[n][4] is True and r.out[n][2], f"{n}: connection or hint"
        assert r.one("egress_swap_error", name=n)["reason"] == want[n]
        r.none("egress_swap", name=n)
        if want[n] == "endpoint_denied":
            r.none("egress_swap_fetch", name=n)
    for n in ("never", "drip"):
        assert 8 < r.out[n][3] < 12, r.out[n]
    assert not [q for q in world.requests(mark) if q["path"].startswith("/f/") and q["path"][3:] in want]
    assert [len(world.tokens(mark, keys[n])) for n in FAILURES] == [1] * len(FAILURES), "a redirect is not followed, nothing is tried again at once"
    assert not world.leaks(mark) and not [p for a in ("169.254.169.254", "168.63.129.16", "10.0.0.5") for p in world.wire(mark, dst=a)]
    text = json.dumps(r.out) + r.text() + r.stderr.decode("utf-8", "replace")
    for secret in (ID, SECRET, *(w.token(k, 1) for k in (*keys.values(), good))):
        assert secret not in text


def test_an_endpoint_on_this_machine(sm, world, mark, tmp_path):
    """Written down as localhost or its address it is reached, without TLS too (RFC 8252 8.3); a name that DNS leads there is not (above)."""
    asked = []

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            body = json.dumps({"access_token": f"local-token-{len(asked)}", "expires_in": 3600}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        flags = swap_file(tmp_path, name=oauth("a.swap.test", url=f"http://localhost:{port}/t"), addr=oauth("b.swap.test", url=f"http://127.0.0.1:{port}/t"))
        r = sm.guest(GO + """
out["s"] = [ask2("/l/" + x, x + ".swap.test").status for x in "ab"]
out["guest"] = attempt("127.0.0.1", PORT)["connect"]
""".replace("PORT", str(port)), *STRICT, *flags, env=ENV)
        server.shutdown()
    assert r.out["s"] == [200, 200] and r.out["guest"] != "ok", (r.out, r.text())
    assert len(asked) == 2 and all(SECRET in x for x in asked)
    assert [arrived(world, mark, "/l/" + x) for x in "ab"] == [["Bearer local-token-1"], ["Bearer local-token-2"]]
    assert [f["dst"] for f in r.events("egress_swap_fetch")] == ["127.0.0.1"] * 2
    assert not world.wire(mark, dst="127.0.0.1")


def test_an_endpoint_that_comes_back(sm, world, mark, tmp_path):
    """A failure is held for a second, and not asked again meanwhile; then a request gets its token over the same connection."""
    k = key()
    world.vault_put(token=canary("t"), sealed=True)
    env = {**ENV, "VAULT_ADDR": f"https://vault.test:{w.VAULT}", "VAULT_TOKEN": canary("t"), "VAULT_CACERT": world.ca}
    entry = {**oauth("h2.test", url=url("ok", k)), "client_secret_ref": "vault:kv/c#secret"}
    r = sm.start_guest(GO + """
c = h2()
for line in sys.stdin:
    if not line.strip(): break
    s = c.ask("h2.test", line.strip()); say(json.dumps([s.status, s.json().get("reason")]))
""", *STRICT, *swap_file(tmp_path, api=entry), env=env)

    def ask(path):
        r.tell(path)
        return json.loads(r.line())
    assert ask("/b/1") == [502, "vault_sealed"]
    for i in range(5):
        assert ask(f"/b/1{i}") == [502, "vault_sealed"]
    assert len(world.vault_asked(mark)) <= 2 and not world.tokens(mark, k)
    world.vault_put(token=env["VAULT_TOKEN"], kv={"c": {"secret": SECRET}})
    begin, n = time.monotonic(), 0
    while ask(f"/b/2{n}")[0] != 200:
        n += 1
        assert time.monotonic() - begin < 6
    assert arrived(world, mark, f"/b/2{n}") == [f"Bearer {w.token(k, 1)}"]
    r.tell("")
    assert r.end().rc == 0


# ---- signed tokens ----

@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_signed_token_verifies_at_the_origin(sm, world, mark, tmp_path, algorithm):
    path, name = signing_key(world, tmp_path, algorithm)
    claims = {"iss": "${TEAM}@corp", "aud": ["a", "b"], "level": 7, "sub": "x"}
    flags = swap_file(tmp_path, api=jwt("h2.test", "origin.test", key=path, algorithm=algorithm, claims=claims, token_ttl_seconds=120))
    begin = int(time.time())
    r = sm.guest(GO + f"""
out["two"] = ask2("/jwt/{name}").json()
out["one"] = ask1("/jwt/{name}").json()
""", *STRICT, *flags, env={"TEAM": "red"})
    end = int(time.time())
    for got in r.out.values():
        assert got["ok"] is True and got["header"]["alg"] == algorithm and got["header"]["typ"] == "JWT"
        c = got["claims"]
        assert {k: c[k] for k in claims} == {**claims, "iss": "red@corp"}
        assert begin <= c["iat"] <= end and c["exp"] == c["iat"] + 120 and len(c["jti"]) >= 16
        assert set(c) == {*claims, "iat", "exp", "jti"}
    r.none("egress_swap_fetch")
    swapped(r, "api", 2)
    with open(path) as f:
        assert f.read().splitlines()[1] not in r.text() + json.dumps(r.out)


def test_a_signed_token_that_is_exchanged(sm, world, mark, tmp_path):
    """RFC 7523: the endpoint verifies the assertion, the origin gets what the endpoint gave; an endpoint that does not know the key refuses."""
    path, name = signing_key(world, tmp_path, "ES256")
    other, _ = signing_key(world, tmp_path, "ES256")
    a, b = key(), key()
    flags = swap_file(tmp_path, good=jwt("a.swap.test", key=path, claims={"iss": "me", "aud": "https://id.test/"}, token_url=url("assert", a, name)),
                      bad=jwt("b.swap.test", key=other, claims={"iss": "me"}, token_url=url("assert", b, name)))
    r = sm.guest(GO + """
for x in "ab":
    c = h2(x + ".swap.test")
    got = [c.ask(x + ".swap.test", f"/x/{x}{i}") for i in range(2)]
    out[x] = [[s.status, s.json().get("reason")] for s in got]
""", *STRICT, *flags)
    assert r.out == {"a": [[200, None]] * 2, "b": [[502, "token_endpoint_status"]] * 2}
    assert arrived(world, mark, "/x/a0") == arrived(world, mark, "/x/a1") == [f"Bearer {w.token(a, 1)}"]
    one, = world.tokens(mark, a)
    assert set(one["form"]) == {"grant_type", "assertion"} and one["form"]["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    said, = world.since(mark, "origin", ev="assertion", key=a)
    assert said["ok"] and said["claims"]["aud"] == "https://id.test/" and said["claims"]["exp"] > said["claims"]["iat"]
    assert world.since(mark, "origin", ev="assertion", key=b)[0]["ok"] is False
    assert one["form"]["assertion"] not in r.text() + json.dumps(r.out)


def test_a_signing_key_that_is_none(sm, world, mark, tmp_path):
    """Of another kind, no key at all, open to others: 502 with the word for it, and not a byte of it said."""
    ec, _ = signing_key(world, tmp_path, "ES256")
    text = canary("pem")
    flags = swap_file(tmp_path, kind=jwt("a.swap.test", key=ec, algorithm="RS256"), none=jwt("b.swap.test", key=secret_file(tmp_path, "none.pem", text)),
                      mode=jwt("c.swap.test", key=secret_file(tmp_path, "open.pem", text, 0o640)))
    r = sm.guest(GO + """
for x in "abc":
    s = ask2("/k/" + x, x + ".swap.test"); out[x] = [s.status, s.json().get("reason")]
""", *STRICT, *flags)
    assert r.out == {"a": [502, "signing_key_invalid"], "b": [502, "signing_key_invalid"], "c": [502, "ref_mode"]}
    with open(ec) as f:
        lines = f.read().splitlines()[1:-1]
    assert not [x for x in (*lines, text) if x in r.text() + json.dumps(r.out) + r.stderr.decode("utf-8", "replace")]
