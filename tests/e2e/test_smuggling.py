# SPDX-License-Identifier: BSD-3-Clause
"""The smuggling classes of HTTP/1 as varnishtest scripts (tests/attack), each in clear and inside TLS, through one workspace.

A script asserts what the client got; here it is asserted that the origin, which is lenient and writes down every byte, received
nothing that was not allowed. HTTP/2's classes are in test_http2.py.
"""
import glob
import json
import os

import pytest
import worldlib as w
from conftest import REPO

ATTACK = os.path.join(REPO, "tests", "attack")
SCRIPTS = sorted(glob.glob(os.path.join(ATTACK, "*.vtc")))
STRICT = ("--egress", "strict", "--egress-allow", "origin.test")


def cut(r):
    """Flows whose request broke a rule in its body."""
    return {x["flow"] for x in r.events("egress_http_request", path="/fine-cut")}


@pytest.mark.core
@pytest.mark.parametrize("script", SCRIPTS, ids=[os.path.basename(x)[:-4] for x in SCRIPTS])
def test_nothing_is_smuggled(sm, world, mark, script):
    r = sm.run(*STRICT, cmd=["/usr/bin/python3", "-B", os.path.join(ATTACK, "run.py"), "origin.test", script], timeout=150)
    assert r.rc == 0, r
    rows = [json.loads(x) for x in r.stdout.decode().splitlines()]
    assert [x["how"] for x in rows] == ["clear", "tls"], r
    for x in rows:
        assert x["rc"] == 0, f"{x['script']} {x['how']}:\n{x['log']}"
    # What was sent last is at the origin or never will be: each client has seen the end of its connection.
    heads = world.since(mark, "origin", ev="head")
    assert heads or "pipelined" not in script
    wrong = [x["line"] for x in heads if not any(x["line"].split(" ")[1].startswith(p) for p in ("/fine", "/ws200", "/wsraw"))]
    assert not wrong, wrong
    got = world.received(mark)
    assert b"smuggled" not in got and b"evil.test" not in got, got[:3000]
    assert not [x for x in (b"h2c", b"http2-settings", b"pri * http/2") if x in got.lower().replace(b"/fine-h2c", b"")], got[:3000]
    assert {p["dst"] for p in world.wire(mark)} <= {w.SITES["origin.test"]}
    whole = [(x["chunks"], x["trailers"]) for x in world.requests(mark) if x["path"].startswith("/fine-cut")]
    assert not whole, f"a request whose body broke a rule never becomes whole: {whole}"
    assert {x["status"] for x in r.events("egress_http_response") if x["flow"] in cut(r)} <= {0, 400}, r.text()
    refused = [x for x in r.events("egress_deny")]
    assert len(refused) >= 4 and all(x["reason"].startswith("http_") or x["reason"] == "authority_mismatch" for x in refused), r.text()


SLOPPY = [" GET /smuggled HTTP/1.1", "\x0bGET /smuggled HTTP/1.1", "\xa0GET /smuggled HTTP/1.1", "GET\x0b/smuggled HTTP/1.1", "GET\xa0/smuggled HTTP/1.1",
          "GET\r/smuggled HTTP/1.1", "GET /smuggled\x0bHTTP/1.1", "GET /smuggled\x0cHTTP/1.1", "GET /smuggled\x1fHTTP/1.1", "GET /smuggled\x85HTTP/1.1",
          "GET /smuggled\xa0HTTP/1.1", "PURGE /smuggled\x0bHTTP/1.1", "PURGE /smuggled\rHTTP/1.1", "GET /smuggled", "GET http://evil.test/smuggled"]


@pytest.mark.core
def test_a_sloppy_line_does_not_buy_what_a_strict_one_does_not(sm, world, mark):
    """Lines that some server reads as a request (Python's http.server takes most of these): in clear, inside TLS, and inside TLS where no
    ALPN says what is spoken. Nothing of them arrives; if it did it would not be a request that was judged."""
    r = sm.guest(f"""
import httplib as h
for line in {SLOPPY!r}:
    for way in ("clear", "alpn", "tls"):
        c = h.connect("origin.test", 80) if way == "clear" else h.tls("origin.test", alpn=["http/1.1"] if way == "alpn" else None)
        c.send((line + "\\r\\nHost: evil.test\\r\\n\\r\\n").encode("latin-1"))
        try:
            out[way + line] = c.answer().status
        except (EOFError, OSError):
            out[way + line] = c.end
        c.close()
""", *STRICT, timeout=90)
    assert world.received(mark) == b"", world.received(mark)
    assert set(r.out.values()) == {400} and len(r.out) == 3 * len(SLOPPY), {k: v for k, v in r.out.items() if v != 400}
    r.none("egress_http_request")
    r.none("egress_mitm_opaque")


@pytest.mark.core
def test_a_request_line_that_comes_letter_by_letter_is_judged(sm, world, mark):
    """A word of a few letters is sent on after a while, because it may be all that is said before an answer; what follows is still read with it."""
    r = sm.guest("""
import httplib as h
def slow(way, host, first="G"):
    c = h.connect("origin.test", 80) if way == "clear" else h.tls("origin.test", alpn=None)
    for piece in (first, "ET /%s HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n" % ("fine" if host == "origin.test" else "smuggled", host)):
        c.send(piece.encode())
        time.sleep(0.4)
    try:
        return c.answer().status
    except (EOFError, OSError):
        return c.end
for way in ("clear", "tls"):
    out[way] = [slow(way, "origin.test"), slow(way, "evil.test"), slow(way, "evil.test", " G")]
""", *STRICT)
    assert r.out == {"clear": [200, 403, 400], "tls": [200, 421, 400]}, (r.out, r.text())
    assert b"smuggled" not in world.received(mark) and len(world.requests(mark)) == 2
    assert len(r.events("egress_http_request")) == 2
    r.none("egress_mitm_opaque")


@pytest.mark.core
def test_a_request_line_that_ends_with_the_connection_is_no_way_past_the_judge(sm, world, mark):
    """Some servers read a line up to the end of the input and answer it."""
    r = sm.guest("""
import httplib as h
for line in ("GET /smuggled HTTP/1.1", "GET /smuggled", "PURGE /smuggled HTTP/1.0"):
    for way in ("clear", "tls"):
        c = h.connect("origin.test", 80) if way == "clear" else h.tls("origin.test")
        c.send(line.encode())
        c.shut()
        out[way + line] = c.rest().decode("latin-1")[:12]
""", *STRICT)
    assert world.received(mark) == b"", world.received(mark)
    assert set(r.out.values()) <= {"", "HTTP/1.1 400"}, r.out
    r.none("egress_mitm_opaque")
