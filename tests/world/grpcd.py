# SPDX-License-Identifier: BSD-3-Clause
"""A gRPC server without generated code: messages are bytes. /world.Echo/ Unary, ServerStream, ClientStream, Bidi, Fail, Sum.

Every call is logged with its metadata; each answers with initial metadata x-initial and trailing metadata x-trailer (and a binary
one), so that a client sees whether the trailers survived what is between.
"""
import json
import os
import sys
import time
from concurrent import futures

import grpc

import worldlib as w

_log = [-1]


def log(**r):
    os.write(_log[0], json.dumps({"t": round(time.monotonic(), 6), **r}).encode() + b"\n")


def begin(name, c):
    md = [[k, v if isinstance(v, str) else v.hex()] for k, v in c.invocation_metadata()]
    log(ev="call", method=name, peer=c.peer(), metadata=md)
    c.send_initial_metadata((("x-initial", name),))
    c.set_trailing_metadata((("x-trailer", f"end of {name}"), ("x-trailer-bin", bytes(range(256)))))


def unary(req, c):
    begin("Unary", c)
    log(ev="message", method="Unary", bytes=len(req))
    return b"echo:" + req


def server_stream(req, c):
    begin("ServerStream", c)
    for i in range(int(req)):
        yield b"%d:%.6f" % (i, time.monotonic())


def client_stream(it, c):
    begin("ClientStream", c)
    n = size = 0
    for m in it:
        n, size = n + 1, size + len(m)
    return b"%d %d" % (n, size)


def bidi(it, c):
    begin("Bidi", c)
    for m in it:
        log(ev="message", method="Bidi", bytes=len(m))
        yield m[::-1]


def fail(req, c):
    begin("Fail", c)
    c.abort(grpc.StatusCode.FAILED_PRECONDITION, "refused: \u00fc % " + req.decode())


def fail_late(req, c):
    begin("FailLate", c)
    yield b"one"
    yield b"two"
    c.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "after two")


def main(folder, path):
    _log[0] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    s = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0)])
    s.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("world.Echo", {
        "Unary": grpc.unary_unary_rpc_method_handler(unary), "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream), "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
        "Fail": grpc.unary_unary_rpc_method_handler(fail), "FailLate": grpc.unary_stream_rpc_method_handler(fail_late)}),))
    with open(os.path.join(folder, "leaf.key"), "rb") as k, open(os.path.join(folder, "leaf.pem"), "rb") as c:
        cred = grpc.ssl_server_credentials([(k.read(), c.read())])
    ip = w.SITES["grpc.test"]
    assert s.add_secure_port(f"{ip}:443", cred) == 443 and s.add_insecure_port(f"{ip}:{w.GRPC_CLEAR}") == w.GRPC_CLEAR
    s.start()
    os.write(1, b"ready\n")
    s.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
