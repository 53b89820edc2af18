# SPDX-License-Identifier: BSD-3-Clause
"""The mediation channel and the CA over hybrid vsock: unix sockets PATH_PORT, as Firecracker's and cloud-hypervisor's guests meet the host."""
import contextlib
import hashlib
import json
import os
import socket
import stat
import threading

import pytest
import worldlib

WAIT = """
import sys
print("up", flush=True)
sys.stdin.readline()
"""
TIMEOUT = 20


class Target:
    """The operator's control plane: a TCP service on loopback that answers with what `talk` says of each connection."""

    def __init__(self, talk):
        self.talk, self.count = talk, 0
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            self.count += 1
            threading.Thread(target=self.one, args=(c,), daemon=True).start()

    def one(self, c):
        with c, contextlib.suppress(OSError):
            c.settimeout(TIMEOUT)
            self.talk(c)

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def echo(c):
    while data := c.recv(65536):
        c.sendall(data)


@pytest.fixture
def target():
    made = []

    def make(talk=echo):
        made.append(Target(talk))
        return made[-1]
    yield make
    for t in made:
        t.close()


@pytest.fixture
def doors(tmp_path):
    """The folder of the sockets, the user's own."""
    d = tmp_path / "vsock"
    d.mkdir(mode=0o700)
    return str(d / "v.sock")


def knock(path, port):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(TIMEOUT)
    s.connect(f"{path}_{port}")
    return s


def read_all(s):
    got = b""
    while data := s.recv(65536):
        got += data
    return got


def up(sm, *flags, **kw):
    w = sm.start_guest(WAIT, *flags, **kw)
    assert w.line() == "up"
    return w


def down(w):
    w.tell("")
    return w.end()


def status(sm, name):
    r = sm.cli("status", name, "--json")
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)


@pytest.mark.core
def test_ca_and_pipe(sm, doors, target):
    t = target()
    w = up(sm, "--vsock", doors, "--mediation", f"5000=127.0.0.1:{t.port}")
    with knock(doors, 1027) as s:
        pem = read_all(s)
    assert pem.startswith(b"-----BEGIN CERTIFICATE-----") and b"PRIVATE" not in pem
    with open(os.path.join(sm.state, "slirp-med", w.name, "ca.pem"), "rb") as f:
        assert f.read() == pem
    with knock(doors, 5000) as s:
        s.sendall(b"hello")
        assert s.recv(5) == b"hello"
        s.shutdown(socket.SHUT_WR)
        assert s.recv(1) == b""
    st = status(sm, w.name)
    assert st["mediationReady"] is True
    assert st["vsock"]["mediation"] == [{"port": 5000, "target": f"127.0.0.1:{t.port}", "required": True}]
    row = st["reports"]["core"]["mediation"][0]
    assert (row["port"], row["required"], row["ready"]) == (5000, True, True)
    assert "mediation" in sm.cli("status", w.name).stdout.decode()
    r = down(w)
    assert r.rc == 0, r
    assert r.one("ca_delivered")["via"] == "unix"
    o, c = r.one("mediation_open"), r.one("mediation_close")
    assert (o["vsock_port"], o["target"], o["conn"]) == (5000, f"127.0.0.1:{t.port}", c["conn"])
    assert (c["bytes_up"], c["bytes_down"], c["reason"]) == (5, 5, "closed")
    r.none("mediation_error")


def test_sockets_are_the_users_and_go(sm, doors, target):
    t = target()
    # A socket of a run that was killed is in the way.
    left = socket.socket(socket.AF_UNIX)
    left.bind(f"{doors}_5000")
    left.close()
    w = up(sm, "--vsock", doors, "--vsock-ca-port", "7", "--mediation", f"5000=127.0.0.1:{t.port}")
    folder = os.path.dirname(doors)
    assert sorted(os.listdir(folder)) == ["v.sock_5000", "v.sock_7"]
    for name in os.listdir(folder):
        assert stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) == 0o600
    # A second workspace does not take them over.
    r = sm.run("--vsock", doors, "--vsock-ca-port", "7", cmd=["/bin/true"])
    assert r.rc == 125 and b"v.sock_7" in r.stderr, r
    assert down(w).rc == 0
    assert os.listdir(folder) == []


def test_table_only(sm, doors, target):
    t, other = target(), target()
    w = up(sm, "--vsock", doors, "--mediation", f"5000=127.0.0.1:{t.port}")
    for port in (4999, 5001, 22, other.port):
        with pytest.raises(FileNotFoundError):
            knock(doors, port)
    r = down(w)
    r.none("mediation_open")
    assert t.count == 1 and other.count == 0  # the try of the start


@pytest.mark.core
def test_required_must_answer(sm, doors, target):
    t = target()
    t.close()
    r = sm.run("--vsock", doors, "--mediation", f"5000=127.0.0.1:{t.port}", cmd=["/bin/echo", "ran"])
    assert r.rc == 125 and b"ran" not in r.stdout, r
    assert b"5000" in r.stderr and f"127.0.0.1:{t.port}".encode() in r.stderr and b"refused" in r.stderr.lower(), r
    assert r.one("mediation_error")["required"] is True
    assert r.audit[-1]["event"] == "egress_stop"
    assert os.listdir(os.path.dirname(doors)) == []
    r = sm.run("--vsock", doors, "--mediation", "5000=no-such-host.invalid:80", cmd=["/bin/echo", "ran"])
    assert r.rc == 125 and b"no-such-host.invalid" in r.stderr and b"resolve" in r.stderr, r


def test_optional_need_not(sm, doors, target):
    t, dead = target(), target()
    dead.close()
    w = up(sm, "--vsock", doors, "--mediation-optional", f"5000=127.0.0.1:{dead.port}", "--mediation", f"5001=127.0.0.1:{t.port}",
           "--mediation-optional", "5002=no-such-host.invalid:80")
    for port in (5000, 5002):
        with knock(doors, port) as s, contextlib.suppress(ConnectionResetError):
            assert s.recv(1) == b""
    with knock(doors, 5001) as s:
        s.sendall(b"x")
        assert s.recv(1) == b"x"
    st = status(sm, w.name)
    assert st["mediationReady"] is True
    assert [x["ready"] for x in st["reports"]["core"]["mediation"]] == [False, True, False]
    r = down(w)
    assert {e["reason"] for e in r.events("mediation_error", conn=1)} == {"refused"}
    assert {e["reason"] for e in r.events("mediation_error", vsock_port=5002)} == {"unresolved"}


def test_half_close_and_identity(sm, doors, target):
    """The guest ends first, the target answers when it has read all: 8 MB each way, byte for byte, to a reader that takes its time."""
    blob = os.urandom(1 << 16) * 128
    got = {}

    def talk(c):
        data = read_all(c)
        got["sum"] = hashlib.sha256(data).hexdigest()
        c.sendall(data[::-1])
    t = target(talk)
    w = up(sm, "--vsock", doors, "--mediation", f"5000=127.0.0.1:{t.port}")
    with knock(doors, 5000) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(blob)
        s.shutdown(socket.SHUT_WR)
        back = b""
        while data := s.recv(7001):
            back += data
    assert got["sum"] == hashlib.sha256(blob).hexdigest()
    assert back == blob[::-1]
    c = down(w).one("mediation_close")
    assert (c["bytes_up"], c["bytes_down"]) == (len(blob), len(blob))


def test_128_at_once(sm, doors, target):
    t = target()
    w = up(sm, "--vsock", doors, "--mediation", f"5000=127.0.0.1:{t.port}")
    held = []
    for i in range(128):
        s = knock(doors, 5000)
        s.sendall(b"%03d" % i)
        assert s.recv(3) == b"%03d" % i
        held.append(s)
    with knock(doors, 5000) as s, contextlib.suppress(ConnectionResetError):
        assert s.recv(1) == b""
    held.pop().close()
    worldlib.wait_for("the end of one", lambda: [r for r in w.audit() if r["event"] == "mediation_close"], 10)
    with knock(doors, 5000) as s:
        s.sendall(b"one more")
        assert s.recv(8) == b"one more"
    for s in held:
        s.close()
    r = down(w)
    assert r.one("mediation_error")["reason"] == "too_many"
    assert len(r.events("mediation_open")) == 129 == len(r.events("mediation_close"))


def test_target_resets(sm, doors, target):
    def talk(c):
        c.recv(1)
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    t = target(talk)
    w = up(sm, "--vsock", doors, "--mediation", f"5000=127.0.0.1:{t.port}")
    with knock(doors, 5000) as s, contextlib.suppress(ConnectionResetError):
        s.sendall(b"x")
        assert s.recv(1) == b""
    assert down(w).one("mediation_close")["reason"] == "target_reset"


@pytest.mark.parametrize("mode", ["off", "strict"])
def test_every_mode(sm, doors, target, mode):
    t = target()
    w = up(sm, "--egress", mode, "--vsock", doors, "--mediation", f"5000=localhost:{t.port}")
    with knock(doors, 5000) as s:
        s.sendall(b"x")
        assert s.recv(1) == b"x"
    with knock(doors, 1027) as s, contextlib.suppress(ConnectionResetError):
        assert bool(read_all(s)) == (mode == "strict")
    r = down(w)
    assert bool(r.events("mediation_open")) == (mode == "strict")
    assert bool(r.events("ca_delivered")) == (mode == "strict")


def test_words(sm, doors):
    """What cannot work is said before anything starts."""
    for flags, words in (
        (["--mediation", "5000"], b"PORT=HOST:PORT"),
        (["--mediation", "0=a:1"], b"PORT=HOST:PORT"),
        (["--mediation", "4294967295=a:1"], b"PORT=HOST:PORT"),
        (["--mediation", "5000=a:0"], b"PORT=HOST:PORT"),
        (["--mediation", "5000=a b:1"], b"PORT=HOST:PORT"),
        (["--mediation", "5000=-a:1"], b"PORT=HOST:PORT"),
        (["--mediation", "5000=a:1", "--mediation-optional", "5000=b:1"], b"already"),
        (["--mediation", "1027=a:1"], b"--vsock-ca-port"),
        (["--mediation", "7=a:1", "--vsock-ca-port", "7"], b"--vsock-ca-port"),
        (["--vsock-ca-port", "x"], b"vsock port"),
        (["--vsock", ""], b"path"),
        (["--vsock", doors + "/"], b"path"),
        (["--vsock", "/tmp/" + "a" * 120], b"at most"),
        (["--network", "isolated", "--vsock", doors], b"isolated"),
        (["--serial", doors], b"unknown flag"),
    ):
        r = sm.run(*flags, cmd=["/bin/echo", "ran"])
        assert r.rc == 2 and words in r.stderr and b"ran" not in r.stdout, (flags, r)
    r = sm.run("--mediation-optional", "5000=127.0.0.1:1", cmd=["/bin/echo", "ran"])
    assert r.rc == 0 and b"no vsock to come by" in r.stderr, r
