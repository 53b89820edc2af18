# SPDX-License-Identifier: BSD-3-Clause
"""How fast bytes really come and go, measured where they end: servers that swallow or pour, and ten times a second say how much.

A TCP connection says one line first: "up" (all that follows is swallowed) or "down" (bytes without end come back). Inside TLS the same. Each
UDP peer's datagrams are counted; "down BYTES_A_SECOND SECONDS" is answered with that. Each line of the log holds the sums of all
connections and peers that moved since the last: {"ev": "tick", "t": ..., "bytes": {ID: sum}}. What is poured counts once the other end's
kernel has it.
"""
import os
import socket
import ssl
import struct
import sys
import threading
import time

import peer
import worldlib as w
from peer import log

_lock = threading.Lock()
_sums, _pouring, _next = {}, {}, [0]


def acked(sock):
    """tcpi_bytes_acked: what the other end's kernel has taken."""
    return struct.unpack_from("Q", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136), 120)[0]


def serve(sock, ctx, local):
    with _lock:
        _next[0] += 1
        me = _next[0]
    try:
        s = ctx.wrap_socket(sock, server_side=True) if ctx else sock
        line = b""
        while not line.endswith(b"\n"):
            c = s.recv(1)
            if not c:
                return
            line += c
        log(ev="begin", id=me, what=line.decode().strip(), local=local[0], port=local[1])
        _sums[me] = 0
        if line == b"up\n":
            buf = bytearray(1 << 16)
            while True:
                n = s.recv_into(buf)
                if not n:
                    break
                _sums[me] += n
        else:
            with _lock:
                _pouring[me] = s
            piece = os.urandom(1 << 14)
            while True:
                s.sendall(piece)
    except OSError:
        pass
    finally:
        with _lock:
            if _pouring.pop(me, None):
                _sums[me] = acked(s)
        log(ev="end", id=me, bytes=_sums.get(me, 0))
        (s if ctx and "s" in locals() else sock).close()


def listen(ip, port, ctx=None):
    ls = socket.create_server((ip, port), backlog=256)

    def run():
        while True:
            c, _ = ls.accept()
            threading.Thread(target=serve, args=(c, ctx, (ip, port)), daemon=True).start()
    threading.Thread(target=run, daemon=True).start()


def pour(s, who, bps, seconds):
    begin = time.monotonic()
    sent, end, piece = 0, begin + seconds, bytes(1200)
    while time.monotonic() < end:
        due = int((time.monotonic() - begin) * bps)
        while sent < due:
            s.sendto(piece, who)
            sent += len(piece)
        time.sleep(0.002)
    log(ev="poured", peer=who[0], sport=who[1], bytes=sent)


def datagrams(ip, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    s.bind((ip, port))

    def run():
        while True:
            d, who = s.recvfrom(65535)
            if d.startswith(b"down "):
                threading.Thread(target=pour, args=(s, who, *map(int, d.split()[1:])), daemon=True).start()
            else:
                key = f"udp{who[1]}"
                _sums[key] = _sums.get(key, 0) + len(d)
    threading.Thread(target=run, daemon=True).start()


def main(folder, path):
    peer.LOG[0] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    threading.stack_size(256 << 10)
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(os.path.join(folder, "certs", "good.pem"))
    listen("0.0.0.0", w.METER)
    listen(w.SITES["line.test"], w.METER_TLS, ctx)
    datagrams(w.PROTO, w.METER_UDP)
    os.write(1, b"ready\n")
    last = {}
    while True:
        time.sleep(0.1)  # the tick itself, and nothing that is waited for
        with _lock:
            begin = time.monotonic()
            _sums.update({i: acked(s) for i, s in _pouring.items()})
            now, end = dict(_sums), time.monotonic()
        if end - begin > 0.01:
            continue  # interrupted in the middle: the sums are of no one time
        moved = {k: v for k, v in now.items() if last.get(k) != v}
        if moved:
            log(ev="tick", bytes=moved, t=round(begin, 6))
        last = now


if __name__ == "__main__":
    main(*sys.argv[1:])
