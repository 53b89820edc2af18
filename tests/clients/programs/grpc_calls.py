# SPDX-License-Identifier: BSD-3-Clause
"""grpc_calls.py HOST: every kind of call with python3-grpcio (its own C core, its own TLS: BoringSSL), trust from its defaults alone."""
import json
import sys
import threading

import grpc

same = lambda b: b  # noqa: E731 - messages are bytes
out = {}
channel = grpc.secure_channel(sys.argv[1] + ":443", grpc.ssl_channel_credentials(), options=[("grpc.max_receive_message_length", 64 << 20)])
grpc.channel_ready_future(channel).result(timeout=20)


def pairs(md):
    return {k: v if isinstance(v, str) else v.hex() for k, v in md or ()}


reply, call = channel.unary_unary("/world.Echo/Unary", same, same).with_call(b"hi", timeout=20, metadata=(("x-text", "a b"), ("x-raw-bin", b"\0\xff")))
out["unary"] = [reply.decode(), call.code().name, pairs(call.initial_metadata()).get("x-initial"), pairs(call.trailing_metadata())]
big = channel.unary_unary("/world.Echo/Unary", same, same)(b"m" * (8 << 20), timeout=60)
out["big"] = [len(big), big[:5].decode(), set(big[5:]) == {ord("m")}]
out["server"] = len(list(channel.unary_stream("/world.Echo/ServerStream", same, same)(b"100", timeout=20)))
out["client"] = channel.stream_unary("/world.Echo/ClientStream", same, same)(iter([b"x" * i for i in range(100)]), timeout=20).decode()

# Each message waits for the answer to the one before it: nothing may be held back on the way.
answered, got = threading.Semaphore(1), []


def ask():
    for i in range(50):
        answered.acquire(timeout=20)
        yield b"message %d" % i


for m in channel.stream_stream("/world.Echo/Bidi", same, same)(ask(), timeout=30):
    got.append(m)
    answered.release()
out["bidi"] = got == [(b"message %d" % i)[::-1] for i in range(50)]
for name, kind in (("Fail", channel.unary_unary), ("FailLate", channel.unary_stream)):
    parts = []
    try:
        r = kind("/world.Echo/" + name, same, same)(b"why", timeout=20)
        for m in r:
            parts.append(m.decode())
    except grpc.RpcError as e:
        out[name] = [parts, e.code().name, e.details(), pairs(e.trailing_metadata()).get("x-trailer")]
futures = [channel.unary_unary("/world.Echo/Unary", same, same).future(b"%d" % i, timeout=30) for i in range(100)]
out["many"] = [f.result().decode() for f in futures] == [f"echo:{i}" for i in range(100)]
try:
    channel.unary_unary("/world.Echo/None", same, same)(b"", timeout=20)
except grpc.RpcError as e:
    out["unknown"] = e.code().name
print(json.dumps(out))
