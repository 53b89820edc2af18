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
