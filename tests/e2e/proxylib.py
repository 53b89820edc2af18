# SPDX-License-Identifier: BSD-3-Clause
"""Clients of `slirp-med proxy`: namespaces that have one neighbour and no route beyond it, as a container on an internal network has."""
import os
import signal
import socket
import subprocess
import threading

import worldlib as w
from conftest import USER, Running

NET, PROXY, CLIENT = "172.20.0.0/24", "172.20.0.1", "172.20.0.2"
OTHER_NET, OTHER_PROXY, OTHER_CLIENT = "172.21.0.0/24", "172.21.0.1", "172.21.0.2"
PORT = 3128


class Box:
    """A network namespace behind a veth; its only neighbour is the core's namespace, where the proxy listens."""

    def __init__(self, ours, theirs, dev):
        self.dev, self.ip = dev, theirs
        self.p = subprocess.Popen(["unshare", "-n", "--kill-child", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        own = os.readlink("/proc/self/ns/net")
        w.wait_for("the namespace", lambda: os.readlink(f"/proc/{self.p.pid}/ns/net") != own)
        for cmd in (f"ip link add {dev} type veth peer name eth0 netns {self.p.pid}", f"ip addr add {ours}/24 dev {dev}", f"ip link set {dev} up"):
            subprocess.run(cmd.split(), check=True)
        for cmd in (f"ip addr add {theirs}/24 dev eth0", "ip link set eth0 up", "ip link set lo up"):
            subprocess.run(self.inside() + cmd.split(), check=True)

    def inside(self):
        return ["nsenter", "-n", "-t", str(self.p.pid), "--"]

    def run(self, cmd, env=None, timeout=60, **kw):
        env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **(env or {})}
        return subprocess.run(self.inside() + cmd, capture_output=True, timeout=timeout, env=env, **kw)

    def connect(self, addr=None):
        """A connection out of this namespace, in this process's hands."""
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/proc/{self.p.pid}/ns/net", os.O_RDONLY)
        try:
            setns(there)
            s = socket.create_connection(addr or (PROXY, PORT), timeout=20)
        finally:
            setns(here)
            os.close(here)
            os.close(there)
        return s

    def close(self):
        self.p.kill()
        self.p.wait()
        subprocess.run(["ip", "link", "del", self.dev], capture_output=True)


def setns(fd):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Proxy(Running):
    """A workspace whose front is a proxy."""

    @property
    def ca(self):
        return os.path.join(self.sm.state, "slirp-med", self.name, "ca.pem")

    def stop(self):
        self.p.send_signal(signal.SIGTERM)
        r = self.end()
        assert r.rc == 0, repr(r)
        return r


def launched(sm, name, *args, env=None):
    sm.err = open(os.path.join(sm.tmp, f"stderr.{name}.{len(sm.running)}"), "w+b")
    p = subprocess.Popen(USER + [sm.bin, *args], env=sm.env(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sm.err)
    r = Proxy(sm, name, p)
    sm.running.append(r)
    w.wait_for("the line that says ready", lambda: b"slirp-med: ready: " in r.said() or p.poll() is not None, 20)
    assert p.poll() is None, r.errors()
    return r


def start(sm, *flags, name=None, env=None, listen=f"{PROXY}:{PORT}", ca=True):
    name = name or sm.name()
    if ca:
        flags = ("--egress-ca-file", sm.world.ca, *flags)
    return launched(sm, name, "proxy", name, "--listen", listen, *flags, env=env)


def again(sm, name):
    """One that was created."""
    return launched(sm, name, "start", name)


def curl(box, url, *args, proxy=f"http://{PROXY}:{PORT}", **kw):
    """(status, body) of a request; status 0 and the exit status of curl where there was no answer to the request itself."""
    r = box.run(["curl", "-sS", "-m", "20", "-x", proxy, "-o", "-", "-w", "\n%{http_code} %{http_connect}", *args, url], **kw)
    body, _, codes = r.stdout.rpartition(b"\n")
    code, tunnel = (int(x) for x in codes.split())
    return code, body, tunnel, r


def ask(box, head, *, body=b"", addr=None):
    """Everything that the proxy says to a head, to its end."""
    with box.connect(addr) as s:
        s.sendall(head + body)
        return read_all(s)


def read_all(s):
    got = b""
    while True:
        try:
            b = s.recv(65536)
        except ConnectionResetError:
            return got
        if not b:
            return got
        got += b


class Search(threading.Thread):
    """A stand-in for a self-hosted SearXNG, on the mediator's own loopback, where no client could go."""

    def __init__(self, addr="127.0.0.1"):
        super().__init__(daemon=True)
        self.s = socket.create_server((addr, 0))
        self.port = self.s.getsockname()[1]
        self.heads = []
        self.start()

    def run(self):
        while True:
            try:
                c, _ = self.s.accept()
            except OSError:
                return
            with c:
                head = b""
                while b"\r\n\r\n" not in head:
                    b = c.recv(65536)
                    if not b:
                        break
                    head += b
                self.heads.append(head)
                body = b'{"results": []}'
                c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def close(self):
        self.s.shutdown(socket.SHUT_RDWR)
        self.s.close()
