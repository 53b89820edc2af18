# SPDX-License-Identifier: BSD-3-Clause
"""Writes one JSON line for each packet that opens something: TCP SYN, UDP, ICMP, and any IPv6 but neighbour discovery.

A server's log only shows connections it accepted; this shows that nothing was even dialled. A kernel filter keeps the
bulk of a transfer away from it, so it costs a fast test nothing.
"""
import ctypes
import json
import os
import socket
import struct
import sys
import time

PROG = [  # code, jt, jf, k
    (0x28, 0, 0, 12),          # 0  ethertype
    (0x15, 0, 9, 0x0800),      # 1  IPv4? else 11
    (0x30, 0, 0, 23),          # 2  protocol
    (0x15, 2, 0, 6),           # 3  TCP -> 6
    (0x15, 10, 0, 17),         # 4  UDP -> 15
    (0x15, 9, 10, 1),          # 5  ICMP -> 15, else 16
    (0xB1, 0, 0, 14),          # 6  x = IP header length
    (0x50, 0, 0, 27),          # 7  TCP flags
    (0x54, 0, 0, 0x12),        # 8  SYN|ACK
    (0x15, 5, 6, 0x02),        # 9  SYN alone -> 15, else 16
    (0x06, 0, 0, 0),           # 10 unused
    (0x15, 0, 4, 0x86DD),      # 11 IPv6? else 16
    (0x30, 0, 0, 20),          # 12 next header
    (0x15, 2, 0, 58),          # 13 ICMPv6 -> 16
    (0x15, 1, 0, 0),           # 14 hop-by-hop (MLD) -> 16
    (0x06, 0, 0, 128),         # 15 take
    (0x06, 0, 0, 0),           # 16 leave
]


def main(dev, path):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    code = b"".join(struct.pack("HBBI", *i) for i in PROG)
    buf = ctypes.create_string_buffer(code)
    s.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HxxxxxxQ", len(PROG), ctypes.addressof(buf)))  # SO_ATTACH_FILTER
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    s.bind((dev, 0))
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    seen = {}
    os.write(1, b"ready\n")
    while True:
        p, (_, _, kind, _, _) = s.recvfrom(256)
        if kind == 4:  # our own answers
            continue
        r = {"t": round(time.monotonic(), 6)}
        if p[12:14] == b"\x86\xdd":
            r.update(proto="ip6", src=socket.inet_ntop(socket.AF_INET6, p[22:38]),
                     dst=socket.inet_ntop(socket.AF_INET6, p[38:54]), port=0, next=p[20])
        else:
            h = 14 + (p[14] & 15) * 4
            r.update(proto={6: "tcp", 17: "udp", 1: "icmp"}[p[23]], src=socket.inet_ntoa(p[26:30]),
                     dst=socket.inet_ntoa(p[30:34]), port=0)
            if p[23] != 1 and len(p) >= h + 4:
                r["sport"], r["port"] = struct.unpack("!HH", p[h:h + 4])
            elif len(p) >= h + 2:
                r["type"], r["code"] = p[h], p[h + 1]
        key = (r["proto"], r["src"], r.get("sport"), r["dst"], r["port"])
        if r["proto"] == "udp" and r["port"] != 53:
            seen[key] = seen.get(key, 0) + 1
            if seen[key] > 200:  # a flood needs no line for each datagram
                continue
            if len(seen) > 65536:
                seen.clear()
        os.write(fd, json.dumps(r).encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
