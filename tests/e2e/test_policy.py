# SPDX-License-Identifier: BSD-3-Clause
"""Modes, lists and names: what a guest reaches, by what proof, and what the record says (spec sections 2 and 3)."""
import json

import pytest
import worldlib as w

OK, OTHER, EVIL, LISTED = (w.WEB[n] for n in ("ok.test", "other.test", "evil.test", "listed.test"))
STRICT = ("--egress", "strict", "--egress-allow", "ok.test")


def denied(r, reason=None, status=403):
    """The guest got the page that explains a denial of cleartext HTTP, and nothing else."""
    head, _, body = r["reply"].partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ") and "application/json" in head and r["end"] == "fin", r
    page = json.loads(body)
    assert set(page) == {"error", "reason", "host", "workspace", "hint"} and (not reason or page["reason"] == reason), page


@pytest.mark.core
def test_strict_with_curl_as_the_readme_has_it(sm, world, mark):
    r = sm.run(*STRICT, cmd=["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "https://ok.test/"])
    assert (r.rc, r.stdout) == (0, b"200"), r
    row = r.one("egress_allow", host="ok.test")
    assert (row["dst"], row["port"], row["name_source"], row["mitm"], row["internal"]) == (OK, 443, "pin", True, False), row
    assert row["rule"] and row["src"].startswith("10.0.2.15")
    close = r.one("egress_close", flow=row["flow"])
    assert close["bytes_up"] > 300 and close["bytes_down"] > 300 and close["duration_ms"] >= 0
    assert r.some("egress_dns_allow", host="ok.test")
    r.none("egress_deny")
    assert {p["dst"] for p in world.wire(mark)} == {OK}


@pytest.mark.core
def test_strict_unlisted_name_is_refused_without_a_query(sm, world, mark):
    r = sm.run(*STRICT, cmd=["curl", "-sS", "https://evil.test/"])
    assert r.rc == 6 and b"Could not resolve host" in r.stderr, r
    row = r.some("egress_dns_deny", host="evil.test")
    assert row["reason"]
    world.sync()
    assert not [q for q in world.since(mark, "dns", ev="query") if "evil" in q["name"]]
    assert not world.wire(mark)


@pytest.mark.core
@pytest.mark.parametrize("call", [f'https(None, "{EVIL}")', f'http("{EVIL}", "{EVIL}")', f'https("evil.test", "{EVIL}")',
                                  f'http("evil.test", "{EVIL}")', f'attempt("{EVIL}", 22, b"\\0\\1\\2\\3not any protocol")'],
                         ids=["tls-no-sni", "http-ip-host", "tls-unlisted-sni", "http-unlisted-host", "neither"])
def test_strict_literal_is_refused_and_nothing_is_dialled(sm, world, mark, call):
    r = sm.guest(f"out['r'] = {call}", *STRICT)
    row = r.one("egress_deny", dst=EVIL)
    assert r.out["r"]["connect"] == "ok" and row["reason"], r.out
    if call.startswith("http("):
        denied(r.out["r"], row["reason"])
    else:
        assert r.out["r"]["end"] == "ECONNRESET" and not r.out["r"]["reply"], r.out
    r.none("egress_allow")
    r.none("egress_dial")
    assert not world.wire(mark)


@pytest.mark.core
@pytest.mark.parametrize("ip", w.INSIDE + [w.CORE, "10.0.2.2", "10.255.255.254", "172.31.255.254", "192.168.0.1", "127.0.0.2"])
@pytest.mark.parametrize("mode", ["guarded", "strict"])
def test_inside_addresses_are_refused_at_syn(sm, world, mark, mode, ip):
    if ip.startswith("127."):
        # The guest's own loopback: what matters is that a frame never becomes a connection on the host's.
        r = sm.guest(f'out["r"] = attempt("{ip}", 80)', "--egress", mode)
    else:
        r = sm.guest(f'out["r"] = attempt("{ip}", 80); out["h"] = http("ok.test", "{ip}"); out["s"] = https("ok.test", "{ip}")',
                     "--egress", mode, "--egress-allow", "ok.test")
        for k in "rhs":
            assert sm.refused(r.out[k]) and r.out[k]["ms"] < 500, r.out
        rows = r.events("egress_internal_deny", dst=ip)
        assert {(x["port"], x["internal"]) for x in rows} == {(80, True), (443, True)} and all(x["reason"] for x in rows), r.text()
    r.none("egress_allow")
    assert not world.wire(mark) and not world.leaks(mark)


@pytest.mark.core
def test_guarded_reaches_the_public_internet_without_a_list(sm, world, mark):
    r = sm.guest(f"""
out['name'] = https("evil.test")
out['plain'] = http("other.test")
out['ip'] = http("{LISTED}", "{LISTED}")
""")
    assert f"addr={EVIL} sni=evil.test" in r.out["name"]["reply"] and "addr=" + OTHER in r.out["plain"]["reply"]
    assert "addr=" + LISTED in r.out["ip"]["reply"], r.out
    assert r.one("egress_allow", dst=EVIL)["host"] == "evil.test"
    assert r.one("egress_allow", dst=EVIL)["name_source"] == "pin"
    assert r.one("egress_allow", dst=OTHER)["host"] == "other.test"
    assert r.one("egress_allow", dst=LISTED)["internal"] is False
    r.none("egress_deny")


@pytest.mark.parametrize("flags", [(), ("--egress", ""), ("--egress", "guarded"), ("--egress", "guarded", "--egress-opaque")])
def test_guarded_is_the_default_and_opaque_polices_as_well(sm, world, mark, flags):
    r = sm.guest('out["a"] = http("ok.test"); out["b"] = attempt("10.0.0.5", 80); out["s"] = https("evil.test")', *flags)
    assert "addr=" + OK in r.out["a"]["reply"] and sm.refused(r.out["b"])
    if "--egress-opaque" in flags:
        assert "ok.test" in r.out["s"]["cert"], "the server's own certificate arrives"
    else:
        assert r.out["s"]["cert"] == ["evil.test"], "a leaf of the workspace's CA arrives"
    r.one("egress_internal_deny", dst="10.0.0.5")
    assert not world.wire(mark, dst="10.0.0.5")


@pytest.mark.core
@pytest.mark.parametrize("name,ip", [("inside.test", "10.0.0.5"), ("meta.test", "169.254.169.254"), ("own.test", w.CORE),
                                     ("cgn.test", "100.64.0.9"), ("azure.test", "168.63.129.16"), ("cninside.test", "10.0.0.5")])
def test_a_name_that_resolves_to_inside_is_refused(sm, world, mark, name, ip):
    r = sm.guest(f'out["d"] = dns("{name}"); out["r"] = http("{name}")', "--egress", "guarded")
    assert ip in [a[3] for a in r.out["d"]["answers"]], "guarded DNS resolves freely"
    assert sm.refused(r.out["r"]), r.out
    assert r.one("egress_internal_deny", dst=ip)["internal"] is True
    assert not world.wire(mark, dst=ip) and not world.leaks(mark)


def test_loopback_and_zero_names_reach_no_host_listener(sm, world, mark):
    sm.guest('out["a"] = attempt("127.0.0.1", 80); out["z"] = http("zeroaddr.test"); out["l"] = http("loop.test");'
             'out["g"] = http("x", GATEWAY); out["r"] = http("x", RESOLVER); out["u"] = udp(GATEWAY, 7, timeout=0.5)', "--egress", "guarded")
    assert not world.leaks(mark) and not world.wire(mark)


def test_rebinding_is_judged_on_the_dialled_address(sm, world, mark):
    r = sm.guest("""
for i in range(6):
    a = dns("rebind.test")["answers"][0][3]
    out.setdefault("r", []).append([a, http("rebind.test", a)])
""", "--egress", "guarded")
    assert {a for a, _ in r.out["r"]} == {"10.0.0.5", OK}
    assert all(sm.refused(got) if a == "10.0.0.5" else got["reply"] for a, got in r.out["r"]), r.out
    assert not world.wire(mark, dst="10.0.0.5")


def test_mixed_answers_are_judged_one_by_one(sm, world, mark):
    r = sm.guest(f'out["d"] = dns("mixed.test"); out["in"] = attempt("10.0.0.5", 80); out["ok"] = http("mixed.test", "{OK}")')
    assert sm.refused(r.out["in"]) and "addr=" in r.out["ok"]["reply"]


@pytest.mark.core
@pytest.mark.parametrize("call,port", [(f'https("ok.test", "{EVIL}")', 443), (f'http("ok.test", "{EVIL}")', 80)], ids=["sni", "host"])
def test_strict_forged_name_gets_the_names_own_address(sm, world, mark, call, port):
    """A hard-coded address works, a forged name buys nothing: the core dials its own answer for the name."""
    r = sm.guest(f"out['r'] = {call}", *STRICT)
    assert f"addr={OK}" in r.out["r"]["reply"], r.out
    assert {(p["dst"], p["port"]) for p in world.wire(mark)} == {(OK, port)}
    row = r.one("egress_allow")
    assert row["host"] == "ok.test" and row["port"] == port, row


@pytest.mark.parametrize("call,src", [(f'https("other.test", "{EVIL}")', "sni"), (f'http("other.test", "{EVIL}")', "host")])
def test_guarded_asserted_unlisted_name_is_recorded_as_such(sm, world, mark, call, src):
    r = sm.guest(f"out['r'] = {call}", "--egress", "guarded")
    assert f"addr={EVIL}" in r.out["r"]["reply"], r.out
    row = r.one("egress_allow", dst=EVIL)
    assert (row["host"], row["name_source"], row["unlisted"]) == ("other.test", src, True), row


@pytest.mark.parametrize("mode", ["guarded", "strict"])
def test_forged_names_open_no_inside_address(sm, world, mark, mode):
    r = sm.guest("""
for ip in ("10.0.0.5", "169.254.169.254", "203.0.113.2"):
    out[ip] = [http("ok.test", ip), attempt(ip, 443, hello("ok.test")), http("inside.test", ip)]
""", "--egress", mode, "--egress-allow", "ok.test", "--egress-allow", "inside.test")
    assert all(sm.refused(x) for v in r.out.values() for x in v), r.out
    assert not world.wire(mark)


def test_strict_asserted_listed_name_with_inside_answer(sm, world, mark):
    """meta.test is listed, but who runs its DNS must not open the metadata service: neither by pin nor by assertion."""
    r = sm.guest(f'out["d"] = dns("meta.test"); out["p"] = http("meta.test"); out["a"] = http("meta.test", "{EVIL}")',
                 "--egress", "strict", "--egress-allow", "meta.test")
    assert sm.refused(r.out["p"]), r.out
    denied(r.out["a"], "metadata")
    r.some("egress_internal_deny", dst="169.254.169.254")
    assert not world.wire(mark)


@pytest.mark.parametrize("rule,reach", [("inside.test", True), (".inside.test", False), (".test", None), ("10.0.0.5", True), ("10.0.0.0/24", True),
                                        ("10.0.0.5:80", True), ("10.0.0.5:81", False), ("other.test", False)])
@pytest.mark.parametrize("mode", ["guarded", "strict"])
def test_what_overrides_inside_deny_for_private_ranges(sm, world, mark, mode, rule, reach):
    """Only an IP or CIDR rule, or a pin of an exact listed name."""
    if reach is None:
        r = sm.cli("run", "--egress", mode, "--egress-allow", rule, "--", "true")
        assert r.returncode in (0, 2)  # .test is in no public-suffix list; where one has it, it is refused
        return
    # Strict: an IP rule opens the address, but a name that is asserted on it must be listed too (spec, section 3, step 3).
    host = "10.0.0.5" if mode == "strict" and rule[0].isdigit() else "inside.test"
    r = sm.guest(f'out["d"] = dns("inside.test"); out["r"] = http("{host}", "10.0.0.5")', "--egress", mode, "--egress-allow", rule)
    if reach:
        assert '"local": "10.0.0.5"' in r.out["r"]["reply"], r.out
        row = r.one("egress_allow", dst="10.0.0.5")
        assert row["internal"] is True and row["rule"], row
    else:
        assert sm.refused(r.out["r"]) and not world.wire(mark, dst="10.0.0.5"), r.out


@pytest.mark.parametrize("rule,reach", [("meta.test", False), ("169.254.169.254", True), ("169.254.169.0/24", True), ("169.254.0.0/16", False)])
def test_what_overrides_inside_deny_for_metadata(sm, world, mark, rule, reach):
    r = sm.guest('out["d"] = dns("meta.test"); out["r"] = http("meta.test", "169.254.169.254")', "--egress-allow", rule, rc=None)
    if reach:
        assert '"local": "169.254.169.254"' in r.out["r"]["reply"], r.out
    else:
        assert r.rc == 2 or sm.refused(r.out["r"]), r
        assert not world.wire(mark, dst="169.254.169.254")


def test_own_address_followed_as_it_changes(sm, world, mark):
    """An address that the host gains while a workspace runs is inside from then on."""
    import subprocess
    g = sm.start_guest("""
out["before"] = http("x", "203.0.113.77", timeout=8)
say("asked")
sys.stdin.readline()
out["after"] = http("x", "203.0.113.77")
""", "--egress", "guarded")
    assert g.line() == "asked"
    subprocess.run(["ip", "addr", "add", "203.0.113.77/32", "dev", "lo"], check=True)
    try:
        world.sync()
        g.tell("go")
        r = g.end()
    finally:
        subprocess.run(["ip", "addr", "del", "203.0.113.77/32", "dev", "lo"], check=True)
    assert not r.out["before"]["reply"] and sm.refused(r.out["after"]), r.out
    r.some("egress_internal_deny", dst="203.0.113.77")
    assert not world.leaks(mark)


def test_more_inside_ranges(sm, world, mark):
    r = sm.guest(f'out["a"] = attempt("{OK}", 80); out["b"] = http("x", "198.51.100.10")', "--egress-inside", "203.0.113.0/28")
    assert sm.refused(r.out["a"]) and r.out["b"]["connect"] == "ok", r.out
    r.one("egress_internal_deny", dst=OK)


def test_deny_beats_everything(sm, world, mark):
    r = sm.guest(f"""
out["dns"] = dns("evil.test"); out["sub"] = dns("sub.evil.test")
out["sni"] = https("evil.test", "{LISTED}"); out["host"] = http("sub.evil.test", "{LISTED}"); out["ip"] = http("x", "{OTHER}")
out["ok"] = http("ok.test")
""", "--egress", "guarded", "--egress-allow", "evil.test", "--egress-allow", OTHER, "--egress-deny", ".evil.test", "--egress-deny", OTHER)
    o = r.out
    assert o["dns"]["rcode"] == 5 and o["sub"]["rcode"] == 5, o
    assert o["sni"]["end"] == "ECONNRESET", o
    denied(o["host"], "deny_list")
    assert sm.refused(o["ip"]) and "addr=" + OK in o["ok"]["reply"], o
    assert not world.wire(mark, dst=OTHER)
    world.sync()
    assert not [x for x in world.since(mark, "nginx") if x["local"] == LISTED]


@pytest.mark.parametrize("entry,yes,no", [
    (".wild.test", ["wild.test", "a.wild.test"], ["ok.test"]),
    ("ok.test", ["ok.test", "OK.TEST", "ok.test."], ["www.ok.test", "notok.test", "ok.test.evil.test"]),
    (".ok.test", ["ok.test", "www.ok.test"], ["notok.test", "ok.test.evil.test"]),
    ("OK.Test.", ["ok.test"], ["other.test"]),
    ("bücher.test", ["xn--bcher-kva.test"], ["ok.test"]),
], ids=["suffix", "exact", "suffix-apex", "folded", "idn"])
def test_how_names_match(sm, entry, yes, no):
    r = sm.guest(f"for n in {yes + no!r}: out[n] = dns(n)['rcode']", "--egress", "strict", "--egress-allow", entry)
    assert {n: c for n, c in r.out.items()} == {**dict.fromkeys(yes, 0), **dict.fromkeys(no, 5)}


def test_entry_with_a_port_holds_for_that_port(sm, world, mark):
    r = sm.guest('out["a"] = http("ok.test"); out["b"] = https("ok.test")', "--egress", "strict", "--egress-allow", "ok.test:80")
    assert "addr=" + OK in r.out["a"]["reply"] and not r.out["b"]["reply"], r.out
    assert not world.wire(mark, port=443)


def test_strict_by_ip_and_cidr_rule(sm, world, mark):
    r = sm.guest(f"""
out["ip"] = http("{LISTED}", "{LISTED}"); out["net"] = http("x", "198.51.100.10"); out["raw"] = attempt("198.51.100.10", 7, b"hi", n=2)
out["no"] = http("x", "{EVIL}")
""", "--egress", "strict", "--egress-allow", LISTED, "--egress-allow", "198.51.100.8/29")
    o = r.out
    assert "addr=" + LISTED in o["ip"]["reply"] and o["net"]["connect"] == "ok" and o["raw"]["reply"] == "hi", o
    denied(o["no"])
    assert not world.wire(mark, dst=EVIL)
    assert r.one("egress_allow", dst=LISTED)["name_source"] == "ip"


def test_strict_with_nothing_listed_reaches_nothing(sm, world, mark):
    r = sm.guest(f'out["d"] = dns("ok.test"); out["s"] = https("ok.test", "{OK}"); out["u"] = udp("{w.PROTO}", 7)', "--egress", "strict")
    assert r.out["d"]["rcode"] == 5 and r.out["s"]["end"] == "ECONNRESET" and not r.out["u"]["got"], r.out
    assert not world.wire(mark)


def test_shared_address_asserted_name_picks_among_pins(sm, world, mark):
    """cdn1.test is listed, cdn2.test lives at the same address and is not."""
    r = sm.guest("""
a = dns("cdn1.test")["answers"][0][3]
out["one"] = https("cdn1.test", a); out["two"] = https("cdn2.test", a); out["h2"] = http("cdn2.test", a)
""", "--egress", "strict", "--egress-allow", "cdn1.test")
    assert "sni=cdn1.test" in r.out["one"]["reply"], r.out
    assert not r.out["two"]["reply"], r.out
    denied(r.out["h2"], "unlisted_name")
    assert r.some("egress_deny")["host"] == "cdn2.test"
    world.sync()
    assert {x["sni"] for x in world.since(mark, "nginx")} == {"cdn1.test"}


@pytest.mark.parametrize("mode", ["off", "open", "disabled"])
def test_off_judges_and_records_nothing(sm, world, mark, mode):
    r = sm.guest('out["in"] = http("inside.test"); out["meta"] = http("x", "169.254.169.254"); out["ok"] = https("ok.test");'
                 f'out["ip"] = http("x", "{EVIL}"); out["u"] = udp("{w.PROTO}", 7); out["gw"] = attempt(GATEWAY, 80)["connect"]',
                 "--egress", mode)
    o = r.out
    assert '"local": "10.0.0.5"' in o["in"]["reply"] and '"local": "169.254.169.254"' in o["meta"]["reply"], o
    assert "sni=ok.test" in o["ok"]["reply"] and "addr=" + EVIL in o["ip"]["reply"] and o["u"]["got"] == ["ping"], o
    assert not r.audit, r.text()
    assert not world.leaks(mark), "the host's loopback stays closed"


def test_http2_preface_is_classified(sm, world, mark):
    pre = r'b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"'
    r = sm.guest(f"out['g'] = attempt('{OK}', {w.H2C}, {pre}, n=9)", "--egress", "guarded")
    assert len(r.out["g"]["reply"]) == 9 and r.out["g"]["reply"][3] == "\x04", r.out
    r = sm.guest(f"out['s'] = attempt('{EVIL}', {w.H2C}, {pre}, n=9)", *STRICT)
    assert r.out["s"]["end"] == "ECONNRESET" and not world.wire(mark, dst=EVIL), r.out
