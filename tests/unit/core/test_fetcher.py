# SPDX-License-Identifier: BSD-3-Clause
"""The fetch helper from outside: the test plays the core, with a real TLS server on loopback.

Needs nothing but loopback. SLIRP_MED names the program.
"""
import array
import contextlib
import json
import os
import socket
import ssl
import subprocess
import threading

import pytest

EXE = os.environ["SLIRP_MED"]
TIMEOUT = 10
SECRET = "canary-7f3a-secret"


def sh(*argv, cwd):
    subprocess.run(argv, check=True, cwd=cwd, capture_output=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    d = tmp_path_factory.mktemp("pki")
    for name in ("root", "other"):
        sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem",
           "-days", "2", "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign", cwd=d)
    sh("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=x", cwd=d)
    (d / "ext").write_text("subjectAltName=DNS:token.test\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n")
    sh("openssl", "x509", "-req", "-in", "leaf.csr", "-CA", "root.pem", "-CAkey", "root.key", "-days", "2", "-extfile", "ext", "-out", "leaf.pem", cwd=d)
    return d


class Server:
    """One connection: what came is in self.got, what goes back is the given bytes (None: nothing, until the test is over)."""

    def __init__(self, answer, pki=None):
        self.answer, self.got, self.over = answer, b"", threading.Event()
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.ctx = None
        if pki:
            self.ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.ctx.load_cert_chain(pki / "leaf.pem", pki / "leaf.key")
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        with contextlib.suppress(OSError):
            self.sock.settimeout(TIMEOUT)
            c, _ = self.sock.accept()
            with contextlib.closing(c):
                c.settimeout(TIMEOUT)
                if self.ctx:
                    c = self.ctx.wrap_socket(c, server_side=True)
                while b"\r\n\r\n" not in self.got:
                    data = c.recv(65536)
                    if not data:
                        return
                    self.got += data
                head, _, body = self.got.partition(b"\r\n\r\n")
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        while len(body) < int(line.split(b":")[1]):
                            body += c.recv(65536)
                self.got = head + b"\r\n\r\n" + body
                if self.answer is None:
                    self.over.wait(TIMEOUT)
                    return
                c.sendall(self.answer)
                c.close()

    def end(self):
        self.over.set()
        self.sock.close()
        self.thread.join(TIMEOUT)


class Helper:
    def __init__(self):
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(TIMEOUT)
        with theirs:
            fd = theirs.fileno()
            self.p = subprocess.Popen([EXE, "fetch"], pass_fds=[3], preexec_fn=lambda: os.dup2(fd, 3) if fd != 3 else os.set_inheritable(3, True),
                                      stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                      env={"http_proxy": "http://127.0.0.1:1/", "https_proxy": "http://127.0.0.1:1/"})

    def ask(self, port, pki, url=None, scheme="https", method="GET", headers="", body=b"", roots="root.pem", timeout_ms=10000, host="token.test", raw=None):
        s = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        s.setblocking(False)
        fd = os.memfd_create("roots")
        if pki:
            os.write(fd, (pki / roots).read_bytes())
        q = raw if raw is not None else json.dumps(
            {"url": url or f"{scheme}://{host}:{port}/token", "method": method, "host": host, "port": port, "addr": "127.0.0.1", "timeout_ms": timeout_ms}).encode()
        self.sock.sendmsg([b"Q" + q], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno(), fd]))])
        self.sock.send(b"H" + headers.encode())
        self.sock.send(b"D" + body)
        s.close()
        os.close(fd)
        return self

    def result(self):
        """(word, None, None) or (status, type, body)"""
        head, body = None, b""
        while True:
            m = self.sock.recv(1 << 17)
            if m[:1] == b"S":
                head = json.loads(m[1:])
            elif m[:1] == b"D":
                body += m[1:]
            elif m[:1] == b"E":
                return head["status"], head["content_type"], body
            elif m[:1] == b"F":
                return m[1:].decode(), None, None
            else:
                assert m == b"", m
                return "ended", None, None

    def end(self):
        self.sock.close()
        assert self.p.wait(TIMEOUT) is not None
        self.p.stderr.close()


@pytest.fixture
def fetch():
    helpers, servers = [], []

    def go(answer, pki=None, tls=True, **kw):
        s = Server(answer, pki if tls else None)
        servers.append(s)
        h = Helper()
        helpers.append(h)
        h.ask(s.port, pki, scheme="https" if tls else "http", **kw)
        return h, s
    yield go
    for x in servers + helpers:
        x.end()


def ok(body, more=b""):
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_post_with_secrets(fetch, pki):
    body = b"grant_type=client_credentials&client_secret=" + SECRET.encode()
    h, s = fetch(ok(b'{"access_token": "t"}'), pki, method="POST", headers=f"Authorization: Basic {SECRET}\nContent-Type: application/x-www-form-urlencoded\n", body=body)
    assert h.result() == (200, "application/json", b'{"access_token": "t"}')
    head, _, got = s.got.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /token HTTP/1.1\r\n") and got == body
    assert f"Authorization: Basic {SECRET}".encode() in head and b"expect" not in head.lower()


def test_get_on_loopback(fetch, pki):
    h, s = fetch(ok(b"x"), pki, tls=False, host="localhost")
    assert h.result() == (200, "application/json", b"x")
    assert s.got.startswith(b"GET /token HTTP/1.1\r\nHost: localhost:")


def test_address_in_url(fetch, pki):
    h, _ = fetch(ok(b"x"), pki, tls=False, host="127.0.0.1")
    assert h.result()[0] == 200


@pytest.mark.parametrize("kw", [{"roots": "other.pem"}, {"host": "other.test"}], ids=["unknown_ca", "wrong_name"])
def test_bad_certificate(fetch, pki, kw):
    h, s = fetch(ok(b"x"), pki, headers=f"X: {SECRET}\n", **kw)
    assert h.result()[0] == "endpoint_tls"
    assert SECRET.encode() not in s.got


def test_redirect_is_not_followed(fetch, pki):
    h, _ = fetch(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", pki)
    assert h.result()[0] == 302


def test_too_large(fetch, pki):
    h, _ = fetch(ok(b"x" * (1 << 20) + b"y"), pki)
    assert h.result() == (200, "application/json", b"x" * (1 << 20) + b"y")
    h, _ = fetch(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (3 << 20), pki)
    assert h.result() == (200, "", b"x" * ((1 << 20) + 1))


def test_one_mebibyte(fetch, pki):
    h, _ = fetch(ok(b"x" * (1 << 20)), pki)
    assert h.result()[2] == b"x" * (1 << 20)


@pytest.mark.skipif(bool(os.environ.get("ASAN_OPTIONS")), reason="the shadow of AddressSanitizer is larger than any limit")
def test_trailers_without_end(fetch, pki):
    """libcurl keeps them all: the helper ends before the machine's memory does."""
    trailers = b"T: aaaa\r\n" * 8_000_000
    h, _ = fetch(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + trailers + b"\r\n", pki, tls=False, host="localhost")
    assert h.result()[0] in ("ended", "endpoint_unreachable")


def test_slow(fetch, pki):
    h, _ = fetch(None, pki, timeout_ms=300)
    assert h.result()[0] == "endpoint_timeout"


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nxx"])
def test_nonsense(fetch, pki, answer):
    h, _ = fetch(answer, pki)
    assert h.result()[0] == "endpoint_unreachable"


def test_it_ends_with_the_core(fetch, pki):
    h, _ = fetch(None, pki, timeout_ms=25000)
    h.sock.close()
    assert h.p.wait(TIMEOUT) == 0


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b'{"url": "file:///etc/passwd", "method": "GET", "host": "x", "port": 1, "addr": "127.0.0.1", "timeout_ms": 1000}'])
def test_bad_question(fetch, pki, raw):
    h, s = fetch(ok(b"x"), pki, raw=raw)
    assert h.result()[0] in ("fetch_helper", "endpoint_unreachable")
    assert s.got == b""


def test_what_it_may_do(fetch, pki):
    """Looked at from outside while it waits: no network, no root, no capability, a filter, not dumpable, nothing of the environment."""
    h, s = fetch(None, pki, headers=f"X: {SECRET}\n", timeout_ms=25000)
    while SECRET.encode() not in s.got:
        assert h.p.poll() is None
        threading.Event().wait(0.01)
    pid = h.p.pid
    status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status") if ":\t" in line)
    assert status["Seccomp"].strip() == "2" and status["NoNewPrivs"].strip() == "1"
    assert all(int(status[k], 16) == 0 for k in ("CapEff", "CapPrm", "CapBnd", "CapAmb"))
    with open(f"/proc/{pid}/cmdline", "rb") as f:
        assert SECRET.encode() not in f.read()
    if os.geteuid() == 0:
        assert os.stat(f"/proc/{pid}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino
        assert os.listdir(f"/proc/{pid}/root") == []
        with open(f"/proc/{pid}/environ", "rb") as f:
            assert b"proxy" not in f.read()
