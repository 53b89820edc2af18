# SPDX-License-Identifier: BSD-3-Clause
"""A client that hides nothing: TLS over memory buffers (so that either half can be ended alone) and HTTP/1 as it came.

Used by tests in the world and, as `import httplib`, by guest code; standard library only. Every wait ends after `timeout` seconds.
"""
import array
import base64
import errno
import json
import os
import socket
import ssl
import struct


def pattern(n):
    """n bytes of which no eight stand twice."""
    a = array.array("Q", range(n // 8 + 1))
    a.byteswap()
    return a.tobytes()[:n]


class Response:
    """status, reason, headers and trailers as [(name, value with its spacing)], body, interim (1xx before it), chunks (size lines)."""

    def __init__(self, line, headers):
        _, _, rest = line.partition(" ")
        self.line, self.headers, self.trailers, self.interim, self.chunks, self.body = line, headers, [], [], [], b""
        self.status = int(rest[:3]) if rest[:3].isdigit() else 0

    def get(self, name, default=None):
        return next((v.strip() for k, v in self.headers if k.lower() == name.lower()), default)

    def all(self, name):
        return [v.strip() for k, v in self.headers if k.lower() == name.lower()]

    def json(self):
        return json.loads(self.body)


class Client:
    """A connection. end says how the peer's half ended: notify (TLS), fin, cut (TCP ended inside TLS), or an errno's name."""

    def __init__(self, host, port, timeout=10.0):
        self.s = socket.create_connection((host, port), timeout=timeout)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.o, self.buf, self.end = None, b"", None

    # TLS

    def start_tls(self, ctx, name, session=None):
        self.i, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.o = ctx.wrap_bio(self.i, self.out, server_hostname=name, session=session)
        try:
            self._step(self.o.do_handshake)
        except ssl.SSLError:
            self._flush()
            self.s.close()
            raise
        return self

    def _flush(self):
        d = self.out.read()
        if d:
            self.s.sendall(d)

    def _step(self, f, *a):
        while True:
            try:
                r = f(*a)
                self._flush()
                return r
            except ssl.SSLWantReadError:
                self._flush()
                d = self.s.recv(1 << 16)
                if d:
                    self.i.write(d)
                else:
                    self.i.write_eof()

    @property
    def alpn(self):
        return self.o.selected_alpn_protocol()

    @property
    def cert(self):
        """subjectAltName values of the certificate that was shown."""
        return [v for _, v in self.o.getpeercert().get("subjectAltName", ())]

    @property
    def issuer(self):
        return str(self.o.getpeercert().get("issuer"))

    # bytes

    def send(self, data):
        if not self.o:
            return self.s.sendall(data)
        v = memoryview(data)
        while v:
            v = v[self._step(self.o.write, v[:1 << 16]):]

    def recv(self, n=1 << 16):
        """Some bytes, or b"" at the end (see .end); a time-out raises."""
        if self.end:
            return b""
        try:
            d = self._step(self.o.read, n) if self.o else self.s.recv(n)
            if not d:
                self.end = "notify" if self.o else "fin"
            return d
        except ssl.SSLZeroReturnError:
            self.end = "notify"
        except ssl.SSLEOFError:
            self.end = "cut"
        except ssl.SSLError as e:
            self.end = "cut" if e.reason == "UNEXPECTED_EOF_WHILE_READING" else e.reason or str(e)
        except TimeoutError:
            raise
        except OSError as e:
            self.end = errno.errorcode.get(e.errno, str(e))
        return b""

    def shut(self):
        """End our half: close_notify inside TLS (TCP stays), FIN outside."""
        if not self.o:
            return self.s.shutdown(socket.SHUT_WR)
        try:
            self.o.unwrap()
        except ssl.SSLError:
            pass  # sent; the peer's is not there yet
        self._flush()

    def rest(self):
        """All up to the end."""
        out = [self.buf]
        self.buf = b""
        while True:
            d = self.recv()
            if not d:
                return b"".join(out)
            out.append(d)

    def close(self):
        self.s.close()

    # HTTP/1

    def until(self, sep):
        while sep not in self.buf:
            d = self.recv()
            if not d:
                raise EOFError(f"the connection ended ({self.end}) before {sep!r}; so far {self.buf[:300]!r}")
            self.buf += d
        got, _, self.buf = self.buf.partition(sep)
        return got

    def take(self, n):
        parts, have = [self.buf], len(self.buf)
        while have < n:
            d = self.recv()
            if not d:
                raise EOFError(f"the connection ended ({self.end}) after {have} of {n} bytes")
            parts.append(d)
            have += len(d)
        data = b"".join(parts)
        self.buf = data[n:]
        return data[:n]

    def answer(self, method="GET"):
        """The next response, framed as RFC 9112 6.3 has it."""
        interim = []
        while True:
            lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            r = Response(lines[0], [x.partition(":")[::2] for x in lines[1:]])
            if r.status >= 200 or r.status == 101 or not r.status:
                break
            interim.append(r)
        r.interim = interim
        if method == "HEAD" or r.status in (101, 204, 304):
            return r
        if "chunked" in (r.get("transfer-encoding") or ""):
            body = []
            while True:
                size = self.until(b"\r\n").decode("latin-1")
                r.chunks.append(size)
                n = int(size.split(";")[0], 16)
                if not n:
                    break
                body.append(self.take(n))
                assert self.take(2) == b"\r\n"
            while True:
                line = self.until(b"\r\n").decode("latin-1")
                if not line:
                    break
                r.trailers.append(line.partition(":")[::2])
            r.body = b"".join(body)
        elif r.get("content-length") is not None:
            r.body = self.take(int(r.get("content-length")))
        else:
            r.body = self.rest()
        return r

    def ask(self, raw, method="GET"):
        self.send(raw)
        return self.answer(method)


def context(alpn=None, cafile=None, cert=None, strict=False):
    c = ssl.create_default_context(cafile=cafile or os.environ["SSL_CERT_FILE"])
    c.options &= ~0x80  # OP_IGNORE_UNEXPECTED_EOF, which Python sets: a missing close_notify must be seen
    if strict:
        c.verify_flags |= ssl.VERIFY_X509_STRICT
    if alpn:
        c.set_alpn_protocols(alpn)
    if cert:
        c.load_cert_chain(cert)
    return c


def connect(host, port, timeout=10.0):
    return Client(host, port, timeout)


def tls(host, port=443, addr=None, sni=True, alpn=None, cafile=None, cert=None, ctx=None, timeout=10.0, check=True, strict=False, session=None):
    """A TLS connection; sni: True for the host's name, None for no SNI at all (then nothing checks the name)."""
    ctx = ctx or context(alpn, cafile, cert, strict)
    if sni is None or not check:
        ctx.check_hostname = False
    return Client(addr or host, port, timeout).start_tls(ctx, host if sni is True else sni, session)


def get(path, host, extra="", method="GET"):
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n".encode("latin-1")


def outcome(f):
    """What f() gave, or the word for how it failed: a TLS alert's or OpenSSL's reason, an errno's name, "timeout"."""
    try:
        return f()
    except ssl.SSLCertVerificationError as e:
        return f"verify: {e.verify_message}"
    except ssl.SSLError as e:
        return e.reason or str(e)
    except TimeoutError as e:
        return errno.errorcode.get(e.errno, "timeout") if e.errno else "timeout"
    except EOFError as e:
        return f"EOF {e}"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))


# WebSocket frames, both ways.

def ws_open(c, path, host):
    key = base64.b64encode(os.urandom(16)).decode()
    return c.ask(get(path, host, f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"))


def ws_send(c, op, data):
    n, mask = len(data), os.urandom(4)
    head = bytes([0x80 | op]) + (bytes([0x80 | n]) if n < 126 else b"\xfe" + struct.pack("!H", n) if n < 1 << 16 else b"\xff" + struct.pack("!Q", n))
    c.send(head + mask + (int.from_bytes(data, "big") ^ int.from_bytes((mask * (n // 4 + 1))[:n], "big")).to_bytes(n, "big"))


def ws_recv(c):
    head = c.take(2)
    n = head[1] & 127
    if n == 126:
        n = struct.unpack("!H", c.take(2))[0]
    elif n == 127:
        n = struct.unpack("!Q", c.take(8))[0]
    return head[0] & 15, c.take(n)


# A repository for git tests; in the world only.

def new_repo(world, name, size):
    """A bare repository with one file `data` of worldlib.pattern(size), served at git.test/NAME.git."""
    import subprocess

    import worldlib
    path = os.path.join(world.git, name + ".git")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", path], check=True)
    data = worldlib.pattern(size)
    head = (b"commit refs/heads/main\ncommitter w <w@w.test> 1000000000 +0000\ndata 5\nfirstM 100644 inline data\n"
            b"data %d\n" % size)
    subprocess.run(["git", "-C", path, "fast-import", "--quiet"], input=head.replace(b"firstM", b"first\nM") + data + b"\n", check=True)
    return path
