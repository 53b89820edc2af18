# SPDX-License-Identifier: BSD-3-Clause
"""gRPC: unary, streams both ways, large messages, errors that come as trailers, a hundred calls at once."""
from conftest import need_modules


def test_grpc(client, world, mark):
    need_modules("grpc")
    r = client.python("grpc_calls.py", "grpc.test", allow=["grpc.test"])
    o = r.json()
    assert o["unary"][:3] == ["echo:hi", "OK", "Unary"]
    assert o["unary"][3] == {"x-trailer": "end of Unary", "x-trailer-bin": bytes(range(256)).hex()}, o
    assert o["big"] == [(8 << 20) + 5, "echo:", True] and o["server"] == 100 and o["client"] == "100 4950" and o["bidi"] and o["many"]
    assert o["Fail"] == [[], "FAILED_PRECONDITION", "refused: \u00fc % why", "end of Fail"]
    assert o["FailLate"] == [["one", "two"], "RESOURCE_EXHAUSTED", "after two", "end of FailLate"]
    assert o["unknown"] == "UNIMPLEMENTED"
    calls = world.since(mark, "grpc", ev="call")
    assert [c["method"] for c in calls if c["method"] != "Unary"] == ["ServerStream", "ClientStream", "Bidi", "Fail", "FailLate"]
    assert sum(c["method"] == "Unary" for c in calls) == 102
    assert ["x-text", "a b"] in calls[0]["metadata"] and ["x-raw-bin", "00ff"] in calls[0]["metadata"]
    assert len({c["peer"] for c in calls}) == 1, "one connection here is one connection there"
    # A grpcio of this age offers "grpc-exp" before "h2", and so its server picks that: the same HTTP/2 by another name.
    assert r.alpn("grpc.test") in (None, "grpc-exp", "h2")
    r.intercepted("grpc.test", r.alpn("grpc.test"), ("POST", "/world.Echo/Unary", 200), ("POST", "/world.Echo/Bidi", 200), ("POST", "/world.Echo/Fail", 200))
    r.quiet()
