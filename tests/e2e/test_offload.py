# SPDX-License-Identifier: BSD-3-Clause
"""The guest's network card sums and cuts: what crosses its tap is larger than the MTU, and what a wire behind it gets is right.

A box stands behind the guest: its packets pass through the guest's kernel (masquerade) over a veth whose guest end does
no offload, so the guest's kernel has to finish what the front left to it. There it is captured, and tshark looks at each
checksum and length."""
import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading

import pytest
import worldlib as w

SIOCETHTOOL, ETHTOOL_STXCSUM, ETHTOOL_SSG, ETHTOOL_STSO, ETHTOOL_SGSO = 0x8946, 0x17, 0x19, 0x1F, 0x24
CLONE_NEWNET, ETH_P_ALL, PACKET_OUTGOING = 0x40000000, 3, 4
MTU, BYTES, KNOCK = 1500, 3 << 20, 4099
BOX = """
import hashlib, socket, sys
peer, source, upload, echo, n = sys.argv[1], *map(int, sys.argv[2:])
s = socket.create_connection((peer, source), timeout=30); s.sendall(b"%d\\n" % n); h = hashlib.sha256(); got = 0
while d := s.recv(1 << 20):
    h.update(d); got += len(d)
print(got, h.hexdigest())
import worldlib
s = socket.create_connection((peer, upload), timeout=30); body = worldlib.pattern(n)
s.sendall(b"PUT / HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: %d\\r\\n\\r\\n" % n + body); reply = b""
while d := s.recv(1 << 16):
    reply += d
print(reply.split(b"\\r\\n\\r\\n")[1].decode())
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(20)
for n in (1, 2, 1471, 1472):
    u.sendto(b"u" * n, (peer, echo)); assert u.recv(2000) == b"u" * n
"""


class InNet:
    """This thread is in another network namespace for as long as the block lasts."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        libc = ctypes.CDLL(None, use_errno=True)
        self.setns = libc.setns
        self.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        assert self.setns(fd, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(fd)

    def __exit__(self, *_):
        assert self.setns(self.home, CLONE_NEWNET) == 0
        os.close(self.home)


def no_offload(dev):
    """Its kernel cuts and sums before a frame goes to this device."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for what in (ETHTOOL_SGSO, ETHTOOL_STSO, ETHTOOL_SSG, ETHTOOL_STXCSUM):
        value = ctypes.create_string_buffer(struct.pack("II", what, 0))
        fcntl.ioctl(s, SIOCETHTOOL, struct.pack("16sP8x", dev.encode(), ctypes.addressof(value)))
    s.close()


class Largest:
    """The longest frame of a device, outgoing and incoming, until it is stopped. That some are missed does not matter."""

    def __init__(self, net, dev):
        with InNet(net):
            self.s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self.s.bind((dev, 0))
        self.s.settimeout(0.2)
        self.seen, self.stopping = {True: 0, False: 0}, False
        self.t = threading.Thread(target=self.read, daemon=True)
        self.t.start()

    def read(self):
        while not self.stopping:
            try:
                d, addr = self.s.recvfrom(1 << 17)
            except TimeoutError:
                continue
            out = addr[2] == PACKET_OUTGOING
            self.seen[out] = max(self.seen[out], len(d))

    def stop(self):
        self.stopping = True
        self.t.join()
        self.s.close()
        return self.seen


@contextlib.contextmanager
def dumpcap(net, dev, path, knock):
    """What comes in at a device, in a file; yields when the datagrams that knock() sends there are in it."""
    p = subprocess.Popen(["nsenter", f"--net={net}", "dumpcap", "-q", "-P", "-B", "64", "-i", dev, "-f", "inbound", "-w", path],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        said = b""
        while b"File:" not in said:
            d = p.stderr.readline()
            assert d, said
            said += d
        def open_for_business():
            knock()
            return datagrams(path, KNOCK) > 0
        w.wait_for("the capture to begin", open_for_business)
        yield
    finally:
        p.send_signal(signal.SIGINT)
        said += p.communicate(timeout=30)[1]
    assert p.returncode == 0, said
    numbers = re.search(rb"received/dropped on interface[^:]*: (\d+)/(\d+)", said)
    assert numbers and numbers[2] == b"0", said


def datagrams(path, port):
    """How many UDP packets from a port a capture has so far."""
    n, at = 0, 24
    with open(path, "rb") as f:
        data = f.read()
    while at + 16 <= len(data):
        kept = struct.unpack_from("<I", data, at + 8)[0]
        if at + 16 + kept > len(data):
            break
        frame = data[at + 16:at + 16 + kept]
        n += frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[34:36] == struct.pack("!H", port)
        at += 16 + kept
    return n


def tshark(path, *args):
    sums = sum((["-o", f"{proto}.check_checksum:TRUE"] for proto in ("ip", "tcp", "udp")), [])
    p = subprocess.run(["tshark", "-n", "-r", path, *sums, *args], capture_output=True, text=True, timeout=120)
    assert p.returncode == 0, p.stderr
    return p.stdout.splitlines()


# tcp.checksum.ffff is tshark's note that the field is 0xffff and the sum, calculated, 0. That is the other zero of ones' complement: it is right
# for every receiver (RFC 1071), and what Linux writes when it finishes a sum that was left to the card, because for UDP 0 would mean "none"
# (skb_checksum_help). Segments that it cuts out of a larger packet have 0 there. tshark counts the first as bad all the same, citing RFC 1624:
# one in 65,536 of the segments that come to the guest alone.
FIELDS = ("frame.len", "ip.len", "ip.checksum.status", "tcp.checksum.status", "udp.checksum.status", "tcp.checksum.ffff", "tcp.len", "ip.flags.mf",
          "ip.frag_offset", "udp.srcport")


def packets(path):
    """What tshark says of each IP packet: FIELDS, by name; "sums": whether each of its sums is right, and there are two."""
    rows = [dict(zip(FIELDS, x.split("\t"))) for x in tshark(path, "-Y", "ip", "-T", "fields", *sum((["-e", f] for f in FIELDS), []))]
    for x in rows:
        tcp, udp = (x[f"{proto}.checksum.status"] for proto in ("tcp", "udp"))
        if x["tcp.checksum.ffff"]:
            assert tcp == "0", x
            tcp = "1"
        x["sums"] = x["ip.checksum.status"] == "1" and sorted((tcp, udp)) == ["", "1"]
    return rows


@pytest.fixture
def box(sm):
    """A guest that is up, and a box behind it: the paths of their network namespaces."""
    r = sm.start_guest('print("up", flush=True); sys.stdin.readline()', "--mtu", str(MTU), "--egress", "off")
    assert r.line() == "up"
    guest = f"/proc/{r.pids()['init']}/ns/net"
    sh = lambda text: subprocess.run(["sh", "-ec", text], check=True, capture_output=True, text=True)  # noqa: E731
    sh("ip netns add offbox")
    try:
        sh(f"""nsenter --net={guest} sh -ec '
ip link add v0 mtu {MTU} type veth peer name v1 mtu {MTU} netns offbox
ip addr add 192.0.2.1/24 dev v0; ip link set v0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
nft add table ip t; nft add chain ip t post "{{ type nat hook postrouting priority 100; }}"; nft add rule ip t post oifname eth0 masquerade'
nsenter --net=/run/netns/offbox sh -ec 'ip link set lo up; ip addr add 192.0.2.2/24 dev v1; ip link set v1 up; ip route add default via 192.0.2.1'""")
        with InNet(guest):
            no_offload("v0")
        yield guest, "/run/netns/offbox"
    finally:
        sh("ip netns del offbox")
        r.tell("")
        assert r.end().rc == 0


def ones_sum(data):
    n = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while n >> 16:
        n = (n & 0xffff) + (n >> 16)
    return n


def segment(field, zero, ip_wrong=0):
    """A frame with a TCP segment whose sum ought to be 0, if zero, or 1, and is what field says."""
    addresses, data = bytes([192, 0, 2, 1, 192, 0, 2, 2]), b"data"
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(data), 1, 0x4000, 64, 6, 0) + addresses
    ip = ip[:10] + struct.pack("!H", 0xffff - ones_sum(ip) ^ ip_wrong) + ip[12:]
    pseudo = addresses + struct.pack("!HH", 6, 20 + len(data))
    window = 0xffff - ones_sum(pseudo + struct.pack("!HHIIBBHHH", 80, 1234, 1, 1, 0x50, 0x10, 0, 0, 0) + data) - (not zero)
    tcp = struct.pack("!HHIIBBHHH", 80, 1234, 1, 1, 0x50, 0x10, window, 0, 0)
    assert ones_sum(pseudo + tcp + data) == 0xffff - (not zero)
    return bytes(12) + b"\x08\0" + ip + tcp[:16] + struct.pack("!H", field) + tcp[18:] + data


def test_a_wrong_sum_is_told_from_the_other_zero(tmp_path):
    if not shutil.which("tshark"):
        pytest.skip("tshark is not installed: apt-get install tshark")
    right = [segment(0, True), segment(0xffff, True), segment(1, False)]
    wrong = [segment(1, True), segment(0xffff, False), segment(0, False), segment(0, True, ip_wrong=1), segment(0xffff, True, ip_wrong=1)]
    path = tmp_path / "sums.pcap"
    path.write_bytes(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1) +
                     b"".join(struct.pack("<IIII", 1, 0, len(x), len(x)) + x for x in right + wrong))
    assert [x["sums"] for x in packets(str(path))] == [True] * len(right) + [False] * len(wrong)


@pytest.mark.core
@pytest.mark.parametrize("mss", [1460, 536])
def test_a_wire_behind_the_guest_decodes_cleanly(box, world, tmp_path, mss):
    if not shutil.which("tshark") or not shutil.which("dumpcap"):
        pytest.skip("tshark is not installed: apt-get install tshark")
    guest, far = box
    subprocess.run(["nsenter", f"--net={far}", "ip", "route", "replace", "default", "via", "192.0.2.1", "advmss", str(mss)], check=True)
    tap, path = Largest(guest, "eth0"), str(tmp_path / "wire.pcap")
    with InNet(guest):
        knock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        knock.bind(("192.0.2.1", KNOCK))
    with dumpcap(far, "v1", path, lambda: knock.sendto(b"knock", ("192.0.2.2", w.DISCARD))):
        p = subprocess.run(["nsenter", f"--net={far}", "python3", "-B", "-c", BOX, w.PROTO, *map(str, (w.SOURCE, w.UPLOAD, w.ECHO, BYTES))],
                           capture_output=True, text=True, timeout=150, env={**os.environ, "PYTHONPATH": os.path.dirname(w.__file__)})
        tap = tap.stop()
        if p.returncode == 0:
            w.wait_for("the last datagram in the capture", lambda: datagrams(path, w.ECHO) == 4)
    assert p.returncode == 0, p.stderr
    want = hashlib.sha256(w.pattern(BYTES)).hexdigest()
    down, up = p.stdout.splitlines()
    assert down == f"{BYTES} {want}" and want in up, p.stdout

    # On the tap both ways carry what no wire would: so it is the kernel that has cut what follows.
    knock.close()
    assert tap[True] > 14 + 2 * MTU and tap[False] > 14 + 2 * MTU, tap
    rows = packets(path)
    assert len(rows) > BYTES // mss
    bad = [n for n, x in enumerate(rows) if not x["sums"]]
    assert not bad, (len(rows), bad, [rows[n] for n in bad[:5]], tshark(path, "-Y", "tcp.checksum.status == 0", "-V")[:120])
    for x in rows:
        assert int(x["frame.len"]) == 14 + int(x["ip.len"]) <= 14 + MTU, x
        assert not x["tcp.len"] or int(x["tcp.len"]) <= mss, x
        assert (x["ip.flags.mf"], x["ip.frag_offset"]) in (("0", "0"), ("False", "0")), x
    assert sum(x["udp.srcport"] == str(w.ECHO) for x in rows) == 4, "the datagrams that came back"
    trouble = "_ws.malformed || tcp.analysis.lost_segment || tcp.analysis.out_of_order || ip.bogus_ip_length"
    assert tshark(path, "-Y", trouble) == []


@pytest.mark.parametrize("mtu", [576, 9000, 65520])
def test_bytes_are_the_same_at_every_mtu(sm, mtu):
    n = 8 << 20
    r = sm.guest(f"""
import hashlib
s = dial("{w.PROTO}", {w.SOURCE}, 30); s.sendall(b"{n}\\n"); got, how = read(s, None, 60)
out["down"] = [len(got), hashlib.sha256(got).hexdigest(), how]; s.close()
s = dial("{w.PROTO}", {w.UPLOAD}, 30); s.sendall(b"PUT / HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: {n}\\r\\n\\r\\n" + got)
out["up"] = json.loads(read(s, None, 60)[0].split(b"\\r\\n\\r\\n")[1])
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(20); out["udp"] = []
for size in (1, {mtu} - 28, {mtu} - 27, 8000): # the last ones in fragments where they do not fit
    u.sendto(b"u" * size, ("{w.PROTO}", {w.ECHO})); out["udp"].append(len(u.recv(65536)) == size)
""", "--mtu", str(mtu), "--egress", "off", timeout=150)
    want = hashlib.sha256(w.pattern(n)).hexdigest()
    assert r.out["down"] == [n, want, "fin"] and r.out["up"] == {"bytes": n, "sha256": want}, r.out
    assert all(r.out["udp"]), r.out
