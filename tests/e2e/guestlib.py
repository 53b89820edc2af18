# SPDX-License-Identifier: BSD-3-Clause
"""What a test's guest code can use: it runs as CMD inside `slirp-med run`, puts results into `out`, and that is printed.

Only the standard library, no privileges, and every wait has an end, so that a hang of the product is a failed test.
"""
import errno
import json
import os
import select  # noqa: F401 - for guest code, as is threading
import socket
import ssl
import struct
import sys
import threading  # noqa: F401
import time

RESOLVER, GATEWAY, ME = "10.0.2.3", "10.0.2.2", "10.0.2.15"
out = {}


def err(e):
    if isinstance(e, (TimeoutError, socket.timeout)) and e.errno is None:
        return "timeout"
    if isinstance(e, socket.gaierror):
        return "EAI"
    return errno.errorcode.get(e.errno, str(e))


def dial(host, port, timeout=8.0):
    s = socket.create_connection((host, port), timeout=timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def read(s, n=None, timeout=8.0):
    """Bytes up to n, or to the end; and how it ended: fin, full, timeout or an errno's name."""
    s.settimeout(timeout)
    got = b""
    try:
        while n is None or len(got) < n:
            d = s.recv(1 << 16 if n is None else n - len(got))
            if not d:
                return got, "fin"
            got += d
        return got, "full"
    except OSError as e:
        return got, err(e)


def attempt(host, port, data=b"", n=None, timeout=8.0, pause=0, shut=False, pieces=None):
    """One connection from dial to end, told as a dict."""
    t = time.monotonic()
    r = {}
    try:
        s = dial(host, port, timeout)
    except OSError as e:
        return {"connect": err(e), "ms": (time.monotonic() - t) * 1000, "reply": "", "end": ""}
    r["connect"], r["ms"] = "ok", (time.monotonic() - t) * 1000
    if pause:
        time.sleep(pause)
    try:
        for p in pieces or [data]:
            s.sendall(p)
        if shut:
            s.shutdown(socket.SHUT_WR)
        got, end = read(s, n, timeout)
    except OSError as e:
        got, end = b"", err(e)
    r["reply"], r["end"], r["total_ms"] = got.decode("latin-1"), end, (time.monotonic() - t) * 1000
    s.close()
    return r


def http(host, addr=None, port=80, path="/", **kw):
    """GET with a Host header of `host` to `addr` (its own address when not given)."""
    return attempt(addr or host, port, b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (path.encode(), host.encode()), **kw)


def hello(name):
    """A ClientHello with this SNI, or without one."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    o = ssl.MemoryBIO()
    try:
        c.wrap_bio(ssl.MemoryBIO(), o, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return o.read()


def https(sni, addr=None, port=443, path="/", pause=0, timeout=8.0, host=None):
    """A request over TLS under the test CA or the workspace's; sni None sends none."""
    t = time.monotonic()
    try:
        s = dial(addr or sni, port, timeout)
    except OSError as e:
        return {"connect": err(e), "ms": (time.monotonic() - t) * 1000, "reply": "", "end": ""}
    r = {"connect": "ok", "ms": (time.monotonic() - t) * 1000, "reply": ""}
    if pause:
        time.sleep(pause)
    c = ssl.create_default_context(cafile=os.environ["CURL_CA_BUNDLE"])
    if os.path.exists(os.environ.get("WORLD_CA", "")):
        c.load_verify_locations(os.environ["WORLD_CA"])
    c.check_hostname = False
    try:
        s = c.wrap_socket(s, server_hostname=sni)
        r["cert"] = [v for k, v in s.getpeercert()["subjectAltName"]]
        s.sendall(b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (path.encode(), (host or sni or addr).encode()))
        got, r["end"] = read(s, None, timeout)
        r["reply"] = got.decode("latin-1")
    except OSError as e:
        r["end"] = err(e)
    s.close()
    return r


# DNS, by hand: a resolver library would hide what is to be tested.
def qname(n):
    if isinstance(n, bytes):
        return n
    return b"".join(bytes([len(x)]) + x.encode("latin-1") for x in n.split(".") if x) + b"\0"


def _name(m, o, depth=0):
    labels, jumped = [], None
    while True:
        n = m[o]
        if n & 0xC0 == 0xC0:
            jumped = jumped or o + 2
            o = (n & 0x3F) << 8 | m[o + 1]
            depth += 1
            if depth > 50:
                raise ValueError("compression loop")
        elif n == 0:
            return ".".join(labels), jumped or o + 1
        else:
            labels.append(m[o + 1:o + 1 + n].decode("latin-1"))
            o += n + 1


def dns_parse(m):
    qid, flags, qd, an, ns, ar = struct.unpack("!HHHHHH", m[:12])
    r = {"rcode": flags & 15, "tc": bool(flags & 0x200), "ad": bool(flags & 0x20), "aa": bool(flags & 0x400), "qd": qd,
         "size": len(m), "answers": [], "id": qid}
    o = 12
    for _ in range(qd):
        _, o = _name(m, o)
        o += 4
    for _ in range(an):
        n, o = _name(m, o)
        t, _, ttl, ln = struct.unpack("!HHIH", m[o:o + 10])
        d = m[o + 10:o + 10 + ln]
        v = socket.inet_ntoa(d) if t == 1 else socket.inet_ntop(socket.AF_INET6, d) if t == 28 else \
            _name(m, o + 10)[0] if t == 5 else d.hex()
        r["answers"].append([n, t, ttl, v])
        o += 10 + ln
    return r


def dns(name, qtype=1, server=RESOLVER, tcp=False, timeout=12.0, raw=None, port=53):
    """Ask one question; the answer parsed, or {"error": ...}."""
    q = raw if raw is not None else struct.pack("!HHHHHH", 0x1234, 0x0100, 1, 0, 0, 0) + qname(name) + struct.pack("!HH", qtype, 1)
    t = time.monotonic()
    s = None
    try:
        if tcp:
            s = dial(server, port, timeout)
            s.sendall(struct.pack("!H", len(q)) + q)
            head, end = read(s, 2, timeout)
            if len(head) < 2:
                return {"error": end}
            m, end = read(s, struct.unpack("!H", head)[0], timeout)
        else:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.settimeout(timeout)
            s.connect((server, port))
            s.send(q)
            m = s.recv(65535)
        return {**dns_parse(m), "ms": (time.monotonic() - t) * 1000}
    except OSError as e:
        return {"error": err(e), "ms": (time.monotonic() - t) * 1000}
    finally:
        if s:
            s.close()


def udp(addr, port, data=b"ping", n=1, timeout=5.0):
    """Send one datagram and collect up to n replies or an error."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(timeout)
    got, t = [], time.monotonic()
    try:
        s.connect((addr, port))
        s.send(data)
        while len(got) < n:
            got.append(s.recv(65535).decode("latin-1"))
        return {"got": got, "ms": (time.monotonic() - t) * 1000}
    except OSError as e:
        return {"got": got, "error": err(e), "ms": (time.monotonic() - t) * 1000}
    finally:
        s.close()


def say(line):
    """A line to the test while the guest goes on running."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main():
    code = sys.argv[1]
    exec(compile(code, "<guest>", "exec"), globals())
    say("OUT " + json.dumps(out))


if __name__ == "__main__":
    main()
