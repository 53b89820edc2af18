# SPDX-License-Identifier: BSD-3-Clause
"""One connection as a server of the private internet sees it, inside TLS or not: what came is kept, how it ended is told.

Blocking, a thread a connection: half-closes inside TLS and odd endings need it. What came after TLS is kept in log/raw/ID, so that a
test asserts on what arrived and not on what somebody says of it. Log lines: accept, hello (the ClientHello as it came), tls (what was
agreed) or tlsfail, eof (how the peer ended: fin, notify, cut), stalled (the peer takes nothing), close.
"""
import errno
import json
import os
import select
import socket
import ssl
import struct
import threading
import time

D = [""]     # the world's folder
LOG = [-1]   # the descriptor that log() writes to
_id = [0]
_lock = threading.Lock()
RAW_MAX = 1 << 20


def log(**r):
    os.write(LOG[0], json.dumps({"t": round(time.monotonic(), 6), **r}).encode() + b"\n")


def parse_hello(data):
    """The facts of a ClientHello that a test may ask for; None while it is incomplete."""
    hs, o = b"", 0
    while o + 5 <= len(data) and data[o] == 22:
        n = struct.unpack("!H", data[o + 3:o + 5])[0]
        hs += data[o + 5:o + 5 + n]
        o += 5 + n
        if len(hs) >= 4 and len(hs) >= 4 + int.from_bytes(hs[1:4], "big"):
            break
    else:
        if data[:1] not in (b"", b"\x16"):
            return {"sni": None, "alpn": [], "not_tls": True}
        return None
    r = {"sni": None, "alpn": [], "versions": [], "offers_session": False, "early_data": False, "extensions": [], "bytes": len(hs)}
    p = 4 + 2 + 32
    r["session_id"] = hs[p]
    p += 1 + hs[p]
    p += 2 + struct.unpack("!H", hs[p:p + 2])[0]
    p += 1 + hs[p]
    end = p + 2 + struct.unpack("!H", hs[p:p + 2])[0] if p + 2 <= len(hs) else p
    p += 2
    while p + 4 <= end:
        t, n = struct.unpack("!HH", hs[p:p + 4])
        v = hs[p + 4:p + 4 + n]
        p += 4 + n
        r["extensions"].append(t)
        if t == 0:
            r["sni"] = v[5:5 + struct.unpack("!H", v[3:5])[0]].decode("latin-1")
        elif t == 16:
            q = 2
            while q < len(v):
                r["alpn"].append(v[q + 1:q + 1 + v[q]].decode("latin-1"))
                q += 1 + v[q]
        elif t == 43:
            r["versions"] = [x.hex() for x in (v[i:i + 2] for i in range(1, len(v), 2))]
        elif t == 41 or t == 35 and n:
            r["offers_session"] = True
        elif t == 42:
            r["early_data"] = True
    return r


def peek_hello(sock):
    """Look at the ClientHello without taking it."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        data = sock.recv(1 << 18, socket.MSG_PEEK)
        if not data:
            return None
        r = parse_hello(data)
        if r:
            return r
        time.sleep(0.001)  # the rest is on its way and MSG_PEEK cannot wait for more
    return None


class Gone(Exception):
    """The peer ended the connection."""


class Peer:
    """A connection, inside TLS or not: what came is kept, how it ended is told."""

    def __init__(self, srv, sock, site):
        with _lock:
            _id[0] += 1
            self.id = _id[0]
        self.srv, self.sock, self.site, self.buf, self.n_in, self.n_out, self.how, self.tls = srv, sock, site, b"", 0, 0, None, None
        self.eof, self.io = False, threading.Lock()
        self.local, self.peer = sock.getsockname(), sock.getpeername()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        log(ev="accept", srv=srv, id=self.id, local=self.local[0], port=self.local[1], peer=self.peer[0], sport=self.peer[1])
        self.raw = open(os.path.join(D[0], "log", "raw", str(self.id)), "wb", buffering=0)
        sock.setblocking(False)

    def start_tls(self, ctx):
        self.sock.setblocking(True)
        hello = peek_hello(self.sock)
        if hello:
            log(ev="hello", id=self.id, local=self.local[0], port=self.local[1], site=self.site, **hello)
        try:
            self.sock.settimeout(30)
            self.sock = ctx.wrap_socket(self.sock, server_side=True, suppress_ragged_eofs=False)
        except OSError as e:
            log(ev="tlsfail", id=self.id, local=self.local[0], site=self.site, error=str(getattr(e, "reason", None) or e))
            raise Gone from e
        self.tls = {"version": self.sock.version(), "alpn": self.sock.selected_alpn_protocol(), "resumed": self.sock.session_reused,
                    "sni": hello and hello["sni"], "cipher": self.sock.cipher()[0]}
        log(ev="tls", id=self.id, local=self.local[0], port=self.local[1], site=self.site, **self.tls)
        self.sock.setblocking(False)

    def ready(self, what, seconds=None):
        """Wait for the descriptor; OpenSSL itself is never waited in, because two threads may not be inside it at once."""
        return bool(select.select([self.sock] if what == "r" else [], [self.sock] if what == "w" else [], [], seconds)[int(what == "w")])

    def recv(self, n=1 << 16):
        if self.eof:
            return b""
        while True:
            try:
                with self.io:
                    d = self.sock.recv(n)
                break
            except (ssl.SSLWantReadError, BlockingIOError):
                self.ready("r")
            except ssl.SSLWantWriteError:
                self.ready("w")
            except ssl.SSLEOFError:
                self.how, d = "cut", b""
                break
            except (OSError, ValueError) as e:
                self.how = self.how or ("rst" if getattr(e, "errno", None) in (errno.ECONNRESET, errno.EPIPE) else f"error: {e}")
                raise Gone from e
        if not d:
            self.eof, self.how = True, self.how or ("notify" if self.tls else "fin")
            log(ev="eof", id=self.id, how=self.how, bytes=self.n_in)
            return b""
        if self.n_in < RAW_MAX:
            self.raw.write(d[:RAW_MAX - self.n_in])
        self.n_in += len(d)
        return d

    def more(self):
        d = self.recv()
        self.buf += d
        return bool(d)

    def until(self, sep):
        """Bytes up to and with a separator; None when the input ended before."""
        scanned = 0
        while True:
            i = self.buf.find(sep, max(0, scanned - len(sep)))
            if i >= 0:
                got, self.buf = self.buf[:i + len(sep)], self.buf[i + len(sep):]
                return got
            scanned = len(self.buf)
            if not self.more():
                return None

    def take(self, most):
        """Some bytes, at most so many; empty at the end."""
        if not self.buf and not self.more():
            return b""
        got, self.buf = self.buf[:most], self.buf[most:]
        return got

    def say(self, data):
        """Send all; a peer that takes nothing for half a second is on record with how much it had taken."""
        v = memoryview(data)
        while v:
            try:
                with self.io:
                    n = self.sock.send(v[:1 << 16])
                self.n_out += n
                v = v[n:]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if not self.ready("w", 0.5):
                    log(ev="stalled", id=self.id, out=self.n_out)
            except (OSError, ValueError) as e:
                self.how = "rst"
                raise Gone from e

    def shut(self):
        """End our half: close_notify inside TLS, FIN outside."""
        try:
            if self.tls:
                with self.io:
                    self.sock.unwrap()
            else:
                self.sock.shutdown(socket.SHUT_WR)
        except (OSError, ValueError):
            pass  # the peer's own end is not there yet, or the connection is gone

    def reset(self):
        self.how = "reset by us"
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self):
        """An orderly end: ours first, then wait shortly for the peer's, so that unread input does not become a reset."""
        fd = self.sock.fileno()
        if fd < 0:
            return
        if not self.how or self.eof:
            self.shut()
            try:
                socket.socket.shutdown(self.sock, socket.SHUT_WR)
                while select.select([fd], [], [], 5)[0] and os.read(fd, 1 << 16):
                    pass
            except OSError:
                pass
        self.sock.close()
