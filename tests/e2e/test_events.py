# SPDX-License-Identifier: BSD-3-Clause
"""Each audit event has one scenario that produces it and one neighbour, as close as can be, that does not."""
import pytest
import worldlib as w

OK, EVIL, PROTO = w.WEB["ok.test"], w.WEB["evil.test"], w.PROTO
G = ("--egress", "guarded")
S = ("--egress", "strict", "--egress-allow", "ok.test")
NONE = "pass"

CASES = [  # event, flags and guest code that produce it, flags and code that do not
    ("egress_start", G, NONE, ("--egress", "off"), NONE),
    ("egress_stop", G, NONE, ("--egress", "off"), NONE),
    ("egress_dial", G, f'http("x", "{OK}")', S, f'http("x", "{EVIL}")'),
    ("egress_allow", G, f'http("x", "{OK}")', G, f'attempt("{OK}", {w.CLOSED})'),
    ("egress_close", G, f'http("x", "{OK}")', S, f'http("x", "{EVIL}")'),
    ("egress_deny", S, f'http("evil.test", "{EVIL}")', S, f'http("ok.test", "{EVIL}")'),
    ("egress_internal_deny", G, 'attempt("10.0.0.5", 80)', (*G, "--egress-allow", "10.0.0.5"), 'attempt("10.0.0.5", 80, n=0)'),
    ("egress_dial_error", G, f'attempt("{OK}", {w.CLOSED})', G, f'attempt("{OK}", 80, b"x", n=0)'),
    ("egress_dns_allow", S, 'dns("ok.test")', S, 'dns("www.ok.test")'),
    ("egress_dns_deny", S, 'dns("www.ok.test")', S, 'dns("ok.test")'),
    ("egress_dns_error", G, 'dns("servfail.test")', G, 'dns("nothing.test")'),
    ("egress_udp_allow", G, f'udp("{PROTO}", 7)', S, f'udp("{PROTO}", 7)'),
    ("egress_udp_deny", S, f'udp("{PROTO}", 7)', G, f'udp("{PROTO}", 7)'),
    ("egress_udp_close", G, f'udp("{PROTO}", 7)', S, f'udp("{PROTO}", 7)'),
    ("egress_udp_internal_deny", G, 'udp("10.0.0.5", 7)', (*G, "--egress-allow", "10.0.0.0/24"), 'udp("10.0.0.5", 7)'),
    ("egress_loop_guard", (*G, "--publish", f"{w.CORE}:8443:80/tcp", "--egress-allow", w.CORE), f'attempt("{w.CORE}", 8443)',
     (*G, "--publish", f"{w.CORE}:8443:80/tcp", "--egress-allow", w.CORE), f'attempt("{w.CORE}", 443, b"x", n=0)'),
    ("egress_cap_exceeded", (*G, "--egress-max-conns", "1"), f'a = dial("{PROTO}", 7); a.sendall(b"x"); a.recv(1); attempt("{PROTO}", 7)',
     (*G, "--egress-max-conns", "2"), f'a = dial("{PROTO}", 7); a.sendall(b"x"); a.recv(1); attempt("{PROTO}", 7, b"x", n=1)'),
    ("egress_other_deny", G, f'socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136).sendto(b"x", ("{PROTO}", 7))', G, f'udp("{PROTO}", 7)'),
]


def rows(r, event):
    """IPv6 chatter of the guest's own kernel is real, and not what a scenario is about."""
    return [x for x in r.events(event) if ":" not in str(x.get("dst", ""))]


@pytest.mark.core
@pytest.mark.parametrize("event,flags,code,nflags,ncode", CASES, ids=[c[0] for c in CASES])
def test_event_and_neighbour(sm, event, flags, code, nflags, ncode):
    yes = sm.guest(code, *flags)
    assert rows(yes, event), f"no {event}; audit:\n{yes.text()}"
    no = sm.guest(ncode, *nflags)
    assert not rows(no, event), f"{event} where there should be none; audit:\n{no.text()}"


COMMON = {"ts", "seq", "event", "workspace"}
# host, name_source and rule are left out where there is none; a line that names a rule or a host is asked for below.
FLOW = {"flow", "src", "dst", "port", "reason", "unlisted", "internal"}
FIELDS = {"egress_allow": FLOW, "egress_deny": FLOW, "egress_internal_deny": FLOW, "egress_udp_allow": FLOW, "egress_udp_deny": FLOW,
          "egress_close": FLOW | {"bytes_up", "bytes_down", "duration_ms"}, "egress_udp_close": FLOW | {"bytes_up", "bytes_down", "duration_ms"}}


@pytest.mark.core
def test_fields_order_and_sequence(sm):
    import re
    r = sm.guest(f"""
http("ok.test"); http("evil.test", "{EVIL}"); attempt("10.0.0.5", 80); udp("{PROTO}", 7); udp("{OK}", 443)
""", *S, "--egress-allow", PROTO, name="fields")
    for row in r.audit:
        assert COMMON <= set(row) and row["workspace"] == "fields", row
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", row["ts"]), row
        assert FIELDS.get(row["event"], set()) <= set(row), f"missing: {FIELDS[row['event']] - set(row)}: {row}"
        assert row["mitm"] is False if row["event"] in ("egress_allow", "egress_deny", "egress_close") else not row.get("mitm"), row
    yes, no = r.one("egress_allow", host="ok.test"), r.one("egress_deny", dst=EVIL)
    assert yes["name_source"] == "pin" and yes["rule"] and (no["host"], no["name_source"]) == ("evil.test", "host"), (yes, no)
    assert r.audit[0]["event"] == "egress_start" and r.audit[-1]["event"] == "egress_stop"
    assert [x["ts"] for x in r.audit] == sorted(x["ts"] for x in r.audit)
    order = [x["event"] for x in r.audit if x.get("flow") == r.one("egress_allow", host="ok.test")["flow"]]
    assert order.index("egress_dial") < order.index("egress_close") and order.index("egress_allow") < order.index("egress_close"), order
    assert order[-1] == "egress_close" and order.count("egress_close") == 1


def test_every_allowed_flow_is_closed_when_the_guest_just_ends(sm):
    """CMD exits with connections open: their ends are on record too."""
    r = sm.guest(f'KEEP = [dial("{PROTO}", 7) for _ in range(5)]; [s.sendall(b"x") for s in KEEP]; [s.recv(1) for s in KEEP]', *G)
    a, c = {x["flow"] for x in r.events("egress_allow")}, {x["flow"] for x in r.events("egress_close")}
    assert len(a) == 5 and a == c, r.text()
