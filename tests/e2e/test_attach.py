# SPDX-License-Identifier: BSD-3-Clause
"""`slirp-med attach`: a VMM that somebody else starts. The test is the VMM and its guest: frames by hand (vmmlib.py)."""
import ast
import json
import os
import select
import signal
import socket
import struct
import subprocess
import time

import pytest
import vmmlib
import worldlib as w
from conftest import USER, Running, alive

OK = w.WEB["ok.test"]
GUARDED = ("--egress", "guarded")


class Attached(Running):
    """A workspace that waits for a VMM, or has one."""

    def ready(self, timeout=20):
        """Waits for the line on stderr; what was printed before it."""
        w.wait_for("the line that says ready", lambda: b"slirp-med: ready: " in self.said() or self.p.poll() is not None, timeout)
        assert self.p.poll() is None, self.errors()
        return self

    def vmm(self, path, **kw):
        return vmmlib.Vmm(vmmlib.connect(path), **kw)


def attach(sm, *flags, name=None, env=None, **kw):
    name = name or sm.name()
    sm.err = open(os.path.join(sm.tmp, f"stderr.{name}.{len(sm.running)}"), "w+b")
    p = subprocess.Popen(USER + [sm.bin, "attach", name, *flags], env=sm.env(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sm.err,
                         **kw)
    r = Attached(sm, name, p)
    sm.running.append(r)
    return r


def path_of(sm, name="net.sock"):
    return os.path.join(sm.tmp, name)


def status(sm, name):
    return json.loads(sm.cli("status", name, "--json").stdout)


def fetch(vmm):
    """A connection that is allowed, used to its end: the banner of a server that speaks first."""
    c = vmm.tcp(w.PROTO, w.SSH)
    assert isinstance(c, vmmlib.Tcp), c
    banner = c.read(len(w.BANNER_SSH))
    c.sendall(b"QUIT\r\n")
    assert c.read(6) == b"QUIT\r\n"
    c.shut()
    return banner


def waits(what, cond, timeout=10):
    w.wait_for(what, cond, timeout)


@pytest.mark.core
def test_a_guest_over_the_stream(sm):
    a = attach(sm, "--stream", path_of(sm), *GUARDED).ready()
    v = a.vmm(path_of(sm))
    assert v.arp() == vmmlib.GATEWAY_MAC
    ip, options = v.dhcp()
    assert ip == vmmlib.GUEST and options[3] == socket.inet_aton(vmmlib.GATEWAY) and options[6] == socket.inet_aton(vmmlib.RESOLVER)
    assert v.dns("ok.test") == OK
    assert fetch(v) == w.BANNER_SSH
    assert v.tcp("10.0.0.5", 80) & vmmlib.RST
    front = status(sm, a.name)["reports"]["front"]
    assert front["connected"] and front["connections"] == 1
    assert sm.cli("stop", a.name).returncode == 0
    assert v.ended()
    r = a.end()
    assert r.rc == 0, r
    r.one("egress_allow", dst=w.PROTO, port=w.SSH)
    r.one("egress_internal_deny", dst="10.0.0.5", port=80)
    assert r.one("egress_stop")["reason"] == "stop"
    assert not os.path.exists(path_of(sm))


def test_dns_and_names_of_strict(sm):
    a = attach(sm, "--stream", path_of(sm), "--egress", "strict", "--egress-allow", "ok.test").ready()
    v = a.vmm(path_of(sm))
    assert v.dns("ok.test") == OK
    assert v.dns("evil.test") == 5  # REFUSED
    c = v.tcp(w.WEB["evil.test"], w.SSH)  # the name may still come with what the guest says: it does not
    c.sendall(b"hello\r\n")
    with pytest.raises(ConnectionResetError):
        c.read(1)
    a.p.terminate()
    r = a.end()
    assert r.rc == 0
    r.one("egress_deny", dst=w.WEB["evil.test"], port=w.SSH)


@pytest.mark.core
def test_a_vmm_ends_and_another_comes(sm):
    """The same workspace and the same audit; what the first one left half said is not the second one's."""
    a = attach(sm, "--stream", path_of(sm), *GUARDED).ready()
    for i in range(3):
        v = a.vmm(path_of(sm))
        assert v.dhcp()[0] == vmmlib.GUEST
        assert fetch(v) == w.BANNER_SSH
        v.s.sendall(b"\0\0\1\0half a frame")
        v.close()  # the next one may be here before this is noticed
    pids = a.pids()
    waits("the last VMM to be gone", lambda: not status(sm, a.name)["reports"]["front"]["connected"])
    assert a.pids() == pids and status(sm, a.name)["reports"]["front"]["connections"] == 3
    a.p.terminate()
    r = a.end()
    assert r.rc == 0 and len(r.events("egress_start")) == 1 and len(r.events("egress_allow", dst=w.PROTO)) == 3, r.text()


def test_a_second_vmm_is_turned_away(sm):
    a = attach(sm, "--stream", path_of(sm), *GUARDED).ready()
    first = a.vmm(path_of(sm))
    assert first.arp() == vmmlib.GATEWAY_MAC
    second = a.vmm(path_of(sm))
    second.send(second.ether(0x806, b"\0" * 28))
    assert second.ended()  # held for a while, in case the first one is on its way out
    assert b"second VMM was turned away" in a.said()
    assert fetch(first) == w.BANNER_SSH
    first.close()
    third = a.vmm(path_of(sm))
    assert fetch(third) == w.BANNER_SSH


@pytest.mark.parametrize("what", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x00\x02\x00\x00"])
def test_broken_framing_ends_the_connection_and_no_more(sm, what):
    a = attach(sm, "--stream", path_of(sm), *GUARDED).ready()
    v = a.vmm(path_of(sm))
    v.s.sendall(what + b"x" * 100)
    assert v.ended()
    assert fetch(a.vmm(path_of(sm))) == w.BANNER_SSH
    assert [r["reason"] for r in a.audit() if r["event"] == "egress_other_deny"] == ["device"]


def test_a_lie_over_vhost_user_is_recorded(sm):
    """A message without a version, and a request that there is not: the connection or the request ends, each with its line in the audit."""
    a = attach(sm, "--vhost-user", path_of(sm), *GUARDED).ready()
    with vmmlib.connect(path_of(sm)) as s:
        s.settimeout(20)
        s.sendall(struct.pack("<III", 1, 0, 0))
        assert s.recv(100) == b""
    waits("the line", lambda: [r for r in a.audit() if r["event"] == "egress_other_deny" and r["reason"] == "device"])
    with vmmlib.connect(path_of(sm)) as s:  # GET_FEATURES of an honest one
        s.settimeout(20)
        s.sendall(struct.pack("<III", 1, 1, 0))
        assert struct.unpack("<III", s.recv(12)) == (1, 5, 8)


def test_frames_of_another_card_and_too_long_ones(sm):
    """Not the guest's MAC address: dropped. Longer than the link: read past. The connection stands."""
    a = attach(sm, "--stream", path_of(sm), *GUARDED, "--mac", "52:54:00:aa:bb:cc").ready()
    v = a.vmm(path_of(sm), mac=bytes.fromhex("525400aabbcc"))
    stranger = vmmlib.Vmm(v.s)
    stranger.send(stranger.ether(0x806, b"\0" * 28))
    v.send(v.ether(0x800, b"\x45" + b"\0" * 30000))
    assert v.dhcp()[0] == vmmlib.GUEST
    assert fetch(v) == w.BANNER_SSH
    assert status(sm, a.name)["network"]["mac"] == "52:54:00:aa:bb:cc"


def test_we_are_the_client(sm):
    """The VMM listens: it is found when it is there, and again when it was started anew."""
    path = path_of(sm, "theirs.sock")
    a = attach(sm, "--stream", path, "--client", *GUARDED).ready()
    for _ in range(2):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        d = os.open(sm.tmp, os.O_PATH)
        listener.bind(f"/proc/self/fd/{d}/theirs.sock")
        listener.listen(1)
        listener.settimeout(10)
        v = vmmlib.Vmm(listener.accept()[0])
        assert fetch(v) == w.BANNER_SSH
        v.close()
        listener.close()
        os.close(d)
        os.unlink(path)
    a.p.terminate()
    assert a.end().rc == 0


def test_over_tcp(sm):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    a = attach(sm, "--stream", f"tcp:127.0.0.1:{port}", *GUARDED).ready()
    assert b"every user of this machine" in a.said()
    v = vmmlib.Vmm(socket.create_connection(("127.0.0.1", port)))
    assert fetch(v) == w.BANNER_SSH
    a.p.terminate()
    assert a.end().rc == 0


def test_over_datagrams(sm):
    path = path_of(sm, "d")
    a = attach(sm, "--dgram", path, *GUARDED).ready()
    d = os.open(sm.tmp, os.O_PATH)
    for _ in range(2):  # the VMM is started again: another socket under the same name
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        s.bind(f"/proc/self/fd/{d}/d.vmm")
        end = time.monotonic() + 10
        while True:
            try:
                s.connect(f"/proc/self/fd/{d}/d")
                break
            except PermissionError:  # still connected to the one before
                assert time.monotonic() < end
                select.select([], [], [], 0.05)
        v = vmmlib.Vmm(s, dgram=True)
        end = time.monotonic() + 10
        while True:  # answers come when we were found
            try:
                assert v.arp(timeout=0.5) == vmmlib.GATEWAY_MAC
                break
            except TimeoutError:
                assert time.monotonic() < end
        assert v.dhcp()[0] == vmmlib.GUEST
        assert fetch(v) == w.BANNER_SSH
        # Of a datagram socket no end is seen; the next VMM is the sign that the last one's connections are over.
        waits("no connection to be left", lambda: status(sm, a.name)["reports"]["core"]["flows"] == 0)
        assert isinstance(v.tcp(w.PROTO, w.SSH), vmmlib.Tcp)
        v.close()
        os.unlink(path + ".vmm")
    os.close(d)
    a.p.terminate()
    assert a.end().rc == 0
    assert not os.path.exists(path)


@pytest.mark.core
@pytest.mark.parametrize("kind", ["stream", "dgram"])
def test_a_descriptor_that_was_handed_over(sm, kind):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM)
    a = attach(sm, "--fd", str(theirs.fileno()), *GUARDED, pass_fds=[theirs.fileno()]).ready()
    theirs.close()
    v = vmmlib.Vmm(ours, dgram=kind == "dgram")
    assert fetch(v) == w.BANNER_SSH
    if kind == "stream":  # no other can come: the workspace ends with it
        v.close()
    else:
        a.p.terminate()
    r = a.end()
    assert r.rc == 0, r
    r.one("egress_allow", dst=w.PROTO)


@pytest.mark.core
@pytest.mark.parametrize("victim", ["core", "nat"])
def test_the_end_of_a_process_is_the_end_of_the_network(sm, victim):
    a = attach(sm, "--stream", path_of(sm), *GUARDED).ready()
    v = a.vmm(path_of(sm))
    assert fetch(v) == w.BANNER_SSH
    os.kill(a.pids()[victim], signal.SIGKILL)
    assert v.ended()
    r = a.end()
    assert r.rc == 125 and b"ended unexpectedly" in r.stderr, r
    assert not sm.left() and not os.path.exists(path_of(sm))


def test_the_supervisors_end_is_the_end_of_the_network(sm):
    a = attach(sm, "--stream", path_of(sm), *GUARDED).ready()
    v = a.vmm(path_of(sm))
    assert fetch(v) == w.BANNER_SSH
    pids = a.pids()
    os.kill(pids["attach"], signal.SIGKILL)
    assert v.ended()
    a.p.wait(10)
    waits("all to end", lambda: not any(alive(p) for p in pids.values()))
    # what it left behind is in nobody's way
    b = attach(sm, "--stream", path_of(sm), *GUARDED, name=a.name).ready()
    assert fetch(b.vmm(path_of(sm))) == w.BANNER_SSH


@pytest.mark.parametrize("sig", ["TERM", "INT", "HUP", "QUIT"])
def test_signals_end_it_in_order(sm, sig):
    a = attach(sm, "--stream", path_of(sm), *GUARDED).ready()
    os.kill(a.pids()["attach"], getattr(signal, "SIG" + sig))
    r = a.end()
    assert r.rc == 0, r
    assert r.one("egress_stop")["reason"] == "stop" and not os.path.exists(path_of(sm))


@pytest.mark.core
@pytest.mark.parametrize("abstract", [False, True])
def test_ready_is_told(sm, abstract):
    """sd_notify, a descriptor, stderr and stdout; and none of them before a VMM would be served."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = "\0sm-notify-%d" % os.getpid() if abstract else os.path.join("/tmp", f"sm-notify-{os.getpid()}")
    manager.bind(name)
    manager.settimeout(20)
    r, wr = os.pipe()
    try:
        a = attach(sm, "--stream", path_of(sm), "--ready-fd", str(wr), *GUARDED, "--json", pass_fds=[wr],
                   env={"NOTIFY_SOCKET": name.replace("\0", "@")})
        os.close(wr)
        told = manager.recv(4096).decode().splitlines()
        assert told[0] == "READY=1" and told[1].startswith("STATUS=") and a.name in told[1]
        v = a.vmm(path_of(sm))
        assert v.arp() == vmmlib.GATEWAY_MAC
        with os.fdopen(r, "rb") as f:
            assert f.read() == f"ready {a.name}\n".encode()  # and the end of it
        a.ready()
        args = json.loads(a.line())
        assert args["workspace"] == a.name and args["qemu"][1].endswith("addr.path=" + path_of(sm)) and args["cloud_hypervisor"] is None
        with open(args["ca_certificate"]) as f:
            assert "BEGIN CERTIFICATE" in f.read()
        a.p.terminate()
        assert manager.recv(4096) == b"STOPPING=1\n"
        assert a.end().rc == 0
    finally:
        manager.close()
        if not abstract:
            os.unlink(name)


def test_one_name_and_one_socket_each(sm):
    a = attach(sm, "--stream", path_of(sm), *GUARDED).ready()
    b = attach(sm, "--stream", path_of(sm, "other.sock"), *GUARDED, name=a.name)
    r = b.end()
    assert r.rc == 125 and b"already running" in r.stderr and not os.path.exists(path_of(sm, "other.sock")), r
    c = attach(sm, "--stream", path_of(sm), *GUARDED)
    r = c.end()
    assert r.rc == 125 and b"in use" in r.stderr, r
    assert not os.path.exists(os.path.join(sm.state, "slirp-med", c.name)), "a start that failed leaves no folder"
    v = a.vmm(path_of(sm))
    assert fetch(v) == w.BANNER_SSH


def test_other_users_are_turned_away(sm):
    """The socket's modes keep them out; and where these are opened, the uid does."""
    a = attach(sm, "--stream", path_of(sm), *GUARDED).ready()
    assert os.stat(path_of(sm)).st_mode & 0o777 == 0o600
    os.chmod(path_of(sm), 0o666)
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(12345, 12345, 12345)
        except OSError:
            os._exit(77)  # the private internet has one user here
        try:
            s = vmmlib.connect(path_of(sm), deadline=0)
            s.settimeout(10)
            os._exit(0 if s.recv(1) == b"" else 3)
        except BaseException:
            os._exit(4)
    st = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if st == 77:
        pytest.skip("there is no other user in this user namespace (tests/unit: supervisor/listens looks at it too)")
    assert st == 0
    assert b"another user" in a.said()
    assert fetch(a.vmm(path_of(sm))) == w.BANNER_SSH


def test_what_is_in_the_way(sm):
    with open(path_of(sm), "w") as f:
        f.write("precious")
    r = attach(sm, "--stream", path_of(sm), *GUARDED).end()
    assert r.rc == 2 and b"no socket" in r.stderr and open(path_of(sm)).read() == "precious"


def test_arguments_without_a_start(sm):
    p = sm.cli("attach", "w1", "--vhost-user", "/run/v.sock", "--print-args", "--json")
    args = json.loads(p.stdout)
    assert p.returncode == 0 and "vhost_user=true" in args["cloud_hypervisor"][3] and any("vectors=0" in h for h in args["hints"])
    assert os.listdir(sm.state) == []


def test_policy_and_ports_while_it_runs(sm):
    """What `run` can be asked, attach can be asked."""
    policy = os.path.join(sm.tmp, "p.json")
    with open(policy, "w") as f:
        json.dump({"allow": [w.PROTO + ":22"]}, f)
    a = attach(sm, "--stream", path_of(sm), "--egress", "strict", "--egress-policy", policy).ready()
    v = a.vmm(path_of(sm))
    assert fetch(v) == w.BANNER_SSH
    with open(policy, "w") as f:
        json.dump({"allow": []}, f)
    p = sm.cli("reload", a.name)
    assert p.returncode == 0, p
    c = v.tcp(w.PROTO, w.SSH)
    if isinstance(c, vmmlib.Tcp):
        c.sendall(b"hello\r\n")
        with pytest.raises(ConnectionResetError):
            c.read(1)
    assert b"egress_deny" in sm.cli("egress", a.name, "--json").stdout
    assert sm.cli("stop", a.name).returncode == 0
    assert a.end().rc == 0


def test_connections_of_a_vmm_that_was_killed_end(sm, world, mark):
    """They hold no place, neither here nor at the server, when the VMM has gone without a word; the next one starts with none."""
    a = attach(sm, "--stream", path_of(sm), *GUARDED, "--egress-max-conns", "2").ready()
    for _ in range(3):
        v = a.vmm(path_of(sm))
        for _ in range(2):
            c = v.tcp(w.PROTO, w.SSH)
            assert isinstance(c, vmmlib.Tcp), "the VMM before still holds the places"
            assert c.read(len(w.BANNER_SSH)) == w.BANNER_SSH
        v.close()
        waits("the connections to end", lambda: status(sm, a.name)["reports"]["core"]["flows"] == 0)
    a.p.terminate()
    r = a.end()
    assert len(r.events("egress_close", dst=w.PROTO)) == 6 and not r.events("egress_deny"), r.text()


TAP_GUEST = """
import fcntl, os, socket, struct, subprocess, sys
fd = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(fd, 0x400454ca, struct.pack("16sH22x", b"eth0", 0x0002 | 0x1000 | %d))  # IFF_TAP, IFF_NO_PI
socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b"x"], [fd])
os.close(fd)
for c in ("link set eth0 address 52:55:0a:00:02:0f", "addr add 10.0.2.15/24 dev eth0", "link set lo up", "link set eth0 up", "route add default via 10.0.2.2"):
    subprocess.run(["ip", *c.split()], check=True)
input()
s = socket.create_connection(("%s", %d), 10)
print(s.recv(100), flush=True)
s.sendall(b"QUIT\\r\\n")
print(s.recv(100), flush=True)
s.close()
input()
"""


@pytest.mark.parametrize("vnet", [False, True], ids=["plain", "vnet"])
def test_a_tap_that_was_handed_over(sm, vnet):
    """A guest that is a network namespace: somebody else made it and its tap, with a virtio-net header or without."""
    ours, theirs = socket.socketpair()
    g = subprocess.Popen(["unshare", "-n", "--", "/usr/bin/python3", "-c", TAP_GUEST % (0x4000 if vnet else 0, w.PROTO, w.SSH), str(theirs.fileno())],
                         pass_fds=[theirs.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        theirs.close()
        ours.settimeout(10)
        tap = socket.recv_fds(ours, 1, 1)[1][0]
        a = attach(sm, "--fd", str(tap), "--fd-kind", "tap", *GUARDED, pass_fds=[tap]).ready()
        os.close(tap)
        assert status(sm, a.name)["port"]["kind"] == ("tap-vnet" if vnet else "tap")
        g.stdin.write(b"go\n")
        g.stdin.flush()
        assert ast.literal_eval(g.stdout.readline().decode()) == w.BANNER_SSH
        assert ast.literal_eval(g.stdout.readline().decode()) == b"QUIT\r\n"
        a.p.terminate()
        r = a.end()
        assert r.rc == 0, r
        r.one("egress_allow", dst=w.PROTO, port=w.SSH)
    finally:
        g.kill()
        g.wait()
        ours.close()
