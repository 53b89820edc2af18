# SPDX-License-Identifier: BSD-3-Clause
"""UDP flows, ICMP, IPv6: connected per 4-tuple, fast ICMP for a denial, nothing from a stranger."""
import pytest
import worldlib as w

pytestmark = pytest.mark.both_paths
OK, EVIL = w.WEB["ok.test"], w.WEB["evil.test"]


@pytest.mark.core
def test_echo_both_ways_and_its_records(sm, world, mark):
    r = sm.guest(f'out["r"] = udp("{w.PROTO}", 7, b"x" * 1200); out["big"] = len(udp("{w.PROTO}", 7, b"y" * 1400)["got"][0])', "--egress", "guarded")
    assert r.out["r"]["got"] == ["x" * 1200] and r.out["big"] == 1400, r.out
    rows = r.events("egress_udp_allow", dst=w.PROTO, port=7)
    assert len(rows) == 2 and rows[0]["flow"] != rows[1]["flow"]
    for row in rows:
        c = r.one("egress_udp_close", flow=row["flow"])
        assert c["bytes_up"] == c["bytes_down"] and c["bytes_up"] in (1200, 1400), c


def test_one_socket_many_peers(sm):
    r = sm.guest(f"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
for a in ("{w.PROTO}", "{OK}", "{EVIL}"): s.sendto(a.encode(), (a, 7))
out["r"] = sorted([s.recvfrom(100)[1][0] for _ in range(3)])
""")
    assert r.out["r"] == sorted([w.PROTO, OK, EVIL])


def test_strangers_datagrams_do_not_arrive(sm):
    r = sm.guest(f"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)
s.sendto(b"x", ("{w.PROTO}", {w.UDP_STRANGER})); got = []
try:
    while True: got.append([s.recvfrom(100)[0].decode()])
except TimeoutError: pass
out["r"] = got
""")
    assert r.out["r"] == [["answer"]], r.out


@pytest.mark.core
@pytest.mark.parametrize("cap", [(), ("--egress-max-bps", "1G"), ("--egress-max-total-bytes", "1G")], ids=["no cap", "rate", "total"])
def test_datagrams_keep_their_boundaries_in_batches(sm, cap):
    """What is sent in bursts leaves and comes back as it was: sizes from 0 to the largest, order, and the bytes of the record."""
    r = sm.guest(f"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect(("{w.PROTO}", 7))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
def ask(sizes):
    datagrams = [bytes([n % 251]) * n for n in sizes]
    for d in datagrams: s.send(d)
    want = [d for d in datagrams if d]  # the server's library sends no empty ones back
    return [s.recv(65535) for _ in want] == want
s.send(b"first"); s.recv(10)  # from here on nothing is held for a verdict
bursts = [[1400] * 40, [0, 0, 0, 9], [1, 2, 3, 3, 3, 2, 0, 0, 1], [700] * 20 + [699], [1472, 1473, 1472, 1473], [40000, 40000], [65507], [0, 65507, 0], [1] * 60]
out["ok"] = [ask(b) for b in bursts]; out["bytes"] = 5 + sum(map(sum, bursts))
""", "--egress", "guarded", *cap)
    assert all(r.out["ok"]), r.out
    c = r.one("egress_udp_close", port=7)
    assert c["bytes_up"] == c["bytes_down"] == r.out["bytes"], c


@pytest.mark.core
@pytest.mark.parametrize("mode,dst,event", [("guarded", "10.0.0.5", "egress_udp_internal_deny"), ("strict", "10.0.0.5", "egress_udp_internal_deny"),
                                            ("guarded", w.CORE, "egress_udp_internal_deny"), ("guarded", "169.254.169.254", "egress_udp_internal_deny"),
                                            ("strict", w.PROTO, "egress_udp_deny")])
def test_denial_is_icmp_at_once(sm, world, mark, mode, dst, event):
    r = sm.guest(f'out["r"] = udp("{dst}", 7)', "--egress", mode, "--egress-allow", "ok.test")
    assert r.out["r"].get("error") in ("EHOSTUNREACH", "EACCES", "ECONNREFUSED") and r.out["r"]["ms"] < 500, r.out
    assert r.one(event, dst=dst, port=7)["reason"]
    r.none("egress_udp_allow")
    assert not world.wire(mark) and not world.leaks(mark)


def test_strict_by_pin_and_by_rule(sm):
    r = sm.guest(f'out["a"] = udp(dns("proto.test")["answers"][0][3], 7); out["b"] = udp("{OK}", 7); out["c"] = udp("{EVIL}", 7)',
                 "--egress", "strict", "--egress-allow", "proto.test", "--egress-allow", OK)
    assert r.out["a"]["got"] == ["ping"] and r.out["b"]["got"] == ["ping"] and not r.out["c"]["got"], r.out
    assert r.one("egress_udp_allow", dst=w.PROTO)["host"] == "proto.test"


def test_quic_is_refused_unless_nothing_would_be_inspected(sm, world, mark):
    r = sm.guest(f'out["r"] = udp("{OK}", 443)', "--egress", "guarded")
    assert r.out["r"].get("error") in ("EHOSTUNREACH", "EACCES", "ECONNREFUSED") and r.out["r"]["ms"] < 500, r.out
    assert r.one("egress_udp_deny", port=443)["reason"] and not world.wire(mark, port=443)


@pytest.mark.parametrize("flags,pre", [(("--egress-opaque",), ""), (("--egress-allow", OK), ""),
                                       (("--egress-passthrough", "ok.test"), 'dns("ok.test");')])
def test_quic_exceptions(sm, world, mark, flags, pre):
    r = sm.guest(f'{pre} out["r"] = udp("{OK}", 443, timeout=0.5)', *flags)
    assert world.wire(mark, dst=OK, port=443, proto="udp"), r.text()
    r.one("egress_udp_allow", port=443)


def test_port_853_and_53_are_special(sm, world, mark):
    r = sm.guest(f'out["r"] = udp("{w.PROTO}", 853); out["d"] = dns("ok.test", server="{w.OTHER_RESOLVER}")')
    assert r.out["r"].get("error") not in (None, "timeout") and r.out["d"]["answers"], r.out
    r.none("egress_udp_allow")
    assert not world.wire(mark)


@pytest.mark.slow
def test_an_unreplied_flow_ends_after_thirty_seconds(sm):
    r = sm.guest(f"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b"x", ("{w.PROTO}", {w.UDP_SINK}))
time.sleep(33)   # the product's idle time is what is tested
s.sendto(b"y", ("{w.PROTO}", {w.UDP_SINK})); time.sleep(0.2)
""", "--egress", "guarded", timeout=60)
    rows = r.events("egress_udp_close", port=w.UDP_SINK)
    assert len(rows) == 2 and 29000 <= rows[0]["duration_ms"] <= 34000, r.text()


def test_many_flows_are_bounded_and_the_rest_works(sm):
    r = sm.guest(f"""
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
n = 0
for i in range(3000):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try: s.sendto(b"x", ("{w.PROTO}", {w.UDP_SINK})); n += 1
    except OSError: pass
    s.close()
out["n"] = n; out["tcp"] = http("ok.test")["connect"]; out["dns"] = dns("ok.test")["rcode"]
""", "--egress", "guarded")
    assert r.out["tcp"] == "ok" and r.out["dns"] == 0, r.out


@pytest.mark.core
def test_other_protocols_are_dropped_and_recorded(sm, world, mark):
    """UDP-Lite needs no privilege and is neither TCP nor UDP; so is an ICMP echo where the guest may send one."""
    r = sm.guest(f"""
def lite(dst):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)
    s.settimeout(0.3); s.connect((dst, 7)); s.send(b"x")
    try: return s.recv(10).decode()
    except OSError as e: return err(e)
def ping(dst):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1); s.settimeout(2)
    s.connect((dst, 0)); s.send(b"\\x08\\0\\0\\0\\0\\1\\0\\1ping")
    try: return s.recv(100)[-4:].decode()
    except OSError as e: return err(e)
for k, f, d in (("lite", lite, "{w.PROTO}"), ("ping", ping, "{w.PROTO}"), ("gw", ping, GATEWAY)):
    try: out[k] = f(d)
    except OSError as e: out[k] = "cannot " + err(e)
""", "--egress", "guarded")
    assert r.out["lite"] != "x" and r.out["ping"] != "ping", r.out
    assert r.out["gw"] == "ping" or r.out["gw"].startswith("cannot"), "the gateway answers an echo"
    assert any(not r.out[k].startswith("cannot") for k in ("lite", "ping")), f"this kernel lets the guest send nothing of the kind: {r.out}"
    assert r.some("egress_other_deny", dst=w.PROTO)
    assert not world.wire(mark)


def test_ipv6_goes_nowhere_and_is_recorded(sm, world, mark):
    r = sm.guest("""
n = [l.split() for l in open("/proc/net/if_inet6")] if os.path.exists("/proc/net/if_inet6") else []
out["have"] = [x for x in n if x[5] != "lo"]
for x in out["have"]:
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try: s.sendto(b"x", ("ff02::1", 7, 0, int(x[1], 16))); out["sent"] = True
    except OSError as e: out["sent"] = err(e)
out["c"] = attempt("2001:db8:1::10", 80)["connect"]
""", "--egress", "guarded")
    assert r.out["c"] != "ok", r.out
    if r.out.get("sent") is True:
        assert any(":" in str(x.get("dst", "")) or x.get("proto") in ("ip6", "ipv6", 58, "icmp6") for x in r.events("egress_other_deny")), r.text()
    assert not world.wire(mark, proto="ip6")
