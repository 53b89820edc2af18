# SPDX-License-Identifier: BSD-3-Clause
"""A DNS server that tells the truth for the test zones and lies in each way a resolver has to survive.

Ordinary names are rows of ZONE. A name in ODD is answered by a function that may send any bytes, any number of
messages, late or never. Every question is logged with the address and transport it came to.
"""
import asyncio
import json
import os
import socket
import struct
import sys
import time

import worldlib as w

A, NS, CNAME, SOA, TXT, AAAA, SVCB, HTTPS, OPT = 1, 2, 5, 6, 16, 28, 64, 65, 41
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, REFUSED = 0, 1, 2, 3, 5


def name(n):
    return b"".join(bytes([len(x)]) + x.encode() for x in n.rstrip(".").split(".") if x) + b"\0"


def rr(owner, rtype, rdata, ttl=300):
    return name(owner) + struct.pack("!HHIH", rtype, 1, ttl, len(rdata)) + rdata


def a(owner, ip, ttl=300):
    return rr(owner, A, socket.inet_aton(ip), ttl)


def aaaa(owner, ip, ttl=300):
    return rr(owner, AAAA, socket.inet_pton(socket.AF_INET6, ip), ttl)


def cname(owner, target, ttl=300):
    return rr(owner, CNAME, name(target), ttl)


def txt(owner, data, ttl=300):
    return rr(owner, TXT, b"".join(bytes([len(data[i:i + 255])]) + data[i:i + 255] for i in range(0, len(data), 255)), ttl)


def svcb(owner, rtype=HTTPS, alpn=(b"h2", b"http/1.1"), ech=b"\x00\x08echechec", ip=w.WEB["ok.test"]):
    al = b"".join(bytes([len(x)]) + x for x in alpn)
    p = struct.pack("!HH", 1, len(al)) + al + struct.pack("!HH", 4, 4) + socket.inet_aton(ip)
    if ech:
        p += struct.pack("!HH", 5, len(ech)) + ech
    return rr(owner, rtype, struct.pack("!H", 1) + b"\0" + p)


ZONE = {n: [(A, a(n, ip))] for n, ip in {**w.WEB, **w.SITES, **w.GIT, **w.TLS_BAD, **w.CRED_PUBLIC, **w.CRED_INSIDE}.items()}
for _n, _ip in {"proto.test": w.PROTO, "inside.test": "10.0.0.5", "meta.test": "169.254.169.254", "loop.test": "127.0.0.1",
                "zeroaddr.test": "0.0.0.0", "own.test": w.CORE, "cgn.test": "100.64.0.9", "azure.test": "168.63.129.16",
                "lan.test": "192.168.7.7", "blackhole.test": w.BLACKHOLE, "unreach.test": w.UNREACHABLE,
                "prohibited.test": w.PROHIBITED, "sub.evil.test": w.WEB["evil.test"], "notok.test": w.WEB["evil.test"],
                "ok.test.evil.test": w.WEB["evil.test"], "xn--bcher-kva.test": w.WEB["other.test"],
                "under_score.test": w.WEB["other.test"], "a.wild.test": w.WEB["ok.test"], "wild.test": w.WEB["ok.test"]}.items():
    ZONE[_n] = [(A, a(_n, _ip))]
ZONE["mixed.test"] = [(A, a("mixed.test", w.WEB["ok.test"])), (A, a("mixed.test", "10.0.0.5"))]
ZONE["zero.test"] = [(A, a("zero.test", w.WEB["ok.test"], 0))]
ZONE["v6.test"] = [(A, a("v6.test", w.WEB["ok.test"])), (AAAA, aaaa("v6.test", "2001:db8:1::10"))]
ZONE["only6.test"] = [(AAAA, aaaa("only6.test", "2001:db8:1::10"))]
ZONE["chain.test"] = [(0, cname("chain.test", "c1.test")), (0, cname("c1.test", "c2.test")), (A, a("c2.test", w.WEB["ok.test"]))]
ZONE["cninside.test"] = [(0, cname("cninside.test", "inside.test")), (A, a("inside.test", "10.0.0.5"))]
ZONE["ech.test"] = [(HTTPS, svcb("ech.test")), (SVCB, svcb("ech.test", SVCB)), (A, a("ech.test", w.WEB["ok.test"]))]
# What a browser asks for before it tries QUIC: h3 before h2, and ech.
for _n in ("h2.test", "origin.test"):
    ZONE[_n].append((HTTPS, svcb(_n, alpn=(b"h3", b"h3-29", b"h2", b"http/1.1"), ip=w.SITES[_n])))
ZONE["h3only.test"] = [(HTTPS, svcb("h3only.test", alpn=(b"h3",), ech=b"", ip=w.SITES["h2.test"])), (A, a("h3only.test", w.SITES["h2.test"]))]
ZONE["txt.test"] = [(TXT, txt("txt.test", b"hello world"))]
ZONE["hugetxt.test"] = [(TXT, txt("hugetxt.test", b"x" * 20000))]
ZONE["many.test"] = [(A, a("many.test", f"198.51.100.{i}")) for i in range(100, 140)]

rebind_turn = {}


def reply(q, answers=(), rcode=NOERROR, extra=b"", n_extra=0, tc=False, qid=None, question=None, authority=b"", n_auth=0):
    flags = 0x8180 | rcode | (0x0200 if tc else 0)
    return (struct.pack("!HHHHHH", q["id"] if qid is None else qid, flags, 1, len(answers), n_auth, n_extra)
            + (question or q["question"]) + b"".join(answers) + authority + extra)


def odd_rebind(q):
    """Public and inside by turns: the check must be on the address that is dialled."""
    if q["type"] != A:
        return [reply(q)]
    n = rebind_turn[q["name"]] = rebind_turn.get(q["name"], 0) + 1
    return [reply(q, [a(q["name"], w.WEB["ok.test"] if n % 2 else "10.0.0.5", 0)])]


def odd_bailiwick(q):
    """A true answer with a poisoned neighbour in both sections."""
    bad = a("listed.test", w.WEB["evil.test"])
    return [reply(q, [a(q["name"], w.WEB["ok.test"]), bad], extra=bad, n_extra=1)]


def odd_forged_answer(q):
    """Only records that do not belong to the question."""
    return [reply(q, [a("listed.test", w.WEB["evil.test"])])]


def odd_loop(q):
    """The owner name is a compression pointer to itself."""
    off = 12 + len(q["question"])
    return [reply(q, [struct.pack("!H", 0xC000 | off) + struct.pack("!HHIH", A, 1, 300, 4) + socket.inet_aton(w.WEB["ok.test"])])]


ODD = {
    "rebind.test": odd_rebind,
    "bailiwick.test": odd_bailiwick,
    "forged.test": odd_forged_answer,
    "loopptr.test": odd_loop,
    "otherq.test": lambda q: [reply(q, [a("listed.test", w.WEB["evil.test"])], question=name("listed.test") + struct.pack("!HH", A, 1))],
    "wrongid.test": lambda q: [reply(q, [a(q["name"], w.WEB["evil.test"])], qid=q["id"] ^ 0x5555)],
    "refused.test": lambda q: [reply(q, rcode=REFUSED)],
    "servfail.test": lambda q: [reply(q, rcode=SERVFAIL)],
    "never.test": lambda q: [],
    "slow.test": lambda q: [1.0, reply(q, [a(q["name"], w.WEB["ok.test"])] if q["type"] == A else [])],
    "trunc.test": lambda q: [reply(q, [a(q["name"], w.WEB["ok.test"])] if q["tcp"] and q["type"] == A else [], tc=not q["tcp"])],
    "garbage.test": lambda q: [struct.pack("!H", q["id"]) + b"\xff" * 40],
    "short.test": lambda q: [reply(q, [a(q["name"], w.WEB["ok.test"])])[:-3]],
    "control.test": lambda q: [reply(q, [cname(q["name"], "ok.test"), a("ok.test", w.WEB["ok.test"])])],
    "cnloop.test": lambda q: [reply(q, [cname(q["name"], "cnloop2.test"), cname("cnloop2.test", q["name"])])],
    "adbit.test": lambda q: [(lambda m: m[:3] + bytes([m[3] | 0x20]) + m[4:])(reply(q, [a(q["name"], w.WEB["ok.test"])] if q["type"] == A else []))],
}


def parse(msg, tcp):
    qid, flags, qd, _, _, ar = struct.unpack("!HHHHHH", msg[:12])
    off, labels = 12, []
    while msg[off]:
        n = msg[off]
        if n > 63:
            raise ValueError("compressed question")
        labels.append(msg[off + 1:off + 1 + n].decode("latin-1"))
        off += n + 1
    qtype, qclass = struct.unpack("!HH", msg[off + 1:off + 5])
    size = 512
    if ar and msg[off + 5:off + 8] == b"\0\0\x29":
        size = max(512, struct.unpack("!H", msg[off + 8:off + 10])[0])
    return {"id": qid, "flags": flags, "n": qd, "name": ".".join(labels).lower(), "type": qtype, "class": qclass,
            "question": msg[12:off + 5], "tcp": tcp, "size": size}


def answer(q):
    """The messages to send, in order; a float between them is a wait in seconds."""
    if q["name"] in ODD:
        return ODD[q["name"]](q)
    rows = ZONE.get(q["name"])
    if rows is None and q["name"].endswith(".swap.test"):  # as many hosts with a credential as a test wants
        rows = [(A, a(q["name"], w.SITES["h2.test"]))]
    if rows is None:
        if not q["name"].endswith("test"):
            return [reply(q, rcode=REFUSED)]
        soa = rr("test", SOA, name("ns.test") + name("root.test") + struct.pack("!IIIII", 1, 60, 60, 60, 60), 60)
        return [reply(q, rcode=NXDOMAIN, authority=soa, n_auth=1)]
    hit = [d for t, d in rows if t == q["type"]]
    out = [d for t, d in rows if t == 0 or t == q["type"]] if hit or any(t == 0 for t, _ in rows) else []
    m = reply(q, out)
    if not q["tcp"] and len(m) > q["size"]:
        m = reply(q, [], tc=True)
    return [m]


class Log:
    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def __call__(self, **r):
        os.write(self.fd, json.dumps({"t": round(time.monotonic(), 6), **r}).encode() + b"\n")


class Udp(asyncio.DatagramProtocol):
    def __init__(self, log, local):
        self.log, self.local = log, local

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        try:
            q = parse(data, False)
        except (ValueError, IndexError, struct.error):
            self.log(ev="bad", proto="udp", local=self.local, hex=data[:64].hex())
            return
        self.log(ev="query", proto="udp", local=self.local, name=q["name"], type=q["type"])
        asyncio.ensure_future(self.send(answer(q), peer))

    async def send(self, msgs, peer):
        for m in msgs:
            if isinstance(m, float):
                await asyncio.sleep(m)
            else:
                self.transport.sendto(m, peer)


async def tcp(log, local, r, wtr):
    try:
        while True:
            n = struct.unpack("!H", await r.readexactly(2))[0]
            q = parse(await r.readexactly(n), True)
            log(ev="query", proto="tcp", local=local, name=q["name"], type=q["type"])
            for m in answer(q):
                if isinstance(m, float):
                    await asyncio.sleep(m)
                else:
                    wtr.write(struct.pack("!H", len(m)) + m)
    except (asyncio.IncompleteReadError, ConnectionError, ValueError, IndexError, struct.error):
        pass
    finally:
        wtr.close()


async def main(path, addrs):
    log, loop = Log(path), asyncio.get_running_loop()
    for ip in addrs:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        s.bind((ip, 53))
        s.setblocking(False)
        await loop.create_datagram_endpoint(lambda ip=ip: Udp(log, ip), sock=s)
        await asyncio.start_server(lambda r, wtr, ip=ip: tcp(log, ip, r, wtr), ip, 53)
    os.write(1, b"ready\n")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
