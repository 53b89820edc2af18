# SPDX-License-Identifier: BSD-3-Clause
"""`slirp-med check`: what it says would happen is what the core then does, over a table of destinations, in guarded and strict."""
import json
import os

import pytest
import worldlib as w
from test_life import documented

OK, OTHER, EVIL, LISTED = (w.WEB[n] for n in ("ok.test", "other.test", "evil.test", "listed.test"))
POLICY = f"""allow:
  - ok.test
  - .other.test:80
  - inside.test
  - "{w.PROTO}"
  - 10.0.0.5:8000
passthrough:
  - listed.test
"""
FLAGS = ("--egress-allow", "proto.test:7", "--egress-deny", "denied.test", "--egress-deny", "cdn1.test", "--egress-deny", EVIL, "--egress-passthrough", "meta.test")

# What is asked of check, the address that the name has in the world, and what the guest does. TCP to a name is looked up first.
CASES = [
    ("ok.test", OK, "https"), ("ok.test:80", OK, "http"), ("other.test:80", OTHER, "http"), ("other.test", OTHER, "https"),
    ("listed.test", LISTED, "https"), ("evil.test", EVIL, "https"), ("evil.test:80", EVIL, "http"), ("cdn1.test:80", w.WEB["cdn1.test"], "http"),
    ("cdn2.test:80", w.WEB["cdn2.test"], "http"), ("inside.test:80", "10.0.0.5", "http"), ("meta.test:80", "169.254.169.254", "http"),
    ("mail.test:80", w.SITES["mail.test"], "http"),
    (w.SITES["ipsan.test"], None, "https"), (f"{OK}:80", None, "http"), (f"{EVIL}:80", None, "http"), (f"{w.PROTO}:7", None, "opaque"), (f"{OTHER}:7", None, "opaque"),
    ("10.0.0.5:80", None, "http"), ("192.168.7.7:80", None, "http"), ("169.254.169.254:80", None, "http"), (f"{w.CORE}:80", None, "http"),
    ("10.0.2.2:80", None, "http"), (f"{OK}:853", None, "opaque"), ("proto.test:7", w.PROTO, "opaque"), ("proto.test:9", w.PROTO, "opaque"),
    (f"{w.PROTO}:7", None, "udp"), (f"{OTHER}:7", None, "udp"), ("10.0.0.5:7", None, "udp"), (f"{OK}:443", None, "udp"),
]


def policy(sm, text=POLICY, name="policy.yaml"):
    path = os.path.join(sm.tmp, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def check(sm, *args, rc=None):
    p = sm.cli("check", *args, "--json")
    assert p.returncode in ((0, 1) if rc is None else (rc,)), (args, p)
    if p.returncode == 2:
        assert not p.stdout
        return p.stderr.decode()
    report = documented(json.loads(p.stdout), "Check")
    assert (p.returncode == 0) == (report["verdict"] == "allow"), report
    return report


def act(what, host, port, addr):
    name = not host[0].isdigit()
    if what == "https":
        return f"https({host if name else None!r}, {addr!r}, {port})" if not name else f"https({host!r}, {addr!r}, {port})"
    if what == "http":
        return f"http({host!r}, {addr!r}, {port})"
    if what == "udp":
        return f"udp({addr!r}, {port})"
    return f"attempt({addr!r}, {port}, b'\\0\\1', n=1)"


@pytest.mark.core
@pytest.mark.parametrize("mode", ["guarded", "strict"])
@pytest.mark.parametrize("opaque", [(), ("--egress-opaque",)], ids=["intercepted", "opaque"])
@pytest.mark.parametrize("names", [True, False], ids=["names", "addresses"])
def test_what_it_says_is_what_happens(sm, mode, opaque, names):
    """Names and addresses in workspaces of their own: a look-up leaves pins, which an address is judged by."""
    cases = [c for c in CASES if (c[1] is not None) == names]
    flags = ("--egress", mode, *opaque, "--egress-policy", policy(sm), *FLAGS)
    code, said = [], []
    for i, (ask, addr, what) in enumerate(cases):
        host, _, port = ask.partition(":")
        name = addr is not None
        more = ("--address", addr) if name else ()
        r = check(sm, *flags, ask, "--as", {"https": "tls"}.get(what, what), *more)
        said.append((ask, what, r))
        code.append(f"out['{i}'] = [dns({host!r})['rcode'] if {name} else 0]; out['{i}'] += [{act(what, host, int(port or 443), addr or host)}] if out['{i}'][0] == 0 else []")
    run = sm.guest("\n".join(code), *flags)
    for i, (ask, what, r) in enumerate(said):
        host, _, port = ask.partition(":")
        got = run.out[str(i)]
        dst = r["cases"][0]["example"] if r["cases"] else None
        rows = [x for x in run.audit if x.get("dst") == dst and x.get("port") == int(port or 443)]
        if "dns" in r:
            assert (r["dns"]["action"] == "allow") == (got[0] == 0), (ask, r, got)
            if got[0] != 0:
                assert r["verdict"] == "deny"
                assert r["dns"]["reason"] in {x["reason"] for x in run.events("egress_dns_deny", host=host)}, ask
                continue
        one, did = r["cases"][0], got[1]
        if what == "udp":
            reached = "got" in did and bool(did["got"])
            kinds = ("egress_udp_deny", "egress_udp_internal_deny")
        else:
            # Reached: the server answered, over a connection that the core let through.
            reached = bool(did.get("reply")) and not did["reply"].startswith(("HTTP/1.1 403", "HTTP/1.1 421"))
            kinds = ("egress_deny", "egress_internal_deny", "egress_loop_guard")
        denied = [x for x in rows if x["event"] in kinds and (what == "udp" or not x["event"].startswith("egress_udp"))]
        if what in ("http", "https") and "dns" in r:
            denied = [x for x in denied if x.get("host") in (host, None)]
        last = one["steps"][-1]
        if one["action"] == "deny":
            assert not reached and denied, (mode, ask, what, r, did, rows)
            assert last["reason"] in {x["reason"] for x in denied}, (mode, ask, what, last, denied)
            assert last.get("rule") in {x.get("rule") for x in denied}, (ask, last, denied)
            continue
        allowed = [x for x in rows if x["event"] == ("egress_udp_allow" if what == "udp" else "egress_allow") and (not x.get("host") or "dns" not in r or x["host"] == host)]
        assert not [x for x in denied if x.get("classified") in (None, {"https": "tls"}.get(what, what))] or what == "opaque", (mode, ask, what, denied)
        # Discard says nothing, and nobody serves QUIC: there the record alone can tell.
        if int(port or 443) != w.DISCARD and (what, port) != ("udp", "443"):
            assert reached, (mode, ask, what, r, did, rows)
        assert last["reason"] in {x["reason"] for x in allowed} or not reached, (mode, ask, what, last, allowed)
        if reached:
            assert last.get("rule") in {x.get("rule") for x in allowed}, (mode, ask, last, allowed)
        if what == "https" and reached:
            assert (one["treatment"] == "intercepted") in {x["mitm"] for x in allowed}, (mode, ask, one, allowed)
            assert (one["treatment"] == "passthrough") == (host == "listed.test"), one


@pytest.mark.core
def test_of_a_workspace(sm):
    """The policy of its last start, with a reload; the place of the entry that decides."""
    f = policy(sm)
    run = sm.start_guest("say('up'); sys.stdin.readline()", "--egress", "strict", "--egress-policy", f, "--egress-allow", "flag.test", "--egress-max-conns", "7")
    assert run.line() == "up", run.errors()
    for when in ("running", "stopped"):
        r = check(sm, run.name, "ok.test", rc=0)
        assert (r["workspace"], r["mode"], r["caps"]["max_conns"]) == (run.name, "strict", 7), r
        step = r["cases"][0]["steps"][-1]
        assert (step["rule"], step["list"], step["place"]) == ("ok.test", "allow", f"{f}:2"), (when, r)
        assert check(sm, run.name, "flag.test", rc=0)["dns"]["place"] == "--egress-allow"
        assert check(sm, run.name, "listed.test", rc=0)["dns"]["place"] == f"{f}:8"
        r = check(sm, run.name, "line.test", rc=1)
        assert (r["dns"]["reason"], r["cases"]) == ("unlisted_name", []), r
        if when == "running":
            other = policy(sm, "allow: [line.test]\n", "other.yaml")
            p = sm.cli("reload", run.name, "--egress-policy", other)
            assert p.returncode == 0, p
            assert check(sm, run.name, "line.test", rc=0)["dns"]["place"] == f"{other}:1"
            check(sm, run.name, "ok.test", rc=1)
            p = sm.cli("reload", run.name, "--egress-policy", f)
            assert p.returncode == 0, p
            run.tell("")
            run.end()
    # A file that is wrong now: it cannot be said, and where.
    policy(sm, "allow:\n  - ok.test\n  - .com\n")
    assert f"{f}:3" in check(sm, run.name, "ok.test", rc=2)


def test_cases_of_a_name(sm):
    r = check(sm, "--egress", "strict", "--egress-allow", ".corp.test", "--egress-allow", "db.corp.test", "db.corp.test:5432", rc=0)
    assert [(c["address"], c["action"], c["inside"]) for c in r["cases"]] == [("public", "allow", None), ("private", "allow", "private"), ("special", "deny", "link_local")], r
    r = check(sm, "--egress", "strict", "--egress-allow", ".corp.test", "www.corp.test", rc=0)
    assert [c["action"] for c in r["cases"]] == ["allow", "deny", "deny"], r
    r = check(sm, "--egress-inside", "203.0.113.0/24", "ok.test", "--address", OK, rc=1)
    assert r["cases"][0]["inside"] == "extra", r
    assert check(sm, "--network", "isolated", "ok.test", rc=1)["reason"] == "isolated"
    assert check(sm, "--egress", "off", "ok.test", rc=0)["cases"][0]["treatment"] == "relayed"
    assert check(sm, "b\u00fccher.test", rc=0)["host"] == "xn--bcher-kva.test"


def test_requests_and_credentials(sm):
    swap = ("--cred-swap", "openai=env:SOME_KEY")
    r = check(sm, *swap, "api.openai.com", "POST", "/v1/chat/completions", rc=0)
    one = r["cases"][0]
    assert one["credential"] == {"name": "openai", "type": "static", "header": "Authorization"} and one["treatment"] == "intercepted", r
    assert one["steps"][-1]["step"] == "request" and one["steps"][0]["place"] == "--cred-swap=openai", r
    assert "SOME_KEY" not in json.dumps(r)
    r = check(sm, *swap, "api.openai.com", "TRACE", "/", rc=1)
    assert (r["cases"][0]["steps"][-1]["reason"], r["cases"][0]["steps"][-1]["status"]) == ("trace_with_credential", 403), r
    r = check(sm, *swap, "api.openai.com:80", "GET", "/", rc=0)
    assert "credential" not in r["cases"][0] and r["cases"][0]["treatment"] == "judged_by_request", r
    r = check(sm, "--egress-passthrough", "ok.test", "ok.test", "GET", "/", rc=0)
    assert r["cases"][0]["steps"][-1]["action"] == "unseen", r
    # As a person reads it.
    p = sm.cli("check", *swap, "api.openai.com", "GET", "/")
    assert p.returncode == 0 and b"api.openai.com port 443 as tls, guarded: allow\n" in p.stdout and b"--cred-swap=openai" in p.stdout, p


def test_nothing_is_sent(sm, world, mark):
    check(sm, "ok.test", rc=0)
    check(sm, OK, "GET", "/", rc=0)
    world.sync()
    assert not world.since(mark, "dns", ev="query") and not world.wire(mark)


def test_wrong_use(sm):
    bad = policy(sm, "allow: [.com]\n", "bad.yaml")
    for args, words in (((), "no HOST"), (("nosuch", "ok.test"), "nosuch"), (("a", "b", "c", "d", "e"), "too many"), (("x y",), "x y"), (("ok.test:0",), "ok.test:0"),
                        (("ok.test:65536",), "ok.test:65536"), (("0x7f.1",), "0x7f.1"), (("*.ok.test",), "*.ok.test"), (("",), "empty"),
                        (("--egress", "strikt", "ok.test"), "--egress=strikt"), (("--egress-policy", bad, "ok.test"), f"{bad}:1"),
                        (("--egress-policy", "/nonexistent.yaml", "ok.test"), "/nonexistent.yaml"), (("--egress", "strict", "ws", "ok.test"), "leave one"),
                        (("--as", "ftp", "ok.test"), "--as=ftp"), (("--as",), "--as"), (("--address", "nope", "ok.test"), "--address=nope"),
                        (("--address", "10.0.0.1", "10.0.0.2"), "already"), (("ok.test", "G T", "/"), "G T"), (("ok.test", "GET", "path"), "path"),
                        (("ok.test", "GET", "/a b"), "/a b"), (("--egress-alow", "x", "ok.test"), "--egress-allow"), (("../x", "ok.test"), "name"),
                        (("--color", "blue", "ok.test"), "--color=blue"), (("ok.test\x1b[31m",), "033")):
        p = sm.cli("check", *args)
        assert p.returncode == 2 and words in p.stderr.decode() and not p.stdout and b"\x1b" not in p.stderr, (args, p)
    assert sm.cli("check", "--help").returncode == 0


def test_of_a_workspace_that_was_only_created(sm):
    p = sm.cli("create", "made", "--egress", "strict", "--egress-allow", "made.test", "--egress-max-bps", "1M")
    assert p.returncode == 0, p
    r = check(sm, "made", "made.test", rc=0)
    assert (r["mode"], r["caps"]["max_bps"], r["dns"]["place"]) == ("strict", 1 << 20, "--egress-allow"), r
    check(sm, "made", "other.test", rc=1)
