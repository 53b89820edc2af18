# SPDX-License-Identifier: BSD-3-Clause
"""TCP through the whole path: errors that mirror the server's, half-close, reset, silence, cuts, volume, numbers."""
import hashlib
import os
import subprocess

import guestlib
import pytest
import worldlib as w

OK, EVIL = w.WEB["ok.test"], w.WEB["evil.test"]
STRICT = ("--egress", "strict", "--egress-allow", "ok.test")


@pytest.mark.core
def test_dial_errors_reach_the_guest_before_its_handshake(sm, world, mark):
    r = sm.guest(f"""
out["closed"] = attempt("{OK}", {w.CLOSED})
out["unreach"] = attempt("{w.UNREACHABLE}", 80)
out["prohibited"] = attempt("{w.PROHIBITED}", 80)
""", "--egress", "guarded")
    o = r.out
    assert sm.refused(o["closed"]) and o["closed"]["ms"] < 100, o
    assert sm.refused(o["unreach"], "EHOSTUNREACH") and o["unreach"]["ms"] < 500, o
    assert sm.refused(o["prohibited"], "EHOSTUNREACH", "EACCES") and o["prohibited"]["ms"] < 500, o
    for dst, port in ((OK, w.CLOSED), (w.UNREACHABLE, 80), (w.PROHIBITED, 80)):
        assert r.one("egress_dial_error", dst=dst, port=port)["reason"]
        r.some("egress_dial", dst=dst, port=port)


def test_refused_port_is_fast_many_times(sm):
    r = sm.guest(f'out["ms"] = sorted(attempt("{OK}", {w.CLOSED})["ms"] for _ in range(50))', "--egress", "guarded")
    assert r.out["ms"][-1] < 100, r.out


@pytest.mark.slow
def test_dial_timeout_reaches_the_guest(sm):
    r = sm.guest(f'out["r"] = attempt("{w.BLACKHOLE}", 80, timeout=100)', "--egress", "guarded", timeout=130)
    assert r.out["r"]["connect"] in ("ETIMEDOUT", "EHOSTUNREACH", "ECONNREFUSED"), r.out
    assert r.one("egress_dial_error", dst=w.BLACKHOLE)["reason"]


@pytest.mark.core
@pytest.mark.parametrize("flags", [("--egress", "guarded"), ("--egress", "strict", "--egress-allow", "proto.test"),
                                   ("--egress", "strict", "--egress-allow", w.PROTO)], ids=["guarded", "strict-name", "strict-ip"])
def test_server_first_banner_arrives_at_once(sm, flags):
    r = sm.guest(f"""
dns("proto.test")
for p in ({w.SSH}, {w.SMTP}):
    s = dial("{w.PROTO}", p); t = time.monotonic()
    b = s.recv(100); out[str(p)] = [b.decode(), (time.monotonic() - t) * 1000]
    s.sendall(b"QUIT\\r\\n"); out["e%d" % p] = read(s, 6)[0].decode(); s.close()
""", *flags)
    for p, b in ((w.SSH, w.BANNER_SSH), (w.SMTP, w.BANNER_SMTP)):
        got, ms = r.out[str(p)]
        assert got.encode() == b and ms < 300, r.out
        assert r.out[f"e{p}"] == "QUIT\r\n"
        assert "server_first" in str(r.one("egress_allow", port=p)), r.text()


def test_late_banner_is_server_first_too(sm):
    r = sm.guest(f'out["r"] = attempt("{w.PROTO}", {w.LATE_BANNER}, n=5)', "--egress", "guarded")
    assert r.out["r"]["reply"] == "late\n"
    assert "server_first" in str(r.one("egress_allow", port=w.LATE_BANNER))


@pytest.mark.core
@pytest.mark.parametrize("flags,call,dst,host,src", [
    (("--egress", "guarded"), f'https("other.test", "{EVIL}", pause=2.5)', EVIL, "other.test", "sni"),
    (("--egress", "guarded"), f'http("nosuch.example", "{EVIL}", pause=2.5)', EVIL, "nosuch.example", "host"),
    (STRICT, f'https("ok.test", "{EVIL}", pause=2.5)', OK, "ok.test", None),
    (STRICT, f'http("ok.test", "{EVIL}", pause=2.5)', OK, "ok.test", None)], ids=["guarded-sni", "guarded-host", "strict-sni", "strict-host"])
def test_a_silent_guest_is_classified_when_it_speaks(sm, world, mark, flags, call, dst, host, src):
    """Silence never decides: 2.5 s without a byte, and then the name is judged as if there had been none."""
    r = sm.guest(f"out['r'] = {call}", *flags)
    assert f"addr={dst}" in r.out["r"]["reply"], r.out
    row = r.one("egress_allow")
    assert row["host"] == host and "server_first" not in str(row), row
    assert src is None or row["name_source"] == src
    assert {p["dst"] for p in world.wire(mark)} == {dst}


def test_a_silent_guest_then_an_unlisted_name_is_reset(sm, world, mark):
    r = sm.guest(f'out["r"] = https("evil.test", "{EVIL}", pause=2.5)', *STRICT)
    assert r.out["r"]["end"] == "ECONNRESET" and not world.wire(mark), r.out
    assert r.one("egress_deny")["host"] == "evil.test"


@pytest.mark.slow
def test_a_silent_guest_without_proof_is_reset_in_the_end(sm, world, mark):
    r = sm.guest(f"""
s = dial("{EVIL}", 443, 10); t = time.monotonic()
out["r"] = [read(s, 1, 100)[1], time.monotonic() - t]
""", *STRICT, timeout=130)
    assert r.out["r"][0] == "ECONNRESET", r.out
    assert not world.wire(mark) and r.one("egress_deny", dst=EVIL)["reason"]


CUTS = """
def go(cuts):
    for i in cuts:
        pieces = [DATA[:i], DATA[i:]] if i else [DATA[j:j + 1] for j in range(len(DATA))]
        r = attempt(ADDR, PORT, pieces=pieces, shut=True)
        out.setdefault(r["reply"] or r["end"] or r["connect"], []).append(i)
n = len(DATA)
ts = [threading.Thread(target=go, args=(range(k, n, 8),)) for k in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]
"""


@pytest.mark.parametrize("what", ["clienthello", "http", "http-lf-last"])
def test_bytes_cut_at_every_position(sm, world, mark, what):
    """The head in two pieces at each place, and byte by byte: each time the name is found and all bytes arrive once."""
    data = {"clienthello": guestlib.hello("ok.test"),
            "http": b"GET /a?b HTTP/1.1\r\nUser-Agent: x\r\nHost: ok.test\r\nAccept: */*\r\n\r\n",
            "http-lf-last": b"POST / HTTP/1.1\r\nHost:ok.test:2001\r\nContent-Length: 4\r\n\r\nbody"}[what]
    r = sm.guest(f"DATA, ADDR, PORT = {data!r}, '{EVIL}', {w.HALFCLOSE}\n" + CUTS, "--egress", "strict", "--egress-passthrough", "ok.test", timeout=120)
    want = f"{len(data)} {hashlib.sha256(data).hexdigest()}\n"
    assert list(r.out) == [want], {k: v[:10] for k, v in r.out.items()}
    assert {p["dst"] for p in world.wire(mark)} == {OK}
    assert len(r.events("egress_allow", host="ok.test")) == len(data)


def test_unlisted_name_cut_at_every_position_is_never_let_through(sm, world, mark):
    for data in (guestlib.hello("evil.test"), b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"):
        r = sm.guest(f"DATA, ADDR, PORT = {data!r}, '{EVIL}', {w.HALFCLOSE}\n" + CUTS, *STRICT, timeout=120)
        http = data.startswith(b"GET")
        assert all(k.startswith("HTTP/1.1 403 ") if http else k in ("ECONNRESET", "EPIPE", "ENOTCONN") for k in r.out), \
            {k: v[:10] for k, v in r.out.items()}
    assert not world.wire(mark)


@pytest.mark.core
def test_half_close_both_ways(sm, world, mark):
    data = b"\0" + os.urandom(199999)  # not the beginning of anything that is judged
    with open(os.path.join(sm.tmp, "data"), "wb") as f:
        f.write(data)
    r = sm.guest(f"""
d = open("{sm.tmp}/data", "rb").read()
out["up"] = attempt("{w.PROTO}", {w.HALFCLOSE}, d, shut=True)
s = dial("{w.PROTO}", {w.SERVER_FIN_FIRST}); out["bye"] = [str(read(s))]
s.sendall(d); s.shutdown(socket.SHUT_WR); s.close()
""", "--egress", "guarded")
    assert r.out["up"]["reply"] == f"{len(data)} {hashlib.sha256(data).hexdigest()}\n" and r.out["up"]["end"] == "fin", r.out
    assert r.out["bye"] == ["(b'bye\\n', 'fin')"], r.out
    c = world.closed(mark, "finfirst")[0]
    assert (c["bytes"], c["sha256"], c["how"]) == (len(data), hashlib.sha256(data).hexdigest(), "fin"), c
    row = r.one("egress_close", port=w.HALFCLOSE)
    assert row["bytes_up"] == len(data) and row["bytes_down"] == len(r.out["up"]["reply"]), row


@pytest.mark.core
@pytest.mark.parametrize("flags", [("--egress", "guarded"), ("--egress", "strict", "--egress-allow", "proto.test")], ids=["guarded", "strict"])
def test_what_a_command_sent_last_arrives(sm, world, mark, flags):
    """Write, close, end: the run is over when the bytes are with the server, not before; and the record has them all."""
    r = sm.guest(f"""
dns("proto.test")
for i in range(20):
    s = dial("{w.PROTO}", {w.DISCARD}); s.sendall(bytes(300000)); s.close()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.sendto(b"last", ("{w.PROTO}", {w.UDP_SINK}))
os.write(1, b"OUT {{}}\\n"); os._exit(0)
""", *flags)
    rows = world.closed(mark, "discard", 20)
    assert [(x["bytes"], x["how"]) for x in rows] == [(300000, "fin")] * 20, rows
    assert [x["bytes_up"] for x in r.events("egress_close", port=w.DISCARD)] == [300000] * 20, r.text()
    w.wait_for("the datagram", lambda: world.since(mark, "servers", ev="datagram", srv="udpsink", hex=b"last".hex()))


def test_a_server_that_does_not_read_does_not_hold_the_end_up(sm):
    import time
    t = time.monotonic()
    r = sm.guest(f's = dial("{w.PROTO}", {w.SLOW_READER}); s.setblocking(False); s.send(bytes(1 << 20))', "--egress", "guarded")
    assert time.monotonic() - t < 10 and r.one("egress_close", port=w.SLOW_READER)["bytes_up"] > 0, r.text()


@pytest.mark.core
def test_reset_both_ways(sm, world, mark):
    r = sm.guest(f"""
out["accept"] = attempt("{w.PROTO}", {w.RST_ON_ACCEPT})
out["mid"] = attempt("{w.PROTO}", {w.RST_MID}, b"x")
out["fin"] = attempt("{w.PROTO}", {w.FIN_ON_ACCEPT})
s = dial("{w.PROTO}", {w.ECHO}); s.sendall(b"hello"); out["echo"] = read(s, 5)[0].decode()
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
""", "--egress", "guarded")
    o = r.out
    assert "ECONNRESET" in (o["accept"]["connect"], o["accept"]["end"]) or sm.refused(o["accept"]), o
    assert len(o["mid"]["reply"]) == 1000 and o["mid"]["end"] == "ECONNRESET", o
    assert o["fin"]["end"] == "fin" and o["echo"] == "hello", o
    assert world.closed(mark, "echo")[-1]["how"] == "rst"


def test_slow_reader_holds_the_sender_back_and_loses_nothing(sm, world, mark):
    r = sm.guest(f"""
s = dial("{w.PROTO}", {w.SLOW_READER}); d = bytes(range(256)) * 32768   # 8 MiB
s.settimeout(60); s.sendall(d); s.shutdown(socket.SHUT_WR); out["end"] = read(s, None, 60)[1]
import hashlib; out["sha"] = hashlib.sha256(d).hexdigest()
""", "--egress", "guarded", timeout=90)
    c = world.closed(mark, "slow")[0]
    assert c["bytes"] == 8 << 20 and c["sha256"] == r.out["sha"], c


def test_a_guest_that_does_not_read_costs_no_memory(sm):
    """The server offers 64 MiB, the guest takes none of it for a while: the path holds a bounded part, then delivers all."""
    n = 64 << 20
    g = sm.start_guest(f"""
import hashlib
s = dial("{w.PROTO}", {w.SOURCE}); s.sendall(b"{n}\\n"); s.recv(1)
say("filling"); sys.stdin.readline()
h = hashlib.sha256(b"\\0"); total = 1; s.settimeout(60)
while True:
    d = s.recv(1 << 20)
    if not d: break
    h.update(d); total += len(d)
out["n"], out["sha"] = total, h.hexdigest()
""", "--egress", "guarded")
    assert g.line() == "filling"
    rss = {}
    for role, pid in g.pids().items():
        if role in ("core", "nat"):
            with open(f"/proc/{pid}/status") as f:
                rss[role] = int(next(x for x in f if x.startswith("VmRSS")).split()[1])
    g.tell("go")
    r = g.end(90)
    import struct
    want = hashlib.sha256(b"".join(struct.pack("!Q", i) for i in range(n // 8))).hexdigest()
    assert r.out == {"n": n, "sha": want}
    assert rss and all(v < 48 << 10 for v in rss.values()), f"KiB: {rss}"


@pytest.fixture(scope="module")
def big(world):
    """1 GiB in which no two blocks are equal, at http://ok.test/big, and its sha256."""
    path = os.path.join(world.www, "big")
    p = subprocess.run(f"openssl enc -aes-128-ctr -K 00000000000000000000000000000000 -iv 00000000000000000000000000000000 -in {world.www}/zeros"
                       f" | tee {path} | sha256sum", shell=True, capture_output=True, text=True)
    assert os.path.getsize(path) == w.BIG, p
    yield path, p.stdout.split()[0]
    os.unlink(path)


def test_one_gib_down_is_byte_identical(sm, big):
    r = sm.run("--egress", "guarded", cmd=["sh", "-c", "curl -sS --max-time 150 http://ok.test/big | sha256sum"], timeout=180)
    assert r.rc == 0 and r.stdout.decode().split()[0] == big[1], r
    row = r.one("egress_close")
    assert row["bytes_down"] > w.BIG and row["host"] == "ok.test", row


def test_one_gib_up_is_byte_identical(sm, big):
    r = sm.run("--egress", "guarded", cmd=["curl", "-sS", "--max-time", "150", "-T", big[0], f"http://ok.test:{w.UPLOAD}/big"], timeout=180)
    assert r.rc == 0 and big[1] in r.stdout.decode() and str(w.BIG) in r.stdout.decode(), r
    assert r.one("egress_close")["bytes_up"] > w.BIG


@pytest.mark.parametrize("mtu", ["576", "1280", "1500", "9000", "65520"])
def test_mtus(sm, mtu):
    r = sm.guest("""
import fcntl
out["mtu"] = [int(open("/sys/class/net/%s/mtu" % n).read()) for n in os.listdir("/sys/class/net") if n != "lo"] if os.path.exists("/sys/class/net") else []
d = b"\\0" + os.urandom(2999999)  # one that begins with a line end is taken for HTTP
import hashlib
out["want"] = "%d %s\\n" % (len(d), hashlib.sha256(d).hexdigest())
out["up"] = attempt("203.0.113.20", 2001, d, shut=True)["reply"]
g = attempt("203.0.113.20", 2011)
out["down"] = hashlib.sha256(g["reply"].encode("latin-1")).hexdigest()
""", "--mtu", mtu)
    import struct
    assert r.out["up"] == r.out["want"]
    assert r.out["down"] == hashlib.sha256(b"".join(struct.pack("!Q", i) for i in range(1 << 17))).hexdigest()


def test_a_thousand_parallel_connections(sm, world, mark):
    r = sm.guest(f"""
import asyncio, resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
async def one(i, ready, go):
    try:
        rd, wr = await asyncio.wait_for(asyncio.open_connection("{w.PROTO}", {w.ECHO}), 60)
        ready.append(i)
        if len(ready) == 1000: go.set()
        await asyncio.wait_for(go.wait(), 60)
        wr.write(b"token %d\\n" % i)
        ok = await asyncio.wait_for(rd.readline(), 60) == b"token %d\\n" % i
        wr.close()
        return "ok" if ok else "wrong"
    except Exception as e:
        return repr(e)
async def main():
    ready, go = [], asyncio.Event()
    return await asyncio.gather(*(one(i, ready, go) for i in range(1000)))
res = asyncio.run(main())
out["n"] = {{x: res.count(x) for x in set(res)}}
""", "--egress", "guarded", timeout=120)
    assert r.out["n"] == {"ok": 1000}, r.out
    assert len(r.events("egress_allow", port=w.ECHO)) == 1000
    assert len(r.events("egress_close", port=w.ECHO)) == 1000
    assert len({x["flow"] for x in r.events("egress_allow")}) == 1000


def test_keep_alive_and_pipelined_requests(sm, world, mark):
    r = sm.guest(f"""
s = dial("{OK}", {w.HTTP_ECHO}); q = b"GET /%d HTTP/1.1\\r\\nHost: ok.test\\r\\n\\r\\n"
s.sendall(b"".join(q % i for i in range(50)))
got = b""
while got.count(b'"line"') < 50: got += s.recv(65536)
out["n"] = [got.count(b"GET /%d HTTP" % i) for i in range(50)]
""", "--egress", "guarded")
    assert r.out["n"] == [1] * 50
    r.one("egress_allow", port=w.HTTP_ECHO)


@pytest.mark.parametrize("head", [
    r"GET / HTTP/1.1\r\nHost: ok.test\r\nHost: evil.test\r\n\r\n",
    r"GET http://evil.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    r"GET / HTTP/1.1\r\nHost : ok.test\r\n\r\n",
    r"GET / HTTP/1.1\r\n Host: ok.test\r\n\r\n",
    r"GET / HTTP/1.1\r\nX: y\r\n\tHost: z\r\nHost: ok.test\r\n\r\n",
    r"GET / HTTP/1.1\nHost: ok.test\n\n",
    r"GET / HTTP/1.1\r\nHost: ok.test@evil.test\r\n\r\n",
    r"GET / HTTP/1.1\r\nHost: ok.test\0.evil.test\r\n\r\n",
    r"GET / HTTP/1.1\r\nHost: ok.test, evil.test\r\n\r\n",
    r"GET / HTTP/1.1\r\nHost: \r\n\r\n",
    r"GET / HTTP/1.1\r\n\r\n",
    r"CONNECT evil.test:80 HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    r"GET / HTTP/1.1\r\nHost: 0x0a000005\r\n\r\n",
], ids=["two-hosts", "absolute-other", "space-colon", "leading-space", "obs-fold", "bare-lf", "userinfo", "nul", "list", "empty", "none",
        "connect", "hex-address"])
def test_ambiguous_heads_prove_nothing_in_strict(sm, world, mark, head):
    """Judged strictly, never repaired: an ambiguous head is no assertion of a listed name."""
    r = sm.guest(f"out['r'] = attempt('{EVIL}', 80, b'{head}')", *STRICT)
    assert r.out["r"]["end"] == "fin" and r.out["r"]["reply"].startswith(("HTTP/1.1 400 ", "HTTP/1.1 403 ")), r.out
    assert not world.wire(mark, dst=EVIL) and not world.wire(mark, dst=OK)
    r.none("egress_allow")
