# SPDX-License-Identifier: BSD-3-Clause
"""The resolver (spec section 4): what is answered, what makes a pin, what is refused, and that nothing else resolves."""
import os

import pytest
import worldlib as w

OK, EVIL = w.WEB["ok.test"], w.WEB["evil.test"]


def ips(a):
    return [x[3] for x in a.get("answers", []) if x[1] == 1]


@pytest.mark.core
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_answers_are_recorded_with_their_addresses(sm, world, mark, tcp):
    r = sm.guest(f'out["r"] = dns("ok.test", tcp={tcp})', "--egress", "guarded")
    assert ips(r.out["r"]) == [OK] and not r.out["r"]["ad"], r.out
    row = r.one("egress_dns_allow", host="ok.test")
    assert OK in str(row), row


@pytest.mark.core
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("server", [w.OTHER_RESOLVER, "10.0.0.5", w.CORE, "198.51.100.200", "10.0.2.2"])
def test_every_port_53_is_the_cores(sm, world, mark, server, tcp):
    """A question to any other resolver is answered by ours; that one never hears of it."""
    r = sm.guest(f'out["ok"] = dns("ok.test", server="{server}", tcp={tcp}); out["no"] = dns("evil.test", server="{server}", tcp={tcp})',
                 "--egress", "strict", "--egress-allow", "ok.test")
    assert ips(r.out["ok"]) == [OK] and r.out["no"]["rcode"] == 5, r.out
    assert not world.wire(mark, dst=server) and not world.leaks(mark)


def test_port_853_is_refused_at_once(sm, world, mark):
    r = sm.guest(f'out["a"] = attempt("{OK}", 853); out["b"] = attempt(RESOLVER, 853); out["c"] = attempt("{w.PROTO}", 853);'
                 f'out["u"] = udp("{w.PROTO}", 853, timeout=2)', "--egress", "guarded", "--egress-allow", w.PROTO)
    for k in "abc":
        assert sm.refused(r.out[k]) and r.out[k]["ms"] < 300, r.out
    assert r.out["u"].get("error") not in (None, "timeout"), r.out
    assert not world.wire(mark, port=853)
    r.some("egress_deny", port=853)


def test_aaaa_is_nodata_and_the_name_still_works(sm):
    r = sm.guest('out["6"] = dns("v6.test", 28); out["o"] = dns("only6.test", 28); out["r"] = http("v6.test")', "--egress", "guarded")
    assert r.out["6"]["rcode"] == 0 and not r.out["6"]["answers"], r.out
    assert r.out["o"]["rcode"] == 0 and not r.out["o"]["answers"] and r.out["r"]["connect"] == "ok", r.out


def test_truncated_upstream_answer_is_fetched_over_tcp(sm, world, mark):
    r = sm.guest('out["r"] = dns("trunc.test"); out["h"] = dns("hugetxt.test", 16); out["t"] = dns("hugetxt.test", 16, tcp=True)')
    assert ips(r.out["r"]) == [OK], r.out
    world.sync()
    assert {q["proto"] for q in world.since(mark, "dns") if q.get("name") == "trunc.test"} == {"udp", "tcp"}
    assert r.out["h"].get("tc") and r.out["h"]["size"] <= 512, "an answer that does not fit is truncated for the guest too"
    assert r.out["t"].get("size", 0) > 20000, r.out["t"]


@pytest.mark.core
@pytest.mark.parametrize("name,rcode", [("refused.test", 5), ("servfail.test", 2), ("nothing.test", 3)])
def test_errors_pass_through_and_are_recorded(sm, name, rcode):
    r = sm.guest(f'out["r"] = dns("{name}")', "--egress", "guarded")
    # A resolver that refuses us is a failure of ours: SERVFAIL says so; REFUSED is kept for our own verdicts.
    assert r.out["r"].get("rcode") in ({rcode, 2} if rcode == 5 else {rcode}), r.out
    if rcode == 3:
        assert r.some("egress_dns_allow", host=name)
    else:
        assert r.some("egress_dns_error", host=name)


@pytest.mark.parametrize("name", ["loopptr.test", "otherq.test", "wrongid.test", "garbage.test", "short.test", "forged.test", "cnloop.test"])
def test_lies_make_neither_answer_nor_pin(sm, world, mark, name):
    """listed.test's address in a forged answer must not become reachable as listed.test."""
    r = sm.guest(f'out["r"] = dns("{name}", timeout=20); out["h"] = attempt("{EVIL}", 80, b"\\0raw")',
                 "--egress", "strict", "--egress-allow", name, "--egress-allow", "listed.test")
    assert EVIL not in ips(r.out["r"]), r.out
    assert r.out["h"]["end"] == "ECONNRESET" or r.out["h"]["connect"] != "ok", r.out
    assert not world.wire(mark, dst=EVIL)


def test_out_of_bailiwick_records_make_no_pin(sm, world, mark):
    r = sm.guest(f'out["r"] = dns("bailiwick.test"); out["h"] = attempt("{EVIL}", 80, b"\\0raw"); out["ok"] = attempt("{OK}", 7, b"hi", n=2)',
                 "--egress", "strict", "--egress-allow", "bailiwick.test", "--egress-allow", "listed.test")
    assert ips(r.out["r"])[:1] == [OK] and r.out["ok"]["reply"] == "hi", r.out
    assert not world.wire(mark, dst=EVIL)


def test_cname_chain_makes_a_pin(sm, world, mark):
    r = sm.guest('out["r"] = dns("chain.test"); out["h"] = http("chain.test")', "--egress", "strict", "--egress-allow", "chain.test")
    assert ips(r.out["r"]) == [OK] and "addr=" + OK in r.out["h"]["reply"], r.out
    assert r.one("egress_allow", dst=OK)["host"] == "chain.test"


def test_zero_ttl_pin_lives_long_enough(sm):
    r = sm.guest("""
a = dns("zero.test")["answers"][0][3]
time.sleep(1.2)   # longer than the record says: a pin lives at least a minute
out["h"] = attempt(a, 7, b"hi", n=2)
""", "--egress", "strict", "--egress-allow", "zero.test")
    assert r.out["h"]["reply"] == "hi", r.out


def test_ech_is_stripped_and_ad_not_forged(sm):
    r = sm.guest('out["h"] = dns("ech.test", 65); out["s"] = dns("ech.test", 64); out["ad"] = dns("adbit.test")')
    for k in "hs":
        row = bytes.fromhex(r.out[k]["answers"][0][3])
        assert b"echechec" not in row and b"h2" in row, r.out
    assert r.out["ad"]["answers"] and not r.out["ad"]["ad"], r.out


@pytest.mark.parametrize("raw,what", [
    ("struct.pack('!HHHHHH', 7, 0x100, 2, 0, 0, 0) + qname('ok.test') + b'\\0\\1\\0\\1' + qname('other.test') + b'\\0\\1\\0\\1'", "two questions"),
    ("struct.pack('!HHHHHH', 7, 0x100, 0, 0, 0, 0)", "no question"),
    ("struct.pack('!HHHHHH', 7, 0x100, 1, 0, 0, 0) + b'\\xc0\\x0c\\0\\1\\0\\1'", "a pointer to itself"),
    ("struct.pack('!HHHHHH', 7, 0x8100, 1, 0, 0, 0) + qname('ok.test') + b'\\0\\1\\0\\1'", "an answer"),
    ("struct.pack('!HHHHHH', 7, 0x2800, 1, 0, 0, 0) + qname('ok.test') + b'\\0\\6\\0\\1'", "an update"),
    ("struct.pack('!HHHHHH', 7, 0x100, 1, 0, 0, 0) + qname('ok.test') + b'\\0\\1\\0\\3'", "class chaos"),
    ("struct.pack('!HHHHHH', 7, 0x100, 1, 0, 0, 0) + qname('ok.test') + b'\\0\\xfc\\0\\1'", "a zone transfer"),
    ("b'\\0\\7'", "two bytes"),
    ("struct.pack('!HHHHHH', 7, 0x100, 1, 0, 0, 0) + (b'\\x3f' + b'a' * 63) * 5 + b'\\0\\0\\1\\0\\1'", "a name over 255"),
], ids=lambda v: v if " " in v and len(v) < 20 else "")
def test_malformed_questions_are_not_forwarded(sm, world, mark, raw, what):
    r = sm.guest(f'out["r"] = dns("", raw={raw}, timeout=0.7); out["t"] = dns("", raw={raw}, tcp=True, timeout=0.7); out["ok"] = dns("ok.test")')
    for k in "rt":
        assert not r.out[k].get("answers"), r.out
    assert ips(r.out["ok"]) == [OK], "the resolver goes on"
    world.sync()
    assert {q["name"] for q in world.since(mark, "dns", ev="query")} <= {"ok.test"}


def test_slow_names_hold_up_nobody(sm):
    r = sm.guest("""
t = threading.Thread(target=lambda: out.update(never=dns("never.test", timeout=20))); t.start()
s = threading.Thread(target=lambda: out.update(slow=dns("slow.test"))); s.start()
out["ms"] = max(dns("ok.test")["ms"] for _ in range(20))
s.join(); t.join()
""", "--egress", "guarded")
    assert r.out["ms"] < 500 and ips(r.out["slow"]) == [OK], r.out
    assert not ips(r.out["never"]) and r.out["never"]["ms"] < 15000, "second-scale time-outs"
    r.some("egress_dns_error", host="never.test")


def test_query_budget(sm):
    r = sm.guest("""
ask = [dns("ok.test", timeout=3).get("rcode") for _ in range(60)]
out["n"] = {str(k): ask.count(k) for k in set(ask)}
""", "--egress", "guarded", "--egress-dns-qps", "5")
    assert r.out["n"].get("5", 0) >= 20 and r.out["n"].get("0", 0) >= 5, r.out
    rows = r.events("egress_dns_deny")
    assert 1 <= len(rows) <= 10 and all(x["reason"] for x in rows), "one record a second"
    assert sum(x.get("count", 1) for x in rows) == r.out["n"]["5"], rows


def test_another_upstream_resolver_by_flag(sm, world, mark):
    r = sm.guest('out["r"] = dns("ok.test"); out["x"] = dns("inside.test")', "--dns", w.DNS_PLAIN)
    assert ips(r.out["r"]) == [OK] and r.out["x"]["rcode"] == 3, "dnsmasq does not know inside.test"
    assert not world.since(mark, "dns", ev="query")


def test_dead_upstream_resolver(sm):
    r = sm.guest('out["r"] = dns("ok.test", timeout=25)', "--dns", w.BLACKHOLE)
    assert r.out["r"].get("rcode") == 2 and r.out["r"]["ms"] < 15000, r.out
    r.some("egress_dns_error", host="ok.test")


def test_getaddrinfo_and_the_hosts_file_inside(sm):
    r = sm.guest("""
out["a"] = sorted({x[4][0] for x in socket.getaddrinfo("ok.test", 80, socket.AF_INET)})
out["resolv"] = open("/etc/resolv.conf").read()
""")
    assert r.out["a"] == [OK] and "nameserver 10.0.2.3" in r.out["resolv"], r.out
    if not os.path.exists("/etc/hosts"):  # a freshly made root: ours has nothing to lie over
        return
    r = sm.guest("""
out["l"] = sorted({x[4][0] for x in socket.getaddrinfo("localhost", 80, socket.AF_INET)})
out["me"] = socket.gethostbyname(socket.gethostname())
""")
    assert r.out["l"] == ["127.0.0.1"], r.out
