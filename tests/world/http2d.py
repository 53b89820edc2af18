# SPDX-License-Identifier: BSD-3-Clause
"""The HTTP/2 origin (python3-h2). What the answer is, the path says (H2_ROUTES); unknown paths answer as /echo does.

One thread reads frames and each request has one that answers; flow control is waited for. Nothing is validated in either direction:
what the other side made of it is what is to be seen. Log lines as in http1d.py, and settings, ping, goaway, rst_stream, h2error.
"""
import gzip
import hashlib
import json
import socket
import struct
import threading
import time

try:
    import h2.config
    import h2.connection
    import h2.events
    import h2.exceptions
except ImportError:  # the demo does without it
    h2 = None

import worldlib as w
from http1d import Request, h1_serve
from peer import Gone, log

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class H2:
    """A session: one thread reads frames, each request has a thread that answers; flow control is waited for."""

    def __init__(self, p):
        self.p, self.streams, self.lock = p, {}, threading.Condition()
        # Nothing is checked on the way out or in: what the peer made of it is what is to be seen.
        self.c = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=False, header_encoding="latin-1", validate_inbound_headers=False, normalize_inbound_headers=False,
            validate_outbound_headers=False, normalize_outbound_headers=False))
        self.open, self.draining = 0, False

    def flush(self):
        d = self.c.data_to_send()
        if d:
            self.p.say(d)

    def serve(self):
        with self.lock:
            self.c.initiate_connection()
            self.c.update_settings({3: 100, 4: 1 << 20, 6: 1 << 18})
            self.c.increment_flow_control_window(1 << 20)
            self.flush()
        d = self.p.buf
        self.p.buf = b""
        try:
            while True:
                d = d or self.p.recv()
                if not d:
                    break
                with self.lock:
                    try:
                        for e in self.c.receive_data(d):
                            self.event(e)
                    except h2.exceptions.ProtocolError as e:
                        log(ev="h2error", id=self.p.id, error=f"{type(e).__name__}: {e}")
                        self.flush()
                        break
                    self.flush()
                    self.lock.notify_all()
                d = b""
        finally:
            with self.lock:
                for s in self.streams.values():
                    s.gone = s.gone or "connection"
                self.lock.notify_all()

    def event(self, e):
        if isinstance(e, h2.events.RequestReceived):
            s = self.streams[e.stream_id] = Stream(self, e.stream_id, [list(x) for x in e.headers])
            self.open += 1
            threading.Thread(target=s.run, daemon=True).start()
        elif isinstance(e, h2.events.DataReceived):
            s = self.streams.get(e.stream_id)
            if s:
                s.queue.append((e.data, e.flow_controlled_length))
        elif isinstance(e, h2.events.TrailersReceived):
            self.streams[e.stream_id].trailers = [list(x) for x in e.headers]
        elif isinstance(e, h2.events.StreamEnded):
            self.streams[e.stream_id].ended = True
        elif isinstance(e, h2.events.StreamReset):
            log(ev="rst_stream", id=self.p.id, stream=e.stream_id, code=int(e.error_code))
            if e.stream_id in self.streams:
                self.streams[e.stream_id].gone = f"reset {int(e.error_code)}"
        elif isinstance(e, h2.events.RemoteSettingsChanged):
            log(ev="settings", id=self.p.id, settings={int(k): v.new_value for k, v in e.changed_settings.items()})
        elif isinstance(e, h2.events.ConnectionTerminated):
            log(ev="goaway", id=self.p.id, code=int(e.error_code), last=e.last_stream_id)
        elif isinstance(e, h2.events.PingReceived):
            log(ev="ping", id=self.p.id)

    def raw_frame(self, ftype, flags, stream, payload):
        self.flush()
        self.p.say(struct.pack("!I", len(payload))[1:] + bytes([ftype, flags]) + struct.pack("!I", stream) + payload)


class Stream:
    """One request; methods wait in the request's own thread."""

    def __init__(self, conn, sid, headers):
        self.c, self.p, self.sid, self.headers = conn, conn.p, sid, headers
        self.queue, self.ended, self.gone, self.trailers = [], False, None, []
        self.sha, self.length, self.sent = hashlib.sha256(), 0, 0
        h = dict(headers)
        self.method, self.path = h.get(":method", ""), h.get(":path", "").partition("?")[0]
        self.parts = self.path.strip("/").split("/")
        log(ev="head", id=self.p.id, n=sid, srv=self.p.srv, local=self.p.local[0], port=self.p.local[1], headers=headers,
            line=f"{self.method} {h.get(':path')} HTTP/2")

    arg = Request.arg

    def body(self):
        """Pieces of the body; the window is opened again as each is taken."""
        while True:
            with self.c.lock:
                self.c.lock.wait_for(lambda: self.queue or self.ended or self.gone)
                if not self.queue:
                    if self.gone:
                        raise Gone
                    return
                d, n = self.queue.pop(0)
                self.sha.update(d)
                self.length += len(d)
                if n:
                    self.c.c.acknowledge_received_data(n, self.sid)
                    self.c.flush()
            yield d

    def facts(self):
        h = dict(self.headers)
        return {"id": self.p.id, "n": self.sid, "srv": self.p.srv, "local": self.p.local[0], "port": self.p.local[1], "method": self.method,
                "target": h.get(":path"), "path": self.path, "host": h.get(":authority"), "headers": self.headers, "body": self.length,
                "sha256": self.sha.hexdigest(), "trailers": self.trailers, "sni": (self.p.tls or {}).get("sni"), "proto": "h2"}

    def done(self):
        for _ in self.body():
            pass
        log(ev="request", **self.facts())

    def head(self, status, headers=(), end=False):
        with self.c.lock:
            if self.gone:
                raise Gone
            self.c.c.send_headers(self.sid, [(":status", str(status)), *headers], end_stream=end)
            self.c.flush()

    def say(self, data, end=False):
        v = memoryview(data)
        while True:
            with self.c.lock:
                while not self.gone and v and self.c.c.local_flow_control_window(self.sid) <= 0:
                    if not self.c.lock.wait(0.5):
                        log(ev="stalled", id=self.p.id, n=self.sid, out=self.sent)
                if self.gone:
                    raise Gone
                n = min(len(v), self.c.c.local_flow_control_window(self.sid), self.c.c.max_outbound_frame_size) if v else 0
                last = n == len(v)
                self.c.c.send_data(self.sid, bytes(v[:n]), end_stream=end and last)
                self.sent += n
                self.c.flush()
                v = v[n:]
                if last:
                    return

    def end(self, trailers):
        with self.c.lock:
            if self.gone:
                raise Gone
            self.c.c.send_headers(self.sid, trailers, end_stream=True)
            self.c.flush()

    def rst(self, code):
        with self.c.lock:
            self.c.c.reset_stream(self.sid, code)
            self.c.flush()

    def reply(self, status, headers=(), body=b""):
        if self.method == "HEAD" or status in (204, 304):
            return self.head(status, [*headers, ("content-length", str(len(body)))] if status != 204 else headers, end=True)
        self.head(status, [*headers, ("content-length", str(len(body)))])
        self.say(body, end=True)

    def run(self):
        try:
            H2_ROUTES.get(self.parts[0], s_echo)(self)
        except Gone:
            pass
        except (h2.exceptions.ProtocolError, KeyError) as e:
            log(ev="h2error", id=self.p.id, n=self.sid, error=f"{type(e).__name__}: {e}")
        with self.c.lock:
            self.c.open -= 1
            if self.c.draining and not self.c.open:
                self.p.shut()
                socket.socket.shutdown(self.p.sock, socket.SHUT_WR)


def s_echo(s):
    s.done()
    s.reply(200, [("content-type", "application/json"), ("x-origin", str(s.p.id))], json.dumps(s.facts()).encode())


def s_bytes(s):
    s.done()
    s.reply(200, [], w.pattern(s.arg(1, 1 << 20)))


def s_trailers(s):
    s.done()
    s.head(200, [("content-type", "application/octet-stream"), ("trailer", "x-sum")])
    s.say(w.pattern(30000))
    s.end([("x-sum", hashlib.sha256(w.pattern(30000)).hexdigest()), ("x-last", "a b")])


def s_hints(s):
    s.done()
    s.head(103, [("link", "</style.css>; rel=preload")])
    s.reply(200, [], b"after the hints")


def s_status(s):
    s.done()
    s.reply(s.arg(1, 200), [], b"" if s.arg(1, 200) in (204, 304) else b"status")


def s_rst(s):
    """/rst/CODE: a beginning, then RST_STREAM."""
    s.done()
    s.head(200, [])
    s.say(b"beginning")
    s.rst(s.arg(1, 8))


def s_refuse(s):
    s.rst(7)


def s_goaway(s):
    """Answers, and says that no later stream will be: those that are open are finished first."""
    s.done()
    with s.c.lock:
        s.c.raw_frame(7, 0, 0, struct.pack("!II", s.sid, 0))
        s.c.draining = True
    s.reply(200, [], b"last words")


def s_push(s):
    """PUSH_PROMISE whatever the peer's settings say."""
    s.done()
    with s.c.lock:
        block = s.c.c.encoder.encode([(":method", "GET"), (":scheme", "https"), (":authority", dict(s.headers).get(":authority", "")), (":path", "/pushed")])
        s.c.raw_frame(5, 4, s.sid, struct.pack("!I", 2) + block)
    s.reply(200, [], b"with a push")


def s_early(s):
    """A final answer before the body has come, then RST_STREAM(NO_ERROR) as RFC 9113 8.1 has it."""
    s.reply(413, [], b"too large")
    s.rst(0)


def s_slow(s):
    """/slow/MS: reads the body a piece at a time."""
    for _ in s.body():
        time.sleep(s.arg(1, 5) / 1000)
    log(ev="request", **s.facts())
    s.reply(200, [], s.sha.hexdigest().encode())


def s_duplex(s):
    s.head(200, [])
    for d in s.body():
        s.say(d)
    log(ev="request", **s.facts())
    if s.trailers:
        s.end([tuple(x) for x in s.trailers])
    else:
        s.say(b"", end=True)


def s_drip(s):
    s.done()
    s.head(200, [("content-length", str(s.arg(1, 20)))])
    for i in range(s.arg(1, 20)):
        time.sleep(s.arg(2, 20) / 1000)
        s.say(b"%d" % (i % 10), end=i == s.arg(1, 20) - 1)


def s_sse(s):
    s.done()
    s.head(200, [("content-type", "text/event-stream")])
    for i in range(s.arg(1, 50)):
        time.sleep(s.arg(2, 5) / 1000)
        s.say(b"id: %d\ndata: %.6f\n\n" % (i, time.monotonic()))
    s.say(b"", end=True)


def s_gzip(s):
    s.done()
    s.reply(200, [("content-encoding", "gzip"), ("content-type", "text/plain")], gzip.compress(w.pattern(100000), mtime=0))


def s_altsvc(s):
    """As a header and as a frame (RFC 7838)."""
    s.done()
    with s.c.lock:
        s.c.raw_frame(10, 0, s.sid, struct.pack("!H", 0) + b'h3=":443"')
    s.reply(200, [("alt-svc", 'h3=":443"; ma=86400'), ("x-between", "kept"), ("alt-svc", 'h2="alias.test:443", h3=":443"')], b"alt")


def s_large(s):
    """Response headers that need CONTINUATION: /large/N lines of 1000 bytes."""
    s.done()
    s.reply(200, [(f"x-{i}", "y" * 1000) for i in range(s.arg(1, 30))], b"large")


def s_bad(s):
    """/bad/WHAT: responses that HTTP/2 forbids."""
    s.done()
    what = {"connection": [("connection", "close")], "te": [("transfer-encoding", "chunked")], "upper": [("X-Upper", "a")],
            "crlf": [("x-a", "b\r\nx-smuggled: c")], "nul": [("x-a", "b\0c")], "length": [("content-length", "3")]}[s.parts[1]]
    s.head(200, what)
    s.say(b"hello", end=True)


H2_ROUTES = {"echo": s_echo, "bytes": s_bytes, "trailers": s_trailers, "hints": s_hints, "status": s_status, "rst": s_rst, "refuse": s_refuse,
             "goaway": s_goaway, "push": s_push, "early": s_early, "slow": s_slow, "duplex": s_duplex, "drip": s_drip, "sse": s_sse,
             "gzip": s_gzip, "altsvc": s_altsvc, "large": s_large, "bad": s_bad}


def http_serve(p):
    """HTTP/2 by ALPN or preface, HTTP/1 otherwise."""
    if not (p.tls and p.tls["alpn"] == "h2"):
        while len(p.buf) < len(PREFACE) and PREFACE.startswith(p.buf):
            if not p.more():
                break
        if not p.buf.startswith(PREFACE) or not h2:
            return h1_serve(p)
    H2(p).serve()
