# SPDX-License-Identifier: BSD-3-Clause
"""no_nft.py PROGRAM ARG...: run a program to which the kernel has no nf_tables.

A seccomp filter, which its children inherit, answers socket(AF_NETLINK, *, NETLINK_NETFILTER) with EPROTONOSUPPORT, as a kernel without it does."""
import ctypes
import os
import shutil
import struct
import sys

SOCKET = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
AF_NETLINK, NETLINK_NETFILTER, EPROTONOSUPPORT = 16, 12, 93
LOAD, JUMP_EQUAL, RETURN, ERRNO, ALLOW = 0x20, 0x15, 0x06, 0x00050000, 0x7fff0000


def op(code, jump_true, jump_false, k):
    return struct.pack("HBBI", code, jump_true, jump_false, k)


libc = ctypes.CDLL(None, use_errno=True)
code = b"".join([op(LOAD, 0, 0, 0), op(JUMP_EQUAL, 0, 5, SOCKET), op(LOAD, 0, 0, 16), op(JUMP_EQUAL, 0, 3, AF_NETLINK), op(LOAD, 0, 0, 32),
                 op(JUMP_EQUAL, 0, 1, NETLINK_NETFILTER), op(RETURN, 0, 0, ERRNO | EPROTONOSUPPORT), op(RETURN, 0, 0, ALLOW)])
buf = ctypes.create_string_buffer(code)
prog = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buf)))
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and libc.prctl(PR_SET_SECCOMP, 2, prog) == 0, ctypes.get_errno()
os.execv(shutil.which(sys.argv[1]), sys.argv[1:])
