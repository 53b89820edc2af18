# SPDX-License-Identifier: BSD-3-Clause
"""The audit of credential swap: each event has one scenario that produces it and one neighbour, as close as can be, that does not."""
import uuid

import pytest
import worldlib as w
from credlib import GO, STRICT, canary, oauth, static, swap_file

KEY, SECRET = canary(), canary("secret")
ENV = {"API_KEY": KEY, "CLIENT_ID": "an-id", "CLIENT_SECRET": SECRET}


def token_url(how="ok"):
    return f"https://id.test/token/{how}/k{uuid.uuid4().hex[:10]}"


CASES = {  # event: what produces it, the status then, and what does not
    "egress_swap": (static("h2.test"), 200, static("origin.test")),
    "egress_swap_error": (static("h2.test", ref="env:UNSET"), 502, static("h2.test")),
    "egress_swap_fetch": (oauth("h2.test", url=token_url()), 200, oauth("origin.test", url=token_url())),
}


@pytest.mark.core
@pytest.mark.parametrize("event", CASES)
def test_event_and_neighbour(sm, tmp_path, event):
    entry, status, other = CASES[event]
    code = GO + 'out["s"] = ask2("/x").status'
    yes = sm.guest(code, *STRICT, *swap_file(tmp_path, api=entry), env=ENV)
    assert len(yes.events(event)) == 1 and yes.out["s"] == status, yes.text()
    no = sm.guest(code, *STRICT, *swap_file(tmp_path, api=other), env=ENV)
    no.none(event)
    assert no.out["s"] == 200
    for r in (yes, no):
        assert KEY not in r.text() and SECRET not in r.text()


@pytest.mark.core
def test_fields_and_order(sm, tmp_path):
    """A fetch before the request that needs it, the request before its swap, both before the answer; flow and req are the same throughout."""
    flags = swap_file(tmp_path, got=oauth("a.swap.test", url=token_url()), lost=oauth("b.swap.test", url=token_url("none")))
    r = sm.guest(GO + 'ask2("/a", "a.swap.test"); ask2("/b", "b.swap.test")', *STRICT, *flags, env=ENV)
    request, swap, response = r.one("egress_http_request", path="/a"), r.one("egress_swap"), None
    response = r.one("egress_http_response", flow=request["flow"], req=request["req"])
    assert (swap["flow"], swap["req"]) == (request["flow"], request["req"])
    assert {k: swap[k] for k in ("name", "type", "header")} == {"name": "got", "type": "oauth2-cc", "header": "Authorization"}
    fetch = r.one("egress_swap_fetch", name="got")
    assert (fetch["host"], fetch["dst"], fetch["port"]) == ("id.test", w.CRED["id.test"], 443) and "flow" not in fetch
    assert fetch["seq"] < request["seq"] < swap["seq"] < response["seq"]
    error = r.one("egress_swap_error")
    assert {k: error[k] for k in ("name", "type", "header", "reason", "status", "path", "authority", "req")} == {
        "name": "lost", "type": "oauth2-cc", "header": "Authorization", "reason": "token_missing", "status": 502, "path": "/b",
        "authority": "b.swap.test", "req": 1}
    assert error["flow"] == r.one("egress_allow", host="b.swap.test")["flow"] and r.one("egress_swap_fetch", name="lost")["seq"] < error["seq"]
    r.none("egress_http_request", path="/b")
    r.none("egress_deny")


def test_a_request_that_is_refused_gets_no_credential(sm, tmp_path):
    """Neither a swap nor a fetch for what policy refuses."""
    r = sm.guest(GO + """
out["s"] = h1("origin.test").ask(h.get("/x", "a.swap.test")).status
""", *STRICT, *swap_file(tmp_path, api=oauth("a.swap.test", "origin.test", url=token_url())), env=ENV)
    assert r.out["s"] == 421
    for event in ("egress_swap", "egress_swap_error", "egress_swap_fetch"):
        r.none(event)
