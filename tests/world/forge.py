# SPDX-License-Identifier: BSD-3-Clause
"""TLS records that no library would write, for servers of the world and for guests: after an ordinary handshake whose secrets were logged
(ssl's keylog), records of one side are made here. TLS 1.3 with AES-GCM only; standard library, and libcrypto by ctypes.
"""
import ctypes
import hashlib
import hmac
import os
import ssl
import struct
import tempfile

ALERT, HANDSHAKE, DATA = 21, 22, 23
FLOOD = 384 << 10  # bytes of wire that a flood has ready
KINDS = ("empty", "padding", "warnings", "ccs", "keyupdate", "keyupdate-asked", "tickets", "onebyte", "onebyte-empty")
TICKET = bytes([4, 0, 0, 15, 0, 0, 14, 16, 1, 2, 3, 4, 1, 7, 0, 1, 9, 0, 0])
_c = ctypes.CDLL("libcrypto.so.3")
for _n in ("EVP_CIPHER_CTX_new", "EVP_aes_128_gcm", "EVP_aes_256_gcm"):
    getattr(_c, _n).restype = ctypes.c_void_p


def context(server, pem=None):
    """TLS 1.3 that logs its secrets. For one connection."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    c.minimum_version = ssl.TLSVersion.TLSv1_3
    fd, c.keylog_filename = tempfile.mkstemp(prefix="keylog.")
    os.close(fd)
    if server:
        c.load_cert_chain(pem)
        c.num_tickets = 0
    else:
        c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    return c


class Forge:
    """The sending half of a connection whose library has sent nothing since the handshake; `obj` is its SSLSocket or SSLObject."""

    def __init__(self, ctx, obj):
        self.hash, self.size = ("sha384" if obj.cipher()[0].endswith("SHA384") else "sha256"), 32 if "256_GCM" in obj.cipher()[0] else 16
        self.cipher = ctypes.c_void_p((_c.EVP_aes_256_gcm if self.size == 32 else _c.EVP_aes_128_gcm)())
        self.ctx, self.seq = ctypes.c_void_p(_c.EVP_CIPHER_CTX_new()), 0
        label = ("SERVER" if obj.server_side else "CLIENT") + "_TRAFFIC_SECRET_0"
        with open(ctx.keylog_filename) as f:
            self.secret, = [bytes.fromhex(x.split()[2]) for x in f if x.startswith(label)]
        os.unlink(ctx.keylog_filename)
        self.keys()

    def expand(self, label, n):
        label = b"tls13 " + label
        info = struct.pack("!HB", n, len(label)) + label + b"\0"
        return hmac.new(self.secret, info + b"\1", self.hash).digest()[:n]

    def keys(self):
        self.key, self.iv, self.seq = self.expand(b"key", self.size), int.from_bytes(self.expand(b"iv", 12), "big"), 0
        self.fresh = True

    def record(self, kind, data, pad=0):
        """One record, sealed."""
        plain = data + bytes([kind]) + bytes(pad)
        head = struct.pack("!BHH", 23, 0x303, len(plain) + 16)
        nonce = (self.iv ^ self.seq).to_bytes(12, "big")
        out, tag, n = ctypes.create_string_buffer(len(plain)), ctypes.create_string_buffer(16), ctypes.c_int()
        ok = _c.EVP_EncryptInit_ex(self.ctx, self.cipher if self.fresh else None, None, self.key if self.fresh else None, nonce) \
            and _c.EVP_EncryptUpdate(self.ctx, None, ctypes.byref(n), head, 5) \
            and _c.EVP_EncryptUpdate(self.ctx, out, ctypes.byref(n), plain, len(plain)) \
            and _c.EVP_EncryptFinal_ex(self.ctx, tag, ctypes.byref(n)) and _c.EVP_CIPHER_CTX_ctrl(self.ctx, 0x10, 16, tag)
        assert ok
        self.seq, self.fresh = self.seq + 1, False
        return head + out.raw + tag.raw

    def key_update(self, ask):
        r = self.record(HANDSHAKE, bytes([24, 0, 0, 1, int(ask)]))
        self.secret = self.expand(b"traffic upd", hashlib.new(self.hash).digest_size)
        self.keys()
        return r

    def make(self, what, size):
        """At least so many bytes of one kind of flood."""
        one = {
            "empty": lambda: self.record(DATA, b""),
            "padding": lambda: self.record(DATA, b"", 1000),
            "warnings": lambda: self.record(ALERT, b"\1\x5a"),
            "ccs": lambda: b"\x14\3\3\0\1\1",
            "keyupdate": lambda: self.key_update(False),
            "keyupdate-asked": lambda: self.key_update(True),
            "tickets": lambda: self.record(HANDSHAKE, TICKET * 100),
            "onebyte": lambda: self.record(DATA, b"x"),
            "onebyte-empty": lambda: b"".join(self.record(DATA, b"") for _ in range(20)) + self.record(DATA, b"x"),
        }[what]
        out, n = [], 0
        while n < size:
            out.append(one())
            n += len(out[-1])
        return b"".join(out)
