# SPDX-License-Identifier: BSD-3-Clause
"""An origin that says the credential back: the guest gets as many asterisks (issue 4, item 5). What the scrub does not promise is shown too."""
import base64
import gzip
import json

import pytest
from credlib import GO, STRICT, arrived, canary, oauth, static, swap_file, swapped, values
import worldlib as w

KEY = canary("scrub")
ENV = {"API_KEY": KEY}
FORMS = ["plain", "percent", "b64-0", "b64-1", "b64-2", "url-0", "url-1", "url-2"]


def scrubbed(how, key=KEY):
    """What is left of credd.form(key, how): of base64 the characters that the key alone decides are gone, its edges stay."""
    if how == "plain":
        return "*" * len(key)
    if how == "percent":
        return "*" * (3 * len(key))
    k = int(how[-1])
    text = (base64.b64encode if how.startswith("b64") else base64.urlsafe_b64encode)(b"~" * k + key.encode() + b"tail").decode()
    return "".join("*" if 8 * k <= 6 * i and 6 * i + 6 <= 8 * (k + len(key)) else c for i, c in enumerate(text))


CODE = GO + """
def fields(x): return [[k.lower(), v.strip()] for k, v in x if not k.startswith(":")]
def both(path, extra=()):
    r = ask1(path, extra="".join(f"{k}: {v}\\r\\n" for k, v in extra))
    s = ask2(path, extra=extra)
    return {"h1": {"status": r.status, "line": r.line, "head": fields(r.headers), "body": r.body.decode("latin-1"), "trailers": fields(r.trailers),
                   "hints": [fields(i.headers) for i in r.interim]},
            "h2": {"status": s.status, "line": "", "head": fields(s.headers), "body": s.body.decode("latin-1"), "trailers": fields(s.trailers or []),
                   "hints": [fields(i) for i in s.interim]}}
"""


@pytest.mark.parametrize("how", [pytest.param(x, marks=pytest.mark.core) if x in ("plain", "b64-1") else x for x in FORMS])
def test_in_every_place_and_form(sm, world, mark, tmp_path, how):
    """Head, 1xx, reason phrase, trailer and body, whole and cut into pieces of 1, 2, 7 and 1000 bytes (chunks, DATA frames); lengths stay."""
    places = ["head", "hints", "trailer", "body", "pieces"]
    r = sm.guest(CODE + f"""
for what in {places!r}:
    out[what] = both(f"/say/{{what}}/{how}/1")
for n in (2, 7, 1000):
    out[f"pieces{{n}}"] = both(f"/say/pieces/{how}/{{n}}")
out["reason"] = ask1("/say/reason/{how}").line
""", *STRICT, *swap_file(tmp_path, api=static("origin.test", "h2.test")), env=ENV)
    clean = scrubbed(how)
    for proto in ("h1", "h2"):
        for what in ("body", "pieces", "pieces2", "pieces7", "pieces1000"):
            assert r.out[what][proto]["body"] == f"before[{clean}]after", (what, proto)
        assert ["x-said", f"[{clean}]"] in r.out["head"][proto]["head"] and ["set-cookie", f"k={clean}; Path=/"] in r.out["head"][proto]["head"]
        assert r.out["hints"][proto]["hints"] == [[["link", f"<https://origin.test/{clean}>; rel=preload"]]]
        assert ["x-said", f"[{clean}]"] in r.out["trailer"][proto]["trailers"]
    assert r.out["reason"].endswith(f"200 {clean}")
    assert KEY not in json.dumps(r.out) + r.text()
    rows = r.events("egress_http_response")
    assert len(rows) == 17 and all(x["scrubbed"] >= 1 and "unscrubbed" not in x for x in rows)
    assert {values(q, "accept-encoding")[0] for q in world.requests(mark)} == {"identity"}
    swapped(r, "api", 17)


def test_what_is_no_secret_arrives_as_it_was(sm, world, mark, tmp_path):
    """Bodies that hold no match, and near misses, are the same bytes, and no line says scrubbed."""
    r = sm.guest(GO + """
import hashlib
out["h1"] = hashlib.sha256(ask1("/bytes/3000000").body).hexdigest()
out["h2"] = hashlib.sha256(ask2("/bytes/3000000").body).hexdigest()
a = ask1("/chunked/100000/777"); out["chunks"] = [hashlib.sha256(a.body).hexdigest(), a.chunks[:3], a.trailers]
out["want"] = [hashlib.sha256(h.pattern(n)).hexdigest() for n in (3000000, 100000)]
""", *STRICT, *swap_file(tmp_path, api=static("origin.test", "h2.test")), env=ENV)
    big, small = r.out["want"]
    assert r.out["h1"] == r.out["h2"] == big
    assert r.out["chunks"] == [small, ['309;ext="a b"', "309", "309"], [["X-Sum", f" {small}"], ["x-ODD", "  spaced "]]]
    assert not [x for x in r.events("egress_http_response") if "scrubbed" in x or "unscrubbed" in x]


def test_a_token_that_was_fetched_is_scrubbed_too(sm, world, mark, tmp_path):
    import uuid
    k = "k" + uuid.uuid4().hex[:10]
    flags = swap_file(tmp_path, api=oauth("origin.test", "h2.test", url=f"https://id.test/token/ok/{k}"))
    r = sm.guest(CODE + 'out.update(both("/say/body/plain"))', *STRICT, *flags, env={"CLIENT_ID": "an-id", "CLIENT_SECRET": canary()})
    assert {r.out[p]["body"] for p in ("h1", "h2")} == {f"before[{scrubbed('plain', w.token(k, 1))}]after"}


def test_events_are_not_delayed(sm, world, tmp_path):
    """Each server-sent event is there long before the next one is sent, with its secret taken out."""
    r = sm.guest(GO + """
def listen(recv):
    buf, late = b"", []
    while len(late) < 20:
        d = recv()
        assert d, buf
        now = time.monotonic()
        buf += d
        while b"\\n\\n" in buf:
            event, _, buf = buf.partition(b"\\n\\n")
            late.append([now - float(event.split(b"data: ")[1].split(b" ")[0]), event.decode().split(" ")[-1]])
    return late
c = h1(); c.send(h.get("/say/sse/plain/20/50", "origin.test")); out["h1"] = listen(c.recv)
c = h2(); sid = c.request("h2.test", "/say/sse/plain/20/50"); seen = [0]
def recv():
    while len(c.streams[sid].body) == seen[0]:
        assert c.step()
    d = c.streams[sid].body[seen[0]:]; seen[0] += len(d)
    return d
out["h2"] = listen(recv)
""", *STRICT, *swap_file(tmp_path, api=static("origin.test", "h2.test")), env=ENV)
    for proto in ("h1", "h2"):
        late = sorted(x[0] for x in r.out[proto])
        # Were an event held until the next one, each would be 50 ms late.
        assert late[len(late) // 2] < 0.025 and late[-1] < 0.5, late
        assert {x[1] for x in r.out[proto]} == {"*" * len(KEY)}


def test_encoded_bodies(sm, world, mark, tmp_path):
    """The origin is asked for identity; one that encodes all the same is passed on and recorded. Heads are scrubbed even then."""
    r = sm.guest(CODE + """
out["asked"] = both("/say/negotiated/plain", [("accept-encoding", "gzip, br")])
out["anyway"] = both("/say/gzip/plain", [("accept-encoding", "gzip")])
""", *STRICT, *swap_file(tmp_path, api=static("origin.test", "h2.test")), env=ENV)
    for proto in ("h1", "h2"):
        assert r.out["asked"][proto]["body"] == f"before[{scrubbed('plain')}]after"
        raw = r.out["anyway"][proto]["body"].encode("latin-1")
        assert KEY.encode() in gzip.decompress(raw), "passed as it came: SECURITY.md says so"
    for path in ("/say/negotiated/plain", "/say/gzip/plain"):
        assert [values(q, "accept-encoding") for q in world.requests(mark, path=path)] == [["identity"]] * 2
    rows = {x["req"]: x for x in r.events("egress_http_request", path="/say/gzip/plain")}
    for x in r.events("egress_http_request"):
        answer = r.one("egress_http_response", flow=x["flow"], req=x["req"])
        assert bool(answer.get("unscrubbed")) == (x["path"] == "/say/gzip/plain") and ("scrubbed" in answer) == (x["path"] != "/say/gzip/plain")
    assert rows


def test_off_for_an_entry(sm, world, mark, tmp_path):
    flags = swap_file(tmp_path, api=static("origin.test", "h2.test", scrub=False))
    r = sm.guest(CODE + """
out["plain"] = both("/say/body/plain", [("accept-encoding", "br, gzip")])
out["gzip"] = both("/say/negotiated/plain", [("accept-encoding", "gzip")])
""", *STRICT, *flags, env=ENV)
    for proto in ("h1", "h2"):
        assert r.out["plain"][proto]["body"] == f"before[{KEY}]after"
        assert KEY.encode() in gzip.decompress(r.out["gzip"][proto]["body"].encode("latin-1"))
    assert [values(q, "accept-encoding") for q in world.requests(mark, path="/say/body/plain")] == [["br, gzip"]] * 2
    assert not [x for x in r.events("egress_http_response") if "scrubbed" in x or "unscrubbed" in x]
    assert arrived(world, mark, "/say/body/plain", proto="h1") == [f"Bearer {KEY}"]


def test_only_where_the_credential_went(sm, world, mark, tmp_path):
    """Another host that says the same words is left alone: what it knows it did not learn from us."""
    r = sm.guest(GO + f"""
out["other"] = ask1("/say/body/plain", "alias.test", "X-Secret: {KEY}\\r\\nAccept-Encoding: gzip\\r\\n").body.decode()
""", *STRICT, *swap_file(tmp_path, api=static("origin.test")), env=ENV)
    assert r.out["other"] == f"before[{KEY}]after"
    assert arrived(world, mark, "/say/body/plain", "accept-encoding") == ["gzip"]
    r.none("egress_swap")
