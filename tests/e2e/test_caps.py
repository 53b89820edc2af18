# SPDX-License-Identifier: BSD-3-Clause
"""Caps, measured at the origin: rates for one flow and for many, fair shares, what is dropped, the total over runs, connections."""
import datetime
import json
import os
import signal

import pytest
import worldlib as w
from credlib import GO, STRICT, arrived, canary, oauth, static, swap_file, swapped

MIB = 1 << 20
RATE = 4 * MIB
G = ("--egress", "guarded")
LINE = w.SITES["line.test"]

# The guest opens n flows and moves bytes through all of them for some seconds.
FLOWS = """
def stream(how, what):
    global END
    s = dial(ADDR, PORT, 20)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)  # or megabytes wait there for the end
    if how == "tls":
        c = ssl.create_default_context(cafile=os.environ["CURL_CA_BUNDLE"])
        s = c.wrap_socket(s, server_hostname="line.test")
    s.settimeout(20)
    if READY.wait(30) == 0:
        END = time.monotonic() + SECONDS
    READY.wait(30)
    s.sendall(what.encode() + b"\\n")
    piece = bytes(1 << 16)
    try:
        while time.monotonic() < END:
            if what == "up":
                s.sendall(piece)
            elif not s.recv(1 << 16):
                break
    except OSError as e:
        out["error"] = err(e)
    s.close()

def go(how, what, n, seconds):
    global SECONDS, READY
    SECONDS, READY = seconds, threading.Barrier(n)
    ts = [threading.Thread(target=stream, args=(how, what), daemon=True) for _ in range(n)]
    [t.start() for t in ts]; [t.join(seconds + 25) for t in ts]
"""


class Meter:
    """What meterd.py said since a mark: sums over time, from the first byte on."""

    def __init__(self, world, mark):
        rows = world.since(mark, "meter")
        self.ids = [r["id"] for r in rows if r["ev"] == "begin"]
        mine = {str(i) for i in self.ids}  # the last words of an earlier test's flows may come late
        ticks = [(r["t"], {k: v for k, v in r["bytes"].items() if k in mine or k.startswith("udp")}) for r in rows if r["ev"] == "tick"]
        self.ticks = [(t, sums) for t, sums in ticks if sums]
        self.poured = [r["bytes"] for r in rows if r["ev"] == "poured"]

    def at(self, t, keys=None):
        """Sum of each key at a time, between two ticks as if bytes came evenly."""
        before, after = {}, {}
        t0 = t1 = None
        for when, sums in self.ticks:
            if when <= t:
                before.update(sums)
                t0 = when
            else:
                after = {**before, **sums}
                t1 = when
                break
        if t0 is None or t1 is None:
            return before or after
        share = (t - t0) / (t1 - t0)
        return {k: before.get(k, 0) + (after[k] - before.get(k, 0)) * share for k in after}

    def rate(self, seconds, skip=1.0):
        """Bytes a second of all flows together, and of each, in that time after the first second."""
        start = self.ticks[0][0] - 0.1 + skip
        assert self.ticks[-1][0] >= start + seconds, f"the flows ended after {self.ticks[-1][0] - start:.1f} s"
        a, b = self.at(start), self.at(start + seconds)
        each = {k: (b[k] - a.get(k, 0)) / seconds for k in b}
        return sum(each.values()), each


def measure(sm, world, mark, how, what, n, seconds, *flags, rate=RATE):
    addr, port = (LINE, w.METER_TLS) if how == "tls" else (w.PROTO, w.METER)
    r = sm.guest(f"ADDR, PORT = {addr!r}, {port}\n{FLOWS}\ngo({how!r}, {what!r}, {n}, {seconds + 2.5})",
                 *(flags or G), "--egress-max-bps", str(rate), timeout=100)
    assert "error" not in r.out, r.out
    assert len(r.events("egress_allow")) == n and all(x["mitm"] == (how == "tls") for x in r.events("egress_allow")), r.text()
    total, each = Meter(world, mark).rate(seconds)
    least, most = (0.95, 1.02) if seconds >= 10 else (0.92, 1.05)  # what is in buffers weighs more in a shorter time
    assert least * rate <= total <= most * rate, f"{total / rate:.3f} of the rate"
    assert len(each) == n and max(each.values()) <= 2 * min(each.values()), sorted(each.values())
    lines = [x for x in r.events("egress_cap_exceeded") if x["direction"] == what]
    assert len(lines) >= seconds, r.text()
    times = [datetime.datetime.fromisoformat(x["ts"].rstrip("Z")).timestamp() for x in lines[:-1]]  # the last one comes with the end
    # One a second while it limits; a loaded machine's timer is late now and then, and the next one is not.
    assert all(b - a > 0.5 for a, b in zip(times, times[1:])) and len(times) <= times[-1] - times[0] + 2, times
    assert all(x["cap"] == "max_bps" and x["limit"] == rate and x["count"] > 0 and "flow" not in x for x in lines), lines
    return r


@pytest.mark.core
@pytest.mark.parametrize("what", ["up", "down"])
@pytest.mark.parametrize("how,n", [("opaque", 1), ("opaque", 50), ("tls", 3)])
def test_rate_at_the_origin(sm, world, mark, how, n, what):
    if os.environ.get("SLIRP_MED_SANITIZED") and n == 50:
        n = 10
    measure(sm, world, mark, how, what, n, 3)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [MIB, 16 * MIB])
@pytest.mark.parametrize("what", ["up", "down"])
@pytest.mark.parametrize("how,n", [("opaque", 1), ("opaque", 50), ("tls", 1), ("tls", 50)])
def test_rate_at_the_origin_over_ten_seconds(sm, world, mark, how, n, what, rate):
    measure(sm, world, mark, how, what, n, 10, rate=rate)


def test_under_the_rate_nothing_is_said(sm, world, mark):
    """The neighbour: bytes at half the rate, in both directions, and a burst that the bucket holds."""
    r = sm.guest(f"""
s = dial("{w.PROTO}", {w.ECHO})
for _ in range(40):
    s.sendall(bytes(50000)); read(s, 50000); time.sleep(0.05)
""", *G, "--egress-max-bps", "2M", timeout=60)
    r.none("egress_cap_exceeded")
    assert r.one("egress_close")["bytes_down"] == 2000000
    assert r.audit[0]["max_bps"] == 2 * MIB and "max_conns" not in r.audit[0]


DATAGRAMS = f"""
def send(bps, seconds):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("{w.PROTO}", {w.METER_UDP}))
    begin, sent, piece = time.monotonic(), 0, bytes(1200)
    while time.monotonic() < begin + seconds:
        while sent < (time.monotonic() - begin) * bps:
            s.send(piece); sent += 1200
        time.sleep(0.002)
"""


@pytest.mark.parametrize("n", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_datagrams_over_the_rate_are_dropped(sm, world, mark, n):
    r = sm.guest(f"""{DATAGRAMS}
ts = [threading.Thread(target=send, args=({2 * MIB // n}, 6)) for _ in range({n})]
[t.start() for t in ts]; [t.join() for t in ts]
""", *G, "--egress-max-bps", "1M", timeout=60)
    total, each = Meter(world, mark).rate(4)
    assert 0.95 * MIB <= total <= 1.02 * MIB, total / MIB
    assert len(each) == n and max(each.values()) <= 2 * min(each.values()), each
    lines = r.events("egress_cap_exceeded", cap="max_bps", direction="up")
    assert 4 <= len(lines) <= 9 and all(x["dropped"] == x["count"] > 0 for x in lines), lines
    r.none("egress_cap_exceeded", direction="down")


def test_datagrams_of_the_peer_are_dropped_too(sm, world, mark):
    r = sm.guest(f"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("{w.PROTO}", {w.METER_UDP})); s.settimeout(2)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.send(b"down {2 * MIB} 5")
got, begin = 0, None
try:
    while True:
        d = s.recv(2000); begin = begin or time.monotonic(); got += len(d); last = time.monotonic()
except TimeoutError: pass
out["got"], out["seconds"] = got, last - begin
""", *G, "--egress-max-bps", "1M", timeout=60)
    allowed = 1.02 * MIB * r.out["seconds"] + MIB / 10
    assert 0.8 * MIB * r.out["seconds"] <= r.out["got"] <= allowed, r.out  # the guest's own queue may lose some
    assert r.some("egress_cap_exceeded", cap="max_bps", direction="down")["dropped"] > 0


def counters(sm, name):
    with open(os.path.join(sm.state, "slirp-med", name, "counters.json"), "rb") as f:
        data = f.read()
    assert os.stat(f.name).st_mode & 0o7777 == 0o600
    newest = max(json.loads(data), key=lambda r: r["seq"])
    return newest["bytes_up"] + newest["bytes_down"]


TOTAL = 3 * MIB


@pytest.mark.core
@pytest.mark.parametrize("how", ["opaque", "http", "tls", "upload"])
def test_total_tears_the_flow_down_and_refuses_later_ones(sm, world, mark, how):
    code, host, port = {
        "opaque": (f's = dial("{w.PROTO}", {w.SOURCE}); s.sendall(b"20000000\\n"); got, end = read(s)', w.PROTO, w.SOURCE),
        "http": (f's = dial("{w.WEB["ok.test"]}", 80); s.sendall(b"GET /zeros HTTP/1.1\\r\\nHost: ok.test\\r\\n\\r\\n"); got, end = read(s)',
                 w.WEB["ok.test"], 80),
        "tls": ('c = ssl.create_default_context(cafile=os.environ["CURL_CA_BUNDLE"])\n'
                f's = c.wrap_socket(dial("{LINE}", {w.METER_TLS}), server_hostname="line.test"); s.sendall(b"down\\n"); got, end = read(s)\n'
                # OpenSSL calls a reset an end; the kernel knows better: CLOSE and not CLOSE_WAIT
                'end = "ECONNRESET" if s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0] == 7 else end',
                LINE, w.METER_TLS),
        "upload": (f's = dial("{w.PROTO}", {w.METER}); s.sendall(b"up\\n"); got, end = b"", ""\n'
                   'try:\n    while True: s.sendall(bytes(65536))\nexcept OSError as e: end = err(e)', w.PROTO, w.METER)}[how]
    r = sm.guest(f"""
{code}
out["got"], out["end"] = len(got), end
out["later"] = attempt("{w.PROTO}", {w.ECHO}, b"x", n=1)
out["udp"] = udp("{w.PROTO}", {w.ECHO})
out["dns"] = dns("ok.test")["rcode"]
""", *G, "--egress-max-total-bytes", "3M", name=f"total-{how}")
    o = r.out
    assert o["end"] in ("ECONNRESET", "EPIPE") and o["got"] <= TOTAL, (o, r.text())
    assert how == "upload" or o["got"] > 0, o  # what was on its way to the guest when the flow was reset is lost
    assert sm.refused(o["later"]) and o["later"]["ms"] < 500, o
    assert o["udp"].get("error") in ("EHOSTUNREACH", "EACCES") and o["udp"]["ms"] < 500 and o["dns"] == 0, o
    assert counters(sm, r.name) == TOTAL  # not a byte more
    row = r.one("egress_cap_exceeded", dst=host, port=port)
    assert (row["cap"], row["limit"], row["total"]) == ("max_total_bytes", TOTAL, TOTAL), row
    close = r.one("egress_close", flow=row["flow"])
    assert close["reason"] == "max_total_bytes", close
    assert close["bytes_up"] + close["bytes_down"] == TOTAL, close
    assert r.one("egress_deny", port=w.ECHO)["reason"] == "max_total_bytes"
    assert r.one("egress_udp_deny", port=w.ECHO)["reason"] == "max_total_bytes"
    refused = [x for x in r.events("egress_cap_exceeded") if "flow" not in x]
    assert sum(x["count"] for x in refused) == 2 and all(x["cap"] == "max_total_bytes" for x in refused), refused
    if how in ("upload", "tls"):  # at the origin: what it was sent, or what it had sent
        end = w.wait_for("the end at the origin", lambda: [x for x in world.since(mark, "meter") if x["ev"] == "end"])
        least, most = (TOTAL - 64, TOTAL + 256 * 1024) if how == "tls" else (MIB, TOTAL)  # a reset throws away what had not left yet
        assert least <= sum(x["bytes"] for x in end) <= most, end


def test_total_over_many_flows_and_datagrams(sm, world, mark):
    """Fifty flows and as many UDP peers race for the last bytes: together they move what the total allows."""
    r = sm.guest(f"""{DATAGRAMS}
def up():
    try:
        s = dial("{w.PROTO}", {w.METER}); s.sendall(b"up\\n")
        while True: s.sendall(bytes(30000))
    except OSError as e: out.setdefault(err(e), []).append(1)
ts = [threading.Thread(target=up) for _ in range(50)]
[t.start() for t in ts]
try: send(MIB := 1 << 20, 5)
except OSError as e: out["udp"] = err(e)
[t.join(20) for t in ts]
""", *G, "--egress-max-total-bytes", "20M", name="race", timeout=60)
    assert set(r.out) <= {"ECONNRESET", "EPIPE", "ECONNREFUSED", "udp"} and r.out["udp"] in ("EHOSTUNREACH", "EACCES"), r.out
    assert 20 * MIB - 1200 <= counters(sm, "race") <= 20 * MIB
    m = Meter(world, mark)
    arrived = sum(m.at(m.ticks[-1][0]).values())
    assert 20 * MIB - 4 * MIB <= arrived <= 20 * MIB, arrived
    assert len(r.events("egress_close", reason="max_total_bytes")) >= 1


@pytest.mark.core
def test_the_last_byte_may_be_used(sm, world, mark):
    """The neighbour of a breach: exactly the total, and the flow ends in order."""
    r = sm.guest(f"""
out["r"] = attempt("{w.PROTO}", {w.ECHO}, b"x" * 5000, n=5000)
out["later"] = attempt("{w.PROTO}", {w.ECHO})
""", *G, "--egress-max-total-bytes", "10000", name="exact")
    assert len(r.out["r"]["reply"]) == 5000 and sm.refused(r.out["later"]), r.out
    assert r.one("egress_close")["reason"] == "closed" and counters(sm, "exact") == 10000
    assert [x["count"] for x in r.events("egress_cap_exceeded")] == [1]  # the later one


@pytest.mark.core
def test_the_total_goes_on_in_the_next_run(sm):
    one = f'out["r"] = attempt("{w.PROTO}", {w.ECHO}, b"x" * 3000, n=3000)'
    flags = (*G, "--egress-max-total-bytes", "10000")
    for used in (6000,):
        sm.guest(one, *flags, name="again")
        assert counters(sm, "again") == used
    st = json.loads(sm.cli("status", "again", "--json").stdout)
    assert st["counters"] == {"bytes_up": 3000, "bytes_down": 3000} and st["caps"]["max_total_bytes"] == 10000, st
    assert sm.guest(one, *G, name="again").out["r"]["reply"]  # a run without byte caps neither counts nor is held
    assert counters(sm, "again") == 6000
    r = sm.guest(one, *flags, name="again")
    assert r.out["r"]["end"] == "ECONNRESET" and counters(sm, "again") == 10000, r.out
    r = sm.guest(one, *flags, name="again")
    assert sm.refused(r.out["r"]) and b"used up" in r.stderr, r
    assert sm.guest(one, *flags, name="another").out["r"]["reply"]  # a name of its own has a total of its own
    r = sm.guest(one, *G, "--egress-max-total-bytes", "20000", name="again")  # and a larger one goes on from there
    assert r.out["r"]["reply"] and counters(sm, "again") == 16000


@pytest.mark.core
@pytest.mark.parametrize("who", ["core", "run"])
def test_a_kill_forgets_little_and_never_all(sm, world, mark, who):
    p = sm.start_guest(f"""
s = dial("{w.PROTO}", {w.METER}); s.sendall(b"up\\n")
say("go")
while True: s.sendall(bytes(65536))
""", *G, "--egress-max-total-bytes", "1G", name="killed")
    p.line()
    w.wait_for("some MiB", lambda: [1 for x in world.since(mark, "meter") if x["ev"] == "tick" and max(x["bytes"].values()) > 4 * MIB])
    os.kill(p.pids()[who], signal.SIGKILL)
    p.end()
    world.sync()
    end = w.wait_for("the end at the origin", lambda: [x for x in world.since(mark, "meter") if x["ev"] == "end"])
    moved = end[-1]["bytes"]
    assert moved - 256 * 1024 <= counters(sm, "killed") <= moved + 8 * MIB, (moved, counters(sm, "killed"))
    before = counters(sm, "killed")
    sm.guest(f'attempt("{w.PROTO}", {w.ECHO}, b"x", n=1)', *G, "--egress-max-total-bytes", "1G", name="killed")
    assert counters(sm, "killed") == before + 2


def test_damaged_counters_stop_the_start(sm, world, mark):
    flags = (*G, "--egress-max-total-bytes", "1M")
    sm.guest("pass", *flags, name="hurt")
    path = os.path.join(sm.state, "slirp-med", "hurt", "counters.json")
    whole = open(path, "rb").read()
    for text in (b"", b"{}", whole[:-1], whole.replace(b'"seq":', b'"seQ":'), whole.replace(b"0,", b"1,", 20)):
        with open(path, "wb") as f:
            f.write(text)
        p = sm.cli("run", "--name", "hurt", *flags, "--", "sh", "-c", "echo ran")
        if text == b"":
            continue  # nothing was ever counted: a beginning
        assert p.returncode == 2 and b"counters.json: damaged" in p.stderr and b"ran" not in p.stdout, p
        assert b"counters.json" in sm.cli("status", "hurt").stderr
    assert not world.wire(mark)
    # One half may be torn: that is what a crash leaves.
    with open(path, "wb") as f:
        f.write(whole[:40] + b"torn" + whole[44:])
    assert sm.cli("run", "--name", "hurt", *flags, "--", "true").returncode == 0
    os.unlink(path)
    assert sm.cli("run", "--name", "hurt", *flags, "--", "true").returncode == 0


@pytest.mark.core
def test_connections_at_once(sm, world, mark):
    r = sm.guest(f"""
ss = [dial("{w.PROTO}", {w.ECHO}) for _ in range(2)]
[(s.sendall(b"x"), s.recv(1)) for s in ss]
out["udp"] = udp("{w.PROTO}", {w.ECHO})["got"]
out["fourth"] = attempt("{w.PROTO}", {w.ECHO}, b"x", n=1)
out["fifth"] = udp("{w.PROTO}", {w.METER_UDP})
out["dns"] = dns("ok.test", tcp=True)["rcode"]
out["inside"] = attempt("10.0.0.5", 80)
ss[0].close()
for _ in range(200):
    out["again"] = attempt("{w.PROTO}", {w.ECHO}, b"x", n=1)
    if out["again"]["reply"]: break  # over the kernel path a refused connection is one that is reset
    time.sleep(0.02)
""", *G, "--egress-max-conns", "3", name="conns")
    o = r.out
    assert o["udp"] == ["ping"] and sm.refused(o["fourth"]) and o["fourth"]["ms"] < 500, o
    assert o["fifth"].get("error") in ("EHOSTUNREACH", "EACCES") and o["dns"] == 0 and o["again"]["reply"] == "x", o
    assert r.some("egress_deny", port=w.ECHO)["reason"] == "max_conns"
    assert r.one("egress_udp_deny")["reason"] == "max_conns"
    assert r.one("egress_internal_deny")["reason"] != "max_conns"  # policy comes first
    rows = r.events("egress_cap_exceeded")
    assert rows and all((x["cap"], x["limit"]) == ("max_conns", 3) and "direction" not in x for x in rows), rows
    assert sum(x["count"] for x in rows) >= 2
    assert not os.path.exists(os.path.join(sm.state, "slirp-med", "conns", "counters.json"))  # nothing is counted


def test_as_many_connections_as_may_be(sm):
    r = sm.guest(f"""
ss = [dial("{w.PROTO}", {w.ECHO}) for _ in range(20)]
[(s.sendall(b"x"), s.recv(1)) for s in ss]
""", *G, "--egress-max-conns", "20")
    r.none("egress_cap_exceeded")
    r.none("egress_deny")


def test_only_connections_capped_flows_are_handed_over(sm):
    """No byte cap, no relay: what the guest sends is read by nobody but the origin, and the close line comes from the kernel."""
    r = sm.guest(f'out["r"] = attempt("{w.PROTO}", {w.ECHO}, b"x" * 100, n=100)', *G, "--egress-max-conns", "5")
    assert r.one("egress_close")["bytes_up"] == 100 and len(r.out["r"]["reply"]) == 100


@pytest.mark.parametrize("flags", [("--egress-max-bps", "100M"), ("--egress-max-total-bytes", "1G")])
def test_opaque_flows_keep_their_ends_under_a_byte_cap(sm, world, mark, flags):
    """What a handed-over socket did by itself: half-closes, resets both ways, refused and server-first."""
    r = sm.guest(f"""
import hashlib
DATA = os.urandom(700000)
out["half"] = attempt("{w.PROTO}", {w.HALFCLOSE}, DATA, shut=True)["reply"]
out["want"] = "%d %s\\n" % (len(DATA), hashlib.sha256(DATA).hexdigest())
out["mid"] = attempt("{w.PROTO}", {w.RST_MID}, b"x")["end"]
out["accept"] = attempt("{w.PROTO}", {w.RST_ON_ACCEPT}, b"x")
out["first"] = attempt("{w.PROTO}", {w.SERVER_FIN_FIRST})["reply"]
out["closed"] = attempt("{w.PROTO}", {w.CLOSED})
out["ssh"] = attempt("{w.PROTO}", {w.SSH}, n=5)["reply"]
s = dial("{w.PROTO}", {w.SILENT}); s.sendall(b"hello"); time.sleep(0.3)
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
time.sleep(0.3)
""", *G, *flags)
    o = r.out
    assert o["half"] == o["want"] and o["mid"] == "ECONNRESET" and "ECONN" in o["accept"]["connect"] + o["accept"]["end"] and o["first"] == "bye\n", o
    assert sm.refused(o["closed"]) and o["ssh"] == "SSH-2", o
    silent = w.wait_for("the end at the server", lambda: world.since(mark, "servers", ev="close", srv="silent", port=w.SILENT))
    assert silent[0]["bytes"] == 5 and r.one("egress_close", port=w.SILENT)["reason"] == "guest_reset", silent
    assert r.one("egress_close", port=w.HALFCLOSE)["bytes_up"] == 700000
    assert r.one("egress_allow", port=w.SSH)["classified"] == "server_first"
    r.none("egress_cap_exceeded")


@pytest.mark.core
def test_what_is_fetched_for_a_credential_does_not_count(sm, world, mark, tmp_path):
    """The token endpoint is the core's egress: with the only connection taken a token is fetched, and its bytes are in no sum."""
    k = "caps" + canary()[-8:]
    r = sm.guest(GO + """
c = h1("a.swap.test")
out["status"] = [ask1(f"/counted/{i}", "a.swap.test", c=c).status for i in range(2)]
""", *STRICT, *swap_file(tmp_path, api=oauth("a.swap.test", url=f"https://id.test/token/ok/{k}")),
                 "--egress-max-total-bytes", "1G", "--egress-max-conns", "1", name="fetched",
                 env={"CLIENT_ID": canary("id"), "CLIENT_SECRET": canary("secret")})
    assert r.out == {"status": [200, 200]}, (r.out, r.text())
    assert [arrived(world, mark, f"/counted/{i}") for i in range(2)] == [[f"Bearer {w.token(k, 1)}"]] * 2
    assert len(world.tokens(mark, k)) == 1 and r.one("egress_swap_fetch")["dst"] == w.CRED["id.test"]
    swapped(r, "api", 2)
    close = r.one("egress_close")
    assert counters(sm, "fetched") == close["bytes_up"] + close["bytes_down"]
    r.none("egress_cap_exceeded")
    r.none("egress_swap_error")


@pytest.mark.core
def test_a_credential_counts_with_its_request(sm, world, mark, tmp_path):
    """As the origin got it: a key of 6000 bytes is in the sum each time, and the total ends the flow as it does any other."""
    key = canary() + "k" * 6000
    flags = (*STRICT, *swap_file(tmp_path, api=static("origin.test")), "--egress-max-total-bytes", "64K")
    r = sm.guest(GO + """
c = h1()
out["n"] = 0
while (status := h.outcome(lambda: ask1(f"/counted/{out['n']}", c=c).status)) == 200:
    out["n"] += 1
out["end"] = status
out["later"] = attempt("origin.test", 443)
""", *flags, name="swapped", env={"API_KEY": key})
    assert r.out["n"] >= 3 and sm.refused(r.out["later"]), (r.out, r.text())
    assert arrived(world, mark, "/counted/0") == [f"Bearer {key}"]
    assert counters(sm, "swapped") == 64 * 1024
    swapped(r, "api", r.out["n"] + 1)  # the last one was begun
    close = r.one("egress_close")
    assert close["reason"] == "max_total_bytes" and close["bytes_up"] > 6000 * r.out["n"], close
    assert close["bytes_up"] + close["bytes_down"] == 64 * 1024


def test_what_a_rate_holds_back_arrives_when_the_guest_has_closed(sm, world, mark):
    """200 KiB at 32 KiB/s, and the guest closes at once: six seconds later all of it is there, and only then the end."""
    r = sm.guest(f"""
out["r"] = attempt("{w.PROTO}", {w.HALFCLOSE}, bytes(200000), shut=True, timeout=30)
s = dial("{w.PROTO}", {w.DISCARD}); s.sendall(bytes(100000)); s.close()
time.sleep(6)  # what the end of a workspace does is the next test
""", *G, "--egress-max-bps", "32K", timeout=60)
    assert r.out["r"]["reply"].startswith("200000 ") and r.out["r"]["total_ms"] > 5000, r.out
    row = world.closed(mark, "discard")[0]
    assert row["bytes"] == 100000 and row["how"] == "fin", row


def test_what_a_rate_still_holds_at_the_end_is_no_orderly_end(sm, world, mark):
    r = sm.guest(f's = dial("{w.PROTO}", {w.DISCARD}); s.sendall(bytes(300000)); s.close()', *G, "--egress-max-bps", "16K", timeout=60)
    row = world.closed(mark, "discard")[0]
    assert row["bytes"] < 300000 and row["how"] == "rst", row
    assert r.one("egress_close")["reason"] == "workspace_stop"


def test_status_shows_what_is_used(sm):
    p = sm.start_guest(f'attempt("{w.PROTO}", {w.ECHO}, b"x" * 3000, n=3000); s = dial("{w.PROTO}", {w.ECHO}); s.sendall(b"x"); s.recv(1); say("x"); sys.stdin.read()',
                       *G, "--egress-max-total-bytes", "1M", "--egress-max-conns", "7", name="seen")
    p.line()

    def caps():
        st = json.loads(sm.cli("status", "seen", "--json").stdout)
        assert st["caps"] == {"max_bps": None, "max_total_bytes": MIB, "max_conns": 7}, st
        return st["reports"]["core"]["caps"]
    w.wait_for("the first flow's end", lambda: caps()["conns"] == 1)
    assert caps() == {"max_bps": None, "max_total_bytes": MIB, "max_conns": 7, "conns": 1, "bytes_up": 3001, "bytes_down": 3001}
    assert b"max_total_bytes 1048576" in sm.cli("status", "seen").stdout
    p.p.stdin.close()
    p.p.stdin = None
    p.end()


@pytest.mark.parametrize("flag", ["bps", "total-bytes", "conns"])
def test_off_has_no_caps(sm, world, mark, flag):
    p = sm.cli("run", "--egress", "off", f"--egress-max-{flag}", "1M", "--", "sh", "-c", "echo ran")
    assert p.returncode == 2 and f"--egress-max-{flag}".encode() in p.stderr and b"off" in p.stderr and not p.stdout, p
