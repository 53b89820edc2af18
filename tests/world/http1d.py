# SPDX-License-Identifier: BSD-3-Clause
"""The HTTP/1 origin. What the answer is, the path says (H1_ROUTES); unknown paths answer as /echo does: with the request as JSON.

Lenient on purpose: it takes what it gets, so that what should not have reached it shows. Log lines: head (as it came), request (with
body and trailers; written before the answer is sent), continue (when 100 was sent, and how much of the body was already there).
"""
import base64
import gzip
import hashlib
import json
import os
import struct
import subprocess
import threading
import time

import worldlib as w
from peer import D, Gone, log


def fields(text):
    """Header lines as they came: [name, value] with the spacing that the sender chose."""
    return [x.partition(":")[::2] for x in text.split("\r\n") if x]


def get(headers, name):
    return next((v.strip() for k, v in headers if k.strip().lower() == name), None)


class Request:
    """One request as it came: head bytes, framing, and where its body goes."""

    def __init__(self, p, head, n):
        self.p, self.n = p, n
        self.raw = head.decode("latin-1")
        self.line, _, rest = self.raw[:-4].partition("\r\n")
        self.headers = fields(rest)
        self.method, _, rest = self.line.partition(" ")
        self.target = rest.rpartition(" ")[0] if " HTTP/" in rest else rest
        path = self.target
        if "://" in path:
            path = "/" + path.split("://", 1)[1].partition("/")[2]
        self.path, _, self.query = path.partition("?")
        self.parts = self.path.strip("/").split("/")
        self.close = (get(self.headers, "connection") or "").lower() == "close" or self.line.endswith("HTTP/1.0")
        self.sha, self.length, self.chunks, self.trailers, self.first = hashlib.sha256(), 0, [], [], None
        log(ev="head", id=p.id, n=n, srv=p.srv, local=p.local[0], port=p.local[1], line=self.line, headers=self.headers)

    def arg(self, i, default):
        return int(self.parts[i]) if len(self.parts) > i and self.parts[i].isdigit() else default

    def has_body(self):
        return get(self.headers, "content-length") not in (None, "0") or get(self.headers, "transfer-encoding") is not None

    def got(self, d):
        self.first = self.first or time.monotonic()
        self.sha.update(d)
        self.length += len(d)
        return d

    def body(self):
        """The body's pieces as they come; counts and trailers are complete at the end."""
        p = self.p
        if (get(self.headers, "expect") or "").lower() == "100-continue":
            log(ev="continue", id=p.id, early=len(p.buf))
            p.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in (get(self.headers, "transfer-encoding") or "").lower():
            while True:
                line = p.until(b"\r\n")
                if line is None:
                    raise Gone
                left = int(line.split(b";")[0], 16)
                if not left:
                    break
                if len(self.chunks) < 1000:
                    self.chunks.append(line[:-2].decode("latin-1"))
                while left:
                    d = p.take(left)
                    if not d:
                        raise Gone
                    left -= len(d)
                    yield self.got(d)
                p.until(b"\r\n")
            while True:
                line = p.until(b"\r\n")
                if line is None:
                    raise Gone
                if line == b"\r\n":
                    break
                self.trailers += fields(line[:-2].decode("latin-1"))
        else:
            left = int(get(self.headers, "content-length") or 0)
            while left:
                d = p.take(left)
                if not d:
                    raise Gone
                left -= len(d)
                yield self.got(d)

    def facts(self):
        return {"id": self.p.id, "n": self.n, "srv": self.p.srv, "local": self.p.local[0], "port": self.p.local[1], "method": self.method,
                "target": self.target, "path": self.path, "line": self.line, "host": get(self.headers, "host"), "headers": self.headers,
                "body": self.length, "sha256": self.sha.hexdigest(), "chunks": self.chunks, "trailers": self.trailers,
                "sni": (self.p.tls or {}).get("sni"), "proto": "h1"}

    def done(self):
        for _ in self.body():
            pass
        log(ev="request", **self.facts())

    def reply(self, status, headers=(), body=b"", length=True):
        lines = [f"HTTP/1.1 {status}"] + [f"{k}: {v}" for k, v in headers]
        if length:
            lines.append(f"Content-Length: {len(body)}")
        if self.close:
            lines.append("Connection: close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        self.p.say(head + (b"" if self.method == "HEAD" else body))

    def chunk(self, d):
        self.p.say(b"%x\r\n" % len(d) + d + b"\r\n")


def r_echo(r):
    r.done()
    r.reply("200 OK", [("Content-Type", "application/json"), ("X-Origin", str(r.p.id))], json.dumps(r.facts()).encode())


def r_bytes(r):
    """/bytes/N: N bytes of worldlib.pattern."""
    r.done()
    r.reply("200 OK", [("Content-Type", "application/octet-stream")], w.pattern(r.arg(1, 1 << 20)))


def r_chunked(r):
    """/chunked/N/SIZE: the same in chunks of SIZE, with an extension on the first and a trailer."""
    r.done()
    data, size = w.pattern(r.arg(1, 100000)), r.arg(2, 1000)
    r.reply("200 OK", [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum, X-Odd")], length=False)
    if r.method == "HEAD":
        return
    out = b""
    for i in range(0, len(data), size):
        d = data[i:i + size]
        out += b"%x%s\r\n" % (len(d), b";ext=\"a b\"" if not i else b"") + d + b"\r\n"
        if len(out) > 1 << 16:
            r.p.say(out)
            out = b""
    r.p.say(out + f"0\r\nX-Sum: {hashlib.sha256(data).hexdigest()}\r\nx-ODD:  spaced \r\n\r\n".encode())


def r_hints(r):
    r.done()
    r.p.say(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
    r.p.say(b"HTTP/1.1 102 Processing\r\n\r\n")
    r.reply("200 OK", [], b"after the hints")


def r_status(r):
    """/status/N: 204 and 304 have no body; 304 has a length all the same."""
    r.done()
    n = r.arg(1, 200)
    if n == 304:
        r.p.say(b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 1234\r\n\r\n")
    elif n in (204, 205):
        r.reply(f"{n} No Content", length=n == 205)
    else:
        r.reply(f"{n} Status", [], b"status %d" % n)


def r_gzip(r):
    r.done()
    r.reply("200 OK", [("Content-Encoding", "gzip"), ("Content-Type", "text/plain")], gzip.compress(w.pattern(100000), mtime=0))


def r_drip(r):
    """/drip/N/MS: N single bytes, MS apart, each with its length announced beforehand."""
    r.done()
    n, ms = r.arg(1, 20), r.arg(2, 20)
    r.p.say(f"HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n".encode())
    for i in range(n):
        time.sleep(ms / 1000)
        r.p.say(b"%d" % (i % 10))


def r_sse(r):
    """/sse/N/MS: server-sent events, each with the moment of its sending (CLOCK_MONOTONIC, one clock for all here)."""
    r.done()
    r.reply("200 OK", [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked"), ("Cache-Control", "no-cache")], length=False)
    for i in range(r.arg(1, 50)):
        time.sleep(r.arg(2, 5) / 1000)
        r.chunk(b"id: %d\ndata: %.6f\n\n" % (i, time.monotonic()))
    r.p.say(b"0\r\n\r\n")


def r_untilclose(r):
    """No length at all: the body ends with the connection."""
    r.done()
    r.close = True
    r.reply("200 OK", [], w.pattern(50000), length=False)


def r_http10(r):
    r.done()
    r.close = True
    r.p.say(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + (b"" if r.method == "HEAD" else w.pattern(50000)))


def r_closekeep(r):
    """Promises keep-alive and closes all the same."""
    r.done()
    r.reply("200 OK", [], b"one")
    r.close = True


def r_altsvc(r):
    r.done()
    r.reply("200 OK", [("Alt-Svc", 'h3=":443"; ma=86400, h3-29=":443"'), ("X-Between", "kept"), ("alt-svc", 'h2="alias.test:443", h3=":443"')],
            b"alt")


def r_reset(r):
    """/reset/N: N bytes of a longer body, then RST; /reset/N/open: of a body whose length nobody said."""
    r.done()
    r.p.say(b"HTTP/1.1 200 OK\r\n" + (b"" if "open" in r.parts else b"Content-Length: 1000000\r\n") + b"\r\n" + w.pattern(r.arg(1, 1000)))
    r.p.reset()
    raise Gone


def r_truncated(r):
    """Half of what Content-Length promised (or of a chunked body), then an orderly end of the connection."""
    r.done()
    if "chunked" in r.parts:
        r.p.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n" + b"x" * 100 + b"\r\n64\r\n" + b"x" * 50)
    else:
        r.p.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 500)
    r.close = True


def r_early(r):
    """An answer before the body was read, and the end of the connection."""
    r.close = True
    r.reply("413 Payload Too Large", [], b"too large")


def r_late(r):
    """Answers only when the guest has ended its half: shows that the end arrives and our half stays open."""
    r.done()
    while r.p.more():
        pass
    r.close = True
    r.reply("200 OK", [], b"saw the end as " + (r.p.how or "").encode())


def r_refusebody(r):
    """Expect: 100-continue answered with a final status; what then comes on the connection is the next request."""
    r.reply("417 Expectation Failed", [], b"no")


def r_duplex(r):
    """Each piece of the body comes back at once, while the rest is still being sent."""
    r.p.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for d in r.body():
        r.chunk(d)
    log(ev="request", **r.facts())
    r.p.say(b"0\r\n\r\n")


def ws_frame(p):
    """One WebSocket frame: opcode, payload. None at the end."""
    def exactly(n):
        out = b""
        while len(out) < n:
            d = p.take(n - len(out))
            if not d:
                raise Gone
            out += d
        return out
    head = exactly(2)
    n = head[1] & 127
    if n == 126:
        n = struct.unpack("!H", exactly(2))[0]
    elif n == 127:
        n = struct.unpack("!Q", exactly(8))[0]
    mask = exactly(4) if head[1] & 128 else b"\0\0\0\0"
    data = exactly(n)
    return head[0] & 15, bytes(x ^ mask[i % 4] for i, x in enumerate(data)) if n < 1 << 16 else \
        (int.from_bytes(data, "big") ^ int.from_bytes((mask * (n // 4 + 1))[:n], "big")).to_bytes(n, "big")


def ws_send(p, op, data):
    n = len(data)
    head = bytes([0x80 | op]) + (bytes([n]) if n < 126 else b"\x7e" + struct.pack("!H", n) if n < 1 << 16 else b"\x7f" + struct.pack("!Q", n))
    p.say(head + data)


def r_ws(r):
    """A WebSocket echo (RFC 6455)."""
    r.done()
    key = get(r.headers, "sec-websocket-key") or ""
    if (get(r.headers, "upgrade") or "").lower() != "websocket":
        return r.reply("426 Upgrade Required", [("Upgrade", "websocket")], b"")
    accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
    r.p.say(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())
    while True:
        op, data = ws_frame(r.p)
        if op == 8:
            ws_send(r.p, 8, data)
            break
        ws_send(r.p, 10 if op == 9 else op, data)
    r.close = True


def r_wsraw(r):
    """A 101 with bytes right behind it, then any bytes come back: nothing of it is HTTP."""
    r.done()
    r.p.say(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
    while True:
        d = r.p.take(1 << 16)
        if not d:
            break
        r.p.say(d)
    r.p.say(b"end")
    r.close = True


def r_ws200(r):
    """Asked for an upgrade and declines: the connection goes on with HTTP."""
    r.done()
    r.reply("200 OK", [], b"no upgrade")


def r_bad(r):
    """/bad/WHAT: responses that a strict relay must not pass on."""
    r.done()
    r.close = True
    ok = b"HTTP/1.1 200 OK\r\n"
    r.p.say({"two-lengths": ok + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
             "length-and-chunked": ok + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
             "bare-lf": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
             "folded": ok + b"X-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello",
             "control": ok + b"X-A: b\0c\r\nContent-Length: 5\r\n\r\nhello",
             "space-colon": ok + b"X-A : b\r\nContent-Length: 5\r\n\r\nhello",
             "version": b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
             "nothing": b"hello, this is not HTTP\r\n\r\n",
             "chunk-size": ok + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
             "large": ok + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(200)) + b"\r\n",
             "unasked-101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello"}[r.parts[1]])


def r_extra(r):
    """A second response that nobody asked for, in the same write."""
    r.done()
    r.p.say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\noneHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nSMUGGLED")


def r_git(r):
    """Smart HTTP: /git/NAME.git/... through git's own CGI program."""
    env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": D[0], "GIT_PROJECT_ROOT": os.path.join(D[0], "git"), "GIT_HTTP_EXPORT_ALL": "1",
           "REQUEST_METHOD": r.method, "PATH_INFO": r.path[4:], "QUERY_STRING": r.query, "REMOTE_USER": "world", "REMOTE_ADDR": "127.0.0.1",
           "CONTENT_TYPE": get(r.headers, "content-type") or "", "SERVER_PROTOCOL": "HTTP/1.1", "GIT_CONFIG_COUNT": "2",
           "GIT_CONFIG_KEY_0": "http.receivepack", "GIT_CONFIG_VALUE_0": "true", "GIT_CONFIG_KEY_1": "safe.directory", "GIT_CONFIG_VALUE_1": "*"}
    for h, v in (("content-encoding", "HTTP_CONTENT_ENCODING"), ("git-protocol", "GIT_PROTOCOL"), ("content-length", "CONTENT_LENGTH")):
        if get(r.headers, h) is not None:
            env[v] = get(r.headers, h)
    cgi = subprocess.Popen(["git", "http-backend"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def feed():
        try:
            for d in r.body():
                cgi.stdin.write(d)
            log(ev="request", **r.facts())
            cgi.stdin.close()
        except (Gone, OSError, ValueError):
            cgi.kill()
    t = threading.Thread(target=feed, daemon=True)
    t.start()
    head = []
    for line in iter(cgi.stdout.readline, b"\r\n"):
        if not line:
            break
        head.append(line.decode("latin-1").rstrip("\r\n").partition(": ")[::2])
    status = next((v for k, v in head if k.lower() == "status"), "200 OK")
    r.reply(status, [x for x in head if x[0].lower() != "status"] + [("Transfer-Encoding", "chunked")], length=False)
    while True:
        d = cgi.stdout.read1(1 << 16)
        if not d:
            break
        r.chunk(d)
    r.p.say(b"0\r\n\r\n")
    t.join()
    cgi.wait()


H1_ROUTES = {"echo": r_echo, "bytes": r_bytes, "chunked": r_chunked, "hints": r_hints, "status": r_status, "gzip": r_gzip, "drip": r_drip,
             "sse": r_sse, "untilclose": r_untilclose, "http10": r_http10, "closekeep": r_closekeep, "altsvc": r_altsvc, "reset": r_reset,
             "truncated": r_truncated, "early": r_early, "late": r_late, "refusebody": r_refusebody, "duplex": r_duplex, "ws": r_ws,
             "wsraw": r_wsraw, "ws200": r_ws200, "bad": r_bad, "extra": r_extra, "git": r_git}


def h1_serve(p):
    n = 0
    while True:
        head = p.until(b"\r\n\r\n")
        if head is None:
            return
        n += 1
        r = Request(p, head, n)
        H1_ROUTES.get(r.parts[0], r_echo)(r)
        if r.close:
            return
