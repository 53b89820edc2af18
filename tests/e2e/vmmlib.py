# SPDX-License-Identifier: BSD-3-Clause
"""A virtual machine monitor with a guest of a hundred lines: raw frames over QEMU's stream or dgram protocol or a tap, built by hand."""
import fcntl
import os
import random
import select
import socket
import struct
import time

GATEWAY_MAC = bytes.fromhex("52550a000202")
GUEST_MAC = bytes.fromhex("52550a00020f")
GUEST, GATEWAY, RESOLVER = "10.0.2.15", "10.0.2.2", "10.0.2.3"
SYN, RST, FIN, PSH, ACK = 2, 4, 1, 8, 16


class Ended(EOFError):
    """The other end has closed the connection."""


def csum(data):
    data += b"\0" * (len(data) % 2)
    s = sum(struct.unpack(f">{len(data) // 2}H", data))
    while s >> 16:
        s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff


def ipv4(src, dst, proto, payload):
    h = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 7, 0x4000, 64, proto, 0, socket.inet_aton(src), socket.inet_aton(dst))
    return h[:10] + struct.pack(">H", csum(h)) + h[12:] + payload


def transport_sum(src, dst, proto, segment):
    return csum(socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack(">BBH", 0, proto, len(segment)) + segment)


def connect(path, deadline=10):
    """To a unix socket, whatever the length of its path."""
    end = time.monotonic() + deadline
    d = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        while True:
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                s.connect(f"/proc/self/fd/{d}/{os.path.basename(path)}")
                return s
            except OSError:
                s.close()
                if time.monotonic() > end:
                    raise
                select.select([], [], [], 0.02)
    finally:
        os.close(d)


class Vmm:
    def __init__(self, sock, mac=GUEST_MAC, dgram=False):
        self.s, self.mac, self.dgram, self.buf, self.ident = sock, mac, dgram, b"", 100
        self.port = random.randrange(32768, 60000)  # a guest that starts again takes other ports

    def close(self):
        self.s.close()

    # ---- frames ----

    def send(self, frame):
        self.s.sendall(frame if self.dgram else struct.pack(">I", len(frame)) + frame)

    def _more(self, end):
        if not select.select([self.s], [], [], max(0, end - time.monotonic()))[0]:
            raise TimeoutError("no frame in time")
        data = self.s.recv(65536)
        if not data:
            raise Ended()
        return data

    def recv(self, end):
        if self.dgram:
            return self._more(end)
        while len(self.buf) < 4 or len(self.buf) < 4 + struct.unpack(">I", self.buf[:4])[0]:
            self.buf += self._more(end)
        n = struct.unpack(">I", self.buf[:4])[0]
        frame, self.buf = self.buf[4:4 + n], self.buf[4 + n:]
        return frame

    def until(self, wanted, timeout=10):
        """The first frame for which wanted() gives something; what that is."""
        end = time.monotonic() + timeout
        while True:
            got = wanted(self.recv(end))
            if got is not None:
                return got

    def ended(self, timeout=10):
        """Whether the other end closes the connection in time."""
        end = time.monotonic() + timeout
        try:
            while True:
                self.recv(end)
        except (Ended, ConnectionResetError):
            return True
        except TimeoutError:
            return False

    # ---- a guest ----

    def ether(self, kind, payload, dst=GATEWAY_MAC):
        return (dst + self.mac + struct.pack(">H", kind) + payload).ljust(60, b"\0")

    def arp(self, ip=GATEWAY, timeout=10):
        """Who has ip: the MAC address that answers."""
        q = struct.pack(">HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, self.mac, socket.inet_aton(GUEST), b"\0" * 6, socket.inet_aton(ip))
        self.send(self.ether(0x806, q, b"\xff" * 6))
        return self.until(lambda f: f[22:28] if f[12:14] == b"\x08\x06" and f[20:22] == b"\0\2" and f[28:32] == socket.inet_aton(ip) else None,
                          timeout)

    def udp(self, src, dst, sport, dport, data, dst_mac=GATEWAY_MAC):
        h = struct.pack(">HHHH", sport, dport, 8 + len(data), 0)
        h = h[:6] + struct.pack(">H", transport_sum(src, dst, 17, h + data) or 0xffff)
        self.send(self.ether(0x800, ipv4(src, dst, 17, h + data), dst_mac))

    @staticmethod
    def udp_payload(frame, sport, dport):
        ihl = (frame[14] & 15) * 4
        if frame[12:14] != b"\x08\x00" or frame[23] != 17:
            return None
        s, d, n = struct.unpack(">HHH", frame[14 + ihl:20 + ihl])
        return frame[22 + ihl:14 + ihl + n] if (s, d) == (sport, dport) else None

    def dhcp(self):
        """DISCOVER, OFFER, REQUEST, ACK: the address, and the options of the ACK."""
        def message(kind, more=b""):
            m = struct.pack(">BBBBIHH4s4s4s4s6s10s64s128sI", 1, 1, 6, 0, 0x1234, 0, 0, b"\0" * 4, b"\0" * 4, b"\0" * 4, b"\0" * 4, self.mac,
                            b"", b"", b"", 0x63825363) + bytes([53, 1, kind]) + more + b"\xff"
            self.udp("0.0.0.0", "255.255.255.255", 68, 67, m, b"\xff" * 6)
            return self.until(lambda f: self.udp_payload(f, 67, 68))

        def options(m):
            found, i = {}, 240
            while m[i] != 255:
                if m[i]:
                    found[m[i]] = m[i + 2:i + 2 + m[i + 1]]
                    i += 1 + m[i + 1]
                i += 1
            return found
        offer = message(1)
        assert options(offer)[53] == b"\2", offer
        ack = message(3, bytes([50, 4]) + offer[16:20] + bytes([54, 4]) + options(offer)[54])
        assert options(ack)[53] == b"\5", ack
        return socket.inet_ntoa(ack[16:20]), options(ack)

    def dns(self, name, timeout=10):
        """The first A record of a name, or the response code."""
        self.ident += 1
        q = struct.pack(">HHHHHH", self.ident, 0x100, 1, 0, 0, 0) + b"".join(bytes([len(x)]) + x.encode() for x in name.split(".")) + b"\0\0\1\0\1"
        self.udp(GUEST, RESOLVER, 5353, 53, q)
        a = self.until(lambda f: self.udp_payload(f, 53, 5353), timeout)
        assert a[:2] == q[:2], a
        if a[3] & 15 or not struct.unpack(">H", a[6:8])[0]:
            return a[3] & 15
        return socket.inet_ntoa(a[len(q) + 12:len(q) + 16])

    def segment(self, dst, sport, dport, seq, ack, flags, data=b"", options=b""):
        h = struct.pack(">HHIIBBHHH", sport, dport, seq, ack, (20 + len(options)) // 4 << 4, flags, 65000, 0, 0) + options
        h = h[:16] + struct.pack(">H", transport_sum(GUEST, dst, 6, h + data)) + h[18:]
        self.send(self.ether(0x800, ipv4(GUEST, dst, 6, h + data)))

    @staticmethod
    def tcp_of(frame, src, sport, dport):
        """(flags, seq, ack, data) of a segment of that connection."""
        if frame[12:14] != b"\x08\x00" or frame[23] != 6 or frame[26:30] != socket.inet_aton(src):
            return None
        ihl, total = (frame[14] & 15) * 4, struct.unpack(">H", frame[16:18])[0]
        t = frame[14 + ihl:14 + total]
        s, d, seq, ack, off, flags = struct.unpack(">HHIIBB", t[:14])
        return (flags, seq, ack, t[(off >> 4) * 4:]) if (s, d) == (sport, dport) else None

    def tcp(self, dst, dport, timeout=10):
        """Open a connection: a Tcp, or the flags that answered the SYN."""
        self.port += 1
        c = Tcp(self, dst, self.port, dport)
        self.segment(dst, c.sport, dport, c.seq, 0, SYN, options=bytes([2, 4]) + struct.pack(">H", 1460))
        flags, seq, ack, _ = self.until(lambda f: self.tcp_of(f, dst, dport, c.sport), timeout)
        if flags & (SYN | ACK) != SYN | ACK or flags & RST:
            return flags
        assert ack == c.seq + 1
        c.seq, c.ack = c.seq + 1, (seq + 1) & 0xffffffff
        c._send(ACK)
        return c


class TapVmm(Vmm):
    """One whose card is a tap with a virtio-net header, which it leaves empty, and takes no offloads."""

    def __init__(self, tap, mac=GUEST_MAC):
        super().__init__(None, mac, dgram=True)
        self.tap = tap
        fcntl.ioctl(tap, 0x400454d0, 0)  # TUNSETOFFLOAD

    def close(self):
        os.close(self.tap)

    def send(self, frame):
        os.write(self.tap, bytes(12) + frame)

    def _more(self, end):
        if not select.select([self.tap], [], [], max(0, end - time.monotonic()))[0]:
            raise TimeoutError("no frame in time")
        try:
            return os.read(self.tap, 70000)[12:]
        except OSError as e:  # EBADFD: the device has gone
            raise Ended() from e


def take_tap(path):
    """The descriptor that `attach --tap` has for whoever comes."""
    with connect(path) as s:
        s.settimeout(10)
        word, fds, _, _ = socket.recv_fds(s, 100, 4)
        assert word == b"tap\n" and len(fds) == 1, (word, fds)
        assert s.recv(1) == b"", "and that is all"
        return fds[0]


class Tcp:
    """A connection without retransmission: the wire below loses nothing."""

    def __init__(self, vmm, dst, sport, dport):
        self.v, self.dst, self.sport, self.dport, self.seq, self.ack, self.fin = vmm, dst, sport, dport, 1000, 0, False

    def _send(self, flags, data=b""):
        self.v.segment(self.dst, self.sport, self.dport, self.seq, self.ack, flags, data)

    def sendall(self, data):
        for i in range(0, len(data), 1400):
            self._send(PSH | ACK, data[i:i + 1400])
            self.seq += len(data[i:i + 1400])

    def read(self, n, timeout=10):
        """n bytes, or fewer at the end of the stream."""
        got = b""
        while len(got) < n and not self.fin:
            flags, seq, _, data = self.v.until(lambda f: self.v.tcp_of(f, self.dst, self.dport, self.sport), timeout)
            if flags & RST:
                raise ConnectionResetError()
            if seq != self.ack:
                continue  # seen before
            got += data
            self.ack = (self.ack + len(data)) & 0xffffffff
            if flags & FIN:
                self.fin, self.ack = True, self.ack + 1
            if data or flags & FIN:
                self._send(ACK)
        return got

    def shut(self):
        self._send(FIN | ACK)
        self.seq += 1
