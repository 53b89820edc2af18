# SPDX-License-Identifier: BSD-3-Clause
"""What lies in a process: for tests that look for secrets where none may be. (Not with a sanitizer: its shadow memory is too large to search.)"""
import base64
import ctypes
import os
import re
import subprocess


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def memory(pid):
    """What is writable in a process: heap, data, and the stack with arguments and environment. (/proc/PID/mem would ask for the file's owner.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    found = []
    with open(f"/proc/{pid}/maps") as maps:
        areas = [line.split()[:2] for line in maps]
    for area, mode in areas:
        if not mode.startswith("rw"):
            continue
        begin, end = (int(x, 16) for x in area.split("-"))
        buf = ctypes.create_string_buffer(end - begin)
        n = libc.process_vm_readv(pid, ctypes.byref(Vector(ctypes.addressof(buf), end - begin)), 1, ctypes.byref(Vector(begin, end - begin)), 1, 0)
        if n > 0:
            found.append(buf.raw[:n])
    assert found, f"nothing of process {pid} can be read: {os.strerror(ctypes.get_errno())}"
    return b"".join(found)


def environment(pid):
    """The environment that a process was started with, as it lies in its memory now: /proc/PID/environ belongs to root where the process is not dumpable."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    begin, end = int(fields[47]), int(fields[48])  # env_start, env_end (proc(5): 50 and 51, counted from 1 and with pid and comm)
    if begin == 0 or end <= begin:
        return b""
    buf = ctypes.create_string_buffer(end - begin)
    n = libc.process_vm_readv(pid, ctypes.byref(Vector(ctypes.addressof(buf), end - begin)), 1, ctypes.byref(Vector(begin, end - begin)), 1, 0)
    return buf.raw[:max(n, 0)]


def forms(secret):
    """The ways in which a secret may lie about: itself, percent-encoded, in base64 at each offset (the characters that are its alone), in hex, as UTF-16."""
    raw = secret if isinstance(secret, bytes) else secret.encode()
    found = [raw, b"".join(b"%%%02X" % c for c in raw), b"".join(b"%%%02x" % c for c in raw), raw.hex().encode(), raw.decode("latin-1").encode("utf-16-le")]
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for k in range(3):
            text = encode(b"~" * k + raw + b"~~~")
            found.append(text[-(-8 * k // 6):8 * (k + len(raw)) // 6])
    return found


def body(pem):
    """The base64 text of the first block."""
    return "".join(re.search(r"-----BEGIN [A-Z0-9 ]+-----(.*?)-----END", pem, re.S).group(1).split())


def key_forms(pem):
    """The key as it could lie about: text, DER, and the bare number."""
    der = base64.b64decode(body(pem))
    text = subprocess.run(["openssl", "pkey", "-noout", "-text"], input=pem.encode(), capture_output=True, check=True).stdout.decode()
    number = bytes.fromhex("".join(re.search(r"priv:(.*?)pub:", text, re.S).group(1).split()).replace(":", ""))[-32:]
    assert len(number) == 32 and number in der
    return [body(pem).encode()[:60], der, number, number[::-1], number.hex().encode()]  # the fourth: as OpenSSL holds it
