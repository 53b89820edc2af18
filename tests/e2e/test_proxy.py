# SPDX-License-Identifier: BSD-3-Clause
"""`slirp-med proxy`: clients on a network whose only neighbour is the proxy (spec section 11)."""
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import guestlib
import proxylib as px
import pytest
import worldlib as w
from credlib import canary, static, swap_file

OK = w.WEB["ok.test"]


@pytest.fixture(scope="module")
def box():
    b = px.Box(px.PROXY, px.CLIENT, "px0")
    yield b
    b.close()


@pytest.fixture(scope="module")
def other():
    b = px.Box(px.OTHER_PROXY, px.OTHER_CLIENT, "px1")
    yield b
    b.close()


def page(body):
    return json.loads(body)["reason"]


def test_a_container_without_a_gateway(sm, box):
    """Without the proxy nothing is reached, and with it what the policy lets through."""
    assert box.run(["ip", "route", "show", "default"]).stdout == b""
    r = box.run(["curl", "-sS", "-m", "5", f"http://{OK}/"])
    assert r.returncode == 7, r  # no route
    p = px.start(sm)
    assert px.curl(box, "http://ok.test/")[0] == 200
    r = p.stop()
    assert r.one("egress_allow", host="ok.test")["name_source"] == "connect"


@pytest.mark.core
def test_intercepted(sm, box):
    p = px.start(sm)
    out = p.p.stdout.readline().decode() + p.p.stdout.readline().decode() + p.p.stdout.readline().decode()
    assert f"HTTPS_PROXY=http://{px.PROXY}:{px.PORT}" in out and p.ca in out
    code, body, _, r = px.curl(box, "http://origin.test/plain")
    assert code == 200, r
    code, body, tunnel, r = px.curl(box, "https://origin.test/secret?x=y", "--cacert", p.ca)
    assert (code, tunnel) == (200, 200), r
    code, body, tunnel, r = px.curl(box, "https://h2.test/two", "--cacert", p.ca, "--http2")
    assert code == 200, r
    # A certificate that the world's CA did not make: the client sees it only because it trusts the workspace's.
    code, _, tunnel, r = px.curl(box, "https://origin.test/", "--cacert", sm.world.ca)
    assert code == 0 and tunnel == 200 and r.returncode == 60, r
    r = p.stop()
    assert r.one("egress_start")["datapath"] == "proxy"
    row = r.one("egress_http_request", path="/plain")
    assert (row["name_source"], row["host"], row["mitm"]) == ("connect", "origin.test", False)
    assert row["src"].startswith(px.CLIENT + ":") and row["dst"] == w.SITES["origin.test"]
    row = r.one("egress_http_request", path="/secret")
    assert (row["name_source"], row["mitm"], row["port"]) == ("connect", True, 443)
    assert r.one("egress_http_request", path="/two")["protocol"] == "HTTP/2"


@pytest.mark.core
def test_events(sm, box):
    """A flow's lines from the first to the last, in their order."""
    p = px.start(sm)
    assert px.curl(box, "http://origin.test/plain")[0] == 200
    r = p.stop()
    assert [r.audit[0]["event"], r.audit[-1]["event"]] == ["egress_start", "egress_stop"]
    flow = r.events("egress_dns_query", host="origin.test")[0]["flow"]
    assert r.one("egress_dns_allow", flow=flow)["answers"] == [w.SITES["origin.test"]]
    assert [x["event"] for x in r.audit if x.get("flow") == flow] == ["egress_dns_query", "egress_dns_allow", "egress_dial", "egress_allow",
                                                                      "egress_http_request", "egress_http_response", "egress_close"]


def test_what_goes_on_and_what_comes_back(sm, box, world, mark):
    """Nothing of the proxy reaches the origin, and the connection ends with the answer, which says so."""
    p = px.start(sm)
    head = (b"GET http://origin.test/hop HTTP/1.1\r\nHost: origin.test\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\n"
            b"Proxy-Foo: bar\r\nConnection: keep-alive\r\nX-Kept: 1\r\n\r\n")
    got = px.ask(box, head)
    assert got.startswith(b"HTTP/1.1 200") and b"connection: close" in got.split(b"\r\n\r\n")[0].lower(), got
    row, = world.requests(mark, path="/hop")
    names = [k.strip().lower() for k, _ in row["headers"]]
    assert sorted(names) == ["connection", "host", "x-kept"]
    assert b"Basic" not in world.received(mark)
    # A second request on the connection, for another host, is never answered by that host.
    got = px.ask(box, b"GET http://origin.test/one HTTP/1.1\r\nHost: origin.test\r\n\r\n"
                      b"GET http://alias.test/smuggled HTTP/1.1\r\nHost: alias.test\r\n\r\n")
    assert got.count(b"HTTP/1.1 200") == 1, got
    assert world.requests(mark, path="/smuggled") == []
    # Bodies of both framings, and HEAD.
    for i, framing in enumerate((["-H", "Transfer-Encoding: chunked"], [])):
        code, body, _, r = px.curl(box, f"http://origin.test/up{i}", "-d", "hello-body", *framing)
        assert code == 200, r
    assert world.received(mark).count(b"hello-body") == 2
    code, _, _, r = px.curl(box, "http://origin.test/head", "-I")
    assert code == 200, r
    p.stop()


class Rude(threading.Thread):
    """An origin that answers without saying that it closes, and listens to what else is said."""

    def __init__(self, connections=1):
        super().__init__(daemon=True)
        self.s = socket.create_server(("127.0.0.1", 0))
        self.port = self.s.getsockname()[1]
        self.got, self.connections = b"", connections
        self.start()

    def run(self):
        for _ in range(self.connections):
            c, _ = self.s.accept()
            with c:
                while (b := c.recv(65536)) and b"\r\n\r\n" not in self.got + b:
                    self.got += b
                self.got += b
                if b:
                    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nrude")
                while b and (b := c.recv(65536)):
                    self.got += b


@pytest.mark.core
@pytest.mark.parametrize("flags", [("--egress", "off"), ("--egress-opaque",), ()])
def test_an_origin_that_keeps_its_connection_gets_no_second_request(sm, box, flags):
    """A client speaks on with the proxy, on the connection that it has: with the proxy's credentials, and for another host."""
    rude, secret = Rude(), canary("proxy")
    p = px.start(sm, *flags, "--route", f"rude.test=http://127.0.0.1:{rude.port}", "--proxy-auth", "env:PROXY_USER", ca="off" not in flags,
                 env={"PROXY_USER": f"agent:{secret}"})
    proxy = f"http://agent:{secret}@{px.PROXY}:{px.PORT}"
    r = box.run(["curl", "-sS", "-m", "20", "-x", proxy, "http://rude.test/one", "http://origin.test/two"])
    assert r.stdout.startswith(b"rude{") and b'"/two"' in r.stdout, r
    rude.join(10)
    assert not rude.is_alive() and rude.got.count(b"HTTP/1.1") == 1 and b"/two" not in rude.got and b"Basic" not in rude.got, rude.got
    p.stop()


@pytest.mark.core
@pytest.mark.parametrize("flags", [("--egress-opaque",), (), ("--egress", "strict")])
def test_a_route_is_for_http(sm, box, flags):
    """A tunnel to a route's name that says something else, or lets the upstream speak first, is ended, and nothing of it goes on."""
    said = (b"SSH-2.0-x\r\n", b"GO", guestlib.hello("rude.test"), b"\0\1\2\3")
    upstream = Rude(len(said))
    p = px.start(sm, *flags, "--route", f"rude.test=http://127.0.0.1:{upstream.port}", ca="--egress-opaque" not in flags)
    for words in said:
        with box.connect() as s:
            s.sendall(b"CONNECT rude.test:80 HTTP/1.1\r\nHost: rude.test:80\r\n\r\n")
            assert s.recv(65536).startswith(b"HTTP/1.1 200")
            s.sendall(words)
            if words == b"GO":  # may become a request as long as there may be more
                s.shutdown(socket.SHUT_WR)
            assert px.read_all(s) == b""
    upstream.join(10)
    assert not upstream.is_alive() and upstream.got == b""
    r = p.stop()
    assert {(x["reason"], x["host"]) for x in r.events("egress_deny")} == {("route_not_http", "rude.test")} and not r.events("egress_allow")


@pytest.mark.core
@pytest.mark.parametrize("flags", [("--egress-passthrough", "origin.test"), ()])
def test_what_is_said_behind_a_request_goes_nowhere(sm, box, world, mark, flags):
    p = px.start(sm, *flags)
    one = b"GET http://origin.test/one HTTP/1.1\r\nHost: origin.test\r\nProxy-Authorization: Basic Y2FuYXJ5\r\n"
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    got = px.ask(box, one + b"\r\n" + one.replace(b"/one", b"/two") + b"\r\n")
    assert got.count(b"HTTP/1.1 200") == 1, got
    with box.connect() as s:  # a websocket that the origin does not want: it answers, and would answer again
        s.sendall(one + upgrade + b"\r\n")
        assert s.recv(65536).startswith(b"HTTP/1.1 200")
        s.sendall(one.replace(b"/one", b"/two") + b"\r\n")
        assert b"HTTP/1.1" not in px.read_all(s)
    assert b"Y2FuYXJ5" not in world.received(mark) and world.requests(mark, path="/two") == []
    p.stop()


@pytest.mark.core
def test_strict(sm, box):
    p = px.start(sm, "--egress", "strict", "--egress-allow", "origin.test", "--egress-passthrough", "h2.test", "--egress-deny", "evil.test",
                 "--egress-allow", "evil.test")
    q = px.start(sm, "--egress", "strict", "--egress-allow", "origin.test", listen=f"{px.PROXY}:0")
    second = q.p.stdout.readline().decode().split("=")[1].strip()
    assert px.curl(box, "https://origin.test/", "--cacert", p.ca)[0] == 200
    code, body, _, r = px.curl(box, "https://h2.test/", "--cacert", sm.world.ca)  # passthrough: the server's own certificate
    assert code == 200, r
    for url in ("http://evil.test/", "https://evil.test/"):
        code, body, tunnel, r = px.curl(box, url, "--cacert", p.ca)
        assert 403 in (code, tunnel), r
    code, body, _, r = px.curl(box, "http://evil.test/")
    assert page(body) == "deny_list"
    code, body, _, r = px.curl(box, "http://other.test/", proxy=second)
    assert code == 403 and page(body) == "unlisted_name", r
    code, body, _, r = px.curl(box, f"http://{OK}/", proxy=second)
    assert code == 403 and page(body) == "no_name", r
    got = px.ask(box, b"CONNECT other.test:443 HTTP/1.1\r\n\r\n", addr=(px.PROXY, int(second.rsplit(":", 1)[1])))
    assert got.startswith(b"HTTP/1.1 403") and page(got.split(b"\r\n\r\n", 1)[1]) == "unlisted_name"
    rp, rq = p.stop(), q.stop()
    rp.some("egress_deny", host="evil.test", reason="deny_list", name_source="connect")
    rp.none("egress_http_request", host="h2.test")
    rq.some("egress_deny", host="other.test", reason="unlisted_name", name_source="connect")
    rq.none("egress_dns_query", host="other.test")


ODD = ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "10.5", "0xa9fea9fe", "2852039166"]


@pytest.mark.core
def test_inside_is_denied(sm, box, world, mark):
    p = px.start(sm)
    for ip in w.INSIDE:
        code, body, _, r = px.curl(box, f"http://{ip}/")
        assert code == 403, (ip, r)
        got = px.ask(box, f"CONNECT {ip}:443 HTTP/1.1\r\n\r\n".encode())
        assert got.startswith(b"HTTP/1.1 403"), (ip, got)
    assert page(px.curl(box, "http://169.254.169.254/latest/meta-data/")[1]) == "metadata"
    for ip in ("127.0.0.1", "0.0.0.0", w.CORE, px.PROXY, px.CLIENT, f"{px.PROXY}:{px.PORT}"):
        code, body, _, r = px.curl(box, f"http://{ip}/")
        assert code == 403, (ip, r)
    for name in ("inside.test", "metadata.test", "loop.test"):
        code, body, _, r = px.curl(box, f"http://{name}/")
        assert code in (403, 502), (name, r)
    for odd in ODD:
        got = px.ask(box, f"CONNECT {odd}:80 HTTP/1.1\r\n\r\n".encode())
        assert got.startswith(b"HTTP/1.1 400") and page(got.split(b"\r\n\r\n", 1)[1]) == "bad_name", (odd, got)
        got = px.ask(box, f"GET http://{odd}/ HTTP/1.1\r\nHost: {odd}\r\n\r\n".encode())
        assert got.startswith(b"HTTP/1.1 400"), (odd, got)
    for v6 in ("[::1]", "[::ffff:10.0.0.5]", "[2001:db8:1::1]", "[fd00:ec2::254]"):
        got = px.ask(box, f"CONNECT {v6}:80 HTTP/1.1\r\n\r\n".encode())
        assert got.startswith(b"HTTP/1.1 403"), (v6, got)
    world.sync()
    assert [x for x in world.wire(mark) if x.get("dst") in w.INSIDE] == []
    r = p.stop()
    for ip in w.INSIDE:
        r.some("egress_internal_deny", dst=ip)
    r.some("egress_loop_guard", dst=px.PROXY)
    r.some("egress_deny", reason="bad_name")
    r.none("egress_allow")


def test_rebinding(sm, box, world, mark):
    """A name whose second answer is inside: each connection is judged by the address that it gets."""
    p = px.start(sm)
    codes = {px.curl(box, "http://rebind.test/")[0] for _ in range(6)}
    world.sync()
    assert [x for x in world.wire(mark) if x.get("dst") in w.INSIDE] == []
    assert 403 in codes, codes
    r = p.stop()
    r.some("egress_internal_deny", host="rebind.test")


def test_errors_of_upstream(sm, box):
    p = px.start(sm)
    code, body, _, r = px.curl(box, f"http://{OK}:{w.CLOSED}/")
    assert code == 502 and page(body) == "upstream_refused", r
    code, body, _, r = px.curl(box, f"http://{w.UNREACHABLE}/")
    assert code == 504 and page(body) == "upstream_unreachable", r
    code, body, _, r = px.curl(box, "http://nx.test/")
    assert code == 502 and page(body) == "unresolved", r
    code, _, tunnel, r = px.curl(box, "https://expired.test/", "--cacert", p.ca)
    assert tunnel == 200 and code == 0, r  # an alert, and no certificate of ours
    r = p.stop()
    r.some("egress_dial_error", dst=OK, port=w.CLOSED, reason="refused")
    r.one("egress_mitm_upstream_error", host="expired.test", reason="certificate_expired")


@pytest.mark.core
def test_credentials_of_the_proxy(sm, box, world, mark):
    secret = canary("proxy")
    p = px.start(sm, "--proxy-auth", "env:PROXY_USER", env={"PROXY_USER": f"agent:{secret}"})
    for proxy in ("", "agent:wrong@", "other:" + secret + "@", f"agent:{secret}x@"):
        code, body, _, r = px.curl(box, "http://origin.test/no", proxy=f"http://{proxy}{px.PROXY}:{px.PORT}")
        assert code == 407 and page(body) == "proxy_authorization", r
        _, _, tunnel, r = px.curl(box, "https://origin.test/no", "--cacert", p.ca, proxy=f"http://{proxy}{px.PROXY}:{px.PORT}")
        assert tunnel == 407, r
    got = px.ask(box, b"CONNECT origin.test:443 HTTP/1.1\r\n\r\n")
    assert b'\r\nProxy-Authenticate: Basic realm="slirp-med"\r\n' in got
    good = f"http://agent:{secret}@{px.PROXY}:{px.PORT}"
    assert px.curl(box, "http://origin.test/yes", proxy=good)[0] == 200
    assert px.curl(box, "https://origin.test/yes2", "--cacert", p.ca, proxy=good)[0] == 200
    assert secret.encode() not in world.received(mark)
    assert world.requests(mark, path="/no") == []
    for pid in p.pids().values():
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            assert secret.encode() not in f.read()
    r = p.stop()
    assert r.some("egress_other_deny", reason="proxy_auth")["src"] == px.CLIENT
    assert secret not in r.text() and secret.encode() not in r.stderr and secret.encode() not in r.stdout


def test_flags_that_are_wrong(sm, tmp_path):
    lit = canary("literal")
    for args, what in (((), b"--listen"), (("--listen", "172.20.0.1"), b"ADDRESS:PORT"), (("--listen", "0.0.0.0:3128"), b"--client-net"),
                       (("--listen", "127.0.0.1:0", "--proxy-auth", lit), b"--proxy-auth"),
                       (("--listen", "127.0.0.1:0", "--proxy-auth", "env:UNSET_VARIABLE"), b"ref_missing"),
                       (("--listen", "127.0.0.1:0", "--route", "search"), b"'search'"), (("--listen", "127.0.0.1:0", "--route", "a=https://b"), b"http://"),
                       (("--listen", "127.0.0.1:0", "--client-net", "10.0.0.1/8"), b"--client-net"), (("--listen", "203.0.113.99:1"), b"--listen"),
                       (("--listen", "127.0.0.1:0", "--publish", "1:2"), b"--publish"), (("--listen", "127.0.0.1:0", "--", "true"), b"no command")):
        r = sm.cli("proxy", "bad", *args)
        assert r.returncode == 2 and what in r.stderr, (args, r)
        assert lit.encode() not in r.stderr
    assert not os.path.exists(os.path.join(sm.state, "slirp-med", "bad", "egress.jsonl"))
    r = sm.cli("proxy", "--listen", "127.0.0.1:0", "--dry-run", "--json")
    assert r.returncode == 0 and json.loads(r.stdout)["datapath"] == "proxy"


def test_who_may_come(sm, box, other):
    """A client of another network, even if it reaches the listener, gets nothing, and is recorded."""
    p = px.start(sm, listen=f"0.0.0.0:{px.PORT}", name="nets", *("--client-net", px.NET))
    assert px.curl(box, "http://origin.test/")[0] == 200
    r = other.run(["curl", "-sS", "-m", "10", "-x", f"http://{px.OTHER_PROXY}:{px.PORT}", "http://origin.test/"])
    assert r.returncode in (7, 52, 56), r  # reset, sooner or later
    r = sm.cli("publish", "nets", "127.0.0.1:0:80/tcp")
    assert r.returncode != 0 and b"proxy" in r.stderr, r
    r = p.stop()
    assert r.some("egress_other_deny", reason="proxy_client")["src"] == px.OTHER_CLIENT
    assert all(x["src"].startswith(px.CLIENT) for x in r.events("egress_allow"))


def test_two_networks_two_workspaces(sm, box, other):
    """Each has its own policy and record; the default of who may come is the interface's network; one cannot be reached through the other."""
    a = px.start(sm, "--egress", "strict", "--egress-allow", "ok.test", name="net-a")
    b = px.start(sm, "--egress", "strict", "--egress-allow", "other.test", name="net-b", listen=f"{px.OTHER_PROXY}:{px.PORT}")
    to_b = f"http://{px.OTHER_PROXY}:{px.PORT}"
    assert px.curl(box, "http://ok.test/")[0] == 200
    assert px.curl(box, "http://other.test/")[0] == 403
    assert px.curl(other, "http://other.test/", proxy=to_b)[0] == 200
    assert px.curl(other, "http://ok.test/", proxy=to_b)[0] == 403
    for target in (px.OTHER_CLIENT, px.OTHER_PROXY):
        assert px.curl(box, f"http://{target}:{px.PORT}/")[0] == 403
    ra, rb = a.stop(), b.stop()
    assert {x["host"] for x in ra.events("egress_allow")} == {"ok.test"}
    assert {x["host"] for x in rb.events("egress_allow")} == {"other.test"}


@pytest.mark.core
def test_sni_has_to_be_the_name_of_connect(sm, box, world, mark):
    p = px.start(sm, "--egress-passthrough", "h2.test")
    for name in ("origin.test", "h2.test"):
        addr = ["--connect-to", f"alias.test:443:{name}:443"]  # the URL's name is the SNI, the tunnel is for another
        code, _, tunnel, r = px.curl(box, "https://alias.test/fronted", "-k", *addr)
        assert tunnel == 200 and code == 0, r
    # The right SNI and another Host inside.
    code, body, _, r = px.curl(box, "https://origin.test/fronted", "--cacert", p.ca, "-H", "Host: alias.test")
    assert code == 421 and page(body) == "authority_mismatch", r
    code, body, _, r = px.curl(box, "http://origin.test/fronted", "-p", "-H", "Host: alias.test")
    assert code == 421, r
    code, body, _, r = px.curl(box, "http://origin.test/fronted", "-H", "Host: alias.test")  # absolute form
    assert code == 400 and page(body) == "http_host_mismatch", r
    assert world.requests(mark, path="/fronted") == []
    r = p.stop()
    assert len(r.events("egress_deny", reason="name_mismatch")) == 2
    r.some("egress_deny", reason="authority_mismatch")


def test_other_protocols_through_connect(sm, box):
    """A server that speaks first, and one that nobody can classify: as on any flow."""
    p = px.start(sm)
    with box.connect() as s:
        s.sendall(f"CONNECT proto.test:{w.SSH} HTTP/1.1\r\n\r\n".encode())
        got = b""
        while w.BANNER_SSH not in got:
            got += s.recv(4096)
        assert got == b"HTTP/1.1 200 Connection established\r\n\r\n" + w.BANNER_SSH
        s.sendall(b"QUIT\r\n")
        assert s.recv(100) == b"QUIT\r\n"
    with box.connect() as s:
        s.sendall(f"CONNECT proto.test:{w.ECHO} HTTP/1.1\r\n\r\n".encode() + b"\x00\x01early")
        got = b""
        while len(got) < 39 + 7:
            got += s.recv(4096)
        assert got.endswith(b"\x00\x01early")
        data = w.pattern(1 << 20)
        t = threading.Thread(target=s.sendall, args=(data,))
        t.start()
        back = b""
        while len(back) < len(data):
            back += s.recv(1 << 16)
        t.join()
        assert back == data
        s.shutdown(socket.SHUT_WR)
        assert s.recv(1) == b""
    r = p.stop()
    r.one("egress_allow", port=w.SSH, classified="server_first", name_source="connect")
    assert r.one("egress_close", port=w.ECHO)["bytes_up"] == (1 << 20) + 7


def test_a_websocket_over_absolute_form(sm, box, world):
    p = px.start(sm)
    got = b""
    with box.connect() as s:
        s.sendall(b"GET http://origin.test/ws HTTP/1.1\r\nHost: origin.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        while b"\r\n\r\n" not in got:
            b = s.recv(4096)
            assert b, got
            got += b
    assert got.startswith(b"HTTP/1.1 101"), got
    p.stop()


@pytest.mark.core
def test_a_credential_is_injected(sm, box, world, mark, tmp_path):
    key = canary()
    p = px.start(sm, "--egress", "strict", "--egress-allow", "origin.test", *swap_file(tmp_path, api=static("origin.test")), env={"API_KEY": key})
    code, body, _, r = px.curl(box, "https://origin.test/cred", "--cacert", p.ca, "-H", "Authorization: mine")
    assert code == 200, r
    row, = world.requests(mark, path="/cred")
    assert [v.strip() for k, v in row["headers"] if k.lower() == "authorization"] == [f"Bearer {key}"]
    assert key.encode() not in body
    code, body, _, r = px.curl(box, "http://origin.test/clear", "-H", "Authorization: mine")  # never on cleartext
    assert world.received(mark).count(key.encode()) == 1, r
    r = p.stop()
    r.one("egress_swap", name="api")
    assert key not in r.text()


def test_caps(sm, box):
    p = px.start(sm, "--egress-max-conns", "1", name="conns")
    with box.connect() as s:
        s.sendall(f"CONNECT proto.test:{w.SSH} HTTP/1.1\r\n\r\n".encode())
        assert s.recv(12) == b"HTTP/1.1 200"
        got = px.ask(box, b"CONNECT origin.test:443 HTTP/1.1\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 503") and page(got.split(b"\r\n\r\n", 1)[1]) == "limit", got
    r = p.stop()
    r.some("egress_deny", reason="max_conns")
    p = px.start(sm, "--egress-max-total-bytes", "1M", name="total")
    got = px.ask(box, f"CONNECT proto.test:{w.SOURCE_NOW} HTTP/1.1\r\n\r\n".encode())
    assert len(got) < (2 << 20)
    got = px.ask(box, b"CONNECT origin.test:443 HTTP/1.1\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 503"), got
    r = p.stop()
    r.some("egress_cap_exceeded")


@pytest.mark.core
def test_route(sm, box):
    search = px.Search()
    p = px.start(sm, "--egress", "strict", "--egress-allow", "ok.test", "--route", f"search=http://127.0.0.1:{search.port}")
    try:
        code, body, _, r = px.curl(box, "http://search/search?q=agents&format=json")
        assert code == 200 and json.loads(body) == {"results": []}, r
        assert search.heads[0].startswith(b"GET /search?q=agents&format=json HTTP/1.1\r\nHost: search\r\n")
        code, body, _, r = px.curl(box, "http://search/again", "-p")
        assert code == 200, r
        code, body, _, r = px.curl(box, f"http://127.0.0.1:{search.port}/")
        assert code == 403, r
        code, body, _, r = px.curl(box, "http://search:81/")
        assert code == 403 and page(body) == "unlisted_name", r
        st = json.loads(sm.cli("status", p.name, "--json").stdout)
        assert st["network"]["proxy"]["routes"] == [f"search:80=http://127.0.0.1:{search.port}"] and st["datapath"] == "proxy"
    finally:
        search.close()
    r = p.stop()
    row = r.events("egress_allow", host="search")[0]
    assert (row["rule"], row["reason"], row["dst"], row["port"], row["dialled"], row["unlisted"]) == (
        "route search", "route", "127.0.0.1", 80, f"127.0.0.1:{search.port}", False)
    r.one("egress_http_request", path="/search", authority="search")


def test_python_requests(sm, box):
    if subprocess.run(["/usr/bin/python3", "-c", "import requests"], capture_output=True).returncode:
        pytest.skip("python3-requests is not installed (./dev setup clients)")
    p = px.start(sm)
    code = """
import requests
for url in ("http://origin.test/a", "https://origin.test/b", "https://h2.test/c"):
    r = requests.get(url, timeout=20)
    assert r.status_code == 200, (url, r.status_code)
r = requests.get("http://10.0.0.5/", timeout=20)
assert r.status_code == 403 and r.json()["reason"] == "inside", r.text
try:
    requests.get("https://10.0.0.5/", timeout=20)
    raise SystemExit("it went through")
except requests.exceptions.ProxyError as e:
    assert "403" in str(e), e
print("done")
"""
    url = f"http://{px.PROXY}:{px.PORT}"
    r = box.run(["/usr/bin/python3", "-B", "-c", code], env={"http_proxy": url, "https_proxy": url, "REQUESTS_CA_BUNDLE": p.ca})
    assert r.stdout == b"done\n", r
    p.stop()


def test_slow_and_many_clients(sm, box):
    """Heads that come a byte at a time end after their time; thousands of idle connections cost the others nothing."""
    p = px.start(sm)
    idle = [box.connect() for _ in range(1100)]  # more than heads are waited for: the oldest make room
    begun = time.monotonic()
    slow = box.connect()
    slow.sendall(b"GET http://origin.test/ HTTP/1.1\r\nX: ")
    assert px.curl(box, "http://origin.test/")[0] == 200
    got = b""
    slow.settimeout(1)
    while b"\r\n\r\n" not in got and time.monotonic() < begun + 40:
        try:
            slow.sendall(b"a")
            got += slow.recv(4096)
        except socket.timeout:
            pass
    assert got.startswith(b"HTTP/1.1 408"), got
    assert 10 < time.monotonic() - begun < 30
    for s in idle + [slow]:
        s.close()
    big = box.connect()
    big.sendall(b"CONNECT " + b"a" * 20000)
    assert px.read_all(big).startswith(b"HTTP/1.1 431")
    assert px.ask(box, b"\x16\x03\x01\x02\x00\x01").startswith(b"HTTP/1.1 400")
    assert px.ask(box, b"GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n").startswith(b"HTTP/1.1 400")
    front = json.loads(sm.cli("status", p.name, "--json").stdout)["reports"]["front"]
    assert front["bad_requests"] >= 4 and front["heads_now"] == 0, front
    r = p.stop()
    assert r.some("egress_other_deny", reason="proxy_request")["src"] == px.CLIENT


@pytest.mark.parametrize("role", ["core", "proxy-front", "proxy"])
def test_the_death_of_a_process_ends_the_workspace(sm, box, role):
    p = px.start(sm)
    s = box.connect()
    s.sendall(f"CONNECT proto.test:{w.SSH} HTTP/1.1\r\n\r\n".encode())
    assert s.recv(12) == b"HTTP/1.1 200"
    os.kill(p.pids()[role], signal.SIGKILL)
    rest = px.read_all(s)  # it ends
    assert len(rest) < 200
    r = p.end()
    assert r.rc != 0
    w.wait_for("all of it to be gone", lambda: not sm.left())
    with pytest.raises(ConnectionRefusedError):
        box.connect()


def test_a_reload_ends_what_is_not_allowed_any_more(sm, box, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text("allow: [proto.test, ok.test]\n")
    os.chmod(policy, 0o644)
    p = px.start(sm, "--egress", "strict", "--egress-policy", str(policy), name="reload")
    s = box.connect()
    s.sendall(f"CONNECT proto.test:{w.SSH} HTTP/1.1\r\n\r\n".encode())
    got = b""
    while w.BANNER_SSH not in got:
        got += s.recv(4096)
    policy.write_text("allow: [ok.test]\n")
    r = sm.cli("reload", "reload")
    assert r.returncode == 0, r
    assert px.read_all(s) == b""
    assert px.curl(box, "http://ok.test/")[0] == 200
    code, body, _, _ = px.curl(box, f"http://proto.test:{w.HTTP_ECHO}/")
    assert code == 403 and page(body) == "unlisted_name"
    r = p.stop()
    r.one("egress_close", port=w.SSH, reason="policy_changed")


def test_off_passes_on(sm, box):
    p = px.start(sm, "--egress", "off", ca=False)
    assert px.curl(box, "http://ok.test/")[0] == 200
    code, _, _, r = px.curl(box, "https://origin.test/", "--cacert", sm.world.ca)
    assert code == 200, r
    assert px.curl(box, "http://127.0.0.1/")[0] == 403
    r = p.stop()
    assert [x["event"] for x in r.audit] in ([], ["egress_start", "egress_stop"])


def test_the_front_is_as_shut_in_as_any(sm, box):
    """No capability, an empty root, no network of its own, a filter; it holds the listener and cannot make a socket."""
    p = px.start(sm)
    pid = p.pids()["proxy-front"]
    with open(f"/proc/{pid}/status") as f:
        st = dict(x.rstrip("\n").split(":\t", 1) for x in f if ":\t" in x)
    assert int(st["CapEff"], 16) == 0 and int(st["CapBnd"], 16) == 0 and st["Seccomp"] == "2" and st["NoNewPrivs"] == "1"
    assert os.listdir(f"/proc/{pid}/root/") == []
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink(f"/proc/{p.pids()['core']}/ns/net")
    p.stop()


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed (./dev setup clients)")
def test_headless_chromium(sm, box, tmp_path):
    p = px.start(sm)
    nss = tmp_path / "home" / ".pki" / "nssdb"
    nss.mkdir(parents=True)
    if not shutil.which("certutil"):
        pytest.skip("certutil is not installed (./dev setup clients)")
    subprocess.run(["certutil", "-N", "-d", f"sql:{nss}", "--empty-password"], check=True)
    subprocess.run(["certutil", "-A", "-d", f"sql:{nss}", "-n", "slirp-med", "-t", "C,,", "-i", p.ca], check=True)
    for url in ("http://origin.test/browser", "https://origin.test/browser2"):
        r = box.run(["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" + str(tmp_path / "profile"),
                     f"--proxy-server=http://{px.PROXY}:{px.PORT}", "--virtual-time-budget=5000", "--dump-dom", url],
                    env={"HOME": str(tmp_path / "home")}, timeout=120)
        assert b"browser" in r.stdout, r
    r = p.stop()
    assert r.some("egress_http_request", path="/browser", authority="origin.test")["name_source"] == "connect"
    assert r.some("egress_http_request", path="/browser2", authority="origin.test")["mitm"]


def test_a_created_proxy_keeps_its_settings(sm, box, tmp_path):
    """create, and two starts: the same flags, references with their whole path, and with --keep-ca the same certificate."""
    secret = tmp_path / "auth"
    secret.write_text("agent:word\n")
    os.chmod(secret, 0o600)
    r = sm.cli("create", "kept", "--proxy", "--listen", f"{px.PROXY}:{px.PORT}", "--egress", "strict", "--egress-allow", "origin.test", "--egress-ca-file",
               sm.world.ca, "--proxy-auth", "file:auth", "--keep-ca", cwd=tmp_path)
    assert r.returncode == 0, r
    seen = []
    for _ in range(2):
        p = px.again(sm, "kept")
        url = f"http://agent:word@{px.PROXY}:{px.PORT}"
        assert px.curl(box, "https://origin.test/", "--cacert", p.ca, proxy=url)[0] == 200
        assert px.curl(box, "http://other.test/", proxy=url)[0] == 403
        assert px.curl(box, "http://origin.test/")[0] == 407
        with open(p.ca) as f:
            seen.append(f.read())
        p.stop()
    assert seen[0] == seen[1]
    r = sm.cli("proxy", "kept", "--listen", f"{px.PROXY}:{px.PORT}")
    assert r.returncode == 2 and b"start kept" in r.stderr, r
