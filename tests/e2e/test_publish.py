# SPDX-License-Identifier: BSD-3-Clause
"""Published ports: who gets in, what the guest sees of them, what is on record, and what floods, resets and slow clients do."""
import errno
import hashlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest
import worldlib as w

G = ("--egress", "guarded")

# A server that answers each connection with what came, in capitals, and ends when the client has; says who it was.
ECHO = """
def serve(port, n):
    l = socket.create_server(("0.0.0.0", port), backlog=64)
    say("up")
    for _ in range(n):
        c, a = l.accept()
        out.setdefault("peers", []).append(list(a))
        while d := c.recv(65536):
            c.sendall(d.upper())
        c.close()
"""


def publishes(sm, name):
    """The ports of what is published now, in their order."""
    p = sm.cli("status", name, "--json")
    assert p.returncode == 0, p
    return json.loads(p.stdout)["network"]["publishes"]


def dial(port, host="127.0.0.1", source=None):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.settimeout(20)
    if source:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(source)
    s.connect((host, port))
    return s


def read(s):
    got = b""
    while d := s.recv(65536):
        got += d
    return got


def exchange(s, data):
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    with s:
        return read(s)


def reset(s):
    """Closed with RST, without a word."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


@pytest.mark.core
def test_a_client_on_loopback(sm):
    run = sm.start_guest(ECHO + "serve(8080, 1)", *G, "--publish", "127.0.0.1:0:8080/tcp")
    assert run.line() == "up", run.errors()
    (p,) = publishes(sm, run.name)
    assert p == {"host": "127.0.0.1", "hostPort": p["hostPort"], "guestPort": 8080, "protocol": "tcp"} and p["hostPort"] > 0
    assert f"slirp-med: published 127.0.0.1:{p['hostPort']}:8080/tcp\n" in run.errors()
    s = dial(p["hostPort"])
    src = "%s:%d" % s.getsockname()
    assert exchange(s, b"hello") == b"HELLO"
    r = run.end()
    assert r.rc == 0 and r.out["peers"][0][0] == "10.0.2.2", r  # loopback is not for the guest's eyes
    a, c = r.one("ingress_accept"), r.one("ingress_close")
    for row in (a, c):
        assert (row["src"], row["dst"], row["port"], row["flow"]) == (src, "10.0.2.15", 8080, a["flow"]), row
        assert row["listener"] == f"127.0.0.1:{p['hostPort']}" and row["seen_as"] == "10.0.2.2:%d" % r.out["peers"][0][1], row
    assert a["reason"] == "published" and (c["reason"], c["bytes_up"], c["bytes_down"]) == ("closed", 5, 5) and c["duration_ms"] >= 0
    assert r.audit.index(a) < r.audit.index(c) and r.one("egress_stop")["flows"] == 0
    r.none("egress_dial")
    shown = sm.cli("egress", run.name).stdout.decode()
    assert "ingress_accept" in shown and "10.0.2.15:8080" in shown and src in shown


def test_a_client_with_a_real_address(sm):
    """Global unicast is shown as it is, with its own port."""
    run = sm.start_guest(ECHO + "serve(80, 1)", *G, "--publish", f"{w.CORE}:0:80")
    assert run.line() == "up", run.errors()
    s = dial(publishes(sm, run.name)[0]["hostPort"], w.CORE)
    own = s.getsockname()
    assert own[0] == w.CORE and exchange(s, b"x") == b"X"
    r = run.end()
    assert r.out["peers"] == [list(own)], r
    assert "seen_as" not in r.one("ingress_accept") and r.one("ingress_accept")["src"] == "%s:%d" % own


def test_ipv6_listener(sm):
    run = sm.start_guest(ECHO + "serve(80, 1)", *G, "--publish", "[::1]:0:80/tcp")
    assert run.line() == "up", run.errors()
    p = publishes(sm, run.name)[0]
    assert p["host"] == "::1" and exchange(dial(p["hostPort"], "::1"), b"six") == b"SIX"
    r = run.end()
    assert r.out["peers"][0][0] == "10.0.2.2" and r.one("ingress_accept")["src"].startswith("[::1]:"), r


def test_clients_that_share_an_address_are_told_apart(sm):
    """Two clients with one source port on two addresses, and a third on another published port of the same guest port."""
    run = sm.start_guest("""
l = socket.create_server(("0.0.0.0", 80), backlog=8)
say("up")
cs = [l.accept() for _ in range(3)]
out["peers"] = sorted(list(a) for c, a in cs)
for c, a in cs: c.sendall(b"%d" % a[1])
for c, a in cs: c.close()
""", *G, "--publish", "0:80", "--publish", "127.0.0.1:0:80/tcp")
    assert run.line() == "up", run.errors()
    one, two = [p["hostPort"] for p in publishes(sm, run.name)]
    a = dial(one, source=("127.0.0.1", 0))
    port = a.getsockname()[1]
    clients = [a, dial(one, source=("127.0.0.2", port)), dial(two, source=("127.0.0.1", port))]
    seen = {read(c) for c in clients}
    r = run.end()
    assert len(seen) == 3 and len({tuple(p) for p in r.out["peers"]}) == 3, r


@pytest.mark.core
@pytest.mark.parametrize("spec,words", [
    ("", ("lacks a port",)), ("80", ("lacks a port",)), ("host:80:80", ("no address",)), ("127.0.0.1:80", ("no port of this host",)),
    ("8080:0", ("no port of the guest",)), ("8080:80/udp", ("only tcp",)), ("8080:99999", ("1 to 65535",)), ("::1:80:80", ("brackets",)),
])
def test_malformed_ones_fail_before_anything_starts(sm, spec, words):
    p = sm.cli("run", *G, "--publish", spec, "--", "sh", "-c", "echo ran")
    err = p.stderr.decode()
    assert p.returncode == 2 and b"ran" not in p.stdout and f"--publish={spec}" in err and all(x in err for x in words), p
    assert not sm.left() and not os.path.isdir(os.path.join(sm.state, "slirp-med"))


@pytest.mark.core
def test_a_port_in_use_is_named(sm):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        p = sm.cli("run", "--name", "used", *G, "--publish", f"{port}:80", "--", "sh", "-c", "echo ran")
        assert p.returncode == 125 and b"ran" not in p.stdout and f"127.0.0.1:{port} is in use" in p.stderr.decode(), p
        assert not sm.left()
        run = sm.start_guest('say("up"); sys.stdin.readline()', *G, name="used")
        assert run.line() == "up", run.errors()
        p = sm.cli("publish", "used", f"127.0.0.1:{port}:80/tcp")
        assert p.returncode == 1 and f"127.0.0.1:{port} is in use" in p.stderr.decode(), p
        p = sm.cli("publish", "used", "192.0.2.99:8080:80/tcp")
        assert p.returncode == 1 and b"192.0.2.99:8080 is no address of this host" in p.stderr, p
        assert publishes(sm, "used") == []
        run.tell("")
        assert run.end().rc == 0


def test_isolated_has_none(sm):
    p = sm.cli("run", "--network", "isolated", "--publish", "8080:80", "--", "sh", "-c", "echo ran")
    assert p.returncode == 2 and b"--publish" in p.stderr and b"isolated" in p.stderr and b"ran" not in p.stdout, p
    run = sm.start("--network", "isolated", cmd=["sh", "-c", "echo up; read x"], stdin=subprocess.PIPE)
    assert run.line() == "up"
    p = sm.cli("publish", run.name, "8080:80")
    assert p.returncode == 1 and b"isolated" in p.stderr, p
    run.tell("")
    run.end()


@pytest.mark.core
def test_publish_and_unpublish_while_it_runs(sm):
    run = sm.start_guest(ECHO + "serve(80, 3)", *G)
    assert run.line() == "up", run.errors()
    p = sm.cli("publish", run.name, "0:80", "--json")
    assert p.returncode == 0, p
    port = json.loads(p.stdout)["publish"]["hostPort"]
    assert publishes(sm, run.name) == [{"host": "127.0.0.1", "hostPort": port, "guestPort": 80, "protocol": "tcp"}]
    assert exchange(dial(port), b"one") == b"ONE"
    p = sm.cli("publish", run.name, f"{port}:81")
    assert p.returncode == 1 and b"published already" in p.stderr, p
    there = dial(port)
    there.sendall(b"t")
    assert there.recv(1) == b"T"
    for wrong in (f"{port}:81", "1:80", "0:80"):
        p = sm.cli("unpublish", run.name, wrong)
        assert p.returncode == 1 and b"not published" in p.stderr, p
    p = sm.cli("unpublish", run.name, f"{port}:80")
    assert p.returncode == 0 and p.stdout == f"127.0.0.1:{port}:80/tcp\n".encode(), p
    assert publishes(sm, run.name) == []
    with pytest.raises(ConnectionRefusedError):
        dial(port)
    assert exchange(there, b"wo") == b"WO", "who is there goes on"
    p = sm.cli("publish", run.name, f"127.0.0.1:{port}:80/tcp")
    assert p.returncode == 0 and p.stdout == f"127.0.0.1:{port}:80/tcp\n".encode(), p
    assert exchange(dial(port), b"three") == b"THREE"
    r = run.end()
    assert r.rc == 0 and len(r.events("ingress_accept")) == len(r.events("ingress_close")) == 3
    with pytest.raises(ConnectionRefusedError):
        dial(port)


def test_the_commands_say_what_is_wrong(sm):
    for args, rc, words in ((("publish", "nosuch", "8080:80"), 2, "nosuch"), (("publish", "x"), 2, "HOST:HOSTPORT:GUESTPORT/tcp"),
                            (("publish",), 2, "NAME"), (("publish", "x", "80"), 2, "80: lacks a port"), (("publish", "x", "8:8", "y"), 2, "y"),
                            (("unpublish", "nosuch", "8080:80"), 2, "nosuch"), (("unpublish", "x", "8080:80", "--force"), 2, "--force")):
        p = sm.cli(*args)
        assert p.returncode == rc and words in p.stderr.decode() and not p.stdout, (args, p)
    assert sm.guest("pass", *G, name="done").rc == 0
    p = sm.cli("publish", "done", "8080:80")
    assert p.returncode == 1 and b"does not run" in p.stderr, p
    for verb in ("publish", "unpublish"):
        p = sm.cli(verb, "--help")
        assert p.returncode == 0 and b"HOSTPORT" in p.stdout, p


@pytest.mark.core
def test_nobody_listens_in_the_guest(sm):
    """The client is reset, at once."""
    run = sm.start_guest('say("up"); sys.stdin.readline()', *G, "--publish", "0:80")
    assert run.line() == "up", run.errors()
    t = time.monotonic()
    port = publishes(sm, run.name)[0]["hostPort"]
    with pytest.raises(ConnectionResetError):
        dial(port).recv(1)  # or while it connects: it may be that quick
    assert time.monotonic() - t < 5
    run.tell("")
    r = run.end()
    assert r.one("ingress_close")["reason"] == "guest_reset", r.text()


@pytest.mark.core
def test_half_closes_and_resets(sm):
    run = sm.start_guest("""
def late(c):      # the client is done; we go on
    got, end = read(c)
    time.sleep(0.2)
    c.sendall(b"%d %s" % (len(got), end.encode()))
    c.close()
def early(c):     # we are done; the client goes on
    c.shutdown(socket.SHUT_WR)
    got, end = read(c)
    out["early"] = [len(got), end]
    c.close()
def rst(c):
    c.recv(1)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()
def told(c):
    c.sendall(b"x")
    out["told"] = read(c)[1]
l = socket.create_server(("0.0.0.0", 80))
say("up")
for f in (late, early, rst, told): f(l.accept()[0])
""", *G, "--publish", "0:80")
    assert run.line() == "up", run.errors()
    port = publishes(sm, run.name)[0]["hostPort"]
    assert exchange(dial(port), b"a" * 100000) == b"100000 fin"
    s = dial(port)
    assert s.recv(1) == b""
    s.sendall(b"b" * 200000)
    s.close()
    s = dial(port)
    s.sendall(b"x")
    with pytest.raises(ConnectionResetError):
        s.recv(1)
    s = dial(port)
    assert s.recv(1) == b"x"
    reset(s)
    r = run.end()
    assert r.out["early"] == [200000, "fin"] and r.out["told"] == "ECONNRESET", r
    rows = r.events("ingress_close")
    assert [x["reason"] for x in rows] == ["closed", "closed", "guest_reset", "upstream_reset"], r.text()
    assert (rows[0]["bytes_down"], rows[0]["bytes_up"], rows[1]["bytes_down"]) == (100000, 10, 200000), rows


@pytest.mark.core
def test_bytes_arrive_as_they_were_sent(sm):
    """Both directions at once, and a client that does not read delays nobody else."""
    n = 20 << 20
    run = sm.start_guest(f"""
import hashlib
sys.path.insert(0, {os.path.dirname(w.__file__)!r})
import worldlib
l = socket.create_server(("0.0.0.0", 80))
say("up")
lazy = l.accept()[0]
blob = worldlib.pattern({n})
lazy.setblocking(False)
try:
    while True: lazy.send(blob)      # until nothing more goes in
except BlockingIOError: pass
c = l.accept()[0]
t = threading.Thread(target=lambda: (c.sendall(blob), c.shutdown(socket.SHUT_WR)))
t.start()
h = hashlib.sha256()
c.settimeout(60)
while d := c.recv(1 << 16): h.update(d)
t.join()
out["sha"] = h.hexdigest()
""", *G, "--publish", "0:80", "--bind", os.path.dirname(w.__file__))
    assert run.line() == "up", run.errors()
    port = publishes(sm, run.name)[0]["hostPort"]
    lazy = dial(port)
    s = dial(port)
    blob = w.pattern(n)
    t = threading.Thread(target=lambda: (s.sendall(blob), s.shutdown(socket.SHUT_WR)))
    t.start()
    h = hashlib.sha256()
    while d := s.recv(1 << 16):
        h.update(d)
    t.join()
    lazy.close()
    r = run.end()
    assert r.out["sha"] == h.hexdigest() == hashlib.sha256(blob).hexdigest()
    rows = [x for x in r.events("ingress_close") if x["bytes_down"] == n]
    assert len(rows) == 1 and rows[0]["bytes_up"] == n, r.text()


def test_two_thousand_at_once(sm):
    """All of them are served, none is lost, and the workspace's other work goes on."""
    n = 2000
    run = sm.start_guest(f"""
import resource, selectors
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
l = socket.create_server(("0.0.0.0", 80), backlog=4096)
l.setblocking(False)
sel = selectors.DefaultSelector()
sel.register(l, selectors.EVENT_READ)
say("up")
peers, done, t, slowest = set(), 0, 0, 0
while done < {n}:
    for key, _ in sel.select(30):
        if key.fileobj is l:
            try:
                while True:
                    c, a = l.accept()
                    peers.add(a)
                    sel.register(c, selectors.EVENT_READ)
            except BlockingIOError: pass
            continue
        d = key.fileobj.recv(64)
        if d:
            key.fileobj.sendall(d)
        else:
            sel.unregister(key.fileobj)
            key.fileobj.close()
            done += 1
    if len(peers) == {n} and not t:
        t = time.monotonic()
        out["dns"] = dns("ok.test")["rcode"]
out["peers"] = len(peers)
""", *G, "--publish", "0:80")
    assert run.line() == "up", run.errors()
    port = publishes(sm, run.name)[0]["hostPort"]
    sel, fds = selectors.DefaultSelector(), []
    begin = time.monotonic()
    for i in range(n):
        s = socket.socket()
        s.setblocking(False)
        assert s.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
        sel.register(s, selectors.EVENT_WRITE, i)
        fds.append(s)
    answered = 0
    while answered < n:
        events = sel.select(30)
        assert events, f"{answered} of {n} were served"
        for key, mask in events:
            s, i = key.fileobj, key.data
            if mask & selectors.EVENT_WRITE:
                assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                s.send(b"%d" % i)
                sel.modify(s, selectors.EVENT_READ, i)
            else:
                assert s.recv(64) == b"%d" % i
                sel.unregister(s)
                answered += 1
    took = time.monotonic() - begin
    st = json.loads(sm.cli("status", run.name, "--json").stdout)
    assert st["reports"]["core"]["ingress"] == {"now": n, "accepted": n}, st
    for s in fds:
        s.close()
    r = run.end(60)
    assert r.rc == 0 and r.out == {"peers": n, "dns": 0}, r
    assert len(r.events("ingress_accept")) == len(r.events("ingress_close")) == n
    assert {x["reason"] for x in r.events("ingress_close")} == {"closed"}
    assert took < 30, took  # a stall of TCP's timers would be seen


def test_a_flood_that_resets(sm):
    """Clients that connect and are gone: the guest's server lives on, nothing is left over, and each line has its end."""
    run = sm.start_guest("""
l = socket.create_server(("0.0.0.0", 80), backlog=1024)  # room for all: who does not fit comes back after "last", when nobody accepts
say("up")
while True:
    c, a = l.accept()
    try:
        c.settimeout(20)
        if c.recv(16) == b"last": break
    except OSError: pass
    c.close()
c.sendall(b"bye")
c.close()
sys.stdin.readline()
""", *G, "--publish", "0:80")
    assert run.line() == "up", run.errors()
    port = publishes(sm, run.name)[0]["hostPort"]
    for i in range(600):
        s = dial(port)
        if i % 3 == 0:
            s.send(b"x")
        reset(s) if i % 2 else s.close()
    assert exchange(dial(port), b"last") == b"bye"

    def gone():
        core = json.loads(sm.cli("status", run.name, "--json").stdout)["reports"]["core"]
        return core and core["ingress"]["now"] == 0
    w.wait_for("the clients to be gone", gone, 20)
    run.tell("")
    r = run.end()
    a, c = [x["flow"] for x in r.events("ingress_accept")], [x["flow"] for x in r.events("ingress_close")]
    assert r.rc == 0 and sorted(a) == sorted(c) and len(set(a)) == len(a), r


@pytest.mark.core
def test_loop_guard(sm, world, mark):
    """The guest does not reach our own listener, whatever is listed; another port of the same address it does."""
    run = sm.start_guest(f"""
l = socket.create_server(("0.0.0.0", 80))
say("up")
port = int(sys.stdin.readline())
out["own"] = attempt("{w.CORE}", port)
out["loopback"] = attempt("127.0.0.1", port)["connect"]
out["gateway"] = attempt(GATEWAY, port)
out["other"] = attempt("{w.CORE}", 443, b"x", n=0)["connect"]
l.settimeout(0.3)
try: out["in"] = l.accept()[1][0]
except TimeoutError: out["in"] = None
""", *G, "--egress-allow", w.CORE, "--publish", "0.0.0.0:0:80")
    assert run.line() == "up", run.errors()
    run.tell(str(publishes(sm, run.name)[0]["hostPort"]))
    r = run.end()
    assert sm.refused(r.out.pop("own")) and sm.refused(r.out.pop("gateway")), r
    assert r.out == {"loopback": "ECONNREFUSED", "other": "ok", "in": None}, r
    row = r.one("egress_loop_guard")
    assert row["dst"] == w.CORE and row["reason"] == "listener", row
    r.none("ingress_accept")


def test_one_workspace_into_another(sm):
    """Only through a published port, and only where the policy of the one that calls allows it."""
    run = sm.start_guest(ECHO + "serve(80, 1)", *G, "--publish", f"{w.CORE}:0:80")
    assert run.line() == "up", run.errors()
    port = publishes(sm, run.name)[0]["hostPort"]
    code = f'out["r"] = attempt("{w.CORE}", {port}, b"hi", n=2)'
    no = sm.guest(code, *G)
    assert sm.refused(no.out["r"]) and no.one("egress_internal_deny")["reason"] == "own_address"
    yes = sm.guest(code, *G, "--egress-allow", w.CORE)
    assert yes.out["r"]["reply"] == "HI", yes
    run.end()


def test_caps_are_about_egress(sm):
    """Clients of published ports take no connection and no byte of what the guest may have."""
    run = sm.start_guest(f"""
l = socket.create_server(("0.0.0.0", 80))
say("up")
cs = [l.accept()[0] for _ in range(3)]
for c in cs: c.sendall(b"x" * 200000)
a = dial("{w.PROTO}", 7); a.sendall(b"x"); out["own"] = a.recv(1).decode()
out["more"] = attempt("{w.PROTO}", 7)
for c in cs: c.close()
""", *G, "--egress-max-conns", "1", "--egress-max-total-bytes", "100K", "--publish", "0:80")
    assert run.line() == "up", run.errors()
    port = publishes(sm, run.name)[0]["hostPort"]
    assert [len(read(s)) for s in [dial(port) for _ in range(3)]] == [200000] * 3
    r = run.end()
    assert r.out["own"] == "x" and sm.refused(r.out["more"]), r


def test_off_records_nothing(sm):
    run = sm.start_guest(ECHO + "serve(80, 1)", "--egress", "off", "--publish", "0:80")
    assert run.line() == "up", run.errors()
    assert exchange(dial(publishes(sm, run.name)[0]["hostPort"]), b"off") == b"OFF"
    r = run.end()
    assert r.rc == 0 and not r.audit


@pytest.mark.core
@pytest.mark.parametrize("role", ["core", "nat", "run"])
def test_when_a_process_dies_nobody_is_let_in(sm, role):
    run = sm.start_guest('say("up"); sys.stdin.readline()', *G, "--publish", "0:80")
    assert run.line() == "up", run.errors()
    port = publishes(sm, run.name)[0]["hostPort"]
    os.kill(run.pids()[role], signal.SIGKILL)
    run.p.wait(20)
    w.wait_for("everything to end", lambda: not sm.left(), 10)
    with pytest.raises(ConnectionRefusedError):
        dial(port)


@pytest.mark.core
def test_stop_ends_what_is_open(sm):
    run = sm.start_guest(ECHO + "serve(80, 2)", *G, "--publish", "0:80")
    assert run.line() == "up", run.errors()
    port = publishes(sm, run.name)[0]["hostPort"]
    s = dial(port)
    s.sendall(b"x")
    assert s.recv(1) == b"X"
    assert sm.cli("stop", run.name).returncode == 0
    r = run.end()
    assert r.one("ingress_close")["flow"] == r.one("ingress_accept")["flow"] and r.audit[-1]["event"] == "egress_stop"
    try:
        assert s.recv(1) == b""
    except ConnectionResetError:
        pass
    with pytest.raises(ConnectionRefusedError):
        dial(port)


def test_many_publishes_at_once(sm):
    """A hundred listeners; each leads to its own port."""
    run = sm.start_guest("""
ls = [socket.create_server(("0.0.0.0", 8000 + i)) for i in range(100)]
say("up")
for l in ls:
    c = l.accept()[0]
    c.sendall(b"%d" % l.getsockname()[1])
    c.close()
""", *G, *[x for i in range(100) for x in ("--publish", f"0:{8000 + i}")])
    assert run.line() == "up", run.errors()
    for p in publishes(sm, run.name):
        assert read(dial(p["hostPort"])) == b"%d" % p["guestPort"]
    assert run.end().rc == 0
