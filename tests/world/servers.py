# SPDX-License-Identifier: BSD-3-Clause
"""The servers nginx is not: speak first, stay silent, half-close, reset, read slowly; and they write down all they saw.

One asyncio process. Each connection is a Conn subclass whose log holds accept, first data, end of input and close (how
it ended, byte counts, sha256 of the input). "leak" mode opens silent listeners in the core's own namespace: a single
line in that log means that a guest reached what it must never reach.
"""
import asyncio
import hashlib
import json
import os
import resource
import socket
import struct
import sys
import time

import worldlib as w

_next = [0]
_fd = [-1]


def log(**r):
    os.write(_fd[0], json.dumps({"t": round(time.monotonic(), 6), **r}).encode() + b"\n")


class Conn(asyncio.Protocol):
    """Accepts, logs, says nothing, keeps reading."""
    name = "silent"

    def connection_made(self, t):
        _next[0] += 1
        self.t, self.id, self.n_in, self.n_out, self.sha = t, _next[0], 0, 0, hashlib.sha256()
        self.sock = t.get_extra_info("socket")
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        local, peer = t.get_extra_info("sockname"), t.get_extra_info("peername")
        log(ev="accept", srv=self.name, id=self.id, local=local[0], port=local[1], peer=peer[0], sport=peer[1])
        self.local = local
        self.opened()

    def data_received(self, d):
        if not self.n_in:
            log(ev="data", srv=self.name, id=self.id, local=self.local[0], port=self.local[1], hex=d[:64].hex())
        self.n_in += len(d)
        self.sha.update(d)
        self.got(d)

    def eof_received(self):
        log(ev="eof", srv=self.name, id=self.id, bytes=self.n_in)
        return self.ended()

    def connection_lost(self, exc):
        log(ev="close", srv=self.name, id=self.id, local=self.local[0], port=self.local[1], bytes=self.n_in, out=self.n_out,
            sha256=self.sha.hexdigest(), how="rst" if isinstance(exc, ConnectionError) else "fin")

    def say(self, d):
        self.n_out += len(d)
        self.t.write(d)

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.t.abort()

    def opened(self):
        """The connection is there."""

    def got(self, d):
        """Data arrived."""

    def ended(self):
        """The peer sent FIN; true keeps our half open."""
        return False


class Echo(Conn):
    name = "echo"

    def got(self, d):
        self.say(d)


class Discard(Conn):
    name = "discard"


class Ssh(Conn):
    name = "ssh"

    def opened(self):
        self.say(w.BANNER_SSH)

    def got(self, d):
        self.say(d)


class Smtp(Ssh):
    name = "smtp"

    def opened(self):
        self.say(w.BANNER_SMTP)


class Late(Ssh):
    name = "late"

    def opened(self):
        asyncio.get_running_loop().call_later(1.0, lambda: self.t.is_closing() or self.say(b"late\n"))


class HalfClose(Conn):
    """Answers only when the whole input is there: works only if the guest's FIN arrives and our half stays open."""
    name = "halfclose"

    def ended(self):
        self.say(f"{self.n_in} {self.sha.hexdigest()}\n".encode())
        self.t.close()
        return True


class FinFirst(Conn):
    """Says all it has and shuts its half; the guest may go on sending."""
    name = "finfirst"

    def opened(self):
        self.say(b"bye\n")
        self.t.write_eof()


class RstAccept(Conn):
    name = "rstaccept"

    def opened(self):
        self.reset()


class FinAccept(Conn):
    name = "finaccept"

    def opened(self):
        self.t.close()


class RstMid(Conn):
    name = "rstmid"

    def got(self, d):
        self.say(b"m" * 1000)
        asyncio.get_running_loop().call_later(0.05, self.reset)


class SlowReader(Conn):
    """Takes 64 KiB every 5 ms into a small window: the sender has to be held back, not buffered without end."""
    name = "slow"

    def opened(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)

    def got(self, d):
        self.t.pause_reading()
        asyncio.get_running_loop().call_later(0.005, lambda: self.t.is_closing() or self.t.resume_reading())


class Source(Conn):
    """Reads a decimal count and a newline, sends that many bytes of pattern, closes."""
    name = "source"
    buf = b""

    def got(self, d):
        self.buf += d
        if b"\n" in self.buf:
            self.say(w.pattern(int(self.buf.split(b"\n")[0])))
            self.t.close()


class SourceNow(Conn):
    name = "sourcenow"

    def opened(self):
        self.say(w.pattern(1 << 20))
        self.t.close()


class Http(Conn):
    """Reads one request head after another and returns each as JSON, with the address it was reached at."""
    name = "http"

    def opened(self):
        self.buf, self.need = b"", 0

    def got(self, d):
        if self.need:
            n = min(self.need, len(d))
            self.need -= n
            d = d[n:]
        self.buf += d
        while b"\r\n\r\n" in self.buf:
            head, self.buf = self.buf.split(b"\r\n\r\n", 1)
            lines = head.decode("latin-1").split("\r\n")
            h = {k.strip().lower(): v.strip() for k, _, v in (x.partition(":") for x in lines[1:])}
            log(ev="request", srv=self.name, id=self.id, local=self.local[0], port=self.local[1], line=lines[0], host=h.get("host"))
            n = int(h.get("content-length") or 0)
            taken = min(n, len(self.buf))
            self.buf, self.need = self.buf[taken:], n - taken
            body = json.dumps({"line": lines[0], "headers": h, "local": self.local[0]}).encode()
            self.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            if h.get("connection", "").lower() == "close":
                self.t.close()


class Upload(Conn):
    """Takes one PUT or POST of any length and reports length and sha256 of the body."""
    name = "upload"

    def opened(self):
        self.head, self.left, self.body, self.total = b"", None, hashlib.sha256(), 0

    def got(self, d):
        if self.left is None:
            self.head += d
            if b"\r\n\r\n" not in self.head:
                return
            head, d = self.head.split(b"\r\n\r\n", 1)
            h = {k.strip().lower(): v.strip() for k, _, v in (x.partition(":") for x in head.decode("latin-1").split("\r\n")[1:])}
            self.left = int(h.get("content-length", "0"))
            if h.get("expect"):
                self.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.body.update(d)
        self.total += len(d)
        self.left -= len(d)
        if self.left <= 0:
            body = json.dumps({"bytes": self.total, "sha256": self.body.hexdigest()}).encode()
            self.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
            self.t.close()


class Udp(asyncio.DatagramProtocol):
    """Logs; echoes on the echo port; on the stranger port answers and lets a third address write to the peer too."""

    def __init__(self, srv, local, port, echo):
        self.srv, self.local, self.port, self.echo = srv, local, port, echo

    def connection_made(self, t):
        self.t = t

    def datagram_received(self, d, peer):
        log(ev="datagram", srv=self.srv, local=self.local, port=self.port, peer=peer[0], sport=peer[1], bytes=len(d), hex=d[:32].hex())
        if self.echo:
            self.t.sendto(d, peer)
        if self.srv == "udpstranger":
            for src in ((w.STRANGER, self.port), (self.local, self.port + 1)):
                s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(src)
                s.sendto(b"stranger", peer)
                s.close()
            self.t.sendto(b"answer", peer)


EVERYWHERE = {w.ECHO: Echo, w.DISCARD: Discard, w.SSH: Ssh, w.SMTP: Smtp, w.HALFCLOSE: HalfClose, w.SERVER_FIN_FIRST: FinFirst,
              w.RST_ON_ACCEPT: RstAccept, w.RST_MID: RstMid, w.SLOW_READER: SlowReader, w.FIN_ON_ACCEPT: FinAccept,
              w.SILENT: Conn, w.LATE_BANNER: Late, w.SOURCE: Source, w.SOURCE_NOW: SourceNow, w.HTTP_ECHO: Http,
              w.UPLOAD: Upload, w.MARK: Conn, 853: Conn, 5353: Conn}


async def listen(cls, ip, port):
    await asyncio.get_running_loop().create_server(cls, ip, port, backlog=4096)


async def datagrams(srv, ip, port, echo=False):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    s.bind((ip, port))
    s.setblocking(False)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: Udp(srv, ip, port, echo), sock=s)


async def main(mode, path):
    _fd[0] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if mode == "internet":
        for port, cls in EVERYWHERE.items():
            await listen(cls, "0.0.0.0", port)
        taken = {*w.WEB.values(), *w.GIT.values(), *w.SITES.values(), *w.TLS_BAD.values(), *w.CRED_PUBLIC.values()}  # nginx and origin.py have those
        for ip in w.INSIDE + [x for x in w.PUBLIC if x not in taken]:
            await listen(Http, ip, 80)
            await listen(Conn, ip, 443)
        for ip in w.PUBLIC + w.INSIDE:
            await datagrams("udpecho", ip, w.ECHO, echo=True)
            await datagrams("udpsink", ip, w.UDP_SINK)
            await datagrams("quic", ip, 443)
            if ip not in (w.DNS, w.DNS_PLAIN):
                await datagrams("otherdns", ip, 53)
                await listen(Conn, ip, 53)
        await datagrams("udpstranger", w.PROTO, w.UDP_STRANGER)
    else:
        for port in (w.SSH, 53, 80, 443, 853, w.ECHO, w.HTTP_ECHO, w.SILENT, w.HALFCLOSE):
            await listen(Conn, "0.0.0.0", port)
        for port in (w.ECHO, 53, 443, w.UDP_SINK):
            await datagrams("leak", "0.0.0.0", port)
    os.write(1, b"ready\n")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
