# SPDX-License-Identifier: BSD-3-Clause
"""The virtual network (spec section 9): spec files, static addresses, isolated, what a published port shows of a client and stands, and workspaces beside each other."""
import contextlib
import errno
import ipaddress
import json
import os
import selectors
import socket
import subprocess
import time

import pytest
import worldlib as w

G = ("--egress", "guarded")

SEED = """# the network of a workspace
network:
  mode: user
  ip: 192.168.64.2/24
  subnet: 192.168.64.0/24
  gateway: 192.168.64.1
  dns:
    - 1.1.1.1
    - 8.8.8.8
  routes:
    - 0.0.0.0/0 via 192.168.64.1
  forwards:
    - host: 127.0.0.1
      hostPort: 0
      guestPort: 80
      protocol: tcp
"""

# What the guest's kernel says of its network.
LOOK = """
import subprocess
def ip(*a): return json.loads(subprocess.run(["ip", "-j", "-4", *a], capture_output=True, check=True).stdout or "[]")
out["links"] = sorted(x["ifname"] for x in json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout))
out["addrs"] = [f'{a["local"]}/{a["prefixlen"]}' for l in ip("addr") if l["ifname"] == "eth0" for a in l["addr_info"]]
out["routes"] = sorted(f'{r["dst"]} via {r["gateway"]}' for r in ip("route") if "gateway" in r)
out["resolvers"] = [x.split()[1] for x in open("/etc/resolv.conf") if x.startswith("nameserver")]
"""

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


def spec_file(tmp_path, text, name="ws.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def record(sm, name):
    p = sm.cli("status", name, "--json")
    assert p.returncode == 0, p
    return json.loads(p.stdout)["network"]


def dial(port, host="127.0.0.1", source=None):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.settimeout(20)
    if source:
        s.bind((source, 0))
    s.connect((host, port))
    return s


def exchange(s, data):
    with s:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        got = b""
        while d := s.recv(65536):
            got += d
    return got


@contextlib.contextmanager
def own_addresses(*addrs):
    """This host has them meanwhile."""
    for a in addrs:
        subprocess.run(["ip", "addr", "add", f"{a}/32", "dev", "lo"], check=True)
    try:
        yield
    finally:
        for a in addrs:
            subprocess.run(["ip", "addr", "del", f"{a}/32", "dev", "lo"], check=True)


# ---- spec files ----

@pytest.mark.core
def test_static_address(sm, tmp_path, world, mark):
    """Addresses, route, resolvers and the forward are there; questions to those resolvers are answered by us, and the web works."""
    run = sm.start_guest(LOOK + f"""
out["dns"] = [dns("ok.test", server=s)["rcode"] for s in out["resolvers"]]
out["libc"] = socket.gethostbyname("ok.test")
out["web"] = http("ok.test")["reply"][:12]
l = socket.create_server(("0.0.0.0", 80))
say("up")
c, a = l.accept()
out["peer"] = a[0]
c.sendall(b"hi")
c.close()
""", *G, "--spec", spec_file(tmp_path, SEED))
    assert run.line() == "up", run.errors()
    net = record(sm, run.name)
    assert (net["ip"], net["subnet"], net["gateway"]) == ("192.168.64.2", "192.168.64.0/24", "192.168.64.1"), net
    assert net["resolvers"] == ["1.1.1.1", "8.8.8.8"] and net["routes"] == ["0.0.0.0/0 via 192.168.64.1"], net
    assert net["declared"]["ip"] == "192.168.64.2/24" and net["declared"]["forwards"][0]["guestPort"] == 80, net
    (p,) = net["publishes"]
    assert f"slirp-med: published 127.0.0.1:{p['hostPort']}:80/tcp\n" in run.errors()
    assert dial(p["hostPort"]).recv(2) == b"hi"
    r = run.end()
    assert r.rc == 0, r
    assert r.out["addrs"] == ["192.168.64.2/24"] and r.out["routes"] == ["default via 192.168.64.1"] and r.out["links"] == ["eth0", "lo"], r
    assert r.out["dns"] == [0, 0] and r.out["libc"] == w.WEB["ok.test"] and r.out["web"] == "HTTP/1.1 200", r
    assert r.out["peer"] == "192.168.64.1", r
    assert r.one("ingress_accept")["dst"] == "192.168.64.2"
    assert not [q for q in world.since(mark, "dns", ev="query") if q.get("dst") in ("1.1.1.1", "8.8.8.8")]


def test_routes_are_all_there_is(sm, tmp_path):
    """What no route leads to does not leave the guest."""
    spec = spec_file(tmp_path, f"network:\n  ip: 172.31.5.9/24\n  routes: ['203.0.113.0/26 via 172.31.5.2', '198.51.100.53/32 via 172.31.5.2']\n")
    r = sm.guest(LOOK + f"""
out["near"] = attempt("{w.WEB['ok.test']}", 80, b"", n=0)["connect"]
out["far"] = attempt("{w.OTHER_RESOLVER}", 80)["connect"]
""", *G, "--spec", spec)
    assert r.out["routes"] == ["198.51.100.53 via 172.31.5.2", "203.0.113.0/26 via 172.31.5.2"] and r.out["resolvers"] == ["172.31.5.3"], r
    assert (r.out["near"], r.out["far"]) == ("ok", "ENETUNREACH"), r


def test_none_but_the_subnet(sm, tmp_path):
    r = sm.guest(LOOK + f"""
out["dns"] = dns("ok.test", server=out["resolvers"][0])["rcode"]
out["far"] = attempt("{w.WEB['ok.test']}", 80)["connect"]
""", *G, "--spec", spec_file(tmp_path, "network:\n  subnet: 172.31.5.0/30\n  routes: []\n"))
    assert r.out["addrs"] == ["172.31.5.1/30"] and r.out["resolvers"] == ["172.31.5.2"] and r.out["routes"] == [], r
    assert r.out["dns"] == 0 and r.out["far"] == "ENETUNREACH", r


def test_forwards(sm, tmp_path):
    spec = spec_file(tmp_path, '{"network": {"forwards": [{"hostPort": 0, "guestPort": 81}, {"host": "::1", "hostPort": 0, "guestPort": 82}]}}', "ws.json")
    run = sm.start_guest("""
ls = [socket.create_server(("0.0.0.0", p)) for p in (80, 81, 82)]
say("up")
for l in ls:
    c = l.accept()[0]
    c.sendall(b"%d" % l.getsockname()[1])
    c.close()
""", *G, "--publish", "0:80", "--spec", spec)
    assert run.line() == "up", run.errors()
    all_of_them = record(sm, run.name)["publishes"]
    assert [(p["host"], p["guestPort"]) for p in all_of_them] == [("127.0.0.1", 80), ("127.0.0.1", 81), ("::1", 82)]
    for p in all_of_them:
        assert dial(p["hostPort"], p["host"]).recv(8) == b"%d" % p["guestPort"]
    assert run.end().rc == 0


@pytest.mark.core
@pytest.mark.parametrize("text,flags,says", [
    (SEED.replace("gateway: 192.168.64.1", "gateway: 10.1.0.1"), (), ":6: network.gateway: 10.1.0.1 is not in network.subnet 192.168.64.0/24"),
    (SEED.replace("via 192.168.64.1", "via 192.168.64.9"), (), ":11: network.routes[0]: 192.168.64.9 is not the gateway, 192.168.64.1"),
    (SEED.replace("hostPort: 0", "hostPort: 8080"), ("--publish", "8080:81"), ":13: network.forwards[0]: its address on this host is that of --publish=127.0.0.1:8080:81/tcp"),
    (SEED.replace("mode: user", "mode: isolated"), (), "there is no network device with network.mode isolated"),
    (SEED, ("--network", "isolated"), ":3: network.mode: user, and --network says isolated"),
    ("network: {mode: isolated}", ("--publish", "8080:81"), ":1: network.mode: isolated, and --publish=127.0.0.1:8080:81/tcp needs a network"),
    ("egress: strict\n", (), ":1: egress: egress settings are flags"),
    ("network:\n  forwards:\n  - {hostPort: 70000, guestPort: 80}\n", (), ":3: network.forwards[0].hostPort: 70000 is no port"),
])
def test_spec_errors(sm, tmp_path, text, flags, says):
    path = spec_file(tmp_path, text)
    p = sm.cli("run", *G, "--spec", path, *flags, "--", "sh", "-c", "echo ran")
    assert p.returncode == 2 and b"ran" not in p.stdout and path in p.stderr.decode() and says in p.stderr.decode(), p
    assert not sm.left() and not os.path.isdir(os.path.join(sm.state, "slirp-med"))


def test_a_subnet_of_this_host_is_a_warning(sm, tmp_path):
    net = ipaddress.ip_network(f"{w.CORE}/29", strict=False)
    r = sm.guest(LOOK, *G, "--spec", spec_file(tmp_path, f"network: {{subnet: {net}}}"))
    assert f"warning: network.subnet {net} overlaps" in r.stderr.decode() and "public internet" in r.stderr.decode(), r


def test_a_dry_run_shows_the_plan(sm, tmp_path):
    p = sm.cli("run", "--spec", spec_file(tmp_path, SEED), "--publish", "8081:81", "--dry-run", "--json")
    d = json.loads(p.stdout)
    assert p.returncode == 0 and d["plan"]["ip"] == "192.168.64.2" and d["plan"]["routes"] == ["0.0.0.0/0 via 192.168.64.1"], p
    assert [x["guestPort"] for x in d["publishes"]] == [81, 80]
    text = sm.cli("run", "--spec", spec_file(tmp_path, SEED), "--dry-run").stdout.decode()
    assert "192.168.64.2 in 192.168.64.0/24, gateway 192.168.64.1" in text and "8.8.8.8" in text, text
    assert not sm.left() and not os.path.isdir(os.path.join(sm.state, "slirp-med"))


# ---- isolated ----

@pytest.mark.parametrize("how", ["flag", "spec"])
def test_isolated_has_no_device(sm, tmp_path, how):
    flags = ("--network", "isolated") if how == "flag" else ("--spec", spec_file(tmp_path, "network: {mode: isolated}"))
    code = LOOK.replace('out["resolvers"]', 'out["res"]') + f"""
out["connect"] = attempt("{w.WEB['ok.test']}", 80)["connect"]
out["raw"] = sorted(x.split(":")[0].strip() for x in open("/proc/net/dev") if ":" in x)
"""
    name = f"iso-{how}"
    r = sm.guest(code, *flags, "--egress-opaque", name=name)
    assert r.out["links"] == ["lo"] == r.out["raw"] and r.out["routes"] == [] and r.out["connect"] == "ENETUNREACH", r
    assert not r.audit
    assert record(sm, name)["mode"] == "isolated"


def test_isolated_of_a_virtual_machine(sm, tmp_path):
    """QEMU gets no card, and no process of ours serves one."""
    kernel = spec_file(tmp_path, "x", "vmlinuz")
    if sm.cli("vm", "--kernel", kernel, "--print-command").returncode == 127:
        pytest.skip("there is no QEMU")
    text = sm.cli("vm", "--network", "isolated", "--kernel", kernel, "--print-command").stdout.decode()
    assert "-nodefaults" in text and not any(x in text for x in ("-net", "-nic", "virtio-net")), text
    p = sm.cli("vm", "--network", "isolated", "--publish", "8080:80", "--kernel", kernel)
    assert p.returncode == 2 and b"isolated" in p.stderr and not sm.left(), p


# ---- what is seen of a client ----

def test_the_source_that_the_guest_sees(sm):
    """Global and private unicast as they are; loopback, link-local and the virtual network's own as the gateway. The record has the real one."""
    rows = [(w.CORE, True), ("10.77.0.1", True), ("192.168.77.1", True), ("100.64.77.1", True), ("127.0.0.1", False), ("127.8.8.8", False),
            ("169.254.77.1", False), ("10.0.2.77", False)]
    with own_addresses("10.77.0.1", "192.168.77.1", "100.64.77.1", "169.254.77.1", "10.0.2.77"):
        run = sm.start_guest(ECHO + f"serve(80, {len(rows)})", *G, "--publish", "0.0.0.0:0:80")
        assert run.line() == "up", run.errors()
        port = record(sm, run.name)["publishes"][0]["hostPort"]
        clients = []
        for addr, _ in rows:
            s = dial(port, addr, addr)
            clients.append(s.getsockname())
            assert exchange(s, b"x") == b"X", addr
        r = run.end()
    seen = r.out["peers"]
    for (addr, shown), client, peer, row in zip(rows, clients, seen, r.events("ingress_accept")):
        assert row["src"] == "%s:%d" % client, row
        assert peer[0] == (addr if shown else "10.0.2.2"), (addr, peer)
        assert ("seen_as" not in row) == shown and (shown or row["seen_as"] == "%s:%d" % tuple(peer)), row
    assert len(r.events("ingress_close")) == len(rows)


# ---- many clients ----

SERVER = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
import selectors
l = socket.create_server(("0.0.0.0", 80), backlog=4096)
l.setblocking(False)
sel = selectors.DefaultSelector()
sel.register(l, selectors.EVENT_READ)
say("up")
done = 0
while done < N:
    for key, _ in sel.select(60):
        if key.fileobj is l:
            try:
                while True: sel.register(l.accept()[0], selectors.EVENT_READ)
            except BlockingIOError: pass
            continue
        d = key.fileobj.recv(64)
        if d:
            key.fileobj.sendall(d)
        else:
            sel.unregister(key.fileobj)
            key.fileobj.close()
            done += 1
"""


def clients(port, n, at_once, keep):
    """n clients that ask and are answered, at_once of them at a time; with keep all stay until the last has its answer. Returns the slowest's seconds."""
    sel, kept, started, answered, slowest = selectors.DefaultSelector(), [], 0, 0, 0.0

    def more():
        nonlocal started
        s = socket.socket()
        s.setblocking(False)
        assert s.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
        sel.register(s, selectors.EVENT_WRITE, (started, time.monotonic()))
        started += 1

    while started < min(n, at_once):
        more()
    while answered < n:
        events = sel.select(30)
        assert events, f"{answered} of {n} were served"
        for key, mask in events:
            s, (i, begin) = key.fileobj, key.data
            if mask & selectors.EVENT_WRITE:
                assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                s.send(b"%d" % i)
                sel.modify(s, selectors.EVENT_READ, key.data)
                continue
            assert s.recv(64) == b"%d" % i
            slowest = max(slowest, time.monotonic() - begin)
            sel.unregister(s)
            answered += 1
            kept.append(s)
            if not keep:
                kept.pop().close()
                if started < n:
                    more()
    for s in kept:
        s.close()
    return slowest


@pytest.mark.parametrize("n,at_once,keep,bound", [(3000, 3000, True, 30), (10000, 1, False, 2)], ids=["3000-at-once", "10000-in-turn"])
def test_clients_by_the_thousand(sm, n, at_once, keep, bound):
    """None waits for a timer of TCP's, and none is missing in the audit."""
    run = sm.start_guest(SERVER.replace("N:", f"{n}:"), *G, "--publish", "0:80")
    assert run.line() == "up", run.errors()
    port = record(sm, run.name)["publishes"][0]["hostPort"]
    begin = time.monotonic()
    slowest = clients(port, n, at_once, keep)
    took = time.monotonic() - begin
    r = run.end(60)
    accepts, closes = r.events("ingress_accept"), r.events("ingress_close")
    assert r.rc == 0 and len(accepts) == len(closes) == n and len({x["flow"] for x in accepts}) == n, (len(accepts), len(closes))
    assert sorted(x["flow"] for x in closes) == sorted(x["flow"] for x in accepts)
    assert {x["reason"] for x in closes} == {"closed"} and all(x["bytes_up"] == x["bytes_down"] > 0 for x in closes)
    r.none("ingress_deny")
    assert slowest < bound and took < 100, (slowest, took)


# ---- workspaces beside each other ----

def test_three_workspaces_never_meet(sm, tmp_path):
    """Two on one subnet and one on another: neither guest, gateway nor resolver of the others answers, and a published port only where policy opens its address."""
    nets = [("10.0.2.15", "10.0.2.2", "10.0.2.3", ()), ("10.0.2.15", "10.0.2.2", "10.0.2.3", ()),
            ("172.31.9.7", "172.31.9.2", "172.31.9.3", ("--spec", spec_file(tmp_path, "network: {ip: 172.31.9.7/24}")))]
    code = """
import threading
def serve(port, word):
    l = socket.create_server(("0.0.0.0", port), backlog=64)
    def loop():
        while True:
            c = l.accept()[0]
            c.sendall(word)
            c.close()
    threading.Thread(target=loop, daemon=True).start()
for p in (80, 7777): serve(p, b"WORD")
say("up")
for host, port in json.loads(sys.stdin.readline()):
    r = attempt(host, port, n=8, timeout=4)
    out.setdefault("got", []).append([host, port, r["connect"], r["reply"]])
say("tried")
sys.stdin.readline()
"""
    runs = [sm.start_guest(code.replace("WORD", f"guest{i}"), *G, "--publish", "0:80", "--publish", f"{w.CORE}:0:80", *flags)
            for i, (_, _, _, flags) in enumerate(nets)]
    # One more, which may go to the host's addresses; it is in the reference network as well.
    allowed = sm.start_guest(code.replace("WORD", "guest3"), *G, "--egress-allow", w.CORE, "--egress-allow", "127.0.0.1", "--egress-allow", "172.31.9.0/24", "--publish", "0:80")
    ports = []
    for run in [*runs, allowed]:
        assert run.line() == "up", run.errors()
        ports.append([p["hostPort"] for p in record(sm, run.name)["publishes"]])

    for i, run in enumerate(runs):
        tries = []
        for j, (guest, gateway, resolver, _) in enumerate(nets):
            if j == i:
                continue
            tries += [(a, p) for a in (guest, gateway, resolver) if a != nets[i][0] for p in (80, 7777)]
            tries += [(nets[i][1], ports[j][0]), (w.CORE, ports[j][1]), (w.CORE, ports[j][0])]
        run.tell(json.dumps(tries))
    open_to = {ports[k][1]: k for k in range(3)}
    allowed.tell(json.dumps([("172.31.9.7", 80), ("172.31.9.2", 80), ("172.31.9.7", 7777)] + [(w.CORE, p) for p in open_to] + [("10.0.2.2", p[0]) for p in ports[:3]]))
    for run in (*runs, allowed):
        assert run.line(60) == "tried", run.errors()
    results = []
    for run in (*runs, allowed):
        run.tell("")
        results.append(run.end(60))
    for i, r in enumerate(results[:3]):
        assert r.rc == 0 and r.out["got"], r
        for host, port, connect, reply in r.out["got"]:
            assert (connect != "ok" or sm.datapath == "tproxy") and not reply, (i, host, port, connect, reply)
        assert r.one("ingress_accept")["reason"] == "published"  # that of the one that may
        assert r.events("egress_internal_deny"), r.text()
    for host, port, connect, reply in results[3].out["got"]:
        if host == w.CORE:
            assert (connect, reply) == ("ok", f"guest{open_to[port]}"), (host, port, connect, reply)
        else:
            assert "guest" not in reply, (host, port, connect, reply)


def test_loopback_is_each_guests_own(sm):
    """What is published on loopback no other guest reaches: its 127.0.0.1 is its own, whatever is listed."""
    run = sm.start_guest(ECHO + "serve(80, 1)", *G, "--publish", "0:80")
    assert run.line() == "up", run.errors()
    port = record(sm, run.name)["publishes"][0]["hostPort"]
    no = sm.guest(f'out["r"] = attempt("127.0.0.1", {port}, b"hi", n=2); out["zero"] = attempt("0.0.0.0", {port})["connect"]', *G, "--egress-allow", "127.0.0.1")
    assert no.out["r"]["connect"] == no.out["zero"] == "ECONNREFUSED", no
    no.none("egress_dial")
    assert exchange(dial(port), b"hi") == b"HI"
    r = run.end()
    assert len(r.events("ingress_accept")) == 1, r.text()


# ---- the record of a created workspace ----

def test_network_record(sm, tmp_path):
    """create, network, status and list show it: mode, addresses, what was declared, and the publishes; before or after the command. A start has what the file held."""
    spec = spec_file(tmp_path, SEED.replace("hostPort: 0", "hostPort: 8080"))
    made = sm.cli("create", "web", "--spec", spec, "--publish", "8081:81", "--json")
    assert made.returncode == 0, made
    os.unlink(spec)
    assert sm.cli("create", "iso", "--network", "isolated").returncode == 0
    shown = [json.loads(made.stdout)["network"]]
    for args in (("network", "web", "--json"), ("--json", "network", "web")):
        p = sm.cli(*args)
        assert p.returncode == 0, p
        shown.append(json.loads(p.stdout))
    shown.append(record(sm, "web"))
    listed = {x["name"]: x for x in json.loads(sm.cli("list", "--json").stdout)["workspaces"]}
    assert listed["iso"]["network"]["mode"] == "isolated", listed
    shown.append(listed["web"]["network"])
    for net in shown:
        net = net.get("network", net)
        assert (net["mode"], net["ip"], net["subnet"], net["gateway"]) == ("user", "192.168.64.2", "192.168.64.0/24", "192.168.64.1"), net
        assert sorted((p["hostPort"], p["guestPort"]) for p in net["publishes"]) == [(8080, 80), (8081, 81)], net
        assert net["routes"] == ["0.0.0.0/0 via 192.168.64.1"] and net["declared"]["dns"] == ["1.1.1.1", "8.8.8.8"], net
    p = sm.cli("start", "web", "--", "cat", "/proc/net/fib_trie", "/etc/resolv.conf")
    assert p.returncode == 0 and b"192.168.64.2" in p.stdout and b"nameserver 8.8.8.8" in p.stdout, p
