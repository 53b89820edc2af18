# SPDX-License-Identifier: BSD-3-Clause
"""The private internet itself, without slirp-med: a test that leans on it must not fail because of it."""
import hashlib
import os
import socket
import subprocess

import guestlib as g
import pytest
import worldlib as w


def test_every_name_answers_over_http_and_tls(world):
    for n, ip in w.WEB.items():
        assert f"host={n} addr={ip}" in g.http(n)["reply"]
        r = g.https(n)
        assert f"addr={ip} sni={n}" in r["reply"] and n in r["cert"]


def test_h2_with_alpn_and_prior_knowledge(world):
    for url in ("https://ok.test/", f"http://ok.test:{w.H2C}/"):
        p = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", "-w", "%{http_version}", url], capture_output=True, text=True)
        assert p.stdout.endswith("2") and "host=ok.test" in p.stdout, p


@pytest.mark.parametrize("ip", w.INSIDE)
def test_inside_addresses_really_answer_and_log(world, mark, ip):
    assert f'"local": "{ip}"' in g.http("x.test", ip)["reply"]
    assert world.accepts(mark, local=ip, port=80)
    assert world.wire(mark, dst=ip, proto="tcp")


def test_core_namespace_owns_no_server_address(world):
    own = subprocess.run(["ip", "-4", "-o", "addr"], capture_output=True, text=True).stdout
    mine = {x.split()[3].split("/")[0] for x in own.splitlines()}
    assert mine == {"127.0.0.1", w.CORE}


def test_no_address_belongs_to_two_servers():
    """The later one would silently take the place of the earlier."""
    groups = [set(x.values()) for x in (w.WEB, w.SITES, w.GIT, w.TLS_BAD, w.CRED_PUBLIC, w.CRED_INSIDE)]
    groups.append(set(w.INSIDE) | {w.PROTO, w.STRANGER, w.OTHER_RESOLVER, w.DNS, w.DNS_PLAIN, w.ROUTER, w.CORE})
    assert sum(len(g) for g in groups) == len(set().union(*groups))


def test_leaks_are_seen(world, mark):
    g.attempt("127.0.0.1", 80, b"x", timeout=0.1, n=1)
    g.attempt(w.CORE, 443, b"y", timeout=0.1, n=1)
    assert {(r["local"], r["port"]) for r in world.leaks(mark) if r["ev"] == "accept"} == {("127.0.0.1", 80), (w.CORE, 443)}


def test_errors_are_the_kernels(world):
    assert g.attempt("203.0.113.10", w.CLOSED)["connect"] == "ECONNREFUSED"
    assert g.attempt(w.UNREACHABLE, 80)["connect"] == "EHOSTUNREACH"
    assert g.attempt(w.PROHIBITED, 80)["connect"] == "EHOSTUNREACH"
    assert g.attempt(w.BLACKHOLE, 80, timeout=0.3)["connect"] == "timeout"


def test_servers_that_speak_first_or_last(world, mark):
    for port, banner in ((w.SSH, w.BANNER_SSH), (w.SMTP, w.BANNER_SMTP)):
        assert g.attempt(w.PROTO, port, n=len(banner))["reply"].encode() == banner
    data = os.urandom(100000)
    r = g.attempt(w.PROTO, w.HALFCLOSE, data, shut=True)
    assert r["reply"] == f"100000 {hashlib.sha256(data).hexdigest()}\n" and r["end"] == "fin"
    r = g.attempt(w.PROTO, w.RST_ON_ACCEPT)
    assert "ECONNRESET" in (r["connect"], r["end"])
    r = g.attempt(w.PROTO, w.RST_MID, b"x")
    assert len(r["reply"]) == 1000 and r["end"] == "ECONNRESET"
    assert g.attempt(w.PROTO, w.FIN_ON_ACCEPT)["end"] == "fin"
    s = g.dial(w.PROTO, w.SERVER_FIN_FIRST)
    assert g.read(s) == (b"bye\n", "fin")
    s.sendall(b"z" * 5000)
    s.close()
    assert world.closed(mark, "finfirst")[0]["bytes"] == 5000


def test_udp_echo_and_stranger(world):
    assert g.udp(w.PROTO, w.ECHO)["got"] == ["ping"]
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(2)
    s.sendto(b"x", (w.PROTO, w.UDP_STRANGER))
    assert {s.recv(100) for _ in range(3)} == {b"stranger", b"answer"}


def test_dns_truth_and_lies(world):
    def ask(n, t=1, **kw):
        return g.dns(n, t, server=w.DNS, timeout=0.3, **kw)
    assert [a[3] for a in ask("ok.test")["answers"]] == [w.WEB["ok.test"]]
    assert ask("nothing.test")["rcode"] == 3 and ask("x.example")["rcode"] == 5
    assert ask("refused.test")["rcode"] == 5 and ask("servfail.test")["rcode"] == 2
    assert ask("trunc.test")["tc"] and ask("trunc.test", tcp=True)["answers"]
    assert len(ask("chain.test")["answers"]) == 3
    assert {ask("rebind.test")["answers"][0][3] for _ in range(2)} == {w.WEB["ok.test"], "10.0.0.5"}
    assert ask("never.test")["error"] == "timeout"
    assert ask("wrongid.test")["id"] != 0x1234
    assert ask("hugetxt.test", 16)["tc"] and ask("hugetxt.test", 16, tcp=True)["size"] > 20000
    assert "ech" in bytes.fromhex(ask("ech.test", 65)["answers"][0][3]).decode("latin-1")
    assert [a[3] for a in g.dns("ok.test", server=w.DNS_PLAIN)["answers"]] == [w.WEB["ok.test"]]


def test_upload_sink_reports_what_it_got(world):
    data = os.urandom(300000)
    p = subprocess.run(["curl", "-sS", "-T", "-", "-H", f"Content-Length: {len(data)}", "-H", "Transfer-Encoding:",
                        f"http://ok.test:{w.UPLOAD}/x"], input=data, capture_output=True)
    assert hashlib.sha256(data).hexdigest() in p.stdout.decode(), p
