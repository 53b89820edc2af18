# SPDX-License-Identifier: BSD-3-Clause
"""The servers that interception is tested against, without slirp-med: a test that leans on them must not fail because of them."""
import hashlib
import json
import os
import smtplib
import ssl
import subprocess

import guestlib as g
import httplib as h
import pytest
import worldlib as w


def verify(name, addr=None):
    """The reason word that OpenSSL's own verification gives, or None."""
    c = ssl.create_default_context(cafile=os.environ["CURL_CA_BUNDLE"])
    try:
        with g.dial(addr or name, 443) as s, c.wrap_socket(s, server_hostname=addr or name) as t:
            t.version()
    except ssl.SSLCertVerificationError as e:
        return e.verify_message
    return None


WORDS = {"expired.test": "certificate has expired", "notyet.test": "certificate is not yet valid", "wrongname.test": "Hostname mismatch",
         "selfsigned.test": "self-signed certificate", "unknownca.test": "unable to get local issuer certificate",
         "nointer.test": "unable to get local issuer certificate", "sha1.test": "CA signature digest algorithm too weak", "rsa1024.test": "EE certificate key too weak",
         "constraint.test": "permitted subtree violation", "ipwrong.test": "Hostname mismatch", "clientonly.test": "unsuitable certificate purpose"}


@pytest.mark.parametrize("name", WORDS)
def test_each_bad_certificate_is_bad_in_its_own_way(world, name):
    assert WORDS[name] in verify(name)


def test_good_certificates_are_good(world):
    for n in ("origin.test", "alias.test", "h2.test", "line.test", "inter.test", "git.test", "tls12.test", "grpc.test"):
        assert verify(n) is None, n
    assert verify("ipsan.test", w.SITES["ipsan.test"]) is None
    assert "mismatch" in verify("ipsan.test")
    assert "IP address mismatch" in verify("ipwrong.test", w.TLS_BAD["ipwrong.test"])


def test_the_origin_reports_the_hello_and_keeps_the_bytes(world, mark):
    s = h.tls("origin.test", alpn=["http/1.1"], cafile=world.ca)
    r = s.ask(b"POST /echo?a=b HTTP/1.1\r\nHoSt:  origin.test\r\nx-Odd:a\r\nContent-Length: 3\r\n\r\nabc")
    assert r.status == 200 and r.json()["headers"][:2] == [["HoSt", "  origin.test"], ["x-Odd", "a"]]
    assert r.json()["sha256"] == hashlib.sha256(b"abc").hexdigest()
    s.close()
    assert world.received(mark) == b"POST /echo?a=b HTTP/1.1\r\nHoSt:  origin.test\r\nx-Odd:a\r\nContent-Length: 3\r\n\r\nabc"
    hello, = world.hellos(mark)
    assert (hello["sni"], hello["alpn"], hello["offers_session"]) == ("origin.test", ["http/1.1"], False)


def test_odd_answers_of_the_h1_origin(world):
    s = h.connect("origin.test", 80)
    for path, body in (("/bytes/1000", w.pattern(1000)), ("/chunked/5000/7", w.pattern(5000)), ("/status/204", b""), ("/status/304", b"")):
        assert s.ask(h.get(path, "origin.test")).body == body, path
    assert [i.status for i in s.ask(h.get("/hints", "origin.test")).interim] == [103, 102]
    r = s.ask(h.get("/chunked/100", "origin.test"))
    assert r.trailers == [("X-Sum", f" {hashlib.sha256(w.pattern(100)).hexdigest()}"), ("x-ODD", "  spaced ")]
    s.send(h.get("/ws", "origin.test", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n"))
    assert s.answer().status == 101
    for data in (b"a", b"b" * 300, b"c" * 100000):
        h.ws_send(s, 2, data)
        assert h.ws_recv(s) == (2, data)
    s.close()


def test_late_answers_after_the_end_inside_tls(world):
    t = h.tls("origin.test", cafile=world.ca)
    t.send(h.get("/late", "origin.test"))
    t.shut()
    assert b"saw the end as notify" in t.rest()
    t = h.tls("line.test", cafile=world.ca)
    t.send(b"one\n")
    t.shut()
    assert t.rest() == b"echo: one\nlines: 1, end: notify\n" and t.end == "notify"


def test_h2_origin(world, mark):
    p = subprocess.run(["curl", "-sS", "-w", "%{http_version} %{http_code}\n", "https://h2.test/bytes/3000000", "-o", "/dev/null", "--next", "-sS",
                        "https://h2.test/trailers", "-D", "-", "-o", "/dev/null", "--next", "-sS", "--data-binary", "@" + world.www + "/mib",
                        "https://h2.test/echo"], capture_output=True, text=True)
    assert p.stdout.startswith("2 200\n") and "x-last: a b" in p.stdout, p
    assert json.loads(p.stdout[p.stdout.index("{"):])["sha256"] == hashlib.sha256(w.pattern(1 << 20)).hexdigest()
    for path, want in (("rst/8", b"CANCEL (err 8)"), ("goaway", b"last words"), ("hints", b"after the hints")):
        p = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", f"http://h2.test/{path}"], capture_output=True)
        assert want in p.stdout + p.stderr, p


def test_git_over_smart_http(world, tmp_path):
    h.new_repo(world, "world", 200000)
    for v in ("1.1", "2"):
        subprocess.run(["git", "-c", f"http.version=HTTP/{v}", "clone", "-q", "https://git.test/world.git", f"v{v}"], cwd=tmp_path, check=True,
                       env={**os.environ, "GIT_SSL_CAINFO": world.ca})
        assert (tmp_path / f"v{v}" / "data").read_bytes() == w.pattern(200000)


def test_grpc_server(world):
    import grpc
    with open(world.ca, "rb") as f:
        c = grpc.secure_channel("grpc.test:443", grpc.ssl_channel_credentials(f.read()))
    r, call = c.unary_unary("/world.Echo/Unary").with_call(b"x", timeout=10)
    assert r == b"echo:x" and ("x-trailer", "end of Unary") in [tuple(x) for x in call.trailing_metadata()]
    c.close()


def test_starttls(world):
    with smtplib.SMTP("mail.test", w.SUBMISSION, timeout=10) as s:
        s.starttls(context=ssl.create_default_context(cafile=world.ca))
        assert s.ehlo()[0] == 250


@pytest.mark.parametrize("name", ["clientcert12.test", "clientcert13.test"])
def test_client_certificate_is_demanded(world, name):
    s = h.tls(name, cafile=world.ca, cert=world.client_cert)
    assert s.ask(h.get("/echo", name)).status == 200
    with pytest.raises(OSError):
        s = h.tls(name, cafile=world.ca)
        s.send(h.get("/echo", name))
        assert not s.recv(1), "the server took a client without a certificate"
        raise OSError
