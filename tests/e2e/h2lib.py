# SPDX-License-Identifier: BSD-3-Clause
"""A client of HTTP/2 for guest code (python3-h2 under an httplib.Client), which also says what a well-behaved client never would."""
import struct
import sys

sys.path.append("/usr/lib/python3/dist-packages")  # guest code runs without site
import h2.config  # noqa: E402
import h2.connection  # noqa: E402
import h2.events  # noqa: E402
import h2.exceptions  # noqa: E402
import httplib  # noqa: E402


class Stream:
    def __init__(self):
        self.headers, self.body, self.trailers, self.interim, self.reset, self.ended = [], b"", None, [], None, False

    @property
    def status(self):
        return int(dict(self.headers).get(":status", 0))

    def json(self):
        import json
        return json.loads(self.body)

    def get(self, name):
        return dict(self.headers).get(name)

    def summary(self):
        return [self.status, self.body.decode("latin-1")[:400], self.reset]


class H2:
    """window: how much the peer may send before grant() is called; by default all that is taken is granted at once."""

    def __init__(self, conn, window=None, settings=None):
        self.io, self.auto = conn, window is None
        self.c = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, header_encoding="latin-1", validate_outbound_headers=False, normalize_outbound_headers=False,
            validate_inbound_headers=False))
        self.streams, self.goaway, self.ended, self.pushed, self.settings, self.pongs, self.error = {}, None, None, 0, {}, 0, None
        self.buf = b""
        self.c.initiate_connection()
        self.c.update_settings({4: window or 1 << 20, **(settings or {})})
        if self.auto:
            self.c.increment_flow_control_window(16 << 20)
        self.flush()

    def flush(self):
        d = self.c.data_to_send()
        if d:
            self.io.send(d)

    def raw(self, ftype, flags, stream, payload=b""):
        """A frame of our own making."""
        self.flush()
        self.io.send(struct.pack("!I", len(payload))[1:] + bytes([ftype, flags]) + struct.pack("!I", stream) + payload)

    def block(self, headers):
        return self.c.encoder.encode(headers)

    def request(self, host, path="/echo", method="GET", extra=(), scheme="https", end=True, headers=None):
        sid = self.c.get_next_available_stream_id()
        self.streams[sid] = Stream()
        self.c.send_headers(sid, headers or [(":method", method), (":scheme", scheme), (":authority", host), (":path", path), *extra], end_stream=end)
        self.flush()
        return sid

    def data(self, sid, data, end=False):
        """Send as much as the windows let through, waiting for more."""
        v = memoryview(data)
        while True:
            n = min(len(v), self.c.local_flow_control_window(sid), self.c.max_outbound_frame_size)
            if n or not v:
                self.c.send_data(sid, bytes(v[:n]), end_stream=end and n == len(v))
                self.flush()
                v = v[n:]
                if not v:
                    return
            elif not self.step() or self.streams[sid].reset is not None:
                raise EOFError(f"stream {sid} ended while sending: {self.streams[sid].summary()}, goaway {self.goaway}")

    def trailers(self, sid, headers):
        self.c.send_headers(sid, headers, end_stream=True)
        self.flush()

    def rst(self, sid, code=8):
        self.c.reset_stream(sid, code)
        self.flush()

    def without_goaway(self, d):
        """Whole frames; GOAWAY is noted and kept from the library, which would not read on to the end of the open streams."""
        self.buf, out = self.buf + d, b""
        while len(self.buf) >= 9:
            n = 9 + int.from_bytes(self.buf[:3], "big")
            if len(self.buf) < n:
                break
            frame, self.buf = self.buf[:n], self.buf[n:]
            if frame[3] == 7:
                last, code = struct.unpack("!II", frame[9:17])
                self.goaway = [code, last & 0x7FFFFFFF]
            else:
                out += frame
        return out

    def step(self):
        """Read once; false at the end of the connection."""
        d = self.io.recv()
        if not d:
            self.ended = self.io.end
            return False
        try:
            events = self.c.receive_data(self.without_goaway(d))
        except h2.exceptions.ProtocolError as e:
            self.error = f"{type(e).__name__}: {e}"
            return False
        for e in events:
            s = self.streams.get(getattr(e, "stream_id", None))
            if isinstance(e, h2.events.ResponseReceived):
                s.headers = [list(x) for x in e.headers]
            elif isinstance(e, h2.events.InformationalResponseReceived):
                s.interim.append([list(x) for x in e.headers])
            elif isinstance(e, h2.events.DataReceived):
                s.body += e.data
                if self.auto and e.flow_controlled_length:
                    self.c.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
            elif isinstance(e, h2.events.TrailersReceived):
                s.trailers = [list(x) for x in e.headers]
            elif isinstance(e, h2.events.StreamEnded):
                s.ended = True
            elif isinstance(e, h2.events.StreamReset):
                s.reset = int(e.error_code)
            elif isinstance(e, h2.events.PushedStreamReceived):
                self.pushed += 1
            elif isinstance(e, h2.events.RemoteSettingsChanged):
                self.settings.update({int(k): v.new_value for k, v in e.changed_settings.items()})
            elif isinstance(e, h2.events.PingAckReceived):
                self.pongs += 1
        self.flush()
        return True

    def wait(self, *sids):
        """Until each of these streams is over (or the connection is)."""
        while not all(self.streams[s].ended or self.streams[s].reset is not None for s in sids):
            if not self.step():
                break
        return self.streams[sids[0]] if len(sids) == 1 else [self.streams[s] for s in sids]

    def until(self, cond):
        while not cond():
            if not self.step():
                return False
        return True

    def drain(self):
        """To the end of the connection: how it ended."""
        while self.step():
            pass
        return self.ended or self.error

    def ask(self, host, path="/echo", **kw):
        return self.wait(self.request(host, path, **kw))

    def ping(self):
        n = self.pongs
        self.c.ping(b"slirpmed")
        self.flush()
        return self.until(lambda: self.pongs > n)

    def close(self):
        self.io.close()


def tls(host="h2.test", **kw):
    window, settings = kw.pop("window", None), kw.pop("settings", None)
    c = httplib.tls(host, alpn=["h2", "http/1.1"], **kw)
    assert c.alpn == "h2", f"ALPN was not kept: {c.alpn}"
    return H2(c, window, settings)


def clear(host="h2.test", port=80, addr=None, **kw):
    return H2(httplib.connect(addr or host, port), kw.get("window"), kw.get("settings"))
