# SPDX-License-Identifier: BSD-3-Clause
"""The kernel path of a guest that is handed in: `attach --datapath tproxy` over a tap (--tap, by hand with vmmlib.py) and over a device of
somebody's (--device, with a kernel at its other end). A real machine's is tests/vm."""
import errno
import fcntl
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys

import pytest
import vmmlib
import worldlib as w
from conftest import USER, alive, descendants, read_audit_now
from test_attach import Attached, attach, fetch, path_of, status, waits
from test_tproxy import NO_NFT, REFUSAL, keeper_of

OK = w.WEB["ok.test"]
TPROXY = ("--datapath", "tproxy")
GUARDED = ("--egress", "guarded", *TPROXY)


@pytest.fixture
def datapath():
    return "slirp"  # `attach` is told by its own flags


def over_tap(sm, *flags, **kw):
    """A workspace with a tap, and a guest that has it."""
    a = attach(sm, "--tap", path_of(sm), *GUARDED, *flags, **kw).ready()
    return a, vmmlib.TapVmm(vmmlib.take_tap(path_of(sm)))


def refused(connection):
    """Made, and reset without a byte: the one difference of spec section 10."""
    assert isinstance(connection, vmmlib.Tcp), connection
    with pytest.raises(ConnectionResetError):
        connection.read(1)


def leads_nowhere(v):
    """Who has a tap has it for good, but behind it is nobody any more."""
    with pytest.raises((TimeoutError, vmmlib.Ended)):
        v.tcp(OK, 80, timeout=1)
    with pytest.raises((TimeoutError, vmmlib.Ended)):
        v.dns("ok.test", timeout=1)


# ---- a tap ----


@pytest.mark.core
def test_a_guest_over_a_tap(sm, world, mark):
    a, v = over_tap(sm)
    assert v.arp() == v.arp(vmmlib.RESOLVER) == v.arp("10.0.2.77") == vmmlib.GATEWAY_MAC
    ip, options = v.dhcp()
    assert ip == vmmlib.GUEST and options[3] == socket.inet_aton(vmmlib.GATEWAY) and options[6] == socket.inet_aton(vmmlib.RESOLVER)
    assert options[26] == struct.pack(">H", 1500)
    assert v.dns("ok.test") == OK
    assert fetch(v) == w.BANNER_SSH
    refused(v.tcp("10.0.0.5", 80))
    refused(v.tcp("10.0.2.77", 80))
    refused(v.tcp("127.0.0.1", 80))
    st = status(sm, a.name)
    assert st["datapath"] == "tproxy" and st["pids"]["keeper"] == st["processes"]["keeper"]["pid"] == keeper_of(a.p.pid), st
    assert st["port"] == {"kind": "tap", "path": path_of(sm), "peer": None, "address": None, "client": False, "device": None}, st
    assert sm.cli("stop", a.name).returncode == 0
    r = a.end()
    assert r.rc == 0, r
    leads_nowhere(v)
    r.one("egress_allow", dst=w.PROTO, port=w.SSH)
    r.one("egress_internal_deny", dst="10.0.0.5", port=80)
    r.one("egress_internal_deny", dst="10.0.2.77", port=80)
    r.one("egress_internal_deny", dst="127.0.0.1", port=80)
    assert r.one("egress_start")["datapath"] == "tproxy" and r.one("egress_stop")["reason"] == "stop"
    assert not os.path.exists(path_of(sm)) and not world.wire(mark, dst="10.0.0.5")


@pytest.mark.core
def test_what_is_not_the_guests_is_dropped_and_recorded(sm, world, mark):
    """Another card, another address, other protocols, options, tags: nothing of it goes anywhere, and each has its line."""
    a, v = over_tap(sm)
    card, theirs = v.mac, bytes.fromhex("525400112233")
    syn = struct.pack(">HHIIBBHHH", 4000, 80, 1, 0, 5 << 4, vmmlib.SYN, 65000, 0, 0)

    def tcp(src, dst):
        return vmmlib.ipv4(src, dst, 6, syn[:16] + struct.pack(">H", vmmlib.transport_sum(src, dst, 6, syn)) + syn[18:])

    def udp(src, dst):
        d = struct.pack(">HHHH", 4000, 9, 12, 0) + b"data"
        return vmmlib.ipv4(src, dst, 17, d[:6] + struct.pack(">H", vmmlib.transport_sum(src, dst, 17, d)) + d[8:])

    def with_route(packet):
        options = b"\x83\x07\x04" + socket.inet_aton("203.0.113.77") + b"\0"
        head = b"\x47" + packet[1:2] + struct.pack(">H", len(packet) + 8) + packet[4:10] + b"\0\0" + packet[12:20] + options
        return head[:10] + struct.pack(">H", vmmlib.csum(head)) + head[12:] + packet[20:]

    cases = [  # what is sent, and what the line says of it
        (dict(mac=theirs, packet=tcp(vmmlib.GUEST, "203.0.113.31")), dict(reason="spoofed")),
        (dict(mac=theirs, packet=udp(vmmlib.GUEST, "203.0.113.32")), dict(reason="spoofed")),
        (dict(packet=tcp("10.0.2.99", "203.0.113.33")), dict(reason="spoofed", dst="203.0.113.33")),
        (dict(packet=udp("10.0.2.2", "203.0.113.34")), dict(reason="spoofed", dst="203.0.113.34")),
        (dict(packet=vmmlib.ipv4(vmmlib.GUEST, "203.0.113.35", 1, b"\x08\0\xf7\xff\0\0\0\0")), dict(reason="icmp", dst="203.0.113.35")),
        (dict(packet=vmmlib.ipv4(vmmlib.GUEST, "203.0.113.36", 47, b"\0" * 8)), dict(protocol=47, dst="203.0.113.36")),
        (dict(packet=with_route(udp(vmmlib.GUEST, "203.0.113.37"))), dict(reason="malformed", dst="203.0.113.37")),
        (dict(packet=udp(vmmlib.GUEST, "224.0.0.251"), dst=bytes.fromhex("01005e0000fb")), dict(dst="224.0.0.251")),
        # Where the kernel lets nothing through by itself, whatever the rules say.
        *((dict(packet=packet(vmmlib.GUEST, dst)), dict(told, dst=dst)) for dst, told, packets in (
            ("127.0.0.1", dict(reason="protocol"), (tcp, udp)), ("127.8.8.8", dict(reason="protocol"), (tcp,)), ("0.0.0.0", dict(reason="protocol"), (tcp, udp)),
            (vmmlib.GUEST, dict(reason="spoofed"), (tcp, udp)), ("224.0.0.2", dict(protocol=6), (tcp,)), ("255.255.255.255", dict(protocol=6), (tcp,)))
          for packet in packets),
        (dict(kind=0x86dd, packet=b"\x60\0\0\0\0\x08\x3a\xff" + b"\xfe\x80" + bytes(13) + b"\1" + b"\xff\2" + bytes(13) + b"\2" + bytes(8)), dict(reason="ipv6", dst="ff02::2")),
        (dict(kind=0x8100, packet=b"\0\7\x08\0" + udp(vmmlib.GUEST, "203.0.113.38")), dict(reason="link")),
        (dict(kind=0x88cc, packet=b"\0" * 46), dict(reason="link")),
        (dict(kind=0x806, dst=b"\xff" * 6, packet=struct.pack(">HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, card, socket.inet_aton("10.0.2.99"), bytes(6),
                                                               socket.inet_aton(vmmlib.GATEWAY))), dict(reason="spoofed")),
    ]
    seen = 0
    for sent, told in cases:
        v.mac = sent.get("mac", card)
        v.send(v.ether(sent.get("kind", 0x800), sent["packet"], sent.get("dst", vmmlib.GATEWAY_MAC)))
        v.mac = card

        def lines():
            rows = [r for r in a.audit() if r["event"] == "egress_other_deny"]
            return sum(r.get("count", 1) for r in rows) > seen and [r for r in rows if all(r.get(k) == x for k, x in told.items())]
        waits(f"{sent} to be recorded as {told}", lines)
        seen += 1
    # An address that somebody else claimed is the guest's all the same: answers go to its card.
    assert fetch(v) == w.BANNER_SSH
    for dst in range(31, 39):
        assert not world.wire(mark, dst=f"203.0.113.{dst}"), dst
    a.p.terminate()
    assert a.end().rc == 0


def test_a_fragment_of_another_card_completes_nothing(sm, world, mark):
    """Who is beside the guest on its wire does not get a word into a datagram of the guest's; the guest's own fragments go together."""
    a, v = over_tap(sm)
    card, theirs = v.mac, bytes.fromhex("525400112233")

    def send(ident, mac, port):
        data = bytes(64)
        d = struct.pack(">HHHH", 4100, port, 8 + len(data), 0) + data
        d = d[:6] + struct.pack(">H", vmmlib.transport_sum(vmmlib.GUEST, OK, 17, d)) + d[8:]
        for payload, where, of in ((d[:16], 0x2000, card), (d[16:], 2, mac)):
            h = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), ident, where, 64, 17, 0, socket.inet_aton(vmmlib.GUEST), socket.inet_aton(OK))
            v.mac = of
            v.send(v.ether(0x800, h[:10] + struct.pack(">H", vmmlib.csum(h)) + h[12:] + payload))
        v.mac = card
    send(1, theirs, 4101)
    send(2, card, 4102)
    waits("the guest's own to arrive", lambda: world.wire(mark, dst=OK, port=4102))
    a.p.terminate()
    r = a.end()
    assert r.rc == 0 and not world.wire(mark, dst=OK, port=4101)
    r.one("egress_udp_allow", dst=OK, port=4102)
    r.none("egress_udp_allow", port=4101)
    r.some("egress_other_deny", reason="spoofed")


@pytest.mark.core
def test_garbage_ends_nothing(sm):
    """A machine's kernel may send anything, with any virtio-net header: what comes of it is dropped, by the kernel or the guard, and the guest is served on."""
    a, v = over_tap(sm)
    good, send = [], v.send
    v.send = good.append
    v.udp(vmmlib.GUEST, OK, 4000, 7, b"x" * 40)
    v.udp(vmmlib.GUEST, vmmlib.GATEWAY, 68, 67, bytes(300))
    v.udp("0.0.0.0", "255.255.255.255", 68, 67, bytes(300), b"\xff" * 6)
    v.segment(OK, 4001, 80, 1000, 0, vmmlib.SYN, options=bytes([2, 4, 5, 180]))
    v.segment(OK, 4001, 0, 1001, 1, vmmlib.ACK, b"GET / HTTP/1.0\r\n\r\n")
    good.append(v.ether(0x800, vmmlib.ipv4(vmmlib.GUEST, vmmlib.GATEWAY, 1, b"\x08\0\xf7\xfe\0\0\0\1")))
    v.send = send
    r = random.Random(7)
    for _ in range(10000):
        frame = bytearray(r.choice(good))
        for _ in range(r.randrange(4)):
            frame[r.randrange(0 if r.random() < 0.1 else 12, len(frame))] = r.randrange(256)
        frame = frame[:r.randrange(len(frame)) if r.random() < 0.1 else None]
        head = struct.pack("<BBHHHHH", r.randrange(4), r.choice((0, 1, 3, 5, 0x81)), r.randrange(99), r.randrange(1999), r.randrange(80), r.randrange(80), 0)
        try:
            os.write(v.tap, (head if r.random() < 0.2 else bytes(12)) + frame)
        except OSError as e:
            assert e.errno == errno.EINVAL, e  # the kernel takes no such header, or no such frame
    v.port = 61000  # no port that was used above
    assert fetch(v) == w.BANNER_SSH and v.dhcp()[0] == vmmlib.GUEST
    a.p.terminate()
    assert a.end().rc == 0


def test_dhcp_is_renewed_by_unicast_and_only_its_own_address_is_given(sm):
    a, v = over_tap(sm, "--mtu", "1400")

    def ask(kind, src, dst, dst_mac, ciaddr, options):
        m = struct.pack(">BBBBIHH4s4s4s4s6s10s64s128sI", 1, 1, 6, 0, 7, 0, 0, socket.inet_aton(ciaddr), bytes(4), bytes(4), bytes(4), v.mac, b"",
                        b"", b"", 0x63825363) + bytes([53, 1, kind]) + options + b"\xff"
        v.udp(src, dst, 68, 67, m, dst_mac)
        return v.until(lambda f: v.udp_payload(f, 67, 68))
    ack = ask(3, vmmlib.GUEST, vmmlib.GATEWAY, vmmlib.GATEWAY_MAC, vmmlib.GUEST, b"")
    assert ack[16:20] == socket.inet_aton(vmmlib.GUEST) and bytes([53, 1, 5]) in ack and bytes([26, 2]) + struct.pack(">H", 1400) in ack
    nak = ask(3, "0.0.0.0", "255.255.255.255", b"\xff" * 6, "0.0.0.0", bytes([50, 4, 10, 0, 2, 99, 54, 4]) + socket.inet_aton(vmmlib.GATEWAY))
    assert bytes([53, 1, 6]) in nak
    a.p.terminate()
    r = a.end()
    assert r.rc == 0 and not r.events("egress_udp_internal_deny") and not r.events("egress_other_deny"), r.text()


def test_datagrams_and_the_echo(sm):
    """Answers come from where the question went, and the gateway can be pinged; a refusal is ICMP."""
    a, v = over_tap(sm)
    v.udp(vmmlib.GUEST, OK, 4001, 7, b"to the web server")
    assert v.until(lambda f: v.udp_payload(f, 7, 4001) if f[26:30] == socket.inet_aton(OK) else None) == b"to the web server"
    v.send(v.ether(0x800, vmmlib.ipv4(vmmlib.GUEST, vmmlib.GATEWAY, 1, b"\x08\0\xf7\xfe\0\0\0\1")))
    assert v.until(lambda f: f[34:42] if f[23] == 1 else None) == b"\0\0\xff\xfe\0\0\0\1"
    v.send(v.ether(0x800, vmmlib.ipv4(vmmlib.GUEST, vmmlib.RESOLVER, 1, b"\x08\0\xf7\xfd\0\0\0\2")))
    v.udp(vmmlib.GUEST, "10.0.0.5", 4002, 9, b"inside")
    kind, code = v.until(lambda f: (f[34], f[35]) if f[23] == 1 and f[58:62] == socket.inet_aton("10.0.0.5") else None)
    assert (kind, code) == (3, 13), "and nothing came for the echo to the resolver, which is recorded"
    a.p.terminate()
    r = a.end()
    r.one("egress_udp_allow", dst=OK, port=7)
    r.one("egress_udp_internal_deny", dst="10.0.0.5", port=9)
    r.one("egress_other_deny", dst=vmmlib.RESOLVER, reason="icmp")


def test_runs_are_cut_and_summed_for_a_card_that_can_neither(sm):
    """What comes together for a card without offloads comes one by one, each with a right sum and its own bytes."""
    a, v = over_tap(sm)
    def answer(f):
        payload = v.udp_payload(f, 7, 4003)
        if payload is None:
            return None
        assert len(f) <= 1514 and vmmlib.csum(f[14:34]) == 0, f[:60].hex()
        assert vmmlib.transport_sum(w.PROTO, vmmlib.GUEST, 17, f[34:34 + 8 + len(payload)]) == 0, f[:60].hex()
        return payload
    v.udp(vmmlib.GUEST, w.PROTO, 4003, 7, b"first")
    assert v.until(answer) == b"first"
    want = [bytes([i]) * 1200 for i in range(30)] + [b"last"]
    for x in want:
        v.udp(vmmlib.GUEST, w.PROTO, 4003, 7, x)
    assert sorted(v.until(answer) for _ in want) == sorted(want)
    a.p.terminate()
    a.end()


def test_a_guest_that_went_without_a_word_is_noticed(sm):
    """Nobody sees a VMM's end behind a tap: the kernel asks after a silent connection, and what nobody knows is reset."""
    a, v = over_tap(sm)
    c = v.tcp(w.PROTO, w.SSH)
    assert c.read(len(w.BANNER_SSH)) == w.BANNER_SSH

    def timers():  # proc(5): of an established connection of the guest's, the kind of timer and when it is due, in hundredths
        with open(f"/proc/{keeper_of(a.p.pid)}/net/tcp") as f:
            rows = [line.split() for line in f.readlines()[1:]]
        return [(r[5][:2], int(r[5][3:], 16)) for r in rows if r[3] == "01" and r[2].startswith("0F02000A:")]
    waits("all that was sent to be acknowledged", lambda: timers() and timers()[0][0] == "02")
    [(_, due)] = timers()
    assert 0 < due <= 6000, due
    c._send(vmmlib.RST)  # as a guest's kernel does that was started anew
    waits("the flow to end", lambda: [r for r in a.audit() if r["event"] == "egress_close"])
    a.p.terminate()
    r = a.end()
    assert r.rc == 0 and r.one("egress_close", dst=w.PROTO)["reason"] == "guest_reset", r.text()


def test_the_tap_is_handed_to_whoever_starts_the_vmm(sm):
    """One after the other, by 'slirp-med tap', by a socket as QEMU's helper does it, and to no other user."""
    a, v = over_tap(sm)
    look = "import fcntl, struct; print(struct.unpack('16sH22x', fcntl.ioctl(3, 0x800454d2, bytes(40))))"
    p = sm.cli("tap", path_of(sm), "--", sys.executable, "-c", look)
    name, flags = eval(p.stdout)
    assert name.strip(b"\0") == b"slirp0" and flags & 0x5002 == 0x5002, p
    ours, theirs = socket.socketpair()
    p = sm.cli("tap", path_of(sm), f"--fd={theirs.fileno()}", "--br=br0", pass_fds=[theirs.fileno()])
    _, fds, _, _ = socket.recv_fds(ours, 10, 4)
    assert p.returncode == 0 and len(fds) == 1, p
    assert fetch(vmmlib.TapVmm(fds[0])) == w.BANNER_SSH
    os.close(fds[0])
    assert os.stat(path_of(sm)).st_mode & 0o777 == 0o600
    p = sm.cli("tap", path_of(sm), "--", "/nonexistent/vmm")
    assert p.returncode == 127 and b"not found" in p.stderr, p
    assert sm.cli("tap", path_of(sm)).returncode == 2
    assert sm.cli("tap", path_of(sm) + "x", "--", "true").returncode == 1
    assert fetch(v) == w.BANNER_SSH, "the first one has it still"
    a.p.terminate()
    assert a.end().rc == 0


def test_what_qemu_is_told(sm):
    a = attach(sm, "--tap", path_of(sm), *GUARDED, "--json").ready()
    said = json.loads(a.line())
    netdev = said["qemu"][said["qemu"].index("-netdev") + 1]
    helper = netdev.split("helper=")[1].replace(",,", ",")
    assert netdev.startswith("tap,id=net0,helper=") and path_of(sm) in helper, said
    ours, theirs = socket.socketpair()
    subprocess.run([*USER, "sh", "-c", f"{helper} --fd={theirs.fileno()} --use-vnet --br=br0"], check=True, pass_fds=[theirs.fileno()], timeout=30)
    v = vmmlib.TapVmm(socket.recv_fds(ours, 10, 4)[1][0])
    assert fetch(v) == w.BANNER_SSH
    assert any("slirp-med tap" in x for x in said["hints"]) and said["cloud_hypervisor"] is None, said


@pytest.mark.core
@pytest.mark.parametrize("role", ["nat", "core", "attach", "keeper"])
def test_any_process_that_dies_takes_the_network_with_it(sm, world, role):
    a, v = over_tap(sm)
    assert fetch(v) == w.BANNER_SSH
    pids = [p for p in descendants(a.p.pid)]
    mark = world.mark()
    os.kill(keeper_of(a.p.pid) if role == "keeper" else a.pids()[role], signal.SIGKILL)
    r = a.end()
    assert r.rc == (-signal.SIGKILL if role == "attach" else 125), r
    waits("all to end", lambda: not any(alive(p) for p in pids))
    leads_nowhere(v)
    assert not world.wire(mark, dst=OK)


# ---- refusals ----


@pytest.mark.core
def test_refused_in_the_specs_words(sm, world, mark):
    """Also for `attach` and `vm`: no other path is taken in its place, and nothing is left."""
    kernel = os.path.join(sm.tmp, "kernel")
    with open(kernel, "w") as f:
        f.write("no kernel")
    os.chmod(kernel, 0o644)
    for argv in (["attach", "tp", "--tap", path_of(sm)], ["vm", "--name", "tp", "--kernel", kernel, "--qemu", "/bin/echo"]):
        p = subprocess.run([*USER, sys.executable, NO_NFT, sm.bin, *argv, *TPROXY], env=sm.env(), capture_output=True, timeout=60)
        assert p.returncode == 125 and not p.stdout, p
        assert REFUSAL.format("tp") in p.stderr.decode().splitlines(), p
        assert not sm.left() and not os.path.exists(path_of(sm)) and not world.wire(mark)


def test_without_tun_a_tap_cannot_be_had(sm):
    hide = ["unshare", "-U", "-r", "-m", "--", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$0" "$@"', *USER]
    p = subprocess.run([*hide, sm.bin, "attach", "nt", "--tap", path_of(sm), *TPROXY], env=sm.env(), capture_output=True, timeout=60)
    assert p.returncode == 125 and b"modprobe tun" in p.stderr and not sm.left(), p


@pytest.mark.parametrize("flags,words", [
    (("--tap", "/x/net.sock"), ("--tap", "only with --datapath tproxy")),
    (("--device", "veth9"), ("--device", "only with --datapath tproxy")),
    (("--stream", "/x/net.sock", *TPROXY), ("--stream", "--tap PATH")),
    (TPROXY, ("no port", "--tap PATH or --device NAME")),
    (("--device", "a/b", *TPROXY), ("--device=a/b", "network device")),
    (("--device", "x" * 16, *TPROXY), ("network device",)),
    (("--device", "lo", *TPROXY), ("--device=lo", "veth")),
    (("--device", "nonesuch0", *TPROXY), ("--device=nonesuch0", "no such network device")),
    (("--tap", "/x", "--device", "y", *TPROXY), ("one port",)),
    (("--tap", "/x", "--client", *TPROXY), ("--client",)),
])
def test_errors_name_the_flag(sm, flags, words):
    p = sm.cli("attach", "bad", *flags)
    said = p.stderr.decode()
    assert p.returncode == 2 and all(x in said for x in words), p
    assert not sm.left() and not os.path.exists(f"{sm.state}/slirp-med/bad")


# ---- a device that somebody has ----

SERVER = """
import socket, sys
s = socket.create_server(("0.0.0.0", 8000))
print("up", flush=True)
while True:
    c, who = s.accept()
    c.sendall(who[0].encode())
    c.close()
"""


def devices():
    return [name for _, name in socket.if_nameindex()]


class Kernel:
    """A network namespace with one end of a veth pair, as a container engine would have it. The other end is .ours, here."""

    def __init__(self, number):
        self.name, self.ours = f"kp{number}", f"kpveth{number}"
        self.holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo up; exec sleep 300"], stdout=subprocess.PIPE)
        assert self.holder.stdout.readline() == b"up\n"
        subprocess.run(["ip", "link", "add", self.ours, "type", "veth", "peer", "name", "eth0", "netns", str(self.holder.pid)], check=True)
        self.run("ip link set eth0 address 52:55:0a:00:02:0f; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip link set lo up; "
                 "ip route add default via 10.0.2.2")

    def argv(self, script):
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "sh", "-c", script]

    def run(self, script, **kw):
        return subprocess.run(self.argv(script), capture_output=True, timeout=60, **kw)

    def close(self):
        self.holder.kill()
        self.holder.communicate()
        subprocess.run(["ip", "link", "del", self.ours], stderr=subprocess.DEVNULL, check=False)


@pytest.fixture
def kernel(request):
    k = Kernel(os.getpid() % 1000)
    yield k
    k.close()


def as_root(sm, *flags, name=None):
    """`attach` by whoever owns this network namespace."""
    name = name or sm.name()
    sm.err = open(os.path.join(sm.tmp, f"stderr.{name}.{len(sm.running)}"), "w+b")
    p = subprocess.Popen([sm.bin, "attach", name, *flags], env=sm.env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sm.err)
    r = Attached(sm, name, p)
    sm.running.append(r)
    return r


@pytest.mark.core
def test_one_end_of_a_veth_pair(sm, world, kernel, mark):
    """The device moves away, the guest at its other end is mediated, published ports lead to it, and with the workspace it goes."""
    a = as_root(sm, "--device", kernel.ours, *GUARDED, "--egress-opaque", "--publish", "127.0.0.1:0:8000/tcp").ready()
    assert kernel.ours not in devices()
    st = status(sm, a.name)
    assert st["port"]["device"] == kernel.ours and st["port"]["kind"] == "device" and st["pids"]["keeper"] == keeper_of(a.p.pid), st
    p = kernel.run(f"ping -c 1 -W 5 10.0.2.2 && curl -sS --max-time 20 --resolve ok.test:80:{OK} http://ok.test/hello")
    assert p.returncode == 0 and p.stdout.endswith(b"hello\n"), p
    assert kernel.run("curl -sS --max-time 20 http://10.0.0.5/").returncode != 0
    server = subprocess.Popen(kernel.argv(f"exec {sys.executable} -c '{SERVER}'"), stdout=subprocess.PIPE)
    try:
        assert server.stdout.readline() == b"up\n"
        port = st["network"]["publishes"][0]["hostPort"]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
            assert s.makefile().read() == vmmlib.GATEWAY
    finally:
        server.kill()
        server.communicate()
    a.p.terminate()
    r = a.end()
    assert r.rc == 0, r
    assert r.some("egress_allow", dst=OK, port=80)["host"] == "ok.test" or r.text()
    r.some("egress_internal_deny", dst="10.0.0.5", port=80)
    r.one("ingress_accept")
    waits("the pair to go", lambda: b"eth0" not in kernel.run("ip -o link").stdout)
    assert not world.wire(mark, dst="10.0.0.5")


def test_a_device_needs_the_right_to_move_it(sm, kernel):
    p = sm.cli("attach", "dev", "--device", kernel.ours, *GUARDED)
    assert p.returncode == 125 and b"CAP_NET_ADMIN" in p.stderr and b"--tap PATH" in p.stderr, p
    assert kernel.ours in devices() and not sm.left()


def test_a_tap_that_a_vmm_has(sm):
    """Made by whoever owns this namespace, and named to us: his VMM's descriptor stays what it was."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    name = f"kptap{os.getpid() % 1000}"
    fcntl.ioctl(tap, 0x400454ca, struct.pack("16sH22x", name.encode(), 0x5002))  # TUNSETIFF
    fcntl.ioctl(tap, 0x400454d8, struct.pack("i", 12))  # TUNSETVNETHDRSZ
    a = as_root(sm, "--device", name, *GUARDED).ready()
    v = vmmlib.TapVmm(tap)
    assert v.dhcp()[0] == vmmlib.GUEST and fetch(v) == w.BANNER_SSH
    a.p.terminate()
    assert a.end().rc == 0
    leads_nowhere(v)


def test_a_created_workspace_starts_with_its_tap_again(sm):
    """The flags are kept, and each start makes a new tap behind the same path."""
    assert sm.cli("create", "kept", "--attach", "--datapath", "tproxy", "--tap", path_of(sm), "--egress", "guarded").returncode == 0
    for _ in range(2):
        p = sm.cli("start", "kept", "--detach")
        assert p.returncode == 0, p
        v = vmmlib.TapVmm(vmmlib.take_tap(path_of(sm)))
        assert v.dhcp()[0] == vmmlib.GUEST and fetch(v) == w.BANNER_SSH
        v.close()
        assert sm.cli("stop", "kept").returncode == 0
    assert [r["datapath"] for r in read_audit_now(sm.state, "kept") if r["event"] == "egress_start"] == ["tproxy"] * 2
    waits("the processes to end", lambda: not sm.left())
